use std::path::Path;

use crate::settings::{Settings, load_text};

/// A settings file, or a variable of the environment: what is taken can be written down and read again.
pub fn settings(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let path = Path::new("schoolgate.toml");
    if let Ok(settings) = load_text(Some((path, text)), [], &[]) {
        again(&settings);
    }
    let variable = text.split_once('=').map(|(key, value)| (format!("SCHOOLGATE__{key}"), value.to_owned()));
    if let Ok(settings) = load_text(None, variable, &[]) {
        again(&settings);
    }
}

fn again(settings: &Settings) {
    let _ = settings.check();
    let written = toml::to_string(settings).expect("settings are TOML");
    let read = load_text(Some((Path::new("written.toml"), &written)), [], &[]).expect("what was written is read");
    assert_eq!(read, *settings);
}
