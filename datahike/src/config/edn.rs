//! The configuration as an EDN map, as Datahike writes it.

use std::str::FromStr;

use datahike_core::tx::ValueCaps;
use datahike_value::{Keyword, Value, edn};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    Config, HttpPeer, KabelPeer, MirrorMode, SchemaFlexibility, Secret, StoreConfig, StoreId,
    WriterConfig,
};

/// Why a configuration was refused. The key is the path to it: `:store :path`.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The text is not EDN.
    #[error(transparent)]
    Text(#[from] edn::ReadError),
    /// A key that has to be there is not.
    #[error("configuration lacks {key}: {hint}")]
    Lacks {
        /// The key.
        key: String,
        /// What to give.
        hint: &'static str,
    },
    /// A value that the key cannot have.
    #[error("{key} cannot be {found}: expected {expected}")]
    Value {
        /// The key.
        key: String,
        /// What stands there.
        found: Value,
        /// What may stand there.
        expected: &'static str,
    },
    /// A key that means nothing here.
    #[error("{key} is not a key of this configuration; there are {known}")]
    UnknownKey {
        /// The key.
        key: Value,
        /// The keys there are.
        known: &'static str,
    },
    /// Two settings that exclude each other.
    #[error("{first} and {second} exclude each other: {reason}")]
    Exclusive {
        /// One.
        first: &'static str,
        /// The other.
        second: &'static str,
        /// Why.
        reason: &'static str,
    },
}

const KNOWN: &str = ":store :writer :remote-peer :name :schema-flexibility :keep-history? \
    :attribute-refs? :crypto-hash? :index :branch :store-cache-size :search-cache-size \
    :initial-tx :mirror :allow-index-backfill? :value-caps :max-string-length :max-bytes-length \
    :max-float-array-length :max-double-array-length :max-tuple-string-length";

/// Keys of Datahike that tune what does not exist here: accepted, without effect.
const WITHOUT_EFFECT: [&str; 5] =
    ["index-config", "fuse-index-roots?", "commit-graph?", "online-gc", "allow-unsafe-config"];

const CAPS: [&str; 5] = [
    "max-string-length",
    "max-bytes-length",
    "max-float-array-length",
    "max-double-array-length",
    "max-tuple-string-length",
];

fn cap_of<'a>(caps: &'a mut ValueCaps, key: &str) -> Option<&'a mut Option<u64>> {
    match key {
        "max-string-length" => Some(&mut caps.string),
        "max-bytes-length" => Some(&mut caps.bytes),
        "max-float-array-length" => Some(&mut caps.float_array),
        "max-double-array-length" => Some(&mut caps.double_array),
        "max-tuple-string-length" => Some(&mut caps.tuple_string),
        _ => None,
    }
}

impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Self::from_value(&edn::read(text)?)
    }
}

impl Config {
    /// From an EDN map.
    ///
    /// # Errors
    /// Names the key and what it may be.
    pub fn from_value(value: &Value) -> Result<Self, ConfigError> {
        let map = Map::of("configuration", value)?;
        let mut config = Self::new(StoreConfig::from_value(map.required(
            "store",
            "give {:backend :file :path \"…\"} or {:backend :memory :id #uuid \"…\"}",
        )?)?);
        if let Some(preset) = map.get("value-caps").filter(|preset| !preset.is_nil()) {
            config.value_caps = match keyword(preset) {
                Some("default") => ValueCaps::STANDARD,
                _ => return Err(unexpected("value-caps", preset, ":default")),
            };
        }
        for (key, value) in map.entries {
            let Some(name) = key.as_keyword().map(Keyword::text) else {
                return Err(ConfigError::UnknownKey { key: key.clone(), known: KNOWN });
            };
            if value.is_nil() {
                continue;
            }
            match name {
                "store" => {}
                "writer" => config.writer = writer(value)?,
                "remote-peer" => config.remote_peer = Some(http_peer(":remote-peer", value)?),
                "name" => config.name = Some(text(name, value)?),
                "schema-flexibility" => {
                    config.schema_flexibility = match keyword(value) {
                        Some("read") => SchemaFlexibility::Read,
                        Some("write") => SchemaFlexibility::Write,
                        _ => return Err(unexpected(name, value, ":read or :write")),
                    }
                }
                "keep-history?" => config.keep_history = boolean(name, value)?,
                "attribute-refs?" => config.attribute_refs = boolean(name, value)?,
                "crypto-hash?" => config.crypto_hash = boolean(name, value)?,
                "index" => config.index = Some(value.clone()),
                "branch" => match value.as_keyword() {
                    Some(branch) => config.branch = branch.text().to_owned(),
                    None => return Err(unexpected(name, value, "a keyword such as :db")),
                },
                "store-cache-size" => config.store_cache_size = size(name, value)?,
                "search-cache-size" => config.search_cache_size = size(name, value)?,
                "initial-tx" => config.initial_tx = Some(value.clone()),
                "allow-index-backfill?" => config.allow_index_backfill = boolean(name, value)?,
                // Read before all others: they are set on top of it.
                "value-caps" => {}
                cap if cap_of(&mut config.value_caps, cap).is_some() => {
                    // As Datahike says it, 0 is no cap.
                    let max = u64::try_from(size(name, value)?).ok().filter(|max| *max > 0);
                    cap_of(&mut config.value_caps, cap).into_iter().for_each(|cap| *cap = max);
                }
                "mirror" => match keyword(value) {
                    Some("full") => config.mirror = MirrorMode::Full,
                    _ => return Err(unexpected(name, value, ":full")),
                },
                other if WITHOUT_EFFECT.contains(&other) => {}
                _ => return Err(ConfigError::UnknownKey { key: key.clone(), known: KNOWN }),
            }
        }
        if config.attribute_refs && config.schema_flexibility == SchemaFlexibility::Read {
            return Err(ConfigError::Exclusive {
                first: ":attribute-refs? true",
                second: ":schema-flexibility :read",
                reason: "an attribute that was never declared has no entity id",
            });
        }
        Ok(config)
    }

