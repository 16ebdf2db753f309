//! Prometheus's HTTP API against Debian's Prometheus, which scrapes the same instance: every call that Grafana's data source
//! makes, asked of both, and the two answers compared.
//!
//! In: some series of every type, left alone until both sides hold the same. Out: equal bodies, numbers within 1e-9, and
//! for errors the same status and `errorType`. Invariant: what only this program says (`quality`) is looked at alone.

use crate::harness::server::free_port;
use crate::harness::{Home, Pipeline, http, wait};
use crate::peers;
use serde_json::Value;
use std::process::{Child, Command, Stdio};

const FORM: [(&str, &str); 1] = [("Content-Type", "application/x-www-form-urlencoded")];

/// Prometheus, and its end.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Both sides by address.
struct Both {
    ours: String,
    theirs: String,
}

fn encoded(pairs: &[(&str, &str)]) -> String {
    let text = |text: &str| text.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    pairs.iter().map(|(key, value)| format!("{}={}", text(key), text(value))).collect::<Vec<_>>().join("&")
}

impl Both {
    /// The status and the body of one request to each: ours, theirs.
    fn ask(&self, method: &str, path: &str, pairs: &[(&str, &str)]) -> [(u16, Value); 2] {
        [&self.ours, &self.theirs].map(|address| {
            let (path, headers, body) = match method {
                "POST" => (format!("/api/v1/{path}"), &FORM[..], encoded(pairs)),
                _ => (format!("/api/v1/{path}?{}", encoded(pairs)), &[][..], String::new()),
            };
            let answer = http::request(address, method, &path, headers, body.as_bytes()).expect("an answer");
            (answer.status, answer.json())
        })
    }

    /// Both answer 200 and the same.
    fn agree(&self, path: &str, pairs: &[(&str, &str)]) -> Value {
        for method in ["POST", "GET"] {
            if method == "POST" && (path.starts_with("label/") || path == "metadata") {
                continue;
            }
            let [(status, ours), (their_status, theirs)] = self.ask(method, path, pairs);
            assert_eq!((status, their_status), (200, 200), "{method} {path} {pairs:?}: {ours} {theirs}");
            let (mine, other) = (comparable(&ours), comparable(&theirs));
            assert!(is_same(&mine, &other), "{method} {path} {pairs:?}:\n{mine}\n{other}");
        }
        let [(_, ours), _] = self.ask("GET", path, pairs);
        ours
    }

    /// Both refuse alike.
    fn refuse(&self, path: &str, pairs: &[(&str, &str)], status: u16, kind: &str) {
        for (side, (answered, body)) in ["ours", "theirs"].into_iter().zip(self.ask("GET", path, pairs)) {
            assert_eq!(answered, status, "{side} {path} {pairs:?}: {body}");
            assert_eq!((&body["status"], &body["errorType"]), (&"error".into(), &kind.into()), "{side} {path}");
            assert!(body["error"].is_string() && body["data"].is_null(), "{side} {path}: {body}");
        }
    }
}

/// Without what only we say, and lists of series in an order of their own.
fn comparable(value: &Value) -> Value {
    match value {
        Value::Object(pairs) => {
            pairs.iter().filter(|(key, _)| *key != "quality").map(|(k, v)| (k.clone(), comparable(v))).collect()
        }
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(comparable).collect();
            if items.iter().all(Value::is_object) {
                items.sort_by_key(|item| item.get("metric").unwrap_or(item).to_string());
            }
            Value::Array(items)
        }
        value => value.clone(),
    }
}

/// Equal, numbers in strings within 1e-9 of each other.
fn is_same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => match (a.parse::<f64>(), b.parse::<f64>()) {
            (Ok(x), Ok(y)) => (x.is_nan() && y.is_nan()) || x == y || (x - y).abs() <= 1e-9 * y.abs(),
            _ => a == b,
        },
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| is_same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, value)| b.get(key).is_some_and(|other| is_same(value, other)))
        }
        (a, b) => a == b,
    }
}

