//! The receiving side over a peer: one task that drives a subscriber over all connections of a
//! link.

use std::{collections::HashMap, fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use datahike_peer::{BoxFuture, Connection, ConnectionId, Link, SharedRuntime};
use futures::future::OptionFuture;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use crate::{
    SyncError,
    layer::up_message,
    limits::{FETCH_ADDRESSES_MAX, SAVE_DELAY},
    outbox::Outbox,
    point::{Address, Head, Identity},
    replica::{Outcome, Replica, ReplicaError, Task, perform},
    subscriber::{
        MirrorEvent, Progress, Subscriber, SubscriberEffect, SubscriberEvent, SubscriberOptions,
    },
};

/// Events that a watcher may be behind before it loses the oldest.
const EVENTS_MAX: usize = 1024;
/// Fetches of the application that may wait for the task.
const COMMANDS_MAX: usize = 256;
/// Numbers of requests that a mirror has to itself among those of its connection.
const REQUESTS: u32 = 1 << 20;

type Fetched = Result<Vec<(Address, Bytes)>, Arc<SyncError>>;

/// A mirror that is kept up to date; clones are cheap. When the last one is dropped it stops.
#[derive(Clone)]
pub struct Mirror {
    handle: Arc<Handle>,
}

struct Handle {
    state: watch::Receiver<MirrorState>,
    events: broadcast::Sender<MirrorEvent>,
    commands: mpsc::Sender<Command>,
}

/// Where a mirror stands.
#[derive(Clone, Debug, Default)]
pub struct MirrorState {
    /// The snapshot that queries see; `None` while there is none.
    pub head: Option<Head>,
    /// Which database the server has; `None` as long as it has not been reached.
    pub identity: Option<Identity>,
    /// Whether there is a subscription.
    pub subscribed: bool,
    /// Whether all is there that the server was last known to have.
    pub synced: bool,
    /// How far the transfer of a snapshot is, if one is under way.
    pub progress: Option<Progress>,
    /// The last error, until the next success.
    pub fault: Option<Arc<SyncError>>,
    /// The mirror has stopped and will not go on.
    pub stopped: bool,
}

/// What the layer tells the mirrors of a link.
pub(crate) enum Incoming {
    Connected(Connection),
    Disconnected(ConnectionId),
    Payload(ConnectionId, Bytes),
    Room,
}

enum Command {
    Fetch(Vec<Address>, oneshot::Sender<Fetched>),
    Stop,
}

impl Mirror {
    pub(crate) fn start(
        link: Link,
        replica: Arc<dyn Replica>,
        options: SubscriberOptions,
        number: u32,
        incoming: mpsc::Receiver<Incoming>,
    ) -> Self {
        let (state, watched) = watch::channel(MirrorState::default());
        let events = broadcast::Sender::new(EVENTS_MAX);
        let (commands, orders) = mpsc::channel(COMMANDS_MAX);
        let handle = Arc::new(Handle { state: watched, events: events.clone(), commands });
        let runtime = link.peer().runtime().clone();
        let task = MirrorTask {
            subscriber: Subscriber::numbered(options, number.wrapping_mul(REQUESTS)),
            runtime: runtime.clone(),
            replica,
            outbox: None,
            working: None.into(),
            save_at: None,
            saving: None,
            timer: None,
            wishes: HashMap::new(),
            last_token: 0,
            state,
            events,
        };
        runtime.spawn(Box::pin(task.run(link, incoming, orders)));
        Self { handle }
    }

    /// Where it stands now.
    pub fn state(&self) -> MirrorState {
        self.handle.state.borrow().clone()
    }

    /// Where it stands, whenever that changes.
    pub fn states(&self) -> watch::Receiver<MirrorState> {
        self.handle.state.clone()
    }

    /// What happens from now on. A receiver that falls more than a thousand events behind loses
    /// the oldest; transactions are better watched at the replica, which sees each of them.
    pub fn events(&self) -> broadcast::Receiver<MirrorEvent> {
        self.handle.events.subscribe()
    }

    /// Waits until the mirror has all that the server had when it was last heard of.
    ///
    /// # Errors
    /// Why the mirror stopped instead. There is no time limit: without a connection it waits.
    pub async fn synced(&self) -> Result<Head, Arc<SyncError>> {
        self.wait(|state| state.head.filter(|_| state.synced)).await
    }

    /// Waits until the mirror has this commit.
    ///
    /// # Errors
    /// Why the mirror stopped instead. There is no time limit: without a connection it waits.
    pub async fn reached(&self, seq: u64) -> Result<Head, Arc<SyncError>> {
        self.wait(|state| state.head.filter(|head| head.at.seq >= seq)).await
    }

    async fn wait(
        &self,
        found: impl Fn(&MirrorState) -> Option<Head>,
    ) -> Result<Head, Arc<SyncError>> {
        let mut states = self.handle.state.clone();
        loop {
            {
                let state = states.borrow_and_update();
                if let Some(head) = found(&state) {
                    return Ok(head);
                }
                if state.stopped {
                    return Err(state
                        .fault
                        .clone()
                        .unwrap_or_else(|| Arc::new(SyncError::Stopped)));
                }
            }
            if states.changed().await.is_err() {
                return Err(Arc::new(SyncError::Stopped));
            }
        }
    }

    /// Fetches blocks from the server, verifies and stores them; those that the server no longer
    /// has are left out of the answer.
    ///
    /// # Errors
    /// [`SyncError::Offline`] if there is no connection, or it ended meanwhile.
    pub async fn fetch(&self, addresses: &[Address]) -> Fetched {
        let mut blocks = Vec::with_capacity(addresses.len());
        let mut answers = Vec::new();
        for piece in addresses.chunks(FETCH_ADDRESSES_MAX) {
            let (answer, answered) = oneshot::channel();
            let command = Command::Fetch(piece.to_vec(), answer);
            let stopped = |_| Arc::new(SyncError::Stopped);
            self.handle.commands.send(command).await.map_err(stopped)?;
            answers.push(answered);
        }
        for answered in answers {
            blocks.extend(answered.await.map_err(|_| Arc::new(SyncError::Stopped))??);
        }
        Ok(blocks)
    }

    /// Ends the subscription and the task.
    pub async fn stop(&self) {
        if self.handle.commands.send(Command::Stop).await.is_ok() {
            let mut states = self.handle.state.clone();
            // An error means that the task is gone, which is what was wanted.
            let _ = states.wait_for(|state| state.stopped).await;
        }
    }
}

impl fmt::Debug for Mirror {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mirror").field("state", &*self.handle.state.borrow()).finish()
    }
}

