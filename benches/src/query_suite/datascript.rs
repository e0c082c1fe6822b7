//! DataScript's own list.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::ensure;
use datahike::core::datom::Datom;
use datahike::core::index::{Index, Indexes, MemoryBlocks, Range};
use datahike::core::tx::TxOptions;
use datahike::pull::{Pattern, pull};
use datahike::query::{Context, Input, Query, Rules, q};
use datahike::{Db, Value};
use serde_json::json;

use super::people::{self, Person};
use super::{Options, TURN, WARM_UP, turn};
use crate::baseline::datascript::{DataScript, modules};
use crate::row::{Better, Row, Samples};

/// Rows' ids, the query, and what stands in for its parameters.
pub(super) const QUERIES: &[(&str, &str, &str)] = &[
    ("ds-q1", "[:find ?e :where [?e :name \"Ivan\"]]", "[]"),
    ("ds-q2", "[:find ?e ?a :where [?e :name \"Ivan\"] [?e :age ?a]]", "[]"),
    ("ds-q2-switch", "[:find ?e ?a :where [?e :age ?a] [?e :name \"Ivan\"]]", "[]"),
    ("ds-q3", "[:find ?e ?a :where [?e :name \"Ivan\"] [?e :age ?a] [?e :sex \"male\"]]", "[]"),
    (
        "ds-q4",
        "[:find ?e ?l ?a :where [?e :name \"Ivan\"] [?e :last-name ?l] [?e :age ?a] [?e :sex \"male\"]]",
        "[]",
    ),
    (
        "ds-q5-shortcircuit",
        "[:find ?e ?n ?l ?a ?s ?al :in $ ?n ?a :where [?e :name ?n] [?e :age ?a] \
         [?e :last-name ?l] [?e :sex ?s] [?e :alias ?al]]",
        "[\"Anastasia\" 35]",
    ),
    ("ds-qpred1", "[:find ?e ?s :where [?e :salary ?s] [(> ?s 50000)]]", "[]"),
    ("ds-qpred2", "[:find ?e ?s :in $ ?min :where [?e :salary ?s] [(> ?s ?min)]]", "[50000]"),
];

pub(super) const RULES: &str = "[[(follows ?x ?y) [?x :follows ?y]]
      [(follows ?x ?y) [?x :follows ?t] (follows ?t ?y)]]";
pub(super) const CLOSURE: &str = "[:find ?e ?e2 :in $ % :where (follows ?e ?e2)]";

/// Rows' ids, and depth and width of a tree, or of chains.
const GRAPHS: &[(&str, bool, usize, usize)] = &[
    ("ds-rules-wide-3x6", true, 3, 6),
    ("ds-rules-wide-5x4", true, 5, 4),
    ("ds-rules-wide-7x3", true, 7, 3),
    ("ds-rules-long-10x3", false, 10, 3),
    ("ds-rules-long-30x3", false, 30, 3),
    ("ds-rules-long-30x5", false, 30, 5),
];

/// Of 781 people in a tree, from its root.
const PULLS: &[(&str, &str)] = &[
    ("ds-pull-one", "[:name {:follows ...}]"),
    ("ds-pull-many", "[:db/id :last-name :alias :sex :age :salary {:follows ...}]"),
    ("ds-pull-wildcard", "[* {:follows ...}]"),
];

const READ_TARGET: f64 = 30.0;
const WRITE_TARGET: f64 = 5.0;
const AGAINST: &str = "DataScript in Node";

/// A workload and how it is compared.
struct Workload<'a> {
    id: &'static str,
    name: String,
    target: f64,
    run: Box<dyn Fn() -> anyhow::Result<usize> + 'a>,
}

