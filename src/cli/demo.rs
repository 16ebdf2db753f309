//! `hydrograph demo [NAME]`: a shipped pipeline that is fed with made-up events, to look at.
//!
//! In: the name of a shipped pipeline, a seed. Out: a running pipeline and where to open it, until a signal or `--seconds`.
//! Owns: a private directory with the sockets, gone at the end. Invariants: the store is in memory and no socket, port or
//! file of another pipeline is touched; the same seed gives the same events; the events come in through a socket like
//! anyone else's.

mod digital_actors;
mod dinoair;
mod dreamos;
mod lines;
mod llm;
mod random;
mod shop;
mod vision;

use super::client::URL_DEFAULT;
use super::run::{Running, StartError, Stopped};
use super::{Exit, init, show, wiring};
use crate::actor::{self, Failures, Thread};
use crate::channel::{Ended, Receiver, Sender, bounded};
use crate::event::{Clock, SystemClock};
use crate::http::{IndexData, Listener as HttpListener};
use crate::pipeline::paths::Environment;
use crate::pipeline::plan::{ListenAddress, Listener, Plan, ProcessMatch, SourceKind, StorePath};
use anyhow::Context;
use lines::Lines;
use random::Random;
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two writes of the generator; events are made up for spans of just this length, so that a seed says which.
const STEP: Duration = Duration::from_millis(50);
/// Steps that are made up for after a pause (a suspended machine); what is older is left out.
const STEPS_BEHIND_MAX: i64 = 100;
/// A pipeline that does not read for so long is not waited for any longer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest path of the private directory: a socket's name still has to fit behind it.
const DIRECTORY_BYTES_MAX: usize = 64;

/// `hydrograph demo`
#[derive(Debug, clap::Args)]
pub(super) struct Demo {
    /// A shipped pipeline; all five systems by default
    #[arg(default_value = "full")]
    name: String,
    /// End after so many seconds instead of at Ctrl-C
    #[arg(long, value_name = "S")]
    seconds: Option<u64>,
    /// The same seed makes up the same events
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
}

/// Makes up what happens in one system.
trait System: Send {
    /// What happens between `at` and `at + STEP_SECONDS` seconds after the start.
    fn step(&mut self, at: f64, random: &mut Random, out: &mut Lines);
}

/// [`STEP`] in seconds.
const STEP_SECONDS: f64 = 0.05;

/// The systems whose events a shipped pipeline takes.
fn systems(name: &str) -> Vec<Box<dyn System>> {
    let mut systems: Vec<Box<dyn System>> = Vec::new();
    let is = |system: &str| name == system || name == "full";
    if is("dinoair") {
        systems.push(Box::new(dinoair::DinoAir::default()));
    }
    if is("dreamos") {
        systems.push(Box::new(dreamos::DreamOs::default()));
    }
    if is("vision") {
        systems.push(Box::new(vision::Vision::default()));
    }
    if is("llm") {
        systems.push(Box::new(llm::Llm::default()));
    }
    if is("digital_actors") {
        systems.push(Box::new(digital_actors::DigitalActors::default()));
    }
    if ["default", "statsd"].contains(&name) {
        systems.push(Box::new(shop::Shop));
    }
    systems
}

impl Demo {
    pub(super) fn run(&self) -> anyhow::Result<Exit> {
        if let Err(error) = init::init(&self.name) {
            eprintln!("{}", error.to_string().trim_end());
            return Ok(Exit::Usage);
        }
        let limit = self.seconds.map(Duration::from_secs);
        super::run::run_until(|| self.start(), limit, false, &|index, _, nanos| banner(&self.name, index, nanos))
    }

    fn start(&self) -> Result<Box<dyn Running>, StartError> {
        let process = Environment::of_process();
        let directory = Private::create(process.variable("TMPDIR")).map_err(StartError::Other)?;
        let environment = environment(&process, &directory.path);
        let plan = init::plan(&self.name, &environment);
        let mut plan = plan.map_err(|errors| StartError::Configuration(errors.to_string()))?;
        isolate(&mut plan, &directory.path).map_err(|error| StartError::Other(error.into()))?;
        let listeners = bind(&plan).map_err(StartError::Other)?;
        let started = wiring::start_plan(plan, &environment, listeners)?;
        let way_in = started.index().listeners.into_iter().find(|listener| listener.kind == "unixstream");
        let systems = systems(&self.name);
        let generator = match way_in {
            Some(listener) if !systems.is_empty() => {
                let (stop, stopped) = bounded::<()>(1);
                let generator = Generator {
                    socket: listener.address.into(),
                    systems,
                    random: Random::new(self.seed),
                    lines: Lines::new(SystemClock.wall()),
                };
                let thread = actor::spawn("generator", &Failures::new(), move || generator.run(&SystemClock, &stopped));
                Some((stop, thread.map_err(|error| StartError::Other(error.into()))?))
            }
            _ => None,
        };
        Ok(Box::new(Fed { started, generator, _directory: directory }))
    }
}

