//! A provider and a subscriber, connected without a network.

use std::{collections::VecDeque, time::Duration};

use bytes::Bytes;
use datahike_sync::{
    Database, FlushPoint, Identity, MirrorEvent, Mode, Point, Provider, ProviderEffect,
    ProviderEvent, Reset, Shape, StoreName, Subscriber, SubscriberEffect, SubscriberEvent,
    SubscriberOptions, SyncError,
    envelope::{Opener, seal},
    message::{Body, Plan, Request, Supply, Update},
    model::{ModelReplica, ModelSource, Seen},
    replica::{Task, perform},
    source::answer,
};
use futures::executor::block_on;

const TOPIC: u32 = 5;

fn identity(store: u128, epoch: u64) -> Identity {
    Identity { store: uuid::Uuid::from_u128(store), epoch }
}

fn source(keys: u32) -> ModelSource {
    let source = ModelSource::new(identity(1, 0), Shape(Bytes::from_static(b"s")));
    let sets: Vec<(u32, u32)> = (0..keys).map(|key| (key, key * 7)).collect();
    source.commit(&sets, 0);
    source.flush();
    source
}

/// Both sides, what went from one to the other, and what was reported.
struct Pair {
    now: Duration,
    source: ModelSource,
    replica: ModelReplica,
    provider: Option<Provider>,
    subscriber: Subscriber,
    opener: Opener,
    updates: Vec<Update>,
    bytes: usize,
    events: Vec<MirrorEvent>,
    /// Tasks are kept here instead of being done.
    held: Option<VecDeque<Task>>,
    /// The connection drops when the mirror is about to do its nth task.
    drop_at: Option<usize>,
}

impl Pair {
    fn new(source: &ModelSource, replica: ModelReplica, mode: Mode) -> Self {
        let store = StoreName::Name("numbers".into());
        let database = Database { store, branch: "db".into() };
        let options = SubscriberOptions { database, mode, window: 1 << 20 };
        Self::with(source, replica, options)
    }

    fn with(source: &ModelSource, replica: ModelReplica, options: SubscriberOptions) -> Self {
        Self {
            now: Duration::from_secs(1),
            source: source.clone(),
            replica,
            provider: None,
            subscriber: Subscriber::new(options),
            opener: Opener::default(),
            updates: Vec::new(),
            bytes: 0,
            events: Vec::new(),
            held: None,
            drop_at: None,
        }
    }

    fn connect(&mut self) -> &mut Self {
        self.provider = None;
        self.opener = Opener::default();
        self.updates.clear();
        self.events.clear();
        self.bytes = 0;
        self.on(SubscriberEvent::Connected);
        self
    }

    fn disconnect(&mut self) {
        self.provider = None;
        self.on(SubscriberEvent::Disconnected);
    }

    fn on(&mut self, event: SubscriberEvent) {
        let mut effects = Vec::new();
        self.subscriber.on(self.now, event, &mut effects);
        for effect in effects {
            match effect {
                SubscriberEffect::Run(task) => self.task(task),
                SubscriberEffect::Send(bytes) => self.request(bytes),
                SubscriberEffect::Report(event) => self.events.push(event),
                SubscriberEffect::Fetched { .. } => {}
            }
        }
    }

    fn task(&mut self, task: Task) {
        if let Some(left) = &mut self.drop_at {
            if *left == 0 {
                self.drop_at = None;
                // A crash: what the subscriber knew is lost, what is stored is not.
                self.provider = None;
                self.subscriber = Subscriber::new(SubscriberOptions::full(Database {
                    store: StoreName::Name("numbers".into()),
                    branch: "db".into(),
                }));
                return;
            }
            *left -= 1;
        }
        if let Some(held) = &mut self.held {
            held.push_back(task);
            return;
        }
        let outcome = block_on(perform(&self.replica, task));
        self.on(SubscriberEvent::Done(outcome));
    }

    fn release(&mut self) {
        for task in self.held.take().into_iter().flatten() {
            self.task(task);
        }
    }

