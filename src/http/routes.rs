//! The routes: what is asked of the backend, and how its answer is dressed.
//!
//! In: requests. Out: answers with a Content-Type, security headers, and JSON errors. Owns: the list of
//! routes, which the index page shows, and how many requests may render or wait at once.
//! Invariant: a route is either in [`ROUTES`] or 404.

use super::backend::{Backend, HealthStatus, IndexData, LineOutcome, RecentKind};
use super::{Token, accept, ingest, metrics, page};
use crate::actor::blocking;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;

/// Of one `POST /api/v1/lines`: some 13,000 lines.
pub const LINES_BYTES_MAX: usize = 1024 * 1024;
/// For the body of a request.
const BODY_PATIENCE: Duration = Duration::from_secs(10);
/// Answers being rendered at once; more wait their turn, since each may hold a core.
const RENDERS_MAX: usize = 8;
/// Requests that wait for a commit at once, more wait their turn; each holds a thread of the runtime's blocking pool.
const WAITS_MAX: usize = 64;
/// For one answer, unless the scraper says less.
pub(super) const ANSWER_PATIENCE: Duration = Duration::from_secs(60);
/// Items of `/api/v1/recent`: by default, and at most.
const RECENT_LIMIT: (usize, usize) = (100, 1000);

/// Every route with what it answers, as the index page lists them.
pub(super) const ROUTES: &[(&str, &str, &str)] = &[
    ("GET", "/metrics", "current values: text 0.0.4, OpenMetrics 1.0, protobuf or JSON, by Accept; ?name[]= filters"),
    ("GET", "/metrics/{group}", "the families of one group"),
    ("GET", "/metrics.json", "current values as JSON, names at the top level"),
    ("GET", "/api/metrics", "current values; ?format=prometheus|json|csv|influx, else by Accept"),
    ("GET", "/api/metrics/dashboard", "?widget=NAME [&timeframe=HOURS]: the data of a widget of the pipeline file"),
    ("GET", "/health", "the state of every part; 503 only when samples cannot be taken or committed"),
    ("GET", "/healthz", "the process lives (also /-/healthy)"),
    ("GET", "/readyz", "sources are bound and the store is open (also /-/ready)"),
    ("GET", "/api/v1/recent", "?kind=rejects|events|checks [&name=] [&limit=], newest first"),
    ("POST", "/api/v1/lines", "DogStatsD lines and JSON events, one a line; answers what each became"),
    ("POST", "/api/v1/events", "typed events: a JSON object, an array, NDJSON or CloudEvents; ?sync=true waits"),
    ("POST", "/-/reload", "reads the pipeline file again; 400 with what is wrong, and the old pipeline runs on"),
    ("GET", "/", "this page (also /monitoring); JSON by Accept"),
];

/// What every handler shares.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) renders: Arc<Semaphore>,
    pub(super) waits: Arc<Semaphore>,
    /// KiB of bodies of events.
    pub(super) bodies: Arc<Semaphore>,
}

/// The routes over a backend, guarded by a token if there is one.
pub(super) fn router(backend: Arc<dyn Backend>, token: Option<Token>) -> Router {
    let desk = Desk {
        backend,
        renders: Arc::new(Semaphore::new(RENDERS_MAX)),
        waits: Arc::new(Semaphore::new(WAITS_MAX)),
        bodies: Arc::new(Semaphore::new(ingest::BODIES_KIB_MAX)),
    };
    Router::new()
        .route("/metrics", get(metrics::scrape_all))
        .route("/metrics/{group}", get(metrics::scrape_group))
        .route("/metrics.json", get(metrics::scrape_json))
        .route("/api/metrics", get(metrics::api))
        .route("/api/metrics/dashboard", get(metrics::dashboard))
        .route("/health", get(health))
        .route("/healthz", get(alive))
        .route("/-/healthy", get(alive))
        .route("/readyz", get(ready))
        .route("/-/ready", get(ready))
        .route("/api/v1/recent", get(recent))
        .route("/api/v1/lines", post(lines))
        .route("/api/v1/events", post(ingest::events))
        .route("/-/reload", post(reload))
        .route("/", get(index))
        .route("/monitoring", get(index))
        .route(page::STYLE_PATH, get(style))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .with_state(desk)
        .layer(middleware::from_fn_with_state(token.map(Arc::new), guard))
        .layer(middleware::map_response(dress))
}

