//! Servers and their clients.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::kit::{Place, Server, finish, signal};

const SCHEMA: &str =
    "[{:db/ident :n :db/valueType :db.type/long :db/cardinality :db.cardinality/one}]\n";

fn numbers(place: &Place) {
    place.run(&["create", "file:data/numbers"]).good();
    place.run_with(&["transact", "file:data/numbers", "-"], SCHEMA).good();
}

const COUNT: &str = "[:find (count ?e) . :where [?e :n]]";

#[test]
fn a_mirror_answers_without_its_server() {
    let place = Place::new();
    let rows: String = (0..3_000).map(|n| format!("{n},name {n},{}\n", n % 7)).collect();
    place.write("t.csv", &format!("id,name,kind\n{rows}"));
    place.run(&["import", "file:data/t", "t.csv", "--namespace", "t", "--unique", "id"]).good();
    let server = Server::start(&place, &["--dev"]);
    let db = server.database("t");
    place.run(&["mirror", &db, "--into", "copies/one", "--once"]).good();

    // What happens later comes with the next visit; the same by the id of the store.
    place.run_with(&["transact", &db, "-"], "[[:db/retractEntity [:t/id 7]]]").good();
    let listed = place.run(&["list", &server.url]).good();
    let id = listed.split('"').find(|part| part.len() == 36).unwrap();
    place.run(&["mirror", &server.database(id), "--into", "copies/one", "--once"]).good();
    let remote = place.run(&["export", &db]).good();
    server.stop("TERM").good();

    let count = "[:find (count ?e) . :where [?e :t/name]]";
    assert_eq!(place.run(&["q", "file:copies/one", count]).good(), "2999\n");
    let own = place.run(&["export", "file:data/t"]).good();
    assert_eq!(place.run(&["export", "file:copies/one"]).good(), own);
    assert_eq!(remote, own);
}

