//! This instance as a backend of its pool: it says that it is there every few seconds, and says goodbye before it stops.
//!
//! While the control plane is away nothing is lost: the proxies know the instance, and it says so again later.

use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;
use tracing::{info, warn};

use crate::control::{Control, ControlError};
use crate::options::RegisterWith;

/// Wait after what was not taken: 2 s.
const AGAIN: Duration = Duration::from_secs(2);

#[derive(Serialize)]
struct Registration<'a> {
    pool: &'a str,
    address: &'a str,
}

#[derive(Deserialize)]
struct Registered {
    backend: String,
    heartbeat_s: f64,
}

/// One pool that this instance is, or wants to be, a backend of.
pub(crate) struct Registrar {
    control: Control,
    url: String,
    pool: String,
    address: String,
}

/// Whether it is worth saying it again.
enum Next {
    After(Duration),
    Never,
}

impl Registrar {
    /// Registers an instance that listens at `address` in a pool.
    pub(crate) fn new(with: &RegisterWith, pool: String, address: String) -> Self {
        let url = format!("{}/internal/v1/backends", with.url.trim_end_matches('/'));
        Self { control: Control::new(with.token_file.clone()), url, pool, address }
    }

    /// Says that it is there, again and again, until it is dropped. Notes in `backend` who it is.
    pub(crate) async fn run(&self, backend: &mut Option<String>) {
        let mut failing = false;
        loop {
            let next = match self.register().await {
                Ok(registered) => {
                    if failing || backend.as_ref() != Some(&registered.backend) {
                        info!("registered as {} of the pool {}", registered.backend, self.pool);
                    }
                    failing = false;
                    *backend = Some(registered.backend);
                    // What is no length of time is a mistake of the other side; a second is not wrong.
                    let heartbeat = Duration::try_from_secs_f64(registered.heartbeat_s);
                    Next::After(heartbeat.unwrap_or(Duration::from_secs(1)).max(Duration::from_millis(100)))
                }
                Err(ControlError::Refused { status: StatusCode::CONFLICT, text, .. }) => {
                    warn!("not a backend of the pool {} any more: {text}", self.pool);
                    *backend = None;
                    Next::Never
                }
                Err(error) => {
                    if !failing {
                        let source: &dyn std::error::Error = &error;
                        warn!(error = source, "not registered in the pool {}, and tried again: {error}", self.pool);
                    }
                    failing = true;
                    Next::After(AGAIN)
                }
            };
            match next {
                Next::After(wait) => sleep(wait).await,
                Next::Never => std::future::pending().await,
            }
        }
    }

    async fn register(&self) -> Result<Registered, ControlError> {
        let registration = Registration { pool: &self.pool, address: &self.address };
        let answer = self.control.ask(Method::POST, &self.url, &registration).await?;
        serde_json::from_slice(&answer)
            .map_err(|e| ControlError::Unreachable { url: self.url.clone(), source: e.into() })
    }

    /// Says goodbye, and waits until every proxy knows. Then nothing new comes.
    pub(crate) async fn leave(&self, backend: &str) {
        match self.control.ask(Method::DELETE, &format!("{}/{backend}", self.url), &()).await {
            Ok(_) => info!("the pool {} lets {backend} go", self.pool),
            Err(error) => {
                let source: &dyn std::error::Error = &error;
                // The proxies find out by themselves.
                warn!(error = source, "stops without a goodbye to the pool {}: {error}", self.pool);
            }
        }
    }
}
