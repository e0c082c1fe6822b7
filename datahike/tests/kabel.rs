//! A server peer and its clients over real sockets.

#![expect(clippy::unwrap_used, reason = "a test may fail anywhere")]

use std::sync::Arc;
use std::time::Duration;

use datahike::config::{KabelPeer, SchemaFlexibility, Secret, WriterConfig};
use datahike::kabel::{Databases, HandlerOptions, handlers};
use datahike::{Config, Connection, TxEvent, Uuid, Value, connect, create_database, edn};
use datahike_peer::{Peer, Principal, SharedToken, Token, TokioRuntime};
use datahike_scope::Scope;
use datahike_sync::SyncLayer;
use tokio::net::TcpListener;

struct Server {
    peer: Peer,
    databases: Databases,
    url: String,
    _folder: tempfile::TempDir,
}

async fn serve() -> Server {
    let folder = tempfile::tempdir().unwrap();
    let (sync, scope) = (SyncLayer::new(), Scope::new());
    let token = SharedToken::new(&Token::new("secret"), Principal::named("tester"));
    let peer = Peer::builder(Uuid::from_u128(1), Arc::new(TokioRuntime::current()))
        .authenticate(token)
        .layer(sync.clone())
        .layer(scope.clone())
        .build();
    let root = folder.path().to_owned();
    let place = move |id: Uuid, _: &Config| Ok(Config::file(root.join(id.to_string())).store);
    let databases = handlers::register_global_handlers(&scope, &sync, HandlerOptions::new(place));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let serving = peer.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    Server { peer, databases, url, _folder: folder }
}

impl Server {
    fn client(&self, folder: &tempfile::TempDir, id: Uuid, token: &str) -> Config {
        Config::file(folder.path().join("mirror"))
            .id(id)
            .schema_flexibility(SchemaFlexibility::Read)
            .writer(WriterConfig::Kabel(KabelPeer {
                url: Some(self.url.clone()),
                token: Some(Secret::new(token)),
                ..KabelPeer::default()
            }))
    }
}

fn form(text: &str) -> Value {
    edn::read(text).unwrap()
}

