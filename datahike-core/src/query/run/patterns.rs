//! Patterns against snapshots and collections.

use datahike_value::Value;
use hashbrown::HashMap;
use smallvec::SmallVec;

use super::super::ast::{Arg, Callee, Clause, Pattern, Term};
use super::super::error::QueryError;
use super::super::relation::{Cell, FALSE, Relation, TRUE, id_cell};
use super::super::source::{
    self, Comparison, Probe, ScanFilter, Source, comparable, entity_of, is_lookup, narrowed,
    reference_of, visit,
};
use super::super::vars::{Var, VarSet};
use super::columns::{Columns, Test, Wanted};
use super::emit::{Emit, merge_join};
use super::{Env, MISSING_MAX, Run};
use crate::block::Missing;
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

/// A pattern with names and constants resolved against one snapshot.
struct DbPattern {
    slots: [Slot; 5],
    fixed: Probe,
    /// The attribute is fixed and a reference.
    is_ref: bool,
    /// Rows that agree are known to differ.
    distinct: bool,
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
        let filters = self.pushed_down(env, db, &resolved, &left, pending);
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

    /// Finds the rows of the left side by their entities, all of them in one walk through the leaves.
    fn look_up(
        &mut self,
        db: &Db,
        resolved: &DbPattern,
        left: &Relation,
        filters: &[ScanFilter],
        mut columns: Columns,
    ) -> Result<(Relation, String), QueryError> {
        let (Slot::Left(col), Some(a)) = (&resolved.slots[0], resolved.fixed.a) else {
            return Err(QueryError::new("query/where", "the pattern names no entities"));
        };
        let var = left.vars[*col];
        let keys = self.keys(db, resolved, 0, &left.cols[*col])?;
        let mut order: Option<Vec<u32>> = None;
        if !keys.is_sorted() {
            let mut rows: Vec<u32> = (0..left.len as u32).collect();
            rows.sort_unstable_by_key(|row| keys[*row as usize]);
            order = Some(rows);
        }
        // What is no entity stands at the end, beyond all ids.
        let wanted: Vec<u64> = match &order {
            Some(rows) => rows.iter().map(|row| keys[*row as usize] >> 1).collect(),
            None => keys.iter().map(|cell| cell >> 1).collect(),
        };
        let mut tests: Vec<Test<'_>> = filters.iter().map(Test::Passes).collect();
        tests.extend(resolved.fixed.v.as_ref().map(|v| Test::Is(v.into())));
        let values = match &resolved.slots[2] {
            Slot::Left(col) => Some(self.keys(db, resolved, 2, &left.cols[*col])?),
            _ => None,
        };
        let row_of = |at: u32| order.as_ref().map_or(at, |rows| rows[at as usize]);
        let mut from: Vec<u32> = Vec::with_capacity(left.len);
        let mut done = 0;
        for slice in db.indexes().slices_of(a, &wanted)? {
            let before = done;
            let value = |at: usize| {
                let row = row_of((before + at) as u32) as usize;
                values.as_ref().map_or(0, |values| values[row])
            };
            let rest = Wanted {
                entities: &wanted[before..],
                tests: &tests,
                value: values.as_ref().map(|_| &value as &dyn Fn(usize) -> Cell),
                tx: resolved.fixed.tx,
            };
            done += columns.look_up(&mut self.dict, &slice, &rest, |at| {
                from.push(row_of(before as u32 + at));
            });
            self.meter.work(slice.rows.len())?;
            self.meter.rows(from.len())?;
        }
        let mut result = left.gather(&from);
        result.sorted = Some(var).filter(|_| left.cols[*col].iter().all(|cell| cell & 1 == 0));
        for (var, col) in columns.finish(&resolved.slots) {
            result.vars.push(var);
            result.cols.push(col);
        }
        let how = if order.is_none() { "merge join with" } else { "sorted look-up in" };
        Ok((result, format!("{how} aevt")))
    }

