//! A store in a browser's IndexedDB.
//!
//! One database of the browser holds one store, as four tables: `blocks` by address, `heads` by
//! branch, `log` by branch and entry number, `meta`. A commit is one transaction over them, which is
//! waited for: a tab that is closed or crashes at any moment leaves the older or the newer state.
//! No transaction is open while anything else than the browser's own requests is waited for. A block
//! that is put again replaces itself: to look first would cost as much.

mod lock;

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::try_join_all;
use idb::{
    Database, DatabaseEvent, Factory, KeyRange, ObjectStoreParams, Query, Transaction,
    TransactionMode,
};
use js_sys::{Array, Uint8Array};
use parking_lot::Mutex;
use send_wrapper::SendWrapper;
use uuid::Uuid;
use wasm_bindgen::JsValue;

use self::lock::Lock;
use crate::store::{check_blocks, check_branch};
use crate::{
    Address, Batch, BlockInfo, Capabilities, Expect, Head, Mark, Reclaimed, Store, StoreError,
    StoreIdentity, StoreStats,
};

const BLOCKS: &str = "blocks";
const HEADS: &str = "heads";
const LOG: &str = "log";
const META: &str = "meta";
const IDENTITY: &str = "identity";

/// Blocks looked at in one transaction when all are counted.
const PAGE: usize = 256;

/// A store in a database of the browser, held by one page at a time where the browser has locks.
#[derive(Debug)]
pub struct IndexedDbStore {
    name: String,
    identity: StoreIdentity,
    database: SendWrapper<Database>,
    lock: Mutex<Lock>,
    puts: Mutex<Puts>,
    closed: AtomicBool,
}

/// When blocks were put, as far as this handle did it.
#[derive(Debug, Default)]
struct Puts {
    clock: u64,
    at: HashMap<Address, u64>,
}

impl IndexedDbStore {
    /// Creates an empty store.
    ///
    /// # Errors
    /// [`StoreError::Exists`]; [`StoreError::Locked`]; what the browser refuses.
    pub async fn create(name: &str, identity: StoreIdentity) -> Result<Self, StoreError> {
        let (database, lock) = open(name).await?;
        if read_identity(name, &database).await?.is_some() {
            database.close();
            return Err(StoreError::Exists { path: place(name) });
        }
        let transaction = begin(name, &database, &[META], TransactionMode::ReadWrite)?;
        let text = format!("{} {}", identity.id, identity.epoch);
        let key = JsValue::from(IDENTITY);
        let put = transaction.object_store(META).and_then(|t| t.put(&text.into(), Some(&key)));
        put.map_err(|error| failed(name, "create", &error))?
            .await
            .map_err(|error| failed(name, "create", &error))?;
        finish(name, transaction).await?;
        Ok(Self::of(name, identity, database, lock))
    }

    /// Opens a store.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::Locked`] where another page has it open, which is
    /// waited for as long as one may take to go; what the browser refuses.
    pub async fn open(name: &str) -> Result<Self, StoreError> {
        let (database, lock) = open(name).await?;
        let Some(identity) = read_identity(name, &database).await? else {
            // Asking made an empty database.
            database.close();
            remove(name).await?;
            return Err(StoreError::NotFound { path: place(name) });
        };
        Ok(Self::of(name, identity, database, lock))
    }

