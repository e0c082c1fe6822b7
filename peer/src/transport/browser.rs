//! The WebSocket that a browser, a worker or Node gives.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use gloo_timers::future::TimeoutFuture;
use wasm_bindgen::prelude::*;
use web_sys::{BinaryType, CloseEvent, MessageEvent, WebSocket};

use super::{Dial, Received, Traffic, Transport, TransportInfo, framed};
use crate::error::{Close, TransportError};
use crate::limits::Limits;
use crate::link::{Link, LinkOptions};
use crate::peer::Peer;
use crate::rt::BoxFuture;

/// What may wait in the browser's own buffer before the sender has to wait.
const BUFFERED_BYTES: u32 = 1 << 20;
/// What may have come in and not been taken yet, in frames of the largest size: a browser does not
/// stop reading, so whoever sends more, past every window, is cut off.
const WAITING_FRAMES: usize = 4;
/// Between two looks at that buffer: no event tells when it has drained.
const LOOK_AGAIN_MS: u32 = 10;

impl Peer {
    /// Keeps a connection to a `ws://` or `wss://` address.
    pub fn connect(&self, url: impl Into<String>, options: LinkOptions) -> Link {
        self.link(Arc::new(BrowserDial::new(url, self.limits().clone())), options)
    }
}

/// Dials a `ws://` or `wss://` address with the platform's WebSocket.
#[derive(Clone, Debug)]
pub struct BrowserDial {
    url: String,
    limits: Limits,
}

impl BrowserDial {
    /// Dials this address, taking frames within these limits.
    pub fn new(url: impl Into<String>, limits: Limits) -> Self {
        Self { url: url.into(), limits }
    }

    async fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        let mut transport = BrowserTransport::begin(&self.url, self.limits.frame_bytes)?;
        std::future::poll_fn(|cx| transport.poll_open(cx)).await?;
        Ok(Box::new(transport))
    }
}

impl Dial for BrowserDial {
    fn address(&self) -> &str {
        &self.url
    }

    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Transport>, TransportError>> {
        Box::pin(self.open())
    }
}

struct BrowserTransport {
    socket: WebSocket,
    inbox: Rc<RefCell<Inbox>>,
    info: TransportInfo,
    traffic: Arc<Traffic>,
    drained: Option<TimeoutFuture>,
    // The browser calls them for as long as they live.
    _handlers: Handlers,
}

struct Handlers {
    _open: Closure<dyn FnMut()>,
    _message: Closure<dyn FnMut(MessageEvent)>,
    _close: Closure<dyn FnMut(CloseEvent)>,
}

/// What the browser's events have brought and nobody has taken yet.
#[derive(Default)]
struct Inbox {
    open: bool,
    received: VecDeque<Received>,
    waiting: usize,
    too_big: Option<String>,
    end: Option<Close>,
    waker: Option<Waker>,
}

