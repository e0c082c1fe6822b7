//! Times the engine on 20,000 people, as in DataScript's benchmark, and on recursive rules over
//! trees: `query_figures [RUNS]`. Prints the best time of each query and its rows.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use datahike_core::db::{Db, DbConfig, SchemaFlexibility};
use datahike_core::index::{Indexes, MemoryBlocks};
use datahike_core::pull::{Pattern, pull_many};
use datahike_core::query::{Context, Input, Query, QueryResult, Rules, q};
use datahike_core::tx::TxOptions;
use datahike_value::{Value, kw, map, vector};

/// A linear congruential generator: the same people in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.roll(from.len() as u64) as usize]
    }
}

fn people(count: i64) -> Value {
    let mut dice = Dice(7);
    Value::vector((1..=count).map(|id| {
        let aliases = (0..dice.roll(10)).map(|_| Value::str(format!("A{}", dice.roll(1000))));
        let aliases = Value::vector(aliases.collect::<Vec<_>>());
        map! {
            kw!("db/id") => id,
            kw!("name") => dice.pick(&["Ivan", "Petr", "Sergei", "Oleg", "Yuri", "Dmitry", "Fedor", "Denis"]),
            kw!("last-name") => dice.pick(&["Ivanov", "Petrov", "Sidorov", "Kovalev", "Kuznetsov", "Voronoi"]),
            kw!("full-name") => format!("P {}", dice.roll(1_000_000)),
            kw!("alias") => aliases,
            kw!("sex") => Value::keyword(dice.pick(&["male", "female"])),
            kw!("age") => dice.roll(100) as i64,
            kw!("salary") => dice.roll(100_000) as i64,
        }
    }))
}

/// A tree of `depth` levels in which every node follows `width` others, as an edge list.
fn tree(width: usize, depth: usize) -> Value {
    let mut edges = Vec::new();
    let (mut level, mut next) = (vec![1i64], 2i64);
    for _ in 0..depth {
        let mut below = Vec::new();
        for parent in level {
            for _ in 0..width {
                edges.push(vector![kw!("db/add"), parent, kw!("follows"), next]);
                below.push(next);
                next += 1;
            }
        }
        level = below;
    }
    Value::vector(edges)
}

fn read_db(schema: Value, data: &Value) -> Result<Db, Box<dyn Error>> {
    let config = DbConfig::new(SchemaFlexibility::Read).with_history(false);
    let db = Db::empty(config).with(&schema, &TxOptions::at(1))?.db_after;
    let db = db.with(data, &TxOptions::at(2))?.db_after;
    // As after opening a store: everything in blocks, all of them decoded.
    let blocks = Arc::new(MemoryBlocks::default());
    let flushed = db.indexes().flush()?;
    blocks.insert(&flushed.blocks)?;
    let opened = Indexes::open(*db.indexes().params(), false, flushed.roots, blocks);
    Ok(db.with_indexes(opened))
}

fn best(
    runs: usize,
    mut f: impl FnMut() -> Result<usize, Box<dyn Error>>,
) -> Result<(f64, usize), Box<dyn Error>> {
    let (mut least, mut rows) = (f64::MAX, 0);
    for _ in 0..runs {
        let start = Instant::now();
        rows = f()?;
        least = least.min(start.elapsed().as_secs_f64() * 1000.0);
    }
    Ok((least, rows))
}

