//! The bytes of the messages.

use bytes::{BufMut, Bytes, BytesMut};

use super::{
    Block, Body, Cause, DecodeError, Plan, Request, Reset, Snapshot, Subscribe, Supply, Update,
};
use crate::{
    limits::{
        BLOCKS_PER_MESSAGE_MAX, ENTRIES_PER_MESSAGE_MAX, FETCH_ADDRESSES_MAX, MESSAGE_BYTES_MAX,
        SEEDS_PER_MESSAGE_MAX, TEXT_BYTES_MAX,
    },
    point::{Database, Have, Mode, Partial, StoreName},
    wire::{Reader, Write},
};

const CAUSES: [(u8, Cause); 15] = [
    (1, Cause::UnknownDatabase),
    (2, Cause::NotAllowed),
    (3, Cause::AlreadySubscribed),
    (4, Cause::TooManySubscriptions),
    (5, Cause::Protocol),
    (6, Cause::TooSlow),
    (7, Cause::Internal),
    (8, Cause::Shutdown),
    (9, Cause::Deleted),
    (10, Cause::Damaged),
    (16, Cause::Reset(Reset::OtherStore)),
    (17, Cause::Reset(Reset::OtherEpoch)),
    (18, Cause::Reset(Reset::ServerOlder)),
    (19, Cause::Reset(Reset::Diverged)),
    (20, Cause::Reset(Reset::Replaced)),
];

const SUBSCRIBE: u8 = 1;
const ACK: u8 = 2;
const FETCH: u8 = 3;
const CHANGES: u8 = 4;
const READY: u8 = 5;
const UNSUBSCRIBE: u8 = 6;

const PLAN: u8 = 16;
const REFUSED: u8 = 17;
const COMMIT: u8 = 18;
const ENTRIES: u8 = 19;
const BATCH: u8 = 20;
const DIFFERENCE: u8 = 21;
const SNAPSHOT: u8 = 22;
const SEEDS: u8 = 23;
const BLOCKS: u8 = 24;
const FLUSH: u8 = 25;
const CLOSED: u8 = 26;

impl Request {
    /// The message's bytes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        let mut start = |tag: u8, number: u32| {
            out.put_u8(tag);
            out.varint(u64::from(number));
        };
        match self {
            Self::Subscribe { request, subscribe } => {
                start(SUBSCRIBE, *request);
                put_subscribe(&mut out, subscribe);
            }
            Self::Ack { topic, bytes } => {
                start(ACK, *topic);
                out.varint(*bytes);
            }
            Self::Fetch { topic, request, addresses } => {
                start(FETCH, *topic);
                out.varint(u64::from(*request));
                out.addresses(addresses);
            }
            Self::Changes { topic, base, to } => {
                start(CHANGES, *topic);
                out.address(base);
                out.flush(to);
            }
            Self::Ready { topic, flush } => {
                start(READY, *topic);
                out.address(flush);
            }
            Self::Unsubscribe { topic } => start(UNSUBSCRIBE, *topic),
        }
        out.freeze()
    }

    /// Reads a message.
    ///
    /// # Errors
    /// If the bytes are not one whole message within the limits.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader(bytes);
        let tag = reader.u8("tag")?;
        let number = reader.u32("subscription")?;
        let message = match tag {
            SUBSCRIBE => {
                let subscribe = Box::new(read_subscribe(&mut reader)?);
                Self::Subscribe { request: number, subscribe }
            }
            ACK => Self::Ack { topic: number, bytes: reader.varint("acknowledged bytes")? },
            FETCH => Self::Fetch {
                topic: number,
                request: reader.u32("request")?,
                addresses: reader.addresses(FETCH_ADDRESSES_MAX)?,
            },
            CHANGES => {
                Self::Changes { topic: number, base: reader.address()?, to: reader.flush()? }
            }
            READY => Self::Ready { topic: number, flush: reader.address()? },
            UNSUBSCRIBE => Self::Unsubscribe { topic: number },
            found => {
                return Err(DecodeError::Unknown { what: "request tag", found: u64::from(found) });
            }
        };
        reader.end()?;
        Ok(message)
    }
}

