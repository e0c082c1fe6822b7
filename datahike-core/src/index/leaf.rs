//! A decoded leaf: datoms by column.

use std::ops;

use datahike_value::Value;

use crate::datom::{AttrId, EntityId, TxId};
use crate::index::key::{DatomRef, Key, Range, ValueRef};

/// Datoms in the order of one index, by column: about 18 bytes each, and a scan of a column touches
/// nothing else. Rows are counted from 0.
#[derive(Clone, Debug, Default)]
pub struct Leaf {
    pub(crate) e: Ids,
    pub(crate) a: Attributes,
    pub(crate) kinds: Box<[Kind]>,
    pub(crate) cells: Box<[u64]>,
    pub(crate) heap: Box<str>,
    pub(crate) side: Box<[Value]>,
    pub(crate) tx: Ids,
    /// `None` if every datom is an assertion.
    pub(crate) added: Option<Box<[bool]>>,
}

/// Ids as offsets from the smallest.
#[derive(Clone, Debug)]
pub(crate) enum Ids {
    Near { base: u64, offsets: Box<[u32]> },
    Far(Box<[u64]>),
}

impl Default for Ids {
    fn default() -> Self {
        Self::Far(Box::default())
    }
}

impl Ids {
    pub(crate) fn new(ids: &[u64]) -> Self {
        let base = ids.iter().copied().min().unwrap_or(0);
        let offsets: Option<Box<[u32]>> =
            ids.iter().map(|id| u32::try_from(id - base).ok()).collect();
        offsets.map_or_else(|| Self::Far(ids.into()), |offsets| Self::Near { base, offsets })
    }

    #[inline]
    fn get(&self, row: usize) -> u64 {
        match self {
            Self::Near { base, offsets } => base + u64::from(offsets[row]),
            Self::Far(ids) => ids[row],
        }
    }

    fn extend_into(&self, rows: ops::Range<usize>, into: &mut Vec<u64>) {
        match self {
            Self::Near { base, offsets } => {
                into.extend(offsets[rows].iter().map(|offset| base + u64::from(*offset)));
            }
            Self::Far(ids) => into.extend(&ids[rows]),
        }
    }
}

/// The attributes of a leaf, ascending, and which of them each row has.
#[derive(Clone, Debug)]
pub(crate) struct Attributes {
    pub(crate) table: Box<[AttrId]>,
    pub(crate) rows: AttributeRows,
}

#[derive(Clone, Debug)]
pub(crate) enum AttributeRows {
    /// There is only one.
    Same,
    Narrow(Box<[u8]>),
    Wide(Box<[u32]>),
}

impl Default for Attributes {
    fn default() -> Self {
        Self { table: Box::default(), rows: AttributeRows::Same }
    }
}

impl Attributes {
    pub(crate) fn new(table: Box<[AttrId]>, rows: &[u32]) -> Self {
        let rows = match table.len() {
            0 | 1 => AttributeRows::Same,
            2..=256 => AttributeRows::Narrow(rows.iter().map(|a| *a as u8).collect()),
            _ => AttributeRows::Wide(rows.into()),
        };
        Self { table, rows }
    }

    #[inline]
    pub(crate) fn place(&self, row: usize) -> usize {
        match &self.rows {
            AttributeRows::Same => 0,
            AttributeRows::Narrow(rows) => usize::from(rows[row]),
            AttributeRows::Wide(rows) => rows[row] as usize,
        }
    }
}

/// How the cells of one attribute are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    Long,
    Double,
    Float,
    Inst,
    /// Offset (high half) and length in the heap.
    Str,
    /// The same where equal strings of the leaf have equal cells.
    Term,
    /// Place in the side table: any other type, or several types under one attribute.
    Side,
    /// The same where equal values of the leaf have equal cells.
    SideTerm,
}

impl Kind {
    pub(crate) fn of(v: &ValueRef<'_>) -> Self {
        match v {
            ValueRef::Bool(_) => Self::Bool,
            ValueRef::Long(_) => Self::Long,
            ValueRef::Double(_) => Self::Double,
            ValueRef::Float(_) => Self::Float,
            ValueRef::Inst(_) => Self::Inst,
            ValueRef::Str(_) => Self::Str,
            ValueRef::Other(_) => Self::Side,
        }
    }
}

