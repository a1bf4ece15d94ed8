//! Issuers of tokens that name schools, and their keys.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use schoolgate_config::model::{
    DomainName, IssuerId, Jwks, KeySource, KeyUrl, Slug, TenantId, TokenAlgorithm, TokenIssuer, TokenKey,
};
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::rfc3339;
use schoolgate_store::{KeyFetch, Stored};

use super::document::{Errors, Text, readable};
use super::edit::{self, Reference, Resource};
use super::permission::Subject;
use super::tenants::tenant_of;
use super::{Done, Refusal, Stamp, What, Work};

/// Seconds by which clocks may differ when nothing is said.
const LEEWAY_S: u32 = 60;

/// What of an issuer of tokens an operator sets. Its keys are given, or it is said where they are: one of `jwks`,
/// `jwks_file` and `jwks_url`.
#[derive(Debug, ToSchema)]
pub(crate) struct TokenIssuerInput {
    /// Its name here; it cannot be changed.
    id: IssuerId,
    /// The `iss` of its tokens, to the letter.
    issuer: Text<1, 512>,
    /// Tokens must be meant for one of these (`aud`).
    #[serde(default)]
    audiences: Vec<Text<1, 512>>,
    /// Algorithms its tokens may be signed with; all three if not given.
    #[serde(default)]
    algorithms: Vec<TokenAlgorithm>,
    /// Its public keys.
    jwks: Option<Jwks>,
    /// A file on the control plane's machine that has them.
    jwks_file: Option<Text<1, 4_096>>,
    /// Where it publishes them: `https://`, or `http://` on a loopback address.
    jwks_url: Option<KeyUrl>,
    /// Seconds by which its clock may differ from ours, 0-300.
    #[serde(default)]
    leeway_s: u32,
    /// The only tenant it can speak for: `tnt_…` or a slug.
    tenant: Option<Text<1, 80>>,
    /// The only zone on whose names it counts.
    zone: Option<DomainName>,
    /// Claims that name a tenant; `tenantId` and `tenant_id` if not given.
    #[serde(default)]
    claims: Vec<Text<1, 512>>,
}
readable!(TokenIssuerInput {
    id,
    issuer,
    audiences = Vec::new(),
    algorithms = TokenAlgorithm::all(),
    jwks,
    jwks_file,
    jwks_url,
    leeway_s = LEEWAY_S,
    tenant,
    zone,
    claims = TokenIssuer::default_claims().into_iter().map(Text).collect(),
});

/// An issuer of tokens as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenIssuerView {
    /// Its name here.
    id: IssuerId,
    /// The `iss` of its tokens.
    issuer: String,
    /// Whom its tokens must be meant for.
    audiences: Vec<String>,
    /// Algorithms its tokens may be signed with.
    algorithms: Vec<TokenAlgorithm>,
    #[serde(flatten)]
    source: SourceView,
    /// The keys that proxies have; none until they have been read.
    keys: Vec<KeyView>,
    /// When they were last read from their file or address; `null` for keys that were given.
    #[schema(format = DateTime)]
    fetched_at: Option<String>,
    /// Why the last attempt to read them failed; those it had stay in service.
    last_error: Option<String>,
    /// Failures since they were last read.
    failures: u32,
    /// Seconds by which its clock may differ from ours.
    leeway_s: u32,
    /// The only tenant it can speak for.
    tenant: Option<TenantId>,
    /// The slug of that tenant.
    tenant_slug: Option<Slug>,
    /// The only zone on whose names it counts.
    zone: Option<DomainName>,
    /// Claims that name a tenant.
    claims: Vec<String>,
    #[serde(flatten)]
    stamp: Stamp,
}

/// Where an issuer's keys come from: one of these is there.
#[derive(Debug, Serialize, ToSchema)]
struct SourceView {
    /// Its public keys, as they were given.
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks: Option<Jwks>,
    /// The file that has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks_file: Option<String>,
    /// Where it publishes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    jwks_url: Option<KeyUrl>,
}

/// A key of an issuer.
#[derive(Debug, Serialize, ToSchema)]
struct KeyView {
    /// Its name in the headers of tokens.
    kid: Option<String>,
    /// The one algorithm it is used with.
    alg: TokenAlgorithm,
}

impl SourceView {
    fn of(issuer: &TokenIssuer) -> Self {
        let (jwks, jwks_file, jwks_url) = match &issuer.source {
            KeySource::Inline => (Some(issuer.keys.clone()), None, None),
            KeySource::File(path) => (None, Some(path.to_string_lossy().into_owned()), None),
            KeySource::Url(url) => (None, None, Some(url.clone())),
        };
        Self { jwks, jwks_file, jwks_url }
    }
}

impl KeyView {
    fn of(key: &TokenKey) -> Self {
        Self { kid: key.kid.clone(), alg: key.key.algorithm() }
    }
}

