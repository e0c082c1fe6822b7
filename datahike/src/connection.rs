//! What an application holds: a connection to one branch of one database.

use std::sync::Arc;

use datahike_core::commit::Remembered;
use datahike_core::datom::{EntityId, TxId};
use datahike_core::db::Db;
use datahike_core::pull::{self, Pattern};
use datahike_core::query::{self, Input, Query, QueryResult};
use datahike_core::tx::TxReport;
use datahike_value::{Uuid, Value};

use crate::blocks::Faulting;
use crate::branch::{self, Branch, Snapshot};
use crate::config::Config;
use crate::error::Error;
use crate::kabel::RemoteWriter;
use crate::past;
use crate::reports::{TxEvent, TxReports};
use crate::watch::{Watch, Watches};
use crate::writer::{Transacted, Transaction, Writer};

/// A connection to a database. Cheap to clone; all clones are one connection, which ends with
/// [`Connection::release`].
///
/// ```
/// use datahike::{Config, connect, create_database, edn};
///
/// # futures::executor::block_on(async {
/// let config = create_database(&Config::memory()).await?;
/// let conn = connect(&config).await?;
/// conn.transact(edn::read(
///     "[{:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one}]",
/// )?).await?;
/// conn.transact(edn::read(r#"[{:name "Alice"} {:name "Bob"}]"#)?).await?;
/// let found = conn.q("[:find (count ?e) . :where [?e :name]]", &[])?;
/// assert_eq!(found.into_value(), 2.into());
/// conn.release().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Connection {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    branch: Arc<Branch>,
    role: Role,
    watches: Arc<Watches>,
}

#[derive(Debug)]
enum Role {
    Writer(Writer),
    Reader,
    Mirror(RemoteWriter),
}

impl Connection {
    fn new(config: Config, branch: Arc<Branch>, role: Role) -> Self {
        Self { shared: Arc::new(Shared { config, branch, role, watches: Arc::default() }) }
    }

    pub(crate) fn local(config: Config, branch: Arc<Branch>, writer: Writer) -> Self {
        Self::new(config, branch, Role::Writer(writer))
    }

    pub(crate) fn read_only(config: Config, branch: Arc<Branch>) -> Self {
        Self::new(config, branch, Role::Reader)
    }

    pub(crate) fn mirror(config: Config, branch: Arc<Branch>, writer: RemoteWriter) -> Self {
        Self::new(config, branch, Role::Mirror(writer))
    }

    /// The configuration it was made with.
    pub fn config(&self) -> &Config {
        &self.shared.config
    }

    /// Identity of the store, by which other peers know the database.
    pub fn store_id(&self) -> Uuid {
        self.shared.branch.store().identity().id
    }

    /// The live state underneath, for those who serve it to others.
    pub fn branch(&self) -> &Arc<Branch> {
        &self.shared.branch
    }

    /// The newest database value. On a read-only connection to a store that another process
    /// writes, the newest that is durable there; if the store cannot be read just now, the newest
    /// that was seen ([`Connection::refresh`] says why).
    pub fn db(&self) -> Db {
        if matches!(self.shared.role, Role::Reader)
            && self.shared.branch.store().capabilities().synchronous
            // Waits for the local medium only.
            && let Err(error) = futures::executor::block_on(self.refresh())
        {
            tracing::warn!(%error, "cannot look for a newer snapshot");
        }
        self.shared.branch.snapshot().db.clone()
    }

