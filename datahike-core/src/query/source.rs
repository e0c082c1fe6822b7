//! Where patterns find their rows: snapshots and plain collections.

use datahike_value::{Value, compare_numbers};
use hashbrown::{HashMap, HashTable};

use super::relation::{Cell, Dict, entity, hash_row, id_cell, inlined};
use crate::block::Missing;
use crate::datom::AttrId;
use crate::db::Db;
use crate::index::{DatomRef, Index, Prefix, Range, ValueRef};
use crate::schema::ValueType;

#[derive(Debug)]
pub(crate) enum Source {
    Db(Db),
    Rows(Rows),
}

/// Stands where a row is shorter than the longest of its collection; equal to no value's cell.
const ABSENT: Cell = u64::MAX;

/// A plain collection as a relation, with hash indexes made when first asked for.
#[derive(Debug)]
pub(crate) struct Rows {
    cols: Vec<Vec<Cell>>,
    len: usize,
    indexes: HashMap<Vec<usize>, RowIndex>,
}

#[derive(Debug)]
struct RowIndex {
    first: HashTable<u32>,
    next: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl Rows {
    pub(crate) fn new(value: &Value, dict: &mut Dict) -> Option<Self> {
        let items: Vec<Value> = match value {
            Value::Nil => Vec::new(),
            Value::Vector(items) | Value::List(items) => items.to_vec(),
            Value::Set(items) => items.iter().cloned().collect(),
            Value::Map(map) => {
                map.iter().map(|(k, v)| Value::vector([k.clone(), v.clone()])).collect()
            }
            _ => return None,
        };
        let width = items.iter().map(|row| row.as_slice().map_or(1, <[Value]>::len)).max();
        let mut cols = vec![Vec::with_capacity(items.len()); width.unwrap_or(0)];
        for item in &items {
            let row = item.as_slice().unwrap_or(std::slice::from_ref(item));
            for (place, col) in cols.iter_mut().enumerate() {
                col.push(row.get(place).map_or(ABSENT, |value| dict.cell(value)));
            }
        }
        Some(Self { cols, len: items.len(), indexes: HashMap::new() })
    }

    pub(crate) fn of(cols: Vec<Vec<Cell>>, len: usize) -> Self {
        Self { cols, len, indexes: HashMap::new() }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether a row has a value at this place.
    pub(crate) fn cell(&self, row: u32, place: usize) -> Option<Cell> {
        self.cols.get(place).map(|col| col[row as usize]).filter(|cell| *cell != ABSENT)
    }

    /// Makes sure that rows can be found by the values at these places.
    pub(crate) fn index(&mut self, places: &[usize]) {
        if places.is_empty() || self.indexes.contains_key(places) {
            return;
        }
        let cols: Vec<&[Cell]> =
            places.iter().filter_map(|place| self.cols.get(*place)).map(Vec::as_slice).collect();
        let mut index = RowIndex { first: HashTable::new(), next: vec![NONE; self.len] };
        if cols.len() == places.len() {
            for row in (0..self.len).rev() {
                let hash = hash_row(&cols, row);
                let same = |known: &u32| cols.iter().all(|col| col[*known as usize] == col[row]);
                match index.first.find_mut(hash, same) {
                    Some(known) => {
                        index.next[row] = *known;
                        *known = row as u32;
                    }
                    None => {
                        index.first.insert_unique(hash, row as u32, |known| {
                            hash_row(&cols, *known as usize)
                        });
                    }
                }
            }
        }
        self.indexes.insert(places.to_vec(), index);
    }

    /// Calls `f` with each row whose cells at `places` are `key`.
    pub(crate) fn find(&self, places: &[usize], key: &[Cell], mut f: impl FnMut(u32)) {
        if places.is_empty() {
            (0..self.len as u32).for_each(f);
            return;
        }
        let Some(index) = self.indexes.get(places) else { return };
        let keys: Vec<&[Cell]> = key.iter().map(std::slice::from_ref).collect();
        let hash = hash_row(&keys, 0);
        let found = index.first.find(hash, |known| {
            places.iter().zip(key).all(|(place, cell)| {
                self.cols.get(*place).is_some_and(|col| col[*known as usize] == *cell)
            })
        });
        let mut at = found.copied().unwrap_or(NONE);
        while at != NONE {
            f(at);
            at = index.next[at as usize];
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    Differs,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

impl Comparison {
    pub(crate) fn of(name: &str) -> Option<Self> {
        Some(match name {
            "=" => Self::Equal,
            "not=" | "!=" => Self::Differs,
            "<" | "before?" => Self::Less,
            "<=" => Self::AtMost,
            ">" | "after?" => Self::Greater,
            ">=" => Self::AtLeast,
            _ => return None,
        })
    }

    /// The same with the sides changed.
    pub(crate) fn turned(self) -> Self {
        match self {
            Self::Less => Self::Greater,
            Self::AtMost => Self::AtLeast,
            Self::Greater => Self::Less,
            Self::AtLeast => Self::AtMost,
            same => same,
        }
    }

    #[inline]
    pub(crate) fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Differs => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }
}

/// A comparison of the scanned value with a constant. Only made where both are known to be of the
/// same type, so that it cannot fail.
#[derive(Clone, Debug)]
pub(crate) struct ScanFilter {
    pub(crate) comparison: Comparison,
    pub(crate) constant: Value,
}

impl ScanFilter {
    #[inline]
    pub(crate) fn passes(&self, value: &ValueRef<'_>) -> bool {
        let order = match (value, &self.constant) {
            (ValueRef::Long(a), Value::Long(b)) => a.cmp(b),
            (ValueRef::Str(a), Value::Str(b)) => (*a).cmp(b),
            (ValueRef::Inst(a), Value::Inst(b)) => a.cmp(b),
            (value, constant) => {
                let value = value.to_value();
                match self.comparison {
                    Comparison::Equal => return super::functions::equal(&value, constant),
                    Comparison::Differs => return !super::functions::equal(&value, constant),
                    _ => compare_numbers(&value, constant).unwrap_or_else(|| value.cmp(constant)),
                }
            }
        };
        self.comparison.holds(order)
    }
}

/// The attribute types whose values all have one representation, so that a comparison with a
/// constant of it neither fails nor mixes types.
pub(crate) fn comparable(value_type: ValueType, constant: &Value) -> bool {
    matches!(
        (value_type, constant),
        (ValueType::Long | ValueType::Ref, Value::Long(_))
            | (ValueType::String, Value::Str(_))
            | (ValueType::Instant, Value::Inst(_))
            | (ValueType::Double, Value::Double(_))
            | (ValueType::Keyword, Value::Keyword(_))
    )
}

/// One component of a pattern, as far as one probe knows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Probe {
    pub(crate) e: Option<u64>,
    pub(crate) a: Option<AttrId>,
    pub(crate) v: Option<Value>,
    pub(crate) tx: Option<u64>,
    pub(crate) added: Option<bool>,
}

/// How a probe reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Access {
    pub(crate) index: Index,
    /// Components used to narrow the range; the others are compared row by row.
    e: bool,
    v: bool,
}

/// The narrowest range for these components.
pub(crate) fn access(db: &Db, e: bool, a: Option<AttrId>, a_bound: bool, v: bool) -> Access {
    let in_avet = a.is_some_and(|a| db.schema().attribute(a).in_avet());
    if e {
        return Access {
            index: if a_bound { Index::Aevt } else { Index::Eavt },
            e,
            v: v && a_bound,
        };
    }
    if a_bound && v && in_avet {
        return Access { index: Index::Avet, e, v };
    }
    Access { index: if a_bound { Index::Aevt } else { Index::Eavt }, e: false, v: false }
}

impl Access {
    pub(crate) fn range(self, probe: &Probe) -> Range {
        let prefix = Prefix {
            e: probe.e.filter(|_| self.e),
            a: probe.a,
            v: if self.v { probe.v.clone() } else { None },
            ..Prefix::default()
        };
        Range::prefix(self.index, prefix)
    }

    /// Whether the rows of one range come in ascending order of entities.
    pub(crate) fn sorts_by_entity(self) -> bool {
        match self.index {
            Index::Eavt | Index::Aevt => true,
            Index::Avet => self.v,
        }
    }
}

/// The range of AVET that holds all values which pass the filters.
pub(crate) fn narrowed(a: AttrId, filters: &[ScanFilter]) -> Option<Range> {
    let (mut low, mut high): (Option<&Value>, Option<&Value>) = (None, None);
    for filter in filters {
        let constant = &filter.constant;
        match filter.comparison {
            Comparison::Greater | Comparison::AtLeast => {
                low = Some(low.map_or(constant, |low| low.max(constant)));
            }
            Comparison::Less | Comparison::AtMost => {
                high = Some(high.map_or(constant, |high| high.min(constant)));
            }
            Comparison::Equal => {
                low = Some(low.map_or(constant, |low| low.max(constant)));
                high = Some(high.map_or(constant, |high| high.min(constant)));
            }
            Comparison::Differs => {}
        }
    }
    (low.is_some() || high.is_some()).then(|| Range::avet_between(a, low.cloned(), high.cloned()))
}

/// What all datoms in a range start with.
pub(crate) fn common(range: &Range) -> Option<&Prefix> {
    match &range.lower {
        std::ops::Bound::Included(prefix) if range.lower == range.upper => Some(prefix),
        _ => None,
    }
}

/// Calls `f` with the datoms in `range` that agree with `probe` and pass the filters.
pub(crate) fn visit(
    db: &Db,
    range: &Range,
    probe: &Probe,
    filters: &[ScanFilter],
    mut f: impl FnMut(&DatomRef<'_>),
) -> Result<(), Missing> {
    // What the range itself guarantees need not be compared again.
    let prefix = common(range);
    let given = |fixed: bool| prefix.is_some() && fixed;
    let e = probe.e.filter(|_| !given(prefix.is_some_and(|p| p.e.is_some())));
    let a = probe.a.filter(|_| range.index == Index::Eavt);
    let v = probe.v.as_ref().filter(|_| !given(prefix.is_some_and(|p| p.v.is_some())));
    let v = v.map(ValueRef::from);
    let mut check = |row: &DatomRef<'_>| {
        let agrees = e.is_none_or(|e| row.e == e)
            && a.is_none_or(|a| row.a == a)
            && probe.tx.is_none_or(|tx| row.tx == tx)
            && probe.added.is_none_or(|added| row.added == added)
            && v.as_ref().is_none_or(|v| row.v == *v)
            && filters.iter().all(|filter| filter.passes(&row.v));
        if agrees {
            f(row);
        }
    };
    if db.is_current() {
        for slice in db.indexes().slices(range)? {
            slice.iter().for_each(|row| check(&row));
        }
    } else {
        for datom in db.scan(range) {
            check(&DatomRef::from(&datom?));
        }
    }
    Ok(())
}

/// How a cell of the left side reads in the place of an entity: an id, or what names one.
pub(crate) fn entity_of(
    db: &Db,
    dict: &Dict,
    cell: Cell,
) -> Result<Option<u64>, crate::db::DbError> {
    if let Some(n) = inlined(cell) {
        return Ok(u64::try_from(n).ok());
    }
    match dict.boxed(cell) {
        Some(value @ Value::Keyword(_)) => db.entid(value),
        Some(value) if is_lookup(db, value) => db.entid(value),
        _ => Ok(None),
    }
}

/// A vector `[attribute value]` whose attribute is unique; any other vector is a plain value.
pub(crate) fn is_lookup(db: &Db, value: &Value) -> bool {
    match value.as_slice() {
        Some([attribute, _]) => {
            db.attr_of(attribute).is_some_and(|a| db.schema().attribute(a).unique.is_some())
        }
        _ => false,
    }
}

/// The same for the value of a reference.
pub(crate) fn reference_of(
    db: &Db,
    dict: &Dict,
    cell: Cell,
) -> Result<Option<Cell>, crate::db::DbError> {
    if cell & 1 == 0 {
        return Ok(entity(cell).map(id_cell));
    }
    Ok(entity_of(db, dict, cell)?.map(id_cell))
}
