//! What a wrong query is told, how a plan reads, and that bounds hold.

#![expect(clippy::unwrap_used, reason = "what these tests set up must succeed")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use datahike_core::budget::{Budget, Exceeded};
use datahike_core::db::{Db, DbConfig, SchemaFlexibility};
use datahike_core::query::{Context, Input, Query, QueryError, analyze, explain, q};
use datahike_core::tx::TxOptions;
use datahike_value::{Value, edn};

fn value(text: &str) -> Value {
    edn::read(text).unwrap()
}

fn people() -> Db {
    let empty = Db::empty(DbConfig::new(SchemaFlexibility::Read));
    let schema = "[{:db/id 1000001 :db/ident :person/name :db/unique :db.unique/identity}
        {:db/id 1000002 :db/ident :person/age :db/index true}]";
    let schema = empty.with(&value(schema), &TxOptions::at(1)).unwrap().db_after;
    let facts = (1..=100).map(|n| {
        value(&format!(
            "{{:db/id {n} :person/name \"p{n}\" :person/age {} :person/city :c{}}}",
            n % 50,
            n % 4
        ))
    });
    schema.with(&Value::vector(facts.collect::<Vec<_>>()), &TxOptions::at(2)).unwrap().db_after
}

fn fails(query: &str, context: &Context) -> QueryError {
    let run = |query: Query| q(&query, &[Input::from(people())], context);
    Query::parse(query).and_then(run).expect_err(query)
}

#[test]
fn a_mistake_is_named_with_its_place_and_a_hint() {
    let told = [
        (
            "[:find ?n\n :where [?e :person/name ?n]\n        [(stats-with? ?n \"p\")]]",
            "query/where",
            "unknown function or predicate stats-with? at line 3, column 9, in [(stats-with? ?n \"p\")] \
             (did you mean starts-with??)",
        ),
        (
            "[:find ?n\n :were [?e :person/name ?n]]",
            "parser/query",
            "unknown section :were at line 2, column 2, in :were (did you mean :where?)",
        ),
        (
            "[:find ?n :where [_ :person/name ?n] [(> ?x 1)]]",
            "query/where",
            "insufficient bindings: nothing binds ?x before it is needed at line 1, column 38, in \
             [(> ?x 1)]",
        ),
    ];
    for (query, code, message) in told {
        let error = fails(query, &Context::default());
        assert_eq!(error.code(), code, "{error}");
        assert_eq!(error.to_string(), message);
    }
    let unfinished = fails("[:find ?n :where [_ :person/name ?n]", &Context::default());
    assert!(unfinished.position().is_some(), "{unfinished}");
}

#[test]
fn strict_queries_know_the_attributes() {
    let query = "[:find ?n\n :where [?e :persn/name ?n]]";
    let strict = Context { strict: true, ..Context::default() };
    let error = fails(query, &strict);
    assert_eq!(error.code(), "query/attribute");
    assert_eq!(error.position(), Some((2, 9)));
    assert_eq!(error.hint(), Some("did you mean :person/name?"));
    let lenient = Query::parse(query).unwrap();
    let inputs = [Input::from(people())];
    assert!(q(&lenient, &inputs, &Context::default()).unwrap().is_empty());
    let plan = explain(&lenient, &inputs, &Context::default()).unwrap();
    assert_eq!(plan.notes, ["unknown attribute :persn/name, did you mean :person/name?"]);
}

