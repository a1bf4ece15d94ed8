//! A domain from nothing to ready by what a school sets in its DNS, seen from outside.

use std::net::SocketAddr;

use schoolgate_testkit::{Dns, Origin, Site, until};
use serde_json::{Value, json};
use tokio::net::UdpSocket;

use crate::{SOON, gateway, pool, school};

const NAME: &str = "erp.ash.example";

/// A gateway that asks the test's DNS, with the zone `schools.example` and a school.
async fn site(dns: &Dns, origin: &Origin) -> Site {
    let [first, second] = dns.resolvers();
    let settings = format!(
        "[dns]\nresolvers = [\"{first}\", \"{second}\"]\nauthoritative_port = {}\nlisten = \"127.0.0.1:0\"\n\
         [platform]\nzones = [\"schools.example\"]\naddresses = [\"192.0.2.7\"]",
        dns.authoritative_port()
    );
    let site = gateway().settings(&settings).up().await;
    pool(&site.api(), "web", &[origin]).await;
    school(&site.api(), "ash", "web").await;
    site
}

fn said(site: &Site, args: &[&str]) -> String {
    let data = site.data().display().to_string();
    let output = site.run(&[args, &["--data-dir", &data]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_domain_becomes_ready_by_what_its_school_sets_in_its_dns() {
    let (dns, origin) = (Dns::start().await, Origin::start().await);
    for zone in ["example", "ash.example", "schools.example"] {
        dns.records.zone(zone);
    }
    let site = site(&dns, &origin).await;
    let made = site.api().post("domains", json!({"name": NAME, "tenant": "ash"})).await.expect(201);
    let value = |n: usize| made["records"][n]["value"].as_str().expect("text").to_owned();
    let (proof, target) = (value(0), value(1));
    let ladder = said(&site, &["domain", "check", NAME]);
    assert!(ladder.contains("[no] ownership    unproven") && ladder.contains("OWNERSHIP_UNPROVEN"), "{ladder}");
    assert!(said(&site, &["domain", "instructions", NAME]).contains(&proof));
    assert!(said(&site, &["domain", "instructions", NAME, "--format", "bind"]).contains(&format!("CNAME {target}.")));
    assert!(site.tls(NAME).await.is_err(), "nothing is served before it is proven");

    dns.records.add(&format!("{target} A 192.0.2.7"));
    dns.records.add(&format!("_schoolgate.{NAME} TXT {proof}"));
    dns.records.add(&format!("{NAME} CNAME {target}"));
    // The schedule looks again within a minute; who does not want to wait asks.
    let ready = until(SOON * 2, async || {
        let asked = site.api().post(&format!("domains/{NAME}/check"), json!({})).await;
        assert!(matches!(asked.status, 200 | 429), "{}", asked.text);
        let domain = site.api().get(&format!("domains/{NAME}")).await.expect(200);
        (domain["ready"] == true).then_some(domain)
    })
    .await;
    assert_eq!((&ready["ownership"], &ready["blocking"]), (&json!("proven"), &json!([])));
    // The control plane knows of the certificate a moment before the proxy does.
    until(SOON, async || site.tls(NAME).await.ok().map(|_| ())).await;
    until(SOON, async || (site.client(NAME).get("/").await.status() == 200).then_some(())).await;
    let events = site.api().get(&format!("domains/{NAME}/events")).await.expect(200);
    let kinds: Vec<&Value> = events["items"].as_array().expect("a list").iter().map(|event| &event["kind"]).collect();
    assert!(kinds.contains(&&json!("domain.proven")) && kinds.contains(&&json!("domain.here")), "{events}");
}

/// The code of an answer to a question of type SOA.
async fn code(server: SocketAddr, name: &str) -> u8 {
    let mut question = vec![0x12, 0x34, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        question.push(u8::try_from(label.len()).expect("a label"));
        question.extend(label.bytes());
    }
    question.extend([0, 0, 6, 0, 1]);
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
    socket.connect(server).await.expect("loopback");
    socket.send(&question).await.expect("sent");
    let mut answer = [0; 512];
    let length = tokio::time::timeout(SOON, socket.recv(&mut answer)).await.expect("in time").expect("an answer");
    assert!(length > 12 && answer[..2] == [0x12, 0x34], "{:?}", &answer[..length]);
    answer[3] & 0x0f
}

#[tokio::test(flavor = "multi_thread")]
async fn our_own_name_server_answers_for_what_is_delegated_to_it_and_refuses_the_rest() {
    let (dns, origin) = (Dns::start().await, Origin::start().await);
    let site = site(&dns, &origin).await;
    let text = std::fs::read_to_string(site.data().join("run/addresses.json")).expect("addresses");
    let addresses: Value = serde_json::from_str(&text).expect("JSON");
    let server: SocketAddr = addresses["dns"].as_str().and_then(|text| text.parse().ok()).expect("an address");
    assert_eq!(code(server, "acme.schools.example").await, 0);
    assert_eq!(code(server, "nobody.acme.schools.example").await, 3, "NXDOMAIN");
    assert_eq!(code(server, "example.com").await, 5, "REFUSED");
}

/// Killed, and not stopped: it could give no lease back.
#[tokio::test(flavor = "multi_thread")]
async fn after_a_crash_domains_are_checked_again_without_waiting_for_a_lease() {
    let (dns, origin) = (Dns::start().await, Origin::start().await);
    for zone in ["example", "ash.example", "schools.example"] {
        dns.records.zone(zone);
    }
    let mut site = site(&dns, &origin).await;
    site.restart().await;
    site.api().post("domains", json!({"name": NAME, "tenant": "ash"})).await.expect(201);
    // A lease lasts for longer than this.
    until(SOON, async || {
        let domain = site.api().get(&format!("domains/{NAME}")).await.expect(200);
        domain["checked_at"].is_string().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_server_has_a_flag_and_is_told_where_it_is() {
    let site = gateway().arg("--dns").arg("127.0.0.1:0").up().await;
    let text = std::fs::read_to_string(site.data().join("run/addresses.json")).expect("addresses");
    let addresses: Value = serde_json::from_str(&text).expect("JSON");
    let server: SocketAddr = addresses["dns"].as_str().and_then(|text| text.parse().ok()).expect("an address");
    assert_eq!(code(server, "acme.localhost").await, 0);
}
