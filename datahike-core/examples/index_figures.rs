//! Measures the indexes on a CSV file: `index_figures FILE.csv`. One entity per row, one datom per
//! cell that is not empty; the first column is unique and indexed, as are the second and fourth.

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use datahike_core::block::{Address, children, make_patch};
use datahike_core::datom::{AttrId, Datom, FIRST_TX};
use datahike_core::index::{
    AttrTraits, Flushed, Index, Indexes, MemoryBlocks, Node, Params, Prefix, Range, Slice, derive,
};
use datahike_value::Value;

struct Traits;

impl AttrTraits for Traits {
    fn avet(&self, a: AttrId) -> bool {
        matches!(a.0, 0 | 1 | 3)
    }

    fn history(&self, _: AttrId) -> bool {
        true
    }
}

/// Datoms per flush of the import.
const FLUSH: usize = 50_000;

/// Entities per transaction of the import.
const BATCH: u64 = 1000;

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1).ok_or("usage: index_figures FILE.csv")?;
    let datoms = load(&path)?;
    let (count, entities) = (datoms.len(), datoms.last().map_or(0, |d| d.e));
    println!("{count} datoms of {entities} entities");

    let blocks = Arc::new(MemoryBlocks::default());
    let empty = Indexes::open(Params::default(), true, Default::default(), blocks.clone());
    let (mut tail, took) = timed(|| empty.apply(&datoms, &Traits));
    println!("sort into a tail:        {took:8.1} ms");
    let (flushed, took) = timed(|| tail.flush());
    let flushed = flushed?;
    println!("build three indexes:     {took:8.1} ms");
    {
        let (done, took) = timed(|| -> Result<(), Box<dyn Error>> {
            let mut indexes = empty.clone();
            for part in datoms.chunks(FLUSH) {
                indexes.extend(part, &Traits);
                let flushed = indexes.flush()?;
                blocks.insert(&flushed.blocks)?;
                indexes = flushed.indexes;
            }
            assert_eq!(indexes.roots(), &flushed.roots, "the way there must not matter");
            Ok(())
        });
        done?;
        println!("the same in flushes of {FLUSH}: {took:.1} ms");
    }
    sizes(&flushed, count)?;
    let (derived, took) = timed(|| derive(Params::default(), &flushed.roots, &*blocks, &Traits));
    println!("derive and verify:       {took:8.1} ms, {} blocks", derived?.len());
    tail = flushed.indexes.clone();
    reads(&tail, entities)?;
    let bytes: HashMap<Address, Vec<u8>> = flushed.blocks.into_iter().collect();
    scattered(&tail, &blocks, &bytes, entities, count)?;
    Ok(())
}

fn load(path: &str) -> Result<Vec<Datom>, Box<dyn Error>> {
    let mut reader = csv::Reader::from_path(path)?;
    let mut datoms = Vec::new();
    for (row, record) in reader.records().enumerate() {
        let e = row as u64 + 1;
        for (column, cell) in record?.iter().enumerate().filter(|(_, cell)| !cell.is_empty()) {
            let v = match column {
                0 | 5 => Value::Long(cell.parse()?),
                6 | 7 => Value::Double(cell.parse()?),
                _ => Value::from(cell),
            };
            let tx = FIRST_TX + row as u64 / BATCH;
            datoms.push(Datom { e, a: AttrId(column as u32), v, tx, added: true });
        }
    }
    Ok(datoms)
}

