//! The JSON Schema against the shipped files, and against what the reader refuses, by a validator of the keywords it uses.

use super::*;

/// Whether a value fits a schema, by the keywords that ours uses; where it does not, the path.
fn fits(
    value: &serde_json::Value,
    schema: &serde_json::Value,
    root: &serde_json::Value,
    path: &str,
) -> Result<(), String> {
    use serde_json::Value;
    let Some(schema) = schema.as_object() else { return Err(format!("{path}: no schema")) };
    for (keyword, rule) in schema {
        let wrong = |what: &str| Err(format!("{path}: {what} ({keyword} {rule})"));
        match keyword.as_str() {
            "$schema" | "title" | "description" | "$defs" => {}
            "$ref" => {
                let name = rule.as_str().and_then(|r| r.strip_prefix("#/$defs/")).expect("a reference");
                fits(value, &root["$defs"][name], root, path)?;
            }
            "type" => {
                let is = match rule.as_str().expect("one type") {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "number" => value.is_number(),
                    other => panic!("type {other}"),
                };
                if !is {
                    return wrong("wrong type");
                }
            }
            "const" if value != rule => return wrong("another value"),
            "enum" if !rule.as_array().expect("a list").contains(value) => return wrong("another value"),
            "const" | "enum" => {}
            "minimum" if value.as_f64().is_some_and(|v| v < rule.as_f64().expect("a number")) => {
                return wrong("too small");
            }
            "minimum" => {}
            "pattern" => {
                if let Some(text) = value.as_str() {
                    let is = match rule.as_str().expect("a pattern") {
                        r"^\$\{[^}]*\}$" => text.starts_with("${") && text.find('}') == Some(text.len() - 1),
                        p if p.contains("(y|w|d|h") => crate::pipeline::value::parse_duration(text).is_ok(),
                        p if p.contains("TiB") => crate::pipeline::value::parse_size(text).is_ok(),
                        other => panic!("pattern {other}"),
                    };
                    if !is {
                        return wrong("does not match");
                    }
                }
            }
            "required" => {
                for key in rule.as_array().expect("a list") {
                    if value.as_object().is_some_and(|map| !map.contains_key(key.as_str().expect("a key"))) {
                        return wrong("a key is missing");
                    }
                }
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    fits(item, rule, root, &format!("{path}[{n}]"))?;
                }
            }
            "properties" | "additionalProperties" => {
                let named = schema.get("properties").and_then(Value::as_object);
                for (key, item) in value.as_object().into_iter().flatten() {
                    let own = named.and_then(|named| named.get(key));
                    let path = format!("{path}.{key}");
                    match (keyword.as_str(), own, rule) {
                        ("properties", Some(own), _) => fits(item, own, root, &path)?,
                        ("additionalProperties", None, Value::Bool(false)) => {
                            return Err(format!("{path}: unknown key"));
                        }
                        ("additionalProperties", None, rule) => fits(item, rule, root, &path)?,
                        _ => {}
                    }
                }
            }
            "anyOf" | "oneOf" => {
                let all: Vec<_> = rule.as_array().expect("a list").iter().map(|s| fits(value, s, root, path)).collect();
                let good = all.iter().filter(|result| result.is_ok()).count();
                if good == 0 || (keyword == "oneOf" && good > 1) {
                    let said: Vec<String> = all.into_iter().filter_map(Result::err).collect();
                    return Err(format!("{path}: {good} of {keyword} fit: {}", said.join("; ")));
                }
            }
            other => panic!("the schema uses {other}, which this test does not know"),
        }
    }
    Ok(())
}

/// JSON has no infinity; a validator of TOML takes it as the number it is.
fn make_finite(value: &mut toml::Value) {
    match value {
        toml::Value::Float(number) if !number.is_finite() => *number = f64::MAX,
        toml::Value::Array(items) => items.iter_mut().for_each(make_finite),
        toml::Value::Table(table) => table.iter_mut().for_each(|(_, value)| make_finite(value)),
        _ => {}
    }
}

fn validate(text: &str) -> Result<(), String> {
    let mut value: toml::Value = toml::from_str(text).map_err(|e| e.to_string())?;
    make_finite(&mut value);
    let schema = crate::pipeline::schema::schema();
    fits(&serde_json::to_value(value).expect("plain values"), &schema, &schema, "file")
}

#[test]
fn shipped_files_fit_the_schema() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    for entry in std::fs::read_dir(folder).expect("the folder stands") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|end| end == "toml") {
            let text = std::fs::read_to_string(&path).expect("readable");
            assert_eq!(validate(&text), Ok(()), "{}", path.display());
        }
    }
    assert_eq!(validate(EVERYTHING), Ok(()));
    assert_eq!(validate(INCLUDED), Ok(()));
}

#[test]
fn the_schema_refuses_what_the_reader_refuses() {
    for text in [
        "widow = \"5m\"",
        "slice = 10",
        "slice = \"ten\"",
        "[http]\nlistn = []",
        "[sources.a]\ntype = \"socket\"\nevery = \"1s\"",
        "[sources.a]\ntype = \"kafka\"",
        "[sources.a]\nlisten = \"x\"",
        "[events.a]\nkept = 1",
        "[events.a.derive.b]\nfeild = \"x\"",
        "[metrics.a]\nhelp = \"x\"",
        "[metrics.a]\ntype = \"counter\"\nfrom = { evnt = \"x\" }",
        "[metrics.a]\ntype = \"counter\"\nfrom = [{ event = 1 }]",
        "[metrics.a]\ntype = \"histogram\"\nbuckets = [true]",
        "[widgets.a]\nb = { series = \"x\", kee = \"y\" }",
        "[widgets.a]\nb = 1",
        "[[panels]]\ntitle = \"x\"",
        "[[tests]]\nname = \"x\"\nexpect = [{ at = 5 }]",
        "[sinks.a]\ntype = \"influx\"",
    ] {
        assert!(validate(text).is_err(), "{text}");
        assert!(load_with(text, &[]).is_err(), "{text}");
    }
    let schema = crate::pipeline::schema::schema();
    assert_eq!(
        schema["properties"]["slice"]["description"],
        "Width of a slice, the smallest span of time that is kept apart."
    );
}
