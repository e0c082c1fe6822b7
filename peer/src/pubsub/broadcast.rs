//! The simplest topic: what is published goes to everybody, and the newest events are kept.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use datahike_value::Value;
use parking_lot::Mutex;

use super::{PubSub, Subscriber, Topic, TopicHandler};
use crate::connection::Connection;
use crate::error::Refusal;
use crate::rt::BoxFuture;

/// How a [`Broadcast`] behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BroadcastOptions {
    /// Events kept for subscribers that are behind or come back.
    pub keep: usize,
    /// Whether connected peers may publish (those that [`Authorize`](crate::Authorize) lets).
    pub from_peers: bool,
}

impl Default for BroadcastOptions {
    fn default() -> Self {
        Self { keep: 1024, from_peers: true }
    }
}

/// A topic for an application's own messages. Events are numbered from 1. A subscriber that says with
/// its state which number it saw last gets what came since, or a gap where that is not kept any more;
/// one that says nothing begins with the next.
#[derive(Debug)]
pub struct Broadcast {
    options: BroadcastOptions,
    kept: Mutex<Kept>,
    topic: OnceLock<Topic>,
}

#[derive(Debug, Default)]
struct Kept {
    last: u64,
    events: VecDeque<(u64, Value)>,
}

impl Broadcast {
    /// Serves one under this name.
    pub fn serve(pubsub: &PubSub, name: impl Into<Value>, options: BroadcastOptions) -> Arc<Self> {
        let kept = Mutex::default();
        let broadcast = Arc::new(Self { options, kept, topic: OnceLock::new() });
        let topic = pubsub.serve(name, broadcast.clone());
        let _ = broadcast.topic.set(topic);
        broadcast
    }

    /// Publishes to every subscriber; the event's number.
    pub fn publish(&self, payload: Value) -> u64 {
        let mut kept = self.kept.lock();
        kept.last += 1;
        let seq = kept.last;
        kept.events.push_back((seq, payload.clone()));
        while kept.events.len() > self.options.keep {
            kept.events.pop_front();
        }
        // Under the lock, so that events leave in the order of their numbers.
        if let Some(topic) = self.topic.get() {
            topic.publish(seq, payload);
        }
        seq
    }

    /// The number of the newest event; zero before the first.
    pub fn last(&self) -> u64 {
        self.kept.lock().last
    }

    /// The first event kept after this number.
    fn after(&self, seq: u64) -> Option<(u64, Value)> {
        let kept = self.kept.lock();
        let at = kept.events.partition_point(|(number, _)| *number <= seq);
        kept.events.get(at).cloned()
    }
}

impl TopicHandler for Broadcast {
    fn subscribe<'a>(
        &'a self,
        subscriber: &'a Subscriber,
        state: Value,
    ) -> BoxFuture<'a, Result<Value, Refusal>> {
        Box::pin(async move {
            let last = self.last();
            let seen = state.as_long().and_then(|seen| u64::try_from(seen).ok());
            // A number from the future is from a life before this one: begin anew.
            subscriber.set_position(seen.map_or(last, |seen| seen.min(last)));
            Ok(Value::Long(i64::try_from(last).unwrap_or(i64::MAX)))
        })
    }

    fn catch_up<'a>(&'a self, subscriber: &'a Subscriber) -> BoxFuture<'a, Result<(), Refusal>> {
        Box::pin(async move {
            while !subscriber.go_live() {
                let position = subscriber.position();
                let sent = match self.after(position) {
                    Some((seq, _)) if seq > position + 1 => {
                        subscriber.gap(position + 1, seq - 1).await
                    }
                    Some((seq, payload)) => subscriber.send(seq, payload).await,
                    None => subscriber.gap(position + 1, self.last()).await,
                };
                if let Err(error) = sent {
                    return Err(Refusal::new("pubsub/not-sent", error.to_string()));
                }
            }
            Ok(())
        })
    }

    fn published(&self, _from: &Connection, payload: Value) -> Result<Value, Refusal> {
        if !self.options.from_peers {
            let message = "nobody may publish to this topic from outside";
            return Err(Refusal::new("pubsub/read-only", message));
        }
        Ok(Value::Long(i64::try_from(self.publish(payload)).unwrap_or(i64::MAX)))
    }
}
