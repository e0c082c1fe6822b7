//! The schema as a flush record keeps it: one EDN value from which it is built again.

use datahike_value::{Keyword, Value, kw};

use super::print::{id, to_map};
use super::{Schema, system};
use crate::datom::{AttrId, Datom, FIRST_TX};

/// A schema record that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid schema record: {reason}")]
pub struct SchemaRecordError {
    reason: String,
}

impl Schema {
    /// Everything of the schema that is not the same in every database:
    /// `{:attributes [ident …], :definitions {entity {…}}, :attribute-refs bool}`. The attributes
    /// stand in the order of their numbers, which follow those of the system attributes.
    pub fn to_record(&self) -> Value {
        let attributes = self.attributes[system::ATTRIBUTES.len()..].iter();
        Value::map([
            (kw!("attribute-refs").into(), Value::from(self.attribute_refs)),
            (
                kw!("attributes").into(),
                Value::vector(attributes.map(|a| Value::from(a.ident.clone()))),
            ),
            (
                kw!("definitions").into(),
                Value::map(self.definitions.iter().map(|(entity, definition)| {
                    (Value::from(id(*entity)), to_map(definition.entries()))
                })),
            ),
        ])
    }

    /// The schema that was written by [`Self::to_record`].
    ///
    /// # Errors
    /// If the value is no such record.
    pub fn from_record(record: &Value) -> Result<Self, SchemaRecordError> {
        let refs = record
            .get(&kw!("attribute-refs"))
            .and_then(Value::as_bool)
            .ok_or_else(|| bad("no :attribute-refs"))?;
        let mut schema = Self::new(refs);
        let attributes = record
            .get(&kw!("attributes"))
            .and_then(Value::as_slice)
            .ok_or_else(|| bad("no :attributes"))?;
        for attribute in attributes {
            let ident =
                attribute.as_keyword().ok_or_else(|| bad("an attribute is not a keyword"))?;
            if schema.attr_id(ident).is_some() {
                return Err(bad(&format!("{ident} stands twice in :attributes")));
            }
            schema.intern(ident);
        }
        let count = schema.len();
        let definitions = record
            .get(&kw!("definitions"))
            .and_then(Value::as_map)
            .ok_or_else(|| bad("no :definitions"))?;
        for (entity, definition) in definitions {
            let entity = entity
                .as_long()
                .and_then(|entity| u64::try_from(entity).ok())
                .ok_or_else(|| bad("an entity is not an id"))?;
            let entries = definition.as_map().ok_or_else(|| bad("a definition is not a map"))?;
            for (key, value) in entries {
                let a = key
                    .as_keyword()
                    .and_then(|key: &Keyword| schema.attr_id(key))
                    .filter(|a| Self::defines_schema(*a))
                    .ok_or_else(|| bad(&format!("{key} in a definition")))?;
                schema.restore(entity, a, value);
            }
        }
        if schema.len() != count {
            return Err(bad("a definition names an attribute that has no number"));
        }
        schema.seal();
        Ok(schema)
    }

    fn restore(&mut self, entity: u64, a: AttrId, value: &Value) {
        let datom = |v: Value| Datom { e: entity, a, v, tx: FIRST_TX, added: true };
        match value.as_set() {
            Some(values) => values.iter().for_each(|value| self.absorb(&datom(value.clone()))),
            None => self.absorb(&datom(value.clone())),
        }
    }
}

fn bad(reason: &str) -> SchemaRecordError {
    SchemaRecordError { reason: reason.to_owned() }
}
