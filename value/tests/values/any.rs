//! Values of every kind, for properties.

use datahike_value::{BigDecimal, BigInt, Keyword, Regex, Symbol, Uuid, Value};
use proptest::prelude::*;

/// Numbers that lie close together across types, or at the edges.
pub(crate) fn number() -> impl Strategy<Value = Value> {
    let long = prop_oneof![
        -3..3i64,
        any::<i64>(),
        (-3..3i64).prop_map(|d| (1 << 53) + d),
        (0..3i64).prop_map(|d| i64::MAX - d),
        (0..3i64).prop_map(|d| i64::MIN + d),
    ];
    let double = prop_oneof![
        any::<f64>(),
        long.clone().prop_map(|n| n as f64),
        (-6..6i64).prop_map(|n| n as f64 / 2.0),
        prop::sample::select(vec![
            0.0,
            -0.0,
            f64::NAN,
            -f64::NAN,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MAX,
            f64::MIN_POSITIVE,
            5e-324,
            0.1,
            9.223_372_036_854_775e18,
            1e22,
        ]),
    ];
    let float = prop_oneof![any::<f32>(), double.clone().prop_map(|d| d as f32)];
    let bigint = (long.clone(), 0..80u32).prop_map(|(n, shift)| BigInt::from(n) << shift);
    let bigdec =
        (bigint.clone(), -30..30i64, 0..6u32, 0..3i64).prop_map(|(n, scale, zeros, exact)| {
            match exact {
                0 => BigDecimal::new(n, scale),
                _ => BigDecimal::new(n * BigInt::from(10).pow(zeros), zeros.into()),
            }
        });
    let double_as_decimal = prop::sample::select(vec!["0.1", "0.5", "0.50", "1E+22", "5E-324"])
        .prop_filter_map("no decimal", |text| text.parse::<BigDecimal>().ok());
    prop_oneof![
        long.prop_map(Value::from),
        double.prop_map(Value::from),
        float.prop_map(Value::from),
        bigint.prop_map(Value::from),
        bigdec.prop_map(Value::from),
        double_as_decimal.prop_map(Value::from),
    ]
}

fn name() -> impl Strategy<Value = (Option<String>, String)> {
    let part =
        prop_oneof!["[a-c]{1,2}", "[a-z?$_.+-]{1,6}", ".{0,4}", "nil|true|/|:a|-1|a/b|a/|#x|'"];
    (prop::option::of(part.clone()), part)
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Nil),
        any::<bool>().prop_map(Value::from),
        number(),
        any::<char>().prop_map(Value::from),
        prop::sample::select(vec![
            '\n', ' ', '\t', '(', '"', '\\', ';', '\0', '\u{a0}', 'u', 'o', ','
        ])
        .prop_map(Value::from),
        prop_oneof![".{0,8}", "[\"\\\\\n\t\r\u{8}\u{c}a]{0,5}"].prop_map(Value::from),
        name().prop_map(|(ns, name)| Keyword::new(ns.as_deref(), &name).into()),
        name().prop_map(|(ns, name)| Symbol::new(ns.as_deref(), &name).into()),
        any::<u128>().prop_map(|n| Uuid::from_u128(n).into()),
        any::<i64>().prop_map(Value::Inst),
        (0..4_000_000_000_000i64).prop_map(Value::Inst),
        "[a\"\\\\(]{0,6}"
            .prop_filter_map("ends in a backslash", |s| Some(Regex::new(&s).ok()?.into())),
        prop::collection::vec(any::<u8>(), 0..4).prop_map(Value::bytes),
        prop::collection::vec(any::<f32>(), 0..3).prop_map(|f| Value::FloatArray(f.into())),
        prop::collection::vec(any::<f64>(), 0..3).prop_map(|d| Value::DoubleArray(d.into())),
    ]
}

/// Any value, a few levels deep.
pub(crate) fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 20, 4, |inner| {
        let items = prop::collection::vec(inner.clone(), 0..4);
        prop_oneof![
            items.clone().prop_map(Value::vector),
            items.clone().prop_map(Value::list),
            items.prop_map(Value::set),
            prop::collection::vec((inner.clone(), inner.clone()), 0..4).prop_map(Value::map),
            (name(), inner.clone())
                .prop_map(|((ns, name), v)| Value::tagged(Symbol::new(ns.as_deref(), &name), v)),
            (
                prop::sample::select(vec!["inst", "uuid", "bytes", "dh/i32", "my/tag", "tagged"]),
                inner
            )
                .prop_map(|(tag, v)| Value::tagged(tag, v)),
        ]
    })
}

/// Cases per property: `VALUE_CASES` or a quick default.
pub(crate) fn config() -> ProptestConfig {
    let cases = std::env::var("VALUE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}
