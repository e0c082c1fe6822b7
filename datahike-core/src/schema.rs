//! The schema of a snapshot: its attributes by number, name and entity, and every named entity.
//!
//! Schema is data: it is the fold of the datoms of the system attributes, in the order in which they
//! were transacted. `Schema::absorb` is that fold's step, used alike by the transactor and by
//! replay, so that both reach the same schema.

mod attribute;
mod check;
mod definition;
mod print;
mod record;
pub mod system;

use std::sync::Arc;

use datahike_value::{Keyword, Value};
use hashbrown::HashMap;

pub use self::attribute::{Attribute, Cardinality, Tuple, Unique, ValueType};
pub(crate) use self::check::{Rules, check_evolution, system_value_error};
pub use self::check::{SchemaError, SchemaUse};
pub(crate) use self::definition::Definition;
pub use self::record::SchemaRecordError;
use crate::datom::{AttrId, Datom, EntityId, TX0};

/// The attributes and idents of one snapshot. Cloned on write: snapshots share it.
#[derive(Clone, Debug)]
pub struct Schema {
    attribute_refs: bool,
    attributes: Vec<Attribute>,
    by_ident: HashMap<Keyword, AttrId>,
    by_entity: HashMap<EntityId, AttrId>,
    idents: HashMap<Keyword, EntityId>,
    /// Every entity with a schema attribute, system entities aside.
    definitions: HashMap<EntityId, Arc<Definition>>,
    /// System entities in attribute-refs mode.
    system_names: HashMap<EntityId, Keyword>,
    composites: HashMap<Keyword, Vec<AttrId>>,
    order: Arc<[AttrId]>,
    rank: Arc<[u32]>,
}

impl Schema {
    /// The schema of an empty database.
    pub fn new(attribute_refs: bool) -> Self {
        let mut schema = Self {
            attribute_refs,
            attributes: Vec::with_capacity(system::ATTRIBUTES.len()),
            by_ident: HashMap::new(),
            by_entity: HashMap::new(),
            idents: HashMap::new(),
            definitions: HashMap::new(),
            system_names: HashMap::new(),
            composites: HashMap::new(),
            order: Arc::new([]),
            rank: Arc::new([]),
        };
        for row in system::ATTRIBUTES {
            let ident = Keyword::parse(row.ident);
            let id = schema.intern(&ident);
            let attribute = &mut schema.attributes[id.0 as usize];
            attribute.value_type = row.value_type;
            attribute.cardinality = row.cardinality;
            attribute.unique = row.unique;
            attribute.indexed = row.indexed || (attribute_refs && id == system::TX_INSTANT);
            attribute.no_history = row.no_history;
            attribute.doc = (!row.doc.is_empty()).then(|| row.doc.into());
            if attribute_refs {
                attribute.entity = Some(row.entity);
                schema.by_entity.insert(row.entity, id);
                schema.idents.insert(ident.clone(), row.entity);
                schema.system_names.insert(row.entity, ident);
            }
        }
        if attribute_refs {
            for (entity, name) in system::NAMES {
                let ident = Keyword::parse(name);
                schema.idents.insert(ident.clone(), *entity);
                schema.system_names.insert(*entity, ident);
            }
        }
        schema.seal();
        schema
    }

    /// Whether attributes are shown as entity ids.
    pub fn attribute_refs(&self) -> bool {
        self.attribute_refs
    }

    /// Whether both give the same attributes the same numbers, so that datoms can be compared.
    pub(crate) fn same_numbers(&self, other: &Self) -> bool {
        self.attributes.len() == other.attributes.len()
            && self.attributes.iter().zip(&other.attributes).all(|(a, b)| a.ident == b.ident)
    }

    /// How many attributes have a number.
    pub fn len(&self) -> usize {
        self.attributes.len()
    }

    /// Never true: the system attributes are always there.
    pub fn is_empty(&self) -> bool {
        self.attributes.is_empty()
    }

    /// All attributes, system attributes first, by number.
    pub fn attributes(&self) -> &[Attribute] {
        &self.attributes
    }

    /// The attributes in the order in which users see them: by ident, or by entity in
    /// attribute-refs mode.
    pub fn in_order(&self) -> &[AttrId] {
        &self.order
    }

    /// The place of an attribute in [`Self::in_order`].
    pub fn rank(&self, a: AttrId) -> u32 {
        self.rank.get(a.0 as usize).copied().unwrap_or(u32::MAX)
    }

    /// The attribute of this name.
    pub fn attr_id(&self, ident: &Keyword) -> Option<AttrId> {
        self.by_ident.get(ident).copied()
    }

    /// The attribute that this entity declares.
    pub fn attr_of_entity(&self, entity: EntityId) -> Option<AttrId> {
        self.by_entity.get(&entity).copied()
    }

    /// The attribute with this number.
    ///
    /// # Panics
    /// If the number is not of this database.
    pub fn attribute(&self, a: AttrId) -> &Attribute {
        &self.attributes[a.0 as usize]
    }

    /// The attribute with this number, if there is one.
    pub fn get(&self, a: AttrId) -> Option<&Attribute> {
        self.attributes.get(a.0 as usize)
    }

    /// The name of an attribute.
    ///
    /// # Panics
    /// If the number is not of this database.
    pub fn ident(&self, a: AttrId) -> &Keyword {
        &self.attribute(a).ident
    }

    /// The entity with this ident, attribute or not.
    pub fn entity_of_ident(&self, ident: &Keyword) -> Option<EntityId> {
        self.idents.get(ident).copied()
    }

    /// The ident of an entity.
    pub fn ident_of_entity(&self, entity: EntityId) -> Option<&Keyword> {
        match self.definitions.get(&entity) {
            Some(definition) => definition.ident.as_ref(),
            None => self.system_names.get(&entity),
        }
    }

