//! Rows that a transaction can have made or undone, looked for from its datoms.
//!
//! Wherever the query reads the followed database, each changed datom that fits binds some variables.
//! A row that came or went has such bindings in one of its derivations before or after; so evaluating
//! the query from these bindings, on both snapshots, finds all of them. What was found before is then
//! looked for after: it may have other derivations.

use std::sync::Arc;

use datahike_value::Value;
use hashbrown::{HashMap, HashSet};

use super::plan::Plan;
use crate::datom::Datom;
use crate::db::{Db, entity_value};
use crate::query::ast::{Arg, Ast, Call, Callee, Clause, Conj, Pattern, Term};
use crate::query::error::QueryError;
use crate::query::find::wanted;
use crate::query::relation::Relation;
use crate::query::run::{Env, RuleSet, Run};
use crate::query::source::Source;
use crate::query::vars::{Var, VarSet};
use crate::query::{Context, Input, inputs, parse};

/// Values of the variables that the result is made from.
pub(super) type Row = Arc<[Value]>;

/// What is known of the rows after a change.
#[derive(Debug)]
pub(super) enum Found {
    /// These are all.
    All(HashSet<Row>),
    /// Of the rows that may have changed, these are there now, and those are not.
    Some { there: HashSet<Row>, gone: HashSet<Row> },
}

/// What happened between two snapshots.
pub(super) struct Changes<'a> {
    pub(super) before: &'a Db,
    pub(super) after: &'a Db,
    /// Shown after.
    added: Vec<&'a Datom>,
    /// Shown before: of these the transaction is not known.
    removed: Vec<&'a Datom>,
}

impl<'a> Changes<'a> {
    pub(super) fn new(before: &'a Db, after: &'a Db, datoms: &'a [Datom]) -> Self {
        let history = after.view().is_some_and(|view| view.is_history());
        let (added, removed) = datoms.iter().partition(|datom| datom.added || history);
        Self { before, after, added, removed }
    }

    pub(super) fn datoms(&self) -> impl Iterator<Item = &'a Datom> + '_ {
        self.added.iter().chain(&self.removed).copied()
    }
}

/// On which snapshots bindings are to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Before,
    After,
    Both,
}

/// Bindings from which changed rows are found.
struct Seed {
    rows: Relation,
    side: Side,
}

/// All rows.
pub(super) fn all(
    ast: &Ast,
    inputs: &[Input],
    context: &Context,
) -> Result<HashSet<Row>, QueryError> {
    evaluating(ast, inputs, context, |run, env, body, seed| {
        let rows = run.conj(env, body, seed, &wanted(ast).into_iter().collect())?;
        Ok(to_rows(run, ast, rows))
    })
}

/// The rows that `changes` can have made or undone.
pub(super) fn affected(
    ast: &Ast,
    inputs: &[Input],
    followed: Option<usize>,
    context: &Context,
    plan: &Plan,
    changes: &Changes<'_>,
) -> Result<Found, QueryError> {
    let Some(followed) = followed else {
        return Ok(Found::Some { there: HashSet::new(), gone: HashSet::new() });
    };
    // Sources stand in a run in the order of the inputs.
    let place = ast.inputs[..followed]
        .iter()
        .filter(|input| matches!(input, crate::query::ast::In::Source(_)))
        .count();
    evaluating(ast, inputs, context, |run, env, body, given| {
        let mut visible = body.binds();
        visible.union_with(&given.set());
        plan.named.iter().for_each(|var| visible.remove(var));
        let search = Search { changes, place, two_sided: plan.two_sided };
        let mut seeds = Vec::new();
        let narrowed = search.seeds(run, env, &ast.body, &visible, &mut seeds)?;
        let needed: VarSet = wanted(ast).into_iter().collect();
        if !narrowed {
            search.on(run, changes.after);
            let rows = run.conj(env, body, given, &needed)?;
            return Ok(Found::All(to_rows(run, ast, rows)));
        }
        let (mut there, mut maybe) = (HashSet::new(), HashSet::new());
        for Seed { rows, side } in seeds {
            let mut from = given.join(&rows);
            from.dedup();
            if side != Side::After {
                search.on(run, changes.before);
                let rows = run.conj(env, body, from.clone(), &needed)?;
                maybe.extend(to_rows(run, ast, rows));
            }
            if side != Side::Before {
                search.on(run, changes.after);
                let rows = run.conj(env, body, from, &needed)?;
                there.extend(to_rows(run, ast, rows));
            }
        }
        maybe.retain(|row| !there.contains(row));
        if !maybe.is_empty() {
            search.on(run, changes.after);
            let mut asked = given.join(&from_rows(run, ast, &maybe));
            asked.dedup();
            let rows = run.conj(env, body, asked, &needed)?;
            for row in to_rows(run, ast, rows) {
                maybe.remove(&row);
                there.insert(row);
            }
        }
        Ok(Found::Some { there, gone: maybe })
    })
}

