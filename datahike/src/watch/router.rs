//! Which watched queries a transaction may touch.

use std::collections::{HashMap, HashSet};

use datahike_core::datom::{AttrId, Datom, EntityId};
use datahike_core::query::Trigger;
use datahike_value::Value;

/// An index from the components of a datom to the evaluations that it may touch, each under the most
/// telling component of its triggers.
#[derive(Debug, Default)]
pub(super) struct Router {
    by_value: HashMap<(AttrId, Value), Vec<u64>>,
    by_entity: HashMap<EntityId, Vec<u64>>,
    by_attribute: HashMap<AttrId, Vec<u64>>,
    any: Vec<u64>,
}

impl Router {
    pub(super) fn add(&mut self, id: u64, triggers: &[Trigger]) {
        for trigger in triggers {
            self.place(trigger).push(id);
        }
    }

    pub(super) fn remove(&mut self, id: u64, triggers: &[Trigger]) {
        for trigger in triggers {
            self.place(trigger).retain(|known| *known != id);
        }
        self.by_value.retain(|_, ids| !ids.is_empty());
        self.by_entity.retain(|_, ids| !ids.is_empty());
    }

    fn place(&mut self, trigger: &Trigger) -> &mut Vec<u64> {
        match (trigger.entity, trigger.attribute, &trigger.value) {
            (_, Some(a), Some(value)) => self.by_value.entry((a, value.clone())).or_default(),
            (Some(e), _, _) => self.by_entity.entry(e).or_default(),
            (None, Some(a), None) => self.by_attribute.entry(a).or_default(),
            (None, None, _) => &mut self.any,
        }
    }

    /// The evaluations that these datoms may touch.
    pub(super) fn touched(&self, datoms: &[Datom]) -> HashSet<u64> {
        let mut touched: HashSet<u64> = self.any.iter().copied().collect();
        let by_value = !self.by_value.is_empty();
        for datom in datoms {
            touched.extend(self.by_entity.get(&datom.e).into_iter().flatten());
            touched.extend(self.by_attribute.get(&datom.a).into_iter().flatten());
            if by_value {
                let key = (datom.a, datom.v.clone());
                touched.extend(self.by_value.get(&key).into_iter().flatten());
            }
        }
        touched
    }
}
