//! Commands on databases in folders.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::kit::{Place, Server};

const SCHEMA: &str = "[{:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one \
                        :db/unique :db.unique/identity} \
                       {:db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one}]\n";

/// A database `db` with Ada, whose age has changed, and Bob, who is gone.
fn people() -> Place {
    let place = Place::new();
    place.run(&["create", "file:db"]).good();
    let forms = format!(
        "{SCHEMA}[{{:db/id \"ada\" :name \"Ada\" :age 36}} {{:name \"Bob\" :age 40}}]\n\
         [[:db/add [:name \"Ada\"] :age 37]]\n[[:db/retractEntity [:name \"Bob\"]]]\n"
    );
    let reports = place.run_with(&["transact", "file:db", "-"], &forms).good();
    assert_eq!(reports.lines().count(), 4, "{reports}");
    assert!(reports.contains(":tempids {\"ada\" 3}"), "{reports}");
    place
}

#[test]
fn queries_print_in_the_format_that_is_asked_for() {
    let place = people();
    let q = |args: &[&str]| place.run(&[&["q", "file:db"], args].concat()).good();
    let all = "[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]";
    assert_eq!(q(&[all]), "#{[\"Ada\" 37]}\n");
    assert_eq!(q(&[all, "--format", "json"]), "[[\"Ada\",37]]\n");
    assert_eq!(q(&[all, "--format", "csv"]), "Ada,37\n");
    assert_eq!(q(&[all, "--format", "csv", "--header"]), "n,a\nAda,37\n");
    assert_eq!(q(&[all, "--format", "table"]), "n    a\n---  --\nAda  37\n(1 row)\n");
    assert_eq!(q(&["[:find (count ?e) . :where [?e :name]]"]), "1\n");
    assert_eq!(q(&["[:find ?a . :in $ ?n :where [?e :name ?n] [?e :age ?a]]", "\"Ada\""]), "37\n");
    place.write("query.edn", all);
    assert_eq!(q(&["@query.edn"]), "#{[\"Ada\" 37]}\n");
    assert!(q(&[all, "--explain"]).contains("[?e :name ?n]"));
}

#[test]
fn the_past_can_be_asked() {
    let place = people();
    let ages = "[:find [?a ...] :where [_ :age ?a]]";
    let q = |args: &[&str]| place.run(&[&["q", "file:db", ages], args].concat()).good();
    let (then, now) = (q(&["--as-of", "536870914"]), q(&[]));
    assert_eq!((then.as_str(), now.as_str()), ("[36 40]\n", "[37]\n"));
    assert_eq!(q(&["--since", "536870914"]), "[37]\n");
    assert_eq!(q(&["--history"]), "[36 37 40]\n");
    assert_eq!(q(&["--as-of", "2200-01-01T00:00:00Z"]), now);
    let pull = place.run(&["pull", "file:db", "[:age]", "[:name \"Ada\"]"]).good();
    assert_eq!(pull, "{:age 37}\n");
    let datoms = place.run(&["datoms", "file:db", "aevt", ":age"]).good();
    assert_eq!(datoms, "[3 :age 37 536870915 true]\n");
}

#[test]
fn a_refusal_has_a_code_and_stops_unless_told_otherwise() {
    let place = people();
    let forms = "[{:name \"Cy\"}]\n[{:age \"old\"}]\n[{:name \"Di\"}]\n";
    let done = place.run_with(&["transact", "file:db", "-"], forms);
    let lines: Vec<&str> = done.out.lines().collect();
    assert_eq!((done.code, done.err.as_str(), lines.len()), (Some(1), "", 2), "{done:?}");
    assert!(lines[1].starts_with("{:error :transact/"), "{}", lines[1]);
    let names = ["q", "file:db", "[:find [?n ...] :where [_ :name ?n]]"];
    assert_eq!(
        place.run(&names).good(),
        "[\"Ada\" \"Cy\"]\n",
        "nothing after the refusal happened"
    );
    let on = place.run_with(&["transact", "file:db", "-", "--keep-going"], forms);
    assert_eq!((on.code, on.out.lines().count()), (Some(1), 3), "{on:?}");
}

