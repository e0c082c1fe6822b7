//! What an operator asks of the server, and the walk through JSON with curl.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::http::send;
use crate::kit::{Place, Server, finish, signal};

/// Within this time the server has looked at its folder again.
const SEEN_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn life_and_readiness_are_told_to_everybody_and_counts_to_those_who_may() {
    let place = Place::new();
    place.run(&["create", "file:data/numbers"]).good();
    let server = Server::start(&place, &["--token", "secret"]);
    let status = |path: &str| send(&server, "GET", path, &[], b"").status;
    assert_eq!((status("/healthz"), status("/readyz"), status("/metrics")), (200, 200, 401));

    let token = [("token", "secret")];
    let metrics = || {
        let answer = send(&server, "GET", "/metrics", &token, b"");
        assert_eq!(answer.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
        String::from_utf8(answer.body).unwrap()
    };
    let first = metrics();
    for line in [
        "datahike_http_requests_total{status=\"2xx\"} 2",
        "datahike_http_requests_total{status=\"4xx\"} 1",
        "datahike_http_request_duration_seconds_count 3",
        "datahike_http_requests_running 1",
        "datahike_peer_connections 0",
        "datahike_databases_open 1",
    ] {
        assert!(first.lines().any(|known| known == line), "{line} in\n{first}");
    }
    assert!(metrics().contains("datahike_http_requests_total{status=\"2xx\"} 3\n"));
    // The operation of this name is called as any other.
    let headers = [("token", "secret"), ("content-type", "application/edn")];
    let counted = send(&server, "GET", "/metrics", &headers, b"[\"numbers\"]");
    assert_eq!(counted.status, 200);
    assert!(counted.body.starts_with(b"{"), "{:?}", String::from_utf8_lossy(&counted.body));
}

#[test]
fn a_server_without_its_folder_is_not_ready() {
    let place = Place::new();
    let server = Server::start(&place, &["--dev"]);
    let becomes = |expected: u16| {
        let asked_until = Instant::now() + SEEN_WITHIN;
        while send(&server, "GET", "/readyz", &[], b"").status != expected {
            assert!(Instant::now() < asked_until, "never {expected}");
        }
    };
    becomes(200);
    std::fs::rename(place.path().join("data"), place.path().join("away")).unwrap();
    becomes(503);
    assert_eq!(send(&server, "GET", "/healthz", &[], b"").status, 200);
    std::fs::rename(place.path().join("away"), place.path().join("data")).unwrap();
    becomes(200);
}

#[test]
fn every_request_has_an_id() {
    let place = Place::new();
    let server = Server::start(&place, &["--dev"]);
    let id = |given: &[(&str, &str)], path: &str| {
        send(&server, "GET", path, given, b"").headers["x-request-id"].clone()
    };
    assert_eq!(id(&[("x-request-id", "mine-7")], "/healthz"), "mine-7");
    let long = "x".repeat(129);
    for refused in [&*long, "two words", ""] {
        let made = id(&[("x-request-id", refused)], "/nothing/here");
        assert_eq!(made.len(), 36, "{made}");
    }
    assert_ne!(id(&[], "/healthz"), id(&[], "/healthz"));
}

#[test]
fn a_request_that_has_begun_is_answered_when_the_server_ends() {
    let place = Place::new();
    let server = Server::start(&place, &["--dev"]);
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(SEEN_WITHIN)).unwrap();
    let body = br#"["{:schema-flexibility :read}"]"#;
    let head = format!(
        "POST /create-database HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {}\r\nexpect: 100-continue\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    answer.read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 100 Continue\r\n");
    signal(server.id(), "TERM");
    let asked_until = Instant::now() + SEEN_WITHIN;
    while TcpStream::connect(server.address()).is_ok() {
        assert!(Instant::now() < asked_until, "the server still takes connections");
    }
    stream.write_all(body).unwrap();
    let mut rest = String::new();
    answer.read_to_string(&mut rest).unwrap();
    assert!(rest.trim_start().starts_with("HTTP/1.1 200 "), "{rest}");
    assert_eq!(server.stop("TERM").code, Some(0));
}

#[test]
fn shells_and_man_know_every_command() {
    let place = Place::new();
    let help = place.run(&["--help"]).good();
    let commands: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty())
        })
        .collect();
    assert!(commands.contains(&"serve"), "{help}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = place.run(&["completions", shell]).good();
        for command in &commands {
            assert!(script.contains(command), "{command} for {shell}");
        }
    }
    let page = place.run(&["man"]).good();
    for command in commands.iter().filter(|command| **command != "help") {
        assert!(page.contains(&format!("datahike\\-{}(1)", command.replace('-', "\\-"))), "{page}");
        let page = place.run(&["man", command]).good();
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
    }
    assert!(place.run(&["man", "fly"]).failed(2).contains("no command \"fly\""));
}

/// The script, with this form of the header.
fn walk(server: &Server, header: &str) -> String {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/json-over-http.sh");
    let mut command = Command::new("bash");
    command.args([script, &format!("http://{}", server.address()), header]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let said = finish(command.spawn().unwrap()).good();
    said.lines().last().unwrap().to_owned()
}

#[test]
fn the_walk_through_json_ends_with_peter() {
    let place = Place::new();
    let server = Server::start(&place, &["--token", "securerandompassword"]);
    for header in ["Authorization: token securerandompassword", "token: securerandompassword"] {
        assert_eq!(walk(&server, header), r#"["!set",[["Peter",42]]]"#, "{header}");
    }
}
