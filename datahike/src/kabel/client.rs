//! The client side: links to servers, mirrored connections, and the writer at the other end.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use datahike_core::commit::{Remembered, RequestId};
use datahike_core::tx::TxReport;
use datahike_peer::rt::within;
use datahike_peer::{Link, Peer, SharedRuntime};
use datahike_scope::{InvokeError, InvokeOptions, Scope};
use datahike_sync::{
    Database, Mirror, MirrorState, Replica, StoreName, SubscriberOptions, SyncError, SyncLayer,
};
use datahike_value::{Uuid, Value, kw};
use futures::future::{Either, select};

use super::wire::{CREATE, DELETE, DESCRIBE, Name, Receipt, Request, TRANSACT, code_text};
use crate::blocks::Blocks;
use crate::branch::Branch;
use crate::config::{Config, KabelPeer, WriterConfig};
use crate::connection::Connection;
use crate::database::{self, Access};
use crate::error::Error;
use crate::mirror::{Leads, Resets, StoreReplica};
use crate::writer::{Transacted, Transaction};

/// How long a server may take to answer before a request is sent again, or given up where it must
/// not be repeated.
const ANSWER: Duration = Duration::from_secs(30);

/// How long a transaction is tried under the same request id while the server cannot be reached.
const TRANSACT_FOR: Duration = Duration::from_secs(120);

/// Between two attempts while there is no connection; the link's own back-off decides when there
/// is one.
const RETRY_AFTER: Duration = Duration::from_millis(50);

/// A client peer: what mirrors databases of servers and invokes their functions. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    peer: Peer,
    scope: Scope,
    sync: SyncLayer,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("peer", &self.peer.id()).finish_non_exhaustive()
    }
}

impl Client {
    /// A peer with the layers that a client needs, under this id or a fresh one.
    pub fn new(id: impl Into<Option<Uuid>>, runtime: SharedRuntime) -> Self {
        let (scope, sync) = (Scope::new(), SyncLayer::new());
        let peer = Peer::builder(id, runtime).layer(sync.clone()).layer(scope.clone()).build();
        Self { peer, scope, sync }
    }

    /// A client of a peer that was built with these layers.
    pub fn of(peer: Peer, scope: Scope, sync: SyncLayer) -> Self {
        Self { peer, scope, sync }
    }

    /// The peer, to add functions or look at connections.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Its remote invocation layer.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Keeps a connection to the server at `ws://HOST:PORT`; it is dialled again whenever it is
    /// lost.
    pub fn connect(&self, url: &str, token: Option<&crate::config::Secret>) -> Remote {
        let token = token.map(|token| datahike_peer::Token::new(token.expose()));
        let options = datahike_peer::LinkOptions { token, ..Default::default() };
        let link = self.peer.connect(url, options);
        self.remote(link)
    }

    /// A server that a link of this client's peer leads to.
    pub fn remote(&self, link: Link) -> Remote {
        Remote { client: self.clone(), link, expected: None }
    }
}

/// A server peer as its client sees it. Cheap to clone.
#[derive(Clone)]
pub struct Remote {
    client: Client,
    link: Link,
    expected: Option<Uuid>,
}

impl fmt::Debug for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Remote").field(&self.link.address()).finish()
    }
}

impl Remote {
    /// The link underneath.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Ready when there is a connection, and it leads to the peer that is expected.
    ///
    /// # Errors
    /// Why the server refuses; [`Error::Connection`] if it cannot be reached within `limit`.
    pub async fn connected(&self, limit: Duration) -> Result<(), Error> {
        let runtime = self.client.peer.runtime();
        let connected = within(&**runtime, limit, self.link.connected()).await;
        let connection = match connected {
            Some(Ok(connection)) => connection,
            Some(Err(refusal)) => return Err(remote(refusal)),
            None => {
                return Err(self.unreachable(&format!("no answer within {} s", limit.as_secs())));
            }
        };
        match (self.expected, connection.peer_id()) {
            (Some(expected), Some(found)) if found.0 != expected => {
                self.link.close();
                Err(self.unreachable(&format!("it is peer {}, expected was {expected}", found.0)))
            }
            _ => Ok(()),
        }
    }

    fn mirror_failed(&self, source: Arc<SyncError>) -> Error {
        Error::Mirror { place: self.link.address().to_owned(), source }
    }

    fn unreachable(&self, reason: &str) -> Error {
        Error::Connection { place: self.link.address().to_owned(), reason: reason.to_owned() }
    }

