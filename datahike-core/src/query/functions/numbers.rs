//! Arithmetic as in Clojure: integers stay integers, a double makes the result a double, and an
//! integer that would overflow is an error.

use datahike_value::{BigDecimal, BigInt, Value};
use num_traits::{FromPrimitive, Signed, ToPrimitive, Zero};

use super::{arity, one, table, two, wrong};

table! {
    "+" => |args| fold(args, 0, Op::Add),
    "*" => |args| fold(args, 1, Op::Multiply),
    "-" => subtract,
    "/" => divide_all,
    "quot" => |args| integer_division(args, Division::Quotient),
    "rem" => |args| integer_division(args, Division::Remainder),
    "mod" => |args| integer_division(args, Division::Modulus),
    "inc" => |args| apply(one(args)?, &Value::Long(1), Op::Add),
    "dec" => |args| apply(one(args)?, &Value::Long(1), Op::Subtract),
    "abs" => |args| absolute(one(args)?),
    "zero?" => |args| Ok(sign(one(args)?)?.is_eq().into()),
    "pos?" => |args| Ok(sign(one(args)?)?.is_gt().into()),
    "neg?" => |args| Ok(sign(one(args)?)?.is_lt().into()),
    "even?" => |args| Ok(parity(one(args)?)?.into()),
    "odd?" => |args| Ok((!parity(one(args)?)?).into()),
    "number?" => |args| Ok(one(args)?.is_number().into()),
    "int?" | "integer?" => |args| Ok(matches!(one(args)?, Value::Long(_) | Value::BigInt(_)).into()),
    "double?" | "float?" => |args| Ok(matches!(one(args)?, Value::Double(_) | Value::Float(_)).into()),
    "double" => |args| {
        let n = one(args)?;
        n.to_f64().map(Value::Double).ok_or_else(|| wrong("a number", n))
    },
    "long" | "int" => |args| to_long(one(args)?),
    "bit-and" => |args| bits(args, |a, b| a & b),
    "bit-or" => |args| bits(args, |a, b| a | b),
    "bit-xor" => |args| bits(args, |a, b| a ^ b),
}

#[derive(Clone, Copy)]
pub(crate) enum Op {
    Add,
    Subtract,
    Multiply,
    Divide,
}

/// The wider of two numeric types, as Clojure ranks them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Long,
    BigInt,
    BigDec,
    Float,
    Double,
}

fn rank(value: &Value) -> Result<Rank, String> {
    Ok(match value {
        Value::Long(_) => Rank::Long,
        Value::BigInt(_) => Rank::BigInt,
        Value::BigDec(_) => Rank::BigDec,
        Value::Float(_) => Rank::Float,
        Value::Double(_) => Rank::Double,
        other => return Err(wrong("a number", other)),
    })
}

fn bigint(value: &Value) -> BigInt {
    match value {
        Value::Long(n) => BigInt::from(*n),
        Value::BigInt(n) => (**n).clone(),
        _ => BigInt::zero(),
    }
}

fn bigdec(value: &Value) -> BigDecimal {
    match value {
        Value::BigDec(n) => (**n).clone(),
        other => BigDecimal::from(bigint(other)),
    }
}

/// Digits that a big number may grow to.
const BITS_MAX: u64 = 1 << 20;

/// One arithmetic operation on two numbers.
pub(crate) fn apply(a: &Value, b: &Value, op: Op) -> Result<Value, String> {
    let rank = rank(a)?.max(rank(b)?);
    match rank {
        Rank::Long => {
            let (Value::Long(x), Value::Long(y)) = (a, b) else { return Err(wrong("a long", a)) };
            let result = match op {
                Op::Add => x.checked_add(*y),
                Op::Subtract => x.checked_sub(*y),
                Op::Multiply => x.checked_mul(*y),
                Op::Divide if *y == 0 => return Err("division by zero".into()),
                Op::Divide if x.wrapping_rem(*y) == 0 => x.checked_div(*y),
                // Clojure has ratios; here a quotient that is no integer is a double.
                Op::Divide => return Ok(Value::Double(*x as f64 / *y as f64)),
            };
            result.map(Value::Long).ok_or_else(|| format!("integer overflow with {a} and {b}"))
        }
        Rank::BigInt => {
            let (x, y) = (bigint(a), bigint(b));
            if matches!(op, Op::Multiply) && x.bits() + y.bits() > BITS_MAX {
                return Err("the product is too large".into());
            }
            Ok(match op {
                Op::Add => Value::bigint(x + y),
                Op::Subtract => Value::bigint(x - y),
                Op::Multiply => Value::bigint(x * y),
                Op::Divide if y.is_zero() => return Err("division by zero".into()),
                Op::Divide if (&x % &y).is_zero() => Value::bigint(x / y),
                Op::Divide => {
                    Value::Double(x.to_f64().unwrap_or(f64::NAN) / y.to_f64().unwrap_or(f64::NAN))
                }
            })
        }
        Rank::BigDec => {
            let (x, y) = (bigdec(a), bigdec(b));
            let scale = x.as_bigint_and_exponent().1.abs_diff(y.as_bigint_and_exponent().1);
            if scale > 10_000 || x.digits() + y.digits() > 100_000 {
                return Err("the decimals are too far apart".into());
            }
            let result = match op {
                Op::Add => x + y,
                Op::Subtract => x - y,
                Op::Multiply => x * y,
                Op::Divide if y.is_zero() => return Err("division by zero".into()),
                Op::Divide => x / y,
            };
            Ok(Value::BigDec(result.into()))
        }
        Rank::Float | Rank::Double => {
            let x = a.to_f64().ok_or_else(|| wrong("a number", a))?;
            let y = b.to_f64().ok_or_else(|| wrong("a number", b))?;
            let result = match op {
                Op::Add => x + y,
                Op::Subtract => x - y,
                Op::Multiply => x * y,
                Op::Divide => x / y,
            };
            let both_floats =
                rank == Rank::Float && matches!((a, b), (Value::Float(_), Value::Float(_)));
            Ok(if both_floats { Value::Float(result as f32) } else { Value::Double(result) })
        }
    }
}

