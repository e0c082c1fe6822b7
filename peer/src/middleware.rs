//! Layers between the wire and the application. [`crate::guide`] shows how to write one.

use std::fmt::Debug;

use crate::connection::Connection;
use crate::error::Close;
use crate::message::Message;
use crate::rt::{BoxFuture, MaybeSend, MaybeSync, Time};

/// One layer of a peer. It sees every message of every connection, in both directions, and says what
/// should happen through [`Cx`]. Layers are shared by all connections of a peer; what they keep, they
/// keep behind locks of their own, which must not be held while calling into a [`Connection`].
///
/// Order: layer 0, the first given to [`PeerBuilder::layer`](crate::PeerBuilder::layer), is nearest the wire. Messages that
/// come in pass 0, 1, 2 …; messages that go out pass the other way, beginning below the layer that
/// sends.
pub trait Middleware: Debug + MaybeSend + MaybeSync {
    /// A name, for logs and errors.
    fn name(&self) -> &'static str;

    /// A message came in.
    fn inbound(&self, message: Message, cx: &mut Cx<'_>) -> Flow {
        let _ = cx;
        Flow::Pass(message)
    }

    /// A message goes out. Runs on whatever task sends.
    fn outbound(&self, message: Message, cx: &mut Cx<'_>) -> Flow {
        let _ = cx;
        Flow::Pass(message)
    }

    /// The hello is done; messages may follow.
    fn connected(&self, cx: &mut Cx<'_>) {
        let _ = cx;
    }

    /// The connection is gone. Called once for every [`connected`](Self::connected).
    fn disconnected(&self, close: &Close, cx: &mut Cx<'_>) {
        let _ = (close, cx);
    }

    /// A time asked for with [`Cx::wake_at`] has come.
    fn wake(&self, cx: &mut Cx<'_>) {
        let _ = cx;
    }

    /// The connection takes messages again after it had refused some for want of room.
    fn room(&self, cx: &mut Cx<'_>) {
        let _ = cx;
    }
}

/// What becomes of a message after a layer saw it.
#[derive(Debug)]
#[must_use]
pub enum Flow {
    /// On to the next layer, changed or not.
    Pass(Message),
    /// It ends here: handled, or unwanted.
    Stop,
}

/// What a layer is told about the moment, and what it wants done. The wishes are values: they are
/// carried out once the layer has returned, in the order of the calls.
#[derive(Debug)]
pub struct Cx<'a> {
    connection: &'a Connection,
    now: Time,
    effects: Vec<Effect>,
}

pub(crate) enum Effect {
    Send(Message),
    Close(Close),
    WakeAt(Time),
    Run(BoxFuture<'static, ()>),
}

impl Debug for Effect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Send(message) => f.debug_tuple("Send").field(message).finish(),
            Self::Close(close) => f.debug_tuple("Close").field(close).finish(),
            Self::WakeAt(time) => f.debug_tuple("WakeAt").field(time).finish(),
            Self::Run(_) => f.write_str("Run(..)"),
        }
    }
}

impl<'a> Cx<'a> {
    pub(crate) fn new(connection: &'a Connection, now: Time) -> Self {
        Self { connection, now, effects: Vec::new() }
    }

    pub(crate) fn into_effects(self) -> Vec<Effect> {
        self.effects
    }

    /// The connection, as seen from this layer: what is sent on it passes only the layers nearer the
    /// wire. A clone may be kept and used later, from anywhere.
    pub fn connection(&self) -> &'a Connection {
        self.connection
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Sends a reply or another small message that must not be lost. See [`Connection::reply`].
    pub fn send(&mut self, message: Message) {
        self.effects.push(Effect::Send(message));
    }

    /// Closes the connection once what waits has left.
    pub fn close(&mut self, close: Close) {
        self.effects.push(Effect::Close(close));
    }

    /// Asks for [`Middleware::wake`] at this time, once. Times asked for earlier stay.
    pub fn wake_at(&mut self, time: Time) {
        self.effects.push(Effect::WakeAt(time));
    }

    /// Runs a future beside everything else. It is dropped when the connection goes.
    pub fn run(&mut self, future: impl Future<Output = ()> + MaybeSend + 'static) {
        self.effects.push(Effect::Run(Box::pin(future)));
    }
}
