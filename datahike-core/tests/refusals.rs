//! What is refused, with which code, and that the message says what stands against it.

#![expect(clippy::unwrap_used, reason = "a test may fail by panicking")]

use datahike_core::db::{Db, DbConfig, SchemaFlexibility};
use datahike_core::tx::{TxError, TxOptions};
use datahike_value::{Value, edn};

const NOW: i64 = 1_800_000_000_000;

fn db() -> Db {
    let setup = [
        "[{:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one :db/unique :db.unique/identity}
          {:db/ident :mail :db/valueType :db.type/string :db/cardinality :db.cardinality/one :db/unique :db.unique/identity}
          {:db/ident :code :db/valueType :db.type/long :db/cardinality :db.cardinality/one :db/unique :db.unique/value}
          {:db/ident :age :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
          {:db/ident :tags :db/valueType :db.type/keyword :db/cardinality :db.cardinality/many}
          {:db/ident :boss :db/valueType :db.type/ref :db/cardinality :db.cardinality/one}
          {:db/ident :short :db/valueType :db.type/string :db/cardinality :db.cardinality/one :db/maxLength 3}
          {:db/ident :even :db/valueType :db.type/long :db/cardinality :db.cardinality/one :db.attr/preds even?}
          {:db/ident :pair :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one :db/tupleTypes [:db.type/long :db.type/string]}
          {:db/ident :a :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
          {:db/ident :b :db/valueType :db.type/long :db/cardinality :db.cardinality/one}
          {:db/ident :a+b :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one :db/tupleAttrs [:a :b] :db/unique :db.unique/identity}
          {:db/ident :spec :db.entity/attrs [:name :age]}]",
        "[{:db/id 100 :name \"Ada\" :mail \"a@x\" :code 1 :age 36 :tags [:x :y] :a 1 :b 2}
          {:db/id 101 :name \"Bo\" :mail \"b@x\" :age 36}]",
    ];
    let empty = Db::empty(DbConfig::new(SchemaFlexibility::Write));
    setup.iter().fold(empty, |db, forms| {
        db.db_with(&edn::read(forms).unwrap(), &TxOptions::at(NOW)).unwrap()
    })
}

fn refusal(db: &Db, forms: &str, options: &TxOptions) -> TxError {
    match db.with(&edn::read(forms).unwrap(), options) {
        Err(error) => error,
        Ok(report) => panic!("{forms} is accepted: {:?}", report.tx_data),
    }
}

#[test]
fn each_refusal_has_its_code_and_says_what_is_wrong() {
    let table = [
        // form, code, what the message must name
        ("42", "transact/syntax", "collection"),
        ("[42]", "transact/syntax", "map or a vector"),
        ("[[1 :age 2]]", "transact/syntax", ":db/add"),
        ("[[:bogus 1 2 3]]", "transact/syntax", ":bogus"),
        ("[[:db/add 100 :age]]", "transact/syntax", "value"),
        ("[[:db/add 100 5 1]]", "transact/syntax", "keyword"),
        ("[[:db/add 100 :age nil]]", "transact/syntax", ":age"),
        ("[[:db/add 100 :_boss 101]]", "transact/syntax", ":_boss"),
        ("[{:db/id 100 :_age 101}]", "transact/syntax", "reverse"),
        ("[[:db/retract -1 :age 1]]", "transact/syntax", "tempid"),
        ("[[:db/cas -1 :age 1 2]]", "transact/syntax", "tempid"),
        ("[[:db/add 100 :boss -1]]", "transact/syntax", "-1"),
        ("[[:db/add 100 :a+b [1 2]]]", "transact/syntax", ":a+b"),
        ("[[:db/add 100 :pair [1 2]]]", "transact/syntax", "db.type/string"),
        ("[[:db/add 100 :pair [1]]]", "transact/syntax", "expected 2"),
        ("[[:db/add 100 :agee 1]]", "transact/schema", "did you mean :age?"),
        ("[{:name \"Cy\" :nope 1}]", "transact/schema", ":nope"),
        ("[[:db/add 100 :age \"x\"]]", "transact/schema", "db.type/long"),
        ("[[:db/add 100 :age 1.0]]", "transact/schema", "1.0"),
        ("[[:db/add 100 :boss true]]", "transact/schema", "db.type/ref"),
        (
            "[{:db/ident :z :db/cardinality :db.cardinality/one}]",
            "transact/schema",
            ":db/valueType",
        ),
        (
            "[{:db/ident :z :db/valueType :db.type/lnog :db/cardinality :db.cardinality/one}]",
            "transact/schema",
            "value type",
        ),
        ("[{:db/ident :db/z}]", "transact/schema", "reserved"),
        ("[[:db/add :age :db/valueType :db.type/string]]", "transact/schema", ":age"),
        ("[[:db/add :tags :db/cardinality :db.cardinality/one]]", "transact/schema", "several"),
        ("[[:db/add :name :db/cardinality :db.cardinality/many]]", "transact/schema", ":name"),
        ("[[:db/add :age :db/unique :db.unique/value]]", "transact/schema", "same value"),
        ("[[:db/add :age :db/index true]]", "transact/schema", "index"),
        ("[[:db/retract :name :db/unique :db.unique/identity]]", "transact/schema", "index"),
        ("[[:db/retract :age :db/valueType :db.type/long]]", "transact/schema", ":age"),
        ("[[:db/retractEntity :age]]", "transact/schema", ":age"),
        ("[[:db/add :age :db/isComponent true]]", "transact/schema", "db.type/ref"),
        ("[[:db/add :age :db/ident :name]]", "transact/unique", ":name"),
        ("[[:db/add 101 :code 1]]", "transact/unique", "entity 100"),
        ("[[:db/add 101 :name \"Ada\"]]", "transact/unique", "\"Ada\""),
        ("[[:db/add 102 :a 1] [:db/add 102 :b 2]]", "transact/unique", ":a+b"),
        ("[{:name \"Ada\" :mail \"b@x\"}]", "transact/upsert", ":name \"Ada\" means entity 100"),
        ("[[:db/add :a :db/cardinality :db.cardinality/many]]", "transact/schema", "composite"),
        (
            "[{:db/ident :t :db/valueType :db.type/tuple :db/cardinality :db.cardinality/one
               :db/tupleType :db.type/long :db/tupleTypes [:db.type/long :db.type/long]}]",
            "transact/schema",
            "exclude each other",
        ),
        (
            "[{:db/id :db/current-tx :db.valid/from #inst \"2021\" :db.valid/to #inst \"2020\"}]",
            "transact/invalid-valid-times",
            "2021",
        ),
        ("[{:db/id 101 :name \"Ada\"}]", "transact/upsert", ":db/id is 101"),
        ("[{:db/id -1 :name \"Ada\"} {:db/id -1 :name \"Bo\"}]", "transact/upsert", "-1"),
        ("[[:db/cas 100 :age 1 2]]", "transact/cas", "found 36"),
        ("[[:db/cas 100 :age nil 2]]", "transact/cas", "found 36"),
        ("[[:db/cas 100 :tags :z :w]]", "transact/cas", ":x"),
        ("[{:name \"Di\" :db/ensure :spec}]", "transact/ensure", ":age"),
        ("[[:db/add 100 :short \"long\"]]", "transact/max-length", "3"),
        ("[[:db/add 100 :even 2]]", "transact/attr-pred-unresolved", "even?"),
        ("[[:db/add [:name \"Zed\"] :age 1]]", "entity-id/missing", "Zed"),
        ("[{:db/id [:name \"Zed\"] :age 1}]", "entity-id/missing", "Zed"),
        ("[[:db/add 100 :boss [:name \"Zed\"]]]", "entity-id/missing", "Zed"),
        ("[[:db/add 100 :boss :nobody]]", "entity-id/missing", ":nobody"),
        ("[[:db/add 1.5 :age 1]]", "entity-id/syntax", "1.5"),
        ("[[:db/add 4611686018427387904 :age 1]]", "entity-id/syntax", "2^62"),
        ("[[:db/add 600000000 :age 1]]", "entity-id/syntax", "2^29"),
        ("[[:db/add [:name] :age 1]]", "lookup-ref/syntax", "[:name]"),
        ("[[:db/add [:age 1] :age 1]]", "lookup-ref/unique", ":age"),
        (
            "[[:db/add :db/current-tx :db/txInstant #inst \"2500-01-01\"]]",
            "transact/instant",
            "2500",
        ),
        ("[[:db/add :db/current-tx :db/txInstant 1]]", "transact/schema", "instant"),
    ];
    let db = db();
    for (forms, code, names) in table {
        let error = refusal(&db, forms, &TxOptions::at(NOW));
        assert_eq!(error.code(), Some(code), "{forms}: {error}");
        assert!(error.to_string().contains(names), "{forms}: {error}");
    }
}

