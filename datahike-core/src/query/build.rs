//! Queries put together in Rust.

use datahike_value::{Value, edn};

use super::error::QueryError;
use super::{Query, unreadable};

/// Builds a query part by part, each given as EDN text.
///
/// ```
/// use datahike_core::query::Query;
///
/// let query = Query::builder()
///     .find("?name")
///     .input("$")
///     .input("?min")
///     .clause("[?e :name ?name]")
///     .clause("[?e :age ?age]")
///     .clause("[(>= ?age ?min)]")
///     .order_by("?name :asc")
///     .limit(10)
///     .build()?;
/// assert!(query.form().to_string().starts_with("{:find [?name]"));
/// # Ok::<(), datahike_core::query::QueryError>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct QueryBuilder {
    sections: Vec<(&'static str, Vec<Value>)>,
    error: Option<QueryError>,
}

impl Query {
    /// A query without any part yet.
    pub fn builder() -> QueryBuilder {
        QueryBuilder::default()
    }
}

impl QueryBuilder {
    /// Adds elements of `:find`, in any of its shapes: `?a`, `(count ?b)`, `[?a ...]`, `?a .`
    pub fn find(self, elements: &str) -> Self {
        self.text("find", elements)
    }

    /// Adds variables of `:with`.
    pub fn with(self, variables: &str) -> Self {
        self.text("with", variables)
    }

    /// Adds an input: `$`, `%`, `?x`, `[?x ...]`
    pub fn input(self, input: &str) -> Self {
        self.text("in", input)
    }

    /// Adds a clause.
    pub fn clause(self, clause: &str) -> Self {
        self.text("where", clause)
    }

    /// Adds a clause that is EDN already, for instance one with a value of the program in it.
    pub fn clause_value(mut self, clause: Value) -> Self {
        self.section("where").push(clause);
        self
    }

    /// Names the columns: rows come back as maps with these keywords.
    pub fn keys(self, names: &str) -> Self {
        self.text("keys", names)
    }

    /// Orders the rows: `?a :asc ?b :desc`
    pub fn order_by(self, order: &str) -> Self {
        self.text("order-by", order)
    }

    /// At most so many rows.
    pub fn limit(mut self, rows: usize) -> Self {
        *self.section("limit") = vec![Value::Long(rows as i64)];
        self
    }

    /// Without the first rows.
    pub fn offset(mut self, rows: usize) -> Self {
        *self.section("offset") = vec![Value::Long(rows as i64)];
        self
    }

    /// Checks what was put together.
    ///
    /// # Errors
    /// If a part is not EDN, or the whole is no query.
    pub fn build(self) -> Result<Query, QueryError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        Query::from_value(&Value::map(self.sections.into_iter().map(|(name, items)| {
            let value = match (name, items.as_slice()) {
                ("limit" | "offset", [count]) => count.clone(),
                _ => Value::vector(items),
            };
            (Value::keyword(name), value)
        })))
    }

    fn text(mut self, section: &'static str, text: &str) -> Self {
        match edn::read_all(text) {
            Ok(values) => self.section(section).extend(values),
            Err(error) => {
                self.error.get_or_insert_with(|| unreadable("parser/query", &error));
            }
        }
        self
    }

    fn section(&mut self, name: &'static str) -> &mut Vec<Value> {
        let place = match self.sections.iter().position(|(known, _)| *known == name) {
            Some(place) => place,
            None => {
                self.sections.push((name, Vec::new()));
                self.sections.len() - 1
            }
        };
        &mut self.sections[place].1
    }
}
