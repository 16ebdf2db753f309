//! The routes over real TCP and Unix sockets, with a pipeline that is made up.
//!
//! The client is plain `std`, so that nothing of the server is tested with itself.

use super::*;
use crate::event::Timestamp;
use crate::pipeline::export::{ExportRequest, Take};
use crate::pipeline::queries::{Answer as Told, Question, Unanswered};
use crate::pipeline::tap::{TapError, TapLine, TapRequest};
use crate::pipeline::upkeep::{StoreCheck, StoreStats};
use crate::query::Value;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

mod pressure;
mod prometheus;

/// Text that must never reach a page as markup: a small hostile corpus.
const HOSTILE: &[&str] = &[
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"><svg/onload=alert(1)>",
    "' autofocus onfocus='alert(1)",
    "</title></style></code><h1>owned</h1>",
    "<!--",
    "-->",
    "]]>",
    "&lt;b&gt;",
    "{{7*7}}",
    "${7*7}",
    "javascript:alert(1)",
    "<a href=\"javascript:alert(1)\">x</a>",
    "<meta http-equiv=refresh content=0;url=//evil>",
    "\u{0}\u{1}\u{8}\u{b}\u{1f}\u{7f}",
    "\u{202e}desrever\u{202c}",
    "\u{feff}<\u{200b}script>",
    "line\r\nSet-Cookie: a=b",
    "<sc\u{0}ript>",
    "＜script＞",
    "<math><mi//xlink:href=\"data:x,<script>alert(4)</script>\">",
    "<base href=//evil/>",
];

/// A pipeline that is made up; it can be told to be down.
#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) is_down: AtomicBool,
    /// It takes input and commits none.
    is_stuck: AtomicBool,
    panics: AtomicBool,
    refusals: std::sync::Mutex<Vec<Refusal>>,
}

impl Backend for Fake {
    fn store_stats(&self) -> Result<StoreStats, String> {
        Err("the store has no handle".into())
    }

    fn store_check(&self) -> Result<StoreCheck, String> {
        Err("wrong checksum".into())
    }

    fn store_copy(&self) -> Result<std::fs::File, String> {
        let mut file = tempfile::tempfile().map_err(|error| error.to_string())?;
        std::io::Write::write_all(&mut file, &[7; 600_000]).map_err(|error| error.to_string())?;
        std::io::Seek::rewind(&mut file).map_err(|error| error.to_string())?;
        Ok(file)
    }

    fn export(
        &self,
        request: &ExportRequest,
        is_over: &dyn Fn() -> bool,
        take: &mut Take<'_>,
    ) -> Result<(), Unanswered> {
        match request.selectors.first().map(String::as_str) {
            Some("broken") => {
                assert!(take(b"a piece\n".to_vec()));
                Err(Unanswered::Unreadable("the disk".into()))
            }
            Some("endless") => {
                while !is_over() && take(vec![b'x'; 64 * 1024]) {}
                Err(Unanswered::TimeIsOver)
            }
            _ => {
                let pieces = format!("{:?} {} {}\n", request.format, request.start.0, request.end.0).into_bytes();
                assert!(pieces.chunks(7).all(|piece| take(piece.to_vec())));
                Ok(())
            }
        }
    }

    fn ask(&self, question: &Question, patience: std::time::Duration) -> Result<Told, Unanswered> {
        let text = match question {
            Question::Instant { text, .. } | Question::Range { text, .. } => text.as_str(),
            Question::Series(_) | Question::Metadata { .. } => return Ok(Told::Series(Vec::new())),
            Question::LabelNames(_) | Question::LabelValues { .. } => return Ok(Told::Words(vec!["a".into()])),
        };
        match text {
            "wrong" => Err(Unanswered::Wrong("1:1: it is wrong".into())),
            "failed" => Err(Unanswered::Failed("two series".into())),
            "late" => Err(Unanswered::TimeIsOver),
            "unreadable" => Err(Unanswered::Unreadable("the disk".into())),
            "panic" => panic!("asked to panic"),
            "long" => Ok(Told::Value(Value::String("x".repeat(17 << 20)), Timestamp(0))),
            "sleep" => {
                std::thread::sleep(patience);
                Err(Unanswered::TimeIsOver)
            }
            _ => Ok(Told::Value(Value::Scalar(patience.as_secs_f64()), Timestamp(0))),
        }
    }

