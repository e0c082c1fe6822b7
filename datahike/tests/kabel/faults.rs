//! Servers, wires, stores and disks that fail: each fault has a defined end, what was acknowledged
//! stays, and nobody else notices.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use datahike::config::{KabelPeer, Secret, WriterConfig};
use datahike::mirror::BranchSource;
use datahike::{Config, TxEvent, Uuid, Value, connect, datom::TX0};
use datahike_store::{FileOptions, FileStore, Store};
use datahike_sync::{
    Address, Change, Entries, FlushPoint, Point, Seeds, Source, SourceError, State, StoreName,
};

use crate::setting::{Server, TOKEN, Wire, client, copy, count, form, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_whose_answer_was_lost_happens_once_and_is_reported() {
    let (server_folder, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(server_folder.path()).await;
    let id = Uuid::from_u128(1);
    let served = server.create(id).await;
    let wire = Wire::to(&server).await;
    let mirror = connect(&client(&wire.url(), folder.path(), id)).await.unwrap();
    for (n, flush) in [(0, false), (1, true)] {
        let mut at_server = served.tx_reports();
        wire.lose_answers();
        let asking = mirror.clone();
        let data = form(&format!("[{{:db/id \"new\" :n {n}}}]"));
        let asked = tokio::spawn(async move { asking.transact(data).await });
        let Some(TxEvent::Report(made)) = soon(at_server.next()).await else { panic!() };
        if flush {
            served.flush().await.unwrap();
        }
        wire.cut();
        let report = soon(asked).await.unwrap().unwrap();
        assert_eq!(report.tx, made.tx);
        assert_eq!(report.tempids, made.tempids);
        assert_eq!(report.tx_data, made.tx_data);
        assert!(at_server.try_next().is_none(), "it happened twice");
        assert_eq!(count(&mirror), (n + 1).into());
    }
    mirror.release().await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mirrors_go_on_with_a_server_that_was_started_again() {
    let (server_folder, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(server_folder.path()).await;
    let id = Uuid::from_u128(2);
    server.create(id).await;
    let wire = Wire::to(&server).await;
    let mirror = connect(&client(&wire.url(), folder.path(), id)).await.unwrap();
    let mut heard = mirror.tx_reports();
    let first = mirror.transact(form("[{:n 1}]")).await.unwrap();
    server.stop().await;
    // Asked for while there is no server.
    let asking = mirror.clone();
    let asked = tokio::spawn(async move { asking.transact(form("[{:n 2}]")).await });
    let server = Server::start(server_folder.path()).await;
    let served = server.mount(id).await;
    wire.lead_to(&server);
    wire.cut();
    let second = soon(asked).await.unwrap().unwrap();
    assert_eq!(second.tx, first.tx + 1);
    assert_eq!((count(&mirror), count(&served)), (2.into(), 2.into()));
    for made in [first, second] {
        let Some(TxEvent::Report(report)) = soon(heard.next()).await else { panic!() };
        assert_eq!(report.tx, made.tx);
    }
    mirror.release().await.unwrap();
    server.stop().await;
}

/// What was done to a store that was brought back.
#[derive(Clone, Copy, PartialEq)]
enum Restored {
    /// Nothing: it is older than its mirrors.
    AsItWas,
    /// It went on, in another way, past where its mirrors are.
    WentOn,
    /// Whoever brought it back said so, and it went on.
    Declared,
}

async fn restore(restored: Restored) {
    let (server_folder, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backup = tempfile::tempdir().unwrap();
    let id = Uuid::from_u128(3);
    let server = Server::start(server_folder.path()).await;
    let served = server.create(id).await;
    served.transact(form("[{:n 1}]")).await.unwrap();
    let place = server.folder(id);
    server.stop().await;
    copy(&place, &backup.path().join("copy"));

    let server = Server::start(server_folder.path()).await;
    server.mount(id).await;
    let wire = Wire::to(&server).await;
    let mirror = connect(&client(&wire.url(), folder.path(), id)).await.unwrap();
    for n in 2..5 {
        mirror.transact(form(&format!("[{{:n {n}}}]"))).await.unwrap();
    }
    let mut heard = mirror.tx_reports();
    server.stop().await;
    std::fs::remove_dir_all(&place).unwrap();
    copy(&backup.path().join("copy"), &place);
    if restored == Restored::Declared {
        let store = FileStore::open(&place, FileOptions::default()).unwrap();
        store.renew_epoch().unwrap();
        store.close().await.unwrap();
    }
    let server = Server::start(server_folder.path()).await;
    let served = server.mount(id).await;
    if restored != Restored::AsItWas {
        for n in 10..20 {
            served.transact(form(&format!("[{{:n {n}}}]"))).await.unwrap();
        }
    }
    let here = served.db();
    wire.lead_to(&server);
    wire.cut();
    match soon(heard.next()).await {
        Some(TxEvent::Gap { from, .. }) => assert_eq!(from, TX0 + 1),
        other => panic!("{other:?}"),
    }
    let shown = soon(mirror.sync(here.max_tx())).await.unwrap();
    assert!(shown.same_datoms(&here).unwrap());
    assert!(shown.history().unwrap().same_datoms(&here.history().unwrap()).unwrap());
    // Whoever writes goes on from there.
    let report = soon(mirror.transact(form("[{:n 100}]"))).await.unwrap();
    assert_eq!(report.tx, here.max_tx() + 1);
    assert!(mirror.db().same_datoms(&served.db()).unwrap());
    mirror.release().await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_older_than_its_mirror_resets_it() {
    restore(Restored::AsItWas).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_another_history_resets_its_mirror() {
    restore(Restored::WentOn).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_restored_under_a_new_epoch_resets_its_mirror() {
    restore(Restored::Declared).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restore_a_transaction_is_not_taken_for_the_one_that_had_its_number() {
    let (server_folder, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let backup = tempfile::tempdir().unwrap();
    let id = Uuid::from_u128(13);
    let server = Server::start(server_folder.path()).await;
    server.create(id).await.transact(form("[{:n 1}]")).await.unwrap();
    let place = server.folder(id);
    server.stop().await;
    copy(&place, &backup.path().join("copy"));
    let mut server = Server::start(server_folder.path()).await;
    let mut served = server.mount(id).await;
    let wire = Wire::to(&server).await;
    let mirror = connect(&client(&wire.url(), folder.path(), id)).await.unwrap();
    for round in 0..4 {
        // The numbers that these get are given again after the restore.
        for n in 0..5 {
            mirror.transact(form(&format!("[{{:n {}}}]", 100 * round + n))).await.unwrap();
        }
        server.stop().await;
        drop(served);
        std::fs::remove_dir_all(&place).unwrap();
        copy(&backup.path().join("copy"), &place);
        server = Server::start(server_folder.path()).await;
        served = server.mount(id).await;
        wire.lead_to(&server);
        let asking = mirror.clone();
        let value = Value::Long(1_000 + round);
        let data = form(&format!("[{{:db/id \"new\" :n {value}}}]"));
        let asked = tokio::spawn(async move { asking.transact(data).await });
        wire.cut();
        let report = soon(asked).await.unwrap().unwrap();
        let e = report.tempids[&Value::str("new")];
        let stated = report.tx_data.iter().any(|datom| datom.e == e && datom.v == value);
        assert!(stated, "round {round}: {:?}", report.tx_data);
        assert!(mirror.db().same_datoms(&served.db()).unwrap());
    }
    mirror.release().await.unwrap();
    server.stop().await;
}

/// A source whose blocks are not what their addresses say.
struct Liar(BranchSource);

#[async_trait]
impl Source for Liar {
    async fn state(&self) -> Result<State, SourceError> {
        self.0.state().await
    }

    async fn entries(&self, from: &Point, max_bytes: usize) -> Result<Entries, SourceError> {
        self.0.entries(from, max_bytes).await
    }

    async fn seeds(&self, flush: &FlushPoint) -> Result<Option<Seeds>, SourceError> {
        self.0.seeds(flush).await
    }

    async fn blocks(
        &self,
        addresses: &[Address],
        max_bytes: usize,
    ) -> Result<Vec<Option<Bytes>>, SourceError> {
        let mut blocks = self.0.blocks(addresses, max_bytes).await?;
        if let Some(Some(last)) = blocks.last_mut() {
            let mut bytes = last.to_vec();
            // All through the file: where a block begins depends on the database's seed, and one
            // byte may be in an index that mirrors make themselves and never ask for.
            bytes.iter_mut().step_by(256).for_each(|byte| *byte ^= 1);
            *last = bytes.into();
        }
        Ok(blocks)
    }

    async fn changes(
        &self,
        base: &Address,
        to: &Address,
    ) -> Result<Option<Arc<[Change]>>, SourceError> {
        self.0.changes(base, to).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_does_not_match_its_address_is_refused_and_nobody_else_suffers() {
    let (server_folder, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(server_folder.path()).await;
    let (bad, good) = (Uuid::from_u128(4), Uuid::from_u128(5));
    let served = server.create(bad).await;
    let other = server.create(good).await;
    served.transact(form("[{:n 1}]")).await.unwrap();
    served.flush().await.unwrap();
    let liar = Arc::new(Liar(BranchSource::new(served.branch().clone())));
    let _lies = server.sync.serve([StoreName::Id(bad)], "db", liar);
    let mirror = connect(&client(&server.url(), folder.path(), good)).await.unwrap();
    let config = client(&server.url(), folder.path(), bad);
    let refused = soon(async {
        let writing = async { mirror.transact(form("[{:n 1}]")).await.unwrap().tx };
        let (refused, tx) = futures::future::join(connect(&config), writing).await;
        assert_eq!(tx, other.db().max_tx());
        refused.unwrap_err()
    })
    .await;
    assert_eq!(refused.code(), "block/damaged", "{refused}");
    mirror.transact(form("[{:n 2}]")).await.unwrap();
    assert_eq!(count(&mirror), 2.into());
    mirror.release().await.unwrap();
    server.stop().await;
}

/// Flips bits all through every file whose path has `part` in it; how many files.
fn damage(folder: &Path, part: &str) -> usize {
    let mut damaged = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            damaged += damage(&path, part);
        } else if path.to_string_lossy().contains(part) {
            let mut bytes = std::fs::read(&path).unwrap();
            // All through the file: where a block begins depends on the database's seed, and one
            // byte may be in an index that mirrors make themselves and never ask for.
            bytes.iter_mut().step_by(256).for_each(|byte| *byte ^= 1);
            std::fs::write(&path, bytes).unwrap();
            damaged += 1;
        }
    }
    damaged
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_store_is_damaged_says_so_and_serves_its_other_databases() {
    let (server_folder, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(server_folder.path()).await;
    let (bad, good) = (Uuid::from_u128(6), Uuid::from_u128(7));
    let served = server.create(bad).await;
    server.create(good).await;
    for n in 0..4 {
        let many: Vec<String> =
            (0..2_000).map(|k| format!("{{:n {} :s \"{k}\"}}", n * 2_000 + k)).collect();
        served.transact(form(&format!("[{}]", many.join(" ")))).await.unwrap();
        served.flush().await.unwrap();
    }
    assert!(damage(&server.folder(bad), "pack") > 0);
    let mirror = connect(&client(&server.url(), folder.path(), good)).await.unwrap();
    let config = client(&server.url(), folder.path(), bad);
    // Not after several attempts, which take seconds.
    let refused = tokio::time::timeout(Duration::from_secs(3), connect(&config)).await.unwrap();
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), "block/damaged", "{refused}");
    let is_address = |word: &str| word.len() == 64 && word.chars().all(|c| c.is_ascii_hexdigit());
    assert!(refused.to_string().split(' ').any(is_address), "{refused}");
    mirror.transact(form("[{:n 1}]")).await.unwrap();
    assert_eq!(count(&mirror), 1.into());
    mirror.release().await.unwrap();
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_peer_than_the_expected_one_is_not_trusted() {
    let (server_folder, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(server_folder.path()).await;
    let id = Uuid::from_u128(8);
    server.create(id).await;
    let config = |peer: u128| {
        Config::file(folder.path().join("mirror")).id(id).writer(WriterConfig::Kabel(KabelPeer {
            url: Some(server.url()),
            token: Some(Secret::new(TOKEN)),
            peer_id: Some(Uuid::from_u128(peer)),
            ..KabelPeer::default()
        }))
    };
    let refused = soon(connect(&config(2))).await.unwrap_err();
    assert_eq!(refused.code(), "connection/failed", "{refused}");
    assert!(refused.to_string().contains("expected"), "{refused}");
    connect(&config(1)).await.unwrap().release().await.unwrap();
    server.stop().await;
}
