//! Counting checks and printing how they went.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

/// How one check went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As expected.
    Passed,
    /// Not as expected, and how.
    Failed(String),
    /// Not judged, and why.
    Skipped(String),
}

impl Verdict {
    /// How `check` went; a panic in it is a failure like others.
    pub fn of(check: impl FnOnce() -> Result<(), String>) -> Self {
        match catch_unwind(AssertUnwindSafe(check)) {
            Ok(Ok(())) => Self::Passed,
            Ok(Err(reason)) => Self::Failed(reason),
            Err(_) => Self::Failed("it panicked, see above".to_owned()),
        }
    }
}

/// Checks by name, in the order in which they ran.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    checks: Vec<(String, Verdict)>,
}

impl Outcomes {
    /// Adds a check.
    pub fn add(&mut self, name: impl Into<String>, verdict: Verdict) {
        self.checks.push((name.into(), verdict));
    }

    /// How many passed, failed and were skipped.
    pub fn counts(&self) -> (usize, usize, usize) {
        self.checks.iter().fold(
            (0, 0, 0),
            |(passed, failed, skipped), (_, verdict)| match verdict {
                Verdict::Passed => (passed + 1, failed, skipped),
                Verdict::Failed(_) => (passed, failed + 1, skipped),
                Verdict::Skipped(_) => (passed, failed, skipped + 1),
            },
        )
    }

    /// The failed checks with their reasons.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        self.checks.iter().filter_map(|(name, verdict)| match verdict {
            Verdict::Failed(reason) => Some((name.as_str(), reason.as_str())),
            Verdict::Passed | Verdict::Skipped(_) => None,
        })
    }

    /// Prints the failures and, as the last line, the counts. Success if all is well; 1 if a check
    /// failed; 2 if there was none.
    pub fn report(&self, with_skipped: bool) -> ExitCode {
        for (name, reason) in self.failures() {
            println!("{name}: {reason}");
        }
        let (passed, failed, skipped) = self.counts();
        if with_skipped {
            println!("{passed} passed, {failed} failed, {skipped} skipped");
        } else {
            println!("{passed} passed, {failed} failed");
        }
        match (self.checks.is_empty(), failed) {
            (true, _) => ExitCode::from(2),
            (false, 0) => ExitCode::SUCCESS,
            (false, _) => ExitCode::FAILURE,
        }
    }
}
