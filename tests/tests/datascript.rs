//! The engine against DataScript, on generated databases and queries: what both know must come out
//! the same.
//!
//! `cargo xtask test` installs DataScript and names its folder in `DATAHIKE_NODE_MODULES`. Where there
//! is none, the test says so and judges nothing. `DATAHIKE_TEST_SEED=n` runs one database,
//! `DATAHIKE_TEST_LONG=1` many more.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up what it needs has failed")]

use std::path::PathBuf;
use std::process::Command;

use datahike_tests::engine::{Argument, Engine, Options, Paging};
use datahike_tests::judge::elements;
use datahike_value::{Value, edn};
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value as Json, json};

const DATABASES: u64 = 60;
const QUERIES: usize = 25;
const ENTITIES: i64 = 9;
const NAMES: [&str; 4] = ["ada", "bo", "cy", "dee"];
const TAGS: [&str; 3] = ["x", "y", "z"];

/// `@age` is an attribute: a keyword here, a string in JavaScript.
const RULES: &str = "[[(reach ?a ?b) [?a @friend ?b]]
      [(reach ?a ?b) [?a @friend ?c] (reach ?c ?b)]
      [(near ?a ?b) [?a @friend ?b]]
      [(near ?a ?b) [?b @boss ?a]]
      [(valued ?a ?w) [?a @age ?w]]
      [(valued ?a ?w) [?a @boss ?p] (valued ?p ?w)]]";
const SCHEMA: &str = "
    [{:db/id 1000001 :db/ident :tag    :db/cardinality :db.cardinality/many}
     {:db/id 1000002 :db/ident :friend :db/cardinality :db.cardinality/many :db/valueType :db.type/ref}
     {:db/id 1000003 :db/ident :boss   :db/cardinality :db.cardinality/one  :db/valueType :db.type/ref}]";
const ATTRIBUTES: [&str; 6] = ["age", "score", "name", "tag", "friend", "boss"];

fn ours(text: &str) -> String {
    text.replace('@', ":")
}

fn theirs(text: &str) -> String {
    ATTRIBUTES.iter().fold(text.to_owned(), |text, name| {
        text.replace(&format!("@{name} "), &format!("\"{name}\" "))
            .replace(&format!("@{name})"), &format!("\"{name}\")"))
    })
}

/// One operation, as JSON for both.
fn operation(rng: &mut ChaCha8Rng) -> Json {
    let e = rng.random_range(1..=ENTITIES);
    let (attribute, value) = match rng.random_range(0..9) {
        0 | 1 => ("age", json!(rng.random_range(-1..5))),
        2 => ("score", json!(rng.random_range(-1..5))),
        3 => ("name", json!(NAMES.choose(rng).unwrap())),
        4 | 5 => ("tag", json!(TAGS.choose(rng).unwrap())),
        6 => ("boss", json!(rng.random_range(1..=ENTITIES))),
        _ => ("friend", json!(rng.random_range(1..=ENTITIES))),
    };
    match rng.random_range(0..20) {
        0 => json!([":db/retractEntity", e]),
        1 => json!([":db/retract", e, attribute]),
        2 | 3 => json!([":db/retract", e, attribute, value]),
        _ => json!([":db/add", e, attribute, value]),
    }
}

fn operation_form(operation: &Json) -> Value {
    let items = operation.as_array().unwrap();
    Value::vector(items.iter().enumerate().map(|(place, item)| match (place, item.as_str()) {
        (0, Some(text)) => Value::keyword(text.trim_start_matches(':')),
        (2, Some(text)) => Value::keyword(text),
        (_, Some(text)) => text.into(),
        _ => item.as_i64().unwrap().into(),
    }))
}

/// What a query has bound so far.
#[derive(Default)]
struct Bound {
    entities: Vec<&'static str>,
    longs: Vec<&'static str>,
    others: Vec<&'static str>,
}

impl Bound {
    fn all(&self) -> Vec<&'static str> {
        let mut all = [&self.entities[..], &self.longs, &self.others].concat();
        all.sort_unstable();
        all.dedup();
        all
    }
}

/// A query in the order that DataScript needs: what binds stands before what tests.
fn query(rng: &mut ChaCha8Rng) -> String {
    let mut bound = Bound::default();
    let mut clauses: Vec<String> =
        (0..rng.random_range(1..4)).map(|_| pattern(rng, &mut bound)).collect();
    for new in ["?k", "?l"].iter().take(rng.random_range(0..3)) {
        clauses.push(further(rng, &mut bound, new));
    }
    format!("[:find {} :in $ % :where {}]", find(rng, &bound), clauses.join(" "))
}

