//! `run`: start, say where to send, wait for a signal, drain, print the laws.
//!
//! In: a way to start. Out: an exit code. Invariant: what is announced is bound; the last line states the
//! conservation laws of everything taken in.

use super::client::URL_DEFAULT;
use super::signals::{Signal, Signals};
use super::{Exit, show};
use crate::event::{Clock, SystemClock};
use crate::http::{IndexData, Laws};
use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

/// A started pipeline, as `run` needs it.
pub(super) trait Running {
    /// What is announced.
    fn index(&self) -> IndexData;
    /// Why it ended by itself, when it did: an actor panicked, the store is not to be trusted.
    fn failure(&self) -> Option<String>;
    /// Reads the files again and takes them over: what changed, or why nothing did.
    ///
    /// # Errors
    /// The diagnostics; everything runs on.
    fn reload(&self) -> Result<String, String>;
    /// What verbs that talk to it must be told beside its address: `--token-file PATH `, or nothing.
    fn token_option(&self) -> String;
    /// A number that changes with the files and what they include; asked about once a second.
    fn files_stamp(&self) -> u64;
    /// Takes no more input, drains, commits, stops. The laws then have nothing in flight.
    ///
    /// # Errors
    /// When something accepted could not be committed.
    fn stop(self: Box<Self>) -> anyhow::Result<Stopped>;
}

/// What a pipeline says at its end.
pub(super) struct Stopped {
    /// All sources but `internal` and `host`, without client telemetry.
    pub(super) laws: Laws,
    /// Of the store's file.
    pub(super) store_bytes: u64,
}

/// Why a pipeline did not start.
pub(super) enum StartError {
    /// The files say something wrong; the text is the diagnostics as they are to be printed.
    Configuration(String),
    /// Anything else.
    Other(anyhow::Error),
}

/// With `--watch`, files are looked at so often.
const WATCH_NANOS: i64 = 1_000_000_000;
/// How often a waiting `run` looks whether the pipeline ended by itself.
const FAILURE_PAUSE: Duration = Duration::from_millis(250);

/// Runs until a signal or a failure.
pub(super) fn run(start: impl FnOnce() -> Result<Box<dyn Running>, StartError>, watches: bool) -> anyhow::Result<Exit> {
    run_until(start, None, watches, &banner)
}

/// What is printed when it is ready, of what there is, how verbs get in (`--token-file PATH `), and the nanoseconds it took.
pub(super) type Banner<'a> = &'a dyn Fn(&IndexData, &str, i64) -> String;

/// Runs until a signal, a failure, or for so long.
pub(super) fn run_until(
    start: impl FnOnce() -> Result<Box<dyn Running>, StartError>,
    limit: Option<Duration>,
    watches: bool,
    banner: Banner<'_>,
) -> anyhow::Result<Exit> {
    let mut signals = Signals::install()?;
    let clock = SystemClock;
    let began = clock.monotonic();
    let running = match start() {
        Ok(running) => running,
        Err(StartError::Configuration(diagnostics)) => {
            eprintln!("{}", diagnostics.trim_end());
            return Ok(Exit::Configuration);
        }
        Err(StartError::Other(problem)) => return Err(problem),
    };
    announce(&banner(&running.index(), &running.token_option(), clock.monotonic() - began));
    let ready = clock.monotonic();
    let mut stamp = running.files_stamp();
    let mut looked = ready;
    let failure = loop {
        let spent = Duration::from_nanos((clock.monotonic() - ready).max(0) as u64);
        let left = limit.map(|limit| limit.saturating_sub(spent));
        if left == Some(Duration::ZERO) {
            break None;
        }
        if watches && clock.monotonic() - looked >= WATCH_NANOS {
            looked = clock.monotonic();
            let now = running.files_stamp();
            if std::mem::replace(&mut stamp, now) != now {
                reload(&*running);
            }
        }
        match signals.wait(left.map_or(FAILURE_PAUSE, |left| left.min(FAILURE_PAUSE))) {
            Some(Signal::Stop) => break None,
            Some(Signal::Reload) => reload(&*running),
            None => {
                if let Some(failure) = running.failure() {
                    break Some(failure);
                }
            }
        }
    };
    announce("draining … ");
    signals.exit_on_next()?;
    let Stopped { laws, store_bytes } = running.stop()?;
    let exit = if failure.is_none() && laws.hold() { Exit::Done } else { Exit::Failed };
    let code = if exit == Exit::Done { 0 } else { 1 };
    announce(&format!("{laws} · store {} · exit {code}\n", show::bytes(store_bytes)));
    if let Some(failure) = failure {
        anyhow::bail!("stopped by a failure: {failure}");
    }
    Ok(exit)
}

