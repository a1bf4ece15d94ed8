//! What proxies say became of backends, as events.

use serde_json::json;

use schoolgate_config::feed::BackendChange;
use schoolgate_config::model::NodeId;
use schoolgate_store::NewEvent;

/// The event that a change is; none for what an operator did, which the audit has.
pub(super) fn event(node: &NodeId, change: &BackendChange) -> Option<NewEvent> {
    let BackendChange { at_ms, pool, backend, address, from, to, reason } = change;
    let kind = match (from.as_str(), to.as_str()) {
        ("draining" | "disabled", "up") => return None,
        (_, "unhealthy") => "backend.unhealthy",
        (_, "ejected") => "backend.ejected",
        (_, "up") => "backend.up",
        _ => return None,
    };
    let because = reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
    Some(NewEvent {
        at_ms: *at_ms,
        kind,
        tenant: None,
        object: format!("backend {pool}/{backend}"),
        summary: format!("{node} finds {address} of pool {pool} {to}{because}"),
        detail: json!({
            "node": node, "pool": pool, "backend": backend, "address": address, "from": from, "to": to, "reason": reason,
        }),
        // A report repeats what the one before said, and so does the first one to another control process.
        once: Some(format!("backend {node} {backend} {at_ms} {to}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(from: &str, to: &str) -> Option<NewEvent> {
        let change = json!({
            "at_ms": 7, "pool": "web", "backend": "bck_1", "address": "http://127.0.0.1:1", "from": from, "to": to,
            "reason": (to != "up").then_some("refused"),
        });
        event(&"n1".parse().expect("a name"), &serde_json::from_value(change).expect("a change"))
    }

    #[test]
    fn what_happens_by_itself_is_an_event_and_what_an_operator_did_is_not() {
        let down = told("up", "unhealthy").expect("an event");
        assert_eq!((down.kind, down.at_ms), ("backend.unhealthy", 7));
        assert_eq!(down.summary, "n1 finds http://127.0.0.1:1 of pool web unhealthy: refused");
        assert_eq!(told("unhealthy", "up").map(|e| e.kind), Some("backend.up"));
        assert_eq!(told("up", "ejected").map(|e| e.kind), Some("backend.ejected"));
        for (from, to) in [("up", "draining"), ("up", "disabled"), ("draining", "up"), ("disabled", "up")] {
            assert_eq!(told(from, to), None, "{from} {to}");
        }
        assert_ne!(told("up", "ejected").map(|e| e.once), told("up", "unhealthy").map(|e| e.once));
    }
}
