//! Where long-lived work of a connection runs: a thread of its own natively, the event loop in a
//! browser.

use std::future::Future;

/// Runs `work` to its end beside the caller.
///
/// A writer spends its time waiting for a medium: on a thread of its own it may block there, which
/// saves a change of threads per commit, and needs no runtime around it.
///
/// # Errors
/// If the system gives no thread.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn spawn(
    name: &str,
    work: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || futures::executor::block_on(work))
        .map(drop)
}

/// Runs `work` to its end beside the caller.
///
/// # Errors
/// Never; natively the system may give no thread.
#[cfg(target_family = "wasm")]
pub(crate) fn spawn(_: &str, work: impl Future<Output = ()> + 'static) -> std::io::Result<()> {
    wasm_bindgen_futures::spawn_local(work);
    Ok(())
}

/// Lets other threads go before this one, where the system knows how: what it does can wait.
pub(crate) fn give_way() {
    #[cfg(target_os = "linux")]
    {
        // Without it the work is done all the same.
        let _ = rustix::process::setpriority_process(None, BEHIND);
    }
}

/// A nice value; threads of ordinary priority get about nine times as much of a processor.
#[cfg(target_os = "linux")]
const BEHIND: i32 = 10;

/// Time since 1970-01-01T00:00Z, as exact as the clock is; for differences.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn now() -> std::time::Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// Time since 1970-01-01T00:00Z, as exact as the clock is; for differences.
#[cfg(target_family = "wasm")]
pub(crate) fn now() -> std::time::Duration {
    std::time::Duration::from_secs_f64((js_sys::Date::now() / 1e3).max(0.0))
}

/// Milliseconds since 1970-01-01T00:00Z, by the clock of the system.
#[cfg(not(target_family = "wasm"))]
pub(crate) fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |elapsed| i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

/// Milliseconds since 1970-01-01T00:00Z, by the clock of the browser.
#[cfg(target_family = "wasm")]
pub(crate) fn now_ms() -> i64 {
    js_sys::Date::now() as i64
}

/// Lets time pass, on a thread that is there for it; in a browser none passes.
pub(crate) async fn pause(time: std::time::Duration) {
    #[cfg(not(target_family = "wasm"))]
    std::thread::sleep(time);
    let _ = time;
}

/// How long something takes.
#[cfg(not(target_family = "wasm"))]
pub(crate) struct Clock(std::time::Instant);

#[cfg(not(target_family = "wasm"))]
impl Clock {
    pub(crate) fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// Microseconds since the start.
    pub(crate) fn micros(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// How long something takes: in a browser nobody knows.
#[cfg(target_family = "wasm")]
pub(crate) struct Clock;

#[cfg(target_family = "wasm")]
impl Clock {
    pub(crate) fn start() -> Self {
        Self
    }

    /// As long as can be.
    pub(crate) fn micros(&self) -> u64 {
        u64::MAX
    }
}
