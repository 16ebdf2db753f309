//! Recorded expressions of a plan, as whoever evaluates them takes them (Q4).
//!
//! In: a [`Plan`] and the rules compiled from it. Out: [`Recorded`], in the order of the file. Invariant: a result has
//! the constant labels of its feed, so that it has exactly the labels of its metric.

use super::plan::Plan;
use crate::query::Expression;
use crate::record::Recorded;
use crate::rule::Rules;
use crate::rule::typed::{FeedSource, FeedSpec, LabelSource};
use std::sync::Arc;

/// The recorded expressions of a plan. `rules` must be compiled from [`Plan::rules`].
pub(crate) fn recorded(plan: &Plan, rules: &Rules) -> Vec<Recorded> {
    let metrics = rules.declared();
    let of = |feed: &FeedSpec| {
        let FeedSource::Expr { text } = &feed.from else { return None };
        let expression = Expression::parse(text).expect("the plan has parsed it");
        let constant = |(name, source): &(String, LabelSource)| match source {
            LabelSource::Const(value) => Some((name.clone(), value.clone())),
            _ => None,
        };
        let labels = feed.labels.iter().filter_map(constant).collect();
        // By name: after a reload their numbers are not in the order of the file.
        let name = &plan.metrics[feed.metric].name;
        let metric = metrics.iter().find(|metric| *metric.name == **name)?;
        Some(Recorded { metric: Arc::clone(metric), expression, scale: feed.scale, labels })
    };
    plan.typed.feeds.iter().filter_map(of).collect()
}

/// Names of the labels that stand on every series and therefore on no result.
pub(crate) fn constant_names(plan: &Plan) -> Vec<String> {
    plan.labels.iter().map(|(name, _)| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::config::PipelineFile;
    use super::super::paths::Environment;
    use super::*;

    #[test]
    fn feeds_become_expressions_in_the_order_of_the_file() {
        let text = r#"
            labels = { region = "eu" }
            [metrics.hits_total]
            type = "counter"
            help = "Hits"
            [metrics.first]
            type = "gauge"
            help = "First"
            from = { expr = "sum(hits_total)" }
            [metrics.second]
            type = "gauge"
            help = "Second"
            from = { expr = "first + 1", const = { kind = "sum" } }
        "#;
        let file = PipelineFile { name: "t.toml".into(), text: text.into(), directory: "/".into() };
        let environment = Environment::fixed([], 1000, |_| false);
        let plan = Plan::load(&[file], &environment).unwrap_or_else(|errors| panic!("{errors}"));
        let rules = Rules::new(plan.rules()).expect("no clash");
        let found = recorded(&plan, &rules);
        let shown: Vec<_> =
            found.iter().map(|r| (&*r.metric.name, r.expression.text(), r.scale, r.labels.len())).collect();
        assert_eq!(shown, [("first", "sum(hits_total)", 1.0, 0), ("second", "first + 1", 1.0, 1)]);
        assert_eq!(found[1].labels, [("kind".to_owned(), "sum".to_owned())]);
        assert_eq!(constant_names(&plan), ["region"]);
    }
}
