//! The log on stderr: levels by part of the program, as text or JSON.
//!
//! In: `--log LEVEL[,part=LEVEL]`, where a part is a module (`store`, `source`, `http`). Out: a global subscriber.

use std::str::FromStr;
use tracing_subscriber::EnvFilter;

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// Checked levels, as directives of `tracing-subscriber`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Levels(String);

impl FromStr for Levels {
    type Err = String;

    fn from_str(text: &str) -> Result<Levels, String> {
        const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
        let mut directives = Vec::new();
        for item in text.split(',') {
            let (part, level) = match item.split_once('=') {
                Some((part, level)) => (Some(part.trim()), level.trim()),
                None => (None, item.trim()),
            };
            if !LEVELS.contains(&level) {
                return Err(format!("{level:?} is not a level; levels are {}", LEVELS.join(", ")));
            }
            match part {
                Some(part)
                    if !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b"_:".contains(&b)) =>
                {
                    directives.push(format!("hydrograph::{part}={level}"));
                }
                Some(part) => return Err(format!("{part:?} is not a part; parts are modules, as in store=debug")),
                None => directives.push(level.to_owned()),
            }
        }
        Ok(Levels(directives.join(",")))
    }
}

/// Starts the log. Later calls change nothing.
pub(super) fn start(levels: &Levels, format: LogFormat) {
    let filter = EnvFilter::new(&levels.0);
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let is_coloured = super::show::is_coloured(&std::io::stderr());
    // An error means that a log is there already (tests in one process).
    let _ = match format {
        LogFormat::Text => log.with_ansi(is_coloured).try_init(),
        LogFormat::Json => log.json().flatten_event(true).try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_by_part() {
        assert_eq!("warn,store=debug".parse(), Ok(Levels("warn,hydrograph::store=debug".into())));
        assert_eq!("off".parse(), Ok(Levels("off".into())));
        assert!("loud".parse::<Levels>().unwrap_err().contains("off, error, warn"));
        assert!("info,=debug".parse::<Levels>().is_err());
        assert!("info,store=".parse::<Levels>().is_err());
        assert!("".parse::<Levels>().is_err());
    }
}
