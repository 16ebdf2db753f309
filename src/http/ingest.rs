//! `POST /api/v1/events`: a body becomes lines of JSON, one event each, and the answer says what became of them.
//!
//! In: a request: JSON, an array, NDJSON or CloudEvents, plain or compressed. Out: how many events were taken and
//! which were not. Owns: the limits of bodies. Invariants: at most [`BODIES_KIB_MAX`] of bodies are in memory, and
//! compressed ones grow to [`EVENTS_BYTES_MAX`] and no further; every event of a body, and a body that holds none,
//! reaches the pipeline as one line and is counted there; what is refused here already is sent as a line that is
//! refused there (it begins with `[`), so that the laws hold it.

#![expect(clippy::result_large_err, reason = "a refusal is an answer, made once and sent at once")]

use super::backend::{EventsError, EventsTaken, RefusedEvent};
use super::body::body_within;
use super::routes::{ANSWER_PATIENCE, Desk, Pairs, come_again, error, is_cross_site, json_answer, off_thread_whole};
use crate::codec::json::{self, Events};
use crate::pipeline::memory::POSTED_BYTES_MAX;
use axum::body::Bytes;
use axum::extract::{Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::borrow::Cow;
use std::io::Read;
use std::time::Duration;

/// Of one body, before and after it is decompressed: some 90,000 events.
pub const EVENTS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Of all bodies that are being read or taken, in KiB. Each becomes lines, so that twice as much is held.
/// One more for the begun KiB of each of the longest.
pub(super) const BODIES_KIB_MAX: usize = (POSTED_BYTES_MAX >> 10) + 2;
const _: () = assert!(POSTED_BYTES_MAX >= 2 * EVENTS_BYTES_MAX, "a long body leaves room to another");
/// For a whole body to come: the longest at 5 Mbit/s.
const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// Errors that an answer lists; the rest is counted.
const ERRORS_MAX: usize = 100;
/// Bytes kept of a body that is no event.
const SHOWN_BYTES_MAX: usize = 512;

/// How a request holds its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// An object, an array, or NDJSON.
    Plain,
    /// CloudEvents: one (structured mode), an array (batched), or NDJSON of them.
    Cloud,
    /// One CloudEvent, its attributes in the headers.
    Binary,
}

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Identity,
    Gzip,
    Deflate,
}

pub(super) async fn events(State(desk): State<Desk>, Query(query): Query<Pairs>, request: Request) -> Response {
    if is_cross_site(request.headers()) {
        return error(StatusCode::FORBIDDEN, "events are not taken from another site's pages");
    }
    let Some(coding) = coding_of(request.headers()) else {
        return error(StatusCode::UNSUPPORTED_MEDIA_TYPE, "bodies may be plain, gzip or deflate");
    };
    let is_sync = query.iter().any(|(key, value)| key == "sync" && matches!(value.as_str(), "" | "true" | "1"));
    // A body takes its room before it is read, and keeps it until its events are in the pipeline.
    let (Ok(reader), Ok(room)) = (
        desk.readers.clone().try_acquire_owned(),
        desk.bodies.clone().try_acquire_many_owned(room_of(request.headers(), coding)),
    ) else {
        return too_busy("too many bodies at once");
    };
    let headers = request.headers().clone();
    let body = match body_within(request, EVENTS_BYTES_MAX, BODY_PATIENCE).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    drop(reader);
    let backend = desk.backend;
    let work = move || {
        let _room = room;
        let body = decompressed(body, coding)?;
        let parcel = Parcel::of(&headers, &body, |event, field| backend.has_field(event, field));
        drop(body);
        let Parcel { lines, refused } = parcel;
        let taken = backend.events(lines, is_sync).map_err(|refusal| match refusal {
            EventsError::Busy(reason) => too_busy(&reason),
            EventsError::Unavailable(reason) => come_again(&reason),
        })?;
        Ok((taken, refused))
    };
    match off_thread_whole(&desk.waits, ANSWER_PATIENCE, work).await {
        Ok(Ok((taken, refused))) => answer(taken, refused, is_sync),
        Ok(Err(answer)) | Err(answer) => answer,
    }
}

