//! Ten thousand random requests through the real binary, to two schools on backends of their own: whatever a request says
//! of hosts, handshake, fields, query, path and token, no backend sees another school's request, and nothing that names
//! the other school is served.

use std::collections::HashMap;
use std::time::Duration;

use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_testkit::{Origin, RawResponse, Site, TlsConn, TokenSigner, eventually};
use serde_json::{Value, json};

use crate::gateway;

/// A hundredth of what the pure decision is asked (`config/src/identity/agreement.rs`).
const REQUESTS: usize = 10_000;

const SCHOOLS: [&str; 2] = ["ash", "birch"];

/// Long enough for a slow machine, short enough for a broken test.
const SOON: Duration = Duration::from_secs(30);

const SHARED: &str = "api.localhost";

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

    fn one<'a>(&mut self, of: &'a [String]) -> &'a str {
        &of[self.roll(of.len())]
    }
}

struct World {
    site: Site,
    /// A backend for each school.
    _origins: [Origin; 2],
    /// What names each school: its slug and its identifier.
    names: [Vec<String>; 2],
    /// Good tokens of each school, and others.
    tokens: [String; 2],
    bad_tokens: Vec<String>,
}

async fn world() -> World {
    let origins = [Origin::named("ash").await, Origin::named("birch").await];
    let site = gateway().up().await;
    let api = site.api();
    let signer = TokenSigner::ed25519();
    let mut names = Vec::new();
    for (school, origin) in SCHOOLS.iter().zip(&origins) {
        api.post("pools", json!({"id": school, "kind": "shared", "backends": [{"address": origin.url()}]}))
            .await
            .expect(201);
        let body = json!({"slug": school, "name": school, "plan": "custom", "pool": school});
        let made = api.post("tenants", body).await.expect(201);
        names.push(vec![(*school).to_owned(), made["id"].as_str().expect("an id").to_owned()]);
        api.post("domains", json!({"name": format!("erp.{school}.test"), "tenant": school})).await.expect(201);
    }
    let idp = json!({"id": "idp", "issuer": "https://id.example", "audiences": ["school"],
                     "jwks": {"keys": [signer.jwk("k")]}});
    api.post("token-issuers", idp).await.expect(201);
    let zone = json!({"shared_host": SHARED, "trusted_callers": ["127.0.0.1/32"], "path_prefix": true});
    api.patch("zones/localhost?wait=applied", zone).await.expect(200);
    // A certificate of their own may come a moment after the names.
    for name in hosts() {
        eventually(SOON, || async { site.tls(&name).await.is_ok() }).await;
    }
    let now = SystemClock.unix_ms() / 1_000;
    let claims =
        |school: &str, exp: i64| json!({"iss": "https://id.example", "aud": "school", "exp": exp, "tenantId": school});
    let tokens = SCHOOLS.map(|school| signer.token("k", &claims(school, now + 86_400)));
    let bad_tokens = vec![
        "opaque".to_owned(),
        TokenSigner::ed25519().token("k", &claims("birch", now + 86_400)),
        signer.token("k", &claims("birch", now - 86_400)),
        signer.sign(&json!({"alg": "none"}), &claims("birch", now + 86_400)),
    ];
    let [a, b] = <[_; 2]>::try_from(names).expect("two schools");
    World { site, _origins: origins, names: [a, b], tokens, bad_tokens }
}

/// A random request, and which schools it names beside its host.
struct Asked {
    sni: String,
    head: String,
    host: String,
    named: [bool; 2],
}

/// Whose a host is; `None`: nobody's.
fn owner(host: &str) -> Option<usize> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    SCHOOLS.iter().position(|school| host == format!("{school}.localhost") || host == format!("erp.{school}.test"))
}

/// Every name that is somebody's; the shared one twice, for it is where a request may choose.
fn hosts() -> Vec<String> {
    let of = |school: &&str| [format!("{school}.localhost"), format!("erp.{school}.test")];
    SCHOOLS.iter().flat_map(of).chain([SHARED.to_owned(), SHARED.to_owned()]).collect()
}