fn pattern(rng: &mut ChaCha8Rng, bound: &mut Bound) -> String {
    let e = *["?e", "?e", "?f", "?g"].choose(rng).unwrap();
    bound.entities.push(e);
    match rng.random_range(0..10) {
        kind @ 0..=4 => {
            let attribute = if kind == 4 { "@score" } else { "@age" };
            if rng.random_bool(0.2) {
                return format!("[{e} {attribute} {}]", rng.random_range(-1..5));
            }
            let long = *["?a", "?a", "?b"].choose(rng).unwrap();
            bound.longs.push(long);
            format!("[{e} {attribute} {long}]")
        }
        5 => {
            bound.others.push("?n");
            format!("[{e} @name ?n]")
        }
        6 => {
            bound.others.push("?t");
            format!("[{e} @tag ?t]")
        }
        7 => format!("[{e} @tag \"{}\"]", TAGS.choose(rng).unwrap()),
        kind => {
            // DataScript does not unify a variable with itself within a pattern.
            let to = *["?e", "?f", "?g"]
                .iter()
                .filter(|to| **to != e)
                .collect::<Vec<_>>()
                .choose(rng)
                .unwrap();
            bound.entities.push(to);
            format!("[{e} {} {to}]", if kind == 8 { "@friend" } else { "@boss" })
        }
    }
}

fn further(rng: &mut ChaCha8Rng, bound: &mut Bound, new: &'static str) -> String {
    let e = *bound.entities.choose(rng).unwrap();
    let constant = rng.random_range(-1..5);
    if let Some(&a) = bound.longs.choose(rng)
        && rng.random_bool(0.5)
    {
        let b = *bound.longs.choose(rng).unwrap();
        let compare = *["<", "<=", ">", ">=", "=", "not="].choose(rng).unwrap();
        let test = *["even?", "odd?", "pos?", "neg?", "zero?"].choose(rng).unwrap();
        return match rng.random_range(0..7) {
            0 => format!("[({compare} {a} {constant})]"),
            1 => format!("[({compare} {a} {b})]"),
            2 => format!("[({test} {a})]"),
            3 => format!("(or [({test} {a})] [(= {a} {constant})])"),
            4 => format!("(not [({compare} {a} {constant})])"),
            kind => {
                let call = match kind {
                    5 => format!("({} {a})", ["inc", "dec"].choose(rng).unwrap()),
                    _ => format!("({} {a} {b})", ["+", "-", "*"].choose(rng).unwrap()),
                };
                bound.longs.push(new);
                format!("[{call} {new}]")
            }
        };
    }
    match rng.random_range(0..11) {
        0 => format!("(not [{e} @tag \"{}\"])", TAGS.choose(rng).unwrap()),
        1 => format!("(not [{e} @friend _])"),
        2 => format!("(not-join [{e}] [{e} @friend ?z] [?z @age ?y] [(< ?y {constant})])"),
        3 => format!("(or [{e} @age {constant}] [{e} @score {constant}])"),
        4 => {
            bound.longs.push(new);
            format!(
                "(or-join [{e} {new}] [{e} @age {new}] (and [{e} @friend ?z] [?z @score {new}]))"
            )
        }
        5 | 6 => {
            bound.entities.push(new);
            format!("(reach {e} {new})")
        }
        7 => {
            // As within a pattern: a variable is not unified with itself.
            let others: Vec<&str> = bound.entities.iter().copied().filter(|to| *to != e).collect();
            format!("(near {e} {})", others.choose(rng).unwrap_or(&"_"))
        }
        8 => {
            bound.longs.push(new);
            format!("(valued {e} {new})")
        }
        9 => {
            bound.longs.push(new);
            format!("[(get-else $ {e} @score {constant}) {new}]")
        }
        _ => format!("[(missing? $ {e} @boss)]"),
    }
}

fn find(rng: &mut ChaCha8Rng, bound: &Bound) -> String {
    let all = bound.all();
    let count = rng.random_range(1..=all.len().min(3));
    let mut vars: Vec<&str> = all.sample(rng, count).copied().collect();
    if rng.random_bool(0.7) {
        return vars.join(" ");
    }
    let functions = ["sum", "avg", "min", "max", "median", "variance", "stddev"];
    let (function, over) = match bound.longs.choose(rng) {
        Some(long) if rng.random_bool(0.7) => (*functions.choose(rng).unwrap(), *long),
        _ => (*["count", "count-distinct"].choose(rng).unwrap(), vars[0]),
    };
    vars.retain(|var| *var != over);
    vars.truncate(1);
    let with = all.choose(rng).filter(|var| **var != over && !vars.contains(var));
    let with = with.map_or_else(String::new, |var| format!(" :with {var}"));
    format!("{} ({function} {over}){with}", vars.join(" "))
}

/// A row as text in which numbers are doubles of nine digits, as JavaScript has no others.
fn row_text(row: &Json) -> String {
    let cell = |cell: &Json| match cell.as_f64() {
        Some(0.0) => "0".to_owned(),
        Some(number) => format!("{number:.8e}"),
        None => cell.to_string(),
    };
    row.as_array().unwrap().iter().map(cell).collect::<Vec<_>>().join(" ")
}

