//! From the text of a condition to its checked form.
//!
//! In: text, a schema. Out: an expression whose literals fit their fields, or an error with its place. Invariant: never
//! panics and never recurses deeper than [`DEPTH_MAX`], whatever the text.

use super::{ConditionError, Expr, Operand, Order, Pattern};
use crate::event::Number;
use crate::rule::typed::{EventSpec, FieldType, whole_text};
use std::ops::Range;

/// Parentheses and `not`s inside one another: far more than anybody writes, far less than a stack holds.
const DEPTH_MAX: usize = 64;

#[derive(Clone, Debug, PartialEq)]
enum Token<'t> {
    Name(&'t str),
    Text(String),
    Number(Number),
    Operator(&'static str),
    Open,
    Close,
    End,
}

pub(super) fn parse(text: &str, event: &EventSpec) -> Result<Expr, ConditionError> {
    let mut parser = Parser { text, event, at: 0, token: Token::End, span: 0..0, depth: 0 };
    parser.advance()?;
    let expr = parser.any()?;
    match parser.token {
        Token::End => Ok(expr),
        Token::Close => Err(error("this parenthesis was never opened", parser.span)),
        _ => Err(error("expected `and`, `or` or the end", parser.span)),
    }
}

struct Parser<'t> {
    text: &'t str,
    event: &'t EventSpec,
    /// Behind the current token.
    at: usize,
    token: Token<'t>,
    span: Range<usize>,
    depth: usize,
}

fn error(message: impl Into<String>, span: Range<usize>) -> ConditionError {
    ConditionError { message: message.into(), span }
}

const OPERATORS: [&str; 8] = ["==", "!=", "<=", ">=", "=~", "!~", "<", ">"];

