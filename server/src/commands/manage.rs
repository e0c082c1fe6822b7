use std::path::Path;
use std::time::Duration;

use datahike::config::WriterConfig;
use datahike::store::{FileOptions, FileStore};
use datahike::{Config, Keep, Value, connect, create_database, delete_database, edn, kw};

use crate::cli::{self, Create, List, Reading, Target};
use crate::failure::Failure;
use crate::output;
use crate::place::{Place, Remote};
use crate::session::{RemoteSession, Session};

pub(super) async fn create(args: Create) -> Result<(), Failure> {
    let given = match &args.config {
        None => Value::map([]),
        Some(text) => {
            edn::read(text).map_err(|error| Failure::usage(format!("--config: {error}")))?
        }
    };
    let Some(entries) = given.as_map() else {
        return Err(Failure::usage(format!("--config: {given} is no map")));
    };
    match &args.target.db {
        Place::File(folder) => {
            let config = config_at(folder, entries.clone())?;
            make_parent(folder)?;
            let created = create_database(&config).await?;
            let id = created.store.id().map(|id| Value::Uuid(id.uuid()));
            output::line(Value::map([(kw!("id").into(), id.unwrap_or_default())]))
        }
        Place::Server(Remote { url, name }) => {
            let server = RemoteSession::connect(url, &args.target.access).await?;
            let config = ("config", given.clone());
            let id = server.call("create", [("name", name.as_str().into()), config]).await?;
            output::line(Value::map([(kw!("id").into(), id)]))
        }
    }
}

/// The configuration of a database in a folder, with what was given besides.
fn config_at(
    folder: &Path,
    mut entries: std::collections::BTreeMap<Value, Value>,
) -> Result<Config, Failure> {
    let id = entries.remove(&kw!("store").into()).and_then(|store| store.get(&kw!("id")).cloned());
    entries.insert(kw!("store").into(), Config::file(folder).store.to_value());
    let config = Config::from_value(&Value::map(entries))
        .map_err(|error| Failure::usage(format!("--config: {error}")))?;
    Ok(match id {
        Some(Value::Uuid(id)) => config.id(id),
        _ => config,
    })
}

/// Makes the folders above a database.
pub(crate) fn make_parent(folder: &Path) -> Result<(), Failure> {
    let Some(parent) = folder.parent() else { return Ok(()) };
    std::fs::create_dir_all(parent).map_err(|e| Failure::from(e).at(parent.display()))
}

pub(super) async fn delete(args: Target) -> Result<(), Failure> {
    match &args.db {
        Place::File(folder) => {
            let config = Config::file(folder);
            if !datahike::database_exists(&config).await? {
                let place = folder.display().to_string();
                return Err(datahike::Error::NoDatabase { place }.into());
            }
            Ok(delete_database(&config).await?)
        }
        Place::Server(Remote { url, name }) => {
            let server = RemoteSession::connect(url, &args.access).await?;
            Ok(server.call("delete", [("name", name.as_str().into())]).await.map(drop)?)
        }
    }
}

pub(super) async fn list(args: List) -> Result<(), Failure> {
    if args.at.starts_with("ws://") || args.at.starts_with("wss://") {
        let url = args.at.trim_end_matches('/');
        let found = RemoteSession::connect(url, &args.access).await?.call("list", []).await?;
        for database in found.as_slice().unwrap_or_default() {
            output::line(database)?;
        }
        return Ok(());
    }
    let folder = args.at.strip_prefix("file:").unwrap_or(&args.at);
    for name in databases_in(Path::new(folder))? {
        let path = Path::new(folder).join(&name);
        let id = FileStore::open_read_only(&path, FileOptions::default())
            .map(|store| Value::Uuid(datahike::store::Store::identity(&store).id));
        output::line(Value::map([
            (kw!("name").into(), name.as_str().into()),
            (kw!("id").into(), id.unwrap_or_default()),
        ]))?;
    }
    Ok(())
}

/// Names of the folders in `folder` that hold a database, sorted.
pub(crate) fn databases_in(folder: &Path) -> Result<Vec<String>, Failure> {
    let failed = |error| Failure::from(error).at(folder.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let is_database = entry.path().is_dir()
            && FileStore::exists(entry.path(), &FileOptions::default()).unwrap_or(false);
        if is_database {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

pub(super) async fn stats(args: Reading) -> Result<(), Failure> {
    let session = Session::read(&args.target).await?;
    let stats = session.call("stats", []).await?;
    output::map(&stats, output::format_or_default(args.format))?;
    session.close().await
}

pub(super) async fn compact(args: cli::Compact) -> Result<(), Failure> {
    let Place::File(folder) = &args.target.db else {
        let text = format!("{}: compact works on file: databases", args.target.db);
        return Err(Failure::usage(text).hint("run it where the server's data is"));
    };
    let connection = connect(&Config::file(folder).writer(WriterConfig::Local)).await?;
    let keep = Keep { younger_than: args.keep.unwrap_or(Duration::ZERO) };
    let done = datahike::compact(&connection, keep).await;
    connection.release().await?;
    let done = done?;
    let long = |n: u64| Value::Long(i64::try_from(n).unwrap_or(i64::MAX));
    output::line(Value::map([
        (kw!("kept-blocks").into(), long(done.kept_blocks)),
        (kw!("removed-blocks").into(), long(done.reclaimed.blocks)),
        (kw!("bytes-given-back").into(), long(done.reclaimed.bytes)),
    ]))
}
