//! Datoms in the order in which users see an index: attributes by ident (by entity in attribute-refs
//! mode), where the trees hold them by number.

use std::collections::VecDeque;
use std::ops::Bound;

use datahike_value::Value;

use super::{Db, DbError, Scan};
use crate::block::Missing;
use crate::datom::{AttrId, Datom, EntityId, TxId};
use crate::index::{Index, Prefix, Range};

/// The leading components of a position in an index, in its order: `[e a v tx]`, `[a e v tx]` or
/// `[a v e tx]`. Entities may be lookup refs or idents, as may values of reference attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Components(Vec<Value>);

impl Components {
    /// None: the whole index.
    pub fn none() -> Self {
        Self::default()
    }
}

impl FromIterator<Value> for Components {
    fn from_iter<T: IntoIterator<Item = Value>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl From<Vec<Value>> for Components {
    fn from(values: Vec<Value>) -> Self {
        Self(values)
    }
}

impl From<&[Value]> for Components {
    fn from(values: &[Value]) -> Self {
        Self(values.to_vec())
    }
}

impl<const N: usize> From<[Value; N]> for Components {
    fn from(values: [Value; N]) -> Self {
        Self(values.into())
    }
}

/// Datoms in the order of an index as users see it. After a fault, ask again once the blocks are
/// there.
pub struct Datoms<'a> {
    db: &'a Db,
    reverse: bool,
    parts: VecDeque<Part>,
    now: Option<Running>,
    only_tx: Option<TxId>,
}

/// A stretch of an index.
enum Part {
    /// One attribute at most, so that internal order is the users'.
    Plain(Range),
    /// Whole entities, whose attributes are to be put in order. The bounds on ranks are of the
    /// stretch's one entity.
    Entities { range: Range, ranks: std::ops::Range<u32> },
}

enum Running {
    Plain(Box<Scan>),
    Entities {
        scan: Box<std::iter::Peekable<Scan>>,
        ranks: std::ops::Range<u32>,
        ready: VecDeque<Datom>,
    },
}

const ALL_RANKS: std::ops::Range<u32> = 0..u32::MAX;

/// Components, looked up. `None` in place of all of it: they name something that is not there.
#[derive(Default)]
struct Position {
    e: Option<EntityId>,
    a: Option<AttrId>,
    v: Option<Value>,
    tx: Option<TxId>,
}

