//! Aggregates over the values of a group.
//!
//! `avg`, `median`, `variance` and `stddev` are always doubles (population variance); `sum`, `min`,
//! `max` and the counts are exact and keep the type.

use std::cmp::Ordering;

use datahike_value::Value;
use hashbrown::HashSet;

use super::functions::less;
use super::functions::numbers::{Op, apply};

pub(crate) const NAMES: [&str; 12] = [
    "count",
    "count-distinct",
    "sum",
    "avg",
    "min",
    "max",
    "median",
    "variance",
    "stddev",
    "distinct",
    "rand",
    "sample",
];

/// A sequence of numbers from a seed: the same for each run of the same query.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// SplitMix64.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In `0..n`; 0 for `n = 0`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// In `0.0..1.0`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// A built-in aggregate over the values of one group, which has at least one. `None` if there is no
/// such aggregate.
pub(crate) fn builtin(
    name: &str,
    params: &[Value],
    values: &[Value],
    random: &mut Random,
) -> Option<Result<Value, String>> {
    let n_first = || match params {
        [Value::Long(n)] if *n >= 0 => Ok(*n as usize),
        [other] => Err(format!("takes how many as a positive integer, got {other}")),
        _ => Err("takes one parameter before the variable".to_string()),
    };
    if params.is_empty() {
        return Some(match name {
            "count" => Ok(Value::Long(values.len() as i64)),
            "count-distinct" => Ok(Value::Long(distinct(values).len() as i64)),
            "distinct" => Ok(Value::set(values.iter().cloned())),
            "sum" => sum(values),
            "avg" => mean(values).map(Value::Double),
            "median" => median(values),
            "variance" => variance(values).map(Value::Double),
            "stddev" => variance(values).map(|v| Value::Double(v.sqrt())),
            "min" => Ok(extreme(values, Ordering::Less)),
            "max" => Ok(extreme(values, Ordering::Greater)),
            "rand" => Ok(values.get(random.below(values.len())).cloned().unwrap_or_default()),
            "sample" => Err("takes how many before the variable".into()),
            _ => return None,
        });
    }
    Some(n_first().and_then(|n| match name {
        "min" => Ok(smallest(values, n, less)),
        "max" => {
            let Value::Vector(largest) = smallest(values, n, |a, b| less(b, a)) else {
                return Ok(Value::Nil);
            };
            Ok(Value::vector(largest.iter().rev().cloned()))
        }
        "rand" => Ok(Value::vector(
            (0..n.min(1_000_000)).filter_map(|_| values.get(random.below(values.len())).cloned()),
        )),
        "sample" => {
            let mut pool = distinct(values);
            let taken = n.min(pool.len());
            for place in 0..taken {
                let other = place + random.below(pool.len() - place);
                pool.swap(place, other);
            }
            pool.truncate(taken);
            Ok(Value::vector(pool.into_iter().cloned()))
        }
        name if NAMES.contains(&name) => Err("takes no parameter before the variable".into()),
        _ => Err(String::new()),
    }))
    .filter(|_| NAMES.contains(&name))
}

fn distinct(values: &[Value]) -> Vec<&Value> {
    let mut seen = HashSet::with_capacity(values.len().min(1024));
    values.iter().filter(|value| seen.insert(*value)).collect()
}

fn sum(values: &[Value]) -> Result<Value, String> {
    let mut longs: i64 = 0;
    let mut rest = values.iter();
    for value in rest.by_ref() {
        match value {
            Value::Long(n) => match longs.checked_add(*n) {
                Some(sum) => longs = sum,
                None => {
                    let sum = apply(&Value::bigint(longs), value, Op::Add)?;
                    return rest.try_fold(sum, |sum, next| apply(&sum, next, Op::Add));
                }
            },
            other => {
                let sum = apply(&Value::Long(longs), other, Op::Add)?;
                return rest.try_fold(sum, |sum, next| apply(&sum, next, Op::Add));
            }
        }
    }
    Ok(Value::Long(longs))
}

fn number(value: &Value) -> Result<f64, String> {
    value.to_f64().ok_or_else(|| format!("expected a number, got {} {value}", value.type_name()))
}

fn mean(values: &[Value]) -> Result<f64, String> {
    let total = sum(values)?;
    Ok(number(&total)? / values.len() as f64)
}

fn median(values: &[Value]) -> Result<Value, String> {
    let mut sorted = values.iter().map(number).collect::<Result<Vec<f64>, _>>()?;
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    Ok(Value::Double(match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }))
}

fn variance(values: &[Value]) -> Result<f64, String> {
    let mean = mean(values)?;
    let mut total = 0.0;
    for value in values {
        total += (number(value)? - mean).powi(2);
    }
    Ok(total / values.len() as f64)
}

fn extreme(values: &[Value], wanted: Ordering) -> Value {
    let mut best: Option<&Value> = None;
    for value in values {
        if best.is_none_or(|best| less(value, best) == wanted) {
            best = Some(value);
        }
    }
    best.cloned().unwrap_or_default()
}

/// The first `n` values in `order`, without doubling the work of a full sort.
fn smallest(values: &[Value], n: usize, order: impl Fn(&Value, &Value) -> Ordering) -> Value {
    let mut all: Vec<&Value> = values.iter().collect();
    if n < all.len() {
        if n > 0 {
            all.select_nth_unstable_by(n - 1, |a, b| order(a, b));
        }
        all.truncate(n);
    }
    all.sort_by(|a, b| order(a, b));
    Value::vector(all.into_iter().cloned())
}
