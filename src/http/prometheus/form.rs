//! Parameters as Prometheus reads them: of the body first where there is a form, then of the query string.
//!
//! In: requests. Out: texts, times, durations, limits. Owns nothing. Invariant: what Prometheus refuses is refused, in its
//! words. Source: `web/api/v1/api.go` (`parseTime`, `parseDuration`) and `model/time.go` of Prometheus's common library.

use super::{ErrorType, Problem};
use crate::event::Timestamp;
use crate::event::time::parse_rfc3339;
use crate::http::body::body_within;
use crate::http::routes::Pairs;
use axum::extract::{Query, Request};
use axum::http::header;
use std::time::Duration;

/// Of a form: the longest expression, and some hundred selectors.
const FORM_BYTES_MAX: usize = 1 << 20;
/// For its bytes.
const FORM_PATIENCE: Duration = Duration::from_secs(10);
/// Parameters of one request.
const PARAMETERS_MAX: usize = 1_000;

/// What Prometheus writes for the first and the last time there is.
const FIRST_TIME: &str = "-292273086-05-16T16:47:06Z";
const LAST_TIME: &str = "292277025-08-18T07:12:54.999999999Z";

/// The parameters of a request, those of a form first.
#[derive(Debug, Default)]
pub(in crate::http) struct Form(Pairs);

impl Form {
    /// Reads a request.
    pub(in crate::http) async fn read(request: Request) -> Result<Form, Problem> {
        let refused = |words: &str| Problem(ErrorType::BadData, words.to_owned());
        let query =
            Query::<Pairs>::try_from_uri(request.uri()).map_err(|_| refused("the query string is malformed"))?;
        let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_form = content_type.is_some_and(|value| {
            value
                .split(';')
                .next()
                .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/x-www-form-urlencoded"))
        });
        let mut pairs = Vec::new();
        if is_form && request.method() == axum::http::Method::POST {
            let too_long = || refused(&format!("error parsing form values: at most {FORM_BYTES_MAX} bytes"));
            let body = body_within(request, FORM_BYTES_MAX, FORM_PATIENCE).await.map_err(|_| too_long())?;
            pairs = pairs_of(&body).ok_or_else(|| refused("error parsing form values: malformed encoding"))?;
        }
        pairs.extend(query.0);
        match pairs.len() <= PARAMETERS_MAX {
            true => Ok(Form(pairs)),
            false => Err(refused(&format!("at most {PARAMETERS_MAX} parameters"))),
        }
    }

    /// Every value of a parameter.
    pub(in crate::http) fn all<'f>(&'f self, key: &'f str) -> impl Iterator<Item = &'f str> {
        self.0.iter().filter(move |(known, _)| known == key).map(|(_, value)| value.as_str())
    }

    /// The first value of a parameter, empty without one.
    pub(in crate::http) fn first<'f>(&'f self, key: &'f str) -> &'f str {
        self.all(key).next().unwrap_or("")
    }

    /// A time, where it is given.
    pub(in crate::http) fn time(&self, key: &str) -> Result<Option<Timestamp>, Problem> {
        match self.first(key) {
            "" => Ok(None),
            _ => self.needed_time(key).map(Some),
        }
    }

    /// A time that must be given.
    pub(in crate::http) fn needed_time(&self, key: &str) -> Result<Timestamp, Problem> {
        let text = self.first(key);
        let found = time(text);
        found.ok_or_else(|| Problem::parameter(key, format_args!("cannot parse {text:?} to a valid timestamp")))
    }

    /// `timeout`, at most so long.
    pub(super) fn patience(&self, most: Duration) -> Result<Duration, Problem> {
        match self.first("timeout") {
            "" => Ok(most),
            text => {
                let nanos = duration(text).map_err(|reason| Problem::parameter("timeout", reason))?;
                Ok(Duration::from_nanos(nanos.max(0) as u64).min(most))
            }
        }
    }

    /// `limit`: how many to tell; 0 and nothing mean all.
    pub(super) fn limit(&self) -> Result<usize, Problem> {
        match self.first("limit") {
            "" | "0" => Ok(usize::MAX),
            text => match text.parse::<i64>() {
                Ok(limit) => {
                    usize::try_from(limit).map_err(|_| Problem::parameter("limit", "limit must be non-negative"))
                }
                Err(_) => Err(Problem::parameter("limit", format_args!("cannot parse {text:?} to a number"))),
            },
        }
    }
}

/// The pairs of a form's body (`application/x-www-form-urlencoded` of the URL standard).
fn pairs_of(body: &[u8]) -> Option<Pairs> {
    let decoded = |part: &[u8]| -> Option<String> {
        let mut bytes = Vec::with_capacity(part.len());
        let mut rest = part.iter();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let digit = |byte: Option<&u8>| char::from(*byte?).to_digit(16);
                    (digit(rest.next())? * 16 + digit(rest.next())?) as u8
                }
                byte => *byte,
            });
        }
        String::from_utf8(bytes).ok()
    };
    let pair = |pair: &[u8]| {
        let at = memchr::memchr(b'=', pair);
        let (key, value) = at.map_or((pair, &b""[..]), |at| (&pair[..at], &pair[at + 1..]));
        Some((decoded(key)?, decoded(value)?))
    };
    body.split(|byte| *byte == b'&').filter(|part| !part.is_empty()).map(pair).collect()
}

