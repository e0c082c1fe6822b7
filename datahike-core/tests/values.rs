//! The database as a value: views and their combinations against a plain list of events, equality,
//! metrics, entities.
#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use datahike_core::datom::{Datom, TX0};
use datahike_core::db::{Components, Db, DbConfig, TimePoint};
use datahike_core::entity::{Entity, EntityValue};
use datahike_core::index::{Index, Indexes, MemoryBlocks, Params, Range, Roots};
use datahike_core::tx::TxOptions;
use datahike_value::{Keyword, Value, edn, kw, vector};
use proptest::prelude::*;

const SCHEMA: &str = "[
  {:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one :db/unique :db.unique/identity}
  {:db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one :db/index true}
  {:db/ident :tag :db/valueType :db.type/long :db/cardinality :db.cardinality/many}
  {:db/ident :friend :db/valueType :db.type/ref :db/cardinality :db.cardinality/many}
  {:db/ident :part :db/valueType :db.type/ref :db/cardinality :db.cardinality/many :db/isComponent true}
  {:db/ident :Zed :db/valueType :db.type/long :db/cardinality :db.cardinality/one}]";

/// Entities beyond those of the schema, in both modes.
const FIRST: i64 = 1_000;

const DAY: i64 = 86_400_000;

/// A database and everything that was ever reported of it.
struct Run {
    db: Db,
    events: Vec<Datom>,
    blocks: Arc<MemoryBlocks>,
}

impl Run {
    fn new(config: DbConfig) -> Self {
        let params = Params { leaf_target: 4, branch_target: 3, seed: [1, 2] };
        let config = config.with_params(params);
        let blocks = Arc::new(MemoryBlocks::default());
        let empty = Db::empty(config.clone());
        let source = blocks.clone();
        let indexes = Indexes::open(params, config.keep_history, Roots::default(), source);
        let system: Vec<Datom> =
            empty.indexes().current(&Range::all(Index::Eavt)).map(Result::unwrap).collect();
        let indexes = indexes.apply(&system, empty.schema());
        let mut run = Self { db: empty.with_indexes(indexes), events: system, blocks };
        run.transact(SCHEMA);
        run
    }

    fn transact(&mut self, forms: &str) {
        let now = TxOptions::at((self.db.max_tx() - TX0 + 1).cast_signed() * DAY);
        let report = self.db.with(&edn::read(forms).unwrap(), &now).unwrap();
        self.events.extend(report.tx_data.iter().cloned());
        self.db = report.db_after;
    }

    fn flush(&mut self) {
        let flushed = self.db.indexes().flush().unwrap();
        self.blocks.insert(&flushed.blocks).unwrap();
        self.db = self.db.with_indexes(flushed.indexes);
    }
}

