//! Operations that change nothing.

use std::sync::Arc;
use std::time::Instant;

use datahike::core::db::{Components, Db, DbError};
use datahike::core::index::Index;
use datahike::core::pull::{self, Pattern, PullContext};
use datahike::core::query::{self, Clock, Context, Input, Query};
use datahike::{Keyword, Value, kw};

use super::super::failure::{Problem, wrong};
use super::super::handle::{self, Handles, Resolved, View};
use super::Arguments;

type Done = Result<Value, Problem>;

/// Datoms in one answer, unless told.
const DATOMS: usize = 100_000;

pub(super) async fn history(_: &Handles, arguments: &Arguments) -> Done {
    Ok(handle::view(View::History, arguments.at(0)?, None))
}

pub(super) async fn as_of(_: &Handles, arguments: &Arguments) -> Done {
    Ok(handle::view(View::AsOf, arguments.at(0)?, Some(point(arguments)?)))
}

pub(super) async fn since(_: &Handles, arguments: &Arguments) -> Done {
    Ok(handle::view(View::Since, arguments.at(0)?, Some(point(arguments)?)))
}

fn point(arguments: &Arguments) -> Result<&Value, Problem> {
    let point = arguments.at(1)?;
    match datahike::core::db::TimePoint::from_value(point) {
        Some(_) => Ok(point),
        None => Err(wrong(format!("{point} is neither a transaction id nor an instant"))),
    }
}

/// A query with its inputs.
struct Asked {
    query: Query,
    inputs: Vec<Input>,
    /// Whose blocks are read.
    connection: Option<datahike::Connection>,
}

async fn asked(handles: &Handles, arguments: &Arguments) -> Result<Asked, Problem> {
    let form = arguments.at(0)?;
    let args = form.get(&kw!("args"));
    let given = match args {
        Some(args) => args.as_slice().ok_or_else(|| wrong(":args is no list"))?,
        None => arguments.from(1),
    };
    // What stands beside the query is not part of it.
    let form = match form {
        Value::Map(entries) if args.is_some() => Value::map(
            entries
                .iter()
                .filter(|(key, _)| **key != kw!("args").into())
                .map(|(key, value)| (key.clone(), value.clone())),
        ),
        form => form.clone(),
    };
    let query = Query::from_value(&form).map_err(datahike::Error::from)?;
    let (mut inputs, mut connection) = (Vec::with_capacity(given.len()), None);
    for value in given {
        inputs.push(match value {
            Value::Tagged(_) => {
                let resolved = handles.db(value).await?;
                connection.get_or_insert(resolved.connection);
                Input::from(resolved.db)
            }
            value => Input::from(value.clone()),
        });
    }
    Ok(Asked { query, inputs, connection })
}

pub(super) async fn query(handles: &Handles, arguments: &Arguments) -> Done {
    let Asked { query, inputs, connection } = asked(handles, arguments).await?;
    let context = Context { budget: arguments.bounds.budget(), ..Context::default() };
    let run = || query::q(&query, &inputs, &context);
    let result = match &connection {
        Some(connection) => connection.settle(run).await?,
        None => run().map_err(datahike::Error::from)?,
    };
    Ok(result.into_value())
}

pub(super) async fn query_stats(handles: &Handles, arguments: &Arguments) -> Done {
    let Asked { query, inputs, connection } = asked(handles, arguments).await?;
    let context = Context { budget: arguments.bounds.budget(), ..Context::default() };
    let begun = Instant::now();
    let clock: Clock = Arc::new(move || begun.elapsed());
    let run = || query::analyze(&query, &inputs, &context, Some(clock.clone()));
    let (result, plan) = match &connection {
        Some(connection) => connection.settle(run).await?,
        None => run().map_err(datahike::Error::from)?,
    };
    Ok(Value::map([
        (kw!("ret").into(), result.into_value()),
        (kw!("query").into(), query.form().clone()),
        (kw!("rules").into(), Value::map([])),
        (kw!("consts").into(), Value::map([])),
        (kw!("stats").into(), plan.to_value().get(&kw!("steps")).cloned().unwrap_or_default()),
    ]))
}

