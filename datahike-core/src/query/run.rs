//! Evaluation of conjunctions: chooses the next clause by what is bound and how many rows there
//! really are, and runs it on whole relations.

mod calls;
mod columns;
mod emit;
mod patterns;
mod plan;
mod recursion;
mod rules;
mod tuples;

use datahike_value::{Symbol, Value};
use hashbrown::HashMap;

pub(crate) use self::calls::destructure;
pub(crate) use self::rules::RuleSet;
use super::Context;
use super::aggregate::Random;
use super::ast::{Clause, Conj, Names, SourceRef};
use super::error::QueryError;
use super::explain::Trace;
use super::functions::{Functions, HostFn};
use super::relation::{Dict, Relation};
use super::source::Source;
use super::vars::{Var, VarSet};
use crate::budget::Meter;

/// Rows that the first page-fault report may name blocks for.
const MISSING_MAX: usize = 100_000;

/// The state of one evaluation.
pub(crate) struct Run<'q> {
    pub(crate) dict: Dict,
    pub(crate) meter: Meter,
    pub(crate) sources: Vec<(Symbol, Source)>,
    pub(crate) rules: &'q RuleSet,
    pub(crate) functions: &'q Functions,
    /// Functions given as inputs, under names that no query can write.
    pub(crate) passed: HashMap<Symbol, HostFn>,
    pub(crate) random: Random,
    pub(crate) trace: Option<Trace>,
    pub(crate) tables: recursion::Tables,
    pub(crate) runnable: HashMap<(usize, u64), bool>,
    pub(crate) nesting: usize,
}

/// What names mean where a conjunction stands.
#[derive(Clone, Copy)]
pub(crate) struct Env<'a> {
    pub(crate) names: &'a Names,
    /// The source behind `$`.
    pub(crate) default: Option<usize>,
}

impl Env<'_> {
    pub(crate) fn var_name(&self, var: Var) -> &str {
        self.names.vars.get(var.0 as usize).map_or("?", Symbol::text)
    }

    fn var_names(&self, set: &VarSet) -> String {
        let mut names: Vec<&str> = set.iter().map(|var| self.var_name(var)).collect();
        names.sort_unstable();
        names.join(" ")
    }
}

impl<'q> Run<'q> {
    /// A run without inputs yet.
    pub(crate) fn new(
        rules: &'q RuleSet,
        context: &'q Context,
        nesting: usize,
        trace: Option<Trace>,
    ) -> Result<Self, QueryError> {
        Ok(Self {
            dict: Dict::new(),
            meter: Meter::start(&context.budget)?,
            sources: Vec::new(),
            rules,
            functions: &context.functions,
            passed: HashMap::new(),
            random: Random::new(context.seed),
            trace,
            tables: Default::default(),
            runnable: HashMap::new(),
            nesting,
        })
    }

    /// The place of a source in this run.
    pub(crate) fn source(&self, env: Env<'_>, source: SourceRef) -> Result<usize, QueryError> {
        if source.0 == 0 {
            return env.default.ok_or_else(|| {
                QueryError::new("query/where", "the query reads $, but no input is named $")
            });
        }
        let name = &env.names.sources[source.0];
        self.sources
            .iter()
            .position(|(known, _)| known == name)
            .ok_or_else(|| QueryError::new("query/where", format!("no input is named {name}")))
    }

    /// All rows over `wanted` that extend rows of `seed` and satisfy every clause. Variables in
    /// `wanted` that nothing binds are left out.
    pub(crate) fn conj(
        &mut self,
        env: Env<'_>,
        conj: &Conj,
        seed: Relation,
        wanted: &VarSet,
    ) -> Result<Relation, QueryError> {
        let mut left = seed;
        let mut pending: Vec<&Clause> = conj.clauses.iter().collect();
        while !pending.is_empty() {
            if left.len == 0 {
                return Ok(self.nothing(conj, &left, wanted));
            }
            let bound = left.set();
            let Some(next) = self.choose(env, &pending, &bound, left.len) else {
                return Err(self.stuck(env, &pending, &bound));
            };
            let clause = pending.remove(next.place);
            let mut needed = wanted.clone();
            pending.iter().for_each(|clause| needed.union_with(&clause.mentions()));
            let rows_in = left.len;
            let step = self.trace.as_mut().map(Trace::open);
            let (result, how) = self.step(env, clause, left, &mut pending, &needed)?;
            left = result;
            left.keep_vars(&needed);
            if left.len > 64 && !left.distinct && pending.iter().any(|clause| expands(clause)) {
                left.dedup();
            }
            if left.len <= 1 {
                left.distinct = true;
            }
            if let (Some(trace), Some(step)) = (self.trace.as_mut(), step) {
                trace.close(step, clause.form(), next.estimate, rows_in, left.len, how);
            }
            self.meter.work(left.len)?;
            self.meter.rows(left.len)?;
            self.meter.bytes(left.bytes() + self.dict.bytes() + self.tables.bytes())?;
        }
        left.keep_vars(wanted);
        Ok(left)
    }

