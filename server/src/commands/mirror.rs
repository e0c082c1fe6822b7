//! `datahike mirror`: a local copy of a database at a server.

use std::time::Duration;

use datahike::config::{KabelPeer, Secret, StoreConfig, WriterConfig};
use datahike::{Config, Connection, Value, kw};

use super::make_parent;
use crate::cli::Mirror;
use crate::failure::Failure;
use crate::place::Place;
use crate::serve::stopped;
use crate::session::RemoteSession;
use crate::{output, progress};

/// Between two looks at how far a transfer is.
const LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn run(args: Mirror) -> Result<(), Failure> {
    let Place::Server(at) = &args.target.db else {
        let text = format!("{}: only databases at a server are mirrored", args.target.db);
        return Err(Failure::usage(text).hint("say ws://HOST:PORT/NAME"));
    };
    let access = &args.target.access;
    let server = RemoteSession::connect(&at.url, access).await?;
    let name: Value = at.name.as_str().into();
    // A database that came to the server's folder later is opened when it is asked for.
    server.open(&name).await?;
    make_parent(&args.into)?;
    let kabel = KabelPeer {
        url: Some(at.url.clone()),
        database: Some(at.name.clone()),
        token: access.token.as_ref().map(Secret::new),
        ..KabelPeer::default()
    };
    let store = StoreConfig::File { path: args.into.clone(), id: None };
    let config = Config::new(store).writer(WriterConfig::Kabel(kabel));
    let connection = transfer(&server, &config).await?;
    let traffic = server.remote().link().connection();
    let received = traffic.map_or(0, |connection| connection.traffic().received());
    output::line(Value::map([
        (kw!("id").into(), Value::Uuid(connection.store_id())),
        (kw!("tx").into(), number(connection.db().max_tx())),
        (kw!("bytes-received").into(), number(received)),
    ]))?;
    if !args.once {
        follow(&connection).await?;
    }
    connection.release().await?;
    server.remote().link().close();
    Ok(())
}

/// Connects, which is done when the copy is up to date.
async fn transfer(server: &RemoteSession, config: &Config) -> Result<Connection, Failure> {
    let bar = progress::incoming("receiving");
    let mirrored = server.remote().mirror(config);
    tokio::pin!(mirrored);
    let connection = loop {
        tokio::select! {
            done = &mut mirrored => break done?,
            () = tokio::time::sleep(LOOK_EVERY) => {
                if let Some(connection) = server.remote().link().connection() {
                    bar.set_position(connection.traffic().received());
                }
            }
        }
    };
    bar.finish_and_clear();
    Ok(connection)
}

/// Prints a line for each transaction until it is stopped.
async fn follow(connection: &Connection) -> Result<(), Failure> {
    let mut reports = connection.tx_reports();
    let stopped = stopped()?;
    tokio::pin!(stopped);
    loop {
        let event = tokio::select! {
            event = reports.next() => event,
            () = &mut stopped => return Ok(()),
        };
        match event {
            Some(datahike::TxEvent::Report(report)) => output::line(Value::map([
                (kw!("tx").into(), number(report.tx)),
                (kw!("datoms").into(), number(report.tx_data.len() as u64)),
            ]))?,
            Some(datahike::TxEvent::Gap { from, to }) => output::line(Value::map([
                (kw!("from").into(), number(from)),
                (kw!("tx").into(), number(to)),
            ]))?,
            Some(_) => {}
            None => {
                return Err(Failure::new("the mirror has stopped; see the log with --log info"));
            }
        }
    }
}

fn number(n: u64) -> Value {
    Value::Long(i64::try_from(n).unwrap_or(i64::MAX))
}