fn count(conn: &Connection) -> Value {
    conn.q("[:find (count ?e) . :where [?e :n]]", &[]).unwrap().into_value()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_of_one_client_shows_in_the_mirror_of_another() {
    let server = serve().await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let id = Uuid::from_u128(7);
    let config = server.client(&one, id, "secret");
    create_database(&config).await.unwrap();
    let first = connect(&config).await.unwrap();
    let second = connect(&server.client(&two, id, "secret")).await.unwrap();
    let mut heard = second.tx_reports();

    for n in 0..20 {
        let report = first.transact(form(&format!("[{{:db/id -1 :n {n}}}]"))).await.unwrap();
        assert_eq!(first.db().max_tx(), report.tx);
        assert!(report.tempids.contains_key(&Value::Long(-1)));
        assert_eq!(count(&first), (n + 1).into());
        let seen = tokio::time::timeout(Duration::from_secs(20), heard.next()).await.unwrap();
        let Some(TxEvent::Report(seen)) = seen else { panic!("{seen:?}") };
        assert_eq!(seen.tx, report.tx);
        assert_eq!(count(&second), (n + 1).into());
    }

    // A flush at the server is made again by the mirrors, from what they have.
    let served = server.databases.get(&id.to_string()).unwrap();
    served.flush().await.unwrap();
    first.transact(form("[{:n 20}]")).await.unwrap();
    let tx = first.db().max_tx();
    tokio::time::timeout(Duration::from_secs(20), second.sync(tx)).await.unwrap().unwrap();
    assert_eq!(count(&second), 21.into());
    assert_eq!(first.snapshot().head.flush_record, served.snapshot().head.flush_record);

    let refused = first.transact(form("[[:db/add \"x\"]]")).await.unwrap_err();
    assert_eq!(refused.code(), "transact/syntax", "{refused}");

    first.release().await.unwrap();
    second.release().await.unwrap();
    // With the server gone the mirror still answers.
    server.databases.shutdown().await.unwrap();
    server.peer.shutdown(Duration::from_secs(1)).await;
    let mirror = Config::file(two.path().join("mirror")).writer(WriterConfig::ReadOnly);
    let mirror = connect(&mirror).await.unwrap();
    assert_eq!(count(&mirror), 21.into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_purge_reaches_mirrors_and_their_logs() {
    let server = serve().await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let id = Uuid::from_u128(10);
    let config = server.client(&one, id, "secret");
    create_database(&config).await.unwrap();
    let follows = connect(&config).await.unwrap();
    let away = connect(&server.client(&two, id, "secret")).await.unwrap();
    let stated = form("[{:db/id 1 :n 1 :secret \"sesame\"} {:n 2}]");
    let tx = follows.transact(stated).await.unwrap().tx;
    tokio::time::timeout(Duration::from_secs(20), away.sync(tx)).await.unwrap().unwrap();
    away.release().await.unwrap();

    follows.transact(form("[[:db.purge/attribute 1 :secret]]")).await.unwrap();
    let served = server.databases.get(&id.to_string()).unwrap();
    served.flush().await.unwrap();
    follows.transact(form("[{:n 3}]")).await.unwrap();
    let back = connect(&server.client(&two, id, "secret")).await.unwrap();
    for conn in [&served, &follows, &back] {
        assert_eq!(count(conn), 3.into());
        let past = conn.db().history().unwrap();
        let secret = conn.settle_now(|| {
            past.all_datoms().try_fold(0, |n, d| {
                Ok::<_, datahike::core::block::Missing>(n + usize::from(d?.v == "sesame".into()))
            })
        });
        assert_eq!(secret.unwrap(), 0);
        let snapshot = conn.snapshot();
        assert_eq!(snapshot.head.flush_record, served.snapshot().head.flush_record);
        let log = conn.branch().store().head("db").await.unwrap().unwrap().log;
        assert_eq!(log.start, snapshot.head.log_number(snapshot.head.flush.seq), "{log:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_mirror_gets_a_snapshot_and_an_early_one_only_what_it_missed() {
    let server = serve().await;
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let id = Uuid::from_u128(8);
    let config = server.client(&one, id, "secret");
    create_database(&config).await.unwrap();
    let served = server.databases.get(&id.to_string()).unwrap();
    for n in 0..40 {
        let many: Vec<String> =
            (0..100).map(|k| format!("{{:n {} :s \"v{k}\"}}", n * 100 + k)).collect();
        served.transact(form(&format!("[{}]", many.join(" ")))).await.unwrap();
    }
    served.flush().await.unwrap();
    served.transact(form("[{:n 4000}]")).await.unwrap();
    let early = connect(&config).await.unwrap();
    assert_eq!(count(&early), 4001.into());
    early.release().await.unwrap();

    served.transact(form("[{:n 4001}]")).await.unwrap();
    let early = connect(&config).await.unwrap();
    assert_eq!(count(&early), 4002.into());
    let late = connect(&server.client(&two, id, "secret")).await.unwrap();
    assert!(late.db().same_datoms(&served.db()).unwrap());
    assert!(early.db().history().unwrap().same_datoms(&served.db().history().unwrap()).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_tokens_and_unknown_databases_are_refused_with_a_code() {
    let server = serve().await;
    let folder = tempfile::tempdir().unwrap();
    let id = Uuid::from_u128(9);
    let refused = connect(&server.client(&folder, id, "wrong")).await.unwrap_err();
    assert_eq!(refused.code(), "peer/unauthenticated", "{refused}");
    let unknown = connect(&server.client(&folder, id, "secret")).await.unwrap_err();
    assert_eq!(unknown.code(), "database/missing", "{unknown}");
}
