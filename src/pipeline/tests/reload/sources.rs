//! R1: sources and their listeners come, go and change, and what did not change keeps its sockets.

use super::*;
use crate::pipeline::StartError;
use crate::pipeline::plan::Plan;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

fn plan(environment: &Environment, sources: &str) -> Plan {
    let text = format!("name = \"reload\"\n[store]\npath = \":memory:\"\n[http]\nenabled = false\n{sources}");
    Pipeline::builder().environment(environment.clone()).text(text).plan().expect("a valid plan")
}

fn start(environment: &Environment, sources: &str) -> Pipeline {
    let clock = Arc::new(crate::event::SystemClock);
    Pipeline::start_plan(plan(environment, sources), environment, clock).expect("starts")
}

fn socket(name: &str, listen: &str, more: &str) -> String {
    format!("[sources.{name}]\ntype = \"socket\"\nlisten = [{listen}]\n{more}\n")
}

/// The address of a listener as the file asks for it.
fn address(pipeline: &Pipeline, asked: &str) -> String {
    let all = pipeline.listeners();
    let found = all.iter().find(|listener| listener.asked == asked);
    found.unwrap_or_else(|| panic!("{asked} is not among {all:?}")).address.clone()
}

fn total(pipeline: &Pipeline, name: &str) -> f64 {
    pipeline.get(name, &[]).unwrap_or(0.0)
}

#[test]
fn r1_a_source_is_added_and_removed_and_the_others_keep_their_connections() {
    let environment = environment();
    let a = socket("a", "\"unixstream:a.socket\", \"unixgram:a-gram.socket\"", "");
    let b = socket("b", "\"unixstream:b.socket\", \"unixgram:b-gram.socket\", \"tcp:127.0.0.1:0\"", "");
    let pipeline = start(&environment, &a);
    let mut to_a = UnixStream::connect(address(&pipeline, "unixstream:a.socket")).expect("connects");
    to_a.write_all(b"a:1|c\n").expect("open");
    let mut sent = (1.0, 0.0);
    for round in 0..3 {
        let report = pipeline.reload(plan(&environment, &format!("{a}{b}"))).expect("taken over");
        assert_eq!(report.sources.added, ["b"], "round {round}");
        let path = address(&pipeline, "unixgram:b-gram.socket");
        let gram = UnixDatagram::unbound().expect("a socket");
        let mut stream = UnixStream::connect(address(&pipeline, "unixstream:b.socket")).expect("connects");
        let mut tcp = std::net::TcpStream::connect(address(&pipeline, "tcp:127.0.0.1:0")).expect("connects");
        // Else the kernel may hold the last bytes back, and they would not have been received.
        tcp.set_nodelay(true).expect("an option of every kernel");
        for _ in 0..100 {
            gram.send_to(b"b:1|c", &path).expect("the queue has room, or is waited for");
            stream.write_all(b"b:1|c\n").expect("open");
            tcp.write_all(b"b:1|c\n").expect("open");
            to_a.write_all(b"a:1|c\n").expect("open");
        }
        sent = (sent.0 + 100.0, sent.1 + 300.0);
        if round == 1 {
            until("all of it", || total(&pipeline, "b_total") == sent.1);
        }
        let report = pipeline.reload(plan(&environment, &a)).expect("taken over");
        assert_eq!(report.sources.removed, ["b"], "round {round}");
        // Read to the end, and durable when the call returns.
        assert_eq!(pipeline.view().metric("b_total").map(|_| total(&pipeline, "b_total")), Some(sent.1));
        assert!(!Path::new(&path).exists() && !Path::new(&format!("{path}.lock")).exists(), "{path} is still there");
        assert!(gram.send_to(b"b:1|c", &path).is_err());
        until("the stream to be cut", || stream.write_all(b"b:1|c\n").is_err());
        to_a.write_all(b"a:1|c\n").expect("the other source keeps its connection");
        sent.0 += 1.0;
    }
    until("everything of a", || total(&pipeline, "a_total") == sent.0);
    // A name keeps its number, and so its tally.
    assert_eq!(pipeline.source_names().iter().filter(|name| *name == "b").count(), 1);
    let report = pipeline.stop(Duration::from_secs(10));
    let of = |name: &str| report.sources.iter().find(|(of, _)| of == name).expect("a source").1.clone();
    assert_eq!((of("a").inputs as f64, of("b").inputs as f64), sent);
    assert!(report.is_complete && report.failure.is_none());
}

