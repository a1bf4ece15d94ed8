//! `[redis]`: where the nodes of a fleet share limits.

use serde::{Deserialize, Serialize};

use super::SettingsError;

/// `[redis]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Redis {
    /// Where limits are shared: `redis://host:port/db`, or `rediss://` for TLS, with a user before an `@` if need be.
    /// Empty: each node lets its part of every limit through.
    pub url: String,
    /// File of the password; empty: none.
    pub password_file: String,
    /// File of the certificates (PEM) that TLS trusts; empty: the system's.
    pub root_ca_file: String,
    /// What the names of all keys begin with, so that a server can be shared with others.
    pub prefix: String,
}

impl Default for Redis {
    fn default() -> Self {
        Self {
            url: String::new(),
            password_file: String::new(),
            root_ca_file: String::new(),
            prefix: "schoolgate:".to_owned(),
        }
    }
}

impl Redis {
    /// Whether limits are shared through Redis.
    pub fn is_used(&self) -> bool {
        !self.url.is_empty()
    }

    /// Checks what the types do not.
    ///
    /// # Errors
    /// [`SettingsError::Value`] names the key, and never shows a password.
    pub(super) fn check(&self) -> Result<(), SettingsError> {
        let refuse = |key: &str, found: &str, expected: &str| {
            Err(SettingsError::Value {
                key: format!("redis.{key}"),
                found: found.to_owned(),
                expected: expected.to_owned(),
            })
        };
        let prefix_is_good = self.prefix.len() <= 64 && self.prefix.bytes().all(|c| c.is_ascii_graphic());
        if !prefix_is_good {
            return refuse("prefix", &self.prefix, "at most 64 visible ASCII characters");
        }
        if !self.is_used() {
            return Ok(());
        }
        let parts = self.url.split_once("://").filter(|(scheme, _)| matches!(*scheme, "redis" | "rediss"));
        let Some((scheme, rest)) = parts else {
            return refuse("url", "another address", "redis://HOST:PORT/DB, or rediss:// for TLS");
        };
        let found = format!("{scheme}://…");
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        if user.contains(':') {
            return refuse("url", &found, "no password here: put it into a file and name that in redis.password_file");
        }
        let port = host.rsplit_once(':').map_or("", |(_, port)| port);
        let port_is_good = host.ends_with(']') || !host.contains(':') || port.parse::<u16>().is_ok();
        let database_is_good = database.is_empty() || database.parse::<u16>().is_ok();
        if host.is_empty() || host.starts_with(':') || !port_is_good || !database_is_good {
            return refuse("url", &found, "redis://HOST:PORT/DB, or rediss:// for TLS");
        }
        if !self.root_ca_file.is_empty() && scheme == "redis" {
            return refuse(
                "root_ca_file",
                &self.root_ca_file,
                "nothing, since redis:// has no TLS; or rediss:// in redis.url",
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(url: &str) -> Redis {
        Redis { url: url.to_owned(), ..Redis::default() }
    }

    #[test]
    fn an_address_has_a_host_and_no_password() {
        for url in [
            "",
            "redis://127.0.0.1",
            "redis://cache.example:6380/3",
            "rediss://gate@cache.example:6379/0",
            "redis://[::1]:6379",
        ] {
            assert!(at(url).check().is_ok(), "{url}");
        }
        for url in
            ["127.0.0.1:6379", "http://h", "redis://", "redis://:6379", "redis://h:x", "redis://h/a/b", "unix:/s"]
        {
            let refused = at(url).check().expect_err(url).to_string();
            assert!(refused.contains("redis.url"), "{refused}");
        }
        let refused = at("redis://user:hunter2@cache.example").check().expect_err("a password").to_string();
        assert!(refused.contains("password_file") && !refused.contains("hunter2"), "{refused}");
    }

    #[test]
    fn a_certificate_is_for_tls() {
        let ca = |url: &str| Redis { root_ca_file: "/ca.pem".to_owned(), ..at(url) };
        assert!(ca("rediss://h").check().is_ok());
        assert!(ca("redis://h").check().is_err());
    }
}
