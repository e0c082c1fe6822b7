//! The one total order, and equality and hashing that agree with it.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use bigdecimal::BigDecimal;
use num_bigint::{BigInt, Sign};
use num_traits::{FromPrimitive, Signed, ToPrimitive, Zero};

use crate::value::Value;

/// Compares two numbers by exact numeric value alone: `1`, `1.0` and `1.00M` are equal here, and
/// 2^53 + 1 is not equal to 2^53 as a double. NaN equals NaN and is greater than all others.
/// `None` if either is not a number.
pub fn compare_numbers(a: &Value, b: &Value) -> Option<Ordering> {
    use Value::{BigDec, BigInt, Double, Float, Long};
    Some(match (a, b) {
        (Long(a), Long(b)) => a.cmp(b),
        (Long(a), BigInt(b)) => compare_long_bigint(*a, b),
        (Long(a), BigDec(b)) => compare_bigdec(&BigDecimal::from(*a), b),
        (Long(a), _) => compare_long_double(*a, double(b)?),
        (BigInt(a), BigInt(b)) => a.cmp(b),
        (BigInt(a), Long(b)) => compare_long_bigint(*b, a).reverse(),
        (BigInt(a), BigDec(b)) => compare_bigdec(&BigDecimal::new((**a).clone(), 0), b),
        (BigInt(a), _) => compare_bigint_double(a, double(b)?),
        (BigDec(a), BigDec(b)) => compare_bigdec(a, b),
        (BigDec(a), Long(b)) => compare_bigdec(a, &BigDecimal::from(*b)),
        (BigDec(a), BigInt(b)) => compare_bigdec(a, &BigDecimal::new((**b).clone(), 0)),
        (BigDec(a), _) => compare_bigdec_double(a, double(b)?),
        (Double(_) | Float(_), Long(b)) => compare_long_double(*b, double(a)?).reverse(),
        (Double(_) | Float(_), BigInt(b)) => compare_bigint_double(b, double(a)?).reverse(),
        (Double(_) | Float(_), BigDec(b)) => compare_bigdec_double(b, double(a)?).reverse(),
        (Double(_) | Float(_), _) => compare_doubles(double(a)?, double(b)?),
        _ => return None,
    })
}

/// The one NaN that stands for all, and every other double as it is. Encoders write this, so that
/// equal values have equal bytes.
pub fn canonical_f64(d: f64) -> f64 {
    if d.is_nan() { f64::from_bits(0x7ff8_0000_0000_0000) } else { d }
}

/// The one NaN that stands for all, and every other float as it is.
pub fn canonical_f32(f: f32) -> f32 {
    if f.is_nan() { f32::from_bits(0x7fc0_0000) } else { f }
}

impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Long(a), Self::Long(b)) => a.cmp(b),
            (Self::Char(a), Self::Char(b)) => a.cmp(b),
            (Self::Str(a), Self::Str(b)) => a.cmp(b),
            (Self::Keyword(a), Self::Keyword(b)) => a.cmp(b),
            (Self::Symbol(a), Self::Symbol(b)) => a.cmp(b),
            (Self::Uuid(a), Self::Uuid(b)) => a.as_bytes().cmp(b.as_bytes()),
            (Self::Inst(a), Self::Inst(b)) => a.cmp(b),
            (Self::Regex(a), Self::Regex(b)) => a.cmp(b),
            (Self::Bytes(a), Self::Bytes(b)) => {
                a.len().cmp(&b.len()).then_with(|| a.as_ref().cmp(b))
            }
            (Self::FloatArray(a), Self::FloatArray(b)) => {
                elementwise(a, b, |a, b| compare_doubles_finely(f64::from(*a), f64::from(*b)))
            }
            (Self::DoubleArray(a), Self::DoubleArray(b)) => {
                elementwise(a, b, |a, b| compare_doubles_finely(*a, *b))
            }
            (Self::List(a) | Self::Vector(a), Self::List(b) | Self::Vector(b)) => {
                elementwise(a, b, Self::cmp).then_with(|| self.type_rank().cmp(&other.type_rank()))
            }
            (Self::Map(a), Self::Map(b)) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
            (Self::Set(a), Self::Set(b)) => a.len().cmp(&b.len()).then_with(|| a.cmp(b)),
            (Self::Tagged(a), Self::Tagged(b)) => a.cmp(b),
            _ => match compare_numbers(self, other) {
                Some(order) => order.then_with(|| compare_equal_numbers(self, other)),
                None => self.kind_rank().cmp(&other.kind_rank()),
            },
        }
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Eq for Value {}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Nil, Self::Nil) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Long(a), Self::Long(b)) => a == b,
            (Self::Double(a), Self::Double(b)) => f64_bits(*a) == f64_bits(*b),
            (Self::Float(a), Self::Float(b)) => f32_bits(*a) == f32_bits(*b),
            (Self::BigInt(a), Self::BigInt(b)) => a == b,
            (Self::BigDec(a), Self::BigDec(b)) => {
                a.as_bigint_and_exponent() == b.as_bigint_and_exponent()
            }
            (Self::Str(a), Self::Str(b)) => a == b,
            (Self::Char(a), Self::Char(b)) => a == b,
            (Self::Keyword(a), Self::Keyword(b)) => a == b,
            (Self::Symbol(a), Self::Symbol(b)) => a == b,
            (Self::Uuid(a), Self::Uuid(b)) => a == b,
            (Self::Inst(a), Self::Inst(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::FloatArray(a), Self::FloatArray(b)) => {
                a.len() == b.len() && a.iter().zip(&**b).all(|(a, b)| f32_bits(*a) == f32_bits(*b))
            }
            (Self::DoubleArray(a), Self::DoubleArray(b)) => {
                a.len() == b.len() && a.iter().zip(&**b).all(|(a, b)| f64_bits(*a) == f64_bits(*b))
            }
            (Self::List(a), Self::List(b)) | (Self::Vector(a), Self::Vector(b)) => a == b,
            (Self::Map(a), Self::Map(b)) => a == b,
            (Self::Set(a), Self::Set(b)) => a == b,
            (Self::Tagged(a), Self::Tagged(b)) => a == b,
            _ => false,
        }
    }
}

