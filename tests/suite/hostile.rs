//! Bad input: never a panic, never a wrong line in the exposition, every refusal counted with a reason and shown.

use crate::harness::{Home, Pipeline, Server, wait};
use crate::load::{Client, Target};
use hydrograph::event::RejectReason;
use std::collections::BTreeMap;
use std::io::Write;
use std::os::unix::net::UnixStream;

/// Refusals by reason as the metrics show them.
fn refusals(scrape: &crate::harness::Scrape) -> BTreeMap<String, f64> {
    scrape
        .named("hydrograph_rejected_total")
        .filter(|(s, v)| s.labels.get("source").is_some_and(|v| v == "app") && *v > 0.0)
        .map(|(s, v)| (s.labels["reason"].clone(), v))
        .collect()
}

fn assert_sane(server: &mut Server) {
    assert!(server.is_running(), "the server died: {}", server.said());
    assert!(!server.stderr().contains("panicked"), "{}", server.stderr());
    let known: Vec<&str> = RejectReason::ALL.iter().map(|r| r.as_str()).collect();
    for reason in refusals(&server.scrape()).keys() {
        assert!(known.contains(&&reason[..]), "{reason} is no reason");
    }
}

/// One line, one reason: the whole table.
#[test]
fn every_refusal_has_its_reason_and_is_shown() {
    let home = Home::new();
    let pipeline = Pipeline::new();
    let mut server = pipeline.start(&home);
    let mut client = Target::Gram(home.socket("dsd.socket")).connect().expect("a connection");
    let long_name = format!("{}:1|c", "n".repeat(201));
    let many = format!("m:1|c|#{}", (0..65).map(|n| format!("k{n}:v")).collect::<Vec<_>>().join(","));
    let wide = format!("w:1|c|#k:{}", "v".repeat(1025));
    let table: Vec<(&[u8], RejectReason)> = vec![
        (b"novalue|c", RejectReason::Malformed),
        (b"notype:1", RejectReason::Malformed),
        (b"free text without anything", RejectReason::Malformed),
        (b":1|c", RejectReason::EmptyName),
        (long_name.as_bytes(), RejectReason::NameTooLong),
        (b"a:1|x", RejectReason::UnknownType),
        (b"a:abc|c", RejectReason::BadValue),
        (b"a:|g", RejectReason::BadValue),
        (b"load:1,2|d", RejectReason::BadValue),
        (b"packed:1:2:x|d", RejectReason::BadValue),
        (b"a:0x10|c", RejectReason::BadValue),
        (b"nan:NaN|g", RejectReason::NotFinite),
        (b"inf:inf|ms", RejectReason::NotFinite),
        (b"ninf:-Inf|d", RejectReason::NotFinite),
        (b"neg:-5|ms", RejectReason::Negative),
        (b"big:1e19|c", RejectReason::OutOfRange),
        (b"bigg:1e19|g", RejectReason::OutOfRange),
        (b"r:1|c|@0", RejectReason::BadRate),
        (b"r:1|c|@1.5", RejectReason::BadRate),
        (b"r:1|c|@-1", RejectReason::BadRate),
        (b"r:1|ms|@1e-9", RejectReason::BadRate),
        (b"r:1|ms|@nan", RejectReason::BadRate),
        (b"t:1|c|T-5", RejectReason::BadTimestamp),
        (b"t:1|c|Tnow", RejectReason::BadTimestamp),
        (b"g:+1|g|T1700000000", RejectReason::GaugeOperationWithTime),
        (b"u\xff\xfe:1|c", RejectReason::InvalidUtf8),
        (b"u:1|c|#k:\xc3\x28", RejectReason::InvalidUtf8),
        (many.as_bytes(), RejectReason::TooManyLabels),
        (wide.as_bytes(), RejectReason::LabelTooLong),
        (b"l:1|c|#le:1", RejectReason::ReservedLabel),
        (b"l:1|c|#quantile:0.5", RejectReason::ReservedLabel),
        (b"l:1|c|#overflow:true", RejectReason::ReservedLabel),
        (b"l:1|c|#__name__:x", RejectReason::ReservedLabel),
        (b"_e{50,5}:short|x", RejectReason::BadEvent),
        (b"_sc|disk|9", RejectReason::BadEvent),
        (b"{\"order\":1}", RejectReason::NoEvent),
        (b"{\"metric\":\"m\",\"type\":\"counter\",\"value\":1e999}", RejectReason::BadJson),
        (b"{\"metric\":\"m\xff\",\"type\":\"counter\",\"value\":1}", RejectReason::InvalidUtf8),
    ];
    client.send(b"hx:1|g\nok:1|c\n").expect("the socket takes a packet");
    server.await_value("ok_total", &[], 1.0);
    for (line, _) in &table {
        client.send(line).expect("the socket takes a packet");
    }
    client.send(b"hx:1|c").expect("the socket takes a packet");
    let scrape = server.await_laws(Some(table.len() as u64 + 3));
    let mut expected: BTreeMap<String, f64> = BTreeMap::from([("type_conflict".to_owned(), 1.0)]);
    for (_, reason) in &table {
        *expected.entry(reason.as_str().to_owned()).or_default() += 1.0;
    }
    assert_eq!(refusals(&scrape), expected);
    assert_eq!(scrape.sum("packed_count", &[]), 0.0, "a packed line with one bad value is refused whole");

    let shown = server.rejects();
    for reason in expected.keys() {
        assert!(shown.iter().any(|r| r["reason"] == reason[..]), "{reason} is not in /api/v1/recent: {shown:#?}");
    }
    assert!(shown.iter().all(|r| r["source"] == "app"), "{shown:#?}");
    assert_sane(&mut server);
    assert_eq!(server.terminate().status.code(), Some(0));
}

