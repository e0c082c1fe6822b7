//! The plan of a query, without running it.

use datahike_value::Value;

use super::ast::{
    Arg, Ast, Call, Callee, Clause, Conj, FindElement, Pattern, PullSpec, SourceRef, Term,
};
use super::error::{QueryError, did_you_mean};
use super::explain::Trace;
use super::run::{Env, Run};
use super::source::Source;
use super::vars::VarSet;
use crate::db::Db;
use crate::pull;

/// Rules are planned no deeper than this.
const DEPTH_MAX: usize = 8;

impl Run<'_> {
    /// Notes the steps in the order in which they would run, and returns the rows expected in the end.
    pub(crate) fn foresee(
        &mut self,
        env: Env<'_>,
        conj: &Conj,
        bound: &VarSet,
        rows: f64,
        depth: usize,
    ) -> Result<f64, QueryError> {
        let mut bound = bound.clone();
        let mut rows = rows;
        let mut pending: Vec<&Clause> = conj.clauses.iter().collect();
        while !pending.is_empty() {
            self.meter.work(64)?;
            let at_hand = rows.ceil().clamp(1.0, 1e12) as usize;
            let Some(next) = self.choose(env, &pending, &bound, at_hand) else { break };
            let clause = pending.remove(next.place);
            let place = self.trace.as_mut().map(Trace::open);
            let how = self.how(env, clause, &bound, rows, depth)?;
            let estimate = next.estimate.min(rows.max(1.0) * 1e12);
            if let (Some(trace), Some(place)) = (self.trace.as_mut(), place) {
                trace.close_planned(place, clause.form(), estimate, how);
            }
            rows = estimate;
            bound.union_with(&clause.binds());
        }
        Ok(rows)
    }

    fn how(
        &mut self,
        env: Env<'_>,
        clause: &Clause,
        bound: &VarSet,
        rows: f64,
        depth: usize,
    ) -> Result<String, QueryError> {
        if depth > DEPTH_MAX {
            return Ok("as above".into());
        }
        let inside = |join: &VarSet| {
            let mut visible = bound.clone();
            visible.intersect_with(join);
            visible
        };
        Ok(match clause {
            Clause::Pattern(pattern) => self.access(env, pattern, bound, rows),
            Clause::Predicate(_) => "filter".into(),
            Clause::Function { .. } => "call for each row".into(),
            Clause::Or { branches, join, .. } => {
                for branch in branches {
                    self.foresee(env, branch, &inside(join), rows, depth + 1)?;
                }
                "union of the branches".into()
            }
            Clause::Not { body, join, .. } => {
                self.foresee(env, body, &inside(join), rows, depth + 1)?;
                "anti-join with what is inside".into()
            }
            Clause::Rule { source, name, args, .. } => {
                let rules = self.rules;
                let Some(rule) = rules.find(name) else { return Ok("rule".into()) };
                let default = self.source(env, *source).ok();
                let recursive = rules.is_recursive(rule);
                let known = |term: &Term| match term {
                    Term::Const(_) => true,
                    Term::Var(var) => bound.contains(*var),
                    Term::Blank => false,
                };
                let goal = args.iter().any(known);
                if !recursive {
                    for branch in &rules.def(rule).branches {
                        let heads = branch.head.iter().zip(args);
                        let inner = heads.filter(|(_, arg)| known(arg)).map(|(var, _)| *var);
                        let env = Env { names: &branch.names, default };
                        self.foresee(env, &branch.body, &inner.collect(), rows, depth + 1)?;
                    }
                }
                match (recursive, goal) {
                    (false, _) => "rule, its branches below".into(),
                    (true, true) => "recursive rule, tabled from what is bound".into(),
                    (true, false) => "recursive rule, tabled in full: no argument is bound".into(),
                }
            }
        })
    }

    fn access(&self, env: Env<'_>, pattern: &Pattern, bound: &VarSet, rows: f64) -> String {
        let found = self.selectivity(env, pattern, bound);
        let place = self.source(env, pattern.source).ok();
        let Some((_, source)) = place.and_then(|place| self.sources.get(place)) else {
            return "scan".into();
        };
        let known = |place: usize| match pattern.terms.get(place) {
            Some(Term::Const(_)) => true,
            Some(Term::Var(var)) => bound.contains(*var),
            _ => false,
        };
        match source {
            Source::Rows(all) => format!("join with a collection of {} rows", all.len()),
            Source::Db(db) => {
                if let Some(Term::Const(attribute)) = pattern.terms.get(1)
                    && db.attr_of(attribute).is_none()
                {
                    return format!("no datom has {attribute}");
                }
                let index = match (known(0), known(1), known(2)) {
                    (true, true, _) => "aevt",
                    (true, ..) => "eavt",
                    (false, true, true) if found.can_probe => "avet",
                    (false, true, _) => "aevt",
                    (false, false, _) => "eavt",
                };
                if found.probes(rows) {
                    let each = if rows <= 1.0 { "" } else { " for each row" };
                    format!("look-up in {index}{each}, about {:.0} datoms", found.per_row.ceil())
                } else {
                    format!("scan of {index}, about {:.0} datoms", found.scanned.ceil())
                }
            }
        }
    }

    /// Attributes that are written in a query and that its databases do not know.
    pub(crate) fn unknown_attributes(&self, env: Env<'_>, ast: &Ast, body: &Conj) -> Vec<Unknown> {
        let mut unknown = Vec::new();
        self.unknown_in(env, body, &mut unknown);
        for element in &ast.find {
            if let FindElement::Pull { source, pattern: PullSpec::Pattern(pattern), .. } = element
                && let Some(db) = self.database(env, *source)
            {
                unknown_in_pull(db, pattern, &mut unknown);
            }
        }
        unknown
    }

    /// The same in words, and in the rules too, as far as they are called with the default source.
    pub(crate) fn unknown_anywhere(&self, env: Env<'_>, ast: &Ast, body: &Conj) -> Vec<String> {
        let mut unknown = self.unknown_attributes(env, ast, body);
        let rules = self.rules.rules();
        for branch in rules.defs.values().flat_map(|rule| &rule.branches) {
            let env = Env { names: &branch.names, default: env.default };
            self.unknown_in(env, &branch.body, &mut unknown);
        }
        let mut notes: Vec<String> = unknown.iter().map(Unknown::note).collect();
        notes.sort();
        notes.dedup();
        notes
    }

    fn database(&self, env: Env<'_>, source: SourceRef) -> Option<&Db> {
        let place = self.source(env, source).ok()?;
        match &self.sources.get(place)?.1 {
            Source::Db(db) => Some(db),
            Source::Rows(_) => None,
        }
    }

    fn unknown_in(&self, env: Env<'_>, conj: &Conj, into: &mut Vec<Unknown>) {
        for clause in &conj.clauses {
            match clause {
                Clause::Pattern(pattern) => {
                    if let (Some(Term::Const(attribute)), Some(db)) =
                        (pattern.terms.get(1), self.database(env, pattern.source))
                    {
                        into.extend(Unknown::of(db, attribute, &pattern.form));
                    }
                }
                Clause::Predicate(call) | Clause::Function { call, .. } => {
                    let Some(db) = call.source().and_then(|source| self.database(env, source))
                    else {
                        continue;
                    };
                    into.extend(call.attributes().filter_map(|a| Unknown::of(db, a, &call.form)));
                }
                Clause::Or { branches, .. } => {
                    branches.iter().for_each(|branch| self.unknown_in(env, branch, into));
                }
                Clause::Not { body, .. } => self.unknown_in(env, body, into),
                Clause::Rule { .. } => {}
            }
        }
    }
}

