//! Values as plain JavaScript data, and back.

use datahike::value::BigInt;
use datahike::{Keyword, Uuid, Value, edn};
use js_sys::{Array, Date, Map, Object, Reflect, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};

use crate::failure::unusable;

/// Depth of plain data that is read: deeper is refused, as it may have no end.
const DEPTH_MAX: usize = 64;

/// Integers beyond are not exact as JavaScript numbers.
const SAFE: i64 = (1 << 53) - 1;

/// What a text that begins with a colon means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colon {
    /// A keyword.
    Keyword,
    /// Itself: what it becomes is decided by the schema.
    Text,
}

/// Keywords are texts with their colon, maps are objects where all keys are keywords or texts, and
/// sets are `Set`s.
pub(crate) fn to_js(value: &Value) -> JsValue {
    match value {
        Value::Nil => JsValue::NULL,
        Value::Bool(flag) => (*flag).into(),
        Value::Long(n) if (-SAFE..=SAFE).contains(n) => (*n as f64).into(),
        Value::Long(n) => (*n).into(),
        Value::Double(n) => (*n).into(),
        Value::Float(n) => (*n).into(),
        Value::BigInt(n) => big(n),
        Value::Str(text) => (&**text).into(),
        Value::Char(c) => c.to_string().into(),
        Value::Uuid(id) => id.to_string().into(),
        Value::Inst(ms) => Date::new(&(*ms as f64).into()).into(),
        Value::Bytes(bytes) => Uint8Array::from(&**bytes).into(),
        Value::FloatArray(numbers) => js_sys::Float32Array::from(&**numbers).into(),
        Value::DoubleArray(numbers) => js_sys::Float64Array::from(&**numbers).into(),
        Value::List(items) | Value::Vector(items) => {
            items.iter().map(to_js).collect::<Array>().into()
        }
        Value::Set(items) => {
            let set = js_sys::Set::new(&JsValue::UNDEFINED);
            items.iter().for_each(|item| drop(set.add(&to_js(item))));
            set.into()
        }
        Value::Map(entries) => {
            // One key means something else to an object.
            let fits = |key: &Value| match key {
                Value::Keyword(_) => true,
                Value::Str(text) => &**text != "__proto__",
                _ => false,
            };
            if !entries.keys().all(fits) {
                let map = Map::new();
                entries.iter().for_each(|(key, value)| drop(map.set(&to_js(key), &to_js(value))));
                return map.into();
            }
            let object = Object::new();
            for (key, value) in &**entries {
                let _ = Reflect::set(&object, &to_js(key), &to_js(value));
            }
            object.into()
        }
        // Keywords, symbols, decimals, regexes and tagged values as EDN prints them.
        other => other.to_string().into(),
    }
}

fn big(n: &BigInt) -> JsValue {
    let text = n.to_string();
    js_sys::BigInt::new(&text.as_str().into()).map_or_else(|_| text.into(), Into::into)
}

/// Plain data as a value. Keys of objects become keywords.
///
/// # Errors
/// If something in it is no data.
pub(crate) fn from_js(value: &JsValue, colon: Colon) -> Result<Value, JsValue> {
    read(value, colon, DEPTH_MAX)
}

/// A text in EDN, or plain data.
///
/// # Errors
/// Why the text cannot be read, or what in the data is none.
pub(crate) fn edn_or_plain(value: &JsValue, colon: Colon) -> Result<Value, JsValue> {
    match value.as_string() {
        Some(text) => edn::read(&text).map_err(|error| unusable(&error.to_string())),
        None => from_js(value, colon),
    }
}

