//! What a database is and where it is: the configuration map of Datahike, typed.

mod edn;

use std::fmt;
use std::path::PathBuf;

use datahike_core::tx::{TxFunctions, TxOptions, ValueCaps};
use datahike_value::{Uuid, Value};

pub use edn::ConfigError;

/// Namespace of the UUIDs that are made of names: a store may be named by any text.
const NAME_SPACE: Uuid = Uuid::from_u128(0x6461_7461_6869_6b65_7374_6f72_6573_0001);

/// A database: its store, who writes it, and what it is like.
///
/// Read it from EDN, where every key of Datahike's configuration is accepted, or build it:
///
/// ```
/// use datahike::config::{Config, SchemaFlexibility};
///
/// let built = Config::file("/var/data/people").schema_flexibility(SchemaFlexibility::Read);
/// let read: Config = r#"{:store {:backend :file :path "/var/data/people"}
///                        :schema-flexibility :read}"#.parse()?;
/// assert_eq!(built, read);
/// # Ok::<(), datahike::config::ConfigError>(())
/// ```
///
/// What is fixed when a database is created (schema flexibility, history, attribute references) is
/// kept in the store and wins when it is opened again.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// `:store`
    pub store: StoreConfig,
    /// `:writer`: who serialises the transactions.
    pub writer: WriterConfig,
    /// `:remote-peer`: where to send every operation, reads too. Read and kept, but nothing here can
    /// carry operations over HTTP: a configuration that has it is refused when it is used.
    pub remote_peer: Option<HttpPeer>,
    /// `:name`: a label.
    pub name: Option<String>,
    /// `:schema-flexibility`
    pub schema_flexibility: SchemaFlexibility,
    /// `:keep-history?`: whether the past can be queried.
    pub keep_history: bool,
    /// `:attribute-refs?`: whether datoms name their attribute by its entity id.
    pub attribute_refs: bool,
    /// `:crypto-hash?`: accepted for compatibility. Blocks and commits are always named by a
    /// cryptographic hash here.
    pub crypto_hash: bool,
    /// `:index`: accepted for compatibility. There is one kind of index here.
    pub index: Option<Value>,
    /// `:branch`, without its colon. `db` unless told.
    pub branch: String,
    /// `:store-cache-size`: decoded blocks kept in memory, in blocks of the usual 10 KB.
    pub store_cache_size: usize,
    /// `:search-cache-size`: accepted for compatibility; searches here run over decoded blocks.
    pub search_cache_size: usize,
    /// `:initial-tx`: transaction data applied when the database is created.
    pub initial_tx: Option<Value>,
    /// `:value-caps`, `:max-string-length` and its like: how large values may be that this process
    /// writes.
    pub value_caps: ValueCaps,
    /// `:allow-index-backfill?`: whether an attribute that has data may become indexed or unique.
    pub allow_index_backfill: bool,
    /// The functions that transactions may call and the predicates that schemas may name, where this
    /// process writes. Code, and so no part of the configuration as text.
    pub functions: TxFunctions,
    /// `:mirror`: what a client keeps of a database that another peer writes.
    pub mirror: MirrorMode,
}

/// `:schema-flexibility`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SchemaFlexibility {
    /// Attributes are declared before they are used, and values are checked.
    #[default]
    Write,
    /// Any attribute may hold any value; what is declared is honoured.
    Read,
}

/// `:mirror`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum MirrorMode {
    /// All blocks are held locally: queries run offline.
    #[default]
    Full,
}

