//! From datoms to columns.

use hashbrown::HashMap;

use super::super::relation::{Cell, Dict, FALSE, Relation, TRUE, entity, id_cell};
use super::super::vars::Var;
use super::patterns::{Slot, new_vars};
use crate::datom::AttrId;
use crate::db::Db;
use crate::index::DatomRef;

/// Turns datoms into cells of new columns.
pub(super) struct Emit<'a> {
    slots: &'a [Slot; 5],
    new: Vec<(usize, Var)>,
    cols: Vec<Vec<Cell>>,
    same: bool,
    attributes: HashMap<AttrId, Cell>,
    pub(super) len: usize,
}

impl<'a> Emit<'a> {
    pub(super) fn new(slots: &'a [Slot; 5]) -> Self {
        let new = new_vars(slots);
        let cols = vec![Vec::new(); new.len()];
        let same = slots.iter().any(|slot| matches!(slot, Slot::Same(_)));
        Self { slots, new, cols, same, attributes: HashMap::new(), len: 0 }
    }

    #[inline]
    fn cell(&mut self, db: &Db, dict: &mut Dict, datom: &DatomRef<'_>, place: usize) -> Cell {
        match place {
            0 => id_cell(datom.e),
            1 => *self
                .attributes
                .entry(datom.a)
                .or_insert_with(|| dict.cell(&db.attr_value(datom.a))),
            2 => dict.cell_of_ref(&datom.v),
            3 => id_cell(datom.tx),
            _ => {
                if datom.added {
                    TRUE
                } else {
                    FALSE
                }
            }
        }
    }

    #[inline]
    pub(super) fn push(&mut self, db: &Db, dict: &mut Dict, datom: &DatomRef<'_>) {
        if self.same {
            for place in 0..5 {
                if let Slot::Same(first) = self.slots[place]
                    && self.cell(db, dict, datom, place) != self.cell(db, dict, datom, first)
                {
                    return;
                }
            }
        }
        for at in 0..self.new.len() {
            let cell = self.cell(db, dict, datom, self.new[at].0);
            self.cols[at].push(cell);
        }
        self.len += 1;
    }

    pub(super) fn finish(self) -> impl Iterator<Item = (Var, Vec<Cell>)> {
        self.new.into_iter().map(|(_, var)| var).zip(self.cols)
    }
}

/// Joins two relations that both ascend in `key`, a column of ids.
pub(super) fn merge_join(left: &Relation, right: &Relation, key: Var) -> Relation {
    let (Some(a), Some(b)) = (left.col(key), right.col(key)) else {
        return left.join(right);
    };
    let (mut left_rows, mut right_rows) = (Vec::new(), Vec::new());
    let (mut i, mut j) = (0, 0);
    while i < a.len() && j < b.len() {
        match (entity(a[i]), entity(b[j])) {
            (Some(x), Some(y)) if x == y => {
                let mut end = j;
                while end < b.len() && b[end] == a[i] {
                    left_rows.push(i as u32);
                    right_rows.push(end as u32);
                    end += 1;
                }
                i += 1;
            }
            (Some(x), Some(y)) if x < y => i += 1,
            (None, _) => i += 1,
            _ => j += 1,
        }
    }
    let mut joined = left.gather(&left_rows);
    joined.distinct = left.distinct && right.distinct;
    for (var, col) in right.vars.iter().zip(&right.cols) {
        if *var != key {
            joined.vars.push(*var);
            joined.cols.push(right_rows.iter().map(|row| col[*row as usize]).collect());
        }
    }
    joined
}
