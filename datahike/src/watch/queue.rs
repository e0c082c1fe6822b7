//! Changes on their way to one consumer.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::task::{Context, Poll};

use datahike_value::Value;
use futures::task::AtomicWaker;
use parking_lot::Mutex;

use super::Change;
use crate::error::Error;

/// Changes that wait one by one. Later ones become one with the last of these, so that what waits is
/// bounded by the size of the result.
const WAITING_MAX: usize = 64;

type Event = Result<Change, Arc<Error>>;

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    waker: AtomicWaker,
}

#[derive(Debug, Default)]
struct Waiting {
    events: VecDeque<Event>,
    closed: bool,
}

impl Queue {
    pub(super) fn push(&self, event: Event) {
        let mut waiting = self.waiting.lock();
        if waiting.events.len() < WAITING_MAX {
            waiting.events.push_back(event);
        } else {
            match (waiting.events.back_mut(), event) {
                (Some(Ok(last)), Ok(next)) => last.merge(next),
                (Some(last @ Err(_)), next) => *last = next,
                // The change before it is what the consumer needs; it hears of the next error.
                (_, Err(_)) => {}
                (None, event) => waiting.events.push_back(event),
            }
        }
        drop(waiting);
        self.waker.wake();
    }

    /// Drops what waits.
    pub(super) fn clear(&self) {
        self.waiting.lock().events.clear();
    }

    /// Ends after what waits.
    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.waker.wake();
    }

    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.waker.register(cx.waker());
        let mut waiting = self.waiting.lock();
        match waiting.events.pop_front() {
            Some(event) => Poll::Ready(Some(event)),
            None if waiting.closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}

impl Change {
    /// Both as one: what came and went again, or went and came again, is left out.
    fn merge(&mut self, next: Self) {
        let mut added: HashSet<Value> = self.added.drain(..).collect();
        let mut removed: HashSet<Value> = self.removed.drain(..).collect();
        for row in next.removed {
            if !added.remove(&row) {
                removed.insert(row);
            }
        }
        for row in next.added {
            if !removed.remove(&row) {
                added.insert(row);
            }
        }
        self.added.extend(added);
        self.removed.extend(removed);
        self.to = next.to;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(added: &[i64], removed: &[i64], tx: u64) -> Change {
        let rows = |rows: &[i64]| rows.iter().map(|n| Value::Long(*n)).collect();
        Change { added: rows(added), removed: rows(removed), from: tx, to: tx }
    }

    #[test]
    fn what_waits_becomes_one_change_that_leaves_out_what_came_and_went() {
        let queue = Queue::default();
        for tx in 0..WAITING_MAX as u64 {
            queue.push(Ok(change(&[], &[], tx)));
        }
        queue.push(Ok(change(&[1, 2], &[9], 100)));
        queue.push(Ok(change(&[9, 3], &[1], 101)));
        let waiting = queue.waiting.lock();
        assert_eq!(waiting.events.len(), WAITING_MAX);
        let last = waiting.events.back().unwrap().as_ref().unwrap();
        let mut added = last.added.clone();
        added.sort();
        assert_eq!(added, [Value::Long(2), Value::Long(3)]);
        assert_eq!(last.removed, []);
        assert_eq!((last.from, last.to), (WAITING_MAX as u64 - 1, 101));
    }
}