#[test]
fn r1_a_listener_is_added_and_removed_while_its_neighbours_stay() {
    let environment = environment();
    let of = |listen: &str, mode: &str| socket("a", listen, &format!("mode = \"{mode}\""));
    let pipeline = start(&environment, &of("\"unixstream:one.socket\", \"udp:127.0.0.1:0\"", "0722"));
    let path = address(&pipeline, "unixstream:one.socket");
    let port = address(&pipeline, "udp:127.0.0.1:0");
    let mut one = UnixStream::connect(&path).expect("connects");
    let udp = std::net::UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let mut count = 0.0;
    let both = |one: &mut UnixStream, count: &mut f64| {
        one.write_all(b"k:1|c\n").expect("open");
        udp.send_to(b"k:1|c", &port).expect("sent");
        *count += 2.0;
    };
    both(&mut one, &mut count);
    let more = of("\"tcp:127.0.0.1:0\", \"unixstream:one.socket\", \"udp:127.0.0.1:0\"", "0700");
    let report = pipeline.reload(plan(&environment, &more)).expect("taken over");
    assert_eq!(report.sources.changed, ["a"]);
    assert_eq!(
        (address(&pipeline, "unixstream:one.socket"), address(&pipeline, "udp:127.0.0.1:0")),
        (path.clone(), port.clone())
    );
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o700);
    both(&mut one, &mut count);
    let mut tcp = std::net::TcpStream::connect(address(&pipeline, "tcp:127.0.0.1:0")).expect("connects");
    tcp.write_all(b"k:1|c\n").expect("open");
    count += 1.0;
    until("all of it", || total(&pipeline, "k_total") == count);
    // The first one leaves; the places of the others in their reactors change.
    pipeline
        .reload(plan(&environment, &of("\"udp:127.0.0.1:0\", \"unixstream:one.socket\"", "0700")))
        .expect("taken over");
    both(&mut one, &mut count);
    drop(UnixStream::connect(&path).expect("new connections too"));
    until("all of it", || total(&pipeline, "k_total") == count);
}

