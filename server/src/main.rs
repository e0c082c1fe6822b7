//! The datahike daemon and command line.

fn main() {}
