//! Databases that a server peer owns and writes.
//!
//! The server: a [`Peer`](datahike_peer::Peer) with the layers of synchronisation and remote
//! invocation, and the global handlers, which create, delete and write databases.
//!
//! ```no_run
//! use datahike::kabel::{HandlerOptions, handlers};
//! use datahike::{Config, Uuid};
//! use datahike_peer::{Anyone, Peer, TokioRuntime};
//! use datahike_scope::Scope;
//! use datahike_sync::SyncLayer;
//! use std::sync::Arc;
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! let (sync, scope) = (SyncLayer::new(), Scope::new());
//! let server = Peer::builder(Uuid::from_u128(1), Arc::new(TokioRuntime::current()))
//!     .authenticate(Anyone)
//!     .layer(sync.clone())
//!     .layer(scope.clone())
//!     .build();
//! // Where the server keeps a database is its own affair, whatever store the client has.
//! let store_config_fn = |id: Uuid, _: &Config| Ok(Config::file(format!("/var/data/{id}")).store);
//! let _handlers =
//!     handlers::register_global_handlers(&scope, &sync, HandlerOptions::new(store_config_fn));
//! server.serve(tokio::net::TcpListener::bind("127.0.0.1:47296").await?).await?;
//! # Ok(())
//! # }
//! ```
//!
//! The client: its connection mirrors the store, queries run locally, and a transaction returns
//! when the mirror shows it.
//!
//! ```no_run
//! use datahike::config::{KabelPeer, WriterConfig};
//! use datahike::{Config, Uuid, connect, create_database, edn};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::file("/home/me/mirror").id(Uuid::new_v4()).writer(WriterConfig::Kabel(
//!     KabelPeer { url: Some("ws://localhost:47296".to_owned()), ..KabelPeer::default() },
//! ));
//! create_database(&config).await?;
//! let conn = connect(&config).await?;
//! conn.transact(edn::read("[{:db/ident :name :db/valueType :db.type/string :db/cardinality :db.cardinality/one}]")?).await?;
//! conn.transact(edn::read(r#"[{:name "Alice"} {:name "Bob"}]"#)?).await?;
//! println!("{:?}", conn.q("[:find ?name :where [?e :name ?name]]", &[])?);
//! # Ok(())
//! # }
//! ```

mod client;
#[cfg(not(target_family = "wasm"))]
pub mod handlers;
mod wire;

pub use client::{Client, Remote};
pub(crate) use client::{RemoteWriter, connect, create, delete, exists};
#[cfg(not(target_family = "wasm"))]
pub use handlers::{Databases, HandlerOptions};
