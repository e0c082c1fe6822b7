//! The store through its public API: one binary, a module per subject.

#[path = "store/backends.rs"]
mod backends;
