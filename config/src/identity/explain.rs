//! Why a request goes where it goes: the decision, written down while it is made.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{
    Bearer, Headers, Own, Refusal, RequestFacts, Silent, Step, Token, Trace, Trust, Via, Whose, decide_with,
    line_has_cookie, place_of,
};
use crate::limits::{EffectiveLimit, effective, effective_limit};
use crate::model::{BackendState, FilesAnswer, HostClass, LimitName, Limits, Revision, Route, Tenant, TenantId};
use crate::table::{Live, PoolEntry, RoutingTable, TenantEntry};

/// A request as an operator describes it.
#[derive(Debug, Clone, PartialEq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DescribedRequest {
    /// `Host` or `:authority`.
    pub host: String,
    /// The name in the TLS handshake; the host if not given, as browsers send it. Empty: the client sent none.
    #[serde(default)]
    pub sni: Option<String>,
    /// Whether the client came over TLS.
    #[serde(default = "yes")]
    pub tls: bool,
    /// The method.
    #[serde(default = "get")]
    pub method: String,
    /// Path and query.
    #[serde(default = "root")]
    pub path: String,
    /// Header fields: a value, or several for a field that comes in several lines.
    #[serde(default)]
    #[schema(value_type = BTreeMap<String, String>)]
    pub headers: BTreeMap<String, Lines>,
    /// The client's address; without one it is nobody whom a zone trusts.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub client_ip: Option<IpAddr>,
}

/// The values of a field.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Lines {
    /// One line.
    One(String),
    /// Several lines of the same name.
    Several(Vec<String>),
}

const fn yes() -> bool {
    true
}

fn get() -> String {
    "GET".to_owned()
}

fn root() -> String {
    "/".to_owned()
}

impl DescribedRequest {
    fn lines<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let fields = self.headers.iter().filter(move |(field, _)| field.eq_ignore_ascii_case(name));
        fields
            .flat_map(|(_, lines)| match lines {
                Lines::One(line) => std::slice::from_ref(line),
                Lines::Several(lines) => lines,
            })
            .map(|line| line.trim_matches([' ', '\t']))
    }
}

impl Headers for DescribedRequest {
    fn has(&self, name: &str, value: Option<&str>) -> bool {
        self.lines(name).any(|line| value.is_none_or(|value| line == value))
    }

    fn has_cookie(&self, name: &str, value: &str) -> bool {
        self.lines("cookie").any(|line| line_has_cookie(line.as_bytes(), name, value))
    }

    fn tenant_ids(&self) -> impl Iterator<Item = &[u8]> {
        self.lines("x-tenant-id").map(str::as_bytes)
    }

    fn tenant_slugs(&self) -> impl Iterator<Item = &[u8]> {
        self.lines("x-tenant-slug").map(str::as_bytes)
    }
}

/// A described request's token at a time.
struct TokenAt<'a> {
    request: &'a DescribedRequest,
    now: i64,
}

impl Token for TokenAt<'_> {
    fn bearer<L: Live>(&self, table: &RoutingTable<L>) -> Bearer {
        let mut lines = self.request.lines("authorization");
        match (lines.next(), lines.next()) {
            (None, _) => Bearer::Absent,
            (Some(line), None) => Bearer::of(table, line.as_bytes(), self.now),
            (Some(_), Some(_)) => Bearer::Several,
        }
    }
}

/// Why a request goes where it goes.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Explanation {
    /// The revision that decided.
    pub revision: Revision,
    /// What the client gets.
    pub outcome: Outcome,
    /// Every step of the decision, in order.
    pub steps: Vec<ExplainedStep>,
    /// Where the request goes, or would have gone if it were not refused; `None` when no tenant was selected.
    pub would_have: Option<Destination>,
}

/// What the client gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Outcome {
    /// `forward`, `redirect`, `answer` or `refuse`.
    #[schema(value_type = String)]
    pub action: &'static str,
    /// The status of our answer; 200 stands for what a backend answers to a request that is forwarded.
    pub status: u16,
    /// The code of our answer.
    #[schema(value_type = Option<String>)]
    pub error: Option<Cow<'static, str>>,
    /// The tenant selected, by its slug.
    pub tenant: Option<String>,
    /// What selected it: `domain`, `zone`, `header`, `slug_header`, `query`, `token` or `path`.
    #[schema(value_type = Option<String>)]
    pub via: Option<&'static str>,
}

