//! What can go wrong when a snapshot is read.

use datahike_value::{Keyword, Value};

use crate::block::Missing;

/// Why a snapshot could not answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// Blocks are not in memory: fetch them and ask again.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// A lookup ref is not `[attribute value]`.
    #[error("lookup ref {lookup} must be a vector of an attribute and a value")]
    LookupSyntax {
        /// What stood there.
        lookup: Value,
    },
    /// The attribute of a lookup ref is not unique.
    #[error("lookup ref {lookup}: {attribute} must be declared :db/unique")]
    LookupNotUnique {
        /// What stood there.
        lookup: Value,
        /// Its attribute.
        attribute: Value,
    },
    /// Something that cannot name an entity.
    #[error("{value} cannot name an entity: expected an id, an ident or a lookup ref")]
    EntitySyntax {
        /// What stood there.
        value: Value,
    },
    /// Nothing is known under the name of an entity.
    #[error("nothing found for entity {entity}")]
    EntityMissing {
        /// How it was named.
        entity: Value,
    },
    /// An attribute nobody declared or used.
    #[error("unknown attribute {attribute}{}", did_you_mean(.hint.as_ref()))]
    UnknownAttribute {
        /// What stood there.
        attribute: Value,
        /// A name it may have been meant to be.
        hint: Option<Keyword>,
    },
    /// The values of the attribute are not indexed.
    #[error("{attribute} has no value index: declare it {{:db/index true}}")]
    NotIndexed {
        /// The attribute.
        attribute: Keyword,
    },
    /// A view into the past of a database that keeps none.
    #[error("{view} needs a database that was created with :keep-history? true")]
    NoHistory {
        /// Which view.
        view: &'static str,
    },
}

pub(crate) fn did_you_mean(name: Option<&Keyword>) -> String {
    name.map_or_else(String::new, |name| format!(", did you mean {name}?"))
}

impl DbError {
    /// The stable code, as Datahike names it, without the colon.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Missing(_) => None,
            Self::LookupSyntax { .. } => Some("lookup-ref/syntax"),
            Self::LookupNotUnique { .. } => Some("lookup-ref/unique"),
            Self::EntitySyntax { .. } => Some("entity-id/syntax"),
            Self::EntityMissing { .. } => Some("entity-id/missing"),
            Self::UnknownAttribute { .. } => Some("attribute/unknown"),
            Self::NotIndexed { .. } => Some("index-access"),
            Self::NoHistory { .. } => Some("history/off"),
        }
    }

    /// The blocks without which there was no answer.
    pub fn missing(&self) -> Option<&Missing> {
        match self {
            Self::Missing(missing) => Some(missing),
            _ => None,
        }
    }
}