/// The environment of the demo: that of the process without what would change the pipeline, but for the address.
fn environment(process: &Environment, directory: &Path) -> Environment {
    let is_ours = |name: &str| name.starts_with("HYDROGRAPH_") && name != "HYDROGRAPH_HTTP__LISTEN";
    let variables = process.variables().iter().filter(|(name, _)| !is_ours(name));
    let directories = ["RUNTIME_DIRECTORY", "STATE_DIRECTORY"].map(|name| (name, directory.display().to_string()));
    let directories = directories.into_iter().map(|(name, path)| (name.to_owned(), path));
    let variables: Vec<(String, String)> =
        variables.map(|(name, value)| (name.clone(), value.clone())).chain(directories).collect();
    Environment::fixed(variables, process.uid(), |_| false)
}

/// Nothing of the plan reaches outside of the directory, but for the values of this machine; the process that is looked
/// at is this one.
fn isolate(plan: &mut Plan, directory: &Path) -> std::io::Result<()> {
    plan.store.path = StorePath::Memory;
    plan.http.token = None;
    plan.http.admin_token = None;
    for source in &mut plan.sources {
        match &mut source.kind {
            SourceKind::Socket(socket) => {
                socket.listen.retain_mut(|listener| match listener {
                    Listener::UnixDatagram(path) | Listener::UnixStream(path) => {
                        *path = directory.join(path.file_name().unwrap_or(path.as_os_str()));
                        true
                    }
                    Listener::Udp(_) | Listener::Tcp(_) => false,
                });
                // The generator speaks to a stream: a burst of datagrams would be lost, and nothing here could count it.
                if !socket.listen.iter().any(|listener| matches!(listener, Listener::UnixStream(_))) {
                    socket.listen.push(Listener::UnixStream(directory.join(format!("{}-demo.socket", source.name))));
                }
                socket.mode = 0o600;
                socket.group = None;
            }
            SourceKind::Process(process) => {
                let path = directory.join("demo.pid");
                std::fs::write(&path, format!("{}\n", std::process::id()))?;
                process.matches = ProcessMatch::PidFile(path);
                process.every = process.every.min(5_000_000_000);
            }
            SourceKind::Host(host) => host.every = host.every.min(5_000_000_000),
            SourceKind::Gpu(gpu) => gpu.every = gpu.every.min(5_000_000_000),
            SourceKind::Internal => {}
        }
    }
    Ok(())
}

/// The plan's TCP addresses, each with another port when that one is taken.
fn bind(plan: &Plan) -> anyhow::Result<Vec<HttpListener>> {
    let mut listeners = Vec::new();
    for address in &plan.http.listen {
        let ListenAddress::Tcp(address) = address else { continue };
        let bound = HttpListener::bind_tcp(&address.to_string()).or_else(|error| match error.kind() {
            std::io::ErrorKind::AddrInUse => HttpListener::bind_tcp(&format!("{}:0", host_of(address))),
            _ => Err(error),
        });
        listeners.push(bound.with_context(|| format!("cannot serve http on {address}"))?);
    }
    Ok(listeners)
}

