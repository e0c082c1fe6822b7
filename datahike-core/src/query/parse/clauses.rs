//! `:where` clauses and rules, with their scopes.

use hashbrown::HashMap;

use datahike_value::{Symbol, Value};

use super::super::ast::{
    Arg, Binding, Call, Callee, Clause, Conj, DEFAULT_SOURCE, Names, Pattern, RuleBranch, RuleDef,
    SourceRef, Term,
};
use super::super::error::{QueryError, did_you_mean};
use super::super::vars::{Var, VarSet};
use super::{DEPTH_MAX, is_source, is_variable};

/// Gives names their numbers while clauses are read.
pub(in super::super) struct Scope<'a> {
    names: &'a mut Names,
    visible: HashMap<Symbol, Var>,
    /// What `$` means here: `($other or …)` changes it for what is inside.
    default_source: SourceRef,
    uses_rules: bool,
}

impl<'a> Scope<'a> {
    pub(in super::super) fn new(names: &'a mut Names) -> Self {
        Self { names, visible: HashMap::new(), default_source: DEFAULT_SOURCE, uses_rules: false }
    }

    /// The outermost scope of names that are known already.
    pub(super) fn over(names: &'a mut Names) -> Self {
        let mut visible = HashMap::new();
        for (place, name) in names.vars.iter().enumerate() {
            visible.entry(name.clone()).or_insert(Var(place as u32));
        }
        Self { visible, ..Self::new(names) }
    }

    pub(super) fn uses_rules(&self) -> bool {
        self.uses_rules
    }

    pub(super) fn var(&mut self, symbol: &Symbol) -> Var {
        if let Some(var) = self.visible.get(symbol) {
            return *var;
        }
        let var = Var(self.names.vars.len() as u32);
        self.names.vars.push(symbol.clone());
        self.visible.insert(symbol.clone(), var);
        var
    }

    pub(super) fn source(&mut self, symbol: &Symbol) -> SourceRef {
        if symbol.text() == "$" {
            return self.default_source;
        }
        let place = self.names.sources.iter().position(|name| name == symbol);
        SourceRef(place.unwrap_or_else(|| {
            self.names.sources.push(symbol.clone());
            self.names.sources.len() - 1
        }))
    }

    pub(super) fn arg(&mut self, form: &Value) -> Result<Arg, QueryError> {
        Ok(match form {
            Value::Symbol(symbol) if is_variable(symbol) => Arg::Var(self.var(symbol)),
            Value::Symbol(symbol) if is_source(symbol) => Arg::Source(self.source(symbol)),
            Value::Symbol(symbol) if symbol.text() == "%" => {
                self.uses_rules = true;
                Arg::Rules
            }
            Value::Symbol(symbol) if symbol.text() == "_" => {
                return Err(QueryError::new("parser/where", "_ cannot be an argument").at(form));
            }
            Value::List(items) => match &**items {
                [Value::Symbol(quote), quoted] if quote.text() == "quote" => {
                    Arg::Const(quoted.clone())
                }
                _ => Arg::Const(form.clone()),
            },
            constant => Arg::Const(constant.clone()),
        })
    }

    pub(super) fn binding(&mut self, form: &Value, depth: usize) -> Result<Binding, QueryError> {
        let error = || {
            QueryError::new("parser/binding", "a binding is ?x, _, [?x ...], [?x ?y] or [[?x ?y]]")
                .at(form)
        };
        if depth > DEPTH_MAX {
            return Err(error());
        }
        match form {
            Value::Symbol(symbol) if symbol.text() == "_" => Ok(Binding::Ignore),
            Value::Symbol(symbol) if is_variable(symbol) => Ok(Binding::Var(self.var(symbol))),
            Value::Vector(items) => match &**items {
                [] => Err(error()),
                [inner, Value::Symbol(dots)] if dots.text() == "..." => {
                    Ok(Binding::Collection(Box::new(self.binding(inner, depth + 1)?)))
                }
                [inner @ Value::Vector(_)] => {
                    Ok(Binding::Collection(Box::new(self.binding(inner, depth + 1)?)))
                }
                parts => Ok(Binding::Tuple(
                    parts
                        .iter()
                        .map(|part| self.binding(part, depth + 1))
                        .collect::<Result<_, _>>()?,
                )),
            },
            _ => Err(error()),
        }
    }

