//! From rows to the answer: projection, groups, aggregates, shape.

use std::collections::{BTreeMap, BTreeSet};

use datahike_value::Value;

use super::eval::Row;
use super::query::{Element, Find, Query, Term};
use super::{OracleError, functions};

/// The variables of `:find` and then of `:with`: they say which rows are one.
pub(super) fn columns(query: &Query) -> Result<Vec<String>, OracleError> {
    let found = query.elements.iter().map(|element| match element {
        Element::Var(name) => Ok(name.clone()),
        Element::Aggregate { arguments, .. } => match arguments.last() {
            Some(Term::Var(name)) => Ok(name.clone()),
            _ => Err(OracleError::Form(format!("{element:?}"))),
        },
    });
    found.chain(query.with.iter().cloned().map(Ok)).collect()
}

/// The answer to `query` from the rows of its clauses.
pub(super) fn shape(query: &Query, rows: &BTreeSet<Row>) -> Result<Value, OracleError> {
    let value = |row: &Row, name: &String| {
        row.get(name).cloned().ok_or_else(|| OracleError::Unbound(name.clone()))
    };
    let columns = columns(query)?;
    let width = columns.len() - query.with.len();
    let distinct: BTreeSet<Vec<Value>> = rows
        .iter()
        .map(|row| columns.iter().map(|name| value(row, name)).collect())
        .collect::<Result<_, _>>()?;

    let aggregated = query.elements.iter().any(|e| matches!(e, Element::Aggregate { .. }));
    let found: Vec<Vec<Value>> = if aggregated {
        group(query, &distinct)?
    } else {
        distinct.into_iter().map(|row| row[..width].to_vec()).collect()
    };
    let vectors = found.iter().map(|row| Value::vector(row.iter().cloned()));
    Ok(match query.find {
        Find::Relation if aggregated || !query.with.is_empty() => Value::vector(vectors),
        Find::Relation => Value::set(vectors),
        Find::Tuple => Value::vector(vectors),
        Find::Collection | Find::Scalar => Value::vector(found.iter().map(|row| row[0].clone())),
    })
}

fn group(query: &Query, rows: &BTreeSet<Vec<Value>>) -> Result<Vec<Vec<Value>>, OracleError> {
    let is_key = |place: usize| matches!(query.elements[place], Element::Var(_));
    let mut groups: BTreeMap<Vec<Value>, Vec<&Vec<Value>>> = BTreeMap::new();
    for row in rows {
        let key =
            (0..query.elements.len()).filter(|p| is_key(*p)).map(|p| row[p].clone()).collect();
        groups.entry(key).or_default().push(row);
    }
    groups
        .into_values()
        .map(|members| {
            query
                .elements
                .iter()
                .enumerate()
                .map(|(place, element)| match element {
                    Element::Var(_) => Ok(members[0][place].clone()),
                    Element::Aggregate { function, .. } => {
                        let column: Vec<Value> =
                            members.iter().map(|row| row[place].clone()).collect();
                        aggregate(function, column)
                    }
                })
                .collect()
        })
        .collect()
}

fn aggregate(function: &str, mut values: Vec<Value>) -> Result<Value, OracleError> {
    let undefined = |argument: &Value| OracleError::Undefined {
        function: function.to_owned(),
        argument: argument.to_string(),
    };
    let longs = |values: &[Value]| -> Result<Vec<i64>, OracleError> {
        values.iter().map(|v| v.as_long().ok_or_else(|| undefined(v))).collect()
    };
    let doubles = |values: &[Value]| -> Result<Vec<f64>, OracleError> {
        Ok(longs(values)?.into_iter().map(|n| n as f64).collect())
    };
    let mean = |numbers: &[f64]| numbers.iter().sum::<f64>() / numbers.len() as f64;
    let variance = |numbers: &[f64]| {
        let mean = mean(numbers);
        numbers.iter().map(|n| (n - mean) * (n - mean)).sum::<f64>() / numbers.len() as f64
    };
    if let Some(pair) = values.windows(2).find(|p| functions::compare(&p[0], &p[1]).is_none())
        && ["min", "max"].contains(&function)
    {
        return Err(undefined(&pair[1]));
    }
    values.sort_by(|a, b| functions::compare(a, b).unwrap_or_else(|| a.cmp(b)));
    Ok(match function {
        "count" => (values.len() as i64).into(),
        "count-distinct" => (values.iter().collect::<BTreeSet<_>>().len() as i64).into(),
        "distinct" => Value::set(values),
        "min" => values[0].clone(),
        "max" => values[values.len() - 1].clone(),
        "sum" => longs(&values)?.iter().sum::<i64>().into(),
        "avg" => mean(&doubles(&values)?).into(),
        "variance" => variance(&doubles(&values)?).into(),
        "stddev" => variance(&doubles(&values)?).sqrt().into(),
        "median" => {
            let sorted = doubles(&values)?;
            let middle = sorted.len() / 2;
            let below = if sorted.len() % 2 == 1 { middle } else { middle - 1 };
            ((sorted[below] + sorted[middle]) / 2.0).into()
        }
        _ => return Err(OracleError::Form(function.to_owned())),
    })
}
