//! Calls of rules. Rules that do not recur are evaluated in place; those that do are tabled: each
//! table keeps what was asked of a rule (the bound arguments) and what it answered, and only what is
//! new is joined again until nothing is.

mod call;

use hashbrown::HashMap;

use self::call::{by_place_columns, head_relation};
use super::super::ast::{Clause, Conj, Term};
use super::super::error::QueryError;
use super::super::relation::{Cell, Relation};
use super::super::vars::{Var, VarSet};
use super::plan::{bound_mask, masked};
use super::tuples::Tuples;
use super::{Env, Run};

/// Rule, bound arguments, source behind `$`.
type Key = (usize, u64, Option<usize>);

/// What recursive rules were asked and answered.
#[derive(Debug, Default)]
pub(crate) struct Tables {
    places: HashMap<Key, usize>,
    tables: Vec<Table>,
}

impl Tables {
    pub(crate) fn bytes(&self) -> usize {
        self.tables
            .iter()
            .map(|table| {
                let sups: usize =
                    table.branches.iter().flat_map(|b| &b.calls).map(|c| c.rows.bytes()).sum();
                table.asked.bytes() + table.answers.bytes() + sups
            })
            .sum()
    }
}

#[derive(Debug)]
struct Table {
    key: Key,
    group: usize,
    /// Distinct bound arguments.
    asked: Tuples,
    /// How many of them the branches have seen.
    asked_done: usize,
    answers: Tuples,
    branches: Vec<Branch>,
}

/// One branch of a rule as a row of segments with recursive calls between them.
#[derive(Debug)]
struct Branch {
    place: usize,
    segments: Vec<Conj>,
    calls: Vec<CallState>,
}

/// A recursive call and the rows that wait in front of it.
#[derive(Debug)]
struct CallState {
    callee: usize,
    args: Vec<Term>,
    /// Arguments by which the rows in front and the answers are joined.
    key: Vec<usize>,
    /// Variables of the rows in front.
    vars: Vec<Var>,
    rows: Tuples,
    /// How many answers of the callee were joined with all rows.
    answers_done: usize,
    /// Variables that must be kept behind the call.
    wanted: VarSet,
}

