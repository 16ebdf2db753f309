//! `healthcheck`: is the instance ready, and can it take and commit samples?
//!
//! In: the answers of `/readyz` and `/health`. Out: one line a part that is not well; exit 0 or 1.
//! A sink that is down is `degraded`, which is 0: restarting the container would not help it.

use super::client::Client;
use super::{Exit, show};
use std::io::Write;

/// Asks and prints.
pub(super) fn run(client: &Client) -> anyhow::Result<Exit> {
    let mut out = std::io::stdout().lock();
    if client.get("/readyz", "*/*")?.status != 200 {
        writeln!(out, "not ready: {} is starting or stopping", client.target())?;
        return Ok(Exit::Failed);
    }
    let reply = client.get("/health", "application/json")?;
    let is_up = reply.status == 200;
    // 503 carries the same body.
    let body = if reply.status == 503 { reply.body } else { reply.expect_ok()? };
    let health: serde_json::Value = serde_json::from_slice(&body)?;
    let word = |value: &serde_json::Value, key: &str| show::foreign(value[key].as_str().unwrap_or(""));
    writeln!(out, "{}", word(&health, "status"))?;
    for component in health["components"].as_array().into_iter().flatten() {
        let state = word(component, "state");
        if state != "ok" {
            writeln!(out, "  {}: {state}: {}", word(component, "name"), word(component, "reason"))?;
        }
    }
    Ok(if is_up { Exit::Done } else { Exit::Failed })
}