#[test]
fn grafana_s_calls_are_answered_as_prometheus_answers_them() {
    const TEST: &str = "grafana_s_calls_are_answered_as_prometheus_answers_them";
    let Some(program) = peers::find_or_skip(TEST, "prometheus") else { return };
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    pipeline.top = "name = \"t\"\nslice = \"1s\"\nlateness = \"2s\"\n".to_owned();
    pipeline.tail =
        "[metrics.shop_latency_seconds]\ntype = \"histogram\"\nhelp = \"Latency\"\nbuckets = [0.01, 0.1, 0.5]\n\
                     expose = [\"histogram\", \"summary\"]\n[metrics.shop_up]\ntype = \"gauge\"\nhelp = \"Up\"\n"
            .to_owned();
    let server = pipeline.start(&home);
    let mut lines = String::from("shop.up:1|g\nshop.users:ann|s\nshop.users:bob|s\n");
    for (at, region) in ["eu", "us", "a\\b"].into_iter().enumerate() {
        lines.push_str(&format!("shop.orders:{}|c|#region:{region},zone:z{at}\n", 41 + at));
        lines.push_str(&format!("shop.depth:{}.25|g|#region:{region}\n", at as i64 - 1));
        for millis in [5, 40, 400, 900] {
            lines.push_str(&format!("shop.latency:{millis}|ms\nshop.took:{}|ms|#region:{region}\n", millis + at));
        }
    }
    assert_eq!(server.post("/api/v1/lines", &[("Content-Type", "text/plain")], lines.as_bytes()).status, 200);

    let config = format!(
        "global: {{scrape_interval: 1s, scrape_timeout: 1s}}\nscrape_configs:\n- job_name: hydrograph\n  \
         static_configs: [{{targets: ['{}']}}]\n  metric_relabel_configs:\n  \
         - {{source_labels: [__name__], regex: 'shop_.*', action: keep}}\n  - {{regex: 'job|instance', action: labeldrop}}\n",
        pipeline.address()
    );
    let config = home.write("prometheus.yml", &config);
    let theirs = format!("127.0.0.1:{}", free_port());
    let mut command = Command::new(program);
    command.arg(format!("--config.file={}", config.display())).arg(format!("--web.listen-address={theirs}"));
    command.arg(format!("--storage.tsdb.path={}", home.path().join("prometheus").display()));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).current_dir(home.path());
    let _peer = Peer(command.spawn().expect("Prometheus starts"));
    let both = Both { ours: pipeline.address(), theirs };

    // Until both hold everything for some seconds: from then on nothing changes.
    let reached = wait::within(wait::PATIENCE, || {
        let query = "sum(shop_orders_total)";
        let answers = [&both.ours, &both.theirs].map(|address| {
            let path = format!("/api/v1/query?{}", encoded(&[("query", query)]));
            http::request(address, "GET", &path, &[], b"")
                .ok()
                .and_then(|answer| serde_json::from_slice::<Value>(&answer.body).ok())
        });
        let value = |answer: &Option<Value>| {
            answer.as_ref().and_then(|json| json["data"]["result"][0]["value"][1].as_str().map(str::to_owned))
        };
        let is_long = |address: &str| {
            let path = format!("/api/v1/query?{}", encoded(&[("query", "shop_orders_total offset 9s")]));
            let answer = http::request(address, "GET", &path, &[], b"").ok()?;
            let json: Value = serde_json::from_slice(&answer.body).ok()?;
            Some(json["data"]["result"].as_array()?.len() == 3)
        };
        let has_all = |address| is_long(address) == Some(true);
        let has_series = answers.iter().all(|answer| value(answer).is_some());
        (has_series && has_all(&both.ours) && has_all(&both.theirs)).then_some(())
    });
    assert!(reached.is_some(), "both hold the series");
    let path = format!("/api/v1/query?{}", encoded(&[("query", "time()")]));
    let now = http::request(&both.theirs, "GET", &path, &[], b"").expect("an answer").json();
    let now = now["data"]["result"][0].as_f64().expect("a time") as i64 - 1;
    let at = |seconds: i64| (now + seconds).to_string();
    let (start, time) = (at(-5), at(0));

    // Explore, panels, variables: values.
    for query in [
        "1+1",
        "\"text\"",
        "vector(0.1) / 3",
        "-1e-7 * 1e30",
        "1/0",
        "shop_orders_total",
        "shop_orders_total{region=~\"e.|u.\"}",
        "shop_up",
        "shop_depth",
        "sum by (region) (shop_orders_total)",
        "topk(2, shop_orders_total)",
        "shop_latency_seconds_bucket",
        "shop_latency_seconds_sum / shop_latency_seconds_count",
        "shop_latency_window_seconds",
        "shop_took_seconds{quantile=\"0.5\"}",
        "histogram_quantile(0.9, shop_latency_seconds_bucket)",
        "label_replace(shop_depth, \"x\", \"$1-\", \"region\", \"(.*)\")",
        "shop_orders_total * on (region) group_left () shop_depth",
        "rate(shop_orders_total[4s])",
        "absent(shop_nothing)",
        "shop_nothing",
        "shop_depth > bool 0",
        "shop_users",
        "time() - time()",
    ] {
        both.agree("query", &[("query", query), ("time", &time)]);
        if !query.starts_with('"') {
            both.agree("query_range", &[("query", query), ("start", &start), ("end", &time), ("step", "1")]);
            both.agree("query_range", &[("query", query), ("start", &start), ("end", &time), ("step", "2s")]);
        }
    }
    both.agree("query", &[("query", "1"), ("time", "2026-11-20T12:00:00.125Z")]);
    both.agree("query", &[("query", "1"), ("time", "1700000000.0625")]);
    both.agree("query", &[("query", "shop_up"), ("time", &time), ("timeout", "5s")]);

    // Each quantile says beside its value how right it is.
    let answer = both.agree("query", &[("query", "shop_took_seconds{region=\"eu\"}"), ("time", &time)]);
    let quantiles = answer["data"]["result"].as_array().expect("a list");
    assert_eq!(quantiles.len(), 4);
    for one in quantiles {
        let said = &one["quality"];
        assert_eq!((&said["bound"], &said["count"], &said["seconds"]), (&"0.01".into(), &"4".into(), &"300".into()));
        assert!(said.get("late").is_some() && said.get("clamped").is_some(), "{one}");
    }

    // Names and series.
    let ours_only = [("match[]", "{__name__=~\"shop_.+\"}"), ("start", &start), ("end", &time)];
    let series = both.agree("series", &ours_only);
    assert!(series["data"].as_array().expect("a list").len() > 20);
    for suffix in ["bucket", "sum", "count"] {
        both.agree("series", &[("match[]", &format!("shop_latency_seconds_{suffix}")), ("start", &start)]);
    }
    both.agree("series", &[("match[]", "shop_up"), ("match[]", "shop_depth{region=\"eu\"}"), ("end", &time)]);
    both.agree("series", &[("match[]", "shop_latency_seconds_bucket{le=\"0.1\"}")]);
    both.agree("series", &[("match[]", "shop_nothing")]);
    both.agree("series", &[("match[]", "shop_up"), ("start", "1"), ("end", "2")]);
    both.agree("labels", &ours_only);
    both.agree("labels", &[("match[]", "shop_up")]);
    both.agree("labels", &[("match[]", "shop_nothing")]);
    let names = both.agree("label/__name__/values", &ours_only);
    for name in ["shop_latency_seconds_bucket", "shop_latency_window_seconds", "shop_latency_window_seconds_sum"] {
        assert!(names["data"].as_array().expect("a list").contains(&name.into()), "{name}: {names}");
    }
    for label in ["region", "zone", "le", "quantile", "nothing"] {
        both.agree(&format!("label/{label}/values"), &ours_only);
        both.agree(&format!("label/{label}/values"), &[("match[]", "shop_took_seconds")]);
    }

    // What each family is. OpenMetrics, which Prometheus scrapes, names a counter without `_total`, and has units.
    let [(_, ours), (_, theirs)] = both.ask("GET", "metadata", &[]);
    let theirs = theirs["data"].as_object().expect("an object");
    for (family, words) in theirs.iter().filter(|(name, _)| name.starts_with("shop_")) {
        let name = if words[0]["type"] == "counter" { format!("{family}_total") } else { family.clone() };
        assert_eq!(ours["data"][&name], *words, "{name}");
    }
    assert_eq!(theirs.keys().filter(|name| name.starts_with("shop_")).count(), 7);
    let [(_, one), (_, other)] = both.ask("GET", "metadata", &[("metric", "shop_depth")]);
    assert_eq!(one, other);
    let [(_, one), (_, other)] = both.ask("GET", "metadata", &[("metric", "shop_depth"), ("limit", "0")]);
    assert_eq!(one, other);
    let [(status, ours), (_, theirs)] = both.ask("GET", "status/buildinfo", &[]);
    assert_eq!(status, 200);
    for key in theirs["data"].as_object().expect("an object").keys() {
        assert!(ours["data"][key].is_string(), "{key}: {ours}");
    }

    refusals(&both, &start, &time);
}

