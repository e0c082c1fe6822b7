//! The block that names a flushed snapshot.
//!
//! It holds what all who have the same datoms and parameters agree on byte by byte, so that a
//! mirror that writes out its indexes at the same commit makes the same block.

use super::{CommitError, CommitId, MERGED_MAX, Position, check_version};
use crate::block::Address;
use crate::datom::EntityId;
use crate::db::{Counters, Db, DbConfig, SchemaFlexibility};
use crate::index::codec::{Reader, get_value, put_value, put_varint, put_zigzag};
use crate::index::{DecodeError, Params, Root, Roots};
use crate::schema::Schema;

const WHAT: &str = "flush record";
const VERSION: u8 = 1;

const KEEP_HISTORY: u8 = 1;
const ATTRIBUTE_REFS: u8 = 2;
const SCHEMA_READ: u8 = 4;
const INSTANTS_RISE: u8 = 8;
const GRAFTED: u8 = 16;

const FLAGS: u8 = KEEP_HISTORY | ATTRIBUTE_REFS | SCHEMA_READ | INSTANTS_RISE | GRAFTED;

/// What keeps the ids of grafted commits apart from those of other commits.
const GRAFT_CONTEXT: &str = "datahike 2026-11 id of a commit made of a snapshot";

/// Levels of a tree. With two children a branch this is more datoms than there are ids.
const DEPTH_MAX: u8 = 64;

/// Items a block aims at; twice as many may be in one.
const TARGET_MAX: u32 = 1 << 14;

/// A snapshot whose indexes are written out.
#[derive(Clone, Debug)]
pub struct FlushRecord {
    /// The commit as of which they are.
    pub at: Position,
    /// The flush record before this one, as of the commit before; `None` for the first.
    pub previous: Option<Address>,
    /// The parents of the commit, where it was made of this very snapshot instead of transactions:
    /// a branch was forced to show it. Its id is that of [`Self::graft_id`] then.
    pub grafted: Vec<CommitId>,
    /// What was decided when the database was created.
    pub config: DbConfig,
    /// The counters as of the commit.
    pub counters: Counters,
    /// The roots of the trees.
    pub roots: Roots,
    /// The attributes as of the commit.
    pub schema: Schema,
}

impl FlushRecord {
    /// The record of a database whose tail is empty.
    pub fn of(db: &Db, at: Position, previous: Option<Address>, roots: Roots) -> Self {
        Self {
            at,
            previous,
            grafted: Vec::new(),
            config: db.config().clone(),
            counters: db.counters(),
            roots,
            schema: db.schema().clone(),
        }
    }

    /// The record of a commit that is made of a snapshot instead of transactions, as number `seq`
    /// of its branch. `parents` are sorted and at least one, at most [`MERGED_MAX`].
    pub fn graft(db: &Db, seq: u64, parents: Vec<CommitId>, roots: Roots) -> Self {
        let at = Position { seq, commit: CommitId::ROOT };
        let mut record = Self { grafted: parents, ..Self::of(db, at, None, roots) };
        record.at.commit = record.graft_id();
        record
    }

    /// The id of a commit that is made of this snapshot: a hash over its parents, roots, schema and
    /// counters.
    pub fn graft_id(&self) -> CommitId {
        let at = Position { commit: CommitId::ROOT, ..self.at };
        let content = Self { at, previous: None, ..self.clone() }.encode();
        CommitId(blake3::derive_key(GRAFT_CONTEXT, &content))
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put_varint(&mut out, self.at.seq);
        out.extend_from_slice(&self.at.commit.0);
        put_address(&mut out, self.previous.as_ref());
        let config = &self.config;
        let mut flags = 0;
        for (flag, set) in [
            (KEEP_HISTORY, config.keep_history),
            (ATTRIBUTE_REFS, config.attribute_refs),
            (SCHEMA_READ, config.schema_flexibility == SchemaFlexibility::Read),
            (INSTANTS_RISE, self.counters.instants_rise),
            (GRAFTED, !self.grafted.is_empty()),
        ] {
            flags |= if set { flag } else { 0 };
        }
        out.push(flags);
        if !self.grafted.is_empty() {
            put_varint(&mut out, self.grafted.len() as u64);
            self.grafted.iter().for_each(|parent| out.extend_from_slice(&parent.0));
        }
        put_varint(&mut out, u64::from(config.params.leaf_target));
        put_varint(&mut out, u64::from(config.params.branch_target));
        config.params.seed.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        put_varint(&mut out, self.counters.max_entity);
        put_varint(&mut out, self.counters.max_tx);
        put_zigzag(&mut out, self.counters.last_instant);
        for root in self.roots.current.iter().chain(&self.roots.history) {
            put_address(&mut out, root.as_ref().map(|root| &root.address));
            if let Some(root) = root {
                out.push(root.depth);
                put_varint(&mut out, root.count);
            }
        }
        put_value(&mut out, &self.schema.to_record());
        out
    }

