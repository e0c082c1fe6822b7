//! Block, log and head storage: the [`Store`] trait and its backends.
//!
//! A store holds three things and understands none of them: immutable *blocks* by content address,
//! per branch an append-only *log* of numbered entries, and per branch one *head* that is replaced
//! by compare-and-set. [`Store::commit`] joins them: blocks are durable before the log entries and
//! the head record that may name them, and entries and record appear together or not at all.
//!
//! What this crate deliberately does not know: datoms, index nodes, how an address is computed
//! (whoever reads a block checks it against its address), and the network.
//!
//! ```
//! use bytes::Bytes;
//! use datahike_store::{Address, Batch, Expect, MemoryStore, Store};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), datahike_store::StoreError> {
//! let store = MemoryStore::new();
//! let address = Address([7; 32]);
//! let mut batch = Batch::new("main", Expect::Absent);
//! batch.blocks.push((address, Bytes::from_static(b"a block")));
//! batch.entries.push(Bytes::from_static(b"first entry"));
//! batch.record = Some(Bytes::from_static(b"names the block"));
//! let head = store.commit(batch).await?;
//!
//! assert_eq!((head.revision, head.log), (1, 0..1));
//! assert_eq!(store.get(&[address]).await?[0].as_deref(), Some(&b"a block"[..]));
//! # Ok(())
//! # }
//! ```

mod address;
#[cfg(feature = "conformance")]
pub mod conformance;
mod error;
#[cfg(not(target_family = "wasm"))]
pub mod file;
#[cfg(target_family = "wasm")]
mod indexed_db;
pub mod limits;
mod memory;
mod store;

pub use address::{Address, ParseAddressError};
pub use error::StoreError;
#[cfg(not(target_family = "wasm"))]
pub use file::{FileOptions, FileStore};
#[cfg(target_family = "wasm")]
pub use indexed_db::IndexedDbStore;
pub use memory::MemoryStore;
pub use store::{
    Batch, BlockInfo, Capabilities, Expect, Head, Mark, Reclaimed, Store, StoreExt, StoreIdentity,
    StoreStats,
};