    fn nothing(&self, conj: &Conj, left: &Relation, wanted: &VarSet) -> Relation {
        let mut vars = left.set();
        vars.union_with(&conj.binds());
        vars.intersect_with(wanted);
        Relation::empty(vars.iter().collect())
    }

    /// Runs one clause. Predicates that the clause itself can check are taken from `pending`.
    fn step(
        &mut self,
        env: Env<'_>,
        clause: &Clause,
        left: Relation,
        pending: &mut Vec<&Clause>,
        needed: &VarSet,
    ) -> Result<(Relation, String), QueryError> {
        match clause {
            Clause::Pattern(pattern) => {
                self.pattern(env, pattern, left, pending, needed).map_err(|e| e.at(clause.form()))
            }
            Clause::Predicate(call) => {
                let mut left = left;
                let keep = self.predicate(env, call, &left).map_err(|e| e.at(clause.form()))?;
                left.retain(&keep);
                Ok((left, "filter".into()))
            }
            Clause::Function { call, binding } => self
                .function(env, call, binding, left)
                .map(|rel| (rel, "call".into()))
                .map_err(|e| e.at(clause.form())),
            Clause::Or { branches, join, .. } => {
                let seeds = seeds(&left, join);
                let mut all: Option<Relation> = None;
                for branch in branches {
                    let rows = self.conj(env, branch, seeds.clone(), join)?;
                    match &mut all {
                        None => all = Some(rows),
                        Some(all) => all.append(rows),
                    }
                }
                let mut all = all.unwrap_or_default();
                all.dedup();
                self.meter.rows(all.len)?;
                let same = left.distinct && left.vars.iter().all(|var| join.contains(*var));
                Ok((if same { all } else { left.join(&all) }, "union".into()))
            }
            Clause::Not { body, join, .. } => {
                let seeds = seeds(&left, join);
                let shared = seeds.set();
                let found = self.conj(env, body, seeds, &shared)?;
                let mut left = left;
                left.semijoin(&found, true);
                Ok((left, "anti-join".into()))
            }
            Clause::Rule { source, name, args, form } => {
                self.rule_call(env, *source, name, args, left).map_err(|error| error.at(form))
            }
        }
    }

    /// The error for clauses whose variables nothing binds.
    fn stuck(&self, env: Env<'_>, pending: &[&Clause], bound: &VarSet) -> QueryError {
        let clause = pending.iter().find(|clause| !matches!(clause, Clause::Pattern(_)));
        let clause = clause.or(pending.first());
        let Some(clause) = clause else {
            return QueryError::new("query/where", "insufficient bindings");
        };
        let mut open = clause.mentions();
        open.subtract(bound);
        if let Clause::Function { binding, .. } = clause {
            let mut results = Vec::new();
            binding.collect(&mut results);
            results.iter().for_each(|var| open.remove(*var));
        }
        let message = format!(
            "insufficient bindings: nothing binds {} before it is needed",
            env.var_names(&open)
        );
        QueryError::new("query/where", message).at(clause.form())
    }

    /// Whether all clauses can be ordered so that each has its variables bound; checked before
    /// anything is read, so that a faulty query fails on an empty database too.
    pub(crate) fn check(
        &mut self,
        env: Env<'_>,
        conj: &Conj,
        bound: &VarSet,
    ) -> Result<(), QueryError> {
        let mut bound = bound.clone();
        let mut pending: Vec<&Clause> = conj.clauses.iter().collect();
        while !pending.is_empty() {
            let ready = (0..pending.len()).find(|place| self.ready(env, &pending, *place, &bound));
            let Some(place) = ready else { return Err(self.stuck(env, &pending, &bound)) };
            let clause = pending.remove(place);
            if let Clause::Predicate(call) | Clause::Function { call, .. } = clause {
                self.check_callee(call)?;
            }
            let inner: Vec<&Conj> = match clause {
                Clause::Or { branches, .. } => branches.iter().collect(),
                Clause::Not { body, .. } => vec![body],
                _ => Vec::new(),
            };
            for inner in inner {
                let mut visible = bound.clone();
                if let Clause::Or { join, .. } | Clause::Not { join, .. } = clause {
                    visible.intersect_with(join);
                }
                self.check(env, inner, &visible)?;
            }
            bound.union_with(&clause.binds());
        }
        Ok(())
    }
}

/// The distinct rows of what a clause shares with its surroundings.
fn seeds(left: &Relation, join: &VarSet) -> Relation {
    let vars: Vec<Var> = left.vars.iter().copied().filter(|var| join.contains(*var)).collect();
    let mut seeds = left.project(&vars);
    seeds.dedup();
    seeds
}

/// Whether a clause can make more rows than it is given.
fn expands(clause: &Clause) -> bool {
    !matches!(clause, Clause::Predicate(_) | Clause::Not { .. })
}

/// The value of a constant argument, or what a column holds.
pub(crate) enum Operand<'a> {
    Column(&'a [super::relation::Cell]),
    Constant(Value),
}
