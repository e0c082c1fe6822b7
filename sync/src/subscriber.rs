//! The receiving side of one subscription as a state machine: events in, effects out.
//!
//! It takes messages strictly in order and gives the replica one task at a time, so that no state
//! exists in which a later message was applied before an earlier one. Whatever goes wrong ends the
//! subscription, never the copy: the next attempt begins with what the replica then says it has.

mod apply;
mod fetch;
mod transfer;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;

use self::{
    fetch::{Fetches, Purpose},
    transfer::Transfer,
};
use crate::{
    SyncError,
    envelope::Opener,
    limits::{
        ACK_DELAY, ANSWER, ATTEMPTS_MAX, PART_BYTES_MAX, RETRY, RETRY_MAX, WINDOW_BYTES_DEFAULT,
        WINDOW_BYTES_MAX, WINDOW_BYTES_MIN,
    },
    message::{Cause, Plan, Request, Reset, Subscribe, Topic, Update},
    point::{Address, Database, FlushPoint, Have, Head, Identity, Mode, Point, Shape},
    replica::{Outcome, ReplicaError, Task},
};

/// What is to be mirrored and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscriberOptions {
    /// The database.
    pub database: Database,
    /// What is kept of it.
    pub mode: Mode,
    /// Bytes that may be under way; see [`Subscribe::window`].
    pub window: u64,
}

impl SubscriberOptions {
    /// A full mirror with the default window.
    pub fn full(database: Database) -> Self {
        Self { database, mode: Mode::Full, window: WINDOW_BYTES_DEFAULT }
    }
}

/// What happens to a subscriber.
#[derive(Debug)]
pub enum SubscriberEvent {
    /// There is a connection to the server.
    Connected,
    /// It is gone.
    Disconnected,
    /// A payload came for this subscription, or in answer to its request.
    Received(Bytes),
    /// The task that was given out is done.
    Done(Outcome),
    /// What the replica showed could not be made durable.
    NotSaved(ReplicaError),
    /// A query needs blocks, at most
    /// [`FETCH_ADDRESSES_MAX`](crate::limits::FETCH_ADDRESSES_MAX); answered by
    /// [`SubscriberEffect::Fetched`] with the same token.
    Fetch {
        /// Names the wish.
        token: u64,
        /// The blocks.
        addresses: Vec<Address>,
    },
    /// The mirror is to stop.
    Stop,
    /// Time has passed.
    Tick,
}

/// What a subscriber wants done.
#[derive(Debug)]
pub enum SubscriberEffect {
    /// Send this to the server, after what was sent before.
    Send(Bytes),
    /// Do this on the replica; answered by [`SubscriberEvent::Done`]. There is never more than one.
    Run(Task),
    /// Tell whoever watches the mirror.
    Report(MirrorEvent),
    /// What came of [`SubscriberEvent::Fetch`]: blocks that are verified and stored.
    Fetched {
        /// The wish.
        token: u64,
        /// The blocks that the server had.
        blocks: Result<Vec<(Address, Bytes)>, Arc<SyncError>>,
    },
}

/// What can be watched of a mirror.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum MirrorEvent {
    /// The server accepted the subscription; its head stands there.
    Subscribed {
        /// Which database it is.
        identity: Identity,
        /// The server's head.
        head: Head,
    },
    /// How far the transfer of a snapshot is.
    Progress(Progress),
    /// A snapshot is complete: queries see it from now on.
    Adopted(Head),
    /// Commits were applied, up to this one.
    Advanced(Point),
    /// The indexes were written out as at the server.
    Flushed(FlushPoint),
    /// The mirror's own indexes did not come out as the server's; it takes the blocks instead.
    FoldDiffers(FlushPoint),
    /// Commits after `from` up to `to` were taken in without being seen one by one, because the
    /// server's log no longer has them.
    Gap {
        /// The last commit seen.
        from: u64,
        /// The last of those that were not.
        to: u64,
    },
    /// For the first time in this subscription the mirror has all that the server is known to have.
    Synced(Point),
    /// The copy was given up, for this reason; a new one is being received.
    Reset(Reset),
    /// The connection is gone.
    Offline,
    /// The subscription ended with an error; the mirror tries again.
    Fault(Arc<SyncError>),
    /// The mirror has given up.
    Failed(Arc<SyncError>),
}

