//! How long gauges hold a value that nothing says again: those of recorded expressions and of collectors.
//!
//! In: a plan. Out: `Metric::holds` of its metrics, and the metrics that collectors keep under names of their own.
//! Invariant: a value that is said again and again outlives a reading that comes late, and not the end of what said it;
//! what is pushed stands until it is pushed again, however long that takes.

use super::names::shown_as;
use super::plan::{Plan, SourceKind, SourcePlan};
use crate::event::{Kind, Unit};
use crate::rule::typed::FeedSource;
use crate::rule::{MetricSpec, Rules, is_reserved_name};
use crate::source::gpu::GPU_VALUES;
use crate::source::host::HOST_VALUES;
use crate::source::process::PROCESS_VALUES;

/// Readings or evaluations that may be missing, one for a late commit among them.
const MISSING: i64 = 3;
/// What a tick and its commit may take beside.
const SLACK: i64 = 5_000_000_000;

/// How long a value of a source holds; `None` for sources that only bring what others push.
fn of_source(source: &SourcePlan) -> Option<i64> {
    let every = match &source.kind {
        SourceKind::Host(plan) => plan.every,
        SourceKind::Process(plan) => plan.every,
        SourceKind::Gpu(plan) => plan.every,
        SourceKind::Internal | SourceKind::Socket(_) => return None,
    };
    Some(every.saturating_mul(MISSING).saturating_add(SLACK))
}

/// Says of every declared gauge how long it holds a value: as the slowest of its feeds needs.
pub(super) fn fill(plan: &mut Plan) {
    let evaluated = plan.slice.nanos().saturating_mul(MISSING).saturating_add(SLACK);
    for (at, metric) in plan.metrics.iter_mut().enumerate().filter(|(_, metric)| metric.kind == Kind::Gauge) {
        let feeds = plan.typed.feeds.iter().filter(|feed| feed.metric == at);
        let holds: Option<Vec<i64>> = feeds
            .map(|feed| match &feed.from {
                FeedSource::Expr { .. } => Some(evaluated),
                FeedSource::Source { source, .. } => {
                    plan.sources.iter().find(|known| known.name == *source).and_then(of_source)
                }
                FeedSource::Event { .. } | FeedSource::Pair { .. } | FeedSource::Statsd { .. } => None,
            })
            .collect();
        metric.holds = holds.and_then(|holds| holds.into_iter().max());
    }
}

/// Makes the gauges known that collectors keep where no metric names their values. Before the store is read, so that
/// what an earlier run left of them is not taken for something that was pushed.
pub(super) fn declare(plan: &Plan, rules: &Rules) {
    for source in plan.sources.iter().filter(|source| source.enabled) {
        let holds = of_source(source);
        if holds.is_none() || rules.typed().source_feeds(&source.name).is_some() {
            continue;
        }
        let prefix = shown_as(source);
        let values: Vec<(&str, &str, Kind, Unit)> = match &source.kind {
            SourceKind::Host(_) => {
                HOST_VALUES.iter().map(|value| (value.key, value.help, value.kind, value.unit)).collect()
            }
            SourceKind::Process(_) => {
                PROCESS_VALUES.iter().map(|value| (value.key, value.help, Kind::Gauge, value.unit)).collect()
            }
            SourceKind::Gpu(_) => {
                GPU_VALUES.iter().map(|value| (value.key, value.help, Kind::Gauge, value.unit)).collect()
            }
            SourceKind::Internal | SourceKind::Socket(_) => continue,
        };
        for (key, help, _, unit) in values.into_iter().filter(|(_, _, kind, _)| *kind == Kind::Gauge) {
            let name = format!("{prefix}_{key}");
            if is_reserved_name(&name) {
                continue;
            }
            let spec = MetricSpec::new(&name, Kind::Gauge, help, source.kind.as_str());
            // One that cannot be kept is told when its first value comes.
            let _ = rules.metric(&MetricSpec { unit: Some(unit), holds, ..spec });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::PipelineFile;
    use super::super::paths::Environment;
    use super::*;

    #[test]
    fn what_is_said_again_and_again_does_not_hold_for_ever_and_what_is_pushed_does() {
        let text = r#"
            slice = "10s"
            [events.e]
            fields = { v = "float" }
            [metrics.pushed]
            type = "gauge"
            help = "Pushed"
            [metrics.of_event]
            type = "gauge"
            help = "Of an event"
            from = { event = "e", value = "v" }
            [metrics.recorded]
            type = "gauge"
            help = "Recorded"
            from = { expr = "pushed + 1" }
            [metrics.cards]
            type = "gauge"
            help = "Of a collector"
            from = { source = "gpu", value = "utilization_percent", labels = ["gpu"] }
            [sources.gpu]
            type = "gpu"
            every = "20s"
            [sources.app]
            type = "process"
            match = { cmd = "app" }
            every = "2s"
        "#;
        let file = PipelineFile { name: "t.toml".into(), text: text.into(), directory: "/".into() };
        let environment = Environment::fixed([], 1000, |_| false);
        let plan = Plan::load(&[file], &environment).unwrap_or_else(|errors| panic!("{errors}"));
        let holds = |name: &str| plan.metrics.iter().find(|metric| metric.name == name).expect(name).holds;
        assert_eq!((holds("pushed"), holds("of_event")), (None, None));
        assert_eq!((holds("recorded"), holds("cards")), (Some(35_000_000_000), Some(65_000_000_000)));
        let rules = Rules::new(plan.rules()).expect("no clash");
        declare(&plan, &rules);
        let app = rules.metrics().into_iter().find(|metric| &*metric.name == "app_threads").expect("declared");
        assert_eq!((app.holds, app.idle), (Some(11_000_000_000), None));
        assert!(rules.metrics().iter().all(|metric| !metric.name.starts_with("gpu_")), "another metric names them");
    }
}