#[derive(Clone, Debug)]
enum Op {
    Add(i64, &'static str, i64),
    Retract(i64, &'static str, i64),
    Flush,
    Entity(i64),
}

fn op() -> impl Strategy<Value = Op> {
    let e = || FIRST..FIRST + 5;
    let fact = || {
        prop_oneof![
            (Just("age"), 0..4i64),
            (Just("tag"), 0..4i64),
            (Just("Zed"), 0..2i64),
            (Just("friend"), FIRST..FIRST + 5),
        ]
    };
    prop_oneof![
        6 => (e(), fact()).prop_map(|(e, (a, v))| Op::Add(e, a, v)),
        2 => (e(), fact()).prop_map(|(e, (a, v))| Op::Retract(e, a, v)),
        1 => e().prop_map(Op::Entity),
        1 => Just(Op::Flush),
    ]
}

#[derive(Clone, Debug)]
enum View {
    History,
    AsOf(u64, bool),
    Since(u64, bool),
    /// Only datoms whose entity is even.
    Even,
}

fn view() -> impl Strategy<Value = View> {
    prop_oneof![
        Just(View::History),
        (0..12u64, any::<bool>()).prop_map(|(tx, by_time)| View::AsOf(tx, by_time)),
        (0..12u64, any::<bool>()).prop_map(|(tx, by_time)| View::Since(tx, by_time)),
        Just(View::Even),
    ]
}

fn point(tx: u64, by_time: bool) -> TimePoint {
    match by_time {
        // Between two transactions: the earlier one counts.
        true => TimePoint::Inst(tx.cast_signed() * DAY + DAY / 2),
        false => TimePoint::Tx(TX0 + tx),
    }
}

fn seen(db: &Db, views: &[View]) -> Db {
    views.iter().fold(db.clone(), |db, view| match view {
        View::History => db.history().unwrap(),
        View::AsOf(tx, by_time) => db.as_of(point(*tx, *by_time)).unwrap(),
        View::Since(tx, by_time) => db.since(point(*tx, *by_time)).unwrap(),
        View::Even => db.filter(Arc::new(|_, datom| datom.e % 2 == 0)),
    })
}

/// What the views show of the events, in no order.
fn shown(events: &[Datom], views: &[View]) -> Vec<Datom> {
    let (mut upto, mut after) = (u64::MAX, 0);
    let (mut history, mut even) = (false, false);
    for view in views {
        match view {
            View::History => history = true,
            View::AsOf(tx, _) => upto = upto.min(TX0 + tx),
            View::Since(tx, _) => after = after.max(TX0 + tx + 1),
            View::Even => even = true,
        }
    }
    let before: Vec<&Datom> = events.iter().filter(|datom| datom.tx <= upto).collect();
    let mut found: Vec<Datom> = match history {
        true => before.into_iter().cloned().collect(),
        false => {
            let mut state: BTreeMap<_, Datom> = BTreeMap::new();
            for datom in before {
                let fact = (datom.e, datom.a, datom.v.clone());
                match datom.added {
                    true => drop(state.insert(fact, datom.clone())),
                    false => drop(state.remove(&fact)),
                }
            }
            state.into_values().collect()
        }
    };
    found.retain(|datom| datom.tx >= after && (!even || datom.e % 2 == 0));
    found
}

/// A datom as a list of what its place in an index goes by: the attribute as users see it.
fn place(db: &Db, index: Index, datom: &Datom) -> Vec<Value> {
    let id = |id: u64| Value::Long(id.cast_signed());
    let (e, a, v) = (id(datom.e), db.attr_value(datom.a), datom.v.clone());
    let rest = [id(datom.tx), datom.added.into()];
    let first = match index {
        Index::Eavt => [e, a, v],
        Index::Aevt => [a, e, v],
        Index::Avet => [a, v, e],
    };
    first.into_iter().chain(rest).collect()
}

/// How a place compares with a position that has as many leading components.
fn against(place: &[Value], position: &[Value]) -> Ordering {
    place[..position.len()].cmp(position)
}

fn config(cases: u32) -> ProptestConfig {
    let cases = std::env::var("VALUE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(cases);
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(cases) }
}

proptest! {
    #![proptest_config(config(150))]

    #[test]
    fn views_show_what_a_list_of_events_shows(
        ops in prop::collection::vec(op(), 1..25),
        views in prop::collection::vec(view(), 0..4),
        refs in any::<bool>(),
        pick in any::<prop::sample::Index>(),
        parts in 0..4usize,
    ) {
        let mut run = Run::new(DbConfig::default().with_attribute_refs(refs));
        for op in &ops {
            match op {
                Op::Add(e, a, v) => run.transact(&format!("[[:db/add {e} :{a} {v}]]")),
                Op::Retract(e, a, v) => run.transact(&format!("[[:db/retract {e} :{a} {v}]]")),
                Op::Entity(e) => run.transact(&format!("[[:db/retractEntity {e}]]")),
                Op::Flush => run.flush(),
            }
        }
        let db = seen(&run.db, &views);
        let all = shown(&run.events, &views);
        for index in Index::ALL {
            let mut expected: Vec<Vec<Value>> = all
                .iter()
                .filter(|d| index != Index::Avet || db.schema().attribute(d.a).in_avet())
                .map(|datom| place(&db, index, datom))
                .collect();
            expected.sort();
            let places = |datoms: datahike_core::db::Datoms<'_>| -> Vec<Vec<Value>> {
                datoms.map(|datom| place(&db, index, &datom.unwrap())).collect()
            };
            let none = Components::none();
            prop_assert_eq!(&places(db.datoms(index, &none).unwrap()), &expected);
            // Positions are those of datoms of any time, whether the view shows them or not.
            let of = &run.events[pick.index(run.events.len())];
            if index == Index::Avet && !db.schema().attribute(of.a).in_avet() {
                continue;
            }
            let mut position = place(&db, index, of);
            position.truncate(parts.min(3));
            let components = Components::from(position.clone());
            let like = |wanted: &dyn Fn(Ordering) -> bool| -> Vec<Vec<Value>> {
                let fits = |place: &&Vec<Value>| wanted(against(place, &position));
                expected.iter().filter(fits).cloned().collect()
            };
            prop_assert_eq!(
                places(db.datoms(index, &components).unwrap()),
                like(&|order| order.is_eq())
            );
            prop_assert_eq!(
                places(db.seek_datoms(index, &components).unwrap()),
                like(&|order| order.is_ge())
            );
            let mut back = like(&|order| order.is_le());
            back.reverse();
            prop_assert_eq!(places(db.rseek_datoms(index, &components).unwrap()), back);
        }
        let age = db.schema().attr_id(&kw!("age")).unwrap();
        let mut between: Vec<(Value, u64, u64, bool)> = all
            .iter()
            .filter(|d| d.a == age && d.v >= Value::from(1) && d.v <= Value::from(2))
            .map(|d| (d.v.clone(), d.e, d.tx, d.added))
            .collect();
        between.sort();
        let found = db.index_range(&kw!("age").into(), &1.into(), &2.into()).unwrap();
        let found: Vec<_> = found.map(|d| d.map(|d| (d.v, d.e, d.tx, d.added)).unwrap()).collect();
        prop_assert_eq!(found, between);

        let metrics = db.metrics().unwrap();
        prop_assert_eq!(metrics.count, all.len() as u64);
        prop_assert_eq!(metrics.per_attribute.values().sum::<u64>(), metrics.count);
        prop_assert_eq!(metrics.per_entity.values().sum::<u64>(), metrics.count);
        let now = shown(&run.events, &[]).len();
        prop_assert_eq!(metrics.temporal_count, Some((run.events.len() - now) as u64));
    }

    #[test]
    fn equal_are_those_with_the_same_datoms(
        ops in prop::collection::vec(op(), 1..12),
        views in prop::collection::vec(view(), 0..3),
    ) {
        let (mut one, mut other) = (Run::new(DbConfig::default()), Run::new(DbConfig::default()));
        let hasher = RandomState::new();
        for op in &ops {
            let form = match op {
                Op::Add(e, a, v) => format!("[[:db/add {e} :{a} {v}]]"),
                Op::Retract(e, a, v) => format!("[[:db/retract {e} :{a} {v}]]"),
                Op::Entity(e) => format!("[[:db/retractEntity {e}]]"),
                // Only one of both: where the datoms are must not matter.
                Op::Flush => {
                    one.flush();
                    continue;
                }
            };
            one.transact(&form);
            prop_assert_ne!(&one.db, &other.db);
            other.transact(&form);
            prop_assert_eq!(&one.db, &other.db);
        }
        let pairs = [
            (one.db.clone(), other.db.clone()),
            (one.db.history().unwrap(), other.db.history().unwrap()),
        ];
        for (ours, theirs) in pairs {
            prop_assert_eq!(hasher.hash_one(&ours), hasher.hash_one(&theirs));
            prop_assert!(ours.same_datoms(&theirs).unwrap());
            prop_assert_eq!(ours, theirs);
        }
        prop_assert_ne!(&one.db, &one.db.history().unwrap());
        // A filter is only like itself: views that have one are made once.
        let plain: Vec<View> =
            views.iter().filter(|view| !matches!(view, View::Even)).cloned().collect();
        let turned: Vec<View> = plain.iter().rev().cloned().collect();
        let (ours, theirs) = (seen(&one.db, &plain), seen(&other.db, &turned));
        prop_assert_eq!(hasher.hash_one(&ours), hasher.hash_one(&theirs));
        prop_assert_eq!(ours, theirs);
        let filtered = seen(&one.db, &[View::Even]);
        prop_assert_eq!(&filtered, &filtered.clone());
        prop_assert_ne!(&filtered, &seen(&one.db, &[View::Even]));
    }
}

fn people(refs: bool) -> Run {
    let mut run = Run::new(DbConfig::default().with_attribute_refs(refs));
    run.transact(
        "[{:db/id 1000 :name \"Ada\" :age 36 :tag [1 2 3] :friend [1001 1002]
           :part [{:db/id 1003 :age 1 :part [{:db/id 1004 :age 2}]}]}
          {:db/id 1001 :name \"Bob\" :friend 1000}
          {:db/id 1002 :name \"Cy\"}]",
    );
    run.transact("[[:db/add 1000 :age 37]]");
    run
}

fn entity(db: &Db, name: &str) -> Entity {
    db.entity(&vector![kw!("name"), name]).unwrap().unwrap()
}

#[test]
#[expect(
    clippy::mutable_key_type,
    reason = "what a snapshot makes when it is first looked at is not part of its hash"
)]
fn entities_lead_on() {
    for refs in [false, true] {
        let run = people(refs);
        let ada = entity(&run.db, "Ada");
        let get = |e: &Entity, a: &str| e.get(&Keyword::parse(a)).unwrap();
        assert_eq!(get(&ada, "age").unwrap().as_value(), Some(&Value::from(37)));
        assert_eq!(
            get(&ada, "tag").unwrap().to_value(),
            Value::set([1.into(), 2.into(), 3.into()])
        );
        assert!(get(&ada, "nothing").is_none() && get(&ada, "Zed").is_none());
        assert_eq!(get(&ada, "db/id").unwrap().as_value(), Some(&Value::from(1000)));
        let friends = get(&ada, "friend").unwrap();
        let names: Vec<Value> =
            friends.entities().iter().map(|e| get(e, "name").unwrap().to_value()).collect();
        assert_eq!(names, ["Bob".into(), "Cy".into()]);
        // Round a cycle and back again, and against the direction.
        let back = get(&friends.entities()[0], "friend").unwrap();
        assert_eq!(back.entities(), std::slice::from_ref(&ada));
        assert_eq!(get(&ada, "_friend").unwrap().entities()[0].id(), 1001);
        let part = get(&ada, "part").unwrap().entities()[0].clone();
        let EntityValue::Entity(owner) = get(&part, "_part").unwrap() else { panic!() };
        assert_eq!(owner, ada);
        let expected = "{:name \"Ada\" :age 37 :tag #{1 2 3} :friend #{{:db/id 1001} {:db/id 1002}}
            :part #{{:db/id 1003 :age 1 :part #{{:db/id 1004 :age 2}}}}}";
        assert_eq!(ada.touch().unwrap(), edn::read(expected).unwrap());
        let keys = [":age", ":friend", ":name", ":part", ":tag"];
        let found: Vec<String> = ada.keys().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, keys);

        // Entities of a view see the view.
        let then = run.db.as_of(TimePoint::Tx(run.db.max_tx() - 1)).unwrap();
        let younger = entity(&then, "Ada");
        assert_eq!(get(&younger, "age").unwrap().as_value(), Some(&Value::from(36)));
        assert_ne!(younger, ada);
        assert_eq!(entity(&run.db, "Ada"), ada);
        let distinct: HashSet<Entity> =
            [&ada, &ada, &younger, &part].into_iter().cloned().collect();
        assert_eq!(distinct.len(), 3);
    }
}

