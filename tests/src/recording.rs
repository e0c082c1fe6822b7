//! Replaying recordings of the original Datahike; `tests/data/recordings/README.md` gives the rules.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use datahike_value::{Keyword, Value, edn};

use crate::engine::{Argument, Engine, Failure, Options, Paging, Point, ViewOp};
use crate::judge::{brief, elements, same, same_bag};
use crate::outcome::{Outcomes, Verdict};

/// Replays each recording in `folder`, or `folder` itself if it is one. Returns the checks and the
/// folders that hold none.
///
/// # Errors
/// If the folder cannot be listed.
pub fn run_folder(folder: &Path) -> io::Result<(Outcomes, Vec<PathBuf>)> {
    let mut outcomes = Outcomes::default();
    let mut passed_over = Vec::new();
    let mut folders = vec![folder.to_owned()];
    if !folder.join("txs.edn").exists() {
        folders =
            fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        folders.retain(|path| path.is_dir());
        folders.sort();
    }
    for recording in folders {
        if recording.join("txs.edn").exists() {
            let name = recording.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if let Err(reason) = replay(&name, &recording, &mut outcomes) {
                outcomes.add(name, Verdict::Failed(reason));
            }
        } else {
            passed_over.push(recording);
        }
    }
    Ok((outcomes, passed_over))
}

type Checked<T> = Result<T, String>;

fn replay(name: &str, folder: &Path, outcomes: &mut Outcomes) -> Checked<()> {
    let config = read(folder, "config.edn")?;
    let effective = get(&config, "effective").ok_or("config.edn has no :effective")?;
    let is = |key: &str| get(effective, key).is_some_and(Value::is_truthy);
    let options = Options {
        schema_on_write: get(effective, "schema-flexibility") == Some(&Value::keyword("write")),
        keep_history: is("keep-history?"),
        attribute_refs: is("attribute-refs?"),
    };
    let mut judge = |check: String, work: &mut dyn FnMut() -> Checked<()>| {
        outcomes.add(format!("{name} {check}"), Verdict::of(work));
    };

    let mut db = Engine::empty(options);
    let mut now = 0;
    for (place, recorded) in list(folder, "txs.edn")?.iter().enumerate() {
        let name = format!("transaction {}", place + 1);
        judge(name, &mut || transact(&mut db, recorded, &mut now, options));
    }
    for index in ["eavt", "aevt", "avet"] {
        for (view, history) in [("current", false), ("history", true)] {
            let file = format!("{index}.{view}.edn");
            if folder.join(&file).exists() {
                judge(file.clone(), &mut || compare_index(&db, folder, &file, index, history));
            }
        }
    }
    for (place, recorded) in list(folder, "queries.edn")?.iter().enumerate() {
        judge(format!("query {}", place + 1), &mut || query(&db, recorded));
    }
    for (place, recorded) in list(folder, "pulls.edn")?.iter().enumerate() {
        judge(format!("pull {}", place + 1), &mut || pull(&db, recorded));
    }
    Ok(())
}

fn transact(db: &mut Engine, recorded: &Value, now: &mut i64, options: Options) -> Checked<()> {
    let form = get(recorded, "tx").ok_or("no :tx")?;
    let (data, meta) = match get(form, "tx-data") {
        Some(data) => (data, get(form, "tx-meta")),
        None => (form, None),
    };
    if let Some(error) = get(recorded, "error") {
        let error = error.as_str().map_or_else(|| error.to_string(), str::to_owned);
        let outcome = db.transact(data, meta, *now + 1);
        if options.attribute_refs && compares_and_sets(data) {
            // The original takes no attribute here, whichever way it is written. The recording goes
            // on from its refusal, so ours must not change the database either.
            return match outcome {
                Ok(_) => Ok(()),
                Err(failure) if failure.code.as_deref() == Some("transact/cas") => Ok(()),
                Err(failure) => Err(format!("compare-and-set refused with {failure}")),
            };
        }
        let code = last_code(&error).ok_or_else(|| format!("no code in {error:?}"))?;
        return match outcome {
            Err(failure) if failure.code.as_deref() == Some(code) => Ok(()),
            Err(failure) => Err(format!("expected the error :{code}, got {failure}")),
            Ok((_, report)) => {
                Err(format!("expected the error :{code}, got {}", brief(&rows(&report.datoms))))
            }
        };
    }

    let expected = get(recorded, "tx-data").and_then(elements).ok_or("no :tx-data")?;
    *now = instant(&expected).ok_or("no :db/txInstant in :tx-data")?;
    let (next, report) = db.transact(data, meta, *now).map_err(|failure| failure.to_string())?;
    *db = next;
    let got: Vec<Value> = report.datoms.iter().map(row).collect();
    if !same_bag(&expected, &got) {
        return Err(differs(&Value::vector(expected), &Value::vector(got)));
    }
    let tempids = get(recorded, "tempids").and_then(Value::as_map);
    for (tempid, e) in tempids.into_iter().flatten() {
        let known = report.tempids.get(tempid).map(|e| Value::from(*e));
        let current = *tempid == Value::keyword("db/current-tx") && *e == Value::from(report.tx);
        if known.as_ref() != Some(e) && !current {
            return Err(format!("tempid {tempid}: expected {e}, got {known:?}"));
        }
    }
    Ok(())
}

