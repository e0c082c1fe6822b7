//! Names of commits and their places in a branch.

use std::fmt;

/// The name of a commit: BLAKE3 over its parents and its transactions. It does not depend on when
/// the indexes were written out, and whoever has the transactions can compute it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub [u8; 32]);

impl CommitId {
    /// What the first commit of a database continues.
    pub const ROOT: Self = Self([0; 32]);

    /// The commit that continues `parent` with this body (the encoded transactions of an entry).
    pub fn of(parent: &Self, body: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&parent.0);
        hasher.update(body);
        Self(*hasher.finalize().as_bytes())
    }
}

impl fmt::Display for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for CommitId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommitId({self})")
    }
}

/// A place in the history of a branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Position {
    /// Commits so far, this one included.
    pub seq: u64,
    /// The commit.
    pub commit: CommitId,
}

impl Position {
    /// Before the first commit.
    pub const START: Self = Self { seq: 0, commit: CommitId::ROOT };

    /// The place after a commit with this body.
    #[must_use]
    pub fn next(&self, body: &[u8]) -> Self {
        Self { seq: self.seq.saturating_add(1), commit: CommitId::of(&self.commit, body) }
    }
}
