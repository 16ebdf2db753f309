//! The routes of Prometheus's API: parameters, forms, codes and shapes, over a pipeline that is made up.

use super::{Answer, Served};

const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

fn json(answer: &Answer) -> serde_json::Value {
    serde_json::from_slice(&answer.body).unwrap_or_else(|error| panic!("{error}: {}", answer.text()))
}

#[test]
fn parameters_come_in_the_query_string_or_in_a_form() {
    let served = Served::start(None);
    let expected = r#"{"status":"success","data":{"resultType":"scalar","result":[0,"5"]}}"#;
    for answer in [
        served.get("/api/v1/query?query=fine&timeout=5s", ""),
        served.post("/api/v1/query", FORM, b"query=fine&timeout=5"),
        // The form comes first.
        served.post("/api/v1/query?query=wrong&timeout=5s", FORM, b"query=fine"),
        // What is no form is not read.
        served.post("/api/v1/query?query=fine&timeout=5s", "Content-Type: text/plain\r\n", b"query=wrong"),
    ] {
        assert_eq!((answer.status, answer.text().as_str()), (200, expected));
        assert_eq!(answer.header("content-type"), Some("application/json"));
    }
    assert_eq!(served.get("/api/v1/labels", "").text(), r#"{"status":"success","data":["a"]}"#);
    assert_eq!(served.post("/api/v1/labels", FORM, b"match[]=x").text(), r#"{"status":"success","data":["a"]}"#);
    assert_eq!(served.get("/api/v1/label/job/values", "").text(), r#"{"status":"success","data":["a"]}"#);
    assert_eq!(served.get("/api/v1/series?match[]=x", "").text(), r#"{"status":"success","data":[]}"#);
    assert_eq!(json(&served.get("/api/v1/status/buildinfo", ""))["data"]["application"], "hydrograph");
}

#[test]
fn errors_have_prometheus_s_codes_and_types() {
    let served = Served::start(None);
    let range = "/api/v1/query_range?query=x";
    for (path, status, kind) in [
        ("/api/v1/query?query=wrong", 400, "bad_data"),
        ("/api/v1/query?query=failed", 422, "execution"),
        ("/api/v1/query?query=late", 503, "timeout"),
        ("/api/v1/query?query=unreadable", 500, "internal"),
        ("/api/v1/query?query=panic", 500, "internal"),
        ("/api/v1/query?query=long", 422, "execution"),
        ("/api/v1/query?query=x&time=soon", 400, "bad_data"),
        ("/api/v1/query?query=x&timeout=soon", 400, "bad_data"),
        ("/api/v1/query?query=x&limit=-1", 400, "bad_data"),
        (range, 400, "bad_data"),
        (&format!("{range}&start=1&end=0&step=1"), 400, "bad_data"),
        (&format!("{range}&start=0&end=1&step=0"), 400, "bad_data"),
        (&format!("{range}&start=0&end=11001&step=1"), 400, "bad_data"),
        (&format!("{range}&start=0&end=1&step=soon"), 400, "bad_data"),
        ("/api/v1/series", 400, "bad_data"),
        ("/api/v1/label/1a/values", 400, "bad_data"),
        ("/api/v1/metadata?limit=x", 400, "bad_data"),
    ] {
        let answer = served.get(path, "");
        assert_eq!(answer.status, status, "{path}: {}", answer.text());
        let said = json(&answer);
        assert_eq!((&said["status"], &said["errorType"]), (&"error".into(), &kind.into()), "{path}");
        assert!(said["error"].as_str().is_some_and(|words| !words.is_empty()), "{path}");
    }
    assert_eq!(served.get(&format!("{range}&start=0&end=11000&step=1"), "").status, 200);
    let long = format!("query={}", "x".repeat(2 << 20));
    assert_eq!(served.post("/api/v1/query", FORM, long.as_bytes()).status, 400);
    assert_eq!(served.post("/api/v1/query", FORM, b"query=%zz").status, 400);
}

#[test]
fn few_questions_are_worked_on_at_once_and_the_rest_waits_or_is_told_so() {
    let served = Served::start(None);
    let ask = || served.get("/api/v1/query?query=sleep&timeout=300ms", "");
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..80).map(|_| scope.spawn(ask)).collect();
        asked.into_iter().map(|asked| asked.join().expect("an answer")).collect()
    });
    let of = |kind: &str| answers.iter().filter(|answer| json(answer)["errorType"] == kind).count();
    assert!(answers.iter().all(|answer| answer.status == 503));
    assert_eq!(of("timeout") + of("unavailable"), 80);
    assert!(of("unavailable") >= 1, "more than {} waited", 64);
}

#[test]
fn the_token_guards_every_route() {
    let served = Served::start(Some("s3cret"));
    for path in ["query?query=1", "query_range", "series", "labels", "label/a/values", "metadata", "status/buildinfo"] {
        let path = format!("/api/v1/{path}");
        assert_eq!(served.get(&path, "").status, 401, "{path}");
        assert_ne!(served.get(&path, "Authorization: Bearer s3cret\r\n").status, 401, "{path}");
    }
    let listed = served.get("/", "Accept: application/json\r\nAuthorization: Bearer s3cret\r\n").text();
    for path in ["query", "query_range", "series", "labels", "label/{name}/values", "metadata", "status/buildinfo"] {
        assert!(listed.contains(&format!("\"/api/v1/{path}\"")), "{path}");
    }
}

/// The pieces of a chunked body, and whether it came to its end.
fn chunks(answer: &Answer) -> (Vec<u8>, bool) {
    let (mut rest, mut body) = (&answer.body[..], Vec::new());
    while let Some(line) = rest.windows(2).position(|pair| pair == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&rest[..line]).expect("digits"), 16).expect("a length");
        if length == 0 {
            return (body, true);
        }
        body.extend_from_slice(&rest[line + 2..line + 2 + length]);
        rest = &rest[line + 2 + length + 2..];
    }
    (body, false)
}

