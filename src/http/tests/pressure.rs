//! Clients that hold connections, send too much, come under a foreign name or do not read.

use super::*;
use std::net::TcpStream;
use std::time::Duration;

/// An answer within so long, or `None`: the server took too long, or closed without one.
fn within(served: &Served, seconds: u64, request: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(served.tcp).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(seconds))).unwrap();
    stream.write_all(request.as_bytes()).ok()?;
    let mut start = [0; 12];
    stream.read_exact(&mut start).ok()?;
    std::str::from_utf8(&start[9..]).ok()?.parse().ok()
}

/// Connections that hold the server to its limit, each after this text.
fn crowd(served: &Served, said: &[u8]) -> Vec<TcpStream> {
    let open = |_| {
        // Once the backlog is full, too, nobody is accepted any more.
        let mut stream = TcpStream::connect_timeout(&served.tcp, Duration::from_millis(300)).ok()?;
        stream.write_all(said).ok()?;
        Some(stream)
    };
    (0..700).map_while(open).collect()
}

const ALIVE: &str = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";

#[test]
fn silent_connections_make_room_for_those_that_ask() {
    let served = Served::start(None);
    for said in [&b""[..], b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"]
    {
        let crowd = crowd(&served, said);
        for _ in 0..5 {
            assert_eq!(within(&served, 4, ALIVE), Some(200), "{:?} of {} clients", said.len(), crowd.len());
        }
    }
}

#[test]
fn whoever_does_not_say_what_it_wants_is_closed_in_seconds() {
    let served = Served::start(None);
    let mut half = TcpStream::connect(served.tcp).unwrap();
    half.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ").unwrap();
    let mut kept = TcpStream::connect(served.tcp).unwrap();
    kept.write_all(ALIVE.as_bytes()).unwrap();
    half.set_read_timeout(Some(Duration::from_secs(9))).unwrap();
    let mut rest = Vec::new();
    let ended = half.read_to_end(&mut rest);
    assert!(ended.is_ok_and(|_| rest.is_empty()), "closed within nine seconds, not told anything");
    // A connection that asked before is kept for the next request, longer than Prometheus' usual interval.
    kept.write_all(ALIVE.as_bytes()).unwrap();
    kept.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let mut answers = String::new();
    let mut some = [0; 4096];
    while answers.matches("200 OK").count() < 2 {
        let n = kept.read(&mut some).unwrap();
        assert!(n > 0, "closed after {answers}");
        answers.push_str(std::str::from_utf8(&some[..n]).unwrap());
    }
}

#[test]
fn a_loopback_listener_changes_nothing_under_a_foreign_name() {
    let served = Served::start(None);
    let ask = |method: &str, path: &str, host: &str| {
        let origin = format!("Origin: http://{host}\r\n");
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{origin}Content-Length: 5\r\n\r\na:1|c");
        within(&served, 10, &request).unwrap()
    };
    for path in ["/api/v1/lines", "/api/v1/events", "/-/reload"] {
        for host in ["evil.example", "evil.example:9911", "localhost.evil.example", "127.0.0.1.evil.example"] {
            assert_eq!(ask("POST", path, host), 403, "{path} {host}");
        }
    }
    for host in ["localhost", "LOCALHOST:9911", "app.localhost:1", "127.0.0.1:9911", "[::1]:9911", "10.1.2.3"] {
        assert_eq!(ask("POST", "/api/v1/lines", host), 200, "{host}");
    }
    // Reading stays possible behind a proxy that keeps the name it was asked by.
    assert_eq!(ask("GET", "/healthz", "metrics.example"), 200);
    // With a token a page from elsewhere cannot ask anyway.
    let guarded = Served::start(Some("s3cret"));
    let request = "POST /api/v1/lines HTTP/1.1\r\nHost: metrics.example\r\nAuthorization: Bearer s3cret\r\n\
                   Content-Length: 5\r\n\r\na:1|c";
    assert_eq!(within(&guarded, 10, request), Some(200));
}

/// Writes all before it reads, as Python's urllib does.
fn upload(served: &Served, path: &str, headers: &str, bytes: usize) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(served.tcp)?;
    stream.set_write_timeout(Some(Duration::from_secs(10)))?;
    write!(stream, "POST {path} HTTP/1.1\r\nHost: localhost\r\n{headers}Content-Length: {bytes}\r\n\r\n")?;
    let chunk = vec![b'x'; 64 * 1024];
    let mut left = bytes;
    while left > 0 {
        let n = left.min(chunk.len());
        stream.write_all(&chunk[..n])?;
        left -= n;
    }
    let mut start = [0; 12];
    stream.read_exact(&mut start)?;
    Ok(std::str::from_utf8(&start[9..]).unwrap().parse().unwrap())
}

