//! All packs of a store: which block lies where, writing, merging and collecting.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Bound;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock, RwLockReadGuard};

use super::medium::{Medium, failed, is_gone};
use super::pack::{Pack, PackWriter, Place};
use crate::{Address, BlockInfo, Mark, Reclaimed, StoreError};

/// More packs than this are merged: each is an open file, and an index to read at open.
const PACKS_MAX: usize = 48;
/// A merged pack is closed at this size and another begun.
const PACK_BYTES: u64 = 1 << 30;
/// Packs that a reader keeps open after the writer removed them.
const RETIRED_MAX: usize = 64;
/// How often a reader looks again when files vanish while it looks.
const RESCANS_MAX: usize = 16;
/// Blocks that are looked for in parts of indexes before the indexes are read.
const GUESSES_MAX: usize = 64;

/// The blocks of a file store.
#[derive(Debug)]
pub(super) struct Packs {
    medium: Arc<Medium>,
    dir: PathBuf,
    state: RwLock<State>,
    /// Held by whoever changes the files, so that "is there already" stays true until it is used.
    writer: Mutex<()>,
    /// Looks into the indexes of packs that are unread.
    guesses: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<u64, Arc<Pack>>,
    /// Files that are gone from the folder, oldest first; only a reader has any.
    retired: BTreeSet<u64>,
    /// The blocks of all packs but the unread.
    blocks: BTreeMap<Address, Location>,
    /// Packs whose index was not read yet: whoever wants a few blocks needs a part of it.
    unread: BTreeSet<u64>,
    clock: u64,
    next: u64,
}

#[derive(Clone, Copy, Debug)]
struct Location {
    pack: u64,
    offset: u64,
    stored: u32,
    raw: u32,
    put: u64,
}

impl Location {
    fn place(&self, address: Address) -> Place {
        Place { address, offset: self.offset, stored: self.stored, raw: self.raw }
    }
}

impl State {
    fn add(&mut self, pack: Pack, places: &[Place], put: Option<u64>) {
        let number = pack.number;
        self.open(pack);
        self.insert(number, places, put);
    }

    fn open(&mut self, pack: Pack) {
        self.next = self.next.max(pack.number + 1);
        self.files.insert(pack.number, Arc::new(pack));
    }

    fn insert(&mut self, pack: u64, places: &[Place], put: Option<u64>) {
        let location = |place: &Place, put| Location {
            pack,
            offset: place.offset,
            stored: place.stored,
            raw: place.raw,
            put,
        };
        if self.blocks.is_empty() {
            let put = put.unwrap_or(0);
            self.blocks =
                places.iter().map(|place| (place.address, location(place, put))).collect();
            return;
        }
        for place in places {
            // What moves from pack to pack keeps the time it was put.
            let old = self.blocks.get(&place.address).map_or(0, |location| location.put);
            self.blocks.insert(place.address, location(place, put.unwrap_or(old)));
        }
    }

    /// Reads the indexes that were not read yet.
    fn read_indexes(&mut self) -> Result<(), StoreError> {
        while let Some(number) = self.unread.first().copied() {
            if let Some(pack) = self.files.get(&number).cloned() {
                self.insert(number, &pack.places()?, None);
            }
            self.unread.remove(&number);
        }
        Ok(())
    }

    /// Keeps files that lost their name for the blocks that are nowhere else.
    fn retire(&mut self, gone: impl Iterator<Item = u64>) {
        let before = self.retired.len();
        self.retired.extend(gone);
        if self.retired.len() == before {
            return;
        }
        let used: HashSet<u64> = self.blocks.values().map(|location| location.pack).collect();
        let files = &mut self.files;
        self.retired.retain(|number| used.contains(number) || files.remove(number).is_none());
        while self.retired.len() > RETIRED_MAX {
            let Some(oldest) = self.retired.pop_first() else { break };
            self.files.remove(&oldest);
            self.blocks.retain(|_, location| location.pack != oldest);
        }
    }

    fn find(&self, address: &Address) -> Option<(Arc<Pack>, Place)> {
        let location = self.blocks.get(address)?;
        Some((Arc::clone(self.files.get(&location.pack)?), location.place(*address)))
    }
}

impl Packs {
    /// Opens all packs in the folder.
    pub(super) fn open(medium: Arc<Medium>, dir: PathBuf) -> Result<Self, StoreError> {
        let (state, guesses) = (RwLock::default(), AtomicUsize::new(0));
        let packs = Self { medium, dir, state, writer: Mutex::new(()), guesses };
        packs.rescan()?;
        Ok(packs)
    }

