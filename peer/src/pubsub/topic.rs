//! The serving side: topics, their subscribers, and who is behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use dashmap::DashMap;
use datahike_value::{Value, kw};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{Malformed, long, number, payload, topic_name, topic_number};
use crate::auth::{Action, Principal};
use crate::connection::{Connection, ConnectionId};
use crate::error::{Close, Refusal, SendError};
use crate::message::Message;
use crate::middleware::Cx;
use crate::rt::{BoxFuture, MaybeSend, MaybeSync, within};

/// What a topic does for its subscribers.
///
/// The handler numbers its events, rising. It publishes with [`Topic::publish`], after it has noted
/// the event itself, so that a [`catch_up`](Self::catch_up) that runs beside it finds it.
pub trait TopicHandler: Debug + MaybeSend + MaybeSync {
    /// Somebody authorized subscribes and says where it stands. The answer is told to it. The handler
    /// may call [`Subscriber::set_position`] to say where catching up begins. Bounded by
    /// [`Limits::request`](crate::Limits::request).
    fn subscribe<'a>(
        &'a self,
        subscriber: &'a Subscriber,
        state: Value,
    ) -> BoxFuture<'a, Result<Value, Refusal>> {
        let _ = (subscriber, state);
        Box::pin(async { Ok(Value::Nil) })
    }

    /// A subscriber that is new or behind has room: send it what it lacks after
    /// [`Subscriber::position`], with [`Subscriber::send`], then [`Subscriber::go_live`]; if that says
    /// no, more was published meanwhile: send that too. Runs at most once at a time per subscriber. If
    /// it returns without having gone live, it is asked again at the next event. A refusal ends the
    /// subscription.
    fn catch_up<'a>(&'a self, subscriber: &'a Subscriber) -> BoxFuture<'a, Result<(), Refusal>>;

    /// A connected peer publishes; authorized. Returns what it is told.
    ///
    /// # Errors
    /// The refusal that it is told. Without an implementation: `:pubsub/read-only`.
    fn published(&self, from: &Connection, payload: Value) -> Result<Value, Refusal> {
        let _ = (from, payload);
        Err(Refusal::new("pubsub/read-only", "nobody may publish to this topic from outside"))
    }

    /// A subscriber tells the handler something of the handler's own.
    fn told(&self, subscriber: &Subscriber, payload: Value) {
        let _ = (subscriber, payload);
    }

    /// A subscription ended, whatever the reason.
    fn unsubscribed(&self, subscriber: &Subscriber) {
        let _ = subscriber;
    }
}

/// A handle to a topic that is served.
#[derive(Clone, Debug)]
pub struct Topic {
    inner: Arc<TopicInner>,
}

#[derive(Debug)]
struct TopicInner {
    number: u32,
    name: Value,
    handler: Arc<dyn TopicHandler>,
    members: Mutex<Members>,
}

#[derive(Debug, Default)]
struct Members {
    /// The newest event's number.
    last: u64,
    by_connection: BTreeMap<ConnectionId, Subscriber>,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Published {
    /// Subscribers that it was queued for.
    pub sent: usize,
    /// Subscribers that are behind and will get it when they catch up.
    pub behind: usize,
}

/// One peer's subscription to one topic, as the topic's handler sees it. Clones are handles to the
/// same one.
#[derive(Clone, Debug)]
pub struct Subscriber {
    inner: Arc<SubscriberInner>,
}

#[derive(Debug)]
struct SubscriberInner {
    connection: Connection,
    topic: Arc<TopicInner>,
    window: usize,
    state: Mutex<SubscriberState>,
    room: Notify,
}

#[derive(Debug)]
struct SubscriberState {
    /// Bytes of frames sent and not acknowledged.
    on_the_way: usize,
    position: u64,
    mode: Mode,
    /// An event was not sent while it was catching up.
    missed: bool,
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Live,
    Behind,
    CatchingUp,
}

impl Topic {
    /// Its name.
    pub fn name(&self) -> &Value {
        &self.inner.name
    }

