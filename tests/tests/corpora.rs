//! The vendored conformance cases and recordings, through the same code as the two programs.

use std::path::{Path, PathBuf};

use datahike_tests::corpus::{self, Modes};
use datahike_tests::outcome::Outcomes;
use datahike_tests::recording;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

/// Cases of what the engine refuses by name: it has no purge.
const REFUSED: [&str; 3] = ["purge-001", "purge-002", "purge-005"];

/// Everything passes except for `refused`, each of which fails: the list must not outlive its cause.
fn assert_all_pass(outcomes: &Outcomes, refused: &[&str], at_least: usize) {
    let is_refused = |name: &str| refused.iter().any(|id| name.starts_with(id));
    let failures: Vec<(&str, &str)> = outcomes.failures().collect();
    let unexpected: Vec<String> = failures
        .iter()
        .filter(|(name, _)| !is_refused(name))
        .map(|(name, reason)| format!("{name}: {reason}"))
        .collect();
    assert!(unexpected.is_empty(), "{} failed:\n{}", unexpected.len(), unexpected.join("\n"));
    for id in refused {
        assert!(failures.iter().any(|(name, _)| name.starts_with(id)), "{id} passes by now");
    }
    let (passed, ..) = outcomes.counts();
    assert!(passed >= at_least, "only {passed} checks ran");
}

#[test]
fn conformance_cases_pass_in_every_configuration_they_were_measured_in() {
    let outcomes = corpus::run_folder(&data("conformance"), Modes::All).unwrap();
    assert_all_pass(&outcomes, &REFUSED, 400);
    assert_eq!(outcomes.counts().2, 2, "cases that are not normative");
}

#[test]
fn recordings_replay_to_the_same_datoms_answers_and_errors() {
    let (outcomes, passed_over) = recording::run_folder(&data("recordings")).unwrap();
    assert!(passed_over.is_empty(), "{passed_over:?}");
    assert_all_pass(&outcomes, &[], 80);
}

#[test]
fn a_folder_without_anything_is_told_apart_from_success() {
    let empty = tempfile::tempdir().unwrap();
    let outcomes = corpus::run_folder(empty.path(), Modes::AsWritten).unwrap();
    assert_eq!(outcomes.counts(), (0, 0, 0));
    std::fs::create_dir(empty.path().join("http")).unwrap();
    let (outcomes, passed_over) = recording::run_folder(empty.path()).unwrap();
    assert_eq!(outcomes.counts(), (0, 0, 0));
    assert_eq!(passed_over.len(), 1);
}