    fn widget(&self, name: &str, hours: Option<f64>) -> Result<serde_json::Value, crate::pipeline::WidgetError> {
        match name {
            "overview" if hours.is_none_or(|hours| hours > 0.0) => Ok(serde_json::json!({"hours": hours})),
            "wide" => Err(crate::pipeline::WidgetError::TooMuch("more than 1 samples".into())),
            "overview" => Err(crate::pipeline::WidgetError::Timeframe { hours_max: 24.0 }),
            _ => Err(crate::pipeline::WidgetError::Unknown { known: vec!["overview".into()] }),
        }
    }

    fn scrape(&self, request: &ScrapeRequest) -> Result<ScrapeBody, NoScrape> {
        assert!(!self.panics.load(Ordering::SeqCst), "asked to panic");
        if request.group.as_deref().is_some_and(|group| group != "file") {
            return Err(UnknownGroup { known: vec!["file".into(), "internal".into()] }.into());
        }
        if let Some(millis) = request.names.first().and_then(|name| name.strip_prefix("sleep_")?.parse().ok()) {
            std::thread::sleep(std::time::Duration::from_millis(millis));
        }
        if request.names.first().is_some_and(|name| name == "no_room") {
            return Err(NoScrape::NoRoom("no room".into()));
        }
        if let Some(bytes) = request.names.first().and_then(|name| name.strip_prefix("zeros_")?.parse().ok()) {
            let pieces = [Arc::new(vec![b'0'; bytes]), Arc::default(), Arc::default()];
            return Ok(ScrapeBody { content_type: "text/plain", pieces, gzip: false });
        }
        let content_type = match request.format {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Format::Protobuf => "application/vnd.google.protobuf",
            Format::Json | Format::ApiJson => "application/json",
            Format::Csv => "text/csv",
            Format::Influx => "text/plain",
            Format::Ndjson => "application/x-ndjson",
        };
        let text = format!("{:?} {:?} {:?}", request.format, request.group, request.names).into_bytes();
        if !request.gzip {
            let (head, tail) = text.split_at(3);
            let pieces = [head, tail, b""].map(|piece| Arc::new(piece.to_vec()));
            return Ok(ScrapeBody { content_type, pieces, gzip: false });
        }
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&text).unwrap();
        let pieces = [Arc::default(), Arc::new(encoder.finish().unwrap()), Arc::default()];
        Ok(ScrapeBody { content_type, pieces, gzip: true })
    }

    fn health(&self) -> Health {
        let is_down = self.is_down.load(Ordering::SeqCst);
        let (status, state) = if is_down {
            (HealthStatus::Down, ComponentState::Down)
        } else {
            (HealthStatus::Degraded, ComponentState::Ok)
        };
        Health { status, components: vec![Component { name: "store".into(), state, reason: "disk full".into() }] }
    }

    fn is_ready(&self) -> bool {
        !self.is_down.load(Ordering::SeqCst)
    }

    fn recent(&self, kind: RecentKind, name: Option<&str>, limit: usize) -> Vec<RecentItem> {
        (0..3)
            .map(|place| RecentItem {
                time: Timestamp::from_seconds(place),
                source: name.unwrap_or("app").to_owned(),
                reason: kind.as_str().to_owned(),
                hint: limit.to_string(),
                text: "load:1,2|d".to_owned(),
                notice: None,
            })
            .collect()
    }

    fn lines(&self, body: Vec<u8>, wait: bool) -> Result<LinesTaken, Unavailable> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(Unavailable("limits.pending reached".into()));
        }
        let awaits_commit = wait && self.is_stuck.load(Ordering::SeqCst);
        let text = String::from_utf8_lossy(&body).into_owned();
        let outcomes = text
            .lines()
            .map(|line| match line.split_once(':') {
                Some((name, _)) => LineOutcome::Accepted(Accepted {
                    line: line.to_owned(),
                    series: format!("{name}_total"),
                    kind: "counter".to_owned(),
                    samples: 1,
                    value: (wait && !awaits_commit).then_some(1.0),
                    committed: awaits_commit.then_some(false),
                    ..Accepted::default()
                }),
                None => LineOutcome::Refused(Refused {
                    line: line.to_owned(),
                    reason: "malformed".to_owned(),
                    hint: "expected name:value|type".to_owned(),
                }),
            })
            .collect();
        Ok(LinesTaken { outcomes, awaits_commit })
    }

    fn note_refusal(&self, refusal: Refusal) {
        self.refusals.lock().unwrap().push(refusal);
    }

    fn events(&self, lines: Vec<u8>, wait: bool) -> Result<EventsTaken, EventsError> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(EventsError::Unavailable("limits.pending reached".into()));
        }
        let lines: Vec<&[u8]> = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
        if lines.contains(&&b"{\"busy\":true}"[..]) {
            assert!(!wait);
            return Err(EventsError::Busy("too much to do".into()));
        }
        let awaits_commit = wait && self.is_stuck.load(Ordering::SeqCst);
        let mut taken = EventsTaken { awaits_commit, ..EventsTaken::default() };
        for (index, line) in lines.iter().enumerate() {
            if line.starts_with(b"{\"event\"") {
                taken.accepted += 1;
            } else {
                taken.rejected += 1;
                let (reason, hint) = ("no_event".to_owned(), "the event has no name".to_owned());
                taken.errors.push(RefusedEvent { index, reason, hint });
            }
        }
        Ok(taken)
    }

    fn has_field(&self, _: &[u8], field: &[u8]) -> bool {
        field == b"source"
    }

    fn reload(&self, _: &[String]) -> Result<serde_json::Value, String> {
        Ok(serde_json::json!({"metrics": {"added": ["a_total"]}}))
    }

    fn reset(&self, selectors: &[String]) -> Result<usize, ResetRefused> {
        match selectors[0].as_str() {
            "nothing" => Err(ResetRefused::Unknown),
            "1+1" => Err(ResetRefused::Wrong("not a selector".into())),
            "down" => Err(ResetRefused::Unavailable("the store does not commit now".into())),
            _ => Ok(selectors.len()),
        }
    }

    fn index(&self) -> IndexData {
        sample_index()
    }

    fn tap(&self, request: &TapRequest) -> Result<Box<dyn TapFeed>, TapError> {
        match request.edges.first().map(String::as_str) {
            Some("nowhere") => Err(TapError::NoEdge { asked: "nowhere".into(), known: vec!["app".into()] }),
            Some("full") => Err(TapError::TooMany(crate::shard::tap::TooManyTaps)),
            _ => Ok(Box::new(FakeTap { left: request.count.unwrap_or(u64::MAX), said: 0 })),
        }
    }
}

