//! Checking what is stored.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::{CommitError, Entry, Position};
use crate::block::Missing;
use crate::datom::Datom;
use crate::index::{AttrTraits, Index, Indexes, Iter, Range};

/// Reads encoded entries that follow `from` and checks that each continues the one before: the place
/// of the last. Its commit id stands for all that was read.
///
/// # Errors
/// If one cannot be read or does not continue the one before.
pub fn verify_chain<'a>(
    entries: impl IntoIterator<Item = &'a [u8]>,
    from: Position,
) -> Result<Position, CommitError> {
    entries.into_iter().try_fold(from, |at, bytes| Ok(Entry::decode(bytes, &at)?.1))
}

/// What [`verify_indexes`] went through.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// Datoms asserted now.
    pub current: u64,
    /// Datoms and retractions of all times.
    pub history: u64,
}

/// Why indexes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Blocks are not in memory: fetch them and verify again.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// Two datoms follow each other that should not.
    #[error("{index:?} is out of order at {datom:?}")]
    Order {
        /// Where.
        index: Index,
        /// The second of them.
        datom: Box<Datom>,
    },
    /// An index does not hold the datoms that the first index holds.
    #[error(
        "{index:?} holds {found} datom(s) of {view}, {expected} were expected, or others than these"
    )]
    Contents {
        /// Which one.
        index: Index,
        /// `current` or `history`.
        view: &'static str,
        /// How many it holds.
        found: u64,
        /// How many EAVT has for it.
        expected: u64,
    },
    /// A tree does not hold as many datoms as its root says.
    #[error("{index:?} holds {found} current datom(s), its root says {expected}")]
    Count {
        /// Which one.
        index: Index,
        /// How many it holds.
        found: u64,
        /// What the root says.
        expected: u64,
    },
}

impl VerifyError {
    /// The blocks that are needed, if that is what is wrong.
    pub fn missing(&self) -> Option<&Missing> {
        match self {
            Self::Missing(missing) => Some(missing),
            _ => None,
        }
    }
}

/// Goes through all datoms of all indexes: each in strict order, AEVT with the same datoms as EAVT,
/// AVET with those of the attributes that belong there, and trees with as many as their roots say.
/// (That a block is what its address says is checked where it is read.)
///
/// # Errors
/// The first thing that is wrong.
pub fn verify_indexes(indexes: &Indexes, traits: &dyn AttrTraits) -> Result<Verified, VerifyError> {
    let mut verified = Verified::default();
    for (view, is_history) in [("current", false), ("history", true)] {
        let iter = |index: Index| match is_history {
            false => indexes.current(&Range::all(index)),
            true => indexes.history(&Range::all(index)),
        };
        let everything = sum(Index::Eavt, iter(Index::Eavt), |_| true)?;
        let in_avet = sum(Index::Eavt, iter(Index::Eavt), |datom| traits.avet(datom.a))?;
        for (index, expected) in [(Index::Aevt, everything), (Index::Avet, in_avet)] {
            let found = sum(index, iter(index), |_| true)?;
            if found != expected {
                let (found, expected) = (found.count, expected.count);
                return Err(VerifyError::Contents { index, view, found, expected });
            }
        }
        match is_history {
            false => verified.current = everything.count,
            true => verified.history = everything.count,
        }
        if !is_history && indexes.tail_len() == 0 {
            let found = [everything.count, everything.count, in_avet.count];
            for (index, found) in Index::ALL.into_iter().zip(found) {
                let root = indexes.roots().current[index.number()];
                let expected = root.map_or(0, |root| root.count);
                if found != expected {
                    return Err(VerifyError::Count { index, found, expected });
                }
            }
        }
    }
    Ok(verified)
}

/// Datoms regardless of their order: their number and the sums of two hashes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    count: u64,
    hashes: [u64; 2],
}

fn sum(index: Index, iter: Iter, counts: impl Fn(&Datom) -> bool) -> Result<Sum, VerifyError> {
    let mut sum = Sum::default();
    let mut before: Option<Datom> = None;
    for datom in iter {
        let datom = datom?;
        if before.as_ref().is_some_and(|b| {
            crate::index::DatomRef::from(b).cmp_in(&(&datom).into(), index).is_ge()
        }) {
            return Err(VerifyError::Order { index, datom: Box::new(datom) });
        }
        if counts(&datom) {
            sum.count += 1;
            for (salt, total) in sum.hashes.iter_mut().enumerate() {
                let mut hasher = DefaultHasher::new();
                (salt, &datom).hash(&mut hasher);
                *total = total.wrapping_add(hasher.finish());
            }
        }
        before = Some(datom);
    }
    Ok(sum)
}
