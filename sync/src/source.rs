//! What a server must be able to tell about a database so that it can be mirrored.

use std::{error::Error, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

use crate::{
    limits::ENTRIES_PER_MESSAGE_MAX,
    message::{Block, Body},
    patch,
    point::{Address, FlushPoint, Head, Identity, Point, Shape},
};

/// A branch of a database as its server sees it.
///
/// All answers are about durable data. Blocks named by [`seeds`](Self::seeds) and
/// [`changes`](Self::changes) should outlive the answer by the grace period of the garbage
/// collection; where they do not, mirrors notice and begin again from the newest flush.
///
/// Implement it under `#[async_trait]`, and under `#[async_trait(?Send)]` where the target family
/// is `wasm`.
#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
pub trait Source: Send + Sync {
    /// Identity, shape and head as they are now, the head durable.
    async fn state(&self) -> Result<State, SourceError>;

    /// Log entries after `from`, in order: at least one if there is one, more as long as they fit
    /// into `max_bytes`. A source may answer [`Entries::Gone`] although the log reaches back, if
    /// it knows that its [`difference`](Self::difference) is much shorter.
    async fn entries(&self, from: &Point, max_bytes: usize) -> Result<Entries, SourceError>;

    /// The same commits in one coded piece that a replica can apply transaction by transaction,
    /// if the log has them and that is shorter; `None` as well if `from` is not on this history. The piece may be up to `max_bytes` long and end
    /// before the head.
    async fn batch(&self, from: &Point, max_bytes: usize) -> Result<Option<Batch>, SourceError> {
        let _ = (from, max_bytes);
        Ok(None)
    }

    /// The net change from the commit `from`, which the log no longer has, to a flush after it,
    /// usually the newest; `None` if `from` is not known any more.
    async fn difference(&self, from: &Point) -> Result<Option<Difference>, SourceError> {
        let _ = from;
        Ok(None)
    }

    /// Blocks of a flush from which a replica can derive all others: the flush record first, then
    /// for example the leaves of one index in its order. `None` if the flush is gone.
    async fn seeds(&self, flush: &FlushPoint) -> Result<Option<Seeds>, SourceError>;

    /// Blocks in the order of `addresses`: at least one answer, more as long as they fit into
    /// `max_bytes`; `None` in a place means that the block is not there.
    async fn blocks(
        &self,
        addresses: &[Address],
        max_bytes: usize,
    ) -> Result<Vec<Option<Bytes>>, SourceError>;

    /// Blocks that the flush record `to` reaches and `base` does not, children before parents and
    /// the record last, each with the block it probably resembles. `None` if either is gone.
    async fn changes(
        &self,
        base: &Address,
        to: &Address,
    ) -> Result<Option<Arc<[Change]>>, SourceError> {
        let _ = (base, to);
        Ok(None)
    }
}

/// Answer of [`Source::state`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Which database.
    pub identity: Identity,
    /// How its blocks are made.
    pub shape: Shape,
    /// Where it stands.
    pub head: Head,
}

/// Answer of [`Source::entries`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entries {
    /// They follow one another from the commit after the one that was named.
    Run {
        /// The entries; empty only if the named commit is the head.
        entries: Vec<Bytes>,
        /// The commit of the last one.
        to: Point,
    },
    /// The log no longer reaches back so far.
    Gone,
    /// The commit of that number is another one.
    Diverged,
}

/// Answer of [`Source::batch`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The last commit in it.
    pub to: Point,
    /// Read by [`Replica::apply_batch`](crate::Replica::apply_batch).
    pub bytes: Bytes,
}

/// Answer of [`Source::difference`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The snapshot that results.
    pub to: FlushPoint,
    /// Read by [`Replica::apply_difference`](crate::Replica::apply_difference).
    pub bytes: Bytes,
}

/// Answer of [`Source::seeds`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds {
    /// Their addresses, in the order in which they are sent; shared by all who ask.
    pub addresses: Arc<[Address]>,
    /// Their size altogether, if known; shown as progress.
    pub bytes: u64,
}

/// A block that a flush brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// The block.
    pub address: Address,
    /// The block it replaced, if there is one that is likely to be similar.
    pub base: Option<Address>,
}

/// Why a source could not answer.
#[derive(Debug, Error)]
#[error("cannot read {what}: {source}")]
pub struct SourceError {
    /// What was to be read.
    pub what: &'static str,
    /// The reason.
    #[source]
    pub source: Box<dyn Error + Send + Sync>,
    /// What is stored is damaged, so that asking again does not help.
    pub damaged: bool,
}