impl<'t> Parser<'t> {
    fn advance(&mut self) -> Result<(), ConditionError> {
        let rest = &self.text[self.at..];
        let start = self.at + (rest.len() - rest.trim_start().len());
        let rest = &self.text[start..];
        let (token, length) = match rest.as_bytes() {
            [] => (Token::End, 0),
            [b'(', ..] => (Token::Open, 1),
            [b')', ..] => (Token::Close, 1),
            [b'\'', ..] => quoted(rest, start)?,
            [b'"', ..] => return Err(error("write strings in single quotes", start..start + 1)),
            [b'0'..=b'9' | b'-' | b'+' | b'.', ..] => {
                let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.' | b'_');
                let length = rest.bytes().take_while(|byte| is_part(byte)).count();
                match Number::parse(&rest.as_bytes()[..length]) {
                    Ok(number) => (Token::Number(number), length),
                    Err(_) => {
                        let message = format!("`{}` is not a number; units are those of the field", &rest[..length]);
                        return Err(error(message, start..start + length));
                    }
                }
            }
            [first, ..] if first.is_ascii_alphabetic() || *first == b'_' => {
                let length = rest.bytes().take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_').count();
                (Token::Name(&rest[..length]), length)
            }
            _ => match OPERATORS.into_iter().find(|operator| rest.starts_with(operator)) {
                Some(operator) => (Token::Operator(operator), operator.len()),
                None => {
                    let length = rest.chars().next().map_or(1, char::len_utf8);
                    let hint = match &rest[..length] {
                        "=" => "; equality is `==`",
                        "!" => "; negation is `not`",
                        "&" => "; write `and`",
                        "|" => "; write `or`",
                        _ => "",
                    };
                    let message = format!("`{}` means nothing here{hint}", &rest[..length]);
                    return Err(error(message, start..start + length));
                }
            },
        };
        (self.token, self.span, self.at) = (token, start..start + length, start + length);
        Ok(())
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.token, Token::Name(name) if name == word)
    }

    fn any(&mut self) -> Result<Expr, ConditionError> {
        let mut parts = vec![self.all()?];
        while self.is_word("or") {
            self.advance()?;
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::Any(parts) })
    }

    fn all(&mut self) -> Result<Expr, ConditionError> {
        let mut parts = vec![self.term()?];
        while self.is_word("and") {
            self.advance()?;
            parts.push(self.term()?);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Expr::All(parts) })
    }

    fn term(&mut self) -> Result<Expr, ConditionError> {
        if self.depth == DEPTH_MAX {
            return Err(error(format!("more than {DEPTH_MAX} levels"), self.span.clone()));
        }
        self.depth += 1;
        let expr = self.term_inside();
        self.depth -= 1;
        expr
    }

    fn term_inside(&mut self) -> Result<Expr, ConditionError> {
        if self.is_word("not") {
            self.advance()?;
            return Ok(Expr::Not(Box::new(self.term()?)));
        }
        if self.token == Token::Open {
            let open = self.span.clone();
            self.advance()?;
            let expr = self.any()?;
            if self.token != Token::Close {
                return Err(match self.token {
                    Token::End => error("this parenthesis is never closed", open),
                    _ => error("expected `)`, `and` or `or`", self.span.clone()),
                });
            }
            self.advance()?;
            return Ok(expr);
        }
        self.comparison()
    }

    fn comparison(&mut self) -> Result<Expr, ConditionError> {
        let Token::Name(name) = self.token else {
            let message = match self.token {
                Token::End if self.text.trim().is_empty() => "the condition is empty",
                Token::End => "a field is missing at the end",
                Token::Text(_) | Token::Number(_) => "a comparison begins with its field: `field == literal`",
                _ => "expected a field",
            };
            return Err(error(message, self.span.clone()));
        };
        let name_span = self.span.clone();
        let (operand, ty) = self.operand(name)?;
        self.advance()?;
        let Token::Operator(operator) = self.token else {
            return match ty {
                Some(FieldType::Bool) => Ok(Expr::Bool(operand, true)),
                _ => Err(error(
                    format!("only a bool stands alone, and `{name}` is {}; compare it", describe(ty)),
                    name_span,
                )),
            };
        };
        let operator_span = self.span.clone();
        self.advance()?;
        let literal = std::mem::replace(&mut self.token, Token::End);
        let literal_span = self.span.clone();
        let expr = self.compare(name, (operand, ty), (operator, operator_span), (literal, literal_span))?;
        self.advance()?;
        Ok(expr)
    }

    fn compare(
        &self,
        name: &str,
        (operand, ty): (Operand, Option<FieldType>),
        (operator, operator_span): (&'static str, Range<usize>),
        (literal, span): (Token<'t>, Range<usize>),
    ) -> Result<Expr, ConditionError> {
        let unfit =
            |wanted: &str| error(format!("`{name}` is {}: compare it with {wanted}", describe(ty)), span.clone());
        let fits = match ty {
            None | Some(FieldType::String) => matches!(operator, "==" | "!=" | "=~" | "!~"),
            Some(FieldType::Bool) => matches!(operator, "==" | "!="),
            Some(_) => !matches!(operator, "=~" | "!~"),
        };
        if !fits {
            return Err(error(
                format!("`{name}` is {}, which `{operator}` cannot compare", describe(ty)),
                operator_span,
            ));
        }
        let is_positive = matches!(operator, "==" | "=~");
        match (ty, literal) {
            (_, Token::End) => Err(error("a literal is missing at the end", span)),
            (None | Some(FieldType::String), Token::Text(text)) => match operator {
                "==" | "!=" => Ok(Expr::Text(operand, is_positive, text.into())),
                _ => match whole_text(&text) {
                    Ok(regex) => Ok(Expr::Match(operand, is_positive, Pattern(regex))),
                    Err(message) => Err(error(message, span)),
                },
            },
            (None | Some(FieldType::String), _) => Err(unfit("a string in single quotes")),
            (Some(FieldType::Bool), Token::Name(word @ ("true" | "false"))) => {
                Ok(Expr::Bool(operand, (word == "true") == is_positive))
            }
            (Some(FieldType::Bool), _) => Err(unfit("true or false")),
            (Some(_), Token::Number(number)) => {
                let order = match operator {
                    "==" => Order::Equal,
                    "!=" => Order::NotEqual,
                    "<" => Order::Less,
                    "<=" => Order::LessOrEqual,
                    ">" => Order::Greater,
                    _ => Order::GreaterOrEqual,
                };
                Ok(Expr::Number(operand, order, number))
            }
            (Some(_), _) => Err(unfit("a number")),
        }
    }

    /// The operand of a name, and its type; `None` for a derived text.
    fn operand(&self, name: &str) -> Result<(Operand, Option<FieldType>), ConditionError> {
        let event = self.event;
        if let Some(at) = event.fields.iter().position(|field| field.name == name) {
            return Ok((Operand::Field(at), Some(event.fields[at].ty)));
        }
        if let Some(at) = event.derived.iter().position(|derived| derived.name == name) {
            return Ok((Operand::Derived(at), None));
        }
        let names =
            event.fields.iter().map(|field| &field.name).chain(event.derived.iter().map(|derived| &derived.name));
        let nearest = names
            .map(|known| (strsim::jaro_winkler(known, name), known))
            .filter(|(likeness, _)| *likeness > 0.7)
            .max_by(|a, b| a.0.total_cmp(&b.0));
        let hint = nearest.map_or_else(String::new, |(_, known)| format!("; did you mean `{known}`?"));
        Err(error(format!("event {:?} has no field `{name}`{hint}", event.name), self.span.clone()))
    }
}

fn describe(ty: Option<FieldType>) -> String {
    ty.map_or_else(|| "a derived text".to_owned(), |ty| format!("of type {}", ty.as_str()))
}

/// A string in single quotes, where `\'` is a quote and `\\` a backslash; its length with the quotes.
fn quoted<'t>(rest: &str, start: usize) -> Result<(Token<'t>, usize), ConditionError> {
    let mut text = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, char)) = chars.next() {
        match char {
            '\'' => return Ok((Token::Text(text), at + 1)),
            '\\' => match chars.next() {
                Some((_, escaped @ ('\'' | '\\'))) => text.push(escaped),
                // Patterns are full of backslashes, and nobody wants to double them.
                Some((_, other)) => text.extend(['\\', other]),
                None => break,
            },
            other => text.push(other),
        }
    }
    Err(error("this string is never closed", start..start + rest.len()))
}
