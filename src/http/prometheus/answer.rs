//! Answers in Prometheus's JSON.
//!
//! In: values, lists, words. Out: `{"status":"success","data":...}`, or nothing when it became too long. Owns: the bytes.
//! Invariants: numbers are written as Prometheus writes them (`web/api/v1/json_codec.go`, `util/jsonutil/marshal.go`); labels
//! are sorted with `__name__` among them; beside the values of quantiles stands `quality`, which Prometheus does not have and
//! its clients pass over: `{"bound","count","seconds","late","clamped"}`, of a range as `[time, {...}]` like its values.

use crate::codec::exposition::put_json_string;
use crate::event::{Labels, Timestamp};
use crate::query::{Histogram, Point, Quality, Sample, Series, Value};
use std::fmt::Write as _;
use std::sync::Arc;

/// Said beside an answer that a limit cut.
const CUT: &str = "results truncated due to limit";

/// An answer that is being written.
pub(super) struct Writer {
    out: Vec<u8>,
    bytes_max: usize,
    is_cut: bool,
}

impl Writer {
    pub(super) fn new(bytes_max: usize) -> Writer {
        Writer { out: b"{\"status\":\"success\",\"data\":".to_vec(), bytes_max, is_cut: false }
    }

    /// The whole answer; `None` when it is too long.
    pub(super) fn finish(mut self) -> Option<Vec<u8>> {
        if self.is_cut {
            self.raw(",\"warnings\":[");
            self.text(CUT);
            self.raw("]");
        }
        self.raw("}");
        (!self.is_full()).then_some(self.out)
    }

    fn is_full(&self) -> bool {
        self.out.len() > self.bytes_max
    }

    fn raw(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// A string.
    pub(super) fn text(&mut self, text: &str) {
        put_json_string(&mut self.out, text);
    }

    /// An object of strings.
    pub(super) fn object<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
        self.raw("{");
        for (at, (key, value)) in pairs.enumerate() {
            self.raw(if at == 0 { "" } else { "," });
            self.text(key);
            self.raw(":");
            self.text(value);
        }
        self.raw("}");
    }

    /// `[item, item]` of at most so many; false once it is too long.
    pub(super) fn list<T>(&mut self, items: &[T], limit: usize, mut put: impl FnMut(&mut Writer, &T)) -> bool {
        self.is_cut = items.len() > limit;
        self.raw("[");
        for (at, item) in items.iter().take(limit).enumerate() {
            self.raw(if at == 0 { "" } else { "," });
            put(self, item);
            if self.is_full() {
                return false;
            }
        }
        self.raw("]");
        true
    }

    /// `{name: [words], ...}`
    pub(super) fn families<'a>(
        &mut self,
        families: impl Iterator<Item = &'a crate::pipeline::queries::FamilyWords>,
        mut put: impl FnMut(&mut Writer, &'a crate::pipeline::queries::FamilyWords),
    ) -> bool {
        self.raw("{");
        for (at, family) in families.enumerate() {
            self.raw(if at == 0 { "" } else { "," });
            self.text(&family.name);
            self.raw(":[");
            put(self, family);
            self.raw("]");
        }
        self.raw("}");
        !self.is_full()
    }

    /// `{"resultType":..., "result":...}`; `at` is the time of an instant.
    pub(super) fn value(&mut self, value: &Value, at: Timestamp, limit: usize) -> bool {
        let kind = match value {
            Value::Scalar(_) => "scalar",
            Value::String(_) => "string",
            Value::Vector(_) => "vector",
            Value::Matrix(_) => "matrix",
        };
        let _ = write!(Text(&mut self.out), "{{\"resultType\":\"{kind}\",\"result\":");
        let is_whole = match value {
            Value::Scalar(value) => {
                self.pair(at, |out| put_number(out, *value));
                true
            }
            Value::String(text) => {
                self.pair(at, |out| put_json_string(out, text));
                true
            }
            Value::Vector(samples) => self.list(samples, limit, |out, sample| out.sample(sample, at)),
            Value::Matrix(series) => self.list(series, limit, Writer::series),
        };
        self.raw("}");
        is_whole
    }

    fn pair(&mut self, time: Timestamp, put: impl FnOnce(&mut Vec<u8>)) {
        self.raw("[");
        put_time(&mut self.out, time);
        self.raw(",");
        put(&mut self.out);
        self.raw("]");
    }

