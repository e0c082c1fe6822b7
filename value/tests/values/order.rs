//! The one total order, and what agrees with it.

use std::cmp::Ordering;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use datahike_value::{Value, compare_numbers, edn};
use proptest::prelude::*;

use crate::any;

fn hash(v: &Value) -> u64 {
    BuildHasherDefault::<DefaultHasher>::default().hash_one(v)
}

fn check_laws(a: &Value, b: &Value, c: &Value) -> Result<(), TestCaseError> {
    prop_assert_eq!(a.cmp(b), b.cmp(a).reverse());
    prop_assert_eq!(a.cmp(b).is_eq(), a == b);
    prop_assert_eq!(a.cmp(a), Ordering::Equal);
    if a == b {
        prop_assert_eq!(hash(a), hash(b));
    }
    let mut sorted = [a, b, c];
    sorted.sort();
    prop_assert!(sorted[0] <= sorted[1] && sorted[1] <= sorted[2] && sorted[0] <= sorted[2]);
    if a <= b && b <= c {
        prop_assert!(a <= c, "{} <= {} <= {}", a, b, c);
    }
    Ok(())
}

proptest! {
    #![proptest_config(any::config())]

    #[test]
    fn values_are_totally_ordered(a in any::value(), b in any::value(), c in any::value()) {
        check_laws(&a, &b, &c)?;
    }

    #[test]
    fn numbers_are_totally_ordered(a in any::number(), b in any::number(), c in any::number()) {
        check_laws(&a, &b, &c)?;
        let order = compare_numbers(&a, &b).unwrap();
        if order.is_ne() {
            prop_assert_eq!(a.cmp(&b), order);
        }
        let (ab, bc) = (order, compare_numbers(&b, &c).unwrap());
        if ab == bc {
            prop_assert_eq!(compare_numbers(&a, &c).unwrap(), ab);
        }
    }

    #[test]
    fn longs_and_doubles_compare_as_big_decimals_do(n in any::<i64>(), d in any::<f64>(), near in any::<bool>()) {
        let d = if near { n as f64 } else { d };
        prop_assume!(d.is_finite());
        // num-bigint compares the whole parts, the sign of the fraction decides the rest.
        let whole = format!("{:.0}", d.trunc()).parse::<datahike_value::BigInt>().unwrap();
        let expected = datahike_value::BigInt::from(n).cmp(&whole).then_with(|| 0.0f64.total_cmp(&(d - d.trunc() + 0.0)));
        prop_assert_eq!(compare_numbers(&n.into(), &d.into()), Some(expected));
    }
}

/// Each line sorts strictly before the next.
const ASCENDING: &str = r##"
    nil false true
    ##-Inf -1E+400M -9223372036854775809N -9223372036854775808 -9.223372036854775E18 -2 -1.5 -1
    #float -0.0 -0.0 0.0 0N 0M 0.00M
    5.0E-324 5E-324M 0.1M 0.1 0.5 0.5M 0.50M 1 #float 1.0 1.0 1N 1M 1.0M 1.00M 1.5
    9007199254740991 9007199254740992 9007199254740992.0 9007199254740993 9007199254740994.0
    9223372036854775807 9223372036854775808.0 9223372036854775808N 9223372036854775809N
    1E+22M 1.0000000000000001E+22M 1E+400M ##Inf #float ##NaN ##NaN
    \a \b "" "a" "aa" "b" "é" "😀"
    :b :a/b :a.b/a :b/a a b a/a
    #uuid "00000000-0000-0000-0000-000000000001" #uuid "ffffffff-0000-0000-0000-000000000000"
    #inst "1969" #inst "1970" #inst "2026-11-23"
    #"a" #"b" #bytes "" #bytes "ff" #bytes "0000" #floats [2.0] #floats [-0.0 0.0] #doubles [1.0]
    () [] (1) [1] [2] (1 1) [1 1] [1 1.0] [1 2] [nil nil nil]
    {} {:b 1} {:a 1, :b 1} {:a 1, :b 2} #{} #{2} #{1 2} #a 1 #a 2 #b 1
"##;

#[test]
fn every_kind_has_its_place() {
    let values = edn::read_all(ASCENDING).unwrap();
    for (i, a) in values.iter().enumerate() {
        for (j, b) in values.iter().enumerate() {
            assert_eq!(a.cmp(b), i.cmp(&j), "{a} against {b}");
            assert_eq!(a == b, i == j, "{a} against {b}");
        }
    }
}

#[test]
fn all_nans_are_one_value() {
    let (a, b) = (Value::Double(f64::NAN), Value::Double(f64::from_bits(0xfff8_0000_0000_1234)));
    assert_eq!(a, b);
    assert_eq!(hash(&a), hash(&b));
}

#[test]
fn decimals_of_huge_exponent_compare_at_once() {
    let huge = |scale| Value::from(datahike_value::BigDecimal::new(1.into(), scale));
    assert!(huge(i64::MIN) > huge(i64::MIN + 1));
    assert!(huge(i64::MIN) > Value::Double(f64::MAX));
    assert!(huge(i64::MAX) < Value::Double(5e-324));
    assert!(huge(-4_000_000_000) > Value::Long(i64::MAX));
}

#[test]
fn a_value_is_24_bytes() {
    assert_eq!(size_of::<Value>(), 24);
    assert_eq!(size_of::<Option<Value>>(), 24);
}
