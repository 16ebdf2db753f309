//! The words of PromQL that are supported: functions, aggregations, operators.
//!
//! In: a word, or the parser's token. Out: what it means, or `None` for what is outside the subset. Invariant: a word
//! stands here once; what is missing is an error that names it.

use crate::query::plan::{Aggregation, Math, Operator, Over};
use promql_parser::parser::token::{self, TokenType};

/// A function of a range.
pub(super) fn over_of(name: &str) -> Option<Over> {
    Some(match name {
        "rate" => Over::Rate,
        "irate" => Over::Irate,
        "increase" => Over::Increase,
        "delta" => Over::Delta,
        "idelta" => Over::Idelta,
        "avg_over_time" => Over::Avg,
        "min_over_time" => Over::Min,
        "max_over_time" => Over::Max,
        "sum_over_time" => Over::Sum,
        "count_over_time" => Over::Count,
        "last_over_time" => Over::Last,
        "first_over_time" => Over::First,
        "stddev_over_time" => Over::Stddev,
        "stdvar_over_time" => Over::Stdvar,
        "quantile_over_time" => Over::Quantile,
        "present_over_time" => Over::Present,
        "changes" => Over::Changes,
        "resets" => Over::Resets,
        "deriv" => Over::Deriv,
        "predict_linear" => Over::PredictLinear,
        _ => return None,
    })
}

/// A function of values, and whether it is of the present time when it has no argument.
pub(super) fn math_of(name: &str) -> Option<(Math, bool)> {
    let plain = match name {
        "abs" => Math::Abs,
        "ceil" => Math::Ceil,
        "floor" => Math::Floor,
        "round" => Math::Round,
        "sqrt" => Math::Sqrt,
        "exp" => Math::Exp,
        "ln" => Math::Ln,
        "log2" => Math::Log2,
        "log10" => Math::Log10,
        "sgn" => Math::Sgn,
        "clamp" => Math::Clamp,
        "clamp_min" => Math::ClampMin,
        "clamp_max" => Math::ClampMax,
        "sin" => Math::Sin,
        "cos" => Math::Cos,
        "tan" => Math::Tan,
        "asin" => Math::Asin,
        "acos" => Math::Acos,
        "atan" => Math::Atan,
        "sinh" => Math::Sinh,
        "cosh" => Math::Cosh,
        "tanh" => Math::Tanh,
        "asinh" => Math::Asinh,
        "acosh" => Math::Acosh,
        "atanh" => Math::Atanh,
        "deg" => Math::Deg,
        "rad" => Math::Rad,
        _ => {
            let of_time = match name {
                "minute" => Math::Minute,
                "hour" => Math::Hour,
                "day_of_week" => Math::DayOfWeek,
                "day_of_month" => Math::DayOfMonth,
                "day_of_year" => Math::DayOfYear,
                "days_in_month" => Math::DaysInMonth,
                "month" => Math::Month,
                "year" => Math::Year,
                _ => return None,
            };
            return Some((of_time, true));
        }
    };
    Some((plain, false))
}

pub(super) fn aggregation_of(op: TokenType) -> Option<Aggregation> {
    Some(match op.id() {
        token::T_SUM => Aggregation::Sum,
        token::T_AVG => Aggregation::Avg,
        token::T_MIN => Aggregation::Min,
        token::T_MAX => Aggregation::Max,
        token::T_COUNT => Aggregation::Count,
        token::T_GROUP => Aggregation::Group,
        token::T_STDDEV => Aggregation::Stddev,
        token::T_STDVAR => Aggregation::Stdvar,
        token::T_TOPK => Aggregation::TopK,
        token::T_BOTTOMK => Aggregation::BottomK,
        token::T_QUANTILE => Aggregation::Quantile,
        token::T_COUNT_VALUES => Aggregation::CountValues,
        _ => return None,
    })
}

pub(super) fn operator_of(op: TokenType) -> Option<Operator> {
    Some(match op.id() {
        token::T_ADD => Operator::Add,
        token::T_SUB => Operator::Sub,
        token::T_MUL => Operator::Mul,
        token::T_DIV => Operator::Div,
        token::T_MOD => Operator::Mod,
        token::T_POW => Operator::Pow,
        token::T_ATAN2 => Operator::Atan2,
        token::T_EQLC => Operator::Equal,
        token::T_NEQ => Operator::NotEqual,
        token::T_GTR => Operator::Greater,
        token::T_LSS => Operator::Less,
        token::T_GTE => Operator::GreaterEqual,
        token::T_LTE => Operator::LessEqual,
        token::T_LAND => Operator::And,
        token::T_LOR => Operator::Or,
        token::T_LUNLESS => Operator::Unless,
        _ => return None,
    })
}
