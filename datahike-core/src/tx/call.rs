//! Calls of the host's functions in a transaction.

use datahike_value::{Keyword, Symbol, Value};

use super::transactor::Transactor;
use super::{CallError, ResolvedTx, TxError};
use crate::datom::Datom;
use crate::db::Db;
use crate::schema::system;

/// How deep calls may be nested: functions may return calls.
const MAX_CALLS: usize = 64;

/// The database in the middle of a transaction, and up to where it has been made.
#[derive(Debug)]
pub(crate) struct Midway {
    db: Db,
    datoms: usize,
    purged: usize,
    attributes: usize,
}

impl Transactor<'_> {
    /// `[:db.fn/call name argument …]`
    pub(crate) fn call(&mut self, arguments: &[Value], form: &Value) -> Result<(), TxError> {
        let name = arguments.first().and_then(name_of).ok_or_else(|| TxError::Syntax {
            reason: ":db.fn/call takes the name of a function, a symbol, and its arguments"
                .to_owned(),
            form: form.clone(),
        })?;
        self.call_named(&name, &arguments[1..], form)
    }

    /// `[:name argument …]`, where an entity with this ident says in `:db/fn` which function it is, or
    /// the host has a function of this name. `None` if neither is so.
    pub(crate) fn call_installed(
        &mut self,
        op: &Keyword,
        arguments: &[Value],
        form: &Value,
    ) -> Option<Result<(), TxError>> {
        let fact = self.schema.entity_of_ident(op).zip(self.schema.attr_id(&system::function()));
        let installed = match fact.map(|(e, a)| self.overlay.value(e, a)).transpose() {
            Ok(installed) => installed.flatten().as_ref().and_then(name_of),
            Err(missing) => return Some(Err(missing.into())),
        };
        let name = match installed {
            Some(name) => name,
            None => {
                let name = Symbol::parse(op.text());
                self.options.functions.function_named(&name)?;
                name
            }
        };
        Some(self.call_named(&name, arguments, form))
    }

    fn call_named(
        &mut self,
        name: &Symbol,
        arguments: &[Value],
        form: &Value,
    ) -> Result<(), TxError> {
        let failed =
            |reason: String| TxError::Function { name: name.clone(), reason, form: form.clone() };
        let Some(function) = self.options.functions.function_named(name).cloned() else {
            return Err(failed("the host has no function of this name".to_owned()));
        };
        if self.calls >= MAX_CALLS {
            return Err(failed(format!("calls are nested more than {MAX_CALLS} deep")));
        }
        self.keep_composites()?;
        let db = self.midway();
        let made = match function(&db, arguments) {
            Ok(made) => made,
            Err(CallError::Missing(missing)) => return Err(missing.into()),
            Err(CallError::Refused(reason)) => return Err(failed(reason)),
        };
        drop(db);
        self.calls += 1;
        for form in super::transactor::forms(&made)? {
            self.form(form)?;
        }
        self.calls -= 1;
        Ok(())
    }

    /// The database with what this transaction has said so far.
    pub(crate) fn midway(&mut self) -> Db {
        let (datoms, purged) = (self.overlay.datoms(), &self.purged);
        let is_new = datoms.is_empty() && purged.is_empty() && self.new_attributes.is_empty();
        if is_new {
            return self.db.unviewed();
        }
        let before = self.midway.take();
        // A fact that changed more than once must be told at once.
        let before = before.filter(|before| {
            before.purged == purged.len() && !self.overlay.is_told_again() && purged.is_empty()
        });
        let (from, named, base) = match &before {
            Some(before) => (before.datoms, before.attributes, before.db.clone()),
            None => (0, 0, self.db.unviewed()),
        };
        let mut said: Vec<Datom> = Vec::new();
        if before.is_none() {
            said.push(self.instant_datom());
            said.extend(self.overlay.told());
        } else {
            said.extend_from_slice(datoms.get(from..).unwrap_or_default());
        }
        let tx = ResolvedTx {
            new_attributes: self.new_attributes.get(named..).unwrap_or_default().into(),
            purged: if before.is_none() { purged.clone().into() } else { [].into() },
            ..ResolvedTx::new(self.tx, said)
        };
        let db = base.apply(&tx);
        self.midway = Some(Midway {
            db: db.clone(),
            datoms: datoms.len(),
            purged: purged.len(),
            attributes: self.new_attributes.len(),
        });
        db
    }
}

fn name_of(value: &Value) -> Option<Symbol> {
    match value {
        Value::Symbol(name) => Some(name.clone()),
        Value::Keyword(name) => Some(Symbol::parse(name.text())),
        Value::Str(name) => Some(Symbol::parse(name)),
        _ => None,
    }
}