impl Leaf {
    /// From rows, which must be in the order of their index.
    pub(crate) fn from_rows(rows: &[DatomRef<'_>]) -> Self {
        let mut table: Vec<AttrId> = rows.iter().map(|row| row.a).collect();
        table.sort_unstable();
        table.dedup();
        let places: Vec<u32> =
            rows.iter().map(|row| table.partition_point(|a| *a < row.a) as u32).collect();
        let mut kinds: Vec<Option<Kind>> = vec![None; table.len()];
        for (row, place) in rows.iter().zip(&places) {
            let kind = Kind::of(&row.v);
            let slot = &mut kinds[*place as usize];
            *slot = Some(if slot.is_none_or(|k| k == kind) { kind } else { Kind::Side });
        }
        let kinds: Box<[Kind]> = kinds.into_iter().map(|k| k.unwrap_or(Kind::Side)).collect();
        let mut cells = CellWriter::new(table.len());
        let cells_of_rows = rows
            .iter()
            .zip(&places)
            .map(|(row, place)| cells.cell(*place as usize, kinds[*place as usize], &row.v))
            .collect();
        let ids = |id: fn(&DatomRef<'_>) -> u64| Ids::new(&rows.iter().map(id).collect::<Vec<_>>());
        Self {
            e: ids(|row| row.e),
            a: Attributes::new(table.into(), &places),
            kinds,
            cells: cells_of_rows,
            heap: cells.heap.into(),
            side: cells.side.into(),
            tx: ids(|row| row.tx),
            added: rows
                .iter()
                .any(|row| !row.added)
                .then(|| rows.iter().map(|row| row.added).collect()),
        }
    }

    /// How many datoms.
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// The entity of a row. This and the other accessors of rows panic past the end, as slices do.
    #[inline]
    pub fn entity(&self, row: usize) -> EntityId {
        self.e.get(row)
    }

    /// The attribute of a row.
    #[inline]
    pub fn attribute(&self, row: usize) -> AttrId {
        self.a.table[self.a.place(row)]
    }

    /// The transaction of a row.
    #[inline]
    pub fn tx(&self, row: usize) -> TxId {
        self.tx.get(row)
    }

    /// Whether a row is an assertion.
    #[inline]
    pub fn added(&self, row: usize) -> bool {
        self.added.as_ref().is_none_or(|added| added[row])
    }

    /// Appends the entities of rows: much cheaper than one by one.
    pub fn entities(&self, rows: ops::Range<usize>, into: &mut Vec<EntityId>) {
        self.e.extend_into(rows, into);
    }

    /// Appends the transactions of rows.
    pub fn txs(&self, rows: ops::Range<usize>, into: &mut Vec<TxId>) {
        self.tx.extend_into(rows, into);
    }

    /// The value of a row.
    #[inline]
    pub fn value(&self, row: usize) -> ValueRef<'_> {
        self.value_at(row, self.a.place(row))
    }

    #[inline]
    fn value_at(&self, row: usize, place: usize) -> ValueRef<'_> {
        self.value_of(self.kinds[place], self.cells[row])
    }

