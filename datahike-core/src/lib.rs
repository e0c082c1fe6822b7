//! Datoms, schema, canonical B-tree indexes, transactor, Datalog and pull: pure and synchronous.
