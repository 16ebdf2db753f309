//! The verbs that need the pipeline: the one place where the command line meets it.
//!
//! In: checked arguments. Out: how it ended. Invariant: `run` installs signals before it opens anything.

use super::run::{Running, StartError, Stopped};
use super::{Exit, check, init};
use crate::event::SystemClock;
use crate::http::{Backend, IndexData, Listener, Server, Token, report_laws};
use crate::pipeline::Pipeline;
use crate::pipeline::paths::{Environment, read_token, socket_path};
use crate::pipeline::plan::{ListenAddress, Plan};
use crate::store::StoreError;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a stop may take to drain and commit.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Mode of the HTTP server's Unix socket: the owner and the group.
const HTTP_SOCKET_MODE: u32 = 0o660;

/// `hydrograph run [FILE...]`
pub(super) fn run(files: &[PathBuf]) -> anyhow::Result<Exit> {
    super::run::run(|| start(files))
}

/// Starts the pipeline of these files (none = the built-in default) with its HTTP server.
///
/// # Errors
/// With [`StartError::Configuration`] for files that say something wrong, which is exit code 78.
fn start(files: &[PathBuf]) -> Result<Box<dyn Running>, StartError> {
    let environment = Environment::of_process();
    let plan = if files.is_empty() { Plan::built_in(&environment) } else { check::load(files, &environment) };
    let plan = plan.map_err(|errors| StartError::Configuration(errors.to_string()))?;
    let token = match &plan.http.token {
        Some(token) => {
            let secret = read_token(token).map_err(|error| StartError::Configuration(error.to_string()))?;
            let token = Token::new(secret.reveal()).map_err(|error| StartError::Configuration(error.to_string()))?;
            Some(token)
        }
        None => None,
    };
    let listeners = bind_http(&plan, &environment).map_err(StartError::Other)?;
    let pipeline = Pipeline::start_plan(plan, &environment, Arc::new(SystemClock)).map_err(start_error)?;
    let server = Server::start(pipeline.clone(), listeners, token).map_err(|error| StartError::Other(error.into()))?;
    Ok(Box::new(Started { pipeline, server }))
}

/// What the pipeline file asks and its store refuses is a wrong configuration; everything else is the world's.
fn start_error(error: crate::pipeline::StartError) -> StartError {
    use crate::pipeline::StartError as Start;
    match error {
        Start::Rules(_) | Start::Store(StoreError::SliceMismatch { .. } | StoreError::Rescaled { .. }) => {
            StartError::Configuration(format!("error: {error}"))
        }
        error => StartError::Other(error.into()),
    }
}

fn bind_http(plan: &Plan, environment: &Environment) -> anyhow::Result<Vec<Listener>> {
    use anyhow::Context;
    let mut listeners = Vec::new();
    for address in &plan.http.listen {
        let listener = match address {
            ListenAddress::Tcp(tcp) => Listener::bind_tcp(&tcp.to_string()),
            ListenAddress::Unix(written) => {
                let (path, directory) = socket_path(written, environment)?;
                if let Some(directory) = directory {
                    directory.create(environment)?;
                }
                Listener::bind_unix(&path, HTTP_SOCKET_MODE)
            }
        };
        listeners.push(listener.with_context(|| {
            format!("cannot serve http on {address} (another address: http.listen, or HYDROGRAPH_HTTP__LISTEN)")
        })?);
    }
    Ok(listeners)
}

struct Started {
    pipeline: Pipeline,
    server: Server,
}

impl Running for Started {
    fn index(&self) -> IndexData {
        self.server.front.index()
    }

    fn failure(&self) -> Option<String> {
        self.pipeline.failure()
    }

    fn stop(mut self: Box<Self>) -> anyhow::Result<Stopped> {
        let report = self.pipeline.stop(DRAIN_TIMEOUT);
        self.server.stop();
        if let Some(failure) = &report.failure {
            anyhow::bail!("an actor failed: {failure}");
        }
        let stopped = Stopped { laws: report_laws(&report), store_bytes: report.store_bytes };
        if !report.is_complete {
            let reason = self.pipeline.status().error.unwrap_or_else(|| "the drain took too long".into());
            anyhow::bail!("not everything that was accepted could be committed: {reason} ({})", stopped.laws);
        }
        Ok(stopped)
    }
}

/// `hydrograph check FILE...`
pub(super) fn check(files: &[PathBuf]) -> anyhow::Result<Exit> {
    match check::check(files, &Environment::of_process()) {
        Ok(text) => {
            std::io::stdout().write_all(text.as_bytes())?;
            Ok(Exit::Done)
        }
        Err(errors) => {
            eprintln!("{}", errors.to_string().trim_end());
            Ok(Exit::Configuration)
        }
    }
}

/// `hydrograph init [NAME]`
pub(super) fn init(name: &str) -> anyhow::Result<Exit> {
    match init::init(name) {
        Ok(text) => {
            std::io::stdout().write_all(text.as_bytes())?;
            Ok(Exit::Done)
        }
        Err(error) => {
            eprintln!("{}", error.to_string().trim_end());
            Ok(Exit::Usage)
        }
    }
}
