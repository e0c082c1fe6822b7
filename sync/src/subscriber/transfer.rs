//! How a snapshot comes in: seeds that are pushed or listed, changed blocks, and what is fetched
//! until the snapshot is complete.

use super::{Doing, Effects, MirrorEvent, Progress, Subscriber, SubscriberEffect, fetch::Purpose};
use crate::{
    SyncError,
    limits::SNAPSHOT_FETCHES_MAX,
    message::{Block, Body, Request, Snapshot, Supply},
    point::{Address, FlushPoint},
    replica::{Outcome, Stored, Task},
    subscriber::out_of_turn,
};

/// A snapshot on its way. While there is one, no commits can be applied, except that those before
/// changed blocks were.
#[derive(Debug)]
pub(super) enum Transfer {
    /// The plan says that one will come.
    Announced,
    /// Its seeds are coming.
    Seeds { snapshot: Snapshot, progress: Progress, listed: u64 },
    /// Its blocks, or the changes up to it, are there except for what is fetched.
    Completing { flush: FlushPoint, progress: Progress, fetched: u64, missing: Vec<Address> },
}

impl Subscriber {
    pub(super) fn begin_snapshot(
        &mut self,
        snapshot: Snapshot,
        effects: &mut Effects,
    ) -> Result<(), SyncError> {
        let Some((identity, shape)) = self.server.clone() else {
            return Err(out_of_turn("snapshot", "a plan"));
        };
        if !matches!(self.transfer, None | Some(Transfer::Announced)) {
            return Err(out_of_turn("snapshot", "the rest of another"));
        }
        if self.have.head.is_some_and(|head| head.at.seq >= snapshot.flush.at.seq) {
            return Err(out_of_turn("snapshot", "one beyond what the mirror has"));
        }
        let blocks = match snapshot.supply {
            Supply::Push { from } if from <= snapshot.seeds => from,
            Supply::Push { .. } => return Err(SyncError::TooMuch("seeds")),
            Supply::List | Supply::Fetch => 0,
        };
        let progress = Progress {
            blocks,
            blocks_total: snapshot.seeds,
            bytes: 0,
            bytes_total: snapshot.bytes,
        };
        self.transfer = Some(Transfer::Seeds { snapshot, progress, listed: 0 });
        self.run(Doing::Begin, Task::Begin(identity, shape, snapshot.flush), effects);
        Ok(())
    }

    /// Blocks that came unasked: seeds, or what a flush changed.
    pub(super) fn pushed(
        &mut self,
        last: bool,
        blocks: Vec<Block>,
        effects: &mut Effects,
    ) -> Result<(), SyncError> {
        let count = blocks.len() as u64;
        let seeds = match &mut self.transfer {
            Some(Transfer::Seeds { snapshot, progress, .. })
                if matches!(snapshot.supply, Supply::Push { .. }) =>
            {
                progress.blocks += count;
                if progress.blocks > progress.blocks_total {
                    return Err(SyncError::TooMuch("seeds"));
                }
                // Those that are absent end the transfer: the snapshot is being swept.
                absent(&blocks)?;
                Some(progress.blocks)
            }
            None if self.have.head.is_some() => {
                self.changed += count;
                if self.changed > SNAPSHOT_FETCHES_MAX {
                    return Err(SyncError::TooMuch("changed blocks"));
                }
                None
            }
            _ => return Err(out_of_turn("blocks", "something else")),
        };
        self.run(Doing::Put(last && seeds.is_some()), Task::Put(blocks, seeds), effects);
        Ok(())
    }

    /// Seeds by address.
    pub(super) fn seeds(
        &mut self,
        last: bool,
        addresses: Vec<Address>,
        effects: &mut Effects,
    ) -> Result<(), SyncError> {
        let Some(Transfer::Seeds { snapshot, listed, .. }) = &mut self.transfer else {
            return Err(out_of_turn("list of seeds", "something else"));
        };
        *listed += addresses.len() as u64;
        if snapshot.supply != Supply::List || *listed > snapshot.seeds {
            return Err(SyncError::TooMuch("seeds"));
        }
        self.run(Doing::Lacks(last), Task::Lacks(addresses), effects);
        Ok(())
    }

    /// The blocks that a flush changed are there: the rest is to be made or fetched.
    pub(super) fn complete_changes(&mut self, flush: FlushPoint, effects: &mut Effects) {
        self.changed = 0;
        self.complete(flush, Progress::default(), effects);
    }

    pub(super) fn ask_changes(
        &mut self,
        to: FlushPoint,
        effects: &mut Effects,
    ) -> Result<(), SyncError> {
        let head = self.have.head.ok_or_else(|| out_of_turn("flush", "a snapshot"))?;
        effects.push(SubscriberEffect::Report(MirrorEvent::FoldDiffers(to)));
        if let Some(topic) = self.topic {
            let base = head.flush.address;
            self.send(&Request::Changes { topic, base, to }, effects);
        }
        Ok(())
    }

    fn complete(&mut self, flush: FlushPoint, progress: Progress, effects: &mut Effects) {
        self.transfer =
            Some(Transfer::Completing { flush, progress, fetched: 0, missing: Vec::new() });
        self.run(Doing::Complete(flush), Task::Complete(flush), effects);
    }

