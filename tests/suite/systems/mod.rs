//! The acceptance list of the five systems, row by row: events in by a client, names, types, labels, units, values out.
//!
//! In: `pipelines/*.toml` run by the real binary (or by [`hydrograph::Pipeline`] where a row is about the crate), and
//! `rows.txt`, the list. Out: `docs/systems.md`, which says of each row what met it; `HYDROGRAPH_BLESS=1` writes it.
//! Invariant: a row is met when every check under its number held, waits for a later issue, or is named in [`PENDING`]
//! with its reason; a pending row that holds is an error as well, so that the list only ever tells the truth.

mod digital_actors;
mod dinoair;
mod dreamos;
mod llm;
mod running;
mod vision;

use crate::harness::Scrape;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Debug, Write as _};
use std::path::Path;
use std::sync::OnceLock;

pub(crate) use running::{System, embedded};

/// Every row: number and what the page promises.
const LIST: &str = include_str!("rows.txt");

/// Rows that later work meets.
const LATER: &[(&str, &[&str])] = &[
    (
        "retained history",
        &["D34", "D37", "D38", "D39", "D45", "D46", "D47", "D48", "D49", "D50", "D60", "D68", "O43", "A29"],
    ),
    (
        "dashboards and the compose file",
        &[
            "A16", "A17", "A18", "A19", "A20", "A21", "A22", "A23", "A24", "A25", "A26", "A27", "O31", "O32", "O33",
            "O34", "O35", "V46",
        ],
    ),
    ("the dashboard page", &["D53", "D54", "D55", "D56", "D57", "D58"]),
    ("delivery of alerts", &["D65", "O38", "O39", "O40", "O41"]),
    ("the audit log", &["O44"]),
];

/// Rows that do not hold yet, with the cause.
const PENDING: &[(&str, &str)] = &[];

fn pending(id: &str) -> Option<&'static str> {
    PENDING.iter().find(|(row, _)| *row == id).map(|(_, why)| *why)
}

/// What a run found of one system's rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    met: BTreeMap<String, String>,
    broken: BTreeMap<String, Vec<String>>,
}

impl Rows {
    /// Checks one row; `by` says what meets it. A row may be checked in several places and is met when all held.
    pub(crate) fn row(&mut self, id: &str, by: &str, check: impl FnOnce(&mut Check)) {
        let mut found = Check::default();
        check(&mut found);
        assert!(found.count > 0, "{id} asserts nothing");
        if found.failures.is_empty() {
            let said = self.met.entry(id.to_owned()).or_default();
            if !said.is_empty() {
                said.push_str("; ");
            }
            said.push_str(by);
        } else {
            self.broken.entry(id.to_owned()).or_default().append(&mut found.failures);
        }
    }

    /// The rows that hold; panics with every row that does not and is not known not to.
    fn judge(&self) {
        let mut words = String::new();
        for (id, failures) in self.broken.iter().filter(|(id, _)| pending(id).is_none()) {
            let _ = writeln!(words, "{id}:\n  {}", failures.join("\n  "));
        }
        for id in self.met.keys().filter(|id| pending(id).is_some() && !self.broken.contains_key(*id)) {
            let _ = writeln!(words, "{id} holds and is still in PENDING");
        }
        assert!(words.is_empty(), "rows of the list:\n{words}");
    }
}

/// The checks of one row; all are made, so that a failure shows everything that is wrong.
#[derive(Default)]
pub(crate) struct Check {
    count: usize,
    failures: Vec<String>,
}

impl Check {
    pub(crate) fn that(&mut self, what: &str, holds: bool) {
        self.count += 1;
        if !holds {
            self.failures.push(what.to_owned());
        }
    }

    pub(crate) fn equal<T: PartialEq + Debug>(&mut self, what: &str, found: T, wanted: T) {
        let holds = found == wanted;
        self.that(&format!("{what}: {found:?}, not {wanted:?}"), holds);
    }

    /// Within a part in a billion: for what a float computed.
    pub(crate) fn near(&mut self, what: &str, found: Option<f64>, wanted: f64) {
        let holds = found.is_some_and(|found| (found - wanted).abs() <= 1e-9 * wanted.abs().max(1.0));
        self.that(&format!("{what}: {found:?}, not {wanted}"), holds);
    }

    /// One series has exactly these labels and this value.
    pub(crate) fn value(&mut self, scrape: &Scrape, name: &str, labels: &[(&str, &str)], wanted: f64) {
        let found = scrape.value(name, labels);
        let others: Vec<_> = scrape.named(name).map(|(series, value)| (&series.labels, value)).take(8).collect();
        self.that(&format!("{name}{labels:?}: {found:?}, not {wanted}; there is {others:?}"), found == Some(wanted));
    }

    /// A family has this type, a help, and series with exactly these label names.
    pub(crate) fn family(&mut self, scrape: &Scrape, name: &str, kind: &str, labels: &[&str]) {
        self.equal(&format!("type of {name}"), scrape.types.get(name).map(String::as_str), Some(kind));
        self.that(&format!("{name} has no help"), scrape.helps.get(name).is_some_and(|help| !help.is_empty()));
        let mut wanted: Vec<&str> = labels.to_vec();
        wanted.sort_unstable();
        let series = match kind {
            "histogram" | "summary" => format!("{name}_count"),
            _ => name.to_owned(),
        };
        let mut seen = 0;
        for (series, _) in scrape.named(&series) {
            seen += 1;
            let found: Vec<&str> = series.labels.keys().map(String::as_str).collect();
            if found != wanted {
                self.failures.push(format!("{series:?} is not labelled by {wanted:?}"));
            }
        }
        self.that(&format!("{name} has no series"), seen > 0);
    }