    /// Whether there is a store of this name.
    ///
    /// # Errors
    /// What the browser refuses.
    pub async fn exists(name: &str) -> Result<bool, StoreError> {
        match Self::open(name).await {
            Ok(store) => store.close().await.map(|()| true),
            Err(StoreError::Locked { .. }) => Ok(true),
            Err(StoreError::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a store and all that is in it. Removing what is not there is no error.
    ///
    /// # Errors
    /// [`StoreError::Locked`] where it is open; what the browser refuses.
    pub async fn destroy(name: &str) -> Result<(), StoreError> {
        let (database, _lock) = open(name).await?;
        database.close();
        remove(name).await
    }

    fn of(name: &str, identity: StoreIdentity, database: Database, lock: Lock) -> Self {
        Self {
            name: name.to_owned(),
            identity,
            database: SendWrapper::new(database),
            lock: Mutex::new(lock),
            puts: Mutex::default(),
            closed: AtomicBool::new(false),
        }
    }

    fn begin(&self, tables: &[&str], mode: TransactionMode) -> Result<Transaction, StoreError> {
        if self.closed.load(Ordering::Acquire) {
            return Err(StoreError::Closed);
        }
        begin(&self.name, &self.database, tables, mode)
    }

    fn failed(&self, op: &'static str, error: &idb::Error) -> StoreError {
        failed(&self.name, op, error)
    }

    fn corrupt(&self, reason: &'static str) -> StoreError {
        StoreError::Corrupt { path: place(&self.name), offset: 0, reason }
    }

    async fn read_head(
        &self,
        transaction: &Transaction,
        branch: &str,
    ) -> Result<Option<Kept>, StoreError> {
        let failed = |error: idb::Error| self.failed("read", &error);
        let table = transaction.object_store(HEADS).map_err(failed)?;
        let found = table.get(JsValue::from(branch)).map_err(failed)?.await.map_err(failed)?;
        let Some(found) = found else { return Ok(None) };
        let parts = Array::from(&found);
        let number = |at| parts.get(at).as_f64().filter(|n| *n >= 0.0).map(|n| n as u64);
        let (Some(revision), Some(start), Some(end)) = (number(0), number(2), number(3)) else {
            return Err(self.corrupt("a head has no numbers"));
        };
        let record = Uint8Array::new(&parts.get(1)).to_vec().into();
        let deleted = parts.get(4).as_bool().unwrap_or_default();
        Ok(Some(Kept { head: Head { revision, record, log: start..end }, deleted }))
    }

    async fn write_head(
        &self,
        transaction: &Transaction,
        branch: &str,
        Kept { head, deleted }: &Kept,
    ) -> Result<(), StoreError> {
        let failed = |error: idb::Error| self.failed("write", &error);
        let parts = Array::of5(
            &(head.revision as f64).into(),
            &Uint8Array::from(&*head.record).into(),
            &(head.log.start as f64).into(),
            &(head.log.end as f64).into(),
            &(*deleted).into(),
        );
        let table = transaction.object_store(HEADS).map_err(failed)?;
        let put = table.put(&parts, Some(&branch.into())).map_err(failed)?;
        put.await.map_err(failed).map(drop)
    }

    async fn put_blocks(
        &self,
        transaction: &Transaction,
        blocks: &[(Address, Bytes)],
    ) -> Result<(), StoreError> {
        let failed = |error: idb::Error| self.failed("write", &error);
        let table = transaction.object_store(BLOCKS).map_err(failed)?;
        let mut writes = Vec::with_capacity(blocks.len());
        for (address, block) in blocks {
            let put = table.put(&Uint8Array::from(&**block), Some(&key(address)));
            // From here on its answer is listened for.
            writes.push(put.map_err(failed)?.into_future());
        }
        try_join_all(writes).await.map_err(failed)?;
        let mut puts = self.puts.lock();
        puts.clock += 1;
        let clock = puts.clock;
        puts.at.extend(blocks.iter().map(|(address, _)| (*address, clock)));
        Ok(())
    }

    /// Forgets entries from `from` up to `to`.
    async fn drop_log(
        &self,
        transaction: &Transaction,
        branch: &str,
        from: u64,
        to: u64,
    ) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let failed = |error: idb::Error| self.failed("write", &error);
        let range = KeyRange::bound(&entry(branch, from), &entry(branch, to), None, Some(true));
        let table = transaction.object_store(LOG).map_err(failed)?;
        let delete = table.delete(range.map_err(failed)?).map_err(failed)?;
        delete.await.map_err(failed).map(drop)
    }

    async fn step(&self, transaction: &Transaction, batch: &Batch) -> Result<Head, StoreError> {
        let failed = |error: idb::Error| self.failed("write", &error);
        let kept = self.read_head(transaction, &batch.branch).await?;
        let found = kept.as_ref().filter(|kept| !kept.deleted).map(|kept| kept.head.revision);
        if !batch.expect.holds(found) {
            return Err(StoreError::Conflict {
                branch: batch.branch.clone(),
                expected: batch.expect,
                found,
            });
        }
        self.put_blocks(transaction, &batch.blocks).await?;
        let before = kept.as_ref().map(|kept| &kept.head);
        let head = batch.step(before);
        let first = head.log.end - batch.entries.len() as u64;
        let table = transaction.object_store(LOG).map_err(failed)?;
        let mut writes = Vec::with_capacity(batch.entries.len());
        for (number, bytes) in (first..).zip(&batch.entries) {
            let put = table.put(&Uint8Array::from(&**bytes), Some(&entry(&batch.branch, number)));
            writes.push(put.map_err(failed)?.into_future());
        }
        try_join_all(writes).await.map_err(failed)?;
        let start = before.map_or(0, |head| head.log.start);
        self.drop_log(transaction, &batch.branch, start, head.log.start).await?;
        let kept = Kept { head, deleted: false };
        self.write_head(transaction, &batch.branch, &kept).await?;
        Ok(kept.head)
    }

    /// Ends a transaction as the work in it did.
    async fn settle<T>(
        &self,
        transaction: Transaction,
        outcome: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match outcome {
            Ok(done) => finish(&self.name, transaction).await.map(|()| done),
            Err(error) => {
                // It may have been aborted already by what failed.
                if let Ok(transaction) = transaction.abort() {
                    let _ = transaction.await;
                }
                Err(error)
            }
        }
    }
}

/// A head as it is kept: that of a deleted branch remembers its numbers.
struct Kept {
    head: Head,
    deleted: bool,
}

#[async_trait(?Send)]
impl Store for IndexedDbStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities { durable: true, writable: true, ..Capabilities::NONE }
    }

