//! A store in a folder: many readers in many processes, one writer.
//!
//! ```text
//! meta                       identity and format version
//! lock                       locked by the writer, holds its process id
//! packs/0000000000000001.pack    blocks, one file per write of blocks
//! logs/BRANCH/0000000000000001.log   log and head, in segments
//! ```
//! A commit without blocks is one write into prepared space and one `fdatasync`. Blocks go into a
//! pack that is durable, by content and by name, before the log frame that may name them is
//! written. Readers take no lock: they read on in the log, find new packs by their names, and keep
//! the packs they know open, so that nothing they have seen goes away while they look at it.
//!
//! A frame becomes visible to readers in other processes as it is written, an instant before it is
//! durable. The lock excludes writers of one machine; on a shared file system that does not carry
//! `flock`, see to it that there is one writer.

mod log;
mod medium;
mod meta;
mod pack;
mod packs;
mod segment;
#[cfg(feature = "conformance")]
pub mod simulated;
mod vfs;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

pub use vfs::{Disk, Lock, Vfs, VfsFile};

use crate::store::{check_blocks, check_branch};
use crate::{
    Address, Batch, BlockInfo, Capabilities, Expect, Head, Mark, Reclaimed, Store, StoreError,
    StoreIdentity, StoreStats,
};
use log::Log;
use medium::{Medium, failed, is_gone};
use packs::Packs;

/// How often a reader looks again when files vanish while it looks.
const RETRIES_MAX: usize = 16;

/// How a file store works. [`Default`] is right for nearly everyone.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// Size at which a log segment is closed and another begun, in bytes.
    pub segment_bytes: u64,
    /// The file system.
    pub vfs: Arc<dyn Vfs>,
}

impl Default for FileOptions {
    fn default() -> Self {
        Self { segment_bytes: 4 << 20, vfs: Arc::new(Disk) }
    }
}

/// A store in a folder. See the [module documentation](self).
///
/// Opening reads the newest log segment of a branch, and for a writer the index of every pack, on
/// the calling thread. Cloning gives another handle to the same open store; the lock is given up with
/// [`close`](Store::close) or the last handle.
#[derive(Clone)]
pub struct FileStore {
    inner: Arc<Inner>,
}

struct Inner {
    path: PathBuf,
    options: FileOptions,
    medium: Arc<Medium>,
    identity: Mutex<StoreIdentity>,
    /// `None` in a read-only store, and after closing.
    lock: Mutex<Option<Lock>>,
    writable: bool,
    packs: Packs,
    logs: Mutex<BTreeMap<String, Arc<Log>>>,
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.inner;
        f.debug_struct("FileStore")
            .field("path", &inner.path)
            .field("writable", &inner.writable)
            .finish_non_exhaustive()
    }
}

impl FileStore {
    /// Makes an empty store in a folder and opens it for writing. The folder may exist, its parent
    /// must.
    ///
    /// # Errors
    /// [`StoreError::Exists`] if there is a store; [`StoreError::Locked`].
    pub fn create(path: impl AsRef<Path>, options: FileOptions) -> Result<Self, StoreError> {
        Self::create_as(path, StoreIdentity::random(), options)
    }

    /// [`create`](Self::create) with a given identity, as a mirror has the id of its origin.
    ///
    /// # Errors
    /// As [`create`](Self::create).
    pub fn create_as(
        path: impl AsRef<Path>,
        identity: StoreIdentity,
        options: FileOptions,
    ) -> Result<Self, StoreError> {
        let path = path.as_ref();
        if Self::exists(path, &options)? {
            return Err(StoreError::Exists { path: path.to_owned() });
        }
        let vfs = Arc::clone(&options.vfs);
        let medium = Arc::new(Medium::new(Arc::clone(&vfs)));
        let make = |dir: &Path| -> Result<(), StoreError> {
            vfs.create_dir(dir).map_err(|error| failed("create folder", dir, error))
        };
        make(path)?;
        let lock = lock(&options, path)?;
        make(&path.join("packs"))?;
        make(&path.join("logs"))?;
        // The folder is a store once this file is there, so it comes last.
        let meta = path.join("meta");
        if vfs.exists(&meta).map_err(|error| failed("look for", &meta, error))? {
            return Err(StoreError::Exists { path: path.to_owned() });
        }
        meta::write(&medium, &meta, identity)?;
        Self::load(path, options, medium, Some(lock))
    }

