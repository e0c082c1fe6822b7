//! What a query is run on.

use std::fmt;

use datahike_value::{Symbol, Value};

use super::ast::{Ast, Binding, Clause, Conj, In, Names, Pattern, SourceRef, Term};
use super::error::QueryError;
use super::functions::HostFn;
use super::relation::{Cell, Relation};
use super::rules::Rules;
use super::run::{Run, destructure};
use super::source::{Rows, Source};
use crate::db::Db;

/// One input of a query, in the order of its `:in`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Input {
    /// A snapshot, for a source.
    Db(Db),
    /// A value for a variable or binding; for a source, a collection of rows; for `%`, rules.
    Value(Value),
    /// Rules for `%`.
    Rules(Rules),
    /// A function for a variable that stands where a function is called.
    Function(Function),
}

/// A function handed to a query as an input.
#[derive(Clone)]
pub struct Function(pub HostFn);

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Function")
    }
}

impl From<Db> for Input {
    fn from(db: Db) -> Self {
        Self::Db(db)
    }
}

impl From<&Db> for Input {
    fn from(db: &Db) -> Self {
        Self::Db(db.clone())
    }
}

impl From<Value> for Input {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}

impl From<Rules> for Input {
    fn from(rules: Rules) -> Self {
        Self::Rules(rules)
    }
}

impl Input {
    /// A function.
    pub fn function(
        function: impl Fn(&[Value]) -> Result<Value, String> + Send + Sync + 'static,
    ) -> Self {
        Self::Function(Function(std::sync::Arc::new(function)))
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Db(_) => "a database",
            Self::Value(_) => "a value",
            Self::Rules(_) => "rules",
            Self::Function(_) => "a function",
        }
    }
}

/// Inputs in the form in which evaluation starts.
pub(crate) struct Bound {
    pub(crate) seed: Relation,
    /// The query's names and clauses where inputs were made patterns of their own.
    pub(crate) names: Option<Names>,
    pub(crate) body: Option<Conj>,
}

/// The rules among the inputs; checks that there are as many inputs as the query names.
pub(crate) fn rules(ast: &Ast, inputs: &[Input]) -> Result<Rules, QueryError> {
    let expected = ast.inputs.len();
    // A query that names no inputs takes one database, and none if it reads none.
    let implicit = matches!(ast.inputs.as_slice(), [In::Source(SourceRef(0))]);
    if inputs.len() != expected && !(implicit && inputs.is_empty()) {
        let what = if inputs.len() < expected { "too few" } else { "too many" };
        return Err(QueryError::new(
            "query/inputs",
            format!("{what} inputs: the query takes {expected}, {} are given", inputs.len()),
        ));
    }
    for (declared, input) in ast.inputs.iter().zip(inputs) {
        if let In::Rules = declared {
            return match input {
                Input::Rules(rules) => Ok(rules.clone()),
                Input::Value(Value::Nil) => Ok(Rules::default()),
                Input::Value(value) => Rules::from_value(value),
                other => Err(QueryError::new(
                    "query/inputs",
                    format!("% takes rules, {} is given", other.kind()),
                )),
            };
        }
    }
    Ok(Rules::default())
}

/// Above this many rows, several inputs with many values are joined like any other clauses instead
/// of being multiplied at the start.
const PRODUCT_MAX: usize = 1_000;

impl Run<'_> {
    pub(crate) fn bind_inputs(&mut self, ast: &Ast, inputs: &[Input]) -> Result<Bound, QueryError> {
        let mut relations = Vec::new();
        for (declared, input) in ast.inputs.iter().zip(inputs) {
            match declared {
                In::Rules => {}
                In::Source(source) => {
                    let name = ast.names.sources[source.0].clone();
                    let source = match input {
                        Input::Db(db) => Source::Db(db.clone()),
                        Input::Value(value) => {
                            let rows = Rows::new(value, &mut self.dict).ok_or_else(|| {
                                QueryError::new(
                                    "query/inputs",
                                    format!(
                                        "{name} takes a database or a collection of rows, not {}",
                                        value.type_name()
                                    ),
                                )
                            })?;
                            Source::Rows(rows)
                        }
                        other => {
                            let message = format!(
                                "{name} takes a database or a collection, {} is given",
                                other.kind()
                            );
                            return Err(QueryError::new("query/inputs", message));
                        }
                    };
                    self.sources.push((name, source));
                }
                In::Binding(binding, form) => {
                    relations
                        .push(self.bind_input(binding, input).map_err(|error| error.at(form))?);
                }
            }
        }
        Ok(self.combine(ast, relations))
    }

    fn bind_input(&mut self, binding: &Binding, input: &Input) -> Result<Relation, QueryError> {
        let value = match input {
            Input::Value(value) => value.clone(),
            Input::Function(function) => {
                // A blank cannot stand in a name that a query can write.
                let name = Symbol::parse(&format!("function {}", self.passed.len() + 1));
                self.passed.insert(name.clone(), function.0.clone());
                Value::Symbol(name)
            }
            other => {
                let message = format!("expected a value, {} is given", other.kind());
                return Err(QueryError::new("query/inputs", message));
            }
        };
        let mut vars = Vec::new();
        binding.collect(&mut vars);
        let mut rows = Vec::new();
        destructure(binding, &value, &vars, &mut rows)?;
        self.meter.rows(rows.len())?;
        let mut relation = Relation::empty(vars);
        relation.len = rows.len();
        relation.distinct = rows.len() <= 1;
        for row in &rows {
            for (col, value) in relation.cols.iter_mut().zip(row) {
                col.push(self.dict.cell(value));
            }
        }
        relation.dedup();
        Ok(relation)
    }

    /// One relation of all inputs, or the large ones as patterns over sources of their own.
    fn combine(&mut self, ast: &Ast, relations: Vec<Relation>) -> Bound {
        let mut seed = Relation::unit();
        let (mut names, mut body) = (None, None);
        for relation in relations {
            // Names of entities must be bound before the pattern that resolves them.
            let plain = relation.cols.iter().flatten().all(|cell| {
                !matches!(
                    self.dict.boxed(*cell),
                    Some(Value::Keyword(_) | Value::Vector(_) | Value::List(_) | Value::Symbol(_))
                )
            });
            let product = seed.len.saturating_mul(relation.len);
            if seed.len > 1 && relation.len > 1 && product > PRODUCT_MAX && plain {
                let names = names.get_or_insert_with(|| ast.names.clone());
                let body: &mut Conj = body.get_or_insert_with(|| ast.body.clone());
                let name = Symbol::parse(&format!("input {}", names.sources.len()));
                let source = SourceRef(names.sources.len());
                names.sources.push(name.clone());
                let terms: Vec<Term> = relation.vars.iter().map(|var| Term::Var(*var)).collect();
                let form = Value::vector(
                    relation
                        .vars
                        .iter()
                        .map(|var| Value::Symbol(names.vars[var.0 as usize].clone())),
                );
                body.clauses.push(Clause::Pattern(Pattern { source, terms, form }));
                self.sources.push((name, Source::Rows(Rows::from_columns(relation.cols))));
            } else {
                seed = seed.join(&relation);
            }
        }
        Bound { seed, names, body }
    }
}

/// For columns that are known already.
impl Rows {
    fn from_columns(cols: Vec<Vec<Cell>>) -> Self {
        let len = cols.first().map_or(0, Vec::len);
        Self::of(cols, len)
    }
}
