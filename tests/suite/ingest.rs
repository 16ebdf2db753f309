//! Exact totals: every form of a line, over every kind of socket, shows up with exactly its value.

use crate::harness::{Home, Pipeline, Server, wait};
use crate::load::Target;

struct Running {
    home: Home,
    pipeline: Pipeline,
    server: Server,
}

impl Running {
    fn new(pipeline: Pipeline) -> Running {
        let home = Home::new();
        let server = pipeline.start(&home);
        Running { home, pipeline, server }
    }

    fn target(&self, name: &str) -> Target {
        match name {
            "gram" => Target::Gram(self.home.socket("dsd.socket")),
            "framed" => Target::Framed(self.home.socket("dsd-stream.socket")),
            "lines" => Target::Lines(self.home.socket("dsd-stream.socket")),
            "udp" => Target::Udp(self.pipeline.udp),
            "tcp" => Target::Tcp(self.pipeline.tcp),
            _ => panic!("no target {name}"),
        }
    }

    fn send(&self, target: &str, packet: &str) {
        let mut client = self.target(target).connect().expect("the socket takes connections");
        client.send(packet.as_bytes()).expect("the socket takes a packet");
    }
}

/// Every line form through every socket; each socket has metrics of its own, so nothing hides behind a sum.
#[test]
fn exact_totals_over_every_socket() {
    exact_totals(Pipeline::new());
}

/// The same with readers on threads of their own.
#[test]
fn exact_totals_over_every_socket_with_split_readers() {
    let mut pipeline = Pipeline::new();
    pipeline.source = "threads = \"split\"\n".to_owned();
    exact_totals(pipeline);
}

fn exact_totals(pipeline: Pipeline) {
    let run = Running::new(pipeline);
    let targets = ["gram", "framed", "lines", "udp", "tcp"];
    for target in targets {
        run.send(
            target,
            &format!(
                "{target}.hits:1|c|#region:eu,canary\n{target}.hits:2.5|c|#canary,region:eu\n\
                 {target}.hits:3|c|@0.1|#region:us\n{target}.took:40:44:1000|ms\n{target}.took:7|ms|@0.25\n\
                 {target}.size:10:20:30|h|#path:/a b\n{target}.neg:-5:5|d\n{target}.temp:21.5|g\n{target}.temp:-2|g\n\
                 {target}.delta:10|g\n{target}.delta:+5|g\n{target}.delta:-3|g\n\
                 {target}.users:ann|s\n{target}.users:bob|s\n{target}.users:ann|s\n{target}.users:a:b|s\n\n"
            ),
        );
        run.send(target, &format!("{target}.end:1|c|c:in-6536|e:it-false|card:low|T1|zz:1\n"));
    }
    run.server.scrape_until("the last lines of every socket", |s| {
        targets.iter().all(|t| {
            s.value(&format!("{t}_users"), &[]).is_some() && s.value(&format!("{t}_took_seconds_count"), &[]).is_some()
        })
    });
    let scrape = run.server.await_laws(Some(17 * targets.len() as u64));
    for t in targets {
        let check = |name: &str, labels: &[(&str, &str)], expected: f64| {
            assert_eq!(scrape.value(&format!("{t}_{name}"), labels), Some(expected), "{t}_{name}{labels:?}");
        };
        check("hits_total", &[("region", "eu"), ("canary", "true")], 3.5);
        check("hits_total", &[("region", "us")], 30.0);
        check("took_seconds_count", &[], 7.0);
        check("took_seconds_sum", &[], 1.112);
        check("size_sum", &[("path", "/a b")], 60.0);
        check("size_count", &[("path", "/a b")], 3.0);
        check("neg_sum", &[], 0.0);
        check("neg_count", &[], 2.0);
        // A sign makes it an operation: 21.5 - 2.
        check("temp", &[], 19.5);
        check("delta", &[], 12.0);
        check("users", &[], 3.0);
    }
    // The lines with T1 (1970) are older than anything kept: accepted as events, dropped with a reason.
    assert_eq!(scrape.sum("hydrograph_dropped_total", &[("source", "app"), ("reason", "too_late")]), 5.0);
    let end = run.server.terminate();
    assert_eq!(end.status.code(), Some(0), "{}", end.said());
}

/// One connection, many small writes that cut frames and lines anywhere.
#[test]
fn exact_totals_whatever_the_write_boundaries() {
    use std::io::Write;
    let run = Running::new(Pipeline::new());
    let mut dice = wait::Dice::new(7);
    for (target, metric) in [("framed", "f"), ("lines", "l")] {
        let mut bytes = Vec::new();
        for n in 0..2000 {
            let line = format!("cut.{metric}:{}|c|#n:{}\n", n % 7, n % 3);
            if target == "framed" {
                bytes.extend_from_slice(&(line.len() as u32).to_le_bytes());
            }
            bytes.extend_from_slice(line.as_bytes());
        }
        let mut stream =
            std::os::unix::net::UnixStream::connect(run.home.socket("dsd-stream.socket")).expect("a connection");
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at((1 + dice.below(97)).min(rest.len()));
            stream.write_all(now).expect("the stream takes bytes");
            rest = later;
        }
    }
    let scrape = run.server.await_laws(Some(4000));
    for metric in ["f", "l"] {
        for k in 0..3 {
            let expected: u64 = (0..2000).filter(|n| n % 3 == k).map(|n| n % 7).sum();
            let labels = [("n", &k.to_string()[..])];
            assert_eq!(scrape.value(&format!("cut_{metric}_total"), &labels), Some(expected as f64));
        }
    }
}

