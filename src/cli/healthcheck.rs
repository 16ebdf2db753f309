//! `healthcheck`: is the instance ready, and can it take and commit samples?
//!
//! In: the answers of `/readyz` and `/health`. Out: one line a part that is not well; exit 0 or 1.
//! A sink that is down is `degraded`, which is 0: restarting the container would not help it.

use super::client::Client;
use super::{Exit, show};
use std::fmt::Write as _;
use std::io::Write;

/// Asks and prints.
pub(super) fn run(client: &Client) -> anyhow::Result<Exit> {
    let mut out = std::io::stdout().lock();
    let is_ready = client.get("/readyz", "*/*")?.status == 200;
    let reply = client.get("/health", "application/json");
    if !is_ready {
        // Why it is not is known to `/health`, which a token may guard; without its answer that it is not is enough.
        let health = reply.ok().and_then(|reply| serde_json::from_slice(&reply.body).ok());
        let unwell = health.map(|health| unwell(&health)).unwrap_or_default();
        let target = client.target();
        match unwell.is_empty() {
            true => writeln!(out, "not ready: {target} is starting or stopping")?,
            false => write!(out, "not ready: {target}\n{unwell}")?,
        }
        return Ok(Exit::Failed);
    }
    let reply = reply?;
    let is_up = reply.status == 200;
    // 503 carries the same body.
    let body = if reply.status == 503 { reply.body } else { reply.expect_ok()? };
    let health: serde_json::Value = serde_json::from_slice(&body)?;
    write!(out, "{}\n{}", word(&health, "status"), unwell(&health))?;
    Ok(if is_up { Exit::Done } else { Exit::Failed })
}

fn word(value: &serde_json::Value, key: &str) -> String {
    show::foreign(value[key].as_str().unwrap_or(""))
}

/// One line for each part that is not well.
fn unwell(health: &serde_json::Value) -> String {
    let mut text = String::new();
    for component in health["components"].as_array().into_iter().flatten() {
        let state = word(component, "state");
        if state != "ok" {
            let _ = writeln!(text, "  {}: {state}: {}", word(component, "name"), word(component, "reason"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_well_is_named_with_its_reason() {
        let health = serde_json::json!({"status": "down", "components": [
            {"name": "store", "state": "down", "reason": "no space left on device\u{1b}[2J"},
            {"name": "source app", "state": "ok", "reason": ""},
        ]});
        assert_eq!(unwell(&health), "  store: down: no space left on device\\u{1b}[2J\n");
        assert_eq!(unwell(&serde_json::json!({"error": "a bearer token is needed"})), "");
    }
}
