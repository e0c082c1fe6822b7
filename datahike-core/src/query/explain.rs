//! What the engine did: the order of clauses, how each was evaluated, rows expected and found.

use std::fmt;

use datahike_value::Value;

/// The steps of one evaluation, in the order in which they ran. Steps inside `or`, `not` and rules
/// stand before the step they belong to, indented.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Explanation {
    /// The steps.
    pub steps: Vec<Step>,
}

/// One clause at the place where it ran.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// Levels of nesting.
    pub depth: usize,
    /// The clause as written.
    pub clause: Value,
    /// How it was evaluated: index, join, pushed-down filters.
    pub how: String,
    /// Rows that were there before.
    pub rows_in: usize,
    /// Rows expected after it.
    pub estimate: f64,
    /// Rows after it.
    pub rows: usize,
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>10} {:>10} {:>10}  clause", "rows in", "expected", "rows out")?;
        for step in &self.steps {
            writeln!(
                f,
                "{:>10} {:>10.0} {:>10}  {:indent$}{}  ; {}",
                step.rows_in,
                step.estimate,
                step.rows,
                "",
                step.clause,
                step.how,
                indent = step.depth * 2
            )?;
        }
        Ok(())
    }
}

/// Collects steps while a query runs.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    depth: usize,
    pub(crate) explanation: Explanation,
}

/// A rule that recurs can take any number of steps; these many are kept.
const STEPS_MAX: usize = 2_000;

impl Trace {
    pub(crate) fn open(&mut self) -> usize {
        self.depth += 1;
        self.depth - 1
    }

    pub(crate) fn close(
        &mut self,
        depth: usize,
        clause: &Value,
        estimate: f64,
        rows_in: usize,
        rows: usize,
        how: String,
    ) {
        self.depth = depth;
        if self.explanation.steps.len() < STEPS_MAX {
            let clause = clause.clone();
            self.explanation.steps.push(Step { depth, clause, how, rows_in, estimate, rows });
        }
    }
}
