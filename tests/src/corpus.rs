//! Running a corpus of conformance cases; `tests/data/conformance/FORMAT.md` gives the format.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use datahike_value::{Keyword, Value, edn};

use crate::engine::{Argument, Engine, Failure, Options, Paging, Point, Report, ViewOp};
use crate::judge::{brief, elements, same, same_bag};
use crate::outcome::{Outcomes, Verdict};

/// When the first transaction of a case happens: before any instant that cases name.
const BEGIN_MS: i64 = 1_767_225_600_000;
/// Entities from here on are not the case's own.
const FIRST_SCHEMA_ENTITY: i64 = 1_000_000;
/// What the two seeks may show of a case, by entity.
const SEEK_ENTITIES: i64 = 1000;

/// Runs every case of the `.edn` files in `folder`, in the order of their names.
///
/// # Errors
/// If the folder cannot be listed.
pub fn run_folder(folder: &Path, modes: Modes) -> std::io::Result<Outcomes> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()?
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "edn"))
        .collect();
    files.sort();
    let mut outcomes = Outcomes::default();
    for file in files {
        run_file(&file, modes, &mut outcomes);
    }
    Ok(outcomes)
}

/// In which configurations a case runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modes {
    /// As it is written.
    AsWritten,
    /// And in those others in which the original was measured too (`:also-in`).
    All,
}

fn run_file(file: &Path, modes: Modes, outcomes: &mut Outcomes) {
    let cases = fs::read_to_string(file)
        .map_err(|error| error.to_string())
        .and_then(|text| edn::read(&text).map_err(|error| error.to_string()))
        .and_then(|form| elements(&form).ok_or_else(|| "not a vector of cases".to_owned()));
    match cases {
        Ok(cases) => {
            for case in cases {
                run_case(&case, modes, outcomes);
            }
        }
        Err(error) => outcomes.add(file.display().to_string(), Verdict::Failed(error)),
    }
}

fn run_case(case: &Value, modes: Modes, outcomes: &mut Outcomes) {
    let id = get(case, "id").and_then(|id| id.as_str().map(str::to_owned));
    let Some(id) = id else {
        outcomes.add("a case without :id", Verdict::Failed(brief(case)));
        return;
    };
    if let Some(status) = get(case, "status")
        && *status != Value::keyword("normative")
    {
        outcomes.add(id, Verdict::Skipped(status.to_string()));
        return;
    }
    let mut variants = vec![(id.clone(), Variant::default())];
    if modes == Modes::All {
        let also = get(case, "also-in").and_then(elements).unwrap_or_default();
        if also.contains(&Value::keyword("keep-history")) {
            let variant = Variant { keep_history: true, ..Variant::default() };
            variants.push((format!("{id} with history"), variant));
        }
        if also.contains(&Value::keyword("attribute-refs")) {
            let variant = Variant { attribute_refs: true, ..Variant::default() };
            variants.push((format!("{id} with attribute refs"), variant));
        }
    }
    for (name, variant) in variants {
        let verdict = Verdict::of(|| Run::new(case, variant).and_then(|run| run.steps(case)));
        outcomes.add(name, verdict);
    }
}

/// What is turned on besides the configuration of the case.
#[derive(Clone, Copy, Default)]
struct Variant {
    keep_history: bool,
    attribute_refs: bool,
}

struct Run {
    now: i64,
    current: Engine,
    others: BTreeMap<Keyword, Engine>,
    labels: BTreeMap<Value, i64>,
}

type Checked<T> = Result<T, String>;

impl Run {
    fn new(case: &Value, variant: Variant) -> Checked<Self> {
        let config = get(case, "db").ok_or("the case has no :db")?;
        let mut now = BEGIN_MS;
        let current = build(config, variant, &mut now)?;
        let mut others = BTreeMap::new();
        if let Some(dbs) = get(config, "dbs").and_then(Value::as_map) {
            for (name, config) in dbs {
                let name = name.as_keyword().ok_or("a name in :dbs is no keyword")?;
                others.insert(name.clone(), build(config, variant, &mut now)?);
            }
        }
        Ok(Self { now, current, others, labels: BTreeMap::new() })
    }