    pub(super) fn conj(&mut self, forms: &[Value], depth: usize) -> Result<Conj, QueryError> {
        let mut conj = Conj::default();
        for form in forms {
            self.clause(form, depth, &mut conj.clauses)?;
        }
        Ok(conj)
    }

    /// Reads one clause; `(and …)` gives as many as it has inside.
    fn clause(
        &mut self,
        form: &Value,
        depth: usize,
        into: &mut Vec<Clause>,
    ) -> Result<(), QueryError> {
        if depth > DEPTH_MAX {
            let message = format!("clauses are nested deeper than {DEPTH_MAX}");
            return Err(QueryError::new("parser/where", message).at(form));
        }
        match form {
            Value::List(items) => self.list_clause(form, items, depth, into),
            Value::Vector(items) => {
                into.push(match &**items {
                    [Value::List(call)] => Clause::Predicate(self.call(form, call)?),
                    [Value::List(call), binding] => Clause::Function {
                        call: self.call(form, call)?,
                        binding: self.binding(binding, 0)?,
                    },
                    [Value::Symbol(source), rest @ ..] if is_source(source) => {
                        let source = self.source(source);
                        Clause::Pattern(self.pattern(source, rest, form)?)
                    }
                    terms => Clause::Pattern(self.pattern(self.default_source, terms, form)?),
                });
                Ok(())
            }
            other => Err(QueryError::new(
                "parser/where",
                "a clause is a vector (pattern, predicate, function) or a list (rule, or, not, and)",
            )
            .at(other)),
        }
    }

    fn list_clause(
        &mut self,
        form: &Value,
        items: &[Value],
        depth: usize,
        into: &mut Vec<Clause>,
    ) -> Result<(), QueryError> {
        let (source, items) = match items {
            [Value::Symbol(source), rest @ ..] if is_source(source) => (self.source(source), rest),
            items => (self.default_source, items),
        };
        let Some((Value::Symbol(head), rest)) = items.split_first() else {
            let message = "a list clause begins with a rule's name, or, and, not …";
            return Err(QueryError::new("parser/where", message).at(form));
        };
        let outer = std::mem::replace(&mut self.default_source, source);
        let result = match head.text() {
            "and" => match rest {
                [] => Err(QueryError::new("parser/where", "(and) has no clause").at(form)),
                _ => rest.iter().try_for_each(|inner| self.clause(inner, depth + 1, into)),
            },
            "or" => self.or(form, rest, depth).map(|clause| into.push(clause)),
            "or-join" => self.or_join(form, rest, depth).map(|clause| into.push(clause)),
            "not" => self.not(form, rest, depth).map(|clause| into.push(clause)),
            "not-join" => self.not_join(form, rest, depth).map(|clause| into.push(clause)),
            _ => self.rule_call(form, head, rest, source).map(|clause| into.push(clause)),
        };
        self.default_source = outer;
        result
    }

    fn call(&mut self, form: &Value, items: &[Value]) -> Result<Call, QueryError> {
        let Some((Value::Symbol(head), args)) = items.split_first() else {
            let message = "a call begins with the name of a function or predicate";
            return Err(QueryError::new("parser/where", message).at(form));
        };
        let callee = if is_variable(head) {
            Callee::Var(self.var(head))
        } else {
            Callee::Name(head.clone())
        };
        let args = args.iter().map(|arg| self.arg(arg)).collect::<Result<_, _>>()?;
        Ok(Call { callee, args, form: form.clone() })
    }

