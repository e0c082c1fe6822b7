//! Block, log and head storage: the Store trait and its backends.
