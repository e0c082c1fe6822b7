//! Sets of rows that only grow, for the tables of recursive rules.

use hashbrown::HashTable;

use super::super::relation::{Cell, hash_own, hash_row};

const NONE: u32 = u32::MAX;

/// Distinct rows in the order in which they came, with indexes that grow along.
#[derive(Debug, Default)]
pub(super) struct Tuples {
    pub(super) cols: Vec<Vec<Cell>>,
    pub(super) len: usize,
    known: HashTable<u32>,
    indexes: Vec<TupleIndex>,
}

#[derive(Debug)]
struct TupleIndex {
    places: Vec<usize>,
    first: HashTable<u32>,
    next: Vec<u32>,
}

impl Tuples {
    pub(super) fn new(width: usize) -> Self {
        Self { cols: vec![Vec::new(); width], ..Self::default() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.len * (self.cols.len() * 8 + 6) + self.indexes.len() * self.len * 10
    }

    /// Adds the rows that are new.
    pub(super) fn extend(&mut self, columns: &[&[Cell]], len: usize) {
        for row in 0..len {
            let hash = hash_row(columns, row);
            let (cols, known) = (&self.cols, &mut self.known);
            let same =
                |at: &u32| cols.iter().zip(columns).all(|(own, new)| own[*at as usize] == new[row]);
            if known.find(hash, same).is_some() {
                continue;
            }
            let place = self.len as u32;
            for (own, new) in self.cols.iter_mut().zip(columns) {
                own.push(new[row]);
            }
            self.len += 1;
            let cols = &self.cols;
            self.known.insert_unique(hash, place, |at| hash_own(cols, *at as usize));
        }
    }

    /// Brings the index over these places up to date and returns its number.
    pub(super) fn index(&mut self, places: &[usize]) -> usize {
        let number = match self.indexes.iter().position(|index| index.places == places) {
            Some(number) => number,
            None => {
                self.indexes.push(TupleIndex {
                    places: places.to_vec(),
                    first: HashTable::new(),
                    next: Vec::new(),
                });
                self.indexes.len() - 1
            }
        };
        let index = &mut self.indexes[number];
        let key: Vec<&[Cell]> = places.iter().map(|place| self.cols[*place].as_slice()).collect();
        for row in index.next.len()..self.len {
            let hash = hash_row(&key, row);
            let same = |at: &u32| key.iter().all(|col| col[*at as usize] == col[row]);
            match index.first.find_mut(hash, same) {
                Some(first) => {
                    index.next.push(*first);
                    *first = row as u32;
                }
                None => {
                    index.next.push(NONE);
                    index.first.insert_unique(hash, row as u32, |at| hash_row(&key, *at as usize));
                }
            }
        }
        number
    }

    /// Calls `f` with the rows whose cells at the places of the index are those of `probe`.
    #[inline]
    pub(super) fn find(&self, index: usize, probe: &[&[Cell]], row: usize, mut f: impl FnMut(u32)) {
        let index = &self.indexes[index];
        let hash = hash_row(probe, row);
        let found = index.first.find(hash, |at| {
            index.places.iter().zip(probe).all(|(p, col)| self.cols[*p][*at as usize] == col[row])
        });
        let mut at = found.copied().unwrap_or(NONE);
        while at != NONE {
            f(at);
            at = index.next[at as usize];
        }
    }

    pub(super) fn slices(&self, from: usize) -> Vec<&[Cell]> {
        self.cols.iter().map(|col| &col[from..]).collect()
    }
}
