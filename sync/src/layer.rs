//! The middleware that carries the protocol over a peer's connections.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use bytes::Bytes;
use datahike_peer::{
    Close, Connection, ConnectionId, Cx, Flow, Link, LinkId, Message, Middleware,
    value::{Keyword, Value, kw},
};
use tokio::sync::mpsc;

use crate::{
    message::Request,
    mirror::{Incoming, Mirror},
    point::{Database, StoreName},
    publisher::{Publisher, Served, Session},
    replica::Replica,
    source::Source,
    subscriber::SubscriberOptions,
};

/// Payloads that may wait for a mirror that is not scheduled.
const INCOMING_MAX: usize = 8192;

/// Synchronisation as a layer of a peer: serves databases to others, and mirrors those of others.
/// Clones share everything; give one to the peer and keep another.
///
/// What is served is announced with [`serve`](Self::serve), which gives a [`Publisher`] to be told
/// of commits. What is mirrored begins with [`mirror`](Self::mirror). Who may subscribe is decided
/// by the peer's [`Authorize`](datahike_peer::Authorize), with the database's store and branch as
/// target.
#[derive(Clone, Default)]
pub struct SyncLayer {
    inner: Arc<Inner>,
}

#[derive(Default)]
struct Inner {
    served: Mutex<HashMap<Database, Arc<Served>>>,
    sessions: Mutex<HashMap<ConnectionId, Arc<Session>>>,
    mirrors: Mutex<HashMap<LinkId, Vec<mpsc::Sender<Incoming>>>>,
    topics: AtomicU32,
    mirror_count: AtomicU32,
}

impl SyncLayer {
    /// A layer that serves and mirrors nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves a branch under each of these names until the publisher is dropped. A name that was
    /// served before now leads to this one.
    pub fn serve(
        &self,
        names: impl IntoIterator<Item = StoreName>,
        branch: &str,
        source: Arc<dyn Source>,
    ) -> Publisher {
        let topic = self.inner.topics.fetch_add(1, Ordering::Relaxed);
        let served = Arc::new(Served::new(topic, source));
        let name = |store| Database { store, branch: branch.to_owned() };
        let names: Vec<Database> = names.into_iter().map(name).collect();
        let mut all = lock(&self.inner.served);
        all.extend(names.iter().map(|name| (name.clone(), served.clone())));
        drop(all);
        Publisher::new(served, self.clone(), names)
    }

    /// Takes names away from a branch, those that lead to another by now excepted.
    pub(crate) fn withdraw(&self, names: &[Database], served: &Arc<Served>) {
        let mut all = lock(&self.inner.served);
        for name in names {
            if all.get(name).is_some_and(|now| Arc::ptr_eq(now, served)) {
                all.remove(name);
            }
        }
    }

    /// Begins to mirror what the peer at the other end of `link` serves. It goes on over all
    /// reconnects of the link until the mirror is stopped or dropped. The link must belong to a
    /// peer that has this layer.
    pub fn mirror(
        &self,
        link: Link,
        replica: Arc<dyn Replica>,
        options: SubscriberOptions,
    ) -> Mirror {
        let (sender, incoming) = mpsc::channel(INCOMING_MAX);
        let number = self.inner.mirror_count.fetch_add(1, Ordering::Relaxed);
        lock(&self.inner.mirrors).entry(link.id()).or_default().push(sender);
        Mirror::start(link, replica, options, number, incoming)
    }

    fn subscribe(
        &self,
        connection: &Connection,
        request: u32,
        subscribe: crate::message::Subscribe,
    ) {
        let served = lock(&self.inner.served).get(&subscribe.database).cloned();
        let session = lock(&self.inner.sessions).get(&connection.id()).cloned();
        if let Some(session) = session {
            session.subscribe(connection, served, request, subscribe);
        }
    }

