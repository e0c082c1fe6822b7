//! Synchronisation through its public face: bytes, machines, and whole peers.

#![expect(clippy::unwrap_used, reason = "what a helper cannot do fails its test")]

mod bytes;
mod hostile;
mod machines;
mod peers;
