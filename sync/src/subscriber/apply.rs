//! What a subscriber does with each message, and with what came of each task.

use std::time::Duration;

use bytes::Bytes;

use super::{Doing, Effects, MirrorEvent, Phase, Subscriber, SubscriberEffect, out_of_turn};
use crate::{
    SyncError,
    limits::ENTRIES_PER_MESSAGE_MAX,
    message::Update,
    point::{FlushPoint, Have, Point},
    replica::{Fold, Outcome, Task},
};

impl Subscriber {
    pub(super) fn at(&self) -> Result<Point, SyncError> {
        let head = self.have.head.filter(|_| self.transfer.is_none());
        head.map(|head| head.at).ok_or_else(|| out_of_turn("commit", "a snapshot"))
    }

    pub(super) fn handle(
        &mut self,
        now: Duration,
        update: Update,
        effects: &mut Effects,
    ) -> Result<(), SyncError> {
        match update {
            Update::Commit { seq, entry, .. } => {
                self.expect("commit", seq)?;
                let entries = self.gather(seq, entry);
                self.target = self.target.max(seq + entries.len() as u64 - 1);
                self.run(Doing::Apply, Task::Append(seq, entries), effects);
            }
            Update::Entries { first, entries, .. } => {
                self.expect("entries", first)?;
                if !entries.is_empty() {
                    self.run(Doing::Apply, Task::Append(first, entries), effects);
                }
            }
            Update::Batch { from, to, bytes, .. } => {
                self.expect("batch", from.saturating_add(1))?;
                if to.seq <= from {
                    return Err(out_of_turn("batch", "one that leads on"));
                }
                self.run(Doing::Batch, Task::Batch(to, bytes), effects);
            }
            Update::Difference { to, bytes, .. } => {
                if to.at.seq <= self.at()?.seq {
                    return Err(out_of_turn("difference", "one that leads on"));
                }
                self.run(Doing::Difference(to), Task::Difference(to, bytes), effects);
            }
            Update::Flush { flush, sent: false, .. } => {
                self.expect_flush(&flush)?;
                if self.have.head.is_some_and(|head| head.flush.address != flush.address) {
                    self.run(Doing::Fold(flush), Task::Fold(flush), effects);
                }
            }
            Update::Flush { flush, sent: true, .. } => {
                self.expect_flush(&flush)?;
                self.complete_changes(flush, effects);
            }
            Update::Snapshot { snapshot, .. } => self.begin_snapshot(snapshot, effects)?,
            Update::Seeds { last, addresses, .. } => self.seeds(last, addresses, effects)?,
            Update::Blocks { request: 0, last, blocks, .. } => {
                self.pushed(last, blocks, effects)?;
            }
            Update::Blocks { request, last, blocks, .. } => {
                self.fetches.check(request, &blocks, last)?;
                self.run(Doing::Answer(request, last), Task::Put(blocks, None), effects);
            }
            Update::Closed { cause, text, .. } => self.ended(now, cause, text, effects)?,
            Update::Plan { .. } | Update::Refused { .. } => {
                return Err(out_of_turn("plan", "an update"));
            }
        }
        Ok(())
    }

    pub(super) fn expect(&self, message: &'static str, seq: u64) -> Result<(), SyncError> {
        let at = self.at()?;
        if at.seq.checked_add(1) == Some(seq) {
            return Ok(());
        }
        let detail = format!("it begins with commit {seq} and the mirror stands at {}", at.seq);
        Err(SyncError::OutOfTurn { message, detail })
    }

    /// A flush leads on from the one before, and not beyond what is there unless the mirror asked
    /// for it after a difference that it could not follow.
    pub(super) fn expect_flush(&self, flush: &FlushPoint) -> Result<(), SyncError> {
        let at = self.at()?;
        let rebasing = self.rebasing.is_some_and(|due| due == *flush);
        if flush.at.seq > at.seq && !rebasing {
            return Err(out_of_turn("flush", "the commits before it"));
        }
        if self.have.head.is_some_and(|head| flush.at.seq < head.flush.at.seq) {
            return Err(out_of_turn("flush", "a later one"));
        }
        Ok(())
    }

    /// Commits that wait right behind one another are applied together.
    pub(super) fn gather(&mut self, seq: u64, entry: Bytes) -> Vec<Bytes> {
        let mut entries = vec![entry];
        while entries.len() < ENTRIES_PER_MESSAGE_MAX
            && let Some((Update::Commit { seq: next, .. }, _)) = self.inbox.front()
            && *next == seq.saturating_add(entries.len() as u64)
            && let Some((Update::Commit { entry, .. }, len)) = self.inbox.pop_front()
        {
            self.inbox_bytes -= len;
            self.working_bytes += len;
            entries.push(entry);
        }
        entries
    }

    pub(super) fn done(&mut self, now: Duration, outcome: Outcome, effects: &mut Effects) {
        let Some(doing) = self.busy.take() else { return };
        if let (Doing::Reset(reason), Outcome::Forgotten) = (&doing, &outcome) {
            // Told whatever became of the subscription meanwhile: what the copy was is gone.
            self.have = Have::default();
            effects.push(SubscriberEffect::Report(MirrorEvent::Reset(*reason)));
        }
        if std::mem::take(&mut self.stale) {
            if self.phase == Phase::Loading {
                // A reset that could not begin because of the old task comes again by itself: the
                // server refuses what the replica still has.
                self.load(now, effects);
            }
            return;
        }
        let len = std::mem::take(&mut self.working_bytes);
        self.take(now, len, effects);
        let result = match outcome {
            Outcome::Failed(error) => Err(error.into()),
            outcome => self.finish(now, doing, outcome, effects),
        };
        if let Err(error) = result {
            self.fault(now, error, effects);
        }
    }

    pub(super) fn finish(
        &mut self,
        now: Duration,
        doing: Doing,
        outcome: Outcome,
        effects: &mut Effects,
    ) -> Result<(), SyncError> {
        match (doing, outcome) {
            (Doing::Load, Outcome::Loaded(have)) => {
                self.have = have;
                self.subscribe(now, effects);
            }
            (Doing::Apply | Doing::Batch, Outcome::Applied(at)) => {
                self.advance(at, effects);
                effects.push(SubscriberEffect::Report(MirrorEvent::Advanced(at)));
                self.report_synced(effects);
            }
            (Doing::Fold(flush), Outcome::Folded(fold)) => match fold {
                Fold::Equal => self.folded(flush, effects),
                Fold::Different => self.ask_changes(flush, effects)?,
            },
            (Doing::Difference(to), Outcome::Folded(fold)) => match fold {
                Fold::Equal => {
                    let from = self.at()?.seq;
                    self.advance(to.at, effects);
                    self.folded(to, effects);
                    self.ready(to, effects);
                    let gap = MirrorEvent::Gap { from, to: to.at.seq };
                    effects.push(SubscriberEffect::Report(gap));
                    self.report_synced(effects);
                }
                Fold::Different => {
                    self.rebasing = Some(to);
                    self.ask_changes(to, effects)?;
                }
            },
            (Doing::Reset(_), Outcome::Forgotten) => self.load(now, effects),
            (doing, outcome) => self.transferred(doing, outcome, effects)?,
        }
        Ok(())
    }
}