fn evaluating<T>(
    ast: &Ast,
    inputs: &[Input],
    context: &Context,
    work: impl FnOnce(&mut Run<'_>, Env<'_>, &Conj, Relation) -> Result<T, QueryError>,
) -> Result<T, QueryError> {
    let given = inputs::rules(ast, inputs)?;
    parse::check_calls(&ast.body, &given.defs)?;
    let rules = RuleSet::new(&given)?;
    let mut run = Run::new(&rules, context, 0, None)?;
    let bound = run.bind_inputs(ast, inputs)?;
    let default = run.sources.iter().position(|(name, _)| name.text() == "$");
    let env = Env { names: bound.names.as_ref().unwrap_or(&ast.names), default };
    let body = bound.body.as_ref().unwrap_or(&ast.body);
    run.check(env, body, &bound.seed.set())?;
    work(&mut run, env, body, bound.seed)
}

fn to_rows(run: &Run<'_>, ast: &Ast, found: Relation) -> HashSet<Row> {
    if found.len == 0 {
        return HashSet::new();
    }
    let found = found.project(&wanted(ast));
    (0..found.len)
        .map(|row| found.cols.iter().map(|col| run.dict.value(col[row])).collect())
        .collect()
}

fn from_rows(run: &mut Run<'_>, ast: &Ast, rows: &HashSet<Row>) -> Relation {
    let mut relation = Relation::empty(wanted(ast));
    for row in rows {
        for (col, value) in relation.cols.iter_mut().zip(row.iter()) {
            col.push(run.dict.cell(value));
        }
    }
    relation.len = rows.len();
    relation
}

struct Search<'a> {
    changes: &'a Changes<'a>,
    /// The followed database among the sources.
    place: usize,
    two_sided: bool,
}

