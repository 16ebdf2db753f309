//! Names and values of labels of everything that is live, without reading a slice: what a data source fills its lists with.
//!
//! In: the view and what is declared. Out: sorted names and values. Owns nothing. Invariant: the same names as a scrape in
//! text shows, `le` and `quantile` among the labels.

use super::{Probe, Worlds};
use crate::event::{Labels, Metric};
use crate::query::buckets;
use crate::query::plan::Selector;
use crate::query::points;
use crate::query::select::{Part, targets};
use std::collections::BTreeSet;

/// The label that a metric's name is asked by.
const NAME: &str = "__name__";

impl Worlds {
    /// The names of all labels, `__name__` among them.
    pub fn label_names(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        self.each_live(&mut |labels| {
            for (name, _) in labels.iter() {
                if !names.contains(name) {
                    names.insert(name.to_owned());
                }
            }
        });
        for (name, part, _) in self.text_parts() {
            if !name.is_empty() {
                names.insert(NAME.to_owned());
            }
            names.extend(part.label().map(str::to_owned));
        }
        names
    }

    /// The values of a label.
    pub fn label_values(&self, label: &str) -> BTreeSet<String> {
        let mut values = BTreeSet::new();
        match label {
            NAME => values.extend(self.text_parts().into_iter().map(|(name, ..)| name)),
            "le" | "quantile" => {
                for (_, part, metric) in self.text_parts() {
                    match part {
                        Part::Bucket if label == "le" => {
                            let bounds = buckets::bounds(&metric);
                            values.extend(bounds.bounds.iter().chain([&f64::INFINITY]).map(|b| buckets::text(*b)));
                        }
                        Part::Quantile if label == "quantile" => {
                            values.extend(metric.quantiles.iter().map(|q| buckets::text(*q)));
                        }
                        _ => {}
                    }
                }
            }
            label => self.each_live(&mut |labels| {
                let value = labels.get(label).unwrap_or("");
                if !value.is_empty() && !values.contains(value) {
                    values.insert(value.to_owned());
                }
            }),
        }
        values
    }

    /// The names that selectors mean, whether they have series or not.
    pub fn names(&self, selectors: &[Selector]) -> Vec<points::Name> {
        points::names(&Probe::new(&self.view, &self.declared()), selectors)
    }

    /// Every metric that has series, or one that counts 0.
    pub fn metrics(&self) -> Vec<std::sync::Arc<Metric>> {
        let declared = self.declared();
        let mut metrics = self.view.metrics();
        let known: BTreeSet<_> = metrics.iter().map(|metric| std::sync::Arc::clone(&metric.name)).collect();
        metrics.extend(declared.metrics().filter(|metric| !known.contains(&metric.name)).cloned());
        metrics.sort_by(|a, b| a.name.cmp(&b.name));
        metrics
    }

    /// What stands in text under each name.
    fn text_parts(&self) -> Vec<(String, Part, std::sync::Arc<Metric>)> {
        let declared = self.declared();
        let found = targets(&Probe::new(&self.view, &declared), &Selector::all());
        let shown = found.into_iter().filter(|target| target.part != Part::Native);
        shown.map(|target| (target.name.to_string(), target.part, target.metric)).collect()
    }

    fn each_live(&self, visit: &mut dyn FnMut(&Labels)) {
        let declared = self.declared();
        for metric in self.metrics() {
            let (family, _) = self.view.series_since(&metric, u64::MAX, 0);
            if family.series.is_empty() {
                declared.zero(&metric).iter().for_each(|zero| visit(zero.labels()));
                continue;
            }
            self.view.labels(metric.kind, &family.series, |labels| visit(labels));
        }
    }
}
