//! Why a transaction is refused. Every refusal names what stands against it, and has a stable code
//! that clients may depend on: Datahike's.

use std::fmt;

use datahike_value::{Keyword, Symbol, Value};

use crate::block::Missing;
use crate::datom::EntityId;
use crate::db::DbError;
use crate::db::did_you_mean;
use crate::schema::{SchemaError, ValueType};

/// Why a transaction is refused. Nothing of it has happened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TxError {
    /// Blocks are not in memory: fetch them and transact again.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The transaction, or one of its operations, is not of a known form.
    #[error("{reason} at {}", brief(.form))]
    Syntax {
        /// What is wrong.
        reason: String,
        /// The offending form.
        form: Value,
    },
    /// The attribute is not declared and schema-flexibility is write.
    #[error("attribute {attribute} is not declared{}, at {}", did_you_mean(.hint.as_ref()), brief(.form))]
    UnknownAttribute {
        /// The attribute.
        attribute: Keyword,
        /// A declared one that it may have been meant to be.
        hint: Option<Keyword>,
        /// The offending form.
        form: Value,
    },
    /// The value is not of the attribute's type.
    #[error("{} is not a value of {attribute}: expected {expected}, got {}, at {}", brief(.value), .value.type_name(), brief(.form))]
    WrongType {
        /// The attribute.
        attribute: Keyword,
        /// The value.
        value: Value,
        /// What the attribute holds.
        expected: String,
        /// The offending form.
        form: Value,
    },
    /// A tuple does not have the shape or the types that were declared.
    #[error("{} does not fit tuple {attribute}: {reason}, at {}", brief(.value), brief(.form))]
    Tuple {
        /// The attribute.
        attribute: Keyword,
        /// The value.
        value: Value,
        /// What is wrong.
        reason: String,
        /// The offending form.
        form: Value,
    },
    /// A value longer than `:db/maxLength` allows.
    #[error("value of {attribute} has length {length}, at most {max} is allowed, at {}", brief(.form))]
    TooLong {
        /// The attribute.
        attribute: Keyword,
        /// The length.
        length: u64,
        /// What is allowed.
        max: u64,
        /// The offending form.
        form: Value,
    },
    /// A predicate of the attribute does not hold.
    #[error("{} does not pass {predicate} of {attribute}, at {}", brief(.value), brief(.form))]
    Predicate {
        /// The attribute.
        attribute: Keyword,
        /// The value.
        value: Value,
        /// The predicate.
        predicate: String,
        /// The offending form.
        form: Value,
    },
    /// A predicate that nobody here knows.
    #[error("no predicate {predicate} is registered, which {attribute} requires")]
    UnknownPredicate {
        /// The attribute, or the entity specification.
        attribute: Keyword,
        /// The predicate.
        predicate: String,
    },
    /// A change of schema is refused.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// Another entity has the unique value.
    #[error(
        "cannot add {attribute} {} to entity {e}: entity {owner} has it, and it is unique", brief(.value)
    )]
    Unique {
        /// The attribute.
        attribute: Keyword,
        /// The value.
        value: Value,
        /// Who was to get it.
        e: EntityId,
        /// Who has it.
        owner: EntityId,
    },
    /// Unique values of one form mean different entities.
    #[error("conflicting upsert: {reason}, at {}", brief(.form))]
    Upsert {
        /// Which entities conflict.
        reason: String,
        /// The offending form.
        form: Value,
    },
    /// Compare-and-set found another value.
    #[error(
        "compare-and-set of {attribute} on entity {e} failed: expected {}, found {}", brief(.expected), brief(.found)
    )]
    Cas {
        /// The entity.
        e: EntityId,
        /// The attribute.
        attribute: Keyword,
        /// What was expected; nil for no value.
        expected: Value,
        /// What is there; nil for no value, a set where the attribute holds many.
        found: Value,
    },
    /// An entity lacks what its specification asks for.
    #[error("entity {e} does not satisfy {spec}: {reason}")]
    Ensure {
        /// The entity.
        e: EntityId,
        /// The specification.
        spec: Keyword,
        /// What is missing or does not hold.
        reason: String,
    },
    /// An entity is named that is not there.
    #[error("nothing found for entity {}, at {}", brief(.entity), brief(.form))]
    EntityMissing {
        /// How it was named.
        entity: Value,
        /// The offending form.
        form: Value,
    },
    /// Something that cannot name an entity.
    #[error("{} cannot name an entity: {reason}, at {}", brief(.value), brief(.form))]
    EntitySyntax {
        /// What stood there.
        value: Value,
        /// Why not.
        reason: &'static str,
        /// The offending form.
        form: Value,
    },
    /// A lookup ref is malformed, or its attribute is not unique.
    #[error("{source}, at {}", brief(.form))]
    Lookup {
        /// What is wrong.
        source: DbError,
        /// The offending form.
        form: Value,
    },
    /// A supplied instant that is too far ahead of the clock: it would drag every later transaction
    /// with it.
    #[error("instant {} is more than {} days ahead of the clock", Value::Inst(*.instant), .limit / 86_400_000)]
    InstantAhead {
        /// The instant, milliseconds since the epoch.
        instant: i64,
        /// How far ahead is allowed, in milliseconds.
        limit: i64,
    },
    /// A transaction's valid time ends before it begins.
    #[error("valid time of transaction {tx} is empty: it begins at {from} and ends at {to}")]
    ValidTime {
        /// `:db.valid/from`
        from: Value,
        /// `:db.valid/to`
        to: Value,
        /// Whose valid time it is.
        tx: EntityId,
        /// Whether that is an earlier transaction, not this one.
        earlier: bool,
    },
    /// A function of the host that is not there, or that refuses.
    #[error("transaction function {name}: {reason}, at {}", brief(.form))]
    Function {
        /// Its name.
        name: Symbol,
        /// Why it cannot be called, or what it says.
        reason: String,
        /// The call.
        form: Value,
    },
    /// A definition that belongs to the system, in attribute-refs mode.
    #[error("entity {e}{} belongs to the system and cannot be changed", named(.ident.as_ref()))]
    SystemEntity {
        /// The entity.
        e: EntityId,
        /// Its name.
        ident: Option<Keyword>,
        /// Whether something was to be added, not only retracted.
        added: bool,
    },
    /// A value that is larger than the database takes.
    #[error("value of {attribute} has {size} {what}, at most {max} are allowed, at {}", brief(.form))]
    TooLarge {
        /// The attribute.
        attribute: Keyword,
        /// What is counted.
        what: &'static str,
        /// How many there are.
        size: u64,
        /// How many are allowed.
        max: u64,
        /// The offending form.
        form: Value,
    },
    /// A filtered database cannot be transacted against.
    #[error("a filtered database cannot be transacted against")]
    Filtered,
    /// Purging from a database without history, or of a form that is not known.
    #[error("cannot purge: {reason}, at {}", brief(.form))]
    Purge {
        /// Why not.
        reason: &'static str,
        /// The offending form.
        form: Value,
    },
}

