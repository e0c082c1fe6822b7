//! Purging: what is purged is gone from now, from the past and from the trees, as if it had never been.
#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use std::sync::Arc;

use datahike_core::commit::{Entry, Position, replay, verify_indexes};
use datahike_core::datom::{Datom, FIRST_TX};
use datahike_core::db::{Db, DbConfig, TimePoint};
use datahike_core::index::{Index, Indexes, MemoryBlocks, Params, Range, Roots};
use datahike_core::tx::{ResolvedTx, TxOptions, TxReport};
use datahike_value::{Value, edn};
use proptest::prelude::*;

const SCHEMA: &str = "[
  {:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one :db/unique :db.unique/identity}
  {:db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one :db/index true}
  {:db/ident :tag :db/valueType :db.type/long :db/cardinality :db.cardinality/many}
  {:db/ident :friend :db/valueType :db.type/ref :db/cardinality :db.cardinality/many}
  {:db/ident :part :db/valueType :db.type/ref :db/cardinality :db.cardinality/many :db/isComponent true}
  {:db/ident :name+age :db/valueType :db.type/tuple :db/tupleAttrs [:name :age] :db/cardinality :db.cardinality/one}]";

const DAY: i64 = 86_400_000;

/// Everything that was ever transacted, beside the database.
struct Run {
    db: Db,
    log: Vec<ResolvedTx>,
    blocks: Arc<MemoryBlocks>,
}

impl Run {
    fn new(config: DbConfig) -> Self {
        let params = Params { leaf_target: 4, branch_target: 3, seed: [1, 2] };
        let config = config.with_params(params);
        let blocks = Arc::new(MemoryBlocks::default());
        let empty = Db::empty(config.clone());
        let keep = config.keep_history;
        let mut indexes = Indexes::open(params, keep, Roots::default(), blocks.clone());
        let system: Vec<Datom> =
            empty.indexes().current(&Range::all(Index::Eavt)).map(Result::unwrap).collect();
        indexes = indexes.apply(&system, empty.schema());
        let mut run = Self { db: empty.with_indexes(indexes), log: Vec::new(), blocks };
        run.transact(SCHEMA);
        run
    }

    fn with(&self, forms: &str) -> Result<TxReport, datahike_core::tx::TxError> {
        let now = (self.log.len() as i64 + 1) * DAY;
        self.db.with(&edn::read(forms).unwrap(), &TxOptions::at(now))
    }

    fn transact(&mut self, forms: &str) -> TxReport {
        let report = self.with(forms).unwrap();
        self.db = report.db_after.clone();
        self.log.push(report.resolved());
        report
    }

    fn flush(&mut self) {
        let flushed = self.db.indexes().flush().unwrap();
        self.blocks.insert(&flushed.blocks).unwrap();
        self.db = self.db.with_indexes(flushed.indexes);
        assert_eq!(self.db.indexes().tail_len(), 0);
    }

    fn past(&self) -> Vec<Datom> {
        self.db.history().unwrap().all_datoms().map(Result::unwrap).collect()
    }

    fn mentions(&self, value: &Value) -> usize {
        let inside = |d: &Datom| d.v.as_slice().is_some_and(|items| items.contains(value));
        self.past().iter().filter(|d| d.v == *value || inside(d)).count()
    }

    /// The trees of a database that never heard what was purged.
    fn roots_without(&self) -> Roots {
        let purged: Vec<&Datom> = self.log.iter().flat_map(|tx| tx.purged.iter()).collect();
        let system = Db::empty(self.db.config().clone());
        let mut indexes = Indexes::open(
            *self.db.indexes().params(),
            true,
            Roots::default(),
            Arc::new(MemoryBlocks::default()),
        );
        let first: Vec<Datom> =
            system.indexes().current(&Range::all(Index::Eavt)).map(Result::unwrap).collect();
        indexes = indexes.apply(&first, self.db.schema());
        for tx in &self.log {
            // Of what a transaction states and takes back the indexes only hear the end.
            let passing = |(at, d): &(usize, &Datom)| {
                let mut later = tx.datoms[*at..].iter().filter(|later| !later.added);
                d.added && later.any(|later| (later.e, later.a, &later.v) == (d.e, d.a, &d.v))
            };
            let datoms = tx.datoms.iter().enumerate().filter(|one| !passing(one));
            let kept: Vec<Datom> =
                datoms.map(|(_, d)| d).filter(|d| !purged.contains(d)).cloned().collect();
            indexes = indexes.apply(&kept, self.db.schema());
        }
        indexes.flush().unwrap().roots
    }

