//! `hydrograph tap` and its route, on a real process that stock clients send to.
//!
//! Every item at a low rate, every count at a high one, and that whoever looks changes nothing for those who send.

use crate::harness::{Home, Launch, Pipeline, Server, wait};
use rustix::process::Signal;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;

const EVENTS: &str = "[events.order]\nfields = { shop = \"string\", total = \"float\" }\n\
                      [metrics.order_value]\ntype = \"histogram\"\nhelp = \"Value\"\nbuckets = [1, 10]\n\
                      from = { event = \"order\", value = \"total\", labels = [\"shop\"] }\n";

/// An open answer, read line by line.
struct Stream {
    reader: BufReader<Box<dyn Read>>,
}

impl Stream {
    /// Opens a tap over TCP; the first line has come when this returns.
    fn open(server: &Server, query: &str) -> (Stream, Value) {
        let stream = TcpStream::connect(&server.address).expect("it answers");
        stream.set_read_timeout(Some(wait::PATIENCE)).expect("a timeout");
        Stream::over(stream, query)
    }

    fn over(mut stream: impl Read + Write + 'static, query: &str) -> (Stream, Value) {
        write!(stream, "GET /api/v1/tap?{query} HTTP/1.1\r\nHost: hydrograph.test\r\n\r\n").expect("it is sent");
        let mut stream = Stream { reader: BufReader::new(Box::new(stream)) };
        let mut head = String::new();
        loop {
            let mut line = String::new();
            stream.reader.read_line(&mut line).expect("a head");
            if line.trim_end().is_empty() {
                break;
            }
            head.push_str(&line);
        }
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.to_ascii_lowercase().contains("content-type: application/x-ndjson"), "{head}");
        let opening = stream.next().expect("an opening");
        assert_eq!(opening["kind"], "open");
        (stream, opening)
    }

    /// The next object; sizes of chunks and empty lines are passed over. `None` at the end of the answer.
    fn next(&mut self) -> Option<Value> {
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line).expect("the answer goes on") == 0 {
                return None;
            }
            if line.starts_with('{') {
                return Some(serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}")));
            }
        }
    }

    /// Items until there are so many, reports of what was left out apart.
    fn take(&mut self, count: usize) -> Vec<Value> {
        let mut items = Vec::new();
        while items.len() < count {
            let line = self.next().expect("the answer goes on");
            if line["kind"] != "left_out" {
                items.push(line);
            }
        }
        items
    }
}

fn started(home: &Home) -> (Pipeline, Server) {
    let mut pipeline = Pipeline::new();
    pipeline.tail = EVENTS.to_owned();
    let server = pipeline.start(home);
    (pipeline, server)
}

/// A client as stock ones are: a connected UDP socket, a datagram a flush.
fn client(pipeline: &Pipeline) -> UdpSocket {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(("127.0.0.1", pipeline.udp)).expect("a place to send to");
    socket
}