    fn describe(&self) -> String {
        format!("indexeddb:{}", self.name)
    }

    fn identity(&self) -> StoreIdentity {
        self.identity
    }

    async fn get(&self, addresses: &[Address]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let failed = |error: idb::Error| self.failed("read", &error);
        let transaction = self.begin(&[BLOCKS], TransactionMode::ReadOnly)?;
        let table = transaction.object_store(BLOCKS).map_err(failed)?;
        let mut reads = Vec::with_capacity(addresses.len());
        for address in addresses {
            reads.push(table.get(key(address)).map_err(failed)?.into_future());
        }
        let found = try_join_all(reads).await.map_err(failed)?;
        Ok(found.into_iter().map(|found| found.map(|block| bytes_of(&block))).collect())
    }

    async fn contains(&self, addresses: &[Address]) -> Result<Vec<bool>, StoreError> {
        let failed = |error: idb::Error| self.failed("read", &error);
        let transaction = self.begin(&[BLOCKS], TransactionMode::ReadOnly)?;
        let table = transaction.object_store(BLOCKS).map_err(failed)?;
        let mut reads = Vec::with_capacity(addresses.len());
        for address in addresses {
            let count = table.count(Some(Query::Key(key(address)))).map_err(failed)?;
            reads.push(count.into_future());
        }
        let found = try_join_all(reads).await.map_err(failed)?;
        Ok(found.into_iter().map(|count| count > 0).collect())
    }

    async fn put(&self, blocks: Vec<(Address, Bytes)>) -> Result<(), StoreError> {
        check_blocks(&blocks)?;
        let transaction = self.begin(&[BLOCKS], TransactionMode::ReadWrite)?;
        let outcome = self.put_blocks(&transaction, &blocks).await;
        self.settle(transaction, outcome).await
    }

    async fn head(&self, branch: &str) -> Result<Option<Head>, StoreError> {
        check_branch(branch)?;
        let transaction = self.begin(&[HEADS], TransactionMode::ReadOnly)?;
        let kept = self.read_head(&transaction, branch).await?;
        Ok(kept.filter(|kept| !kept.deleted).map(|kept| kept.head))
    }

    async fn commit(&self, batch: Batch) -> Result<Head, StoreError> {
        batch.check()?;
        let transaction = self.begin(&[BLOCKS, HEADS, LOG], TransactionMode::ReadWrite)?;
        let outcome = self.step(&transaction, &batch).await;
        self.settle(transaction, outcome).await
    }

    async fn log(
        &self,
        branch: &str,
        from: u64,
        max_bytes: usize,
    ) -> Result<Vec<Bytes>, StoreError> {
        check_branch(branch)?;
        let failed = |error: idb::Error| self.failed("read", &error);
        let transaction = self.begin(&[HEADS, LOG], TransactionMode::ReadOnly)?;
        let kept = self.read_head(&transaction, branch).await?.filter(|kept| !kept.deleted);
        let Some(Kept { head, .. }) = kept else {
            return Err(StoreError::NoBranch { branch: branch.to_owned() });
        };
        let start = head.log.start;
        if from < start {
            return Err(StoreError::LogGone { branch: branch.to_owned(), from, start });
        }
        let table = transaction.object_store(LOG).map_err(failed)?;
        let (mut entries, mut room, mut next) = (Vec::new(), max_bytes, from);
        while next < head.log.end {
            let until = head.log.end.min(next + PAGE as u64);
            let range =
                KeyRange::bound(&entry(branch, next), &entry(branch, until), None, Some(true));
            let read = table.get_all(Some(range.map_err(failed)?.into()), None).map_err(failed)?;
            for bytes in read.await.map_err(failed)?.iter().map(bytes_of) {
                if !entries.is_empty() && bytes.len() > room {
                    return Ok(entries);
                }
                room = room.saturating_sub(bytes.len());
                entries.push(bytes);
            }
            next = until;
        }
        Ok(entries)
    }