    /// Invokes a function of the server. Not repeated: whether it ran is unknown when the
    /// connection is lost.
    ///
    /// # Errors
    /// What the function refuses with; [`Error::Connection`].
    pub async fn invoke(&self, function: &str, arguments: Value) -> Result<Value, Error> {
        self.connected(ANSWER).await?;
        let options = InvokeOptions { deadline: Some(ANSWER) };
        let invoked =
            self.client.scope.invoke_value(&self.link, function, arguments, options).await;
        invoked.map_err(|error| match error {
            InvokeError::Remote(refusal) => remote(refusal),
            other => self.unreachable(&other.to_string()),
        })
    }

    /// Creates a database at the server, kept where its `store_config_fn` says, and returns its
    /// store id.
    ///
    /// # Errors
    /// [`Error::Remote`] with the code of what went wrong there.
    pub async fn create_database(
        &self,
        name: Option<&str>,
        config: &Config,
    ) -> Result<Uuid, Error> {
        let arguments = Value::map([
            (kw!("config").into(), config.to_value()),
            (kw!("name").into(), name.map_or(Value::Nil, Value::from)),
        ]);
        let created = self.invoke(CREATE, arguments).await?;
        created.as_uuid().ok_or_else(|| self.unreachable("it answered with no store id"))
    }

    /// Deletes a database of the server, named as `describe` takes it.
    ///
    /// # Errors
    /// [`Error::Remote`] with the code of what went wrong there.
    pub async fn delete_database(&self, name: &Value) -> Result<(), Error> {
        self.invoke(DELETE, name.clone()).await.map(drop)
    }

    /// `{:id #uuid … :branch …}` of a database of the server, which is named by its store id or by
    /// the name it is served under.
    ///
    /// # Errors
    /// [`Error::Remote`] with code `database/missing` if there is none.
    pub async fn describe_database(&self, name: &Value) -> Result<Value, Error> {
        self.invoke(DESCRIBE, name.clone()).await
    }

    /// Mirrors a database of the server into the store of `config`, and gives a connection to it.
    /// A mirror that is there already can be used while the server is out of reach.
    ///
    /// # Errors
    /// Why the server refuses; [`Error::Connection`] if it is out of reach and there is no mirror;
    /// what the local store fails with.
    pub async fn mirror(&self, config: &Config) -> Result<Connection, Error> {
        let name = name_in(config)?;
        let (store, known) = match database::open_store(config, Access::Write).await {
            Ok(store) => (store, true),
            Err(Error::NoDatabase { .. }) => {
                let described = self.describe_database(&name.to_value()).await?;
                let id = described.get(&kw!("id")).and_then(Value::as_uuid);
                let id = id.ok_or_else(|| self.unreachable("it described no database"))?;
                (database::create_store(&config.clone().id(id).store).await?, false)
            }
            Err(error) => return Err(error),
        };
        let id = store.identity().id;
        let blocks = Arc::new(Blocks::new(store.clone(), config.cache_bytes()));
        let replica = Arc::new(StoreReplica::open(blocks, &config.branch, Resets::Follow).await?);
        let database = Database { store: StoreName::Id(id), branch: config.branch.clone() };
        let mirror = self.client.sync.mirror(
            self.link.clone(),
            replica.clone(),
            SubscriberOptions::full(database),
        );
        let ready = self.first_snapshot(&mirror, &replica, known).await;
        let branch = match ready {
            Ok(branch) => branch,
            Err(error) => {
                mirror.stop().await;
                store.close().await?;
                return Err(error);
            }
        };
        let writer = RemoteWriter {
            remote: self.clone(),
            mirror,
            replica,
            database: Name::Id(id),
            client: Uuid::new_v4(),
            next: AtomicU64::new(1),
        };
        Ok(Connection::mirror(config.clone(), branch, writer))
    }

    /// Waits for a complete snapshot: one that was there, brought up to date if the server can be
    /// reached soon.
    async fn first_snapshot(
        &self,
        mirror: &Mirror,
        replica: &StoreReplica,
        known: bool,
    ) -> Result<Arc<Branch>, Error> {
        if known && self.connected(Duration::from_secs(5)).await.is_err() {
            let runtime = self.client.peer.runtime();
            let there = within(&**runtime, Duration::ZERO, replica.branch()).await;
            return there.unwrap_or_else(|| {
                Err(self.unreachable("out of reach, and nothing is mirrored yet"))
            });
        }
        self.connected(ANSWER).await?;
        let synced = std::pin::pin!(mirror.synced());
        let refused = std::pin::pin!(self.refused());
        match select(synced, refused).await {
            Either::Left((Ok(_), _)) => replica.branch().await,
            Either::Left((Err(error), _)) => Err(self.mirror_failed(error)),
            Either::Right((error, _)) => Err(error),
        }
    }