/// How far the transfer of a snapshot is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Seeds that are stored.
    pub blocks: u64,
    /// Seeds of the snapshot.
    pub blocks_total: u64,
    /// Bytes of blocks that were received, uncompressed.
    pub bytes: u64,
    /// The size of the seeds as the server estimates it; 0 if it does not.
    pub bytes_total: u64,
}

/// One subscription, seen from the mirror.
#[derive(Debug)]
pub struct Subscriber {
    options: SubscriberOptions,
    window: u64,
    phase: Phase,
    connected: bool,
    have: Have,
    /// Identity and shape of the server, known after the plan.
    server: Option<(Identity, Shape)>,
    /// The newest commit that the server is known to have.
    target: u64,
    /// Reported as such.
    synced: bool,
    request: u32,
    topic: Option<Topic>,
    opener: Opener,
    inbox: VecDeque<(Update, u64)>,
    inbox_bytes: u64,
    /// Bytes of the message that the running task belongs to.
    working_bytes: u64,
    busy: Option<Doing>,
    /// The running task began under a subscription that has ended.
    stale: bool,
    taken: u64,
    acked: u64,
    ack_at: Option<Duration>,
    heard: Duration,
    fetches: Fetches,
    transfer: Option<Transfer>,
    /// A snapshot beyond what is there, whose blocks the mirror asked for.
    rebasing: Option<FlushPoint>,
    /// Blocks of a flush that came unasked since the last one was complete.
    changed: u64,
    attempts: u32,
    /// Copies given up since the mirror last had all.
    resets: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing can be done without a connection.
    Offline,
    /// The replica is being asked what it has.
    Loading,
    /// The server is being asked for a plan.
    Asking,
    /// The subscription stands.
    Subscribed,
    /// A pause after a fault.
    Waiting(Duration),
    /// The mirror was stopped or gave up.
    Stopped,
}

/// What the running task is for.
#[derive(Debug)]
enum Doing {
    Load,
    Apply,
    Batch,
    Difference(FlushPoint),
    Fold(FlushPoint),
    Begin,
    /// Seeds, up to this number, or changed blocks; whether they end there.
    Put(bool),
    Answer(u32, bool),
    Lacks(bool),
    Complete(FlushPoint),
    Reset(Reset),
}

type Effects = Vec<SubscriberEffect>;

impl Subscriber {
    /// A subscriber without connection.
    pub fn new(options: SubscriberOptions) -> Self {
        Self::numbered(options, 0)
    }

