//! Dream.OS: agents and their tasks, requests, queues, components, file operations.

use super::lines::Lines;
use super::random::Random;
use super::{STEP_SECONDS, System, every, tide};

const AGENTS: [(&str, f64); 6] =
    [("captain", 0.4), ("cursor", 1.1), ("codex", 1.8), ("archivist", 0.7), ("scout", 0.5), ("tester", 2.6)];
const COMPONENTS: [(&str, &str); 5] = [
    ("devlog", "service"),
    ("dispatcher", "service"),
    ("memory", "component"),
    ("scheduler", "component"),
    ("discord", "dependency"),
];
const PATHS: [&str; 6] = [
    "runtime/devlog.md",
    "runtime/agent_memory.json",
    "runtime/tasks.json",
    "episodes/episode_1.yml",
    "config/agents.yml",
    "logs/dispatcher.log",
];

#[derive(Default)]
pub(super) struct DreamOs {
    has_begun: bool,
}

impl System for DreamOs {
    fn step(&mut self, at: f64, random: &mut Random, out: &mut Lines) {
        let begins = !std::mem::replace(&mut self.has_begun, true);
        if begins || every(at, 5.0) {
            state(at, random, out);
        }
        for _ in 0..random.count(3.0 * STEP_SECONDS * tide(at, 0.3)) {
            let (agent, seconds) = random.pick(&AGENTS);
            let status = if random.chance(0.05) { "failed" } else { "completed" };
            let event = out.event("agent_task").text("agent", agent).text("status", status);
            drop(event.number("duration", random.around(seconds, 0.6)));
        }
        for _ in 0..random.count(8.0 * STEP_SECONDS * tide(at, 0.9)) {
            let endpoint = random.pick(&["/agents", "/tasks", "/devlog", "/health"]);
            let event = out.event("request").text("endpoint", endpoint);
            drop(event.number("duration", random.around(0.045, 0.7)).flag("success", !random.chance(0.02)));
        }
        for _ in 0..random.count(6.0 * STEP_SECONDS) {
            let event = out.event("cache").text("cache", random.pick(&["memory", "prompts"]));
            drop(event.flag("hit", random.chance(0.8)));
        }
        for _ in 0..random.count(0.08 * STEP_SECONDS) {
            let (component, _) = random.pick(&COMPONENTS);
            out.event("component_error").text("component", component).text("error", "request timed out");
        }
        for _ in 0..random.count(0.3 * STEP_SECONDS) {
            let (component, _) = random.pick(&COMPONENTS);
            out.event("component_warning").text("component", component).text("warning", "queue is long");
        }
        files(at, random, out);
    }
}

/// What stands as it is until the next look.
fn state(at: f64, random: &mut Random, out: &mut Lines) {
    for (agent, load) in AGENTS {
        let event = out.event("agent_status").text("agent", agent).flag("up", !random.chance(0.02));
        let event = event.number("cpu_percent", (load * 20.0 * tide(at, load) + random.between(0.0, 5.0)).min(100.0));
        drop(event.whole("memory_bytes", random.around(2.0e8 * (1.0 + load), 0.05) as u64));
    }
    for queue in ["inbox", "outbox"] {
        out.event("queue_status").text("queue", queue).whole("length", random.count(4.0 * tide(at, 1.5)) as u64);
    }
    for (component, kind) in COMPONENTS {
        let event = out.event("component_status").text("component", component).text("kind", kind);
        drop(event.flag("up", !random.chance(0.01)));
    }
}

fn files(at: f64, random: &mut Random, out: &mut Lines) {
    for _ in 0..random.count(4.0 * STEP_SECONDS * tide(at, 2.2)) {
        let is_write = random.chance(0.4);
        let path = random.pick(&PATHS);
        if random.chance(0.015) {
            let event = out.event(if is_write { "file_write_error" } else { "file_read_error" }).text("path", path);
            drop(event.text("error", "permission denied"));
            continue;
        }
        let event = out.event(if is_write { "file_write" } else { "file_read" }).text("path", path);
        let event = event.whole("bytes", random.around(6_000.0, 1.2) as u64).text("encoding", "utf-8");
        drop(event.number("duration", random.around(0.003, 0.8)));
    }
    for _ in 0..random.count(0.1 * STEP_SECONDS) {
        let name = if random.chance(0.7) { "directory_created" } else { "directory_cleared" };
        out.event(name).text("path", "runtime/temp");
    }
}
