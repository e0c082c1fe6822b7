//! A server peer and mirrors on real sockets, as the workloads need them.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use datahike::kabel::{Client, Databases, HandlerOptions, Remote, handlers};
use datahike::mirror::{Resets, StoreReplica};
use datahike::store::{FileOptions, FileStore, StoreIdentity};
use datahike::{Blocks, Branch, Config, Connection, Uuid};
use datahike_peer::{Anyone, Link, LinkOptions, Peer, SharedRuntime, TokioRuntime};
use datahike_scope::Scope;
use datahike_sync::{Database, Mirror, Mode, StoreName, SubscriberOptions, SyncLayer};
use tokio::net::TcpListener;

/// Enough for every block of the database.
const CACHE_BYTES: u64 = 250_000_000;

const GOODBYE: Duration = Duration::from_secs(5);

/// A server peer with one database.
#[derive(Debug)]
pub struct Server {
    peer: Peer,
    databases: Databases,
    /// Where it listens.
    pub url: String,
    /// Its own connection to the database.
    pub served: Connection,
}

impl Server {
    /// Serves the database of a file store on a free port of this machine, with so many decoded
    /// blocks in its cache.
    ///
    /// # Errors
    /// What the store or the socket fails with.
    pub async fn start(store: &Path, cache: Option<usize>) -> anyhow::Result<Self> {
        let (sync, scope) = (SyncLayer::new(), Scope::new());
        let peer = Peer::builder(None, runtime())
            .authenticate(Anyone)
            .layer(sync.clone())
            .layer(scope.clone())
            .build();
        let cache = cache.unwrap_or(Config::STORE_CACHE_SIZE);
        let config = Config::file(store).store_cache_size(cache);
        let place = config.store.clone();
        let options = HandlerOptions::new(move |_, _| Ok(place.clone()));
        let databases = handlers::register_global_handlers(&scope, &sync, options);
        let served = databases.mount(Some("cities"), &config).await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("ws://{}", listener.local_addr()?);
        let serving = peer.clone();
        tokio::spawn(async move { serving.serve(listener).await });
        Ok(Self { peer, databases, url, served })
    }

    /// Ends it cleanly.
    ///
    /// # Errors
    /// What closing the store fails with.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.databases.shutdown().await?;
        self.peer.shutdown(GOODBYE).await;
        Ok(())
    }
}

/// A client peer, not mirroring yet.
#[derive(Debug)]
pub struct Caller {
    client: Client,
    /// The server.
    pub remote: Remote,
}

impl Caller {
    /// Dials the server.
    ///
    /// # Errors
    /// If it cannot be reached.
    pub async fn dial(server: &Server) -> anyhow::Result<Self> {
        let client = Client::new(None, runtime());
        let remote = client.connect(&server.url, None);
        remote.connected(GOODBYE).await?;
        Ok(Self { client, remote })
    }

    /// Mirrors the database into a file store.
    ///
    /// # Errors
    /// What the mirror fails with.
    pub async fn mirror(&self, server: &Server, store: &Path) -> anyhow::Result<Connection> {
        Ok(self.remote.mirror(&Config::file(store).id(server.served.store_id())).await?)
    }

    /// Bytes received over the WebSocket, framing and all.
    ///
    /// # Errors
    /// If the connection is down.
    pub fn received(&self) -> anyhow::Result<u64> {
        received(self.remote.link())
    }

    /// Ends the connection.
    pub async fn stop(self) {
        self.client.peer().shutdown(GOODBYE).await;
    }
}

/// A mirror that takes the changed blocks of a flush as patches.
#[derive(Debug)]
pub struct Patched {
    peer: Peer,
    link: Link,
    /// Its state.
    pub mirror: Mirror,
    /// Its copy.
    pub branch: Arc<Branch>,
}

impl Patched {
    /// Mirrors the database into a file store.
    ///
    /// # Errors
    /// What the mirror fails with.
    pub async fn start(server: &Server, store: &Path) -> anyhow::Result<Self> {
        let sync = SyncLayer::new();
        let peer = Peer::builder(None, runtime()).layer(sync.clone()).build();
        let link = peer.connect(&server.url, LinkOptions::default());
        let id = server.served.store_id();
        let identity = StoreIdentity { id, epoch: Uuid::new_v4() };
        let store = Arc::new(FileStore::create_as(store, identity, FileOptions::default())?);
        let blocks = Arc::new(Blocks::new(store, CACHE_BYTES));
        let name = server.served.branch().name();
        let replica = Arc::new(StoreReplica::open(blocks, name, Resets::Refuse).await?);
        let database = Database { store: StoreName::Id(id), branch: name.to_owned() };
        let options = SubscriberOptions { mode: Mode::Blocks, ..SubscriberOptions::full(database) };
        let mirror = sync.mirror(link.clone(), replica.clone(), options);
        mirror.synced().await?;
        let branch = replica.branch().await?;
        Ok(Self { peer, link, mirror, branch })
    }

    /// Bytes received over the WebSocket, framing and all.
    ///
    /// # Errors
    /// If the connection is down.
    pub fn received(&self) -> anyhow::Result<u64> {
        received(&self.link)
    }

    /// Ends it.
    ///
    /// # Errors
    /// What closing the store fails with.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.mirror.stop().await;
        self.peer.shutdown(GOODBYE).await;
        Ok(self.branch.store().close().await?)
    }
}

fn received(link: &Link) -> anyhow::Result<u64> {
    Ok(link.connection().context("the connection is down")?.traffic().received())
}

fn runtime() -> SharedRuntime {
    Arc::new(TokioRuntime::current())
}
