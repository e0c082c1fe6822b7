//! Transaction data from formats that have no keywords: strings become what the schema says.

use datahike_core::db::Db;
use datahike_core::schema::{Attribute, ValueType};
use datahike_value::{Keyword, Uuid, Value, edn, kw};

/// Transaction data in which names are keywords and values of the type of their attribute, as far
/// as that is clear: for formats that have neither keywords nor all types of numbers. What does not
/// fit stays as it is, for the transactor to refuse.
pub fn coerce_tx_data(db: &Db, data: &Value) -> Value {
    match data {
        Value::Vector(forms) | Value::List(forms) => {
            Value::vector(forms.iter().map(|form| self::form(db, form)))
        }
        // `{:tx-data … :tx-meta …}`
        Value::Map(parts) => Value::map(parts.iter().map(|(key, value)| {
            let value = match key.as_keyword().map(|key| key.text()) {
                Some("tx-data") => coerce_tx_data(db, value),
                Some("tx-meta") => form(db, value),
                _ => value.clone(),
            };
            (key.clone(), value)
        })),
        other => other.clone(),
    }
}

fn form(db: &Db, form: &Value) -> Value {
    match form {
        Value::Map(entries) => Value::map(entries.iter().map(|(key, value)| {
            let key = name(key);
            let value = match key.as_keyword() {
                Some(attribute) if *attribute == kw!("db/id") => entity(db, value),
                Some(attribute) => values(db, attribute, value),
                None => value.clone(),
            };
            (key, value)
        })),
        Value::Vector(items) | Value::List(items) => {
            let mut coerced: Vec<Value> = Vec::with_capacity(items.len());
            for (place, item) in items.iter().enumerate() {
                coerced.push(match place {
                    0 => name(item),
                    1 => entity(db, item),
                    2 => name(item),
                    _ => match coerced.get(2).and_then(Value::as_keyword) {
                        Some(attribute) => values(db, attribute, item),
                        None => item.clone(),
                    },
                });
            }
            Value::vector(coerced)
        }
        other => other.clone(),
    }
}

fn name(value: &Value) -> Value {
    match value {
        Value::Str(text) if !text.is_empty() => {
            Value::Keyword(Keyword::parse(text.strip_prefix(':').unwrap_or(text)))
        }
        other => other.clone(),
    }
}

/// An id, a tempid, or a lookup ref.
fn entity(db: &Db, value: &Value) -> Value {
    match value.as_slice() {
        Some([attribute, found]) => {
            let attribute = name(attribute);
            let found = match attribute.as_keyword().and_then(|ident| db.attribute(ident)) {
                Some(known) => one(db, known, found),
                None => found.clone(),
            };
            Value::vector([attribute, found])
        }
        _ => match value {
            Value::Str(text) if &**text == "db/current-tx" => name(value),
            other => other.clone(),
        },
    }
}

fn values(db: &Db, ident: &Keyword, value: &Value) -> Value {
    let forward = if ident.is_reverse() { ident.reversed() } else { ident.clone() };
    let Some(attribute) = db.attribute(&forward) else {
        return match value {
            Value::Map(_) => form(db, value),
            other => other.clone(),
        };
    };
    let reverse = ident.is_reverse();
    let many = attribute.is_many() || reverse;
    match value {
        Value::Vector(items) | Value::List(items) if many && !is_lookup(db, value) => {
            Value::vector(items.iter().map(|item| one(db, attribute, item)))
        }
        Value::Set(items) if many => Value::set(items.iter().map(|item| one(db, attribute, item))),
        value => one(db, attribute, value),
    }
}

/// Whether a pair names an entity rather than being two values.
fn is_lookup(db: &Db, value: &Value) -> bool {
    match value.as_slice() {
        Some([attribute, _]) => name(attribute)
            .as_keyword()
            .and_then(|ident| db.attribute(ident))
            .is_some_and(|attribute| attribute.unique.is_some()),
        _ => false,
    }
}

fn one(db: &Db, attribute: &Attribute, value: &Value) -> Value {
    if attribute.is_ref() {
        return match value {
            Value::Map(_) => form(db, value),
            Value::Vector(_) | Value::List(_) => entity(db, value),
            other => other.clone(),
        };
    }
    let Some(value_type) = attribute.value_type else {
        // Which attributes make a tuple, and of which types, is declared by keywords.
        let names = attribute.ident.namespace() == Some("db");
        return match value {
            Value::Vector(items) if names => Value::vector(items.iter().map(name)),
            other => other.clone(),
        };
    };
    let coerced = match (value_type, value) {
        (
            ValueType::Keyword | ValueType::ValueType | ValueType::Cardinality | ValueType::Unique,
            Value::Str(_),
        ) => Some(name(value)),
        (ValueType::Symbol, Value::Str(text)) => Some(Value::symbol(text)),
        (ValueType::Uuid, Value::Str(text)) => Uuid::try_parse(text).ok().map(Value::Uuid),
        (ValueType::Instant, Value::Long(ms)) => Some(Value::Inst(*ms)),
        (ValueType::Instant, Value::Str(text)) => {
            let quoted = Value::str(text.clone());
            edn::read(&format!("#inst {quoted}")).ok()
        }
        (ValueType::Long, Value::Double(d)) if d.fract() == 0.0 && d.abs() < 9.0e15 => {
            Some(Value::Long(*d as i64))
        }
        (ValueType::Double, Value::Long(n)) => Some(Value::Double(*n as f64)),
        (ValueType::Float, Value::Long(n)) => Some(Value::Float(*n as f32)),
        (ValueType::Float, Value::Double(d)) => Some(Value::Float(*d as f32)),
        (ValueType::Bigint, Value::Long(n)) => Some(Value::bigint(*n)),
        (ValueType::Bigdec, Value::Long(_) | Value::Double(_)) => {
            edn::read(&format!("{value}M")).ok()
        }
        _ => None,
    };
    coerced.unwrap_or_else(|| value.clone())
}
