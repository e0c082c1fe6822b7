//! The data of DataScript's benchmark: people, trees and chains, from a seed.

use std::sync::Arc;

use datahike::core::db::{DbConfig, SchemaFlexibility};
use datahike::core::index::{Indexes, MemoryBlocks};
use datahike::core::tx::TxOptions;
use datahike::{Db, Keyword, Value, edn};
use serde::Serialize;

/// People of the queries and writes.
pub(super) const PEOPLE: usize = 20_000;

/// What the database knows of its attributes; the rest is plain values.
const SCHEMA: &str = "
    [{:db/id 1000001 :db/ident :alias   :db/cardinality :db.cardinality/many}
     {:db/id 1000002 :db/ident :follows :db/cardinality :db.cardinality/many :db/valueType :db.type/ref}]";

/// The same, with every attribute in the order of values too, as in SQL.
const INDEXED: &str = "
    [{:db/id 1000003 :db/ident :name      :db/index true :db/cardinality :db.cardinality/one}
     {:db/id 1000004 :db/ident :last-name :db/index true :db/cardinality :db.cardinality/one}
     {:db/id 1000005 :db/ident :full-name :db/index true :db/cardinality :db.cardinality/one}
     {:db/id 1000006 :db/ident :sex       :db/index true :db/cardinality :db.cardinality/one}
     {:db/id 1000007 :db/ident :age       :db/index true :db/cardinality :db.cardinality/one}
     {:db/id 1000008 :db/ident :salary    :db/index true :db/cardinality :db.cardinality/one}]";

/// One of them.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Person {
    pub(super) id: i64,
    pub(super) name: &'static str,
    pub(super) last_name: &'static str,
    pub(super) full_name: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) alias: Vec<&'static str>,
    pub(super) sex: &'static str,
    pub(super) age: i64,
    pub(super) salary: i64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) follows: Vec<i64>,
}

impl Person {
    pub(super) fn form(&self) -> Value {
        let mut map: Vec<(Value, Value)> = vec![(Value::keyword("db/id"), self.id.into())];
        let mut put = |name: &str, value: Value| map.push((Value::keyword(name), value));
        put("name", self.name.into());
        put("last-name", self.last_name.into());
        put("full-name", self.full_name.as_str().into());
        put("sex", self.sex.into());
        put("age", self.age.into());
        put("salary", self.salary.into());
        if !self.alias.is_empty() {
            put("alias", Value::vector(self.alias.iter().map(|&alias| Value::from(alias))));
        }
        if !self.follows.is_empty() {
            put("follows", Value::vector(self.follows.iter().map(|&id| Value::from(id))));
        }
        Value::map(map)
    }

    /// Five of its facts, each as a transaction of its own.
    pub(super) fn single_facts(&self) -> [Value; 5] {
        let add = |name: &str, value: Value| {
            let form = [Value::keyword("db/add"), self.id.into(), Value::keyword(name), value];
            Value::vector([Value::vector(form)])
        };
        [
            add("name", self.name.into()),
            add("last-name", self.last_name.into()),
            add("sex", self.sex.into()),
            add("age", self.age.into()),
            add("salary", self.salary.into()),
        ]
    }
}

/// A linear congruential generator: the same people in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.roll(from.len() as u64) as usize]
    }

    fn person(&mut self, id: i64) -> Person {
        let name =
            self.pick(&["Ivan", "Petr", "Sergei", "Oleg", "Yuri", "Dmitry", "Fedor", "Denis"]);
        let last_name =
            self.pick(&["Ivanov", "Petrov", "Sidorov", "Kovalev", "Kuznetsov", "Voronoi"]);
        let mut alias: Vec<&str> = (0..self.roll(10))
            .map(|_| {
                self.pick(&[
                    "A. C. Q. W.",
                    "A. J. Finn",
                    "A.A. Fair",
                    "Aapeli",
                    "Aaron Wolfe",
                    "Abigail Van Buren",
                    "Jeanne Phillips",
                    "Abram Tertz",
                    "Abu Nuwas",
                    "Acton Bell",
                    "Adunis",
                ])
            })
            .collect();
        alias.sort_unstable();
        alias.dedup();
        Person {
            id,
            name,
            last_name,
            full_name: format!("{name} {last_name}"),
            alias,
            sex: self.pick(&["male", "female"]),
            age: self.roll(100) as i64,
            salary: self.roll(100_000) as i64,
            follows: Vec::new(),
        }
    }
}

