//! Text and bytes that are refused, each with what is wrong and where.

use datahike_value::edn::{self, Reader};
use datahike_value::{Limits, Value};
use proptest::prelude::*;

use crate::any;

#[test]
fn each_mistake_has_its_message_and_place() {
    for (text, message) in [
        ("", "no form found at line 1, column 1 (byte 0)"),
        (" ; only a comment", "no form found at line 1, column 18 (byte 17)"),
        ("1 2", "text after the end of the form at line 1, column 3 (byte 2)"),
        ("[1\n {:a", "the text ends inside the map that begins at line 2, column 2 (byte 4)"),
        ("\"é\" \"abc", "the text ends inside the string that begins at line 1, column 5 (byte 5)"),
        ("#\"abc\\\"", "the text ends inside the regex that begins at line 1, column 1 (byte 0)"),
        ("#inst", "the text ends inside the tag that begins at line 1, column 1 (byte 0)"),
        ("[1 #_", "the text ends inside the discard #_ that begins at line 1, column 4 (byte 3)"),
        ("]", "unmatched `]` at line 1, column 1 (byte 0)"),
        ("[1 }", "unmatched `}`, expected `]` at line 1, column 4 (byte 3)"),
        ("[#_]", "nothing follows the discard #_ at line 1, column 2 (byte 1)"),
        ("[#inst]", "nothing follows the tag at line 1, column 2 (byte 1)"),
        (
            "[{:a}]",
            "map with an odd number of forms: the last key has no value at line 1, column 2 (byte 1)",
        ),
        ("{:a 1 :a 2}", "duplicate key in map: :a at line 1, column 1 (byte 0)"),
        ("#{1 2 1}", "duplicate element in set: 1 at line 1, column 1 (byte 0)"),
        (
            "'(1)",
            "unexpected `'`: EDN has no quote, write the form alone at line 1, column 1 (byte 0)",
        ),
        ("@a", "unexpected `@`: not part of EDN at line 1, column 1 (byte 0)"),
        (
            "1/2",
            "invalid number `1/2`: ratios are not supported, write a decimal at line 1, column 1 (byte 0)",
        ),
        ("[017]", "invalid number `017`: has a leading zero at line 1, column 2 (byte 1)"),
        ("1a", "invalid number `1a`: not a number at line 1, column 1 (byte 0)"),
        ("1.2.3", "invalid number `1.2.3`: not a number at line 1, column 1 (byte 0)"),
        ("1e", "invalid number `1e`: not a number at line 1, column 1 (byte 0)"),
        (
            "1e999",
            "invalid number `1e999`: out of the range of a double at line 1, column 1 (byte 0)",
        ),
        ("0xg", "invalid number `0xg`: needs hexadecimal digits at line 1, column 1 (byte 0)"),
        ("1N2", "invalid number `1N2`: not a number at line 1, column 1 (byte 0)"),
        ("1.5N", "invalid number `1.5N`: not a number at line 1, column 1 (byte 0)"),
        ("99r1", "invalid number `99r1`: needs a base from 2 to 36 at line 1, column 1 (byte 0)"),
        (":", "invalid token `:`: not a keyword at line 1, column 1 (byte 0)"),
        (
            "::a",
            "invalid token `::a`: EDN has no `::`, write the namespace out at line 1, column 1 (byte 0)",
        ),
        (":a/", "invalid token `:a/`: not a keyword at line 1, column 1 (byte 0)"),
        ("a/", "invalid token `a/`: not a symbol at line 1, column 1 (byte 0)"),
        (".1", "invalid token `.1`: not a symbol at line 1, column 1 (byte 0)"),
        (
            "##Foo",
            "invalid token `Foo`: known after ## are Inf, -Inf and NaN at line 1, column 1 (byte 0)",
        ),
        ("#(inc 1)", "unsupported `#(` at line 1, column 1 (byte 0)"),
        ("#::{:a 1}", "unsupported `#:` at line 1, column 1 (byte 0)"),
        ("#", "the text ends inside the tag that begins at line 1, column 1 (byte 0)"),
        ("\"\\x\"", "invalid escape in string: `\\x` at line 1, column 2 (byte 1)"),
        ("\"\\ud800\"", "invalid escape in string: `\\u` at line 1, column 2 (byte 1)"),
        ("\"\\u+123\"", "invalid escape in string: `\\u` at line 1, column 2 (byte 1)"),
        ("\\spice", "invalid character literal `\\spice` at line 1, column 1 (byte 0)"),
        ("\\ud800", "invalid character literal `\\ud800` at line 1, column 1 (byte 0)"),
        ("#inst \"2026-13\"", "invalid #inst: month out of range at line 1, column 1 (byte 0)"),
        ("#inst 5", "invalid #inst: needs a string, found a long at line 1, column 1 (byte 0)"),
        ("#uuid \"5\"", "invalid #uuid: needs 36 characters at line 1, column 1 (byte 0)"),
        (
            "#bytes \"0\"",
            "invalid #bytes: needs pairs of hexadecimal digits at line 1, column 1 (byte 0)",
        ),
        (
            "#dh/i32 2147483648",
            "invalid #dh/i32: needs a 32-bit integer, found a long at line 1, column 1 (byte 0)",
        ),
        ("1E10001M", "decimal exponent beyond 10000 at line 1, column 1 (byte 0)"),
        ("1E999999999999999999999M", "decimal exponent beyond 10000 at line 1, column 1 (byte 0)"),
    ] {
        assert_eq!(edn::read(text).map_err(|e| e.to_string()), Err(message.into()), "{text}");
    }
}

