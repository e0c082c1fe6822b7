//! From EDN to [`Ast`].

mod clauses;
mod find;

use datahike_value::{Symbol, Value};

use self::clauses::Scope;
pub(crate) use self::clauses::{check_calls, parse_rules};
use super::ast::{Ast, Conj, FindShape, In, Names, OrderKey};
use super::error::{QueryError, did_you_mean};
use super::vars::{Var, VarSet};

/// Patterns, `or`s and calls nested deeper than this are refused.
const DEPTH_MAX: usize = 64;

const SECTIONS: [&str; 10] =
    ["find", "with", "in", "where", "keys", "strs", "syms", "limit", "offset", "order-by"];

pub(crate) fn is_variable(symbol: &Symbol) -> bool {
    symbol.namespace().is_none() && symbol.name().starts_with('?') && symbol.name().len() > 1
}

pub(crate) fn is_source(symbol: &Symbol) -> bool {
    symbol.namespace().is_none() && symbol.name().starts_with('$')
}

/// The parts of a query under their keywords.
struct Sections {
    parts: Vec<(&'static str, Vec<Value>)>,
}

impl Sections {
    fn read(form: &Value) -> Result<Self, QueryError> {
        let mut sections = Self { parts: Vec::new() };
        match form {
            Value::Vector(items) | Value::List(items) => {
                let mut items = items.iter().peekable();
                while let Some(key) = items.next() {
                    let name = section_name(key, form)?;
                    let mut body = Vec::new();
                    while let Some(item) = items.next_if(|item| !is_section(item)) {
                        if item.as_keyword().is_some()
                            && !matches!(name, "order-by" | "keys" | "strs" | "syms")
                        {
                            section_name(item, form)?;
                        }
                        body.push(item.clone());
                    }
                    sections.add(name, body, form)?;
                }
            }
            Value::Map(map) => {
                for (key, value) in &**map {
                    let name = section_name(key, form)?;
                    let body = match (name, value) {
                        (_, Value::Nil) => continue,
                        ("limit" | "offset", value) => vec![value.clone()],
                        (_, Value::Vector(items) | Value::List(items)) => items.to_vec(),
                        (_, value) => vec![value.clone()],
                    };
                    sections.add(name, body, form)?;
                }
            }
            other => {
                return Err(QueryError::new(
                    "parser/query",
                    format!("a query is a vector, a map or their text, not {}", other.type_name()),
                )
                .at(form));
            }
        }
        Ok(sections)
    }

    fn add(
        &mut self,
        name: &'static str,
        body: Vec<Value>,
        form: &Value,
    ) -> Result<(), QueryError> {
        if self.get(name).is_some() {
            let message = format!("the query has two :{name} sections");
            return Err(QueryError::new("parser/query", message).at(form));
        }
        self.parts.push((name, body));
        Ok(())
    }

    fn get(&self, name: &str) -> Option<&[Value]> {
        self.parts.iter().find(|(part, _)| *part == name).map(|(_, body)| body.as_slice())
    }
}

fn is_section(value: &Value) -> bool {
    value.as_keyword().is_some_and(|k| k.namespace().is_none() && SECTIONS.contains(&k.name()))
}

fn section_name(key: &Value, form: &Value) -> Result<&'static str, QueryError> {
    let Some(keyword) = key.as_keyword() else {
        return Err(QueryError::new(
            "parser/query",
            format!("expected a keyword such as :find, found {key}"),
        )
        .at(form));
    };
    SECTIONS.into_iter().find(|name| *name == keyword.text()).ok_or_else(|| {
        QueryError::new("parser/query", format!("unknown section {keyword}")).at(key).hinting(
            did_you_mean(keyword.text(), SECTIONS).map(|hint| hint.replace("mean ", "mean :")),
        )
    })
}

