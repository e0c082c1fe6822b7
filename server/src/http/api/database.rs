//! Operations on databases and connections.

use datahike::config::StoreConfig;
use datahike::ops::Host;
use datahike::{Config, Uuid, Value, kw};

use super::super::failure::{Problem, wrong};
use super::super::handle::Handles;
use super::Arguments;

type Done = Result<Value, Problem>;

/// How a request says which database it means.
struct Wanted {
    config: Config,
    /// By which it is served: its name, or its store id.
    name: String,
}

/// The configuration of a request. Where a store is kept is for the server to say; a request names
/// it by `:name`, or by the `:id` of its store.
fn wanted(arguments: &Arguments) -> Result<Option<Wanted>, Problem> {
    let Some(given) = arguments.get(0) else { return Ok(None) };
    if let Value::Str(name) = given {
        let config = Config::memory().name(&**name);
        return Ok(Some(Wanted { config, name: name.to_string() }));
    }
    let Value::Map(entries) = given else {
        return Err(wrong(format!("expected a configuration map, got {given}")));
    };
    let store = given.get(&kw!("store"));
    let id = store.and_then(|store| store.get(&kw!("id"))).cloned();
    let names = |value: &Value| match value {
        Value::Uuid(id) => Some(id.to_string()),
        Value::Str(name) => Some(name.to_string()),
        Value::Keyword(name) => Some(name.text().to_owned()),
        _ => None,
    };
    let name = given.get(&kw!("name")).and_then(names);
    let own = entries.iter().filter(|(key, _)| !matches!(key.as_keyword(), Some(k) if k.text() == "store" || k.text() == "writer"));
    let store = match &id {
        Some(id) => Value::map([
            (kw!("backend").into(), Value::keyword("memory")),
            (kw!("id").into(), id.clone()),
        ]),
        None => Value::map([(kw!("backend").into(), Value::keyword("memory"))]),
    };
    let config =
        Value::map(own.map(|(k, v)| (k.clone(), v.clone())).chain([(kw!("store").into(), store)]));
    let config = Config::from_value(&config).map_err(datahike::Error::from)?;
    let named = id.as_ref().and_then(names).or_else(|| name.clone());
    let name = match (name, named) {
        (Some(name), _) | (None, Some(name)) => name,
        (None, None) => {
            config.store.id().map_or_else(|| Uuid::new_v4().to_string(), |id| id.uuid().to_string())
        }
    };
    Ok(Some(Wanted { config, name }))
}

/// What a database is found by that a request means.
pub(super) fn name_of(arguments: &Arguments) -> Result<String, Problem> {
    let named = wanted(arguments)?.map(|wanted| wanted.name);
    named.ok_or_else(|| wrong("which database? give its configuration, or its name"))
}

pub(super) async fn exists(handles: &Handles, arguments: &Arguments) -> Done {
    let name = name_of(arguments)?;
    match handles.folder.database(&name).await {
        Ok(_) => Ok(Value::Bool(true)),
        Err(error) if error.code() == "database/missing" => Ok(Value::Bool(false)),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn create(handles: &Handles, arguments: &Arguments) -> Done {
    let fresh = || {
        let config = Config::memory();
        let name = config.store.id().map_or_else(String::new, |id| id.uuid().to_string());
        Wanted { config, name }
    };
    let Wanted { config, name } = wanted(arguments)?.unwrap_or_else(fresh);
    let connection = handles.folder.create(&name, &config).await?;
    Ok(effective(connection.config(), connection.store_id(), &name))
}

/// The configuration as it holds, in the keys of Datahike.
fn effective(config: &Config, id: Uuid, name: &str) -> Value {
    let mut shown = config.clone();
    // Where the server keeps it is nobody's business, and cannot be asked for.
    shown.store = StoreConfig::File { path: name.into(), id: Some(id.into()) };
    let own = match shown.to_value() {
        Value::Map(entries) => entries.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        _ => Vec::new(),
    };
    let missing = [
        (kw!("remote-peer").into(), Value::Nil),
        (kw!("index").into(), Value::keyword("datahike.index/persistent-set")),
    ];
    Value::map(missing.into_iter().chain(own))
}

pub(super) async fn delete(handles: &Handles, arguments: &Arguments) -> Done {
    let name = name_of(arguments)?;
    match handles.folder.database(&name).await {
        Ok(connection) => {
            handles.release(Some(connection.store_id())).await?;
            handles.folder.delete(&name).await?;
            Ok(Value::Nil)
        }
        // What is not there is as deleted as it can be.
        Err(error) if error.code() == "database/missing" => Ok(Value::Nil),
        Err(error) => Err(error.into()),
    }
}

pub(super) async fn connect(handles: &Handles, arguments: &Arguments) -> Done {
    let name = name_of(arguments)?;
    let branch = arguments.get(0).and_then(|config| config.get(&kw!("branch")));
    let main = handles.folder.database(&name).await?;
    match branch {
        None => Ok(Handles::of_connection(&main)),
        Some(branch) => {
            let handle = Value::tagged(
                "datahike/Connection",
                Value::vector([Value::Uuid(main.store_id()), branch.clone()]),
            );
            Ok(Handles::of_connection(&handles.connection(&handle).await?))
        }
    }
}

pub(super) async fn db(handles: &Handles, arguments: &Arguments) -> Done {
    let connection = handles.connection(arguments.at(0)?).await?;
    Ok(handles.of_newest(&connection))
}

pub(super) async fn release(handles: &Handles, arguments: &Arguments) -> Done {
    let connection = handles.connection(arguments.at(0)?).await?;
    handles.release_branch(connection.store_id(), connection.branch().name()).await?;
    Ok(Value::Nil)
}

pub(super) async fn branches(handles: &Handles, arguments: &Arguments) -> Done {
    let connection = handles.connection(arguments.at(0)?).await?;
    names(&connection).await
}

/// The branches of a store.
pub(super) async fn names(connection: &datahike::Connection) -> Done {
    let names = connection.branches().await?;
    Ok(Value::set(names.iter().map(|name| Value::keyword(name))))
}

pub(super) async fn branch_as_db(handles: &Handles, arguments: &Arguments) -> Done {
    let connection = handles.connection(arguments.at(0)?).await?;
    let branch = branch_name(arguments.at(1)?)?;
    let db = connection.branch_as_db(branch).await?;
    let at = connection.position_of(datahike::Revision::Branch(branch.to_owned())).await?;
    Ok(handles.of_db(connection.store_id(), branch, at.commit, &db))
}

pub(super) async fn commit_as_db(handles: &Handles, arguments: &Arguments) -> Done {
    let connection = handles.connection(arguments.at(0)?).await?;
    let commit = handles.commit_of(&connection, arguments.at(1)?).await?;
    let db = connection.commit_as_db(commit).await?;
    Ok(handles.of_db(connection.store_id(), connection.branch().name(), commit, &db))
}

/// The name of a branch: a keyword, or a string.
pub(super) fn branch_name(value: &Value) -> Result<&str, Problem> {
    match value {
        Value::Keyword(name) => Ok(name.text()),
        Value::Str(name) => Ok(name),
        other => Err(wrong(format!("expected the name of a branch, got {other}"))),
    }
}