    /// How many subscribers it has.
    pub fn subscriber_count(&self) -> usize {
        self.inner.members.lock().by_connection.len()
    }

    /// Its subscribers.
    pub fn subscribers(&self) -> Vec<Subscriber> {
        self.inner.members.lock().by_connection.values().cloned().collect()
    }

    /// Sends an event to every subscriber that is live and has room; the others are behind. The frame
    /// is encoded once for all. Numbers rise; the caller makes sure that calls come in their order.
    pub fn publish(&self, seq: u64, payload: Value) -> Published {
        let message = event(self.inner.number, seq, payload);
        let mut published = Published::default();
        let mut catch_up = Vec::new();
        {
            let mut members = self.inner.members.lock();
            members.last = members.last.max(seq);
            for subscriber in members.by_connection.values() {
                if subscriber.offer(seq, &message) {
                    published.sent += 1;
                } else {
                    published.behind += 1;
                    if subscriber.begin_catching_up() {
                        catch_up.push(subscriber.clone());
                    }
                }
            }
        }
        for subscriber in catch_up {
            subscriber.catch_up();
        }
        published
    }
}

impl Subscriber {
    /// The connection that it came over.
    pub fn connection(&self) -> &Connection {
        &self.inner.connection
    }

    /// Whom it belongs to.
    pub fn principal(&self) -> Option<&Principal> {
        self.inner.connection.principal()
    }

    /// The topic's name.
    pub fn topic(&self) -> &Value {
        &self.inner.topic.name
    }

    /// The number of the last event that was queued for it, or what was set.
    pub fn position(&self) -> u64 {
        self.inner.state.lock().position
    }

    /// Says where it stands, as when it resumes.
    pub fn set_position(&self, seq: u64) {
        self.inner.state.lock().position = seq;
    }

    /// Bytes that it may be sent now; zero if its connection is full.
    pub fn room(&self) -> usize {
        if !self.inner.connection.has_room() {
            return 0;
        }
        self.inner.window.saturating_sub(self.inner.state.lock().on_the_way)
    }

    /// Whether it gets events as they are published.
    pub fn is_live(&self) -> bool {
        self.inner.state.lock().mode == Mode::Live
    }

    /// Sends it an event while it catches up, as soon as there is room. The last frame may pass the
    /// window, so that one larger than the window gets through.
    ///
    /// # Errors
    /// If the subscription or its connection has ended, or the event is too large for a frame.
    pub async fn send(&self, seq: u64, payload: Value) -> Result<(), SendError> {
        self.deliver(event(self.inner.topic.number, seq, payload), seq).await
    }

    /// Tells it that the events from `from` to `to` are not to be had any more.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub async fn gap(&self, from: u64, to: u64) -> Result<(), SendError> {
        let entries = [
            (kw!("topic"), long(self.inner.topic.number)),
            (kw!("from"), long(from)),
            (kw!("to"), long(to)),
        ];
        self.deliver(Message::new(kw!("pubsub/gap"), entries), to).await
    }

    /// Gives it events as they are published from here on, if it stands at the newest one. False if
    /// more was published since: send that first.
    pub fn go_live(&self) -> bool {
        let members = self.inner.topic.members.lock();
        let mut state = self.inner.state.lock();
        if state.position < members.last {
            return false;
        }
        state.mode = Mode::Live;
        state.missed = false;
        true
    }

    /// Ends the subscription and tells it why.
    pub fn end(&self, reason: &Refusal) {
        if self.leave() {
            let mut entries = vec![(kw!("topic"), long(self.inner.topic.number))];
            entries.extend(reason.to_entries());
            let _ = self.inner.connection.reply(Message::new(kw!("pubsub/ended"), entries));
        }
    }

