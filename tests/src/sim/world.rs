//! The clock, the wires and who hangs on them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use datahike_sync::{
    Database, MirrorEvent, Mode, Provider, ProviderEffect, ProviderEvent, Replica, StoreName,
    Subscriber, SubscriberEffect, SubscriberEvent, SubscriberOptions, SyncError,
    envelope::seal,
    limits::{CHUNK_BYTES, MESSAGE_BYTES_MAX, PART_BYTES_MAX},
    message::{Cause, Request, Update},
    replica::{Task, perform},
    source::answer,
};
use futures::executor::block_on;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    Broken, Options, Replicated, Site, Summary,
    trace::{Event, Line},
};

/// The subscription's number; there is one database.
const TOPIC: u32 = 7;
/// Events that a report of a failure shows.
const TRACE_LINES: usize = 60;

/// Runs one seed: `site` and `mirror` make the server's database and the mirrors' copies.
///
/// # Errors
/// If a law was broken.
pub fn run<S: Site, R: Replicated>(
    seed: u64,
    options: &Options,
    site: impl FnOnce(&mut ChaCha8Rng) -> S,
    mut mirror: impl FnMut(&mut ChaCha8Rng) -> R,
) -> Result<Summary, Box<Broken>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let site = site(&mut rng);
    let nodes = (0..rng.random_range(1..4)).map(|_| Node::new(mirror(&mut rng), &mut rng));
    let nodes = nodes.collect();
    let mut world = World {
        rng,
        options: options.clone(),
        now: Duration::ZERO,
        queue: BinaryHeap::new(),
        events: BTreeMap::new(),
        count: 0,
        site,
        up: true,
        nodes,
        calm: false,
        summary: Summary::default(),
        trace: VecDeque::new(),
        verbose: std::env::var_os("SEED").is_some(),
    };
    world.play().map_err(|what| {
        let trace =
            world.trace.iter().fold(String::new(), |all, line| all + &line.to_string() + "\n");
        Box::new(Broken { seed, what, trace })
    })?;
    Ok(world.summary)
}

struct World<S, R> {
    rng: ChaCha8Rng,
    options: Options,
    now: Duration,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    events: BTreeMap<u64, Event>,
    count: u64,
    site: S,
    up: bool,
    nodes: Vec<Node<R>>,
    /// No more faults, no more commits.
    calm: bool,
    summary: Summary,
    trace: VecDeque<Line>,
    verbose: bool,
}

struct Node<R> {
    copy: R,
    replica: Option<Arc<dyn Replica>>,
    subscriber: Subscriber,
    window: u64,
    /// Raised at each crash, so that what belonged to an earlier life is known.
    life: u64,
    /// Raised at each connection.
    session: u64,
    connected: bool,
    provider: Option<Provider>,
    /// Messages of one direction overtake nothing.
    arrivals: [Duration; 2],
    /// When the next tick comes, of the mirror and of its provider.
    ticks: [Option<Duration>; 2],
    /// Until then everything it does takes long.
    slow_until: Duration,
}

type Checked = Result<(), String>;

impl<R: Replicated> Node<R> {
    fn new(copy: R, rng: &mut ChaCha8Rng) -> Self {
        let window = [1 << 12, 1 << 16, 1 << 20][rng.random_range(0..3)];
        Self {
            subscriber: Subscriber::new(options(copy.mode(), window)),
            copy,
            replica: None,
            window,
            life: 0,
            session: 0,
            connected: false,
            provider: None,
            arrivals: [Duration::ZERO; 2],
            ticks: [None; 2],
            slow_until: Duration::ZERO,
        }
    }
}

fn options(mode: Mode, window: u64) -> SubscriberOptions {
    let store = StoreName::Name("simulated".to_owned());
    SubscriberOptions { database: Database { store, branch: "db".to_owned() }, mode, window }
}

