//! The serving side over a peer: databases that are served, and one provider per subscription.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc, Mutex, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use datahike_peer::{
    Action, Connection, ConnectionId, Message,
    value::{Value, kw},
};

use crate::{
    envelope::seal,
    layer::{SyncLayer, down_message, lock},
    limits::SUBSCRIPTIONS_MAX,
    message::{Cause, Request, Subscribe, Topic, Update},
    outbox::Outbox,
    point::{Database, FlushPoint, Point, StoreName},
    provider::{Provider, ProviderEffect, ProviderEvent},
    source::{Source, answer},
};

/// Subscribers that whoever commits writes to itself, so that they see it without a change of
/// threads. It would be held up by many.
const WRITTEN_AT_ONCE_MAX: usize = 4;

/// Tells the subscribers of one branch what happens to it. It stops being served when this is
/// dropped.
///
/// Commits must be announced in order and once they are durable; from several threads only under
/// a lock of the caller's.
pub struct Publisher {
    served: Arc<Served>,
    layer: SyncLayer,
    names: Vec<Database>,
}

/// One branch that is served.
pub(crate) struct Served {
    topic: Topic,
    source: Arc<dyn Source>,
    subscriptions: Mutex<HashMap<ConnectionId, Arc<Subscription>>>,
}

/// How one subscriber keeps up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscriberStats {
    /// Its connection.
    pub connection: ConnectionId,
    /// The last commit sent to it.
    pub sent: u64,
    /// Bytes sent and not acknowledged.
    pub in_flight: u64,
    /// Bytes kept for it until it has room.
    pub queued: usize,
    /// Whether there are commits that it was not sent.
    pub behind: bool,
}

impl Publisher {
    pub(crate) fn new(served: Arc<Served>, layer: SyncLayer, names: Vec<Database>) -> Self {
        Self { served, layer, names }
    }

    /// A commit is durable; this is its log entry. Encoded once, however many listen.
    pub fn committed(&self, at: Point, entry: Bytes) {
        let topic = self.served.topic;
        let update = Update::Commit { topic, seq: at.seq, entry };
        // What takes several payloads is read from the log by each subscription when it has room.
        let frame = seal(topic, &update).ok().and_then(|payloads| match &payloads[..] {
            [one] => Some(one.clone()),
            _ => None,
        });
        let shared = frame.as_ref().map(|frame| (frame.clone(), down_message(frame)));
        let subscriptions = self.served.subscriptions();
        let at_once = subscriptions.len() <= WRITTEN_AT_ONCE_MAX;
        for subscription in subscriptions {
            let event = ProviderEvent::Committed { at, frame: frame.clone() };
            subscription.on_shared(event, shared.as_ref(), at_once);
        }
    }

    /// A flush is durable, at a commit that was announced before.
    pub fn flushed(&self, flush: FlushPoint) {
        for subscription in self.served.subscriptions() {
            subscription.on(ProviderEvent::Flushed(flush));
        }
    }

    /// Ends all subscriptions. With [`Cause::Reset`] the mirrors begin anew; after
    /// [`Cause::Shutdown`] they come back, after [`Cause::Deleted`] they do not.
    pub fn end(&self, cause: Cause, text: &str) {
        for subscription in self.served.subscriptions() {
            subscription.on(ProviderEvent::Ended(cause, text.to_owned()));
        }
    }

    /// How each subscriber keeps up.
    pub fn subscribers(&self) -> Vec<SubscriberStats> {
        let stats = |subscription: Arc<Subscription>| {
            let state = lock(&subscription.state);
            Some(state.provider.as_ref().map(|provider| SubscriberStats {
                connection: subscription.outbox.connection().id(),
                sent: provider.sent().seq,
                in_flight: provider.in_flight(),
                queued: provider.queued(),
                behind: provider.is_behind(),
            }))
            .flatten()
        };
        self.served.subscriptions().into_iter().filter_map(stats).collect()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.layer.withdraw(&self.names, &self.served);
        self.end(Cause::Shutdown, "the database is no longer served here");
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").field("topic", &self.served.topic).finish_non_exhaustive()
    }
}

