//! Calls of rules: arguments in, answers out.

use datahike_value::Symbol;

use super::super::plan::{bound_mask, masked};
use super::super::{Env, Run};
use crate::query::ast::{Clause, RuleBranch, SourceRef, Term};
use crate::query::error::QueryError;
use crate::query::relation::{Cell, Relation};
use crate::query::vars::{Var, VarSet};

impl Run<'_> {
    pub(in super::super) fn rule_call(
        &mut self,
        env: Env<'_>,
        source: SourceRef,
        name: &Symbol,
        args: &[Term],
        left: Relation,
    ) -> Result<(Relation, String), QueryError> {
        let rules = self.rules;
        let Some(rule) = rules.find(name) else {
            return Err(QueryError::new("query/where", format!("unknown rule {name}")));
        };
        let default = match source.0 {
            0 => env.default,
            _ => Some(self.source(env, source)?),
        };
        let mask = bound_mask(args, &left.set());
        let (answers, how) = if rules.is_recursive(rule) {
            let mask = self.weakened(rule, mask, args, &left);
            let asked = self.arguments(args, mask, &left);
            let table = self.table((rule, mask, default));
            let refs: Vec<&[Cell]> = asked.cols.iter().map(Vec::as_slice).collect();
            self.tables.tables[table].asked.extend(&refs, asked.len);
            self.fixpoint(rules.group(rule))?;
            let table = &self.tables.tables[table];
            let vars: Vec<Var> = (0..args.len()).map(|place| Var(place as u32)).collect();
            let answers = Relation {
                vars,
                cols: table.answers.cols.clone(),
                len: table.answers.len,
                distinct: true,
                sorted: None,
            };
            (answers, format!("tabled, {} asked, {} answers", table.asked.len, table.answers.len))
        } else {
            (self.inline_rule(rule, mask, default, args, &left)?, "rule in place".to_string())
        };
        let answers = self.as_arguments(answers, args);
        Ok((left.join(&answers), how))
    }

    /// Fewer bound arguments, where all of them together would ask for every pair: keeps those with
    /// one value, and of the others the one with the fewest that changes from call to call.
    fn weakened(&mut self, rule: usize, mask: u64, args: &[Term], left: &Relation) -> u64 {
        if mask.count_ones() < 2 {
            return mask;
        }
        let rules = self.rules;
        let def = rules.def(rule);
        let distinct = |term: &Term| match term {
            Term::Var(var) => left.col(*var).map_or(1, |col| {
                if col.windows(2).all(|pair| pair[0] == pair[1]) {
                    1
                } else {
                    let seen: hashbrown::HashSet<&Cell> = col.iter().collect();
                    seen.len()
                }
            }),
            _ => 1,
        };
        let passed_on = |place: usize| {
            def.branches.iter().all(|branch| {
                branch.body.clauses.iter().all(|clause| match clause {
                    Clause::Rule { name, args, .. } if *name == def.name => {
                        args[place] == Term::Var(branch.head[place])
                    }
                    _ => true,
                })
            })
        };
        let places: Vec<usize> = (0..args.len()).filter(|p| mask >> p & 1 == 1).collect();
        let mut kept = 0u64;
        let mut moving = false;
        let mut best: Option<(usize, usize)> = None;
        for place in places {
            let count = distinct(&args[place]);
            let fixed = passed_on(place);
            if count <= 1 || def.required[place] {
                kept |= 1 << place;
                moving |= !fixed;
            } else if !fixed && best.is_none_or(|(least, _)| count < least) {
                best = Some((count, place));
            }
        }
        if !moving && let Some((_, place)) = best {
            kept |= 1 << place;
        }
        if kept != 0 && self.rule_runs(rule, kept) { kept } else { mask }
    }

    /// Distinct values of the arguments at the places of `mask`; columns by place.
    pub(super) fn arguments(&mut self, args: &[Term], mask: u64, left: &Relation) -> Relation {
        let mut asked = Relation { len: left.len, ..Relation::default() };
        for (place, arg) in args.iter().enumerate().filter(|(place, _)| mask >> place & 1 == 1) {
            let col = match arg {
                Term::Const(value) => vec![self.dict.cell(value); left.len],
                Term::Var(var) => left.col(*var).map(<[Cell]>::to_vec).unwrap_or_default(),
                Term::Blank => Vec::new(),
            };
            asked.vars.push(Var(place as u32));
            asked.cols.push(col);
        }
        asked.dedup();
        asked
    }

    /// Answers (columns by place) under the variables of a call.
    fn as_arguments(&mut self, mut answers: Relation, args: &[Term]) -> Relation {
        let mut keep = vec![true; answers.len];
        let mut filtered = false;
        let mut vars: Vec<Var> = Vec::new();
        let mut cols: Vec<Vec<Cell>> = Vec::new();
        let mut dropped = false;
        for (arg, col) in args.iter().zip(std::mem::take(&mut answers.cols)) {
            match arg {
                Term::Const(value) => {
                    let cell = self.dict.cell(value);
                    keep.iter_mut().zip(&col).for_each(|(keep, other)| *keep &= *other == cell);
                    filtered = true;
                }
                Term::Blank => dropped = true,
                Term::Var(var) => match vars.iter().position(|known| known == var) {
                    Some(place) => {
                        keep.iter_mut()
                            .zip(cols[place].iter().zip(&col))
                            .for_each(|(keep, (a, b))| *keep &= a == b);
                        filtered = true;
                    }
                    None => {
                        vars.push(*var);
                        cols.push(col);
                    }
                },
            }
        }
        let mut relation = Relation {
            vars,
            cols,
            len: answers.len,
            distinct: answers.distinct && !dropped,
            sorted: None,
        };
        if filtered {
            relation.retain(&keep);
        }
        if dropped {
            relation.dedup();
        }
        relation
    }

    /// Evaluates a rule that does not recur: all its answers for the bound arguments of the left
    /// side, columns by place.
    fn inline_rule(
        &mut self,
        rule: usize,
        mask: u64,
        default: Option<usize>,
        args: &[Term],
        left: &Relation,
    ) -> Result<Relation, QueryError> {
        let rules = self.rules;
        let def = rules.def(rule);
        let asked = self.arguments(args, mask, left);
        let mut all = Relation::empty((0..args.len()).map(|place| Var(place as u32)).collect());
        for branch in &def.branches {
            let env = Env { names: &branch.names, default };
            let refs: Vec<&[Cell]> = asked.cols.iter().map(Vec::as_slice).collect();
            let seed = head_relation(branch, mask, &refs, asked.len);
            let wanted: VarSet = branch.head.iter().copied().collect();
            let found = self.conj(env, &branch.body, seed, &wanted)?;
            all.append(by_place(&found, branch));
        }
        all.dedup();
        Ok(all)
    }
}