pub(super) fn run(options: &Options<'_>) -> anyhow::Result<Vec<Row>> {
    let people = people::people();
    let family = people::family(4, 5);
    let mut workloads = queries(&people)?;
    workloads.extend(rules()?);
    workloads.extend(pulls(&family)?);
    let reads = workloads.len();
    workloads.extend(writes(&people)?);
    if !workloads.iter().any(|workload| options.wants(workload.id)) {
        return Ok(Vec::new());
    }
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("people.json");
    std::fs::write(&file, serde_json::to_vec(&shared(&people, &family))?)?;
    let mut peer = DataScript::start(&modules()?, &file)?;
    let mut rows = Vec::new();
    for (number, workload) in workloads.iter().enumerate() {
        if !options.wants(workload.id) {
            continue;
        }
        let id = &workload.id["ds-".len()..];
        let warm_up = WARM_UP.as_millis() as u64;
        let theirs = peer.turn(id, warm_up)?.found;
        let ours = turn(WARM_UP, &workload.run)?.1;
        // Ours counts the instants of transactions and the schema among the datoms.
        let same = if number < reads { ours == theirs } else { ours >= theirs };
        ensure!(same, "{id}: ours found {ours}, DataScript {theirs}");
        let samples = Samples::interleave(
            options.rounds,
            |_| Ok(turn(TURN, &workload.run)?.0),
            |_| Ok(peer.turn(id, TURN.as_millis() as u64)?.ms),
        )?;
        rows.push(Row::compare(
            workload.id,
            &workload.name,
            "ms",
            Better::Lower,
            &samples,
            AGAINST,
            workload.target,
        ));
    }
    Ok(rows)
}

/// What Node loads: the same people, trees, queries and patterns. Attributes are strings there.
fn shared(people: &[Person], family: &[Person]) -> serde_json::Value {
    let short = |id: &str| id["ds-".len()..].to_owned();
    let queries: BTreeMap<_, _> = QUERIES
        .iter()
        .map(|(id, text, inputs)| {
            let inputs: serde_json::Value = match *inputs {
                "[]" => json!([]),
                "[50000]" => json!([50_000]),
                _ => json!(["Anastasia", 35]),
            };
            (short(id), json!({ "text": quoted(text), "inputs": inputs }))
        })
        .collect();
    let graphs: BTreeMap<_, _> =
        GRAPHS.iter().map(|graph| (short(graph.0), edges(graph))).collect();
    let pulls: BTreeMap<_, _> = PULLS.iter().map(|(id, text)| (short(id), quoted(text))).collect();
    json!({
        "people": people, "tree": family, "queries": queries, "graphs": graphs, "pulls": pulls,
        "closure": CLOSURE, "rules": quoted(RULES),
    })
}

/// Attributes as strings, as JavaScript writes them. Clause keywords stay.
fn quoted(text: &str) -> String {
    let mut text = text.to_owned();
    for name in ["name", "last-name", "age", "sex", "salary", "alias", "follows"] {
        for end in [' ', ']'] {
            text = text.replace(&format!(":{name}{end}"), &format!("\"{name}\"{end}"));
        }
    }
    text
}

fn edges(&(_, tree, depth, width): &(&str, bool, usize, usize)) -> Vec<(i64, i64)> {
    if tree { people::wide(depth, width) } else { people::long(depth, width) }
}

/// The text is parsed in every run, as it is in DataScript.
fn queries<'a>(people: &[Person]) -> anyhow::Result<Vec<Workload<'a>>> {
    let form = Value::vector(people.iter().map(Person::form));
    let db = people::empty(false, false)?.with(&form, &TxOptions::at(2))?.db_after;
    let db = people::settled(&db)?;
    QUERIES
        .iter()
        .map(|&(id, text, inputs)| {
            let mut all = vec![Input::from(&db)];
            let inputs = datahike::edn::read(inputs)?;
            all.extend(inputs.as_vector().into_iter().flatten().cloned().map(Input::Value));
            Ok(Workload {
                id,
                name: format!("{} of 20,000 people", &id["ds-".len()..]),
                target: READ_TARGET,
                run: Box::new(
                    move || Ok(q(&Query::parse(text)?, &all, &Context::default())?.len()),
                ),
            })
        })
        .collect()
}

fn rules<'a>() -> anyhow::Result<Vec<Workload<'a>>> {
    GRAPHS
        .iter()
        .map(|graph| {
            let inputs =
                [Input::from(&graph_db(&edges(graph))?), Input::from(Rules::parse(RULES)?)];
            Ok(Workload {
                id: graph.0,
                name: format!("{}, all pairs", &graph.0["ds-".len()..]),
                target: READ_TARGET,
                run: Box::new(move || {
                    Ok(q(&Query::parse(CLOSURE)?, &inputs, &Context::default())?.len())
                }),
            })
        })
        .collect()
}

