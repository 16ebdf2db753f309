//! Random events against an interpreter of the schema that reads them with `serde_json` and looks up everything by name.

use super::*;
use proptest::prelude::*;
use serde_json::{Map, Value as Json};

/// A decimal text × 10^`exponent`, rounded half away from zero; at most twelve decimals.
fn units(number: &str, exponent: u32) -> i128 {
    let (negative, digits) = number.strip_prefix('-').map_or((false, number), |digits| (true, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let power = 10i128.pow(exponent);
    let whole: i128 = whole.parse().expect("digits");
    let fraction: i128 = format!("{fraction:0<12}")[..12].parse().expect("digits");
    let scaled = whole * power * 1_000_000_000_000 + fraction * power;
    let rounded = (scaled + 500_000_000_000) / 1_000_000_000_000;
    if negative { -rounded } else { rounded }
}

/// What the events of `config` come to, said again without plans.
#[derive(Default)]
struct Oracle {
    held: Held,
    models: Vec<String>,
    members: BTreeMap<String, Vec<String>>,
    refused: u64,
}

impl Oracle {
    fn take(&mut self, line: &str) {
        if self.try_take(line).is_none() {
            self.refused += 1;
        }
    }

    /// `None` for an event that is refused.
    fn try_take(&mut self, line: &str) -> Option<()> {
        let object: Map<String, Json> = serde_json::from_str(line).ok()?;
        if object.get("event")? != "gen" {
            return None;
        }
        let Json::String(model) = object.get("model")? else { return None };
        let Json::Number(took) = object.get("took")? else { return None };
        let Json::Bool(ok) = *object.get("ok")? else { return None };
        let tokens = match object.get("tokens") {
            None | Some(Json::Null) => None,
            Some(Json::Number(tokens)) if tokens.is_i64() => Some(tokens.as_i64()?),
            _ => return None,
        };
        let deep = match object.get("payload") {
            None | Some(Json::Null) => String::new(),
            Some(Json::Object(payload)) => match payload.get("n") {
                None | Some(Json::Null) => String::new(),
                Some(Json::Number(n)) if n.is_i64() => n.to_string(),
                _ => return None,
            },
            _ => return None,
        };
        let weight = match object.get("weight") {
            None | Some(Json::Null) => 1,
            Some(Json::Number(weight)) => weight.as_i64().filter(|weight| *weight >= 1)?,
            _ => return None,
        };
        let nanos = units(&took.to_string(), 6);
        let is_slow = nanos >= 60_000_000_000;
        if (ok && !is_slow && nanos < 0) || tokens.is_some_and(|tokens| tokens < 0) {
            // The derived text was made before anything was refused.
            self.few(model);
            return None;
        }
        let few = self.few(model);
        let labels = |pairs: &[(&str, &str)]| {
            let shown: Vec<String> = pairs
                .iter()
                .filter(|(_, value)| !value.is_empty())
                .map(|(key, value)| format!("{key:?}: {value:?}"))
                .collect();
            format!("{{{}}}", shown.join(", "))
        };
        let status = if ok { "success" } else { "error" };
        let mut add = |name: String, sum: i128, count: u64| {
            let place = self.held.entry(name).or_default();
            *place = (place.0 + sum, place.1 + count);
        };
        let counted = i128::from(weight) * 1_000_000_000;
        add(format!("gens_total{}", labels(&[("few", &few), ("status", status)])), counted, 0);
        if ok && !is_slow {
            // Of a weighted aggregate the sum has the weight, the number of samples seen does not.
            add(format!("gen_seconds{}", labels(&[("model", model)])), nanos * i128::from(weight), 1);
        }
        if let Some(tokens) = tokens {
            add("gen_token_total{}".into(), i128::from(tokens) * 500_000_000 * i128::from(weight), 0);
            let place = self.held.entry("gen_tokens{}".into()).or_default();
            *place = (gauge(tokens as f64), place.1 + 1);
        }
        let members = self.members.entry(format!("gen_models{}", labels(&[("deep", &deep)]))).or_default();
        if !members.contains(model) {
            members.push(model.clone());
        }
        Some(())
    }

    /// The first three models keep their names.
    fn few(&mut self, model: &String) -> String {
        if self.models.contains(model) {
            return model.clone();
        }
        if self.models.len() == 3 {
            return "other".into();
        }
        self.models.push(model.clone());
        model.clone()
    }

    fn held(mut self) -> Held {
        for (name, members) in self.members {
            self.held.insert(name, (0, members.len() as u64));
        }
        self.held
    }
}

fn odd() -> impl Strategy<Value = String> {
    proptest::sample::select(vec!["null", "true", "[1]", "\"7\"", "{}"]).prop_map(str::to_owned)
}

fn int() -> impl Strategy<Value = String> {
    let usual = (0i64..50).prop_map(|n| n.to_string());
    prop_oneof![40 => usual, 1 => Just("-3".to_owned()), 1 => Just("1.5".to_owned()), 1 => odd()]
}

/// JSON of an event, mostly right.
fn line() -> impl Strategy<Value = String> {
    let name = "[a-f]".prop_map(|model| format!("{model:?}"));
    let model = prop_oneof![20 => name, 2 => Just("\"\\u00e9\\n\"".to_owned()), 1 => odd()];
    let millis = (0u32..90_000, 0u32..1000).prop_map(|(ms, us)| format!("{ms}.{us:03}5"));
    let took = prop_oneof![30 => millis, 1 => Just("-1".to_owned()), 1 => odd()];
    let ok = prop_oneof![30 => any::<bool>().prop_map(|ok| ok.to_string()), 1 => odd()];
    let payload = prop_oneof![20 => int().prop_map(|n| format!("{{\"x\":{{\"n\":1}},\"n\":{n}}}")), 1 => odd()];
    let weight = prop_oneof![30 => (1u32..100).prop_map(|n| n.to_string()), 1 => Just("0".to_owned())];
    let members = (
        proptest::option::weighted(0.97, model),
        proptest::option::weighted(0.97, took),
        proptest::option::weighted(0.97, ok),
        proptest::option::of(int()),
        proptest::option::of(payload),
        proptest::option::weighted(0.3, weight),
        proptest::option::weighted(0.2, odd()),
    );
    (members, any::<proptest::sample::Index>(), any::<u64>()).prop_map(|(members, place, seed)| {
        let (model, took, ok, tokens, payload, weight, extra) = members;
        let all = [
            ("model", model),
            ("took", took),
            ("ok", ok),
            ("tokens", tokens),
            ("payload", payload),
            ("weight", weight),
            ("extra", extra),
        ];
        let mut all: Vec<String> =
            all.into_iter().filter_map(|(key, value)| value.map(|value| format!("{key:?}:{value}"))).collect();
        if seed % 3 == 0 {
            let at = place.index(all.len() + 1);
            all.rotate_left(at);
        }
        let at = if seed % 2 == 0 { 0 } else { place.index(all.len() + 1) };
        all.insert(at, "\"event\":\"gen\"".into());
        format!("{{{}}}", all.join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn v1_any_events_come_to_what_a_naive_reading_of_the_schema_says(lines in proptest::collection::vec(line(), 0..120)) {
        let mut bench = Bench::new(config(), 1000);
        let mut oracle = Oracle::default();
        for line in &lines {
            oracle.take(line);
        }
        bench.take(&lines.join("\n"));
        let (mut rows, tally) = bench.drain();
        for (name, (sum, _)) in rows.iter_mut().filter(|(name, _)| name.starts_with("gen_seconds")) {
            // Whether an aggregate is weighted is its own business.
            let expected = oracle.held.get(name).map_or(0, |held| held.0);
            if *sum == expected * 4096 {
                *sum = expected;
            }
        }
        prop_assert_eq!(tally.rejected_total(), oracle.refused, "{:?}", bench.recent.newest(5));
        prop_assert_eq!(rows, oracle.held());
    }
}
