//! A transaction happens once: what the writer remembers of the requests it carried out.
//!
//! The same request again gets the first outcome; with other data it is an error; a request so old
//! that it may have been forgotten has an unknown outcome and is never carried out a second time.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datahike_value::{Uuid, Value};

use super::entry::Note;
use super::{CommitError, check_version};
use crate::datom::TxId;
use crate::index::DecodeError;
use crate::index::codec::{Reader, get_value, put_value, put_varint};

const WHAT: &str = "table of requests";
const VERSION: u8 = 1;

/// Requests remembered of one client; so many a client may have under way.
pub const REQUESTS_PER_CLIENT_MAX: usize = 1_024;

/// Bytes of the requests remembered of all clients, encoded. The oldest are forgotten first.
pub const REQUEST_BYTES_MAX: usize = 2 << 20;

/// Clients remembered, be it only how far they got; the one that was heard of the longest ago is
/// forgotten first.
pub const CLIENTS_MAX: usize = 16_384;

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
    #[error(
        "the outcome of request {number} of client {client} is no longer known: look for its effect before sending it under a new number"
    )]
    Unknown {
        /// The client.
        client: Uuid,
        /// Its number.
        number: u64,
    },
}

/// The requests a writer remembers, bounded in clients, in requests of each, and in bytes.
///
/// What it forgets it never takes for new: of every client it knows how far it may have forgotten,
/// and once it has forgotten whole clients, one that it does not know must begin with its first
/// request. (One that comes again with its first and only request, after [`CLIENTS_MAX`] others, is
/// the one case it cannot tell.)
#[derive(Clone, Debug, Default)]
pub struct Dedup {
    clients: HashMap<Uuid, Client>,
    /// Clients by when they were last heard of.
    heard: BTreeMap<u64, Uuid>,
    /// Requests by when they were carried out.
    carried_out: BTreeMap<u64, RequestId>,
    clock: u64,
    bytes: usize,
    forgot_clients: bool,
}

#[derive(Clone, Debug, Default)]
struct Client {
    heard: u64,
    /// Everything up to here may have been forgotten.
    forgotten: u64,
    requests: BTreeMap<u64, Request>,
}

#[derive(Clone, Debug)]
struct Request {
    carried_out: u64,
    remembered: Arc<Remembered>,
}

impl Dedup {
    /// What to do about a request with this body.
    ///
    /// # Errors
    /// If its number was used for something else, or may be one that was forgotten.
    pub fn look_up(&self, request: RequestId, body: &[u8; 32]) -> Result<Outcome, DedupError> {
        let RequestId { client, number } = request;
        let known = self.clients.get(&client);
        match known.and_then(|known| known.requests.get(&number)) {
            Some(Request { remembered, .. }) if remembered.body == *body => {
                return Ok(Outcome::Done(Arc::clone(remembered)));
            }
            Some(_) => return Err(DedupError::OtherBody { client, number }),
            None => {}
        }
        let may_be_forgotten = match known {
            Some(known) => number <= known.forgotten,
            None => self.forgot_clients && number > 1,
        };
        match may_be_forgotten {
            true => Err(DedupError::Unknown { client, number }),
            false => Ok(Outcome::New),
        }
    }

    /// Remembers what an entry notes.
    pub fn remember(&mut self, note: &Note) {
        let Note { request, body, tx, tempids } = note.clone();
        self.hear(request.client);
        self.insert(request, Remembered { body, tx, tempids });
        self.forget();
    }

