//! Operations, bulk loads and compaction, through the public interface.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use datahike::core::datom::Datom;
use datahike::core::schema::system;
use datahike::core::tx::ResolvedTx;
use datahike::ops::{Bounds, OPERATIONS, operation};
use datahike::{
    BulkLoad, Config, Connection, Error, Keep, Value, compact, connect, create_database, edn,
};
use tempfile::TempDir;

fn form(text: &str) -> Value {
    edn::read(text).unwrap()
}

async fn numbers(folder: &TempDir, count: usize) -> Connection {
    let config = create_database(&Config::file(folder.path().join("db"))).await.unwrap();
    let conn = connect(&config).await.unwrap();
    let schema = "[{:db/ident :n :db/valueType :db.type/long :db/cardinality :db.cardinality/one}]";
    conn.transact(form(schema)).await.unwrap();
    let maps = (0..count).map(|n| format!("{{:n {n}}}")).collect::<String>();
    conn.transact(form(&format!("[{maps}]"))).await.unwrap();
    conn
}

async fn call(conn: &Connection, name: &str, arguments: &str) -> Result<Value, Error> {
    operation(name).unwrap().call_on(conn, &form(arguments), Bounds::SERVED).await
}

#[tokio::test]
async fn operations_check_their_arguments() {
    let folder = tempfile::tempdir().unwrap();
    let conn = numbers(&folder, 3).await;
    for (name, arguments, expected) in [
        ("q", "{}", ":query is missing"),
        ("q", "{:query [:find ?e] :limit 3}", "it takes no :limit"),
        ("q", "[:find]", "no map"),
        ("q", "{:query [:find ?e :where [?e :n]] :as-of \"then\"}", ":as-of is neither"),
        ("datoms", "{:index :vaet}", ":eavt, :aevt or :avet"),
        ("datoms", "{:index :eavt :limit -1}", ":limit is no natural number"),
        ("transact", "{:tx-data [] :client 1}", ":client is no uuid"),
        ("transact", "{:tx-data [] :request 1}", "go together"),
        ("list", "{}", "no single database"),
    ] {
        let error = call(&conn, name, arguments).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{name} {arguments}: {error}");
        assert_eq!(error.code(), "arguments/invalid");
    }
    let names: Vec<&str> = OPERATIONS.iter().map(|operation| operation.name).collect();
    assert!(names.is_sorted() && names.windows(2).all(|two| two[0] != two[1]), "{names:?}");
}

#[tokio::test]
async fn served_queries_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let conn = numbers(&folder, 2_000).await;
    let cross =
        "{:query [:find (count ?a) . :where [?a :n] [?b :n] [?c :n] [(< ?a ?b)] [(< ?b ?c)]]}";
    let q = operation("q").unwrap();
    let few_rows = Bounds { rows: 10_000, ..Bounds::SERVED };
    let error = q.call_on(&conn, &form(cross), few_rows).await.unwrap_err();
    assert_eq!(error.code(), "query/rows");
    let no_time =
        Bounds { time: Some(Duration::from_millis(1)), rows: usize::MAX, ..Bounds::SERVED };
    let error = q.call_on(&conn, &form(cross), no_time).await.unwrap_err();
    assert!(["query/timeout", "query/memory"].contains(&error.code()), "{error}");
}

#[tokio::test]
async fn an_export_is_the_same_by_pages_and_while_it_grows() {
    let folder = tempfile::tempdir().unwrap();
    let conn = numbers(&folder, 45_000).await;
    let whole: Vec<Value> = {
        let db = conn.db().history().unwrap();
        db.all_datoms().map(|datom| db.datom_value(&datom.unwrap())).collect()
    };
    let mut pages = Vec::new();
    let mut next = "{}".to_owned();
    let mut count = 0;
    loop {
        let page = call(&conn, "export", &next).await.unwrap();
        pages.extend(page.get(&datahike::kw!("datoms")).unwrap().as_slice().unwrap().to_vec());
        count += 1;
        conn.transact(form("[{:n 1}]")).await.unwrap();
        let basis = page.get(&datahike::kw!("basis")).unwrap();
        match page.get(&datahike::kw!("next")).unwrap() {
            Value::Nil => break,
            from => next = format!("{{:from {from} :basis {basis}}}"),
        }
    }
    assert!(count > 2, "{count} pages");
    assert_eq!(pages, whole);
}