/// One step of a decision.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct ExplainedStep {
    /// Which.
    #[schema(value_type = String)]
    pub step: &'static str,
    /// What came of it: `passed`, `ignored`, `selected` or `refused`.
    #[schema(value_type = String)]
    pub result: &'static str,
    /// The same in words.
    pub text: String,
    /// What it looked at.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub about: Map<String, Value>,
}

/// Where a request goes.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Destination {
    /// The tenant; `null` on a public route.
    #[schema(value_type = Object)]
    pub tenant: Value,
    /// Its plan.
    pub plan: Option<String>,
    /// What it may use: its plan's limits, until [`Explanation::with_limits`] says which hold.
    #[schema(value_type = Object)]
    pub limits: Value,
    /// Every limit that holds, where it comes from, and whether it is enforced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub effective_limits: Vec<EffectiveLimit>,
    /// Features that are on.
    pub features: Vec<String>,
    /// The route that matches.
    #[schema(value_type = Object)]
    pub route: Value,
    /// The pool it leads to.
    pub pool: Option<String>,
    /// How one of the backends is chosen.
    #[schema(value_type = Object)]
    pub balance: Value,
    /// The pool's backends that take new requests; which of them are healthy, each node knows for itself.
    #[schema(value_type = Vec<Object>)]
    pub backends: Vec<Value>,
    /// The path as it is matched and forwarded, before a route's rewrite.
    pub path: String,
}

/// Explains what `table` decides on a request at `now` (seconds since 1970), which a token is judged by.
pub fn explain<L: Live>(table: &RoutingTable<L>, request: &DescribedRequest, now: i64) -> Explanation {
    let (path, query) =
        request.path.split_once('?').map_or((request.path.as_str(), None), |(path, query)| (path, Some(query)));
    let host = super::normalise(&request.host).ok().map(|authority| authority.host);
    let sni = request.sni.as_deref().or(host.as_deref()).filter(|sni| request.tls && !sni.is_empty());
    let sni = sni.map(|sni| crate::model::DomainName::parse(sni).map_or_else(|_| sni.to_owned(), |n| n.to_string()));
    let facts = RequestFacts {
        secure: request.tls,
        sni: sni.as_deref(),
        authority: Some(&request.host),
        // The unspecified address is in no network that anybody trusts by intent.
        client: request.client_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)).to_canonical(),
        method: &request.method,
        path,
        query,
        headers: request,
        token: &TokenAt { request, now },
        now_ms: now.saturating_mul(1_000),
        // The last of all: a described request goes with the rest unless all go.
        chance: u64::MAX,
    };
    explain_facts(table, &facts)
}

/// Explains what `table` decides on these facts.
pub(super) fn explain_facts<L: Live, H: Headers, T: Token>(
    table: &RoutingTable<L>,
    facts: &RequestFacts<'_, H, T>,
) -> Explanation {
    let mut recorder = Recorder::default();
    let decision = decide_with(table, facts, &mut recorder);
    let mut outcome = Outcome { action: "forward", status: 200, error: None, tenant: None, via: None };
    let named_host = facts.authority.and_then(|sent| super::normalise(sent).ok()).map(|authority| authority.host);
    if let Err(refusal) = &decision {
        let (status, error) = refusal.answer();
        outcome.status = status;
        outcome.error = error.map(Cow::Borrowed);
        outcome.action = match refusal {
            Refusal::Answer(..) | Refusal::Files(..) => "answer",
            _ if error.is_none() => "redirect",
            _ => "refuse",
        };
        recorder.end(refusal, status, error);
    }
    let selected = recorder.selected.and_then(|(id, via, path)| Some((table.tenant(&id)?, via, path)));
    let would_have = selected.map(|(tenant, via, path)| {
        outcome.tenant = Some(tenant.tenant.slug.to_string());
        outcome.via = Some(via.as_str());
        let host = named_host.as_deref().and_then(|host| place_of(table, host)).map(|place| place.class());
        Destination::of(table, tenant, facts, host, &path)
    });
    // A public route is for nobody: there is a destination without a tenant.
    let would_have = would_have.or_else(|| {
        let selected = decision.as_ref().ok().filter(|selected| selected.tenant.is_none())?;
        outcome.via = Some(selected.via.as_str());
        Some(Destination::nobodys(selected.route.map(|route| &**route), Some(selected.pool), selected.path))
    });
    Explanation { revision: table.revision(), outcome, steps: recorder.steps, would_have }
}

