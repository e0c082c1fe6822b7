//! Blocks that were asked for by address.

use std::collections::{HashSet, VecDeque};

use bytes::Bytes;

use crate::{
    SyncError,
    limits::{FETCH_ADDRESSES_MAX, FETCHES_MAX},
    message::Block,
    point::Address,
};

/// Wishes of queries that may wait for a subscription.
const WISHES_MAX: usize = 256;

/// Who wants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// The snapshot that is being completed.
    Snapshot,
    /// A query.
    Token(u64),
}

/// Fetches that wait to be sent or answered.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    waiting: VecDeque<(Vec<Address>, Purpose)>,
    open: Vec<Open>,
    last_request: u32,
}

#[derive(Debug)]
struct Open {
    request: u32,
    purpose: Purpose,
    wanted: HashSet<Address>,
    blocks: Vec<(Address, Bytes)>,
}

/// An answer that is complete.
pub(super) struct Answered {
    pub(super) purpose: Purpose,
    pub(super) blocks: Vec<(Address, Bytes)>,
}

impl Fetches {
    /// Queues a wish; whether there is room for it.
    pub(super) fn want(&mut self, addresses: Vec<Address>, purpose: Purpose) -> bool {
        let tokens = |purpose: &Purpose| matches!(purpose, Purpose::Token(_));
        let queued = self.waiting.iter().filter(|(_, purpose)| tokens(purpose)).count();
        if tokens(&purpose) && (queued >= WISHES_MAX || addresses.len() > FETCH_ADDRESSES_MAX) {
            return false;
        }
        if purpose == Purpose::Snapshot {
            let pieces = addresses.chunks(FETCH_ADDRESSES_MAX);
            self.waiting.extend(pieces.map(|piece| (piece.to_vec(), purpose)));
        } else {
            // A query waits for it, a snapshot has time.
            self.waiting.push_front((addresses, purpose));
        }
        true
    }

    /// The next fetch to be sent, if another may be unanswered.
    pub(super) fn next(&mut self) -> Option<(u32, Vec<Address>)> {
        if self.open.len() >= FETCHES_MAX {
            return None;
        }
        let (addresses, purpose) = self.waiting.pop_front()?;
        self.last_request = self.last_request.checked_add(1).unwrap_or(1);
        let request = self.last_request;
        let wanted = addresses.iter().copied().collect();
        self.open.push(Open { request, purpose, wanted, blocks: Vec::new() });
        Some((request, addresses))
    }

    /// Whether an answer is due.
    pub(super) fn is_waiting(&self) -> bool {
        !self.open.is_empty()
    }

    /// Whether anything that a snapshot needs is still to come.
    pub(super) fn snapshot_waits(&self) -> bool {
        let snapshot = |purpose: Purpose| purpose == Purpose::Snapshot;
        self.open.iter().any(|open| snapshot(open.purpose))
            || self.waiting.iter().any(|(_, purpose)| snapshot(*purpose))
    }

    /// Whether a fetch serves the snapshot that is being completed.
    pub(super) fn is_for_snapshot(&self, request: u32) -> bool {
        let mut open = self.open.iter();
        open.any(|open| open.request == request && open.purpose == Purpose::Snapshot)
    }

    /// Holds an answer against what was asked for.
    pub(super) fn check(
        &mut self,
        request: u32,
        blocks: &[Block],
        last: bool,
    ) -> Result<(), SyncError> {
        let open = self.open.iter_mut().find(|open| open.request == request);
        let open = open.ok_or(SyncError::TooMuch("answers"))?;
        if blocks.iter().any(|block| !open.wanted.remove(&block.address)) {
            return Err(SyncError::TooMuch("blocks"));
        }
        if blocks.is_empty() && !last {
            return Err(SyncError::TooMuch("empty answers"));
        }
        Ok(())
    }

    /// Takes blocks that are stored; gives the answer if it is complete.
    pub(super) fn stored(
        &mut self,
        request: u32,
        last: bool,
        blocks: Vec<(Address, Bytes)>,
    ) -> Option<Answered> {
        let place = self.open.iter().position(|open| open.request == request)?;
        if matches!(self.open[place].purpose, Purpose::Token(_)) {
            self.open[place].blocks.extend(blocks);
        }
        if !last {
            return None;
        }
        let open = self.open.swap_remove(place);
        Some(Answered { purpose: open.purpose, blocks: open.blocks })
    }

    /// Forgets everything; gives the wishes of queries that will not be answered.
    pub(super) fn clear(&mut self) -> Vec<u64> {
        let open = self.open.drain(..).map(|open| open.purpose);
        let waiting = self.waiting.drain(..).map(|(_, purpose)| purpose);
        let token = |purpose| match purpose {
            Purpose::Token(token) => Some(token),
            Purpose::Snapshot => None,
        };
        open.chain(waiting).filter_map(token).collect()
    }
}
