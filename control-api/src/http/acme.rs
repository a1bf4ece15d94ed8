//! `acme`: what waits for a certificate, and what the CA's limits leave.

use axum::extract::{Path, State};
use serde::Serialize;
use utoipa::ToSchema;

use schoolgate_config::model::{CaId, DomainName, Fingerprint, TenantId};
use schoolgate_config::time::{Clock, SystemClock, rfc3339};
use schoolgate_store::acme::{AuthorityHealth, Bucket, QueueEntry, QueuePart};

use super::params::Params;
use super::write::WriteRequest;
use super::{Answer, Api, ListAnswer};
use crate::operation::permission::{Operator, Subject};
use crate::operation::{Refusal, acme};

/// Names shown at once: what is further behind has long to wait, and is counted in the metrics.
const SHOWN: u32 = 1_000;

/// Buckets shown at once, those with the least left first.
const BUCKETS_SHOWN: u32 = 200;

/// A name that waits for a certificate of an ACME CA.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct QueueView {
    /// The name: exact, or `*.zone`.
    name: String,
    /// Whose it is.
    tenant: Option<TenantId>,
    /// `expiring`, `new`, `renewal`, `retry` or `bulk`; the first goes first.
    class: &'static str,
    /// `waiting`, or how far its order is: `prepared`, `placed`, `published`, `validating`, `finalizing`.
    state: &'static str,
    /// Where it is ordered.
    ca: Option<CaId>,
    /// Since when it waits.
    #[schema(format = DateTime)]
    since: String,
    /// When it is looked at again, at the earliest.
    #[schema(format = DateTime)]
    next_attempt_at: String,
    /// Failures since the last success.
    attempts: u32,
    /// End of the certificate it has.
    #[schema(format = DateTime)]
    not_after: Option<String>,
    /// Why it waits, for programs: `not_ready`, `budget`, `dns`, `rate_limited`, `ca_unavailable`, …
    reason: Option<String>,
    /// Why it waits, with the CA's own words.
    message: Option<String>,
    /// Who must act: `school`, `operator` or `nobody`.
    who_acts: Option<String>,
    /// A page of the CA that helps, such as the one where a pause is lifted.
    link: Option<String>,
    /// A page of the CA that says why it wants the certificate renewed.
    renewal_explanation: Option<String>,
}

fn queued(entry: QueueEntry) -> QueueView {
    QueueView {
        tenant: entry.tenant.and_then(|id| id.parse().ok()),
        class: entry.class.as_str(),
        state: entry.order.as_ref().map_or("waiting", |(step, _)| step.as_str()),
        ca: entry.order.map(|(_, ca)| ca),
        since: rfc3339(entry.since_ms),
        next_attempt_at: rfc3339(entry.want.next_attempt_ms),
        attempts: entry.want.attempts,
        not_after: entry.not_after_ms.map(rfc3339),
        reason: entry.reason,
        message: entry.want.error,
        who_acts: entry.who_acts,
        link: entry.link,
        renewal_explanation: entry.renewal.and_then(|window| window.explanation),
        name: entry.want.name,
    }
}

/// Names without the certificate they should have, in the order in which they have their turn.
#[utoipa::path(get, path = "/api/v1/acme/queue", tag = "acme",
    responses((status = 200, body = ListAnswer<QueueView>)))]
pub(super) async fn queue(State(api): State<Api>, operator: Operator, params: Params) -> Answer {
    params.finish()?;
    operator.may_everywhere(Subject::Certificates.read())?;
    let entries = api.store.acme_queue(SystemClock.unix_ms(), QueuePart::All, SHOWN).await?;
    Ok(ListAnswer::whole(entries.into_iter().map(queued).collect()))
}

/// A CA, and what its limits leave.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuthorityView {
    /// What it is called.
    ca: CaId,
    /// Our account there: what a CAA record's `accounturi` names.
    account: Option<String>,
    /// `open`: it takes orders; `held`: not of this account for a while; `left_alone`: it failed too often.
    state: &'static str,
    /// Until when it is not asked.
    #[schema(format = DateTime)]
    until: Option<String>,
    /// The last thing that went wrong there.
    last_error: Option<String>,
    /// What an operator has to see to.
    account_error: Option<String>,
    /// A page of the CA where a pause is lifted.
    link: Option<String>,
    /// What is left of its limits, the least first.
    limits: Vec<LimitView>,
}

