//! How long until another peer sees a transaction.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use datahike::{Connection, TxEvent, TxReports, Value};
use tokio::time::timeout;

use crate::baseline::hops;
use crate::bench::Bench;
use crate::measure::quantile;
use crate::peers::{Caller, Server};
use crate::row::{Better, Row, Samples};

/// Transactions of one turn. Turns are short and many: how long a sync of the disk takes changes from
/// second to second on a shared machine.
const TRANSACTIONS: usize = 50;

/// Turns for each round of other workloads.
const TURNS: usize = 8;

/// Of the first round, before anything is counted.
const WARM_UP: usize = 50;

const PATIENCE: Duration = Duration::from_secs(10);

pub(super) fn visible(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let store = bench.copy_for_reviews()?;
    let runtime = &bench.runtime;
    let (server, callers, first, second) = runtime.block_on(async {
        let server = Server::start(&store, None).await?;
        let callers = [Caller::dial(&server).await?, Caller::dial(&server).await?];
        let first = callers[0].mirror(&server, &bench.fresh("mirror")).await?;
        let second = callers[1].mirror(&server, &bench.fresh("mirror")).await?;
        anyhow::Ok((server, callers, first, second))
    })?;
    let mut next = 0;
    // In a task, as an application has it: the thread of `block_on` would be one more to wake.
    let mut round = |times: usize| {
        let transactions: Vec<Value> = (next..next + times).map(|n| bench.review(n)).collect();
        next += times;
        let (first, mut reports) = (first.clone(), second.tx_reports());
        let taken = runtime.spawn(async move {
            let mut taken = Vec::with_capacity(times);
            for data in transactions {
                taken.push(one(data, &first, &mut reports).await?);
            }
            anyhow::Ok(taken)
        });
        runtime.block_on(taken)?
    };
    round(WARM_UP)?;
    let (mut all, mut all_bare) = (Vec::new(), Vec::new());
    let samples = Samples::interleave(
        bench.rounds * TURNS,
        |_| {
            let taken = round(TRANSACTIONS)?;
            all.extend_from_slice(&taken);
            Ok(quantile(&taken, 0.5).as_secs_f64() * 1e6)
        },
        |_| {
            let taken = hops::durable_relay(bench.folder(), TRANSACTIONS)?;
            all_bare.extend_from_slice(&taken);
            Ok(quantile(&taken, 0.5).as_secs_f64() * 1e6)
        },
    )?;
    println!(
        "  transact to visible, p99: {:.0} µs; the bare relay: {:.0} µs",
        quantile(&all, 0.99).as_secs_f64() * 1e6,
        quantile(&all_bare, 0.99).as_secs_f64() * 1e6
    );
    runtime.block_on(async {
        first.release().await?;
        second.release().await?;
        for caller in callers {
            caller.stop().await;
        }
        server.stop().await
    })?;
    let name = "transact to visible at the other peer, durable";
    let against = "fdatasync and two bare WebSocket hops";
    Ok(vec![Row::compare("visible", name, "µs", Better::Lower, &samples, against, 1.0 / 1.5)])
}

/// From the call at the first client to the transaction in the second one's `db()`.
async fn one(data: Value, first: &Connection, reports: &mut TxReports) -> anyhow::Result<Duration> {
    let start = Instant::now();
    let seen = async {
        let event = timeout(PATIENCE, reports.next()).await?.context("the mirror ended")?;
        anyhow::Ok((event, start.elapsed()))
    };
    let transact = async { Ok(first.transact(data).await?) };
    let ((event, taken), report) = tokio::try_join!(seen, transact)?;
    match event {
        TxEvent::Report(seen) if seen.tx == report.tx => Ok(taken),
        other => bail!("expected transaction {}, saw {other:?}", report.tx),
    }
}
