//! Handles: how connections and database values stand in requests and answers.
//!
//! A database value is named by its store and branch, a commit, and the newest transaction that it
//! shows; nothing of it is kept between requests.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use datahike::core::commit::CommitId;
use datahike::core::datom::TxId;
use datahike::core::db::{Db, TimePoint, entity_value};
use datahike::ops::Host;
use datahike::{Connection, Error, Revision, Uuid, Value, kw};
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use super::failure::{Problem, wrong};
use crate::serve::Folder;

/// Commits whose full id is remembered; a handle holds the half of it.
const COMMITS_MAX: usize = 65_536;

/// Commits that are looked through for one whose full id is not remembered.
const SEARCHED_MAX: usize = 100_000;

const CONNECTION: &str = "datahike/Connection";
const DB: &str = "datahike/DB";
const HISTORY: &str = "datahike/HistoricalDB";
const SINCE: &str = "datahike/SinceDB";
const AS_OF: &str = "datahike/AsOfDB";
const ENTITY: &str = "datahike/Entity";
const DATOM: &str = "datahike/Datom";
const REPORT: &str = "datahike/TxReport";

/// Turns handles into what they stand for, and back.
pub(super) struct Handles {
    pub(super) folder: Arc<Folder>,
    /// Writers of branches other than the main one.
    branches: AsyncMutex<HashMap<(Uuid, String), Connection>>,
    commits: Mutex<Commits>,
}

#[derive(Default)]
struct Commits {
    by_half: HashMap<Uuid, CommitId>,
    order: VecDeque<Uuid>,
}

/// A database value with the connection whose blocks it reads.
pub(super) struct Resolved {
    pub(super) connection: Connection,
    pub(super) db: Db,
}

impl Handles {
    pub(super) fn new(folder: Arc<Folder>) -> Self {
        Self { folder, branches: AsyncMutex::default(), commits: Mutex::default() }
    }

    /// The connection of a handle, or of a database's name.
    pub(super) async fn connection(&self, handle: &Value) -> Result<Connection, Problem> {
        let (store, branch) = match handle {
            Value::Tagged(inner) if inner.tag.text() == CONNECTION => store_id(&inner.value)?,
            Value::Str(name) => (name.to_string(), "db".to_owned()),
            Value::Uuid(id) => (id.to_string(), "db".to_owned()),
            other => return Err(wrong(format!("expected a connection, got {other}"))),
        };
        let main = self.folder.database(&store).await?;
        if branch == main.branch().name() {
            return Ok(main);
        }
        let key = (main.store_id(), branch.clone());
        let mut branches = self.branches.lock().await;
        if let Some(open) = branches.get(&key) {
            return Ok(open.clone());
        }
        let opened = main.checkout(&branch).await?;
        branches.insert(key, opened.clone());
        Ok(opened)
    }

    /// Gives up what writes branches of this store, or of all.
    pub(super) async fn release(&self, store: Option<Uuid>) -> Result<(), Error> {
        let mut branches = self.branches.lock().await;
        let mut gone = Vec::new();
        branches.retain(|(id, _), connection| {
            let keep = store.is_some_and(|store| store != *id);
            if !keep {
                gone.push(connection.clone());
            }
            keep
        });
        for connection in gone {
            connection.release().await?;
        }
        Ok(())
    }

    /// Gives up what writes this branch.
    pub(super) async fn release_branch(&self, store: Uuid, branch: &str) -> Result<(), Error> {
        let open = self.branches.lock().await.remove(&(store, branch.to_owned()));
        match open {
            Some(connection) => connection.release().await,
            None => Ok(()),
        }
    }

