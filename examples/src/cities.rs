//! The populated places of GeoNames that come with the examples.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result};
use datahike::{BulkLoad, Config, Keyword, Value, edn};

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

/// Declares the attributes, loads the places in transactions of ten thousand, and writes out the
/// indexes. The columns of the file are the attributes; an empty cell is no datom.
///
/// # Errors
/// If the file cannot be read or is not as expected; what the database refuses.
pub async fn import(config: &Config, path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text: Box<dyn Read> = match path.extension() {
        Some(extension) if extension == "gz" => Box::new(flate2::read::GzDecoder::new(file)),
        _ => Box::new(file),
    };
    let mut table = csv::Reader::from_reader(text);
    let columns: Vec<_> =
        table.headers()?.iter().map(|name| Keyword::parse(&format!("city/{name}"))).collect();
    let cities = table
        .records()
        .map(|record| {
            let record = record?;
            let cells = columns.iter().zip(record.iter()).filter(|(_, cell)| !cell.is_empty());
            let cells: Result<Vec<_>> = cells
                .map(|(column, cell)| Ok((column.clone().into(), value(column, cell)?)))
                .collect();
            Ok(Value::map(cells?))
        })
        .collect::<Result<Vec<Value>>>()?;

    let mut load = BulkLoad::open(config).await?;
    load.transact(&edn::read(SCHEMA)?).await?;
    for some in cities.chunks(10_000) {
        load.transact(&Value::vector(some.iter().cloned())).await?;
        load.commit().await?;
    }
    Ok(load.finish().await?)
}

fn value(column: &Keyword, cell: &str) -> Result<Value> {
    Ok(match column.name() {
        "geoname_id" | "population" => Value::Long(cell.parse()?),
        "lon" | "lat" => Value::Double(cell.parse()?),
        _ => cell.into(),
    })
}
