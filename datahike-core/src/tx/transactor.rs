//! The run of one transaction: forms in order, each against the state that those before it reached.

use std::collections::BTreeMap;
use std::sync::Arc;

use datahike_value::{Keyword, Value};
use smallvec::SmallVec;

use super::call::Midway;
use super::names::{Learned, Name, Names, Subject, next_tx};
use super::overlay::Overlay;
use super::{Resolution, TxError, TxOptions};
use crate::datom::{AttrId, Datom, EntityId, TxId};
use crate::db::{Db, SchemaFlexibility};
use crate::schema::{Schema, system};

/// How deep maps may be nested.
pub(crate) const MAX_DEPTH: usize = 128;

pub(crate) struct Transactor<'a> {
    pub(crate) db: &'a Db,
    pub(crate) options: &'a TxOptions,
    /// The schema with what this transaction has changed in it.
    pub(crate) schema: Arc<Schema>,
    pub(crate) overlay: Overlay<'a>,
    pub(crate) tx: TxId,
    pub(crate) instant: Option<i64>,
    pub(crate) max_entity: EntityId,
    /// Schema-flexibility write.
    pub(crate) strict: bool,
    /// Attribute-refs mode.
    pub(crate) refs: bool,
    pub(crate) names: Names,
    pub(crate) learned: &'a mut Learned,
    /// The pass cannot stand: a tempid means another entity than it was taken for.
    pub(crate) void: bool,
    pub(crate) tempids: BTreeMap<Value, EntityId>,
    /// What earlier transactions said and is to be gone.
    pub(crate) purged: Vec<Datom>,
    pub(crate) new_attributes: Vec<Keyword>,
    /// Entities whose definitions changed.
    pub(crate) defined: Vec<EntityId>,
    /// The entity whose composite tuples are to be brought up to date, and which.
    pub(crate) stale: Option<(EntityId, SmallVec<[AttrId; 4]>)>,
    /// Entities that asked to be checked, and the specification.
    pub(crate) ensure: Vec<(EntityId, Keyword)>,
    /// Transactions whose valid time was said something about.
    pub(crate) dated: SmallVec<[EntityId; 2]>,
    /// Functions of the host that are being called.
    pub(crate) calls: usize,
    pub(crate) midway: Option<Midway>,
}

/// Resolves; see [`Db::with`].
pub(crate) fn resolve(
    db: &Db,
    tx_data: &Value,
    options: &TxOptions,
) -> Result<Resolution, TxError> {
    if db.is_filtered() {
        return Err(TxError::Filtered);
    }
    let forms = forms(tx_data)?;
    let mut learned = Learned::default();
    loop {
        let before = learned.len();
        let mut pass = Transactor::new(db, options, &mut learned);
        let outcome = pass.run(&forms, tx_data);
        match outcome {
            // Blocks are wanted whatever comes of the pass.
            Err(TxError::Missing(missing)) => {
                return Err(super::probe::widen(db, &forms, missing).into());
            }
            Err(error) if !pass.void => return Err(error),
            Ok(()) if !pass.void => return Ok(pass.resolution()),
            _ => {}
        }
        if learned.len() == before {
            // Cannot be: a pass is void because something was learned in it.
            return Err(TxError::Upsert {
                reason: "tempids cannot be resolved".to_owned(),
                form: tx_data.clone(),
            });
        }
    }
}

pub(crate) fn forms(tx_data: &Value) -> Result<Vec<&Value>, TxError> {
    match tx_data {
        Value::Nil => Ok(Vec::new()),
        Value::Vector(forms) | Value::List(forms) => Ok(forms.iter().collect()),
        Value::Set(forms) => Ok(forms.iter().collect()),
        _ => Err(TxError::Syntax {
            reason: "a transaction must be a collection of maps and vectors".to_owned(),
            form: tx_data.clone(),
        }),
    }
}

impl<'a> Transactor<'a> {
    fn new(db: &'a Db, options: &'a TxOptions, learned: &'a mut Learned) -> Self {
        Self {
            db,
            options,
            schema: db.shared_schema(),
            overlay: Overlay::new(db),
            tx: next_tx(db.max_tx()),
            instant: None,
            max_entity: db.counters().max_entity,
            strict: db.config().schema_flexibility == SchemaFlexibility::Write,
            refs: db.config().attribute_refs,
            names: Names::default(),
            learned,
            void: false,
            tempids: BTreeMap::new(),
            purged: Vec::new(),
            new_attributes: Vec::new(),
            defined: Vec::new(),
            stale: None,
            ensure: Vec::new(),
            dated: SmallVec::new(),
            calls: 0,
            midway: None,
        }
    }

