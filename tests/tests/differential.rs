//! The engine against the oracle, on databases and queries from seeds.
//!
//! `DATAHIKE_TEST_SEED=n` runs one database; `DATAHIKE_TEST_LONG=1` runs many more.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up what it needs has failed")]

use std::collections::BTreeSet;

use datahike_tests::engine::{Argument, Engine, Failure, Options, Paging, Point, ViewOp};
use datahike_tests::generate::{self, Question};
use datahike_tests::judge::{elements, same, same_bag};
use datahike_tests::oracle::{
    self, Change, Fact, Find, Input, Model, OracleError, View, parse_query, parse_rules,
};
use datahike_value::{Value, edn};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

const DATABASES: u64 = 300;
const QUESTIONS: usize = 40;
const BEGIN_MS: i64 = 1_700_000_000_000;

fn seeds() -> std::ops::Range<u64> {
    if let Ok(seed) = std::env::var("DATAHIKE_TEST_SEED") {
        let seed: u64 = seed.parse().expect("DATAHIKE_TEST_SEED is a number");
        return seed..seed + 1;
    }
    let long = std::env::var_os("DATAHIKE_TEST_LONG").is_some();
    0..if long { DATABASES * 30 } else { DATABASES }
}

/// A database in both, with the transactions that were applied.
struct Pair {
    engine: Engine,
    model: Model,
    first_tx: i64,
    last_tx: i64,
    rng: ChaCha8Rng,
}

fn build(seed: u64) -> Pair {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let empty = Engine::empty(Options { keep_history: true, ..Options::default() });
    let mut model = Model::new(generate::kinds());
    let (mut engine, report) = empty.transact(&generate::schema(), None, BEGIN_MS).unwrap();
    record(&mut model, &report.datoms);
    let first_tx = report.tx;
    let mut last_tx = first_tx;
    for (place, changes) in generate::transactions(&mut rng).into_iter().enumerate() {
        let known = |change: &Change| match change {
            Change::Upsert(key, value, _) => model.lookup(key, value).is_some(),
            _ => true,
        };
        if !changes.iter().all(known) {
            continue;
        }
        let data = Value::vector(changes.iter().map(Change::form));
        let outcome = engine.transact(&data, None, BEGIN_MS + 1000 * (place as i64 + 1));
        let context = format!("seed {seed}, transaction {data}");
        match (model.transact(last_tx + 1, &changes), outcome) {
            (Ok(facts), Ok((next, report))) => {
                assert_eq!(report.tx, last_tx + 1, "{context}");
                let own = |datom: &&[Value; 5]| datom[0] == datom[3];
                let stamps: Vec<[Value; 5]> = report.datoms.iter().filter(own).cloned().collect();
                let told: BTreeSet<Value> =
                    report.datoms.iter().filter(|d| !own(d)).map(row).collect();
                assert_eq!(facts.iter().map(fact_row).collect::<BTreeSet<_>>(), told, "{context}");
                record(&mut model, &stamps);
                engine = next;
                last_tx = report.tx;
            }
            (Err(_), Err(_)) => {}
            (Ok(_), Err(failure)) => panic!("{context}: refused: {failure}"),
            (Err(refusal), Ok(_)) => panic!("{context}: not refused: {refusal:?}"),
        }
    }
    Pair { engine, model, first_tx, last_tx, rng }
}

/// What the engine adds of itself becomes part of the model's past.
fn record(model: &mut Model, datoms: &[[Value; 5]]) {
    for [e, a, v, tx, added] in datoms {
        model.record(Fact {
            entity: e.as_long().unwrap(),
            attribute: a.as_keyword().unwrap().clone(),
            value: v.clone(),
            tx: tx.as_long().unwrap(),
            added: added.as_bool().unwrap(),
        });
    }
}

fn row(datom: &[Value; 5]) -> Value {
    Value::vector(datom.iter().cloned())
}

fn fact_row(fact: &Fact) -> Value {
    let Fact { entity, attribute, value, tx, added } = fact;
    Value::vector([
        (*entity).into(),
        attribute.into(),
        value.clone(),
        (*tx).into(),
        (*added).into(),
    ])
}

fn viewed(engine: &Engine, view: View) -> Engine {
    match view {
        View::Current => engine.clone(),
        View::History => engine.view(&ViewOp::History).unwrap(),
        View::AsOf(tx) => engine.view(&ViewOp::AsOf(Point::Tx(tx))).unwrap(),
        View::Since(tx) => engine.view(&ViewOp::Since(Point::Tx(tx))).unwrap(),
    }
}

