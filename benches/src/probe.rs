//! Measurements that need a process of their own: this program runs itself again for them.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, bail};
use clap::Subcommand;
use datahike::config::WriterConfig;
use datahike::core::index::{Index, Range};
use datahike::{Config, Connection, Value, connect};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::baseline::sqlite;
use crate::measure::resident_bytes;
use crate::peers::Server;
use crate::{cities, load};

const LOOK_UP: &str =
    "[:find ?name . :in $ ?id :where [?city :city/geoname_id ?id] [?city :city/name ?name]]";

/// What such a process does.
#[derive(Clone, Debug, Subcommand)]
pub enum Probe {
    /// Opens a database and asks for a city
    Open {
        /// Folder of the store
        store: PathBuf,
        /// The city
        geoname_id: i64,
    },
    /// The same with SQLite
    OpenSqlite {
        /// Database file
        file: PathBuf,
        /// The city
        geoname_id: i64,
    },
    /// Serves a database, reads all of it, and looks at its own memory
    Serve {
        /// Folder of the store; made of the cities if there is none
        store: PathBuf,
        /// Decoded blocks that the cache may hold
        #[arg(long)]
        cache: Option<usize>,
        /// Load these cities first
        #[arg(long)]
        cities: Option<PathBuf>,
    },
}

/// What [`Probe::Open`] and its baseline found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Opened {
    /// The city's name.
    pub name: String,
    /// From before opening to the answer.
    pub seconds: f64,
    /// Blocks that were read.
    pub blocks: u64,
}

/// What [`Probe::Serve`] found.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Served {
    /// Memory of the process.
    pub resident: u64,
    /// Of that before the database was opened.
    pub before: u64,
    /// Bytes of decoded blocks in the cache.
    pub cached: u64,
}

impl Probe {
    /// Does it, and prints what it found.
    ///
    /// # Errors
    /// What the database fails with.
    pub fn run(self) -> anyhow::Result<()> {
        let found = match self {
            Self::Open { store, geoname_id } => serde_json::to_string(&open(store, geoname_id)?)?,
            Self::OpenSqlite { file, geoname_id } => {
                let start = Instant::now();
                let name = sqlite::open_and_look_up(&file, geoname_id)?;
                let seconds = start.elapsed().as_secs_f64();
                serde_json::to_string(&Opened { name, seconds, blocks: 0 })?
            }
            Self::Serve { store, cache, cities } => {
                let runtime = tokio::runtime::Runtime::new()?;
                let served = runtime.block_on(serve(store, cache, cities))?;
                serde_json::to_string(&served)?
            }
        };
        println!("{found}");
        Ok(())
    }

    /// Does it in a new process.
    ///
    /// # Errors
    /// If that cannot be started or fails.
    pub fn spawn<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("probe");
        match self {
            Self::Open { store, geoname_id } => {
                command.arg("open").arg(store).arg(geoname_id.to_string())
            }
            Self::OpenSqlite { file, geoname_id } => {
                command.arg("open-sqlite").arg(file).arg(geoname_id.to_string())
            }
            Self::Serve { store, cache, cities } => {
                command.arg("serve").arg(store);
                if let Some(cache) = cache {
                    command.args(["--cache", &cache.to_string()]);
                }
                if let Some(cities) = cities {
                    command.arg("--cities").arg(cities);
                }
                &mut command
            }
        };
        let output = command.output().context("cannot start this program again")?;
        if !output.status.success() {
            bail!("{self:?} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

fn open(store: PathBuf, geoname_id: i64) -> anyhow::Result<Opened> {
    let start = Instant::now();
    let config = Config::file(store).writer(WriterConfig::ReadOnly);
    let connection = futures::executor::block_on(connect(&config))?;
    let name = connection.q(LOOK_UP, &[geoname_id.into()])?.into_value();
    let seconds = start.elapsed().as_secs_f64();
    let Value::Str(name) = name else { bail!("no city {geoname_id}: {name}") };
    // The flush record and the remembered requests are blocks too, but no index nodes.
    let blocks = connection.branch().blocks().reads() + 2;
    Ok(Opened { name: name.to_string(), seconds, blocks })
}

async fn serve(
    store: PathBuf,
    cache: Option<usize>,
    cities: Option<PathBuf>,
) -> anyhow::Result<Served> {
    let before = resident_bytes()?;
    if let Some(cities) = cities {
        load::load(&store, &cities::read(&cities)?).await?;
    }
    let server = Server::start(&store, cache).await?;
    read_all(&server.served)?;
    let resident = resident_bytes()?;
    let cached = server.served.branch().blocks().cached_bytes();
    server.stop().await?;
    Ok(Served { resident, before, cached })
}

/// Reads every datom of every index.
///
/// # Errors
/// What is wrong with a block.
pub fn read_all(connection: &Connection) -> anyhow::Result<u64> {
    let db = connection.db();
    let mut rows = 0;
    for index in Index::ALL {
        rows += connection.settle_now::<u64, datahike::core::block::Missing>(|| {
            db.indexes().scan(&Range::all(index)).map(|slice| Ok(slice?.iter().len() as u64)).sum()
        })?;
    }
    Ok(rows)
}