    fn run(&mut self, forms: &[&Value], tx_data: &Value) -> Result<(), TxError> {
        self.report_tempid(Value::keyword("db/current-tx"), self.tx);
        self.metadata()?;
        for form in forms {
            self.form(form)?;
        }
        self.keep_composites()?;
        self.check_value_tempids(tx_data)?;
        self.check_end()
    }

    fn metadata(&mut self) -> Result<(), TxError> {
        let options = self.options;
        let meta = &options.meta;
        let entries = match meta {
            Value::Nil => return Ok(()),
            Value::Map(entries) => entries,
            _ => {
                return Err(TxError::Syntax {
                    reason: "the metadata of a transaction must be a map".to_owned(),
                    form: meta.clone(),
                });
            }
        };
        for (key, value) in entries.iter() {
            let a = self.attr(key, meta)?;
            for v in self.values_of(a, value) {
                self.add(self.tx, a, v, meta)?;
            }
        }
        Ok(())
    }

    pub(crate) fn form(&mut self, form: &Value) -> Result<(), TxError> {
        match form {
            Value::Nil => Ok(()),
            Value::Map(_) => self.map(form, None, 0).map(drop),
            Value::Vector(items) | Value::List(items) => self.operation(items, form),
            _ => Err(TxError::Syntax {
                reason: "expected a map or a vector".to_owned(),
                form: form.clone(),
            }),
        }
    }

    /// Records what happens to one fact, and what follows for the schema.
    pub(crate) fn push(&mut self, e: EntityId, a: AttrId, v: Value, added: bool) {
        let attribute = self.schema.attribute(a);
        let in_avet = attribute.in_avet();
        if self.schema.has_composites() && attribute.composite().is_none() {
            self.mark_stale(e, a);
        }
        if crate::db::is_user_entity(e) && e > self.max_entity {
            self.max_entity = e;
        }
        if matches!(a, system::VALID_FROM | system::VALID_TO) && !self.dated.contains(&e) {
            self.dated.push(e);
        }
        let datom = Datom { e, a, v, tx: self.tx, added };
        if Schema::defines_schema(a) {
            self.define(&datom);
        }
        self.overlay.push(datom, in_avet);
    }

    pub(crate) fn define(&mut self, datom: &Datom) {
        if !self.defined.contains(&datom.e) {
            self.defined.push(datom.e);
        }
        let schema = Arc::make_mut(&mut self.schema);
        let before = schema.len();
        schema.absorb(datom);
        if datom.a == system::TUPLE_ATTRS || datom.a == system::IDENT && schema.has_composites() {
            schema.index_composites();
        }
        self.note_new_attributes(before);
    }

    pub(crate) fn intern(&mut self, ident: &Keyword) -> AttrId {
        let schema = Arc::make_mut(&mut self.schema);
        let before = schema.len();
        let a = schema.intern(ident);
        self.note_new_attributes(before);
        a
    }

    fn note_new_attributes(&mut self, before: usize) {
        let new = self.schema.attributes()[before..].iter();
        self.new_attributes.extend(new.map(|attribute| attribute.ident.clone()));
    }

