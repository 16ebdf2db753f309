//! What is asked in PromQL of everything durable: values, ranges, and which series there are.
//!
//! In: a question, and how long it may take. Out: values with their quality, series, names. Owns nothing. Invariants: an
//! answer is of one commit; a question whose world the file has left behind meanwhile is asked again over a new one;
//! nothing takes longer than it may, but for what one read of the file takes.

use super::running::Pipeline;
use crate::event::{Clock, Kind, Labels, Timestamp};
use crate::query::series;
use crate::query::world::{Asked, World, Worlds};
use crate::query::{EvalError, Expression, Limits, ResultKind, Selector, Value, evaluate_range_until, evaluate_until};
use crate::rule::window_name;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often a question is asked over a new world before the file is said to change too fast.
const WORLDS_MAX: usize = 8;

/// What is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Question {
    /// The value of an expression at a time; `None` is now.
    Instant {
        /// PromQL.
        text: String,
        /// When.
        at: Option<Timestamp>,
    },
    /// Its values from `start` to `end`, every `step` nanoseconds.
    Range {
        /// PromQL.
        text: String,
        /// The first time.
        start: Timestamp,
        /// No time after this one.
        end: Timestamp,
        /// Nanoseconds, above 0.
        step: i64,
    },
    /// The series that selectors mean.
    Series(Meant),
    /// The names of their labels.
    LabelNames(Meant),
    /// The values of one label of theirs.
    LabelValues {
        /// The label.
        label: String,
        /// Of which series.
        meant: Meant,
    },
    /// What each family is: of one, or of all.
    Metadata {
        /// The only one that is asked for.
        family: Option<String>,
    },
}

/// Which series, and when they were there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meant {
    /// PromQL selectors; none is everything.
    pub selectors: Vec<String>,
    /// The first moment; `None` is the first there is.
    pub start: Option<Timestamp>,
    /// The last one; `None` is the last there is.
    pub end: Option<Timestamp>,
}

/// Labels with `__name__` among them, sorted by name.
pub type LabelSet = BTreeMap<String, String>;

/// What a family is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyWords {
    /// The exposed name.
    pub name: String,
    /// `counter`, `gauge`, `histogram`, `summary`.
    pub kind: &'static str,
    /// What it says of itself.
    pub help: String,
    /// Its unit, or nothing.
    pub unit: String,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Of an instant, which the time says, or of a range.
    Value(Value, Timestamp),
    /// Sorted, each once.
    Series(Vec<LabelSet>),
    /// Sorted, each once.
    Words(Vec<String>),
    /// Sorted by name.
    Families(Vec<FamilyWords>),
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The question is wrong.
    #[error("{0}")]
    Wrong(String),
    /// It meets a limit, or cannot be evaluated over what there is.
    #[error("{0}")]
    Failed(String),
    /// It takes longer than it may.
    #[error("the question takes longer than it may")]
    TimeIsOver,
    /// The file cannot be read.
    #[error("{0}")]
    Unreadable(String),
}

impl Pipeline {
    /// Answers a question about what is durable, within `patience`.
    ///
    /// # Errors
    /// [`Unanswered`].
    pub fn ask(&self, question: &Question, patience: Duration) -> Result<Answer, Unanswered> {
        let clock = self.clock();
        let end = clock.monotonic().saturating_add(i64::try_from(patience.as_nanos()).unwrap_or(i64::MAX));
        ask(self.worlds(), question, clock.wall(), &|| clock.monotonic() >= end)
    }
}

fn ask(worlds: &Worlds, question: &Question, now: Timestamp, is_over: &dyn Fn() -> bool) -> Result<Answer, Unanswered> {
    match question {
        Question::Instant { text, at } => {
            let at = at.unwrap_or(now);
            let expression = parse(text)?;
            let asked = Asked { expression: &expression, start: at, end: at };
            over(worlds, &[asked], &|world| evaluate_until(&expression, world, at, &Limits::default(), is_over))
                .map(|value| Answer::Value(value, at))
                .map_err(unanswered)
        }
        Question::Range { text, start, end, step } => {
            let expression = parse(text)?;
            let kind = match expression.kind() {
                ResultKind::Scalar | ResultKind::Vector => None,
                ResultKind::Range => Some("range vector"),
                ResultKind::String => Some("string"),
            };
            if let Some(kind) = kind {
                return Err(Unanswered::Wrong(format!(
                    "invalid expression type \"{kind}\" for range query, must be Scalar or instant Vector"
                )));
            }
            // One more than Prometheus says: it counts the steps between the times.
            let limits = Limits { steps: Limits::default().steps + 1, ..Limits::default() };
            let asked = Asked { expression: &expression, start: *start, end: *end };
            over(worlds, &[asked], &|world| {
                evaluate_range_until(&expression, world, *start, *end, *step, &limits, is_over)
            })
            .map(|value| Answer::Value(value, *end))
            .map_err(unanswered)
        }
        Question::Series(meant) => {
            let mut found = BTreeSet::new();
            each(worlds, meant, is_over, &mut |name, labels| {
                found.insert(label_set(name, labels));
            })?;
            Ok(Answer::Series(found.into_iter().collect()))
        }
        Question::LabelNames(meant) if meant.selectors.is_empty() => Ok(words(worlds.label_names())),
        Question::LabelNames(meant) => {
            let mut found = BTreeSet::new();
            each(worlds, meant, is_over, &mut |_, labels| {
                found.insert("__name__".to_owned());
                for (name, _) in labels.iter().filter(|(_, value)| !value.is_empty()) {
                    if !found.contains(name) {
                        found.insert(name.to_owned());
                    }
                }
            })?;
            Ok(words(found))
        }
        Question::LabelValues { label, meant } if meant.selectors.is_empty() => Ok(words(worlds.label_values(label))),
        Question::LabelValues { label, meant } => {
            let mut found = BTreeSet::new();
            each(worlds, meant, is_over, &mut |name, labels| {
                let value = if label == "__name__" { Some(name) } else { labels.get(label) };
                if let Some(value) = value.filter(|value| !value.is_empty() && !found.contains(*value)) {
                    found.insert(value.to_owned());
                }
            })?;
            Ok(words(found))
        }
        Question::Metadata { family } => {
            let mut families = families(worlds);
            families.retain(|known| family.as_ref().is_none_or(|wanted| *wanted == known.name));
            Ok(Answer::Families(families))
        }
    }
}