#[test]
fn transactions_leave_the_same_datoms_in_every_index_and_view() {
    for seed in seeds() {
        let Pair { engine, model, first_tx, last_tx, .. } = build(seed);
        let middle = (first_tx + last_tx) / 2;
        let views = [View::Current, View::History, View::AsOf(middle), View::Since(middle)];
        for view in views {
            let db = viewed(&engine, view);
            let expected: Vec<Value> = model.facts(view).iter().map(fact_row).collect();
            for index in ["eavt", "aevt"] {
                let got = db.datoms(&Value::keyword(index), &[]).unwrap();
                let got: Vec<Value> = got.iter().map(row).collect();
                assert!(
                    same_bag(&expected, &got),
                    "seed {seed}, {view:?}, {index}:\nexpected {expected:?}\ngot {got:?}"
                );
            }
        }
    }
}

#[test]
fn queries_find_what_the_oracle_finds() {
    let (mut compared, mut found_something) = (0, 0);
    for seed in seeds() {
        let mut pair = build(seed);
        for _ in 0..QUESTIONS {
            let question = generate::question(&mut pair.rng, pair.first_tx, pair.last_tx);
            match difference(&pair, &question) {
                Compared::Same { rows } => {
                    compared += 1;
                    found_something += usize::from(rows > 0);
                }
                Compared::Beyond => {}
                Compared::Differs(_) => {
                    let (question, difference) = reduce(&pair, question);
                    panic!("seed {seed}, {:?}: {}\n{difference}", question.view, question.text());
                }
            }
        }
    }
    // The generators are worth something only if most questions are answered, and many not by
    // nothing at all.
    let asked = seeds().count() * QUESTIONS;
    eprintln!("{asked} asked, {compared} compared, {found_something} of them found rows");
    assert!(compared * 10 > asked * 7, "only {compared} of {asked} were compared");
    assert!(found_something * 10 > compared * 3, "only {found_something} of {compared} found rows");
}

enum Compared {
    Same {
        rows: usize,
    },
    /// Not for the oracle, or refused by both.
    Beyond,
    Differs(String),
}

fn difference(pair: &Pair, question: &Question) -> Compared {
    let form = edn::read(&question.text()).unwrap();
    let query = parse_query(&form).unwrap();
    let mut inputs = vec![
        Input::Facts(pair.model.facts(question.view)),
        Input::Rules(parse_rules(&generate::rules()).unwrap()),
    ];
    let mut arguments =
        vec![Argument::Db(viewed(&pair.engine, question.view)), Argument::Rules(generate::rules())];
    for (_, value) in &question.inputs {
        inputs.push(Input::Value(value.clone()));
        arguments.push(Argument::Value(value.clone()));
    }
    let expected = match oracle::answer(&query, &inputs) {
        Ok(expected) => expected,
        Err(OracleError::Form(form)) => panic!("the oracle does not know {form}"),
        Err(_) => return Compared::Beyond,
    };
    let got = Engine::query(&form, &arguments, &Paging::default());
    match got {
        Ok(got) if agree(query.find, &expected, &got) => {
            Compared::Same { rows: elements(&expected).map_or(0, |rows| rows.len()) }
        }
        Ok(got) => Compared::Differs(format!("expected {expected}\ngot {got}")),
        Err(Failure { code, message }) => {
            Compared::Differs(format!("expected {expected}\ngot the error {code:?}: {message}"))
        }
    }
}

/// The oracle gives all rows that a tuple or scalar may be picked from.
fn agree(find: Find, expected: &Value, got: &Value) -> bool {
    let (rows, found) = (elements(expected).unwrap(), elements(got));
    match find {
        Find::Relation => found.is_some_and(|found| same_bag(&rows, &found)),
        Find::Collection => {
            // Whether a collection holds a value once or once per row is not laid down.
            let distinct = |values: Vec<Value>| values.into_iter().collect::<BTreeSet<_>>();
            found.is_some_and(|found| distinct(rows) == distinct(found))
        }
        Find::Tuple | Find::Scalar if rows.is_empty() => got.is_nil(),
        Find::Tuple | Find::Scalar => rows.iter().any(|row| same(row, got)),
    }
}

/// Leaves out clauses as long as the answers still differ.
fn reduce(pair: &Pair, question: Question) -> (Question, String) {
    let mut smallest = question;
    let mut reason = String::new();
    if let Compared::Differs(difference) = difference(pair, &smallest) {
        reason = difference;
    }
    let mut place = 0;
    while place < smallest.clauses.len() {
        let mut fewer = smallest.clone();
        fewer.clauses.remove(place);
        match difference(pair, &fewer) {
            Compared::Differs(difference) => (smallest, reason, place) = (fewer, difference, 0),
            _ => place += 1,
        }
    }
    (smallest, reason)
}
