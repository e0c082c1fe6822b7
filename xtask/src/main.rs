//! Development commands: `cargo xtask check | test | bench | wasm | web`.

mod node;
mod step;
mod tasks;
mod web;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Development commands of this workspace")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Formatting, lints, documentation, dependency rules, and the wasm32 build
    Check,
    /// Every test of the workspace and the wasm32 build; sets up what it needs
    Test {
        /// More cases and more seeds: an hour rather than minutes
        #[arg(long)]
        long: bool,
    },
    /// A benchmark suite, ours and the baselines interleaved
    Bench {
        /// The suite, `main` or `query`
        suite: String,
        /// Also write the results there
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
    },
    /// Compiles every crate that runs in browsers for wasm32-unknown-unknown
    Wasm,
    /// Makes the package for browsers and Node, in `web/dist`
    Web,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Check => tasks::check(),
        Command::Test { long } => tasks::test(long),
        Command::Bench { suite, json } => tasks::bench(&suite, json.as_deref()),
        Command::Wasm => tasks::wasm(),
        Command::Web => tasks::web(),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}
