//! The serving side of one subscription as a state machine: events in, effects out.
//!
//! It never holds more than one answer of its source and what of it has not been sent. How much
//! is under way to the mirror is bounded by the window; when that is full nothing is queued. The
//! mirror is then behind, and gets what it lacks, read from the log, once it has room again.

mod stage;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    envelope::seal,
    limits::{
        BATCH_COMMITS_MIN, BLOCKS_PER_MESSAGE_MAX, CHUNK_BYTES, FETCHES_MAX, SEEDS_PER_MESSAGE_MAX,
        STALL, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN,
    },
    message::{Cause, Request, Reset, Subscribe, Topic, Update},
    point::{Address, FlushPoint, Head, Point},
    source::{Answer, Ask, Change},
};

/// What happens to a provider.
#[derive(Debug)]
pub enum ProviderEvent {
    /// The branch has a new durable commit.
    Committed {
        /// Which.
        at: Point,
        /// The payload that carries it, encoded once for all subscribers; `None` if it takes more
        /// than one.
        frame: Option<Bytes>,
    },
    /// The branch has a new durable flush.
    Flushed(FlushPoint),
    /// The subscription is to end, for a reason that lies with the server.
    Ended(Cause, String),
    /// The mirror sent something.
    Received(Request),
    /// The source answered.
    Answered(Answer),
    /// Time has passed.
    Tick,
}

/// What a provider wants done.
#[derive(Debug)]
pub enum ProviderEffect {
    /// Send this payload to the mirror, after those before it.
    Send(Bytes),
    /// Put this question to the source; answered by [`ProviderEvent::Answered`]. There is never
    /// more than one.
    Ask(Ask),
    /// The subscription is over; what was to be sent has been.
    End,
}

/// One subscription, seen from the server.
#[derive(Debug)]
pub struct Provider {
    topic: Topic,
    request: u32,
    subscribe: Subscribe,
    window: u64,
    /// Whether the mirror makes its own blocks at a flush.
    folds: bool,
    /// The commit up to which everything was sent.
    sent: Point,
    /// The flush that the mirror stands on, as far as it was told.
    flush: FlushPoint,
    /// Where the branch stands.
    head: Option<Head>,
    bytes_sent: u64,
    bytes_acked: u64,
    outbox: VecDeque<Bytes>,
    fetches: VecDeque<(u32, VecDeque<Address>)>,
    /// Asked for by the mirror and not begun.
    changes: Option<(Address, FlushPoint)>,
    stage: Stage,
    asked: Option<Asked>,
    /// When the mirror last took something, or had nothing to take.
    moved: Duration,
    /// The source knows the commit that the mirror named, so that both are on one history.
    verified: bool,
    /// The source gave no batch; it is not asked again before the mirror has caught up.
    no_batch: bool,
    /// How often a flush was gone before its seeds could be listed.
    replans: u8,
    /// Commits and flushes that were announced before the source said where it stands.
    announced: (Option<Point>, Option<FlushPoint>),
    ended: bool,
}

#[derive(Debug)]
enum Stage {
    /// The source is being asked where it stands.
    Planning,
    /// The log is gone; the source is asked for a difference, then for seeds.
    Rebasing,
    /// Seeds are sent in order.
    Pushing { seeds: Arc<[Address]>, next: usize, flush: FlushPoint },
    /// The addresses of the seeds are sent.
    Listing { seeds: Arc<[Address]>, next: usize, flush: FlushPoint },
    /// Changed blocks are sent.
    Changing { changes: Arc<[Change]>, next: usize, flush: FlushPoint },
    /// The mirror completes a snapshot, fetching what it lacks.
    Completing { flush: FlushPoint },
    /// The mirror has all up to `sent`; further commits follow.
    Following,
}

/// How often a provider asks anew for a flush that is gone.
const REPLANS_MAX: u8 = 3;

/// Moves a head on to what is known to have come later.
fn raise(head: &mut Head, at: Option<Point>, flush: Option<FlushPoint>) {
    if let Some(flush) = flush.filter(|flush| flush.at.seq >= head.flush.at.seq) {
        head.flush = flush;
    }
    for at in at.into_iter().chain([head.flush.at]) {
        if at.seq > head.at.seq {
            head.at = at;
        }
    }
}

/// What the outstanding question is for.
#[derive(Debug)]
enum Asked {
    Stage,
    Fetch,
}

