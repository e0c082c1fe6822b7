//! Who is meant: ids, idents and lookup refs.

use datahike_value::{Keyword, Value};

use super::{Db, DbError};
use crate::datom::{AttrId, EntityId};
use crate::index::Range;
use crate::schema::{Schema, ValueType, system};

impl Db {
    /// The entity that a value names: an id (whether or not anything is known of it), an ident, or a
    /// lookup ref `[attribute value]`. `None` if the name leads nowhere.
    ///
    /// # Errors
    /// If the value cannot name an entity, or blocks are missing.
    pub fn entid(&self, value: &Value) -> Result<Option<EntityId>, DbError> {
        match value {
            Value::Long(e) => Ok(u64::try_from(*e).ok()),
            Value::Keyword(ident) => self.ident_entity(ident),
            Value::Vector(items) | Value::List(items) => {
                let [attribute, v] = &**items else {
                    return Err(DbError::LookupSyntax { lookup: value.clone() });
                };
                self.lookup(value, attribute, v)
            }
            _ => Err(DbError::EntitySyntax { value: value.clone() }),
        }
    }

    /// The same where the entity must be there: an id is taken as it is.
    ///
    /// # Errors
    /// As [`Self::entid`], and if the name leads nowhere.
    pub fn entid_strict(&self, value: &Value) -> Result<EntityId, DbError> {
        self.entid(value)?.ok_or_else(|| DbError::EntityMissing { entity: value.clone() })
    }

    fn ident_entity(&self, ident: &Keyword) -> Result<Option<EntityId>, DbError> {
        if let Some(e) = self.schema().entity_of_ident(ident) {
            return Ok(Some(e));
        }
        // A view of the past may know names that are gone.
        if self.is_current() {
            return Ok(None);
        }
        self.entity_with(system::IDENT, &Value::Keyword(ident.clone()))
    }

    fn lookup(
        &self,
        whole: &Value,
        attribute: &Value,
        v: &Value,
    ) -> Result<Option<EntityId>, DbError> {
        let not_unique =
            || DbError::LookupNotUnique { lookup: whole.clone(), attribute: attribute.clone() };
        if !matches!(attribute, Value::Keyword(_) | Value::Long(_)) {
            return Err(DbError::LookupSyntax { lookup: whole.clone() });
        }
        let a = self.attr_of(attribute).ok_or_else(not_unique)?;
        let known = self.schema().attribute(a);
        if known.unique.is_none() {
            return Err(not_unique());
        }
        if v.is_nil() {
            return Ok(None);
        }
        if known.is_ref() {
            return match self.entid(v)? {
                Some(e) => self.entity_with(a, &super::entity_value(e)),
                None => Ok(None),
            };
        }
        self.entity_with(a, &self.schema().canonical(a, v))
    }

    /// The first entity that holds this value under an attribute of AVET.
    ///
    /// # Errors
    /// If blocks are missing.
    pub fn entity_with(&self, a: AttrId, v: &Value) -> Result<Option<EntityId>, DbError> {
        let range = Range::avet(a, v.clone());
        // In a history view a lookup ref may name what is retracted by now.
        let found = self.scan(&range).next().transpose()?;
        Ok(found.map(|datom| datom.e))
    }
}

impl Schema {
    /// A value in the form in which it is stored under an attribute: tuples are vectors, all else is
    /// kept as it was given.
    pub fn canonical(&self, a: AttrId, v: &Value) -> Value {
        match (self.get(a).and_then(|a| a.value_type), v) {
            (Some(ValueType::Tuple), Value::List(items)) => Value::Vector(items.clone()),
            _ => v.clone(),
        }
    }

    /// The known attribute with the name nearest to `ident`, if one is near enough to be meant.
    pub fn nearest(&self, ident: &Keyword) -> Option<Keyword> {
        let limit = 1 + ident.text().chars().count() / 5;
        let user = &self.attributes()[system::ATTRIBUTES.len()..];
        user.iter()
            .take(1000)
            .filter(|attribute| attribute.ident != *ident)
            .map(|attribute| (distance(ident.text(), attribute.ident.text()), &attribute.ident))
            .filter(|(distance, _)| *distance <= limit)
            .min()
            .map(|(_, nearest)| nearest.clone())
    }
}

/// How many characters must be inserted, removed or replaced to turn one text into the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(100).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().take(100).enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