fn millis(rng: &mut ChaCha8Rng, range: std::ops::Range<u64>) -> Duration {
    Duration::from_micros(rng.random_range(range.start * 1000..range.end * 1000))
}

impl<S: Site, R: Replicated> World<S, R> {
    fn play(&mut self) -> Checked {
        for node in 0..self.nodes.len() {
            self.after(millis(&mut self.rng.clone(), 0..50), Event::Start { node });
        }
        self.after(Duration::from_millis(5), Event::Commit);
        self.after(self.options.fault_every, Event::Fault);
        self.after(self.options.duration, Event::Calm);
        let end = self.options.duration + self.options.settle;
        while let Some(Reverse((at, number))) = self.queue.pop() {
            self.now = at;
            let Some(event) = self.events.remove(&number) else { continue };
            self.note(&event);
            self.step(event)?;
            self.check_bounds()?;
            if self.calm && self.converged() {
                return self.check_end();
            }
            if at > end {
                break;
            }
        }
        Err(format!("no convergence to {:?}: {}", self.site.head(), self.standing()))
    }

    fn after(&mut self, delay: Duration, event: Event) {
        self.count += 1;
        self.queue.push(Reverse((self.now + delay, self.count)));
        self.events.insert(self.count, event);
    }

    fn note(&mut self, event: &Event) {
        let line = Line { at: self.now, what: event.describe() };
        let mut hasher = DefaultHasher::new();
        (self.summary.trace, line.at, &line.what).hash(&mut hasher);
        self.summary.trace = hasher.finish();
        if self.verbose {
            println!("{line}");
        }
        if self.trace.len() == TRACE_LINES {
            self.trace.pop_front();
        }
        self.trace.push_back(line);
    }

    fn step(&mut self, event: Event) -> Checked {
        match event {
            Event::Commit => self.commit()?,
            Event::Fault => self.fault()?,
            Event::Calm => {
                self.calm = true;
                for node in &mut self.nodes {
                    node.slow_until = Duration::ZERO;
                }
            }
            Event::Start { node } => {
                let found = &mut self.nodes[node];
                found.subscriber = Subscriber::new(options(found.copy.mode(), found.window));
                found.replica = Some(found.copy.open());
                let life = found.life;
                let delay = millis(&mut self.rng, 1..300);
                self.after(delay, Event::Connect { node, life });
            }
            Event::Connect { node, life } => self.connect(node, life)?,
            Event::ServerStart { restored } => {
                self.up = true;
                if restored {
                    // Commits that differ from those that were lost.
                    self.site.commit(&mut self.rng);
                } else {
                    self.site.restart();
                }
            }
            Event::ToServer { node, session, payload } if self.stands(node, session) => {
                self.serve(node, payload)?;
            }
            Event::ToMirror { node, session, payload } if self.stands(node, session) => {
                self.summary.messages += 1;
                self.summary.bytes += payload.len() as u64;
                self.mirror_event(node, SubscriberEvent::Received(payload))?;
            }
            Event::Read { node, session, ask } if self.stands(node, session) => {
                let source = self.site.source();
                let answer = Box::new(block_on(answer(&*source, ask)));
                let delay = millis(&mut self.rng, 0..8);
                self.after(delay, Event::Answered { node, session, answer });
            }
            Event::Answered { node, session, answer } if self.stands(node, session) => {
                self.provider_event(node, ProviderEvent::Answered(*answer));
            }
            Event::ProviderTick { node, session } if self.stands(node, session) => {
                self.nodes[node].ticks[1] = None;
                self.provider_event(node, ProviderEvent::Tick);
            }
            Event::Work { node, life, task } if self.lives(node, life) => {
                self.work(node, life, task)?;
            }
            Event::Done { node, life, outcome } if self.lives(node, life) => {
                self.mirror_event(node, SubscriberEvent::Done(*outcome))?;
            }
            Event::Tick { node, life } if self.lives(node, life) => {
                self.nodes[node].ticks[0] = None;
                self.mirror_event(node, SubscriberEvent::Tick)?;
            }
            // Of a connection or a life that is over.
            _ => {}
        }
        Ok(())
    }