    /// A subscriber whose requests have the numbers after `request`, where several share a
    /// connection and must not be given each other's answers.
    pub fn numbered(options: SubscriberOptions, request: u32) -> Self {
        Self {
            window: options.window.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX),
            options,
            phase: Phase::Offline,
            connected: false,
            have: Have::default(),
            server: None,
            target: 0,
            synced: false,
            request,
            topic: None,
            opener: Opener::default(),
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            working_bytes: 0,
            busy: None,
            stale: false,
            taken: 0,
            acked: 0,
            ack_at: None,
            heard: Duration::ZERO,
            fetches: Fetches::default(),
            transfer: None,
            rebasing: None,
            changed: 0,
            attempts: 0,
            resets: 0,
        }
    }

    /// Number of the request that waits for its answer; payloads in answer to it are this
    /// subscriber's.
    pub fn request(&self) -> u32 {
        self.request
    }

    /// Number of the subscription, if it stands.
    pub fn topic(&self) -> Option<Topic> {
        self.topic
    }

    /// What the replica has, as of the last task that was done.
    pub fn have(&self) -> &Have {
        &self.have
    }

    /// Whether there is a subscription and the mirror has all that the server is known to have.
    pub fn is_synced(&self) -> bool {
        self.topic.is_some()
            && self.transfer.is_none()
            && self.have.head.is_some_and(|head| head.at.seq >= self.target)
    }

    /// Whether the mirror has stopped for good.
    pub fn is_stopped(&self) -> bool {
        self.phase == Phase::Stopped
    }

    /// Bytes of messages that were received and are not taken in yet.
    pub fn queued(&self) -> u64 {
        self.inbox_bytes + self.working_bytes
    }

    /// When the subscriber wants a [`SubscriberEvent::Tick`], if nothing else happens before.
    pub fn deadline(&self) -> Option<Duration> {
        let phase = match self.phase {
            Phase::Waiting(until) => Some(until),
            Phase::Asking => Some(self.heard + ANSWER),
            Phase::Subscribed if self.waits_for_server() => Some(self.heard + ANSWER),
            _ => None,
        };
        phase.into_iter().chain(self.ack_at).min()
    }

    /// Takes an event and appends what is to be done.
    pub fn on(&mut self, now: Duration, event: SubscriberEvent, effects: &mut Effects) {
        if self.is_stopped() {
            self.on_stopped(event, effects);
            return;
        }
        match event {
            SubscriberEvent::Connected => {
                self.connected = true;
                self.attempts = 0;
                self.load(now, effects);
            }
            SubscriberEvent::Disconnected => {
                self.connected = false;
                self.end_subscription(Arc::new(SyncError::Offline), effects);
                self.phase = Phase::Offline;
                effects.push(SubscriberEffect::Report(MirrorEvent::Offline));
            }
            SubscriberEvent::Received(payload) => {
                if let Err(error) = self.received(now, payload, effects) {
                    self.fault(now, error, effects);
                }
            }
            SubscriberEvent::Done(outcome) => self.done(now, outcome, effects),
            SubscriberEvent::NotSaved(error) => self.fault(now, error.into(), effects),
            SubscriberEvent::Fetch { token, addresses } => {
                if !self.connected || !self.fetches.want(addresses, Purpose::Token(token)) {
                    let blocks = Err(Arc::new(SyncError::Offline));
                    effects.push(SubscriberEffect::Fetched { token, blocks });
                }
            }
            SubscriberEvent::Stop => {
                if let Some(topic) = self.topic {
                    let request = Request::Unsubscribe { topic };
                    effects.push(SubscriberEffect::Send(request.encode()));
                }
                self.end_subscription(Arc::new(SyncError::Stopped), effects);
                self.phase = Phase::Stopped;
                return;
            }
            SubscriberEvent::Tick => self.tick(now, effects),
        }
        self.pump(now, effects);
    }

    fn on_stopped(&mut self, event: SubscriberEvent, effects: &mut Effects) {
        if let SubscriberEvent::Fetch { token, .. } = event {
            let blocks = Err(Arc::new(SyncError::Stopped));
            effects.push(SubscriberEffect::Fetched { token, blocks });
        }
    }

    fn tick(&mut self, now: Duration, effects: &mut Effects) {
        match self.phase {
            Phase::Waiting(until) if until <= now => self.load(now, effects),
            Phase::Asking | Phase::Subscribed
                if self.heard + ANSWER <= now
                    && (self.phase == Phase::Asking || self.waits_for_server()) =>
            {
                self.fault(now, SyncError::Timeout { seconds: ANSWER.as_secs() }, effects);
            }
            _ => {}
        }
        if self.ack_at.is_some_and(|at| at <= now) {
            self.ack(effects);
        }
    }

    /// Something was asked for and there is nothing else to do.
    fn waits_for_server(&self) -> bool {
        self.busy.is_none()
            && self.inbox.is_empty()
            && (self.fetches.is_waiting() || self.transfer.is_some())
    }

    fn load(&mut self, now: Duration, effects: &mut Effects) {
        self.phase = Phase::Loading;
        self.heard = now;
        if self.busy.is_none() {
            self.run(Doing::Load, Task::Load, effects);
        }
    }

    fn run(&mut self, doing: Doing, task: Task, effects: &mut Effects) {
        self.busy = Some(doing);
        self.stale = false;
        effects.push(SubscriberEffect::Run(task));
    }

    fn send(&self, request: &Request, effects: &mut Effects) {
        effects.push(SubscriberEffect::Send(request.encode()));
    }

    fn subscribe(&mut self, now: Duration, effects: &mut Effects) {
        self.phase = Phase::Asking;
        self.heard = now;
        self.request = self.request.wrapping_add(1);
        let subscribe = Box::new(Subscribe {
            database: self.options.database.clone(),
            mode: self.options.mode,
            window: self.window,
            have: self.have.clone(),
        });
        self.send(&Request::Subscribe { request: self.request, subscribe }, effects);
    }

    /// Forgets everything that belongs to a subscription.
    fn end_subscription(&mut self, error: Arc<SyncError>, effects: &mut Effects) {
        self.topic = None;
        self.server = None;
        self.transfer = None;
        self.changed = 0;
        self.rebasing = None;
        self.opener = Opener::default();
        self.inbox.clear();
        (self.inbox_bytes, self.working_bytes) = (0, 0);
        (self.taken, self.acked, self.ack_at) = (0, 0, None);
        self.synced = false;
        self.stale = self.busy.is_some();
        for token in self.fetches.clear() {
            effects.push(SubscriberEffect::Fetched { token, blocks: Err(error.clone()) });
        }
    }

    /// Ends the subscription and tries again after a pause, or gives up.
    fn fault(&mut self, now: Duration, error: SyncError, effects: &mut Effects) {
        if let Some(topic) = self.topic {
            self.send(&Request::Unsubscribe { topic }, effects);
        }
        self.attempts += 1;
        let lasting = match &error {
            SyncError::Replica(error) => {
                matches!(error, ReplicaError::Store { .. } | ReplicaError::Refused(_))
            }
            SyncError::Refused { cause, .. } => {
                matches!(
                    cause,
                    Cause::UnknownDatabase
                        | Cause::NotAllowed
                        | Cause::Deleted
                        | Cause::Damaged
                        | Cause::Reset(_)
                )
            }
            _ => false,
        };
        let error = Arc::new(error);
        self.end_subscription(error.clone(), effects);
        if lasting || self.attempts > ATTEMPTS_MAX {
            self.phase = Phase::Stopped;
            effects.push(SubscriberEffect::Report(MirrorEvent::Failed(error)));
        } else {
            let pause = RETRY.saturating_mul(1 << (self.attempts - 1).min(16)).min(RETRY_MAX);
            self.phase = Phase::Waiting(now + pause);
            effects.push(SubscriberEffect::Report(MirrorEvent::Fault(error)));
        }
    }

    fn received(
        &mut self,
        now: Duration,
        payload: Bytes,
        effects: &mut Effects,
    ) -> Result<(), SyncError> {
        let len = payload.len() as u64;
        let (answers, number) = crate::envelope::number_of(&payload)?;
        match self.phase {
            Phase::Asking if answers && number == self.request => {
                self.heard = now;
                return self.planned(now, Update::decode(payload)?, effects);
            }
            Phase::Subscribed if !answers && Some(number) == self.topic => {}
            // Late, for a subscription that has ended.
            _ => return Ok(()),
        }
        self.heard = now;
        if self.inbox_bytes + self.working_bytes + len > self.window + PART_BYTES_MAX as u64 + 64 {
            return Err(SyncError::TooMuch("bytes"));
        }
        match self.opener.open(payload)? {
            Some(update) => {
                self.inbox_bytes += len;
                self.inbox.push_back((update, len));
            }
            None => self.take(now, len, effects),
        }
        Ok(())
    }

    /// Counts bytes as taken in, and acknowledges them when it is time.
    fn take(&mut self, now: Duration, len: u64, effects: &mut Effects) {
        if len == 0 || self.topic.is_none() {
            return;
        }
        self.taken += len;
        if self.taken - self.acked >= self.window / 4 {
            self.ack(effects);
        } else if self.ack_at.is_none() {
            self.ack_at = Some(now + ACK_DELAY);
        }
    }

    fn ack(&mut self, effects: &mut Effects) {
        self.ack_at = None;
        if let Some(topic) = self.topic.filter(|_| self.taken > self.acked) {
            self.acked = self.taken;
            self.send(&Request::Ack { topic, bytes: self.taken }, effects);
        }
    }

    /// Takes the answer to the subscription.
    fn planned(
        &mut self,
        now: Duration,
        update: Update,
        effects: &mut Effects,
    ) -> Result<(), SyncError> {
        match update {
            Update::Plan { topic, identity, shape, head, plan, .. } => {
                self.topic = Some(topic);
                self.phase = Phase::Subscribed;
                self.target = head.at.seq;
                self.server = Some((identity, shape));
                if plan == Plan::Snapshot {
                    self.transfer = Some(Transfer::Announced);
                }
                effects.push(SubscriberEffect::Report(MirrorEvent::Subscribed { identity, head }));
                self.report_synced(effects);
                Ok(())
            }
            Update::Refused { cause, text, .. } => self.ended(now, cause, text, effects),
            _ => Err(out_of_turn("message", "a plan")),
        }
    }

    /// The server refused or ended the subscription.
    fn ended(
        &mut self,
        _now: Duration,
        cause: Cause,
        text: String,
        effects: &mut Effects,
    ) -> Result<(), SyncError> {
        self.topic = None;
        match cause {
            Cause::Reset(reason) if self.resets < ATTEMPTS_MAX => {
                self.resets += 1;
                let error = SyncError::Refused { cause, text };
                self.end_subscription(Arc::new(error), effects);
                self.phase = Phase::Loading;
                if self.busy.is_none() {
                    self.run(Doing::Reset(reason), Task::Reset(reason), effects);
                }
                Ok(())
            }
            _ => Err(SyncError::Refused { cause, text }),
        }
    }

    /// Gives the replica what came, as long as it is free, and asks for what is wanted.
    fn pump(&mut self, now: Duration, effects: &mut Effects) {
        while self.busy.is_none() && self.phase == Phase::Subscribed {
            let Some((update, len)) = self.inbox.pop_front() else { break };
            self.inbox_bytes -= len;
            self.working_bytes = len;
            if let Err(error) = self.handle(now, update, effects) {
                self.fault(now, error, effects);
                return;
            }
            if self.busy.is_none() {
                let len = std::mem::take(&mut self.working_bytes);
                self.take(now, len, effects);
            }
        }
        if let Some(topic) = self.topic.filter(|_| self.phase == Phase::Subscribed) {
            while let Some((request, addresses)) = self.fetches.next() {
                self.heard = now;
                self.send(&Request::Fetch { topic, request, addresses }, effects);
            }
        }
    }

    fn advance(&mut self, at: Point, _effects: &mut Effects) {
        if let Some(head) = &mut self.have.head {
            head.at = at;
        }
        self.attempts = 0;
    }

    fn folded(&mut self, flush: FlushPoint, effects: &mut Effects) {
        if let Some(head) = &mut self.have.head {
            head.flush = flush;
        }
        effects.push(SubscriberEffect::Report(MirrorEvent::Flushed(flush)));
    }

    fn ready(&self, flush: FlushPoint, effects: &mut Effects) {
        if let Some(topic) = self.topic {
            self.send(&Request::Ready { topic, flush: flush.address }, effects);
        }
    }

    fn report_synced(&mut self, effects: &mut Effects) {
        if !self.synced
            && self.is_synced()
            && let Some(head) = self.have.head
        {
            self.synced = true;
            (self.attempts, self.resets) = (0, 0);
            effects.push(SubscriberEffect::Report(MirrorEvent::Synced(head.at)));
        }
    }
}

fn out_of_turn(message: &'static str, due: &str) -> SyncError {
    SyncError::OutOfTurn { message, detail: format!("{due} was due") }
}