impl Update {
    /// The message's bytes, in one piece and not compressed.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(self.size_hint());
        let (tag, number) = self.tag();
        out.put_u8(tag);
        out.varint(u64::from(number));
        match self {
            Self::Plan { topic, identity, shape, head, folds, plan, .. } => {
                out.varint(u64::from(*topic));
                out.identity(identity);
                out.bytes(&shape.0);
                out.head(head);
                out.put_u8(u8::from(*folds));
                out.put_u8(match plan {
                    Plan::Current => 0,
                    Plan::Follow => 1,
                    Plan::Snapshot => 2,
                });
            }
            Self::Refused { cause, text, .. } | Self::Closed { cause, text, .. } => {
                let code = CAUSES.iter().find(|(_, known)| known == cause);
                out.put_u8(code.map_or(7, |(code, _)| *code));
                out.text(text);
            }
            Self::Commit { seq, entry, .. } => {
                out.varint(*seq);
                out.put_slice(entry);
            }
            Self::Entries { first, entries, .. } => {
                out.varint(*first);
                out.varint(entries.len() as u64);
                entries.iter().for_each(|entry| out.bytes(entry));
            }
            Self::Batch { from, to, bytes, .. } => {
                out.varint(*from);
                out.point(to);
                out.put_slice(bytes);
            }
            Self::Difference { to, bytes, .. } => {
                out.flush(to);
                out.put_slice(bytes);
            }
            Self::Snapshot { snapshot, .. } => put_snapshot(&mut out, snapshot),
            Self::Seeds { last, addresses, .. } => {
                out.put_u8(u8::from(*last));
                out.addresses(addresses);
            }
            Self::Blocks { request, last, blocks, .. } => {
                out.varint(u64::from(*request));
                out.put_u8(u8::from(*last));
                out.varint(blocks.len() as u64);
                blocks.iter().for_each(|block| put_block(&mut out, block));
            }
            Self::Flush { flush, sent, .. } => {
                out.flush(flush);
                out.put_u8(u8::from(*sent));
            }
        }
        out.freeze()
    }

    /// Reads a message that was neither split nor compressed.
    ///
    /// # Errors
    /// If the bytes are not one whole message within the limits.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader(bytes);
        let tag = reader.u8("tag")?;
        let topic = reader.u32("subscription")?;
        let message = match tag {
            PLAN => read_plan(&mut reader, topic)?,
            REFUSED => {
                let (cause, text) = read_cause(&mut reader)?;
                Self::Refused { request: topic, cause, text }
            }
            COMMIT => Self::Commit { topic, seq: reader.varint("seq")?, entry: reader.rest() },
            ENTRIES => {
                let first = reader.varint("seq")?;
                let count = reader.count("entries", ENTRIES_PER_MESSAGE_MAX, 1)?;
                let entries = (0..count).map(|_| reader.bytes("entry", MESSAGE_BYTES_MAX));
                Self::Entries { topic, first, entries: entries.collect::<Result<_, _>>()? }
            }
            BATCH => {
                let (from, to) = (reader.varint("seq")?, reader.point()?);
                Self::Batch { topic, from, to, bytes: reader.rest() }
            }
            DIFFERENCE => Self::Difference { topic, to: reader.flush()?, bytes: reader.rest() },
            SNAPSHOT => Self::Snapshot { topic, snapshot: read_snapshot(&mut reader)? },
            SEEDS => Self::Seeds {
                topic,
                last: reader.bool("last")?,
                addresses: reader.addresses(SEEDS_PER_MESSAGE_MAX)?,
            },
            BLOCKS => {
                let (request, last) = (reader.u32("request")?, reader.bool("last")?);
                let count = reader.count("blocks", BLOCKS_PER_MESSAGE_MAX, 33)?;
                let blocks = (0..count).map(|_| read_block(&mut reader));
                Self::Blocks { topic, request, last, blocks: blocks.collect::<Result<_, _>>()? }
            }
            FLUSH => Self::Flush { topic, flush: reader.flush()?, sent: reader.bool("sent")? },
            CLOSED => {
                let (cause, text) = read_cause(&mut reader)?;
                Self::Closed { topic, cause, text }
            }
            found => {
                return Err(DecodeError::Unknown { what: "update tag", found: u64::from(found) });
            }
        };
        reader.end()?;
        Ok(message)
    }

    fn tag(&self) -> (u8, u32) {
        match self {
            Self::Plan { request, .. } => (PLAN, *request),
            Self::Refused { request, .. } => (REFUSED, *request),
            Self::Commit { topic, .. } => (COMMIT, *topic),
            Self::Entries { topic, .. } => (ENTRIES, *topic),
            Self::Batch { topic, .. } => (BATCH, *topic),
            Self::Difference { topic, .. } => (DIFFERENCE, *topic),
            Self::Snapshot { topic, .. } => (SNAPSHOT, *topic),
            Self::Seeds { topic, .. } => (SEEDS, *topic),
            Self::Blocks { topic, .. } => (BLOCKS, *topic),
            Self::Flush { topic, .. } => (FLUSH, *topic),
            Self::Closed { topic, .. } => (CLOSED, *topic),
        }
    }

    fn size_hint(&self) -> usize {
        16 + match self {
            Self::Commit { entry, .. } => entry.len(),
            Self::Entries { entries, .. } => entries.iter().map(|entry| entry.len() + 4).sum(),
            Self::Batch { bytes, .. } | Self::Difference { bytes, .. } => bytes.len() + 80,
            Self::Seeds { addresses, .. } => addresses.len() * 32,
            Self::Blocks { blocks, .. } => blocks
                .iter()
                .map(|block| match &block.body {
                    Body::Whole(bytes) => 40 + bytes.len(),
                    Body::Patch { patch, .. } => 72 + patch.len(),
                    Body::Absent => 33,
                })
                .sum(),
            _ => 240,
        }
    }
}

