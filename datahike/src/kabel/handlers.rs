//! The serving side: the databases of a server peer, and the functions by which clients create,
//! delete and write them.

use std::fmt;
use std::sync::{Arc, Weak};

use dashmap::DashMap;
use datahike_peer::Refusal;
use datahike_scope::Scope;
use datahike_sync::{Cause, FlushPoint, Publisher, StoreName, SyncLayer};
use datahike_value::{Uuid, Value, kw};
use parking_lot::Mutex;

use super::wire::{CREATE, DELETE, DESCRIBE, Name, Receipt, Request, TRANSACT, refusal};
use crate::branch::{BranchEvent, Observation};
use crate::config::{Config, StoreConfig, WriterConfig};
use crate::connection::Connection;
use crate::database;
use crate::error::Error;
use crate::mirror::{BranchSource, point};
use crate::writer::Transacted;

/// Decides where a database with this store id is kept at the server, given the configuration that
/// the client has for it.
pub type StoreConfigFn = dyn Fn(Uuid, &Config) -> Result<StoreConfig, Error> + Send + Sync;

/// What [`register_global_handlers`] is told.
pub struct HandlerOptions {
    store_config_fn: Box<StoreConfigFn>,
}

impl HandlerOptions {
    /// With this rule for where databases are kept.
    pub fn new(
        store_config_fn: impl Fn(Uuid, &Config) -> Result<StoreConfig, Error> + Send + Sync + 'static,
    ) -> Self {
        Self { store_config_fn: Box::new(store_config_fn) }
    }
}

impl fmt::Debug for HandlerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HandlerOptions")
    }
}

/// Registers the functions by which clients create, delete, find and write databases, and returns
/// the databases, of which there are none yet. What is served ends when all handles are dropped.
///
/// Who may invoke them and subscribe is for the peer's [`Authorize`](datahike_peer::Authorize).
pub fn register_global_handlers(
    scope: &Scope,
    sync: &SyncLayer,
    options: HandlerOptions,
) -> Databases {
    let databases = Databases {
        inner: Arc::new(Inner {
            sync: sync.clone(),
            options,
            served: DashMap::new(),
            names: DashMap::new(),
            changing: tokio::sync::Mutex::new(()),
        }),
    };
    databases.register(scope);
    databases
}

/// The databases of a server peer. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Databases {
    inner: Arc<Inner>,
}

struct Inner {
    sync: SyncLayer,
    options: HandlerOptions,
    served: DashMap<Uuid, Arc<Served>>,
    names: DashMap<String, Uuid>,
    /// Held while a database comes or goes.
    changing: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Databases").field("served", &self.served.len()).finish_non_exhaustive()
    }
}

/// One database that is served.
struct Served {
    connection: Connection,
    name: Option<String>,
    publisher: Arc<Publisher>,
    _observation: Mutex<Option<Observation>>,
}

impl Databases {
    /// Opens a database as its writer and serves it under its store id and this name.
    ///
    /// # Errors
    /// As [`connect`](crate::connect).
    pub async fn mount(&self, name: Option<&str>, config: &Config) -> Result<Connection, Error> {
        let _changing = self.inner.changing.lock().await;
        self.open(name, config).await
    }

    async fn open(&self, name: Option<&str>, config: &Config) -> Result<Connection, Error> {
        let connection = database::connect(config).await?;
        let branch = connection.branch().clone();
        let id = connection.store_id();
        let mut names = vec![StoreName::Id(id)];
        names.extend(name.map(|name| StoreName::Name(name.to_owned())));
        let source = Arc::new(BranchSource::new(branch.clone()));
        let publisher = Arc::new(self.inner.sync.serve(names, branch.name(), source));
        let told = Arc::downgrade(&publisher);
        let observation = branch.observe(move |event| publish(&told, event));
        self.inner.served.insert(
            id,
            Arc::new(Served {
                connection: connection.clone(),
                name: name.map(str::to_owned),
                publisher,
                _observation: Mutex::new(Some(observation)),
            }),
        );
        if let Some(name) = name {
            self.inner.names.insert(name.to_owned(), id);
        }
        Ok(connection)
    }

    /// The connection to a served database, by name or by store id as text.
    pub fn get(&self, name: &str) -> Option<Connection> {
        let id = match self.inner.names.get(name) {
            Some(id) => *id,
            None => Uuid::parse_str(name).ok()?,
        };
        self.by_id(id)
    }

    fn by_id(&self, id: Uuid) -> Option<Connection> {
        self.inner.served.get(&id).map(|served| served.connection.clone())
    }

    fn find(&self, name: &Name) -> Result<Connection, Refusal> {
        let found = match name {
            Name::Id(id) => self.by_id(*id),
            Name::Text(name) => self.get(name),
        };
        found.ok_or_else(|| {
            refusal(&Error::NoDatabase { place: format!("this server under {}", name.to_value()) })
        })
    }

    /// Names and store ids of what is served, by name.
    pub fn list(&self) -> Vec<(Option<String>, Uuid)> {
        let mut all: Vec<_> =
            self.inner.served.iter().map(|served| (served.name.clone(), *served.key())).collect();
        all.sort();
        all
    }

