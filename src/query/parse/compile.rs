//! From the parser's tree to a plan: names resolved, types checked again, everything outside the subset refused.
//!
//! In: `promql_parser`'s tree. Out: a [`Node`] and the selectors it reads. Invariant: the plan's types are right, so the
//! evaluator never meets a scalar where a vector belongs.

use super::names::{aggregation_of, math_of, operator_of, over_of};
use crate::query::LOOKBACK;
use crate::query::matcher::{MatchOp, Matcher, REGEX_BYTES_MAX};
use crate::query::plan::{Aggregation, At, Grouping, HistogramPart, Matching, Node, Over, Selector, Side, Source};
use promql_parser::label::{MatchOp as WrittenOp, Matchers};
use promql_parser::parser::{
    AggregateExpr, AtModifier, BinaryExpr, Call, Expr, LabelModifier, Offset, SubqueryExpr, VectorMatchCardinality,
    VectorSelector,
};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Evaluations of a subquery without a step of its own are a minute apart, as Prometheus's default interval.
const SUBQUERY_STEP: i64 = 60 * 1_000_000_000;

/// Why a tree has no plan, and the word of the text to point at.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) message: String,
    pub(super) word: Option<String>,
}

impl Refusal {
    fn new(word: &str, message: impl Into<String>) -> Refusal {
        Refusal { message: message.into(), word: Some(word.to_owned()) }
    }

    fn unsupported(word: &str) -> Refusal {
        Refusal::new(word, format!("`{word}` is not supported"))
    }
}

/// What a node yields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Scalar,
    Vector,
    Range,
    Text,
}

impl Type {
    fn words(self) -> &'static str {
        match self {
            Type::Scalar => "a scalar",
            Type::Vector => "an instant vector",
            Type::Range => "a range such as `x[5m]`",
            Type::Text => "a string",
        }
    }
}

pub(super) fn type_of(node: &Node) -> Type {
    match node {
        Node::Number(_) | Node::Time | Node::Scalar(_) => Type::Scalar,
        Node::Text(_) => Type::Text,
        Node::Range(_) => Type::Range,
        Node::Negate(node) => type_of(node),
        Node::Binary { left, right, .. } => match (type_of(left), type_of(right)) {
            (Type::Scalar, Type::Scalar) => Type::Scalar,
            _ => Type::Vector,
        },
        _ => Type::Vector,
    }
}

/// A whole expression.
pub(super) struct Compiled {
    pub(super) node: Node,
    pub(super) selectors: Vec<Selector>,
    /// Nanoseconds before the evaluated time that any selector may look at.
    pub(super) reach: i64,
}

/// Compiles a whole expression.
pub(super) fn compile(expr: &Expr) -> Result<Compiled, Refusal> {
    let mut compiler = Compiler { selectors: Vec::new(), outer: 0, reach: 0 };
    let node = compiler.node(expr, false)?;
    let Compiler { selectors, reach, .. } = compiler;
    Ok(Compiled { node, selectors, reach })
}

struct Compiler {
    selectors: Vec<Selector>,
    /// Nanoseconds that the subqueries around look back.
    outer: i64,
    reach: i64,
}