    fn metric(&mut self, name: &Option<Arc<str>>, labels: &Labels) {
        let mut pairs: Vec<(&str, &str)> = labels.iter().collect();
        pairs.extend(name.as_ref().map(|name| ("__name__", &**name)));
        pairs.sort_unstable();
        self.raw("{\"metric\":");
        self.object(pairs.into_iter());
    }

    fn sample(&mut self, sample: &Sample, at: Timestamp) {
        self.metric(&sample.name, &sample.labels);
        match &sample.histogram {
            Some(histogram) => {
                self.raw(",\"histogram\":");
                self.pair(at, |out| put_histogram(out, histogram));
            }
            None => {
                self.raw(",\"value\":");
                self.pair(at, |out| put_number(out, sample.value));
            }
        }
        if let Some(quality) = &sample.quality {
            self.raw(",\"quality\":");
            put_quality(&mut self.out, quality);
        }
        self.raw("}");
    }

    fn series(&mut self, series: &Series) {
        self.metric(&series.name, &series.labels);
        let points = &series.points;
        self.points("values", points, |point| point.histogram.is_none(), |out, point| put_number(out, point.value));
        self.points(
            "histograms",
            points,
            |point| point.histogram.is_some(),
            |out, point| {
                if let Some(histogram) = &point.histogram {
                    put_histogram(out, histogram);
                }
            },
        );
        self.points(
            "quality",
            points,
            |point| point.quality.is_some(),
            |out, point| {
                if let Some(quality) = &point.quality {
                    put_quality(out, quality);
                }
            },
        );
        self.raw("}");
    }

    /// `,"key":[[time, ...], ...]` of some points, unless there are none.
    fn points(
        &mut self,
        key: &str,
        points: &[Point],
        is_one: impl Fn(&Point) -> bool,
        put: impl Fn(&mut Vec<u8>, &Point),
    ) {
        let mut is_first = true;
        for point in points.iter().filter(|point| is_one(point)) {
            if self.is_full() {
                return;
            }
            match std::mem::replace(&mut is_first, false) {
                true => {
                    let _ = write!(Text(&mut self.out), ",\"{key}\":[");
                }
                false => self.raw(","),
            }
            self.pair(point.time, |out| put(out, point));
        }
        if !is_first {
            self.raw("]");
        }
    }
}

/// Lets `write!` write text into bytes.
struct Text<'o>(&'o mut Vec<u8>);

impl std::fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// Seconds with three digits behind the point, or none.
fn put_time(out: &mut Vec<u8>, time: Timestamp) {
    let millis = time.0.div_euclid(1_000_000);
    let sign = if millis < 0 { "-" } else { "" };
    let (seconds, rest) = (millis.unsigned_abs() / 1_000, millis.unsigned_abs() % 1_000);
    let _ = match rest {
        0 => write!(Text(out), "{sign}{seconds}"),
        rest => write!(Text(out), "{sign}{seconds}.{rest:03}"),
    };
}

/// A number as a string: as Go's `strconv` has it, without an exponent between 10⁻⁶ and 10²¹.
fn put_number(out: &mut Vec<u8>, value: f64) {
    out.push(b'"');
    let size = value.abs();
    let _ = match value {
        value if value.is_nan() => write!(Text(out), "NaN"),
        value if value.is_infinite() => write!(Text(out), "{}Inf", if value > 0.0 { '+' } else { '-' }),
        value if size == 0.0 || (1e-6..1e21).contains(&size) => write!(Text(out), "{value}"),
        value => {
            let text = format!("{value:e}");
            let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            write!(Text(out), "{digits}e{sign}{exponent:0>2}")
        }
    };
    out.push(b'"');
}

/// `{"count","sum","buckets":[[boundaries, lower, upper, count], ...]}`: boundaries are 0 where the upper bound belongs to
/// the bucket and 1 where the lower one does. Empty buckets are not told.
fn put_histogram(out: &mut Vec<u8>, histogram: &Histogram) {
    out.extend_from_slice(b"{\"count\":");
    put_number(out, histogram.count);
    out.extend_from_slice(b",\"sum\":");
    put_number(out, histogram.sum);
    let mut cells = histogram.cells.iter().filter(|(_, _, count)| *count != 0.0).peekable();
    if cells.peek().is_some() {
        out.extend_from_slice(b",\"buckets\":[");
        for (at, (lower, upper, count)) in cells.enumerate() {
            out.extend_from_slice(if at == 0 { b"[" } else { b",[" });
            out.push(if *upper <= 0.0 { b'0' } else { b'1' });
            for number in [lower, upper, count] {
                out.push(b',');
                put_number(out, *number);
            }
            out.push(b']');
        }
        out.push(b']');
    }
    out.push(b'}');
}