fn too_busy(reason: &str) -> Response {
    ([(header::RETRY_AFTER, "1")], error(StatusCode::TOO_MANY_REQUESTS, reason)).into_response()
}

/// `refused`: what was known before the pipeline refused it, with better words.
fn answer(mut taken: EventsTaken, refused: Vec<RefusedEvent>, is_sync: bool) -> Response {
    for error in &mut taken.errors {
        if let Some(known) = refused.iter().find(|known| known.index == error.index) {
            *error = known.clone();
        }
    }
    taken.errors.truncate(ERRORS_MAX);
    let status = match (taken.accepted, taken.rejected) {
        (0, 1..) if !taken.awaits_commit => StatusCode::BAD_REQUEST,
        _ if is_sync && !taken.awaits_commit => StatusCode::OK,
        _ => StatusCode::ACCEPTED,
    };
    let mut body = json!({"accepted": taken.accepted, "rejected": taken.rejected, "errors": taken.errors});
    if taken.awaits_commit {
        body["committed"] = false.into();
    }
    json_answer(status, &body)
}

/// The KiB that a body may need: a compressed one may become as long as any.
fn room_of(headers: &HeaderMap, coding: Coding) -> u32 {
    match coding {
        Coding::Identity => kib_of(headers, EVENTS_BYTES_MAX),
        Coding::Gzip | Coding::Deflate => kib_of(&HeaderMap::new(), EVENTS_BYTES_MAX),
    }
}

/// The KiB that a body may need: one that does not say how long it is may become as long as any.
pub(super) fn kib_of(headers: &HeaderMap, bytes_max: usize) -> u32 {
    let said = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    (said.map_or(bytes_max, |bytes| bytes.min(bytes_max)) >> 10) as u32 + 1
}

/// `None` for what is not known, or applied twice.
fn coding_of(headers: &HeaderMap) -> Option<Coding> {
    let mut codings = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(first) = codings.next() else { return Some(Coding::Identity) };
    let coding = match first.to_str().ok()?.trim().to_ascii_lowercase().as_str() {
        "" | "identity" => Coding::Identity,
        "gzip" | "x-gzip" => Coding::Gzip,
        "deflate" => Coding::Deflate,
        _ => return None,
    };
    codings.next().is_none().then_some(coding)
}

fn decompressed(body: Bytes, coding: Coding) -> Result<Cow<'static, [u8]>, Response> {
    let reader: Box<dyn Read + '_> = match coding {
        Coding::Identity => return Ok(Cow::Owned(body.into())),
        Coding::Gzip => Box::new(flate2::read::MultiGzDecoder::new(&body[..])),
        // RFC 9110 means zlib; some clients send deflate bare, whose first byte is no zlib header.
        Coding::Deflate if is_zlib(&body) => Box::new(flate2::read::ZlibDecoder::new(&body[..])),
        Coding::Deflate => Box::new(flate2::read::DeflateDecoder::new(&body[..])),
    };
    let mut plain = Vec::new();
    match reader.take(EVENTS_BYTES_MAX as u64 + 1).read_to_end(&mut plain) {
        Ok(_) if plain.len() > EVENTS_BYTES_MAX => {
            Err(error(StatusCode::PAYLOAD_TOO_LARGE, &format!("at most {EVENTS_BYTES_MAX} bytes when decompressed")))
        }
        Ok(_) => Ok(Cow::Owned(plain)),
        Err(_) => Err(error(StatusCode::BAD_REQUEST, "the body is not what its Content-Encoding says")),
    }
}

/// RFC 1950: method 8, and both bytes as one number are divisible by 31.
fn is_zlib(body: &[u8]) -> bool {
    matches!(body, [first, second, ..] if first & 0x0f == 8 && u16::from_be_bytes([*first, *second]) % 31 == 0)
}

