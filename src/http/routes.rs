//! The routes: what is asked of the backend, and how its answer is dressed.
//!
//! In: requests. Out: answers with a Content-Type, security headers, and JSON errors. Owns: the list of
//! routes, which the index page shows, and how many requests may render or wait at once.
//! Invariant: a route is either in [`ROUTES`] or 404.

use super::backend::{Backend, HealthStatus, IndexData, LineOutcome, RecentKind, Unavailable};
use super::body::{body_within, drain};
use super::connection::{Counted, Way};
use super::doors::Gate;
use super::{Refusal, accept, export, ingest, metrics, page, prometheus, reset, tap, upkeep};
use crate::actor::blocking;
use axum::Router;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Of one `POST /api/v1/lines`: some 13,000 lines.
pub const LINES_BYTES_MAX: usize = 1024 * 1024;
/// And so many of them: what each became takes a hundred times the shortest.
pub const LINES_MAX: usize = 25_000;
/// An outcome in memory and as JSON takes this, beside several copies of the line.
const OUTCOME_BYTES: usize = 768;
/// Bodies that are being read at once; more are told to come again. The other connections are for those that ask.
const READERS_MAX: usize = 128;
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
    (
        "GET",
        "/metrics",
        "current values: text 0.0.4, OpenMetrics 1.0, protobuf or JSON, by Accept; ?name[]= and ?match[]= filter",
    ),
    ("GET", "/metrics/{group}", "the families of one group"),
    ("GET", "/metrics.json", "current values as JSON, names at the top level"),
    ("GET", "/api/metrics", "current values; ?format=prometheus|json|csv|influx|openmetrics|ndjson, else by Accept"),
    ("GET", "/api/metrics/dashboard", "?widget=NAME [&timeframe=HOURS]: the data of a widget of the pipeline file"),
    ("GET", "/health", "the state of every part; 503 only when samples cannot be taken or committed"),
    ("GET", "/healthz", "the process lives (also /-/healthy)"),
    ("GET", "/readyz", "sources are bound and the store is open (also /-/ready)"),
    ("GET", "/api/v1/recent", "?kind=rejects|events|checks [&name=] [&limit=], newest first"),
    (
        "GET",
        "/api/v1/tap",
        "?kind=events|samples|deltas|rejects [&edge=] [&name=] [&match=] [&limit=]: what passes, live",
    ),
    ("GET, POST", "/api/v1/query", "?query=PROMQL [&time=] [&timeout=] [&limit=]: as Prometheus answers, with quality"),
    ("GET, POST", "/api/v1/query_range", "?query=PROMQL&start=&end=&step= [&timeout=] [&limit=]"),
    ("GET, POST", "/api/v1/series", "?match[]=SELECTOR [&start=] [&end=] [&limit=]: series with all labels"),
    ("GET, POST", "/api/v1/labels", "[?match[]=] [&start=] [&end=] [&limit=]: names of labels"),
    ("GET", "/api/v1/label/{name}/values", "[?match[]=] [&start=] [&end=] [&limit=]: values of a label"),
    ("GET", "/api/v1/metadata", "[?metric=] [&limit=]: type, help and unit of each family"),
    ("GET", "/api/v1/status/buildinfo", "the version of Prometheus whose API this is"),
    (
        "GET",
        "/api/v1/export",
        "?start= [&end=] [&match[]=] [&format=prometheus|openmetrics|json|ndjson|csv|influx]: every point",
    ),
    ("GET", "/api/v1/store", "what the store holds: bytes by table and tier, series, oldest span, free space"),
    ("POST", "/api/v1/store/check", "verifies all of the store while it runs"),
    ("POST", "/api/v1/store/backup", "a consistent copy of the store's file"),
    ("POST", "/api/v1/lines", "DogStatsD lines and JSON events, one a line; answers what each became"),
    ("POST", "/api/v1/events", "typed events: a JSON object, an array, NDJSON or CloudEvents; ?sync=true waits"),
    (
        "POST",
        "/api/v1/reset",
        "?match=SELECTOR: those series begin at 0; needs http.admin_token, without one it is off",
    ),
    (
        "POST",
        "/-/reload",
        "reads the pipeline file again [?accept=METRIC]; 400 with what is wrong, and the old pipeline runs on",
    ),
    ("GET", "/", "this page (also /monitoring); JSON by Accept"),
];

