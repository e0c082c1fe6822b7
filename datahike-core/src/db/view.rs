//! Which of a snapshot's datoms are seen.

use std::fmt;
use std::sync::{Arc, OnceLock};

use datahike_value::Value;

use super::Db;
use crate::block::Missing;
use crate::datom::{Datom, HIGH_ENTITIES, TX0, TxId};
use crate::index::{Index, Prefix, Range};
use crate::schema::system;

/// A point in a database's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimePoint {
    /// A transaction.
    Tx(TxId),
    /// Milliseconds since the epoch: the latest transaction that is not later.
    Inst(i64),
}

impl TimePoint {
    /// From an instant or a transaction id.
    pub fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Inst(instant) => Some(Self::Inst(*instant)),
            Value::Long(tx) => u64::try_from(*tx).ok().map(Self::Tx),
            _ => None,
        }
    }
}

/// Decides about a datom of a database.
pub type Filter = Arc<dyn Fn(&Db, &Datom) -> bool + Send + Sync>;

/// A stack of views, in the form in which their order does not matter: as-of keeps the earliest
/// point, since the latest, history is on or off, filters add up.
#[derive(Clone, Default)]
pub struct View {
    as_of: Vec<TimePoint>,
    since: Vec<TimePoint>,
    history: bool,
    filters: Vec<(Db, Filter)>,
    bounds: OnceLock<Bounds>,
}

/// The transactions that a view shows: those after `after`, up to `upto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) after: Option<TxId>,
    pub(crate) upto: Option<TxId>,
}

impl View {
    pub(crate) fn of(view: Option<&Self>) -> Self {
        let mut view = view.cloned().unwrap_or_default();
        view.bounds = OnceLock::new();
        view
    }

    pub(crate) fn with_history(self) -> Self {
        Self { history: true, ..self }
    }

    pub(crate) fn with_as_of(mut self, point: TimePoint) -> Self {
        self.as_of.push(point);
        self
    }

    pub(crate) fn with_since(mut self, point: TimePoint) -> Self {
        self.since.push(point);
        self
    }

    pub(crate) fn with_filter(mut self, db: Db, filter: Filter) -> Self {
        self.filters.push((db, filter));
        self
    }

    /// Whether retractions and superseded facts are shown.
    pub fn is_history(&self) -> bool {
        self.history
    }

    /// The as-of points, in the order given.
    pub fn as_of(&self) -> &[TimePoint] {
        &self.as_of
    }

    /// The since points, in the order given.
    pub fn since(&self) -> &[TimePoint] {
        &self.since
    }

    /// Whether a filter is part of it.
    pub fn is_filtered(&self) -> bool {
        !self.filters.is_empty()
    }

    /// Whether it was made like another one, of the same points and filters in any order.
    pub(crate) fn same(&self, other: &Self) -> bool {
        let sorted = |points: &[TimePoint]| {
            let mut points = points.to_vec();
            points.sort_unstable();
            points.dedup();
            points
        };
        let has = |filters: &[(Db, Filter)], wanted: &Filter| {
            filters.iter().any(|(_, filter)| Arc::ptr_eq(filter, wanted))
        };
        self.history == other.history
            && sorted(&self.as_of) == sorted(&other.as_of)
            && sorted(&self.since) == sorted(&other.since)
            && self.filters.iter().all(|(_, filter)| has(&other.filters, filter))
            && other.filters.iter().all(|(_, filter)| has(&self.filters, filter))
    }

    pub(crate) fn passes(&self, datom: &Datom) -> bool {
        self.filters.iter().all(|(db, filter)| filter(db, datom))
    }

    /// Looks the instants up, once per view.
    pub(crate) fn bounds(&self, db: &Db) -> Result<Bounds, Missing> {
        if let Some(bounds) = self.bounds.get() {
            return Ok(*bounds);
        }
        let tx = |point: &TimePoint| match point {
            TimePoint::Tx(tx) => Ok(*tx),
            TimePoint::Inst(instant) => db.tx_at(*instant),
        };
        let upto = self.as_of.iter().map(tx).collect::<Result<Vec<_>, _>>()?;
        let after = self.since.iter().map(tx).collect::<Result<Vec<_>, _>>()?;
        let bounds = Bounds { after: after.into_iter().max(), upto: upto.into_iter().min() };
        Ok(*self.bounds.get_or_init(|| bounds))
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("as_of", &self.as_of)
            .field("since", &self.since)
            .field("history", &self.history)
            .field("filters", &self.filters.len())
            .finish()
    }
}

impl Db {
    /// The latest transaction that is not later than `instant`; below [`TX0`] if there is none.
    ///
    /// # Errors
    /// If blocks are missing.
    pub fn tx_at(&self, instant: i64) -> Result<TxId, Missing> {
        if !self.counters().instants_rise {
            return self.search_tx_at(instant);
        }
        let (mut low, mut high) = (TX0, self.max_tx() + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.instant_from(middle)? {
                Some(found) if found <= instant => low = middle + 1,
                _ => high = middle,
            }
        }
        Ok(low - 1)
    }

    /// The instant of `tx`, or of the first transaction after it.
    fn instant_from(&self, tx: TxId) -> Result<Option<i64>, Missing> {
        let range = Range {
            upper: std::ops::Bound::Excluded(Prefix {
                e: Some(HIGH_ENTITIES),
                ..Prefix::default()
            }),
            ..Range::from(
                Index::Eavt,
                Prefix { e: Some(tx), a: Some(system::TX_INSTANT), ..Prefix::default() },
            )
        };
        for datom in self.indexes().current(&range) {
            let datom = datom?;
            if datom.a == system::TX_INSTANT {
                return Ok(datom.v.as_inst());
            }
        }
        Ok(None)
    }

    fn search_tx_at(&self, instant: i64) -> Result<TxId, Missing> {
        let mut latest = TX0 - 1;
        for datom in self.indexes().current(&Range::aevt(system::TX_INSTANT, None)) {
            let datom = datom?;
            if datom.v.as_inst().is_some_and(|found| found <= instant) {
                latest = latest.max(datom.e);
            }
        }
        Ok(latest)
    }
}
