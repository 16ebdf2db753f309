//! A reader of Prometheus's protobuf for tests; it shares nothing with the writer.
//!
//! In: a body. Out: families as plain data, native buckets by absolute index. Source: client_model
//! `metrics.proto` and the encoding of protocol buffers. Invariant: anything unexpected is a panic.

/// One field of a message.
#[derive(Clone, Debug, PartialEq)]
enum Field<'a> {
    Varint(u64),
    Double(f64),
    Bytes(&'a [u8]),
}

/// A family.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Family {
    pub(crate) name: String,
    pub(crate) help: String,
    pub(crate) unit: String,
    /// The number of `MetricType`.
    pub(crate) kind: u64,
    pub(crate) series: Vec<Series>,
}

/// A `Metric`.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Series {
    pub(crate) labels: Vec<(String, String)>,
    /// Of a counter or gauge.
    pub(crate) value: f64,
    pub(crate) count: u64,
    /// The exact count, where samples stand for fractions.
    pub(crate) exact: Option<f64>,
    pub(crate) sum: f64,
    /// (quantile or upper bound, value or cumulative count)
    pub(crate) steps: Vec<(f64, f64)>,
    /// Exact cumulative counts of the same bounds, where there are any.
    pub(crate) exact_steps: Vec<f64>,
    /// Seconds and nanoseconds.
    pub(crate) created: Option<(i64, i64)>,
    pub(crate) native: Option<Native>,
}

/// Native buckets as the spans and deltas say.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Native {
    pub(crate) schema: i64,
    pub(crate) zero_threshold: f64,
    pub(crate) zero: f64,
    pub(crate) negative: Vec<(i64, f64)>,
    pub(crate) positive: Vec<(i64, f64)>,
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (first, rest) = bytes.split_first().expect("a varint ends");
        *bytes = rest;
        value |= u64::from(first & 0x7F) << shift;
        if first & 0x80 == 0 {
            return value;
        }
    }
    panic!("a varint has ten bytes at most")
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    taken
}

fn fields(mut bytes: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut fields = Vec::new();
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Varint(varint(&mut bytes)),
            1 => Field::Double(f64::from_le_bytes(take(&mut bytes, 8).try_into().expect("eight"))),
            2 => {
                let length = varint(&mut bytes) as usize;
                Field::Bytes(take(&mut bytes, length))
            }
            wire => panic!("wire type {wire}"),
        };
        fields.push((tag >> 3, field));
    }
    fields
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Reads a body.
pub(crate) fn families(mut body: &[u8]) -> Vec<Family> {
    let mut families = Vec::new();
    while !body.is_empty() {
        let length = varint(&mut body) as usize;
        families.push(family(take(&mut body, length)));
    }
    families
}

fn family(bytes: &[u8]) -> Family {
    let mut family = Family::default();
    for (number, field) in fields(bytes) {
        match (number, field) {
            (1, Field::Bytes(name)) => family.name = text(name),
            (2, Field::Bytes(help)) => family.help = text(help),
            (3, Field::Varint(kind)) => family.kind = kind,
            (4, Field::Bytes(metric)) => family.series.push(series(metric)),
            (5, Field::Bytes(unit)) => family.unit = text(unit),
            other => panic!("{other:?} in a family"),
        }
    }
    family
}

fn series(bytes: &[u8]) -> Series {
    let mut series = Series::default();
    for (number, field) in fields(bytes) {
        match (number, field) {
            (1, Field::Bytes(pair)) => {
                let parts = fields(pair);
                let [(1, Field::Bytes(key)), (2, Field::Bytes(value))] = parts[..] else { panic!("{parts:?}") };
                series.labels.push((text(key), text(value)));
            }
            (2 | 3, Field::Bytes(scalar)) => {
                for (number, field) in fields(scalar) {
                    match (number, field) {
                        (1, Field::Double(value)) => series.value = value,
                        (3, Field::Bytes(time)) => series.created = Some(timestamp(time)),
                        other => panic!("{other:?} in a scalar"),
                    }
                }
            }
            (4, Field::Bytes(summary)) => {
                for (number, field) in fields(summary) {
                    match (number, field) {
                        (1, Field::Varint(count)) => series.count = count,
                        (2, Field::Double(sum)) => series.sum = sum,
                        (3, Field::Bytes(step)) => {
                            let parts = fields(step);
                            let [(1, Field::Double(q)), (2, Field::Double(value))] = parts[..] else {
                                panic!("{parts:?}")
                            };
                            series.steps.push((q, value));
                        }
                        (4, Field::Bytes(time)) => series.created = Some(timestamp(time)),
                        other => panic!("{other:?} in a summary"),
                    }
                }
            }
            (7, Field::Bytes(body)) => histogram(&mut series, body),
            other => panic!("{other:?} in a metric"),
        }
    }
    series
}

