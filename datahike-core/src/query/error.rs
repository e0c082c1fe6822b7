//! What can be wrong with a query, its inputs, or its evaluation.

use std::fmt;

use datahike_value::Value;

use crate::block::Missing;
use crate::budget::Exceeded;

/// A query that could not be read, or could not be answered. Every variant has a stable
/// [`QueryError::code`], the same keyword that Datahike puts under `:error` where it has one.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// The query, a rule or a pull pattern is not well formed, or not for this database.
    #[error("{0}")]
    Invalid(Box<Invalid>),
    /// The evaluation passed a bound of its budget.
    #[error(transparent)]
    Exceeded(#[from] Exceeded),
    /// Blocks have to be fetched first; then the query can be run again.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// The database refused an access, for instance to a history that it does not keep.
    #[error(transparent)]
    Db(Box<crate::db::DbError>),
}

impl From<crate::db::DbError> for QueryError {
    fn from(error: crate::db::DbError) -> Self {
        match error {
            crate::db::DbError::Missing(missing) => Self::Missing(missing),
            error => Self::Db(Box::new(error)),
        }
    }
}

/// What is wrong, where, and what to do about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Invalid {
    /// Stable code such as `parser/where`.
    pub code: &'static str,
    /// One sentence, lower case, no full stop.
    pub message: String,
    /// The part of the query that is meant.
    pub form: Option<Value>,
    /// Line and column (from 1) in the query's text: where it cannot be read, or where the form
    /// stands first. `None` if the query did not come as text.
    pub position: Option<(u32, u32)>,
    /// What may have been meant.
    pub hint: Option<String>,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some((line, column)) = self.position {
            write!(f, " at line {line}, column {column}")?;
        }
        if let Some(form) = &self.form {
            write!(f, ", in {form}")?;
        }
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

impl QueryError {
    /// The stable code, without a colon: `parser/where`, `query/binding`, `query/timeout` …
    pub fn code(&self) -> &str {
        match self {
            Self::Invalid(invalid) => invalid.code,
            Self::Exceeded(exceeded) => exceeded.code(),
            Self::Missing(_) => "index/missing",
            Self::Db(error) => error.code().unwrap_or("query/db"),
        }
    }

    /// The part of the query that is meant.
    pub fn form(&self) -> Option<&Value> {
        match self {
            Self::Invalid(invalid) => invalid.form.as_ref(),
            _ => None,
        }
    }

    /// Line and column, from 1, in the text of the query.
    pub fn position(&self) -> Option<(u32, u32)> {
        match self {
            Self::Invalid(invalid) => invalid.position,
            _ => None,
        }
    }

    /// What may have been meant.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Invalid(invalid) => invalid.hint.as_deref(),
            _ => None,
        }
    }

    /// The blocks to fetch before the query can go on, if that is all that is wrong.
    pub fn missing(&self) -> Option<&Missing> {
        match self {
            Self::Missing(missing) => Some(missing),
            Self::Db(error) => error.missing(),
            _ => None,
        }
    }

    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self::Invalid(Box::new(Invalid {
            code,
            message: message.into(),
            form: None,
            position: None,
            hint: None,
        }))
    }

    /// With the form at fault, unless a more exact one is known already.
    pub(crate) fn at(mut self, form: &Value) -> Self {
        if let Self::Invalid(invalid) = &mut self {
            invalid.form.get_or_insert_with(|| form.clone());
        }
        self
    }

    /// With the place of the form at fault in the text that it was read from.
    pub(crate) fn within(mut self, text: &str) -> Self {
        if let Self::Invalid(invalid) = &mut self
            && invalid.position.is_none()
            && let Some(form) = &invalid.form
        {
            invalid.position = super::locate::position(text, form);
        }
        self
    }

    pub(crate) fn hinting(mut self, hint: Option<String>) -> Self {
        if let (Self::Invalid(invalid), Some(hint)) = (&mut self, hint) {
            invalid.hint.get_or_insert(hint);
        }
        self
    }
}

/// `did you mean X?` for the candidate nearest to `name`, if one is near enough to be a slip.
pub(crate) fn did_you_mean<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let allowed = name.chars().count().div_ceil(3).min(3);
    candidates
        .into_iter()
        .filter(|candidate| *candidate != name)
        .map(|candidate| (distance(name, candidate, allowed), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| format!("did you mean {candidate}?"))
}

/// Edits (insert, delete, replace, swap of neighbours) between two names; more than `allowed` is
/// not counted exactly.
fn distance(a: &str, b: &str, allowed: usize) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    if a.len().abs_diff(b.len()) > allowed {
        return allowed + 1;
    }
    let mut before_last = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before_last[j - 2] + 1);
            }
        }
        before_last = last;
        last = row;
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognised_and_a_different_name_is_not() {
        let known = [":person/name", ":person/age"];
        assert_eq!(
            did_you_mean(":persn/name", known).as_deref(),
            Some("did you mean :person/name?")
        );
        assert_eq!(did_you_mean(":city/population", known), None);
        assert_eq!(distance("ab", "ba", 3), 1);
    }
}
