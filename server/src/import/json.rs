//! JSON lines: one object a line, one attribute a key. Objects in objects become entities of their
//! own, arrays several values of one attribute.

use std::collections::BTreeMap;
use std::io::BufRead;

use datahike::core::schema::ValueType;
use datahike::{BulkLoad, Column, Keyword, Value};
use serde_json::{Map, Value as Json};

use super::Imported;
use super::columns::ColumnType;
use super::schema;
use super::source::Source;
use crate::cli::Import;
use crate::failure::Failure;

/// What a first pass over the file found: the keys.
#[derive(Debug, Default)]
pub(super) struct Plan {
    keys: BTreeMap<String, Key>,
}

#[derive(Clone, Copy, Debug)]
struct Key {
    kind: KeyKind,
    many: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum KeyKind {
    Boolean,
    Long,
    Double,
    Text,
    Entity,
}

/// Finds keys and their types. Reads the whole file, so that what is wrong with it is found before
/// anything is written.
pub(super) fn plan(source: &Source, args: &Import) -> Result<Plan, Failure> {
    let mut plan = Plan::default();
    each_line(source, source.open()?, |object| plan.see(&object))?;
    let asked = args.types.iter().map(|(name, _)| name).chain(&args.unique);
    for name in asked {
        if !plan.keys.contains_key(name) {
            let text = format!("there is no key {name:?}");
            return Err(Failure::usage(text).at(source.path.display()));
        }
    }
    Ok(plan)
}

/// Hands on the object of each line; blank lines are passed over.
fn each_line(
    source: &Source,
    input: Box<dyn BufRead + Send>,
    mut see: impl FnMut(Map<String, Json>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for (number, line) in (1..).zip(input.lines()) {
        let line = line.map_err(|error| source.failure(error))?;
        if line.trim().is_empty() {
            continue;
        }
        let failed = |failure: Failure| source.failure(failure.at(format!("line {number}")));
        let object: Map<String, Json> =
            serde_json::from_str(&line).map_err(|error| failed(error.into()))?;
        see(object).map_err(failed)?;
    }
    Ok(())
}

impl Plan {
    fn see(&mut self, object: &Map<String, Json>) -> Result<(), Failure> {
        for (name, value) in object {
            match value {
                Json::Array(items) => {
                    for item in items {
                        self.see_value(name, item, true)?;
                    }
                }
                value => self.see_value(name, value, false)?,
            }
        }
        Ok(())
    }

    fn see_value(&mut self, name: &str, value: &Json, many: bool) -> Result<(), Failure> {
        let kind = match value {
            Json::Null => return Ok(()),
            Json::Bool(_) => KeyKind::Boolean,
            Json::Number(number) if number.is_i64() => KeyKind::Long,
            Json::Number(_) => KeyKind::Double,
            Json::String(_) => KeyKind::Text,
            Json::Array(_) => {
                return Err(Failure::new(format!("{name}: an array in an array has no form here")));
            }
            Json::Object(object) => {
                self.see(object)?;
                KeyKind::Entity
            }
        };
        if name.is_empty()
            || name.contains(|c: char| c.is_whitespace() || "/()[]{}\"@;`~\\".contains(c))
        {
            return Err(Failure::new(format!("{name:?} is no name of an attribute")));
        }
        let known = self.keys.entry(name.to_owned()).or_insert(Key { kind, many });
        known.many |= many;
        known.kind = match (known.kind, kind) {
            (a, b) if a == b => a,
            (KeyKind::Long, KeyKind::Double) | (KeyKind::Double, KeyKind::Long) => KeyKind::Double,
            (KeyKind::Entity, _) | (_, KeyKind::Entity) => {
                return Err(Failure::new(format!(
                    "{name} is an object here and a plain value there"
                )));
            }
            _ => KeyKind::Text,
        };
        Ok(())
    }
}

pub(super) async fn load(
    load: &mut BulkLoad,
    source: &Source,
    plan: Plan,
    args: &Import,
) -> Result<Imported, Failure> {
    let mut done = Imported::default();
    let mut attributes = BTreeMap::new();
    let mut wanted = Vec::new();
    for (name, key) in &plan.keys {
        let ident = Keyword::new(args.namespace.as_deref(), name);
        let given = args.types.iter().find(|(column, _)| column == name).map(|(_, given)| *given);
        let declared = schema::declared(load, &ident);
        let declared_type = declared.and_then(|attribute| attribute.value_type);
        let column = match key.kind {
            KeyKind::Entity => None,
            kind => Some(given.or_else(|| declared.and_then(schema::column_type)).unwrap_or(
                match kind {
                    KeyKind::Boolean => ColumnType::Boolean,
                    KeyKind::Long => ColumnType::Long,
                    KeyKind::Double => ColumnType::Double,
                    KeyKind::Text | KeyKind::Entity => ColumnType::String,
                },
            )),
        };
        let value_type = Keyword::new(Some("db.type"), column.map_or("ref", ColumnType::name));
        let inferred = ValueType::from_ident(&value_type).unwrap_or(ValueType::String);
        wanted.push(Column {
            ident: ident.clone(),
            value_type: declared_type.unwrap_or(inferred),
            many: key.many,
            unique: args.unique.contains(name),
        });
        attributes.insert(name.clone(), (ident, column));
    }
    schema::check_unique(load, &wanted)?;
    let declared = load.declare(&wanted).await?;
    if declared > 0 {
        done.add(declared);
    }
    let (input, bar) = source.open_shown()?;
    let mut batches = Vec::new();
    let mut maps = Vec::new();
    // The whole file was read once: its values fit in memory as maps, batch by batch.
    each_line(source, input, |object| {
        maps.push(entity(&object, &attributes)?);
        if maps.len() >= args.batch as usize {
            batches.push(std::mem::take(&mut maps));
        }
        Ok(())
    })?;
    batches.push(maps);
    for maps in batches.into_iter().filter(|maps| !maps.is_empty()) {
        let report = load.transact(&Value::vector(maps)).await?;
        done.add(report.tx_data.len());
        load.commit().await?;
    }
    bar.finish_and_clear();
    Ok(done)
}

type Attributes = BTreeMap<String, (Keyword, Option<ColumnType>)>;

fn entity(object: &Map<String, Json>, attributes: &Attributes) -> Result<Value, Failure> {
    let mut entries = Vec::with_capacity(object.len());
    for (name, json) in object {
        let Some((ident, column)) = attributes.get(name) else { continue };
        let found = match json {
            Json::Null => continue,
            Json::Array(items) => {
                let items = items.iter().filter(|item| !item.is_null());
                let values: Result<Vec<_>, _> =
                    items.map(|item| value(name, item, *column, attributes)).collect();
                Value::vector(values?)
            }
            json => value(name, json, *column, attributes)?,
        };
        entries.push((Value::from(ident.clone()), found));
    }
    Ok(Value::map(entries))
}

fn value(
    name: &str,
    json: &Json,
    column: Option<ColumnType>,
    attributes: &Attributes,
) -> Result<Value, Failure> {
    let Some(column) = column else {
        return match json {
            Json::Object(object) => entity(object, attributes),
            _ => Err(Failure::new(format!("{name}: {json} is no object"))),
        };
    };
    let found = match (json, column) {
        (Json::Number(number), ColumnType::Double) => number.as_f64().map(Value::Double),
        (Json::String(text), _) => column.value(text),
        (other, _) => column.value(&other.to_string()),
    };
    found.ok_or_else(|| Failure::new(format!("{name}: {json} is no {}", column.name())))
}
