//! `datahike watch`: a query's result, and what comes and goes.

use std::collections::BTreeSet;
use std::time::Duration;

use datahike::{Value, kw};

use super::{form, forms};
use crate::cli::Watch;
use crate::failure::Failure;
use crate::output::{self, Shape};
use crate::session::Session;

/// Between two looks at a store that another process writes.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn run(args: Watch) -> Result<(), Failure> {
    let query = form("QUERY", &args.query)?;
    let inputs = forms("INPUT", &args.inputs)?;
    let shape = Shape::of(&query);
    let session = Session::read(&args.target).await?;
    let mut rows = BTreeSet::new();
    let mut changes = 0;
    let mut seen = None;
    loop {
        let tx = newest(&session).await?;
        if seen != Some(tx) {
            let arguments = [("query", query.clone()), ("inputs", inputs.clone())];
            let found = rows_of(&shape, session.call("q", arguments).await?);
            let added: Vec<Value> = found.difference(&rows).cloned().collect();
            let removed: Vec<Value> = rows.difference(&found).cloned().collect();
            if seen.is_none() || !added.is_empty() || !removed.is_empty() {
                output::line(Value::map([
                    (kw!("tx").into(), Value::Long(tx)),
                    (kw!("added").into(), Value::vector(added)),
                    (kw!("removed").into(), Value::vector(removed)),
                ]))?;
                if seen.is_some() {
                    changes += 1;
                }
            }
            rows = found;
            seen = Some(tx);
        }
        if args.changes.is_some_and(|limit| changes >= limit) {
            return session.close().await;
        }
        match &session {
            Session::Local(_) => tokio::time::sleep(LOOK_EVERY).await,
            Session::Remote(remote) => remote.wait(tx).await?,
        }
    }
}

/// The latest transaction, before the query is run: what comes between is looked at again.
async fn newest(session: &Session) -> Result<i64, Failure> {
    let newest = session.call("await", [("after", Value::Long(0))]).await?;
    Ok(newest.as_long().unwrap_or(0))
}

/// Each row of a relation, each element of a collection, the one tuple or value there is.
fn rows_of(shape: &Shape, found: Value) -> BTreeSet<Value> {
    match (shape, found) {
        (_, Value::Nil) => BTreeSet::new(),
        (Shape::Relation(_) | Shape::Collection(_) | Shape::Maps(_), Value::Set(rows)) => {
            rows.iter().cloned().collect()
        }
        (Shape::Relation(_) | Shape::Collection(_) | Shape::Maps(_), rows) => match rows.as_slice()
        {
            Some(items) => items.iter().cloned().collect(),
            None => BTreeSet::from([rows]),
        },
        (Shape::Tuple(_) | Shape::Scalar, row) => BTreeSet::from([row]),
    }
}