/// Tags in another order, repeated keys, empty values and dots in names: one canonical series.
#[test]
fn labels_and_names_become_canonical() {
    let run = Running::new(Pipeline::new());
    run.send(
        "gram",
        "web.page-load:1|c|#b:2,a:1\nweb.page-load:1|c|#a:1,b:2\nweb.dup:1|c|#k:z,k:y,k:z\nweb.empty:1|c|#k:,x:1\n\
         web.kept_total:1|c\nweb.kept_seconds:100|ms\nweb.wait_ms:100|ms\n",
    );
    let scrape = run.server.await_laws(Some(7));
    assert_eq!(scrape.value("web_page_load_total", &[("a", "1"), ("b", "2")]), Some(2.0));
    assert_eq!(scrape.value("web_dup_total", &[("k", "y,z")]), Some(1.0));
    assert_eq!(scrape.value("web_empty_total", &[("x", "1")]), Some(1.0));
    assert_eq!(scrape.value("web_kept_total", &[]), Some(1.0));
    assert_eq!(scrape.value("web_kept_seconds_sum", &[]), Some(0.1));
    assert_eq!(scrape.value("web_wait_seconds_sum", &[]), Some(0.1));
}

/// Declared metrics: name, type, buckets, fixed labels; without labels they exist from the first scrape.
#[test]
fn declared_metrics_keep_their_name_buckets_and_labels() {
    let mut pipeline = Pipeline::new();
    pipeline.top.push_str("namespace = \"shop\"\n");
    pipeline.tail = "[metrics.orders_total]\ntype = \"counter\"\nhelp = \"Orders\"\n\
         [metrics.latency_seconds]\ntype = \"histogram\"\nhelp = \"Latency\"\nbuckets = [0.005, 0.01, 0.1]\n\
         labels = [\"route\"]\n"
        .to_owned();
    let run = Running::new(pipeline);
    assert_eq!(run.server.scrape().value("shop_orders_total", &[]), Some(0.0));
    run.send(
        "gram",
        "orders:2|c|#env:prod\nshop.orders:1|c\nlatency:5:5.001:50:500|ms|#route:/a,env:prod\nlatency:5|ms\n",
    );
    let scrape = run.server.await_laws(Some(4));
    assert_eq!(scrape.value("shop_orders_total", &[]), Some(3.0));
    for (le, count) in [("0.005", 1.0), ("0.01", 2.0), ("0.1", 3.0), ("+Inf", 4.0)] {
        let labels = [("route", "/a"), ("le", le)];
        assert_eq!(scrape.value("shop_latency_seconds_bucket", &labels), Some(count), "le {le}");
    }
    assert_eq!(scrape.helps["shop_orders_total"], "Orders");
    let by = [("source", "app"), ("reason", "label_mismatch")];
    assert_eq!(scrape.sum("hydrograph_rejected_total", &by), 1.0);
}

/// The quantiles of a window stand within ±1 % of an exact sort, for shapes that break weaker sketches.
#[test]
fn quantiles_on_the_wire_are_within_their_bound() {
    let run = Running::new(Pipeline::new());
    let mut dice = wait::Dice::new(wait::knob("HYDROGRAPH_SEED", 11));
    let mut unit = move || (dice.next() >> 11) as f64 / (1u64 << 53) as f64;
    let mut shapes: Vec<(&str, Vec<f64>)> = Vec::new();
    shapes.push(("constant", vec![42.0; 500]));
    shapes.push(("single", vec![0.125]));
    shapes.push(("zeros", (0..400).map(|n| if n % 3 == 0 { 7.5 } else { 0.0 }).collect()));
    shapes.push(("uniform", (0..2000).map(|_| unit() * 1000.0).collect()));
    shapes.push(("heavy", (0..2000).map(|_| (1.0 - unit()).powf(-2.0)).collect()));
    shapes.push(("bimodal", (0..2000).map(|n| if n % 2 == 0 { 1.0 + unit() } else { 1e6 * (1.0 + unit()) }).collect()));
    shapes.push(("negative", (0..2000).map(|_| unit() * 200.0 - 100.0).collect()));
    shapes.push(("tiny", (0..2000).map(|_| 0.01 + unit() * 0.01).collect()));
    shapes.push(("huge", (0..2000).map(|_| 1e11 * (1.0 + unit())).collect()));
    shapes.push(("sorted", (1..=2000).map(f64::from).collect()));
    let mut inputs = 0;
    for (name, values) in &shapes {
        let mut client = run.target("lines").connect().expect("a connection");
        for chunk in values.chunks(20) {
            let packed: Vec<String> = chunk.iter().map(f64::to_string).collect();
            client.send(format!("shape.{name}:{}|d\n", packed.join(":")).as_bytes()).expect("the stream takes a line");
            inputs += 1;
        }
    }
    let scrape = run.server.await_laws(Some(inputs));
    for (name, values) in &mut shapes {
        values.sort_by(f64::total_cmp);
        assert_eq!(scrape.value(&format!("shape_{name}_count"), &[]), Some(values.len() as f64));
        for q in [0.5, 0.9, 0.95, 0.99] {
            let rank = ((q * values.len() as f64).ceil() as usize).max(1);
            let exact = values[rank - 1];
            let labels = [("quantile", &q.to_string()[..])];
            let shown = scrape.value(&format!("shape_{name}"), &labels).expect("the quantile is there");
            let bound = (exact.abs() * 0.01).max(1e-6);
            assert!((shown - exact).abs() <= bound, "{name} q{q}: {shown} is not within 1 % of {exact}");
        }
    }
}