fn read(value: &JsValue, colon: Colon, depth: usize) -> Result<Value, JsValue> {
    let Some(depth) = depth.checked_sub(1) else {
        return Err(unusable("the data is nested too deeply, or contains itself"));
    };
    if value.is_null() || value.is_undefined() {
        return Ok(Value::Nil);
    }
    if let Some(flag) = value.as_bool() {
        return Ok(Value::Bool(flag));
    }
    if let Some(n) = value.as_f64() {
        let whole =
            n.fract() == 0.0 && n.abs() <= SAFE as f64 && !(n == 0.0 && n.is_sign_negative());
        return Ok(if whole { Value::Long(n as i64) } else { Value::Double(n) });
    }
    if let Some(text) = value.as_string() {
        return Ok(match text.strip_prefix(':') {
            Some(name) if colon == Colon::Keyword && !name.is_empty() => {
                Value::Keyword(Keyword::parse(name))
            }
            _ => Value::str(text),
        });
    }
    if let Some(n) = value.dyn_ref::<js_sys::BigInt>() {
        let text = n.to_string(10).map(String::from).map_err(JsValue::from)?;
        return match text.parse::<i64>() {
            Ok(n) => Ok(Value::Long(n)),
            Err(_) => edn::read(&format!("{text}N")).map_err(|e| unusable(&e.to_string())),
        };
    }
    if let Some(date) = value.dyn_ref::<Date>() {
        let ms = date.get_time();
        let valid = ms.is_finite().then_some(Value::Inst(ms as i64));
        return valid.ok_or_else(|| unusable("an invalid date"));
    }
    if let Some(bytes) = value.dyn_ref::<Uint8Array>() {
        return Ok(Value::bytes(bytes.to_vec()));
    }
    if let Some(items) = value.dyn_ref::<Array>() {
        let items: Result<Vec<_>, _> = items.iter().map(|item| read(&item, colon, depth)).collect();
        return Ok(Value::vector(items?));
    }
    if let Some(set) = value.dyn_ref::<js_sys::Set>() {
        let items: Result<Vec<_>, _> =
            Array::from(set).iter().map(|item| read(&item, colon, depth)).collect();
        return Ok(Value::set(items?));
    }
    if let Some(map) = value.dyn_ref::<Map>() {
        let entry = |pair: JsValue| {
            let pair = Array::from(&pair);
            Ok((read(&pair.get(0), colon, depth)?, read(&pair.get(1), colon, depth)?))
        };
        let entries: Result<Vec<_>, JsValue> = Array::from(map).iter().map(entry).collect();
        return Ok(Value::map(entries?));
    }
    if value.is_function() || value.is_symbol() {
        return Err(unusable("functions and symbols are no data"));
    }
    let entry = |pair: JsValue| {
        let pair = Array::from(&pair);
        Ok((keyword(&pair.get(0)), read(&pair.get(1), colon, depth)?))
    };
    let entries: Result<Vec<_>, JsValue> =
        Object::entries(value.unchecked_ref()).iter().map(entry).collect();
    Ok(Value::map(entries?))
}

fn keyword(key: &JsValue) -> Value {
    let key = key.as_string().unwrap_or_default();
    Value::Keyword(Keyword::parse(key.strip_prefix(':').unwrap_or(&key)))
}

/// A configuration: EDN, or an object with the same keys, in camel case if one likes, in which
/// identities are texts.
///
/// # Errors
/// Why it cannot be read.
pub(crate) fn config(value: &JsValue) -> Result<Value, JsValue> {
    let plain = edn_or_plain(value, Colon::Keyword)?;
    Ok(if value.is_string() { plain } else { spelled(&plain) })
}

/// Keys that end in a question mark in EDN.
const FLAGS: [&str; 4] = ["keep-history", "attribute-refs", "crypto-hash", "allow-index-backfill"];

fn spelled(value: &Value) -> Value {
    match value {
        Value::Map(entries) => Value::map(entries.iter().map(|(key, value)| {
            let mut name = String::new();
            for c in key.as_keyword().map(Keyword::text).unwrap_or_default().chars() {
                if c.is_ascii_uppercase() {
                    name.push('-');
                }
                name.push(c.to_ascii_lowercase());
            }
            if FLAGS.contains(&name.as_str()) {
                name.push('?');
            }
            let value = match (name.as_str(), value) {
                ("initial-tx", value) => value.clone(),
                ("id" | "peer-id", Value::Str(text)) => {
                    Uuid::try_parse(text).map_or_else(|_| value.clone(), Value::Uuid)
                }
                ("backend" | "schema-flexibility" | "branch", Value::Str(text)) => {
                    Value::keyword(text)
                }
                _ => spelled(value),
            };
            (Value::keyword(&name), value)
        })),
        other => other.clone(),
    }
}

/// Sets a property of an object that was made here.
pub(crate) fn set(object: &JsValue, key: &str, value: &JsValue) {
    // Only frozen objects and proxies refuse.
    let _ = Reflect::set(object, &key.into(), value);
}
