//! Golden files, and what becomes of every byte of them that changes.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use datahike_store::conformance::{address, block};
use datahike_store::file::simulated::SimulatedDisk;
use datahike_store::file::{Disk, Vfs};
use datahike_store::{Batch, Expect, FileStore, Head, Store, StoreError, StoreIdentity};
use uuid::Uuid;

use crate::workload::{PLACE, now, options};

const META: &str = "meta";
const PACK: &str = "packs/0000000000000001.pack";
const LOG: &str = "logs/main/0000000000000001.log";
const LOG_BYTES: usize = 4096 + (64 << 10);
const COMMITS: u64 = 6;

fn identity() -> StoreIdentity {
    StoreIdentity { id: Uuid::from_u128(0x1234), epoch: Uuid::from_u128(0x5678) }
}

fn entry(n: u64) -> Bytes {
    Bytes::from(format!("entry {n}"))
}

/// A small store: three blocks in one pack, six commits in one segment.
fn build(disk: &SimulatedDisk) -> FileStore {
    let store = FileStore::create_as(PLACE, identity(), options(disk.clone())).unwrap();
    let mut expect = Expect::Absent;
    for n in 0..COMMITS {
        let mut batch = Batch::new("main", expect);
        if n == 0 {
            // Empty, incompressible, compressible.
            batch.blocks = [0, 1, 2].map(|n| (address(n), block(n))).to_vec();
        }
        if n % 2 == 0 {
            batch.record = Some(Bytes::from(format!("record {n}")));
        }
        batch.entries = vec![entry(2 * n), entry(2 * n + 1)];
        expect = Expect::from(&store.commit_now(&batch).unwrap().unwrap());
    }
    store
}

fn trimmed(mut bytes: Vec<u8>) -> Vec<u8> {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(used.next_multiple_of(8));
    bytes
}

fn golden(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1").join(name);
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A disk that holds the golden store.
fn golden_disk() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    for dir in ["", "packs", "logs", "logs/main"] {
        disk.create_dir(&Path::new(PLACE).join(dir)).unwrap();
    }
    for (file, name) in [(META, "meta"), (PACK, "pack"), (LOG, "log")] {
        disk.create(&Path::new(PLACE).join(file)).unwrap();
        let mut bytes = golden(name);
        if file == LOG {
            // Kept without the room prepared for more commits.
            bytes.resize(LOG_BYTES, 0);
        }
        disk.damage(&Path::new(PLACE).join(file), bytes);
    }
    disk
}

fn assert_whole(store: &FileStore) {
    assert_eq!(store.identity(), identity());
    let head = now(store.head("main")).unwrap();
    let record = Bytes::from_static(b"record 4");
    assert_eq!(head, Some(Head { revision: COMMITS, record, log: 0..2 * COMMITS }));
    let entries = now(store.log("main", 0, usize::MAX)).unwrap();
    assert_eq!(entries, (0..2 * COMMITS).map(entry).collect::<Vec<_>>());
    let blocks = now(store.get(&[0, 1, 2].map(address))).unwrap();
    assert_eq!(blocks, [0, 1, 2].map(|n| Some(block(n))));
}

#[test]
fn files_of_format_1_are_read() {
    let disk = golden_disk();
    assert_whole(&FileStore::open_read_only(PLACE, options(disk.clone())).unwrap());
    assert_whole(&FileStore::open(PLACE, options(disk)).unwrap());
}

#[test]
fn files_of_format_1_are_written() {
    let disk = SimulatedDisk::new();
    build(&disk);
    let written = |file: &str| disk.read(&Path::new(PLACE).join(file));
    if let Ok(folder) = std::env::var("GOLDEN_NEW") {
        // For a new format only: the bytes of a released one never change.
        for (file, name) in [(META, "meta"), (PACK, "pack"), (LOG, "log")] {
            std::fs::write(Path::new(&folder).join(name), trimmed_log(file, written(file)))
                .unwrap();
        }
    }
    assert_eq!(written(META), golden("meta"));
    assert_eq!(written(PACK), golden("pack"));
    // Each segment has a salt of its own; the bytes under a given one are tested beside the code.
    assert_eq!(trimmed(written(LOG)).len(), golden("log").len());
    assert_eq!(written(LOG).len(), LOG_BYTES);
}

fn trimmed_log(file: &str, bytes: Vec<u8>) -> Vec<u8> {
    if file == LOG { trimmed(bytes) } else { bytes }
}

