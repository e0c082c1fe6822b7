//! The transactor against a model that keeps a plain list of facts, interprets operations one by one
//! and shares no code with it.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

#[path = "transactor/model.rs"]
mod model;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use datahike_core::block::{Address, BlockSource, Missing};
use datahike_core::datom::FIRST_TX;
use datahike_core::db::{Components, Db, DbConfig, SchemaFlexibility, TimePoint};
use datahike_core::index::{Index, Indexes, Node, Params, Roots};
use datahike_core::tx::{RawDatom, TxError, TxOptions, TxReport, transactions_of};
use datahike_value::{Value, edn};
use proptest::prelude::*;

use self::model::{Attr, Event, Model, Op, Target, Who};

const SCHEMA: &str = "[
  {:db/id 101 :db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one :db/unique :db.unique/identity}
  {:db/id 102 :db/ident :code :db/valueType :db.type/long :db/cardinality :db.cardinality/one :db/unique :db.unique/value}
  {:db/id 103 :db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
  {:db/id 104 :db/ident :tag :db/valueType :db.type/long :db/cardinality :db.cardinality/many}
  {:db/id 105 :db/ident :boss :db/valueType :db.type/ref :db/cardinality :db.cardinality/one}
  {:db/id 106 :db/ident :friend :db/valueType :db.type/ref :db/cardinality :db.cardinality/many}
  {:db/id 107 :db/ident :part :db/valueType :db.type/ref :db/cardinality :db.cardinality/many :db/isComponent true}]";

/// Blocks, of which only those at hand are found. Whatever is fetched is at hand from then on.
#[derive(Debug, Default)]
struct Shelf {
    blocks: Mutex<HashMap<Address, Arc<Node>>>,
    at_hand: Mutex<HashSet<Address>>,
}

impl BlockSource for Shelf {
    fn node(&self, address: &Address) -> Option<Arc<Node>> {
        let at_hand = self.at_hand.lock().unwrap().contains(address);
        at_hand.then(|| self.blocks.lock().unwrap().get(address).cloned()).flatten()
    }
}

impl Shelf {
    fn fetch(&self, missing: &Missing) {
        let mut at_hand = self.at_hand.lock().unwrap();
        let before = at_hand.len();
        at_hand.extend(&missing.addresses);
        assert!(at_hand.len() > before, "only blocks that are not at hand are missing");
    }

    fn fetch_all(&self) {
        self.at_hand.lock().unwrap().extend(self.blocks.lock().unwrap().keys());
    }

    /// Writes the tail into blocks, and leaves none of them at hand.
    fn flush(&self, db: &Db) -> Db {
        self.fetch_all();
        let flushed = db.indexes().flush().unwrap();
        for (address, bytes) in &flushed.blocks {
            let node = Arc::new(Node::decode(bytes).unwrap());
            self.blocks.lock().unwrap().insert(*address, node);
        }
        self.at_hand.lock().unwrap().clear();
        db.with_indexes(flushed.indexes)
    }

    /// Transacts as often as blocks are missing.
    fn with(&self, db: &Db, forms: &Value) -> Result<TxReport, TxError> {
        loop {
            match db.with(forms, &TxOptions::at(0)) {
                Err(error) if error.missing().is_some() => self.fetch(error.missing().unwrap()),
                done => return done,
            }
        }
    }
}

fn who() -> impl Strategy<Value = Who> {
    prop_oneof![
        4 => (1u64..6).prop_map(Who::Id),
        3 => (1i64..4).prop_map(|n| Who::Temp(-n)),
        2 => (0i64..4).prop_map(Who::Named),
    ]
}

fn plain() -> impl Strategy<Value = (Attr, i64)> {
    (prop_oneof![Just(Attr::Name), Just(Attr::Code), Just(Attr::Age), Just(Attr::Tag)], 0i64..4)
}

fn reference() -> impl Strategy<Value = Attr> {
    prop_oneof![Just(Attr::Boss), Just(Attr::Friend), Just(Attr::Part)]
}

fn attr() -> impl Strategy<Value = Attr> {
    prop_oneof![plain().prop_map(|(attr, _)| attr), reference()]
}

fn op() -> impl Strategy<Value = Op> {
    let existing = || who().prop_filter("no tempid", |who| !matches!(who, Who::Temp(_)));
    prop_oneof![
        6 => (who(), plain()).prop_map(|(e, (a, v))| Op::Add(e, a, Target::Plain(v))),
        4 => (who(), reference(), who()).prop_map(|(e, a, v)| Op::Add(e, a, Target::Ref(v))),
        2 => (existing(), plain()).prop_map(|(e, (a, v))| Op::Retract(e, a, Target::Plain(v))),
        1 => (existing(), reference(), existing())
            .prop_map(|(e, a, v)| Op::Retract(e, a, Target::Ref(v))),
        1 => (existing(), attr()).prop_map(|(e, a)| Op::RetractAll(e, a)),
        1 => (existing(), attr()).prop_map(|(e, a)| Op::RetractAttribute(e, a)),
        1 => existing().prop_map(Op::RetractEntity),
        1 => (existing(), plain(), proptest::option::of(0i64..4))
            .prop_map(|(e, (a, new), old)| Op::Cas(e, a, old, new)),
        4 => (proptest::option::of(who()), proptest::collection::vec(plain(), 0..4))
            .prop_map(|(e, entries)| Op::Map(e, entries)),
    ]
}