    fn request(&mut self, bytes: Bytes) {
        let mut effects = Vec::new();
        match Request::decode(bytes).unwrap() {
            Request::Subscribe { request, subscribe } => {
                self.provider =
                    Some(Provider::new(TOPIC, request, *subscribe, self.now, &mut effects));
            }
            request => {
                if let Some(provider) = &mut self.provider {
                    provider.on(self.now, ProviderEvent::Received(request), &mut effects);
                }
            }
        }
        self.provide(effects);
    }

    fn provider_on(&mut self, event: ProviderEvent) {
        let mut effects = Vec::new();
        if let Some(provider) = &mut self.provider {
            provider.on(self.now, event, &mut effects);
        }
        self.provide(effects);
    }

    fn provide(&mut self, effects: Vec<ProviderEffect>) {
        for effect in effects {
            match effect {
                ProviderEffect::Send(payload) => {
                    self.bytes += payload.len();
                    if let Some(update) = self.opener.open(payload.clone()).unwrap() {
                        self.updates.push(update);
                    }
                    self.on(SubscriberEvent::Received(payload));
                }
                ProviderEffect::Ask(ask) => {
                    let answer = block_on(answer(&self.source, ask));
                    self.provider_on(ProviderEvent::Answered(answer));
                }
                ProviderEffect::End => self.provider = None,
            }
        }
    }

    fn commit(&mut self, sets: &[(u32, u32)]) -> Point {
        let (at, entry) = self.source.commit(sets, 0);
        let frames = seal(TOPIC, &Update::Commit { topic: TOPIC, seq: at.seq, entry }).unwrap();
        let frame = (frames.len() == 1).then(|| frames[0].clone());
        self.provider_on(ProviderEvent::Committed { at, frame });
        at
    }

    fn flush(&mut self) -> FlushPoint {
        let flush = self.source.flush().unwrap();
        self.provider_on(ProviderEvent::Flushed(flush));
        flush
    }

    fn check(&self) {
        assert!(self.subscriber.is_synced());
        assert_eq!(self.replica.head().unwrap().at, self.source.head().at);
        assert_eq!(self.replica.contents().unwrap(), self.source.contents());
    }

    /// Names of the updates that came, repeats left out.
    fn course(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.updates.iter().map(name).collect();
        names.dedup();
        names
    }

    fn reported(&self, expected: impl Fn(&MirrorEvent) -> bool) -> bool {
        self.events.iter().any(expected)
    }
}

fn name(update: &Update) -> &'static str {
    match update {
        Update::Plan { plan: Plan::Current, .. } => "current",
        Update::Plan { plan: Plan::Follow, .. } => "follow",
        Update::Plan { plan: Plan::Snapshot, .. } => "plan",
        Update::Refused { .. } => "refused",
        Update::Commit { .. } => "commit",
        Update::Entries { .. } => "entries",
        Update::Batch { .. } => "batch",
        Update::Difference { .. } => "difference",
        Update::Snapshot { snapshot, .. } => match snapshot.supply {
            Supply::Push { .. } => "push",
            Supply::List => "list",
            Supply::Fetch => "fetch",
        },
        Update::Seeds { .. } => "seeds",
        Update::Blocks { .. } => "blocks",
        Update::Flush { .. } => "flush",
        Update::Closed { .. } => "closed",
    }
}

#[test]
fn a_fresh_mirror_gets_the_seeds_and_derives_the_rest() {
    let source = source(2000);
    let mut pair = Pair::new(&source, ModelReplica::new(), Mode::Full);
    pair.connect().check();
    assert_eq!(pair.course(), ["plan", "push", "blocks"]);
    // 125 leaves and the record are pushed, the branch is fetched, the inverted index is neither.
    let blocks = pair.updates.iter().map(|update| match update {
        Update::Blocks { blocks, .. } => blocks.len(),
        _ => 0,
    });
    assert_eq!(blocks.sum::<usize>(), 127);
    assert_eq!(pair.replica.block_count(), 128);
    let progress = pair.events.iter().filter_map(|event| match event {
        MirrorEvent::Progress(progress) => Some((progress.blocks, progress.blocks_total)),
        _ => None,
    });
    let progress: Vec<_> = progress.collect();
    assert_eq!((progress.first(), progress.last()), (Some(&(0, 126)), Some(&(126, 126))));
    assert!(progress.is_sorted());
    assert!(pair.reported(|event| matches!(event, MirrorEvent::Synced(_))));
    assert!(!pair.reported(|event| matches!(event, MirrorEvent::Gap { .. })));
}

