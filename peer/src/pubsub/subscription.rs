//! The subscribing side: subscriptions that outlive connections, and the credit they give.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use datahike_value::{Value, kw};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::{Malformed, long, number, payload, topic_number};
use crate::connection::{Connection, ConnectionId, LinkId};
use crate::error::{Refusal, SendError};
use crate::limits::Limits;
use crate::message::Message;
use crate::rt::{MaybeSend, MaybeSync, within};

/// How to subscribe.
#[derive(Clone, Default)]
pub struct SubscribeOptions {
    window: Option<usize>,
    state: Option<Arc<dyn State>>,
}

trait State: MaybeSend + MaybeSync {
    fn now(&self) -> Value;
}

impl<F: Fn() -> Value + MaybeSend + MaybeSync> State for F {
    fn now(&self) -> Value {
        self()
    }
}

impl SubscribeOptions {
    /// Lets this many bytes be on the way unconsumed; the serving side may grant less. Without it: as
    /// much as both sides' [`Limits::window_bytes`] allow.
    #[must_use]
    pub fn window(mut self, bytes: usize) -> Self {
        self.window = Some(bytes);
        self
    }

    /// Tells the topic's handler at every subscribing, after reconnects too, what this returns then.
    #[must_use]
    pub fn state(mut self, state: impl Fn() -> Value + MaybeSend + MaybeSync + 'static) -> Self {
        self.state = Some(Arc::new(state));
        self
    }
}

impl fmt::Debug for SubscribeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscribeOptions").field("window", &self.window).finish_non_exhaustive()
    }
}

/// What a subscription yields.
#[derive(Debug)]
#[non_exhaustive]
pub enum Delivery {
    /// It stands, for the first time or again; events follow. With the handler's answer.
    Subscribed(Value),
    /// An event.
    Event(Event),
    /// These events are not to be had any more.
    Gap {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// The connection is lost; what follows comes over another, beginning with
    /// [`Subscribed`](Self::Subscribed).
    Disconnected,
    /// It was refused or ended. Nothing follows.
    Ended(Refusal),
}

/// An event. The other side may send as much more once it is dropped, so keep it while it costs memory.
#[derive(Debug)]
pub struct Event {
    /// Its number.
    pub seq: u64,
    /// What the handler sent.
    pub payload: Value,
    credit: Credit,
}

impl Event {
    /// Bytes of the frame that it came in.
    pub fn frame_bytes(&self) -> usize {
        self.credit.bytes
    }
}

/// A subscription. Dropping it unsubscribes.
#[derive(Debug)]
pub struct Subscription {
    inner: Arc<SubscriptionInner>,
    deliveries: mpsc::UnboundedReceiver<Delivery>,
    subscribing: Arc<Subscribing>,
}

struct SubscriptionInner {
    id: u64,
    link: LinkId,
    topic: Value,
    options: SubscribeOptions,
    /// Holds no more than the window's bytes, which is checked on arrival.
    deliveries: mpsc::UnboundedSender<Delivery>,
    /// Where it stands, while it does.
    place: Mutex<Option<Place>>,
}

#[derive(Clone, Debug)]
struct Place {
    connection: Connection,
    number: u32,
    account: Arc<Account>,
}

/// What one subscription over one connection may still be sent.
#[derive(Debug)]
struct Account {
    connection: Connection,
    number: u32,
    window: usize,
    state: Mutex<AccountState>,
}

#[derive(Debug, Default)]
struct AccountState {
    /// Received and not acknowledged.
    outstanding: usize,
    /// Of that, consumed.
    consumed: usize,
}

#[derive(Debug)]
struct Credit {
    account: Arc<Account>,
    bytes: usize,
}

impl Drop for Credit {
    fn drop(&mut self) {
        let due = {
            let mut state = self.account.state.lock();
            state.consumed += self.bytes;
            // A quarter at a time: few acknowledgements, and never a sender that waits for the rest.
            if state.consumed < (self.account.window / 4).max(1) {
                return;
            }
            let due = std::mem::take(&mut state.consumed);
            state.outstanding = state.outstanding.saturating_sub(due);
            due
        };
        let entries = [(kw!("topic"), long(self.account.number)), (kw!("bytes"), long(due))];
        let _ = self.account.connection.reply(Message::new(kw!("pubsub/ack"), entries));
    }
}

impl Subscription {
    /// The next delivery, in order; `None` after [`Delivery::Ended`].
    pub async fn next(&mut self) -> Option<Delivery> {
        self.deliveries.recv().await
    }

