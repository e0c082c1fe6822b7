//! The bytes of blocks: pinned, complete, and harmless when damaged.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, OnceLock};

use datahike_core::block::{
    Address, BlockSource, Missing, PatchError, apply_patch, children, make_patch, unpack,
};
use datahike_core::datom::{AttrId, Datom};
use datahike_core::index::{
    AttrTraits, DecodeError, DeriveError, Flushed, Index, Indexes, MemoryBlocks, Node, Params,
    Range, Root, Roots, derive,
};
use datahike_value::{BigDecimal, BigInt, Regex, Uuid, Value, edn};
use proptest::prelude::*;

struct All;

impl AttrTraits for All {
    fn avet(&self, _: AttrId) -> bool {
        true
    }

    fn history(&self, _: AttrId) -> bool {
        true
    }
}

const SMALL: Params = Params { leaf_target: 8, branch_target: 4, seed: [11, 12] };

fn datom(e: u64, a: u32, v: impl Into<Value>) -> Datom {
    Datom { e, a: AttrId(a), v: v.into(), tx: 536_870_913 + e / 4, added: true }
}

fn build(params: Params, datoms: &[Datom]) -> (Flushed, Arc<MemoryBlocks>) {
    let blocks = Arc::new(MemoryBlocks::default());
    let flushed = Indexes::build(params, true, datoms, &All, blocks.clone()).unwrap();
    blocks.insert(&flushed.blocks).unwrap();
    (flushed, blocks)
}

/// One or more of everything that a value can be.
fn values() -> Vec<Value> {
    let mut values = vec![
        Value::Nil,
        Value::from(true),
        Value::from(false),
        Value::Char('ß'),
        Value::Uuid(Uuid::from_u128(0x1234_5678_9abc_def0)),
        Value::Uuid(Uuid::nil()),
        Value::Inst(-1),
        Value::Inst(1_700_000_000_000),
        Value::Regex(Regex::new("a+\\d").unwrap()),
        Value::bytes(*b"\0\xff"),
        Value::FloatArray([1.5, f32::NAN, -0.0].into()),
        Value::DoubleArray([0.1, f64::INFINITY].into()),
        Value::symbol("a/b"),
        Value::symbol("+"),
        Value::keyword("person/name"),
        Value::keyword("person/age"),
        Value::keyword("x"),
        Value::bigint(BigInt::from(10).pow(40)),
        Value::bigint(-1),
        Value::from(BigDecimal::new(BigInt::from(150), 2)),
        Value::from(BigDecimal::new(BigInt::from(15), 1)),
        edn::read("[1 (2 \"x\") {:a #{1 2.5 nil}} #my/tag [:k]]").unwrap(),
        Value::list([]),
    ];
    for n in [0, 1, -1, 63, 64, i64::MAX, i64::MIN] {
        values.push(Value::Long(n));
    }
    for d in [0.0, -0.0, 1.0, 0.1, -12.345_67, 1e300, f64::NAN, f64::MIN_POSITIVE] {
        values.extend([Value::Double(d), Value::Float(d as f32)]);
    }
    for s in ["", "a", "ab", "abc", "Zürich", "Zürau", "same", "\u{10ffff}"] {
        values.push(Value::from(s));
    }
    values.push(Value::from("x".repeat(100_000)));
    values
}

fn of_all_types() -> Vec<Datom> {
    let mut datoms = Vec::new();
    for (at, v) in values().into_iter().enumerate() {
        let e = at as u64 + 1;
        // All under one attribute, each under its own, and runs of the same value.
        datoms.push(datom(e, 0, v.clone()));
        datoms.push(datom(e, 1 + at as u32, v.clone()));
        datoms.push(datom(1_000 + e, 200, v.clone()));
        datoms.push(datom(1 << 40 | e, 201, v));
        datoms.push(datom(e, 300 + (e % 3) as u32, format!("word {}", e % 5)));
        datoms.push(datom(e, 310, e as i64 * 7));
    }
    datoms
}

#[test]
fn every_type_of_value_survives_a_flush() {
    for params in [SMALL, Params::default()] {
        let datoms = of_all_types();
        let (flushed, blocks) = build(params, &datoms);
        for index in Index::ALL {
            let read: Vec<Datom> = flushed
                .indexes
                .current(&Range::all(index))
                .collect::<Result<_, Missing>>()
                .unwrap();
            let mut expected = datoms.clone();
            expected
                .sort_by(|a, b| datahike_core::index::DatomRef::from(a).cmp_in(&b.into(), index));
            let differs = read.iter().zip(&expected).find(|(read, expected)| read != expected);
            assert_eq!(differs, None, "{index:?}");
            assert_eq!(read.len(), expected.len());
        }
        let derived = derive(params, &flushed.roots, &*blocks, &All).unwrap();
        assert!(derived.iter().all(|block| flushed.blocks.contains(block)));
    }
}

