//! What a check of a domain says to whoever orders its certificate: an order that would fail is not placed, and a challenge
//! that the school delegated to us is used. Pebble asks the test's DNS, and that our own name server.

use std::net::SocketAddr;
use std::time::Duration;

use schoolgate_testkit::{Dns, Link, Origin, Pebble, Site, TlsConn, until};
use serde_json::{Value, json};

use crate::{gateway, pool, school};

/// An order is some requests and some polls; the machine may be busy.
const WITHIN: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) dns: Dns,
    pub(crate) pebble: Pebble,
    pub(crate) site: Site,
    /// What the checks find at port 80 of the gateway's addresses: at first the origin.
    pub(crate) door: Link,
    // Answers where the gateway should: in its pool it is right, at a school's address it is not.
    _origin: Origin,
}

impl World {
    /// A gateway with an account at Pebble, whose checks look at a port where something else answers.
    pub(crate) async fn new() -> Self {
        let (dns, origin) = (Dns::start().await, Origin::start().await);
        let door = Link::to(origin.addr()).await;
        for zone in ["example", "ash.example", "schools.example", "test"] {
            dns.records.zone(zone);
        }
        dns.records.add("first.ash.test A 127.0.0.1");
        let [first, second] = dns.resolvers();
        let mut pebble = Pebble::builder().asking(first).build();
        let settings = format!(
            "{}[dns]\nresolvers = [\"{first}\", \"{second}\"]\nauthoritative_port = {}\nlisten = \"127.0.0.1:0\"\n\
             caa_identities = [\"ca.test\"]\nprobe = \"any\"\nprobe_port = {}\n\
             [platform]\nzones = [\"localhost\", \"schools.example\"]\naddresses = [\"127.0.0.1\"]",
            pebble.settings().replace("[acme]\n", "[acme]\ninternal = [\"localhost\", \"schools.example\"]\n"),
            dns.authoritative_port(),
            door.addr().port(),
        );
        let site = gateway().settings(&settings).up().await;
        let text = std::fs::read_to_string(site.data().join("run/addresses.json")).expect("addresses");
        let addresses: Value = serde_json::from_str(&text).expect("JSON");
        let responder: SocketAddr = addresses["dns"].as_str().and_then(|text| text.parse().ok()).expect("an address");
        dns.records.delegate("acme.schools.example", responder);
        pebble.start(site.http(), site.https()).await;
        pool(&site.api(), "web", &[&origin]).await;
        school(&site.api(), "ash", "web").await;
        let world = Self { dns, pebble, site, door, _origin: origin };
        // A name that counts as owned is ordered without a check: with it comes the account.
        world.add("first.ash.test").await;
        world.issued("first.ash.test").await;
        world
    }

    async fn add(&self, name: &str) -> Value {
        self.site.api().post("domains", json!({"name": name, "tenant": "ash"})).await.expect(201)
    }

    /// A domain whose proof is set; gives the values of its CNAMEs.
    pub(crate) async fn proven(&self, name: &str) -> (String, String) {
        let made = self.add(name).await;
        let value = |n: usize| made["records"][n]["value"].as_str().expect("text").to_owned();
        self.dns.records.add(&format!("_schoolgate.{name} TXT {}", value(0)));
        (value(1), value(2))
    }

    async fn domain(&self, name: &str) -> Value {
        self.site.api().get(&format!("domains/{name}")).await.expect(200)
    }

    /// The domain, when it is checked and so.
    async fn checked(&self, name: &str, so: impl Fn(&Value) -> bool) -> Value {
        until(WITHIN, async || {
            let asked = self.site.api().post(&format!("domains/{name}/check"), json!({})).await;
            assert!(matches!(asked.status, 200 | 429), "{}", asked.text);
            let domain = self.domain(name).await;
            so(&domain).then_some(domain)
        })
        .await
    }

    async fn issued(&self, name: &str) {
        until(WITHIN, async || (self.domain(name).await["certificate"] == "issued").then_some(())).await;
    }