    async fn deliver(&self, message: Message, seq: u64) -> Result<(), SendError> {
        loop {
            let notified = self.inner.room.notified();
            let mut notified = std::pin::pin!(notified);
            notified.as_mut().enable();
            let has_room = {
                let state = self.inner.state.lock();
                if state.ended {
                    let close = Close::new(Close::NORMAL, "the subscription ended");
                    return Err(SendError::Closed(close));
                }
                state.on_the_way < self.inner.window
            };
            if !has_room {
                // Ends with an acknowledgement, or with the connection, which ends this future's task.
                notified.await;
                continue;
            }
            match self.inner.connection.send(message.clone()) {
                Ok(bytes) => {
                    let mut state = self.inner.state.lock();
                    state.on_the_way += bytes;
                    state.position = state.position.max(seq);
                    return Ok(());
                }
                Err(SendError::Full { .. }) => self.inner.connection.ready().await,
                Err(error) => return Err(error),
            }
        }
    }

    /// Queues a published event if it is live and has room; else it is behind.
    fn offer(&self, seq: u64, message: &Message) -> bool {
        let mut state = self.inner.state.lock();
        if state.mode != Mode::Live {
            state.missed = true;
            return false;
        }
        if state.on_the_way < self.inner.window
            && let Ok(bytes) = self.inner.connection.send(message.clone())
        {
            state.on_the_way += bytes;
            state.position = seq;
            return true;
        }
        state.mode = Mode::Behind;
        false
    }

    /// Whether it is behind and has room enough that catching up is worth while.
    fn begin_catching_up(&self) -> bool {
        let mut state = self.inner.state.lock();
        let begin = state.mode == Mode::Behind
            && !state.ended
            && state.on_the_way <= self.inner.window / 2
            && self.inner.connection.has_room();
        if begin {
            state.mode = Mode::CatchingUp;
            state.missed = false;
        }
        begin
    }

    /// Runs the handler's catch-up beside everything else.
    fn catch_up(&self) {
        let subscriber = self.clone();
        self.inner.connection.run(Box::pin(async move {
            loop {
                if let Err(refusal) = subscriber.inner.topic.handler.catch_up(&subscriber).await {
                    subscriber.end(&refusal);
                    return;
                }
                let mut state = subscriber.inner.state.lock();
                if state.mode == Mode::CatchingUp && std::mem::take(&mut state.missed) {
                    continue;
                }
                if state.mode == Mode::CatchingUp {
                    state.mode = Mode::Behind;
                }
                return;
            }
        }));
    }

    /// Takes it out of its topic. False if it was out already.
    fn leave(&self) -> bool {
        if std::mem::replace(&mut self.inner.state.lock().ended, true) {
            return false;
        }
        let id = self.inner.connection.id();
        {
            let mut members = self.inner.topic.members.lock();
            if members.by_connection.get(&id).is_some_and(|s| Arc::ptr_eq(&s.inner, &self.inner)) {
                members.by_connection.remove(&id);
            }
        }
        self.inner.room.notify_waiters();
        self.inner.topic.handler.unsubscribed(self);
        true
    }
}

fn event(topic: u32, seq: u64, payload: Value) -> Message {
    let entries = [(kw!("topic"), long(topic)), (kw!("seq"), long(seq)), (kw!("payload"), payload)];
    Message::new(kw!("pubsub/event"), entries)
}

/// The serving half of the layer.
#[derive(Debug, Default)]
pub(super) struct Serving {
    topics: DashMap<Value, Topic>,
    next: AtomicU32,
    connections: DashMap<ConnectionId, Subscriptions>,
}

/// The subscriptions of one connection, by the topic's number.
#[derive(Debug, Default)]
struct Subscriptions {
    pending: BTreeSet<u32>,
    active: BTreeMap<u32, Subscriber>,
}

impl Serving {
    pub(super) fn serve(&self, name: Value, handler: Arc<dyn TopicHandler>) -> Topic {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let inner = TopicInner { number, name: name.clone(), handler, members: Mutex::default() };
        let topic = Topic { inner: Arc::new(inner) };
        if let Some(old) = self.topics.insert(name, topic.clone()) {
            self.dissolve(&old, &Refusal::new("pubsub/replaced", "the topic is served anew"));
        }
        topic
    }