/// One item a look, until so many are shown.
struct FakeTap {
    left: u64,
    said: u64,
}

impl TapFeed for FakeTap {
    fn is_idle(&self) -> bool {
        self.said > 2
    }

    fn is_over(&self) -> bool {
        self.said >= self.left
    }

    fn read(&mut self) -> Vec<TapLine> {
        self.said += 1;
        vec![TapLine::LeftOut { seconds: 1.0, limit: self.said, queue: 0 }]
    }

    fn end(&mut self, reason: &str) -> Vec<TapLine> {
        let (reason, shown) = (reason.to_owned(), self.said);
        vec![TapLine::End { reason, shown, left_out_by_limit: 0, left_out_by_queue: 0 }]
    }
}

/// What a pipeline under attack would show: every text field holds every hostile text.
fn sample_index() -> IndexData {
    let hostile = HOSTILE.concat();
    let item = |text: &&str| RecentItem {
        time: Timestamp::from_seconds(1_790_000_000),
        source: (*text).to_owned(),
        reason: (*text).to_owned(),
        hint: (*text).to_owned(),
        text: (*text).to_owned(),
        notice: None,
    };
    IndexData {
        version: "0.1.0".into(),
        pipeline: hostile.clone(),
        uptime_seconds: 12.0,
        now: Timestamp::from_seconds(1_790_000_010),
        listeners: vec![
            ListenerInfo {
                source: hostile.clone(),
                kind: hostile.clone(),
                address: hostile.clone(),
                hint: hostile.clone(),
                skipped: Some(hostile.clone()),
            },
            ListenerInfo {
                kind: "unixgram".into(),
                address: "/skipped".into(),
                skipped: Some("taken".into()),
                ..ListenerInfo::default()
            },
            ListenerInfo { kind: "udp".into(), address: "127.0.0.1:8125".into(), ..ListenerInfo::default() },
            ListenerInfo { kind: "unixgram".into(), address: "/run/dsd.socket".into(), ..ListenerInfo::default() },
        ],
        http: vec!["http://127.0.0.1:9911/".into()],
        sources: vec![SourceInfo {
            name: hostile.clone(),
            inputs: 17,
            rejected: 1,
            samples: 16,
            ..SourceInfo::default()
        }],
        series_count: 3,
        newest: HOSTILE
            .iter()
            .map(|text| SeriesInfo { series: (*text).to_owned(), kind: (*text).to_owned(), created: Timestamp(0) })
            .collect(),
        rejects: HOSTILE.iter().map(item).collect(),
        store: StoreInfo { path: hostile.clone(), is_new: true, bytes: 61_000, commit: 4 },
        laws: Laws {
            inputs: 17,
            events: 16,
            rejected: vec![(hostile, 1)],
            samples: 16,
            committed: 16,
            dropped: vec![],
            in_flight: 0,
        },
    }
}

