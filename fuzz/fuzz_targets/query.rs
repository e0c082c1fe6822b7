//! Query text and rules: parsed, and run within a budget.
#![no_main]

use std::sync::LazyLock;

use datahike_core::budget::Budget;
use datahike_core::db::{Db, DbConfig, SchemaFlexibility};
use datahike_core::query::{Context, Input, Query, Rules, q};
use datahike_core::tx::TxOptions;
use datahike_value::edn;
use libfuzzer_sys::fuzz_target;

const DATA: &str = r#"[{:db/ident :friend :db/valueType :db.type/ref :db/cardinality :db.cardinality/many}
  {:db/ident :name :db/unique :db.unique/identity}
  {:db/id 1 :name "a" :age 1 :friend [2 3]} {:db/id 2 :name "b" :age 2 :friend [1]} {:db/id 3 :name "c"}]"#;

static DB: LazyLock<Db> = LazyLock::new(|| {
    let empty = Db::empty(DbConfig::new(SchemaFlexibility::Read));
    let data = edn::read(DATA).unwrap_or_default();
    empty.db_with(&data, &TxOptions::at(0)).unwrap_or(empty)
});

fuzz_target!(|text: &str| {
    let _ = Rules::parse(text);
    if let Ok(query) = Query::parse(text) {
        let budget = Budget { rows_max: 20_000, bytes_max: 64 << 20, recursion_max: 500, ..Budget::default() };
        let context = Context { budget, ..Context::default() };
        let _ = q(&query, &[Input::Db(DB.clone())], &context);
    }
});
