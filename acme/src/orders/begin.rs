//! Which names get an order now: strictly by class, tenants in turn, as far as budgets go.

use std::collections::HashMap;

use schoolgate_config::model::{CaId, Certificate};
use schoolgate_config::time::{new_ulid, rfc3339};
use schoolgate_store::acme::{
    AcmeOrder, AuthorityHealth, Charge, OrderStep, QueueClass, QueueEntry, QueuePart, Setback,
};
use schoolgate_store::{Lease, StoreError};

use super::{AT_ONCE, Authority, Orders, Outcome};
use crate::breaker::{self, Admission};
use crate::budget::{self, Short, registered_domain};
use crate::directory::certificate_id;
use crate::failure::Limited;
use crate::key::LeafKey;
use crate::readiness::Readiness;

/// Names read from the queue at a time.
const LOOKED_AT: u32 = 64;

/// A name that is not ready is looked at again after this: 1 h; a change of its domain is seen at once.
const NOT_READY_MS: i64 = 3_600_000;

/// How each CA is.
type Healths = HashMap<CaId, AuthorityHealth>;

/// What became of a name.
enum Begun {
    Order,
    /// Not now, for this reason, and until then.
    PutOff(Setback, i64),
    /// It went, or somebody was first.
    Gone,
    /// This kind of order has nothing left, of the whole account.
    Short(Charge, i64),
    /// No CA takes it before this.
    NoCa(i64),
}

impl Orders {
    /// Begins what may be begun. A limit that holds new names does not hold renewals, nor the reverse: where one kind is
    /// short, the other is looked at by itself.
    pub(super) async fn begin(&self, lease: &Lease, outcome: &mut Outcome) -> Result<(), StoreError> {
        let open = usize::try_from(self.store().acme_orders_open().await?).unwrap_or(usize::MAX);
        let mut slots = AT_ONCE.saturating_sub(open);
        let mut part = QueuePart::Due;
        while slots > 0 {
            let mut healths: Healths = self.store().acme_authorities().await?.into_iter().collect();
            let entries = self.store().acme_queue(self.now_ms(), part, LOOKED_AT).await?;
            let (mut short, mut put_off, mut no_ca) = (None, PutOffs::default(), false);
            for entry in entries {
                if slots == 0 || short.is_some() || no_ca {
                    break;
                }
                if let Some((why, until_ms)) = put_off.like(&entry) {
                    put_off.add(&entry.want.name, why, until_ms);
                    continue;
                }
                match self.begin_one(lease, &entry, &mut healths).await? {
                    Begun::Order => {
                        slots -= 1;
                        outcome.begun += 1;
                    }
                    Begun::Gone => outcome.put_off += 1,
                    Begun::PutOff(why, until_ms) => put_off.add(&entry.want.name, why, until_ms),
                    Begun::Short(charge, until) => {
                        outcome.rest(until);
                        short = Some(charge);
                    }
                    Begun::NoCa(until) => {
                        outcome.rest(until);
                        no_ca = true;
                    }
                }
            }
            outcome.put_off += put_off.0.len();
            self.put_off(lease, put_off).await?;
            if no_ca {
                return Ok(());
            }
            part = match (part, short) {
                (QueuePart::Due, Some(Charge::New)) => QueuePart::Renewals,
                (QueuePart::Due, Some(Charge::Renewal | Charge::Replacement)) => QueuePart::NewNames,
                _ => return Ok(()),
            };
        }
        Ok(())
    }

    async fn begin_one(&self, lease: &Lease, entry: &QueueEntry, healths: &mut Healths) -> Result<Begun, StoreError> {
        let now_ms = self.now_ms();
        let name = entry.want.name.as_str();
        let (authority, admission) = match self.choose(entry.class, healths, now_ms) {
            Ok(chosen) => chosen,
            Err(until) => return Ok(Begun::NoCa(until)),
        };
        let preflight = &self.inner.world.preflight;
        let (authority, admission) = match preflight.check(name, &authority.id).await {
            Readiness::Ready(..) => (authority, admission),
            Readiness::NotReady(why) => return Ok(Begun::PutOff(why, now_ms + NOT_READY_MS)),
            Readiness::NotHere(why) => match self.another_than(authority, healths, now_ms) {
                Some(other) if matches!(preflight.check(name, &other.id).await, Readiness::Ready(..)) => {
                    (other, Admission::Open)
                }
                _ => return Ok(Begun::PutOff(why, now_ms + NOT_READY_MS)),
            },
        };
        let (charge, replaces) = self.charge(entry, authority).await?;
        let Some(order) = self.prepare_order(entry, authority, (charge, replaces)) else {
            let message = format!("{name} cannot be put in a signing request");
            let why = Setback { reason: "bad_name", message, who_acts: "operator", link: None };
            return Ok(Begun::PutOff(why, now_ms + 24 * 3_600_000));
        };

        let mut transaction = self.begin_under(lease).await?;
        if transaction.certificate_want(name).await?.is_none() {
            transaction.rollback().await;
            return Ok(Begun::Gone);
        }
        match budget::take(&mut transaction, (&authority.id, &authority.limits), charge, name).await? {
            Err(Short { of: Limited::Account, until_ms, .. }) => {
                transaction.rollback().await;
                return Ok(Begun::Short(charge, until_ms));
            }
            Err(short) => {
                transaction.rollback().await;
                return Ok(Begun::PutOff(of_short(&short), short.until_ms));
            }
            Ok(()) => {}
        }
        let opened = transaction.open_acme_order(&order, entry.tenant.as_deref().unwrap_or_default()).await?;
        if !opened {
            transaction.rollback().await;
            return Ok(Begun::Gone);
        }
        if admission == Admission::Probe {
            let health = healths.entry(authority.id.clone()).or_default();
            breaker::probing(health, now_ms);
            transaction.save_acme_authority(&authority.id, health).await?;
        }
        transaction.finish().await?;
        Ok(Begun::Order)
    }

