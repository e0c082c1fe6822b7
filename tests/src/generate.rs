//! Databases and queries from a seed, within what the oracle covers. Values are few, so that joins
//! meet, values collide and retractions find something.

use datahike_value::{Keyword, Value, edn, kw};
use rand::RngExt;
use rand::seq::IndexedRandom;

use crate::oracle::{AttributeKind, Change, View};

/// Entities are 1 to this.
const ENTITIES: i64 = 8;
const NAMES: [&str; 4] = ["ada", "bo", "cy", "dee"];
const TAGS: [&str; 3] = ["x", "z/one", "z/two"];

/// The rules that generated queries use.
pub const RULES: &str = "[[(reach ?a ?b) [?a :n/friend ?b]]
      [(reach ?a ?b) [?a :n/friend ?c] (reach ?c ?b)]
      [(near ?a ?b) [?a :n/friend ?b]]
      [(near ?a ?b) [?b :n/boss ?a]]
      [(near ?a ?b) (near ?a ?c) (near ?c ?b)]
      [(valued ?a ?w) [?a :n/age ?w]]
      [(valued ?a ?w) [?a :n/part ?p] (valued ?p ?w)]]";

/// The attributes.
pub fn kinds() -> Vec<(Keyword, AttributeKind)> {
    let plain = AttributeKind::default();
    let reference = AttributeKind { reference: true, ..plain };
    vec![
        (kw!("n/age"), plain),
        (kw!("n/score"), plain),
        (kw!("n/tag"), AttributeKind { many: true, ..plain }),
        (kw!("n/name"), AttributeKind { identity: true, ..plain }),
        (kw!("n/code"), AttributeKind { unique: true, ..plain }),
        (kw!("n/friend"), AttributeKind { many: true, ..reference }),
        (kw!("n/boss"), reference),
        (kw!("n/part"), AttributeKind { many: true, component: true, ..reference }),
    ]
}

/// The transaction that declares the attributes, with entities far from those of the data.
pub fn schema() -> Value {
    let definitions = kinds().into_iter().zip(1_000_001_i64..).map(|((ident, kind), e)| {
        let mut map = vec![
            (Value::keyword("db/id"), Value::from(e)),
            (Value::keyword("db/ident"), Value::from(ident)),
        ];
        let mut declare = |name: &str, value: &str| {
            map.push((Value::keyword(name), Value::keyword(value)));
        };
        declare(
            "db/cardinality",
            if kind.many { "db.cardinality/many" } else { "db.cardinality/one" },
        );
        if kind.reference {
            declare("db/valueType", "db.type/ref");
        }
        if kind.identity {
            declare("db/unique", "db.unique/identity");
        }
        if kind.unique {
            declare("db/unique", "db.unique/value");
        }
        if kind.component {
            map.push((Value::keyword("db/isComponent"), true.into()));
        }
        Value::map(map)
    });
    Value::vector(definitions)
}

/// Transactions, in order. A refused one is part of the game.
pub fn transactions(rng: &mut impl RngExt) -> Vec<Vec<Change>> {
    (0..rng.random_range(8..40)).map(|_| transaction(rng)).collect()
}

/// What happens to one entity does not depend on the other changes of a transaction, except for
/// unique values: so their order within it is not what is tested here.
fn transaction(rng: &mut impl RngExt) -> Vec<Change> {
    if rng.random_bool(0.06) {
        return vec![Change::RetractEntity(entity(rng))];
    }
    if rng.random_bool(0.15) {
        let rest = vec![(kw!("n/age"), small(rng)), (kw!("n/tag"), tag(rng))];
        return vec![Change::Upsert(kw!("n/name"), name(rng), rest)];
    }
    let mut entities: Vec<i64> = (1..=ENTITIES).collect();
    (0..rng.random_range(1..6))
        .map(|_| {
            let e = entities.swap_remove(rng.random_range(0..entities.len()));
            let (attribute, value) = fact(rng);
            match rng.random_range(0..12) {
                0 => Change::Retract(e, attribute, value),
                1 => Change::RetractAttribute(e, attribute),
                2 => {
                    let old = rng.random_bool(0.5).then(|| small(rng));
                    Change::CompareAndSet(e, kw!("n/age"), old, small(rng))
                }
                _ => Change::Add(e, attribute, value),
            }
        })
        .collect()
}

