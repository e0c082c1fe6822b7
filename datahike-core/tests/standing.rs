//! Standing queries against the same queries run again.
#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::collections::BTreeSet;

use datahike_core::db::{Db, DbConfig, TimePoint};
use datahike_core::query::{Context, Input, Query, QueryResult, Standing, Strategy, q};
use datahike_core::tx::TxOptions;
use datahike_value::{Value, edn};
use proptest::prelude::*;
use proptest::strategy::Strategy as Generator;

const SCHEMA: &str = "
    [{:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one
      :db/unique :db.unique/identity}
     {:db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
     {:db/ident :tag :db/valueType :db.type/keyword :db/cardinality :db.cardinality/many}
     {:db/ident :friend :db/valueType :db.type/ref :db/cardinality :db.cardinality/many}
     {:db/ident :boss :db/valueType :db.type/ref :db/cardinality :db.cardinality/one}]";

const RULES: &str = "
    [[(knows ?a ?b) [?a :friend ?b]]
     [(knows ?a ?b) [?b :friend ?a]]
     [(grown ?p) [?p :age ?g] [(> ?g 3)]]
     [(above ?a ?b) [?b :boss ?a]]
     [(above ?a ?b) [?b :boss ?m] (above ?a ?m)]]";

/// A query, its inputs after `$`, and whether it is expected to be kept up from deltas.
const QUERIES: &[(&str, &str, bool)] = &[
    ("[:find ?n :where [?e :name ?n]]", "[]", true),
    ("[:find ?e ?a ?v :where [?e ?a ?v] [?e :age 3]]", "[]", true),
    ("[:find ?n ?t :where [?e :name ?n] [?e :tag ?t] [?e :age ?g] [(< ?g 4)]]", "[]", true),
    ("[:find ?a ?b :where [?x :friend ?y] [?x :name ?a] [?y :name ?b]]", "[]", true),
    ("[:find ?a ?c :where [?a :friend ?b] [?b :friend ?c]]", "[]", true),
    ("[:find ?e :where [?e :friend ?e]]", "[]", true),
    ("[:find ?e ?tx :where [?e :age _ ?tx]]", "[]", true),
    ("[:find [?n ...] :in $ ?g :where [?e :age ?g] [?e :name ?n]]", "[2]", true),
    ("[:find ?n :in $ [?t ...] :where [?e :tag ?t] [?e :name ?n]]", "[[:red :blue]]", true),
    ("[:find ?n ?d :where [?e :name ?n] [?e :age ?g] [(* ?g 2) ?d]]", "[]", true),
    ("[:find ?n :where [?e :name ?n] (or [?e :age 1] [?e :tag :red])]", "[]", true),
    (
        "[:find ?n :where [?e :name ?n] (or-join [?e] (and [?e :friend ?f] [?f :age 2]) [?e :age 5])]",
        "[]",
        true,
    ),
    ("[:find ?n :where [?e :name ?n] (not [?e :tag :red])]", "[]", true),
    ("[:find ?n :where [?e :name ?n] (not [?e :friend ?f] [?f :age 2])]", "[]", true),
    (
        "[:find ?n :where [?e :name ?n] (not-join [?e] [?f :friend ?e] (not [?f :tag :blue]))]",
        "[]",
        true,
    ),
    ("[:find ?n ?g :where [?e :name ?n] [(get-else $ ?e :age -1) ?g]]", "[]", true),
    ("[:find ?n :where [?e :name ?n] [(missing? $ ?e :age)]]", "[]", true),
    ("[:find ?n ?v :where [?e :name ?n] [(get-some $ ?e :age :tag) [_ ?v]]]", "[]", true),
    ("[:find ?g (count ?e) :where [?e :age ?g]]", "[]", true),
    ("[:find (count ?e) . :where [?e :age ?g]]", "[]", true),
    ("[:find (sum ?g) (min ?g) (max ?g) (avg ?g) :with ?e :where [?e :age ?g]]", "[]", true),
    ("[:find ?t (distinct ?g) (max 2 ?g) :where [?e :tag ?t] [?e :age ?g]]", "[]", true),
    ("[:find ?g :with ?e :where [?e :age ?g]]", "[]", true),
    ("[:find ?n ?g :keys name age :where [?e :name ?n] [?e :age ?g]]", "[]", true),
    ("[:find (pull ?e [:name :age {:friend [:name]}]) :where [?e :age ?g] [(> ?g 2)]]", "[]", true),
    ("[:find (pull ?e [*]) :where [?e :tag :red]]", "[]", true),
    ("[:find (pull ?e [:name :_friend]) :where [?e :name _]]", "[]", true),
    ("[:find ?a ?b :in $ % :where (knows ?a ?b) (grown ?a)]", "[RULES]", true),
    ("[:find ?n :in $ % :where [?e :name ?n] (not (grown ?e))]", "[RULES]", true),
    ("[:find ?a ?b :in $ % :where (above ?a ?b)]", "[RULES]", false),
    ("[:find ?n :where [?f :name \"n1\"] [?e :friend ?f] [?e :name ?n]]", "[]", true),
    ("[:find ?e :where [?e :friend [:name \"n6\"]]]", "[]", false),
    ("[:find ?n :in $ ?f :where [?e :friend ?f] [?e :name ?n]]", "[[:name \"n7\"]]", false),
    ("[:find ?n ?x :in $ [[?g ?x]] :where [?e :age ?g] [?e :name ?n]]", "[[[1 :a] [2 :b]]]", true),
    ("[:find ?n :where [?e :name ?n] :order-by [?n :asc] :limit 2]", "[]", false),
    ("[:find ?n . :where [?e :name ?n]]", "[]", false),
    ("[:find ?a ?v :where [?e ?a ?v] [?e :name \"n0\"]]", "[]", true),
];

fn options(n: usize) -> TxOptions {
    TxOptions::at(1_700_000_000_000 + n as i64)
}

fn rows(result: QueryResult) -> BTreeSet<Value> {
    match result {
        QueryResult::Relation(rows) => rows.iter().map(|row| Value::vector(row.to_vec())).collect(),
        QueryResult::Collection(values) | QueryResult::Maps(values) => values.into_iter().collect(),
        QueryResult::Tuple(row) => row.map(Value::vector).into_iter().collect(),
        QueryResult::Scalar(value) | QueryResult::Map(value) => value.into_iter().collect(),
    }
}

struct Case {
    text: &'static str,
    query: Query,
    inputs: Vec<Input>,
    standing: Standing,
    view: fn(&Db) -> Db,
}

impl Case {
    fn new(text: &'static str, inputs: &str, db: &Db, view: fn(&Db) -> Db) -> Self {
        let query = Query::parse(text).unwrap();
        let inputs = edn::read(&inputs.replace("RULES", RULES)).unwrap();
        let inputs: Vec<Input> =
            inputs.as_slice().unwrap().iter().cloned().map(Input::from).collect();
        let standing = Standing::start(&query, &inputs, &view(db), Context::default()).unwrap();
        Self { text, query, inputs, standing, view }
    }

    fn again(&self, db: &Db) -> BTreeSet<Value> {
        let inputs: Vec<Input> = std::iter::once(Input::from((self.view)(db)))
            .chain(self.inputs.iter().cloned())
            .collect();
        rows(q(&self.query, &inputs, &Context::default()).unwrap())
    }

    fn advance(&mut self, before: &Db, after: &Db, datoms: &[datahike_core::datom::Datom]) {
        let old: BTreeSet<Value> = self.standing.rows().collect();
        let (from, to) = ((self.view)(before), (self.view)(after));
        let delta = self.standing.advance(&from, &to, datoms).unwrap();
        let new = self.again(after);
        let kept: BTreeSet<Value> = self.standing.rows().collect();
        assert_eq!(kept, new, "{} kept other rows than it has", self.text);
        assert_eq!(self.standing.len(), new.len(), "{}", self.text);
        let added: Vec<Value> =
            delta.added.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
        assert_eq!(added.len(), delta.added.len(), "{} told a row twice", self.text);
        assert_eq!(added, new.difference(&old).cloned().collect::<Vec<_>>(), "{}", self.text);
        let removed: BTreeSet<Value> = delta.removed.iter().cloned().collect();
        assert_eq!(removed, old.difference(&new).cloned().collect(), "{}", self.text);
    }
}

fn form() -> impl Generator<Value = String> {
    let name = (0..6u8).prop_map(|n| format!("[:name \"n{n}\"]"));
    let tag = prop_oneof![Just(":red"), Just(":blue"), Just(":green")];
    prop_oneof![
        (0..6u8, 0..6i64).prop_map(|(n, age)| format!("{{:name \"n{n}\" :age {age}}}")),
        (0..6u8, tag.clone()).prop_map(|(n, tag)| format!("{{:name \"n{n}\" :tag {tag}}}")),
        (0..6u8, 0..8u8)
            .prop_map(|(a, b)| format!("{{:name \"n{a}\" :friend {{:name \"n{b}\"}}}}")),
        (0..6u8, 0..6u8).prop_map(|(a, b)| format!("{{:name \"n{a}\" :boss {{:name \"n{b}\"}}}}")),
        (0..6u8, tag).prop_map(|(n, tag)| format!("[:db/retract [:name \"n{n}\"] :tag {tag}]")),
        (0..6u8, 0..8u8)
            .prop_map(|(a, b)| format!("[:db/retract [:name \"n{a}\"] :friend [:name \"n{b}\"]]")),
        (0..6u8).prop_map(|n| format!("[:db/retract [:name \"n{n}\"] :age]")),
        name.clone().prop_map(|name| format!("[:db/retractEntity {name}]")),
        (0..6u8, 0..6u8).prop_map(|(a, b)| format!("{{:db/id [:name \"n{a}\"] :name \"m{b}\"}}")),
    ]
}

fn seeded() -> Db {
    let db = Db::empty(DbConfig::default());
    let db = db.db_with(&edn::read(SCHEMA).unwrap(), &options(0)).unwrap();
    let people: Vec<String> =
        (0..8).map(|n| format!("{{:name \"n{n}\" :age {n} :tag :green}}")).collect();
    db.db_with(&edn::read(&format!("[{}]", people.join(" "))).unwrap(), &options(1)).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn keeps_what_a_new_run_finds(
        txs in prop::collection::vec(prop::collection::vec(form(), 1..4), 1..14),
        together in 1..4usize,
    ) {
        let mut db = seeded();
        let current: fn(&Db) -> Db = Clone::clone;
        let past: fn(&Db) -> Db = |db| db.history().unwrap();
        let since: fn(&Db) -> Db = |db| db.since(TimePoint::Tx(536_870_915)).unwrap();
        let mut cases: Vec<Case> = QUERIES
            .iter()
            .map(|(text, inputs, _)| Case::new(text, inputs, &db, current))
            .collect();
        for (text, inputs, _) in &QUERIES[..8] {
            cases.push(Case::new(text, inputs, &db, past));
            cases.push(Case::new(text, inputs, &db, since));
        }
        let (mut before, mut datoms) = (db.clone(), Vec::new());
        for (n, forms) in txs.iter().enumerate() {
            let data = edn::read(&format!("[{}]", forms.join(" "))).unwrap();
            // Some name entities that are gone: refused, and nothing has happened.
            let Ok(report) = db.with(&data, &options(n + 2)) else { continue };
            db = report.db_after.clone();
            datoms.extend(report.tx_data.iter().cloned());
            if n % together == 0 {
                cases.iter_mut().for_each(|case| case.advance(&before, &db, &datoms));
                before = db.clone();
                datoms.clear();
            }
        }
    }
}

#[test]
fn runs_again_only_what_it_must() {
    let db = seeded();
    for (text, inputs, deltas) in QUERIES {
        let case = Case::new(text, inputs, &db, Clone::clone);
        let kept = matches!(case.standing.strategy(), Strategy::Deltas);
        assert_eq!(kept, *deltas, "{text}: {:?}", case.standing.strategy());
    }
}

#[test]
fn a_schema_that_changes_is_seen() {
    let mut db = seeded();
    let text = "[:find ?e :where [?e :city \"Rome\"]]";
    let mut case = Case::new(text, "[]", &db, Clone::clone);
    assert!(case.standing.triggers().is_empty());
    for (n, data) in [
        "[{:db/ident :city :db/valueType :db.type/string :db/cardinality :db.cardinality/one}]",
        "[{:name \"n1\" :city \"Rome\"}]",
        "[{:name \"n1\" :city \"Oslo\"}]",
    ]
    .into_iter()
    .enumerate()
    {
        let report = db.with(&edn::read(data).unwrap(), &options(n + 2)).unwrap();
        case.advance(&report.db_before, &report.db_after, &report.tx_data);
        assert_eq!(case.standing.len(), usize::from(n == 1));
        db = report.db_after;
    }
}

#[test]
fn nothing_is_read_for_a_transaction_that_touches_nothing() {
    let db = seeded();
    let query = Query::parse("[:find ?n :in $ ?g :where [?e :age ?g] [?e :name ?n]]").unwrap();
    let inputs = [Input::Value(Value::Long(2))];
    let mut standing = Standing::start(&query, &inputs, &db, Context::default()).unwrap();
    let data = edn::read("[{:name \"n1\" :tag :red}]").unwrap();
    let report = db.with(&data, &options(2)).unwrap();
    let touched = report.tx_data.iter().any(|d| standing.triggers().iter().any(|t| t.fires(d)));
    assert!(!touched, "{:?}", standing.triggers());
    assert!(
        standing.advance(&report.db_before, &report.db_after, &report.tx_data).unwrap().is_empty()
    );
}
