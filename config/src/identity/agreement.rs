//! A million random requests against the rules written plainly: whatever is decided, nothing that the request says names
//! another tenant, and a stranger never selects by header or query.

use std::net::IpAddr;
use std::sync::Arc;

use super::tests::{Asked, pool, tenant, zone};
use super::*;
use crate::model::{Domain, Ownership, Plan, Revision, Routing, TenantId, TenantState, TokenIssuer};
use crate::snapshot::{Object, Snapshot};
use crate::table::NoLive;

/// DESIGN.md section 13 promises none in 10^6.
const REQUESTS: u32 = 1_000_000;

/// Numbers for the test; the same every time, so that a failure can be seen again.
struct Dice(u64);

impl Dice {
    /// A number below `sides` (xorshift64*, Vigna 2016).
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).expect("31 bits") % sides
    }

    fn one<'a, T: ?Sized>(&mut self, of: &[&'a T]) -> &'a T {
        of[self.roll(of.len())]
    }

    /// True once in `n`.
    fn once_in(&mut self, n: usize) -> bool {
        self.roll(n) == 0
    }
}

const HOSTS: [&str; 18] = [
    "ash.schools.example",
    "birch.schools.example",
    "elm.schools.example",
    "gone.schools.example",
    "ash.other.example",
    "erp.ash.example",
    "erp.birch.example",
    "unproven.ash.example",
    "api.schools.example",
    "api.schools.example",
    "api.schools.example",
    "api.other.example",
    "a.ash.schools.example",
    "ash.schools.example.evil.example",
    "ash.attacker.example",
    "schools.example",
    "ASH.Schools.Example.:8443",
    "ash_schools.example",
];

struct World {
    table: RoutingTable,
    /// Texts that name tenants, and some that name nobody.
    names: Vec<String>,
    issuers: Vec<Arc<TokenIssuer>>,
}

fn world() -> World {
    let tenants = [
        tenant("ash", TenantState::Active),
        tenant("birch", TenantState::Active),
        tenant("elm", TenantState::Suspended),
        tenant("gone", TenantState::Archived),
    ];
    let mut names: Vec<String> = tenants.iter().flat_map(|t| [t.slug.to_string(), t.id.to_string()]).collect();
    names.extend(["nosuch", "", "ash,birch", "tnt_evil", "Ash"].map(str::to_owned));
    let domain = |name: &str, tenant: TenantId, ownership| Domain {
        name: name.parse().expect("a name"),
        tenant,
        primary: false,
        ownership,
        routing: Routing::Here,
        token: String::new(),
    };
    let mut schools = zone("schools.example");
    schools.trusted_callers = vec!["10.0.0.0/8".parse().expect("a network")];
    schools.path_prefix = true;
    let issuer = |id: &str, change: serde_json::Value| {
        let mut value = serde_json::json!({"id": id, "issuer": id, "source": {"url": "https://id.example/keys"}});
        value.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        Arc::new(serde_json::from_value::<TokenIssuer>(value).expect("an issuer"))
    };
    let issuers = vec![
        issuer("all", serde_json::json!({})),
        issuer("of-birch", serde_json::json!({"tenant": tenants[1].id})),
        issuer("of-other", serde_json::json!({"zone": "other.example"})),
    ];
    let mut objects: Vec<Object> = Plan::catalogue().into_iter().map(Object::from).collect();
    objects.extend([pool("shared").into(), schools.into(), zone("other.example").into()]);
    objects.push(domain("erp.ash.example", tenants[0].id, Ownership::Proven).into());
    objects.push(domain("erp.birch.example", tenants[1].id, Ownership::Proven).into());
    objects.push(domain("unproven.ash.example", tenants[0].id, Ownership::Unproven).into());
    objects.extend(tenants.map(Object::from));
    objects.extend(issuers.iter().cloned().map(Object::TokenIssuer));
    let snapshot = Snapshot { revision: Revision(1), objects };
    World { table: RoutingTable::from_snapshot(&snapshot, &NoLive, None).expect("holds together"), names, issuers }
}