    /// The next delivery if one is here already.
    pub fn try_next(&mut self) -> Option<Delivery> {
        self.deliveries.try_recv().ok()
    }

    /// Tells the topic's handler something.
    ///
    /// # Errors
    /// If the subscription does not stand at the moment, or see [`SendError`].
    pub fn tell(&self, payload: Value) -> Result<(), SendError> {
        let place = self.inner.place.lock().clone();
        let Some(place) = place else {
            return Err(SendError::NotOpen);
        };
        let entries = [(kw!("topic"), long(place.number)), (kw!("payload"), payload)];
        place.connection.send(Message::new(kw!("pubsub/tell"), entries)).map(|_| ())
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.subscribing.forget(&self.inner);
        if let Some(place) = self.inner.place.lock().take() {
            self.subscribing.places.remove(&(place.connection.id(), place.number));
            let entries = [(kw!("topic"), long(place.number))];
            let _ = place.connection.reply(Message::new(kw!("pubsub/unsubscribe"), entries));
        }
    }
}

impl fmt::Debug for SubscriptionInner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("topic", &self.topic)
            .field("link", &self.link)
            .finish_non_exhaustive()
    }
}

/// The subscribing half of the layer.
#[derive(Debug, Default)]
pub(super) struct Subscribing {
    next: AtomicU64,
    links: Mutex<BTreeMap<LinkId, Way>>,
    places: DashMap<(ConnectionId, u32), Arc<SubscriptionInner>>,
    requests: Mutex<BTreeMap<(ConnectionId, u64), Request>>,
}

/// A way to another peer: its connection, if there is one, and what is subscribed there.
#[derive(Debug, Default)]
struct Way {
    connection: Option<Connection>,
    subscriptions: BTreeMap<u64, Arc<SubscriptionInner>>,
}

#[derive(Debug)]
enum Request {
    Subscribe(Arc<SubscriptionInner>),
    Publish(oneshot::Sender<Result<Value, Refusal>>),
}

impl Subscribing {
    fn id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn subscribe(
        self: &Arc<Self>,
        link: LinkId,
        topic: Value,
        options: SubscribeOptions,
    ) -> Subscription {
        let (sender, deliveries) = mpsc::unbounded_channel();
        let inner = Arc::new(SubscriptionInner {
            id: self.id(),
            link,
            topic,
            options,
            deliveries: sender,
            place: Mutex::default(),
        });
        let connection = {
            let mut links = self.links.lock();
            let way = links.entry(link).or_default();
            way.subscriptions.insert(inner.id, inner.clone());
            way.connection.clone()
        };
        if let Some(connection) = connection {
            self.ask(&connection, &inner);
        }
        Subscription { inner, deliveries, subscribing: self.clone() }
    }

    fn ask(self: &Arc<Self>, connection: &Connection, subscription: &Arc<SubscriptionInner>) {
        let id = self.id();
        let key = (connection.id(), id);
        self.requests.lock().insert(key, Request::Subscribe(subscription.clone()));
        let window = window(subscription, connection.limits());
        let state = subscription.options.state.as_ref().map_or(Value::Nil, |state| state.now());
        let entries = [
            (kw!("id"), long(id)),
            (kw!("topic"), subscription.topic.clone()),
            (kw!("window"), long(window)),
            (kw!("state"), state),
        ];
        let sent = connection.reply(Message::new(kw!("pubsub/subscribe"), entries));
        if let Err(error) = sent {
            // A connection that has just gone is followed by another, and that by another try.
            if !matches!(error, SendError::Closed(_)) {
                self.requests.lock().remove(&key);
                self.finish(subscription, Refusal::new("pubsub/not-sent", error.to_string()));
            }
            return;
        }
        let (subscribing, runtime) = (self.clone(), connection.runtime().clone());
        let limit = connection.limits().request;
        connection.run(Box::pin(async move {
            runtime.sleep(limit).await;
            let late = subscribing.requests.lock().remove(&key);
            if let Some(Request::Subscribe(subscription)) = late {
                let message = "the subscription was not answered in time";
                subscribing.finish(&subscription, Refusal::new("peer/timeout", message));
            }
        }));
    }

