//! Prometheus's HTTP API, version 1: what Grafana's data source and every other client of Prometheus ask.
//!
//! In: parameters in the query string or, by POST, in a form. Out: Prometheus's JSON with its status codes and error types,
//! and beside the values how right each quantile is. Owns: how many questions are worked on, and how many wait. Invariants:
//! nothing is evaluated on the runtime's thread; a question has an end in time, and its answer one in length; clients of
//! Prometheus pass over what only this program says. Source: <https://prometheus.io/docs/prometheus/latest/querying/api/>.

mod answer;
mod form;

use super::backend::Refusal;
use super::connection::Counted;
use super::routes::{ANSWER_PATIENCE, Desk};
use crate::actor::blocking;
use crate::pipeline::queries::{Answer, FamilyWords, Meant, Question, Unanswered};
use answer::Writer;
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
pub(super) use form::Form;
pub use form::duration as parse_duration;
use std::sync::Arc;
use std::time::Duration;

/// Questions that are worked on at once: each may hold a core and the samples of one evaluation.
pub(super) const WORKED_MAX: usize = 4;
/// Questions that wait for that: as many as a few dashboards ask together. More are told to come again.
pub(super) const WAITING_MAX: usize = 64;
/// Longest answer: half of what all long answers may take together.
const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Steps between the first and the last time of a range, as in Prometheus.
const STEPS_MAX: i128 = 11_000;
/// The version of Prometheus whose API this is: clients read from it what they may ask.
const PROMETHEUS_VERSION: &str = "2.42.0";

/// The words of `errorType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorType {
    BadData,
    Execution,
    Timeout,
    Internal,
    Unavailable,
}