/// A pattern; names in it may be strings where a format has no keywords.
fn pattern(arguments: &Arguments, given: &Value) -> Result<Pattern, Problem> {
    let named = match given {
        Value::Str(text) => {
            return Ok(Pattern::parse_text(text).map_err(datahike::Error::from)?);
        }
        form if arguments.loose => names(form),
        form => form.clone(),
    };
    Ok(Pattern::parse(&named).map_err(datahike::Error::from)?)
}

fn names(form: &Value) -> Value {
    match form {
        Value::Str(text) if &**text == "*" => Value::symbol("*"),
        Value::Str(text) => Value::Keyword(Keyword::parse(text.strip_prefix(':').unwrap_or(text))),
        Value::Vector(items) => Value::vector(items.iter().map(names)),
        Value::Map(entries) => {
            Value::map(entries.iter().map(|(key, value)| (names(key), names(value))))
        }
        other => other.clone(),
    }
}

pub(super) async fn pull(handles: &Handles, arguments: &Arguments) -> Done {
    let Resolved { connection, db } = handles.db(arguments.at(0)?).await?;
    let given = arguments.at(1)?;
    let (form, entity) = match (given.get(&kw!("selector")), given.get(&kw!("eid"))) {
        (Some(selector), Some(entity)) => (selector, entity),
        _ => (given, arguments.at(2)?),
    };
    let pattern = pattern(arguments, form)?;
    let context = PullContext { budget: arguments.bounds.budget(), ..PullContext::default() };
    Ok(connection.settle(|| pull::pull_with(&db, &pattern, entity, &context)).await?)
}

pub(super) async fn pull_many(handles: &Handles, arguments: &Arguments) -> Done {
    let Resolved { connection, db } = handles.db(arguments.at(0)?).await?;
    let pattern = pattern(arguments, arguments.at(1)?)?;
    let entities = arguments.at(2)?;
    let entities = entities.as_slice().ok_or_else(|| wrong("expected a list of entities"))?;
    let pulled = connection.settle(|| pull::pull_many(&db, &pattern, entities)).await?;
    Ok(Value::vector(pulled))
}

pub(super) async fn entity(handles: &Handles, arguments: &Arguments) -> Done {
    let given = arguments.at(0)?;
    let Resolved { connection, db } = handles.db(given).await?;
    let name = arguments.at(1)?;
    let found = connection
        .settle(|| {
            let Some(entity) = db.entity(name)? else { return Ok(None) };
            Ok::<_, DbError>(Some((entity.id(), entity.touch()?)))
        })
        .await?;
    Ok(match found {
        Some((e, attributes)) => handle::entity(&attributes, given, e),
        None => Value::Nil,
    })
}

pub(super) async fn entity_db(_: &Handles, arguments: &Arguments) -> Done {
    let given = arguments.at(0)?;
    handle::entity_db(given).cloned().ok_or_else(|| wrong(format!("{given} is no entity")))
}

/// A stretch of an index, as `index` and components or as a map of both.
struct Stretch {
    index: Index,
    components: Components,
    limit: usize,
}

fn stretch(arguments: &Arguments) -> Result<Stretch, Problem> {
    let given = arguments.at(1)?;
    let (index, components) = match given.get(&kw!("index")) {
        Some(index) => {
            let components = given.get(&kw!("components")).and_then(Value::as_slice);
            (index, components.unwrap_or_default())
        }
        None => (given, arguments.from(2)),
    };
    let limit = given.get(&kw!("limit")).and_then(Value::as_long);
    let index = match index {
        Value::Keyword(index) => index.text(),
        Value::Str(index) => index.trim_start_matches(':'),
        other => return Err(wrong(format!("{other} is no index"))),
    };
    let index = match index {
        "eavt" => Index::Eavt,
        "aevt" => Index::Aevt,
        "avet" => Index::Avet,
        other => return Err(wrong(format!("{other} is no index: :eavt, :aevt or :avet"))),
    };
    // The attribute may come as a string.
    let place = if index == Index::Eavt { 1 } else { 0 };
    let components: Vec<Value> = components
        .iter()
        .enumerate()
        .map(|(at, value)| match value {
            Value::Str(_) if at == place && arguments.loose => names(value),
            value => value.clone(),
        })
        .collect();
    let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(DATOMS);
    let limit = limit.min(arguments.bounds.rows);
    Ok(Stretch { index, components: Components::from(&*components), limit })
}

