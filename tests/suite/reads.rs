//! Reading what is stored, as a user of the command line does: `query` and `export`.

use crate::harness::{Home, Launch, Pipeline};

const TEXT: &[(&str, &str)] = &[("Content-Type", "text/plain")];

const LINES: &[u8] = b"shop.orders:3|c|#region:eu\nshop.orders:4|c|#region:us\nshop.depth:1.5|g|#region:eu\n\
                       shop.took:40|ms|#region:eu\n";

fn start(home: &Home) -> (Pipeline, crate::harness::Server) {
    let mut pipeline = Pipeline::new();
    pipeline.top = "name = \"t\"\nslice = \"1s\"\nlateness = \"2s\"\n".to_owned();
    let server = pipeline.start(home);
    assert_eq!(server.post("/api/v1/lines", TEXT, LINES).status, 200);
    (pipeline, server)
}

#[test]
fn query_prints_tables_or_json_and_says_by_its_code_what_was_wrong() {
    let home = Home::new();
    let (_pipeline, server) = start(&home);
    let url = format!("http://{}", server.address);
    let query = |arguments: &[&str]| Launch::new(&home).args(["--url", &url, "query"]).args(arguments).finish();
    let shown = crate::harness::wait::until("the slice to close", || {
        let done = query(&["shop_orders_total"]);
        (done.status.code() == Some(0) && !done.stdout.is_empty()).then_some(done.stdout)
    });
    assert_eq!(shown, "shop_orders_total{region=\"eu\"}   3\nshop_orders_total{region=\"us\"}   4\n");
    assert_eq!(query(&["1 + 1"]).stdout, "2\n");
    let quantile = query(&["shop_took_seconds{quantile=\"0.5\"}"]);
    assert!(quantile.stdout.contains("   0.04   (±1 %, 1 samples in 300 s)\n"), "{}", quantile.stdout);
    let range = query(&["vector(7)", "--start", "1700000000", "--end", "2023-11-14T22:13:40Z", "--step", "10s"]);
    let expected = "{}\n  2023-11-14T22:13:20Z   7\n  2023-11-14T22:13:30Z   7\n  2023-11-14T22:13:40Z   7\n";
    assert_eq!(range.stdout, expected);
    assert_eq!(query(&["shop_orders_total", "--time", "-1h"]).stdout, "");
    let json = query(&["sum(shop_orders_total)", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["data"]["result"][0]["value"][1], "7");
    for (arguments, code, words) in [
        (&["sum("][..], 2, "1:5"),
        (&["nosuch(x)"], 2, "nosuch"),
        (&["x", "--time", "soon"], 2, "soon"),
        (&["shop_orders_total * on (nothing) shop_orders_total"], 1, "422"),
    ] {
        let done = query(arguments);
        assert_eq!(done.status.code(), Some(code), "{arguments:?}: {}", done.said());
        assert!(done.stderr.contains(words), "{arguments:?}: {}", done.said());
        assert_eq!(done.stdout, "");
    }
    drop(server);
    let done = query(&["1"]);
    assert_eq!(done.status.code(), Some(1), "nobody answers: {}", done.said());
}

#[test]
fn export_writes_the_current_values_of_the_series_that_are_meant() {
    let home = Home::new();
    let (_pipeline, server) = start(&home);
    let url = format!("http://{}", server.address);
    let export = |arguments: &[&str]| Launch::new(&home).args(["--url", &url, "export"]).args(arguments).finish();
    let all = export(&[]);
    assert!(all.stdout.contains("shop_orders_total{region=\"us\"} 4\n"), "{}", all.said());
    assert!(all.stdout.contains("\nhydrograph_up 1\n"), "what is rendered live is in it");
    let eu = export(&["--match", "{region=\"eu\"}"]);
    assert!(eu.stdout.contains("shop_orders_total{region=\"eu\"} 3\n"), "{}", eu.said());
    assert!(eu.stdout.contains("shop_took_seconds_count{region=\"eu\"} 1\n"), "{}", eu.said());
    assert!(!eu.stdout.contains("region=\"us\"") && !eu.stdout.contains("hydrograph_up"), "{}", eu.stdout);
    let open = export(&["--format", "openmetrics", "--match", "shop_orders_total"]);
    assert_eq!(
        open.stdout,
        "# TYPE shop_orders counter\n# HELP shop_orders counter received as shop.orders\n\
         shop_orders_total{region=\"eu\"} 3\nshop_orders_total{region=\"us\"} 4\n# EOF\n"
    );
    let lines = export(&["--format", "ndjson", "--match", "shop_depth", "--match", "shop_took_seconds"]);
    let rows: Vec<serde_json::Value> =
        lines.stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect();
    assert_eq!(rows.len(), 2, "{}", lines.stdout);
    assert_eq!((&rows[0]["name"], &rows[0]["value"]), (&"shop_depth".into(), &1.5.into()));
    assert_eq!(rows[1]["quantiles"]["0.5"], 0.04);
    let csv = export(&["--format", "csv", "--match", "{__name__=~\"shop_(depth|orders).*\",region!=\"us\"}"]);
    assert_eq!(csv.stdout.lines().count(), 3, "{}", csv.stdout);
    assert!(export(&["--format", "influx"]).stdout.contains("shop_orders_total,region=eu value=3 "));
    let json = export(&["--format", "json", "--match", "shop_depth"]);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).expect("JSON");
    assert_eq!(json["metrics"].as_object().map(|metrics| metrics.len()), Some(1), "{json}");

    let file = home.path().join("out.prom");
    std::fs::write(&file, "old").expect("written");
    let path = file.to_str().expect("text");
    for (arguments, code) in [(&["--match", "sum(x)", "--output", path][..], 2), (&["--match", "{"], 2)] {
        let refused = export(arguments);
        assert_eq!(refused.status.code(), Some(code), "{}", refused.said());
    }
    assert_eq!(std::fs::read_to_string(&file).expect("there"), "old");
    assert_eq!(export(&["--match", "shop_depth", "--output", path]).status.code(), Some(0));
    let text = std::fs::read_to_string(&file).expect("there");
    assert!(text.ends_with("shop_depth{region=\"eu\"} 1.5\n"), "{text}");
    drop(server);
    assert_eq!(export(&["--output", path]).status.code(), Some(1));
    assert_eq!(std::fs::read_to_string(&file).expect("there"), text);
    let left: Vec<_> =
        std::fs::read_dir(home.path()).expect("readable").flatten().map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{left:?}");
}