/// Refuses requests without the token, for every path but liveness and readiness.
async fn guard(State(token): State<Option<Arc<Token>>>, request: Request, next: Next) -> Response {
    let is_open = matches!(request.uri().path(), "/healthz" | "/readyz" | "/-/healthy" | "/-/ready");
    let given = request.headers().get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    match token {
        Some(token) if !is_open && !token.admits(given) => {
            let answer = error(StatusCode::UNAUTHORIZED, "a bearer token is needed");
            ([(header::WWW_AUTHENTICATE, "Bearer")], answer).into_response()
        }
        _ => next.run(request).await,
    }
}

/// Headers that every answer has: pages run no script, load nothing from elsewhere and stand in no frame.
async fn dress(mut answer: Response) -> Response {
    let dress = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in dress {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

async fn health(State(desk): State<Desk>) -> Response {
    let backend = desk.backend;
    match off_thread(&desk.renders, ANSWER_PATIENCE, move || backend.health()).await {
        Ok(health) => {
            let is_down = health.status == HealthStatus::Down;
            json_answer(if is_down { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK }, &health)
        }
        Err(answer) => answer,
    }
}

async fn alive() -> Response {
    ([(header::CONTENT_TYPE, TEXT)], "ok\n").into_response()
}

async fn ready(State(desk): State<Desk>) -> Response {
    let (status, text) = if desk.backend.is_ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready\n")
    };
    (status, [(header::CONTENT_TYPE, TEXT)], text).into_response()
}

/// A query string, in order, repeated keys kept.
pub(super) type Pairs = Vec<(String, String)>;

async fn recent(State(desk): State<Desk>, Query(query): Query<Pairs>) -> Response {
    let last = |wanted: &str| query.iter().rev().find(|(key, _)| key == wanted).map(|(_, value)| value.as_str());
    let asked = last("kind").unwrap_or(RecentKind::Rejects.as_str());
    let Some(kind) = RecentKind::ALL.into_iter().find(|kind| kind.as_str() == asked) else {
        let kinds = RecentKind::ALL.map(RecentKind::as_str);
        return json_answer(StatusCode::BAD_REQUEST, &json!({"error": "unknown kind", "kinds": kinds}));
    };
    let limit = match last("limit").map(str::parse::<usize>) {
        None => RECENT_LIMIT.0,
        Some(Ok(limit)) => limit.min(RECENT_LIMIT.1),
        Some(Err(_)) => return error(StatusCode::BAD_REQUEST, "limit is a whole number"),
    };
    let name = last("name").map(str::to_owned);
    let backend = desk.backend;
    match off_thread(&desk.renders, ANSWER_PATIENCE, move || backend.recent(kind, name.as_deref(), limit)).await {
        Ok(items) => json_answer(StatusCode::OK, &items),
        Err(answer) => answer,
    }
}

async fn lines(State(desk): State<Desk>, Query(query): Query<Pairs>, request: Request) -> Response {
    // A page from elsewhere can make a browser post plain text here without asking; browsers say so.
    if is_cross_site(request.headers()) {
        return error(StatusCode::FORBIDDEN, "lines are not taken from another site's pages");
    }
    if request.headers().get(header::CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
        return error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "lines are taken as plain text, not compressed");
    }
    let body = match body_within(request, LINES_BYTES_MAX, BODY_PATIENCE).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let waits = !query.iter().any(|(key, value)| key == "wait" && matches!(value.as_str(), "false" | "0"));
    let backend = desk.backend;
    match off_thread(&desk.waits, ANSWER_PATIENCE, move || backend.lines(body.into(), waits)).await {
        Ok(Ok(outcomes)) => ([(header::CONTENT_TYPE, NDJSON)], ndjson(&outcomes)).into_response(),
        Ok(Err(unavailable)) => come_again(&unavailable.to_string()),
        Err(answer) => answer,
    }
}

async fn reload(State(desk): State<Desk>, headers: HeaderMap) -> Response {
    if is_cross_site(&headers) {
        return error(StatusCode::FORBIDDEN, "a reload is not asked for by another site's pages");
    }
    let backend = desk.backend;
    match off_thread(&desk.waits, ANSWER_PATIENCE, move || backend.reload()).await {
        Ok(Ok(report)) => json_answer(StatusCode::OK, &report),
        Ok(Err(diagnostics)) => error(StatusCode::BAD_REQUEST, diagnostics.trim_end()),
        Err(answer) => answer,
    }
}

