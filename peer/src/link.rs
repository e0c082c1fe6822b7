//! A connection that is kept up: dialled, lost, dialled again.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{Either, select};
use tokio::sync::watch;

use crate::connection::{Connection, LinkId};
use crate::error::{Close, Refusal, TransportError};
use crate::hello::Token;
use crate::peer::Peer;
use crate::rt::within;
use crate::transport::Dial;

/// How a [`Link`] behaves.
#[derive(Clone, Debug)]
pub struct LinkOptions {
    /// What proves who this side is.
    pub token: Option<Token>,
    /// How long to wait between attempts.
    pub backoff: Backoff,
}

impl Default for LinkOptions {
    fn default() -> Self {
        Self { token: None, backoff: Backoff::DEFAULT }
    }
}

/// Waits between attempts: a random part of a span that doubles with every failure, so that clients
/// that lost the same server do not return in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The span after the first failure.
    pub first: Duration,
    /// The longest span.
    pub longest: Duration,
}

impl Backoff {
    /// 250 ms to 30 s.
    pub const DEFAULT: Self =
        Self { first: Duration::from_millis(250), longest: Duration::from_secs(30) };

    /// How long to wait after this many failures in a row (at least one), given 64 random bits.
    pub fn delay(&self, failures: u32, random: u64) -> Duration {
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(20));
        let part = (random >> 11) as f64 / (1u64 << 53) as f64;
        doubled.min(self.longest).mul_f64(part)
    }
}

/// Where a [`Link`] stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum LinkState {
    /// Dialling, or in the hello.
    Connecting,
    /// There is a connection.
    Connected(Connection),
    /// The last connection or attempt ended; another attempt follows.
    Disconnected {
        /// Why, for people.
        reason: String,
    },
    /// The other side refused for a reason that trying again will not change. [`Link::retry`] tries
    /// nevertheless, once there is reason to.
    Refused(Refusal),
    /// Closed from this side.
    Closed,
}

/// Keeps a connection to one address. When the last clone is dropped, it closes.
#[derive(Clone)]
pub struct Link {
    handle: Arc<Handle>,
}

struct Handle {
    id: LinkId,
    peer: Peer,
    address: String,
    state: watch::Receiver<LinkState>,
    /// False once it shall end.
    wanted: watch::Sender<bool>,
    retry: Arc<tokio::sync::Notify>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.wanted.send_replace(false);
    }
}

impl Link {
    pub(crate) fn start(peer: Peer, id: LinkId, dial: Arc<dyn Dial>, options: LinkOptions) -> Self {
        let (state, receiver) = watch::channel(LinkState::Connecting);
        let (wanted, stop) = watch::channel(true);
        let retry = Arc::new(tokio::sync::Notify::new());
        let address = dial.address().to_owned();
        let runtime = peer.runtime().clone();
        let keeper =
            Keeper { peer: peer.clone(), id, dial, options, state, stop, retry: retry.clone() };
        runtime.spawn(Box::pin(keeper.run()));
        Self { handle: Arc::new(Handle { id, peer, address, state: receiver, wanted, retry }) }
    }

    /// Its number; subscriptions and calls that name it survive reconnects.
    pub fn id(&self) -> LinkId {
        self.handle.id
    }

    /// The peer on this side.
    pub fn peer(&self) -> &Peer {
        &self.handle.peer
    }

    /// Where it leads.
    pub fn address(&self) -> &str {
        &self.handle.address
    }

    /// Where it stands now.
    pub fn state(&self) -> LinkState {
        self.handle.state.borrow().clone()
    }

    /// Every change of where it stands; intermediate ones may be skipped.
    pub fn states(&self) -> watch::Receiver<LinkState> {
        self.handle.state.clone()
    }

    /// The connection, if there is one now.
    pub fn connection(&self) -> Option<Connection> {
        match &*self.handle.state.borrow() {
            LinkState::Connected(connection) if connection.is_open() => Some(connection.clone()),
            _ => None,
        }
    }

    /// Waits for a connection, as long as there is hope; bound it with a deadline of your own.
    ///
    /// # Errors
    /// If the other side refuses for good, or the link is closed.
    pub async fn connected(&self) -> Result<Connection, Refusal> {
        let mut states = self.states();
        loop {
            match &*states.borrow_and_update() {
                LinkState::Connected(connection) if connection.is_open() => {
                    return Ok(connection.clone());
                }
                LinkState::Refused(refusal) => return Err(refusal.clone()),
                LinkState::Closed => return Err(closed()),
                _ => {}
            }
            if states.changed().await.is_err() {
                return Err(closed());
            }
        }
    }

    /// Tries again at once, whether it waits between attempts or was refused.
    pub fn retry(&self) {
        self.handle.retry.notify_one();
    }

    /// Closes it for good.
    pub fn close(&self) {
        self.handle.wanted.send_replace(false);
    }
}

fn closed() -> Refusal {
    Refusal::new("peer/closed", "the link is closed")
}

