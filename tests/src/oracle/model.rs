//! The database as the list of what happened.

use std::collections::BTreeMap;

use datahike_value::{Keyword, Value};

/// What is known of an attribute; the default is a single plain value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttributeKind {
    /// Cardinality many.
    pub many: bool,
    /// Its values are entities.
    pub reference: bool,
    /// `:db.unique/identity`.
    pub identity: bool,
    /// `:db.unique/value`.
    pub unique: bool,
    /// Its values are parts of the entity.
    pub component: bool,
}

/// One event: `value` of `attribute` of `entity` was asserted or retracted in `tx`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fact {
    /// The entity.
    pub entity: i64,
    /// The attribute.
    pub attribute: Keyword,
    /// The value.
    pub value: Value,
    /// The transaction.
    pub tx: i64,
    /// Asserted or retracted.
    pub added: bool,
}

/// One operation of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// `[:db/add e a v]`
    Add(i64, Keyword, Value),
    /// `[:db/retract e a v]`
    Retract(i64, Keyword, Value),
    /// `[:db/retract e a]`
    RetractAttribute(i64, Keyword),
    /// `[:db/retractEntity e]`
    RetractEntity(i64),
    /// `[:db/cas e a old new]`; no old value: the attribute must be absent.
    CompareAndSet(i64, Keyword, Option<Value>, Value),
    /// `{a v, …}` without an id, where `a` is a unique identity that an entity has.
    Upsert(Keyword, Value, Vec<(Keyword, Value)>),
}

impl Change {
    /// As a form of transaction data.
    pub fn form(&self) -> Value {
        let op = |name: &str, rest: Vec<Value>| {
            Value::vector(std::iter::once(Value::keyword(name)).chain(rest))
        };
        match self {
            Self::Add(e, a, v) => op("db/add", vec![(*e).into(), a.into(), v.clone()]),
            Self::Retract(e, a, v) => op("db/retract", vec![(*e).into(), a.into(), v.clone()]),
            Self::RetractAttribute(e, a) => op("db/retract", vec![(*e).into(), a.into()]),
            Self::RetractEntity(e) => op("db/retractEntity", vec![(*e).into()]),
            Self::CompareAndSet(e, a, old, new) => op(
                "db/cas",
                vec![(*e).into(), a.into(), old.clone().unwrap_or_default(), new.clone()],
            ),
            Self::Upsert(key, value, rest) => Value::map(
                std::iter::once((key, value))
                    .chain(rest.iter().map(|(a, v)| (a, v)))
                    .map(|(a, v)| (Value::from(a), v.clone())),
            ),
        }
    }
}

/// Why the model refuses a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another entity has this unique value.
    Unique,
    /// The value is not the one that was compared with.
    CompareAndSet,
}

/// Which part of the past a reader sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// What holds now.
    Current,
    /// Everything that happened.
    History,
    /// What held after this transaction.
    AsOf(i64),
    /// What holds now and was asserted after this transaction.
    Since(i64),
}

/// A database.
#[derive(Clone, Debug, Default)]
pub struct Model {
    log: Vec<Fact>,
    kinds: BTreeMap<Keyword, AttributeKind>,
}

impl Model {
    /// An empty database with these attributes; others are single plain values.
    pub fn new(kinds: impl IntoIterator<Item = (Keyword, AttributeKind)>) -> Self {
        Self { log: Vec::new(), kinds: kinds.into_iter().collect() }
    }

    /// What is known of `attribute`.
    pub fn kind(&self, attribute: &Keyword) -> AttributeKind {
        self.kinds.get(attribute).copied().unwrap_or_default()
    }

    /// The attributes with their kinds.
    pub fn kinds(&self) -> impl Iterator<Item = (&Keyword, AttributeKind)> {
        self.kinds.iter().map(|(attribute, kind)| (attribute, *kind))
    }

    /// Notes a fact that the engine adds of itself: the instant of a transaction, the schema.
    pub fn record(&mut self, fact: Fact) {
        self.log.push(fact);
    }

    /// Applies `changes` as transaction `tx`, or none of them. Returns what was noted.
    ///
    /// # Errors
    /// If a unique value has another owner, or a compared value differs.
    pub fn transact(&mut self, tx: i64, changes: &[Change]) -> Result<Vec<Fact>, Refusal> {
        let mut next = self.clone();
        let before = next.log.len();
        for change in changes {
            next.apply(tx, change)?;
        }
        let facts = next.log[before..].to_vec();
        *self = next;
        Ok(facts)
    }

