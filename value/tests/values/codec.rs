//! Values through the formats of other languages.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use datahike_value::codec::{CodecError, cbor, json, transit};
use datahike_value::{Keyword, Symbol, Value, edn};
use proptest::prelude::*;

use crate::any;

/// Any value in which names read back from their text as what they are, and tags are plain.
fn value() -> impl Strategy<Value = Value> {
    any::value().prop_map(|value| plain(&value))
}

fn plain(value: &Value) -> Value {
    match value {
        Value::Keyword(k) if k.text().is_empty() || Keyword::parse(k.text()) != *k => {
            Value::keyword("a/name")
        }
        Value::Symbol(s)
            if s.text().is_empty()
                || s.text().starts_with(':')
                || Symbol::parse(s.text()) != *s =>
        {
            Value::symbol("a/name")
        }
        Value::Vector(items) => Value::vector(items.iter().map(plain)),
        Value::List(items) => Value::list(items.iter().map(plain)),
        Value::Set(items) => Value::set(items.iter().map(plain)),
        Value::Map(entries) => Value::map(entries.iter().map(|(k, v)| (plain(k), plain(v)))),
        Value::Tagged(inner) => Value::tagged("my/tag", plain(&inner.value)),
        value => value.clone(),
    }
}

fn form(text: &str) -> Value {
    edn::read(text).unwrap()
}

proptest! {
    #![proptest_config(any::config())]

    #[test]
    fn cbor_loses_nothing(value in value()) {
        prop_assert_eq!(cbor::read(&cbor::write(&value)).unwrap(), value);
    }

    #[test]
    fn transit_loses_nothing(value in value()) {
        let text = transit::write(&value);
        prop_assert_eq!(transit::read(text.as_bytes()).unwrap(), value, "{}", text);
    }

    #[test]
    fn tagged_json_that_was_read_is_kept(value in value()) {
        let once = json::read(json::write(&value).as_bytes()).unwrap();
        prop_assert_eq!(json::read(json::write(&once).as_bytes()).unwrap(), once);
    }

    #[test]
    fn any_bytes_are_a_value_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = cbor::read(&bytes);
        let _ = json::read(&bytes);
        let _ = transit::read(&bytes);
    }

    #[test]
    fn damaged_bytes_are_a_value_or_an_error(
        value in value(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let mut bytes = cbor::write(&value);
        let place = at.index(bytes.len());
        bytes[place] = byte;
        let _ = cbor::read(&bytes);
        let mut text = transit::write(&value).into_bytes();
        let place = at.index(text.len());
        text[place] = byte;
        let _ = transit::read(&text);
        let _ = json::read(&text);
    }
}

#[test]
fn tagged_json_is_as_datahike_writes_it() {
    for (value, text) in [
        (":db.type/string", r#"["!kw","db.type/string"]"#),
        ("?n", r#"["!sym","?n"]"#),
        ("#{[\"Bob\" 40]}", r#"["!set",[["Bob",40]]]"#),
        ("{:db/id 4 :name \"Alice\"}", r#"{"name":"Alice","db/id":4}"#),
        ("{4 2, :a nil}", r#"{"4":2,"a":null}"#),
        ("#inst \"2026-11-23T14:49:12.470Z\"", r#"["!date","1795445352470"]"#),
        (
            "#uuid \"00000000-0000-0000-0000-000000000002\"",
            r#"["!uuid","00000000-0000-0000-0000-000000000002"]"#,
        ),
        (
            "#datahike/Connection [#uuid \"00000000-0000-0000-0000-000000000002\" :db]",
            r#"["!datahike/Connection",[["!uuid","00000000-0000-0000-0000-000000000002"],["!kw","db"]]]"#,
        ),
        ("[1.0 1.5M 7N \\a]", r#"[1.0,["!bigdec","1.5"],["!bigint","7"],["!char","a"]]"#),
    ] {
        assert_eq!(json::write(&form(value)), text);
    }
    assert_eq!(json::read(br#"{"db/ident": ["!kw", "name"]}"#).unwrap(), form("{:db/ident :name}"));
    assert_eq!(json::read(br#"["!nothing", 1]"#).unwrap(), form("[\"!nothing\" 1]"));
}

#[test]
fn transit_is_as_the_specification_writes_it() {
    for (value, text) in [
        ("1", r#"["~#'",1]"#),
        ("\"~x\"", r#"["~#'","~~x"]"#),
        ("[:a/b foo \"x\" nil true]", r#"["~:a/b","~$foo","x",null,true]"#),
        ("[{:aaaa 1} {:aaaa 2}]", r#"[["^ ","~:aaaa",1],["^ ","^0",2]]"#),
        ("[:aaaa :bbbb :aaaa :bbbb]", r#"["~:aaaa","~:bbbb","^0","^1"]"#),
        ("{\"name\" 1}", r#"["^ ","name",1]"#),
        ("{1 2}", r#"["^ ","~i1",2]"#),
        ("{[1 2] 3}", r#"["~#cmap",[[1,2],3]]"#),
        ("#{1}", r#"["~#set",[1]]"#),
        ("[#{1} #{2}]", r#"[["~#set",[1]],["^0",[2]]]"#),
        ("9007199254740993", r#"["~#'","~i9007199254740993"]"#),
        ("#inst \"1970-01-01T00:00:01.000Z\"", r#"["~#'","~m1000"]"#),
        ("#my/tag [1]", r#"["~#my/tag",[1]]"#),
    ] {
        assert_eq!(transit::write(&form(value)), text);
        assert_eq!(transit::read(text.as_bytes()).unwrap(), form(value));
    }
    assert_eq!(transit::read(br#"{"~:a": {"~#set": [1]}}"#).unwrap(), form("{:a #{1}}"));
    let stray = transit::read(br#"["^5"]"#);
    assert!(matches!(stray, Err(CodecError::Syntax { .. })), "{stray:?}");
}

#[test]
fn nesting_is_bounded() {
    let deep = "[".repeat(5_000) + &"]".repeat(5_000);
    assert!(json::read(deep.as_bytes()).is_err());
    assert!(transit::read(deep.as_bytes()).is_err());
    let deep = vec![0x81; 5_000];
    assert!(matches!(cbor::read(&deep), Err(CodecError::Limit { .. })));
    // A length that is not there takes no memory.
    assert!(cbor::read(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err());
}

#[test]
fn what_does_not_fit_its_tag_is_named() {
    for text in [r#"["!uuid","x"]"#, r#"["!kw",3]"#, r#"["!set",{}]"#, r#"["!bigint","1M"]"#] {
        let error = json::read(text.as_bytes()).unwrap_err();
        assert!(matches!(error, CodecError::Tag { .. }), "{error}");
    }
}

#[test]
fn no_format_has_empty_names() {
    for text in [r#"["~:",1]"#, r#"["~::",1]"#, r#"["~$",1]"#, r#"["~$:",1]"#] {
        assert!(transit::read(text.as_bytes()).is_err(), "{text}");
    }
    for text in [r#"["!kw",""]"#, r#"["!kw",":"]"#, r#"["!kw","::"]"#, r#"["!sym",""]"#] {
        assert!(json::read(text.as_bytes()).is_err(), "{text}");
    }
    let tag = cbor::write(&Value::keyword("k"));
    let bare = |text: &[u8]| [&tag[..tag.len() - 3], &[0x60 + text.len() as u8], text].concat();
    assert_eq!(cbor::read(&bare(b":k")).unwrap(), Value::keyword("k"));
    for text in [&b""[..], b":", b"::"] {
        assert!(cbor::read(&bare(text)).is_err(), "{text:?}");
    }
}
