//! The store through its public API: one binary, a module per subject.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "store/backends.rs"]
mod backends;
#[path = "store/damage.rs"]
mod damage;
#[path = "store/faults.rs"]
mod faults;
#[path = "store/processes.rs"]
mod processes;
#[path = "store/workload.rs"]
mod workload;
