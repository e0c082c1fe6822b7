//! A server peer owns a database of the world's cities; two clients mirror it over WebSocket, each
//! on a disk of its own. One transacts, and the other's watched query changes.
//!
//! ```sh
//! cargo run --release --example live_cities [-- --cities FILE.csv[.gz]]
//! ```

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::Parser;
use datahike::kabel::{Client, Databases, HandlerOptions, Remote, handlers};
use datahike::{Config, Connection, Value, create_database, edn};
use datahike_examples::cities;
use datahike_peer::{Anyone, Peer, TokioRuntime};
use datahike_scope::Scope;
use datahike_sync::SyncLayer;
use tokio::net::TcpListener;

/// Two peers, one database
#[derive(Parser)]
struct Options {
    /// Places to import: CSV, gzipped or not
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/data/cities.csv.gz"))]
    cities: PathBuf,
}

/// Capitals of more than two million.
const WATCHED: &str = r#"
    [:find ?name ?population
     :where [?city :city/feature_code "PPLC"] [?city :city/population ?population]
            [(> ?population 2000000)] [?city :city/name ?name]]"#;

const CHANGE: &str =
    r#"[{:city/name "Atlantis" :city/feature_code "PPLC" :city/population 2500000}]"#;

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Result<()> {
    let options = Options::parse();
    let folder = tempfile::tempdir()?;

    println!("Importing {} (source: GeoNames, CC BY 4.0)", options.cities.display());
    let start = Instant::now();
    let config = create_database(&Config::file(folder.path().join("server"))).await?;
    cities::import(&config, &options.cities).await?;
    let (server, databases, url) = serve(folder.path().to_owned()).await?;
    let served = databases.mount(Some("cities"), &config).await?;
    println!("  {} places in {:.1?}, served at {url}/cities", places(&served)?, start.elapsed());

    let first = mirror("first", &url, &served, folder.path()).await?;
    let second = mirror("second", &url, &served, folder.path()).await?;

    let mut watch = second.connection.watch(WATCHED, &[]).await?;
    println!("The second client watches the capitals above two million: {}", watch.rows().len());
    let (sent, received) = (first.traffic()?, second.traffic()?);
    println!("The first client transacts {CHANGE}");
    let start = Instant::now();
    let transact = async {
        let report = first.connection.transact(edn::read(CHANGE)?).await?;
        anyhow::Ok((report, start.elapsed()))
    };
    let change = async {
        let change = tokio::time::timeout(PATIENCE, watch.next()).await;
        let change = change.context("the change did not arrive")??.context("the watch ended")?;
        anyhow::Ok((change, start.elapsed()))
    };
    let ((report, durable), (change, visible)) = tokio::try_join!(transact, change)?;
    for row in &change.added {
        println!("The second client sees {row} come, {visible:.2?} after the call");
    }
    println!("  durable at the server and in the first client's own mirror after {durable:.2?}");
    let (sent, received) = (first.traffic()? - sent, second.traffic()? - received);
    println!("  {} datoms took {received} bytes to the second client", report.tx_data.len());
    println!(
        "  and {sent} bytes between the first client and the server, request and answer included"
    );

    first.stop().await?;
    second.stop().await?;
    databases.shutdown().await?;
    server.shutdown(PATIENCE).await;
    println!("All peers have stopped");
    Ok(())
}

/// A server peer on a free port of this machine, which is why it asks nobody for a token.
async fn serve(folder: PathBuf) -> Result<(Peer, Databases, String)> {
    let (sync, scope) = (SyncLayer::new(), Scope::new());
    let peer = Peer::builder(None, Arc::new(TokioRuntime::current()))
        .authenticate(Anyone)
        .layer(sync.clone())
        .layer(scope.clone())
        .build();
    let place =
        HandlerOptions::new(move |id, _| Ok(Config::file(folder.join(id.to_string())).store));
    let databases = handlers::register_global_handlers(&scope, &sync, place);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("ws://{}", listener.local_addr()?);
    let serving = peer.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    Ok((peer, databases, url))
}

/// A client peer and its mirror.
struct Mirror {
    client: Client,
    remote: Remote,
    connection: Connection,
}

async fn mirror(name: &str, url: &str, served: &Connection, folder: &Path) -> Result<Mirror> {
    let start = Instant::now();
    let client = Client::new(None, Arc::new(TokioRuntime::current()));
    let remote = client.connect(url, None);
    let store = folder.join(name);
    let connection = remote.mirror(&Config::file(&store).id(served.store_id())).await?;
    let mirror = Mirror { client, remote, connection };
    println!(
        "The {name} client mirrors {} places in {:.1?}: {} bytes over the wire, {} on its disk",
        places(&mirror.connection)?,
        start.elapsed(),
        mirror.traffic()?,
        size_of(&store)?,
    );
    Ok(mirror)
}

impl Mirror {
    /// Bytes over its WebSocket so far, both ways, framing and all.
    fn traffic(&self) -> Result<u64> {
        let connection = self.remote.link().connection().context("the connection is down")?;
        Ok(connection.traffic().sent() + connection.traffic().received())
    }

    async fn stop(self) -> Result<()> {
        self.connection.release().await?;
        self.client.peer().shutdown(PATIENCE).await;
        Ok(())
    }
}

fn places(connection: &Connection) -> Result<Value> {
    Ok(connection.q("[:find (count ?city) . :where [?city :city/geoname_id]]", &[])?.into_value())
}

/// Bytes that the files of a folder take on disk.
fn size_of(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += match entry.file_type()?.is_dir() {
            true => size_of(&entry.path())?,
            false => entry.metadata()?.blocks() * 512,
        };
    }
    Ok(bytes)
}
