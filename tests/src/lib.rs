//! Simulation, oracle, end-to-end and conformance tests.
