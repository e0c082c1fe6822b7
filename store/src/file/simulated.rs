//! A disk in memory that can fail, and can lose power.
//!
//! It knows what every file and folder would hold after a power loss: what was synced, and of the
//! rest as little or as much as a seed says, torn at sectors. It also has lies to tell
//! ([`Lie`]), so that a test can show that it would notice.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::vfs::{Lock, Vfs, VfsFile};

const SECTOR: usize = 512;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Creating or writing finds the disk full; nothing is written.
    Full,
    /// A write fails.
    Write,
    /// A write fails after half of its bytes.
    ShortWrite,
    /// A sync of a file fails, and its unsynced bytes will never be durable, though they can be
    /// read until power is lost.
    Sync,
    /// A sync of a folder fails.
    SyncDir,
    /// This and everything after it fails, as if the process had died.
    Stop,
}

/// What the disk says it did and did not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Syncing a file does nothing.
    FileSync,
    /// Syncing a folder does nothing.
    DirSync,
}

/// The disk. Clones are the same disk.
#[derive(Clone, Debug, Default)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<Contents>,
    names: BTreeMap<PathBuf, Node>,
    durable_names: BTreeMap<PathBuf, Node>,
    /// By folder, in the order in which they were made.
    pending_names: Vec<(PathBuf, Vec<Naming>)>,
    locks: BTreeSet<PathBuf>,
    operations: u64,
    fault: Option<(u64, Fault)>,
    stopped: bool,
    lie: Option<Lie>,
}

/// A name that comes to mean something else, or nothing.
type Naming = (PathBuf, Option<Node>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Folder,
    File(usize),
}

#[derive(Debug, Default)]
struct Contents {
    now: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Name,
    Write,
    Sync,
    SyncDir,
}

impl SimulatedDisk {
    /// An empty disk that does what it says.
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty disk that lies.
    pub fn lying(lie: Lie) -> Self {
        let disk = Self::default();
        disk.state.lock().lie = Some(lie);
        disk
    }

    /// Changing operations so far: creating, writing, syncing, renaming, removing.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Lets the first operation that can fail so fail, once operation number `at` is reached.
    pub fn fail(&self, at: u64, fault: Fault) {
        self.state.lock().fault = Some((at, fault));
    }

    /// Whether the fault asked for has happened.
    pub fn failed(&self) -> bool {
        let state = self.state.lock();
        state.stopped || state.fault.is_none()
    }

    /// The disk after a power loss now. Of what was not synced, writes survive whole, in part or
    /// not at all and names in the order they were made, as `seed` says.
    pub fn after_power_loss(&self, seed: u64) -> Self {
        let state = self.state.lock();
        let mut random = Random(seed);
        let mut names = state.durable_names.clone();
        for (_, operations) in &state.pending_names {
            let kept = random.below(operations.len() + 1);
            for (path, node) in operations.iter().take(kept) {
                set(&mut names, path, *node);
            }
        }
        // A file whose folder is not there is not there.
        let reachable = |path: &Path| {
            let mut above = path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty());
            above.all(|folder| folder == Path::new("/") || names.get(folder) == Some(&Node::Folder))
        };
        let names: BTreeMap<_, _> =
            names.iter().filter(|(p, _)| reachable(p)).map(|(p, n)| (p.clone(), *n)).collect();
        let files = state.files.iter().map(|file| file.after_power_loss(&mut random)).collect();
        let durable_names = names.clone();
        Self {
            state: Arc::new(Mutex::new(State { files, names, durable_names, ..State::default() })),
        }
    }

    /// The disk as another process finds it after this one died: nothing lost, no locks.
    pub fn after_kill(&self) -> Self {
        let state = self.state.lock();
        let files = state.files.iter().map(Contents::copy).collect();
        let (names, durable_names) = (state.names.clone(), state.durable_names.clone());
        let pending_names = state.pending_names.clone();
        let state = State { files, names, durable_names, pending_names, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Paths of all files, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        let state = self.state.lock();
        let files = state.names.iter().filter(|(_, node)| matches!(node, Node::File(_)));
        files.map(|(path, _)| path.clone()).collect()
    }

    /// The bytes of a file, empty if there is none.
    pub fn read(&self, path: &Path) -> Vec<u8> {
        let state = self.state.lock();
        match state.names.get(path) {
            Some(Node::File(file)) => {
                state.files.get(*file).map(|file| file.now.clone()).unwrap_or_default()
            }
            _ => Vec::new(),
        }
    }

    /// Replaces the bytes of a file, durably, as damage does.
    pub fn damage(&self, path: &Path, bytes: Vec<u8>) {
        let mut state = self.state.lock();
        if let Some(Node::File(file)) = state.names.get(path).copied()
            && let Some(file) = state.files.get_mut(file)
        {
            *file = Contents { durable: bytes.clone(), now: bytes, pending: Vec::new() };
        }
    }
}

fn set(names: &mut BTreeMap<PathBuf, Node>, path: &Path, node: Option<Node>) {
    match node {
        Some(node) => names.insert(path.to_owned(), node),
        None => names.remove(path),
    };
}

impl Contents {
    fn copy(&self) -> Self {
        let pending = self.pending.clone();
        Self { now: self.now.clone(), durable: self.durable.clone(), pending }
    }

    fn sync(&mut self) {
        for (offset, bytes) in self.pending.drain(..) {
            write(&mut self.durable, offset, &bytes);
        }
    }