    /// `None` if nothing can match.
    fn resolve(
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
    fn pushed_down(
        &self,
        _env: Env<'_>,
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

    /// Reads one range for each row of the left side.
    fn probe(
        &mut self,
        db: &Db,
        resolved: &DbPattern,
        left: &Relation,
        filters: &[ScanFilter],
    ) -> Result<(Relation, String), QueryError> {
        let slots = &resolved.slots;
        let known = |place: usize| matches!(slots[place], Slot::Left(_) | Slot::Fixed);
        let access = source::access(db, known(0), resolved.fixed.a, known(1), known(2));
        let mut emit = Emit::new(slots);
        let mut columns = columns_for(db, resolved);
        let mut from: Vec<u32> = Vec::new();
        let mut missing: Vec<crate::block::Address> = Vec::new();
        let mut narrow = None;
        if !known(0)
            && !known(2)
            && let Some(a) = resolved.fixed.a
            && db.schema().attribute(a).in_avet()
        {
            narrow = narrowed(a, filters);
        }
        let by_value = narrow.is_some();
        for row in 0..left.len {
            let Some(probe) = self.probe_of(db, resolved, left, row)? else { continue };
            let range = match &narrow {
                Some(range) => range.clone(),
                None => access.range(&probe),
            };
            let before = emit.len;
            let dict = &mut self.dict;
            let read = match &mut columns {
                Some(columns) => db.indexes().slices(&range).map(|slices| {
                    let mut tests: SmallVec<[Test<'_>; 2]> =
                        filters.iter().map(Test::Passes).collect();
                    if source::common(&range).is_none_or(|prefix| prefix.v.is_none()) {
                        tests.extend(probe.v.as_ref().map(|v| Test::Is(v.into())));
                    }
                    for slice in &slices {
                        columns.read(dict, slice, &tests, probe.tx);
                    }
                    emit.len = columns.len;
                }),
                None => visit(db, &range, &probe, filters, |datom| {
                    emit.push(db, dict, datom);
                }),
            };
            match read {
                Ok(()) => {}
                Err(Missing { addresses }) => {
                    // Go on, to learn what else is missing; the rows are of no use any more.
                    missing.extend(addresses);
                    if missing.len() > MISSING_MAX {
                        break;
                    }
                }
            }
            from.extend(std::iter::repeat_n(row as u32, emit.len - before));
            self.meter.work(1 + emit.len - before)?;
            self.meter.rows(emit.len)?;
        }
        if !missing.is_empty() {
            missing.sort_unstable();
            missing.dedup();
            return Err(Missing { addresses: missing }.into());
        }
        let mut result = if left.len == 1 && left.cols.is_empty() {
            Relation { len: emit.len, ..Relation::default() }
        } else {
            left.gather(&from)
        };
        if left.len <= 1 {
            result.sorted = match &slots[0] {
                Slot::New(var) if access.sorts_by_entity() && !by_value && known(1) => Some(*var),
                _ => None,
            };
        }
        let cols: SmallVec<[(Var, Vec<Cell>); 3]> = match columns {
            Some(columns) => columns.finish(slots).collect(),
            None => emit.finish().collect(),
        };
        for (var, col) in cols {
            result.vars.push(var);
            result.cols.push(col);
        }
        let how = format!(
            "{} {:?}",
            if left.len <= 1 { "scan" } else { "probe" },
            if by_value { crate::index::Index::Avet } else { access.index }
        );
        Ok((result, how.to_lowercase()))
    }

    /// The components that one row of the left side fixes; `None` if it cannot match.
    fn probe_of(
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

    /// Reads all that the constants allow once, and joins it with the left side.
    fn scan_and_join(
        &mut self,
        db: &Db,
        resolved: &DbPattern,
        left: &Relation,
        filters: &[ScanFilter],
    ) -> Result<(Relation, String), QueryError> {
        // The left side's variables become columns of the scan, under their own names.
        let mut own = DbPattern {
            slots: resolved.slots.clone(),
            fixed: resolved.fixed.clone(),
            is_ref: resolved.is_ref,
            distinct: resolved.distinct,
        };
        let mut renamed: Vec<(usize, Var, Var)> = Vec::new();
        for place in 0..5 {
            if let Slot::Left(col) = resolved.slots[place] {
                let var = Var(u32::MAX / 2 + place as u32);
                own.slots[place] = Slot::New(var);
                renamed.push((place, left.vars[col], var));
            }
        }
        let (scanned, how) = self.probe(db, &own, &Relation::unit(), filters)?;
        // Columns of the left side in the form in which they are compared.
        let mut keyed = left.clone();
        for (place, of, var) in &renamed {
            let Some(col) = left.col(*of) else { continue };
            let key = self.keys(db, resolved, *place, col)?;
            keyed.vars.push(*var);
            keyed.cols.push(key);
        }
        let sorted_by_key = |rel: &Relation, var: Var| rel.sorted == Some(var);
        let merge = match renamed.as_slice() {
            [(0, of, var)] => sorted_by_key(left, *of) && sorted_by_key(&scanned, *var),
            _ => false,
        };
        let mut joined =
            if merge { merge_join(&keyed, &scanned, renamed[0].2) } else { keyed.join(&scanned) };
        let keep: VarSet = joined.vars.iter().copied().filter(|var| var.0 < u32::MAX / 2).collect();
        let distinct = joined.distinct;
        joined.keep_vars(&keep);
        joined.distinct = distinct;
        if merge {
            joined.sorted = left.sorted;
        }
        self.meter.rows(joined.len)?;
        let join = if renamed.is_empty() {
            "product"
        } else if merge {
            "merge join"
        } else {
            "hash join"
        };
        Ok((joined, format!("{join} with {how}")))
    }

    /// The cells of a column as a snapshot knows them: names of entities become ids.
    fn keys(
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

/// Columns for a pattern that can be read by column.
fn columns_for(db: &Db, resolved: &DbPattern) -> Option<Columns> {
    let reads = db.is_current() && resolved.fixed.added != Some(false);
    let bound = resolved.slots[3..].iter().any(|slot| matches!(slot, Slot::Left(_)));
    if reads && !bound { Columns::new(&resolved.slots) } else { None }
}

fn with_filters(how: String, filters: &[ScanFilter]) -> String {
    match filters.len() {
        0 => how,
        count => format!("{how}, {count} filter(s) inside"),
    }
}

/// Whether the snapshot shows a state, in which no fact occurs twice.
fn db_is_state(db: &Db) -> bool {
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
