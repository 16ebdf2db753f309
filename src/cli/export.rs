//! `export`: what a running instance holds, in a format that others read: its current values, or every point of a span.
//!
//! In: a format, selectors, times, a file. Out: the body on stdout, or in the file. Invariants: a file is replaced as a whole or not
//! at all, and is on the disk when the verb ends; an answer that breaks off replaces nothing.

use super::client::{Client, Copied, encoded};
use super::moment::{Moment, epoch, span};
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
/// Of the line that is being received, to know which name it is about.
const LINE_BYTES: usize = 512;

/// The verb's arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// What to write
    #[arg(long, value_enum, default_value_t = Format::Prometheus)]
    format: Format,
    /// PromQL selector of what to export, as in orders_total{region="eu"}; may be given again
    #[arg(long = "match", value_name = "SELECTOR")]
    selectors: Vec<String>,
    /// Every point of so long a time instead of the current values: 1h, 7d
    #[arg(long, value_name = "SPAN", value_parser = span, conflicts_with_all = ["start", "end"])]
    since: Option<i64>,
    /// Every point after this time: RFC 3339, seconds since 1970, or -1h
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    start: Option<Moment>,
    /// Up to this one [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, requires = "start")]
    end: Option<Moment>,
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
        let is_shown = io::stderr().is_terminal() && (self.output.is_some() || !io::stdout().is_terminal());
        let names = if is_shown && self.begin().is_some() { self.names(client)? } else { Vec::new() };
        let mut bar = Bar { is_shown, bytes: 0, said: 0, format: self.format, names, line: Vec::new() };
        let copied = match &self.output {
            None => {
                let mut out = BufWriter::new(io::stdout().lock());
                let copied = copy(client, &path, &mut out, &mut bar)?;
                out.flush()?;
                copied
            }
            Some(file) => {
                let said = || format!("cannot write {}", file.display());
                let mut out = Replacement::begin(file).with_context(said)?;
                let copied = copy(client, &path, &mut out, &mut bar)?;
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
        let mut path = match self.begin() {
            None => format!("/api/metrics?format={}", self.format.word()),
            Some(start) => format!("/api/v1/export?format={}&start={}", self.format.word(), epoch(start.time())),
        };
        if let Some(end) = self.end {
            let _ = write!(path, "&end={}", epoch(end.time()));
        }
        path.push_str(&self.meant());
        path
    }

    /// Where the points begin, unless the current values are asked for.
    fn begin(&self) -> Option<Moment> {
        self.start.or(self.since.map(Moment::Ago))
    }

    /// The selectors as parameters.
    fn meant(&self) -> String {
        self.selectors.iter().map(|selector| format!("&match%5B%5D={}", encoded(selector))).collect()
    }

    /// The names that will come, sorted: what the bar counts.
    fn names(&self, client: &Client) -> anyhow::Result<Vec<String>> {
        let reply = client.get(&format!("/api/v1/label/__name__/values?{}", self.meant()), "*/*")?;
        let answer: serde_json::Value = serde_json::from_slice(&reply.body).unwrap_or_default();
        let names = answer["data"].as_array().into_iter().flatten();
        Ok(names.filter_map(|name| name.as_str().map(str::to_owned)).collect())
    }
}

