//! The real binary as a child process, with its own directories, ports and output.
//!
//! In: a pipeline file, variables, arguments. Out: a [`Server`] that is ready, or a [`Finished`] command.
//! Owns: the temporary directory and the child; both go with their value, and no other process is touched.
//! Invariant: nothing of the machine leaks in: the environment is cleared, sockets and stores lie in the test's own
//! directory, ports are free ones below the ephemeral range.

use super::http::{self, Response};
use super::{Scrape, wait};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::{OsStr, OsString};
use std::io::Read;
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// The user that owns nothing, for tests "as a user without root".
pub(crate) const NOBODY: u32 = 65534;

/// True when the test may change users and mount file systems.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A port that nobody listens on, TCP or UDP, on loopback; no other test gets it while this process lives.
pub(crate) fn free_port() -> u16 {
    // A name in the kernel's abstract socket space is the reservation: it goes with the process and leaves nothing behind.
    static RESERVED: Mutex<Vec<UnixDatagram>> = Mutex::new(Vec::new());
    let mut reserved = RESERVED.lock().expect("no test panics in here");
    let first = (std::process::id() as u16).wrapping_mul(61).wrapping_add(reserved.len() as u16);
    for step in 0..12_000 {
        // Below the ephemeral range (from 32,768), so that no outgoing connection takes it in between.
        let port = 20_000 + first.wrapping_add(step) % 12_000;
        let name = SocketAddr::from_abstract_name(format!("hydrograph-test-port-{port}")).expect("a short name");
        let Ok(reservation) = UnixDatagram::bind_addr(&name) else { continue };
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            reserved.push(reservation);
            return port;
        }
    }
    panic!("no free port on loopback");
}

/// The directories of one installation; they outlive the processes that run in them.
pub(crate) struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    pub(crate) fn new() -> Home {
        let dir = tempfile::Builder::new().prefix("hg-").tempdir_in("/tmp").expect("a temporary directory");
        let home = Home { dir };
        for name in ["home", "run", "state"] {
            std::fs::create_dir(home.path().join(name)).expect("a directory");
        }
        home
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// A relative socket path of a pipeline file, as it stands on disk.
    pub(crate) fn socket(&self, name: &str) -> PathBuf {
        self.path().join("run").join(name)
    }

    /// A relative store path of a pipeline file, as it stands on disk.
    pub(crate) fn store(&self, name: &str) -> PathBuf {
        self.path().join("state").join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).expect("the file is written");
        path
    }

    /// Gives the directories, and a copy of the binary, to the user without rights.
    pub(crate) fn give_to_nobody(&self) -> PathBuf {
        let binary = self.path().join("hydrograph");
        std::fs::copy(binary_path(), &binary).expect("the binary is copied");
        std::fs::set_permissions(self.path(), std::fs::Permissions::from_mode(0o755)).expect("mode of the directory");
        for name in ["home", "run", "state"] {
            chown(self.path().join(name), Some(NOBODY), Some(NOBODY)).expect("the directory changes hands");
        }
        binary
    }
}

/// Where cargo put the binary under test.
pub(crate) fn binary_path() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_hydrograph"))
}

/// The text of a pipeline file, with free ports for its listeners.
pub(crate) struct Pipeline {
    pub(crate) http: u16,
    pub(crate) udp: u16,
    pub(crate) tcp: u16,
    pub(crate) top: String,
    pub(crate) store: String,
    pub(crate) limits: String,
    pub(crate) http_keys: String,
    pub(crate) source: String,
    /// Further tables.
    pub(crate) tail: String,
}

impl Pipeline {
    pub(crate) fn new() -> Pipeline {
        Pipeline {
            http: free_port(),
            udp: free_port(),
            tcp: free_port(),
            top: "name = \"t\"\n".to_owned(),
            store: "commit_every = \"100ms\"\n".to_owned(),
            limits: String::new(),
            http_keys: String::new(),
            // Whatever the machine: split readers, the default from 4 cores on, may drop datagrams, counted.
            source: "threads = \"fused\"\n".to_owned(),
            tail: String::new(),
        }
    }

