//! The server's database.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Contents, changes, commit_id, digest, entry, flush_point, origin, read_branch, read_record,
    write,
};
use crate::{
    Address, Batch, Change, Difference, Entries, FlushPoint, Head, Identity, Point, Seeds, Shape,
    Source, SourceError, State, layer::lock,
};

/// A database that is served. Clones are the same one; everything in it counts as durable.
#[derive(Clone, Debug)]
pub struct ModelSource {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Clone, Debug)]
struct Disk {
    identity: Identity,
    shape: Shape,
    head: Head,
    contents: Contents,
    /// The commit before the oldest entry of the log.
    log_base: Point,
    log: BTreeMap<u64, (Point, Bytes)>,
    /// All commits and what they set, for differences; may reach back further than the log.
    past: BTreeMap<u64, (Point, Vec<(u32, u32)>)>,
    blocks: HashMap<Address, Bytes>,
    digests: HashMap<Point, [u8; 32]>,
    batches: bool,
}

/// A copy of a database, to be gone back to.
#[derive(Clone, Debug)]
pub struct Backup(Disk);

impl ModelSource {
    /// An empty database.
    pub fn new(identity: Identity, shape: Shape) -> Self {
        let contents = Contents::new();
        let written = write(&contents, &origin(), &shape);
        let head = Head { at: origin(), flush: flush_point(origin(), &written) };
        let disk = Disk {
            identity,
            shape,
            head,
            digests: HashMap::from([(origin(), digest(&contents))]),
            contents,
            log_base: origin(),
            log: BTreeMap::new(),
            past: BTreeMap::new(),
            blocks: written.blocks.into_iter().collect(),
            batches: true,
        };
        Self { disk: Arc::new(Mutex::new(disk)) }
    }

    /// Commits; `padding` makes the entry longer.
    pub fn commit(&self, sets: &[(u32, u32)], padding: usize) -> (Point, Bytes) {
        let mut disk = lock(&self.disk);
        let parent = disk.head.at;
        let entry = entry(&parent.commit, sets, padding);
        let at = Point { seq: parent.seq + 1, commit: commit_id(&parent.commit, &entry) };
        disk.contents.extend(sets.iter().copied());
        disk.log.insert(at.seq, (at, entry.clone()));
        disk.past.insert(at.seq, (at, sets.to_vec()));
        disk.head.at = at;
        let digest = digest(&disk.contents);
        disk.digests.insert(at, digest);
        (at, entry)
    }

    /// Writes the state out; `None` if it is already.
    pub fn flush(&self) -> Option<FlushPoint> {
        let mut disk = lock(&self.disk);
        if disk.head.flush.at == disk.head.at {
            return None;
        }
        let written = write(&disk.contents, &disk.head.at, &disk.shape);
        let flush = flush_point(disk.head.at, &written);
        disk.blocks.extend(written.blocks);
        disk.head.flush = flush;
        Some(flush)
    }

    /// Drops log entries before the newest flush, except the last `keep` of them.
    pub fn cut_log(&self, keep: u64) {
        let mut disk = lock(&self.disk);
        let from = disk.head.flush.at.seq.saturating_sub(keep);
        if from > disk.log_base.seq
            && let Some((at, _)) = disk.log.get(&from)
        {
            disk.log_base = *at;
            disk.log = disk.log.split_off(&(from + 1));
        }
    }

    /// Forgets what differences are made of, before the newest flush.
    pub fn forget_past(&self) {
        let mut disk = lock(&self.disk);
        let from = disk.head.flush.at.seq + 1;
        disk.past = disk.past.split_off(&from);
    }

    /// Drops all blocks that the newest flush does not reach.
    pub fn sweep(&self) {
        let mut disk = lock(&self.disk);
        let reached = reach(&disk, &disk.head.flush.address).unwrap_or_default();
        disk.blocks.retain(|address, _| reached.contains_key(address));
    }

