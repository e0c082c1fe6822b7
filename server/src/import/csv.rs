//! Tables: one entity a row, one attribute a column.

use std::collections::HashSet;
use std::io::BufRead;

use csv::{Reader, ReaderBuilder, StringRecord};
use datahike::core::datom::AttrId;
use datahike::core::schema::ValueType;
use datahike::{BulkLoad, Keyword, Value};
use tokio::sync::mpsc;

use super::Imported;
use super::columns::{ColumnType, Inference};
use super::rows::{self, Batch, Rows};
use super::schema::{self, Wanted};
use super::source::Source;
use crate::cli::Import;
use crate::failure::Failure;

/// Batches that wait for the writer.
const BATCHES_WAITING: usize = 2;

/// What a first pass over the file found.
#[derive(Debug)]
pub(super) struct Plan {
    columns: Vec<Column>,
}

#[derive(Clone, Debug)]
struct Column {
    name: String,
    ident: Keyword,
    column_type: ColumnType,
    unique: bool,
}

fn reader(input: Box<dyn BufRead + Send>) -> Reader<Box<dyn BufRead + Send>> {
    ReaderBuilder::new().from_reader(input)
}

/// Finds columns and their types. Reads the whole file, so that what is wrong with it is found
/// before anything is written.
pub(super) fn plan(source: &Source, args: &Import) -> Result<Plan, Failure> {
    let failed = |error| source.failure(wrong(error));
    let mut reader = reader(source.open()?);
    let names: Vec<String> =
        reader.headers().map_err(failed)?.iter().map(|name| name.trim().to_owned()).collect();
    check_names(source, args, &names)?;
    let mut inferences = vec![Inference::default(); names.len()];
    let mut record = StringRecord::new();
    while reader.read_record(&mut record).map_err(failed)? {
        inferences.iter_mut().zip(&record).for_each(|(inference, cell)| inference.see(cell));
    }
    let column = |(name, inference): (String, Inference)| {
        let given = args.types.iter().find(|(column, _)| *column == name);
        Column {
            ident: match &args.namespace {
                Some(namespace) => Keyword::new(Some(namespace), &name),
                None => Keyword::new(None, &name),
            },
            column_type: given.map_or_else(|| inference.column_type(), |(_, given)| *given),
            unique: args.unique.contains(&name),
            name,
        }
    };
    Ok(Plan { columns: names.into_iter().zip(inferences).map(column).collect() })
}

fn check_names(source: &Source, args: &Import, names: &[String]) -> Result<(), Failure> {
    let mut seen = HashSet::new();
    for name in names {
        if name.is_empty()
            || name.contains(|c: char| c.is_whitespace() || "/()[]{}\"@;`~\\".contains(c))
        {
            let text = format!("column name {name:?} is no name of an attribute");
            return Err(
                source.failure(Failure::new(text).hint("rename it in the file's first line"))
            );
        }
        if !seen.insert(name) {
            return Err(source.failure(Failure::new(format!("two columns are named {name:?}"))));
        }
    }
    let asked = args.types.iter().map(|(name, _)| name).chain(&args.unique);
    for name in asked {
        if !names.contains(name) {
            let text = format!("there is no column {name:?}, only {}", names.join(", "));
            return Err(Failure::usage(text).at(source.path.display()));
        }
    }
    Ok(())
}

fn wrong(error: csv::Error) -> Failure {
    let error: Failure = error.into();
    error.hint(
        "cells with commas or line breaks need quotes; every row needs as many cells as the first",
    )
}