#[test]
fn components_that_own_each_other_end() {
    let mut run = Run::new(DbConfig::default());
    run.transact("[{:db/id 1000 :age 1 :part 1001} {:db/id 1001 :age 2 :part 1000}]");
    let entity = run.db.entity(&1000.into()).unwrap().unwrap();
    let expected = "{:age 1 :part #{{:db/id 1001 :age 2 :part #{{:db/id 1000}}}}}";
    assert_eq!(entity.touch().unwrap(), edn::read(expected).unwrap());
}

#[test]
fn positions_may_be_lookup_refs_and_idents() {
    for refs in [false, true] {
        let mut run = people(refs);
        run.transact("[{:db/id 1009 :db/ident :the/cat :age 4 :friend [:name \"Ada\"]}]");
        for views in [vec![], vec![View::History], vec![View::AsOf(9, false), View::Even]] {
            let db = seen(&run.db, &views);
            let datoms = |index, components: &str| -> Vec<Value> {
                let components = edn::read(components).unwrap();
                let components = Components::from(components.as_slice().unwrap());
                let found = db.datoms(index, &components).unwrap();
                found.map(|datom| datom.unwrap().v).collect()
            };
            let even = views.iter().any(|view| matches!(view, View::Even));
            let cat: &[Value] = if even { &[] } else { &[Value::Long(4)] };
            assert_eq!(datoms(Index::Eavt, "[:the/cat :age]"), cat);
            assert_eq!(datoms(Index::Aevt, "[:age :the/cat]"), cat);
            assert_eq!(datoms(Index::Eavt, "[[:name \"Ada\"] :name]"), ["Ada".into()]);
            let owners = datoms(Index::Avet, "[:friend [:name \"Ada\"]]");
            assert_eq!(owners.len(), if even { 0 } else { 2 });
            assert!(datoms(Index::Eavt, "[[:name \"Nobody\"]]").is_empty());
            let wrong = Components::from([vector![kw!("age"), 1]]);
            let error = db.datoms(Index::Eavt, &wrong).err().unwrap();
            assert_eq!(error.code(), Some("lookup-ref/unique"));
        }
    }
}

#[test]
fn metrics_are_those_of_datahike() {
    let mut run = Run::new(DbConfig::default());
    run.transact("[{:db/id 1000 :age 1 :tag [1 2]}]");
    run.transact("[{:db/id 1000 :age 2}]");
    let metrics = run.db.metrics().unwrap().to_value(&run.db);
    let get = |key: &str| metrics.get(&Keyword::parse(key)).cloned().unwrap();
    assert_eq!(get("per-attr-counts").get(&kw!("tag")), Some(&Value::from(2)));
    assert_eq!(get("per-entity-counts").as_map().unwrap()[&Value::from(1000)], Value::from(3));
    // What was 1, and that it no longer is.
    assert_eq!((get("temporal-count"), get("temporal-avet-count")), (2.into(), 2.into()));
    let none = Run::new(DbConfig::default().with_history(false));
    let metrics = none.db.metrics().unwrap().to_value(&none.db);
    assert_eq!(metrics.get(&kw!("temporal-count")), None);
}
