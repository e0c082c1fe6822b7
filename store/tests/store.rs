//! The store through its public API: one binary, a module per subject.

#[path = "store/backends.rs"]
mod backends;
#[path = "store/faults.rs"]
mod faults;
#[path = "store/workload.rs"]
mod workload;
