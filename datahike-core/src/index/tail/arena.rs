//! An append-only sequence of datoms that snapshots share. Each snapshot sees as many as it had when
//! it was made; whoever appends first continues the shared sequence, anybody else branches off.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};

use datahike_value::Value;

use crate::datom::{AttrId, Datom};
use crate::index::key::DatomRef;

/// A datom of the tail and whether the past that it ends (and itself, if it is a retraction) is to
/// be remembered: how `:db/noHistory` stood when it was transacted.
#[derive(Clone, Debug)]
pub(crate) struct TailDatom {
    pub(crate) datom: Datom,
    pub(crate) keep: bool,
    /// Known already, and here only because its attribute has become indexed.
    pub(crate) repeated: bool,
}

/// The sequence as one snapshot sees it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arena {
    chunks: Arc<Vec<Arc<Chunk>>>,
    len: u32,
    /// How far the line of snapshots that shares these chunks has come. Whoever is not at its end
    /// cannot append to it.
    line: Arc<AtomicU32>,
}

type Chunk = [OnceLock<TailDatom>];

/// Chunks hold 32, 32, 64, 128, 256 and from then on 512 datoms.
const FIRST: u32 = 32;
const FULL: u32 = 512;

/// What an id that was never given out would name. Ids exist only after their slot was filled.
static NOTHING: TailDatom = TailDatom {
    datom: Datom { e: 0, a: AttrId(0), v: Value::Nil, tx: 0, added: false },
    keep: false,
    repeated: false,
};

impl Arena {
    /// How many datoms this snapshot sees; ids are below it.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Whether both belong to one line of snapshots, in which each continues the one before.
    pub(crate) fn same_line(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.line, &other.line)
    }

    /// Appends; the id is the length before.
    pub(crate) fn push(&mut self, datom: TailDatom) {
        let (chunk, slot, capacity) = locate(self.len);
        let next = self.len + 1;
        let claimed =
            self.line.compare_exchange(self.len, next, Ordering::AcqRel, Ordering::Acquire);
        if claimed.is_err() {
            self.line = Arc::new(AtomicU32::new(next));
            if slot > 0 {
                let own: Arc<Chunk> = (0..capacity)
                    .map(|i| match self.chunks[chunk].get(i).filter(|_| i < slot) {
                        Some(filled) => filled.clone(),
                        None => OnceLock::new(),
                    })
                    .collect();
                Arc::make_mut(&mut self.chunks)[chunk] = own;
            }
        }
        if slot == 0 {
            Arc::make_mut(&mut self.chunks).push((0..capacity).map(|_| OnceLock::new()).collect());
        }
        // Nobody else fills this slot: its number was claimed, or the chunk is not shared.
        let _ = self.chunks[chunk][slot].set(datom);
        self.len = next;
    }

    /// The datom with this id.
    pub(crate) fn get(&self, id: u32) -> &TailDatom {
        let (chunk, slot, _) = locate(id);
        self.chunks
            .get(chunk)
            .and_then(|chunk| chunk.get(slot))
            .and_then(OnceLock::get)
            .unwrap_or(&NOTHING)
    }

    /// The row of the datom with this id.
    pub(crate) fn row(&self, id: u32) -> DatomRef<'_> {
        (&self.get(id).datom).into()
    }

    /// Everything, in the order in which it was appended.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &TailDatom> {
        (0..self.len).map(|id| self.get(id))
    }
}

/// Chunk, slot in it, and its capacity.
fn locate(id: u32) -> (usize, usize, usize) {
    let (chunk, start, capacity) = if id < FIRST {
        (0, 0, FIRST)
    } else if id < FULL {
        let power = id.ilog2();
        (power - FIRST.ilog2() + 1, 1 << power, 1 << power)
    } else {
        (FULL.ilog2() - FIRST.ilog2() + id / FULL, id / FULL * FULL, FULL)
    };
    (chunk as usize, (id - start) as usize, capacity as usize)
}
