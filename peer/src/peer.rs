//! A peer: what it says of itself, its layers, and its connections.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use dashmap::DashMap;
use datahike_value::{Keyword, Value};
use futures::task::AtomicWaker;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::auth::{Authenticate, Authorize, Everything, Nobody, Principal};
use crate::connection::{Connection, ConnectionId, LinkId, Phase, Queue, Shared};
use crate::driver::Driver;
use crate::error::{Close, Refusal};
use crate::frame::SerializerId;
use crate::hello::{PeerId, Token};
use crate::limits::Limits;
use crate::link::{Link, LinkOptions};
use crate::middleware::Middleware;
use crate::rt::SharedRuntime;
use crate::serializer::{Edn, MessagePack, Serializer};
use crate::session::{Introduction, Session};
use crate::transport::{Dial, Transport, Trust};
use crate::wire::Wire;

/// A handle to a peer; clones are cheap. Nothing is global: two peers in one process know nothing of
/// each other.
#[derive(Clone)]
pub struct Peer {
    pub(crate) inner: Arc<PeerInner>,
}

pub(crate) struct PeerInner {
    id: PeerId,
    agent: String,
    properties: BTreeMap<Keyword, Value>,
    pub(crate) layers: Vec<Arc<dyn Middleware>>,
    pub(crate) serializers: Vec<Arc<dyn Serializer>>,
    pub(crate) runtime: SharedRuntime,
    pub(crate) limits: Limits,
    pub(crate) authenticate: Arc<dyn Authenticate>,
    pub(crate) authorize: Arc<dyn Authorize>,
    /// Trusted besides the public authorities.
    pub(crate) trust: Trust,
    connections: DashMap<ConnectionId, Connection>,
    /// Which principal each peer id belongs to at the moment, and by which connections.
    claims: DashMap<PeerId, (Arc<str>, Vec<ConnectionId>)>,
    next: AtomicU64,
    stopping: AtomicBool,
    pub(crate) stopped: watch::Sender<bool>,
}

/// Puts a [`Peer`] together.
#[must_use]
pub struct PeerBuilder {
    pub(crate) inner: PeerInner,
}

impl Peer {
    /// A peer with this id (a fresh one if there is none) on this runtime. Without further calls it
    /// has no layers, speaks MessagePack and EDN text, and lets nobody in.
    pub fn builder(id: impl Into<Option<Uuid>>, runtime: SharedRuntime) -> PeerBuilder {
        let id = id.into().unwrap_or_else(|| random_uuid(&runtime));
        let inner = PeerInner {
            id: PeerId(id),
            agent: concat!("datahike-peer ", env!("CARGO_PKG_VERSION")).to_owned(),
            properties: BTreeMap::new(),
            layers: Vec::new(),
            serializers: vec![Arc::new(MessagePack), Arc::new(Edn)],
            runtime,
            limits: Limits::DEFAULT,
            authenticate: Arc::new(Nobody),
            authorize: Arc::new(Everything),
            trust: Trust::default(),
            connections: DashMap::new(),
            claims: DashMap::new(),
            next: AtomicU64::new(1),
            stopping: AtomicBool::new(false),
            stopped: watch::Sender::new(false),
        };
        PeerBuilder { inner }
    }

    /// Its id.
    pub fn id(&self) -> PeerId {
        self.inner.id
    }

    /// Its runtime.
    pub fn runtime(&self) -> &SharedRuntime {
        &self.inner.runtime
    }

    /// Its limits.
    pub fn limits(&self) -> &Limits {
        &self.inner.limits
    }

    /// Takes a transport that somebody else dialled. The hello follows by itself; wait for it with
    /// [`Connection::open`] or not at all.
    ///
    /// # Errors
    /// With code `:peer/overloaded` or `:peer/stopping` if there is no place for it; the transport is
    /// dropped.
    pub fn accept(&self, transport: Box<dyn Transport>) -> Result<Connection, Refusal> {
        let session =
            |introduction, limits, now| (Session::accept(introduction, limits, now), Vec::new());
        self.attach(transport, None, session)
    }