    fn term(&mut self, form: &Value) -> Term {
        match form {
            Value::Symbol(symbol) if symbol.text() == "_" => Term::Blank,
            Value::Symbol(symbol) if is_variable(symbol) => Term::Var(self.var(symbol)),
            constant => Term::Const(constant.clone()),
        }
    }

    fn pattern(
        &mut self,
        source: SourceRef,
        terms: &[Value],
        form: &Value,
    ) -> Result<Pattern, QueryError> {
        if terms.is_empty() {
            let message = "a pattern has at least an entity: [?e :attribute ?v]";
            return Err(QueryError::new("parser/where", message).at(form));
        }
        let terms = terms.iter().map(|term| self.term(term)).collect();
        Ok(Pattern { source, terms, form: form.clone() })
    }

    fn rule_call(
        &mut self,
        form: &Value,
        name: &Symbol,
        args: &[Value],
        source: SourceRef,
    ) -> Result<Clause, QueryError> {
        if args.is_empty() {
            let message = format!("the call of rule {name} has no argument");
            return Err(QueryError::new("parser/where", message).at(form));
        }
        self.uses_rules = true;
        let args = args.iter().map(|arg| self.term(arg)).collect();
        Ok(Clause::Rule { source, name: name.clone(), args, form: form.clone() })
    }

    fn or(&mut self, form: &Value, rest: &[Value], depth: usize) -> Result<Clause, QueryError> {
        if rest.is_empty() {
            return Err(QueryError::new("parser/where", "(or) has no branch").at(form));
        }
        let branches: Vec<Conj> = rest
            .iter()
            .map(|branch| self.conj(std::slice::from_ref(branch), depth + 1))
            .collect::<Result<_, _>>()?;
        let free: Vec<VarSet> = branches.iter().map(positive).collect();
        if let Some(odd) = free.iter().position(|vars| *vars != free[0]) {
            let names = |set: &VarSet| {
                let mut names: Vec<&str> =
                    set.iter().map(|var| self.names.vars[var.0 as usize].text()).collect();
                names.sort_unstable();
                format!("[{}]", names.join(" "))
            };
            return Err(QueryError::new(
                "parser/where",
                format!(
                    "all branches of or must use the same variables, found {} and {}",
                    names(&free[0]),
                    names(&free[odd])
                ),
            )
            .at(form)
            .hinting(Some("or-join names the variables that matter outside".into())));
        }
        let mut join = VarSet::default();
        branches.iter().for_each(|branch| join.union_with(&branch.mentions()));
        Ok(Clause::Or { branches, join, required: VarSet::default(), form: form.clone() })
    }

    fn or_join(
        &mut self,
        form: &Value,
        rest: &[Value],
        depth: usize,
    ) -> Result<Clause, QueryError> {
        let Some((Value::Vector(head), rest)) = rest.split_first() else {
            let message = "or-join begins with a vector of variables";
            return Err(QueryError::new("parser/where", message).at(form));
        };
        if rest.is_empty() {
            return Err(QueryError::new("parser/where", "or-join has no branch").at(form));
        }
        let (required, free) = head_vars(head, form)?;
        let joined: Vec<(Symbol, Var)> =
            required.iter().chain(&free).map(|symbol| (symbol.clone(), self.var(symbol))).collect();
        let mut branches = Vec::new();
        for branch in rest {
            let conj =
                self.inner(&joined, |scope| scope.conj(std::slice::from_ref(branch), depth + 1))?;
            let mentions = conj.mentions();
            if let Some((name, _)) = joined.iter().find(|(_, var)| !mentions.contains(*var)) {
                return Err(QueryError::new(
                    "parser/where",
                    format!("{name} is named by or-join, but this branch does not use it"),
                )
                .at(branch));
            }
            branches.push(conj);
        }
        Ok(Clause::Or {
            branches,
            join: joined.iter().map(|(_, var)| *var).collect(),
            required: required.iter().map(|symbol| self.var(symbol)).collect(),
            form: form.clone(),
        })
    }