impl Compiler {
    /// `native` says that a histogram function reads the result.
    fn node(&mut self, expr: &Expr, native: bool) -> Result<Node, Refusal> {
        match expr {
            Expr::NumberLiteral(number) => Ok(Node::Number(number.val)),
            Expr::StringLiteral(text) => Ok(Node::Text(text.val.as_str().into())),
            Expr::Paren(paren) => self.node(&paren.expr, native),
            Expr::VectorSelector(selector) => Ok(Node::Select(self.selector(selector, 0, native)?)),
            Expr::MatrixSelector(_) | Expr::Subquery(_) => Ok(Node::Range(self.source(expr, native)?)),
            Expr::Unary(unary) => {
                let node = self.node(&unary.expr, native)?;
                match type_of(&node) {
                    Type::Scalar | Type::Vector => Ok(Node::Negate(Box::new(node))),
                    other => Err(Refusal::new("-", format!("`-` takes a number or a vector, not {}", other.words()))),
                }
            }
            Expr::Binary(binary) => self.binary(binary, native),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, native),
            Expr::Call(call) => self.call(call, native),
            Expr::Extension(_) => Err(Refusal { message: "this is not supported".into(), word: None }),
        }
    }

    fn selector(&mut self, written: &VectorSelector, range: i64, native: bool) -> Result<usize, Refusal> {
        let mut name = written.name.as_deref().map(Arc::from);
        let mut name_matchers = Vec::new();
        let mut matchers = Vec::new();
        let Matchers { matchers: written_matchers, or_matchers } = &written.matchers;
        if !or_matchers.is_empty() {
            return Err(Refusal::new("or", "`or` between label matchers is not supported"));
        }
        for matcher in written_matchers {
            let op = match &matcher.op {
                WrittenOp::Equal => MatchOp::Equal,
                WrittenOp::NotEqual => MatchOp::NotEqual,
                WrittenOp::Re(_) => MatchOp::Regex,
                WrittenOp::NotRe(_) => MatchOp::NotRegex,
            };
            if matcher.name == "__name__" && op == MatchOp::Equal && name.is_none() {
                name = Some(matcher.value.as_str().into());
                continue;
            }
            let matcher =
                Matcher::new(&matcher.name, op, &matcher.value).map_err(|message| Refusal { message, word: None })?;
            if matcher.name() == "__name__" { &mut name_matchers } else { &mut matchers }.push(matcher);
        }
        matchers.sort_by(|a: &Matcher, b| (a.name(), a.op(), a.value()).cmp(&(b.name(), b.op(), b.value())));
        matchers.dedup();
        let offset = offset_of(written.offset.as_ref());
        let at = at_of(written.at.as_ref());
        let own = range.max(LOOKBACK).saturating_add(offset);
        self.reach = self.reach.max(self.outer.saturating_add(own));
        let selector = Selector { name, name_matchers, matchers, range, offset, at, native };
        if let Some(known) = self.selectors.iter().position(|known| *known == selector) {
            return Ok(known);
        }
        self.selectors.push(selector);
        Ok(self.selectors.len() - 1)
    }

    fn source(&mut self, expr: &Expr, native: bool) -> Result<Source, Refusal> {
        match expr {
            Expr::MatrixSelector(matrix) => {
                Ok(Source::Selector(self.selector(&matrix.vs, nanos_of(matrix.range), native)?))
            }
            Expr::Subquery(SubqueryExpr { expr, offset, at, range, step }) => {
                let back = nanos_of(*range).saturating_add(offset_of(offset.as_ref()));
                self.outer = self.outer.saturating_add(back);
                let node = self.node(expr, false);
                self.outer = self.outer.saturating_sub(back);
                let node = Box::new(node?);
                if type_of(&node) != Type::Vector {
                    let word = type_of(&node).words();
                    return Err(Refusal::new(":", format!("a subquery is of an instant vector, not of {word}")));
                }
                let step = step.map_or(SUBQUERY_STEP, nanos_of).max(1);
                let (offset, at) = (offset_of(offset.as_ref()), at_of(at.as_ref()));
                Ok(Source::Subquery { node, range: nanos_of(*range), step, offset, at })
            }
            Expr::Paren(paren) => self.source(&paren.expr, native),
            _ => Err(Refusal { message: "expected a range such as `x[5m]`".into(), word: None }),
        }
    }

    fn typed(&mut self, expr: &Expr, native: bool, expected: Type, of: &str) -> Result<Box<Node>, Refusal> {
        let node = self.node(expr, native)?;
        let found = type_of(&node);
        if found != expected {
            return Err(Refusal::new(of, format!("`{of}` takes {}, not {}", expected.words(), found.words())));
        }
        Ok(Box::new(node))
    }

    fn aggregate(&mut self, written: &AggregateExpr, native: bool) -> Result<Node, Refusal> {
        let name = written.op.to_string();
        let aggregation = aggregation_of(written.op).ok_or_else(|| Refusal::unsupported(&name))?;
        let native = native && matches!(aggregation, Aggregation::Sum | Aggregation::Avg);
        let vector = self.typed(&written.expr, native, Type::Vector, &name)?;
        let parameter = match (&written.param, aggregation) {
            (Some(expr), Aggregation::CountValues) => Some(self.typed(expr, false, Type::Text, &name)?),
            (Some(expr), _) => Some(self.typed(expr, false, Type::Scalar, &name)?),
            (None, _) => None,
        };
        if let (Some(parameter), Aggregation::CountValues) = (&parameter, aggregation) {
            label_name(parameter, &name)?;
        }
        let (without, labels) = match &written.modifier {
            Some(LabelModifier::Exclude(labels)) => (true, sorted(&labels.labels)),
            Some(LabelModifier::Include(labels)) => (false, sorted(&labels.labels)),
            None => (false, Vec::new()),
        };
        Ok(Node::Aggregate { aggregation, parameter, grouping: Grouping { without, labels }, vector })
    }

    fn binary(&mut self, written: &BinaryExpr, native: bool) -> Result<Node, Refusal> {
        let name = written.op.to_string();
        let operator = operator_of(written.op).ok_or_else(|| Refusal::unsupported(&name))?;
        let native = native && !operator.is_comparison();
        let left = Box::new(self.node(&written.lhs, native)?);
        let right = Box::new(self.node(&written.rhs, native)?);
        let mut matching =
            Matching { returns_bool: false, on: false, labels: Vec::new(), side: Side::None, include: Vec::new() };
        if let Some(modifier) = &written.modifier {
            if modifier.fill_values.lhs.is_some() || modifier.fill_values.rhs.is_some() {
                return Err(Refusal::unsupported("fill"));
            }
            matching.returns_bool = modifier.return_bool;
            match &modifier.matching {
                Some(LabelModifier::Include(labels)) => (matching.on, matching.labels) = (true, sorted(&labels.labels)),
                Some(LabelModifier::Exclude(labels)) => matching.labels = sorted(&labels.labels),
                None => {}
            }
            match &modifier.card {
                VectorMatchCardinality::ManyToOne(labels) => {
                    (matching.side, matching.include) = (Side::Left, sorted(&labels.labels));
                }
                VectorMatchCardinality::OneToMany(labels) => {
                    (matching.side, matching.include) = (Side::Right, sorted(&labels.labels));
                }
                VectorMatchCardinality::OneToOne | VectorMatchCardinality::ManyToMany => {}
            }
        }
        for side in [&left, &right] {
            match type_of(side) {
                Type::Vector => {}
                Type::Scalar if !operator.is_set() => {}
                other => return Err(Refusal::new(&name, format!("`{name}` cannot take {}", other.words()))),
            }
        }
        Ok(Node::Binary { operator, matching: Box::new(matching), left, right })
    }

    fn call(&mut self, call: &Call, native: bool) -> Result<Node, Refusal> {
        let name = call.func.name;
        let args: Vec<&Expr> = call.args.args.iter().map(|arg| &**arg).collect();
        let missing = || Refusal::new(name, format!("`{name}` takes more arguments"));
        let arg = |at: usize| args.get(at).copied().ok_or_else(missing);
        if let Some(over) = over_of(name) {
            let has_number_first = over == Over::Quantile;
            let source = self.source(arg(usize::from(has_number_first))?, over.keeps_cells())?;
            let parameter = match over {
                Over::Quantile => Some(self.typed(arg(0)?, false, Type::Scalar, name)?),
                Over::PredictLinear => Some(self.typed(arg(1)?, false, Type::Scalar, name)?),
                _ => None,
            };
            return Ok(Node::Over { over, source, parameter });
        }
        if let Some((math, takes_time)) = math_of(name) {
            let vector = match args.first() {
                None if takes_time => Box::new(Node::Vector(Box::new(Node::Time))),
                _ => self.typed(arg(0)?, false, Type::Vector, name)?,
            };
            let scalars = args.iter().skip(1).map(|arg| Ok(*self.typed(arg, false, Type::Scalar, name)?));
            let scalars: Vec<Node> = scalars.collect::<Result<_, Refusal>>()?;
            return Ok(Node::Math { math, vector, scalars });
        }
        let part = match name {
            "histogram_count" => Some(HistogramPart::Count),
            "histogram_sum" => Some(HistogramPart::Sum),
            "histogram_avg" => Some(HistogramPart::Avg),
            "histogram_stddev" => Some(HistogramPart::Stddev),
            "histogram_stdvar" => Some(HistogramPart::Stdvar),
            _ => None,
        };
        if let Some(part) = part {
            return Ok(Node::HistogramPart { part, vector: self.typed(arg(0)?, true, Type::Vector, name)? });
        }
        match name {
            "time" => Ok(Node::Time),
            "pi" => Ok(Node::Number(std::f64::consts::PI)),
            "timestamp" => Ok(Node::Timestamp(self.typed(arg(0)?, false, Type::Vector, name)?)),
            "vector" => Ok(Node::Vector(self.typed(arg(0)?, false, Type::Scalar, name)?)),
            "scalar" => Ok(Node::Scalar(self.typed(arg(0)?, false, Type::Vector, name)?)),
            "sort" | "sort_desc" => {
                let vector = self.typed(arg(0)?, native, Type::Vector, name)?;
                Ok(Node::Sort { vector, descending: name == "sort_desc" })
            }
            "absent" => {
                let vector = self.typed(arg(0)?, false, Type::Vector, name)?;
                let labels = match &*vector {
                    Node::Select(at) => absent_labels(&self.selectors[*at]),
                    _ => Arc::default(),
                };
                Ok(Node::Absent { vector, labels })
            }
            "absent_over_time" => {
                let source = self.source(arg(0)?, false)?;
                let labels = match &source {
                    Source::Selector(at) => absent_labels(&self.selectors[*at]),
                    Source::Subquery { .. } => Arc::default(),
                };
                Ok(Node::AbsentOver { source, labels })
            }
            "label_replace" => {
                let vector = self.typed(arg(0)?, native, Type::Vector, name)?;
                let mut text = |at: usize| {
                    let node = self.typed(arg(at)?, false, Type::Text, name)?;
                    text_of(&node, name)
                };
                let (to, replacement, from, pattern) = (text(1)?, text(2)?, text(3)?, text(4)?);
                label_name(&Node::Text(Arc::clone(&to)), name)?;
                let pattern = regex::RegexBuilder::new(&format!("^(?s:{pattern})$"))
                    .size_limit(REGEX_BYTES_MAX)
                    .dfa_size_limit(REGEX_BYTES_MAX)
                    .build()
                    .map_err(|_| {
                        Refusal::new(name, format!("{pattern:?} is not a regular expression, or too large"))
                    })?;
                Ok(Node::LabelReplace { vector, to, replacement, from, pattern: Arc::new(pattern) })
            }
            "label_join" => {
                let vector = self.typed(arg(0)?, native, Type::Vector, name)?;
                let mut texts = Vec::new();
                for arg in args.iter().skip(1) {
                    texts.push(text_of(&*self.typed(arg, false, Type::Text, name)?, name)?);
                }
                let from = texts.split_off(texts.len().min(2));
                let [to, separator] = <[Arc<str>; 2]>::try_from(texts).map_err(|_| missing())?;
                label_name(&Node::Text(Arc::clone(&to)), name)?;
                Ok(Node::LabelJoin { vector, to, separator, from })
            }
            "histogram_quantile" => Ok(Node::HistogramQuantile {
                quantile: self.typed(arg(0)?, false, Type::Scalar, name)?,
                vector: self.typed(arg(1)?, true, Type::Vector, name)?,
            }),
            "histogram_fraction" => Ok(Node::HistogramFraction {
                lower: self.typed(arg(0)?, false, Type::Scalar, name)?,
                upper: self.typed(arg(1)?, false, Type::Scalar, name)?,
                vector: self.typed(arg(2)?, true, Type::Vector, name)?,
            }),
            _ => Err(Refusal::new(name, format!("the function `{name}` is not supported"))),
        }
    }
}

