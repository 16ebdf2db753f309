//! JSON in: samples and typed events over every socket, beside DogStatsD, and over HTTP in every form of a body.

use crate::harness::{Home, Launch, Pipeline, Server};
use crate::load::Target;
use std::io::Write;

/// Two metrics of one event.
const SCHEMA: &str = r#"
[events.order]
fields = { shop = "string", total = "float", paid = "bool", took = "milliseconds?", source = "string?" }
[metrics.orders_total]
type = "counter"
help = "Orders"
from = { event = "order", labels = ["shop"] }
[metrics.order_value]
type = "summary"
help = "Value of an order"
from = { event = "order", value = "total", labels = ["shop"], when = "paid" }
[metrics.order_duration_seconds]
type = "summary"
help = "Duration of an order"
from = { event = "order", value = "took" }
"#;

struct Running {
    home: Home,
    pipeline: Pipeline,
    server: Server,
}

impl Running {
    fn new(source: &str, tail: &str) -> Running {
        let mut pipeline = Pipeline::new();
        if !source.is_empty() {
            source.clone_into(&mut pipeline.source);
        }
        tail.clone_into(&mut pipeline.tail);
        let home = Home::new();
        let server = pipeline.start(&home);
        Running { home, pipeline, server }
    }

    fn targets(&self) -> [(&'static str, Target); 5] {
        [
            ("gram", Target::Gram(self.home.socket("dsd.socket"))),
            ("framed", Target::Framed(self.home.socket("dsd-stream.socket"))),
            ("lines", Target::Lines(self.home.socket("dsd-stream.socket"))),
            ("udp", Target::Udp(self.pipeline.udp)),
            ("tcp", Target::Tcp(self.pipeline.tcp)),
        ]
    }

    /// Posts events; the status and the answer.
    fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, serde_json::Value) {
        let answer = self.server.post(path, headers, body);
        (answer.status, answer.json())
    }

    /// Waits for the laws of source `http`.
    fn await_http(&self, inputs: f64) -> crate::harness::Scrape {
        self.server.scrape_until("the laws of http", |scrape| {
            scrape.laws("http").is_ok_and(|laws| laws.in_flight == 0.0 && laws.inputs == inputs)
        })
    }
}

/// Samples that need no schema, typed as lines are, in the same packets as lines of DogStatsD.
#[test]
fn samples_over_every_socket_beside_lines() {
    samples_beside_lines("threads = \"fused\"\n");
}

/// The same with readers on threads of their own.
#[test]
fn samples_over_every_socket_beside_lines_with_split_readers() {
    samples_beside_lines("threads = \"split\"\n");
}

fn samples_beside_lines(source: &str) {
    let run = Running::new(source, "");
    let mut inputs = 0;
    for (name, target) in run.targets() {
        let packet = format!(
            "{{\"metric\":\"{name}.hits\",\"type\":\"counter\",\"value\":2,\"labels\":{{\"region\":\"eu\"}}}}\n\
             {name}.hits:3|c|#region:eu\n\
             {{ \"metric\" : \"{name}.hits\", \"type\": \"counter\", \"value\": 2.5e0, \"labels\": {{\"region\":\"e\\u0075\"}} }}\r\n\
             {{\"metric\":\"{name}.took\",\"type\":\"timing\",\"value\":40}}\n\
             {{\"metric\":\"{name}.took\",\"type\":\"timing\",\"value\":0.06,\"unit\":\"s\",\"weight\":3}}\n\
             \n\
             {{\"metric\":\"{name}.temp\",\"type\":\"gauge\",\"value\":-5}}\n\
             {{\"metric\":\"{name}.temp\",\"type\":\"gauge\",\"value\":7.5,\"op\":\"add\"}}\n\
             {{\"metric\":\"{name}.users\",\"type\":\"set\",\"value\":\"ann\"}}\n\
             {{\"metric\":\"{name}.hits\",\"type\":\"counter\",\"value\":1\n\
             [{{\"metric\":\"{name}.hits\",\"type\":\"counter\",\"value\":1}}]\n\
             {name}.end:1|c\n"
        );
        inputs += 11;
        target.connect().expect("a connection").send(packet.as_bytes()).expect("the socket takes a packet");
    }
    let scrape = run.server.await_laws(Some(inputs));
    for (name, _) in run.targets() {
        let check = |metric: &str, labels: &[(&str, &str)], expected: f64| {
            assert_eq!(scrape.value(&format!("{name}_{metric}"), labels), Some(expected), "{name}_{metric}");
        };
        check("hits_total", &[("region", "eu")], 7.5);
        check("took_seconds_count", &[], 4.0);
        check("took_seconds_sum", &[], 0.22);
        check("temp", &[], 2.5);
        check("users", &[], 1.0);
        check("end_total", &[], 1.0);
    }
    // The object that ends early, and the array, which is for bodies of HTTP only.
    let refused = |reason| scrape.sum("hydrograph_rejected_total", &[("source", "app"), ("reason", reason)]);
    assert_eq!((refused("bad_json"), refused("malformed")), (5.0, 5.0));
    assert_eq!(run.server.terminate().status.code(), Some(0));
}

