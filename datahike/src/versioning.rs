//! Branches and commits.
//!
//! A branch is a head and a log of its own over blocks that all branches of a store share: making
//! one copies what its origin has not written out yet, never the database. Each branch has its own
//! writer: connect with [`Config::branch`](crate::Config::branch), or [`Connection::checkout`].

mod commits;
mod verify;

use std::sync::Arc;

use bytes::Bytes;
use datahike_core::block::Address;
use datahike_core::commit::{
    CommitId, FlushRecord, Head, Position, entry_of_public, open, public_part, replay,
};
use datahike_core::db::Db;
use datahike_store::{Address as StoreAddress, Batch, Expect, StoreError};
use datahike_value::Value;

pub use self::commits::Commit;
use self::commits::{Found, Lines};
pub use self::verify::{Cut, Verification, VerifiedBranch, verify};
use crate::branch::{MIRROR_NOTES, Snapshot};
use crate::config::{Config, WriterConfig};
use crate::connection::Connection;
use crate::error::Error;
use crate::writer::{Transacted, Transaction};

/// How often a head is looked at again that moved between being read and being changed.
const TRIES: usize = 16;

/// A state of a database: what a branch is now, or a commit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Revision {
    /// The newest commit of the branch of this name.
    Branch(String),
    /// A commit of any branch.
    Commit(CommitId),
}

impl Revision {
    /// From a value: a keyword or string names a branch, a string of 64 hexadecimal digits a commit.
    pub fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Keyword(branch) => Some(Self::Branch(branch.text().to_owned())),
            Value::Str(text) => Some(Self::from(&**text)),
            _ => None,
        }
    }
}

impl From<&str> for Revision {
    fn from(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Branch(text.to_owned()), Self::Commit)
    }
}

impl From<CommitId> for Revision {
    fn from(commit: CommitId) -> Self {
        Self::Commit(commit)
    }
}

impl Connection {
    /// Names of the branches of the store, sorted.
    ///
    /// # Errors
    /// What the store fails with.
    pub async fn branches(&self) -> Result<Vec<String>, Error> {
        let lines = Lines::names(self.branch().store().as_ref()).await?;
        Ok(lines.into_iter().map(|(name, _)| name).collect())
    }

    /// Makes a branch that begins where another one or a commit is. Its cost does not depend on
    /// the size of the database.
    ///
    /// # Errors
    /// [`Error::BranchExists`], [`Error::NoBranch`], [`Error::NoCommit`]; [`Error::ReadOnly`];
    /// what the store fails with.
    pub async fn create_branch(
        &self,
        from: impl Into<Revision>,
        branch: &str,
    ) -> Result<Position, Error> {
        self.check_owner()?;
        check_name(branch)?;
        let blocks = self.branch().blocks();
        if present(self.branch().store().head(branch).await?.as_ref()) {
            return Err(Error::BranchExists { branch: branch.to_owned() });
        }
        let lines = Lines::read(blocks, self.branch().name()).await?;
        let found = lines.locate(blocks, &from.into()).await?;
        let begin = Begin {
            flush_record: found.anchor.address,
            flush: found.anchor.at,
            blocks: Vec::new(),
            entries: found
                .entries
                .iter()
                .map(|entry| Ok(entry_of_public(public_part(entry)?).into()))
                .collect::<Result<_, Error>>()?,
        };
        let record = FlushRecord::decode(&blocks.read(&begin.flush_record).await?)?;
        self.begin(branch, begin, false).await?;
        // A compaction may have removed the commit before the branch was there to keep it.
        let roots = record.roots.current.into_iter().chain(record.roots.history).flatten();
        let roots: Vec<_> = roots.map(|root| StoreAddress(root.address.0)).collect();
        if blocks.store().contains(&roots).await?.contains(&false) {
            self.delete_branch(branch).await?;
            let reason = ": a compaction has just given it back".to_owned();
            return Err(Error::NoCommit { commit: found.at.commit, reason });
        }
        Ok(found.at)
    }

