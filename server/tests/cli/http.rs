//! The HTTP side of the server.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::kit::{Place, Server};

const JSON: &str = "application/json";

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Json {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|e| panic!("{e}: {:?}", String::from_utf8_lossy(&self.body)))
    }

    #[track_caller]
    fn good(self) -> Json {
        assert_eq!(self.status, 200, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }
}

/// One request on a connection of its own.
pub(crate) fn send(
    server: &Server,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("content-length: {}\r\n\r\n", body.len());
    stream.write_all(&[head.as_bytes(), body].concat()).unwrap();
    read(&mut stream)
}

fn read(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("a complete head");
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    Answer { status, headers, body: bytes[end + 4..].to_vec() }
}

fn post(server: &Server, path: &str, body: &Json) -> Answer {
    send(server, "POST", path, &[("content-type", JSON)], body.to_string().as_bytes())
}

/// Whether `ours` says what was recorded: ids and instants are other ones, but the same wherever
/// the recorded ones are the same.
fn agrees(recorded: &Json, ours: &Json, ids: &mut HashMap<String, Json>) -> bool {
    match (recorded, ours) {
        (Json::Array(a), Json::Array(b)) => {
            if let ([Json::String(tag), a], [Json::String(other), b]) = (&a[..], &b[..])
                && tag == other
            {
                match tag.as_str() {
                    "!date" => return a.is_string() && b.is_string(),
                    "!uuid" => {
                        let known = ids.entry(a.to_string()).or_insert_with(|| b.clone());
                        return known == b;
                    }
                    "!set" => {
                        let (Some(a), Some(b)) = (a.as_array(), b.as_array()) else { return false };
                        return bags(a, b, ids);
                    }
                    _ => {}
                }
            }
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| agrees(a, b, ids))
        }
        (Json::Object(a), Json::Object(b)) => {
            a.len() == b.len()
                && a.iter().all(|(key, a)| match (a, b.get(key)) {
                    // In which order a transaction states its datoms is left open.
                    (Json::Array(a), Some(Json::Array(b))) if key == "tx-data" => bags(a, b, ids),
                    // The original names the first commit of all in every one of them.
                    (a, Some(b)) if key == "db-before" => a[1]["max-tx"] == b[1]["max-tx"],
                    (a, b) => b.is_some_and(|b| agrees(a, b, ids)),
                })
        }
        (a, b) => a == b,
    }
}

fn bags(a: &[Json], b: &[Json], ids: &mut HashMap<String, Json>) -> bool {
    a.len() == b.len()
        && a.iter().all(|a| {
            b.iter().any(|b| {
                let mut tried = ids.clone();
                let agreed = agrees(a, b, &mut tried);
                if agreed {
                    *ids = tried;
                }
                agreed
            })
        })
}

/// What was recorded of the original server, sent here.
#[test]
fn recorded_exchanges_come_to_the_same() {
    let place = Place::new();
    let server = Server::start(&place, &["--token", "securerandompassword"]);
    let exchanges: Json =
        serde_json::from_str(include_str!("../data/http-exchanges.json")).unwrap();
    let mut ids = HashMap::new();
    for exchange in exchanges.as_array().unwrap() {
        let text = |key: &str| exchange[key].as_str().unwrap();
        let (route, label) = (text("route"), text("label"));
        // How much of the past an index holds is the original's own affair; the other two operations
        // are not offered.
        if matches!(route, "/metrics" | "/valid-all" | "/load-entities") {
            continue;
        }
        // What the original cannot do and this can: sent here, it would change what comes after.
        if (route, label) == ("/transact", "data") {
            continue;
        }
        let mut body: Json = serde_json::from_str(text("request_body")).unwrap();
        replace(&mut body, &ids);
        let headers = [("content-type", JSON), ("authorization", "token securerandompassword")];
        let method = text("method");
        let answer = send(&server, method, route, &headers, body.to_string().as_bytes());
        let recorded: Json = serde_json::from_str(text("response_body")).unwrap();
        if exchange["status"] != 200 {
            // A mistake of the caller is told as such; some were none.
            assert!(answer.status < 500, "{route} {label}: {}", answer.status);
            if answer.status >= 400 {
                let problem = answer.json();
                assert!(problem["msg"].is_string() && problem["ex-data"].is_object(), "{problem}");
            }
            continue;
        }
        let status = answer.status;
        let ours = answer.json();
        assert_eq!(status, 200, "{route} {label}: {ours}");
        let same = match route {
            "/create-database" => {
                ["keep-history?", "schema-flexibility", "branch", "attribute-refs?"]
                    .iter()
                    .all(|key| recorded[key] == ours[key])
            }
            "/query-stats" => agrees(&recorded["ret"], &ours["ret"], &mut ids),
            // Of one row the original makes a vector, and a set of several.
            "/q" if label == "since q" => agrees(&json!(["!set", recorded]), &ours, &mut ids),
            _ => agrees(&recorded, &ours, &mut ids),
        };
        assert!(same, "{route} {label}\nrecorded {recorded}\nours     {ours}");
    }
}

