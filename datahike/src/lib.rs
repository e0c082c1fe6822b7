//! A live-syncing Datalog database: what an application imports.
//!
//! [`create_database`] and [`connect`] take a [`Config`] and give a [`Connection`]; its
//! [`db`](Connection::db) is an immutable value ([`Db`]) that queries run over. With a kabel writer
//! the database belongs to a server peer: the connection mirrors its store, queries run locally, and
//! transactions are sent to the server.

mod blocks;
mod branch;
mod bulk;
mod compact;
pub mod config;
mod connection;
mod database;
mod error;
pub mod kabel;
pub mod mirror;
pub mod ops;
mod past;
mod reports;
#[cfg(not(target_family = "wasm"))]
mod shared;
mod versioning;
mod watch;
mod worker;
mod writer;

pub use blocks::{Blocks, Faulting};
pub use branch::{Branch, BranchEvent, Observation, Snapshot};
pub use bulk::{BulkLoad, Column, Table};
pub use compact::{Compacted, Keep, compact};
pub use config::Config;
pub use connection::Connection;
pub use database::{
    connect, connect_in, create_database, create_in, database_exists, delete_database,
};
pub use error::Error;
pub use reports::{TxEvent, TxReports, WAITING_REPORTS_MAX};
pub use versioning::{Commit, Cut, Revision, Verification, VerifiedBranch, verify};
pub use watch::{Change, Watch};
pub use writer::{TRANSACTION_BYTES_MAX, Transacted, Transaction};

pub use datahike_core::tx::{CallError, TxFunctions, TxReport, ValueCaps};
pub use datahike_core::{self as core, commit, datom, db::Db, pull, query};
pub use datahike_peer as peer;
pub use datahike_scope as scope;
pub use datahike_store as store;
pub use datahike_sync as sync;
pub use datahike_value as value;
pub use datahike_value::{BigDecimal, BigInt, Keyword, Symbol, Uuid, Value, edn, kw};