    fn stands(&self, node: usize, session: u64) -> bool {
        let node = &self.nodes[node];
        self.up && node.connected && node.session == session
    }

    fn lives(&self, node: usize, life: u64) -> bool {
        let node = &self.nodes[node];
        node.replica.is_some() && node.life == life
    }

    fn commit(&mut self) -> Checked {
        if self.calm {
            return Ok(());
        }
        if self.up {
            let count = if self.rng.random_bool(0.02) { 120 } else { 1 };
            for _ in 0..count {
                let (at, entry) = self.site.commit(&mut self.rng);
                self.summary.commits += 1;
                let update = Update::Commit { topic: TOPIC, seq: at.seq, entry };
                let frames = seal(TOPIC, &update).map_err(|error| error.to_string())?;
                let frame = (frames.len() == 1).then(|| frames[0].clone());
                for node in 0..self.nodes.len() {
                    let frame = frame.clone();
                    self.provider_event(node, ProviderEvent::Committed { at, frame });
                }
            }
            if self.rng.random_bool(0.1)
                && let Some(flush) = self.site.flush()
            {
                for node in 0..self.nodes.len() {
                    self.provider_event(node, ProviderEvent::Flushed(flush));
                }
            }
        }
        let mean = self.options.commit_every.as_millis() as u64;
        let delay = millis(&mut self.rng, 0..mean * 2);
        self.after(delay, Event::Commit);
        Ok(())
    }

    fn fault(&mut self) -> Checked {
        if self.calm {
            return Ok(());
        }
        let node = self.rng.random_range(0..self.nodes.len());
        let kind = self.rng.random_range(0..100);
        let restores = self.options.restores;
        match kind {
            kind if kind < restores => self.stop_server(true)?,
            kind if kind < 10 => self.stop_server(false)?,
            kind if kind < 35 => self.crash(node)?,
            kind if kind < 60 => self.disconnect(node)?,
            kind if kind < 75 => {
                let span = millis(&mut self.rng, 100..8000);
                self.nodes[node].slow_until = self.now + span;
            }
            _ => {
                let before = self.site.head().flush;
                self.site.collect(&mut self.rng);
                let after = self.site.head().flush;
                if self.up && after != before {
                    for node in 0..self.nodes.len() {
                        self.provider_event(node, ProviderEvent::Flushed(after));
                    }
                }
            }
        }
        let mean = self.options.fault_every.as_millis() as u64;
        let delay = millis(&mut self.rng, 0..mean * 2);
        self.after(delay, Event::Fault);
        Ok(())
    }

    fn stop_server(&mut self, restore: bool) -> Checked {
        if !self.up {
            return Ok(());
        }
        self.summary.crashes += 1;
        self.up = false;
        for node in 0..self.nodes.len() {
            self.disconnect(node)?;
        }
        let restored = restore && self.site.restore(&mut self.rng);
        let delay = millis(&mut self.rng, 10..2000);
        self.after(delay, Event::ServerStart { restored });
        Ok(())
    }

    fn crash(&mut self, node: usize) -> Checked {
        if self.nodes[node].replica.is_none() {
            return Ok(());
        }
        self.summary.crashes += 1;
        self.nodes[node].replica = None;
        self.nodes[node].life += 1;
        self.disconnect(node)?;
        let delay = millis(&mut self.rng, 1..1500);
        self.after(delay, Event::Start { node });
        Ok(())
    }

    fn connect(&mut self, node: usize, life: u64) -> Checked {
        if !self.lives(node, life) || self.nodes[node].connected {
            return Ok(());
        }
        if !self.up {
            let delay = millis(&mut self.rng, 10..500);
            self.after(delay, Event::Connect { node, life });
            return Ok(());
        }
        let found = &mut self.nodes[node];
        found.session += 1;
        found.connected = true;
        found.arrivals = [self.now; 2];
        found.ticks = [None; 2];
        self.mirror_event(node, SubscriberEvent::Connected)
    }

