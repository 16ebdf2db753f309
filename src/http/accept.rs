//! Which of our formats a client wants: `Accept` and `Accept-Encoding` with their q-values (RFC 9110 §12.5).
//!
//! In: header values. Out: one of ours. Invariant: always an answer; what we cannot serve, or cannot
//! read, gets the default, because a scrape that fails on its header loses more than one in the wrong format.

use super::Format;

/// What a route can answer with; the first is the default.
struct Offer<T> {
    kind: &'static str,
    subtype: &'static str,
    /// Parameters that mean this offer; a range without them matches too, one with another value does not.
    parameters: &'static [(&'static str, &'static str)],
    answer: T,
}

/// The format of a scrape: text 0.0.4 unless something else is preferred.
///
/// Prometheus 3 sends `application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,...,*/*;q=0.2`.
pub(super) fn scrape_format(accept: Option<&str>) -> Format {
    choose(
        accept,
        &[
            Offer { kind: "text", subtype: "plain", parameters: &[("version", "0.0.4")], answer: Format::Text },
            Offer {
                kind: "application",
                subtype: "openmetrics-text",
                parameters: &[("version", "1.0.0")],
                answer: Format::OpenMetrics,
            },
            Offer {
                kind: "application",
                subtype: "vnd.google.protobuf",
                parameters: &[("proto", "io.prometheus.client.MetricFamily"), ("encoding", "delimited")],
                answer: Format::Protobuf,
            },
            Offer { kind: "application", subtype: "json", parameters: &[], answer: Format::ApiJson },
        ],
    )
}

/// True when JSON is preferred to a page.
pub(super) fn prefers_json(accept: Option<&str>) -> bool {
    choose(
        accept,
        &[
            Offer { kind: "text", subtype: "html", parameters: &[], answer: false },
            Offer { kind: "application", subtype: "json", parameters: &[], answer: true },
        ],
    )
}

/// True when gzip is acceptable and no less wanted than the plain body.
pub(super) fn reads_gzip(accept_encoding: Option<&str>) -> bool {
    let (mut gzip, mut any, mut identity) = (None, None, None);
    for item in accept_encoding.unwrap_or("").split(',') {
        let mut parts = item.split(';').map(str::trim);
        let coding = parts.next().unwrap_or("");
        let q = quality(parts);
        match coding.to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => gzip = Some(q),
            "*" => any = Some(q),
            "identity" => identity = Some(q),
            _ => {}
        }
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// The `q` among parameters in thousandths; 1,000 when absent, 0 when unreadable.
fn quality<'a>(parameters: impl Iterator<Item = &'a str>) -> u16 {
    for parameter in parameters {
        if let Some(text) = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q=")) {
            let q: f64 = text.trim().parse().unwrap_or(0.0);
            // NaN compares false and so becomes 0 by the cast.
            return (q.clamp(0.0, 1.0) * 1000.0) as u16;
        }
    }
    1000
}

/// Quality, then how specifically it was named, then how early.
type Preference = (u16, u8, std::cmp::Reverse<usize>);

/// The offer with the highest quality. For each offer the most specific range that matches it counts
/// (so `text/plain;q=0, */*` refuses text); of equals the more specifically named wins, then the one named
/// first, then ours.
fn choose<T: Copy>(accept: Option<&str>, offers: &[Offer<T>]) -> T {
    let accept = accept.unwrap_or("*/*");
    let mut best: Option<(Preference, T)> = None;
    for offer in offers {
        let matched = accept
            .split(',')
            .enumerate()
            .filter_map(|(place, range)| {
                let (specificity, q) = match_range(range, offer)?;
                Some((specificity, q, place))
            })
            .max_by_key(|(specificity, q, place)| (*specificity, *q, std::cmp::Reverse(*place)));
        let Some((specificity, q, place)) = matched else { continue };
        // Among offers that only `*/*` names, place is equal and the first offer stays.
        let key = (q, specificity, std::cmp::Reverse(place));
        if q > 0 && best.as_ref().is_none_or(|(held, _)| key > *held) {
            best = Some((key, offer.answer));
        }
    }
    best.map_or(offers[0].answer, |(_, answer)| answer)
}

