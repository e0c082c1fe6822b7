//! The mirror's copy.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Contents, address, changes, commit_id, digest, flush_point, follows, read_branch, read_leaf,
    read_record,
    source::{read_batch, read_difference},
    write,
};
use crate::{
    Address, Derived, FlushPoint, Fold, Have, Head, Identity, Partial, Point, Replica,
    ReplicaError, Reset, Shape, layer::lock,
};

/// A mirror's store. Clones are the same one; everything in it counts as durable, so that a
/// mirror that crashes is one that begins again with this.
#[derive(Clone, Debug, Default)]
pub struct ModelReplica {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    identity: Option<Identity>,
    shape: Option<Shape>,
    head: Option<Head>,
    /// Commits since the flush of `head`, with their entries.
    tail: Vec<(Point, Bytes)>,
    blocks: HashMap<Address, Bytes>,
    partial: Option<(Partial, Identity, Shape)>,
    seen: Vec<Seen>,
    lazy: bool,
    keeps: bool,
    folds_differ: bool,
    fails: bool,
    forgets: bool,
}

/// What a listener of the mirror saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A commit.
    Commit(Point),
    /// A snapshot or a difference that led here.
    Jump(Point),
    /// The copy was given up.
    Reset(Reset),
}

impl ModelReplica {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that holds a snapshot complete as soon as it has its flush record.
    pub fn lazy() -> Self {
        let replica = Self::default();
        lock(&replica.disk).lazy = true;
        replica
    }

    /// Makes its own blocks come out differently from the server's, or not.
    pub fn set_folds_differ(&self, differ: bool) {
        lock(&self.disk).folds_differ = differ;
    }

    /// Refuses to give up its copy.
    pub fn keep(&self) {
        lock(&self.disk).keeps = true;
    }

    /// Makes every write fail, or none.
    pub fn set_fails(&self, fails: bool) {
        lock(&self.disk).fails = fails;
    }

    /// Makes it lose its tail at a flush and notice nothing: what a simulation must find.
    pub fn forget_tails(&self) {
        lock(&self.disk).forgets = true;
    }

    /// The newest commit it can be read at.
    pub fn head(&self) -> Option<Head> {
        lock(&self.disk).head
    }

    /// Whether a block is stored.
    pub fn holds(&self, address: &Address) -> bool {
        lock(&self.disk).blocks.contains_key(address)
    }

    /// How many blocks are stored.
    pub fn block_count(&self) -> usize {
        lock(&self.disk).blocks.len()
    }

    /// What its listener saw, all in all.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.disk).seen.clone()
    }

    /// What it holds, read from its blocks and tail; `None` if there is no snapshot or a block of
    /// it is missing.
    pub fn contents(&self) -> Option<Contents> {
        let disk = lock(&self.disk);
        let head = disk.head?;
        disk.contents(&head, head.at.seq)
    }

    /// Digest of [`contents`](Self::contents).
    pub fn digest(&self) -> Option<[u8; 32]> {
        self.contents().map(|contents| digest(&contents))
    }
}

impl Disk {
    fn contents(&self, head: &Head, seq: u64) -> Option<Contents> {
        let mut contents = self.read(&head.flush.address)?;
        for (_, entry) in self.tail.iter().filter(|(at, _)| at.seq <= seq) {
            contents.extend(changes(entry)?);
        }
        Some(contents)
    }

    fn read(&self, record: &Address) -> Option<Contents> {
        let shape = self.shape.as_ref()?;
        let (branch, _) = read_record(self.blocks.get(record)?)?;
        let mut contents = Contents::new();
        for leaf in read_branch(self.blocks.get(&branch)?)? {
            contents.extend(read_leaf(self.blocks.get(&leaf)?, shape)?);
        }
        Some(contents)
    }

    fn apply(&mut self, entry: Bytes) -> Result<Point, ReplicaError> {
        let head = self.head.as_mut().ok_or(ReplicaError::Diverged { seq: 0 })?;
        let seq = head.at.seq + 1;
        if !follows(&head.at.commit, &entry) {
            return Err(ReplicaError::Diverged { seq });
        }
        head.at = Point { seq, commit: commit_id(&head.at.commit, &entry) };
        let at = head.at;
        self.tail.push((at, entry));
        self.seen.push(Seen::Commit(at));
        Ok(at)
    }

