//! A database of numbers for tests and simulations: everything that synchronisation needs to know
//! of one, and nothing else.
//!
//! A state maps keys to values. A commit sets some of them; its log entry names the commit before
//! it. At a flush the state is written out as leaves (one for each run of keys), a branch that
//! lists them, an inverted index that a mirror can derive, and a flush record.

mod replica;
mod source;

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

pub use self::{
    replica::{ModelReplica, Seen},
    source::{Backup, ModelSource},
};
use crate::{Address, CommitId, FlushPoint, Point, Shape};

/// Keys of one leaf.
const LEAF_KEYS: u32 = 16;

/// What a database holds.
pub type Contents = BTreeMap<u32, u32>;

/// Hash of bytes.
pub fn address(bytes: &[u8]) -> Address {
    Address(*blake3::hash(bytes).as_bytes())
}

/// The commit that `entry` makes after `parent`.
pub fn commit_id(parent: &CommitId, entry: &[u8]) -> CommitId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&parent.0).update(entry);
    CommitId(*hasher.finalize().as_bytes())
}

/// The empty database.
pub fn origin() -> Point {
    Point { seq: 0, commit: CommitId(*blake3::hash(b"origin").as_bytes()) }
}

/// A digest of what a database holds.
pub fn digest(contents: &Contents) -> [u8; 32] {
    let mut bytes = BytesMut::new();
    put_pairs(&mut bytes, contents.iter());
    address(&bytes).0
}

/// A log entry that sets these keys, padded by `padding` bytes.
pub fn entry(parent: &CommitId, changes: &[(u32, u32)], padding: usize) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_slice(&parent.0[..4]);
    bytes.put_u32(changes.len() as u32);
    put_pairs(&mut bytes, changes.iter().map(|(key, value)| (key, value)));
    let start = bytes.len();
    bytes.resize(start + padding, 0);
    // Nothing that could be compressed.
    blake3::Hasher::new().update(&parent.0).finalize_xof().fill(&mut bytes[start..]);
    bytes.freeze()
}

/// Whether an entry says that it follows this commit.
pub(crate) fn follows(parent: &CommitId, entry: &[u8]) -> bool {
    entry.get(..4) == Some(&parent.0[..4])
}

/// What an entry sets.
pub(crate) fn changes(entry: &[u8]) -> Option<Vec<(u32, u32)>> {
    let count: [u8; 4] = entry.get(4..8)?.try_into().ok()?;
    let count = usize::try_from(u32::from_be_bytes(count)).ok()?;
    pairs(entry.get(8..)?.get(..count.checked_mul(8)?)?)
}

fn put_pairs<'a>(bytes: &mut BytesMut, pairs: impl Iterator<Item = (&'a u32, &'a u32)>) {
    for (key, value) in pairs {
        bytes.put_u32(*key);
        bytes.put_u32(*value);
    }
}

fn pairs(bytes: &[u8]) -> Option<Vec<(u32, u32)>> {
    let number = |bytes: &[u8]| Some(u32::from_be_bytes(bytes.try_into().ok()?));
    let pair = |bytes: &[u8]| Some((number(bytes.get(..4)?)?, number(bytes.get(4..8)?)?));
    bytes.chunks(8).map(pair).collect()
}

/// A state written out.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub(crate) record: Address,
    pub(crate) blocks: BTreeMap<Address, Bytes>,
}

/// Writes a state out as of a commit.
pub(crate) fn write(contents: &Contents, at: &Point, shape: &Shape) -> Written {
    let mut blocks = BTreeMap::new();
    let mut leaves: Vec<(u32, Address)> = Vec::new();
    let mut keys = contents.iter().peekable();
    while let Some(bucket) = keys.peek().map(|(key, _)| **key / LEAF_KEYS) {
        let mut leaf = BytesMut::new();
        leaf.put_u8(b'L');
        leaf.put_slice(&shape.0);
        while let Some((key, value)) = keys.next_if(|(key, _)| **key / LEAF_KEYS == bucket) {
            leaf.put_u32(*key);
            leaf.put_u32(*value);
            // Something that compresses less well than counting.
            leaf.put_slice(blake3::hash(&value.to_be_bytes()).as_bytes());
        }
        let leaf = leaf.freeze();
        leaves.push((bucket, address(&leaf)));
        blocks.insert(address(&leaf), leaf);
    }
    let mut branch = BytesMut::new();
    branch.put_u8(b'B');
    for (bucket, leaf) in &leaves {
        branch.put_u32(*bucket);
        branch.put_slice(&leaf.0);
    }
    let mut inverted: Vec<(u32, u32)> =
        contents.iter().map(|(key, value)| (*value, *key)).collect();
    inverted.sort_unstable();
    let mut index = BytesMut::new();
    index.put_u8(b'I');
    put_pairs(&mut index, inverted.iter().map(|(value, key)| (value, key)));
    let (branch, index) = (branch.freeze(), index.freeze());
    let mut record = BytesMut::new();
    record.put_u8(b'R');
    record.put_u64(at.seq);
    record.put_slice(&at.commit.0);
    record.put_slice(&address(&branch).0);
    record.put_slice(&address(&index).0);
    let record = record.freeze();
    let found = address(&record);
    blocks.extend([branch, index, record].map(|block| (address(&block), block)));
    Written { record: found, blocks }
}

/// Addresses in a flush record: branch, inverted index.
pub(crate) fn read_record(record: &[u8]) -> Option<(Address, Address)> {
    let at = |from: usize| Some(Address(record.get(from..from + 32)?.try_into().ok()?));
    (record.first() == Some(&b'R')).then_some(())?;
    Some((at(41)?, at(73)?))
}

/// Leaves that a branch lists.
pub(crate) fn read_branch(branch: &[u8]) -> Option<Vec<Address>> {
    let (tag, rest) = branch.split_first()?;
    (*tag == b'B').then_some(())?;
    let leaf = |bytes: &[u8]| Some(Address(bytes.get(4..36)?.try_into().ok()?));
    rest.chunks(36).map(leaf).collect()
}

/// What a leaf holds.
pub(crate) fn read_leaf(leaf: &[u8], shape: &Shape) -> Option<Vec<(u32, u32)>> {
    (leaf.first() == Some(&b'L')).then_some(())?;
    let rest = leaf.get(1 + shape.0.len()..)?;
    rest.chunks(40).map(|bytes| pairs(bytes.get(..8)?)?.pop()).collect()
}

/// The flush of a state.
pub(crate) fn flush_point(at: Point, written: &Written) -> FlushPoint {
    FlushPoint { at, address: written.record }
}