    /// Opens a store for writing: locks it, cuts off what an interrupted write left, and makes sure
    /// that what it found is durable.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Locked`], [`StoreError::Corrupt`],
    /// [`StoreError::Version`].
    pub fn open(path: impl AsRef<Path>, options: FileOptions) -> Result<Self, StoreError> {
        let path = path.as_ref();
        if !Self::exists(path, &options)? {
            return Err(StoreError::NotFound { path: path.to_owned() });
        }
        let lock = lock(&options, path)?;
        let medium = Arc::new(Medium::new(Arc::clone(&options.vfs)));
        Self::load(path, options, medium, Some(lock))
    }

    /// Opens a store for reading, without a lock, whether or not someone writes to it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], [`StoreError::Corrupt`], [`StoreError::Version`].
    pub fn open_read_only(
        path: impl AsRef<Path>,
        options: FileOptions,
    ) -> Result<Self, StoreError> {
        let path = path.as_ref();
        if !Self::exists(path, &options)? {
            return Err(StoreError::NotFound { path: path.to_owned() });
        }
        let medium = Arc::new(Medium::new(Arc::clone(&options.vfs)));
        Self::load(path, options, medium, None)
    }

    /// Whether there is a store in this folder.
    ///
    /// # Errors
    /// [`StoreError::Io`] when it cannot be told.
    pub fn exists(path: impl AsRef<Path>, options: &FileOptions) -> Result<bool, StoreError> {
        let meta = path.as_ref().join("meta");
        options.vfs.exists(&meta).map_err(|error| failed("look for", &meta, error))
    }

    /// Removes the store in a folder on the real file system, with the folder.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Locked`] while someone writes to it.
    pub fn destroy(path: impl AsRef<Path>) -> Result<(), StoreError> {
        let path = path.as_ref();
        let options = FileOptions::default();
        if !Self::exists(path, &options)? {
            return Err(StoreError::NotFound { path: path.to_owned() });
        }
        let _lock = lock(&options, path)?;
        let meta = path.join("meta");
        // Without this file it is no store any more, however far the rest gets.
        options.vfs.remove(&meta).map_err(|error| failed("remove", &meta, error))?;
        std::fs::remove_dir_all(path).map_err(|error| failed("remove", path, error))
    }