#[tokio::test]
async fn what_is_loaded_in_bulk_is_like_what_is_transacted() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let conn = numbers(&one, 500).await;
    let expected = conn.db();
    let config = create_database(&Config::file(other.path().join("db"))).await.unwrap();
    let mut load = BulkLoad::open(&config).await.unwrap();
    assert!(matches!(connect(&config).await, Err(Error::Store(_))), "the store is locked");
    let schema = "[{:db/ident :n :db/valueType :db.type/long :db/cardinality :db.cardinality/one}]";
    load.transact(&form(schema)).await.unwrap();
    load.commit().await.unwrap();
    let a = load.db().schema().attr_id(&datahike::kw!("n")).unwrap();
    let counters = load.db().counters();
    let (tx, e, at) = (counters.max_tx + 1, counters.next_entity(), load.next_instant());
    let datom = |e, a, v| Datom { e, a, v, tx, added: true };
    let rows = (0..500).map(|n| datom(e + n, a, Value::Long(n as i64)));
    let all = std::iter::once(datom(tx, system::TX_INSTANT, Value::Inst(at))).chain(rows);
    load.add(ResolvedTx::new(tx, all.collect::<Vec<_>>()));
    load.finish().await.unwrap();

    let conn = connect(&config).await.unwrap();
    assert_eq!(conn.db().indexes().tail_len(), 0);
    let facts = |db: &datahike::Db| -> Vec<Datom> {
        db.all_datoms().map(Result::unwrap).filter(|d| d.a != system::TX_INSTANT).collect()
    };
    assert_eq!(facts(&conn.db()), facts(&expected));
    let next = conn.transact(form("[{:db/id \"new\" :n 1}]")).await.unwrap();
    assert_eq!((next.tx, next.tempids[&"new".into()]), (tx + 1, e + 500));
}

#[tokio::test]
async fn a_load_that_was_cut_short_keeps_what_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let config = create_database(&Config::file(folder.path().join("db"))).await.unwrap();
    let mut load = BulkLoad::open(&config).await.unwrap();
    load.transact(&form("[{:db/ident :kept}]")).await.unwrap();
    load.commit().await.unwrap();
    load.transact(&form("[{:db/ident :lost}]")).await.unwrap();
    drop(load);
    let conn = connect(&config).await.unwrap();
    assert!(conn.entid(&form(":kept")).unwrap().is_some());
    assert!(conn.entid(&form(":lost")).unwrap().is_none());
}

#[tokio::test]
async fn compaction_gives_back_what_nobody_reaches() {
    let folder = tempfile::tempdir().unwrap();
    let conn = numbers(&folder, 5_000).await;
    let mut sizes = Vec::new();
    for round in 0..5 {
        let changes =
            (0..200).map(|n| format!("[:db/add {} :n {round}]", 2 + n * 17)).collect::<String>();
        conn.transact(form(&format!("[{changes}]"))).await.unwrap();
        conn.flush().await.unwrap();
        sizes.push(conn.branch().store().stats().await.unwrap().blocks);
    }
    assert!(sizes.is_sorted(), "{sizes:?}");
    let datoms = || -> Vec<Datom> {
        let db = conn.db().history().unwrap();
        db.all_datoms().map(Result::unwrap).collect()
    };
    let before = datoms();

    let young = Keep { younger_than: Duration::from_secs(3_600) };
    let kept = compact(&conn, young).await.unwrap();
    let blocks = conn.branch().store().stats().await.unwrap().blocks;
    assert_eq!(kept.kept_blocks, blocks);
    let done = compact(&conn, Keep::default()).await.unwrap();
    assert!(done.reclaimed.blocks > 0 && done.kept_blocks < kept.kept_blocks, "{done:?}");
    assert_eq!(datoms(), before);

    conn.release().await.unwrap();
    let conn = connect(&Config::file(folder.path().join("db"))).await.unwrap();
    let db = conn.db().history().unwrap();
    assert_eq!(db.all_datoms().map(Result::unwrap).collect::<Vec<_>>(), before);
    assert_eq!(compact(&conn, Keep::default()).await.unwrap().reclaimed.blocks, 0);
}