    pub(super) fn topic(&self, name: &Value) -> Option<Topic> {
        self.topics.get(name).map(|entry| entry.value().clone())
    }

    pub(super) fn withdraw(&self, name: &Value, reason: &Refusal) {
        if let Some((_, topic)) = self.topics.remove(name) {
            self.dissolve(&topic, reason);
        }
    }

    fn dissolve(&self, topic: &Topic, reason: &Refusal) {
        for subscriber in topic.subscribers() {
            subscriber.end(reason);
            if let Some(mut of) = self.connections.get_mut(&subscriber.inner.connection.id()) {
                of.active.remove(&topic.inner.number);
            }
        }
    }

    pub(super) fn subscribe(
        self: &Arc<Self>,
        message: &Message,
        cx: &mut Cx<'_>,
    ) -> Result<(), Malformed> {
        let id = number(message, "id")?;
        let name = topic_name(message)?;
        let asked = usize::try_from(number(message, "window")?).unwrap_or(usize::MAX);
        let state = message.get(&kw!("state")).cloned().unwrap_or_default();
        let connection = cx.connection().clone();
        let topic = match self.admit(&connection, &name) {
            Ok(topic) => topic,
            Err(refusal) => {
                cx.send(refused(id, &refusal));
                return Ok(());
            }
        };
        let window = asked.clamp(1, connection.limits().window_bytes);
        let subscriber = Subscriber {
            inner: Arc::new(SubscriberInner {
                connection,
                topic: topic.inner.clone(),
                window,
                state: Mutex::new(SubscriberState {
                    on_the_way: 0,
                    position: 0,
                    mode: Mode::CatchingUp,
                    missed: false,
                    ended: false,
                }),
                room: Notify::new(),
            }),
        };
        let serving = self.clone();
        cx.run(async move { serving.join(id, subscriber, state).await });
        Ok(())
    }

    /// Whether this connection may have one more subscription, to this topic.
    fn admit(&self, connection: &Connection, name: &Value) -> Result<Topic, Refusal> {
        connection.authorize(Action::Subscribe, name, None)?;
        let topic = self.topic(name).ok_or_else(|| unknown(name))?;
        let mut of = self.connections.entry(connection.id()).or_default();
        let number = topic.inner.number;
        if of.pending.contains(&number) || of.active.contains_key(&number) {
            let message = format!("this connection is subscribed to {name} already");
            return Err(Refusal::new("pubsub/already-subscribed", message));
        }
        let limit = connection.limits().subscriptions;
        if of.pending.len() + of.active.len() >= limit {
            let message = format!("a connection has at most {limit} subscriptions");
            return Err(Refusal::new("pubsub/too-many-subscriptions", message));
        }
        of.pending.insert(number);
        Ok(topic)
    }

    async fn join(&self, id: u64, subscriber: Subscriber, state: Value) {
        let connection = &subscriber.inner.connection;
        let topic = subscriber.inner.topic.clone();
        let asked = topic.handler.subscribe(&subscriber, state);
        let limit = connection.limits().request;
        let answer = within(&**connection.runtime(), limit, asked).await.unwrap_or_else(|| {
            Err(Refusal::new("pubsub/timeout", "the topic did not answer in time"))
        });
        let answer = match answer {
            Ok(answer) => answer,
            Err(refusal) => {
                if let Some(mut of) = self.connections.get_mut(&connection.id()) {
                    of.pending.remove(&topic.number);
                }
                let _ = connection.reply(refused(id, &refusal));
                return;
            }
        };
        {
            let mut of = self.connections.entry(connection.id()).or_default();
            of.pending.remove(&topic.number);
            of.active.insert(topic.number, subscriber.clone());
        }
        topic.members.lock().by_connection.insert(connection.id(), subscriber.clone());
        // The connection may have gone, and its subscriptions been cleared away, just before.
        if !connection.is_open() {
            self.disconnected(connection);
            return;
        }
        let entries = [
            (kw!("id"), long(id)),
            (kw!("topic"), long(topic.number)),
            (kw!("window"), long(subscriber.inner.window)),
            (kw!("state"), answer),
        ];
        let _ = connection.reply(Message::new(kw!("pubsub/subscribed"), entries));
        subscriber.catch_up();
    }

