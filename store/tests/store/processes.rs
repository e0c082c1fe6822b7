//! Several processes at one store: this test binary runs itself again as the other process.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use bytes::Bytes;
use datahike_store::conformance::{address, block};
use datahike_store::file::Disk;
use datahike_store::{Address, Batch, Expect, FileOptions, FileStore, Head, Store, StoreError};

use crate::workload::{now, options};

const ROLE: &str = "DATAHIKE_STORE_ROLE";
const PLACE: &str = "DATAHIKE_STORE_PLACE";
const PER_COMMIT: u64 = 3;

struct Other {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
}

impl Other {
    fn start(role: &str, place: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::other_process", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(PLACE, place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        Self { child, lines }
    }

    /// The next line that is an answer, not the test harness speaking.
    fn answer(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            // A line cut off by the end of the process is no answer.
            if self.lines.read_line(&mut line).unwrap() == 0 || !line.ends_with('\n') {
                return None;
            }
            if let Some((_, answer)) = line.split_once("> ") {
                return Some(answer.trim().to_owned());
            }
        }
    }

    fn ask(&mut self, question: &str) -> String {
        writeln!(self.child.stdin.as_mut().unwrap(), "{question}").unwrap();
        self.answer().unwrap()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answer(text: impl std::fmt::Display) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "> {text}").unwrap();
    out.flush().unwrap();
}

/// What the other process does; in a plain test run there is nothing to do.
#[test]
fn other_process() {
    let (Ok(role), Ok(place)) = (std::env::var(ROLE), std::env::var(PLACE)) else { return };
    let place = Path::new(&place);
    match role.as_str() {
        "write" => write_for_ever(place),
        "read" => answer_questions(place),
        "open" => match FileStore::open(place, FileOptions::default()) {
            Ok(_) => answer("opened"),
            Err(error) => answer(error),
        },
        other => panic!("unknown role {other}"),
    }
}

fn step(revision: u64, expect: Expect) -> Batch {
    let mut batch = Batch::new("main", expect);
    let first = revision * PER_COMMIT;
    batch.entries = (first..first + PER_COMMIT).map(|n| Bytes::from(format!("{n:050}"))).collect();
    // Every fifth commit has blocks, which its record names by its revision.
    if revision.is_multiple_of(5) {
        batch.blocks = (0..4).map(|n| revision * 4 + n).map(|n| (address(n), block(n))).collect();
        batch.record = Some(Bytes::from(revision.to_string()));
    }
    batch
}

fn named_blocks(head: &Head) -> Vec<Address> {
    let revision: u64 = std::str::from_utf8(&head.record).unwrap().parse().unwrap();
    (0..4).map(|n| address(revision * 4 + n)).collect()
}

fn write_for_ever(place: &Path) {
    let store = FileStore::open(place, options(Disk)).unwrap();
    let mut head = now(store.head("main")).unwrap();
    loop {
        let revision = head.as_ref().map_or(0, |head| head.revision);
        let expect = head.as_ref().map_or(Expect::Absent, Expect::from);
        head = Some(store.commit_now(&step(revision, expect)).unwrap().unwrap());
        answer(revision + 1);
    }
}

#[test]
fn what_a_killed_writer_acknowledged_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("db");
    drop(FileStore::create(&place, options(Disk)).unwrap());
    let begun = Instant::now();
    let mut acknowledged = 0;
    for round in 0..25u64 {
        let mut writer = Other::start("write", &place);
        // From before the first commit of the round to some hundred.
        let wait = round * round * 7919 % 211;
        for _ in 0..wait {
            acknowledged = writer.answer().unwrap().parse().unwrap();
        }
        writer.kill();
        while let Some(line) = writer.answer() {
            acknowledged = line.parse().unwrap();
        }
        let store = FileStore::open(&place, options(Disk)).unwrap();
        let Some(head) = now(store.head("main")).unwrap() else {
            assert_eq!(acknowledged, 0);
            continue;
        };
        assert!(head.revision >= acknowledged, "lost: {} < {acknowledged}", head.revision);
        assert!(head.revision <= acknowledged + 1, "more than one commit was under way");
        assert_eq!(head.log, 0..head.revision * PER_COMMIT, "a commit is there in part");
        let mut n = 0;
        while n < head.log.end {
            for entry in now(store.log("main", n, 1 << 20)).unwrap() {
                assert_eq!(entry, format!("{n:050}"));
                n += 1;
            }
        }
        let blocks = now(store.get(&named_blocks(&head))).unwrap();
        assert!(blocks.iter().all(Option::is_some), "the head names a block that is not there");
        acknowledged = head.revision;
    }
    assert!(acknowledged > 500, "the writer got nowhere: {acknowledged}");
    assert!(begun.elapsed().as_secs() < 60);
}