    pub(super) async fn publish(
        &self,
        link: LinkId,
        topic: Value,
        payload: Value,
    ) -> Result<Value, Refusal> {
        let connection = self.links.lock().get(&link).and_then(|way| way.connection.clone());
        let Some(connection) = connection else {
            return Err(disconnected());
        };
        let id = self.id();
        let key = (connection.id(), id);
        let (answer, answered) = oneshot::channel();
        self.requests.lock().insert(key, Request::Publish(answer));
        let entries = [(kw!("id"), long(id)), (kw!("topic"), topic), (kw!("payload"), payload)];
        let message = Message::new(kw!("pubsub/publish"), entries);
        let exchange = async {
            if let Err(error) = connection.deliver(message).await {
                return Err(match error {
                    SendError::Closed(_) | SendError::NotOpen => disconnected(),
                    error => Refusal::new("pubsub/not-sent", error.to_string()),
                });
            }
            // Cleared away with the connection at the latest.
            answered.await.unwrap_or_else(|_| Err(disconnected()))
        };
        let limit = connection.limits().request;
        let outcome = within(&**connection.runtime(), limit, exchange).await;
        self.requests.lock().remove(&key);
        outcome.unwrap_or_else(|| {
            Err(Refusal::new("peer/timeout", "the publication was not answered in time"))
        })
    }

    pub(super) fn subscribed(
        &self,
        message: &Message,
        connection: &Connection,
    ) -> Result<(), Malformed> {
        let number = topic_number(message)?;
        let granted = super::number(message, "window")?;
        let Some(Request::Subscribe(subscription)) = self.answered(message, connection)? else {
            return Ok(());
        };
        let granted = usize::try_from(granted).unwrap_or(usize::MAX);
        let window = granted.min(window(&subscription, connection.limits()));
        let account = Arc::new(Account {
            connection: connection.clone(),
            number,
            window,
            state: Mutex::default(),
        });
        let standing = {
            let links = self.links.lock();
            let way = links.get(&subscription.link);
            way.is_some_and(|way| way.subscriptions.contains_key(&subscription.id))
        };
        if !standing {
            // Dropped while it was asked for.
            let entries = [(kw!("topic"), long(number))];
            let _ = connection.reply(Message::new(kw!("pubsub/unsubscribe"), entries));
            return Ok(());
        }
        let place = Place { connection: connection.clone(), number, account };
        *subscription.place.lock() = Some(place);
        let answer = message.get(&kw!("state")).cloned().unwrap_or_default();
        let _ = subscription.deliveries.send(Delivery::Subscribed(answer));
        self.places.insert((connection.id(), number), subscription);
        Ok(())
    }

    pub(super) fn refused(
        &self,
        message: &Message,
        connection: &Connection,
    ) -> Result<(), Malformed> {
        let refusal = Refusal::from_message(message);
        match self.answered(message, connection)? {
            Some(Request::Subscribe(subscription)) => self.finish(&subscription, refusal),
            Some(Request::Publish(answer)) => {
                let _ = answer.send(Err(refusal));
            }
            None => {}
        }
        Ok(())
    }

    pub(super) fn published(
        &self,
        message: &Message,
        connection: &Connection,
    ) -> Result<(), Malformed> {
        if let Some(Request::Publish(answer)) = self.answered(message, connection)? {
            let _ = answer.send(Ok(payload(message)));
        }
        Ok(())
    }

    fn answered(
        &self,
        message: &Message,
        connection: &Connection,
    ) -> Result<Option<Request>, Malformed> {
        let id = number(message, "id")?;
        Ok(self.requests.lock().remove(&(connection.id(), id)))
    }

    pub(super) fn event(
        &self,
        message: &Message,
        connection: &Connection,
    ) -> Result<(), Malformed> {
        let seq = number(message, "seq")?;
        let Some((subscription, credit)) = self.receive(message, connection)? else {
            return Ok(());
        };
        let event = Event { seq, payload: payload(message), credit };
        let _ = subscription.deliveries.send(Delivery::Event(event));
        Ok(())
    }