    pub(crate) fn text(&self) -> String {
        let Pipeline { http, udp, tcp, top, store, limits, http_keys, source, tail } = self;
        format!(
            "{top}\n[store]\n{store}\n[limits]\n{limits}\n[http]\nlisten = [\"127.0.0.1:{http}\"]\n{http_keys}\n\
             [sources.app]\ntype = \"socket\"\nlisten = [\"unixgram:dsd.socket\", \"unixstream:dsd-stream.socket\", \
             \"udp:127.0.0.1:{udp}\", \"tcp:127.0.0.1:{tcp}\"]\n{source}\n[sources.internal]\ntype = \"internal\"\n{tail}"
        )
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.http)
    }

    /// Writes the file and starts the binary on it.
    pub(crate) fn start(&self, home: &Home) -> Server {
        self.launch(home).start(&self.address())
    }

    pub(crate) fn launch(&self, home: &Home) -> Launch {
        let file = home.write("pipeline.toml", &self.text());
        Launch::new(home).arg("run").arg(file)
    }
}

/// A command about to be run.
pub(crate) struct Launch {
    command: Command,
}

impl Launch {
    /// The binary, with the directories of `home` and nothing else of the environment.
    pub(crate) fn new(home: &Home) -> Launch {
        let mut launch = Launch { command: Command::new(binary_path()) };
        launch.clean(home);
        launch.command.env("RUNTIME_DIRECTORY", home.path().join("run"));
        launch.command.env("STATE_DIRECTORY", home.path().join("state"));
        launch
    }

    /// The same as an ordinary user would have it: only `HOME` and `XDG_RUNTIME_DIR` are set, and if the test runs as
    /// root, the command runs as a user without rights. The binary is the copy that user may read.
    pub(crate) fn as_user(home: &Home, binary: &Path) -> Launch {
        let command = if is_root() {
            let mut command = Command::new("setpriv");
            let id = NOBODY.to_string();
            command.args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"]).arg(binary);
            command
        } else {
            Command::new(binary)
        };
        let mut launch = Launch { command };
        launch.clean(home);
        launch.command.env("XDG_RUNTIME_DIR", home.path().join("run"));
        launch
    }

    fn clean(&mut self, home: &Home) {
        self.command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        self.command.env("HOME", home.path().join("home")).env("NO_COLOR", "1").env("LANG", "C.UTF-8");
        self.command.env("RUST_BACKTRACE", "1").current_dir(home.path()).stdin(Stdio::null());
    }

    pub(crate) fn arg(mut self, arg: impl AsRef<OsStr>) -> Launch {
        self.command.arg(arg);
        self
    }

    pub(crate) fn args<A: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Launch {
        self.command.args(args);
        self
    }

    pub(crate) fn env(mut self, key: &str, value: impl Into<OsString>) -> Launch {
        self.command.env(key, value.into());
        self
    }

    /// Starts a server and waits until it says so on stdout and over HTTP.
    pub(crate) fn start(self, address: &str) -> Server {
        let mut server = self.spawn(address);
        let ready = wait::within(wait::PATIENCE, || {
            if let Some(status) = server.child.try_wait().expect("the child can be asked") {
                return Some(Err(status));
            }
            let said = server.stdout().lines().any(|l| l.starts_with("ready"));
            (said && server.try_get("/readyz").is_some_and(|r| r.status == 200)).then_some(Ok(()))
        });
        match ready {
            Some(Ok(())) => server,
            Some(Err(_)) => {
                let end = server.wait();
                panic!("the server ended with {}: {}", end.status, end.said());
            }
            None => panic!("the server did not become ready: {}", server.said()),
        }
    }

    /// Starts a server without waiting for anything.
    pub(crate) fn spawn(mut self, address: &str) -> Server {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.command.spawn().expect("the binary starts");
        let stdout = Capture::start(child.stdout.take().expect("stdout is piped"));
        let stderr = Capture::start(child.stderr.take().expect("stderr is piped"));
        Server { child, address: address.to_owned(), stdout, stderr }
    }

    /// Runs to the end.
    pub(crate) fn finish(self) -> Finished {
        self.spawn("").wait()
    }
}

/// What a pipe said so far.
struct Capture {
    text: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<()>>,
}

impl Capture {
    fn start(mut pipe: impl Read + Send + 'static) -> Capture {
        let text = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&text);
        let read = move || {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                shared.lock().expect("no reader panics").extend_from_slice(&buffer[..n]);
            }
        };
        let thread = std::thread::Builder::new().spawn(read).expect("a thread");
        Capture { text, thread: Some(thread) }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().expect("no reader panics")).into_owned()
    }

    fn end(&mut self) -> String {
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the reader ends with its pipe");
        }
        self.text()
    }
}

