//! The same questions in SQL, and the past against the present.

use anyhow::ensure;
use datahike::core::db::TimePoint;
use datahike::core::tx::TxOptions;
use datahike::query::{Context, Input, Query, Rules, q};
use datahike::{Db, Value};
use rusqlite::params;

use super::datascript::{CLOSURE, QUERIES, RULES, graph_db};
use super::people::{self, Person};
use super::{Options, TURN, WARM_UP, mean, turn};
use crate::baseline::facts;
use crate::row::{Better, Row, Samples};

/// Attributes by number in SQL.
const NAME: i64 = 1;
const LAST_NAME: i64 = 2;
const SEX: i64 = 4;
const AGE: i64 = 5;
const SALARY: i64 = 6;
const ALIAS: i64 = 7;

/// People whose salary changes after the time that `as-of` asks for.
const CHANGED: usize = 2_000;

/// Rows' ids, the query, and the same in SQL, in the order of [`QUERIES`].
fn queries() -> Vec<(&'static str, &'static str, String)> {
    let named = |more: &str, columns: &str| {
        format!("SELECT n.e{columns} FROM facts n {more} WHERE n.a = {NAME} AND n.v = 'Ivan'")
    };
    let join =
        |alias: &str, a: i64| format!("JOIN facts {alias} ON {alias}.e = n.e AND {alias}.a = {a} ");
    let male = format!("{}AND s.v = 'male' ", join("s", SEX));
    let q2 = named(&join("g", AGE), ", g.v");
    let q3 = named(&(join("g", AGE) + &male), ", g.v");
    let q4 = named(&(join("l", LAST_NAME) + &join("g", AGE) + &male), ", l.v, g.v");
    let q5 = format!(
        "SELECT n.e, n.v, l.v, g.v, s.v, i.v FROM facts n {} AND g.v = 35 {}{}{} \
         WHERE n.a = {NAME} AND n.v = 'Anastasia'",
        join("g", AGE),
        join("l", LAST_NAME),
        join("s", SEX),
        join("i", ALIAS),
    );
    let salary = format!("SELECT e, v FROM facts WHERE a = {SALARY} AND v > 50000");
    let all = [
        ("sql-q1", named("", "")),
        ("sql-q2", q2.clone()),
        ("sql-q2-switch", q2),
        ("sql-q3", q3),
        ("sql-q4", q4),
        ("sql-q5-shortcircuit", q5),
        ("sql-qpred1", salary.clone()),
        ("sql-qpred2", salary),
    ];
    let with_text = |((id, sql), (_, text, _)): (_, &(_, &'static str, _))| (id, *text, sql);
    all.into_iter().zip(QUERIES).map(with_text).collect()
}

/// All pairs of a graph in SQL.
const CLOSURE_SQL: &str = "
    WITH RECURSIVE reach(x, y) AS (
        SELECT e, v FROM facts WHERE a = 8
        UNION SELECT r.x, f.v FROM reach r JOIN facts f ON f.e = r.y AND f.a = 8)
    SELECT x, y FROM reach";
/// From one node on, as SQL goes: the other way round asks for what every node on the way reaches.
const REACH: &str = "[[(reach ?x ?y) [?x :follows ?y]]
      [(reach ?x ?y) (reach ?x ?t) [?t :follows ?y]]]";
/// What one node reaches, in SQL.
const REACH_SQL: &str = "
    WITH RECURSIVE reach(y) AS (
        SELECT v FROM facts WHERE e = 1 AND a = 8
        UNION SELECT f.v FROM reach r JOIN facts f ON f.e = r.y AND f.a = 8)
    SELECT y FROM reach";

const AGAINST: &str = "SQLite, (e, a, v) in three orders";

pub(super) fn run(options: &Options<'_>) -> anyhow::Result<Vec<Row>> {
    let people = people::people();
    let mut rows = Vec::new();
    let form = Value::vector(people.iter().map(Person::form));
    let db = people::empty(true, true)?.with(&form, &TxOptions::at(2))?.db_after;
    let now = people::settled(&db)?;
    let sqlite = facts::load(people.iter().flat_map(person_facts))?;
    for (id, text, sql) in queries() {
        if !options.wants(id) {
            continue;
        }
        let query = Query::parse(text)?;
        let inputs = inputs_of(id, &now);
        let mut statement = sqlite.prepare(&sql)?;
        rows.push(compare(
            options,
            id,
            format!("{} of 20,000 people", &id["sql-".len()..]),
            2.0,
            || Ok(q(&query, &inputs, &Context::default())?.len()),
            || Ok(facts::rows(&mut statement, params![])?.len()),
        )?);
    }
    rows.extend(mean("sql-mean", "geometric mean of these against SQLite", &rows, 5.0));
    for (id, edges, name, (rules, text), sql, target) in [
        (
            "sql-rules-wide-7x3",
            people::wide(7, 3),
            "recursive rule, 21,324 pairs of a tree",
            (RULES, CLOSURE),
            CLOSURE_SQL,
            5.0,
        ),
        (
            "sql-reach-50k",
            people::tangle(25_000, 50_000),
            "all that a node reaches in a cyclic graph of 50,000 edges",
            (REACH, "[:find ?e2 :in $ % :where (reach 1 ?e2)]"),
            REACH_SQL,
            1.0,
        ),
    ] {
        if !options.wants(id) {
            continue;
        }
        let inputs = [Input::from(&graph_db(&edges)?), Input::from(Rules::parse(rules)?)];
        let query = Query::parse(text)?;
        let sqlite = facts::load(edges.iter().map(|&(from, to)| (from, 8, to.into())))?;
        let mut statement = sqlite.prepare(sql)?;
        rows.push(compare(
            options,
            id,
            name.to_owned(),
            target,
            || Ok(q(&query, &inputs, &Context::default())?.len()),
            || Ok(facts::rows(&mut statement, params![])?.len()),
        )?);
    }
    rows.extend(as_of(options, &people, &db)?);
    Ok(rows)
}

fn inputs_of(id: &str, db: &Db) -> Vec<Input> {
    let mut inputs = vec![Input::from(db)];
    if id.ends_with("qpred2") {
        inputs.push(Input::Value(50_000.into()));
    } else if id.ends_with("shortcircuit") {
        inputs.extend([Input::Value("Anastasia".into()), Input::Value(35.into())]);
    }
    inputs
}

fn person_facts(person: &Person) -> Vec<facts::Fact> {
    let text = |text: &str| text.to_owned().into();
    let mut found = vec![
        (person.id, NAME, text(person.name)),
        (person.id, LAST_NAME, text(person.last_name)),
        (person.id, 3, text(&person.full_name)),
        (person.id, SEX, text(person.sex)),
        (person.id, AGE, person.age.into()),
        (person.id, SALARY, person.salary.into()),
    ];
    found.extend(person.alias.iter().map(|alias| (person.id, ALIAS, text(alias))));
    found
}

/// A query on the database as it was before some salaries changed, against the same query now.
fn as_of(options: &Options<'_>, people: &[Person], before: &Db) -> anyhow::Result<Vec<Row>> {
    let changes = people.iter().take(CHANGED).map(|person| {
        let salary = (person.salary + 1) % 100_000;
        Value::map([
            (Value::keyword("db/id"), person.id.into()),
            (Value::keyword("salary"), salary.into()),
        ])
    });
    let then = TimePoint::Tx(before.max_tx());
    let now = before.with(&Value::vector(changes), &TxOptions::at(9))?.db_after;
    let now = people::settled(&now)?;
    let past = now.as_of(then)?;
    let mut rows = Vec::new();
    for (id, text) in [
        ("as-of-q1", "[:find ?e :where [?e :name \"Ivan\"]]"),
        (
            "as-of-q4",
            "[:find ?e ?l ?a :where [?e :name \"Ivan\"] [?e :last-name ?l] [?e :age ?a] [?e :sex \"male\"]]",
        ),
        ("as-of-qpred1", "[:find ?e ?s :where [?e :salary ?s] [(> ?s 50000)]]"),
    ] {
        if !options.wants(id) {
            continue;
        }
        let query = Query::parse(text)?;
        let run = |db: &Db| {
            let inputs = [Input::from(db)];
            turn(TURN, || Ok(q(&query, &inputs, &Context::default())?.len()))
        };
        ensure!(run(&past)?.1 > 0, "{id}: nothing found");
        run(&now)?;
        let samples =
            Samples::interleave(options.rounds, |_| Ok(run(&past)?.0), |_| Ok(run(&now)?.0))?;
        let name = format!("{} as of 2,000 changes ago", &id["as-of-".len()..]);
        rows.push(Row::compare(id, name, "ms", Better::Lower, &samples, "the same query now", 0.5));
    }
    Ok(rows)
}

/// Both sides in turns, after making sure that they find as much.
pub(super) fn compare(
    options: &Options<'_>,
    id: &'static str,
    name: String,
    target: f64,
    mut ours: impl FnMut() -> anyhow::Result<usize>,
    mut theirs: impl FnMut() -> anyhow::Result<usize>,
) -> anyhow::Result<Row> {
    let found = (turn(WARM_UP / 4, &mut ours)?.1, turn(WARM_UP / 4, &mut theirs)?.1);
    ensure!(found.0 == found.1, "{id}: ours found {}, SQLite {}", found.0, found.1);
    let samples = Samples::interleave(
        options.rounds,
        |_| Ok(turn(TURN, &mut ours)?.0),
        |_| Ok(turn(TURN, &mut theirs)?.0),
    )?;
    Ok(Row::compare(id, name, "ms", Better::Lower, &samples, AGAINST, target))
}
