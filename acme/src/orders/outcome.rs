//! How an order ends: with a certificate, with a reason, or not at all.

use schoolgate_config::model::Certificate;
use schoolgate_config::time::rfc3339;
use schoolgate_store::acme::{AcmeOrder, AuthorityHealth, Setback};
use schoolgate_store::{Lease, NewEvent, StoreError, Transaction};
use serde_json::{Value, json};
use tracing::{info, warn};

use super::drive::withdraw;
use super::{Orders, Stop};
use crate::breaker;
use crate::budget::{self, FAILURES_WITHIN};
use crate::directory::CaError;
use crate::due::{mended_after_ms, retry_after};
use crate::failure::{During, Failure, Limited, Remedy, classify};
use crate::renewal::{Life, renew_at};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A name that a CA will never certify is tried again after this, in case its policy changes: 30 days. An operator can
/// ask before.
const BLOCKED_MS: i64 = 30 * DAY_MS;

/// Failures of the CA or the network, in a row, after which an order is begun anew.
const STUMBLES: u32 = 20;

/// What is to happen to an order that did not go on.
enum Fate {
    /// It stays open, and goes on at this moment.
    Kept(i64),
    /// It is over; the name failed and is tried again at this moment.
    Failed(i64),
    /// It is over through no fault of the name, which has its turn again at this moment.
    Over(i64),
}

impl Orders {
    /// Takes a certificate into service, in the transaction that ends its order.
    pub(super) async fn activate(
        &self,
        lease: &Lease,
        order: &AcmeOrder,
        certificate: Certificate,
    ) -> Result<(), StoreError> {
        let name = order.name.as_str();
        let (not_before, not_after) = (certificate.about.not_before, certificate.about.not_after);
        let life = Life { from_ms: not_before.saturating_mul(1_000), to_ms: not_after.saturating_mul(1_000) };
        let mut transaction = self.begin_under(lease).await?;
        // Orders end side by side: what one notes of the CA, the next must see.
        let mut health = transaction.acme_authority(&order.ca).await?;
        let was_open = health.is_open();
        let Some(want) = transaction.certificate_want(name).await? else {
            return self.close(transaction, order, "abandoned").await;
        };
        transaction.acme_issued(&want, certificate, &order.ca, renew_at(name, life, None)).await?;
        transaction.close_acme_order(order, "issued").await?;
        withdraw(&mut transaction, order).await?;
        if breaker::succeeded(&mut health) {
            transaction.save_acme_authority(&order.ca, &health).await?;
        }
        let until = rfc3339(life.to_ms);
        let summary = format!("{name} has a certificate of {} until {until}", order.ca);
        let detail = json!({ "ca": order.ca, "not_after": until });
        transaction.record_event(&self.event("certificate.issued", name, summary, detail)).await?;
        if was_open {
            let summary = format!("{} issues again", order.ca);
            transaction.record_event(&self.event("acme.recovered", order.ca.as_str(), summary, Value::Null)).await?;
        }
        let summary = json!({ "issued": [name], "ca": order.ca });
        transaction.commit("certificate.issue", &format!("certificate {name}"), summary).await?;
        info!(certificate.name = %name, acme.ca = %order.ca, "certificate issued for {name} by {}, until {until}", order.ca);
        Ok(())
    }

    /// Ends an order whose name is not to be ordered any more, or that leads nowhere.
    pub(super) async fn abandon(&self, lease: &Lease, order: &AcmeOrder, why: &str) -> Result<(), Stop> {
        info!(certificate.name = %order.name, "the order for {} is given up: {why}", order.name);
        let mut transaction = self.begin_under(lease).await?;
        self.give_back(&mut transaction, order).await?;
        Ok(self.close(transaction, order, "abandoned").await?)
    }

    /// Decides what a failure means for the order, the name, the account and the CA, in one transaction.
    pub(super) async fn settle(
        &self,
        lease: &Lease,
        order: AcmeOrder,
        error: &CaError,
        during: During,
    ) -> Result<(), StoreError> {
        let failure = classify(error, during, self.now_ms());
        if failure.remedy == Remedy::Account
            && let Some(authority) = self.authority(&order.ca)
        {
            return match self.account_again(lease, authority).await {
                Ok(()) => {
                    let now = self.now_ms();
                    self.end(lease, order, &failure, Fate::Over(now)).await
                }
                Err(Stop::Store(error)) => Err(error),
                Err(Stop::Ca(error, during)) => {
                    let failure = classify(&error, during, self.now_ms());
                    let at = self.now_ms() + HOUR_MS;
                    self.end(lease, order, &Failure { remedy: Remedy::Operator, ..failure }, Fate::Over(at)).await
                }
            };
        }
        let fate = self.fate(&order, &failure).await?;
        self.end(lease, order, &failure, fate).await
    }

    async fn fate(&self, order: &AcmeOrder, failure: &Failure) -> Result<Fate, StoreError> {
        let now_ms = self.now_ms();
        let attempts = self.store().certificate_want(&order.name).await?.map_or(0, |want| want.attempts);
        let soon = |failures| i64::try_from(retry_after(&order.name, failures).as_millis()).unwrap_or(HOUR_MS);
        Ok(match &failure.remedy {
            Remedy::Mend => Fate::Failed(now_ms + mended_after_ms(attempts + 1)),
            Remedy::Block => Fate::Failed(now_ms + BLOCKED_MS),
            Remedy::Unpause => Fate::Failed(now_ms + DAY_MS),
            Remedy::Wait { until_ms, .. } => Fate::Over(until_ms.unwrap_or(now_ms + HOUR_MS)),
            Remedy::Operator => Fate::Over(now_ms + HOUR_MS),
            // Tried at most once a minute, and less and less.
            Remedy::Anew | Remedy::Profile | Remedy::Replacement | Remedy::Account => {
                Fate::Failed(now_ms + soon(attempts + 1).max(60_000))
            }
            // An order that the CA has is worth keeping; one that it has not would only hold a place, and keep the name
            // from a second CA.
            Remedy::Repeat | Remedy::Authority if order.url.is_some() && order.stumbles < STUMBLES => {
                Fate::Kept(now_ms + soon(order.stumbles + 1).clamp(1_000, 300_000))
            }
            Remedy::Repeat => Fate::Over(now_ms + 1_000),
            Remedy::Authority => Fate::Over(now_ms + 10_000),
        })
    }