#[test]
fn a_huge_value_has_its_block_to_itself() {
    let mut datoms: Vec<Datom> = (1..60).map(|e| datom(e, 1, e as i64)).collect();
    datoms.push(datom(30, 2, "x".repeat(1 << 20)));
    let (flushed, _) = build(Params::default(), &datoms);
    let with_it: Vec<usize> = flushed
        .blocks
        .iter()
        .filter_map(|(_, bytes)| match Node::decode(bytes) {
            Ok(Node::Leaf(leaf)) if bytes.len() > 1 << 20 => Some(leaf.len()),
            _ => None,
        })
        .collect();
    // The same bytes in all three indexes, so one block; branches name it by its key.
    assert_eq!(with_it.iter().max(), Some(&1));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn golden_datoms() -> Vec<Datom> {
    let mut datoms = Vec::new();
    for e in 1..=5_u64 {
        datoms.push(datom(e, 1, format!("name {e}")));
        datoms.push(datom(e, 2, Value::keyword(if e % 2 == 0 { "even" } else { "n/odd" })));
        datoms.push(datom(e, 3, e as f64 / 4.0));
        datoms.push(datom(e, 4, e as i64 * 1000));
    }
    datoms.push(Datom { added: false, tx: 536_870_999, ..datom(2, 1, "name 2") });
    datoms
}

/// Frozen: a change here makes every existing store unreadable, or its roots different.
#[test]
fn bytes_are_part_of_the_format() {
    let (flushed, _) = build(Params::default(), &golden_datoms());
    let leaves: Vec<String> = flushed.blocks.iter().map(|(_, bytes)| hex(bytes)).collect();
    assert_eq!(leaves, GOLDEN_LEAVES);
    let (flushed, _) =
        build(Params { leaf_target: 4, branch_target: 4, seed: [1, 2] }, &golden_datoms());
    let root = flushed.roots.current[0].unwrap();
    assert_eq!((root.depth, root.count, root.address.to_string().as_str()), GOLDEN_ROOT);
    let branch = flushed.blocks.iter().find(|(address, _)| *address == root.address).unwrap();
    assert_eq!(hex(&branch.1), GOLDEN_BRANCH);
}

/// Current and history, index by index.
const GOLDEN_LEAVES: [&str; 6] = [
    "01001301040202030502020402040000020202030202020000020100000182808080040a02070800000a0000000c0900006e616d6520313334350b020a016e036f64640a00046576656e00000201020103020232040102d00f04",
    "01000202010002000400000201008280808004ac010800000c000c0b6e616d652032",
    "0100130004020203020200040002010700020307000203070002030100030204020402040182808080040102010102020101020201010202010800000a0000000c0900006e616d6520313334350b020a016e036f64640a00046576656e00000201020103020232040102d00f04",
    "01000202010002000400000201008280808004ac010800000c000c0b6e616d652032",
    "010013000402020300020402020504050404070202020207020202020100030204020402040082808080040002000102010002010000020001000002000800000a0000000c0900006e616d6520313334350b020a00046576656e0a016e036f6464010001020203020232040102d00f04",
    "01000202010002000400000201008280808004ac010800000c000c0b6e616d652032",
];
const GOLDEN_ROOT: (u8, u64, &str) =
    (3, 19, "fb499122ac516ca2093ab0621402ca105bc75f65c0d0cdafc35a3d71a9b7e34d");
const GOLDEN_BRANCH: &str = "010203000300040202000404020000020200828080800402000a0a00046576656e030000020100904e000a08070000000202b424c5d30b7856f6e356485483d667e3c457c6417e1ab6ec4a1aa1405e8177383517f8f1eafd41742f1a3c6c98fd72b417d932de51db2e1901e4e6f5775f5577bfb944d2e587ce5a3755e08549515953ed722b516222ecf69fdf2e2f67d2fc";

#[test]
fn bytes_of_another_format_are_refused_by_name() {
    let (flushed, _) = build(SMALL, &golden_datoms());
    let mut bytes = flushed.blocks[0].1.clone();
    bytes[0] = 9;
    assert_eq!(Node::decode(&bytes).unwrap_err(), DecodeError::Version { found: 9 });
    assert!(matches!(Node::decode(&[]).unwrap_err(), DecodeError::Truncated { at: 0 }));
    bytes[0] = 1;
    bytes.push(0);
    assert_eq!(Node::decode(&bytes).unwrap_err(), DecodeError::Trailing { count: 1 });
}

#[test]
fn a_tree_that_is_not_canonical_is_found_out() {
    let (flushed, blocks) = build(SMALL, &golden_datoms());
    let mut wrong = flushed.roots;
    wrong.current[1] = wrong.current[2];
    let error = derive(SMALL, &wrong, &*blocks, &All).unwrap_err();
    assert_eq!(error, DeriveError::Mismatch { group: "current", index: Index::Aevt });
    let other = Params { seed: [5, 5], ..SMALL };
    let error = derive(other, &flushed.roots, &*blocks, &All).unwrap_err();
    assert_eq!(error, DeriveError::Mismatch { group: "current", index: Index::Eavt });
}

#[test]
fn an_attribute_that_becomes_indexed_is_covered() {
    struct Plain;
    impl AttrTraits for Plain {
        fn avet(&self, _: AttrId) -> bool {
            false
        }
        fn history(&self, _: AttrId) -> bool {
            true
        }
    }
    let blocks = Arc::new(MemoryBlocks::default());
    let mut datoms = golden_datoms();
    let late = datoms.split_off(12);
    let flushed = Indexes::build(SMALL, true, &datoms, &Plain, blocks.clone()).unwrap();
    blocks.insert(&flushed.blocks).unwrap();
    let plain = flushed.indexes.apply(&late, &Plain);
    let covered =
        (1..=4).fold(plain.clone(), |indexes, a| indexes.cover_in_avet(AttrId(a)).unwrap());
    assert_eq!(covered.tail().count(), plain.tail().count());
    let roots = covered.flush().unwrap().roots;
    datoms.extend(late);
    assert_eq!(roots, build(SMALL, &datoms).0.roots);
}

#[test]
fn a_patch_of_something_else_gives_an_error_or_other_bytes() {
    let (flushed, _) = build(SMALL, &of_all_types());
    let (base, block) = (&flushed.blocks[0].1, &flushed.blocks[1].1);
    let patch = make_patch(base, block);
    assert_eq!(&apply_patch(base, &patch).unwrap(), block);
    assert!(apply_patch(&[], &patch).is_err_and(|e| matches!(e, PatchError::Damaged { .. })));
    let claims = [0xff, 0xff, 0xff, 0xff, 0];
    assert!(matches!(unpack(&claims), Err(PatchError::TooLarge { .. })));
    assert!(matches!(unpack(&[0, 0, 0, 1, 0]), Err(PatchError::Damaged { .. })));
}

/// Any block for any address: what a store would be that verified nothing.
#[derive(Debug)]
struct Liar(Vec<(Address, Arc<Node>)>, Arc<MemoryBlocks>);

impl BlockSource for Liar {
    fn node(&self, address: &Address) -> Option<Arc<Node>> {
        let lie = self.0.iter().find(|(of, _)| of == address).map(|(_, node)| node.clone());
        lie.or_else(|| self.1.node(address))
    }
}

fn sample() -> &'static (Flushed, Arc<MemoryBlocks>) {
    static SAMPLE: OnceLock<(Flushed, Arc<MemoryBlocks>)> = OnceLock::new();
    SAMPLE.get_or_init(|| build(SMALL, &of_all_types()))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("INDEX_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400),
        ..ProptestConfig::default()
    })]

    #[test]
    fn damaged_blocks_give_errors_or_wrong_rows_but_no_panic(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::weighted(0.2, any::<prop::sample::Index>()),
        depth in 1_u8..5,
    ) {
        let (flushed, blocks) = sample();
        let (address, bytes) = &flushed.blocks[which.index(flushed.blocks.len())];
        let mut bytes = bytes.clone();
        for (at, byte) in changes {
            // Mostly where the structure is.
            let at = at.index(bytes.len().min(400));
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = children(&bytes);
        if let Ok(node) = Node::decode(&bytes) {
            if let Node::Leaf(leaf) = &node {
                for row in leaf.rows() {
                    let _ = row.to_datom();
                }
            }
            let node = Arc::new(node);
            let liar = Arc::new(Liar(vec![(*address, node)], blocks.clone()));
            let params = SMALL;
            let mut roots = flushed.roots;
            roots.current[1] = Some(Root { address: *address, depth, count: 3 });
            let indexes = Indexes::open(params, true, roots, liar.clone());
            let edited = indexes.apply(&[datom(7, 200, 5), datom(3, 310, 1)], &All);
            for index in Index::ALL {
                let range = Range::all(index);
                let _ = edited.current(&range).take(3_000).count();
                let _ = edited.history_rev(&range).take(3_000).count();
                let _ = edited.scan(&range).take(300).count();
                let _ = edited.estimate(&Range::eavt(5, None, None));
            }
            let _ = edited.flush();
            let _ = flushed.indexes.diff(&indexes);
            let _ = derive(params, &roots, &*liar, &All);
        }
    }
}

#[test]
fn roots_of_nothing_are_none() {
    let (flushed, _) = build(SMALL, &[]);
    assert_eq!(flushed.roots, Roots::default());
    assert!(flushed.blocks.is_empty());
}