fn sizes(flushed: &Flushed, count: usize) -> Result<(), Box<dyn Error>> {
    let by_address: HashMap<Address, &Vec<u8>> =
        flushed.blocks.iter().map(|(address, bytes)| (*address, bytes)).collect();
    let raw: usize = flushed.blocks.iter().map(|(_, bytes)| bytes.len()).sum();
    for index in Index::ALL {
        let root = flushed.roots.current[index.number()].ok_or("an empty tree")?;
        let (mut leaves, mut bytes) = (0_usize, 0);
        let mut next = vec![root.address];
        while let Some(address) = next.pop() {
            let block = by_address.get(&address).ok_or("a block is not there")?;
            bytes += block.len();
            let below = children(block)?;
            leaves += usize::from(below.is_empty());
            next.extend(below);
        }
        let count = root.count as f64;
        println!(
            "{index:?}: depth {}, {leaves} leaves of {:.0}, {:.2} B per datom of it",
            root.depth,
            count / leaves as f64,
            bytes as f64 / count
        );
    }
    let (packed, took) = timed(|| -> usize {
        flushed.blocks.iter().map(|(_, bytes)| lz4_flex::block::compress(bytes).len()).sum()
    });
    let per = |bytes: usize| bytes as f64 / count as f64;
    println!(
        "{} blocks, per datom: {:.2} B raw, {:.2} B lz4 ({took:.1} ms)",
        flushed.blocks.len(),
        per(raw),
        per(packed)
    );
    let (memory, took) = timed(|| {
        flushed.blocks.iter().map(|(_, bytes)| Node::decode(bytes).map(|n| n.memory())).sum()
    });
    let memory: Result<usize, _> = memory;
    println!("decode all:              {took:8.1} ms, {:.1} B per datom in memory", per(memory?));
    let (_, took) =
        timed(|| flushed.blocks.iter().filter(|(a, bytes)| Address::of(bytes) == *a).count());
    println!("hash all:                {took:8.1} ms");
    Ok(())
}

/// Often enough for a clock that counts in ticks.
const SCANS: usize = 50;

fn reads(indexes: &Indexes, entities: u64) -> Result<(), Box<dyn Error>> {
    for index in Index::ALL {
        let (sum, took) = timed(|| -> Result<(u64, usize), Box<dyn Error>> {
            let (mut sum, mut rows, mut entities) = (0_u64, 0, Vec::new());
            for slice in (0..SCANS).flat_map(|_| indexes.scan(&Range::all(index))) {
                let slice = slice?;
                rows += slice.rows.len();
                let Slice { leaf, rows } = slice;
                entities.clear();
                leaf.entities(rows, &mut entities);
                sum = entities.iter().fold(sum, |sum, e| sum.wrapping_add(*e));
            }
            Ok((sum, rows))
        });
        let (_, rows) = sum?;
        println!("scan {index:?} by column:     {:8.2} ns per datom", took * 1e6 / rows as f64);
    }
    let (rows, took) = timed(|| indexes.current(&Range::all(Index::Eavt)).count());
    println!("scan Eavt as datoms:     {:8.2} ns per datom", took * 1e6 / rows as f64);
    let mut random = Random(1);
    const LOOKUPS: u64 = 100_000;
    let (found, took) = timed(|| {
        (0..LOOKUPS)
            .filter(|_| {
                let e = random.below(entities) + 1;
                indexes.current(&Range::eavt(e, AttrId(1), None)).next().is_some()
            })
            .count()
    });
    println!("point lookup, warm:      {:8.0} ns ({found} found)", took * 1e6 / LOOKUPS as f64);
    Ok(())
}

