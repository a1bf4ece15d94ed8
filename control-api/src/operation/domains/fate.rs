//! What becomes of a domain by itself: what a check of its DNS leads to, written through a transaction.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::json;

use schoolgate_config::model::{Domain, Ownership, Routing};
use schoolgate_config::time::rfc3339;
use schoolgate_dns::life::Happening;
use schoolgate_dns::{Assessment, Life, Standing};
use schoolgate_store::{DomainCheck, DomainTransfer, NewEvent, OrderFacts, Transaction};

use super::transfer::{self, Fate};
use super::{promote_another, remove};
use crate::operation::{Refusal, json};

/// Time between two looks at a domain that another tenant asks for: 10 min.
const TRANSFER_EVERY_MS: i64 = 10 * 60 * 1_000;

/// Time between two looks at a domain whose certificate cannot be ordered: 15 min. Who mended a record or a firewall waits
/// for that, and may ask for a check.
const HINDERED_EVERY_MS: i64 = 15 * 60 * 1_000;

/// A domain that was looked at.
#[derive(Debug)]
pub(crate) struct Looked {
    /// As it was before.
    pub(crate) domain: Domain,
    /// How its checks stood before.
    pub(crate) check: DomainCheck,
    /// Who asked for it, before.
    pub(crate) transfer: Option<DomainTransfer>,
    /// What was seen.
    pub(crate) assessment: Assessment,
    /// What that says to whoever orders its certificate.
    pub(crate) order_facts: OrderFacts,
}

/// What became of a domain.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Became {
    /// It is as it was, or stands otherwise.
    Kept,
    /// Another tenant's.
    Moved,
    /// Nobody's.
    Released,
    /// Unknown: it was changed meanwhile, so what was seen may be of another domain. Nothing was written.
    Superseded,
}

/// Writes what a check leads to; the caller commits with [`conclude`].
///
/// # Errors
/// [`Refusal::Store`].
pub(crate) async fn apply(transaction: &mut Transaction, looked: &Looked) -> Result<Became, Refusal> {
    let now_ms = transaction.now_ms();
    let Some(stored) = transaction.get::<Domain>(&looked.domain.name).await? else { return Ok(Became::Superseded) };
    let domain = stored.value;
    let transfer = transaction.domain_transfer(&domain.name).await?;
    // Another's token: what was looked for is not what is wanted now.
    if (&domain.token, domain.tenant) != (&looked.domain.token, looked.domain.tenant)
        || transfer.as_ref().map(|t| &t.token) != looked.transfer.as_ref().map(|t| &t.token)
    {
        return Ok(Became::Superseded);
    }
    // What another release kept may read differently; its checks begin anew.
    let life: Life = serde_json::from_value(looked.check.life.clone()).unwrap_or_default();
    let standing = Standing { ownership: domain.ownership, routing: domain.routing };
    let verdict = looked.assessment.verdict;
    let step = life.step(standing, verdict, now_ms, seed(&domain));
    let mut check = DomainCheck {
        next_check_ms: step.next_ms,
        checked_at_ms: Some(now_ms),
        life: json(&step.life),
        findings: json(&looked.assessment.findings),
        order_facts: looked.order_facts.clone(),
        ..looked.check.clone()
    };
    let fate = transfer.map(|t| (transfer::fate(&t, verdict.other, step.standing.ownership, now_ms), t));
    if let Some((Fate::Move | Fate::Notice | Fate::Wait | Fate::Lost, _)) = &fate {
        let soon = now_ms + TRANSFER_EVERY_MS;
        check.next_check_ms = Some(check.next_check_ms.map_or(soon, |next| next.min(soon)));
    }
    // Of a name that does not point here the schedule knows how soon it may be mended.
    let stands = Standing { ownership: Ownership::Proven, routing: Routing::Here };
    if !check.order_facts.hindrances.is_empty() && step.standing == stands {
        let soon = now_ms + HINDERED_EVERY_MS;
        check.next_check_ms = check.next_check_ms.map(|next| next.min(soon));
    }
    if let Some((Fate::Move, _)) = &fate {
        check.life = json(&Life::default());
    }
    if !transaction.save_domain_check(&check).await? {
        return Ok(Became::Superseded);
    }
    for happening in &step.happenings {
        transaction.record_event(&event(&domain, *happening, now_ms)).await?;
    }
    if let Some((fate, transfer)) = fate {
        transfer::write(transaction, &domain, &transfer, fate).await?;
        if fate == Fate::Move {
            move_to(transaction, domain, &transfer, step.standing).await?;
            return Ok(Became::Moved);
        }
    }
    if step.happenings.last() == Some(&Happening::Released) {
        remove(transaction, &domain).await?;
        return Ok(Became::Released);
    }
    if step.standing != standing {
        if domain.ownership != Ownership::Proven && step.standing.ownership == Ownership::Proven {
            transaction.drop_released_name(&domain.name).await?;
        }
        let Standing { ownership, routing } = step.standing;
        transaction.update(Domain { ownership, routing, ..domain }, None).await?;
    }
    Ok(Became::Kept)
}

