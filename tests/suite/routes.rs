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
    for verb in ["query", "export", "tap", "top", "demo", "test", "store", "grafana", "schema", "completions", "man"] {
        assert!(!help.stdout.lines().any(|l| l.trim_start().starts_with(&format!("{verb} "))), "{verb} is in --help");
        assert_eq!(Launch::new(&home).arg(verb).finish().status.code(), Some(2), "{verb}");
    }
    for route in ["/api/v1/query?query=up", "/api/metrics", "/api/metrics/dashboard", "/api/v1/labels", "/nothing"] {
        assert_eq!(server.get(route).status, 404, "{route}");
    }
    assert_eq!(server.post("/api/v1/events", &[], b"{}").status, 404);
    assert_eq!(server.post("/-/reload", &[], b"").status, 404);
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
        let status = server.get(route).status;
        assert!(status != 404, "{route} is listed and not there");
    }
    for later in ["/api/v1/query", "/api/v1/events", "/api/metrics/dashboard"] {
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
