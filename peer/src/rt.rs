//! What differs between a native process, a browser and a simulation: time, tasks, randomness, and
//! whether things cross threads.

use std::fmt::Debug;
use std::future::Future;
use std::ops::{Add, Sub};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

/// `Send` on native targets; no bound in the browser, where nothing crosses threads.
#[cfg(not(target_family = "wasm"))]
pub trait MaybeSend: Send {}
#[cfg(not(target_family = "wasm"))]
impl<T: Send + ?Sized> MaybeSend for T {}
/// `Send` on native targets; no bound in the browser, where nothing crosses threads.
#[cfg(target_family = "wasm")]
pub trait MaybeSend {}
#[cfg(target_family = "wasm")]
impl<T: ?Sized> MaybeSend for T {}

/// `Sync` on native targets; no bound in the browser.
#[cfg(not(target_family = "wasm"))]
pub trait MaybeSync: Sync {}
#[cfg(not(target_family = "wasm"))]
impl<T: Sync + ?Sized> MaybeSync for T {}
/// `Sync` on native targets; no bound in the browser.
#[cfg(target_family = "wasm")]
pub trait MaybeSync {}
#[cfg(target_family = "wasm")]
impl<T: ?Sized> MaybeSync for T {}

/// A boxed future, `Send` on native targets.
#[cfg(not(target_family = "wasm"))]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;
/// A boxed future, `Send` on native targets.
#[cfg(target_family = "wasm")]
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// A moment on a runtime's own monotonic clock, counted from when that runtime began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(Duration);

impl Time {
    /// When the clock began.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// The moment this long after the clock began.
    pub fn after_start(elapsed: Duration) -> Self {
        Self(elapsed)
    }

    /// How long after the clock began this is.
    pub fn since_start(self) -> Duration {
        self.0
    }

    /// How long this is after `earlier`; zero if it is not after it.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Time {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl Sub for Time {
    type Output = Duration;
    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

/// Where a peer gets time, timers, tasks and randomness from. Handed in when the peer is built, so
/// that many peers can run in one thread on a simulated clock (see [`crate::sim`]).
pub trait Runtime: Debug + MaybeSend + MaybeSync {
    /// Now, on a clock that never goes back.
    fn now(&self) -> Time;

    /// Ends once this much time has passed.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Runs a future to its end, beside everything else. Nothing waits for it.
    fn spawn(&self, future: BoxFuture<'static, ()>);

    /// Sixty-four random bits. Peer ids and reconnect delays come from here.
    fn random(&self) -> u64;
}

/// A shared runtime.
pub type SharedRuntime = Arc<dyn Runtime>;

/// The future's output, or `None` if the time passes first.
pub async fn within<F: Future>(
    runtime: &dyn Runtime,
    limit: Duration,
    future: F,
) -> Option<F::Output> {
    let sleep = runtime.sleep(limit);
    let future = std::pin::pin!(future);
    match futures::future::select(future, sleep).await {
        futures::future::Either::Left((output, _)) => Some(output),
        futures::future::Either::Right(_) => None,
    }
}

/// The runtime of whoever calls: tokio's that is current, or the event loop of the browser.
///
/// # Panics
/// Natively, outside a tokio runtime.
pub fn current() -> SharedRuntime {
    #[cfg(not(target_family = "wasm"))]
    return Arc::new(TokioRuntime::current());
    #[cfg(target_family = "wasm")]
    return Arc::new(BrowserRuntime);
}

#[cfg(target_family = "wasm")]
pub use browser::BrowserRuntime;
#[cfg(not(target_family = "wasm"))]
pub use native::TokioRuntime;

#[cfg(target_family = "wasm")]
mod browser {
    use std::time::Duration;

    use gloo_timers::future::TimeoutFuture;
    use wasm_bindgen::prelude::wasm_bindgen;

    use super::{BoxFuture, Runtime, Time};

    #[wasm_bindgen]
    extern "C" {
        // Pages, workers and Node all have it.
        #[wasm_bindgen(js_namespace = performance, js_name = now)]
        fn performance_now() -> f64;
    }

    /// The event loop of a page, a worker or Node.
    #[derive(Clone, Copy, Debug, Default)]
    pub struct BrowserRuntime;

    impl Runtime for BrowserRuntime {
        fn now(&self) -> Time {
            Time::after_start(Duration::from_secs_f64((performance_now() / 1e3).max(0.0)))
        }

        fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
            // A timer longer than this would end at once.
            let millis = duration.as_micros().div_ceil(1000).min(i32::MAX as u128) as u32;
            Box::pin(TimeoutFuture::new(millis))
        }

        fn spawn(&self, future: BoxFuture<'static, ()>) {
            wasm_bindgen_futures::spawn_local(future);
        }

        fn random(&self) -> u64 {
            uuid::Uuid::new_v4().as_u64_pair().1.rotate_left(32)
                ^ uuid::Uuid::new_v4().as_u64_pair().0
        }
    }
}

#[cfg(not(target_family = "wasm"))]
mod native {
    use std::time::{Duration, Instant};

    use super::{BoxFuture, Runtime, Time};

    /// The tokio runtime that is current where this is made.
    #[derive(Debug, Clone)]
    pub struct TokioRuntime {
        handle: tokio::runtime::Handle,
        began: Instant,
    }

    impl TokioRuntime {
        /// The runtime that runs the caller.
        ///
        /// # Panics
        /// Outside a tokio runtime.
        pub fn current() -> Self {
            Self { handle: tokio::runtime::Handle::current(), began: Instant::now() }
        }
    }

    impl Runtime for TokioRuntime {
        fn now(&self) -> Time {
            Time::after_start(self.began.elapsed())
        }

        fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
            let _entered = self.handle.enter();
            Box::pin(tokio::time::sleep(duration))
        }

        fn spawn(&self, future: BoxFuture<'static, ()>) {
            self.handle.spawn(future);
        }

        fn random(&self) -> u64 {
            uuid::Uuid::new_v4().as_u64_pair().1.rotate_left(32)
                ^ uuid::Uuid::new_v4().as_u64_pair().0
        }
    }
}