fn compares_and_sets(data: &Value) -> bool {
    let operation =
        |form: &Value| elements(form)?.first()?.as_keyword().map(Keyword::name).map(str::to_owned);
    elements(data).unwrap_or_default().iter().any(|form| operation(form).as_deref() == Some("cas"))
}

/// The instant among datoms as `[e a v tx added]`: the one about the transaction itself.
fn instant(datoms: &[Value]) -> Option<i64> {
    datoms.iter().find_map(|datom| match &elements(datom)?[..] {
        [e, _, Value::Inst(ms), tx, Value::Bool(true)] if e == tx => Some(*ms),
        _ => None,
    })
}

/// The last `:error :code` in a message.
fn last_code(message: &str) -> Option<&str> {
    let (_, rest) = message.rsplit_once(":error :")?;
    let end = rest.find([',', '}', ' ', ')', ']']).unwrap_or(rest.len());
    Some(&rest[..end])
}

fn compare_index(
    db: &Engine,
    folder: &Path,
    file: &str,
    index: &str,
    history: bool,
) -> Checked<()> {
    let text = fs::read_to_string(folder.join(file)).map_err(|error| error.to_string())?;
    let expected = edn::read_all(&text).map_err(|error| format!("{file}: {error}"))?;
    let view = if history { db.view(&ViewOp::History) } else { Ok(db.clone()) };
    let found = view.and_then(|db| db.datoms(&Value::keyword(index), &[]));
    let got: Vec<Value> = found.map_err(|failure| failure.to_string())?.iter().map(row).collect();
    match expected.iter().zip(&got).position(|(expected, got)| !same(expected, got)) {
        Some(line) => Err(format!(
            "line {}: expected {}, got {}",
            line + 1,
            brief(&expected[line]),
            brief(&got[line])
        )),
        None if expected.len() == got.len() => Ok(()),
        None => Err(format!("expected {} datoms, got {}", expected.len(), got.len())),
    }
}

fn pull(db: &Engine, recorded: &Value) -> Checked<()> {
    let pattern = get(recorded, "selector").ok_or("no :selector")?;
    let entity = get(recorded, "eid").ok_or("no :eid")?;
    let expected = get(recorded, "result").unwrap_or(&Value::Nil);
    compare(expected, db.pull(pattern, entity), same)
        .map_err(|reason| format!("{reason} at {}", brief(recorded)))
}

fn query(db: &Engine, recorded: &Value) -> Checked<()> {
    let form = get(recorded, "query").ok_or("no :query")?;
    let mut given = get(recorded, "args").and_then(elements).ok_or("no :args")?;
    if !given.is_empty() {
        given.remove(0);
    }
    let view = get(recorded, "db").and_then(Value::as_keyword).ok_or("no :db")?;
    let op = match view.text() {
        "db" => None,
        "history" => Some(ViewOp::History),
        "as-of" | "since" => {
            let point = match given.pop() {
                Some(Value::Long(tx)) => Point::Tx(tx),
                Some(Value::Inst(ms)) => Point::Instant(ms),
                other => return Err(format!("not a time point: {other:?}")),
            };
            Some(if view.text() == "since" { ViewOp::Since(point) } else { ViewOp::AsOf(point) })
        }
        other => return Err(format!("unknown database :{other}")),
    };
    let db = op.map_or_else(|| Ok(db.clone()), |op| db.view(&op));
    let outcome = db.and_then(|db| {
        let arguments = arguments(form, db, given);
        Engine::query(form, &arguments, &Paging::default())
    });
    let ordered = section(form, "order-by").is_some();
    let expected = get(recorded, "result").unwrap_or(&Value::Nil);
    let judge = if ordered { same } else { same_rows };
    compare(expected, outcome, judge).map_err(|reason| format!("{reason} at {}", brief(form)))
}

