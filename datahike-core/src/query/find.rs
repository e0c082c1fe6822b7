//! From the rows of a query to what the caller asked for.

use std::cmp::Ordering;

use datahike_value::Value;
use hashbrown::HashMap;

use super::aggregate;
use super::ast::{Arg, Ast, Callee, FindElement, FindShape, OrderKey, PullSpec};
use super::error::{QueryError, did_you_mean};
use super::functions::less;
use super::relation::{Cell, Relation};
use super::run::{Env, Run};
use super::source::Source;
use super::vars::{Var, VarSet};
use crate::pull::{Pattern, Puller};

/// What a query returns, by the shape of its `:find`.
#[derive(Clone, Debug, PartialEq)]
pub enum QueryResult {
    /// `:find ?a ?b`
    Relation(Rows),
    /// `:find [?a ...]`
    Collection(Vec<Value>),
    /// `:find [?a ?b]`; `None` if there is no row.
    Tuple(Option<Vec<Value>>),
    /// `:find ?a .`; `None` if there is no row.
    Scalar(Option<Value>),
    /// With `:keys`, `:strs` or `:syms`: one map a row.
    Maps(Vec<Value>),
    /// The same with `:find [?a ?b]`.
    Map(Option<Value>),
}

/// Rows of equal width, one after the other in one allocation.
#[derive(Clone, Debug, PartialEq)]
pub struct Rows {
    width: usize,
    values: Vec<Value>,
    is_set: bool,
}

impl Rows {
    /// How many rows.
    pub fn len(&self) -> usize {
        self.values.len() / self.width
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Values in a row.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Whether the order means nothing and no row occurs twice. Rows with aggregates or pulls, and
    /// rows in an order that was asked for, are a list.
    pub fn is_set(&self) -> bool {
        self.is_set
    }

    /// The rows.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[Value]> + DoubleEndedIterator {
        self.values.chunks_exact(self.width)
    }

    /// One row.
    pub fn get(&self, row: usize) -> Option<&[Value]> {
        self.values.get(row * self.width..(row + 1) * self.width)
    }
}

impl QueryResult {
    /// As EDN: a set or vector of vectors, a vector, one value, or maps.
    pub fn into_value(self) -> Value {
        match self {
            Self::Relation(rows) => {
                let all = rows.iter().map(|row| Value::vector(row.to_vec()));
                if rows.is_set { Value::set(all) } else { Value::vector(all) }
            }
            Self::Collection(values) => Value::vector(values),
            Self::Tuple(row) => row.map(Value::vector).unwrap_or_default(),
            Self::Scalar(value) => value.unwrap_or_default(),
            Self::Maps(maps) => Value::vector(maps),
            Self::Map(map) => map.unwrap_or_default(),
        }
    }

