//! What every role does first: settings, log, limits of the system.

use std::path::Path;

use anyhow::{Context, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use schoolgate_config::settings::{self, Overlay, Settings};
use tracing::{info, warn};

use crate::cli::{ApiArgs, ListenArgs, SettingsArgs};
use crate::{exit, telemetry};

/// What flags say, as settings.
#[derive(Debug, Default)]
pub(crate) struct Flags(Vec<(&'static str, String)>);

impl Flags {
    /// Settings that every role takes.
    pub(crate) fn new(args: &SettingsArgs) -> anyhow::Result<Self> {
        let mut flags = Self::default();
        flags.path("data.dir", args.data_dir.as_deref())?;
        flags.path("keys.file", args.keys_file.as_deref())?;
        flags.text("telemetry.log", args.log.as_ref());
        Ok(flags)
    }

    /// A flag with text.
    pub(super) fn text(&mut self, key: &'static str, value: Option<&impl ToString>) {
        self.0.extend(value.map(|value| (key, value.to_string())));
    }

    /// A flag with a path.
    pub(super) fn path(&mut self, key: &'static str, value: Option<&Path>) -> anyhow::Result<()> {
        if let Some(path) = value {
            let text = path.to_str().with_context(|| format!("{} is not text", path.display()))?;
            self.0.push((key, text.to_owned()));
        }
        Ok(())
    }

    /// A flag that can be given several times.
    pub(super) fn list(&mut self, key: &'static str, values: &[String]) {
        if !values.is_empty() {
            self.0.push((key, values.join(",")));
        }
    }

    /// Flags of the data plane.
    pub(super) fn listen(&mut self, args: &ListenArgs) {
        self.text("proxy.http", args.http.as_ref());
        self.text("proxy.https", args.https.as_ref());
        self.text("proxy.status", args.status.as_ref());
        self.text("proxy.workers", args.workers.as_ref());
        self.text("proxy.node", args.node.as_ref());
    }

    /// Flags of the control plane.
    pub(super) fn api(&mut self, args: &ApiArgs) {
        self.text("control.listen", args.control.as_ref());
        self.text("dns.listen", args.dns.as_ref());
        self.list("platform.zones", &args.zones);
    }
}

/// Loads settings: file, environment, flags.
///
/// # Errors
/// [`settings::SettingsError`] names the key or file.
pub(crate) fn load(args: &SettingsArgs, flags: &Flags) -> anyhow::Result<Settings> {
    if let Some(dir) = &args.data_dir
        && dir.as_os_str().is_empty()
    {
        bail!("--data-dir needs a directory");
    }
    let overlays: Vec<Overlay<'_>> = flags.0.iter().map(|(key, text)| (*key, text.clone())).collect();
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let settings = settings::load(args.config.as_deref(), environment, &overlays)?;
    settings.check()?;
    Ok(settings)
}

/// Settings and log, in this order: a wrong setting is told in one line, not in a log.
pub(super) fn begin(args: &SettingsArgs, flags: &Flags) -> anyhow::Result<Settings> {
    let settings = load(args, flags)?;
    telemetry::start(&settings.telemetry.log, settings.telemetry.format).map_err(exit::of_settings)?;
    raise_open_files();
    Ok(settings)
}

/// The runtime of everything but the proxy's workers, which have their own.
pub(super) fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .thread_name("control")
        .enable_all()
        .build()
        .context("the threads of the control plane cannot be started")
}

/// Every connection is an open file, and the soft limit is often 1024 for the sake of programs that use select(2).
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    let number = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), |n| n.to_string());
    let (soft, hard) = (number(limit.current), number(limit.maximum));
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => info!("raised the limit of open files from {soft} to {hard}"),
        Err(e) => warn!(error = %e, "the limit of open files stays at {soft}: {e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_win_over_the_file_and_unknown_keys_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("schoolgate.toml");
        std::fs::write(&file, "[data]\ndir = \"/from/file\"\n").unwrap();
        let args =
            SettingsArgs { config: Some(file.clone()), data_dir: Some("/from/flag".into()), ..Default::default() };
        let loaded = load(&args, &Flags::new(&args).unwrap()).unwrap();
        assert_eq!(loaded.data.dir, Path::new("/from/flag"));
        std::fs::write(&file, "[proxy]\nhtps = \"127.0.0.1:0\"\n").unwrap();
        let error = load(&args, &Flags::new(&args).unwrap()).unwrap_err().to_string();
        assert!(error.contains("proxy.htps") && error.contains("proxy.https"), "{error}");
    }

    #[test]
    fn zones_of_the_command_line_replace_those_of_the_file() {
        let args = SettingsArgs::default();
        let mut flags = Flags::new(&args).unwrap();
        flags.api(&ApiArgs { zones: vec!["localhost".to_owned(), "schools.test".to_owned()], ..Default::default() });
        assert_eq!(load(&args, &flags).unwrap().platform.zones, ["localhost", "schools.test"]);
    }
}
