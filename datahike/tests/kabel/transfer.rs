//! What crosses the wire, and in which order it is heard of.

use datahike::commit::RequestId;
use datahike::core::datom::{AttrId, Datom};
use datahike::core::index::{AttrTraits, Indexes, Node, Params};
use datahike::{Transaction, TxEvent, Uuid, Value, connect};

use crate::setting::{Server, Wire, client, count, form, heard_until, soon};

fn people(from: u64, to: u64) -> Value {
    let person = |n: u64| {
        format!(
            "{{:db/id {} :n {n} :name \"name {n}\" :age {} :town \"t{}\"}}",
            n + 1,
            n % 90,
            n % 7
        )
    };
    form(&format!("[{}]", (from..to).map(person).collect::<Vec<_>>().join(" ")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_missed_costs_less_than_twice_its_datoms_as_a_run() {
    let (server_folder, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(server_folder.path()).await;
    let id = Uuid::from_u128(1);
    let served = server.create(id).await;
    served.transact(people(0, 20_000)).await.unwrap();
    served.flush().await.unwrap();
    let wire = Wire::to(&server).await;
    let config = client(&wire.url(), folder.path(), id);
    let mirror = connect(&config).await.unwrap();
    let datoms = 20_000 * 4;
    let per_datom = wire.bytes() as f64 / f64::from(datoms);
    println!("{per_datom:.2} bytes for each datom of a first mirror");
    assert!(per_datom < 3.5, "{per_datom} bytes for each datom of a first mirror");
    assert!(mirror.db().same_datoms(&served.db()).unwrap());
    mirror.release().await.unwrap();

    // One entity in a hundred gets another age: each in a transaction of its own, then at once.
    let change = |n: u64, age: u64| format!("[:db/add {} :age {age}]", n + 1);
    let changed: Vec<u64> = (0..20_000).step_by(100).collect();
    for alone in [true, false] {
        let before = wire.bytes();
        let mut heard = served.tx_reports();
        if alone {
            for n in &changed {
                served.transact(form(&format!("[{}]", change(*n, n % 13 + 100)))).await.unwrap();
            }
        } else {
            let all: Vec<String> = changed.iter().map(|n| change(*n, n % 17 + 200)).collect();
            served.transact(form(&format!("[{}]", all.join(" ")))).await.unwrap();
        }
        let mirror = connect(&config).await.unwrap();
        assert_eq!(mirror.snapshot().at, served.snapshot().at);
        assert!(mirror.db().same_datoms(&served.db()).unwrap());
        let (here, there) = (mirror.db().history().unwrap(), served.db().history().unwrap());
        assert!(here.same_datoms(&there).unwrap());
        mirror.release().await.unwrap();
        let mut missed = Vec::new();
        while let Some(TxEvent::Report(report)) = heard.try_next() {
            missed.extend(report.tx_data.iter().cloned());
        }
        let (bytes, run) = (wire.bytes() - before, run_of(&missed));
        println!("{} datoms missed: {bytes} bytes, {run} as a run", missed.len());
        // What it takes to connect and to agree on what is missing does not grow.
        assert!(bytes < 2 * run + CONNECTING, "{bytes} bytes for what is {run} as a run");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_log_is_gone_only_changed_blocks_come() {
    let (server_folder, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(server_folder.path()).await;
    let id = Uuid::from_u128(12);
    let served = server.create(id).await;
    // Nothing that could be compressed: what is sent is what it says.
    let person = |n: u64| {
        let name = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        format!("{{:db/id {} :n {n} :age 1 :name \"{name:x}\"}}", n + 1)
    };
    let all = (0..20_000).map(person).collect::<Vec<_>>().join(" ");
    served.transact(form(&format!("[{all}]"))).await.unwrap();
    served.flush().await.unwrap();
    let wire = Wire::to(&server).await;
    let config = client(&wire.url(), folder.path(), id);
    let mirror = connect(&config).await.unwrap();
    let whole = wire.bytes();
    mirror.release().await.unwrap();

    for round in 0..4 {
        let changed = (0..200).map(|n| format!("[:db/add {} :age {}]", n + 1, 100 + round));
        let changed = changed.collect::<Vec<_>>().join(" ");
        served.transact(form(&format!("[{changed}]"))).await.unwrap();
        served.flush().await.unwrap();
    }
    let keep = datahike::Keep::default();
    datahike::compact(&served, keep).await.unwrap();
    let before = wire.bytes();
    let mirror = connect(&config).await.unwrap();
    let bytes = wire.bytes() - before;
    assert!(mirror.db().same_datoms(&served.db()).unwrap());
    let (here, there) = (mirror.db().history().unwrap(), served.db().history().unwrap());
    assert!(here.same_datoms(&there).unwrap());
    assert_eq!(mirror.snapshot().head.flush_record, served.snapshot().head.flush_record);
    println!("{bytes} bytes where the log is gone, {whole} for a first mirror");
    assert!(bytes < whole / 8, "{bytes} bytes where the log is gone, {whole} for a first mirror");
    // It goes on from there, commit by commit.
    mirror.transact(form("[{:n 20000}]")).await.unwrap();
    assert!(mirror.db().same_datoms(&served.db()).unwrap());
    mirror.release().await.unwrap();
    server.stop().await;
}

const CONNECTING: u64 = 1_200;

/// The size of datoms as leaves of an index.
fn run_of(datoms: &[Datom]) -> u64 {
    struct Plain;
    impl AttrTraits for Plain {
        fn avet(&self, _: AttrId) -> bool {
            false
        }
        fn history(&self, _: AttrId) -> bool {
            true
        }
    }
    let datoms: Vec<Datom> = datoms.iter().map(|d| Datom { added: true, ..d.clone() }).collect();
    let made = Indexes::empty(Params::default(), true).apply(&datoms, &Plain).flush().unwrap();
    let blocks: std::collections::HashMap<_, _> = made.blocks.into_iter().collect();
    let (mut waiting, mut bytes) = (vec![made.roots.current[0].unwrap().address], 0);
    while let Some(address) = waiting.pop() {
        match Node::decode(&blocks[&address]).unwrap() {
            Node::Branch(branch) => waiting.extend_from_slice(branch.children()),
            Node::Leaf(_) => bytes += blocks[&address].len() as u64,
        }
    }
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_hear_each_transaction_once_and_in_order_over_lost_connections() {
    let (server_folder, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(server_folder.path()).await;
    let id = Uuid::from_u128(2);
    let served = server.create(id).await;
    let wire = Wire::to(&server).await;
    let mirror = connect(&client(&wire.url(), folder.path(), id)).await.unwrap();
    let mut heard = mirror.tx_reports();
    let mut made = Vec::new();
    for round in 0..4 {
        // Few enough to come one by one, and enough to come as a batch.
        for n in 0..[3, 200, 1, 60][round] {
            let report = served.transact(form(&format!("[{{:n {n} :s \"text {n}\"}}]"))).await;
            made.push(report.unwrap().tx);
            if n == 1 {
                wire.cut();
            }
        }
        wire.cut();
        served.flush().await.unwrap();
    }
    let last = *made.last().unwrap();
    assert_eq!(heard_until(&mut heard, last).await, made);
    assert!(mirror.db().same_datoms(&served.db()).unwrap());
    assert!(heard.try_next().is_none());
    mirror.release().await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_transactions_each_get_their_own_report_and_ids() {
    let (server_folder, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(server_folder.path()).await;
    let id = Uuid::from_u128(3);
    server.create(id).await;
    let mirror = connect(&client(&server.url(), folder.path(), id)).await.unwrap();
    let all = (0..64).map(|n| {
        let mirror = mirror.clone();
        async move {
            let report = mirror.transact(form(&format!("[{{:db/id -{} :n {n}}}]", n + 1))).await;
            (n, report.unwrap())
        }
    });
    let mut seen = std::collections::BTreeSet::new();
    for (n, report) in soon(futures::future::join_all(all)).await {
        let e = report.tempids[&Value::Long(-(n + 1))];
        let value = report.tx_data.iter().find(|datom| datom.e == e).unwrap().v.clone();
        assert_eq!(value, Value::Long(n));
        assert_eq!(report.db_after.max_tx(), report.tx);
        assert_eq!(report.db_before.max_tx() + 1, report.tx);
        assert!(seen.insert(report.tx));
    }
    assert_eq!(count(&mirror), 64.into());
    mirror.release().await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_databases_of_one_server_are_mirrored_side_by_side() {
    let (server_folder, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(server_folder.path()).await;
    let (a, b) = (Uuid::from_u128(4), Uuid::from_u128(5));
    let (first, second) = (server.create(a).await, server.create(b).await);
    let to_first = connect(&client(&server.url(), folder.path(), a)).await.unwrap();
    let to_second = connect(&client(&server.url(), folder.path(), b)).await.unwrap();
    for n in 0..10 {
        to_first.transact(form(&format!("[{{:n {n}}}]"))).await.unwrap();
        to_second.transact(form(&format!("[{{:n {n}}} {{:n {}}}]", -n - 1))).await.unwrap();
    }
    assert_eq!((count(&first), count(&to_first)), (10.into(), 10.into()));
    assert_eq!((count(&second), count(&to_second)), (20.into(), 20.into()));
    // Deleting one is nothing to the other.
    server.databases.delete(a).await.unwrap();
    let gone = soon(to_first.transact(form("[{:n 1}]"))).await.unwrap_err();
    assert_eq!(gone.code(), "database/missing", "{gone}");
    let stopped = soon(to_first.mirror_handle().unwrap().reached(u64::MAX)).await.unwrap_err();
    assert!(stopped.to_string().contains("deleted"), "{stopped}");
    assert_eq!(count(&to_first), 10.into());
    to_second.transact(form("[{:n 99}]")).await.unwrap();
    assert_eq!(count(&to_second), 21.into());
    to_first.release().await.unwrap();
    to_second.release().await.unwrap();
    server.stop().await;
}

#[tokio::test]
async fn a_report_is_made_again_from_the_log_also_across_flushes() {
    let config =
        datahike::Config::memory().schema_flexibility(datahike::config::SchemaFlexibility::Read);
    let config = datahike::create_database(&config).await.unwrap();
    let conn = connect(&config).await.unwrap();
    let mut heard = conn.tx_reports();
    let client = Uuid::from_u128(9);
    for number in 1..=30 {
        let data = form(&format!("[{{:db/id \"p\" :n {number}}} [:db/add 1 :last {number}]]"));
        let request = Some(RequestId { client, number });
        conn.transact_with(Transaction { request, ..Transaction::new(data) }).await.unwrap();
        if number % 10 == 0 {
            conn.flush().await.unwrap();
        }
    }
    while let Some(TxEvent::Report(first)) = heard.try_next() {
        let tempids = first.tempids.iter().map(|(k, e)| (k.clone(), *e)).collect();
        let before = datahike::commit::Remembered { body: [0; 32], tx: first.tx, tempids };
        let again = conn.report_of(&before).await.unwrap();
        assert_eq!(again.tx_data, first.tx_data);
        assert_eq!(again.tempids, first.tempids);
        assert_eq!(again.tx_instant, first.tx_instant);
        assert!(again.db_before.same_datoms(&first.db_before).unwrap());
        assert!(again.db_after.same_datoms(&first.db_after).unwrap());
    }
}
