//! Pull: an entity and what hangs on it as a map, in the shape of a pattern.
//!
//! ```
//! use datahike_core::db::{Db, DbConfig, SchemaFlexibility};
//! use datahike_core::pull::{Pattern, pull};
//! use datahike_value::Value;
//!
//! let db = Db::empty(DbConfig::new(SchemaFlexibility::Read));
//! let pattern = Pattern::parse_text("[:name {:friend [:name]}]")?;
//! assert_eq!(pull(&db, &pattern, &Value::Long(1))?, Value::Nil);
//! # Ok::<(), datahike_core::query::QueryError>(())
//! ```

mod entity;
mod pattern;

pub(crate) use self::entity::Puller;
pub use self::entity::{PullContext, pull, pull_many, pull_with};
pub use self::pattern::{Attribute, Follow, LIMIT_DEFAULT, Pattern};
