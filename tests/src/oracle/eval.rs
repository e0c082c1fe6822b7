//! Answering a query by scanning.

use std::collections::{BTreeMap, BTreeSet};

use datahike_value::Value;

use super::functions::{self, Outcome};
use super::query::{Binding, Clause, In, Query, RuleBranch, Term};
use super::{Fact, OracleError, find};

/// What one row binds.
pub(super) type Row = BTreeMap<String, Value>;

/// Rows between two clauses beyond which the oracle gives up: it is slow.
const MOST_ROWS: usize = 4000;

type Rows = BTreeSet<Row>;
type Answer<T> = Result<T, OracleError>;

/// What is handed in for one element of `:in`.
#[derive(Clone, Debug)]
pub enum Input {
    /// A database: what a view of it sees.
    Facts(Vec<Fact>),
    /// A collection of tuples in place of a database.
    Tuples(Vec<Vec<Value>>),
    /// The rules for `%`.
    Rules(Vec<RuleBranch>),
    /// Values.
    Value(Value),
}

/// The answer to `query`: a set of vectors, or a vector where multiplicity counts, or what the shape
/// asks for. Where a shape picks any row, the vector of all rows that it may pick from.
///
/// # Errors
/// If the oracle cannot answer it.
pub fn answer(query: &Query, inputs: &[Input]) -> Answer<Value> {
    let mut world = World::default();
    let mut rows = Rows::from([Row::new()]);
    for (declared, given) in query.inputs.iter().zip(inputs) {
        match (declared, given) {
            (In::Source(name), Input::Facts(facts)) => {
                let tuples = facts.iter().map(tuple).collect();
                world.sources.insert(name.clone(), tuples);
            }
            (In::Source(name), Input::Tuples(tuples)) => {
                world.sources.insert(name.clone(), tuples.clone());
            }
            (In::Rules, Input::Rules(rules)) => world.rules = rules.clone(),
            (In::Values(binding), Input::Value(value)) => {
                rows = rows.iter().flat_map(|row| bind(row, binding, value)).collect();
            }
            _ => return Err(OracleError::Form(format!("{declared:?} given {given:?}"))),
        }
    }
    let mut bound = BTreeSet::new();
    for declared in &query.inputs {
        if let In::Values(binding) = declared {
            variables_of_binding(binding, &mut bound);
        }
    }
    world.close_rules()?;
    let mut known = bound.clone();
    query.clauses.iter().for_each(|clause| binds(clause, &mut known));
    needs_names(&find::columns(query)?, &known)?;
    let rows = world.conjunction(&query.clauses, rows, bound)?;
    find::shape(query, &rows)
}

fn tuple(fact: &Fact) -> Vec<Value> {
    let Fact { entity, attribute, value, tx, added } = fact;
    vec![(*entity).into(), attribute.into(), value.clone(), (*tx).into(), (*added).into()]
}

#[derive(Default)]
struct World {
    sources: BTreeMap<String, Vec<Vec<Value>>>,
    rules: Vec<RuleBranch>,
    /// What each rule is known to hold for.
    relations: BTreeMap<String, BTreeSet<Vec<Value>>>,
}

impl World {
    /// Evaluates all branches over what is known until nothing new comes.
    fn close_rules(&mut self) -> Answer<()> {
        loop {
            let mut grown = self.relations.clone();
            for rule in &self.rules {
                let rows =
                    self.conjunction(&rule.body, Rows::from([Row::new()]), BTreeSet::new())?;
                let relation = grown.entry(rule.name.clone()).or_default();
                for row in rows {
                    let values: Option<Vec<Value>> =
                        rule.head.iter().map(|name| row.get(name).cloned()).collect();
                    relation.insert(
                        values.ok_or_else(|| OracleError::Unbound(format!("{:?}", rule.head)))?,
                    );
                }
            }
            if grown == self.relations {
                return Ok(());
            }
            self.relations = grown;
        }
    }