    /// Speaks first on a transport that this side dialled, without reconnecting. Most callers want
    /// [`link`](Self::link).
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn dialled(
        &self,
        transport: Box<dyn Transport>,
        token: Option<Token>,
    ) -> Result<Connection, Refusal> {
        self.attach_dialled(transport, token, None)
    }

    pub(crate) fn attach_dialled(
        &self,
        transport: Box<dyn Transport>,
        token: Option<Token>,
        link: Option<LinkId>,
    ) -> Result<Connection, Refusal> {
        self.attach(transport, link, |introduction, limits, now| {
            Session::dial(introduction, token, limits, now)
        })
    }

    /// Keeps a connection to where `dial` leads: dials, and dials again when it is lost.
    pub fn link(&self, dial: Arc<dyn Dial>, options: LinkOptions) -> Link {
        let id = LinkId(self.inner.next.fetch_add(1, Ordering::Relaxed));
        Link::start(self.clone(), id, dial, options)
    }

    /// The connections whose hello is done, oldest first.
    pub fn connections(&self) -> Vec<Connection> {
        let all = self.inner.connections.iter().map(|entry| entry.value().clone());
        let mut open: Vec<_> = all.filter(Connection::is_open).collect();
        open.sort_by_key(Connection::id);
        open
    }

    /// The newest connection to the peer of this id.
    pub fn connection_to(&self, peer: PeerId) -> Option<Connection> {
        let ids = self.inner.claims.get(&peer).map(|claim| claim.1.clone())?;
        let connections = ids.iter().rev().filter_map(|id| self.connection(*id));
        connections.into_iter().find(Connection::is_open)
    }

    /// The connection of this number, if it is still there.
    pub fn connection(&self, id: ConnectionId) -> Option<Connection> {
        self.inner.connections.get(&id).map(|entry| entry.value().clone())
    }

    /// How many connections there are, those in their hello included.
    pub fn connection_count(&self) -> usize {
        self.inner.connections.len()
    }

    /// Closes every connection and link and takes no new ones. Returns when all are gone or the time is over.
    pub async fn shutdown(&self, limit: Duration) {
        self.inner.stopping.store(true, Ordering::SeqCst);
        self.inner.stopped.send_replace(true);
        let all: Vec<_> =
            self.inner.connections.iter().map(|entry| entry.value().clone()).collect();
        let close = Close::new(Close::GOING_AWAY, "the peer stops");
        for connection in &all {
            connection.close(close.clone());
        }
        let gone = futures::future::join_all(all.iter().map(Connection::ended));
        let _ = crate::rt::within(&*self.inner.runtime, limit, gone).await;
    }

    fn attach(
        &self,
        transport: Box<dyn Transport>,
        link: Option<LinkId>,
        session: impl FnOnce(
            Introduction,
            Limits,
            crate::Time,
        ) -> (Session, Vec<crate::session::Effect>),
    ) -> Result<Connection, Refusal> {
        let inner = &self.inner;
        if inner.stopping.load(Ordering::SeqCst) {
            return Err(Refusal::new("peer/stopping", "this peer stops"));
        }
        let limit = inner.limits.connections;
        if inner.connections.len() >= limit {
            let message = format!("this peer already has {limit} connections");
            return Err(Refusal::new("peer/overloaded", message));
        }
        let id = inner.next.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::new(Shared {
            id: ConnectionId(id),
            link: link.unwrap_or(LinkId(id)),
            peer: inner.clone(),
            info: transport.info().clone(),
            traffic: transport.traffic(),
            opened: OnceLock::new(),
            phase: watch::Sender::new(Phase::Handshake),
            queue: parking_lot::Mutex::new(Queue::default()),
            wire: parking_lot::Mutex::new(Wire::new(transport)),
            driving: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            room: Notify::new(),
        });
        let connection = Connection::new(shared.clone(), inner.layers.len());
        inner.connections.insert(connection.id(), connection.clone());
        let introduction = Introduction {
            peer: inner.id,
            agent: inner.agent.clone(),
            serializers: inner.serializers.iter().map(|serializer| serializer.id()).collect(),
            properties: inner.properties.clone(),
        };
        let now = inner.runtime.now();
        let (session, first) = session(introduction, inner.limits.clone(), now);
        let driver = Driver::new(session, first, shared);
        inner.runtime.spawn(Box::pin(driver.run()));
        Ok(connection)
    }
}

