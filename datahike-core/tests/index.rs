//! The indexes against a model that is obvious by reading: a list of events.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex};

use datahike_core::block::{
    Address, BlockSource, Missing, apply_patch, children, make_patch, pack, unpack,
};
use datahike_core::datom::{AttrId, Datom};
use datahike_core::index::{
    AttrTraits, DatomRef, Flushed, Index, Indexes, Node, Params, Prefix, Range, Roots,
    changed_blocks, derive,
};
use datahike_value::Value;
use proptest::prelude::*;

/// All blocks as bytes, some of them decoded. What is not must be asked for.
#[derive(Debug, Default)]
struct Shelf {
    bytes: Mutex<HashMap<Address, Vec<u8>>>,
    decoded: Mutex<HashMap<Address, Arc<Node>>>,
}

impl Shelf {
    fn store(&self, flushed: &Flushed) {
        let mut bytes = self.bytes.lock().unwrap();
        for (address, block) in &flushed.blocks {
            assert_eq!(*address, Address::of(block));
            bytes.insert(*address, block.clone());
        }
    }

    /// Forgets about one in three decoded blocks.
    fn forget(&self, seed: u8) {
        self.decoded.lock().unwrap().retain(|address, _| address.0[0].wrapping_add(seed) % 3 != 0);
    }

    fn fetch(&self, missing: &Missing) {
        let (bytes, mut decoded) = (self.bytes.lock().unwrap(), self.decoded.lock().unwrap());
        assert!(!missing.addresses.is_empty());
        for address in &missing.addresses {
            let node = Node::decode(&bytes[address]).unwrap();
            let before = decoded.insert(*address, Arc::new(node));
            assert!(before.is_none(), "asked for a block that is there");
        }
    }

    /// Runs until nothing is missing.
    fn settle<T>(&self, mut run: impl FnMut() -> Result<T, Missing>) -> T {
        loop {
            match run() {
                Ok(done) => return done,
                Err(missing) => self.fetch(&missing),
            }
        }
    }
}

impl BlockSource for Shelf {
    fn node(&self, address: &Address) -> Option<Arc<Node>> {
        self.decoded.lock().unwrap().get(address).cloned()
    }
}

/// Attribute 3 is not in AVET; `forgets` are `:db/noHistory`.
struct Traits {
    forgets: Option<u32>,
}

impl AttrTraits for Traits {
    fn avet(&self, a: AttrId) -> bool {
        a.0 != 3
    }

    fn history(&self, a: AttrId) -> bool {
        self.forgets != Some(a.0)
    }
}

#[derive(Clone, Debug)]
enum Step {
    Transact { facts: Vec<(u64, u32, Value, bool)>, forgets: Option<u32> },
    Flush,
    Forget(u8),
    Compare,
    Read { index: Index, from: Prefix, to: Prefix, exclusive: bool },
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (-3_i64..12).prop_map(Value::from),
        2 => (0_i64..4).prop_map(|n| Value::from(n as f64 / 4.0)),
        3 => "[ab]{0,3}".prop_map(Value::from),
        1 => (0_usize..12).prop_map(|n| Value::from("long".repeat(n * 16))),
        1 => any::<bool>().prop_map(Value::from),
        1 => "[a-c]/[ab]".prop_map(|s| Value::keyword(&s)),
        1 => Just(Value::Nil),
    ]
}

fn prefix() -> impl Strategy<Value = Prefix> {
    let e = proptest::option::of(0_u64..30);
    let a = proptest::option::of((0_u32..5).prop_map(AttrId));
    (e, a, proptest::option::of(value())).prop_map(|(e, a, v)| Prefix {
        e,
        a,
        v,
        ..Prefix::default()
    })
}

fn step() -> impl Strategy<Value = Step> {
    let fact = (1_u64..30, 0_u32..5, value(), prop::bool::weighted(0.65));
    let index = prop_oneof![Just(Index::Eavt), Just(Index::Aevt), Just(Index::Avet)];
    prop_oneof![
        6 => (prop::collection::vec(fact, 1..40), proptest::option::of(0_u32..5))
            .prop_map(|(facts, forgets)| Step::Transact { facts, forgets }),
        2 => Just(Step::Flush),
        2 => any::<u8>().prop_map(Step::Forget),
        2 => Just(Step::Compare),
        3 => (index, prefix(), prefix(), any::<bool>())
            .prop_map(|(index, from, to, exclusive)| Step::Read { index, from, to, exclusive }),
    ]
}

/// Entity, attribute, value.
type Fact = (u64, u32, Value);