/// A served fake, stopped when dropped.
pub(crate) struct Served {
    pub(crate) tcp: std::net::SocketAddr,
    pub(crate) unix: std::path::PathBuf,
    pub(crate) fake: Arc<Fake>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<crate::actor::Thread>,
    _folder: tempfile::TempDir,
}

impl Served {
    pub(crate) fn start(token: Option<&str>) -> Served {
        Served::with(token, None)
    }

    fn with(token: Option<&str>, admin: Option<&str>) -> Served {
        let folder = tempfile::tempdir().unwrap();
        let unix = folder.path().join("http.sock");
        let tcp_listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let tcp = tcp_listener.local_addr().unwrap();
        let listeners = vec![Listener::Tcp(tcp_listener), Listener::bind_unix(&unix, 0o600).unwrap()];
        let fake = Arc::new(Fake::default());
        let backend: Arc<dyn Backend> = fake.clone();
        let [reader, admin] = [token, admin].map(|text| text.map(|text| Token::new(text).unwrap()));
        let tokens = Tokens { reader, admin };
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let thread = crate::actor::spawn("http", &crate::actor::Failures::new(), move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(listeners, backend, tokens, async { drop(stopped.await) })).unwrap();
        })
        .unwrap();
        Served { tcp, unix, fake, stop: Some(stop), thread: Some(thread), _folder: folder }
    }

    fn ask(&self, head: &str, body: &[u8]) -> Answer {
        exchange(std::net::TcpStream::connect(self.tcp).unwrap(), head, body)
    }

    fn get(&self, path: &str, headers: &str) -> Answer {
        self.ask(&format!("GET {path} HTTP/1.1\r\n{headers}"), b"")
    }

    fn post(&self, path: &str, headers: &str, body: &[u8]) -> Answer {
        self.ask(&format!("POST {path} HTTP/1.1\r\nContent-Length: {}\r\n{headers}", body.len()), body)
    }
}

#[test]
fn the_store_is_told_checked_and_copied() {
    let served = Served::start(Some("secret"));
    assert_eq!(served.get("/api/v1/store", "").status, 401);
    let key = "Authorization: Bearer secret\r\n";
    let stats = served.get("/api/v1/store", key);
    assert_eq!((stats.status, stats.header("retry-after").is_some()), (503, true), "{}", stats.text());
    let check = served.post("/api/v1/store/check", key, b"");
    assert_eq!(check.status, 500);
    assert!(check.text().contains("wrong checksum"), "{}", check.text());
    let copy = served.post("/api/v1/store/backup", key, b"");
    assert_eq!((copy.status, copy.header("content-length")), (200, Some("600000")));
    assert!(copy.body.len() == 600_000 && copy.body.iter().all(|byte| *byte == 7));
    let foreign = format!("{key}Origin: http://elsewhere.example\r\n");
    for path in ["/api/v1/store/check", "/api/v1/store/backup"] {
        assert_eq!(served.post(path, &foreign, b"").status, 403, "{path}");
        assert_eq!(served.get(path, key).status, 405, "{path}");
    }
}

#[test]
fn r3_resets_over_http_need_their_own_token() {
    let path = "/api/v1/reset?match=a";
    let admin = "Authorization: Bearer chief\r\n";
    let open = Served::start(None).post(path, admin, b"");
    assert_eq!(open.status, 403, "off without a token for it: {}", open.text());
    assert!(open.text().contains("admin_token_file"), "{}", open.text());
    for served in [Served::with(None, Some("chief")), Served::with(Some("reader"), Some("chief"))] {
        for headers in ["", "Authorization: Bearer reader\r\n", "Authorization: Bearer chiefs\r\n"] {
            let refused = served.post(path, headers, b"");
            assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")), "{headers}");
        }
        let done = served.post("/api/v1/reset?match=a&match%5B%5D=b%7Bc%3D%22d%22%7D", admin, b"");
        assert_eq!((done.status, done.text().as_str()), (200, "{\"series\":2}"));
        assert_eq!(served.post("/api/v1/reset", admin, b"").status, 400, "all series are not meant by accident");
        assert_eq!(served.post("/api/v1/reset?match=nothing", admin, b"").status, 404);
        assert_eq!(served.post("/api/v1/reset?match=1%2B1", admin, b"").status, 400);
        let later = served.post("/api/v1/reset?match=down", admin, b"");
        assert_eq!((later.status, later.header("retry-after")), (503, Some("1")));
        let site = format!("{admin}Sec-Fetch-Site: cross-site\r\n");
        assert_eq!(served.post(path, &site, b"").status, 403);
        assert_eq!(served.get(path, admin).status, 405);
        assert_eq!(served.get("/metrics", admin).status, 200, "it opens everything else as well");
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        drop(self.stop.take());
        self.thread.take().unwrap().join();
        assert!(!self.unix.exists(), "the socket file is removed when serving ends");
    }
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }
}

