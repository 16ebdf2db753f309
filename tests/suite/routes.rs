//! The routes and verbs of the contract, as a client meets them.

use crate::harness::{Home, Launch, Pipeline, http};
use crate::load::Target;
use std::io::Read;

const TEXT: &[(&str, &str)] = &[("Content-Type", "text/plain")];

/// The first scrape formats: types, gzip, filters, groups.
#[test]
fn metrics_in_every_format() {
    let home = Home::new();
    let pipeline = Pipeline::new();
    let server = pipeline.start(&home);
    let lines = b"shop.orders:3|c|#region:eu\nshop.took:40|ms\ndatadog.dogstatsd.client.metrics:9|c|#client:py\n";
    assert_eq!(server.post("/api/v1/lines", TEXT, lines).status, 200);

    let text = server.get("/metrics");
    assert!(text.text().contains("shop_orders_total{region=\"eu\"} 3\n"), "{}", text.text());
    assert!(text.text().contains("# TYPE shop_took_seconds summary\n"));
    assert!(text.text().contains("timing received as shop.took"));
    assert!(!text.text().contains("hydrograph_client_"), "client telemetry stays out of sight");
    let internal = server.get("/metrics/internal");
    assert!(internal.text().contains("hydrograph_client_"), "{}", internal.text());

    let zipped = server.get_with("/metrics", &[("Accept-Encoding", "gzip")]);
    assert_eq!(zipped.headers.get("content-encoding").map(String::as_str), Some("gzip"));
    let mut unzipped = String::new();
    flate2::read::GzDecoder::new(&zipped.body[..]).read_to_string(&mut unzipped).expect("gzip reads back");
    assert!(unzipped.contains("shop_orders_total{region=\"eu\"} 3\n"));

    let accept = [("Accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1")];
    let open = server.get_with("/metrics", &accept);
    assert!(open.content_type().starts_with("application/openmetrics-text; version=1.0.0"), "{:?}", open.headers);
    assert!(open.text().ends_with("# EOF\n") && open.text().contains("# TYPE shop_orders counter\n"));
    assert!(!open.text().contains("_created"), "creation times only when asked for");

    let one = server.get("/metrics?name[]=shop_orders_total");
    assert!(one.text().contains("shop_orders_total") && !one.text().contains("shop_took"), "{}", one.text());

    let unknown = server.get("/metrics/nothing");
    assert_eq!(unknown.status, 404);
    assert!(unknown.text().contains("internal"), "an unknown group answers with the list: {}", unknown.text());

    let json = server.get("/metrics.json").json();
    let orders = &json["shop_orders_total"];
    assert_eq!(orders["type"], "counter");
    assert_eq!(orders["samples"][0]["value"], 3.0);
    assert_eq!(orders["samples"][0]["labels"]["region"], "eu");
    let took = &json["shop_took_seconds"]["samples"][0];
    assert_eq!((took["count"].as_f64(), took["sum"].as_f64()), (Some(1.0), Some(0.04)));
    assert_eq!(took["value"], took["count"]);
}