/// Seconds since the epoch with a fraction, or RFC 3339; to the millisecond, as Prometheus has it.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    let nanos = match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() => {
            let (whole, part) = (seconds.trunc(), seconds.fract());
            // Beyond 2262 it is the end of time.
            (whole as i64).saturating_mul(1_000_000_000).saturating_add(((part * 1e3).round() * 1e6) as i64)
        }
        Ok(_) => return None,
        Err(_) => match text {
            FIRST_TIME => i64::MIN,
            LAST_TIME => i64::MAX,
            text => parse_rfc3339(text.as_bytes())?.0,
        },
    };
    Some(Timestamp(nanos.saturating_sub(nanos.rem_euclid(1_000_000))))
}

/// Nanoseconds of a number of seconds, or of `1h30m` and the like.
///
/// # Errors
/// Prometheus's words for what is none.
pub fn duration(text: &str) -> Result<i64, String> {
    let wrong = || format!("cannot parse {text:?} to a valid duration");
    if let Ok(seconds) = text.parse::<f64>() {
        let nanos = seconds * 1e9;
        return match nanos.abs() <= i64::MAX as f64 {
            true => Ok(nanos as i64),
            false => Err(format!("{}. It overflows int64", wrong())),
        };
    }
    const UNITS: [(&str, i64); 7] = [
        ("y", 365 * 86_400_000),
        ("w", 7 * 86_400_000),
        ("d", 86_400_000),
        ("h", 3_600_000),
        ("m", 60_000),
        ("s", 1_000),
        ("ms", 1),
    ];
    let (mut rest, mut millis, mut units) = (text, 0i64, &UNITS[..]);
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, behind) = rest.split_at(digits);
        let letters = behind.len() - behind.trim_start_matches(|c: char| c.is_ascii_lowercase()).len();
        let (unit, behind) = behind.split_at(letters);
        // Each unit once, the longest first.
        let at = units.iter().position(|(word, _)| *word == unit).ok_or_else(wrong)?;
        let amount = number.parse::<i64>().ok().and_then(|number| number.checked_mul(units[at].1));
        millis = amount.and_then(|amount| millis.checked_add(amount)).ok_or_else(wrong)?;
        (rest, units) = (behind, &units[at + 1..]);
    }
    if text.is_empty() { Err(wrong()) } else { millis.checked_mul(1_000_000).ok_or_else(wrong) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_as_prometheus_reads_them() {
        let check = |text: &str, expected: Option<i64>| assert_eq!(time(text).map(|time| time.0), expected, "{text}");
        check("1700000000", Some(1_700_000_000_000_000_000));
        check("1700000000.1239", Some(1_700_000_000_124_000_000));
        check("-1.5", Some(-1_500_000_000));
        check("2023-11-14T22:13:20Z", Some(1_700_000_000_000_000_000));
        check("2023-11-14T22:13:20.123456789Z", Some(1_700_000_000_123_000_000));
        check("2023-11-15T00:13:20+02:00", Some(1_700_000_000_000_000_000));
        check(FIRST_TIME, Some(i64::MIN));
        assert!(time(LAST_TIME).expect("the last").0 > i64::MAX - 1_000_000);
        for wrong in ["", "x", "NaN", "Inf", "2023-11-14", "1h"] {
            check(wrong, None);
        }
    }

    #[test]
    fn durations_as_prometheus_reads_them() {
        let check = |text: &str, expected: Option<i64>| assert_eq!(duration(text).ok(), expected, "{text}");
        let seconds = |n: i64| Some(n * 1_000_000_000);
        check("15", seconds(15));
        check("0.5", Some(500_000_000));
        check("-1", seconds(-1));
        check("5m", seconds(300));
        check("1h30m", seconds(5_400));
        check("1d12h", seconds(129_600));
        check("1y1w", seconds(372 * 86_400));
        check("250ms", Some(250_000_000));
        for wrong in ["", "5", "m", "5x", "1m1h", "5m5m", "1e30", "99999999999y", " 5m", "5 m", "-5m", "1.5h"] {
            check(wrong, (wrong == "5").then_some(5_000_000_000));
        }
    }

    #[test]
    fn forms_are_decoded_or_refused() {
        let pairs =
            pairs_of(b"query=sum(x)%20by+%28a%29&match[]=%7Ba%3D%22%C3%A4%22%7D&empty=&bare&&").expect("a form");
        let expected = [("query", "sum(x) by (a)"), ("match[]", "{a=\"ä\"}"), ("empty", ""), ("bare", "")];
        assert_eq!(pairs, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
        for wrong in [&b"a=%"[..], b"a=%4", b"a=%zz", b"a=%ff"] {
            assert_eq!(pairs_of(wrong), None);
        }
        let form = Form(vec![("limit".into(), "-1".into()), ("timeout".into(), "5s".into())]);
        assert!(form.limit().is_err());
        assert_eq!(form.patience(Duration::from_secs(60)).expect("fine"), Duration::from_secs(5));
        assert_eq!(Form::default().limit().expect("fine"), usize::MAX);
    }
}
