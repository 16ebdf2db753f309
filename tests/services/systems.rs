//! The five systems as their users run them: a shipped pipeline, and a short Python program with stock clients only.
//!
//! In: `pipelines/*.toml` with addresses of the test's own. Out: each program has read back what it sent, by the routes
//! its page names, or it fails. Beside it: Debian's promtool on the rule files.

use crate::harness::server::free_port;
use crate::harness::{Home, Launch, Server};
use crate::peers;
use std::path::{Path, PathBuf};
use std::process::Command;

struct Running {
    home: Home,
    server: Server,
    udp: u16,
    tcp: u16,
}

fn pipelines() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines")
}

fn run(name: &str, variables: &[(&str, &str)]) -> Running {
    let home = Home::new();
    let (http, udp, tcp) = (free_port(), free_port(), free_port());
    let listen = format!("unixgram:app.socket,unixstream:app-stream.socket,udp:127.0.0.1:{udp}");
    let mut launch = Launch::new(&home)
        .arg("run")
        .arg(pipelines().join(format!("{name}.toml")))
        .env("HYDROGRAPH_HTTP__LISTEN", format!("127.0.0.1:{http}"))
        .env("HYDROGRAPH_SOURCES__APP__LISTEN", listen)
        // Whatever the machine: split readers may drop datagrams, counted.
        .env("HYDROGRAPH_SOURCES__APP__THREADS", "fused")
        .env("HYDROGRAPH_STORE__COMMIT_EVERY", "100ms");
    if name == "dreamos" {
        launch = launch.env("HYDROGRAPH_SOURCES__LOG__LISTEN", format!("tcp:127.0.0.1:{tcp}"));
    }
    for (key, value) in variables {
        launch = launch.env(key, *value);
    }
    let server = launch.start(&format!("127.0.0.1:{http}"));
    Running { home, server, udp, tcp }
}

/// Runs the system's program to its end; it fails when it does not read back what it sent.
fn program(test: &str, name: &str, variables: &[(&str, &str)], more: impl FnOnce(&Running, &mut Command)) {
    let Some(python) = peers::python_or_skip(test) else { return };
    let running = run(name, variables);
    let mut command = Command::new(python);
    command.arg(peers::client(&format!("{name}_client.py"))).arg(running.home.path().join("run"));
    more(&running, &mut command);
    peers::run(&mut command, b"");
    let end = running.server.terminate();
    assert_eq!(end.status.code(), Some(0), "{}", end.said());
}

#[test]
fn dinoair_as_its_services_use_it() {
    program("dinoair_as_its_services_use_it", "dinoair", &[], |running, command| {
        command.arg(&running.server.address);
    });
}

#[test]
fn dreamos_as_its_log_formatter_uses_it() {
    program("dreamos_as_its_log_formatter_uses_it", "dreamos", &[], |running, command| {
        command.arg(running.tcp.to_string()).arg(&running.server.address);
    });
}

#[test]
fn v47_vision_as_its_service_and_its_export_script_use_it() {
    program("v47_vision_as_its_service_and_its_export_script_use_it", "vision", &[], |running, command| {
        command.arg(&running.server.address);
    });
}

#[test]
fn llm_as_its_service_uses_it() {
    program("llm_as_its_service_uses_it", "llm", &[], |running, command| {
        command.arg(running.udp.to_string()).arg(&running.server.address);
    });
}

#[test]
fn digital_actors_as_its_server_uses_it() {
    program(
        "digital_actors_as_its_server_uses_it",
        "digital_actors",
        &[("METRICS_TOKEN", "s3cret")],
        |running, command| {
            command.arg(running.udp.to_string()).arg(&running.server.address).arg("s3cret");
        },
    );
}

/// Debian's promtool accepts every rule file of `pipelines/rules`.
#[test]
fn d63_d64_o36_o37_v42_v43_promtool_accepts_the_rule_files() {
    let test = "d63_d64_o36_o37_v42_v43_promtool_accepts_the_rule_files";
    let Some(promtool) = peers::find_or_skip(test, "promtool") else { return };
    let rules = std::fs::read_dir(pipelines().join("rules")).expect("the folder of rules");
    let files: Vec<PathBuf> = rules.map(|entry| entry.expect("a rule file").path()).collect();
    assert!(files.len() >= 3, "{files:?}");
    let output = peers::run(Command::new(promtool).args(["check", "rules"]).args(&files), b"");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said.matches("SUCCESS: 2 rules found").count(), 3, "{said}");
}
