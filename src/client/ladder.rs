//! A domain step by step: what is done, what is in the way, who must do what.

use std::fmt::Write as _;
use std::io::IsTerminal;

use serde_json::Value;

use super::output::text_at;

/// What stands before a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks {
    done: &'static str,
    wrong: &'static str,
    waiting: &'static str,
}

/// Marks for a terminal that shows more than ASCII.
const SIGNS: Marks = Marks { done: "✓", wrong: "✗", waiting: "…" };

/// Marks for everything else.
const WORDS: Marks = Marks { done: "[ok]", wrong: "[no]", waiting: "[..]" };

impl Marks {
    /// Those that standard output can show.
    pub(super) fn of_terminal() -> Self {
        #[expect(clippy::disallowed_methods, reason = "what a terminal can show is no setting of ours")]
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
            .into_iter()
            .find_map(|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
            .unwrap_or_default()
            .to_ascii_lowercase();
        let is_unicode = locale.contains("utf-8") || locale.contains("utf8");
        if is_unicode && std::io::stdout().is_terminal() { SIGNS } else { WORDS }
    }
}

/// The ladder of a domain as the API shows it.
pub(super) fn text(domain: &Value, marks: Marks) -> String {
    let mut text = format!("{} ({})\n", text_at(domain, "/name"), text_at(domain, "/tenant_slug"));
    for axis in ["ownership", "routing", "certificate", "tenant"] {
        let blocking = of_axis(domain, "blocking", axis);
        let nobody = |entry: &&Value| entry["who_acts"] == "nobody";
        let mark = match blocking.first() {
            None => marks.done,
            Some(_) if blocking.iter().all(nobody) => marks.waiting,
            Some(_) => marks.wrong,
        };
        let state = match axis {
            "tenant" if blocking.is_empty() => "active".to_owned(),
            "tenant" => blocking.first().map(|entry| text_at(entry, "/found")).unwrap_or_default(),
            axis => text_at(domain, &format!("/{axis}")),
        };
        let _ = writeln!(text, " {mark} {axis:<12} {state}");
        blocking.iter().for_each(|entry| explain(&mut text, entry));
        for entry in of_axis(domain, "warnings", axis) {
            let _ = writeln!(text, "     not in the way yet:");
            explain(&mut text, entry);
        }
    }
    let ready = if domain["ready"] == true { "ready" } else { "not ready" };
    let _ = write!(text, "{ready}");
    for (pointer, what) in [
        ("/checked_at", "; its DNS was looked at "),
        ("/next_check_at", ", and will be "),
        ("/served_until", "; it is served until "),
        ("/transfer/moves_at", "; it moves to another tenant "),
    ] {
        let value = text_at(domain, pointer);
        if !value.is_empty() {
            let _ = write!(text, "{what}{value}");
        }
    }
    text
}

fn of_axis<'a>(domain: &'a Value, list: &str, axis: &str) -> Vec<&'a Value> {
    let entries = domain[list].as_array().map_or(&[][..], Vec::as_slice);
    entries.iter().filter(|entry| entry["axis"] == axis).collect()
}

fn explain(text: &mut String, entry: &Value) {
    let _ = writeln!(text, "     {}", text_at(entry, "/code"));
    for (what, pointer) in [("expected", "/expected"), ("found", "/found"), ("said by", "/resolver")] {
        let value = text_at(entry, pointer);
        if !value.is_empty() {
            let _ = writeln!(text, "       {what:<9} {value}");
        }
    }
    let who = text_at(entry, "/who_acts");
    let _ = writeln!(text, "       {who:<9} {}", text_at(entry, "/fix"));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_step_has_its_mark_and_what_is_in_the_way_its_remedy() {
        let domain = json!({
            "name": "erp.greenhill.example", "tenant_slug": "greenhill", "ready": false, "ownership": "proven",
            "routing": "elsewhere", "certificate": "queued", "checked_at": "2026-01-01T00:00:00.000Z",
            "blocking": [
                {"axis": "routing", "code": "STALE_AAAA", "expected": "x CNAME y", "found": "x AAAA 2001:db8::1",
                 "resolver": "ns1.example (192.0.2.1)", "who_acts": "school", "fix": "Remove it"},
                {"axis": "certificate", "code": "CERTIFICATE_PENDING", "expected": "one", "found": null,
                 "resolver": null, "who_acts": "nobody", "fix": "Wait"},
            ],
            "warnings": [],
        });
        let expected = "erp.greenhill.example (greenhill)\n \
             [ok] ownership    proven\n \
             [no] routing      elsewhere\n     \
                 STALE_AAAA\n       \
                   expected  x CNAME y\n       \
                   found     x AAAA 2001:db8::1\n       \
                   said by   ns1.example (192.0.2.1)\n       \
                   school    Remove it\n \
             [..] certificate  queued\n     \
                 CERTIFICATE_PENDING\n       \
                   expected  one\n       \
                   nobody    Wait\n \
             [ok] tenant       active\n\
             not ready; its DNS was looked at 2026-01-01T00:00:00.000Z";
        assert_eq!(text(&domain, WORDS), expected);
        assert!(text(&domain, SIGNS).contains("✗ routing") && text(&domain, SIGNS).contains("… certificate"));
    }
}