/// Reloads and says what came of it; the pipeline goes on either way.
fn reload(running: &dyn Running) {
    match running.reload() {
        Ok(changed) => announce(&format!("reloaded: {changed}\n")),
        Err(diagnostics) => eprintln!("not reloaded, nothing was changed:\n{}", diagnostics.trim_end()),
    }
}

/// Prints, and goes on when nobody reads any more: a pipeline does not end because its terminal did.
fn announce(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// What the verbs that talk to this instance must be told to find it.
fn url_option(urls: &[String]) -> String {
    let is_default = |url: &String| url.trim_end_matches('/') == URL_DEFAULT;
    match urls.first() {
        Some(url) if !urls.iter().any(is_default) => format!("--url {} ", url.trim_end_matches('/')),
        _ => String::new(),
    }
}

/// What `run` prints when it is ready.
fn banner(index: &IndexData, token_option: &str, nanos: i64) -> String {
    let mut text = format!("hydrograph {} · pipeline {}\n", index.version, index.pipeline);
    let mut row = |term: &str, rest: &str| {
        let _ = writeln!(text, "  {term:<9} {rest}");
    };
    let state = if index.store.is_new { " (new)".to_owned() } else { format!(" ({})", show::bytes(index.store.bytes)) };
    row("store", &format!("{}{state}", show::home_as_tilde(&index.store.path)));
    let width = index.listeners.iter().map(|listener| listener.address.chars().count()).max().unwrap_or(0);
    let mut source = None;
    for listener in &index.listeners {
        let term = if source == Some(&listener.source) { "" } else { listener.source.as_str() };
        source = Some(&listener.source);
        let hint = match &listener.skipped {
            Some(reason) => format!("skipped: {reason}"),
            None => listener.hint.clone(),
        };
        row(term, format!("{:<11} {:<width$}  {hint}", listener.kind, listener.address).trim_end());
    }
    for url in &index.http {
        row("http", &format!("{url}  /metrics  /metrics.json"));
    }
    let options = format!("{}{token_option}", url_option(&index.http));
    row("try", &format!("hydrograph {options}send 'checkout.latency:42|ms|#region:eu'"));
    let _ = writeln!(text, "ready after {:.2} s", nanos as f64 / 1e9);
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{ListenerInfo, StoreInfo};

    #[test]
    fn the_banner_says_where_to_send() {
        let listener = |kind: &str, address: &str, hint: &str, skipped: Option<&str>| ListenerInfo {
            source: "statsd".into(),
            kind: kind.into(),
            address: address.into(),
            hint: hint.into(),
            skipped: skipped.map(str::to_owned),
        };
        let index = IndexData {
            version: "0.1.0".into(),
            pipeline: "default (built in)".into(),
            listeners: vec![
                listener("unixgram", "/run/h/dsd.socket", "export DD_DOGSTATSD_URL=unix:///run/h/dsd.socket", None),
                listener("unixstream", "/run/h/dsd-stream.socket", "PyPI statsd", None),
                listener("udp", "127.0.0.1:8125", "x", Some("address in use")),
            ],
            http: vec!["http://127.0.0.1:9911/".into()],
            store: StoreInfo { path: "/var/x.redb".into(), is_new: true, ..StoreInfo::default() },
            ..IndexData::default()
        };
        assert_eq!(
            banner(&index, "", 40_000_000),
            "hydrograph 0.1.0 · pipeline default (built in)\n\
             \x20 store     /var/x.redb (new)\n\
             \x20 statsd    unixgram    /run/h/dsd.socket         export DD_DOGSTATSD_URL=unix:///run/h/dsd.socket\n\
             \x20           unixstream  /run/h/dsd-stream.socket  PyPI statsd\n\
             \x20           udp         127.0.0.1:8125            skipped: address in use\n\
             \x20 http      http://127.0.0.1:9911/  /metrics  /metrics.json\n\
             \x20 try       hydrograph send 'checkout.latency:42|ms|#region:eu'\n\
             ready after 0.04 s\n"
        );
        let elsewhere = IndexData { http: vec!["http://127.0.0.1:9912/".into()], ..index };
        assert!(banner(&elsewhere, "", 0).contains(" hydrograph --url http://127.0.0.1:9912 send '"));
        let guarded = banner(&elsewhere, "--token-file /run/secrets/token ", 0);
        assert!(guarded.contains(" hydrograph --url http://127.0.0.1:9912 --token-file /run/secrets/token send '"));
    }
}
