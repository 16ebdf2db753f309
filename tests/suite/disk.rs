//! Disk full, file-size limit, read-only directory, corrupt file: clear words and exit codes, and recovery by itself.

use crate::harness::server::is_root;
use crate::harness::{Home, Launch, Pipeline, Scrape, Server, wait};
use crate::load::Target;
use rustix::process::{Resource, Rlimit, Signal, prlimit};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Sends rounds of input that the store cannot commit, gives space back, and asserts that everything is there in the end.
fn survives_without_space(home: &Home, server: &mut Server, take_space: impl FnOnce(), give_back: impl FnOnce()) {
    let mut client = Target::Framed(home.socket("dsd-stream.socket")).connect().expect("a connection");
    client.send(b"before:1|c\n").expect("the stream takes a frame");
    server.await_value("before_total", &[], 1.0);
    take_space();

    // New series with long names, until a commit fails and /health says so.
    let mut sent = 0u64;
    let health = wait::until("the server to notice that it cannot commit", || {
        for _ in 0..200 {
            sent += 1;
            let line = format!("during:1|c|#n:{sent},pad:{}\n", "x".repeat(400));
            client.send(line.as_bytes()).expect("the stream takes a frame while the store is stuck");
        }
        assert!(server.is_running(), "a full disk ended the process: {}", server.said());
        let health = server.get("/health");
        let status = health.json()["status"].clone();
        (status != "ok").then_some(health)
    });
    assert!(health.text().contains("store"), "health names the store: {}", health.text());
    let stuck = server.scrape_until("the scrape to show that commits lag", |s| {
        s.value("hydrograph_commit_lag_seconds", &[]).is_some_and(|lag| lag > 0.3)
    });
    assert_eq!(stuck.value("before_total", &[]), Some(1.0), "what was durable is still shown");
    assert!(stuck.sum("during_total", &[]) < sent as f64, "nothing is shown before it is durable");

    // What is taken now is not answered with "come again": a client that does would be counted twice.
    let posted = server.post("/api/v1/lines", &[], b"posted:1|c\n");
    assert_eq!(posted.status, 202, "{}", posted.text());
    assert_eq!((posted.json()["committed"].as_bool(), posted.headers.get("retry-after")), (Some(false), None));
    let event = b"{\"metric\":\"posted\",\"type\":\"counter\",\"value\":1}";
    let posted = server.post("/api/v1/events?sync=true", &[], event);
    assert_eq!(posted.status, 202, "{}", posted.text());
    assert_eq!((posted.json()["accepted"].as_u64(), posted.json()["committed"].as_bool()), (Some(1), Some(false)));
    let url = format!("http://{}", server.address);
    let verb = |verb: &[&str]| Launch::new(home).args(["--url", &url]).args(verb).finish();
    let probe = verb(&["healthcheck"]);
    assert_eq!(probe.status.code(), Some(1), "{}", probe.said());
    assert!(probe.said().contains("store: down: "), "the probe says why: {}", probe.said());
    let send = verb(&["send", "posted:1|c"]);
    assert_eq!(send.status.code(), Some(1), "{}", send.said());
    assert!(send.said().contains("not committed yet") && send.said().contains("count twice"), "{}", send.said());

    give_back();
    server.await_value("posted_total", &[], 3.0);
    let whole = |s: &Scrape| s.sum("during_total", &[]) == sent as f64;
    let scrape = server.scrape_until("everything to be committed once space is back", whole);
    assert_eq!(scrape.value("before_total", &[]), Some(1.0));
    server.await_laws(Some(sent + 1));
    wait::until("health to be ok again", || (server.get("/health").json()["status"] == "ok").then_some(()));
}

#[test]
fn a_file_size_limit_is_survived_and_recovered_from() {
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    let mut server = pipeline.start(&home);
    let pid = server.pid();
    let limit = |current| {
        let limit = Rlimit { current, maximum: None };
        prlimit(Some(pid), Resource::Fsize, limit).expect("the limit of a child of one's own can be set");
    };
    let size = std::fs::metadata(home.store("t.redb")).expect("the store exists").len();
    survives_without_space(&home, &mut server, || limit(Some(size)), || limit(None));
    let end = server.terminate();
    assert_eq!(end.status.code(), Some(0), "{}", end.said());
    pipeline.store.push('\n');
    let server = pipeline.start(&home);
    assert_eq!(server.scrape().value("before_total", &[]), Some(1.0));
}

