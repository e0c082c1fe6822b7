//! A transaction happens once: what the writer remembers of the requests it carried out.
//!
//! The same request again gets the first outcome; with other data it is an error; a request so old
//! that it may have been forgotten has an unknown outcome and is never carried out a second time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datahike_value::{Uuid, Value};

use super::CommitError;
use super::entry::Note;
use crate::datom::TxId;
use crate::index::DecodeError;
use crate::index::codec::{Reader, get_value, put_value, put_varint};

const WHAT: &str = "table of requests";
const VERSION: u8 = 1;

/// Requests remembered of one client.
pub const REQUESTS_PER_CLIENT_MAX: usize = 1_024;

/// Clients remembered; the one that was heard of the longest ago is forgotten first.
pub const CLIENTS_MAX: usize = 4_096;

/// A transaction as its client names it. A client counts its requests up from 1, and asks again
/// under the same number when it did not hear of the outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// Who asks.
    pub client: Uuid,
    /// The client's number for it.
    pub number: u64,
}

impl RequestId {
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.client.as_bytes());
        put_varint(out, self.number);
    }

    pub(super) fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { client: Uuid::from_bytes(reader.array()?), number: reader.varint()? })
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// Hash of the transaction data as it was sent.
    pub body: [u8; 32],
    /// The transaction it became.
    pub tx: TxId,
    /// Ids given to its tempids.
    pub tempids: Vec<(Value, u64)>,
}

/// What to do about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is new: carry it out.
    New,
    /// It was carried out.
    Done(Arc<Remembered>),
}

/// Why a request is neither new nor known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DedupError {
    /// The number was used for other data.
    #[error("request {number} of client {client} was sent before with other transaction data")]
    OtherBody {
        /// The client.
        client: Uuid,
        /// Its number.
        number: u64,
    },
    /// It may have been carried out so long ago that nobody remembers.
    #[error("the outcome of request {number} of client {client} is no longer known: look for its effect before sending it under a new number")]
    Unknown {
        /// The client.
        client: Uuid,
        /// Its number.
        number: u64,
    },
}

/// The requests a writer remembers, bounded in clients and in requests of each.
#[derive(Clone, Debug, Default)]
pub struct Dedup {
    clients: HashMap<Uuid, Client>,
    /// By when they were last heard of.
    ages: BTreeMap<u64, Uuid>,
    clock: u64,
}

#[derive(Clone, Debug, Default)]
struct Client {
    heard: u64,
    /// Everything up to here may have been forgotten.
    forgotten: u64,
    requests: BTreeMap<u64, Arc<Remembered>>,
}

impl Dedup {
    /// What to do about a request with this body.
    ///
    /// # Errors
    /// If its number was used for something else, or is too old.
    pub fn look_up(&self, request: RequestId, body: &[u8; 32]) -> Result<Outcome, DedupError> {
        let RequestId { client, number } = request;
        let Some(known) = self.clients.get(&client) else { return Ok(Outcome::New) };
        match known.requests.get(&number) {
            Some(remembered) if remembered.body == *body => Ok(Outcome::Done(remembered.clone())),
            Some(_) => Err(DedupError::OtherBody { client, number }),
            None if number <= known.forgotten => Err(DedupError::Unknown { client, number }),
            None => Ok(Outcome::New),
        }
    }

    /// Remembers what an entry notes.
    pub fn remember(&mut self, note: &Note) {
        let Note { request, body, tx, tempids } = note.clone();
        self.clock += 1;
        let client = self.clients.entry(request.client).or_default();
        self.ages.remove(&client.heard);
        client.heard = self.clock;
        self.ages.insert(self.clock, request.client);
        client.requests.insert(request.number, Arc::new(Remembered { body, tx, tempids }));
        while client.requests.len() > REQUESTS_PER_CLIENT_MAX {
            let Some((oldest, _)) = client.requests.pop_first() else { break };
            client.forgotten = client.forgotten.max(oldest);
        }
        while self.clients.len() > CLIENTS_MAX {
            let Some((_, oldest)) = self.ages.pop_first() else { break };
            self.clients.remove(&oldest);
        }
    }

    /// Its bytes, as a block.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_varint(&mut out, self.ages.len() as u64);
        for id in self.ages.values() {
            let Some(client) = self.clients.get(id) else { continue };
            out.extend_from_slice(id.as_bytes());
            put_varint(&mut out, client.forgotten);
            put_varint(&mut out, client.requests.len() as u64);
            for (number, remembered) in &client.requests {
                put_varint(&mut out, *number);
                out.extend_from_slice(&remembered.body);
                put_varint(&mut out, remembered.tx);
                put_varint(&mut out, remembered.tempids.len() as u64);
                for (tempid, id) in &remembered.tempids {
                    put_value(&mut out, tempid);
                    put_varint(&mut out, *id);
                }
            }
        }
        out
    }

    /// From its bytes.
    ///
    /// # Errors
    /// If they are none, or of a newer format.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommitError> {
        let mut reader = Reader::new(bytes);
        let version = reader.byte().map_err(CommitError::decode(WHAT))?;
        if version != VERSION {
            return Err(CommitError::Version { what: WHAT, found: version, supported: VERSION });
        }
        let mut table = Self::default();
        let mut read = || {
            for _ in 0..reader.count()? {
                let id = Uuid::from_bytes(reader.array()?);
                table.clock += 1;
                let mut client =
                    Client { heard: table.clock, forgotten: reader.varint()?, ..Client::default() };
                for _ in 0..reader.count()? {
                    let number = reader.varint()?;
                    let body = reader.array()?;
                    let tx = reader.varint()?;
                    let tempids = (0..reader.count()?)
                        .map(|_| Ok((get_value(&mut reader)?, reader.varint()?)))
                        .collect::<Result<_, DecodeError>>()?;
                    client.requests.insert(number, Arc::new(Remembered { body, tx, tempids }));
                }
                table.ages.insert(table.clock, id);
                table.clients.insert(id, client);
            }
            reader.finish()
        };
        read().map_err(CommitError::decode(WHAT))?;
        Ok(table)
    }
}