fn exchange(mut stream: impl Read + Write, head: &str, body: &[u8]) -> Answer {
    // A server that refuses early may close before it read all, of the head, too.
    let _ = write!(stream, "{head}Host: localhost\r\nConnection: close\r\n\r\n");
    let _ = stream.write_all(body);
    let mut raw = Vec::new();
    let _ = stream.read_to_end(&mut raw);
    let split = raw.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_else(|| panic!("no head in {raw:?}"));
    let head = String::from_utf8(raw[..split].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: raw[split + 4..].to_vec() }
}

#[test]
fn scrapes_by_accept_group_and_name() {
    let served = Served::start(None);
    let answer = served.get("/metrics", "");
    assert_eq!((answer.status, answer.text().as_str()), (200, "Text None []"));
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert_eq!(answer.header("vary"), Some("Accept, Accept-Encoding"));
    let answer = served.get("/metrics?name[]=a&name%5B%5D=b%20c&other=1", "Accept: application/openmetrics-text\r\n");
    assert_eq!(answer.text(), "OpenMetrics None [\"a\", \"b c\"]");
    let answer = served.get("/metrics/file", "Accept: application/json\r\n");
    assert_eq!(answer.text(), "ApiJson Some(\"file\") []");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(served.get("/metrics.json", "").text(), "Json None []");
    let protobuf = "Accept: application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;\
                    encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,*/*;q=0.1\r\n";
    assert_eq!(served.get("/metrics", protobuf).text(), "Protobuf None []");
    let answer = served.get("/metrics/nowhere", "");
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("[\"file\",\"internal\"]"), "{}", answer.text());
    let answer = served.ask("HEAD /metrics HTTP/1.1\r\n", b"");
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

#[test]
fn d40_d41_d42_d43_api_metrics_by_format() {
    let served = Served::start(None);
    for (query, accept, expected) in [
        ("", "", "Text None []"),
        ("", "Accept: application/json\r\n", "ApiJson None []"),
        ("?format=prometheus", "Accept: application/json\r\n", "Text None []"),
        ("?format=json&name[]=a", "", "ApiJson None [\"a\"]"),
        ("?format=csv", "", "Csv None []"),
        ("?format=influx", "", "Influx None []"),
    ] {
        let answer = served.get(&format!("/api/metrics{query}"), accept);
        assert_eq!((answer.status, answer.text().as_str()), (200, expected), "{query}");
    }
    let answer = served.get("/api/metrics?format=xml", "");
    assert_eq!(answer.status, 400);
    assert!(
        answer.text().contains("[\"prometheus\",\"json\",\"csv\",\"influx\",\"openmetrics\",\"ndjson\"]"),
        "{}",
        answer.text()
    );
}

#[test]
fn compresses_when_asked() {
    let served = Served::start(None);
    let answer = served.get("/metrics", "Accept-Encoding: gzip\r\n");
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    flate2::read::GzDecoder::new(&answer.body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, "Text None []");
    assert_eq!(served.get("/metrics", "Accept-Encoding: gzip;q=0\r\n").header("content-encoding"), None);
}

#[test]
fn health_is_503_only_when_down() {
    let served = Served::start(None);
    let answer = served.get("/health", "");
    assert_eq!(answer.status, 200);
    assert!(answer.text().starts_with("{\"status\":\"degraded\",\"components\":[{\"name\":\"store\""));
    for path in ["/healthz", "/-/healthy", "/readyz", "/-/ready"] {
        assert_eq!(served.get(path, "").status, 200, "{path}");
    }
    served.fake.is_down.store(true, Ordering::SeqCst);
    assert_eq!(served.get("/health", "").status, 503);
    assert_eq!(served.get("/-/ready", "").status, 503);
    assert_eq!(served.get("/healthz", "").status, 200);
    let answer = served.post("/api/v1/lines", "", b"a:1|c");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
}

