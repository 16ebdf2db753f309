//! `send`: lines to a running instance, and what each became.
//!
//! In: lines as arguments or on stdin. Out: one row a line on stdout; exit 1 when one was refused.
//! Invariant: lines arrive in order, in requests below the server's limit.

use super::client::Client;
use super::{Exit, show};
use crate::http::{Accepted, LINES_BYTES_MAX, LINES_MAX, LineOutcome, Refused};
use anyhow::Context;
use std::io::{BufRead, BufReader, Write};

/// Of one request: half of what the server takes, so that the limit can change on one side.
const REQUEST_BYTES_MAX: usize = LINES_BYTES_MAX / 2;
/// And of lines.
const REQUEST_LINES_MAX: usize = LINES_MAX / 2;

/// The verb's arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Send {
    /// DogStatsD lines; `-` reads them from stdin
    #[arg(required = true, value_name = "LINE", allow_hyphen_values = true)]
    lines: Vec<String>,
    /// Do not wait for the commit; values are then not known
    #[arg(long)]
    no_wait: bool,
    /// Print the instance's answer: one JSON object a line
    #[arg(long)]
    json: bool,
}

impl Send {
    /// Sends all and prints all.
    pub(super) fn run(&self, client: &Client) -> anyhow::Result<Exit> {
        let mut parcel =
            Parcel { body: Vec::new(), lines: 0, is_refused: false, awaits_commit: false, send: self, client };
        for line in &self.lines {
            if line != "-" {
                parcel.add(line.as_bytes())?;
                continue;
            }
            let mut input = BufReader::with_capacity(64 * 1024, std::io::stdin().lock());
            let mut bytes = Vec::new();
            while input.read_until(b'\n', &mut bytes).context("cannot read stdin")? > 0 {
                parcel.add(&bytes)?;
                bytes.clear();
                // A pipe that pauses gives us time: what came so far goes now.
                if input.buffer().is_empty() {
                    parcel.deliver()?;
                }
            }
        }
        parcel.deliver()?;
        if parcel.awaits_commit {
            eprintln!(
                "taken, but the store does not commit now: values follow once it does; sent again, they count twice"
            );
        }
        Ok(if parcel.is_refused || parcel.awaits_commit { Exit::Failed } else { Exit::Done })
    }
}

/// Lines that wait for their request.
struct Parcel<'a> {
    body: Vec<u8>,
    lines: usize,
    is_refused: bool,
    awaits_commit: bool,
    send: &'a Send,
    client: &'a Client,
}

impl Parcel<'_> {
    fn add(&mut self, line: &[u8]) -> anyhow::Result<()> {
        let line = line.trim_ascii_end();
        if line.is_empty() {
            return Ok(());
        }
        if self.body.len().saturating_add(line.len()) >= REQUEST_BYTES_MAX || self.lines >= REQUEST_LINES_MAX {
            self.deliver()?;
        }
        // An argument may hold several.
        self.lines += memchr::memchr_iter(b'\n', line).count() + 1;
        self.body.extend_from_slice(line);
        self.body.push(b'\n');
        Ok(())
    }

    fn deliver(&mut self) -> anyhow::Result<()> {
        if self.body.is_empty() {
            return Ok(());
        }
        let path = if self.send.no_wait { "/api/v1/lines?wait=false" } else { "/api/v1/lines" };
        self.lines = 0;
        let reply = self.client.post(path, std::mem::take(&mut self.body))?;
        // 202: taken, and the commit that was waited for did not come.
        let answer = if reply.status == 202 { reply.body } else { reply.expect_ok()? };
        let mut out = std::io::stdout().lock();
        let outcomes = parse(&answer)?;
        let waits = |outcome: &LineOutcome| matches!(outcome, LineOutcome::Accepted(of) if of.committed == Some(false));
        self.awaits_commit |= outcomes.iter().any(waits);
        self.is_refused |= outcomes.iter().any(|outcome| matches!(outcome, LineOutcome::Refused(_)));
        if self.send.json {
            out.write_all(&answer)?;
        } else {
            out.write_all(table(&outcomes, show::is_coloured(&out)).as_bytes())?;
        }
        out.flush()?;
        Ok(())
    }
}

fn parse(ndjson: &[u8]) -> anyhow::Result<Vec<LineOutcome>> {
    let lines = ndjson.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            serde_json::from_slice(line).context("the answer is not what `send` reads; is it the same version?")
        })
        .collect()
}

