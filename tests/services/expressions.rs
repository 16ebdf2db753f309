//! Expressions against Debian's Prometheus: the same data, the queries of `expressions.txt`, both answers.
//!
//! In: counters, gauges and a distribution over seventy minutes, a value per ten-second slice. Out: for Prometheus a TSDB
//! block with a sample at each slice edge, for us rows of slices in memory. Selectors, operators, aggregations and
//! functions over time are equal; rates are equal to an oracle of ours, and Prometheus's to an oracle of its
//! extrapolation, so nothing between the two is unexplained; quantiles lie within their stated bound of the exact ones.

mod world;

use crate::harness::server::free_port;
use crate::harness::{Home, http, wait};
use crate::peers;
use hydrograph::Timestamp;
use hydrograph::query::{Expression, Value, evaluate, evaluate_range};
use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use world::{SLICE, T0, World};

/// Prometheus, and its end.
struct Peer {
    child: Child,
    address: String,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Labels with the name among them.
type Labels = BTreeMap<String, String>;

/// An answer of either side, comparable. Errors carry no words: the two speak differently.
#[derive(Clone, Debug, PartialEq)]
enum Answer {
    Refused,
    Text(String),
    /// Also scalars: one point without labels.
    Series {
        is_scalar: bool,
        series: BTreeMap<Labels, Vec<(i64, f64)>>,
        order: Vec<f64>,
    },
}

impl Peer {
    /// Prometheus on a block made of this text.
    fn start(home: &Home, openmetrics: &str) -> Option<Peer> {
        let test = "expressions";
        let (prometheus, promtool) = (peers::find_or_skip(test, "prometheus")?, peers::find_or_skip(test, "promtool")?);
        let input = home.write("data.om", openmetrics);
        let blocks = home.path().join("blocks");
        let mut make = Command::new(promtool);
        make.args(["tsdb", "create-blocks-from", "openmetrics"]).arg(&input).arg(&blocks);
        peers::run(&mut make, b"");
        let config = home.write("prometheus.yml", "global: {}\n");
        let address = format!("127.0.0.1:{}", free_port());
        let mut command = Command::new(prometheus);
        command.arg(format!("--config.file={}", config.display())).arg(format!("--web.listen-address={address}"));
        command.arg(format!("--storage.tsdb.path={}", blocks.display())).arg("--storage.tsdb.retention.time=100y");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir(home.path());
        let peer = Peer { child: command.spawn().expect("Prometheus starts"), address };
        wait::until("Prometheus to answer", || {
            let answer = http::request(&peer.address, "GET", "/-/ready", &[], b"").ok()?;
            (answer.status == 200).then_some(())
        });
        Some(peer)
    }

    fn get(&self, path: &str, expr: &str, rest: &str) -> Answer {
        let mut path = format!("/api/v1/{path}?{rest}&query=");
        expr.bytes().for_each(|byte| path.push_str(&format!("%{byte:02X}")));
        let answer = http::request(&self.address, "GET", &path, &[], b"").expect("Prometheus answers");
        if answer.status != 200 {
            return Answer::Refused;
        }
        let json = answer.json();
        let result = &json["data"]["result"];
        let point = |pair: &serde_json::Value| {
            let millis = (pair[0].as_f64().expect("a time") * 1_000.0).round() as i64;
            (millis, pair[1].as_str().expect("a value").parse::<f64>().expect("a number"))
        };
        let (mut series, mut order) = (BTreeMap::new(), Vec::new());
        let kind = json["data"]["resultType"].as_str().expect("a type");
        match kind {
            "string" => return Answer::Text(result[1].as_str().expect("a string").to_owned()),
            "scalar" => drop(series.insert(Labels::new(), vec![point(result)])),
            _ => {
                for one in result.as_array().expect("a list") {
                    let labels = one["metric"].as_object().expect("labels").iter();
                    let labels = labels.map(|(k, v)| (k.clone(), v.as_str().expect("text").to_owned())).collect();
                    let points: Vec<(i64, f64)> = match one["values"].as_array() {
                        Some(values) => values.iter().map(point).collect(),
                        None => vec![point(&one["value"])],
                    };
                    order.push(points[0].1);
                    series.insert(labels, points);
                }
            }
        }
        Answer::Series { is_scalar: kind == "scalar", series, order }
    }

    fn instant(&self, expr: &str, time: i64) -> Answer {
        self.get("query", expr, &format!("time={time}"))
    }

