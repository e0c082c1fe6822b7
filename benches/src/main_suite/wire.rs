//! What a small transaction costs on the way to a mirror that is up to date.

use std::time::Duration;

use anyhow::Context;
use tokio::time::timeout;

use crate::bench::Bench;
use crate::peers::{Caller, Patched, Server};
use crate::row::{Better, Row};

/// Transactions over which the bytes are averaged; enough for the indexes to be written out in
/// between, and they are once more at the end.
const TRANSACTIONS: usize = 10_000;

const PATIENCE: Duration = Duration::from_secs(60);

pub(super) fn full(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let store = bench.copy_for_reviews()?;
    let bytes = bench.runtime.block_on(async {
        let server = Server::start(&store, None).await?;
        let caller = Caller::dial(&server).await?;
        let mirrored = caller.mirror(&server, &bench.fresh("mirror")).await?;
        let mirror = mirrored.mirror_handle().context("it is a mirror")?;
        let before = caller.received()?;
        for n in 0..TRANSACTIONS {
            let report = server.served.transact(bench.review(n)).await?;
            timeout(PATIENCE, mirrored.sync(report.tx)).await??;
        }
        flushed(&server, mirror).await?;
        let bytes = caller.received()? - before;
        mirrored.release().await?;
        caller.stop().await;
        server.stop().await?;
        anyhow::Ok(bytes as f64 / TRANSACTIONS as f64)
    })?;
    let name = "3-datom transaction to a full mirror";
    Ok(vec![Row::bound("wire-full", name, "B", Better::Lower, Some(bytes), 120.0)])
}

pub(super) fn patches(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let store = bench.copy_for_reviews()?;
    let bytes = bench.runtime.block_on(async {
        let server = Server::start(&store, None).await?;
        let patched = Patched::start(&server, &bench.fresh("mirror")).await?;
        let before = patched.received()?;
        for n in 0..TRANSACTIONS {
            server.served.transact(bench.review(n)).await?;
            let seq = server.served.snapshot().at.seq;
            timeout(PATIENCE, patched.mirror.reached(seq)).await??;
        }
        flushed(&server, &patched.mirror).await?;
        let bytes = patched.received()? - before;
        patched.stop().await?;
        server.stop().await?;
        anyhow::Ok(bytes as f64 / TRANSACTIONS as f64)
    })?;
    let name = "the same to a mirror that takes patches";
    Ok(vec![Row::bound("wire-patches", name, "B", Better::Lower, Some(bytes), 450.0)])
}

/// Writes out the indexes at the server and waits until the mirror has done so too.
async fn flushed(server: &Server, mirror: &datahike_sync::Mirror) -> anyhow::Result<()> {
    server.served.flush().await?;
    let expected = server.served.snapshot().head.flush_record;
    let mut states = mirror.states();
    let there = states.wait_for(|s| s.head.is_some_and(|head| head.flush.address.0 == expected.0));
    timeout(PATIENCE, there).await.context("the mirror did not follow the flush")??;
    Ok(())
}