/// `GET /api/metrics` in its formats, and groups with every format.
#[test]
fn d40_d41_d42_d43_api_metrics_in_four_formats() {
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    pipeline.tail =
        "[metrics.took_seconds]\ntype = \"histogram\"\nhelp = \"Took\"\nbuckets = [0.01, 0.1]\ngroup = \"shop\"\n\
                     [metrics.orders_total]\ntype = \"counter\"\nhelp = \"Orders\"\n"
            .to_owned();
    let server = pipeline.start(&home);
    let lines = b"orders:3|c|#region:e u,env:prod\ntook:40|ms|#env:prod,team:a\ntook:60|ms|#env:prod,team:a\n";
    let answer = server.post("/api/v1/lines", TEXT, lines);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let prometheus = server.get("/api/metrics");
    assert!(prometheus.text().contains("took_seconds_bucket{le=\"0.1\"} 2\n"), "{}", prometheus.text());
    assert_eq!(server.get("/api/metrics?format=prometheus").content_type(), prometheus.content_type());
    let json = server.get("/api/metrics?format=json").json();
    assert!(json["timestamp"].is_string() && json["uptime_seconds"].is_number());
    assert_eq!(json["metrics"]["took_seconds"]["value"], 2);
    assert_eq!(
        server.get_with("/metrics", &[("Accept", "application/json")]).json()["metrics"]["orders_total"]["value"],
        3
    );
    let csv = server.get("/api/metrics?format=csv&name[]=took_seconds");
    assert!(csv.content_type().starts_with("text/csv"), "{:?}", csv.headers);
    let rows: Vec<&str> = csv.text().split("\r\n").collect();
    assert_eq!(rows.len(), 3, "{rows:?}");
    assert!(
        rows[1].starts_with("took_seconds,histogram,seconds,,") && rows[1].contains(",2,2,0.1,0.05,0.04,0.06,"),
        "{rows:?}"
    );
    let influx = server.get("/api/metrics?format=influx&name[]=orders_total");
    assert!(influx.text().starts_with("orders_total value=3 1"), "{}", influx.text());
    let unknown = server.get("/api/metrics?format=xml");
    assert_eq!((unknown.status, unknown.json()["formats"][3].as_str()), (400, Some("influx")));
    let group = server.get("/metrics/shop");
    assert!(group.text().contains("took_seconds_count 2\n") && !group.text().contains("orders"), "{}", group.text());
    // The tags that a declared metric does not name, by metric.
    let dropped = server.get("/metrics?name[]=hydrograph_labels_dropped_total");
    for line in ["{metric=\"orders_total\"} 2\n", "{metric=\"took_seconds\"} 4\n"] {
        assert!(dropped.text().contains(&format!("hydrograph_labels_dropped_total{line}")), "{}", dropped.text());
    }
}

/// DogStatsD events and service checks with all their fields; a clash that says with what.
#[test]
fn recent_notices_and_clashes() {
    let home = Home::new();
    let pipeline = Pipeline::new();
    let server = pipeline.start(&home);
    let lines = b"_e{6,5}:deploy|to eu|d:1700000000|h:web1|k:rollout|p:low|s:ci|t:error|#env:prod,now\n\
                  _sc|db.up|2|h:db1|#role:primary|m:no answer\n_e{1,0}:x|\norders:1|c\norders_total:2|g\norders:x|c\n";
    assert_eq!(server.post("/api/v1/lines", TEXT, lines).status, 200);
    let checks = server.get("/api/v1/recent?kind=checks").json();
    assert_eq!(checks.as_array().map(Vec::len), Some(3), "{checks}");
    let check = &server.get("/api/v1/recent?kind=checks&name=db.up").json()[0];
    assert_eq!((check["kind"].as_str(), check["status"].as_str()), (Some("service_check"), Some("critical")));
    assert_eq!((check["text"].as_str(), check["host"].as_str()), (Some("no answer"), Some("db1")));
    let events = server.get("/api/v1/recent?kind=events&limit=1").json();
    assert_eq!((events.as_array().map(Vec::len), events[0]["name"].as_str()), (Some(1), Some("x")), "newest first");
    let event = &server.get("/api/v1/recent?kind=events&name=deploy").json()[0];
    let expected = serde_json::json!({
        "time": "2023-11-14T22:13:20Z", "source": event["source"], "text": "to eu", "kind": "event", "name": "deploy",
        "alert_type": "error", "priority": "low", "host": "web1", "aggregation_key": "rollout", "source_type": "ci",
        "tags": ["env:prod", "now"],
    });
    assert_eq!(*event, expected);
    let rejects = server.get("/api/v1/recent?kind=rejects").json();
    assert_eq!(
        (rejects[1]["reason"].as_str(), rejects[0]["reason"].as_str()),
        (Some("type_conflict"), Some("bad_value"))
    );
    let hint = rejects[1]["hint"].as_str().expect("a hint");
    assert_eq!(hint, "orders_total is a counter already: one name, one type");
}

