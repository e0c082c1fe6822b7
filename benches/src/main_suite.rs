//! The main job: a server peer owns a database, mirrors follow it.

mod catch_up;
mod commits;
mod latency;
mod mirroring;
mod store;
mod wire;

use std::time::Instant;

use crate::bench::Bench;
use crate::row::Row;

type Workload = fn(&Bench) -> anyhow::Result<Vec<Row>>;

/// Ids of the rows that a workload gives, and the workload.
const WORKLOADS: &[(&[&str], Workload)] = &[
    (&["wire-full"], wire::full),
    (&["wire-patches"], wire::patches),
    (&["visible"], latency::visible),
    (&["mirror-bytes", "mirror-time"], mirroring::fresh),
    (&["catch-up"], catch_up::entities),
    (&["commits-1"], commits::one),
    (&["commits-64"], commits::many),
    (&["commits-ws-64"], commits::over_sockets),
    (&["import"], store::import),
    (&["disk"], store::disk),
    (&["flush-cpu"], store::flush),
    (&["open-blocks", "open-time"], store::open),
    (&["memory", "memory-bound"], store::memory),
];

/// Runs the workloads of which a row's id begins with one of `only`, or all.
///
/// # Errors
/// The first error of a workload.
pub fn run(bench: &Bench, only: &[String]) -> anyhow::Result<Vec<Row>> {
    println!(
        "{} cities of {}: {} datoms, {} rounds",
        bench.cities.len(),
        bench.file.display(),
        bench.datoms,
        bench.rounds
    );
    let wanted = |id: &str| only.is_empty() || only.iter().any(|o| id.starts_with(o.as_str()));
    let mut rows = Vec::new();
    for (ids, workload) in WORKLOADS {
        if !ids.iter().any(|id| wanted(id)) {
            continue;
        }
        let start = Instant::now();
        rows.extend(workload(bench)?.into_iter().filter(|row| wanted(row.id)));
        println!("  {} took {:.1} s", ids.join(", "), start.elapsed().as_secs_f64());
    }
    Ok(rows)
}
