//! Bodies of writes, put together from flags.

use std::io::Read;

use anyhow::{Context, bail};
use clap::Args;
use serde_json::{Map, Value};

/// Fields that have no flag of their own.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Fields {
    /// Set any field, by its path: `--set theme.primary_color=#1f6f43`, `--set retention_days=30`; repeatable. A value
    /// that reads as JSON is JSON, anything else is text; `null` removes the field in an update
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = field)]
    set: Vec<(String, Value)>,
    /// Begin with the JSON object in this file; `-` is standard input
    #[arg(long, value_name = "FILE")]
    file: Option<String>,
}

/// The text of a file; `-` is standard input.
pub(crate) fn text_of(file: &str) -> anyhow::Result<String> {
    if file != "-" {
        return std::fs::read_to_string(file).with_context(|| format!("{file} cannot be read"));
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).context("standard input cannot be read")?;
    Ok(text)
}

/// A body under construction.
#[derive(Debug, Default)]
pub(crate) struct Body(Map<String, Value>);

impl Body {
    /// Begins with `--file`; `--set` comes over everything in [`Self::finish`].
    pub(crate) fn begin(fields: &Fields) -> anyhow::Result<Self> {
        let Some(file) = fields.file.as_deref() else { return Ok(Self::default()) };
        match serde_json::from_str(&text_of(file)?).with_context(|| format!("{file} is not JSON"))? {
            Value::Object(fields) => Ok(Self(fields)),
            _ => bail!("{file} does not hold a JSON object"),
        }
    }

    /// Sets a field, by its path, if there is a value.
    pub(crate) fn field(mut self, path: &str, value: Option<impl Into<Value>>) -> Self {
        if let Some(value) = value {
            put(&mut self.0, path, value.into());
        }
        self
    }

    /// Sets a field to a list, if it has members.
    pub(crate) fn list(self, path: &str, values: &[String]) -> Self {
        self.field(path, (!values.is_empty()).then(|| values.to_vec()))
    }

    /// The body, with `--set` over it.
    pub(crate) fn finish(mut self, fields: &Fields) -> Value {
        for (path, value) in &fields.set {
            put(&mut self.0, path, value.clone());
        }
        Value::Object(self.0)
    }
}

fn put(map: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            map.insert(path.to_owned(), value);
        }
        Some((key, rest)) => {
            let below = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
            if !below.is_object() {
                *below = Value::Object(Map::new());
            }
            if let Value::Object(below) = below {
                put(below, rest, value);
            }
        }
    }
}

/// Reads `path=value`.
fn field(text: &str) -> Result<(String, Value), String> {
    let (path, value) = text.split_once('=').ok_or("write PATH=VALUE")?;
    if path.is_empty() || path.split('.').any(str::is_empty) {
        return Err(format!("`{path}` is not a path of a field"));
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((path.to_owned(), value))
}

/// Reads `name=yes`, `name=no` or `name` alone, which means yes.
pub(crate) fn switch(text: &str) -> Result<(String, bool), String> {
    match text.split_once('=') {
        None => Ok((text.to_owned(), true)),
        Some((name, "yes" | "true" | "on")) => Ok((name.to_owned(), true)),
        Some((name, "no" | "false" | "off")) => Ok((name.to_owned(), false)),
        Some((_, other)) => Err(format!("`{other}` is neither yes nor no")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_path_makes_the_objects_on_its_way() {
        let fields = Fields {
            set: vec![field("theme.primary_color=#1f6f43").unwrap(), field("retention_days=30").unwrap()],
            file: None,
        };
        let body = Body::begin(&fields).unwrap().field("name", Some("Greenhill")).finish(&fields);
        let expected = json!({"name": "Greenhill", "theme": {"primary_color": "#1f6f43"}, "retention_days": 30});
        assert_eq!(body, expected);
    }

    #[test]
    fn what_is_set_by_hand_wins_over_flags() {
        let fields = Fields { set: vec![field("name=Other").unwrap()], file: None };
        assert_eq!(Body::default().field("name", Some("One")).finish(&fields), json!({"name": "Other"}));
    }

    #[test]
    fn a_switch_without_a_value_is_on() {
        assert_eq!(switch("lms"), Ok(("lms".to_owned(), true)));
        assert_eq!(switch("lms=off"), Ok(("lms".to_owned(), false)));
        assert!(switch("lms=perhaps").is_err());
    }

    #[test]
    fn a_field_without_a_value_or_a_name_is_refused() {
        assert!(field("name").is_err());
        assert!(field("=x").is_err());
        assert!(field("a..b=x").is_err());
    }
}