/// What a reader or a writer may say to a damaged store: a named error, or some newest commits
/// less, but never anything that was not written.
fn assert_sound(disk: &SimulatedDisk, lost: u64, at: &str) {
    for writable in [false, true] {
        let options = options(disk.clone());
        let opened = if writable {
            FileStore::open(PLACE, options)
        } else {
            FileStore::open_read_only(PLACE, options)
        };
        let store = match opened {
            Ok(store) => store,
            Err(error) => {
                assert_named(&error, at);
                continue;
            }
        };
        assert_eq!(store.identity(), identity(), "{at}");
        for (n, found) in (0..3).map(|n| (n, now(store.get(&[address(n)])))) {
            match found {
                Ok(found) => assert_eq!(found, [Some(block(n))], "{at}"),
                Err(error) => assert_named(&error, at),
            }
        }
        match now(store.head("main")) {
            Ok(Some(head)) => {
                assert!(head.revision + lost >= COMMITS, "{at}: lost commits: {head:?}");
                assert_eq!(head.log, 0..2 * head.revision, "{at}");
                let entries = now(store.log("main", 0, usize::MAX)).unwrap();
                let expected: Vec<_> = (0..2 * head.revision).map(entry).collect();
                assert_eq!(entries, expected, "{at}");
            }
            Ok(None) => panic!("{at}: the branch is gone"),
            Err(error) => assert_named(&error, at),
        }
    }
}

fn assert_named(error: &StoreError, at: &str) {
    let named = matches!(error, StoreError::Corrupt { .. } | StoreError::Version { .. });
    assert!(named, "{at}: {error:?}");
}

#[test]
fn every_changed_byte_is_noticed_or_does_not_matter() {
    for file in [META, PACK, LOG] {
        let path = PathBuf::from(PLACE).join(file);
        let whole = golden_disk().read(&path);
        let last_commit = last_frame(&golden("log"));
        let used = if file == LOG { golden("log").len() + 16 } else { whole.len() };
        for at in 0..used {
            for mask in [0x01, 0x80, 0xff] {
                let disk = golden_disk();
                let mut bytes = whole.clone();
                bytes[at] ^= mask;
                disk.damage(&path, bytes);
                // The last commit cannot be told from one that was being written.
                let lost = u64::from(file == LOG && at >= last_commit);
                assert_sound(&disk, lost, &format!("{file} byte {at} ^ {mask:#x}"));
            }
        }
    }
}

/// Where the last commit of the golden log begins.
fn last_frame(log: &[u8]) -> usize {
    let length = |at: usize| u32::from_le_bytes(log[at..at + 4].try_into().unwrap()) as usize;
    let mut at = (20 + 37usize).next_multiple_of(8);
    loop {
        let next = (at + 8 + length(at)).next_multiple_of(8);
        if next >= log.len() {
            return at;
        }
        at = next;
    }
}

#[test]
fn every_cut_is_noticed() {
    for file in [META, PACK, LOG] {
        let path = PathBuf::from(PLACE).join(file);
        let whole = golden_disk().read(&path);
        for length in (0..whole.len()).filter(|length| *length < 1000 || length % 997 == 0) {
            let disk = golden_disk();
            disk.damage(&path, whole[..length].to_vec());
            assert_sound(&disk, 0, &format!("{file} cut at {length}"));
            let opened = FileStore::open(PLACE, options(disk));
            assert!(opened.is_err(), "{file} cut at {length}");
        }
    }
}

#[test]
fn garbage_where_nothing_was_written_is_cut_off() {
    let path = PathBuf::from(PLACE).join(LOG);
    for seed in 1..200 {
        let disk = golden_disk();
        let mut bytes = golden("log");
        bytes.extend(std::iter::repeat_n(block(seed * 2 + 1), 3).flatten());
        bytes.resize(LOG_BYTES, 0);
        disk.damage(&path, bytes);
        let store = FileStore::open(PLACE, options(disk.clone())).unwrap();
        assert_whole(&store);
        let mut batch = Batch::new("main", Expect::Revision(COMMITS));
        batch.entries.push(entry(99));
        store.commit_now(&batch).unwrap().unwrap();
        drop(store);
        let again = FileStore::open(PLACE, options(disk)).unwrap();
        assert_eq!(now(again.log("main", 2 * COMMITS, 100)).unwrap(), [entry(99)]);
    }
}

#[test]
fn a_missing_segment_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("db");
    let store = FileStore::create(&place, options(Disk)).unwrap();
    let mut expect = Expect::Absent;
    for n in 0..10 {
        let mut batch = Batch::new("main", expect);
        batch.entries.push(Bytes::from(vec![n; 800]));
        expect = Expect::from(&store.commit_now(&batch).unwrap().unwrap());
    }
    drop(store);
    std::fs::remove_file(place.join("logs/main/0000000000000002.log")).unwrap();
    for error in [
        FileStore::open(&place, options(Disk)).unwrap_err(),
        now(FileStore::open_read_only(&place, options(Disk)).unwrap().head("main")).unwrap_err(),
    ] {
        assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
    }
}

#[test]
fn a_future_format_is_named() {
    for (file, at) in [(META, 8), (PACK, 8), (LOG, 8)] {
        let disk = golden_disk();
        let path = PathBuf::from(PLACE).join(file);
        let mut bytes = disk.read(&path);
        bytes[at] = 9;
        if file == META {
            let crc = crc32fast::hash(&bytes[..44]);
            bytes[44..].copy_from_slice(&crc.to_le_bytes());
        }
        disk.damage(&path, bytes);
        let error = FileStore::open(PLACE, options(disk)).unwrap_err();
        assert!(matches!(error, StoreError::Version { found: 9, supported: 1, .. }), "{error:?}");
    }
}
