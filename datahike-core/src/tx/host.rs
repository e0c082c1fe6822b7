//! What the host adds to transactions: functions that make transaction data, and predicates that
//! values and entities must pass. All have a name, by which transactions and schemas mean them.

use std::fmt;
use std::sync::Arc;

use datahike_value::{Symbol, Value};
use hashbrown::HashMap;

use crate::block::Missing;
use crate::datom::EntityId;
use crate::db::{Db, DbError};

/// Why a function or a predicate of the host gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// Blocks are not in memory: it is called again once they are.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// It refuses the transaction, in one sentence.
    #[error("{0}")]
    Refused(String),
}

impl From<DbError> for CallError {
    fn from(error: DbError) -> Self {
        match error {
            DbError::Missing(missing) => Self::Missing(missing),
            error => Self::Refused(error.to_string()),
        }
    }
}

impl From<String> for CallError {
    fn from(reason: String) -> Self {
        Self::Refused(reason)
    }
}

impl From<&str> for CallError {
    fn from(reason: &str) -> Self {
        Self::Refused(reason.to_owned())
    }
}

type Function = dyn Fn(&Db, &[Value]) -> Result<Value, CallError> + Send + Sync;
type ValuePredicate = dyn Fn(&Value) -> bool + Send + Sync;
type EntityPredicate = dyn Fn(&Db, EntityId) -> Result<bool, CallError> + Send + Sync;

/// Functions and predicates by name. All must be pure: a transaction that lacks blocks, or in which
/// a tempid turns out to mean another entity, is run again and calls them again.
///
/// ```
/// use datahike_core::db::{Db, DbConfig, SchemaFlexibility};
/// use datahike_core::tx::{TxFunctions, TxOptions};
/// use datahike_value::{Value, edn};
///
/// let functions = TxFunctions::new().function("shop/restock", |_db, arguments| match arguments {
///     [item, count] => Ok(Value::vector([Value::vector([
///         Value::keyword("db/add"), item.clone(), Value::keyword("stock"), count.clone(),
///     ])])),
///     _ => Err("it takes an item and a count".into()),
/// });
/// let db = Db::empty(DbConfig::new(SchemaFlexibility::Read));
/// let options = TxOptions::at(0).with_functions(functions);
/// let report = db.with(&edn::read("[[:db.fn/call shop/restock 7 40]]")?, &options)?;
/// assert_eq!(report.tx_data[1].v, Value::from(40));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct TxFunctions(Arc<Named>);

#[derive(Clone, Default)]
struct Named {
    functions: HashMap<Symbol, Arc<Function>>,
    values: HashMap<Symbol, Arc<ValuePredicate>>,
    entities: HashMap<Symbol, Arc<EntityPredicate>>,
}

impl TxFunctions {
    /// None.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a transaction function: `[:db.fn/call name argument …]` stands for the transaction data
    /// that it makes of the database, as it is in the middle of the transaction, and the arguments.
    #[must_use]
    pub fn function(
        mut self,
        name: &str,
        function: impl Fn(&Db, &[Value]) -> Result<Value, CallError> + Send + Sync + 'static,
    ) -> Self {
        Arc::make_mut(&mut self.0).functions.insert(Symbol::parse(name), Arc::new(function));
        self
    }

    /// Adds a predicate that `:db.attr/preds` may name: every value of the attribute must pass it.
    #[must_use]
    pub fn value_predicate(
        mut self,
        name: &str,
        holds: impl Fn(&Value) -> bool + Send + Sync + 'static,
    ) -> Self {
        Arc::make_mut(&mut self.0).values.insert(Symbol::parse(name), Arc::new(holds));
        self
    }

    /// Adds a predicate that `:db.entity/preds` may name. It is handed the database at the end of
    /// the transaction and the entity that asked for it with `:db/ensure`.
    #[must_use]
    pub fn entity_predicate(
        mut self,
        name: &str,
        holds: impl Fn(&Db, EntityId) -> Result<bool, CallError> + Send + Sync + 'static,
    ) -> Self {
        Arc::make_mut(&mut self.0).entities.insert(Symbol::parse(name), Arc::new(holds));
        self
    }

    pub(crate) fn function_named(&self, name: &Symbol) -> Option<&Arc<Function>> {
        self.0.functions.get(name)
    }

    pub(crate) fn value_predicate_named(&self, name: &Symbol) -> Option<&Arc<ValuePredicate>> {
        self.0.values.get(name)
    }

    pub(crate) fn entity_predicate_named(&self, name: &Symbol) -> Option<&Arc<EntityPredicate>> {
        self.0.entities.get(name)
    }
}

impl PartialEq for TxFunctions {
    /// Whether both are the same collection; functions themselves cannot be compared.
    fn eq(&self, other: &Self) -> bool {
        let none = |named: &Named| {
            named.functions.is_empty() && named.values.is_empty() && named.entities.is_empty()
        };
        Arc::ptr_eq(&self.0, &other.0) || none(&self.0) && none(&other.0)
    }
}

impl fmt::Debug for TxFunctions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = &*self.0;
        let names = named.functions.keys().chain(named.values.keys()).chain(named.entities.keys());
        f.debug_set().entries(names.map(Symbol::text)).finish()
    }
}
