//! `query`: the value of an expression, now, at a time, or over a range of times.
//!
//! In: PromQL and times. Out: a table for people, or the instance's JSON. Invariants: quantiles say how right they are; an
//! expression that is wrong ends with 2, whatever else goes wrong with 1.

use super::client::{Client, Reply};
use super::moment::{Moment, epoch, span};
use super::{Exit, show};
use crate::event::Timestamp;
use crate::event::time::rfc3339;
use anyhow::Context;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write;

/// Rows of a range where nobody says the step.
const ROWS: i64 = 60;

/// The verb's arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Query {
    /// PromQL
    #[arg(value_name = "EXPR")]
    expression: String,
    /// When: RFC 3339, seconds since 1970, or -1h [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, conflicts_with_all = ["start", "end", "step"])]
    time: Option<Moment>,
    /// The first time of a range
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    start: Option<Moment>,
    /// Its last time [default: now]
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, requires = "start")]
    end: Option<Moment>,
    /// Between two of its times: 30s, 5m [default: a sixtieth of the range]
    #[arg(long, value_name = "SPAN", value_parser = span, requires = "start")]
    step: Option<i64>,
    /// Print the instance's answer as it is
    #[arg(long)]
    json: bool,
}

impl Query {
    /// Asks and prints.
    pub(super) fn run(&self, client: &Client) -> anyhow::Result<Exit> {
        let mut fields = vec![("query", self.expression.clone())];
        let path = match self.start {
            None => {
                fields.extend(self.time.map(|time| ("time", epoch(time.time()))));
                "/api/v1/query"
            }
            Some(start) => {
                let (start, end) = (start.time(), self.end.unwrap_or(Moment::Ago(0)).time());
                let whole = 1_000_000_000;
                let step = self.step.unwrap_or_else(|| ((end.0 - start.0) / ROWS / whole + 1) * whole);
                fields.extend([("start", epoch(start)), ("end", epoch(end)), ("step", epoch(Timestamp(step)))]);
                "/api/v1/query_range"
            }
        };
        let fields: Vec<(&str, &str)> = fields.iter().map(|(key, value)| (*key, value.as_str())).collect();
        let reply = client.post_form(path, &fields)?;
        if reply.status != 200 {
            return Ok(refused(reply));
        }
        let mut out = std::io::stdout().lock();
        if self.json {
            out.write_all(&reply.body)?;
            out.write_all(b"\n")?;
            return Ok(Exit::Done);
        }
        let answer: Value = serde_json::from_slice(&reply.body).context("the answer is not what `query` reads")?;
        out.write_all(table(&answer["data"]).as_bytes())?;
        for warning in answer["warnings"].as_array().into_iter().flatten() {
            eprintln!("hydrograph: {}", show::foreign(warning.as_str().unwrap_or("")));
        }
        Ok(Exit::Done)
    }
}

/// Says why there is no answer.
fn refused(reply: Reply) -> Exit {
    let is_wrong = reply.status == 400;
    let problem = match reply.expect_ok() {
        Ok(_) => "the instance answered something else".to_owned(),
        Err(problem) => problem.to_string(),
    };
    eprintln!("hydrograph: {problem}");
    if is_wrong { Exit::Usage } else { Exit::Failed }
}

/// `name{label="value"}`
fn series(metric: &Value) -> String {
    let mut labels = Vec::new();
    let mut name = "";
    for (key, value) in metric.as_object().into_iter().flatten() {
        match (key.as_str(), value.as_str().unwrap_or("")) {
            ("__name__", value) => name = value,
            (key, value) => labels.push(format!("{key}={value:?}")),
        }
    }
    show::foreign(&match (name, labels.is_empty()) {
        (name, false) => format!("{name}{{{}}}", labels.join(",")),
        ("", true) => "{}".to_owned(),
        (name, true) => name.to_owned(),
    })
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// A value, or what a histogram comes to.
fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => format!("count {} sum {}", text(&value["count"]), text(&value["sum"])),
        value => text(value).to_owned(),
    }
}

