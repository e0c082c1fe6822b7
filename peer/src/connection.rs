//! A connection as layers and applications see it: who is there, and a bounded queue towards them.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};

use bytes::Bytes;
use datahike_value::{Keyword, Value};
use futures::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::auth::{Principal, Wish};
use crate::error::{Close, Refusal, SendError};
use crate::hello::PeerId;
use crate::limits::Limits;
use crate::message::Message;
use crate::middleware::{Cx, Effect, Flow};
use crate::peer::PeerInner;
use crate::rt::{BoxFuture, SharedRuntime, Time};
use crate::serializer::Serializer;
use crate::transport::{Traffic, TransportInfo};
use crate::wire::Wire;

/// A number for a connection, unique within its peer and never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// A number for a way to another peer. A [`Link`](crate::Link) keeps its number over all connections it makes; an
/// accepted connection has one of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// A handle to one connection; clones are cheap. Messages sent on it pass the layers between its
/// holder and the wire.
#[derive(Clone)]
pub struct Connection {
    pub(crate) shared: Arc<Shared>,
    /// The layer that holds this handle: outgoing messages begin below it.
    position: usize,
}

/// What the hello established.
#[derive(Clone, Debug)]
pub struct Opened {
    /// Who the other side says it is.
    pub peer: PeerId,
    /// Whom it was found to be. On the dialling side: `dialled`, since whoever dials decides whom to trust.
    pub principal: Principal,
    /// The version that is spoken.
    pub version: u32,
    /// The other side's program and version.
    pub agent: String,
    /// Bytes of the largest frame that the other side takes.
    pub frame_bytes: usize,
    /// What the other side's hello said besides.
    pub properties: BTreeMap<Keyword, Value>,
    pub(crate) serializer: Arc<dyn Serializer>,
}

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Why.
    pub close: Close,
    /// The other side's refusal, if it refused the hello.
    pub refusal: Option<Refusal>,
}

#[derive(Clone, Debug)]
pub(crate) enum Phase {
    Handshake,
    Open,
    Ended(Ended),
}

pub(crate) struct Shared {
    pub(crate) id: ConnectionId,
    pub(crate) link: LinkId,
    pub(crate) peer: Arc<PeerInner>,
    pub(crate) info: TransportInfo,
    pub(crate) traffic: Arc<Traffic>,
    pub(crate) opened: OnceLock<Opened>,
    pub(crate) phase: watch::Sender<Phase>,
    pub(crate) queue: Mutex<Queue>,
    pub(crate) wire: Mutex<Wire>,
    /// The driver runs and will look into the queue before it rests.
    pub(crate) driving: AtomicBool,
    pub(crate) waker: AtomicWaker,
    pub(crate) room: Notify,
}

/// What waits for the driver.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pub(crate) frames: VecDeque<Bytes>,
    pub(crate) bytes: usize,
    /// Somebody was refused and wants to know when there is room.
    pub(crate) wanted: bool,
    pub(crate) close: Option<Close>,
    pub(crate) wakes: Vec<(Time, usize)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Lane {
    /// Refused when the queue is full.
    Data,
    /// Has room of its own; past it the connection is closed.
    Control,
}

