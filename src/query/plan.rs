//! An expression as it is evaluated: the parser's tree with every name resolved.
//!
//! In: nothing; the compiler builds it. Out: [`Node`]. Invariant: what the evaluator cannot do is not representable
//! here, so an unsupported function is an error of the text and never of an evaluation.

use super::matcher::Matcher;
use std::sync::Arc;

/// What a selector selects.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    /// The name it asks for when that is one plain name, else `None`.
    pub name: Option<Arc<str>>,
    /// Conditions on `__name__` beside a plain name.
    pub name_matchers: Vec<Matcher>,
    /// Conditions on labels, sorted by label and operator, so that two spellings of one selector are equal.
    pub matchers: Vec<Matcher>,
    /// Nanoseconds it looks back as a range; 0 for an instant selector.
    pub range: i64,
    /// Nanoseconds before the evaluated time; negative after it.
    pub offset: i64,
    /// The time it is fixed to, instead of the evaluated one.
    pub at: Option<At>,
    /// True when histogram functions read it: a distribution then answers with its cells.
    pub native: bool,
}

impl Selector {
    /// Everything, as it is shown: `{__name__=~".+"}`.
    pub fn all() -> Selector {
        let (name_matchers, matchers) = (Vec::new(), Vec::new());
        Selector { name: None, name_matchers, matchers, range: 0, offset: 0, at: None, native: false }
    }
}

/// `@`
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum At {
    /// Nanoseconds since the epoch.
    Time(i64),
    /// The first evaluated time.
    Start,
    /// The last evaluated time.
    End,
}

/// Where points over time come from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Index into the expression's selectors.
    Selector(usize),
    /// An expression evaluated every `step` nanoseconds.
    Subquery { node: Box<Node>, range: i64, step: i64, offset: i64, at: Option<At> },
}

/// One operation.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Number(f64),
    Text(Arc<str>),
    /// Seconds since the epoch of the evaluated time.
    Time,
    /// Index into the expression's selectors.
    Select(usize),
    /// A range as the result of the whole expression.
    Range(Source),
    Over {
        over: Over,
        source: Source,
        parameter: Option<Box<Node>>,
    },
    AbsentOver {
        source: Source,
        labels: Arc<[(Box<str>, Box<str>)]>,
    },
    Math {
        math: Math,
        vector: Box<Node>,
        scalars: Vec<Node>,
    },
    /// The time of the sample that a selector shows, else of the evaluation.
    Timestamp(Box<Node>),
    /// A scalar as a vector without labels.
    Vector(Box<Node>),
    /// The only value of a vector, else NaN.
    Scalar(Box<Node>),
    Absent {
        vector: Box<Node>,
        labels: Arc<[(Box<str>, Box<str>)]>,
    },
    Sort {
        vector: Box<Node>,
        descending: bool,
    },
    LabelReplace {
        vector: Box<Node>,
        to: Arc<str>,
        replacement: Arc<str>,
        from: Arc<str>,
        pattern: Arc<regex::Regex>,
    },
    LabelJoin {
        vector: Box<Node>,
        to: Arc<str>,
        separator: Arc<str>,
        from: Vec<Arc<str>>,
    },
    HistogramQuantile {
        quantile: Box<Node>,
        vector: Box<Node>,
    },
    HistogramFraction {
        lower: Box<Node>,
        upper: Box<Node>,
        vector: Box<Node>,
    },
    HistogramPart {
        part: HistogramPart,
        vector: Box<Node>,
    },
    Aggregate {
        aggregation: Aggregation,
        parameter: Option<Box<Node>>,
        grouping: Grouping,
        vector: Box<Node>,
    },
    Binary {
        operator: Operator,
        matching: Box<Matching>,
        left: Box<Node>,
        right: Box<Node>,
    },
    Negate(Box<Node>),
}

/// Functions of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Over {
    Rate,
    Irate,
    Increase,
    Delta,
    Idelta,
    Avg,
    Min,
    Max,
    Sum,
    Count,
    Last,
    First,
    Stddev,
    Stdvar,
    Quantile,
    Present,
    Changes,
    Resets,
    Deriv,
    PredictLinear,
}

impl Over {
    /// True for the functions of a gauge that tell the same of slots as of the slices in them.
    pub(super) fn merges_gauges(self) -> bool {
        matches!(self, Over::Min | Over::Max | Over::Sum | Over::Count | Over::Avg | Over::Last | Over::Present)
    }

    /// True for the functions that, of a distribution, make a histogram.
    pub(super) fn keeps_cells(self) -> bool {
        matches!(self, Over::Rate | Over::Irate | Over::Increase | Over::Delta | Over::Idelta)
    }
}

/// Functions of one value, with scalars beside it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Math {
    Abs,
    Ceil,
    Floor,
    Round,
    Sqrt,
    Exp,
    Ln,
    Log2,
    Log10,
    Sgn,
    Clamp,
    ClampMin,
    ClampMax,
    Sin,
    Cos,
    Tan,
    Asin,
    Acos,
    Atan,
    Sinh,
    Cosh,
    Tanh,
    Asinh,
    Acosh,
    Atanh,
    Deg,
    Rad,
    Minute,
    Hour,
    DayOfWeek,
    DayOfMonth,
    DayOfYear,
    DaysInMonth,
    Month,
    Year,
}

/// A figure of a native histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HistogramPart {
    Count,
    Sum,
    Avg,
    Stddev,
    Stdvar,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregation {
    Sum,
    Avg,
    Min,
    Max,
    Count,
    Group,
    Stddev,
    Stdvar,
    TopK,
    BottomK,
    Quantile,
    CountValues,
}

/// `by` or `without`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Grouping {
    /// False for `by`.
    pub(super) without: bool,
    /// Sorted.
    pub(super) labels: Vec<Box<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Sub,
    Mul,
    Div,
    Mod,
    Pow,
    Atan2,
    Equal,
    NotEqual,
    Greater,
    Less,
    GreaterEqual,
    LessEqual,
    And,
    Or,
    Unless,
}

impl Operator {
    pub(super) fn is_comparison(self) -> bool {
        use Operator::*;
        matches!(self, Equal | NotEqual | Greater | Less | GreaterEqual | LessEqual)
    }

    pub(super) fn is_set(self) -> bool {
        matches!(self, Operator::And | Operator::Or | Operator::Unless)
    }
}

/// Which series of two vectors belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Matching {
    /// `bool`
    pub(super) returns_bool: bool,
    /// True for `on`.
    pub(super) on: bool,
    /// Of `on` or `ignoring`, sorted.
    pub(super) labels: Vec<Box<str>>,
    pub(super) side: Side,
    /// Labels copied from the one side.
    pub(super) include: Vec<Box<str>>,
}

/// Which side may have many series of one group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    None,
    Left,
    Right,
}