impl Hash for Value {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u8(self.type_rank());
        match self {
            Self::Nil => {}
            Self::Bool(b) => b.hash(state),
            Self::Long(n) | Self::Inst(n) => n.hash(state),
            Self::Double(d) => f64_bits(*d).hash(state),
            Self::Float(f) => f32_bits(*f).hash(state),
            Self::BigInt(n) => n.hash(state),
            Self::BigDec(d) => d.as_bigint_and_exponent().hash(state),
            Self::Str(s) => s.hash(state),
            Self::Char(c) => c.hash(state),
            Self::Keyword(k) => k.hash(state),
            Self::Symbol(s) => s.hash(state),
            Self::Uuid(u) => u.hash(state),
            Self::Regex(r) => r.hash(state),
            Self::Bytes(b) => b.hash(state),
            Self::FloatArray(items) => {
                state.write_usize(items.len());
                items.iter().for_each(|f| f32_bits(*f).hash(state));
            }
            Self::DoubleArray(items) => {
                state.write_usize(items.len());
                items.iter().for_each(|d| f64_bits(*d).hash(state));
            }
            Self::List(items) | Self::Vector(items) => items.hash(state),
            Self::Map(entries) => entries.hash(state),
            Self::Set(items) => items.hash(state),
            Self::Tagged(tagged) => tagged.hash(state),
        }
    }
}

impl Value {
    /// The place of its kind: numbers share one, lists and vectors share one.
    fn kind_rank(&self) -> u8 {
        match self {
            Self::Float(_) | Self::Double(_) | Self::BigInt(_) | Self::BigDec(_) => {
                Self::Long(0).type_rank()
            }
            Self::Vector(_) => Self::List([].into()).type_rank(),
            _ => self.type_rank(),
        }
    }

    fn type_rank(&self) -> u8 {
        match self {
            Self::Nil => 0,
            Self::Bool(_) => 1,
            Self::Long(_) => 2,
            Self::Float(_) => 3,
            Self::Double(_) => 4,
            Self::BigInt(_) => 5,
            Self::BigDec(_) => 6,
            Self::Char(_) => 7,
            Self::Str(_) => 8,
            Self::Keyword(_) => 9,
            Self::Symbol(_) => 10,
            Self::Uuid(_) => 11,
            Self::Inst(_) => 12,
            Self::Regex(_) => 13,
            Self::Bytes(_) => 14,
            Self::FloatArray(_) => 15,
            Self::DoubleArray(_) => 16,
            Self::List(_) => 17,
            Self::Vector(_) => 18,
            Self::Map(_) => 19,
            Self::Set(_) => 20,
            Self::Tagged(_) => 21,
        }
    }
}

fn f64_bits(d: f64) -> u64 {
    canonical_f64(d).to_bits()
}

fn f32_bits(f: f32) -> u32 {
    canonical_f32(f).to_bits()
}

fn double(v: &Value) -> Option<f64> {
    match v {
        Value::Double(d) => Some(*d),
        Value::Float(f) => Some(f64::from(*f)),
        _ => None,
    }
}

fn elementwise<T>(a: &[T], b: &[T], mut cmp: impl FnMut(&T, &T) -> Ordering) -> Ordering {
    a.len().cmp(&b.len()).then_with(|| {
        a.iter()
            .zip(b)
            .map(|(a, b)| cmp(a, b))
            .find(|order| order.is_ne())
            .unwrap_or(Ordering::Equal)
    })
}

