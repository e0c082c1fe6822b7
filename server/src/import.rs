//! `datahike import`: files into a database, in bulk.

pub(crate) mod columns;

mod csv;
mod edn;
mod json;
mod schema;
mod source;

use datahike::{BulkLoad, Config, Value, create_database, database_exists, kw};

use self::source::{Kind, Source};
use crate::cli::Import;
use crate::commands::make_parent;
use crate::failure::Failure;
use crate::output;
use crate::place::Place;

/// What was imported.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Imported {
    transactions: u64,
    datoms: u64,
}

impl Imported {
    fn add(&mut self, datoms: usize) {
        self.transactions += 1;
        self.datoms += datoms as u64;
    }
}

pub(crate) async fn run(args: Import) -> Result<(), Failure> {
    let Place::File(folder) = &args.target.db else {
        let text = format!("{}: import writes file: databases", args.target.db);
        return Err(Failure::usage(text).hint(
            "import into a folder of the server's data, which then serves it; or use transact",
        ));
    };
    let source = Source::of(&args.file)?;
    // What can be wrong with the file is found before a database is made for it.
    let plan = match source.kind {
        Kind::Csv => Plan::Csv(csv::plan(&source, &args)?),
        Kind::JsonLines => Plan::Json(json::plan(&source, &args)?),
        Kind::Edn => edn::plan(&source)?,
    };
    let config = plan.config(Config::file(folder));
    let is_new = !database_exists(&config).await?;
    if is_new {
        make_parent(folder)?;
        create_database(&config).await?;
    }
    let mut load = BulkLoad::open(&config).await?;
    let done = match plan {
        Plan::Csv(plan) => csv::load(&mut load, &source, plan, &args).await,
        Plan::Json(plan) => json::load(&mut load, &source, plan, &args).await,
        Plan::Transactions => edn::load(&mut load, &source, &args).await,
        Plan::Export(datoms) => edn::restore(&mut load, datoms).await,
    };
    // What was committed before a failure stays: the indexes are written out for it too.
    let finished = load.finish().await;
    let done = done?;
    finished?;
    let long = |n: u64| Value::Long(i64::try_from(n).unwrap_or(i64::MAX));
    output::line(Value::map([
        (kw!("transactions").into(), long(done.transactions)),
        (kw!("datoms").into(), long(done.datoms)),
    ]))
}

/// What the first look at the file found.
enum Plan {
    Csv(csv::Plan),
    Json(json::Plan),
    Transactions,
    Export(edn::Export),
}

impl Plan {
    /// The configuration of a database that is made for the file.
    fn config(&self, config: Config) -> Config {
        match self {
            Self::Export(export) => export.config(config),
            _ => config,
        }
    }
}
