//! From the rows that satisfy a query to those that it shows, kept up together.

use std::sync::Arc;

use datahike_value::Value;
use hashbrown::{HashMap, HashSet};

use super::Delta;
use super::affected::{Changes, Found, Row};
use super::group::Group;
use super::sight::{Counted, Sight};
use crate::block::Missing;
use crate::db::Db;
use crate::pull::{Pattern, Puller};
use crate::query::ast::{Ast, FindElement, FindShape, PullSpec};
use crate::query::error::QueryError;
use crate::query::find::wanted;
use crate::query::vars::Var;
use crate::query::{Context, QueryResult};

/// A result, and what is kept to keep it up.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) ast: Arc<Ast>,
    /// The variable of each place of a row.
    vars: Vec<Var>,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    /// Of a result that is run again: what it showed.
    Whole(HashSet<Value>),
    /// Each row shows itself.
    Plain(HashSet<Row>),
    /// Several rows may show the same.
    Counted(Counted),
    /// By the values of what is no aggregate.
    Grouped { rows: HashSet<Row>, groups: HashMap<Row, Group> },
}

/// A change that is worked out, and cannot fail for missing blocks any more.
pub(super) struct Ready {
    come: Vec<(Row, Option<Sight>)>,
    gone: Vec<Row>,
}

impl Shown {
    /// An empty result.
    pub(super) fn new(ast: &Arc<Ast>) -> Self {
        let any = |wanted: fn(&FindElement) -> bool| ast.find.iter().any(wanted);
        let kept = if any(|element| matches!(element, FindElement::Aggregate { .. })) {
            Kept::Grouped { rows: HashSet::new(), groups: HashMap::new() }
        } else if any(|element| matches!(element, FindElement::Pull { .. })) || !ast.with.is_empty()
        {
            Kept::Counted(Counted::default())
        } else {
            Kept::Plain(HashSet::new())
        };
        Self { ast: Arc::clone(ast), vars: wanted(ast), kept }
    }

    /// A result as it came from a run.
    pub(super) fn whole(ast: &Arc<Ast>, result: QueryResult) -> Self {
        let rows = match result {
            QueryResult::Relation(rows) => {
                rows.iter().map(|row| Value::vector(row.to_vec())).collect()
            }
            QueryResult::Collection(values) | QueryResult::Maps(values) => {
                values.into_iter().collect()
            }
            QueryResult::Tuple(row) => row.map(Value::vector).into_iter().collect(),
            QueryResult::Scalar(value) | QueryResult::Map(value) => value.into_iter().collect(),
        };
        Self { kept: Kept::Whole(rows), ..Self::new(ast) }
    }

    pub(super) fn len(&self) -> usize {
        match &self.kept {
            Kept::Whole(rows) => rows.len(),
            Kept::Plain(rows) => rows.len(),
            Kept::Counted(counted) => counted.len(),
            Kept::Grouped { groups, .. } => groups.len(),
        }
    }