fn rows_text<'a>(rows: impl IntoIterator<Item = &'a Json>) -> Vec<String> {
    let mut rows: Vec<String> = rows.into_iter().map(row_text).collect();
    rows.sort();
    rows
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Long(long) => json!(long),
        Value::Double(double) => json!(double),
        Value::Str(text) => json!(&**text),
        Value::Keyword(keyword) => json!(keyword.text()),
        other => elements(other).map_or_else(
            || panic!("{other} has no counterpart"),
            |items| items.iter().map(to_json).collect(),
        ),
    }
}

/// A case as JavaScript gets it, and the same database and queries here.
fn case(seed: u64) -> (Json, Engine, Vec<String>) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let schema = edn::read(SCHEMA).unwrap();
    let mut engine = Engine::empty(Options { keep_history: true, ..Options::default() });
    engine = engine.transact(&schema, None, 1).unwrap().0;
    // One operation each: those of one transaction can contradict each other, and the two differ then.
    let transactions: Vec<[Json; 1]> =
        (0..rng.random_range(8..60)).map(|_| [operation(&mut rng)]).collect();
    for (n, transaction) in transactions.iter().enumerate() {
        let form = Value::vector(transaction.iter().map(operation_form));
        engine = engine.transact(&form, None, n as i64 + 2).unwrap().0;
    }
    let queries: Vec<String> = (0..QUERIES).map(|_| query(&mut rng)).collect();
    let many = json!({ ":db/cardinality": ":db.cardinality/many" });
    let case = json!({
        "schema": {
            "tag": many,
            "friend": { ":db/cardinality": ":db.cardinality/many", ":db/valueType": ":db.type/ref" },
            "boss": { ":db/valueType": ":db.type/ref" },
        },
        "transactions": transactions,
        "rules": theirs(RULES),
        "queries": queries.iter().map(|text| theirs(text)).collect::<Vec<_>>(),
    });
    (case, engine, queries)
}

fn modules() -> Option<PathBuf> {
    let named = std::env::var_os("DATAHIKE_NODE_MODULES").map(PathBuf::from)?;
    assert!(named.join("datascript").is_dir(), "there is no DataScript in {}", named.display());
    Some(named)
}

#[test]
fn queries_answer_what_datascript_answers() {
    let Some(modules) = modules() else {
        eprintln!("not judged: no DataScript; `cargo xtask test` installs it where there is Node");
        return;
    };
    let seeds = match std::env::var("DATAHIKE_TEST_SEED") {
        Ok(seed) => {
            let seed: u64 = seed.parse().expect("DATAHIKE_TEST_SEED is a number");
            seed..seed + 1
        }
        Err(_) if std::env::var_os("DATAHIKE_TEST_LONG").is_some() => 0..DATABASES * 20,
        Err(_) => 0..DATABASES,
    };
    let cases: Vec<_> = seeds.clone().map(case).collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cases.json");
    let given: Vec<&Json> = cases.iter().map(|(given, ..)| given).collect();
    std::fs::write(&file, serde_json::to_vec(&given).unwrap()).unwrap();
    let output = Command::new("node")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/js/datascript.js"))
        .arg(&file)
        .env("NODE_PATH", modules)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let judged: Vec<Json> = serde_json::from_slice(&output.stdout).unwrap();
    let rules = edn::read(&ours(RULES)).unwrap();
    let (mut agreed, mut rows, mut refused) = (0, 0, Vec::new());
    for ((seed, (_, engine, queries)), judgement) in seeds.zip(&cases).zip(&judged) {
        let datoms = engine.datoms(&Value::keyword("eavt"), &[]).unwrap();
        let facts: Vec<Json> = datoms
            .iter()
            .filter(|datom| ATTRIBUTES.contains(&datom[1].as_keyword().unwrap().text()))
            .map(|[e, a, v, ..]| json!([to_json(e), a.as_keyword().unwrap().text(), to_json(v)]))
            .collect();
        let told = judgement["facts"].as_array().unwrap();
        assert_eq!(rows_text(&facts), rows_text(told), "seed {seed}: the datoms");
        for (text, answer) in queries.iter().zip(judgement["answers"].as_array().unwrap()) {
            let arguments = [Argument::Db(engine.clone()), Argument::Rules(rules.clone())];
            let form = edn::read(&ours(text)).unwrap();
            let found = Engine::query(&form, &arguments, &Paging::default());
            let Some(expected) = answer["rows"].as_array() else {
                refused.push(format!("seed {seed}: {text}: {}", answer["error"]));
                continue;
            };
            let found = found.unwrap_or_else(|error| panic!("seed {seed}: {text}: {error}"));
            let found: Vec<Json> = elements(&found).unwrap().iter().map(to_json).collect();
            assert_eq!(rows_text(&found), rows_text(expected), "seed {seed}: {text}");
            agreed += 1;
            rows += found.len();
        }
    }
    eprintln!("{agreed} queries agree on {rows} rows; DataScript refused {}", refused.len());
    assert!(refused.len() * 20 <= agreed, "{}", refused.join("\n"));
    assert!(rows > agreed, "too little was found to say anything");
}
