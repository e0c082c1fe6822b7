//! Loading, writing out, opening and holding a database.

use std::time::Instant;

use anyhow::{Context, ensure};
use datahike::core::tx::TxOptions;
use datahike::{Config, connect};

use crate::baseline::sqlite;
use crate::bench::Bench;
use crate::load;
use crate::measure::process_cpu;
use crate::probe::{Opened, Probe, Served, read_all};
use crate::row::{Better, Row, Samples, median};

/// Small transactions that are written out at once.
const SCATTERED: usize = 10_000;

/// Openings of a database for each round of other workloads: one takes a few milliseconds.
const OPENINGS: usize = 5;

/// Blocks that the small cache may hold, and their bytes.
const SMALL_CACHE: usize = 200;
const SMALL_CACHE_BYTES: f64 = 2e6;

/// Rows in memory to durable indexes. Both sides refuse a city whose number is there already. We
/// check besides that every value is of its attribute's type, hash what is written, and keep the
/// log of the transactions; SQLite keeps all of its orders up with every batch.
pub(super) fn import(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let facts: usize = bench
        .cities
        .iter()
        .map(|city| {
            6 + usize::from(city.admin_code.is_some()) + usize::from(city.feature_code.is_some())
        })
        .sum();
    let samples = Samples::interleave(
        bench.rounds,
        |_| {
            let folder = bench.fresh("import");
            let start = Instant::now();
            bench.runtime.block_on(load::load(&folder, &bench.cities))?;
            let rate = facts as f64 / start.elapsed().as_secs_f64();
            std::fs::remove_dir_all(folder)?;
            Ok(rate)
        },
        |_| {
            let folder = bench.fresh("sqlite");
            std::fs::create_dir(&folder)?;
            let start = Instant::now();
            let connection = sqlite::load(&folder.join("facts.db"), &bench.cities)?;
            let rate = facts as f64 / start.elapsed().as_secs_f64();
            drop(connection);
            std::fs::remove_dir_all(folder)?;
            Ok(rate)
        },
    )?;
    let folder = bench.fresh("import");
    let start = Instant::now();
    bench.runtime.block_on(load::transact(&folder, &bench.cities))?;
    let rate = facts as f64 / start.elapsed().as_secs_f64();
    std::fs::remove_dir_all(folder)?;
    println!("  imported by transactions of maps: {rate:.0} datoms/s");
    let name = "bulk import of a table into the file store";
    let against = "SQLite, WAL, same facts and orders";
    Ok(vec![Row::compare("import", name, "datoms/s", Better::Higher, &samples, against, 2.0)])
}

pub(super) fn disk(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let bytes = bench.bytes as f64 / bench.datoms as f64;
    let name = "store on disk after import and compact, per datom";
    Ok(vec![Row::bound("disk", name, "B", Better::Lower, Some(bytes), 8.0)])
}

pub(super) fn flush(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let store = bench.copy_for_reviews()?;
    let connection = bench.runtime.block_on(connect(&Config::file(&store)))?;
    read_all(&connection)?;
    let mut db = connection.db();
    for n in 0..SCATTERED {
        let options = TxOptions::at(1_800_000_000_000 + n as i64);
        let data = bench.review(n);
        db = connection.settle_now(|| db.with(&data, &options))?.db_after;
    }
    let mut taken = Vec::new();
    for _ in 0..bench.rounds {
        // A snapshot of its own each time, so that nothing is left over from the round before.
        let indexes = db.indexes().clone();
        let start = process_cpu();
        let flushed = connection.settle_now(|| indexes.flush())?;
        taken.push((process_cpu() - start).as_secs_f64());
        ensure!(flushed.indexes.tail_len() == 0, "the tail was not written out");
    }
    bench.runtime.block_on(connection.release())?;
    let name = "flush of 10,000 scattered small transactions, CPU";
    Ok(vec![Row::bound("flush-cpu", name, "s", Better::Lower, median(&taken), 0.4)])
}

pub(super) fn open(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let store = bench.copy()?;
    let file = bench.fresh("sqlite");
    drop(sqlite::load(&file, &bench.cities)?);
    let city = bench.cities.get(bench.cities.len() / 2).context("no cities")?;
    let mut blocks = Vec::new();
    let run = |probe: Probe| {
        let opened: Opened = probe.spawn()?;
        ensure!(opened.name == city.name, "found {} instead of {}", opened.name, city.name);
        Ok(opened)
    };
    let samples = {
        let (mut ours, mut baseline) = (Vec::new(), Vec::new());
        for _ in 0..bench.rounds * OPENINGS {
            let geoname_id = city.geoname_id;
            let opened = run(Probe::Open { store: store.clone(), geoname_id })?;
            blocks.push(opened.blocks as f64);
            ours.push(opened.seconds * 1e3);
            let opened = run(Probe::OpenSqlite { file: file.clone(), geoname_id })?;
            baseline.push(opened.seconds * 1e3);
        }
        Samples { ours, baseline }
    };
    let read = Row::bound(
        "open-blocks",
        "cold open and first point query, blocks read",
        "blocks",
        Better::Lower,
        median(&blocks),
        10.0,
    );
    let name = "cold open and first point query, new process";
    let against = "SQLite open and point query";
    let time = Row::compare("open-time", name, "ms", Better::Lower, &samples, against, 0.5);
    Ok(vec![read, time])
}

pub(super) fn memory(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let store = bench.copy()?;
    let serve =
        |cache| Probe::Serve { store: store.clone(), cache, cities: None }.spawn::<Served>();
    let (mut resident, mut cached, mut small) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let served = serve(None)?;
        resident.push(served.resident as f64 / bench.datoms as f64);
        let served = serve(Some(SMALL_CACHE))?;
        cached.push(served.cached as f64);
        small.push(served.resident as f64 / bench.datoms as f64);
    }
    let imported: Served = Probe::Serve {
        store: bench.fresh("import"),
        cache: None,
        cities: Some(bench.file.clone()),
    }
    .spawn()?;
    println!(
        "  resident per datom: {:.1} B with a cache of {SMALL_CACHE} blocks; {:.1} B in the process that \
         imported; an empty process has {:.1} MB",
        median(&small).unwrap_or_default(),
        imported.resident as f64 / bench.datoms as f64,
        imported.before as f64 / 1e6
    );
    let name = "resident memory of the server, everything cached, per datom";
    let all = Row::bound("memory", name, "B", Better::Lower, median(&resident), 90.0);
    let name = "decoded blocks held by a cache of 200 blocks";
    let (held, bound) = (median(&cached), SMALL_CACHE_BYTES);
    Ok(vec![all, Row::bound("memory-bound", name, "B", Better::Lower, held, bound)])
}