impl World {
    /// What one identifier says: mostly `favourite`, so that many requests agree with themselves.
    fn name(&self, dice: &mut Dice, favourite: usize) -> String {
        let at = if dice.once_in(4) { dice.roll(self.names.len()) } else { favourite * 2 + dice.roll(2) };
        self.names[at].clone()
    }

    fn names(&self, dice: &mut Dice, favourite: usize) -> Vec<String> {
        let lines = [0, 0, 0, 1, 1, 2][dice.roll(6)];
        (0..lines).map(|_| self.name(dice, favourite)).collect()
    }

    fn bearer(&self, dice: &mut Dice, favourite: usize) -> Bearer {
        let issuer = self.issuers[dice.roll(self.issuers.len())].clone();
        match dice.roll(8) {
            0 => Bearer::Stranger(TokenError::Format),
            1 => Bearer::Refused { issuer, error: TokenError::Signature },
            2 | 3 => {
                let mut names: Vec<Box<str>> = self.names(dice, favourite).into_iter().map(Into::into).collect();
                names.extend(issuer.tenant.map(|tenant| tenant.to_string().into()));
                Bearer::Verified(Arc::new(VerifiedToken { issuer, names, expires_at: i64::MAX }))
            }
            _ => Bearer::Absent,
        }
    }

    fn request(&self, dice: &mut Dice) -> Asked {
        let host = dice.one(&HOSTS);
        let favourite = dice.roll(4);
        let sni = match dice.roll(4) {
            0 => Some(canonical(dice.one(&HOSTS))),
            1 => None,
            _ => Some(canonical(host)),
        };
        let query: Vec<String> = self.names(dice, favourite).into_iter().map(|name| format!("tenant={name}")).collect();
        let client: IpAddr = if dice.once_in(2) { [10, 0, 0, 1] } else { [203, 0, 113, 9] }.into();
        let path = if dice.once_in(3) { format!("/t/{}/x", self.name(dice, favourite)) } else { "/x".into() };
        Asked {
            sni,
            path,
            query: (!query.is_empty()).then(|| query.join("&")),
            client,
            ids: self.names(dice, favourite),
            slugs: self.names(dice, favourite),
            bearer: self.bearer(dice, favourite),
            ..Asked::of(host)
        }
    }

    /// The one tenant of whom an identifier speaks.
    fn named(&self, by: Identifier, text: &str) -> Option<&str> {
        let by_id = matches!(by, Identifier::Header | Identifier::Query | Identifier::Token);
        let mut tenants = self.table.tenants().map(|t| &t.tenant);
        let found = tenants.find(|t| t.slug.as_str() == text || (by_id && t.id.to_string() == text));
        found.map(|t| t.slug.as_str())
    }