    /// Removes a branch: its head and log. Blocks that no other branch reaches go with the next
    /// compaction. Whoever still writes it is told with its next transaction.
    ///
    /// # Errors
    /// [`Error::NoBranch`]; [`Error::MainBranch`] for the branch `db`; [`Error::ReadOnly`].
    pub async fn delete_branch(&self, branch: &str) -> Result<(), Error> {
        self.check_owner()?;
        if branch == Config::BRANCH {
            return Err(Error::MainBranch { branch: branch.to_owned() });
        }
        check_name(branch)?;
        let store = self.branch().store();
        for _ in 0..TRIES {
            let head = store.head(branch).await?.filter(|head| present(Some(head)));
            let Some(head) = head else { break };
            match store.delete_branch(branch, head.revision).await {
                Err(StoreError::Conflict { .. }) => {}
                deleted => return Ok(deleted?),
            }
        }
        Err(no_branch(store.as_ref(), branch).await?)
    }

    /// Makes a branch show this database value, whatever it was before; it is created if it is not
    /// there. The value becomes a commit with these parents. Connections that write the branch lose
    /// it: they fail with [`Error::WriterLost`].
    ///
    /// # Errors
    /// If `db` is a view, is of another store, or a parent is unknown; [`Error::ReadOnly`].
    pub async fn force_branch(
        &self,
        db: &Db,
        branch: &str,
        parents: &[Revision],
    ) -> Result<Position, Error> {
        self.check_owner()?;
        check_name(branch)?;
        if !db.is_current() {
            return Err(Error::Unavailable {
                what: format!("a view as branch {branch}"),
                hint: "give the database value that the view is of",
            });
        }
        let blocks = self.branch().blocks();
        let lines = Lines::read(blocks, self.branch().name()).await?;
        let mut positions = Vec::with_capacity(parents.len());
        for parent in parents {
            positions.push(lines.locate(blocks, parent).await?.at);
        }
        if positions.is_empty() {
            return Err(Error::Unavailable {
                what: format!("branch {branch} without parents"),
                hint: "name a branch or a commit that it comes after",
            });
        }
        let last = positions.iter().map(|at| at.seq).max().unwrap_or_default();
        let mut parents: Vec<CommitId> = positions.iter().map(|at| at.commit).collect();
        parents.sort_unstable();
        parents.dedup();
        check_parents(&parents)?;

        let flushed = blocks.settle(|| db.indexes().flush()).await?;
        let made = flushed.blocks.iter().map(|(address, _)| *address).collect::<Vec<_>>();
        let roots = flushed.indexes.roots();
        let named = roots.current.iter().chain(&roots.history).flatten().map(|root| root.address);
        let kept: Vec<_> = named.filter(|a| !made.contains(a)).map(|a| StoreAddress(a.0)).collect();
        let there = blocks.store().contains(&kept).await?;
        if let Some((address, _)) = kept.iter().zip(there).find(|(_, there)| !there) {
            return Err(Error::BlockLost { address: Address(address.0) });
        }
        let record = FlushRecord::graft(db, last + 1, parents, *roots);
        let bytes = Bytes::from(record.encode());
        let address = Address::of(&bytes);
        let mut new: Vec<_> = flushed
            .blocks
            .into_iter()
            .map(|(address, bytes)| (StoreAddress(address.0), Bytes::from(bytes)))
            .collect();
        new.push((StoreAddress(address.0), bytes));
        let begin =
            Begin { flush_record: address, flush: record.at, blocks: new, entries: Vec::new() };
        self.begin(branch, begin, true).await?;
        Ok(record.at)
    }

    /// Carries out a transaction whose commit has these parents besides the newest of this branch.
    /// What of them is to be in this branch, the transaction says: nothing is merged by itself.
    ///
    /// # Errors
    /// As [`Connection::transact`]; [`Error::NoBranch`], [`Error::NoCommit`].
    pub async fn merge(
        &self,
        parents: &[Revision],
        data: impl Into<Value>,
    ) -> Result<Arc<datahike_core::tx::TxReport>, Error> {
        let transaction = Transaction::new(data.into());
        match self.merge_with(parents, transaction).await? {
            Transacted::Now(report) => Ok(report),
            Transacted::Before(remembered) => self.report_of(&remembered).await,
        }
    }

