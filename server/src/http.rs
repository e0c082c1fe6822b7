//! The HTTP side of the server: every operation for every language, on the port of the WebSocket.

mod api;
mod failure;
mod format;
mod gate;
mod handle;
mod openapi;
mod ports;
mod watched;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use datahike::Value;
use datahike::peer::Peer;
use serde::Deserialize;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::compression::CompressionLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, CorsLayer};
use tower_http::limit::RequestBodyLimitLayer;
use tower_http::timeout::TimeoutLayer;

use self::api::{Arguments, Route};
use self::failure::{Problem, wrong};
use self::format::Format;
pub(crate) use self::gate::Gate;
use self::handle::Handles;
pub(crate) use self::ports::serve;
use self::watched::Counts;
use crate::serve::Folder;

/// Bytes of one request.
const BODY_BYTES_MAX: usize = 16 << 20;

/// How long one request may take, with its body and its answer.
const REQUEST: Duration = Duration::from_secs(60);

/// How HTTP is served.
#[derive(Debug)]
pub(crate) struct Options {
    /// Who may call.
    pub(crate) gate: Gate,
    /// Origins whose pages may call from a browser: regular expressions of the whole origin.
    pub(crate) origins: Vec<regex::Regex>,
    /// For how long answers of pure operations may be kept, if for any time.
    pub(crate) max_age: Option<Duration>,
}

struct Service {
    handles: Handles,
    gate: Gate,
    max_age: Option<Duration>,
    peer: Peer,
    counts: Counts,
}

/// Everything that is answered over HTTP.
pub(crate) fn router(folder: Arc<Folder>, peer: Peer, options: Options) -> Router {
    let Options { gate, origins, max_age } = options;
    let (handles, counts) = (Handles::new(folder), Counts::default());
    let service = Arc::new(Service { handles, gate, max_age, peer, counts });
    let known = move |origin: &HeaderValue, _: &Parts| {
        origin.to_str().is_ok_and(|origin| {
            origins.iter().any(|known| known.find(origin).is_some_and(|m| m.len() == origin.len()))
        })
    };
    let cors = CorsLayer::new()
        .allow_origin(AllowOrigin::predicate(known))
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers([header::ETAG, watched::REQUEST_ID]);
    Router::new()
        .route("/openapi.json", get(|| async { document(&openapi::openapi()) }))
        .route("/swagger.json", get(|| async { document(&openapi::swagger()) }))
        .route("/healthz", get(watched::healthz))
        .route("/readyz", get(watched::readyz))
        .route("/{operation}", get(call).post(call))
        .fallback(|| async { told(&not_found("there is nothing at this address"), Format::Json) })
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(BODY_BYTES_MAX))
        .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, REQUEST))
        .layer(CompressionLayer::new())
        .layer(cors)
        .layer(CatchPanicLayer::new())
        .layer(from_fn_with_state(Arc::clone(&service), watched::watch))
        .with_state(service)
}

/// What an address may say: a body for those who cannot send one with GET.
#[derive(Debug, Default, Deserialize)]
struct InAddress {
    /// The arguments, base64url without padding.
    args: Option<String>,
    /// The short name of their format; JSON unless told.
    f: Option<String>,
}