fn shown<'a>(
    db: &Db,
    datoms: impl Iterator<Item = Result<datahike::datom::Datom, datahike::core::block::Missing>> + 'a,
    limit: usize,
) -> Result<Value, DbError> {
    let all = datoms.take(limit).map(|datom| Ok(handle::datom(db.datom_value(&datom?))));
    Ok(Value::vector(all.collect::<Result<Vec<_>, DbError>>()?))
}

pub(super) async fn datoms(handles: &Handles, arguments: &Arguments) -> Done {
    let Resolved { connection, db } = handles.db(arguments.at(0)?).await?;
    let Stretch { index, components, limit } = stretch(arguments)?;
    Ok(connection.settle(|| shown(&db, db.datoms(index, &components)?, limit)).await?)
}

pub(super) async fn seek_datoms(handles: &Handles, arguments: &Arguments) -> Done {
    let Resolved { connection, db } = handles.db(arguments.at(0)?).await?;
    let Stretch { index, components, limit } = stretch(arguments)?;
    Ok(connection.settle(|| shown(&db, db.seek_datoms(index, &components)?, limit)).await?)
}

pub(super) async fn rseek_datoms(handles: &Handles, arguments: &Arguments) -> Done {
    let Resolved { connection, db } = handles.db(arguments.at(0)?).await?;
    let Stretch { index, components, limit } = stretch(arguments)?;
    Ok(connection.settle(|| shown(&db, db.rseek_datoms(index, &components)?, limit)).await?)
}

pub(super) async fn index_range(handles: &Handles, arguments: &Arguments) -> Done {
    let Resolved { connection, db } = handles.db(arguments.at(0)?).await?;
    let range = arguments.at(1)?;
    let attribute = range.get(&kw!("attrid")).ok_or_else(|| wrong(":attrid is missing"))?;
    let attribute = if arguments.loose { names(attribute) } else { attribute.clone() };
    let nil = Value::Nil;
    let start = range.get(&kw!("start")).unwrap_or(&nil);
    let end = range.get(&kw!("end")).unwrap_or(&nil);
    Ok(connection.settle(|| shown(&db, db.index_range(&attribute, start, end)?, DATOMS)).await?)
}

pub(super) async fn schema(handles: &Handles, arguments: &Arguments) -> Done {
    Ok(handles.db(arguments.at(0)?).await?.db.schema().to_value())
}

pub(super) async fn reverse_schema(handles: &Handles, arguments: &Arguments) -> Done {
    Ok(handles.db(arguments.at(0)?).await?.db.schema().reverse())
}

pub(super) async fn metrics(handles: &Handles, arguments: &Arguments) -> Done {
    let Resolved { connection, db } = handles.db(arguments.at(0)?).await?;
    let metrics = connection.settle(|| db.metrics()).await?;
    Ok(metrics.to_value(&db))
}

/// The innermost handle of a commit.
fn origin(handle: &Value) -> &Value {
    let mut at = handle;
    while let Value::Tagged(inner) = at
        && let Some(origin) = inner.value.get(&kw!("origin"))
    {
        at = origin;
    }
    at
}

pub(super) async fn commit_id(handles: &Handles, arguments: &Arguments) -> Done {
    let given = origin(arguments.at(0)?);
    if let Value::Tagged(inner) = given
        && let Some(commit) = inner.value.get(&kw!("commit-id"))
    {
        return Ok(commit.clone());
    }
    let connection = handles.connection(given).await?;
    Ok(handles.commit_id(connection.snapshot().at.commit))
}

pub(super) async fn parent_commit_ids(handles: &Handles, arguments: &Arguments) -> Done {
    let given = origin(arguments.at(0)?);
    let connection = handles.db(given).await?.connection;
    let commit = match given {
        Value::Tagged(inner) => inner.value.get(&kw!("commit-id")),
        _ => None,
    };
    let commit = match commit {
        Some(commit) => handles.commit_of(&connection, commit).await?,
        None => connection.snapshot().at.commit,
    };
    let parents = connection.parent_commit_ids(commit).await?;
    Ok(Value::set(parents.into_iter().map(|parent| handles.commit_id(parent))))
}