fn events(db: &Db) -> BTreeSet<Event> {
    db.all_datoms()
        .map(|datom| datom.unwrap())
        .filter(|datom| datom.e < 100)
        .map(|datom| {
            let attr = db.schema().ident(datom.a).text().to_owned();
            (datom.e, attr, datom.v.to_string(), datom.tx, datom.added)
        })
        .collect()
}

fn cases() -> u32 {
    std::env::var("TRANSACTOR_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn does_what_the_model_does(
        txs in proptest::collection::vec(
            (proptest::collection::vec(op(), 1..7), proptest::bool::weighted(0.3)),
            1..7,
        ),
        strict: bool,
    ) {
        let flexibility = if strict { SchemaFlexibility::Write } else { SchemaFlexibility::Read };
        let shelf = Arc::new(Shelf::default());
        // Small blocks, so that what is looked for lies in many.
        let params = Params { leaf_target: 4, branch_target: 3, seed: [1, 2] };
        let config = DbConfig::new(flexibility).with_params(params);
        let indexes =
            Indexes::open(config.params, config.keep_history, Roots::default(), shelf.clone());
        let mut db = Db::empty(config).with_indexes(indexes);
        db = db.db_with(&edn::read(SCHEMA).unwrap(), &TxOptions::at(0)).unwrap();
        let mut model = Model::new(107, FIRST_TX);
        let mut replayed = db.clone();
        let mut states = Vec::new();
        for (ops, flush) in &txs {
            if *flush {
                db = shelf.flush(&db);
            }
            let forms = Value::vector(ops.iter().map(Op::to_form));
            let expected = model.transact(ops);
            let report = match shelf.with(&db, &forms) {
                Ok(report) => report,
                Err(error) => {
                    prop_assert_eq!(Err(error.code().unwrap()), expected.map(drop), "{} {}", forms, error);
                    continue;
                }
            };
            let Ok(tempids) = expected else {
                return Err(TestCaseError::fail(format!("{forms} should fail: {expected:?}")));
            };
            for (tempid, e) in tempids {
                prop_assert_eq!(report.tempids.get(&Value::from(tempid)), Some(&e), "{}", forms);
            }
            replayed = replayed.apply(&report.resolved());
            db = report.db_after;
            shelf.fetch_all();
            prop_assert_eq!(events(&db), model.current(), "{}", forms);
            prop_assert_eq!(db.max_entity(), model.max_entity());
            states.push((db.max_tx(), model.current()));
        }
        shelf.fetch_all();
        prop_assert_eq!(events(&db.history().unwrap()), model.history());
        for (tx, state) in states {
            let then = db.as_of(TimePoint::Tx(tx)).unwrap();
            prop_assert_eq!(&events(&then), &state);
            let since = db.since(TimePoint::Tx(tx)).unwrap();
            let younger = model.current().into_iter().filter(|event| event.3 > tx).collect();
            prop_assert_eq!(events(&since), younger);
        }
        prop_assert!(replayed.same_datoms(&db).unwrap());
        prop_assert_eq!(replayed.counters(), db.counters());
        check_order(&db)?;
        check_export(&db)?;
    }
}

/// Forward and backward reads agree, and every index holds the same facts.
fn check_order(db: &Db) -> Result<(), TestCaseError> {
    for view in [db.clone(), db.history().unwrap()] {
        let none = Components::none();
        for index in Index::ALL {
            let forward: Vec<_> =
                view.datoms(index, &none).unwrap().map(|datom| datom.unwrap()).collect();
            let mut backward: Vec<_> =
                view.rseek_datoms(index, &none).unwrap().map(|datom| datom.unwrap()).collect();
            backward.reverse();
            prop_assert_eq!(&forward, &backward);
            let seek: Vec<_> =
                view.seek_datoms(index, &none).unwrap().map(|datom| datom.unwrap()).collect();
            prop_assert_eq!(&forward, &seek);
            let mut facts = forward;
            facts.sort();
            let mut all: Vec<_> = view.all_datoms().map(|datom| datom.unwrap()).collect();
            all.retain(|d| index != Index::Avet || view.schema().attribute(d.a).in_avet());
            all.sort();
            prop_assert_eq!(facts, all);
        }
    }
    Ok(())
}

/// A database made from the exported datoms of another has the same, now and in the past.
fn check_export(db: &Db) -> Result<(), TestCaseError> {
    let past = db.history().unwrap();
    let records = past
        .all_datoms()
        .map(|datom| RawDatom::from_value(&db.datom_value(&datom.unwrap())).unwrap());
    let empty = Db::empty(db.config().clone());
    let transactions = transactions_of(&empty, records).unwrap();
    let copy = empty.apply_all(&transactions);
    prop_assert!(copy.same_datoms(db).unwrap());
    prop_assert!(copy.history().unwrap().same_datoms(&past).unwrap());
    prop_assert_eq!(copy.schema().to_value(), db.schema().to_value());
    Ok(())
}
