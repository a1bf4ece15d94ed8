//! What the command line prints: tables for people, JSON for machines.

use std::io::{self, Write};

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, ContentArrangement, Table};
use serde_json::Value;

/// How an answer is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Tables and lines.
    People,
    /// The API's own JSON.
    Json,
}

/// A column of a table: its title, and where its value is (a JSON pointer).
pub(crate) type Column = (&'static str, &'static str);

/// Prints a list.
pub(crate) fn list(format: Format, items: &[Value], columns: &[Column]) -> anyhow::Result<()> {
    match format {
        Format::Json => json(&serde_json::json!({ "items": items })),
        Format::People if items.is_empty() => line("(none)"),
        Format::People => line(&table(items, columns)),
    }
}

/// Prints one object: a line per field, nested ones by their path.
pub(crate) fn object(format: Format, value: &Value) -> anyhow::Result<()> {
    match format {
        Format::Json => json(value),
        Format::People => {
            let mut rows = Vec::new();
            flatten("", value, &mut rows);
            let mut table = plain_table();
            for (path, text) in rows {
                table.add_row(vec![Cell::new(path), Cell::new(text)]);
            }
            line(&trimmed(&table))
        }
    }
}

/// A table of `items`.
pub(crate) fn table(items: &[Value], columns: &[Column]) -> String {
    let mut table = plain_table();
    table.set_header(columns.iter().map(|(title, _)| title.to_uppercase()));
    for item in items {
        table.add_row(columns.iter().map(|(_, pointer)| Cell::new(text_at(item, pointer))));
    }
    trimmed(&table)
}

/// The text of what a pointer points at; empty when there is nothing.
pub(crate) fn text_at(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).map(text_of).unwrap_or_default()
}

/// Prints a line. A reader that went away, as `head` does, is no failure.
pub(crate) fn line(text: &str) -> anyhow::Result<()> {
    match writeln!(io::stdout().lock(), "{text}") {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Prints text as it is.
pub(crate) fn raw(text: &str) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Prints JSON, indented.
pub(crate) fn json(value: &Value) -> anyhow::Result<()> {
    line(&serde_json::to_string_pretty(value)?)
}

fn plain_table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

fn text_of(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        // Terminals obey control characters; a name of a school must not.
        Value::String(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Array(items) => items.iter().map(text_of).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn flatten(path: &str, value: &Value, rows: &mut Vec<(String, String)>) {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Array(items) if items.is_empty() => {}
        Value::Object(fields) => fields.iter().for_each(|(key, value)| flatten(&below(key), value, rows)),
        Value::Array(items) if items.iter().any(|item| item.is_object()) => {
            items.iter().enumerate().for_each(|(n, item)| flatten(&below(&n.to_string()), item, rows));
        }
        other => rows.push((path.to_owned(), text_of(other))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_has_a_line_per_item_and_a_title_per_column() {
        let items = [json!({"slug": "greenhill", "active": true}), json!({"slug": "riverside"})];
        let text = table(&items, &[("slug", "/slug"), ("active", "/active")]);
        let lines: Vec<_> = text.lines().map(|l| l.split_whitespace().collect::<Vec<_>>()).collect();
        assert_eq!(lines, [vec!["SLUG", "ACTIVE"], vec!["greenhill", "yes"], vec!["riverside"]]);
    }

    #[test]
    fn nested_fields_are_shown_by_their_path() {
        let mut rows = Vec::new();
        flatten(
            "",
            &json!({"theme": {"primary_color": "#fff"}, "backends": [{"weight": 1}], "tags": ["a", "b"]}),
            &mut rows,
        );
        rows.sort();
        let expected = [("backends.0.weight", "1"), ("tags", "a, b"), ("theme.primary_color", "#fff")];
        assert_eq!(rows, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
    }

    #[test]
    fn control_characters_of_a_name_do_not_reach_the_terminal() {
        assert!(!text_at(&json!({"name": "\u{1b}[2J"}), "/name").contains('\u{1b}'));
    }
}