#[test]
fn r1_a_taken_address_refuses_the_whole_reload() {
    let environment = environment();
    let a = socket("a", "\"unixstream:a.socket\"", "mode = \"0722\"");
    let pipeline = start(&environment, &a);
    let path = address(&pipeline, "unixstream:a.socket");
    let mut to_a = UnixStream::connect(&path).expect("connects");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    let listen = format!("\"unixgram:new.socket\", \"tcp:127.0.0.1:{port}\"");
    let more = a.replace("0722", "0700") + &socket("b", &listen, "") + &metric("later_total", "counter", "");
    match pipeline.reload(plan(&environment, &more)) {
        Err(ReloadError::Start(StartError::Bind { source_name, error })) => {
            assert_eq!(source_name, "b");
            assert!(error.to_string().contains(&port.to_string()), "{error}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(pipeline.listeners().len(), 1);
    assert!(!Path::new(&path.replace("a.socket", "new.socket")).exists(), "what was bound is let go");
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o722, "as it was");
    assert!(pipeline.plan().metrics.is_empty());
    to_a.write_all(b"k:1|c\n").expect("open");
    until("the line", || total(&pipeline, "k_total") == 1.0);
    drop(taken);
    let report = pipeline.reload(plan(&environment, &more)).expect("the port is free");
    assert_eq!((report.sources.added, report.sources.changed), (vec!["b".to_owned()], vec!["a".to_owned()]));
    to_a.write_all(b"k:1|c\n").expect("open");
    until("the line", || total(&pipeline, "k_total") == 2.0);
}

#[test]
fn r1_a_socket_goes_to_another_source_with_its_connections() {
    let environment = environment();
    let listen = "\"unixstream:a.socket\", \"unixgram:gram.socket\"";
    let pipeline = start(&environment, &socket("old", listen, ""));
    let mut stream = UnixStream::connect(address(&pipeline, "unixstream:a.socket")).expect("connects");
    stream.write_all(b"{\"kind\":\"x\"}\nk:1|c\n").expect("open");
    until("the line", || total(&pipeline, "k_total") == 1.0);
    let renamed = socket("new", listen, "event_key = \"kind\"")
        + "[events.x]\nfields = { n = \"int?\" }\n"
        + &metric("x_total", "counter", "from = { event = \"x\" }");
    let report = pipeline.reload(plan(&environment, &renamed)).expect("taken over");
    assert_eq!((report.sources.added, report.sources.removed), (vec!["new".to_owned()], vec!["old".to_owned()]));
    // The connection is of the new source, and read by its keys.
    stream.write_all(b"{\"kind\":\"x\"}\nk:1|c\n").expect("the connection stays");
    let gram = UnixDatagram::unbound().expect("a socket");
    gram.send_to(b"k:1|c", address(&pipeline, "unixgram:gram.socket")).expect("sent");
    until("all lines", || total(&pipeline, "k_total") == 3.0 && total(&pipeline, "x_total") == 1.0);
    assert!(pipeline.listeners().iter().all(|listener| listener.source == "new"));
    let report = pipeline.stop(Duration::from_secs(10));
    let inputs = |name: &str| report.sources.iter().find(|(of, _)| of == name).map(|(_, tally)| tally.inputs);
    assert_eq!((inputs("old"), inputs("new")), (Some(2), Some(3)));
}

#[test]
fn r1_collectors_begin_end_and_change() {
    let environment = environment();
    let host = |every: &str| format!("[sources.host]\ntype = \"host\"\nevery = \"{every}\"\n");
    let fed = metric("load", "gauge", "from = { source = \"host\", value = \"load1\" }");
    let pipeline = start(&environment, "");
    let report = pipeline.reload(plan(&environment, &(host("1s") + &fed))).expect("taken over");
    assert_eq!(report.sources.added, ["host"]);
    until("a value", || pipeline.get("load", &[]).is_ok());
    assert!(pipeline.view().metric("host_load1").is_none(), "only what is named is shown");
    // Without the metric every value is shown, by a collector that began anew.
    pipeline.reload(plan(&environment, &host("2s"))).expect("taken over");
    until("a value", || pipeline.get("host_load1", &[]).is_ok());
    pipeline.reload(plan(&environment, "")).expect("taken over");
    let inputs = || pipeline.tallies().iter().find(|(name, _)| name == "host").map(|(_, tally)| tally.inputs);
    pipeline.flush().expect("commits");
    let last = inputs();
    assert!(last.is_some_and(|count| count > 0));
    let off = "[sources.internal]\ntype = \"internal\"\nenabled = false\n";
    pipeline.reload(plan(&environment, off)).expect("taken over");
    pipeline.reload(plan(&environment, "")).expect("taken over");
    let steps = total(&pipeline, "hydrograph_clock_steps_total");
    assert_eq!(steps, pipeline.status().clock_steps as f64, "counted once");
    assert_eq!(inputs(), last, "nothing reads this machine any more");
}

#[test]
fn r1_what_needs_other_threads_is_named() {
    let environment = environment();
    let of = |threads: &str| socket("a", "\"unixstream:a.socket\"", &format!("threads = \"{threads}\""));
    let pipeline = start(&environment, &of("fused"));
    match pipeline.reload(plan(&environment, &of("split"))) {
        Err(ReloadError::NeedsRestart { key }) => assert_eq!(key, "sources.a.threads"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn r1_split_readers_follow_too() {
    let environment = environment();
    let split = "threads = \"split\"";
    let a = socket("a", "\"unixstream:a.socket\"", split);
    let b = socket("b", "\"unixstream:b.socket\", \"unixgram:gram.socket\"", split);
    let pipeline = start(&environment, &a);
    let mut to_a = UnixStream::connect(address(&pipeline, "unixstream:a.socket")).expect("connects");
    for round in 1..=3u32 {
        pipeline.reload(plan(&environment, &format!("{b}{a}"))).expect("taken over");
        let mut to_b = UnixStream::connect(address(&pipeline, "unixstream:b.socket")).expect("connects");
        let gram = UnixDatagram::unbound().expect("a socket");
        gram.connect(address(&pipeline, "unixgram:gram.socket")).expect("connects");
        for _ in 0..50 {
            to_a.write_all(b"k:1|c\n").expect("open");
            to_b.write_all(b"k:1|c\n").expect("open");
            gram.send(b"k:1|c").expect("sent");
        }
        pipeline.reload(plan(&environment, &a)).expect("taken over");
        until("all lines", || total(&pipeline, "k_total") == f64::from(round * 150));
    }
    assert!(pipeline.stop(Duration::from_secs(10)).is_complete);
}
