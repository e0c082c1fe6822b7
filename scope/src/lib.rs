//! Remote invocation as a middleware on peer.