fn timestamp(bytes: &[u8]) -> (i64, i64) {
    let parts = fields(bytes);
    let [(1, Field::Varint(seconds)), (2, Field::Varint(nanos))] = parts[..] else { panic!("{parts:?}") };
    (seconds as i64, nanos as i64)
}

fn histogram(series: &mut Series, bytes: &[u8]) {
    let mut native = Native::default();
    let (mut spans, mut deltas) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    let mut fractions = [Vec::new(), Vec::new()];
    let mut has_schema = false;
    for (number, field) in fields(bytes) {
        match (number, field) {
            (1, Field::Varint(count)) => series.count = count,
            (2, Field::Double(sum)) => series.sum = sum,
            (3, Field::Bytes(bucket)) => {
                let parts = fields(bucket);
                let [(1, Field::Varint(count)), (2, Field::Double(bound)), ref rest @ ..] = parts[..] else {
                    panic!("{parts:?}")
                };
                series.steps.push((bound, count as f64));
                match rest {
                    [] => {}
                    [(4, Field::Double(exact))] => series.exact_steps.push(*exact),
                    other => panic!("{other:?} in a bucket"),
                }
            }
            (4, Field::Double(exact)) => series.exact = Some(exact),
            (5, Field::Varint(schema)) => {
                native.schema = unzigzag(schema);
                has_schema = true;
            }
            (6, Field::Double(threshold)) => native.zero_threshold = threshold,
            (7, Field::Varint(zero)) => native.zero = zero as f64,
            (8, Field::Double(zero)) => native.zero = zero,
            (9 | 12, Field::Bytes(span)) => {
                let parts = fields(span);
                let [(1, Field::Varint(offset)), (2, Field::Varint(length))] = parts[..] else { panic!("{parts:?}") };
                spans[usize::from(number == 12)].push((unzigzag(offset), length));
            }
            (10 | 13, Field::Varint(delta)) => deltas[usize::from(number == 13)].push(unzigzag(delta)),
            (11 | 14, Field::Double(count)) => fractions[usize::from(number == 14)].push(count),
            (15, Field::Bytes(time)) => series.created = Some(timestamp(time)),
            other => panic!("{other:?} in a histogram"),
        }
    }
    if has_schema {
        let [negative, positive] = [0, 1].map(|side| {
            let mut count = 0;
            let whole = deltas[side].iter().map(|delta| {
                count += delta;
                count as f64
            });
            // Prometheus reads fractions if and only if the count is one.
            let counts = if series.exact.is_some() { fractions[side].clone() } else { whole.collect() };
            assert!(series.exact.is_none() || deltas[side].is_empty(), "one form or the other");
            buckets(&spans[side], &counts)
        });
        (native.negative, native.positive) = (negative, positive);
        series.native = Some(native);
    }
}

/// (index, count) of buckets that are not empty.
fn buckets(spans: &[(i64, u64)], counts: &[f64]) -> Vec<(i64, f64)> {
    let (mut index, mut counts) = (0, counts.iter());
    let mut buckets = Vec::new();
    for (at, (offset, length)) in spans.iter().enumerate() {
        assert!(at == 0 || *offset >= 0, "later spans are apart");
        index += offset;
        for _ in 0..*length {
            let count = counts.next().expect("a count for each bucket of a span");
            if *count != 0.0 {
                buckets.push((index, *count));
            }
            index += 1;
        }
    }
    assert_eq!(counts.next(), None, "no count without a bucket");
    buckets
}
