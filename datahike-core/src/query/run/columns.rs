//! Patterns over the columns of leaves: values are tested and turned into cells a leaf at a time.

use datahike_value::Value;

use super::super::relation::{Cell, Dict, TRUE, id_cell};
use super::super::source::{Comparison, ScanFilter};
use super::super::vars::Var;
use super::patterns::Slot;
use crate::index::{Column, Kind, Leaf, Slice, ValueRef};

/// What a value must satisfy.
pub(super) enum Test<'a> {
    /// Be this one.
    Is(ValueRef<'a>),
    Passes(&'a ScanFilter),
}

impl<'a> Test<'a> {
    fn holds(&self, value: &ValueRef<'_>) -> bool {
        match self {
            Self::Is(wanted) => value == wanted,
            Self::Passes(filter) => filter.passes(value),
        }
    }

    /// The only value that passes, where equality does not depend on the types of numbers.
    fn only(&self) -> Option<ValueRef<'a>> {
        match self {
            Self::Is(wanted) => Some(*wanted),
            Self::Passes(ScanFilter { comparison: Comparison::Equal, constant })
                if !constant.is_number() =>
            {
                Some(constant.into())
            }
            Self::Passes(_) => None,
        }
    }

    /// A comparison of whole numbers, or of instants.
    fn whole(&self, kind: Kind) -> Option<(Comparison, i64)> {
        match (self, kind) {
            (Self::Is(ValueRef::Long(n)), Kind::Long)
            | (Self::Is(ValueRef::Inst(n)), Kind::Inst) => Some((Comparison::Equal, *n)),
            (Self::Passes(ScanFilter { comparison, constant: Value::Long(n) }), Kind::Long)
            | (Self::Passes(ScanFilter { comparison, constant: Value::Inst(n) }), Kind::Inst) => {
                Some((*comparison, *n))
            }
            _ => None,
        }
    }
}

/// Answers by the cell that was asked for, for columns in which the same cells come again and again.
struct Known<T> {
    slots: [Option<(u64, T)>; 32],
}

impl<T: Copy> Known<T> {
    fn new() -> Self {
        Self { slots: [None; 32] }
    }

    #[inline]
    fn get(&mut self, cell: u64, make: impl FnOnce() -> T) -> T {
        // Strings differ in the high half, places in the low one.
        let slot =
            &mut self.slots[((cell >> 32) ^ cell).wrapping_mul(0x9E37_79B9) as usize >> 7 & 31];
        match slot {
            Some((known, answer)) if *known == cell => *answer,
            _ => {
                let answer = make();
                *slot = Some((cell, answer));
                answer
            }
        }
    }
}

/// Which of some cells are in.
#[derive(Debug, Default)]
pub(super) struct Picked {
    /// All of so many, or those in `places`.
    all: Option<usize>,
    places: Vec<u32>,
}

impl Picked {
    fn all(&mut self, count: usize) {
        self.all = Some(count);
    }

    fn none(&mut self) {
        self.all = None;
        self.places.clear();
    }

    fn len(&self) -> usize {
        self.all.unwrap_or(self.places.len())
    }

    fn each(&self, mut f: impl FnMut(usize)) {
        match self.all {
            Some(count) => (0..count).for_each(f),
            None => self.places.iter().for_each(|place| f(*place as usize)),
        }
    }

    /// Keeps those whose item passes. Without branches, as what passes is hard to foretell.
    #[inline]
    fn keep<T: Copy>(&mut self, items: &[T], mut passes: impl FnMut(T) -> bool) {
        let mut kept = 0;
        match self.all.take() {
            Some(count) => {
                self.places.resize(count, 0);
                for (place, item) in items[..count].iter().enumerate() {
                    self.places[kept] = place as u32;
                    kept += usize::from(passes(*item));
                }
            }
            None => {
                for at in 0..self.places.len() {
                    let place = self.places[at];
                    self.places[kept] = place;
                    kept += usize::from(passes(items[place as usize]));
                }
            }
        }
        self.places.truncate(kept);
    }

    fn keep_value(&mut self, column: &Column<'_>, test: &Test<'_>) {
        let cells = column.cells;
        if let Some((comparison, n)) = test.whole(column.kind) {
            match comparison {
                Comparison::Equal => self.keep(cells, |cell| cell as i64 == n),
                Comparison::Differs => self.keep(cells, |cell| cell as i64 != n),
                Comparison::Less => self.keep(cells, |cell| (cell as i64) < n),
                Comparison::AtMost => self.keep(cells, |cell| cell as i64 <= n),
                Comparison::Greater => self.keep(cells, |cell| cell as i64 > n),
                Comparison::AtLeast => self.keep(cells, |cell| cell as i64 >= n),
            }
            return;
        }
        let only = test.only();
        match (column.kind, only) {
            (Kind::SideTerm, Some(ValueRef::Other(value))) => {
                match column.side().iter().position(|known| known == value) {
                    Some(place) => self.keep(cells, |cell| cell == place as u64),
                    None => self.none(),
                }
            }
            (Kind::Term | Kind::Str, Some(ValueRef::Str(text))) => {
                let is = |cell: u64| {
                    cell as u32 as usize == text.len()
                        && matches!(column.value(cell), ValueRef::Str(known) if known == text)
                };
                if column.kind == Kind::Str {
                    self.keep(cells, is);
                } else {
                    match cells.iter().find(|cell| is(**cell)) {
                        Some(term) => self.keep(cells, |cell| cell == *term),
                        None => self.none(),
                    }
                }
            }
            (Kind::Term | Kind::SideTerm, _) => {
                let mut known = Known::new();
                self.keep(cells, |cell| known.get(cell, || test.holds(&column.value(cell))));
            }
            _ => self.keep(cells, |cell| test.holds(&column.value(cell))),
        }
    }
}