    /// The newest database value with its place in the history of the branch.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.shared.branch.snapshot()
    }

    /// Looks for a newer head in the store, where this connection is not told of them.
    ///
    /// # Errors
    /// What the store fails with.
    pub async fn refresh(&self) -> Result<(), Error> {
        if !matches!(self.shared.role, Role::Reader) {
            return Ok(());
        }
        let branch = &self.shared.branch;
        let known = branch.snapshot();
        let head = branch.store().head(branch.name()).await?;
        if head.is_some_and(|head| head.revision == known.revision) {
            return Ok(());
        }
        let newer = branch::reload(branch.blocks(), branch.name(), &known).await?;
        branch.replace(newer);
        Ok(())
    }

    /// Carries out a transaction: `data` is a vector of maps and operations. Ready when it is
    /// durable, and with a kabel writer when the local mirror shows it.
    ///
    /// # Errors
    /// Why it was refused, with a stable code; nothing of it happened then.
    pub async fn transact(&self, data: impl Into<Value>) -> Result<Arc<TxReport>, Error> {
        let transacted = self.transact_with(Transaction::new(data.into())).await?;
        match transacted {
            Transacted::Now(report) => Ok(report),
            Transacted::Before(remembered) => self.report_of(&remembered).await,
        }
    }

    /// The report of a transaction that happened before, made again from what is stored.
    ///
    /// # Errors
    /// [`Error::LogGone`] if the log no longer reaches back so far.
    pub async fn report_of(&self, remembered: &Remembered) -> Result<Arc<TxReport>, Error> {
        past::report_of(&self.shared.branch, remembered).await.map(Arc::new)
    }

    /// [`Connection::transact`] with metadata, or under a request id so that it happens once.
    ///
    /// # Errors
    /// As there.
    pub async fn transact_with(&self, transaction: Transaction) -> Result<Transacted, Error> {
        match &self.shared.role {
            Role::Writer(writer) => writer.transact(transaction).await,
            Role::Mirror(writer) => writer.transact(&self.shared.branch, transaction).await,
            Role::Reader => Err(Error::ReadOnly { place: self.shared.branch.store().describe() }),
        }
    }

    /// Runs a query over the newest database value, which is its first input; `inputs` are the
    /// others.
    ///
    /// # Errors
    /// Why the query could not be read or answered.
    pub fn q(&self, query: &str, inputs: &[Value]) -> Result<QueryResult, Error> {
        let query = Query::parse(query)?;
        let inputs: Vec<Input> = std::iter::once(Input::from(self.db()))
            .chain(inputs.iter().cloned().map(Input::from))
            .collect();
        self.settle_now(|| query::q(&query, &inputs, &query::Context::default()))
    }

    /// Pulls one entity of the newest database value: an id, a lookup ref or an ident.
    ///
    /// # Errors
    /// Why the pattern could not be read or the entity not be found.
    pub fn pull(&self, pattern: &str, entity: &Value) -> Result<Value, Error> {
        let pattern = Pattern::parse_text(pattern)?;
        let db = self.db();
        self.settle_now(|| pull::pull(&db, &pattern, entity))
    }

    /// Runs something over snapshots of this connection whose blocks can be read at once.
    ///
    /// # Errors
    /// What it fails with; what is wrong with a block.
    pub fn settle_now<T, E>(&self, evaluate: impl FnMut() -> Result<T, E>) -> Result<T, Error>
    where
        E: Faulting + Into<Error>,
    {
        self.shared.branch.blocks().settle_now(evaluate)
    }

    /// Runs something over snapshots of this connection, fetching blocks that it lacks and running
    /// it again.
    ///
    /// # Errors
    /// What it fails with; what is wrong with a block or the store.
    pub async fn settle<T, E>(&self, evaluate: impl FnMut() -> Result<T, E>) -> Result<T, Error>
    where
        E: Faulting + Into<Error>,
    {
        self.shared.branch.blocks().settle(evaluate).await
    }

    /// Calls `callback` for every transaction from here on, whoever made it, once each and in
    /// order, on a worker of its own. Replaces what listened under `key`.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn listen(
        &self,
        key: impl Into<String>,
        callback: impl FnMut(&TxEvent) + Send + 'static,
    ) -> Result<(), Error> {
        let reports = self.shared.branch.reports();
        reports
            .listen(key.into(), callback)
            .map_err(|source| Error::Worker { what: "a listener", source })
    }

    /// Ends what listens under the key; false if nothing does.
    pub fn unlisten(&self, key: &str) -> bool {
        self.shared.branch.reports().unlisten(key)
    }

    /// Every transaction from here on, as a stream.
    pub fn tx_reports(&self) -> TxReports {
        self.shared.branch.reports().stream()
    }

    /// A query's result, and what came and went with each change to it.
    ///
    /// # Errors
    /// Why the query could not be read or answered.
    pub async fn watch(&self, query: &str, inputs: &[Value]) -> Result<Watch, Error> {
        let query = Query::parse(query)?;
        self.shared.watches.watch(&self.shared.branch, &query, inputs).await
    }

    /// What `pattern` pulls of an entity, and what it pulls after each change to it: the watch has
    /// one row, the map.
    ///
    /// # Errors
    /// Why the pattern could not be read or the entity not be found.
    pub async fn watch_pull(&self, pattern: &str, entity: &Value) -> Result<Watch, Error> {
        Pattern::parse_text(pattern)?;
        let query = format!("[:find [(pull ?entity {pattern}) ...] :in $ ?entity]");
        self.watch(&query, std::slice::from_ref(entity)).await
    }

    /// All attributes of an entity, components in full, and what they are after each change.
    ///
    /// # Errors
    /// If there is no such entity.
    pub async fn watch_entity(&self, entity: &Value) -> Result<Watch, Error> {
        self.watch_pull("[*]", entity).await
    }

    /// Ready once the transaction shows in [`Connection::db`].
    ///
    /// # Errors
    /// If the connection is released first.
    pub async fn sync(&self, tx: TxId) -> Result<Db, Error> {
        self.shared.branch.reached(tx).await?;
        Ok(self.db())
    }

    /// How the mirror underneath stands, where the database is another peer's.
    pub fn mirror_state(&self) -> Option<datahike_sync::MirrorState> {
        match &self.shared.role {
            Role::Mirror(writer) => Some(writer.state()),
            _ => None,
        }
    }

    /// The mirror underneath, where the database is another peer's.
    pub fn mirror_handle(&self) -> Option<&datahike_sync::Mirror> {
        match &self.shared.role {
            Role::Mirror(writer) => Some(writer.mirror()),
            _ => None,
        }
    }

    /// The server whose database this is, where it is another peer's.
    pub fn remote(&self) -> Option<&crate::kabel::Remote> {
        match &self.shared.role {
            Role::Mirror(writer) => Some(writer.remote()),
            _ => None,
        }
    }

    /// Writes out what waits in memory into the indexes. A mirror writes out where its server does,
    /// so that both have the same blocks: on one, this changes nothing.
    ///
    /// # Errors
    /// What the store fails with; [`Error::ReadOnly`].
    pub async fn flush(&self) -> Result<(), Error> {
        match &self.shared.role {
            Role::Writer(writer) => writer.flush().await,
            Role::Mirror(_) => Ok(()),
            Role::Reader => Err(Error::ReadOnly { place: self.shared.branch.store().describe() }),
        }
    }

    /// Raises the start of the log to this entry number, at most to the newest flush.
    pub(crate) async fn drop_log(&self, before: u64) -> Result<(), Error> {
        match &self.shared.role {
            Role::Writer(writer) => writer.drop_log(before).await,
            _ => Err(Error::ReadOnly { place: self.shared.branch.store().describe() }),
        }
    }

    /// The entity that a number, lookup ref or ident names in the newest database value.
    ///
    /// # Errors
    /// If it cannot name one.
    pub fn entid(&self, entity: &Value) -> Result<Option<EntityId>, Error> {
        let db = self.db();
        self.settle_now(|| db.entid(entity))
    }

    /// Ends the connection and all its clones: finishes what waits, ends listeners and streams, and
    /// gives up the store.
    ///
    /// # Errors
    /// What closing the store fails with.
    pub async fn release(&self) -> Result<(), Error> {
        match &self.shared.role {
            Role::Writer(writer) => writer.stop().await,
            Role::Mirror(writer) => writer.stop().await,
            Role::Reader => {}
        }
        self.shared.branch.reports().close();
        Ok(self.shared.branch.store().close().await?)
    }
}
