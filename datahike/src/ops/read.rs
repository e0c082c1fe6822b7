//! Operations that change nothing.

use datahike_core::datom::EntityId;
use datahike_core::db::{Components, Db, DbError, TimePoint};
use datahike_core::index::{Index, Range};
use datahike_core::pull::{self, Pattern, PullContext};
use datahike_core::query::{self, Context, Input, Query};
use datahike_peer::BoxFuture;
use datahike_value::{Value, kw};

use super::{Arguments, Bounds};
use crate::connection::Connection;
use crate::error::Error;
use crate::versioning::Revision;
use crate::worker;

/// Datoms in one answer, unless told.
const DATOMS: u64 = 10_000;

/// Datoms in one page of an export, at least, where there are more.
const PAGE_DATOMS: usize = 20_000;

/// Bytes, about, of one page of an export. A frame is 16 MiB.
const PAGE_BYTES: usize = 2 << 20;

type Answer<'a> = BoxFuture<'a, Result<Value, Error>>;

/// The database at a branch or commit, as of, since, or with all of its history, as arguments say.
async fn view(connection: &Connection, arguments: &Arguments<'_>) -> Result<Db, Error> {
    let mut db = match arguments.revision("at")? {
        None => connection.db(),
        Some(Revision::Branch(branch)) => connection.branch_as_db(&branch).await?,
        Some(Revision::Commit(commit)) => connection.commit_as_db(commit).await?,
    };
    let point = |name| match arguments.get(name) {
        None => Ok(None),
        Some(value) => at_point(value).map(Some).ok_or_else(|| {
            arguments.wrong(&format!(":{name} is neither a transaction id nor an instant: {value}"))
        }),
    };
    if let Some(point) = point("as-of")? {
        db = db.as_of(point)?;
    }
    if let Some(point) = point("since")? {
        db = db.since(point)?;
    }
    if arguments.flag("history")? {
        db = db.history()?;
    }
    Ok(db)
}

/// A point in a database's time: a transaction id or an instant.
pub fn at_point(value: &Value) -> Option<TimePoint> {
    TimePoint::from_value(value)
}

pub(super) fn query<'a>(
    connection: &'a Connection,
    arguments: Arguments<'a>,
    bounds: Bounds,
) -> Answer<'a> {
    Box::pin(async move {
        let query = Query::from_value(arguments.value("query")?)?;
        let db = view(connection, &arguments).await?;
        let rest = arguments.items("inputs")?.iter().cloned().map(Input::from);
        let inputs: Vec<Input> = std::iter::once(Input::from(db)).chain(rest).collect();
        let strict = arguments.flag("strict")?;
        let context = Context { budget: bounds.budget(), strict, ..Context::default() };
        let clock = || -> Option<query::Clock> { Some(std::sync::Arc::new(worker::now)) };
        match arguments.get("explain") {
            None | Some(Value::Bool(false)) => {}
            Some(Value::Bool(true)) => {
                let plan = connection.settle(|| query::explain(&query, &inputs, &context)).await?;
                return Ok(plan.to_string().as_str().into());
            }
            Some(analyze) if analyze.as_keyword().is_some_and(|how| how.text() == "analyze") => {
                let run = || query::analyze(&query, &inputs, &context, clock());
                let (_, plan) = connection.settle(run).await?;
                return Ok(plan.to_string().as_str().into());
            }
            Some(stats) if stats.as_keyword().is_some_and(|how| how.text() == "stats") => {
                let run = || query::analyze(&query, &inputs, &context, clock());
                let (result, plan) = connection.settle(run).await?;
                return Ok(Value::map([
                    (Value::keyword("ret"), result.into_value()),
                    (Value::keyword("stats"), plan.to_value()),
                ]));
            }
            Some(_) => return Err(arguments.wrong("explain is true, :analyze or :stats")),
        }
        Ok(connection.settle(|| query::q(&query, &inputs, &context)).await?.into_value())
    })
}

