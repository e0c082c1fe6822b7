//! Creating, finding and deleting databases, and opening their stores.

use std::sync::{Arc, LazyLock};

use dashmap::DashMap;
use datahike_core::commit::{Dedup, Head, Position};
use datahike_core::db::{Db, DbConfig};
use datahike_core::index::Params;
#[cfg(target_family = "wasm")]
use datahike_store::IndexedDbStore;
use datahike_store::StoreError;
use datahike_store::{Address as StoreAddress, Batch, Expect, MemoryStore, Store, StoreIdentity};
#[cfg(not(target_family = "wasm"))]
use datahike_store::{FileOptions, FileStore};
use datahike_value::Uuid;

use crate::blocks::Blocks;
use crate::branch::{self, Branch};
use crate::config::{Config, SchemaFlexibility, StoreConfig, WriterConfig};
use crate::connection::Connection;
use crate::error::Error;
use crate::writer::{Writer, record_of};

/// The memory stores of this process by id: what `:backend :memory` means is that a store lives as
/// long as the process, and is found again by whoever names it.
static MEMORY: LazyLock<DashMap<Uuid, MemoryStore>> = LazyLock::new(DashMap::new);

/// Creates an empty database, applies `:initial-tx` to it, and returns its configuration with the
/// identity it was given.
///
/// # Errors
/// [`Error::DatabaseExists`]; what the store fails with; why the initial transaction is refused.
pub async fn create_database(config: &Config) -> Result<Config, Error> {
    refuse_remote_peer(config)?;
    if let WriterConfig::Kabel(peer) = &config.writer {
        return crate::kabel::create(config, peer).await;
    }
    let store = create_store(&config.store).await?;
    let created = config.clone().id(store.identity().id);
    let result = initialise(&store, config, Uuid::new_v4().as_u64_pair()).await;
    let closed = store.close().await;
    result?;
    closed?;
    if let Some(data) = &config.initial_tx {
        let connection = connect(&created).await?;
        let transacted = connection.transact(data.clone()).await;
        connection.release().await?;
        if let Err(error) = transacted {
            delete_database(&created).await?;
            return Err(error);
        }
    }
    Ok(created)
}

/// Whether there is a database at the place that the configuration names.
///
/// # Errors
/// What the store fails with.
pub async fn database_exists(config: &Config) -> Result<bool, Error> {
    refuse_remote_peer(config)?;
    if let WriterConfig::Kabel(peer) = &config.writer {
        return crate::kabel::exists(config, peer).await;
    }
    Ok(match config.store.lasting() {
        StoreConfig::Memory { id } => MEMORY.contains_key(&id.uuid()),
        #[cfg(not(target_family = "wasm"))]
        StoreConfig::File { path, .. } => FileStore::exists(path, &FileOptions::default())?,
        #[cfg(target_family = "wasm")]
        StoreConfig::IndexedDb { name, .. } => IndexedDbStore::exists(name).await?,
        other => return Err(unavailable(other)),
    })
}

