//! Attributes that became indexed when there were datoms of them already. AVET lacks those datoms:
//! putting them there takes reading, which applying a transaction does not. So it is done when AVET
//! is read for the first time, and by the next flush at the latest.

use std::sync::{Arc, OnceLock};

use hashbrown::HashSet;

use crate::block::Missing;
use crate::datom::{AttrId, Datom};
use crate::index::Indexes;
use crate::index::key::{Index, Range};

/// What AVET lacks, and the same indexes without a lack once somebody needed them.
#[derive(Debug)]
pub(crate) struct Uncovered {
    attributes: Vec<AttrId>,
    covered: OnceLock<Box<Indexes>>,
}

impl Uncovered {
    /// The complete indexes, if somebody needed them already.
    pub(crate) fn made(&self) -> Option<&Indexes> {
        self.covered.get().map(|covered| &**covered)
    }
}

impl Indexes {
    /// Notes that the attribute is indexed from now on, and may have datoms.
    pub(crate) fn uncover(&mut self, a: AttrId) {
        self.take_covered();
        let mut attributes = self.uncovered.as_ref().map_or(Vec::new(), |u| u.attributes.clone());
        attributes.push(a);
        self.uncovered = Some(Arc::new(Uncovered { attributes, covered: OnceLock::new() }));
    }

    /// To be called before the datoms change: they go on from the complete indexes, if those were
    /// made, and are not taken for complete otherwise.
    pub(crate) fn take_covered(&mut self) {
        let Some(uncovered) = &self.uncovered else { return };
        if let Some(covered) = uncovered.covered.get() {
            *self = (**covered).clone();
        } else {
            let attributes = uncovered.attributes.clone();
            self.uncovered = Some(Arc::new(Uncovered { attributes, covered: OnceLock::new() }));
        }
    }

    /// Whether an index lacks datoms.
    pub(crate) fn lacks(&self, index: Index) -> bool {
        index == Index::Avet && self.uncovered.is_some()
    }

    /// The same indexes, none of which lacks a datom.
    ///
    /// # Errors
    /// Blocks that must be read.
    pub(crate) fn covered(&self) -> Result<&Self, Missing> {
        let Some(uncovered) = &self.uncovered else { return Ok(self) };
        if let Some(covered) = uncovered.covered.get() {
            return Ok(covered);
        }
        let mut covered = Self { uncovered: None, ..self.clone() };
        let mut missing = Vec::new();
        for a in &uncovered.attributes {
            match covered.cover_in_avet(*a) {
                Ok(more) => covered = more,
                Err(lacking) => missing.extend(lacking.addresses),
            }
        }
        if !missing.is_empty() {
            return Err(Missing::of(missing));
        }
        Ok(uncovered.covered.get_or_init(|| Box::new(covered)))
    }

    /// A new snapshot in which AVET has all datoms of `a`: for an attribute that has become indexed,
    /// unique or a reference when there were datoms of it already.
    ///
    /// # Errors
    /// Blocks that must be read.
    pub fn cover_in_avet(&self, a: AttrId) -> Result<Self, Missing> {
        let range = Range::avet(a, None);
        let mut there = self.history(&range).collect::<Result<HashSet<Datom>, Missing>>()?;
        let ranks = self.tail.ranks(&range);
        let mut cursor = self.tail.trees[Index::Avet.number()].cursor(ranks.start, ranks.end);
        while let Some(entry) = cursor.first() {
            cursor.pop_first();
            there.insert(self.tail.arena.get(entry.id).datom.clone());
        }
        let mut datoms =
            self.history(&Range::aevt(a, None)).collect::<Result<Vec<Datom>, Missing>>()?;
        datoms.retain(|datom| !there.contains(datom));
        let mut next = self.clone();
        next.change_tail(|tail, _| tail.extend_avet(datoms));
        Ok(next)
    }
}
