//! Where blocks end: decided by a keyed hash of what is in them, never by how it came there.
//!
//! A block never ends before half its target and seldom before 0.83 of it; from there on it ends soon.
//! One that reaches twice the target without an end is cut at its smallest hash: a position that
//! stays where it is when something is inserted before it, so that the blocks after it stay too.
//! Sizes are weights, in which long values count for more.

use datahike_value::{canonical_f32, canonical_f64};

use crate::index::codec::put_value;
use crate::index::key::{DatomRef, ValueRef};

/// A value adds its length in units of this to the weight of its datom.
const WEIGHT_UNIT: usize = 64;

/// The hash that chooses ends, with its keys. Part of the format.
#[derive(Clone, Debug)]
pub(crate) struct KeyHash {
    keys: [u64; 4],
    scratch: Vec<u8>,
}

impl KeyHash {
    pub(crate) fn new(seed: [u64; 2]) -> Self {
        let mut state = seed[0];
        let keys = std::array::from_fn(|_| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            fold(
                state ^ 0xbf58_476d_1ce4_e5b9,
                seed[1] ^ 0x94d0_49bb_1331_11eb ^ state.rotate_left(32),
            ) | 1
        });
        Self { keys, scratch: Vec::new() }
    }

    /// Hash and weight of a datom of a leaf. Where several datoms may have the same fact, the
    /// transaction counts too, or all of them would have the same hash.
    pub(crate) fn measure(&mut self, row: &DatomRef<'_>, with_tx: bool) -> (u64, u64) {
        let (value, len) = self.value(&row.v);
        let [k0, k1, k2, k3] = self.keys;
        let mut hash = fold(fold(row.e ^ k0, u64::from(row.a.0) ^ k1) ^ value, k2);
        if with_tx {
            hash = fold(hash ^ (row.tx << 1 | u64::from(row.added)), k3);
        }
        (hash, 1 + (len / WEIGHT_UNIT) as u64)
    }

    /// The same for the last key of a child of a branch of this level: a hash of its own, since the
    /// one of the level below is small there.
    pub(crate) fn measure_child(
        &mut self,
        row: &DatomRef<'_>,
        with_tx: bool,
        level: u8,
    ) -> (u64, u64) {
        let (hash, weight) = self.measure(row, with_tx);
        let salt = u64::from(level).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (fold(hash ^ salt, self.keys[1]), weight)
    }

    fn value(&mut self, v: &ValueRef<'_>) -> (u64, usize) {
        let word = |tag: u64, word: u64| fold(word ^ self.keys[2], tag ^ self.keys[3]);
        match v {
            ValueRef::Long(n) => (word(1, *n as u64), 0),
            ValueRef::Bool(b) => (word(2, u64::from(*b)), 0),
            ValueRef::Double(d) => (word(3, canonical_f64(*d).to_bits()), 0),
            ValueRef::Float(f) => (word(4, u64::from(canonical_f32(*f).to_bits())), 0),
            ValueRef::Inst(ms) => (word(5, *ms as u64), 0),
            ValueRef::Str(s) => (bytes_hash(&self.keys, 6, s.as_bytes()), s.len()),
            ValueRef::Other(v) => {
                self.scratch.clear();
                put_value(&mut self.scratch, v);
                (bytes_hash(&self.keys, 7, &self.scratch), self.scratch.len())
            }
        }
    }
}

/// The two halves of the product.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

fn bytes_hash(keys: &[u64; 4], tag: u64, bytes: &[u8]) -> u64 {
    let [k0, k1, k2, k3] = *keys;
    let mut hash = fold(tag ^ k0, bytes.len() as u64 ^ k1);
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    for word in words.iter().chain(std::iter::once(&last)) {
        hash = fold(hash ^ u64::from_le_bytes(*word) ^ k2, k3);
    }
    hash
}

/// Sizes and chances of one kind of block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    min: u64,
    /// From here on it ends soon.
    late: u64,
    max: u64,
    /// An item of this weight stands alone; never in branches, which must become fewer level by level.
    alone: u64,
    min_items: usize,
    /// A hash below this times the weight is an end.
    chance_early: u64,
    chance_late: u64,
}

impl Rule {
    pub(crate) fn leaf(target: u32) -> Self {
        let target = u64::from(target.clamp(4, 1 << 14));
        Self {
            min: target / 2,
            late: target * 53 / 64,
            max: target * 2,
            alone: target,
            min_items: 1,
            chance_early: u64::MAX / (target * 4),
            chance_late: u64::MAX / target.div_ceil(4),
        }
    }

