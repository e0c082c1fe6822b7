//! Databases in this process: durability, order, listeners, read-only readers.

#![expect(clippy::unwrap_used, reason = "a test may fail anywhere")]

use datahike::config::{SchemaFlexibility, WriterConfig};
use datahike::{
    Config, Error, Transacted, Transaction, TxEvent, Uuid, Value, commit::RequestId, connect,
    create_database, database_exists, delete_database, edn,
};

fn form(text: &str) -> Value {
    edn::read(text).unwrap()
}

fn file(folder: &tempfile::TempDir) -> Config {
    Config::file(folder.path().join("db")).schema_flexibility(SchemaFlexibility::Read)
}

const COUNT: &str = "[:find (count ?e) . :where [?e :n]]";

#[tokio::test]
async fn what_was_acknowledged_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let config = create_database(&file(&folder)).await.unwrap();
    let conn = connect(&config).await.unwrap();
    let mut tx = 0;
    for n in 0..50 {
        tx = conn.transact(form(&format!("[{{:n {n}}}]"))).await.unwrap().tx;
    }
    conn.release().await.unwrap();

    let conn = connect(&config).await.unwrap();
    assert_eq!(conn.q(COUNT, &[]).unwrap().into_value(), 50.into());
    assert_eq!(conn.db().max_tx(), tx);
    conn.flush().await.unwrap();
    conn.transact(form("[{:n 50}]")).await.unwrap();
    assert_eq!(conn.q(COUNT, &[]).unwrap().into_value(), 51.into());
    conn.release().await.unwrap();

    let conn = connect(&config).await.unwrap();
    assert_eq!(conn.q(COUNT, &[]).unwrap().into_value(), 51.into());
    assert_eq!(conn.db().max_tx(), tx + 1);
    conn.release().await.unwrap();
    delete_database(&config).await.unwrap();
    assert!(!database_exists(&config).await.unwrap());
}

#[tokio::test]
async fn a_flush_in_between_changes_nothing_that_is_seen() {
    let config = Config::memory().schema_flexibility(SchemaFlexibility::Read);
    let config = create_database(&config).await.unwrap();
    let conn = connect(&config).await.unwrap();
    for round in 0..4 {
        for n in 0..800 {
            let data =
                form(&format!("[{{:n {} :t \"x{n}\"}} [:db/add 1 :r {n}]]", round * 800 + n));
            conn.transact(data).await.unwrap();
        }
        let before = conn.db();
        conn.flush().await.unwrap();
        let after = conn.db();
        assert_eq!(after.indexes().tail_len(), 0);
        assert!(before.same_datoms(&after).unwrap());
        let (before, after) = (before.history().unwrap(), after.history().unwrap());
        assert!(before.same_datoms(&after).unwrap());
    }
    assert_eq!(conn.q(COUNT, &[]).unwrap().into_value(), 3200.into());
}

#[tokio::test]
async fn a_purge_takes_the_log_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let config = create_database(&file(&folder)).await.unwrap();
    let conn = connect(&config).await.unwrap();
    conn.transact(form("[{:db/id 1 :n 1 :secret \"sesame\"} {:n 2}]")).await.unwrap();
    conn.transact(form("[[:db/retract 1 :secret \"sesame\"]]")).await.unwrap();
    let report = conn.transact(form("[[:db/purge 1 :secret \"sesame\"]]")).await.unwrap();
    assert_eq!((report.purged.len(), report.tx_data.len()), (2, 1));
    conn.flush().await.unwrap();
    let log = conn.branch().store().head("db").await.unwrap().unwrap().log;
    assert!(log.is_empty() && log.end > 0, "{log:?}");
    conn.transact(form("[{:n 3}]")).await.unwrap();
    conn.release().await.unwrap();

    let conn = connect(&config).await.unwrap();
    assert_eq!(conn.q(COUNT, &[]).unwrap().into_value(), 3.into());
    let past = conn.db().history().unwrap();
    assert!(past.all_datoms().all(|datom| datom.unwrap().v != "sesame".into()));
}

#[tokio::test]
async fn transactions_that_wait_together_each_have_their_own_report() {
    let config = Config::memory().schema_flexibility(SchemaFlexibility::Read);
    let config = create_database(&config).await.unwrap();
    let conn = connect(&config).await.unwrap();
    let all = (0..200).map(|n| conn.transact(form(&format!("[{{:n {n}}}]"))));
    let reports = futures::future::join_all(all).await;
    let mut reports: Vec<_> = reports.into_iter().map(Result::unwrap).collect();
    reports.sort_by_key(|report| report.tx);
    let mut last = None;
    for report in reports {
        assert_eq!(report.db_after.max_tx(), report.tx);
        assert_eq!(report.db_before.max_tx() + 1, report.tx);
        assert!(last.is_none_or(|last| last < report.tx_instant));
        last = Some(report.tx_instant);
    }
}

#[tokio::test]
async fn listeners_hear_every_transaction_once_and_in_order() {
    let config = Config::memory().schema_flexibility(SchemaFlexibility::Read);
    let config = create_database(&config).await.unwrap();
    let conn = connect(&config).await.unwrap();
    let (sender, heard) = std::sync::mpsc::channel();
    conn.listen("test", move |event| {
        let TxEvent::Report(report) = event else { panic!("no gap is due") };
        sender.send(report.tx).unwrap();
    })
    .unwrap();
    let mut made = Vec::new();
    for n in 0..100 {
        made.push(conn.transact(form(&format!("[{{:n {n}}}]"))).await.unwrap().tx);
    }
    let heard: Vec<_> = heard.iter().take(100).collect();
    assert_eq!(heard, made);
    assert!(conn.unlisten("test"));
    assert!(!conn.unlisten("test"));
}

