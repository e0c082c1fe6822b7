//! `datahike-benches SUITE`: prints a table, and writes its rows as JSON where it is told to.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use datahike_benches::bench::{Bench, SLICE};
use datahike_benches::probe::Probe;
use datahike_benches::{main_suite, query_suite, row};

/// That of the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
#[command(about = "Benchmarks, ours and the baselines in turns")]
struct Cli {
    #[command(subcommand)]
    suite: Suite,
}

#[derive(Subcommand)]
enum Suite {
    /// Speed and size of the main job: a server peer, its mirrors, its store
    Main(Options),
    /// Queries, rules, pulls and transactions in memory, against DataScript and SQLite
    Query(Options),
    /// One measurement in a process of its own
    #[command(subcommand, hide = true)]
    Probe(Probe),
}

#[derive(Args)]
struct Options {
    /// Also write the rows there, as a JSON array
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The cities, CSV or gzipped CSV; the slice that comes with the examples unless told
    #[arg(long, value_name = "FILE", env = "DATAHIKE_BENCH_CITIES")]
    cities: Option<PathBuf>,
    /// Rounds of each comparison
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only the workloads whose ids begin with one of these
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
}

fn main() -> anyhow::Result<ExitCode> {
    let suite = Cli::parse().suite;
    let for_queries = matches!(suite, Suite::Query(_));
    let options = match suite {
        Suite::Probe(probe) => {
            probe.run()?;
            return Ok(ExitCode::SUCCESS);
        }
        Suite::Main(options) | Suite::Query(options) => options,
    };
    if options.cities.is_none() {
        eprintln!("no --cities FILE: the slice of the examples is measured, not the full database");
    }
    let cities = options.cities.unwrap_or_else(|| SLICE.into());
    let rows = if for_queries {
        let (rounds, only) = (options.rounds.max(1), &options.only[..]);
        query_suite::run(&query_suite::Options { rounds, cities: &cities, only })?
    } else {
        main_suite::run(&Bench::set_up(&cities, options.rounds)?, &options.only)?
    };
    row::print_table(&rows);
    if let Some(path) = options.json {
        let text = serde_json::to_string_pretty(&rows)?;
        std::fs::write(&path, text + "\n")
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
