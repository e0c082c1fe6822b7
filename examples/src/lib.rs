//! Runnable scenarios, in `examples/`, and the data that they share.

pub mod cities;