#[test]
fn one_that_has_all_gets_nothing() {
    let source = source(2000);
    let mut pair = Pair::new(&source, ModelReplica::new(), Mode::Full);
    pair.connect().check();
    pair.disconnect();
    pair.connect().check();
    assert_eq!(pair.course(), ["current"]);
}

#[test]
fn commits_come_one_by_one_and_a_flush_costs_its_name() {
    let source = source(2000);
    let mut pair = Pair::new(&source, ModelReplica::new(), Mode::Full);
    pair.connect();
    pair.updates.clear();
    pair.bytes = 0;
    for n in 0..100 {
        pair.commit(&[(n * 20, n)]);
    }
    // An entry is 16 bytes here.
    assert!(pair.bytes <= 100 * (16 + 6), "{} bytes", pair.bytes);
    pair.bytes = 0;
    let flush = pair.flush();
    assert!(pair.bytes <= 80, "{} bytes", pair.bytes);
    assert_eq!(pair.course(), ["commit", "flush"]);
    assert_eq!(pair.replica.head().unwrap().flush, flush);
    pair.check();
    assert_eq!(pair.replica.seen().len(), 101);
}

#[test]
fn what_was_missed_comes_from_the_log() {
    let source = source(2000);
    let mut pair = Pair::new(&source, ModelReplica::new(), Mode::Full);
    pair.connect();
    for (missed, course) in [(5, ["follow", "entries"]), (500, ["follow", "batch"])] {
        pair.disconnect();
        (0..missed).for_each(|n| drop(source.commit(&[(n, 1000 + missed + n)], 0)));
        pair.connect().check();
        assert_eq!(pair.course(), course);
    }
    source.set_batches(false);
    pair.disconnect();
    (0..500).for_each(|n| drop(source.commit(&[(n, n)], 0)));
    pair.connect().check();
    assert_eq!(pair.course(), ["follow", "entries"]);
    // Each once, in order, whichever way it came.
    assert_eq!(pair.replica.seen().len(), 1 + 5 + 500 + 500);
}

#[test]
fn where_the_log_is_gone_a_difference_comes() {
    let source = source(2000);
    let mut pair = Pair::new(&source, ModelReplica::new(), Mode::Full);
    pair.connect();
    pair.disconnect();
    (0..50).for_each(|n| drop(source.commit(&[(n % 5, n)], 0)));
    source.flush();
    source.cut_log(0);
    source.commit(&[(9, 9)], 0);
    pair.connect().check();
    assert_eq!(pair.course(), ["follow", "difference", "entries"]);
    assert!(pair.reported(|event| matches!(event, MirrorEvent::Gap { from: 1, to: 51 })));
    assert!(pair.bytes < 500, "{} bytes", pair.bytes);

    // A mirror that cannot make the server's blocks asks for them.
    pair.replica.set_folds_differ(true);
    pair.disconnect();
    (0..50).for_each(|n| drop(source.commit(&[(n % 5, n)], 0)));
    source.flush();
    source.cut_log(0);
    pair.connect().check();
    assert_eq!(pair.course(), ["follow", "difference", "blocks", "flush"]);
}