    pub(super) fn rows(&self) -> Box<dyn Iterator<Item = Value> + '_> {
        match &self.kept {
            Kept::Whole(rows) => Box::new(rows.iter().cloned()),
            Kept::Plain(rows) => Box::new(rows.iter().map(|row| self.plain(row))),
            Kept::Counted(counted) => Box::new(counted.values().cloned()),
            Kept::Grouped { groups, .. } => {
                Box::new(groups.values().filter_map(|group| group.shown.clone()))
            }
        }
    }

    fn holds(&self, row: &Row) -> bool {
        match &self.kept {
            Kept::Whole(_) => false,
            Kept::Plain(rows) | Kept::Grouped { rows, .. } => rows.contains(row),
            Kept::Counted(counted) => counted.holds(row),
        }
    }

    fn base(&self) -> Box<dyn Iterator<Item = &Row> + '_> {
        match &self.kept {
            Kept::Whole(_) => Box::new(std::iter::empty()),
            Kept::Plain(rows) | Kept::Grouped { rows, .. } => Box::new(rows.iter()),
            Kept::Counted(counted) => Box::new(counted.rows()),
        }
    }

    /// Works out what is new and what is gone.
    pub(super) fn prepare(
        &self,
        context: &Context,
        found: Found,
        db: &Db,
        changes: &Changes<'_>,
    ) -> Result<Ready, QueryError> {
        let (mut come, gone): (Vec<Row>, Vec<Row>) = match found {
            Found::All(new) => {
                let gone = self.base().filter(|row| !new.contains(*row)).cloned().collect();
                (new.into_iter().filter(|row| !self.holds(row)).collect(), gone)
            }
            Found::Some { there, gone } => (
                there.into_iter().filter(|row| !self.holds(row)).collect(),
                gone.into_iter().filter(|row| self.holds(row)).collect(),
            ),
        };
        let Kept::Counted(counted) = &self.kept else {
            return Ok(Ready { come: come.into_iter().map(|row| (row, None)).collect(), gone });
        };
        let mut again: HashSet<&Row> = HashSet::new();
        for datom in changes.datoms() {
            let target = datom.v.as_long().and_then(|e| u64::try_from(e).ok());
            for e in std::iter::once(datom.e).chain(target) {
                again.extend(counted.read_from(e));
            }
        }
        for row in &gone {
            again.remove(row);
        }
        come.extend(again.into_iter().cloned());
        let mut puller = Puller::within(db, &context.budget, &context.functions)?.watching();
        let mut seen = Vec::with_capacity(come.len());
        let mut missing = Vec::new();
        for row in come {
            match self.sight(&row, &mut puller) {
                Ok(sight) => seen.push((row, Some(sight))),
                Err(QueryError::Missing(fault)) => missing.extend(fault.addresses),
                Err(error) => return Err(error),
            }
        }
        if !missing.is_empty() {
            missing.sort_unstable();
            missing.dedup();
            return Err(Missing { addresses: missing }.into());
        }
        Ok(Ready { come: seen, gone })
    }

    /// Carries a change out. After an error what is kept cannot be trusted.
    pub(super) fn apply(&mut self, ready: Ready) -> Result<Delta, QueryError> {
        let mut delta = Delta::default();
        match &mut self.kept {
            Kept::Whole(_) => {}
            Kept::Plain(rows) => {
                ready.gone.iter().for_each(|row| {
                    rows.remove(row);
                });
                rows.extend(ready.come.iter().map(|(row, _)| row.clone()));
                delta.removed = ready.gone.iter().map(|row| self.plain(row)).collect();
                delta.added = ready.come.iter().map(|(row, _)| self.plain(row)).collect();
            }
            Kept::Counted(counted) => {
                let come = ready.come.into_iter().filter_map(|(row, sight)| Some((row, sight?)));
                delta = counted.change(ready.gone, come.collect());
            }
            Kept::Grouped { rows, groups } => {
                let mut touched: HashSet<Row> = HashSet::new();
                for row in ready.gone {
                    let key = group_key(&self.ast, &self.vars, &row);
                    if let Some(group) = groups.get_mut(&key) {
                        group.remove(aggregated(&self.ast, &self.vars, &row));
                    }
                    rows.remove(&row);
                    touched.insert(key);
                }
                for (row, _) in ready.come {
                    let key = group_key(&self.ast, &self.vars, &row);
                    let group = groups.entry(key.clone()).or_default();
                    group.add(aggregated(&self.ast, &self.vars, &row));
                    rows.insert(row);
                    touched.insert(key);
                }
                for key in touched {
                    let Some(group) = groups.get_mut(&key) else { continue };
                    let shown = match group.is_empty() {
                        true => None,
                        false => Some(shaped(&self.ast, group.row(&self.ast, &key)?)),
                    };
                    if group.shown != shown {
                        delta.removed.extend(group.shown.take());
                        delta.added.extend(shown.clone());
                        group.shown = shown;
                    }
                    if group.is_empty() {
                        groups.remove(&key);
                    }
                }
            }
        }
        Ok(delta)
    }

    fn plain(&self, row: &Row) -> Value {
        let shown = self.ast.find.iter().map(|element| match element {
            FindElement::Var(var) => at(&self.vars, row, *var).clone(),
            FindElement::Pull { .. } | FindElement::Aggregate { .. } => Value::Nil,
        });
        shaped(&self.ast, shown.collect())
    }

    fn sight(&self, row: &Row, puller: &mut Puller<'_>) -> Result<Sight, QueryError> {
        let mut shown = Vec::with_capacity(self.ast.find.len());
        for element in &self.ast.find {
            shown.push(match element {
                FindElement::Var(var) => at(&self.vars, row, *var).clone(),
                FindElement::Pull { var, pattern, .. } => {
                    let given;
                    let pattern = match pattern {
                        PullSpec::Pattern(pattern) => pattern,
                        PullSpec::Var(var) => {
                            given = Pattern::parse(at(&self.vars, row, *var))?;
                            &given
                        }
                    };
                    puller.named(pattern, at(&self.vars, row, *var))?
                }
                FindElement::Aggregate { .. } => Value::Nil,
            });
        }
        Ok(Sight::new(shaped(&self.ast, shown), puller.take_visited()))
    }
}

fn at<'a>(vars: &[Var], row: &'a Row, var: Var) -> &'a Value {
    static NIL: Value = Value::Nil;
    vars.iter().position(|known| *known == var).and_then(|place| row.get(place)).unwrap_or(&NIL)
}

/// A row in the shape that the query asks for.
fn shaped(ast: &Ast, row: Vec<Value>) -> Value {
    if let Some(keys) = &ast.keys {
        return Value::map(keys.iter().cloned().zip(row));
    }
    match ast.shape {
        FindShape::Relation | FindShape::Tuple => Value::vector(row),
        FindShape::Collection | FindShape::Scalar => row.into_iter().next().unwrap_or_default(),
    }
}

fn group_key(ast: &Ast, vars: &[Var], row: &Row) -> Row {
    let keys = ast.find.iter().filter_map(|element| match element {
        FindElement::Var(var) => Some(at(vars, row, *var).clone()),
        _ => None,
    });
    keys.collect()
}

/// What a row gives to each aggregate.
fn aggregated<'a>(
    ast: &'a Ast,
    vars: &'a [Var],
    row: &'a Row,
) -> impl Iterator<Item = &'a Value> + 'a {
    ast.find.iter().filter_map(|element| match element {
        FindElement::Aggregate { over, .. } => Some(at(vars, row, *over)),
        _ => None,
    })
}