impl Db {
    /// The datoms of an index that start with these components.
    ///
    /// # Errors
    /// If a component is malformed, or blocks are missing to look one up.
    pub fn datoms(&self, index: Index, components: &Components) -> Result<Datoms<'_>, DbError> {
        let Some(position) = self.position(index, components)? else {
            return Ok(self.parts(false, []));
        };
        let leads = match index {
            Index::Eavt => position.e.is_some() && position.a.is_some(),
            Index::Aevt | Index::Avet => position.a.is_some(),
        };
        let only_tx = position.tx;
        let plain = Part::Plain(Range::prefix(index, position.prefix()));
        if leads {
            return Ok(Datoms { only_tx, ..self.parts(false, [plain]) });
        }
        Ok(match index {
            Index::Eavt => {
                let range = Range::prefix(Index::Eavt, position.prefix());
                self.parts(false, [Part::Entities { range, ranks: ALL_RANKS }])
            }
            _ => self.parts(false, self.whole_attributes(index, self.schema().in_order())),
        })
    }

    /// The datoms of an index from these components on, to its end.
    ///
    /// # Errors
    /// As [`Self::datoms`].
    pub fn seek_datoms(
        &self,
        index: Index,
        components: &Components,
    ) -> Result<Datoms<'_>, DbError> {
        self.seek(index, components, false)
    }

    /// The datoms of an index from these components (and all that starts with them) back to its
    /// beginning.
    ///
    /// # Errors
    /// As [`Self::datoms`].
    pub fn rseek_datoms(
        &self,
        index: Index,
        components: &Components,
    ) -> Result<Datoms<'_>, DbError> {
        self.seek(index, components, true)
    }

    /// The datoms of an indexed attribute whose values are between `start` and `end`, both included;
    /// nil is open.
    ///
    /// # Errors
    /// If the attribute is unknown or not indexed, or blocks are missing to look up a reference.
    pub fn index_range(
        &self,
        attribute: &Value,
        start: &Value,
        end: &Value,
    ) -> Result<Datoms<'_>, DbError> {
        let a = self.attr_of(attribute).ok_or_else(|| self.unknown(attribute))?;
        let known = self.schema().attribute(a);
        if !known.in_avet() {
            return Err(DbError::NotIndexed { attribute: known.ident.clone() });
        }
        let bound = |v: &Value| -> Result<Option<Value>, DbError> {
            if v.is_nil() { Ok(None) } else { self.component_value(a, v) }
        };
        let range = Range::avet_between(a, bound(start)?, bound(end)?);
        Ok(self.parts(false, [Part::Plain(range)]))
    }

    /// Every datom the view shows, by entity, attribute and value.
    pub fn all_datoms(&self) -> Datoms<'_> {
        self.parts(false, [Part::Entities { range: Range::all(Index::Eavt), ranks: ALL_RANKS }])
    }

    pub(crate) fn unknown(&self, attribute: &Value) -> DbError {
        let hint = attribute.as_keyword().and_then(|ident| self.schema().nearest(ident));
        DbError::UnknownAttribute { attribute: attribute.clone(), hint }
    }

    fn parts(&self, reverse: bool, parts: impl IntoIterator<Item = Part>) -> Datoms<'_> {
        Datoms { db: self, reverse, parts: parts.into_iter().collect(), now: None, only_tx: None }
    }

    fn whole_attributes(&self, index: Index, attributes: &[AttrId]) -> Vec<Part> {
        let shown = attributes
            .iter()
            .filter(|a| index != Index::Avet || self.schema().attribute(**a).in_avet());
        shown
            .map(|a| {
                let prefix = Prefix { a: Some(*a), ..Prefix::default() };
                Part::Plain(Range::prefix(index, prefix))
            })
            .collect()
    }

    fn position(
        &self,
        index: Index,
        Components(components): &Components,
    ) -> Result<Option<Position>, DbError> {
        let places: [usize; 3] = match index {
            Index::Eavt => [0, 1, 2],
            Index::Aevt => [1, 0, 2],
            Index::Avet => [2, 0, 1],
        };
        // A nil component ends the prefix.
        let given = components.iter().position(Value::is_nil).unwrap_or(components.len());
        let component = |place: usize| components[..given].get(place);
        let mut position = Position::default();
        if let Some(e) = component(places[0]) {
            let Some(e) = self.entid(e)? else { return Ok(None) };
            position.e = Some(e);
        }
        if let Some(a) = component(places[1]) {
            let Some(a) = self.attr_of(a) else { return Ok(None) };
            position.a = Some(a);
            if let Some(v) = component(places[2]) {
                let Some(v) = self.component_value(a, v)? else { return Ok(None) };
                position.v = Some(v);
            }
        }
        if let Some(tx) = component(3) {
            position.tx = tx.as_long().and_then(|tx| u64::try_from(tx).ok());
        }
        Ok(Some(position))
    }

    fn component_value(&self, a: AttrId, v: &Value) -> Result<Option<Value>, DbError> {
        if self.schema().attribute(a).is_ref() {
            return Ok(self.entid(v)?.map(super::entity_value));
        }
        Ok(Some(self.schema().canonical(a, v)))
    }

    fn seek(
        &self,
        index: Index,
        components: &Components,
        reverse: bool,
    ) -> Result<Datoms<'_>, DbError> {
        let Some(position) = self.position(index, components)? else {
            return Ok(self.parts(reverse, []));
        };
        let parts = match (index, position.e, position.a) {
            (Index::Eavt, None, _) => {
                vec![Part::Entities { range: Range::all(Index::Eavt), ranks: ALL_RANKS }]
            }
            (Index::Eavt, Some(e), a) => self.seek_entity(e, a, &position, reverse),
            (_, _, None) => self.ordered(index, 0, usize::MAX, reverse),
            (_, _, Some(a)) => {
                let rank = self.schema().rank(a) as usize;
                let mut parts = vec![Part::Plain(within(index, &position, reverse))];
                parts.extend(if reverse {
                    self.ordered(index, 0, rank, true)
                } else {
                    self.ordered(index, rank + 1, usize::MAX, false)
                });
                parts
            }
        };
        Ok(self.parts(reverse, parts))
    }

    /// The attributes from one place in the order to another, exclusive.
    fn ordered(&self, index: Index, from: usize, to: usize, reverse: bool) -> Vec<Part> {
        let order = self.schema().in_order();
        let to = to.min(order.len());
        let mut parts = self.whole_attributes(index, order.get(from..to).unwrap_or_default());
        if reverse {
            parts.reverse();
        }
        parts
    }

    fn seek_entity(
        &self,
        e: EntityId,
        a: Option<AttrId>,
        position: &Position,
        reverse: bool,
    ) -> Vec<Part> {
        let this = || Prefix { e: Some(e), ..Prefix::default() };
        let beyond = if reverse {
            Range { index: Index::Eavt, lower: Bound::Unbounded, upper: Bound::Excluded(this()) }
        } else {
            Range { index: Index::Eavt, lower: Bound::Excluded(this()), upper: Bound::Unbounded }
        };
        let of_this = || Range::prefix(Index::Eavt, this());
        let mut parts = match a {
            None => vec![Part::Entities { range: of_this(), ranks: ALL_RANKS }],
            Some(a) => {
                let rank = self.schema().rank(a);
                let ranks = if reverse { 0..rank } else { rank.saturating_add(1)..u32::MAX };
                vec![
                    Part::Plain(within(Index::Eavt, position, reverse)),
                    Part::Entities { range: of_this(), ranks },
                ]
            }
        };
        parts.push(Part::Entities { range: beyond, ranks: ALL_RANKS });
        parts
    }
}

