//! Zones of the platform.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use schoolgate_config::model::{DomainName, Zone};
use schoolgate_config::table::RoutingTable;
use schoolgate_store::Stored;

use super::document::{Errors, Networks, Place, Text, readable};
use super::edit::Resource;
use super::permission::Subject;
use super::{Refusal, Stamp};

/// What of a zone an operator sets.
#[derive(Debug, ToSchema)]
pub(crate) struct ZoneInput {
    /// The zone's name; it cannot be changed.
    name: DomainName,
    /// A host of the zone that belongs to no tenant.
    shared_host: Option<DomainName>,
    /// Networks whose callers may name a tenant on the shared host.
    #[serde(default)]
    trusted_callers: Networks,
    /// Labels that are no tenants, beside those that never are.
    #[serde(default)]
    reserved: Vec<Text<1, 63>>,
    /// On the shared host, `/t/{slug}/…` names a tenant; the prefix is cut off before forwarding.
    #[serde(default)]
    path_prefix: bool,
    /// The shared host serves only callers with a token of an issuer that counts there.
    #[serde(default)]
    require_token: bool,
}
readable!(ZoneInput {
    name,
    shared_host,
    trusted_callers = Networks::default(),
    reserved = Vec::new(),
    path_prefix = false,
    require_token = false,
});

/// A zone as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ZoneView {
    #[serde(flatten)]
    zone: Zone,
    #[serde(flatten)]
    stamp: Stamp,
}

impl Resource for Zone {
    type Input = ZoneInput;
    const SUBJECT: Subject = Subject::Zones;
    const COLLECTION: &'static str = "zones";
    const KEY: &'static str = "name";
    const READ_ONLY: &'static [&'static str] = &["version", "created_at", "updated_at"];

    fn assemble(input: ZoneInput, before: Option<&Self>, _: &RoutingTable, errors: &mut Errors) -> Self {
        if before.is_some_and(|zone| zone.name != input.name) {
            errors.add_at("/name", "read_only", "a zone cannot be renamed: make another and delete this one");
        }
        if let Some(host) = &input.shared_host
            && host.parent() != Some(input.name.as_str())
        {
            errors.add_at("/shared_host", "not_in_zone", format!("expected one label below {}", input.name));
        }
        for (i, label) in input.reserved.iter().enumerate() {
            if DomainName::parse(&label.0).map(|name| name.as_str() == label.0 && name.labels() == 1) != Ok(true) {
                let at = Place::root().member("reserved").element(i);
                errors.add(&at, "invalid", "expected one label in lower case");
            }
        }
        Self {
            name: input.name,
            shared_host: input.shared_host,
            trusted_callers: input.trusted_callers.0,
            reserved: input.reserved.into_iter().map(|label| label.0).collect(),
            path_prefix: input.path_prefix,
            require_token: input.require_token,
        }
    }

    fn view(stored: &Stored<Self>, _: &RoutingTable) -> Value {
        super::json(&ZoneView { zone: stored.value.clone(), stamp: Stamp::of(stored) })
    }

    fn names(&self, _: &RoutingTable) -> Vec<String> {
        if self.takes_wildcard() { vec![format!("*.{}", self.name)] } else { Vec::new() }
    }

    fn check(&self, before: Option<&Self>, table: &RoutingTable) -> Result<(), Refusal> {
        if before.is_some() {
            return Ok(());
        }
        // The table checks a domain when it is put; a zone that is put over domains must look for them.
        let zone = self.name.as_str();
        let inside = table.domains().find(|d| d.name.as_str() == zone || d.name.parent() == Some(zone));
        match inside {
            Some(domain) => Err(Refusal::Conflict {
                code: "IN_USE",
                message: format!("the domain {} lies in this zone: delete it first", domain.name),
                pointer: Some("/name"),
            }),
            None => Ok(()),
        }
    }
}