    /// Rows, or values of a collection; 0 or 1 for a tuple, scalar or map.
    pub fn len(&self) -> usize {
        match self {
            Self::Relation(rows) => rows.len(),
            Self::Collection(values) | Self::Maps(values) => values.len(),
            Self::Tuple(row) => usize::from(row.is_some()),
            Self::Scalar(value) | Self::Map(value) => usize::from(value.is_some()),
        }
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The rows of a relation.
    pub fn rows(&self) -> Option<&Rows> {
        match self {
            Self::Relation(rows) => Some(rows),
            _ => None,
        }
    }
}

/// Variables that the result is made from, in the order in which rows are told apart.
pub(crate) fn wanted(ast: &Ast) -> Vec<Var> {
    let mut vars = Vec::new();
    let mut add = |var: Var| {
        if !vars.contains(&var) {
            vars.push(var);
        }
    };
    for element in &ast.find {
        match element {
            FindElement::Var(var) => add(*var),
            FindElement::Aggregate { callee, params, over, .. } => {
                add(*over);
                if let Callee::Var(var) = callee {
                    add(*var);
                }
                for param in params {
                    if let Arg::Var(var) = param {
                        add(*var);
                    }
                }
            }
            FindElement::Pull { var, pattern, .. } => {
                add(*var);
                if let PullSpec::Var(pattern) = pattern {
                    add(*pattern);
                }
            }
        }
    }
    ast.with.iter().for_each(|var| add(*var));
    vars
}

impl Run<'_> {
    /// Shapes the rows that satisfy the query.
    pub(crate) fn find(
        &mut self,
        env: Env<'_>,
        ast: &Ast,
        found: Relation,
    ) -> Result<QueryResult, QueryError> {
        let vars = wanted(ast);
        let mut rows = if found.len == 0 {
            Relation::empty(vars)
        } else {
            check_bound(env, &found.set(), &vars)?;
            found.project(&vars)
        };
        rows.dedup();
        let has_aggregates =
            ast.find.iter().any(|element| matches!(element, FindElement::Aggregate { .. }));
        let has_pulls = ast.find.iter().any(|element| matches!(element, FindElement::Pull { .. }));
        let width = ast.find.len();
        let mut values: Vec<Value> = if has_aggregates {
            self.aggregated(env, ast, &rows)?
        } else {
            // :with tells rows apart, but a set cannot hold a row twice.
            if !ast.with.is_empty() {
                let shown: VarSet = ast.find.iter().filter_map(element_var).collect();
                rows.keep_vars(&shown);
            }
            if ast.order_by.is_empty() {
                self.page(ast, &mut rows);
            }
            self.plain(env, ast, &rows)?
        };
        self.meter.work(values.len())?;
        if !ast.order_by.is_empty() {
            values = sorted(ast, values, width)?;
        }
        if has_aggregates || !ast.order_by.is_empty() {
            let from = (ast.offset.saturating_mul(width)).min(values.len());
            values.drain(..from);
            values.truncate(ast.limit.unwrap_or(usize::MAX).saturating_mul(width));
        }
        let is_set =
            !has_aggregates && !has_pulls && ast.order_by.is_empty() && ast.with.is_empty();
        Ok(shaped(ast, values, width, is_set))
    }

    fn page(&self, ast: &Ast, rows: &mut Relation) {
        let limit = match ast.shape {
            FindShape::Scalar | FindShape::Tuple => Some(1),
            _ => ast.limit,
        };
        if ast.offset == 0 && limit.is_none_or(|limit| limit >= rows.len) {
            return;
        }
        let keep: Vec<bool> = (0..rows.len)
            .map(|row| row >= ast.offset && limit.is_none_or(|limit| row - ast.offset < limit))
            .collect();
        rows.retain(&keep);
    }

    fn plain(
        &mut self,
        env: Env<'_>,
        ast: &Ast,
        rows: &Relation,
    ) -> Result<Vec<Value>, QueryError> {
        let width = ast.find.len();
        let mut values: Vec<Value> = vec![Value::Nil; rows.len * width];
        for (place, element) in ast.find.iter().enumerate() {
            let Some(col) = element_var(element).and_then(|var| rows.col(var)) else { continue };
            match element {
                FindElement::Pull { pattern, .. } => {
                    let pulled = self.pulled(env, element, pattern, col, rows)?;
                    for (row, value) in pulled.into_iter().enumerate() {
                        values[row * width + place] = value;
                    }
                }
                _ => {
                    for (row, cell) in col.iter().enumerate() {
                        values[row * width + place] = self.dict.value(*cell);
                    }
                }
            }
        }
        Ok(values)
    }

    fn pulled(
        &mut self,
        env: Env<'_>,
        element: &FindElement,
        spec: &PullSpec,
        col: &[Cell],
        rows: &Relation,
    ) -> Result<Vec<Value>, QueryError> {
        let FindElement::Pull { source, .. } = element else { return Ok(Vec::new()) };
        let place = self.source(env, *source)?;
        let Source::Db(db) = &self.sources[place].1 else {
            return Err(QueryError::new("query/where", "pull takes a database, not a collection"));
        };
        let given = match spec {
            PullSpec::Var(var) => rows.col(*var),
            PullSpec::Pattern(_) => None,
        };
        let mut parsed: HashMap<Cell, Pattern> = HashMap::new();
        let mut missing = Vec::new();
        let mut pulled = Vec::with_capacity(col.len());
        let mut puller = Puller::within(db, self.meter.budget(), self.functions)?;
        for (row, cell) in col.iter().enumerate() {
            let pattern = match (spec, given) {
                (PullSpec::Pattern(pattern), _) => pattern,
                (PullSpec::Var(_), Some(given)) => {
                    let cell = given[row];
                    if !parsed.contains_key(&cell) {
                        parsed.insert(cell, Pattern::parse(&self.dict.value(cell))?);
                    }
                    &parsed[&cell]
                }
                (PullSpec::Var(_), None) => continue,
            };
            match puller.named(pattern, &self.dict.value(*cell)) {
                Ok(value) => pulled.push(value),
                Err(QueryError::Missing(fault)) => missing.extend(fault.addresses),
                Err(error) => return Err(error),
            }
        }
        if missing.is_empty() {
            return Ok(pulled);
        }
        missing.sort_unstable();
        missing.dedup();
        Err(crate::block::Missing { addresses: missing }.into())
    }