    /// The bounds of a histogram, without `+Inf`.
    pub(crate) fn buckets(&mut self, scrape: &Scrape, name: &str, wanted: &[f64]) {
        let series = format!("{name}_bucket");
        let bounds: BTreeSet<String> = scrape.named(&series).map(|(series, _)| series.labels["le"].clone()).collect();
        let mut bounds: Vec<f64> =
            bounds.iter().filter_map(|le| le.parse().ok()).filter(|le: &f64| le.is_finite()).collect();
        bounds.sort_by(f64::total_cmp);
        self.equal(&format!("bounds of {name}"), bounds, wanted.to_vec());
    }

    /// A histogram's whole series: count, sum, and how many lie at or below a bound.
    pub(crate) fn histogram(
        &mut self,
        scrape: &Scrape,
        name: &str,
        labels: &[(&str, &str)],
        (count, sum): (f64, f64),
        below: &[(&str, f64)],
    ) {
        self.value(scrape, &format!("{name}_count"), labels, count);
        self.value(scrape, &format!("{name}_sum"), labels, sum);
        for (bound, wanted) in below {
            let mut with_bound = labels.to_vec();
            with_bound.push(("le", bound));
            self.value(scrape, &format!("{name}_bucket"), &with_bound, *wanted);
        }
    }
}

/// The latency list of the vision page.
pub(crate) const LATENCY: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// Its size list.
pub(crate) const SIZE: &[f64] = &[1024.0, 10_240.0, 102_400.0, 1_048_576.0, 10_485_760.0];
/// Its list for percentages.
pub(crate) const RATIO: &[f64] = &[0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 0.99, 1.0];

type Run = fn() -> Rows;
const SYSTEMS: [(&str, Run); 5] = [
    ("dinoair", dinoair::rows),
    ("dreamos", dreamos::rows),
    ("vision", vision::rows),
    ("llm", llm::rows),
    ("digital_actors", digital_actors::rows),
];

/// Each system runs once, for its own test and for the table.
fn found(system: usize) -> &'static Rows {
    static FOUND: [OnceLock<Rows>; 5] = [const { OnceLock::new() }; 5];
    FOUND[system].get_or_init(SYSTEMS[system].1)
}

#[test]
fn dinoair_rows() {
    found(0).judge();
}

#[test]
fn dreamos_rows() {
    found(1).judge();
}

#[test]
fn vision_rows() {
    found(2).judge();
}

#[test]
fn llm_rows() {
    found(3).judge();
}

#[test]
fn digital_actors_rows() {
    found(4).judge();
}

/// Every row of the list is met, waits for a later issue, or is known not to hold; the table in the docs says so.
#[test]
fn every_row_is_met_or_named() {
    let mut met: BTreeMap<&str, String> = BTreeMap::new();
    for (at, (name, _)) in SYSTEMS.iter().enumerate() {
        let rows = found(at);
        for (id, by) in rows.met.iter().filter(|(id, _)| !rows.broken.contains_key(*id)) {
            met.insert(id, format!("`systems::{name}`: {by}"));
        }
    }
    let mut table = String::from(
        "# The five systems, row by row\n\n\
         Generated by `systems::every_row_is_met_or_named` of the test suite (`HYDROGRAPH_BLESS=1` writes it again): what each\n\
         row of the acceptance list is met by. Beside these rows, `tests/services/systems.rs` runs a short Python program with\n\
         stock clients for each system, and Debian's promtool on the rule files.\n\n\
         | row | what | met by |\n|---|---|---|\n",
    );
    let mut missing = Vec::new();
    let mut known = BTreeSet::new();
    let escape = |text: &str| text.replace('|', "\\|");
    for line in LIST.lines() {
        let (id, what) = line.split_once(" | ").expect("a row is a number and its words");
        known.insert(id);
        let later = LATER.iter().find(|(_, rows)| rows.contains(&id)).map(|(why, _)| *why);
        let by = match (met.get(id), later, pending(id)) {
            (Some(by), None, _) => by.clone(),
            (Some(by), Some(later), _) => format!("{by}; the rest with {later}"),
            (None, _, Some(why)) => format!("**not yet**: {why}"),
            (None, Some(later), None) => format!("later: {later}"),
            (None, None, None) => {
                missing.push(id);
                continue;
            }
        };
        let _ = writeln!(table, "| {id} | {} | {} |", escape(what), escape(&by));
    }
    assert_eq!(known.len(), 227, "the list is whole");
    assert!(met.keys().all(|id| known.contains(id)), "a row that the list does not have: {:?}", met.keys());
    assert!(missing.is_empty(), "neither met nor named: {missing:?}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/systems.md");
    if std::env::var_os("HYDROGRAPH_BLESS").is_some_and(|v| v == "1") {
        std::fs::write(&path, table).expect("writable");
        return;
    }
    let expected = std::fs::read_to_string(&path).expect("present; HYDROGRAPH_BLESS=1 writes it");
    assert_eq!(table, expected, "docs/systems.md is not what the run found; HYDROGRAPH_BLESS=1 writes it");
}
