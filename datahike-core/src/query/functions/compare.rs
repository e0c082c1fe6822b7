//! Equality, order and logic as in Clojure: numbers compare by value across types, but are equal only
//! within integers, within floating point, and within decimals of one scale.

use std::cmp::Ordering;

use datahike_value::{Value, compare_numbers};

use super::{arity, one, table, two};

table! {
    "=" => |args| Ok(chain(args, |a, b| Ok(equal(a, b)))?.into()),
    "==" => |args| Ok(chain(args, numerically_equal)?.into()),
    "not=" | "!=" | "-differ?" => |args| Ok((!chain(args, |a, b| Ok(equal(a, b)))?).into()),
    "<" => |args| Ok(chain(args, |a, b| Ok(order(a, b)?.is_lt()))?.into()),
    ">" => |args| Ok(chain(args, |a, b| Ok(order(a, b)?.is_gt()))?.into()),
    "<=" => |args| Ok(chain(args, |a, b| Ok(order(a, b)?.is_le()))?.into()),
    ">=" => |args| Ok(chain(args, |a, b| Ok(order(a, b)?.is_ge()))?.into()),
    "before?" => |args| Ok(chain(args, |a, b| Ok(order(a, b)?.is_lt()))?.into()),
    "after?" => |args| Ok(chain(args, |a, b| Ok(order(a, b)?.is_gt()))?.into()),
    "compare" => |args| {
        let (a, b) = two(args)?;
        let order = match (a.is_nil(), b.is_nil()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Less,
            (false, true) => Ordering::Greater,
            (false, false) => order(a, b)?,
        };
        Ok(Value::Long(order as i64))
    },
    "identical?" => |args| two(args).map(|(a, b)| (a == b).into()),
    "min" => |args| extreme(args, Ordering::Less),
    "max" => |args| extreme(args, Ordering::Greater),
    "true?" => |args| Ok(matches!(one(args)?, Value::Bool(true)).into()),
    "false?" => |args| Ok(matches!(one(args)?, Value::Bool(false)).into()),
    "nil?" => |args| Ok(one(args)?.is_nil().into()),
    "some?" => |args| Ok((!one(args)?.is_nil()).into()),
    "not" => |args| Ok((!one(args)?.is_truthy()).into()),
    "boolean" => |args| Ok(one(args)?.is_truthy().into()),
    "and" => |args| {
        Ok(args.iter().find(|arg| !arg.is_truthy()).or(args.last()).cloned().unwrap_or(true.into()))
    },
    "or" => |args| {
        Ok(args.iter().find(|arg| arg.is_truthy()).or(args.last()).cloned().unwrap_or_default())
    },
    "identity" | "ground" => |args| one(args).cloned(),
    "string?" => |args| Ok(matches!(one(args)?, Value::Str(_)).into()),
    "keyword?" => |args| Ok(matches!(one(args)?, Value::Keyword(_)).into()),
    "symbol?" => |args| Ok(matches!(one(args)?, Value::Symbol(_)).into()),
    "boolean?" => |args| Ok(matches!(one(args)?, Value::Bool(_)).into()),
    "uuid?" => |args| Ok(matches!(one(args)?, Value::Uuid(_)).into()),
    "inst?" => |args| Ok(matches!(one(args)?, Value::Inst(_)).into()),
    "type" => |args| one(args).map(|value| Value::keyword(value.type_name())),
    "inst-ms" => |args| match one(args)? {
        Value::Inst(ms) => Ok(Value::Long(*ms)),
        other => Err(super::wrong("an instant", other)),
    },
}

fn chain(
    args: &[Value],
    holds: impl Fn(&Value, &Value) -> Result<bool, String>,
) -> Result<bool, String> {
    arity(args, 1..)?;
    for pair in args.windows(2) {
        if !holds(&pair[0], &pair[1])? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Equal as Clojure's `=` says.
pub(crate) fn equal(a: &Value, b: &Value) -> bool {
    use Value::{BigInt, Double, Float, List, Long, Map, Set, Vector};
    match (a, b) {
        (Long(a), Long(b)) => a == b,
        (Long(_), BigInt(_)) | (BigInt(_), Long(_)) => {
            compare_numbers(a, b) == Some(Ordering::Equal)
        }
        (Double(x), Double(y)) => x == y,
        (Float(x), Float(y)) => x == y,
        (Float(x), Double(y)) | (Double(y), Float(x)) => f64::from(*x) == *y,
        (List(a) | Vector(a), List(b) | Vector(b)) => {
            a.len() == b.len() && a.iter().zip(&**b).all(|(a, b)| equal(a, b))
        }
        (Map(x), Map(y)) => {
            x.len() == y.len()
                && (x == y
                    || x.iter()
                        .all(|(key, value)| y.get(key).is_some_and(|other| equal(value, other))))
        }
        (Set(x), Set(y)) => {
            x.len() == y.len()
                && (x == y || x.iter().all(|item| y.iter().any(|other| equal(item, other))))
        }
        (a, b) => a == b,
    }
}

fn numerically_equal(a: &Value, b: &Value) -> Result<bool, String> {
    compare_numbers(a, b).map(Ordering::is_eq).ok_or_else(|| {
        format!("cannot compare {} with {} as numbers", a.type_name(), b.type_name())
    })
}

/// The order of two numbers, or of two values of one kind.
fn order(a: &Value, b: &Value) -> Result<Ordering, String> {
    if let Some(order) = compare_numbers(a, b) {
        return Ok(order);
    }
    let same_kind = std::mem::discriminant(a) == std::mem::discriminant(b)
        || matches!((a, b), (Value::List(_) | Value::Vector(_), Value::List(_) | Value::Vector(_)));
    if same_kind {
        Ok(a.cmp(b))
    } else {
        Err(format!("cannot compare {} {a} with {} {b}", a.type_name(), b.type_name()))
    }
}

/// The order used by `min`, `max`, `median` and `:order-by`: numbers by value, then the order of
/// all values.
pub(crate) fn less(a: &Value, b: &Value) -> Ordering {
    compare_numbers(a, b).unwrap_or_else(|| a.cmp(b))
}

/// `(max [1 2])` takes one collection; several arguments are compared with each other.
fn extreme(args: &[Value], wanted: Ordering) -> Result<Value, String> {
    arity(args, 1..)?;
    let pick = |best: Value, next: &Value| {
        if less(next, &best) == wanted { next.clone() } else { best }
    };
    match args {
        [Value::Set(items)] => Ok(items
            .iter()
            .fold(None, |best, next| {
                Some(best.map_or_else(|| next.clone(), |best| pick(best, next)))
            })
            .unwrap_or_default()),
        [one] => match one.as_slice() {
            Some([]) => Ok(Value::Nil),
            Some([first, rest @ ..]) => Ok(rest.iter().fold(first.clone(), pick)),
            None => Ok(one.clone()),
        },
        [first, rest @ ..] => Ok(rest.iter().fold(first.clone(), pick)),
        [] => Ok(Value::Nil),
    }
}
