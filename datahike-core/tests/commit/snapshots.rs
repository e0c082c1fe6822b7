//! Flush records and what is opened from them.

use std::sync::Arc;

use datahike_core::block::{Address, BlockSource};
use datahike_core::commit::{
    CommitError, FlushRecord, Head, Position, VerifyError, open, replay, verify_indexes,
};
use datahike_core::db::{Db, DbConfig, SchemaFlexibility};
use datahike_core::index::{Index, Indexes, MemoryBlocks, Params};
use datahike_core::schema::system;
use datahike_core::tx::ResolvedTx;
use datahike_value::{Keyword, kw};
use proptest::prelude::*;

use crate::made::{FIRST, config, datom, entry, retracted, transaction};

/// Trees of several levels from few datoms.
fn small_blocks() -> DbConfig {
    let params = Params { leaf_target: 8, branch_target: 4, ..Params::default() };
    DbConfig::new(SchemaFlexibility::Read).with_params(params)
}

/// The first transaction names attributes and declares one of them indexed; each after it states
/// and takes back.
fn history(count: u64) -> Vec<ResolvedTx> {
    let first = transaction(
        1,
        vec![
            datom(1, system::IDENT.0, kw!("city/name"), 1),
            datom(1, system::INDEX.0, true, 1),
            datom(1, system::CARDINALITY.0, kw!("db.cardinality/many"), 1),
        ],
    );
    let new_attributes = ["city/name", "city/people"].map(Keyword::parse).into();
    let mut transactions = vec![ResolvedTx { new_attributes, ..first }];
    for tx in 2..=count {
        let e = 10 + tx * 7 % 40;
        let name = format!("city {}", tx % 5);
        let mut datoms = vec![datom(1000 + tx, FIRST + 1, i64::try_from(tx).unwrap_or(0), tx)];
        let stated = transactions
            .iter()
            .flat_map(|tx| tx.datoms.iter())
            .rfind(|d| d.e == e && d.a.0 == FIRST && d.v.as_str() == Some(&name));
        datoms.push(match stated.is_some_and(|d| d.added) {
            true => retracted(e, FIRST, name, tx),
            false => datom(e, FIRST, name, tx),
        });
        transactions.push(transaction(tx, datoms));
    }
    transactions
}

struct Log {
    entries: Vec<Vec<u8>>,
    places: Vec<Position>,
}

fn logged(transactions: &[ResolvedTx], group: usize) -> Log {
    let mut log = Log { entries: Vec::new(), places: vec![Position::START] };
    for group in transactions.chunks(group) {
        let (bytes, at) = entry(group.to_vec()).encode(&log.places[log.places.len() - 1]);
        log.entries.push(bytes);
        log.places.push(at);
    }
    log
}

/// Writes out the tail; the flush record as it reads back from its bytes, and its address.
fn flush(db: &Db, at: Position, blocks: &Arc<MemoryBlocks>) -> (FlushRecord, Address) {
    let flushed = db.indexes().flush().unwrap();
    blocks.insert(&flushed.blocks).unwrap();
    let record = FlushRecord::of(db, at, None, flushed.roots);
    let bytes = record.encode();
    let read = FlushRecord::decode(&bytes).unwrap();
    assert_eq!(read.encode(), bytes);
    (read, Address::of(&bytes))
}

fn source(blocks: &Arc<MemoryBlocks>) -> Arc<dyn BlockSource> {
    Arc::clone(blocks) as _
}

#[test]
fn a_snapshot_is_its_flush_record_and_the_log_after_it() {
    let transactions = history(60);
    let log = logged(&transactions, 1);
    let whole = Db::empty(small_blocks()).apply_all(&transactions);
    let blocks = Arc::new(MemoryBlocks::default());
    for cut in [0, 1, 2, 30, 60] {
        let flushed = Db::empty(small_blocks()).apply_all(&transactions[..cut]);
        let (record, _) = flush(&flushed, log.places[cut], &blocks);
        let opened = open(&record, source(&blocks));
        assert!(opened.same_datoms(&flushed).unwrap());
        let mut seen = 0;
        let rest = log.entries[cut..].iter().map(Vec::as_slice);
        let (db, at) = replay(&opened, record.at, rest, |_| seen += 1).unwrap();
        assert_eq!((seen, at), (60 - cut, log.places[60]));
        assert_eq!(db.counters(), whole.counters());
        assert_eq!(db.schema().to_record(), whole.schema().to_record());
        assert_eq!(db.config(), whole.config());
        assert!(db.same_datoms(&whole).unwrap());
        assert!(db.history().unwrap().same_datoms(&whole.history().unwrap()).unwrap());
    }
}

