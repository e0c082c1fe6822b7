//! Operations that change something.

use std::time::Duration;

use datahike::core::db::entity_value;
use datahike::{Connection, Keep, Revision, Transacted, Transaction, TxReport, Value, compact, kw};

use super::super::failure::{Problem, wrong};
use super::super::handle::{self, Handles};
use super::Arguments;
use super::database::{branch_name, name_of, names};
use datahike::ops::{self, Host};

type Done = Result<Value, Problem>;

/// A transaction of `tx-data`, or of `{:tx-data … :tx-meta …}`.
fn transaction(
    connection: &Connection,
    arguments: &Arguments,
    given: &Value,
) -> Result<Transaction, Problem> {
    let given = match arguments.loose {
        true => ops::coerce_tx_data(&connection.db(), given),
        false => given.clone(),
    };
    match &given {
        Value::Map(_) => {
            let data = given.get(&kw!("tx-data")).ok_or_else(|| wrong(":tx-data is missing"))?;
            let meta = given.get(&kw!("tx-meta")).cloned().unwrap_or_default();
            Ok(Transaction { meta, ..Transaction::new(data.clone()) })
        }
        _ => Ok(Transaction::new(given)),
    }
}

pub(super) async fn transact(handles: &Handles, arguments: &Arguments) -> Done {
    let first = arguments.at(0)?;
    let connection = match first {
        // A writer names the database by its configuration.
        Value::Map(_) => handles.folder.database(&name_of(arguments)?).await?,
        handle => handles.connection(handle).await?,
    };
    let transaction = transaction(&connection, arguments, arguments.at(1)?)?;
    let transacted = connection.transact_with(transaction).await?;
    report(handles, &connection, transacted).await
}

async fn report(handles: &Handles, connection: &Connection, transacted: Transacted) -> Done {
    let report = match transacted {
        Transacted::Now(report) => report,
        Transacted::Before(remembered) => connection.report_of(&remembered).await?,
    };
    Ok(shown(handles, connection, &report))
}

fn shown(handles: &Handles, connection: &Connection, report: &TxReport) -> Value {
    let (store, branch) = (connection.store_id(), connection.branch().name());
    // A commit at or after the transaction's own; the handle says which state on the way is meant.
    let commit = connection.snapshot().at.commit;
    let datoms = report.tx_data.iter().map(|d| handle::datom(report.db_after.datom_value(d)));
    handle::report([
        (kw!("db-before").into(), handles.of_db(store, branch, commit, &report.db_before)),
        (kw!("db-after").into(), handles.of_db(store, branch, commit, &report.db_after)),
        (kw!("tx-data").into(), Value::vector(datoms)),
        (
            kw!("tempids").into(),
            Value::map(report.tempids.iter().map(|(k, e)| (k.clone(), entity_value(*e)))),
        ),
        (kw!("tx-meta").into(), with_commit(&report.tx_meta, handles.commit_id(commit))),
    ])
}

fn with_commit(meta: &Value, commit: Value) -> Value {
    let own = match meta {
        Value::Map(entries) => entries.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
        _ => Vec::new(),
    };
    Value::map(own.into_iter().chain([(kw!("db/commitId").into(), commit)]))
}

pub(super) async fn merge(handles: &Handles, arguments: &Arguments) -> Done {
    let connection = handles.connection(arguments.at(0)?).await?;
    let parents: Vec<Value> = match arguments.at(1)? {
        Value::Set(parents) => parents.iter().cloned().collect(),
        Value::Vector(parents) | Value::List(parents) => parents.to_vec(),
        other => return Err(wrong(format!("expected a set of parents, got {other}"))),
    };
    let mut revisions = Vec::with_capacity(parents.len());
    for parent in &parents {
        revisions.push(revision(handles, &connection, parent).await?);
    }
    let mut transaction = transaction(&connection, arguments, arguments.at(2)?)?;
    if let Some(meta) = arguments.get(3) {
        transaction.meta = meta.clone();
    }
    let transacted = connection.merge_with(&revisions, transaction).await?;
    report(handles, &connection, transacted).await
}

async fn revision(
    handles: &Handles,
    connection: &Connection,
    value: &Value,
) -> Result<Revision, Problem> {
    match value {
        Value::Uuid(_) => Ok(handles.commit_of(connection, value).await?.into()),
        other => Revision::from_value(other)
            .ok_or_else(|| wrong(format!("{other} is neither a branch nor a commit"))),
    }
}

pub(super) async fn branch(handles: &Handles, arguments: &Arguments) -> Done {
    let connection = handles.connection(arguments.at(0)?).await?;
    let from = revision(handles, &connection, arguments.at(1)?).await?;
    let before = names(&connection).await?;
    connection.create_branch(from, branch_name(arguments.at(2)?)?).await?;
    Ok(Value::vector([before, names(&connection).await?]))
}

pub(super) async fn delete_branch(handles: &Handles, arguments: &Arguments) -> Done {
    let connection = handles.connection(arguments.at(0)?).await?;
    let branch = branch_name(arguments.at(1)?)?;
    let before = names(&connection).await?;
    handles.release_branch(connection.store_id(), branch).await?;
    connection.delete_branch(branch).await?;
    Ok(Value::vector([before, names(&connection).await?]))
}

pub(super) async fn gc_storage(handles: &Handles, arguments: &Arguments) -> Done {
    let connection = handles.connection(arguments.at(0)?).await?;
    let now = connection.db();
    let keep = match arguments.get(1) {
        Some(Value::Inst(before)) => {
            let age = now.counters().last_instant.saturating_sub(*before);
            Keep { younger_than: Duration::from_millis(u64::try_from(age).unwrap_or(0)) }
        }
        _ => Keep::default(),
    };
    let compacted = compact(&connection, keep).await?;
    Ok(Value::map([(kw!("bytes").into(), entity_value(compacted.reclaimed.bytes))]))
}