    /// A map: the entity it means or makes, and a fact for each value in it. `link` makes that
    /// entity the value (or, reversed, the owner) of another's attribute.
    pub(crate) fn map(
        &mut self,
        form: &Value,
        link: Option<Link>,
        depth: usize,
    ) -> Result<EntityId, TxError> {
        let Some(entries) = form.as_map() else {
            return Err(TxError::Syntax {
                reason: "expected a map".to_owned(),
                form: form.clone(),
            });
        };
        if depth > MAX_DEPTH {
            return Err(TxError::Syntax {
                reason: format!("maps are nested more than {MAX_DEPTH} deep"),
                form: Value::Nil,
            });
        }
        let e = self.map_entity(entries, form)?;
        for (key, value) in entries {
            let Value::Keyword(ident) = key else {
                let a = self.attr(key, form)?;
                self.map_entry(e, a, value, form, depth)?;
                continue;
            };
            match ident.text() {
                // Says nothing here: what installs an attribute is its definition.
                "db/id" | "db.install/_attribute" => continue,
                "db/ensure" => {
                    self.ask_ensure(e, value, form)?;
                    continue;
                }
                _ => {}
            }
            if ident.is_reverse() {
                self.reverse_entry(e, ident, value, form, depth)?;
            } else {
                let a = self.attr_by_ident(ident, form)?;
                self.map_entry(e, a, value, form, depth)?;
            }
        }
        match link {
            None => {}
            Some(Link::ValueOf(owner, a)) => {
                self.add(owner, a, crate::db::entity_value(e), form)?;
            }
            Some(Link::OwnerOf(value, a)) => {
                self.add(e, a, crate::db::entity_value(value), form)?;
            }
        }
        Ok(e)
    }

    fn map_entry(
        &mut self,
        e: EntityId,
        a: AttrId,
        value: &Value,
        form: &Value,
        depth: usize,
    ) -> Result<(), TxError> {
        let is_ref = self.schema.attribute(a).is_ref();
        for v in self.values_of(a, value) {
            if is_ref && matches!(v, Value::Map(_)) {
                self.map(v, Some(Link::ValueOf(e, a)), depth + 1)?;
            } else {
                self.add(e, a, v, form)?;
            }
        }
        Ok(())
    }

    fn reverse_entry(
        &mut self,
        e: EntityId,
        ident: &Keyword,
        value: &Value,
        form: &Value,
        depth: usize,
    ) -> Result<(), TxError> {
        let a = self.attr_by_ident(&ident.reversed(), form)?;
        if !self.schema.attribute(a).is_ref() {
            return Err(TxError::Syntax {
                reason: format!(
                    "{ident}: a reverse attribute needs {{:db/valueType :db.type/ref}}"
                ),
                form: form.clone(),
            });
        }
        let owners: SmallVec<[&Value; 4]> = match value {
            Value::Vector(items) | Value::List(items) if !self.is_lookup_ref(items) => {
                items.iter().collect()
            }
            Value::Set(items) => items.iter().collect(),
            _ => SmallVec::from_slice(&[value]),
        };
        for owner in owners {
            if matches!(owner, Value::Map(_)) {
                self.map(owner, Some(Link::OwnerOf(e, a)), depth + 1)?;
            } else {
                self.add_to(owner, a, &crate::db::entity_value(e), form)?;
            }
        }
        Ok(())
    }