async fn call(
    State(service): State<Arc<Service>>,
    Path(operation): Path<String>,
    method: Method,
    Query(address): Query<InAddress>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    let accept = text(header::ACCEPT);
    // An answer needs a format before anything else can go wrong.
    let format = Format::of_body(text(header::CONTENT_TYPE))
        .and_then(|body| Format::of_answer(accept, body));
    let shown = *format.as_ref().unwrap_or(&Format::Json);
    let asked = async {
        let answered_as = format?;
        service.gate.admit(&headers)?;
        let route = api::route(&operation)
            .ok_or_else(|| not_found(format!("there is no operation {operation}")))?;
        if method == Method::GET && !route.pure {
            let message = format!("{operation} may change something: call it with POST");
            return Err(Problem::new(StatusCode::METHOD_NOT_ALLOWED, "http/method", message));
        }
        // Without a database the operation could only fail: this is whoever collects figures.
        if method == Method::GET
            && operation == "metrics"
            && address.args.is_none()
            && body.is_empty()
        {
            return Ok(service.metrics());
        }
        let (given_as, body) = match &address.args {
            Some(args) => {
                let name = address.f.as_deref().unwrap_or("json");
                let format =
                    Format::named(name).ok_or_else(|| wrong(format!("{name} is no format")))?;
                let bytes = URL_SAFE_NO_PAD
                    .decode(args.trim_end_matches('='))
                    .map_err(|error| wrong(format!("args is not base64url: {error}")))?;
                (format, Bytes::from(bytes))
            }
            None => (Format::of_body(text(header::CONTENT_TYPE))?, body),
        };
        let tag = etag(route, answered_as, &body);
        let arguments = match body.is_empty() {
            true => Value::Nil,
            false => given_as.read(&body)?,
        };
        let pinned = route.pure && is_pinned(&arguments);
        if pinned && text(header::IF_NONE_MATCH).is_some_and(|known| names(known, &tag)) {
            return Ok(service.keeping(StatusCode::NOT_MODIFIED.into_response(), &tag));
        }
        let loose = given_as.is_loose();
        let arguments = Arguments::of(arguments, loose, loose && takes_edn(route))?;
        let value = service.run(route, arguments).await?;
        let empty = headers.contains_key("no-return-value");
        let body = if empty { Vec::new() } else { answered_as.write(&value) };
        let content = [(header::CONTENT_TYPE, answered_as.content_type())];
        let answer = (content, body).into_response();
        Ok(if pinned { service.keeping(answer, &tag) } else { uncached(answer) })
    };
    asked.await.unwrap_or_else(|problem| {
        tracing::debug!(operation, status = problem.status.as_u16(), ?problem, "refused");
        told(&problem, shown)
    })
}

impl Service {
    /// Carries an operation out: on a thread of its own if it may compute for long.
    async fn run(
        self: &Arc<Self>,
        route: &'static Route,
        arguments: Arguments,
    ) -> Result<Value, Problem> {
        if !route.pure {
            return route.call(&self.handles, arguments).await;
        }
        let (service, runtime) = (Arc::clone(self), tokio::runtime::Handle::current());
        let work = move || runtime.block_on(route.call(&service.handles, arguments));
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
            let message = error.to_string();
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "http/failed", message))
        })
    }

    /// An answer that is the same for ever, and may be kept as configured.
    fn keeping(&self, mut answer: Response<Body>, tag: &str) -> Response<Body> {
        let whose = if self.gate.is_open() { "public" } else { "private" };
        let control = match self.max_age {
            Some(age) => format!("{whose}, max-age={}, immutable", age.as_secs()),
            None => format!("{whose}, no-cache"),
        };
        let headers = answer.headers_mut();
        for (name, value) in [(header::ETAG, tag), (header::CACHE_CONTROL, &*control)] {
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        headers.insert(header::VARY, HeaderValue::from_static("accept, authorization, token"));
        answer
    }
}

fn uncached(mut answer: Response<Body>) -> Response<Body> {
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Whether the first argument is EDN where it is a string: a query or a configuration. A string in
/// place of a database is its name.
fn takes_edn(route: &Route) -> bool {
    route.arguments.first().is_some_and(|first| matches!(first.name, "config" | "query"))
}

/// Whether every database in the arguments is a certain commit.
fn is_pinned(arguments: &Value) -> bool {
    let Some(items) = arguments.as_slice() else { return false };
    let handles = items.iter().filter(|item| matches!(item, Value::Tagged(_)));
    let mut any = false;
    for handle in handles {
        any = true;
        let text = handle.to_string();
        if !text.contains(":commit-id") {
            return false;
        }
    }
    any
}

fn etag(route: &Route, format: Format, body: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    for part in [route.name.as_bytes(), format.content_type().as_bytes(), body] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    format!("\"{}\"", URL_SAFE_NO_PAD.encode(&hasher.finalize().as_bytes()[..18]))
}

/// Whether an `If-None-Match` names this tag.
fn names(header: &str, tag: &str) -> bool {
    header
        .split(',')
        .map(|known| known.trim().trim_start_matches("W/"))
        .any(|k| k == tag || k == "*")
}

fn not_found(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "http/not-found", message)
        .hint("the operations are listed at /openapi.json")
}

fn told(problem: &Problem, format: Format) -> Response<Body> {
    let body = format.write(&problem.to_value());
    let content = [(header::CONTENT_TYPE, format.content_type())];
    let mut answer = (problem.status, content, body).into_response();
    if problem.status == StatusCode::UNAUTHORIZED {
        let scheme = HeaderValue::from_static("token");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, scheme);
    }
    uncached(answer)
}

fn document(json: &serde_json::Value) -> Response<Body> {
    ([(header::CONTENT_TYPE, "application/json")], json.to_string()).into_response()
}
