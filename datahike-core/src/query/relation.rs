//! What the engine computes with: values as 8-byte cells, relations as columns of cells.

use std::hash::BuildHasher;
use std::sync::LazyLock;

use datahike_value::Value;
use hashbrown::{DefaultHashBuilder, HashTable};

use super::vars::{Var, VarSet};
use crate::index::ValueRef;

/// A value in 8 bytes: small longs (and so entity ids) by themselves with the lowest bit 0, all else
/// as a place in the [`Dict`] of the query with the lowest bit 1. Equal values have equal cells.
pub(crate) type Cell = u64;

const MIN_INLINE: i64 = -(1 << 62);
const MAX_INLINE: i64 = (1 << 62) - 1;

pub(crate) const FALSE: Cell = 3;
pub(crate) const TRUE: Cell = 5;

/// A cell for a long that fits one.
#[inline]
pub(crate) fn inline(n: i64) -> Option<Cell> {
    (MIN_INLINE..=MAX_INLINE).contains(&n).then_some((n as u64) << 1)
}

/// A cell for an id, which is always far below 2^62.
#[inline]
pub(crate) fn id_cell(id: u64) -> Cell {
    id << 1
}

/// The long that stands in the cell itself.
#[inline]
pub(crate) fn inlined(cell: Cell) -> Option<i64> {
    (cell & 1 == 0).then_some(cell as i64 >> 1)
}

/// The entity id that a cell can stand for.
#[inline]
pub(crate) fn entity(cell: Cell) -> Option<u64> {
    inlined(cell).and_then(|n| u64::try_from(n).ok())
}

/// Every value of a query that is no small long, once.
#[derive(Debug)]
pub(crate) struct Dict {
    hasher: DefaultHashBuilder,
    values: Vec<Value>,
    places: HashTable<u32>,
    bytes: usize,
}

impl Dict {
    pub(crate) fn new() -> Self {
        let mut dict = Self {
            hasher: DefaultHashBuilder::default(),
            values: Vec::new(),
            places: HashTable::new(),
            bytes: 0,
        };
        // nil, false and true have places that the constants above know.
        dict.intern(&Value::Nil);
        dict.intern(&Value::Bool(false));
        dict.intern(&Value::Bool(true));
        dict
    }

    #[inline]
    pub(crate) fn cell(&mut self, value: &Value) -> Cell {
        match value {
            Value::Long(n) => inline(*n).unwrap_or_else(|| self.intern(value)),
            Value::Bool(true) => TRUE,
            Value::Bool(false) => FALSE,
            value => self.intern(value),
        }
    }

    #[inline]
    pub(crate) fn cell_of_ref(&mut self, value: &ValueRef<'_>) -> Cell {
        match value {
            ValueRef::Long(n) => match inline(*n) {
                Some(cell) => cell,
                None => self.intern(&Value::Long(*n)),
            },
            ValueRef::Bool(b) => {
                if *b {
                    TRUE
                } else {
                    FALSE
                }
            }
            ValueRef::Str(text) => self.intern_text(text, || Value::str(*text)),
            ValueRef::Other(value) => self.intern(value),
            other => self.intern(&other.to_value()),
        }
    }

    fn intern_text(&mut self, text: &str, make: impl FnOnce() -> Value) -> Cell {
        let hash = self.hasher.hash_one(text);
        let found = self.places.find(
            hash,
            |place| matches!(&self.values[*place as usize], Value::Str(known) if **known == *text),
        );
        match found {
            Some(place) => u64::from(*place) << 1 | 1,
            None => {
                let value = make();
                self.add(hash, value)
            }
        }
    }

    fn intern(&mut self, value: &Value) -> Cell {
        if let Value::Str(text) = value {
            return self.intern_text(text, || value.clone());
        }
        let hash = self.hasher.hash_one(value);
        match self.places.find(hash, |place| self.values[*place as usize] == *value) {
            Some(place) => u64::from(*place) << 1 | 1,
            None => self.add(hash, value.clone()),
        }
    }

    fn add(&mut self, hash: u64, value: Value) -> Cell {
        let place = self.values.len() as u32;
        self.bytes += 40
            + match &value {
                Value::Str(text) => text.len(),
                Value::Vector(items) | Value::List(items) => items.len() * 40,
                Value::Map(_) | Value::Set(_) => 256,
                _ => 0,
            };
        self.values.push(value);
        let (values, hasher) = (&self.values, &self.hasher);
        self.places.insert_unique(hash, place, |place| match &values[*place as usize] {
            Value::Str(text) => hasher.hash_one(&**text),
            value => hasher.hash_one(value),
        });
        u64::from(place) << 1 | 1
    }

    #[inline]
    pub(crate) fn value(&self, cell: Cell) -> Value {
        match inlined(cell) {
            Some(n) => Value::Long(n),
            None => self.values[(cell >> 1) as usize].clone(),
        }
    }

