//! Keys that may be written in several forms: a value or a table, a list or a table.
//!
//! In: [`Node`]s. Out: one value for all forms, and the schema of each. Pure.

use super::diagnostic::{Diagnostic, Diagnostics};
use super::reader::{At, Node, NodeKind};
use super::tables::{FieldTable, LeafTable, object};
use super::written::{Named, Nanos, Written, collect, or_reference};
use serde_json::{Value, json};

/// A tier of the retention: `"24h"` or `{ resolution = "10s", keep = "24h" }`.
#[derive(Clone, Debug)]
pub(super) struct TierWritten {
    pub(super) resolution: Option<At<Nanos>>,
    pub(super) keep: Option<At<Nanos>>,
}

impl Written for TierWritten {
    fn read(node: Node) -> Result<TierWritten, Diagnostics> {
        let place = node.place.clone();
        let NodeKind::Table(entries) = node.kind else {
            let keep = Nanos::read(node)?;
            return Ok(TierWritten { resolution: None, keep: Some(At { value: keep, place }) });
        };
        let mut tier = TierWritten { resolution: None, keep: None };
        for entry in entries {
            let place = entry.node.place.clone();
            let field = match entry.key.as_str() {
                "resolution" => &mut tier.resolution,
                "keep" => &mut tier.keep,
                other => {
                    let message = format!("unknown key \"{other}\" in a tier of retention");
                    return Err(Diagnostic::new(&entry.key_place, message)
                        .nearest(other, ["resolution", "keep"])
                        .into());
                }
            };
            *field = Some(At { value: Nanos::read(entry.node)?, place });
        }
        Ok(tier)
    }

    fn schema() -> Value {
        let nanos = Nanos::schema();
        json!({ "anyOf": [nanos, object(vec![("resolution", nanos.clone()), ("keep", nanos.clone())])] })
    }
}

/// Bounds, or the name of a preset.
#[derive(Clone, Debug)]
pub(super) enum BucketsWritten {
    Preset(String),
    Bounds(Vec<At<f64>>),
}

impl Written for BucketsWritten {
    fn read(node: Node) -> Result<BucketsWritten, Diagnostics> {
        match &node.kind {
            NodeKind::Text { text, .. } if !text.contains(|c: char| c.is_ascii_digit()) => {
                Ok(BucketsWritten::Preset(text.clone()))
            }
            _ => Vec::<At<f64>>::read(node).map(BucketsWritten::Bounds),
        }
    }

    fn schema() -> Value {
        json!({ "anyOf": [{ "type": "string" }, Vec::<At<f64>>::schema()] })
    }
}

/// A type, or a table with a type and a path.
#[derive(Clone, Debug)]
pub(super) struct FieldWritten {
    /// `None`: a table without one.
    pub(super) ty: Option<At<String>>,
    pub(super) path: Option<At<PathWritten>>,
}

impl Written for FieldWritten {
    fn read(node: Node) -> Result<FieldWritten, Diagnostics> {
        if matches!(node.kind, NodeKind::Table(_)) {
            let FieldTable { r#type: ty, path, .. } = FieldTable::read(node)?;
            return Ok(FieldWritten { ty, path });
        }
        let place = node.place.clone();
        Ok(FieldWritten { ty: Some(At { value: String::read(node)?, place }), path: None })
    }

    fn schema() -> Value {
        json!({ "anyOf": [String::schema(), FieldTable::schema()] })
    }
}

/// `"payload.took_ms"` or `["payload", "took.ms"]`.
#[derive(Clone, Debug)]
pub(super) struct PathWritten(pub(super) Vec<String>);

impl Written for PathWritten {
    fn read(node: Node) -> Result<PathWritten, Diagnostics> {
        if let NodeKind::List(items) = node.kind {
            return collect(items.into_iter().map(String::read)).map(PathWritten);
        }
        Ok(PathWritten(String::read(node)?.split('.').map(str::to_owned).collect()))
    }