    #[inline]
    fn value_of(&self, kind: Kind, cell: u64) -> ValueRef<'_> {
        match kind {
            Kind::Bool => ValueRef::Bool(cell != 0),
            Kind::Long => ValueRef::Long(cell as i64),
            Kind::Double => ValueRef::Double(f64::from_bits(cell)),
            Kind::Float => ValueRef::Float(f32::from_bits(cell as u32)),
            Kind::Inst => ValueRef::Inst(cell as i64),
            Kind::Str | Kind::Term => {
                let (start, end) = string_bounds(cell);
                ValueRef::Str(&self.heap[start..end])
            }
            Kind::Side | Kind::SideTerm => (&self.side[cell as usize]).into(),
        }
    }

    /// A row.
    #[inline]
    pub fn row(&self, row: usize) -> DatomRef<'_> {
        let place = self.a.place(row);
        DatomRef {
            e: self.entity(row),
            a: self.a.table[place],
            v: self.value_at(row, place),
            tx: self.tx(row),
            added: self.added(row),
        }
    }

    /// All rows in order.
    pub fn rows(&self) -> impl DoubleEndedIterator<Item = DatomRef<'_>> + ExactSizeIterator {
        (0..self.len()).map(|row| self.row(row))
    }

    /// Whether every string lies in the heap, from one character boundary to another.
    pub(crate) fn strings_are_whole(&self) -> bool {
        let is_text = |kind: Kind| matches!(kind, Kind::Str | Kind::Term);
        !self.kinds.iter().any(|kind| is_text(*kind))
            || (0..self.len()).filter(|row| is_text(self.kinds[self.a.place(*row)])).all(|row| {
                let (start, end) = string_bounds(self.cells[row]);
                self.heap.get(start..end).is_some()
            })
    }

    /// The first row for which `past` holds, or the length; it must hold for all rows after it.
    pub fn partition(&self, past: impl Fn(&DatomRef<'_>) -> bool) -> usize {
        search(0, self.len(), |row| past(&self.row(row)))
    }

    /// The first row that `range` starts by, or the length.
    pub(crate) fn first_of(&self, range: &Range) -> usize {
        search(0, self.len(), |row| range.starts_by(&RowAt { leaf: self, row }))
    }

    /// Whether the range begins after the first row and ends before the last.
    pub(crate) fn surrounds(&self, range: &Range) -> bool {
        self.len().checked_sub(1).is_some_and(|end| {
            !range.starts_by(&RowAt { leaf: self, row: 0 })
                && !range.reaches(&RowAt { leaf: self, row: end })
        })
    }

    /// The first row from `low` on that `range` does not reach, or the length. `low` is in it or at
    /// its start; the end is looked for near it first, as most ranges are short.
    pub(crate) fn end_of(&self, range: &Range, low: usize) -> usize {
        let past = |row| !range.reaches(&RowAt { leaf: self, row });
        let (mut known, mut step) = (low, 1);
        while known + step <= self.len() {
            if past(known + step - 1) {
                return search(known, known + step - 1, past);
            }
            known += step;
            step *= 2;
        }
        search(known, self.len(), past)
    }
}

/// The values of rows that all have one attribute, as cells of one kind.
#[derive(Clone, Copy)]
pub(crate) struct Column<'a> {
    leaf: &'a Leaf,
    pub(crate) kind: Kind,
    pub(crate) cells: &'a [u64],
}

impl<'a> Column<'a> {
    /// The value behind a cell of this column.
    #[inline]
    pub(crate) fn value(&self, cell: u64) -> ValueRef<'a> {
        self.leaf.value_of(self.kind, cell)
    }

    /// Other cells of the same kind and leaf.
    pub(crate) fn of<'b>(&self, cells: &'b [u64]) -> Column<'b>
    where
        'a: 'b,
    {
        Column { leaf: self.leaf, kind: self.kind, cells }
    }

    /// Values among which those of a column of side cells are.
    pub(crate) fn side(&self) -> &'a [Value] {
        &self.leaf.side
    }
}

impl Leaf {
    /// The values of these rows, at least one and all of one attribute.
    pub(crate) fn column(&self, rows: ops::Range<usize>) -> Column<'_> {
        let kind = self.kinds[self.a.place(rows.start)];
        Column { leaf: self, kind, cells: &self.cells[rows] }
    }

    /// Calls `f` with the place in `wanted` and the row of each row of `rows` whose entity is wanted.
    /// Both ascend; returns how many of `wanted` are below the last entity of these rows.
    pub(crate) fn meet(
        &self,
        rows: ops::Range<usize>,
        wanted: &[EntityId],
        f: impl FnMut(usize, usize),
    ) -> usize {
        match &self.e {
            Ids::Near { base, offsets } => {
                meet(|row| base + u64::from(offsets[row]), rows, wanted, f)
            }
            Ids::Far(ids) => meet(|row| ids[row], rows, wanted, f),
        }
    }
}

