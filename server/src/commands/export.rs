//! `datahike export`: every datom, one a line, to be taken back by `import`.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use datahike::config::WriterConfig;
use datahike::{Config, Value, connect, kw};
use flate2::Compression;
use flate2::write::GzEncoder;

use crate::cli::Export;
use crate::failure::Failure;
use crate::place::Place;
use crate::session::Session;

pub(super) async fn run(args: Export) -> Result<(), Failure> {
    let Some(path) = &args.file else {
        let mut out = BufWriter::new(io::stdout().lock());
        return write(&args, &mut out).await;
    };
    let failed = |error| Failure::from(error).at(path.display());
    let file = File::create(path).map_err(failed)?;
    if path.extension().is_some_and(|extension| extension == "gz") {
        let mut out = GzEncoder::new(BufWriter::new(file), Compression::default());
        write(&args, &mut out).await?;
        return out.finish().map_err(failed)?.flush().map_err(failed);
    }
    write(&args, &mut BufWriter::new(file)).await
}

async fn write(args: &Export, out: &mut impl Write) -> Result<(), Failure> {
    match &args.target.db {
        Place::File(folder) => {
            let config = Config::file(folder).writer(WriterConfig::ReadOnly);
            let connection = connect(&config).await?;
            let db = connection.db();
            let all = if db.config().keep_history { db.history()? } else { db };
            for datom in all.all_datoms() {
                writeln!(out, "{}", all.datom_value(&datom?))?;
            }
        }
        Place::Server(_) => {
            let session = Session::read(&args.target).await?;
            let (mut from, mut basis) = (Value::Nil, Value::Nil);
            loop {
                let page = session.call("export", [("from", from), ("basis", basis)]).await?;
                let part = |key| page.get(&key).cloned().unwrap_or_default();
                for datom in part(kw!("datoms")).as_slice().unwrap_or_default() {
                    writeln!(out, "{datom}")?;
                }
                (from, basis) = (part(kw!("next")), part(kw!("basis")));
                if from.is_nil() {
                    break;
                }
            }
            session.close().await?;
        }
    }
    Ok(out.flush()?)
}