    /// From its bytes.
    ///
    /// # Errors
    /// If they are none, or of a newer format.
    pub fn decode(bytes: &[u8]) -> Result<Self, CommitError> {
        let mut reader = Reader::new(bytes);
        check_version(&mut reader, WHAT, VERSION)?;
        let read = |reader: &mut Reader<'_>| {
            let at = Position { seq: reader.varint()?, commit: CommitId(reader.array()?) };
            let previous = get_address(reader)?;
            let flags = reader.byte()?;
            if flags & !FLAGS != 0 {
                return Err(DecodeError::Malformed { what: "a flag is unknown" });
            }
            let grafted = match flags & GRAFTED {
                0 => Vec::new(),
                _ => get_parents(reader)?,
            };
            let params = Params {
                leaf_target: get_target(reader)?,
                branch_target: get_target(reader)?,
                seed: [u64::from_le_bytes(reader.array()?), u64::from_le_bytes(reader.array()?)],
            };
            let counters = Counters {
                max_entity: reader.varint()? as EntityId,
                max_tx: reader.varint()?,
                last_instant: reader.zigzag()?,
                instants_rise: flags & INSTANTS_RISE != 0,
            };
            let mut roots = Roots::default();
            for root in roots.current.iter_mut().chain(&mut roots.history) {
                *root = match get_address(reader)? {
                    Some(address) => Some(get_root(address, reader)?),
                    None => None,
                };
            }
            let schema = get_value(reader)?;
            reader.finish()?;
            Ok((at, previous, flags, grafted, params, counters, roots, schema))
        };
        let (at, previous, flags, grafted, params, counters, roots, schema) =
            read(&mut reader).map_err(CommitError::decode(WHAT))?;
        let flexibility = match flags & SCHEMA_READ {
            0 => SchemaFlexibility::Write,
            _ => SchemaFlexibility::Read,
        };
        let config = DbConfig::new(flexibility)
            .with_history(flags & KEEP_HISTORY != 0)
            .with_attribute_refs(flags & ATTRIBUTE_REFS != 0)
            .with_params(params);
        let schema = Schema::from_record(&schema).map_err(|e| CommitError::invalid(WHAT, e))?;
        Ok(Self { at, previous, grafted, config, counters, roots, schema })
    }
}

fn put_address(out: &mut Vec<u8>, address: Option<&Address>) {
    match address {
        Some(address) => {
            out.push(1);
            out.extend_from_slice(&address.0);
        }
        None => out.push(0),
    }
}

fn get_address(reader: &mut Reader<'_>) -> Result<Option<Address>, DecodeError> {
    match reader.byte()? {
        0 => Ok(None),
        1 => Ok(Some(Address(reader.array()?))),
        _ => Err(DecodeError::Malformed { what: "an address is neither there nor not" }),
    }
}

fn get_parents(reader: &mut Reader<'_>) -> Result<Vec<CommitId>, DecodeError> {
    match reader.count()? {
        count @ 1..=MERGED_MAX => (0..count).map(|_| reader.array().map(CommitId)).collect(),
        _ => Err(DecodeError::Malformed { what: "a commit without parents, or with too many" }),
    }
}

fn get_root(address: Address, reader: &mut Reader<'_>) -> Result<Root, DecodeError> {
    match reader.byte()? {
        depth @ 1..=DEPTH_MAX => Ok(Root { address, depth, count: reader.varint()? }),
        _ => Err(DecodeError::Malformed { what: "a tree has an absurd depth" }),
    }
}

fn get_target(reader: &mut Reader<'_>) -> Result<u32, DecodeError> {
    match u32::try_from(reader.varint()?) {
        Ok(target @ 2..=TARGET_MAX) => Ok(target),
        _ => Err(DecodeError::Malformed { what: "a block size is absurd" }),
    }
}