    /// The CA for a name of this class; `Err` says when there may be one.
    fn choose(&self, class: QueueClass, healths: &Healths, now_ms: i64) -> Result<(&Authority, Admission), i64> {
        let well = AuthorityHealth::default();
        let health = |authority: &Authority| healths.get(&authority.id).unwrap_or(&well);
        let mut authorities = self.inner.authorities.iter();
        let Some(first) = authorities.next() else { return Err(now_ms + NOT_READY_MS) };
        let until = match breaker::admits(health(first), now_ms) {
            Admission::After(until) => until,
            admission => return Ok((first, admission)),
        };
        match authorities.next() {
            Some(second) if breaker::may_fall_back(health(first), health(second), class, now_ms) => {
                Ok((second, Admission::Open))
            }
            _ => Err(until),
        }
    }

    /// A CA that is well, for a name whose CAA records forbid the one chosen.
    fn another_than(&self, chosen: &Authority, healths: &Healths, now_ms: i64) -> Option<&Authority> {
        let well = AuthorityHealth::default();
        let mut others = self.inner.authorities.iter().filter(|authority| authority.id != chosen.id);
        others.find(|other| {
            let health = healths.get(&other.id).unwrap_or(&well);
            health.account_error.is_none() && breaker::admits(health, now_ms) == Admission::Open
        })
    }

    /// What an order is charged to, and which certificate it replaces, as the CA calls it: only where this CA made it
    /// and has said when to renew it.
    async fn charge(&self, entry: &QueueEntry, authority: &Authority) -> Result<(Charge, Option<String>), StoreError> {
        let Some(fingerprint) = entry.want.fingerprint.filter(|_| entry.ca.as_ref() == Some(&authority.id)) else {
            return Ok((Charge::New, None));
        };
        if entry.renewal.is_none() {
            return Ok((Charge::Renewal, None));
        }
        let certificate = self.store().get::<Certificate>(&fingerprint).await?;
        let id = certificate.and_then(|stored| certificate_id(stored.value.chain.first()?));
        Ok(if id.is_some() { (Charge::Replacement, id) } else { (Charge::Renewal, None) })
    }

    /// Key and signing request are made and kept before the CA hears of the order: whoever goes on with it can finish.
    fn prepare_order(
        &self,
        entry: &QueueEntry,
        authority: &Authority,
        (charge, replaces): (Charge, Option<String>),
    ) -> Option<AcmeOrder> {
        let key = LeafKey::generate();
        let id = new_ulid().to_string();
        let now_ms = self.now_ms();
        Some(AcmeOrder {
            name: entry.want.name.clone(),
            ca: authority.id.clone(),
            step: OrderStep::Prepared,
            class: entry.class,
            charge,
            csr: key.signing_request(&entry.want.name)?,
            key: self.inner.world.keeper.seal(AcmeOrder::KEY_PURPOSE, &id, key.pkcs8()),
            id,
            url: None,
            profile: authority.profile.clone(),
            replaces,
            proof: None,
            change: None,
            begun_at_ms: now_ms,
            next_ms: now_ms,
            stumbles: 0,
            note: None,
        })
    }

    /// All of a look at once: a district with a thousand names is some writes, not a thousand.
    async fn put_off(&self, lease: &Lease, names: PutOffs) -> Result<(), StoreError> {
        if names.0.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin_under(lease).await?;
        for (name, why, until_ms) in &names.0 {
            transaction.acme_waits(name, why, *until_ms).await?;
        }
        transaction.finish().await
    }
}

/// Names that have to wait, why, and until when.
#[derive(Default)]
struct PutOffs(Vec<(String, Setback, i64)>);

impl PutOffs {
    fn add(&mut self, name: &str, why: Setback, until_ms: i64) {
        self.0.push((name.to_owned(), why, until_ms));
    }

    /// What holds a new name because it holds another of the same registered domain in this look.
    fn like(&self, entry: &QueueEntry) -> Option<(Setback, i64)> {
        let domain = registered_domain(&entry.want.name);
        let held = |name: &str, why: &Setback| why.reason == DOMAIN_SPENT && registered_domain(name) == domain;
        let found = self.0.iter().find(|(name, why, _)| entry.ca.is_none() && held(name, why))?;
        Some((found.1.clone(), found.2))
    }
}

/// The reason of names whose registered domain has used up the CA's limit.
const DOMAIN_SPENT: &str = "domain_budget";

fn of_short(short: &Short) -> Setback {
    let until = rfc3339(short.until_ms);
    let message = match short.limit {
        "failures" => format!("validation failed three times within an hour; it rests until {until}"),
        "registered_domain" => {
            format!(
                "the CA's weekly limit for {} is used up; the next certificate is possible at {until}",
                short.subject
            )
        }
        _ => format!("the CA's limit for {} is used up until {until}", short.subject),
    };
    let reason = if short.of == Limited::RegisteredDomain { DOMAIN_SPENT } else { "budget" };
    Setback { reason, message, who_acts: "nobody", link: None }
}
