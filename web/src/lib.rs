//! The peer for browsers and Node: connections, database values and watched queries as JavaScript
//! classes, plain data in and out.
//!
//! What applications import is the package around it, whose functions and types are in `js/`; this is
//! its engine. Natively the crate is empty.
#![cfg(target_family = "wasm")]

mod connection;
mod database;
mod failure;
mod plain;

pub use connection::{
    Connection, Subscription, connect, create_database, database_exists, delete_database,
};
pub use database::{Database, q};