    /// The database value of a handle; of a connection or a name, the newest.
    pub(super) async fn db(&self, handle: &Value) -> Result<Resolved, Problem> {
        let Value::Tagged(inner) = handle else { return self.newest(handle).await };
        let part = |name: &str| -> Result<&Value, Problem> {
            let found = inner.value.get(&datahike::Keyword::parse(name));
            found.ok_or_else(|| wrong(format!("#{} lacks :{name}", inner.tag.text())))
        };
        let over = |name: &'static str| async move {
            let point = TimePoint::from_value(part("time-point")?);
            let point = point.ok_or_else(|| {
                wrong(format!("the :time-point of {name} is neither a transaction nor an instant"))
            })?;
            Ok::<_, Problem>((Box::pin(self.db(part("origin")?)).await?, point))
        };
        match inner.tag.text() {
            CONNECTION => self.newest(handle).await,
            DB => self.commit(&inner.value).await,
            HISTORY => {
                let origin = Box::pin(self.db(part("origin")?)).await?;
                Ok(Resolved { db: origin.db.history()?, ..origin })
            }
            AS_OF => {
                let (origin, point) = over(AS_OF).await?;
                Ok(Resolved { db: origin.db.as_of(point)?, ..origin })
            }
            SINCE => {
                let (origin, point) = over(SINCE).await?;
                Ok(Resolved { db: origin.db.since(point)?, ..origin })
            }
            other => Err(wrong(format!("expected a database, got #{other}"))),
        }
    }

    async fn newest(&self, handle: &Value) -> Result<Resolved, Problem> {
        let connection = self.connection(handle).await?;
        let db = connection.db();
        Ok(Resolved { connection, db })
    }

    async fn commit(&self, handle: &Value) -> Result<Resolved, Problem> {
        let store =
            handle.get(&kw!("store-id")).ok_or_else(|| wrong("#datahike/DB lacks :store-id"))?;
        let (store, branch) = store_id(store)?;
        let connection = self.folder.database(&store).await?;
        let tx = handle.get(&kw!("max-tx")).and_then(Value::as_long);
        let tx = tx.and_then(|tx| TxId::try_from(tx).ok());
        let half = handle.get(&kw!("commit-id")).and_then(Value::as_uuid);
        let newest = connection.snapshot();
        let shows = |db: &Db| tx.is_none_or(|tx| tx == db.max_tx());
        if shows(&newest.db) && half.is_none_or(|half| half == half_of(newest.at.commit)) {
            return Ok(Resolved { db: newest.db.clone(), connection });
        }
        let db = match half {
            None => connection.branch_as_db(&branch).await?,
            Some(half) => {
                let commit = self.find(&connection, &branch, half).await?;
                connection.commit_as_db(commit).await?
            }
        };
        let db = match tx {
            Some(tx) if tx < db.max_tx() => db.as_of(TimePoint::Tx(tx))?,
            _ => db,
        };
        Ok(Resolved { connection, db })
    }

    /// The commit that this is the half of.
    async fn find(
        &self,
        connection: &Connection,
        branch: &str,
        half: Uuid,
    ) -> Result<CommitId, Problem> {
        let known = self.commits.lock().by_half.get(&half).copied();
        if let Some(commit) = known {
            return Ok(commit);
        }
        let revision = Revision::Branch(branch.to_owned());
        let history = connection.branch_history(revision, SEARCHED_MAX).await?;
        let found = history.iter().map(|commit| commit.id).find(|id| half_of(*id) == half);
        found.ok_or_else(|| Problem::gone(half))
    }

    /// The full id of a commit that a request names.
    pub(super) async fn commit_of(
        &self,
        connection: &Connection,
        name: &Value,
    ) -> Result<CommitId, Problem> {
        match name {
            Value::Uuid(half) => self.find(connection, connection.branch().name(), *half).await,
            other => match Revision::from_value(other) {
                Some(Revision::Commit(commit)) => Ok(commit),
                _ => Err(wrong(format!("expected the id of a commit, got {other}"))),
            },
        }
    }

    /// How a commit is named in answers.
    pub(super) fn commit_id(&self, commit: CommitId) -> Value {
        let half = half_of(commit);
        let mut commits = self.commits.lock();
        if commits.by_half.insert(half, commit).is_none() {
            commits.order.push_back(half);
            if commits.order.len() > COMMITS_MAX
                && let Some(oldest) = commits.order.pop_front()
            {
                commits.by_half.remove(&oldest);
            }
        }
        Value::Uuid(half)
    }

    /// The handle of a connection.
    pub(super) fn of_connection(connection: &Connection) -> Value {
        Value::tagged(CONNECTION, place(connection.store_id(), connection.branch().name()))
    }

    /// The handle of a database value: of a commit, or of a state on the way to it.
    pub(super) fn of_db(&self, store: Uuid, branch: &str, commit: CommitId, db: &Db) -> Value {
        Value::tagged(
            DB,
            Value::map([
                (kw!("store-id").into(), place(store, branch)),
                (kw!("commit-id").into(), self.commit_id(commit)),
                (kw!("max-eid").into(), entity_value(db.max_entity())),
                (kw!("max-tx").into(), entity_value(db.max_tx())),
            ]),
        )
    }

    /// The handle of the newest value of a connection.
    pub(super) fn of_newest(&self, connection: &Connection) -> Value {
        let newest = connection.snapshot();
        let branch = connection.branch().name();
        self.of_db(connection.store_id(), branch, newest.at.commit, &newest.db)
    }
}

