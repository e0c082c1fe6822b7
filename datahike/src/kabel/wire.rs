//! Names, arguments and results of the functions that a server has for databases.

use datahike_core::commit::{Position, RequestId};
use datahike_peer::Refusal;
use datahike_value::{Keyword, Uuid, Value, kw};

use crate::error::Error;
use crate::writer::{Transacted, Transaction};

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

    pub(super) fn from_value(value: &Value) -> Result<Self, Refusal> {
        match value {
            Value::Uuid(id) => Ok(Self::Id(*id)),
            // Whoever types a UUID as text means the store.
            Value::Str(name) => {
                Ok(Uuid::parse_str(name).map_or_else(|_| Self::Text(name.to_string()), Self::Id))
            }
            _ => Err(Refusal::new(
                "scope/bad-arguments",
                "a database is named by a uuid or a string",
            )),
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

    pub(super) fn from_value(value: &Value) -> Result<Self, Refusal> {
        let missing = |key: &str| Refusal::new("scope/bad-arguments", format!("{key} is missing"));
        let client = value.get(&kw!("client")).and_then(Value::as_uuid);
        let number = value.get(&kw!("request")).and_then(natural);
        let request = client.zip(number).map(|(client, number)| RequestId { client, number });
        let parents = value.get(&kw!("parents")).and_then(Value::as_slice).unwrap_or_default();
        let parents = parents.iter().map(|id| id.as_str()?.parse().ok()).collect::<Option<_>>();
        let no_parents = || Refusal::new("scope/bad-arguments", ":parents are no commit ids");
        Ok(Self {
            database: Name::from_value(value.get(&kw!("db")).ok_or_else(|| missing(":db"))?)?,
            branch: branch_of(value),
            transaction: Transaction {
                data: value.get(&kw!("tx-data")).ok_or_else(|| missing(":tx-data"))?.clone(),
                meta: value.get(&kw!("tx-meta")).cloned().unwrap_or_default(),
                parents: parents.ok_or_else(no_parents)?,
                request,
                in_sequence: false,
            },
        })
    }
}

pub(super) fn branch_of(value: &Value) -> String {
    let branch = value.get(&kw!("branch")).and_then(Value::as_str);
    branch.unwrap_or(crate::config::Config::BRANCH).to_owned()
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
    #[cfg(not(target_family = "wasm"))]
    fn of(at: &Position) -> Self {
        Self { seq: at.seq, commit: beginning(at) }
    }

    pub(super) fn is(&self, at: &Position) -> bool {
        *self == Self { seq: at.seq, commit: beginning(at) }
    }
}

/// Enough to tell histories apart that were not made to look alike.
fn beginning(at: &Position) -> i64 {
    at.commit.0.first_chunk().map_or(0, |bytes| i64::from_be_bytes(*bytes))
}

impl Receipt {
    #[cfg(not(target_family = "wasm"))]
    pub(super) fn of(transacted: &Transacted, at: Option<&Position>) -> Self {
        let (tx, tempids) = match transacted {
            Transacted::Now(report) => {
                (report.tx, report.tempids.iter().map(|(k, id)| (k.clone(), *id)).collect())
            }
            Transacted::Before(remembered) => (remembered.tx, remembered.tempids.clone()),
        };
        Self { tx, tempids, at: at.map(Told::of) }
    }

    #[cfg(not(target_family = "wasm"))]
    pub(super) fn to_value(&self) -> Value {
        let tempids = self.tempids.iter().map(|(tempid, e)| (tempid.clone(), id(*e)));
        let told = self.at.into_iter().flat_map(|at| {
            [(kw!("seq").into(), id(at.seq)), (kw!("commit").into(), Value::Long(at.commit))]
        });
        let entries =
            [(kw!("tx").into(), id(self.tx)), (kw!("tempids").into(), Value::map(tempids))];
        Value::map(entries.into_iter().chain(told))
    }

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

/// A refusal as the client gets it: code and words, never a printed Rust value.
pub(super) fn refusal(error: &Error) -> Refusal {
    Refusal::new(error.code(), error.to_string())
}

/// A code without its colon.
pub(super) fn code_text(code: &Keyword) -> String {
    code.text().to_owned()
}