    /// How many requests are remembered.
    pub fn len(&self) -> usize {
        self.carried_out.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.carried_out.is_empty()
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn hear(&mut self, id: Uuid) {
        let now = self.tick();
        let client = self.clients.entry(id).or_default();
        self.heard.remove(&client.heard);
        client.heard = now;
        self.heard.insert(now, id);
    }

    fn insert(&mut self, request: RequestId, remembered: Remembered) {
        let carried_out = self.tick();
        let bytes = remembered.bytes();
        let client = self.clients.entry(request.client).or_default();
        let remembered = Request { carried_out, remembered: Arc::new(remembered) };
        if let Some(replaced) = client.requests.insert(request.number, remembered) {
            self.carried_out.remove(&replaced.carried_out);
            self.bytes = self.bytes.saturating_sub(replaced.remembered.bytes());
        }
        self.carried_out.insert(carried_out, request);
        self.bytes += bytes;
        let surplus = client.requests.len() > REQUESTS_PER_CLIENT_MAX;
        let oldest = client.requests.first_key_value().map(|(number, _)| *number);
        if let (true, Some(number)) = (surplus, oldest) {
            self.remove(RequestId { number, ..request });
        }
    }

    /// Forgets what is beyond the bounds; the newest request stays, whatever its size.
    fn forget(&mut self) {
        while self.bytes > REQUEST_BYTES_MAX && self.carried_out.len() > 1 {
            let Some((_, oldest)) = self.carried_out.first_key_value() else { break };
            self.remove(*oldest);
        }
        while self.clients.len() > CLIENTS_MAX {
            let Some((_, id)) = self.heard.pop_first() else { break };
            let requests = self.clients.get(&id).into_iter().flat_map(|c| c.requests.keys());
            for number in requests.copied().collect::<Vec<_>>() {
                self.remove(RequestId { client: id, number });
            }
            self.clients.remove(&id);
            self.forgot_clients = true;
        }
    }

    fn remove(&mut self, request: RequestId) {
        let Some(client) = self.clients.get_mut(&request.client) else { return };
        let Some(removed) = client.requests.remove(&request.number) else { return };
        client.forgotten = client.forgotten.max(request.number);
        self.carried_out.remove(&removed.carried_out);
        self.bytes = self.bytes.saturating_sub(removed.remembered.bytes());
    }

    /// Its bytes, as a block: the clients from the one heard of the longest ago, then the requests
    /// in the order in which they were carried out.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, u8::from(self.forgot_clients)];
        put_varint(&mut out, self.heard.len() as u64);
        let mut places = HashMap::with_capacity(self.heard.len());
        for (place, id) in self.heard.values().enumerate() {
            places.insert(*id, place as u64);
            out.extend_from_slice(id.as_bytes());
            put_varint(&mut out, self.clients.get(id).map_or(0, |client| client.forgotten));
        }
        put_varint(&mut out, self.carried_out.len() as u64);
        for request in self.carried_out.values() {
            let client = self.clients.get(&request.client);
            let known = client.and_then(|client| client.requests.get(&request.number));
            if let (Some(place), Some(known)) = (places.get(&request.client), known) {
                put_varint(&mut out, *place);
                put_varint(&mut out, request.number);
                known.remembered.put(&mut out);
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
        check_version(&mut reader, WHAT, VERSION)?;
        let mut table = Self::default();
        table.read(&mut reader).map_err(CommitError::decode(WHAT))?;
        Ok(table)
    }

    fn read(&mut self, reader: &mut Reader<'_>) -> Result<(), DecodeError> {
        self.forgot_clients = match reader.byte()? {
            flag @ (0 | 1) => flag == 1,
            _ => return Err(DecodeError::Malformed { what: "a flag is neither set nor not" }),
        };
        let mut ids = Vec::new();
        for _ in 0..reader.count()? {
            let id = Uuid::from_bytes(reader.array()?);
            if self.clients.contains_key(&id) {
                return Err(DecodeError::Malformed { what: "a client stands there twice" });
            }
            self.hear(id);
            let forgotten = reader.varint()?;
            self.clients.entry(id).and_modify(|client| client.forgotten = forgotten);
            ids.push(id);
        }
        for _ in 0..reader.count()? {
            let place = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
            let client = ids.get(place);
            let client = *client.ok_or(DecodeError::Malformed { what: "no such client" })?;
            let request = RequestId { client, number: reader.varint()? };
            self.insert(request, Remembered::get(reader)?);
        }
        reader.finish()
    }
}

impl Remembered {
    /// About how many it takes in the encoded table.
    fn bytes(&self) -> usize {
        48 + self.tempids.iter().map(|(tempid, _)| 8 + text_bytes(tempid)).sum::<usize>()
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.body);
        put_varint(out, self.tx);
        put_varint(out, self.tempids.len() as u64);
        for (tempid, id) in &self.tempids {
            put_value(out, tempid);
            put_varint(out, *id);
        }
    }

    pub(super) fn get(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let body = reader.array()?;
        let tx = reader.varint()?;
        let count = reader.count()?;
        let tempids = (0..count)
            .map(|_| Ok((get_value(reader)?, reader.varint()?)))
            .collect::<Result<_, _>>()?;
        Ok(Self { body, tx, tempids })
    }
}

/// Tempids are integers and strings.
fn text_bytes(tempid: &Value) -> usize {
    tempid.as_str().map_or(2, str::len)
}