/// From the position on, as far as its leading attribute (in EAVT: its entity's attribute) goes.
fn within(index: Index, position: &Position, reverse: bool) -> Range {
    let whole = Prefix {
        e: position.e.filter(|_| index == Index::Eavt),
        a: position.a,
        ..Prefix::default()
    };
    let (here, whole) = (Bound::Included(position.prefix()), Bound::Included(whole));
    if reverse {
        Range { index, lower: whole, upper: here }
    } else {
        Range { index, lower: here, upper: whole }
    }
}

impl Position {
    fn prefix(&self) -> Prefix {
        Prefix { e: self.e, a: self.a, v: self.v.clone(), ..Prefix::default() }
    }
}

impl Datoms<'_> {
    fn start(&self, part: Part) -> Running {
        let scan = |range: &Range| Scan::new(self.db, range, self.reverse);
        match part {
            Part::Plain(range) => Running::Plain(Box::new(scan(&range))),
            Part::Entities { range, ranks } => Running::Entities {
                scan: Box::new(scan(&range).peekable()),
                ranks,
                ready: VecDeque::new(),
            },
        }
    }
}

impl Iterator for Datoms<'_> {
    type Item = Result<Datom, Missing>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.now.is_none() {
                let part = self.parts.pop_front()?;
                self.now = Some(self.start(part));
            }
            let next = match self.now.as_mut()? {
                Running::Plain(scan) => scan.next(),
                Running::Entities { scan, ranks, ready } => {
                    match next_of_entities(self.db, scan, ranks, ready, self.reverse) {
                        Ok(next) => next.map(Ok),
                        Err(missing) => Some(Err(missing)),
                    }
                }
            };
            match next {
                None => self.now = None,
                Some(Ok(datom)) if self.only_tx.is_some_and(|tx| tx != datom.tx) => {}
                next => return next,
            }
        }
    }
}

/// Gathers one entity at a time and puts its attributes in order; within an attribute the order of
/// the scan is right already.
fn next_of_entities(
    db: &Db,
    scan: &mut std::iter::Peekable<Scan>,
    ranks: &std::ops::Range<u32>,
    ready: &mut VecDeque<Datom>,
    reverse: bool,
) -> Result<Option<Datom>, Missing> {
    loop {
        if let Some(datom) = ready.pop_front() {
            return Ok(Some(datom));
        }
        let Some(first) = scan.next().transpose()? else { return Ok(None) };
        let e = first.e;
        let mut datoms = vec![first];
        while let Some(next) = scan.next_if(|next| next.as_ref().map_or(true, |d| d.e == e)) {
            datoms.push(next?);
        }
        let rank = |datom: &Datom| db.schema().rank(datom.a);
        datoms.retain(|datom| ranks.contains(&rank(datom)));
        if reverse {
            datoms.sort_by_key(|datom| std::cmp::Reverse(rank(datom)));
        } else {
            datoms.sort_by_key(rank);
        }
        ready.extend(datoms);
    }
}