fn fact(rng: &mut impl RngExt) -> (Keyword, Value) {
    match rng.random_range(0..10) {
        0 | 1 => (kw!("n/age"), small(rng)),
        2 => (kw!("n/score"), small(rng)),
        3 | 4 => (kw!("n/tag"), tag(rng)),
        5 => (kw!("n/name"), name(rng)),
        6 => (kw!("n/code"), small(rng)),
        7 | 8 => (kw!("n/friend"), entity(rng).into()),
        _ if rng.random_bool(0.5) => (kw!("n/boss"), entity(rng).into()),
        _ => (kw!("n/part"), entity(rng).into()),
    }
}

fn entity(rng: &mut impl RngExt) -> i64 {
    rng.random_range(1..=ENTITIES)
}

fn small(rng: &mut impl RngExt) -> Value {
    rng.random_range(-1_i64..4).into()
}

fn name(rng: &mut impl RngExt) -> Value {
    Value::str(pick(rng, &NAMES))
}

fn tag(rng: &mut impl RngExt) -> Value {
    Value::keyword(pick(rng, &TAGS))
}

fn pick<'a>(rng: &mut impl RngExt, from: &[&'a str]) -> &'a str {
    from.choose(rng).copied().unwrap_or_default()
}

/// A query with what it is asked of.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// `:find …`
    pub find: String,
    /// Elements of `:in` after `$ %`.
    pub inputs: Vec<(String, Value)>,
    /// The clauses.
    pub clauses: Vec<String>,
    /// The view of the database.
    pub view: View,
}

impl Question {
    /// As text.
    pub fn text(&self) -> String {
        let inputs: Vec<&str> = self.inputs.iter().map(|(binding, _)| binding.as_str()).collect();
        format!(
            "[:find {} :in $ % {} :where {}]",
            self.find,
            inputs.join(" "),
            self.clauses.join(" ")
        )
    }
}

/// The variables that the clauses so far bind, by what they hold.
#[derive(Default)]
struct Bound {
    entities: Vec<String>,
    longs: Vec<String>,
    others: Vec<String>,
}

impl Bound {
    fn add(list: &mut Vec<String>, name: &str) {
        if name.starts_with('?') && !list.iter().any(|known| known == name) {
            list.push(name.to_owned());
        }
    }

    fn all(&self) -> Vec<String> {
        self.entities.iter().chain(&self.longs).chain(&self.others).cloned().collect()
    }
}

/// A question about a database with transactions up to `last_tx`.
pub fn question(rng: &mut impl RngExt, first_tx: i64, last_tx: i64) -> Question {
    let view = match rng.random_range(0..10) {
        0 | 1 => View::History,
        2 => View::AsOf(rng.random_range(first_tx..=last_tx)),
        3 => View::Since(rng.random_range(first_tx..=last_tx)),
        _ => View::Current,
    };
    let mut bound = Bound::default();
    let mut clauses: Vec<String> = Vec::new();
    for _ in 0..rng.random_range(1..4) {
        clauses.push(pattern(rng, view, &mut bound));
    }
    if bound.all().is_empty() {
        Bound::add(&mut bound.entities, "?e");
        clauses.push("[?e :n/tag _]".into());
    }
    let mut inputs = Vec::new();
    if rng.random_bool(0.25) {
        inputs.push(input(rng, &mut bound));
    }
    for fresh in 0..rng.random_range(0..3) {
        clauses.extend(further(rng, view, &mut bound, fresh));
    }
    if rng.random_bool(0.5) {
        // The engine must not depend on the order in which clauses are written.
        let place = rng.random_range(0..clauses.len());
        let moved = clauses.swap_remove(place);
        clauses.insert(0, moved);
    }
    let find = find(rng, &bound);
    Question { find, inputs, clauses, view }
}

