//! Runnable scenarios.
