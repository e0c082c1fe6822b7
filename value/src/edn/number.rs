//! Number literals.

use bigdecimal::BigDecimal;
use num_bigint::BigInt;

use super::error::ReadErrorKind;
use super::lexer::shortened;
use crate::limits::Limits;
use crate::value::Value;

/// Reads a token that begins like a number.
pub(super) fn parse(token: &str, limits: &Limits) -> Result<Value, ReadErrorKind> {
    let invalid = |reason| ReadErrorKind::InvalidNumber { token: shortened(token), reason };
    if token.bytes().filter(u8::is_ascii_digit).count() > limits.digits {
        return Err(ReadErrorKind::TooManyDigits { limit: limits.digits });
    }
    let (negative, unsigned) = match token.as_bytes().first() {
        Some(b'-') => (true, &token[1..]),
        Some(b'+') => (false, &token[1..]),
        _ => (false, token),
    };
    let digits = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, suffix) = unsigned.split_at(digits);
    if whole.is_empty() {
        return Err(invalid("needs a digit"));
    }
    if suffix.len() > limits.digits + 1 {
        return Err(ReadErrorKind::TooManyDigits { limit: limits.digits });
    }
    let leading_zero = whole.len() > 1 && whole.starts_with('0');
    match suffix {
        _ if suffix.starts_with('/') => Err(invalid("ratios are not supported, write a decimal")),
        _ if whole == "0" && suffix.starts_with(['x', 'X']) => {
            radix(negative, &suffix[1..], 16).ok_or_else(|| invalid("needs hexadecimal digits"))
        }
        _ if suffix.starts_with(['r', 'R']) => {
            let base = whole.parse().ok().filter(|base| (2..=36).contains(base));
            let base = base.ok_or_else(|| invalid("needs a base from 2 to 36"))?;
            radix(negative, &suffix[1..], base).ok_or_else(|| invalid("needs digits of its base"))
        }
        _ if leading_zero => Err(invalid("has a leading zero")),
        "" => Ok(integer(negative, whole, 10).ok_or_else(|| invalid("needs digits"))?),
        "N" => {
            let digits = if negative { &token[..=whole.len()] } else { whole };
            digits.parse::<BigInt>().map(Value::from).map_err(|_| invalid("needs digits"))
        }
        _ => match unsigned.strip_suffix('M') {
            Some(decimal) => {
                big_decimal(negative, decimal, limits)?.ok_or_else(|| invalid("not a decimal"))
            }
            None => double(negative, unsigned).ok_or_else(|| invalid("not a number"))?,
        },
    }
}

/// A long where it fits, else a big integer, as Clojure reads.
fn integer(negative: bool, digits: &str, base: u32) -> Option<Value> {
    let signed = if negative { format!("-{digits}") } else { digits.into() };
    match i64::from_str_radix(&signed, base) {
        Ok(n) => Some(Value::Long(n)),
        Err(_) => BigInt::parse_bytes(signed.as_bytes(), base).map(Value::from),
    }
}

fn radix(negative: bool, digits: &str, base: u32) -> Option<Value> {
    let valid = !digits.is_empty() && digits.chars().all(|c| c.is_digit(base));
    valid.then(|| integer(negative, digits, base)).flatten()
}

/// `1.5e3` in its parts: digits before and after the point, exponent. `None` if it is not of that shape.
fn decimal_parts(text: &str) -> Option<(&str, &str, &str)> {
    let (mantissa, exponent) =
        text.split_once(['e', 'E']).map_or((text, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    let exponent_digits = exponent.map(|e| e.strip_prefix(['+', '-']).unwrap_or(e));
    let valid = all_digits(whole)
        && all_digits(fraction)
        && exponent_digits.is_none_or(|e| !e.is_empty() && all_digits(e));
    valid.then_some((whole, fraction, exponent.unwrap_or("0")))
}

fn double(negative: bool, text: &str) -> Option<Result<Value, ReadErrorKind>> {
    decimal_parts(text)?;
    let d: f64 = text.parse().ok()?;
    Some(match d.is_finite() {
        true => Ok(Value::Double(if negative { -d } else { d })),
        false => Err(ReadErrorKind::InvalidNumber {
            token: shortened(text),
            reason: "out of the range of a double",
        }),
    })
}

fn big_decimal(
    negative: bool,
    text: &str,
    limits: &Limits,
) -> Result<Option<Value>, ReadErrorKind> {
    let Some((whole, fraction, exponent)) = decimal_parts(text) else { return Ok(None) };
    let too_large = ReadErrorKind::ExponentTooLarge { limit: limits.exponent };
    let Ok(exponent) = exponent.parse::<i64>() else { return Err(too_large) };
    let scale = i64::try_from(fraction.len()).ok().and_then(|len| len.checked_sub(exponent));
    let Some(scale) = scale.filter(|scale| {
        let limit = limits.exponent.unsigned_abs();
        scale.unsigned_abs() <= limit && exponent.unsigned_abs() <= limit.saturating_mul(2)
    }) else {
        return Err(too_large);
    };
    let digits = format!("{whole}{fraction}");
    Ok(BigInt::parse_bytes(digits.as_bytes(), 10).map(|unscaled| {
        Value::from(BigDecimal::new(if negative { -unscaled } else { unscaled }, scale))
    }))
}