#[test]
fn metadata_must_be_declared_and_a_map() {
    let db = db();
    let with = |meta: &str| TxOptions::at(NOW).with_meta(edn::read(meta).unwrap());
    assert_eq!(refusal(&db, "[]", &with("{:nope 1}")).code(), Some("transact/schema"));
    assert_eq!(refusal(&db, "[]", &with("[1]")).code(), Some("transact/syntax"));
}

#[test]
fn instants_rise_even_when_the_clock_stands_still() {
    let mut db = db();
    let mut last = i64::MIN;
    for now in [NOW, NOW, NOW - 5_000, NOW + 1] {
        let report = db.with(&Value::Nil, &TxOptions::at(now)).unwrap();
        assert!(report.tx_instant > last);
        last = report.tx_instant;
        db = report.db_after;
    }
}

#[test]
fn entity_ids_go_on_beyond_the_transactions() {
    let read = |forms: &str| edn::read(forms).unwrap();
    let db = Db::empty(DbConfig::new(SchemaFlexibility::Read));
    let db = db.db_with(&read("[[:db/add 536870911 :n 1]]"), &TxOptions::at(NOW)).unwrap();
    let report = db.with(&read("[{:n 2} {:n 3}]"), &TxOptions::at(NOW)).unwrap();
    let entities: Vec<u64> = report.tx_data[1..].iter().map(|datom| datom.e).collect();
    assert_eq!(entities, [1 << 40, (1 << 40) + 1]);
    assert_eq!(report.tx, 536_870_914);
    let report = report.db_after.with(&read("[{:n 4}]"), &TxOptions::at(NOW)).unwrap();
    assert_eq!(report.tx_data[1].e, (1 << 40) + 2);
}

