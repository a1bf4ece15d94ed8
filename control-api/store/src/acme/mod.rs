//! What is kept of certificates that come from a CA that speaks ACME (RFC 8555): orders, accounts, budgets, and the
//! order in which names have their turn.
//!
//! Everything here is written by one worker at a time, under its lease, through [`Store::begin_under`] and
//! [`Transaction::finish`]; the control API reads it.

mod bucket;
mod queue;

use serde::{Deserialize, Serialize};

use schoolgate_config::model::{CaId, Certificate};
use schoolgate_config::seal::SealedKey;

use crate::lease::Lease;
use crate::{Actor, CertificateWant, Store, StoreError, Transaction};

pub use bucket::Bucket;
pub use queue::{QueueClass, QueueEntry, QueuePart};

/// How far an open order is. What the CA says of it counts more; this is what we have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderStep {
    /// Key and signing request are made and kept; the CA has perhaps not heard of it.
    Prepared,
    /// The CA has it.
    Placed,
    /// What the CA will look for is on its way to the proxies or to DNS.
    Published,
    /// The CA was told to look.
    Validating,
    /// The signing request was sent.
    Finalizing,
}

impl OrderStep {
    /// The name used in JSON and in the store.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prepared => "prepared",
            Self::Placed => "placed",
            Self::Published => "published",
            Self::Validating => "validating",
            Self::Finalizing => "finalizing",
        }
    }
}

/// How the CA is shown that a name is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// Every proxy answers over plain HTTP.
    Http01,
    /// Every proxy answers in a handshake.
    TlsAlpn01,
    /// A TXT record.
    Dns01 {
        /// Its name.
        name: String,
        /// What it says.
        value: String,
    },
}

/// What an order is charged to, of the CA's limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Charge {
    /// A name that has no certificate of this CA.
    New,
    /// A renewal that names what it replaces (RFC 9773): exempt from the CA's limits.
    Replacement,
    /// Any other renewal: counts for exactly this name.
    Renewal,
}

/// An open order for one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeOrder {
    /// The name: exact, or `*.zone`.
    pub name: String,
    /// Its own identifier, a ULID.
    pub id: String,
    /// Which CA.
    pub ca: CaId,
    /// How far it is.
    pub step: OrderStep,
    /// The class it had when it was begun.
    pub class: QueueClass,
    /// What it was charged to.
    pub charge: Charge,
    /// The key of the certificate-to-be, sealed for [`AcmeOrder::KEY_PURPOSE`] and [`AcmeOrder::id`].
    pub key: SealedKey,
    /// The signing request, DER.
    #[serde(with = "serde_bytes")]
    pub csr: Vec<u8>,
    /// Where the CA has it; `None` until the CA answered.
    pub url: Option<String>,
    /// The CA's profile that is asked for.
    pub profile: Option<String>,
    /// The certificate it replaces (RFC 9773 section 5), as the CA names it.
    pub replaces: Option<String>,
    /// What was published for the CA to see.
    pub proof: Option<Proof>,
    /// The change that every live proxy must serve before the CA is told to look.
    pub change: Option<u64>,
    /// When it was begun, milliseconds since 1970.
    pub begun_at_ms: i64,
    /// When to go on with it, milliseconds since 1970.
    pub next_ms: i64,
    /// Failures in a row that were nobody's fault but the CA's or the network's.
    pub stumbles: u32,
    /// What the last of them was.
    pub note: Option<String>,
}

impl AcmeOrder {
    /// What the key of an order is sealed for; see [`schoolgate_config::seal`].
    pub const KEY_PURPOSE: &'static str = "acme-order";
}

/// Our account at a CA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AcmeCredentials {
    /// Which CA.
    pub ca: CaId,
    /// Its directory; an account belongs to one.
    pub directory: String,
    /// The account's URL: what a CAA record's `accounturi` names.
    pub url: String,
    /// Thumbprint of its key (RFC 7638).
    pub thumbprint: String,
    /// What signs for it, sealed for [`AcmeCredentials::KEY_PURPOSE`] and the CA's name.
    pub sealed: SealedKey,
    /// When it was made, milliseconds since 1970.
    pub created_at_ms: i64,
}

impl AcmeCredentials {
    /// What an account's credentials are sealed for; see [`schoolgate_config::seal`].
    pub const KEY_PURPOSE: &'static str = "acme-account";
}

/// How a CA is, as far as we can tell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AuthorityHealth {
    /// Failures of the CA itself since `failing_since_ms`.
    pub failures: u32,
    /// When the first of them was, milliseconds since 1970.
    pub failing_since_ms: Option<i64>,
    /// Since when it is left alone.
    pub open_since_ms: Option<i64>,
    /// When one order may try it again.
    pub probe_at_ms: Option<i64>,
    /// Until when it wants no new orders of this account.
    pub held_until_ms: Option<i64>,
    /// What an operator has to see to: no agreement to the terms, an account that was shut.
    pub account_error: Option<String>,
    /// The last thing that went wrong.
    pub last_error: Option<String>,
    /// A page of the CA where a pause is lifted.
    pub link: Option<String>,
}

