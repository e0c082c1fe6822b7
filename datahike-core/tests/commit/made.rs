//! Transactions, notes and entries for tests.

use datahike_core::commit::{CommitId, Entry, Note, RequestId};
use datahike_core::datom::{AttrId, Datom, TX0};
use datahike_core::schema::system;
use datahike_core::tx::ResolvedTx;
use datahike_value::{Keyword, Uuid, Value, kw, map, vector};
use proptest::prelude::*;

/// The first attribute number that is not the system's.
pub(crate) const FIRST: u32 = 30;

pub(crate) fn datom(e: u64, a: u32, v: impl Into<Value>, tx: u64) -> Datom {
    Datom { e, a: AttrId(a), v: v.into(), tx: TX0 + tx, added: true }
}

pub(crate) fn retracted(e: u64, a: u32, v: impl Into<Value>, tx: u64) -> Datom {
    Datom { added: false, ..datom(e, a, v, tx) }
}

/// Transaction number `tx` with these datoms after its instant.
pub(crate) fn transaction(tx: u64, datoms: Vec<Datom>) -> ResolvedTx {
    let instant = Value::Inst(1_795_444_406_706 + i64::try_from(tx).unwrap_or(0) * 1009);
    let instant = datom(TX0 + tx, system::TX_INSTANT.0, instant, tx);
    ResolvedTx {
        tx: TX0 + tx,
        new_attributes: [].into(),
        datoms: std::iter::once(instant).chain(datoms).collect(),
        purged: [].into(),
    }
}

pub(crate) fn entry(transactions: Vec<ResolvedTx>) -> Entry {
    Entry { transactions, ..Entry::default() }
}

pub(crate) fn note(client: u128, number: u64, body: u8) -> Note {
    Note {
        request: RequestId { client: Uuid::from_u128(client), number },
        body: [body; 32],
        tx: TX0 + number,
        tempids: vec![(Value::from(-1), 7), (Value::from("new"), 8)],
    }
}

/// A log such as small transactions make: each changes one value and adds one entity of three.
pub(crate) fn small_transactions(count: u64) -> Vec<Entry> {
    let mut random = 88_172_645_463_325_252u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    (1..=count)
        .map(|tx| {
            let (changed, new) = (1 + next(135_000), 135_000 + tx);
            let old = i64::try_from(next(100_000)).unwrap_or(0);
            let mut before = retracted(changed, FIRST, old, tx);
            before.added = false;
            let datoms = vec![
                before,
                datom(changed, FIRST, old + 1, tx),
                datom(new, FIRST, i64::try_from(next(100_000)).unwrap_or(0), tx),
                datom(new, FIRST + 1, format!("City {}", next(100_000)), tx),
                datom(new, FIRST + 2, i64::try_from(next(250)).unwrap_or(0), tx),
            ];
            entry(vec![transaction(tx, datoms)])
        })
        .collect()
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        (0..9i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::Inst),
        ".{0,6}".prop_map(Value::from),
        prop::sample::select(vec![
            Value::Nil,
            Value::Bool(true),
            kw!("a/b").into(),
            vector![1, Value::Nil, "x"],
            map! { kw!("k") => vector![1.5] },
            Value::bytes(vec![0, 255]),
            Value::bigint(1u64 << 63),
        ]),
    ]
}

fn any_datom(tx: u64) -> impl Strategy<Value = Datom> {
    let e = prop_oneof![0..5u64, Just(tx), 0..1u64 << 62];
    let a = prop_oneof![Just(system::TX_INSTANT.0), 0..40u32, any::<u32>()];
    let of = prop_oneof![9 => Just(tx), 1 => 0..1u64 << 62];
    (e, a, value(), of, any::<bool>()).prop_map(|(e, a, v, tx, added)| Datom {
        e,
        a: AttrId(a),
        v,
        tx,
        added,
    })
}

fn any_transaction() -> impl Strategy<Value = ResolvedTx> {
    let tx = prop_oneof![TX0 + 1..TX0 + 9, 0..1u64 << 62];
    tx.prop_flat_map(|tx| {
        let idents = prop::collection::vec((prop::option::of("[a-c]{1,3}"), ".{0,4}"), 0..3);
        let datoms = prop::collection::vec(any_datom(tx), 0..6);
        let purged =
            prop_oneof![3 => Just(vec![]), 1 => prop::collection::vec(any_datom(tx), 0..4)];
        (Just(tx), idents, datoms, purged)
    })
    .prop_map(|(tx, idents, datoms, purged)| ResolvedTx {
        tx,
        new_attributes: idents.iter().map(|(ns, n)| Keyword::new(ns.as_deref(), n)).collect(),
        datoms: datoms.into(),
        purged: purged.into(),
    })
}

fn any_note() -> impl Strategy<Value = Note> {
    let tempids = prop::collection::vec((value(), any::<u64>()), 0..3);
    (any::<u128>(), any::<u64>(), any::<[u8; 32]>(), any::<u64>(), tempids).prop_map(
        |(client, number, body, tx, tempids)| Note {
            request: RequestId { client: Uuid::from_u128(client), number },
            body,
            tx,
            tempids,
        },
    )
}

pub(crate) fn any_entry() -> impl Strategy<Value = Entry> {
    let merged = prop::collection::vec(any::<[u8; 32]>().prop_map(CommitId), 0..3);
    let transactions = prop::collection::vec(any_transaction(), 1..4);
    (merged, transactions, prop::collection::vec(any_note(), 0..3))
        .prop_map(|(merged, transactions, notes)| Entry { merged, transactions, notes })
}

/// Cases per property: `COMMIT_CASES` or a quick default.
pub(crate) fn config() -> ProptestConfig {
    let cases = std::env::var("COMMIT_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}