    /// Ready when the server refuses this client for good.
    async fn refused(&self) -> Error {
        let mut states = self.link.states();
        loop {
            let refused = match &*states.borrow_and_update() {
                datahike_peer::LinkState::Refused(refusal) => Some(refusal.clone()),
                _ => None,
            };
            if let Some(refusal) = refused {
                return remote(refusal);
            }
            if states.changed().await.is_err() {
                return Error::Released;
            }
        }
    }
}

/// The writer of a mirrored database: the server's, reached over a link.
pub(crate) struct RemoteWriter {
    remote: Remote,
    mirror: Mirror,
    replica: Arc<StoreReplica>,
    database: Name,
    client: Uuid,
    next: AtomicU64,
}

impl fmt::Debug for RemoteWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteWriter").field(&self.remote).finish()
    }
}

impl RemoteWriter {
    /// How the mirror stands.
    pub(crate) fn state(&self) -> MirrorState {
        self.mirror.state()
    }

    /// The mirror, for its states and events.
    pub(crate) fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// The server.
    pub(crate) fn remote(&self) -> &Remote {
        &self.remote
    }

    /// Has the server carry out a transaction, and waits until the mirror shows it. While the
    /// connection is down it is sent again under the same request id, so that it happens once.
    pub(crate) async fn transact(
        &self,
        branch: &Arc<Branch>,
        transaction: Transaction,
    ) -> Result<Transacted, Error> {
        let request = transaction.request.unwrap_or_else(|| RequestId {
            client: self.client,
            number: self.next.fetch_add(1, Ordering::Relaxed),
        });
        let request = Request {
            database: self.database.clone(),
            branch: branch.name().to_owned(),
            transaction: Transaction { request: Some(request), ..transaction },
        };
        let runtime = self.remote.client.peer.runtime().clone();
        let arguments = request.to_value();
        let kept = branch.reports().keep();
        let began = self.replica.histories_given_up();
        let timeout = |what| Error::Timeout { what, millis: TRANSACT_FOR.as_millis() as u64 };
        loop {
            let send = self.send_until_answered(arguments.clone());
            let receipt = within(&*runtime, TRANSACT_FOR, send).await;
            let receipt = receipt.unwrap_or_else(|| Err(timeout("the server's answer")))?;
            let shown = within(&*runtime, TRANSACT_FOR, async {
                let shown = std::pin::pin!(self.shown(branch, &receipt));
                // No mirror comes so far: this is ready when it has stopped for good.
                let stopped = std::pin::pin!(self.mirror.reached(u64::MAX));
                match select(shown, stopped).await {
                    Either::Left((shown, _)) => shown,
                    Either::Right((Err(error), _)) => Err(self.remote.mirror_failed(error)),
                    Either::Right((Ok(_), _)) => Err(Error::Released),
                }
            });
            let shown = shown.await;
            if !shown.unwrap_or_else(|| Err(timeout("the mirror to show the transaction")))? {
                continue;
            }
            let Receipt { tx, tempids, .. } = receipt;
            // Of a history that was given up the report may be another transaction's.
            let one = self.replica.histories_given_up() == began;
            // The report is published before the branch is known to have reached it.
            if let Some(report) = kept.find(tx).filter(|_| one) {
                let tempids = tempids.into_iter().collect();
                let report = TxReport { tempids, ..(*report).clone() };
                return Ok(Transacted::Now(Arc::new(report)));
            }
            // The report is made from the log, which it may not have come to yet.
            self.replica
                .save()
                .await
                .map_err(|error| self.remote.mirror_failed(Arc::new(SyncError::Replica(error))))?;
            let remembered = Remembered { body: [0; 32], tx, tempids };
            return Ok(Transacted::Before(Arc::new(remembered)));
        }
    }

    /// Ready once the mirror shows the commit of a receipt. False if the mirror has followed the
    /// server into another history meanwhile, as when its store was restored: the transaction may be
    /// in it or not, which the server knows by its request id.
    async fn shown(&self, branch: &Branch, receipt: &Receipt) -> Result<bool, Error> {
        let mut newest = branch.newest();
        let told = self.replica.histories_given_up();
        loop {
            let shows = *newest.borrow_and_update() >= receipt.tx;
            let leads = receipt
                .at
                .map_or(Leads::Unknown, |told| self.replica.leads(told.seq, |at| told.is(at)));
            let other = self.replica.histories_given_up() != told;
            match leads {
                Leads::Through if shows => return Ok(true),
                Leads::Unknown if shows && !other => return Ok(true),
                _ if other => return Ok(false),
                // On another history it is about to be told so.
                _ => newest.changed().await.map_err(|_| Error::Released)?,
            }
        }
    }