#[test]
fn unknown_routes_and_methods_are_json() {
    let served = Served::start(None);
    for (answer, status) in [
        (served.get("/nowhere", ""), 404),
        (served.get("/api/v1/events", ""), 405),
        (served.get("/metrics/%ff", ""), 404),
        (served.post("/metrics", "", b""), 405),
        (served.get("/api/v1/lines", ""), 405),
        (served.get("/api/v1/recent?kind=nothing", ""), 400),
        (served.get("/api/v1/recent?limit=x", ""), 400),
    ] {
        assert_eq!(answer.status, status, "{}", answer.head);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert!(answer.text().starts_with("{\"error\":"));
    }
    assert_eq!(served.post("/metrics", "", b"").header("allow"), Some("GET,HEAD"));
}

#[test]
fn recent_passes_kind_name_and_limit() {
    let served = Served::start(None);
    let items: serde_json::Value = serde_json::from_slice(&served.get("/api/v1/recent", "").body).unwrap();
    assert_eq!(items[1]["reason"], "rejects");
    assert_eq!(items[1]["hint"], "100");
    assert_eq!(items[1]["time"], "1970-01-01T00:00:01Z");
    let answer = served.get("/api/v1/recent?kind=checks&name=a%26b&limit=99999", "");
    let items: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        (&items[0]["reason"], &items[0]["source"], &items[0]["hint"]),
        (&"checks".into(), &"a&b".into(), &"1000".into())
    );
}

#[test]
fn lines_answer_ndjson_within_limits() {
    let served = Served::start(None);
    let answer = served.post("/api/v1/lines", "", b"a:1|c\nbroken\n");
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(
        answer.text(),
        "{\"line\":\"a:1|c\",\"series\":\"a_total\",\"kind\":\"counter\",\"samples\":1,\"value\":1.0}\n\
         {\"line\":\"broken\",\"reason\":\"malformed\",\"hint\":\"expected name:value|type\"}\n"
    );
    assert!(!served.post("/api/v1/lines?wait=false", "", b"a:1|c").text().contains("value"));
    assert_eq!(served.post("/api/v1/lines", "", &vec![b'x'; LINES_BYTES_MAX]).status, 200);
    assert_eq!(served.post("/api/v1/lines", "", &vec![b'x'; LINES_BYTES_MAX + 1]).status, 413);
    assert_eq!(served.post("/api/v1/lines", "Content-Encoding: gzip\r\n", b"x").status, 415);
    assert_eq!(served.post("/api/v1/lines", "Origin: http://evil.example\r\n", b"a:1|c").status, 403);
    assert_eq!(served.post("/api/v1/lines", "Sec-Fetch-Site: cross-site\r\n", b"a:1|c").status, 403);
    assert_eq!(served.post("/api/v1/lines", "Origin: http://localhost\r\n", b"a:1|c").status, 200);
}

#[test]
fn events_are_answered_as_the_contract_says() {
    let served = Served::start(None);
    let post = |headers: &str, body: &[u8]| {
        let answer = served.post("/api/v1/events", headers, body);
        (answer.status, answer.text())
    };
    let none = "{\"accepted\":1,\"errors\":[],\"rejected\":0}".to_owned();
    assert_eq!(post("", b"{\"event\":\"a\"}"), (202, none.clone()));
    assert_eq!(served.post("/api/v1/events?sync=true", "", b"{\"event\":\"a\"}").status, 200);
    let mixed = "{\"accepted\":1,\"errors\":[\
        {\"hint\":\"the event has no name\",\"index\":1,\"reason\":\"no_event\"},\
        {\"hint\":\"an event is a JSON object\",\"index\":2,\"reason\":\"bad_json\"}],\"rejected\":2}";
    assert_eq!(post("", b"[{\"event\":\"a\"},{},7]"), (202, mixed.to_owned()));
    assert_eq!(post("", b"{}\n{}").0, 400, "none was accepted");
    assert_eq!(post("", b"").0, 400);
    assert_eq!(post("", b"[]").0, 202);
    let broken = post("", b"[{\"event\":\"a\"}");
    assert_eq!(broken.0, 400, "an array that ends early has no events: {}", broken.1);
    assert!(broken.1.contains("ends too early at byte 14"), "{}", broken.1);
    let cloud = "Content-Type: application/cloudevents+json\r\n";
    assert_eq!(post(cloud, b"{\"specversion\":\"1.0\",\"type\":\"t\",\"data\":{}}"), (202, none.clone()));
    assert_eq!(post("CE-SpecVersion: 1.0\r\nCE-Type: t\r\n", b"{}"), (202, none.clone()));
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"{\"event\":\"a\"}").unwrap();
    let gzip = encoder.finish().unwrap();
    assert_eq!(post("Content-Encoding: gzip\r\n", &gzip), (202, none));
    assert_eq!(post("Content-Encoding: gzip\r\n", b"{}").0, 400);
    assert_eq!(post("Content-Encoding: br\r\n", b"{}").0, 415);
    assert_eq!(post("Origin: http://evil.example\r\n", b"{}").0, 403);
    let answer = served.post("/api/v1/events", "", b"{\"busy\":true}");
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")));
    assert_eq!(served.post("/api/v1/events", "", &vec![b' '; EVENTS_BYTES_MAX + 1]).status, 413);
    served.fake.is_down.store(true, Ordering::SeqCst);
    let answer = served.post("/api/v1/events", "", b"{}");
    assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how long a client waits for room is real time")]
