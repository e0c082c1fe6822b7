//! Commits per second against a bare fdatasync loop on the same disk, interleaved.
//!
//! `cargo run --release -p datahike-store --example commit_rate [-- FOLDER]`

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use datahike_store::{Batch, Expect, FileOptions, FileStore, Store};

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(700);
const ENTRY: &[u8] = &[0x33; 120];

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let folder = tempfile::tempdir_in(folder)?;
    let store = FileStore::create(folder.path().join("store"), FileOptions::default())?;
    let slot = bare_file(&folder.path().join("bare"))?;
    let mut rates: [Vec<f64>; 3] = Default::default();
    for _ in 0..ROUNDS {
        rates[0].push(rate(|n| {
            slot.write_all_at(&[n as u8; 200], n % 20_000 * 200)?;
            Ok(slot.sync_data()?)
        })?);
        rates[1].push(rate(|_| {
            let batch = next("now", &store.clone())?;
            store.commit_now(&batch).ok_or("not synchronous")??;
            Ok(())
        })?);
        let begun = Instant::now();
        let mut n = 0;
        let mut expect = store.head("async").await?.as_ref().map_or(Expect::Absent, Expect::from);
        while begun.elapsed() < ROUND {
            let mut batch = Batch::new("async", expect);
            batch.entries.push(Bytes::from_static(ENTRY));
            expect = Expect::from(&store.commit(batch).await?);
            n += 1;
        }
        rates[2].push(f64::from(n) / begun.elapsed().as_secs_f64());
    }
    let [bare, now, hop] = rates.map(median);
    println!("bare write + fdatasync   {bare:8.0} /s");
    println!("commit_now               {now:8.0} /s  {:.2} x", now / bare);
    println!("commit (other thread)    {hop:8.0} /s  {:.2} x", hop / bare);
    Ok(())
}

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn bare_file(path: &Path) -> Outcome<File> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    file.write_all_at(&vec![0; 4 << 20], 0)?;
    file.sync_all()?;
    Ok(file)
}

fn next(branch: &str, store: &FileStore) -> Outcome<Batch> {
    use std::task::{Context, Poll, Waker};
    let mut head = store.head(branch);
    let Poll::Ready(head) = head.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        return Err("a head of a file store is ready at once".into());
    };
    let mut batch = Batch::new(branch, head?.as_ref().map_or(Expect::Absent, Expect::from));
    batch.entries.push(Bytes::from_static(ENTRY));
    Ok(batch)
}

fn rate(mut once: impl FnMut(u64) -> Outcome<()>) -> Outcome<f64> {
    let begun = Instant::now();
    let mut n = 0;
    while begun.elapsed() < ROUND {
        once(n)?;
        n += 1;
    }
    Ok(n as f64 / begun.elapsed().as_secs_f64())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
