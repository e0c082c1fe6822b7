//! The end of a transaction: what follows from its facts, what is checked of the state it leads to,
//! and its report.

use std::collections::BTreeSet;
use std::sync::Arc;

use datahike_value::{Keyword, Value, kw};
use smallvec::SmallVec;

use super::overlay::Overlay;
use super::transactor::Transactor;
use super::{CallError, Resolution, ResolvedTx, TxError};
use crate::block::Missing;
use crate::datom::{AttrId, Datom, EntityId, TX0};
use crate::index::{DatomRef, Index};
use crate::schema::{Rules, Schema, SchemaUse, check_evolution, system};

impl Transactor<'_> {
    /// Notes that composite tuples of an entity depend on what is about to happen.
    pub(crate) fn mark_stale(&mut self, e: EntityId, part: AttrId) {
        let tuples = self.schema.composites_of(part);
        if tuples.is_empty() {
            return;
        }
        let (_, stale) = self.stale.get_or_insert_with(|| (e, SmallVec::new()));
        for tuple in tuples {
            if !stale.contains(tuple) {
                stale.push(*tuple);
            }
        }
    }

    /// Brings composite tuples up to date before another entity's turn.
    pub(crate) fn leave(&mut self, next: EntityId) -> Result<(), TxError> {
        match &self.stale {
            Some((e, _)) if *e != next => self.keep_composites(),
            _ => Ok(()),
        }
    }

    /// Brings the composite tuples of the latest entity up to date.
    pub(crate) fn keep_composites(&mut self) -> Result<(), TxError> {
        let Some((e, tuples)) = self.stale.take() else { return Ok(()) };
        let schema = Arc::clone(&self.schema);
        for tuple in tuples {
            let mut items = Vec::new();
            for part in schema.attribute(tuple).composite().unwrap_or_default() {
                items.push(match schema.attr_id(part) {
                    Some(part) => self.overlay.value(e, part)?.unwrap_or_default(),
                    None => Value::Nil,
                });
            }
            if items.iter().all(Value::is_nil) {
                if let Some(old) = self.overlay.value(e, tuple)? {
                    self.push(e, tuple, old, false);
                }
            } else {
                self.add_resolved(e, tuple, Value::vector(items))?;
            }
        }
        Ok(())
    }

    /// Checks the state that the transaction leads to.
    pub(crate) fn check_end(&mut self) -> Result<(), TxError> {
        let rules = Rules { strict: self.strict, backfill: self.options.allow_index_backfill };
        for e in &self.defined {
            let (before, data) = (self.db.schema(), &self.overlay);
            check_evolution(before, &self.schema, *e, rules, data)??;
        }
        for (e, spec) in std::mem::take(&mut self.ensure) {
            self.check_ensure(e, &spec)?;
        }
        self.check_system_entities()?;
        for e in std::mem::take(&mut self.dated) {
            let from = self.overlay.value(e, system::VALID_FROM)?;
            let to = self.overlay.value(e, system::VALID_TO)?;
            if let (Some(from), Some(to)) = (from, to)
                && from >= to
            {
                return Err(TxError::ValidTime { from, to, tx: e, earlier: e != self.tx });
            }
        }
        Ok(())
    }

    /// In attribute-refs mode the definitions of the system attributes are datoms, but not to be
    /// changed.
    fn check_system_entities(&self) -> Result<(), TxError> {
        if !self.refs {
            return Ok(());
        }
        let is_system =
            |d: &&Datom| Schema::defines_schema(d.a) && self.schema.is_system_entity(d.e);
        let changed = self.overlay.datoms().iter().filter(is_system);
        let Some(first) = changed.chain(self.purged.iter().filter(is_system)).next() else {
            return Ok(());
        };
        let added = self.overlay.datoms().iter().filter(is_system).any(|d| d.added);
        let ident = self.schema.ident_of_entity(first.e).cloned();
        Err(TxError::SystemEntity { e: first.e, ident, added })
    }

    fn check_ensure(&mut self, e: EntityId, spec: &Keyword) -> Result<(), TxError> {
        let fail = |reason| Err(TxError::Ensure { e, spec: spec.clone(), reason });
        let definition =
            self.schema.entity_of_ident(spec).and_then(|spec| self.schema.definition(spec));
        let Some(definition) = definition else {
            return fail("there is no such specification".to_owned());
        };
        let definition = definition.clone();
        let mut absent = BTreeSet::new();
        for attribute in &definition.entity_attrs {
            let has = match self.schema.attr_id(attribute) {
                Some(a) => self.overlay.value(e, a)?.is_some(),
                None => false,
            };
            if !has {
                absent.insert(attribute.to_string());
            }
        }
        if !absent.is_empty() {
            let absent: Vec<String> = absent.into_iter().collect();
            return fail(format!("it lacks {}", absent.join(", ")));
        }
        for predicate in &definition.entity_preds {
            let Some(holds) = self.options.functions.entity_predicate_named(predicate) else {
                return Err(TxError::UnknownPredicate {
                    attribute: spec.clone(),
                    predicate: predicate.to_string(),
                });
            };
            match holds(&self.midway(), e) {
                Ok(true) => {}
                Ok(false) => return fail(format!("{predicate} does not hold")),
                Err(CallError::Missing(missing)) => return Err(missing.into()),
                Err(CallError::Refused(reason)) => return fail(format!("{predicate}: {reason}")),
            }
        }
        Ok(())
    }

    /// What the transaction says of itself first.
    pub(crate) fn instant_datom(&self) -> Datom {
        let counters = self.db.counters();
        let next = if counters.max_tx == TX0 { i64::MIN } else { counters.last_instant + 1 };
        let instant = self.instant.unwrap_or(self.options.now.max(next));
        Datom {
            e: self.tx,
            a: system::TX_INSTANT,
            v: Value::Inst(instant),
            tx: self.tx,
            added: true,
        }
    }

    pub(crate) fn resolution(self) -> Resolution {
        let first = self.instant_datom();
        let instant = first.v.as_inst().unwrap_or_default();
        let datoms = self.overlay.into_datoms();
        let mut purged = self.purged;
        purged.sort_unstable_by(|a, b| DatomRef::from(a).cmp_in(&b.into(), Index::Eavt));
        purged.dedup();
        let resolved = ResolvedTx {
            tx: self.tx,
            new_attributes: self.new_attributes.into(),
            datoms: std::iter::once(first).chain(datoms).collect(),
            purged: purged.into(),
        };
        let mut schema = self.schema;
        if !Arc::ptr_eq(&schema, &self.db.shared_schema()) {
            Arc::make_mut(&mut schema).seal();
        }
        let mut meta = match &self.options.meta {
            Value::Map(entries) => (**entries).clone(),
            _ => std::collections::BTreeMap::new(),
        };
        meta.insert(kw!("db/txInstant").into(), Value::Inst(instant));
        let tempids = self.tempids;
        Resolution { resolved, schema, instant, tempids, meta: Value::map(meta) }
    }
}

impl SchemaUse for Overlay<'_> {
    fn is_used(&self, a: AttrId) -> Result<bool, Missing> {
        self.is_used(a)
    }

    fn holds_several(&self, a: AttrId) -> Result<bool, Missing> {
        let facts = self.attribute(a)?;
        Ok(facts.windows(2).any(|pair| pair[0].0 == pair[1].0))
    }

    fn has_duplicates(&self, a: AttrId) -> Result<bool, Missing> {
        let mut values: Vec<Value> = self.attribute(a)?.into_iter().map(|(_, v)| v).collect();
        values.sort();
        Ok(values.windows(2).any(|pair| pair[0] == pair[1]))
    }
}
