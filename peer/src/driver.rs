//! The one loop that does IO: transport, session, layers and queue of one connection.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;

use crate::auth::Principal;
use crate::connection::{Connection, Ended, Opened, Phase, Shared};
use crate::error::{Close, Refusal, TransportError};
use crate::frame::{self, SerializerId};
use crate::hello::Hello;
use crate::message::Message;
use crate::middleware::Flow;
use crate::rt::{BoxFuture, Time, within};
use crate::serializer::{Edn, Serializer};
use crate::session::{Agreement, Effect, Session};
use crate::transport::Received;
use crate::wire::Wire;

/// How long to wait for the other side's answer to a close, once everything before it has left: who
/// stops should not be held up by one that never answers.
const FAREWELL: Duration = Duration::from_millis(500);

/// Frames handled before what waits to go out is written.
const INBOUND_BATCH: usize = 32;

pub(crate) struct Driver {
    session: Session,
    connection: Connection,
    inbound_budget: usize,
    /// The hello is done, and the transport was not told yet.
    opens: bool,
    deciding: Option<BoxFuture<'static, Result<Principal, Refusal>>>,
    timer: Option<(Time, BoxFuture<'static, ()>)>,
    wakes: BTreeSet<(Time, usize)>,
    closing: Option<Close>,
    refusal: Option<Refusal>,
    ended: Option<Ended>,
}

enum Event {
    Received(Result<Received, TransportError>),
    Decided(Result<Principal, Refusal>),
    Timer,
    CloseAsked(Close),
    Room,
    Failed(TransportError),
}

impl Driver {
    pub(crate) fn new(session: Session, first: Vec<Effect>, shared: Arc<Shared>) -> Self {
        let layers = shared.peer.layers.len();
        let mut driver = Self {
            session,
            connection: Connection::new(shared, layers),
            inbound_budget: INBOUND_BATCH,
            opens: false,
            deciding: None,
            timer: None,
            wakes: BTreeSet::new(),
            closing: None,
            refusal: None,
            ended: None,
        };
        driver.perform(first);
        driver
    }

    pub(crate) async fn run(mut self) {
        poll_fn(|cx| self.drive(cx)).await;
        self.finish_closing().await;
    }

    /// Handles what happens until there is nothing more, or an end begins. What is sent meanwhile,
    /// here or on another thread, leaves in one write.
    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let shared = self.shared().clone();
        shared.waker.register(cx.waker());
        shared.driving.store(true, Ordering::SeqCst);
        let mut wire = shared.wire.lock();
        while self.closing.is_none() && self.ended.is_none() {
            if let Poll::Ready(event) = self.poll(cx, &mut wire) {
                self.handle(event);
                if std::mem::take(&mut self.opens)
                    && let Some(transport) = wire.transport()
                {
                    transport.opened();
                }
                continue;
            }
            // Senders rely on the driver until here, so it looks once more.
            shared.driving.store(false, Ordering::SeqCst);
            if !wire.is_empty() || shared.queue.lock().frames.is_empty() {
                return Poll::Pending;
            }
            shared.driving.store(true, Ordering::SeqCst);
        }
        shared.driving.store(false, Ordering::SeqCst);
        Poll::Ready(())
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.connection.shared
    }

    fn now(&self) -> Time {
        self.connection.runtime().now()
    }

