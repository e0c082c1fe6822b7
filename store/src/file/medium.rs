//! The file system as the store sees it: errors with their file, and the rule that after a failed
//! sync nothing is written any more.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use super::vfs::{Vfs, VfsFile, read_full, write_full};
use crate::StoreError;

/// A [`Vfs`] with the store's memory of a failure.
#[derive(Debug)]
pub(super) struct Medium {
    pub(super) vfs: Arc<dyn Vfs>,
    poison: OnceLock<String>,
    closed: AtomicBool,
}

impl Medium {
    pub(super) fn new(vfs: Arc<dyn Vfs>) -> Self {
        Self { vfs, poison: OnceLock::new(), closed: AtomicBool::new(false) }
    }

    /// Ends use of the medium.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::Release);
    }

    /// Fails after closing.
    pub(super) fn check_open(&self) -> Result<(), StoreError> {
        if self.closed.load(Ordering::Acquire) { Err(StoreError::Closed) } else { Ok(()) }
    }

    /// Fails after closing, and once a write could not be made durable. The kernel may have dropped
    /// the dirty pages and call the next sync a success, so only reading the medium anew can tell
    /// what is there. Whoever writes asks after taking the lock for it: closing waits for those
    /// locks before it lets another writer in.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.check_open()?;
        match self.poison.get() {
            Some(cause) => Err(StoreError::Poisoned { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    /// Refuses writes from now on, because of this.
    pub(super) fn poison(&self, op: &str, path: &Path, error: &io::Error) -> StoreError {
        let cause = format!("cannot {op} {}: {error}", path.display());
        tracing::error!(%cause, "store refuses writes until it is reopened");
        StoreError::Poisoned { cause: self.poison.get_or_init(|| cause).clone() }
    }

    pub(super) fn sync(&self, file: &dyn VfsFile, path: &Path) -> Result<(), StoreError> {
        file.sync().map_err(|error| self.poison("sync", path, &error))
    }

    pub(super) fn sync_dir(&self, dir: &Path) -> Result<(), StoreError> {
        self.vfs.sync_dir(dir).map_err(|error| self.poison("sync folder", dir, &error))
    }

    pub(super) fn write(
        &self,
        file: &dyn VfsFile,
        bytes: &[u8],
        offset: u64,
        path: &Path,
    ) -> Result<(), StoreError> {
        write_full(file, bytes, offset).map_err(|error| failed("write", path, error))
    }

    /// Gives a finished temporary file its name, durably: content first, then the name.
    pub(super) fn publish(
        &self,
        file: &dyn VfsFile,
        temporary: &Path,
        path: &Path,
    ) -> Result<(), StoreError> {
        self.sync(file, temporary)?;
        self.vfs.rename(temporary, path).map_err(|error| failed("rename", temporary, error))?;
        match path.parent() {
            Some(dir) => self.sync_dir(dir),
            None => Ok(()),
        }
    }

    /// Removes a file that nothing names any more. That it stays is a waste, not a fault.
    pub(super) fn discard(&self, path: &Path) {
        if let Err(error) = self.vfs.remove(path) {
            tracing::warn!(path = %path.display(), %error, "cannot remove file");
        }
    }

    /// All of a small file.
    pub(super) fn read_small(&self, path: &Path, limit: usize) -> Result<Vec<u8>, StoreError> {
        let file = self.vfs.open(path).map_err(|error| failed("open", path, error))?;
        let mut bytes = vec![0; limit];
        let n = read_full(&*file, &mut bytes, 0).map_err(|error| failed("read", path, error))?;
        bytes.truncate(n);
        Ok(bytes)
    }
}

/// The error for a failed operation on this file.
pub(super) fn failed(op: &'static str, path: &Path, source: io::Error) -> StoreError {
    let path = path.to_owned();
    match source.kind() {
        // The last is a limit that the process was given.
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
            StoreError::NoSpace { op, path }
        }
        _ => StoreError::Io { op, path, source },
    }
}

/// The error for bytes that are not what was written.
pub(super) fn corrupt(path: &Path, offset: u64, reason: &'static str) -> StoreError {
    StoreError::Corrupt { path: path.to_owned(), offset, reason }
}

/// Whether an error only says that the file is not there (any more).
pub(super) fn is_gone(error: &StoreError) -> bool {
    matches!(error, StoreError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}
