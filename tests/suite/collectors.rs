//! Sources `process` and `gpu`: this test's own process, and cards that a stand-in for the driver's library makes up.

use crate::harness::{Home, Pipeline, wait};
use std::path::Path;
use std::process::Command;

/// Compiles `tests/fake_nvml.c`.
fn fake_driver(home: &Home) -> String {
    let library = home.path().join("libnvidia-ml.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake_nvml.c");
    let mut compiler = Command::new("cc");
    let compiled = compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status();
    assert!(compiled.expect("a C compiler, which the linker needs too").success());
    library.display().to_string()
}

#[test]
fn values_go_to_the_metrics_that_name_them_else_under_their_own_names() {
    let home = Home::new();
    let library = fake_driver(&home);
    let pid = home.write("worker.pid", &std::process::id().to_string());
    let mut pipeline = Pipeline::new();
    pipeline.tail = format!(
        "[sources.worker]\ntype = \"process\"\nevery = \"1s\"\nmatch = {{ pid_file = \"{pid}\" }}\n\
         [sources.named-worker]\ntype = \"process\"\nevery = \"1s\"\nmatch = {{ pid_file = \"{pid}\" }}\n\
         [sources.nobody]\ntype = \"process\"\nevery = \"1s\"\nmatch = {{ cmd = \"no such command line\" }}\n\
         [sources.cards]\ntype = \"gpu\"\nevery = \"1s\"\nlibrary = \"{library}\"\n\
         [sources.named_cards]\ntype = \"gpu\"\nevery = \"1s\"\nlibrary = \"{library}\"\n\
         [sources.no_cards]\ntype = \"gpu\"\nevery = \"1s\"\nlibrary = \"/nowhere/libnvidia-ml.so\"\n\
         [metrics.llm_memory_bytes]\ntype = \"gauge\"\nfrom = {{ source = \"named-worker\", value = \"memory_bytes\" }}\n\
         [metrics.card_kilowatts]\ntype = \"gauge\"\n\
         from = {{ source = \"named_cards\", value = \"power_watts\", scale = 0.001, labels = [\"gpu\"] }}\n\
         [metrics.lost_percent]\ntype = \"gauge\"\n\
         from = {{ source = \"no_cards\", value = \"utilization_percent\", labels = [\"gpu\"] }}\n",
        pid = pid.display(),
    );
    let server = pipeline.start(&home);
    // Two sources, each with its own second.
    let first = server.scrape_until("the values of the process", |s| {
        s.value("worker_cpu_percent", &[]).is_some() && s.value("llm_memory_bytes", &[]).is_some()
    });
    for name in ["worker_memory_bytes", "llm_memory_bytes"] {
        assert!(first.value(name, &[]).is_some_and(|bytes| bytes > 1e5), "{name}");
    }
    assert!(first.value("worker_threads", &[]).is_some_and(|threads| threads >= 1.0));
    assert!(first.value("worker_open_files", &[]).is_some_and(|files| files >= 3.0));
    // A source that a metric names shows what is named, and nothing else; what is not there shows nothing.
    assert!(!first.samples.keys().any(|series| series.name.contains("named") || series.name.starts_with("nobody")));
    let cards =
        server.scrape_until("the values of the cards", |s| s.value("card_kilowatts", &[("gpu", "0")]).is_some());
    for (name, gpu, value) in [
        ("gpu_utilization_percent", "0", Some(37.0)),
        ("gpu_utilization_percent", "1", Some(0.0)),
        ("gpu_memory_percent", "0", Some(25.0)),
        ("gpu_memory_percent", "1", None),
        ("gpu_memory_used_bytes", "0", Some(2_147_483_648.0)),
        ("gpu_temperature_celsius", "1", Some(30.0)),
        ("gpu_power_watts", "0", Some(123.456)),
        ("gpu_power_watts", "1", None),
        ("card_kilowatts", "0", Some(0.123_456)),
        ("card_kilowatts", "1", None),
    ] {
        let found = cards.value(name, &[("gpu", gpu)]);
        let is_right = match (found, value) {
            (Some(found), Some(value)) => (found - value).abs() < 1e-9,
            (found, value) => found == value,
        };
        assert!(is_right, "{name} of card {gpu}: {found:?}, not {value:?}");
    }
    assert_eq!(cards.named("lost_percent").count(), 0);

    // One line in the log for each, however often they look.
    wait::until("a second reading", || {
        let busy = server.scrape();
        (busy.value("worker_cpu_percent", &[]) != first.value("worker_cpu_percent", &[])).then_some(())
    });
    let end = server.terminate();
    for (what, source) in [("no such process", "nobody"), ("no values of graphics cards", "no_cards")] {
        let lines = end.stderr.lines().filter(|line| line.contains(what) && line.contains(source)).count();
        assert_eq!(lines, 1, "{what}: {}", end.stderr);
    }
    assert_eq!(end.status.code(), Some(0), "{}", end.said());
}