    /// Removes what an interrupted write left behind. For the writer, at open.
    pub(super) fn clean(&self) -> Result<(), StoreError> {
        let _writer = self.writer.lock();
        for name in self.names()? {
            if name.ends_with(".tmp") {
                self.medium.discard(&self.dir.join(name));
            }
        }
        // A pack found here may have its name from a process that died before it was durable.
        self.medium.sync_dir(&self.dir)?;
        let mut state = self.state.write();
        state.read_indexes()?;
        let used: HashSet<u64> = state.blocks.values().map(|location| location.pack).collect();
        state.files.retain(|number, pack| {
            let keep = used.contains(number);
            if !keep {
                self.medium.discard(&pack.path);
            }
            keep
        });
        Ok(())
    }

    pub(super) fn get(&self, address: &Address) -> Result<Option<Bytes>, StoreError> {
        let (found, unread) = {
            let state = self.state.read();
            let found = state.find(address);
            let unread: Vec<Arc<Pack>> = match found {
                Some(_) => Vec::new(),
                None => {
                    state.unread.iter().rev().filter_map(|n| state.files.get(n)).cloned().collect()
                }
            };
            (found, unread)
        };
        if let Some((pack, place)) = found {
            return pack.block(&place).map(Some);
        }
        if unread.is_empty() {
            return Ok(None);
        }
        if self.guesses.fetch_add(1, Ordering::Relaxed) < GUESSES_MAX {
            for pack in unread {
                if let Some(place) = pack.guess(address)? {
                    return pack.block(&place).map(Some);
                }
            }
        }
        match self.indexed()?.find(address) {
            Some((pack, place)) => pack.block(&place).map(Some),
            None => Ok(None),
        }
    }

    pub(super) fn contains(&self, addresses: &[Address]) -> Result<Vec<bool>, StoreError> {
        let state = self.indexed()?;
        Ok(addresses.iter().map(|address| state.blocks.contains_key(address)).collect())
    }