    /// A message to the serving side.
    fn request(&self, payload: Bytes, cx: &mut Cx<'_>) {
        match Request::decode(payload) {
            Ok(Request::Subscribe { request, subscribe }) => {
                self.subscribe(cx.connection(), request, *subscribe);
            }
            Ok(request) => {
                let session = lock(&self.inner.sessions).get(&cx.connection().id()).cloned();
                if let Some(session) = session {
                    session.request(request);
                }
            }
            Err(error) => cx.close(Close::new(Close::PROTOCOL, format!("sync: {error}"))),
        }
    }

    /// A message to the mirrors on this connection's link; each knows which are its own.
    fn update(&self, payload: &Bytes, cx: &mut Cx<'_>) {
        let mut mirrors = lock(&self.inner.mirrors);
        let Some(senders) = mirrors.get_mut(&cx.connection().link()) else { return };
        let mut flooded = false;
        senders.retain(|sender| {
            let incoming = Incoming::Payload(cx.connection().id(), payload.clone());
            match sender.try_send(incoming) {
                Ok(()) => true,
                Err(mpsc::error::TrySendError::Full(_)) => {
                    flooded = true;
                    true
                }
                Err(mpsc::error::TrySendError::Closed(_)) => false,
            }
        });
        if flooded {
            cx.close(Close::new(Close::PROTOCOL, "sync: more messages than any window allows"));
        }
    }
}

impl Middleware for SyncLayer {
    fn name(&self) -> &'static str {
        "sync"
    }

    fn inbound(&self, message: Message, cx: &mut Cx<'_>) -> Flow {
        let requests = *message.kind() == up();
        if !requests && *message.kind() != down() {
            return Flow::Pass(message);
        }
        match message.get(&key()) {
            Some(Value::Bytes(bytes)) => {
                let payload = Bytes::from_owner(bytes.clone());
                if requests { self.request(payload, cx) } else { self.update(&payload, cx) }
            }
            _ => cx.close(Close::new(Close::PROTOCOL, "sync: a message without bytes")),
        }
        Flow::Stop
    }

    fn connected(&self, cx: &mut Cx<'_>) {
        let connection = cx.connection();
        let session = Arc::new(Session::new(connection.clone()));
        lock(&self.inner.sessions).insert(connection.id(), session);
        self.tell(connection.link(), || Incoming::Connected(connection.clone()));
    }

    fn disconnected(&self, _close: &Close, cx: &mut Cx<'_>) {
        let connection = cx.connection();
        let session = lock(&self.inner.sessions).remove(&connection.id());
        if let Some(session) = session {
            session.end();
        }
        self.tell(connection.link(), || Incoming::Disconnected(connection.id()));
    }

    fn room(&self, cx: &mut Cx<'_>) {
        let session = lock(&self.inner.sessions).get(&cx.connection().id()).cloned();
        if let Some(session) = session {
            session.drain();
        }
        self.tell(cx.connection().link(), || Incoming::Room);
    }
}

impl SyncLayer {
    /// Tells the mirrors of a link what became of its connection. If one's queue is full it has
    /// worse to hear: it looks at the link itself when it comes to that.
    fn tell(&self, link: LinkId, incoming: impl Fn() -> Incoming) {
        if let Some(senders) = lock(&self.inner.mirrors).get_mut(&link) {
            senders.retain(|sender| {
                !matches!(sender.try_send(incoming()), Err(mpsc::error::TrySendError::Closed(_)))
            });
        }
    }
}

impl fmt::Debug for SyncLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncLayer").finish_non_exhaustive()
    }
}

/// Kinds and key are ones that the default serializer writes in three bytes each.
fn up() -> Keyword {
    kw!("sync/need")
}

fn down() -> Keyword {
    kw!("sync/commit")
}

fn key() -> Keyword {
    kw!("bytes")
}

/// The message that carries a payload from a mirror to its server.
pub(crate) fn up_message(payload: &Bytes) -> Message {
    Message::new(up(), [(key(), Value::Bytes(Arc::from(&payload[..])))])
}

/// The message that carries a payload from a server to its mirrors.
pub(crate) fn down_message(payload: &Bytes) -> Message {
    Message::new(down(), [(key(), Value::Bytes(Arc::from(&payload[..])))])
}

/// The data behind these locks is whole after every statement, so a panic elsewhere does not
/// spoil it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