fn host_of(address: &std::net::SocketAddr) -> String {
    match address.ip() {
        std::net::IpAddr::V4(ip) => ip.to_string(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
    }
}

fn banner(name: &str, index: &IndexData, nanos: i64) -> String {
    let mut text = format!("hydrograph {} · demo {name}: made-up events, nothing is kept\n", index.version);
    let mut row = |term: &str, rest: &str| {
        let _ = writeln!(text, "  {term:<9} {rest}");
    };
    for listener in &index.listeners {
        row(&listener.source, &format!("{:<11} {}", listener.kind, listener.address));
    }
    for url in &index.http {
        row("open", url);
        row("", &format!("{}/metrics", url.trim_end_matches('/')));
    }
    let url = index.http.first().map_or(URL_DEFAULT, |url| url.trim_end_matches('/'));
    row("try", &format!("hydrograph --url {url} send 'checkout.latency:42|ms|#region:eu'"));
    row("end", "Ctrl-C");
    let _ = writeln!(text, "ready after {:.2} s", nanos as f64 / 1e9);
    text
}

/// A pipeline with its generator.
struct Fed {
    started: Box<dyn Running>,
    generator: Option<(Sender<()>, Thread)>,
    _directory: Private,
}

impl Running for Fed {
    fn index(&self) -> IndexData {
        self.started.index()
    }

    fn failure(&self) -> Option<String> {
        self.started.failure()
    }

    fn reload(&self) -> Result<String, String> {
        self.started.reload()
    }

    fn files_stamp(&self) -> u64 {
        self.started.files_stamp()
    }

    fn token_option(&self) -> String {
        self.started.token_option()
    }

    fn stop(self: Box<Self>) -> anyhow::Result<Stopped> {
        let Fed { started, generator, _directory } = *self;
        if let Some((stop, thread)) = generator {
            drop(stop);
            thread.join();
        }
        started.stop()
    }
}

struct Generator {
    socket: PathBuf,
    systems: Vec<Box<dyn System>>,
    random: Random,
    lines: Lines,
}

impl Generator {
    /// Until the other side of `stopped` goes away.
    fn run(mut self, clock: &dyn Clock, stopped: &Receiver<()>) {
        let began = clock.monotonic();
        let mut step = 0i64;
        let mut stream: Option<UnixStream> = None;
        while stopped.recv_timeout(STEP) == Err(Ended::TimedOut) {
            let due = (clock.monotonic() - began) / STEP.as_nanos() as i64;
            step = step.max(due - STEPS_BEHIND_MAX);
            while step < due {
                for system in &mut self.systems {
                    system.step(step as f64 * STEP_SECONDS, &mut self.random, &mut self.lines);
                }
                step += 1;
            }
            let written = match &mut stream {
                Some(stream) => stream.write_all(self.lines.bytes()),
                None => connect(&self.socket).and_then(|new| stream.insert(new).write_all(self.lines.bytes())),
            };
            if let Err(error) = written {
                tracing::warn!(%error, "the generator cannot write");
                stream = None;
            }
            self.lines.clear();
        }
    }
}

fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    Ok(stream)
}

/// A directory that only we may enter, removed with its value.
struct Private {
    path: PathBuf,
}

impl Private {
    fn create(temporary: Option<&str>) -> anyhow::Result<Private> {
        let fits = |path: &&str| path.len() + 32 <= DIRECTORY_BYTES_MAX && Path::new(path).is_absolute();
        let parent = temporary.filter(fits).unwrap_or("/tmp");
        let pid = std::process::id();
        for attempt in 0..100 {
            let path = Path::new(parent).join(format!("hydrograph-demo-{pid}-{attempt}"));
            match std::fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Private { path }),
                // Left by a killed demo, or put there by somebody else: never ours.
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(|| format!("cannot make directory {}", path.display())),
            }
        }
        anyhow::bail!("no free name for a directory in {}", show::home_as_tilde(parent))
    }
}

impl Drop for Private {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "the demo's directory stays");
        }
    }
}

/// How busy it is: a slow wave, so that curves are no straight lines. Around 1, never below 0.4.
fn tide(at: f64, phase: f64) -> f64 {
    1.0 + 0.4 * (at / 45.0 + phase).sin() + 0.2 * (at / 11.0 + 2.0 * phase).sin()
}

/// Whether something that happens every so many seconds falls into this step.
fn every(at: f64, seconds: f64) -> bool {
    (at / seconds).floor() != ((at - STEP_SECONDS) / seconds).floor()
}

/// Sessions that are open: when each ends, and its id.
#[derive(Default)]
struct Sessions {
    open: Vec<(f64, u64)>,
    opened: u64,
}

impl Sessions {
    /// Opens one that ends then.
    fn open(&mut self, ends: f64) -> u64 {
        self.opened += 1;
        self.open.push((ends, self.opened));
        self.opened
    }

    /// Those that end by now, in the order in which they were opened.
    fn closed(&mut self, at: f64) -> Vec<u64> {
        let (over, open) = self.open.drain(..).partition(|(ends, _)| *ends <= at);
        self.open = open;
        let over: Vec<(f64, u64)> = over;
        over.into_iter().map(|(_, id)| id).collect()
    }
}

#[cfg(test)]
mod tests;
