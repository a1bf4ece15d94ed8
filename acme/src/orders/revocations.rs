//! Tells CAs which of their certificates are revoked. They are out of service here already.

use std::sync::atomic::Ordering;

use schoolgate_store::{Lease, RevocationState, StoreError};
use tracing::{info, warn};

use super::{Orders, Stop};

/// Revocations told in one look.
const AT_ONCE: u32 = 8;

/// What could not be told is tried again after this: 5 min.
const AGAIN_MS: i64 = 300_000;

impl Orders {
    /// Tells what is to be told. Says how many were tried.
    pub(super) async fn tell_revocations(&self, lease: &Lease) -> Result<usize, StoreError> {
        let mut requested = self.store().revocations_requested(AT_ONCE).await?;
        let resting = self.now_ms() < self.inner.revoke_again_ms.load(Ordering::Relaxed);
        requested.retain(|r| !(resting && matches!(r.state, RevocationState::Requested { error: Some(_) })));
        for revocation in &requested {
            // Only the account that ordered it may revoke it; which one that was, the CAs know.
            let mut told = Err("no ACME authority is in the settings".to_owned());
            for authority in &self.inner.authorities {
                told = match self.account(lease, authority).await {
                    Ok(account) => account
                        .revoke(&revocation.leaf, revocation.reason)
                        .await
                        .map_err(|error| format!("{}: {error}", authority.id)),
                    Err(Stop::Store(error)) => return Err(error),
                    Err(Stop::Ca(error, _)) => Err(format!("{}: {error}", authority.id)),
                };
                if told.is_ok() {
                    break;
                }
            }
            let fingerprint = &revocation.fingerprint;
            match &told {
                Ok(()) => info!("the CA knows that the certificate {fingerprint} is revoked"),
                Err(error) => {
                    warn!("the CA could not be told that the certificate {fingerprint} is revoked: {error}");
                    self.inner.revoke_again_ms.store(self.now_ms() + AGAIN_MS, Ordering::Relaxed);
                }
            }
            self.store().revocation_told(fingerprint, told.as_ref().copied().map_err(String::as_str)).await?;
        }
        Ok(requested.len())
    }
}