/// `:store`: where blocks, logs and heads are kept.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum StoreConfig {
    /// In this process only, found again by its id.
    Memory {
        /// Identity of the store.
        id: StoreId,
    },
    /// A folder.
    File {
        /// The folder.
        path: PathBuf,
        /// Identity, if it is to be a certain one; an existing store must have it.
        id: Option<StoreId>,
    },
    /// A fast store in front of a lasting one. The lasting one is what is opened; decoded blocks
    /// are kept in memory in front of every store, so a memory frontend needs no store of its own.
    Tiered {
        /// The fast one.
        frontend: Box<Self>,
        /// The lasting one.
        backend: Box<Self>,
        /// Identity of both.
        id: Option<StoreId>,
    },
    /// A browser's IndexedDB.
    IndexedDb {
        /// Name of the database in the browser.
        name: String,
        /// Identity of the store.
        id: Option<StoreId>,
    },
}

/// Which store: a UUID, given as such or made of a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoreId {
    uuid: Uuid,
    name: Option<String>,
}

/// `:writer`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub enum WriterConfig {
    /// `:self`: this process, if it can take the store's lock.
    #[default]
    Local,
    /// Nobody here: the store is opened for reading, without its lock.
    ReadOnly,
    /// `:kabel`: a server peer over WebSocket, whose database is mirrored here.
    Kabel(KabelPeer),
    /// `:datahike-server`: a server over HTTP.
    Http(HttpPeer),
}

/// The server peer of a `:kabel` writer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KabelPeer {
    /// `:peer-id`: the server that must answer; any if not given.
    pub peer_id: Option<Uuid>,
    /// `:url`, where the connection is not made by the application: `ws://HOST:PORT`.
    pub url: Option<String>,
    /// `:database`: the name under which the server has the database; by `:store :id` if not given.
    pub database: Option<String>,
    /// `:token`
    pub token: Option<Secret>,
}

/// `{:backend :datahike-server …}`.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpPeer {
    /// `:url`: `http://HOST:PORT`.
    pub url: String,
    /// `:token`
    pub token: Option<Secret>,
    /// `:format` of the bodies, without its colon.
    pub format: Option<String>,
}

/// A text that is not shown: `Debug` prints dots.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a token.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The token, for sending it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

impl StoreId {
    /// A store that is named by text: the same text names the same store everywhere.
    pub fn named(name: impl Into<String>) -> Self {
        let name = name.into();
        Self { uuid: Uuid::new_v5(&NAME_SPACE, name.as_bytes()), name: Some(name) }
    }

    /// A new one.
    pub fn random() -> Self {
        Uuid::new_v4().into()
    }

    /// The UUID by which peers know the store.
    pub fn uuid(&self) -> Uuid {
        self.uuid
    }

    /// The text it was made of.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

impl From<Uuid> for StoreId {
    fn from(uuid: Uuid) -> Self {
        Self { uuid, name: None }
    }
}

impl StoreConfig {
    /// Identity, if the configuration names one.
    pub fn id(&self) -> Option<&StoreId> {
        match self {
            Self::Memory { id } => Some(id),
            Self::File { id, .. } | Self::Tiered { id, .. } | Self::IndexedDb { id, .. } => {
                id.as_ref()
            }
        }
    }

    /// The store that lasts: this one, or what is behind the tiers.
    pub fn lasting(&self) -> &Self {
        match self {
            Self::Tiered { backend, .. } => backend.lasting(),
            store => store,
        }
    }
}

impl Config {
    /// `:store-cache-size` unless told: 1,000 blocks, as in Datahike, about 10 MB decoded, would
    /// make a scan of a million datoms read its blocks again each time; this holds three indexes
    /// of six million.
    pub const STORE_CACHE_SIZE: usize = 25_000;

    /// The branch unless told.
    pub const BRANCH: &'static str = "db";

    /// A database in this store, written by this process, with Datahike's defaults.
    pub fn new(store: StoreConfig) -> Self {
        Self {
            store,
            writer: WriterConfig::default(),
            remote_peer: None,
            name: None,
            schema_flexibility: SchemaFlexibility::default(),
            keep_history: true,
            attribute_refs: false,
            crypto_hash: false,
            index: None,
            branch: Self::BRANCH.to_owned(),
            store_cache_size: Self::STORE_CACHE_SIZE,
            search_cache_size: 0,
            initial_tx: None,
            value_caps: ValueCaps::NONE,
            allow_index_backfill: false,
            functions: TxFunctions::new(),
            mirror: MirrorMode::default(),
        }
    }

