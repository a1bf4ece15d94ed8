//! What one process is started with: a TOML file, then the environment, then flags; the later wins.
//!
//! Every default is written here, beside its unit. An unknown key is an error that names the nearest known one: a
//! setting that is silently ignored is found at the worst moment.

mod acme;
mod cdn;
mod files;
mod instances;
mod load;
mod migrate;
mod redis;
mod sections;

pub use acme::AcmeAuthority;
pub use files::Files;
pub use instances::Instances;
#[cfg(any(test, fuzzing))]
pub(crate) use load::load_text;
pub use load::{Overlay, SettingsError, load};
pub use migrate::Migrate;
pub use redis::Redis;
pub use sections::{
    AccessLog, Acme, AcmeChallenge, AcmeFallback, AcmeLimits, Caps, ContextKeys, Control, Data, Dns, DnsProbe, Eab,
    EdgeLimits, Issuer, Keys, LogFormat, Platform, Proxy, SchoolApp, Seconds, SecurityHeaders, Store, Telemetry,
};

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Everything one process is started with.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where state is kept.
    pub data: Data,
    /// The data plane.
    pub proxy: Proxy,
    /// The control API.
    pub control: Control,
    /// The control plane's database.
    pub store: Store,
    /// Shared limit counters.
    pub redis: Redis,
    /// The platform's own names and addresses.
    pub platform: Platform,
    /// Where certificates come from.
    pub acme: Acme,
    /// Who is asked about names.
    pub dns: Dns,
    /// The key-encryption key.
    pub keys: Keys,
    /// The keys that sign `X-Tenant-Context`.
    pub context_keys: ContextKeys,
    /// How a school is moved to another pool.
    pub migrate: Migrate,
    /// Instances that register themselves as backends.
    pub instances: Instances,
    /// School-app instances that `up` supervises.
    pub school_app: SchoolApp,
    /// Logs and metrics.
    pub telemetry: Telemetry,
}

impl Settings {
    /// A path with `<data>` replaced by the data directory.
    pub fn path(&self, text: &str) -> PathBuf {
        match text.strip_prefix("<data>/") {
            Some(rest) => self.data.dir.join(rest),
            None => PathBuf::from(text),
        }
    }

    /// The SQLite file of the control plane's database.
    ///
    /// # Errors
    /// [`SettingsError::Value`] when the URL is of another kind.
    pub fn sqlite_file(&self) -> Result<PathBuf, SettingsError> {
        match self.store.url.strip_prefix("sqlite://") {
            Some(path) if !path.is_empty() => Ok(self.path(path)),
            _ => Err(SettingsError::Value {
                key: "store.url".to_owned(),
                // Only the scheme: what follows may hold a password.
                found: self.store.url.split_once("://").map_or("…".to_owned(), |(scheme, _)| format!("{scheme}://…")),
                expected: "sqlite://PATH; PostgreSQL is not in this release".to_owned(),
            }),
        }
    }

    /// The file of the key-encryption key.
    pub fn key_file(&self) -> PathBuf {
        self.path(&self.keys.file)
    }

    /// A file in the data directory.
    pub fn data_file(&self, name: impl AsRef<Path>) -> PathBuf {
        self.data.dir.join(name)
    }

    /// Checks what no single field can: that what is asked for exists in this release, and that values fit together.
    ///
    /// # Errors
    /// The first [`SettingsError::Value`] found.
    pub fn check(&self) -> Result<(), SettingsError> {
        let refuse = |key: &str, found: &dyn ToString, expected: &str| {
            Err(SettingsError::Value { key: key.to_owned(), found: found.to_string(), expected: expected.to_owned() })
        };
        self.sqlite_file()?;
        self.redis.check()?;
        self.acme.check()?;
        if self.proxy.workers > 256 {
            return refuse("proxy.workers", &self.proxy.workers, "0 (one per core) to 256");
        }
        let flush_s = self.proxy.usage_flush_s.duration().as_secs_f64();
        if !(0.1..=60.0).contains(&flush_s) {
            return refuse("proxy.usage_flush_s", &flush_s, "0.1 to 60");
        }
        for zone in self.platform.zones.iter().chain(&self.platform.assume_owned) {
            if let Err(e) = crate::model::DomainName::parse(zone) {
                return refuse("platform.zones", zone, &e.to_string());
            }
        }
        if let Err(e) = self.node_name() {
            return refuse("proxy.node", &self.proxy.node, &e.to_string());
        }
        self.dns.check()?;
        self.context_keys.check()?;
        self.migrate.check()?;
        self.instances.check()?;
        self.proxy.security.check()?;
        self.proxy.files.check()?;
        self.proxy.limits.check()
    }

    /// The name this proxy goes by.
    ///
    /// # Errors
    /// When the setting is not a name.
    pub fn node_name(&self) -> Result<crate::model::NodeId, crate::model::IdError> {
        self.proxy.node.parse()
    }
}

#[cfg(test)]
mod tests;
