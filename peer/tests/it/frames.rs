//! Frames and serializers: golden bytes, round trips, and bytes from outside.

use bytes::Bytes;
use datahike_peer::serializer::{DICTIONARY, Edn, MessagePack, Serializer};
use datahike_peer::{Hello, Limits, Message, PeerId, SerializerId, Token, frame};
use datahike_value::{Keyword, Value, edn, kw};
use proptest::prelude::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn packed(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    MessagePack.encode(value, &mut out).expect("every value can be packed");
    out
}

fn unpacked(bytes: &[u8]) -> Result<Value, datahike_peer::serializer::DecodeError> {
    MessagePack.decode(bytes, &Limits::DEFAULT)
}

#[test]
fn serializer_ids_are_kabels_and_ours_lies_outside() {
    let table: Vec<_> = SerializerId::TABLE.iter().map(|(id, name)| (id.0, *name)).collect();
    let expected = [
        (0, "binary"),
        (1, "string"),
        (2, "edn"),
        (11, "transit-json"),
        (12, "transit-msgpack"),
        (13, "fressian"),
        (14, "cbor"),
        (64, "msgpack"),
    ];
    assert_eq!(table, expected);
}

#[test]
fn frame_bytes_are_pinned() {
    let message = Message::new(kw!("a"), [(kw!("b"), Value::from(1))]);
    let text = message.encode(&Edn).expect("encodes");
    assert_eq!(&text[..], b"\0\0\0\x02{:b 1, :type :a}");
    let (id, payload) = frame::decode(&text).expect("whole");
    assert_eq!((id, &payload[..]), (SerializerId::EDN, &b"{:b 1, :type :a}"[..]));
    let pack = message.encode(&MessagePack).expect("encodes");
    assert_eq!(hex(&pack), "00000040".to_owned() + "82" + "d40262" + "01" + "d40100" + "d40261");
    assert!(frame::decode(&Bytes::from_static(b"\0\0\x02")).is_err());
}

#[test]
fn a_message_is_encoded_once_and_shared() {
    let message = Message::new(kw!("a"), []);
    let first = message.encode(&MessagePack).expect("encodes");
    let second = message.clone().encode(&MessagePack).expect("encodes");
    assert_eq!(first.as_ptr(), second.as_ptr());
    let other = message.with(kw!("b"), Value::Nil).encode(&MessagePack).expect("encodes");
    assert_ne!(first, other);
}

#[test]
fn the_wire_form_of_every_type_is_pinned() {
    for (text, bytes) in [
        ("nil", "c0"),
        ("true", "c3"),
        ("-1", "ff"),
        ("300", "cd012c"),
        ("1.5", "cb3ff8000000000000"),
        ("#float 1.5", "ca3fc00000"),
        ("\"ä\"", "a2c3a4"),
        (":type", "d40100"),
        (":my/own", "c706026d792f6f776e"),
        ("my/own", "c706036d792f6f776e"),
        ("#uuid \"00000000-0000-4000-8000-000000000001\"", "d80400000000000040008000000000000001"),
        ("#inst \"1970-01-01T00:00:01.000-00:00\"", "d70500000000000003e8"),
        ("\\a", "d60600000061"),
        ("-1N", "d407ff"),
        ("1.5M", "c7090800000000000000010f"),
        ("#\"a+\"", "d509612b"),
        ("#bytes \"00ff\"", "c40200ff"),
        ("#floats [1.5]", "d60a3fc00000"),
        ("#doubles [1.5]", "d70b3ff8000000000000"),
        ("[1 2]", "920102"),
        ("(1 2)", "93d40c000102"),
        ("#{1 2}", "93d40c010102"),
        ("#my/tag 1", "93d40c02c706036d792f74616701"),
        ("{:id 1}", "81d4010101"),
    ] {
        let value = edn::read(text).expect("EDN");
        assert_eq!(hex(&packed(&value)), bytes, "{text}");
        assert_eq!(unpacked(&packed(&value)).expect("unpacks"), value);
    }
}

#[test]
fn the_hello_is_pinned_and_hides_its_token() {
    let hello = Hello {
        versions: 1..=1,
        peer: PeerId("00000000-0000-4000-8000-000000000001".parse().expect("a UUID")),
        serializers: vec![SerializerId::MESSAGE_PACK, SerializerId::EDN],
        token: Some(Token::new("s3cret")),
        agent: "test".into(),
        frame_bytes: 1000,
        properties: [(kw!("epoch"), Value::from(7))].into(),
    };
    let message = hello.to_message();
    let expected = "{:agent \"test\", :frame-bytes 1000, \
        :peer #uuid \"00000000-0000-4000-8000-000000000001\", :properties {:epoch 7}, \
        :serializers [64 2], :token \"s3cret\", :type :peer/hello, :versions [1 1]}";
    assert_eq!(message.value().to_string(), expected);
    assert_eq!(Hello::from_message(&message).expect("reads back"), hello);
    assert!(!format!("{hello:?}").contains("s3cret"));
}

