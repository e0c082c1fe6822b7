//! Results as they are printed: EDN, JSON, CSV or a table.

mod shape;

use std::io::{self, IsTerminal, Write};

use datahike::Value;
use serde_json::json;

pub(crate) use self::shape::Shape;
use crate::cli::Format;
use crate::failure::Failure;

/// The format that was asked for, or what suits where the output goes.
pub(crate) fn format_or_default(format: Option<Format>) -> Format {
    format.unwrap_or_else(|| match io::stdout().is_terminal() {
        true => Format::Table,
        false => Format::Edn,
    })
}

/// Prints one line and lets it go at once.
pub(crate) fn line(text: impl std::fmt::Display) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}

/// Prints a query's result.
pub(crate) fn result(
    value: &Value,
    shape: &Shape,
    format: Format,
    header: bool,
) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match (format, shape) {
        (Format::Edn, _) => writeln!(out, "{value}")?,
        (Format::Json, _) => writeln!(out, "{}", to_json(value))?,
        (_, Shape::Scalar) if header => csv(&mut out, &shape.columns(), &shape.rows(value), true)?,
        (_, Shape::Scalar) => writeln!(out, "{}", cell(value))?,
        (Format::Csv, _) => csv(&mut out, &shape.columns(), &shape.rows(value), header)?,
        (Format::Table, _) => table(&mut out, &shape.columns(), &shape.rows(value))?,
    }
    Ok(out.flush()?)
}

/// Prints a map as it came from an operation.
pub(crate) fn map(value: &Value, format: Format) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match (format, value) {
        (Format::Edn, _) => writeln!(out, "{value}")?,
        (Format::Json, _) => writeln!(out, "{}", to_json(value))?,
        (_, Value::Map(entries)) => {
            let rows: Vec<_> = entries.iter().map(|(k, v)| vec![cell(k), cell(v)]).collect();
            let columns = ["key".to_owned(), "value".to_owned()];
            match format {
                Format::Csv => csv(&mut out, &columns, &rows, false)?,
                _ => table(&mut out, &columns, &rows)?,
            }
        }
        (_, value) => writeln!(out, "{}", cell(value))?,
    }
    Ok(out.flush()?)
}

fn csv(
    out: &mut impl Write,
    columns: &[String],
    rows: &[Vec<String>],
    header: bool,
) -> Result<(), Failure> {
    let mut writer = csv::WriterBuilder::new().flexible(true).from_writer(out);
    if header {
        writer.write_record(columns)?;
    }
    for row in rows {
        writer.write_record(row)?;
    }
    Ok(writer.flush()?)
}

fn table(out: &mut impl Write, columns: &[String], rows: &[Vec<String>]) -> io::Result<()> {
    let mut widths: Vec<usize> = columns.iter().map(|name| name.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let put = |out: &mut dyn Write, cells: &[String]| -> io::Result<()> {
        let mut line = String::new();
        for (cell, width) in cells.iter().zip(&widths) {
            line.push_str(cell);
            let padding = width.saturating_sub(cell.chars().count()) + 2;
            line.extend(std::iter::repeat_n(' ', padding));
        }
        writeln!(out, "{}", line.trim_end())
    };
    put(out, columns)?;
    let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    put(out, &rules)?;
    rows.iter().try_for_each(|row| put(out, row))?;
    writeln!(out, "({} {})", rows.len(), if rows.len() == 1 { "row" } else { "rows" })
}

/// A value in a cell: strings without quotes, nothing for nil.
pub(crate) fn cell(value: &Value) -> String {
    match value {
        Value::Nil => String::new(),
        Value::Str(text) => text.to_string(),
        value => value.to_string(),
    }
}

/// As JSON: keywords and symbols as their text, keys as text, what JSON has no form for as EDN in a
/// string.
pub(crate) fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Nil => serde_json::Value::Null,
        Value::Bool(flag) => json!(flag),
        Value::Long(number) => json!(number),
        Value::Double(number) if number.is_finite() => json!(number),
        Value::Float(number) if number.is_finite() => json!(number),
        Value::Str(text) => json!(**text),
        Value::Keyword(keyword) => json!(keyword.text()),
        Value::Symbol(symbol) => json!(symbol.text()),
        Value::Uuid(uuid) => json!(uuid.to_string()),
        Value::Inst(_) => match value.to_string().split('"').nth(1) {
            Some(instant) => json!(instant),
            None => json!(value.to_string()),
        },
        Value::List(items) | Value::Vector(items) => items.iter().map(to_json).collect(),
        Value::Set(items) => items.iter().map(to_json).collect(),
        Value::FloatArray(items) => items.iter().map(|n| to_json(&Value::Float(*n))).collect(),
        Value::DoubleArray(items) => items.iter().map(|n| to_json(&Value::Double(*n))).collect(),
        Value::Map(entries) => entries
            .iter()
            .map(|(key, value)| {
                let key = match to_json(key) {
                    serde_json::Value::String(text) => text,
                    other => other.to_string(),
                };
                (key, to_json(value))
            })
            .collect::<serde_json::Map<_, _>>()
            .into(),
        value => json!(value.to_string()),
    }
}