    pub(crate) fn branch(target: u32) -> Self {
        Self { alone: u64::MAX, min_items: 2, ..Self::leaf(target) }
    }
}

/// Something that goes into a block: where it is, with hash and weight of its key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Item {
    pub(crate) source: u32,
    pub(crate) row: u32,
    pub(crate) hash: u64,
    pub(crate) weight: u64,
}

/// The items of one block, and whether its end depends on what comes after it.
#[derive(Clone, Debug)]
pub(crate) struct Chunk {
    pub(crate) items: Vec<Item>,
    pub(crate) open: bool,
}

/// How many blocks before a changed one may end elsewhere because of the change, if they are open:
/// the end of a block depends on at most 1.5 targets after it, and blocks hold half a target or more.
pub(crate) const LOOK_BACK: usize = 4;

/// Cuts a sequence of items into blocks.
#[derive(Debug)]
pub(crate) struct Chunker {
    rule: Rule,
    items: Vec<Item>,
    weight: u64,
    /// Where to cut if there is no end before the maximum: hash and length.
    best: Option<(u64, usize)>,
    ready: Vec<Chunk>,
}

impl Chunker {
    pub(crate) fn new(rule: Rule) -> Self {
        Self { rule, items: Vec::new(), weight: 0, best: None, ready: Vec::new() }
    }

    /// Whether what came so far ends with a block, whatever comes next.
    pub(crate) fn is_even(&self) -> bool {
        self.items.is_empty()
    }

    /// Takes the next item.
    pub(crate) fn push(&mut self, item: Item) {
        if item.weight >= self.rule.alone {
            self.cut_all();
            self.ready.push(Chunk { items: vec![item], open: false });
            return;
        }
        // A cut before the end leaves items of which the next block is made in the same way.
        let mut left = self.take_in(item);
        while let Some(item) = left.pop() {
            let rest = self.take_in(item);
            left.extend(rest);
        }
    }

    /// Takes one item in; what a cut before it left over, last first.
    fn take_in(&mut self, item: Item) -> Vec<Item> {
        self.weight = self.weight.saturating_add(item.weight);
        self.items.push(item);
        if self.weight > self.rule.max
            && let Some((_, len)) = self.best
        {
            let mut rest = self.items.split_off(len);
            rest.reverse();
            self.cut(true);
            return rest;
        }
        if self.weight < self.rule.min || self.items.len() < self.rule.min_items {
            return Vec::new();
        }
        let late = self.weight >= self.rule.late;
        let chance = if late { self.rule.chance_late } else { self.rule.chance_early };
        if item.hash < chance.saturating_mul(item.weight) {
            self.cut(false);
        } else if self.best.is_none_or(|(hash, _)| item.hash < hash) {
            self.best = Some((item.hash, self.items.len()));
        }
        Vec::new()
    }

    /// Nothing comes any more.
    pub(crate) fn finish(&mut self) {
        self.cut_all();
    }

    /// The blocks that are complete.
    pub(crate) fn take_ready(&mut self) -> Vec<Chunk> {
        std::mem::take(&mut self.ready)
    }

    fn cut_all(&mut self) {
        if !self.items.is_empty() {
            self.cut(true);
        }
    }

    fn cut(&mut self, open: bool) {
        self.ready.push(Chunk { items: std::mem::take(&mut self.items), open });
        self.weight = 0;
        self.best = None;
    }
}

#[cfg(test)]
mod tests {
    use datahike_value::Value;

    use super::*;
    use crate::datom::AttrId;

    /// Frozen: another hash would give every database other blocks.
    #[test]
    fn hash_is_part_of_the_format() {
        let mut hash = KeyHash::new([0x0123_4567_89ab_cdef, 42]);
        let values = [
            Value::Long(-7),
            Value::Bool(true),
            Value::Double(1.5),
            Value::Float(1.5),
            Value::Inst(1_700_000_000_000),
            Value::from(""),
            Value::from("eight by"),
            Value::from("Sant Julià de Lòria, a name of more than one word and weight two"),
            Value::keyword("person/name"),
            Value::Nil,
        ];
        let measured: Vec<String> = values
            .iter()
            .map(|v| {
                let row =
                    DatomRef { e: 17, a: AttrId(3), v: v.into(), tx: 536_870_913, added: true };
                let (plain, weight) = hash.measure(&row, false);
                let (with_tx, _) = hash.measure(&row, true);
                let (child, _) = hash.measure_child(&row, false, 1);
                format!("{plain:016x} {with_tx:016x} {child:016x} {weight}")
            })
            .collect();
        assert_eq!(measured, VECTORS);
    }

