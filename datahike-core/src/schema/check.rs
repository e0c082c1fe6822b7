//! Which changes of schema are refused. Checked on the state at the end of a transaction, so that
//! no order of its operations gets around it.

use datahike_value::{Keyword, Value};

use super::{Attribute, Cardinality, Definition, Schema, Tuple, ValueType};
use crate::block::Missing;
use crate::datom::{AttrId, EntityId};

/// Why a change of schema is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// A required key of a definition is missing.
    #[error("incomplete definition of {}: {missing} is required", subject(.ident, .entity))]
    Incomplete {
        /// The attribute, if it has a name.
        ident: Option<Keyword>,
        /// The entity that declares it.
        entity: EntityId,
        /// The key that is missing.
        missing: &'static str,
    },
    /// The definition contradicts itself.
    #[error("invalid definition of {ident}: {reason}")]
    Invalid {
        /// The attribute.
        ident: Keyword,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The ident belongs to the system.
    #[error("{ident} is reserved: namespaces `db` and `db.…` belong to the system")]
    Reserved {
        /// The ident.
        ident: Keyword,
    },
    /// The ident is already in use.
    #[error("{ident} cannot be renamed to {to}: that name is in use")]
    NameTaken {
        /// The attribute.
        ident: Keyword,
        /// The name it was to get.
        to: Keyword,
    },
    /// The change does not fit the data.
    #[error("{ident} cannot be changed: {reason}")]
    Refused {
        /// The attribute.
        ident: Keyword,
        /// What stands against it.
        reason: &'static str,
    },
}

impl SchemaError {
    /// The attribute it is about.
    pub fn ident(&self) -> Option<&Keyword> {
        match self {
            Self::Incomplete { ident, .. } => ident.as_ref(),
            Self::Invalid { ident, .. }
            | Self::Reserved { ident }
            | Self::NameTaken { ident, .. }
            | Self::Refused { ident, .. } => Some(ident),
        }
    }
}

fn subject(ident: &Option<Keyword>, entity: &EntityId) -> String {
    ident.as_ref().map_or_else(|| format!("entity {entity}"), ToString::to_string)
}

/// What a check must know of the data, in the state at the end of the transaction.
pub trait SchemaUse {
    /// Whether any datom, current or past, is under the attribute.
    ///
    /// # Errors
    /// If blocks are missing.
    fn is_used(&self, a: AttrId) -> Result<bool, Missing>;

    /// Whether an entity holds more than one value.
    ///
    /// # Errors
    /// If blocks are missing.
    fn holds_several(&self, a: AttrId) -> Result<bool, Missing>;

    /// Whether two entities hold the same value.
    ///
    /// # Errors
    /// If blocks are missing.
    fn has_duplicates(&self, a: AttrId) -> Result<bool, Missing>;
}

/// What decides which changes are refused, besides the data.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    /// Schema-flexibility write.
    pub(crate) strict: bool,
    /// Whether an attribute that has data may become indexed.
    pub(crate) backfill: bool,
}

/// Compares what `entity` says about schema before and after a transaction.
pub(crate) fn check_evolution(
    before: &Schema,
    after: &Schema,
    entity: EntityId,
    rules: Rules,
    data: &dyn SchemaUse,
) -> Result<Result<(), SchemaError>, Missing> {
    let new = after.definition(entity);
    if let Some(definition) = new
        && let Err(error) = well_formed(before, after, entity, definition, rules.strict)
    {
        return Ok(Err(error));
    }
    let (Some(old), Some(id)) = (before.definition(entity), before.attr_of_entity(entity)) else {
        return first_definition(before, after, entity, rules, data);
    };
    let ident = before.ident(id);
    let Some(new) = new.filter(|new| new.is_attribute()) else {
        return Ok(if data.is_used(id)? {
            Err(refused(ident, "it has data, so its definition cannot be retracted"))
        } else {
            Ok(())
        });
    };
    if let Some(to) = new.ident.as_ref().filter(|to| *to != ident)
        && before.attr_id(to).is_some()
    {
        return Ok(Err(SchemaError::NameTaken { ident: ident.clone(), to: to.clone() }));
    }
    compare(before.attribute(id), old, after.attribute(id), new, rules, data)
}