    /// A database in the memory of this process, under a new id.
    pub fn memory() -> Self {
        Self::new(StoreConfig::Memory { id: StoreId::random() })
    }

    /// A database in a folder.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::new(StoreConfig::File { path: path.into(), id: None })
    }

    /// Sets the identity of the store.
    #[must_use]
    pub fn id(mut self, id: impl Into<StoreId>) -> Self {
        let given = id.into();
        match &mut self.store {
            StoreConfig::Memory { id } => *id = given,
            StoreConfig::File { id, .. }
            | StoreConfig::Tiered { id, .. }
            | StoreConfig::IndexedDb { id, .. } => *id = Some(given),
        }
        self
    }

    /// Sets who writes.
    #[must_use]
    pub fn writer(mut self, writer: WriterConfig) -> Self {
        self.writer = writer;
        self
    }

    /// Sets whether attributes must be declared.
    #[must_use]
    pub fn schema_flexibility(mut self, flexibility: SchemaFlexibility) -> Self {
        self.schema_flexibility = flexibility;
        self
    }

    /// Sets whether the past is kept.
    #[must_use]
    pub fn keep_history(mut self, keep: bool) -> Self {
        self.keep_history = keep;
        self
    }

    /// Sets whether attributes are entity ids.
    #[must_use]
    pub fn attribute_refs(mut self, refs: bool) -> Self {
        self.attribute_refs = refs;
        self
    }

    /// Sets what the host adds to transactions.
    ///
    /// ```
    /// use datahike::{Config, TxFunctions, connect, create_database, edn};
    ///
    /// # futures::executor::block_on(async {
    /// let greet = TxFunctions::new().function("app/greet", |_db, whom| {
    ///     edn::read(&format!("[{{:greeting \"hello\" :to {}}}]", whom[0])).map_err(|e| e.to_string().into())
    /// });
    /// let config = Config::memory().schema_flexibility(datahike::config::SchemaFlexibility::Read);
    /// let config = create_database(&config.functions(greet)).await?;
    /// let conn = connect(&config).await?;
    /// // From here, or by name from any peer.
    /// let report = conn.transact(edn::read("[[:db.fn/call app/greet :everybody]]")?).await?;
    /// assert_eq!(report.tx_data.len(), 3);
    /// conn.release().await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    #[must_use]
    pub fn functions(mut self, functions: TxFunctions) -> Self {
        self.functions = functions;
        self
    }

    /// Sets whether attributes that have data may become indexed or unique.
    #[must_use]
    pub fn allow_index_backfill(mut self, allow: bool) -> Self {
        self.allow_index_backfill = allow;
        self
    }

    /// What transactions get that this process carries out.
    pub(crate) fn tx_options(&self) -> TxOptions {
        TxOptions::at(0)
            .with_functions(self.functions.clone())
            .with_caps(self.value_caps)
            .with_index_backfill(self.allow_index_backfill)
    }

    /// Sets the branch.
    #[must_use]
    pub fn branch(mut self, branch: impl Into<String>) -> Self {
        self.branch = branch.into();
        self
    }

    /// Sets the label.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets the number of decoded blocks kept in memory.
    #[must_use]
    pub fn store_cache_size(mut self, blocks: usize) -> Self {
        self.store_cache_size = blocks;
        self
    }

    /// Sets the transaction data that a new database starts with.
    #[must_use]
    pub fn initial_tx(mut self, data: Value) -> Self {
        self.initial_tx = Some(data);
        self
    }

    /// Bytes of decoded blocks to keep.
    pub(crate) fn cache_bytes(&self) -> u64 {
        (self.store_cache_size as u64).saturating_mul(10_000)
    }
}
