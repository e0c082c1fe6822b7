//! Durable commits a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use datahike::{Config, Connection, Value, connect, kw};
use futures::future::try_join_all;

use crate::baseline::fsync;
use crate::bench::Bench;
use crate::peers::{Caller, Server};
use crate::row::{Better, Row, Samples};

const CALLERS: usize = 64;

/// Commits of one turn by one caller, and durable writes of a turn of the baseline. Turns are short and
/// many: how long a sync of the disk takes changes from second to second on a shared machine.
const ALONE: usize = 150;

/// Turns for each round of other workloads.
const TURNS: usize = 8;

/// Transactions of each of many callers in one turn.
const EACH: usize = 50;

const BASELINE: &str = "bare fdatasync of 200 B";

pub(super) fn one(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let store = bench.copy_for_reviews()?;
    let runtime = &bench.runtime;
    let connection = runtime.block_on(connect(&Config::file(&store)))?;
    let next = AtomicUsize::new(0);
    let samples = in_turns(bench, || {
        runtime.block_on(async {
            let start = Instant::now();
            transact(bench, &connection, &next, ALONE).await?;
            Ok(ALONE as f64 / start.elapsed().as_secs_f64())
        })
    })?;
    runtime.block_on(connection.release())?;
    let name = "durable commits, one caller in process";
    Ok(vec![Row::compare("commits-1", name, "1/s", Better::Higher, &samples, BASELINE, 0.7)])
}

pub(super) fn many(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let store = bench.copy_for_reviews()?;
    let runtime = &bench.runtime;
    let connection = runtime.block_on(connect(&Config::file(&store)))?;
    let next = AtomicUsize::new(0);
    let samples = in_turns(bench, || {
        runtime.block_on(async {
            let start = Instant::now();
            try_join_all((0..CALLERS).map(|_| transact(bench, &connection, &next, EACH))).await?;
            Ok((CALLERS * EACH) as f64 / start.elapsed().as_secs_f64())
        })
    })?;
    runtime.block_on(connection.release())?;
    let name = "durable commits, 64 callers in process";
    Ok(vec![Row::compare("commits-64", name, "1/s", Better::Higher, &samples, BASELINE, 8.0)])
}

async fn transact(
    bench: &Bench,
    connection: &Connection,
    next: &AtomicUsize,
    times: usize,
) -> anyhow::Result<()> {
    for _ in 0..times {
        connection.transact(bench.review(next.fetch_add(1, Ordering::Relaxed))).await?;
    }
    Ok(())
}

/// Each caller is a peer with a WebSocket of its own, and no mirror.
pub(super) fn over_sockets(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let store = bench.copy_for_reviews()?;
    let runtime = &bench.runtime;
    let (server, callers) = runtime.block_on(async {
        let server = Server::start(&store, None).await?;
        let mut callers = Vec::new();
        for _ in 0..CALLERS {
            callers.push(Arc::new(Caller::dial(&server).await?));
        }
        anyhow::Ok((server, callers))
    })?;
    let next = Arc::new(AtomicUsize::new(0));
    let samples = in_turns(bench, || {
        runtime.block_on(async {
            let requests: Vec<Vec<Value>> = callers
                .iter()
                .map(|_| (0..EACH).map(|_| request(bench, &next)).collect())
                .collect();
            let start = Instant::now();
            let calls = callers.iter().cloned().zip(requests).map(|(caller, requests)| {
                tokio::spawn(async move {
                    for request in requests {
                        caller.remote.invoke("datahike/transact", request).await?;
                    }
                    anyhow::Ok(())
                })
            });
            for done in try_join_all(calls).await? {
                done?;
            }
            Ok((CALLERS * EACH) as f64 / start.elapsed().as_secs_f64())
        })
    })?;
    runtime.block_on(async {
        for caller in callers {
            if let Ok(caller) = Arc::try_unwrap(caller) {
                caller.stop().await;
            }
        }
        server.stop().await
    })?;
    let name = "durable commits, 64 callers over WebSocket";
    Ok(vec![Row::compare("commits-ws-64", name, "1/s", Better::Higher, &samples, BASELINE, 4.0)])
}

fn request(bench: &Bench, next: &AtomicUsize) -> Value {
    Value::map([
        (kw!("db").into(), "cities".into()),
        (kw!("branch").into(), Config::BRANCH.into()),
        (kw!("tx-data").into(), bench.review(next.fetch_add(1, Ordering::Relaxed))),
    ])
}

fn in_turns(
    bench: &Bench,
    mut ours: impl FnMut() -> anyhow::Result<f64>,
) -> anyhow::Result<Samples> {
    Samples::interleave(bench.rounds * TURNS, |_| ours(), |_| fsync::rate(bench.folder(), ALONE))
}