/// How specifically a media range names an offer (0 `*/*`, 1 `type/*`, 2 the type, 3 with a parameter of it)
/// and its quality; `None` when it does not.
fn match_range<T>(range: &str, offer: &Offer<T>) -> Option<(u8, u16)> {
    let mut parts = range.split(';').map(str::trim);
    let (kind, subtype) = parts.next()?.split_once('/')?;
    let parameters: Vec<&str> = parts.collect();
    let q = quality(parameters.iter().copied());
    if kind == "*" && subtype == "*" {
        return Some((0, q));
    }
    if !kind.eq_ignore_ascii_case(offer.kind) {
        return None;
    }
    if subtype == "*" {
        return Some((1, q));
    }
    if !subtype.eq_ignore_ascii_case(offer.subtype) {
        return None;
    }
    let mut specificity = 2;
    for (key, ours) in offer.parameters {
        let asked = parameters.iter().find_map(|parameter| parameter.split_once('=').filter(|(k, _)| k == key));
        match asked {
            Some((_, asked)) if asked.trim_matches('"') == *ours => specificity = 3,
            Some(_) => return None,
            None => {}
        }
    }
    Some((specificity, q))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(accept: &str, expected: Format) {
        assert_eq!(scrape_format(Some(accept)), expected, "{accept}");
    }

    #[test]
    fn scrape_formats_by_quality() {
        assert_eq!(scrape_format(None), Format::Text);
        check("", Format::Text);
        check("*/*", Format::Text);
        check("text/plain", Format::Text);
        check("text/*;q=0.3", Format::Text);
        check("application/openmetrics-text", Format::OpenMetrics);
        check("application/openmetrics-text; version=1.0.0; charset=utf-8", Format::OpenMetrics);
        check("application/openmetrics-text;version=0.0.1", Format::Text);
        check("application/openmetrics-text;version=0.0.1,text/plain;version=0.0.4;q=0.5", Format::Text);
        check("application/json", Format::ApiJson);
        check("APPLICATION/JSON", Format::ApiJson);
        check("application/json;q=0.2, text/plain;q=0.1", Format::ApiJson);
        check("application/json;q=0.1, text/plain;q=0.2", Format::Text);
        check("application/json, */*;q=0.8", Format::ApiJson);
        check("text/plain;q=0, */*;q=0.5", Format::OpenMetrics);
        check("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8", Format::Text);
        check("image/png", Format::Text);
        check("garbage;;;q=,,/", Format::Text);
        check("text/plain;q=NaN,application/json;q=0.1", Format::ApiJson);
        check("application/vnd.google.protobuf", Format::Protobuf);
        check("application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text", Format::Text);
        check("application/vnd.google.protobuf;encoding=delimited;proto=other.Family,text/plain;q=0.1", Format::Text);
        check("application/vnd.google.protobuf;q=0.1,text/plain;q=0.2", Format::Text);
        // Prometheus 2.42, without native histograms and with them; 2.48 with them; 3.x without and with them.
        check(
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Format::OpenMetrics,
        );
        check(
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
             application/openmetrics-text;version=1.0.0;q=0.8,application/openmetrics-text;version=0.0.1;q=0.75,\
             text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Format::Protobuf,
        );
        check(
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.5,\
             application/openmetrics-text;version=1.0.0;q=0.4,application/openmetrics-text;version=0.0.1;q=0.3,\
             text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            Format::Protobuf,
        );
        check(
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;\
             escaping=allow-utf-8;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,\
             application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,\
             text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            Format::Protobuf,
        );
        check(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
             application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,\
             text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            Format::OpenMetrics,
        );
    }

    #[test]
    fn pages_unless_json_is_preferred() {
        assert!(!prefers_json(None));
        assert!(!prefers_json(Some("*/*")));
        assert!(!prefers_json(Some("text/html,application/xhtml+xml,*/*;q=0.8")));
        assert!(prefers_json(Some("application/json")));
        assert!(prefers_json(Some("application/json, text/html;q=0.9")));
    }

    #[test]
    fn gzip_only_when_asked() {
        for (header, expected) in [
            ("gzip", true),
            ("gzip, deflate, br", true),
            ("x-gzip;q=0.5", true),
            ("*", true),
            ("", false),
            ("identity", false),
            ("gzip;q=0", false),
            ("gzip;q=0, *", false),
            ("gzip;q=0.2, identity;q=0.9", false),
            ("deflate", false),
        ] {
            assert_eq!(reads_gzip(Some(header)), expected, "{header}");
        }
        assert!(!reads_gzip(None));
    }
}
