//! The real binary, with real files, processes and sockets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "cli/kit.rs"]
mod kit;

#[path = "cli/branches.rs"]
mod branches;
#[path = "cli/files.rs"]
mod files;
#[path = "cli/http.rs"]
mod http;
#[path = "cli/importing.rs"]
mod importing;
#[path = "cli/operating.rs"]
mod operating;
#[path = "cli/serving.rs"]
mod serving;