    pub(super) fn unsubscribe(&self, message: &Message, cx: &mut Cx<'_>) -> Result<(), Malformed> {
        let number = topic_number(message)?;
        let removed = self
            .connections
            .get_mut(&cx.connection().id())
            .and_then(|mut of| of.active.remove(&number));
        if let Some(subscriber) = removed {
            subscriber.leave();
        }
        cx.send(Message::new(kw!("pubsub/ended"), [(kw!("topic"), long(number))]));
        Ok(())
    }

    pub(super) fn ack(&self, message: &Message, connection: &Connection) -> Result<(), Malformed> {
        let bytes = usize::try_from(number(message, "bytes")?).unwrap_or(usize::MAX);
        let Some(subscriber) = self.subscriber(message, connection)? else {
            return Ok(());
        };
        {
            let mut state = subscriber.inner.state.lock();
            // More than was sent: either side lost count, and no window holds any more.
            state.on_the_way = state.on_the_way.checked_sub(bytes).ok_or(Malformed("bytes"))?;
        }
        subscriber.inner.room.notify_waiters();
        if subscriber.begin_catching_up() {
            subscriber.catch_up();
        }
        Ok(())
    }

    pub(super) fn tell(&self, message: &Message, connection: &Connection) -> Result<(), Malformed> {
        if let Some(subscriber) = self.subscriber(message, connection)? {
            subscriber.inner.topic.handler.told(&subscriber, payload(message));
        }
        Ok(())
    }

    /// The subscription that a message names; `None` if it has just ended.
    fn subscriber(
        &self,
        message: &Message,
        connection: &Connection,
    ) -> Result<Option<Subscriber>, Malformed> {
        let number = topic_number(message)?;
        let of = self.connections.get(&connection.id());
        Ok(of.and_then(|of| of.active.get(&number).cloned()))
    }

    pub(super) fn publish(&self, message: &Message, cx: &mut Cx<'_>) -> Result<(), Malformed> {
        let id = number(message, "id")?;
        let name = topic_name(message)?;
        let payload = payload(message);
        let connection = cx.connection();
        let published = connection
            .authorize(Action::Publish, &name, Some(&payload))
            .and_then(|()| self.topic(&name).ok_or_else(|| unknown(&name)))
            .and_then(|topic| topic.inner.handler.published(connection, payload));
        cx.send(match published {
            Ok(answer) => {
                let entries = [(kw!("id"), long(id)), (kw!("payload"), answer)];
                Message::new(kw!("pubsub/published"), entries)
            }
            Err(refusal) => refused(id, &refusal),
        });
        Ok(())
    }

    pub(super) fn room(&self, connection: &Connection) {
        let subscribers: Vec<Subscriber> = match self.connections.get(&connection.id()) {
            Some(of) => of.active.values().cloned().collect(),
            None => return,
        };
        for subscriber in subscribers {
            if subscriber.begin_catching_up() {
                subscriber.catch_up();
            }
        }
    }

    pub(super) fn disconnected(&self, connection: &Connection) {
        if let Some((_, of)) = self.connections.remove(&connection.id()) {
            for subscriber in of.active.into_values() {
                subscriber.leave();
            }
        }
    }
}

fn unknown(name: &Value) -> Refusal {
    Refusal::new("pubsub/unknown-topic", format!("no topic {name} is served here"))
}

fn refused(id: u64, refusal: &Refusal) -> Message {
    let mut entries = vec![(kw!("id"), long(id))];
    entries.extend(refusal.to_entries());
    Message::new(kw!("pubsub/refused"), entries)
}
