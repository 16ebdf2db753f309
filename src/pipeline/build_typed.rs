//! `[events.NAME]` and `[pairs.NAME]` as meant.
//!
//! In: the tables as written. Out: [`EventSpec`]s and [`PairSpec`]s with their places, also those that are switched off,
//! since what refers to them is still checked. Invariants: each name once; a derived text has no field's name; what
//! refers to an event that was refused is not reported too.

use super::build::{DAY, SECOND, nanos};
use super::config::Config;
use super::diagnostic::{Diagnostic, Diagnostics, Place};
use super::forms::FieldWritten;
use super::reader::At;
use super::tables::{DeriveTable, EventTable, PairTable};
use crate::delta::kept::KEEP_MAX;
use crate::rule::is_label_name;
use crate::rule::typed::{
    Class, DeriveFrom, DeriveSpec, EventSpec, FIELDS_MAX, FieldSpec, FieldType, PairSpec, whole_text,
};

/// The types of fields by their words.
pub(super) const FIELD_TYPES: [(&str, FieldType); 9] = [
    ("string", FieldType::String),
    ("bool", FieldType::Bool),
    ("int", FieldType::Int),
    ("float", FieldType::Float),
    ("seconds", FieldType::Seconds),
    ("milliseconds", FieldType::Milliseconds),
    ("microseconds", FieldType::Microseconds),
    ("bytes", FieldType::Bytes),
    ("timestamp", FieldType::Timestamp),
];

/// The word of a type.
pub(super) fn type_word(ty: FieldType) -> &'static str {
    FIELD_TYPES.iter().find(|(_, known)| *known == ty).map_or("string", |(word, _)| word)
}

/// Longest name of an event or a pair: it becomes the value of a label.
const NAME_BYTES_MAX: usize = 200;
/// Most distinct values of a derived text: each is kept.
const DISTINCT_MAX: u64 = 1_000_000;
/// Most keys of a path.
const PATH_MAX: usize = 16;
/// Keys of every event; a field that has one of these names has to say where it stands.
const RESERVED: [&str; 3] = ["event", "time", "weight"];
/// Words of conditions.
const CONDITION_WORDS: [&str; 5] = ["and", "or", "not", "true", "false"];

/// An event and where it is declared.
pub(super) struct Event {
    pub(super) spec: EventSpec,
    pub(super) place: Place,
    pub(super) enabled: bool,
    /// A part of it was refused: what is not there may have been meant to be.
    pub(super) broken: bool,
}

/// A pair and where it is declared.
pub(super) struct Pair {
    pub(super) spec: PairSpec,
    /// False also when one of its events is switched off.
    pub(super) enabled: bool,
}

/// `[events]`. What several files declare must be the same.
pub(super) fn events(config: &Config, errors: &mut Diagnostics) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    for (name, table) in &config.events {
        let Some(event) = event(name, table, errors) else { continue };
        match events.iter().find(|known| known.spec.name == event.spec.name) {
            None => events.push(event),
            Some(known) if known.spec == event.spec && known.enabled == event.enabled => {}
            Some(known) if known.broken || event.broken => {}
            Some(known) => {
                let message = format!("event \"{}\" is declared twice, and not the same", name.value);
                errors.push(
                    Diagnostic::new(&name.place, message)
                        .note(format!("first in {}: {}", known.place.line(), difference(known, &event)))
                        .note("an event that several files declare has the same fields, derive and keep in all"),
                );
            }
        }
    }
    events
}

/// What is not the same in two declarations of one event.
fn difference(first: &Event, second: &Event) -> String {
    if first.enabled != second.enabled {
        return "enabled differs".into();
    }
    let (a, b) = (&first.spec, &second.spec);
    let missing = |from: &EventSpec, to: &EventSpec| {
        from.fields.iter().find(|field| !to.fields.contains(field)).map(|field| field.name.clone())
    };
    match missing(b, a).or_else(|| missing(a, b)) {
        Some(field) => format!("field \"{field}\" differs"),
        None if a.derived != b.derived => "derive differs".into(),
        None if a.keep != b.keep => "keep differs".into(),
        None => "the order of the fields differs".into(),
    }
}

fn is_event_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.contains(char::is_control)
}

