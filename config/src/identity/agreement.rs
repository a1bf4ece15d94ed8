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
            0 => Some(dice.one(&HOSTS).to_owned()),
            1 => None,
            _ => normalise(host).ok().map(|a| a.host.into_owned()),
        };
        let query: Vec<String> = self.names(dice, favourite).into_iter().map(|name| format!("tenant={name}")).collect();
        let client: IpAddr = if dice.once_in(2) { [10, 0, 0, 1] } else { [203, 0, 113, 9] }.into();
        let path = if dice.once_in(3) { format!("/t/{}/x", self.name(dice, favourite)) } else { "/x".into() };
        Asked {
            sni,
            host: host.to_owned(),
            path,
            query: (!query.is_empty()).then(|| query.join("&")),
            client,
            ids: self.names(dice, favourite),
            slugs: self.names(dice, favourite),
            bearer: self.bearer(dice, favourite),
        }
    }

    /// The one tenant with this slug or id.
    fn named(&self, text: &str) -> Option<&Arc<TenantEntry<NoLive>>> {
        self.table.tenants().find(|t| t.tenant.slug.as_str() == text || t.tenant.id.to_string() == text)
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

    /// Whom the host alone leads to, by a list of the cases.
    fn of_host(&self, host: &str) -> Option<&'static str> {
        match host.to_ascii_lowercase().trim_end_matches(":8443").trim_end_matches('.') {
            "ash.schools.example" | "ash.other.example" | "erp.ash.example" => Some("ash"),
            "birch.schools.example" | "erp.birch.example" => Some("birch"),
            "elm.schools.example" => Some("elm"),
            "gone.schools.example" => Some("gone"),
            _ => None,
        }
    }
}

#[test]
fn in_a_million_random_requests_none_crosses() {
    let world = world();
    let mut dice = Dice(0x5c00_1ca7e);
    let (mut own, mut shared, mut mismatches) = (0_u32, 0_u32, 0_u32);
    for _ in 0..REQUESTS {
        let asked = world.request(&mut dice);
        let selected = match decide(&world.table, &asked.facts()) {
            Ok(selected) => selected,
            Err(Refusal::Mismatch(_)) => {
                mismatches += 1;
                continue;
            }
            Err(_) => continue,
        };
        let slug = selected.tenant.tenant.slug.as_str();
        assert!(matches!(slug, "ash" | "birch"), "{slug} is not served: {asked:?}");
        for (by, value) in world.said(&asked) {
            let named = world.named(value);
            assert!(named.is_some_and(|t| t.tenant.slug.as_str() == slug), "{by:?} {value} beside {slug}: {asked:?}");
        }
        if let Some(sni) = &asked.sni {
            let same = normalise(&asked.host).is_ok_and(|a| a.host == *sni);
            assert!(same || world.of_host(sni) == Some(slug), "the handshake led elsewhere: {asked:?}");
        }
        match selected.via {
            Via::Domain | Via::Zone => {
                own += 1;
                assert_eq!(world.of_host(&asked.host), Some(slug), "{asked:?}");
            }
            Via::Shared(by) => {
                shared += 1;
                assert!(matches!(&*asked.host, "api.schools.example" | "api.other.example"), "{asked:?}");
                let zone = asked.host.strip_prefix("api.").expect("a shared host");
                let network = zone == "schools.example" && asked.client.to_string().starts_with("10.");
                let token = match &asked.bearer {
                    Bearer::Verified(token) => token.issuer.zone.as_ref().is_none_or(|only| only.as_str() == zone),
                    _ => false,
                };
                match by {
                    Identifier::Header | Identifier::SlugHeader | Identifier::Query => {
                        assert!(network || token, "a stranger chose: {asked:?}");
                    }
                    Identifier::Token => assert!(token, "an issuer of another zone chose: {asked:?}"),
                    Identifier::Path => assert_eq!(zone, "schools.example", "{asked:?}"),
                }
            }
        }
        // A token that is not good, of an issuer that counts there, is never passed on.
        if let Bearer::Refused { issuer, .. } = &asked.bearer {
            assert!(
                issuer.zone.is_some() || issuer.tenant.is_some_and(|t| t != selected.tenant.tenant.id),
                "{asked:?}"
            );
        }
    }
    // The dice must reach what is promised.
    assert!(own > 20_000 && shared > 10_000 && mismatches > 100_000, "{own} {shared} {mismatches}");
}