    /// As an EDN map, complete, with the token of a writer left out.
    pub fn to_value(&self) -> Value {
        let mut entries = vec![
            ("store", self.store.to_value()),
            ("writer", self.writer.to_value()),
            (
                "schema-flexibility",
                Value::keyword(match self.schema_flexibility {
                    SchemaFlexibility::Read => "read",
                    SchemaFlexibility::Write => "write",
                }),
            ),
            ("keep-history?", self.keep_history.into()),
            ("attribute-refs?", self.attribute_refs.into()),
            ("crypto-hash?", self.crypto_hash.into()),
            ("branch", Value::keyword(&self.branch)),
            ("store-cache-size", count(self.store_cache_size)),
            ("search-cache-size", count(self.search_cache_size)),
            ("allow-index-backfill?", self.allow_index_backfill.into()),
        ];
        let optional = [
            ("remote-peer", self.remote_peer.as_ref().map(HttpPeer::to_value)),
            ("name", self.name.as_deref().map(Value::from)),
            ("index", self.index.clone()),
            ("initial-tx", self.initial_tx.clone()),
        ];
        let mut caps = self.value_caps;
        for key in CAPS {
            let max = cap_of(&mut caps, key).and_then(|max| *max);
            entries
                .extend(max.and_then(|max| usize::try_from(max).ok()).map(|max| (key, count(max))));
        }
        entries.extend(optional.into_iter().filter_map(|(key, value)| Some((key, value?))));
        map(entries)
    }
}

impl Serialize for Config {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Config {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        Self::from_value(&value).map_err(serde::de::Error::custom)
    }
}

impl StoreConfig {
    /// From the value of `:store`.
    ///
    /// # Errors
    /// Names the key and what it may be.
    pub fn from_value(value: &Value) -> Result<Self, ConfigError> {
        let map = Map::of(":store", value)?;
        let id = map.get("id").map(store_id).transpose()?;
        let backend = map.required("backend", "give :memory, :file, :tiered or :indexeddb")?;
        Ok(match keyword(backend) {
            Some("memory" | "mem") => Self::Memory { id: id.unwrap_or_else(StoreId::random) },
            Some("file") => Self::File {
                path: text(":store :path", map.required("path", "give the folder")?)?.into(),
                id,
            },
            Some("tiered") => {
                let part = |key, hint| Self::from_value(map.required(key, hint)?).map(Box::new);
                let frontend = part("frontend-config", "give the fast store")?;
                let backend = part("backend-config", "give the lasting store")?;
                let ids = [id.as_ref(), frontend.id(), backend.id()];
                let given: Vec<_> = ids.into_iter().flatten().map(StoreId::uuid).collect();
                if given.windows(2).any(|two| two[0] != two[1]) {
                    return Err(ConfigError::Exclusive {
                        first: ":store :id",
                        second: ":id of its frontend or backend",
                        reason: "the tiers of one store have one id",
                    });
                }
                Self::Tiered { frontend, backend, id }
            }
            Some("indexeddb") => Self::IndexedDb {
                name: text(":store :name", map.required("name", "give the database's name")?)?,
                id,
            },
            _ => {
                return Err(unexpected(
                    ":store :backend",
                    backend,
                    ":memory, :file, :tiered or :indexeddb",
                ));
            }
        })
    }

    /// As the value of `:store`.
    pub fn to_value(&self) -> Value {
        let (mut entries, id) = match self {
            Self::Memory { id } => (vec![("backend", Value::keyword("memory"))], Some(id)),
            Self::File { path, id } => (
                vec![
                    ("backend", Value::keyword("file")),
                    ("path", path.to_string_lossy().into_owned().into()),
                ],
                id.as_ref(),
            ),
            Self::Tiered { frontend, backend, id } => (
                vec![
                    ("backend", Value::keyword("tiered")),
                    ("frontend-config", frontend.to_value()),
                    ("backend-config", backend.to_value()),
                ],
                id.as_ref(),
            ),
            Self::IndexedDb { name, id } => (
                vec![("backend", Value::keyword("indexeddb")), ("name", name.as_str().into())],
                id.as_ref(),
            ),
        };
        if let Some(id) = id {
            entries.push(("id", id.name().map_or(Value::Uuid(id.uuid()), Value::from)));
        }
        map(entries)
    }
}