impl Run<'_> {
    /// The table for a key, made if it is not there.
    fn table(&mut self, key: Key) -> usize {
        if let Some(place) = self.tables.places.get(&key) {
            return *place;
        }
        let (rule, mask, default) = key;
        let rules = self.rules;
        let def = rules.def(rule);
        let group = rules.group(rule);
        let place = self.tables.tables.len();
        self.tables.places.insert(key, place);
        self.tables.tables.push(Table {
            key,
            group,
            asked: Tuples::new(mask.count_ones() as usize),
            asked_done: 0,
            answers: Tuples::new(def.arity),
            branches: Vec::new(),
        });
        let branches =
            (0..def.branches.len()).map(|branch| self.split(rule, branch, mask, default)).collect();
        self.tables.tables[place].branches = branches;
        place
    }

    /// Orders the clauses of a branch and cuts them at the recursive calls.
    fn split(&mut self, rule: usize, branch: usize, mask: u64, default: Option<usize>) -> Branch {
        let rules = self.rules;
        let def = rules.def(rule);
        let group = rules.group(rule);
        let body = &def.branches[branch];
        let env = Env { names: &body.names, default };
        let mut bound: VarSet = masked(&body.head, mask).collect();
        let mut pending: Vec<&Clause> = body.body.clauses.iter().collect();
        let mut segments = vec![Conj::default()];
        let mut calls: Vec<(usize, Vec<Term>, VarSet)> = Vec::new();
        while !pending.is_empty() {
            let ready: Vec<usize> = (0..pending.len())
                .filter(|place| self.ready(env, &pending, *place, &bound))
                .collect();
            let recurs = |place: &usize| rules.recurs(pending[*place], group);
            let joined = |place: &usize| {
                let mentions = pending[*place].mentions();
                mentions.is_empty() || !mentions.is_disjoint(&bound)
            };
            // What is joined to what is known comes first; where nothing is known, plain clauses
            // do, which are then read only once.
            let next = ready
                .iter()
                .copied()
                .find(|place| !recurs(place) && (joined(place) || mask == 0))
                .or_else(|| ready.iter().copied().find(|place| recurs(place) && joined(place)))
                .or_else(|| ready.iter().copied().find(|place| !recurs(place)))
                .or_else(|| ready.first().copied())
                .unwrap_or(0);
            let clause = pending.remove(next);
            match clause {
                Clause::Rule { source, name, args, .. } if rules.recurs(clause, group) => {
                    let callee = rules.find(name).unwrap_or(rule);
                    let mut asked = bound_mask(args, &bound);
                    if mask == 0 && self.rule_runs(callee, 0) {
                        asked = 0;
                    } else if callee == rule
                        && asked & mask != 0
                        && self.rule_runs(callee, asked & mask)
                    {
                        asked &= mask;
                    }
                    let inner = match source.0 {
                        0 => default,
                        _ => self.source(env, *source).ok(),
                    };
                    let table = self.table((callee, asked, inner));
                    calls.push((table, args.clone(), bound.clone()));
                    segments.push(Conj::default());
                }
                clause => {
                    if let Some(segment) = segments.last_mut() {
                        segment.clauses.push(clause.clone());
                    }
                }
            }
            bound.union_with(&clause.binds());
        }
        // From the back: what is needed after each call.
        let mut needed: VarSet = body.head.iter().copied().collect();
        let mut states = Vec::new();
        for (place, (callee, args, mut before)) in calls.into_iter().enumerate().rev() {
            needed.union_with(&segments[place + 1].mentions());
            let wanted = needed.clone();
            needed.extend(args.iter().filter_map(Term::var));
            before.intersect_with(&needed);
            let vars: Vec<Var> = before.iter().collect();
            let key = (0..args.len())
                .filter(|at| match &args[*at] {
                    Term::Const(_) => true,
                    Term::Var(var) => before.contains(*var),
                    Term::Blank => false,
                })
                .collect();
            states.push(CallState {
                callee,
                args,
                key,
                rows: Tuples::new(vars.len()),
                vars,
                answers_done: 0,
                wanted,
            });
        }
        states.reverse();
        Branch { place: branch, segments, calls: states }
    }

    /// Works until no table of the group has anything new.
    fn fixpoint(&mut self, group: usize) -> Result<(), QueryError> {
        let mut rounds = 0;
        loop {
            let mut worked = false;
            let mut table = 0;
            // Tables of the group may be added while this goes on.
            while table < self.tables.tables.len() {
                if self.tables.tables[table].group == group {
                    worked |= self.ask(table)?;
                    worked |= self.propagate(table)?;
                }
                table += 1;
            }
            if !worked {
                return Ok(());
            }
            rounds += 1;
            self.meter.recursion(rounds)?;
            self.meter.work(16)?;
            self.meter.bytes(self.tables.bytes() + self.dict.bytes())?;
        }
    }

    /// Starts the branches of a table with the arguments that are new.
    fn ask(&mut self, table: usize) -> Result<bool, QueryError> {
        let (from, len) = {
            let table = &self.tables.tables[table];
            (table.asked_done, table.asked.len)
        };
        if from == len {
            return Ok(false);
        }
        self.tables.tables[table].asked_done = len;
        let (rule, mask, default) = self.tables.tables[table].key;
        let rules = self.rules;
        for at in 0..rules.def(rule).branches.len() {
            let branch = &rules.def(rule).branches[at];
            let env = Env { names: &branch.names, default };
            let slices = self.tables.tables[table].asked.slices(from);
            let slices: Vec<&[Cell]> = slices.iter().map(|col| &col[..len - from]).collect();
            let seed = head_relation(branch, mask, &slices, len - from);
            self.advance(table, at, 0, env, seed)?;
        }
        Ok(true)
    }

    /// Joins answers that came since with the rows that wait for them.
    fn propagate(&mut self, table: usize) -> Result<bool, QueryError> {
        let (rule, _, default) = self.tables.tables[table].key;
        let rules = self.rules;
        let mut worked = false;
        for at in 0..self.tables.tables[table].branches.len() {
            for call in 0..self.tables.tables[table].branches[at].calls.len() {
                let state = &self.tables.tables[table].branches[at].calls[call];
                let (callee, from) = (state.callee, state.answers_done);
                let len = self.tables.tables[callee].answers.len;
                if from == len {
                    continue;
                }
                worked = true;
                let body = &rules.def(rule).branches[self.tables.tables[table].branches[at].place];
                let env = Env { names: &body.names, default };
                let joined = self.join_answers(table, at, call, from, len)?;
                self.tables.tables[table].branches[at].calls[call].answers_done = len;
                self.advance(table, at, call + 1, env, joined)?;
            }
        }
        Ok(worked)
    }

    /// Runs segment `segment` of a branch on new rows, and hands on what it gives: to the next call,
    /// or to the answers.
    fn advance(
        &mut self,
        table: usize,
        branch: usize,
        segment: usize,
        env: Env<'_>,
        rows: Relation,
    ) -> Result<(), QueryError> {
        if rows.len == 0 {
            return Ok(());
        }
        let rules = self.rules;
        let (rule, _, _) = self.tables.tables[table].key;
        let state = &mut self.tables.tables[table].branches[branch];
        let body = &rules.def(rule).branches[state.place];
        let mut wanted: VarSet = body.head.iter().copied().collect();
        if let Some(call) = state.calls.get(segment) {
            wanted = call.vars.iter().copied().collect();
        }
        let conj = std::mem::take(&mut state.segments[segment]);
        let found =
            if conj.clauses.is_empty() { Ok(rows) } else { self.conj(env, &conj, rows, &wanted) };
        self.tables.tables[table].branches[branch].segments[segment] = conj;
        let found = found?;
        if found.len == 0 {
            return Ok(());
        }
        self.meter.work(found.len)?;
        if segment == self.tables.tables[table].branches[branch].calls.len() {
            let answers = by_place_columns(&found, body);
            let target = &mut self.tables.tables[table].answers;
            target.extend(&answers, found.len);
            let len = target.len;
            self.meter.rows(len)?;
            return Ok(());
        }
        // New rows in front of a call: ask for their arguments, join them with the answers that all
        // older rows have seen.
        let state = &mut self.tables.tables[table].branches[branch].calls[segment];
        let before = state.rows.len;
        let cols: Vec<&[Cell]> = state.vars.iter().filter_map(|var| found.col(*var)).collect();
        state.rows.extend(&cols, found.len);
        let after = state.rows.len;
        if before == after {
            return Ok(());
        }
        let (callee, done) = (state.callee, state.answers_done);
        let args = state.args.clone();
        let mask = self.tables.tables[callee].key.1;
        let state = &self.tables.tables[table].branches[branch].calls[segment];
        let fresh = Relation {
            vars: state.vars.clone(),
            cols: state.rows.cols.iter().map(|col| col[before..].to_vec()).collect(),
            len: after - before,
            distinct: true,
            sorted: None,
        };
        let asked = self.arguments(&args, mask, &fresh);
        let refs: Vec<&[Cell]> = asked.cols.iter().map(Vec::as_slice).collect();
        self.tables.tables[callee].asked.extend(&refs, asked.len);
        if done == 0 {
            return Ok(());
        }
        let joined = self.join_rows(table, branch, segment, &fresh, done)?;
        self.advance(table, branch, segment + 1, env, joined)
    }

    /// All rows in front of a call with the answers `from..to`.
    fn join_answers(
        &mut self,
        table: usize,
        branch: usize,
        call: usize,
        from: usize,
        to: usize,
    ) -> Result<Relation, QueryError> {
        let mut state = self.take_call(table, branch, call);
        let consts = self.constant_columns(&state, to - from);
        let answers = &self.tables.tables[state.callee].answers;
        let shared = shared_places(&state);
        let index = {
            let places: Vec<usize> = shared.iter().map(|(_, var)| *var).collect();
            state.rows.index(&places)
        };
        let slices = answers.slices(0);
        let probe: Vec<&[Cell]> = shared.iter().map(|(arg, _)| &slices[*arg][from..to]).collect();
        let (mut rows, mut found) = (Vec::new(), Vec::new());
        let fits = fitting(&state, &slices, &consts);
        for answer in 0..to - from {
            if !fits(answer + from) {
                continue;
            }
            if shared.is_empty() {
                for row in 0..state.rows.len as u32 {
                    rows.push(row);
                    found.push((answer + from) as u32);
                }
            } else {
                state.rows.find(index, &probe, answer, |row| {
                    rows.push(row);
                    found.push((answer + from) as u32);
                });
            }
        }
        let joined = pair_up(&state, &state.rows.slices(0), &rows, &slices, &found);
        drop(fits);
        self.tables.tables[table].branches[branch].calls[call] = state;
        self.meter.rows(joined.len)?;
        self.meter.work(joined.len + to - from)?;
        Ok(joined)
    }

    /// New rows in front of a call with the first `done` answers.
    fn join_rows(
        &mut self,
        table: usize,
        branch: usize,
        call: usize,
        fresh: &Relation,
        done: usize,
    ) -> Result<Relation, QueryError> {
        let state = self.take_call(table, branch, call);
        let shared = shared_places(&state);
        let consts = self.constant_columns(&state, 1);
        let places: Vec<usize> = shared.iter().map(|(arg, _)| *arg).collect();
        let index = self.tables.tables[state.callee].answers.index(&places);
        let answers = &self.tables.tables[state.callee].answers;
        let slices = answers.slices(0);
        let own: Vec<&[Cell]> = fresh.cols.iter().map(Vec::as_slice).collect();
        let probe: Vec<&[Cell]> = shared.iter().map(|(_, var)| own[*var]).collect();
        let (mut rows, mut found) = (Vec::new(), Vec::new());
        let fits = fitting(&state, &slices, &consts);
        for row in 0..fresh.len {
            let mut push = |answer: u32| {
                if (answer as usize) < done && fits(answer as usize) {
                    rows.push(row as u32);
                    found.push(answer);
                }
            };
            if shared.is_empty() {
                (0..done as u32).for_each(&mut push);
            } else {
                answers.find(index, &probe, row, push);
            }
        }
        let joined = pair_up(&state, &own, &rows, &slices, &found);
        drop(fits);
        self.tables.tables[table].branches[branch].calls[call] = state;
        self.meter.rows(joined.len)?;
        self.meter.work(joined.len + fresh.len)?;
        Ok(joined)
    }

    /// Takes a call's state out, so that other tables can be read beside it.
    fn take_call(&mut self, table: usize, branch: usize, call: usize) -> CallState {
        let state = &mut self.tables.tables[table].branches[branch].calls[call];
        std::mem::replace(
            state,
            CallState {
                callee: state.callee,
                args: Vec::new(),
                key: Vec::new(),
                vars: Vec::new(),
                rows: Tuples::default(),
                answers_done: 0,
                wanted: VarSet::default(),
            },
        )
    }

    /// The cells of constant arguments, by place.
    fn constant_columns(&mut self, state: &CallState, _len: usize) -> Vec<Option<Cell>> {
        state
            .args
            .iter()
            .map(|arg| match arg {
                Term::Const(value) => Some(self.dict.cell(value)),
                _ => None,
            })
            .collect()
    }
}

