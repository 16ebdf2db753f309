//! AI Automation Framework: LLM requests and the API around them.

use super::lines::Lines;
use super::random::Random;
use super::{STEP_SECONDS, System, every, tide};

const MODELS: [(&str, f64, f64); 3] =
    [("gpt-4", 3.2, 900.0), ("claude-3-sonnet", 2.1, 750.0), ("gpt-3.5-turbo", 0.9, 400.0)];

#[derive(Default)]
pub(super) struct Llm {
    has_begun: bool,
}

impl System for Llm {
    fn step(&mut self, at: f64, random: &mut Random, out: &mut Lines) {
        let begins = !std::mem::replace(&mut self.has_begun, true);
        for _ in 0..random.count(2.5 * STEP_SECONDS * tide(at, 0.7)) + usize::from(begins) {
            let (model, seconds, tokens) = random.pick(&MODELS);
            let success = !random.chance(0.03);
            let event =
                out.event("llm_request").number("duration", random.around(seconds, 0.6)).flag("success", success);
            let tokens = if success { random.around(tokens, 0.7) as u64 } else { 0 };
            drop(event.whole("tokens", tokens).text("model", model));
        }
        for _ in 0..random.count(9.0 * STEP_SECONDS * tide(at, 0.2)) {
            out.statsd(format_args!("api_requests_total:1|c"));
            if random.chance(0.02) {
                out.statsd(format_args!("api_errors_total:1|c"));
            }
            let ms = random.around(85.0, 0.7);
            out.statsd(format_args!("api_request_duration:{ms:.3}|ms"));
            out.statsd(format_args!("api_process_request:{:.3}|ms", ms * 0.8));
        }
        if begins || every(at, 1.0) {
            out.statsd(format_args!("api_active_requests:{}|g", random.count(4.0 * tide(at, 0.2))));
        }
    }
}
