//! The real binary, with real files, processes and sockets.

#[path = "cli/kit.rs"]
mod kit;

#[path = "cli/files.rs"]
mod files;
#[path = "cli/importing.rs"]
mod importing;
#[path = "cli/serving.rs"]
mod serving;