    /// Whether [`Source::batch`] gives any.
    pub fn set_batches(&self, batches: bool) {
        lock(&self.disk).batches = batches;
    }

    /// Puts wrong bytes under the address of a block, if there is one at this place.
    pub fn spoil(&self, place: usize) -> Option<Address> {
        let mut disk = lock(&self.disk);
        let mut addresses: Vec<Address> = disk.blocks.keys().copied().collect();
        addresses.sort_unstable();
        let address = *addresses.get(place)?;
        disk.blocks.insert(address, Bytes::from_static(b"spoiled"));
        Some(address)
    }

    /// A copy of all there is.
    pub fn back_up(&self) -> Backup {
        Backup(lock(&self.disk).clone())
    }

    /// Goes back to a copy, as an operator does after a loss. What was known of later commits is
    /// only kept for [`digest`](Self::digest).
    pub fn restore(&self, backup: &Backup) {
        let mut disk = lock(&self.disk);
        let digests = std::mem::take(&mut disk.digests);
        *disk = backup.0.clone();
        disk.digests.extend(digests);
    }

    /// Where it stands.
    pub fn head(&self) -> Head {
        lock(&self.disk).head
    }

    /// Digest of the contents as of a commit that was ever made.
    pub fn digest(&self, at: &Point) -> Option<[u8; 32]> {
        lock(&self.disk).digests.get(at).copied()
    }

    /// What it holds.
    pub fn contents(&self) -> Contents {
        lock(&self.disk).contents.clone()
    }
}

/// Blocks that a flush record reaches, with what tells similar ones of two flushes.
fn reach(disk: &Disk, record: &Address) -> Option<BTreeMap<Address, (u8, u32)>> {
    let (branch, inverted) = read_record(disk.blocks.get(record)?)?;
    let mut reached = BTreeMap::new();
    for leaf in read_branch(disk.blocks.get(&branch)?)? {
        let bytes = disk.blocks.get(&leaf)?;
        let first = super::read_leaf(bytes, &disk.shape)?.first()?.0;
        reached.insert(leaf, (0, first / super::LEAF_KEYS));
    }
    disk.blocks.get(&inverted)?;
    reached.extend([(inverted, (1, 0)), (branch, (2, 0)), (*record, (3, 0))]);
    Some(reached)
}

