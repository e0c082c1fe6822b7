//! A message: a map with a `:type`, shared and encoded at most once per serializer.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use datahike_value::{Keyword, Value, kw};
use parking_lot::Mutex;

use crate::frame::{self, SerializerId};
use crate::serializer::{EncodeError, Serializer};

/// The namespace that no message from outside may use in its keys: Kabel peers keep the principal and
/// the sender's host there. Here both live on the [`Connection`](crate::Connection), and such keys
/// are removed on arrival.
pub const RESERVED_NAMESPACE: &str = "kabel";

/// What peers say to each other: a map with a keyword under `:type`. A clone is cheap and shares the
/// encoded form, so that a message for a thousand subscribers is encoded once.
#[derive(Clone, Debug)]
pub struct Message {
    body: Arc<Body>,
    /// How long the frame was that this came in; zero if it was made here.
    frame_bytes: usize,
}

#[derive(Debug)]
struct Body {
    kind: Keyword,
    value: Value,
    encoded: Mutex<Vec<(SerializerId, Bytes)>>,
}

/// A value that is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message is a map with a keyword under :type, not {found}")]
pub struct NotAMessage {
    /// What it is.
    pub found: &'static str,
}

impl Message {
    /// A message of this type with these further entries.
    pub fn new(kind: Keyword, entries: impl IntoIterator<Item = (Keyword, Value)>) -> Self {
        let mut map: BTreeMap<Value, Value> =
            entries.into_iter().map(|(key, value)| (Value::Keyword(key), value)).collect();
        map.insert(Value::Keyword(kw!("type")), Value::Keyword(kind.clone()));
        Self::build(kind, Value::from(map), 0)
    }

    /// A message that came from outside in a frame of this length: reserved keys are removed.
    ///
    /// # Errors
    /// If it is not a map with a keyword under `:type`.
    pub fn from_outside(value: Value, frame_bytes: usize) -> Result<Self, NotAMessage> {
        let Some(map) = value.as_map() else {
            return Err(NotAMessage { found: value.type_name() });
        };
        let Some(Value::Keyword(kind)) = map.get(&Value::Keyword(kw!("type"))) else {
            return Err(NotAMessage { found: "a map without" });
        };
        let kind = kind.clone();
        let reserved = |key: &Value| {
            key.as_keyword().is_some_and(|k| k.namespace() == Some(RESERVED_NAMESPACE))
        };
        let value = if map.keys().any(reserved) {
            let kept = map.iter().filter(|(key, _)| !reserved(key));
            Value::map(kept.map(|(key, value)| (key.clone(), value.clone())))
        } else {
            value
        };
        Ok(Self::build(kind, value, frame_bytes))
    }

    fn build(kind: Keyword, value: Value, frame_bytes: usize) -> Self {
        let body = Arc::new(Body { kind, value, encoded: Mutex::default() });
        Self { body, frame_bytes }
    }

    /// What stands under `:type`.
    pub fn kind(&self) -> &Keyword {
        &self.body.kind
    }

    /// What stands under this key.
    pub fn get(&self, key: &Keyword) -> Option<&Value> {
        self.body.value.get(key)
    }

    /// The whole map.
    pub fn value(&self) -> &Value {
        &self.body.value
    }

    /// The same message with this entry changed; it will be encoded anew.
    #[must_use]
    pub fn with(&self, key: Keyword, value: Value) -> Self {
        let mut map = self.body.value.as_map().cloned().unwrap_or_default();
        map.insert(Value::Keyword(key), value);
        Self::build(self.body.kind.clone(), Value::from(map), self.frame_bytes)
    }

    /// Bytes of the frame that this came in; zero if it was made here. Windows are counted in these.
    pub fn frame_bytes(&self) -> usize {
        self.frame_bytes
    }

    /// The frame for this message, made at most once per serializer and then shared.
    ///
    /// # Errors
    /// If the serializer cannot say the value.
    pub fn encode(&self, serializer: &dyn Serializer) -> Result<Bytes, EncodeError> {
        let id = serializer.id();
        let mut encoded = self.body.encoded.lock();
        if let Some((_, frame)) = encoded.iter().find(|(known, _)| *known == id) {
            return Ok(frame.clone());
        }
        let mut payload = Vec::with_capacity(128);
        payload.extend_from_slice(&id.0.to_be_bytes());
        serializer.encode(&self.body.value, &mut payload)?;
        debug_assert!(payload.len() >= frame::HEADER_BYTES);
        let frame = Bytes::from(payload);
        encoded.push((id, frame.clone()));
        Ok(frame)
    }
}