impl Served {
    pub(crate) fn new(topic: Topic, source: Arc<dyn Source>) -> Self {
        Self { topic, source, subscriptions: Mutex::default() }
    }

    fn subscriptions(&self) -> Vec<Arc<Subscription>> {
        lock(&self.subscriptions).values().cloned().collect()
    }
}

/// The subscriptions of one connection.
pub(crate) struct Session {
    outbox: Arc<Outbox>,
    subscriptions: Mutex<HashMap<Topic, Arc<Subscription>>>,
    ended: AtomicBool,
}

impl Session {
    pub(crate) fn new(connection: Connection) -> Self {
        Self {
            outbox: Arc::new(Outbox::new(connection)),
            subscriptions: Mutex::default(),
            ended: AtomicBool::new(false),
        }
    }

    pub(crate) fn subscribe(
        self: &Arc<Self>,
        connection: &Connection,
        served: Option<Arc<Served>>,
        request: u32,
        subscribe: Subscribe,
    ) {
        let refuse = |cause, text: String| {
            let update = Update::Refused { request, cause, text };
            self.outbox.push(down_message(&update.encode()));
            self.outbox.drain();
        };
        // Asked before it is said whether there is such a database.
        let target = target(&subscribe.database);
        if let Err(refusal) = connection.authorize(Action::Subscribe, &target, None) {
            return refuse(Cause::NotAllowed, refusal.message);
        }
        let Some(served) = served else {
            let text = format!("there is no database {} here", subscribe.database);
            return refuse(Cause::UnknownDatabase, text);
        };
        let topic = served.topic;
        let subscription = Arc::new(Subscription {
            served: served.clone(),
            session: Arc::downgrade(self),
            outbox: self.outbox.clone(),
            state: Mutex::default(),
        });
        {
            let mut all = lock(&self.subscriptions);
            if all.contains_key(&topic) {
                drop(all);
                return refuse(
                    Cause::AlreadySubscribed,
                    "it is mirrored over this connection".into(),
                );
            }
            if all.len() >= SUBSCRIPTIONS_MAX {
                drop(all);
                let text = format!("a connection may have {SUBSCRIPTIONS_MAX}");
                return refuse(Cause::TooManySubscriptions, text);
            }
            all.insert(topic, subscription.clone());
        }
        // In the table before the source is asked where it stands: no commit falls in between.
        lock(&served.subscriptions).insert(connection.id(), subscription.clone());
        if self.ended.load(Ordering::SeqCst) {
            return self.end();
        }
        subscription.begin(request, subscribe);
    }

    pub(crate) fn request(&self, request: Request) {
        let topic = match &request {
            Request::Ack { topic, .. }
            | Request::Fetch { topic, .. }
            | Request::Changes { topic, .. }
            | Request::Ready { topic, .. }
            | Request::Unsubscribe { topic } => *topic,
            Request::Subscribe { .. } => return,
        };
        // One that is not there has ended on this side, and the mirror did not know yet.
        let subscription = lock(&self.subscriptions).get(&topic).cloned();
        if let Some(subscription) = subscription {
            subscription.on(ProviderEvent::Received(request));
        }
    }

    pub(crate) fn drain(&self) {
        self.outbox.drain();
    }

    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        let all: Vec<_> = lock(&self.subscriptions).drain().map(|(_, one)| one).collect();
        for subscription in all {
            subscription.withdraw();
        }
    }
}

/// What an [`Authorize`](datahike_peer::Authorize) is asked about.
fn target(database: &Database) -> Value {
    let store = match &database.store {
        StoreName::Id(id) => Value::from(*id),
        StoreName::Name(name) => Value::from(name.as_str()),
    };
    let branch = Value::from(database.branch.as_str());
    Value::map([(Value::from(kw!("store")), store), (Value::from(kw!("branch")), branch)])
}

