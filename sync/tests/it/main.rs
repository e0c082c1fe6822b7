//! Synchronisation through its public face: bytes, machines, and whole peers.

mod bytes;
mod hostile;
mod machines;
mod peers;