fn put_quality(out: &mut Vec<u8>, quality: &Quality) {
    for (key, number) in
        [("{\"bound\":", quality.bound), (",\"count\":", quality.count), (",\"seconds\":", quality.span)]
    {
        out.extend_from_slice(key.as_bytes());
        put_number(out, number);
    }
    for (key, count) in [(",\"late\":", quality.late), (",\"clamped\":", quality.clamped)] {
        out.extend_from_slice(key.as_bytes());
        let _ = match count {
            Some(count) => write!(Text(out), "{count}"),
            None => write!(Text(out), "null"),
        };
    }
    out.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::LabelsBuilder;

    fn shown(put: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        put(&mut out);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn numbers_and_times_as_go_writes_them() {
        for (value, expected) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
            (1e-6, "0.000001"),
            (1e-7, "1e-07"),
            (-2.5e-10, "-2.5e-10"),
            (f64::NAN, "NaN"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
        ] {
            assert_eq!(shown(|out| put_number(out, value)), format!("\"{expected}\""));
        }
        for (nanos, expected) in
            [(0, "0"), (1_500_000_000, "1.500"), (1_000_000, "0.001"), (-1_500_000_000, "-1.500"), (999, "0")]
        {
            assert_eq!(shown(|out| put_time(out, Timestamp(nanos))), expected);
        }
    }

    #[test]
    fn answers_are_prometheus_s_with_the_quality_beside() {
        let mut builder = LabelsBuilder::new();
        builder.push("Zone", "a\"b");
        let labels = builder.build().expect("fine");
        let quality = Quality { bound: 0.01, count: 3.0, span: 300.0, late: None, clamped: Some(0) };
        let sample = Sample {
            name: Some("x".into()),
            labels: labels.clone(),
            value: 0.5,
            histogram: None,
            quality: Some(quality),
        };
        let written = |value: &Value, limit| {
            let mut out = Writer::new(1 << 20);
            assert!(out.value(value, Timestamp(1_500_000_000), limit));
            String::from_utf8(out.finish().expect("short")).expect("text")
        };
        let quality_text = r#"{"bound":"0.01","count":"3","seconds":"300","late":null,"clamped":0}"#;
        assert_eq!(
            written(&Value::Vector(vec![sample.clone(), sample]), 1),
            format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{"Zone":"a\"b","__name__":"x"}},"value":[1.500,"0.5"],"quality":{quality_text}}}]}},"warnings":["{CUT}"]}}"#
            )
        );
        let histogram = Histogram { count: 3.0, sum: 0.5, cells: vec![(-2.0, -1.0, 1.0), (0.0, 1.0, 2.0)] };
        let point = |seconds, value, histogram: Option<Histogram>, quality| Point {
            time: Timestamp::from_seconds(seconds),
            value,
            histogram: histogram.map(Box::new),
            quality,
        };
        let points = vec![point(1, 2.0, None, Some(quality)), point(2, 3.0, Some(histogram), None)];
        assert_eq!(
            written(&Value::Matrix(vec![Series { name: None, labels, points }]), usize::MAX),
            format!(
                r#"{{"status":"success","data":{{"resultType":"matrix","result":[{{"metric":{{"Zone":"a\"b"}},"values":[[1,"2"]],"histograms":[[2,{{"count":"3","sum":"0.5","buckets":[[0,"-2","-1","1"],[1,"0","1","2"]]}}]],"quality":[[1,{quality_text}]]}}]}}}}"#
            )
        );
        assert_eq!(
            written(&Value::String("a\"".into()), usize::MAX),
            r#"{"status":"success","data":{"resultType":"string","result":[1.500,"a\""]}}"#
        );
        let mut full = Writer::new(64);
        assert!(!full.list(&["x".repeat(100)], usize::MAX, |out, text| out.text(text)));
        assert_eq!(full.finish(), None);
    }
}