impl ErrorType {
    fn word(self) -> &'static str {
        match self {
            ErrorType::BadData => "bad_data",
            ErrorType::Execution => "execution",
            ErrorType::Timeout => "timeout",
            ErrorType::Internal => "internal",
            ErrorType::Unavailable => "unavailable",
        }
    }

    fn status(self) -> StatusCode {
        match self {
            ErrorType::BadData => StatusCode::BAD_REQUEST,
            ErrorType::Execution => StatusCode::UNPROCESSABLE_ENTITY,
            ErrorType::Timeout | ErrorType::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorType::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// Why a request has no data.
#[derive(Debug)]
pub(super) struct Problem(ErrorType, String);

impl Problem {
    /// Of one parameter, in Prometheus's words.
    pub(super) fn parameter(name: &str, reason: impl std::fmt::Display) -> Problem {
        Problem(ErrorType::BadData, format!("invalid parameter \"{name}\": {reason}"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Problem(kind, words) = self;
        let body = serde_json::json!({"status": "error", "errorType": kind.word(), "error": words}).to_string();
        (kind.status(), [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

/// The routes.
pub(super) fn routes() -> Router<Desk> {
    Router::new()
        .route("/api/v1/query", get(query).post(query))
        .route("/api/v1/query_range", get(query_range).post(query_range))
        .route("/api/v1/series", get(series).post(series))
        .route("/api/v1/labels", get(labels).post(labels))
        .route("/api/v1/label/{name}/values", get(label_values))
        .route("/api/v1/metadata", get(metadata))
        .route("/api/v1/status/buildinfo", get(buildinfo))
}

async fn query(State(desk): State<Desk>, request: Request) -> Result<Response, Problem> {
    let form = Form::read(request).await?;
    let (patience, limit) = (form.patience(ANSWER_PATIENCE)?, form.limit()?);
    let question = Question::Instant { at: form.time("time")?, text: form.first("query").to_owned() };
    answered(desk, question, "query", patience, move |out, answer| {
        let Answer::Value(value, at) = answer else { return false };
        out.value(&value, at, limit)
    })
    .await
}

async fn query_range(State(desk): State<Desk>, request: Request) -> Result<Response, Problem> {
    let form = Form::read(request).await?;
    let start = form.needed_time("start")?;
    let end = form.needed_time("end")?;
    if end < start {
        return Err(Problem::parameter("end", "end timestamp must not be before start time"));
    }
    let step = form::duration(form.first("step")).map_err(|reason| Problem::parameter("step", reason))?;
    if step <= 0 {
        let words = "zero or negative query resolution step widths are not accepted. Try a positive integer";
        return Err(Problem::parameter("step", words));
    }
    if (i128::from(end.0) - i128::from(start.0)) / i128::from(step) > STEPS_MAX {
        let words = "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution \
                     (?step=XX)";
        return Err(Problem(ErrorType::BadData, words.to_owned()));
    }
    let (patience, limit) = (form.patience(ANSWER_PATIENCE)?, form.limit()?);
    let question = Question::Range { text: form.first("query").to_owned(), start, end, step };
    answered(desk, question, "query", patience, move |out, answer| {
        let Answer::Value(value, at) = answer else { return false };
        out.value(&value, at, limit)
    })
    .await
}

/// The series that a form means.
fn meant(form: &Form) -> Result<Meant, Problem> {
    let selectors = form.all("match[]").map(str::to_owned).collect();
    Ok(Meant { selectors, start: form.time("start")?, end: form.time("end")? })
}

async fn series(State(desk): State<Desk>, request: Request) -> Result<Response, Problem> {
    let form = Form::read(request).await?;
    let (meant, limit) = (meant(&form)?, form.limit()?);
    if meant.selectors.is_empty() {
        return Err(Problem(ErrorType::BadData, "no match[] parameter provided".to_owned()));
    }
    answered(desk, Question::Series(meant), "match[]", ANSWER_PATIENCE, move |out, answer| {
        let Answer::Series(found) = answer else { return false };
        out.list(&found, limit, |out, labels| {
            out.object(labels.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        })
    })
    .await
}

async fn labels(State(desk): State<Desk>, request: Request) -> Result<Response, Problem> {
    let form = Form::read(request).await?;
    let (meant, limit) = (meant(&form)?, form.limit()?);
    answered(desk, Question::LabelNames(meant), "match[]", ANSWER_PATIENCE, move |out, answer| {
        let Answer::Words(found) = answer else { return false };
        out.list(&found, limit, |out, name| out.text(name))
    })
    .await
}

async fn label_values(
    State(desk): State<Desk>,
    Path(label): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let form = Form::read(request).await?;
    let is_name = label
        .bytes()
        .enumerate()
        .all(|(at, byte)| byte == b'_' || byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit()));
    if label.is_empty() || !is_name {
        return Err(Problem(ErrorType::BadData, format!("invalid label name: {label:?}")));
    }
    let (meant, limit) = (meant(&form)?, form.limit()?);
    answered(desk, Question::LabelValues { label, meant }, "match[]", ANSWER_PATIENCE, move |out, answer| {
        let Answer::Words(found) = answer else { return false };
        out.list(&found, limit, |out, value| out.text(value))
    })
    .await
}

async fn metadata(State(desk): State<Desk>, request: Request) -> Result<Response, Problem> {
    let form = Form::read(request).await?;
    let limit = match form.first("limit") {
        "" => usize::MAX,
        text => match text.parse::<i64>() {
            Ok(limit) => usize::try_from(limit).unwrap_or(usize::MAX),
            Err(_) => return Err(Problem(ErrorType::BadData, "limit must be a number".to_owned())),
        },
    };
    let family = Some(form.first("metric").to_owned()).filter(|name| !name.is_empty());
    answered(desk, Question::Metadata { family }, "metric", ANSWER_PATIENCE, move |out, answer| {
        let Answer::Families(found) = answer else { return false };
        out.families(found.iter().take(limit), |out, family: &FamilyWords| {
            let words = [("type", family.kind), ("help", &family.help), ("unit", &family.unit)];
            out.object(words.into_iter());
        })
    })
    .await
}

async fn buildinfo() -> Response {
    let data = serde_json::json!({
        "version": PROMETHEUS_VERSION, "revision": env!("CARGO_PKG_VERSION"), "branch": "", "buildUser": "",
        "buildDate": "", "goVersion": "", "application": "hydrograph",
    });
    let body = serde_json::json!({"status": "success", "data": data}).to_string();
    ([(header::CONTENT_TYPE, "application/json")], body).into_response()
}

/// Asks the backend off the runtime's thread, within a place and a time, and dresses what it says. `write` writes the data,
/// and is false where the answer is of another kind; `parameter` is the one that a wrong question came in.
async fn answered(
    desk: Desk,
    question: Question,
    parameter: &'static str,
    patience: Duration,
    write: impl FnOnce(&mut Writer, Answer) -> bool + Send + 'static,
) -> Result<Response, Problem> {
    let Ok(waiting) = desk.questions_waiting.clone().try_acquire_owned() else {
        return Err(Problem(ErrorType::Unavailable, "too many queries at once; come again".to_owned()));
    };
    let Ok(place) = tokio::time::timeout(patience, desk.questions.clone().acquire_owned()).await else {
        return Err(Problem(ErrorType::Timeout, "query timed out in query queue".to_owned()));
    };
    drop(waiting);
    let place = place.expect("the semaphore is never closed");
    let backend = Arc::clone(&desk.backend);
    let work = move || {
        // The place goes with the work: work that nobody waits for any more still holds it.
        let _place = place;
        let answer = backend.ask(&question, patience)?;
        let mut out = Writer::new(ANSWER_BYTES_MAX);
        let is_written = write(&mut out, answer);
        Ok::<_, Unanswered>(out.finish().filter(|_| is_written))
    };
    let body = match blocking(work).await {
        Ok(Ok(Some(body))) => body,
        Ok(Ok(None)) => {
            let words = format!("the answer is longer than {ANSWER_BYTES_MAX} bytes; ask for less, or with a limit");
            return Err(Problem(ErrorType::Execution, words));
        }
        Ok(Err(unanswered)) => {
            return Err(match unanswered {
                Unanswered::Wrong(reason) => Problem::parameter(parameter, reason),
                Unanswered::Failed(reason) => Problem(ErrorType::Execution, reason),
                Unanswered::TimeIsOver => {
                    Problem(ErrorType::Timeout, "query timed out in expression evaluation".into())
                }
                Unanswered::Unreadable(reason) => Problem(ErrorType::Internal, reason),
            });
        }
        Err(_) => {
            return Err(Problem(ErrorType::Internal, "the answer could not be made; see the log".to_owned()));
        }
    };
    let kib = u32::try_from(body.len() >> 10).unwrap_or(u32::MAX).saturating_add(1);
    let Ok(room) = desk.answers.clone().try_acquire_many_owned(kib) else {
        desk.backend.note_refusal(Refusal::NoRoom);
        let words = "too many long answers are on their way to slow readers";
        return Err(Problem(ErrorType::Unavailable, words.to_owned()));
    };
    let mut answer = ([(header::CONTENT_TYPE, "application/json")], body).into_response();
    answer.extensions_mut().insert(Counted::holding(room));
    Ok(answer)
}