impl AuthorityHealth {
    /// Whether it is left alone, because it failed too often.
    pub const fn is_open(&self) -> bool {
        self.open_since_ms.is_some()
    }
}

/// The CA's renewal window of a certificate (RFC 9773), and what was made of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalWindow {
    /// Its begin, milliseconds since 1970.
    pub start_ms: i64,
    /// Its end, milliseconds since 1970.
    pub end_ms: i64,
    /// The moment that was picked, once, for this window.
    pub chosen_ms: i64,
    /// A page of the CA that says why it is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
}

/// Why a name has no (new) certificate yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setback {
    /// For programs: `dns`, `rate_limited`, `ca_unavailable`, …
    pub reason: &'static str,
    /// For people, with the CA's own words.
    pub message: String,
    /// `school`, `operator` or `nobody`.
    pub who_acts: &'static str,
    /// A page of the CA that helps.
    pub link: Option<String>,
}

/// The reason of a name that is not ready to be ordered; a change of its domain is looked at at once.
pub const NOT_READY: &str = "not_ready";

impl Store {
    /// Begins a transaction that only the holder of a lease may do.
    ///
    /// # Errors
    /// [`StoreError::LeaseLost`] when another process has taken it over; otherwise as [`Store::begin`].
    pub async fn begin_under(&self, lease: &Lease, actor: Actor) -> Result<Transaction, StoreError> {
        let mut transaction = self.begin(actor).await?;
        transaction.require(lease).await?;
        Ok(transaction)
    }

    /// Names whose certificate comes from an ACME CA, in the order in which they have their turn.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn acme_queue(&self, now_ms: i64, part: QueuePart, limit: u32) -> Result<Vec<QueueEntry>, StoreError> {
        self.sqlite.acme_queue(now_ms, part, limit).await
    }

    /// One name of that queue, wherever it stands.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn acme_entry(&self, now_ms: i64, name: &str) -> Result<Option<QueueEntry>, StoreError> {
        self.sqlite.acme_entry(now_ms, name).await
    }

    /// How many names wait in each class, and since when the longest of them waits.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn acme_queue_depth(&self, now_ms: i64) -> Result<Vec<(QueueClass, u64, i64)>, StoreError> {
        self.sqlite.acme_queue_depth(now_ms).await
    }

    /// When the next name or order of an ACME CA needs attention, milliseconds since 1970.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn next_acme_due(&self) -> Result<Option<i64>, StoreError> {
        self.sqlite.next_acme_due().await
    }

    /// Open orders that can go on at `now_ms`, the longest due first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn acme_orders_due(&self, now_ms: i64, limit: u32) -> Result<Vec<AcmeOrder>, StoreError> {
        self.sqlite.acme_orders_due(now_ms, limit).await
    }

    /// The open order for a name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn acme_order(&self, name: &str) -> Result<Option<AcmeOrder>, StoreError> {
        self.sqlite.acme_order(name).await
    }

    /// How many orders are open.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn acme_orders_open(&self) -> Result<u64, StoreError> {
        self.sqlite.acme_orders_open().await
    }

    /// Our accounts.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn acme_credentials(&self) -> Result<Vec<AcmeCredentials>, StoreError> {
        self.sqlite.acme_credentials().await
    }

    /// How each CA is.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn acme_authorities(&self) -> Result<Vec<(CaId, AuthorityHealth)>, StoreError> {
        self.sqlite.acme_authorities().await
    }

    /// The buckets with the least left first, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn acme_buckets(&self, limit: u32) -> Result<Vec<Bucket>, StoreError> {
        self.sqlite.acme_buckets(limit).await
    }

    /// Orders by CA and result, since the store was made.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn acme_totals(&self) -> Result<Vec<(CaId, String, u64)>, StoreError> {
        self.sqlite.acme_totals().await
    }

    /// Names whose certificate's renewal window is to be asked for at `now_ms`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn acme_renewals_to_ask(&self, now_ms: i64, limit: u32) -> Result<Vec<QueueEntry>, StoreError> {
        self.sqlite.acme_renewals_to_ask(now_ms, limit).await
    }

    /// Names and the end of their certificates, milliseconds since 1970, the first to end first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn certificates_ending(&self, limit: u32) -> Result<Vec<(String, i64)>, StoreError> {
        self.sqlite.certificates_ending(limit).await
    }

    /// Names after `after` and who was last said to make their certificate.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn certificate_issuers(
        &self,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<(String, Option<String>)>, StoreError> {
        self.sqlite.certificate_issuers(after, limit).await
    }
}

impl Transaction {
    /// Commits bookkeeping: no change to what the gateway is told to do, so no number and no line of audit.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`].
    pub async fn finish(self) -> Result<(), StoreError> {
        debug_assert!(self.changes().is_empty(), "a change has a number and a line of audit: commit it");
        self.turn.commit(None).await
    }

