//! Which calls wait for an answer, and which are being worked on: two state machines without IO.

use std::collections::BTreeMap;

/// The calls of one connection that wait for an answer. `W` is whatever is told the answer.
#[derive(Debug)]
pub struct Calls<W> {
    next: u64,
    waiting: BTreeMap<u64, W>,
    over: bool,
}

impl<W> Default for Calls<W> {
    fn default() -> Self {
        Self { next: 0, waiting: BTreeMap::new(), over: false }
    }
}

impl<W> Calls<W> {
    /// A call begins: its number, or the waiter back if the connection is gone.
    ///
    /// # Errors
    /// The waiter, if no answer can come any more.
    pub fn begin(&mut self, waiter: W) -> Result<u64, W> {
        if self.over {
            return Err(waiter);
        }
        let id = self.next;
        self.next += 1;
        self.waiting.insert(id, waiter);
        Ok(id)
    }

    /// An answer came: who waits for it. Nobody, if the call was given up or never made.
    pub fn answered(&mut self, id: u64) -> Option<W> {
        self.waiting.remove(&id)
    }

    /// The caller no longer waits. True if the other side should be told to stop.
    pub fn given_up(&mut self, id: u64) -> bool {
        self.waiting.remove(&id).is_some() && !self.over
    }

    /// The connection is gone: everybody who waits, in the order of the calls. None can begin after it.
    pub fn lost(&mut self) -> Vec<W> {
        self.over = true;
        std::mem::take(&mut self.waiting).into_values().collect()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// The calls from one connection that are being worked on. `H` is what stops the work.
#[derive(Debug)]
pub struct Work<H> {
    limit: usize,
    running: BTreeMap<u64, H>,
}

/// Why a call is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejected {
    /// As many as allowed are being worked on.
    TooMany,
    /// One with this number is being worked on: the other side breaks the protocol.
    Twice,
}

impl<H> Work<H> {
    /// No work yet, and at most this many calls at a time.
    pub fn new(limit: usize) -> Self {
        Self { limit, running: BTreeMap::new() }
    }

    /// A call came and is taken.
    ///
    /// # Errors
    /// If it cannot be.
    pub fn begin(&mut self, id: u64, stop: H) -> Result<(), Rejected> {
        if self.running.contains_key(&id) {
            return Err(Rejected::Twice);
        }
        if self.running.len() >= self.limit {
            return Err(Rejected::TooMany);
        }
        self.running.insert(id, stop);
        Ok(())
    }

    /// The work ended, or should: what stops it, once.
    pub fn end(&mut self, id: u64) -> Option<H> {
        self.running.remove(&id)
    }

    /// How many calls are being worked on.
    pub fn len(&self) -> usize {
        self.running.len()
    }

    /// Whether there is no work.
    pub fn is_empty(&self) -> bool {
        self.running.is_empty()
    }
}
