//! Rows as the indexes see them: borrowed datoms, their orders, and ranges over them.

use std::cmp::Ordering;
use std::ops::Bound;

use datahike_value::{Value, compare_numbers};

use crate::datom::{AttrId, Datom, EntityId, TxId};

/// The three orders in which datoms are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Index {
    /// Entity, attribute, value.
    Eavt,
    /// Attribute, entity, value.
    Aevt,
    /// Attribute, value, entity; only attributes that are indexed, unique or references.
    Avet,
}

impl Index {
    /// All three, in the order in which [`super::Roots`] lists them.
    pub const ALL: [Self; 3] = [Self::Eavt, Self::Aevt, Self::Avet];

    /// The place of this index in arrays of three.
    pub const fn number(self) -> usize {
        match self {
            Self::Eavt => 0,
            Self::Aevt => 1,
            Self::Avet => 2,
        }
    }
}

/// A value as a leaf or a datom lends it: the common types by themselves, all others as a [`Value`].
#[derive(Clone, Copy, Debug)]
pub enum ValueRef<'a> {
    /// [`Value::Bool`].
    Bool(bool),
    /// [`Value::Long`].
    Long(i64),
    /// [`Value::Double`].
    Double(f64),
    /// [`Value::Float`].
    Float(f32),
    /// [`Value::Inst`], milliseconds since 1970.
    Inst(i64),
    /// [`Value::Str`].
    Str(&'a str),
    /// Any other type, never one of those above.
    Other(&'a Value),
}

impl<'a> From<&'a Value> for ValueRef<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Bool(b) => Self::Bool(*b),
            Value::Long(n) => Self::Long(*n),
            Value::Double(d) => Self::Double(*d),
            Value::Float(f) => Self::Float(*f),
            Value::Inst(ms) => Self::Inst(*ms),
            Value::Str(s) => Self::Str(s),
            other => Self::Other(other),
        }
    }
}

impl ValueRef<'_> {
    /// An owned value; allocates for strings only.
    pub fn to_value(&self) -> Value {
        match *self {
            Self::Bool(b) => Value::Bool(b),
            Self::Long(n) => Value::Long(n),
            Self::Double(d) => Value::Double(d),
            Self::Float(f) => Value::Float(f),
            Self::Inst(ms) => Value::Inst(ms),
            Self::Str(s) => Value::Str(s.into()),
            Self::Other(v) => v.clone(),
        }
    }

    /// Kind and first bits of the value, the kinds in the order of [`Value`] and numbers by their whole
    /// part: never greater for a smaller value, equal for different ones now and then.
    pub(crate) fn order_bits(&self) -> u64 {
        const KIND_BITS: u32 = 3;
        let (kind, bits) = match self {
            Self::Other(Value::Nil) => (0, 0),
            Self::Bool(b) => (1, u64::from(*b) << 63),
            Self::Long(n) => (2, whole_bits(*n)),
            Self::Double(d) => (2, whole_bits(floor(*d))),
            Self::Float(f) => (2, whole_bits(floor(f64::from(*f)))),
            Self::Other(number) if number.is_number() => (2, whole_bits(exact_floor(number))),
            Self::Other(Value::Char(_)) => (3, 0),
            Self::Str(s) => {
                let mut first = [0; 8];
                let len = s.len().min(first.len());
                first[..len].copy_from_slice(&s.as_bytes()[..len]);
                (4, u64::from_be_bytes(first))
            }
            Self::Other(Value::Keyword(_)) => (5, 0),
            Self::Inst(ms) => (7, whole_bits(*ms)),
            Self::Other(Value::Symbol(_) | Value::Uuid(_)) => (6, 0),
            Self::Other(_) => (7, u64::MAX),
        };
        kind << (64 - KIND_BITS) | bits >> KIND_BITS
    }
}

/// The bits of the nearest double, so that small numbers differ in the high bits; ordered.
fn whole_bits(n: i64) -> u64 {
    let bits = (n as f64).to_bits();
    if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
}

/// Saturates; NaN is greater than all.
fn floor(d: f64) -> i64 {
    if d.is_nan() { i64::MAX } else { d.floor() as i64 }
}

/// The greatest long that is not greater, by comparing: big numbers are rare.
fn exact_floor(number: &Value) -> i64 {
    let (mut low, mut high) = (i64::MIN, i64::MAX);
    while low < high {
        let middle = (i128::midpoint(low.into(), i128::from(high) + 1)) as i64;
        if compare_numbers(&Value::Long(middle), number).is_some_and(Ordering::is_gt) {
            high = middle - 1;
        } else {
            low = middle;
        }
    }
    low
}

impl PartialEq for ValueRef<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ValueRef<'_> {}

impl PartialOrd for ValueRef<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ValueRef<'_> {
    /// The order of [`Value`].
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Long(a), Self::Long(b)) | (Self::Inst(a), Self::Inst(b)) => a.cmp(b),
            (Self::Str(a), Self::Str(b)) => a.cmp(b),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Other(a), Self::Other(b)) => a.cmp(b),
            _ => self.to_value().cmp(&other.to_value()),
        }
    }
}

