//! Pull patterns: parsed, and pulled from a database with a cycle.
#![no_main]

use std::sync::LazyLock;

use datahike_core::db::{Db, DbConfig, SchemaFlexibility};
use datahike_core::pull::{Pattern, pull};
use datahike_core::tx::TxOptions;
use datahike_value::edn;
use libfuzzer_sys::fuzz_target;

const DATA: &str = r#"[{:db/ident :friend :db/valueType :db.type/ref :db/cardinality :db.cardinality/many}
  {:db/ident :part :db/valueType :db.type/ref :db/cardinality :db.cardinality/many :db/isComponent true}
  {:db/id 1 :name "a" :friend [2 3] :part [4]} {:db/id 2 :name "b" :friend [1]} {:db/id 4 :part [5]} {:db/id 5 :name "e"}]"#;

static DB: LazyLock<Db> = LazyLock::new(|| {
    let empty = Db::empty(DbConfig::new(SchemaFlexibility::Read));
    let data = edn::read(DATA).unwrap_or_default();
    empty.db_with(&data, &TxOptions::at(0)).unwrap_or(empty)
});

fuzz_target!(|text: &str| {
    if let Ok(pattern) = Pattern::parse_text(text) {
        let _ = pull(&DB, &pattern, &1.into());
    }
});
