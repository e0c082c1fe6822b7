//! A whole network of peers in one thread, on a simulated clock, from one seed.
//!
//! [`World`] is a [`Runtime`] and the executor for it: tasks run in the order in which they were
//! woken, time jumps to the next timer when nothing else can run, randomness comes from the seed. The
//! same seed gives the same run.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//! use datahike_peer::{Anyone, LinkOptions, Peer, Runtime, sim};
//!
//! let world = sim::World::new(7);
//! let server = Peer::builder(None, world.runtime()).authenticate(Anyone).build();
//! let client = Peer::builder(None, world.runtime()).build();
//! let network = sim::Network::new(&world);
//! network.listen("server", &server);
//! let link = client.link(network.dial("server"), LinkOptions::default());
//! let waiting = link.clone();
//! world.block_on(async move { waiting.connected().await }).expect("connects");
//! assert_eq!(server.connections().len(), 1);
//! world.advance(Duration::from_secs(3600));
//! assert_eq!(server.connections().len(), 1, "heartbeats keep it up");
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;

use crate::error::TransportError;
use crate::peer::Peer;
use crate::rt::{BoxFuture, Runtime, SharedRuntime, Time};
use crate::transport::memory::{self, Wire};
use crate::transport::{Dial, Transport};

/// The clock, the tasks and the randomness of a simulation. Clones are handles to the same one.
#[derive(Clone)]
pub struct World {
    inner: Arc<Inner>,
}

struct Inner {
    state: Mutex<State>,
    ready: Arc<Mutex<VecDeque<u64>>>,
}

struct State {
    now: Time,
    random: u64,
    next: u64,
    tasks: BTreeMap<u64, BoxFuture<'static, ()>>,
    timers: BTreeMap<(Time, u64), Waker>,
}

impl World {
    /// A world at time zero.
    pub fn new(seed: u64) -> Self {
        let state = State {
            now: Time::ZERO,
            random: seed,
            next: 0,
            tasks: BTreeMap::new(),
            timers: BTreeMap::new(),
        };
        Self { inner: Arc::new(Inner { state: Mutex::new(state), ready: Arc::default() }) }
    }

    /// It as a runtime for peers.
    pub fn runtime(&self) -> SharedRuntime {
        Arc::new(self.clone())
    }

    /// Runs tasks until none can go on without time passing.
    pub fn settle(&self) {
        while let Some(id) = { self.inner.ready.lock().pop_front() } {
            // Taken out while it runs, since it may spawn others.
            let Some(mut task) = self.inner.state.lock().tasks.remove(&id) else {
                continue;
            };
            let waker = Waker::from(Arc::new(TaskWaker {
                id,
                ready: self.inner.ready.clone(),
                queued: AtomicBool::new(false),
            }));
            if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
                self.inner.state.lock().tasks.insert(id, task);
            }
        }
    }

    /// Lets this much time pass, running what falls due in between.
    pub fn advance(&self, duration: Duration) {
        let until = self.now() + duration;
        self.settle();
        while self.step(until) {
            self.settle();
        }
        self.inner.state.lock().now = until;
    }

    /// Runs until this future is done, letting time pass as needed.
    ///
    /// # Panics
    /// If it can never be done: no task can run and no timer is set.
    pub fn block_on<F>(&self, future: F) -> F::Output
    where
        F: Future + crate::MaybeSend + 'static,
        F::Output: crate::MaybeSend + 'static,
    {
        let output = Arc::new(Mutex::new(None));
        let slot = output.clone();
        self.spawn(Box::pin(async move {
            let done = future.await;
            *slot.lock() = Some(done);
        }));
        loop {
            self.settle();
            if let Some(done) = output.lock().take() {
                return done;
            }
            let far = Time::after_start(Duration::MAX);
            assert!(self.step(far), "the simulation is stuck: nothing can run, no timer is set");
        }
    }

    /// Jumps to the next timer, if it is not after `until`.
    fn step(&self, until: Time) -> bool {
        let waker = {
            let mut state = self.inner.state.lock();
            match state.timers.first_key_value() {
                Some((&(time, _), _)) if time <= until => {
                    state.now = state.now.max(time);
                    state.timers.pop_first()
                }
                _ => None,
            }
        };
        match waker {
            Some((_, waker)) => {
                waker.wake();
                true
            }
            None => false,
        }
    }
}