#[test]
fn each_limit_holds_and_what_is_just_within_passes() {
    let limits = Limits { depth: 3, collection_items: 4, digits: 5, exponent: 7, string_bytes: 20 };
    for (within, beyond, message) in [
        ("[[[]]]", "[[[[]]]]", "nested more than 3 levels deep"),
        ("#_#_#t 1 2 3", "#_#_#t #t 1 2 3", "nested more than 3 levels deep"),
        ("[1 2 3 4]", "[1 2 3 4 5]", "more than 4 items in one collection"),
        ("{1 2 3 4}", "{1 2 3 4 5 6}", "more than 4 items in one collection"),
        ("12345N", "123456N", "number of more than 5 digits"),
        ("123.45M", "1.23456", "number of more than 5 digits"),
        ("0xfffff", "0xfffffffffffff", "number of more than 5 digits"),
        ("1e7M", "1e8M", "decimal exponent beyond 7"),
        ("1e-7M", "1e-8M", "decimal exponent beyond 7"),
        ("\"12345678901234567890\"", "\"123456789012345678901\"", "string of more than 20 bytes"),
        (
            "\"\\n2345678901234567890\"",
            "\"\\n23456789012345678901\"",
            "string of more than 20 bytes",
        ),
        (":abcdefghijklmnopqrs", ":abcdefghijklmnopqrst", "string of more than 20 bytes"),
        ("#\"12345678901234567890\"", "#\"123456789012345678901\"", "string of more than 20 bytes"),
    ] {
        assert!(edn::read_with(within, &limits).is_ok(), "{within}");
        let error = edn::read_with(beyond, &limits).map_err(|e| e.kind.to_string());
        assert_eq!(error, Err(message.into()), "{beyond}");
    }
}

#[test]
fn bombs_are_refused_by_the_default_limits() {
    let deep = |open: &str| open.repeat(100_000);
    for text in [
        deep("["),
        deep("("),
        deep("#{"),
        deep("{:a "),
        deep("#_"),
        deep("#t "),
        deep("#:a{:b "),
        "1".repeat(1_000_000) + "N",
        "1".repeat(5000),
        format!("0x{}", "f".repeat(1_000_000)),
        format!("0.{}M", "1".repeat(5000)),
        format!("1e{}", "9".repeat(5000)),
        "[".to_owned() + &"1 ".repeat(1_000_001) + "]",
    ] {
        let mut forms = Reader::new(&text);
        assert!(forms.next().unwrap().is_err());
        assert!(forms.next().is_none());
    }
}

proptest! {
    #![proptest_config(any::config())]

    #[test]
    fn mutated_bytes_decode_or_fail_but_never_panic(
        v in any::value(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = rmp_serde::to_vec(&v).unwrap();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = rmp_serde::from_slice::<Value>(&bytes);
        let _ = rmp_serde::from_slice::<Value>(&bytes[..cut.index(bytes.len())]);
    }
}

#[test]
fn deep_bytes_are_refused() {
    // Sequences of one element: code 0, then again.
    let bytes = [0x92, 0x00].repeat(100_000);
    assert!(rmp_serde::from_slice::<Value>(&bytes).is_err());
    let maps = [0x81].repeat(100_000);
    assert!(rmp_serde::from_slice::<Value>(&maps).is_err());
}

#[test]
fn bytes_that_claim_too_much_are_refused() {
    for bytes in [
        vec![0xdd, 0xff, 0xff, 0xff, 0xff, 0x00],
        vec![0xdf, 0xff, 0xff, 0xff, 0xff],
        vec![0x92, 0x63, 0xc0],
        vec![0x90],
        // A big decimal of scale 2^31.
        vec![0x93, 0x08, 0xc4, 0x01, 0x01, 0xce, 0x80, 0x00, 0x00, 0x00],
        // The same key twice.
        vec![0x82, 0x01, 0x01, 0x01, 0x02],
        // The same element twice.
        vec![0x93, 0x04, 0x01, 0x01],
    ] {
        assert!(rmp_serde::from_slice::<Value>(&bytes).is_err(), "{bytes:x?}");
    }
}