/// The people, in an order that is not that of their ids.
pub(super) fn people() -> Vec<Person> {
    let mut dice = Dice(7);
    let mut people: Vec<Person> = (1..=PEOPLE as i64).map(|id| dice.person(id)).collect();
    for n in (1..people.len()).rev() {
        people.swap(n, dice.roll(n as u64 + 1) as usize);
    }
    people
}

/// People who follow each other as a tree of `depth` levels of `width` below each.
pub(super) fn family(depth: usize, width: usize) -> Vec<Person> {
    let mut dice = Dice(11);
    let edges = wide(depth, width);
    let last = edges.iter().map(|&(_, to)| to).max().unwrap_or(1);
    let mut people: Vec<Person> = (1..=last).map(|id| dice.person(id)).collect();
    for (from, to) in edges {
        people[from as usize - 1].follows.push(to);
    }
    people
}

/// A tree: every node above the last level points to `width` others.
pub(super) fn wide(depth: usize, width: usize) -> Vec<(i64, i64)> {
    let (mut edges, mut level, mut next) = (Vec::new(), vec![1], 2);
    for _ in 0..depth {
        let mut below = Vec::new();
        for parent in level {
            for _ in 0..width {
                edges.push((parent, next));
                below.push(next);
                next += 1;
            }
        }
        level = below;
    }
    edges
}

/// `width` chains of `depth` edges.
pub(super) fn long(depth: usize, width: usize) -> Vec<(i64, i64)> {
    let start = |chain| (chain * (depth + 1)) as i64 + 1;
    (0..width)
        .flat_map(|chain| (0..depth as i64).map(move |n| (start(chain) + n, start(chain) + n + 1)))
        .collect()
}

/// A graph with cycles: `edges` edges between `nodes` nodes.
pub(super) fn tangle(nodes: u64, edges: usize) -> Vec<(i64, i64)> {
    let mut dice = Dice(13);
    (0..edges).map(|_| (dice.roll(nodes) as i64 + 1, dice.roll(nodes) as i64 + 1)).collect()
}

/// The edges as one transaction.
pub(super) fn edges_form(edges: &[(i64, i64)]) -> Value {
    let add = |&(from, to): &(i64, i64)| {
        Value::vector([
            Value::keyword("db/add"),
            from.into(),
            Keyword::new(None, "follows").into(),
            to.into(),
        ])
    };
    Value::vector(edges.iter().map(add))
}

/// A database that knows the attributes and nothing else.
pub(super) fn empty(indexed: bool, history: bool) -> anyhow::Result<Db> {
    let config = DbConfig::new(SchemaFlexibility::Read).with_history(history);
    let db = Db::empty(config).with(&edn::read(SCHEMA)?, &TxOptions::at(1))?.db_after;
    if !indexed {
        return Ok(db);
    }
    Ok(db.with(&edn::read(INDEXED)?, &TxOptions::at(1))?.db_after)
}

/// The database with everything in blocks, as after opening a store, and all blocks decoded.
pub(super) fn settled(db: &Db) -> anyhow::Result<Db> {
    let flushed = db.indexes().flush()?;
    let blocks = Arc::new(MemoryBlocks::default());
    blocks.insert(&flushed.blocks)?;
    let indexes = db.indexes();
    let opened = Indexes::open(*indexes.params(), db.config().keep_history, flushed.roots, blocks);
    Ok(db.with_indexes(opened))
}