#[inline]
fn meet(
    entity: impl Fn(usize) -> EntityId,
    rows: ops::Range<usize>,
    wanted: &[EntityId],
    mut f: impl FnMut(usize, usize),
) -> usize {
    let Some(last) = rows.end.checked_sub(1).filter(|last| *last >= rows.start) else { return 0 };
    let last_entity = entity(last);
    let first_entity = entity(rows.start);
    let mut at = wanted.partition_point(|e| *e < first_entity);
    let mut row = rows.start;
    while let Some(e) = wanted.get(at).copied().filter(|e| *e <= last_entity) {
        let here = entity(row);
        if here < e {
            // Most attributes have one value: then the entity is no further than it is greater.
            let near = row + (e - here).min((last - row) as u64) as usize;
            row = match (entity(near) < e, entity(near - 1) < e) {
                (false, true) => near,
                (false, false) => search(row + 1, near, |row| entity(row) >= e),
                (true, _) => search(near + 1, last, |row| entity(row) >= e),
            };
        }
        let mut found = row;
        while found <= last && entity(found) == e {
            f(at, found);
            found += 1;
        }
        at += 1;
    }
    wanted.partition_point(|e| *e < last_entity)
}

/// A row where it lies: a search mostly looks at one column.
struct RowAt<'a> {
    leaf: &'a Leaf,
    row: usize,
}

impl Key for RowAt<'_> {
    fn e(&self) -> EntityId {
        self.leaf.entity(self.row)
    }

    fn a(&self) -> AttrId {
        self.leaf.attribute(self.row)
    }

    fn v(&self) -> ValueRef<'_> {
        self.leaf.value(self.row)
    }

    fn tx(&self) -> TxId {
        self.leaf.tx(self.row)
    }

    fn added(&self) -> bool {
        self.leaf.added(self.row)
    }
}

/// The first row of `low..high` for which `past` holds, or `high`.
fn search(mut low: usize, mut high: usize, past: impl Fn(usize) -> bool) -> usize {
    while low < high {
        let middle = low.midpoint(high);
        if past(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// Where in the heap the string of a cell starts and ends.
fn string_bounds(cell: u64) -> (usize, usize) {
    let start = (cell >> 32) as usize;
    (start, start.saturating_add((cell & 0xffff_ffff) as usize))
}

/// Puts values into cells, strings into a heap and what fits neither into a side table. Equal
/// neighbours of one attribute share.
struct CellWriter<'a> {
    heap: String,
    side: Vec<Value>,
    last: Vec<Option<(ValueRef<'a>, u64)>>,
}

impl<'a> CellWriter<'a> {
    fn new(attributes: usize) -> Self {
        Self { heap: String::new(), side: Vec::new(), last: vec![None; attributes] }
    }

    fn cell(&mut self, attribute: usize, kind: Kind, v: &ValueRef<'a>) -> u64 {
        match (kind, v) {
            (Kind::Bool, ValueRef::Bool(b)) => return u64::from(*b),
            (Kind::Long, ValueRef::Long(n)) | (Kind::Inst, ValueRef::Inst(n)) => return *n as u64,
            (Kind::Double, ValueRef::Double(d)) => return d.to_bits(),
            (Kind::Float, ValueRef::Float(f)) => return u64::from(f.to_bits()),
            _ => {}
        }
        if let Some((same, cell)) = &self.last[attribute]
            && same == v
        {
            return *cell;
        }
        let cell = match (kind, v) {
            (Kind::Str, ValueRef::Str(s)) => {
                let start = self.heap.len();
                self.heap.push_str(s);
                (start as u64) << 32 | s.len() as u64
            }
            _ => {
                self.side.push(v.to_value());
                self.side.len() as u64 - 1
            }
        };
        self.last[attribute] = Some((*v, cell));
        cell
    }
}

impl Leaf {
    /// About how many bytes it takes in memory.
    pub(crate) fn memory(&self) -> usize {
        let ids = |ids: &Ids| match ids {
            Ids::Near { offsets, .. } => offsets.len() * 4,
            Ids::Far(ids) => ids.len() * 8,
        };
        let attributes = match &self.a.rows {
            AttributeRows::Same => 0,
            AttributeRows::Narrow(rows) => rows.len(),
            AttributeRows::Wide(rows) => rows.len() * 4,
        };
        size_of::<Self>()
            + ids(&self.e)
            + ids(&self.tx)
            + attributes
            + self.a.table.len() * 5
            + self.cells.len() * 8
            + self.heap.len()
            + self.side.len() * 64
            + self.added.as_ref().map_or(0, |added| added.len())
    }
}
