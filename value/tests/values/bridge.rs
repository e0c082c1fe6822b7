//! Values through serde, and typed data as values.

use std::collections::BTreeMap;

use datahike_value::{Keyword, Uuid, Value, edn, from_value, kw, list, map, set, to_value, vector};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use crate::any;

proptest! {
    #![proptest_config(any::config())]

    #[test]
    fn messagepack_is_lossless(v in any::value()) {
        let bytes = rmp_serde::to_vec(&v).unwrap();
        prop_assert_eq!(rmp_serde::from_slice::<Value>(&bytes).unwrap(), v);
    }

    #[test]
    fn equal_values_have_equal_bytes(v in any::value()) {
        let again = edn::read(&v.to_string()).unwrap();
        prop_assert_eq!(rmp_serde::to_vec(&v).unwrap(), rmp_serde::to_vec(&again).unwrap());
    }

    #[test]
    fn a_value_through_the_bridge_stays_what_it_is(v in any::value()) {
        prop_assert_eq!(&to_value(&v).unwrap(), &v);
        prop_assert_eq!(&from_value::<Value>(v.clone()).unwrap(), &v);
    }
}

/// These bytes are stored: they may be added to, never changed.
#[test]
fn bytes_are_frozen() {
    for (text, bytes) in [
        ("nil", "c0"),
        ("true", "c3"),
        ("1", "01"),
        ("-1", "ff"),
        ("300", "cd012c"),
        ("1.5", "cb3ff8000000000000"),
        ("##NaN", "cb7ff8000000000000"),
        ("#float 1.5", "ca3fc00000"),
        ("\"a\"", "a161"),
        ("#bytes \"00ff\"", "c40200ff"),
        ("{:a 1}", "819201a16101"),
        ("[1 2]", "93000102"),
        (":a/b", "9201a3612f62"),
        ("#keyword [nil \"a/b\"]", "9301c0a3612f62"),
        ("a", "9202a161"),
        ("(1)", "920301"),
        ("#{1 2}", "93040102"),
        (
            "#uuid \"00010203-0405-0607-0809-0a0b0c0d0e0f\"",
            "9205c410000102030405060708090a0b0c0d0e0f",
        ),
        ("#inst \"1970-01-01T00:00:01Z\"", "9206cd03e8"),
        ("256N", "9207c4020100"),
        ("-1.50M", "9308c402ff6a02"),
        ("\\a", "920961"),
        ("#\"a\"", "920aa161"),
        ("#floats [1.5]", "920bc4040000c03f"),
        ("#doubles [1.5]", "920cc408000000000000f83f"),
        ("#t 1", "930d9202a17401"),
    ] {
        let value = edn::read(text).unwrap();
        let encoded = rmp_serde::to_vec(&value).unwrap();
        let hex: String = encoded.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, bytes, "{text}");
        assert_eq!(rmp_serde::from_slice::<Value>(&encoded).unwrap(), value);
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(f64),
    Line(i64, i64),
    Rect { w: u32, h: u32 },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Call {
    store_id: Uuid,
    max_items: Option<u64>,
    nothing: Option<String>,
    #[serde(with = "serde_bytes")]
    body: Vec<u8>,
    shapes: Vec<Shape>,
    any: Value,
    attribute: Keyword,
    by_name: BTreeMap<String, i8>,
    pair: (bool, char),
    ratio: f32,
    unit: (),
}

fn call() -> Call {
    Call {
        store_id: Uuid::from_u128(7),
        max_items: Some(u64::MAX),
        nothing: None,
        body: vec![1, 2],
        shapes: vec![
            Shape::Point,
            Shape::Circle(1.5),
            Shape::Line(1, 2),
            Shape::Rect { w: 1, h: 2 },
        ],
        any: vector![
            kw!("a"),
            set![1],
            list![Value::symbol("x")],
            map! { kw!("k") => Value::Inst(0) }
        ],
        attribute: kw!("person/name"),
        by_name: BTreeMap::from([("a".into(), -1)]),
        pair: (true, 'x'),
        ratio: 0.5,
        unit: (),
    }
}

#[test]
fn typed_data_travels_as_readable_values() {
    let value = to_value(&call()).unwrap();
    assert_eq!(
        value.to_string(),
        "{:any [:a #{1} (x) {:k #inst \"1970-01-01T00:00:00.000-00:00\"}], :attribute :person/name, \
         :body #bytes \"0102\", :by-name {\"a\" -1}, :max-items 18446744073709551615N, :nothing nil, \
         :pair [true \\x], :ratio #float 0.5, :shapes [:Point {:Circle 1.5} {:Line [1 2]} {:Rect {:h 2, :w 1}}], \
         :store-id #bytes \"00000000000000000000000000000007\", :unit nil}"
    );
    assert_eq!(from_value::<Call>(value).unwrap(), call());
}

#[test]
fn typed_data_takes_what_people_write() {
    #[derive(Debug, PartialEq, Deserialize)]
    struct Config {
        id: Uuid,
        port: u16,
        ratio: f64,
        tags: Vec<String>,
        shape: Shape,
    }
    let value = edn::read(
        "{:id #uuid \"00000000-0000-0000-0000-000000000007\" \"port\" 80 ratio 1 :tags #{a :b \"c\"} :shape Point}",
    );
    let config: Config = from_value(value.unwrap()).unwrap();
    assert_eq!(config.id, Uuid::from_u128(7));
    assert_eq!((config.port, config.ratio, config.shape), (80, 1.0, Shape::Point));
    assert_eq!(config.tags, ["c", "b", "a"]);
}

#[test]
fn data_of_another_shape_is_refused() {
    for (value, message) in [
        (
            map! { kw!("w") => 1 },
            "unknown variant `w`, expected one of `Point`, `Circle`, `Line`, `Rect`",
        ),
        (Value::keyword("Circle"), "this variant needs content"),
        (map! { kw!("Point") => 1 }, "this variant has no content"),
        (
            map! { kw!("Line") => vector![1] },
            "invalid length 1, expected tuple variant Shape::Line with 2 elements",
        ),
        (Value::Long(1), "expected a keyword or a map of one entry, found a long"),
        (
            map! { kw!("Rect") => map! { kw!("w") => -1, kw!("h") => 1 } },
            "invalid value: integer `-1`, expected u32",
        ),
    ] {
        assert_eq!(from_value::<Shape>(value).map_err(|e| e.to_string()), Err(message.into()));
    }
    assert_eq!(
        from_value::<Keyword>("text".into()).map_err(|e| e.to_string()),
        Err("expected a keyword, found a string".into())
    );
}

/// Enums with a tag inside buffer what they read: values in them must survive MessagePack.
#[test]
fn values_survive_buffering_enums_in_messagepack() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "type")]
    enum Message {
        Call { args: Value },
    }
    let message = Message::Call { args: vector![kw!("a"), 1, "s", map! { kw!("k") => 1.5 }] };
    let bytes = rmp_serde::to_vec_named(&message).unwrap();
    assert_eq!(rmp_serde::from_slice::<Message>(&bytes).unwrap(), message);
}
