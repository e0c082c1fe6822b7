//! Running a list of commands to its end and saying at the end how each went.

use std::process::Command;
use std::time::{Duration, Instant};

/// How one step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

/// A run of named steps. A failing step does not stop the others: one run shows
/// everything that is wrong.
#[derive(Default)]
pub(crate) struct Run {
    steps: Vec<(String, Outcome, Duration)>,
}

impl Run {
    /// Runs `command` with its output passed through.
    pub(crate) fn command(&mut self, name: &str, command: &mut Command) {
        self.step(name, || {
            let status = command
                .status()
                .map_err(|error| format!("{:?}: {error}", command.get_program()))?;
            if status.success() { Ok(()) } else { Err(status.to_string()) }
        });
    }

    /// Runs `work`; its error is the reason that the summary shows.
    pub(crate) fn step(&mut self, name: &str, work: impl FnOnce() -> Result<(), String>) {
        eprintln!("\n==> {name}");
        let begun = Instant::now();
        let outcome = match work() {
            Ok(()) => Outcome::Passed,
            Err(reason) => Outcome::Failed(reason),
        };
        self.steps.push((name.to_owned(), outcome, begun.elapsed()));
    }

    /// Notes a step that could not be run here, and why.
    pub(crate) fn skip(&mut self, name: &str, reason: &str) {
        eprintln!("\n==> {name}: skipped: {reason}");
        let outcome = Outcome::Skipped(reason.to_owned());
        self.steps.push((name.to_owned(), outcome, Duration::ZERO));
    }

    /// Prints the summary; whether nothing failed.
    pub(crate) fn finish(self) -> bool {
        eprintln!();
        let mut passed = true;
        for (name, outcome, took) in &self.steps {
            let seconds = took.as_secs_f64();
            match outcome {
                Outcome::Passed => eprintln!("ok      {name} ({seconds:.1} s)"),
                Outcome::Skipped(reason) => eprintln!("skipped {name}: {reason}"),
                Outcome::Failed(reason) => {
                    passed = false;
                    eprintln!("FAILED  {name} ({seconds:.1} s): {reason}");
                }
            }
        }
        eprintln!("{}", if passed { "everything passed" } else { "something failed, see above" });
        passed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_step_fails_the_run_and_later_steps_still_run() {
        let mut run = Run::default();
        let mut second = false;
        run.step("first", || Err("broken".into()));
        run.step("second", || {
            second = true;
            Ok(())
        });
        assert!(second);
        assert!(!run.finish());
    }

    #[test]
    fn a_skipped_step_does_not_fail_the_run() {
        let mut run = Run::default();
        run.skip("tool", "not installed");
        run.command("true", &mut Command::new("true"));
        assert!(run.finish());
    }

    #[test]
    fn a_command_that_cannot_start_or_fails_is_a_failure() {
        for program in ["/nonexistent/program", "false"] {
            let mut run = Run::default();
            run.command(program, &mut Command::new(program));
            assert!(!run.finish(), "{program}");
        }
    }
}
