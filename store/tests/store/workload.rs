//! A seeded run of everything a file store does, with a model of what it must hold afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use datahike_store::conformance::{address, block};
use datahike_store::file::Vfs;
use datahike_store::{Batch, Expect, FileOptions, FileStore, Head, Store, StoreError};

pub(crate) const PLACE: &str = "/db";
const BRANCHES: [&str; 2] = ["main", "side"];

pub(crate) fn options(vfs: impl Vfs + 'static) -> FileOptions {
    // Small, so that a short run rolls.
    FileOptions { segment_bytes: 2000, vfs: Arc::new(vfs) }
}

/// Outside of a runtime a file store answers at once.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => panic!("a file store outside of a runtime is ready at once"),
    }
}

/// A branch as far as it was acknowledged.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Branch {
    pub(crate) head: Option<Head>,
    entries: BTreeMap<u64, Bytes>,
    /// Blocks that its record names.
    blocks: BTreeSet<u64>,
}

/// What a store must hold, and what it may hold besides: the step that was under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model {
    pub(crate) branches: BTreeMap<String, Branch>,
    pending: Option<(String, Branch)>,
    numbers: BTreeMap<String, (u64, u64)>,
    random: u64,
    fresh: u64,
}

impl Model {
    pub(crate) fn new(seed: u64) -> Self {
        Self { random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, ..Self::default() }
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    /// Does something to the store; keeps account of it if the store says that it is done.
    pub(crate) fn step(&mut self, store: &FileStore) -> Result<(), StoreError> {
        self.pending = None;
        match self.below(20) {
            0 => self.collect(store),
            1 => self.delete(store),
            2 => {
                let blocks = self.new_blocks(3);
                now(store.put(blocks.iter().map(|n| (address(*n), block(*n))).collect()))
            }
            _ => self.commit(store),
        }
    }

    fn new_blocks(&mut self, most: u64) -> Vec<u64> {
        let count = self.below(most + 1);
        // Some that were put before, in a step that may have been interrupted.
        let first = self.fresh.saturating_sub(self.below(5));
        self.fresh = self.fresh.max(first + count);
        (first..first + count).collect()
    }

    fn commit(&mut self, store: &FileStore) -> Result<(), StoreError> {
        let name = BRANCHES[self.below(2) as usize].to_owned();
        let old = self.branches.get(&name).cloned().unwrap_or_default();
        let expect = old.head.as_ref().map_or(Expect::Absent, Expect::from);
        let mut batch = Batch::new(&name, expect);
        let (revision, end) = self.numbers.get(&name).copied().unwrap_or_default();
        let base = Head { revision, record: Bytes::new(), log: end..end };
        let mut branch = old.clone();
        for n in 0..self.below(4) {
            // Now and then one for which no room is prepared.
            let length = if self.below(40) == 0 { 300 << 10 } else { self.below(300) as usize };
            batch.entries.push(Bytes::from(vec![(end + n) as u8; length]));
        }
        if self.below(3) == 0 {
            let blocks = self.new_blocks(4);
            batch.blocks = blocks.iter().map(|n| (address(*n), block(*n))).collect();
            branch.blocks.extend(blocks);
            let length = self.below(200) as usize;
            batch.record = Some(Bytes::from(vec![revision as u8; length]));
            if self.below(2) == 0 {
                batch.log_start = Some(end.saturating_sub(self.below(5)));
            }
        }
        let head = batch.step(Some(old.head.as_ref().unwrap_or(&base)));
        branch.entries.extend((end..).zip(batch.entries.iter().cloned()));
        branch.entries = branch.entries.split_off(&head.log.start);
        branch.head = Some(head.clone());
        self.pending = Some((name, branch));
        let done = store.commit_now(&batch).unwrap()?;
        assert_eq!(done, head);
        self.accept();
        Ok(())
    }

    fn delete(&mut self, store: &FileStore) -> Result<(), StoreError> {
        let Some(head) = self.branches.get("side").and_then(|branch| branch.head.clone()) else {
            return Ok(());
        };
        self.pending = Some(("side".into(), Branch::default()));
        now(store.delete_branch("side", head.revision))?;
        self.accept();
        Ok(())
    }

    fn collect(&mut self, store: &FileStore) -> Result<(), StoreError> {
        let mark = store.mark();
        let used: BTreeSet<_> =
            self.branches.values().flat_map(|branch| &branch.blocks).map(|n| address(*n)).collect();
        let all = now(store.list(None, usize::MAX))?;
        let garbage: Vec<_> =
            all.into_iter().map(|info| info.address).filter(|a| !used.contains(a)).collect();
        now(store.collect(&garbage, mark))?;
        Ok(())
    }

    /// Takes the step under way for done.
    fn accept(&mut self) {
        if let Some((name, branch)) = self.pending.take() {
            let (revision, end) = match &branch.head {
                Some(head) => (head.revision, head.log.end),
                None => {
                    let (revision, end) = self.numbers.get(&name).copied().unwrap_or_default();
                    (revision + 1, end)
                }
            };
            self.numbers.insert(name.clone(), (revision, end));
            self.branches.insert(name, branch);
        }
    }

    /// Compares, and takes over the step under way where the store has it whole.
    pub(crate) fn verify(&mut self, store: &FileStore) -> Result<(), String> {
        let text = |error: StoreError| format!("{error}: {error:?}");
        if let Some((name, branch)) = self.pending.clone()
            && now(store.head(&name)).map_err(text)? == branch.head
        {
            self.accept();
        }
        self.pending = None;
        for (name, branch) in &self.branches {
            let found = now(store.head(name)).map_err(text)?;
            if found != branch.head {
                return Err(format!("head of {name}: {found:?} instead of {:?}", branch.head));
            }
            let Some(head) = found else { continue };
            let mut entries = Vec::new();
            while head.log.start + (entries.len() as u64) < head.log.end {
                let from = head.log.start + entries.len() as u64;
                let page = now(store.log(name, from, 500)).map_err(text)?;
                if page.is_empty() {
                    return Err(format!("log of {name} ends before {}", head.log.end));
                }
                entries.extend(page);
            }
            if !entries.iter().eq(branch.entries.values()) {
                return Err(format!("log of {name} differs"));
            }
            for n in &branch.blocks {
                let found = now(store.get(&[address(*n)])).map_err(text)?;
                if found != [Some(block(*n))] {
                    return Err(format!("block {n} of {name} is lost"));
                }
            }
        }
        Ok(())
    }
}