/// A question of a [`Provider`](crate::Provider) to its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// [`Source::state`].
    State,
    /// [`Source::entries`].
    Entries(Point, usize),
    /// [`Source::batch`].
    Batch(Point, usize),
    /// [`Source::difference`].
    Difference(Point),
    /// [`Source::seeds`].
    Seeds(FlushPoint),
    /// [`Source::blocks`].
    Blocks(Vec<Address>, usize),
    /// [`Source::changes`].
    Changes(Address, Address),
    /// [`Source::blocks`], written as patches where that is shorter.
    Patches(Vec<Change>, usize),
}

/// What came of an [`Ask`].
#[derive(Debug)]
pub enum Answer {
    /// To [`Ask::State`].
    State(State),
    /// To [`Ask::Entries`].
    Entries(Entries),
    /// To [`Ask::Batch`].
    Batch(Option<Batch>),
    /// To [`Ask::Difference`].
    Difference(Option<Difference>),
    /// To [`Ask::Seeds`].
    Seeds(Option<Seeds>),
    /// To [`Ask::Blocks`] and [`Ask::Patches`]: for a prefix of what was asked for.
    Blocks(Vec<Block>),
    /// To [`Ask::Changes`].
    Changes(Option<Arc<[Change]>>),
    /// The source could not answer.
    Failed(SourceError),
}

/// Puts a question to a source.
pub async fn answer(source: &dyn Source, ask: Ask) -> Answer {
    match try_answer(source, ask).await {
        Ok(answer) => answer,
        Err(error) => Answer::Failed(error),
    }
}

async fn try_answer(source: &dyn Source, ask: Ask) -> Result<Answer, SourceError> {
    Ok(match ask {
        Ask::State => Answer::State(source.state().await?),
        Ask::Entries(from, max_bytes) => {
            Answer::Entries(source.entries(&from, max_bytes).await?.checked(&from)?)
        }
        Ask::Batch(from, max_bytes) => Answer::Batch(source.batch(&from, max_bytes).await?),
        Ask::Difference(from) => Answer::Difference(source.difference(&from).await?),
        Ask::Seeds(flush) => Answer::Seeds(source.seeds(&flush).await?),
        Ask::Changes(base, to) => Answer::Changes(source.changes(&base, &to).await?),
        Ask::Blocks(addresses, max_bytes) => {
            let bodies = source.blocks(&addresses, max_bytes).await?;
            let block = |(address, body): (&Address, Option<Bytes>)| Block {
                address: *address,
                body: body.map_or(Body::Absent, Body::Whole),
            };
            Answer::Blocks(addresses.iter().zip(bodies).map(block).collect())
        }
        Ask::Patches(changes, max_bytes) => {
            Answer::Blocks(patches(source, &changes, max_bytes).await?)
        }
    })
}

impl Entries {
    /// Holds the source to its contract, since a provider counts on it.
    fn checked(self, from: &Point) -> Result<Self, SourceError> {
        match &self {
            Self::Run { entries, to }
                if entries.len() > ENTRIES_PER_MESSAGE_MAX
                    || from.seq.checked_add(entries.len() as u64) != Some(to.seq) =>
            {
                Err(SourceError {
                    what: "log entries",
                    source: format!(
                        "{} entries lead from {} to {}",
                        entries.len(),
                        from.seq,
                        to.seq
                    )
                    .into(),
                    damaged: false,
                })
            }
            _ => Ok(self),
        }
    }
}

async fn patches(
    source: &dyn Source,
    changes: &[Change],
    max_bytes: usize,
) -> Result<Vec<Block>, SourceError> {
    let addresses: Vec<Address> = changes.iter().map(|change| change.address).collect();
    let news = source.blocks(&addresses, max_bytes).await?;
    let changes = &changes[..changes.len().min(news.len())];
    let wanted: Vec<Address> = changes.iter().filter_map(|change| change.base).collect();
    let mut bases = Vec::with_capacity(wanted.len());
    while bases.len() < wanted.len() {
        let more = source.blocks(&wanted[bases.len()..], max_bytes).await?;
        if more.is_empty() {
            break;
        }
        bases.extend(more);
    }
    let mut bases = wanted.into_iter().zip(bases);
    let block = |(change, new): (&Change, Option<Bytes>)| {
        let base = change.base.and_then(|_| bases.next());
        let body = match (new, base) {
            (None, _) => Body::Absent,
            (Some(new), Some((base, Some(old)))) => match patch::make(&old, &new) {
                Some(patch) => Body::Patch { base, patch },
                None => Body::Whole(new),
            },
            (Some(new), _) => Body::Whole(new),
        };
        Block { address: change.address, body }
    };
    Ok(changes.iter().zip(news).map(block).collect())
}