    /// The composite tuples that a part belongs to.
    pub fn composites_of(&self, a: AttrId) -> &[AttrId] {
        if self.composites.is_empty() {
            return &[];
        }
        self.composites.get(self.ident(a)).map_or(&[], Vec::as_slice)
    }

    /// Whether any composite tuple has this entity's attributes as parts.
    pub(crate) fn has_composites(&self) -> bool {
        !self.composites.is_empty()
    }

    /// All ref attributes, in the order users see.
    pub fn ref_attributes(&self) -> impl Iterator<Item = AttrId> + '_ {
        self.order.iter().copied().filter(|a| self.attribute(*a).is_ref())
    }

    /// Whether an attribute is built in.
    pub fn is_system(a: AttrId) -> bool {
        (a.0 as usize) < system::ATTRIBUTES.len()
    }

    /// Whether the datoms of an attribute define schema.
    pub fn defines_schema(a: AttrId) -> bool {
        definition::is_schema_attribute(a)
    }

    /// Whether the entity is one of those that attribute-refs mode starts with.
    pub fn is_system_entity(&self, entity: EntityId) -> bool {
        self.system_names.contains_key(&entity)
    }

    /// The number of an attribute, given one if it has none yet.
    pub(crate) fn intern(&mut self, ident: &Keyword) -> AttrId {
        if let Some(id) = self.by_ident.get(ident) {
            return *id;
        }
        let id = AttrId(u32::try_from(self.attributes.len()).unwrap_or(u32::MAX));
        self.attributes.push(Attribute::undeclared(id, ident.clone()));
        self.by_ident.insert(ident.clone(), id);
        id
    }

    /// Takes in one datom of a schema attribute; others change nothing. The attribute it may give
    /// rise to gets the next number, if it has none. Call [`Self::seal`] after the last.
    pub(crate) fn absorb(&mut self, datom: &Datom) {
        if !definition::is_schema_attribute(datom.a) || datom.tx == TX0 {
            return;
        }
        let names = |value: &Value| match value {
            Value::Keyword(ident) => Some(ident.clone()),
            Value::Long(id) => {
                u64::try_from(*id).ok().and_then(|id| self.ident_of_entity(id).cloned())
            }
            _ => None,
        };
        let before = self.definitions.get(&datom.e).cloned();
        let mut definition = before.as_deref().cloned().unwrap_or_default();
        definition.absorb(datom, &names);
        if before.as_deref() == Some(&definition) {
            return;
        }
        let ident_before = before.as_ref().and_then(|before| before.ident.clone());
        if ident_before != definition.ident {
            if let Some(old) = ident_before
                && self.idents.get(&old) == Some(&datom.e)
            {
                self.idents.remove(&old);
            }
            if let Some(new) = &definition.ident {
                self.idents.insert(new.clone(), datom.e);
            }
        }
        if definition == Definition::default() {
            self.definitions.remove(&datom.e);
        } else {
            self.definitions.insert(datom.e, Arc::new(definition.clone()));
        }
        self.place(datom.e, &definition);
    }

    /// Makes the attribute table say what the entity's definition says.
    fn place(&mut self, entity: EntityId, definition: &Definition) {
        let old = self.by_entity.get(&entity).copied();
        let Some(ident) = definition.ident.as_ref().filter(|_| definition.is_attribute()) else {
            if let Some(id) = old {
                // The number stays with the name: history may still hold datoms under it.
                let bare = Attribute::undeclared(id, self.ident(id).clone());
                self.attributes[id.0 as usize] = bare;
                self.by_entity.remove(&entity);
            }
            return;
        };
        let id = match old {
            Some(id) if self.ident(id) != ident && !self.by_ident.contains_key(ident) => {
                // A renamed attribute keeps its number, and with it its datoms.
                let name = self.ident(id).clone();
                self.by_ident.remove(&name);
                self.by_ident.insert(ident.clone(), id);
                id
            }
            _ => self.intern(ident),
        };
        self.by_entity.insert(entity, id);
        self.attributes[id.0 as usize] = definition.attribute(id, ident.clone(), entity);
    }

    /// Rebuilds what is derived from the whole table.
    pub(crate) fn seal(&mut self) {
        let mut order: Vec<AttrId> = self.attributes.iter().map(|a| a.id).collect();
        if self.attribute_refs {
            order.sort_by_key(|a| (self.attribute(*a).entity.unwrap_or(u64::MAX), *a));
        } else {
            order.sort_by(|a, b| self.ident(*a).cmp(self.ident(*b)));
        }
        let mut rank = vec![0u32; order.len()];
        for (place, a) in (0..).zip(&order) {
            rank[a.0 as usize] = place;
        }
        self.order = order.into();
        self.rank = rank.into();
        self.index_composites();
    }

    /// Rebuilds the table from parts to composites.
    pub(crate) fn index_composites(&mut self) {
        self.composites.clear();
        for attribute in &self.attributes {
            for part in attribute.composite().unwrap_or_default() {
                let of = self.composites.entry(part.clone()).or_default();
                if !of.contains(&attribute.id) {
                    of.push(attribute.id);
                }
            }
        }
    }

    /// What an entity says about schema.
    pub(crate) fn definition(&self, entity: EntityId) -> Option<&Definition> {
        self.definitions.get(&entity).map(|definition| &**definition)
    }
}

impl crate::index::AttrTraits for Schema {
    fn avet(&self, a: AttrId) -> bool {
        self.get(a).is_some_and(Attribute::in_avet)
    }

    fn history(&self, a: AttrId) -> bool {
        self.get(a).is_none_or(|attribute| !attribute.no_history)
    }
}
