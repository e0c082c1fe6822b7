//! Benchmark workloads with their baselines.
