//! Entities: walking from attribute to attribute, reading only what is asked for.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};

use datahike_value::{Keyword, Value, kw};
use hashbrown::HashSet;

use crate::datom::{AttrId, EntityId};
use crate::db::{Db, DbError, entity_value};
use crate::index::Range;

/// How deep components are followed by [`Entity::touch`].
const MAX_DEPTH: usize = 128;

/// An entity of a snapshot. Cheap to make and to clone: it reads nothing until it is asked.
///
/// ```
/// use datahike_core::db::{Db, DbConfig, SchemaFlexibility};
/// use datahike_core::tx::TxOptions;
/// use datahike_value::{Value, edn, kw};
///
/// let db = Db::empty(DbConfig::new(SchemaFlexibility::Read));
/// let db = db.db_with(&edn::read("[{:name \"Ada\" :age 36}]")?, &TxOptions::at(0))?;
/// let ada = db.entity(&Value::from(1))?.ok_or("nobody")?;
/// assert_eq!(ada.get(&kw!("age"))?.map(|age| age.to_value()), Some(Value::from(36)));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Entity {
    db: Db,
    e: EntityId,
}

/// What stands under an attribute of an entity.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EntityValue {
    /// The value of an attribute that holds one.
    One(Value),
    /// The values of an attribute that holds many, in order.
    Many(Vec<Value>),
    /// The entity that a reference leads to.
    Entity(Entity),
    /// The entities that references lead to, in order.
    Entities(Vec<Entity>),
}

/// Equal are entities of one id in equal databases.
impl PartialEq for Entity {
    fn eq(&self, other: &Self) -> bool {
        self.e == other.e && self.db == other.db
    }
}

impl Eq for Entity {}

impl Hash for Entity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.e.hash(state);
    }
}

impl EntityValue {
    /// The one value, if it is one.
    pub fn as_value(&self) -> Option<&Value> {
        match self {
            Self::One(v) => Some(v),
            _ => None,
        }
    }

    /// The one entity, if it is one.
    pub fn as_entity(&self) -> Option<&Entity> {
        match self {
            Self::Entity(entity) => Some(entity),
            _ => None,
        }
    }

    /// The entities, one or many.
    pub fn entities(&self) -> &[Entity] {
        match self {
            Self::Entity(entity) => std::slice::from_ref(entity),
            Self::Entities(entities) => entities,
            Self::One(_) | Self::Many(_) => &[],
        }
    }

    /// As a plain value: sets for many, `{:db/id …}` for entities.
    pub fn to_value(&self) -> Value {
        match self {
            Self::One(v) => v.clone(),
            Self::Many(values) => Value::set(values.iter().cloned()),
            Self::Entity(entity) => entity.reference(),
            Self::Entities(entities) => Value::set(entities.iter().map(Entity::reference)),
        }
    }
}

impl Db {
    /// The entity that an id, ident or lookup ref names; `None` if it leads nowhere.
    ///
    /// # Errors
    /// As [`Db::entid`].
    pub fn entity(&self, name: &Value) -> Result<Option<Entity>, DbError> {
        let found = self.entid(name)?;
        Ok(found.map(|e| Entity { db: self.clone(), e }))
    }
}

impl Entity {
    /// Its id.
    pub fn id(&self) -> EntityId {
        self.e
    }

    /// The snapshot it is read from.
    pub fn db(&self) -> &Db {
        &self.db
    }

    /// `{:db/id …}`
    pub fn reference(&self) -> Value {
        Value::map([(kw!("db/id").into(), entity_value(self.e))])
    }

    /// What stands under an attribute, or under a reverse one (`:person/_friend`): those that refer
    /// to this entity by it. `None` if there is nothing.
    ///
    /// # Errors
    /// If blocks are missing.
    pub fn get(&self, attribute: &Keyword) -> Result<Option<EntityValue>, DbError> {
        if attribute.text() == "db/id" {
            return Ok(Some(EntityValue::One(entity_value(self.e))));
        }
        if attribute.is_reverse() {
            return match self.db.schema().attr_id(&attribute.reversed()) {
                Some(a) => self.reverse(a),
                None => Ok(None),
            };
        }
        match self.db.schema().attr_id(attribute) {
            Some(a) => {
                let values = self.values(a)?;
                Ok(self.seen(a, values))
            }
            None => Ok(None),
        }
    }

