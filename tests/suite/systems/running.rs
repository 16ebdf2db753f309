//! A shipped pipeline as its user runs it, with sockets, ports and a store of the test's own.
//!
//! In: a file of `pipelines/`, overrides. Out: [`System`]: a running process with connected clients, or, for rows about
//! the crate, a [`hydrograph::Pipeline`] of the same file.
//! Invariant: the file is used as it stands; only addresses, paths and times are overridden, by the environment.

use crate::harness::http::Response;
use crate::harness::server::free_port;
use crate::harness::{Home, Launch, Scrape, Server, wait};
use crate::load::{Client, Target};
use hydrograph::pipeline::paths::Environment;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) fn shipped(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(format!("{name}.toml"))
}

/// A running system.
pub(crate) struct System {
    pub(crate) home: Home,
    pub(crate) server: Server,
    name: &'static str,
    variables: Vec<(String, String)>,
    files: Vec<PathBuf>,
    gram: Client,
    stream: Client,
}

impl System {
    /// Runs a shipped pipeline, with further overrides and the text of further files.
    pub(crate) fn start(name: &'static str, variables: &[(&str, &str)], texts: &[&str]) -> System {
        System::start_on(free_port(), name, variables, texts)
    }

    /// The same, answering HTTP on this port (and wherever the overrides say).
    pub(crate) fn start_on(http: u16, name: &'static str, variables: &[(&str, &str)], texts: &[&str]) -> System {
        let home = Home::new();
        let udp = free_port();
        let mut all: Vec<(String, String)> = [
            ("HYDROGRAPH_HTTP__LISTEN", format!("127.0.0.1:{http}")),
            (
                "HYDROGRAPH_SOURCES__APP__LISTEN",
                format!("unixgram:app.socket,unixstream:app-stream.socket,udp:127.0.0.1:{udp}"),
            ),
            ("HYDROGRAPH_SOURCES__APP__THREADS", "fused".to_owned()),
            ("HYDROGRAPH_STORE__PATH", ":memory:".to_owned()),
            ("HYDROGRAPH_STORE__COMMIT_EVERY", "100ms".to_owned()),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        for (key, value) in variables {
            all.retain(|(known, _)| known != key);
            all.push(((*key).to_owned(), (*value).to_owned()));
        }
        let files: Vec<PathBuf> =
            texts.iter().enumerate().map(|(at, text)| home.write(&format!("more-{at}.toml"), text)).collect();
        let server = run(&home, name, &all, &files, &format!("127.0.0.1:{http}"));
        let (gram, stream) = connect(&home);
        System { home, server, name, variables: all, files, gram, stream }
    }

    /// kill -9, and a start on the same store.
    pub(crate) fn kill_and_start(self) -> System {
        let System { home, server, name, variables, files, .. } = self;
        let address = server.address.clone();
        server.kill();
        let server = run(&home, name, &variables, &files, &address);
        let (gram, stream) = connect(&home);
        System { home, server, name, variables, files, gram, stream }
    }

    /// One event or line a datagram, as stock clients send them.
    pub(crate) fn send(&mut self, lines: &[&str]) {
        for line in lines {
            self.gram.send(line.as_bytes()).expect("the socket takes a datagram");
        }
    }

    /// The same over the stream socket, by newlines.
    pub(crate) fn send_stream(&mut self, lines: &[&str]) {
        for line in lines {
            self.stream.send(format!("{line}\n").as_bytes()).expect("the socket takes a line");
        }
    }

    /// Waits until `app` took so many inputs and everything is durable.
    pub(crate) fn settle(&self, inputs: u64) -> Scrape {
        self.server.await_laws(Some(inputs))
    }

    /// A scrape of which the condition holds, or the last one when it does not come to hold.
    pub(crate) fn scrape_when(&self, patience: u64, mut holds: impl FnMut(&Scrape) -> bool) -> Scrape {
        wait::within(Duration::from_secs(patience), || {
            let scrape = self.server.scrape();
            holds(&scrape).then_some(scrape)
        })
        .unwrap_or_else(|| self.server.scrape())
    }

    pub(crate) fn open_metrics(&self) -> Response {
        self.server.get_with("/metrics", &[("Accept", "application/openmetrics-text; version=1.0.0")])
    }

    pub(crate) fn widget(&self, name: &str) -> serde_json::Value {
        let answer = self.server.get(&format!("/api/metrics/dashboard?widget={name}"));
        if answer.status == 200 { answer.json() } else { serde_json::Value::Null }
    }

    /// The widget once it shows what is expected, else as it was last: on a busy machine slices end late.
    pub(crate) fn widget_when(&self, name: &str, shows: impl Fn(&serde_json::Value) -> bool) -> serde_json::Value {
        let patience = Duration::from_secs(30);
        wait::within(patience, || Some(self.widget(name)).filter(&shows)).unwrap_or_else(|| self.widget(name))
    }
}

fn connect(home: &Home) -> (Client, Client) {
    let gram = Target::Gram(home.socket("app.socket")).connect().expect("a connection");
    (gram, Target::Lines(home.socket("app-stream.socket")).connect().expect("a connection"))
}

fn run(home: &Home, name: &str, variables: &[(String, String)], files: &[PathBuf], address: &str) -> Server {
    let mut launch = Launch::new(home).arg("run").arg(shipped(name)).args(files);
    for (key, value) in variables {
        launch = launch.env(key, value);
    }
    launch.start(address)
}

/// The same file inside this process, in memory and without sockets.
pub(crate) fn embedded(name: &str) -> hydrograph::Pipeline {
    let mut variables = BTreeMap::new();
    for (key, value) in [
        ("HYDROGRAPH_STORE__PATH", ":memory:"),
        ("HYDROGRAPH_STORE__COMMIT_EVERY", "100ms"),
        ("HYDROGRAPH_SOURCES__APP__ENABLED", "false"),
    ] {
        variables.insert(key.to_owned(), value.to_owned());
    }
    hydrograph::Pipeline::builder()
        .file(shipped(name))
        .expect("a shipped file")
        .environment(Environment::fixed(variables, 0, |_| true))
        .start()
        .expect("a shipped pipeline starts")
}
