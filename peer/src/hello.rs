//! The first words on a connection: who is there, which versions and serializers, what is allowed.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use datahike_value::{Keyword, Value, kw};
use uuid::Uuid;

use crate::error::Refusal;
use crate::frame::SerializerId;
use crate::message::Message;

/// The newest protocol version that this crate speaks.
pub const VERSION: u32 = 1;
/// The oldest protocol version that this crate still speaks.
pub const VERSION_OLDEST: u32 = 1;

/// A peer's name for itself. Self-asserted: rights hang on the principal, never on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(pub Uuid);

impl std::fmt::Display for PeerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What the dialling peer says first (`:peer/hello`, in EDN text).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Protocol versions that it speaks.
    pub versions: RangeInclusive<u32>,
    /// Who it says it is.
    pub peer: PeerId,
    /// Serializers that it reads and writes, the one it likes best first.
    pub serializers: Vec<SerializerId>,
    /// What proves who it is.
    pub token: Option<Token>,
    /// Program and version, for logs.
    pub agent: String,
    /// Bytes of the largest frame that it takes.
    pub frame_bytes: usize,
    /// Anything that layers above add, such as stores and their epochs.
    pub properties: BTreeMap<Keyword, Value>,
}

/// What the accepting peer answers (`:peer/welcome`, in EDN text).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Welcome {
    /// The version that is spoken from here on.
    pub version: u32,
    /// Who it says it is.
    pub peer: PeerId,
    /// The serializer that is used from here on.
    pub serializer: SerializerId,
    /// Program and version, for logs.
    pub agent: String,
    /// Bytes of the largest frame that it takes.
    pub frame_bytes: usize,
    /// Anything that layers above add.
    pub properties: BTreeMap<Keyword, Value>,
}

/// A secret; never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// A token.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl Hello {
    /// As a message.
    pub fn to_message(&self) -> Message {
        let serializers = self.serializers.iter().map(|id| Value::from(id.0));
        let versions = [*self.versions.start(), *self.versions.end()].map(Value::from);
        let mut entries = vec![
            (kw!("versions"), Value::vector(versions)),
            (kw!("peer"), Value::Uuid(self.peer.0)),
            (kw!("serializers"), Value::vector(serializers)),
            (kw!("agent"), Value::str(self.agent.as_str())),
            (kw!("frame-bytes"), long(self.frame_bytes)),
        ];
        if let Some(token) = &self.token {
            entries.push((kw!("token"), Value::str(token.secret())));
        }
        push_properties(&mut entries, &self.properties);
        Message::new(kw!("peer/hello"), entries)
    }

    /// Reads one from a message.
    ///
    /// # Errors
    /// What is missing or of the wrong type, as a refusal to send back.
    pub fn from_message(message: &Message) -> Result<Self, Refusal> {
        let versions = required(message, &kw!("versions"), Value::as_vector)?;
        let [first, last] = versions else {
            return Err(malformed("versions"));
        };
        let version = |value: &Value| {
            let number = value.as_long().and_then(|n| u32::try_from(n).ok());
            number.ok_or_else(|| malformed("versions"))
        };
        let serializers = required(message, &kw!("serializers"), Value::as_vector)?.iter();
        let serializers = serializers
            .map(|id| id.as_long().and_then(|n| u32::try_from(n).ok()).map(SerializerId))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| malformed("serializers"))?;
        Ok(Self {
            versions: version(first)?..=version(last)?,
            peer: PeerId(required(message, &kw!("peer"), Value::as_uuid)?),
            serializers,
            token: message.get(&kw!("token")).and_then(Value::as_str).map(Token::new),
            agent: required(message, &kw!("agent"), Value::as_str)?.to_owned(),
            frame_bytes: frame_bytes(message)?,
            properties: properties(message),
        })
    }
}

impl Welcome {
    /// As a message.
    pub fn to_message(&self) -> Message {
        let mut entries = vec![
            (kw!("version"), Value::from(self.version)),
            (kw!("peer"), Value::Uuid(self.peer.0)),
            (kw!("serializer"), Value::from(self.serializer.0)),
            (kw!("agent"), Value::str(self.agent.as_str())),
            (kw!("frame-bytes"), long(self.frame_bytes)),
        ];
        push_properties(&mut entries, &self.properties);
        Message::new(kw!("peer/welcome"), entries)
    }

    /// Reads one from a message.
    ///
    /// # Errors
    /// What is missing or of the wrong type.
    pub fn from_message(message: &Message) -> Result<Self, Refusal> {
        let number = |key| {
            let number = required(message, key, Value::as_long)?;
            u32::try_from(number).map_err(|_| malformed(key.name()))
        };
        Ok(Self {
            version: number(&kw!("version"))?,
            peer: PeerId(required(message, &kw!("peer"), Value::as_uuid)?),
            serializer: SerializerId(number(&kw!("serializer"))?),
            agent: required(message, &kw!("agent"), Value::as_str)?.to_owned(),
            frame_bytes: frame_bytes(message)?,
            properties: properties(message),
        })
    }
}

impl Refusal {
    /// The entries that say this in a message of any type.
    pub fn to_entries(&self) -> Vec<(Keyword, Value)> {
        let mut entries = vec![
            (kw!("code"), Value::Keyword(self.code.clone())),
            (kw!("message"), Value::str(self.message.as_str())),
        ];
        if !self.data.is_nil() {
            entries.push((kw!("data"), self.data.clone()));
        }
        entries
    }

    /// Reads what [`to_entries`](Self::to_entries) wrote; what is missing gets a code that says so.
    pub fn from_message(message: &Message) -> Self {
        let code = message.get(&kw!("code")).and_then(Value::as_keyword);
        let text = message.get(&kw!("message")).and_then(Value::as_str);
        Self {
            code: code.cloned().unwrap_or_else(|| kw!("peer/unknown")),
            message: text.unwrap_or("no reason was given").to_owned(),
            data: message.get(&kw!("data")).cloned().unwrap_or_default(),
        }
    }
}

fn push_properties(entries: &mut Vec<(Keyword, Value)>, properties: &BTreeMap<Keyword, Value>) {
    if !properties.is_empty() {
        let map =
            properties.iter().map(|(key, value)| (Value::Keyword(key.clone()), value.clone()));
        entries.push((kw!("properties"), Value::map(map)));
    }
}

fn properties(message: &Message) -> BTreeMap<Keyword, Value> {
    let map = message.get(&kw!("properties")).and_then(Value::as_map);
    map.into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.as_keyword()?.clone(), value.clone())))
        .collect()
}

fn frame_bytes(message: &Message) -> Result<usize, Refusal> {
    let bytes = required(message, &kw!("frame-bytes"), Value::as_long)?;
    usize::try_from(bytes).map_err(|_| malformed("frame-bytes"))
}

fn required<'a, T>(
    message: &'a Message,
    key: &Keyword,
    read: impl FnOnce(&'a Value) -> Option<T>,
) -> Result<T, Refusal> {
    message.get(key).and_then(read).ok_or_else(|| malformed(key.name()))
}

fn malformed(key: &str) -> Refusal {
    Refusal::new("peer/malformed-hello", format!("the hello has no proper :{key}"))
}

fn long(n: usize) -> Value {
    Value::Long(i64::try_from(n).unwrap_or(i64::MAX))
}