/// What every handler shares.
#[derive(Clone)]
pub(super) struct Desk {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) renders: Arc<Semaphore>,
    pub(super) waits: Arc<Semaphore>,
    /// KiB of bodies of lines and events.
    pub(super) bodies: Arc<Semaphore>,
    /// Bodies that are being read.
    pub(super) readers: Arc<Semaphore>,
    /// Questions in PromQL that are worked on.
    pub(super) questions: Arc<Semaphore>,
    /// Those that wait for it.
    pub(super) questions_waiting: Arc<Semaphore>,
    /// Exports that are being written.
    pub(super) exports: Arc<Semaphore>,
    /// KiB of long answers.
    pub(super) answers: Arc<Semaphore>,
    /// Who reads the whole store.
    pub(super) upkeep: Arc<Semaphore>,
    pub(super) gate: Arc<Gate>,
    /// True once the server stops: answers that go on end then.
    pub(super) stopping: watch::Receiver<bool>,
}

/// The routes over a backend, guarded by tokens while there are any. `answers` is the room of long answers, in KiB.
pub(super) fn router(
    backend: Arc<dyn Backend>,
    gate: Arc<Gate>,
    stopping: watch::Receiver<bool>,
    answers: Arc<Semaphore>,
) -> Router {
    let desk = Desk {
        backend,
        renders: Arc::new(Semaphore::new(RENDERS_MAX)),
        waits: Arc::new(Semaphore::new(WAITS_MAX)),
        bodies: Arc::new(Semaphore::new(ingest::BODIES_KIB_MAX)),
        readers: Arc::new(Semaphore::new(READERS_MAX)),
        questions: Arc::new(Semaphore::new(prometheus::WORKED_MAX)),
        questions_waiting: Arc::new(Semaphore::new(prometheus::WAITING_MAX)),
        exports: Arc::new(Semaphore::new(export::EXPORTS_MAX)),
        answers,
        upkeep: Arc::new(Semaphore::new(1)),
        gate: Arc::clone(&gate),
        stopping,
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
        .route("/api/v1/tap", get(tap::tap))
        .route("/api/v1/lines", post(lines))
        .route("/api/v1/events", post(ingest::events))
        .route("/api/v1/reset", post(reset::reset))
        .merge(prometheus::routes())
        .route("/api/v1/export", get(export::export))
        .route("/api/v1/store", get(upkeep::stats))
        .route("/api/v1/store/check", post(upkeep::check))
        .route("/api/v1/store/backup", post(upkeep::backup))
        .route("/-/reload", post(reload))
        .route("/", get(index))
        .route("/monitoring", get(index))
        .route(page::STYLE_PATH, get(style))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .with_state(desk)
        .layer(middleware::from_fn_with_state(gate, guard))
        .layer(middleware::from_fn(drain))
        .layer(middleware::map_response(dress))
}

/// Refuses requests without the token, for every path but liveness and readiness. Without a token, what changes
/// something is refused under a name that is not this machine's: a page from elsewhere whose name was bound to
/// 127.0.0.1 after it was loaded (DNS rebinding) is of the same site to its browser, and only the name tells.
async fn guard(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    let is_open = is_probe(request.uri().path());
    let tokens = gate.tokens();
    if !is_open && !tokens.admit_reader(given(request.headers())) {
        return stranger("a bearer token is needed");
    }
    let changes =
        request.method() == Method::POST && !READS_BY_POST.iter().any(|path| request.uri().path().starts_with(path));
    let is_local = request.extensions().get::<Way>().is_some_and(|way| way.is_loopback);
    if changes && is_local && tokens.admit_reader(None) && !names_this_machine(request.headers()) {
        return error(StatusCode::FORBIDDEN, "asked under a foreign name; use localhost or an address, or set a token");
    }
    next.run(request).await
}

/// What a request says of who sends it.
pub(super) fn given(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes)
}

/// 401.
pub(super) fn stranger(reason: &str) -> Response {
    ([(header::WWW_AUTHENTICATE, "Bearer")], error(StatusCode::UNAUTHORIZED, reason)).into_response()
}

/// Liveness and readiness: open to all, and answered at once.
pub(super) fn is_probe(path: &str) -> bool {
    matches!(path, "/healthz" | "/readyz" | "/-/healthy" | "/-/ready")
}

/// Routes that change nothing, also when they are asked by POST.
const READS_BY_POST: [&str; 4] = ["/api/v1/query", "/api/v1/series", "/api/v1/labels", "/api/v1/label/"];