    async fn send_until_answered(&self, arguments: Value) -> Result<Receipt, Error> {
        let runtime = self.remote.client.peer.runtime().clone();
        let options = InvokeOptions { deadline: Some(ANSWER) };
        loop {
            match self.remote.link.connected().await {
                Ok(_) => {}
                Err(refusal) => return Err(remote(refusal)),
            }
            let scope = &self.remote.client.scope;
            let invoked =
                scope.invoke_value(&self.remote.link, TRANSACT, arguments.clone(), options).await;
            match invoked {
                Ok(receipt) => {
                    return Receipt::from_value(&receipt).ok_or_else(|| {
                        self.remote.unreachable("it answered a transaction with something else")
                    });
                }
                Err(InvokeError::Remote(refusal)) if passing(&code_text(&refusal.code)) => {}
                Err(InvokeError::Remote(refusal)) => return Err(remote(refusal)),
                Err(InvokeError::Arguments(reason)) => {
                    return Err(self.remote.unreachable(&reason));
                }
                Err(_) => {}
            }
            runtime.sleep(RETRY_AFTER).await;
        }
    }

    pub(crate) async fn stop(&self) {
        self.mirror.stop().await;
    }
}

/// Refusals that say nothing about the transaction: it is worth asking again.
fn passing(code: &str) -> bool {
    matches!(
        code,
        "scope/too-many-in-flight"
            | "scope/deadline"
            | "scope/failed"
            | "peer/stopping"
            | "peer/overloaded"
            | "connection/released"
    )
}

fn remote(refusal: datahike_peer::Refusal) -> Error {
    Error::Remote { code: code_text(&refusal.code), message: refusal.message, data: refusal.data }
}

fn kabel(config: &Config) -> Option<&KabelPeer> {
    match &config.writer {
        WriterConfig::Kabel(peer) => Some(peer),
        _ => None,
    }
}

fn name_in(config: &Config) -> Result<Name, Error> {
    let named = kabel(config).and_then(|peer| peer.database.clone()).map(Name::Text);
    let by_id = || config.store.id().map(|id| Name::Id(id.uuid()));
    named.or_else(by_id).ok_or(Error::Unavailable {
        what: "a mirror of an unnamed database".to_owned(),
        hint: "give :store :id, or :writer :database",
    })
}

/// A server by its url alone, with a client peer of its own.
fn dial(peer: &KabelPeer) -> Result<Remote, Error> {
    let url = peer.url.as_deref().ok_or(Error::Unavailable {
        what: ":writer {:backend :kabel} without :url".to_owned(),
        hint: "give :url \"ws://HOST:PORT\", or connect through a kabel::Client of yours",
    })?;
    let remote = Client::new(None, datahike_peer::rt::current()).connect(url, peer.token.as_ref());
    Ok(Remote { expected: peer.peer_id, ..remote })
}

/// [`connect`](crate::connect) with a kabel writer that has a url.
pub(crate) async fn connect(config: &Config, peer: &KabelPeer) -> Result<Connection, Error> {
    dial(peer)?.mirror(config).await
}

/// [`create_database`](crate::create_database) with a kabel writer that has a url.
pub(crate) async fn create(config: &Config, peer: &KabelPeer) -> Result<Config, Error> {
    let id = dial(peer)?.create_database(peer.database.as_deref(), config).await?;
    Ok(config.clone().id(id))
}

/// [`delete_database`](crate::delete_database) with a kabel writer that has a url: at the server,
/// and the mirror here.
pub(crate) async fn delete(config: &Config, peer: &KabelPeer) -> Result<(), Error> {
    dial(peer)?.delete_database(&name_in(config)?.to_value()).await?;
    database::delete_database(&config.clone().writer(WriterConfig::Local)).await
}

/// [`database_exists`](crate::database_exists) with a kabel writer that has a url.
pub(crate) async fn exists(config: &Config, peer: &KabelPeer) -> Result<bool, Error> {
    match dial(peer)?.describe_database(&name_in(config)?.to_value()).await {
        Ok(_) => Ok(true),
        Err(Error::Remote { code, .. }) if code == "database/missing" => Ok(false),
        Err(error) => Err(error),
    }
}
