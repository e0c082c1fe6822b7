//! The schema as users ask for it: maps of idents.

use std::collections::{BTreeMap, BTreeSet};

use datahike_value::{Keyword, Value};

use super::{Definition, Schema, ValueType};
use crate::datom::EntityId;

impl Schema {
    /// Every attribute and named entity that users declared: ident to definition, as in
    /// `{:person/name {:db/id 1, :db/ident :person/name, :db/valueType :db.type/string, …}}`.
    pub fn to_value(&self) -> Value {
        Value::map(self.definitions.iter().filter_map(|(entity, definition)| {
            let ident = definition.ident.clone()?;
            let mut entries = definition.entries();
            entries.push(("db/id", Value::from(id(*entity))));
            Some((Value::from(ident), to_map(entries)))
        }))
    }

    /// From properties to the attributes that have them:
    /// `{:db.type/ref #{…}, :db/index #{…}, :db.cardinality/many #{…}, :db/ident #{…}, …}`.
    pub fn reverse(&self) -> Value {
        let mut sets: BTreeMap<&'static str, BTreeSet<Value>> = BTreeMap::new();
        for definition in self.definitions.values() {
            let Some(ident) = &definition.ident else { continue };
            let mut put = |key, has: bool| {
                if has {
                    sets.entry(key).or_default().insert(Value::from(ident.clone()));
                }
            };
            put("db/ident", true);
            if !definition.is_attribute() {
                continue;
            }
            let Some(attribute) = self.attr_id(ident).map(|a| self.attribute(a)) else { continue };
            put("db/index", attribute.in_avet());
            put("db/unique", attribute.unique.is_some());
            put("db.attr/constrained", attribute.value_type.is_some_and(has_cap));
            put("db.unique/identity", attribute.is_identity());
            put("db.unique/value", attribute.unique.is_some() && !attribute.is_identity());
            put("db.type/ref", attribute.is_ref());
            put("db.type/tuple", attribute.tuple.is_some());
            put("db.cardinality/many", attribute.is_many());
            put("db/isComponent", attribute.is_component);
            put("db/noHistory", attribute.no_history);
        }
        Value::map(sets.into_iter().map(|(key, set)| (Value::keyword(key), Value::set(set))))
    }
}

/// Whether values of this type can be larger than is allowed.
fn has_cap(value_type: ValueType) -> bool {
    matches!(
        value_type,
        ValueType::String
            | ValueType::Bytes
            | ValueType::FloatArray
            | ValueType::DoubleArray
            | ValueType::Tuple
    )
}

impl Definition {
    /// What is stated, by attribute, without the entity id.
    pub(crate) fn entries(&self) -> Vec<(&'static str, Value)> {
        let mut entries: Vec<(&'static str, Value)> = Vec::new();
        let mut put = |key, value: Option<Value>| entries.extend(value.map(|value| (key, value)));
        put("db/ident", self.ident.clone().map(Value::from));
        put("db/valueType", self.value_type.map(|t| t.ident().into()));
        put("db/cardinality", self.cardinality.map(|c| c.ident().into()));
        put("db/unique", self.unique.map(|u| u.ident().into()));
        put("db/index", self.indexed.map(Value::from));
        put("db/isComponent", self.is_component.map(Value::from));
        put("db/noHistory", self.no_history.map(Value::from));
        put("db/doc", self.doc.as_deref().map(Value::from));
        put("db/tupleAttrs", self.tuple_attrs.as_deref().map(keywords));
        put("db/tupleType", self.tuple_type.map(|t| t.ident().into()));
        let types = self.tuple_types.as_deref();
        put(
            "db/tupleTypes",
            types.map(|types| Value::vector(types.iter().map(|t| t.ident().into()))),
        );
        let length = self.max_length.and_then(|length| i64::try_from(length).ok());
        put("db/maxLength", length.map(Value::from));
        let symbols = |symbols: &[_]| Value::set(symbols.iter().cloned().map(Value::Symbol));
        put("db.attr/preds", (!self.preds.is_empty()).then(|| symbols(&self.preds)));
        put(
            "db.entity/attrs",
            (!self.entity_attrs.is_empty())
                .then(|| Value::set(self.entity_attrs.iter().cloned().map(Value::Keyword))),
        );
        put(
            "db.entity/preds",
            (!self.entity_preds.is_empty()).then(|| symbols(&self.entity_preds)),
        );
        entries
    }
}

fn keywords(keywords: &[Keyword]) -> Value {
    Value::vector(keywords.iter().cloned().map(Value::Keyword))
}

pub(crate) fn to_map(entries: Vec<(&'static str, Value)>) -> Value {
    Value::map(entries.into_iter().map(|(key, value)| (Value::keyword(key), value)))
}

/// Ids are below 2^63 wherever they come from.
pub(crate) fn id(entity: EntityId) -> i64 {
    i64::try_from(entity).unwrap_or(i64::MAX)
}