    /// Applies all or nothing.
    fn apply_all(&mut self, entries: Vec<Bytes>) -> Result<Point, ReplicaError> {
        self.writable()?;
        let before = (self.head, self.tail.len(), self.seen.len());
        let mut at = self.head.map(|head| head.at);
        for entry in entries {
            match self.apply(entry) {
                Ok(point) => at = Some(point),
                Err(error) => {
                    self.head = before.0;
                    self.tail.truncate(before.1);
                    self.seen.truncate(before.2);
                    return Err(error);
                }
            }
        }
        at.ok_or(ReplicaError::Diverged { seq: 0 })
    }

    fn writable(&self) -> Result<(), ReplicaError> {
        if self.fails {
            let source = "no space left on device".into();
            return Err(ReplicaError::Store { action: "write", source });
        }
        Ok(())
    }

    /// Writes `contents` out and takes the result if it is the server's.
    fn fold(&mut self, contents: &Contents, flush: FlushPoint) -> Fold {
        let Some(shape) = self.shape.as_ref().filter(|_| !self.folds_differ) else {
            return Fold::Different;
        };
        let written = write(contents, &flush.at, shape);
        if flush_point(flush.at, &written) != flush {
            return Fold::Different;
        }
        self.blocks.extend(written.blocks);
        self.rebase(flush);
        Fold::Equal
    }

    /// Whether the commits that are here lead through this one.
    fn passes(&self, at: &Point) -> Result<(), ReplicaError> {
        let known = self.head.filter(|head| head.at.seq >= at.seq).and_then(|head| {
            let tail = self.tail.iter().map(|(at, _)| *at);
            tail.chain([head.flush.at]).find(|known| known.seq == at.seq)
        });
        match known {
            Some(known) if known != *at => Err(ReplicaError::Diverged { seq: at.seq }),
            _ => Ok(()),
        }
    }

    fn rebase(&mut self, flush: FlushPoint) {
        let forgets = self.forgets;
        self.tail.retain(|(at, _)| at.seq > flush.at.seq && !forgets);
        if let Some(head) = &mut self.head {
            head.flush = flush;
        }
    }
}

#[cfg_attr(not(target_family = "wasm"), async_trait)]
#[cfg_attr(target_family = "wasm", async_trait(?Send))]
impl Replica for ModelReplica {
    async fn have(&self) -> Result<Have, ReplicaError> {
        let disk = lock(&self.disk);
        Ok(Have {
            identity: disk.identity,
            shape: disk.shape.clone(),
            head: disk.head,
            partial: disk.partial.as_ref().map(|(partial, ..)| *partial),
        })
    }

    async fn append(&self, first: u64, entries: Vec<Bytes>) -> Result<Point, ReplicaError> {
        let mut disk = lock(&self.disk);
        if disk.head.is_none_or(|head| head.at.seq + 1 != first) {
            return Err(ReplicaError::Diverged { seq: first });
        }
        disk.apply_all(entries)
    }

    async fn apply_batch(&self, to: Point, bytes: Bytes) -> Result<(), ReplicaError> {
        let malformed =
            || ReplicaError::Malformed { what: "batch", reason: "it is cut off".to_owned() };
        let entries = read_batch(&bytes).ok_or_else(malformed)?;
        let mut disk = lock(&self.disk);
        let mut at = disk.head.map(|head| head.at).ok_or(ReplicaError::Diverged { seq: 0 })?;
        for entry in &entries {
            at = Point { seq: at.seq + 1, commit: commit_id(&at.commit, entry) };
        }
        if at != to {
            return Err(ReplicaError::Diverged { seq: at.seq });
        }
        disk.apply_all(entries).map(drop)
    }

    async fn save(&self) -> Result<(), ReplicaError> {
        Ok(())
    }

    async fn apply_difference(&self, to: FlushPoint, bytes: Bytes) -> Result<Fold, ReplicaError> {
        let mut disk = lock(&self.disk);
        disk.writable()?;
        let head = disk.head.ok_or(ReplicaError::Diverged { seq: 0 })?;
        let sets =
            read_difference(&head.at, &bytes).ok_or(ReplicaError::Diverged { seq: head.at.seq })?;
        let Some(mut contents) = disk.contents(&head, head.at.seq) else {
            return Ok(Fold::Different);
        };
        contents.extend(sets);
        let fold = disk.fold(&contents, to);
        if fold == Fold::Equal {
            disk.head = Some(Head { at: to.at, flush: to });
            disk.seen.push(Seen::Jump(to.at));
        }
        Ok(fold)
    }

    async fn fold(&self, flush: FlushPoint) -> Result<Fold, ReplicaError> {
        let mut disk = lock(&self.disk);
        disk.writable()?;
        let head = disk.head.ok_or(ReplicaError::Diverged { seq: 0 })?;
        disk.passes(&flush.at)?;
        let Some(contents) = disk.contents(&head, flush.at.seq) else {
            return Ok(Fold::Different);
        };
        Ok(disk.fold(&contents, flush))
    }