/// Commits what [`apply`] wrote: as a change, when it changed an object.
///
/// # Errors
/// [`Refusal::Store`].
pub(crate) async fn conclude(transaction: Transaction, looked: &Looked, became: &Became) -> Result<(), Refusal> {
    let name = &looked.domain.name;
    if *became == Became::Superseded {
        transaction.rollback().await;
        return Ok(());
    }
    if transaction.changes().is_empty() {
        transaction.commit_records().await?;
        return Ok(());
    }
    let action = match became {
        Became::Moved => "domain.transfer",
        Became::Released => "domain.release",
        Became::Kept | Became::Superseded => "domain.check",
    };
    let codes: Vec<_> = looked.assessment.findings.iter().map(|finding| finding.code).collect();
    let summary = json!({ "tenant": looked.domain.tenant, "findings": codes });
    transaction.commit(action, &format!("domain {name}"), summary).await?;
    Ok(())
}

async fn move_to(
    transaction: &mut Transaction,
    domain: Domain,
    transfer: &DomainTransfer,
    standing: Standing,
) -> Result<(), Refusal> {
    let (old, was_primary) = (domain.tenant, domain.primary);
    let moved = transfer::moved(transaction, domain, transfer, standing.routing).await?;
    transaction.update(moved, None).await?;
    if was_primary {
        promote_another(transaction, old).await?;
    }
    Ok(())
}

/// Spreads the daily checks of many domains.
fn seed(domain: &Domain) -> u64 {
    let mut hasher = DefaultHasher::new();
    domain.name.as_str().hash(&mut hasher);
    hasher.finish()
}

fn event(domain: &Domain, happening: Happening, now_ms: i64) -> NewEvent {
    let name = &domain.name;
    let said = match happening {
        Happening::Proven => format!("{name} is proven to be the tenant's"),
        Happening::ClaimExpired => {
            format!("nobody proved {name} within a week; it is looked at again when somebody asks for a check")
        }
        Happening::ProofMissing { served_until_ms } => {
            format!("the proof of {name} is missing; it is served until {}", rfc3339(served_until_ms))
        }
        Happening::ProofBack => format!("the proof of {name} is back"),
        Happening::Lapsed => format!("the proof of {name} was missing for a week; it is no longer served"),
        Happening::Here => format!("{name} points here"),
        Happening::Drifted => format!("{name} no longer points here, or not everywhere"),
        Happening::Left => format!("{name} has pointed elsewhere for a week; its certificate is no longer renewed"),
        Happening::Released => format!("{name} is given up: it left, and nobody proves it"),
    };
    NewEvent::of_domain(now_ms, happening.kind(), name, domain.tenant, said)
}
