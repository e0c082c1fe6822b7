//! The functions of the host that conformance cases name.

use std::sync::Arc;

use datahike_core::query::HostFn;
use datahike_value::Value;

const NAMES: [&str; 9] =
    ["even?", "odd?", "inc", "identity", "pos?", "range", "nil-if-odd", "minmax", "sort-desc"];

/// The function of this name, if there is one.
pub fn function(name: &str) -> Option<HostFn> {
    let name = *NAMES.iter().find(|known| **known == name)?;
    Some(Arc::new(move |given: &[Value]| call(name, given)))
}

fn call(name: &str, given: &[Value]) -> Result<Value, String> {
    match (name, given) {
        ("identity", [value]) => Ok(value.clone()),
        ("even?", [n]) => Ok((long(n)? % 2 == 0).into()),
        ("odd?", [n]) => Ok((long(n)? % 2 != 0).into()),
        ("pos?", [n]) => Ok((long(n)? > 0).into()),
        ("inc", [n]) => long(n)?.checked_add(1).map(Value::from).ok_or("overflow".to_owned()),
        ("nil-if-odd", [n]) => Ok(if long(n)? % 2 == 0 { n.clone() } else { Value::Nil }),
        ("range", [end]) => Ok(Value::vector((0..long(end)?).map(Value::from))),
        ("range", [begin, end]) => Ok(Value::vector((long(begin)?..long(end)?).map(Value::from))),
        ("minmax", _) => minmax(&collection(given)?),
        ("sort-desc", _) => sort_desc(&collection(given)?),
        _ => Err(format!("{name} takes no {} arguments", given.len())),
    }
}

fn minmax(values: &[Value]) -> Result<Value, String> {
    match (values.iter().min(), values.iter().max()) {
        (Some(min), Some(max)) => Ok(Value::vector([min.clone(), max.clone()])),
        _ => Err("minmax of nothing".to_owned()),
    }
}

fn sort_desc(values: &[Value]) -> Result<Value, String> {
    let mut sorted = values.to_vec();
    sorted.sort_by(|a, b| b.cmp(a));
    Ok(Value::vector(sorted))
}

fn collection(given: &[Value]) -> Result<Vec<Value>, String> {
    let last = given.last().ok_or("no argument")?;
    crate::judge::elements(last).ok_or_else(|| format!("{last} is no collection"))
}

fn long(value: &Value) -> Result<i64, String> {
    value.as_long().ok_or_else(|| format!("{value} is no integer"))
}
