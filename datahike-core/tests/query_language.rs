//! What queries mean: joins, scopes, rules, aggregates, errors, bounds.

#![expect(clippy::unwrap_used, reason = "what these tests set up must succeed")]

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use datahike_core::budget::{Budget, Exceeded};
use datahike_core::db::{Db, DbConfig, SchemaFlexibility};
use datahike_core::pull::{Pattern, pull};
use datahike_core::query::{Context, Functions, Input, Query, QueryError, analyze, q};
use datahike_core::tx::TxOptions;
use datahike_value::{Value, edn};
use proptest::prelude::*;

fn value(text: &str) -> Value {
    edn::read(text).unwrap()
}

fn db(txs: &[&str]) -> Db {
    let empty = Db::empty(DbConfig::new(SchemaFlexibility::Read));
    txs.iter().enumerate().fold(empty, |db, (at, tx)| {
        db.with(&value(tx), &TxOptions::at(at as i64 + 1)).unwrap().db_after
    })
}

fn friends() -> Db {
    db(&[
        "[{:db/id 1000001 :db/ident :uid :db/unique :db.unique/identity}
          {:db/id 1000002 :db/ident :friend :db/valueType :db.type/ref :db/cardinality :db.cardinality/many}
          {:db/id 1000003 :db/ident :age :db/valueType :db.type/long :db/index true}]",
        "[{:db/id 1 :uid \"a\" :name \"Ann\" :age 30 :friend [2 3]}
          {:db/id 2 :uid \"b\" :name \"Bob\" :age 40 :friend [3]}
          {:db/id 3 :uid \"c\" :name \"Cy\" :age 50 :friend [1]}
          {:db/id 4 :uid \"d\" :name \"Di\"}]",
    ])
}

fn run(query: &str, inputs: &[Input]) -> Result<Value, QueryError> {
    Ok(q(&Query::parse(query)?, inputs, &Context::default())?.into_value())
}

#[track_caller]
fn check(query: &str, inputs: &[Input], expected: &str) {
    assert_eq!(run(query, inputs).unwrap(), value(expected), "{query}");
}

#[track_caller]
fn refused(query: &str, inputs: &[Input], code: &str) -> QueryError {
    let error = run(query, inputs).expect_err(query);
    assert_eq!(error.code(), code, "{error}");
    error
}

#[test]
fn clauses_may_stand_in_any_order() {
    let db = [Input::from(friends())];
    check("[:find ?n :where [(> ?a 35)] [?e :age ?a] [?e :name ?n]]", &db, "#{[\"Bob\"] [\"Cy\"]}");
    check("[:find ?n :where (not [?e :age _]) [?e :name ?n] [?e :uid _]]", &db, "#{[\"Di\"]}");
    check(
        "[:find ?n ?d :where [(* ?a 2) ?d] [(get-else $ ?e :age 1) ?a] [?e :name ?n] [?e :uid \"d\"]]",
        &db,
        "#{[\"Di\" 2]}",
    );
}

#[test]
fn names_of_entities_are_resolved_and_come_back_as_given() {
    let db = friends();
    let inputs = [Input::from(&db), Input::Value(value("[[:uid \"a\"] 2 [:uid \"nobody\"]]"))];
    check(
        "[:find ?e ?n :in $ [?e ...] :where [?e :name ?n]]",
        &inputs,
        "#{[[:uid \"a\"] \"Ann\"] [2 \"Bob\"]}",
    );
    check(
        "[:find [?n ...] :where [?e :friend [:uid \"a\"]] [?e :name ?n]]",
        &inputs[..1],
        "[\"Cy\"]",
    );
    refused("[:find ?n :where [[:uid \"nobody\"] :name ?n]]", &inputs[..1], "entity-id/missing");
}

#[test]
fn variables_of_inner_scopes_are_their_own() {
    let db = [Input::from(friends())];
    // ?a inside or-join and not-join is not the ?a outside.
    check(
        "[:find ?n ?a :where [?e :name ?n] [?e :age ?a] (not-join [?e] [?e :friend ?f] [?f :age ?a] [(> ?a 40)])]",
        &db,
        "#{[\"Cy\" 50]}",
    );
    check(
        "[:find ?n ?a :where [?e :name ?n] [?e :age ?a] (or-join [?e] [?e :uid \"a\"] (and [?e :friend ?a] [?a :uid \"a\"]))]",
        &db,
        "#{[\"Ann\" 30] [\"Cy\" 50]}",
    );
    check(
        "[:find ?n :where [?e :name ?n] (or [?e :age 30] (and [?e :uid \"d\"] (not [?e :age _])))]",
        &db,
        "#{[\"Ann\"] [\"Di\"]}",
    );
}

#[test]
fn recursion_ends_whatever_its_shape() {
    let edges = "[[1 :to 2] [2 :to 3] [3 :to 1] [3 :to 4]]";
    let shapes = [
        "[[(r ?a ?b) [?a :to ?b]] [(r ?a ?b) [?a :to ?t] (r ?t ?b)]]",
        "[[(r ?a ?b) [?a :to ?b]] [(r ?a ?b) (r ?a ?t) [?t :to ?b]]]",
        "[[(r ?a ?b) [?a :to ?b]] [(r ?a ?b) (r ?a ?t) (r ?t ?b)]]",
        "[[(r ?a ?b) (s ?a ?b)] [(s ?a ?b) [?a :to ?b]] [(s ?a ?b) (r ?a ?t) (s ?t ?b)]]",
        "[[(r ?a ?b) (or-join [?a ?b] [?a :to ?b] (and (r ?a ?t) [?t :to ?b]))]]",
    ];
    for rules in shapes {
        let inputs = [Input::from(value(edges)), Input::from(value(rules))];
        let all = run("[:find ?a ?b :in $ % :where (r ?a ?b)]", &inputs).unwrap();
        assert_eq!(all.as_set().unwrap().len(), 12, "{rules}");
        check("[:find [?b ...] :in $ % :where (r 4 ?b)]", &inputs, "[]");
        check("[:find ?a :in $ % :where (r ?a 4)]", &inputs, "#{[1] [2] [3]}");
        check("[:find ?b :in $ % :where (r 2 ?b) [(> ?b 2)]]", &inputs, "#{[3] [4]}");
        check("[:find ?a :in $ % :where (r ?a ?a)]", &inputs, "#{[1] [2] [3]}");
        check("[:find ?x :in $ % :where [(ground 1) ?x] (r ?x 4) (r 1 ?x)]", &inputs, "#{[1]}");
    }
}

#[test]
fn rules_that_cannot_be_right_are_refused() {
    let facts = Input::from(value("[[1 :to 2]]"));
    let with = |rules: &str| [facts.clone(), Input::from(value(rules))];
    let call = "[:find ?a :in $ % :where (reach ?a)]";
    let error = refused(call, &with("[[(reaches ?a) [?a :to _]]]"), "query/where");
    assert_eq!(error.hint(), Some("did you mean reaches?"));
    refused(call, &with("[[(reach ?a ?b) [?a :to ?b]]]"), "query/where");
    refused(call, &with("[[(reach ?a) [?a :to _]] [(reach ?a ?b) [?a :to ?b]]]"), "parser/rule");
    refused(call, &with("[[(reach ?a) [?a :to _] (not (reach ?a))]]"), "query/rule");
    refused("[:find ?a :where (reach ?a)]", &[facts], "parser/query");
}

#[test]
fn inputs_must_be_as_many_as_the_query_takes() {
    refused("[:find ?a :in ?a ?b]", &[Input::Value(value("1"))], "query/inputs");
    refused(
        "[:find ?a :in ?a]",
        &[Input::Value(value("1")), Input::Value(value("1"))],
        "query/inputs",
    );
    refused("[:find ?a ?b :in [?a ?b]]", &[Input::Value(value("[1]"))], "query/binding");
}

#[test]
fn mistakes_are_named_with_a_hint() {
    let db = [Input::from(friends())];
    let error = refused("[:find ?nam :where [_ :name ?name]]", &db, "parser/query");
    assert_eq!(error.hint(), Some("did you mean ?name?"));
    let error =
        refused("[:find ?n :where [_ :name ?n] [(stats-with? ?n \"A\")]]", &db, "query/where");
    assert_eq!(error.hint(), Some("did you mean starts-with??"));
    refused("[:find ?n :where [_ :name ?n] [(> ?x 1)]]", &db, "query/where");
    refused("[:find ?n :where [_ :name ?n]", &db, "parser/query");
    refused("[:find (avrage ?a) :where [_ :age ?a]]", &db, "query/find");
}

#[test]
fn aggregates_keep_their_types() {
    let of = |text: &str| [Input::Value(value(text))];
    for (aggregate, values, expected) in [
        ("(sum ?x)", "[1 2]", "3"),
        ("(sum ?x)", "[1 2.5]", "3.5"),
        ("(avg ?x)", "[1 3]", "2.0"),
        ("(median ?x)", "[5 1 2]", "2.0"),
        ("(variance ?x)", "[1 3]", "1.0"),
        ("(min 2 ?x)", "[3 1 2]", "[1 2]"),
        ("(max 2 ?x)", "[3 1 2]", "[2 3]"),
        ("(distinct ?x)", "[3 1]", "#{1 3}"),
        ("(count ?x)", "[3 1]", "2"),
    ] {
        check(&format!("[:find {aggregate} . :in [?x ...]]"), &of(values), expected);
    }
    check("[:find (count ?x) . :in [?x ...]]", &of("[]"), "nil");
}

#[test]
fn the_same_seed_draws_the_same_sample() {
    let query = Query::parse("[:find (sample 5 ?x) . :in [?x ...]]").unwrap();
    let inputs = [Input::Value(Value::vector((0..1000).map(Value::Long)))];
    let draw = |seed| q(&query, &inputs, &Context { seed, ..Context::default() }).unwrap();
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn functions_of_the_host_are_called_by_name_or_passed() {
    let functions = Functions::new().function("twice", |args| match args {
        [Value::Long(n)] => Ok(Value::Long(n * 2)),
        _ => Err("takes a long".into()),
    });
    let context = Context { functions: Arc::new(functions), ..Context::default() };
    let query = Query::parse("[:find ?y . :in ?x :where [(twice ?x) ?y]]").unwrap();
    let found = q(&query, &[Input::Value(Value::Long(21))], &context).unwrap();
    assert_eq!(found.into_value(), Value::Long(42));
    let odd =
        Input::function(|args| Ok(Value::Bool(args[0].as_long().is_some_and(|n| n % 2 == 1))));
    check(
        "[:find ?x :in ?f [?x ...] :where [(?f ?x)]]",
        &[odd, value("[1 2 3]").into()],
        "#{[1] [3]}",
    );
}

#[test]
fn passing_a_bound_names_it() {
    let numbers = Value::vector((0..2000).map(Value::Long));
    let inputs = [Input::Value(numbers.clone()), Input::Value(numbers)];
    let query =
        Query::parse("[:find (count ?a) . :in [?a ...] [?b ...] :where [(< ?a ?b)]]").unwrap();
    let with = |budget| q(&query, &inputs, &Context { budget, ..Context::default() });
    let rows = with(Budget { rows_max: 10_000, ..Budget::default() }).unwrap_err();
    assert!(matches!(rows, QueryError::Exceeded(Exceeded::Rows { max: 10_000, .. })), "{rows}");
    let cancel = Some(Arc::new(AtomicBool::new(true)));
    let cancelled = with(Budget { cancel, ..Budget::default() }).unwrap_err();
    assert_eq!(cancelled, QueryError::Exceeded(Exceeded::Cancelled));
    let late = with(Budget { deadline: Some(Arc::new(|| true)), ..Budget::default() }).unwrap_err();
    assert_eq!(late.code(), "query/timeout");
}

#[test]
fn pages_and_orders() {
    let db = [Input::from(friends())];
    let query =
        "[:find ?n ?a :where [?e :name ?n] [?e :age ?a] :order-by ?a :desc :limit 1 :offset 1]";
    check(query, &db, "[[\"Bob\" 40]]");
    check("[:find ?n :keys name :where [1 :name ?n]]", &db, "[{:name \"Ann\"}]");
    let plain = Query::parse("[:find ?n :where [_ :name ?n]]").unwrap();
    assert_eq!(q(&plain.limited(Some(2)), &db, &Context::default()).unwrap().len(), 2);
}

#[test]
fn an_explanation_tells_the_order_and_the_rows() {
    let query =
        Query::parse("[:find ?n :where [?e :name ?n] [?e :age ?a] [?e :uid \"b\"] [(> ?a 1)]]")
            .unwrap();
    let inputs = [Input::from(friends())];
    let (found, told) = analyze(&query, &inputs, &Context::default(), None).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(told.steps[0].clause, value("[?e :uid \"b\"]"), "{told}");
    assert!(told.steps.iter().all(|step| step.actual.unwrap().rows == 1), "{told}");
}

#[test]
fn pulls_follow_references_and_cut_cycles() {
    let db = friends();
    let check = |pattern: &str, expected: &str| {
        let pattern = Pattern::parse_text(pattern).unwrap();
        assert_eq!(pull(&db, &pattern, &value("[:uid \"a\"]")).unwrap(), value(expected));
    };
    check("[:name {:friend [:name]}]", "{:name \"Ann\" :friend [{:name \"Bob\"} {:name \"Cy\"}]}");
    check("[:db/id {:friend 1}]", "{:db/id 1 :friend [{:db/id 2} {:db/id 3}]}");
    check(
        "[:db/id {(limit :friend 1) ...}]",
        "{:db/id 1 :friend [{:db/id 2 :friend [{:db/id 3 :friend [{:db/id 1 :friend [{:db/id 2}]}]}]}]}",
    );
    check("[{:_friend [:name]}]", "{:_friend [{:name \"Cy\"}]}");
    check("[(:nope :default 1) [:name :as \"n\" :xform upper-case]]", "{:nope 1 \"n\" \"ANN\"}");
    check("[:nope]", "nil");
    assert_eq!(Pattern::parse_text("12").unwrap_err().code(), "parser/pull");
}

/// A query text over `:p0 … :p2` with a few shared variables, and the same rows by nested loops.
fn naive(facts: &[(i64, u8, i64)], clauses: &[(u8, u8, u8)]) -> Vec<[i64; 3]> {
    let mut rows = Vec::new();
    let domain: std::collections::BTreeSet<i64> = facts.iter().flat_map(|f| [f.0, f.2]).collect();
    for x in &domain {
        for y in &domain {
            for z in &domain {
                let of = [*x, *y, *z];
                let holds = |&(a, e, v): &(u8, u8, u8)| {
                    facts.contains(&(of[e as usize], a, of[v as usize]))
                };
                if clauses.iter().all(holds) {
                    rows.push(of);
                }
            }
        }
    }
    rows
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(
        std::env::var("QUERY_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(64)
    ))]

    /// Collections, snapshots in blocks' order and nested loops agree on any conjunction.
    #[test]
    fn joins_agree_with_nested_loops(
        facts in prop::collection::btree_set((1i64..6, 0u8..3, 1i64..6), 0..25),
        mut clauses in prop::collection::vec((0u8..3, 0u8..3, 0u8..3), 1..4),
    ) {
        // Every variable must be bound by some clause.
        clauses.push((0, 0, 1));
        clauses.push((1, 1, 2));
        let facts: Vec<_> = facts.into_iter().collect();
        let names = ["?x", "?y", "?z"];
        let text: String = clauses.iter()
            .map(|(a, e, v)| format!("[{} :p{a} {}]", names[*e as usize], names[*v as usize]))
            .collect();
        let query = format!("[:find ?x ?y ?z :where {text}]");
        let expected = Value::set(naive(&facts, &clauses).into_iter().map(|row| {
            Value::vector(row.map(Value::Long))
        }));
        let rows = facts.iter().map(|(e, a, v)| {
            Value::vector([Value::Long(*e), Value::keyword(&format!("p{a}")), Value::Long(*v)])
        });
        let collection = Value::vector(rows.clone());
        prop_assert_eq!(&run(&query, &[collection.into()]).unwrap(), &expected);
        let schema = "[{:db/id 1000000 :db/ident :p0 :db/cardinality :db.cardinality/many}
            {:db/id 1000001 :db/ident :p1 :db/cardinality :db.cardinality/many :db/index true}
            {:db/id 1000002 :db/ident :p2 :db/cardinality :db.cardinality/many :db/valueType :db.type/ref}]";
        let tx = Value::vector(rows.map(|row| {
            let Value::Vector(parts) = row else { unreachable!() };
            Value::vector(std::iter::once(Value::keyword("db/add")).chain(parts.iter().cloned()))
        }));
        let db = db(&[schema]).with(&tx, &TxOptions::at(9)).unwrap().db_after;
        prop_assert_eq!(&run(&query, &[Input::from(&db)]).unwrap(), &expected);
        let history = Input::Db(db.history().unwrap());
        prop_assert_eq!(&run(&query, &[history]).unwrap(), &expected);
    }
}