    /// The rows that satisfy all clauses, taken in the first order in which each has what it needs;
    /// negation last.
    fn conjunction(&self, clauses: &[Clause], rows: Rows, bound: BTreeSet<String>) -> Answer<Rows> {
        let mut pending: Vec<&Clause> = clauses.iter().collect();
        pending.sort_by_key(|clause| matches!(clause, Clause::Not { .. }));
        let (mut rows, mut bound) = (rows, bound);
        while !pending.is_empty() {
            let mut chosen = None;
            for (place, clause) in pending.iter().enumerate() {
                match self.clause(clause, &rows, &bound) {
                    Ok(next) => {
                        chosen = Some((place, next));
                        break;
                    }
                    Err(OracleError::Unbound(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            let Some((place, next)) = chosen else {
                return Err(OracleError::Unbound(format!("{:?}", pending[0])));
            };
            if next.len() > MOST_ROWS {
                return Err(OracleError::TooLarge);
            }
            binds(pending.remove(place), &mut bound);
            rows = next;
        }
        Ok(rows)
    }

    fn clause(&self, clause: &Clause, rows: &Rows, bound: &BTreeSet<String>) -> Answer<Rows> {
        match clause {
            Clause::Pattern { source, terms } => {
                let tuples = self
                    .sources
                    .get(source)
                    .ok_or_else(|| OracleError::Form(format!("unknown source {source}")))?;
                Ok(join(rows, tuples.iter().map(Vec::as_slice), terms))
            }
            Clause::Rule { name, arguments } => {
                let known = BTreeSet::new();
                let tuples = self.relations.get(name).unwrap_or(&known);
                Ok(join(rows, tuples.iter().map(Vec::as_slice), arguments))
            }
            Clause::Predicate { function, arguments } => {
                let mut kept = Rows::new();
                needs(arguments, bound)?;
                for row in rows {
                    if let Outcome::Value(value) = self.call(function, arguments, row)?
                        && value.is_truthy()
                    {
                        kept.insert(row.clone());
                    }
                }
                Ok(kept)
            }
            Clause::Function { function, arguments, binding } => {
                let mut extended = Rows::new();
                needs(arguments, bound)?;
                for row in rows {
                    if let Outcome::Value(value) = self.call(function, arguments, row)? {
                        extended.extend(bind(row, binding, &value));
                    }
                }
                Ok(extended)
            }
            Clause::Not { join, body } => {
                if let Some(join) = join {
                    needs_names(join, bound)?;
                }
                let mut kept = Rows::new();
                for row in rows {
                    if self.inner(body, join.as_deref(), row, bound)?.is_empty() {
                        kept.insert(row.clone());
                    }
                }
                Ok(kept)
            }
            Clause::Or { join, branches } => {
                let mut found = Rows::new();
                for row in rows {
                    for branch in branches {
                        for inner in self.inner(branch, join.as_deref(), row, bound)? {
                            let mut merged = row.clone();
                            for (name, value) in inner {
                                if join.as_ref().is_none_or(|join| join.contains(&name)) {
                                    merged.insert(name, value);
                                }
                            }
                            found.insert(merged);
                        }
                    }
                }
                // With no row there is nothing to find, but a missing binding is one all the same.
                if rows.is_empty() {
                    for branch in branches {
                        self.conjunction(branch, Rows::new(), visible(join.as_deref(), bound))?;
                    }
                }
                Ok(found)
            }
        }
    }

    /// The rows of `body` for one row around it, of which it sees the variables in `join`.
    fn inner(
        &self,
        body: &[Clause],
        join: Option<&[String]>,
        row: &Row,
        bound: &BTreeSet<String>,
    ) -> Answer<Rows> {
        let visible = visible(join, bound);
        let seen = row.iter().filter(|(name, _)| visible.contains(*name));
        let seen = seen.map(|(name, value)| (name.clone(), value.clone())).collect();
        self.conjunction(body, Rows::from([seen]), visible)
    }

    fn call(&self, function: &str, arguments: &[Term], row: &Row) -> Answer<Outcome> {
        let source = match arguments.first() {
            Some(Term::Source(name)) => self.sources.get(name).map(Vec::as_slice),
            _ => None,
        };
        let values: Vec<Value> = arguments
            .iter()
            .filter(|term| !matches!(term, Term::Source(_)))
            .map(|term| match term {
                Term::Var(name) => {
                    row.get(name).cloned().ok_or_else(|| OracleError::Unbound(name.clone()))
                }
                Term::Constant(value) => Ok(value.clone()),
                Term::Blank | Term::Source(_) => Err(OracleError::Form(format!("{arguments:?}"))),
            })
            .collect::<Answer<_>>()?;
        match source {
            Some(tuples) => functions::call_with_source(function, tuples, &values),
            None => functions::call(function, &values),
        }
    }
}

/// What the inside of a clause sees of its surroundings.
fn visible(join: Option<&[String]>, bound: &BTreeSet<String>) -> BTreeSet<String> {
    bound.iter().filter(|name| join.is_none_or(|join| join.contains(name))).cloned().collect()
}

fn join<'a>(
    rows: &Rows,
    tuples: impl Iterator<Item = &'a [Value]> + Clone,
    terms: &[Term],
) -> Rows {
    let mut joined = Rows::new();
    for row in rows {
        for tuple in tuples.clone() {
            if let Some(row) = matched(row, tuple, terms) {
                joined.insert(row);
            }
        }
    }
    joined
}

fn matched(row: &Row, tuple: &[Value], terms: &[Term]) -> Option<Row> {
    if terms.len() > tuple.len() {
        return None;
    }
    let excluded = terms.iter().zip(tuple).any(|(term, value)| match term {
        Term::Constant(constant) => constant != value,
        Term::Var(name) => row.get(name).is_some_and(|known| known != value),
        Term::Blank | Term::Source(_) => false,
    });
    if excluded {
        return None;
    }
    let mut row = row.clone();
    for (term, value) in terms.iter().zip(tuple) {
        match term {
            // One variable may stand in two places of the pattern.
            Term::Var(name) => {
                if row.entry(name.clone()).or_insert_with(|| value.clone()) != value {
                    return None;
                }
            }
            Term::Blank | Term::Constant(_) | Term::Source(_) => {}
        }
    }
    Some(row)
}

fn bind(row: &Row, binding: &Binding, value: &Value) -> Vec<Row> {
    let items = match value {
        Value::Vector(items) | Value::List(items) => items.to_vec(),
        Value::Set(items) => items.iter().cloned().collect(),
        _ => Vec::new(),
    };
    match binding {
        Binding::Ignore => vec![row.clone()],
        Binding::Var(name) => {
            let mut row = row.clone();
            let known = row.entry(name.clone()).or_insert_with(|| value.clone());
            if known == value { vec![row] } else { Vec::new() }
        }
        Binding::Collection(inner) => {
            items.iter().flat_map(|item| bind(row, inner, item)).collect()
        }
        Binding::Tuple(places) => {
            places.iter().zip(&items).fold(vec![row.clone()], |rows, (place, item)| {
                rows.iter().flat_map(|row| bind(row, place, item)).collect()
            })
        }
        Binding::Relation(columns) => {
            let columns = Binding::Tuple(columns.clone());
            items.iter().flat_map(|item| bind(row, &columns, item)).collect()
        }
    }
}

fn needs(arguments: &[Term], bound: &BTreeSet<String>) -> Answer<()> {
    arguments.iter().try_for_each(|term| match term {
        Term::Var(name) if !bound.contains(name) => Err(OracleError::Unbound(name.clone())),
        _ => Ok(()),
    })
}

fn needs_names(names: &[String], bound: &BTreeSet<String>) -> Answer<()> {
    match names.iter().find(|name| !bound.contains(*name)) {
        Some(name) => Err(OracleError::Unbound(name.clone())),
        None => Ok(()),
    }
}

/// The variables that rows have after `clause`.
fn binds(clause: &Clause, bound: &mut BTreeSet<String>) {
    let terms = |terms: &[Term], bound: &mut BTreeSet<String>| {
        bound.extend(terms.iter().filter_map(|term| match term {
            Term::Var(name) => Some(name.clone()),
            _ => None,
        }));
    };
    match clause {
        Clause::Pattern { terms: places, .. } | Clause::Rule { arguments: places, .. } => {
            terms(places, bound);
        }
        Clause::Function { binding, .. } => variables_of_binding(binding, bound),
        Clause::Or { join: Some(join), .. } => bound.extend(join.iter().cloned()),
        Clause::Or { join: None, branches } => {
            branches.iter().flatten().for_each(|clause| binds(clause, bound));
        }
        Clause::Predicate { .. } | Clause::Not { .. } => {}
    }
}

fn variables_of_binding(binding: &Binding, bound: &mut BTreeSet<String>) {
    match binding {
        Binding::Ignore => {}
        Binding::Var(name) => {
            bound.insert(name.clone());
        }
        Binding::Collection(inner) => variables_of_binding(inner, bound),
        Binding::Tuple(places) | Binding::Relation(places) => {
            places.iter().for_each(|place| variables_of_binding(place, bound));
        }
    }
}