/// `POST /api/v1/lines` answers after the commit, line by line, with what each became.
#[test]
fn lines_are_answered_one_by_one_after_the_commit() {
    let home = Home::new();
    let pipeline = Pipeline::new();
    let server = pipeline.start(&home);
    let answer = server.post("/api/v1/lines", TEXT, b"a.b:1|c|#x:y\na.b:2|c|#x:y\nload:1,2|d\nt:42|ms\n");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let rows: Vec<serde_json::Value> =
        answer.text().lines().map(|l| serde_json::from_str(l).unwrap_or_else(|e| panic!("{e}: {l}"))).collect();
    assert_eq!(rows.len(), 4, "{rows:?}");
    assert_eq!(rows[0]["line"], "a.b:1|c|#x:y");
    assert_eq!(rows[0]["series"], "a_b_total{x=\"y\"}");
    assert_eq!(rows[0]["kind"], "counter");
    assert_eq!(rows[1]["value"], 3.0, "{rows:?}");
    assert_eq!(rows[2]["reason"], "bad_value");
    assert!(rows[2]["hint"].as_str().is_some_and(|h| h.contains("\":\"")), "{rows:?}");
    // Durable when answered: a kill loses nothing of it.
    server.kill();
    let server = pipeline.start(&home);
    assert_eq!(server.scrape().value("a_b_total", &[("x", "y")]), Some(3.0));
}

#[test]
fn health_routes_and_the_token() {
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    let secret = home.write("token", "s3cret\n");
    pipeline.http_keys = format!("token_file = \"{}\"\n", secret.display());
    let server = pipeline.start(&home);
    for open in ["/healthz", "/readyz", "/-/healthy", "/-/ready"] {
        assert_eq!(server.get(open).status, 200, "{open}");
    }
    for closed in ["/", "/metrics", "/metrics.json", "/health", "/api/v1/recent?kind=rejects"] {
        let refused = server.get(closed);
        assert_eq!(refused.status, 401, "{closed}");
        assert_eq!(refused.headers.get("www-authenticate").map(String::as_str), Some("Bearer"), "{closed}");
        assert_eq!(server.get_with(closed, &[("Authorization", "Bearer wrong")]).status, 401, "{closed}");
        assert_eq!(server.get_with(closed, &[("Authorization", "Bearer s3cret")]).status, 200, "{closed}");
    }
    let health = server.get_with("/health", &[("Authorization", "Bearer s3cret")]).json();
    assert_eq!(health["status"], "ok", "{health}");
    assert_eq!(server.get_with("/nowhere", &[("Authorization", "Bearer s3cret")]).status, 404);
}

/// HTTP over a Unix socket, and the verbs that find an instance by URL.
#[test]
fn the_verbs_find_a_running_instance() {
    let home = Home::new();
    let pipeline = Pipeline::new();
    let text = pipeline.text().replace("[\"127.0.0.1:", "[\"unixstream:http.sock\", \"127.0.0.1:");
    let file = home.write("unix.toml", &text);
    let server = Launch::new(&home).arg("run").arg(file).start(&pipeline.address());
    let answer = http::request_unix(&home.socket("http.sock"), "/readyz").expect("the Unix socket answers");
    assert_eq!(answer.status, 200);

    let url = format!("http://{}", pipeline.address());
    let verb = |args: &[&str]| Launch::new(&home).args(args).env("HYDROGRAPH_URL", &url).finish();
    assert_eq!(verb(&["healthcheck"]).status.code(), Some(0));
    let sent = verb(&["send", "by.send:2|c"]);
    assert_eq!(sent.status.code(), Some(0), "{}", sent.said());
    assert!(sent.stdout.contains("by_send_total"), "{}", sent.said());
    let gram = format!("unixgram:{}", home.socket("dsd.socket").display());
    let made = verb(&["generate", "--to", &gram, "--events", "20000", "--series", "50", "--rate", "0"]);
    assert_eq!(made.status.code(), Some(0), "{}", made.said());
    assert!(made.stdout.lines().last().is_some_and(|l| l.contains("20000") || l.contains("20,000")), "{}", made.said());
    let scrape = server.await_laws(Some(20_000));
    assert_eq!(scrape.value("by_send_total", &[]), Some(2.0));

    let unix = format!("unixstream:{}", home.socket("http.sock").display());
    assert_eq!(Launch::new(&home).args(["healthcheck", "--url", &unix]).finish().status.code(), Some(0));
    let nobody = Launch::new(&home).args(["healthcheck", "--url", "http://127.0.0.1:1"]).finish();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(nobody.said().contains("127.0.0.1:1"), "{}", nobody.said());
}

