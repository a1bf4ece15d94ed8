//! The bank in Redis: one script call for each slice, over one connection.

use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::try_join_all;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, IntoConnectionInfo, RedisError, Script, TlsCertificates};

use super::bank::{Ask, Bank, BankError, Grant};
use super::{LONGEST_WAIT, LOOK};

/// Time Redis has to accept a connection and let us in: 1 s.
const CONNECT: Duration = Duration::from_secs(1);

/// Time Redis has to answer: 250 ms. A slice holds for twice that, so one slow answer changes nothing.
const ANSWER: Duration = Duration::from_millis(250);

/// Time all nodes take to come back, once the first has: a pause, and a connection and an answer that came to nothing
/// just before.
pub(super) const COMING: Duration =
    LONGEST_WAIT.saturating_add(CONNECT).saturating_add(ANSWER).saturating_add(LOOK.saturating_mul(2));

/// Calls under way at the same time: 1,000. More wait for the first ones.
const AT_ONCE: usize = 1_000;

/// How Redis is reached.
#[derive(Debug, Clone)]
pub struct RedisOptions {
    /// `redis://host:port/db`, or `rediss://` for TLS, perhaps with a user.
    pub url: String,
    /// File of the password; absent: none.
    pub password_file: Option<PathBuf>,
    /// Certificates (PEM) that TLS trusts; absent: the system's.
    pub root_ca_file: Option<PathBuf>,
    /// What the names of all keys begin with.
    pub prefix: String,
}

/// Slices from Redis.
pub(super) struct RedisBank {
    options: RedisOptions,
    script: Script,
    /// Key of what is known of the server.
    known: String,
    connection: Option<MultiplexedConnection>,
}

impl RedisBank {
    pub(super) fn new(options: RedisOptions) -> Self {
        let known = format!("{}bank", options.prefix);
        Self { options, script: Script::new(include_str!("lease.lua")), known, connection: None }
    }

    /// The connection that is open, or a new one. Files are read each time: a password that was changed counts at once.
    async fn connection(&mut self) -> Result<MultiplexedConnection, BankError> {
        if let Some(connection) = &self.connection {
            return Ok(connection.clone());
        }
        let client = client(&self.options)?;
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(CONNECT)).set_response_timeout(Some(ANSWER));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await.map_err(fault)?;
        self.connection = Some(connection.clone());
        Ok(connection)
    }

    async fn lease_one(
        &self,
        connection: &MultiplexedConnection,
        ask: &Ask,
        away_us: u64,
    ) -> Result<Grant, RedisError> {
        let Ask { tenant, rate, spent, back, wanted } = ask;
        let mut call = self.script.key(format!("{}{tenant}:rate", self.options.prefix));
        call.key(&self.known).arg(rate.interval_us()).arg(rate.most_at_once()).arg(spent).arg(back).arg(wanted);
        call.arg(away_us).arg(COMING.as_micros() as u64);
        let (granted, wait_us, coming_us): (u32, u64, u64) = call.invoke_async(&mut connection.clone()).await?;
        Ok(match coming_us.div_ceil(1_000) {
            0 => Grant::Lease { requests: granted.min(*wanted), wait_ms: wait_us.div_ceil(1_000) },
            wait_ms => Grant::Share { wait_ms },
        })
    }
}

#[async_trait]
impl Bank for RedisBank {
    async fn lease(&mut self, asks: &[Ask], away: Option<Duration>) -> Result<Vec<Grant>, BankError> {
        let away_us = away.map_or(0, |away| u64::try_from(away.as_micros()).unwrap_or(u64::MAX).max(1));
        let connection = self.connection().await?;
        let mut grants = Vec::with_capacity(asks.len());
        for asks in asks.chunks(AT_ONCE) {
            match try_join_all(asks.iter().map(|ask| self.lease_one(&connection, ask, away_us))).await {
                Ok(granted) => grants.extend(granted),
                Err(error) => {
                    // What state it is in is not known; a new one is.
                    self.connection = None;
                    return Err(fault(error));
                }
            }
        }
        Ok(grants)
    }

    async fn probe(&mut self) -> Result<(), BankError> {
        let mut connection = self.connection().await?;
        let answer = ::redis::cmd("PING").query_async::<String>(&mut connection).await;
        answer.map(drop).map_err(|error| {
            self.connection = None;
            fault(error)
        })
    }
}

fn client(options: &RedisOptions) -> Result<Client, BankError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|e| BankError::Refused(format!("{} cannot be read: {e}", path.display())))
    };
    let mut info = options.url.as_str().into_connection_info().map_err(fault)?;
    if let Some(path) = &options.password_file {
        let password = String::from_utf8(read(path)?)
            .map_err(|_| BankError::Refused(format!("{} holds no password", path.display())))?;
        let settings = info.redis_settings().clone().set_password(password.trim());
        info = info.set_redis_settings(settings);
    }
    match &options.root_ca_file {
        Some(path) => {
            let root_cert = Some(read(path)?);
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert }).map_err(fault)
        }
        None => Client::open(info).map_err(fault),
    }
}

/// What an error of the client means. Its words have the address, and never the password.
fn fault(error: RedisError) -> BankError {
    let text = error.to_string().chars().filter(|c| !c.is_control()).take(200).collect::<String>();
    match error.kind() {
        _ if error.is_timeout() => BankError::Timeout(ANSWER.as_millis()),
        // The client hides what TLS said in an `Arc<dyn Error>`, so by its words.
        ErrorKind::Io if text.contains("invalid peer certificate") => BankError::Untrusted(text),
        ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig => BankError::Refused(text),
        ErrorKind::Server(redis::ServerErrorKind::NoPerm) => BankError::Refused(text),
        ErrorKind::Io => BankError::Unreachable(text),
        // `-NOAUTH`: it wants a password and got none.
        _ if error.code() == Some("NOAUTH") || error.code() == Some("WRONGPASS") => BankError::Refused(text),
        _ => BankError::Failed(text),
    }
}
