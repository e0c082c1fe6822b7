//! Rules, read once and used by many queries.

use std::sync::Arc;

use datahike_value::{Symbol, Value, edn};
use hashbrown::HashMap;

use super::ast::RuleDef;
use super::error::QueryError;
use super::parse::parse_rules;

/// A set of rules for the input `%`: `[[(ancestor ?a ?b) [?a :parent ?b]] …]`. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub(crate) defs: Arc<HashMap<Symbol, RuleDef>>,
}

impl Rules {
    /// From text.
    ///
    /// # Errors
    /// If it is not EDN, not a set of rules, or calls rules that it does not define.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let value = edn::read(text).map_err(|error| super::unreadable("parser/rule", &error))?;
        Self::from_value(&value).map_err(|error| error.within(text))
    }

    /// From EDN: a vector of rules, or a string that holds one.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn from_value(value: &Value) -> Result<Self, QueryError> {
        match value {
            Value::Str(text) => Self::parse(text),
            value => Ok(Self { defs: Arc::new(parse_rules(value)?) }),
        }
    }

    /// The names of the rules, in no order.
    pub fn names(&self) -> impl Iterator<Item = &Symbol> {
        self.defs.keys()
    }
}
