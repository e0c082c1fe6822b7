//! Rules as the engine needs them: numbered, `or`s that recur made rules of their own, and which
//! rules call each other.

use datahike_value::Symbol;
use hashbrown::HashMap;

use super::super::ast::{Clause, Conj, DEFAULT_SOURCE, Names, RuleBranch, RuleDef, Term};
use super::super::error::QueryError;
use super::super::rules::Rules;
use super::super::vars::{Var, VarSet};
use super::plan::masked;
use super::{Env, Run};

/// The rules of one query.
#[derive(Clone, Debug, Default)]
pub(crate) struct RuleSet {
    source: Rules,
    defs: Vec<RuleDef>,
    places: HashMap<Symbol, usize>,
    /// The group of rules that call each other; groups of lower number call none of a higher one.
    group: Vec<usize>,
    recursive: Vec<bool>,
}

impl RuleSet {
    pub(crate) fn new(source: &Rules) -> Result<Self, QueryError> {
        let mut set = Self { source: source.clone(), ..Self::default() };
        let mut names: Vec<&Symbol> = source.defs.keys().collect();
        names.sort();
        for name in names {
            set.places.insert(name.clone(), set.defs.len());
            set.defs.push(source.defs[name].clone());
        }
        set.find_groups();
        if set.lift_recursive_branches() {
            set.find_groups();
        }
        set.check_negation()?;
        Ok(set)
    }

    pub(crate) fn rules(&self) -> &Rules {
        &self.source
    }

    pub(crate) fn find(&self, name: &Symbol) -> Option<usize> {
        self.places.get(name).copied()
    }

    pub(crate) fn def(&self, rule: usize) -> &RuleDef {
        &self.defs[rule]
    }

    pub(crate) fn is_recursive(&self, rule: usize) -> bool {
        self.recursive[rule]
    }

    pub(crate) fn group(&self, rule: usize) -> usize {
        self.group[rule]
    }

    /// Whether a clause of a rule of this group leads back into it.
    pub(crate) fn recurs(&self, clause: &Clause, group: usize) -> bool {
        match clause {
            Clause::Rule { name, .. } => {
                self.find(name).is_some_and(|rule| self.group[rule] == group)
            }
            Clause::Or { branches, .. } => branches
                .iter()
                .any(|branch| branch.clauses.iter().any(|clause| self.recurs(clause, group))),
            Clause::Not { body, .. } => {
                body.clauses.iter().any(|clause| self.recurs(clause, group))
            }
            _ => false,
        }
    }

    /// Strongly connected components of the graph of calls (Tarjan, without recursion of its own).
    fn find_groups(&mut self) {
        let calls: Vec<Vec<usize>> = self
            .defs
            .iter()
            .map(|def| {
                let mut called = Vec::new();
                def.branches.iter().for_each(|branch| self.calls(&branch.body, &mut called));
                called.sort_unstable();
                called.dedup();
                called
            })
            .collect();
        let n = self.defs.len();
        let (mut order, mut low) = (vec![usize::MAX; n], vec![0; n]);
        let mut on_stack = vec![false; n];
        let mut stack = Vec::new();
        let (mut next, mut groups) = (0, 0);
        self.group = vec![0; n];
        self.recursive = vec![false; n];
        for root in 0..n {
            if order[root] != usize::MAX {
                continue;
            }
            let mut path = vec![(root, 0)];
            while let Some((at, child)) = path.pop() {
                if child == 0 && order[at] == usize::MAX {
                    order[at] = next;
                    low[at] = next;
                    next += 1;
                    stack.push(at);
                    on_stack[at] = true;
                }
                if let Some(&called) = calls[at].get(child) {
                    path.push((at, child + 1));
                    if order[called] == usize::MAX {
                        path.push((called, 0));
                    } else if on_stack[called] {
                        low[at] = low[at].min(order[called]);
                    }
                    continue;
                }
                if low[at] == order[at] {
                    let mut members = Vec::new();
                    while let Some(member) = stack.pop() {
                        on_stack[member] = false;
                        members.push(member);
                        if member == at {
                            break;
                        }
                    }
                    let recursive = members.len() > 1 || calls[at].contains(&at);
                    for member in members {
                        self.group[member] = groups;
                        self.recursive[member] = recursive;
                    }
                    groups += 1;
                }
                if let Some((parent, _)) = path.last() {
                    low[*parent] = low[*parent].min(low[at]);
                }
            }
        }
    }