/// A datom whose value is borrowed from where it lies.
#[derive(Clone, Copy, Debug)]
pub struct DatomRef<'a> {
    /// Entity.
    pub e: EntityId,
    /// Attribute.
    pub a: AttrId,
    /// Value.
    pub v: ValueRef<'a>,
    /// Transaction.
    pub tx: TxId,
    /// Asserted or retracted.
    pub added: bool,
}

impl<'a> From<&'a Datom> for DatomRef<'a> {
    fn from(d: &'a Datom) -> Self {
        Self { e: d.e, a: d.a, v: (&d.v).into(), tx: d.tx, added: d.added }
    }
}

impl DatomRef<'_> {
    /// An owned datom; allocates for strings only.
    pub fn to_datom(&self) -> Datom {
        Datom { e: self.e, a: self.a, v: self.v.to_value(), tx: self.tx, added: self.added }
    }

    /// Compares entity, attribute and value in the order of `index`.
    pub fn cmp_fact(&self, other: &DatomRef<'_>, index: Index) -> Ordering {
        match index {
            Index::Eavt => {
                self.e.cmp(&other.e).then(self.a.cmp(&other.a)).then_with(|| self.v.cmp(&other.v))
            }
            Index::Aevt => {
                self.a.cmp(&other.a).then(self.e.cmp(&other.e)).then_with(|| self.v.cmp(&other.v))
            }
            Index::Avet => {
                self.a.cmp(&other.a).then_with(|| self.v.cmp(&other.v)).then(self.e.cmp(&other.e))
            }
        }
    }

    /// Compares everything: the fact in the order of `index`, then transaction, retractions first.
    pub fn cmp_in(&self, other: &DatomRef<'_>, index: Index) -> Ordering {
        self.cmp_fact(other, index).then(self.tx.cmp(&other.tx)).then(self.added.cmp(&other.added))
    }
}

/// A row of which no more is read than is asked for.
pub(crate) trait Key {
    fn e(&self) -> EntityId;
    fn a(&self) -> AttrId;
    fn v(&self) -> ValueRef<'_>;
    fn tx(&self) -> TxId;
    fn added(&self) -> bool;
}

impl Key for DatomRef<'_> {
    fn e(&self) -> EntityId {
        self.e
    }

    fn a(&self) -> AttrId {
        self.a
    }

    fn v(&self) -> ValueRef<'_> {
        self.v
    }

    fn tx(&self) -> TxId {
        self.tx
    }

    fn added(&self) -> bool {
        self.added
    }
}

/// The leading components of a key in some index. What follows the first component that is `None`
/// (in the order of the index, then `tx`, then `added`) is ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix {
    /// Entity.
    pub e: Option<EntityId>,
    /// Attribute.
    pub a: Option<AttrId>,
    /// Value.
    pub v: Option<Value>,
    /// Transaction.
    pub tx: Option<TxId>,
    /// Asserted or retracted.
    pub added: Option<bool>,
}

impl Prefix {
    /// The whole key of a datom.
    pub fn of(d: &DatomRef<'_>) -> Self {
        Self {
            e: Some(d.e),
            a: Some(d.a),
            v: Some(d.v.to_value()),
            tx: Some(d.tx),
            added: Some(d.added),
        }
    }

    /// The fact of a datom, whatever its transaction.
    pub fn fact(d: &DatomRef<'_>) -> Self {
        Self { tx: None, added: None, ..Self::of(d) }
    }

    /// How `row` compares with this prefix in `index`: `Equal` if it starts with it.
    pub fn place(&self, row: &DatomRef<'_>, index: Index) -> Ordering {
        self.place_key(row, index)
    }

    fn place_key(&self, row: &impl Key, index: Index) -> Ordering {
        let (e, a, v) = (self.e, self.a, self.v.as_ref());
        let by_e = |e: EntityId| row.e().cmp(&e);
        let by_a = |a: AttrId| row.a().cmp(&a);
        let by_v = |v: &Value| row.v().cmp(&v.into());
        // The first component that is not given, or that differs, decides.
        let decided = match index {
            Index::Eavt => first_ne(e.map(by_e))
                .or_else(|| first_ne(a.map(by_a)))
                .or_else(|| first_ne(v.map(by_v))),
            Index::Aevt => first_ne(a.map(by_a))
                .or_else(|| first_ne(e.map(by_e)))
                .or_else(|| first_ne(v.map(by_v))),
            Index::Avet => first_ne(a.map(by_a))
                .or_else(|| first_ne(v.map(by_v)))
                .or_else(|| first_ne(e.map(by_e))),
        };
        if let Some(order) = decided {
            return order;
        }
        let Some(tx) = self.tx else { return Ordering::Equal };
        row.tx().cmp(&tx).then_with(|| self.added.map_or(Ordering::Equal, |y| row.added().cmp(&y)))
    }
}

/// What ends a comparison by components: one that is not given, or that differs.
fn first_ne(component: Option<Ordering>) -> Option<Ordering> {
    match component {
        None => Some(Ordering::Equal),
        Some(Ordering::Equal) => None,
        differs => differs,
    }
}