    /// The values that stand under an attribute: several if it holds many and they are a collection
    /// that is no lookup ref.
    pub(crate) fn values_of<'v>(&self, a: AttrId, value: &'v Value) -> SmallVec<[&'v Value; 4]> {
        if !self.schema.attribute(a).is_many() {
            return SmallVec::from_slice(&[value]);
        }
        match value {
            // A specification lists attributes, never entities.
            Value::Vector(items) | Value::List(items)
                if a == system::ENTITY_ATTRS || !self.is_lookup_ref(items) =>
            {
                items.iter().collect()
            }
            Value::Set(items) => items.iter().collect(),
            _ => SmallVec::from_slice(&[value]),
        }
    }

    fn is_lookup_ref(&self, items: &[Value]) -> bool {
        let [attribute, _] = items else { return false };
        let a = match attribute {
            Value::Keyword(ident) => self.schema.attr_id(ident),
            Value::Long(e) if self.refs => {
                u64::try_from(*e).ok().and_then(|e| self.schema.attr_of_entity(e))
            }
            _ => None,
        };
        a.is_some_and(|a| self.schema.attribute(a).is_identity())
    }

    /// The entity of a map: the one its id names, or that its unique values mean, or a new one.
    fn map_entity(
        &mut self,
        entries: &BTreeMap<Value, Value>,
        form: &Value,
    ) -> Result<EntityId, TxError> {
        let id = form.get(&datahike_value::kw!("db/id")).filter(|id| !id.is_nil());
        let subject = match id {
            None => None,
            Some(id) => match self.subject(id, form)? {
                Some(subject) => Some(subject),
                None => return Err(Self::missing_entity(id, form)),
            },
        };
        let means = self.meant_by_values(entries, form)?;
        let name = match subject {
            Some(Subject::Known(e)) => {
                return match means {
                    Some(means) if means != e => Err(TxError::Upsert {
                        reason: format!("a unique value means entity {means}, but :db/id is {e}"),
                        form: form.clone(),
                    }),
                    _ => Ok(e),
                };
            }
            Some(Subject::Tempid(tempid)) => {
                self.names.as_entity.insert(tempid.clone());
                Name::Tempid(tempid)
            }
            None => self.next_map(),
        };
        match means {
            Some(means) => self.upsert(&name, means, form),
            None => self.id_of(&name, form),
        }
    }

    /// The entity that the identity attributes of a map mean.
    fn meant_by_values(
        &mut self,
        entries: &BTreeMap<Value, Value>,
        form: &Value,
    ) -> Result<Option<EntityId>, TxError> {
        let mut means: Option<Means> = None;
        let mut composites: SmallVec<[AttrId; 2]> = SmallVec::new();
        for (key, value) in entries {
            let Value::Keyword(ident) = key else { continue };
            let Some(a) = self.schema.attr_id(ident) else { continue };
            for tuple in self.schema.composites_of(a) {
                if self.schema.attribute(*tuple).is_identity() && !composites.contains(tuple) {
                    composites.push(*tuple);
                }
            }
            if !self.schema.attribute(a).is_identity() {
                continue;
            }
            for v in self.values_of(a, value) {
                if v.is_nil() || matches!(v, Value::Map(_)) {
                    continue;
                }
                let Some(v) = self.known_value(a, v, form)? else { continue };
                if let Some(owner) = self.owner(a, &v)? {
                    self.agree(&mut means, (owner, a, v), form)?;
                }
            }
        }
        for tuple in composites {
            if let Some(v) = self.composite_of(entries, tuple, form)?
                && let Some(owner) = self.owner(tuple, &v)?
            {
                self.agree(&mut means, (owner, tuple, v), form)?;
            }
        }
        Ok(means.map(|(e, ..)| e))
    }

    /// All unique values of a map must mean the same entity.
    fn agree(&self, means: &mut Option<Means>, more: Means, form: &Value) -> Result<(), TxError> {
        let (e, a, v) = &more;
        match means {
            Some((first_e, first_a, first_v)) if first_e != e => Err(TxError::Upsert {
                reason: format!(
                    "{} {first_v} means entity {first_e}, but {} {v} means entity {e}",
                    self.schema.ident(*first_a),
                    self.schema.ident(*a)
                ),
                form: form.clone(),
            }),
            Some(_) => Ok(()),
            None => {
                *means = Some(more);
                Ok(())
            }
        }
    }

    fn composite_of(
        &mut self,
        entries: &BTreeMap<Value, Value>,
        tuple: AttrId,
        form: &Value,
    ) -> Result<Option<Value>, TxError> {
        let schema = Arc::clone(&self.schema);
        let mut items = Vec::new();
        for part in schema.attribute(tuple).composite().unwrap_or_default() {
            let value = entries.get(&Value::Keyword(part.clone()));
            let (Some(value), Some(a)) = (value, schema.attr_id(part)) else { return Ok(None) };
            let Some(value) = self.known_value(a, value, form)? else { return Ok(None) };
            items.push(value);
        }
        Ok(Some(Value::vector(items)))
    }

    fn ask_ensure(&mut self, e: EntityId, value: &Value, form: &Value) -> Result<(), TxError> {
        let specs: SmallVec<[&Value; 2]> = match value {
            Value::Vector(items) | Value::List(items) => items.iter().collect(),
            Value::Set(items) => items.iter().collect(),
            _ => SmallVec::from_slice(&[value]),
        };
        for spec in specs {
            let Value::Keyword(ident) = spec else {
                return Err(TxError::Syntax {
                    reason: format!(":db/ensure needs the ident of a specification, not {spec}"),
                    form: form.clone(),
                });
            };
            self.ensure.push((e, ident.clone()));
        }
        Ok(())
    }
}

/// How a nested map hangs together with the entity around it.
pub(crate) enum Link {
    ValueOf(EntityId, AttrId),
    OwnerOf(EntityId, AttrId),
}

/// The entity that a unique value means.
type Means = (EntityId, AttrId, Value);
