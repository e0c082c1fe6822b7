//! Who is meant inside a transaction: ids, tempids, idents and lookup refs, resolved against the
//! state that the transaction has reached.

use datahike_value::{Keyword, Value};
use hashbrown::{HashMap, HashSet};

use super::TxError;
use super::transactor::Transactor;
use crate::datom::{AttrId, EntityId, TX0};
use crate::db::{DbError, after, entity_value, is_user_entity};
use crate::schema::system;

/// What was learned about tempids in passes that had to be given up, because a tempid turned out to
/// mean an entity after it had been given an id.
#[derive(Debug, Default)]
pub(crate) struct Learned {
    entities: HashMap<Name, EntityId>,
    aliases: HashMap<Name, Name>,
}

impl Learned {
    pub(crate) fn len(&self) -> usize {
        self.entities.len() + self.aliases.len()
    }

    fn name(&self, name: &Name) -> Name {
        let mut name = name;
        // Aliases are made between names that have none, so that chains end.
        for _ in 0..=self.aliases.len() {
            match self.aliases.get(name) {
                Some(next) => name = next,
                None => break,
            }
        }
        name.clone()
    }
}

/// What stands for an entity that has no id yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Name {
    /// A negative number or a string.
    Tempid(Value),
    /// The n-th map without an id.
    Map(u32),
}

/// Tempids and what they were bound to in this pass.
#[derive(Debug, Default)]
pub(crate) struct Names {
    bound: HashMap<Name, EntityId>,
    /// Whom fresh ids were given out for, in order.
    fresh: Vec<(EntityId, Name)>,
    maps: u32,
    /// Tempids that stood for a value, and those that stood for an entity.
    pub(crate) as_value: HashSet<Value>,
    pub(crate) as_entity: HashSet<Value>,
}

/// An id no one can reach by counting, and below which ids are values of 63 bits.
pub(crate) const MAX_ENTITY: EntityId = 1 << 62;

/// How a form names an entity.
pub(crate) enum Subject {
    Known(EntityId),
    Tempid(Value),
}

pub(crate) fn is_tempid(value: &Value) -> bool {
    match value {
        Value::Long(n) => *n < 0,
        Value::Str(_) => true,
        _ => false,
    }
}

pub(crate) fn is_current_tx(value: &Value) -> bool {
    match value {
        Value::Keyword(ident) => ident.text() == "db/current-tx",
        Value::Str(text) => matches!(&**text, "datomic.tx" | "datahike.tx" | ":db/current-tx"),
        _ => false,
    }
}