    fn disconnect(&mut self, node: usize) -> Checked {
        let found = &mut self.nodes[node];
        if !std::mem::take(&mut found.connected) {
            return Ok(());
        }
        self.summary.drops += 1;
        found.provider = None;
        if found.replica.is_some() {
            let life = found.life;
            let delay = millis(&mut self.rng, 1..1000);
            self.after(delay, Event::Connect { node, life });
            self.mirror_event(node, SubscriberEvent::Disconnected)?;
        }
        Ok(())
    }

    fn serve(&mut self, node: usize, payload: Bytes) -> Checked {
        let request = Request::decode(payload).map_err(|error| format!("unreadable: {error}"))?;
        match request {
            Request::Subscribe { request, subscribe } => {
                if self.nodes[node].provider.is_some() {
                    return Err("a second subscription".to_owned());
                }
                let mut effects = Vec::new();
                let provider = Provider::new(TOPIC, request, *subscribe, self.now, &mut effects);
                self.nodes[node].provider = Some(provider);
                self.perform_provider(node, effects);
            }
            request => self.provider_event(node, ProviderEvent::Received(request)),
        }
        Ok(())
    }

    fn provider_event(&mut self, node: usize, event: ProviderEvent) {
        let now = self.now;
        let mut effects = Vec::new();
        let Some(provider) = &mut self.nodes[node].provider else { return };
        provider.on(now, event, &mut effects);
        if let Some(at) = provider.deadline() {
            let session = self.nodes[node].session;
            self.tick(node, 1, at, Event::ProviderTick { node, session });
        }
        self.perform_provider(node, effects);
    }

    fn perform_provider(&mut self, node: usize, effects: Vec<ProviderEffect>) {
        let session = self.nodes[node].session;
        for effect in effects {
            match effect {
                ProviderEffect::Send(payload) => {
                    let delay = self.latency(node, 0);
                    self.after(delay, Event::ToMirror { node, session, payload });
                }
                ProviderEffect::Ask(ask) => {
                    let delay = millis(&mut self.rng, 0..8);
                    self.after(delay, Event::Read { node, session, ask });
                }
                ProviderEffect::End => self.nodes[node].provider = None,
            }
        }
    }

    /// Time until what is sent now arrives: after all that was sent before.
    fn latency(&mut self, node: usize, direction: usize) -> Duration {
        let delay = millis(&mut self.rng, 1..25);
        let last = &mut self.nodes[node].arrivals[direction];
        *last = (self.now + delay).max(*last + Duration::from_nanos(1));
        *last - self.now
    }

    fn mirror_event(&mut self, node: usize, event: SubscriberEvent) -> Checked {
        let now = self.now;
        let mut effects = Vec::new();
        let found = &mut self.nodes[node];
        let (life, session) = (found.life, found.session);
        found.subscriber.on(now, event, &mut effects);
        for effect in effects {
            match effect {
                SubscriberEffect::Send(payload) => {
                    let delay = self.latency(node, 1);
                    self.after(delay, Event::ToServer { node, session, payload });
                }
                SubscriberEffect::Run(task) => {
                    let slow = self.nodes[node].slow_until > now;
                    let span = if slow { 200..3000 } else { 0..10 };
                    let delay = millis(&mut self.rng, span);
                    self.after(delay, Event::Work { node, life, task });
                }
                SubscriberEffect::Report(event) => self.reported(node, event)?,
                SubscriberEffect::Fetched { .. } => {}
            }
        }
        if let Some(at) = self.nodes[node].subscriber.deadline() {
            self.tick(node, 0, at, Event::Tick { node, life });
        }
        Ok(())
    }