#[test]
fn where_nothing_else_is_left_only_missing_blocks_come() {
    let source = source(2000);
    let mut pair = Pair::new(&source, ModelReplica::new(), Mode::Full);
    pair.connect();
    let all = pair.bytes;
    pair.disconnect();
    source.commit(&[(3, 3), (1500, 3)], 0);
    source.flush();
    source.cut_log(0);
    source.forget_past();
    pair.connect().check();
    assert_eq!(pair.course(), ["follow", "list", "seeds", "blocks"]);
    let blocks = pair.updates.iter().map(|update| match update {
        Update::Blocks { blocks, .. } => blocks.len(),
        _ => 0,
    });
    assert_eq!(blocks.sum::<usize>(), 4, "two leaves, branch and record");
    assert!(pair.bytes < all / 5, "{} of {all} bytes", pair.bytes);
    assert!(pair.reported(|event| matches!(event, MirrorEvent::Gap { from: 1, to: 2 })));
}

#[test]
fn an_interrupted_first_transfer_goes_on_where_it_was() {
    let source = source(40_000);
    let mut whole = Pair::new(&source, ModelReplica::new(), Mode::Full);
    whole.connect().check();
    for at in 0..12 {
        let mut pair = Pair::new(&source, ModelReplica::new(), Mode::Full);
        pair.drop_at = Some(at);
        pair.connect();
        let before = pair.bytes;
        let stored = pair.replica.block_count();
        pair.connect().check();
        assert!(pair.drop_at.is_none(), "there were {at} tasks");
        // What was under way is lost, what was stored is not sent again.
        let again = pair.replica.block_count() - stored;
        let sent = pair.updates.iter().map(|update| match update {
            Update::Blocks { blocks, .. } => blocks.len(),
            _ => 0,
        });
        assert!(sent.sum::<usize>() <= again + 1, "after {before} bytes");
    }
}

#[test]
fn blocks_are_sent_as_patches_to_those_who_do_not_fold() {
    let source = source(2000);
    for mode in [Mode::Blocks, Mode::Lazy, Mode::Full] {
        let replica = match mode {
            Mode::Lazy => ModelReplica::lazy(),
            _ => ModelReplica::new(),
        };
        replica.set_folds_differ(mode == Mode::Full);
        let mut pair = Pair::new(&source, replica, mode);
        pair.connect();
        assert!(pair.subscriber.is_synced());
        pair.updates.clear();
        pair.commit(&[(40, source.head().at.seq as u32)]);
        let flush = pair.flush();
        assert_eq!(pair.replica.head().unwrap().flush, flush, "{mode:?}");
        let bodies: Vec<_> = pair
            .updates
            .iter()
            .flat_map(|update| match update {
                Update::Blocks { request: 0, blocks, .. } => blocks.clone(),
                _ => Vec::new(),
            })
            .collect();
        assert_eq!(bodies.len(), 4, "leaf, inverted index, branch and record");
        let patched = bodies.iter().filter(|block| matches!(block.body, Body::Patch { .. }));
        assert!(patched.count() >= 3);
        assert_eq!(
            pair.reported(|event| matches!(event, MirrorEvent::FoldDiffers(_))),
            mode == Mode::Full
        );
        if mode == Mode::Lazy {
            assert!(pair.replica.block_count() < 10);
        } else {
            pair.check();
        }
    }
}

#[test]
fn a_mirror_that_falls_behind_is_not_queued_for_and_sees_every_commit() {
    let source = source(200);
    let mut pair = Pair::new(&source, ModelReplica::new(), Mode::Full);
    pair.connect().check();
    pair.held = Some(VecDeque::new());
    let commits = 3000;
    for n in 0..commits {
        let sets: Vec<(u32, u32)> = (0..100).map(|key| (key, n + key)).collect();
        pair.commit(&sets);
        let provider = pair.provider.as_ref().unwrap();
        assert!(provider.in_flight() <= 1 << 20);
        assert!(provider.queued() <= 256 << 10);
        assert!(pair.subscriber.queued() <= 1 << 20);
    }
    assert!(pair.provider.as_ref().unwrap().is_behind());
    pair.release();
    pair.check();
    assert!(!pair.provider.as_ref().unwrap().is_behind());
    let seen = pair.replica.seen();
    let seqs: Vec<u64> = seen
        .iter()
        .skip(1)
        .map(|seen| match seen {
            Seen::Commit(at) => at.seq,
            other => panic!("{other:?} among commits"),
        })
        .collect();
    assert_eq!(seqs, (2..2 + u64::from(commits)).collect::<Vec<_>>());
}

