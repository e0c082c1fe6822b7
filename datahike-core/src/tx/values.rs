//! Whether a value belongs under an attribute, and the form in which it is stored.

use datahike_value::Value;

use super::TxError;
use super::transactor::Transactor;
use crate::datom::AttrId;
use crate::db::entity_value;
use crate::schema::{Attribute, Schema, Tuple, ValueType, system, system_value_error};

/// How many values a homogeneous tuple may hold.
const MAX_TUPLE: usize = 8;

/// Levels of collections in a value: fewer than every reader of stored values takes.
const MAX_NESTED: u64 = 100;

/// Digits of a number.
const MAX_DIGITS: u64 = 4_096;

/// Magnitude of the scale of a decimal.
const MAX_SCALE: u64 = 10_000;

/// Elements of one value, those of nested collections included.
const MAX_ELEMENTS: u64 = 1_000_000;

/// Bytes of a value that is looked up by itself: such values also stand in the branches of an index.
const MAX_INDEXED: u64 = 64 << 10;

/// How large values may be besides what every database takes: `:max-string-length` and its like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ValueCaps {
    /// Characters of a string.
    pub string: Option<u64>,
    /// Bytes of a byte array.
    pub bytes: Option<u64>,
    /// Elements of an array of floats.
    pub float_array: Option<u64>,
    /// Elements of an array of doubles.
    pub double_array: Option<u64>,
    /// Characters of a string in a tuple.
    pub tuple_string: Option<u64>,
}

impl Default for ValueCaps {
    fn default() -> Self {
        Self::NONE
    }
}

impl ValueCaps {
    /// No caps.
    pub const NONE: Self = Self {
        string: None,
        bytes: None,
        float_array: None,
        double_array: None,
        tuple_string: None,
    };

    /// `:value-caps :default`
    pub const STANDARD: Self = Self {
        string: Some(4_096),
        bytes: Some(4_096),
        float_array: Some(4_096),
        double_array: Some(4_096),
        tuple_string: Some(256),
    };

    fn check(&self, attribute: &Attribute, v: &Value, form: &Value) -> Result<(), TxError> {
        let too_large = |what, size, max| {
            let (attribute, form) = (attribute.ident.clone(), form.clone());
            Err(TxError::TooLarge { attribute, what, size, max, form })
        };
        let (what, size, cap) = match v {
            Value::Str(text) if attribute.in_avet() && text.len() as u64 > MAX_INDEXED => {
                return too_large("bytes, and is indexed", text.len() as u64, MAX_INDEXED);
            }
            Value::Str(text) => ("characters", text.len(), self.string),
            Value::Bytes(bytes) if attribute.in_avet() && bytes.len() as u64 > MAX_INDEXED => {
                return too_large("bytes, and is indexed", bytes.len() as u64, MAX_INDEXED);
            }
            Value::Bytes(bytes) => ("bytes", bytes.len(), self.bytes),
            Value::FloatArray(items) => ("elements", items.len(), self.float_array),
            Value::DoubleArray(items) => ("elements", items.len(), self.double_array),
            Value::BigInt(_)
            | Value::BigDec(_)
            | Value::Vector(_)
            | Value::List(_)
            | Value::Set(_)
            | Value::Map(_)
            | Value::Tagged(_) => {
                let mut size = Size::default();
                size.add(v, 1);
                if attribute.in_avet() && size.bytes > MAX_INDEXED {
                    return too_large("bytes, and is indexed", size.bytes, MAX_INDEXED);
                }
                let bounds = [
                    ("levels", size.levels, MAX_NESTED),
                    ("elements", size.elements, MAX_ELEMENTS),
                    ("digits in a number", size.digits, MAX_DIGITS),
                    ("places after the point", size.scale, MAX_SCALE),
                    ("characters in a string", size.string, self.tuple_string.unwrap_or(u64::MAX)),
                ];
                return match bounds.into_iter().find(|(_, size, max)| size > max) {
                    Some((what, size, max)) => too_large(what, size, max),
                    None => Ok(()),
                };
            }
            _ => return Ok(()),
        };
        let Some(cap) = cap.filter(|cap| size as u64 > *cap) else { return Ok(()) };
        let size = length(v).unwrap_or(size as u64);
        if size > cap { too_large(what, size, cap) } else { Ok(()) }
    }
}

/// What is in a collection, or in a number of any size.
#[derive(Debug, Default)]
struct Size {
    levels: u64,
    elements: u64,
    bytes: u64,
    digits: u64,
    /// Of a decimal, without its sign.
    scale: u64,
    /// Characters of the longest string.
    string: u64,
}

impl Size {
    fn add(&mut self, v: &Value, level: u64) {
        self.levels = self.levels.max(level);
        self.elements += 1;
        // Deep enough to be refused; deeper values may be of any depth.
        if level > MAX_NESTED || self.elements > MAX_ELEMENTS {
            return;
        }
        self.bytes += match v {
            Value::Str(text) => text.len() as u64,
            Value::Bytes(bytes) => bytes.len() as u64,
            Value::BigInt(n) => n.bits().div_ceil(8),
            Value::BigDec(n) => n.as_bigint_and_exponent().0.bits().div_ceil(8),
            _ => 8,
        };
        match v {
            Value::Str(text) => self.string = self.string.max(text.chars().count() as u64),
            // A digit takes 3.32 bits.
            Value::BigInt(n) => self.digits = self.digits.max(n.bits() * 100 / 333),
            Value::BigDec(n) => {
                let (digits, scale) = n.as_bigint_and_exponent();
                self.digits = self.digits.max(digits.bits() * 100 / 333);
                self.scale = self.scale.max(scale.unsigned_abs());
            }
            Value::Vector(items) | Value::List(items) => {
                items.iter().for_each(|item| self.add(item, level + 1));
            }
            Value::Set(items) => items.iter().for_each(|item| self.add(item, level + 1)),
            Value::Map(entries) => entries.iter().for_each(|(k, v)| {
                self.add(k, level + 1);
                self.add(v, level + 1);
            }),
            Value::Tagged(tagged) => self.add(&tagged.value, level + 1),
            _ => {}
        }
    }
}

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
        if attribute.entity.is_none() && attribute.ident == system::function() {
            if !matches!(v, Value::Symbol(_) | Value::Keyword(_)) {
                return Err(TxError::wrong_type(&attribute.ident, v, ValueType::Symbol, form));
            }
            return Ok(());
        }
        self.options.caps.check(attribute, v, form)?;
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
            let named = self.options.functions.value_predicate_named(predicate);
            match named.map(|holds| holds(v)) {
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
