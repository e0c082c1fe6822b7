//! An evaluator and a database that are meant to be right by reading: no index, no plan, no code of
//! the engine. A database is the list of everything that ever happened; a query scans it once per
//! clause and row.
//!
//! It covers what the generators of this crate produce. Anything else is an [`OracleError`], never a
//! wrong answer.

mod eval;
mod find;
mod functions;
mod model;
mod query;

pub use eval::{Input, answer};
pub use model::{AttributeKind, Change, Fact, Model, Refusal, View};
pub use query::{Clause, Element, Find, Query, RuleBranch, parse_query, parse_rules};

/// What the oracle cannot answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OracleError {
    /// The form is outside of what the oracle reads.
    #[error("the oracle does not read {0}")]
    Form(String),
    /// No order of the clauses binds what they need.
    #[error("nothing binds the variables of {0}")]
    Unbound(String),
    /// There are more rows in between than the oracle has patience for.
    #[error("too many rows")]
    TooLarge,
    /// A function got what it is not defined for.
    #[error("{function} is not defined for {argument}")]
    Undefined {
        /// Its name.
        function: String,
        /// What it got.
        argument: String,
    },
}
