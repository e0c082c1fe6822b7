//! EDN values: the model, one total order over all of them, EDN text, the formats of other languages,
//! and a serde bridge.
//!
//! This crate knows nothing of datoms, stores or peers and does no IO.
//!
//! ```
//! use datahike_value::{edn, kw, Value};
//!
//! let v = edn::read("{:person/name \"Ada\" :person/age 36}")?;
//! assert_eq!(v.get(&kw!("person/age")), Some(&Value::from(36)));
//! assert_eq!(v.to_string(), "{:person/age 36, :person/name \"Ada\"}");
//! # Ok::<(), edn::ReadError>(())
//! ```
//!
//! **Depth.** Comparing, hashing, printing, serializing and dropping a value recurse once per level
//! of nesting. Every value that comes from outside (the reader, `Deserialize`) is at most
//! [`Limits::depth`] levels deep, so none of them can exhaust a stack. Code that builds deeper values
//! by hand answers for its own stack.

mod bridge;
pub mod codec;
pub mod edn;
mod instant;
mod keyword;
mod limits;
mod macros;
mod order;
mod value;

pub use crate::bridge::{BridgeError, from_value, to_value};
pub use crate::keyword::{Keyword, Symbol};
pub use crate::limits::Limits;
pub use crate::order::{canonical_f32, canonical_f64, compare_numbers};
pub use crate::value::{Regex, RegexError, Tagged, Value};

pub use bigdecimal::BigDecimal;
pub use num_bigint::BigInt;
pub use uuid::Uuid;