fn put_subscribe(out: &mut BytesMut, subscribe: &Subscribe) {
    match &subscribe.database.store {
        StoreName::Id(id) => {
            out.put_u8(0);
            out.put_slice(id.as_bytes());
        }
        StoreName::Name(name) => {
            out.put_u8(1);
            out.text(name);
        }
    }
    out.text(&subscribe.database.branch);
    out.put_u8(match subscribe.mode {
        Mode::Full => 0,
        Mode::Blocks => 1,
        Mode::Lazy => 2,
    });
    out.varint(subscribe.window);
    let have = &subscribe.have;
    out.option(have.identity.as_ref(), |out, identity| out.identity(identity));
    out.option(have.shape.as_ref(), |out, shape| out.bytes(&shape.0));
    out.option(have.head.as_ref(), |out, head| out.head(head));
    out.option(have.partial.as_ref(), |out, partial| {
        out.address(&partial.flush);
        out.varint(partial.seeds);
    });
}

fn read_subscribe(reader: &mut Reader) -> Result<Subscribe, DecodeError> {
    let store = match reader.u8("store")? {
        0 => StoreName::Id(uuid::Uuid::from_bytes(reader.array("store id")?)),
        1 => StoreName::Name(reader.name("store name")?),
        found => return Err(DecodeError::Unknown { what: "store name", found: found.into() }),
    };
    let branch = reader.name("branch")?;
    let mode = match reader.u8("mode")? {
        0 => Mode::Full,
        1 => Mode::Blocks,
        2 => Mode::Lazy,
        found => return Err(DecodeError::Unknown { what: "mode", found: found.into() }),
    };
    let window = reader.varint("window")?;
    let have = Have {
        identity: reader.option("identity", Reader::identity)?,
        shape: reader.option("shape", Reader::shape)?,
        head: reader.option("head", Reader::head)?,
        partial: reader.option("partial", |reader| {
            Ok(Partial { flush: reader.address()?, seeds: reader.varint("seeds")? })
        })?,
    };
    Ok(Subscribe { database: Database { store, branch }, mode, window, have })
}

fn read_plan(reader: &mut Reader, request: u32) -> Result<Update, DecodeError> {
    Ok(Update::Plan {
        request,
        topic: reader.u32("subscription")?,
        identity: reader.identity()?,
        shape: reader.shape()?,
        head: reader.head()?,
        folds: reader.bool("folds")?,
        plan: match reader.u8("plan")? {
            0 => Plan::Current,
            1 => Plan::Follow,
            2 => Plan::Snapshot,
            found => return Err(DecodeError::Unknown { what: "plan", found: found.into() }),
        },
    })
}

fn put_snapshot(out: &mut BytesMut, snapshot: &Snapshot) {
    out.flush(&snapshot.flush);
    out.varint(snapshot.seeds);
    out.varint(snapshot.bytes);
    match snapshot.supply {
        Supply::Push { from } => {
            out.put_u8(0);
            out.varint(from);
        }
        Supply::List => out.put_u8(1),
        Supply::Fetch => out.put_u8(2),
    }
}

fn read_snapshot(reader: &mut Reader) -> Result<Snapshot, DecodeError> {
    Ok(Snapshot {
        flush: reader.flush()?,
        seeds: reader.varint("seeds")?,
        bytes: reader.varint("bytes")?,
        supply: match reader.u8("supply")? {
            0 => Supply::Push { from: reader.varint("first seed")? },
            1 => Supply::List,
            2 => Supply::Fetch,
            found => return Err(DecodeError::Unknown { what: "supply", found: found.into() }),
        },
    })
}

fn put_block(out: &mut BytesMut, block: &Block) {
    out.address(&block.address);
    match &block.body {
        Body::Whole(bytes) => {
            out.put_u8(0);
            out.bytes(bytes);
        }
        Body::Patch { base, patch } => {
            out.put_u8(1);
            out.address(base);
            out.bytes(patch);
        }
        Body::Absent => out.put_u8(2),
    }
}

fn read_block(reader: &mut Reader) -> Result<Block, DecodeError> {
    let address = reader.address()?;
    let body = match reader.u8("block")? {
        0 => Body::Whole(reader.bytes("block", MESSAGE_BYTES_MAX)?),
        1 => Body::Patch {
            base: reader.address()?,
            patch: reader.bytes("patch", MESSAGE_BYTES_MAX)?,
        },
        2 => Body::Absent,
        found => return Err(DecodeError::Unknown { what: "block", found: found.into() }),
    };
    Ok(Block { address, body })
}

fn read_cause(reader: &mut Reader) -> Result<(Cause, String), DecodeError> {
    let found = reader.u8("cause")?;
    let cause = CAUSES.iter().find(|(code, _)| *code == found);
    let unknown = DecodeError::Unknown { what: "cause", found: u64::from(found) };
    Ok((cause.ok_or(unknown)?.1, reader.text("text", TEXT_BYTES_MAX)?))
}

/// Whether a payload with this tag is numbered by a request instead of a subscription.
pub(crate) fn answers_subscribe(tag: u8) -> bool {
    matches!(tag, PLAN | REFUSED)
}

/// Whether a payload with this tag ends the subscription, even between the parts of an update.
pub(crate) fn ends(tag: u8) -> bool {
    tag == CLOSED
}
