//! A cardinality attack: memory stays within what `check` computed, the sum stays exact, the culprit is named.

use crate::harness::{Home, Launch, Pipeline, wait};
use crate::load::Target;

/// The peak resident memory of a process in bytes.
fn peak_memory(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find(|l| l.starts_with("VmHWM:")).expect("the kernel counts the peak");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number of kB");
    kib * 1024
}

/// `1.5 GiB` and its like, as bytes.
fn bytes(number: &str, unit: &str) -> Option<u64> {
    let number: f64 = number.replace(['_', ','], "").parse().ok()?;
    let unit = match unit.trim_matches(|c: char| !c.is_alphabetic()) {
        "B" | "bytes" => 1.0,
        "KB" | "kB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "KiB" => 1024.0,
        "MiB" => 1024.0 * 1024.0,
        "GiB" => 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    Some((number * unit) as u64)
}

/// The bound that `check` prints on its line about memory: the first size there.
fn computed_bound(checked: &str) -> u64 {
    let line = checked.lines().find(|l| l.trim_start().starts_with("memory")).unwrap_or_else(|| {
        panic!("`check` says nothing about memory:\n{checked}");
    });
    let words: Vec<&str> = line.split_whitespace().collect();
    words.windows(2).find_map(|w| bytes(w[0], w[1])).unwrap_or_else(|| panic!("no size in {line:?}"))
}

/// Labels as long as they may be: few series, and yet more bytes than were computed for all of them.
#[test]
fn a_flood_of_long_labels_stays_within_the_computed_memory_and_is_named() {
    let lines = wait::knob("HYDROGRAPH_LONG_LABELS", 8_000);
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    pipeline.limits =
        "series = 20_000\nseries_per_metric = 20_000\ncells = 1_000_000\npending = \"16MiB\"\n".to_owned();
    let file = home.write("pipeline.toml", &pipeline.text());
    let checked = Launch::new(&home).arg("check").arg(file).finish();
    assert_eq!(checked.status.code(), Some(0), "{}", checked.said());
    let bound = computed_bound(&checked.stdout);

    let mut server = pipeline.start(&home);
    let mut client = Target::Framed(home.socket("dsd-stream.socket")).connect().expect("a connection");
    let value = "v".repeat(1000);
    for n in 0..lines {
        let tags: Vec<String> = (0..60).map(|key| format!("k{key}:{n}{value}")).collect();
        client.send(format!("long:1|c|#{}\n", tags.join(",")).as_bytes()).expect("the stream takes a frame");
    }
    let scrape = server.await_laws(Some(lines));
    assert_eq!(scrape.sum("long_total", &[]), lines as f64, "the sum over the metric stays exact");
    let overflow = scrape.value("long_total", &[("overflow", "true")]).expect("an overflow series");
    // 20,000 × 280 B hold 92 series of 60 kB.
    assert!(overflow >= (lines - 100) as f64 && overflow < lines as f64, "{overflow} overflowed");
    let health = server.get("/health");
    assert!(health.text().contains("long_total") && health.text().contains("more bytes"), "{}", health.text());
    let peak = peak_memory(server.pid().as_raw_nonzero().get());
    println!("peak memory {peak} B of a bound of {bound} B, {lines} lines of 60 kB");
    assert!(peak <= bound, "peak memory {peak} is above the computed bound {bound}");
    assert!(server.is_running());
    assert_eq!(server.terminate().status.code(), Some(0));
}

#[test]
fn a_cardinality_attack_stays_within_the_computed_memory_and_is_named() {
    let tags = wait::knob("HYDROGRAPH_TAGS", 300_000);
    let home = Home::new();
    let mut pipeline = Pipeline::new();
    pipeline.limits =
        "series = 20_000\nseries_per_metric = 10_000\ncells = 1_000_000\npending = \"16MiB\"\n".to_owned();
    let file = home.write("pipeline.toml", &pipeline.text());
    let checked = Launch::new(&home).arg("check").arg(file).finish();
    assert_eq!(checked.status.code(), Some(0), "{}", checked.said());
    let bound = computed_bound(&checked.stdout);

    let mut server = pipeline.start(&home);
    let mut client = Target::Gram(home.socket("dsd.socket")).connect().expect("a connection");
    client.send(b"innocent:1|c|#region:eu\n").expect("the socket takes a packet");
    server.await_value("innocent_total", &[("region", "eu")], 1.0);
    let mut packet = Vec::new();
    for n in 0..tags {
        packet.extend_from_slice(format!("attack:1|c|#region:eu,user:{n}\nslow:5|ms|#user:{n}\n").as_bytes());
        if packet.len() > 7900 || n + 1 == tags {
            client.send(&packet).expect("the socket takes a packet");
            packet.clear();
        }
    }
    client.send(b"innocent:1|c|#region:eu\n").expect("the socket takes a packet");
    let scrape = server.await_laws(Some(2 * tags + 2));
    assert_eq!(scrape.sum("attack_total", &[]), tags as f64, "the sum over the metric stays exact");
    assert_eq!(scrape.sum("slow_seconds_count", &[]), tags as f64);
    let off = (scrape.sum("slow_seconds_sum", &[]) - tags as f64 * 0.005).abs();
    assert!(off < 1e-6 * tags as f64, "the sum of the timings is off by {off}");
    assert_eq!(scrape.value("innocent_total", &[("region", "eu")]), Some(2.0), "who was there first is not evicted");
    let overflow = scrape.value("attack_total", &[("overflow", "true")]).expect("an overflow series");
    assert!(overflow >= (tags - 10_000) as f64, "at most 10,000 series are kept of one metric, {overflow} overflowed");
    assert!(scrape.named("attack_total").count() <= 10_001);

    let health = server.get("/health");
    let recent = server.get("/api/v1/recent?kind=rejects");
    let told = format!("{}{}{}", health.text(), recent.text(), server.stderr());
    assert!(told.contains("attack") && told.contains("user"), "neither metric nor label is named: {told}");

    let peak = peak_memory(server.pid().as_raw_nonzero().get());
    println!("peak memory {peak} B of a bound of {bound} B, {tags} tags");
    assert!(peak <= bound, "peak memory {peak} is above the computed bound {bound}");
    assert!(server.is_running());
    let end = server.terminate();
    assert_eq!(end.status.code(), Some(0), "{}", end.said());
}
