//! A domain that goes from one tenant to another, by a fresh proof.
//!
//! Who asks gets a TXT record of its own to set. A name that nobody has proven goes to it as soon as the record is seen;
//! a working domain goes three days later, with the tenant that has it told at once, and only if the record still stands.

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use schoolgate_config::model::{Domain, DomainName, Ownership, Routing, Tenant};
use schoolgate_config::time::rfc3339;
use schoolgate_dns::life::{CLAIM_MS, TRANSFER_NOTICE_MS};
use schoolgate_dns::{OtherClaim, Proof};
use schoolgate_store::{DomainCheck, DomainTransfer, ListQuery, NewEvent, Stored, Transaction};

use super::records::{DnsRecord, assumed_owned, new_token};
use super::view::TransferView;
use super::{check_quota, promote_another};
use crate::operation::document::{Errors, Text, read, readable};
use crate::operation::permission::{Reach, Subject};
use crate::operation::tenants::TenantKey;
use crate::operation::{Done, Refusal, What, Work, json};

/// Who asks for a domain.
#[derive(Debug, ToSchema)]
pub(crate) struct TransferInput {
    /// Who: `tnt_…` or a slug.
    tenant: Text<1, 80>,
}
readable!(TransferInput { tenant });

/// What was asked for, and what proves it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TransferAnswer {
    /// The domain.
    name: DomainName,
    /// Whether it is the other tenant's already.
    moved: bool,
    /// How the request stands.
    transfer: Option<TransferView>,
    /// What proves it.
    records: Vec<DnsRecord>,
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It waits for its proof, or for its time.
    Wait,
    /// The proof is there for the first time; the notice begins.
    Notice,
    /// The proof was there and has gone; the notice begins anew when it comes back.
    Lost,
    /// The domain goes.
    Move,
    /// It waited as long as it may.
    Expire,
}

/// Decides. A proof that nobody could look for changes nothing.
pub(super) fn fate(transfer: &DomainTransfer, proof: Proof, ownership: Ownership, now_ms: i64) -> Fate {
    match (proof, transfer.proven_at_ms) {
        (Proof::Present, _) if ownership != Ownership::Proven => Fate::Move,
        (Proof::Present, Some(proven)) if now_ms - proven >= TRANSFER_NOTICE_MS => Fate::Move,
        (Proof::Present, None) => Fate::Notice,
        (Proof::Absent, Some(_)) => Fate::Lost,
        (Proof::Absent, None) if now_ms - transfer.requested_at_ms >= CLAIM_MS => Fate::Expire,
        _ => Fate::Wait,
    }
}

/// Writes what becomes of a request, and tells both tenants. Moving the domain itself is the caller's.
pub(super) async fn write(
    transaction: &mut Transaction,
    domain: &Domain,
    transfer: &DomainTransfer,
    fate: Fate,
) -> Result<(), Refusal> {
    let now_ms = transaction.now_ms();
    let name = &domain.name;
    let (has, asks) = (domain.tenant, transfer.tenant);
    let event = |kind, tenant, said: String| NewEvent::of_domain(now_ms, kind, name, tenant, said);
    let events = match fate {
        Fate::Wait => return Ok(()),
        Fate::Notice => {
            let proven = DomainTransfer { proven_at_ms: Some(now_ms), ..transfer.clone() };
            transaction.save_domain_transfer(&proven).await?;
            let at = rfc3339(now_ms + TRANSFER_NOTICE_MS);
            vec![
                event("domain.transfer_proven", has, format!("another tenant has proven {name}; it moves at {at}")),
                event("domain.transfer_proven", asks, format!("{name} moves here at {at}, if its proof still stands")),
            ]
        }
        Fate::Lost => {
            let again = DomainTransfer { proven_at_ms: None, ..transfer.clone() };
            transaction.save_domain_transfer(&again).await?;
            let said = format!("the proof for the transfer of {name} has gone; it waits for it again");
            vec![event("domain.transfer_lost", has, said.clone()), event("domain.transfer_lost", asks, said)]
        }
        Fate::Move => {
            transaction.drop_domain_transfer(name).await?;
            vec![
                event("domain.moved_away", has, format!("{name} is another tenant's, by a fresh proof")),
                event("domain.moved_here", asks, format!("{name} is this tenant's, by a fresh proof")),
            ]
        }
        Fate::Expire => {
            transaction.drop_domain_transfer(name).await?;
            vec![event("domain.transfer_expired", asks, format!("{name} was not proven within a week; nothing moves"))]
        }
    };
    for event in &events {
        transaction.record_event(event).await?;
    }
    Ok(())
}