impl Explanation {
    /// Says which limits would hold for the request at `now_ms` (milliseconds since 1970). Whether one of them has been
    /// reached, only the proxies know.
    #[must_use]
    pub fn with_limits<L: Live>(mut self, table: &RoutingTable<L>, caps: &Limits, now_ms: i64) -> Self {
        if let Some(destination) = &mut self.would_have
            && let Some(entry) = destination.tenant["slug"].as_str().and_then(|slug| table.tenant_by_slug(slug))
        {
            let rows =
                LimitName::ALL.iter().map(|name| effective_limit(&entry.tenant, &entry.plan, caps, *name, now_ms));
            destination.effective_limits = rows.filter(|limit| limit.value.is_some()).collect();
            destination.limits = json!(effective(&entry.tenant, &entry.plan, caps, now_ms));
        }
        self
    }

    /// Of a request that was refused with this answer before anything was decided.
    pub(super) fn undecided(status: u16, error: Option<&str>) -> Self {
        let mut recorder = Recorder::default();
        let about = json!({ "status": status, "error": error });
        recorder.add("gate", "refused", "refused as it was read, before anything was decided", about);
        let error = error.map(|error| Cow::Owned(error.to_owned()));
        let outcome = Outcome { action: "refuse", status, error, tenant: None, via: None };
        Self { revision: Revision::NONE, outcome, steps: recorder.steps, would_have: None }
    }
}

impl Destination {
    fn of<L: Live, H: Headers, T>(
        table: &RoutingTable<L>,
        tenant: &TenantEntry<L>,
        facts: &RequestFacts<'_, H, T>,
        host: Option<HostClass>,
        path: &str,
    ) -> Self {
        let own = Own { tenant, host: host.unwrap_or(HostClass::CustomDomain), path };
        let route = own.route(table, facts);
        let pool = own.pool(table, facts, route, &mut Silent).pool;
        let features = crate::context::features(&tenant.tenant, &tenant.plan);
        Self {
            tenant: named(&tenant.tenant),
            plan: Some(tenant.plan.id.to_string()),
            limits: json!(tenant.plan.limits),
            features: features.into_iter().map(str::to_owned).collect(),
            ..Self::nobodys(route.map(|route| &**route), pool.map(|pool| &**pool), path)
        }
    }

    /// Of a request that is for no tenant.
    fn nobodys<L: Live>(route: Option<&Route>, pool: Option<&PoolEntry<L>>, path: &str) -> Self {
        let pool = pool.map(|entry| &*entry.pool);
        let active = pool.into_iter().flat_map(|p| &p.backends).filter(|b| b.state == BackendState::Active);
        Self {
            tenant: Value::Null,
            plan: None,
            limits: Value::Null,
            effective_limits: Vec::new(),
            features: Vec::new(),
            route: route.map_or(Value::Null, |route| json!(route)),
            pool: pool.map(|p| p.id.to_string()),
            balance: pool.map_or(Value::Null, |p| json!(p.balance)),
            backends: active.map(|b| json!({ "id": b.id, "address": b.address, "weight": b.weight })).collect(),
            path: path.to_owned(),
        }
    }
}

fn named(tenant: &Tenant) -> Value {
    json!({ "id": tenant.id, "slug": tenant.slug, "state": tenant.state })
}

/// Writes steps down.
#[derive(Default)]
struct Recorder {
    steps: Vec<ExplainedStep>,
    selected: Option<(TenantId, Via, String)>,
}

impl Recorder {
    fn add(&mut self, step: &'static str, result: &'static str, text: impl Into<String>, about: Value) {
        let about = if let Value::Object(members) = about { members } else { Map::new() };
        self.steps.push(ExplainedStep { step, result, text: text.into(), about });
    }

