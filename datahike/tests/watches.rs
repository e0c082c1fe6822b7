//! Watched queries on a live connection.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeSet;

use datahike::config::SchemaFlexibility;
use datahike::core::query::Strategy;
use datahike::{Config, Connection, Value, Watch, connect, create_database, edn};

const NAMES: &str = "[:find ?n :where [_ :name ?n]]";
const OLD: &str = "[:find ?n ?a :in $ ?min :where [?e :name ?n] [?e :age ?a] [(>= ?a ?min)]]";
const COUNT: &str = "[:find ?a (count ?e) :where [?e :age ?a]]";
const FIRST: &str = "[:find ?n :where [?e :name ?n] :order-by [?n :asc] :limit 3]";

async fn connection() -> Connection {
    let config = Config::memory().schema_flexibility(SchemaFlexibility::Read).initial_tx(form(
        "[{:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
           :db/unique :db.unique/identity}]",
    ));
    connect(&create_database(&config).await.unwrap()).await.unwrap()
}

fn form(text: &str) -> Value {
    edn::read(text).unwrap()
}

fn now(conn: &Connection, query: &str, inputs: &[Value]) -> BTreeSet<Value> {
    let found = conn.q(query, inputs).unwrap().into_value();
    match &found {
        Value::Set(rows) => rows.iter().cloned().collect(),
        rows => rows.as_slice().unwrap().iter().cloned().collect(),
    }
}

/// Follows a watch until its rows are as of `tx`; checks each change against the rows before it.
async fn follow(mut watch: Watch, expected: &BTreeSet<Value>) {
    while watch.rows() != expected {
        let before = watch.rows().clone();
        let (seen, change) = (watch.as_of(), watch.next().await.unwrap().unwrap());
        assert!(change.added.iter().all(|row| !before.contains(row)), "{change:?}");
        assert!(change.removed.iter().all(|row| before.contains(row)), "{change:?}");
        assert!(change.from > seen && change.to >= change.from, "{seen} {change:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_begin_at_any_time_come_to_the_same_rows() {
    let conn = connection().await;
    let queries: [(&str, Vec<Value>); 4] =
        [(NAMES, vec![]), (OLD, vec![5.into()]), (COUNT, vec![]), (FIRST, vec![])];
    let writer = tokio::spawn({
        let conn = conn.clone();
        async move {
            for n in 0..200 {
                let (a, b) = (n * 7 % 23, n * 3 % 17);
                let data = match n % 5 {
                    4 => format!("[[:db/retractEntity [:name \"n{a}\"]] {{:name \"m{n}\"}}]"),
                    _ => format!("[{{:name \"n{a}\" :age {b}}}]"),
                };
                // Who is gone cannot be retracted.
                let _ = conn.transact(form(&data)).await;
            }
        }
    });
    let mut watches = Vec::new();
    for _ in 0..30 {
        for (query, inputs) in &queries {
            watches.push((*query, inputs, conn.watch(query, inputs).await.unwrap()));
        }
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    for (query, inputs, watch) in watches {
        let expected = now(&conn, query, inputs);
        let done =
            tokio::time::timeout(std::time::Duration::from_secs(20), follow(watch, &expected));
        done.await.unwrap_or_else(|_| panic!("{query} did not come to {expected:?}"));
    }
    conn.release().await.unwrap();
}

#[tokio::test]
async fn each_watch_of_one_query_is_told_and_all_end_with_the_connection() {
    let conn = connection().await;
    let mut first = conn.watch(NAMES, &[]).await.unwrap();
    conn.transact(form("[{:name \"a\"}]")).await.unwrap();
    first.next().await.unwrap().unwrap();
    let mut second = conn.watch(NAMES, &[]).await.unwrap();
    assert_eq!(second.rows().len(), 1);
    assert_eq!(second.strategy(), Strategy::Deltas);
    conn.transact(form("[{:name \"b\"}]")).await.unwrap();
    for watch in [&mut first, &mut second] {
        let change = watch.next().await.unwrap().unwrap();
        assert_eq!((change.added, change.removed), (vec![form("[\"b\"]")], vec![]));
    }
    drop(first);
    conn.transact(form("[{:name \"c\"}]")).await.unwrap();
    conn.release().await.unwrap();
    assert_eq!(second.next().await.unwrap().unwrap().added, [form("[\"c\"]")]);
    assert!(second.next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_slow_consumer_gets_one_change_for_many() {
    let conn = connection().await;
    let mut watch = conn.watch(NAMES, &[]).await.unwrap();
    let mut other = conn.watch(COUNT, &[]).await.unwrap();
    for n in 0..500 {
        conn.transact(form(&format!("[{{:name \"n{n}\" :age 1}}]"))).await.unwrap();
    }
    let all = BTreeSet::from([form("[1 500]")]);
    while other.rows() != &all {
        other.next().await.unwrap().unwrap();
    }
    let mut changes = 0;
    while watch.rows().len() < 500 {
        watch.next().await.unwrap().unwrap();
        changes += 1;
    }
    assert!(changes <= 66, "{changes} changes");
    conn.release().await.unwrap();
}

#[tokio::test]
async fn a_pulled_entity_is_followed_through_its_references() {
    let conn = connection().await;
    conn.transact(form(
        "[{:db/ident :friend :db/valueType :db.type/ref :db/cardinality :db.cardinality/one}
          {:db/id 100 :name \"Ada\" :friend {:db/id 101 :name \"Bob\"}}]",
    ))
    .await
    .unwrap();
    let mut watch = conn.watch_pull("[:name {:friend [:name]}]", &100.into()).await.unwrap();
    let mut whole = conn.watch_entity(&101.into()).await.unwrap();
    conn.transact(form("[{:db/id 101 :age 3}]")).await.unwrap();
    conn.transact(form("[{:db/id 101 :name \"Bea\"}]")).await.unwrap();
    let change = watch.next().await.unwrap().unwrap();
    assert_eq!(change.added, [form("{:name \"Ada\" :friend {:name \"Bea\"}}")]);
    let all = BTreeSet::from([form("{:db/id 101 :name \"Bea\" :age 3}")]);
    while whole.rows() != &all {
        whole.next().await.unwrap().unwrap();
    }
    conn.release().await.unwrap();
}

#[tokio::test]
async fn a_query_that_fails_for_a_while_is_tried_again() {
    let conn = connection().await;
    conn.transact(form("[{:name \"Ada\" :age 3}]")).await.unwrap();
    let query = "[:find ?a :where [[:name \"Ada\"] :age ?a]]";
    let mut watch = conn.watch(query, &[]).await.unwrap();
    assert!(matches!(watch.strategy(), Strategy::Again(_)));
    conn.transact(form("[[:db/retractEntity [:name \"Ada\"]]]")).await.unwrap();
    let error = watch.next().await.unwrap_err();
    assert_eq!(error.code(), "entity-id/missing", "{error}");
    conn.transact(form("[{:name \"Ada\" :age 4}]")).await.unwrap();
    let change = watch.next().await.unwrap().unwrap();
    assert_eq!((change.added, change.removed), (vec![form("[4]")], vec![form("[3]")]));
    conn.release().await.unwrap();
}