    /// Gives the store a new epoch, durably: for whoever brought its files back to an older state.
    ///
    /// # Errors
    /// [`StoreError::ReadOnly`], [`StoreError::Closed`], and what the medium says.
    pub fn renew_epoch(&self) -> Result<StoreIdentity, StoreError> {
        self.inner.check_writable()?;
        let mut identity = self.inner.identity.lock();
        let renewed = StoreIdentity { epoch: StoreIdentity::random().epoch, ..*identity };
        meta::write(&self.inner.medium, &self.inner.path.join("meta"), renewed)?;
        *identity = renewed;
        Ok(renewed)
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    fn load(
        path: &Path,
        options: FileOptions,
        medium: Arc<Medium>,
        lock: Option<Lock>,
    ) -> Result<Self, StoreError> {
        let identity = meta::read(&medium, &path.join("meta"))?;
        let writable = lock.is_some();
        let packs = Packs::open(Arc::clone(&medium), path.join("packs"))?;
        let inner = Inner {
            path: path.to_owned(),
            options,
            medium,
            identity: Mutex::new(identity),
            lock: Mutex::new(lock),
            writable,
            packs,
            logs: Mutex::default(),
        };
        if writable {
            // Whoever made what is here may have died before its names were durable.
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            let parent = parent.unwrap_or(Path::new("."));
            match inner.options.vfs.sync_dir(parent) {
                // A folder that this user may not list was not made by this user's process either.
                Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {}
                synced => {
                    synced.map_err(|error| inner.medium.poison("sync folder", parent, &error))?;
                }
            }
            inner.medium.sync_dir(path)?;
            inner.packs.clean()?;
            inner.medium.sync_dir(&path.join("logs"))?;
            for name in inner.branch_names()? {
                inner.log(&name)?;
            }
        }
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Runs what may wait for the disk where it holds nobody up.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = Arc::clone(&self.inner);
        // Outside of a runtime nobody is held up.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return work(&inner) };
        match runtime.spawn_blocking(move || work(&inner)).await {
            Ok(done) => done,
            Err(error) => Err(failed("finish work on", &self.inner.path, error.into())),
        }
    }
}

/// Takes the writer's lock of the store in this folder.
fn lock(options: &FileOptions, path: &Path) -> Result<Lock, StoreError> {
    let file = path.join("lock");
    match options.vfs.lock(&file).map_err(|error| failed("lock", &file, error))? {
        Lock::Busy(pid) => Err(StoreError::Locked { path: path.to_owned(), pid }),
        held => Ok(held),
    }
}

impl Inner {
    fn check(&self) -> Result<(), StoreError> {
        self.medium.check_open()
    }

    fn check_writable(&self) -> Result<(), StoreError> {
        self.check()?;
        if self.writable { self.medium.check() } else { Err(StoreError::ReadOnly) }
    }

    fn log_dir(&self, branch: &str) -> PathBuf {
        self.path.join("logs").join(folder_name(branch))
    }

    /// The log of a branch, opened on first use; `None` if there is none.
    fn log(&self, branch: &str) -> Result<Option<Arc<Log>>, StoreError> {
        let mut logs = self.logs.lock();
        if let Some(log) = logs.get(branch) {
            return Ok(Some(Arc::clone(log)));
        }
        let dir = self.log_dir(branch);
        for attempt in 1.. {
            let opened = Log::open(
                Arc::clone(&self.medium),
                dir.clone(),
                branch,
                self.options.segment_bytes,
                self.writable,
            );
            let log = match opened {
                Ok(Some(log)) => Arc::new(log),
                Ok(None) => return Ok(None),
                // There is no such branch, or a segment vanished while a reader looked at it.
                Err(error) if is_gone(&error) => {
                    let there = self.medium.vfs.exists(&dir);
                    if !there.map_err(|error| failed("look for", &dir, error))? {
                        return Ok(None);
                    }
                    if attempt < RETRIES_MAX {
                        continue;
                    }
                    return Err(error);
                }
                Err(error) => return Err(error),
            };
            logs.insert(branch.to_owned(), Arc::clone(&log));
            return Ok(Some(log));
        }
        Ok(None)
    }

    fn branch_names(&self) -> Result<Vec<String>, StoreError> {
        let dir = self.path.join("logs");
        let names = self.medium.vfs.list(&dir).map_err(|error| failed("list", &dir, error))?;
        let mut branches: Vec<String> = names.iter().filter_map(|name| branch_name(name)).collect();
        branches.sort();
        Ok(branches)
    }

    fn head(&self, branch: &str) -> Result<Option<Head>, StoreError> {
        self.check()?;
        check_branch(branch)?;
        let Some(log) = self.log(branch)? else { return Ok(None) };
        if self.writable {
            return Ok(log.head());
        }
        let before = log.head();
        log.refresh()?;
        let head = log.head();
        // A new record may name new blocks. Their files are opened here and now, so that they stay
        // readable even if the writer collects them next.
        if before.map(|head| head.record) != head.as_ref().map(|head| head.record.clone()) {
            self.packs.rescan()?;
        }
        Ok(head)
    }

    fn get(&self, address: &Address) -> Result<Option<Bytes>, StoreError> {
        self.check()?;
        match self.packs.get(address)? {
            None if !self.writable => {
                self.packs.rescan()?;
                self.packs.get(address)
            }
            found => Ok(found),
        }
    }

