//! Reload of the real binary: by signal, by HTTP and by a changed file, under load; nothing lost, nothing counted twice.

use crate::harness::server::free_port;
use crate::harness::{Home, Launch, Pipeline, Server, http, wait};
use crate::load::Target;
use crate::shutdown::last_line;
use rustix::process::Signal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Lines of one packet.
const PACKET: u64 = 50;

/// Clients that write `NAME:1|c` without pause, each over one connection, until they are told to stop.
struct Load {
    is_over: Arc<AtomicBool>,
    clients: Vec<(&'static str, Arc<AtomicU64>, JoinHandle<()>)>,
}

impl Load {
    fn start(targets: &[(&'static str, Target)]) -> Load {
        let is_over = Arc::new(AtomicBool::new(false));
        let clients = targets
            .iter()
            .map(|(name, target)| {
                let mut client = target.connect().expect("the socket takes connections");
                let (ends, sent) = (Arc::clone(&is_over), Arc::new(AtomicU64::new(0)));
                let (counted, name) = (Arc::clone(&sent), *name);
                let packet = format!("load.{name}:1|c\n").repeat(PACKET as usize);
                let write = move || {
                    while !ends.load(Ordering::Relaxed) {
                        client.send(packet.as_bytes()).expect("the socket stays open through every reload");
                        counted.fetch_add(PACKET, Ordering::Relaxed);
                        // The kernel drops datagrams of UDP that come faster than they are read.
                        wait::within(Duration::from_millis(1), || None::<()>);
                    }
                    wait::until("the last bytes to arrive", || client.has_arrived().then_some(()));
                };
                (name, sent, std::thread::Builder::new().spawn(write).expect("a thread"))
            })
            .collect();
        Load { is_over, clients }
    }

    /// Ends all clients: what each has written.
    fn stop(self) -> Vec<(&'static str, u64)> {
        self.is_over.store(true, Ordering::Relaxed);
        let end = |(name, sent, thread): (_, Arc<AtomicU64>, JoinHandle<()>)| {
            thread.join().expect("no client lost its socket");
            (name, sent.load(Ordering::Relaxed))
        };
        self.clients.into_iter().map(end).collect()
    }
}

fn targets(home: &Home, pipeline: &Pipeline) -> Vec<(&'static str, Target)> {
    vec![
        ("gram", Target::Gram(home.socket("dsd.socket"))),
        ("framed", Target::Framed(home.socket("dsd-stream.socket"))),
        ("lines", Target::Lines(home.socket("dsd-stream.socket"))),
        ("udp", Target::Udp(pipeline.udp)),
        ("tcp", Target::Tcp(pipeline.tcp)),
    ]
}

/// The tables of one round: metrics that come, go and change.
fn tail(round: u64) -> String {
    let bounds = ["[0.1, 1]", "[0.1, 0.7, 2]", "[0.3]"][round as usize % 3];
    let mut tail = format!(
        "[metrics.took_seconds]\ntype = \"histogram\"\nhelp = \"Time\"\nbuckets = {bounds}\n\
         [metrics.round_{round}_total]\ntype = \"counter\"\nhelp = \"Round\"\n"
    );
    if round.is_multiple_of(2) {
        tail += "[metrics.load_gram_total]\ntype = \"counter\"\nhelp = \"Declared now and then\"\n";
    }
    tail
}

/// How often a line of the log says that a reload came to an end.
fn reloads_said(server: &Server, word: &str) -> usize {
    server.said().matches(word).count()
}

fn totals(server: &Server, sent: &[(&'static str, u64)]) {
    for (name, count) in sent {
        server.await_value(&format!("load_{name}_total"), &[], *count as f64);
    }
}

#[test]
fn r1_reloads_by_signal_by_http_and_by_file_under_load_count_exactly() {
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    pipeline.tail = tail(0);
    let server = pipeline.launch(&home).arg("--watch").start(&pipeline.address());
    let load = Load::start(&targets(&home, &pipeline));
    let mut round = 0;
    for _ in 0..3 {
        // By a signal: the file is written first, so that a watcher may come first; either way it is taken over.
        round += 1;
        pipeline.tail = tail(round);
        home.write("pipeline.toml", &pipeline.text());
        server.signal(Signal::HUP);
        shows(&server, round);
        round += 1;
        pipeline.tail = tail(round);
        home.write("pipeline.toml", &pipeline.text());
        let answer = server.post("/-/reload", &[], b"");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(answer.json()["metrics"]["added"].is_array(), "{}", answer.text());
        shows(&server, round);
        // By the change alone.
        round += 1;
        pipeline.tail = tail(round);
        home.write("pipeline.toml", &pipeline.text());
        shows(&server, round);
    }
    assert!(reloads_said(&server, "\nreloaded: ") >= 6, "{}", server.said());
    let sent = load.stop();
    assert!(sent.iter().all(|(_, count)| *count > 100), "{sent:?}");
    totals(&server, &sent);
    let end = server.terminate();
    assert_eq!(end.status.code(), Some(0), "{}", end.said());
    let last = last_line(&end.stdout);
    let all: u64 = sent.iter().map(|(_, count)| count).sum();
    assert_eq!((last.lines, last.events, last.rejected, last.dropped, last.in_flight), (all, all, 0, 0, 0), "{last:?}");
}

/// A metric without labels exists from the first scrape after its reload.
fn shows(server: &Server, round: u64) {
    server.await_value(&format!("round_{round}_total"), &[], 0.0);
}

#[test]
fn r1_sources_come_and_go_under_load() {
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    let server = pipeline.start(&home);
    let load = Load::start(&targets(&home, &pipeline));
    let tcp = free_port();
    let more = format!(
        "[sources.more]\ntype = \"socket\"\nlisten = [\"unixgram:more.socket\", \"unixstream:more-stream.socket\", \
         \"tcp:127.0.0.1:{tcp}\"]\n"
    );
    let mut sent = 0;
    for round in 1..=3 {
        pipeline.tail = more.clone();
        home.write("pipeline.toml", &pipeline.text());
        let answer = server.post("/-/reload", &[], b"");
        assert_eq!((answer.status, &answer.json()["sources"]["added"][0]), (200, &"more".into()), "{}", answer.text());
        let added = [
            ("gram", Target::Gram(home.socket("more.socket"))),
            ("lines", Target::Lines(home.socket("more-stream.socket"))),
            ("tcp", Target::Tcp(tcp)),
        ];
        let mut clients: Vec<_> = added.iter().map(|(_, to)| to.connect().expect("the new socket is there")).collect();
        for _ in 0..50 {
            for client in &mut clients {
                client.send(&b"more:1|c\n".repeat(PACKET as usize)).expect("it takes lines");
                sent += PACKET;
            }
        }
        wait::until("the last bytes to arrive", || clients.iter().all(|c| c.has_arrived()).then_some(()));
        // The source goes while its clients are connected and what they sent may not have been read.
        pipeline.tail = String::new();
        home.write("pipeline.toml", &pipeline.text());
        let answer = server.post("/-/reload", &[], b"");
        assert_eq!((answer.status, &answer.json()["sources"]["removed"][0]), (200, &"more".into()));
        // What it received is durable by then.
        assert_eq!(server.scrape().value("more_total", &[]), Some(sent as f64), "round {round}");
        for name in ["more.socket", "more.socket.lock", "more-stream.socket"] {
            assert!(!home.socket(name).exists(), "{name} is still there");
        }
        assert!(Target::Tcp(tcp).connect().is_err(), "nobody answers on the port");
    }
    let kept = load.stop();
    totals(&server, &kept);
    let end = server.terminate();
    let last = last_line(&end.stdout);
    let all = sent + kept.iter().map(|(_, count)| count).sum::<u64>();
    assert_eq!((end.status.code(), last.lines, last.dropped), (Some(0), all, 0), "{}", end.said());
}

#[test]
fn r1_what_is_wrong_is_refused_and_the_old_pipeline_runs_on() {
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    pipeline.tail = tail(0);
    let server = pipeline.start(&home);
    let load = Load::start(&targets(&home, &pipeline));
    let taken = std::net::TcpListener::bind(("127.0.0.1", free_port())).expect("a port of ours");
    let port = taken.local_addr().expect("bound").port();
    let port_said = port.to_string();
    let busy =
        format!("[sources.busy]\ntype = \"socket\"\nlisten = [\"unixgram:busy.socket\", \"tcp:127.0.0.1:{port}\"]\n");
    let text = pipeline.text();
    let wrong = [
        (text.replace("type = \"histogram\"", "type = \"histogramm\""), "histogramm"),
        (text.replace("[metrics.took_seconds]\n", "[metrics.took_seconds]\nnonsense = 1\n"), "nonsense"),
        (
            text.replace("name = \"t\"", "name = \"t\"\nslice = \"20s\"\nwindow = \"5m\""),
            "needs a restart: slice changed",
        ),
        (text.replace("name = \"t\"", "name = \"t\"\nlabels = { a = \"b\" }"), "needs a restart: labels changed"),
        (format!("{text}{busy}"), &port_said),
        (text.replace(&format!("127.0.0.1:{}", pipeline.http), &format!("127.0.0.1:{port}")), "http.listen"),
        (text.replace("type = \"histogram\"", "scale = 1e-3\ntype = \"histogram\""), "accept=took_seconds"),
        ("not toml".to_owned(), "pipeline.toml:1"),
    ];
    for (text, words) in &wrong {
        // Each of them would also add a metric.
        let added = "[metrics.never_total]\ntype = \"counter\"\nhelp = \"Never\"\n";
        home.write("pipeline.toml", &format!("{text}{added}"));
        let answer = server.post("/-/reload", &[], b"");
        assert_eq!(answer.status, 400, "{words}: {}", answer.text());
        let said = answer.json()["error"].as_str().expect("a text").to_owned();
        assert!(said.contains(words), "{words} is not in {said}");
        server.signal(Signal::HUP);
        assert_eq!(server.scrape().value("never_total", &[]), None, "{words}");
        assert!(!home.socket("busy.socket").exists(), "{words}");
    }
    wait::until("the signals to be told", || (reloads_said(&server, "not reloaded") > 0).then_some(()));
    assert_eq!(server.post("/-/reload?acept=took_seconds", &[], b"").status, 400);
    home.write("pipeline.toml", &pipeline.text());
    wait::until("the file to be taken", || (server.post("/-/reload", &[], b"").status == 200).then_some(()));
    let sent = load.stop();
    totals(&server, &sent);
    let last = last_line(&server.terminate().stdout);
    assert_eq!((last.lines, last.dropped), (sent.iter().map(|(_, count)| count).sum(), 0));
}

#[test]
fn r1_the_token_and_the_address_change_while_it_runs() {
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    let secret = home.write("token", "first\n");
    pipeline.http_keys = format!("token_file = \"{}\"\n", secret.display());
    let server = pipeline.start(&home);
    let bearer = |token: &str| format!("Bearer {token}");
    let status = |address: &str, token: &str| {
        let headers = [("Authorization", bearer(token))];
        let headers = headers.each_ref().map(|(name, value)| (*name, value.as_str()));
        http::request(address, "GET", "/metrics", &headers, b"").map(|answer| answer.status).ok()
    };
    let reload = |address: &str, token: &str| {
        let value = bearer(token);
        http::request(address, "POST", "/-/reload", &[("Authorization", &value)], b"").expect("it answers")
    };
    let first = pipeline.address();
    assert_eq!((status(&first, "first"), status(&first, "second")), (Some(200), Some(401)));
    assert_eq!(reload(&first, "second").status, 401);
    // Only what the file holds has changed.
    home.write("token", "second\n");
    let answer = reload(&first, "first");
    assert_eq!((answer.status, &answer.json()["others"][0]), (200, &"http.token".into()), "{}", answer.text());
    assert_eq!((status(&first, "first"), status(&first, "second")), (Some(401), Some(200)));
    home.write("token", "\n");
    assert_eq!(reload(&first, "second").status, 400, "an empty token is none");
    assert_eq!(status(&first, "second"), Some(200));
    home.write("token", "second\n");
    // A second door, then another instead of the first. The one that goes answers who asked for it.
    let other = free_port();
    let unix = home.path().join("http.sock");
    let listen = |addresses: &str| {
        pipeline.text().replace(&format!("listen = [\"{first}\"]"), &format!("listen = [{addresses}]"))
    };
    home.write("pipeline.toml", &listen(&format!("\"{first}\", \"unixstream:{}\"", unix.display())));
    assert_eq!(reload(&first, "second").status, 200);
    let health = http::request_unix(&unix, "/healthz").expect("the socket answers");
    assert_eq!(health.status, 200);
    home.write("pipeline.toml", &listen(&format!("\"127.0.0.1:{other}\"")));
    let answer = reload(&first, "second");
    assert_eq!((answer.status, &answer.json()["others"][0]), (200, &"http.listen".into()));
    let second = format!("127.0.0.1:{other}");
    wait::until("the old door to close", || status(&first, "second").is_none().then_some(()));
    assert!(!unix.exists(), "the file of a door goes with it");
    assert_eq!(status(&second, "second"), Some(200));
    let end = server.terminate();
    assert_eq!(end.status.code(), Some(0), "{}", end.said());
}

#[test]
fn r2_a_changed_scale_needs_to_be_accepted() {
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    let of = |scale: &str| format!("[metrics.shop_total]\ntype = \"counter\"\nhelp = \"Shop\"\nscale = {scale}\n");
    pipeline.tail = of("1e-9");
    let server = pipeline.start(&home);
    let mut client = Target::Lines(home.socket("dsd-stream.socket")).connect().expect("connects");
    client.send(b"shop:5|c\n").expect("open");
    server.await_value("shop_total", &[], 5.0);
    pipeline.tail = of("1e-6");
    home.write("pipeline.toml", &pipeline.text());
    let answer = server.post("/-/reload", &[], b"");
    assert!(answer.status == 400 && answer.text().contains("1e-9"), "{}", answer.text());
    let answer = server.post("/-/reload?accept=shop_total", &[], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    client.send(b"shop:2|c\n").expect("open");
    server.await_value("shop_total", &[], 2.0);
    // What was committed just before a kill is there, and the retired series is not in its way.
    server.await_laws(Some(2));
    server.kill();
    let server = pipeline.start(&home);
    assert_eq!(server.scrape().value("shop_total", &[]), Some(2.0));
    assert_eq!(server.terminate().status.code(), Some(0));
    // At a start the same question is asked, and answered by a flag.
    pipeline.tail = of("1e-3");
    let refused = pipeline.launch(&home).finish();
    assert_eq!(refused.status.code(), Some(78), "{}", refused.said());
    assert!(refused.said().contains("--accept shop_total"), "{}", refused.said());
    let server = pipeline.launch(&home).args(["--accept", "shop_total"]).start(&pipeline.address());
    assert_eq!(server.scrape().value("shop_total", &[]), Some(0.0));
    assert_eq!(server.terminate().status.code(), Some(0));
}

/// The figure of issue 3 (at most 200 ms); printed, since a shared machine says nothing about time.
#[test]
fn r1_the_time_of_a_reload_of_ten_thousand_series() {
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    let of = |bounds: &str| {
        let labels = "labels = [\"k\"]";
        format!(
            "[metrics.d_seconds]\ntype = \"histogram\"\nhelp = \"D\"\n{labels}\nbuckets = {bounds}\n\
             [metrics.c_total]\ntype = \"counter\"\nhelp = \"C\"\n{labels}\n"
        )
    };
    pipeline.tail = of("[0.1, 1]");
    let server = pipeline.start(&home);
    let mut client = Target::Lines(home.socket("dsd-stream.socket")).connect().expect("connects");
    for k in 0..5_000 {
        client.send(format!("c:1|c|#k:{k}\nd_seconds:0.5|h|#k:{k}\n").as_bytes()).expect("open");
    }
    server.await_laws(Some(10_000));
    let mut figures = Vec::new();
    for round in 0..10 {
        pipeline.tail = of(["[0.2, 1]", "[0.3]"][round % 2]);
        home.write("pipeline.toml", &pipeline.text());
        let began = wait::now();
        let answer = server.post("/-/reload", &[], b"");
        let whole = wait::now().duration_since(began);
        assert_eq!(answer.status, 200, "{}", answer.text());
        figures.push((whole, answer.json()["micros"].as_u64().expect("a number")));
    }
    let slowest = figures.iter().map(|(whole, _)| whole.as_secs_f64() * 1e3).fold(0.0, f64::max);
    let inside = figures.iter().map(|(_, micros)| *micros).max().unwrap_or(0);
    server.await_laws(Some(10_000));
    println!("reload of 10,000 series over HTTP: at most {slowest:.1} ms, of which {inside} µs took over");
}

/// A launch without a file cannot be watched for one; the flag is taken all the same.
#[test]
fn r1_a_reload_without_files_changes_nothing() {
    let home = Home::new();
    let port = free_port();
    let launch = Launch::new(&home).arg("run").env("HYDROGRAPH_HTTP__LISTEN", format!("127.0.0.1:{port}"));
    let server = launch.start(&format!("127.0.0.1:{port}"));
    let answer = server.post("/-/reload", &[], b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["others"], serde_json::json!([]), "{}", answer.text());
    assert_eq!(server.terminate().status.code(), Some(0));
}
