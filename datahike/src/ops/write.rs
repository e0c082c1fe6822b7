//! Operations that change something, and those on all databases.

use std::collections::BTreeMap;

use datahike_core::commit::RequestId;
use datahike_core::db::{Db, entity_value};
use datahike_core::index::{Index, Prefix, Range};
use datahike_core::schema::system;
use datahike_peer::BoxFuture;
use datahike_value::{Value, kw};

use super::{Arguments, Bounds, Host};
use crate::config::Config;
use crate::connection::Connection;
use crate::error::Error;
use crate::versioning::Revision;
use crate::writer::{Transacted, Transaction};

type Answer<'a> = BoxFuture<'a, Result<Value, Error>>;

pub(super) fn transact<'a>(
    connection: &'a Connection,
    arguments: Arguments<'a>,
    _: Bounds,
) -> Answer<'a> {
    Box::pin(async move {
        let transacted = connection.transact_with(transaction(&arguments)?).await?;
        report(connection, &transacted).await
    })
}

pub(super) fn merge<'a>(
    connection: &'a Connection,
    arguments: Arguments<'a>,
    _: Bounds,
) -> Answer<'a> {
    Box::pin(async move {
        let parents: Vec<Revision> = arguments
            .items("parents")?
            .iter()
            .map(Revision::from_value)
            .collect::<Option<_>>()
            .ok_or_else(|| arguments.wrong(":parents are no branches and commits"))?;
        let transacted = connection.merge_with(&parents, transaction(&arguments)?).await?;
        report(connection, &transacted).await
    })
}

fn transaction(arguments: &Arguments<'_>) -> Result<Transaction, Error> {
    let request = match (arguments.uuid("client")?, arguments.natural("request")?) {
        (Some(client), Some(number)) => Some(RequestId { client, number }),
        (None, None) => None,
        _ => return Err(arguments.wrong(":client and :request go together")),
    };
    Ok(Transaction {
        data: arguments.value("tx-data")?.clone(),
        meta: arguments.get("tx-meta").cloned().unwrap_or_default(),
        parents: Vec::new(),
        request,
        in_sequence: arguments.flag("in-sequence")?,
    })
}

/// `{:tx … :tx-instant … :tempids {…} :datoms n}`
async fn report(connection: &Connection, transacted: &Transacted) -> Result<Value, Error> {
    let (tx, instant, tempids, datoms) = match transacted {
        Transacted::Now(report) => (
            report.tx,
            Some(report.tx_instant),
            report.tempids.clone(),
            Some(report.tx_data.len() as u64),
        ),
        Transacted::Before(remembered) => {
            let db = connection.db();
            let instant = connection.settle(|| instant_of(&db, remembered.tx)).await?;
            let tempids: BTreeMap<Value, u64> = remembered.tempids.iter().cloned().collect();
            (remembered.tx, instant, tempids, None)
        }
    };
    let tempids = tempids.into_iter().filter(|(tempid, _)| !matches!(tempid, Value::Keyword(_)));
    let mut entries = vec![
        (kw!("tx").into(), entity_value(tx)),
        (kw!("tx-instant").into(), instant.map(Value::Inst).unwrap_or_default()),
        (kw!("tempids").into(), Value::map(tempids.map(|(k, e)| (k, entity_value(e))))),
    ];
    // Of a transaction that had happened before, the count of its datoms is not remembered.
    if let Some(datoms) = datoms {
        entries.push((kw!("datoms").into(), entity_value(datoms)));
    }
    Ok(Value::map(entries))
}

fn instant_of(db: &Db, tx: u64) -> Result<Option<i64>, datahike_core::block::Missing> {
    let prefix = Prefix { e: Some(tx), a: Some(system::TX_INSTANT), ..Prefix::default() };
    let found = db.indexes().current(&Range::prefix(Index::Eavt, prefix)).next().transpose()?;
    Ok(found.and_then(|datom| datom.v.as_inst()))
}

pub(super) fn create<'a>(host: &'a dyn Host, arguments: Arguments<'a>) -> Answer<'a> {
    Box::pin(async move {
        let config = match arguments.get("config") {
            None => Config::memory(),
            Some(Value::Map(entries)) => {
                // Where it is kept is for the host to say.
                let mut entries = (**entries).clone();
                let store = Config::memory().store.to_value();
                entries.entry(kw!("store").into()).or_insert(store);
                Config::from_value(&Value::map(entries))?
            }
            Some(config) => Config::from_value(config)?,
        };
        let created = host.create(arguments.text("name")?, &config).await?;
        Ok(Value::Uuid(created.store_id()))
    })
}

pub(super) fn delete<'a>(host: &'a dyn Host, arguments: Arguments<'a>) -> Answer<'a> {
    Box::pin(async move {
        host.delete(arguments.text("name")?).await?;
        Ok(Value::Nil)
    })
}

pub(super) fn list<'a>(host: &'a dyn Host, _: Arguments<'a>) -> Answer<'a> {
    Box::pin(async move { Ok(Value::vector(host.list().await?)) })
}
