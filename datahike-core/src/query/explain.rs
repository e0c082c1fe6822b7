//! How a query will be, or was, evaluated: the order of its clauses and why, how each finds its
//! rows, how many were expected and found.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use datahike_value::Value;

/// Time since any fixed moment. The engine has no clock of its own.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// The steps of one evaluation in their order. Steps inside `or`, `not` and rules follow the step
/// that they belong to, one level deeper.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Explanation {
    /// The steps.
    pub steps: Vec<Step>,
    /// What the query probably does not mean, such as an attribute that the database does not know.
    pub notes: Vec<String>,
}

/// One clause at the place where it runs.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Step {
    /// Levels of nesting.
    pub depth: usize,
    /// The clause as written.
    pub clause: Value,
    /// How it is evaluated: index, join, pushed-down filters.
    pub how: String,
    /// Rows expected after it.
    pub estimate: f64,
    /// Clauses that could have run at this place, with the rows expected after each.
    pub instead_of: Vec<(Value, f64)>,
    /// What it met; `None` where the query was not run.
    pub actual: Option<Actual>,
}

/// What a step met when it ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Actual {
    /// Times it ran: a clause of a recursive rule runs once a round.
    pub runs: usize,
    /// Rows before it, over all runs.
    pub rows_in: usize,
    /// Rows after it, over all runs.
    pub rows: usize,
    /// How long it took with all that is inside it, if a clock was given.
    pub time: Option<Duration>,
}

impl Explanation {
    /// As EDN: `{:steps [{:clause … :how … :expected n :rows n :time-us n …} …] :notes […]}`.
    pub fn to_value(&self) -> Value {
        let steps = self.steps.iter().map(|step| {
            let mut parts = vec![
                (Value::keyword("clause"), step.clause.clone()),
                (Value::keyword("depth"), Value::Long(step.depth as i64)),
                (Value::keyword("how"), Value::str(step.how.as_str())),
                (Value::keyword("expected"), Value::Double(step.estimate)),
            ];
            if let Some(actual) = &step.actual {
                parts.push((Value::keyword("runs"), Value::Long(actual.runs as i64)));
                parts.push((Value::keyword("rows-in"), Value::Long(actual.rows_in as i64)));
                parts.push((Value::keyword("rows"), Value::Long(actual.rows as i64)));
                if let Some(time) = actual.time {
                    let micros = i64::try_from(time.as_micros()).unwrap_or(i64::MAX);
                    parts.push((Value::keyword("time-us"), Value::Long(micros)));
                }
            }
            Value::map(parts)
        });
        Value::map([
            (Value::keyword("steps"), Value::vector(steps.collect::<Vec<_>>())),
            (
                Value::keyword("notes"),
                Value::vector(
                    self.notes.iter().map(|note| Value::str(note.as_str())).collect::<Vec<_>>(),
                ),
            ),
        ])
    }
}

/// Other clauses that a line of an explanation names at most.
const OTHERS_SHOWN: usize = 4;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ran = self.steps.iter().any(|step| step.actual.is_some());
        let timed = self.steps.iter().any(|step| step.actual.is_some_and(|a| a.time.is_some()));
        write!(f, "{:>10}", "expected")?;
        if ran {
            write!(f, " {:>10}", "rows")?;
        }
        if timed {
            write!(f, " {:>10}", "time")?;
        }
        writeln!(f, "  clause")?;
        let margin = 12 + 11 * usize::from(ran) + 11 * usize::from(timed);
        for step in &self.steps {
            write!(f, "{:>10}", rounded(step.estimate))?;
            if ran {
                write!(f, " {:>10}", step.actual.unwrap_or_default().rows)?;
            }
            if timed {
                let time = step.actual.unwrap_or_default().time.unwrap_or_default();
                write!(f, " {:>7.3} ms", time.as_secs_f64() * 1e3)?;
            }
            let indent = step.depth * 2;
            writeln!(f, "  {:indent$}{}", "", step.clause)?;
            write!(f, "{:margin$}{:indent$}  {}", "", "", step.how)?;
            match step.actual {
                Some(actual) if actual.runs > 1 => writeln!(f, ", {} times", actual.runs)?,
                _ => writeln!(f)?,
            }
            if !step.instead_of.is_empty() {
                write!(f, "{:margin$}{:indent$}  before", "", "")?;
                for (place, (clause, rows)) in step.instead_of.iter().enumerate() {
                    if place == OTHERS_SHOWN {
                        write!(f, " and {} more", step.instead_of.len() - place)?;
                        break;
                    }
                    let comma = if place == 0 { "" } else { "," };
                    let what = if *rows == 1.0 { "row" } else { "rows" };
                    write!(f, "{comma} {clause} ({} {what})", rounded(*rows))?;
                }
                writeln!(f)?;
            }
        }
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))
    }
}