/// A domain as it is after it moved.
pub(super) async fn moved(
    transaction: &mut Transaction,
    domain: Domain,
    transfer: &DomainTransfer,
    routing: Routing,
) -> Result<Domain, Refusal> {
    let query = ListQuery { tenant: Some(transfer.tenant), ..ListQuery::default() };
    let first = transaction.count::<Domain>(&query).await? == 0;
    transaction.drop_released_name(&domain.name).await?;
    let (tenant, token) = (transfer.tenant, transfer.token.clone());
    Ok(Domain { tenant, token, primary: first, ownership: Ownership::Proven, routing, ..domain })
}

/// Asks for another tenant's domain.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Invalid`], [`Refusal::Forbidden`], [`Refusal::Conflict`].
pub(crate) async fn request(work: &mut Work, name: &DomainName, body: &Value) -> Result<Done, Refusal> {
    work.operator.may(Subject::Domains.write())?;
    let mut errors = Errors::default();
    let input = read::<TransferInput>(body, &mut errors);
    let input = errors.ok(input).map_err(Refusal::Invalid)?;
    let unknown = || Refusal::invalid("/tenant", "not_found", "there is no such tenant");
    let key = TenantKey::parse_field(&input.tenant.0).map_err(|_| unknown())?;
    let tenant = match key.find_in(&mut work.transaction).await {
        Err(Refusal::NotFound { .. }) => return Err(unknown()),
        other => other?.value,
    };
    // Whose it is now has no say: the proof has.
    work.operator.may_with(Subject::Domains.write(), tenant.id)?;
    let domain = work.existing::<Domain>(name).await?.value;
    if domain.tenant == tenant.id {
        let message = format!("{name} is this tenant's already");
        return Err(Refusal::Conflict { code: "DOMAIN_EXISTS", message, pointer: Some("/tenant") });
    }
    let query = ListQuery { tenant: Some(tenant.id), ..ListQuery::default() };
    let has = work.transaction.count::<Domain>(&query).await?;
    check_quota(work, &tenant, has)?;
    let transfer = DomainTransfer {
        name: name.clone(),
        tenant: tenant.id,
        token: new_token(),
        requested_at_ms: work.transaction.now_ms(),
        requested_by: work.operator.name.clone(),
        proven_at_ms: None,
    };
    // A reserved name is in nobody's DNS, so nobody can prove it: who reaches both tenants decides.
    if assumed_owned(name, &work.platform) {
        if work.operator.may(Subject::Domains.write())? != Reach::All {
            work.operator.may_with(Subject::Domains.write(), domain.tenant)?;
        }
        return move_now(work, domain, &transfer).await;
    }
    work.transaction.save_domain_transfer(&transfer).await?;
    look_now(work, name).await?;
    let now_ms = work.transaction.now_ms();
    let said = format!("another tenant asks for {name}; nothing moves before it proves it");
    let event = NewEvent::of_domain(now_ms, "domain.transfer_asked", name, domain.tenant, said);
    work.transaction.record_event(&event).await?;
    Ok(done(&domain, &transfer, Some(&tenant), "transfer-request"))
}