/// Who writes what was queued.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The driver, together with what else waits by then.
    Driver,
    /// The sender, if the wire is free.
    Here,
}

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>, position: usize) -> Self {
        Self { shared, position }
    }

    pub(crate) fn at(&self, position: usize) -> Self {
        Self { shared: self.shared.clone(), position }
    }

    /// Its number.
    pub fn id(&self) -> ConnectionId {
        self.shared.id
    }

    /// The way that it belongs to.
    pub fn link(&self) -> LinkId {
        self.shared.link
    }

    /// What the hello established; `None` before it is done.
    pub fn opened(&self) -> Option<&Opened> {
        self.shared.opened.get()
    }

    /// Whom the other side was found to be; `None` before the hello is done.
    pub fn principal(&self) -> Option<&Principal> {
        Some(&self.opened()?.principal)
    }

    /// Who the other side says it is; `None` before the hello is done.
    pub fn peer_id(&self) -> Option<PeerId> {
        Some(self.opened()?.peer)
    }

    /// What the transport knows about the other end.
    pub fn info(&self) -> &TransportInfo {
        &self.shared.info
    }

    /// Bytes on the wire so far.
    pub fn traffic(&self) -> &Traffic {
        &self.shared.traffic
    }

    /// The peer's runtime.
    pub fn runtime(&self) -> &SharedRuntime {
        &self.shared.peer.runtime
    }

    /// The peer's limits.
    pub fn limits(&self) -> &Limits {
        &self.shared.peer.limits
    }

    /// Asks the peer's [`Authorize`](crate::Authorize) whether the other side may do this.
    ///
    /// # Errors
    /// The refusal to send back.
    pub fn authorize(
        &self,
        action: crate::Action,
        target: &Value,
        payload: Option<&Value>,
    ) -> Result<(), Refusal> {
        let Some(principal) = self.principal() else {
            return Err(Refusal::new("peer/unauthenticated", "the hello is not done"));
        };
        self.shared.peer.authorize.authorize(&Wish { principal, action, target, payload })
    }

    /// Queues a message. Bounded: refuses when too much waits already. Returns the bytes of its frame.
    ///
    /// # Errors
    /// See [`SendError`]; after [`SendError::Full`], wait for [`ready`](Self::ready).
    pub fn send(&self, message: Message) -> Result<usize, SendError> {
        self.push(message, Lane::Data, Way::Driver)
    }

    /// [`send`](Self::send) for a message that somebody waits for: it is written on the caller's
    /// thread if that can be, which saves a change of threads. Messages sent so do not share a write.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_at_once(&self, message: Message) -> Result<usize, SendError> {
        self.push(message, Lane::Data, Way::Here)
    }

    /// Queues a reply or another small message that must not be lost: it has room of its own. If that
    /// is used up too, the other side asks without reading, and the connection is closed (1013).
    ///
    /// # Errors
    /// See [`SendError`].
    pub fn reply(&self, message: Message) -> Result<usize, SendError> {
        self.push(message, Lane::Control, Way::Driver)
    }

    /// Waits for room, then queues a message. Ends at the latest when the connection does.
    ///
    /// # Errors
    /// See [`SendError`]; never [`SendError::Full`].
    pub async fn deliver(&self, message: Message) -> Result<usize, SendError> {
        self.deliver_by(message, Way::Driver).await
    }

    /// [`deliver`](Self::deliver) by [`send_at_once`](Self::send_at_once).
    ///
    /// # Errors
    /// As [`deliver`](Self::deliver).
    pub async fn deliver_at_once(&self, message: Message) -> Result<usize, SendError> {
        self.deliver_by(message, Way::Here).await
    }

    async fn deliver_by(&self, message: Message, way: Way) -> Result<usize, SendError> {
        loop {
            match self.push(message.clone(), Lane::Data, way) {
                Err(SendError::Full { .. }) => self.ready().await,
                sent => return sent,
            }
        }
    }

    /// Waits until there is room, or the connection is closed.
    pub async fn ready(&self) {
        loop {
            let notified = self.shared.room.notified();
            let mut notified = std::pin::pin!(notified);
            // Registers before looking, so that room made in between is not missed.
            notified.as_mut().enable();
            {
                let mut queue = self.shared.queue.lock();
                if queue.close.is_some() || queue.bytes < self.limits().outbound_bytes {
                    return;
                }
                queue.wanted = true;
            }
            notified.await;
        }
    }

    /// Whether a message would find room now; if not, the layers' `room` is called when it does.
    pub fn has_room(&self) -> bool {
        let mut queue = self.shared.queue.lock();
        let room = queue.bytes < self.limits().outbound_bytes;
        queue.wanted |= !room;
        room
    }

    /// Bytes that wait for the transport.
    pub fn waiting_bytes(&self) -> usize {
        self.shared.queue.lock().bytes
    }

    /// Closes once what waits has left, within [`Limits::close`].
    pub fn close(&self, close: Close) {
        self.shared.queue.lock().close.get_or_insert(close);
        self.shared.waker.wake();
    }

    /// Waits for the hello.
    ///
    /// # Errors
    /// How the connection ended instead.
    pub async fn open(&self) -> Result<&Opened, Ended> {
        let mut phase = self.shared.phase.subscribe();
        loop {
            if let Phase::Ended(ended) = &*phase.borrow_and_update() {
                return Err(ended.clone());
            }
            if let Some(opened) = self.shared.opened.get() {
                return Ok(opened);
            }
            if phase.changed().await.is_err() {
                return Err(lost());
            }
        }
    }

    /// Waits for the end.
    pub async fn ended(&self) -> Ended {
        let mut phase = self.shared.phase.subscribe();
        loop {
            if let Phase::Ended(ended) = &*phase.borrow_and_update() {
                return ended.clone();
            }
            if phase.changed().await.is_err() {
                return lost();
            }
        }
    }

    /// Whether the hello is done and no end has begun.
    pub fn is_open(&self) -> bool {
        self.opened().is_some() && self.shared.queue.lock().close.is_none()
    }

    /// Runs a future beside everything else; it is dropped when the connection ends.
    pub fn run(&self, future: BoxFuture<'static, ()>) {
        let connection = self.clone();
        self.runtime().spawn(Box::pin(async move {
            let ended = std::pin::pin!(connection.ended());
            futures::future::select(future, ended).await;
        }));
    }

    fn push(&self, message: Message, lane: Lane, way: Way) -> Result<usize, SendError> {
        let Some(opened) = self.shared.opened.get() else {
            return Err(SendError::NotOpen);
        };
        let message = self.outward(message)?;
        let encoded = message.encode(&*opened.serializer);
        let frame = encoded.map_err(|error| SendError::Encode(error.to_string()))?;
        let bytes = frame.len();
        if bytes > opened.frame_bytes {
            return Err(SendError::TooBig { bytes, limit: opened.frame_bytes });
        }
        self.shared.queue(frame, lane)?;
        self.shared.write(way);
        Ok(bytes)
    }

    /// Runs the layers between this handle and the wire.
    fn outward(&self, mut message: Message) -> Result<Message, SendError> {
        let peer = &self.shared.peer;
        for (position, layer) in peer.layers.iter().enumerate().take(self.position).rev() {
            let here = self.at(position);
            let mut cx = Cx::new(&here, peer.runtime.now());
            let flow = layer.outbound(message, &mut cx);
            let effects = cx.into_effects();
            here.perform(effects);
            match flow {
                Flow::Pass(passed) => message = passed,
                Flow::Stop => return Err(SendError::Stopped(layer.name())),
            }
        }
        Ok(message)
    }

    /// Carries out what a layer asked for.
    pub(crate) fn perform(&self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Send(message) => {
                    if let Err(error) = self.reply(message) {
                        tracing::debug!(connection = self.id().0, %error, "a reply was not sent");
                    }
                }
                Effect::Close(close) => self.close(close),
                Effect::WakeAt(time) => {
                    self.shared.queue.lock().wakes.push((time, self.position));
                    self.shared.waker.wake();
                }
                Effect::Run(future) => self.run(future),
            }
        }
    }

    /// Runs one layer's callback and carries out what it asks for.
    pub(crate) fn with_layer<T>(
        &self,
        position: usize,
        call: impl FnOnce(&dyn crate::Middleware, &mut Cx<'_>) -> T,
    ) -> Option<T> {
        let peer = &self.shared.peer;
        let layer = peer.layers.get(position)?;
        let here = self.at(position);
        let mut cx = Cx::new(&here, peer.runtime.now());
        let result = call(&**layer, &mut cx);
        let effects = cx.into_effects();
        here.perform(effects);
        Some(result)
    }
}

