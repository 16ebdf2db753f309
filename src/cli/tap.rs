//! `tap`: what passes an edge of a running instance, as it passes.
//!
//! In: kinds, edges, filters. Out: one row an item on stdout; on stderr which edges matched and what was left out.
//! Invariants: an item that passed the filter is shown or counted; an interrupt is a clean end.

use super::client::{Client, Followed, encoded};
use super::{Exit, show};
use crate::pipeline::tap::{Figures, TAP_LIMIT, TapLine};
use crate::shard::tap::TapKind;
use anyhow::Context;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::ops::ControlFlow;
use std::time::Duration;

/// The verb's arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Tap {
    /// Edges to look at, as patterns with * and ?: names of sources, and `store` for deltas [default: all but internal]
    #[arg(value_name = "EDGE")]
    edges: Vec<String>,
    /// What to look at; several between commas
    #[arg(long, short, value_enum, value_delimiter = ',', default_value = "samples", value_name = "KIND,...")]
    kind: Vec<Kind>,
    /// Names to show, as a pattern with * and ?: of metrics for samples and deltas, as sent for events and rejects
    #[arg(long, value_name = "PATTERN")]
    name: Option<String>,
    /// PromQL selector of what to show: conditions on labels, tags or fields, as in {region="eu",code=~"5.."}
    #[arg(long = "match", value_name = "SELECTOR")]
    selector: Option<String>,
    /// Items a second to show, at most 5000; how many were left out is stated
    #[arg(long, default_value_t = TAP_LIMIT, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=5000))]
    limit: u32,
    /// End after so many items
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End after so many seconds
    #[arg(long, value_name = "S", value_parser = seconds)]
    seconds: Option<Duration>,
    /// How to show it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The same as --format json: one object a line, what was left out among them
    #[arg(long, conflicts_with = "format")]
    json: bool,
    /// Show items only: neither edges nor what was left out
    #[arg(long, short)]
    quiet: bool,
}

/// What to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Input that was understood, as it was sent
    Events,
    /// The values of series that it came to
    Samples,
    /// What each commit adds to each series
    Deltas,
    /// Input that was refused, with the reason
    Rejects,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Events => TapKind::Events.as_str(),
            Kind::Samples => TapKind::Samples.as_str(),
            Kind::Deltas => TapKind::Deltas.as_str(),
            Kind::Rejects => TapKind::Rejects.as_str(),
        }
    }
}

/// How items are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// One row an item, for people
    Text,
    /// One JSON object a line, as the instance sends them
    Json,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().map_err(|_| "takes a number of seconds".to_owned())?;
    let is_in = seconds > 0.0 && seconds <= 1e9;
    if is_in { Ok(Duration::from_secs_f64(seconds)) } else { Err("takes a number of seconds above 0".into()) }
}

/// What came so far.
#[derive(Default)]
struct Seen {
    shown: u64,
    left_out: u64,
    /// The instance said that it is over, and why.
    end: Option<String>,
    /// It went away without a word.
    is_cut: bool,
}

