use datahike_value::{Keyword, Uuid, Value};

use super::Operation;
use crate::error::Error;
use crate::versioning::Revision;

/// The arguments of one call, checked against what the operation takes.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a> {
    operation: &'static str,
    given: &'a Value,
}

impl<'a> Arguments<'a> {
    pub(super) fn check(operation: &Operation, given: &'a Value) -> Result<Self, Error> {
        let checked = Self { operation: operation.name, given };
        let entries = match given {
            Value::Map(entries) => entries,
            Value::Nil => return checked.check_required(operation),
            _ => return Err(checked.wrong("its arguments are no map")),
        };
        for key in entries.keys() {
            let known = |name: &Keyword| {
                name.namespace().is_none()
                    && operation.arguments.iter().any(|argument| argument.name == name.name())
            };
            if !key.as_keyword().is_some_and(known) {
                let all: Vec<String> =
                    operation.arguments.iter().map(|a| format!(":{}", a.name)).collect();
                return Err(checked.wrong(&format!("it takes no {key}, only {}", all.join(" "))));
            }
        }
        checked.check_required(operation)
    }

    fn check_required(self, operation: &Operation) -> Result<Self, Error> {
        // A connection that is there already needs no name.
        let lacking = operation
            .arguments
            .iter()
            .find(|a| a.required && a.name != "db" && self.get(a.name).is_none());
        match lacking {
            Some(argument) => {
                Err(self.wrong(&format!(":{} is missing: {}", argument.name, argument.doc)))
            }
            None => Ok(self),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.given.get(&Keyword::parse(name)).filter(|value| !value.is_nil())
    }

    pub(super) fn value(&self, name: &str) -> Result<&'a Value, Error> {
        self.get(name).ok_or_else(|| self.wrong(&format!(":{name} is missing")))
    }

    pub(super) fn text(&self, name: &str) -> Result<&'a str, Error> {
        let value = self.value(name)?;
        value.as_str().ok_or_else(|| self.wrong(&format!(":{name} is no string: {value}")))
    }

    pub(super) fn natural(&self, name: &str) -> Result<Option<u64>, Error> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_long().and_then(|number| u64::try_from(number).ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(&format!(":{name} is no natural number: {value}"))),
        }
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Error> {
        match self.get(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Err(self.wrong(&format!(":{name} is neither true nor false: {value}"))),
        }
    }

    pub(super) fn uuid(&self, name: &str) -> Result<Option<Uuid>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Uuid(id)) => Ok(Some(*id)),
            Some(value) => Err(self.wrong(&format!(":{name} is no uuid: {value}"))),
        }
    }

    pub(super) fn items(&self, name: &str) -> Result<&'a [Value], Error> {
        let Some(value) = self.get(name) else { return Ok(&[]) };
        value.as_slice().ok_or_else(|| self.wrong(&format!(":{name} is no vector: {value}")))
    }

    pub(super) fn revision(&self, name: &str) -> Result<Option<Revision>, Error> {
        let Some(value) = self.get(name) else { return Ok(None) };
        let revision = Revision::from_value(value);
        let wrong = || self.wrong(&format!(":{name} names neither a branch nor a commit: {value}"));
        revision.map(Some).ok_or_else(wrong)
    }

    /// A branch by its name, a keyword or string.
    pub(super) fn branch(&self, name: &str) -> Result<&'a str, Error> {
        match self.value(name)? {
            Value::Keyword(branch) => Ok(branch.text()),
            Value::Str(branch) => Ok(branch),
            other => Err(self.wrong(&format!(":{name} is no keyword: {other}"))),
        }
    }

    pub(super) fn wrong(&self, reason: &str) -> Error {
        Error::Arguments { operation: self.operation, reason: reason.to_owned() }
    }
}
