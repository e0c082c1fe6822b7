//! A branch as its server sees it.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use datahike_core::block::{Address, BlockSource, Missing};
use datahike_core::commit::{FlushRecord, encode_batch, public_part};
use datahike_core::index::{Node, Root, changed_blocks};
use datahike_store::{Address as StoreAddress, StoreError, StoreExt};
use datahike_sync::{
    Address as SyncAddress, Batch, Change, Difference, Entries, FlushPoint, Head, Point, Seeds,
    Source, SourceError, State, limits::ENTRIES_PER_MESSAGE_MAX,
};
use parking_lot::Mutex;

use super::{identity, point, position, shape};
use crate::blocks::Blocks;
use crate::branch::Branch;
use crate::error::Error;

/// What a [`Branch`] tells its mirrors.
#[derive(Debug)]
pub struct BranchSource {
    branch: Arc<Branch>,
    /// The seeds of the flush that was asked for last: all who begin at once get the same.
    seeds: Mutex<Option<(Address, Arc<[SyncAddress]>)>>,
    /// The changes between the two flushes that were asked for last.
    changes: Mutex<Option<Changes>>,
}

/// From which flush to which, and what changed.
type Changes = (Address, Address, Arc<[Change]>);

impl BranchSource {
    /// Serves this branch.
    pub fn new(branch: Arc<Branch>) -> Self {
        Self { branch, seeds: Mutex::default(), changes: Mutex::default() }
    }

    async fn record(&self, address: &Address) -> Result<Option<FlushRecord>, Error> {
        match self.branch.blocks().read(address).await {
            Ok(bytes) => Ok(Some(FlushRecord::decode(&bytes)?)),
            Err(Error::BlockLost { .. }) => Ok(None),
            Err(Error::Store(error)) => Err(self.damage(&[StoreAddress(address.0)], error).await),
            Err(error) => Err(error),
        }
    }

    /// Which of some blocks that cannot be read is the damaged one.
    async fn damage(&self, wanted: &[StoreAddress], error: StoreError) -> Error {
        if matches!(error, StoreError::Corrupt { .. }) {
            for address in wanted {
                if let Err(StoreError::Corrupt { offset, reason, .. }) =
                    self.branch.store().get_one(address).await
                {
                    let reason = format!("{reason}, at byte {offset} of its file");
                    return Error::BlockDamaged { address: Address(address.0), reason };
                }
            }
        }
        error.into()
    }

    async fn entries_from(&self, from: &Point, max_bytes: usize) -> Result<Entries, Error> {
        let snapshot = self.branch.snapshot();
        let mut at = position(*from);
        if at == snapshot.at {
            return Ok(Entries::Run { entries: Vec::new(), to: *from });
        }
        if at.seq >= snapshot.at.seq {
            return Ok(Entries::Diverged);
        }
        let number = snapshot.head.log_number(at.seq);
        let found = match self.branch.store().log(self.branch.name(), number, max_bytes).await {
            Ok(found) => found,
            Err(StoreError::LogGone { .. }) => return Ok(Entries::Gone),
            Err(error) => return Err(error.into()),
        };
        let mut entries = Vec::with_capacity(found.len());
        for entry in found.into_iter().take(ENTRIES_PER_MESSAGE_MAX) {
            if at.seq == snapshot.at.seq {
                break;
            }
            let public = entry.slice_ref(public_part(&entry)?);
            if !at.is_continued_by(&public) {
                return Ok(Entries::Diverged);
            }
            at = at.after(&public);
            entries.push(public);
        }
        if at.seq == snapshot.at.seq && at != snapshot.at {
            return Ok(Entries::Diverged);
        }
        Ok(Entries::Run { entries, to: point(at) })
    }

