//! Questions about the cities, in Datalog and in SQL.

use anyhow::Context as _;
use datahike::core::tx::TxOptions;
use datahike::query::{Context, Input, Query, q};
use datahike::{Db, Value, edn};
use rusqlite::params_from_iter;
use rusqlite::types::Value as SqlValue;

use super::sql::compare;
use super::{Options, people};
use crate::baseline::facts::{self, Fact};
use crate::cities::{self, City};
use crate::row::Row;

/// Entities in one transaction.
const BATCH: usize = 10_000;

/// What is asked for by value is in the order of values; the rest is in two orders.
const SCHEMA: &str = "
    [{:db/ident :city/geoname_id   :db/valueType :db.type/long   :db/cardinality :db.cardinality/one :db/unique :db.unique/identity}
     {:db/ident :city/name         :db/valueType :db.type/string :db/cardinality :db.cardinality/one :db/index true}
     {:db/ident :city/country      :db/valueType :db.type/string :db/cardinality :db.cardinality/one :db/index true}
     {:db/ident :city/feature_code :db/valueType :db.type/string :db/cardinality :db.cardinality/one :db/index true}
     {:db/ident :city/population   :db/valueType :db.type/long   :db/cardinality :db.cardinality/one :db/index true}]";

/// Rows' ids, what they are, the query, and the same in SQL.
const QUERIES: &[(&str, &str, &str, &str)] = &[
    (
        "cities-point",
        "a city's name by its unique number",
        "[:find ?n :in $ ?id :where [?c :city/geoname_id ?id] [?c :city/name ?n]]",
        "SELECT n.v FROM facts i JOIN facts n ON n.e = i.e AND n.a = 2 WHERE i.a = 1 AND i.v = ?1",
    ),
    (
        "cities-range",
        "cities of a country from 50,000 to 1,000,000 people, largest first",
        "[:find ?n ?p :where [?c :city/population ?p] [(>= ?p 50000)] [(< ?p 1000000)]
          [?c :city/country \"US\"] [?c :city/name ?n] :order-by [?p :desc]]",
        "SELECT DISTINCT n.v, p.v FROM facts p JOIN facts c ON c.e = p.e AND c.a = 3 AND c.v = 'US'
          JOIN facts n ON n.e = p.e AND n.a = 2
          WHERE p.a = 5 AND p.v >= 50000 AND p.v < 1000000 ORDER BY p.v DESC",
    ),
    (
        "cities-group",
        "number of cities of each country",
        "[:find ?country (count ?c) :where [?c :city/country ?country]]",
        "SELECT v, count(*) FROM facts WHERE a = 3 GROUP BY v",
    ),
    (
        "cities-join",
        "cities of two countries with the same name, with the population of one",
        "[:find ?a ?b ?p :where [?a :city/country \"US\"] [?a :city/name ?n] [?b :city/name ?n]
          [?b :city/country \"GB\"] [?b :city/population ?p]]",
        "SELECT x.e, y.e, p.v FROM facts x JOIN facts n ON n.e = x.e AND n.a = 2
          JOIN facts m ON m.a = 2 AND m.v = n.v
          JOIN facts y ON y.e = m.e AND y.a = 3 AND y.v = 'GB'
          JOIN facts p ON p.e = y.e AND p.a = 5
          WHERE x.a = 3 AND x.v = 'US'",
    ),
];

pub(super) fn run(options: &Options<'_>) -> anyhow::Result<Vec<Row>> {
    if !QUERIES.iter().any(|query| options.wants(query.0)) {
        return Ok(Vec::new());
    }
    let cities = cities::read(options.cities)?;
    let db = load(&cities)?;
    let sqlite = facts::load(cities.iter().enumerate().flat_map(|(n, city)| facts_of(n, city)))?;
    let asked = cities.get(cities.len() / 2).context("no cities")?.geoname_id;
    let mut rows = Vec::new();
    for &(id, name, text, sql) in QUERIES {
        if !options.wants(id) {
            continue;
        }
        let query = Query::parse(text)?;
        let by_id = id == "cities-point";
        let mut inputs = vec![Input::from(&db)];
        inputs.extend(by_id.then(|| Input::Value(asked.into())));
        let mut statement = sqlite.prepare(sql)?;
        let parameters: Vec<SqlValue> = by_id.then(|| asked.into()).into_iter().collect();
        rows.push(compare(
            options,
            id,
            format!("{name} ({} cities)", cities.len()),
            1.0,
            || Ok(q(&query, &inputs, &Context::default())?.len()),
            || Ok(facts::rows(&mut statement, params_from_iter(&parameters))?.len()),
        )?);
    }
    Ok(rows)
}

/// The cities in memory, all in blocks.
fn load(cities: &[City]) -> anyhow::Result<Db> {
    let mut db = people::empty(false, true)?.with(&edn::read(SCHEMA)?, &TxOptions::at(2))?.db_after;
    for batch in cities.chunks(BATCH) {
        let entity = |city: &City| {
            let mut map = vec![
                (Value::keyword("city/geoname_id"), city.geoname_id.into()),
                (Value::keyword("city/name"), city.name.as_str().into()),
                (Value::keyword("city/country"), city.country.as_str().into()),
                (Value::keyword("city/population"), city.population.into()),
            ];
            if let Some(code) = &city.feature_code {
                map.push((Value::keyword("city/feature_code"), code.as_str().into()));
            }
            Value::map(map)
        };
        let form = Value::vector(batch.iter().map(entity));
        db = db.with(&form, &TxOptions::at(3))?.db_after;
    }
    people::settled(&db)
}

fn facts_of(n: usize, city: &City) -> Vec<Fact> {
    let e = n as i64 + 1;
    let mut found = vec![
        (e, 1, city.geoname_id.into()),
        (e, 2, city.name.clone().into()),
        (e, 3, city.country.clone().into()),
        (e, 5, city.population.into()),
    ];
    found.extend(city.feature_code.iter().map(|code| (e, 4, code.clone().into())));
    found
}