impl Provider {
    /// Begins a subscription. The provider asks for the state of its source first.
    pub fn new(
        topic: Topic,
        request: u32,
        subscribe: Subscribe,
        now: Duration,
        effects: &mut Vec<ProviderEffect>,
    ) -> Self {
        effects.push(ProviderEffect::Ask(Ask::State));
        let nowhere = FlushPoint {
            at: Point { seq: 0, commit: crate::CommitId([0; 32]) },
            address: Address([0; 32]),
        };
        let head = subscribe.have.head;
        Self {
            topic,
            request,
            window: subscribe.window.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX),
            folds: false,
            sent: head.map_or(nowhere.at, |head| head.at),
            flush: head.map_or(nowhere, |head| head.flush),
            head: None,
            subscribe,
            bytes_sent: 0,
            bytes_acked: 0,
            outbox: VecDeque::new(),
            fetches: VecDeque::new(),
            changes: None,
            stage: Stage::Planning,
            asked: Some(Asked::Stage),
            moved: now,
            verified: false,
            no_batch: false,
            replans: 0,
            announced: (None, None),
            ended: false,
        }
    }

    /// The number of the subscription.
    pub fn topic(&self) -> Topic {
        self.topic
    }

    /// The last commit that was sent.
    pub fn sent(&self) -> Point {
        self.sent
    }

    /// Bytes that were sent and not acknowledged.
    pub fn in_flight(&self) -> u64 {
        self.bytes_sent - self.bytes_acked
    }

    /// Bytes kept for this subscription that could not be sent yet.
    pub fn queued(&self) -> usize {
        self.outbox.iter().map(Bytes::len).sum()
    }

    /// Whether there are commits that were not sent.
    pub fn is_behind(&self) -> bool {
        self.head.is_none_or(|head| head.at.seq > self.sent.seq)
    }

    /// When the provider wants a [`ProviderEvent::Tick`], if nothing else happens before.
    pub fn deadline(&self) -> Option<Duration> {
        (!self.ended && self.in_flight() > 0 && self.waits_for_mirror()).then(|| self.moved + STALL)
    }

    /// Takes an event and appends what is to be done.
    pub fn on(&mut self, now: Duration, event: ProviderEvent, effects: &mut Vec<ProviderEffect>) {
        if self.ended {
            return;
        }
        if self.in_flight() == 0 {
            self.moved = now;
        }
        match event {
            ProviderEvent::Committed { at, frame } => {
                if self.committed(at, frame, effects) {
                    return;
                }
            }
            ProviderEvent::Flushed(flush) => match &mut self.head {
                Some(head) => raise(head, None, Some(flush)),
                None => self.announced.1 = Some(flush),
            },
            ProviderEvent::Ended(cause, text) => return self.close(cause, &text, effects),
            ProviderEvent::Received(request) => self.received(now, request, effects),
            ProviderEvent::Answered(answer) => self.answered(answer, effects),
            ProviderEvent::Tick => {
                if self.deadline().is_some_and(|deadline| deadline <= now) {
                    let text = format!("nothing was taken for {} s", STALL.as_secs());
                    return self.close(Cause::TooSlow, &text, effects);
                }
            }
        }
        self.pump(effects);
    }

    /// The common case, a commit to a mirror that has all before it, needs one step: returns
    /// whether it was that.
    fn committed(
        &mut self,
        at: Point,
        frame: Option<Bytes>,
        effects: &mut Vec<ProviderEffect>,
    ) -> bool {
        let Some(head) = &mut self.head else {
            self.announced.0 = Some(at);
            return true;
        };
        if at.seq <= head.at.seq {
            return true;
        }
        let idle = matches!(self.stage, Stage::Following)
            && self.outbox.is_empty()
            && self.asked.is_none()
            && self.sent == head.at
            && at.seq == head.at.seq + 1;
        head.at = at;
        let Some(frame) = frame.filter(|frame| idle && self.has_room(frame.len())) else {
            return false;
        };
        self.sent = at;
        self.bytes_sent += frame.len() as u64;
        effects.push(ProviderEffect::Send(frame));
        true
    }

    fn received(&mut self, now: Duration, request: Request, effects: &mut Vec<ProviderEffect>) {
        let broken = match request {
            Request::Ack { bytes, .. } => {
                let valid = bytes >= self.bytes_acked && bytes <= self.bytes_sent;
                if valid && bytes > self.bytes_acked {
                    self.bytes_acked = bytes;
                    self.moved = now;
                }
                (!valid).then(|| {
                    format!("{bytes} bytes acknowledged of {} that were sent", self.bytes_sent)
                })
            }
            Request::Fetch { request, addresses, .. } => {
                let valid = request != 0 && self.fetches.len() < FETCHES_MAX;
                self.fetches.push_back((request, addresses.into()));
                (!valid).then(|| format!("fetch {request} with {FETCHES_MAX} unanswered"))
            }
            Request::Changes { base, to, .. } => {
                // After a fold or a difference that the mirror could not follow. One that comes
                // while another snapshot is on its way has been overtaken.
                let due = match &self.stage {
                    Stage::Following => true,
                    Stage::Completing { flush } => *flush == to,
                    _ => false,
                };
                if due {
                    self.changes = Some((base, to));
                }
                let known = self.head.is_some_and(|head| to.at.seq <= head.at.seq);
                (!known).then(|| format!("there is no flush at commit {} yet", to.at.seq))
            }
            Request::Ready { flush, .. } => match &self.stage {
                Stage::Completing { flush: due } if due.address == flush => {
                    self.flush = *due;
                    self.verified = true;
                    if due.at.seq >= self.sent.seq {
                        self.sent = due.at;
                    }
                    self.stage = Stage::Following;
                    None
                }
                _ => Some(format!("{flush} is not the snapshot that was sent")),
            },
            Request::Unsubscribe { .. } => {
                self.ended = true;
                effects.push(ProviderEffect::End);
                None
            }
            Request::Subscribe { .. } => Some("subscribe within a subscription".to_owned()),
        };
        if let Some(text) = broken {
            self.close(Cause::Protocol, &text, effects);
        }
    }

    fn answered(&mut self, answer: Answer, effects: &mut Vec<ProviderEffect>) {
        let asked = self.asked.take();
        match (asked, answer) {
            (None, _) => {}
            (_, Answer::Failed(error)) => {
                let cause = if error.damaged { Cause::Damaged } else { Cause::Internal };
                self.close(cause, &error.to_string(), effects);
            }
            (Some(Asked::Fetch), Answer::Blocks(blocks)) => self.fetched(blocks, effects),
            (Some(Asked::Fetch), _) => {}
            (Some(Asked::Stage), answer) => self.advance(answer, effects),
        }
    }

    /// Sends what has room and asks for what comes next, until there is nothing to do or the
    /// window is full.
    fn pump(&mut self, effects: &mut Vec<ProviderEffect>) {
        while !self.ended {
            while let Some(front) = self.outbox.front() {
                if !self.has_room(front.len()) {
                    return;
                }
                self.bytes_sent += front.len() as u64;
                effects.extend(self.outbox.pop_front().map(ProviderEffect::Send));
            }
            if self.asked.is_some() || !self.has_room(1) {
                return;
            }
            if let Some((_, wanted)) = self.fetches.front() {
                let wanted = wanted.iter().copied().take(BLOCKS_PER_MESSAGE_MAX).collect();
                self.asked = Some(Asked::Fetch);
                effects.push(ProviderEffect::Ask(Ask::Blocks(wanted, self.chunk())));
                return;
            }
            if matches!(self.stage, Stage::Following | Stage::Completing { .. })
                && let Some((base, to)) = self.changes.take()
            {
                return self.ask_changes(base, to, effects);
            }
            if !self.step(effects) {
                return;
            }
        }
    }

    /// One step of the stage; whether there may be another.
    fn step(&mut self, effects: &mut Vec<ProviderEffect>) -> bool {
        let (topic, chunk) = (self.topic, self.chunk());
        match &mut self.stage {
            Stage::Planning | Stage::Rebasing | Stage::Completing { .. } => false,
            Stage::Pushing { seeds, next, flush } => {
                let wanted: Vec<_> =
                    seeds.iter().skip(*next).take(BLOCKS_PER_MESSAGE_MAX).copied().collect();
                if wanted.is_empty() {
                    self.stage = Stage::Completing { flush: *flush };
                    return false;
                }
                self.ask(Ask::Blocks(wanted, chunk), effects);
                false
            }
            Stage::Listing { seeds, next, flush } => {
                let addresses: Vec<_> =
                    seeds.iter().skip(*next).take(SEEDS_PER_MESSAGE_MAX).copied().collect();
                *next += addresses.len();
                let last = *next >= seeds.len();
                if last {
                    self.stage = Stage::Completing { flush: *flush };
                }
                self.send(&Update::Seeds { topic, last, addresses }, effects);
                true
            }
            Stage::Changing { changes, next, flush } => {
                let wanted: Vec<_> =
                    changes.iter().skip(*next).take(BLOCKS_PER_MESSAGE_MAX).copied().collect();
                if wanted.is_empty() {
                    let flush = *flush;
                    self.stage = Stage::Completing { flush };
                    self.send(&Update::Flush { topic, flush, sent: true }, effects);
                    return true;
                }
                self.ask(Ask::Patches(wanted, chunk), effects);
                false
            }
            Stage::Following => self.follow(effects),
        }
    }

    fn follow(&mut self, effects: &mut Vec<ProviderEffect>) -> bool {
        let Some(head) = self.head else { return false };
        let flush = head.flush;
        // Never back: a server whose store was restored may have an older flush than its mirrors,
        // whose tail does not reach back to it.
        if self.verified
            && self.flush.address != flush.address
            && (self.flush.at.seq..=self.sent.seq).contains(&flush.at.seq)
        {
            if !self.folds {
                self.ask_changes(self.flush.address, flush, effects);
                return false;
            }
            self.flush = flush;
            self.send(&Update::Flush { topic: self.topic, flush, sent: false }, effects);
            return true;
        }
        if self.sent.seq >= head.at.seq {
            self.no_batch = false;
            return false;
        }
        let many = head.at.seq - self.sent.seq >= BATCH_COMMITS_MIN;
        if many && !self.no_batch {
            self.ask(Ask::Batch(self.sent, CHUNK_BYTES), effects);
        } else {
            self.ask(Ask::Entries(self.sent, self.chunk()), effects);
        }
        false
    }

    fn ask(&mut self, ask: Ask, effects: &mut Vec<ProviderEffect>) {
        self.asked = Some(Asked::Stage);
        effects.push(ProviderEffect::Ask(ask));
    }

    fn send(&mut self, update: &Update, effects: &mut Vec<ProviderEffect>) {
        match seal(self.topic, update) {
            Ok(payloads) => self.outbox.extend(payloads),
            Err(error) => self.close(Cause::Internal, &error.to_string(), effects),
        }
    }

    fn refuse(&mut self, reason: Reset, effects: &mut Vec<ProviderEffect>) {
        self.ended = true;
        let update = Update::Refused {
            request: self.request,
            cause: Cause::Reset(reason),
            text: reason.to_string(),
        };
        effects.extend([ProviderEffect::Send(update.encode()), ProviderEffect::End]);
    }

    fn reset(&mut self, reason: Reset, effects: &mut Vec<ProviderEffect>) {
        self.close(Cause::Reset(reason), &reason.to_string(), effects);
    }

    /// Ends the subscription. The reason is sent whatever the window says: it is short and last.
    /// Before there was a plan it goes out under the number of the request.
    fn close(&mut self, cause: Cause, text: &str, effects: &mut Vec<ProviderEffect>) {
        if self.ended {
            return;
        }
        self.ended = true;
        self.outbox.clear();
        self.fetches.clear();
        let text = text.to_owned();
        let update = match self.head {
            None => Update::Refused { request: self.request, cause, text },
            Some(_) => Update::Closed { topic: self.topic, cause, text },
        };
        effects.extend([ProviderEffect::Send(update.encode()), ProviderEffect::End]);
    }

    /// Something waits for room that only an acknowledgement can make.
    fn waits_for_mirror(&self) -> bool {
        !self.outbox.is_empty()
            || (!self.has_room(1) && (self.is_behind() || !self.fetches.is_empty()))
    }

    /// What is longer than the window goes when little else is under way: a mirror acknowledges a
    /// quarter of its window at the latest, so this comes to pass.
    fn has_room(&self, len: usize) -> bool {
        let in_flight = self.in_flight();
        in_flight < self.window / 4 || in_flight.saturating_add(len as u64) <= self.window
    }

    /// How much to read at once.
    fn chunk(&self) -> usize {
        let room = self.window.saturating_sub(self.in_flight());
        usize::try_from(room).map_or(CHUNK_BYTES, |room| room.clamp(2 << 10, CHUNK_BYTES))
    }
}