impl Search<'_> {
    /// Evaluates on this snapshot from here on.
    fn on(&self, run: &mut Run<'_>, db: &Db) {
        run.sources[self.place].1 = Source::Db(db.clone());
        run.tables = Default::default();
    }

    /// Collects what the changed datoms bind in a conjunction, as far as `visible`; false if a change
    /// may concern any row.
    fn seeds(
        &self,
        run: &mut Run<'_>,
        env: Env<'_>,
        conj: &Conj,
        visible: &VarSet,
        into: &mut Vec<Seed>,
    ) -> Result<bool, QueryError> {
        for clause in &conj.clauses {
            let mut inner = Vec::new();
            match clause {
                Clause::Pattern(pattern) if run.source(env, pattern.source)? == self.place => {
                    self.matches(run, pattern, &mut inner);
                }
                Clause::Pattern(_) => {}
                Clause::Predicate(call) | Clause::Function { call, .. } => {
                    self.asked(run, env, call, &mut inner)?;
                }
                Clause::Or { branches, join, .. } => {
                    for branch in branches {
                        if !self.lifted(run, env, branch, visible, join, &mut inner)? {
                            return Ok(false);
                        }
                    }
                }
                Clause::Not { body, join, .. } => {
                    if !self.lifted(run, env, body, visible, join, &mut inner)? {
                        return Ok(false);
                    }
                }
                Clause::Rule { source, name, args, .. } => {
                    let Some(rule) = run.rules.find(name) else { continue };
                    let rules = run.rules;
                    let default = run.source(env, *source)?;
                    for branch in &rules.def(rule).branches {
                        let env = Env { names: &branch.names, default: Some(default) };
                        let head: VarSet = branch.head.iter().copied().collect();
                        let mut seeds = Vec::new();
                        if !self.lifted(run, env, &branch.body, &head, &head, &mut seeds)? {
                            return Ok(false);
                        }
                        for Seed { rows, side } in seeds {
                            inner.push(Seed { rows: called(run, rows, &branch.head, args), side });
                        }
                    }
                }
            }
            for Seed { mut rows, side } in inner {
                rows.keep_vars(visible);
                rows.dedup();
                if rows.len > 0 && rows.vars.is_empty() {
                    return Ok(false);
                }
                if rows.len > 0 {
                    let side = if self.two_sided { Side::Both } else { side };
                    into.push(Seed { rows, side });
                }
            }
        }
        Ok(true)
    }

    /// What changes inside a scope mean for the variables that it shares with its surroundings.
    fn lifted(
        &self,
        run: &mut Run<'_>,
        env: Env<'_>,
        conj: &Conj,
        outside: &VarSet,
        join: &VarSet,
        into: &mut Vec<Seed>,
    ) -> Result<bool, QueryError> {
        let mut shared = join.clone();
        shared.intersect_with(outside);
        let mut visible = conj.binds();
        visible.union_with(&shared);
        let mut seeds = Vec::new();
        if !self.seeds(run, env, conj, &visible, &mut seeds)? {
            return Ok(false);
        }
        for Seed { rows, side } in seeds {
            let bound = rows.set();
            if bound.is_subset(&shared) {
                into.push(Seed { rows, side });
                continue;
            }
            if run.runs(env, conj, &bound).is_none() {
                return Ok(false);
            }
            for (db, here) in
                [(self.changes.before, Side::Before), (self.changes.after, Side::After)]
            {
                if side != here && side != Side::Both {
                    continue;
                }
                self.on(run, db);
                let mut found = run.conj(env, conj, rows.clone(), &shared)?;
                found.dedup();
                if found.len > 0 {
                    into.push(Seed { rows: found, side });
                }
            }
        }
        Ok(true)
    }

    /// What a pattern binds to the changed datoms that fit it.
    fn matches(&self, run: &mut Run<'_>, pattern: &Pattern, into: &mut Vec<Seed>) {
        let mut vars: Vec<Var> = Vec::new();
        for var in pattern.terms.iter().filter_map(Term::var) {
            if !vars.contains(&var) {
                vars.push(var);
            }
        }
        let db = self.changes.after;
        let constant = |place: usize| match pattern.terms.get(place) {
            Some(Term::Const(value)) => Some(value),
            _ => None,
        };
        let attribute = constant(1).map(|value| db.attr_of(value));
        if attribute == Some(None) {
            return;
        }
        let attribute = attribute.flatten();
        let entity = constant(0).and_then(Value::as_long).and_then(|e| u64::try_from(e).ok());
        let text = constant(2).filter(|value| matches!(value, Value::Str(_)));
        for (datoms, side) in
            [(&self.changes.added, Side::After), (&self.changes.removed, Side::Before)]
        {
            // When a datom was stated is not known of what is gone.
            let reach = if side == Side::After { 5 } else { 3 };
            let known: Vec<Var> = pattern.terms.iter().take(reach).filter_map(Term::var).fold(
                Vec::new(),
                |mut known, var| {
                    if !known.contains(&var) {
                        known.push(var);
                    }
                    known
                },
            );
            let mut rows = Relation::empty(known.clone());
            for datom in datoms {
                let fits = attribute.is_none_or(|a| a == datom.a)
                    && entity.is_none_or(|e| e == datom.e)
                    && text.is_none_or(|text| *text == datom.v);
                if !fits {
                    continue;
                }
                let values = [
                    entity_value(datom.e),
                    db.attr_value(datom.a),
                    datom.v.clone(),
                    entity_value(datom.tx),
                    Value::Bool(datom.added),
                ];
                let mut bound: HashMap<Var, &Value> = HashMap::new();
                let agrees = pattern.terms.iter().zip(&values).take(reach).all(|(term, value)| {
                    term.var().is_none_or(|var| *bound.entry(var).or_insert(value) == value)
                });
                if agrees {
                    for (var, col) in known.iter().zip(&mut rows.cols) {
                        col.push(run.dict.cell(bound[var]));
                    }
                    rows.len += 1;
                }
            }
            rows.distinct = rows.len <= 1;
            into.push(Seed { rows, side });
        }
    }

    /// The entities whose attributes a call asks for, of those that changed.
    fn asked(
        &self,
        run: &mut Run<'_>,
        env: Env<'_>,
        call: &Call,
        into: &mut Vec<Seed>,
    ) -> Result<(), QueryError> {
        let (Callee::Name(name), [Arg::Source(source), entity, attributes @ ..]) =
            (&call.callee, call.args.as_slice())
        else {
            return Ok(());
        };
        let attributes = match name.text() {
            "get-else" | "missing?" => attributes.get(..1).unwrap_or_default(),
            "get-some" => attributes,
            _ => return Ok(()),
        };
        if run.source(env, *source)? != self.place {
            return Ok(());
        }
        let db = self.changes.after;
        let asks = |datom: &Datom| {
            attributes.iter().any(|attribute| match attribute {
                Arg::Const(value) => db.attr_of(value) == Some(datom.a),
                _ => true,
            })
        };
        let fixed = match entity {
            Arg::Const(value) => db.entid(value)?,
            _ => None,
        };
        let mut rows = Relation::empty(match entity {
            Arg::Var(var) => vec![*var],
            _ => Vec::new(),
        });
        for datom in self.changes.datoms().filter(|datom| asks(datom)) {
            if fixed.is_some_and(|e| e != datom.e) {
                continue;
            }
            for col in &mut rows.cols {
                col.push(run.dict.cell(&entity_value(datom.e)));
            }
            rows.len += 1;
        }
        into.push(Seed { rows, side: Side::Both });
        Ok(())
    }
}