/// The handle of a view: it is not looked at before it is used.
pub(super) fn view(name: View, origin: &Value, point: Option<&Value>) -> Value {
    let tag = match name {
        View::History => HISTORY,
        View::AsOf => AS_OF,
        View::Since => SINCE,
    };
    let entries = [(kw!("origin").into(), Some(origin)), (kw!("time-point").into(), point)];
    Value::tagged(tag, Value::map(entries.into_iter().filter_map(|(k, v)| Some((k, v?.clone())))))
}

#[derive(Clone, Copy)]
pub(super) enum View {
    History,
    AsOf,
    Since,
}

/// An entity with its attributes, and the database it is of.
pub(super) fn entity(attributes: &Value, db: &Value, e: u64) -> Value {
    let own = match attributes {
        Value::Map(entries) => entries.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        _ => Vec::new(),
    };
    let own = own.into_iter().filter(|(key, _)| *key != kw!("db/id").into());
    let rest = [(kw!("db").into(), db.clone()), (kw!("eid").into(), entity_value(e))];
    Value::tagged(ENTITY, Value::map(own.chain(rest)))
}

/// The database that an entity is of.
pub(super) fn entity_db(entity: &Value) -> Option<&Value> {
    match entity {
        Value::Tagged(inner) if inner.tag.text() == ENTITY => inner.value.get(&kw!("db")),
        _ => None,
    }
}

/// A datom.
pub(super) fn datom(value: Value) -> Value {
    Value::tagged(DATOM, value)
}

/// A transaction report.
pub(super) fn report(entries: impl IntoIterator<Item = (Value, Value)>) -> Value {
    Value::tagged(REPORT, Value::map(entries))
}

fn place(store: Uuid, branch: &str) -> Value {
    Value::vector([Value::Uuid(store), Value::keyword(branch)])
}

/// The first half of a commit's id, in the form of a UUID (version 8).
fn half_of(commit: CommitId) -> Uuid {
    let mut half = [0; 16];
    half.copy_from_slice(&commit.0[..16]);
    uuid::Builder::from_custom_bytes(half).into_uuid()
}

/// `[store branch]`; older handles have the backend beside the store: `[[:memory "id"] :db]`.
fn store_id(value: &Value) -> Result<(String, String), Problem> {
    let parts = value.as_slice().unwrap_or_default();
    let (store, branch) = match parts {
        [store, Value::Keyword(branch)] => (store, branch.text().to_owned()),
        [store, Value::Str(branch)] => (store, branch.to_string()),
        _ => return Err(wrong(format!("expected [store branch], got {value}"))),
    };
    let store = match store.as_slice() {
        Some([.., last]) => last,
        _ => store,
    };
    match store {
        Value::Uuid(id) => Ok((id.to_string(), branch)),
        Value::Str(name) => Ok((name.to_string(), branch)),
        other => Err(wrong(format!("{other} is no store: give its UUID or its name"))),
    }
}