    fn end<L: Live>(&mut self, refusal: &Refusal<'_, '_, L>, status: u16, error: Option<&str>) {
        let text = match refusal {
            Refusal::BadAuthority(error) => format!("the host is no host: {error}"),
            Refusal::BadPath => "what is left of the path could be read as another host".to_owned(),
            Refusal::Challenge(_) => "what a certificate authority wants to see".to_owned(),
            Refusal::NoChallenge => "not a token of a certificate authority, or there is no account at one".to_owned(),
            Refusal::Plain { host } => format!("sent to https://{host}"),
            Refusal::NoIdentifier => "nothing says which tenant it is for".to_owned(),
            Refusal::MissingToken => "the zone serves only callers with a token".to_owned(),
            Refusal::Token(error) => format!("the token is not good: {error}"),
            Refusal::Misdirected => "the handshake and the host lead to different tenants".to_owned(),
            Refusal::Mismatch(mismatch) => {
                format!("the {} names `{}`, another tenant", mismatch.by.as_str(), mismatch.named)
            }
            Refusal::UnknownHost => "the host is nobody's, or its tenant is not served".to_owned(),
            Refusal::NotActive | Refusal::TokenNotActive => {
                "what selects names nobody, or a tenant that is not served".to_owned()
            }
            Refusal::Suspended(_) => "the tenant is suspended".to_owned(),
            Refusal::Maintenance(..) => "the tenant, its pool or its route is in maintenance".to_owned(),
            Refusal::FeatureNotInPlan(_) => "the route needs a feature that the tenant does not have".to_owned(),
            Refusal::Redirect(_, route) => format!("the route {} redirects", route.id),
            Refusal::Answer(_, route) => format!("the route {} answers by itself", route.id),
            Refusal::Files(_, route, path) => {
                let name = route.action.files.as_ref().and_then(|files| files.name(&route.matches, path));
                let name = name.filter(|name| !name.is_empty()).unwrap_or(Cow::Borrowed(FilesAnswer::INDEX));
                format!(
                    "the route {} answers with the file {name} of the gateway's directory, if it is there",
                    route.id
                )
            }
            Refusal::ReadOnly(_) => "the route answers with files, which are only read".to_owned(),
            Refusal::NoRoute(_) => "the pool is not there".to_owned(),
        };
        let result = if error.is_none() { "passed" } else { "refused" };
        self.add("answer", result, text, json!({ "status": status, "error": error }));
    }
}