/// Fewer are sent as they are.
const BATCH_ENTRIES_MIN: usize = 32;

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl Source for ModelSource {
    async fn state(&self) -> Result<State, SourceError> {
        let disk = lock(&self.disk);
        Ok(State { identity: disk.identity, shape: disk.shape.clone(), head: disk.head })
    }

    async fn entries(&self, from: &Point, max_bytes: usize) -> Result<Entries, SourceError> {
        let disk = lock(&self.disk);
        let known = match disk.log.get(&from.seq) {
            Some((at, _)) => *at,
            None if from.seq == disk.log_base.seq => disk.log_base,
            None if from.seq < disk.log_base.seq => return Ok(Entries::Gone),
            None => return Ok(Entries::Diverged),
        };
        if known != *from {
            return Ok(Entries::Diverged);
        }
        let (mut entries, mut to, mut size) = (Vec::new(), *from, 0);
        for (at, entry) in disk.log.range(from.seq + 1..).map(|(_, logged)| logged) {
            size += entry.len();
            if !entries.is_empty() && (size > max_bytes || entries.len() >= 1000) {
                break;
            }
            entries.push(entry.clone());
            to = *at;
        }
        Ok(Entries::Run { entries, to })
    }

    async fn batch(&self, from: &Point, max_bytes: usize) -> Result<Option<Batch>, SourceError> {
        if !lock(&self.disk).batches {
            return Ok(None);
        }
        let Entries::Run { entries, to } = self.entries(from, max_bytes).await? else {
            return Ok(None);
        };
        if entries.len() < BATCH_ENTRIES_MIN {
            return Ok(None);
        }
        let mut bytes = BytesMut::new();
        for entry in entries {
            bytes.put_u32(entry.len() as u32);
            bytes.put_slice(&entry);
        }
        Ok(Some(Batch { to, bytes: bytes.freeze() }))
    }

    async fn difference(&self, from: &Point) -> Result<Option<Difference>, SourceError> {
        let disk = lock(&self.disk);
        let to = disk.head.flush;
        if disk.past.get(&from.seq).is_none_or(|(at, _)| at != from) || to.at.seq <= from.seq {
            return Ok(None);
        }
        let later = disk.past.range(from.seq + 1..=to.at.seq).map(|(_, (_, sets))| sets);
        let net: BTreeMap<u32, u32> = later.flatten().copied().collect();
        let sets: Vec<(u32, u32)> = net.into_iter().collect();
        let bytes = entry(&from.commit, &sets, 0);
        Ok(Some(Difference { to, bytes }))
    }

    async fn seeds(&self, flush: &FlushPoint) -> Result<Option<Seeds>, SourceError> {
        let disk = lock(&self.disk);
        let Some(reached) = reach(&disk, &flush.address) else { return Ok(None) };
        let mut leaves: Vec<(u32, Address)> = reached
            .iter()
            .filter(|(_, (kind, _))| *kind == 0)
            .map(|(address, (_, bucket))| (*bucket, *address))
            .collect();
        leaves.sort_unstable();
        let addresses: Vec<Address> =
            [flush.address].into_iter().chain(leaves.into_iter().map(|(_, leaf)| leaf)).collect();
        let size = |address| disk.blocks.get(address).map_or(0, |block| block.len() as u64);
        let bytes = addresses.iter().map(size).sum();
        Ok(Some(Seeds { addresses: addresses.into(), bytes }))
    }

    async fn blocks(
        &self,
        addresses: &[Address],
        max_bytes: usize,
    ) -> Result<Vec<Option<Bytes>>, SourceError> {
        let disk = lock(&self.disk);
        let (mut blocks, mut size) = (Vec::new(), 0);
        for address in addresses {
            let block = disk.blocks.get(address).cloned();
            size += block.as_ref().map_or(0, Bytes::len);
            if !blocks.is_empty() && size > max_bytes {
                break;
            }
            blocks.push(block);
        }
        Ok(blocks)
    }

    async fn changes(
        &self,
        base: &Address,
        to: &Address,
    ) -> Result<Option<Arc<[Change]>>, SourceError> {
        let disk = lock(&self.disk);
        let Some((old, new)) = reach(&disk, base).zip(reach(&disk, to)) else { return Ok(None) };
        let places: HashMap<(u8, u32), Address> =
            old.iter().map(|(address, place)| (*place, *address)).collect();
        let mut changed: Vec<((u8, u32), Change)> = new
            .iter()
            .filter(|(address, _)| !old.contains_key(address))
            .map(|(address, place)| {
                (*place, Change { address: *address, base: places.get(place).copied() })
            })
            .collect();
        changed.sort_unstable_by_key(|(place, _)| *place);
        Ok(Some(changed.into_iter().map(|(_, change)| change).collect()))
    }
}

/// Entries of a batch.
pub(super) fn read_batch(mut bytes: &[u8]) -> Option<Vec<Bytes>> {
    let mut entries = Vec::new();
    while !bytes.is_empty() {
        let len = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
        let end = usize::try_from(len).ok()?.checked_add(4)?;
        entries.push(Bytes::copy_from_slice(bytes.get(4..end)?));
        bytes = bytes.get(end..)?;
    }
    Some(entries)
}

/// What a difference sets, if it is one after this commit.
pub(super) fn read_difference(from: &Point, bytes: &[u8]) -> Option<Vec<(u32, u32)>> {
    super::follows(&from.commit, bytes).then(|| changes(bytes)).flatten()
}
