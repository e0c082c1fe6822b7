//! Predicates and functions over the rows of a relation.

use datahike_value::{Symbol, Value, compare_numbers};

use super::super::ast::{Arg, Binding, Call, Callee};
use super::super::error::QueryError;
use super::super::functions::{self, Builtin, HostFn, collections::items};
use super::super::relation::{Cell, Relation, inlined};
use super::super::source::{Comparison, Source};
use super::super::vars::Var;
use super::{Env, Operand, Run};
use crate::db::Db;
use crate::index::Range;

/// Queries inside queries may nest this deep.
const NESTING_MAX: usize = 16;

/// What a name stands for.
enum Function {
    Builtin(Builtin),
    Host(HostFn),
    Special(&'static str),
}

impl Run<'_> {
    /// Whether each row satisfies a predicate.
    pub(super) fn predicate(
        &mut self,
        env: Env<'_>,
        call: &Call,
        left: &Relation,
    ) -> Result<Vec<bool>, QueryError> {
        if let Some(keep) = self.comparison(call, left)? {
            return Ok(keep);
        }
        let mut keep = Vec::with_capacity(left.len);
        self.each(env, call, left, |_, _, value| {
            keep.push(value.is_truthy());
            Ok(())
        })?;
        Ok(keep)
    }

    /// Comparisons of two arguments, without making values of cells that are numbers.
    fn comparison(
        &mut self,
        call: &Call,
        left: &Relation,
    ) -> Result<Option<Vec<bool>>, QueryError> {
        let (Callee::Name(name), [first, second]) = (&call.callee, call.args.as_slice()) else {
            return Ok(None);
        };
        let Some(comparison) = Comparison::of(name.text()) else { return Ok(None) };
        if self.functions.named(name).is_some() {
            return Ok(None);
        }
        let Some(slow) = functions::builtin(name.text()) else { return Ok(None) };
        let dict = &mut self.dict;
        let mut cell = |arg: &Arg| match arg {
            Arg::Const(value) => Some(dict.cell(value)),
            _ => None,
        };
        let (fixed_a, fixed_b) = (cell(first), cell(second));
        let col = |arg: &Arg| match arg {
            Arg::Var(var) => left.col(*var),
            _ => None,
        };
        let (col_a, col_b) = (col(first), col(second));
        if (fixed_a.is_none() && col_a.is_none()) || (fixed_b.is_none() && col_b.is_none()) {
            return Ok(None);
        }
        let mut keep = Vec::with_capacity(left.len);
        for row in 0..left.len {
            let a = fixed_a.or(col_a.map(|col| col[row])).unwrap_or_default();
            let b = fixed_b.or(col_b.map(|col| col[row])).unwrap_or_default();
            keep.push(match (inlined(a), inlined(b)) {
                (Some(a), Some(b)) => comparison.holds(a.cmp(&b)),
                _ if a == b && comparison == Comparison::Equal => true,
                _ => {
                    let args = [self.dict.value(a), self.dict.value(b)];
                    match (comparison, &args) {
                        (Comparison::Equal, [a, b]) => functions::equal(a, b),
                        (Comparison::Differs, [a, b]) => !functions::equal(a, b),
                        (_, [Value::Str(a), Value::Str(b)]) => comparison.holds(a.cmp(b)),
                        (_, [a, b]) => match compare_numbers(a, b) {
                            Some(order) => comparison.holds(order),
                            None => {
                                slow(&args).map_err(|message| failed(name, message))?.is_truthy()
                            }
                        },
                    }
                }
            });
        }
        self.meter.work(left.len)?;
        Ok(Some(keep))
    }

