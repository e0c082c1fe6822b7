//! One port for WebSocket and HTTP: what a connection asks for first decides.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use datahike::peer::Peer;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// HTTP connections at once.
const CONNECTIONS_MAX: usize = 4_096;

/// Bytes of a request's head that are looked at before it is decided what it is.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// How long a head may take to come.
const HEAD: Duration = Duration::from_secs(10);

/// Between two looks at a head that is not complete.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// After an error of the listener, which may mean that there are no more files.
const PAUSE: Duration = Duration::from_millis(50);

/// Who is asking over HTTP.
pub(crate) struct Asking {
    connections: GracefulShutdown,
}

impl Asking {
    /// Lets requests that have begun get their answers, for so long.
    pub(crate) async fn answered(self, limit: Duration) {
        if tokio::time::timeout(limit, self.connections.shutdown()).await.is_err() {
            tracing::warn!("some requests took too long and are cut off");
        }
    }
}

/// Takes connections until it is told to stop, and gives those that are left. A listener that fails
/// is asked again.
pub(crate) async fn serve(
    listener: TcpListener,
    peer: Peer,
    router: Router,
    stopped: impl Future<Output = ()>,
) -> Asking {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Empty once the server stops: who has not asked by then is not answered.
    let open = Arc::new(Mutex::new(Some(GracefulShutdown::new())));
    let mut stopped = std::pin::pin!(stopped);
    loop {
        let accepted = tokio::select! {
            () = &mut stopped => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let (peer, router) = (peer.clone(), router.clone());
        let (places, open) = (Arc::clone(&places), Arc::clone(&open));
        tokio::spawn(async move {
            match tokio::time::timeout(HEAD, first(&stream)).await {
                Ok(Ok(First::WebSocket)) => websocket(&peer, stream, from).await,
                Ok(Ok(First::Http)) => {
                    let watcher = open.lock().as_ref().map(GracefulShutdown::watcher);
                    match (places.try_acquire(), watcher) {
                        (Ok(_place), Some(watcher)) => http(stream, from, router, watcher).await,
                        (Ok(_), None) => {}
                        (Err(_), _) => {
                            tracing::warn!(%from, "too many connections, one was turned away");
                        }
                    }
                }
                Ok(Err(error)) => tracing::debug!(%from, %error, "a connection did not come about"),
                Err(_) => tracing::debug!(%from, "a request's head took too long"),
            }
        });
    }
    let connections = open.lock().take().unwrap_or_default();
    Asking { connections }
}

enum First {
    WebSocket,
    Http,
}

/// What a connection asks for, without taking it from the stream.
async fn first(stream: &TcpStream) -> io::Result<First> {
    let mut head = vec![0; HEAD_BYTES_MAX];
    loop {
        stream.readable().await?;
        let seen = stream.peek(&mut head).await?;
        let seen = &head[..seen];
        if seen.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let end = seen.windows(4).any(|four| four == b"\r\n\r\n");
        let upgrades = seen
            .to_ascii_lowercase()
            .split(|byte| *byte == b'\n')
            .any(|line| line.starts_with(b"upgrade:") && line.ends_with(b"websocket\r"));
        match (upgrades, end || seen.len() == HEAD_BYTES_MAX || !seen.is_ascii()) {
            (true, _) => return Ok(First::WebSocket),
            (false, true) => return Ok(First::Http),
            (false, false) => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
}

async fn websocket(peer: &Peer, stream: TcpStream, from: SocketAddr) {
    if peer.connection_count() >= peer.limits().connections {
        tracing::warn!(%from, "too many connections, one was turned away");
        return;
    }
    if let Err(error) = peer.accept_stream(stream, from).await {
        tracing::debug!(%from, %error, "a connection did not come about");
    }
}

async fn http(stream: TcpStream, from: SocketAddr, router: Router, watcher: Watcher) {
    let _ = stream.set_nodelay(true);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES_MAX * 4);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(64);
    let service = TowerToHyperService::new(router);
    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%from, %error, "a connection ended early");
    }
}
