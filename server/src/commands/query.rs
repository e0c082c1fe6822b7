use std::io::{self, Write};

use datahike::config::WriterConfig;
use datahike::core::db::Components;
use datahike::core::index::Index;
use datahike::{Config, Value, connect};

use super::{form, forms, text, view};
use crate::cli::{Datoms, Explain, Pull, Query};
use crate::failure::Failure;
use crate::output::{self, Shape};
use crate::place::Place;
use crate::session::Session;

/// Datoms asked of a server at once.
const PAGE: usize = 50_000;

pub(super) async fn q(args: Query) -> Result<(), Failure> {
    let shape = Shape::of(&form("QUERY", &args.query)?);
    let mut arguments = view(&args.view)?;
    // As text, so that errors can tell the line and column.
    arguments.push(("query", Value::str(text("QUERY", &args.query)?)));
    arguments.push(("inputs", forms("INPUT", &args.inputs)?));
    match args.explain {
        Some(Explain::Plan) => arguments.push(("explain", true.into())),
        Some(Explain::Analyze) => arguments.push(("explain", Value::keyword("analyze"))),
        None => {}
    }
    if args.strict {
        arguments.push(("strict", true.into()));
    }
    let session = Session::read(&args.target).await?;
    let found = session.call("q", arguments).await?;
    match (args.explain, &found) {
        (Some(_), Value::Str(plan)) => output::line(plan.trim_end())?,
        _ => {
            let format = output::format_or_default(args.format);
            output::result(&found, &shape, format, args.header)?;
        }
    }
    session.close().await
}

pub(super) async fn pull(args: Pull) -> Result<(), Failure> {
    let mut arguments = view(&args.view)?;
    arguments.push(("pattern", form("PATTERN", &args.pattern)?));
    arguments.push(("entity", form("ENTITY", &args.entity)?));
    let session = Session::read(&args.target).await?;
    let found = session.call("pull", arguments).await?;
    output::map(&found, output::format_or_default(args.format))?;
    session.close().await
}

pub(super) async fn datoms(args: Datoms) -> Result<(), Failure> {
    let name = args.index.trim_start_matches(':');
    let index = match name {
        "eavt" => Index::Eavt,
        "aevt" => Index::Aevt,
        "avet" => Index::Avet,
        _ => {
            let text = format!("INDEX {:?} is none of eavt, aevt, avet", args.index);
            return Err(Failure::usage(text));
        }
    };
    let components = forms("COMPONENT", &args.components)?;
    let limit = args.limit.unwrap_or(usize::MAX);
    let mut out = io::BufWriter::new(io::stdout().lock());
    match &args.target.db {
        Place::File(folder) => {
            let config = Config::file(folder).writer(WriterConfig::ReadOnly);
            let connection = connect(&config).await?;
            let mut db = connection.db();
            for (name, value) in view(&args.view)? {
                let point = datahike::ops::at_point(&value);
                db = match (name, point) {
                    ("as-of", Some(point)) => db.as_of(point)?,
                    ("since", Some(point)) => db.since(point)?,
                    ("history", _) if args.view.history => db.history()?,
                    _ => db,
                };
            }
            let components = Components::from(components.as_slice().unwrap_or_default());
            for datom in db.datoms(index, &components)?.take(limit) {
                writeln!(out, "{}", db.datom_value(&datom?))?;
            }
        }
        Place::Server(_) => {
            let session = Session::read(&args.target).await?;
            let mut offset = 0;
            while offset < limit {
                let wanted = PAGE.min(limit - offset);
                let mut arguments = view(&args.view)?;
                arguments.push(("index", Value::keyword(name)));
                arguments.push(("components", components.clone()));
                arguments.push(("offset", Value::from(offset as i64)));
                arguments.push(("limit", Value::from(wanted as i64)));
                let page = session.call("datoms", arguments).await?;
                let page = page.as_slice().unwrap_or_default();
                for datom in page {
                    writeln!(out, "{datom}")?;
                }
                offset += page.len();
                if page.len() < wanted {
                    break;
                }
            }
            session.close().await?;
        }
    }
    Ok(out.flush()?)
}
