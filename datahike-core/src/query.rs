//! Datalog queries over snapshots and collections.
//!
//! A [`Query`] is text, EDN or built; it is parsed and checked once and run on any inputs:
//!
//! ```
//! use datahike_core::query::{Context, Input, Query, q};
//! use datahike_value::Value;
//!
//! let query = Query::parse("[:find ?child :in $ ?parent :where [?child :parent ?parent]]")?;
//! let facts = datahike_value::edn::read("[[:ann :parent :bob] [:cy :parent :ann]]").unwrap();
//! let inputs = [Input::from(facts), Input::Value(Value::keyword("bob"))];
//! let found = q(&query, &inputs, &Context::default())?;
//! assert_eq!(found.into_value().to_string(), "#{[:ann]}");
//! # Ok::<(), datahike_core::query::QueryError>(())
//! ```
//!
//! Evaluation is synchronous. Where blocks are missing it ends with [`QueryError::Missing`]; fetch
//! them and run the same query again: with the same seed it gives the same result.

mod aggregate;
mod ast;
mod build;
mod error;
mod explain;
mod find;
mod functions;
mod inputs;
mod locate;
mod parse;
mod plan;
mod relation;
mod rules;
mod run;
mod source;
mod standing;
mod vars;

use std::sync::Arc;

use datahike_value::{Symbol, Value, edn};

use self::ast::Ast;
pub use self::build::QueryBuilder;
pub use self::error::{Invalid, QueryError};
use self::explain::Trace;
pub use self::explain::{Actual, Clock, Explanation, Step};
pub use self::find::{QueryResult, Rows};
pub use self::functions::{Functions, HostFn};
pub use self::inputs::{Function, Input};
pub use self::rules::Rules;
use self::run::{Env, RuleSet, Run};
pub use self::standing::{Delta, Standing, Strategy, Trigger};
use crate::budget::Budget;

/// A parsed and checked query. Cheap to clone, and free of any database.
#[derive(Clone, Debug)]
pub struct Query {
    ast: Arc<Ast>,
    form: Value,
    text: Option<Arc<str>>,
}

impl Query {
    /// From text.
    ///
    /// # Errors
    /// If the text is not EDN or not a query.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let form = edn::read(text).map_err(|error| unreadable("parser/query", &error))?;
        let mut query = Self::from_value(&form).map_err(|error| error.within(text))?;
        query.text.get_or_insert_with(|| text.into());
        Ok(query)
    }

    /// From EDN: a vector, a map, or a string that holds one. Also a map `{:query …}` with `:limit`,
    /// `:offset` and `:order-by` beside the query.
    ///
    /// # Errors
    /// If it is not a query.
    pub fn from_value(form: &Value) -> Result<Self, QueryError> {
        match form {
            Value::Str(text) => Self::parse(text),
            Value::Map(map) => {
                let key = |name: &str| map.get(&Value::keyword(name));
                match key("query") {
                    None => Self::from_form(form),
                    Some(inner) => {
                        let mut query = Self::from_value(inner)?;
                        if let Some(order) = key("order-by") {
                            query = query.ordered_by(order)?;
                        }
                        for (name, value) in [("limit", key("limit")), ("offset", key("offset"))] {
                            let count = match value {
                                None | Some(Value::Nil) => continue,
                                Some(Value::Long(n)) => usize::try_from(*n).ok(),
                                Some(_) => {
                                    let message = format!(":{name} takes one integer");
                                    return Err(QueryError::new("parser/query", message).at(form));
                                }
                            };
                            query = match name {
                                "limit" => query.limited(count),
                                _ => query.starting_at(count.unwrap_or(0)),
                            };
                        }
                        Ok(query)
                    }
                }
            }
            form => Self::from_form(form),
        }
    }

    fn from_form(form: &Value) -> Result<Self, QueryError> {
        let ast = Arc::new(parse::parse_query(form)?);
        Ok(Self { ast, form: form.clone(), text: None })
    }

    /// An error with the place in the query's text, if the query came as text.
    fn place(&self, error: QueryError) -> QueryError {
        match &self.text {
            Some(text) => error.within(text),
            None => error,
        }
    }

    /// The query as it was written.
    pub fn form(&self) -> &Value {
        &self.form
    }

    /// With at most so many rows; `None` for all.
    #[must_use]
    pub fn limited(mut self, rows: Option<usize>) -> Self {
        Arc::make_mut(&mut self.ast).limit = rows;
        self
    }

    /// Without the first rows.
    #[must_use]
    pub fn starting_at(mut self, row: usize) -> Self {
        Arc::make_mut(&mut self.ast).offset = row;
        self
    }

    /// In an order: `[?a :asc ?b :desc]`.
    ///
    /// # Errors
    /// If it is no order, or names a variable that the query does not know.
    pub fn ordered_by(mut self, order: &Value) -> Result<Self, QueryError> {
        let ast = Arc::make_mut(&mut self.ast);
        ast.order_by = parse::parse_order_for(order, &mut ast.names)?;
        Ok(self)
    }
}

