//! The data of `[widgets]`: JSON whose leaves are expressions, points over a timeframe, or kept events.
//!
//! In: a widget's name and a timeframe. Out: the object that the file describes, over one commit. Invariants: a leaf
//! with one value is that number; what has no value, or none that JSON can say, is null; a series has at most
//! [`POINTS_MAX`] points.

use super::plan::{WidgetLeaf, WidgetPlan};
use super::queries::over;
use super::running::Pipeline;
use crate::event::{Labels, Timestamp};
use crate::query::world::{Asked, Worlds};
use crate::query::{EvalError, Expression, Point, Value, evaluate, evaluate_range};
use serde_json::{Map, Value as Json, json};

/// Most points of a series: as many as a chart has pixels to tell apart.
pub const POINTS_MAX: i64 = 300;

/// What a widget covers where nobody says: a day.
pub const TIMEFRAME_HOURS: f64 = 24.0;

/// Why there is no data.
#[derive(Debug, thiserror::Error)]
pub enum WidgetError {
    /// No widget has this name.
    #[error("no such widget")]
    Unknown {
        /// Those that there are.
        known: Vec<String>,
    },
    /// Not above zero.
    #[error("timeframe is a number of hours above 0; at most {hours_max} are kept")]
    Timeframe {
        /// The longest retention.
        hours_max: f64,
    },
    /// An expression touches more than one may: the same request meets the same bound again.
    #[error("{0}; a shorter timeframe, or an expression over fewer series, needs less")]
    TooMuch(String),
    /// The store cannot be read, or an expression fails over what is there.
    #[error("{0}")]
    Failed(String),
}

impl Pipeline {
    /// The data of a widget now, its series over the last `hours`; `None`: a day. Neither reaches further back than
    /// anything is kept.
    ///
    /// # Errors
    /// [`WidgetError`].
    pub fn widget(&self, name: &str, hours: Option<f64>) -> Result<Json, WidgetError> {
        let plan = self.plan();
        let Some(widget) = plan.widgets.iter().find(|widget| widget.name == name) else {
            return Err(WidgetError::Unknown {
                known: plan.widgets.iter().map(|widget| widget.name.clone()).collect(),
            });
        };
        let hours_max = plan.store.keep_longest() as f64 / 3.6e12;
        let hours = hours.unwrap_or(TIMEFRAME_HOURS);
        if hours.is_nan() || hours <= 0.0 {
            return Err(WidgetError::Timeframe { hours_max });
        }
        let hours = hours.min(hours_max);
        let slice = plan.slice.nanos();
        let end = plan.slice.start(plan.slice.slice_of(self.now()));
        let step = ((hours * 3.6e12) as i64 / POINTS_MAX / slice + 1) * slice;
        let start = Timestamp(end.0 - (hours * 3.6e12) as i64 / step * step);
        let data = Data { worlds: self.worlds(), start, end, step };
        data.object(widget, |events, limit| self.kept(events, limit))
    }

    fn kept(&self, events: &[String], limit: u32) -> Json {
        let mut rows: Vec<_> = events.iter().flat_map(|event| self.kept_events(Some(event), limit as usize)).collect();
        rows.sort_by_key(|row| std::cmp::Reverse(row.time));
        rows.truncate(limit as usize);
        let shown = rows.into_iter().map(|row| {
            let text = String::from_utf8_lossy(&row.text).into_owned();
            let event: Json = serde_json::from_str(&text).unwrap_or(Json::String(text));
            json!({"time": row.time.as_seconds_f64(), "source": &*row.source, "event": event})
        });
        Json::Array(shown.collect())
    }
}

/// Where a widget's numbers come from.
struct Data<'w> {
    worlds: &'w Worlds,
    start: Timestamp,
    end: Timestamp,
    step: i64,
}

impl Data<'_> {
    fn object(&self, widget: &WidgetPlan, kept: impl Fn(&[String], u32) -> Json) -> Result<Json, WidgetError> {
        let mut root = Map::new();
        for (path, leaf) in &widget.leaves {
            let value = match leaf {
                WidgetLeaf::Value { expr, key } => self.value(expr, key.as_deref())?,
                WidgetLeaf::Series { expr, key } => self.series(expr, key.as_deref())?,
                WidgetLeaf::Events { events, limit } => kept(events, *limit),
            };
            put(&mut root, path, value);
        }
        Ok(Json::Object(root))
    }

    fn value(&self, text: &str, key: Option<&str>) -> Result<Json, WidgetError> {
        let expression = Expression::parse(text).map_err(failed)?;
        let asked = Asked { expression: &expression, start: self.end, end: self.end };
        let value = over(self.worlds, &[asked], &|world| evaluate(&expression, world, self.end));
        let samples = match value.map_err(unevaluated)? {
            Value::Scalar(value) => return Ok(number(value)),
            Value::String(text) => return Ok(Json::String(text)),
            Value::Vector(samples) => samples,
            Value::Matrix(_) => return Ok(Json::Null),
        };
        let values = samples.into_iter().map(|sample| (sample.labels, number(sample.value)));
        Ok(told_apart(values.collect(), key, |value| json!({"value": value})))
    }

    fn series(&self, text: &str, key: Option<&str>) -> Result<Json, WidgetError> {
        let expression = Expression::parse(text).map_err(failed)?;
        let asked = Asked { expression: &expression, start: self.start, end: self.end };
        let value =
            over(self.worlds, &[asked], &|world| evaluate_range(&expression, world, self.start, self.end, self.step));
        let value = value.map_err(unevaluated)?;
        let Value::Matrix(series) = value else { return Ok(Json::Null) };
        let values = series.into_iter().map(|series| (series.labels, points(&series.points)));
        Ok(told_apart(values.collect(), key, |points| points))
    }
}

