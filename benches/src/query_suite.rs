//! The query engine and the transactor in memory, against DataScript in Node and SQLite.

mod cities;
mod datascript;
mod people;
mod sql;

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::row::{Better, Row, median};

/// What one turn of a workload may take, at least one run of it aside.
const TURN: Duration = Duration::from_millis(60);
/// The same before the first turn, so that everything is cached and compiled.
const WARM_UP: Duration = Duration::from_millis(700);

/// Options of a run.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// Turns of each side.
    pub rounds: usize,
    /// The cities.
    pub cities: &'a Path,
    /// Only rows whose id begins with one of these, if there are any.
    pub only: &'a [String],
}

impl Options<'_> {
    fn wants(&self, id: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| id.starts_with(only.as_str()))
    }
}

/// Runs the workloads.
///
/// # Errors
/// The first error of a workload, of the cities, or of a peer that is not installed.
pub fn run(options: &Options<'_>) -> anyhow::Result<Vec<Row>> {
    let mut rows = datascript::run(options)?;
    rows.extend(sql::run(options)?);
    rows.extend(cities::run(options)?);
    Ok(rows)
}

/// Milliseconds of the median run within a turn, and what the last run found.
fn turn(
    budget: Duration,
    mut run: impl FnMut() -> anyhow::Result<usize>,
) -> anyhow::Result<(f64, usize)> {
    let end = Instant::now() + budget;
    let mut times = Vec::new();
    loop {
        let start = Instant::now();
        let found = black_box(run()?);
        times.push(start.elapsed().as_secs_f64() * 1e3);
        if Instant::now() >= end {
            return Ok((median(&times).unwrap_or_default(), found));
        }
    }
}

/// The row that says how much better ours is over all of these.
fn mean(id: &'static str, name: &str, rows: &[Row], target: f64) -> Option<Row> {
    let ratios: Vec<f64> = rows.iter().filter_map(|row| row.ratio).collect();
    if ratios.is_empty() {
        return None;
    }
    let mean = (ratios.iter().map(|ratio| ratio.ln()).sum::<f64>() / ratios.len() as f64).exp();
    Some(Row::bound(id, name, "times", Better::Higher, Some(mean), target))
}
