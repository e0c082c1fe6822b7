//! Transactions against a small database. What is accepted can be logged, read back and replayed to
//! the same database.
#![no_main]

use std::sync::LazyLock;

use datahike_core::commit::{Entry, Position, replay};
use datahike_core::db::{Db, DbConfig, SchemaFlexibility};
use datahike_core::tx::TxOptions;
use datahike_value::edn;
use libfuzzer_sys::fuzz_target;

const DATA: &str = r#"[
  {:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one :db/unique :db.unique/identity}
  {:db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
  {:db/ident :friend :db/valueType :db.type/ref :db/cardinality :db.cardinality/many}
  {:db/ident :part :db/valueType :db.type/ref :db/cardinality :db.cardinality/many :db/isComponent true}
  {:db/ident :name+age :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one :db/tupleAttrs [:name :age]}
  {:db/id 100 :name "a" :age 1 :friend [101] :part [102]} {:db/id 101 :name "b" :age 2}
  {:db/id 102 :age 3 :part [100]}]"#;

static DBS: LazyLock<[Db; 3]> = LazyLock::new(|| {
    let write = DbConfig::new(SchemaFlexibility::Write);
    let read = DbConfig::new(SchemaFlexibility::Read);
    [write.clone(), read, write.with_attribute_refs(true)].map(|config| {
        let empty = Db::empty(config);
        let data = edn::read(DATA).unwrap_or_default();
        empty.db_with(&data, &TxOptions::at(0)).unwrap_or(empty)
    })
});

fuzz_target!(|text: &str| {
    let Ok(data) = edn::read(text) else { return };
    for db in DBS.iter() {
        let report = match db.with(&data, &TxOptions::at(1)) {
            Ok(report) => report,
            Err(error) => {
                assert!(error.code().is_some(), "{error}");
                assert!(error.to_string().len() < 10_000);
                continue;
            }
        };
        let entry = Entry { transactions: vec![report.resolved()], ..Entry::default() };
        let (bytes, at) = entry.encode(&Position::START);
        match replay(db, Position::START, [&*bytes], |_| {}) {
            Ok((replayed, end)) => {
                assert_eq!(end, at);
                assert_eq!(replayed.same_datoms(&report.db_after), Ok(true));
                assert_eq!(replayed.counters(), report.db_after.counters());
                assert_eq!(replayed.schema().to_record(), report.db_after.schema().to_record());
            }
            Err(error) => panic!("{error}"),
        }
    }
});