fn main() -> Result<(), Box<dyn Error>> {
    let runs = std::env::args().nth(1).map_or(Ok(30), |runs| runs.parse())?;
    let schema = |ident: &str, more: Value| {
        let mut entry = more.as_map().cloned().unwrap_or_default();
        entry.insert(Value::from(kw!("db/id")), Value::from(1_000_000));
        entry.insert(Value::from(kw!("db/ident")), Value::keyword(ident));
        Value::vector([Value::Map(entry.into())])
    };
    let many = map! { kw!("db/cardinality") => kw!("db.cardinality/many") };
    let start = Instant::now();
    let db = read_db(schema("alias", many), &people(20_000))?;
    println!(
        "people20k: {} datoms, built in {:.0} ms",
        db.indexes()
            .current(&datahike_core::index::Range::all(datahike_core::index::Index::Eavt))
            .count(),
        start.elapsed().as_secs_f64() * 1000.0
    );
    let context = Context::default();
    let queries = [
        ("q1", "[:find ?e :where [?e :name \"Ivan\"]]"),
        ("q2", "[:find ?e ?a :where [?e :name \"Ivan\"] [?e :age ?a]]"),
        ("q2-switch", "[:find ?e ?a :where [?e :age ?a] [?e :name \"Ivan\"]]"),
        ("q3", "[:find ?e ?a :where [?e :name \"Ivan\"] [?e :age ?a] [?e :sex :male]]"),
        (
            "q4",
            "[:find ?e ?l ?a :where [?e :name \"Ivan\"] [?e :last-name ?l] [?e :age ?a] [?e :sex :male]]",
        ),
        (
            "q5-shortcircuit",
            "[:find ?e ?l ?a ?al :where [?e :name \"Ivan\"] [?e :last-name ?l] [?e :age ?a] [?e :sex :nobody] [?e :alias ?al]]",
        ),
        ("qpred1", "[:find ?e ?s :where [?e :salary ?s] [(> ?s 50000)]]"),
        ("count-by", "[:find ?l (count ?e) :where [?e :last-name ?l]]"),
    ];
    for (name, text) in queries {
        let query = Query::parse(text)?;
        let inputs = [Input::from(&db)];
        let (ms, rows) = best(runs, || Ok(q(&query, &inputs, &context)?.len()))?;
        println!("{name:<18} {ms:9.4} ms {rows:>8} rows");
    }
    let query = Query::parse("[:find ?e ?s :in $ ?min :where [?e :salary ?s] [(> ?s ?min)]]")?;
    let inputs = [Input::from(&db), Input::Value(Value::Long(50_000))];
    let (ms, rows) = best(runs, || Ok(q(&query, &inputs, &context)?.len()))?;
    println!("{:<18} {ms:9.4} ms {rows:>8} rows", "qpred2");
    for (name, text) in [("pull wildcard", "[*]"), ("pull one", "[:name]")] {
        let pattern = Pattern::parse_text(text)?;
        let entities: Vec<Value> = (1..=781).map(Value::Long).collect();
        let (ms, rows) = best(runs, || Ok(pull_many(&db, &pattern, &entities)?.len()))?;
        println!("{name:<18} {ms:9.4} ms {rows:>8} maps");
    }
    let rules = Rules::parse(
        "[[(follows ?a ?b) [?a :follows ?b]] [(follows ?a ?b) [?a :follows ?t] (follows ?t ?b)]]",
    )?;
    let reference = map! { kw!("db/valueType") => kw!("db.type/ref"), kw!("db/cardinality") => kw!("db.cardinality/many") };
    for (name, width, depth) in
        [("wide 3^3", 3, 3), ("wide 5^3", 5, 3), ("wide 7^5", 7, 5), ("wide 4^6", 4, 6)]
    {
        let db = read_db(schema("follows", reference.clone()), &tree(width, depth))?;
        let query = Query::parse("[:find ?a ?b :in $ % :where (follows ?a ?b)]")?;
        let inputs = [Input::from(&db), Input::from(rules.clone())];
        let (ms, rows) = best(runs.min(10), || Ok(q(&query, &inputs, &context)?.len()))?;
        println!("rules {name:<12} {ms:9.4} ms {rows:>8} rows");
        let query = Query::parse("[:find [?b ...] :in $ % :where (follows 1 ?b)]")?;
        let (ms, rows) = best(runs.min(10), || {
            let found = q(&query, &inputs, &context)?;
            match found {
                QueryResult::Collection(values) => Ok(values.len()),
                _ => Ok(0),
            }
        })?;
        println!("rules from root    {ms:9.4} ms {rows:>8} rows");
    }
    Ok(())
}