    /// Holds the database to its laws, before a flush and after it.
    fn check(&mut self) {
        let now: Vec<Datom> = self.db.all_datoms().map(Result::unwrap).collect();
        let scanned: Vec<Datom> = self
            .db
            .indexes()
            .scan(&Range::all(Index::Eavt))
            .flat_map(|slice| slice.unwrap().iter().map(|row| row.to_datom()).collect::<Vec<_>>())
            .collect();
        let listed: Vec<Datom> =
            self.db.indexes().current(&Range::all(Index::Eavt)).map(Result::unwrap).collect();
        assert_eq!(scanned, listed);
        let mut reversed: Vec<Datom> =
            self.db.indexes().current_rev(&Range::all(Index::Eavt)).map(Result::unwrap).collect();
        reversed.reverse();
        assert_eq!(reversed, listed);
        verify_indexes(self.db.indexes(), self.db.schema()).unwrap();
        let past = self.past();
        let before = self.db.clone();
        self.flush();
        assert_eq!(before.indexes().diff(self.db.indexes()).unwrap(), []);
        assert_eq!(self.db.all_datoms().map(Result::unwrap).collect::<Vec<_>>(), now);
        assert_eq!(self.past(), past);
        verify_indexes(self.db.indexes(), self.db.schema()).unwrap();
        assert_eq!(*self.db.indexes().roots(), self.roots_without());
    }
}

fn both_modes(test: impl Fn(&mut Run, bool)) {
    for refs in [false, true] {
        for flushed in [false, true] {
            let mut run = Run::new(DbConfig::default().with_attribute_refs(refs));
            run.transact("[{:name \"Ada\" :age 2500 :tag [1001 1002 1003]} {:name \"Bo\" :age 3500 :friend [:name \"Ada\"]}]");
            run.transact("[{:db/id [:name \"Ada\"] :age 3000}]");
            if flushed {
                run.flush();
            }
            test(&mut run, flushed);
            run.check();
        }
    }
}

#[test]
fn a_fact_goes_with_its_past() {
    both_modes(|run, _| {
        let report = run.transact("[[:db/purge [:name \"Ada\"] :age 2500]]");
        assert_eq!(report.tx_data.len(), 1, "a purge is no retraction");
        assert_eq!(run.mentions(&Value::from(2500)), 0);
        assert_eq!(run.mentions(&Value::from(3000)), 2);
        run.transact("[[:db/purge [:name \"Ada\"] :age 3000]]");
        assert_eq!(run.mentions(&Value::from(3000)), 0);
        let nothing = run.transact("[[:db/purge [:name \"Ada\"] :age 99]]");
        assert!(nothing.purged.is_empty());
    });
}

#[test]
fn a_purged_fact_may_be_stated_again() {
    both_modes(|run, _| {
        let forms = "[[:db/purge [:name \"Bo\"] :age 3500] [:db/add [:name \"Bo\"] :age 3500]]";
        let report = run.transact(forms);
        let stated: Vec<_> = run.past().into_iter().filter(|d| d.v == Value::from(3500)).collect();
        assert_eq!(stated.iter().map(|d| (d.tx, d.added)).collect::<Vec<_>>(), [(report.tx, true)]);
        // What the same transaction said before is unsaid.
        let report = run
            .transact("[[:db/add [:name \"Bo\"] :tag 7700] [:db/purge [:name \"Bo\"] :tag 7700]]");
        assert_eq!((report.tx_data.len(), run.mentions(&Value::from(7700))), (1, 0));
    });
}

#[test]
fn an_attribute_goes_with_its_components() {
    both_modes(|run, _| {
        run.transact("[{:db/id [:name \"Bo\"] :part [{:tag 7000} {:tag 7100 :part {:tag 7200}}]}]");
        run.transact("[[:db.purge/attribute [:name \"Bo\"] :part]]");
        assert_eq!([7000, 7100, 7200].map(|tag| run.mentions(&Value::from(tag))), [0, 0, 0]);
        run.transact("[[:db.purge/attribute [:name \"Ada\"] :tag]]");
        assert_eq!(run.mentions(&Value::from(1002)), 0);
    });
}

#[test]
fn an_entity_goes_with_what_refers_to_it_even_when_it_was_retracted() {
    both_modes(|run, flushed| {
        let ada = run.db.entid(&edn::read("[:name \"Ada\"]").unwrap()).unwrap().unwrap();
        run.transact("[[:db/retractEntity [:name \"Ada\"]]]");
        if flushed {
            run.flush();
        }
        run.transact("[[:db.purge/entity [:name \"Ada\"]]]");
        let id = Value::from(ada as i64);
        assert!(run.past().iter().all(|d| d.e != ada));
        let friend = run.db.attr_of(&Value::keyword("friend")).unwrap();
        assert!(run.past().iter().all(|d| d.a != friend || d.v != id));
    });
}

#[test]
fn tuples_do_not_keep_what_was_purged_of_their_parts() {
    both_modes(|run, _| {
        run.transact("[[:db/purge [:name \"Ada\"] :age 3000]]");
        assert_eq!(run.mentions(&Value::from(3000)), 0);
        let tuple = edn::read("[\"Ada\" nil]").unwrap();
        assert!(run.db.all_datoms().any(|d| d.unwrap().v == tuple));
    });
}