    fn not(&mut self, form: &Value, rest: &[Value], depth: usize) -> Result<Clause, QueryError> {
        if rest.is_empty() {
            return Err(QueryError::new("parser/where", "(not) has no clause").at(form));
        }
        let body = self.conj(rest, depth + 1)?;
        let join = body.mentions();
        Ok(Clause::Not { body, join, explicit: false, form: form.clone() })
    }

    fn not_join(
        &mut self,
        form: &Value,
        rest: &[Value],
        depth: usize,
    ) -> Result<Clause, QueryError> {
        let Some((Value::Vector(head), rest)) = rest.split_first() else {
            let message = "not-join begins with a vector of variables";
            return Err(QueryError::new("parser/where", message).at(form));
        };
        if rest.is_empty() {
            return Err(QueryError::new("parser/where", "not-join has no clause").at(form));
        }
        let (required, free) = head_vars(head, form)?;
        let joined: Vec<(Symbol, Var)> =
            required.iter().chain(&free).map(|symbol| (symbol.clone(), self.var(symbol))).collect();
        let body = self.inner(&joined, |scope| scope.conj(rest, depth + 1))?;
        let mentions = body.mentions();
        if let Some((name, _)) = joined.iter().find(|(_, var)| !mentions.contains(*var)) {
            let message = format!("{name} is named by not-join, but no clause inside uses it");
            return Err(QueryError::new("parser/where", message).at(form));
        }
        let join = joined.into_iter().map(|(_, var)| var).collect();
        Ok(Clause::Not { body, join, explicit: true, form: form.clone() })
    }

    /// Reads what is inside with only `joined` visible.
    fn inner<T>(
        &mut self,
        joined: &[(Symbol, Var)],
        read: impl FnOnce(&mut Self) -> Result<T, QueryError>,
    ) -> Result<T, QueryError> {
        let visible = joined.iter().cloned().collect();
        let outer = std::mem::replace(&mut self.visible, visible);
        let result = read(self);
        self.visible = outer;
        result
    }
}

/// Variables that a branch of `or` shares with its surroundings for certain: all but those that
/// occur under a negation only.
fn positive(conj: &Conj) -> VarSet {
    let mut set = VarSet::default();
    for clause in &conj.clauses {
        if !matches!(clause, Clause::Not { explicit: false, .. }) {
            set.union_with(&clause.mentions());
        }
    }
    set
}

/// `[[?required …] ?free …]`
fn head_vars(items: &[Value], form: &Value) -> Result<(Vec<Symbol>, Vec<Symbol>), QueryError> {
    let error = |message: &str| QueryError::new("parser/rule-vars", message).at(form);
    let variable = |item: &Value| match item {
        Value::Symbol(symbol) if is_variable(symbol) => Ok(symbol.clone()),
        _ => Err(error("expected variables, the required ones in a vector of their own first")),
    };
    let (required, rest) = match items.split_first() {
        Some((Value::Vector(required), rest)) => {
            (required.iter().map(variable).collect::<Result<Vec<_>, _>>()?, rest)
        }
        _ => (Vec::new(), items),
    };
    let free = rest.iter().map(variable).collect::<Result<Vec<_>, _>>()?;
    if required.is_empty() && free.is_empty() {
        return Err(error("no join variable is named"));
    }
    Ok((required, free))
}

