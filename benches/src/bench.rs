//! What all workloads share: the cities, a database of them to copy, and a folder to work in.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use datahike::core::index::Index;
use datahike::{Config, Value, connect, edn, kw};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::cities::{self, City};
use crate::load;
use crate::measure::{copy_folder, disk_bytes};

/// The part of the cities that comes with the examples.
pub const SLICE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/data/cities.csv.gz");

/// Attributes of the small transactions.
const REVIEWS: &str = "
    [{:db/ident :review/by    :db/valueType :db.type/string :db/cardinality :db.cardinality/one}
     {:db/ident :review/stars :db/valueType :db.type/long   :db/cardinality :db.cardinality/one}
     {:db/ident :review/day   :db/valueType :db.type/long   :db/cardinality :db.cardinality/one}]";

/// The set-up of a run.
#[derive(Debug)]
pub struct Bench {
    /// Where the peers run.
    pub runtime: Runtime,
    /// All of them.
    pub cities: Vec<City>,
    /// Where they were read from.
    pub file: PathBuf,
    /// Rounds of each comparison.
    pub rounds: usize,
    /// Datoms in the database, those of the schema and the transactions included.
    pub datoms: u64,
    /// Bytes that it takes on disk, compacted.
    pub bytes: u64,
    folder: TempDir,
    next: AtomicUsize,
}

impl Bench {
    /// Reads the cities and makes the database.
    ///
    /// # Errors
    /// If the file cannot be read; what the database fails with.
    pub fn set_up(file: &Path, rounds: usize) -> anyhow::Result<Self> {
        let cities = cities::read(file)?;
        let runtime = Runtime::new().context("cannot start the runtime")?;
        let folder = TempDir::new()?;
        let mut bench = Self {
            runtime,
            cities,
            file: file.to_owned(),
            rounds: rounds.max(1),
            datoms: 0,
            bytes: 0,
            folder,
            next: AtomicUsize::new(0),
        };
        let base = bench.base();
        bench.datoms = bench.runtime.block_on(async {
            let config = load::load(&base, &bench.cities).await?;
            load::compacted(&config).await?;
            let connection = connect(&config).await?;
            let roots = *connection.db().indexes().roots();
            connection.release().await?;
            anyhow::Ok(roots.current[Index::Eavt.number()].map_or(0, |root| root.count))
        })?;
        bench.bytes = disk_bytes(&base)?;
        Ok(bench)
    }

    fn base(&self) -> PathBuf {
        self.folder.path().join("base")
    }

    /// Where all files of the run are: on one disk.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A path that nothing is at.
    pub fn fresh(&self, name: &str) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.folder.path().join(format!("{name}-{number}"))
    }

    /// A copy of the database, with nothing but the cities in it.
    ///
    /// # Errors
    /// What the file system says.
    pub fn copy(&self) -> anyhow::Result<PathBuf> {
        let path = self.fresh("copy");
        copy_folder(&self.base(), &path)?;
        Ok(path)
    }

    /// A copy of the database that knows the attributes of the small transactions.
    ///
    /// # Errors
    /// What the database fails with.
    pub fn copy_for_reviews(&self) -> anyhow::Result<PathBuf> {
        let path = self.copy()?;
        self.runtime.block_on(async {
            let connection = connect(&Config::file(&path)).await?;
            connection.transact(edn::read(REVIEWS)?).await?;
            connection.flush().await?;
            connection.release().await?;
            anyhow::Ok(())
        })?;
        Ok(path)
    }

    /// The `n`th small transaction: three datoms about a city somewhere, another one for each `n`
    /// up to the number of cities.
    pub fn review(&self, n: usize) -> Value {
        // A prime that does not divide the number of cities of either file.
        let city = &self.cities[n.wrapping_mul(7_919) % self.cities.len()];
        let lookup = Value::vector([kw!("city/geoname_id").into(), city.geoname_id.into()]);
        Value::vector([Value::map([
            (kw!("db/id").into(), lookup),
            (kw!("review/by").into(), ["ann", "bob", "eve", "joe"][n % 4].into()),
            (kw!("review/stars").into(), Value::Long(n as i64 % 5 + 1)),
            (kw!("review/day").into(), Value::Long(n as i64)),
        ])])
    }
}