fn entity_term(rng: &mut impl RngExt) -> String {
    match rng.random_range(0..12) {
        0 => entity(rng).to_string(),
        1..=2 => "?g".into(),
        3..=5 => "?f".into(),
        _ => "?e".into(),
    }
}

fn long_term(rng: &mut impl RngExt) -> String {
    match rng.random_range(0..8) {
        0 => small(rng).to_string(),
        1..=3 => "?b".into(),
        _ => "?a".into(),
    }
}

fn pattern(rng: &mut impl RngExt, view: View, bound: &mut Bound) -> String {
    let e = entity_term(rng);
    Bound::add(&mut bound.entities, &e);
    let kind = rng.random_range(0..20);
    let (attribute, value) = match kind {
        0..=4 | 18 => (":n/age", long_term(rng)),
        5 | 6 => (":n/score", long_term(rng)),
        7 | 8 => (":n/tag", if rng.random_bool(0.3) { tag(rng).to_string() } else { "?t".into() }),
        9 | 10 => {
            (":n/name", if rng.random_bool(0.3) { name(rng).to_string() } else { "?n".into() })
        }
        11..=13 => (":n/friend", entity_term(rng)),
        14 | 15 => (":n/boss", entity_term(rng)),
        16 => (":n/tag", "_".into()),
        17 => ("?attr", "?v".into()),
        _ => (":n/code", long_term(rng)),
    };
    match kind {
        0..=6 | 18.. => Bound::add(&mut bound.longs, &value),
        11..=15 => Bound::add(&mut bound.entities, &value),
        _ => Bound::add(&mut bound.others, &value),
    }
    Bound::add(&mut bound.others, attribute);
    if view == View::History && rng.random_bool(0.5) {
        Bound::add(&mut bound.others, "?tx");
        Bound::add(&mut bound.others, "?op");
        return format!("[{e} {attribute} {value} ?tx ?op]");
    }
    if kind == 18 {
        Bound::add(&mut bound.others, "?tx");
        return format!("[{e} {attribute} {value} ?tx]");
    }
    format!("[{e} {attribute} {value}]")
}

fn input(rng: &mut impl RngExt, bound: &mut Bound) -> (String, Value) {
    let several = Value::vector((0..rng.random_range(0..4)).map(|_| small(rng)));
    let (binding, value) = match rng.random_range(0..4) {
        0 => ("?a".to_owned(), small(rng)),
        1 => ("[?a ...]".to_owned(), several),
        2 => ("[?a ?b]".to_owned(), Value::vector([small(rng), small(rng)])),
        _ => {
            let row = |rng: &mut _| Value::vector([small(rng), small(rng)]);
            ("[[?a ?b]]".to_owned(), Value::vector((0..3).map(|_| row(rng))))
        }
    };
    Bound::add(&mut bound.longs, "?a");
    if binding.contains("?b") {
        Bound::add(&mut bound.longs, "?b");
    }
    (binding, value)
}