/// Deletes a database and all that is stored of it. Deleting what is not there is no error.
///
/// # Errors
/// If a connection in this or another process writes it; what the store fails with.
pub async fn delete_database(config: &Config) -> Result<(), Error> {
    refuse_remote_peer(config)?;
    if let WriterConfig::Kabel(peer) = &config.writer {
        // The future of connecting and that of deleting contain each other.
        return Box::pin(crate::kabel::delete(config, peer)).await;
    }
    match config.store.lasting() {
        StoreConfig::Memory { id } => {
            MEMORY.remove(&id.uuid());
        }
        #[cfg(not(target_family = "wasm"))]
        StoreConfig::File { path, .. } => match FileStore::destroy(path) {
            Ok(()) | Err(StoreError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        },
        #[cfg(target_family = "wasm")]
        StoreConfig::IndexedDb { name, .. } => IndexedDbStore::destroy(name).await?,
        other => return Err(unavailable(other)),
    }
    Ok(())
}

/// Connects to a database. With `:writer :self` this process becomes its writer: the store's lock
/// is held until the connection is released. Clone the connection to share it.
///
/// # Errors
/// [`Error::NoDatabase`]; [`Error::Mismatch`] if the stored database is of another kind; what the
/// store fails with, as when another process writes it.
pub async fn connect(config: &Config) -> Result<Connection, Error> {
    refuse_remote_peer(config)?;
    match &config.writer {
        WriterConfig::Local => connect_local(config).await,
        WriterConfig::ReadOnly => connect_read_only(config).await,
        WriterConfig::Kabel(peer) => crate::kabel::connect(config, peer).await,
        WriterConfig::Http(_) => Err(Error::Unavailable {
            what: ":writer {:backend :datahike-server}".to_owned(),
            hint: "use {:backend :kabel :url \"ws://…\"}",
        }),
    }
}

/// Who asks for everything to be done elsewhere must not find it done here.
fn refuse_remote_peer(config: &Config) -> Result<(), Error> {
    match &config.remote_peer {
        None => Ok(()),
        Some(_) => Err(Error::Unavailable {
            what: ":remote-peer".to_owned(),
            hint: "use :writer {:backend :kabel :url \"ws://…\"}, which mirrors the database",
        }),
    }
}

async fn connect_local(config: &Config) -> Result<Connection, Error> {
    connect_in(open_store(config, Access::Write).await?, config).await
}

/// Creates an empty database in an empty store that the caller opened. `seed` keys the hash that
/// chooses where blocks end, and must be secret from whoever may choose values.
///
/// # Errors
/// What the store fails with, as when there is such a branch.
pub async fn create_in(
    store: &Arc<dyn Store>,
    config: &Config,
    seed: (u64, u64),
) -> Result<(), Error> {
    initialise(store, config, seed).await
}

/// Connects to a database in a store that the caller opened, as its writer. What the configuration
/// says of stores and writers does not count.
///
/// # Errors
/// [`Error::NoDatabase`]; [`Error::Mismatch`] if the stored database is of another kind; what the
/// store fails with.
pub async fn connect_in(store: Arc<dyn Store>, config: &Config) -> Result<Connection, Error> {
    let blocks = Arc::new(Blocks::new(store, config.cache_bytes()));
    let loaded = branch::load(&blocks, &config.branch).await?;
    check(config, &loaded.snapshot.db)?;
    let branch = Arc::new(Branch::new(&config.branch, blocks, loaded.snapshot.clone()));
    let writer = Writer::start(branch.clone(), loaded, config.tx_options())?;
    Ok(Connection::local(config.clone(), branch, writer))
}

async fn connect_read_only(config: &Config) -> Result<Connection, Error> {
    let store = open_store(config, Access::Read).await?;
    let blocks = Arc::new(Blocks::new(store, config.cache_bytes()));
    let loaded = branch::load(&blocks, &config.branch).await?;
    check(config, &loaded.snapshot.db)?;
    let branch = Arc::new(Branch::new(&config.branch, blocks, loaded.snapshot));
    Ok(Connection::read_only(config.clone(), branch))
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

#[cfg_attr(target_family = "wasm", expect(unused_variables, reason = "a browser has no files"))]
pub(crate) async fn open_store(config: &Config, access: Access) -> Result<Arc<dyn Store>, Error> {
    let no_database = |place: String| Error::NoDatabase { place };
    let store: Arc<dyn Store> = match config.store.lasting() {
        StoreConfig::Memory { id } => {
            let store = MEMORY.get(&id.uuid()).map(|store| store.handle());
            Arc::new(store.ok_or_else(|| no_database(format!("memory store {}", id.uuid())))?)
        }
        #[cfg(not(target_family = "wasm"))]
        StoreConfig::File { path, .. } => {
            let opened: Result<Arc<dyn Store>, StoreError> = match access {
                Access::Read => FileStore::open_read_only(path, FileOptions::default())
                    .map(|store| Arc::new(store) as _),
                Access::Write => {
                    crate::shared::open(path, &config.branch).map(|store| Arc::new(store) as _)
                }
            };
            match opened {
                Ok(store) => store,
                Err(StoreError::NotFound { path }) => {
                    return Err(no_database(path.display().to_string()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        #[cfg(target_family = "wasm")]
        StoreConfig::IndexedDb { name, .. } => match IndexedDbStore::open(name).await {
            Ok(store) => Arc::new(store),
            Err(StoreError::NotFound { path }) => {
                return Err(no_database(path.display().to_string()));
            }
            Err(error) => return Err(error.into()),
        },
        other => return Err(unavailable(other)),
    };
    if let Some(id) = config.store.id()
        && id.uuid() != store.identity().id
    {
        return Err(Error::Mismatch {
            key: ":store :id",
            stored: store.identity().id.to_string(),
            given: id.uuid().to_string(),
        });
    }
    Ok(store)
}

/// Makes an empty store at the place.
pub(crate) async fn create_store(config: &StoreConfig) -> Result<Arc<dyn Store>, Error> {
    let epoch = Uuid::new_v4();
    match config.lasting() {
        StoreConfig::Memory { id } => {
            let identity = StoreIdentity { id: id.uuid(), epoch };
            let store = MemoryStore::with_identity(identity);
            match MEMORY.entry(id.uuid()) {
                dashmap::Entry::Occupied(_) => {
                    Err(Error::DatabaseExists { place: format!("memory store {}", id.uuid()) })
                }
                dashmap::Entry::Vacant(entry) => {
                    let opened = store.handle();
                    entry.insert(store);
                    Ok(Arc::new(opened))
                }
            }
        }
        #[cfg(not(target_family = "wasm"))]
        StoreConfig::File { path, .. } => {
            let id = config.id().map_or_else(Uuid::new_v4, |id| id.uuid());
            match create_file_store(path, StoreIdentity { id, epoch }) {
                Ok(store) => Ok(store),
                Err(Error::Store(StoreError::Exists { path })) => {
                    Err(Error::DatabaseExists { place: path.display().to_string() })
                }
                Err(error) => Err(error),
            }
        }
        #[cfg(target_family = "wasm")]
        StoreConfig::IndexedDb { name, .. } => {
            let id = config.id().map_or_else(Uuid::new_v4, |id| id.uuid());
            match IndexedDbStore::create(name, StoreIdentity { id, epoch }).await {
                Ok(store) => Ok(Arc::new(store)),
                Err(StoreError::Exists { path }) => {
                    Err(Error::DatabaseExists { place: path.display().to_string() })
                }
                Err(error) => Err(error.into()),
            }
        }
        other => Err(unavailable(other)),
    }
}

#[cfg(not(target_family = "wasm"))]
fn create_file_store(
    path: &std::path::Path,
    identity: StoreIdentity,
) -> Result<Arc<dyn Store>, Error> {
    Ok(Arc::new(FileStore::create_as(path, identity, FileOptions::default())?))
}

/// Writes the first snapshot: no transaction, an empty log.
async fn initialise(
    store: &Arc<dyn Store>,
    config: &Config,
    seed: (u64, u64),
) -> Result<(), Error> {
    let params = Params { seed: [seed.0, seed.1], ..Params::default() };
    let flexibility = match config.schema_flexibility {
        SchemaFlexibility::Read => datahike_core::db::SchemaFlexibility::Read,
        SchemaFlexibility::Write => datahike_core::db::SchemaFlexibility::Write,
    };
    let db = Db::empty(
        DbConfig::new(flexibility)
            .with_history(config.keep_history)
            .with_attribute_refs(config.attribute_refs)
            .with_params(params),
    );
    let flushed = db.indexes().flush()?;
    let db = db.with_indexes(flushed.indexes);
    let start = datahike_core::block::Address([0; 32]);
    let (record_address, record) = record_of(&db, Position::START, start);
    let dedup = bytes::Bytes::from(Dedup::default().encode());
    let dedup_address = datahike_core::block::Address::of(&dedup);
    let head = Head {
        flush_record: record_address,
        flush: Position::START,
        log_base: 0,
        dedup: Some(dedup_address),
    };
    let mut batch = Batch::new(&config.branch, Expect::Absent);
    batch.blocks = flushed.blocks.into_iter().map(|(a, b)| (StoreAddress(a.0), b.into())).collect();
    batch.blocks.push((StoreAddress(record_address.0), record));
    batch.blocks.push((StoreAddress(dedup_address.0), dedup));
    batch.record = Some(head.encode().into());
    store.commit(batch).await?;
    Ok(())
}

/// What is fixed when a database is created must be as the configuration says, where it says so
/// otherwise than by default.
fn check(config: &Config, db: &Db) -> Result<(), Error> {
    let stored = db.config();
    let refs = (":attribute-refs?", stored.attribute_refs, config.attribute_refs);
    let (key, stored, given) = refs;
    if given && !stored {
        return Err(Error::Mismatch { key, stored: stored.to_string(), given: given.to_string() });
    }
    Ok(())
}

fn unavailable(config: &StoreConfig) -> Error {
    Error::Unavailable {
        what: format!("store {}", config.to_value()),
        hint: "use :memory or :file",
    }
}