fn text_of(node: &Node, of: &str) -> Result<Arc<str>, Refusal> {
    match node {
        Node::Text(text) => Ok(Arc::clone(text)),
        _ => Err(Refusal::new(of, format!("`{of}` takes a string"))),
    }
}

fn label_name(node: &Node, of: &str) -> Result<(), Refusal> {
    let name = text_of(node, of)?;
    let is_word = name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
    if name.is_empty() || !is_word || name.as_bytes()[0].is_ascii_digit() {
        return Err(Refusal::new(of, format!("`{of}`: {name:?} is not a label name")));
    }
    Ok(())
}

fn sorted(labels: &[String]) -> Vec<Box<str>> {
    let mut labels: Vec<Box<str>> = labels.iter().map(|label| label.as_str().into()).collect();
    labels.sort_unstable();
    labels.dedup();
    labels
}

/// The labels of what is absent: those that the selector fixes, each once.
fn absent_labels(selector: &Selector) -> Arc<[(Box<str>, Box<str>)]> {
    let count = |name: &str| selector.matchers.iter().filter(|matcher| matcher.name() == name).count();
    let fixed = selector.matchers.iter().filter(|matcher| matcher.op() == MatchOp::Equal && count(matcher.name()) == 1);
    fixed.map(|matcher| (matcher.name().into(), matcher.value().into())).collect()
}

fn nanos_of(duration: Duration) -> i64 {
    // A quarter of the range of a timestamp, so that sums of two cannot overflow.
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX).min(i64::MAX / 4)
}

fn offset_of(offset: Option<&Offset>) -> i64 {
    match offset {
        Some(Offset::Pos(duration)) => nanos_of(*duration),
        Some(Offset::Neg(duration)) => -nanos_of(*duration),
        None => 0,
    }
}

fn at_of(at: Option<&AtModifier>) -> Option<At> {
    Some(match at? {
        AtModifier::Start => At::Start,
        AtModifier::End => At::End,
        AtModifier::At(time) => At::Time(match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => nanos_of(after),
            Err(before) => -nanos_of(before.duration()),
        }),
    })
}