/// A drain that cannot commit ends with its timeout, or at once with a second signal; both say that it failed.
#[test]
fn a_second_signal_does_not_wait_for_the_drain() {
    let home = Home::new();
    let pipeline = Pipeline::new();
    let mut server = pipeline.start(&home);
    let mut client = Target::Framed(home.socket("dsd-stream.socket")).connect().expect("a connection");
    client.send(b"before:1|c\n").expect("the stream takes a frame");
    server.await_value("before_total", &[], 1.0);
    let limit = Rlimit { current: Some(4096), maximum: None };
    prlimit(Some(server.pid()), Resource::Fsize, limit).expect("the limit of a child of one's own can be set");
    wait::until("the server to notice that it cannot commit", || {
        client.send(b"during:1|c\n").expect("the stream takes a frame");
        (server.get("/health").json()["status"] != "ok").then_some(())
    });
    server.signal(Signal::TERM);
    wait::until("the drain to begin", || server.stdout().contains("draining").then_some(()));
    let begun = wait::now();
    if server.is_running() {
        server.signal(Signal::TERM);
    }
    let end = server.wait();
    assert!(begun.elapsed() < Duration::from_secs(5), "the second signal waited");
    assert!(!end.status.success(), "what was not committed is not called done: {}", end.said());
}

/// A drain that cannot commit goes on trying: space that comes in time saves everything, and the laws say so.
#[test]
fn a_drain_commits_when_space_comes_in_time() {
    let home = Home::new();
    let mut server = Pipeline::new().start(&home);
    let mut client = Target::Framed(home.socket("dsd-stream.socket")).connect().expect("a connection");
    client.send(b"before:1|c\n").expect("the stream takes a frame");
    server.await_value("before_total", &[], 1.0);
    let limit = |bytes| Rlimit { current: bytes, maximum: None };
    prlimit(Some(server.pid()), Resource::Fsize, limit(Some(4096))).expect("the limit of a child of one's own");
    wait::until("the server to notice that it cannot commit", || {
        client.send(b"before:1|c\n").expect("the stream takes a frame");
        (server.get("/health").json()["status"] != "ok").then_some(())
    });
    client.send(&b"during:1|c\n".repeat(1000)).expect("the stream takes a frame");
    server.signal(Signal::TERM);
    wait::until("the drain to begin", || server.stdout().contains("draining").then_some(()));
    wait::load_for(Duration::from_secs(2));
    assert!(server.is_running(), "it gave up: {}", server.said());
    prlimit(Some(server.pid()), Resource::Fsize, limit(None)).expect("the limit of a child of one's own");
    let end = server.wait();
    assert_eq!(end.status.code(), Some(0), "{}", end.said());
    assert!(end.stdout.contains("in flight 0"), "{}", end.said());
    let server = Pipeline::new().start(&home);
    assert_eq!(server.scrape().value("during_total", &[]), Some(1000.0));
}