/// The whole answer into `out`, with a bar on a terminal where nothing else is shown there.
fn copy(client: &Client, path: &str, out: &mut impl Write, bar: &mut Bar) -> anyhow::Result<Copied> {
    let copied = client.copy(path, |length, bytes| {
        out.write_all(bytes).context("cannot write what came")?;
        bar.advance(bytes, length);
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
    format: Format,
    /// Of what comes name by name: all of them, sorted.
    names: Vec<String>,
    /// The beginning of the last line, which may not be whole yet.
    line: Vec<u8>,
}

impl Bar {
    fn advance(&mut self, bytes: &[u8], length: Option<u64>) {
        self.bytes += bytes.len() as u64;
        if !self.is_shown {
            return;
        }
        if let Some(end) = memchr::memrchr(b'\n', bytes) {
            self.line.clear();
            self.line.extend_from_slice(&bytes[end + 1..]);
        } else if self.line.len() < LINE_BYTES {
            self.line.extend_from_slice(bytes);
        }
        if self.said == 0 || self.bytes - self.said >= BAR_BYTES {
            self.said = self.bytes;
            let done = self.done().map(|done| (done as u64, self.names.len() as u64));
            let parts = length.map(|length| (self.bytes, length)).or(done);
            let of = length.map(|length| format!(" of {}", show::bytes(length))).unwrap_or_default();
            eprint!("\r{:70}\r{}{}{of}", "", bar(parts), show::bytes(self.bytes));
        }
    }

    /// How many names have come, as far as the beginning of a line tells.
    fn done(&self) -> Option<usize> {
        let name = name_of(self.format, &self.line)?;
        let place = self.names.partition_point(|known| known.as_str() < name);
        (!self.names.is_empty()).then_some(place)
    }

    fn end(&self) {
        if self.said > 0 {
            eprint!("\r{:60}\r", "");
        }
    }
}

/// `[######..........] `, or nothing where nobody knows how much will come.
fn bar(parts: Option<(u64, u64)>) -> String {
    let Some((done, all)) = parts else { return String::new() };
    let filled = (done.min(all) * BAR_WIDTH / all.max(1)) as usize;
    format!("[{}{}] ", "#".repeat(filled), ".".repeat(BAR_WIDTH as usize - filled))
}

/// The name that a line is about.
fn name_of(format: Format, line: &[u8]) -> Option<&str> {
    let line = std::str::from_utf8(line).ok().or_else(|| std::str::from_utf8(line.get(..LINE_BYTES / 2)?).ok())?;
    let ends: &[char] = match format {
        Format::Prometheus | Format::Openmetrics => &['{', ' '],
        Format::Csv | Format::Influx => &[',', ' '],
        Format::Json | Format::Ndjson => {
            let (_, rest) = line.split_once("\"name\":\"")?;
            return rest.split_once('"').map(|(name, _)| name);
        }
    };
    line.split_once(ends).map(|(name, _)| name).filter(|name| *name != "#")
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
        let path = parse(&["--start", "1700000000", "--end", "1700000060.5", "--match", "x"]).expect("fine").path();
        let expected = "/api/v1/export?format=prometheus&start=1700000000.000&end=1700000060.500&match%5B%5D=x";
        assert_eq!(path, expected);
        assert!(
            parse(&["--since", "1h"]).expect("fine").path().starts_with("/api/v1/export?format=prometheus&start=1")
        );
        for wrong in
            [&["--format", "xml"][..], &["--since", "0"], &["--since", "1h", "--start", "-1h"], &["--end", "now"]]
        {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
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
        assert_eq!(bar(Some((500_000, 1_000_000))), "[###############...............] ");
        assert_eq!((bar(None).as_str(), bar(Some((0, 0))).len()), ("", 33));
        for (format, line, expected) in [
            (Format::Prometheus, "a_total{x=\"y\"} 1 2", Some("a_total")),
            (Format::Openmetrics, "a_total 1", Some("a_total")),
            (Format::Prometheus, "# TYPE a counter", None),
            (Format::Prometheus, "a_to", None),
            (Format::Csv, "a_total,counter,", Some("a_total")),
            (Format::Influx, "a_total,x=y value=1", Some("a_total")),
            (Format::Ndjson, "{\"name\":\"a_total\",\"type\"", Some("a_total")),
        ] {
            assert_eq!(name_of(format, line.as_bytes()), expected, "{line}");
        }
        let names = ["a", "b", "c"].map(str::to_owned).to_vec();
        let mut bar = Bar { is_shown: true, bytes: 0, said: 1, format: Format::Csv, names, line: Vec::new() };
        bar.advance(b"a,1\nb", None);
        bar.advance(b",2", None);
        assert_eq!(bar.done(), Some(1));
    }
}
