//! `store`: figures of a store, a check of all of it, compaction, and a copy.
//!
//! In: a file that nobody serves, or none for the running instance. Out: a table or JSON; a copy in a file. Invariants: a
//! running instance is asked, and a file that it serves is never opened beside it; nothing that is found wrong is repaired
//! or deleted; exit 1 when something is.

use super::client::{Client, Copied};
use super::export::Replacement;
use super::{Exit, show};
use crate::pipeline::upkeep::{self, StoreCheck, StoreStats};
use crate::store::{Ledger, StoreError};
use anyhow::{Context, bail};
use serde_json::Value;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

/// The verb's arguments.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Store {
    /// Print what it holds: bytes by table and tier, bytes a sample, series, oldest span, free space
    Stats {
        /// The file of a stopped instance [default: ask the running one]
        path: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Verify every value, count every row, and compare totals with base and history
    Check {
        /// The file of a stopped instance, whose pages are checked, too [default: ask the running one]
        path: Option<PathBuf>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Give unused space back to the file system
    Compact {
        /// The file of a stopped instance
        path: PathBuf,
        /// Drop the tiers that the pipeline file has no more
        #[arg(long)]
        prune: bool,
    },
    /// Write a consistent copy
    Backup {
        /// The file of a stopped instance [default: ask the running one]
        path: Option<PathBuf>,
        /// Where to write it; replaced when all of it is there
        #[arg(long, short, value_name = "FILE")]
        output: PathBuf,
    },
}

impl Store {
    /// Asks or opens, and prints.
    pub(super) fn run(&self, client: impl FnOnce() -> anyhow::Result<Client>) -> anyhow::Result<Exit> {
        match self {
            Store::Stats { path, json } => stats(path.as_deref(), *json, client),
            Store::Check { path, json } => check(path.as_deref(), *json, client),
            Store::Compact { path, prune } => compact(path, *prune),
            Store::Backup { path, output } => backup(path.as_deref(), output, client),
        }
    }
}

/// A file that nobody serves.
fn open(path: &Path) -> anyhow::Result<Ledger> {
    upkeep::open_file(path).map_err(|error| match error {
        StoreError::Locked { path } => {
            anyhow::anyhow!("{path} is in use by a running instance: leave the file away to ask that one (--url)")
        }
        error => error.into(),
    })
}

/// What the instance says, in the words of its program.
fn asked(client: &Client, reply: anyhow::Result<super::client::Reply>) -> anyhow::Result<Value> {
    let body = reply
        .with_context(|| format!("asked {}; give the file of a stopped instance as PATH", client.target()))?
        .expect_ok()?;
    serde_json::from_slice(&body).context("the answer is not what `store` reads")
}

fn stats(path: Option<&Path>, json: bool, client: impl FnOnce() -> anyhow::Result<Client>) -> anyhow::Result<Exit> {
    let figures = match path {
        Some(path) => {
            let ledger = open(path)?;
            let stats: StoreStats = upkeep::stats(&ledger.reader(), Some(path))?;
            serde_json::to_value(&stats)?
        }
        None => {
            let client = client()?;
            asked(&client, client.get("/api/v1/store", "application/json"))?
        }
    };
    let text = if json { format!("{figures:#}\n") } else { table(&figures) };
    std::io::stdout().lock().write_all(text.as_bytes())?;
    Ok(Exit::Done)
}

fn check(path: Option<&Path>, json: bool, client: impl FnOnce() -> anyhow::Result<Client>) -> anyhow::Result<Exit> {
    let found = match path {
        Some(path) => {
            let mut ledger = open(path)?;
            let is_shown = std::io::stderr().is_terminal();
            let mut said = -1;
            let checked: Result<StoreCheck, StoreError> = upkeep::check(&ledger.reader(), Some(path), &mut |share| {
                let percent = (share * 100.0) as i32;
                if is_shown && percent != std::mem::replace(&mut said, percent) {
                    eprint!("\rchecked {percent} %");
                }
            });
            if said >= 0 && is_shown {
                eprint!("\r{:20}\r", "");
            }
            let found = serde_json::to_value(checked?)?;
            ledger.check_pages()?;
            found
        }
        None => {
            let client = client()?;
            asked(&client, client.post_patiently("/api/v1/store/check"))?
        }
    };
    let differing = found["differing"].as_u64().unwrap_or(0);
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{found:#}")?;
    } else {
        let number = |key: &str| found[key].as_u64().unwrap_or(0);
        writeln!(
            out,
            "{}, commit {}: {} rows, {}, {} series, {} slices, {} spans",
            show::foreign(found["path"].as_str().unwrap_or("")),
            number("commit"),
            number("rows"),
            show::bytes(number("bytes")),
            number("series"),
            number("slices"),
            number("spans")
        )?;
        for difference in found["differences"].as_array().into_iter().flatten() {
            writeln!(out, "  {}", show::foreign(difference.as_str().unwrap_or("")))?;
        }
        match differing {
            0 => writeln!(out, "sound: every checksum and count is right, and totals are base + history")?,
            _ => writeln!(out, "{differing} figures of totals are not what base and history add up to")?,
        }
    }
    Ok(if differing == 0 { Exit::Done } else { Exit::Failed })
}

fn compact(path: &Path, prune: bool) -> anyhow::Result<Exit> {
    let mut ledger = open(path)?;
    let before = ledger.allocated_bytes();
    if prune {
        let tiers = ledger.prune()?;
        eprintln!("{} tiers that the pipeline file has no more were dropped", tiers.len());
    }
    ledger.compact()?;
    let after = ledger.allocated_bytes();
    println!("{} -> {}", show::bytes(before), show::bytes(after));
    Ok(Exit::Done)
}

fn backup(path: Option<&Path>, output: &Path, client: impl FnOnce() -> anyhow::Result<Client>) -> anyhow::Result<Exit> {
    let said = || format!("cannot write {}", output.display());
    match path {
        Some(path) => {
            if output.exists() {
                bail!("{} is there already; a copy of a file is written to a new one", output.display());
            }
            open(path)?.copy_to(output)?;
        }
        None => {
            let client = client()?;
            let mut out = Replacement::begin(output).with_context(said)?;
            let copied = client.fetch("/api/v1/store/backup", |_, bytes| {
                out.write_all(bytes).context("cannot write what came")?;
                Ok(())
            });
            match copied.with_context(|| format!("asked {}", client.target()))? {
                Copied::Whole => out.finish().with_context(said)?,
                Copied::Refused(reply) => {
                    reply.expect_ok()?;
                    bail!("the instance answered something else");
                }
            }
        }
    }
    let length = std::fs::metadata(output).map_or(0, |metadata| metadata.len());
    println!("{}: {}", output.display(), show::bytes(length));
    Ok(Exit::Done)
}

/// The figures for people.
fn table(figures: &Value) -> String {
    use std::fmt::Write as _;
    let text = |value: &Value| show::foreign(value.as_str().unwrap_or("-"));
    let size = |value: &Value| value.as_u64().map_or_else(|| "-".to_owned(), show::bytes);
    let mut out = String::new();
    let _ = writeln!(
        out,
        "{}  format {}, slices of {} s, commit {} at {}\n{} series, oldest {}; file {}, free on its disk {}\n",
        text(&figures["path"]),
        figures["format"],
        figures["slice_seconds"],
        figures["commit"],
        text(&figures["committed"]),
        figures["series"],
        text(&figures["oldest"]),
        size(&figures["file_bytes"]),
        size(&figures["disk_free_bytes"]),
    );
    let _ = writeln!(out, "{:<16} {:>12} {:>12}", "table", "rows", "bytes");
    for table in figures["tables"].as_array().into_iter().flatten() {
        let rows = table["rows"].as_u64().unwrap_or(0);
        let _ = writeln!(out, "{:<16} {rows:>12} {:>12}", text(&table["table"]), size(&table["bytes"]));
    }
    let _ = writeln!(
        out,
        "\n{:<12} {:>12} {:>7} {:>10} {:>12} {:>15}  oldest",
        "resolution", "kept", "spans", "rolled up", "bytes", "bytes a sample"
    );
    for tier in figures["tiers"].as_array().into_iter().flatten() {
        let sample = tier["bytes_per_sample"].as_f64().map_or_else(|| "-".to_owned(), |bytes| format!("{bytes:.2}"));
        let kept = if tier["wanted"] == true { format!("{} s", tier["keep_seconds"]) } else { "no more".to_owned() };
        let _ = writeln!(
            out,
            "{:<12} {kept:>12} {:>7} {:>10} {:>12} {sample:>15}  {}",
            format!("{} s", tier["resolution_seconds"]),
            tier["spans"],
            tier["rolled_up"],
            size(&tier["bytes"]),
            text(&tier["oldest"]),
        );
    }
    out
}
