//! Everything through the public API, most of it on a simulated clock.

mod frames;
mod net;
mod sessions;
mod sockets;
mod strangers;
mod topics;