    fn contains(&self, addresses: &[Address]) -> Result<Vec<bool>, StoreError> {
        self.check()?;
        let there = self.packs.contains(addresses)?;
        if self.writable || there.iter().all(|there| *there) {
            return Ok(there);
        }
        self.packs.rescan()?;
        self.packs.contains(addresses)
    }

    fn commit(&self, batch: &Batch) -> Result<Head, StoreError> {
        batch.check()?;
        self.check_writable()?;
        let log = self.log(&batch.branch)?;
        // Looked at again under the writer's lock; here it saves writing blocks in vain.
        match &log {
            Some(log) => log.check(batch.expect)?,
            None if batch.expect.holds(None) => {}
            None => {
                let branch = batch.branch.clone();
                return Err(StoreError::Conflict { branch, expected: batch.expect, found: None });
            }
        }
        if !batch.blocks.is_empty() {
            self.packs.put(&batch.blocks)?;
        }
        let log = match log {
            Some(log) => log,
            None => self.create_log(&batch.branch)?,
        };
        log.append(batch)
    }

    fn create_log(&self, branch: &str) -> Result<Arc<Log>, StoreError> {
        let mut logs = self.logs.lock();
        if let Some(log) = logs.get(branch) {
            return Ok(Arc::clone(log));
        }
        let dir = self.log_dir(branch);
        let medium = Arc::clone(&self.medium);
        let log = Arc::new(Log::create(medium, dir, branch, self.options.segment_bytes)?);
        logs.insert(branch.to_owned(), Arc::clone(&log));
        Ok(log)
    }

    fn entries(&self, branch: &str, from: u64, max_bytes: usize) -> Result<Vec<Bytes>, StoreError> {
        self.check()?;
        check_branch(branch)?;
        match self.log(branch)? {
            Some(log) => log.entries(from, max_bytes),
            None => Err(StoreError::NoBranch { branch: branch.to_owned() }),
        }
    }

    fn branches(&self) -> Result<Vec<String>, StoreError> {
        self.check()?;
        let mut live = Vec::new();
        for branch in self.branch_names()? {
            if self.head(&branch)?.is_some() {
                live.push(branch);
            }
        }
        Ok(live)
    }

    fn delete_branch(&self, branch: &str, revision: u64) -> Result<(), StoreError> {
        check_branch(branch)?;
        self.check_writable()?;
        if let Some(log) = self.log(branch)? {
            return log.delete(revision);
        }
        let expected = Expect::Revision(revision);
        Err(StoreError::Conflict { branch: branch.to_owned(), expected, found: None })
    }

    fn collect(&self, garbage: &[Address], since: Mark) -> Result<Reclaimed, StoreError> {
        self.check_writable()?;
        let logs: Vec<Arc<Log>> = self.logs.lock().values().cloned().collect();
        let before = self.log_sizes(&logs)?.0;
        for log in &logs {
            log.trim()?;
        }
        let logs_freed = before.saturating_sub(self.log_sizes(&logs)?.0);
        let mut reclaimed = self.packs.collect(garbage, since)?;
        reclaimed.bytes += logs_freed;
        Ok(reclaimed)
    }

    fn log_sizes(&self, logs: &[Arc<Log>]) -> Result<(u64, u64), StoreError> {
        logs.iter().try_fold((0, 0), |(bytes, files), log| {
            let (more_bytes, more_files) = log.sizes()?;
            Ok((bytes + more_bytes, files + more_files))
        })
    }

