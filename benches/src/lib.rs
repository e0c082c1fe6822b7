//! Benchmark workloads with their baselines, run in turns on the same machine.

pub mod baseline {
    //! What ours is held against.

    pub mod datascript;
    pub mod facts;
    pub mod fsync;
    pub mod hops;
    pub mod sqlite;
}
pub mod bench;
pub mod cities;
pub mod load;
pub mod main_suite;
pub mod measure;
pub mod peers;
pub mod probe;
pub mod query_suite;
pub mod row;
