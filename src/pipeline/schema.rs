//! The JSON Schema of pipeline files (draft 2020-12), for editors and for whoever writes such files by program.
//!
//! Out: one document, from the same lines as the reader (`tables.rs`). Invariant: what the reader refuses as unknown or
//! as a wrong type, the schema refuses; what needs more than the value itself (names, ranges, conditions) only `check` sees.

use super::forms::LeafWritten;
use super::tables::*;
use super::written::Written;
use serde_json::{Map, Value, json};

/// The schema.
pub fn schema() -> Value {
    let mut keys = [FileTable::properties(), TopTable::properties()].concat();
    let tables = [
        ("defaults", DefaultsTable::schema()),
        ("store", StoreTable::schema()),
        ("limits", LimitsTable::schema()),
        ("http", HttpTable::schema()),
        ("sources", each(sources())),
        ("events", each(EventTable::schema())),
        ("pairs", each(PairTable::schema())),
        ("metrics", each(required(MetricTable::schema(), &["type"]))),
        ("widgets", each(json!({ "type": "object", "additionalProperties": LeafWritten::schema() }))),
        ("panels", json!({ "type": "array", "items": required(PanelTable::schema(), &["title", "expr"]) })),
        ("rules", RulesTable::schema()),
        ("tests", json!({ "type": "array", "items": required(TestTable::schema(), &["name", "expect"]) })),
    ];
    keys.extend(tables);
    let mut out = Map::new();
    out.insert("$schema".into(), "https://json-schema.org/draft/2020-12/schema".into());
    out.insert("title".into(), "hydrograph pipeline file".into());
    let Value::Object(body) = object(keys) else { unreachable!("an object's schema is an object") };
    out.extend(body);
    out.insert("$defs".into(), json!({ "leaf": LeafWritten::definition() }));
    Value::Object(out)
}

/// A table of tables with free names.
fn each(schema: Value) -> Value {
    json!({ "type": "object", "additionalProperties": schema })
}

fn required(mut schema: Value, keys: &[&str]) -> Value {
    if let Value::Object(map) = &mut schema {
        map.insert("required".into(), keys.into());
    }
    schema
}

/// A source has the keys of its type.
fn sources() -> Value {
    let of = |word: &str, schema: Value| {
        let mut schema = required(schema, &["type"]);
        schema["properties"]["type"] = json!({ "const": word });
        schema
    };
    json!({ "oneOf": [
        of("socket", SocketTable::schema()),
        of("host", HostTable::schema()),
        of("process", required_match(ProcessTable::schema())),
        of("gpu", GpuTable::schema()),
        of("internal", InternalTable::schema()),
    ] })
}

fn required_match(schema: Value) -> Value {
    required(schema, &["type", "match"])
}