fn form_of(headers: &HeaderMap) -> Form {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media_type = content_type.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    match media_type.as_str() {
        "application/cloudevents+json" | "application/cloudevents-batch+json" => Form::Cloud,
        _ if headers.contains_key("ce-specversion") => Form::Binary,
        _ => Form::Plain,
    }
}

/// The lines that go to the pipeline: as many as the body has events.
struct Parcel {
    lines: Vec<u8>,
    refused: Vec<RefusedEvent>,
}

impl Parcel {
    fn of(headers: &HeaderMap, body: &[u8], wants: impl Fn(&[u8], &[u8]) -> bool) -> Parcel {
        let mut parcel = Parcel { lines: Vec::with_capacity(body.len() + 16), refused: Vec::new() };
        let form = form_of(headers);
        if form == Form::Binary {
            let attributes =
                headers.iter().filter_map(|(name, value)| Some((name.as_str().strip_prefix("ce-")?, value.as_bytes())));
            match json::binary_event(attributes, body, wants, &mut parcel.lines) {
                Ok(()) => parcel.lines.push(b'\n'),
                Err(wrong) => parcel.refuse(0, body, &wrong),
            }
            return parcel;
        }
        let events = match Events::of_body(body) {
            Ok(events) => events,
            Err(wrong) => {
                parcel.refuse(0, body, &wrong);
                return parcel;
            }
        };
        for (index, event) in events.enumerate() {
            if form == Form::Plain {
                match event.first() {
                    Some(b'{') => {
                        json::put_on_one_line(event, &mut parcel.lines);
                        parcel.lines.push(b'\n');
                    }
                    _ => parcel.refuse(index, event, &"an event is a JSON object"),
                }
                continue;
            }
            match json::structured_event(event, &wants, &mut parcel.lines) {
                Ok(()) => parcel.lines.push(b'\n'),
                Err(wrong) => parcel.refuse(index, event, &wrong),
            }
        }
        parcel
    }