impl Tap {
    /// Shows items until the end.
    pub(super) fn run(&self, client: &Client) -> anyhow::Result<Exit> {
        let mut seen = Seen::default();
        let mut out = std::io::stdout().lock();
        let is_coloured = show::is_coloured(&out);
        let followed = client.follow(&self.path(), self.seconds, |line| {
            self.take(line, &mut seen, &mut out, is_coloured)?;
            Ok(if seen.end.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        let exit = match followed {
            Followed::Refused(reply) => {
                let is_wrong = matches!(reply.status, 400 | 404);
                let problem = match reply.expect_ok() {
                    Ok(_) => "the instance answered something else".to_owned(),
                    Err(problem) => problem.to_string(),
                };
                eprintln!("hydrograph: {problem}");
                return Ok(if is_wrong { Exit::Usage } else { Exit::Failed });
            }
            Followed::Ended => {
                seen.end = Some(format!("{} went away", client.target()));
                seen.is_cut = true;
                Exit::Failed
            }
            Followed::Taken | Followed::Interrupted | Followed::TimeIsOver => Exit::Done,
        };
        if !self.quiet {
            let is_whole = seen.end.is_some() && !seen.is_cut;
            let why = seen.end.map(|reason| format!(": {reason}")).unwrap_or_default();
            eprintln!("tap ended{why}; {}", counts(seen.shown, seen.left_out, is_whole));
        } else if exit == Exit::Failed {
            eprintln!("hydrograph: {} went away", client.target());
        }
        Ok(exit)
    }

    fn path(&self) -> String {
        let kinds: Vec<&str> = self.kind.iter().map(|kind| kind.word()).collect();
        let mut path = format!("/api/v1/tap?kind={}&limit={}", kinds.join(","), self.limit);
        let named = [("name", &self.name), ("match", &self.selector)];
        let given = named.into_iter().filter_map(|(key, value)| Some((key, value.as_ref()?)));
        for (key, value) in self.edges.iter().map(|edge| ("edge", edge)).chain(given) {
            let _ = write!(path, "&{key}={}", encoded(value));
        }
        if let Some(count) = self.count {
            let _ = write!(path, "&count={count}");
        }
        path
    }

    /// One line of the answer.
    fn take(&self, line: &[u8], seen: &mut Seen, out: &mut impl Write, is_coloured: bool) -> anyhow::Result<()> {
        let read: TapLine =
            serde_json::from_slice(line).context("the answer is not what `tap` reads; is it the same version?")?;
        let is_item = match &read {
            TapLine::Open { edges, unmatched, limit, .. } => {
                if !self.quiet {
                    let names: Vec<String> = edges.iter().map(|edge| show::foreign(&edge.edge)).collect();
                    eprintln!("tapping {}, at most {limit} items a second", names.join(", "));
                    for pattern in unmatched {
                        eprintln!("no edge matches {}", show::foreign(pattern));
                    }
                }
                false
            }
            TapLine::LeftOut { seconds, limit, queue } => {
                seen.left_out += limit + queue;
                if !self.quiet && !self.is_json() {
                    eprintln!("{}", left_out(*seconds, *limit, *queue, self.limit));
                }
                false
            }
            TapLine::End { reason, shown, left_out_by_limit, left_out_by_queue } => {
                // What came after the last report is only in here.
                (seen.shown, seen.left_out) = (*shown, left_out_by_limit + left_out_by_queue);
                seen.end = Some(show::foreign(reason));
                false
            }
            _ => true,
        };
        seen.shown += u64::from(is_item);
        if self.is_json() && (is_item || !self.quiet) {
            out.write_all(line)?;
            out.write_all(b"\n")?;
            out.flush()?;
        } else if is_item {
            out.write_all(row(&read, is_coloured).as_bytes())?;
            out.flush()?;
        }
        Ok(())
    }

    fn is_json(&self) -> bool {
        self.json || self.format == Format::Json
    }
}

/// What was left out after the last report is known only if the instance said that it is over.
fn counts(shown: u64, left_out: u64, is_whole: bool) -> String {
    let items = if shown == 1 { "item" } else { "items" };
    let so_far = if is_whole { "" } else { " up to the last report" };
    match left_out {
        0 => format!("{shown} {items} shown, none left out{so_far}"),
        _ => format!("{shown} {items} shown, {left_out} left out{so_far}"),
    }
}

fn left_out(seconds: f64, limit: u64, queue: u64, per_second: u32) -> String {
    let mut reasons = Vec::new();
    if limit > 0 {
        reasons.push(format!("{limit} beyond {per_second} a second"));
    }
    if queue > 0 {
        reasons.push(format!("{queue} because this reader is too slow"));
    }
    format!("left out in {seconds:.1} s: {}", reasons.join(", "))
}

/// The time of day in UTC: of `2026-11-20T12:00:00.250Z` the middle.
fn clock(time: &str) -> &str {
    time.split_once('T').map_or(time, |(_, clock)| clock.trim_end_matches('Z'))
}

fn series(metric: &str, labels: &BTreeMap<String, String>) -> String {
    if labels.is_empty() {
        return show::foreign(metric);
    }
    let pairs: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")))
        .collect();
    show::foreign(&format!("{metric}{{{}}}", pairs.join(",")))
}

/// One row for a person: time, edge, what it is.
fn row(line: &TapLine, is_coloured: bool) -> String {
    let text = match line {
        TapLine::Event { time, edge, text, .. } => {
            format!("{} {}  {}", clock(time), show::foreign(edge), show::foreign(text))
        }
        TapLine::Sample { time, edge, metric, labels, value, op, weight, member, dropped, is } => {
            let value = match (value, member) {
                (Some(value), _) if op.is_some() && *value >= 0.0 => format!("+{}", show::number(*value)),
                (Some(value), _) if is == "counter" => format!("+{}", show::number(*value)),
                (Some(value), _) => show::number(*value),
                (None, Some(member)) => format!("member {}", show::foreign(member)),
                (None, None) => "NaN".to_owned(),
            };
            let weight = weight.map(|weight| format!(" ×{}", show::number(weight))).unwrap_or_default();
            let dropped = dropped.as_ref().map(|reason| format!("  dropped: {}", show::foreign(reason)));
            let dropped = dropped.unwrap_or_default();
            format!("{} {}  {} {value}{weight}{dropped}", clock(time), show::foreign(edge), series(metric, labels))
        }
        TapLine::Delta { time, edge, commit, slice, metric, labels, figures, .. } => format!(
            "{} {}  {} {}  (commit {commit}, slice {})",
            clock(time),
            show::foreign(edge),
            series(metric, labels),
            figures_of(figures),
            clock(slice),
        ),
        TapLine::Reject { time, edge, reason, hint, text } => {
            let refused = if is_coloured { "\u{1b}[31mrefused\u{1b}[0m" } else { "refused" };
            format!(
                "{} {}  {refused} {}  {}  ({})",
                clock(time),
                show::foreign(edge),
                show::foreign(reason),
                show::foreign(text),
                show::foreign(hint)
            )
        }
        TapLine::Open { .. } | TapLine::LeftOut { .. } | TapLine::End { .. } => return String::new(),
    };
    format!("{text}\n")
}

fn figures_of(figures: &Figures) -> String {
    let named = [("sum", figures.sum), ("value", figures.value), ("min", figures.min), ("max", figures.max)];
    let count = figures.count.map(|count| format!("count {count}"));
    let others = named.into_iter().filter_map(|(name, value)| Some(format!("{name} {}", show::number(value?))));
    count.into_iter().chain(others).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        tap: Tap,
    }

    fn parse(arguments: &[&str]) -> Result<Tap, clap::Error> {
        Line::try_parse_from([&["tap"], arguments].concat()).map(|line| line.tap)
    }

    #[test]
    fn arguments_become_a_request() {
        assert_eq!(parse(&[]).expect("fine").path(), "/api/v1/tap?kind=samples&limit=100");
        let all = ["app*", "-k", "events,deltas", "--name", "a b", "--match", "{x=\"1\"}", "--limit", "5", "-n", "3"];
        assert_eq!(
            parse(&all).expect("fine").path(),
            "/api/v1/tap?kind=events,deltas&limit=5&edge=app*&name=a%20b&match=%7Bx%3D%221%22%7D&count=3"
        );
        assert!(parse(&["--json"]).expect("fine").is_json() && parse(&["--format", "json"]).expect("fine").is_json());
        for wrong in [
            &["--limit", "0"][..],
            &["--limit", "5001"],
            &["-n", "0"],
            &["-k", "all"],
            &["--seconds", "0"],
            &["--seconds", "x"],
            &["--json", "--format", "text"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn rows_for_people() {
        let check = |json: &str, expected: &str| {
            let line: TapLine = serde_json::from_str(json).unwrap_or_else(|e| panic!("{e}: {json}"));
            assert_eq!(row(&line, false), format!("{expected}\n"));
        };
        check(
            r#"{"kind":"event","time":"2026-11-20T12:00:00.250Z","edge":"app","name":"a","text":"a:1|c\u001b"}"#,
            "12:00:00.250 app  a:1|c\\u{1b}",
        );
        check(
            r#"{"kind":"sample","time":"2026-11-20T12:00:00.250Z","edge":"app","type":"distribution",
                "metric":"took_seconds","labels":{"region":"e\"u"},"value":0.042,"weight":2}"#,
            "12:00:00.250 app  took_seconds{region=\"e\\\"u\"} 0.042 ×2",
        );
        check(
            r#"{"kind":"sample","time":"2026-11-20T12:00:00.250Z","edge":"app","type":"counter",
                "metric":"orders_total","labels":{},"value":3,"dropped":"too_late"}"#,
            "12:00:00.250 app  orders_total +3  dropped: too_late",
        );
        check(
            r#"{"kind":"sample","time":"2026-11-20T12:00:00.250Z","edge":"app","type":"set","metric":"users",
                "labels":{},"value":null,"member":"00ff"}"#,
            "12:00:00.250 app  users member 00ff",
        );
        check(
            r#"{"kind":"delta","time":"2026-11-20T12:00:01.000Z","edge":"store","commit":7,
                "slice":"2026-11-20T12:00:00.000Z","type":"distribution","metric":"took_seconds","labels":{},
                "count":2,"sum":0.5,"min":0.1,"max":0.4}"#,
            "12:00:01.000 store  took_seconds count 2 sum 0.5 min 0.1 max 0.4  (commit 7, slice 12:00:00.000)",
        );
        check(
            r#"{"kind":"reject","time":"2026-11-20T12:00:00.250Z","edge":"app","reason":"bad_value","hint":"no","text":"x"}"#,
            "12:00:00.250 app  refused bad_value  x  (no)",
        );
    }

    #[test]
    fn what_was_left_out_is_said() {
        assert_eq!(left_out(1.0, 900, 0, 100), "left out in 1.0 s: 900 beyond 100 a second");
        assert_eq!(
            left_out(2.04, 900, 3, 100),
            "left out in 2.0 s: 900 beyond 100 a second, 3 because this reader is too slow"
        );
        assert_eq!(counts(1, 0, true), "1 item shown, none left out");
        assert_eq!(counts(2, 5, true), "2 items shown, 5 left out");
        assert_eq!(counts(0, 0, false), "0 items shown, none left out up to the last report");
    }
}