pub(super) async fn load(
    load: &mut BulkLoad,
    source: &Source,
    mut plan: Plan,
    args: &Import,
) -> Result<Imported, Failure> {
    let mut done = Imported::default();
    let mut wanted = Vec::new();
    for column in &mut plan.columns {
        if let Some(declared) = schema::declared(load, &column.ident) {
            let text = format!("{} is of a type that no column has", column.ident);
            column.column_type = schema::column_type(declared).ok_or_else(|| Failure::new(text))?;
        }
        let value_type = Keyword::new(Some("db.type"), column.column_type.name());
        wanted.push(Wanted {
            ident: column.ident.clone(),
            value_type: ValueType::from_ident(&value_type).unwrap_or(ValueType::String),
            many: false,
            unique: column.unique,
        });
    }
    let all_new = schema::declare(load, &wanted, &mut done).await?;
    let ids = plan.columns.iter().map(|column| load.db().schema().attr_id(&column.ident));
    let ids: Vec<AttrId> = ids.flatten().collect();

    let (input, bar) = source.open_shown()?;
    let (sender, mut batches) = mpsc::channel(BATCHES_WAITING);
    let mut parser = Parser {
        reader: reader(input),
        seen: vec![HashSet::new(); plan.columns.len()],
        last: vec![Value::Nil; plan.columns.len()],
        columns: plan.columns,
        ids,
        all_new,
        rows_max: args.batch as usize,
    };
    // Parsing and writing keep one core busy each.
    let parsing = std::thread::spawn(move || parser.run(&sender));
    while let Some(batch) = batches.recv().await {
        rows::add(load, batch, &mut done).await?;
    }
    bar.finish_and_clear();
    match parsing.join() {
        Ok(parsed) => parsed.map_err(|failure| source.failure(failure))?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    Ok(done)
}

struct Parser {
    reader: Reader<Box<dyn BufRead + Send>>,
    columns: Vec<Column>,
    ids: Vec<AttrId>,
    /// The values of unique columns so far.
    seen: Vec<HashSet<Value>>,
    /// The value above in each column: neighbours are often equal, and share it.
    last: Vec<Value>,
    all_new: bool,
    rows_max: usize,
}

impl Parser {
    fn run(&mut self, batches: &mpsc::Sender<Batch>) -> Result<(), Failure> {
        let mut record = StringRecord::new();
        let mut rows = Rows::default();
        let mut maps = Vec::new();
        let mut row: Vec<(usize, Value)> = Vec::new();
        // Nobody to send to: the writer has failed and says why.
        while self.reader.read_record(&mut record).map_err(wrong)? {
            self.read(&record, &mut row)?;
            if self.all_new && !self.repeats(&row) {
                rows.cells.extend(row.drain(..).map(|(column, v)| (self.ids[column], v)));
                rows.ends.push(rows.cells.len());
                if rows.len() >= self.rows_max {
                    let full = std::mem::take(&mut rows);
                    rows.cells.reserve(full.cells.len());
                    if batches.blocking_send(Batch::New(full)).is_err() {
                        return Ok(());
                    }
                }
                continue;
            }
            let entry =
                |(column, v): (usize, Value)| (Value::from(self.columns[column].ident.clone()), v);
            let map = Value::map(row.drain(..).map(entry));
            if self.all_new {
                // A row about an entity of an earlier one: that one first.
                let before = std::mem::take(&mut rows);
                let sent = batches.blocking_send(Batch::New(before)).is_ok();
                if !sent || batches.blocking_send(Batch::Maps(vec![map])).is_err() {
                    return Ok(());
                }
                continue;
            }
            if map != Value::map([]) {
                maps.push(map);
            }
            if maps.len() >= self.rows_max
                && batches.blocking_send(Batch::Maps(std::mem::take(&mut maps))).is_err()
            {
                return Ok(());
            }
        }
        if rows.len() > 0 {
            let _ = batches.blocking_send(Batch::New(rows));
        }
        if !maps.is_empty() {
            let _ = batches.blocking_send(Batch::Maps(maps));
        }
        Ok(())
    }

    /// The row's cells as values, by column.
    fn read(
        &mut self,
        record: &StringRecord,
        row: &mut Vec<(usize, Value)>,
    ) -> Result<(), Failure> {
        for (at, (cell, column)) in record.iter().zip(&self.columns).enumerate() {
            if cell.is_empty() {
                continue;
            }
            let value = match &self.last[at] {
                Value::Str(above) if **above == *cell => self.last[at].clone(),
                _ => column.column_type.value(cell).ok_or_else(|| {
                    let line = record.position().map_or(0, csv::Position::line);
                    let name = &column.name;
                    let wanted = column.column_type.name();
                    let text = format!("line {line}, column {name}: {cell:?} is no {wanted}");
                    Failure::new(text).hint("correct the cell, or say --type COLUMN=string")
                })?,
            };
            if matches!(value, Value::Str(_)) {
                self.last[at] = value.clone();
            }
            row.push((at, value));
        }
        Ok(())
    }

    /// Whether a unique value of the row was there before.
    fn repeats(&mut self, row: &[(usize, Value)]) -> bool {
        let mut repeats = false;
        for (column, value) in row {
            if self.columns[*column].unique {
                repeats |= !self.seen[*column].insert(value.clone());
            }
        }
        repeats
    }
}