    /// Calls a function for each row and binds what it returns.
    pub(super) fn function(
        &mut self,
        env: Env<'_>,
        call: &Call,
        binding: &Binding,
        left: Relation,
    ) -> Result<Relation, QueryError> {
        let mut vars = Vec::new();
        binding.collect(&mut vars);
        let mut from: Vec<u32> = Vec::new();
        let mut cols: Vec<Vec<Cell>> = vec![Vec::new(); vars.len()];
        let bound: Vec<Option<&[Cell]>> = vars.iter().map(|var| left.col(*var)).collect();
        self.each(env, call, &left, |run, row, value| {
            if value.is_nil() {
                return Ok(());
            }
            let mut rows = Vec::new();
            destructure(binding, &value, &vars, &mut rows)?;
            for values in rows {
                let cells: Vec<Cell> = values.iter().map(|value| run.dict.cell(value)).collect();
                let agrees = bound
                    .iter()
                    .zip(&cells)
                    .all(|(bound, cell)| bound.is_none_or(|col| col[row] == *cell));
                if agrees {
                    from.push(row as u32);
                    for (col, cell) in cols.iter_mut().zip(cells) {
                        col.push(cell);
                    }
                }
            }
            run.meter.rows(from.len())?;
            Ok(())
        })?;
        let known: Vec<bool> = bound.iter().map(Option::is_some).collect();
        let mut result = left.gather(&from);
        // A collection may hold a value twice.
        result.distinct &= matches!(binding, Binding::Var(_) | Binding::Ignore);
        for ((var, col), known) in vars.into_iter().zip(cols).zip(known) {
            if !known {
                result.vars.push(var);
                result.cols.push(col);
            }
        }
        Ok(result)
    }

    /// Evaluates a call for every row, or once if it does not depend on the row.
    fn each(
        &mut self,
        env: Env<'_>,
        call: &Call,
        left: &Relation,
        mut each: impl FnMut(&mut Self, usize, Value) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let operands: Vec<Operand<'_>> = call
            .args
            .iter()
            .map(|arg| match arg {
                Arg::Var(var) => match left.col(*var) {
                    Some(col) => Operand::Column(col),
                    None => Operand::Constant(Value::Nil),
                },
                Arg::Const(value) => Operand::Constant(value.clone()),
                Arg::Source(_) | Arg::Rules => Operand::Constant(Value::Nil),
            })
            .collect();
        let callee_col = match &call.callee {
            Callee::Var(var) => left.col(*var),
            Callee::Name(_) => None,
        };
        let mut named = match &call.callee {
            Callee::Name(name) => Some((name.clone(), self.find_function(name)?)),
            Callee::Var(_) => None,
        };
        let mut args: Vec<Value> = vec![Value::Nil; operands.len()];
        let mut callee_cell = None;
        for row in 0..left.len {
            if let Some(col) = callee_col
                && callee_cell != Some(col[row])
            {
                let value = self.dict.value(col[row]);
                let Value::Symbol(name) = value else {
                    return Err(QueryError::new(
                        "query/where",
                        format!("{value} is no function: pass a function or a function's name"),
                    ));
                };
                let function = self.find_function(&name)?;
                named = Some((name, function));
                callee_cell = Some(col[row]);
            }
            for (arg, operand) in args.iter_mut().zip(&operands) {
                match operand {
                    Operand::Column(col) => *arg = self.dict.value(col[row]),
                    Operand::Constant(value) if row == 0 => *arg = value.clone(),
                    Operand::Constant(_) => {}
                }
            }
            let Some((name, function)) = &named else { break };
            let value = match function {
                Function::Builtin(function) => {
                    function(&args).map_err(|message| failed(name, message))?
                }
                Function::Host(function) => {
                    function(&args).map_err(|message| failed(name, message))?
                }
                Function::Special(special) => self.special(env, special, call, &args)?,
            };
            self.meter.work(2)?;
            each(self, row, value)?;
        }
        Ok(())
    }

    fn find_function(&self, name: &Symbol) -> Result<Function, QueryError> {
        if let Some(function) = self.passed.get(name).or_else(|| self.functions.named(name)) {
            return Ok(Function::Host(function.clone()));
        }
        if let Some(special) = functions::SPECIAL.iter().find(|special| **special == name.text()) {
            return Ok(Function::Special(special));
        }
        functions::builtin(name.text())
            .map(Function::Builtin)
            .ok_or_else(|| functions::unknown_function(name, self.functions))
    }

