//! What comes to mirrors, and what happens to them when server, wire or disk fail.

#[path = "kabel/faults.rs"]
mod faults;
#[path = "kabel/setting.rs"]
mod setting;
#[path = "kabel/transfer.rs"]
mod transfer;