struct Keeper {
    peer: Peer,
    id: LinkId,
    dial: Arc<dyn Dial>,
    options: LinkOptions,
    state: watch::Sender<LinkState>,
    stop: watch::Receiver<bool>,
    retry: Arc<tokio::sync::Notify>,
}

/// How an attempt, or the connection it made, ended.
enum Outcome {
    /// Try again; the connection had been open or not.
    Lost {
        reason: String,
        was_open: bool,
    },
    Refused(Refusal),
    Stopped,
}

impl Keeper {
    async fn run(mut self) {
        let mut failures = 0u32;
        loop {
            self.state.send_replace(LinkState::Connecting);
            match self.attempt().await {
                Outcome::Stopped => break,
                Outcome::Refused(refusal) => {
                    tracing::warn!(address = self.dial.address(), %refusal, "refused");
                    self.state.send_replace(LinkState::Refused(refusal));
                    let retry = self.retry.clone();
                    if self.unless_stopped(retry.notified()).await.is_none() {
                        break;
                    }
                    failures = 0;
                }
                Outcome::Lost { reason, was_open } => {
                    failures = if was_open { 1 } else { failures.saturating_add(1) };
                    tracing::debug!(
                        address = self.dial.address(),
                        reason,
                        failures,
                        "disconnected"
                    );
                    self.state.send_replace(LinkState::Disconnected { reason });
                    let runtime = self.peer.runtime().clone();
                    let delay = self.options.backoff.delay(failures, runtime.random());
                    let retry = self.retry.clone();
                    let retried = std::pin::pin!(retry.notified());
                    let pause = select(runtime.sleep(delay), retried);
                    if self.unless_stopped(pause).await.is_none() {
                        break;
                    }
                }
            }
        }
        self.state.send_replace(LinkState::Closed);
    }

    async fn attempt(&mut self) -> Outcome {
        let runtime = self.peer.runtime().clone();
        let limit = self.peer.limits().handshake;
        let dial = self.dial.clone();
        let transport = match self.unless_stopped(within(&*runtime, limit, dial.dial())).await {
            None => return Outcome::Stopped,
            Some(Some(Ok(transport))) => transport,
            Some(Some(Err(TransportError::BadUrl { url, detail }))) => {
                return Outcome::Refused(Refusal::new(
                    "peer/bad-address",
                    format!("{url:?} is not an address to connect to: {detail}"),
                ));
            }
            // Whoever it is will not become another by being asked again.
            Some(Some(Err(error @ TransportError::Untrusted { .. }))) => {
                return Outcome::Refused(Refusal::new("peer/untrusted", error.to_string()));
            }
            Some(Some(Err(error))) => {
                return Outcome::Lost { reason: error.to_string(), was_open: false };
            }
            Some(None) => {
                let seconds = limit.as_secs_f32();
                let address = dial.address().to_owned();
                let reason = TransportError::Timeout { address, seconds }.to_string();
                return Outcome::Lost { reason, was_open: false };
            }
        };
        let token = self.options.token.clone();
        let connection = match self.peer.attach_dialled(transport, token, Some(self.id)) {
            Ok(connection) => connection,
            Err(refusal) => return Outcome::Refused(refusal),
        };
        let opened = match self.unless_stopped(connection.open()).await {
            None => {
                connection.close(Close::new(Close::NORMAL, "closed"));
                return Outcome::Stopped;
            }
            Some(opened) => opened.map(|_| ()),
        };
        let (ended, was_open) = match opened {
            Err(ended) => (ended, false),
            Ok(()) => {
                self.state.send_replace(LinkState::Connected(connection.clone()));
                match self.unless_stopped(connection.ended()).await {
                    Some(ended) => (ended, true),
                    None => {
                        connection.close(Close::new(Close::NORMAL, "closed"));
                        return Outcome::Stopped;
                    }
                }
            }
        };
        match ended.refusal {
            Some(refusal) if is_final(&refusal) => Outcome::Refused(refusal),
            _ => Outcome::Lost { reason: ended.close.to_string(), was_open },
        }
    }

    /// The future's output, or nothing once the link or the peer shall end.
    async fn unless_stopped<F: Future>(&self, future: F) -> Option<F::Output> {
        let mut wanted = self.stop.clone();
        let mut stopped = self.peer.inner.stopped.subscribe();
        let stop = async {
            let unwanted = std::pin::pin!(wanted.wait_for(|wanted| !wanted));
            let stopped = std::pin::pin!(stopped.wait_for(|stopped| *stopped));
            select(unwanted, stopped).await;
        };
        match select(std::pin::pin!(future), std::pin::pin!(stop)).await {
            Either::Left((output, _)) => Some(output),
            Either::Right(_) => None,
        }
    }
}

/// Whether trying again would only be refused again.
fn is_final(refusal: &Refusal) -> bool {
    !matches!(refusal.code.text(), "peer/overloaded" | "peer/stopping")
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("id", &self.handle.id.0)
            .field("address", &self.handle.address)
            .finish_non_exhaustive()
    }
}
