//! Rows of which several may show the same, and what was read to show them.

use datahike_value::Value;
use hashbrown::{HashMap, HashSet};

use super::Delta;
use super::affected::Row;
use crate::datom::EntityId;

/// What a row shows, and the entities that were read for it.
#[derive(Clone, Debug)]
pub(super) struct Sight {
    value: Value,
    entities: Vec<EntityId>,
}

impl Sight {
    pub(super) fn new(value: Value, mut entities: Vec<EntityId>) -> Self {
        entities.sort_unstable();
        entities.dedup();
        Self { value, entities }
    }
}

/// Rows with what they show, by what they show, and by what was read.
#[derive(Debug, Default)]
pub(super) struct Counted {
    rows: HashMap<Row, Sight>,
    times: HashMap<Value, usize>,
    by_entity: HashMap<EntityId, HashSet<Row>>,
}

impl Counted {
    /// How many different things are shown.
    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    /// What is shown.
    pub(super) fn values(&self) -> impl Iterator<Item = &Value> {
        self.times.keys()
    }

    pub(super) fn holds(&self, row: &Row) -> bool {
        self.rows.contains_key(row)
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.keys()
    }

    /// The rows for which this entity was read.
    pub(super) fn read_from(&self, e: EntityId) -> impl Iterator<Item = &Row> {
        self.by_entity.get(&e).into_iter().flatten()
    }

    /// Takes rows out and in; a row that is there already shows what it is given now.
    pub(super) fn change(&mut self, gone: Vec<Row>, come: Vec<(Row, Sight)>) -> Delta {
        // What was shown before, of all that this change meets.
        let mut before: HashMap<Value, bool> = HashMap::new();
        for row in gone.iter().chain(come.iter().map(|(row, _)| row)) {
            self.remove(row, &mut before);
        }
        for (row, sight) in come {
            let times = self.times.entry(sight.value.clone()).or_insert(0);
            before.entry(sight.value.clone()).or_insert(*times > 0);
            *times += 1;
            for e in &sight.entities {
                self.by_entity.entry(*e).or_default().insert(row.clone());
            }
            self.rows.insert(row, sight);
        }
        let mut delta = Delta::default();
        for (value, was) in before {
            match (was, self.times.contains_key(&value)) {
                (false, true) => delta.added.push(value),
                (true, false) => delta.removed.push(value),
                _ => {}
            }
        }
        delta
    }

    fn remove(&mut self, row: &Row, before: &mut HashMap<Value, bool>) {
        let Some(Sight { value, entities }) = self.rows.remove(row) else { return };
        for e in entities {
            if let Some(rows) = self.by_entity.get_mut(&e) {
                rows.remove(row);
                if rows.is_empty() {
                    self.by_entity.remove(&e);
                }
            }
        }
        if let Some(times) = self.times.get_mut(&value) {
            *times -= 1;
            if *times == 0 {
                self.times.remove(&value);
            }
            before.entry(value).or_insert(true);
        }
    }
}