    /// Takes what came of a task that belongs to a transfer.
    pub(super) fn transferred(
        &mut self,
        doing: Doing,
        outcome: Outcome,
        effects: &mut Effects,
    ) -> Result<(), SyncError> {
        match (doing, outcome) {
            (Doing::Begin, Outcome::Begun) => self.begun(effects),
            (Doing::Put(last), Outcome::Stored(stored)) => {
                self.note(&stored, effects);
                if last && let Some(Transfer::Seeds { snapshot, progress, .. }) = &self.transfer {
                    self.complete(snapshot.flush, *progress, effects);
                }
            }
            (Doing::Lacks(last), Outcome::Lacking(addresses)) => {
                self.lacking(last, addresses, effects);
            }
            (Doing::Answer(request, last), Outcome::Stored(stored)) => {
                self.answered(request, last, stored, effects)?;
            }
            (Doing::Complete(_), Outcome::Missing(addresses)) => self.missing(addresses)?,
            (Doing::Complete(flush), Outcome::Adopted(head)) => {
                let from = self.have.head.map(|head| head.at.seq);
                self.have.head = Some(head);
                self.have.partial = None;
                if let Some((identity, shape)) = &self.server {
                    self.have.identity = Some(*identity);
                    self.have.shape = Some(shape.clone());
                }
                self.transfer = None;
                self.rebasing = None;
                self.attempts = 0;
                self.ready(flush, effects);
                effects.push(SubscriberEffect::Report(MirrorEvent::Adopted(head)));
                if let Some(from) = from.filter(|from| *from < flush.at.seq) {
                    let gap = MirrorEvent::Gap { from, to: flush.at.seq };
                    effects.push(SubscriberEffect::Report(gap));
                }
                self.report_synced(effects);
            }
            (doing, _) => return Err(out_of_turn("outcome", &format!("that of {doing:?}"))),
        }
        Ok(())
    }

    fn begun(&mut self, effects: &mut Effects) {
        let Some(Transfer::Seeds { snapshot, progress, .. }) = &self.transfer else { return };
        let (snapshot, progress) = (*snapshot, *progress);
        effects.push(SubscriberEffect::Report(MirrorEvent::Progress(progress)));
        let comes = match snapshot.supply {
            Supply::Push { from } => from < snapshot.seeds,
            Supply::List => true,
            Supply::Fetch => false,
        };
        if !comes {
            self.complete(snapshot.flush, progress, effects);
        }
    }

    /// Seeds that the replica does not have are fetched.
    fn lacking(&mut self, last: bool, addresses: Vec<Address>, effects: &mut Effects) {
        let Some(Transfer::Seeds { snapshot, progress, listed }) = &mut self.transfer else {
            return;
        };
        let (flush, mut progress) = (snapshot.flush, {
            progress.blocks = *listed - (addresses.len() as u64).min(*listed);
            *progress
        });
        self.fetches.want(addresses, Purpose::Snapshot);
        if !last {
            return;
        }
        if self.fetches.snapshot_waits() {
            progress.bytes = 0;
            let missing = Vec::new();
            self.transfer = Some(Transfer::Completing { flush, progress, fetched: 0, missing });
        } else {
            self.complete(flush, progress, effects);
        }
    }

    fn missing(&mut self, addresses: Vec<Address>) -> Result<(), SyncError> {
        let Some(Transfer::Completing { fetched, missing, .. }) = &mut self.transfer else {
            return Err(out_of_turn("missing blocks", "something else"));
        };
        // Every one of these was asked for and stored after the last round, or the transfer would
        // have ended: if any is named again the replica will never have enough.
        let Some(first) = addresses.first() else {
            return Err(out_of_turn("missing blocks", "at least one"));
        };
        if missing.contains(first) {
            return Err(SyncError::Incomplete { address: *first });
        }
        *fetched += addresses.len() as u64;
        if *fetched > SNAPSHOT_FETCHES_MAX {
            return Err(SyncError::TooMuch("blocks of one snapshot"));
        }
        missing.clone_from(&addresses);
        self.fetches.want(addresses, Purpose::Snapshot);
        Ok(())
    }

    fn answered(
        &mut self,
        request: u32,
        last: bool,
        stored: Stored,
        effects: &mut Effects,
    ) -> Result<(), SyncError> {
        self.note(&stored, effects);
        let (gone, blocks) = (stored.absent, stored.blocks);
        let snapshot = self.fetches.is_for_snapshot(request);
        if snapshot && let Some((address, others)) = gone.split_first() {
            return Err(SyncError::Unavailable { address: *address, more: others.len() });
        }
        let Some(answer) = self.fetches.stored(request, last, blocks) else { return Ok(()) };
        match answer.purpose {
            Purpose::Token(token) => {
                effects.push(SubscriberEffect::Fetched { token, blocks: Ok(answer.blocks) });
            }
            Purpose::Snapshot if !self.fetches.snapshot_waits() => {
                if let Some(Transfer::Completing { flush, .. }) = &self.transfer {
                    let flush = *flush;
                    self.run(Doing::Complete(flush), Task::Complete(flush), effects);
                }
            }
            Purpose::Snapshot => {}
        }
        Ok(())
    }

    /// Counts what came and says so.
    fn note(&mut self, stored: &Stored, effects: &mut Effects) {
        let bytes: u64 = stored.blocks.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        let progress = match &mut self.transfer {
            Some(Transfer::Seeds { progress, .. }) => progress,
            Some(Transfer::Completing { progress, .. }) => {
                let more = stored.blocks.len() as u64;
                progress.blocks = (progress.blocks + more).min(progress.blocks_total);
                progress
            }
            _ => return,
        };
        progress.bytes += bytes;
        effects.push(SubscriberEffect::Report(MirrorEvent::Progress(*progress)));
    }
}

fn absent(blocks: &[Block]) -> Result<(), SyncError> {
    let mut gone = blocks.iter().filter(|block| block.body == Body::Absent);
    match gone.next() {
        Some(block) => Err(SyncError::Unavailable { address: block.address, more: gone.count() }),
        None => Ok(()),
    }
}