struct Subscription {
    served: Arc<Served>,
    session: Weak<Session>,
    outbox: Arc<Outbox>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    provider: Option<Provider>,
    /// The earliest time for which a timer runs.
    timer: Option<Duration>,
}

impl Subscription {
    fn begin(self: &Arc<Self>, request: u32, subscribe: Subscribe) {
        let mut effects = Vec::new();
        let provider =
            Provider::new(self.served.topic, request, subscribe, self.now(), &mut effects);
        lock(&self.state).provider = Some(provider);
        self.perform(effects);
    }

    fn now(&self) -> Duration {
        self.outbox.connection().runtime().now().since_start()
    }

    fn on(self: &Arc<Self>, event: ProviderEvent) {
        self.on_shared(event, None, false);
    }

    /// Takes an event. A payload that equals `shared` is sent as that message, which is encoded
    /// only once. What is sent is written on this thread if it is to be `at_once`.
    fn on_shared(
        self: &Arc<Self>,
        event: ProviderEvent,
        shared: Option<&(Bytes, Message)>,
        at_once: bool,
    ) {
        let now = self.now();
        let mut effects = Vec::new();
        let wake = {
            let mut state = lock(&self.state);
            let Some(provider) = &mut state.provider else { return };
            provider.on(now, event, &mut effects);
            let deadline = provider.deadline();
            // What is sent is put in order while the provider is locked.
            effects.retain(|effect| match effect {
                ProviderEffect::Send(payload) => {
                    let same = shared.filter(|(frame, _)| {
                        frame.as_ptr() == payload.as_ptr() && frame.len() == payload.len()
                    });
                    let message = same.map(|(_, message)| message.clone());
                    self.outbox.push(message.unwrap_or_else(|| down_message(payload)));
                    false
                }
                _ => true,
            });
            let sooner = deadline.filter(|at| state.timer.is_none_or(|timer| *at < timer));
            if sooner.is_some() {
                state.timer = sooner;
            }
            sooner
        };
        match at_once {
            true => self.outbox.drain_at_once(),
            false => self.outbox.drain(),
        }
        self.perform(effects);
        if let Some(at) = wake {
            self.wake(at, now);
        }
    }

    fn perform(self: &Arc<Self>, effects: Vec<ProviderEffect>) {
        for effect in effects {
            match effect {
                ProviderEffect::Send(payload) => self.outbox.push(down_message(&payload)),
                ProviderEffect::Ask(ask) => {
                    let this = self.clone();
                    self.outbox.connection().run(Box::pin(async move {
                        let answer = answer(&*this.served.source, ask).await;
                        this.on(ProviderEvent::Answered(answer));
                    }));
                }
                ProviderEffect::End => self.withdraw(),
            }
        }
    }

    fn wake(self: &Arc<Self>, at: Duration, now: Duration) {
        let sleep = self.outbox.connection().runtime().sleep(at.saturating_sub(now));
        let this = Arc::downgrade(self);
        self.outbox.connection().run(Box::pin(async move {
            sleep.await;
            if let Some(this) = this.upgrade() {
                lock(&this.state).timer = None;
                this.on(ProviderEvent::Tick);
            }
        }));
    }

    /// Takes the subscription out of all tables.
    fn withdraw(self: &Arc<Self>) {
        let id = self.outbox.connection().id();
        let same = |one: &Arc<Self>| Arc::ptr_eq(one, self);
        let mut all = lock(&self.served.subscriptions);
        if all.get(&id).is_some_and(same) {
            all.remove(&id);
        }
        drop(all);
        if let Some(session) = self.session.upgrade() {
            let mut all = lock(&session.subscriptions);
            if all.get(&self.served.topic).is_some_and(same) {
                all.remove(&self.served.topic);
            }
        }
    }
}