/// New columns of a pattern whose attribute is fixed.
pub(super) struct Columns {
    e: Option<Vec<Cell>>,
    v: Option<Vec<Cell>>,
    tx: Option<Vec<Cell>>,
    added: Option<Vec<Cell>>,
    pub(super) len: usize,
    picked: Picked,
    /// Rows of a leaf that were looked up, and their cells.
    hits: Vec<u32>,
    cells: Vec<u64>,
    values: Vec<Cell>,
}

/// Rows that are looked up by their entities.
pub(super) struct Wanted<'a> {
    /// Ascending.
    pub(super) entities: &'a [u64],
    /// What their values must pass.
    pub(super) tests: &'a [Test<'a>],
    /// What the value must be, by the place of the entity.
    pub(super) value: Option<&'a dyn Fn(usize) -> Cell>,
    /// The transaction, if only one will do.
    pub(super) tx: Option<u64>,
}

impl Columns {
    /// `None` if the pattern is none that can be read by column.
    pub(super) fn new(slots: &[Slot; 5]) -> Option<Self> {
        let repeats = slots.iter().any(|slot| matches!(slot, Slot::Same(_)));
        if repeats || slots[1] != Slot::Fixed {
            return None;
        }
        let new = |place: usize| matches!(slots[place], Slot::New(_)).then(Vec::new);
        Some(Self {
            e: new(0),
            v: new(2),
            tx: new(3),
            added: new(4),
            len: 0,
            picked: Picked::default(),
            hits: Vec::new(),
            cells: Vec::new(),
            values: Vec::new(),
        })
    }

    /// Adds the rows of a slice that pass.
    pub(super) fn read(
        &mut self,
        dict: &mut Dict,
        slice: &Slice,
        tests: &[Test<'_>],
        tx: Option<u64>,
    ) {
        let Slice { leaf, rows } = slice;
        let column = leaf.column(rows.clone());
        self.picked.all(rows.len());
        tests.iter().for_each(|test| self.picked.keep_value(&column, test));
        if let Some(tx) = tx {
            self.cells.clear();
            leaf.txs(rows.clone(), &mut self.cells);
            self.picked.keep(&self.cells, |at| at == tx);
        }
        if let Some(e) = &mut self.e {
            e.reserve(self.picked.len());
            self.picked.each(|at| e.push(id_cell(leaf.entity(rows.start + at))));
        }
        if let Some(v) = &mut self.v {
            push_values(dict, &column, &self.picked, v);
        }
        if let Some(txs) = &mut self.tx {
            self.picked.each(|at| txs.push(id_cell(leaf.tx(rows.start + at))));
        }
        self.added(self.picked.len());
    }

    /// Adds the rows of a slice that are wanted; calls `from` with the place of the entity of each.
    /// Returns how many entities are done with.
    pub(super) fn look_up(
        &mut self,
        dict: &mut Dict,
        slice: &Slice,
        wanted: &Wanted<'_>,
        mut from: impl FnMut(u32),
    ) -> usize {
        let leaf: &Leaf = &slice.leaf;
        let start = slice.rows.start;
        let column = leaf.column(slice.rows.clone());
        let (hits, cells) = (&mut self.hits, &mut self.cells);
        hits.clear();
        cells.clear();
        let mut places = Vec::new();
        let done = leaf.meet(slice.rows.clone(), wanted.entities, |at, row| {
            places.push(at as u32);
            hits.push(row as u32);
            cells.push(column.cells[row - start]);
        });
        let column = column.of(cells);
        self.picked.all(hits.len());
        wanted.tests.iter().for_each(|test| self.picked.keep_value(&column, test));
        if let Some(tx) = wanted.tx {
            self.picked.keep(hits, |row| leaf.tx(row as usize) == tx);
        }
        if let Some(v) = wanted.value {
            self.values.clear();
            let mut all = Picked::default();
            all.all(hits.len());
            push_values(dict, &column, &all, &mut self.values);
            let pairs: Vec<(u32, Cell)> =
                places.iter().copied().zip(self.values.iter().copied()).collect();
            self.picked.keep(&pairs, |(at, value)| v(at as usize) == value);
        }
        self.picked.each(|at| from(places[at]));
        if let Some(v) = &mut self.v {
            push_values(dict, &column, &self.picked, v);
        }
        if let Some(txs) = &mut self.tx {
            self.picked.each(|at| txs.push(id_cell(leaf.tx(hits[at] as usize))));
        }
        self.added(self.picked.len());
        done
    }

    fn added(&mut self, count: usize) {
        self.len += count;
        if let Some(added) = &mut self.added {
            added.resize(self.len, TRUE);
        }
    }

    pub(super) fn finish(self, slots: &[Slot; 5]) -> impl Iterator<Item = (Var, Vec<Cell>)> {
        let cols = [self.e, None, self.v, self.tx, self.added];
        slots.iter().zip(cols).filter_map(|(slot, col)| match slot {
            Slot::New(var) => Some((*var, col?)),
            _ => None,
        })
    }
}

fn push_values(dict: &mut Dict, column: &Column<'_>, picked: &Picked, into: &mut Vec<Cell>) {
    into.reserve(picked.len());
    let cells = column.cells;
    match column.kind {
        Kind::Term | Kind::SideTerm => {
            let mut known = Known::new();
            picked.each(|at| {
                into.push(known.get(cells[at], || dict.cell_of_ref(&column.value(cells[at]))));
            });
        }
        Kind::Long => {
            picked.each(|at| into.push(dict.cell_of_ref(&ValueRef::Long(cells[at] as i64))))
        }
        _ => picked.each(|at| into.push(dict.cell_of_ref(&column.value(cells[at])))),
    }
}