    /// What `view` sees.
    pub fn facts(&self, view: View) -> Vec<Fact> {
        match view {
            View::History => self.log.clone(),
            View::Current => holding(self.log.iter()),
            View::AsOf(tx) => holding(self.log.iter().filter(|fact| fact.tx <= tx)),
            View::Since(tx) => {
                holding(self.log.iter()).into_iter().filter(|fact| fact.tx > tx).collect()
            }
        }
    }

    /// The entity with this unique identity.
    pub fn lookup(&self, attribute: &Keyword, value: &Value) -> Option<i64> {
        self.facts(View::Current)
            .into_iter()
            .find(|fact| fact.attribute == *attribute && fact.value == *value)
            .map(|fact| fact.entity)
    }

    fn apply(&mut self, tx: i64, change: &Change) -> Result<(), Refusal> {
        match change {
            Change::Add(entity, attribute, value) => self.add(tx, *entity, attribute, value),
            Change::Retract(entity, attribute, value) => {
                self.retract(tx, |fact| {
                    fact.entity == *entity && fact.attribute == *attribute && fact.value == *value
                });
                Ok(())
            }
            Change::RetractAttribute(entity, attribute) => {
                self.retract(tx, |fact| fact.entity == *entity && fact.attribute == *attribute);
                Ok(())
            }
            Change::RetractEntity(entity) => {
                self.retract_entity(tx, *entity);
                Ok(())
            }
            Change::CompareAndSet(entity, attribute, old, new) => {
                let values = self.values(*entity, attribute);
                let holds = match old {
                    Some(old) => values.contains(old),
                    None => values.is_empty(),
                };
                if !holds {
                    return Err(Refusal::CompareAndSet);
                }
                self.add(tx, *entity, attribute, new)
            }
            Change::Upsert(key, value, rest) => {
                let entity = self.lookup(key, value).expect("an upsert names a known entity");
                rest.iter()
                    .try_for_each(|(attribute, value)| self.add(tx, entity, attribute, value))
            }
        }
    }

    fn add(
        &mut self,
        tx: i64,
        entity: i64,
        attribute: &Keyword,
        value: &Value,
    ) -> Result<(), Refusal> {
        let kind = self.kind(attribute);
        let values = self.values(entity, attribute);
        if values.contains(value) {
            return Ok(());
        }
        if (kind.unique || kind.identity) && self.lookup(attribute, value).is_some() {
            return Err(Refusal::Unique);
        }
        if !kind.many {
            self.retract(tx, |fact| fact.entity == entity && fact.attribute == *attribute);
        }
        let attribute = attribute.clone();
        self.log.push(Fact { entity, attribute, value: value.clone(), tx, added: true });
        Ok(())
    }

    /// With everything that refers to it, and with its components.
    fn retract_entity(&mut self, tx: i64, entity: i64) {
        let parts: Vec<i64> = self
            .facts(View::Current)
            .into_iter()
            .filter(|fact| fact.entity == entity && self.kind(&fact.attribute).component)
            .filter_map(|fact| fact.value.as_long())
            .collect();
        let kinds = self.kinds.clone();
        self.retract(tx, |fact| {
            let refers = kinds.get(&fact.attribute).is_some_and(|kind| kind.reference);
            fact.entity == entity || refers && fact.value == Value::Long(entity)
        });
        for part in parts {
            self.retract_entity(tx, part);
        }
    }

    fn retract(&mut self, tx: i64, which: impl Fn(&Fact) -> bool) {
        for fact in self.facts(View::Current) {
            if which(&fact) {
                self.log.push(Fact { tx, added: false, ..fact });
            }
        }
    }

    fn values(&self, entity: i64, attribute: &Keyword) -> Vec<Value> {
        self.facts(View::Current)
            .into_iter()
            .filter(|fact| fact.entity == entity && fact.attribute == *attribute)
            .map(|fact| fact.value)
            .collect()
    }
}

/// What is asserted after all of these events, each with the transaction that asserted it.
fn holding<'a>(events: impl Iterator<Item = &'a Fact>) -> Vec<Fact> {
    let mut held: Vec<Fact> = Vec::new();
    for event in events {
        held.retain(|fact| {
            (fact.entity, &fact.attribute, &fact.value)
                != (event.entity, &event.attribute, &event.value)
        });
        if event.added {
            held.push(event.clone());
        }
    }
    held
}