fn event(name: &At<String>, table: &EventTable, errors: &mut Diagnostics) -> Option<Event> {
    if !is_event_name(&name.value) {
        let d = Diagnostic::new(&name.place, "not a name of an event");
        errors.push(d.note(format!("1 to {NAME_BYTES_MAX} bytes without control characters")));
        return None;
    }
    let mut own = Diagnostics::new();
    let mut fields = Vec::new();
    for (field, written) in table.fields.iter().flat_map(|at| &at.value.0) {
        fields.extend(field_spec(field, written, &mut own));
    }
    if fields.len() > FIELDS_MAX {
        let place = table.fields.as_ref().map_or(&name.place, |at| &at.place);
        let message = format!("event \"{}\" has {} fields; at most {FIELDS_MAX}", name.value, fields.len());
        own.push(Diagnostic::new(place, message).note("keys that no field names are ignored"));
        fields.truncate(FIELDS_MAX);
    }
    let mut derived: Vec<DeriveSpec> = Vec::new();
    for (key, written) in table.derive.iter().flat_map(|at| &at.value.0) {
        if fields.iter().any(|field| field.name == key.value) {
            let d = Diagnostic::new(&key.place, format!("\"{}\" is a field already", key.value));
            own.push(d.note("give the derived text a name of its own; a label may be named otherwise: labels = { label = \"name\" }"));
            continue;
        }
        if is_field_name(key, &mut own) {
            derived.extend(
                derive(key, written, &fields, &mut own).map(|from| DeriveSpec { name: key.value.clone(), from }),
            );
        }
    }
    let mut keep = 0;
    if let Some(at) = &table.keep {
        if at.value > u64::from(KEEP_MAX) {
            let message = format!("keep = {} is out of range", at.value);
            own.push(Diagnostic::new(&at.place, message).note(format!("at most {KEEP_MAX}")));
        }
        keep = at.value.min(u64::from(KEEP_MAX)) as u32;
    }
    let broken = !own.is_empty();
    errors.append(own);
    Some(Event {
        spec: EventSpec { name: name.value.clone(), fields, derived, keep },
        place: name.place.clone(),
        enabled: table.enabled.as_ref().is_none_or(|at| at.value),
        broken,
    })
}

/// Whether a name can stand in conditions; says so if not.
fn is_field_name(name: &At<String>, errors: &mut Diagnostics) -> bool {
    if CONDITION_WORDS.contains(&name.value.as_str()) {
        let d = Diagnostic::new(&name.place, format!("\"{}\" is a word of conditions", name.value));
        errors
            .push(d.note("choose another name, and say where the field stands: { type = \"string\", path = \"not\" }"));
        return false;
    }
    if !is_label_name(&name.value) {
        let d = Diagnostic::new(&name.place, format!("\"{}\" is not a name of a field", name.value));
        let better = crate::rule::escape_label_name(&name.value).into_owned();
        errors.push(d.note(format!(
            "letters, digits and \"_\"; for a key that is written otherwise: {better} = {{ type = \"...\", path = [\"{}\"] }}",
            name.value
        )));
        return false;
    }
    true
}

fn field_spec(name: &At<String>, written: &FieldWritten, errors: &mut Diagnostics) -> Option<FieldSpec> {
    if !is_field_name(name, errors) {
        return None;
    }
    let Some(ty) = &written.ty else {
        let d = Diagnostic::new(&name.place, format!("field \"{}\" has no type", name.value));
        errors.push(d.note("add type = \"string\""));
        return None;
    };
    let (word, optional) = ty.value.strip_suffix('?').map_or((ty.value.as_str(), false), |word| (word, true));
    let Some((_, field_type)) = FIELD_TYPES.iter().find(|(known, _)| *known == word) else {
        let d = Diagnostic::new(&ty.place, format!("unknown type \"{word}\" of field \"{}\"", name.value));
        errors.push(d.nearest(word, FIELD_TYPES.map(|(word, _)| word)));
        return None;
    };
    let path = match &written.path {
        None if RESERVED.contains(&name.value.as_str()) => {
            let d = Diagnostic::new(&name.place, format!("\"{}\" is a key of every event", name.value));
            errors.push(d.note("event, time and weight are taken out before the fields; give the field another name"));
            return None;
        }
        None => vec![name.value.clone()],
        Some(at) => {
            let keys = &at.value.0;
            if keys.is_empty() || keys.len() > PATH_MAX || keys.iter().any(String::is_empty) {
                let d = Diagnostic::new(&at.place, format!("field \"{}\" has no path that leads anywhere", name.value));
                errors.push(d.note(format!("1 to {PATH_MAX} keys, as in path = \"payload.took_ms\"")));
                return None;
            }
            keys.clone()
        }
    };
    Some(FieldSpec { name: name.value.clone(), ty: *field_type, optional, path })
}