/// The recorded inputs in the order of `:in`, with the database for the first source.
fn arguments(form: &Value, db: Engine, given: Vec<Value>) -> Vec<Argument> {
    let declared = section(form, "in").unwrap_or_else(|| vec![Value::symbol("$")]);
    let mut db = Some(db);
    let mut given = given.into_iter();
    let mut arguments = Vec::new();
    for input in declared {
        let name = input.as_symbol().map(|symbol| symbol.text().to_owned()).unwrap_or_default();
        if name.starts_with('$')
            && let Some(db) = db.take()
        {
            arguments.push(Argument::Db(db));
        } else if let Some(value) = given.next() {
            arguments.push(if name == "%" {
                Argument::Rules(value)
            } else {
                Argument::Value(value)
            });
        }
    }
    arguments.extend(given.map(Argument::Value));
    arguments
}

/// What stands under `:name` in a query in vector or map form.
fn section(form: &Value, name: &str) -> Option<Vec<Value>> {
    if let Some(content) = get(form, name) {
        return elements(content);
    }
    let items = elements(form)?;
    let begin = items.iter().position(|item| *item == Value::keyword(name))? + 1;
    Some(items[begin..].iter().take_while(|i| i.as_keyword().is_none()).cloned().collect())
}

fn same_rows(expected: &Value, got: &Value) -> bool {
    match (elements(expected), elements(got)) {
        (Some(expected), Some(got)) => same_bag(&expected, &got),
        _ => same(expected, got),
    }
}

fn compare(
    expected: &Value,
    outcome: Result<Value, Failure>,
    judge: fn(&Value, &Value) -> bool,
) -> Checked<()> {
    if let Value::Vector(parts) = expected
        && let [Value::Keyword(error), message, rest @ ..] = &parts[..]
        && error.text() == "error"
    {
        let code = rest.iter().find_map(|data| get(data, "error")?.as_keyword());
        let in_message = message.as_str().and_then(last_code);
        let code = code.map(Keyword::text).or(in_message);
        return match (outcome, code) {
            (Err(failure), Some(code)) if failure.code.as_deref() != Some(code) => {
                Err(format!("expected the error :{code}, got {failure}"))
            }
            (Err(_), _) => Ok(()),
            (Ok(got), _) => Err(format!("expected {}, got {}", brief(expected), brief(&got))),
        };
    }
    match outcome {
        Ok(got) if judge(expected, &got) => Ok(()),
        Ok(got) => Err(differs(expected, &got)),
        Err(failure) => Err(format!("expected {}, got the error {failure}", brief(expected))),
    }
}

fn differs(expected: &Value, got: &Value) -> String {
    format!("expected {}, got {}", brief(expected), brief(got))
}

fn row(datom: &[Value; 5]) -> Value {
    Value::vector(datom.iter().cloned())
}

fn rows(datoms: &[[Value; 5]]) -> Value {
    Value::vector(datoms.iter().map(row))
}

fn read(folder: &Path, file: &str) -> Checked<Value> {
    let text = fs::read_to_string(folder.join(file)).map_err(|e| format!("{file}: {e}"))?;
    edn::read(&text).map_err(|error| format!("{file}: {error}"))
}

fn list(folder: &Path, file: &str) -> Checked<Vec<Value>> {
    if !folder.join(file).exists() {
        return Ok(Vec::new());
    }
    elements(&read(folder, file)?).ok_or_else(|| format!("{file} is no vector"))
}

fn get<'a>(map: &'a Value, name: &str) -> Option<&'a Value> {
    map.get(&Keyword::parse(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_code_in_a_message_counts() {
        let message = "Bad {:error :a/b, :cause {:error :transact/cas, :old 1}}";
        assert_eq!(last_code(message), Some("transact/cas"));
        assert_eq!(last_code("{:error :entity-id/missing}"), Some("entity-id/missing"));
        assert_eq!(last_code("no code"), None);
    }

    #[test]
    fn recorded_errors_are_compared_by_code() {
        let expected = edn::read("[:error \"text\" {:error :parser/find}]").unwrap();
        let failure = |code: &str| Err(Failure { code: Some(code.into()), message: String::new() });
        assert!(compare(&expected, failure("parser/find"), same).is_ok());
        assert!(compare(&expected, failure("parser/where"), same).is_err());
        assert!(compare(&expected, Ok(Value::Nil), same).is_err());
    }

    #[test]
    fn inputs_are_matched_to_their_places() {
        let form = edn::read("[:find ?x :in % $ ?x :where (r ?x)]").unwrap();
        let db = Engine::empty(Options::default());
        let arguments = arguments(&form, db, vec![Value::vector([]), Value::from(1)]);
        assert!(matches!(
            &arguments[..],
            [Argument::Rules(_), Argument::Db(_), Argument::Value(Value::Long(1))]
        ));
    }
}
