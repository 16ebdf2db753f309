//! What can be told of an expression's result without evaluating it: the labels of its series.
//!
//! In: an [`Expression`] and what is known of metrics. Out: label names, or nothing where only the data can tell.
//! Pure. Invariant: a set that is told holds every label that any series of the result has, the name apart.

use super::parse::Expression;
use super::plan::{Aggregation, Matching, Node, Selector, Side, Source};
use std::collections::BTreeSet;

type Labels = Option<BTreeSet<String>>;

impl Expression {
    /// The labels that series of the result may have. `labels_of` tells those of a metric by the name an expression
    /// reads (with `_bucket` and the like); `None` = not known.
    pub fn labels(&self, labels_of: &dyn Fn(&str) -> Option<Vec<String>>) -> Option<BTreeSet<String>> {
        Outline { selectors: self.selectors(), labels_of }.node(&self.node)
    }
}

struct Outline<'a> {
    selectors: &'a [Selector],
    labels_of: &'a dyn Fn(&str) -> Option<Vec<String>>,
}

impl Outline<'_> {
    fn node(&self, node: &Node) -> Labels {
        match node {
            Node::Number(_) | Node::Text(_) | Node::Time | Node::Scalar(_) | Node::Vector(_) => Some(BTreeSet::new()),
            Node::Select(index) => self.selector(*index),
            Node::Range(source) | Node::Over { source, .. } => match source {
                Source::Selector(index) => self.selector(*index),
                Source::Subquery { node, .. } => self.node(node),
            },
            Node::AbsentOver { labels, .. } | Node::Absent { labels, .. } => {
                Some(labels.iter().map(|(name, _)| name.to_string()).collect())
            }
            Node::Math { vector, .. } | Node::Timestamp(vector) | Node::Sort { vector, .. } | Node::Negate(vector) => {
                self.node(vector)
            }
            Node::LabelReplace { vector, to, .. } | Node::LabelJoin { vector, to, .. } => {
                let mut labels = self.node(vector)?;
                labels.insert(to.to_string());
                Some(labels)
            }
            Node::HistogramQuantile { vector, .. }
            | Node::HistogramFraction { vector, .. }
            | Node::HistogramPart { vector, .. } => {
                let mut labels = self.node(vector)?;
                labels.remove("le");
                Some(labels)
            }
            Node::Aggregate { aggregation: Aggregation::TopK | Aggregation::BottomK, vector, .. } => self.node(vector),
            Node::Aggregate { aggregation: Aggregation::CountValues, .. } => None,
            Node::Aggregate { grouping, vector, .. } => {
                let named = |name: &String| grouping.labels.iter().any(|label| **label == **name);
                match (grouping.without, self.node(vector)) {
                    (true, labels) => Some(labels?.into_iter().filter(|name| !named(name)).collect()),
                    // A label that the vector is known not to have groups nothing.
                    (false, Some(labels)) => Some(labels.into_iter().filter(named).collect()),
                    (false, None) => Some(grouping.labels.iter().map(|label| label.to_string()).collect()),
                }
            }
            Node::Binary { operator, matching, left, right } => {
                let (left, right) = (self.operand(left), self.operand(right));
                match (left, right) {
                    (None, None) => Some(BTreeSet::new()),
                    (Some(labels), None) | (None, Some(labels)) => labels,
                    (Some(left), Some(right)) if operator.is_set() => match operator {
                        super::plan::Operator::Or => Some(left?.into_iter().chain(right?).collect()),
                        _ => left,
                    },
                    (Some(left), Some(right)) => matched(matching, left, right),
                }
            }
        }
    }

    /// The labels of a vector operand; the outer `None` for a scalar.
    fn operand(&self, node: &Node) -> Option<Labels> {
        match node {
            Node::Number(_) | Node::Time | Node::Scalar(_) => None,
            Node::Negate(inner) => self.operand(inner).map(|_| self.node(node)),
            Node::Binary { left, right, .. } if self.operand(left).is_none() && self.operand(right).is_none() => None,
            _ => Some(self.node(node)),
        }
    }

    fn selector(&self, index: usize) -> Labels {
        let selector = self.selectors.get(index)?;
        let labels = (self.labels_of)(selector.name.as_ref()?)?;
        Some(labels.into_iter().collect())
    }
}

fn matched(matching: &Matching, left: Labels, right: Labels) -> Labels {
    let many = match matching.side {
        Side::None if matching.on => {
            return Some(matching.labels.iter().map(|label| label.to_string()).collect());
        }
        Side::None | Side::Left => left?,
        Side::Right => right?,
    };
    let dropped = |name: &String| matching.side == Side::None && matching.labels.iter().any(|label| **label == **name);
    let kept = many.into_iter().filter(|name| !dropped(name));
    Some(kept.chain(matching.include.iter().map(|label| label.to_string())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_told_where_the_text_tells_them() {
        let labels_of = |name: &str| match name {
            "a" => Some(vec!["x".to_owned(), "y".to_owned()]),
            "h_bucket" => Some(vec!["le".to_owned(), "x".to_owned()]),
            _ => None,
        };
        let check = |text: &str, expected: Option<&[&str]>| {
            let labels = Expression::parse(text).expect(text).labels(&labels_of);
            let expected = expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
            assert_eq!(labels, expected, "{text}");
        };
        check("1 + 2", Some(&[]));
        check("a", Some(&["x", "y"]));
        check("2 * rate(a[5m])", Some(&["x", "y"]));
        check("sum(unknown)", Some(&[]));
        check("sum by (z) (unknown)", Some(&["z"]));
        check("sum by (x, z) (a)", Some(&["x"]));
        check("sum without (x) (a)", Some(&["y"]));
        check("sum without (x) (unknown)", None);
        check("topk(3, a)", Some(&["x", "y"]));
        check("histogram_quantile(0.9, sum by (le, x) (rate(h_bucket[5m])))", Some(&["x"]));
        check("a / on (x) a", Some(&["x"]));
        check("a / ignoring (x) a", Some(&["y"]));
        check("a * on (x) group_left (z) unknown", Some(&["x", "y", "z"]));
        check("sum(a) or vector(0)", Some(&[]));
        check("a or unknown", None);
        check("label_replace(a, \"b\", \"$1\", \"x\", \"(.*)\")", Some(&["b", "x", "y"]));
        check("unknown", None);
        check("{x=\"1\"}", None);
    }
}