/// True when the Host header is a loopback name or an address. Every browser sends the header; what does not is none.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else { return true };
    let Ok(host) = host.to_str() else { return false };
    if let Some(bracketed) = host.strip_prefix('[') {
        let address = bracketed.split_once(']').map(|(address, _)| address);
        return address.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    }
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<std::net::Ipv4Addr>().is_ok()
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
    let (Ok(reader), Ok(room)) = (
        desk.readers.clone().try_acquire_owned(),
        desk.bodies.clone().try_acquire_many_owned(ingest::kib_of(request.headers(), LINES_BYTES_MAX)),
    ) else {
        return come_again("too many bodies at once");
    };
    let body = match body_within(request, LINES_BYTES_MAX, BODY_PATIENCE).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    drop(reader);
    let count = memchr::memchr_iter(b'\n', &body).count() + 1;
    if count > LINES_MAX {
        return error(StatusCode::PAYLOAD_TOO_LARGE, &format!("at most {LINES_MAX} lines a request"));
    }
    // Room for the answer is found before anything is taken: afterwards it is too late to say "come again".
    let kib = (count * OUTCOME_BYTES + 4 * body.len()) / 1024 + 1;
    let Ok(mut answer_room) = desk.answers.clone().try_acquire_many_owned(kib as u32) else {
        desk.backend.note_refusal(Refusal::NoRoom);
        return come_again("too many long answers are on their way to slow readers");
    };
    let waits = !query.iter().any(|(key, value)| key == "wait" && matches!(value.as_str(), "false" | "0"));
    let backend = desk.backend;
    let work = move || {
        let _room = room;
        let taken = backend.lines(body.into(), waits)?;
        Ok::<_, Unavailable>((ndjson(&taken.outcomes), taken.awaits_commit))
    };
    match off_thread_whole(&desk.waits, ANSWER_PATIENCE, work).await {
        Ok(Ok((body, awaits_commit))) => {
            // What the estimate was above the answer goes back.
            drop(answer_room.split(answer_room.num_permits().saturating_sub(body.len() / 1024 + 1)));
            let status = if awaits_commit { StatusCode::ACCEPTED } else { StatusCode::OK };
            let mut answer = (status, [(header::CONTENT_TYPE, NDJSON)], body).into_response();
            answer.extensions_mut().insert(Counted::holding(answer_room));
            answer
        }
        Ok(Err(unavailable)) => come_again(&unavailable.to_string()),
        Err(answer) => answer,
    }
}

async fn reload(State(desk): State<Desk>, Query(query): Query<Pairs>, headers: HeaderMap) -> Response {
    if is_cross_site(&headers) {
        return error(StatusCode::FORBIDDEN, "a reload is not asked for by another site's pages");
    }
    if let Some((key, _)) = query.iter().find(|(key, _)| key != "accept") {
        return error(StatusCode::BAD_REQUEST, &format!("{key} is not known here; accept=METRIC is"));
    }
    let accept: Vec<String> = query.into_iter().map(|(_, metric)| metric).collect();
    let backend = desk.backend;
    match off_thread(&desk.waits, ANSWER_PATIENCE, move || backend.reload(&accept)).await {
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
pub(super) const NDJSON: &str = "application/x-ndjson";

/// Runs work on a blocking thread, within a number of places and a time.
pub(super) async fn off_thread<T: Send + 'static>(
    places: &Arc<Semaphore>,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Response> {
    let queued_and_done = async {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        done(place, work).await
    };
    match tokio::time::timeout(patience, queued_and_done).await {
        Ok(done) => done,
        Err(_) => Err(come_again("the answer took too long")),
    }
}

/// As [`off_thread`], for work that must not be told to come again once it has begun, and that ends by itself: only the
/// wait for a place has an end.
pub(super) async fn off_thread_whole<T: Send + 'static>(
    places: &Arc<Semaphore>,
    patience: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Response> {
    match tokio::time::timeout(patience, places.clone().acquire_owned()).await {
        Ok(place) => done(place.expect("the semaphore is never closed"), work).await,
        Err(_) => Err(come_again("too many requests wait for their commit")),
    }
}

async fn done<T: Send + 'static>(
    place: OwnedSemaphorePermit,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Response> {
    // The place goes with the work: work that nobody waits for any more still holds it.
    let work = move || {
        let result = work();
        drop(place);
        result
    };
    let failed = |_| error(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made; see the log");
    blocking(work).await.map_err(failed)
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
