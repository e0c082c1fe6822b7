//! # Write a layer in 30 lines
//!
//! A layer implements [`Middleware`](crate::Middleware): one value, shared by all connections of a
//! peer, that sees every message in both directions. All methods but the name have defaults that let
//! everything pass. What a layer wants done, it says through [`Cx`](crate::Cx): `send`, `close`,
//! `wake_at`, `run`. It never waits.
//!
//! This one answers `:echo/ask`, and refuses to answer one connection more than twice:
//!
//! ```
//! use std::time::Duration;
//! use dashmap::DashMap;
//! use datahike_peer::{Anyone, Close, ConnectionId, Cx, Flow, LinkOptions, Message, Middleware, Peer, sim};
//! use datahike_value::{Value, kw};
//!
//! #[derive(Debug, Default)]
//! struct Echo {
//!     asked: DashMap<ConnectionId, u32>,
//! }
//!
//! impl Middleware for Echo {
//!     fn name(&self) -> &'static str {
//!         "echo"
//!     }
//!
//!     fn inbound(&self, message: Message, cx: &mut Cx<'_>) -> Flow {
//!         if message.kind() != &kw!("echo/ask") {
//!             return Flow::Pass(message); // not ours: the next layer may want it
//!         }
//!         let mut asked = self.asked.entry(cx.connection().id()).or_default();
//!         *asked += 1;
//!         if *asked > 2 {
//!             cx.close(Close::new(Close::TRY_AGAIN, "asked too often"));
//!         } else {
//!             let said = message.get(&kw!("payload")).cloned().unwrap_or_default();
//!             cx.send(Message::new(kw!("echo/answer"), [(kw!("payload"), said)]));
//!         }
//!         Flow::Stop
//!     }
//!
//!     fn disconnected(&self, _close: &Close, cx: &mut Cx<'_>) {
//!         self.asked.remove(&cx.connection().id());
//!     }
//! }
//!
//! // Two peers on a simulated clock; with sockets it is `TokioRuntime`, `serve` and `connect`.
//! let world = sim::World::new(1);
//! let network = sim::Network::new(&world);
//! let server = Peer::builder(None, world.runtime()).authenticate(Anyone).layer(Echo::default()).build();
//! network.listen("server", &server);
//! let client = Peer::builder(None, world.runtime()).build();
//! let link = client.link(network.dial("server"), LinkOptions::default());
//! let ended = world.block_on(async move {
//!     let connection = link.connected().await.expect("connects");
//!     for n in 0..3 {
//!         connection.send(Message::new(kw!("echo/ask"), [(kw!("payload"), Value::from(n))])).expect("room");
//!     }
//!     connection.ended().await
//! });
//! assert_eq!(ended.close, Close::new(Close::TRY_AGAIN, "asked too often"));
//! ```
//!
//! **Order.** The first layer given to the builder is nearest the wire: a layer that compresses or
//! counts belongs first, one that answers requests last.
//!
//! **State.** Keep it per connection, as above, and drop it in `disconnected`. Never hold a lock, a
//! map's guard included, while sending on a [`Connection`](crate::Connection): sending runs the layers
//! below on the spot. (Wishes to `cx` are carried out after the method has returned, so they are safe.)
//!
//! **Limits.** `cx.send` is for replies and small things; what may be much goes through
//! [`Connection::send`](crate::Connection::send), which refuses when too much waits, or through a
//! [topic](crate::pubsub), which has windows.
//!
//! **From elsewhere.** A clone of `cx.connection()` may be kept; what is sent on it later, from any
//! task, passes the layers between this one and the wire.
//!
//! **Trust.** Ask `cx.connection().principal()` who it is and `cx.connection().authorize(..)` what it
//! may. Nothing inside a message says either; keys in the namespace `kabel` are removed on arrival.
