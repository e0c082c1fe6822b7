//! WebSocket over TCP, with TLS towards `wss://`.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::{Sink, Stream};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{Connector, WebSocketStream};

use super::{Dial, Received, Traffic, Transport, TransportInfo};
use crate::connection::Connection;
use crate::error::{Close, TransportError};
use crate::limits::Limits;
use crate::link::{Link, LinkOptions};
use crate::peer::{Peer, PeerBuilder};
use crate::rt::{BoxFuture, within};

/// Allocated for every connection at once, so small: thousands of connections are idle.
const READ_BUFFER_BYTES: usize = 8 << 10;
/// What waits in the transport before it is written without being flushed.
const WRITE_BUFFER_BYTES: usize = 128 << 10;

fn config(limits: &Limits) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(WRITE_BUFFER_BYTES)
        // A frame is only handed over once what waited before it has left or is below the line above.
        .max_write_buffer_size(WRITE_BUFFER_BYTES + limits.frame_bytes + READ_BUFFER_BYTES)
        .max_message_size(Some(limits.frame_bytes))
        .max_frame_size(Some(limits.frame_bytes))
}

impl Peer {
    /// Keeps a connection to a `ws://` or `wss://` address.
    pub fn connect(&self, url: impl Into<String>, options: LinkOptions) -> Link {
        let roots = self.inner.trust.roots.clone();
        let dial = WebSocketDial { url: url.into(), limits: self.limits().clone(), roots };
        self.link(Arc::new(dial), options)
    }

    /// Takes connections from this listener until the peer shuts down.
    ///
    /// # Errors
    /// If the listener fails for good.
    pub async fn serve(&self, listener: TcpListener) -> io::Result<()> {
        let mut stopped = self.inner.stopped.subscribe();
        loop {
            let accepted = listener.accept();
            let stop = stopped.wait_for(|stopped| *stopped);
            let (accepted, stop) = (std::pin::pin!(accepted), std::pin::pin!(stop));
            let accepted = match futures::future::select(accepted, stop).await {
                futures::future::Either::Left((accepted, _)) => accepted,
                futures::future::Either::Right(_) => return Ok(()),
            };
            match accepted {
                Ok((stream, from)) => {
                    if self.connection_count() >= self.limits().connections {
                        tracing::warn!(%from, "too many connections, one was turned away");
                        continue;
                    }
                    let peer = self.clone();
                    self.runtime().spawn(Box::pin(async move {
                        if let Err(error) = peer.accept_stream(stream, from).await {
                            tracing::debug!(%from, %error, "a connection did not come about");
                        }
                    }));
                }
                // One connection failed, or files ran out: the listener itself is fine. The pause
                // keeps the latter from spinning.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    self.runtime().sleep(std::time::Duration::from_millis(50)).await;
                }
            }
        }
    }

    /// Upgrades one accepted stream to WebSocket and takes it.
    ///
    /// # Errors
    /// If the upgrade fails or takes too long, or there is no place for it.
    pub async fn accept_stream(
        &self,
        stream: TcpStream,
        from: SocketAddr,
    ) -> Result<Connection, TransportError> {
        let _ = stream.set_nodelay(true);
        let limits = self.limits().clone();
        let stream = Counted::new(stream, limits.handshake_frame_bytes as u64);
        let counter = stream.counter.clone();
        let upgrade = tokio_tungstenite::accept_async_with_config(stream, Some(config(&limits)));
        let address = from.to_string();
        let Some(socket) = within(&**self.runtime(), limits.handshake, upgrade).await else {
            let seconds = limits.handshake.as_secs_f32();
            return Err(TransportError::Timeout { address, seconds });
        };
        let socket = socket.map_err(|error| failure(error, &address))?;
        let info = TransportInfo { remote: address.clone(), encrypted: false };
        let transport = WebSocketTransport { socket, info, counter, closing: false };
        self.accept(Box::new(transport))
            .map_err(|refusal| TransportError::Protocol { address, detail: refusal.to_string() })
    }
}

