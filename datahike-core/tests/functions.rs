//! Functions and predicates of the host in transactions.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use datahike_core::db::{Db, DbConfig, SchemaFlexibility, entity_value};
use datahike_core::index::Range;
use datahike_core::tx::{CallError, TxError, TxFunctions, TxOptions, TxReport, ValueCaps};
use datahike_value::{Value, edn, kw};

const SCHEMA: &str = "[
  {:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one :db/unique :db.unique/identity}
  {:db/ident :balance :db/valueType :db.type/long :db/cardinality :db.cardinality/one :db.attr/preds account/whole?}
  {:db/ident :account :db.entity/attrs [:name :balance] :db.entity/preds account/solvent?}
  {:db/ident :account/deposit :db/fn bank/deposit}]";

fn balance(db: &Db, e: u64) -> Result<i64, CallError> {
    let a = db.schema().attr_id(&kw!("balance")).ok_or("no :balance")?;
    let found = db.scan(&Range::eavt(e, a, None)).next().transpose()?;
    Ok(found.and_then(|datom| datom.v.as_long()).unwrap_or_default())
}

fn functions() -> TxFunctions {
    TxFunctions::new()
        .function("bank/deposit", |db, arguments| {
            let [who, amount] = arguments else { return Err("it takes whom and how much".into()) };
            let amount = amount.as_long().ok_or("an amount is an integer")?;
            let e = db.entid_strict(who)?;
            let after = balance(db, e)? + amount;
            Ok(Value::vector([Value::vector([
                Value::keyword("db/add"),
                entity_value(e),
                Value::keyword("balance"),
                after.into(),
            ])]))
        })
        .function("bank/transfer", |_, arguments| {
            let [from, to, amount] = arguments else { return Err("it takes three".into()) };
            let minus = -amount.as_long().ok_or("an amount is an integer")?;
            let call = |who: &Value, amount: Value| {
                Value::vector([Value::keyword("account/deposit"), who.clone(), amount])
            };
            Ok(Value::vector([call(from, minus.into()), call(to, amount.clone())]))
        })
        .function("bank/forever", |_, _| {
            Ok(edn::read("[[:db.fn/call bank/forever]]").unwrap_or_default())
        })
        .value_predicate("account/whole?", |v| v.as_long().is_some_and(|v| v % 5 == 0))
        .entity_predicate("account/solvent?", |db, e| Ok(balance(db, e)? >= 0))
}

fn with(db: &Db, forms: &str) -> Result<TxReport, TxError> {
    db.with(&edn::read(forms).unwrap(), &TxOptions::at(1_000).with_functions(functions()))
}

fn start(refs: bool) -> Db {
    let db = Db::empty(DbConfig::default().with_attribute_refs(refs));
    let db = with(&db, SCHEMA).unwrap().db_after;
    with(&db, r#"[{:db/id 100 :name "Ada" :balance 100} {:db/id 101 :name "Bo"}]"#)
        .unwrap()
        .db_after
}

#[test]
fn a_function_sees_what_the_transaction_has_said() {
    for refs in [false, true] {
        let db = start(refs);
        let report = with(
            &db,
            r#"[[:db.fn/call bank/deposit [:name "Ada"] 5]
                [:db.fn/call bank/deposit 100 10]
                {:db/id -1 :name "Cy"}
                [:account/deposit [:name "Cy"] 20]
                [:bank/transfer [:name "Ada"] [:name "Bo"] 15]]"#,
        )
        .unwrap();
        let after = |e| balance(&report.db_after, e).unwrap();
        let cy = report.tempids[&Value::from(-1)];
        assert_eq!((after(100), after(101), after(cy)), (100, 15, 20));
        let replayed = db.apply(&report.resolved());
        assert!(replayed.same_datoms(&report.db_after).unwrap());
    }
}

#[test]
fn functions_that_fail_refuse_the_transaction() {
    let db = start(false);
    for (forms, code, names) in [
        ("[[:db.fn/call bank/nothing 1]]", "transact/function", "bank/nothing"),
        ("[[:db.fn/call bank/deposit 1]]", "transact/function", "whom and how much"),
        ("[[:db.fn/call bank/deposit [:name \"Zed\"] 1]]", "transact/function", "Zed"),
        ("[[:db.fn/call bank/forever]]", "transact/function", "64"),
        ("[[:db.fn/call]]", "transact/syntax", "symbol"),
        ("[[:db.fn/call 7]]", "transact/syntax", "symbol"),
        ("[[:name 7]]", "transact/syntax", "unknown operation :name"),
        ("[[:db.fn/call bank/deposit 100 3]]", "transact/attr-pred", "account/whole?"),
        ("[{:db/ident :account/bad :db/fn 7}]", "transact/schema", ":db/fn"),
        (
            "[{:name \"Di\" :balance -5 :db/ensure :account}]",
            "transact/ensure",
            "account/solvent? does not hold",
        ),
    ] {
        let error = with(&db, forms).unwrap_err();
        assert_eq!(error.code(), Some(code), "{forms}: {error}");
        assert!(error.to_string().contains(names), "{forms}: {error}");
    }
    with(&db, "[{:name \"Di\" :balance 5 :db/ensure :account}]").unwrap();
}

#[test]
fn values_have_bounds_that_no_reader_of_stored_values_passes() {
    let db = Db::empty(DbConfig::new(SchemaFlexibility::Read));
    let declared = "[{:db/ident :key :db/unique :db.unique/value}]";
    let db = db.db_with(&edn::read(declared).unwrap(), &TxOptions::at(0)).unwrap();
    let deep = (0..100).fold(Value::from(1), |v, _| Value::vector([v]));
    let digits = edn::read(&format!("{}N", "9".repeat(4_090))).unwrap();
    let caps = TxOptions::at(0).with_caps(ValueCaps::STANDARD);
    let plain = TxOptions::at(0);
    let fits = |attribute: &str, v: Value, options: &TxOptions| {
        let forms = [Value::keyword("db/add"), 1.into(), Value::keyword(attribute), v];
        match db.with(&Value::vector([Value::vector(forms)]), options) {
            Ok(_) => true,
            Err(error) => {
                assert_eq!(error.code(), Some("transact/max-length"), "{error}");
                assert_eq!(
                    error.attribute(),
                    Some(&Value::keyword(attribute).as_keyword().unwrap().clone())
                );
                false
            }
        }
    };
    assert!(!fits("any", deep.clone(), &plain));
    assert!(fits("any", deep.as_slice().unwrap()[0].clone(), &plain));
    assert!(fits("any", digits, &plain));
    let huge = datahike_value::BigInt::from(7).pow(20_000);
    assert!(!fits("any", Value::BigInt(huge.into()), &plain));
    let text = |n: usize| Value::str("é".repeat(n));
    assert!(fits("key", text(32 << 10), &plain) && !fits("key", text((32 << 10) + 1), &plain));
    assert!(fits("any", text(1 << 17), &plain));
    assert!(fits("any", text(4_096), &caps) && !fits("any", text(4_097), &caps));
    let inside = |n| Value::vector([text(n), 1.into()]);
    assert!(fits("any", inside(256), &caps) && !fits("any", inside(257), &caps));
}
