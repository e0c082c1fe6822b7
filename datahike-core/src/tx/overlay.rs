//! The state in the middle of a transaction: the snapshot before, with what has happened so far laid
//! over it.

use std::cell::Cell;

use datahike_value::Value;
use hashbrown::HashMap;
use smallvec::SmallVec;

use crate::block::Missing;
use crate::datom::{AttrId, Datom, EntityId};
use crate::db::{Db, entity_value};
use crate::index::{Iter, Near, Range};
use crate::schema::Schema;

/// Facts of one entity and attribute that changed, and whether they hold now.
type Changes<T> = SmallVec<[(T, bool); 1]>;

pub(crate) struct Overlay<'a> {
    db: &'a Db,
    /// Entities from here to `fresh_end` were given out by this transaction: the snapshot before
    /// knows nothing of them.
    fresh_from: EntityId,
    by_fact: HashMap<(EntityId, AttrId), Changes<Value>>,
    /// Only for attributes of AVET.
    by_value: HashMap<AttrId, HashMap<Value, Changes<EntityId>>>,
    datoms: Vec<Datom>,
    /// How often a fact changed; only for those that did more than once.
    again: bool,
    by_entity: HashMap<EntityId, SmallVec<[AttrId; 4]>>,
    by_entity_upto: usize,
    /// Where facts of an entity were read last: the next that are asked for are mostly of the same.
    near: Cell<Near>,
}

impl<'a> Overlay<'a> {
    pub(crate) fn new(db: &'a Db) -> Self {
        Self {
            db,
            fresh_from: db.counters().next_entity(),
            by_fact: HashMap::new(),
            by_value: HashMap::new(),
            datoms: Vec::new(),
            again: false,
            by_entity: HashMap::new(),
            by_entity_upto: 0,
            near: Cell::default(),
        }
    }

    /// What happened so far, as [`Self::into_datoms`] tells it.
    pub(crate) fn told(&self) -> Vec<Datom> {
        if self.again { normal(self.datoms.clone()) } else { self.datoms.clone() }
    }

    /// Whether a fact changed more than once.
    pub(crate) fn is_told_again(&self) -> bool {
        self.again
    }

    /// What happened. A fact that was stated and taken back more than once is told by its first and
    /// its last change.
    pub(crate) fn into_datoms(self) -> Vec<Datom> {
        if self.again { normal(self.datoms) } else { self.datoms }
    }

    fn read(&self, range: &Range) -> Iter {
        self.db.indexes().current(range)
    }

    fn is_fresh(&self, e: EntityId) -> bool {
        e >= self.fresh_from && crate::db::is_user_entity(e)
    }

    /// Whether the snapshot before may hold datoms of the attribute.
    fn is_old(&self, a: AttrId) -> bool {
        (a.0 as usize) < self.db.schema().len()
    }

    pub(crate) fn push(&mut self, datom: Datom, in_avet: bool) {
        let changes = self.by_fact.entry((datom.e, datom.a)).or_default();
        match changes.iter_mut().find(|(v, _)| *v == datom.v) {
            Some((_, holds)) => {
                *holds = datom.added;
                self.again = true;
            }
            None => changes.push((datom.v.clone(), datom.added)),
        }
        if in_avet {
            let of = self.by_value.entry(datom.a).or_default();
            let changes = of.entry(datom.v.clone()).or_default();
            match changes.iter_mut().find(|(e, _)| *e == datom.e) {
                Some((_, holds)) => *holds = datom.added,
                None => changes.push((datom.e, datom.added)),
            }
        }
        self.datoms.push(datom);
    }

    /// Makes a fact as if it had never been stated, by this transaction or before.
    pub(crate) fn forget(&mut self, fact: &Datom, in_avet: bool) {
        self.datoms.retain(|d| d.e != fact.e || d.a != fact.a || d.v != fact.v);
        self.by_entity_upto = 0;
        let after = self.datoms.len();
        self.push(Datom { added: false, ..fact.clone() }, in_avet);
        self.datoms.truncate(after);
    }

    /// What this transaction said so far.
    pub(crate) fn datoms(&self) -> &[Datom] {
        &self.datoms
    }

    /// The values of an attribute, in order.
    pub(crate) fn values(&self, e: EntityId, a: AttrId) -> Result<SmallVec<[Value; 2]>, Missing> {
        let changes = self.by_fact.get(&(e, a)).map_or(&[][..], SmallVec::as_slice);
        let mut values = SmallVec::new();
        if !self.is_fresh(e) && self.is_old(a) {
            let mut stored = self.read(&Range::eavt(e, a, None)).near(&self.near.take());
            self.near.set(stored.begin()?);
            for datom in stored {
                let v = datom?.v;
                if !changes.iter().any(|(changed, _)| *changed == v) {
                    values.push(v);
                }
            }
        }
        let before = values.len();
        values.extend(changes.iter().filter(|(_, holds)| *holds).map(|(v, _)| v.clone()));
        if before > 0 && values.len() > before {
            values.sort();
        }
        Ok(values)
    }

    /// One value of an attribute.
    pub(crate) fn value(&self, e: EntityId, a: AttrId) -> Result<Option<Value>, Missing> {
        Ok(self.values(e, a)?.into_iter().next())
    }

    pub(crate) fn holds(&self, e: EntityId, a: AttrId, v: &Value) -> Result<bool, Missing> {
        if let Some(changes) = self.by_fact.get(&(e, a))
            && let Some((_, holds)) = changes.iter().find(|(changed, _)| changed == v)
        {
            return Ok(*holds);
        }
        if self.is_fresh(e) || !self.is_old(a) {
            return Ok(false);
        }
        Ok(self.read(&Range::eavt(e, a, v.clone())).next().transpose()?.is_some())
    }