    /// The value of a cell that holds no inlined long.
    #[inline]
    pub(crate) fn boxed(&self, cell: Cell) -> Option<&Value> {
        if cell & 1 == 0 { None } else { self.values.get((cell >> 1) as usize) }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Rows of cells under variables, by column.
#[derive(Clone, Debug, Default)]
pub(crate) struct Relation {
    pub(crate) vars: Vec<Var>,
    pub(crate) cols: Vec<Vec<Cell>>,
    pub(crate) len: usize,
    /// Whether it is known to have no row twice.
    pub(crate) distinct: bool,
    /// A column of ids in which the rows are known to ascend.
    pub(crate) sorted: Option<Var>,
}

impl Relation {
    /// No variables, one row: what an empty conjunction gives.
    pub(crate) fn unit() -> Self {
        Self { len: 1, distinct: true, ..Self::default() }
    }

    pub(crate) fn empty(vars: Vec<Var>) -> Self {
        let cols = vars.iter().map(|_| Vec::new()).collect();
        Self { vars, cols, len: 0, distinct: true, sorted: None }
    }

    pub(crate) fn set(&self) -> VarSet {
        self.vars.iter().copied().collect()
    }

    #[inline]
    pub(crate) fn place(&self, var: Var) -> Option<usize> {
        self.vars.iter().position(|v| *v == var)
    }

    pub(crate) fn col(&self, var: Var) -> Option<&[Cell]> {
        self.place(var).map(|place| self.cols[place].as_slice())
    }

    pub(crate) fn bytes(&self) -> usize {
        self.len * self.cols.len() * size_of::<Cell>()
    }

    /// Only these rows, in this order.
    pub(crate) fn gather(&self, rows: &[u32]) -> Self {
        Self {
            vars: self.vars.clone(),
            cols: self
                .cols
                .iter()
                .map(|col| rows.iter().map(|row| col[*row as usize]).collect())
                .collect(),
            len: rows.len(),
            distinct: self.distinct,
            sorted: self.sorted,
        }
    }

    /// Keeps the rows for which `keep` holds.
    pub(crate) fn retain(&mut self, keep: &[bool]) {
        let mut kept = 0;
        for col in &mut self.cols {
            let mut write = 0;
            for (read, keep) in keep.iter().enumerate() {
                col[write] = col[read];
                write += usize::from(*keep);
            }
            col.truncate(write);
            kept = write;
        }
        if self.cols.is_empty() {
            kept = keep.iter().filter(|keep| **keep).count();
        }
        self.len = kept;
    }

    /// Drops all columns but those in `wanted`. Rows may then occur twice.
    pub(crate) fn keep_vars(&mut self, wanted: &VarSet) {
        if self.vars.iter().all(|var| wanted.contains(*var)) {
            return;
        }
        self.distinct &= self.len <= 1;
        let mut place = 0;
        while place < self.vars.len() {
            if wanted.contains(self.vars[place]) {
                place += 1;
            } else {
                let var = self.vars.remove(place);
                self.cols.remove(place);
                if self.sorted == Some(var) {
                    self.sorted = None;
                }
            }
        }
    }

    /// These columns in this order; every variable must be there.
    pub(crate) fn project(&self, vars: &[Var]) -> Self {
        let cols = vars
            .iter()
            .map(|var| self.col(*var).map(<[Cell]>::to_vec).unwrap_or_default())
            .collect();
        let all = self.vars.iter().all(|var| vars.contains(var));
        Self {
            vars: vars.to_vec(),
            cols,
            len: self.len,
            distinct: (self.distinct && all) || self.len <= 1,
            sorted: self.sorted.filter(|var| vars.contains(var)),
        }
    }

    pub(crate) fn dedup(&mut self) {
        if self.distinct {
            return;
        }
        self.distinct = true;
        if self.cols.is_empty() {
            self.len = self.len.min(1);
            return;
        }
        let mut seen = Distinct::new();
        let refs: Vec<&[Cell]> = self.cols.iter().map(Vec::as_slice).collect();
        let keep: Vec<bool> = (0..self.len).map(|row| seen.insert(&refs, row)).collect();
        self.retain(&keep);
    }

    /// Rows of `more` (same variables, any order of columns) after these.
    pub(crate) fn append(&mut self, more: Self) {
        if more.len == 0 {
            return;
        }
        if self.len == 0 && self.vars == more.vars {
            *self = more;
            return;
        }
        for (var, col) in self.vars.iter().zip(&mut self.cols) {
            if let Some(place) = more.place(*var) {
                col.extend_from_slice(&more.cols[place]);
            }
        }
        self.len += more.len;
        self.distinct = false;
        self.sorted = None;
    }

    /// Natural join by hash: every pair of rows that agree on the shared variables.
    pub(crate) fn join(&self, other: &Self) -> Self {
        let shared: Vec<Var> =
            self.vars.iter().copied().filter(|var| other.place(*var).is_some()).collect();
        let (mut left_rows, mut right_rows): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
        if shared.is_empty() {
            for left in 0..self.len as u32 {
                left_rows.extend(std::iter::repeat_n(left, other.len));
                right_rows.extend(0..other.len as u32);
            }
        } else if self.len <= other.len && self.sorted.is_none() {
            let index = Lookup::new(self.key_columns(&shared), self.len);
            let probe = other.key_columns(&shared);
            for right in 0..other.len {
                for left in index.find(&probe, right) {
                    left_rows.push(left);
                    right_rows.push(right as u32);
                }
            }
        } else {
            let index = Lookup::new(other.key_columns(&shared), other.len);
            let probe = self.key_columns(&shared);
            for left in 0..self.len {
                for right in index.find(&probe, left) {
                    left_rows.push(left as u32);
                    right_rows.push(right);
                }
            }
        }
        let by_left = shared.is_empty() || self.len > other.len || self.sorted.is_some();
        let mut joined = self.gather(&left_rows);
        joined.sorted = if by_left { self.sorted } else { other.sorted };
        joined.distinct = self.distinct && other.distinct;
        for (var, col) in other.vars.iter().zip(&other.cols) {
            if !shared.contains(var) {
                joined.vars.push(*var);
                joined.cols.push(right_rows.iter().map(|row| col[*row as usize]).collect());
            }
        }
        joined
    }

    /// The rows that agree (or, for `negate`, do not agree) with some row of `other` on its variables.
    pub(crate) fn semijoin(&mut self, other: &Self, negate: bool) {
        let shared: Vec<Var> =
            self.vars.iter().copied().filter(|var| other.place(*var).is_some()).collect();
        let keep: Vec<bool> = if shared.is_empty() {
            vec![(other.len > 0) != negate; self.len]
        } else {
            let index = Lookup::new(other.key_columns(&shared), other.len);
            let probe = self.key_columns(&shared);
            (0..self.len).map(|row| index.find(&probe, row).next().is_some() != negate).collect()
        };
        self.retain(&keep);
    }

    pub(crate) fn key_columns(&self, vars: &[Var]) -> Vec<&[Cell]> {
        vars.iter().filter_map(|var| self.col(*var)).collect()
    }
}

/// Where hashes start: different in each process, so that nobody can choose values that collide.
static SEED: LazyLock<u64> = LazyLock::new(|| DefaultHashBuilder::default().hash_one(0));

/// Adds a cell to a hash: a folded multiplication.
#[inline]
pub(crate) fn mix(hash: u64, cell: Cell) -> u64 {
    let product = u128::from(hash ^ cell) * u128::from(0x9E37_79B9_7F4A_7C15_u64);
    (product >> 64) as u64 ^ product as u64
}

#[inline]
pub(crate) fn hash_row(cols: &[&[Cell]], row: usize) -> u64 {
    cols.iter().fold(*SEED, |hash, col| mix(hash, col[row]))
}

/// The same over owned columns.
#[inline]
pub(crate) fn hash_own(cols: &[Vec<Cell>], row: usize) -> u64 {
    cols.iter().fold(*SEED, |hash, col| mix(hash, col[row]))
}

/// Says which rows of some columns come for the first time.
pub(crate) struct Distinct {
    rows: HashTable<u32>,
}

impl Distinct {
    pub(crate) fn new() -> Self {
        Self { rows: HashTable::new() }
    }

    pub(crate) fn insert(&mut self, cols: &[&[Cell]], row: usize) -> bool {
        let hash = hash_row(cols, row);
        let known = self
            .rows
            .find(hash, |known| cols.iter().all(|col| col[*known as usize] == col[row]))
            .is_some();
        if !known {
            self.rows.insert_unique(hash, row as u32, |known| hash_row(cols, *known as usize));
        }
        !known
    }
}

const NONE: u32 = u32::MAX;

/// Rows by key: a hash table of first rows, and a chain through the others.
pub(crate) struct Lookup<'a> {
    cols: Vec<&'a [Cell]>,
    first: HashTable<u32>,
    next: Vec<u32>,
}

impl<'a> Lookup<'a> {
    pub(crate) fn new(cols: Vec<&'a [Cell]>, len: usize) -> Self {
        let mut first: HashTable<u32> = HashTable::with_capacity(len);
        let mut next = vec![NONE; len];
        // From the last row to the first, so that chains ascend.
        for row in (0..len).rev() {
            let hash = hash_row(&cols, row);
            let same = |known: &u32| cols.iter().all(|col| col[*known as usize] == col[row]);
            match first.find_mut(hash, same) {
                Some(known) => {
                    next[row] = *known;
                    *known = row as u32;
                }
                None => {
                    first.insert_unique(hash, row as u32, |known| hash_row(&cols, *known as usize));
                }
            }
        }
        Self { cols, first, next }
    }

    #[inline]
    pub(crate) fn find(&self, probe: &[&[Cell]], row: usize) -> Chain<'_> {
        let hash = hash_row(probe, row);
        let at = self
            .first
            .find(hash, |known| {
                self.cols.iter().zip(probe).all(|(own, other)| own[*known as usize] == other[row])
            })
            .copied()
            .unwrap_or(NONE);
        Chain { next: &self.next, at }
    }
}

/// The rows under one key, ascending.
pub(crate) struct Chain<'a> {
    next: &'a [u32],
    at: u32,
}

impl Iterator for Chain<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        if self.at == NONE {
            return None;
        }
        let row = self.at;
        self.at = self.next[row as usize];
        Some(row)
    }
}