fn derive(
    name: &At<String>,
    table: &DeriveTable,
    fields: &[FieldSpec],
    errors: &mut Diagnostics,
) -> Option<DeriveFrom> {
    let shown = format!("derived text \"{}\"", name.value);
    let Some(at) = &table.field else {
        let Some(text) = &table.r#const else {
            let d = Diagnostic::new(&name.place, format!("{shown} comes from nowhere"));
            errors.push(d.note("add field = \"...\", or const = \"...\""));
            return None;
        };
        let others = [
            table.regex.is_some(),
            table.replace.is_some(),
            table.class.is_some(),
            table.map.is_some(),
            table.default.is_some(),
            table.distinct_max.is_some(),
            table.other.is_some(),
        ];
        if others.contains(&true) {
            let d = Diagnostic::new(&text.place, format!("{shown} is constant, so nothing can be made of it"));
            errors.push(d.note("beside const stands no other key"));
        }
        return Some(DeriveFrom::Const(text.value.clone()));
    };
    if let Some(text) = &table.r#const {
        let d = Diagnostic::new(&text.place, format!("{shown} has both field and const"));
        errors.push(d.note("keep one of them; default = \"...\" stands for a field that is missing"));
    }
    let Some(field) = fields.iter().find(|field| field.name == at.value) else {
        let d = Diagnostic::new(&at.place, format!("unknown field \"{}\"", at.value));
        errors.push(d.nearest(&at.value, fields.iter().map(|field| field.name.as_str())));
        return None;
    };
    if !matches!(field.ty, FieldType::String | FieldType::Bool | FieldType::Int) {
        let message = format!("{shown} is made of \"{}\", a field of type {}", field.name, type_word(field.ty));
        errors.push(Diagnostic::new(&at.place, message).note("a text is made of string, bool or int"));
        return None;
    }
    let class = match &table.class {
        None => None,
        Some(at) if at.value == "http" => Some(Class::Http),
        Some(at) => {
            let d = Diagnostic::new(&at.place, format!("unknown class \"{}\"", at.value));
            errors.push(d.nearest(&at.value, ["http"]));
            None
        }
    };
    if let (Some(at), FieldType::Bool) = (&table.class, field.ty) {
        errors.push(Diagnostic::new(&at.place, format!("a bool has no class; \"{}\" is one", field.name)));
    }
    let map: Vec<(String, String)> = table
        .map
        .iter()
        .flat_map(|at| &at.value.0)
        .map(|(from, to)| {
            if field.ty == FieldType::Bool && !["true", "false"].contains(&from.value.as_str()) {
                let d = Diagnostic::new(&from.place, format!("\"{}\" is never a bool's text", from.value));
                errors.push(d.nearest(&from.value, ["true", "false"]));
            }
            (from.value.clone(), to.clone())
        })
        .collect();
    if let (Some(at), None) = (&table.other, &table.distinct_max) {
        let d = Diagnostic::new(&at.place, "other without distinct_max");
        errors
            .push(d.note("other is what values become past distinct_max; default stands for a field that is missing"));
    }
    let distinct_max = table.distinct_max.as_ref().map(|at| {
        if at.value == 0 || at.value > DISTINCT_MAX {
            let message = format!("distinct_max = {} is out of range", at.value);
            errors.push(Diagnostic::new(&at.place, message).note(format!("1 to {DISTINCT_MAX}")));
        }
        at.value.clamp(1, DISTINCT_MAX) as u32
    });
    Some(DeriveFrom::Field {
        field: field.name.clone(),
        regex: regex(table, errors),
        class,
        map,
        default: table.default.as_ref().map(|at| at.value.clone()),
        distinct_max,
        other: table.other.as_ref().map_or_else(|| "other".into(), |at| at.value.clone()),
    })
}

fn regex(table: &DeriveTable, errors: &mut Diagnostics) -> Option<(String, String)> {
    match (&table.regex, &table.replace) {
        (None, None) => None,
        (Some(regex), Some(replace)) => {
            if let Err(message) = whole_text(&regex.value) {
                errors.push(Diagnostic::new(&regex.place, message).note("it has to match the whole text"));
                return None;
            }
            Some((regex.value.clone(), replace.value.clone()))
        }
        (Some(at), None) => {
            errors.push(Diagnostic::new(&at.place, "regex without replace").note("add replace = \"$1\""));
            None
        }
        (None, Some(at)) => {
            errors.push(Diagnostic::new(&at.place, "replace without regex").note("add regex = \"...\""));
            None
        }
    }
}