fn unknown_in_pull(db: &Db, pattern: &pull::Pattern, into: &mut Vec<Unknown>) {
    for attribute in &pattern.attributes {
        into.extend(Unknown::of(db, &attribute.attribute, &attribute.attribute));
        if let pull::Follow::Pattern(inner) = &attribute.follow {
            unknown_in_pull(db, inner, into);
        }
    }
}

/// An attribute that a database does not know.
pub(crate) struct Unknown {
    form: Value,
    message: String,
    hint: Option<String>,
}

impl Unknown {
    fn of(db: &Db, attribute: &Value, form: &Value) -> Option<Self> {
        let Value::Keyword(ident) = attribute else { return None };
        if db.schema().attr_id(ident).is_some() {
            return None;
        }
        let known: Vec<String> =
            db.schema().attributes().iter().map(|known| known.ident.to_string()).collect();
        let hint = did_you_mean(&ident.to_string(), known.iter().map(String::as_str));
        Some(Self { form: form.clone(), message: format!("unknown attribute {ident}"), hint })
    }

    fn note(&self) -> String {
        let hint = self.hint.as_ref().map(|hint| format!(", {hint}")).unwrap_or_default();
        format!("{}{hint}", self.message)
    }

    pub(crate) fn into_error(self) -> QueryError {
        QueryError::new("query/attribute", self.message).at(&self.form).hinting(self.hint)
    }
}

impl Call {
    /// The source that `get-else`, `get-some` and `missing?` read.
    fn source(&self) -> Option<SourceRef> {
        match (&self.callee, self.args.first()) {
            (Callee::Name(name), Some(Arg::Source(source)))
                if matches!(name.text(), "get-else" | "get-some" | "missing?") =>
            {
                Some(*source)
            }
            _ => None,
        }
    }

    /// The constant attributes among their arguments.
    fn attributes(&self) -> impl Iterator<Item = &Value> {
        let many = match &self.callee {
            Callee::Name(name) if name.text() == "get-some" => usize::MAX,
            _ => 1,
        };
        self.args.iter().skip(2).take(many).filter_map(|arg| match arg {
            Arg::Const(value) => Some(value),
            _ => None,
        })
    }
}