#[tokio::test]
async fn a_request_happens_once() {
    let folder = tempfile::tempdir().unwrap();
    let config = create_database(&file(&folder)).await.unwrap();
    let conn = connect(&config).await.unwrap();
    let ask = |number, text: &str| Transaction {
        request: Some(RequestId { client: Uuid::from_u128(7), number }),
        ..Transaction::new(form(text))
    };
    let first = conn.transact_with(ask(1, "[{:db/id -1 :n 1}]")).await.unwrap();
    let Transacted::Now(first) = first else { panic!("it is new") };
    for flush in [false, true, false] {
        if flush {
            conn.flush().await.unwrap();
        }
        let again = conn.transact_with(ask(1, "[{:db/id -1 :n 1}]")).await.unwrap();
        let Transacted::Before(again) = again else { panic!("it happened before") };
        assert_eq!(again.tx, first.tx);
        assert!(again.tempids.contains(&((-1).into(), 1)));
    }
    conn.release().await.unwrap();
    let conn = connect(&config).await.unwrap();
    let again = conn.transact_with(ask(1, "[{:db/id -1 :n 1}]")).await.unwrap();
    assert!(matches!(again, Transacted::Before(again) if again.tx == first.tx));
    let other = conn.transact_with(ask(1, "[{:n 2}]")).await.unwrap_err();
    assert_eq!(other.code(), "transact/request-reused");
    assert_eq!(conn.q(COUNT, &[]).unwrap().into_value(), 1.into());
}

#[tokio::test]
async fn a_reader_of_the_folder_sees_each_new_head() {
    let folder = tempfile::tempdir().unwrap();
    let config = create_database(&file(&folder)).await.unwrap();
    let writer = connect(&config).await.unwrap();
    let reader = connect(&config.clone().writer(WriterConfig::ReadOnly)).await.unwrap();
    for n in 0..10 {
        writer.transact(form(&format!("[{{:n {n}}}]"))).await.unwrap();
        if n == 5 {
            writer.flush().await.unwrap();
        }
        assert_eq!(reader.q(COUNT, &[]).unwrap().into_value(), (n + 1).into());
    }
    let refused = reader.transact(form("[{:n 1}]")).await.unwrap_err();
    assert_eq!(refused.code(), "connection/read-only");
    let second = connect(&config).await.unwrap_err();
    assert_eq!(second.code(), "store/locked");
}

#[tokio::test]
async fn a_watched_query_tells_what_came_and_went() {
    let config = Config::memory().schema_flexibility(SchemaFlexibility::Read);
    let config = create_database(&config).await.unwrap();
    let conn = connect(&config).await.unwrap();
    conn.transact(form("[{:db/id 1 :name \"Ada\"}]")).await.unwrap();
    let mut watch = conn.watch("[:find ?n :where [_ :name ?n]]", &[]).await.unwrap();
    assert_eq!(watch.rows().len(), 1);
    conn.transact(form("[{:db/id 2 :age 3}]")).await.unwrap();
    let report = conn.transact(form("[{:db/id 1 :name \"Bea\"}]")).await.unwrap();
    let change = watch.next().await.unwrap().unwrap();
    assert_eq!(change.added, [Value::vector(["Bea".into()])]);
    assert_eq!(change.removed, [Value::vector(["Ada".into()])]);
    assert_eq!(change.to, report.tx);
}

#[tokio::test]
async fn an_initial_transaction_is_applied_or_nothing_is_created() {
    let config = Config::memory().initial_tx(form(
        "[{:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one}]",
    ));
    let created = create_database(&config).await.unwrap();
    let conn = connect(&created).await.unwrap();
    conn.transact(form("[{:name \"Ada\"}]")).await.unwrap();
    let refused = conn.transact(form("[{:nme \"Ada\"}]")).await.unwrap_err();
    assert_eq!(refused.code(), "transact/schema");
    assert!(refused.to_string().contains(":name"), "{refused}");

    let config = Config::memory().initial_tx(form("[{:unknown 1}]"));
    assert!(matches!(create_database(&config).await, Err(Error::Tx(_))));
    assert!(!database_exists(&config).await.unwrap());
}

#[tokio::test]
async fn what_is_to_be_done_elsewhere_is_not_done_here() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = file(&folder);
    let local = config.clone();
    config.remote_peer =
        "{:store {:backend :memory} :remote-peer {:backend :datahike-server :url \"http://x\"}}"
            .parse::<Config>()
            .unwrap()
            .remote_peer;
    assert!(config.remote_peer.is_some());
    assert_eq!(create_database(&config).await.unwrap_err().code(), "config/unavailable");
    assert!(!database_exists(&local).await.unwrap());
    create_database(&local).await.unwrap();
    assert_eq!(connect(&config).await.unwrap_err().code(), "config/unavailable");
    assert_eq!(delete_database(&config).await.unwrap_err().code(), "config/unavailable");
    assert!(database_exists(&local).await.unwrap());
}