    /// Creates a database where the `store_config_fn` says, and serves it.
    ///
    /// # Errors
    /// [`Error::DatabaseExists`]; what the store fails with.
    pub async fn create(&self, name: Option<&str>, config: &Config) -> Result<Connection, Error> {
        let _changing = self.inner.changing.lock().await;
        let id = config.store.id().map_or_else(Uuid::new_v4, |id| id.uuid());
        if self.inner.served.contains_key(&id)
            || name.is_some_and(|name| self.inner.names.contains_key(name))
        {
            return Err(Error::DatabaseExists {
                place: name.map_or_else(|| id.to_string(), str::to_owned),
            });
        }
        let mut own = config.clone().writer(WriterConfig::Local);
        own.store = (self.inner.options.store_config_fn)(id, config)?;
        let own = own.id(id);
        let created = database::create_database(&own).await?;
        self.open(name, &Config { initial_tx: None, ..created }).await
    }

    /// Deletes a served database; its mirrors are told.
    ///
    /// # Errors
    /// [`Error::NoDatabase`]; what the store fails with.
    pub async fn delete(&self, id: Uuid) -> Result<(), Error> {
        let _changing = self.inner.changing.lock().await;
        let (_, served) = self
            .inner
            .served
            .remove(&id)
            .ok_or_else(|| Error::NoDatabase { place: format!("this server under {id}") })?;
        if let Some(name) = &served.name {
            self.inner.names.remove(name);
        }
        served.publisher.end(Cause::Deleted, "the database was deleted");
        let config = served.connection.config().clone();
        served.connection.release().await?;
        database::delete_database(&config).await
    }

    /// Ends serving: what waits becomes durable, mirrors are told to come back later, stores are
    /// closed.
    ///
    /// # Errors
    /// What closing a store fails with.
    pub async fn shutdown(&self) -> Result<(), Error> {
        let _changing = self.inner.changing.lock().await;
        let all: Vec<_> = self.inner.served.iter().map(|served| served.value().clone()).collect();
        self.inner.served.clear();
        for served in all {
            served.publisher.end(Cause::Shutdown, "the server is going down");
            served.connection.release().await?;
        }
        Ok(())
    }

    fn register(&self, scope: &Scope) {
        let inner = Arc::downgrade(&self.inner);
        let upgrade = move || -> Result<Self, Refusal> {
            let inner = Weak::upgrade(&inner);
            let inner =
                inner.ok_or_else(|| Refusal::new("peer/stopping", "the server is going down"))?;
            Ok(Self { inner })
        };
        let databases = upgrade.clone();
        scope.register_value(TRANSACT, move |_, arguments| {
            let databases = databases();
            async move { databases?.transact(&arguments).await }
        });
        let databases = upgrade.clone();
        scope.register_value(DESCRIBE, move |_, arguments| {
            let databases = databases();
            async move { databases?.describe(&arguments) }
        });
        let databases = upgrade.clone();
        scope.register_value(CREATE, move |_, arguments| {
            let databases = databases();
            async move { databases?.create_for(&arguments).await }
        });
        let databases = upgrade;
        scope.register_value(DELETE, move |_, arguments| {
            let databases = databases();
            async move {
                let databases = databases?;
                let found = databases.find(&Name::from_value(&arguments)?)?;
                databases.delete(found.store_id()).await.map_err(|e| refusal(&e))?;
                Ok(Value::Nil)
            }
        });
    }

    async fn transact(&self, arguments: &Value) -> Result<Value, Refusal> {
        let request = Request::from_value(arguments)?;
        let connection = self.find(&request.database)?;
        if request.branch != connection.branch().name() {
            let place = format!("branch {:?} of {}", request.branch, request.database.to_value());
            return Err(refusal(&Error::NoDatabase { place }));
        }
        let transacted = connection.transact_with(request.transaction).await;
        let transacted = transacted.map_err(|error| refusal(&error))?;
        let tx = match &transacted {
            Transacted::Now(report) => report.tx,
            Transacted::Before(remembered) => remembered.tx,
        };
        // A commit at or after the transaction's own: whoever holds it holds the transaction.
        let now = connection.snapshot();
        let at = (now.db.max_tx() >= tx).then_some(&now.at);
        Ok(Receipt::of(&transacted, at).to_value())
    }

    fn describe(&self, arguments: &Value) -> Result<Value, Refusal> {
        let connection = self.find(&Name::from_value(arguments)?)?;
        let db = connection.snapshot().db.clone();
        Ok(Value::map([
            (kw!("id").into(), Value::Uuid(connection.store_id())),
            (kw!("branch").into(), connection.branch().name().into()),
            (kw!("keep-history?").into(), db.config().keep_history.into()),
            (kw!("attribute-refs?").into(), db.config().attribute_refs.into()),
        ]))
    }

    /// `{:config {…} :name "…"}`; the name may be left out.
    async fn create_for(&self, arguments: &Value) -> Result<Value, Refusal> {
        let config = arguments.get(&kw!("config")).cloned().unwrap_or_default();
        let config = Config::from_value(&config).map_err(|error| refusal(&error.into()))?;
        let name = arguments.get(&kw!("name")).and_then(Value::as_str);
        let created = self.create(name, &config).await.map_err(|error| refusal(&error))?;
        Ok(Value::Uuid(created.store_id()))
    }
}

fn publish(publisher: &Weak<Publisher>, event: &BranchEvent) {
    let Some(publisher) = publisher.upgrade() else { return };
    match event {
        BranchEvent::Committed { at, public } => {
            publisher.committed(point(*at), public.clone());
        }
        BranchEvent::Flushed { at, record } => publisher
            .flushed(FlushPoint { at: point(*at), address: datahike_sync::Address(record.0) }),
    }
}
