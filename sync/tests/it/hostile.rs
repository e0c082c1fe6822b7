//! Those who break the protocol get a typed answer, and nobody else notices.

use std::time::Duration;

use bytes::Bytes;
use datahike_sync::{
    Address, Database, Have, Identity, MirrorEvent, Mode, Point, Provider, ProviderEffect,
    ProviderEvent, Shape, Source, StoreName, Subscriber, SubscriberEffect, SubscriberEvent,
    SubscriberOptions, SyncError,
    limits::{ATTEMPTS_MAX, FETCHES_MAX, STALL, WINDOW_BYTES_MAX},
    message::{Block, Body, Cause, Plan, Request, Subscribe, Update},
    model::{ModelReplica, ModelSource},
    replica::perform,
    source::answer,
};
use futures::executor::block_on;

const NOW: Duration = Duration::from_secs(1);
const TOPIC: u32 = 5;

fn identity() -> Identity {
    Identity { store: uuid::Uuid::from_u128(1), epoch: 0 }
}

fn database() -> Database {
    Database { store: StoreName::Name("numbers".into()), branch: "db".into() }
}

fn source(commits: u32) -> ModelSource {
    let source = ModelSource::new(identity(), Shape(Bytes::from_static(b"s")));
    (0..commits).for_each(|n| drop(source.commit(&[(n, n)], 0)));
    source.flush();
    source
}

/// A provider for a mirror that has this, driven until it has nothing to ask.
fn provide(source: &ModelSource, have: Have, window: u64) -> (Provider, Vec<Bytes>) {
    let subscribe = Subscribe { database: database(), mode: Mode::Full, window, have };
    let mut effects = Vec::new();
    let mut provider = Provider::new(TOPIC, 1, subscribe, NOW, &mut effects);
    let sent = settle(source, &mut provider, effects).0;
    (provider, sent)
}

/// What is sent, and whether the subscription ended.
fn settle(
    source: &dyn Source,
    provider: &mut Provider,
    mut effects: Vec<ProviderEffect>,
) -> (Vec<Bytes>, bool) {
    let (mut sent, mut ended) = (Vec::new(), false);
    while !effects.is_empty() {
        for effect in std::mem::take(&mut effects) {
            match effect {
                ProviderEffect::Send(payload) => sent.push(payload),
                ProviderEffect::Ask(ask) => {
                    let answer = block_on(answer(source, ask));
                    provider.on(NOW, ProviderEvent::Answered(answer), &mut effects);
                }
                ProviderEffect::End => ended = true,
            }
        }
    }
    (sent, ended)
}

fn cause(sent: &[Bytes]) -> Option<Cause> {
    match Update::decode(sent.last()?.clone()).ok()? {
        Update::Closed { cause, .. } | Update::Refused { cause, .. } => Some(cause),
        _ => None,
    }
}

fn refusal(source: &ModelSource, provider: &mut Provider, request: Request) -> Option<Cause> {
    let mut effects = Vec::new();
    provider.on(NOW, ProviderEvent::Received(request), &mut effects);
    let (sent, ended) = settle(source, provider, effects);
    cause(&sent).filter(|_| ended)
}

#[test]
fn a_mirror_that_breaks_the_protocol_is_closed() {
    let source = source(40);
    let head = source.head();
    let have = Have { identity: Some(identity()), head: Some(head), ..Have::default() };
    let fresh = || provide(&source, have.clone(), u64::MAX).0;
    let topic = TOPIC;

    let ack = Request::Ack { topic, bytes: u64::MAX };
    assert_eq!(refusal(&source, &mut fresh(), ack), Some(Cause::Protocol));
    let ready = Request::Ready { topic, flush: Address([9; 32]) };
    assert_eq!(refusal(&source, &mut fresh(), ready), Some(Cause::Protocol));
    let fetch = Request::Fetch { topic, request: 0, addresses: vec![head.flush.address] };
    assert_eq!(refusal(&source, &mut fresh(), fetch), Some(Cause::Protocol));
    let mut to = head.flush;
    to.at.seq = u64::MAX;
    let changes = Request::Changes { topic, base: Address([9; 32]), to };
    assert_eq!(refusal(&source, &mut fresh(), changes), Some(Cause::Protocol));

    // Acknowledging less than before.
    let (mut provider, sent) = provide(&source, Have::default(), 1 << 20);
    let all: u64 = sent.iter().skip(1).map(|payload| payload.len() as u64).sum();
    assert_eq!(refusal(&source, &mut provider, Request::Ack { topic, bytes: all }), None);
    let less = Request::Ack { topic, bytes: all - 1 };
    assert_eq!(refusal(&source, &mut provider, less), Some(Cause::Protocol));

    // Asking without reading.
    let (mut provider, _) = provide(&source, Have::default(), 0);
    let mut closed = None;
    for request in 1..200 {
        let fetch = Request::Fetch { topic, request, addresses: vec![head.flush.address; 1024] };
        closed = refusal(&source, &mut provider, fetch);
        assert!(provider.in_flight() < 1 << 20 && provider.queued() < 1 << 20);
        if closed.is_some() {
            assert!(request as usize > FETCHES_MAX);
            break;
        }
    }
    assert_eq!(closed, Some(Cause::Protocol));
}