/// An attribute that was used before anybody declared it (schema-flexibility read) obeys the same
/// rules as one whose definition changes.
fn first_definition(
    before: &Schema,
    after: &Schema,
    entity: EntityId,
    rules: Rules,
    data: &dyn SchemaUse,
) -> Result<Result<(), SchemaError>, Missing> {
    let Some(id) = after.attr_of_entity(entity) else { return Ok(Ok(())) };
    let Some(bare) = before.get(id) else { return Ok(Ok(())) };
    let Some(new) = after.definition(entity) else { return Ok(Ok(())) };
    // Undeclared values have no type to keep.
    let old = Definition { value_type: new.value_type, ..Definition::default() };
    if new.value_type == Some(ValueType::Ref) && data.is_used(id)? {
        return Ok(Err(refused(&bare.ident, "it has data that are not references")));
    }
    compare(bare, &old, after.attribute(id), new, rules, data)
}

fn well_formed(
    before: &Schema,
    after: &Schema,
    entity: EntityId,
    definition: &Definition,
    strict: bool,
) -> Result<(), SchemaError> {
    if let Some(ident) = &definition.ident
        && before.definition(entity).and_then(|old| old.ident.as_ref()) != Some(ident)
        && is_reserved(ident)
    {
        return Err(SchemaError::Reserved { ident: ident.clone() });
    }
    if !definition.is_attribute() {
        return Ok(());
    }
    let missing = if definition.ident.is_none() {
        Some(":db/ident")
    } else if definition.value_type.is_none() {
        Some(":db/valueType")
    } else if definition.cardinality.is_none() {
        Some(":db/cardinality")
    } else {
        None
    };
    if strict && let Some(missing) = missing {
        return Err(SchemaError::Incomplete { ident: definition.ident.clone(), entity, missing });
    }
    let Some(ident) = definition.ident.clone() else { return Ok(()) };
    let invalid = |reason| Err(SchemaError::Invalid { ident: ident.clone(), reason });
    if definition.unique.is_some() && definition.cardinality == Some(Cardinality::Many) {
        return invalid(":db/unique and :db.cardinality/many exclude each other");
    }
    if definition.is_component == Some(true) && definition.value_type != Some(ValueType::Ref) {
        return invalid(":db/isComponent requires {:db/valueType :db.type/ref}");
    }
    if definition.no_history == Some(true) && definition.value_type == Some(ValueType::StoreRef) {
        return invalid(":db/noHistory is not possible for :db.type/store-ref");
    }
    if definition.is_tuple() && definition.value_type != Some(ValueType::Tuple) {
        return invalid("tuple keys require {:db/valueType :db.type/tuple}");
    }
    if definition.value_type == Some(ValueType::Tuple) && !definition.is_tuple() {
        return invalid(":db.type/tuple requires :db/tupleAttrs, :db/tupleTypes or :db/tupleType");
    }
    let kinds = [
        definition.tuple_attrs.is_some(),
        definition.tuple_types.is_some(),
        definition.tuple_type.is_some(),
    ];
    if kinds.iter().filter(|kind| **kind).count() > 1 {
        return invalid(":db/tupleAttrs, :db/tupleTypes and :db/tupleType exclude each other");
    }
    let is_part = after.attr_id(&ident).is_some_and(|a| !after.composites_of(a).is_empty());
    if is_part && definition.cardinality == Some(Cardinality::Many) {
        return invalid("as part of a composite tuple it must have cardinality one");
    }
    match definition.tuple() {
        Some(Tuple::Composite(_)) if definition.cardinality == Some(Cardinality::Many) => {
            invalid("a composite tuple must have cardinality one")
        }
        Some(Tuple::Composite(parts)) => {
            let parts = parts.iter().filter_map(|part| after.attr_id(part));
            for part in parts.map(|part| after.attribute(part)) {
                if part.is_many() {
                    return invalid("the parts of a composite tuple must have cardinality one");
                }
                if part.composite().is_some() {
                    return invalid("a composite tuple cannot be part of another");
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn is_reserved(ident: &Keyword) -> bool {
    ident.namespace().is_some_and(|namespace| namespace == "db" || namespace.starts_with("db."))
}

fn compare(
    old: &Attribute,
    old_definition: &Definition,
    new: &Attribute,
    new_definition: &Definition,
    rules: Rules,
    data: &dyn SchemaUse,
) -> Result<Result<(), SchemaError>, Missing> {
    let id = old.id;
    let refuse = |reason| Ok(Err(refused(&old.ident, reason)));
    if old_definition.value_type != new_definition.value_type && data.is_used(id)? {
        return refuse("it has data, so its :db/valueType is fixed");
    }
    if old_definition.tuple() != new_definition.tuple() && data.is_used(id)? {
        return refuse("it has data, so what its tuples hold is fixed");
    }
    match (old.cardinality, new.cardinality) {
        (Cardinality::Many, Cardinality::One) if data.holds_several(id)? => {
            return refuse("an entity holds several values, so it must stay :db.cardinality/many");
        }
        (Cardinality::One, Cardinality::Many) if old.unique.is_some() => {
            return refuse("a unique attribute must stay :db.cardinality/one");
        }
        _ => {}
    }
    if new.unique.is_some() && old.unique.is_none() && data.has_duplicates(id)? {
        return refuse("two entities hold the same value, so it cannot become :db/unique");
    }
    if new.in_avet() && !old.in_avet() && !rules.backfill && data.is_used(id)? {
        return refuse(
            "it has data: to have its index built, set :allow-index-backfill? true where it is written",
        );
    }
    if old.in_avet() && !new.in_avet() && data.is_used(id)? {
        return refuse("its index cannot be dropped while it has data");
    }
    Ok(Ok(()))
}

fn refused(ident: &Keyword, reason: &'static str) -> SchemaError {
    SchemaError::Refused { ident: ident.clone(), reason }
}

/// Whether a value may stand under a system attribute, whose words are closed sets.
pub(crate) fn system_value_error(ident: &Keyword, value: &Value) -> Option<&'static str> {
    let word = value.as_keyword();
    match ident.text() {
        "db/valueType" | "db/tupleType"
            if word.is_none_or(|w| ValueType::from_ident(w).is_none()) =>
        {
            Some("a value type such as :db.type/string")
        }
        "db/cardinality" if word.is_none_or(|w| Cardinality::from_ident(w).is_none()) => {
            Some(":db.cardinality/one or :db.cardinality/many")
        }
        "db/unique" if word.is_none_or(|w| super::Unique::from_ident(w).is_none()) => {
            Some(":db.unique/identity or :db.unique/value")
        }
        "db/isComponent" if value.as_bool().is_none() => Some("a boolean"),
        "db/tupleTypes"
            if value.as_slice().is_none_or(|types| {
                types.len() < 2
                    || types
                        .iter()
                        .any(|t| t.as_keyword().and_then(ValueType::from_ident).is_none())
            }) =>
        {
            Some("a vector of at least two value types")
        }
        "db/tupleAttrs"
            if value.as_slice().is_none_or(|parts| {
                parts.is_empty() || parts.iter().any(|p| p.as_keyword().is_none())
            }) =>
        {
            Some("a vector of attributes")
        }
        "db.entity/attrs" if word.is_none() => Some("an attribute"),
        "db.entity/preds" if value.as_symbol().is_none() => Some("a symbol"),
        _ => None,
    }
}
