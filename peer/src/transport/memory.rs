//! Two transports joined in memory: for tests, simulations, and peers that live in one process.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Received, Traffic, Transport, TransportInfo, framed};
use crate::error::{Close, TransportError};

/// How many bytes may lie in one direction before the sender has to wait, unless said otherwise.
pub const PIPE_BYTES: usize = 1 << 20;

/// A pair of joined transports, each buffering [`PIPE_BYTES`] per direction.
pub fn pair() -> (MemoryTransport, MemoryTransport) {
    pair_with(PIPE_BYTES)
}

/// A pair of joined transports; a sender waits while `pipe_bytes` or more lie in its direction.
pub fn pair_with(pipe_bytes: usize) -> (MemoryTransport, MemoryTransport) {
    let there = Arc::new(Mutex::new(Pipe::default()));
    let back = Arc::new(Mutex::new(Pipe::default()));
    let end = |incoming: &Arc<Mutex<Pipe>>, outgoing: &Arc<Mutex<Pipe>>, remote: &str, masked| {
        MemoryTransport {
            info: TransportInfo { remote: remote.into(), encrypted: false },
            incoming: incoming.clone(),
            outgoing: outgoing.clone(),
            pipe_bytes,
            traffic: Arc::default(),
            masked,
            unflushed: 0,
        }
    };
    (end(&back, &there, "memory:accepted", true), end(&there, &back, "memory:dialled", false))
}

/// One end of a [`pair`]. The first of a pair counts its bytes as a WebSocket client's, masked.
#[derive(Debug)]
pub struct MemoryTransport {
    info: TransportInfo,
    incoming: Arc<Mutex<Pipe>>,
    outgoing: Arc<Mutex<Pipe>>,
    pipe_bytes: usize,
    traffic: Arc<Traffic>,
    masked: bool,
    unflushed: usize,
}

#[derive(Debug, Default)]
struct Pipe {
    frames: VecDeque<Bytes>,
    bytes: usize,
    end: Option<Close>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Pipe {
    fn end(&mut self, close: Close) {
        self.end.get_or_insert(close);
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl MemoryTransport {
    /// Names the other end in logs and errors.
    #[must_use]
    pub fn with_remote(mut self, remote: impl Into<String>) -> Self {
        self.info.remote = remote.into();
        self
    }

    /// A handle that can cut the wire: both ends see [`Close::LOST`], frames on the way are lost.
    pub fn wire(&self) -> Wire {
        Wire { pipes: [self.incoming.clone(), self.outgoing.clone()] }
    }
}

/// Cuts the wire between two [`MemoryTransport`]s.
#[derive(Clone, Debug)]
pub struct Wire {
    pipes: [Arc<Mutex<Pipe>>; 2],
}

impl Wire {
    /// Cuts it.
    pub fn cut(&self) {
        for pipe in &self.pipes {
            let mut pipe = pipe.lock();
            pipe.frames.clear();
            pipe.bytes = 0;
            pipe.end(Close::new(Close::LOST, "the wire was cut"));
        }
    }
}

impl Transport for MemoryTransport {
    fn info(&self) -> &TransportInfo {
        &self.info
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, TransportError>> {
        let mut pipe = self.incoming.lock();
        if let Some(frame) = pipe.frames.pop_front() {
            pipe.bytes -= frame.len();
            if let Some(writer) = pipe.writer.take() {
                writer.wake();
            }
            self.traffic.count_received(framed(frame.len(), !self.masked));
            return Poll::Ready(Ok(Received::Frame(frame)));
        }
        if let Some(close) = &pipe.end {
            return Poll::Ready(Ok(Received::Closed(close.clone())));
        }
        pipe.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        let mut pipe = self.outgoing.lock();
        if pipe.bytes >= self.pipe_bytes && pipe.end.is_none() {
            pipe.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        let mut pipe = self.outgoing.lock();
        if pipe.end.is_none() {
            self.unflushed += framed(frame.len(), self.masked);
            pipe.bytes += frame.len();
            pipe.frames.push_back(frame);
            if let Some(reader) = pipe.reader.take() {
                reader.wake();
            }
        }
        Ok(())
    }

    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        if self.unflushed > 0 {
            self.traffic.count_sent(std::mem::take(&mut self.unflushed));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(
        &mut self,
        cx: &mut Context<'_>,
        close: &Close,
    ) -> Poll<Result<(), TransportError>> {
        let _ = self.poll_flush(cx);
        self.outgoing.lock().end(close.clone());
        Poll::Ready(Ok(()))
    }

    fn traffic(&self) -> Arc<Traffic> {
        self.traffic.clone()
    }
}

impl Drop for MemoryTransport {
    fn drop(&mut self) {
        let lost = Close::new(Close::LOST, "the other end is gone");
        self.outgoing.lock().end(lost.clone());
        self.incoming.lock().end(lost);
    }
}
