//! The way out of a connection: its transport, and what was taken from the queue for it.

use std::collections::VecDeque;
use std::task::Context;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::connection::Queue;
use crate::error::TransportError;
use crate::transport::Transport;

/// Held by the driver while it runs, and in between by a sender that writes for itself.
pub(crate) struct Wire {
    /// Gone once the connection has ended.
    transport: Option<Box<dyn Transport>>,
    outgoing: VecDeque<Bytes>,
    unflushed: bool,
    /// What a sender ran into; the driver acts on it.
    failed: Option<TransportError>,
}

impl Wire {
    pub(crate) fn new(transport: Box<dyn Transport>) -> Self {
        let transport = Some(transport);
        Self { transport, outgoing: VecDeque::new(), unflushed: false, failed: None }
    }

    /// The transport, unless the connection has ended.
    pub(crate) fn transport(&mut self) -> Option<&mut dyn Transport> {
        Some(&mut **self.transport.as_mut()?)
    }

    /// Ends the transport.
    pub(crate) fn cut(&mut self) {
        self.transport = None;
        self.outgoing.clear();
    }

    /// Whether everything that was queued is with the network.
    pub(crate) fn is_empty(&self) -> bool {
        self.outgoing.is_empty() && !self.unflushed
    }

    /// What writing failed with, once.
    pub(crate) fn take_failure(&mut self) -> Option<TransportError> {
        self.failed.take()
    }

    /// Hands what waits to the transport and flushes once. Whether all of it left; if not, it
    /// failed or the waker of `cx` is woken when more can.
    pub(crate) fn write(&mut self, cx: &mut Context<'_>, queue: &Mutex<Queue>) -> bool {
        if self.failed.is_some() {
            return false;
        }
        let mut written = 0;
        let left = self.try_write(cx, queue, &mut written);
        if written > 0 {
            let mut queue = queue.lock();
            queue.bytes = queue.bytes.saturating_sub(written);
        }
        left.unwrap_or_else(|error| {
            self.failed = Some(error);
            false
        })
    }

    fn try_write(
        &mut self,
        cx: &mut Context<'_>,
        queue: &Mutex<Queue>,
        written: &mut usize,
    ) -> Result<bool, TransportError> {
        let Some(transport) = &mut self.transport else { return Ok(true) };
        loop {
            if self.outgoing.is_empty() {
                std::mem::swap(&mut self.outgoing, &mut queue.lock().frames);
                if self.outgoing.is_empty() {
                    break;
                }
            }
            if transport.poll_ready(cx)?.is_pending() {
                return Ok(false);
            }
            let Some(frame) = self.outgoing.pop_front() else { break };
            *written += frame.len();
            transport.send(frame)?;
            self.unflushed = true;
        }
        if self.unflushed {
            if transport.poll_flush(cx)?.is_pending() {
                return Ok(false);
            }
            self.unflushed = false;
        }
        Ok(true)
    }
}
