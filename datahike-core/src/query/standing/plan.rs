//! Whether a query can be kept up from deltas, and which datoms touch it.

use datahike_value::Value;
use hashbrown::HashSet;

use crate::datom::{AttrId, Datom, EntityId};
use crate::db::Db;
use crate::pull::{Follow, Pattern as PullPattern};
use crate::query::ast::{
    Arg, Ast, Binding, Call, Callee, Clause, Conj, FindElement, FindShape, In, Pattern, PullSpec,
    SourceRef, Term,
};
use crate::query::error::QueryError;
use crate::query::inputs;
use crate::query::run::RuleSet;
use crate::query::source::is_lookup;
use crate::query::vars::{Var, VarSet};
use crate::query::{Input, aggregate};

/// How a result is kept up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strategy {
    /// From the datoms of each transaction.
    Deltas,
    /// By running the query again after a transaction that touches it, for the reason given.
    Again(&'static str),
}

/// Datoms that may change a result: those with all the components that are given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Trigger {
    /// Of this entity.
    pub entity: Option<EntityId>,
    /// Of this attribute.
    pub attribute: Option<AttrId>,
    /// With this value.
    pub value: Option<Value>,
}

impl Trigger {
    /// Whether this is such a datom.
    pub fn fires(&self, datom: &Datom) -> bool {
        self.attribute.is_none_or(|a| a == datom.a)
            && self.entity.is_none_or(|e| e == datom.e)
            && self.value.as_ref().is_none_or(|v| *v == datom.v)
    }
}

#[derive(Debug)]
pub(super) struct Plan {
    pub(super) strategy: Strategy,
    pub(super) triggers: Vec<Trigger>,
    /// A datom more can mean a row less: there is negation, or a function that asks what is there.
    pub(super) two_sided: bool,
    /// Variables that inputs bind to names of entities, which datoms know by number.
    pub(super) named: VarSet,
}

impl Plan {
    pub(super) fn new(
        ast: &Ast,
        inputs: &[Input],
        followed: Option<usize>,
        db: &Db,
    ) -> Result<Self, QueryError> {
        let rules = RuleSet::new(&inputs::rules(ast, inputs)?)?;
        let source = followed.and_then(|place| match ast.inputs.get(place) {
            Some(In::Source(source)) => Some(*source),
            _ => None,
        });
        let mut walk = Walk {
            db,
            rules: &rules,
            fixed: Vec::new(),
            seen: HashSet::new(),
            triggers: HashSet::new(),
            two_sided: false,
            again: None,
            everything: false,
        };
        let mut named = VarSet::default();
        for (declared, input) in ast.inputs.iter().zip(inputs) {
            if let (In::Binding(binding, _), Input::Value(value)) = (declared, input) {
                walk.input(binding, value, &mut named);
            }
        }
        if let Some(source) = source {
            walk.conj(&ast.body, &|at| at == source, true);
            walk.find(ast, source);
        }
        if db.is_filtered() {
            walk.everything = true;
            walk.again = Some("the database is filtered");
        }
        if db.view().is_some_and(|view| !view.as_of().is_empty()) {
            // It stays as it was.
            walk.triggers.clear();
            walk.everything = false;
        }
        let triggers = if walk.everything {
            vec![Trigger::default()]
        } else {
            walk.triggers.into_iter().collect()
        };
        let strategy = walk.again.map_or(Strategy::Deltas, Strategy::Again);
        Ok(Self { strategy, triggers, two_sided: walk.two_sided, named })
    }
}

struct Walk<'a> {
    db: &'a Db,
    rules: &'a RuleSet,
    /// Variables that an input binds to one plain value.
    fixed: Vec<(Var, Value)>,
    seen: HashSet<usize>,
    triggers: HashSet<Trigger>,
    two_sided: bool,
    again: Option<&'static str>,
    everything: bool,
}

