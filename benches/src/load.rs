//! The cities as a database.

use std::path::Path;

use datahike::core::schema::ValueType;
use datahike::{
    BulkLoad, Column, Config, Keep, Keyword, Uuid, Value, compact, connect, create_database,
};

use crate::cities::City;

/// Entities in one transaction of the bulk load, as in the baseline.
const BATCH_ENTITIES: usize = 10_000;

/// Creates a database in a file store and loads the cities into it as a table: types checked, and
/// that no two have one number; indexes written out at the end.
///
/// # Errors
/// What the database fails with.
pub async fn load(folder: &Path, cities: &[City]) -> anyhow::Result<Config> {
    let config = create_database(&Config::file(folder).id(Uuid::new_v4())).await?;
    let mut load = BulkLoad::open(&config).await?;
    let mut table = load.table(columns()).await?;
    for batch in cities.chunks(BATCH_ENTITIES) {
        let mut cells: Vec<Value> = batch.iter().flat_map(row).collect();
        load.add_rows(&mut table, &mut cells).await?;
    }
    load.finish().await?;
    Ok(config)
}

/// The same by transactions of maps, each of which the transactor resolves.
///
/// # Errors
/// What the database fails with.
pub async fn transact(folder: &Path, cities: &[City]) -> anyhow::Result<Config> {
    let config = create_database(&Config::file(folder).id(Uuid::new_v4())).await?;
    let mut load = BulkLoad::open(&config).await?;
    let columns = columns();
    load.declare(&columns).await?;
    for batch in cities.chunks(BATCH_ENTITIES) {
        let entity = |city| {
            let cells = columns.iter().zip(row(city)).filter(|(_, cell)| !cell.is_nil());
            Value::map(cells.map(|(column, cell)| (column.ident.clone().into(), cell)))
        };
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

fn columns() -> Vec<Column> {
    let column = |name, value_type| Column::new(Keyword::new(Some("city"), name), value_type);
    vec![
        column("geoname_id", ValueType::Long).unique(),
        column("name", ValueType::String),
        column("country", ValueType::String),
        column("admin_code", ValueType::String),
        column("feature_code", ValueType::String),
        column("population", ValueType::Long),
        column("lon", ValueType::Double),
        column("lat", ValueType::Double),
    ]
}

fn row(city: &City) -> [Value; 8] {
    let text = |text: &String| Value::from(text.as_str());
    [
        city.geoname_id.into(),
        text(&city.name),
        text(&city.country),
        city.admin_code.as_ref().map_or(Value::Nil, text),
        city.feature_code.as_ref().map_or(Value::Nil, text),
        city.population.into(),
        city.lon.into(),
        city.lat.into(),
    ]
}
