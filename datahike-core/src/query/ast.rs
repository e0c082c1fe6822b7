//! A query after parsing: names resolved to numbers, scopes made explicit.

use datahike_value::{Symbol, Value};

use super::vars::{Var, VarSet};
use crate::pull::Pattern as PullPattern;

/// A data source by its place in [`Names::sources`]. Place 0 is the default source: `$` in a query,
/// and in a rule the source that the rule was called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SourceRef(pub(crate) usize);

pub(crate) const DEFAULT_SOURCE: SourceRef = SourceRef(0);

/// The names behind the numbers of one query or one rule branch.
#[derive(Clone, Debug, Default)]
pub(crate) struct Names {
    /// By [`Var`]. Variables of inner scopes that hide an outer one have numbers of their own.
    pub(crate) vars: Vec<Symbol>,
    /// By [`SourceRef`]; `$` first.
    pub(crate) sources: Vec<Symbol>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Term {
    Blank,
    Var(Var),
    Const(Value),
}

impl Term {
    pub(crate) fn var(&self) -> Option<Var> {
        match self {
            Self::Var(var) => Some(*var),
            _ => None,
        }
    }
}

/// `[e a v tx added]`, or a row of a collection, as far as written.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    pub(crate) source: SourceRef,
    pub(crate) terms: Vec<Term>,
    pub(crate) form: Value,
}

#[derive(Clone, Debug)]
pub(crate) enum Callee {
    Name(Symbol),
    Var(Var),
}

#[derive(Clone, Debug)]
pub(crate) enum Arg {
    Var(Var),
    Const(Value),
    Source(SourceRef),
    /// `%`, for a nested query.
    Rules,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) callee: Callee,
    pub(crate) args: Vec<Arg>,
    pub(crate) form: Value,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Binding {
    Ignore,
    Var(Var),
    Tuple(Vec<Self>),
    Collection(Box<Self>),
}

impl Binding {
    pub(crate) fn collect(&self, into: &mut Vec<Var>) {
        match self {
            Self::Ignore => {}
            Self::Var(var) => {
                if !into.contains(var) {
                    into.push(*var);
                }
            }
            Self::Tuple(parts) => parts.iter().for_each(|part| part.collect(into)),
            Self::Collection(inner) => inner.collect(into),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) enum Clause {
    Pattern(Pattern),
    Predicate(Call),
    Function {
        call: Call,
        binding: Binding,
    },
    Or {
        branches: Vec<Conj>,
        /// Variables that the clause shares with what surrounds it.
        join: VarSet,
        /// Of these, the ones that must be bound before (`or-join [[?in] ?out]`).
        required: VarSet,
        form: Value,
    },
    Not {
        body: Conj,
        /// Explicit for `not-join`; for `not`, all variables inside.
        join: VarSet,
        explicit: bool,
        form: Value,
    },
    Rule {
        source: SourceRef,
        name: Symbol,
        args: Vec<Term>,
        form: Value,
    },
}

/// Clauses that all must hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conj {
    pub(crate) clauses: Vec<Clause>,
}

impl Clause {
    pub(crate) fn form(&self) -> &Value {
        match self {
            Self::Pattern(pattern) => &pattern.form,
            Self::Predicate(call) | Self::Function { call, .. } => &call.form,
            Self::Or { form, .. } | Self::Not { form, .. } | Self::Rule { form, .. } => form,
        }
    }

    /// Variables that this clause can bind for its surroundings.
    pub(crate) fn binds(&self) -> VarSet {
        let mut set = VarSet::default();
        match self {
            Self::Pattern(pattern) => set.extend(pattern.terms.iter().filter_map(Term::var)),
            Self::Function { binding, .. } => {
                let mut vars = Vec::new();
                binding.collect(&mut vars);
                set.extend(vars);
            }
            Self::Or { branches, join, .. } => {
                for branch in branches {
                    set.union_with(&branch.binds());
                }
                set.intersect_with(join);
            }
            Self::Rule { args, .. } => set.extend(args.iter().filter_map(Term::var)),
            Self::Predicate(_) | Self::Not { .. } => {}
        }
        set
    }