struct MirrorTask {
    subscriber: Subscriber,
    runtime: SharedRuntime,
    replica: Arc<dyn Replica>,
    outbox: Option<Outbox>,
    working: OptionFuture<BoxFuture<'static, Outcome>>,
    /// When the commits that the replica shows are to become durable.
    save_at: Option<Duration>,
    saving: Option<BoxFuture<'static, Result<(), ReplicaError>>>,
    timer: Option<(Duration, BoxFuture<'static, ()>)>,
    wishes: HashMap<u64, oneshot::Sender<Fetched>>,
    last_token: u64,
    state: watch::Sender<MirrorState>,
    events: broadcast::Sender<MirrorEvent>,
}

impl MirrorTask {
    async fn run(
        mut self,
        link: Link,
        mut incoming: mpsc::Receiver<Incoming>,
        mut commands: mpsc::Receiver<Command>,
    ) {
        // The layer tells of connections from now on; there may be one already.
        if let Some(connection) = link.connection() {
            self.connected(connection);
        }
        while !self.subscriber.is_stopped() {
            self.set_timer();
            let timer: OptionFuture<_> = self.timer.as_mut().map(|(_, sleep)| sleep).into();
            let saving: OptionFuture<_> = self.saving.as_mut().into();
            tokio::select! {
                Some(outcome) = &mut self.working => {
                    self.working = None.into();
                    self.worked(outcome);
                }
                Some(incoming) = incoming.recv() => self.incoming(incoming),
                Some(saved) = saving => {
                    self.saving = None;
                    if let Err(error) = saved {
                        self.on(SubscriberEvent::NotSaved(error));
                    }
                }
                command = commands.recv() => self.command(command),
                Some(()) = timer => self.tick(),
            }
        }
        // Nothing on the replica is abandoned half way.
        (&mut self.working).await;
        OptionFuture::from(self.saving.as_mut()).await;
        if let Err(error) = self.replica.save().await {
            tracing::warn!(%error, "the newest commits of a mirror were not saved; they come again");
        }
        self.state.send_modify(|state| state.stopped = true);
    }

    fn now(&self) -> Duration {
        self.runtime.now().since_start()
    }

    /// The timer is left alone when what it is for moves on: it finds out when it fires.
    fn set_timer(&mut self) {
        let save = self.save_at.filter(|_| self.saving.is_none());
        let Some(next) = self.subscriber.deadline().into_iter().chain(save).min() else { return };
        if self.timer.as_ref().is_none_or(|(at, _)| next < *at) {
            let sleep = self.runtime.sleep(next.saturating_sub(self.now()));
            self.timer = Some((next, sleep));
        }
    }

