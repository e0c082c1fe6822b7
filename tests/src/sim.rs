//! A simulated network: one server and several mirrors in one thread, on one clock, from one seed.
//!
//! The machines of `datahike-sync` run as they do in a process; what is simulated is everything
//! around them: messages take time and connections drop, reading and writing takes time, mirrors
//! and server crash between any two effects and start again with what was durable, the server's
//! log and blocks are collected, and its store is restored from a backup. After every step the
//! laws are checked, and at the end, when faults have ceased, all must have converged.
//!
//! The database is behind [`Site`] and [`Replicated`]: [`model`] has one of plain numbers, which
//! also plays what a real one does rarely, and [`real`] is the real one. A run is a function of its seed; a failure names it.

pub mod model;
pub mod real;
mod trace;
mod world;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use datahike_sync::{FlushPoint, Head, Mode, Point, Replica, Source};
use rand_chacha::ChaCha8Rng;

pub use self::world::run;

/// The server's database. It survives crashes of the server: what these methods have done is
/// durable.
pub trait Site {
    /// What the providers ask.
    fn source(&self) -> Arc<dyn Source>;
    /// Makes a commit of random content.
    fn commit(&mut self, rng: &mut ChaCha8Rng) -> (Point, Bytes);
    /// Writes the indexes out, if there is anything to write.
    fn flush(&mut self) -> Option<FlushPoint>;
    /// Gives up some of what is not needed for the newest flush and the commits after it.
    fn collect(&mut self, rng: &mut ChaCha8Rng);
    /// Goes back to an older state, as after a restore from a backup; whether there was one.
    fn restore(&mut self, rng: &mut ChaCha8Rng) -> bool;
    /// Starts again after a crash, with what is durable.
    fn restart(&mut self) {}
    /// Where it stands.
    fn head(&self) -> Head;
    /// Digest of the content as of any commit that was ever made.
    fn digest(&self, at: &Point) -> Option<[u8; 32]>;
}

/// The commit at which a copy can be read, and the digest of what is read there if all is there.
pub type Reading = (Point, Option<[u8; 32]>);

/// A mirror's copy. It survives crashes of the mirror.
pub trait Replicated {
    /// Opens it, as a process does that has just started.
    fn open(&mut self) -> Arc<dyn Replica>;
    /// What is kept of the database.
    fn mode(&self) -> Mode;
    /// What can be read; `None` if there is no snapshot yet.
    ///
    /// # Errors
    /// If there is a commit that should be readable and is not.
    fn read(&self) -> Result<Option<Reading>, String>;
    /// Is told that it follows another history from here on.
    fn was_reset(&mut self) {}
    /// Checks what listeners have seen: every commit once and in order, except across a jump.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check(&self) -> Result<(), String>;
}

/// How rough a run is.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long faults and commits go on, in simulated time.
    pub duration: Duration,
    /// How long all may take to converge afterwards.
    pub settle: Duration,
    /// Mean time between the server's commits while it is busy.
    pub commit_every: Duration,
    /// Mean time between faults of any kind.
    pub fault_every: Duration,
    /// Of every hundred faults, how many are restores of the server from a backup.
    pub restores: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(12),
            settle: Duration::from_secs(240),
            commit_every: Duration::from_millis(100),
            fault_every: Duration::from_millis(400),
            restores: 3,
        }
    }
}

/// What happened in a run that kept the laws.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Commits of the server.
    pub commits: u64,
    /// Messages that arrived.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Crashes of mirrors and of the server.
    pub crashes: u64,
    /// Connections that dropped.
    pub drops: u64,
    /// Resets that mirrors went through.
    pub resets: u64,
    /// Snapshots and differences that mirrors took in.
    pub jumps: u64,
    /// Faults that mirrors reported.
    pub faults: u64,
    /// A hash over all events in their order: equal for equal seeds.
    pub trace: u64,
}

/// A law that was broken.
#[derive(Debug, thiserror::Error)]
#[error("seed {seed}: {what}\nrun it again with SEED={seed}; the last events were\n{trace}")]
pub struct Broken {
    /// The run.
    pub seed: u64,
    /// What should not have been.
    pub what: String,
    /// What happened before.
    pub trace: String,
}

/// The seeds to run: `SEED` alone if it is set, else so many as `SIM_SEEDS` says, else `count`.
pub fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name| std::env::var(name).ok().and_then(|text: String| text.parse::<u64>().ok());
    match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(count),
    }
}