impl Runtime for World {
    fn now(&self) -> Time {
        self.inner.state.lock().now
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let until = self.now() + duration;
        Box::pin(Sleep { world: self.clone(), until, timer: None })
    }

    fn spawn(&self, future: BoxFuture<'static, ()>) {
        let mut state = self.inner.state.lock();
        let id = state.next;
        state.next += 1;
        state.tasks.insert(id, future);
        self.inner.ready.lock().push_back(id);
    }

    /// SplitMix64.
    fn random(&self) -> u64 {
        let mut state = self.inner.state.lock();
        state.random = state.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("now", &self.now()).finish_non_exhaustive()
    }
}

struct TaskWaker {
    id: u64,
    ready: Arc<Mutex<VecDeque<u64>>>,
    queued: AtomicBool,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        // Each poll makes a new waker, so once per waker is enough.
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.lock().push_back(self.id);
        }
    }
}

struct Sleep {
    world: World,
    until: Time,
    timer: Option<(Time, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let world = self.world.clone();
        let mut state = world.inner.state.lock();
        if state.now >= self.until {
            return Poll::Ready(());
        }
        let until = self.until;
        let key = *self.timer.get_or_insert_with(|| {
            state.next += 1;
            (until, state.next)
        });
        state.timers.insert(key, cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.timer {
            let waker = self.world.inner.state.lock().timers.remove(&key);
            // Dropped outside the lock: a waker may own what owns timers.
            drop(waker);
        }
    }
}

/// A network in a [`World`]: names that peers listen under, and wires between them that can be cut.
#[derive(Clone, Debug)]
pub struct Network {
    world: World,
    state: Arc<Mutex<NetworkState>>,
}

#[derive(Debug, Default)]
struct NetworkState {
    listening: BTreeMap<String, Peer>,
    wires: BTreeMap<String, Vec<Wire>>,
    /// Bytes per direction of the wires to come.
    pipe_bytes: Option<usize>,
}

impl Network {
    /// An empty network.
    pub fn new(world: &World) -> Self {
        Self { world: world.clone(), state: Arc::default() }
    }

    /// Has this peer take connections under this name.
    pub fn listen(&self, name: &str, peer: &Peer) {
        self.state.lock().listening.insert(name.to_owned(), peer.clone());
    }

    /// Nobody listens under this name any more; connections that exist stay.
    pub fn silence(&self, name: &str) {
        self.state.lock().listening.remove(name);
    }

    /// Cuts every connection that was made to this name.
    pub fn cut(&self, name: &str) {
        let wires = self.state.lock().wires.remove(name).unwrap_or_default();
        for wire in wires {
            wire.cut();
        }
    }

    /// Lets wires made from now on hold this many bytes per direction.
    pub fn set_pipe_bytes(&self, bytes: usize) {
        self.state.lock().pipe_bytes = Some(bytes);
    }

    /// A way to whoever listens under this name.
    pub fn dial(&self, name: &str) -> Arc<dyn Dial> {
        Arc::new(NetworkDial { name: name.to_owned(), network: self.clone() })
    }

    /// Where its time comes from.
    pub fn world(&self) -> &World {
        &self.world
    }

    fn open(&self, name: &str) -> Result<Box<dyn Transport>, TransportError> {
        let refused = |detail: &str| TransportError::Io {
            what: "cannot connect to",
            address: name.to_owned(),
            source: std::io::Error::new(std::io::ErrorKind::ConnectionRefused, detail.to_owned()),
        };
        let (peer, pipe_bytes) = {
            let state = self.state.lock();
            let peer = state.listening.get(name).cloned();
            (peer.ok_or_else(|| refused("nobody listens"))?, state.pipe_bytes)
        };
        let (near, far) = memory::pair_with(pipe_bytes.unwrap_or(memory::PIPE_BYTES));
        let wire = near.wire();
        peer.accept(Box::new(far)).map_err(|refusal| refused(&refusal.message))?;
        self.state.lock().wires.entry(name.to_owned()).or_default().push(wire);
        Ok(Box::new(near.with_remote(name)))
    }
}

#[derive(Debug)]
struct NetworkDial {
    name: String,
    network: Network,
}

impl Dial for NetworkDial {
    fn address(&self) -> &str {
        &self.name
    }

    fn dial(&self) -> BoxFuture<'_, Result<Box<dyn Transport>, TransportError>> {
        Box::pin(async { self.network.open(&self.name) })
    }
}