    async fn branches(&self) -> Result<Vec<String>, StoreError> {
        let failed = |error: idb::Error| self.failed("read", &error);
        let transaction = self.begin(&[HEADS], TransactionMode::ReadOnly)?;
        let table = transaction.object_store(HEADS).map_err(failed)?;
        let names = table.get_all_keys(None, None).map_err(failed)?.await.map_err(failed)?;
        let mut live = Vec::new();
        for name in names.iter().filter_map(JsValue::as_string) {
            if self.read_head(&transaction, &name).await?.is_some_and(|kept| !kept.deleted) {
                live.push(name);
            }
        }
        live.sort();
        Ok(live)
    }

    async fn delete_branch(&self, branch: &str, revision: u64) -> Result<(), StoreError> {
        check_branch(branch)?;
        let transaction = self.begin(&[HEADS, LOG], TransactionMode::ReadWrite)?;
        let outcome = async {
            let kept = self.read_head(&transaction, branch).await?.filter(|kept| !kept.deleted);
            let found = kept.as_ref().map(|kept| kept.head.revision);
            let expected = Expect::Revision(revision);
            let Some(Kept { head, .. }) = kept.filter(|_| expected.holds(found)) else {
                return Err(StoreError::Conflict { branch: branch.to_owned(), expected, found });
            };
            self.drop_log(&transaction, branch, head.log.start, head.log.end).await?;
            let end = head.log.end;
            let head = Head { revision: revision + 1, record: Bytes::new(), log: end..end };
            self.write_head(&transaction, branch, &Kept { head, deleted: true }).await
        };
        let outcome = outcome.await;
        self.settle(transaction, outcome).await
    }

    fn mark(&self) -> Mark {
        Mark(self.puts.lock().clock)
    }

    async fn list(
        &self,
        after: Option<Address>,
        limit: usize,
    ) -> Result<Vec<BlockInfo>, StoreError> {
        let failed = |error: idb::Error| self.failed("read", &error);
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let range = || match &after {
            None => Ok(None),
            Some(after) => {
                KeyRange::lower_bound(&key(after), Some(true)).map(|range| Some(range.into()))
            }
        };
        let transaction = self.begin(&[BLOCKS], TransactionMode::ReadOnly)?;
        let table = transaction.object_store(BLOCKS).map_err(failed)?;
        let keys = table.get_all_keys(range().map_err(failed)?, Some(limit)).map_err(failed)?;
        let blocks = table.get_all(range().map_err(failed)?, Some(limit)).map_err(failed)?;
        let (keys, blocks) = (keys.into_future(), blocks.into_future());
        let (keys, blocks) = (keys.await.map_err(failed)?, blocks.await.map_err(failed)?);
        keys.iter()
            .zip(&blocks)
            .map(|(key, block)| {
                let address = <[u8; 32]>::try_from(bytes_of(key).as_ref());
                let address = address.map_err(|_| self.corrupt("a block has no address"))?;
                let bytes = u64::from(Uint8Array::new(block).length());
                Ok(BlockInfo { address: Address(address), bytes })
            })
            .collect()
    }

    async fn collect(&self, garbage: &[Address], since: Mark) -> Result<Reclaimed, StoreError> {
        let failed = |error: idb::Error| self.failed("delete from", &error);
        let transaction = self.begin(&[BLOCKS], TransactionMode::ReadWrite)?;
        let outcome = async {
            let table = transaction.object_store(BLOCKS).map_err(failed)?;
            let mut reclaimed = Reclaimed::default();
            for address in garbage {
                if self.puts.lock().at.get(address).is_some_and(|put| *put > since.0) {
                    continue;
                }
                let found = table.get(key(address)).map_err(failed)?.await.map_err(failed)?;
                if let Some(block) = found {
                    table.delete(key(address)).map_err(failed)?.await.map_err(failed)?;
                    reclaimed.blocks += 1;
                    reclaimed.bytes += u64::from(Uint8Array::new(&block).length());
                }
            }
            Ok(reclaimed)
        };
        let outcome = outcome.await;
        self.settle(transaction, outcome).await
    }

