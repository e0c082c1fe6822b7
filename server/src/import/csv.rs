//! Tables: one entity a row, one attribute a column.

use std::collections::HashSet;
use std::io::BufRead;

use csv::{Reader, ReaderBuilder, StringRecord};
use datahike::core::schema::ValueType;
use datahike::{BulkLoad, Column, Keyword, Value};
use tokio::sync::mpsc;

use super::Imported;
use super::columns::{ColumnType, Inference};
use super::schema;
use super::source::Source;
use crate::cli::Import;
use crate::failure::Failure;

/// Batches that wait for the writer.
const BATCHES_WAITING: usize = 2;

/// What a first pass over the file found.
#[derive(Debug)]
pub(super) struct Plan {
    columns: Vec<Planned>,
}

/// A column of the file.
#[derive(Clone, Debug)]
struct Planned {
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
        Planned {
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
        let declared = schema::declared(load, &column.ident);
        if let Some(declared) = declared {
            let text = format!("{} is of a type that no column has", column.ident);
            column.column_type = schema::column_type(declared).ok_or_else(|| Failure::new(text))?;
        }
        let value_type = Keyword::new(Some("db.type"), column.column_type.name());
        let inferred = ValueType::from_ident(&value_type).unwrap_or(ValueType::String);
        wanted.push(Column {
            ident: column.ident.clone(),
            value_type: declared.and_then(|a| a.value_type).unwrap_or(inferred),
            unique: column.unique,
            many: false,
        });
    }
    schema::check_unique(load, &wanted)?;
    let declared = load.declare(&wanted).await?;
    if declared > 0 {
        done.add(declared);
    }
    let mut table = load.table(wanted).await?;

    let (input, bar) = source.open_shown()?;
    let (sender, mut batches) = mpsc::channel(BATCHES_WAITING);
    let mut parser = Parser {
        reader: reader(input),
        last: vec![Value::Nil; plan.columns.len()],
        columns: plan.columns,
        rows_max: args.batch as usize,
    };
    // Parsing and writing keep one core busy each.
    let parsing = std::thread::spawn(move || parser.run(&sender));
    while let Some(mut cells) = batches.recv().await {
        let datoms = load.add_rows(&mut table, &mut cells).await?;
        if datoms > 0 {
            done.add(datoms);
        }
    }
    load.commit().await?;
    bar.finish_and_clear();
    match parsing.join() {
        Ok(parsed) => parsed.map_err(|failure| source.failure(failure))?,
        Err(panic) => std::panic::resume_unwind(panic),
    }
    Ok(done)
}

struct Parser {
    reader: Reader<Box<dyn BufRead + Send>>,
    columns: Vec<Planned>,
    /// The value above in each column: neighbours are often equal, and share it.
    last: Vec<Value>,
    rows_max: usize,
}

impl Parser {
    fn run(&mut self, batches: &mpsc::Sender<Vec<Value>>) -> Result<(), Failure> {
        let mut record = StringRecord::new();
        let batch_cells = self.rows_max.saturating_mul(self.columns.len());
        let mut cells = Vec::new();
        while self.reader.read_record(&mut record).map_err(wrong)? {
            self.read(&record, &mut cells)?;
            if cells.len() >= batch_cells {
                let room = Vec::with_capacity(cells.len());
                // Nobody to send to: the writer has failed and says why.
                if batches.blocking_send(std::mem::replace(&mut cells, room)).is_err() {
                    return Ok(());
                }
            }
        }
        if !cells.is_empty() {
            let _ = batches.blocking_send(cells);
        }
        Ok(())
    }

    /// Adds the row's cells as values, nil where it has none.
    fn read(&mut self, record: &StringRecord, cells: &mut Vec<Value>) -> Result<(), Failure> {
        for (at, (cell, column)) in record.iter().zip(&self.columns).enumerate() {
            if cell.is_empty() {
                cells.push(Value::Nil);
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
            cells.push(value);
        }
        Ok(())
    }
}
