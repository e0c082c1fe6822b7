//! SQLite in memory with one table of (e, a, v) in three covering orders.

use rusqlite::types::Value;
use rusqlite::{Connection, Params, Statement, params};

/// One fact.
pub type Fact = (i64, i64, Value);

/// A database of these facts.
///
/// # Errors
/// What SQLite says.
pub fn load(facts: impl IntoIterator<Item = Fact>) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_in_memory()?;
    connection.execute_batch(
        "CREATE TABLE facts (e INTEGER, a INTEGER, v, PRIMARY KEY (e, a, v)) WITHOUT ROWID;
         CREATE UNIQUE INDEX aev ON facts (a, e, v);
         CREATE UNIQUE INDEX ave ON facts (a, v, e);",
    )?;
    let transaction = connection.transaction()?;
    {
        let mut insert = transaction.prepare("INSERT OR IGNORE INTO facts VALUES (?, ?, ?)")?;
        for (e, a, v) in facts {
            insert.execute(params![e, a, v])?;
        }
    }
    transaction.commit()?;
    connection.execute_batch("ANALYZE")?;
    Ok(connection)
}

/// All rows of a prepared statement, as values.
///
/// # Errors
/// What SQLite says.
pub fn rows(
    statement: &mut Statement<'_>,
    parameters: impl Params,
) -> rusqlite::Result<Vec<Vec<Value>>> {
    let width = statement.column_count();
    let mut rows = statement.query(parameters)?;
    let mut found = Vec::new();
    while let Some(row) = rows.next()? {
        found.push((0..width).map(|n| row.get(n)).collect::<Result<_, _>>()?);
    }
    Ok(found)
}
