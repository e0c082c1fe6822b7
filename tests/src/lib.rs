//! What the tests of the workspace share, and two programs that judge the engine from outside:
//! `conformance` runs a corpus of cases, `recorded` replays recordings of the original Datahike.

pub mod oracle;
