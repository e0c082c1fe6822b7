//! Attributes that become indexed or unique when they have data: AVET has all of it at once.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::sync::Arc;

use datahike_core::commit::verify_indexes;
use datahike_core::datom::Datom;
use datahike_core::db::{Components, Db, DbConfig, SchemaFlexibility};
use datahike_core::index::{Index, Indexes, MemoryBlocks, Params, Range, Roots};
use datahike_core::tx::{ResolvedTx, TxOptions};
use datahike_value::{edn, kw};
use proptest::prelude::*;

fn options() -> TxOptions {
    TxOptions::at(1_000).with_index_backfill(true)
}

fn start(flexibility: SchemaFlexibility) -> (Db, Arc<MemoryBlocks>) {
    let params = Params { leaf_target: 4, branch_target: 3, seed: [1, 2] };
    let config = DbConfig::new(flexibility).with_params(params);
    let blocks = Arc::new(MemoryBlocks::default());
    let indexes = Indexes::open(params, true, Roots::default(), blocks.clone());
    (Db::empty(config).with_indexes(indexes), blocks)
}

fn flush(db: &Db, blocks: &MemoryBlocks) -> Db {
    let flushed = db.indexes().flush().unwrap();
    blocks.insert(&flushed.blocks).unwrap();
    db.with_indexes(flushed.indexes)
}

fn transact(db: &Db, log: &mut Vec<ResolvedTx>, forms: &str) -> Db {
    let report = db.with(&edn::read(forms).unwrap(), &options()).unwrap();
    log.push(report.resolved());
    report.db_after
}

/// What AVET shows of an attribute, now and in the past, is what AEVT shows.
fn check(db: &Db, ident: &str) {
    let a = db.schema().attr_id(&datahike_value::Keyword::parse(ident)).unwrap();
    let sorted = |mut datoms: Vec<Datom>| {
        datoms.sort();
        datoms
    };
    for view in [db.clone(), db.history().unwrap()] {
        let all = |range: &Range| view.scan(range).map(Result::unwrap).collect::<Vec<_>>();
        let by_value = all(&Range::avet(a, None));
        assert_eq!(sorted(by_value.clone()), sorted(all(&Range::aevt(a, None))));
        let mut reverse: Vec<_> =
            view.scan_rev(&Range::avet(a, None)).map(Result::unwrap).collect();
        reverse.reverse();
        assert_eq!(reverse, by_value);
    }
    let sliced: usize =
        db.indexes().scan(&Range::avet(a, None)).map(|slice| slice.unwrap().iter().count()).sum();
    assert_eq!(sliced, db.scan(&Range::avet(a, None)).count());
    verify_indexes(db.indexes(), db.schema()).unwrap();
}

#[test]
fn an_attribute_that_becomes_unique_finds_what_was_there() {
    for flushed in [false, true] {
        let (db, blocks) = start(SchemaFlexibility::Write);
        let mut log = Vec::new();
        let declared =
            "[{:db/ident :mail :db/valueType :db.type/string :db/cardinality :db.cardinality/one}]";
        let mut db = transact(&db, &mut log, declared);
        let base = db.clone();
        log.clear();
        db = transact(
            &db,
            &mut log,
            r#"[{:db/id 10 :mail "a"} {:db/id 11 :mail "b"} {:db/id 12 :mail "b"}]"#,
        );
        db = transact(&db, &mut log, r#"[[:db/add 10 :mail "c"]]"#);
        if flushed {
            db = flush(&db, &blocks);
        }
        let unique = edn::read("[[:db/add :mail :db/unique :db.unique/identity]]").unwrap();
        let refused = db.with(&unique, &TxOptions::at(1_000)).unwrap_err();
        assert_eq!(refused.code(), Some("transact/schema"));
        let refused = db.with(&unique, &options()).unwrap_err();
        assert!(refused.to_string().contains("same value"), "{refused}");
        db = transact(
            &db,
            &mut log,
            r#"[[:db/add 12 :mail "d"] [:db/add :mail :db/unique :db.unique/identity]]"#,
        );
        check(&db, "mail");
        assert_eq!(db.entid(&edn::read(r#"[:mail "b"]"#).unwrap()).unwrap(), Some(11));
        db = transact(
            &db,
            &mut log,
            r#"[{:mail "c" :db/doc "upserts"} [:db/retract 11 :mail "b"]]"#,
        );
        let datoms =
            db.datoms(Index::Avet, &Components::from(vec![kw!("mail").clone().into()])).unwrap();
        assert_eq!(datoms.map(|d| d.unwrap().e).collect::<Vec<_>>(), [10, 12]);
        check(&db, "mail");
        let replayed = base.apply_all(&log);
        check(&replayed, "mail");
        let roots = *flush(&db, &blocks).indexes().roots();
        check(&flush(&db, &blocks), "mail");
        assert_eq!(*flush(&replayed, &blocks).indexes().roots(), roots);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn whenever_it_is_read_and_flushed_avet_is_complete(
        steps in prop::collection::vec((0_u8..12, 100_u64..104, 0_i64..4), 1..24),
        indexed_at in 0_usize..24,
    ) {
        let (mut db, blocks) = start(SchemaFlexibility::Read);
        let mut log = Vec::new();
        db = transact(&db, &mut log, "[[:db/add 99 :n 1]]");
        let mut indexed = false;
        for (at, (step, e, v)) in steps.iter().enumerate() {
            if at == indexed_at {
                indexed = true;
                db = transact(&db, &mut log, "[{:db/ident :n :db/index true}]");
            }
            match step {
                0..6 => db = transact(&db, &mut log, &format!("[[:db/add {e} :n {v}]]")),
                6..8 => db = transact(&db, &mut log, &format!("[[:db/retract {e} :n {v}]]")),
                8 => db = transact(&db, &mut log, &format!("[[:db/purge {e} :n {v}] [:db/add {e} :n 3]]")),
                9 => db = flush(&db, &blocks),
                _ if indexed => check(&db, "n"),
                _ => {}
            }
        }
        if indexed {
            check(&db, "n");
            check(&flush(&db, &blocks), "n");
        }
        let (empty, _) = start(SchemaFlexibility::Read);
        let replayed = empty.apply_all(&log);
        prop_assert!(replayed.same_datoms(&db).unwrap());
        prop_assert_eq!(
            *flush(&replayed, &blocks).indexes().roots(),
            *flush(&db, &blocks).indexes().roots()
        );
    }
}