impl Inbox {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl BrowserTransport {
    fn begin(url: &str, frame_bytes_max: usize) -> Result<Self, TransportError> {
        let bad = |detail| TransportError::BadUrl { url: url.to_owned(), detail };
        let socket = WebSocket::new(url).map_err(|error| bad(text_of(&error)))?;
        socket.set_binary_type(BinaryType::Arraybuffer);
        let inbox = Rc::new(RefCell::new(Inbox::default()));
        let traffic = Arc::new(Traffic::default());

        let shared = inbox.clone();
        let open = Closure::new(move || {
            let mut inbox = shared.borrow_mut();
            inbox.open = true;
            inbox.wake();
        });
        let (shared, counter) = (inbox.clone(), traffic.clone());
        let message = Closure::new(move |event: MessageEvent| {
            let received = received(&event.data());
            let length = length(&received);
            counter.count_received(framed(length, false));
            let mut inbox = shared.borrow_mut();
            let waiting = inbox.waiting.saturating_add(length);
            if inbox.too_big.is_some() {
                return;
            }
            if length > frame_bytes_max {
                inbox.too_big = Some(format!("it has {length} bytes"));
            } else if waiting > frame_bytes_max.saturating_mul(WAITING_FRAMES) {
                inbox.too_big = Some(format!("with it {waiting} bytes wait to be taken"));
            } else {
                inbox.waiting = waiting;
                inbox.received.push_back(received);
            }
            inbox.wake();
        });
        let shared = inbox.clone();
        let close = Closure::new(move |event: CloseEvent| {
            let close = match event.code() {
                NO_CODE | NO_FRAME => Close::new(Close::LOST, "closed without a word"),
                code => Close::new(code, event.reason()),
            };
            let mut inbox = shared.borrow_mut();
            inbox.end.get_or_insert(close);
            inbox.wake();
        });
        socket.set_onopen(Some(open.as_ref().unchecked_ref()));
        socket.set_onmessage(Some(message.as_ref().unchecked_ref()));
        socket.set_onclose(Some(close.as_ref().unchecked_ref()));
        IGNORED.with(|ignored| socket.set_onerror(Some(ignored.as_ref().unchecked_ref())));
        let encrypted = url.starts_with("wss:");
        Ok(Self {
            socket,
            inbox,
            info: TransportInfo { remote: url.to_owned(), encrypted },
            traffic,
            drained: None,
            _handlers: Handlers { _open: open, _message: message, _close: close },
        })
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        let mut inbox = self.inbox.borrow_mut();
        if let Some(close) = &inbox.end {
            // Browsers do not tell a page why; that is in the console.
            let source = std::io::Error::other(format!("the connection failed ({})", close.code));
            let address = self.info.remote.clone();
            return Poll::Ready(Err(TransportError::Io {
                what: "cannot connect to",
                address,
                source,
            }));
        }
        if inbox.open {
            return Poll::Ready(Ok(()));
        }
        inbox.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn protocol(&self, detail: String) -> TransportError {
        TransportError::Protocol { address: self.info.remote.clone(), detail }
    }
}

impl Transport for BrowserTransport {
    fn info(&self) -> &TransportInfo {
        &self.info
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, TransportError>> {
        let mut inbox = self.inbox.borrow_mut();
        if let Some(received) = inbox.received.pop_front() {
            inbox.waiting -= length(&received);
            return Poll::Ready(Ok(received));
        }
        if let Some(detail) = inbox.too_big.clone() {
            let address = self.info.remote.clone();
            return Poll::Ready(Err(TransportError::TooBig { address, detail }));
        }
        if let Some(close) = &inbox.end {
            return Poll::Ready(Ok(Received::Closed(close.clone())));
        }
        inbox.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        while self.socket.buffered_amount() > BUFFERED_BYTES
            && self.socket.ready_state() == WebSocket::OPEN
        {
            let drained = self.drained.get_or_insert_with(|| TimeoutFuture::new(LOOK_AGAIN_MS));
            ready!(Pin::new(drained).poll(cx));
            self.drained = None;
        }
        Poll::Ready(Ok(()))
    }

    fn send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        let sent = self.socket.send_with_u8_array(&frame);
        sent.map_err(|error| self.protocol(text_of(&error)))?;
        self.traffic.count_sent(framed(frame.len(), true));
        Ok(())
    }

    fn poll_flush(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(
        &mut self,
        cx: &mut Context<'_>,
        close: &Close,
    ) -> Poll<Result<(), TransportError>> {
        if self.socket.ready_state() == WebSocket::OPEN {
            // Pages may give no other codes.
            let code = match close.code {
                code @ 3000..=4999 => code,
                _ => Close::NORMAL,
            };
            let fits = (0..=close.reason.len().min(REASON_BYTES_MAX))
                .rev()
                .find(|at| close.reason.is_char_boundary(*at))
                .unwrap_or(0);
            let closed = self.socket.close_with_code_and_reason(code, &close.reason[..fits]);
            closed.map_err(|error| self.protocol(text_of(&error)))?;
        }
        let mut inbox = self.inbox.borrow_mut();
        inbox.received.clear();
        inbox.waiting = 0;
        if inbox.end.is_some() {
            return Poll::Ready(Ok(()));
        }
        inbox.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn traffic(&self) -> Arc<Traffic> {
        self.traffic.clone()
    }
}

impl Drop for BrowserTransport {
    fn drop(&mut self) {
        self.socket.set_onopen(None);
        self.socket.set_onmessage(None);
        self.socket.set_onclose(None);
        // A socket that is closing or closed does not mind.
        let _ = self.socket.close();
    }
}

thread_local! {
    /// An error event says nothing that the close event after it does not; in Node one that nobody
    /// hears ends the process.
    static IGNORED: Closure<dyn FnMut()> = Closure::new(|| {});
}

/// What stands for a close frame without a code, and for none at all (RFC 6455, 7.4.1).
const NO_CODE: u16 = 1005;
const NO_FRAME: u16 = 1006;
/// A close frame holds 125 bytes, two of them the code.
const REASON_BYTES_MAX: usize = 123;

fn received(data: &JsValue) -> Received {
    match data.as_string() {
        Some(text) => Received::Text(text.into()),
        None => Received::Frame(js_sys::Uint8Array::new(data).to_vec().into()),
    }
}

fn length(received: &Received) -> usize {
    match received {
        Received::Frame(bytes) | Received::Text(bytes) => bytes.len(),
        Received::Closed(_) => 0,
    }
}

fn text_of(error: &JsValue) -> String {
    let message = error.dyn_ref::<js_sys::Error>().map(|error| String::from(error.message()));
    message.unwrap_or_else(|| format!("{error:?}"))
}
