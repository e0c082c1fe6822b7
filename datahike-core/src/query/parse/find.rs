//! `:find`: what comes back, and in which shape.

use datahike_value::{Symbol, Value};

use super::super::ast::{Arg, Callee, DEFAULT_SOURCE, FindElement, FindShape, PullSpec, SourceRef};
use super::super::error::QueryError;
use super::super::vars::Var;
use super::clauses::Scope;
use super::{is_source, is_variable};
use crate::pull::Pattern;

pub(super) fn parse_find(
    items: &[Value],
    scope: &mut Scope<'_>,
) -> Result<(FindShape, Vec<FindElement>), QueryError> {
    let whole = || Value::vector(items.to_vec());
    match items {
        [element, Value::Symbol(dot)] if dot.text() == "." => {
            Ok((FindShape::Scalar, vec![parse_element(element, scope)?]))
        }
        [Value::Vector(inner)] => match &**inner {
            [element, Value::Symbol(dots)] if dots.text() == "..." => {
                Ok((FindShape::Collection, vec![parse_element(element, scope)?]))
            }
            [] => Err(QueryError::new("parser/find", ":find has no element").at(&whole())),
            elements => Ok((FindShape::Tuple, parse_elements(elements, scope)?)),
        },
        elements => match parse_elements(elements, scope) {
            Ok(elements) => Ok((FindShape::Relation, elements)),
            Err(error) if error.code() == "parser/find" => Err(error.hinting(Some(
                ":find takes elements, [element ...], [element element] or element .".into(),
            ))),
            Err(error) => Err(error),
        },
    }
}

fn parse_elements(items: &[Value], scope: &mut Scope<'_>) -> Result<Vec<FindElement>, QueryError> {
    items.iter().map(|item| parse_element(item, scope)).collect()
}

fn parse_element(item: &Value, scope: &mut Scope<'_>) -> Result<FindElement, QueryError> {
    match item {
        Value::Symbol(symbol) if is_variable(symbol) => Ok(FindElement::Var(scope.var(symbol))),
        Value::List(parts) => match &**parts {
            [Value::Symbol(head), rest @ ..] if head.text() == "pull" => {
                parse_pull(item, rest, scope)
            }
            [Value::Symbol(head), Value::Symbol(function), rest @ ..]
                if head.text() == "aggregate" =>
            {
                parse_aggregate(item, function, rest, scope)
            }
            [Value::Symbol(function), rest @ ..] if !is_variable(function) => {
                parse_aggregate(item, function, rest, scope)
            }
            _ => Err(QueryError::new("parser/find", "cannot read this element of :find").at(item)),
        },
        other => Err(QueryError::new(
            "parser/find",
            "an element of :find is a variable, an aggregate or a pull",
        )
        .at(other)),
    }
}

fn parse_aggregate(
    form: &Value,
    function: &Symbol,
    rest: &[Value],
    scope: &mut Scope<'_>,
) -> Result<FindElement, QueryError> {
    let Some((Value::Symbol(over), params)) = rest.split_last() else {
        let message = "the last argument of an aggregate is the variable to aggregate";
        return Err(QueryError::new("parser/find", message).at(form));
    };
    if !is_variable(over) {
        let message = "the last argument of an aggregate is the variable to aggregate";
        return Err(QueryError::new("parser/find", message).at(form));
    }
    let params = params.iter().map(|param| scope.arg(param)).collect::<Result<_, _>>()?;
    let over = scope.var(over);
    let callee = if is_variable(function) {
        Callee::Var(scope.var(function))
    } else {
        Callee::Name(function.clone())
    };
    Ok(FindElement::Aggregate { callee, params, over, form: form.clone() })
}

fn parse_pull(
    form: &Value,
    rest: &[Value],
    scope: &mut Scope<'_>,
) -> Result<FindElement, QueryError> {
    let (source, rest): (SourceRef, &[Value]) = match rest {
        [Value::Symbol(source), rest @ ..] if is_source(source) => (scope.source(source), rest),
        rest => (DEFAULT_SOURCE, rest),
    };
    let [Value::Symbol(var), pattern] = rest else {
        let message = "pull in :find is (pull ?entity pattern) or (pull $source ?entity pattern)";
        return Err(QueryError::new("parser/find", message).at(form));
    };
    if !is_variable(var) {
        return Err(QueryError::new("parser/find", "pull takes a variable").at(form));
    }
    let pattern = match pattern {
        Value::Symbol(symbol) if is_variable(symbol) => PullSpec::Var(scope.var(symbol)),
        Value::Symbol(symbol) if symbol.text() == "*" => {
            PullSpec::Pattern(Pattern::parse(&Value::vector([pattern.clone()]))?)
        }
        pattern => PullSpec::Pattern(Pattern::parse(pattern)?),
    };
    Ok(FindElement::Pull { source, var: scope.var(var), pattern })
}

pub(super) fn collect_vars(element: &FindElement, into: &mut Vec<Var>) {
    match element {
        FindElement::Var(var) => into.push(*var),
        FindElement::Aggregate { callee, params, over, .. } => {
            if let Callee::Var(var) = callee {
                into.push(*var);
            }
            into.extend(params.iter().filter_map(|param| match param {
                Arg::Var(var) => Some(*var),
                _ => None,
            }));
            into.push(*over);
        }
        FindElement::Pull { var, pattern, .. } => {
            into.push(*var);
            if let PullSpec::Var(pattern) = pattern {
                into.push(*pattern);
            }
        }
    }
}