    /// Whether the function of a call is known, before anything runs.
    pub(super) fn check_callee(&self, call: &Call) -> Result<(), QueryError> {
        let Callee::Name(name) = &call.callee else { return Ok(()) };
        self.find_function(name).map_err(|error| error.at(&call.form))?;
        if name.text() == "get-else" && matches!(call.args.get(3), Some(Arg::Const(Value::Nil))) {
            return Err(QueryError::new("query/where", "get-else: nil is no default")
                .at(&call.form)
                .hinting(Some("use missing? to ask for what is not there".into())));
        }
        Ok(())
    }

    fn special(
        &mut self,
        env: Env<'_>,
        special: &'static str,
        call: &Call,
        args: &[Value],
    ) -> Result<Value, QueryError> {
        let error = |message: &str| QueryError::new("query/where", format!("{special} {message}"));
        let one = || args.first().filter(|_| args.len() == 1).cloned();
        match special {
            "ground" => one().ok_or_else(|| error("takes one argument")),
            "rand" => match args {
                [] => Ok(Value::Double(self.random.unit())),
                [n] => {
                    let n = n.to_f64().ok_or_else(|| error("takes a number"))?;
                    Ok(Value::Double(self.random.unit() * n))
                }
                _ => Err(error("takes at most one argument")),
            },
            "rand-int" => {
                let n = one().and_then(|n| n.as_long()).and_then(|n| usize::try_from(n).ok());
                let n = n.ok_or_else(|| error("takes one positive integer"))?;
                Ok(Value::Long(self.random.below(n) as i64))
            }
            "q" => self.nested(env, call, args),
            _ => {
                let Some(Arg::Source(source)) = call.args.first() else {
                    return Err(error("takes a database as its first argument, such as $"));
                };
                let place = self.source(env, *source)?;
                let Source::Db(db) = &self.sources[place].1 else {
                    return Err(error("takes a database, not a collection"));
                };
                let db = db.clone();
                self.lookup(&db, special, args, &error)
            }
        }
    }

    fn lookup(
        &mut self,
        db: &Db,
        special: &str,
        args: &[Value],
        error: &dyn Fn(&str) -> QueryError,
    ) -> Result<Value, QueryError> {
        let Some(entity) = args.get(1) else { return Err(error("takes an entity")) };
        let e = db.entid(entity)?;
        match (special, args) {
            ("get-else", [_, _, attribute, default]) => {
                if default.is_nil() {
                    return Err(error("takes a default other than nil"));
                }
                Ok(first_value(db, e, attribute)?.unwrap_or_else(|| default.clone()))
            }
            ("get-some", [_, _, attributes @ ..]) if !attributes.is_empty() => {
                for attribute in attributes {
                    if let Some(value) = first_value(db, e, attribute)? {
                        return Ok(Value::vector([attribute.clone(), value]));
                    }
                }
                Ok(Value::Nil)
            }
            ("missing?", [_, _, attribute]) => {
                Ok(Value::Bool(first_value(db, e, attribute)?.is_none()))
            }
            ("get-else", _) => Err(error("takes ($ ?entity attribute default)")),
            ("get-some", _) => Err(error("takes ($ ?entity attribute attribute …)")),
            _ => Err(error("takes ($ ?entity attribute)")),
        }
    }