/// True when a browser says that another site's page sends this.
pub(super) fn is_cross_site(headers: &HeaderMap) -> bool {
    if let Some(site) = headers.get("sec-fetch-site") {
        return site != "same-origin" && site != "none";
    }
    let host = headers.get(header::HOST).and_then(|value| value.to_str().ok()).unwrap_or("");
    let origin = headers.get(header::ORIGIN).map(|value| value.to_str().unwrap_or("null"));
    origin.is_some_and(|origin| origin.split_once("://").map(|(_, authority)| authority) != Some(host))
}

/// The whole body, within limits of size and time.
pub(super) async fn body_within(request: Request, bytes_max: usize, patience: Duration) -> Result<Bytes, Response> {
    let body = axum::body::to_bytes(request.into_body(), bytes_max);
    match tokio::time::timeout(patience, body).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(problem)) => {
            let is_too_long = std::error::Error::source(&problem)
                .is_some_and(|source| source.is::<http_body_util::LengthLimitError>());
            Err(if is_too_long {
                error(StatusCode::PAYLOAD_TOO_LARGE, &format!("at most {bytes_max} bytes a request"))
            } else {
                error(StatusCode::BAD_REQUEST, "the body ended early")
            })
        }
        Err(_) => Err(error(StatusCode::REQUEST_TIMEOUT, "the body came too slowly")),
    }
}

/// One JSON object a line.
fn ndjson(outcomes: &[LineOutcome]) -> Vec<u8> {
    let mut body = Vec::with_capacity(outcomes.len().saturating_mul(128));
    for outcome in outcomes {
        serde_json::to_writer(&mut body, outcome).expect("strings and numbers always serialize into memory");
        body.push(b'\n');
    }
    body
}

async fn index(State(desk): State<Desk>, headers: HeaderMap) -> Response {
    let as_json = accept::prefers_json(text_of(&headers, header::ACCEPT).as_deref());
    let backend = desk.backend;
    let render = move || {
        let data = backend.index();
        if as_json { index_json(&data) } else { page::render(&data, ROUTES) }
    };
    let content_type = if as_json { JSON } else { "text/html; charset=utf-8" };
    match off_thread(&desk.renders, ANSWER_PATIENCE, render).await {
        Ok(body) => {
            let headers =
                [(header::CONTENT_TYPE, content_type), (header::VARY, "Accept"), (header::CACHE_CONTROL, "no-store")];
            (headers, body).into_response()
        }
        Err(answer) => answer,
    }
}

fn index_json(data: &IndexData) -> String {
    let mut value = serde_json::to_value(data).expect("strings and numbers always serialize");
    let routes: Vec<_> =
        ROUTES.iter().map(|(method, path, what)| json!({"method": method, "path": path, "answers": what})).collect();
    value["routes"] = routes.into();
    value["laws"]["hold"] = data.laws.hold().into();
    value.to_string()
}

async fn style() -> Response {
    let headers = [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, "max-age=300")];
    (headers, page::STYLE).into_response()
}

pub(super) async fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "no such route; GET / lists them")
}

async fn not_allowed(method: Method) -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, &format!("{method} is not for this route; GET / lists them"))
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// Runs work on a blocking thread, within a number of places and a time.
pub(super) async fn off_thread<T: Send + 'static>(
    places: &Arc<Semaphore>,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Response> {
    let queued_and_done = async {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        // The place goes with the work: work that nobody waits for any more still holds it.
        blocking(move || {
            let result = work();
            drop(place);
            result
        })
        .await
    };
    match tokio::time::timeout(patience, queued_and_done).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(_)) => Err(error(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made; see the log")),
        Err(_) => Err(come_again("the answer took too long")),
    }
}

pub(super) fn come_again(reason: &str) -> Response {
    ([(header::RETRY_AFTER, "1")], error(StatusCode::SERVICE_UNAVAILABLE, reason)).into_response()
}

pub(super) fn error(status: StatusCode, reason: &str) -> Response {
    json_answer(status, &json!({"error": reason}))
}

pub(super) fn json_answer(status: StatusCode, value: &impl serde::Serialize) -> Response {
    let body = serde_json::to_vec(value).expect("strings and numbers always serialize");
    (status, [(header::CONTENT_TYPE, JSON)], body).into_response()
}

/// All values of a header, joined as RFC 9110 §5.3 says; `None` when there is none.
pub(super) fn text_of(headers: &HeaderMap, name: HeaderName) -> Option<String> {
    let values: Vec<&str> = headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).collect();
    if values.is_empty() { None } else { Some(values.join(",")) }
}