    fn range(&self, expr: &str, start: i64, end: i64, step: i64) -> Answer {
        self.get("query_range", expr, &format!("start={start}&end={end}&step={step}"))
    }
}

fn labels_of(name: &Option<std::sync::Arc<str>>, labels: &hydrograph::Labels) -> Labels {
    let mut all: Labels = labels.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    all.extend(name.as_ref().map(|name| ("__name__".to_owned(), name.to_string())));
    all
}

fn own(world: &World, expr: &str, time: i64, range: Option<(i64, i64)>) -> Answer {
    let Ok(expression) = Expression::parse(expr) else { return Answer::Refused };
    let at = Timestamp::from_seconds;
    let outcome = match range {
        None => evaluate(&expression, &world.memory, at(time)),
        Some((end, step)) => evaluate_range(&expression, &world.memory, at(time), at(end), step * 1_000_000_000),
    };
    let (mut all, mut order, mut is_scalar) = (BTreeMap::new(), Vec::new(), false);
    match outcome {
        Err(_) => return Answer::Refused,
        Ok(Value::String(text)) => return Answer::Text(text),
        Ok(Value::Scalar(value)) => {
            is_scalar = true;
            all.insert(Labels::new(), vec![(time * 1_000, value)]);
        }
        Ok(Value::Vector(samples)) => {
            for sample in samples {
                order.push(sample.value);
                all.insert(labels_of(&sample.name, &sample.labels), vec![(time * 1_000, sample.value)]);
            }
        }
        Ok(Value::Matrix(series)) => {
            for one in series {
                let points: Vec<_> = one.points.iter().map(|p| (p.time.0 / 1_000_000, p.value)).collect();
                order.push(points[0].1);
                all.insert(labels_of(&one.name, &one.labels), points);
            }
        }
    }
    Answer::Series { is_scalar, series: all, order }
}

fn is_near(a: f64, b: f64) -> bool {
    (a.is_nan() && b.is_nan()) || a == b || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}

/// What differs between two answers; `None` when nothing does.
fn difference(ours: &Answer, theirs: &Answer, is_ordered: bool) -> Option<String> {
    let (
        Answer::Series { is_scalar: a, series: own, order: first },
        Answer::Series { is_scalar: b, series: other, order: second },
    ) = (ours, theirs)
    else {
        return (ours != theirs).then(|| format!("{ours:?}, Prometheus {theirs:?}"));
    };
    if a != b {
        return Some("one is a scalar".to_owned());
    }
    if own.keys().ne(other.keys()) {
        let only = |a: &BTreeMap<Labels, _>, b: &BTreeMap<Labels, _>| -> Vec<Labels> {
            a.keys().filter(|key| !b.contains_key(*key)).cloned().collect()
        };
        return Some(format!("only ours {:?}, only Prometheus's {:?}", only(own, other), only(other, own)));
    }
    for (labels, points) in own {
        let theirs = &other[labels];
        let is_same =
            points.len() == theirs.len() && points.iter().zip(theirs).all(|(a, b)| a.0 == b.0 && is_near(a.1, b.1));
        if !is_same {
            return Some(format!("{labels:?}: {points:?}, Prometheus {theirs:?}"));
        }
    }
    let is_in_order = !is_ordered || first.iter().zip(second).all(|(a, b)| is_near(*a, *b));
    (!is_in_order).then(|| format!("order {first:?}, Prometheus {second:?}"))
}

/// Queries of one mark, each split into so many words, the last taking the rest.
fn queries(mark: &str, words: usize) -> Vec<Vec<&'static str>> {
    let lines = include_str!("expressions.txt").lines().filter_map(|line| line.strip_prefix(mark)?.strip_prefix(' '));
    lines.map(|line| line.splitn(words, ' ').collect()).collect()
}

/// The middle of a slice: see the file of queries.
const TIMES: [i64; 3] = [T0 + 905, T0 + 2_445, T0 + 3_995];

#[test]
fn expressions_answer_as_prometheus_does() {
    let world = World::new();
    let home = Home::new();
    let Some(peer) = Peer::start(&home, &world.openmetrics) else { return };
    let mut wrong = Vec::new();
    let equal = queries("=", 1);
    for query in &equal {
        let expr = query[0];
        let is_ordered = expr.starts_with("sort");
        for time in TIMES {
            let (ours, theirs) = (own(&world, expr, time, None), peer.instant(expr, time));
            if theirs == Answer::Refused {
                wrong.push(format!("{expr}: Prometheus refuses it"));
            } else if let Some(difference) = difference(&ours, &theirs, is_ordered) {
                wrong.push(format!("{expr} at +{}: {difference}", time - T0));
            }
        }
        // Steps of whole slices keep every time in the middle of one.
        let (start, end, step) = (T0 + 615, T0 + 2_995, 70);
        let (ours, theirs) = (own(&world, expr, start, Some((end, step))), peer.range(expr, start, end, step));
        // A range of times has no scalars.
        let ours = match ours {
            Answer::Series { series, order, .. } => Answer::Series { is_scalar: false, series, order },
            other => other,
        };
        if let Some(difference) = difference(&ours, &theirs, false) {
            wrong.push(format!("{expr} over a range: {difference}"));
        }
    }
    let refused = queries("!", 1);
    for query in &refused {
        if own(&world, query[0], TIMES[0], None) != Answer::Refused {
            wrong.push(format!("{} is not refused", query[0]));
        }
        if peer.instant(query[0], TIMES[0]) != Answer::Refused {
            wrong.push(format!("Prometheus does not refuse {}", query[0]));
        }
    }
    assert!(equal.len() + refused.len() >= 300, "{} queries are no corpus", equal.len() + refused.len());
    assert!(wrong.is_empty(), "{} answers differ:\n{}", wrong.len(), wrong.join("\n"));
}