impl Shared {
    fn queue(&self, frame: Bytes, lane: Lane) -> Result<(), SendError> {
        let limits = &self.peer.limits;
        let mut queue = self.queue.lock();
        if let Some(close) = &queue.close {
            return Err(SendError::Closed(close.clone()));
        }
        let limit = match lane {
            Lane::Data => limits.outbound_bytes,
            Lane::Control => limits.outbound_bytes.saturating_add(limits.control_bytes),
        };
        let waiting = queue.bytes;
        if waiting >= limit {
            if lane == Lane::Data {
                queue.wanted = true;
                return Err(SendError::Full { waiting, limit });
            }
            let close = Close::new(Close::TRY_AGAIN, "too many replies wait, nobody reads them");
            queue.close = Some(close.clone());
            // They would not be read anyway, and keeping them for the close would keep the memory.
            queue.frames.clear();
            queue.bytes = 0;
            drop(queue);
            self.waker.wake();
            return Err(SendError::Closed(close));
        }
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
        Ok(())
    }

    /// Sees to it that what was queued leaves.
    fn write(&self, way: Way) {
        if self.driving.load(Ordering::SeqCst) {
            return;
        }
        if way == Way::Here && self.write_here() {
            return;
        }
        self.waker.wake();
    }

    /// Writes what is queued; whether nothing is left for the driver to do.
    fn write_here(&self) -> bool {
        // Whoever holds it does not look into the queue again.
        let Some(mut wire) = self.wire.try_lock() else { return false };
        // If it has to wait, the driver is woken and waits with a waker of its own.
        let mut cx = Context::from_waker(Waker::noop());
        wire.write(&mut cx, &self.queue) && !self.queue.lock().wanted
    }

    /// Queues a frame of the session itself, past all limits: there are few of them.
    pub(crate) fn queue_session(&self, frame: Bytes) {
        let mut queue = self.queue.lock();
        queue.bytes += frame.len();
        queue.frames.push_back(frame);
    }
}

fn lost() -> Ended {
    Ended { close: Close::new(Close::LOST, "the connection is gone"), refusal: None }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("id", &self.shared.id.0)
            .field("remote", &self.shared.info.remote)
            .finish_non_exhaustive()
    }
}