impl Transactor<'_> {
    /// The entity of a form. `None` if a lookup ref or ident leads nowhere.
    pub(crate) fn subject(
        &mut self,
        value: &Value,
        form: &Value,
    ) -> Result<Option<Subject>, TxError> {
        if is_current_tx(value) {
            self.report_tempid(value.clone(), self.tx);
            return Ok(Some(Subject::Known(self.tx)));
        }
        if is_tempid(value) {
            return Ok(Some(Subject::Tempid(value.clone())));
        }
        Ok(self.entid(value, form)?.map(Subject::Known))
    }

    /// The same where the entity must be there already or be given by its id.
    pub(crate) fn existing(
        &mut self,
        value: &Value,
        form: &Value,
    ) -> Result<Option<EntityId>, TxError> {
        match self.subject(value, form)? {
            Some(Subject::Known(e)) => Ok(Some(e)),
            Some(Subject::Tempid(tempid)) => Err(TxError::Syntax {
                reason: format!("a tempid ({tempid}) cannot stand here"),
                form: form.clone(),
            }),
            None => Ok(None),
        }
    }

    pub(crate) fn missing_entity(value: &Value, form: &Value) -> TxError {
        TxError::EntityMissing { entity: value.clone(), form: form.clone() }
    }

    /// Like [`crate::db::Db::entid`], in the state the transaction has reached.
    pub(crate) fn entid(
        &mut self,
        value: &Value,
        form: &Value,
    ) -> Result<Option<EntityId>, TxError> {
        match value {
            Value::Long(id) => self.check_id(*id, value, form).map(Some),
            Value::Keyword(ident) => Ok(self.schema.entity_of_ident(ident)),
            Value::Vector(items) | Value::List(items) => {
                let [attribute, v] = &**items else {
                    let error = DbError::LookupSyntax { lookup: value.clone() };
                    return Err(TxError::of_lookup(error, form));
                };
                self.lookup(value, attribute, v, form)
            }
            _ => Err(TxError::of_lookup(DbError::EntitySyntax { value: value.clone() }, form)),
        }
    }

    fn check_id(&self, id: i64, value: &Value, form: &Value) -> Result<EntityId, TxError> {
        let wrong =
            |reason| TxError::EntitySyntax { value: value.clone(), reason, form: form.clone() };
        let e = u64::try_from(id).map_err(|_| wrong("a tempid cannot stand here"))?;
        if e >= MAX_ENTITY {
            return Err(wrong("ids end at 2^62"));
        }
        if !is_user_entity(e) && e > self.tx && !self.schema.is_system_entity(e) {
            return Err(wrong(
                "ids from 2^29 to 2^40 belong to transactions, and it has not happened",
            ));
        }
        Ok(e)
    }

    fn lookup(
        &mut self,
        whole: &Value,
        attribute: &Value,
        v: &Value,
        form: &Value,
    ) -> Result<Option<EntityId>, TxError> {
        let a = match attribute {
            Value::Keyword(ident) => self.schema.attr_id(ident),
            Value::Long(e) if self.refs => {
                u64::try_from(*e).ok().and_then(|e| self.schema.attr_of_entity(e))
            }
            _ => {
                let error = DbError::LookupSyntax { lookup: whole.clone() };
                return Err(TxError::of_lookup(error, form));
            }
        };
        let Some(a) = a.filter(|a| self.schema.attribute(*a).unique.is_some()) else {
            let error =
                DbError::LookupNotUnique { lookup: whole.clone(), attribute: attribute.clone() };
            return Err(TxError::of_lookup(error, form));
        };
        if v.is_nil() {
            return Ok(None);
        }
        let Some(v) = self.known_value(a, v, form)? else { return Ok(None) };
        self.owner(a, &v)
    }

    /// A value as it would be stored, without giving ids out. `None` if it names an entity that is
    /// not there.
    pub(crate) fn known_value(
        &mut self,
        a: AttrId,
        v: &Value,
        form: &Value,
    ) -> Result<Option<Value>, TxError> {
        if !self.schema.attribute(a).is_ref() {
            return Ok(Some(self.stored(a, v)));
        }
        if is_current_tx(v) {
            return Ok(Some(entity_value(self.tx)));
        }
        if is_tempid(v) {
            return Ok(self.bound(&Name::Tempid(v.clone())).map(entity_value));
        }
        Ok(self.entid(v, form)?.map(entity_value))
    }

    pub(crate) fn owner(&mut self, a: AttrId, v: &Value) -> Result<Option<EntityId>, TxError> {
        if self.schema.attribute(a).composite().is_some() {
            self.keep_composites()?;
        }
        Ok(self.overlay.owner(a, v)?)
    }

    /// What a name was bound to, in this pass or one given up.
    pub(crate) fn bound(&mut self, name: &Name) -> Option<EntityId> {
        let name = self.learned.name(name);
        if let Some(e) = self.names.bound.get(&name) {
            return Some(*e);
        }
        let e = *self.learned.entities.get(&name)?;
        self.names.bound.insert(name, e);
        Some(e)
    }

    /// The name of the next map without an id.
    pub(crate) fn next_map(&mut self) -> Name {
        self.names.maps += 1;
        Name::Map(self.names.maps)
    }

    /// The id of a name: the one it has, or the next one.
    pub(crate) fn id_of(&mut self, name: &Name, form: &Value) -> Result<EntityId, TxError> {
        let e = match self.bound(name) {
            Some(e) => e,
            None => {
                let e = self.allocate(form)?;
                let name = self.learned.name(name);
                self.names.fresh.push((e, name.clone()));
                self.names.bound.insert(name, e);
                e
            }
        };
        self.report_name(name, e);
        Ok(e)
    }

    fn report_name(&mut self, name: &Name, e: EntityId) {
        if let Name::Tempid(tempid) = name {
            self.report_tempid(tempid.clone(), e);
        }
    }

    fn allocate(&mut self, form: &Value) -> Result<EntityId, TxError> {
        let e = after(self.max_entity);
        if e >= MAX_ENTITY {
            return Err(TxError::EntitySyntax {
                value: entity_value(self.max_entity),
                reason: "no entity id is left after it",
                form: form.clone(),
            });
        }
        self.max_entity = e;
        Ok(e)
    }

    /// Binds a name to the entity that its unique values mean.
    pub(crate) fn upsert(
        &mut self,
        name: &Name,
        e: EntityId,
        form: &Value,
    ) -> Result<EntityId, TxError> {
        let had = self.bound(name);
        if had.is_some_and(|had| had != e) {
            self.learn(name, had.unwrap_or(e), e, form)?;
        }
        let real = self.learned.name(name);
        self.names.bound.insert(real, e);
        self.report_name(name, e);
        Ok(e)
    }

    /// The name got an id before it turned out whom it means. What is learned of it makes this pass
    /// void; it goes on only to learn of others.
    fn learn(
        &mut self,
        name: &Name,
        had: EntityId,
        means: EntityId,
        form: &Value,
    ) -> Result<(), TxError> {
        let fresh = |e: EntityId| {
            let found = self.names.fresh.iter().find(|(fresh, _)| *fresh == e);
            found.map(|(_, name)| name.clone())
        };
        let name = self.learned.name(name);
        match (fresh(had), fresh(means)) {
            (Some(_), None) => {
                self.learned.entities.insert(name, means);
            }
            (Some(_), Some(other)) if other != name => {
                self.learned.aliases.insert(name, other);
            }
            (None, Some(other)) if other != name => {
                self.learned.entities.insert(other, had);
            }
            _ => {
                let said = match &name {
                    Name::Tempid(tempid) => format!("tempid {tempid}"),
                    Name::Map(_) => "the map".to_owned(),
                };
                return Err(TxError::Upsert {
                    reason: format!("{said} means both entity {had} and entity {means}"),
                    form: form.clone(),
                });
            }
        }
        self.void = true;
        Ok(())
    }

    pub(crate) fn report_tempid(&mut self, tempid: Value, e: EntityId) {
        self.tempids.insert(tempid, e);
    }

    /// The attribute of a form.
    pub(crate) fn attr(&mut self, value: &Value, form: &Value) -> Result<AttrId, TxError> {
        match value {
            Value::Keyword(ident) => self.attr_by_ident(ident, form),
            Value::Long(e) if self.refs => {
                let known = u64::try_from(*e).ok().and_then(|e| self.schema.attr_of_entity(e));
                known.ok_or_else(|| TxError::Syntax {
                    reason: format!("{value} is no attribute"),
                    form: form.clone(),
                })
            }
            _ => Err(TxError::Syntax {
                reason: format!("{value} is no attribute: expected a keyword"),
                form: form.clone(),
            }),
        }
    }

    pub(crate) fn attr_by_ident(
        &mut self,
        ident: &Keyword,
        form: &Value,
    ) -> Result<AttrId, TxError> {
        if let Some(a) = self.schema.attr_id(ident)
            && (!self.strict
                || crate::schema::Schema::is_system(a)
                || self.schema.attribute(a).entity.is_some())
        {
            return Ok(a);
        }
        if *ident == system::function() {
            return Ok(self.intern(ident));
        }
        if ident.is_reverse() || ident.text() == "db/id" {
            return Err(TxError::Syntax {
                reason: format!("{ident} cannot stand as an attribute here"),
                form: form.clone(),
            });
        }
        if self.strict {
            return Err(TxError::UnknownAttribute {
                attribute: ident.clone(),
                hint: self.schema.nearest(ident),
                form: form.clone(),
            });
        }
        Ok(self.intern(ident))
    }

    /// Checks that every tempid that stands for a value is also an entity with facts.
    pub(crate) fn check_value_tempids(&self, form: &Value) -> Result<(), TxError> {
        let mut unused: Vec<&Value> =
            self.names.as_value.difference(&self.names.as_entity).collect();
        if unused.is_empty() {
            return Ok(());
        }
        unused.sort();
        let list: Vec<String> = unused.iter().map(ToString::to_string).collect();
        Err(TxError::Syntax {
            reason: format!("tempids used as values only: {}", list.join(", ")),
            form: form.clone(),
        })
    }
}

/// The transaction after `max_tx`.
pub(crate) fn next_tx(max_tx: u64) -> u64 {
    max_tx.max(TX0) + 1
}