/// An estimate is no more exact than this.
fn rounded(rows: f64) -> String {
    if rows > 0.0 && rows < 0.95 { format!("{rows:.1}") } else { format!("{rows:.0}") }
}

/// Collects steps while a query runs or is planned.
#[derive(Default)]
pub(crate) struct Trace {
    clock: Option<Clock>,
    /// Steps that are not closed yet: their place and when they began.
    open: Vec<(usize, Duration)>,
    /// What the choice of the next step was between.
    considered: Vec<(Value, f64)>,
    pub(crate) explanation: Explanation,
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").field("explanation", &self.explanation).finish_non_exhaustive()
    }
}

/// A rule that recurs can take any number of steps; these many are kept.
const STEPS_MAX: usize = 2_000;

impl Trace {
    pub(crate) fn new(clock: Option<Clock>) -> Self {
        Self { clock, ..Self::default() }
    }

    fn now(&self) -> Duration {
        self.clock.as_ref().map(|clock| clock()).unwrap_or_default()
    }

    /// The clauses among which the next step is chosen, with the rows expected after each.
    pub(crate) fn consider(&mut self, choices: Vec<(Value, f64)>) {
        self.considered = choices;
    }

    /// Begins a step; its place is for [`Self::close`].
    pub(crate) fn open(&mut self) -> usize {
        let place = self.explanation.steps.len();
        let depth = self.open.len();
        let instead_of = std::mem::take(&mut self.considered);
        if place < STEPS_MAX {
            self.explanation.steps.push(Step {
                depth,
                clause: Value::Nil,
                how: String::new(),
                estimate: 0.0,
                instead_of,
                actual: None,
            });
        }
        let now = self.now();
        self.open.push((place, now));
        place
    }

    pub(crate) fn close(
        &mut self,
        place: usize,
        clause: &Value,
        estimate: f64,
        rows_in: usize,
        rows: usize,
        how: String,
    ) {
        let began = self.open.pop().map(|(_, began)| began).unwrap_or_default();
        let time = self.clock.is_some().then(|| self.now().saturating_sub(began));
        let actual = Actual { runs: 1, rows_in, rows, time };
        self.fill(place, clause, estimate, how, Some(actual));
        self.merge(place);
    }

    /// Ends a step that was planned only.
    pub(crate) fn close_planned(
        &mut self,
        place: usize,
        clause: &Value,
        estimate: f64,
        how: String,
    ) {
        self.open.pop();
        self.fill(place, clause, estimate, how, None);
    }

    fn fill(
        &mut self,
        place: usize,
        clause: &Value,
        estimate: f64,
        how: String,
        actual: Option<Actual>,
    ) {
        if let Some(step) = self.explanation.steps.get_mut(place) {
            step.clause = clause.clone();
            step.estimate = estimate;
            step.how = how;
            step.actual = actual;
            step.instead_of.retain(|(other, _)| other != clause);
        }
    }

    /// The same step of an earlier round and this one become one.
    fn merge(&mut self, place: usize) {
        let steps = &mut self.explanation.steps;
        if place + 1 != steps.len() {
            return;
        }
        let last = &steps[place];
        let earlier = steps[..place]
            .iter()
            .rposition(|step| step.depth < last.depth || step.same_as(last))
            .filter(|earlier| steps[*earlier].same_as(last));
        if let Some(earlier) = earlier
            && let Some(Some(more)) = steps.pop().map(|step| step.actual)
            && let Some(sum) = &mut steps[earlier].actual
        {
            sum.runs += more.runs;
            sum.rows_in += more.rows_in;
            sum.rows += more.rows;
            sum.time = sum.time.zip(more.time).map(|(a, b)| a + b);
        }
    }
}

impl Step {
    fn same_as(&self, other: &Self) -> bool {
        self.depth == other.depth && self.clause == other.clause && self.how == other.how
    }
}
