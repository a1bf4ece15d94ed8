//! `schoolgate status`: nodes, revisions, certificates, backends, at a glance.

use clap::Args;
use serde_json::Value;

use super::api::{Api, Connection};
use super::output::{self, Column, Format, text_at};

const NODES: &[Column] = &[
    ("node", "/id"),
    ("live", "/live"),
    ("serving", "/serving"),
    ("lag", "/lag"),
    ("version", "/version"),
    ("certificates", "/certificates"),
    ("connections", "/connections"),
    ("in flight", "/requests_in_flight"),
    ("limits", "/limits/words"),
    ("refused", "/refused/reason"),
];
const BACKENDS: &[Column] = &[
    ("pool", "/pool"),
    ("backend", "/address"),
    ("wanted", "/state"),
    ("node", "/seen/node"),
    ("found", "/seen/state"),
    ("in flight", "/seen/in_flight"),
    ("reason", "/seen/reason"),
];

/// `schoolgate status`
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    connection: Connection,
}

/// Shows it.
pub(crate) async fn run(args: &StatusArgs) -> anyhow::Result<()> {
    let api = Api::connect(&args.connection)?;
    let status = api.get(&["status"], &[]).await?;
    match api.format {
        Format::Json => output::json(&status),
        Format::People => output::line(&render(&status)),
    }
}

fn render(status: &Value) -> String {
    let mut text = format!("revision      {}", text_at(status, "/revision"));
    if let Some(why) = status.pointer("/unpublished/reason") {
        text.push_str(&format!("\nUNPUBLISHED   {}", text_at(why, "")));
    }
    for (title, key) in [("tenants", "tenants"), ("domains", "domains"), ("certificates", "certificates")] {
        text.push_str(&format!("\n{title:<13} {}", counts(status.get(key))));
    }
    for ending in items(status, "certificates_ending") {
        let title = if text_at(ending, "/stage") == "ended" { "CERT ENDED" } else { "CERT ENDING" };
        text.push_str(&format!("\n{title:<13} {} at {}", text_at(ending, "/name"), text_at(ending, "/ends_at")));
    }
    let nodes = items(status, "nodes");
    text.push_str("\n\n");
    if nodes.is_empty() {
        text.push_str("no proxy has been heard of");
    } else {
        let shown: Vec<Value> = nodes.iter().map(with_limits).collect();
        text.push_str(&output::table(&shown, NODES));
    }
    let backends: Vec<Value> = items(status, "backends").iter().flat_map(as_seen).collect();
    if !backends.is_empty() {
        text.push_str("\n\n");
        text.push_str(&output::table(&backends, BACKENDS));
    }
    for node in nodes {
        let why = text_at(node, "/limits/error");
        if !why.is_empty() {
            text.push_str(&format!("\n\n{}: limits are shared by parts: {why}", text_at(node, "/id")));
        }
        for notice in items(node, "notices") {
            text.push_str(&format!("\n\n{}: {}", text_at(node, "/id"), text_at(notice, "")));
        }
    }
    text
}

/// A node whose way of sharing limits is in words: `redis`, `1/4`.
fn with_limits(node: &Value) -> Value {
    let mut node = node.clone();
    let nodes = text_at(&node, "/limits/live_nodes");
    let words = match text_at(&node, "/limits/mode").as_str() {
        "share" => format!("1/{nodes}"),
        mode => mode.to_owned(),
    };
    if let Some(limits) = node.get_mut("limits").filter(|limits| limits.is_object()) {
        limits["words"] = words.into();
    }
    node
}

/// `3 issued, 1 queued`
fn counts(value: Option<&Value>) -> String {
    let counts = value.and_then(Value::as_object).into_iter().flatten();
    let words: Vec<_> = counts.map(|(state, count)| format!("{} {state}", text_at(count, ""))).collect();
    if words.is_empty() { "none".to_owned() } else { words.join(", ") }
}

/// A backend as each node finds it: one row per node, and one when no node has said anything.
fn as_seen(backend: &Value) -> Vec<Value> {
    let with = |seen: Value| {
        let mut row = backend.clone();
        row["seen"] = seen;
        row
    };
    match items(backend, "seen") {
        [] => vec![with(Value::Null)],
        seen => seen.iter().cloned().map(with).collect(),
    }
}

fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn backends_are_shown_as_each_node_finds_them() {
        let seen = |node: &str, state: &str| json!({"node": node, "state": state, "in_flight": 0, "reason": null});
        let text = render(&json!({"revision": 7, "certificates": {"issued": 3},
            "nodes": [{"id": "node-1", "live": true, "serving": 7, "notices": ["last good was damaged"]}],
            "backends": [{"pool": "shared", "address": "http://127.0.0.1:8701", "state": "active",
                          "seen": [seen("node-1", "unhealthy"), seen("node-2", "up")]}]}));
        for part in ["revision      7", "3 issued", "node-1", "node-2", "unhealthy", "last good was damaged"] {
            assert!(text.contains(part), "`{part}` is missing in\n{text}");
        }
        assert_eq!(text.matches("http://127.0.0.1:8701").count(), 2, "{text}");
    }

    #[test]
    fn certificates_that_end_have_a_line_each() {
        let text = render(&json!({"revision": 1, "nodes": [], "certificates_ending": [
            {"name": "erp.ash.example", "stage": "ended", "ends_at": "2026-01-01T00:00:00.000Z"},
            {"name": "app.ash.example", "stage": "day", "ends_at": "2026-01-02T00:00:00.000Z"}]}));
        assert!(text.contains("\nCERT ENDED    erp.ash.example at 2026-01-01T00:00:00.000Z"), "{text}");
        assert!(text.contains("\nCERT ENDING   app.ash.example at 2026-01-02T00:00:00.000Z"), "{text}");
    }

    #[test]
    fn how_limits_are_shared_is_shown_with_what_is_wrong() {
        let node = |id: &str, limits: Value| json!({"id": id, "live": true, "limits": limits});
        let text = render(&json!({"revision": 1, "nodes": [
            node("n1", json!({"mode": "redis", "live_nodes": 4})),
            node("n2", json!({"mode": "share", "live_nodes": 4, "error": "Redis cannot be reached"})),
            node("n3", Value::Null)]}));
        for part in ["redis", "1/4", "n2: limits are shared by parts: Redis cannot be reached"] {
            assert!(text.contains(part), "`{part}` is missing in\n{text}");
        }
    }

    #[test]
    fn a_gateway_without_proxies_says_so() {
        assert!(render(&json!({"revision": 0, "nodes": []})).contains("no proxy"));
    }
}