/// Dials a `ws://` or `wss://` address.
#[derive(Clone, Debug)]
pub struct WebSocketDial {
    url: String,
    limits: Limits,
    roots: Arc<[CertificateDer<'static>]>,
}

impl PeerBuilder {
    /// Trusts `wss://` servers whose certificates these PEM certificates vouch for, besides those
    /// that the public authorities do (the roots of Mozilla).
    ///
    /// # Errors
    /// [`TransportError::Untrusted`] if that is not PEM, or holds no certificate that can be a root.
    pub fn trust(mut self, pem: &[u8]) -> Result<Self, TransportError> {
        let unusable = |detail: String| TransportError::Untrusted {
            address: "the root certificates that were given".to_owned(),
            detail,
        };
        let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let parsed = parsed.map_err(|error| unusable(error.to_string()))?;
        if parsed.is_empty() {
            return Err(unusable("there is none".to_owned()));
        }
        for root in &parsed {
            let added = rustls::RootCertStore::empty().add(root.clone());
            added.map_err(|error| unusable(error.to_string()))?;
        }
        self.inner.trust.roots = self.inner.trust.roots.iter().cloned().chain(parsed).collect();
        Ok(self)
    }
}

impl WebSocketDial {
    /// Dials this address, taking frames within these limits. Of `wss://` servers those are trusted
    /// that the public authorities vouch for.
    pub fn new(url: impl Into<String>, limits: Limits) -> Self {
        Self { url: url.into(), limits, roots: Arc::from([]) }
    }

    async fn open(&self) -> Result<Box<dyn Transport>, TransportError> {
        let bad = |detail: &str| TransportError::BadUrl {
            url: self.url.clone(),
            detail: detail.to_owned(),
        };
        let uri: tungstenite::http::Uri = self.url.parse().map_err(|_| bad("it is no URL"))?;
        let (encrypted, default_port) = match uri.scheme_str() {
            Some("ws") => (false, 80),
            Some("wss") => (true, 443),
            _ => return Err(bad("it begins neither with ws:// nor with wss://")),
        };
        let host = uri.host().ok_or_else(|| bad("it names no host"))?;
        let port = uri.port_u16().unwrap_or(default_port);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, port)).await.map_err(|source| {
            TransportError::Io { what: "cannot connect to", address: self.url.clone(), source }
        })?;
        let _ = stream.set_nodelay(true);
        let stream = Counted::new(stream, u64::MAX);
        let counter = stream.counter.clone();
        let connector = match encrypted {
            true => Connector::Rustls(tls(&self.url, &self.roots)?),
            false => Connector::Plain,
        };
        let (socket, _) = tokio_tungstenite::client_async_tls_with_config(
            self.url.as_str(),
            stream,
            Some(config(&self.limits)),
            Some(connector),
        )
        .await
        .map_err(|error| failure(error, &self.url))?;
        let info = TransportInfo { remote: self.url.clone(), encrypted };
        Ok(Box::new(WebSocketTransport { socket, info, counter, closing: false }))
    }
}

impl Dial for WebSocketDial {
    fn address(&self) -> &str {
        &self.url
    }

    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Transport>, TransportError>> {
        Box::pin(self.open())
    }
}