    /// What the queue says of a name that waits for this.
    async fn waits_for(&self, name: &str, code: &str) -> Value {
        until(WITHIN, async || {
            let queue = self.site.api().get("acme/queue").await.expect(200);
            let entry = queue["items"].as_array()?.iter().find(|item| item["name"] == name)?.clone();
            entry["message"].as_str().is_some_and(|text| text.contains(code)).then_some(entry)
        })
        .await
    }

    pub(crate) async fn serves(&self, name: &str) {
        let root = self.pebble.root().await;
        until(WITHIN, async || TlsConn::connect(self.site.https(), name, &["http/1.1"], &root).await.ok().map(|_| ()))
            .await;
    }
}

fn has(domain: &Value, list: &str, code: &str) -> bool {
    domain[list].as_array().is_some_and(|entries| entries.iter().any(|entry| entry["code"] == code))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_would_fail_is_not_placed_until_the_challenge_is_delegated() {
    let world = World::new().await;
    let name = "erp.ash.example";
    let (target, challenge) = world.proven(name).await;
    world.dns.records.add(&format!("{target} A 127.0.0.1"));
    world.dns.records.add(&format!("{name} CNAME {target}"));
    let domain = world.checked(name, |domain| has(domain, "blocking", "FOREIGN_SERVER")).await;
    assert_eq!((&domain["routing"], &domain["certificate"]), (&json!("here"), &json!("queued")));
    let data = world.site.data().display().to_string();
    let ladder = world.site.run(&["domain", "get", name, "--json", "--data-dir", &data]);
    assert!(String::from_utf8_lossy(&ladder.stdout).contains("FOREIGN_SERVER"));
    let entry = world.waits_for(name, "FOREIGN_SERVER").await;
    assert_eq!((&entry["who_acts"], &entry["reason"]), (&json!("operator"), &json!("not_ready")));
    assert_eq!(world.pebble.orders(), 1, "the CA has not heard of it");

    world.dns.records.add(&format!("_acme-challenge.{name} CNAME {challenge}"));
    world.checked(name, |domain| domain["certificate"] == "issued").await;
    world.serves(name).await;
    assert_eq!(world.pebble.orders(), 2);
    let log = world.pebble.log();
    assert!(!log.contains(&format!("http://{name}")), "plain HTTP was not used\n{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_there_before_the_name_points_here_and_caa_is_looked_at_first() {
    let world = World::new().await;
    let name = "next.ash.example";
    let (_, challenge) = world.proven(name).await;
    world.dns.records.add(&format!("_acme-challenge.{name} CNAME {challenge}"));
    world.dns.records.add("ash.example CAA 0 issue other.test");
    let domain = world.checked(name, |domain| has(domain, "blocking", "CAA_FORBIDS")).await;
    assert_eq!(domain["routing"], "elsewhere");
    world.waits_for(name, "CAA_FORBIDS").await;
    assert_eq!(world.pebble.orders(), 1, "the CA has not heard of it");

    // The record that the school is told to set names our account, and the ways that we use.
    let data = world.site.data().display().to_string();
    let said = world.site.run(&["domain", "instructions", name, "--format", "bind", "--data-dir", &data]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let record = said.lines().find_map(|line| line.split_once("IN CAA ")).map(|(_, record)| record.to_owned());
    let record = record.unwrap_or_else(|| panic!("{said}"));
    let budget = world.site.api().get("acme/budget").await.expect(200);
    let account = budget["items"][0]["account"].as_str().expect("an account").to_owned();
    assert_eq!(record, format!("0 issue \"ca.test; accounturi={account}; validationmethods=http-01,dns-01\""));
    let letter = world.site.run(&["domain", "instructions", name, "--data-dir", &data]);
    assert!(String::from_utf8_lossy(&letter.stdout).contains(&record));
    let json = world.site.api().get(&format!("domains/{name}/instructions")).await.expect(200);
    assert_eq!(json["recommended"][0]["value"], record);

    world.dns.records.remove("ash.example", "CAA");
    world.dns.records.add(&format!("ash.example CAA {}", record.replace('"', "")));
    let domain = world.checked(name, |domain| domain["certificate"] == "issued").await;
    assert_eq!(domain["routing"], "elsewhere", "the visitors are still there");
    world.serves(name).await;
}