impl TxError {
    /// The stable code, as Datahike names it, without the colon. [`Self::Missing`] has none: it is
    /// no refusal.
    pub fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::Missing(_) => return None,
            Self::Syntax { .. } | Self::Tuple { .. } => "transact/syntax",
            Self::UnknownAttribute { .. } | Self::WrongType { .. } | Self::Schema(_) => {
                "transact/schema"
            }
            Self::TooLong { .. } | Self::TooLarge { .. } => "transact/max-length",
            Self::Predicate { .. } => "transact/attr-pred",
            Self::UnknownPredicate { .. } => "transact/attr-pred-unresolved",
            Self::Unique { .. } => "transact/unique",
            Self::Upsert { .. } => "transact/upsert",
            Self::Cas { .. } => "transact/cas",
            Self::Ensure { .. } => "transact/ensure",
            Self::EntityMissing { .. } => "entity-id/missing",
            Self::EntitySyntax { .. } => "entity-id/syntax",
            Self::Lookup { source, .. } => return source.code(),
            Self::InstantAhead { .. } => "transact/instant",
            Self::ValidTime { earlier: false, .. } => "transact/invalid-valid-times",
            Self::ValidTime { earlier: true, .. } => "transact/invalid-valid-times-cross-tx",
            Self::Function { .. } => "transact/function",
            Self::SystemEntity { added: true, .. } => "transact/schema",
            Self::SystemEntity { added: false, .. } => "retract/schema",
            Self::Filtered => "transaction/filtered",
            Self::Purge { .. } => "transact/purge",
        })
    }

    /// The blocks without which it could not be decided.
    pub fn missing(&self) -> Option<&Missing> {
        match self {
            Self::Missing(missing) => Some(missing),
            Self::Lookup { source, .. } => source.missing(),
            _ => None,
        }
    }

    /// The attribute it is about.
    pub fn attribute(&self) -> Option<&Keyword> {
        match self {
            Self::UnknownAttribute { attribute, .. }
            | Self::WrongType { attribute, .. }
            | Self::Tuple { attribute, .. }
            | Self::TooLong { attribute, .. }
            | Self::TooLarge { attribute, .. }
            | Self::Predicate { attribute, .. }
            | Self::UnknownPredicate { attribute, .. }
            | Self::Unique { attribute, .. }
            | Self::Cas { attribute, .. } => Some(attribute),
            Self::Schema(error) => error.ident(),
            Self::SystemEntity { ident, .. } => ident.as_ref(),
            _ => None,
        }
    }

    /// The value it is about.
    pub fn value(&self) -> Option<&Value> {
        match self {
            Self::WrongType { value, .. }
            | Self::Tuple { value, .. }
            | Self::Predicate { value, .. }
            | Self::Unique { value, .. }
            | Self::EntitySyntax { value, .. } => Some(value),
            Self::EntityMissing { entity, .. } => Some(entity),
            Self::Cas { found, .. } => Some(found),
            _ => None,
        }
    }

    /// The form of the transaction that it is about.
    pub fn form(&self) -> Option<&Value> {
        match self {
            Self::Syntax { form, .. }
            | Self::UnknownAttribute { form, .. }
            | Self::WrongType { form, .. }
            | Self::Tuple { form, .. }
            | Self::TooLong { form, .. }
            | Self::TooLarge { form, .. }
            | Self::Function { form, .. }
            | Self::Predicate { form, .. }
            | Self::Upsert { form, .. }
            | Self::EntityMissing { form, .. }
            | Self::EntitySyntax { form, .. }
            | Self::Lookup { form, .. }
            | Self::Purge { form, .. } => Some(form),
            _ => None,
        }
    }

    pub(crate) fn of_lookup(error: DbError, form: &Value) -> Self {
        match error {
            DbError::Missing(missing) => Self::Missing(missing),
            DbError::EntityMissing { entity } => Self::EntityMissing { entity, form: form.clone() },
            DbError::EntitySyntax { value } => Self::EntitySyntax {
                value,
                reason: "expected an id, a tempid, an ident or a lookup ref",
                form: form.clone(),
            },
            source => Self::Lookup { source, form: form.clone() },
        }
    }

    pub(crate) fn wrong_type(a: &Keyword, v: &Value, expected: ValueType, form: &Value) -> Self {
        Self::WrongType {
            attribute: a.clone(),
            value: v.clone(),
            expected: expected.to_string(),
            form: form.clone(),
        }
    }
}

fn named(ident: Option<&Keyword>) -> String {
    ident.map_or_else(String::new, |ident| format!(" ({ident})"))
}

/// How much of a form a message shows.
const BRIEF: usize = 200;

/// The beginning of a value's text. Forms can be of any size; messages must not be.
fn brief(value: &Value) -> String {
    struct Limited(String);
    impl fmt::Write for Limited {
        fn write_str(&mut self, text: &str) -> fmt::Result {
            let room = BRIEF - self.0.len();
            let end = (0..=room.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
            self.0.push_str(&text[..end.unwrap_or(0)]);
            if text.len() > room { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut shown = Limited(String::new());
    let whole = fmt::write(&mut shown, format_args!("{value}")).is_ok();
    if whole { shown.0 } else { shown.0 + "…" }
}