/// Reads and checks a whole query.
pub(crate) fn parse_query(form: &Value) -> Result<Ast, QueryError> {
    let sections = Sections::read(form)?;
    let mut names = Names { vars: Vec::new(), sources: vec![Symbol::parse("$")] };
    let mut scope = Scope::new(&mut names);

    let find_form = sections
        .get("find")
        .filter(|find| !find.is_empty())
        .ok_or_else(|| QueryError::new("parser/find", "the query has no :find").at(form))?;
    // The variables of :in and :where come first, so that the names of :find can be checked.
    let mut inputs = Vec::new();
    match sections.get("in") {
        Some(items) => {
            for item in items {
                inputs.push(parse_input(item, &mut scope)?);
            }
        }
        None => inputs.push(In::Source(super::ast::DEFAULT_SOURCE)),
    }
    check_inputs(&inputs, form)?;
    let body = match sections.get("where") {
        Some(clauses) => scope.conj(clauses, 0)?,
        None => Conj::default(),
    };
    let (shape, find) = find::parse_find(find_form, &mut scope)?;
    let with = match sections.get("with") {
        Some(vars) => vars
            .iter()
            .map(|var| match var {
                Value::Symbol(symbol) if is_variable(symbol) => Ok(scope.var(symbol)),
                other => Err(QueryError::new("parser/with", ":with takes variables").at(other)),
            })
            .collect::<Result<Vec<Var>, _>>()?,
        None => Vec::new(),
    };
    let keys = parse_keys(&sections, shape, find.len(), form)?;
    let order_by = match sections.get("order-by") {
        Some(items) => parse_order(items, &mut scope)?,
        None => Vec::new(),
    };
    let limit = parse_count(&sections, "limit")?;
    let offset = parse_count(&sections, "offset")?.unwrap_or(0);

    let uses_rules = scope.uses_rules();
    let ast = Ast { names, shape, find, keys, with, inputs, body, order_by, limit, offset };
    check(&ast, uses_rules, form)?;
    Ok(ast)
}

/// An order given beside the query; it can name only what the query names.
pub(crate) fn parse_order_for(
    order: &Value,
    names: &mut Names,
) -> Result<Vec<(OrderKey, bool)>, QueryError> {
    let items = match order {
        Value::Nil => &[],
        Value::Vector(items) | Value::List(items) => &**items,
        single => std::slice::from_ref(single),
    };
    let known = names.vars.len();
    let mut scope = Scope::over(names);
    let keys = parse_order(items, &mut scope)?;
    if names.vars.len() > known {
        let name = names.vars[known].clone();
        names.vars.truncate(known);
        let hint = did_you_mean(name.text(), names.vars.iter().map(Symbol::text));
        return Err(QueryError::new("parser/query", format!(":order-by names unknown {name}"))
            .at(order)
            .hinting(hint));
    }
    Ok(keys)
}

fn parse_input(item: &Value, scope: &mut Scope<'_>) -> Result<In, QueryError> {
    match item {
        Value::Symbol(symbol) if is_source(symbol) => Ok(In::Source(scope.source(symbol))),
        Value::Symbol(symbol) if symbol.text() == "%" => Ok(In::Rules),
        Value::Symbol(symbol) if symbol.text() == "_" || is_variable(symbol) => {
            Ok(In::Binding(scope.binding(item, 0)?, item.clone()))
        }
        Value::Vector(_) => Ok(In::Binding(scope.binding(item, 0)?, item.clone())),
        other => Err(QueryError::new(
            "parser/in",
            "an input is a source ($ or $name), %, a variable, or a binding form",
        )
        .at(other)),
    }
}

fn check_inputs(inputs: &[In], form: &Value) -> Result<(), QueryError> {
    let mut seen = Vec::new();
    let mut rules = 0;
    let mut vars = Vec::new();
    for input in inputs {
        match input {
            In::Source(source) => {
                if seen.contains(source) {
                    return Err(QueryError::new("parser/in", ":in names a source twice").at(form));
                }
                seen.push(*source);
            }
            In::Rules => rules += 1,
            In::Binding(binding, item) => {
                let mut bound = Vec::new();
                binding.collect(&mut bound);
                if bound.iter().any(|var| vars.contains(var)) {
                    let message = ":in binds a variable twice";
                    return Err(QueryError::new("parser/in", message).at(item));
                }
                vars.extend(bound);
            }
        }
    }
    if rules > 1 {
        return Err(QueryError::new("parser/in", ":in names % twice").at(form));
    }
    Ok(())
}

fn parse_keys(
    sections: &Sections,
    shape: FindShape,
    width: usize,
    form: &Value,
) -> Result<Option<Vec<Value>>, QueryError> {
    let mut found: Option<Vec<Value>> = None;
    for name in ["keys", "strs", "syms"] {
        let Some(items) = sections.get(name) else { continue };
        let error = |message: String| QueryError::new("parser/query", message).at(form);
        if found.is_some() {
            return Err(error("only one of :keys, :strs and :syms may be given".into()));
        }
        if matches!(shape, FindShape::Collection | FindShape::Scalar) {
            return Err(error(format!(":{name} needs a :find that returns rows or one tuple")));
        }
        if items.len() != width {
            return Err(error(format!(
                ":{name} has {} names for {width} elements of :find",
                items.len()
            )));
        }
        let keys = items
            .iter()
            .map(|item| match item {
                Value::Symbol(symbol) => Ok(match name {
                    "keys" => Value::keyword(symbol.text()),
                    "strs" => Value::str(symbol.text()),
                    _ => item.clone(),
                }),
                Value::Keyword(keyword) => Ok(match name {
                    "keys" => item.clone(),
                    "strs" => Value::str(keyword.text()),
                    _ => Value::symbol(keyword.text()),
                }),
                other => Err(error(format!(":{name} takes symbols, not {other}"))),
            })
            .collect::<Result<_, _>>()?;
        found = Some(keys);
    }
    Ok(found)
}

