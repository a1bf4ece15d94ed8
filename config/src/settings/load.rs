//! Reading settings: file, environment, flags.

use std::path::{Path, PathBuf};

use toml::{Table, Value};

use super::Settings;

/// What begins the name of an environment variable that sets something: `SCHOOLGATE__PROXY__HTTPS`.
const PREFIX: &str = "SCHOOLGATE__";

/// What stands for the directory of systemd's credentials, `$CREDENTIALS_DIRECTORY` (systemd.exec(5)).
const CREDENTIALS: &str = "<credentials>/";

/// A value that a flag sets: a dotted key and its text.
pub type Overlay<'a> = (&'a str, String);

/// Why settings cannot be used. Every message names the key or file and says what would be right.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file.
    #[error("the settings file {path} cannot be read: {source}")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not TOML.
    #[error("the settings file {path} is not valid TOML: {message}")]
    Syntax {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// A key nobody reads.
    #[error("unknown setting `{key}` in {from}{}", nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    Unknown {
        /// The dotted key.
        key: String,
        /// The file, or the variable.
        from: String,
        /// The known key that is most like it, written as in `from`.
        nearest: Option<String>,
    },
    /// A value of the wrong kind.
    #[error("the setting `{key}` in {from} is wrong: {message}")]
    Kind {
        /// The dotted key, as far as known.
        key: String,
        /// The file, the variable or the flag.
        from: String,
        /// Why.
        message: String,
    },
    /// A value that cannot be used.
    #[error("the setting `{key}` cannot be `{found}`: expected {expected}")]
    Value {
        /// The dotted key.
        key: String,
        /// What was found.
        found: String,
        /// What would be right.
        expected: String,
    },
}

/// Loads settings: defaults, then `file`, then `environment` (all of a process's variables; the others are passed
/// over), then `flags`.
///
/// # Errors
/// [`SettingsError`] names the key or file.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &[Overlay<'_>],
) -> Result<Settings, SettingsError> {
    let read = |path: &Path| std::fs::read_to_string(path);
    let text = file.map(|path| read(path).map_err(|source| SettingsError::Read { path: path.into(), source }));
    let text = text.transpose()?;
    load_text(file.zip(text.as_deref()), environment, flags)
}

/// [`load`], of a file that has been read.
pub(crate) fn load_text(
    file: Option<(&Path, &str)>,
    environment: impl IntoIterator<Item = (String, String)>,
    flags: &[Overlay<'_>],
) -> Result<Settings, SettingsError> {
    let known = Value::try_from(Settings::default()).expect("the defaults are TOML");
    let mut merged = Table::new();
    if let Some((path, text)) = file {
        let table: Table = text.parse().map_err(|e: toml::de::Error| SettingsError::Syntax {
            path: path.into(),
            message: e.to_string().trim_end().to_owned(),
        })?;
        let from = path.display().to_string();
        refuse_unknown(&table, &known, &mut Vec::new(), &from)?;
        check_kinds(&table, &from)?;
        merge(&mut merged, table);
    }
    let (mut variables, others): (Vec<_>, Vec<_>) =
        environment.into_iter().partition(|(name, _)| name.starts_with(PREFIX));
    variables.sort();
    for (name, text) in variables {
        let key = name[PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
        set(&mut merged, &known, &key, &text, &format!("the environment variable {name}")).map_err(as_variable)?;
    }
    for (key, text) in flags {
        set(&mut merged, &known, key, text, "the command line")?;
    }
    let mut settings: Settings = merged.try_into().map_err(|e: toml::de::Error| SettingsError::Kind {
        key: String::new(),
        from: "the settings".to_owned(),
        message: e.message().to_owned(),
    })?;
    if let Some(name) = settings.keys.file.strip_prefix(CREDENTIALS) {
        let directory = others.into_iter().find(|(variable, _)| variable == "CREDENTIALS_DIRECTORY");
        let Some((_, directory)) = directory else {
            return Err(SettingsError::Value {
                key: "keys.file".to_owned(),
                found: settings.keys.file,
                expected: "a path, for nothing gave this process credentials: is LoadCredential= in its unit?"
                    .to_owned(),
            });
        };
        settings.keys.file = format!("{directory}/{name}");
    }
    Ok(settings)
}

fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(Value::Table(old)), Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

fn lookup<'v>(known: &'v Value, key: &str) -> Option<&'v Value> {
    key.split('.').try_fold(known, |at, part| at.get(part))
}