    /// Everything beside the host that the request says, by whom it may be said, in the order of DESIGN.md section 4.
    fn said<'a>(&self, asked: &'a Asked) -> Vec<(Identifier, &'a str)> {
        let mut said: Vec<(Identifier, &str)> = Vec::new();
        said.extend(asked.ids.iter().map(|v| (Identifier::Header, v.as_str())));
        said.extend(asked.slugs.iter().map(|v| (Identifier::SlugHeader, v.as_str())));
        let parameters = asked.query.iter().flat_map(|q| q.split('&'));
        said.extend(parameters.filter_map(|p| p.strip_prefix("tenant=")).map(|v| (Identifier::Query, v)));
        if let Bearer::Verified(token) = &asked.bearer {
            said.extend(token.names.iter().map(|v| (Identifier::Token, &**v)));
        }
        if asked.host == "api.schools.example"
            && let Some(rest) = asked.path.strip_prefix("/t/")
        {
            said.extend(rest.split('/').next().map(|v| (Identifier::Path, v)));
        }
        said.retain(|(_, value)| !value.is_empty());
        said
    }

    /// Whom the host alone leads to, and in which zone, by a list of the cases.
    fn of_host(&self, host: &str) -> (Option<&'static str>, Option<&'static str>) {
        match canonical(host).as_str() {
            "ash.schools.example" => (Some("ash"), Some("schools.example")),
            "birch.schools.example" => (Some("birch"), Some("schools.example")),
            "elm.schools.example" => (Some("elm"), Some("schools.example")),
            "gone.schools.example" => (Some("gone"), Some("schools.example")),
            "ash.other.example" => (Some("ash"), Some("other.example")),
            "erp.ash.example" => (Some("ash"), None),
            "erp.birch.example" => (Some("birch"), None),
            "api.schools.example" => (None, Some("schools.example")),
            "api.other.example" => (None, Some("other.example")),
            _ => (None, None),
        }
    }

    /// Section 4 of DESIGN.md, sentence by sentence: whose request it is, if it is served.
    fn plainly(&self, asked: &Asked) -> Option<&str> {
        let (own, zone) = self.of_host(&asked.host);
        let counts_here = |issuer: &TokenIssuer| issuer.zone.as_ref().is_none_or(|z| Some(z.as_str()) == zone);
        let said = self.said(asked);
        let slug = match own {
            Some(slug) => slug,
            None => {
                zone?;
                let network = zone == Some("schools.example") && asked.client.to_string().starts_with("10.");
                let token = matches!(&asked.bearer, Bearer::Verified(token) if counts_here(&token.issuer));
                let (by, text) = said.iter().find(|(by, _)| match by {
                    Identifier::Header | Identifier::SlugHeader | Identifier::Query => network || token,
                    Identifier::Token => token,
                    Identifier::Path => true,
                })?;
                self.named(*by, text)?
            }
        };
        let is_active = matches!(slug, "ash" | "birch");
        let sni_agrees = asked
            .sni
            .as_deref()
            .is_none_or(|sni| canonical(sni) == canonical(&asked.host) || self.of_host(sni).0 == Some(slug));
        let all_agree = said.iter().all(|(by, text)| self.named(*by, text) == Some(slug));
        let token_is_bad = match &asked.bearer {
            Bearer::Refused { issuer, .. } => {
                let of_others =
                    issuer.tenant.is_some_and(|t| self.named(Identifier::Header, &t.to_string()) != Some(slug));
                counts_here(issuer) && (own.is_none() || !of_others)
            }
            _ => false,
        };
        (is_active && sni_agrees && all_agree && !token_is_bad).then_some(slug)
    }
}

fn canonical(host: &str) -> String {
    host.to_ascii_lowercase().trim_end_matches(":8443").trim_end_matches('.').to_owned()
}

#[test]
fn in_a_million_random_requests_none_crosses() {
    let world = world();
    let mut dice = Dice(0x5c00_1ca7e);
    let (mut own, mut shared) = (0_u32, 0_u32);
    for _ in 0..REQUESTS {
        let asked = world.request(&mut dice);
        let facts = asked.facts();
        let decided = decide(&world.table, &facts).ok();
        let slug = decided.as_ref().and_then(|selected| selected.tenant).map(|tenant| tenant.tenant.slug.as_str());
        assert_eq!(slug, world.plainly(&asked), "{asked:?}");
        let (Some(selected), Some(slug)) = (decided, slug) else { continue };
        // What must hold whatever the rules are: nothing that was said names another, no stranger chose.
        for (by, text) in world.said(&asked) {
            assert_eq!(world.named(by, text), Some(slug), "{by:?} {text}: {asked:?}");
        }
        match selected.via {
            Via::Domain | Via::Zone => own += 1,
            Via::Shared(by) => {
                shared += 1;
                let stranger =
                    asked.client.to_string().starts_with("203.") && !matches!(asked.bearer, Bearer::Verified(_));
                assert!(!stranger || by == Identifier::Path, "a stranger chose: {asked:?}");
            }
            Via::Public => panic!("there is no public route: {asked:?}"),
        }
    }
    // The dice must reach what is promised.
    assert!(own > 50_000 && shared > 10_000, "{own} on own hosts, {shared} on shared ones");
}