    /// The entities that hold a value of an attribute of AVET.
    pub(crate) fn owners(&self, a: AttrId, v: &Value) -> Result<SmallVec<[EntityId; 2]>, Missing> {
        let changes = self.by_value.get(&a).and_then(|of| of.get(v));
        let changes = changes.map_or(&[][..], SmallVec::as_slice);
        let mut owners: SmallVec<[EntityId; 2]> = SmallVec::new();
        if self.is_old(a) {
            for datom in self.read(&Range::avet(a, v.clone())) {
                let e = datom?.e;
                if !changes.iter().any(|(changed, _)| *changed == e) {
                    owners.push(e);
                }
            }
        }
        owners.extend(changes.iter().filter(|(_, holds)| *holds).map(|(e, _)| *e));
        Ok(owners)
    }

    /// One entity that holds a unique value.
    pub(crate) fn owner(&self, a: AttrId, v: &Value) -> Result<Option<EntityId>, Missing> {
        let changes = self.by_value.get(&a).and_then(|of| of.get(v));
        let changes = changes.map_or(&[][..], SmallVec::as_slice);
        if let Some((e, _)) = changes.iter().find(|(_, holds)| *holds) {
            return Ok(Some(*e));
        }
        if !self.is_old(a) {
            return Ok(None);
        }
        for datom in self.read(&Range::avet(a, v.clone())) {
            let e = datom?.e;
            if !changes.iter().any(|(changed, _)| *changed == e) {
                return Ok(Some(e));
            }
        }
        Ok(None)
    }

    /// All facts of an entity, in the order in which users see attributes.
    pub(crate) fn entity(
        &mut self,
        e: EntityId,
        schema: &Schema,
    ) -> Result<Vec<(AttrId, Value)>, Missing> {
        for datom in &self.datoms[self.by_entity_upto..] {
            let attributes = self.by_entity.entry(datom.e).or_default();
            if !attributes.contains(&datom.a) {
                attributes.push(datom.a);
            }
        }
        self.by_entity_upto = self.datoms.len();
        let mut attributes: Vec<AttrId> =
            self.by_entity.get(&e).map_or_else(Vec::new, |attributes| attributes.to_vec());
        if !self.is_fresh(e) {
            for datom in self.read(&Range::eavt(e, None, None)) {
                let a = datom?.a;
                if !attributes.contains(&a) {
                    attributes.push(a);
                }
            }
        }
        attributes.sort_by_key(|a| (schema.rank(*a), *a));
        let mut facts = Vec::new();
        for a in attributes {
            facts.extend(self.values(e, a)?.into_iter().map(|v| (a, v)));
        }
        Ok(facts)
    }

    /// All references to an entity.
    pub(crate) fn references(
        &self,
        e: EntityId,
        schema: &Schema,
    ) -> Result<Vec<(EntityId, AttrId)>, Missing> {
        let target = entity_value(e);
        let mut references = Vec::new();
        // Attributes of this transaction have no place in the order yet.
        let new = (self.db.schema().len()..schema.len()).filter_map(|a| {
            u32::try_from(a).ok().map(AttrId).filter(|a| schema.attribute(*a).is_ref())
        });
        for a in schema.ref_attributes().filter(|a| self.is_old(*a)).chain(new) {
            references.extend(self.owners(a, &target)?.into_iter().map(|owner| (owner, a)));
        }
        Ok(references)
    }

    /// Whether the attribute has any datom, in the past, now, or in this transaction.
    pub(crate) fn is_used(&self, a: AttrId) -> Result<bool, Missing> {
        if self.datoms.iter().any(|datom| datom.a == a) {
            return Ok(true);
        }
        if !self.is_old(a) {
            return Ok(false);
        }
        Ok(self.db.indexes().history(&Range::aevt(a, None)).next().transpose()?.is_some())
    }

    /// Every fact of an attribute, by entity.
    pub(crate) fn attribute(&self, a: AttrId) -> Result<Vec<(EntityId, Value)>, Missing> {
        let mut entities: Vec<EntityId> = Vec::new();
        if self.is_old(a) {
            for datom in self.read(&Range::aevt(a, None)) {
                entities.push(datom?.e);
            }
        }
        entities.extend(self.datoms.iter().filter(|datom| datom.a == a).map(|datom| datom.e));
        entities.sort_unstable();
        entities.dedup();
        let mut facts = Vec::new();
        for e in entities {
            facts.extend(self.values(e, a)?.into_iter().map(|v| (e, v)));
        }
        Ok(facts)
    }
}

/// Keeps of each fact the first and the last change, or the first alone if both say the same.
fn normal(datoms: Vec<Datom>) -> Vec<Datom> {
    let mut seen: HashMap<(EntityId, AttrId, Value), (usize, usize)> = HashMap::new();
    for (at, datom) in datoms.iter().enumerate() {
        let span = seen.entry((datom.e, datom.a, datom.v.clone())).or_insert((at, at));
        span.1 = at;
    }
    let mut keep = vec![false; datoms.len()];
    for (first, last) in seen.into_values() {
        keep[first] = true;
        keep[last] = keep[last] || datoms[first].added != datoms[last].added;
    }
    datoms.into_iter().zip(keep).filter(|(_, keep)| *keep).map(|(datom, _)| datom).collect()
}