#[test]
fn blocks_that_are_not_there_are_said_to_be_absent() {
    let source = source(3);
    let have = Have { identity: Some(identity()), head: Some(source.head()), ..Have::default() };
    let (mut provider, _) = provide(&source, have, 1 << 20);
    let wanted = vec![Address([1; 32]), source.head().flush.address];
    let fetch = Request::Fetch { topic: TOPIC, request: 8, addresses: wanted };
    let mut effects = Vec::new();
    provider.on(NOW, ProviderEvent::Received(fetch), &mut effects);
    let (sent, _) = settle(&source, &mut provider, effects);
    let Update::Blocks { request: 8, last: true, blocks, .. } =
        Update::decode(sent[0].clone()).unwrap()
    else {
        panic!("no answer in {sent:?}");
    };
    assert_eq!(blocks[0].body, Body::Absent);
    assert!(matches!(blocks[1].body, Body::Whole(_)));
}

#[test]
fn one_who_takes_nothing_is_bounded_and_closed_in_the_end() {
    let source = source(3);
    let have = Have { identity: Some(identity()), head: Some(source.head()), ..Have::default() };
    let (mut provider, _) = provide(&source, have, u64::MAX);
    let mut effects = Vec::new();
    for n in 0..40_000u32 {
        let (at, entry) = source.commit(&[(n % 50, n)], 1000);
        let update = Update::Commit { topic: TOPIC, seq: at.seq, entry };
        let event = ProviderEvent::Committed { at, frame: Some(update.encode()) };
        provider.on(NOW, event, &mut effects);
        settle(&source, &mut provider, std::mem::take(&mut effects));
        assert!(provider.in_flight() <= WINDOW_BYTES_MAX + (256 << 10));
        assert!(provider.queued() <= 512 << 10);
    }
    assert!(provider.is_behind());
    let deadline = provider.deadline().expect("it is waited for");
    assert!(deadline <= NOW + STALL);
    provider.on(deadline, ProviderEvent::Tick, &mut effects);
    let (sent, ended) = settle(&source, &mut provider, effects);
    assert!(ended);
    assert_eq!(cause(&sent), Some(Cause::TooSlow));
}

/// A subscriber at the point where the server has accepted it, and its replica.
fn subscribed(commits: u32) -> (Subscriber, ModelReplica, ModelSource) {
    let source = source(commits);
    let replica = ModelReplica::new();
    let mut subscriber = Subscriber::new(SubscriberOptions::full(database()));
    let mut provider: Option<Provider> = None;
    let mut effects = Vec::new();
    subscriber.on(NOW, SubscriberEvent::Connected, &mut effects);
    while !effects.is_empty() {
        for effect in std::mem::take(&mut effects) {
            match effect {
                SubscriberEffect::Run(task) => {
                    let outcome = block_on(perform(&replica, task));
                    subscriber.on(NOW, SubscriberEvent::Done(outcome), &mut effects);
                }
                SubscriberEffect::Send(bytes) => {
                    let mut asked = Vec::new();
                    match (Request::decode(bytes).unwrap(), &mut provider) {
                        (Request::Subscribe { request, subscribe }, _) => {
                            provider =
                                Some(Provider::new(TOPIC, request, *subscribe, NOW, &mut asked));
                        }
                        (request, Some(provider)) => {
                            provider.on(NOW, ProviderEvent::Received(request), &mut asked);
                        }
                        _ => panic!("a request before the subscription"),
                    }
                    for payload in settle(&source, provider.as_mut().unwrap(), asked).0 {
                        subscriber.on(NOW, SubscriberEvent::Received(payload), &mut effects);
                    }
                }
                _ => {}
            }
        }
    }
    assert!(subscriber.is_synced());
    (subscriber, replica, source)
}

/// What a mirror says to this from its server.
fn fault(subscriber: &mut Subscriber, replica: &ModelReplica, update: &Update) -> Option<String> {
    let mut effects = Vec::new();
    subscriber.on(NOW, SubscriberEvent::Received(update.encode()), &mut effects);
    while let Some(effect) = effects.pop() {
        match effect {
            SubscriberEffect::Run(task) => {
                let outcome = block_on(perform(replica, task));
                subscriber.on(NOW, SubscriberEvent::Done(outcome), &mut effects);
            }
            SubscriberEffect::Report(MirrorEvent::Fault(error)) => return Some(error.to_string()),
            _ => {}
        }
    }
    None
}