    /// Inbound first: replies to all that is already here then leave in one write.
    fn poll(&mut self, cx: &mut Context<'_>, wire: &mut Wire) -> Poll<Event> {
        if self.inbound_budget > 0
            && let Some(transport) = wire.transport()
            && let Poll::Ready(received) = transport.poll_receive(cx)
        {
            self.inbound_budget -= 1;
            return Poll::Ready(Event::Received(received));
        }
        if let Some(deciding) = &mut self.deciding
            && let Poll::Ready(decision) = deciding.as_mut().poll(cx)
        {
            self.deciding = None;
            return Poll::Ready(Event::Decided(decision));
        }
        if self.poll_timer(cx).is_ready() {
            return Poll::Ready(Event::Timer);
        }
        wire.write(cx, &self.connection.shared.queue);
        if let Some(error) = wire.take_failure() {
            return Poll::Ready(Event::Failed(error));
        }
        if self.makes_room() {
            return Poll::Ready(Event::Room);
        }
        if let Some(close) = self.take_close() {
            return Poll::Ready(Event::CloseAsked(close));
        }
        if self.inbound_budget == 0 {
            self.inbound_budget = INBOUND_BATCH;
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn take_close(&self) -> Option<Close> {
        self.shared().queue.lock().close.clone()
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.wakes.extend(self.connection.shared.queue.lock().wakes.drain(..));
        let session = self.session.deadline();
        let layer = self.wakes.first().map(|(time, _)| *time);
        let Some(next) = session.into_iter().chain(layer).min() else {
            return Poll::Pending;
        };
        // A heartbeat moves its deadline with every frame; the timer is left alone then and finds
        // out when it fires.
        if self.timer.as_ref().is_none_or(|(time, _)| next < *time) {
            let runtime = self.connection.runtime();
            self.timer = Some((next, runtime.sleep(next.since(runtime.now()))));
        }
        let Some((_, sleep)) = &mut self.timer else {
            return Poll::Pending;
        };
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.timer = None;
        Poll::Ready(())
    }

    /// Whether somebody waits for room, and there is some.
    fn makes_room(&self) -> bool {
        let mut queue = self.shared().queue.lock();
        let room = queue.wanted && queue.bytes <= self.connection.limits().outbound_bytes / 2;
        if room {
            queue.wanted = false;
        }
        room
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Received(Ok(Received::Frame(frame))) => self.frame(&frame),
            Event::Received(Ok(Received::Text(text))) => {
                self.frame(&frame::encode(SerializerId::STRING, &text));
            }
            Event::Received(Ok(Received::Closed(close))) => self.end(close),
            Event::Received(Err(error)) | Event::Failed(error) => self.failed(&error),
            Event::Decided(decision) => {
                let decision = decision.and_then(|principal| self.claim(principal));
                let effects = self.session.decided(decision);
                self.perform(effects);
            }
            Event::Timer => self.tick(),
            Event::CloseAsked(close) => {
                let effects = self.session.close(close);
                self.perform(effects);
            }
            Event::Room => {
                self.shared().room.notify_waiters();
                for position in 0..self.shared().peer.layers.len() {
                    self.connection.with_layer(position, |layer, cx| layer.room(cx));
                }
            }
        }
    }

    /// A peer id belongs to the principal that used it first, for as long as a connection of it is open.
    fn claim(&self, principal: Principal) -> Result<Principal, Refusal> {
        match self.session.greeting() {
            Some(hello) => {
                self.shared().peer.claim(hello.peer, &principal, self.connection.id())?;
                Ok(principal)
            }
            None => Ok(principal),
        }
    }

    fn tick(&mut self) {
        let now = self.now();
        let effects = self.session.tick(now);
        self.perform(effects);
        while let Some(&(time, position)) = self.wakes.first() {
            if time > now {
                break;
            }
            self.wakes.pop_first();
            self.connection.with_layer(position, |layer, cx| layer.wake(cx));
        }
    }

    fn frame(&mut self, bytes: &Bytes) {
        let now = self.now();
        self.session.heard(now);
        let message = match self.decode(bytes) {
            Ok(message) => message,
            Err(close) => {
                let effects = self.session.close(close);
                self.perform(effects);
                return;
            }
        };
        if self.session.is_open() && message.kind().namespace() != Some("peer") {
            self.inward(message);
        } else {
            let effects = self.session.message(&message, now);
            self.perform(effects);
        }
    }

    fn decode(&self, bytes: &Bytes) -> Result<Message, Close> {
        let limits = self.connection.limits();
        let limit =
            if self.session.is_open() { limits.frame_bytes } else { limits.handshake_frame_bytes };
        if bytes.len() > limit {
            let reason = format!("a frame of {} bytes, the limit is {limit}", bytes.len());
            return Err(Close::new(Close::TOO_BIG, reason));
        }
        let protocol = |reason: String| Close::new(Close::PROTOCOL, reason);
        let (id, payload) = frame::decode(bytes).map_err(|error| protocol(error.to_string()))?;
        let opened = self.connection.opened();
        let value = match opened {
            Some(opened) if opened.serializer.id() == id => {
                opened.serializer.decode(&payload, limits)
            }
            _ if id == SerializerId::EDN => Edn.decode(&payload, limits),
            _ => return Err(protocol(format!("serializer {} was not agreed on", id.0))),
        };
        let value = value.map_err(|error| protocol(format!("malformed message: {error}")))?;
        Message::from_outside(value, bytes.len()).map_err(|error| protocol(error.to_string()))
    }

    fn inward(&mut self, mut message: Message) {
        for position in 0..self.shared().peer.layers.len() {
            let flow = self.connection.with_layer(position, |layer, cx| layer.inbound(message, cx));
            match flow {
                Some(Flow::Pass(passed)) => message = passed,
                Some(Flow::Stop) | None => return,
            }
        }
        tracing::debug!(
            connection = self.connection.id().0,
            kind = %message.kind(),
            "no layer wanted a message"
        );
    }

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::SendText(message) => self.send_session(&message, &Edn),
                Effect::Send(message) => {
                    if let Some(opened) = self.connection.opened() {
                        let serializer = opened.serializer.clone();
                        self.send_session(&message, &*serializer);
                    }
                }
                Effect::Authenticate(hello) => self.authenticate(hello),
                Effect::Open(agreement) => self.open(agreement),
                Effect::Refused(refusal) => self.refusal = Some(refusal),
                Effect::Close(close) => {
                    self.shared().queue.lock().close.get_or_insert_with(|| close.clone());
                    self.closing = Some(close);
                }
            }
        }
    }

    fn send_session(&self, message: &Message, serializer: &dyn Serializer) {
        match message.encode(serializer) {
            Ok(frame) => self.shared().queue_session(frame),
            Err(error) => tracing::error!(%error, "a message of the session cannot be encoded"),
        }
    }

    fn authenticate(&mut self, hello: Hello) {
        let shared = self.shared().clone();
        self.deciding = Some(Box::pin(async move {
            shared.peer.authenticate.authenticate(&hello, &shared.info).await
        }));
    }

    fn open(&mut self, agreement: Agreement) {
        let peer = self.shared().peer.clone();
        let chosen = peer.serializers.iter().find(|known| known.id() == agreement.serializer);
        let Some(serializer) = chosen.cloned() else {
            let close = Close::new(Close::PROTOCOL, "the serializer is not there");
            self.closing = Some(close);
            return;
        };
        let principal = agreement.principal.unwrap_or_else(|| {
            let principal = Principal::named("dialled");
            // Whoever was dialled may use what id it likes; if the id is taken, it is just not found by it.
            let _ = peer.claim(agreement.peer, &principal, self.connection.id());
            principal
        });
        let opened = Opened {
            peer: agreement.peer,
            principal,
            version: agreement.version,
            agent: agreement.agent,
            frame_bytes: agreement.frame_bytes.min(peer.limits.frame_bytes),
            properties: agreement.properties,
            serializer,
        };
        if self.shared().opened.set(opened).is_err() {
            return;
        }
        self.opens = true;
        for position in 0..peer.layers.len() {
            self.connection.with_layer(position, |layer, cx| layer.connected(cx));
        }
        self.shared().phase.send_replace(Phase::Open);
    }

    fn failed(&mut self, error: &TransportError) {
        match error {
            TransportError::TooBig { .. } => {
                let effects = self.session.close(Close::new(Close::TOO_BIG, error.to_string()));
                self.perform(effects);
            }
            _ => self.end(Close::new(Close::LOST, error.to_string())),
        }
    }

    fn end(&mut self, close: Close) {
        self.ended.get_or_insert(Ended { close, refusal: self.refusal.clone() });
    }

    /// Lets what waits leave, says why, and waits for the answer, each within the time for it.
    async fn finish_closing(&mut self) {
        let Some(close) = self.closing.clone() else {
            return;
        };
        let runtime = self.connection.runtime().clone();
        let limit = self.connection.limits().close;
        let shared = self.shared().clone();
        // A peer that is dead or floods would only hold up the close.
        let drain = close.code != Close::DEAD && close.code != Close::TRY_AGAIN;
        if drain && self.ended.is_none() {
            let drained = poll_fn(|cx| {
                let mut wire = shared.wire.lock();
                match wire.write(cx, &shared.queue) || wire.take_failure().is_some() {
                    true => Poll::Ready(()),
                    false => Poll::Pending,
                }
            });
            let _ = within(&*runtime, limit, drained).await;
        }
        let farewell = poll_fn(|cx| match shared.wire.lock().transport() {
            Some(transport) => transport.poll_close(cx, &close).map(|_| ()),
            None => Poll::Ready(()),
        });
        let _ = within(&*runtime, limit.min(FAREWELL), farewell).await;
        self.end(close);
    }
}

/// Whatever ends a driver, a runtime that shuts down included, ends its connection for everybody.
impl Drop for Driver {
    fn drop(&mut self) {
        let lost = Close::new(Close::LOST, "the connection's task was stopped");
        self.end(lost);
        let Some(ended) = self.ended.clone() else {
            return;
        };
        let shared = self.shared();
        {
            let mut queue = shared.queue.lock();
            queue.close = Some(ended.close.clone());
            queue.frames.clear();
            queue.bytes = 0;
        }
        if shared.opened.get().is_some() {
            for position in (0..shared.peer.layers.len()).rev() {
                self.connection
                    .with_layer(position, |layer, cx| layer.disconnected(&ended.close, cx));
            }
        }
        shared.peer.forget(&self.connection);
        shared.phase.send_replace(Phase::Ended(ended));
        shared.room.notify_waiters();
        shared.wire.lock().cut();
    }
}