#[test]
fn nothing_acknowledged_is_lost_or_happens_twice_when_the_server_is_killed() {
    let place = Place::new();
    numbers(&place);
    let mut server = Server::start(&place, &["--dev"]);
    let address = server.address().to_owned();
    let db = server.database("numbers");
    let total = 3_000;
    let mut client = place
        .command(&["transact", &db, "-", "--timeout", "50"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = client.stdin.take().unwrap();
    let feeding = std::thread::spawn(move || {
        for n in 0..total {
            writeln!(input, "[{{:n {n}}}]").unwrap();
        }
    });
    let mut reports = BufReader::new(client.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    for killed_after in [200, 900, 1_700] {
        while acknowledged.len() < killed_after {
            acknowledged.push(reports.next().unwrap().unwrap());
        }
        server.stop("KILL");
        server = Server::start(&place, &["--dev", "--listen", &address]);
    }
    acknowledged.extend(reports.map(Result::unwrap));
    feeding.join().unwrap();
    finish(client).good();
    assert_eq!(acknowledged.len(), total);
    assert!(acknowledged.iter().all(|line| !line.contains(":error")));

    place.run(&["mirror", &db, "--into", "m", "--once"]).good();
    server.stop("TERM").good();
    let all =
        place.run(&["q", "file:m", "[:find ?n (count ?e) :where [?e :n ?n]]", "--format", "csv"]);
    let mut all: Vec<String> = all.good().lines().map(str::to_owned).collect();
    all.sort_by_key(|line| line.split(',').next().and_then(|n| n.parse::<u32>().ok()));
    let expected: Vec<String> = (0..total).map(|n| format!("{n},1")).collect();
    assert_eq!(all, expected);
    let own = place.run(&["export", "file:data/numbers"]).good();
    assert_eq!(place.run(&["export", "file:m"]).good(), own);
}

#[test]
fn reads_work_beside_a_server_and_writes_are_refused() {
    let place = Place::new();
    numbers(&place);
    let server = Server::start(&place, &["--dev"]);
    let db = server.database("numbers");
    place.run_with(&["transact", &db, "-"], "[{:n 1}] [{:n 2}]").good();
    assert_eq!(place.run(&["q", "file:data/numbers", COUNT]).good(), "2\n");
    assert_eq!(place.run(&["q", &db, COUNT]).good(), "2\n");
    let refused = place.run_with(&["transact", "file:data/numbers", "-"], "[{:n 3}]").failed(1);
    assert!(refused.contains("open for writing") && refused.contains("hint"), "{refused}");
    let second = place.run(&["compact", "file:data/numbers"]).failed(1);
    assert!(second.contains("open for writing"), "{second}");
}

#[test]
fn a_stream_stops_at_its_first_refusal() {
    let place = Place::new();
    numbers(&place);
    let server = Server::start(&place, &["--dev"]);
    let db = server.database("numbers");
    let mut forms: Vec<String> = (0..200).map(|n| format!("[{{:n {n}}}]\n")).collect();
    forms[100] = "[{:n \"a hundred\"}]\n".to_owned();
    let done = place.run_with(&["transact", &db, "-"], &forms.concat());
    let lines: Vec<&str> = done.out.lines().collect();
    assert_eq!((done.code, lines.len()), (Some(1), 101), "{done:?}");
    assert!(lines[100].contains(":error :transact/schema"), "{}", lines[100]);
    assert_eq!(place.run(&["q", &db, COUNT]).good(), "100\n");
    let on = place.run_with(&["transact", &db, "-", "--keep-going"], &forms.concat());
    assert_eq!((on.code, on.out.lines().count()), (Some(1), 200));
    assert_eq!(place.run(&["q", &db, COUNT]).good(), "299\n");
}

#[test]
fn databases_come_and_go_while_it_serves() {
    let place = Place::new();
    let server = Server::start(&place, &["--dev"]);
    let db = server.database("made");
    place.run(&["create", &db, "--config", "{:schema-flexibility :read}"]).good();
    place.run_with(&["transact", &db, "-"], "[{:n 1}]").good();
    assert_eq!(place.run(&["q", &db, COUNT]).good(), "1\n");
    assert!(place.path().join("data/made").is_dir());
    place.run(&["create", &db]).failed(1);
    // One that came into the folder by other means.
    numbers(&place);
    assert_eq!(
        place.run(&["q", &server.database("numbers"), "[:find ?n :where [_ :n ?n]]"]).good(),
        "#{}\n"
    );
    place.run(&["delete", &db]).good();
    assert!(place.run(&["q", &db, COUNT]).failed(1).contains("no database"));
    assert!(!place.path().join("data/made").is_dir());
}

#[test]
fn names_that_lead_elsewhere_and_unknown_ones_are_refused() {
    let place = Place::new();
    place.run(&["create", "file:secret"]).good();
    let server = Server::start(&place, &["--dev"]);
    for name in ["..", ".", "nope", "%2e%2e", "..\\secret"] {
        let said = place.run(&["q", &server.database(name), COUNT]).failed(1);
        assert!(said.contains("database"), "{name}: {said}");
        place.run(&["mirror", &server.database(name), "--into", "m", "--once"]).failed(1);
    }
    assert!(!place.path().join("m").exists());
}

#[test]
fn who_may_connect_must_be_said_and_is_checked() {
    let place = Place::new();
    numbers(&place);
    let serve = |args: &[&str]| place.run(&[&["serve", "--data", "data"], args].concat()).failed(2);
    assert!(serve(&[]).contains("--token"));
    assert!(serve(&["--dev", "--listen", "0.0.0.0:0"]).contains("loopback"));
    assert!(serve(&["--token", ""]).contains("empty"));

    let server = Server::start(&place, &["--token", "open sesame"]);
    let db = server.database("numbers");
    for wrong in [&[][..], &["--token", "open"], &["--token", "open sesamf"]] {
        let said =
            place.run(&[&["q", &db, "[:find ?n :where [_ :n ?n]]"], wrong].concat()).failed(1);
        assert!(said.contains("token") && said.contains("DATAHIKE_TOKEN"), "{said}");
    }
    let mut command = place.command(&["q", &db, "[:find ?n :where [_ :n ?n]]"]);
    let child = command.env("DATAHIKE_TOKEN", "open sesame").spawn().unwrap();
    assert_eq!(finish(child).good(), "#{}\n");
}

#[test]
fn it_ends_soon_when_asked_and_keeps_its_id() {
    let place = Place::new();
    numbers(&place);
    let mut ids = Vec::new();
    for name in ["TERM", "INT"] {
        let server = Server::start(&place, &["--dev"]);
        let db = server.database("numbers");
        // A client that is there must not keep it from ending.
        let mut watch = place.command(&["watch", &db, COUNT]).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(watch.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let began = Instant::now();
        server.stop(name).good();
        assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
        signal(watch.id(), "KILL");
        finish(watch);
        ids.push(place.read("data/peer-id"));
    }
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn a_watched_query_tells_of_changes() {
    let place = Place::new();
    numbers(&place);
    let server = Server::start(&place, &["--dev"]);
    for db in [server.database("numbers"), "file:data/numbers".to_owned()] {
        let query = "[:find ?n :where [_ :n ?n] [(< 0 ?n)]]";
        let args = ["watch", &db, query, "--changes", "1"];
        let mut watch = place.command(&args).spawn().unwrap();
        let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        assert!(first.contains(":added"), "{first}");
        let n = if db.starts_with("ws") { 1 } else { 2 };
        let forms = format!("[{{:n -{n}}}]\n[{{:n {n}}}]\n");
        place.run_with(&["transact", &server.database("numbers"), "-"], &forms).good();
        let change = lines.next().unwrap().unwrap();
        assert!(change.contains(&format!(":added [[{n}]], :removed []")), "{change}");
        assert!(lines.next().is_none());
        finish(watch).good();
    }
}

#[test]
fn nobody_listening_is_said_within_the_timeout() {
    let place = Place::new();
    let said = place.run(&["list", "ws://127.0.0.1:1", "--timeout", "1"]).failed(1);
    assert!(said.contains("127.0.0.1:1") && said.contains("hint"), "{said}");
}