/// Between numbers that are numerically equal: type, then what the type still tells apart.
fn compare_equal_numbers(a: &Value, b: &Value) -> Ordering {
    a.type_rank().cmp(&b.type_rank()).then_with(|| match (a, b) {
        (Value::BigDec(a), Value::BigDec(b)) => {
            a.as_bigint_and_exponent().1.cmp(&b.as_bigint_and_exponent().1)
        }
        _ => match (double(a), double(b)) {
            (Some(a), Some(b)) => compare_doubles_finely(a, b),
            _ => Ordering::Equal,
        },
    })
}

/// By numeric value, NaN last.
fn compare_doubles(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

/// The same, with -0.0 before 0.0.
fn compare_doubles_finely(a: f64, b: f64) -> Ordering {
    compare_doubles(a, b).then_with(|| match a == 0.0 {
        true => b.is_sign_negative().cmp(&a.is_sign_negative()),
        false => Ordering::Equal,
    })
}

const TWO_POW_63: f64 = 9_223_372_036_854_775_808.0;

fn compare_long_double(n: i64, d: f64) -> Ordering {
    if d.is_nan() || d >= TWO_POW_63 {
        Ordering::Less
    } else if d < -TWO_POW_63 {
        Ordering::Greater
    } else {
        // In range, so the cast only drops the fraction.
        n.cmp(&(d as i64)).then_with(|| compare_doubles(0.0, d.fract()))
    }
}

fn compare_long_bigint(n: i64, big: &BigInt) -> Ordering {
    match big.to_i64() {
        Some(big) => n.cmp(&big),
        None if big.sign() == Sign::Minus => Ordering::Greater,
        None => Ordering::Less,
    }
}

fn compare_bigint_double(n: &BigInt, d: f64) -> Ordering {
    match BigInt::from_f64(d.trunc()) {
        Some(whole) => n.cmp(&whole).then_with(|| compare_doubles(0.0, d.fract())),
        None if d == f64::NEG_INFINITY => Ordering::Greater,
        None => Ordering::Less,
    }
}

fn compare_bigdec_double(n: &BigDecimal, d: f64) -> Ordering {
    match exact_decimal(d) {
        Some(d) => compare_bigdec(n, &d),
        None if d == f64::NEG_INFINITY => Ordering::Greater,
        None => Ordering::Less,
    }
}

/// A finite double in decimal, every digit of it: m * 2^-k = m * 5^k / 10^k.
fn exact_decimal(d: f64) -> Option<BigDecimal> {
    if !d.is_finite() {
        return None;
    }
    let bits = d.to_bits();
    let (fraction, exponent) = (bits & ((1 << 52) - 1), (bits >> 52 & 0x7ff) as i32);
    let (mantissa, exponent) = match exponent {
        0 => (fraction, -1074),
        _ => (fraction | 1 << 52, exponent - 1075),
    };
    if mantissa == 0 {
        return Some(BigDecimal::zero());
    }
    let trailing = mantissa.trailing_zeros();
    let (mantissa, exponent) = (mantissa >> trailing, exponent + trailing as i32);
    let signed = BigInt::from_biguint(
        if d.is_sign_negative() { Sign::Minus } else { Sign::Plus },
        mantissa.into(),
    );
    let power = exponent.unsigned_abs();
    Some(match exponent {
        0.. => BigDecimal::new(signed << power, 0),
        _ => BigDecimal::new(signed * BigInt::from(5).pow(power), power.into()),
    })
}

/// Looks at sign and magnitude first, so that only numbers of like magnitude are brought to one scale
/// and a huge exponent never materialises its zeros.
fn compare_bigdec(a: &BigDecimal, b: &BigDecimal) -> Ordering {
    let ((a, a_scale), (b, b_scale)) = (a.as_bigint_and_exponent(), b.as_bigint_and_exponent());
    let by_sign = a.signum().cmp(&b.signum());
    if by_sign.is_ne() || a.is_zero() {
        return by_sign;
    }
    let magnitude = |n: &BigInt, scale: i64| decimal_digits(n) - i128::from(scale);
    let by_magnitude = magnitude(&a, a_scale).cmp(&magnitude(&b, b_scale));
    if by_magnitude.is_ne() {
        return if a.is_negative() { by_magnitude.reverse() } else { by_magnitude };
    }
    let ten = |power: u64| BigInt::from(10).pow(u32::try_from(power).unwrap_or(u32::MAX));
    match a_scale.cmp(&b_scale) {
        Ordering::Equal => a.cmp(&b),
        Ordering::Less => (a * ten(b_scale.abs_diff(a_scale))).cmp(&b),
        Ordering::Greater => a.cmp(&(b * ten(a_scale.abs_diff(b_scale)))),
    }
}

fn decimal_digits(n: &BigInt) -> i128 {
    match n.to_i64() {
        Some(n) => n.unsigned_abs().checked_ilog10().map_or(1, |log| i128::from(log) + 1),
        None => n.magnitude().to_string().len() as i128,
    }
}
