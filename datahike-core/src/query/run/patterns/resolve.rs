//! What a pattern says against one snapshot: names, constants and comparisons made into what the
//! indexes know.

use datahike_value::Value;
use hashbrown::HashMap;

use super::{Slot, slots};
use crate::db::Db;
use crate::query::ast::{Arg, Callee, Clause, Pattern, Term};
use crate::query::error::QueryError;
use crate::query::relation::{Cell, FALSE, Relation, TRUE, id_cell};
use crate::query::run::Run;
use crate::query::source::{
    Comparison, Probe, ScanFilter, comparable, entity_of, is_lookup, reference_of,
};

/// A pattern with names and constants resolved against one snapshot.
pub(super) struct DbPattern {
    pub(super) slots: [Slot; 5],
    pub(super) fixed: Probe,
    /// The attribute is fixed and a reference.
    pub(super) is_ref: bool,
    /// Rows that agree are known to differ.
    pub(super) distinct: bool,
}

impl Run<'_> {
    /// `None` if nothing can match.
    pub(super) fn resolve(
        &mut self,
        db: &Db,
        pattern: &Pattern,
        left: &Relation,
    ) -> Result<Option<DbPattern>, QueryError> {
        let mut all = slots(&pattern.terms, left);
        all.resize(5, Slot::Any);
        let mut resolved = DbPattern {
            slots: all.try_into().unwrap_or_else(|_| std::array::from_fn(|_| Slot::Any)),
            fixed: Probe::default(),
            is_ref: false,
            distinct: true,
        };
        let constant = |place: usize| match pattern.terms.get(place) {
            Some(Term::Const(value)) => Some(value),
            _ => None,
        };
        if let Some(value) = constant(1) {
            let Some(a) = db.attr_of(value) else { return Ok(None) };
            resolved.fixed.a = Some(a);
            resolved.is_ref = db.schema().attribute(a).is_ref();
        }
        if let Some(value) = constant(0) {
            match entity_constant(db, value)? {
                Some(e) => resolved.fixed.e = Some(e),
                None => return Ok(None),
            }
        }
        if let Some(value) = constant(2) {
            resolved.fixed.v = Some(match (resolved.fixed.a, value) {
                (Some(_), Value::Keyword(_) | Value::Vector(_) | Value::List(_))
                    if resolved.is_ref =>
                {
                    match entity_constant(db, value)? {
                        Some(e) => Value::Long(e as i64),
                        None => return Ok(None),
                    }
                }
                (Some(a), value) => db.schema().canonical(a, value),
                (None, value) => value.clone(),
            });
        }
        if let Some(value) = constant(3) {
            match entity_constant(db, value)? {
                Some(tx) => resolved.fixed.tx = Some(tx),
                None => return Ok(None),
            }
        }
        if let Some(value) = constant(4) {
            match value {
                Value::Bool(added) => resolved.fixed.added = Some(*added),
                _ => return Ok(None),
            }
        }
        // What is left open and unnamed may make rows that differ in nothing that is kept.
        let state = db_is_state(db);
        for (place, slot) in resolved.slots.iter().enumerate() {
            if *slot == Slot::Any {
                let determined = match place {
                    2 => {
                        state
                            && resolved.fixed.a.is_some_and(|a| !db.schema().attribute(a).is_many())
                    }
                    3 | 4 => state,
                    _ => false,
                };
                resolved.distinct &= determined;
            }
        }
        Ok(Some(resolved))
    }

    /// Takes comparisons of the value with a constant from `pending`, where they cannot fail.
    pub(super) fn pushed_down(
        &self,
        db: &Db,
        resolved: &DbPattern,
        left: &Relation,
        pending: &mut Vec<&Clause>,
    ) -> Vec<ScanFilter> {
        let (Slot::New(value_var), Some(a)) = (&resolved.slots[2], resolved.fixed.a) else {
            return Vec::new();
        };
        let Some(value_type) = db.schema().attribute(a).value_type else { return Vec::new() };
        let mut filters = Vec::new();
        pending.retain(|clause| {
            let Clause::Predicate(call) = clause else { return true };
            let Callee::Name(name) = &call.callee else { return true };
            if self.functions.named(name).is_some() {
                return true;
            }
            let (Some(comparison), [first, second]) =
                (Comparison::of(name.text()), call.args.as_slice())
            else {
                return true;
            };
            let constant = |arg: &Arg| match arg {
                Arg::Const(value) => Some(value.clone()),
                Arg::Var(var) if left.len == 1 => left.col(*var).map(|col| self.dict.value(col[0])),
                _ => None,
            };
            let scanned = |arg: &Arg| matches!(arg, Arg::Var(var) if var == value_var);
            let filter = if scanned(first) {
                constant(second).map(|constant| ScanFilter { comparison, constant })
            } else if scanned(second) {
                constant(first)
                    .map(|constant| ScanFilter { comparison: comparison.turned(), constant })
            } else {
                None
            };
            match filter {
                Some(filter) if comparable(value_type, &filter.constant) => {
                    filters.push(filter);
                    false
                }
                _ => true,
            }
        });
        filters
    }

    /// The components that one row of the left side fixes; `None` if it cannot match.
    pub(super) fn probe_of(
        &mut self,
        db: &Db,
        resolved: &DbPattern,
        left: &Relation,
        row: usize,
    ) -> Result<Option<Probe>, QueryError> {
        let mut probe = resolved.fixed.clone();
        let cell = |place: usize| match &resolved.slots[place] {
            Slot::Left(col) => Some(left.cols[*col][row]),
            _ => None,
        };
        if let Some(cell) = cell(1) {
            match db.attr_of(&self.dict.value(cell)) {
                Some(a) => probe.a = Some(a),
                None => return Ok(None),
            }
        }
        if let Some(cell) = cell(0) {
            match entity_of(db, &self.dict, cell)? {
                Some(e) => probe.e = Some(e),
                None => return Ok(None),
            }
        }
        if let Some(cell) = cell(2) {
            let is_ref = probe.a.is_some_and(|a| db.schema().attribute(a).is_ref());
            let cell = if is_ref { reference_of(db, &self.dict, cell)? } else { Some(cell) };
            match cell {
                Some(cell) => probe.v = Some(self.dict.value(cell)),
                None => return Ok(None),
            }
        }
        if let Some(cell) = cell(3) {
            match entity_of(db, &self.dict, cell)? {
                Some(tx) => probe.tx = Some(tx),
                None => return Ok(None),
            }
        }
        if let Some(cell) = cell(4) {
            probe.added = match cell {
                TRUE => Some(true),
                FALSE => Some(false),
                _ => return Ok(None),
            };
        }
        Ok(Some(probe))
    }

    /// The cells of a column as a snapshot knows them: names of entities become ids.
    pub(super) fn keys(
        &mut self,
        db: &Db,
        resolved: &DbPattern,
        place: usize,
        col: &[Cell],
    ) -> Result<Vec<Cell>, QueryError> {
        let names_entity = matches!(place, 0 | 3) || (place == 2 && resolved.is_ref);
        if !names_entity && place != 1 {
            return Ok(col.to_vec());
        }
        // A cell that is equal to none: what names nothing must not join.
        const NOWHERE: Cell = u64::MAX;
        let mut known: HashMap<Cell, Cell> = HashMap::new();
        let mut keys = Vec::with_capacity(col.len());
        for cell in col {
            if names_entity && cell & 1 == 0 {
                keys.push(*cell);
                continue;
            }
            let key = match known.get(cell) {
                Some(key) => *key,
                None => {
                    let key = if names_entity {
                        entity_of(db, &self.dict, *cell)?.map_or(NOWHERE, id_cell)
                    } else {
                        match db.attr_of(&self.dict.value(*cell)) {
                            Some(a) => self.dict.cell(&db.attr_value(a)),
                            None => NOWHERE,
                        }
                    };
                    known.insert(*cell, key);
                    key
                }
            };
            keys.push(key);
        }
        Ok(keys)
    }
}

/// Whether the snapshot shows a state, in which no fact occurs twice.
pub(super) fn db_is_state(db: &Db) -> bool {
    db.view().is_none_or(|view| !view.is_history())
}

/// The entity that a constant in a pattern names.
fn entity_constant(db: &Db, value: &Value) -> Result<Option<u64>, QueryError> {
    match value {
        Value::Long(n) => Ok(u64::try_from(*n).ok()),
        Value::Keyword(_) | Value::Vector(_) => Ok(Some(db.entid_strict(value)?)),
        list @ Value::List(_) if is_lookup(db, list) => Ok(Some(db.entid_strict(value)?)),
        _ => Ok(None),
    }
}