impl Walk<'_> {
    fn input(&mut self, binding: &Binding, value: &Value, named: &mut VarSet) {
        let mut names = false;
        self.names(value, &mut names);
        if names {
            let mut vars = Vec::new();
            binding.collect(&mut vars);
            named.extend(vars);
        } else if let Binding::Var(var) = binding
            && !matches!(value, Value::Nil)
        {
            self.fixed.push((*var, value.clone()));
        }
    }

    /// Whether a value has a keyword or symbol in it, or is a lookup ref, whose meaning may change.
    fn names(&mut self, value: &Value, names: &mut bool) {
        if self.lookup(value) {
            *names = true;
        }
        match value {
            Value::Keyword(_) | Value::Symbol(_) => *names = true,
            Value::Vector(items) | Value::List(items) => {
                items.iter().for_each(|item| self.names(item, names));
            }
            Value::Set(items) => items.iter().for_each(|item| self.names(item, names)),
            Value::Map(entries) => entries.iter().for_each(|(k, v)| {
                self.names(k, names);
                self.names(v, names);
            }),
            _ => {}
        }
    }

    /// A lookup ref is resolved when the query runs: what it names may be another entity then.
    fn lookup(&mut self, value: &Value) -> bool {
        let Some([attribute, v]) = value.as_slice().filter(|_| is_lookup(self.db, value)) else {
            return false;
        };
        self.again = Some("a lookup ref in the query may come to mean another entity");
        self.triggers.insert(Trigger {
            attribute: self.db.attr_of(attribute),
            value: Some(v.clone()),
            entity: None,
        });
        true
    }

    fn conj(&mut self, conj: &Conj, followed: &dyn Fn(SourceRef) -> bool, outermost: bool) {
        for clause in &conj.clauses {
            match clause {
                Clause::Pattern(pattern) if followed(pattern.source) => {
                    self.pattern(pattern, outermost);
                }
                Clause::Pattern(_) => {}
                Clause::Predicate(call) | Clause::Function { call, .. } => {
                    self.call(call, followed);
                }
                Clause::Or { branches, .. } => {
                    branches.iter().for_each(|branch| self.conj(branch, followed, outermost));
                }
                Clause::Not { body, .. } => {
                    self.two_sided = true;
                    self.conj(body, followed, outermost);
                }
                Clause::Rule { source, name, .. } => {
                    let Some(rule) = self.rules.find(name) else { continue };
                    if self.rules.is_recursive(rule) {
                        self.again = Some("a rule recurs");
                    }
                    let over = followed(*source);
                    if self.seen.insert(rule) {
                        for branch in &self.rules.def(rule).branches {
                            self.conj(&branch.body, &|at| over && at.0 == 0, false);
                        }
                    }
                }
            }
        }
    }

    fn pattern(&mut self, pattern: &Pattern, outermost: bool) {
        let fixed = |place: usize| match pattern.terms.get(place) {
            Some(Term::Const(value)) => Some(value),
            Some(Term::Var(var)) if outermost => {
                self.fixed.iter().find(|(known, _)| known == var).map(|(_, value)| value)
            }
            _ => None,
        };
        let attribute = match (pattern.terms.get(1), fixed(1)) {
            (_, Some(value)) => match self.db.attr_of(value) {
                Some(a) => Some(a),
                // Nothing can have it before the schema changes.
                None => return,
            },
            _ => None,
        };
        let is_ref = attribute.is_none_or(|a| self.db.schema().attribute(a).is_ref());
        let entity = fixed(0).and_then(Value::as_long).and_then(|e| u64::try_from(e).ok());
        // Numbers of different types may be equal to the engine.
        let value = fixed(2).filter(|value| match value {
            Value::Str(_) | Value::Uuid(_) | Value::Inst(_) => true,
            Value::Keyword(_) | Value::Bool(_) => !is_ref,
            Value::Long(_) => is_ref,
            _ => false,
        });
        let trigger = Trigger { entity, attribute, value: value.cloned() };
        let lookups: Vec<Value> = [0, 2]
            .into_iter()
            .filter_map(fixed)
            .filter(|v| v.as_slice().is_some())
            .cloned()
            .collect();
        self.triggers.insert(trigger);
        lookups.iter().for_each(|value| {
            self.lookup(value);
        });
    }

    fn call(&mut self, call: &Call, followed: &dyn Fn(SourceRef) -> bool) {
        let Callee::Name(name) = &call.callee else {
            if call.args.iter().any(|arg| matches!(arg, Arg::Source(_) | Arg::Rules)) {
                self.again = Some("a function that is given by an input reads the database");
                self.everything = true;
            }
            return;
        };
        match name.text() {
            "get-else" | "missing?" | "get-some" => {
                let Some(Arg::Source(source)) = call.args.first() else { return };
                if !followed(*source) {
                    return;
                }
                self.two_sided = true;
                if let Some(Arg::Const(entity)) = call.args.get(1) {
                    self.lookup(entity);
                }
                let attributes = call.args.iter().skip(2);
                let one = name.text() != "get-some";
                for attribute in attributes.take(if one { 1 } else { usize::MAX }) {
                    match attribute {
                        Arg::Const(value) => {
                            let Some(a) = self.db.attr_of(value) else { continue };
                            self.triggers
                                .insert(Trigger { attribute: Some(a), ..Trigger::default() });
                        }
                        _ => self.everything = true,
                    }
                }
            }
            "rand" | "rand-int" => self.again = Some("it asks for random numbers"),
            "q" => {
                self.again = Some("it holds another query");
                self.everything = true;
            }
            _ => {
                let reads = |arg: &Arg| matches!(arg, Arg::Source(at) if followed(*at));
                if call.args.iter().any(|arg| reads(arg) || matches!(arg, Arg::Rules)) {
                    self.again = Some("a function reads the database");
                    self.everything = true;
                }
            }
        }
    }

    fn find(&mut self, ast: &Ast, followed: SourceRef) {
        let aggregates =
            ast.find.iter().any(|element| matches!(element, FindElement::Aggregate { .. }));
        let keys = ast.find.iter().any(|element| !matches!(element, FindElement::Aggregate { .. }));
        if ast.limit.is_some() || ast.offset > 0 {
            self.again = Some("it shows a part of its rows");
        }
        if matches!(ast.shape, FindShape::Tuple | FindShape::Scalar) && (!aggregates || keys) {
            self.again = Some("it shows one of its rows");
        }
        for element in &ast.find {
            match element {
                FindElement::Var(_) => {}
                FindElement::Pull { source, pattern, .. } => {
                    if aggregates {
                        self.again = Some("it pulls and aggregates");
                    }
                    match pattern {
                        PullSpec::Pattern(pattern) if *source == followed => self.pulled(pattern),
                        PullSpec::Var(_) if *source == followed => self.everything = true,
                        _ => self.again = Some("it pulls from another database"),
                    }
                }
                FindElement::Aggregate { callee, params, .. } => {
                    let known = match callee {
                        Callee::Name(name) => {
                            let name = name.text();
                            aggregate::NAMES.contains(&name) && !matches!(name, "rand" | "sample")
                        }
                        Callee::Var(_) => false,
                    };
                    if !known || params.iter().any(|param| !matches!(param, Arg::Const(_))) {
                        self.again = Some("it has an aggregate that is not known to be pure");
                    }
                }
            }
        }
    }

    fn pulled(&mut self, pattern: &PullPattern) {
        if pattern.wildcard {
            self.everything = true;
            return;
        }
        for attribute in &pattern.attributes {
            let Some(a) = self.db.attr_of(&attribute.attribute) else { continue };
            self.triggers.insert(Trigger { attribute: Some(a), ..Trigger::default() });
            match &attribute.follow {
                Follow::Pattern(inner) => self.pulled(inner),
                // A component is pulled whole.
                Follow::Default if self.db.schema().attribute(a).is_component => {
                    self.everything = true;
                }
                Follow::Default | Follow::Recursion(_) => {}
            }
        }
    }
}