    fn steps(mut self, case: &Value) -> Checked<()> {
        let steps = get(case, "steps").and_then(elements).ok_or("the case has no :steps")?;
        for (place, step) in steps.iter().enumerate() {
            self.step(step).map_err(|reason| format!("step {}: {reason}", place + 1))?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Value) -> Checked<()> {
        let expect = get(step, "expect").ok_or("no :expect")?;
        let op = get(step, "op").and_then(Value::as_keyword).ok_or("no :op")?;
        let field = |name: &str| get(step, name).ok_or_else(|| format!("{op} without :{name}"));
        let outcome = match op.text() {
            "tx" => {
                self.now += 1000;
                let done = self.current.transact(field("data")?, get(step, "tx-meta"), self.now);
                return match done {
                    Ok((next, report)) => {
                        if let Some(label) = get(step, "label") {
                            self.labels.insert(label.clone(), report.tx);
                        }
                        self.current = next;
                        check_report(expect, &report)
                    }
                    Err(failure) => check(expect, Err(failure)),
                };
            }
            "with" => {
                return match self.current.transact(field("data")?, None, self.now + 1000) {
                    Ok((_, report)) => check_report(expect, &report),
                    Err(failure) => check(expect, Err(failure)),
                };
            }
            "q" => self.query(step, field("query")?),
            "pull" => self.viewed(get(step, "view"))?.and_then(|db| {
                db.pull(
                    field("pattern").map_err(Failure::new)?,
                    field("eid").map_err(Failure::new)?,
                )
            }),
            "pull-many" => self.viewed(get(step, "view"))?.and_then(|db| {
                let eids = elements(field("eids").map_err(Failure::new)?).unwrap_or_default();
                db.pull_many(field("pattern").map_err(Failure::new)?, &eids)
            }),
            "entity" => {
                let path = elements(field("path")?).ok_or(":path is no vector")?;
                self.current.entity_path(field("eid")?, &path)
            }
            "touch" => self.current.touch(field("eid")?),
            "datoms" => {
                let components = components(step)?;
                self.current.datoms(field("index")?, &components).map(|found| rows(&found))
            }
            "seek-datoms" | "rseek-datoms" => {
                let components = components(step)?;
                let reverse = op.text() == "rseek-datoms";
                self.current.seek(field("index")?, &components, reverse).map(|found| {
                    let own = found.into_iter().filter(|datom| {
                        let system =
                            datom[1].as_keyword().is_some_and(|a| a.namespace() == Some("db"));
                        !system && datom[0].as_long().is_some_and(|e| e < SEEK_ENTITIES)
                    });
                    rows(&own.collect::<Vec<_>>())
                })
            }
            "index-range" => self
                .current
                .index_range(field("attr")?, get(step, "start"), get(step, "end"))
                .map(|found| rows(&found)),
            other => return Err(format!("unknown operation :{other}")),
        };
        check(expect, outcome)
    }

    fn query(&self, step: &Value, query: &Value) -> Result<Value, Failure> {
        let arguments = get(step, "args").and_then(elements).unwrap_or_default();
        let arguments = arguments
            .iter()
            .map(|argument| self.argument(argument))
            .collect::<Result<Vec<_>, Failure>>()?;
        let count = |name| get(step, name).and_then(Value::as_long);
        let paging = Paging {
            limit: count("limit"),
            offset: count("offset"),
            order_by: get(step, "order-by").cloned(),
        };
        Engine::query(query, &arguments, &paging)
    }

    fn argument(&self, form: &Value) -> Result<Argument, Failure> {
        let unknown = || Failure::new(format!("unknown argument {form}"));
        let parts = elements(form).ok_or_else(unknown)?;
        let kind = parts.first().and_then(Value::as_keyword).ok_or_else(unknown)?;
        Ok(match (kind.text(), &parts[1..]) {
            ("db", []) => Argument::Db(self.current.clone()),
            ("db", [Value::Keyword(name)]) => {
                Argument::Db(self.others.get(name).ok_or_else(unknown)?.clone())
            }
            ("db", [view]) => Argument::Db(self.viewed(Some(view)).map_err(Failure::new)??),
            ("val", [value]) => Argument::Value(value.clone()),
            ("rules", [rules]) => Argument::Rules(rules.clone()),
            ("fn", [name]) => Argument::Function(name.to_string()),
            _ => return Err(unknown()),
        })
    }

    /// The current database through a view; the outer error is a mistake in the case.
    fn viewed(&self, view: Option<&Value>) -> Checked<Result<Engine, Failure>> {
        let ops = view.map(|view| elements(view).ok_or("a view is a vector")).transpose()?;
        let mut db = self.current.clone();
        for op in ops.unwrap_or_default() {
            let op = match &op {
                Value::Keyword(name) if name.text() == "history" => ViewOp::History,
                Value::Vector(parts) => match &parts[..] {
                    [Value::Keyword(name), point] if name.text() == "as-of" => {
                        ViewOp::AsOf(self.point(point)?)
                    }
                    [Value::Keyword(name), point] if name.text() == "since" => {
                        ViewOp::Since(self.point(point)?)
                    }
                    _ => return Err(format!("unknown view {op}")),
                },
                _ => return Err(format!("unknown view {op}")),
            };
            db = match db.view(&op) {
                Ok(db) => db,
                Err(failure) => return Ok(Err(failure)),
            };
        }
        Ok(Ok(db))
    }

    fn point(&self, point: &Value) -> Checked<Point> {
        match point {
            Value::Inst(ms) => Ok(Point::Instant(*ms)),
            Value::Long(tx) => Ok(Point::Tx(*tx)),
            label => self
                .labels
                .get(label)
                .map(|tx| Point::Tx(*tx))
                .ok_or_else(|| format!("no transaction is labelled {label}")),
        }
    }
}

fn build(config: &Value, variant: Variant, now: &mut i64) -> Checked<Engine> {
    let is = |name: &str| get(config, name).is_some_and(Value::is_truthy);
    let write = get(config, "schema-flexibility") == Some(&Value::keyword("write"));
    let mut db = Engine::empty(Options {
        schema_on_write: write,
        keep_history: variant.keep_history || is("keep-history?"),
        attribute_refs: variant.attribute_refs || is("attribute-refs?"),
    });
    let mut transactions = Vec::new();
    if let Some(schema) = get(config, "schema").and_then(Value::as_map) {
        let definitions =
            schema.iter().zip(FIRST_SCHEMA_ENTITY + 1..).map(|((ident, definition), e)| {
                let own = [
                    (Value::keyword("db/id"), Value::from(e)),
                    (Value::keyword("db/ident"), ident.clone()),
                ];
                let rest = definition.as_map().into_iter().flatten();
                Value::map(own.into_iter().chain(rest.map(|(k, v)| (k.clone(), v.clone()))))
            });
        let definitions = Value::vector(definitions);
        if !schema.is_empty() {
            transactions.push(definitions);
        }
    }
    transactions.extend(get(config, "init").and_then(elements).unwrap_or_default());
    for data in transactions {
        *now += 1000;
        let (next, _) = db
            .transact(&data, None, *now)
            .map_err(|failure| format!("building the database: {failure} at {}", brief(&data)))?;
        db = next;
    }
    Ok(db)
}

fn check_report(expect: &Value, report: &Report) -> Checked<()> {
    if get(expect, "ok") != Some(&Value::Bool(true)) {
        return check(expect, Ok(Value::keyword("ok")));
    }
    if let Some(expected) = get(expect, "tx-data") {
        let expected = elements(expected).ok_or(":tx-data is no vector")?;
        let got: Vec<Value> = report
            .datoms
            .iter()
            .filter(|datom| datom[0] != datom[3] || datom[1] != Value::keyword("db/txInstant"))
            .map(|[e, a, v, _, added]| Value::vector([e, a, v, added].map(Value::clone)))
            .collect();
        if !same_bag(&expected, &got) {
            return Err(differs("tx-data", &Value::vector(expected), &Value::vector(got)));
        }
    }
    if let Some(tempids) = get(expect, "tempids").and_then(Value::as_map) {
        for (tempid, e) in tempids {
            let got = report.tempids.get(tempid);
            if got.map(|got| Value::from(*got)) != Some(e.clone()) {
                return Err(format!("tempid {tempid}: expected {e}, got {got:?}"));
            }
        }
    }
    Ok(())
}

fn check(expect: &Value, outcome: Result<Value, Failure>) -> Checked<()> {
    let (kind, expected) = match expect.as_map() {
        Some(map)
            if map.len() == 1
                || get(expect, "count-at").is_some()
                || get(expect, "ok").is_some() =>
        {
            ["=", "set", "bag", "count", "count-at", "ok", "error"]
                .iter()
                .rev()
                .find_map(|name| Some((*name, get(expect, name)?)))
                .ok_or_else(|| format!("unknown expectation {expect}"))?
        }
        _ => return Err(format!("unknown expectation {expect}")),
    };
    let got = match (kind, outcome) {
        ("error", Ok(got)) => {
            return Err(format!("expected the error {expected}, got {}", brief(&got)));
        }
        ("error", Err(failure)) => {
            return match get(expected, "code").and_then(Value::as_keyword) {
                Some(code) if failure.code.as_deref() != Some(code.text()) => {
                    Err(format!("expected the error {code}, got {failure}"))
                }
                _ => Ok(()),
            };
        }
        (_, Err(failure)) => {
            return Err(format!("expected {}, got the error {failure}", brief(expect)));
        }
        (_, Ok(got)) => got,
    };
    let holds = match kind {
        "=" => same(expected, &got),
        "set" | "bag" => {
            let expected = elements(expected).ok_or("the expectation is no collection")?;
            elements(&got).is_some_and(|got| same_bag(&expected, &got))
        }
        "count" => elements(&got).map(|got| got.len() as i64) == expected.as_long(),
        // `count-at` was found first: the count is its companion.
        "count-at" => {
            let path = elements(expected).ok_or(":count-at is no path")?;
            let reached = path.iter().try_fold(&got, |value, key| value.as_map()?.get(key));
            let count = reached.and_then(elements).map(|items| items.len() as i64);
            count == get(expect, "count").and_then(Value::as_long)
        }
        _ => false,
    };
    if holds { Ok(()) } else { Err(differs(kind, expected, &got)) }
}

fn differs(what: &str, expected: &Value, got: &Value) -> String {
    format!("{what}: expected {}, got {}", brief(expected), brief(got))
}

fn components(step: &Value) -> Checked<Vec<Value>> {
    let components = get(step, "components").map_or_else(|| Some(Vec::new()), elements);
    components.ok_or_else(|| ":components is no vector".to_owned())
}

/// `[e a v]` of each.
fn rows(datoms: &[[Value; 5]]) -> Value {
    Value::vector(datoms.iter().map(|[e, a, v, ..]| Value::vector([e, a, v].map(Value::clone))))
}

fn get<'a>(map: &'a Value, name: &str) -> Option<&'a Value> {
    map.get(&Keyword::parse(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(expect: &str, got: &str) -> bool {
        check(&edn::read(expect).unwrap(), Ok(edn::read(got).unwrap())).is_ok()
    }

    #[test]
    fn each_expectation_can_hold_and_fail() {
        for (expect, good, bad) in [
            ("{:= [1 2]}", "(1 2)", "[2 1]"),
            ("{:set [[1] [2]]}", "#{[2] [1]}", "[[1] [1] [2]]"),
            ("{:bag [1 1 2]}", "[1 2 1]", "[1 2]"),
            ("{:count 2}", "#{1 2}", "#{1}"),
            ("{:count-at [:a] :count 2}", "{:a [1 2]}", "{:a [1]}"),
        ] {
            assert!(verdict(expect, good), "{expect} {good}");
            assert!(!verdict(expect, bad), "{expect} {bad}");
        }
        assert!(!verdict("{:unheard-of 1}", "1"));
        assert!(!verdict("{:error {:kind :cas}}", "1"));
    }

    #[test]
    fn an_error_counts_by_its_code() {
        let failure = |code: &str| Failure { code: Some(code.to_owned()), message: String::new() };
        let expect = edn::read("{:error {:kind :cas :code :transact/cas}}").unwrap();
        assert!(check(&expect, Err(failure("transact/cas"))).is_ok());
        assert!(check(&expect, Err(failure("transact/schema"))).is_err());
        let any = edn::read("{:error {:kind :history}}").unwrap();
        assert!(check(&any, Err(failure("whatever"))).is_ok());
        assert!(check(&edn::read("{:= 1}").unwrap(), Err(failure("x"))).is_err());
    }

    #[test]
    fn an_unknown_operation_and_an_unreadable_file_fail() {
        let case =
            "{:id \"x-1\" :status :normative :db {} :steps [{:op :dance :expect {:ok true}}]}";
        let mut outcomes = Outcomes::default();
        run_case(&edn::read(case).unwrap(), Modes::AsWritten, &mut outcomes);
        assert_eq!(outcomes.counts(), (0, 1, 0));

        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("broken.edn"), "[{:id").unwrap();
        let outcomes = run_folder(folder.path(), Modes::AsWritten).unwrap();
        assert_eq!(outcomes.counts(), (0, 1, 0));
    }

    #[test]
    fn only_cases_that_are_not_normative_are_skipped() {
        let case = "{:id \"x-1\" :status :upstream-quirk :steps 42}";
        let mut outcomes = Outcomes::default();
        run_case(&edn::read(case).unwrap(), Modes::AsWritten, &mut outcomes);
        assert_eq!(outcomes.counts(), (0, 0, 1));
    }
}