/// Every event (transaction, whether asserted) with whether the past that it ends is kept.
#[derive(Default)]
struct Model {
    chains: BTreeMap<Fact, Vec<(u64, bool, bool)>>,
}

impl Model {
    fn add(&mut self, datoms: &[Datom], forgets: Option<u32>) {
        for d in datoms {
            let chain = self.chains.entry((d.e, d.a.0, d.v.clone())).or_default();
            chain.push((d.tx, d.added, forgets != Some(d.a.0)));
            chain.sort_unstable();
        }
    }

    fn datoms(&self, index: Index, past: bool) -> Vec<Datom> {
        let mut all = Vec::new();
        for ((e, a, v), chain) in &self.chains {
            for (at, (tx, added, keep)) in chain.iter().enumerate() {
                let next = chain.get(at + 1);
                let shown = match (past, added) {
                    (false, _) => *added && next.is_none(),
                    (true, true) => next.is_none_or(|(_, _, keep)| *keep),
                    (true, false) => *keep,
                };
                if shown && (index != Index::Avet || *a != 3) {
                    let (v, added) = (v.clone(), *added);
                    all.push(Datom { e: *e, a: AttrId(*a), v, tx: *tx, added });
                }
            }
        }
        all.sort_by(|a, b| DatomRef::from(a).cmp_in(&b.into(), index));
        all
    }
}

fn read(shelf: &Shelf, indexes: &Indexes, range: &Range, past: bool) -> Vec<Datom> {
    let collect = |reverse: bool| {
        shelf.settle(|| {
            let iter = match (past, reverse) {
                (false, false) => indexes.current(range),
                (false, true) => indexes.current_rev(range),
                (true, false) => indexes.history(range),
                (true, true) => indexes.history_rev(range),
            };
            iter.collect::<Result<Vec<Datom>, Missing>>()
        })
    };
    let by_column = shelf.settle(|| {
        let scan = if past { indexes.scan_history(range) } else { indexes.scan(range) };
        let mut all = Vec::new();
        for slice in scan {
            let slice = slice?;
            assert!(!slice.rows.is_empty());
            all.extend(slice.iter().map(|row| row.to_datom()));
        }
        Ok(all)
    });
    let (forward, mut reverse) = (collect(false), collect(true));
    reverse.reverse();
    assert_eq!(forward, reverse, "in reverse {range:?}");
    assert_eq!(forward, by_column, "by column {range:?}");
    forward
}

fn reachable(shelf: &Shelf, roots: &Roots) -> BTreeSet<Address> {
    let mut found = BTreeSet::new();
    let mut next: Vec<Address> =
        roots.current.iter().chain(&roots.history).flatten().map(|root| root.address).collect();
    while let Some(address) = next.pop() {
        if found.insert(address) {
            next.extend(children(&shelf.bytes.lock().unwrap()[&address]).unwrap());
        }
    }
    found
}

fn check_changed_blocks(shelf: &Shelf, old: &Roots, new: &Roots) {
    let changed = shelf.settle(|| changed_blocks(shelf, old, new));
    let (before, after) = (reachable(shelf, old), reachable(shelf, new));
    let named: BTreeSet<Address> = changed.iter().map(|(address, _)| *address).collect();
    assert!(after.difference(&before).all(|address| named.contains(address)));
    assert!(named.is_subset(&after));
    let bytes = shelf.bytes.lock().unwrap();
    for (address, base) in changed {
        let (block, base) = (&bytes[&address], base.map(|base| &bytes[&base]));
        if let Some(base) = base {
            assert_eq!(&apply_patch(base, &make_patch(base, block)).unwrap(), block);
        }
        assert_eq!(&unpack(&pack(block)).unwrap(), block);
    }
}

