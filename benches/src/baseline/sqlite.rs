//! SQLite with the same facts: one table of (e, a, v, tx), covering indexes in the same orders.

use std::path::Path;

use rusqlite::{Connection, params};

use crate::cities::City;

/// Facts in one transaction of the bulk load.
const BATCH_ENTITIES: usize = 10_000;

/// The attributes of a city by number; the first is unique and so in the value order too.
pub const ATTRIBUTES: usize = 8;

/// Loads the cities as facts, in batches, with all three orders.
///
/// # Errors
/// What SQLite says.
pub fn load(path: &Path, cities: &[City]) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = FULL;
         PRAGMA cache_size = -262144;
         CREATE TABLE facts (e INTEGER, a INTEGER, v, tx INTEGER, PRIMARY KEY (e, a, v, tx)) WITHOUT ROWID;
         CREATE UNIQUE INDEX aevt ON facts (a, e, v, tx);
         CREATE UNIQUE INDEX avet ON facts (a, v, e, tx) WHERE a = 1;",
    )?;
    for (number, batch) in cities.chunks(BATCH_ENTITIES).enumerate() {
        let tx = 536_870_913 + number as i64;
        let transaction = connection.transaction()?;
        {
            let mut insert =
                transaction.prepare("INSERT INTO facts (e, a, v, tx) VALUES (?, ?, ?, ?)")?;
            for (n, city) in batch.iter().enumerate() {
                let e = (number * BATCH_ENTITIES + n + 1) as i64;
                insert.execute(params![e, 1, city.geoname_id, tx])?;
                insert.execute(params![e, 2, city.name, tx])?;
                insert.execute(params![e, 3, city.country, tx])?;
                if let Some(admin_code) = &city.admin_code {
                    insert.execute(params![e, 4, admin_code, tx])?;
                }
                if let Some(feature_code) = &city.feature_code {
                    insert.execute(params![e, 5, feature_code, tx])?;
                }
                insert.execute(params![e, 6, city.population, tx])?;
                insert.execute(params![e, 7, city.lon, tx])?;
                insert.execute(params![e, 8, city.lat, tx])?;
            }
        }
        transaction.commit()?;
    }
    Ok(connection)
}

/// Opens and asks for one city's name by its unique number: a new process's first query.
///
/// # Errors
/// What SQLite says; no row if the number is unknown.
pub fn open_and_look_up(path: &Path, geoname_id: i64) -> rusqlite::Result<String> {
    let connection = Connection::open(path)?;
    connection.query_row(
        "SELECT n.v FROM facts i JOIN facts n ON n.e = i.e AND n.a = 2 WHERE i.a = 1 AND i.v = ?",
        [geoname_id],
        |row| row.get(0),
    )
}
