//! `export`: what a running instance holds, in a format that others read.
//!
//! In: a format, selectors, a file. Out: the body on stdout, or in the file. Invariants: a file is replaced as a whole or not
//! at all, and is on the disk when the verb ends; an answer that breaks off replaces nothing.

use super::client::{Client, Copied, encoded};
use super::{Exit, show};
use anyhow::Context;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// Between two looks of the bar.
const BAR_BYTES: u64 = 1 << 20;
/// Characters of it.
const BAR_WIDTH: u64 = 30;

/// The verb's arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// What to write
    #[arg(long, value_enum, default_value_t = Format::Prometheus)]
    format: Format,
    /// PromQL selector of what to export, as in orders_total{region="eu"}; may be given again
    #[arg(long = "match", value_name = "SELECTOR")]
    selectors: Vec<String>,
    /// Where to write instead of stdout; the file is replaced when all of it is there
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// Prometheus's text 0.0.4
    Prometheus,
    /// OpenMetrics 1.0
    Openmetrics,
    /// One JSON object
    Json,
    /// One JSON object a line and series
    Ndjson,
    /// A table with a header
    Csv,
    /// InfluxDB's line protocol
    Influx,
}

impl Format {
    fn word(self) -> &'static str {
        match self {
            Format::Prometheus => "prometheus",
            Format::Openmetrics => "openmetrics",
            Format::Json => "json",
            Format::Ndjson => "ndjson",
            Format::Csv => "csv",
            Format::Influx => "influx",
        }
    }
}

impl Export {
    /// Asks the instance and writes what it says.
    pub(super) fn run(&self, client: &Client) -> anyhow::Result<Exit> {
        let path = self.path();
        let copied = match &self.output {
            None => {
                let mut out = BufWriter::new(io::stdout().lock());
                let copied = copy(client, &path, &mut out, !io::stdout().is_terminal())?;
                out.flush()?;
                copied
            }
            Some(file) => {
                let said = || format!("cannot write {}", file.display());
                let mut out = Replacement::begin(file).with_context(said)?;
                let copied = copy(client, &path, &mut out, true)?;
                if matches!(copied, Copied::Whole) {
                    out.finish().with_context(said)?;
                }
                copied
            }
        };
        match copied {
            Copied::Whole => Ok(Exit::Done),
            Copied::Refused(reply) => {
                let is_wrong = reply.status == 400;
                let problem = match reply.expect_ok() {
                    Ok(_) => "the instance answered something else".to_owned(),
                    Err(problem) => problem.to_string(),
                };
                eprintln!("hydrograph: {problem}");
                Ok(if is_wrong { Exit::Usage } else { Exit::Failed })
            }
        }
    }

    fn path(&self) -> String {
        let mut path = format!("/api/metrics?format={}", self.format.word());
        for selector in &self.selectors {
            let _ = write!(path, "&match%5B%5D={}", encoded(selector));
        }
        path
    }
}

/// The whole answer into `out`, with a bar on a terminal where nothing else is shown there.
fn copy(client: &Client, path: &str, out: &mut impl Write, may_show: bool) -> anyhow::Result<Copied> {
    let mut bar = Bar { is_shown: may_show && io::stderr().is_terminal(), bytes: 0, said: 0 };
    let copied = client.copy(path, |length, bytes| {
        out.write_all(bytes).context("cannot write what came")?;
        bar.advance(bytes.len() as u64, length);
        Ok(())
    });
    bar.end();
    copied
}

/// How far it is.
struct Bar {
    is_shown: bool,
    bytes: u64,
    said: u64,
}

impl Bar {
    fn advance(&mut self, bytes: u64, length: Option<u64>) {
        self.bytes += bytes;
        if self.is_shown && (self.said == 0 || self.bytes - self.said >= BAR_BYTES) {
            self.said = self.bytes;
            eprint!("\r{:60}\r{}", "", shown(self.bytes, length));
        }
    }

    fn end(&self) {
        if self.said > 0 {
            eprint!("\r{:60}\r", "");
        }
    }
}

