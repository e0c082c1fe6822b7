//! Datoms, schema, canonical B-tree indexes, transactor, Datalog and pull: pure and synchronous.

pub mod block;
pub mod budget;
pub mod commit;
pub mod datom;
pub mod db;
pub mod entity;
pub mod index;
pub mod pull;
pub mod query;
pub mod schema;
pub mod tx;