    async fn batch_from(&self, from: &Point, max_bytes: usize) -> Result<Option<Batch>, Error> {
        let snapshot = self.branch.snapshot();
        let from = position(*from);
        if from.seq >= snapshot.at.seq {
            return Ok(None);
        }
        let number = snapshot.head.log_number(from.seq);
        let wanted = max_bytes.saturating_mul(BATCH_LOG_PART);
        let mut entries = match self.branch.store().log(self.branch.name(), number, wanted).await {
            Ok(entries) => entries,
            Err(StoreError::LogGone { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        entries.truncate(usize::try_from(snapshot.at.seq - from.seq).unwrap_or(usize::MAX));
        let plain: usize = entries.iter().map(Bytes::len).sum();
        let follows = |first: &Bytes| Ok::<_, Error>(from.is_continued_by(public_part(first)?));
        if plain < BATCH_BYTES_MIN || !entries.first().map_or(Ok(false), follows)? {
            return Ok(None);
        }
        loop {
            let (bytes, to) = encode_batch(entries.iter().map(|entry| &entry[..]), &from)?;
            if bytes.len() > max_bytes && entries.len() > 1 {
                // Entries of a log are much alike: a part of them is that part of the piece.
                let fitting = entries.len() * max_bytes / bytes.len();
                entries.truncate(fitting.clamp(1, entries.len() - 1));
                continue;
            }
            let parted = to.seq == snapshot.at.seq && to != snapshot.at;
            let batch = Batch { to: point(to), bytes: bytes.into() };
            return Ok((!parted && batch.bytes.len() < plain).then_some(batch));
        }
    }

    async fn seeds_of(&self, flush: &FlushPoint) -> Result<Option<Seeds>, Error> {
        let address = Address(flush.address.0);
        if let Some((known, addresses)) = &*self.seeds.lock()
            && *known == address
        {
            return Ok(Some(Seeds { addresses: addresses.clone(), bytes: 0 }));
        }
        let Some(record) = self.record(&address).await? else { return Ok(None) };
        let blocks = self.branch.blocks();
        let mut addresses = vec![flush.address];
        for root in [record.roots.current[0], record.roots.history[0]].into_iter().flatten() {
            let tree = match blocks.settle(|| tree_of(blocks, root)).await {
                Ok(tree) => tree,
                Err(Error::Store(error)) => {
                    let lacking = tree_of(blocks, root).err().map(|missing| missing.addresses);
                    let lacking = lacking.into_iter().flatten().map(|a| StoreAddress(a.0));
                    return Err(self.damage(&lacking.collect::<Vec<_>>(), error).await);
                }
                Err(error) => return Err(error),
            };
            addresses.extend(tree.into_iter().map(|address| SyncAddress(address.0)));
        }
        let addresses: Arc<[SyncAddress]> = addresses.into();
        *self.seeds.lock() = Some((address, addresses.clone()));
        Ok(Some(Seeds { addresses, bytes: 0 }))
    }

    async fn changes_between(
        &self,
        base: Address,
        to: Address,
    ) -> Result<Option<Arc<[Change]>>, Error> {
        if let Some((known_base, known_to, changes)) = &*self.changes.lock()
            && (*known_base, *known_to) == (base, to)
        {
            return Ok(Some(changes.clone()));
        }
        let (Some(old), Some(new)) = (self.record(&base).await?, self.record(&to).await?) else {
            return Ok(None);
        };
        let blocks = self.branch.blocks();
        let changed = blocks.settle(|| changed_blocks(&**blocks, &old.roots, &new.roots)).await?;
        let change = |(address, base): (Address, Option<Address>)| Change {
            address: SyncAddress(address.0),
            base: base.map(|base| SyncAddress(base.0)),
        };
        let record = Change { address: SyncAddress(to.0), base: Some(SyncAddress(base.0)) };
        let changes: Arc<[Change]> =
            changed.into_iter().rev().map(change).chain([record]).collect();
        *self.changes.lock() = Some((base, to, changes.clone()));
        Ok(Some(changes))
    }
}

/// Every block of a tree, branches before their children; leaves are named and not read.
fn tree_of(blocks: &Blocks, root: Root) -> Result<Vec<Address>, Missing> {
    let mut all = vec![root.address];
    let mut level = vec![root.address];
    for _ in 1..root.depth {
        let mut children = Vec::new();
        let mut missing = Vec::new();
        for address in &level {
            match blocks.node(address).as_deref() {
                Some(Node::Branch(branch)) => children.extend_from_slice(branch.children()),
                Some(Node::Leaf(_)) => {}
                None => missing.push(*address),
            }
        }
        if !missing.is_empty() {
            return Err(Missing { addresses: missing });
        }
        all.extend_from_slice(&children);
        level = children;
    }
    Ok(all)
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl Source for BranchSource {
    async fn state(&self) -> Result<State, SourceError> {
        let snapshot = self.branch.snapshot();
        let flush = FlushPoint {
            at: point(snapshot.head.flush),
            address: SyncAddress(snapshot.head.flush_record.0),
        };
        Ok(State {
            identity: identity(self.branch.store().identity()),
            shape: shape(snapshot.db.config()),
            head: Head { at: point(snapshot.at), flush },
        })
    }

    async fn entries(&self, from: &Point, max_bytes: usize) -> Result<Entries, SourceError> {
        self.entries_from(from, max_bytes).await.map_err(failed("the log"))
    }

    async fn batch(&self, from: &Point, max_bytes: usize) -> Result<Option<Batch>, SourceError> {
        self.batch_from(from, max_bytes).await.map_err(failed("the log"))
    }

    /// Names the newest flush and says nothing of what changed: a copy that cannot follow asks for the
    /// blocks by which that differs from its own flush, and gets those, as patches where it can be.
    async fn difference(&self, from: &Point) -> Result<Option<Difference>, SourceError> {
        let head = self.branch.snapshot().head;
        let address = SyncAddress(head.flush_record.0);
        let to = FlushPoint { at: point(head.flush), address };
        Ok((to.at.seq > from.seq).then_some(Difference { to, bytes: Bytes::new() }))
    }

    async fn seeds(&self, flush: &FlushPoint) -> Result<Option<Seeds>, SourceError> {
        self.seeds_of(flush).await.map_err(failed("a snapshot"))
    }

    async fn blocks(
        &self,
        addresses: &[SyncAddress],
        max_bytes: usize,
    ) -> Result<Vec<Option<Bytes>>, SourceError> {
        let store = self.branch.store();
        let mut answers = Vec::with_capacity(addresses.len());
        let mut bytes = 0;
        for some in addresses.chunks(BLOCKS_READ_AT_ONCE) {
            let wanted: Vec<_> = some.iter().map(|a| StoreAddress(a.0)).collect();
            let found = match store.get(&wanted).await {
                Ok(found) => found,
                Err(error) => return Err(failed("blocks")(self.damage(&wanted, error).await)),
            };
            for block in found {
                let len = block.as_ref().map_or(0, Bytes::len);
                if !answers.is_empty() && bytes + len > max_bytes {
                    return Ok(answers);
                }
                bytes += len;
                answers.push(block);
            }
        }
        Ok(answers)
    }

    async fn changes(
        &self,
        base: &SyncAddress,
        to: &SyncAddress,
    ) -> Result<Option<Arc<[Change]>>, SourceError> {
        let changes = self.changes_between(Address(base.0), Address(to.0)).await;
        changes.map_err(failed("what a flush changed"))
    }
}

/// Bytes of log that are read for each byte of a batch.
const BATCH_LOG_PART: usize = 6;

/// Bytes of log that are sent as they are: one entry or two gain nothing from columns.
const BATCH_BYTES_MIN: usize = 1 << 10;

/// Blocks read from the store in one call: about half a megabyte.
const BLOCKS_READ_AT_ONCE: usize = 256;

fn failed(what: &'static str) -> impl Fn(Error) -> SourceError {
    move |error| {
        let damaged = matches!(
            error,
            Error::BlockDamaged { .. }
                | Error::Commit(_)
                | Error::Store(StoreError::Corrupt { .. })
        );
        SourceError { what, source: error.into(), damaged }
    }
}
