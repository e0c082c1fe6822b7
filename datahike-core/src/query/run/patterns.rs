//! Patterns against snapshots and collections.

mod read;
mod resolve;

use self::read::columns_for;
use self::resolve::{DbPattern, db_is_state};
use super::super::ast::{Clause, Pattern, Term};
use super::super::error::QueryError;
use super::super::relation::{Cell, Relation};
use super::super::source::{ScanFilter, Source};
use super::super::vars::{Var, VarSet};
use super::{Env, Run};
use crate::db::Db;
use crate::index::Range;

/// Where a component of a pattern gets its value from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Slot {
    /// Anything will do.
    Any,
    /// Known before anything is read; what it is stands in the fixed part of the probe.
    Fixed,
    /// A column of the left side.
    Left(usize),
    /// Binds a variable.
    New(Var),
    /// Must equal an earlier component.
    Same(usize),
}

impl Run<'_> {
    pub(super) fn pattern(
        &mut self,
        env: Env<'_>,
        pattern: &Pattern,
        left: Relation,
        pending: &mut Vec<&Clause>,
        needed: &VarSet,
    ) -> Result<(Relation, String), QueryError> {
        let place = self.source(env, pattern.source)?;
        match &self.sources[place].1 {
            Source::Rows(_) => self.rows_pattern(place, pattern, left),
            Source::Db(db) => {
                let db = db.clone();
                self.db_pattern(env, &db, pattern, left, pending, needed)
            }
        }
    }

    fn rows_pattern(
        &mut self,
        place: usize,
        pattern: &Pattern,
        left: Relation,
    ) -> Result<(Relation, String), QueryError> {
        let slots = slots(&pattern.terms, &left);
        let mut keys = Vec::new();
        let mut fixed: Vec<Option<Cell>> = Vec::new();
        for (at, (slot, term)) in slots.iter().zip(&pattern.terms).enumerate() {
            match (slot, term) {
                (Slot::Fixed, Term::Const(value)) => {
                    keys.push(at);
                    fixed.push(Some(self.dict.cell(value)));
                }
                (Slot::Left(_), _) => {
                    keys.push(at);
                    fixed.push(None);
                }
                _ => {}
            }
        }
        let Source::Rows(rows) = &mut self.sources[place].1 else {
            return Err(QueryError::new("query/where", "the source is no collection"));
        };
        rows.index(&keys);
        let new: Vec<(usize, Var)> = new_vars(&slots);
        let mut cols: Vec<Vec<Cell>> = vec![Vec::new(); new.len()];
        let mut from = Vec::new();
        let mut key = vec![0; keys.len()];
        let width = slots.len();
        for row in 0..left.len {
            for ((cell, at), fixed) in key.iter_mut().zip(&keys).zip(&fixed) {
                *cell = match (fixed, &slots[*at]) {
                    (Some(fixed), _) => *fixed,
                    (None, Slot::Left(col)) => left.cols[*col][row],
                    (None, _) => 0,
                };
            }
            rows.find(&keys, &key, |found| {
                // A row must reach as far as the pattern is written.
                if rows.cell(found, width - 1).is_none() {
                    return;
                }
                let same = slots.iter().enumerate().all(|(at, slot)| match slot {
                    Slot::Same(other) => rows.cell(found, at) == rows.cell(found, *other),
                    _ => true,
                });
                if !same {
                    return;
                }
                from.push(row as u32);
                for ((at, _), col) in new.iter().zip(&mut cols) {
                    col.extend(rows.cell(found, *at));
                }
            });
            self.meter.work(1)?;
            self.meter.rows(from.len())?;
        }
        let mut result = left.gather(&from);
        result.distinct = false;
        for ((_, var), col) in new.into_iter().zip(cols) {
            result.vars.push(var);
            result.cols.push(col);
        }
        Ok((result, "hash probe".into()))
    }

    fn db_pattern(
        &mut self,
        env: Env<'_>,
        db: &Db,
        pattern: &Pattern,
        left: Relation,
        pending: &mut Vec<&Clause>,
        needed: &VarSet,
    ) -> Result<(Relation, String), QueryError> {
        if pattern.terms.len() > 5 {
            let message = "a pattern over a database has at most [e a v tx added]";
            return Err(QueryError::new("query/where", message));
        }
        let new_vars: Vec<Var> = pattern
            .terms
            .iter()
            .filter_map(Term::var)
            .filter(|var| left.place(*var).is_none())
            .fold(Vec::new(), |mut vars, var| {
                if !vars.contains(&var) {
                    vars.push(var);
                }
                vars
            });
        let Some(mut resolved) = self.resolve(db, pattern, &left)? else {
            let vars = left.vars.iter().copied().chain(new_vars).collect();
            return Ok((Relation::empty(vars), "no such attribute or entity".into()));
        };
        // A variable that nobody needs is not worth a column.
        for place in 0..5 {
            let unused = match &resolved.slots[place] {
                Slot::New(var) => {
                    !needed.contains(*var) && !resolved.slots.contains(&Slot::Same(place))
                }
                _ => false,
            };
            if unused {
                resolved.slots[place] = Slot::Any;
                let determined = db_is_state(db)
                    && place == 2
                    && resolved.fixed.a.is_some_and(|a| !db.schema().attribute(a).is_many());
                resolved.distinct &= determined || (place > 2 && db_is_state(db));
            }
        }
        let filters = self.pushed_down(db, &resolved, &left, pending);
        let joins_left = resolved.slots.iter().any(|slot| matches!(slot, Slot::Left(_)));
        let by_entity = matches!(resolved.slots[0], Slot::Left(_))
            && left.len > 1
            && !self.prefers_value(db, &resolved, left.len);
        if by_entity && let Some(columns) = columns_for(db, &resolved) {
            let (mut result, how) = self.look_up(db, &resolved, &left, &filters, columns)?;
            result.distinct = left.distinct && resolved.distinct;
            return Ok((result, with_filters(how, &filters)));
        }
        let probe = if left.len <= 1 || !joins_left {
            true
        } else {
            let found = self.selectivity(env, pattern, &left.set());
            found.can_probe
                && left.len as f64 * (super::plan::PROBE_COST + found.per_row)
                    < found.scanned + left.len as f64
        };
        let (mut result, how) = if probe && (joins_left || left.len <= 1) {
            self.probe(db, &resolved, &left, &filters)?
        } else {
            self.scan_and_join(db, &resolved, &left, &filters)?
        };
        result.distinct = left.distinct && resolved.distinct;
        Ok((result, with_filters(how, &filters)))
    }

    /// Whether the constant value of a pattern is so rare that its rows are sooner read than the
    /// entities of the left side looked up.
    fn prefers_value(&self, db: &Db, resolved: &DbPattern, rows: usize) -> bool {
        match (&resolved.fixed.v, resolved.fixed.a) {
            (Some(v), Some(a)) if db.schema().attribute(a).in_avet() => {
                db.estimate(&Range::avet(a, v.clone())) * 4 < rows
            }
            _ => false,
        }
    }
}

fn with_filters(how: String, filters: &[ScanFilter]) -> String {
    match filters.len() {
        0 => how,
        count => format!("{how}, {count} filter(s) inside"),
    }
}

fn slots(terms: &[Term], left: &Relation) -> Vec<Slot> {
    let mut slots: Vec<Slot> = Vec::with_capacity(5);
    for (place, term) in terms.iter().enumerate() {
        slots.push(match term {
            Term::Blank => Slot::Any,
            Term::Const(_) => Slot::Fixed,
            Term::Var(var) => match left.place(*var) {
                Some(col) => Slot::Left(col),
                None => match terms[..place].iter().position(|t| t == term) {
                    Some(first) => Slot::Same(first),
                    None => Slot::New(*var),
                },
            },
        });
    }
    slots
}

pub(super) fn new_vars(slots: &[Slot]) -> Vec<(usize, Var)> {
    slots
        .iter()
        .enumerate()
        .filter_map(|(place, slot)| match slot {
            Slot::New(var) => Some((place, *var)),
            _ => None,
        })
        .collect()
}