/// What looks dangerous but is legal: huge values are clamped, tiny rates weigh, quotes and braces are escaped.
#[test]
fn hostile_but_legal_input_is_kept_exactly() {
    let home = Home::new();
    let pipeline = Pipeline::new();
    let mut server = pipeline.start(&home);
    let mut client = Target::Gram(home.socket("dsd.socket")).connect().expect("a connection");
    let lines: [&[u8]; 6] = [
        b"inject:1|c|#a:x\"} 5,b:p\\q,c:{z=\"1\"}",
        b"inject:2|c|#a:# HELP y,d:\xe2\x82\xac\xf0\x9f\x99\x82",
        b"weird name{a=\"b\"}\tx:4|c",
        b"rare:1|ms|@0.000001",
        b"huge:1e30:1e999:1|d",
        b"packed:1:2:3|c",
    ];
    for line in lines {
        client.send(line).expect("the socket takes a packet");
    }
    let scrape = server.await_laws(Some(lines.len() as u64));
    assert_eq!(refusals(&scrape), BTreeMap::new());
    let injected = [("a", "x\"} 5"), ("b", "p\\q"), ("c", "{z=\"1\"}")];
    assert_eq!(scrape.value("inject_total", &injected), Some(1.0));
    assert_eq!(scrape.value("inject_total", &[("a", "# HELP y"), ("d", "€🙂")]), Some(2.0));
    assert_eq!(scrape.value("weird_name_a__b___x_total", &[]), Some(4.0));
    let rare = scrape.value("rare_seconds_count", &[]).expect("the rare timing is there");
    assert!((rare - 1e6).abs() <= 130.0, "a weight of {rare} is more than 0.013 % off");
    assert_eq!(scrape.value("huge_count", &[]), Some(3.0));
    assert_eq!(scrape.value("packed_total", &[]), Some(6.0));
    assert_sane(&mut server);
}

/// Datagrams and frames that are too long or end early.
#[test]
fn oversize_and_partial_frames_are_counted() {
    let home = Home::new();
    let pipeline = Pipeline::new();
    let mut server = pipeline.start(&home);
    let stream = || UnixStream::connect(home.socket("dsd-stream.socket")).expect("a connection");
    let reason = |server: &Server, word: &str, count: f64| {
        server.scrape_until(&format!("{count} refused as {word}"), |s| refusals(s).get(word) == Some(&count));
    };

    let mut client = Target::Gram(home.socket("dsd.socket")).connect().expect("a connection");
    client.send(&b"x:1|c\n".repeat(20_000)).expect("the kernel takes 120 kB");
    reason(&server, "oversize", 1.0);
    // A line that never ends.
    let mut endless = stream();
    let _ = endless.write_all(&b"y".repeat(300_000));
    drop(endless);
    server.scrape_until("the endless line refused", |s| refusals(s).get("oversize").is_some_and(|n| *n >= 2.0));
    // A frame that ends early, and one that never gets its length.
    let mut half = stream();
    half.write_all(&100u32.to_le_bytes()).expect("the stream takes bytes");
    half.write_all(b"half:1|c\n").expect("the stream takes bytes");
    drop(half);
    reason(&server, "bad_frame", 1.0);
    // Connections that say nothing, or a whole frame and then half a length.
    drop(stream());
    let mut client = Target::Framed(home.socket("dsd-stream.socket")).connect().expect("a connection");
    client.send(b"whole:1|c\n").expect("the stream takes a frame");
    let Client::Framed(mut rest) = client else { panic!("a framed client") };
    rest.write_all(&[9, 0]).expect("the stream takes bytes");
    drop(rest);
    server.await_value("whole_total", &[], 1.0);
    let scrape = server.await_laws(None);
    assert_eq!(scrape.sum("half_total", &[]), 0.0);
    assert_sane(&mut server);
}