/// `±1 %, 1200 samples in 300 s`, and what was late or clamped.
fn quality(quality: &Value) -> String {
    let number = |key: &str| text(&quality[key]).parse::<f64>().unwrap_or(f64::NAN);
    let (bound, count, seconds) = (number("bound"), number("count"), number("seconds"));
    let mut out = String::new();
    if bound.is_finite() {
        let _ = write!(out, "±{} %", show::number((bound * 1e4).round() / 1e2));
    }
    if count.is_finite() {
        let comma = if out.is_empty() { "" } else { ", " };
        let _ = write!(out, "{comma}{} samples", show::number((count * 1e3).round() / 1e3));
    }
    if seconds.is_finite() {
        let _ = write!(out, " in {} s", show::number(seconds));
    }
    for key in ["late", "clamped"] {
        if let Some(many) = quality[key].as_u64().filter(|many| *many > 0) {
            let _ = write!(out, ", {many} {key}");
        }
    }
    if out.is_empty() { out } else { format!("   ({out})") }
}

/// The time of a point.
fn time(value: &Value) -> String {
    rfc3339(Timestamp((value.as_f64().unwrap_or(0.0) * 1e3).round() as i64 * 1_000_000))
}

/// The data of an answer for people: a row a series, or under each series a row a point.
fn table(data: &Value) -> String {
    let result = &data["result"];
    let mut out = String::new();
    match text(&data["resultType"]) {
        "scalar" | "string" => {
            let _ = writeln!(out, "{}", show::foreign(text(&result[1])));
        }
        "vector" => {
            let rows: Vec<(String, String, String)> = result
                .as_array()
                .into_iter()
                .flatten()
                .map(|one| {
                    let pair = one.get("value").or(one.get("histogram")).unwrap_or(&Value::Null);
                    (series(&one["metric"]), shown(&pair[1]), quality(&one["quality"]))
                })
                .collect();
            let width = rows.iter().map(|(series, ..)| series.chars().count()).max().unwrap_or(0);
            for (series, value, quality) in rows {
                let _ = writeln!(out, "{series:<width$}   {value}{quality}");
            }
        }
        _ => {
            for one in result.as_array().into_iter().flatten() {
                let _ = writeln!(out, "{}", series(&one["metric"]));
                let mut qualities = one["quality"].as_array().into_iter().flatten().peekable();
                for point in
                    ["values", "histograms"].into_iter().flat_map(|key| one[key].as_array().into_iter().flatten())
                {
                    let own = qualities.next_if(|quality| quality[0] == point[0]).map(|found| quality(&found[1]));
                    let _ = writeln!(out, "  {}   {}{}", time(&point[0]), shown(&point[1]), own.unwrap_or_default());
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        query: Query,
    }

    fn parse(arguments: &[&str]) -> Result<Query, clap::Error> {
        Line::try_parse_from([&["query"], arguments].concat()).map(|line| line.query)
    }

    #[test]
    fn times_belong_together() {
        assert!(parse(&["x", "--time", "-1h"]).is_ok());
        assert!(parse(&["x", "--start", "-6h", "--end", "now", "--step", "5m"]).is_ok());
        for wrong in [
            &[][..],
            &["x", "--time", "-1h", "--start", "-2h"],
            &["x", "--end", "now"],
            &["x", "--step", "5m"],
            &["x", "--start", "soon"],
            &["x", "--start", "-1h", "--step", "0"],
        ] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn tables_for_people() {
        let quality = json!({"bound": "0.01", "count": "1200", "seconds": "300", "late": 2, "clamped": 0});
        let data = json!({"resultType": "vector", "result": [
            {"metric": {"__name__": "x", "a": "b\"c\u{1b}"}, "value": [1, "0.5"], "quality": quality},
            {"metric": {}, "histogram": [1, {"count": "3", "sum": "0.5"}]},
        ]});
        let expected = "x{a=\"b\\\"c\\u{1b}\"}   0.5   (±1 %, 1200 samples in 300 s, 2 late)\n\
                        {}                  count 3 sum 0.5\n";
        assert_eq!(table(&data), expected);
        let data = json!({"resultType": "matrix", "result": [
            {"metric": {"__name__": "x"}, "values": [[1, "1"], [2.5, "2"]], "quality": [[2.5, quality]]},
        ]});
        let expected =
            "x\n  1970-01-01T00:00:01Z   1\n  1970-01-01T00:00:02.5Z   2   (±1 %, 1200 samples in 300 s, 2 late)\n";
        assert_eq!(table(&data), expected);
        assert_eq!(table(&json!({"resultType": "scalar", "result": [1, "NaN"]})), "NaN\n");
    }
}