impl PeerInner {
    /// Notes that this connection speaks for this peer id.
    pub(crate) fn claim(
        &self,
        peer: PeerId,
        principal: &Principal,
        connection: ConnectionId,
    ) -> Result<(), Refusal> {
        let mut claim =
            self.claims.entry(peer).or_insert_with(|| (principal.name.clone(), Vec::new()));
        if claim.0 != principal.name {
            let message = format!("peer id {peer} is in use by somebody else");
            return Err(Refusal::new("peer/id-taken", message));
        }
        claim.1.push(connection);
        Ok(())
    }

    pub(crate) fn forget(&self, connection: &Connection) {
        self.connections.remove(&connection.id());
        let Some(peer) = connection.peer_id() else {
            return;
        };
        self.claims.remove_if_mut(&peer, |_, (_, connections)| {
            connections.retain(|id| *id != connection.id());
            connections.is_empty()
        });
    }
}

impl PeerBuilder {
    /// Adds a layer on top, that is, farther from the wire than those before. See [`Middleware`] for
    /// the order.
    pub fn layer(mut self, layer: impl Middleware + 'static) -> Self {
        self.inner.layers.push(Arc::new(layer));
        self
    }

    /// Adds a serializer, or puts another in the place of one with the same id. The hello offers them
    /// in the order MessagePack, EDN, then those added.
    pub fn serializer(mut self, serializer: Arc<dyn Serializer>) -> Self {
        self.inner.serializers.retain(|known| known.id() != serializer.id());
        self.inner.serializers.push(serializer);
        self
    }

    /// Puts this serializer first among those offered when dialling.
    pub fn prefer(mut self, id: SerializerId) -> Self {
        self.inner.serializers.sort_by_key(|serializer| serializer.id() != id);
        self
    }

    /// Sets the limits.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.inner.limits = limits;
        self
    }

    /// Sets who is let in. Without it: [`Nobody`].
    pub fn authenticate(mut self, rule: impl Authenticate + 'static) -> Self {
        self.inner.authenticate = Arc::new(rule);
        self
    }

    /// Sets what those who were let in may do. Without it: [`Everything`].
    pub fn authorize(mut self, rule: impl Authorize + 'static) -> Self {
        self.inner.authorize = Arc::new(rule);
        self
    }

    /// Sets the program and version that the hello names.
    pub fn agent(mut self, agent: impl Into<String>) -> Self {
        self.inner.agent = agent.into();
        self
    }

    /// Adds something to the hello.
    pub fn property(mut self, key: Keyword, value: Value) -> Self {
        self.inner.properties.insert(key, value);
        self
    }

    /// The peer.
    pub fn build(self) -> Peer {
        Peer { inner: Arc::new(self.inner) }
    }
}

/// A version 4 UUID from a runtime's randomness.
pub(crate) fn random_uuid(runtime: &SharedRuntime) -> Uuid {
    let bits = u128::from(runtime.random()) << 64 | u128::from(runtime.random());
    uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("id", &self.inner.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for PeerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("PeerBuilder");
        shown.field("id", &self.inner.id).field("trust", &self.inner.trust);
        shown.finish_non_exhaustive()
    }
}