pub(super) fn pull<'a>(
    connection: &'a Connection,
    arguments: Arguments<'a>,
    bounds: Bounds,
) -> Answer<'a> {
    Box::pin(async move {
        let pattern = match arguments.value("pattern")? {
            Value::Str(text) => Pattern::parse_text(text)?,
            form => Pattern::parse(form)?,
        };
        let entity = arguments.value("entity")?;
        let db = view(connection, &arguments).await?;
        let context = PullContext { budget: bounds.budget(), ..PullContext::default() };
        connection.settle(|| pull::pull_with(&db, &pattern, entity, &context)).await
    })
}

pub(super) fn datoms<'a>(
    connection: &'a Connection,
    arguments: Arguments<'a>,
    bounds: Bounds,
) -> Answer<'a> {
    Box::pin(async move {
        let index = match arguments.value("index")?.as_keyword().map(|index| index.text()) {
            Some("eavt") => Index::Eavt,
            Some("aevt") => Index::Aevt,
            Some("avet") => Index::Avet,
            _ => return Err(arguments.wrong("an index is :eavt, :aevt or :avet")),
        };
        let components = Components::from(arguments.items("components")?);
        let offset = usize::try_from(arguments.natural("offset")?.unwrap_or(0));
        let limit = usize::try_from(arguments.natural("limit")?.unwrap_or(DATOMS));
        let (offset, limit) = (offset.unwrap_or(usize::MAX), limit.unwrap_or(usize::MAX));
        let limit = limit.min(bounds.rows);
        let db = view(connection, &arguments).await?;
        let found = connection
            .settle(|| {
                db.datoms(index, &components)?
                    .skip(offset)
                    .take(limit)
                    .map(|datom| Ok(db.datom_value(&datom?)))
                    .collect::<Result<Vec<Value>, DbError>>()
            })
            .await?;
        Ok(Value::vector(found))
    })
}

pub(super) fn export<'a>(
    connection: &'a Connection,
    arguments: Arguments<'a>,
    _: Bounds,
) -> Answer<'a> {
    Box::pin(async move {
        let from = arguments.natural("from")?.unwrap_or(0);
        let newest = connection.db();
        let basis = arguments.natural("basis")?.unwrap_or(newest.max_tx());
        let db = match newest.config().keep_history {
            true => newest.as_of(TimePoint::Tx(basis))?.history()?,
            false if basis == newest.max_tx() => newest,
            false => {
                let text =
                    "the database changed while it was read, and keeps no history: export it again";
                return Err(arguments.wrong(text));
            }
        };
        let (page, next) = connection.settle(|| page(&db, from)).await?;
        let id = |id: u64| Value::Long(i64::try_from(id).unwrap_or(i64::MAX));
        Ok(Value::map([
            (kw!("datoms").into(), Value::vector(page)),
            (kw!("next").into(), next.map(id).unwrap_or_default()),
            (kw!("basis").into(), id(basis)),
        ]))
    })
}

/// The datoms of whole entities from `from` on, and the entity after them.
fn page(db: &Db, from: EntityId) -> Result<(Vec<Value>, Option<EntityId>), DbError> {
    let start = Components::from([Value::Long(i64::try_from(from).unwrap_or(i64::MAX))]);
    let mut found = Vec::new();
    let (mut last, mut bytes) = (None, 0);
    for datom in db.seek_datoms(Index::Eavt, &start)? {
        let datom = datom?;
        let full = found.len() >= PAGE_DATOMS || bytes >= PAGE_BYTES;
        if full && last.is_some_and(|last| last != datom.e) {
            return Ok((found, Some(datom.e)));
        }
        last = Some(datom.e);
        bytes += 40 + crate::writer::value_weight(&datom.v);
        found.push(db.datom_value(&datom));
    }
    Ok((found, None))
}

pub(super) fn index_range<'a>(
    connection: &'a Connection,
    arguments: Arguments<'a>,
    bounds: Bounds,
) -> Answer<'a> {
    Box::pin(async move {
        let attribute = arguments.value("attrid")?;
        let [start, end] = ["start", "end"].map(|key| arguments.get(key).cloned());
        let (start, end) = (start.unwrap_or_default(), end.unwrap_or_default());
        let limit = usize::try_from(arguments.natural("limit")?.unwrap_or(DATOMS));
        let limit = limit.unwrap_or(usize::MAX).min(bounds.rows);
        let db = view(connection, &arguments).await?;
        let range = || {
            db.index_range(attribute, &start, &end)?
                .take(limit)
                .map(|datom| Ok(db.datom_value(&datom?)))
                .collect::<Result<Vec<Value>, DbError>>()
        };
        Ok(Value::vector(connection.settle(range).await?))
    })
}