#[test]
fn a_published_event_of_50_bytes_stays_under_90_on_the_wire() {
    let message = Message::new(
        kw!("pubsub/event"),
        [
            (kw!("topic"), Value::from(3)),
            (kw!("seq"), Value::from(100_000)),
            (kw!("payload"), Value::bytes(vec![7u8; 50])),
        ],
    );
    let frame = message.encode(&MessagePack).expect("encodes");
    // Two bytes of WebSocket header from a server to a client.
    assert_eq!(frame.len() + 2, 80);
}

#[test]
fn the_dictionary_has_each_word_once_and_room_to_grow() {
    let mut words = DICTIONARY.to_vec();
    words.sort_unstable();
    words.dedup();
    assert_eq!(words.len(), DICTIONARY.len());
    assert!(DICTIONARY.len() <= 240);
    assert_eq!(DICTIONARY[0], "type");
    assert_eq!(DICTIONARY[18], "pubsub/event");
}

#[test]
fn keys_reserved_for_the_frame_do_not_come_from_outside() {
    let value = edn::read("{:type :a, :kabel/principal {:sub \"root\"}, :b 1}").expect("EDN");
    let message = Message::from_outside(value, 10).expect("a message");
    assert_eq!(message.value().to_string(), "{:b 1, :type :a}");
    for not in ["[]", "{}", "{:type 1}", "nil"] {
        assert!(Message::from_outside(edn::read(not).expect("EDN"), 1).is_err(), "{not}");
    }
}

#[test]
fn hostile_bytes_are_errors() {
    let deep = [&[0x91; 1000][..], &[0xc0]].concat();
    let claims_4_gib = [0xdd, 0xff, 0xff, 0xff, 0xff];
    let bytes_4_gib = [0xc6, 0xff, 0xff, 0xff, 0xff, 0];
    let twice_the_key = [0x82, 1, 2, 1, 3];
    let unknown_word = [0xd4, 1, 255];
    let mark_alone = [0xd4, 12, 0];
    let not_utf8 = [0xd4, 2, 0xff];
    let huge_scale = packed(&edn::read("1E-9000M").expect("EDN"));
    let two_values = [1, 2];
    assert!(unpacked(&huge_scale).is_ok());
    let cases: [&[u8]; 9] = [
        &deep,
        &claims_4_gib,
        &bytes_4_gib,
        &twice_the_key,
        &unknown_word,
        &mark_alone,
        &not_utf8,
        &two_values,
        &[],
    ];
    for bytes in cases {
        assert!(unpacked(bytes).is_err(), "{}", hex(&bytes[..bytes.len().min(16)]));
    }
    let limits = Limits { items: 3, depth: 2, ..Limits::DEFAULT };
    let decode = |text: &str| MessagePack.decode(&packed(&edn::read(text).expect("EDN")), &limits);
    assert!(decode("[1 2 3]").is_ok());
    assert!(decode("[1 2 3 4]").is_err());
    assert!(decode("[[1]]").is_ok());
    assert!(decode("[[[1]]]").is_err());
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<f32>().prop_map(Value::from),
        ".{0,20}".prop_map(Value::from),
        "[a-z]{1,8}(/[a-z]{1,8})?".prop_map(|text| Value::from(Keyword::parse(&text))),
        "[a-z]{1,8}".prop_map(|text| Value::symbol(&text)),
        any::<char>().prop_map(Value::from),
        any::<u128>().prop_map(|bits| Value::Uuid(datahike_value::Uuid::from_u128(bits))),
        any::<i64>().prop_map(Value::Inst),
        any::<i128>().prop_map(Value::bigint),
        (any::<i64>(), -50i64..50).prop_map(|(digits, scale)| {
            Value::from(datahike_value::BigDecimal::new(digits.into(), scale))
        }),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(Value::bytes),
        prop::collection::vec(any::<f32>(), 0..5).prop_map(|v| Value::FloatArray(v.into())),
        prop::collection::vec(any::<f64>(), 0..5).prop_map(|v| Value::DoubleArray(v.into())),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        let items = prop::collection::vec(inner.clone(), 0..6);
        prop_oneof![
            items.clone().prop_map(Value::vector),
            items.clone().prop_map(Value::list),
            items.prop_map(Value::set),
            prop::collection::vec((inner.clone(), inner.clone()), 0..4).prop_map(Value::map),
            inner.prop_map(|value| Value::tagged("my/tag", value)),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn every_value_comes_back(value in any_value()) {
        prop_assert_eq!(unpacked(&packed(&value)).expect("unpacks"), value);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = unpacked(&bytes);
        let _ = Edn.decode(&bytes, &Limits::DEFAULT);
        let _ = frame::decode(&Bytes::from(bytes));
    }

    #[test]
    fn damaged_values_do_not_panic(value in any_value(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = packed(&value);
        let at = at.index(bytes.len());
        prop_assert!(unpacked(&bytes[..at]).is_err(), "a prefix is no value");
        bytes[at] = byte;
        // What still decodes is a value like any other.
        if let Ok(value) = unpacked(&bytes) {
            prop_assert_eq!(unpacked(&packed(&value)).expect("unpacks"), value);
        }
    }
}
