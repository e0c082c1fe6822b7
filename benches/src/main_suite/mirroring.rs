//! A full mirror from nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, ensure};
use datahike::commit::FlushRecord;
use datahike::core::block::{Address, BlockSource};
use datahike::core::index::{Node, derive};
use datahike::mirror::BranchSource;
use datahike_sync::source::Source;

use crate::bench::Bench;
use crate::peers::{Caller, Server};
use crate::probe::read_all;
use crate::row::{Better, Row, Samples, median};

pub(super) fn fresh(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let store = bench.copy()?;
    let runtime = &bench.runtime;
    let server = runtime.block_on(Server::start(&store, None))?;
    let seeds = runtime.block_on(seeds(&server))?;
    let expected = read_all(&server.served)?;
    let mut bytes = Vec::new();
    let samples = Samples::interleave(
        bench.rounds,
        |_| {
            runtime.block_on(async {
                let folder = bench.fresh("mirror");
                let start = Instant::now();
                let caller = Caller::dial(&server).await?;
                let mirrored = caller.mirror(&server, &folder).await?;
                let taken = start.elapsed();
                bytes.push(caller.received()? as f64 / bench.datoms as f64);
                ensure!(read_all(&mirrored)? == expected, "the mirror lacks datoms");
                mirrored.release().await?;
                caller.stop().await;
                std::fs::remove_dir_all(folder)?;
                Ok(taken.as_secs_f64() * 1e3)
            })
        },
        |_| {
            let start = Instant::now();
            build_locally(&seeds)?;
            Ok(start.elapsed().as_secs_f64() * 1e3)
        },
    )?;
    runtime.block_on(server.stop())?;
    let size = Row::bound(
        "mirror-bytes",
        "full mirror of the fresh database, per datom",
        "B",
        Better::Lower,
        median(&bytes),
        3.5,
    );
    let name = "full mirror of the fresh database, time";
    let against = "decoding, verifying, building from the same bytes";
    let time = Row::compare("mirror-time", name, "ms", Better::Lower, &samples, against, 1.0 / 1.5);
    Ok(vec![size, time])
}

/// What a mirror begins with: the flush record, and the blocks of EAVT.
async fn seeds(server: &Server) -> anyhow::Result<Vec<(Address, bytes::Bytes)>> {
    let source = BranchSource::new(server.served.branch().clone());
    let flush = source.state().await?.head.flush;
    let seeds = source.seeds(&flush).await?.context("the flush is there")?;
    let blocks = source.blocks(&seeds.addresses, usize::MAX).await?;
    seeds
        .addresses
        .iter()
        .zip(blocks)
        .map(|(address, block)| Ok((Address(address.0), block.context("the block is there")?)))
        .collect()
}

#[derive(Debug)]
struct InMemory(HashMap<Address, Arc<Node>>);

impl BlockSource for InMemory {
    fn node(&self, address: &Address) -> Option<Arc<Node>> {
        self.0.get(address).cloned()
    }
}

fn build_locally(seeds: &[(Address, bytes::Bytes)]) -> anyhow::Result<()> {
    let ((_, record), blocks) = seeds.split_first().context("a flush record comes first")?;
    let record = FlushRecord::decode(record)?;
    let mut nodes = HashMap::new();
    for (address, bytes) in blocks {
        ensure!(Address::of(bytes) == *address, "a block is damaged");
        nodes.insert(*address, Arc::new(Node::decode(bytes)?));
    }
    derive(record.config.params, &record.roots, &InMemory(nodes), &record.schema)?;
    Ok(())
}
