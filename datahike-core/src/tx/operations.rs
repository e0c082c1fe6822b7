//! The operations in vector form, and the two things that any operation comes down to: adding a fact
//! and retracting one.

use std::sync::Arc;

use datahike_value::Value;
use hashbrown::HashSet;
use smallvec::SmallVec;

use super::TxError;
use super::names::{Name, Subject, is_current_tx, is_tempid};
use super::transactor::Transactor;
use crate::datom::{AttrId, EntityId};
use crate::db::entity_value;
use crate::schema::{ValueType, system};

impl Transactor<'_> {
    pub(crate) fn operation(&mut self, items: &[Value], form: &Value) -> Result<(), TxError> {
        let wrong =
            |reason: &str| Err(TxError::Syntax { reason: reason.to_owned(), form: form.clone() });
        let Some(Value::Keyword(op)) = items.first() else {
            return wrong("an operation must start with a keyword such as :db/add");
        };
        match (op.text(), &items[1..]) {
            ("db/add", [e, a, v]) => {
                let a = self.attr(a, form)?;
                self.add_to(e, a, v, form)
            }
            ("db/add", _) => wrong(":db/add takes an entity, an attribute and a value"),
            ("db/retract", [e, a]) => self.retract_attribute(e, a, form, false),
            ("db/retract", [e, a, v]) if v.is_nil() => self.retract_attribute(e, a, form, false),
            ("db/retract", [e, a, v]) => self.retract_value(e, a, v, form),
            ("db/retract", _) => wrong(":db/retract takes an entity, an attribute and a value"),
            ("db.fn/retractAttribute" | "db/retractAttribute", [e, a]) => {
                self.retract_attribute(e, a, form, true)
            }
            ("db.fn/retractAttribute" | "db/retractAttribute", _) => {
                wrong("retractAttribute takes an entity and an attribute")
            }
            ("db.fn/retractEntity" | "db/retractEntity", [e]) => match self.existing(e, form)? {
                Some(e) => self.retract_entities(vec![e]),
                None => Ok(()),
            },
            ("db.fn/retractEntity" | "db/retractEntity", _) => {
                wrong("retractEntity takes an entity")
            }
            ("db/cas" | "db.fn/cas", [e, a, old, new]) => self.cas(e, a, old, new, form),
            ("db/cas" | "db.fn/cas", _) => {
                wrong("compare-and-set takes an entity, an attribute, the old and the new value")
            }
            ("db.fn/call", arguments) => self.call(arguments, form),
            (
                "db/purge" | "db.purge/attribute" | "db.purge/entity" | "db.history.purge/before",
                arguments,
            ) => self.purge(op.text(), arguments, form),
            (_, arguments) => match self.call_installed(op, arguments, form) {
                Some(called) => called,
                None => wrong(&format!(
                    "unknown operation {op}: neither one of :db/add, :db/retract, :db/cas … \
                     nor a transaction function"
                )),
            },
        }
    }

    /// `:db/add`: gives ids to tempids, or finds the entity that a unique value means.
    pub(crate) fn add_to(
        &mut self,
        e: &Value,
        a: AttrId,
        v: &Value,
        form: &Value,
    ) -> Result<(), TxError> {
        let e = match self.subject(e, form)? {
            None => return Err(Self::missing_entity(e, form)),
            Some(Subject::Known(e)) => e,
            Some(Subject::Tempid(tempid)) => {
                self.names.as_entity.insert(tempid.clone());
                let name = Name::Tempid(tempid);
                match self.meant_by_value(a, v, form)? {
                    Some(means) => self.upsert(&name, means, form)?,
                    None => self.id_of(&name, form)?,
                }
            }
        };
        self.add(e, a, v, form)
    }

    fn meant_by_value(
        &mut self,
        a: AttrId,
        v: &Value,
        form: &Value,
    ) -> Result<Option<EntityId>, TxError> {
        if !self.schema.attribute(a).is_identity() || v.is_nil() {
            return Ok(None);
        }
        match self.known_value(a, v, form)? {
            Some(v) => self.owner(a, &v),
            None => Ok(None),
        }
    }

    /// Adds a fact, in place of the old value where the attribute holds one. Nothing happens if it
    /// holds already.
    pub(crate) fn add(
        &mut self,
        e: EntityId,
        a: AttrId,
        v: impl std::borrow::Borrow<Value>,
        form: &Value,
    ) -> Result<(), TxError> {
        if self.schema.attribute(a).composite().is_some() {
            return Err(TxError::Syntax {
                reason: format!("{} is kept by the database", self.schema.ident(a)),
                form: form.clone(),
            });
        }
        let v = self.value_to_add(a, v.borrow(), form)?;
        if e == self.tx && a == system::TX_INSTANT {
            return self.supply_instant(&v);
        }
        self.add_resolved(e, a, v)
    }

    pub(crate) fn add_resolved(&mut self, e: EntityId, a: AttrId, v: Value) -> Result<(), TxError> {
        self.leave(e)?;
        let attribute = self.schema.attribute(a);
        let unique = attribute.unique.is_some();
        let old = if attribute.is_many() {
            if self.overlay.holds(e, a, &v)? {
                return Ok(());
            }
            None
        } else {
            let old = self.overlay.value(e, a)?;
            if old.as_ref() == Some(&v) {
                return Ok(());
            }
            old
        };
        if unique
            && let Some(owner) = self.overlay.owner(a, &v)?
            && owner != e
        {
            return Err(TxError::Unique {
                attribute: self.schema.ident(a).clone(),
                value: v,
                e,
                owner,
            });
        }
        if let Some(old) = old {
            self.push(e, a, old, false);
        }
        self.push(e, a, v, true);
        Ok(())
    }

    fn supply_instant(&mut self, v: &Value) -> Result<(), TxError> {
        let Value::Inst(instant) = v else { return Ok(()) };
        let limit = self.options.max_ahead;
        if *instant > self.options.now.saturating_add(limit) {
            return Err(TxError::InstantAhead { instant: *instant, limit });
        }
        self.instant = Some(*instant);
        Ok(())
    }

    /// A value as it is stored, ids given to tempids. An error if it does not belong there.
    fn value_to_add(&mut self, a: AttrId, v: &Value, form: &Value) -> Result<Value, TxError> {
        if v.is_nil() {
            return Err(TxError::Syntax {
                reason: format!("{}: nil is no value", self.schema.ident(a)),
                form: form.clone(),
            });
        }
        if !self.schema.attribute(a).is_ref() {
            self.check_value(a, v, form)?;
            return Ok(self.stored(a, v));
        }
        if is_current_tx(v) {
            self.report_tempid(v.clone(), self.tx);
            return Ok(entity_value(self.tx));
        }
        if is_tempid(v) {
            let e = self.id_of(&Name::Tempid(v.clone()), form)?;
            self.names.as_value.insert(v.clone());
            return Ok(entity_value(e));
        }
        if self.strict
            && !matches!(v, Value::Long(_) | Value::Keyword(_) | Value::Vector(_) | Value::List(_))
        {
            let ident = self.schema.ident(a);
            return Err(TxError::wrong_type(ident, v, ValueType::Ref, form));
        }
        match self.entid(v, form)? {
            Some(e) => Ok(entity_value(e)),
            None => Err(Self::missing_entity(v, form)),
        }
    }

    fn retract_value(
        &mut self,
        e: &Value,
        a: &Value,
        v: &Value,
        form: &Value,
    ) -> Result<(), TxError> {
        let a = self.attr(a, form)?;
        let Some(e) = self.existing(e, form)? else { return Ok(()) };
        let Some(v) = self.known_value(a, v, form)? else { return Ok(()) };
        if self.schema.attribute(a).composite().is_some() {
            return Err(TxError::Syntax {
                reason: format!("{} is kept by the database", self.schema.ident(a)),
                form: form.clone(),
            });
        }
        self.leave(e)?;
        if self.overlay.holds(e, a, &v)? {
            self.push(e, a, v, false);
        }
        Ok(())
    }

    fn retract_attribute(
        &mut self,
        e: &Value,
        a: &Value,
        form: &Value,
        cascade: bool,
    ) -> Result<(), TxError> {
        let a = self.attr(a, form)?;
        let Some(e) = self.existing(e, form)? else { return Ok(()) };
        self.leave(e)?;
        let values = self.overlay.values(e, a)?;
        let mut parts = Vec::new();
        for v in values {
            if cascade && self.schema.attribute(a).is_component {
                parts.extend(v.as_long().and_then(|part| u64::try_from(part).ok()));
            }
            self.push(e, a, v, false);
        }
        self.retract_entities(parts)
    }

    /// Retracts entities, what refers to them, and their components in turn.
    fn retract_entities(&mut self, entities: Vec<EntityId>) -> Result<(), TxError> {
        let mut seen: HashSet<EntityId> = HashSet::new();
        let mut waiting = entities;
        waiting.reverse();
        while let Some(e) = waiting.pop() {
            if !seen.insert(e) {
                continue;
            }
            self.leave(e)?;
            let schema = Arc::clone(&self.schema);
            let mut parts = Vec::new();
            for (a, v) in self.overlay.entity(e, &schema)? {
                if schema.attribute(a).is_component {
                    parts.extend(v.as_long().and_then(|part| u64::try_from(part).ok()));
                }
                if schema.attribute(a).composite().is_none() {
                    self.push(e, a, v, false);
                }
            }
            for (owner, a) in self.overlay.references(e, &schema)? {
                self.leave(owner)?;
                if self.overlay.holds(owner, a, &entity_value(e))? {
                    self.push(owner, a, entity_value(e), false);
                }
            }
            waiting.extend(parts.into_iter().rev());
        }
        Ok(())
    }

    fn cas(
        &mut self,
        e: &Value,
        a: &Value,
        old: &Value,
        new: &Value,
        form: &Value,
    ) -> Result<(), TxError> {
        let Some(entity) = self.existing(e, form)? else {
            return Err(Self::missing_entity(e, form));
        };
        let a = self.attr(a, form)?;
        let is_ref = self.schema.attribute(a).is_ref();
        if is_ref && (is_tempid(old) || is_tempid(new)) {
            return Err(TxError::Syntax {
                reason: "a tempid cannot stand in compare-and-set".to_owned(),
                form: form.clone(),
            });
        }
        let expected = if old.is_nil() {
            None
        } else {
            match self.known_value(a, old, form)? {
                Some(old) => Some(old),
                None => return Err(Self::missing_entity(old, form)),
            }
        };
        self.leave(entity)?;
        let found: SmallVec<[Value; 2]> = self.overlay.values(entity, a)?;
        let as_expected = match &expected {
            None => found.is_empty(),
            Some(expected) => found.contains(expected),
        };
        if !as_expected {
            let found = match (self.schema.attribute(a).is_many(), found.first()) {
                (_, None) => Value::Nil,
                (true, Some(_)) => Value::set(found),
                (false, Some(v)) => v.clone(),
            };
            return Err(TxError::Cas {
                e: entity,
                attribute: self.schema.ident(a).clone(),
                expected: expected.unwrap_or_default(),
                found,
            });
        }
        self.add(entity, a, new, form)
    }
}