/// Reads a set of rules: `[[(name ?a [?b]) clause …] …]`.
pub(crate) fn parse_rules(form: &Value) -> Result<HashMap<Symbol, RuleDef>, QueryError> {
    let Some(items) = form.as_slice() else {
        let message = "rules are a vector of [(name ?var …) clause …]";
        return Err(QueryError::new("parser/rule", message).at(form));
    };
    let mut rules: HashMap<Symbol, RuleDef> = HashMap::new();
    for item in items {
        let (name, required, branch) = parse_branch(item)?;
        let arity = branch.head.len();
        let rule = rules.entry(name.clone()).or_insert_with(|| RuleDef {
            name,
            arity,
            required: vec![false; arity],
            branches: Vec::new(),
        });
        if rule.arity != arity {
            let message = format!(
                "rule {} has branches with {} and with {arity} arguments",
                rule.name, rule.arity
            );
            return Err(QueryError::new("parser/rule", message).at(item));
        }
        for (all, this) in rule.required.iter_mut().zip(required) {
            *all |= this;
        }
        rule.branches.push(branch);
    }
    for rule in rules.values() {
        for branch in &rule.branches {
            check_calls(&branch.body, &rules)?;
        }
    }
    Ok(rules)
}

fn parse_branch(item: &Value) -> Result<(Symbol, Vec<bool>, RuleBranch), QueryError> {
    let error = |message: &str| QueryError::new("parser/rule", message).at(item);
    let Some([Value::List(head), body @ ..]) = item.as_slice() else {
        return Err(error("a rule is [(name ?var …) clause …]"));
    };
    let Some((Value::Symbol(name), args)) = head.split_first() else {
        return Err(error("a rule begins with its name"));
    };
    if body.is_empty() {
        return Err(error("a rule has at least one clause"));
    }
    let (required, free) = head_vars(args, item)?;
    let mut names = Names { vars: Vec::new(), sources: vec![Symbol::parse("$")] };
    let mut scope = Scope::new(&mut names);
    let vars: Vec<Var> = required.iter().chain(&free).map(|symbol| scope.var(symbol)).collect();
    let body = scope.conj(body, 0)?;
    let mentions = body.mentions();
    if let Some(unused) = vars.iter().find(|var| !mentions.contains(**var)) {
        let name = &names.vars[unused.0 as usize];
        return Err(error(&format!("{name} stands in the head of the rule, but not in its body")));
    }
    let flags = vars.iter().enumerate().map(|(place, _)| place < required.len()).collect();
    // As in Datahike and DataScript, a bracketed variable says what a caller must have bound, but is
    // not joined with what the caller gives if the body binds a variable of that name itself.
    let binds = body.binds();
    let head = vars
        .iter()
        .enumerate()
        .map(|(place, var)| {
            if place < required.len() && binds.contains(*var) {
                names.vars.push(names.vars[var.0 as usize].clone());
                Var(names.vars.len() as u32 - 1)
            } else {
                *var
            }
        })
        .collect();
    Ok((name.clone(), flags, RuleBranch { names, head, body }))
}

/// Every rule called must exist, with as many arguments.
pub(crate) fn check_calls(conj: &Conj, rules: &HashMap<Symbol, RuleDef>) -> Result<(), QueryError> {
    for clause in &conj.clauses {
        match clause {
            Clause::Rule { name, args, form, .. } => match rules.get(name) {
                None => {
                    let hint = if super::super::functions::is_builtin(name) {
                        Some(format!("a predicate is called in a vector: [{form}]"))
                    } else {
                        did_you_mean(name.text(), rules.keys().map(Symbol::text))
                    };
                    return Err(QueryError::new("query/where", format!("unknown rule {name}"))
                        .at(form)
                        .hinting(hint));
                }
                Some(rule) if rule.arity != args.len() => {
                    let message = format!(
                        "rule {name} takes {} arguments, {} are given",
                        rule.arity,
                        args.len()
                    );
                    return Err(QueryError::new("query/where", message).at(form));
                }
                Some(_) => {}
            },
            Clause::Or { branches, .. } => {
                branches.iter().try_for_each(|branch| check_calls(branch, rules))?;
            }
            Clause::Not { body, .. } => check_calls(body, rules)?,
            _ => {}
        }
    }
    Ok(())
}