    /// The attributes that it has, in the order of their idents.
    ///
    /// # Errors
    /// If blocks are missing.
    pub fn keys(&self) -> Result<Vec<Keyword>, DbError> {
        let mut keys = Vec::new();
        for datom in self.db.scan(&Range::eavt(self.e, None, None)) {
            let ident = self.db.schema().ident(datom?.a);
            if keys.last() != Some(ident) {
                keys.push(ident.clone());
            }
        }
        keys.sort();
        keys.dedup();
        Ok(keys)
    }

    /// Everything about the entity as a map: sets for attributes that hold many, `{:db/id …}` for
    /// references, whole maps for components. Without `:db/id`.
    ///
    /// # Errors
    /// If blocks are missing.
    pub fn touch(&self) -> Result<Value, DbError> {
        self.touched(&mut HashSet::new(), 0).map(Value::map)
    }

    fn touched(
        &self,
        path: &mut HashSet<EntityId>,
        depth: usize,
    ) -> Result<BTreeMap<Value, Value>, DbError> {
        path.insert(self.e);
        let mut by_attribute: BTreeMap<AttrId, Vec<Value>> = BTreeMap::new();
        for datom in self.db.scan(&Range::eavt(self.e, None, None)) {
            let datom = datom?;
            by_attribute.entry(datom.a).or_default().push(datom.v);
        }
        let mut entries = BTreeMap::new();
        for (a, values) in by_attribute {
            let attribute = self.db.schema().attribute(a);
            let component = attribute.is_component;
            let key = Value::Keyword(attribute.ident.clone());
            let Some(seen) = self.seen(a, values) else { continue };
            let mut whole = |entity: &Self| -> Result<Value, DbError> {
                if !component || depth >= MAX_DEPTH || path.contains(&entity.e) {
                    return Ok(entity.reference());
                }
                let mut entries = entity.touched(path, depth + 1)?;
                entries.insert(kw!("db/id").into(), entity_value(entity.e));
                Ok(Value::map(entries))
            };
            let value = match &seen {
                EntityValue::Entity(entity) => whole(entity)?,
                EntityValue::Entities(entities) => {
                    let entities: Result<Vec<Value>, DbError> =
                        entities.iter().map(&mut whole).collect();
                    Value::set(entities?)
                }
                plain => plain.to_value(),
            };
            entries.insert(key, value);
        }
        path.remove(&self.e);
        Ok(entries)
    }

    fn values(&self, a: AttrId) -> Result<Vec<Value>, DbError> {
        let mut values = Vec::new();
        for datom in self.db.scan(&Range::eavt(self.e, a, None)) {
            values.push(datom?.v);
        }
        Ok(values)
    }

    fn reverse(&self, a: AttrId) -> Result<Option<EntityValue>, DbError> {
        let attribute = self.db.schema().attribute(a);
        if !attribute.is_ref() {
            return Ok(None);
        }
        let mut entities = Vec::new();
        for datom in self.db.scan(&Range::avet(a, entity_value(self.e))) {
            entities.push(self.other(datom?.e));
        }
        Ok(match entities.len() {
            0 => None,
            // A component has one owner.
            1 if attribute.is_component => entities.pop().map(EntityValue::Entity),
            _ => Some(EntityValue::Entities(entities)),
        })
    }

    fn other(&self, e: EntityId) -> Self {
        Self { db: self.db.clone(), e }
    }

    fn seen(&self, a: AttrId, mut values: Vec<Value>) -> Option<EntityValue> {
        if values.is_empty() {
            return None;
        }
        let attribute = self.db.schema().attribute(a);
        if !attribute.is_ref() {
            return Some(if attribute.is_many() {
                EntityValue::Many(values)
            } else {
                EntityValue::One(values.pop()?)
            });
        }
        let id = |v: &Value| v.as_long().and_then(|e| u64::try_from(e).ok());
        let mut entities: Vec<Self> = values.iter().filter_map(id).map(|e| self.other(e)).collect();
        Some(if attribute.is_many() {
            EntityValue::Entities(entities)
        } else {
            EntityValue::Entity(entities.pop()?)
        })
    }
}