fn cases(default: u32) -> ProptestConfig {
    let cases = std::env::var("INDEX_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    ProptestConfig { cases, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn behave_like_a_list_of_events(
        steps in prop::collection::vec(step(), 1..24),
        leaf_target in 4_u32..20,
        seed in any::<u64>(),
    ) {
        let params = Params { leaf_target, branch_target: 4, seed: [seed, 7] };
        let shelf = Arc::new(Shelf::default());
        let mut indexes = Indexes::open(params, true, Default::default(), shelf.clone());
        let mut model = Model::default();
        let mut unflushed = Indexes::empty(params, true);
        let mut checkpoint = (indexes.clone(), Vec::new());
        let mut tx = 100;
        for step in steps.into_iter().chain([Step::Flush]) {
            match step {
                Step::Transact { facts, forgets } => {
                    tx += 1;
                    let datoms: BTreeSet<Datom> = facts
                        .into_iter()
                        .map(|(e, a, v, added)| Datom { e, a: AttrId(a), v, tx, added })
                        .collect();
                    let datoms: Vec<Datom> = datoms.into_iter().collect();
                    model.add(&datoms, forgets);
                    indexes = indexes.apply(&datoms, &Traits { forgets });
                    unflushed.extend(&datoms, &Traits { forgets });
                }
                Step::Flush => {
                    let flushed = shelf.settle(|| indexes.flush());
                    shelf.store(&flushed);
                    prop_assert_eq!(flushed.roots, unflushed.flush().unwrap().roots);
                    check_changed_blocks(&shelf, indexes.roots(), &flushed.roots);
                    indexes = flushed.indexes;
                }
                Step::Compare => {
                    let now = model.datoms(Index::Eavt, false);
                    let diff = shelf.settle(|| checkpoint.0.diff(&indexes));
                    let gone = checkpoint.1.iter().filter(|d| !now.contains(d));
                    let mut expected: Vec<Datom> =
                        gone.map(|d: &Datom| Datom { added: false, ..d.clone() }).collect();
                    expected.extend(now.iter().filter(|d| !checkpoint.1.contains(d)).cloned());
                    let fact = |d: &Datom| (d.e, d.a, d.v.clone(), d.added);
                    expected.sort_by_key(fact);
                    prop_assert_eq!(diff, expected);
                    checkpoint = (indexes.clone(), now);
                }
                Step::Forget(seed) => shelf.forget(seed),
                Step::Read { index, from, to, exclusive } => {
                    let bound = if exclusive { Bound::Excluded } else { Bound::Included };
                    let range = Range { index, lower: bound(from), upper: bound(to) };
                    for past in [false, true] {
                        let mut expected = model.datoms(index, past);
                        expected.retain(|d| range.contains(&d.into()));
                        prop_assert_eq!(read(&shelf, &indexes, &range, past), expected);
                    }
                }
            }
        }
        let derived = shelf.settle(|| {
            derive(params, indexes.roots(), &*shelf, &Traits { forgets: None }).map_err(|error| {
                error.missing().cloned().unwrap_or_else(|| panic!("{error}"))
            })
        });
        prop_assert!(derived.iter().all(|(address, _)| shelf.bytes.lock().unwrap().contains_key(address)));
        for index in Index::ALL {
            for past in [false, true] {
                let all = read(&shelf, &indexes, &Range::all(index), past);
                prop_assert_eq!(all, model.datoms(index, past));
            }
        }
    }
}

/// Leaves with waiting edits are merged once and kept: every snapshot must see its own edits, forks
/// and older ones too.
#[test]
fn merged_leaves_belong_to_their_snapshots() {
    let shelf = Arc::new(Shelf::default());
    let none = Traits { forgets: None };
    let d = |e: u64, v: i64, tx: u64, added| Datom { e, a: AttrId(1), v: v.into(), tx, added };
    let datoms: Vec<Datom> = (1..=5_000).map(|e| d(e, e as i64, 1, true)).collect();
    let base = Indexes::build(Params::default(), true, &datoms, &none, shelf.clone()).unwrap();
    shelf.store(&base);
    let base = base.indexes;

    let mut snapshots = vec![(base.clone(), datoms)];
    for round in 0..40_u64 {
        // Now and then a fork from an older snapshot; one round has more edits than are kept merged.
        let from = if round % 5 == 4 { snapshots.len() / 2 } else { snapshots.len() - 1 };
        let (before, rows) = snapshots[from].clone();
        let mut rows: BTreeMap<u64, Datom> = rows.into_iter().map(|d| (d.e, d)).collect();
        let mut edits = Vec::new();
        let count = if round == 20 { 3_000 } else { 30 };
        for n in 0..count {
            let e = if round == 20 { 10_000 + n } else { (round * 131 + n * 7) % 6_000 + 1 };
            let new = d(e, (round * 1_000 + n) as i64, round + 2, true);
            if let Some(old) = rows.insert(e, new.clone()) {
                edits.push(Datom { tx: round + 2, added: false, ..old });
            }
            edits.push(new);
        }
        snapshots.push((before.apply(&edits, &none), rows.into_values().collect()));
        let recent = snapshots.len().saturating_sub(4);
        for (snapshot, rows) in snapshots[recent..].iter().chain(&snapshots[..2]) {
            assert_eq!(&read(&shelf, snapshot, &Range::all(Index::Eavt), false), rows);
            let low = Prefix { e: Some(700), ..Prefix::default() };
            let high = Prefix { e: Some(2_900), ..Prefix::default() };
            let range = Range {
                index: Index::Eavt,
                lower: Bound::Excluded(low),
                upper: Bound::Included(high),
            };
            let some: Vec<Datom> =
                rows.iter().filter(|d| d.e > 700 && d.e <= 2_900).cloned().collect();
            assert_eq!(read(&shelf, snapshot, &range, false), some);
        }
    }
    assert_eq!(base.estimate(&Range::all(Index::Eavt)), 5_000);
    let one = base.estimate(&Range::eavt(77, None, None));
    assert_eq!(one, 1, "exact where the leaves are in memory");
}