/// One row an outcome: series, type, value, note; of a refused line its text and the hint.
fn table(outcomes: &[LineOutcome], is_coloured: bool) -> String {
    let rows: Vec<[String; 4]> = outcomes
        .iter()
        .map(|outcome| match outcome {
            LineOutcome::Accepted(accepted) => [
                // What it became is not known when nobody said so in time.
                show::foreign(if accepted.series.is_empty() { &accepted.line } else { &accepted.series }),
                show::foreign(&accepted.kind),
                value_of(accepted),
                if accepted.note.is_empty() { String::new() } else { format!("({})", show::foreign(&accepted.note)) },
            ],
            LineOutcome::Refused(Refused { line, hint, .. }) => {
                [format!("refused  {}", show::foreign(line)), String::new(), String::new(), show::foreign(hint)]
            }
        })
        .collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let (series, kind, value) = (width(0), width(1), width(2));
    let mut text = String::new();
    for (row, outcome) in rows.iter().zip(outcomes) {
        let line = match outcome {
            LineOutcome::Refused(_) => {
                let line = format!("{:<series$}   {}", row[0], row[3]);
                if is_coloured { line.replacen("refused", "\u{1b}[31mrefused\u{1b}[0m", 1) } else { line }
            }
            LineOutcome::Accepted(_) => {
                format!("{:<series$}   {:<kind$}   {:<value$}     {}", row[0], row[1], row[2], row[3])
            }
        };
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `1 sample, p50 0.042 ±1 %`, or the value; without either (not waited for, or outside the window) the samples.
fn value_of(accepted: &Accepted) -> String {
    if accepted.committed == Some(false) {
        return "not committed yet".to_owned();
    }
    let samples = format!("{} {}", accepted.samples, if accepted.samples == 1 { "sample" } else { "samples" });
    match (accepted.quantile, accepted.value) {
        (Some(quantile), _) => {
            let q = show::number((quantile.q * 1e6).round() / 1e4);
            let value = show::number(quantile.value);
            if quantile.bound.is_infinite() {
                return format!("{samples}, p{q} {value}");
            }
            // Two digits of the bound are enough for a person: 1, 10, 0.1, 3.7.
            format!("{samples}, p{q} {value} ±{} %", show::number((quantile.bound * 1e4).round() / 1e2))
        }
        (None, Some(value)) => show::number(value),
        (None, None) => samples,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Quantile;

    #[test]
    fn the_table_reads_as_in_the_first_minute() {
        let outcomes = [
            LineOutcome::Accepted(Accepted {
                line: "checkout.latency:42|ms|#region:eu".into(),
                series: "checkout_latency_seconds{region=\"eu\"}".into(),
                kind: "summary".into(),
                samples: 1,
                quantile: Some(Quantile { q: 0.5, value: 0.042, bound: 0.01 }),
                note: "checkout.latency in ms".into(),
                ..Accepted::default()
            }),
            LineOutcome::Accepted(Accepted {
                series: "events_total{event=\"order\"}".into(),
                kind: "counter".into(),
                samples: 1,
                value: Some(1.0),
                ..Accepted::default()
            }),
            LineOutcome::Refused(Refused {
                line: "load:1,2|d".into(),
                reason: "bad_value".into(),
                hint: "\"1,2\" is not a number; values are packed with \":\", as in 1:2".into(),
            }),
        ];
        let waiting = Accepted { line: "a:1|c".into(), samples: 1, committed: Some(false), ..Accepted::default() };
        let json = serde_json::to_string(&LineOutcome::Accepted(waiting)).unwrap();
        assert!(json.ends_with(",\"committed\":false}"), "{json}");
        assert_eq!(table(&parse(json.as_bytes()).unwrap(), false).split_whitespace().last(), Some("yet"));
        let expected = "\
checkout_latency_seconds{region=\"eu\"}   summary   1 sample, p50 0.042 ±1 %     (checkout.latency in ms)
events_total{event=\"order\"}             counter   1
refused  load:1,2|d                     \"1,2\" is not a number; values are packed with \":\", as in 1:2
";
        assert_eq!(table(&outcomes, false), expected);
        assert!(table(&outcomes, true).contains("\u{1b}[31mrefused\u{1b}[0m  load"));
    }

    #[test]
    fn answers_are_read_back_as_they_are_written() {
        let outcomes = vec![
            LineOutcome::Refused(Refused { line: "x".into(), reason: "malformed".into(), hint: "h".into() }),
            LineOutcome::Accepted(Accepted {
                line: "a:1|c".into(),
                series: "a_total".into(),
                kind: "counter".into(),
                samples: 1,
                ..Accepted::default()
            }),
        ];
        let mut ndjson = Vec::new();
        for outcome in &outcomes {
            serde_json::to_writer(&mut ndjson, outcome).unwrap();
            ndjson.push(b'\n');
        }
        assert_eq!(parse(&ndjson).unwrap(), outcomes);
        assert!(parse(b"<html>").is_err());
        // An empty window has no quantile that JSON could carry.
        let empty = Accepted {
            samples: 2,
            quantile: Some(Quantile { q: 0.5, value: f64::NAN, bound: 0.01 }),
            ..Accepted::default()
        };
        let read = parse(&serde_json::to_vec(&LineOutcome::Accepted(empty)).unwrap()).unwrap();
        assert!(matches!(&read[0], LineOutcome::Accepted(accepted) if value_of(accepted) == "2 samples"));
        // A median of 0 has a bound that JSON cannot carry either.
        let zero = Accepted {
            samples: 1,
            quantile: Some(Quantile { q: 0.5, value: 0.0, bound: f64::INFINITY }),
            ..Accepted::default()
        };
        let read = parse(&serde_json::to_vec(&LineOutcome::Accepted(zero)).unwrap()).unwrap();
        assert!(matches!(&read[0], LineOutcome::Accepted(accepted) if value_of(accepted) == "1 sample, p50 0"));
    }
}
