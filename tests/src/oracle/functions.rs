//! The functions that generated queries call.

use std::cmp::Ordering;

use datahike_value::{Value, compare_numbers};

use super::OracleError;

/// What a call gives: a value, or nothing, which drops the row.
pub(super) enum Outcome {
    Value(Value),
    Nothing,
}

pub(super) fn call(function: &str, arguments: &[Value]) -> Result<Outcome, OracleError> {
    let undefined = || OracleError::Undefined {
        function: function.to_owned(),
        argument: Value::vector(arguments.iter().cloned()).to_string(),
    };
    let longs =
        || arguments.iter().map(Value::as_long).collect::<Option<Vec<i64>>>().ok_or_else(undefined);
    let chain = |holds: fn(Ordering) -> bool| -> Result<Value, OracleError> {
        let mut all = true;
        for pair in arguments.windows(2) {
            all &= holds(compare(&pair[0], &pair[1]).ok_or_else(undefined)?);
        }
        Ok(all.into())
    };
    let value = match (function, arguments) {
        ("=", _) => arguments.windows(2).all(|pair| pair[0] == pair[1]).into(),
        ("not=" | "!=", _) => (!arguments.windows(2).all(|pair| pair[0] == pair[1])).into(),
        ("<", _) => chain(Ordering::is_lt)?,
        ("<=", _) => chain(Ordering::is_le)?,
        (">", _) => chain(Ordering::is_gt)?,
        (">=", _) => chain(Ordering::is_ge)?,
        ("even?", [_]) => (longs()?[0] % 2 == 0).into(),
        ("odd?", [_]) => (longs()?[0] % 2 != 0).into(),
        ("pos?", [_]) => (longs()?[0] > 0).into(),
        ("neg?", [_]) => (longs()?[0] < 0).into(),
        ("zero?", [_]) => (longs()?[0] == 0).into(),
        ("inc", [_]) => (longs()?[0] + 1).into(),
        ("dec", [_]) => (longs()?[0] - 1).into(),
        ("+", _) => longs()?.iter().sum::<i64>().into(),
        ("*", _) => longs()?.iter().product::<i64>().into(),
        ("-", [_, _]) => {
            let longs = longs()?;
            (longs[0] - longs[1]).into()
        }
        ("identity" | "ground", [value]) => value.clone(),
        ("vector" | "tuple", _) => Value::vector(arguments.iter().cloned()),
        ("untuple", [tuple]) => tuple.clone(),
        ("str", _) => arguments.iter().map(text).collect::<String>().into(),
        _ => return Err(OracleError::Form(function.to_owned())),
    };
    // A function that gives nil binds nothing.
    Ok(if value.is_nil() { Outcome::Nothing } else { Outcome::Value(value) })
}

/// Functions that look into a database.
pub(super) fn call_with_source(
    function: &str,
    tuples: &[Vec<Value>],
    arguments: &[Value],
) -> Result<Outcome, OracleError> {
    let [entity, attribute, rest @ ..] = arguments else {
        return Err(OracleError::Form(function.to_owned()));
    };
    let value = tuples.iter().find(|t| t[0] == *entity && t[1] == *attribute).map(|t| t[2].clone());
    match (function, rest) {
        ("get-else", [default]) => Ok(Outcome::Value(value.unwrap_or_else(|| default.clone()))),
        ("missing?", []) => Ok(Outcome::Value(value.is_none().into())),
        _ => Err(OracleError::Form(function.to_owned())),
    }
}

/// Among numbers by size whatever their types, else among values of one type.
pub(super) fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    if left.is_number() && right.is_number() {
        return compare_numbers(left, right);
    }
    (left.type_name() == right.type_name()).then(|| left.cmp(right))
}

fn text(value: &Value) -> String {
    match value {
        Value::Str(text) => text.to_string(),
        Value::Nil => String::new(),
        other => other.to_string(),
    }
}