/// Withdraws a request.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Forbidden`].
pub(crate) async fn withdraw(work: &mut Work, name: &DomainName) -> Result<Done, Refusal> {
    work.operator.may(Subject::Domains.write())?;
    let nothing = || Refusal::not_found(&format!("a transfer of domain {name}"));
    let transfer = work.transaction.domain_transfer(name).await?.ok_or_else(nothing)?;
    work.operator.may_with(Subject::Domains.write(), transfer.tenant)?;
    let domain = work.existing::<Domain>(name).await?.value;
    work.transaction.drop_domain_transfer(name).await?;
    let about = done(&domain, &transfer, None, "transfer-withdraw");
    Ok(Done { what: What::Removed, object: Value::Null, version: None, ..about })
}

async fn look_now(work: &mut Work, name: &DomainName) -> Result<(), Refusal> {
    let now_ms = work.transaction.now_ms();
    if let Some(check) = work.transaction.domain_check(name).await? {
        work.transaction.save_domain_check(&DomainCheck { next_check_ms: Some(now_ms), ..check }).await?;
    }
    Ok(())
}

async fn move_now(work: &mut Work, domain: Domain, transfer: &DomainTransfer) -> Result<Done, Refusal> {
    write(&mut work.transaction, &domain, transfer, Fate::Move).await?;
    let (old, was_primary) = (domain.tenant, domain.primary);
    let after = moved(&mut work.transaction, domain.clone(), transfer, domain.routing).await?;
    let stored: Stored<Domain> = work.transaction.update(after, None).await?;
    if was_primary {
        promote_another(&mut work.transaction, old).await?;
    }
    Ok(done(&stored.value, transfer, None, "transfer"))
}

/// An answer; `asks` is who has still to prove it.
fn done(domain: &Domain, transfer: &DomainTransfer, asks: Option<&Tenant>, verb: &str) -> Done {
    let name = &domain.name;
    let claim = OtherClaim { tenant: transfer.tenant, token: transfer.token.clone() };
    let record = DnsRecord {
        kind: "TXT",
        name: format!("_schoolgate.{name}"),
        value: claim.proof(),
        purpose: "ownership",
        optional: false,
    };
    let answer = TransferAnswer {
        name: name.clone(),
        moved: asks.is_none(),
        transfer: asks.map(|_| TransferView::of(transfer)),
        records: asks.map(|_| record).into_iter().collect(),
    };
    Done {
        what: What::Changed,
        object: json(&answer),
        version: None,
        path: format!("domains/{name}"),
        action: format!("domain.{verb}"),
        about: format!("domain {name}"),
        summary: json!({ "tenant": transfer.tenant, "had_by": domain.tenant }),
        names: Vec::new(),
        again: None,
    }
}

#[cfg(test)]
mod tests {
    use schoolgate_config::model::TenantId;

    use super::*;

    #[test]
    fn a_working_domain_moves_three_days_after_its_proof_and_any_other_at_once() {
        let asked = DomainTransfer {
            name: "erp.greenhill.example".parse().expect("a name"),
            tenant: TenantId::from_parts(1, 1),
            token: "t".into(),
            requested_at_ms: 0,
            requested_by: "test".into(),
            proven_at_ms: None,
        };
        let proven = DomainTransfer { proven_at_ms: Some(1_000), ..asked.clone() };
        let (has, lapsed) = (Ownership::Proven, Ownership::Lapsed);
        assert_eq!(fate(&asked, Proof::Present, has, 5), Fate::Notice);
        assert_eq!(fate(&proven, Proof::Present, has, TRANSFER_NOTICE_MS), Fate::Wait);
        assert_eq!(fate(&proven, Proof::Present, has, TRANSFER_NOTICE_MS + 1_000), Fate::Move);
        assert_eq!(fate(&asked, Proof::Present, lapsed, 5), Fate::Move);
        assert_eq!(fate(&asked, Proof::Present, Ownership::Unproven, 5), Fate::Move);
        assert_eq!(fate(&proven, Proof::Absent, has, 2_000), Fate::Lost);
        assert_eq!(fate(&proven, Proof::Unknown, has, i64::MAX), Fate::Wait);
        assert_eq!(fate(&asked, Proof::Absent, has, CLAIM_MS - 1), Fate::Wait);
        assert_eq!(fate(&asked, Proof::Absent, has, CLAIM_MS), Fate::Expire);
    }
}
