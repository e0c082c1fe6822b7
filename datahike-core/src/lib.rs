//! Datoms, schema, canonical B-tree indexes, transactor, Datalog and pull: pure and synchronous.

pub mod block;
pub mod datom;
pub mod index;
