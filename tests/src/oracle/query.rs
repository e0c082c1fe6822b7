//! Queries as data, and their parser.

use datahike_value::{Keyword, Value};

use super::OracleError;

/// A place in a pattern or an argument.
#[derive(Clone, Debug, PartialEq)]
pub enum Term {
    /// `?x`
    Var(String),
    /// `_`
    Blank,
    /// `$`, `$name`
    Source(String),
    /// Anything else stands for itself.
    Constant(Value),
}

/// How a result or an input binds variables.
#[derive(Clone, Debug, PartialEq)]
pub enum Binding {
    /// `_`
    Ignore,
    /// `?x`
    Var(String),
    /// `[?x ...]`
    Collection(Box<Self>),
    /// `[?x ?y]`
    Tuple(Vec<Self>),
    /// `[[?x ?y]]`
    Relation(Vec<Self>),
}

/// One clause.
#[derive(Clone, Debug, PartialEq)]
pub enum Clause {
    /// `[$ e a v tx added]`
    Pattern {
        /// The source.
        source: String,
        /// As many places as were written.
        terms: Vec<Term>,
    },
    /// `[(f args)]`
    Predicate {
        /// The function.
        function: String,
        /// Its arguments.
        arguments: Vec<Term>,
    },
    /// `[(f args) binding]`
    Function {
        /// The function.
        function: String,
        /// Its arguments.
        arguments: Vec<Term>,
        /// What takes the result.
        binding: Binding,
    },
    /// `(not …)`, `(not-join [vars] …)`
    Not {
        /// The variables that it shares with its surroundings, if it names them.
        join: Option<Vec<String>>,
        /// Its clauses.
        body: Vec<Self>,
    },
    /// `(or …)`, `(or-join [vars] …)`
    Or {
        /// The variables that it shares with its surroundings, if it names them.
        join: Option<Vec<String>>,
        /// Its branches.
        branches: Vec<Vec<Self>>,
    },
    /// `(rule args)`
    Rule {
        /// The rule.
        name: String,
        /// Its arguments.
        arguments: Vec<Term>,
    },
}

/// One element of `:find`.
#[derive(Clone, Debug, PartialEq)]
pub enum Element {
    /// `?x`
    Var(String),
    /// `(count ?x)`, `(min 2 ?x)`
    Aggregate {
        /// The function.
        function: String,
        /// Its arguments; the last one is aggregated.
        arguments: Vec<Term>,
    },
}

/// The shape of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Find {
    /// `:find ?x ?y`
    Relation,
    /// `:find [?x ...]`
    Collection,
    /// `:find [?x ?y]`
    Tuple,
    /// `:find ?x .`
    Scalar,
}

/// A query.
#[derive(Clone, Debug, PartialEq)]
pub struct Query {
    /// The shape.
    pub find: Find,
    /// What is found.
    pub elements: Vec<Element>,
    /// Variables that count for the identity of a row but are not in it.
    pub with: Vec<String>,
    /// Inputs: a source, the rules, or values.
    pub inputs: Vec<In>,
    /// The clauses.
    pub clauses: Vec<Clause>,
}

/// One element of `:in`.
#[derive(Clone, Debug, PartialEq)]
pub enum In {
    /// `$`
    Source(String),
    /// `%`
    Rules,
    /// Values.
    Values(Binding),
}

/// One branch of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleBranch {
    /// The rule.
    pub name: String,
    /// Its parameters.
    pub head: Vec<String>,
    /// Its clauses.
    pub body: Vec<Clause>,
}

type Parsed<T> = Result<T, OracleError>;

/// Reads a query in vector form.
///
/// # Errors
/// If it is not one, or uses what the oracle does not know.
pub fn parse_query(form: &Value) -> Parsed<Query> {
    let mut sections: Vec<(Keyword, Vec<Value>)> = Vec::new();
    for item in items(form)? {
        match (item, sections.last_mut()) {
            (Value::Keyword(name), _) => sections.push((name.clone(), Vec::new())),
            (_, Some((_, content))) => content.push(item.clone()),
            (_, None) => return unread(form),
        }
    }
    let section = |name: &str| {
        sections.iter().find(|(key, _)| key.text() == name).map_or(&[][..], |(_, c)| c.as_slice())
    };
    let (find, elements) = parse_find(section("find"))?;
    let inputs = match section("in") {
        [] => vec![In::Source("$".into())],
        inputs => inputs.iter().map(parse_in).collect::<Parsed<_>>()?,
    };
    let with = section("with").iter().map(variable).collect::<Parsed<_>>()?;
    let clauses = section("where").iter().map(parse_clause).collect::<Parsed<_>>()?;
    Ok(Query { find, elements, with, inputs, clauses })
}

/// Reads the value for `%`.
///
/// # Errors
/// If it is not a collection of rule branches.
pub fn parse_rules(form: &Value) -> Parsed<Vec<RuleBranch>> {
    items(form)?
        .iter()
        .map(|branch| {
            let (head, body) = items(branch)?.split_first().ok_or_else(|| error(branch))?;
            let (name, parameters) = items(head)?.split_first().ok_or_else(|| error(head))?;
            Ok(RuleBranch {
                name: symbol(name)?,
                head: parameters.iter().map(variable).collect::<Parsed<_>>()?,
                body: body.iter().map(parse_clause).collect::<Parsed<_>>()?,
            })
        })
        .collect()
}