    /// The state, with all blocks of all packs.
    fn indexed(&self) -> Result<RwLockReadGuard<'_, State>, StoreError> {
        loop {
            let state = self.state.read();
            if state.unread.is_empty() {
                return Ok(state);
            }
            drop(state);
            self.state.write().read_indexes()?;
        }
    }

    /// Takes in packs that a writer in another process made, and lets go of none that were known:
    /// an open file stays readable after its name is gone, and with it the snapshots read so far.
    pub(super) fn rescan(&self) -> Result<(), StoreError> {
        let _writer = self.writer.lock();
        for _ in 0..RESCANS_MAX {
            let known: BTreeSet<u64> = self.state.read().files.keys().copied().collect();
            let mut there = BTreeSet::new();
            for name in self.names()? {
                if let Some(number) = pack_number(&name) {
                    there.insert(number);
                }
            }
            let mut opened = Vec::new();
            let mut vanished = false;
            for number in there.difference(&known) {
                match Pack::open(&self.medium, self.path(*number), *number) {
                    Ok(pack) => opened.push(pack),
                    Err(error) if is_gone(&error) => vanished = true,
                    Err(error) => return Err(error),
                }
            }
            let mut state = self.state.write();
            for pack in opened {
                state.unread.insert(pack.number);
                state.open(pack);
            }
            if !known.is_subset(&there) {
                state.read_indexes()?;
                state.retire(known.difference(&there).copied());
            }
            if !vanished {
                break;
            }
        }
        Ok(())
    }

    /// Writes the blocks that are not there yet into a pack of their own.
    pub(super) fn put(&self, blocks: &[(Address, Bytes)]) -> Result<(), StoreError> {
        let _writer = self.writer.lock();
        self.medium.check()?;
        let fresh = self.touch(blocks)?;
        if !fresh.is_empty() {
            let (number, path) = self.next();
            let mut pack = PackWriter::create(&self.medium, &path)?;
            for (address, block) in fresh {
                pack.add(address, &block)?;
            }
            let (pack, places) = pack.finish(path, number)?;
            let mut state = self.state.write();
            let clock = state.clock;
            state.add(pack, &places, Some(clock));
        }
        self.merge()
    }

    /// Marks what is there as put now; the rest, each once.
    fn touch(&self, blocks: &[(Address, Bytes)]) -> Result<Vec<(Address, Bytes)>, StoreError> {
        let mut state = self.state.write();
        state.read_indexes()?;
        state.clock += 1;
        let clock = state.clock;
        let mut fresh = BTreeMap::new();
        for (address, block) in blocks {
            match state.blocks.get_mut(address) {
                Some(location) => location.put = clock,
                None => {
                    fresh.insert(*address, block.clone());
                }
            }
        }
        Ok(fresh.into_iter().collect())
    }

    /// Joins the smaller half of the packs when there are too many.
    fn merge(&self) -> Result<(), StoreError> {
        let mut packs: Vec<Arc<Pack>> = self.state.read().files.values().cloned().collect();
        if packs.len() <= PACKS_MAX {
            return Ok(());
        }
        packs.sort_by_key(|pack| pack.bytes);
        packs.truncate(PACKS_MAX / 2 + 1);
        match self.rewrite(&packs, &HashSet::new()) {
            // The blocks are stored; that they lie in many files can be mended later.
            Err(error) if self.medium.check().is_ok() => {
                tracing::warn!(%error, "cannot merge packs");
                Ok(())
            }
            rewritten => rewritten,
        }
    }

    /// Waits for a write that is under way.
    pub(super) fn settle(&self) {
        drop(self.writer.lock());
    }

    pub(super) fn mark(&self) -> Mark {
        Mark(self.state.read().clock)
    }

    pub(super) fn list(
        &self,
        after: Option<Address>,
        limit: usize,
    ) -> Result<Vec<BlockInfo>, StoreError> {
        let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
        let state = self.indexed()?;
        let page = state.blocks.range((lower, Bound::Unbounded)).take(limit);
        Ok(page.map(|(address, l)| BlockInfo { address: *address, bytes: l.raw.into() }).collect())
    }

    pub(super) fn collect(
        &self,
        garbage: &[Address],
        since: Mark,
    ) -> Result<Reclaimed, StoreError> {
        let _writer = self.writer.lock();
        self.medium.check()?;
        let (doomed, packs) = {
            let state = self.indexed()?;
            let mut doomed = HashSet::new();
            let mut packs = BTreeMap::new();
            for address in garbage {
                if let Some(location) = state.blocks.get(address)
                    && location.put <= since.0
                    && let Some(pack) = state.files.get(&location.pack)
                {
                    doomed.insert(*address);
                    packs.insert(location.pack, Arc::clone(pack));
                }
            }
            (doomed, packs.into_values().collect::<Vec<_>>())
        };
        if doomed.is_empty() {
            return Ok(Reclaimed::default());
        }
        let before = self.stored_bytes();
        self.rewrite(&packs, &doomed)?;
        let bytes = before.saturating_sub(self.stored_bytes());
        Ok(Reclaimed { blocks: doomed.len() as u64, bytes })
    }

    /// Copies what lives in these packs into new ones, without the doomed, then removes the old:
    /// in this order, so that neither a crash nor a reader ever finds a living block nowhere.
    fn rewrite(&self, old: &[Arc<Pack>], doomed: &HashSet<Address>) -> Result<(), StoreError> {
        let numbers: HashMap<u64, &Arc<Pack>> = old.iter().map(|p| (p.number, p)).collect();
        let mut living: Vec<(u64, Place)> = {
            let state = self.indexed()?;
            let inside = state.blocks.iter().filter(|(address, location)| {
                numbers.contains_key(&location.pack) && !doomed.contains(address)
            });
            inside.map(|(address, location)| (location.pack, location.place(*address))).collect()
        };
        living.sort_unstable_by_key(|(pack, place)| (*pack, place.offset));
        let mut finished = Vec::new();
        let mut open: Option<(PackWriter<'_>, u64, PathBuf)> = None;
        for (number, place) in &living {
            let Some(pack) = numbers.get(number) else { continue };
            let (mut writer, fresh, path) = match open.take() {
                Some(open) => open,
                None => {
                    let (fresh, path) = self.next();
                    (PackWriter::create(&self.medium, &path)?, fresh, path)
                }
            };
            writer.copy(pack, place)?;
            if writer.bytes() >= PACK_BYTES {
                finished.push(writer.finish(path, fresh)?);
            } else {
                open = Some((writer, fresh, path));
            }
        }
        if let Some((writer, fresh, path)) = open {
            finished.push(writer.finish(path, fresh)?);
        }
        let mut state = self.state.write();
        for (pack, places) in finished {
            state.add(pack, &places, None);
        }
        state.blocks.retain(|address, _| !doomed.contains(address));
        for pack in old {
            state.files.remove(&pack.number);
        }
        drop(state);
        if old.is_empty() {
            return Ok(());
        }
        for pack in old {
            self.medium.discard(&pack.path);
        }
        // What was collected must not be back after a power loss: it may have been purged.
        self.medium.sync_dir(&self.dir)
    }

    /// Blocks, their bytes uncompressed, bytes of the files, files.
    pub(super) fn sizes(&self) -> Result<(u64, u64, u64, u64), StoreError> {
        let state = self.indexed()?;
        let raw = state.blocks.values().map(|location| u64::from(location.raw)).sum();
        let living = state.files.iter().filter(|(number, _)| !state.retired.contains(number));
        let stored = living.clone().map(|(_, pack)| pack.bytes).sum();
        Ok((state.blocks.len() as u64, raw, stored, living.count() as u64))
    }

    fn stored_bytes(&self) -> u64 {
        self.state.read().files.values().map(|pack| pack.bytes).sum()
    }

    fn names(&self) -> Result<Vec<String>, StoreError> {
        self.medium.vfs.list(&self.dir).map_err(|error| failed("list", &self.dir, error))
    }

    fn next(&self) -> (u64, PathBuf) {
        let mut state = self.state.write();
        let number = state.next.max(1);
        state.next = number + 1;
        (number, self.path(number))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.dir.join(format!("{number:016x}.pack"))
    }
}

fn pack_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".pack").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok()
}
