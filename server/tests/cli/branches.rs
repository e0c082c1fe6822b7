//! Branches and commits of databases in folders and at a server.

use crate::kit::Place;

const NAMES: &str = "[:find [?n ...] :where [_ :name ?n]]";

fn names(place: &Place, args: &[&str]) -> String {
    place.run(&[&["q", "file:db", NAMES], args].concat()).good()
}

/// A database `db` with Ada in it.
fn ada() -> Place {
    let place = Place::new();
    place.run(&["create", "file:db", "--config", "{:schema-flexibility :read}"]).good();
    place.run_with(&["transact", "file:db", "-"], "[{:name \"Ada\"}]").good();
    place
}

#[test]
fn branches_part_and_merge() {
    let place = ada();
    let made = place.run(&["branch", "file:db", "foo"]).good();
    assert!(made.contains(":seq 1"), "{made}");
    assert_eq!(place.run(&["branches", "file:db"]).good(), ":db\n:foo\n");
    let onto = ["transact", "file:db", "-", "--branch", "foo"];
    place.run_with(&onto, "[{:name \"Bob\"}]").good();
    assert_eq!(names(&place, &[]), "[\"Ada\"]\n");
    assert_eq!(names(&place, &["--at", "foo"]), "[\"Ada\" \"Bob\"]\n");
    assert_eq!(names(&place, &["--branch", "foo"]), "[\"Ada\" \"Bob\"]\n");

    let merged = place.run(&["merge", "file:db", "[{:name \"Bob\"}]", "foo"]).good();
    assert!(merged.contains(":tx 536870914"), "{merged}");
    assert_eq!(names(&place, &[]), "[\"Ada\" \"Bob\"]\n");
    let history = place.run(&["history", "file:db"]).good();
    assert_eq!(history.lines().count(), 3, "{history}");
    let first = history.lines().last().unwrap();
    assert!(first.contains(":parents []") && first.contains(":seq 1"), "{history}");
    let commit = first.split('"').nth(1).unwrap();
    assert_eq!(names(&place, &["--at", commit]), "[\"Ada\"]\n");
    let since = ["history", "file:db", "--at", commit];
    assert_eq!(place.run(&since).good().lines().count(), 1);

    for deep in [&[][..], &["--deep"]] {
        let verified = place.run(&[&["verify", "file:db"], deep].concat()).good();
        assert!(verified.contains(":branch :foo") && !verified.contains(":cut"), "{verified}");
        assert_eq!(verified.contains(":history-datoms"), !deep.is_empty(), "{verified}");
    }
    place.run(&["delete-branch", "file:db", "foo"]).good();
    assert_eq!(place.run(&["branches", "file:db"]).good(), ":db\n");
}

#[test]
fn refusals_name_the_branches_there_are() {
    let place = ada();
    let refused = |args: &[&str]| place.run(args).failed(1);
    assert!(refused(&["branch", "file:db", "x", "--from", "nope"]).contains("only db"));
    assert!(refused(&["branch", "file:db", "db"]).contains("branch db exists"));
    assert!(refused(&["delete-branch", "file:db", "db"]).contains("cannot be deleted"));
    assert!(refused(&["q", "file:db", NAMES, "--at", "nope"]).contains("no branch nope"));
    let commit = "ab".repeat(32);
    assert!(refused(&["q", "file:db", NAMES, "--at", &commit]).contains("no branch leads to"));
}