    /// A query inside the query: `(q [:find …] $ ?x)`.
    fn nested(&mut self, env: Env<'_>, call: &Call, args: &[Value]) -> Result<Value, QueryError> {
        if self.nesting >= NESTING_MAX {
            let message = format!("queries are nested deeper than {NESTING_MAX}");
            return Err(QueryError::new("query/where", message));
        }
        let Some(form) = args.first() else {
            return Err(QueryError::new("query/where", "q takes a query and its inputs"));
        };
        let form = match form.as_slice() {
            Some([Value::Symbol(quote), quoted]) if quote.text() == "quote" => quoted,
            _ => form,
        };
        let query = super::super::Query::from_value(form)?;
        let mut inputs = Vec::new();
        for (arg, value) in call.args.iter().zip(args).skip(1) {
            inputs.push(match arg {
                Arg::Source(source) => {
                    let place = self.source(env, *source)?;
                    match &self.sources[place].1 {
                        Source::Db(db) => super::super::Input::Db(db.clone()),
                        Source::Rows(_) => {
                            let message = "q takes databases; pass a collection as a value";
                            return Err(QueryError::new("query/where", message));
                        }
                    }
                }
                Arg::Rules => super::super::Input::Rules(self.rules.rules().clone()),
                _ => super::super::Input::Value(value.clone()),
            });
        }
        if inputs.is_empty()
            && let Some(place) = env.default
            && let Source::Db(db) = &self.sources[place].1
        {
            inputs.push(super::super::Input::Db(db.clone()));
        }
        let context = super::super::Context {
            budget: self.meter.budget().clone(),
            seed: self.random.next(),
            functions: std::sync::Arc::new(self.functions.clone()),
            strict: false,
        };
        super::super::evaluate(&query, &inputs, &context, self.nesting + 1)
            .map(super::super::QueryResult::into_value)
    }
}

fn first_value(db: &Db, e: Option<u64>, attribute: &Value) -> Result<Option<Value>, QueryError> {
    let (Some(e), Some(a)) = (e, db.attr_of(attribute)) else { return Ok(None) };
    let found = db.scan(&Range::aevt(a, e)).next().transpose()?;
    Ok(found.map(|datom| datom.v))
}

fn failed(name: &Symbol, message: String) -> QueryError {
    QueryError::new("query/where", format!("{name}: {message}"))
}

/// Takes a value apart: one row of values in the order of `vars` for each way in which it fits.
pub(crate) fn destructure(
    binding: &Binding,
    value: &Value,
    vars: &[Var],
    into: &mut Vec<Vec<Value>>,
) -> Result<(), QueryError> {
    if let (Binding::Var(_), [_]) = (binding, vars) {
        into.push(vec![value.clone()]);
        return Ok(());
    }
    let mut rows: Vec<Vec<Option<Value>>> = vec![vec![None; vars.len()]];
    take_apart(binding, value, vars, &mut rows)?;
    into.extend(
        rows.into_iter()
            .map(|row| row.into_iter().map(Option::unwrap_or_default).collect::<Vec<_>>()),
    );
    Ok(())
}

/// Extends each row by what `binding` finds in `value`; drops the rows that disagree.
fn take_apart(
    binding: &Binding,
    value: &Value,
    vars: &[Var],
    rows: &mut Vec<Vec<Option<Value>>>,
) -> Result<(), QueryError> {
    match binding {
        Binding::Ignore => Ok(()),
        Binding::Var(var) => {
            let Some(place) = vars.iter().position(|v| v == var) else { return Ok(()) };
            rows.retain_mut(|row| match &row[place] {
                Some(known) => known == value,
                None => {
                    row[place] = Some(value.clone());
                    true
                }
            });
            Ok(())
        }
        Binding::Tuple(parts) => {
            let Some(items) = sequence(value) else {
                let message = format!("cannot bind {value} to a tuple of {}", parts.len());
                return Err(QueryError::new("query/binding", message));
            };
            if items.len() < parts.len() {
                return Err(QueryError::new(
                    "query/binding",
                    format!("cannot bind {value} to a tuple of {}: it is too short", parts.len()),
                ));
            }
            parts.iter().zip(&items).try_for_each(|(part, item)| take_apart(part, item, vars, rows))
        }
        Binding::Collection(inner) => {
            let found = match value {
                Value::Str(_) => None,
                value => items(value).ok(),
            };
            let Some(found) = found else {
                let message = format!("cannot bind {value} to a collection");
                return Err(QueryError::new("query/binding", message));
            };
            let mut all = Vec::new();
            for item in &found {
                let mut copy = rows.clone();
                take_apart(inner, item, vars, &mut copy)?;
                all.append(&mut copy);
            }
            *rows = all;
            Ok(())
        }
    }
}

fn sequence(value: &Value) -> Option<Vec<Value>> {
    match value {
        Value::Vector(_) | Value::List(_) | Value::FloatArray(_) | Value::DoubleArray(_) => {
            items(value).ok()
        }
        _ => None,
    }
}