#[test]
fn malformed_text_is_named_with_its_place() {
    let place = people();
    place.write("bad.edn", "[{:name \"Cy\"}]\n[{:name \"Di\"}]\n[{:age 1]\n");
    let done = place.run(&["transact", "file:db", "bad.edn"]);
    assert_eq!(done.out.lines().count(), 2, "what came before counts: {done:?}");
    let said = done.failed(1);
    assert!(said.contains("bad.edn") && said.contains("line 3, column 9"), "{said}");
    let said = place.run(&["q", "file:db", "[:find ?e"]).failed(2);
    assert!(said.contains("QUERY") && said.contains("line 1, column 1"), "{said}");
}

#[test]
fn wrong_use_and_failure_are_told_apart() {
    let place = people();
    assert!(place.run(&["q", "db", "[:find ?e :where [?e]]"]).failed(2).contains("file:db"));
    assert!(place.run(&["frobnicate"]).failed(2).contains("frobnicate"));
    let missing = place.run(&["q", "file:nope", "[:find ?e :where [?e :name]]"]).failed(1);
    assert!(missing.contains("no database at nope") && missing.contains("hint"), "{missing}");
    let unknown = place.run(&["q", "file:db", "[:find ?x :where [?e :name ?n]]"]).failed(1);
    assert!(unknown.contains("?x"), "{unknown}");
    assert!(place.run(&["create", "file:db"]).failed(1).contains("exists"));
    assert!(place.run(&["mirror", "file:db", "--into", "m"]).failed(2).contains("ws://"));
}

#[test]
fn exports_come_back_byte_for_byte() {
    let place = people();
    let exported = place.run(&["export", "file:db"]).good();
    assert!(exported.contains("[3 :age 36 536870915 false]"), "{exported}");
    place.run(&["export", "file:db", "all.edn"]).good();
    place.run(&["export", "file:db", "all.edn.gz"]).good();
    assert_eq!(place.read("all.edn"), exported);
    for (number, file) in ["all.edn", "all.edn.gz"].iter().enumerate() {
        let copy = format!("file:new/folders/{number}");
        place.run(&["import", &copy, file]).good();
        assert_eq!(place.run(&["export", &copy]).good(), exported);
        let again = place.run_with(&["transact", &copy, "-"], "[{:name \"Eve\"}]").good();
        assert!(again.contains(":tx 536870917"), "{again}");
    }
}

#[test]
fn compacting_keeps_what_can_be_asked() {
    let place = people();
    let forms: String = (0..300).map(|n| format!("[{{:name \"n{n}\" :age {n}}}]\n")).collect();
    place.run_with(&["transact", "file:db", "-"], &forms).good();
    let exported = place.run(&["export", "file:db"]).good();
    for keep in [&["--keep", "7d"][..], &[]] {
        place.run(&[&["compact", "file:db"], keep].concat()).good();
        assert_eq!(place.run(&["export", "file:db"]).good(), exported);
    }
    let again = place.run(&["compact", "file:db"]).good();
    assert!(again.contains(":removed-blocks 0"), "{again}");
    let stats = place.run(&["stats", "file:db"]).good();
    assert!(stats.contains(":tail 0") && stats.contains(":commits"), "{stats}");
}

#[test]
fn databases_are_listed_and_deleted() {
    let place = people();
    std::fs::create_dir(place.path().join("no database")).unwrap();
    let listed = place.run(&["list", "."]).good();
    assert!(listed.lines().count() == 1 && listed.contains(":name \"db\""), "{listed}");
    place.run(&["delete", "file:db"]).good();
    assert_eq!(place.run(&["list", "."]).good(), "");
    assert!(place.run(&["delete", "file:db"]).failed(1).contains("no database"));
}

#[test]
fn a_reader_that_has_enough_ends_the_writer_quietly() {
    let place = people();
    let forms: String =
        (0..2_000).map(|n| format!("[{{:name \"name {n}\" :age {n}}}]\n")).collect();
    place.run_with(&["transact", "file:db", "-"], &forms).good();
    let mut child = place.command(&["datoms", "file:db", "eavt"]).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with("[1 "), "{line}");
    let done = crate::kit::finish(child);
    assert_eq!((done.code, done.err.as_str()), (Some(0), ""));
}

