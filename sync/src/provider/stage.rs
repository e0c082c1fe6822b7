//! What a provider does with the answers of its source: plans, snapshots, catching up.

use std::sync::Arc;

use super::{Provider, ProviderEffect, REPLANS_MAX, Stage, raise};
use crate::{
    message::{Block, Cause, Plan, Reset, Snapshot, Supply, Update},
    point::{Address, FlushPoint, Mode},
    source::{Answer, Ask, Entries, Seeds, State},
};

impl Provider {
    /// Takes the answer that the stage was waiting for.
    pub(super) fn advance(&mut self, answer: Answer, effects: &mut Vec<ProviderEffect>) {
        let topic = self.topic;
        match (&mut self.stage, answer) {
            (Stage::Planning, Answer::State(state)) => self.plan(state, effects),
            (Stage::Following, Answer::Batch(batch)) => match batch {
                Some(batch) if batch.to.seq > self.sent.seq => {
                    let from = self.sent.seq;
                    self.verified = true;
                    self.sent = batch.to;
                    let (to, bytes) = (batch.to, batch.bytes);
                    self.send(&Update::Batch { topic, from, to, bytes }, effects);
                }
                _ => self.no_batch = true,
            },
            (Stage::Following, Answer::Entries(Entries::Run { entries, to })) => {
                if entries.is_empty() {
                    return self.close(Cause::Internal, "the log ends before the head", effects);
                }
                let first = self.sent.seq + 1;
                self.verified = true;
                self.sent = to;
                self.send(&Update::Entries { topic, first, entries }, effects);
            }
            (Stage::Following, Answer::Entries(Entries::Diverged)) => {
                self.reset(Reset::Diverged, effects);
            }
            (Stage::Following, Answer::Entries(Entries::Gone)) => {
                self.stage = Stage::Rebasing;
                self.ask(Ask::Difference(self.sent), effects);
            }
            (Stage::Rebasing, Answer::Difference(Some(difference)))
                if difference.to.at.seq > self.sent.seq =>
            {
                let (to, bytes) = (difference.to, difference.bytes);
                self.stage = Stage::Completing { flush: to };
                self.send(&Update::Difference { topic, to, bytes }, effects);
            }
            (Stage::Rebasing, Answer::Difference(_)) => self.ask_seeds(effects),
            (Stage::Rebasing, Answer::Seeds(seeds)) => {
                let Some((seeds, head)) = seeds.zip(self.head) else {
                    // Flushed and swept since: ask where the branch stands now.
                    self.replans += 1;
                    if self.replans > REPLANS_MAX {
                        let text = "the newest flush is gone";
                        return self.close(Cause::Internal, text, effects);
                    }
                    self.stage = Stage::Planning;
                    return self.ask(Ask::State, effects);
                };
                self.begin_snapshot(seeds, head.flush, effects);
            }
            (Stage::Pushing { seeds, next, .. }, Answer::Blocks(blocks)) => {
                *next += blocks.len();
                let last = *next >= seeds.len();
                let stuck = blocks.is_empty();
                self.send(&Update::Blocks { topic, request: 0, last, blocks }, effects);
                if stuck {
                    self.close(Cause::Internal, "the source gave no block", effects);
                }
            }
            (Stage::Changing { changes, next, .. }, Answer::Blocks(blocks)) => {
                *next += blocks.len();
                let last = *next >= changes.len();
                let stuck = blocks.is_empty();
                self.send(&Update::Blocks { topic, request: 0, last, blocks }, effects);
                if stuck {
                    self.close(Cause::Internal, "the source gave no block", effects);
                }
            }
            (Stage::Changing { changes, .. }, Answer::Changes(found)) => {
                *changes = found.unwrap_or_else(|| Arc::from([]));
            }
            _ => {}
        }
    }

