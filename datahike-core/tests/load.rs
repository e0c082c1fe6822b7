//! Facts that are written out without a tail make the blocks that they make with one.

use std::sync::Arc;

use datahike_core::datom::{AttrId, Datom};
use datahike_core::index::{AttrTraits, Indexes, MemoryBlocks, Params};
use datahike_value::Value;
use proptest::prelude::*;

const SMALL: Params = Params { leaf_target: 8, branch_target: 4, seed: [3, 4] };

struct Third;

impl AttrTraits for Third {
    fn avet(&self, a: AttrId) -> bool {
        a.0.is_multiple_of(3)
    }

    fn history(&self, _: AttrId) -> bool {
        true
    }
}

fn events(tx: u64, most: usize, retractions: bool) -> impl Strategy<Value = Vec<Datom>> {
    let added = if retractions {
        prop_oneof![4 => Just(true), 1 => Just(false)].boxed()
    } else {
        Just(true).boxed()
    };
    let datom = (0..60_u64, 0..6_u32, 0..40_i64, added).prop_map(move |(e, a, v, added)| {
        let v = if a == 1 { Value::from(format!("v{v}")) } else { Value::from(v) };
        Datom { e, a: AttrId(a), v, tx, added }
    });
    prop::collection::vec(datom, 0..most)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(200)
    ))]
    #[test]
    fn a_load_is_a_flush(
        base in events(10, 300, false),
        tail in events(11, 20, false),
        first in events(12, 200, false),
        second in prop_oneof![events(13, 200, false), events(13, 60, true)],
    ) {
        let blocks = Arc::new(MemoryBlocks::default());
        let base = Indexes::build(SMALL, true, &base, &Third, blocks.clone()).unwrap();
        blocks.insert(&base.blocks).unwrap();
        let indexes = base.indexes.apply(&tail, &Third);
        let expected = indexes.apply(&first, &Third).apply(&second, &Third).flush().unwrap();
        let loaded = indexes.flush_with(&[&first, &second], &Third).unwrap();
        prop_assert_eq!(loaded.roots, expected.roots);
        let sorted = |mut blocks: Vec<(_, _)>| { blocks.sort(); blocks };
        prop_assert_eq!(sorted(loaded.blocks), sorted(expected.blocks));
    }
}

#[test]
fn new_entities_go_into_empty_and_full_trees() {
    let blocks = Arc::new(MemoryBlocks::default());
    let rows = |from: u64| -> Vec<Datom> {
        (from..from + 3_000)
            .flat_map(|e| {
                (0..4).map(move |a| {
                    let v = Value::from((e * 7 + u64::from(a)) as i64);
                    Datom { e, a: AttrId(a), v, tx: 100 + e / 500, added: true }
                })
            })
            .collect()
    };
    let mut loaded = Indexes::open(SMALL, true, Default::default(), blocks.clone());
    let mut plain = loaded.clone();
    for from in [0, 3_000] {
        let rows = rows(from);
        let flushed = loaded.flush_with(&[&rows], &Third).unwrap();
        blocks.insert(&flushed.blocks).unwrap();
        loaded = flushed.indexes;
        plain = plain.apply(&rows, &Third).flush().unwrap().indexes;
        assert_eq!(loaded.roots(), plain.roots());
    }
}
