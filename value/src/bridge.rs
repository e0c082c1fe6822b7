//! Values and serde: [`Value`] itself in any self-describing binary format, and typed Rust data as
//! values.

mod coded;
mod from_value;
mod to_value;

use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::value::Value;

/// The newtype name by which [`to_value`] and [`from_value`] recognise a [`Value`] inside typed data.
/// Other formats write what it wraps.
const VALUE: &str = "$datahike::Value";

/// Typed data as a value: a struct becomes a map with keyword keys, a unit variant a keyword, any
/// other variant a map of one entry, `None` and `()` nil, sequences vectors, bytes a byte array; a
/// [`Value`] inside stays what it is.
///
/// ```
/// use datahike_value::to_value;
///
/// #[derive(serde::Serialize)]
/// struct City { name: &'static str, population: Option<i64> }
///
/// let v = to_value(&City { name: "Ulm", population: None })?;
/// assert_eq!(v.to_string(), "{:name \"Ulm\", :population nil}");
/// # Ok::<(), datahike_value::BridgeError>(())
/// ```
///
/// # Errors
/// If the data's own `Serialize` fails.
pub fn to_value<T: Serialize + ?Sized>(data: &T) -> Result<Value, BridgeError> {
    data.serialize(to_value::ToValue { coded: false })
}

/// Typed data from a value: the reverse of [`to_value`]. Keys of structs and names of variants may be
/// keywords, symbols or strings; a set does for a sequence. (A [`Value`] behind `#[serde(flatten)]` or
/// in an untagged or internally tagged enum sees keywords as strings: serde buffers those.)
///
/// # Errors
/// If the value has not the shape of the data.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, BridgeError> {
    T::deserialize(from_value::FromValue(value))
}

/// A value and typed data that do not fit each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BridgeError {
    message: String,
}

impl serde::ser::Error for BridgeError {
    fn custom<T: Display>(message: T) -> Self {
        Self { message: message.to_string() }
    }
}

impl serde::de::Error for BridgeError {
    fn custom<T: Display>(message: T) -> Self {
        Self { message: message.to_string() }
    }
}