    /// Compares what the mirror holds with what is here.
    pub(super) fn plan(&mut self, state: State, effects: &mut Vec<ProviderEffect>) {
        let mut head = state.head;
        let before = self.head.map(|head| (Some(head.at), Some(head.flush)));
        let (at, flush) = before.unwrap_or(self.announced);
        raise(&mut head, at, flush);
        self.head = Some(head);
        if before.is_some() {
            self.stage = Stage::Rebasing;
            return self.ask_seeds(effects);
        }
        let have = &self.subscribe.have;
        if let Some(identity) = have.identity {
            if identity.store != state.identity.store {
                return self.refuse(Reset::OtherStore, effects);
            }
            if identity.epoch != state.identity.epoch {
                return self.refuse(Reset::OtherEpoch, effects);
            }
        }
        self.folds = self.subscribe.mode == Mode::Full
            && have.shape.as_ref().is_none_or(|shape| *shape == state.shape);
        self.verified = have.head.is_some_and(|have| have.at == head.at);
        let plan = match have.head {
            None => Plan::Snapshot,
            Some(have) if have.at.seq > head.at.seq => {
                return self.refuse(Reset::ServerOlder, effects);
            }
            Some(have) if have.at.seq < head.at.seq => Plan::Follow,
            Some(have) if have.at.commit != head.at.commit => {
                return self.refuse(Reset::Diverged, effects);
            }
            Some(have) if have.flush == head.flush => Plan::Current,
            Some(have) if have.flush.at.seq > head.flush.at.seq => Plan::Current,
            Some(_) => Plan::Follow,
        };
        // Not counted against the window: the mirror learns its subscription's number by it.
        let update = Update::Plan {
            request: self.request,
            topic: self.topic,
            identity: state.identity,
            shape: state.shape,
            head,
            folds: self.folds,
            plan,
        };
        effects.push(ProviderEffect::Send(update.encode()));
        if plan == Plan::Snapshot {
            self.stage = Stage::Rebasing;
            self.ask_seeds(effects);
        } else {
            self.stage = Stage::Following;
        }
    }

    pub(super) fn ask_seeds(&mut self, effects: &mut Vec<ProviderEffect>) {
        let Some(head) = self.head else { return };
        if self.subscribe.have.head.is_some() && self.sent.seq >= head.flush.at.seq {
            let text = "the log does not reach back to the flush";
            return self.close(Cause::Internal, text, effects);
        }
        self.ask(Ask::Seeds(head.flush), effects);
    }

    pub(super) fn begin_snapshot(
        &mut self,
        seeds: Seeds,
        flush: FlushPoint,
        effects: &mut Vec<ProviderEffect>,
    ) {
        let have = &self.subscribe.have;
        let count = seeds.addresses.len() as u64;
        let supply = match have.partial {
            _ if self.subscribe.mode == Mode::Lazy => Supply::Fetch,
            Some(partial) if partial.flush == flush.address => {
                Supply::Push { from: partial.seeds.min(count) }
            }
            Some(_) => Supply::List,
            None if have.head.is_some() => Supply::List,
            None => Supply::Push { from: 0 },
        };
        let snapshot = Snapshot { flush, seeds: count, bytes: seeds.bytes, supply };
        let seeds = seeds.addresses;
        self.stage = match supply {
            Supply::Push { from } => {
                Stage::Pushing { next: usize::try_from(from).unwrap_or(seeds.len()), seeds, flush }
            }
            Supply::List => Stage::Listing { seeds, next: 0, flush },
            Supply::Fetch => Stage::Completing { flush },
        };
        self.send(&Update::Snapshot { topic: self.topic, snapshot }, effects);
    }

    pub(super) fn ask_changes(
        &mut self,
        base: Address,
        to: FlushPoint,
        effects: &mut Vec<ProviderEffect>,
    ) {
        self.stage = Stage::Changing { changes: Arc::from([]), next: 0, flush: to };
        self.ask(Ask::Changes(base, to.address), effects);
    }

    pub(super) fn fetched(&mut self, blocks: Vec<Block>, effects: &mut Vec<ProviderEffect>) {
        let Some((request, wanted)) = self.fetches.front_mut() else { return };
        wanted.drain(..blocks.len().min(wanted.len()));
        let (request, last) = (*request, wanted.is_empty() || blocks.is_empty());
        if last {
            self.fetches.pop_front();
        }
        self.send(&Update::Blocks { topic: self.topic, request, last, blocks }, effects);
    }
}