#[test]
fn the_valid_time_of_an_earlier_transaction_cannot_become_empty() {
    let db = db();
    let from = "[{:db/id :db/current-tx :db.valid/from #inst \"2020\"}]";
    let report = db.with(&edn::read(from).unwrap(), &TxOptions::at(NOW)).unwrap();
    let (db, tx) = (report.db_after, report.tx);
    let ends = |year: u16| format!("[[:db/add {tx} :db.valid/to #inst \"{year}\"]]");
    let error = refusal(&db, &ends(2019), &TxOptions::at(NOW));
    assert_eq!(error.code(), Some("transact/invalid-valid-times-cross-tx"));
    db.with(&edn::read(&ends(2021)).unwrap(), &TxOptions::at(NOW)).unwrap();
}

#[test]
fn system_definitions_stay_as_they_are_with_attribute_references() {
    let db = Db::empty(DbConfig::default().with_attribute_refs(true));
    for (forms, code) in [
        ("[[:db/add 1 :db/doc \"mine\"]]", "transact/schema"),
        ("[[:db/retract 1 :db/ident :db/ident]]", "retract/schema"),
        ("[[:db/retractEntity :db/doc]]", "retract/schema"),
        ("[[:db.purge/entity :db/doc]]", "retract/schema"),
    ] {
        let error = refusal(&db, forms, &TxOptions::at(NOW));
        assert_eq!(error.code(), Some(code), "{forms}: {error}");
    }
}

#[test]
fn what_datomic_wants_of_definitions_is_taken() {
    let forms = "[{:db/ident :x :db/valueType :db.type/long :db/cardinality :db.cardinality/one
                   :db.install/_attribute :db.part/db}
                  {:x 1}]";
    let empty = Db::empty(DbConfig::default());
    empty.with(&edn::read(forms).unwrap(), &TxOptions::at(NOW)).unwrap();
}
