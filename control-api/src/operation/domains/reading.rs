//! Committed domains, as the API shows them.

use std::collections::BTreeMap;

use schoolgate_config::model::{Domain, DomainName, Ownership, TenantId};
use schoolgate_config::table::RoutingTable;
use schoolgate_store::{ListQuery, Page, Store, Stored};

use super::instructions::Instructions;
use super::records::issuers_of;
use super::view::{DomainView, Surroundings, view};
use crate::operation::permission::{Operator, Reach, Subject};
use crate::operation::{Platform, Refusal};

/// Where committed domains are read.
pub(crate) struct Reading<'a> {
    /// The store.
    pub(crate) store: &'a Store,
    /// What the settings say.
    pub(crate) platform: &'a Platform,
    /// Milliseconds since 1970.
    pub(crate) now_ms: i64,
}

impl Reading<'_> {
    /// How the API shows a committed domain.
    ///
    /// # Errors
    /// [`Refusal::Store`].
    pub(crate) async fn shown(&self, stored: &Stored<Domain>) -> Result<DomainView, Refusal> {
        let want = self.store.certificate_want(stored.value.name.as_str()).await?;
        let head = self.store.head();
        let check = self.store.domain_check(&stored.value.name).await?;
        let transfer = self.store.domain_transfer(&stored.value.name).await?;
        let (table, platform) = (&head.table, self.platform);
        let around = Surroundings { table, platform, want, check, transfer, now_ms: self.now_ms };
        let tenant = head.table.tenant(&stored.value.tenant).map(|entry| entry.tenant.clone());
        Ok(view(stored, tenant.as_deref(), &around))
    }

    /// One domain.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Forbidden`].
    pub(crate) async fn get(&self, operator: &Operator, name: &DomainName) -> Result<(u64, DomainView), Refusal> {
        let found = self.readable(operator, name).await?;
        Ok((found.version, self.shown(&found).await?))
    }

    /// Whose a domain is.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Forbidden`].
    pub(crate) async fn owner(&self, operator: &Operator, name: &DomainName) -> Result<TenantId, Refusal> {
        Ok(self.readable(operator, name).await?.value.tenant)
    }

    /// What a domain's people are told to set.
    ///
    /// # Errors
    /// [`Refusal::NotFound`], [`Refusal::Forbidden`].
    pub(crate) async fn instructions(&self, operator: &Operator, name: &DomainName) -> Result<Instructions, Refusal> {
        let found = self.readable(operator, name).await?;
        let head = self.store.head();
        let (table, platform) = (&head.table, self.platform);
        let around = Surroundings { table, platform, want: None, check: None, transfer: None, now_ms: self.now_ms };
        let issuers = issuers_of(self.store, platform).await?;
        Ok(Instructions::of(&found.value, &issuers, &around))
    }

    async fn readable(&self, operator: &Operator, name: &DomainName) -> Result<Stored<Domain>, Refusal> {
        operator.may(Subject::Domains.read())?;
        let found = self.store.get::<Domain>(name).await?;
        let found = found.ok_or_else(|| Refusal::not_found(&format!("domain {name}")))?;
        operator.may_with(Subject::Domains.read(), found.value.tenant)?;
        Ok(found)
    }

    /// A part of the domains, of one tenant or of all.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`], [`Refusal::Invalid`].
    pub(crate) async fn list(&self, operator: &Operator, mut query: ListQuery) -> Result<Page<DomainView>, Refusal> {
        let reach = operator.may(Subject::Domains.read())?;
        match (reach, query.tenant, operator.tenants.as_slice()) {
            (_, Some(tenant), _) => operator.may_with(Subject::Domains.read(), tenant)?,
            (Reach::Own, None, [only]) => query.tenant = Some(*only),
            (Reach::Own, None, _) => {
                return Err(Refusal::Forbidden("this token is for some tenants: ask with ?tenant=".to_owned()));
            }
            _ => {}
        }
        let page = self.store.list::<Domain>(&query).await?;
        let mut items = Vec::with_capacity(page.items.len());
        for stored in &page.items {
            items.push(self.shown(stored).await?);
        }
        Ok(Page { items, next: page.next })
    }
}

/// How many domains stand where, for the summary of the gateway.
pub(crate) fn counts(table: &RoutingTable) -> BTreeMap<&'static str, u64> {
    let mut counts = BTreeMap::from([("proven", 0), ("unproven", 0), ("lapsed", 0)]);
    for domain in table.domains() {
        let state = match domain.ownership {
            Ownership::Proven => "proven",
            Ownership::Unproven => "unproven",
            Ownership::Lapsed => "lapsed",
        };
        *counts.entry(state).or_default() += 1;
    }
    counts
}
