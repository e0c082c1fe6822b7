//! The vendored conformance cases and recordings, through the same code as the two programs.

use std::path::{Path, PathBuf};

use datahike_tests::corpus::{self, Modes};
use datahike_tests::outcome::Outcomes;
use datahike_tests::recording;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

fn assert_all_pass(outcomes: &Outcomes, at_least: usize) {
    let failures: Vec<String> =
        outcomes.failures().map(|(name, reason)| format!("{name}: {reason}")).collect();
    assert!(failures.is_empty(), "{} failed:\n{}", failures.len(), failures.join("\n"));
    let (passed, ..) = outcomes.counts();
    assert!(passed >= at_least, "only {passed} checks ran");
}

#[test]
fn conformance_cases_pass_in_every_configuration_they_were_measured_in() {
    let outcomes = corpus::run_folder(&data("conformance"), Modes::All).unwrap();
    assert_all_pass(&outcomes, 400);
    assert_eq!(outcomes.counts().2, 2, "cases that are not normative");
}

#[test]
fn recordings_replay_to_the_same_datoms_answers_and_errors() {
    let (outcomes, passed_over) = recording::run_folder(&data("recordings")).unwrap();
    assert!(passed_over.is_empty(), "{passed_over:?}");
    assert_all_pass(&outcomes, 80);
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