    /// Groups rows by all elements that are no aggregates.
    fn aggregated(
        &mut self,
        env: Env<'_>,
        ast: &Ast,
        rows: &Relation,
    ) -> Result<Vec<Value>, QueryError> {
        let mut keys: Vec<Var> = Vec::new();
        for element in &ast.find {
            if let FindElement::Pull { pattern: PullSpec::Var(var), .. } = element {
                keys.push(*var);
            }
            if !matches!(element, FindElement::Aggregate { .. }) {
                keys.extend(element_var(element));
            }
        }
        let key_cols = rows.key_columns(&keys);
        let mut groups: Vec<Vec<u32>> = Vec::new();
        if key_cols.is_empty() {
            if rows.len > 0 {
                groups.push((0..rows.len as u32).collect());
            }
        } else {
            let mut places: HashMap<Vec<Cell>, usize> = HashMap::new();
            let mut key: Vec<Cell> = Vec::with_capacity(keys.len());
            for row in 0..rows.len {
                key.clear();
                key.extend(key_cols.iter().map(|col| col[row]));
                match places.get(&key) {
                    Some(group) => groups[*group].push(row as u32),
                    None => {
                        places.insert(key.clone(), groups.len());
                        groups.push(vec![row as u32]);
                    }
                }
            }
        }
        let width = ast.find.len();
        let first: Vec<u32> = groups.iter().filter_map(|group| group.first().copied()).collect();
        let heads = rows.gather(&first);
        let mut values = vec![Value::Nil; groups.len() * width];
        for (place, element) in ast.find.iter().enumerate() {
            match element {
                FindElement::Var(_) | FindElement::Pull { .. } => {
                    let Some(col) = element_var(element).and_then(|var| heads.col(var)) else {
                        continue;
                    };
                    let shown: Vec<Value> = match element {
                        FindElement::Pull { pattern, .. } => {
                            self.pulled(env, element, pattern, col, &heads)?
                        }
                        _ => col.iter().map(|cell| self.dict.value(*cell)).collect(),
                    };
                    for (row, value) in shown.into_iter().enumerate() {
                        values[row * width + place] = value;
                    }
                }
                FindElement::Aggregate { callee, params, over, form } => {
                    let Some(col) = rows.col(*over) else { continue };
                    let mut group_values = Vec::new();
                    for (at, group) in groups.iter().enumerate() {
                        if let (Callee::Name(name), true) = (callee, params.is_empty())
                            && name.text() == "count"
                            && self.functions.named_aggregate(name).is_none()
                        {
                            values[at * width + place] = Value::Long(group.len() as i64);
                            continue;
                        }
                        group_values.clear();
                        group_values
                            .extend(group.iter().map(|row| self.dict.value(col[*row as usize])));
                        let head = group.first().map_or(0, |row| *row as usize);
                        let value = self
                            .aggregate(callee, params, &group_values, rows, head)
                            .map_err(|error| error.at(form))?;
                        values[at * width + place] = value;
                        self.meter.work(group.len())?;
                    }
                }
            }
        }
        Ok(values)
    }