    /// [`Connection::merge`] with metadata, or under a request id so that it happens once.
    ///
    /// # Errors
    /// As there.
    pub async fn merge_with(
        &self,
        parents: &[Revision],
        transaction: Transaction,
    ) -> Result<Transacted, Error> {
        let mut commits = Vec::with_capacity(parents.len());
        for parent in parents {
            commits.push(match parent {
                // Whether it is there the writer checks: a mirror need not know it.
                Revision::Commit(commit) => *commit,
                branch @ Revision::Branch(_) => self.position_of(branch.clone()).await?.commit,
            });
        }
        self.transact_with(Transaction { parents: commits, ..transaction }).await
    }

    /// The newest commit of this branch.
    pub fn commit_id(&self) -> CommitId {
        self.snapshot().at.commit
    }

    /// The parents of a commit, the one that it continues first; none of the first commit.
    ///
    /// # Errors
    /// [`Error::NoCommit`] if the store no longer tells it.
    pub async fn parent_commit_ids(&self, commit: CommitId) -> Result<Vec<CommitId>, Error> {
        let blocks = self.branch().blocks();
        let lines = Lines::read(blocks, self.branch().name()).await?;
        lines.parents_of(blocks, commit).await
    }

    /// Where a commit, or the newest commit of a branch, stands.
    ///
    /// # Errors
    /// [`Error::NoBranch`], [`Error::NoCommit`]; what the store fails with.
    pub async fn position_of(&self, revision: impl Into<Revision>) -> Result<Position, Error> {
        let revision = revision.into();
        if revision == Revision::Branch(self.branch().name().to_owned()) {
            return Ok(self.snapshot().at);
        }
        let blocks = self.branch().blocks();
        let lines = Lines::read(blocks, self.branch().name()).await?;
        Ok(lines.locate(blocks, &revision).await?.at)
    }

    /// The database value as of a commit of any branch.
    ///
    /// # Errors
    /// [`Error::NoCommit`], with the reason if it may have been there; what the store fails with.
    pub async fn commit_as_db(&self, commit: CommitId) -> Result<Db, Error> {
        if commit == self.commit_id() {
            return Ok(self.snapshot().db.clone());
        }
        self.revision_as_db(&commit.into()).await
    }

    /// The newest database value of a branch.
    ///
    /// # Errors
    /// [`Error::NoBranch`]; what the store fails with.
    pub async fn branch_as_db(&self, branch: &str) -> Result<Db, Error> {
        if branch == self.branch().name() {
            return Ok(self.db());
        }
        self.revision_as_db(&Revision::Branch(branch.to_owned())).await
    }

    async fn revision_as_db(&self, revision: &Revision) -> Result<Db, Error> {
        let blocks = self.branch().blocks();
        let lines = Lines::read(blocks, self.branch().name()).await?;
        let Found { anchor, entries, .. } = lines.locate(blocks, revision).await?;
        let record = FlushRecord::decode(&blocks.read(&anchor.address).await?)?;
        let source: Arc<crate::blocks::Blocks> = Arc::clone(blocks);
        let flushed = open(&record, source);
        let entries = entries.iter().map(|entry| &entry[..]);
        Ok(replay(&flushed, record.at, entries, |_| {})?.0)
    }

    /// The commits that lead to a revision, newest first, as far as the store tells of them, at
    /// most `limit`.
    ///
    /// # Errors
    /// [`Error::NoBranch`], [`Error::NoCommit`]; what the store fails with.
    pub async fn branch_history(
        &self,
        revision: impl Into<Revision>,
        limit: usize,
    ) -> Result<Vec<Commit>, Error> {
        let blocks = self.branch().blocks();
        let lines = Lines::read(blocks, self.branch().name()).await?;
        lines.history(blocks, &revision.into(), limit).await
    }

    /// A connection of the same kind to another branch of the store, with a writer of its own.
    ///
    /// # Errors
    /// As [`connect`](crate::connect); [`Error::NoBranch`].
    pub async fn checkout(&self, branch: &str) -> Result<Self, Error> {
        Box::pin(crate::connect(&self.config().clone().branch(branch))).await
    }