fn tls(
    address: &str,
    more: &[CertificateDer<'static>],
) -> Result<Arc<rustls::ClientConfig>, TransportError> {
    let mut roots = rustls::RootCertStore::empty();
    roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    roots.add_parsable_certificates(more.iter().cloned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| untrusted(address, &error))?;
    Ok(Arc::new(config.with_root_certificates(roots).with_no_client_auth()))
}

fn untrusted(address: &str, error: &rustls::Error) -> TransportError {
    TransportError::Untrusted { address: address.to_owned(), detail: error.to_string() }
}

fn failure(error: tungstenite::Error, address: &str) -> TransportError {
    match error {
        tungstenite::Error::Io(source) => {
            let tls = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match tls {
                Some(error) => untrusted(address, error),
                None => TransportError::Io { what: "lost", address: address.to_owned(), source },
            }
        }
        tungstenite::Error::Tls(error) => {
            TransportError::Untrusted { address: address.to_owned(), detail: error.to_string() }
        }
        tungstenite::Error::Capacity(error) => {
            TransportError::TooBig { address: address.to_owned(), detail: error.to_string() }
        }
        error => {
            TransportError::Protocol { address: address.to_owned(), detail: error.to_string() }
        }
    }
}

struct WebSocketTransport<S> {
    socket: WebSocketStream<S>,
    info: TransportInfo,
    counter: Arc<Counter>,
    closing: bool,
}

type Poller<T> = Poll<Result<T, TransportError>>;

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Transport for WebSocketTransport<S> {
    fn info(&self) -> &TransportInfo {
        &self.info
    }

    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poller<Received> {
        loop {
            let received = match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(Message::Binary(frame))) => Received::Frame(frame),
                Some(Ok(Message::Text(text))) => Received::Text(text.into()),
                Some(Ok(Message::Close(Some(frame)))) => {
                    Received::Closed(Close::new(frame.code.into(), frame.reason.as_str()))
                }
                Some(Ok(Message::Close(None))) => {
                    Received::Closed(Close::new(Close::NORMAL, "closed without a reason"))
                }
                // The library answers pings by itself; ours are messages, since a browser cannot send
                // WebSocket pings.
                Some(Ok(_)) => continue,
                Some(Err(tungstenite::Error::ConnectionClosed)) | None => {
                    Received::Closed(Close::new(Close::LOST, "closed without a word"))
                }
                Some(Err(error)) => return Poll::Ready(Err(failure(error, &self.info.remote))),
            };
            return Poll::Ready(Ok(received));
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poller<()> {
        let ready = ready!(Pin::new(&mut self.socket).poll_ready(cx));
        Poll::Ready(ready.map_err(|error| failure(error, &self.info.remote)))
    }

    fn send(&mut self, frame: Bytes) -> Result<(), TransportError> {
        let sent = Pin::new(&mut self.socket).start_send(Message::Binary(frame));
        sent.map_err(|error| failure(error, &self.info.remote))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poller<()> {
        let flushed = ready!(Pin::new(&mut self.socket).poll_flush(cx));
        Poll::Ready(flushed.map_err(|error| failure(error, &self.info.remote)))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>, close: &Close) -> Poller<()> {
        if !self.closing {
            ready!(self.poll_ready(cx))?;
            let mut reason = close.reason.clone();
            // A close frame holds at most 125 bytes, two of them the code.
            let fits = (0..=reason.len().min(123)).rev().find(|at| reason.is_char_boundary(*at));
            reason.truncate(fits.unwrap_or(0));
            let code = match close.code {
                Close::LOST => Close::GOING_AWAY,
                code => code,
            };
            let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
            let sent = Pin::new(&mut self.socket).start_send(Message::Close(Some(frame)));
            sent.map_err(|error| failure(error, &self.info.remote))?;
            self.closing = true;
        }
        ready!(self.poll_flush(cx))?;
        // Dropping the socket with something unread in it would reset the connection and take our
        // close frame with it, so read on until the other side has answered.
        loop {
            match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Poll::Ready(Ok(())),
            }
        }
    }

    fn opened(&mut self) {
        self.counter.unlimited.store(true, Ordering::Relaxed);
    }

    fn traffic(&self) -> Arc<Traffic> {
        self.counter.traffic.clone()
    }
}

/// Counts the bytes of a stream, and keeps a stranger from sending much before the hello.
struct Counted<S> {
    stream: S,
    counter: Arc<Counter>,
}

struct Counter {
    traffic: Arc<Traffic>,
    stranger_bytes: u64,
    unlimited: AtomicBool,
}

impl<S> Counted<S> {
    fn new(stream: S, stranger_bytes: u64) -> Self {
        let traffic = Arc::default();
        let unlimited = AtomicBool::new(false);
        Self { stream, counter: Arc::new(Counter { traffic, stranger_bytes, unlimited }) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        let total = self.counter.traffic.count_received(read);
        if total > self.counter.stranger_bytes && !self.counter.unlimited.load(Ordering::Relaxed) {
            let reason = "too many bytes before the hello was done";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, reason)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.counter.traffic.count_sent(written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