/// What is bound in the head of a rule, as the arguments of a call.
fn called(run: &mut Run<'_>, rows: Relation, head: &[Var], args: &[Term]) -> Relation {
    let mut rows = rows;
    let mut keep = vec![true; rows.len];
    let mut renamed: Vec<(Var, Vec<u64>)> = Vec::new();
    for (var, arg) in head.iter().zip(args) {
        let Some(col) = rows.col(*var) else { continue };
        match arg {
            Term::Blank => {}
            Term::Const(value) => {
                let cell = run.dict.cell(value);
                // Another way to write the same entity is not the same cell.
                if matches!(value, Value::Long(_) | Value::Str(_)) {
                    keep.iter_mut().zip(col).for_each(|(keep, found)| *keep &= *found == cell);
                }
            }
            Term::Var(var) => match renamed.iter().find(|(known, _)| known == var) {
                Some((_, known)) => keep
                    .iter_mut()
                    .zip(known.iter().zip(col))
                    .for_each(|(keep, (a, b))| *keep &= a == b),
                None => renamed.push((*var, col.to_vec())),
            },
        }
    }
    let len = rows.len;
    (rows.vars, rows.cols) = renamed.into_iter().unzip();
    (rows.len, rows.distinct, rows.sorted) = (len, false, None);
    rows.retain(&keep);
    rows
}
