//! Measures a bulk load step by step: `import_figures FILE.csv`. One entity per row, one datom per
//! cell that is not empty; the first column is unique.

use std::error::Error;
use std::time::Instant;

use datahike::{BulkLoad, Config, Keyword, Value, create_database, edn};

/// Entities per transaction.
const BATCH: usize = 5_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: import_figures FILE.csv")?;
    let folder = tempfile::tempdir()?;
    let config = Config::file(folder.path().join("db"));
    create_database(&config).await?;

    let all = Step::start();
    let step = Step::start();
    let rows = rows(&path)?;
    step.done("read the file");

    let mut load = BulkLoad::open(&config).await?;
    load.transact(&edn::read(SCHEMA)?).await?;
    let (mut transacting, mut committing) = (0.0, 0.0);
    let mut datoms = 0;
    for some in rows.chunks(BATCH) {
        let batch = Value::vector(some.iter().cloned());
        let step = Step::start();
        datoms += load.transact(&batch).await?.tx_data.len();
        transacting += step.ms();
        let step = Step::start();
        load.commit().await?;
        committing += step.ms();
    }
    println!("transact:                {transacting:8.1} ms, {datoms} datoms");
    println!("commit to the log:       {committing:8.1} ms");
    let step = Step::start();
    load.finish().await?;
    step.done("flush");
    all.done("all of it");
    Ok(())
}

const SCHEMA: &str = "
    [{:db/ident :city/geoname_id   :db/valueType :db.type/long   :db/cardinality :db.cardinality/one
      :db/unique :db.unique/identity}
     {:db/ident :city/name         :db/valueType :db.type/string :db/cardinality :db.cardinality/one}
     {:db/ident :city/country      :db/valueType :db.type/string :db/cardinality :db.cardinality/one}
     {:db/ident :city/admin_code   :db/valueType :db.type/string :db/cardinality :db.cardinality/one}
     {:db/ident :city/feature_code :db/valueType :db.type/string :db/cardinality :db.cardinality/one}
     {:db/ident :city/population   :db/valueType :db.type/long   :db/cardinality :db.cardinality/one}
     {:db/ident :city/lon          :db/valueType :db.type/double :db/cardinality :db.cardinality/one}
     {:db/ident :city/lat          :db/valueType :db.type/double :db/cardinality :db.cardinality/one}]";

fn rows(path: &str) -> Result<Vec<Value>, Box<dyn Error>> {
    let mut table = csv::Reader::from_path(path)?;
    let columns: Vec<Keyword> =
        table.headers()?.iter().map(|name| Keyword::parse(&format!("city/{name}"))).collect();
    let mut rows = Vec::new();
    let mut record = csv::StringRecord::new();
    while table.read_record(&mut record)? {
        let mut entries = Vec::with_capacity(columns.len());
        for (at, (column, cell)) in columns.iter().zip(&record).enumerate() {
            let value = match at {
                _ if cell.is_empty() => continue,
                0 | 5 => Value::Long(cell.parse()?),
                6 | 7 => Value::Double(cell.parse()?),
                _ => Value::from(cell),
            };
            entries.push((Value::from(column.clone()), value));
        }
        rows.push(Value::map(entries));
    }
    Ok(rows)
}

/// A stretch of work, in milliseconds: of CPU where the system tells, so that neighbours do not
/// count.
struct Step {
    start: Instant,
    cpu: Option<f64>,
}

impl Step {
    fn start() -> Self {
        Self { start: Instant::now(), cpu: cpu_ms() }
    }

    fn ms(&self) -> f64 {
        let wall = self.start.elapsed().as_secs_f64() * 1e3;
        self.cpu.zip(cpu_ms()).map_or(wall, |(start, end)| end - start)
    }

    fn done(&self, what: &str) {
        let wall = self.start.elapsed().as_secs_f64() * 1e3;
        println!("{:<24} {:8.1} ms of {wall:.1}", format!("{what}:"), self.ms());
    }
}

/// CPU of this thread so far.
fn cpu_ms() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(stat.split(' ').next()?.parse::<f64>().ok()? / 1e6)
}
