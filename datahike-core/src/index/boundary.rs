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
            fold(state ^ 0xbf58_476d_1ce4_e5b9, seed[1] ^ 0x94d0_49bb_1331_11eb ^ state.rotate_left(32))
                | 1
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
        let mut again = vec![item];
        // A cut in the middle leaves items of which the next block is made in the same way.
        while let Some(item) = again.pop() {
            self.weight = self.weight.saturating_add(item.weight);
            self.items.push(item);
            if self.weight > self.rule.max
                && let Some((_, len)) = self.best
            {
                let mut rest = self.items.split_off(len);
                rest.reverse();
                again.extend(rest);
                self.cut(true);
                continue;
            }
            if self.weight < self.rule.min || self.items.len() < self.rule.min_items {
                continue;
            }
            let late = self.weight >= self.rule.late;
            let chance = if late { self.rule.chance_late } else { self.rule.chance_early };
            if item.hash < chance.saturating_mul(item.weight) {
                self.cut(false);
            } else if self.best.is_none_or(|(hash, _)| item.hash < hash) {
                self.best = Some((item.hash, self.items.len()));
            }
        }
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