/// `[######..........] 12 MB of 31 MB`, or the bytes alone where nobody knows how many will come.
fn shown(bytes: u64, length: Option<u64>) -> String {
    match length {
        Some(length) => {
            let filled = (bytes.min(length) * BAR_WIDTH / length.max(1)) as usize;
            let (full, empty) = ("#".repeat(filled), ".".repeat(BAR_WIDTH as usize - filled));
            format!("[{full}{empty}] {} of {}", show::bytes(bytes), show::bytes(length))
        }
        None => show::bytes(bytes),
    }
}

/// A file that takes another's place when it is whole.
pub(super) struct Replacement {
    out: BufWriter<File>,
    /// Where it is written until then; none for what is no file, such as a pipe, which is written to as it is.
    temporary: Option<PathBuf>,
    path: PathBuf,
}

impl Replacement {
    pub(super) fn begin(path: &Path) -> io::Result<Replacement> {
        let found = match fs::metadata(path) {
            Ok(found) => Some(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if found.as_ref().is_some_and(|found| !found.is_file()) {
            let out = BufWriter::new(OpenOptions::new().write(true).open(path)?);
            return Ok(Replacement { out, temporary: None, path: path.to_owned() });
        }
        // Of a link the file behind it is replaced.
        let path = if found.is_some() { fs::canonicalize(path)? } else { path.to_owned() };
        let name = path.file_name().ok_or_else(|| io::Error::other("it names no file"))?;
        let temporary = path.with_file_name(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
        let replacement = Replacement { out: BufWriter::new(file), temporary: Some(temporary), path };
        if let Some(found) = found {
            replacement.out.get_ref().set_permissions(found.permissions())?;
        }
        Ok(replacement)
    }

    /// Puts it in its place: the bytes first, then the name, then the folder that holds the name.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.out.flush()?;
        let Some(temporary) = &self.temporary else { return Ok(()) };
        self.out.get_ref().sync_all()?;
        fs::rename(temporary, &self.path)?;
        self.temporary = None;
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl Write for Replacement {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl Drop for Replacement {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // What is left is half a file that nobody asked for.
            let _ = fs::remove_file(temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        export: Export,
    }

    fn parse(arguments: &[&str]) -> Result<Export, clap::Error> {
        Line::try_parse_from([&["export"], arguments].concat()).map(|line| line.export)
    }

    #[test]
    fn arguments_become_a_request() {
        assert_eq!(parse(&[]).expect("fine").path(), "/api/metrics?format=prometheus");
        let all = ["--format", "ndjson", "--match", "a{b=\"c\"}", "--match", "d", "-o", "x"];
        assert_eq!(
            parse(&all).expect("fine").path(),
            "/api/metrics?format=ndjson&match%5B%5D=a%7Bb%3D%22c%22%7D&match%5B%5D=d"
        );
        assert!(parse(&["--format", "xml"]).is_err());
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_or_not_at_all() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let names = || {
            let mut names: Vec<String> = fs::read_dir(folder.path())
                .expect("readable")
                .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        let (file, link) = (folder.path().join("x.prom"), folder.path().join("link"));
        let mut first = Replacement::begin(&file).expect("begun");
        first.write_all(b"one").expect("written");
        assert!(!file.exists());
        first.finish().expect("in its place");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("ours");
        std::os::unix::fs::symlink("x.prom", &link).expect("a link");
        // Given up: nothing changed, nothing left over.
        let mut second = Replacement::begin(&link).expect("begun");
        second.write_all(b"half").expect("written");
        drop(second);
        assert_eq!((fs::read(&file).expect("there"), names()), (b"one".to_vec(), vec!["link".into(), "x.prom".into()]));
        let mut third = Replacement::begin(&link).expect("begun");
        third.write_all(b"three").expect("written");
        third.finish().expect("in its place");
        assert_eq!(fs::read(&file).expect("there"), b"three");
        assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o640);
        assert!(Replacement::begin(&folder.path().join("nowhere/x")).is_err());
        // What is no file is written to, and stays.
        let mut null = Replacement::begin(Path::new("/dev/null")).expect("a device");
        null.write_all(b"x").expect("written");
        null.finish().expect("written");
    }

    #[test]
    fn the_bar() {
        assert_eq!(shown(500_000, Some(1_000_000)), "[###############...............] 500 KB of 1.0 MB");
        assert_eq!(shown(2_500_000, None), "2.5 MB");
        assert_eq!(shown(0, Some(0)), format!("[{}] 0 B of 0 B", ".".repeat(30)));
    }
}