/// A connection whose writes cut JSON anywhere, and one whose first frame has as many bytes as `{` has for a code.
#[test]
fn streams_of_json_whatever_the_write_boundaries() {
    let run = Running::new("", "");
    let connect = || std::os::unix::net::UnixStream::connect(run.home.socket("dsd-stream.socket")).expect("connects");
    let event = |value: u32| format!("{{\"metric\":\"cut\",\"type\":\"counter\",\"value\":{value}}}");
    let mut lines = connect();
    let text: String = (0..500).map(|value| event(value % 7) + "\n").collect();
    for piece in text.as_bytes().chunks(13) {
        lines.write_all(piece).expect("the stream takes bytes");
    }
    let padded = format!("{:<123}", event(1000));
    assert_eq!((padded.len(), b'{'), (123, 123));
    let mut framed = connect();
    framed.write_all(&123u32.to_le_bytes()).and_then(|()| framed.write_all(padded.as_bytes())).expect("a frame");
    let scrape = run.server.await_laws(Some(501));
    let expected: u32 = (0..500).map(|value| value % 7).sum::<u32>() + 1000;
    assert_eq!(scrape.value("cut_total", &[]), Some(f64::from(expected)));
}

/// One, several, by line, compressed: each form's events are counted once; what is refused is named by its place.
#[test]
fn posted_samples_in_every_form() {
    let run = Running::new("", "");
    let sample = |value: u32| format!("{{\"metric\":\"posted\",\"type\":\"counter\",\"value\":{value}}}");
    let pretty = format!("\n{}\n", sample(1).replace(',', ",\n  "));
    let accepted = |count: u32| serde_json::json!({"accepted": count, "rejected": 0, "errors": []});
    assert_eq!(run.post("/api/v1/events", &[], pretty.as_bytes()), (202, accepted(1)));
    let array = format!("[{},\n{} , {}]", sample(10), sample(20), pretty);
    assert_eq!(run.post("/api/v1/events", &[], array.as_bytes()), (202, accepted(3)));
    let lines = format!("{}\r\n\r\n{}\n", sample(100), sample(200));
    let json_lines = [("Content-Type", "application/x-ndjson")];
    assert_eq!(run.post("/api/v1/events", &json_lines, lines.as_bytes()), (202, accepted(2)));
    for (coding, body) in [("gzip", gzip(sample(1000).as_bytes())), ("deflate", zlib(sample(2000).as_bytes()))] {
        assert_eq!(run.post("/api/v1/events", &[("Content-Encoding", coding)], &body), (202, accepted(1)));
    }
    let (status, answer) = run.post("/api/v1/events?sync=true", &[], sample(10_000).as_bytes());
    assert_eq!((status, answer), (200, accepted(1)));
    // It is durable, so a scrape shows it at once.
    assert_eq!(run.server.scrape().value("posted_total", &[]), Some(13_331.0 + 1.0));

    let mixed = format!("[{},{{}},7,{{\"metric\":\"posted\",\"type\":\"hue\",\"value\":1}}]", sample(1));
    let (status, answer) = run.post("/api/v1/events", &[], mixed.as_bytes());
    assert_eq!((status, &answer["accepted"], &answer["rejected"]), (202, &1.into(), &3.into()));
    let place = |at: usize| (answer["errors"][at]["index"].clone(), answer["errors"][at]["reason"].clone());
    assert_eq!(place(0), (1.into(), "no_event".into()));
    assert_eq!(place(1), (2.into(), "bad_json".into()));
    assert_eq!(place(2), (3.into(), "unknown_type".into()));
    assert!(answer["errors"][2]["hint"].as_str().is_some_and(|hint| hint.contains("hue")), "{answer}");
    let scrape = run.await_http(13.0);
    assert_eq!(scrape.value("posted_total", &[]), Some(13_333.0));
    assert_eq!(scrape.sum("hydrograph_rejected_total", &[("source", "http")]), 3.0);
    let many = vec!["{}"; 250].join("\n");
    let (status, answer) = run.post("/api/v1/events", &[], many.as_bytes());
    assert_eq!((status, &answer["rejected"]), (400, &250.into()));
    assert_eq!(answer["errors"].as_array().map(Vec::len), Some(100));
    assert_eq!(answer["errors"][99]["index"], 99);
}