/// Lines to start from; the fuzzer breaks them.
const CORPUS: &[&[u8]] = &[
    b"a.b:1|c|#k:v,service:svc1\n",
    b"g:1|g|#service:svc1|T1700000000\n",
    b"_e{1,5}:T|hello|#service:svc1\n",
    b"_sc|svc|0|#service:svc1|m:ok\n",
    b"y:3.200000|ms\nz:-4|g\nz:+4|g\n",
    b"song.length:240:234|h|@0.5|c:in-6536|e:x|card:low\n",
    b"u:member:with:colons|s|#a,b,c:d\n",
    b"d:1e300:-1e300:0:1e-300|d|@0.1\n",
    b"{\"event\":\"order\",\"amount\":12.5}\n",
    b"n:NaN|g\nn:inf|c\nn:1|c|@1e-9\nn:99999999999999999999999|c\n",
];

/// Pieces that parsers trip over.
const PIECES: &[&[u8]] = &[
    b":",
    b"|",
    b"#",
    b"@",
    b",",
    b"\n",
    b"\0",
    b"\xff",
    b"|T",
    b"|@0",
    b"_e{",
    b"}",
    b"\"",
    b"\\",
    b"NaN",
    b"-",
    b"+",
    b"e9",
    b"9999999999",
    b"|c|c:",
    b"\r\n",
    b"=",
    b"{",
    b"_sc|",
    b"\xe2\x82",
];

fn broken(dice: &mut wait::Dice) -> Vec<u8> {
    if dice.below(50) == 0 {
        return (0..dice.below(200)).map(|_| dice.next() as u8).collect();
    }
    let mut packet = CORPUS[dice.below(CORPUS.len())].to_vec();
    for _ in 0..dice.below(4) {
        let at = dice.below(packet.len() + 1);
        match dice.below(5) {
            0 if at < packet.len() => packet[at] ^= 1 << dice.below(8),
            1 if at < packet.len() => drop(packet.remove(at)),
            2 => packet.truncate(at.max(1)),
            3 => {
                let other = CORPUS[dice.below(CORPUS.len())];
                packet.splice(at..at, other[..dice.below(other.len())].iter().copied());
            }
            _ => {
                let piece = PIECES[dice.below(PIECES.len())];
                packet.splice(at..at, piece.iter().copied());
            }
        }
    }
    packet
}

/// `HYDROGRAPH_FUZZ` packets, four of five as datagrams, the rest through streams whose framing breaks as well.
#[test]
fn fuzzed_datagrams_and_streams_never_break_it() {
    let packets = wait::knob("HYDROGRAPH_FUZZ", 1_000_000);
    let seed = wait::knob("HYDROGRAPH_SEED", 1);
    let mut dice = wait::Dice::new(seed);
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    pipeline.limits = "series = 3000\nseries_per_metric = 200\n".to_owned();
    let mut server = pipeline.start(&home);
    let mut gram = Target::Gram(home.socket("dsd.socket")).connect().expect("a connection");
    let streams = [
        Target::Framed(home.socket("dsd-stream.socket")),
        Target::Lines(home.socket("dsd-stream.socket")),
        Target::Tcp(pipeline.tcp),
        Target::Udp(pipeline.udp),
    ];
    let mut open: Vec<Option<Client>> = streams.iter().map(|_| None).collect();
    // Known before the others: a long run uses up the names that there may be.
    gram.send(b"fuzz.end:1|c").expect("the socket takes a packet");
    server.scrape_until("the beginning", |s| s.sum("fuzz_end_total", &[]) == 1.0);
    for n in 0..packets {
        let packet = broken(&mut dice);
        if dice.below(5) > 0 {
            gram.send(&packet).unwrap_or_else(|e| panic!("seed {seed}, packet {n}: {e}: {}", server.said()));
            continue;
        }
        let at = dice.below(streams.len());
        // A server may cut a stream whose framing is broken; the client connects again, as clients do.
        let client = match open[at].take() {
            Some(client) => client,
            None => streams[at].connect().unwrap_or_else(|e| panic!("seed {seed}, packet {n}: {e}: {}", server.said())),
        };
        let mut client = client;
        let sent = match &mut client {
            Client::Framed(stream) if dice.below(20) == 0 => stream.write_all(&packet),
            whole => whole.send(&packet),
        };
        if sent.is_ok() && dice.below(100) > 0 {
            open[at] = Some(client);
        }
        if n % 100_000 == 0 {
            assert_sane(&mut server);
        }
    }
    drop(open);
    gram.send(b"fuzz.end:1|c").expect("the socket takes a packet");
    server.scrape_until("the end of the fuzzing", |s| s.sum("fuzz_end_total", &[]) == 2.0);
    let scrape = server.await_laws(None);
    let laws = scrape.laws("app").expect("the laws hold");
    assert!(laws.inputs >= packets as f64 * 0.8 && laws.rejected > packets as f64 * 0.05, "{laws:?}");
    assert!(!server.rejects().is_empty());
    assert_sane(&mut server);
    let end = server.terminate();
    assert_eq!(end.status.code(), Some(0), "{}", end.said());
    // What was made of it is durable and reads back.
    let server = pipeline.start(&home);
    assert_eq!(server.await_laws(None).laws("app").expect("the laws hold").rejected, laws.rejected);
}