    async fn end(&self, lease: &Lease, mut order: AcmeOrder, failure: &Failure, fate: Fate) -> Result<(), StoreError> {
        let mut transaction = self.begin_under(lease).await?;
        let mut health = transaction.acme_authority(&order.ca).await?;
        if !matches!(fate, Fate::Kept(_)) {
            // Before what the CA said of its limits is kept: that counts more.
            self.give_back(&mut transaction, &order).await?;
        }
        self.charge_failure(&mut transaction, &order, failure, &mut health).await?;
        let next_ms = match fate {
            Fate::Kept(next_ms) => {
                order.stumbles += 1;
                order.next_ms = next_ms;
                order.note = Some(failure.message.clone());
                transaction.save_acme_order(&order).await?;
                return transaction.finish().await;
            }
            Fate::Failed(next_ms) | Fate::Over(next_ms) => next_ms,
        };
        let name = order.name.as_str();
        let why = Setback {
            reason: failure.reason,
            message: format!("{}: {}", order.ca, failure.message),
            who_acts: failure.who_acts,
            link: failure.link.clone(),
        };
        match fate {
            Fate::Failed(_) => {
                transaction.acme_failed(name, &why, next_ms).await?;
                let detail = json!({
                    "ca": order.ca, "reason": why.reason, "who_acts": why.who_acts, "link": why.link,
                    "next_attempt": rfc3339(next_ms),
                });
                let summary = format!("no certificate for {name}: {}", why.message);
                transaction.record_event(&self.event("certificate.failed", name, summary, detail)).await?;
            }
            _ => transaction.acme_waits(name, &why, next_ms).await?,
        }
        warn!(
            certificate.name = %name, acme.ca = %order.ca, reason = why.reason,
            "no certificate for {name} yet, next attempt at {}: {}", rfc3339(next_ms), why.message
        );
        self.close(transaction, &order, failure.reason).await
    }

    /// What a failure costs: of the name's failures, of a limit, of the CA's good name.
    async fn charge_failure(
        &self,
        transaction: &mut Transaction,
        order: &AcmeOrder,
        failure: &Failure,
        health: &mut AuthorityHealth,
    ) -> Result<(), StoreError> {
        let now_ms = self.now_ms();
        let limits = self.authority(&order.ca).map(|authority| authority.limits).unwrap_or_default();
        match &failure.remedy {
            Remedy::Mend => {
                let since_ms = now_ms - i64::try_from(FAILURES_WITHIN.as_millis()).unwrap_or(HOUR_MS);
                transaction.count_acme_failure(&order.ca, &order.name, since_ms).await?;
                // It answered, so it is well.
                if breaker::succeeded(health) {
                    transaction.save_acme_authority(&order.ca, health).await?;
                }
            }
            Remedy::Wait { of, until_ms } => {
                let until_ms = until_ms.unwrap_or(now_ms + HOUR_MS);
                budget::exhaust(transaction, (&order.ca, &limits), *of, &order.name, until_ms).await?;
                if *of == Limited::Account {
                    health.held_until_ms = Some(until_ms);
                    transaction.save_acme_authority(&order.ca, health).await?;
                }
            }
            Remedy::Unpause => {
                health.link.clone_from(&failure.link);
                transaction.save_acme_authority(&order.ca, health).await?;
            }
            Remedy::Operator => {
                health.account_error = Some(failure.message.clone());
                health.held_until_ms = Some(now_ms + HOUR_MS);
                transaction.save_acme_authority(&order.ca, health).await?;
            }
            Remedy::Authority => {
                if breaker::failed(health, now_ms, &failure.message) {
                    let summary = format!("{} is left alone for a while: {}", order.ca, failure.message);
                    warn!(acme.ca = %order.ca, "{summary}");
                    let event = self.event("acme.unavailable", order.ca.as_str(), summary, Value::Null);
                    transaction.record_event(&event).await?;
                }
                transaction.save_acme_authority(&order.ca, health).await?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn give_back(&self, transaction: &mut Transaction, order: &AcmeOrder) -> Result<(), StoreError> {
        let limits = self.authority(&order.ca).map(|authority| authority.limits).unwrap_or_default();
        budget::give_back(transaction, &limits, order).await
    }

    /// Forgets an order and what was published for it.
    async fn close(&self, mut transaction: Transaction, order: &AcmeOrder, result: &str) -> Result<(), StoreError> {
        transaction.close_acme_order(order, result).await?;
        if !withdraw(&mut transaction, order).await? {
            return transaction.finish().await;
        }
        let object = format!("challenge {}", order.name);
        transaction.commit("certificate.challenge_over", &object, Value::Null).await?;
        Ok(())
    }

    fn event(&self, kind: &'static str, name: &str, summary: String, detail: Value) -> NewEvent {
        let object = if kind.starts_with("acme.") { format!("ca {name}") } else { format!("domain {name}") };
        NewEvent { at_ms: self.now_ms(), kind, tenant: self.tenant_of(name), object, summary, detail, once: None }
    }
}
