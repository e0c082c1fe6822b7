//! The folder whose databases are served.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use datahike::config::StoreConfig;
use datahike::kabel::Databases;
use datahike::ops::Host;
use datahike::peer::BoxFuture;
use datahike::{Config, Connection, Error, Uuid, Value, kw};
use parking_lot::Mutex;

use crate::commands::databases_in;

/// Bytes of a database's name; file systems take 255.
const NAME_BYTES_MAX: usize = 200;

/// A folder of databases, each in a folder of its name.
#[derive(Debug)]
pub(crate) struct Folder {
    data: PathBuf,
    databases: Databases,
    /// What was there at the last look and is not open: its maker may not be done with it.
    waiting: Mutex<HashSet<String>>,
    first_look: AtomicBool,
    /// Whether the last look at the folder worked.
    readable: AtomicBool,
}

impl Folder {
    pub(super) fn new(data: PathBuf, databases: Databases) -> Self {
        let waiting = Mutex::default();
        Self { data, databases, waiting, first_look: true.into(), readable: true.into() }
    }

    /// Whether the data folder could be read when it was last looked at.
    pub(crate) fn is_readable(&self) -> bool {
        self.readable.load(Ordering::Relaxed)
    }

    /// How many databases are served.
    pub(crate) fn open_count(&self) -> usize {
        self.databases.list().len()
    }

    /// Opens the databases that are not open yet, except those that have just appeared or are
    /// being written by another process.
    pub(super) async fn open_new(&self) {
        let first = self.first_look.swap(false, Ordering::Relaxed);
        let looked = databases_in(&self.data);
        self.readable.store(looked.is_ok(), Ordering::Relaxed);
        let names = match looked {
            Ok(names) => names,
            Err(failure) => {
                tracing::warn!(?failure, "cannot look for databases");
                return;
            }
        };
        let mut waiting = HashSet::new();
        for name in names {
            if self.databases.get(&name).is_some() {
                continue;
            }
            let seen_before = self.waiting.lock().contains(&name);
            if first || seen_before {
                match self.open(&name).await {
                    Ok(_) => continue,
                    Err(error) => tracing::warn!(name, %error, "cannot open a database"),
                }
            }
            waiting.insert(name);
        }
        *self.waiting.lock() = waiting;
    }

    async fn open(&self, name: &str) -> Result<Connection, Error> {
        if let Some(open) = self.databases.get(name) {
            return Ok(open);
        }
        let opened = self.databases.mount(Some(name), &Config::file(self.data.join(name))).await;
        match opened {
            Ok(connection) => {
                tracing::info!(name, id = %connection.store_id(), "serving");
                Ok(connection)
            }
            // Somebody else asked for it at the same time.
            Err(error) => self.databases.get(name).ok_or(error),
        }
    }
}

impl Host for Folder {
    fn database<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Connection, Error>> {
        Box::pin(async move {
            if let Some(open) = self.databases.get(name) {
                return Ok(open);
            }
            check_name(name)?;
            if !self.data.join(name).is_dir() {
                return Err(Error::NoDatabase { place: format!("this server under {name:?}") });
            }
            self.open(name).await
        })
    }

    fn create<'a>(
        &'a self,
        name: &'a str,
        config: &'a Config,
    ) -> BoxFuture<'a, Result<Connection, Error>> {
        Box::pin(async move {
            check_name(name)?;
            self.databases.create(Some(name), &config.clone().name(name)).await
        })
    }

    fn delete<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let connection = self.database(name).await?;
            self.databases.delete(connection.store_id()).await
        })
    }

    fn list(&self) -> BoxFuture<'_, Result<Vec<Value>, Error>> {
        Box::pin(async move {
            self.open_new().await;
            let served = self.databases.list().into_iter();
            Ok(served.map(|(name, id)| entry(name.as_deref(), id)).collect())
        })
    }
}

fn entry(name: Option<&str>, id: Uuid) -> Value {
    Value::map([
        (kw!("name").into(), name.map_or(Value::Nil, Value::from)),
        (kw!("id").into(), Value::Uuid(id)),
    ])
}

/// Where a database that a client creates is kept: under its name, or its id if it has none.
pub(super) fn place_in(
    data: PathBuf,
) -> impl Fn(Uuid, &Config) -> Result<StoreConfig, Error> + Send + Sync {
    move |id, config| {
        let folder = config.name.clone().unwrap_or_else(|| id.to_string());
        check_name(&folder)?;
        Ok(Config::file(data.join(folder)).store)
    }
}

/// A name must be the name of a folder and nothing else: no path leads out of the data folder.
fn check_name(name: &str) -> Result<(), Error> {
    let plain = Path::new(name).file_name().is_some_and(|file_name| file_name == name);
    let fits = name.len() <= NAME_BYTES_MAX && !name.starts_with('.');
    if plain && fits && !name.chars().any(|c| c.is_control() || c == '/' || c == '\\') {
        return Ok(());
    }
    let name: String = name.chars().take(40).collect();
    Err(Error::Unavailable {
        what: format!("a database named {name:?}"),
        hint: "use letters, digits, - and _, without slashes or a dot in front",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_lead_out_of_the_folder() {
        for good in ["cities", "a.b", "übung", "x y"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "../x", "a/b", "/etc", "a\\b", ".hidden", "a\0b", "a/", "./a"] {
            assert!(check_name(bad).is_err(), "{bad:?}");
        }
        assert!(check_name(&"x".repeat(300)).is_err());
    }
}