/// A tmpfs that goes with its value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path) -> Option<SmallDisk> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "hg-test"]).arg(path).status();
        mounted.is_ok_and(|s| s.success()).then(|| SmallDisk(path.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, so that a failing test whose server still lives leaves no mount behind.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_is_survived_and_recovered_from() {
    let home = Home::new();
    let state = home.path().join("state");
    let disk = if is_root() { SmallDisk::mount(&state) } else { None };
    let Some(_disk) = disk else {
        return wait::skip("a_full_disk_is_survived_and_recovered_from", "a small tmpfs needs root");
    };
    let pipeline = Pipeline::new();
    let mut server = pipeline.start(&home);
    let ballast = state.join("ballast");
    let fill = || {
        use std::io::Write;
        let mut file = std::fs::File::create(&ballast).expect("the ballast is created");
        while file.write(&[1; 65536]).is_ok_and(|n| n > 0) {}
    };
    survives_without_space(&home, &mut server, fill, || std::fs::remove_file(&ballast).expect("the ballast goes"));
    let end = server.terminate();
    assert_eq!(end.status.code(), Some(0), "{}", end.said());

    // A start without space says so.
    std::fs::remove_file(home.store("t.redb")).expect("the store goes");
    fill();
    fails(pipeline.launch(&home), 1, &["t.redb", "space"]);
}

/// A command that must fail with this code and name all these words.
fn fails(launch: Launch, code: i32, words: &[&str]) {
    let end = launch.finish();
    assert_eq!(end.status.code(), Some(code), "{}", end.said());
    let said = end.said();
    for word in words {
        assert!(said.to_lowercase().contains(&word.to_lowercase()), "{word:?} is not said:\n{said}");
    }
    // redb panics on damaged files; that is caught and told as corruption.
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_corrupt_or_foreign_store_stops_with_words_that_help() {
    let home = Home::new();
    let pipeline = Pipeline::new();
    let store = home.store("t.redb");

    std::fs::write(&store, b"this is not a database, it is a letter to my aunt".repeat(1000)).expect("a file");
    fails(pipeline.launch(&home), 1, &["t.redb"]);
    assert!(std::fs::read(&store).expect("still there").starts_with(b"this is not"), "a foreign file is not touched");
    std::fs::remove_file(&store).expect("the file goes");

    // A real redb file of somebody else.
    {
        let table: redb::TableDefinition<&str, u64> = redb::TableDefinition::new("birds");
        let database = redb::Database::create(&store).expect("a database");
        let write = database.begin_write().expect("a transaction");
        write.open_table(table).expect("a table").insert("crow", 7).expect("a row");
        write.commit().expect("a commit");
    }
    fails(pipeline.launch(&home), 1, &["t.redb"]);
    std::fs::remove_file(&store).expect("the file goes");

    // Our own file, with its middle overwritten.
    let server = pipeline.start(&home);
    let answer = server.post("/api/v1/lines", &[("Content-Type", "text/plain")], b"one:1|c|#a:b\n");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(server.terminate().status.code(), Some(0));
    let mut bytes = std::fs::read(&store).expect("the store");
    let (from, to) = (4096, bytes.len().min(4096 + 65536 * 4));
    bytes[from..to].iter_mut().for_each(|b| *b ^= 0xA5);
    std::fs::write(&store, &bytes).expect("the broken store");
    fails(pipeline.launch(&home), 1, &["t.redb"]);
    std::fs::write(&store, &bytes[..100]).expect("hardly anything of it");
    fails(pipeline.launch(&home), 1, &["t.redb", "is corrupt", "ends before"]);
}

#[test]
fn a_store_that_is_deleted_while_it_is_used_stops_the_process_and_is_saved_aside() {
    let home = Home::new();
    let pipeline = Pipeline::new();
    let store = home.store("t.redb");
    let server = pipeline.start(&home);
    let answer = server.post("/api/v1/lines", &[("Content-Type", "text/plain")], b"kept:7|c\n");
    assert_eq!(answer.status, 200, "{}", answer.text());
    std::fs::remove_file(&store).expect("the file goes");
    let end = server.wait();
    assert_eq!(end.status.code(), Some(1), "{}", end.said());
    for word in ["deleted or replaced", "t.redb.rescued", "was saved"] {
        assert!(end.said().contains(word), "{word:?} is not said:\n{}", end.said());
    }
    std::fs::rename(home.store("t.redb.rescued"), &store).expect("what was saved is a file");
    assert_eq!(pipeline.start(&home).scrape().value("kept_total", &[]), Some(7.0));
}

#[test]
fn a_store_of_another_format_is_named_and_left_alone() {
    let home = Home::new();
    let pipeline = Pipeline::new();
    let store = home.store("t.redb");
    pipeline.start(&home).terminate();
    {
        // A row of the published format: a checksum seeded by table and key, then the content.
        let version = 7u32.to_le_bytes();
        let seed = xxhash_rust::xxh3::xxh3_64(b"meta\0format");
        let sum = xxhash_rust::xxh3::xxh3_64_with_seed(&version, seed);
        let row = [&sum.to_le_bytes()[..], &version].concat();
        let table: redb::TableDefinition<&[u8], &[u8]> = redb::TableDefinition::new("meta");
        let database = redb::Database::open(&store).expect("the store is a redb file");
        let write = database.begin_write().expect("a transaction");
        write.open_table(table).expect("the table").insert(&b"format"[..], &row[..]).expect("a row");
        write.commit().expect("a commit");
    }
    for _ in 0..2 {
        fails(pipeline.launch(&home), 1, &["t.redb", "format 7", "format 5"]);
    }
}

#[test]
fn a_directory_that_cannot_be_written_stops_with_its_name() {
    let home = Home::new();
    if is_root() {
        // Root writes everywhere, so the command runs as a user that does not own the directory.
        let binary = home.give_to_nobody();
        let closed = home.path().join("closed");
        std::fs::create_dir(&closed).expect("a directory");
        let launch = Launch::as_user(&home, &binary).env("STATE_DIRECTORY", &closed).arg("run");
        let launch = launch.env("HYDROGRAPH_HTTP__LISTEN", Pipeline::new().address());
        fails(launch, 1, &["closed"]);
    } else {
        let closed = home.path().join("state");
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o500)).expect("mode of the directory");
        fails(Pipeline::new().launch(&home), 1, &["state"]);
    }
    // A directory that cannot exist because a file stands in its place.
    let file = home.write("plain-file", "");
    let mut pipeline = Pipeline::new();
    pipeline.store.push_str(&format!("path = \"{}/t.redb\"\n", file.display()));
    fails(pipeline.launch(&home), 1, &["plain-file"]);
}

#[test]
fn wrong_configuration_exits_78_and_says_what_is_right() {
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    pipeline.top.push_str("widow = \"5m\"\n");
    fails(pipeline.launch(&home), 78, &["widow", "window", "pipeline.toml"]);
    let file = home.write("check.toml", &pipeline.text());
    fails(Launch::new(&home).arg("check").arg(file), 78, &["widow", "window"]);
    let mut pipeline = Pipeline::new();
    pipeline.top.push_str("slice = \"10s\"\nwindow = \"25s\"\n");
    fails(pipeline.launch(&home), 78, &["window", "slice"]);
    fails(Launch::new(&home).arg("run").arg("missing.toml"), 78, &["missing.toml"]);
    fails(Launch::new(&home).arg("rum"), 2, &["run"]);
    let mut pipeline = Pipeline::new();
    pipeline.limits = "series = 1_000_000\nmemory = \"64MiB\"\n".to_owned();
    fails(pipeline.launch(&home), 78, &["memory", "64"]);
}