    pub(super) fn gap(&self, message: &Message, connection: &Connection) -> Result<(), Malformed> {
        let (from, to) = (number(message, "from")?, number(message, "to")?);
        if let Some((subscription, _)) = self.receive(message, connection)? {
            let _ = subscription.deliveries.send(Delivery::Gap { from, to });
        }
        Ok(())
    }

    /// Books what came; whoever sends past its window breaks the protocol.
    fn receive(
        &self,
        message: &Message,
        connection: &Connection,
    ) -> Result<Option<(Arc<SubscriptionInner>, Credit)>, Malformed> {
        let number = topic_number(message)?;
        let known = self.places.get(&(connection.id(), number));
        let Some(subscription) = known.map(|entry| entry.value().clone()) else {
            return Ok(None);
        };
        let account = match &*subscription.place.lock() {
            Some(place) => place.account.clone(),
            None => return Ok(None),
        };
        let bytes = message.frame_bytes();
        {
            let mut state = account.state.lock();
            if state.outstanding >= account.window {
                return Err(Malformed("window"));
            }
            state.outstanding += bytes;
        }
        Ok(Some((subscription, Credit { account, bytes })))
    }

    pub(super) fn ended(
        &self,
        message: &Message,
        connection: &Connection,
    ) -> Result<(), Malformed> {
        let number = topic_number(message)?;
        if let Some((_, subscription)) = self.places.remove(&(connection.id(), number)) {
            self.finish(&subscription, Refusal::from_message(message));
        }
        Ok(())
    }

    pub(super) fn connected(self: &Arc<Self>, connection: &Connection) {
        let subscriptions: Vec<_> = {
            let mut links = self.links.lock();
            let way = links.entry(connection.link()).or_default();
            way.connection = Some(connection.clone());
            way.subscriptions.values().cloned().collect()
        };
        for subscription in subscriptions {
            self.ask(connection, &subscription);
        }
    }

    pub(super) fn disconnected(&self, connection: &Connection) {
        let requests: Vec<_> = {
            let mut requests = self.requests.lock();
            let range = (connection.id(), 0)..=(connection.id(), u64::MAX);
            let keys: Vec<_> = requests.range(range).map(|(key, _)| *key).collect();
            keys.into_iter().filter_map(|key| requests.remove(&key)).collect()
        };
        for request in requests {
            if let Request::Publish(answer) = request {
                let _ = answer.send(Err(disconnected()));
            }
        }
        let subscriptions: Vec<_> = {
            let mut links = self.links.lock();
            let Some(way) = links.get_mut(&connection.link()) else {
                return;
            };
            if way.connection.as_ref().is_some_and(|known| known.id() == connection.id()) {
                way.connection = None;
            }
            let all = way.subscriptions.values().cloned().collect();
            if way.subscriptions.is_empty() {
                links.remove(&connection.link());
            }
            all
        };
        for subscription in subscriptions {
            let place = subscription.place.lock().take();
            if let Some(place) = place {
                self.places.remove(&(place.connection.id(), place.number));
                let _ = subscription.deliveries.send(Delivery::Disconnected);
            }
        }
    }

    fn finish(&self, subscription: &Arc<SubscriptionInner>, reason: Refusal) {
        self.forget(subscription);
        subscription.place.lock().take();
        let _ = subscription.deliveries.send(Delivery::Ended(reason));
    }

    fn forget(&self, subscription: &SubscriptionInner) {
        let mut links = self.links.lock();
        if let Some(way) = links.get_mut(&subscription.link) {
            way.subscriptions.remove(&subscription.id);
            if way.subscriptions.is_empty() && way.connection.is_none() {
                links.remove(&subscription.link);
            }
        }
    }
}

fn window(subscription: &SubscriptionInner, limits: &Limits) -> usize {
    subscription.options.window.unwrap_or(limits.window_bytes).clamp(1, limits.window_bytes)
}

fn disconnected() -> Refusal {
    Refusal::new("peer/disconnected", "there is no connection")
}