#[test]
fn a_server_that_breaks_the_protocol_changes_nothing() {
    let topic = TOPIC;
    let check = |make: &dyn Fn(&ModelSource) -> Update, expected: &str| {
        let (mut subscriber, replica, source) = subscribed(20);
        let (before, blocks) = (replica.contents(), replica.block_count());
        let said = fault(&mut subscriber, &replica, &make(&source)).expect(expected);
        assert!(said.contains(expected), "{said:?} does not say {expected:?}");
        assert_eq!(replica.contents(), before);
        assert_eq!(replica.block_count(), blocks);
        assert!(!subscriber.is_synced());
        assert_eq!(subscriber.deadline().map(|at| at > NOW), Some(true), "it tries again");
    };
    let commit = |seq| Update::Commit { topic, seq, entry: Bytes::from_static(b"what?") };
    check(&|_| commit(22), "commit out of turn");
    check(&|_| commit(20), "commit out of turn");
    check(&|_| commit(u64::MAX), "commit out of turn");
    check(&|_| commit(21), "commit 21 does not follow");
    let nowhere = Point { seq: 21, commit: datahike_sync::CommitId([3; 32]) };
    check(
        &|source| {
            source.commit(&[(1, 1)], 0);
            Update::Batch { topic, from: 20, to: nowhere, bytes: Bytes::from_static(&[0, 0, 0, 0]) }
        },
        "does not follow",
    );
    let false_block =
        |request, blocks: Vec<Block>| Update::Blocks { topic, request, last: true, blocks };
    let block = Block {
        address: Address([4; 32]),
        body: Body::Whole(Bytes::from_static(b"not what its address says")),
    };
    check(&|_| false_block(0, vec![block.clone()]), "does not match its address");
    check(&|_| false_block(77, vec![block.clone()]), "more answers than it may");
    check(
        &|source| {
            let base = source.head().flush.address;
            let patch = Bytes::from_static(&[200, 1, 2, 3]);
            let body = Body::Patch { base, patch };
            false_block(0, vec![Block { address: Address([4; 32]), body }])
        },
        "patch",
    );
    let mut flush = source(20).head().flush;
    flush.at.seq = 21;
    check(&|_| Update::Flush { topic, flush, sent: false }, "flush out of turn");
    check(&|_| Update::Seeds { topic, last: true, addresses: vec![] }, "list of seeds out of turn");
    let closed = |cause| Update::Closed { topic, cause, text: "for a test".to_owned() };
    check(&|_| closed(Cause::TooSlow), "for a test");
}

#[test]
fn a_server_that_never_does_right_is_given_up() {
    let (mut subscriber, replica, _) = subscribed(5);
    let (mut now, mut effects) = (NOW, Vec::new());
    let mut failed = None;
    let closed = Update::Closed { topic: TOPIC, cause: Cause::Internal, text: String::new() };
    subscriber.on(now, SubscriberEvent::Received(closed.encode()), &mut effects);
    for _ in 0..100 {
        for effect in std::mem::take(&mut effects) {
            match effect {
                SubscriberEffect::Run(task) => {
                    let outcome = block_on(perform(&replica, task));
                    subscriber.on(now, SubscriberEvent::Done(outcome), &mut effects);
                }
                SubscriberEffect::Report(MirrorEvent::Failed(error)) => failed = Some(error),
                _ => {}
            }
        }
        if let Some(at) = subscriber.deadline() {
            now = at;
            subscriber.on(now, SubscriberEvent::Tick, &mut effects);
        }
    }
    assert!(matches!(failed.as_deref(), Some(SyncError::Timeout { .. })), "{failed:?}");
    assert!(subscriber.is_stopped());
    assert!(now > NOW + Duration::from_secs(30) * (ATTEMPTS_MAX - 1), "it took its time");
}

#[test]
fn a_full_disk_stops_the_mirror_with_its_copy_intact() {
    let (mut subscriber, replica, source) = subscribed(5);
    let before = replica.contents();
    replica.set_fails(true);
    let (at, entry) = source.commit(&[(1, 1)], 0);
    let update = Update::Commit { topic: TOPIC, seq: at.seq, entry };
    let mut effects = Vec::new();
    subscriber.on(NOW, SubscriberEvent::Received(update.encode()), &mut effects);
    let Some(SubscriberEffect::Run(task)) = effects.pop() else { panic!("no task") };
    let outcome = block_on(perform(&replica, task));
    subscriber.on(NOW, SubscriberEvent::Done(outcome), &mut effects);
    let failed = effects.iter().find_map(|effect| match effect {
        SubscriberEffect::Report(MirrorEvent::Failed(error)) => Some(error.to_string()),
        _ => None,
    });
    assert_eq!(failed.as_deref(), Some("the mirror cannot write: no space left on device"));
    assert_eq!(replica.contents(), before);
}

#[test]
fn a_plan_that_was_not_asked_for_is_not_heard() {
    let (mut subscriber, replica, source) = subscribed(5);
    let head = source.head();
    let plan = Update::Plan {
        request: 1,
        topic: 9,
        identity: identity(),
        shape: Shape(Bytes::from_static(b"s")),
        head,
        folds: true,
        plan: Plan::Snapshot,
    };
    assert_eq!(fault(&mut subscriber, &replica, &plan), None);
    assert!(subscriber.is_synced());
    assert_eq!(subscriber.topic(), Some(TOPIC));
}