#[test]
fn readers_go_on_while_a_database_is_compacted() {
    let place = people();
    let forms: String =
        (0..3_000).map(|n| format!("[{{:name \"name {n}\" :age {n}}}]\n")).collect();
    place.run_with(&["transact", "file:db", "-"], &forms).good();
    let count = ["q", "file:db", "[:find (count ?e) . :where [?e :name]]"];
    // One that is open all the while, and reads on when the files that it began with are gone.
    let mut child = place.command(&["datoms", "file:db", "eavt"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().starts_with("[1 "));
    let path = place.path().to_owned();
    let compacting = std::thread::spawn(move || {
        for n in 0..3 {
            let run = |args: &[&str]| {
                let mut command = Command::new(env!("CARGO_BIN_EXE_datahike"));
                let done = command.args(args).current_dir(&path).output().unwrap();
                assert!(done.status.success(), "{done:?}");
            };
            let age = format!("[[:db/add [:name \"name {n}\"] :age {}]]", n + 5_000);
            std::fs::write(path.join("age.edn"), age).unwrap();
            run(&["transact", "file:db", "age.edn"]);
            run(&["compact", "file:db"]);
        }
    });
    let mut asked = 0;
    while !compacting.is_finished() || asked < 3 {
        assert_eq!(place.run(&count).good(), "3001\n");
        asked += 1;
    }
    compacting.join().unwrap();
    let read = lines.map(Result::unwrap).filter(|line| line.contains(" :name \"")).count();
    assert_eq!(read, 3_001);
    assert_eq!(crate::kit::finish(child).code, Some(0));
}

#[test]
fn a_full_disk_is_an_error_and_not_the_end() {
    let place = people();
    std::fs::create_dir(place.path().join("data")).unwrap();
    std::fs::rename(place.path().join("db"), place.path().join("data/db")).unwrap();
    let binary = place.command(&[]).get_program().to_owned();
    let mut command = Command::new("sh");
    // Past the limit a write is then an error as on a full disk, and not a signal.
    command.args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""]).arg(binary);
    command.args(["serve", "--data", "data", "--listen", "127.0.0.1:0", "--dev"]);
    command.current_dir(place.path());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let server = Server::of(command);
    let limit = |bytes: &str| {
        let id = server.id().to_string();
        let limit = format!("--fsize={bytes}:");
        Command::new("prlimit").args(["--pid", &id, &limit]).status().is_ok_and(|s| s.success())
    };
    if !limit("70000") {
        println!("skipped: there is no prlimit to make a disk full with");
        return;
    }
    let db = server.database("db");
    let forms: String =
        (0..2_000).map(|n| format!("[{{:name \"name {n}\" :age {n}}}]\n")).collect();
    let done = place.run_with(&["transact", &db, "-"], &forms);
    assert_eq!(done.code, Some(1), "{done:?}");
    let last = done.out.lines().last().unwrap_or_default();
    assert!(last.starts_with("{:error") && last.contains("no space"), "{last}");
    let acknowledged = done.out.lines().filter(|line| line.starts_with("{:datoms ")).count();
    assert!((100..2_000).contains(&acknowledged), "{acknowledged} fit");

    // Others still read, and hear why they cannot write.
    let names = "[:find (count ?e) . :where [?e :name]]";
    assert_eq!(place.run(&["q", &db, names]).good(), format!("{}\n", acknowledged + 1));
    let long = format!("[{{:name \"{}\"}}]", "x".repeat(9_000));
    let refused = place.run_with(&["transact", &db, "-"], &long);
    assert!(refused.out.contains("no space"), "{refused:?}");
    assert_eq!(refused.code, Some(1));

    // With space again it goes on, and has what it acknowledged.
    assert!(limit("unlimited"));
    place.run_with(&["transact", &db, "-"], "[{:name \"after\"}]").good();
    assert_eq!(place.run(&["q", &db, names]).good(), format!("{}\n", acknowledged + 2));
    server.stop("TERM");
    assert_eq!(place.run(&["q", "file:data/db", names]).good(), format!("{}\n", acknowledged + 2));
}