/// Bound arguments (columns in the order of `mask`) under the head variables of a branch. Rows in
/// which a repeated head variable would have two values are left out.
pub(super) fn head_relation(
    branch: &RuleBranch,
    mask: u64,
    columns: &[&[Cell]],
    len: usize,
) -> Relation {
    let mut keep = vec![true; len];
    let mut seed = Relation { len, distinct: true, ..Relation::default() };
    for (var, col) in masked(&branch.head, mask).zip(columns) {
        match seed.place(var) {
            Some(place) => {
                let first = &seed.cols[place];
                keep.iter_mut()
                    .zip(first.iter().zip(*col))
                    .for_each(|(keep, (a, b))| *keep &= a == b);
            }
            None => {
                seed.vars.push(var);
                seed.cols.push(col.to_vec());
            }
        }
    }
    if keep.iter().any(|keep| !keep) {
        seed.retain(&keep);
    }
    if seed.vars.is_empty() {
        seed.len = seed.len.min(1);
    }
    seed
}

/// Columns of a branch's result in the order of its head.
pub(super) fn by_place_columns<'a>(found: &'a Relation, branch: &RuleBranch) -> Vec<&'a [Cell]> {
    branch.head.iter().filter_map(|var| found.col(*var)).collect()
}

fn by_place(found: &Relation, branch: &RuleBranch) -> Relation {
    let vars = (0..branch.head.len()).map(|place| Var(place as u32)).collect();
    if found.len == 0 {
        return Relation::empty(vars);
    }
    let cols = by_place_columns(found, branch).into_iter().map(<[Cell]>::to_vec).collect();
    Relation { vars, cols, len: found.len, distinct: false, sorted: None }
}