    fn check_owner(&self) -> Result<(), Error> {
        let place = || self.branch().store().describe();
        match self.config().writer {
            WriterConfig::Local => Ok(()),
            WriterConfig::ReadOnly => Err(Error::ReadOnly { place: place() }),
            _ => Err(Error::Unavailable {
                what: format!("changing branches of the copy in {}", place()),
                hint: "invoke the operations branch and delete-branch at the server",
            }),
        }
    }

    /// Lets a branch begin somewhere. The name comes first, with an empty record that nobody takes
    /// for a branch: only then is it known how its log goes on where the name was used before.
    async fn begin(&self, branch: &str, begin: Begin, replace: bool) -> Result<(), Error> {
        let store = self.branch().store();
        let exists = || Error::BranchExists { branch: branch.to_owned() };
        store.put(begin.blocks).await?;
        for _ in 0..TRIES {
            let head = match store.head(branch).await? {
                Some(head) if present(Some(&head)) && !replace => return Err(exists()),
                Some(head) => head,
                None => match store.commit(Batch::new(branch, Expect::Absent)).await {
                    Err(StoreError::Conflict { .. }) => continue,
                    made => made?,
                },
            };
            let start = head.log.end.max(begin.flush.seq);
            let log_base = begin.flush.seq.cast_signed().wrapping_sub(start.cast_signed());
            let record = Head {
                flush_record: begin.flush_record,
                flush: begin.flush,
                log_base,
                dedup: None,
            };
            let mut batch = Batch::new(branch, Expect::from(&head));
            batch.entries.clone_from(&begin.entries);
            batch.record = Some(record.encode().into());
            batch.log_start = Some(start);
            match store.commit(batch).await {
                Err(StoreError::Conflict { .. }) => {}
                begun => return begun.map(drop).map_err(Error::from),
            }
        }
        Err(Error::WriterLost { branch: branch.to_owned() })
    }
}

/// With what a branch begins.
struct Begin {
    flush_record: Address,
    flush: Position,
    blocks: Vec<(StoreAddress, Bytes)>,
    entries: Vec<Bytes>,
}

impl Snapshot {
    /// The commit whose state it is.
    pub fn commit_id(&self) -> CommitId {
        self.at.commit
    }
}

/// Checks that the commits that a transaction merges are in the store.
pub(crate) async fn check_merged(
    branch: &crate::branch::Branch,
    commits: &[CommitId],
) -> Result<(), Error> {
    check_parents(commits)?;
    let newest = branch.snapshot().at.commit;
    let mut lines = None;
    for commit in commits.iter().filter(|commit| **commit != newest) {
        let lines = match &lines {
            Some(lines) => lines,
            None => lines.insert(Lines::read(branch.blocks(), branch.name()).await?),
        };
        lines.locate(branch.blocks(), &Revision::Commit(*commit)).await?;
    }
    Ok(())
}

fn check_parents(parents: &[CommitId]) -> Result<(), Error> {
    let max = datahike_core::commit::MERGED_MAX;
    match parents.len() <= max {
        true => Ok(()),
        false => Err(Error::TooManyParents { parents: parents.len(), max }),
    }
}

fn check_name(branch: &str) -> Result<(), Error> {
    if branch.ends_with(MIRROR_NOTES) {
        let reason = "names that end so are for the notes of mirrors";
        return Err(StoreError::InvalidBranch { branch: branch.to_owned(), reason }.into());
    }
    Ok(())
}

/// Whether the name stands for a branch: one that is being made has no record yet.
pub(crate) fn present(head: Option<&datahike_store::Head>) -> bool {
    head.is_some_and(|head| !head.record.is_empty())
}

/// The error that there is no such branch, with those that there are.
pub(crate) async fn no_branch(
    store: &dyn datahike_store::Store,
    branch: &str,
) -> Result<Error, Error> {
    let known = Lines::names(store).await?.into_iter().map(|(name, _)| name).collect();
    Ok(Error::NoBranch { branch: branch.to_owned(), known })
}