/// 20,000 events in one body, in their order, and a body over the limit.
#[test]
fn large_bodies_are_taken_whole_or_not_at_all() {
    let run = Running::new("", "");
    let mut body = String::from("[");
    for value in 0..20_000 {
        body.push_str(&format!("{{\"metric\":\"level\",\"type\":\"gauge\",\"value\":{value}}},"));
    }
    body.push_str("{\"metric\":\"level\",\"type\":\"gauge\",\"value\":4}]");
    let (status, answer) = run.post("/api/v1/events?sync=true", &[], body.as_bytes());
    assert_eq!((status, &answer["accepted"]), (200, &20_001.into()));
    let scrape = run.await_http(20_001.0);
    assert_eq!(scrape.value("level", &[]), Some(4.0), "the last one of the body is the last one set");
    let cut = &body[..body.len() - 1];
    assert_eq!(run.post("/api/v1/events", &[], cut.as_bytes()).0, 400, "an array that ends early holds no events");
    let scrape = run.await_http(20_002.0);
    assert_eq!(scrape.sum("hydrograph_samples_total", &[("source", "http")]), 20_001.0);
}

/// Bodies that are made to hurt: each is refused with an answer, and the server goes on.
#[test]
fn hostile_bodies_are_refused_with_a_reason() {
    let run = Running::new("", "");
    let deep = format!("{{\"metric\":\"m\",\"labels\":{}1{}}}", "[".repeat(200_000), "]".repeat(200_000));
    let wide = format!("{{\"metric\":\"m\",\"type\":\"counter\",\"value\":1,\"{}\":2}}", "k".repeat(1_000_000));
    let number = format!("{{\"metric\":\"m\",\"type\":\"counter\",\"value\":{}}}", "9".repeat(100_000));
    let mut refused = 0.0;
    for (body, reason) in [
        (deep.as_bytes(), "bad_json"),
        (number.as_bytes(), "bad_json"),
        (b"{\"metric\":\"m\",\"type\":\"counter\",\"value\":1e999}", "bad_json"),
        (b"{\"metric\":\"m\",\"type\":\"gauge\",\"value\":NaN}", "bad_json"),
        (b"{\"metric\":\"m\",\"type\":\"counter\",\"val", "bad_json"),
        (b"{\"metric\":\"m\",\"type\":\"counter\",\"value\":1}}", "bad_json"),
        (b"{\"metric\":\"\xff\",\"type\":\"counter\",\"value\":1}", "invalid_utf8"),
        (b"{\"metric\":\"\\ud800\",\"type\":\"counter\",\"value\":1}", "bad_json"),
        (b"{\"metric\":\"m\",\"type\":\"counter\",\"value\":-1}", "negative"),
        (b"\x00\x01\x02", "bad_json"),
        (b"", "bad_json"),
    ] {
        let (status, answer) = run.post("/api/v1/events", &[], body);
        let start = String::from_utf8_lossy(&body[..body.len().min(60)]);
        assert_eq!(status, 400, "{start}: {answer}");
        assert_eq!(answer["errors"][0]["reason"], reason, "{start}: {answer}");
        refused += 1.0;
    }
    // A key of a megabyte is only a key that nothing names.
    assert_eq!(run.post("/api/v1/events", &[], wide.as_bytes()).0, 202);
    let bomb = gzip(&vec![b' '; 64 << 20]);
    assert!(bomb.len() < 100_000);
    assert_eq!(run.server.post("/api/v1/events", &[("Content-Encoding", "gzip")], &bomb).status, 413);
    assert_eq!(run.server.post("/api/v1/events", &[("Content-Encoding", "gzip")], b"not gzip").status, 400);
    assert_eq!(run.server.post("/api/v1/events", &[("Content-Encoding", "zstd")], b"x").status, 415);
    let scrape = run.await_http(refused + 1.0);
    assert_eq!(scrape.sum("hydrograph_rejected_total", &[("source", "http")]), refused);
    assert_eq!(run.server.terminate().status.code(), Some(0));
}

