//! Snapshots that are made only if somebody looks: those between the transactions of one commit,
//! which few do.

use std::sync::OnceLock;

use super::{Base, Db, Snapshot};
use crate::tx::ResolvedTx;

/// The snapshot before and what happened to it.
#[derive(Debug)]
pub(super) struct Later {
    before: Db,
    tx: ResolvedTx,
    made: OnceLock<Base>,
}

impl Later {
    pub(super) fn new(before: Db, tx: ResolvedTx) -> Self {
        Self { before, tx, made: OnceLock::new() }
    }

    pub(super) fn made(&self) -> &Base {
        self.made.get_or_init(|| {
            let mut waiting = vec![&self.tx];
            let mut before = &self.before;
            let mut base = loop {
                let later = match &*before.snapshot {
                    Snapshot::Made(base) => break base.clone(),
                    Snapshot::Later(later) => later,
                };
                if let Some(base) = later.made.get() {
                    break base.clone();
                }
                waiting.push(&later.tx);
                before = &later.before;
            };
            waiting.into_iter().rev().for_each(|tx| base.apply(tx));
            base
        })
    }
}
