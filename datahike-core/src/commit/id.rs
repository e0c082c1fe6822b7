//! Names of commits and their places in a branch.

use std::fmt;
use std::str::FromStr;

/// The name of a commit: BLAKE3 over its parents and its transactions. It does not depend on when
/// the indexes were written out, and whoever has the transactions can compute it.
///
/// Prints as 64 hexadecimal digits, and reads so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub [u8; 32]);

impl CommitId {
    /// What the first commit of a database continues.
    pub const ROOT: Self = Self([0; 32]);

    /// The commit that continues `parent` with this body: the encoded transactions of an entry, and
    /// before them the other commits that it merges.
    pub fn of(parent: &Self, body: &[u8]) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&parent.0);
        hasher.update(body);
        Self(*hasher.finalize().as_bytes())
    }
}

impl FromStr for CommitId {
    type Err = NoCommitId;

    fn from_str(text: &str) -> Result<Self, NoCommitId> {
        let digits = text.as_bytes();
        if digits.len() != 64 {
            return Err(NoCommitId);
        }
        let mut id = [0; 32];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            let digit = |at: usize| char::from(pair[at]).to_digit(16).ok_or(NoCommitId);
            *byte = (digit(0)? << 4 | digit(1)?) as u8;
        }
        Ok(Self(id))
    }
}

/// A text that names no commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a commit id is 64 hexadecimal digits")]
pub struct NoCommitId;

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