/// `{points: [[epoch seconds, value], ...], avg, max}`
fn points(points: &[Point]) -> Json {
    let finite: Vec<f64> = points.iter().map(|point| point.value).filter(|value| value.is_finite()).collect();
    let shown: Vec<Json> =
        points.iter().map(|point| json!([point.time.as_seconds_f64(), number(point.value)])).collect();
    let avg = finite.iter().sum::<f64>() / finite.len() as f64;
    let max = finite.iter().copied().fold(f64::NAN, f64::max);
    json!({"points": shown, "avg": number(avg), "max": number(max)})
}

/// With a key an object by the label's values; without one the only value itself, null for none, and a list with
/// labels for several.
fn told_apart(mut values: Vec<(Labels, Json)>, key: Option<&str>, alone: impl Fn(Json) -> Json) -> Json {
    if let Some(key) = key {
        let of = |(labels, value): (Labels, Json)| (labels.get(key).unwrap_or("").to_owned(), value);
        return Json::Object(values.into_iter().map(of).collect());
    }
    match values.len() {
        0 => Json::Null,
        1 if values[0].0.is_empty() => values.remove(0).1,
        _ => {
            let listed = values.into_iter().map(|(labels, value)| {
                let labels: Map<String, Json> = labels.iter().map(|(key, value)| (key.into(), value.into())).collect();
                let mut item = Map::from_iter([("labels".to_owned(), Json::Object(labels))]);
                if let Json::Object(rest) = alone(value) {
                    item.extend(rest);
                }
                Json::Object(item)
            });
            Json::Array(listed.collect())
        }
    }
}

fn number(value: f64) -> Json {
    serde_json::Number::from_f64(value).map_or(Json::Null, Json::Number)
}

fn unevaluated(error: EvalError) -> WidgetError {
    match error {
        EvalError::TooManySeries { .. } | EvalError::TooManySamples { .. } | EvalError::TooManySteps { .. } => {
            WidgetError::TooMuch(error.to_string())
        }
        error => failed(error),
    }
}

fn failed(error: impl std::fmt::Display) -> WidgetError {
    WidgetError::Failed(error.to_string())
}

/// Puts a leaf under its keys; the plan has made sure that no path begins with another.
fn put(root: &mut Map<String, Json>, path: &[String], value: Json) {
    match path {
        [] => {}
        [last] => {
            root.insert(last.clone(), value);
        }
        [first, rest @ ..] => {
            let inner = root.entry(first.clone()).or_insert_with(|| Json::Object(Map::new()));
            if let Json::Object(inner) = inner {
                put(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::paths::Environment;

    #[test]
    fn a_timeframe_reaches_no_further_back_than_anything_is_kept() {
        let text = "name = \"w\"\n[store]\npath = \":memory:\"\nmax_size = \"64MiB\"\n\
                    [sources.internal]\ntype = \"internal\"\n\
                    [metrics.x_total]\ntype = \"counter\"\nhelp = \"X\"\n[widgets.w]\nx = { series = \"rate(x_total[1m])\" }\n";
        let environment = Environment::fixed([], 1000, |_| false);
        let pipeline = Pipeline::builder().environment(environment).text(text).start().expect("starts");
        for hours in [None, Some(0.1), Some(24.0), Some(1e9), Some(f64::INFINITY)] {
            pipeline.widget("w", hours).unwrap_or_else(|error| panic!("{hours:?}: {error}"));
        }
        for hours in [0.0, -1.0, f64::NAN] {
            assert!(matches!(pipeline.widget("w", Some(hours)), Err(WidgetError::Timeframe { .. })), "{hours}");
        }
    }

    #[test]
    fn a_declared_series_without_labels_is_0_in_widgets_as_in_the_first_scrape() {
        let text = "name = \"w\"\nlabels = { region = \"eu\" }\n[store]\npath = \":memory:\"\nmax_size = \"64MiB\"\n\
                    [metrics.x_total]\ntype = \"counter\"\nhelp = \"X\"\n[metrics.y_total]\ntype = \"counter\"\nhelp = \"Y\"\n\
                    labels = [\"who\"]\n[metrics.z]\ntype = \"gauge\"\nhelp = \"Z\"\n\
                    [widgets.w]\nx = \"sum(x_total{region='eu'})\"\ny = \"sum(y_total)\"\nz = \"sum(z)\"\n";
        let environment = Environment::fixed([], 1000, |_| false);
        let pipeline = Pipeline::builder().environment(environment).text(text).start().expect("starts");
        assert_eq!(pipeline.widget("w", None).expect("is there"), json!({"x": 0.0, "y": null, "z": null}));
    }

    #[test]
    fn what_meets_the_same_bound_again_is_not_told_to_come_again() {
        for error in [
            EvalError::TooManySeries { limit: 1 },
            EvalError::TooManySamples { limit: 1 },
            EvalError::TooManySteps { steps: 2, limit: 1 },
        ] {
            assert!(matches!(unevaluated(error), WidgetError::TooMuch(_)));
        }
        assert!(matches!(unevaluated(EvalError::RangeOfRanges), WidgetError::Failed(_)));
    }
}
