//! `datahike serve`: the server peer.

mod host;

use std::future::Future;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use datahike::Uuid;
use datahike::kabel::{HandlerOptions, handlers};
use datahike::ops::{self, Bounds};
use datahike::peer::{Anyone, Peer, PeerBuilder, Principal, SharedToken, Token, TokioRuntime};
use datahike::scope::Scope;
use datahike::sync::SyncLayer;
use futures::FutureExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

pub(crate) use self::host::Folder;
use crate::cli::Serve;
use crate::failure::Failure;
use crate::http;
use crate::output;
use crate::session::{PREFIX, refusal};

/// The file in the data folder that keeps the peer's id.
const PEER_ID: &str = "peer-id";

/// How often the data folder is looked at for databases that others made.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long connections have to go when the server ends.
const GOODBYE: Duration = Duration::from_secs(2);

/// How long stores have to be closed when the server ends.
const CLOSING: Duration = Duration::from_secs(2);

pub(crate) async fn run(args: Serve) -> Result<(), Failure> {
    let rule = rule(&args)?;
    std::fs::create_dir_all(&args.data).map_err(|e| Failure::from(e).at(args.data.display()))?;
    let id = peer_id(&args.data, args.peer_id)?;
    let stopped = stopped()?;
    let listener = TcpListener::bind(args.listen).await.map_err(|error| {
        Failure::from(error)
            .at(format!("cannot listen on {}", args.listen))
            .hint("is another server running? choose another port with --listen")
    })?;

    let address = listener.local_addr()?;

    let (sync, scope) = (SyncLayer::new(), Scope::new());
    let builder = Peer::builder(id, Arc::new(TokioRuntime::current()));
    let peer = rule(builder).layer(sync.clone()).layer(scope.clone()).build();
    let place = host::place_in(args.data.clone());
    let databases = handlers::register_global_handlers(&scope, &sync, HandlerOptions::new(place));
    let folder = Arc::new(Folder::new(args.data.clone(), databases.clone()));
    register(&scope, &folder);
    folder.open_new().await;
    let looking = tokio::spawn({
        let folder = folder.clone();
        async move {
            loop {
                tokio::time::sleep(LOOK_EVERY).await;
                folder.open_new().await;
            }
        }
    });
    let router = http::router(folder, peer.clone(), http_options(&args));
    output::line(format!(
        "listening on ws://{address} and http://{address}, data in {}",
        args.data.display()
    ))?;

    let asking = http::serve(listener, peer.clone(), router, stopped).await;
    looking.abort();
    tracing::info!("ending");
    let closing = async {
        tokio::join!(peer.shutdown(GOODBYE), asking.answered(GOODBYE));
        tokio::time::timeout(CLOSING, databases.shutdown()).await
    };
    match closing.await {
        Ok(closed) => closed?,
        Err(_) => tracing::warn!("stores took too long to close; nothing acknowledged is lost"),
    }
    Ok(())
}

/// Who may connect, decided before anything is opened.
fn rule(args: &Serve) -> Result<impl FnOnce(PeerBuilder) -> PeerBuilder + use<>, Failure> {
    let token = match (&args.token, args.dev) {
        (Some(token), _) if token.is_empty() => {
            return Err(Failure::usage("the token is empty"));
        }
        (Some(token), _) => Some(Token::new(token)),
        (None, true) if !args.listen.ip().is_loopback() => {
            let text =
                format!("--dev lets everybody in, and {} is no loopback address", args.listen);
            return Err(Failure::usage(text).hint("give --token, or set DATAHIKE_TOKEN"));
        }
        (None, true) => None,
        (None, false) => {
            return Err(Failure::usage(
                "who may connect? give --token, or --dev to let everybody in",
            )
            .hint("the token is also read from DATAHIKE_TOKEN"));
        }
    };
    Ok(|builder: PeerBuilder| match token {
        Some(token) => builder.authenticate(SharedToken::new(&token, Principal::named("token"))),
        None => builder.authenticate(Anyone),
    })
}

fn http_options(args: &Serve) -> http::Options {
    http::Options {
        gate: args.token.as_deref().map_or_else(http::Gate::open, http::Gate::token),
        origins: args.allow_origin.clone(),
        max_age: args.max_age.map(Duration::from_secs),
    }
}

/// The id that was given, or the one that is kept in the data folder.
fn peer_id(data: &Path, given: Option<Uuid>) -> Result<Uuid, Failure> {
    let path = data.join(PEER_ID);
    let failed = |error| Failure::from(error).at(path.display());
    let kept = match std::fs::read_to_string(&path) {
        Ok(text) => Some(Uuid::parse_str(text.trim()).map_err(|error| {
            Failure::new(error.to_string())
                .at(path.display())
                .hint("give --peer-id, or remove the file")
        })),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(failed(error)),
    };
    match (given, kept) {
        (None, Some(kept)) => kept,
        (Some(given), Some(Ok(kept))) if given == kept => Ok(given),
        (given, _) => {
            let id = given.unwrap_or_else(Uuid::new_v4);
            std::fs::write(&path, format!("{id}\n")).map_err(failed)?;
            Ok(id)
        }
    }
}

/// Ready when the process is asked to end.
pub(crate) fn stopped() -> Result<impl Future<Output = ()>, Failure> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Lets clients invoke the operations.
fn register(scope: &Scope, folder: &Arc<Folder>) {
    for operation in ops::OPERATIONS {
        let folder = folder.clone();
        scope.register_value(format!("{PREFIX}{}", operation.name), move |_, arguments| {
            let folder = folder.clone();
            // What only waits, or must keep the order in which it came, runs right here; what may
            // compute for seconds goes to a thread of its own.
            let here = !operation.pure || operation.name == "await";
            let mut work =
                Box::pin(async move { operation.call(&*folder, &arguments, Bounds::SERVED).await });
            let begun = if here { (&mut work).now_or_never() } else { None };
            async move {
                let done = match begun {
                    Some(done) => done,
                    None if here => work.await,
                    None => {
                        let runtime = tokio::runtime::Handle::current();
                        let done = tokio::task::spawn_blocking(move || runtime.block_on(work));
                        done.await.map_err(|error| {
                            datahike::peer::Refusal::new("scope/failed", error.to_string())
                        })?
                    }
                };
                done.map_err(|error| refusal(&error))
            }
        });
    }
}
