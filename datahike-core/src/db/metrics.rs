//! Counts over a database, as Datahike's `metrics` gives them.

use std::collections::BTreeMap;

use datahike_value::{Value, kw};

use super::{Db, entity_value};
use crate::block::Missing;
use crate::datom::{AttrId, EntityId};
use crate::index::{Index, Range};

/// How many datoms a database shows, in all and by what they are about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Metrics {
    /// Datoms that the view shows.
    pub count: u64,
    /// Of these, datoms of attributes whose values are indexed.
    pub avet_count: u64,
    /// Datoms of each attribute that has any.
    pub per_attribute: BTreeMap<AttrId, u64>,
    /// Datoms of each entity that has any.
    pub per_entity: BTreeMap<EntityId, u64>,
    /// Datoms and retractions that are told besides what holds now: of the past. `None` if the
    /// database keeps none.
    pub temporal_count: Option<u64>,
    /// Of these, those of attributes whose values are indexed.
    pub temporal_avet_count: Option<u64>,
}

impl Metrics {
    /// `{:count n :avet-count n :per-attr-counts {…} :per-entity-counts {…} :temporal-count n
    /// :temporal-avet-count n}`, attributes by ident.
    pub fn to_value(&self, db: &Db) -> Value {
        let by_attribute = self
            .per_attribute
            .iter()
            .map(|(a, count)| (Value::Keyword(db.schema().ident(*a).clone()), long(*count)));
        let by_entity = self.per_entity.iter().map(|(e, count)| (entity_value(*e), long(*count)));
        let mut entries = vec![
            (kw!("count").into(), long(self.count)),
            (kw!("avet-count").into(), long(self.avet_count)),
            (kw!("per-attr-counts").into(), Value::map(by_attribute)),
            (kw!("per-entity-counts").into(), Value::map(by_entity)),
        ];
        let temporal = [
            (kw!("temporal-count"), self.temporal_count),
            (kw!("temporal-avet-count"), self.temporal_avet_count),
        ];
        entries.extend(temporal.into_iter().filter_map(|(key, n)| Some((key.into(), long(n?)))));
        Value::map(entries)
    }
}

fn long(n: u64) -> Value {
    Value::Long(i64::try_from(n).unwrap_or(i64::MAX))
}

impl Db {
    /// Counts all that the view shows. Reads all of it, and the past too where it is kept.
    ///
    /// # Errors
    /// If blocks are missing.
    pub fn metrics(&self) -> Result<Metrics, Missing> {
        let mut metrics = Metrics::default();
        let in_avet = |a| self.schema().attribute(a).in_avet();
        for datom in self.scan(&Range::all(Index::Eavt)) {
            let datom = datom?;
            metrics.count += 1;
            *metrics.per_attribute.entry(datom.a).or_default() += 1;
            *metrics.per_entity.entry(datom.e).or_default() += 1;
        }
        let indexed = metrics.per_attribute.iter().filter(|(a, _)| in_avet(**a));
        metrics.avet_count = indexed.map(|(_, count)| count).sum();
        if self.config().keep_history {
            let (mut all, mut all_avet) = (0u64, 0u64);
            for (range_is_history, sign) in [(true, 1i64), (false, -1)] {
                let range = Range::all(Index::Eavt);
                let datoms = match range_is_history {
                    true => self.indexes().history(&range),
                    false => self.indexes().current(&range),
                };
                for datom in datoms {
                    let datom = datom?;
                    all = all.saturating_add_signed(sign);
                    if in_avet(datom.a) {
                        all_avet = all_avet.saturating_add_signed(sign);
                    }
                }
            }
            metrics.temporal_count = Some(all);
            metrics.temporal_avet_count = Some(all_avet);
        }
        Ok(metrics)
    }
}