/// `init` prints a file that `check` accepts, and `check` prints every exposed name.
#[test]
fn init_prints_what_check_accepts() {
    let home = Home::new();
    let init = Launch::new(&home).arg("init").finish();
    assert_eq!(init.status.code(), Some(0), "{}", init.said());
    let file = home
        .write("mine.toml", &format!("{}\n[metrics.jobs_total]\ntype = \"counter\"\nhelp = \"Jobs\"\n", init.stdout));
    let check = Launch::new(&home).arg("check").arg(&file).finish();
    assert_eq!(check.status.code(), Some(0), "{}", check.said());
    assert!(check.stdout.contains("jobs_total"), "{}", check.stdout);
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/pipelines/default.toml");
    assert_eq!(std::fs::read_to_string(shipped).expect("the shipped file"), init.stdout);
}

/// What later versions bring is neither listed nor there.
#[test]
fn what_is_not_there_is_not_listed() {
    let home = Home::new();
    let pipeline = Pipeline::new();
    let server = pipeline.start(&home);
    let help = Launch::new(&home).arg("--help").finish();
    assert_eq!(help.status.code(), Some(0));
    for verb in ["top", "grafana"] {
        assert!(!help.stdout.lines().any(|l| l.trim_start().starts_with(&format!("{verb} "))), "{verb} is in --help");
        assert_eq!(Launch::new(&home).arg(verb).finish().status.code(), Some(2), "{verb}");
    }
    for route in ["/api/v1/rules", "/api/v1/alerts", "/nothing"] {
        assert_eq!(server.get(route).status, 404, "{route}");
    }
    // There is no widget in this file, and nothing changed in it.
    assert_eq!(server.get("/api/metrics/dashboard?widget=any").status, 400);
    assert_eq!(server.post("/-/reload", &[], b"").status, 200);
}

/// The index as JSON names the listeners, and lists no route that is not there.
#[test]
fn the_index_lists_only_what_is_there() {
    let home = Home::new();
    let pipeline = Pipeline::new();
    let server = pipeline.start(&home);
    let mut client = Target::Gram(home.socket("dsd.socket")).connect().expect("a connection");
    client.send(b"index.hits:1|c\nindex.bad:x|c\n").expect("the socket takes a packet");
    server.await_laws(Some(2));
    let page = server.get_with("/", &[("Accept", "application/json")]);
    let index = page.json();
    assert!(page.text().contains("dsd.socket"), "{index}");
    assert!(page.text().contains("index_hits_total"), "{index}");
    let mut routes = Vec::new();
    collect_routes(&index, &mut routes);
    assert!(routes.iter().any(|r| r == "/metrics"), "{index}");
    for route in routes.iter().filter(|r| !r.contains('{')) {
        // A tap has no end; asked for a kind that is not there it answers at once.
        let asked = if route == "/api/v1/tap" { "/api/v1/tap?kind=nothing" } else { route };
        let status = server.get(asked).status;
        assert!(status != 404, "{route} is listed and not there");
    }
    for later in ["/api/v1/rules", "/api/v1/alerts"] {
        assert!(!page.text().contains(later), "{later} is listed before its time");
    }
}

/// Every string that is a path, wherever the page keeps it.
fn collect_routes(value: &serde_json::Value, routes: &mut Vec<String>) {
    match value {
        serde_json::Value::String(text) => {
            let path = text.split(' ').next_back().unwrap_or_default().trim_end_matches(')');
            let known = ["/metrics", "/health", "/readyz", "/-/", "/api/"];
            if known.iter().any(|k| path.starts_with(k)) {
                routes.push(path.split('?').next().unwrap_or_default().to_owned());
            }
        }
        serde_json::Value::Array(items) => items.iter().for_each(|v| collect_routes(v, routes)),
        serde_json::Value::Object(map) => map.values().for_each(|v| collect_routes(v, routes)),
        _ => {}
    }
}
