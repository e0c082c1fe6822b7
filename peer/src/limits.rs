//! What one peer grants at most.

use std::time::Duration;

/// Bounds on what connections may cost. All are per peer configuration; passing one is an error with
/// a name, and never harms another connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one frame. A larger one closes the connection with code 1009.
    pub frame_bytes: usize,
    /// Bytes of one frame before the hello is done, when nobody knows yet who is talking.
    pub handshake_frame_bytes: usize,
    /// Levels of nesting in one message.
    pub depth: usize,
    /// Elements in one message, over all its collections; a map counts its keys and its values.
    pub items: usize,
    /// Bytes that may wait for one connection before [`send`](crate::Connection::send) refuses and
    /// subscriptions on it count as behind.
    pub outbound_bytes: usize,
    /// Bytes of replies and other control messages that may wait besides; beyond it the connection
    /// is closed with code 1013, since its peer asks without reading.
    pub control_bytes: usize,
    /// Time for the transport to open and the hello to be done.
    pub handshake: Duration,
    /// A ping is sent after this long without a frame from the other side.
    pub heartbeat: Duration,
    /// The other side is dead after this long without a frame from it.
    pub dead_after: Duration,
    /// Time for queued frames and the close frame to leave once a close began.
    pub close: Duration,
    /// Connections at a time.
    pub connections: usize,
    /// Subscriptions of one connection.
    pub subscriptions: usize,
    /// Remote requests of one connection that are being worked on.
    pub in_flight: usize,
    /// Bytes that one subscription may have on the way unacknowledged: the largest window that a
    /// serving peer grants, and what a subscriber asks for by default.
    pub window_bytes: usize,
    /// Time for a request (subscribe, publish) to be answered.
    pub request: Duration,
}

impl Limits {
    /// The bounds that hold where nobody says otherwise.
    pub const DEFAULT: Self = Self {
        frame_bytes: 16 << 20,
        handshake_frame_bytes: 64 << 10,
        depth: 128,
        items: 1_000_000,
        outbound_bytes: 4 << 20,
        control_bytes: 4 << 20,
        handshake: Duration::from_secs(5),
        heartbeat: Duration::from_secs(20),
        dead_after: Duration::from_secs(45),
        close: Duration::from_secs(2),
        connections: 10_000,
        subscriptions: 256,
        in_flight: 64,
        window_bytes: 1 << 20,
        request: Duration::from_secs(30),
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