impl World {
    fn request(&self, dice: &mut Dice) -> Asked {
        let hosts = hosts();
        let odd = ["ASH.localhost.", "x.ash.localhost", "birch.localhost.evil.example", "api.localhost.", "localhost"];
        let sni = dice.one(&hosts).to_owned();
        let host = match dice.roll(8) {
            0 => odd[dice.roll(odd.len())].to_owned(),
            1 => dice.one(&hosts).to_owned(),
            _ => sni.clone(),
        };
        // Mostly one school, so that many requests agree with themselves.
        let favourite = owner(&host).unwrap_or_else(|| dice.roll(2));
        let mut named = [false; 2];
        let mut school = |dice: &mut Dice| {
            let which = if dice.roll(5) == 0 { 1 - favourite } else { favourite };
            named[which] = true;
            which
        };
        let mut fields = String::new();
        for name in ["X-Tenant-ID", "X-Tenant-Slug", "x-tenant-id"] {
            if dice.roll(5) == 0 {
                let which = school(dice);
                let value = if name == "X-Tenant-Slug" { &self.names[which][0] } else { dice.one(&self.names[which]) };
                fields.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        let mut query = String::from("?x=1");
        for name in ["tenant", "tenantId", "%74enant"] {
            if dice.roll(6) == 0 {
                let which = school(dice);
                query.push_str(&format!("&{name}={}", dice.one(&self.names[which])));
            }
        }
        match dice.roll(8) {
            0 => fields.push_str(&format!("Authorization: Bearer {}\r\n", dice.one(&self.bad_tokens))),
            1 | 2 => {
                let which = school(dice);
                fields.push_str(&format!("Authorization: Bearer {}\r\n", self.tokens[which]));
            }
            _ => {}
        }
        // Said, and of no consequence.
        for (name, value) in [
            ("X_Tenant_ID", "birch"),
            ("X-Forwarded-Host", "birch.localhost"),
            ("X-Tenant-Context", "forged"),
            ("Connection", "keep-alive, x-tenant-context"),
            ("X-Subdomain", "birch"),
        ] {
            if dice.roll(10) == 0 {
                fields.push_str(&format!("{name}: {value}\r\n"));
            }
        }
        let by_path = dice.roll(6) == 0;
        let path = if by_path {
            // On a school's own host it is the school's own path.
            let which = if owner(&host).is_some() { dice.roll(2) } else { school(dice) };
            format!("/t/{}/grades", SCHOOLS[which])
        } else {
            "/grades".to_owned()
        };
        let head = format!("GET {path}{query} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n");
        Asked { sni, head, host, named }
    }

    /// What is wrong with an answer. Says whose it was if a backend gave it.
    fn judge(&self, asked: &Asked, answer: &RawResponse) -> Result<Option<usize>, String> {
        if answer.status != 200 {
            return if answer.header("x-origin").is_some() { Err("a backend refused it".to_owned()) } else { Ok(None) };
        }
        let echo: Value = answer.json();
        let by = answer.header("x-origin").unwrap_or_default();
        let Some(school) = SCHOOLS.iter().position(|school| by == *school) else { return Err(format!("by {by:?}")) };
        let said = |name: &str| -> Vec<&str> {
            let fields = echo["headers"].as_array().map(Vec::as_slice).unwrap_or_default();
            let of_name = fields.iter().filter(|field| field[0].as_str().is_some_and(|n| n.replace('_', "-") == name));
            of_name.filter_map(|field| field[1].as_str()).collect()
        };
        let [slug, id] = &self.names[school][..] else { return Err("a school has two names".to_owned()) };
        if said("x-tenant-slug") != [slug] || said("x-tenant-id") != [id] || said("x-subdomain") != [slug] {
            return Err(format!("the backend of {slug} was told {:?}", echo["headers"]));
        }
        if said("x-tenant-context").len() != 1 || said("x-tenant-context")[0].contains("forged") {
            return Err("no context of ours".to_owned());
        }
        let own = owner(&asked.host);
        if own.is_some_and(|own| own != school) || owner(&asked.sni).is_some_and(|sni| sni != school) {
            return Err(format!("{slug} answered"));
        }
        if asked.named[1 - school] {
            return Err(format!("{slug} answered a request that names the other school"));
        }
        if own.is_none() && !asked.named[school] {
            return Err(format!("{slug} answered a request that names nobody"));
        }
        Ok(Some(school))
    }
}

#[tokio::test]
async fn no_random_request_crosses() {
    let world = world().await;
    let mut dice = Dice(0x5eed_5eed_5eed_5eed);
    let mut connections: HashMap<String, TlsConn> = HashMap::new();
    let (mut served, mut refused, mut wrong) = ([0_usize; 2], HashMap::<u16, usize>::new(), Vec::new());
    for _ in 0..REQUESTS {
        let asked = world.request(&mut dice);
        let mut connection = match connections.remove(&asked.sni) {
            Some(kept) => kept,
            None => world.site.tls(&asked.sni).await.expect("a handshake"),
        };
        connection.send(&asked.head).await.expect("sent");
        let answer = connection.read_response().await.unwrap_or_else(|error| panic!("{error}: {:?}", asked.head));
        if answer.header("connection") != Some("close") {
            connections.insert(asked.sni.clone(), connection);
        }
        match world.judge(&asked, &answer) {
            Ok(Some(school)) => served[school] += 1,
            Ok(None) => *refused.entry(answer.status).or_default() += 1,
            Err(how) => wrong.push(format!("{how}: handshake for {}, {:?}", asked.sni, asked.head)),
        }
    }
    assert!(wrong.is_empty(), "{} of {REQUESTS}:\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n"));
    // It says something only if both happen, for both.
    assert!(served.iter().all(|count| *count > 1_000), "served {served:?}, refused {refused:?}");
    for status in [400, 401, 403, 404, 421] {
        assert!(refused.contains_key(&status), "never {status}: {refused:?}");
    }
}
