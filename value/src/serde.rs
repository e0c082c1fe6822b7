//! Values through serde.
