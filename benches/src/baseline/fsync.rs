//! The bare disk: how fast a small record can be made durable at all.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;

const RECORD: [u8; 200] = [7; 200];

/// Overwrites a prepared file, 200 bytes and one fdatasync at a time; returns the time of each.
///
/// # Errors
/// What the file system says.
pub fn overwrite(folder: &Path, times: usize) -> anyhow::Result<Vec<Duration>> {
    let path = folder.join("fsync-baseline");
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(&vec![0; RECORD.len() * times.max(1)])?;
    file.sync_all()?;
    let mut taken = Vec::with_capacity(times);
    for n in 0..times {
        let start = Instant::now();
        file.write_all_at(&RECORD, (n * RECORD.len()) as u64)?;
        file.sync_data()?;
        taken.push(start.elapsed());
    }
    std::fs::remove_file(&path)?;
    Ok(taken)
}

/// Durable overwrites a second.
///
/// # Errors
/// What the file system says.
pub fn rate(folder: &Path, times: usize) -> anyhow::Result<f64> {
    let total: Duration = overwrite(folder, times)?.iter().sum();
    Ok(times as f64 / total.as_secs_f64())
}
