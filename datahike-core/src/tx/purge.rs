//! The purging operations: facts that are to be gone from now and from the past.
//!
//! A purge is resolved to the very datoms of earlier transactions that go. What the same transaction
//! has said of such a fact before is unsaid; what it says after stands.

use std::sync::Arc;

use datahike_value::Value;
use hashbrown::HashSet;

use super::TxError;
use super::transactor::Transactor;
use crate::datom::{AttrId, Datom, EntityId, TxId};
use crate::db::entity_value;
use crate::index::Range;
use crate::schema::{Schema, system};

impl Transactor<'_> {
    pub(crate) fn purge(
        &mut self,
        op: &str,
        arguments: &[Value],
        form: &Value,
    ) -> Result<(), TxError> {
        if !self.db.config().keep_history {
            return Err(refuse("the database keeps no history", form));
        }
        match (op, arguments) {
            ("db/purge", [e, a, v]) => {
                let (e, a) = (self.purged_entity(e, form)?, self.attr(a, form)?);
                self.refuse_composite(a, form)?;
                let v = match self.schema.attribute(a).is_ref() {
                    true => entity_value(self.purged_entity(v, form)?),
                    false => self.stored(a, v),
                };
                let range = Range::eavt(e, a, v.clone());
                self.purge_facts(&range, |d| d.e == e && d.a == a && d.v == v, &mut Vec::new())
            }
            ("db.purge/attribute", [e, a]) => {
                let (e, a) = (self.purged_entity(e, form)?, self.attr(a, form)?);
                self.refuse_composite(a, form)?;
                let mut parts = Vec::new();
                self.purge_facts(&Range::eavt(e, a, None), |d| d.e == e && d.a == a, &mut parts)?;
                self.purge_entities(parts)
            }
            ("db.purge/entity", [e]) => {
                let e = self.purged_entity(e, form)?;
                self.purge_entities(vec![e])
            }
            ("db.history.purge/before", [Value::Inst(instant)]) => self.purge_before(*instant),
            ("db/purge", _) => Err(refuse("it takes an entity, an attribute and a value", form)),
            ("db.purge/attribute", _) => Err(refuse("it takes an entity and an attribute", form)),
            ("db.purge/entity", _) => Err(refuse("it takes an entity", form)),
            _ => Err(refuse("it takes an instant", form)),
        }
    }

    /// The entity that is meant now or was in the past.
    fn purged_entity(&mut self, value: &Value, form: &Value) -> Result<EntityId, TxError> {
        if let Some(e) = self.existing(value, form)? {
            return Ok(e);
        }
        let past = self.db.unviewed().history();
        let found = past.and_then(|past| past.entid(value));
        let found = found.map_err(|error| TxError::of_lookup(error, form))?;
        found.ok_or_else(|| refuse("there is and was no such entity", form))
    }

    fn refuse_composite(&self, a: AttrId, form: &Value) -> Result<(), TxError> {
        match self.schema.attribute(a).composite() {
            Some(_) => Err(refuse("the database keeps the attribute: purge its parts", form)),
            None => Ok(()),
        }
    }

    /// Purges entities, what refers or referred to them, and their components in turn.
    fn purge_entities(&mut self, entities: Vec<EntityId>) -> Result<(), TxError> {
        let mut seen: HashSet<EntityId> = HashSet::new();
        let mut waiting = entities;
        while let Some(e) = waiting.pop() {
            if !seen.insert(e) {
                continue;
            }
            self.purge_facts(&Range::eavt(e, None, None), |d| d.e == e, &mut waiting)?;
            let schema = Arc::clone(&self.schema);
            let target = entity_value(e);
            for a in schema.attributes().iter().filter(|a| a.is_ref()).map(|a| a.id) {
                let range = Range::avet(a, target.clone());
                self.purge_facts(&range, |d| d.a == a && d.v == target, &mut Vec::new())?;
            }
        }
        Ok(())
    }

    /// Purges all facts within a range, which are those that `within` says; gathers the components
    /// that they refer to.
    fn purge_facts(
        &mut self,
        range: &Range,
        within: impl Fn(&Datom) -> bool,
        parts: &mut Vec<EntityId>,
    ) -> Result<(), TxError> {
        let mut events = self.db.indexes().history(range).collect::<Result<Vec<_>, _>>()?;
        let own = self.overlay.datoms().iter().filter(|d| within(d)).cloned();
        let mut facts: Vec<Datom> = events.iter().cloned().chain(own).collect();
        facts.sort_by(|a, b| (a.e, a.a, &a.v).cmp(&(b.e, b.a, &b.v)));
        facts.dedup_by(|b, a| (a.e, a.a, &a.v) == (b.e, b.a, &b.v));
        self.purged.append(&mut events);
        for fact in facts {
            if self.schema.attribute(fact.a).is_component {
                parts.extend(fact.v.as_long().and_then(|part| u64::try_from(part).ok()));
            }
            self.forget(&fact)?;
        }
        Ok(())
    }

    fn forget(&mut self, fact: &Datom) -> Result<(), TxError> {
        let (e, a) = (fact.e, fact.a);
        self.leave(e)?;
        let schema = Arc::clone(&self.schema);
        if self.overlay.holds(e, a, &fact.v)? {
            if schema.attribute(a).composite().is_none() {
                self.mark_stale(e, a);
            }
            if Schema::defines_schema(a) {
                self.define(&Datom { tx: self.tx, added: false, ..fact.clone() });
            }
        }
        self.overlay.forget(fact, schema.attribute(a).in_avet());
        self.purge_tuples(fact)
    }

    /// A composite tuple repeats the values of its parts: those that hold the purged one go too.
    fn purge_tuples(&mut self, fact: &Datom) -> Result<(), TxError> {
        let schema = Arc::clone(&self.schema);
        for tuple in schema.composites_of(fact.a) {
            let parts = schema.attribute(*tuple).composite().unwrap_or_default();
            let place = parts.iter().position(|part| part == schema.ident(fact.a));
            let holds = |d: &Datom| {
                let item = d.v.as_slice().zip(place).and_then(|(items, place)| items.get(place));
                item == Some(&fact.v)
            };
            let events = self.db.indexes().history(&Range::eavt(fact.e, *tuple, None));
            let events = events.collect::<Result<Vec<Datom>, _>>()?;
            let own = self.overlay.datoms().iter().filter(|d| d.e == fact.e && d.a == *tuple);
            let gone: Vec<Datom> = events.iter().chain(own).filter(|d| holds(d)).cloned().collect();
            self.purged.extend(events.into_iter().filter(holds));
            for old in gone {
                self.overlay.forget(&old, schema.attribute(*tuple).in_avet());
            }
        }
        Ok(())
    }

    /// Purges what was asserted before an instant and has ended since.
    fn purge_before(&mut self, instant: i64) -> Result<(), TxError> {
        let is_before = self.transactions_before(instant)?;
        let ended = self.db.indexes().ended()?;
        // The retraction goes with the assertion that it ends: alone it would still tell the value.
        let mut life: Option<(&Datom, bool)> = None;
        for event in &ended {
            let ends = life.filter(|(start, _)| {
                !event.added && (start.e, start.a, &start.v) == (event.e, event.a, &event.v)
            });
            let goes = ends.map_or_else(|| is_before(event.tx), |(_, goes)| goes);
            life = event.added.then_some((event, goes));
            if goes {
                self.purged.push(event.clone());
            }
        }
        Ok(())
    }

    fn transactions_before(&self, instant: i64) -> Result<impl Fn(TxId) -> bool + use<>, TxError> {
        let mut later = HashSet::new();
        let mut upto = TxId::MAX;
        if self.db.counters().instants_rise {
            upto = self.db.tx_at(instant.saturating_sub(1))?;
        } else {
            for datom in self.db.indexes().current(&Range::aevt(system::TX_INSTANT, None)) {
                let datom = datom?;
                if datom.v.as_inst().is_some_and(|found| found >= instant) {
                    later.insert(datom.e);
                }
            }
        }
        Ok(move |tx| tx <= upto && !later.contains(&tx))
    }
}

fn refuse(reason: &'static str, form: &Value) -> TxError {
    TxError::Purge { reason, form: form.clone() }
}