fn fold(args: &[Value], start: i64, op: Op) -> Result<Value, String> {
    match args.split_first() {
        None => Ok(Value::Long(start)),
        Some((first, rest)) => {
            rank(first)?;
            rest.iter().try_fold(first.clone(), |sum, next| apply(&sum, next, op))
        }
    }
}

fn subtract(args: &[Value]) -> Result<Value, String> {
    match args {
        [] => Err("takes 1 or more arguments, got 0".into()),
        [only] => apply(&Value::Long(0), only, Op::Subtract),
        [first, rest @ ..] => {
            rest.iter().try_fold(first.clone(), |sum, next| apply(&sum, next, Op::Subtract))
        }
    }
}

fn divide_all(args: &[Value]) -> Result<Value, String> {
    match args {
        [] => Err("takes 1 or more arguments, got 0".into()),
        [only] => apply(&Value::Long(1), only, Op::Divide),
        [first, rest @ ..] => {
            rest.iter().try_fold(first.clone(), |sum, next| apply(&sum, next, Op::Divide))
        }
    }
}

#[derive(Clone, Copy)]
enum Division {
    Quotient,
    Remainder,
    Modulus,
}

fn integer_division(args: &[Value], kind: Division) -> Result<Value, String> {
    let (a, b) = two(args)?;
    match rank(a)?.max(rank(b)?) {
        Rank::Long => {
            let (Value::Long(x), Value::Long(y)) = (a, b) else { return Err(wrong("a long", a)) };
            if *y == 0 {
                return Err("division by zero".into());
            }
            match kind {
                Division::Quotient => x.checked_div(*y),
                Division::Remainder => Some(x.wrapping_rem(*y)),
                Division::Modulus => {
                    let rem = x.wrapping_rem(*y);
                    Some(if rem != 0 && (rem < 0) != (*y < 0) { rem + y } else { rem })
                }
            }
            .map(Value::Long)
            .ok_or_else(|| format!("integer overflow with {a} and {b}"))
        }
        Rank::BigInt => {
            let (x, y) = (bigint(a), bigint(b));
            if y.is_zero() {
                return Err("division by zero".into());
            }
            Ok(Value::bigint(match kind {
                Division::Quotient => x / y,
                Division::Remainder => x % y,
                Division::Modulus => {
                    let rem = x % &y;
                    if !rem.is_zero() && rem.is_negative() != y.is_negative() {
                        rem + y
                    } else {
                        rem
                    }
                }
            }))
        }
        _ => {
            let x = a.to_f64().ok_or_else(|| wrong("a number", a))?;
            let y = b.to_f64().ok_or_else(|| wrong("a number", b))?;
            if y == 0.0 {
                return Err("division by zero".into());
            }
            Ok(Value::Double(match kind {
                Division::Quotient => (x / y).trunc(),
                Division::Remainder => x % y,
                Division::Modulus => x - y * (x / y).floor(),
            }))
        }
    }
}

fn absolute(n: &Value) -> Result<Value, String> {
    if sign(n)?.is_lt() { apply(&Value::Long(0), n, Op::Subtract) } else { Ok(n.clone()) }
}

fn sign(n: &Value) -> Result<std::cmp::Ordering, String> {
    datahike_value::compare_numbers(n, &Value::Long(0)).ok_or_else(|| wrong("a number", n))
}

fn parity(n: &Value) -> Result<bool, String> {
    match n {
        Value::Long(n) => Ok(n % 2 == 0),
        Value::BigInt(n) => Ok((&**n % 2u8).is_zero()),
        other => Err(wrong("an integer", other)),
    }
}

fn to_long(n: &Value) -> Result<Value, String> {
    match n {
        Value::Long(_) => Some(n.clone()),
        Value::BigInt(n) => n.to_i64().map(Value::Long),
        Value::BigDec(n) => n.to_i64().map(Value::Long),
        Value::Char(c) => Some(Value::Long(i64::from(u32::from(*c)))),
        Value::Inst(ms) => Some(Value::Long(*ms)),
        other => other.to_f64().and_then(|d| i64::from_f64(d.trunc())).map(Value::Long),
    }
    .ok_or_else(|| wrong("a number within 64 bits", n))
}

fn bits(args: &[Value], op: fn(i64, i64) -> i64) -> Result<Value, String> {
    arity(args, 2..)?;
    let long = |value: &Value| value.as_long().ok_or_else(|| wrong("a long", value));
    let first = long(&args[0])?;
    args[1..].iter().try_fold(first, |sum, next| Ok(op(sum, long(next)?))).map(Value::Long)
}