    /// All variables through which this clause is joined to its surroundings.
    pub(crate) fn mentions(&self) -> VarSet {
        let mut set = self.binds();
        match self {
            Self::Predicate(call) => set.extend(call.vars()),
            Self::Function { call, .. } => set.extend(call.vars()),
            Self::Or { join, .. } | Self::Not { join, .. } => set.union_with(join),
            Self::Pattern(_) | Self::Rule { .. } => {}
        }
        set
    }

    /// Variables under a negation that nothing beside it in the same branch binds: if the
    /// surroundings can bind them, they must do so before this clause is evaluated.
    pub(crate) fn negated(&self) -> VarSet {
        match self {
            Self::Not { join, .. } => join.clone(),
            Self::Or { branches, join, .. } => {
                let mut set = VarSet::default();
                for branch in branches {
                    let mut inner = VarSet::default();
                    branch.clauses.iter().for_each(|clause| inner.union_with(&clause.negated()));
                    inner.subtract(&branch.binds());
                    set.union_with(&inner);
                }
                set.intersect_with(join);
                set
            }
            _ => VarSet::default(),
        }
    }
}

impl Call {
    pub(crate) fn vars(&self) -> impl Iterator<Item = Var> + '_ {
        let callee = match &self.callee {
            Callee::Var(var) => Some(*var),
            Callee::Name(_) => None,
        };
        callee.into_iter().chain(self.args.iter().filter_map(|arg| match arg {
            Arg::Var(var) => Some(*var),
            _ => None,
        }))
    }
}

impl Conj {
    pub(crate) fn binds(&self) -> VarSet {
        let mut set = VarSet::default();
        self.clauses.iter().for_each(|clause| set.union_with(&clause.binds()));
        set
    }

    pub(crate) fn mentions(&self) -> VarSet {
        let mut set = VarSet::default();
        self.clauses.iter().for_each(|clause| set.union_with(&clause.mentions()));
        set
    }
}

/// One element of `:find`.
#[derive(Clone, Debug)]
pub(crate) enum FindElement {
    Var(Var),
    Aggregate {
        callee: Callee,
        /// Leading parameters; the last argument is the aggregated variable.
        params: Vec<Arg>,
        over: Var,
        form: Value,
    },
    Pull {
        source: SourceRef,
        var: Var,
        pattern: PullSpec,
    },
}

#[derive(Clone, Debug)]
pub(crate) enum PullSpec {
    Pattern(PullPattern),
    /// From an input.
    Var(Var),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FindShape {
    Relation,
    Collection,
    Tuple,
    Scalar,
}

#[derive(Clone, Debug)]
pub(crate) enum In {
    Source(SourceRef),
    Rules,
    Binding(Binding, Value),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OrderKey {
    Column(usize),
    Var(Var),
}

/// A parsed query.
#[derive(Clone, Debug)]
pub(crate) struct Ast {
    pub(crate) names: Names,
    pub(crate) shape: FindShape,
    pub(crate) find: Vec<FindElement>,
    /// Keys of `:keys`, `:strs` or `:syms`, in the order of `:find`.
    pub(crate) keys: Option<Vec<Value>>,
    pub(crate) with: Vec<Var>,
    pub(crate) inputs: Vec<In>,
    pub(crate) body: Conj,
    /// Column, and whether it descends.
    pub(crate) order_by: Vec<(OrderKey, bool)>,
    pub(crate) limit: Option<usize>,
    pub(crate) offset: usize,
}

/// A rule: its branches agree in name and number of arguments.
#[derive(Clone, Debug)]
pub(crate) struct RuleDef {
    pub(crate) name: Symbol,
    pub(crate) arity: usize,
    /// Positions that must be bound when the rule is called.
    pub(crate) required: Vec<bool>,
    pub(crate) branches: Vec<RuleBranch>,
}

#[derive(Clone, Debug)]
pub(crate) struct RuleBranch {
    pub(crate) names: Names,
    /// Head variables; may repeat.
    pub(crate) head: Vec<Var>,
    pub(crate) body: Conj,
}
