//! Messages and their bytes.

use bytes::Bytes;
use datahike_sync::{
    Address, CommitId, Database, FlushPoint, Have, Head, Identity, Mode, Partial, Point, Reset,
    Shape, StoreName,
    envelope::{Opener, number_of, seal},
    limits::{MESSAGE_BYTES_MAX, PART_BYTES_MAX},
    message::{
        Block, Body, Cause, DecodeError, Plan, Request, Snapshot, Subscribe, Supply, Update,
    },
    patch,
};
use proptest::prelude::*;

fn blob(max: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..max).prop_map(Bytes::from)
}

fn address() -> impl Strategy<Value = Address> {
    any::<[u8; 32]>().prop_map(Address)
}

fn point() -> impl Strategy<Value = Point> {
    (any::<u64>(), any::<[u8; 32]>())
        .prop_map(|(seq, commit)| Point { seq, commit: CommitId(commit) })
}

fn flush() -> impl Strategy<Value = FlushPoint> {
    (point(), address()).prop_map(|(at, address)| FlushPoint { at, address })
}

fn head() -> impl Strategy<Value = Head> {
    (flush(), any::<[u8; 32]>(), any::<u64>()).prop_map(|(flush, commit, more)| {
        let seq = flush.at.seq.saturating_add(more);
        Head { at: Point { seq, commit: CommitId(commit) }, flush }
    })
}

fn identity() -> impl Strategy<Value = Identity> {
    (any::<u128>(), any::<u64>())
        .prop_map(|(id, epoch)| Identity { store: uuid::Uuid::from_u128(id), epoch })
}

fn shape() -> impl Strategy<Value = Shape> {
    blob(64).prop_map(Shape)
}

fn block() -> impl Strategy<Value = Block> {
    let body = prop_oneof![
        blob(300).prop_map(Body::Whole),
        (address(), blob(60)).prop_map(|(base, patch)| Body::Patch { base, patch }),
        Just(Body::Absent),
    ];
    (address(), body).prop_map(|(address, body)| Block { address, body })
}

fn cause() -> impl Strategy<Value = Cause> {
    prop_oneof![
        Just(Cause::UnknownDatabase),
        Just(Cause::TooSlow),
        Just(Cause::Damaged),
        Just(Cause::Reset(Reset::ServerOlder)),
        Just(Cause::Reset(Reset::Diverged)),
    ]
}

fn supply() -> impl Strategy<Value = Supply> {
    prop_oneof![
        any::<u64>().prop_map(|from| Supply::Push { from }),
        Just(Supply::List),
        Just(Supply::Fetch),
    ]
}