fn answer_questions(place: &Path) {
    let store = FileStore::open_read_only(place, options(Disk)).unwrap();
    let mut seen: Vec<Address> = Vec::new();
    for line in std::io::stdin().lock().lines() {
        match line.unwrap().as_str() {
            "head" => match now(store.head("main")).unwrap() {
                None => answer("none"),
                Some(head) => {
                    let last = now(store.log("main", head.log.end - 1, 1000)).unwrap();
                    let last = std::str::from_utf8(&last[0]).unwrap().to_owned();
                    answer(format_args!("{} {}", head.revision, last.trim_start_matches('0')));
                    seen = named_blocks(&head);
                }
            },
            "look" => answer(now(store.head("main")).unwrap().unwrap().revision),
            // The blocks of the head that was asked for last, whatever the writer did since.
            "blocks" => {
                let blocks = now(store.get(&seen)).unwrap();
                answer(blocks.iter().filter(|block| block.is_some()).count());
            }
            "write" => answer(store.commit_now(&step(0, Expect::Absent)).unwrap().unwrap_err()),
            other => panic!("unknown question {other}"),
        }
    }
}

#[test]
fn a_reader_in_another_process_follows_without_a_lock() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("db");
    let store = FileStore::create(&place, options(Disk)).unwrap();
    let mut reader = Other::start("read", &place);
    assert_eq!(reader.ask("head"), "none");
    assert_eq!(reader.ask("write"), StoreError::ReadOnly.to_string());
    let mut expect = Expect::Absent;
    let mut asked = 0;
    for revision in 0..400 {
        let mut batch = step(revision, expect);
        batch.log_start = Some((revision * PER_COMMIT).saturating_sub(20));
        let head = store.commit_now(&batch).unwrap().unwrap();
        expect = Expect::from(&head);
        // Now and then the reader falls behind by several segments.
        if revision % 7 == 0 || (revision > 200 && revision % 50 != 0) {
            continue;
        }
        let last = head.log.end - 1;
        assert_eq!(reader.ask("head"), format!("{} {last}", head.revision));
        asked += 1;
        if asked % 10 != 0 {
            assert_eq!(reader.ask("blocks"), "4");
        } else {
            // Its blocks become garbage and go, before it looks at them and while it does.
            let garbage = named_blocks(&head);
            let mark = store.mark();
            assert_eq!(now(store.collect(&garbage, mark)).unwrap().blocks, 4);
            assert_eq!(reader.ask("blocks"), "4");
            let mut batch = Batch::new("main", expect);
            batch.record = Some(Bytes::from("0"));
            let moved = store.commit_now(&batch).unwrap().unwrap();
            assert_eq!(reader.ask("look"), moved.revision.to_string());
            assert_eq!(reader.ask("blocks"), "4");
            let mut batch = Batch::new("main", Expect::from(&moved));
            batch.record = Some(head.record.clone());
            expect = Expect::from(&store.commit_now(&batch).unwrap().unwrap());
            let lost = step(revision / 5 * 5, expect).blocks;
            now(store.put(lost)).unwrap();
        }
    }
    assert!(asked > 150);
}

#[test]
fn a_second_writer_is_refused_until_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("db");
    let store = FileStore::create(&place, options(Disk)).unwrap();
    let refused = Other::start("open", &place).answer().unwrap();
    assert!(refused.contains("open for writing"), "{refused}");
    assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
    let again = FileStore::open(&place, options(Disk));
    assert!(matches!(again, Err(StoreError::Locked { pid: Some(_), .. })), "{again:?}");
    let destroyed = FileStore::destroy(&place);
    assert!(matches!(destroyed, Err(StoreError::Locked { .. })), "{destroyed:?}");
    // Closing lets the next in, though the handle lives.
    now(store.close()).unwrap();
    assert_eq!(Other::start("open", &place).answer().unwrap(), "opened");
    let mut killed = Other::start("write", &place);
    killed.answer().unwrap();
    let refused = FileStore::open(&place, options(Disk)).unwrap_err();
    assert!(matches!(refused, StoreError::Locked { pid, .. } if pid == Some(killed.child.id())));
    killed.kill();
    drop(FileStore::open(&place, options(Disk)).unwrap());
    FileStore::destroy(&place).unwrap();
    assert!(!place.exists());
    assert!(matches!(FileStore::open(&place, options(Disk)), Err(StoreError::NotFound { .. })));
}

#[test]
fn creating_where_a_store_is_and_renewing_its_epoch() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("db");
    let store = FileStore::create(&place, options(Disk)).unwrap();
    let again = FileStore::create(&place, options(Disk));
    assert!(matches!(again, Err(StoreError::Exists { .. })), "{again:?}");
    let old = store.identity();
    let renewed = store.renew_epoch().unwrap();
    assert_eq!(renewed.id, old.id);
    assert_ne!(renewed.epoch, old.epoch);
    drop(store);
    let reader = FileStore::open_read_only(&place, options(Disk)).unwrap();
    assert_eq!(reader.identity(), renewed);
    assert!(matches!(reader.renew_epoch(), Err(StoreError::ReadOnly)));
}
