//! Transports carry frames between two peers.

#[cfg(target_family = "wasm")]
pub mod browser;
pub mod memory;
#[cfg(not(target_family = "wasm"))]
pub mod websocket;

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::error::{Close, TransportError};
use crate::rt::{BoxFuture, MaybeSend, MaybeSync};

/// Whom a peer that dials trusts besides the public authorities. A browser decides that by itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trust {
    /// Root certificates.
    #[cfg(not(target_family = "wasm"))]
    pub(crate) roots: Arc<[rustls::pki_types::CertificateDer<'static>]>,
}

/// What came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// One whole frame.
    Frame(Bytes),
    /// A text message, which counts as a frame of [`SerializerId::STRING`](crate::frame::SerializerId::STRING).
    Text(Bytes),
    /// The other side closed; nothing comes after it.
    Closed(Close),
}

/// What is known about the other end before it says anything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportInfo {
    /// Where the other end is, for people and logs.
    pub remote: String,
    /// Whether what is sent is encrypted on its way.
    pub encrypted: bool,
}

/// One connection that carries whole frames in order, in both directions. Poll-based, so that one
/// task can read and write at once without locks.
pub trait Transport: MaybeSend {
    /// What is known about the other end.
    fn info(&self) -> &TransportInfo;

    /// The next thing that comes in.
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, TransportError>>;

    /// Ready once [`send`](Self::send) may be called.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>>;

    /// Takes one frame. It may wait in a bounded buffer until [`poll_flush`](Self::poll_flush), so
    /// that many frames leave in one write.
    ///
    /// # Errors
    /// If the transport has failed; it is of no further use then.
    fn send(&mut self, frame: Bytes) -> Result<(), TransportError>;

    /// Ready once everything taken has been handed to the network.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>>;

    /// Tells the other side why, then ready once it has answered or is gone.
    fn poll_close(
        &mut self,
        cx: &mut Context<'_>,
        close: &Close,
    ) -> Poll<Result<(), TransportError>>;

    /// The hello is done: limits that held for a stranger may be lifted.
    fn opened(&mut self) {}

    /// Bytes in both directions so far.
    fn traffic(&self) -> Arc<Traffic>;
}

/// Bytes as they are on the wire: upgrade, framing, masking and all. The memory transport counts
/// what its frames would take in WebSocket framing.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
    writes: AtomicU64,
}

impl Traffic {
    /// Bytes sent.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Bytes received.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Writes that the sent bytes left in.
    pub fn writes(&self) -> u64 {
        self.writes.load(Ordering::Relaxed)
    }

    pub(crate) fn count_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
        self.writes.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn count_received(&self, bytes: usize) -> u64 {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64
    }
}

/// Opens a transport to one address, again and again as a [`Link`](crate::Link) reconnects.
pub trait Dial: Debug + MaybeSend + MaybeSync {
    /// Where this leads, for people and logs.
    fn address(&self) -> &str;

    /// One attempt. The caller bounds its time.
    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Transport>, TransportError>>;
}

/// Bytes that a WebSocket frame takes around a payload of this length.
fn framed(payload: usize, masked: bool) -> usize {
    let length = match payload {
        0..126 => 0,
        126..65536 => 2,
        _ => 8,
    };
    2 + length + if masked { 4 } else { 0 } + payload
}