/// `send` and its route take JSON lines; each sample is told with its series, kind and value.
#[test]
fn sent_lines_may_be_json() {
    let run = Running::new("", "");
    let lines =
        "{\"metric\":\"a\",\"type\":\"counter\",\"value\":2}\na:3|c\n{\"metric\":\"a\",\"type\":\"x\",\"value\":2}\n";
    let answer = run.server.post("/api/v1/lines", &[], lines.as_bytes());
    let rows: Vec<serde_json::Value> =
        answer.text().lines().map(|line| serde_json::from_str(line).expect("NDJSON")).collect();
    assert_eq!(rows.len(), 3, "{rows:?}");
    for row in &rows[..2] {
        assert_eq!((&row["series"], &row["kind"], &row["value"]), (&"a_total".into(), &"counter".into(), &5.0.into()));
    }
    assert_eq!(rows[2]["reason"], "unknown_type");
    let url = format!("http://{}", run.server.address);
    let sent = Launch::new(&run.home)
        .args(["send", "--url", &url, "{\"metric\":\"b\",\"type\":\"gauge\",\"value\":1.5,\"labels\":{\"k\":\"v\"}}"])
        .finish();
    assert_eq!(sent.status.code(), Some(0), "{}", sent.said());
    assert!(sent.stdout.contains("b{k=\"v\"}") && sent.stdout.contains("1.5"), "{}", sent.stdout);
    let refused = Launch::new(&run.home).args(["send", "--url", &url, "{\"nothing\":1}"]).finish();
    assert_eq!(refused.status.code(), Some(1), "{}", refused.said());
    assert!(refused.stdout.contains("event"), "{}", refused.stdout);
}

/// Events by a schema: over every socket and every form of HTTP, and what does not fit is told by event and field.
#[test]
fn typed_events_by_a_schema() {
    let run = Running::new("", SCHEMA);
    let now = run.server.scrape();
    assert_eq!(now.value("order_duration_seconds_count", &[]), Some(0.0), "without labels it is there from the start");
    for (name, target) in run.targets() {
        let packet = format!(
            "{{\"event\":\"order\",\"shop\":\"{name}\",\"total\":12.5,\"paid\":true,\"took\":250}}\n\
             other:1|c\n\
             {{\"shop\":\"{name}\",\"total\":1,\"paid\":false,\"extra\":[1,2],\"event\":\"order\"}}\n"
        );
        target.connect().expect("a connection").send(packet.as_bytes()).expect("the socket takes a packet");
    }
    let scrape = run.server.await_laws(Some(15));
    for (name, _) in run.targets() {
        let shop = [("shop", name)];
        assert_eq!(scrape.value("orders_total", &shop), Some(2.0), "{name}");
        assert_eq!(scrape.value("order_value_sum", &shop), Some(12.5), "{name}");
    }
    assert_eq!(scrape.value("order_duration_seconds_sum", &[]), Some(1.25));

    let order = "{\"shop\":\"http\",\"total\":2,\"paid\":true}";
    let cloud =
        format!("{{\"specversion\":\"1.0\",\"type\":\"order\",\"source\":\"/till\",\"id\":\"1\",\"data\":{order}}}");
    let structured = [("Content-Type", "application/cloudevents+json")];
    let binary = [("ce-specversion", "1.0"), ("ce-type", "order"), ("ce-source", "/till"), ("ce-id", "2")];
    let batch = [("Content-Type", "application/cloudevents-batch+json")];
    for (headers, body) in
        [(&structured[..], cloud.clone()), (&binary[..], order.to_owned()), (&batch[..], format!("[{cloud},{cloud}]"))]
    {
        let (status, answer) = run.post("/api/v1/events?sync=true", headers, body.as_bytes());
        assert_eq!((status, &answer["rejected"]), (200, &0.into()), "{answer}");
    }
    let scrape = run.await_http(4.0);
    assert_eq!(scrape.value("orders_total", &[("shop", "http")]), Some(4.0));
    assert_eq!(scrape.value("order_value_sum", &[("shop", "http")]), Some(8.0));

    let wrong = [
        ("{\"event\":\"ordre\"}", "unknown_event", "ordre"),
        ("{\"event\":\"order\",\"shop\":\"a\",\"paid\":true}", "missing_field", "total"),
        ("{\"event\":\"order\",\"shop\":\"a\",\"total\":\"1\",\"paid\":true}", "wrong_type", "total"),
        ("{\"event\":\"order\",\"shop\":\"a\",\"total\":1,\"total\":2,\"paid\":true}", "duplicate_field", "total"),
        ("{\"event\":\"order\",\"shop\":\"a\",\"total\":1,\"paid\":true,\"time\":\"noon\"}", "bad_timestamp", "time"),
    ];
    for (body, reason, about) in wrong {
        let (status, answer) = run.post("/api/v1/events", &[], body.as_bytes());
        assert_eq!((status, &answer["errors"][0]["reason"]), (400, &reason.into()), "{answer}");
        let hint = answer["errors"][0]["hint"].as_str().unwrap_or("");
        assert!(hint.contains(about), "{body}: {hint}");
        let shown = run.server.rejects();
        assert!(shown.iter().any(|row| row["source"] == "http" && row["hint"] == hint), "{shown:#?}");
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes everything")
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes everything")
}
