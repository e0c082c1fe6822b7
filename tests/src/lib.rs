//! What the tests of the workspace share, and two programs that judge the engine from outside:
//! `conformance` runs a corpus of cases, `recorded` replays recordings of the original Datahike.

pub mod corpus;
pub mod engine;
pub mod generate;
pub mod host;
pub mod judge;
pub mod oracle;
pub mod outcome;
pub mod recording;
pub mod sim;