/// Ids of this server in place of the recorded ones.
fn replace(json: &mut Json, ids: &HashMap<String, Json>) {
    match json {
        Json::Array(items) => {
            if let [Json::String(tag), id] = &mut items[..]
                && tag == "!uuid"
                && let Some(known) = ids.get(&id.to_string())
            {
                *id = known.clone();
                return;
            }
            items.iter_mut().for_each(|item| replace(item, ids));
        }
        Json::Object(entries) => entries.values_mut().for_each(|value| replace(value, ids)),
        _ => {}
    }
}

fn peter(server: &Server) -> (Json, Json) {
    let config = post(server, "/create-database", &json!(["{:schema-flexibility :read}"])).good();
    let conn = post(server, "/connect", &json!([config])).good();
    let report = post(server, "/transact", &json!([conn, [{"name": "Peter", "age": 42}]])).good();
    assert_eq!(report[0], "!datahike/TxReport");
    (conn, report[1]["db-after"].clone())
}

#[test]
fn names_and_ages_come_back_in_every_format() {
    let place = Place::new();
    let server = Server::start(&place, &["--dev"]);
    let (conn, db) = peter(&server);
    let newest = post(&server, "/db", &json!([conn])).good();
    assert_eq!(newest, db);
    let query = json!(["[:find ?n ?a :where [?e :name ?n] [?e :age ?a]]", db]);
    let ask = |accept: &str| {
        let headers = [("content-type", JSON), ("accept", accept)];
        send(&server, "GET", "/q", &headers, query.to_string().as_bytes())
    };
    assert_eq!(ask(JSON).good(), json!(["!set", [["Peter", 42]]]));
    assert_eq!(ask("application/vnd.datahike.plain+json").good(), json!([["Peter", 42]]));
    assert_eq!(ask("application/transit+json").good(), json!(["~#set", [["Peter", 42]]]));
    assert_eq!(ask("application/edn").body, b"#{[\"Peter\" 42]}");
    assert_eq!(ask("application/cbor").body, b"\xd9\x01\x02\x81\x82\x65Peter\x18\x2a");
    assert_eq!(ask("application/msgpack").status, 200);
    assert_eq!(ask("text/html").status, 406);
    let edn = "[\"people\"]";
    let wrong =
        send(&server, "GET", "/schema", &[("content-type", "application/edn")], edn.as_bytes());
    assert_eq!(wrong.status, 404);
    assert_eq!(wrong.headers["content-type"], "application/edn; charset=utf-8");
    assert!(String::from_utf8(wrong.body).unwrap().contains(":error :database/missing"));
}

#[test]
fn a_pure_call_can_be_made_by_its_address_and_kept() {
    use base64::Engine;
    let place = Place::new();
    let server = Server::start(&place, &["--dev", "--max-age", "60"]);
    let (conn, db) = peter(&server);
    let encode =
        |json: &Json| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string());
    let query = json!(["[:find ?n . :where [?e :name ?n]]", db]);
    let path = format!("/q?args={}&f=json", encode(&query));
    let first = send(&server, "GET", &path, &[], b"");
    assert_eq!(first.headers["cache-control"], "public, max-age=60, immutable");
    let tag = first.headers["etag"].clone();
    assert_eq!(first.good(), "Peter");
    let again = send(&server, "GET", &path, &[("if-none-match", &tag)], b"");
    assert_eq!((again.status, again.body.len()), (304, 0));

    // What a handle stands for does not change; the newest value does, and is not kept.
    post(&server, "/transact", &json!([conn, [{"name": "Paula"}]])).good();
    assert_eq!(send(&server, "GET", &path, &[], b"").good(), "Peter");
    let count = json!(["[:find (count ?e) . :where [?e :name]]", conn]);
    let newest = send(&server, "GET", &format!("/q?args={}", encode(&count)), &[], b"");
    assert_eq!(newest.headers["cache-control"], "no-store");
    assert_eq!(newest.good(), 2);
    let acts = send(&server, "GET", "/transact", &[], b"[]");
    assert_eq!(acts.status, 405);
}

