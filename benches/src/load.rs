//! The cities as a database.

use std::path::Path;

use datahike::{BulkLoad, Config, Keep, Uuid, Value, compact, connect, create_database, edn, kw};

use crate::cities::City;

/// Entities in one transaction of the bulk load, as in the baseline.
const BATCH_ENTITIES: usize = 10_000;

const SCHEMA: &str = "
    [{:db/ident :city/geoname_id   :db/valueType :db.type/long   :db/cardinality :db.cardinality/one
      :db/unique :db.unique/identity}
     {:db/ident :city/name         :db/valueType :db.type/string :db/cardinality :db.cardinality/one}
     {:db/ident :city/country      :db/valueType :db.type/string :db/cardinality :db.cardinality/one}
     {:db/ident :city/admin_code   :db/valueType :db.type/string :db/cardinality :db.cardinality/one}
     {:db/ident :city/feature_code :db/valueType :db.type/string :db/cardinality :db.cardinality/one}
     {:db/ident :city/population   :db/valueType :db.type/long   :db/cardinality :db.cardinality/one}
     {:db/ident :city/lon          :db/valueType :db.type/double :db/cardinality :db.cardinality/one}
     {:db/ident :city/lat          :db/valueType :db.type/double :db/cardinality :db.cardinality/one}]";

/// Creates a database in a file store and loads the cities into it, every transaction resolved and
/// checked by the transactor, indexes written out at the end.
///
/// # Errors
/// What the database fails with.
pub async fn load(folder: &Path, cities: &[City]) -> anyhow::Result<Config> {
    let config = create_database(&Config::file(folder).id(Uuid::new_v4())).await?;
    let mut load = BulkLoad::open(&config).await?;
    load.transact(&edn::read(SCHEMA)?).await?;
    for batch in cities.chunks(BATCH_ENTITIES) {
        load.transact(&Value::vector(batch.iter().map(entity))).await?;
        load.commit().await?;
    }
    load.finish().await?;
    Ok(config)
}

/// Gives back what the load left behind.
///
/// # Errors
/// What the database fails with.
pub async fn compacted(config: &Config) -> anyhow::Result<()> {
    let connection = connect(config).await?;
    compact(&connection, Keep::default()).await?;
    Ok(connection.release().await?)
}

fn entity(city: &City) -> Value {
    let text = |text: &String| Value::from(text.as_str());
    let cells = [
        (kw!("city/geoname_id"), Some(city.geoname_id.into())),
        (kw!("city/name"), Some(text(&city.name))),
        (kw!("city/country"), Some(text(&city.country))),
        (kw!("city/admin_code"), city.admin_code.as_ref().map(text)),
        (kw!("city/feature_code"), city.feature_code.as_ref().map(text)),
        (kw!("city/population"), Some(city.population.into())),
        (kw!("city/lon"), Some(city.lon.into())),
        (kw!("city/lat"), Some(city.lat.into())),
    ];
    Value::map(cells.into_iter().filter_map(|(a, v)| Some((a.into(), v?))))
}
