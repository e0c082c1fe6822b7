//! Why something did not work, in words that may cross the wire.

use std::fmt;

use datahike_value::{Keyword, Value};

/// Why and how a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// A WebSocket close code.
    pub code: u16,
    /// One line for people.
    pub reason: String,
}

impl Close {
    /// Done with it.
    pub const NORMAL: u16 = 1000;
    /// The peer stops.
    pub const GOING_AWAY: u16 = 1001;
    /// The other side broke the protocol.
    pub const PROTOCOL: u16 = 1002;
    /// Gone without a word.
    pub const LOST: u16 = 1006;
    /// Refused: who or what the other side is.
    pub const REFUSED: u16 = 1008;
    /// A frame larger than allowed.
    pub const TOO_BIG: u16 = 1009;
    /// Overloaded, or the other side does not read: try again later.
    pub const TRY_AGAIN: u16 = 1013;
    /// Nothing heard for too long.
    pub const DEAD: u16 = 4000;

    /// A close.
    pub fn new(code: u16, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (code {})", self.reason, self.code)
    }
}

/// A "no" with a code that programs can act on; this is what crosses the wire, never a printed Rust
/// value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({code})")]
pub struct Refusal {
    /// What kind of "no", such as `:peer/unauthenticated` or `:pubsub/unknown-topic`.
    pub code: Keyword,
    /// One line for people.
    pub message: String,
    /// Anything that helps a program; nil if nothing does.
    pub data: Value,
}

impl Refusal {
    /// A refusal without data; `code` as `namespace/name`.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self { code: Keyword::parse(code), message: message.into(), data: Value::Nil }
    }

    /// The same with data.
    #[must_use]
    pub fn with_data(mut self, data: Value) -> Self {
        self.data = data;
        self
    }
}

/// Why a message was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SendError {
    /// The connection is closed, or closing.
    #[error("the connection is closed: {0}")]
    Closed(Close),
    /// The hello is not done yet.
    #[error("the connection is not open yet")]
    NotOpen,
    /// The other side reads too slowly; wait with [`ready`](crate::Connection::ready).
    #[error("{waiting} bytes already wait for this connection, the limit is {limit}")]
    Full {
        /// Bytes that wait.
        waiting: usize,
        /// The limit on them.
        limit: usize,
    },
    /// The encoded message is larger than the other side takes.
    #[error("the message takes {bytes} bytes, the limit is {limit}")]
    TooBig {
        /// Bytes of the frame.
        bytes: usize,
        /// The limit on it.
        limit: usize,
    },
    /// The chosen serializer cannot say this value.
    #[error("the message cannot be encoded: {0}")]
    Encode(String),
    /// A layer stopped the message on its way out.
    #[error("layer {0} stopped the message")]
    Stopped(&'static str),
}

/// Why a transport failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The operating system or the socket said no.
    #[error("{what} {address}: {source}")]
    Io {
        /// What was tried, as in `cannot connect to`.
        what: &'static str,
        /// With whom.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// A frame larger than allowed.
    #[error("a frame from {address} is larger than the limit: {detail}")]
    TooBig {
        /// From whom.
        address: String,
        /// Sizes.
        detail: String,
    },
    /// What came is not WebSocket.
    #[error("{address} broke the WebSocket protocol: {detail}")]
    Protocol {
        /// Who.
        address: String,
        /// How.
        detail: String,
    },
    /// An address that cannot be dialled.
    #[error("{url:?} is not an address to connect to: {detail}")]
    BadUrl {
        /// What was given.
        url: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The other side does not prove who it is, or speaks no TLS that is known here.
    #[error("{address} is not trusted: {detail}")]
    Untrusted {
        /// Who.
        address: String,
        /// What is wrong with its certificate.
        detail: String,
    },
    /// Took longer than allowed.
    #[error("no answer from {address} within {seconds} s")]
    Timeout {
        /// With whom.
        address: String,
        /// How long.
        seconds: f32,
    },
}