    fn aggregate(
        &mut self,
        callee: &Callee,
        params: &[Arg],
        values: &[Value],
        rows: &Relation,
        row: usize,
    ) -> Result<Value, QueryError> {
        let params: Vec<Value> = params
            .iter()
            .map(|param| match param {
                Arg::Var(var) => rows.col(*var).map_or(Value::Nil, |c| self.dict.value(c[row])),
                Arg::Const(value) => value.clone(),
                Arg::Source(_) | Arg::Rules => Value::Nil,
            })
            .collect();
        let name = match callee {
            Callee::Name(name) => name.clone(),
            Callee::Var(var) => match rows.col(*var).map(|col| self.dict.value(col[row])) {
                Some(Value::Symbol(name)) => name,
                other => {
                    let shown = other.unwrap_or_default();
                    let message = format!("{shown} is no aggregate: pass a function or its name");
                    return Err(QueryError::new("query/find", message));
                }
            },
        };
        let failed = |message: String| QueryError::new("query/find", format!("{name}: {message}"));
        let host = self.passed.get(&name).or_else(|| self.functions.named_aggregate(&name));
        if let Some(host) = host {
            let mut args = params;
            args.push(Value::vector(values.to_vec()));
            return host(&args).map_err(failed);
        }
        match aggregate::builtin(name.text(), &params, values, &mut self.random) {
            Some(result) => result.map_err(failed),
            None => match super::functions::builtin(name.text()) {
                Some(function) => {
                    let mut args = params;
                    args.push(Value::vector(values.to_vec()));
                    function(&args).map_err(failed)
                }
                None => Err(QueryError::new("query/find", format!("unknown aggregate {name}"))
                    .hinting(did_you_mean(name.text(), aggregate::NAMES))),
            },
        }
    }
}

fn check_bound(env: Env<'_>, bound: &VarSet, vars: &[Var]) -> Result<(), QueryError> {
    match vars.iter().find(|var| !bound.contains(**var)) {
        None => Ok(()),
        Some(open) => Err(QueryError::new(
            "query/where",
            format!("insufficient bindings: nothing binds {}", env.var_name(*open)),
        )),
    }
}

fn element_var(element: &FindElement) -> Option<Var> {
    match element {
        FindElement::Var(var) | FindElement::Pull { var, .. } => Some(*var),
        FindElement::Aggregate { .. } => None,
    }
}

fn sorted(ast: &Ast, values: Vec<Value>, width: usize) -> Result<Vec<Value>, QueryError> {
    let mut keys = Vec::new();
    for (key, descending) in &ast.order_by {
        let column = match key {
            OrderKey::Column(column) => *column,
            OrderKey::Var(var) => ast
                .find
                .iter()
                .position(|element| match element {
                    FindElement::Aggregate { over, .. } => over == var,
                    element => element_var(element) == Some(*var),
                })
                .ok_or_else(|| {
                    let name = &ast.names.vars[var.0 as usize];
                    QueryError::new("parser/query", format!(":order-by {name} is not in :find"))
                })?,
        };
        keys.push((column, *descending));
    }
    let mut rows: Vec<&[Value]> = values.chunks_exact(width).collect();
    rows.sort_by(|a, b| {
        keys.iter().fold(Ordering::Equal, |order, (column, descending)| {
            order.then_with(|| {
                let order = less(&a[*column], &b[*column]);
                if *descending { order.reverse() } else { order }
            })
        })
    });
    Ok(rows.concat())
}

fn shaped(ast: &Ast, values: Vec<Value>, width: usize, is_set: bool) -> QueryResult {
    if let Some(keys) = &ast.keys {
        let maps: Vec<Value> = values
            .chunks_exact(width)
            .map(|row| Value::map(keys.iter().cloned().zip(row.iter().cloned())))
            .collect();
        return match ast.shape {
            FindShape::Tuple => QueryResult::Map(maps.into_iter().next()),
            _ => QueryResult::Maps(maps),
        };
    }
    match ast.shape {
        FindShape::Relation => QueryResult::Relation(Rows { width, values, is_set }),
        FindShape::Collection => QueryResult::Collection(values),
        FindShape::Tuple => {
            QueryResult::Tuple((!values.is_empty()).then(|| values[..width].to_vec()))
        }
        FindShape::Scalar => QueryResult::Scalar(values.into_iter().next()),
    }
}