fn update() -> impl Strategy<Value = Update> {
    let topic = any::<u32>();
    let plan = prop_oneof![Just(Plan::Current), Just(Plan::Follow), Just(Plan::Snapshot)];
    prop_oneof![
        ((topic, any::<u32>()), identity(), shape(), head(), any::<bool>(), plan).prop_map(
            |((request, topic), identity, shape, head, folds, plan)| Update::Plan {
                request,
                topic,
                identity,
                shape,
                head,
                folds,
                plan
            }
        ),
        (any::<u32>(), cause(), ".{0,40}").prop_map(|(request, cause, text)| Update::Refused {
            request,
            cause,
            text
        }),
        (any::<u32>(), any::<u64>(), blob(400)).prop_map(|(topic, seq, entry)| Update::Commit {
            topic,
            seq,
            entry
        }),
        (any::<u32>(), any::<u64>(), prop::collection::vec(blob(100), 0..20))
            .prop_map(|(topic, first, entries)| Update::Entries { topic, first, entries }),
        (any::<u32>(), any::<u64>(), point(), blob(400))
            .prop_map(|(topic, from, to, bytes)| Update::Batch { topic, from, to, bytes }),
        (any::<u32>(), flush(), blob(400)).prop_map(|(topic, to, bytes)| Update::Difference {
            topic,
            to,
            bytes
        }),
        (any::<u32>(), flush(), any::<u64>(), any::<u64>(), supply()).prop_map(
            |(topic, flush, seeds, bytes, supply)| Update::Snapshot {
                topic,
                snapshot: Snapshot { flush, seeds, bytes, supply }
            }
        ),
        (any::<u32>(), any::<bool>(), prop::collection::vec(address(), 0..20))
            .prop_map(|(topic, last, addresses)| Update::Seeds { topic, last, addresses }),
        (any::<u32>(), any::<u32>(), any::<bool>(), prop::collection::vec(block(), 0..10))
            .prop_map(|(topic, request, last, blocks)| Update::Blocks {
                topic,
                request,
                last,
                blocks
            }),
        (any::<u32>(), flush(), any::<bool>()).prop_map(|(topic, flush, sent)| Update::Flush {
            topic,
            flush,
            sent
        }),
        (any::<u32>(), cause(), ".{0,40}").prop_map(|(topic, cause, text)| Update::Closed {
            topic,
            cause,
            text
        }),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    let name = prop_oneof![
        any::<u128>().prop_map(|id| StoreName::Id(uuid::Uuid::from_u128(id))),
        "[a-z]{0,30}".prop_map(StoreName::Name),
    ];
    let partial = (address(), any::<u64>()).prop_map(|(flush, seeds)| Partial { flush, seeds });
    let have = (
        prop::option::of(identity()),
        prop::option::of(shape()),
        prop::option::of(head()),
        prop::option::of(partial),
    )
        .prop_map(|(identity, shape, head, partial)| Have { identity, shape, head, partial });
    let mode = prop_oneof![Just(Mode::Full), Just(Mode::Blocks), Just(Mode::Lazy)];
    prop_oneof![
        (any::<u32>(), (name, "[a-z]{0,9}"), mode, any::<u64>(), have).prop_map(
            |(request, (store, branch), mode, window, have)| {
                let database = Database { store, branch };
                let subscribe = Box::new(Subscribe { database, mode, window, have });
                Request::Subscribe { request, subscribe }
            }
        ),
        (any::<u32>(), any::<u64>()).prop_map(|(topic, bytes)| Request::Ack { topic, bytes }),
        (any::<u32>(), any::<u32>(), prop::collection::vec(address(), 0..20))
            .prop_map(|(topic, request, addresses)| Request::Fetch { topic, request, addresses }),
        (any::<u32>(), address(), flush()).prop_map(|(topic, base, to)| Request::Changes {
            topic,
            base,
            to
        }),
        (any::<u32>(), address()).prop_map(|(topic, flush)| Request::Ready { topic, flush }),
        any::<u32>().prop_map(|topic| Request::Unsubscribe { topic }),
    ]
}

proptest! {
    #[test]
    fn requests_come_back(request in request()) {
        prop_assert_eq!(Request::decode(request.encode()), Ok(request));
    }

    #[test]
    fn updates_come_back(update in update()) {
        prop_assert_eq!(Update::decode(update.encode()), Ok(update.clone()));
        let topic = 3;
        let mut opener = Opener::default();
        let mut opened = None;
        for payload in seal(topic, &update).unwrap() {
            prop_assert!(payload.len() <= PART_BYTES_MAX + 6);
            prop_assert_eq!(opened, None);
            opened = opener.open(payload).unwrap();
        }
        prop_assert_eq!(opened, Some(update));
    }

    #[test]
    fn changed_bytes_are_read_or_refused(
        update in update(),
        request in request(),
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        for bytes in [update.encode(), request.encode()] {
            let mut bytes = bytes.to_vec();
            let place = at.index(bytes.len());
            bytes[place] = to;
            bytes.truncate(cut.index(bytes.len()) + 1);
            let bytes = Bytes::from(bytes);
            let _ = Update::decode(bytes.clone());
            let _ = Request::decode(bytes.clone());
            let _ = Opener::default().open(bytes.clone());
            let _ = number_of(&bytes);
            let _ = patch::apply(b"some base", &bytes);
        }
    }

    #[test]
    fn patches_lead_back(
        base in prop::collection::vec(any::<u8>(), 0..3000),
        at in any::<prop::sample::Index>(),
        insert in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut new = base.clone();
        let place = at.index(base.len() + 1);
        new.splice(place..place, insert);
        if let Some(patch) = patch::make(&base, &new) {
            prop_assert!(patch.len() < new.len());
            prop_assert_eq!(patch::apply(&base, &patch).unwrap(), new);
        }
    }
}

#[test]
fn a_patch_of_a_large_block_is_small() {
    // Longer than the window of the compression, and nothing that compresses by itself.
    let base: Vec<u8> =
        (0..40_000u32).flat_map(|n| (n.wrapping_mul(2_654_435_761)).to_be_bytes()).collect();
    for size in [2_000, 60_000, 160_000] {
        let base = &base[..size];
        let mut new = base.to_vec();
        new.splice(size / 2..size / 2, *b"a fact more");
        if let Some(patch) = patch::make(base, &new) {
            assert_eq!(patch::apply(base, &patch).unwrap(), new);
            assert!(size > 60_000 || patch.len() < 400, "{} bytes for {size}", patch.len());
        } else {
            assert!(size > 60_000);
        }
    }
}

#[test]
fn long_updates_travel_in_parts() {
    let entry: Vec<u8> =
        (0..300_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    let update = Update::Commit { topic: 1, seq: 9, entry: entry.into() };
    let payloads = seal(1, &update).unwrap();
    assert!(payloads.len() > 4);
    let mut opener = Opener::default();
    let mut opened: Vec<_> =
        payloads.iter().map(|part| opener.open(part.clone()).unwrap()).collect();
    assert_eq!(opened.pop(), Some(Some(update.clone())));
    assert!(opened.iter().all(Option::is_none));

    // Another message may not stand between the parts, except that the subscription ends.
    let mut opener = Opener::default();
    opener.open(payloads[0].clone()).unwrap();
    let other = Update::Commit { topic: 1, seq: 10, entry: Bytes::new() };
    assert!(opener.open(other.encode()).is_err());
    let mut opener = Opener::default();
    opener.open(payloads[0].clone()).unwrap();
    let closed = Update::Closed { topic: 1, cause: Cause::Shutdown, text: String::new() };
    assert_eq!(opener.open(closed.encode()).unwrap(), Some(closed));
}

#[test]
fn a_bomb_is_not_unpacked() {
    // Tag, topic, an announced size, and next to nothing.
    let bomb = |size: &[u8]| Bytes::from([&[32, 1], size, &[0; 8]].concat());
    let too_large = [0xff, 0xff, 0xff, 0xff, 0x7f];
    assert!(matches!(Opener::default().open(bomb(&too_large)), Err(DecodeError::TooLarge { .. })));
    let unlikely = [0x80, 0x80, 0x80, 0x08];
    assert!(matches!(Opener::default().open(bomb(&unlikely)), Err(DecodeError::Malformed(_))));
    let part = Bytes::from([&[33, 1][..], &vec![0; 1 << 20]].concat());
    let mut opener = Opener::default();
    let refused = (0..=MESSAGE_BYTES_MAX >> 20).find_map(|_| opener.open(part.clone()).err());
    assert!(matches!(refused, Some(DecodeError::TooLarge { .. })));
}

#[test]
fn a_small_commit_costs_a_few_bytes_more_than_its_entry() {
    let update = Update::Commit { topic: 3, seq: 1_000_000, entry: Bytes::from(vec![7; 50]) };
    let payloads = seal(3, &update).unwrap();
    assert_eq!(payloads.len(), 1);
    assert!(payloads[0].len() <= 50 + 6, "{} bytes", payloads[0].len());
}