#[test]
fn a_log_that_does_not_follow_is_refused() {
    let transactions = history(4);
    let log = logged(&transactions, 1);
    let db = Db::empty(small_blocks());
    let skipped = log.entries[1..].iter().map(Vec::as_slice);
    let error = replay(&db, Position::START, skipped, |_| {}).unwrap_err();
    assert!(matches!(error, CommitError::Parent { seq: 1, .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, ..config() })]

    /// A mirror that folds at the same commit makes the same block, whenever it folded before.
    #[test]
    fn the_flush_record_depends_on_the_commit_alone(cuts in prop::collection::btree_set(1..60usize, 0..4)) {
        let transactions = history(60);
        let log = logged(&transactions, 1);
        let at_once = Arc::new(MemoryBlocks::default());
        let whole = Db::empty(small_blocks()).apply_all(&transactions);
        let (_, expected) = flush(&whole, log.places[60], &at_once);

        let blocks = Arc::new(MemoryBlocks::default());
        let mut db = Db::empty(small_blocks());
        let mut done = 0;
        for cut in cuts.into_iter().chain([60]) {
            db = db.apply_all(&transactions[done..cut]);
            let (record, address) = flush(&db, log.places[cut], &blocks);
            db = open(&record, source(&blocks));
            done = cut;
            if cut == 60 {
                prop_assert_eq!(address, expected);
            }
        }
        let verified = verify_indexes(db.indexes(), db.schema()).unwrap();
        prop_assert_eq!(verified, verify_indexes(whole.indexes(), whole.schema()).unwrap());
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn mutated_records_decode_or_fail_but_never_panic(
        at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>(),
    ) {
        let db = Db::empty(small_blocks()).apply_all(&history(4));
        let flushed = db.indexes().flush().unwrap();
        let mut bytes = FlushRecord::of(&db, Position::START, Some(Address([9; 32])), flushed.roots).encode();
        prop_assert!(FlushRecord::decode(&bytes[..cut.index(bytes.len())]).is_err());
        let place = at.index(bytes.len());
        bytes[place] = byte;
        if let Ok(record) = FlushRecord::decode(&bytes) {
            // What is accepted can be worked with: another block size makes other trees, no panic.
            let opened = open(&record, Arc::new(MemoryBlocks::default()));
            let _ = opened.apply_all(&history(4)).indexes().flush();
        }
        let head = Head { flush_record: Address([1; 32]), flush: Position::START, log_base: -3, dedup: Some(Address([2; 32])) };
        let mut bytes = head.encode();
        prop_assert_eq!(Head::decode(&bytes), Ok(head));
        let place = at.index(bytes.len());
        bytes[place] = byte;
        let _ = Head::decode(&bytes);
    }
}

#[test]
fn grouping_changes_the_commits_and_not_the_datoms() {
    let transactions = history(9);
    let (single, grouped) = (logged(&transactions, 1), logged(&transactions, 4));
    assert_eq!((single.entries.len(), grouped.entries.len()), (9, 3));
    let replayed = |log: &Log| {
        let entries = log.entries.iter().map(Vec::as_slice);
        replay(&Db::empty(small_blocks()), Position::START, entries, |_| {}).unwrap().0
    };
    assert!(replayed(&single).same_datoms(&replayed(&grouped)).unwrap());
}

#[test]
fn roots_of_another_database_are_found_out() {
    let blocks = Arc::new(MemoryBlocks::default());
    let roots = |transactions: &[ResolvedTx]| {
        let db = Db::empty(small_blocks()).apply_all(transactions);
        (flush(&db, Position::START, &blocks).0.roots, db)
    };
    let ((right, db), (other, _)) = (roots(&history(60)), roots(&history(59)));
    for index in [Index::Aevt, Index::Avet] {
        for history in [false, true] {
            let mut mixed = right;
            let place = index.number();
            match history {
                false => mixed.current[place] = other.current[place],
                true => mixed.history[place] = other.history[place],
            }
            if mixed == right {
                continue;
            }
            let config = db.config();
            let indexes = Indexes::open(config.params, config.keep_history, mixed, source(&blocks));
            let error = verify_indexes(&indexes, db.schema()).unwrap_err();
            assert!(matches!(error, VerifyError::Contents { index: found, .. } if found == index));
        }
    }
}