#[test]
fn export_writes_every_point_of_a_span_in_every_format() {
    let home = Home::new();
    let (_pipeline, server) = start(&home);
    let url = format!("http://{}", server.address);
    let export = |arguments: &[&str]| Launch::new(&home).args(["--url", &url, "export"]).args(arguments).finish();
    let meant = ["--since", "1h", "--match", "{__name__=~\"shop_.*\",region=\"eu\"}"];
    let of = |format: &str| export(&[&["--format", format], &meant[..]].concat());
    // The counter has a point at each edge, the gauge one where it was set.
    let text = crate::harness::wait::until("three slices to close", || {
        let done = of("prometheus");
        assert_eq!(done.status.code(), Some(0), "{}", done.said());
        (done.stdout.matches("shop_orders_total{region=\"eu\"} 3 ").count() >= 3).then_some(done.stdout)
    });
    assert_eq!(text.matches("# TYPE ").count(), 3, "{text}");
    assert_eq!(text.matches("shop_depth{region=\"eu\"} 1.5 ").count(), 1, "{text}");
    for name in
        ["shop_took_seconds{quantile=\"0.5\",region=\"eu\"} 0.04", "shop_took_seconds_sum", "shop_took_seconds_count"]
    {
        assert!(text.contains(name), "{name}: {text}");
    }
    assert!(!text.contains("region=\"us\""), "{text}");
    let times: Vec<i64> = text
        .lines()
        .filter(|line| line.starts_with("shop_orders_total"))
        .map(|line| line.rsplit(' ').next().expect("a time").parse().expect("milliseconds"))
        .collect();
    assert!(times.windows(2).all(|pair| pair[1] == pair[0] + 1_000), "{times:?}");
    let open = of("openmetrics").stdout;
    assert!(open.ends_with("# EOF\n") && open.contains("# TYPE shop_took_seconds_sum unknown\n"), "{open}");
    assert!(open.contains(&format!("shop_orders_total{{region=\"eu\"}} 3 {}\n", times[0] / 1_000)), "{open}");
    let rows: Vec<serde_json::Value> =
        of("ndjson").stdout.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    let depth = rows.iter().find(|row| row["name"] == "shop_depth").expect("it is there");
    assert_eq!((&depth["points"][0][1], &depth["labels"]["region"]), (&1.5.into(), &"eu".into()));
    let json: serde_json::Value = serde_json::from_str(&of("json").stdout).expect("one document");
    assert_eq!(json.as_array().map(Vec::len), Some(rows.len()));
    let csv = of("csv").stdout;
    let columns = csv.lines().next().expect("a header").split(',').count();
    assert!(
        csv.lines().any(|line| line.starts_with("shop_depth,gauge,,") && line.split(',').count() == columns),
        "{csv}"
    );
    assert!(of("influx").stdout.contains("shop_depth,region=eu value=1.5 "));
    // Nothing was there an hour ago.
    let none = export(&["--start", "-2h", "--end", "-1h"]);
    assert_eq!((none.status.code(), none.stdout.as_str()), (Some(0), ""));
    let file = home.path().join("out.om");
    let done = export(&[&["--output", file.to_str().expect("text"), "--format", "openmetrics"], &meant[..]].concat());
    assert_eq!(done.status.code(), Some(0), "{}", done.said());
    assert!(std::fs::read_to_string(&file).expect("there").ends_with("# EOF\n"));
    assert_eq!(export(&["--since", "1h", "--match", "sum(x)"]).status.code(), Some(2));
}
