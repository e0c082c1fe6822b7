//! Aggregates that are kept up as values come and go.

use std::collections::BTreeMap;

use datahike_value::Value;

use crate::query::aggregate::{self, Random};
use crate::query::ast::{Arg, Ast, Callee, FindElement};
use crate::query::error::QueryError;

/// One group: how many rows it has, and one tally for each aggregate of `:find`.
#[derive(Clone, Debug, Default)]
pub(super) struct Group {
    rows: usize,
    tallies: Vec<Tally>,
    pub(super) shown: Option<Value>,
}

impl Group {
    pub(super) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Adds a row, which gives one value to each aggregate.
    pub(super) fn add<'a>(&mut self, values: impl Iterator<Item = &'a Value>) {
        self.rows += 1;
        for (place, value) in values.enumerate() {
            if self.tallies.len() <= place {
                self.tallies.push(Tally::default());
            }
            self.tallies[place].add(value);
        }
    }

    /// Takes a row away that was added.
    pub(super) fn remove<'a>(&mut self, values: impl Iterator<Item = &'a Value>) {
        self.rows -= 1;
        self.tallies.iter_mut().zip(values).for_each(|(tally, value)| tally.remove(value));
    }

    /// The elements of `:find`, those that are no aggregates from `key`.
    pub(super) fn row(&self, ast: &Ast, key: &[Value]) -> Result<Vec<Value>, QueryError> {
        let (mut keys, mut tallies) = (key.iter(), self.tallies.iter());
        let element = |element: &FindElement| match element {
            FindElement::Aggregate { .. } => match tallies.next() {
                Some(tally) => tally.value(element, self.rows),
                None => Ok(Value::Nil),
            },
            _ => Ok(keys.next().cloned().unwrap_or_default()),
        };
        ast.find.iter().map(element).collect()
    }
}

/// The values of a group under one aggregated variable.
#[derive(Clone, Debug, Default)]
struct Tally {
    values: BTreeMap<Value, usize>,
    /// The sum of those that are longs.
    longs: i128,
    /// How many are not.
    others: usize,
}

impl Tally {
    fn add(&mut self, value: &Value) {
        *self.values.entry(value.clone()).or_insert(0) += 1;
        match value {
            Value::Long(n) => self.longs += i128::from(*n),
            _ => self.others += 1,
        }
    }

    fn remove(&mut self, value: &Value) {
        let Some(times) = self.values.get_mut(value) else { return };
        *times -= 1;
        if *times == 0 {
            self.values.remove(value);
        }
        match value {
            Value::Long(n) => self.longs -= i128::from(*n),
            _ => self.others -= 1,
        }
    }

    /// The aggregate over `rows` values.
    fn value(&self, element: &FindElement, rows: usize) -> Result<Value, QueryError> {
        let FindElement::Aggregate { callee: Callee::Name(name), params, form, .. } = element
        else {
            return Ok(Value::Nil);
        };
        let sum = || i64::try_from(self.longs).ok().filter(|_| self.others == 0);
        if params.is_empty() {
            match (name.text(), sum()) {
                ("count", _) => return Ok(Value::Long(rows as i64)),
                ("count-distinct", _) => return Ok(Value::Long(self.values.len() as i64)),
                ("distinct", _) => return Ok(Value::set(self.values.keys().cloned())),
                ("sum", Some(sum)) => return Ok(Value::Long(sum)),
                ("avg", Some(sum)) => return Ok(Value::Double(sum as f64 / rows as f64)),
                _ => {}
            }
        }
        let failed =
            |message: String| QueryError::new("query/find", format!("{name}: {message}")).at(form);
        let params: Vec<Value> = params
            .iter()
            .map(|param| match param {
                Arg::Const(value) => value.clone(),
                _ => Value::Nil,
            })
            .collect();
        let extreme = params.is_empty() && matches!(name.text(), "min" | "max");
        let all: Vec<Value> = self
            .values
            .iter()
            .flat_map(|(value, times)| {
                std::iter::repeat_n(value, if extreme { 1 } else { *times }).cloned()
            })
            .collect();
        aggregate::builtin(name.text(), &params, &all, &mut Random::new(0))
            .unwrap_or_else(|| Err("unknown aggregate".into()))
            .map_err(failed)
    }
}