/// One limit.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitView {
    /// `orders`, `renewals`, `registered_domain`, `name_set` or `name`.
    limit: String,
    /// Of whom; empty: of the whole account.
    subject: String,
    /// What is left now.
    remaining: u64,
    /// What there is when nothing was used: four fifths of what the CA grants.
    capacity: u64,
    /// Seconds in which all of it comes back.
    per_seconds: i64,
    /// When there is one, if there is none now.
    #[schema(format = DateTime)]
    next_at: Option<String>,
}

fn limit(bucket: Bucket, now_ms: i64) -> LimitView {
    let ready = bucket.ready_at(now_ms);
    LimitView {
        remaining: whole(bucket.remaining(now_ms)),
        capacity: whole(bucket.capacity),
        per_seconds: bucket.per_ms / 1_000,
        next_at: (ready > now_ms).then(|| rfc3339(ready)),
        limit: bucket.name,
        subject: bucket.subject,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "limits are some thousands, never negative here"
)]
fn whole(tokens: f64) -> u64 {
    tokens.max(0.0).floor() as u64
}

fn authority(ca: CaId, account: Option<String>, health: AuthorityHealth, now_ms: i64) -> AuthorityView {
    let held = health.held_until_ms.filter(|until| *until > now_ms);
    let (state, until) = match (health.open_since_ms, held) {
        (Some(_), _) => ("left_alone", health.probe_at_ms),
        (None, Some(until)) => ("held", Some(until)),
        (None, None) => ("open", None),
    };
    AuthorityView {
        ca,
        account,
        state,
        until: until.map(rfc3339),
        last_error: health.last_error,
        account_error: health.account_error,
        link: health.link,
        limits: Vec::new(),
    }
}

/// The CAs and what their limits leave.
#[utoipa::path(get, path = "/api/v1/acme/budget", tag = "acme",
    responses((status = 200, body = ListAnswer<AuthorityView>)))]
pub(super) async fn budget(State(api): State<Api>, operator: Operator, params: Params) -> Answer {
    params.finish()?;
    operator.may_everywhere(Subject::Certificates.read())?;
    let now_ms = SystemClock.unix_ms();
    let healths = api.store.acme_authorities().await?;
    let health = |ca: &CaId| healths.iter().find(|(id, _)| id == ca).map(|(_, health)| health.clone());
    let accounts = api.store.acme_credentials().await?;
    let mut views: Vec<AuthorityView> = accounts
        .into_iter()
        .map(|account| {
            let health = health(&account.ca).unwrap_or_default();
            authority(account.ca, Some(account.url), health, now_ms)
        })
        .collect();
    // A CA that has refused us an account is the one somebody looks for.
    for (ca, health) in &healths {
        if !views.iter().any(|view| view.ca == *ca) {
            views.push(authority(ca.clone(), None, health.clone(), now_ms));
        }
    }
    for bucket in api.store.acme_buckets(BUCKETS_SHOWN).await? {
        if let Some(view) = views.iter_mut().find(|view| view.ca == bucket.ca) {
            view.limits.push(limit(bucket, now_ms));
        }
    }
    Ok(ListAnswer::whole(views))
}

/// That a name has its turn now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Asked {
    /// The name.
    name: String,
    /// Always true.
    queued: bool,
}

/// Has the certificate of a domain ordered now.
#[utoipa::path(post, path = "/api/v1/domains/{name}/retry-certificate", tag = "acme", params(("name" = String, Path)),
    responses((status = 200, body = Asked), (status = 409)))]
pub(super) async fn retry(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    let name = DomainName::parse(&text).map_err(|_| Refusal::not_found("domain"))?;
    let (mut writing, _) = request.begin(&api).await?;
    let done = acme::retry(&mut writing.work, &name).await?;
    writing.finish(done).await
}

/// Renews a certificate before its time.
#[utoipa::path(post, path = "/api/v1/certificates/{fingerprint}/renew", tag = "acme",
    params(("fingerprint" = String, Path)), responses((status = 200, body = Asked), (status = 409)))]
pub(super) async fn renew(State(api): State<Api>, Path(text): Path<String>, request: WriteRequest) -> Answer {
    let fingerprint = text.parse::<Fingerprint>().map_err(|_| Refusal::not_found("certificate"))?;
    let (mut writing, _) = request.begin(&api).await?;
    let done = acme::renew(&mut writing.work, &fingerprint).await?;
    writing.finish(done).await
}
