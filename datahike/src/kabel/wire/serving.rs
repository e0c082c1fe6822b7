//! What only a server reads and says.

use datahike_core::commit::{Position, RequestId};
use datahike_peer::Refusal;
use datahike_value::{Uuid, Value, kw};

use super::{Name, Receipt, Request, Told, beginning, id, natural};
use crate::error::Error;
use crate::writer::{Transacted, Transaction};

impl Name {
    pub(in crate::kabel) fn from_value(value: &Value) -> Result<Self, Refusal> {
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

impl Request {
    pub(in crate::kabel) fn from_value(value: &Value) -> Result<Self, Refusal> {
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

fn branch_of(value: &Value) -> String {
    let branch = value.get(&kw!("branch")).and_then(Value::as_str);
    branch.unwrap_or(crate::config::Config::BRANCH).to_owned()
}

impl Told {
    fn of(at: &Position) -> Self {
        Self { seq: at.seq, commit: beginning(at) }
    }
}

impl Receipt {
    pub(in crate::kabel) fn of(transacted: &Transacted, at: Option<&Position>) -> Self {
        let (tx, tempids) = match transacted {
            Transacted::Now(report) => {
                (report.tx, report.tempids.iter().map(|(k, id)| (k.clone(), *id)).collect())
            }
            Transacted::Before(remembered) => (remembered.tx, remembered.tempids.clone()),
        };
        Self { tx, tempids, at: at.map(Told::of) }
    }

    pub(in crate::kabel) fn to_value(&self) -> Value {
        let tempids = self.tempids.iter().map(|(tempid, e)| (tempid.clone(), id(*e)));
        let told = self.at.into_iter().flat_map(|at| {
            [(kw!("seq").into(), id(at.seq)), (kw!("commit").into(), Value::Long(at.commit))]
        });
        let entries =
            [(kw!("tx").into(), id(self.tx)), (kw!("tempids").into(), Value::map(tempids))];
        Value::map(entries.into_iter().chain(told))
    }
}

/// A refusal as the client gets it: code and words, never a printed Rust value.
pub(in crate::kabel) fn refusal(error: &Error) -> Refusal {
    Refusal::new(error.code(), error.to_string())
}