/// One more datom rewrites a bounded number of blocks, wherever it falls.
#[test]
fn one_edit_rewrites_few_blocks() {
    let shelf = Arc::new(Shelf::default());
    let none = Traits { forgets: None };
    let d = |e: u64, tx| Datom { e, a: AttrId(3), v: Value::from(e as i64), tx, added: true };
    let datoms: Vec<Datom> = (1..=40_000).map(|e| d(e * 2, 1)).collect();
    let base = Indexes::build(Params::default(), true, &datoms, &none, shelf.clone()).unwrap();
    shelf.store(&base);
    for e in (1..80_000).step_by(3_001) {
        let edited = base.indexes.apply(&[d(e | 1, 2)], &none);
        let flushed = shelf.settle(|| edited.flush());
        // Two trees of three levels.
        assert!(flushed.blocks.len() <= 2 * (4 + 1 + 1), "{} blocks", flushed.blocks.len());
        assert!(flushed.blocks.iter().all(|(address, _)| flushed.bases.contains_key(address)));
    }
}

/// Large batches go into the tail and the trees another way than single datoms, and give the same.
#[test]
fn large_batches_are_many_small_ones() {
    const TRAITS: Traits = Traits { forgets: None };
    let fact = |n: u64| {
        let e = n.wrapping_mul(7_919) % 5_000;
        let v = Value::from((n % 13) as i64);
        Datom { e, a: AttrId((n % 5) as u32), v, tx: n, added: !n.is_multiple_of(3) }
    };
    let datoms: Vec<Datom> = (0..12_000).map(fact).collect();
    let one_by_one = datoms.iter().fold(Indexes::empty(Params::default(), true), |mut all, one| {
        all.extend(std::slice::from_ref(one), &TRAITS);
        all
    });
    let mut batched = Indexes::empty(Params::default(), true);
    for some in datoms.chunks(1_234) {
        let before = batched.clone();
        let seen = before.history(&Range::all(Index::Avet)).count();
        batched.extend(some, &TRAITS);
        // What was held meanwhile stays as it was.
        assert_eq!(before.history(&Range::all(Index::Avet)).count(), seen);
    }
    for index in Index::ALL {
        let rows = |of: &Indexes| -> Vec<Datom> {
            of.history(&Range::all(index)).collect::<Result<_, _>>().unwrap()
        };
        assert_eq!(rows(&batched), rows(&one_by_one));
    }
    assert_eq!(batched.flush().unwrap().roots, one_by_one.flush().unwrap().roots);

    let shelf = Arc::new(Shelf::default());
    let empty = Indexes::open(Params::default(), true, Roots::default(), Arc::clone(&shelf) as _);
    let in_parts = datoms.chunks(3_000).fold(empty, |mut all, some| {
        all.extend(some, &TRAITS);
        let flushed = shelf.settle(|| all.flush());
        shelf.store(&flushed);
        flushed.indexes
    });
    assert_eq!(in_parts.roots(), &one_by_one.flush().unwrap().roots);
}

/// Columns say what rows say.
#[test]
fn columns_are_those_of_the_rows() {
    let datom = |n: u64| Datom {
        e: (n * (n % 3 + 1)) << (n % 2 * 33),
        a: AttrId(1),
        v: Value::Long(n as i64),
        tx: 9_000_000_000 + n,
        added: true,
    };
    let datoms: Vec<Datom> = (0..200).map(datom).collect();
    let indexes = Indexes::empty(Params::default(), true).apply(&datoms, &Traits { forgets: None });
    for slice in indexes.scan(&Range::aevt(AttrId(1), None)) {
        let slice = slice.unwrap();
        let (mut entities, mut txs) = (Vec::new(), Vec::new());
        slice.leaf.entities(slice.rows.clone(), &mut entities);
        slice.leaf.txs(slice.rows.clone(), &mut txs);
        let rows: Vec<(u64, u64)> = slice.iter().map(|row| (row.e, row.tx)).collect();
        assert_eq!(entities.into_iter().zip(txs).collect::<Vec<_>>(), rows);
    }
}