    fn calls(&self, conj: &Conj, into: &mut Vec<usize>) {
        for clause in &conj.clauses {
            match clause {
                Clause::Rule { name, .. } => into.extend(self.find(name)),
                Clause::Or { branches, .. } => {
                    branches.iter().for_each(|branch| self.calls(branch, into));
                }
                Clause::Not { body, .. } => self.calls(body, into),
                _ => {}
            }
        }
    }

    /// Makes every `or` that leads back into its own group a rule, so that recursion happens in
    /// calls alone. Says whether there was one.
    fn lift_recursive_branches(&mut self) -> bool {
        let mut lifted: Vec<RuleDef> = Vec::new();
        for rule in 0..self.defs.len() {
            let group = self.group[rule];
            let mut branches = std::mem::take(&mut self.defs[rule].branches);
            let name = self.defs[rule].name.clone();
            for branch in &mut branches {
                let names = branch.names.clone();
                self.lift(&mut branch.body, &names, &name, group, &mut lifted);
            }
            self.defs[rule].branches = branches;
        }
        let any = !lifted.is_empty();
        for def in lifted {
            self.places.insert(def.name.clone(), self.defs.len());
            self.defs.push(def);
        }
        any
    }

    fn lift(
        &self,
        conj: &mut Conj,
        names: &Names,
        rule: &Symbol,
        group: usize,
        lifted: &mut Vec<RuleDef>,
    ) {
        for clause in &mut conj.clauses {
            if !self.recurs(clause, group) {
                continue;
            }
            let Clause::Or { branches, join, required, form } = clause else { continue };
            let head: Vec<Var> = join.iter().collect();
            // Spaces cannot stand in a name that a query can write.
            let name =
                Symbol::new(rule.namespace(), &format!("{} or {}", rule.name(), lifted.len()));
            let mut inner = std::mem::take(branches);
            for branch in &mut inner {
                self.lift(branch, names, rule, group, lifted);
            }
            let def = RuleDef {
                name: name.clone(),
                arity: head.len(),
                required: head.iter().map(|var| required.contains(*var)).collect(),
                branches: inner
                    .into_iter()
                    .map(|body| RuleBranch { names: names.clone(), head: head.clone(), body })
                    .collect(),
            };
            let args = head.into_iter().map(Term::Var).collect();
            let form = form.clone();
            *clause = Clause::Rule { source: DEFAULT_SOURCE, name, args, form };
            lifted.push(def);
        }
    }

    /// A rule that holds where it does not hold has no meaning.
    fn check_negation(&self) -> Result<(), QueryError> {
        for (rule, def) in self.defs.iter().enumerate() {
            for branch in &def.branches {
                for clause in &branch.body.clauses {
                    if let Clause::Not { form, .. } = clause
                        && self.recurs(clause, self.group[rule])
                    {
                        let message = format!("rule {} is defined by its own negation", def.name);
                        return Err(QueryError::new("query/rule", message).at(form));
                    }
                }
            }
        }
        Ok(())
    }
}

impl Run<'_> {
    /// Whether every branch of a rule can run and bind its head, given which arguments are bound.
    pub(crate) fn rule_runs(&mut self, rule: usize, mask: u64) -> bool {
        if let Some(known) = self.runnable.get(&(rule, mask)) {
            return *known;
        }
        // Recursive calls are taken to run; one that does not shows in the clause that needs it.
        self.runnable.insert((rule, mask), true);
        let rules = self.rules;
        let def = rules.def(rule);
        let missing = def
            .required
            .iter()
            .enumerate()
            .any(|(place, required)| *required && mask >> place & 1 == 0);
        let runs = !missing
            && def.branches.iter().all(|branch| {
                let env = Env { names: &branch.names, default: None };
                let bound: VarSet = masked(&branch.head, mask).collect();
                self.runs(env, &branch.body, &bound)
                    .is_some_and(|after| branch.head.iter().all(|var| after.contains(*var)))
            });
        self.runnable.insert((rule, mask), runs);
        runs
    }
}