/// `[?a :asc ?b :desc]`, `[?a ?b]`, with column numbers (from 0) in place of variables.
fn parse_order(
    items: &[Value],
    scope: &mut Scope<'_>,
) -> Result<Vec<(OrderKey, bool)>, QueryError> {
    let mut order: Vec<(OrderKey, bool)> = Vec::new();
    let mut direction_allowed = false;
    for item in items {
        match item {
            Value::Symbol(symbol) if is_variable(symbol) => {
                order.push((OrderKey::Var(scope.var(symbol)), false));
                direction_allowed = true;
            }
            Value::Long(column) if *column >= 0 => {
                order.push((OrderKey::Column(*column as usize), false));
                direction_allowed = true;
            }
            Value::Keyword(keyword)
                if direction_allowed && matches!(keyword.text(), "asc" | "desc") =>
            {
                if let Some(last) = order.last_mut() {
                    last.1 = keyword.text() == "desc";
                }
                direction_allowed = false;
            }
            Value::Vector(inner) => {
                order.extend(parse_order(inner, scope)?);
                direction_allowed = false;
            }
            other => {
                return Err(QueryError::new(
                    "parser/query",
                    ":order-by takes variables or column numbers, each with :asc or :desc",
                )
                .at(other));
            }
        }
    }
    Ok(order)
}

/// A section that holds one number; negative and nil mean that it is not there.
fn parse_count(sections: &Sections, name: &'static str) -> Result<Option<usize>, QueryError> {
    match sections.get(name) {
        None | Some([Value::Nil]) => Ok(None),
        Some([Value::Long(n)]) => Ok(usize::try_from(*n).ok()),
        Some(items) => Err(QueryError::new("parser/query", format!(":{name} takes one integer"))
            .at(&Value::vector(items.to_vec()))),
    }
}

/// What can be told about a query without its inputs.
fn check(ast: &Ast, uses_rules: bool, form: &Value) -> Result<(), QueryError> {
    let error = |message: String| QueryError::new("parser/query", message).at(form);
    let mut known: VarSet = ast.body.mentions();
    let mut declared_rules = false;
    let mut sources = Vec::new();
    for input in &ast.inputs {
        match input {
            In::Binding(binding, _) => {
                let mut vars = Vec::new();
                binding.collect(&mut vars);
                known.extend(vars);
            }
            In::Rules => declared_rules = true,
            In::Source(source) => sources.push(*source),
        }
    }
    let mut wanted: Vec<Var> = ast.with.clone();
    let mut found = Vec::new();
    for element in &ast.find {
        find::collect_vars(element, &mut found);
    }
    if let Some(both) = ast.with.iter().find(|var| found.contains(var)) {
        let name = &ast.names.vars[both.0 as usize];
        return Err(error(format!("{name} stands in :find and in :with")));
    }
    wanted.extend(found);
    wanted.extend(ast.order_by.iter().filter_map(|(key, _)| match key {
        OrderKey::Var(var) => Some(*var),
        OrderKey::Column(_) => None,
    }));
    for var in wanted {
        if !known.contains(var) {
            let name = ast.names.vars[var.0 as usize].text();
            let names = known.iter().map(|var| ast.names.vars[var.0 as usize].text());
            return Err(error(format!("{name} is bound neither by :where nor by :in"))
                .hinting(did_you_mean(name, names)));
        }
    }
    for (key, _) in &ast.order_by {
        if let OrderKey::Column(column) = key
            && *column >= ast.find.len()
        {
            return Err(error(format!(
                ":order-by names column {column}, :find has {} (counted from 0)",
                ast.find.len()
            )));
        }
    }
    if uses_rules && !declared_rules {
        return Err(error("the query calls rules, but :in has no %".into()));
    }
    for (place, name) in ast.names.sources.iter().enumerate().skip(1) {
        if !sources.iter().any(|source| source.0 == place) {
            return Err(error(format!("the query uses {name}, but :in does not name it")).hinting(
                did_you_mean(
                    name.text(),
                    sources.iter().map(|source| ast.names.sources[source.0].text()),
                ),
            ));
        }
    }
    Ok(())
}