impl WriterConfig {
    fn to_value(&self) -> Value {
        match self {
            Self::Local => map(vec![("backend", Value::keyword("self"))]),
            Self::ReadOnly => map(vec![("backend", Value::keyword("none"))]),
            Self::Kabel(peer) => {
                let mut entries = vec![("backend", Value::keyword("kabel"))];
                entries.extend(peer.peer_id.map(|id| ("peer-id", Value::Uuid(id))));
                entries.extend(peer.url.as_deref().map(|url| ("url", Value::from(url))));
                entries.extend(peer.database.as_deref().map(|name| ("database", name.into())));
                map(entries)
            }
            Self::Http(peer) => peer.to_value(),
        }
    }
}

impl HttpPeer {
    fn to_value(&self) -> Value {
        let mut entries =
            vec![("backend", Value::keyword("datahike-server")), ("url", self.url.as_str().into())];
        entries.extend(self.format.as_deref().map(|f| ("format", Value::keyword(f))));
        map(entries)
    }
}

fn writer(value: &Value) -> Result<WriterConfig, ConfigError> {
    let map = Map::of(":writer", value)?;
    let backend =
        map.required("backend", "give :self, :kabel, :datahike-server, or :none to read only")?;
    Ok(match keyword(backend) {
        Some("self") => WriterConfig::Local,
        Some("none") => WriterConfig::ReadOnly,
        Some("kabel") => WriterConfig::Kabel(KabelPeer {
            peer_id: map
                .get("peer-id")
                .map(|id| id.as_uuid().ok_or_else(|| unexpected(":writer :peer-id", id, "a #uuid")))
                .transpose()?,
            url: map.get("url").map(|url| text(":writer :url", url)).transpose()?,
            database: map
                .get("database")
                .map(|name| text(":writer :database", name))
                .transpose()?,
            token: token(":writer :token", &map)?,
        }),
        Some("datahike-server") => WriterConfig::Http(http_peer(":writer", value)?),
        _ => {
            let expected = ":self, :kabel, :datahike-server or :none";
            return Err(unexpected(":writer :backend", backend, expected));
        }
    })
}

fn http_peer(key: &'static str, value: &Value) -> Result<HttpPeer, ConfigError> {
    let map = Map::of(key, value)?;
    Ok(HttpPeer {
        url: text(&format!("{key} :url"), map.required("url", "give http://HOST:PORT")?)?,
        token: token(&format!("{key} :token"), &map)?,
        format: map.get("format").and_then(keyword).map(str::to_owned),
    })
}

fn token(key: &str, map: &Map<'_>) -> Result<Option<Secret>, ConfigError> {
    map.get("token").map(|token| text(key, token).map(Secret::new)).transpose()
}

fn store_id(value: &Value) -> Result<StoreId, ConfigError> {
    match value {
        Value::Uuid(uuid) => Ok((*uuid).into()),
        Value::Str(name) => Ok(StoreId::named(&**name)),
        other => Err(unexpected(":store :id", other, "a #uuid, or a string to make one of")),
    }
}

/// The entries of a map under a key.
struct Map<'a> {
    key: &'static str,
    entries: &'a std::collections::BTreeMap<Value, Value>,
}

impl<'a> Map<'a> {
    fn of(key: &'static str, value: &'a Value) -> Result<Self, ConfigError> {
        let entries = value.as_map().ok_or_else(|| unexpected(key, value, "a map"))?;
        Ok(Self { key, entries })
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.entries.get(&Value::keyword(key)).filter(|value| !value.is_nil())
    }

    fn required(&self, key: &str, hint: &'static str) -> Result<&'a Value, ConfigError> {
        self.get(key)
            .ok_or_else(|| ConfigError::Lacks { key: format!("{} :{key}", self.key), hint })
    }
}

fn keyword(value: &Value) -> Option<&str> {
    value.as_keyword().map(Keyword::text)
}

fn text(key: &str, value: &Value) -> Result<String, ConfigError> {
    value.as_str().map(str::to_owned).ok_or_else(|| unexpected(key, value, "a string"))
}

fn boolean(key: &str, value: &Value) -> Result<bool, ConfigError> {
    value.as_bool().ok_or_else(|| unexpected(key, value, "true or false"))
}

fn size(key: &str, value: &Value) -> Result<usize, ConfigError> {
    value
        .as_long()
        .and_then(|n| usize::try_from(n).ok())
        .ok_or_else(|| unexpected(key, value, "a whole number, zero or more"))
}

fn count(n: usize) -> Value {
    Value::Long(i64::try_from(n).unwrap_or(i64::MAX))
}

fn map(entries: Vec<(&str, Value)>) -> Value {
    Value::map(entries.into_iter().map(|(key, value)| (Value::keyword(key), value)))
}

fn unexpected(key: &str, found: &Value, expected: &'static str) -> ConfigError {
    let key = if key.starts_with(':') { key.to_owned() } else { format!(":{key}") };
    ConfigError::Value { key, found: found.clone(), expected }
}
