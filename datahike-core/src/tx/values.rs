//! Whether a value belongs under an attribute, and the form in which it is stored.

use datahike_value::Value;

use super::TxError;
use super::transactor::Transactor;
use crate::datom::AttrId;
use crate::db::entity_value;
use crate::schema::{Attribute, Schema, Tuple, ValueType, system, system_value_error};

/// How many values a homogeneous tuple may hold.
const MAX_TUPLE: usize = 8;

impl Transactor<'_> {
    /// The form in which a value is stored: in attribute-refs mode the words of a definition are
    /// references to system entities.
    pub(crate) fn stored(&self, a: AttrId, v: &Value) -> Value {
        let is_word = matches!(a, system::VALUE_TYPE | system::CARDINALITY | system::UNIQUE);
        if let Value::Keyword(word) = v
            && self.refs
            && is_word
            && let Some(e) = self.schema.entity_of_ident(word)
        {
            return entity_value(e);
        }
        self.schema.canonical(a, v)
    }

    /// Refuses a value that is not of the attribute's type, or that its constraints exclude.
    pub(crate) fn check_value(&self, a: AttrId, v: &Value, form: &Value) -> Result<(), TxError> {
        let attribute = self.schema.attribute(a);
        if Schema::is_system(a) {
            self.check_word(attribute, v, form)?;
        }
        if (self.strict || Schema::is_system(a))
            && let Some(value_type) = attribute.value_type
            && !value_type.accepts(v)
        {
            return Err(TxError::wrong_type(&attribute.ident, v, value_type, form));
        }
        if let Some(tuple) = &attribute.tuple {
            check_tuple(attribute, tuple, v, form)?;
        }
        if let Some(max) = attribute.max_length
            && let Some(length) = length(v)
            && length > max
        {
            return Err(TxError::TooLong {
                attribute: attribute.ident.clone(),
                length,
                max,
                form: form.clone(),
            });
        }
        for predicate in attribute.preds.iter() {
            let holds = self.options.predicates.as_ref();
            match holds.and_then(|holds| holds(predicate, std::slice::from_ref(v))) {
                Some(true) => {}
                Some(false) => {
                    return Err(TxError::Predicate {
                        attribute: attribute.ident.clone(),
                        value: v.clone(),
                        predicate: predicate.to_string(),
                        form: form.clone(),
                    });
                }
                None => {
                    return Err(TxError::UnknownPredicate {
                        attribute: attribute.ident.clone(),
                        predicate: predicate.to_string(),
                    });
                }
            }
        }
        Ok(())
    }

    fn check_word(&self, attribute: &Attribute, v: &Value, form: &Value) -> Result<(), TxError> {
        // In attribute-refs mode a word may be given as the id of its entity.
        let named = match v {
            Value::Long(e) if self.refs => u64::try_from(*e)
                .ok()
                .and_then(|e| self.schema.ident_of_entity(e))
                .map(|word| Value::Keyword(word.clone())),
            _ => None,
        };
        match system_value_error(&attribute.ident, named.as_ref().unwrap_or(v)) {
            None => Ok(()),
            Some(expected) => Err(TxError::WrongType {
                attribute: attribute.ident.clone(),
                value: v.clone(),
                expected: expected.to_owned(),
                form: form.clone(),
            }),
        }
    }
}

fn check_tuple(
    attribute: &Attribute,
    tuple: &Tuple,
    v: &Value,
    form: &Value,
) -> Result<(), TxError> {
    let wrong = |reason: String| {
        Err(TxError::Tuple {
            attribute: attribute.ident.clone(),
            value: v.clone(),
            reason,
            form: form.clone(),
        })
    };
    let (Value::Vector(items) | Value::List(items)) = v else {
        return wrong("expected a vector".to_owned());
    };
    let types: Vec<ValueType> = match tuple {
        Tuple::Composite(_) => return Ok(()),
        Tuple::Types(types) if types.len() != items.len() => {
            return wrong(format!("expected {} values, got {}", types.len(), items.len()));
        }
        Tuple::Types(types) => types.to_vec(),
        Tuple::Of(_) if items.is_empty() || items.len() > MAX_TUPLE => {
            return wrong(format!("expected 1 to {MAX_TUPLE} values, got {}", items.len()));
        }
        Tuple::Of(value_type) => vec![*value_type; items.len()],
    };
    match items.iter().zip(types).find(|(item, t)| !item.is_nil() && !t.accepts(item)) {
        None => Ok(()),
        Some((item, expected)) => {
            wrong(format!("{item} is a {}, expected {expected}", item.type_name()))
        }
    }
}

/// What `:db/maxLength` counts.
fn length(v: &Value) -> Option<u64> {
    let length = match v {
        Value::Str(text) => text.chars().count(),
        Value::Bytes(bytes) => bytes.len(),
        Value::FloatArray(items) => items.len(),
        Value::DoubleArray(items) => items.len(),
        _ => return None,
    };
    u64::try_from(length).ok()
}