/// All four kinds, item by item, while a client sends at a low rate.
#[test]
fn tap_shows_every_item_of_every_kind() {
    let home = Home::new();
    let (pipeline, server) = started(&home);
    let (mut events, opening) = Stream::open(&server, "kind=events&edge=app");
    assert_eq!(opening["edges"][0]["edge"], "app");
    assert_eq!(
        (opening["edges"][0]["type"].as_str(), opening["edges"].as_array().map(Vec::len)),
        (Some("socket"), Some(1))
    );
    let (mut samples, _) = Stream::open(&server, "kind=samples&edge=a*,nothing");
    let (mut rejects, _) = Stream::open(&server, "kind=rejects&edge=app");
    let (mut deltas, opening) = Stream::open(&server, "kind=deltas&name=shop_*");
    assert_eq!(opening["edges"][0]["edge"], "store");
    let (mut filtered, _) = Stream::open(&server, "kind=events,samples&edge=app&match=%7Bregion%3D%22eu%22%7D");
    let socket = client(&pipeline);
    for n in 1..=5 {
        socket.send(format!("shop.orders:{n}|c|#region:eu\nshop.took:{n}0|ms|@0.5").as_bytes()).expect("sent");
        socket.send(b"load:1,2|d").expect("sent");
        socket.send(format!("{{\"event\":\"order\",\"shop\":\"eu\",\"total\":{n}.5}}").as_bytes()).expect("sent");
    }
    let found = events.take(15);
    for n in 1..=5 {
        let at = 3 * (n - 1);
        let expected = [
            ("shop.orders".to_owned(), format!("shop.orders:{n}|c|#region:eu")),
            ("shop.took".to_owned(), format!("shop.took:{n}0|ms|@0.5")),
            ("order".to_owned(), format!("{{\"event\":\"order\",\"shop\":\"eu\",\"total\":{n}.5}}")),
        ];
        for (item, (name, text)) in found[at..].iter().zip(expected) {
            assert_eq!((item["kind"].as_str(), item["edge"].as_str()), (Some("event"), Some("app")));
            assert_eq!((item["name"].as_str(), item["text"].as_str()), (Some(&*name), Some(&*text)));
        }
    }
    let found = samples.take(15);
    for n in 1..=5 {
        let at = 3 * (n - 1);
        assert_eq!(
            (&found[at]["metric"], &found[at]["type"], &found[at]["value"], &found[at]["labels"]["region"]),
            (&"shop_orders_total".into(), &"counter".into(), &(n as f64).into(), &"eu".into())
        );
        let took = &found[at + 1];
        assert_eq!((&took["metric"], &took["weight"]), (&"shop_took_seconds".into(), &2.0.into()));
        assert_eq!(took["value"].as_f64(), Some(n as f64 / 100.0));
        let order = &found[at + 2];
        assert_eq!((&order["metric"], order["value"].as_f64()), (&"order_value".into(), Some(n as f64 + 0.5)));
    }
    for item in rejects.take(5) {
        assert_eq!((item["reason"].as_str(), item["text"].as_str()), (Some("bad_value"), Some("load:1,2|d")));
        assert!(item["hint"].as_str().is_some_and(|hint| hint.contains("\"1,2\"")), "{item}");
    }
    // Ten lines in one or more commits add up.
    let (mut orders, mut took, mut commits) = (0.0, 0, Vec::new());
    while orders < 15.0 || took < 5 {
        let item = deltas.take(1).remove(0);
        commits.push(item["commit"].as_u64().expect("a number"));
        match item["metric"].as_str() {
            Some("shop_orders_total") => orders += item["sum"].as_f64().expect("a sum"),
            Some("shop_took_seconds") => took += item["count"].as_u64().expect("a count"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((orders, took), (15.0, 5));
    assert!(commits.is_sorted(), "{commits:?}");
    for item in filtered.take(10) {
        let text = item["text"].as_str().or(item["metric"].as_str()).unwrap_or_default();
        assert!(text.starts_with("shop.orders") || text == "shop_orders_total", "{item}");
    }
    server.await_laws(Some(20));
}

/// At a high rate what is not shown is counted to the item, totals stay exact, and a tap that nobody reads hurts nothing.
#[test]
fn tap_states_what_it_leaves_out_and_changes_no_total() {
    const LINES: u64 = 400_000;
    let home = Home::new();
    let (_pipeline, server) = started(&home);
    let (mut shown, _) = Stream::open(&server, "kind=samples&edge=app&limit=50");
    let (mut named, _) = Stream::open(&server, "kind=samples&edge=app&limit=50&name=odd_total");
    // Whoever opens a tap and never reads.
    let (silent, _) = Stream::open(&server, "kind=events,samples,deltas,rejects&limit=5000");
    let mut stream = UnixStream::connect(home.socket("dsd-stream.socket")).expect("a stream");
    let mut text = String::new();
    for n in 0..LINES {
        text.push_str(if n % 4 == 0 { "odd:1|c\n" } else { "even:1|c|#k:v\n" });
    }
    stream.write_all(text.as_bytes()).expect("it is taken");
    drop(stream);
    let scrape = server.await_laws(Some(LINES));
    assert_eq!(scrape.value("odd_total", &[]), Some((LINES / 4) as f64));
    assert_eq!(scrape.value("even_total", &[("k", "v")]), Some((LINES / 4 * 3) as f64));
    for (tap, expected) in [(&mut shown, LINES), (&mut named, LINES / 4)] {
        let (mut items, mut left_out) = (0, 0);
        while items + left_out < expected {
            let line = tap.next().expect("the answer goes on");
            match line["kind"].as_str() {
                Some("sample") => items += 1,
                Some("left_out") => {
                    left_out += line["limit"].as_u64().expect("a count") + line["queue"].as_u64().expect("a count");
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(items + left_out, expected, "every item is shown or counted");
        assert!(items >= 50 && left_out > 0, "{items} shown, {left_out} left out");
    }
    drop(silent);
    let end = server.terminate();
    assert!(end.status.success(), "{}", end.said());
    // The last words of a tap are said before the end.
    let last = std::iter::from_fn(|| shown.next()).last().expect("an end");
    assert_eq!((last["kind"].as_str(), last["reason"].as_str()), (Some("end"), Some("the instance stops")));
    assert_eq!(
        last["shown"].as_u64().expect("a count") + last["left_out_by_limit"].as_u64().expect("a count"),
        LINES,
        "{last}"
    );
}

/// Eight at once and no more; a place is free again when its reader goes; the token guards it as everything else.
#[test]
fn tap_places_are_few_and_guarded() {
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    let token = home.write("token", "s3cret\n");
    pipeline.http_keys = format!("token_file = \"{}\"\n", token.display());
    let server = pipeline.start(&home);
    assert_eq!(server.get("/api/v1/tap").status, 401);
    let open = || {
        let mut stream = TcpStream::connect(&server.address).expect("it answers");
        let head = "GET /api/v1/tap HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer s3cret\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("sent");
        let mut line = String::new();
        BufReader::new(stream.try_clone().expect("a second end")).read_line(&mut line).expect("an answer");
        (stream, line)
    };
    let mut taps: Vec<_> = (0..8).map(|_| open()).collect();
    assert!(taps.iter().all(|(_, line)| line.starts_with("HTTP/1.1 200 ")), "{taps:?}");
    let bearer = [("Authorization", "Bearer s3cret")];
    let full = server.get_with("/api/v1/tap", &bearer);
    assert_eq!((full.status, full.headers.get("retry-after").map(String::as_str)), (429, Some("5")));
    assert_eq!(full.json()["error"], "8 taps are open already");
    assert_eq!(server.get_with("/metrics", &bearer).status, 200, "nothing else is held up");
    drop(taps.pop());
    wait::until("a place to come free", || {
        let (stream, line) = open();
        line.starts_with("HTTP/1.1 200 ").then_some(stream)
    });
    for (query, status) in [("kind=all", 400), ("edge=nothing", 404), ("limit=0", 400), ("match=sum(x)", 400)] {
        drop(taps.pop());
        let answer = wait::until("an answer that is not 429", || {
            let answer = server.get_with(&format!("/api/v1/tap?{query}"), &bearer);
            (answer.status != 429).then_some(answer)
        });
        assert_eq!(answer.status, status, "{query}: {}", answer.text());
    }
}

/// The verb: rows, JSON, a count, an interrupt, an instance that goes away, words for what is wrong; over a Unix socket too.
#[test]
fn tap_the_verb() {
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    pipeline.tail = EVENTS.to_owned();
    let text = pipeline.text().replace("[http]\nlisten = [", "[http]\nlisten = [\"unixstream:http.sock\", ");
    let file = home.write("pipeline.toml", &text);
    let mut server = Launch::new(&home).arg("run").arg(file).start(&pipeline.address());
    let url = format!("http://{}", pipeline.address());
    let unix = format!("unixstream:{}", home.socket("http.sock").display());
    let tap = |url: &str, arguments: &[&str]| Launch::new(&home).args(["tap", "--url", url]).args(arguments).spawn("");
    let socket = client(&pipeline);
    let tapping = |child: &Server| wait::until("the tap", || child.stderr().contains("tapping app").then_some(()));

    let rows = tap(&url, &["app", "nowhere*", "--count", "2", "--name", "orders_*"]);
    tapping(&rows);
    socket.send(b"orders:3|c|#region:eu\nother:1|c\norders:4|c").expect("sent");
    let end = rows.wait();
    assert_eq!(end.status.code(), Some(0), "{}", end.said());
    let lines: Vec<&str> = end.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{}", end.said());
    assert!(lines[0].ends_with(" app  orders_total{region=\"eu\"} +3"), "{}", end.said());
    assert!(lines[1].ends_with(" app  orders_total +4"), "{}", end.said());
    assert!(end.stderr.contains("no edge matches nowhere*"), "{}", end.said());
    assert!(end.stderr.contains("2 items shown, none left out"), "{}", end.said());

    let json = tap(&unix, &["app", "-k", "events,rejects", "--json"]);
    tapping(&json);
    socket.send(b"orders:5|c\nnonsense").expect("sent");
    wait::until("both items", || (json.stdout().lines().count() >= 3).then_some(()));
    json.signal(Signal::INT);
    let end = json.wait();
    assert_eq!(end.status.code(), Some(0), "an interrupt is a clean end: {}", end.said());
    let objects: Vec<Value> = end.stdout.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let kinds: Vec<&str> = objects.iter().filter_map(|object| object["kind"].as_str()).collect();
    assert_eq!(kinds, ["open", "event", "reject"], "{}", end.said());

    let limited = tap(&url, &["app", "--limit", "5", "--seconds", "20", "-k", "events"]);
    tapping(&limited);
    let many = "many:1|c\n".repeat(100);
    let said = wait::until("what was left out", || {
        socket.send(many.as_bytes()).expect("sent");
        let said = limited.stderr();
        said.contains("beyond 5 a second").then_some(said)
    });
    assert!(said.contains("left out in "), "{said}");
    limited.signal(Signal::TERM);
    assert_eq!(limited.wait().status.code(), Some(0));

    for (arguments, code, words) in [
        (&["nowhere"][..], 2, "no edge matches nowhere; edges are "),
        (&["--match", "sum(x)"], 2, "match takes a selector"),
        (&["--limit", "0"], 2, "1..=5000"),
        (&["--kind", "all"], 2, "possible values: events, samples, deltas, rejects"),
    ] {
        let end = tap(&url, arguments).wait();
        assert_eq!(end.status.code(), Some(code), "{arguments:?}: {}", end.said());
        assert!(end.stderr.contains(words), "{arguments:?}: {}", end.said());
    }
    let nobody = tap("http://127.0.0.1:1", &[]).wait();
    assert_eq!(nobody.status.code(), Some(1));
    assert!(nobody.stderr.contains("nobody answers at http://127.0.0.1:1"), "{}", nobody.said());

    let stopped = tap(&url, &["app"]);
    tapping(&stopped);
    let killed = tap(&unix, &["app"]);
    tapping(&killed);
    assert!(server.is_running());
    let end = server.terminate();
    assert!(end.status.success(), "{}", end.said());
    for child in [stopped, killed] {
        let end = child.wait();
        assert_eq!(end.status.code(), Some(0), "{}", end.said());
        assert!(end.stderr.contains("tap ended: the instance stops"), "{}", end.said());
    }
}

/// An instance that is killed: the tap says so and fails.
#[test]
fn tap_of_an_instance_that_goes_away() {
    let home = Home::new();
    let pipeline = Pipeline::new();
    let server = pipeline.start(&home);
    let url = format!("http://{}", pipeline.address());
    let tap = Launch::new(&home).args(["tap", "--url", &url, "app"]).spawn("");
    wait::until("the tap", || tap.stderr().contains("tapping app").then_some(()));
    server.kill();
    let end = tap.wait();
    assert_eq!(end.status.code(), Some(1), "{}", end.said());
    assert!(end.stderr.contains(&format!("{url} went away")), "{}", end.said());
}