    /// Schedules a tick, unless one comes before that: whoever gets one too early asks again.
    fn tick(&mut self, node: usize, which: usize, at: Duration, event: Event) {
        let next = &mut self.nodes[node].ticks[which];
        if next.is_none_or(|next| at < next || next < self.now) {
            *next = Some(at);
            self.after(at.saturating_sub(self.now), event);
        }
    }

    fn reported(&mut self, node: usize, event: MirrorEvent) -> Checked {
        match event {
            MirrorEvent::Reset(_) => {
                self.summary.resets += 1;
                self.nodes[node].copy.was_reset();
            }
            MirrorEvent::Gap { .. } | MirrorEvent::Adopted(_) => self.summary.jumps += 1,
            MirrorEvent::Fault(error) => {
                self.summary.faults += 1;
                // Swept blocks and a server that was set back are what is simulated; that it
                // finds its own flush gone may follow from it.
                let expected = match &*error {
                    SyncError::Unavailable { .. } | SyncError::Timeout { .. } => true,
                    SyncError::Refused { cause, .. } => *cause != Cause::Protocol,
                    _ => false,
                };
                if !expected {
                    return Err(format!("mirror {node} reports a fault: {error}"));
                }
            }
            MirrorEvent::Failed(error) => return Err(format!("mirror {node} gave up: {error}")),
            _ => {}
        }
        Ok(())
    }

    fn work(&mut self, node: usize, life: u64, task: Task) -> Checked {
        let Some(replica) = self.nodes[node].replica.clone() else { return Ok(()) };
        let outcome = Box::new(block_on(perform(&*replica, task)));
        self.check_copy(node)?;
        let delay = millis(&mut self.rng, 0..4);
        self.after(delay, Event::Done { node, life, outcome });
        Ok(())
    }

    /// At every moment a copy is one complete snapshot that the server had.
    fn check_copy(&self, node: usize) -> Checked {
        let copy = &self.nodes[node].copy;
        copy.check().map_err(|what| format!("mirror {node}: {what}"))?;
        let read = copy.read().map_err(|what| format!("mirror {node}: {what}"))?;
        let Some((at, digest)) = read else { return Ok(()) };
        let Some(expected) = self.site.digest(&at) else {
            return Err(format!("mirror {node} stands at {at:?}, which never was"));
        };
        if digest.is_some_and(|digest| digest != expected) {
            return Err(format!("mirror {node} holds something else at {at:?}"));
        }
        Ok(())
    }

    /// Nobody costs more memory than the window allows, whatever happens.
    fn check_bounds(&self) -> Checked {
        for (number, node) in self.nodes.iter().enumerate() {
            let window = node.window;
            if let Some(provider) = &node.provider {
                let in_flight = provider.in_flight();
                if in_flight > window + PART_BYTES_MAX as u64 + 16 {
                    return Err(format!("{in_flight} bytes are under way to mirror {number}"));
                }
                let queued = provider.queued();
                if queued > CHUNK_BYTES * 8 {
                    return Err(format!("{queued} bytes are queued for mirror {number}"));
                }
            }
            let queued = node.subscriber.queued();
            if queued > window + MESSAGE_BYTES_MAX as u64 {
                return Err(format!("{queued} bytes wait in mirror {number}"));
            }
        }
        Ok(())
    }

    fn converged(&self) -> bool {
        let head = self.site.head();
        let at_head = |node: &Node<R>| {
            let have = node.subscriber.have().head;
            node.subscriber.is_synced() && have.is_some_and(|have| have.at == head.at)
        };
        self.up && self.nodes.iter().all(at_head)
    }

    fn check_end(&self) -> Checked {
        (0..self.nodes.len()).try_for_each(|node| self.check_copy(node))
    }

    fn standing(&self) -> String {
        let standing = |node: &Node<R>| {
            format!(
                "[{:?} connected {} synced {} provider {:?}]",
                node.copy.read(),
                node.connected,
                node.subscriber.is_synced(),
                node.provider
            )
        };
        self.nodes.iter().map(standing).collect()
    }
}
