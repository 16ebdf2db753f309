//! What a plan shows and tests: widgets, panels, rule files, tests. Expressions stay texts: whoever evaluates them parses.
//!
//! Invariant: every expression here was parsed once, so it has no syntax error; names, limits and colours are in range.

use std::path::PathBuf;

/// `[widgets.NAME]`: a JSON object whose leaves are expressions.
#[derive(Clone, Debug, PartialEq)]
pub struct WidgetPlan {
    /// Its name in `/api/metrics/dashboard?widget=NAME`.
    pub name: String,
    /// In the order of the file; the keys that lead to each leaf, at least one. No path begins with another.
    pub leaves: Vec<(Vec<String>, WidgetLeaf)>,
}

/// A leaf of a widget.
#[derive(Clone, Debug, PartialEq)]
pub enum WidgetLeaf {
    /// `"EXPR"` or `{ expr = "EXPR", key = "LABEL" }`: values now.
    Value {
        /// PromQL.
        expr: String,
        /// The label by which several series are told apart; `None`: the expression is meant to give one.
        key: Option<String>,
    },
    /// `{ series = "EXPR", key = "LABEL" }`: points over the timeframe.
    Series {
        /// PromQL.
        expr: String,
        /// The label by which several series are told apart.
        key: Option<String>,
    },
    /// `{ events = "NAME", limit = 20 }`: kept events, newest first.
    Events {
        /// Names of events; at least one, each of which keeps some.
        events: Vec<String>,
        /// In `1..=1000`.
        limit: u32,
    },
}

/// `[[panels]]`
#[derive(Clone, Debug, PartialEq)]
pub struct PanelPlan {
    /// Not empty.
    pub title: String,
    /// Panels of one row stand together; `None`: before the first row.
    pub row: Option<String>,
    /// How it is drawn.
    pub kind: PanelKind,
    /// As Grafana writes units (`s`, `bytes`, `percent`, `percentunit`, `reqps`).
    pub unit: Option<String>,
    /// At least one: its name, where several stand in one panel, and PromQL.
    pub exprs: Vec<(Option<String>, String)>,
    /// How a series is named, with `{{label}}` in it.
    pub legend: Option<String>,
    /// Ascending.
    pub thresholds: Vec<Threshold>,
}

/// How a panel is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PanelKind {
    /// `line`
    Line,
    /// `gauge`
    Gauge,
    /// `stat`
    Stat,
    /// `bar`
    Bar,
    /// `stacked-bar`
    StackedBar,
    /// `table`
    Table,
}

impl PanelKind {
    /// All of them with their words.
    pub const ALL: [(&'static str, PanelKind); 6] = [
        ("line", PanelKind::Line),
        ("gauge", PanelKind::Gauge),
        ("stat", PanelKind::Stat),
        ("bar", PanelKind::Bar),
        ("stacked-bar", PanelKind::StackedBar),
        ("table", PanelKind::Table),
    ];

    /// The word of `kind`.
    pub fn as_str(self) -> &'static str {
        let found = Self::ALL.iter().find(|(_, kind)| *kind == self);
        found.map_or("line", |(word, _)| word)
    }
}

/// A colour from a value on.
#[derive(Clone, Debug, PartialEq)]
pub struct Threshold {
    /// Finite.
    pub above: f64,
    /// A name (`red`) or `#rrggbb`.
    pub color: String,
}

/// `[[tests]]`
#[derive(Clone, Debug, PartialEq)]
pub struct TestPlan {
    /// Not empty; unique in its file.
    pub name: String,
    /// Where it stands, `my.toml:120:1`.
    pub place: String,
    /// In the order of the file, which need not be that of time.
    pub input: Vec<TestInput>,
    /// At least one.
    pub expect: Vec<TestExpect>,
}

/// Something that happens in a test.
#[derive(Clone, Debug, PartialEq)]
pub struct TestInput {
    /// Nanoseconds after the start.
    pub at: i64,
    /// What.
    pub action: TestAction,
    /// The socket source at which a line arrives; `None`: the first that is switched on.
    pub source: Option<String>,
}

/// What happens in a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestAction {
    /// A DogStatsD line or a JSON event arrives.
    Line(String),
    /// The process is killed and started again on the same store.
    Kill,
    /// Another pipeline file takes over; the path is resolved.
    Reload(PathBuf),
}

/// What must hold in a test.
#[derive(Clone, Debug, PartialEq)]
pub struct TestExpect {
    /// Nanoseconds after the start.
    pub at: i64,
    /// PromQL.
    pub expr: String,
    /// What it must be.
    pub want: Want,
    /// Where it stands, `my.toml:121:12`.
    pub place: String,
}

/// What an expression must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Want {
    /// One series (or a scalar) with this value. NaN equals NaN.
    Value {
        /// The value.
        value: f64,
        /// How far it may be off, at least 0; `None`: equal up to 1e-9 of the value.
        tolerance: Option<f64>,
    },
    /// No series.
    Absent,
}