    async fn stats(&self) -> Result<StoreStats, StoreError> {
        let mut stats =
            StoreStats { branches: self.branches().await?.len() as u64, ..StoreStats::default() };
        let mut after = None;
        loop {
            let page = self.list(after, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.address);
            stats.blocks += page.len() as u64;
            stats.block_bytes += page.iter().map(|block| block.bytes).sum::<u64>();
        }
        stats.stored_bytes = stats.block_bytes;
        for branch in self.branches().await? {
            let Some(head) = self.head(&branch).await? else { continue };
            let entries = self.log(&branch, head.log.start, usize::MAX).await?;
            stats.log_bytes += entries.iter().map(|entry| entry.len() as u64).sum::<u64>();
        }
        Ok(stats)
    }

    async fn close(&self) -> Result<(), StoreError> {
        if !self.closed.swap(true, Ordering::AcqRel) {
            self.database.close();
            self.lock.lock().take();
        }
        Ok(())
    }
}

fn key(address: &Address) -> JsValue {
    Uint8Array::from(address.0.as_slice()).into()
}

fn entry(branch: &str, number: u64) -> JsValue {
    Array::of2(&branch.into(), &(number as f64).into()).into()
}

fn bytes_of(value: &JsValue) -> Bytes {
    Uint8Array::new(value).to_vec().into()
}

fn place(name: &str) -> std::path::PathBuf {
    format!("indexeddb:{name}").into()
}

fn failed(name: &str, op: &'static str, error: &idb::Error) -> StoreError {
    let (path, text) = (place(name), error.to_string());
    if text.contains("QuotaExceededError") {
        return StoreError::NoSpace { op, path };
    }
    StoreError::Io { op, path, source: io::Error::other(text) }
}

fn begin(
    name: &str,
    database: &Database,
    tables: &[&str],
    mode: TransactionMode,
) -> Result<Transaction, StoreError> {
    database.transaction(tables, mode).map_err(|error| failed(name, "use", &error))
}

async fn finish(name: &str, transaction: Transaction) -> Result<(), StoreError> {
    let ended = transaction.await.map_err(|error| failed(name, "write", &error))?;
    if ended.is_committed() {
        return Ok(());
    }
    let source = io::Error::other("the browser took the transaction back");
    Err(StoreError::Io { op: "write", path: place(name), source })
}

async fn read_identity(
    name: &str,
    database: &Database,
) -> Result<Option<StoreIdentity>, StoreError> {
    let failed = |error: idb::Error| failed(name, "read", &error);
    let transaction = begin(name, database, &[META], TransactionMode::ReadOnly)?;
    let table = transaction.object_store(META).map_err(failed)?;
    let found = table.get(JsValue::from(IDENTITY)).map_err(failed)?.await.map_err(failed)?;
    let Some(text) = found.and_then(|found| found.as_string()) else { return Ok(None) };
    let identity = text.split_once(' ').and_then(|(id, epoch)| {
        Some(StoreIdentity { id: Uuid::parse_str(id).ok()?, epoch: Uuid::parse_str(epoch).ok()? })
    });
    let reason = "its identity is not readable";
    identity.map(Some).ok_or(StoreError::Corrupt { path: place(name), offset: 0, reason })
}

async fn remove(name: &str) -> Result<(), StoreError> {
    let failed = |error: idb::Error| failed(name, "delete", &error);
    let factory = Factory::new().map_err(failed)?;
    factory.delete(name).map_err(failed)?.await.map_err(failed)
}

async fn open(name: &str) -> Result<(Database, Lock), StoreError> {
    let lock = lock::take(name).await?;
    let failed = |error: idb::Error| failed(name, "open", &error);
    let factory = Factory::new().map_err(failed)?;
    let mut request = factory.open(name, Some(1)).map_err(failed)?;
    request.on_upgrade_needed(|event| {
        // What cannot be made is missed at the first transaction.
        let Ok(database) = event.database() else { return };
        for table in [BLOCKS, HEADS, LOG, META] {
            let _ = database.create_object_store(table, ObjectStoreParams::new());
        }
    });
    Ok((request.await.map_err(failed)?, lock))
}
