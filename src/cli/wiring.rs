//! The verbs that need the pipeline: the one place where the command line meets it.
//!
//! In: checked arguments. Out: how it ended. Invariant: `run` installs signals before it opens anything.

use super::run::{Running, StartError, Stopped};
use super::watched::ReadFiles;
use super::{Exit, check, init};
use crate::event::SystemClock;
use crate::http::{Backend, IndexData, Listener, Server, Tokens, bind, report_laws, tokens_of};
use crate::pipeline::paths::Environment;
use crate::pipeline::plan::{self, Plan};
use crate::pipeline::{Loader, Pipeline};
use crate::store::StoreError;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// How long a stop may take to drain and commit.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// `hydrograph run [FILE...]`
pub(super) fn run(files: &[PathBuf], watches: bool, accept: Vec<String>) -> anyhow::Result<Exit> {
    super::run::run(|| start(files, accept), watches)
}

/// Starts the pipeline of these files (none = the built-in default) with its HTTP server.
///
/// # Errors
/// With [`StartError::Configuration`] for files that say something wrong, which is exit code 78.
fn start(files: &[PathBuf], accept: Vec<String>) -> Result<Box<dyn Running>, StartError> {
    let environment = Environment::of_process();
    let read_files = Arc::new(ReadFiles::default());
    let read = {
        let (files, environment, read_files) = (files.to_vec(), environment.clone(), Arc::clone(&read_files));
        move || read_files.load(&files, &environment)
    };
    let plan = read().map_err(|errors| StartError::Configuration(errors.to_string()))?;
    let plan = Plan { accept, ..plan };
    for warning in plan.warnings.iter() {
        let place = warning.place.as_ref().map(|place| place.shown()).unwrap_or_default();
        tracing::warn!(place, "{}", warning.message);
    }
    let tokens = tokens_of(&plan).map_err(|error| StartError::Configuration(error.to_string()))?;
    let bound = plan.http.listen.iter().map(|address| bind(address, &environment)).collect::<Result<_, _>>();
    let listeners = bound.map_err(|error| StartError::Other(error.into()))?;
    serve(plan, &environment, listeners, tokens, read_files, Some(Box::new(read)))
}

/// Starts a plan without a token and without files to reload.
///
/// # Errors
/// As [`start`].
pub(super) fn start_plan(
    plan: Plan,
    environment: &Environment,
    listeners: Vec<Listener>,
) -> Result<Box<dyn Running>, StartError> {
    serve(plan, environment, listeners, Tokens::default(), Arc::default(), None)
}

fn serve(
    plan: Plan,
    environment: &Environment,
    listeners: Vec<Listener>,
    tokens: Tokens,
    read_files: Arc<ReadFiles>,
    loader: Option<Loader>,
) -> Result<Box<dyn Running>, StartError> {
    let pipeline = Pipeline::start_plan(plan, environment, Arc::new(SystemClock)).map_err(start_error)?;
    if let Some(loader) = loader {
        pipeline.reload_from(loader);
    }
    let server = Server::start(pipeline.clone(), listeners, tokens, environment.clone());
    let server = server.map_err(|error| StartError::Other(error.into()))?;
    Ok(Box::new(Started { pipeline, server, read_files }))
}

/// What the pipeline file asks and its store refuses is a wrong configuration; everything else is the world's.
fn start_error(error: crate::pipeline::StartError) -> StartError {
    use crate::pipeline::StartError as Start;
    match error {
        Start::Rules(_)
        | Start::Accept(_)
        | Start::Store(StoreError::SliceMismatch { .. } | StoreError::Rescaled { .. }) => {
            StartError::Configuration(format!("error: {error}"))
        }
        error => StartError::Other(error.into()),
    }
}

struct Started {
    pipeline: Pipeline,
    server: Server,
    read_files: Arc<ReadFiles>,
}

/// How the verbs get past a token: its file, or, where it came from the environment, a file that holds it.
fn token_option(token: Option<&plan::Token>) -> String {
    match token {
        None => String::new(),
        Some(plan::Token::Value(_)) => "--token-file FILE ".to_owned(),
        Some(plan::Token::File(path)) => {
            let path = path.display().to_string();
            let is_plain = path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+@:,".contains(c));
            match is_plain {
                true => format!("--token-file {path} "),
                false => format!("--token-file '{}' ", path.replace('\'', r"'\''")),
            }
        }
    }
}

impl Running for Started {
    fn index(&self) -> IndexData {
        self.server.front.index()
    }

    fn failure(&self) -> Option<String> {
        self.pipeline.failure()
    }

    fn reload(&self) -> Result<String, String> {
        let report = self.pipeline.reload_files().map_err(|error| error.to_string())?;
        if report.is_empty() {
            return Ok("nothing changed".to_owned());
        }
        serde_json::to_string(&report).map_err(|error| error.to_string())
    }

    fn token_option(&self) -> String {
        token_option(self.pipeline.plan().http.token.as_ref())
    }

    fn files_stamp(&self) -> u64 {
        self.read_files.stamp()
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
        Ok((text, warnings)) => {
            std::io::stdout().write_all(text.as_bytes())?;
            if !warnings.is_empty() {
                eprintln!("{}", warnings.to_string().trim_end());
            }
            Ok(Exit::Done)
        }
        Err(errors) => {
            eprintln!("{}", errors.to_string().trim_end());
            Ok(Exit::Configuration)
        }
    }
}

/// `hydrograph schema`
pub(super) fn schema() -> anyhow::Result<Exit> {
    let text = serde_json::to_string_pretty(&crate::pipeline::schema::schema())?;
    writeln!(std::io::stdout(), "{text}")?;
    Ok(Exit::Done)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::plan::Secret;

    #[test]
    fn the_line_to_try_gets_past_the_token() {
        assert_eq!(token_option(None), "");
        assert_eq!(token_option(Some(&plan::Token::Value(Secret::new("s".into())))), "--token-file FILE ");
        let option = |path: &str| token_option(Some(&plan::Token::File(path.into())));
        assert_eq!(option("/run/secrets/t"), "--token-file /run/secrets/t ");
        assert_eq!(option("/it's/a token"), "--token-file '/it'\\''s/a token' ");
    }
}
