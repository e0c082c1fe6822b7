//! Topics: one side serves them, the other subscribes; every request is answered with success or a
//! typed refusal within [`Limits::request`](crate::Limits::request).
//!
//! | message | from | entries |
//! |---|---|---|
//! | `:pubsub/subscribe` | subscriber | `:id`, `:topic` (its name), `:window` (bytes), `:state` |
//! | `:pubsub/subscribed` | server | `:id`, `:topic` (its number from here on), `:window`, `:state` |
//! | `:pubsub/refused` | server | `:id`, `:code`, `:message`, `:data` |
//! | `:pubsub/event` | server | `:topic`, `:seq`, `:payload`: the same bytes for every subscriber |
//! | `:pubsub/gap` | server | `:topic`, `:from`, `:to`: these are not to be had any more |
//! | `:pubsub/ack` | subscriber | `:topic`, `:bytes` of frames consumed since the last one |
//! | `:pubsub/tell` | subscriber | `:topic`, `:payload`: something for the topic's handler |
//! | `:pubsub/unsubscribe` | subscriber | `:topic` |
//! | `:pubsub/ended` | server | `:topic`, and why unless it was asked for |
//! | `:pubsub/publish` | anyone | `:id`, `:topic` (its name), `:payload` |
//! | `:pubsub/published` | server | `:id`, `:payload` |
//!
//! **Windows.** A subscription has at most its window of bytes on the way that the subscriber has not
//! consumed. One that has no room when an event comes is *behind*: nothing is queued for it. Once it
//! has room, its topic's handler is asked to [`catch_up`](TopicHandler::catch_up), from what it was
//! sent last to what is there by then. So a slow subscriber costs the others nothing, and memory per
//! subscriber is bounded by its window.

mod broadcast;
mod subscription;
mod topic;

use std::sync::Arc;

use datahike_value::{Value, kw};

pub use broadcast::{Broadcast, BroadcastOptions};
pub use subscription::{Delivery, Event, SubscribeOptions, Subscription};
pub use topic::{Published, Subscriber, Topic, TopicHandler};

use crate::connection::{Connection, LinkId};
use crate::error::{Close, Refusal};
use crate::link::Link;
use crate::message::Message;
use crate::middleware::{Cx, Flow, Middleware};

/// The layer; clones are handles to the same one. Give one clone to
/// [`PeerBuilder::layer`](crate::PeerBuilder::layer) and keep another to serve and subscribe.
#[derive(Clone, Debug, Default)]
pub struct PubSub {
    serving: Arc<topic::Serving>,
    subscribing: Arc<subscription::Subscribing>,
}

impl PubSub {
    /// A layer without topics.
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves a topic under this name, in the place of one that had it.
    pub fn serve(&self, name: impl Into<Value>, handler: Arc<dyn TopicHandler>) -> Topic {
        self.serving.serve(name.into(), handler)
    }

    /// The topic of this name.
    pub fn topic(&self, name: &Value) -> Option<Topic> {
        self.serving.topic(name)
    }

    /// Stops serving it; its subscribers are told that it ended, for this reason.
    pub fn withdraw(&self, name: &Value, reason: &Refusal) {
        self.serving.withdraw(name, reason);
    }

    /// Subscribes at the other side of a link, and again whenever it reconnects. Returns at once:
    /// success or refusal is the first that the subscription yields.
    pub fn subscribe(
        &self,
        at: &impl Reach,
        topic: impl Into<Value>,
        options: SubscribeOptions,
    ) -> Subscription {
        self.subscribing.subscribe(at.link_id(), topic.into(), options)
    }

    /// Publishes to a topic at the other side. The answer is what its handler returned.
    ///
    /// # Errors
    /// The handler's refusal, or `:peer/disconnected`, `:peer/timeout`.
    pub async fn publish(
        &self,
        at: &impl Reach,
        topic: impl Into<Value>,
        payload: Value,
    ) -> Result<Value, Refusal> {
        let link = at.link_id();
        self.subscribing.publish(link, topic.into(), payload).await
    }
}

/// Something that leads to another peer: a [`Link`] or a [`Connection`].
pub trait Reach {
    /// The number of the way there.
    fn link_id(&self) -> LinkId;
}

impl Reach for Link {
    fn link_id(&self) -> LinkId {
        self.id()
    }
}

impl Reach for Connection {
    fn link_id(&self) -> LinkId {
        self.link()
    }
}

impl Middleware for PubSub {
    fn name(&self) -> &'static str {
        "pubsub"
    }

    fn inbound(&self, message: Message, cx: &mut Cx<'_>) -> Flow {
        if message.kind().namespace() != Some("pubsub") {
            return Flow::Pass(message);
        }
        let outcome = match message.kind().name() {
            "subscribe" => self.serving.subscribe(&message, cx),
            "unsubscribe" => self.serving.unsubscribe(&message, cx),
            "ack" => self.serving.ack(&message, cx.connection()),
            "tell" => self.serving.tell(&message, cx.connection()),
            "publish" => self.serving.publish(&message, cx),
            "subscribed" => self.subscribing.subscribed(&message, cx.connection()),
            "refused" => self.subscribing.refused(&message, cx.connection()),
            "published" => self.subscribing.published(&message, cx.connection()),
            "event" => self.subscribing.event(&message, cx.connection()),
            "gap" => self.subscribing.gap(&message, cx.connection()),
            "ended" => self.subscribing.ended(&message, cx.connection()),
            _ => Err(Malformed("type")),
        };
        if let Err(Malformed(key)) = outcome {
            let reason = format!("a {} message without a proper :{key}", message.kind());
            cx.close(Close::new(Close::PROTOCOL, reason));
        }
        Flow::Stop
    }

    fn connected(&self, cx: &mut Cx<'_>) {
        self.subscribing.connected(cx.connection());
    }

    fn disconnected(&self, _close: &Close, cx: &mut Cx<'_>) {
        self.serving.disconnected(cx.connection());
        self.subscribing.disconnected(cx.connection());
    }

    fn room(&self, cx: &mut Cx<'_>) {
        self.serving.room(cx.connection());
    }
}

/// A message that lacks what its type must have: whoever sends it breaks the protocol.
#[derive(Debug)]
struct Malformed(&'static str);

fn number(message: &Message, key: &'static str) -> Result<u64, Malformed> {
    let value = message.get(&datahike_value::Keyword::parse(key)).and_then(Value::as_long);
    value.and_then(|n| u64::try_from(n).ok()).ok_or(Malformed(key))
}

fn topic_number(message: &Message) -> Result<u32, Malformed> {
    number(message, "topic").and_then(|n| u32::try_from(n).map_err(|_| Malformed("topic")))
}

fn topic_name(message: &Message) -> Result<Value, Malformed> {
    message.get(&kw!("topic")).cloned().ok_or(Malformed("topic"))
}

fn payload(message: &Message) -> Value {
    message.get(&kw!("payload")).cloned().unwrap_or_default()
}

fn long(n: impl TryInto<i64>) -> Value {
    Value::Long(n.try_into().unwrap_or(i64::MAX))
}