/// A command that ended.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Everything it said, on either pipe.
    pub(crate) fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A running server. Dropping it kills it.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: String,
    stdout: Capture,
    stderr: Capture,
}

impl Server {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn stdout(&self) -> String {
        self.stdout.text()
    }

    pub(crate) fn stderr(&self) -> String {
        self.stderr.text()
    }

    pub(crate) fn said(&self) -> String {
        format!("stdout:\n{}\nstderr:\n{}", self.stdout(), self.stderr())
    }

    pub(crate) fn try_get(&self, path: &str) -> Option<Response> {
        http::request(&self.address, "GET", path, &[], b"").ok()
    }

    pub(crate) fn get(&self, path: &str) -> Response {
        self.get_with(path, &[])
    }

    pub(crate) fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        http::request(&self.address, "GET", path, headers, b"")
            .unwrap_or_else(|e| panic!("GET {path}: {e}\n{}", self.said()))
    }

    pub(crate) fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        http::request(&self.address, "POST", path, headers, body)
            .unwrap_or_else(|e| panic!("POST {path}: {e}\n{}", self.said()))
    }

    /// One scrape, strictly read. `None` if nobody answers.
    pub(crate) fn try_scrape(&self) -> Option<Scrape> {
        let response = self.try_get("/metrics")?;
        assert_eq!(response.status, 200);
        assert!(response.content_type().starts_with("text/plain; version=0.0.4"), "{:?}", response.headers);
        Some(Scrape::read(response.text()).unwrap_or_else(|e| panic!("the exposition is wrong: {e}")))
    }

    pub(crate) fn scrape(&self) -> Scrape {
        self.try_scrape().unwrap_or_else(|| panic!("no scrape; {}", self.said()))
    }

    /// Scrapes until the condition holds of a scrape, which is returned; the message shows the last one's near misses.
    pub(crate) fn scrape_until(&self, what: &str, mut condition: impl FnMut(&Scrape) -> bool) -> Scrape {
        let mut last = Scrape::default();
        wait::within(wait::PATIENCE, || {
            last = self.try_scrape()?;
            condition(&last).then(|| last.clone())
        })
        .unwrap_or_else(|| {
            let laws = last.laws("app");
            let user: Vec<_> =
                last.samples.iter().filter(|(s, _)| !s.name.starts_with("hydrograph_")).take(60).collect();
            panic!("waited in vain for {what}; laws {laws:?}; last scrape {user:#?}\n{}", self.said())
        })
    }

    /// Waits until a series has exactly this value.
    pub(crate) fn await_value(&self, name: &str, labels: &[(&str, &str)], value: f64) -> Scrape {
        self.scrape_until(&format!("{name}{labels:?} = {value}"), |s| s.value(name, labels) == Some(value))
    }

    /// Waits until nothing is in flight and both laws hold for source `app`, with so many inputs if said.
    pub(crate) fn await_laws(&self, inputs: Option<u64>) -> Scrape {
        self.scrape_until(&format!("both laws with {inputs:?} inputs and nothing in flight"), |s| {
            s.laws("app").is_ok_and(|l| l.in_flight == 0.0 && inputs.is_none_or(|n| l.inputs == n as f64))
        })
    }

    /// The newest refused inputs, as `/api/v1/recent` tells them.
    pub(crate) fn rejects(&self) -> Vec<serde_json::Value> {
        let answer = self.get("/api/v1/recent?kind=rejects&limit=1000").json();
        let rows = answer.as_array().or_else(|| answer.as_object()?.values().find_map(|v| v.as_array()));
        rows.unwrap_or_else(|| panic!("recent answers a list: {answer}")).clone()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the child can be asked").is_none()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the child can be signalled");
    }

    /// SIGTERM, then the end.
    pub(crate) fn terminate(self) -> Finished {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// SIGKILL, then the end.
    pub(crate) fn kill(mut self) -> Finished {
        self.child.kill().expect("the child can be killed");
        self.wait()
    }

    /// Waits for the end.
    pub(crate) fn wait(mut self) -> Finished {
        let status = wait::within(wait::PATIENCE, || self.child.try_wait().expect("the child can be asked"));
        let Some(status) = status else { panic!("the process does not end: {}", self.said()) };
        Finished { status, stdout: self.stdout.end(), stderr: self.stderr.end() }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only when the child has ended, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