impl Trace for Recorder {
    fn step(&mut self, step: Step<'_>) {
        match step {
            Step::Authority { sent, host } => {
                let result = if host.is_some() { "passed" } else { "refused" };
                let text = match (sent, host) {
                    (None, _) => "there is no host".to_owned(),
                    (Some(sent), None) => format!("`{sent}` is no host"),
                    (Some(_), Some(host)) => format!("the host is {host}"),
                };
                self.add("authority", result, text, json!({ "sent": sent, "host": host }));
            }
            Step::Host { host, whose } => {
                let (result, text, about) = match whose {
                    Whose::Domain(t) => ("selected", format!("{host} is a domain of {}", t.slug), named(t)),
                    Whose::Zone(t) => ("selected", format!("{host} is {} in a zone", t.slug), named(t)),
                    Whose::Shared(zone) => {
                        ("passed", format!("{host} is the shared host of {}", zone.name), json!({ "zone": zone.name }))
                    }
                    Whose::Nobody => ("refused", format!("{host} is nobody's"), Value::Null),
                };
                self.add("host", result, text, json!({ "host": host, "about": about }));
            }
            Step::Challenge { host } => {
                let text = format!("a certificate authority may be asking about {host}: no other rule counts");
                self.add("challenge", "passed", text, json!({ "host": host }));
            }
            Step::Plain => self.add("tls", "refused", "it came in plain text", Value::Null),
            Step::Token(bearer) => self.token(bearer),
            Step::Caller { client, zone, trust } => {
                let (result, text) = match trust {
                    Trust::Network => ("passed", format!("{client} is trusted by {}", zone.name)),
                    Trust::Token => ("passed", "its token counts here".to_owned()),
                    Trust::None => (
                        "ignored",
                        format!(
                            "{client} is not trusted by {} and has no token: header and query do not select",
                            zone.name
                        ),
                    ),
                };
                let networks = &zone.trusted_callers;
                self.add("caller", result, text, json!({ "client_ip": client, "trusted_callers": networks }));
            }
            Step::Candidate { named: by, tenant, counts } => {
                let whom = tenant.map_or("nobody".to_owned(), |t| t.slug.to_string());
                let (result, text) = match (counts, tenant) {
                    (false, _) => ("ignored", format!("names {whom}; does not count from this caller")),
                    (true, Some(_)) => ("selected", format!("names {whom}")),
                    (true, None) => ("refused", "names nobody".to_owned()),
                };
                let about = json!({ "source": by.by.as_str(), "value": by.value, "tenant": tenant.map(|t| &t.slug) });
                self.add("candidate", result, format!("{} `{}` {text}", by.by.as_str(), by.value), about);
            }
            Step::Nobody => self.add("candidate", "refused", "nothing selects a tenant", Value::Null),
            Step::Selected { tenant, via, path } => {
                self.selected = Some((tenant.id, via, path.to_owned()));
                let text = format!("{} by {}", tenant.slug, via.as_str());
                self.add("tenant", "selected", text, json!({ "tenant": named(tenant), "via": via.as_str() }));
            }
            Step::Sni { sni, agrees } => {
                let (result, text) = verdict(agrees, format!("the handshake named {sni}"));
                self.add("sni", result, text, json!({ "sni": sni }));
            }
            Step::Agreement { named: by, tenant, agrees } => {
                let whom = tenant.map_or("nobody", |t| t.slug.as_str());
                let (result, text) = verdict(agrees, format!("{} `{}` names {whom}", by.by.as_str(), by.value));
                let about = json!({ "source": by.by.as_str(), "value": by.value, "tenant": tenant.map(|t| &t.slug) });
                self.add("agreement", result, text, about);
            }
            Step::State(state) => {
                use crate::model::TenantState::{Active, Maintenance};
                // Whether maintenance is under way is a step of its own.
                let result = if matches!(state, Active | Maintenance) { "passed" } else { "refused" };
                self.add("state", result, format!("the tenant is {}", state.as_str()), json!({ "state": state }));
            }
            Step::Maintenance { of, passes } => {
                let (result, text) = if passes {
                    ("passed", format!("the {of} is in maintenance; this client is let in"))
                } else {
                    ("refused", format!("the {of} is in maintenance"))
                };
                self.add("maintenance", result, text, json!({ "of": of }));
            }
            Step::Route(route) => match route {
                Some(route) => {
                    self.add("route", "selected", format!("{} matches", route.id), json!({ "route": route }))
                }
                None => self.add("route", "passed", "no route matches: the tenant's own pool", Value::Null),
            },
            Step::Feature { name, on } => {
                let (result, text) = if on { ("passed", "has") } else { ("refused", "does not have") };
                self.add("feature", result, format!("the tenant {text} {name}"), json!({ "feature": name }));
            }
            Step::Canary { canary, is_chosen, goes } => {
                let (share, by) = (canary.percent.get(), canary.by.as_str());
                let (result, text) = match (is_chosen, goes) {
                    (true, _) => ("selected", format!("a field or cookie sends it to the canary {}", canary.pool)),
                    (_, true) => {
                        ("selected", format!("it is among the {share} % (by {by}) that go to {}", canary.pool))
                    }
                    _ => ("passed", format!("it is not among the {share} % (by {by}) that go to {}", canary.pool)),
                };
                self.add("canary", result, text, json!({ "canary": canary }));
            }
            Step::Pool(pool) => {
                self.add("pool", "selected", format!("to the pool {}", pool.id), json!({ "pool": pool.id }));
            }
        }
    }
}

fn verdict(agrees: bool, text: String) -> (&'static str, String) {
    if agrees { ("passed", format!("{text}: agrees")) } else { ("refused", format!("{text}: disagrees")) }
}

impl Recorder {
    /// Never the token itself: an explanation is kept and shown.
    fn token(&mut self, bearer: &Bearer) {
        match bearer {
            Bearer::Absent => {}
            Bearer::Stranger(error) => {
                self.add("token", "ignored", format!("not of an issuer that is known: {error}"), Value::Null);
            }
            Bearer::Refused { issuer, error } => {
                let text = format!("claims to be of {}: {error}", issuer.id);
                self.add("token", "refused", text, json!({ "issuer": issuer.id, "code": error.code() }));
            }
            Bearer::Verified(token) => {
                let about = json!({ "issuer": token.issuer.id, "names": token.names, "good_until": token.expires_at });
                self.add("token", "passed", format!("is of {}", token.issuer.id), about);
            }
            Bearer::Several => self.add("token", "refused", "there are several Authorization fields", Value::Null),
        }
    }
}
