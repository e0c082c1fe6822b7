//! When two database values are the same.

use std::hash::{Hash, Hasher};

use super::{Db, View};
use crate::block::Missing;

impl Db {
    /// Whether both show the same datoms, attributes compared by ident.
    ///
    /// Snapshots of one history, or trees with nothing waiting in memory, are told apart without
    /// reading: equal datoms make equal roots.
    ///
    /// # Errors
    /// If blocks are missing.
    pub fn same_datoms(&self, other: &Self) -> Result<bool, Missing> {
        if same_view(self.view(), other.view())
            && let Some(known) = self.same_snapshot(other, self.view().is_none())
        {
            return Ok(known);
        }
        let mut ours = self.all_datoms();
        let mut theirs = other.all_datoms();
        loop {
            match (ours.next().transpose()?, theirs.next().transpose()?) {
                (None, None) => return Ok(true),
                (Some(a), Some(b))
                    if (a.e, &a.v, a.tx, a.added) == (b.e, &b.v, b.tx, b.added)
                        && self.schema().ident(a.a) == other.schema().ident(b.a) => {}
                _ => return Ok(false),
            }
        }
    }

    /// Whether the snapshots hold the same datoms, past ones too unless only those of now count, as
    /// far as that shows without reading.
    fn same_snapshot(&self, other: &Self, only_now: bool) -> Option<bool> {
        if std::ptr::eq(self.indexes(), other.indexes()) {
            return Some(true);
        }
        // Every transaction leaves its instant.
        if self.max_tx() != other.max_tx() {
            return Some(false);
        }
        let (ours, theirs) = (self.indexes(), other.indexes());
        let written = ours.tail_len() == 0 && theirs.tail_len() == 0;
        let alike = self.config() == other.config() && self.schema().same_numbers(other.schema());
        (written && alike).then(|| {
            let (ours, theirs) = (ours.roots(), theirs.roots());
            ours.current == theirs.current && (only_now || ours.history == theirs.history)
        })
    }
}

/// Whether two views show the same of one snapshot because they were made alike.
fn same_view(ours: Option<&View>, theirs: Option<&View>) -> bool {
    match (ours, theirs) {
        (None, None) => true,
        (Some(ours), Some(theirs)) => ours.same(theirs),
        _ => false,
    }
}

/// Equal are snapshots with the same datoms, current and past, and the same configuration, seen
/// through views that were made alike: the same points in time, whatever their order, and the very
/// same filters. Where blocks that decide are not in memory and cannot be read at once, two
/// databases count as different; [`Db::same_datoms`] tells for certain.
impl PartialEq for Db {
    fn eq(&self, other: &Self) -> bool {
        if !same_view(self.view(), other.view()) {
            return false;
        }
        if let Some(known) = self.same_snapshot(other, false) {
            return known;
        }
        let (ours, theirs) = (self.unviewed(), other.unviewed());
        let all = |db: &Self| match db.config().keep_history {
            true => db.history().ok(),
            false => Some(db.clone()),
        };
        self.config() == other.config()
            && match (all(&ours), all(&theirs)) {
                (Some(ours), Some(theirs)) => ours.same_datoms(&theirs).unwrap_or(false),
                _ => false,
            }
    }
}

impl Eq for Db {}

/// Of the latest transaction and the view: equal databases have equal hashes, and nothing is read.
impl Hash for Db {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.max_tx().hash(state);
        self.config().attribute_refs.hash(state);
        self.view().is_some_and(View::is_history).hash(state);
        self.view().map_or(0, |view| view.as_of().len()).min(1).hash(state);
        self.view().map_or(0, |view| view.since().len()).min(1).hash(state);
    }
}