#[test]
fn the_past_goes_up_to_an_instant() {
    both_modes(|run, _| {
        run.transact("[{:db/id [:name \"Ada\"] :age 3100}]");
        // Stated on day 2, 3 and 4.
        let purge = |run: &mut Run, day: i64| {
            let instant = Value::Inst(day * DAY);
            run.transact(&format!("[[:db.history.purge/before {instant}]]"));
            [2500, 3000, 3100].map(|age| run.mentions(&Value::from(age)) > 0)
        };
        assert_eq!(purge(run, 2), [true, true, true]);
        assert_eq!(purge(run, 3), [false, true, true]);
        assert_eq!(purge(run, 9), [false, false, true]);
        assert_eq!(
            run.db.all_datoms().filter(|d| d.as_ref().unwrap().v == Value::from(3100)).count(),
            1
        );
    });
}

#[test]
fn a_purge_needs_history_and_something_to_purge() {
    let run = Run::new(DbConfig::default().with_history(false));
    for forms in ["[[:db/purge 1 :age 1]]", "[[:db.purge/entity 1]]"] {
        assert_eq!(run.with(forms).unwrap_err().code(), Some("transact/purge"));
    }
    let run = Run::new(DbConfig::default());
    for forms in [
        "[[:db.purge/entity [:name \"Nobody\"]]]",
        "[[:db.purge/entity]]",
        "[[:db/purge 1 :age]]",
        "[[:db.history.purge/before 12]]",
        "[[:db.purge/attribute 1 :name+age]]",
    ] {
        assert_eq!(run.with(forms).unwrap_err().code(), Some("transact/purge"), "{forms}");
    }
}

#[test]
fn a_schema_forgets_purged_definitions_wherever_the_purge_is_applied() {
    let mut run = Run::new(DbConfig::default());
    run.transact("[{:db/ident :colour/red :db/doc \"warm\"}]");
    let before = run.db.clone();
    run.transact("[[:db.purge/entity :colour/red]]");
    assert_eq!(run.db.entid(&Value::keyword("colour/red")).unwrap(), None);
    let entry = Entry { transactions: vec![run.log.last().unwrap().clone()], ..Entry::default() };
    let (bytes, at) = entry.encode(&Position::START);
    let (replayed, end) = replay(&before, Position::START, [&*bytes], |_| {}).unwrap();
    assert_eq!(end, at);
    assert!(replayed.same_datoms(&run.db).unwrap());
    assert_eq!(replayed.schema().to_record(), run.db.schema().to_record());
}

#[derive(Clone, Debug)]
enum Step {
    Forms(String),
    Flush,
}

fn step() -> impl Strategy<Value = Step> {
    let fact = || (101_u64..106, prop::sample::select(vec![":age", ":tag", ":part"]), 101_i64..106);
    let operation = prop_oneof![
        6 => fact().prop_map(|(e, a, v)| format!("[:db/add {e} {a} {v}]")),
        3 => fact().prop_map(|(e, a, v)| format!("[:db/retract {e} {a} {v}]")),
        2 => fact().prop_map(|(e, a, v)| format!("[:db/purge {e} {a} {v}]")),
        1 => fact().prop_map(|(e, a, _)| format!("[:db.purge/attribute {e} {a}]")),
        1 => (101_u64..106).prop_map(|e| format!("[:db.purge/entity {e}]")),
        1 => (1_i64..12).prop_map(|day| format!("[:db.history.purge/before {}]", Value::Inst(day * DAY))),
    ];
    prop_oneof![
        4 => prop::collection::vec(operation, 1..4).prop_map(|ops| Step::Forms(format!("[{}]", ops.join(" ")))),
        1 => Just(Step::Flush),
    ]
}

proptest! {
    #[test]
    fn trees_are_those_of_a_database_that_never_knew(steps in prop::collection::vec(step(), 1..16)) {
        let mut run = Run::new(DbConfig::default());
        for step in steps {
            match step {
                Step::Flush => run.flush(),
                Step::Forms(forms) => {
                    let before = run.db.clone();
                    let report = run.transact(&forms);
                    let replayed = before.apply(&report.resolved());
                    prop_assert!(replayed.same_datoms(&run.db).unwrap());
                }
            }
            for tx in FIRST_TX..=run.db.max_tx() {
                let then = run.db.as_of(TimePoint::Tx(tx)).unwrap();
                prop_assert!(then.all_datoms().all(|d| d.unwrap().added));
            }
        }
        let as_of_now = run.db.as_of(TimePoint::Tx(run.db.max_tx())).unwrap();
        let now: Vec<Datom> = run.db.all_datoms().map(Result::unwrap).collect();
        prop_assert_eq!(as_of_now.all_datoms().map(Result::unwrap).collect::<Vec<_>>(), now);
        run.check();
    }
}