fn bodies_that_do_not_come_leave_room_for_others() {
    let served = Served::start(None);
    // Nine clients that say nothing of their length, and one that does: eight bodies of the longest are room for all.
    let silent: Vec<_> = (0..9)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(served.tcp).unwrap();
            stream
                .write_all(b"POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
                .unwrap();
            stream
        })
        .collect();
    let started = std::time::Instant::now();
    while served.post("/api/v1/events", "Content-Encoding: gzip\r\n", b"x").status != 429 {
        assert!(started.elapsed().as_secs() < 10, "the ninth is told to come again");
    }
    drop(silent);
    while served.post("/api/v1/events", "", b"{\"event\":\"a\"}").status != 202 {
        assert!(started.elapsed().as_secs() < 10, "room comes back with the clients gone");
    }
}

#[test]
fn the_token_guards_all_but_liveness_and_readiness() {
    let served = Served::start(Some("s3cret"));
    for path in
        ["/metrics", "/metrics.json", "/health", "/", "/monitoring", "/assets/style.css", "/nowhere", "/api/v1/recent"]
    {
        let answer = served.get(path, "");
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")), "{path}");
        assert_eq!(served.get(path, "Authorization: Bearer s3crew\r\n").status, 401, "{path}");
        assert_ne!(served.get(path, "Authorization: Bearer s3cret\r\n").status, 401, "{path}");
    }
    for path in ["/healthz", "/-/healthy", "/readyz", "/-/ready"] {
        assert_eq!(served.get(path, "").status, 200, "{path}");
    }
    for path in ["/healthz/", "//healthz", "/healthz/../metrics", "/%68ealthz"] {
        assert_eq!(served.get(path, "").status, 401, "{path}");
    }
    assert_eq!(served.post("/api/v1/lines", "", b"a:1|c").status, 401);
    assert_eq!(served.post("/api/v1/events", "", b"{}").status, 401);
}

#[test]
fn answers_on_the_unix_socket_too() {
    let served = Served::start(None);
    let stream = std::os::unix::net::UnixStream::connect(&served.unix).unwrap();
    assert_eq!(exchange(stream, "GET /metrics HTTP/1.1\r\n", b"").text(), "Text None []");
    let taken = Listener::bind_unix(&served.unix, 0o600).unwrap_err();
    assert_eq!(taken.kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn stale_sockets_are_replaced_and_files_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("http.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    drop(Listener::bind_unix(&path, 0o600).unwrap());
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "precious").unwrap();
    assert!(Listener::bind_unix(&path, 0o600).is_err());
    assert_eq!(std::fs::read(&path).unwrap(), b"precious");
}

#[test]
fn greedy_headers_are_refused_and_the_next_client_served() {
    let served = Served::start(None);
    assert_eq!(served.get("/metrics", &format!("X-Big: {}\r\n", "x".repeat(40_000))).status, 431);
    assert_eq!(served.get("/metrics", &"X-Many: y\r\n".repeat(100)).status, 431);
    served.fake.panics.store(true, Ordering::SeqCst);
    assert_eq!(served.get("/metrics", "").status, 500);
    served.fake.panics.store(false, Ordering::SeqCst);
    assert_eq!(served.get("/metrics", "").status, 200);
}

#[test]
fn dribblers_hold_up_nobody() {
    let served = Served::start(None);
    let dribblers: Vec<_> = (0..50)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(served.tcp).unwrap();
            stream.write_all(b"GET /metrics HTTP/1.1\r\nX-Slow: ").unwrap();
            stream
        })
        .collect();
    assert_eq!(served.get("/metrics", "").status, 200);
    drop(dribblers);
}