fn seconds_of(range: &str) -> i64 {
    let (number, unit) = range.split_at(range.len() - 1);
    number.parse::<i64>().expect("a number") * if unit == "m" { 60 } else { 1 }
}

fn of_series(answer: Answer) -> BTreeMap<Labels, f64> {
    let Answer::Series { series, .. } = answer else { panic!("{answer:?} is no vector") };
    series.into_iter().map(|(labels, points)| (labels, points[0].1)).collect()
}

#[test]
fn q1_rates_are_the_oracles_and_prometheus_extrapolates() {
    let world = World::new();
    let home = Home::new();
    let Some(peer) = Peer::start(&home, &world.openmetrics) else { return };
    let mut wrong = Vec::new();
    let mut compared = 0;
    for query in queries("o", 3) {
        let [function, selector, range] = query[..] else { panic!("{query:?} has three words") };
        let expr = format!("{function}({selector}[{range}])");
        for time in TIMES {
            let (ours, theirs) = (of_series(own(&world, &expr, time, None)), of_series(peer.instant(&expr, time)));
            let series = world.matching(selector);
            assert_eq!((ours.len(), theirs.len()), (series.len(), series.len()), "{expr}: {ours:?}, {theirs:?}");
            for series in series {
                let labels = series.labels();
                let oracle = series.oracle(function, time, seconds_of(range));
                let extrapolated = series.extrapolated(function, time, seconds_of(range));
                if !is_near(ours[&labels], oracle) || !is_near(theirs[&labels], extrapolated) {
                    let (ours, theirs) = (ours[&labels], theirs[&labels]);
                    wrong.push(format!("{expr} {labels:?} at +{}: {ours}, oracle {oracle}; Prometheus {theirs}, extrapolation {extrapolated}", time - T0));
                }
                compared += 1;
            }
        }
    }
    assert!(compared > 500, "{compared} rates are no corpus");
    assert!(wrong.is_empty(), "{} rates differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn v4_quantiles_are_within_their_bound_and_in_prometheus_bucket() {
    let world = World::new();
    let home = Home::new();
    let Some(peer) = Peer::start(&home, &world.openmetrics) else { return };
    for query in queries("q", 2) {
        let [quantile, range] = query[..] else { panic!("{query:?} has two words") };
        let (q, seconds) = (quantile.parse::<f64>().expect("a number"), seconds_of(range));
        for (time, path) in TIMES.into_iter().flat_map(|time| ["/", "/api"].map(|path| (time, path))) {
            let what = format!("{quantile} of {path} over {range} at +{}", time - T0);
            let exact = world.exact_quantile(path, q, time, seconds);
            // From the cells: within the stated bound.
            let text = format!("histogram_quantile({quantile}, rate(latency_seconds{{path=\"{path}\"}}[{range}]))");
            let expression = Expression::parse(&text).expect("an expression");
            let value = evaluate(&expression, &world.memory, Timestamp::from_seconds(time)).expect("a value");
            let Value::Vector(samples) = value else { panic!("{text} is a vector") };
            let (native, quality) = (samples[0].value, samples[0].quality.expect("a quantile has a quality"));
            assert!(quality.bound <= 0.01, "{what}: bound {}", quality.bound);
            assert!((native - exact).abs() <= quality.bound * exact, "{what}: {native}, exactly {exact}");
            assert_eq!(quality.count, world.values(path, time, seconds).len() as f64, "{what}");
            // From the buckets: ours by the interpolation of exact counts, Prometheus's by that of extrapolated ones.
            let text =
                format!("histogram_quantile({quantile}, rate(latency_seconds_bucket{{path=\"{path}\"}}[{range}]))");
            let only = |answer| *of_series(answer).values().next().expect("one series");
            let (ours, theirs) = (only(own(&world, &text, time, None)), only(peer.instant(&text, time)));
            let rates = |function: &dyn Fn(&world::Raw) -> f64| -> Vec<(f64, f64)> {
                world.buckets(path).into_iter().map(|(bound, series)| (bound, function(series))).collect()
            };
            let oracle = world::interpolated(q, &rates(&|series| series.oracle("rate", time, seconds)));
            assert!(is_near(ours, oracle), "{what}: {ours}, oracle {oracle}");
            let extrapolated = world::interpolated(q, &rates(&|series| series.extrapolated("rate", time, seconds)));
            assert!(is_near(theirs, extrapolated), "{what}: Prometheus {theirs}, extrapolation {extrapolated}");
            // Both name the bucket that holds the exact one, or, where a slice at the edge decides, the next.
            let place = |value: f64| world::BOUNDS.iter().filter(|bound| **bound < value).count();
            assert!(place(ours).abs_diff(place(exact)) <= 1, "{what}: {ours}, exactly {exact}");
            assert!(place(theirs).abs_diff(place(exact)) <= 1, "{what}: Prometheus {theirs}, exactly {exact}");
        }
    }
    assert_eq!(SLICE, 10, "the queries' times are chosen for slices of ten seconds");
}
