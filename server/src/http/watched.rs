//! What an operator sees of the server: whether it lives, whether it is ready, its counts, and an
//! id for every request.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use axum::middleware::Next;
use axum::response::IntoResponse;
use datahike::Uuid;
use tracing::Instrument;

use super::{Service, uncached};

/// Names a request, in the question and in the answer.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Bytes of an id that a caller chooses.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Requests that were answered, and those that are not yet.
#[derive(Debug, Default)]
pub(super) struct Counts {
    /// By the first digit of the status, from 1.
    answered: [AtomicU64; 5],
    micros: AtomicU64,
    running: AtomicU64,
}

/// Counts a request as running, also if its caller goes away.
struct Running<'a>(&'a Counts);

impl<'a> Running<'a> {
    fn begin(counts: &'a Counts) -> Self {
        counts.running.fetch_add(1, Ordering::Relaxed);
        Self(counts)
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Gives every request an id, logs and counts it.
pub(super) async fn watch(
    State(service): State<Arc<Service>>,
    request: Request,
    next: Next,
) -> Response<Body> {
    let began = Instant::now();
    let _running = Running::begin(&service.counts);
    let id = request_id(request.headers());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default());
    let mut answer = next.run(request).instrument(span.clone()).await;
    let (status, took) = (answer.status().as_u16(), began.elapsed());
    span.in_scope(|| tracing::info!(%method, path, status, ?took, "answered"));
    let class = usize::from(status / 100).saturating_sub(1);
    if let Some(count) = service.counts.answered.get(class) {
        count.fetch_add(1, Ordering::Relaxed);
    }
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    service.counts.micros.fetch_add(micros, Ordering::Relaxed);
    answer.headers_mut().insert(REQUEST_ID, id);
    answer
}

/// The caller's id if it is short and plain, a new one otherwise.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    let plain = |id: &&HeaderValue| {
        let id = id.as_bytes();
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
    };
    let given = headers.get(REQUEST_ID).filter(plain).cloned();
    given.unwrap_or_else(|| {
        HeaderValue::from_str(&Uuid::new_v4().to_string())
            .unwrap_or_else(|_| HeaderValue::from_static("-"))
    })
}

/// `/healthz`: the process answers.
pub(super) async fn healthz() -> Response<Body> {
    uncached("ok\n".into_response())
}

/// `/readyz`: the data folder could be read when it was last looked at.
pub(super) async fn readyz(State(service): State<Arc<Service>>) -> Response<Body> {
    let answer = match service.handles.folder.is_readable() {
        true => "ready\n".into_response(),
        false => {
            (StatusCode::SERVICE_UNAVAILABLE, "the data folder cannot be read\n").into_response()
        }
    };
    uncached(answer)
}

impl Service {
    /// The counts, in the text format of Prometheus.
    pub(super) fn metrics(&self) -> Response<Body> {
        let content = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
        uncached((content, self.exposition()).into_response())
    }

    fn exposition(&self) -> String {
        let counts = &self.counts;
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, f64)]| {
            // Writing to a string does not fail.
            let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (suffix, value) in samples {
                let _ = writeln!(text, "{name}{suffix} {value}");
            }
        };
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let answered: Vec<_> = counts
            .answered
            .iter()
            .zip(1..)
            .map(|(count, class)| (format!("{{status=\"{class}xx\"}}"), of(count) as f64))
            .collect();
        let requests: u64 = counts.answered.iter().map(of).sum();
        let seconds = of(&counts.micros) as f64 / 1e6;
        let one = |value: usize| vec![(String::new(), value as f64)];
        family(
            "datahike_http_requests_total",
            "counter",
            "Requests that were answered, by the class of their status.",
            &answered,
        );
        family(
            "datahike_http_request_duration_seconds",
            "summary",
            "Time until the head of the answer.",
            &[("_sum".to_owned(), seconds), ("_count".to_owned(), requests as f64)],
        );
        family(
            "datahike_http_requests_running",
            "gauge",
            "Requests without an answer yet.",
            &[(String::new(), of(&counts.running) as f64)],
        );
        family(
            "datahike_peer_connections",
            "gauge",
            "WebSocket connections.",
            &one(self.peer.connection_count()),
        );
        family(
            "datahike_databases_open",
            "gauge",
            "Databases that are served.",
            &one(self.handles.folder.open_count()),
        );
        text
    }
}
