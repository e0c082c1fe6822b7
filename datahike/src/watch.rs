//! Watched queries: the rows that came and went.

use std::collections::BTreeSet;

use datahike_core::datom::TxId;
use datahike_core::query::{self, Context, Input, Query, QueryResult};
use datahike_value::Value;

use crate::connection::Connection;
use crate::error::Error;
use crate::reports::{TxEvent, TxReports};

/// A query whose result is followed. After each transaction it is run again and compared; when the
/// consumer is slow, several transactions become one change.
#[derive(Debug)]
pub struct Watch {
    connection: Connection,
    query: Query,
    inputs: Vec<Value>,
    rows: BTreeSet<Value>,
    seen: TxId,
    reports: TxReports,
}

/// The difference between two results of a watched query.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Change {
    /// Rows that are in the result now and were not before.
    pub added: Vec<Value>,
    /// Rows that were in the result before.
    pub removed: Vec<Value>,
    /// The first transaction that the change may be due to.
    pub from: TxId,
    /// The last one.
    pub to: TxId,
}

impl Watch {
    pub(crate) fn new(
        connection: Connection,
        query: &str,
        inputs: &[Value],
    ) -> Result<Self, Error> {
        // Listening begins before the first result: what is in both is compared away.
        let reports = connection.tx_reports();
        let mut watch = Self {
            query: Query::parse(query)?,
            inputs: inputs.to_vec(),
            rows: BTreeSet::new(),
            seen: 0,
            reports,
            connection,
        };
        (watch.rows, watch.seen) = watch.run()?;
        Ok(watch)
    }

    /// The rows as of the last change. Results that are no relation have one row per element, a
    /// scalar one row.
    pub fn rows(&self) -> &BTreeSet<Value> {
        &self.rows
    }

    /// The next change; `None` once the connection is released. Transactions that change nothing
    /// in the result pass unseen.
    ///
    /// # Errors
    /// Why the query could not be answered.
    pub async fn next(&mut self) -> Result<Option<Change>, Error> {
        while let Some(event) = self.reports.next().await {
            let mut newest = newest(&event);
            while let Some(event) = self.reports.try_next() {
                newest = self::newest(&event);
            }
            if newest <= self.seen {
                continue;
            }
            let (rows, seen) = self.run()?;
            let change = Change {
                added: rows.difference(&self.rows).cloned().collect(),
                removed: self.rows.difference(&rows).cloned().collect(),
                from: self.seen + 1,
                to: seen,
            };
            (self.rows, self.seen) = (rows, seen);
            if !change.added.is_empty() || !change.removed.is_empty() {
                return Ok(Some(change));
            }
        }
        Ok(None)
    }

    fn run(&self) -> Result<(BTreeSet<Value>, TxId), Error> {
        let db = self.connection.db();
        let seen = db.max_tx();
        let inputs: Vec<Input> = std::iter::once(Input::from(db))
            .chain(self.inputs.iter().cloned().map(Input::from))
            .collect();
        let result =
            self.connection.settle_now(|| query::q(&self.query, &inputs, &Context::default()))?;
        Ok((rows(result), seen))
    }
}

/// Each row of a relation, each element of a collection, the one tuple or value there is.
fn rows(result: QueryResult) -> BTreeSet<Value> {
    match result {
        QueryResult::Relation(rows) => rows.iter().map(|row| Value::vector(row.to_vec())).collect(),
        QueryResult::Collection(values) | QueryResult::Maps(values) => values.into_iter().collect(),
        QueryResult::Tuple(row) => row.map(Value::vector).into_iter().collect(),
        QueryResult::Scalar(value) | QueryResult::Map(value) => value.into_iter().collect(),
    }
}

fn newest(event: &TxEvent) -> TxId {
    match event {
        TxEvent::Report(report) => report.tx,
        TxEvent::Gap { to, .. } => *to,
    }
}