    /// Says who makes the certificate of a name, and that it is to be looked at now.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn set_certificate_issuer(&mut self, name: &str, issuer: &str) -> Result<(), StoreError> {
        self.turn.set_certificate_issuer(name, issuer, self.now_ms).await
    }

    /// Begins an order, and gives its tenant its turn. Says `false`, and writes nothing, when one is open.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn open_acme_order(&mut self, order: &AcmeOrder, tenant: &str) -> Result<bool, StoreError> {
        let opened = self.turn.open_acme_order(order).await?;
        if opened {
            self.turn.serve_tenant(tenant, self.now_ms).await?;
        }
        Ok(opened)
    }

    /// Keeps how far an order is. Its key stays as it is here: a rotation may have wrapped it anew since the order was
    /// read, and the key-encryption key that opens the copy may be gone. An order that is over stays so.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn save_acme_order(&mut self, order: &AcmeOrder) -> Result<(), StoreError> {
        match self.turn.acme_order(&order.name).await? {
            Some(kept) if kept.id == order.id => {
                self.turn.save_acme_order(&AcmeOrder { key: kept.key, ..order.clone() }).await
            }
            _ => Ok(()),
        }
    }

    /// Keeps an order whose key was wrapped anew.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn save_rewrapped_acme_order(&mut self, order: &AcmeOrder) -> Result<(), StoreError> {
        self.turn.save_acme_order(order).await
    }

    /// Forgets an order that is over, and counts it under `result`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn close_acme_order(&mut self, order: &AcmeOrder, result: &str) -> Result<(), StoreError> {
        self.turn.close_acme_order(&order.name, &order.ca, result).await
    }

    /// The open order for a name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn acme_order(&mut self, name: &str) -> Result<Option<AcmeOrder>, StoreError> {
        self.turn.acme_order(name).await
    }

    /// Where the certificate for a name stands, as this transaction left it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn certificate_want(&mut self, name: &str) -> Result<Option<CertificateWant>, StoreError> {
        self.turn.certificate_want(name).await
    }

    /// Keeps a certificate that an ACME CA made; see [`Self::certificate_issued`].
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn acme_issued(
        &mut self,
        want: &CertificateWant,
        certificate: Certificate,
        ca: &CaId,
        renew_at_ms: i64,
    ) -> Result<bool, StoreError> {
        let kept = self.certificate_issued(want, certificate, renew_at_ms).await?;
        if kept {
            self.turn.set_certificate_ca(&want.name, ca, self.now_ms).await?;
        }
        Ok(kept)
    }

    /// Notes that an attempt for a name failed, why, and when to try again; counts as a failure of the name.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn acme_failed(&mut self, name: &str, why: &Setback, next_ms: i64) -> Result<(), StoreError> {
        self.turn.acme_failed(name, why, next_ms).await
    }

    /// Notes why a name has to wait, and until when. Nothing was tried.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn acme_waits(&mut self, name: &str, why: &Setback, next_ms: i64) -> Result<(), StoreError> {
        self.turn.acme_waits(name, why, next_ms).await
    }

    /// Keeps what a CA said of renewing a name's certificate, when to ask again, and when to renew.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn save_renewal(
        &mut self,
        name: &str,
        window: Option<&RenewalWindow>,
        ask_ms: i64,
        renew_ms: i64,
    ) -> Result<(), StoreError> {
        self.turn.save_renewal(name, window, ask_ms, renew_ms).await
    }

    /// Keeps our account at a CA in place of the one before.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn save_acme_credentials(&mut self, credentials: &AcmeCredentials) -> Result<(), StoreError> {
        self.turn.save_acme_credentials(credentials).await
    }

    /// How a CA is, as this transaction left it.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn acme_authority(&mut self, ca: &CaId) -> Result<AuthorityHealth, StoreError> {
        let all = self.turn.acme_authorities().await?;
        Ok(all.into_iter().find(|(id, _)| id == ca).map(|(_, health)| health).unwrap_or_default())
    }

    /// Keeps how a CA is.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn save_acme_authority(&mut self, ca: &CaId, health: &AuthorityHealth) -> Result<(), StoreError> {
        self.turn.save_acme_authority(ca, health).await
    }

    /// A bucket, as it was left.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn acme_bucket(&mut self, ca: &CaId, name: &str, subject: &str) -> Result<Option<Bucket>, StoreError> {
        self.turn.acme_bucket(ca, name, subject).await
    }

    /// Keeps a bucket.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn save_acme_bucket(&mut self, bucket: &Bucket) -> Result<(), StoreError> {
        self.turn.save_acme_bucket(bucket).await
    }

    /// When validations of a name failed since `since_ms`, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn acme_failures(&mut self, ca: &CaId, name: &str, since_ms: i64) -> Result<Vec<i64>, StoreError> {
        self.turn.acme_failures(ca, name, since_ms).await
    }

    /// Counts a failed validation of a name, and forgets those before `since_ms`.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`], [`StoreError::Corrupt`].
    pub async fn count_acme_failure(&mut self, ca: &CaId, name: &str, since_ms: i64) -> Result<(), StoreError> {
        self.turn.count_acme_failure(ca, name, self.now_ms, since_ms).await
    }
}

#[cfg(test)]
mod tests;
