//! What comes to mirrors, and what happens to them when server, wire or disk fail.

#![expect(clippy::unwrap_used, reason = "a test may fail anywhere")]

#[path = "kabel/bare.rs"]
mod bare;
#[path = "kabel/faults.rs"]
mod faults;
#[path = "kabel/setting.rs"]
mod setting;
#[path = "kabel/transfer.rs"]
mod transfer;
