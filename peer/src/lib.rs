//! Peers that talk over WebSocket: frames, serializers, middleware, topics with flow control,
//! authentication and reconnect.
//!
//! This crate knows values, and nothing of stores, datoms or remote functions: those are layers on
//! top of it. Protocols in it are state machines that are handed messages and the time; one loop per
//! connection does the IO; time, tasks and randomness come from a [`Runtime`], so that many peers can
//! run in one thread on a simulated clock ([`sim`]).
//!
//! [`guide`] shows how to write a layer.

pub mod frame;
pub mod guide;
pub mod pubsub;
pub mod rt;
pub mod serializer;
pub mod session;
pub mod sim;
pub mod transport;

mod auth;
mod connection;
mod driver;
mod error;
mod hello;
mod limits;
mod link;
mod logging;
mod message;
mod middleware;
mod peer;
mod wire;

/// The values that messages are made of.
pub use datahike_value as value;

pub use auth::{
    Action, Anyone, Authenticate, Authorize, Everything, Nobody, Principal, SharedToken, Wish,
};
pub use connection::{Connection, ConnectionId, Ended, LinkId, Opened};
pub use error::{Close, Refusal, SendError, TransportError};
pub use frame::SerializerId;
pub use hello::{Hello, PeerId, Token, VERSION, VERSION_OLDEST, Welcome};
pub use limits::Limits;
pub use link::{Backoff, Link, LinkOptions, LinkState};
pub use logging::Logging;
pub use message::{Message, NotAMessage, RESERVED_NAMESPACE};
pub use middleware::{Cx, Flow, Middleware};
pub use peer::{Peer, PeerBuilder};
#[cfg(target_family = "wasm")]
pub use rt::BrowserRuntime;
#[cfg(not(target_family = "wasm"))]
pub use rt::TokioRuntime;
pub use rt::{BoxFuture, MaybeSend, MaybeSync, Runtime, SharedRuntime, Time};
pub use serializer::Serializer;
pub use transport::{Dial, Transport};
