//! Which clause comes next.

use datahike_value::Value;

use super::super::ast::{Arg, Clause, Conj, Pattern, Term};
use super::super::source::Source;
use super::super::vars::{Var, VarSet};
use super::{Env, Run};
use crate::index::Range;

/// The clause to run next, by its place, and how many rows it is expected to leave.
pub(crate) struct Choice {
    pub(crate) place: usize,
    pub(crate) estimate: f64,
}

/// Work of one probe into an index, in rows of a scan.
pub(crate) const PROBE_COST: f64 = 12.0;

/// What is expected of a clause.
struct Expected {
    cost: f64,
    rows: f64,
}

/// What an access to a pattern is expected to find for one row of the left side, and by a scan that
/// ignores the left side.
pub(crate) struct Selectivity {
    pub(crate) per_row: f64,
    pub(crate) scanned: f64,
    /// Whether an index can be probed with what the left side binds.
    pub(crate) can_probe: bool,
}

impl Selectivity {
    /// Whether probing an index for each of `rows` rows is cheaper than one scan.
    pub(crate) fn probes(&self, rows: f64) -> bool {
        let probing = rows * (PROBE_COST + self.per_row);
        self.can_probe && (rows <= 1.0 || probing < self.scanned + rows)
    }
}

impl Run<'_> {
    /// The cheapest clause that can run; filters first. `None` if none can.
    pub(crate) fn choose(
        &mut self,
        env: Env<'_>,
        pending: &[&Clause],
        bound: &VarSet,
        rows: usize,
    ) -> Option<Choice> {
        let mut best: Option<(f64, Choice)> = None;
        let mut considered = Vec::new();
        for place in 0..pending.len() {
            if !self.ready(env, pending, place, bound) {
                continue;
            }
            if matches!(pending[place], Clause::Predicate(_)) {
                return Some(Choice { place, estimate: rows as f64 * 0.5 });
            }
            if pending.len() == 1 && self.trace.is_none() {
                return Some(Choice { place, estimate: rows as f64 });
            }
            let expected = self.expect(env, pending[place], bound, rows as f64, 0);
            if self.trace.is_some() {
                considered.push((pending[place].form().clone(), expected.rows));
            }
            let shared = !pending[place].mentions().is_disjoint(bound);
            // Rows that are made must be carried through all that follows.
            let mut score = expected.cost + 4.0 * expected.rows;
            if !shared && rows > 1 {
                score *= 4.0;
            }
            if best.as_ref().is_none_or(|(least, _)| score < *least) {
                best = Some((score, Choice { place, estimate: expected.rows }));
            }
        }
        if let Some(trace) = &mut self.trace {
            trace.consider(considered);
        }
        best.map(|(_, choice)| choice)
    }

    /// Whether a clause has bound what it needs, and what may still be bound for a negation is.
    pub(crate) fn ready(
        &mut self,
        env: Env<'_>,
        pending: &[&Clause],
        place: usize,
        bound: &VarSet,
    ) -> bool {
        let clause = pending[place];
        let negated = clause.negated();
        if !negated.is_empty() {
            let mut waits = VarSet::default();
            for (other, clause) in pending.iter().enumerate() {
                if other != place {
                    waits.union_with(&clause.binds());
                }
            }
            waits.intersect_with(&negated);
            if !waits.is_subset(bound) {
                return false;
            }
        }
        self.can_run(env, clause, bound)
    }

    fn can_run(&mut self, env: Env<'_>, clause: &Clause, bound: &VarSet) -> bool {
        match clause {
            Clause::Pattern(_) => true,
            Clause::Predicate(call) | Clause::Function { call, .. } => {
                call.vars().all(|var| bound.contains(var))
            }
            Clause::Not { body, join, .. } => {
                let mut visible = bound.clone();
                visible.intersect_with(join);
                self.runs(env, body, &visible).is_some()
            }
            Clause::Or { branches, join, required, .. } => {
                if !required.is_subset(bound) {
                    return false;
                }
                let mut visible = bound.clone();
                visible.intersect_with(join);
                let mut bindable = visible.clone();
                branches.iter().for_each(|branch| bindable.union_with(&branch.binds()));
                bindable.intersect_with(join);
                branches.iter().all(|branch| {
                    self.runs(env, branch, &visible).is_some_and(|after| bindable.is_subset(&after))
                })
            }
            Clause::Rule { name, args, .. } => {
                let Some(rule) = self.rules.find(name) else { return true };
                let mask = bound_mask(args, bound);
                self.rule_runs(rule, mask)
            }
        }
    }

    /// What is bound after a conjunction, or `None` if its clauses cannot be ordered.
    pub(crate) fn runs(&mut self, env: Env<'_>, conj: &Conj, bound: &VarSet) -> Option<VarSet> {
        let mut bound = bound.clone();
        let mut pending: Vec<&Clause> = conj.clauses.iter().collect();
        while !pending.is_empty() {
            let place =
                (0..pending.len()).find(|place| self.ready(env, &pending, *place, &bound))?;
            bound.union_with(&pending.remove(place).binds());
        }
        Some(bound)
    }

    fn expect(
        &mut self,
        env: Env<'_>,
        clause: &Clause,
        bound: &VarSet,
        rows: f64,
        depth: usize,
    ) -> Expected {
        match clause {
            Clause::Pattern(pattern) => {
                let found = self.selectivity(env, pattern, bound);
                let out = rows * found.per_row;
                let probing =
                    if found.can_probe { rows * (PROBE_COST + found.per_row) } else { f64::MAX };
                let scanning = found.scanned + rows;
                let cost = probing.min(scanning) + out;
                Expected { cost, rows: out }
            }
            Clause::Predicate(_) => Expected { cost: rows, rows: rows * 0.5 },
            Clause::Function { call, binding } => {
                let many = match binding {
                    super::super::ast::Binding::Collection(_) => 8.0,
                    _ => 1.0,
                };
                let nested = call.args.iter().any(|arg| matches!(arg, Arg::Rules));
                Expected { cost: rows * if nested { 1000.0 } else { 4.0 }, rows: rows * many }
            }
            Clause::Not { body, .. } => {
                let inner = self.expect_all(env, body, bound, rows, depth);
                Expected { cost: inner.cost + rows, rows: rows * 0.7 }
            }
            Clause::Or { branches, .. } => {
                let mut sum = Expected { cost: 0.0, rows: 0.0 };
                for branch in branches {
                    let one = self.expect_all(env, branch, bound, rows, depth);
                    sum.cost += one.cost;
                    sum.rows += one.rows;
                }
                sum
            }
            Clause::Rule { source, name, args, .. } => {
                let rules = self.rules;
                let Some(rule) = rules.find(name) else {
                    return Expected { cost: rows, rows };
                };
                let any_bound = bound_mask(args, bound) != 0;
                if rules.is_recursive(rule) || depth > 4 {
                    let out = if any_bound { rows * 50.0 } else { 1e7 };
                    return Expected { cost: out * 2.0, rows: out };
                }
                let default = self.source(env, *source).ok();
                let mut sum = Expected { cost: 0.0, rows: 0.0 };
                for branch in &rules.def(rule).branches {
                    let env = Env { names: &branch.names, default };
                    let inner: VarSet = branch
                        .head
                        .iter()
                        .zip(args)
                        .filter(|(_, arg)| term_bound(arg, bound))
                        .map(|(var, _)| *var)
                        .collect();
                    let one = self.expect_all(env, &branch.body, &inner, rows, depth);
                    sum.cost += one.cost;
                    sum.rows += one.rows;
                }
                sum
            }
        }
    }

    /// What is expected of a conjunction that runs in the order in which it is written, as far as
    /// bindings allow.
    fn expect_all(
        &mut self,
        env: Env<'_>,
        conj: &Conj,
        bound: &VarSet,
        rows: f64,
        depth: usize,
    ) -> Expected {
        let mut bound = bound.clone();
        let mut pending: Vec<&Clause> = conj.clauses.iter().collect();
        let mut sum = Expected { cost: 0.0, rows };
        while !pending.is_empty() {
            let ready: Vec<usize> = (0..pending.len())
                .filter(|place| self.ready(env, &pending, *place, &bound))
                .collect();
            let connected =
                ready.iter().copied().find(|place| !pending[*place].mentions().is_disjoint(&bound));
            let Some(place) = connected.or(ready.first().copied()) else { break };
            let clause = pending.remove(place);
            let one = self.expect(env, clause, &bound, sum.rows, depth + 1);
            sum.cost += one.cost;
            sum.rows = one.rows;
            bound.union_with(&clause.binds());
        }
        sum
    }

    /// How much of its source a pattern selects, given which variables are bound.
    pub(crate) fn selectivity(
        &self,
        env: Env<'_>,
        pattern: &Pattern,
        bound: &VarSet,
    ) -> Selectivity {
        let unknown = Selectivity { per_row: 1.0, scanned: 1.0, can_probe: true };
        let Ok(place) = self.source(env, pattern.source) else { return unknown };
        let known = |place: usize| pattern.terms.get(place).is_some_and(|t| term_bound(t, bound));
        let constant = |place: usize| match pattern.terms.get(place) {
            Some(Term::Const(value)) => Some(value),
            _ => None,
        };
        match &self.sources[place].1 {
            Source::Rows(rows) => {
                let all = rows.len() as f64;
                let keys = (0..pattern.terms.len()).filter(|place| known(*place)).count();
                let per_row = all / 10f64.powi(keys as i32).min(all.max(1.0));
                Selectivity { per_row, scanned: all, can_probe: true }
            }
            Source::Db(db) => {
                let a = constant(1).and_then(|value| db.attr_of(value));
                if constant(1).is_some() && a.is_none() {
                    return Selectivity { per_row: 0.0, scanned: 0.0, can_probe: true };
                }
                let attribute = a.map(|a| db.schema().attribute(a));
                let all = match a {
                    Some(a) => db.estimate(&Range::aevt(a, None)),
                    None => db.estimate(&Range::all(crate::index::Index::Eavt)),
                } as f64;
                let entities = match attribute {
                    Some(attribute) if attribute.is_many() => all / 4.0,
                    Some(_) => all,
                    None if known(1) => all,
                    None => all / 8.0,
                }
                .max(1.0);
                // Distinct values: exact for unique attributes, else a guess.
                let in_avet = attribute.is_some_and(|attribute| attribute.in_avet());
                let is_unique = attribute.is_some_and(|attribute| attribute.unique.is_some());
                let value_share = match (a, constant(2)) {
                    _ if is_unique => 1.0 / all.max(1.0),
                    (Some(a), Some(value))
                        if in_avet && !matches!(value, Value::Vector(_) | Value::Keyword(_)) =>
                    {
                        db.estimate(&Range::avet(a, value.clone())) as f64 / all.max(1.0)
                    }
                    _ if attribute.is_some_and(|attribute| attribute.is_ref()) => {
                        3.0 / all.max(3.0)
                    }
                    _ => 1.0 / all.sqrt().clamp(1.0, 100.0),
                };
                let mut per_row = all;
                if known(0) {
                    per_row /= entities;
                }
                if known(2) {
                    per_row *= value_share;
                }
                let mut scanned = all;
                if constant(0).is_some() {
                    scanned /= entities;
                } else if constant(2).is_some() && in_avet {
                    scanned *= value_share;
                }
                let can_probe = known(0) || (known(2) && in_avet) || (a.is_none() && known(1));
                Selectivity { per_row, scanned, can_probe }
            }
        }
    }
}

/// One bit for each argument that is bound or constant.
pub(crate) fn bound_mask(args: &[Term], bound: &VarSet) -> u64 {
    args.iter()
        .enumerate()
        .fold(0, |mask, (place, arg)| mask | u64::from(term_bound(arg, bound)) << place.min(63))
}

pub(crate) fn term_bound(term: &Term, bound: &VarSet) -> bool {
    match term {
        Term::Const(_) => true,
        Term::Var(var) => bound.contains(*var),
        Term::Blank => false,
    }
}

/// Variables at the positions of a mask.
pub(crate) fn masked(vars: &[Var], mask: u64) -> impl Iterator<Item = Var> + '_ {
    vars.iter().enumerate().filter(move |(place, _)| mask >> place & 1 == 1).map(|(_, var)| *var)
}