/// A clause over what is bound.
fn further(rng: &mut impl RngExt, view: View, bound: &mut Bound, fresh: usize) -> Option<String> {
    let e = bound.entities.choose(rng)?.clone();
    let long = bound.longs.choose(rng).cloned();
    let new = format!("?k{fresh}");
    let constant = small(rng);
    if let Some(a) = long
        && rng.random_bool(0.5)
    {
        let b = bound.longs.choose(rng).cloned().unwrap_or_else(|| constant.to_string());
        let clause = match rng.random_range(0..8) {
            0 => format!("[({} {a} {constant})]", pick(rng, &["<", "<=", ">", ">=", "=", "not="])),
            1 => format!("[({} {a} {b})]", pick(rng, &["<", "<=", ">", ">=", "=", "not="])),
            2 => format!("[({} {a})]", pick(rng, &["even?", "odd?", "pos?", "neg?", "zero?"])),
            3 => format!("[(<= -1 {a} {b})]"),
            4 => format!("[({} {a}) {new}]", pick(rng, &["inc", "dec", "identity"])),
            5 => format!("[({} {a} {b}) {new}]", pick(rng, &["+", "-", "*"])),
            6 => format!("(or [({} {a})] [(= {a} {constant})])", pick(rng, &["even?", "neg?"])),
            _ => format!("(not [(< {a} {constant})])"),
        };
        if clause.contains(&new) {
            Bound::add(&mut bound.longs, &new);
        }
        return Some(clause);
    }
    let kind = rng.random_range(0..12);
    Some(match kind {
        0 => format!("(not [{e} :n/tag {}])", tag(rng)),
        1 => format!("(not [{e} :n/friend _])"),
        2 => format!("(not-join [{e}] [{e} :n/friend ?z] [?z :n/age ?y] [(< ?y {constant})])"),
        3 => format!("(or [{e} :n/age {constant}] [{e} :n/score {constant}])"),
        4 => {
            Bound::add(&mut bound.longs, &new);
            format!(
                "(or-join [{e} {new}] [{e} :n/age {new}] (and [{e} :n/friend ?z] [?z :n/score {new}]))"
            )
        }
        5 | 6 => {
            let to = if rng.random_bool(0.5) { e.clone() } else { new.clone() };
            Bound::add(&mut bound.entities, &to);
            format!("({} {e} {to})", pick(rng, &["reach", "near"]))
        }
        7 => {
            Bound::add(&mut bound.longs, &new);
            format!("(valued {e} {new})")
        }
        8 => {
            Bound::add(&mut bound.longs, &new);
            format!("[(ground [1 2 {constant}]) [{new} ...]]")
        }
        9 => {
            Bound::add(&mut bound.others, &new);
            format!("[(vector {e} {constant}) {new}]")
        }
        // What these see of the past is the engine's business in a history view.
        _ if view == View::History => format!("[(not= {e} {constant})]"),
        10 => {
            Bound::add(&mut bound.longs, &new);
            format!("[(get-else $ {e} :n/score {constant}) {new}]")
        }
        _ => format!("[(missing? $ {e} :n/boss)]"),
    })
}

fn find(rng: &mut impl RngExt, bound: &Bound) -> String {
    let all = bound.all();
    let count = rng.random_range(1..=all.len().min(3));
    let mut vars: Vec<String> = all.sample(rng, count).cloned().collect();
    let with = all.choose(rng).filter(|var| !vars.contains(var)).cloned();
    match rng.random_range(0..10) {
        0 => format!("[{} ...]", vars[0]),
        1 => format!("[{}]", vars.join(" ")),
        2 => format!("{} .", vars[0]),
        3..=5 => {
            let aggregate = match bound.longs.choose(rng) {
                Some(long) if rng.random_bool(0.7) => {
                    let functions =
                        ["sum", "avg", "min", "max", "median", "variance", "stddev", "distinct"];
                    format!("({} {long})", pick(rng, &functions))
                }
                _ => format!("({} {})", pick(rng, &["count", "count-distinct"]), vars[0]),
            };
            vars.truncate(rng.random_range(0..2));
            let with =
                with.filter(|var| !vars.contains(var) && !aggregate.contains(&format!("{var})")));
            let with = with.map_or_else(String::new, |var| format!(" :with {var}"));
            format!("{} {aggregate}{with}", vars.join(" "))
        }
        6 => {
            let with = with.map_or_else(String::new, |var| format!(" :with {var}"));
            format!("{}{with}", vars.join(" "))
        }
        _ => vars.join(" "),
    }
}

/// The rules as a value.
pub fn rules() -> Value {
    edn::read(RULES).unwrap_or_default()
}