    const VECTORS: [&str; 10] = [
        "9a530c188f5a9973 c45f8735f8bc1a27 4992b119b053b208 1",
        "4a4f9aa36a738433 215d0284f6395dc6 ce8051941f8b569d 1",
        "8f5f6a7daf4761f8 9a964a2f387e6214 c7a277fc515313b8 1",
        "97db578905eb34c0 8450d11828ec8082 83c34c3341903e8b 1",
        "1688a34700a76f0b b8b38ee24a5b17c2 aaf8a397c38af2c6 1",
        "6f2c3e00f2638de9 155e90b7d59a77c6 7ffbfdbeab374a5f 1",
        "0d9e0d66b36aae02 d55126e678ecc394 1203c8c3eb917a17 1",
        "f04048c94cbeb8f5 0789d04a466f3e1a 4547ca28aa003546 2",
        "5abaebef1930ed3a 24c7e6277ffc9516 80c4d72e8ea7b0db 1",
        "2e62b6f920f7272e 30d3f8bad97d852f 3ebd9a3e4d8e2ffe 1",
    ];

    fn chunks(rule: Rule, hashes: impl IntoIterator<Item = u64>) -> Vec<usize> {
        let mut chunker = Chunker::new(rule);
        let mut lens = Vec::new();
        for hash in hashes {
            chunker.push(Item { source: 0, row: 0, hash, weight: 1 });
            lens.extend(chunker.take_ready().iter().map(|chunk| chunk.items.len()));
        }
        chunker.finish();
        lens.extend(chunker.take_ready().iter().map(|chunk| chunk.items.len()));
        lens
    }

    fn random(seed: u64) -> impl Iterator<Item = u64> {
        const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
        (0_u64..).map(move |n| fold(fold(n ^ ODD, seed ^ ODD.rotate_left(17)) ^ seed, ODD))
    }

    #[test]
    fn sizes_stay_within_bounds_around_the_target() {
        let lens = chunks(Rule::leaf(512), random(3).take(400_000));
        let (last, full) = lens.split_last().unwrap();
        assert!(full.iter().all(|len| (256..=1024).contains(len)) && *last <= 1024);
        let mean = 400_000 / lens.len();
        assert!((490..580).contains(&mean), "mean {mean}");
    }

    /// Keys chosen so that none is an end: blocks stay bounded, and one more key changes few of them.
    #[test]
    fn keys_without_ends_are_cut_where_they_were_before() {
        let ground: Vec<u64> = random(5).map(|hash| hash | 1 << 63).take(100_000).collect();
        let lens = chunks(Rule::leaf(512), ground.iter().copied());
        assert!(lens.iter().all(|len| *len <= 1024), "{lens:?}");
        let ends = |hashes: &[u64]| -> Vec<usize> {
            let lens = chunks(Rule::leaf(512), hashes.iter().copied());
            lens.iter()
                .scan(0, |end, len| {
                    *end += len;
                    Some(*end)
                })
                .collect()
        };
        let before = ends(&ground);
        let mut most = 0;
        for at in (0..50_000).step_by(997) {
            let mut more = ground.clone();
            more.insert(at, u64::MAX / 2 + 12_345 + at as u64);
            let after = ends(&more);
            let same = before
                .iter()
                .filter(|end| after.contains(&(*end + usize::from(**end > at))))
                .count();
            most = most.max(before.len() - same);
        }
        assert!(most <= 8, "one key moved the ends of {most} blocks of {}", before.len());
    }

    #[test]
    fn an_item_as_heavy_as_a_block_stands_alone() {
        let mut chunker = Chunker::new(Rule::leaf(512));
        let item = |weight| Item { source: 0, row: 0, hash: u64::MAX, weight };
        for weight in [1, 1, 512, 511, 9_000, 1] {
            chunker.push(item(weight));
        }
        chunker.finish();
        let lens: Vec<(usize, bool)> =
            chunker.take_ready().iter().map(|chunk| (chunk.items.len(), chunk.open)).collect();
        assert_eq!(lens, [(2, true), (1, false), (1, true), (1, false), (1, true)]);
    }
}
