//! Differential store synchronisation as a middleware on peer.
