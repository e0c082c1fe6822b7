//! Functions and predicates by name: the built-in ones and those of the host.

pub(crate) mod collections;
mod compare;
pub(crate) mod numbers;
mod text;

use std::fmt;
use std::sync::Arc;

use datahike_value::{Symbol, Value};
use hashbrown::HashMap;

pub(crate) use self::compare::{equal, less};
use super::error::{QueryError, did_you_mean};

/// A pure function from values to a value. Called once per row, or once per evaluation: the engine
/// decides, and may call it again when a query is re-run after a page fault.
pub type HostFn = Arc<dyn Fn(&[Value]) -> Result<Value, String> + Send + Sync>;

/// Functions, predicates and aggregates that the host adds to the built-in ones, by name. A host
/// function hides a built-in one of the same name.
#[derive(Clone, Default)]
pub struct Functions {
    named: HashMap<Symbol, HostFn>,
    aggregates: HashMap<Symbol, HostFn>,
}

impl fmt::Debug for Functions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Functions")
            .field("named", &self.named.keys().collect::<Vec<_>>())
            .field("aggregates", &self.aggregates.keys().collect::<Vec<_>>())
            .finish()
    }
}

impl Functions {
    /// None but the built-in ones.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a function or predicate. A predicate holds if its result is neither `nil` nor `false`;
    /// a function that returns `nil` drops the row.
    #[must_use]
    pub fn function(
        mut self,
        name: &str,
        function: impl Fn(&[Value]) -> Result<Value, String> + Send + Sync + 'static,
    ) -> Self {
        self.named.insert(Symbol::parse(name), Arc::new(function));
        self
    }

    /// Adds an aggregate. Its arguments are the parameters before the variable, then one vector with
    /// the values of the group.
    #[must_use]
    pub fn aggregate(
        mut self,
        name: &str,
        aggregate: impl Fn(&[Value]) -> Result<Value, String> + Send + Sync + 'static,
    ) -> Self {
        self.aggregates.insert(Symbol::parse(name), Arc::new(aggregate));
        self
    }

    pub(crate) fn named(&self, name: &Symbol) -> Option<&HostFn> {
        self.named.get(name)
    }

    pub(crate) fn named_aggregate(&self, name: &Symbol) -> Option<&HostFn> {
        self.aggregates.get(name).or_else(|| self.named.get(name))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.named.keys().map(Symbol::text)
    }
}

/// A built-in function: fails with one sentence.
pub(crate) type Builtin = fn(&[Value]) -> Result<Value, String>;

/// Functions that need more than their arguments; the engine evaluates them itself.
pub(crate) const SPECIAL: [&str; 7] =
    ["get-else", "get-some", "missing?", "q", "rand", "rand-int", "ground"];

pub(crate) fn builtin(name: &str) -> Option<Builtin> {
    let name = name.strip_prefix("clojure.core/").unwrap_or(name);
    let name = name.strip_prefix("clojure.string/").unwrap_or(name);
    let name = name.strip_prefix("clojure.set/").unwrap_or(name);
    let name = method(name);
    numbers::find(name)
        .or_else(|| compare::find(name))
        .or_else(|| text::find(name))
        .or_else(|| collections::find(name))
}

/// Methods of strings and dates that queries written for the JVM call, by what they are called here.
fn method(name: &str) -> &str {
    match name {
        ".startsWith" => "starts-with?",
        ".endsWith" => "ends-with?",
        ".contains" => "includes?",
        ".length" => "count",
        ".isEmpty" => "empty?",
        ".toUpperCase" => "upper-case",
        ".toLowerCase" => "lower-case",
        ".trim" => "trim",
        ".substring" => "subs",
        ".indexOf" => "index-of",
        ".equals" => "=",
        ".compareTo" => "compare",
        ".toString" => "str",
        ".getTime" => "inst-ms",
        ".before" => "before?",
        ".after" => "after?",
        name => name,
    }
}

pub(crate) fn is_builtin(name: &Symbol) -> bool {
    SPECIAL.contains(&name.text()) || builtin(name.text()).is_some()
}

/// The error for a name that nobody knows.
pub(crate) fn unknown_function(name: &Symbol, host: &Functions) -> QueryError {
    let known = numbers::NAMES
        .iter()
        .chain(compare::NAMES)
        .chain(text::NAMES)
        .chain(collections::NAMES)
        .chain(&SPECIAL)
        .copied()
        .chain(host.names());
    QueryError::new("query/where", format!("unknown function or predicate {name}"))
        .hinting(did_you_mean(name.text(), known))
}

/// Declares a table of built-in functions: the names and the way from a name to its function.
macro_rules! table {
    ($($($name:literal)|+ => $function:expr),* $(,)?) => {
        pub(super) const NAMES: &[&str] = &[$($($name),+),*];

        pub(super) fn find(name: &str) -> Option<super::Builtin> {
            match name {
                $($($name)|+ => Some($function),)*
                _ => None,
            }
        }
    };
}
use table;

fn arity(args: &[Value], expected: impl std::ops::RangeBounds<usize>) -> Result<(), String> {
    if expected.contains(&args.len()) {
        return Ok(());
    }
    let bound = |bound: std::ops::Bound<&usize>| match bound {
        std::ops::Bound::Included(n) => Some(*n),
        std::ops::Bound::Excluded(n) => Some(n.saturating_sub(1)),
        std::ops::Bound::Unbounded => None,
    };
    let expected = match (bound(expected.start_bound()), bound(expected.end_bound())) {
        (Some(low), Some(high)) if low == high => format!("{low}"),
        (Some(low), Some(high)) => format!("{low} to {high}"),
        (low, _) => format!("{} or more", low.unwrap_or(0)),
    };
    Err(format!("takes {expected} arguments, got {}", args.len()))
}

fn one(args: &[Value]) -> Result<&Value, String> {
    arity(args, 1..=1)?;
    Ok(&args[0])
}

fn two(args: &[Value]) -> Result<(&Value, &Value), String> {
    arity(args, 2..=2)?;
    Ok((&args[0], &args[1]))
}

fn wrong(what: &str, value: &Value) -> String {
    format!("expected {what}, got {} {value}", value.type_name())
}