fn words(found: BTreeSet<String>) -> Answer {
    Answer::Words(found.into_iter().collect())
}

fn label_set(name: &str, labels: &Labels) -> LabelSet {
    let named = std::iter::once(("__name__", name)).chain(labels.iter());
    named.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn parse(text: &str) -> Result<Expression, Unanswered> {
    Expression::parse(text).map_err(|error| Unanswered::Wrong(error.to_string()))
}

/// Evaluates over a world of these, and over newer ones as long as the file leaves them behind.
pub(super) fn over<T>(
    worlds: &Worlds,
    asked: &[Asked<'_>],
    evaluate: &dyn Fn(&World<'_>) -> Result<T, EvalError>,
) -> Result<T, EvalError> {
    repeated(|| evaluate(&worlds.world_for(asked)?))
}

/// Answers over a new world as long as the file leaves the last one behind.
pub(super) fn repeated<T>(mut answer: impl FnMut() -> Result<T, EvalError>) -> Result<T, EvalError> {
    for _ in 1..WORLDS_MAX {
        match answer() {
            Err(EvalError::Data(error)) if error.is_stale => {}
            outcome => return outcome,
        }
    }
    answer()
}

pub(super) fn unanswered(error: EvalError) -> Unanswered {
    match error {
        EvalError::TimeIsOver => Unanswered::TimeIsOver,
        EvalError::Data(error) => match &error.source {
            Some(source) => Unanswered::Unreadable(format!("{error}: {source}")),
            None => Unanswered::Unreadable(error.to_string()),
        },
        error => Unanswered::Failed(error.to_string()),
    }
}

/// Tells the series that are meant.
fn each(
    worlds: &Worlds,
    meant: &Meant,
    is_over: &dyn Fn() -> bool,
    tell: &mut dyn FnMut(&str, &Labels),
) -> Result<(), Unanswered> {
    let parsed = meant.selectors.iter().map(|text| Selector::parse(text)).collect::<Result<Vec<_>, _>>();
    let selectors = match parsed {
        Ok(selectors) if selectors.is_empty() => vec![Selector::all()],
        Ok(selectors) => selectors,
        Err(words) => return Err(Unanswered::Wrong(words)),
    };
    let (start, end) = (meant.start.unwrap_or(Timestamp(0)), meant.end.unwrap_or(Timestamp(i64::MAX)));
    repeated(|| {
        let world = worlds.world_of(&selectors, start, false)?;
        series::series(&world, &selectors, (start, end), &Limits::default(), is_over, &mut |name, labels| {
            tell(name, labels);
        })
    })
    .map_err(unanswered)
}

/// Every family of a scrape in text.
fn families(worlds: &Worlds) -> Vec<FamilyWords> {
    let mut found = Vec::new();
    for metric in worlds.metrics() {
        let mut push = |name: String, kind| {
            let (help, unit) = (metric.help.to_string(), metric.unit.as_str());
            let unit = if name.ends_with(&format!("_{unit}")) { unit } else { "" };
            found.push(FamilyWords { name, kind, help, unit: unit.to_owned() });
        };
        let name = metric.name.to_string();
        match metric.kind {
            Kind::Counter => push(name, "counter"),
            Kind::Gauge | Kind::Set => push(name, "gauge"),
            Kind::Distribution if metric.expose.histogram => {
                push(name, "histogram");
                if metric.expose.summary {
                    push(window_name(&metric.name, metric.unit), "summary");
                }
            }
            Kind::Distribution => push(name, "summary"),
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}