#[test]
fn bodies_over_the_limit_are_read_away_so_that_the_answer_arrives() {
    let served = Served::start(None);
    assert_eq!(upload(&served, "/api/v1/lines", "", 16 << 20).unwrap(), 413);
    assert_eq!(upload(&served, "/api/v1/events", "", 40 << 20).unwrap(), 413);
    assert_eq!(upload(&served, "/api/v1/events", "Content-Encoding: br\r\n", 4 << 20).unwrap(), 415);
    assert_eq!(upload(&served, "/api/v1/lines", "Origin: http://evil.example\r\n", 4 << 20).unwrap(), 403);
    let guarded = Served::start(Some("s3cret"));
    assert_eq!(upload(&guarded, "/api/v1/lines", "", 4 << 20).unwrap(), 401);
    // A client that asks first is told before it sends anything.
    let request = format!(
        "POST /api/v1/lines HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n",
        8 << 20
    );
    assert_eq!(within(&served, 3, &request), Some(413));
    // A gigabyte is not.
    assert!(upload(&served, "/api/v1/lines", "", 1 << 30).is_err());
}

#[test]
fn what_was_taken_is_never_told_to_come_again() {
    let served = Served::start(None);
    served.fake.is_stuck.store(true, Ordering::SeqCst);
    let answer = served.post("/api/v1/lines", "", b"a:1|c\nbroken\n");
    assert_eq!((answer.status, answer.header("retry-after")), (202, None));
    assert_eq!(
        answer.text(),
        "{\"line\":\"a:1|c\",\"series\":\"a_total\",\"kind\":\"counter\",\"samples\":1,\"committed\":false}\n\
         {\"line\":\"broken\",\"reason\":\"malformed\",\"hint\":\"expected name:value|type\"}\n"
    );
    let answer = served.post("/api/v1/events?sync=true", "", b"{\"event\":\"a\"}");
    assert_eq!((answer.status, answer.header("retry-after")), (202, None));
    assert_eq!(answer.text(), "{\"accepted\":1,\"committed\":false,\"errors\":[],\"rejected\":0}");
    // Who does not wait for the commit is not told of it.
    assert_eq!(
        served.post("/api/v1/events", "", b"{\"event\":\"a\"}").text(),
        "{\"accepted\":1,\"errors\":[],\"rejected\":0}"
    );
    // Too many lines are refused before any is taken.
    assert_eq!(served.post("/api/v1/lines", "", "x\n".repeat(LINES_MAX).as_bytes()).status, 413);
    assert_eq!(served.post("/api/v1/lines", "", "x\n".repeat(LINES_MAX - 1).as_bytes()).status, 202);
}

#[test]
fn a_body_without_room_is_503_and_counted() {
    let served = Served::start(None);
    let answer = served.get("/metrics?name[]=no_room", "");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
    assert_eq!(*served.fake.refusals.lock().unwrap(), [Refusal::NoRoom]);
}

/// Asks and then does not read.
fn stalled(served: &Served, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(served.tcp).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

#[test]
fn clients_that_do_not_read_hold_little_and_not_for_long() {
    let served = Served::start(None);
    // The widest lines that are taken, whose outcomes no client reads: the room for answers is full after some.
    let body = format!("{}:1|c\n", "x".repeat(990)).repeat(1000);
    let request =
        format!("POST /api/v1/lines HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    // And the longest bodies, more than the kernel takes off our hands.
    let mut held: Vec<TcpStream> = (0..40).map(|_| stalled(&served, &request)).collect();
    let long = "GET /metrics?name[]=zeros_20000000 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    held.extend((0..8).map(|_| stalled(&served, long)));
    let refused = |wanted| served.fake.refusals.lock().unwrap().iter().filter(|refusal| **refusal == wanted).count();
    let wait_for = |what: &str, done: &dyn Fn() -> bool| {
        for _ in 0..400 {
            if done() {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("waited in vain for {what}");
    };
    wait_for("the room for answers to be full", &|| refused(Refusal::NoRoom) > 0);
    assert_eq!(within(&served, 5, ALIVE), Some(200));
    wait_for("those that do not read to be closed", &|| refused(Refusal::Stalled) > 5);
    wait_for("room to come back", &|| within(&served, 30, &request) == Some(200));
}

#[test]
fn a_widget_over_its_bound_is_not_told_to_come_again() {
    let served = Served::start(None);
    assert_eq!(served.get("/api/metrics/dashboard?widget=wide", "").status, 422);
}

#[test]
fn a_house_full_of_work_still_answers_probes() {
    let served = Served::start(None);
    // Each asks for more work than there is time for; the renders of the fake take some.
    let slow = "GET /metrics?name[]=sleep_3000 HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(3);
    let crowd = crowd(&served, slow.as_bytes());
    std::thread::sleep(Duration::from_millis(500));
    for _ in 0..5 {
        assert_eq!(within(&served, 10, ALIVE), Some(200), "{} clients", crowd.len());
    }
}