#[test]
fn an_entry_longer_than_the_window_comes_through() {
    let source = source(20);
    let options = SubscriberOptions {
        window: 1,
        ..SubscriberOptions::full(Database {
            store: StoreName::Name("numbers".into()),
            branch: "db".into(),
        })
    };
    let mut pair = Pair::with(&source, ModelReplica::new(), options);
    pair.connect().check();
    let (at, _) = source.commit(&[(1, 1)], 3 << 20);
    pair.provider_on(ProviderEvent::Committed { at, frame: None });
    pair.check();
    // An acknowledgement of little is kept back for a while.
    pair.commit(&[(1, 2)]);
    pair.now += Duration::from_secs(3);
    pair.on(SubscriberEvent::Tick);
    assert_eq!(pair.provider.as_ref().unwrap().in_flight(), 0);
}

#[test]
fn what_does_not_go_together_is_never_mixed() {
    let shape = || Shape(Bytes::from_static(b"s"));
    let older = source(20);
    let backup = older.back_up();
    let newer = older.clone();
    (0..5).for_each(|n| drop(newer.commit(&[(n, 99)], 0)));
    type Change = fn(&ModelSource) -> ModelSource;
    let cases: [(Reset, Change); 4] = [
        (Reset::OtherStore, |_| ModelSource::new(identity(2, 0), Shape(Bytes::from_static(b"s")))),
        (Reset::OtherEpoch, |_| ModelSource::new(identity(1, 1), Shape(Bytes::from_static(b"s")))),
        (Reset::ServerOlder, |source| source.clone()),
        (Reset::Diverged, |source| {
            (0..9).for_each(|n| drop(source.commit(&[(n, 5)], 0)));
            source.clone()
        }),
    ];
    for (reason, other) in cases {
        let server = ModelSource::new(identity(1, 0), shape());
        server.restore(&newer.back_up());
        let mut pair = Pair::new(&server, ModelReplica::new(), Mode::Full);
        pair.connect().check();
        let held = pair.replica.contents();
        pair.disconnect();
        server.restore(&backup);
        pair.source = other(&server);

        // One that wants to keep its copy keeps all of it.
        let keeps = ModelReplica::new();
        let mut keeping = Pair::new(&newer, keeps.clone(), Mode::Full);
        keeping.connect().check();
        keeping.disconnect();
        keeps.keep();
        keeping.source = pair.source.clone();
        keeping.connect();
        assert_eq!(keeps.contents(), held);
        assert!(keeping.subscriber.is_stopped());
        let refused = |event: &MirrorEvent| matches!(event, MirrorEvent::Failed(error) if matches!(&**error, SyncError::Replica(_)));
        assert!(keeping.reported(refused));

        pair.connect().check();
        assert!(pair.reported(|event| matches!(event, MirrorEvent::Reset(why) if *why == reason)));
        assert!(pair.replica.seen().contains(&Seen::Reset(reason)));
    }
}

#[test]
fn a_spoiled_block_is_not_stored() {
    let source = source(200);
    let (mut spoiled_copies, mut place) = (0, 0);
    loop {
        let backup = source.back_up();
        let Some(spoiled) = source.spoil(place) else { break };
        let mut pair = Pair::new(&source, ModelReplica::new(), Mode::Full);
        pair.connect();
        // What is not sent does no harm: the inverted index, and an older flush. Without any
        // other block there is no copy.
        if pair.replica.contents().is_none() {
            spoiled_copies += 1;
            assert!(!pair.replica.holds(&spoiled));
            assert!(pair.reported(|event| matches!(event, MirrorEvent::Fault(_))));
        }
        source.restore(&backup);
        place += 1;
    }
    // Leaves, branch and record of 200 keys.
    assert_eq!(spoiled_copies, 13 + 2);
}