/// 10,000 small transactions at random entities: one value replaced, one new entity of 3 datoms.
fn scattered(
    base: &Indexes,
    blocks: &MemoryBlocks,
    old: &HashMap<Address, Vec<u8>>,
    entities: u64,
    count: usize,
) -> Result<(), Box<dyn Error>> {
    const TRANSACTIONS: u64 = 10_000;
    let mut random = Random(7);
    let mut transactions = Vec::new();
    let mut touched = HashSet::new();
    for n in 0..TRANSACTIONS {
        let tx = FIRST_TX + 1_000_000 + n;
        let e = loop {
            let e = random.below(entities) + 1;
            if touched.insert(e) {
                break e;
            }
        };
        let a = AttrId([1, 2, 5][n as usize % 3]);
        let prefix = Prefix { e: Some(e), a: Some(a), ..Prefix::default() };
        let old = base.current(&Range::prefix(Index::Eavt, prefix)).next().transpose()?;
        let mut datoms = Vec::new();
        if let Some(old) = old {
            let v = match &old.v {
                Value::Long(n) => Value::Long(n + 1),
                other => Value::from(format!("{other}*")),
            };
            datoms.push(Datom { tx, added: false, ..old.clone() });
            datoms.push(Datom { v, tx, added: true, ..old });
        }
        let new = entities + 1 + n;
        let values: [Value; 3] = [
            Value::Long(50_000_000 + n as i64),
            Value::from(format!("New {n}")),
            Value::from("XX"),
        ];
        for (a, v) in values.into_iter().enumerate() {
            datoms.push(Datom { e: new, a: AttrId(a as u32), v, tx, added: true });
        }
        transactions.push(datoms);
    }
    let mut held = Vec::with_capacity(transactions.len());
    let (last, took) = timed(|| {
        transactions.iter().fold(base.clone(), |indexes, datoms| {
            let next = indexes.apply(datoms, &Traits);
            held.push(indexes);
            next
        })
    });
    println!(
        "apply, snapshots held:   {:8.2} us per transaction",
        took * 1e3 / TRANSACTIONS as f64
    );
    let (_, took) = timed(|| {
        let mut indexes = base.clone();
        transactions.iter().for_each(|datoms| indexes.extend(datoms, &Traits));
    });
    println!(
        "apply in place:          {:8.2} us per transaction",
        took * 1e3 / TRANSACTIONS as f64
    );
    let (rows, took) =
        timed(|| last.scan(&Range::all(Index::Eavt)).flatten().map(|s| s.rows.len()).sum());
    let rows: usize = rows;
    println!("scan over tail, first:   {:8.2} ns per datom", took * 1e6 / rows as f64);
    for _ in 0..3 {
        let (flushed, took) = timed(|| last.flush());
        let flushed = flushed?;
        let whole: usize =
            flushed.blocks.iter().map(|(_, b)| lz4_flex::block::compress(b).len()).sum();
        let (patches, making) = timed(|| -> usize {
            let base =
                |address: &Address| flushed.bases.get(address).and_then(|base| old.get(base));
            let patch = |(address, bytes): &(Address, Vec<u8>)| {
                make_patch(base(address).map_or(&[][..], |base| base), bytes).len()
            };
            flushed.blocks.iter().map(patch).sum()
        });
        println!(
            "flush of {TRANSACTIONS} transactions: {took:.1} ms, {} new blocks, per transaction \
             {} B lz4, {} B as patches ({making:.1} ms)",
            flushed.blocks.len(),
            whole as u64 / TRANSACTIONS,
            patches as u64 / TRANSACTIONS
        );
        blocks.insert(&flushed.blocks)?;
        let all: usize = Index::ALL
            .iter()
            .filter_map(|i| flushed.roots.current[i.number()])
            .map(|root| root.count as usize)
            .sum();
        assert!(all > count);
    }
    Ok(())
}

/// The result and its milliseconds: of CPU of all threads where the system tells, so that neighbours
/// do not count.
fn timed<T>(run: impl FnOnce() -> T) -> (T, f64) {
    /// As Linux counts CPU for programs, in all its configurations.
    const MS_PER_TICK: f64 = 10.0;
    let cpu_ms = || -> Option<f64> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        let mut fields = stat.rsplit(')').next()?.split(' ').skip(12);
        let (user, system): (f64, f64) =
            (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        Some((user + system) * MS_PER_TICK)
    };
    let (start, cpu) = (Instant::now(), cpu_ms());
    let done = run();
    let wall = start.elapsed().as_secs_f64() * 1e3;
    (done, cpu.zip(cpu_ms()).map_or(wall, |(start, end)| end - start))
}

/// A small generator, so that runs can be compared.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % bound
    }
}