/// A graph in a database of its own.
pub(super) fn graph_db(edges: &[(i64, i64)]) -> anyhow::Result<Db> {
    let form = people::edges_form(edges);
    people::settled(&people::empty(false, false)?.with(&form, &TxOptions::at(2))?.db_after)
}

fn pulls<'a>(family: &[Person]) -> anyhow::Result<Vec<Workload<'a>>> {
    let form = Value::vector(family.iter().map(Person::form));
    let db = people::empty(false, false)?.with(&form, &TxOptions::at(2))?.db_after;
    let db = people::settled(&db)?;
    PULLS
        .iter()
        .map(|&(id, text)| {
            let db = db.clone();
            Ok(Workload {
                id,
                name: format!("{}, a tree of 781", &id["ds-".len()..]),
                target: READ_TARGET,
                run: Box::new(move || {
                    let found = pull(&db, &Pattern::parse_text(text)?, &Value::Long(1))?;
                    Ok(found.as_map().map_or(0, |map| map.len()))
                }),
            })
        })
        .collect()
}

fn writes<'a>(people: &[Person]) -> anyhow::Result<Vec<Workload<'a>>> {
    let empty = people::empty(false, false)?;
    let forms: Vec<Value> = people.iter().map(Person::form).collect();
    let all = Value::vector(forms.iter().cloned());
    let db = empty.with(&all, &TxOptions::at(2))?.db_after;
    let stored = people::settled(&db)?;
    let one: Vec<Value> = people.iter().flat_map(Person::single_facts).collect();
    let five: Vec<Value> = forms.iter().map(|form| Value::vector([form.clone()])).collect();
    let gone: Vec<Value> = people
        .iter()
        .map(|person| {
            let operation = Value::keyword("db/retractEntity");
            Value::vector([Value::vector([operation, person.id.into()])])
        })
        .collect();
    let series = |from: &Db, transactions: Vec<Value>| {
        let from = from.clone();
        move || {
            let mut db = from.clone();
            for transaction in &transactions {
                db = db.with(transaction, &TxOptions::at(3))?.db_after;
            }
            count(&db)
        }
    };
    let workload =
        |id, name: &str, run| Workload { id, name: name.to_owned(), target: WRITE_TARGET, run };
    // The people's own facts, as they would come from elsewhere.
    let facts: Vec<Datom> =
        stored.indexes().current(&Range::all(Index::Eavt)).collect::<Result<_, _>>()?;
    let schema = db.shared_schema();
    let params = *db.indexes().params();
    let (frozen, thawed) = (db.clone(), stored.clone());
    let flushed = db.indexes().flush()?;
    Ok(vec![
        workload(
            "ds-add-1",
            "add-1: 100,000 transactions of a fact",
            Box::new(series(&empty, one)),
        ),
        workload(
            "ds-add-5",
            "add-5: 20,000 transactions of a person",
            Box::new(series(&empty, five)),
        ),
        workload(
            "ds-add-all",
            "add-all: the same in one transaction",
            Box::new(move || count(&empty.with(&all, &TxOptions::at(3))?.db_after)),
        ),
        workload(
            "ds-init",
            "init: indexes from datoms, encoded and hashed",
            Box::new(move || {
                let flushed = Indexes::empty(params, false).flush_with(&[&facts], &*schema)?;
                Ok(flushed.roots.current[0].map_or(0, |root| root.count as usize))
            }),
        ),
        workload(
            "ds-retract-5",
            "retract-5: 20,000 transactions, a person each",
            Box::new(series(&stored, gone)),
        ),
        workload(
            "ds-freeze",
            "freeze: the database to blocks, hashed",
            Box::new(move || {
                let flushed = frozen.indexes().clone().flush()?;
                Ok(flushed.roots.current[0].map_or(0, |root| root.count as usize))
            }),
        ),
        workload(
            "ds-thaw",
            "thaw: blocks to a database, all decoded",
            Box::new(move || {
                let blocks = Arc::new(MemoryBlocks::default());
                blocks.insert(&flushed.blocks)?;
                let opened = Indexes::open(params, false, flushed.roots, blocks);
                count(&thawed.with_indexes(opened))
            }),
        ),
    ])
}

fn count(db: &Db) -> anyhow::Result<usize> {
    let mut count = 0;
    for datom in db.indexes().current(&Range::all(Index::Eavt)) {
        datom?;
        count += 1;
    }
    Ok(count)
}
