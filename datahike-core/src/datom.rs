//! The datom and the ids it is made of.

use datahike_value::Value;

/// An entity id. User entities count from 1; see [`FIRST_TX`] for how the id space is shared.
pub type EntityId = u64;

/// A transaction id; also the id of the transaction's own entity.
pub type TxId = u64;

/// The id of the first transaction's predecessor: transactions count from `TX0 + 1` (536870913),
/// as in Datahike.
pub const TX0: TxId = 1 << 29;

/// The id of the first transaction.
pub const FIRST_TX: TxId = TX0 + 1;

/// User entity ids run from 1 up to here (exclusive), then go on at [`HIGH_ENTITIES`], so that
/// they never meet a transaction id: those live between [`TX0`] and [`HIGH_ENTITIES`].
pub const LOW_ENTITIES_END: EntityId = TX0;

/// Where user entity ids go on after the low range is used up; also the end (exclusive) of
/// transaction ids. 2^40 transactions at 1,000 a second last 34 years.
pub const HIGH_ENTITIES: EntityId = 1 << 40;

/// The number an attribute has inside one database: its place in the attribute table of the
/// snapshot. Indexes order attributes by this number; what users see is ordered by ident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttrId(pub u32);

/// One fact: entity, attribute, value, the transaction that said so, and whether it was asserted
/// (`true`) or retracted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Datom {
    /// Entity.
    pub e: EntityId,
    /// Attribute.
    pub a: AttrId,
    /// Value.
    pub v: Value,
    /// Transaction.
    pub tx: TxId,
    /// Asserted or retracted. Within one transaction a retraction sorts first.
    pub added: bool,
}