/// What a query may use besides its inputs.
#[derive(Clone, Debug, Default)]
pub struct Context {
    /// What it may spend.
    pub budget: Budget,
    /// Decides what `rand` and `sample` give.
    pub seed: u64,
    /// Functions, predicates and aggregates of the host.
    pub functions: Arc<Functions>,
    /// Whether an attribute that the database does not know is the error `query/attribute`, with a
    /// hint at what may have been meant. Otherwise it is an attribute that no entity has.
    pub strict: bool,
}

/// Runs a query.
///
/// # Errors
/// If inputs do not fit the query, a function fails, the budget is spent, or blocks are missing.
pub fn q(query: &Query, inputs: &[Input], context: &Context) -> Result<QueryResult, QueryError> {
    evaluate(query, inputs, context, 0)
}

/// Tells how a query will be evaluated, without running it: the order of its clauses, how each will
/// find its rows, how many are expected, and what else could have stood in its place. Reads no block.
///
/// # Errors
/// If inputs do not fit the query or its clauses cannot be ordered.
pub fn explain(
    query: &Query,
    inputs: &[Input],
    context: &Context,
) -> Result<Explanation, QueryError> {
    let trace = Trace::new(None);
    let planned = prepared(query, inputs, context, 0, Some(trace), |mut run, env, body, seed| {
        let (bound, rows) = (seed.set(), seed.len as f64);
        run.foresee(env, body, &bound, rows, 0)?;
        let unknown = run.unknown_anywhere(env, &query.ast, body);
        let mut explanation = run.trace.map(|trace| trace.explanation).unwrap_or_default();
        explanation.notes = unknown;
        Ok(explanation)
    });
    planned.map_err(|error| query.place(error))
}

/// Runs a query and tells how it went: as [`explain`], with the rows that each step found and, by
/// `clock`, the time that it took.
///
/// # Errors
/// As [`q`].
pub fn analyze(
    query: &Query,
    inputs: &[Input],
    context: &Context,
    clock: Option<Clock>,
) -> Result<(QueryResult, Explanation), QueryError> {
    let trace = Trace::new(clock);
    let ran = prepared(query, inputs, context, 0, Some(trace), |mut run, env, body, seed| {
        let unknown = run.unknown_anywhere(env, &query.ast, body);
        let wanted = find::wanted(&query.ast).into_iter().collect();
        let rows = run.conj(env, body, seed, &wanted)?;
        let result = run.find(env, &query.ast, rows)?;
        let mut explanation = run.trace.map(|trace| trace.explanation).unwrap_or_default();
        explanation.notes = unknown;
        Ok((result, explanation))
    });
    ran.map_err(|error| query.place(error))
}

pub(crate) fn evaluate(
    query: &Query,
    inputs: &[Input],
    context: &Context,
    nesting: usize,
) -> Result<QueryResult, QueryError> {
    let found = prepared(query, inputs, context, nesting, None, |mut run, env, body, seed| {
        let wanted = find::wanted(&query.ast).into_iter().collect();
        let rows = run.conj(env, body, seed, &wanted)?;
        run.find(env, &query.ast, rows)
    });
    found.map_err(|error| query.place(error))
}

/// Binds the inputs, checks that the query can be answered, and hands it to `work`.
fn prepared<T>(
    query: &Query,
    inputs: &[Input],
    context: &Context,
    nesting: usize,
    trace: Option<Trace>,
    work: impl FnOnce(Run<'_>, Env<'_>, &ast::Conj, relation::Relation) -> Result<T, QueryError>,
) -> Result<T, QueryError> {
    let ast = &query.ast;
    let given = inputs::rules(ast, inputs)?;
    parse::check_calls(&ast.body, &given.defs)?;
    let rules = RuleSet::new(&given)?;
    let mut run = Run::new(&rules, context, nesting, trace)?;
    let bound = run.bind_inputs(ast, inputs)?;
    let default = run.sources.iter().position(|(name, _)| name.text() == "$");
    let names = bound.names.as_ref().unwrap_or(&ast.names);
    let body = bound.body.as_ref().unwrap_or(&ast.body);
    let env = Env { names, default };
    run.check(env, body, &bound.seed.set())?;
    if context.strict
        && let Some(unknown) = run.unknown_attributes(env, ast, body).into_iter().next()
    {
        return Err(unknown.into_error());
    }
    work(run, env, body, bound.seed)
}

/// The error for text that is not EDN.
pub(crate) fn unreadable(code: &'static str, error: &edn::ReadError) -> QueryError {
    QueryError::Invalid(Box::new(Invalid {
        code,
        message: error.kind.to_string(),
        form: None,
        position: Some((error.position.line as u32, error.position.column as u32)),
        hint: None,
    }))
}

/// Calls a function of the host, or a built-in one.
pub(crate) fn call_by_name(
    functions: &Functions,
    name: &Symbol,
    args: &[Value],
) -> Result<Value, QueryError> {
    let failed = |message: String| QueryError::new("query/where", format!("{name}: {message}"));
    if let Some(function) = functions.named(name) {
        return function(args).map_err(failed);
    }
    match functions::builtin(name.text()) {
        Some(function) => function(args).map_err(failed),
        None => Err(functions::unknown_function(name, functions)),
    }
}
