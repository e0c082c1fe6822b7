//! Names, arguments and results of the functions that a server has for databases.

#[cfg(not(target_family = "wasm"))]
mod serving;

use datahike_core::commit::{Position, RequestId};
use datahike_value::{Keyword, Uuid, Value, kw};

#[cfg(not(target_family = "wasm"))]
pub(super) use self::serving::refusal;
use crate::writer::Transaction;

pub(super) const CREATE: &str = "datahike/create-database";
pub(super) const DELETE: &str = "datahike/delete-database";
pub(super) const DESCRIBE: &str = "datahike/describe-database";
pub(super) const TRANSACT: &str = "datahike/transact";

/// How a client names a database of the server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Name {
    Id(Uuid),
    Text(String),
}

impl Name {
    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Id(id) => Value::Uuid(*id),
            Self::Text(name) => name.as_str().into(),
        }
    }
}

/// A transaction on its way to the server.
pub(super) struct Request {
    pub(super) database: Name,
    pub(super) branch: String,
    pub(super) transaction: Transaction,
}

impl Request {
    pub(super) fn to_value(&self) -> Value {
        let Transaction { data, meta, parents, request, .. } = &self.transaction;
        let mut entries = vec![
            (kw!("db").into(), self.database.to_value()),
            (kw!("branch").into(), self.branch.as_str().into()),
            (kw!("tx-data").into(), data.clone()),
        ];
        if !meta.is_nil() {
            entries.push((kw!("tx-meta").into(), meta.clone()));
        }
        if !parents.is_empty() {
            let parents = parents.iter().map(|id| Value::from(id.to_string()));
            entries.push((kw!("parents").into(), Value::vector(parents)));
        }
        if let Some(RequestId { client, number }) = request {
            entries.push((kw!("client").into(), Value::Uuid(*client)));
            entries.push((kw!("request").into(), id(*number)));
        }
        Value::map(entries)
    }
}

/// What a client hears of its transaction; the datoms come to its mirror.
pub(super) struct Receipt {
    pub(super) tx: u64,
    pub(super) tempids: Vec<(Value, u64)>,
    /// A commit that has it, as far as the server says.
    pub(super) at: Option<Told>,
}

/// A commit as a receipt names it: its number, and the beginning of its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) seq: u64,
    commit: i64,
}

impl Told {
    pub(super) fn is(&self, at: &Position) -> bool {
        *self == Self { seq: at.seq, commit: beginning(at) }
    }
}

/// Enough to tell histories apart that were not made to look alike.
fn beginning(at: &Position) -> i64 {
    at.commit.0.first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes))
}

impl Receipt {
    pub(super) fn from_value(value: &Value) -> Option<Self> {
        let tempids = value.get(&kw!("tempids")).and_then(Value::as_map)?;
        let tempids = tempids.iter().map(|(tempid, e)| Some((tempid.clone(), natural(e)?)));
        let seq = value.get(&kw!("seq")).and_then(natural);
        let commit = value.get(&kw!("commit")).and_then(Value::as_long);
        Some(Self {
            tx: value.get(&kw!("tx")).and_then(natural)?,
            tempids: tempids.collect::<Option<_>>()?,
            at: seq.zip(commit).map(|(seq, commit)| Told { seq, commit }),
        })
    }
}

fn id(number: u64) -> Value {
    Value::Long(i64::try_from(number).unwrap_or(i64::MAX))
}

fn natural(value: &Value) -> Option<u64> {
    value.as_long().and_then(|number| u64::try_from(number).ok())
}

/// A code without its colon.
pub(super) fn code_text(code: &Keyword) -> String {
    code.text().to_owned()
}
