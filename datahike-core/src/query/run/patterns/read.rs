//! Reading what a resolved pattern asks for: by the entities of the left side, by one range for each
//! of its rows, or at once and joined with it.

use smallvec::SmallVec;

use super::Slot;
use super::resolve::DbPattern;
use crate::block::Missing;
use crate::db::Db;
use crate::query::error::QueryError;
use crate::query::relation::{Cell, Relation};
use crate::query::run::columns::{Columns, Test, Wanted};
use crate::query::run::emit::{Emit, merge_join};
use crate::query::run::{MISSING_MAX, Run};
use crate::query::source::{self, ScanFilter, narrowed, visit};
use crate::query::vars::{Var, VarSet};

impl Run<'_> {
    /// Finds the rows of the left side by their entities, all of them in one walk through the leaves.
    pub(super) fn look_up(
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

    /// Reads one range for each row of the left side.
    pub(super) fn probe(
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

    /// Reads all that the constants allow once, and joins it with the left side.
    pub(super) fn scan_and_join(
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
}

/// Columns for a pattern that can be read by column.
pub(super) fn columns_for(db: &Db, resolved: &DbPattern) -> Option<Columns> {
    let reads = db.is_current() && resolved.fixed.added != Some(false);
    let bound = resolved.slots[3..].iter().any(|slot| matches!(slot, Slot::Left(_)));
    if reads && !bound { Columns::new(&resolved.slots) } else { None }
}