/// Arguments of a call that the rows in front have bound: place of the argument, place of the column.
fn shared_places(state: &CallState) -> Vec<(usize, usize)> {
    state
        .key
        .iter()
        .filter_map(|arg| {
            let var = state.args[*arg].var()?;
            Some((*arg, state.vars.iter().position(|known| *known == var)?))
        })
        .collect()
}

/// Whether an answer has the constants of the call, and equal values where a new variable repeats.
fn fitting<'a>(
    state: &'a CallState,
    answers: &'a [&[Cell]],
    consts: &'a [Option<Cell>],
) -> impl Fn(usize) -> bool + 'a {
    let repeated: Vec<(usize, usize)> = state
        .args
        .iter()
        .enumerate()
        .filter_map(|(place, arg)| {
            let var = arg.var()?;
            let first = state.args.iter().position(|other| other.var() == Some(var))?;
            (first < place).then_some((first, place))
        })
        .collect();
    move |row| {
        consts.iter().enumerate().all(|(place, cell)| cell.is_none_or(|c| answers[place][row] == c))
            && repeated.iter().all(|(a, b)| answers[*a][row] == answers[*b][row])
    }
}

/// Rows in front of a call beside their answers, as far as wanted behind it.
fn pair_up(
    state: &CallState,
    own: &[&[Cell]],
    rows: &[u32],
    answers: &[&[Cell]],
    found: &[u32],
) -> Relation {
    let mut joined = Relation { len: rows.len(), distinct: rows.len() <= 1, ..Relation::default() };
    for (var, col) in state.vars.iter().zip(own) {
        if state.wanted.contains(*var) {
            joined.vars.push(*var);
            joined.cols.push(rows.iter().map(|row| col[*row as usize]).collect());
        }
    }
    for (place, arg) in state.args.iter().enumerate() {
        if let Term::Var(var) = arg
            && state.wanted.contains(*var)
            && !joined.vars.contains(var)
        {
            joined.vars.push(*var);
            joined.cols.push(found.iter().map(|row| answers[place][*row as usize]).collect());
        }
    }
    joined
}
