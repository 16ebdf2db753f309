//! The verbs that need the pipeline: the one place where the command line meets it.
//!
//! In: checked arguments. Out: how it ended. Invariant: `run` installs signals before it opens anything.

use super::run::{Running, StartError, Stopped};
use super::{Exit, check, init};
use crate::event::SystemClock;
use crate::http::{Backend, IndexData, Listener, Server, Tokens, bind, report_laws, tokens_of};
use crate::pipeline::paths::Environment;
use crate::pipeline::plan::{self, Plan};
use crate::pipeline::{Loader, Pipeline};
use crate::store::StoreError;
use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
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
    let read = {
        let (files, environment) = (files.to_vec(), environment.clone());
        move || if files.is_empty() { Plan::built_in(&environment) } else { check::load(&files, &environment) }
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
    serve(plan, &environment, listeners, tokens, files, Some(Box::new(read)))
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
    serve(plan, environment, listeners, Tokens::default(), &[], None)
}

fn serve(
    plan: Plan,
    environment: &Environment,
    listeners: Vec<Listener>,
    tokens: Tokens,
    files: &[PathBuf],
    loader: Option<Loader>,
) -> Result<Box<dyn Running>, StartError> {
    let pipeline = Pipeline::start_plan(plan, environment, Arc::new(SystemClock)).map_err(start_error)?;
    if let Some(loader) = loader {
        pipeline.reload_from(loader);
    }
    let server = Server::start(pipeline.clone(), listeners, tokens, environment.clone());
    let server = server.map_err(|error| StartError::Other(error.into()))?;
    Ok(Box::new(Started { pipeline, server, files: files.to_vec() }))
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
    files: Vec<PathBuf>,
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

/// Hashes when each file of some directories was written, and how long it is.
fn stamp_directory(directory: &Path, hasher: &mut DefaultHasher) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    let is_read = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "toml" || extension == "yml" || extension == "yaml")
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_read).collect();
    paths.sort_unstable();
    for path in paths {
        let metadata = std::fs::metadata(&path).ok();
        let written = metadata.as_ref().and_then(|metadata| metadata.modified().ok());
        (path, written, metadata.map(|metadata| metadata.len())).hash(hasher);
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

    /// What a file includes mostly stands beside it, so that whole directories are looked at.
    fn files_stamp(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let parent =
            |file: &PathBuf| file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        let directories: BTreeSet<PathBuf> = self.files.iter().map(parent).collect();
        directories.iter().for_each(|directory| stamp_directory(directory, &mut hasher));
        hasher.finish()
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