    fn stats(&self) -> Result<StoreStats, StoreError> {
        self.check()?;
        let branches = self.branches()?.len() as u64;
        if !self.writable {
            self.packs.rescan()?;
        }
        let logs: Vec<Arc<Log>> = self.logs.lock().values().cloned().collect();
        let (log_bytes, log_files) = self.log_sizes(&logs)?;
        let (blocks, block_bytes, stored_bytes, pack_files) = self.packs.sizes()?;
        // Two more: `meta` and `lock`.
        let files = log_files + pack_files + 2;
        Ok(StoreStats { blocks, block_bytes, stored_bytes, log_bytes, files, branches })
    }
}

#[async_trait]
impl Store for FileStore {
    fn capabilities(&self) -> Capabilities {
        let writable = self.inner.writable;
        Capabilities { durable: true, synchronous: true, writable, shared: true }
    }

    fn describe(&self) -> String {
        format!("file:{}", self.inner.path.display())
    }

    fn identity(&self) -> StoreIdentity {
        *self.inner.identity.lock()
    }

    async fn get(&self, addresses: &[Address]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let addresses = addresses.to_vec();
        self.run(move |inner| addresses.iter().map(|address| inner.get(address)).collect()).await
    }

    fn get_now(&self, address: &Address) -> Option<Result<Option<Bytes>, StoreError>> {
        Some(self.inner.get(address))
    }

    async fn contains(&self, addresses: &[Address]) -> Result<Vec<bool>, StoreError> {
        self.inner.contains(addresses)
    }

    async fn put(&self, blocks: Vec<(Address, Bytes)>) -> Result<(), StoreError> {
        check_blocks(&blocks)?;
        self.inner.check_writable()?;
        self.run(move |inner| inner.packs.put(&blocks)).await
    }

    async fn head(&self, branch: &str) -> Result<Option<Head>, StoreError> {
        // A look into memory, or a few bytes from the page cache: not worth another thread.
        self.inner.head(branch)
    }

    async fn commit(&self, batch: Batch) -> Result<Head, StoreError> {
        self.run(move |inner| inner.commit(&batch)).await
    }

    fn commit_now(&self, batch: &Batch) -> Option<Result<Head, StoreError>> {
        Some(self.inner.commit(batch))
    }

    async fn log(
        &self,
        branch: &str,
        from: u64,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        let branch = branch.to_owned();
        self.run(move |inner| inner.entries(&branch, from, max_bytes)).await
    }

    async fn branches(&self) -> Result<Vec<String>, StoreError> {
        self.run(Inner::branches).await
    }

    async fn delete_branch(&self, branch: &str, revision: u64) -> Result<(), StoreError> {
        let branch = branch.to_owned();
        self.run(move |inner| inner.delete_branch(&branch, revision)).await
    }

    fn mark(&self) -> Mark {
        self.inner.packs.mark()
    }

    async fn list(
        &self,
        after: Option<Address>,
        limit: usize,
    ) -> Result<Vec<BlockInfo>, StoreError> {
        self.inner.check()?;
        self.inner.packs.list(after, limit)
    }

    async fn collect(&self, garbage: &[Address], since: Mark) -> Result<Reclaimed, StoreError> {
        let garbage = garbage.to_vec();
        self.run(move |inner| inner.collect(&garbage, since)).await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        self.run(Inner::stats).await
    }

    async fn close(&self) -> Result<(), StoreError> {
        self.inner.medium.close();
        // Another writer may come in only when the last write of this one is over.
        self.inner.packs.settle();
        let logs: Vec<Arc<Log>> = self.inner.logs.lock().values().cloned().collect();
        logs.iter().for_each(|log| log.settle());
        self.inner.lock.lock().take();
        Ok(())
    }
}

/// A folder name for a branch: letters, digits, `-` and `_` as they are, all else as `%xx`. Letters
/// of either case stay apart only where the file system keeps them apart.
fn folder_name(branch: &str) -> String {
    let mut name = String::with_capacity(branch.len());
    for byte in branch.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02x}"));
        }
    }
    name
}

/// The branch of a folder name; `None` if it is none of ours.
fn branch_name(folder: &str) -> Option<String> {
    let mut parts = folder.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    let branch = String::from_utf8(bytes).ok()?;
    (folder_name(&branch) == folder && check_branch(&branch).is_ok()).then_some(branch)
}