#[test]
fn exports_come_in_pieces_and_break_off_where_they_are_not_whole() {
    let served = Served::start(None);
    let answer = served.get("/api/v1/export?start=1&end=2.5&format=openmetrics&match[]=x", "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("application/openmetrics-text")));
    assert_eq!(chunks(&answer), (b"OpenMetrics 1000000000 2500000000\n".to_vec(), true));
    let mut raw = Vec::new();
    let mut stream = std::net::TcpStream::connect(served.tcp).expect("connects");
    let request = b"GET /api/v1/export?start=1&match[]=broken HTTP/1.1\r\nHost: localhost\r\n\r\n";
    std::io::Write::write_all(&mut stream, request).expect("sent");
    // It is closed, perhaps before the head was on its way, and never ended.
    let _ = std::io::Read::read_to_end(&mut stream, &mut raw);
    assert!(!raw.ends_with(b"0\r\n\r\n"), "what is not whole has no end: {}", String::from_utf8_lossy(&raw));
    for path in ["", "start=soon", "start=2&end=1", "start=1&format=xml", "start=1&match[]=sum(x)", "start=1&match[]={"]
    {
        let refused = served.get(&format!("/api/v1/export?{path}"), "");
        assert_eq!((refused.status, json(&refused)["errorType"].as_str()), (400, Some("bad_data")), "{path}");
    }
    // Two that nobody reads take all places; when they are gone there is room again.
    let open = || {
        let mut stream = std::net::TcpStream::connect(served.tcp).expect("connects");
        std::io::Write::write_all(
            &mut stream,
            b"GET /api/v1/export?start=1&match[]=endless HTTP/1.1\r\nHost: localhost\r\n\r\n",
        )
        .expect("sent");
        let mut first = [0; 1];
        std::io::Read::read_exact(&mut stream, &mut first).expect("it begins");
        stream
    };
    let held = [open(), open()];
    assert_eq!(served.get("/api/v1/export?start=1&match[]=x", "").status, 503);
    drop(held);
    let is_free = || served.get("/api/v1/export?start=1&match[]=x", "").status == 200;
    assert!((0..500).any(|_| is_free() || {
        std::thread::sleep(std::time::Duration::from_millis(10));
        false
    }));
}