    /// A line that the pipeline refuses and shows among its recent rejects.
    fn refuse(&mut self, index: usize, text: &[u8], hint: &dyn std::fmt::Display) {
        self.lines.push(b'[');
        json::put_on_one_line(&text[..text.len().min(SHOWN_BYTES_MAX)], &mut self.lines);
        self.lines.push(b'\n');
        if self.refused.len() < ERRORS_MAX {
            let reason = crate::event::RejectReason::BadJson.as_str().to_owned();
            self.refused.push(RefusedEvent { index, reason, hint: hint.to_string() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use std::io::Write;

    fn parcel(headers: &[(&'static str, &'static str)], body: &str) -> (String, Vec<(usize, String)>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let parcel = Parcel::of(&map, body.as_bytes(), |_, name| name == b"source");
        let refused = parcel.refused.into_iter().map(|refused| (refused.index, refused.hint)).collect();
        (String::from_utf8(parcel.lines).unwrap(), refused)
    }

    #[test]
    fn bodies_become_lines() {
        let none: Vec<(usize, String)> = Vec::new();
        assert_eq!(parcel(&[], "{\"event\":\n\"a\"}"), ("{\"event\": \"a\"}\n".into(), none.clone()));
        assert_eq!(parcel(&[], "[{\"a\":1},\n {\"b\":2}]"), ("{\"a\":1}\n{\"b\":2}\n".into(), none.clone()));
        assert_eq!(parcel(&[], "{\"a\":1}\r\n\n{\"b\":2}"), ("{\"a\":1}\n{\"b\":2}\n".into(), none.clone()));
        assert_eq!(parcel(&[], "[]"), (String::new(), none.clone()));
        let object = (1, "an event is a JSON object".to_owned());
        assert_eq!(parcel(&[], "[{},3]"), ("{}\n[3\n".into(), vec![object.clone()]));
        assert_eq!(parcel(&[], "{}\na:1|c"), ("{}\n[a:1|c\n".into(), vec![object]));
        assert_eq!(parcel(&[], "[{}"), ("[[{}\n".into(), vec![(0, "the JSON text ends too early at byte 3".into())]));
        assert_eq!(parcel(&[], " "), ("[ \n".into(), vec![(0, "the JSON text ends too early at byte 1".into())]));
        // A broken line costs itself only.
        assert_eq!(parcel(&[], "{\"a\n{\"b\":2}"), ("{\"a\n{\"b\":2}\n".into(), none.clone()));
    }

    #[test]
    fn cloud_events_in_three_modes() {
        let one = r#"{"specversion":"1.0","type":"t","source":"s","id":"1","data":{"a":1}}"#;
        let line = "{\"event\":\"t\",\"a\":1,\"source\":\"s\"}\n";
        let structured = [("content-type", "application/cloudevents+json; charset=utf-8")];
        assert_eq!(parcel(&structured, one), (line.into(), vec![]));
        let batch = [("content-type", "application/cloudevents-batch+json")];
        let two = format!("[{one},{{\"type\":\"t\"}},{one}]");
        let refused = vec![(1, "specversion must be 1.0".to_owned())];
        assert_eq!(parcel(&batch, &two), (format!("{line}[{{\"type\":\"t\"}}\n{line}"), refused));
        let binary =
            [("content-type", "application/json"), ("ce-specversion", "1.0"), ("ce-type", "t"), ("ce-source", "s")];
        assert_eq!(parcel(&binary, "{\"a\":1}"), (line.into(), vec![]));
    }

    #[test]
    fn compressed_bodies_are_bounded() {
        let compress = |bytes: &[u8], coding| {
            let level = flate2::Compression::best();
            let mut out = Vec::new();
            match coding {
                Coding::Gzip => flate2::write::GzEncoder::new(&mut out, level).write_all(bytes).unwrap(),
                _ => flate2::write::ZlibEncoder::new(&mut out, level).write_all(bytes).unwrap(),
            }
            out
        };
        for coding in [Coding::Gzip, Coding::Deflate] {
            let small = compress(b"{\"event\":\"a\"}", coding);
            assert_eq!(decompressed(small.clone().into(), coding).unwrap(), &b"{\"event\":\"a\"}"[..]);
            let cut = decompressed(small[..small.len() - 6].to_vec().into(), coding).unwrap_err();
            assert_eq!(cut.status(), StatusCode::BAD_REQUEST);
            let bomb = compress(&vec![b' '; EVENTS_BYTES_MAX + 1], coding);
            assert!(bomb.len() < 100_000);
            let answer = decompressed(bomb.into(), coding).unwrap_err();
            assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
        }
        let mut bare = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
        bare.write_all(b"{}").unwrap();
        assert_eq!(decompressed(bare.finish().unwrap().into(), Coding::Deflate).unwrap(), &b"{}"[..]);
    }

    #[test]
    fn codings_and_room() {
        let of = |values: &[&'static str]| {
            let mut map = HeaderMap::new();
            for value in values {
                map.append("content-encoding", HeaderValue::from_static(value));
            }
            coding_of(&map)
        };
        assert_eq!(of(&[]), Some(Coding::Identity));
        assert_eq!(of(&["GZIP"]), Some(Coding::Gzip));
        assert_eq!(of(&["deflate"]), Some(Coding::Deflate));
        assert_eq!((of(&["br"]), of(&["gzip, gzip"]), of(&["gzip", "gzip"])), (None, None, None));
        let mut map = HeaderMap::new();
        let most = (EVENTS_BYTES_MAX >> 10) as u32 + 1;
        assert_eq!((room_of(&map, Coding::Identity), kib_of(&map, 1 << 20)), (most, 1025));
        map.insert("content-length", HeaderValue::from_static("5000"));
        assert_eq!((room_of(&map, Coding::Identity), room_of(&map, Coding::Gzip)), (5, most));
        assert!(usize::try_from(most).unwrap() <= BODIES_KIB_MAX);
    }
}
