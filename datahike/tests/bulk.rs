//! A table that is loaded is what the transactor makes of a map for each row.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use datahike::core::schema::ValueType;
use datahike::{BulkLoad, Column, Config, Db, Error, Value, connect, create_database, edn, kw};
use proptest::prelude::*;

async fn fresh() -> Config {
    create_database(&Config::memory()).await.unwrap()
}

fn columns() -> Vec<Column> {
    vec![
        Column::new(kw!("t/name"), ValueType::String),
        Column::new(kw!("t/id"), ValueType::Long).unique(),
        Column { many: true, ..Column::new(kw!("t/tag"), ValueType::Keyword) },
        Column::new(kw!("t/code"), ValueType::String).unique(),
        Column::new(kw!("t/size"), ValueType::Double),
    ]
}

/// Everything that ever was, with the instants left out: those are the time of the test.
fn datoms(db: &Db) -> Vec<(u64, String, Value, u64, bool)> {
    let range = datahike::core::index::Range::all(datahike::core::index::Index::Eavt);
    db.history()
        .unwrap()
        .scan(&range)
        .map(|datom| {
            let datom = datom.unwrap();
            let ident = db.schema().ident(datom.a).to_string();
            let v = if ident == ":db/txInstant" { Value::Nil } else { datom.v };
            (datom.e, ident, v, datom.tx, datom.added)
        })
        .collect()
}

fn cell(column: usize) -> BoxedStrategy<Value> {
    match column {
        0 => prop_oneof![Just(Value::Nil), "[a-z]{0,3}".prop_map(Value::from)].boxed(),
        // Few enough that some come again.
        1 => prop_oneof![2 => Just(Value::Nil), 9 => (0..400_i64).prop_map(Value::from)].boxed(),
        2 => prop_oneof![Just(Value::Nil), Just(kw!("a").into()), Just(kw!("b").into())].boxed(),
        3 => prop_oneof![9 => Just(Value::Nil), 1 => "[a-z]{3}".prop_map(Value::from)].boxed(),
        // Now and then one of another type, which is refused.
        _ => prop_oneof![
            20 => Just(Value::Nil),
            40 => (0..9_i64).prop_map(|n| Value::Double(n as f64 / 4.0)),
            1 => Just(Value::from(1)),
        ]
        .boxed(),
    }
}

fn table() -> impl Strategy<Value = Vec<Vec<Value>>> {
    let row = (cell(0), cell(1), cell(2), cell(3), cell(4));
    let row = row.prop_map(|(a, b, c, d, e)| vec![a, b, c, d, e]);
    let batch = prop::collection::vec(row, 0..12).prop_map(|rows| rows.concat());
    prop::collection::vec(batch, 1..6)
}

async fn load(batches: &[Vec<Value>]) -> (Config, Vec<Option<usize>>) {
    let config = fresh().await;
    let mut load = BulkLoad::open(&config).await.unwrap();
    let mut table = load.table(columns()).await.unwrap();
    let mut counts = Vec::new();
    for batch in batches {
        counts.push(load.add_rows(&mut table, &mut batch.clone()).await.ok());
    }
    load.finish().await.unwrap();
    (config, counts)
}

async fn transact(batches: &[Vec<Value>]) -> (Config, Vec<Option<usize>>) {
    let config = fresh().await;
    let mut load = BulkLoad::open(&config).await.unwrap();
    load.declare(&columns()).await.unwrap();
    let mut counts = Vec::new();
    for batch in batches {
        let map = |row: &[Value]| {
            let cells = columns().into_iter().zip(row.iter().cloned());
            let cells = cells.filter(|(_, cell)| !cell.is_nil());
            Value::map(cells.map(|(column, cell)| (Value::from(column.ident), cell)))
        };
        let maps: Vec<Value> =
            batch.chunks(5).map(map).filter(|map| *map != Value::map([])).collect();
        counts.push(match maps.is_empty() {
            true => Some(0),
            false => load.transact(&Value::vector(maps)).await.ok().map(|r| r.tx_data.len()),
        });
    }
    load.finish().await.unwrap();
    (config, counts)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(96)
    ))]
    #[test]
    fn rows_are_what_the_transactor_makes_of_them(batches in table()) {
        futures::executor::block_on(async {
            let (ours, counts) = load(&batches).await;
            let (theirs, expected) = transact(&batches).await;
            prop_assert_eq!(counts, expected);
            let (ours, theirs) = (connect(&ours).await.unwrap(), connect(&theirs).await.unwrap());
            prop_assert_eq!(datoms(&ours.db()), datoms(&theirs.db()));
            prop_assert_eq!(ours.db().counters().max_entity, theirs.db().counters().max_entity);
            prop_assert_eq!(ours.db().counters().max_tx, theirs.db().counters().max_tx);
            ours.release().await.unwrap();
            theirs.release().await.unwrap();
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn rows_about_what_was_there_before_update_it() {
    let config = fresh().await;
    let mut load = BulkLoad::open(&config).await.unwrap();
    let columns = || {
        vec![
            Column::new(kw!("id"), ValueType::Long).unique(),
            Column::new(kw!("n"), ValueType::Long),
        ]
    };
    let mut first = load.table(columns()).await.unwrap();
    load.add_rows(&mut first, &mut [1.into(), 10.into(), 2.into(), 20.into()]).await.unwrap();
    // What is added beside the table counts too.
    load.transact(&edn::read("[{:id 3 :n 30}]").unwrap()).await.unwrap();
    load.add_rows(&mut first, &mut [3.into(), 31.into()]).await.unwrap();
    let mut second = load.table(columns()).await.unwrap();
    load.add_rows(&mut second, &mut [2.into(), 21.into(), 4.into(), 40.into()]).await.unwrap();
    load.finish().await.unwrap();
    let connection = connect(&config).await.unwrap();
    let found = connection.q("[:find ?i ?n :where [?e :id ?i] [?e :n ?n]]", &[]).unwrap();
    assert_eq!(found.into_value(), edn::read("#{[1 10] [2 21] [3 31] [4 40]}").unwrap());
    connection.release().await.unwrap();
}

#[tokio::test]
async fn a_column_that_does_not_fit_its_attribute_is_refused() {
    let config = fresh().await;
    let mut load = BulkLoad::open(&config).await.unwrap();
    load.declare(&columns()).await.unwrap();
    for (column, said) in [
        (Column::new(kw!("t/id"), ValueType::String), ":db.type/long"),
        (Column::new(kw!("t/name"), ValueType::String).unique(), "not as unique"),
    ] {
        let error = load.table(vec![column]).await.unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
    let twice = vec![Column::new(kw!("x"), ValueType::Long); 2];
    assert!(load.table(twice).await.unwrap_err().to_string().contains("another one"));
    let mut table = load.table(columns()).await.unwrap();
    let error = load.add_rows(&mut table, &mut [Value::from("a")]).await.unwrap_err();
    assert!(matches!(error, Error::Arguments { .. }), "{error}");
    load.finish().await.unwrap();
}