#[test]
fn mistakes_are_told_as_such() {
    let place = Place::new();
    let server = Server::start(&place, &["--token", "secret"]);
    let with = |token: &str, path: &str, body: &str| {
        let headers = [("content-type", JSON), ("token", token)];
        send(&server, "POST", path, &headers, body.as_bytes())
    };
    assert_eq!(with("secret", "/create-database", "[\"{:name \\\"people\\\"}\"]").status, 200);
    for (token, path, body, status, code) in [
        ("wrong", "/db", "[\"people\"]", 401, "peer/unauthenticated"),
        ("secret", "/nothing", "[]", 404, "http/not-found"),
        ("secret", "/db", "[\"animals\"]", 404, "database/missing"),
        ("secret", "/db", "{", 400, "http/unreadable"),
        ("secret", "/db", "3", 400, "arguments/invalid"),
        ("secret", "/db", "[]", 400, "arguments/invalid"),
        ("secret", "/create-database", "[\"{:name \\\"people\\\"}\"]", 409, "database/exists"),
        ("secret", "/q", "[\"[:find ?x :where\", \"people\"]", 400, "arguments/invalid"),
        ("secret", "/q", "[\"[:find ?x :where [?y :a]]\", \"people\"]", 400, "parser/query"),
        ("secret", "/transact", "[\"people\", [{\"unknown\": 1}]]", 400, "transact/schema"),
        ("secret", "/as-of", "[\"people\", \"yesterday\"]", 400, "arguments/invalid"),
    ] {
        let answer = with(token, path, body);
        let problem = answer.json();
        assert_eq!(answer.status, status, "{path} {body}: {problem}");
        assert_eq!(problem["ex-data"]["error"], json!(["!kw", code]), "{path} {body}: {problem}");
        assert!(!problem["msg"].as_str().unwrap().is_empty());
    }
    let latin = [("content-type", "application/json; charset=latin1"), ("token", "secret")];
    assert_eq!(send(&server, "POST", "/db", &latin, b"[]").status, 415);
    let large = format!("[\"{}\"]", "x".repeat(17 << 20));
    // It may be refused before all of it is read.
    let mut stream = TcpStream::connect(server.address()).unwrap();
    let head =
        format!("POST /db HTTP/1.1\r\ntoken: secret\r\ncontent-length: {}\r\n\r\n", large.len());
    stream.write_all(head.as_bytes()).unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 413");
}

#[test]
fn tx_data_in_json_becomes_what_the_schema_says() {
    let place = Place::new();
    let server = Server::start(&place, &["--dev"]);
    post(&server, "/create-database", &json!(["{:name \"people\"}"])).good();
    let schema = json!(["people", [
        {"db/ident": "name", "db/valueType": "db.type/string", "db/cardinality": "db.cardinality/one",
         "db/unique": "db.unique/identity"},
        {"db/ident": "height", "db/valueType": "db.type/double", "db/cardinality": "db.cardinality/one"},
        {"db/ident": "mood", "db/valueType": "db.type/keyword", "db/cardinality": "db.cardinality/many"},
        {"db/ident": "friend", "db/valueType": "db.type/ref", "db/cardinality": "db.cardinality/many"}
    ]]);
    post(&server, "/transact", &schema).good();
    let data = json!(["people", [
        {"db/id": -1, "name": "Ada", "height": 2, "mood": ["calm", "kind"]},
        {"db/id": -2, "name": "Bob", "friend": -1},
        ["db/add", ["name", "Bob"], "height", 1],
        {"name": "Cy", "friend": [["name", "Ada"], {"name": "Dee"}]}
    ]]);
    post(&server, "/transact", &data).good();
    let pulled = post(
        &server,
        "/pull",
        &json!(["people", ["*", {"friend": ["name"]}], [["!kw", "name"], "Cy"]]),
    );
    assert_eq!(pulled.good()["friend"], json!([{"name": "Ada"}, {"name": "Dee"}]));
    let ada =
        post(&server, "/pull", &json!(["people", ["height", "mood"], [["!kw", "name"], "Ada"]]));
    assert_eq!(ada.good(), json!({"height": 2.0, "mood": [["!kw", "calm"], ["!kw", "kind"]]}));
}

#[test]
fn a_page_of_a_known_origin_may_call() {
    let place = Place::new();
    let server = Server::start(&place, &["--dev", "--allow-origin", "https://[a-z]+\\.example"]);
    let ask = |origin: &str| {
        let headers = [("origin", origin), ("access-control-request-method", "POST")];
        send(&server, "OPTIONS", "/q", &headers, b"").headers
    };
    assert_eq!(ask("https://maps.example")["access-control-allow-origin"], "https://maps.example");
    assert!(!ask("https://maps.example.evil").contains_key("access-control-allow-origin"));
    let document = send(&server, "GET", "/openapi.json", &[], b"").good();
    assert_eq!(document["openapi"], "3.1.0");
    assert!(document["paths"]["/q"]["get"].is_object());
    assert_eq!(send(&server, "GET", "/swagger.json", &[], b"").good()["swagger"], "2.0");
}