    async fn begin(
        &self,
        identity: Identity,
        shape: Shape,
        flush: FlushPoint,
    ) -> Result<(), ReplicaError> {
        let mut disk = lock(&self.disk);
        disk.writable()?;
        if disk.partial.as_ref().is_none_or(|(partial, ..)| partial.flush != flush.address) {
            let partial = Partial { flush: flush.address, seeds: 0 };
            disk.partial = Some((partial, identity, shape));
        }
        Ok(())
    }

    fn verify(&self, expected: &Address, bytes: &[u8]) -> bool {
        address(bytes) == *expected
    }

    async fn block(&self, address: &Address) -> Result<Option<Bytes>, ReplicaError> {
        Ok(lock(&self.disk).blocks.get(address).cloned())
    }

    async fn put(
        &self,
        blocks: Vec<(Address, Bytes)>,
        seeds: Option<u64>,
    ) -> Result<(), ReplicaError> {
        let mut disk = lock(&self.disk);
        disk.writable()?;
        disk.blocks.extend(blocks);
        if let Some((seeds, (partial, ..))) = seeds.zip(disk.partial.as_mut()) {
            partial.seeds = seeds;
        }
        Ok(())
    }

    async fn lacks(&self, addresses: Vec<Address>) -> Result<Vec<Address>, ReplicaError> {
        let disk = lock(&self.disk);
        Ok(addresses.into_iter().filter(|address| !disk.blocks.contains_key(address)).collect())
    }

    async fn derive(&self, flush: FlushPoint) -> Result<Derived, ReplicaError> {
        let mut disk = lock(&self.disk);
        disk.writable()?;
        let missing = |address| Ok(Derived::Missing(vec![address]));
        let malformed =
            || ReplicaError::Malformed { what: "snapshot", reason: "wrong kind".to_owned() };
        let Some(record) = disk.blocks.get(&flush.address) else { return missing(flush.address) };
        let (branch, inverted) = read_record(record).ok_or_else(malformed)?;
        if disk.lazy {
            return Ok(Derived::Complete);
        }
        let Some(leaves) = disk.blocks.get(&branch) else { return missing(branch) };
        let leaves = read_branch(leaves).ok_or_else(malformed)?;
        let lacking: Vec<Address> =
            leaves.iter().copied().filter(|leaf| !disk.blocks.contains_key(leaf)).collect();
        if !lacking.is_empty() {
            return Ok(Derived::Missing(lacking));
        }
        if !disk.blocks.contains_key(&inverted) {
            let coming = disk.partial.as_ref().map(|(.., shape)| shape.clone());
            let shape = coming.or_else(|| disk.shape.clone()).ok_or_else(malformed)?;
            let mut contents = Contents::new();
            for leaf in leaves {
                let leaf = disk.blocks.get(&leaf).and_then(|leaf| read_leaf(leaf, &shape));
                contents.extend(leaf.ok_or_else(malformed)?);
            }
            let written = write(&contents, &flush.at, &shape);
            let Some(block) = written.blocks.get(&inverted) else { return missing(inverted) };
            disk.blocks.insert(inverted, block.clone());
        }
        Ok(Derived::Complete)
    }

    async fn adopt(&self, flush: FlushPoint) -> Result<Head, ReplicaError> {
        let mut disk = lock(&self.disk);
        disk.writable()?;
        disk.passes(&flush.at)?;
        if let Some((_, identity, shape)) = disk.partial.take() {
            disk.identity = Some(identity);
            disk.shape = Some(shape);
        }
        match disk.head.filter(|head| head.at.seq >= flush.at.seq) {
            Some(_) => disk.rebase(flush),
            None => {
                disk.tail.clear();
                disk.head = Some(Head { at: flush.at, flush });
                disk.seen.push(Seen::Jump(flush.at));
            }
        }
        disk.head.ok_or(ReplicaError::Diverged { seq: 0 })
    }

    async fn reset(&self, reason: Reset) -> Result<(), ReplicaError> {
        let mut disk = lock(&self.disk);
        if disk.keeps {
            return Err(ReplicaError::Refused(reason));
        }
        disk.writable()?;
        disk.identity = None;
        disk.shape = None;
        disk.head = None;
        disk.partial = None;
        disk.tail.clear();
        disk.seen.push(Seen::Reset(reason));
        Ok(())
    }
}