#[test]
fn the_page_shows_everything_and_runs_nothing() {
    let served = Served::start(None);
    for path in ["/", "/monitoring"] {
        let answer = served.get(path, "Accept: text/html,*/*;q=0.8\r\n");
        assert_eq!(answer.header("content-type"), Some("text/html; charset=utf-8"));
        let policy = answer.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(answer.header("referrer-policy"), Some("no-referrer"));
        check_page(&answer.text());
    }
    assert_eq!(served.get("/assets/style.css", "").header("content-type"), Some("text/css; charset=utf-8"));
    let answer = served.get("/", "Accept: application/json\r\n");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let data: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(data["listeners"][0]["source"], HOSTILE.concat());
    assert_eq!(data["routes"][0]["path"], "/metrics");
    assert_eq!(data["laws"]["hold"], true);
}

/// Every tag of the page is one that the page's own code writes, and none of the hostile text is there raw.
fn check_page(page: &str) {
    const TAGS: &[&str] = &[
        "!doctype", "html", "head", "meta", "title", "link", "body", "header", "h1", "p", "dl", "div", "dt", "dd",
        "main", "section", "h2", "ul", "li", "b", "code", "span", "pre", "table", "thead", "tbody", "tr", "th", "td",
        "a", "footer",
    ];
    for part in page.split('<').skip(1) {
        let tag = part.trim_start_matches('/').split(|c: char| !c.is_ascii_alphanumeric() && c != '!').next().unwrap();
        assert!(TAGS.contains(&tag), "tag {tag:?} in {part:?}");
        let inside = part.split('>').next().unwrap();
        assert!(!inside.contains(" on") && !inside.contains(" style") && !inside.contains(" src"), "{inside:?}");
    }
    assert_eq!(page.matches("<meta").count(), 4);
    for text in HOSTILE.iter().filter(|text| text.contains(['<', '"', '\'', '\u{0}', '\u{202e}'])) {
        assert!(!page.contains(text), "{text:?} is there raw");
    }
    for shown in ["&lt;script&gt;alert(1)&lt;/script&gt;", "lines 17 = events 16 + rejected 1", "\\u{202e}desrever"] {
        assert!(page.contains(shown), "{shown}");
    }
}

#[test]
fn laws_read_as_printed_at_exit() {
    let mut laws = Laws {
        inputs: 17,
        events: 16,
        rejected: vec![("bad_value".into(), 1)],
        samples: 16,
        committed: 16,
        ..Laws::default()
    };
    assert_eq!(
        laws.to_string(),
        "lines 17 = events 16 + rejected 1 (bad_value 1) · samples 16 = committed 16 + dropped 0 + in flight 0"
    );
    assert!(laws.hold());
    laws.committed = 15;
    assert!(!laws.hold());
}

#[test]
fn a_tap_goes_on_until_it_is_over_and_is_refused_in_words() {
    let served = Served::start(Some("s3cret"));
    const TOKEN: &str = "Authorization: Bearer s3cret\r\n";
    assert_eq!(served.get("/api/v1/tap", "").status, 401);
    let answer = served.get("/api/v1/tap?count=2", TOKEN);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/x-ndjson")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let text = answer.text();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("{\"kind\":\"left_out\""), "{text}");
    assert!(lines[2].starts_with("{\"kind\":\"end\"") && lines[2].contains("\"shown\":2"), "{text}");
    let full = served.get("/api/v1/tap?edge=full", TOKEN);
    assert_eq!((full.status, full.header("retry-after")), (429, Some("5")));
    let nowhere = served.get("/api/v1/tap?edge=nowhere", TOKEN);
    assert_eq!((nowhere.status, nowhere.text().contains("\"edges\":[\"app\"]")), (404, true), "{}", nowhere.text());
    let wrong = served.get("/api/v1/tap?kind=all", TOKEN);
    assert_eq!((wrong.status, wrong.text().contains("kinds are")), (400, true), "{}", wrong.text());
    let elsewhere = served.get("/api/v1/tap", &format!("{TOKEN}Sec-Fetch-Site: cross-site\r\n"));
    assert_eq!(elsewhere.status, 403);
}

#[test]
fn a_tap_ends_with_the_server() {
    let mut served = Served::start(None);
    let mut stream = std::os::unix::net::UnixStream::connect(&served.unix).unwrap();
    write!(stream, "GET /api/v1/tap HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut said = Vec::new();
    let mut buffer = [0; 4096];
    while !String::from_utf8_lossy(&said).contains("left_out") {
        let read = stream.read(&mut buffer).unwrap();
        said.extend_from_slice(&buffer[..read]);
    }
    drop(served.stop.take());
    stream.read_to_end(&mut said).unwrap();
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("{\"kind\":\"end\",\"reason\":\"the instance stops\""), "{said}");
}
