//! Reading and printing.

use std::time::{Duration, Instant};

use datahike_value::edn::{self, Reader};
use datahike_value::{BigDecimal, Keyword, Limits, Value, kw, list, map, set, vector};
use proptest::prelude::*;

use crate::any;

proptest! {
    #![proptest_config(any::config())]

    #[test]
    fn what_is_printed_reads_back(v in any::value()) {
        let text = v.to_string();
        prop_assert_eq!(edn::read(&text).map_err(|e| format!("{text}: {e}")), Ok(v));
    }

    #[test]
    fn reading_anything_ends_without_a_panic(text in "([\\[\\](){}#:\"\\\\;_ an1./+-]|##|#_|#inst|é){0,24}") {
        let _ = edn::read_all(&text);
    }

    #[test]
    fn doubles_print_their_shortest_digits(d in any::<f64>()) {
        prop_assume!(d.is_finite());
        prop_assert_eq!(Value::from(d).to_string().parse::<f64>().unwrap().to_bits(), d.to_bits());
    }
}

#[test]
fn prints_as_clojure_prints() {
    for (value, text) in [
        (Value::from(1.0), "1.0"),
        (1e10.into(), "1.0E10"),
        (1_234_567.0.into(), "1234567.0"),
        (12_345_678.0.into(), "1.2345678E7"),
        (0.001.into(), "0.001"),
        (1e-4.into(), "1.0E-4"),
        (0.012_34.into(), "0.01234"),
        ((-0.0).into(), "-0.0"),
        (f64::MAX.into(), "1.7976931348623157E308"),
        (f64::NEG_INFINITY.into(), "##-Inf"),
        (0.1f32.into(), "#float 0.1"),
        (Value::bigint(7), "7N"),
        (BigDecimal::new(150.into(), 2).into(), "1.50M"),
        (BigDecimal::new((-15).into(), -3).into(), "-1.5E+4M"),
        (BigDecimal::new(1.into(), 7).into(), "1E-7M"),
        (BigDecimal::new(1.into(), 6).into(), "0.000001M"),
        (BigDecimal::new(0.into(), -3).into(), "0E+3M"),
        (Value::Inst(1_795_444_406_706), "#inst \"2026-11-23T14:33:26.706-00:00\""),
        ("a\"b\\c\n".into(), r#""a\"b\\c\n""#),
        ('\n'.into(), "\\newline"),
        ('ä'.into(), "\\ä"),
        (Keyword::parse("person/name").into(), ":person/name"),
        (Keyword::new(None, "odd name").into(), "#keyword [nil \"odd name\"]"),
        (Value::symbol("?x"), "?x"),
        (vector![1, "a", kw!("b"), list![Value::symbol("inc"), 1]], "[1 \"a\" :b (inc 1)]"),
        (map! { kw!("b") => 2, kw!("a") => 1 }, "{:a 1, :b 2}"),
        (set![3, 1, 2], "#{1 2 3}"),
        (Value::bytes(vec![0, 255]), "#bytes \"00ff\""),
        (Value::tagged("my/tag", 1), "#my/tag 1"),
        (Value::tagged("inst", "x"), "#tagged [inst \"x\"]"),
    ] {
        assert_eq!(value.to_string(), text);
        assert_eq!(edn::read(text).unwrap(), value);
    }
}

#[test]
fn reads_what_edn_and_clojure_write() {
    for (text, same) in [
        ("; a comment\n #_ skipped #_ #_ a b [1 #_ 2 3] ; the end", "[1 3]"),
        ("#_ #my/tag #inst \"garbage is still read\" 1", ""),
        ("[#_#_1 2]", "[]"),
        ("#inst #_ 1 \"1970\"", "#inst \"1970-01-01T00:00:00.000-00:00\""),
        (
            "#:person{:name 1 :_/id 2 :other/x 3 \"s\" 4 sym 5}",
            "{\"s\" 4, :id 2, :other/x 3, :person/name 1, person/sym 5}",
        ),
        ("#dh/bytes \"00fF\"", "#bytes \"00ff\""),
        (
            "[#dh/i32 -1 #dh/f32 1.5 #dh/bigint 3 #dh/f32s [1.5 2] #dh/f64s [0.1]]",
            "[-1 #float 1.5 3N #floats [1.5 2.0] #doubles [0.1]]",
        ),
        (
            "[+1 -0 1e3 1. 0x1F -0xff 2r101 36rZ 9223372036854775808 -9223372036854775808]",
            "[1 0 1000.0 1.0 31 -255 5 35 9223372036854775808N -9223372036854775808]",
        ),
        ("[1M 1.50M 1e3M -1.5E-3M 7N]", "[1M 1.50M 1E+3M -0.0015M 7N]"),
        (r"[\a \( \newline \u00e4 \o101 \\ \u \, \;]", r"[\a \( \newline \ä \A \\ \u \, \;]"),
        (r#"["\u00e4\ud83d\ude00\101\0"]"#, "[\"ä😀A\0\"]"),
        (r#"#"a\"\d\\""#, r#"#"a\"\d\\""#),
        (
            "[$ % _ . ... ?x -> <= / a.b/c -a +a .a a' a#b]",
            "[$ % _ . ... ?x -> <= / a.b/c -a +a .a a' a#b]",
        ),
        ("[:a :a/b :1 :a.b/c? :? :+ :a:b]", "[:a :a/b :1 :a.b/c? :? :+ :a:b]"),
        ("[##Inf ##-Inf ##NaN]", "[##Inf ##-Inf ##NaN]"),
        ("{:a 1, :b {}}", "{:a 1, :b {}}"),
        ("\u{feff}[1]", "[1]"),
        ("#!/usr/bin/env datahike\n1", "1"),
        (
            "#uuid \"F81D4FAE-7DEC-11D0-A765-00A0C91E6BF6\"",
            "#uuid \"f81d4fae-7dec-11d0-a765-00a0c91e6bf6\"",
        ),
        ("#datahike/Datom [1 :a 2]", "#datahike/Datom [1 :a 2]"),
    ] {
        let read = edn::read_all(text).map_err(|e| format!("{text}: {e}"));
        let printed = read.map(|values| values.first().map(Value::to_string).unwrap_or_default());
        if text.starts_with("#_ #my") {
            assert!(
                printed.unwrap_err().contains("invalid #inst"),
                "discarded forms must be EDN too"
            );
        } else {
            assert_eq!(printed.as_deref(), Ok(same), "{text}");
        }
    }
}

#[test]
fn forms_know_where_they_stand() {
    let text = "é 1\n\n  #_x {:a\n2} #t :b";
    let forms: Vec<_> = Reader::new(text).map(Result::unwrap).collect();
    let places: Vec<_> = forms
        .iter()
        .map(|f| (f.position.line, f.position.column, &text[f.position.offset..f.end]))
        .collect();
    assert_eq!(places, [(1, 1, "é"), (1, 3, "1"), (3, 7, "{:a\n2}"), (4, 4, "#t :b")]);
}

#[test]
fn depth_at_the_limit_fits_a_small_stack() {
    let limit = Limits::DEFAULT.depth;
    for (open, close) in
        [("[", "]"), ("{:a ", "}"), ("(", ")"), ("#{", "}"), ("#t ", ""), ("{[] #t ", "}")]
    {
        let levels = if open.starts_with("{[") { limit / 2 } else { limit };
        let text = format!("{}[]{}", open.repeat(levels - 1), close.repeat(levels - 1));
        std::thread::Builder::new()
            .stack_size(2 << 20)
            .spawn(move || {
                let v = edn::read(&text).unwrap();
                assert_eq!(v.cmp(&edn::read(&v.to_string()).unwrap()), std::cmp::Ordering::Equal);
                std::collections::HashSet::from([v.clone()]).contains(&v);
                let bytes = rmp_serde::to_vec(&v).unwrap();
                assert_eq!(rmp_serde::from_slice::<Value>(&bytes).unwrap(), v);
                assert_eq!(datahike_value::to_value(&v).unwrap(), v);
                assert_eq!(datahike_value::from_value::<Value>(v.clone()).unwrap(), v);
            })
            .unwrap()
            .join()
            .unwrap();
    }
}

/// Twice the input takes about twice the time; a quadratic reader would take minutes here.
#[test]
fn reading_is_linear() {
    let started = Instant::now();
    let n = 20_000;
    for text in [
        "[] ".repeat(n),
        format!("[{}]", "a ".repeat(n)),
        format!("{{{}}}", (0..n).map(|i| format!(":k{i} {i} ")).collect::<String>()),
        format!("\"{}\"", "\\n".repeat(n)),
        "\n1".repeat(n),
        format!("[{}]", "#_ x ".repeat(n)),
        format!("#\"{}\"", "\\.".repeat(n)),
    ] {
        edn::read_all(&text).unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}
