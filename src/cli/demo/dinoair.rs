//! DinoAir: an AI workbench; requests to its services, generations, sessions, workflows, files, caches.

use super::lines::Lines;
use super::random::Random;
use super::{STEP_SECONDS, Sessions, System, every, tide};

const SERVICES: [(&str, &[&str], f64); 4] = [
    ("ollama", &["/api/generate", "/api/chat", "/api/tags"], 0.9),
    ("comfyui", &["/generate", "/queue", "/history"], 1.6),
    ("notes", &["/notes", "/notes/search"], 0.04),
    ("projects", &["/projects", "/projects/files"], 0.06),
];
const MODELS: [(&str, f64); 4] = [("llama2-7b", 6.0), ("mistral-7b", 5.0), ("codellama-13b", 12.0), ("sdxl", 9.0)];
const WORKFLOWS: [(&str, f64, u64); 3] =
    [("image_upscale", 20.0, 5), ("summarize_folder", 8.0, 4), ("nightly_index", 90.0, 12)];
const ERRORS: [(&str, &str, &str, &str); 4] = [
    ("timeout", "no answer within 30 s", "ollama", "warning"),
    ("validation", "a field is missing", "projects", "info"),
    ("out_of_memory", "the card has no memory left", "comfyui", "critical"),
    ("connection", "connection refused", "notes", "error"),
];

#[derive(Default)]
pub(super) struct DinoAir {
    sessions: Sessions,
    has_begun: bool,
}

impl System for DinoAir {
    fn step(&mut self, at: f64, random: &mut Random, out: &mut Lines) {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.begin(at, random, out);
        }
        for _ in 0..random.count(14.0 * STEP_SECONDS * tide(at, 0.0)) {
            request(random, out);
        }
        for _ in 0..random.count(1.2 * STEP_SECONDS * tide(at, 0.5)) {
            let (model, seconds) = random.pick(&MODELS);
            let success = !random.chance(0.04);
            let time = if success { random.around(seconds, 0.5) } else { random.around(1.0, 0.8) };
            let event = out.event("model_generation").text("model_name", model).number("generation_time", time);
            let event = event.flag("success", success).whole("prompt_length", random.around(350.0, 1.0) as u64);
            if success {
                drop(event.whole("output_length", random.around(700.0, 0.8) as u64));
            }
        }
        if every(at, 2.0) {
            for (model, _) in MODELS {
                out.event("model_queue").text("model", model).whole("size", random.count(2.0 * tide(at, 0.5)) as u64);
            }
        }
        if every(at, 10.0) {
            status(random, out);
        }
        for _ in 0..random.count(0.12 * STEP_SECONDS) {
            let (kind, message, service, severity) = random.pick(&ERRORS);
            let event = out.event("error").text("error_type", kind).text("error_message", message);
            drop(event.text("service", service).text("severity", severity));
        }
        for _ in 0..random.count(0.15 * STEP_SECONDS * tide(at, 1.0)) {
            let id = self.sessions.open(at + random.around(420.0, 0.9));
            out.event("session_start").text("session_id", &format!("dino-{id}")).text("user_agent", "DinoAir/2");
        }
        for id in self.sessions.closed(at) {
            out.event("session_end").text("session_id", &format!("dino-{id}"));
        }
        for _ in 0..random.count(0.25 * STEP_SECONDS) {
            let (workflow, seconds, steps) = random.pick(&WORKFLOWS);
            let success = !random.chance(0.06);
            let completed = if success { steps } else { random.below(steps as usize) as u64 };
            let event = out.event("workflow_execution").text("workflow_name", workflow);
            let event = event.number("execution_time", random.around(seconds, 0.4)).flag("success", success);
            drop(event.whole("steps_completed", completed).whole("total_steps", steps));
        }
        for _ in 0..random.count(5.0 * STEP_SECONDS * tide(at, 2.0)) {
            let event = out.event("file_operation").text("operation", random.pick(&["read", "write", "delete"]));
            let event = event.whole("file_size", random.around(30_000.0, 1.8) as u64);
            drop(event.number("duration", random.around(0.004, 0.9)).flag("success", !random.chance(0.01)));
        }
        for _ in 0..random.count(12.0 * STEP_SECONDS * tide(at, 0.0)) {
            let (operation, hits) = random.pick(&[("get", 0.87), ("set", 1.0), ("lookup", 0.7)]);
            let event = out.event("cache_operation").text("operation", operation).flag("hit", random.chance(hits));
            drop(event.number("duration", random.around(0.0006, 0.7)));
        }
    }
}

impl DinoAir {
    /// People were at work before the demo began.
    fn begin(&mut self, at: f64, random: &mut Random, out: &mut Lines) {
        status(random, out);
        for _ in 0..40 {
            let id = self.sessions.open(at + random.around(90.0, 1.0));
            let event = out.event("session_start").at(at - random.between(30.0, 1500.0));
            drop(event.text("session_id", &format!("dino-{id}")));
        }
    }
}

fn status(random: &mut Random, out: &mut Lines) {
    for (service, _, _) in SERVICES {
        out.event("service_status").text("service", service).flag("up", !random.chance(0.01));
    }
}

fn request(random: &mut Random, out: &mut Lines) {
    let (service, endpoints, seconds) = random.pick(&SERVICES);
    let endpoint = random.pick(endpoints);
    let status = match random.unit() {
        u if u < 0.95 => 200,
        u if u < 0.98 => 404,
        u if u < 0.99 => 429,
        _ => 500,
    };
    let method = if endpoint.contains("gen") || endpoint.contains("chat") { "POST" } else { "GET" };
    let event = out.event("api_request").text("service", service).text("endpoint", endpoint);
    let event = event.number("response_time", random.around(seconds, 0.7)).whole("status_code", status);
    drop(event.text("method", method));
}
