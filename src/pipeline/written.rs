//! The types that a key may have: how each is read from a value as written, and what its JSON Schema is.
//!
//! In: [`Node`]s. Out: values, or everything that is wrong with them; schemas. Pure. Invariant: what a schema accepts
//! beside the type itself is one reference to the environment (`"${NAME}"`), which takes the type of its key.

use super::diagnostic::{Diagnostic, Diagnostics};
use super::reader::{At, Node, NodeKind};
use super::value::{parse_duration, parse_size};
use serde_json::{Value, json};

/// A type that a key may have.
pub(super) trait Written: Sized {
    /// The value of a node.
    fn read(node: Node) -> Result<Self, Diagnostics>;

    /// The JSON Schema of what [`read`](Written::read) accepts in a file.
    fn schema() -> Value;
}

/// A schema, or a reference to the environment in its place.
pub(super) fn or_reference(schema: Value) -> Value {
    json!({ "anyOf": [schema, { "type": "string", "pattern": "^\\$\\{[^}]*\\}$" }] })
}

/// A span of time in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Nanos(pub(super) i64);

/// A size in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bytes(pub(super) u64);

/// A secret: its text, and whether it stands in the file itself.
#[derive(Clone)]
pub(super) struct SecretText {
    pub(super) text: String,
    pub(super) literal: bool,
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretText(…)")
    }
}

impl Written for String {
    fn read(node: Node) -> Result<String, Diagnostics> {
        match node.kind {
            NodeKind::Text { text, .. } => Ok(text),
            _ => Err(node.expected("a string").into()),
        }
    }

    fn schema() -> Value {
        json!({ "type": "string" })
    }
}

impl Written for SecretText {
    fn read(node: Node) -> Result<SecretText, Diagnostics> {
        match node.kind {
            NodeKind::Text { text, literal, .. } => Ok(SecretText { text, literal }),
            _ => Err(node.expected("a string").into()),
        }
    }

    fn schema() -> Value {
        json!({ "type": "string" })
    }
}

impl Written for bool {
    fn read(node: Node) -> Result<bool, Diagnostics> {
        match (&node.kind, node.whole()) {
            (NodeKind::Bool(value), _) => Ok(*value),
            (_, Some("true")) => Ok(true),
            (_, Some("false")) => Ok(false),
            _ => Err(node.expected("true or false").into()),
        }
    }

    fn schema() -> Value {
        or_reference(json!({ "type": "boolean" }))
    }
}

impl Written for u64 {
    fn read(node: Node) -> Result<u64, Diagnostics> {
        let number = match (&node.kind, node.whole()) {
            (NodeKind::Integer(number), _) => u64::try_from(*number).ok(),
            (_, Some(text)) => text.replace('_', "").parse().ok(),
            _ => None,
        };
        number.ok_or_else(|| node.expected("a whole number, not negative").into())
    }

    fn schema() -> Value {
        or_reference(json!({ "type": "integer", "minimum": 0 }))
    }
}

impl Written for f64 {
    fn read(node: Node) -> Result<f64, Diagnostics> {
        match (&node.kind, node.whole()) {
            (NodeKind::Integer(number), _) => Ok(*number as f64),
            (NodeKind::Float(number), _) => Ok(*number),
            (_, Some(text)) => text.parse().map_err(|_| node.expected("a number").into()),
            _ => Err(node.expected("a number").into()),
        }
    }

    fn schema() -> Value {
        or_reference(json!({ "type": "number" }))
    }
}

impl Written for Nanos {
    fn read(node: Node) -> Result<Nanos, Diagnostics> {
        match &node.kind {
            NodeKind::Text { text, .. } => {
                parse_duration(text).map(Nanos).map_err(|e| Diagnostic::new(&node.place, e).into())
            }
            _ => Err(node.expected("a duration like \"10s\"").into()),
        }
    }

    fn schema() -> Value {
        or_reference(json!({ "type": "string", "pattern": "^([0-9]+(y|w|d|h|m|s|ms|us|ns))+$" }))
    }
}

impl Written for Bytes {
    fn read(node: Node) -> Result<Bytes, Diagnostics> {
        match &node.kind {
            NodeKind::Text { text, .. } => {
                parse_size(text).map(Bytes).map_err(|e| Diagnostic::new(&node.place, e).into())
            }
            NodeKind::Integer(number) if *number >= 0 => Ok(Bytes(*number as u64)),
            _ => Err(node.expected("a size like \"256MiB\"").into()),
        }
    }

    fn schema() -> Value {
        or_reference(
            json!({ "anyOf": [{ "type": "string", "pattern": "^[0-9]+ *(TiB|GiB|MiB|KiB|TB|GB|MB|kB|KB|B)?$" }, { "type": "integer", "minimum": 0 }] }),
        )
    }
}

/// A list; one value stands for a list of one, and a variable is split at its commas.
impl<T: Written> Written for Vec<At<T>> {
    fn read(node: Node) -> Result<Vec<At<T>>, Diagnostics> {
        let items = match (node.whole(), node.kind.clone()) {
            (Some(text), _) => split(text).map(|part| text_node(part, &node)).collect(),
            (None, NodeKind::List(items)) => items,
            (None, _) => vec![node],
        };
        collect(items.into_iter().map(|item| {
            let place = item.place.clone();
            T::read(item).map(|value| At { value, place })
        }))
    }

    fn schema() -> Value {
        let item = T::schema();
        json!({ "anyOf": [item, { "type": "array", "items": item }] })
    }
}

fn split(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn text_node(text: &str, of: &Node) -> Node {
    Node { kind: NodeKind::Text { text: text.to_owned(), whole: true, literal: false }, place: of.place.clone() }
}

/// All values, or all that is wrong with any of them.
pub(super) fn collect<T>(items: impl Iterator<Item = Result<T, Diagnostics>>) -> Result<Vec<T>, Diagnostics> {
    let mut errors = Diagnostics::new();
    let mut out = Vec::new();
    for item in items {
        match item {
            Ok(value) => out.push(value),
            Err(more) => errors.append(more),
        }
    }
    if errors.is_empty() { Ok(out) } else { Err(errors) }
}

/// Names with values, in the order of the file; the place is the key's. A variable is `name=value,name=value`.
#[derive(Clone, Debug)]
pub(super) struct Named<T>(pub(super) Vec<(At<String>, T)>);

/// Names with texts.
pub(super) type TextMap = Named<String>;

impl<T: Written> Written for Named<T> {
    fn read(node: Node) -> Result<Named<T>, Diagnostics> {
        if let Some(text) = node.whole() {
            let pairs = split(text).map(|pair| {
                let (key, value) = pair.split_once('=').ok_or_else(|| node.expected("name=value pairs"))?;
                let key = At { value: key.trim().to_owned(), place: node.place.clone() };
                T::read(text_node(value.trim(), &node)).map(|value| (key, value))
            });
            return collect(pairs).map(Named);
        }
        let NodeKind::Table(entries) = node.kind else { return Err(node.expected("a table").into()) };
        collect(entries.into_iter().map(|entry| {
            let key = At { value: entry.key, place: entry.key_place };
            T::read(entry.node).map(|value| (key, value))
        }))
        .map(Named)
    }

    fn schema() -> Value {
        json!({ "type": "object", "additionalProperties": T::schema() })
    }
}