    fn after_power_loss(&self, random: &mut Random) -> Self {
        let mut now = self.durable.clone();
        // None, all, or each sector for itself.
        let mode = random.below(3);
        for (offset, bytes) in &self.pending {
            let mut at = *offset;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (sector, more) = rest.split_at((SECTOR - at % SECTOR).min(rest.len()));
                if mode == 1 || (mode == 2 && random.below(2) == 0) {
                    write(&mut now, at, sector);
                }
                at += sector.len();
                rest = more;
            }
        }
        Self { durable: now.clone(), now, pending: Vec::new() }
    }
}

fn write(contents: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if contents.len() < end {
        contents.resize(end, 0);
    }
    if let Some(cell) = contents.get_mut(offset..end) {
        cell.copy_from_slice(bytes);
    }
}

impl State {
    fn begin(&mut self, kind: Kind) -> io::Result<Option<Fault>> {
        if self.stopped {
            return Err(io::Error::other("the process has died"));
        }
        let number = self.operations;
        self.operations += 1;
        let Some((at, fault)) = self.fault else { return Ok(None) };
        let applies = match fault {
            Fault::Full => matches!(kind, Kind::Write),
            Fault::Write | Fault::ShortWrite => kind == Kind::Write,
            Fault::Sync => kind == Kind::Sync,
            Fault::SyncDir => kind == Kind::SyncDir,
            Fault::Stop => true,
        };
        if number < at || !applies {
            return Ok(None);
        }
        self.fault = None;
        match fault {
            Fault::Full => Err(io::ErrorKind::StorageFull.into()),
            Fault::Write => Err(io::Error::from_raw_os_error(5)),
            Fault::Stop => {
                self.stopped = true;
                Err(io::Error::other("the process dies"))
            }
            later => Ok(Some(later)),
        }
    }

    fn name(&mut self, dir: &Path, changes: Vec<Naming>) {
        for (path, node) in &changes {
            set(&mut self.names, path, *node);
        }
        let known = self.pending_names.iter_mut().find(|(known, _)| known == dir);
        match known {
            Some((_, pending)) => pending.extend(changes),
            None => self.pending_names.push((dir.to_owned(), changes)),
        }
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.names.get(path) {
            Some(Node::File(file)) => Ok(*file),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new(""))
}

impl Vfs for SimulatedDisk {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let file = self.state.lock().file(path)?;
        Ok(Arc::new(SimulatedFile { state: Arc::clone(&self.state), file }))
    }

    fn open_write(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        self.open(path)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn VfsFile>> {
        let mut state = self.state.lock();
        state.begin(Kind::Name)?;
        let file = state.files.len();
        state.files.push(Contents::default());
        state.name(parent(path), vec![(path.to_owned(), Some(Node::File(file)))]);
        Ok(Arc::new(SimulatedFile { state: Arc::clone(&self.state), file }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(Kind::Name)?;
        let file = Node::File(state.file(from)?);
        // Never half a rename: both names change together.
        state.name(parent(to), vec![(to.to_owned(), Some(file)), (from.to_owned(), None)]);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(Kind::Name)?;
        state.file(path)?;
        state.name(parent(path), vec![(path.to_owned(), None)]);
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let state = self.state.lock();
        if state.names.get(dir) != Some(&Node::Folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = state.names.keys().filter(|path| path.parent() == Some(dir));
        Ok(inside.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect())
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.begin(Kind::Name)?;
        if !state.names.contains_key(dir) {
            state.name(parent(dir), vec![(dir.to_owned(), Some(Node::Folder))]);
        }
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let fault = state.begin(Kind::SyncDir)?;
        if fault == Some(Fault::SyncDir) {
            return Err(io::Error::from_raw_os_error(5));
        }
        if state.lie != Some(Lie::DirSync)
            && let Some(at) = state.pending_names.iter().position(|(known, _)| known == dir)
        {
            for (path, node) in state.pending_names.remove(at).1 {
                set(&mut state.durable_names, &path, node);
            }
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.state.lock().names.contains_key(path))
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        if !self.state.lock().locks.insert(path.to_owned()) {
            return Ok(Lock::Busy(None));
        }
        Ok(Lock::Held(Box::new(Held { state: Arc::clone(&self.state), path: path.to_owned() })))
    }
}

#[derive(Debug)]
struct Held {
    state: Arc<Mutex<State>>,
    path: PathBuf,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.state.lock().locks.remove(&self.path);
    }
}

#[derive(Debug)]
struct SimulatedFile {
    state: Arc<Mutex<State>>,
    file: usize,
}

impl VfsFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.state.lock();
        let bytes = state.files.get(self.file).and_then(|file| file.now.get(offset as usize..));
        let bytes = bytes.unwrap_or_default();
        let length = bytes.len().min(buffer.len());
        buffer[..length].copy_from_slice(&bytes[..length]);
        Ok(length)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state.lock();
        let fault = state.begin(Kind::Write)?;
        let offset = offset as usize;
        let short = fault == Some(Fault::ShortWrite);
        let written = if short { &bytes[..bytes.len() / 2] } else { bytes };
        let Some(file) = state.files.get_mut(self.file) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        write(&mut file.now, offset, written);
        file.pending.push((offset, written.to_vec()));
        if short { Err(io::ErrorKind::StorageFull.into()) } else { Ok(bytes.len()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        let fault = state.begin(Kind::Sync)?;
        let lie = state.lie;
        let Some(file) = state.files.get_mut(self.file) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        if fault == Some(Fault::Sync) {
            // The kernel calls the pages clean all the same.
            file.pending.clear();
            return Err(io::Error::from_raw_os_error(5));
        }
        if lie != Some(Lie::FileSync) {
            file.sync();
        }
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.state.lock();
        Ok(state.files.get(self.file).map_or(0, |file| file.now.len() as u64))
    }
}

/// Splitmix64: a seed is all a failing run needs to be run again.
#[derive(Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}
