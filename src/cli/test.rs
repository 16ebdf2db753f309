//! `hydrograph test FILE...`: the tests written in pipeline files, in virtual time.
//!
//! In: paths; each file is a pipeline of its own. Out: a line for each test on stdout, with all that is known of those that
//! failed; or one JSON document. Invariant: files that cannot be read or are wrong are told and end in exit code
//! 78, after the tests of the others have run.

use super::Exit;
use super::check::load;
use super::show::{foreign, number};
use crate::pipeline::paths::Environment;
use crate::pipeline::plan::Want;
use crate::pipeline::rehearsal::{Failure, TestReport, rehearse};
use crate::pipeline::value::show_duration;
use serde_json::json;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

/// The arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Test {
    /// Pipeline files, each a pipeline of its own
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Test {
    /// Runs all tests of all files.
    pub(super) fn run(&self) -> anyhow::Result<Exit> {
        let environment = Environment::of_process();
        let mut out = std::io::stdout().lock();
        let mut files = Vec::new();
        let (mut passed, mut failed, mut is_wrong) = (0, 0, false);
        for path in &self.files {
            let plan = match load(std::slice::from_ref(path), &environment) {
                Ok(plan) => plan,
                Err(errors) => {
                    eprintln!("{}", errors.to_string().trim_end());
                    is_wrong = true;
                    continue;
                }
            };
            let reports = rehearse(&plan, &|other| load(&[other.to_owned()], &environment));
            let ok = reports.iter().filter(|report| report.is_ok()).count();
            passed += ok;
            failed += reports.len() - ok;
            let name = path.display().to_string();
            match self.json {
                true => files.push(file_json(&name, &reports)),
                false => out.write_all(file_text(&name, &reports).as_bytes())?,
            }
        }
        if self.json {
            writeln!(out, "{:#}", json!({ "passed": passed, "failed": failed, "files": files }))?;
        } else {
            writeln!(out, "\n{passed} passed, {failed} failed")?;
        }
        Ok(match (is_wrong, failed) {
            (true, _) => Exit::Configuration,
            (false, 0) => Exit::Done,
            (false, _) => Exit::Failed,
        })
    }
}

fn file_text(name: &str, reports: &[TestReport]) -> String {
    let mut text = format!("{name}\n");
    if reports.is_empty() {
        text.push_str("  no tests\n");
    }
    for report in reports {
        write_report(&mut text, report).expect("writing to a String cannot fail");
    }
    text
}

fn write_report(out: &mut String, report: &TestReport) -> std::fmt::Result {
    let word = if report.is_ok() { "ok    " } else { "FAILED" };
    writeln!(out, "  {word}  {}", foreign(&report.name))?;
    if report.is_ok() {
        return Ok(());
    }
    for failure in &report.failures {
        writeln!(out, "    {}: at {} {}", failure.place, show_duration(failure.at), foreign(&failure.expr))?;
        writeln!(out, "      expected {}", want_text(failure.want))?;
        match (&failure.problem, &failure.found[..]) {
            (Some(problem), _) => writeln!(out, "      found    no value: {problem}")?,
            (None, []) => writeln!(out, "      found    nothing")?,
            (None, [(_, value)]) => writeln!(out, "      found    {}", number(*value))?,
            (None, several) => {
                writeln!(out, "      found    {} series", several.len())?;
                several.iter().try_for_each(|series| write_series(out, series))?;
            }
        }
        for (name, series) in &failure.near {
            match series.is_empty() {
                true => writeln!(out, "      {name} has no series at that time")?,
                false => {
                    writeln!(out, "      {name} at that time")?;
                    series.iter().try_for_each(|series| write_series(out, series))?;
                }
            }
        }
    }
    if let Some(problem) = &report.problem {
        writeln!(out, "    {}: {problem}", report.place)?;
    }
    for note in &report.notes {
        writeln!(out, "    not taken: {}", foreign(note))?;
    }
    Ok(())
}

fn write_series(out: &mut String, (series, value): &(String, f64)) -> std::fmt::Result {
    let series = if series.is_empty() { "{}" } else { series };
    writeln!(out, "        {} {}", foreign(series), number(*value))
}

fn want_text(want: Want) -> String {
    match want {
        Want::Absent => "nothing".into(),
        Want::Value { value, tolerance: None } => number(value),
        Want::Value { value, tolerance: Some(tolerance) } => format!("{} ± {}", number(value), number(tolerance)),
    }
}

fn file_json(name: &str, reports: &[TestReport]) -> serde_json::Value {
    let tests: Vec<_> = reports.iter().map(report_json).collect();
    json!({ "file": name, "tests": tests })
}

fn report_json(report: &TestReport) -> serde_json::Value {
    json!({
        "name": report.name,
        "place": report.place,
        "ok": report.is_ok(),
        "problem": report.problem,
        "failures": report.failures.iter().map(failure_json).collect::<Vec<_>>(),
        "not_taken": report.notes,
    })
}

fn failure_json(failure: &Failure) -> serde_json::Value {
    let all = |series: &[(String, f64)]| -> Vec<serde_json::Value> {
        series.iter().map(|(series, value)| json!({ "series": series, "value": value_json(*value) })).collect()
    };
    let (expected, tolerance) = match failure.want {
        Want::Absent => (serde_json::Value::Null, None),
        Want::Value { value, tolerance } => (value_json(value), tolerance),
    };
    json!({
        "place": failure.place,
        "at_seconds": failure.at as f64 / 1e9,
        "expr": failure.expr,
        "absent": failure.want == Want::Absent,
        "expected": expected,
        "tolerance": tolerance,
        "found": all(&failure.found),
        "problem": failure.problem,
        "near": failure.near.iter().map(|(name, series)| json!({ "name": name, "series": all(series) })).collect::<Vec<_>>(),
    })
}

/// JSON has no NaN and no infinities: they are texts, as in Prometheus's API.
fn value_json(value: f64) -> serde_json::Value {
    if value.is_finite() { json!(value) } else { json!(value.to_string()) }
}
