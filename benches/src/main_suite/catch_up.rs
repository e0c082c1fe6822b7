//! Coming back after a hundredth of the entities changed.

use std::collections::HashMap;

use datahike::core::block::{Address, children};
use datahike::core::datom::{AttrId, Datom};
use datahike::core::index::{AttrTraits, Index, Indexes, Params};
use datahike::{Value, kw};

use crate::bench::Bench;
use crate::peers::{Caller, Server};
use crate::row::{Better, Row};

/// Entities that a transaction changes, where they are changed in bulk.
const AT_ONCE: usize = 100;

pub(super) fn entities(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let (bulk, bulk_bound) = measure(bench, AT_ONCE)?;
    println!("  catch-up, {AT_ONCE} entities a transaction: {bulk} B, bound {bulk_bound} B");
    let (bytes, bound) = measure(bench, 1)?;
    let name = "catch-up after 1 % of the entities changed, one by one";
    let (bytes, bound) = (Some(bytes as f64), bound as f64);
    Ok(vec![Row::bound("catch-up", name, "B", Better::Lower, bytes, bound)])
}

/// Bytes received, and twice what the changed datoms take as one run of EAVT leaves.
fn measure(bench: &Bench, at_once: usize) -> anyhow::Result<(u64, u64)> {
    let store = bench.copy()?;
    let changed: Vec<_> = bench.cities.iter().step_by(100).collect();
    bench.runtime.block_on(async {
        let server = Server::start(&store, None).await?;
        let folder = bench.fresh("mirror");
        let caller = Caller::dial(&server).await?;
        caller.mirror(&server, &folder).await?.release().await?;
        caller.stop().await;

        let mut datoms: Vec<Datom> = Vec::new();
        for some in changed.chunks(at_once) {
            let data = some.iter().map(|city| {
                let id = city.geoname_id.into();
                let lookup = Value::vector([kw!("city/geoname_id").into(), id]);
                Value::map([
                    (kw!("db/id").into(), lookup),
                    // No two are alike, and none follows from the old one.
                    (
                        kw!("city/population").into(),
                        Value::Long(city.geoname_id * 7_919 % 1_000_003),
                    ),
                ])
            });
            let report = server.served.transact(Value::vector(data)).await?;
            datoms.extend(report.tx_data.iter().cloned());
        }

        let caller = Caller::dial(&server).await?;
        let before = caller.received()?;
        let mirrored = caller.mirror(&server, &folder).await?;
        mirrored.sync(server.served.db().max_tx()).await?;
        let bytes = caller.received()? - before;
        mirrored.release().await?;
        caller.stop().await;
        server.stop().await?;
        Ok((bytes, 2 * as_leaves(&datoms)?))
    })
}

struct EavtAlone;

impl AttrTraits for EavtAlone {
    fn avet(&self, _: AttrId) -> bool {
        false
    }

    fn history(&self, _: AttrId) -> bool {
        false
    }
}

/// Bytes of an EAVT tree of these datoms.
fn as_leaves(datoms: &[Datom]) -> anyhow::Result<u64> {
    let asserted: Vec<_> = datoms.iter().map(|d| Datom { added: true, ..d.clone() }).collect();
    let indexes = Indexes::empty(Params::default(), false).apply(&asserted, &EavtAlone);
    let flushed = indexes.flush()?;
    let blocks: HashMap<Address, Vec<u8>> = flushed.blocks.into_iter().collect();
    let mut waiting: Vec<Address> =
        flushed.roots.current[Index::Eavt.number()].iter().map(|root| root.address).collect();
    let mut bytes = 0;
    while let Some(address) = waiting.pop() {
        if let Some(block) = blocks.get(&address) {
            bytes += block.len() as u64;
            waiting.extend(children(block)?);
        }
    }
    Ok(bytes)
}
