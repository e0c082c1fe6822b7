//! A server peer over a real socket, a wire that can be cut, and clients.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use datahike::config::{KabelPeer, SchemaFlexibility, Secret, WriterConfig};
use datahike::kabel::{Databases, HandlerOptions, handlers};
use datahike::{Config, Connection, TxEvent, TxReports, Uuid, Value, edn};
use datahike_peer::{Peer, Principal, SharedToken, Token, TokioRuntime};
use datahike_scope::Scope;
use datahike_sync::SyncLayer;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

pub(crate) const TOKEN: &str = "secret";

pub(crate) struct Server {
    pub(crate) peer: Peer,
    pub(crate) databases: Databases,
    pub(crate) sync: SyncLayer,
    pub(crate) address: SocketAddr,
    root: PathBuf,
}

impl Server {
    /// Serves the databases that clients create under `root`.
    pub(crate) async fn start(root: &Path) -> Self {
        let (sync, scope) = (SyncLayer::new(), Scope::new());
        let token = SharedToken::new(&Token::new(TOKEN), Principal::named("tester"));
        let peer = Peer::builder(Uuid::from_u128(1), Arc::new(TokioRuntime::current()))
            .authenticate(token)
            .layer(sync.clone())
            .layer(scope.clone())
            .build();
        let folder = root.to_owned();
        let place = move |id: Uuid, _: &Config| Ok(Config::file(folder.join(id.to_string())).store);
        let databases =
            handlers::register_global_handlers(&scope, &sync, HandlerOptions::new(place));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = peer.clone();
        tokio::spawn(async move { serving.serve(listener).await });
        Self { peer, databases, sync, address, root: root.to_owned() }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub(crate) fn folder(&self, id: Uuid) -> PathBuf {
        self.root.join(id.to_string())
    }

    /// A database in the server's folder, created and served.
    pub(crate) async fn create(&self, id: Uuid) -> Connection {
        let config = Config::memory().id(id).schema_flexibility(SchemaFlexibility::Read);
        self.databases.create(None, &config).await.unwrap()
    }

    /// Serves a database that is in the folder already.
    pub(crate) async fn mount(&self, id: Uuid) -> Connection {
        self.databases.mount(None, &Config::file(self.folder(id))).await.unwrap()
    }

    pub(crate) async fn stop(self) {
        self.databases.shutdown().await.unwrap();
        self.peer.shutdown(Duration::from_secs(1)).await;
    }
}

/// A client's configuration, with its mirror in a folder of its own.
pub(crate) fn client(url: &str, folder: &Path, id: Uuid) -> Config {
    Config::file(folder.join(format!("mirror-{id}"))).id(id).writer(WriterConfig::Kabel(
        KabelPeer {
            url: Some(url.to_owned()),
            token: Some(Secret::new(TOKEN)),
            ..KabelPeer::default()
        },
    ))
}

/// The wire between clients and a server: it can be cut, it can lose what the server says, it
/// leads to another server when told, and it counts.
pub(crate) struct Wire {
    shared: Arc<Shared>,
    address: SocketAddr,
}

struct Shared {
    target: Mutex<SocketAddr>,
    connections: AtomicU64,
    /// Connections before this number hear nothing more.
    deaf_before: AtomicU64,
    cuts: watch::Sender<u64>,
    from_server: AtomicU64,
}

impl Wire {
    pub(crate) async fn to(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target: Mutex::new(server.address),
            connections: AtomicU64::new(0),
            deaf_before: AtomicU64::new(0),
            cuts: watch::channel(0).0,
            from_server: AtomicU64::new(0),
        });
        let wires = shared.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, wires.clone()));
            }
        });
        Self { shared, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    /// Ends every connection.
    pub(crate) fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// From now on nothing that a server says arrives over the connections that there are.
    pub(crate) fn lose_answers(&self) {
        let connections = self.shared.connections.load(Ordering::SeqCst);
        self.shared.deaf_before.store(connections, Ordering::SeqCst);
    }

    pub(crate) fn lead_to(&self, server: &Server) {
        *self.shared.target.lock() = server.address;
    }

    /// Bytes that came from servers so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.from_server.load(Ordering::SeqCst)
    }
}

async fn carry(near: TcpStream, shared: Arc<Shared>) {
    let mut cuts = shared.cuts.subscribe();
    let number = shared.connections.fetch_add(1, Ordering::SeqCst);
    let target = *shared.target.lock();
    let Ok(far) = TcpStream::connect(target).await else { return };
    let (mut near_in, mut near_out) = near.into_split();
    let (mut far_in, mut far_out) = far.into_split();
    let there = tokio::io::copy(&mut near_in, &mut far_out);
    let back = async {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match far_in.read(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) if number < shared.deaf_before.load(Ordering::SeqCst) => {}
                Ok(len) => {
                    shared.from_server.fetch_add(len as u64, Ordering::SeqCst);
                    if near_out.write_all(&buffer[..len]).await.is_err() {
                        break;
                    }
                }
            }
        }
    };
    tokio::select! {
        _ = there => {}
        () = back => {}
        _ = cuts.changed() => {}
    }
}

pub(crate) fn form(text: &str) -> Value {
    edn::read(text).unwrap()
}

pub(crate) fn count(conn: &Connection) -> Value {
    conn.q("[:find (count ?e) . :where [?e :n]]", &[]).unwrap().into_value()
}

/// The result, or a failure of the test when it takes too long.
pub(crate) async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("within 30 seconds")
}

/// The transactions that are heard until this one, each a report.
pub(crate) async fn heard_until(reports: &mut TxReports, tx: u64) -> Vec<u64> {
    let mut heard = Vec::new();
    while heard.last().is_none_or(|last| *last < tx) {
        match soon(reports.next()).await {
            Some(TxEvent::Report(report)) => heard.push(report.tx),
            other => panic!("{other:?} after {heard:?}"),
        }
    }
    heard
}

/// Copies a folder and what is in it.
pub(crate) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}
