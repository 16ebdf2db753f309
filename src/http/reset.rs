//! `POST /api/v1/reset?match=SELECTOR`: series begin at 0 (R3).
//!
//! In: selectors, and who asks. Out: how many series were reset, after the commit. Owns nothing. Invariant: without a token
//! for it nobody resets anything over HTTP, however open the rest is.

use super::backend::ResetRefused;
use super::routes::{
    ANSWER_PATIENCE, Desk, Pairs, come_again, error, given, is_cross_site, json_answer, off_thread, stranger,
};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use serde_json::json;

/// Selectors of one request.
const SELECTORS_MAX: usize = 64;

pub(super) async fn reset(State(desk): State<Desk>, Query(query): Query<Pairs>, headers: HeaderMap) -> Response {
    let tokens = desk.gate.tokens();
    if tokens.admin.is_none() {
        let words = "resets over HTTP are off; http.admin_token_file, or http.admin_token, switches them on";
        return error(StatusCode::FORBIDDEN, words);
    }
    if !tokens.admit_admin(given(&headers)) {
        return stranger("the admin token is needed");
    }
    if is_cross_site(&headers) {
        return error(StatusCode::FORBIDDEN, "a reset is not asked for by another site's pages");
    }
    let selectors: Vec<String> =
        query.into_iter().filter(|(key, _)| key == "match" || key == "match[]").map(|(_, selector)| selector).collect();
    if selectors.is_empty() {
        let words = "say which series: ?match=name{label=\"value\"}, or ?match={__name__=~\".+\"} for all";
        return error(StatusCode::BAD_REQUEST, words);
    }
    if selectors.len() > SELECTORS_MAX {
        return error(StatusCode::BAD_REQUEST, &format!("at most {SELECTORS_MAX} selectors a request"));
    }
    let backend = desk.backend;
    match off_thread(&desk.waits, ANSWER_PATIENCE, move || (backend.reset(&selectors), selectors)).await {
        Ok((Ok(series), selectors)) => {
            tracing::info!(series, ?selectors, "reset over HTTP");
            json_answer(StatusCode::OK, &json!({"series": series}))
        }
        Ok((Err(refused), _)) => match &refused {
            ResetRefused::Unavailable(reason) => come_again(reason),
            ResetRefused::Unknown => error(StatusCode::NOT_FOUND, "no such series"),
            ResetRefused::Wrong(reason) => error(StatusCode::BAD_REQUEST, reason),
        },
        Err(answer) => answer,
    }
}
