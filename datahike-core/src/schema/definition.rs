//! What one entity says about schema: the fold of its datoms under the schema attributes.

use std::sync::Arc;

use datahike_value::{Keyword, Symbol, Value};

use super::attribute::{Attribute, Cardinality, Tuple, Unique, ValueType};
use super::system;
use crate::datom::{AttrId, Datom, EntityId};

/// Whether datoms of this attribute are part of a definition.
pub(crate) fn is_schema_attribute(a: AttrId) -> bool {
    a.0 <= system::TUPLE_ATTRS.0 && a != system::TX_INSTANT && a != system::INSTALL_ATTRIBUTE
        || (a.0 >= system::MAX_LENGTH.0 && a.0 <= system::ENTITY_PREDS.0)
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Definition {
    pub(crate) ident: Option<Keyword>,
    pub(crate) value_type: Option<ValueType>,
    pub(crate) cardinality: Option<Cardinality>,
    pub(crate) unique: Option<Unique>,
    pub(crate) indexed: Option<bool>,
    pub(crate) is_component: Option<bool>,
    pub(crate) no_history: Option<bool>,
    pub(crate) doc: Option<Arc<str>>,
    pub(crate) tuple_attrs: Option<Arc<[Keyword]>>,
    pub(crate) tuple_types: Option<Arc<[ValueType]>>,
    pub(crate) tuple_type: Option<ValueType>,
    pub(crate) max_length: Option<u64>,
    pub(crate) preds: Vec<Symbol>,
    pub(crate) entity_attrs: Vec<Keyword>,
    pub(crate) entity_preds: Vec<Symbol>,
}

impl Definition {
    /// Takes in a datom; `names` gives the ident that a keyword or an entity id stands for.
    pub(crate) fn absorb(&mut self, datom: &Datom, names: &dyn Fn(&Value) -> Option<Keyword>) {
        let (value, added) = (&datom.v, datom.added);
        match datom.a {
            system::IDENT => put(&mut self.ident, value.as_keyword().cloned(), added),
            system::VALUE_TYPE => {
                let found = names(value).and_then(|ident| ValueType::from_ident(&ident));
                put(&mut self.value_type, found, added);
            }
            system::CARDINALITY => {
                let found = names(value).and_then(|ident| Cardinality::from_ident(&ident));
                put(&mut self.cardinality, found, added);
            }
            system::UNIQUE => {
                let found = names(value).and_then(|ident| Unique::from_ident(&ident));
                put(&mut self.unique, found, added);
            }
            system::DOC => put(&mut self.doc, value.as_str().map(Arc::from), added),
            system::INDEX => put(&mut self.indexed, value.as_bool(), added),
            system::NO_HISTORY => put(&mut self.no_history, value.as_bool(), added),
            system::IS_COMPONENT => put(&mut self.is_component, value.as_bool(), added),
            system::TUPLE_TYPE => {
                let found = names(value).and_then(|ident| ValueType::from_ident(&ident));
                put(&mut self.tuple_type, found, added);
            }
            system::TUPLE_TYPES => {
                let types = value.as_slice().and_then(|types| {
                    types.iter().map(|v| names(v).and_then(|v| ValueType::from_ident(&v))).collect()
                });
                put(&mut self.tuple_types, types, added);
            }
            system::TUPLE_ATTRS => {
                let parts = value.as_slice().and_then(|parts| parts.iter().map(names).collect());
                put(&mut self.tuple_attrs, parts, added);
            }
            system::MAX_LENGTH => {
                let length = value.as_long().and_then(|length| u64::try_from(length).ok());
                put(&mut self.max_length, length, added);
            }
            system::ATTR_PREDS => member(&mut self.preds, value.as_symbol().cloned(), added),
            system::ENTITY_ATTRS => member(&mut self.entity_attrs, names(value), added),
            system::ENTITY_PREDS => {
                member(&mut self.entity_preds, value.as_symbol().cloned(), added);
            }
            _ => {}
        }
    }

    /// Whether this defines an attribute rather than only naming an entity.
    pub(crate) fn is_attribute(&self) -> bool {
        self.value_type.is_some()
            || self.cardinality.is_some()
            || self.unique.is_some()
            || self.indexed.is_some()
            || self.is_component.is_some()
            || self.no_history.is_some()
            || self.is_tuple()
            || self.max_length.is_some()
            || !self.preds.is_empty()
    }

    pub(crate) fn is_tuple(&self) -> bool {
        self.tuple_attrs.is_some() || self.tuple_types.is_some() || self.tuple_type.is_some()
    }

    pub(crate) fn tuple(&self) -> Option<Tuple> {
        if let Some(parts) = &self.tuple_attrs {
            Some(Tuple::Composite(parts.clone()))
        } else if let Some(types) = &self.tuple_types {
            Some(Tuple::Types(types.clone()))
        } else {
            self.tuple_type.map(Tuple::Of)
        }
    }

    pub(crate) fn attribute(&self, id: AttrId, ident: Keyword, entity: EntityId) -> Attribute {
        Attribute {
            entity: Some(entity),
            value_type: self.value_type,
            cardinality: self.cardinality.unwrap_or_default(),
            unique: self.unique,
            indexed: self.indexed == Some(true),
            is_component: self.is_component == Some(true),
            no_history: self.no_history == Some(true),
            doc: self.doc.clone(),
            tuple: self.tuple(),
            max_length: self.max_length,
            preds: self.preds.clone().into(),
            ..Attribute::undeclared(id, ident)
        }
    }
}

/// A retraction clears the slot only if it still holds the retracted value: a transaction may state
/// the new value before it retracts the old one.
fn put<T: PartialEq>(slot: &mut Option<T>, value: Option<T>, added: bool) {
    if added {
        *slot = value;
    } else if *slot == value {
        *slot = None;
    }
}

fn member<T: PartialEq>(members: &mut Vec<T>, value: Option<T>, added: bool) {
    let Some(value) = value else { return };
    match (members.iter().position(|member| *member == value), added) {
        (None, true) => members.push(value),
        (Some(at), false) => {
            members.remove(at);
        }
        _ => {}
    }
}