/// A stretch of one index between two bounds, each a [`Prefix`]: an inclusive bound takes in
/// everything that starts with it, an exclusive one nothing of that.
#[derive(Clone, Debug)]
pub struct Range {
    /// In which order.
    pub index: Index,
    /// Where it starts.
    pub lower: Bound<Prefix>,
    /// Where it ends.
    pub upper: Bound<Prefix>,
}

impl Range {
    /// The whole index.
    pub fn all(index: Index) -> Self {
        Self { index, lower: Bound::Unbounded, upper: Bound::Unbounded }
    }

    /// All that starts with `prefix`.
    pub fn prefix(index: Index, prefix: Prefix) -> Self {
        Self { index, lower: Bound::Included(prefix.clone()), upper: Bound::Included(prefix) }
    }

    /// From `prefix` (inclusive) to the end of the index.
    pub fn from(index: Index, prefix: Prefix) -> Self {
        Self { index, lower: Bound::Included(prefix), upper: Bound::Unbounded }
    }

    /// From the start of the index to `prefix` (inclusive).
    pub fn to(index: Index, prefix: Prefix) -> Self {
        Self { index, lower: Bound::Unbounded, upper: Bound::Included(prefix) }
    }

    /// Of an entity; of one attribute of it; of one value of that.
    pub fn eavt(e: EntityId, a: impl Into<Option<AttrId>>, v: impl Into<Option<Value>>) -> Self {
        let prefix = Prefix { e: Some(e), a: a.into(), v: v.into(), ..Prefix::default() };
        Self::prefix(Index::Eavt, prefix)
    }

    /// Of an attribute; of one entity that has it.
    pub fn aevt(a: AttrId, e: impl Into<Option<EntityId>>) -> Self {
        Self::prefix(Index::Aevt, Prefix { a: Some(a), e: e.into(), ..Prefix::default() })
    }

    /// Of an attribute by value; of one value.
    pub fn avet(a: AttrId, v: impl Into<Option<Value>>) -> Self {
        Self::prefix(Index::Avet, Prefix { a: Some(a), v: v.into(), ..Prefix::default() })
    }

    /// Of an attribute, the values from `low` to `high`, both included; `None` is open.
    pub fn avet_between(a: AttrId, low: Option<Value>, high: Option<Value>) -> Self {
        let bound = |v| Bound::Included(Prefix { a: Some(a), v, ..Prefix::default() });
        Self { index: Index::Avet, lower: bound(low), upper: bound(high) }
    }

    /// Whether `row` is not before the start.
    pub(crate) fn starts_by(&self, row: &impl Key) -> bool {
        match &self.lower {
            Bound::Unbounded => true,
            Bound::Included(p) => p.place_key(row, self.index).is_ge(),
            Bound::Excluded(p) => p.place_key(row, self.index).is_gt(),
        }
    }

    /// Whether `row` is not past the end.
    pub(crate) fn reaches(&self, row: &impl Key) -> bool {
        match &self.upper {
            Bound::Unbounded => true,
            Bound::Included(p) => p.place_key(row, self.index).is_le(),
            Bound::Excluded(p) => p.place_key(row, self.index).is_lt(),
        }
    }

    /// Whether `row` is in it.
    pub fn contains(&self, row: &DatomRef<'_>) -> bool {
        self.starts_by(row) && self.reaches(row)
    }
}

#[cfg(test)]
mod tests {
    use datahike_value::{BigDecimal, BigInt, Uuid};

    use super::*;

    #[test]
    fn order_bits_follow_the_order_of_values() {
        let mut values: Vec<Value> = vec![
            Value::Nil,
            Value::from(false),
            Value::from(true),
            Value::Char('a'),
            Value::keyword("a/b"),
            Value::symbol("a"),
            Value::Uuid(Uuid::max()),
            Value::bytes(*b"x"),
            Value::vector([Value::Nil]),
            Value::set([]),
            Value::from(BigInt::from(i64::MAX) + 1),
            Value::from(-(BigInt::from(10).pow(50))),
            Value::from(BigDecimal::new(BigInt::from(-15), 1)),
            Value::from(BigDecimal::new(BigInt::from(1), 1_000_000)),
            Value::from(BigDecimal::new(BigInt::from(1), -1_000_000)),
        ];
        for n in [0, 1, -1, 2, -2, 1 << 53, (1 << 53) + 1, i64::MAX, i64::MIN, i64::MIN + 1] {
            values.extend([Value::Long(n), Value::Inst(n), Value::Double(n as f64 + 0.5)]);
        }
        for d in [0.0, -0.0, 0.3, -0.3, 1e300, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            values.extend([Value::Double(d), Value::Float(d as f32)]);
        }
        values.extend(
            ["", "\0", "a", "ab", "abcdefg", "abcdefgh", "abcdefghi", "é"].map(Value::from),
        );
        values.sort();
        for pair in values.windows(2) {
            let bits = |v: &Value| ValueRef::from(v).order_bits();
            assert!(bits(&pair[0]) <= bits(&pair[1]), "{:?} before {:?}", pair[0], pair[1]);
        }
    }
}