fn refusals(both: &Both, start: &str, time: &str) {
    for query in ["", "sum(", "nosuch(x)", "x[", "x{a=}", "rate(x)", "{}", "1 + \"a\""] {
        both.refuse("query", &[("query", query), ("time", time)], 400, "bad_data");
        both.refuse(
            "query_range",
            &[("query", query), ("start", start), ("end", time), ("step", "1")],
            400,
            "bad_data",
        );
    }
    for key in ["time", "timeout"] {
        both.refuse("query", &[("query", "shop_up"), (key, "soon")], 400, "bad_data");
    }
    let many = "shop_orders_total * on (nothing) shop_orders_total";
    both.refuse("query", &[("query", many), ("time", time)], 422, "execution");
    both.refuse("query_range", &[("query", many), ("start", start), ("end", time), ("step", "1")], 422, "execution");
    let twins = "label_replace(shop_depth, \"region\", \"x\", \"\", \"\")";
    both.refuse("query", &[("query", twins), ("time", time)], 422, "execution");
    for query in ["shop_up[1m]", "\"text\""] {
        let pairs = [("query", query), ("start", start), ("end", time), ("step", "1")];
        both.refuse("query_range", &pairs, 400, "bad_data");
    }
    for pairs in [
        &[("end", time), ("step", "1")][..],
        &[("start", start), ("step", "1")],
        &[("start", start), ("end", time)],
        &[("start", time), ("end", start), ("step", "1")],
        &[("start", start), ("end", time), ("step", "0")],
        &[("start", start), ("end", time), ("step", "-1s")],
        &[("start", "0"), ("end", "11001"), ("step", "1")],
        &[("start", "soon"), ("end", time), ("step", "1")],
    ] {
        both.refuse("query_range", &[&[("query", "shop_up")], pairs].concat(), 400, "bad_data");
    }
    both.agree("query_range", &[("query", "vector(1)"), ("start", "0"), ("end", "11000"), ("step", "1")]);
    both.refuse("series", &[], 400, "bad_data");
    for selector in ["", "{}", "sum(x)", "x{", "{a=~\".*\"}"] {
        both.refuse("series", &[("match[]", selector)], 400, "bad_data");
        both.refuse("labels", &[("match[]", selector)], 400, "bad_data");
        both.refuse("label/region/values", &[("match[]", selector)], 400, "bad_data");
    }
    both.refuse("series", &[("match[]", "x"), ("start", "soon")], 400, "bad_data");
    both.refuse("label/1a/values", &[], 400, "bad_data");
    both.refuse("metadata", &[("limit", "x")], 400, "bad_data");
}