/// `[pairs]`.
pub(super) fn pairs(config: &Config, events: &[Event], errors: &mut Diagnostics) -> Vec<Pair> {
    let mut pairs: Vec<(Pair, Place)> = Vec::new();
    for (name, table) in &config.pairs {
        let Some(pair) = pair(name, table, events, errors) else { continue };
        match pairs.iter().find(|(known, _)| known.spec.name == pair.spec.name) {
            None => pairs.push((pair, name.place.clone())),
            Some((known, _)) if known.spec == pair.spec => {}
            Some((_, place)) => {
                let d = Diagnostic::new(
                    &name.place,
                    format!("pair \"{}\" is declared twice, and not the same", name.value),
                );
                errors.push(d.note(format!("first in {}", place.line())));
            }
        }
    }
    pairs.into_iter().map(|(pair, _)| pair).collect()
}

fn pair(name: &At<String>, table: &PairTable, events: &[Event], errors: &mut Diagnostics) -> Option<Pair> {
    if !is_event_name(&name.value) {
        errors.push(Diagnostic::new(&name.place, "not a name of a pair"));
        return None;
    }
    let mut own = Diagnostics::new();
    let mut event = |at: &Option<At<String>>, key: &str| {
        let Some(at) = at else {
            let d = Diagnostic::new(&name.place, format!("pair \"{}\" has no {key}", name.value));
            own.push(d.note(format!("add {key} = \"EVENT\"")));
            return None;
        };
        let found = events.iter().find(|event| event.spec.name == at.value);
        if found.is_none() {
            own.push(unknown_event(at, events));
        }
        found
    };
    let (start, end) = (event(&table.start, "start"), event(&table.end, "end"));
    if let (Some(start), Some(end), Some(at)) = (start, end, &table.end)
        && start.spec.name == end.spec.name
    {
        let d = Diagnostic::new(&at.place, format!("\"{}\" opens and closes the pair", at.value));
        own.push(d.note("start and end are two events"));
    }
    match &table.key {
        None => {
            let d = Diagnostic::new(&name.place, format!("pair \"{}\" has no key", name.value));
            own.push(d.note("add key = \"FIELD\", a field of both events"));
        }
        Some(at) => {
            let both = [start, end.filter(|end| start.is_none_or(|start| start.spec.name != end.spec.name))];
            for event in both.into_iter().flatten().filter(|event| !event.broken) {
                key_of(at, &event.spec, &mut own);
            }
        }
    }
    let timeout = nanos(&table.timeout, "timeout", DAY, SECOND..=365 * DAY, &mut own);
    let broken = !own.is_empty();
    errors.append(own);
    let (start, end, key) = (start?, end?, table.key.as_ref()?);
    let enabled = table.enabled.as_ref().is_none_or(|at| at.value) && start.enabled && end.enabled && !broken;
    let spec = PairSpec {
        name: name.value.clone(),
        start: start.spec.name.clone(),
        end: end.spec.name.clone(),
        key: key.value.clone(),
        timeout,
    };
    Some(Pair { spec, enabled })
}

fn key_of(at: &At<String>, event: &EventSpec, errors: &mut Diagnostics) {
    match event.fields.iter().find(|field| field.name == at.value) {
        None => {
            let d = Diagnostic::new(&at.place, format!("event \"{}\" has no field \"{}\"", event.name, at.value));
            errors.push(d.nearest(&at.value, event.fields.iter().map(|field| field.name.as_str())));
        }
        Some(field) if !matches!(field.ty, FieldType::String | FieldType::Int) => {
            let message = format!("\"{}\" of event \"{}\" is of type {}", field.name, event.name, type_word(field.ty));
            errors.push(Diagnostic::new(&at.place, message).note("a key is a string or an int"));
        }
        Some(_) => {}
    }
}

/// An event that nothing declares, with the nearest.
pub(super) fn unknown_event(at: &At<String>, events: &[Event]) -> Diagnostic {
    Diagnostic::new(&at.place, format!("unknown event \"{}\"", at.value))
        .note(format!("[events.{}] would declare it", quoted(&at.value)))
        .nearest(&at.value, events.iter().map(|event| event.spec.name.as_str()))
}

/// A key of TOML, quoted where it has to be.
pub(super) fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if bare { key.to_owned() } else { format!("\"{}\"", key.escape_default()) }
}