fn parse_find(section: &[Value]) -> Parsed<(Find, Vec<Element>)> {
    let is = |value: &Value, name: &str| value.as_symbol().is_some_and(|s| s.text() == name);
    let (find, elements) = match section {
        [element, dot] if is(dot, ".") => (Find::Scalar, std::slice::from_ref(element)),
        [Value::Vector(inner)] => match &inner[..] {
            [element, dots] if is(dots, "...") => (Find::Collection, std::slice::from_ref(element)),
            _ => (Find::Tuple, &inner[..]),
        },
        _ => (Find::Relation, section),
    };
    Ok((find, elements.iter().map(parse_element).collect::<Parsed<_>>()?))
}

fn parse_element(form: &Value) -> Parsed<Element> {
    if let Value::List(call) = form {
        let (function, arguments) = call.split_first().ok_or_else(|| error(form))?;
        let arguments = arguments.iter().map(parse_term).collect();
        return Ok(Element::Aggregate { function: symbol(function)?, arguments });
    }
    Ok(Element::Var(variable(form)?))
}

fn parse_in(form: &Value) -> Parsed<In> {
    match form.as_symbol().map(|s| s.text()) {
        Some("%") => Ok(In::Rules),
        Some(name) if name.starts_with('$') => Ok(In::Source(name.to_owned())),
        _ => Ok(In::Values(parse_binding(form)?)),
    }
}

fn parse_binding(form: &Value) -> Parsed<Binding> {
    match form {
        Value::Symbol(s) if s.text() == "_" => Ok(Binding::Ignore),
        Value::Symbol(_) => Ok(Binding::Var(variable(form)?)),
        Value::Vector(inner) => match &inner[..] {
            [Value::Vector(columns)] => {
                Ok(Binding::Relation(columns.iter().map(parse_binding).collect::<Parsed<_>>()?))
            }
            [one, Value::Symbol(dots)] if dots.text() == "..." => {
                Ok(Binding::Collection(Box::new(parse_binding(one)?)))
            }
            places => Ok(Binding::Tuple(places.iter().map(parse_binding).collect::<Parsed<_>>()?)),
        },
        _ => unread(form),
    }
}

fn parse_clause(form: &Value) -> Parsed<Clause> {
    match form {
        Value::Vector(parts) => match &parts[..] {
            [Value::List(call)] => {
                let (function, arguments) = parse_call(form, call)?;
                Ok(Clause::Predicate { function, arguments })
            }
            [Value::List(call), binding] => {
                let (function, arguments) = parse_call(form, call)?;
                Ok(Clause::Function { function, arguments, binding: parse_binding(binding)? })
            }
            places => {
                let mut terms: Vec<Term> = places.iter().map(parse_term).collect();
                let source = match terms.first() {
                    Some(Term::Source(name)) => name.clone(),
                    _ => "$".to_owned(),
                };
                terms.retain(|term| !matches!(term, Term::Source(_)));
                Ok(Clause::Pattern { source, terms })
            }
        },
        Value::List(parts) => {
            let (head, rest) = parts.split_first().ok_or_else(|| error(form))?;
            let body = |forms: &[Value]| forms.iter().map(parse_clause).collect::<Parsed<Vec<_>>>();
            let named = |forms: &[Value]| {
                let (vars, rest) = forms.split_first().ok_or_else(|| error(form))?;
                let vars = items(vars)?.iter().map(variable).collect::<Parsed<Vec<_>>>()?;
                Ok((Some(vars), rest.to_vec()))
            };
            let branches = |forms: &[Value]| forms.iter().map(parse_branch).collect::<Parsed<_>>();
            match symbol(head)?.as_str() {
                "not" => Ok(Clause::Not { join: None, body: body(rest)? }),
                "not-join" => {
                    let (join, rest) = named(rest)?;
                    Ok(Clause::Not { join, body: body(&rest)? })
                }
                "or" => Ok(Clause::Or { join: None, branches: branches(rest)? }),
                "or-join" => {
                    let (join, rest) = named(rest)?;
                    Ok(Clause::Or { join, branches: branches(&rest)? })
                }
                name => Ok(Clause::Rule {
                    name: name.to_owned(),
                    arguments: rest.iter().map(parse_term).collect(),
                }),
            }
        }
        _ => unread(form),
    }
}

fn parse_branch(form: &Value) -> Parsed<Vec<Clause>> {
    match form {
        Value::List(parts)
            if parts.first().and_then(Value::as_symbol).is_some_and(|s| s.text() == "and") =>
        {
            parts[1..].iter().map(parse_clause).collect()
        }
        _ => Ok(vec![parse_clause(form)?]),
    }
}

fn parse_call(form: &Value, call: &[Value]) -> Parsed<(String, Vec<Term>)> {
    let (function, arguments) = call.split_first().ok_or_else(|| error(form))?;
    Ok((symbol(function)?, arguments.iter().map(parse_term).collect()))
}

fn parse_term(form: &Value) -> Term {
    match form.as_symbol().map(|s| s.text()) {
        Some("_") => Term::Blank,
        Some(name) if name.starts_with('?') => Term::Var(name.to_owned()),
        Some(name) if name.starts_with('$') => Term::Source(name.to_owned()),
        _ => Term::Constant(form.clone()),
    }
}

fn items(form: &Value) -> Parsed<&[Value]> {
    match form {
        Value::Vector(items) | Value::List(items) => Ok(items),
        _ => unread(form),
    }
}

fn symbol(form: &Value) -> Parsed<String> {
    form.as_symbol().map(|s| s.text().to_owned()).ok_or_else(|| error(form))
}

fn variable(form: &Value) -> Parsed<String> {
    let name = symbol(form)?;
    if name.starts_with('?') { Ok(name) } else { unread(form) }
}

fn error(form: &Value) -> OracleError {
    OracleError::Form(form.to_string())
}

fn unread<T>(form: &Value) -> Parsed<T> {
    Err(error(form))
}