#[test]
fn a_plan_tells_why_and_an_analysis_what_it_met() {
    let query = "[:find ?n ?c :where [?e :person/city ?c] [?e :person/age ?a] [?e :person/name ?n]
        [(= ?n \"p7\")] [?f :person/name \"p8\"] [?f :person/city ?c]]";
    let query = Query::parse(query).unwrap();
    let inputs = [Input::from(people())];
    let plan = explain(&query, &inputs, &Context::default()).unwrap();
    assert_eq!(plan.steps[0].clause, value("[?f :person/name \"p8\"]"), "{plan}");
    assert!(plan.steps[0].how.contains("avet"), "{plan}");
    assert!(plan.steps[0].instead_of.iter().any(|(_, rows)| *rows >= 100.0), "{plan}");
    assert!(plan.steps.iter().all(|step| step.actual.is_none()));
    let ticks = AtomicUsize::new(0);
    let clock = move || Duration::from_micros(ticks.fetch_add(1, Ordering::Relaxed) as u64);
    let clock: datahike_core::query::Clock = Arc::new(clock);
    let (found, met) = analyze(&query, &inputs, &Context::default(), Some(clock)).unwrap();
    assert_eq!(found.len(), 0, "p7 and p8 live in different cities: {met}");
    assert_eq!(met.steps[0].actual.unwrap().rows, 1, "{met}");
    assert!(met.steps[0].actual.unwrap().time.unwrap() > Duration::ZERO, "{met}");
    assert!(met.to_string().contains("before "), "{met}");
}

#[test]
fn orders_take_several_keys() {
    let query = "[:find ?c ?a :where [?e :person/city ?c] [?e :person/age ?a]
        :order-by [?c :desc ?a :asc] :limit 2]";
    let found = q(&Query::parse(query).unwrap(), &[Input::from(people())], &Context::default());
    assert_eq!(found.unwrap().into_value(), value("[[:c3 1] [:c3 3]]"));
}

#[test]
fn functions_over_collections_and_methods_of_the_jvm() {
    let check = |call: &str, expected: &str| {
        let query = format!("[:find ?x . :in ?in :where [{call} ?x]]");
        let found =
            q(&Query::parse(&query).unwrap(), &[value("[1 2 3]").into()], &Context::default());
        assert_eq!(found.unwrap().into_value(), value(expected), "{call}");
    };
    check("(take 2 ?in)", "(1 2)");
    check("(drop 2 ?in)", "(3)");
    check("(clojure.set/union ?in [9])", "#{1 2 3 9}");
    check("(difference ?in [2])", "#{1 3}");
    check("(assoc {:a 1} :b ?in)", "{:a 1 :b [1 2 3]}");
    check("(parse-long \"42\")", "42");
    check("(.startsWith \"abc\" \"ab\")", "true");
}

#[test]
fn required_variables_reach_a_body_that_cannot_bind_them() {
    let query = Query::parse("[:find ?x . :in % ?y :where (next ?y ?x)]").unwrap();
    let inputs = [value("[[(next [?a] ?b) [(inc ?a) ?b]]]").into(), value("1").into()];
    assert_eq!(q(&query, &inputs, &Context::default()).unwrap().into_value(), value("2"));
}

#[test]
fn recursion_over_a_cyclic_graph_ends_or_names_its_bound() {
    let nodes = 50_000;
    let edges: Vec<Value> = (0..nodes)
        .map(|n| {
            Value::vector([Value::Long(n), Value::keyword("to"), Value::Long((n + 1) % nodes)])
        })
        .collect();
    let inputs = [
        Input::from(Value::vector(edges)),
        Input::from(value("[[(r ?a ?b) [?a :to ?b]] [(r ?a ?b) (r ?a ?t) [?t :to ?b]]]")),
    ];
    let one = Query::parse("[:find (count ?b) . :in $ % :where (r 0 ?b)]").unwrap();
    let found = q(&one, &inputs, &Context::default()).unwrap();
    assert_eq!(found.into_value(), Value::Long(nodes));
    // All pairs would be 2.5 billion rows.
    let all = Query::parse("[:find (count ?b) . :in $ % :where (r ?a ?b)]").unwrap();
    let bounded = |budget| q(&all, &inputs, &Context { budget, ..Context::default() }).unwrap_err();
    let error = bounded(Budget { rows_max: 300_000, ..Budget::default() });
    assert!(matches!(error, QueryError::Exceeded(Exceeded::Rows { max: 300_000, .. })), "{error}");
    let asked = Arc::new(AtomicUsize::new(0));
    let probe = asked.clone();
    let late = move || probe.fetch_add(1, Ordering::Relaxed) > 50;
    let error = bounded(Budget { deadline: Some(Arc::new(late)), ..Budget::default() });
    assert_eq!(error.code(), "query/timeout");
    assert!(asked.load(Ordering::Relaxed) < 60, "the clock was asked once more at most");
    let cancel = Arc::new(AtomicBool::new(false));
    let flag = cancel.clone();
    let cancels = move || {
        flag.store(true, Ordering::Relaxed);
        false
    };
    let budget =
        Budget { deadline: Some(Arc::new(cancels)), cancel: Some(cancel), ..Budget::default() };
    assert_eq!(bounded(budget).code(), "query/cancelled");
}