    fn schema() -> Value {
        json!({ "anyOf": [String::schema(), { "type": "array", "items": String::schema() }] })
    }
}

/// Labels by the names of fields, or each with what it comes from.
#[derive(Clone, Debug)]
pub(super) enum LabelsWritten {
    List(Vec<At<String>>),
    Table(Named<At<String>>),
}

impl<T: Written> Written for At<T> {
    fn read(node: Node) -> Result<At<T>, Diagnostics> {
        let place = node.place.clone();
        Ok(At { value: T::read(node)?, place })
    }

    fn schema() -> Value {
        T::schema()
    }
}

impl Written for LabelsWritten {
    fn read(node: Node) -> Result<LabelsWritten, Diagnostics> {
        if matches!(node.kind, NodeKind::Table(_)) {
            return Named::read(node).map(LabelsWritten::Table);
        }
        Vec::read(node).map(LabelsWritten::List)
    }

    fn schema() -> Value {
        json!({ "anyOf": [Vec::<At<String>>::schema(), Named::<String>::schema()] })
    }
}

/// One expression, or several with names.
#[derive(Clone, Debug)]
pub(super) struct ExprsWritten(pub(super) Vec<(Option<String>, At<String>)>);

impl Written for ExprsWritten {
    fn read(node: Node) -> Result<ExprsWritten, Diagnostics> {
        if matches!(node.kind, NodeKind::Table(_)) {
            let Named(all) = Named::<At<String>>::read(node)?;
            return Ok(ExprsWritten(all.into_iter().map(|(name, expr)| (Some(name.value), expr)).collect()));
        }
        Ok(ExprsWritten(vec![(None, At::read(node)?)]))
    }

    fn schema() -> Value {
        json!({ "anyOf": [String::schema(), Named::<String>::schema()] })
    }
}

/// A number, or `"NaN"`, `"+Inf"`, `"-Inf"`; TOML's `nan` and `inf` too.
#[derive(Clone, Copy, Debug)]
pub(super) struct ValueWritten(pub(super) f64);

impl Written for ValueWritten {
    fn read(node: Node) -> Result<ValueWritten, Diagnostics> {
        if let NodeKind::Text { text, .. } = &node.kind
            && let Ok(value) = text.trim().parse()
        {
            return Ok(ValueWritten(value));
        }
        f64::read(node).map(ValueWritten)
    }

    fn schema() -> Value {
        or_reference(json!({ "anyOf": [{ "type": "number" }, { "enum": ["NaN", "+Inf", "-Inf"] }] }))
    }
}

/// A node of a widget: an expression, a leaf with keys, or more of them under a name.
#[derive(Clone, Debug)]
pub(super) enum LeafWritten {
    Text(At<String>),
    Leaf(Box<LeafTable>),
    Table(Named<LeafWritten>),
}

impl Written for LeafWritten {
    fn read(node: Node) -> Result<LeafWritten, Diagnostics> {
        let NodeKind::Table(entries) = &node.kind else { return At::read(node).map(LeafWritten::Text) };
        // A table is a leaf when one of the keys that make one holds a text; a list can only be names of events.
        let is_leaf = entries.iter().any(|entry| {
            let node = &entry.node.kind;
            matches!(
                (entry.key.as_str(), node),
                ("expr" | "series" | "events", NodeKind::Text { .. }) | ("events", NodeKind::List(_))
            )
        });
        match is_leaf {
            true => LeafTable::read(node).map(|leaf| LeafWritten::Leaf(Box::new(leaf))),
            false => Named::read(node).map(LeafWritten::Table),
        }
    }

    fn schema() -> Value {
        json!({ "$ref": "#/$defs/leaf" })
    }
}

impl LeafWritten {
    /// What [`schema`](Written::schema) refers to.
    pub(super) fn definition() -> Value {
        // A table in which one of these three holds a text is a leaf, as above.
        json!({ "anyOf": [
            String::schema(),
            LeafTable::schema(),
            {
                "type": "object",
                "additionalProperties": { "$ref": "#/$defs/leaf" },
                "properties": {
                    "expr": { "type": "object" },
                    "series": { "type": "object" },
                    "events": { "type": "object" },
                },
            },
        ] })
    }
}