pub(super) fn metrics<'a>(
    connection: &'a Connection,
    arguments: Arguments<'a>,
    _: Bounds,
) -> Answer<'a> {
    Box::pin(async move {
        let db = view(connection, &arguments).await?;
        let mut metrics = connection.settle(|| db.metrics()).await?;
        if !arguments.flag("entities")? {
            metrics.per_entity.clear();
        }
        Ok(metrics.to_value(&db))
    })
}

pub(super) fn schema<'a>(
    connection: &'a Connection,
    arguments: Arguments<'a>,
    _: Bounds,
) -> Answer<'a> {
    Box::pin(async move { Ok(view(connection, &arguments).await?.schema().to_value()) })
}

pub(super) fn reverse_schema<'a>(
    connection: &'a Connection,
    arguments: Arguments<'a>,
    _: Bounds,
) -> Answer<'a> {
    Box::pin(async move { Ok(view(connection, &arguments).await?.schema().reverse()) })
}

pub(super) fn statistics<'a>(
    connection: &'a Connection,
    _: Arguments<'a>,
    _: Bounds,
) -> Answer<'a> {
    Box::pin(stats(connection))
}

/// Sizes and counts of a database.
///
/// # Errors
/// What the store fails with.
pub async fn stats(connection: &Connection) -> Result<Value, Error> {
    connection.refresh().await?;
    let snapshot = connection.snapshot();
    let indexes = snapshot.db.indexes();
    let all = Range::all(Index::Eavt);
    let current = match (indexes.tail_len(), indexes.roots().current[Index::Eavt.number()]) {
        (0, root) => root.map_or(0, |root| root.count),
        _ => {
            let count = || indexes.scan(&all).map(|slice| Ok(slice?.rows.len() as u64)).sum();
            connection.settle::<u64, datahike_core::block::Missing>(count).await?
        }
    };
    let history: u64 = indexes.roots().history[Index::Eavt.number()].map_or(0, |root| root.count);
    let depth = Index::ALL.map(|index| {
        let root = indexes.roots().current[index.number()];
        let name = format!("{index:?}").to_lowercase();
        (Value::keyword(&name), Value::Long(root.map_or(0, |root| i64::from(root.depth))))
    });
    let store = connection.branch().store().stats().await?;
    let long = |n: u64| Value::Long(i64::try_from(n).unwrap_or(i64::MAX));
    Ok(Value::map([
        (kw!("datoms").into(), long(current)),
        (kw!("history-datoms").into(), long(history)),
        (kw!("tail").into(), long(indexes.tail_len() as u64)),
        (kw!("depth").into(), Value::map(depth)),
        (kw!("commits").into(), long(snapshot.at.seq)),
        (kw!("max-tx").into(), long(snapshot.db.max_tx())),
        (kw!("blocks").into(), long(store.blocks)),
        (kw!("block-bytes").into(), long(store.block_bytes)),
        (kw!("bytes").into(), long(store.stored_bytes + store.log_bytes)),
        (kw!("log-bytes").into(), long(store.log_bytes)),
        (kw!("files").into(), long(store.files)),
        (kw!("branches").into(), long(store.branches)),
        (kw!("id").into(), Value::Uuid(connection.store_id())),
    ]))
}

pub(super) fn wait<'a>(
    connection: &'a Connection,
    arguments: Arguments<'a>,
    _: Bounds,
) -> Answer<'a> {
    Box::pin(async move {
        let after = arguments.natural("after")?.unwrap_or(0);
        let mut reports = connection.tx_reports();
        loop {
            let newest = connection.db().max_tx();
            if newest > after {
                return Ok(Value::Long(i64::try_from(newest).unwrap_or(i64::MAX)));
            }
            if reports.next().await.is_none() {
                return Err(Error::Released);
            }
        }
    })
}