impl Resource for TokenIssuer {
    type Input = TokenIssuerInput;
    const SUBJECT: Subject = Subject::TokenIssuers;
    const COLLECTION: &'static str = "token-issuers";
    const KEY: &'static str = "id";
    const READ_ONLY: &'static [&'static str] =
        &["keys", "fetched_at", "last_error", "failures", "tenant_slug", "version", "created_at", "updated_at"];
    const MOVING: &'static [&'static str] = &["keys", "fetched_at", "last_error", "failures"];

    fn assemble(input: TokenIssuerInput, before: Option<&Self>, table: &RoutingTable, errors: &mut Errors) -> Self {
        if before.is_some_and(|issuer| issuer.id != input.id) {
            errors.add_at("/id", "read_only", "an issuer cannot be renamed: make another and delete this one");
        }
        let texts = |texts: Vec<Text<1, 512>>| texts.into_iter().map(|text| text.0).collect();
        // What was trusted until now stays until the new source has answered; another `iss` is somebody else.
        let kept = || before.filter(|b| b.issuer == input.issuer.0).map(|b| b.keys.clone()).unwrap_or_default();
        let (source, keys) = match (input.jwks, input.jwks_file, input.jwks_url) {
            (Some(keys), None, None) => (KeySource::Inline, keys),
            (None, Some(file), None) => (KeySource::File(PathBuf::from(file.0)), kept()),
            (None, None, Some(url)) => (KeySource::Url(url), kept()),
            (None, None, None) => (KeySource::Inline, Jwks::default()),
            (keys, file, _) => {
                let second = if keys.is_some() && file.is_some() { "/jwks_file" } else { "/jwks_url" };
                let message = "give one of jwks, jwks_file and jwks_url; a PATCH sets the others to null";
                errors.add_at(second, "invalid", message);
                (KeySource::Inline, keys.unwrap_or_else(kept))
            }
        };
        let issuer = Self {
            id: input.id,
            issuer: input.issuer.0,
            audiences: texts(input.audiences),
            algorithms: input.algorithms,
            source,
            keys,
            leeway_s: input.leeway_s,
            tenant: input.tenant.and_then(|name| tenant_of(&name.0, table, errors)),
            zone: input.zone,
            claims: texts(input.claims),
        };
        for problem in issuer.problems() {
            errors.add_at(&format!("/{}", problem.field()), "invalid", problem.to_string());
        }
        issuer
    }

    fn document(&self) -> Value {
        let mut document = super::json(&SourceView::of(self));
        let rest = json!({
            "id": self.id, "issuer": self.issuer, "audiences": self.audiences, "algorithms": self.algorithms,
            "leeway_s": self.leeway_s, "tenant": self.tenant, "zone": self.zone, "claims": self.claims,
        });
        if let (Value::Object(document), Value::Object(rest)) = (&mut document, rest) {
            document.extend(rest);
        }
        document
    }

    fn view(stored: &Stored<Self>, table: &RoutingTable) -> Value {
        super::json(&view(stored, None, table))
    }

    fn references() -> &'static [Reference] {
        &[("zone", |table, name| table.zone(name).is_some())]
    }
}

/// How the API shows an issuer, with how reading its keys went.
pub(crate) fn view(stored: &Stored<TokenIssuer>, fetch: Option<&KeyFetch>, table: &RoutingTable) -> TokenIssuerView {
    let issuer = &stored.value;
    let fetch = fetch.filter(|_| issuer.source != KeySource::Inline);
    let tenant = issuer.tenant.and_then(|id| table.tenant(&id));
    TokenIssuerView {
        id: issuer.id.clone(),
        issuer: issuer.issuer.clone(),
        audiences: issuer.audiences.clone(),
        algorithms: issuer.algorithms.clone(),
        source: SourceView::of(issuer),
        keys: issuer.keys.keys().iter().map(KeyView::of).collect(),
        fetched_at: fetch.and_then(|fetch| fetch.fetched_at_ms).map(rfc3339),
        last_error: fetch.and_then(|fetch| fetch.error.clone()),
        failures: fetch.map_or(0, |fetch| fetch.failures),
        leeway_s: issuer.leeway_s,
        tenant: issuer.tenant,
        tenant_slug: tenant.map(|entry| entry.tenant.slug.clone()),
        zone: issuer.zone.clone(),
        claims: issuer.claims.clone(),
        stamp: Stamp::of(stored),
    }
}

/// The issuer with keys that were read from `source`; `None` when it has them, or has another source by now.
pub(crate) fn with_keys(issuer: &TokenIssuer, source: &KeySource, keys: Jwks) -> Option<TokenIssuer> {
    let is_new = issuer.source == *source && issuer.keys != keys;
    is_new.then(|| TokenIssuer { keys, ..issuer.clone() })
}

/// What an audit line says of other keys: their names.
pub(crate) fn key_change(before: &TokenIssuer, after: &TokenIssuer) -> Value {
    let names = |issuer: &TokenIssuer| {
        let keys = issuer.keys.keys().iter();
        keys.map(|key| key.kid.clone().unwrap_or_else(|| "(no kid)".to_owned())).collect::<Vec<_>>()
    };
    json!({ "keys": { "from": names(before), "to": names(after) } })
}

/// Puts keys that were read for an operator in the place of those before.
///
/// # Errors
/// [`Refusal::NotFound`], [`Refusal::Stale`], [`Refusal::Forbidden`]; [`Refusal::Conflict`] when the issuer was given
/// another source meanwhile.
pub(crate) async fn refresh(work: &mut Work, id: &IssuerId, source: &KeySource, keys: Jwks) -> Result<Done, Refusal> {
    let before = edit::changeable::<TokenIssuer>(work, id).await?;
    if before.value.source != *source {
        let message = format!("{id} was given another source of keys meanwhile: try again");
        return Err(Refusal::Conflict { code: "SOURCE_CHANGED", message, pointer: None });
    }
    let (stored, summary) = match with_keys(&before.value, source, keys) {
        Some(value) => {
            let summary = key_change(&before.value, &value);
            (work.transaction.update(value, None).await?, summary)
        }
        None => (before, Value::Null),
    };
    Ok(edit::done(work, &stored, What::Changed, "refresh", summary))
}

/// Puts into a view how reading the keys went.
pub(crate) fn show_fetch(view: &mut Value, fetch: &KeyFetch) {
    if view["jwks"].is_null() {
        view["fetched_at"] = fetch.fetched_at_ms.map(rfc3339).into();
        view["last_error"] = fetch.error.clone().into();
        view["failures"] = fetch.failures.into();
    }
}
