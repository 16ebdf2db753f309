//! Digital Actors: messages to characters, the calls behind them, connections.

use super::lines::Lines;
use super::random::Random;
use super::{STEP_SECONDS, Sessions, System, tide};

const SCENES: [(&str, &[&str]); 3] =
    [("submarine", &["casey", "captain"]), ("tavern", &["eleanor", "barkeep"]), ("introduction", &["wizard"])];
const PROVIDERS: [(&str, &str, f64); 2] = [("anthropic", "claude-haiku", 1.1), ("openai", "gpt-4o-mini", 0.9)];

#[derive(Default)]
pub(super) struct DigitalActors {
    connections: Sessions,
    has_begun: bool,
}

impl System for DigitalActors {
    fn step(&mut self, at: f64, random: &mut Random, out: &mut Lines) {
        if !std::mem::replace(&mut self.has_begun, true) {
            for _ in 0..12 {
                let id = self.connections.open(at + random.around(60.0, 0.9));
                out.event("websocket_open").text("session_id", &format!("actor-{id}"));
            }
        }
        for _ in 0..random.count(0.2 * STEP_SECONDS * tide(at, 0.1)) {
            let id = self.connections.open(at + random.around(120.0, 0.9));
            out.event("websocket_open").text("session_id", &format!("actor-{id}"));
        }
        for id in self.connections.closed(at) {
            out.event("websocket_close").text("session_id", &format!("actor-{id}"));
        }
        for _ in 0..random.count(3.0 * STEP_SECONDS * tide(at, 0.1)) {
            message(random, out);
        }
        for _ in 0..random.count(0.5 * STEP_SECONDS) {
            let kind = random.pick(&["scene_started", "player_hint", "achievement"]);
            out.statsd(format_args!("digital_actors_custom_events_total:1|c|#event_type:{kind}"));
            let seconds = random.around(0.6, 0.9);
            out.statsd(format_args!("digital_actors_custom_operation_seconds:{seconds:.4}|h"));
        }
    }
}

fn message(random: &mut Random, out: &mut Lines) {
    let (scene, characters) = random.pick(&SCENES);
    let character = random.pick(characters);
    let (provider, model, seconds) = random.pick(&PROVIDERS);
    let (llm, tts) = (random.around(seconds, 0.4), random.around(0.7, 0.3));
    let success = !random.chance(0.04);
    for operation in ["select", "insert"] {
        out.event("db_query").text("operation", operation).number("duration", random.around(0.003, 0.7));
    }
    out.event("llm_call").text("provider", provider).text("model", model).number("duration", llm);
    let event = out.event("message").text("scene", scene).text("character", character);
    if success {
        drop(event.text("status", "success").number("response_time", llm + tts + 0.02));
        out.event("tts_call").number("duration", tts);
    } else {
        drop(event.text("status", "error"));
        let event = out.event("actor_error").text("error_type", random.pick(&["llm", "tts", "timeout"]));
        drop(event.text("message", "the provider is overloaded"));
    }
}