    fn tick(&mut self) {
        self.timer = None;
        let now = self.now();
        if self.saving.is_none() && self.save_at.is_some_and(|at| at <= now) {
            self.save_at = None;
            self.saving = Some(save(self.replica.clone()));
        }
        if self.subscriber.deadline().is_some_and(|at| at <= now) {
            self.on(SubscriberEvent::Tick);
        }
    }

    fn worked(&mut self, outcome: Outcome) {
        if matches!(outcome, Outcome::Applied(_)) && self.save_at.is_none() {
            self.save_at = Some(self.now() + SAVE_DELAY);
        }
        self.on(SubscriberEvent::Done(outcome));
    }

    fn connected(&mut self, connection: Connection) {
        let known = self.outbox.as_ref().map(|outbox| outbox.connection().id());
        if known.is_some_and(|known| known >= connection.id()) || !connection.is_open() {
            return;
        }
        if known.is_some() {
            self.on(SubscriberEvent::Disconnected);
        }
        self.outbox = Some(Outbox::new(connection));
        self.on(SubscriberEvent::Connected);
    }

    fn incoming(&mut self, incoming: Incoming) {
        let current = self.outbox.as_ref().map(|outbox| outbox.connection().id());
        match incoming {
            Incoming::Connected(connection) => self.connected(connection),
            Incoming::Disconnected(id) if current == Some(id) => {
                self.outbox = None;
                self.on(SubscriberEvent::Disconnected);
            }
            Incoming::Payload(id, payload) if current == Some(id) => {
                self.on(SubscriberEvent::Received(payload));
            }
            Incoming::Room => {
                if let Some(outbox) = &self.outbox {
                    outbox.drain();
                }
            }
            // Of a connection that was replaced.
            Incoming::Disconnected(_) | Incoming::Payload(..) => {}
        }
    }

    fn command(&mut self, command: Option<Command>) {
        match command {
            Some(Command::Fetch(addresses, answer)) => {
                self.last_token += 1;
                let token = self.last_token;
                self.wishes.insert(token, answer);
                self.on(SubscriberEvent::Fetch { token, addresses });
            }
            // Nobody holds the mirror any more.
            Some(Command::Stop) | None => self.on(SubscriberEvent::Stop),
        }
    }

    fn on(&mut self, event: SubscriberEvent) {
        let mut effects = Vec::new();
        self.subscriber.on(self.now(), event, &mut effects);
        for effect in effects {
            match effect {
                SubscriberEffect::Send(payload) => {
                    if let Some(outbox) = &self.outbox {
                        outbox.push(up_message(&payload));
                    }
                }
                SubscriberEffect::Run(task) => {
                    let replica = self.replica.clone();
                    self.working = Some(work(replica, task)).into();
                }
                SubscriberEffect::Report(event) => self.report(event),
                SubscriberEffect::Fetched { token, blocks } => {
                    if let Some(wish) = self.wishes.remove(&token) {
                        // Whoever asked may have given up.
                        let _ = wish.send(blocks);
                    }
                }
            }
        }
        if let Some(outbox) = &self.outbox {
            outbox.drain();
        }
    }

    fn report(&mut self, event: MirrorEvent) {
        let head = self.subscriber.have().head;
        let synced = self.subscriber.is_synced();
        self.state.send_modify(|state| {
            state.head = head;
            state.synced = synced;
            match &event {
                MirrorEvent::Subscribed { identity, .. } => {
                    state.subscribed = true;
                    state.identity = Some(*identity);
                }
                MirrorEvent::Progress(progress) => state.progress = Some(*progress),
                MirrorEvent::Adopted(_) => state.progress = None,
                MirrorEvent::Synced(_) => state.fault = None,
                MirrorEvent::Reset(_) | MirrorEvent::Offline => state.subscribed = false,
                MirrorEvent::Fault(error) => {
                    state.subscribed = false;
                    state.fault = Some(error.clone());
                }
                MirrorEvent::Failed(error) => {
                    state.subscribed = false;
                    state.fault = Some(error.clone());
                    state.stopped = true;
                }
                _ => {}
            }
        });
        // There may be nobody who watches.
        let _ = self.events.send(event);
    }
}

fn save(replica: Arc<dyn Replica>) -> BoxFuture<'static, Result<(), ReplicaError>> {
    Box::pin(async move { replica.save().await })
}

fn work(replica: Arc<dyn Replica>, task: Task) -> BoxFuture<'static, Outcome> {
    Box::pin(async move { perform(&*replica, task).await })
}