fn refuse_unknown(table: &Table, known: &Value, path: &mut Vec<String>, from: &str) -> Result<(), SettingsError> {
    for (key, value) in table {
        path.push(key.clone());
        match (known.get(key), value) {
            (None, _) => return Err(unknown(path.join("."), from)),
            (Some(below @ Value::Table(_)), Value::Table(table)) => refuse_unknown(table, below, path, from)?,
            (Some(Value::Table(_)), _) => {
                return Err(SettingsError::Kind {
                    key: path.join("."),
                    from: from.to_owned(),
                    message: "this is a section, not a value".to_owned(),
                });
            }
            (Some(_), _) => {}
        }
        path.pop();
    }
    Ok(())
}

fn unknown(key: String, from: &str) -> SettingsError {
    let known = Value::try_from(Settings::default()).expect("the defaults are TOML");
    let mut keys = Vec::new();
    all_keys(&known, "", &mut keys);
    let last = key.rsplit('.').next().unwrap_or(&key).to_owned();
    let nearest = keys
        .into_iter()
        .map(|candidate| {
            let tail = candidate.rsplit('.').next().unwrap_or(&candidate);
            let likeness = strsim::jaro_winkler(&key, &candidate).max(strsim::jaro_winkler(&last, tail) * 0.95);
            (likeness, candidate)
        })
        .filter(|(likeness, _)| *likeness > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate);
    SettingsError::Unknown { key, from: from.to_owned(), nearest }
}

/// An unknown key of the environment, with the nearest as a variable is written.
fn as_variable(error: SettingsError) -> SettingsError {
    match error {
        SettingsError::Unknown { key, from, nearest: Some(nearest) } => {
            let nearest = format!("{PREFIX}{}", nearest.to_ascii_uppercase().replace('.', "__"));
            SettingsError::Unknown { key, from, nearest: Some(nearest) }
        }
        other => other,
    }
}

fn all_keys(value: &Value, path: &str, keys: &mut Vec<String>) {
    if let Value::Table(table) = value {
        for (key, below) in table {
            let full = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            all_keys(below, &full, keys);
            keys.push(full);
        }
    }
}

/// Tells which key of a file has a value of the wrong kind: each leaf is tried alone, so the message names it.
fn check_kinds(table: &Table, from: &str) -> Result<(), SettingsError> {
    fn leaves(table: &Table, path: &mut Vec<String>, out: &mut Vec<(Vec<String>, Value)>) {
        for (key, value) in table {
            path.push(key.clone());
            match value {
                Value::Table(below) => leaves(below, path, out),
                leaf => out.push((path.clone(), leaf.clone())),
            }
            path.pop();
        }
    }
    let mut all = Vec::new();
    leaves(table, &mut Vec::new(), &mut all);
    all.into_iter().try_for_each(|(path, value)| try_leaf(&path.join("."), value, from))
}

fn try_leaf(key: &str, value: Value, from: &str) -> Result<(), SettingsError> {
    let mut table = Table::new();
    insert(&mut table, key, value);
    match table.try_into::<Settings>() {
        Ok(_) => Ok(()),
        Err(e) => {
            Err(SettingsError::Kind { key: key.to_owned(), from: from.to_owned(), message: e.message().to_owned() })
        }
    }
}

/// Sets one key from text, read as the kind that the key's default has.
fn set(merged: &mut Table, known: &Value, key: &str, text: &str, from: &str) -> Result<(), SettingsError> {
    let default = lookup(known, key).ok_or_else(|| unknown(key.to_owned(), from))?;
    let wrong = |message: &str| SettingsError::Kind {
        key: key.to_owned(),
        from: from.to_owned(),
        message: format!("`{text}`: {message}"),
    };
    let value = match default {
        Value::Table(_) => return Err(wrong("this is a section, not a value")),
        Value::String(_) => Value::String(text.to_owned()),
        Value::Integer(_) => Value::Integer(text.parse().map_err(|_| wrong("expected a whole number"))?),
        Value::Float(_) => Value::Float(text.parse().map_err(|_| wrong("expected a number"))?),
        Value::Boolean(_) => Value::Boolean(text.parse().map_err(|_| wrong("expected true or false"))?),
        Value::Datetime(_) => return Err(wrong("dates are not set this way")),
        Value::Array(_) if text.trim_start().starts_with('[') => {
            let table: Table = format!("value = {text}").parse().map_err(|_| wrong("expected a TOML array"))?;
            table.get("value").cloned().ok_or_else(|| wrong("expected a TOML array"))?
        }
        Value::Array(_) => Value::Array(
            text.split(',').map(str::trim).filter(|s| !s.is_empty()).map(|s| Value::String(s.to_owned())).collect(),
        ),
    };
    try_leaf(key, value.clone(), from)?;
    insert(merged, key, value);
    Ok(())
}

fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((section, rest)) => {
            if let Value::Table(below) = table.entry(section).or_insert_with(|| Value::Table(Table::new())) {
                insert(below, rest, value);
            }
        }
    }
}
