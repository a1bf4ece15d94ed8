//! The mistakes.

use schoolgate_dns::{Axis, CaIdentity, Code, Hinders, OtherClaim, Pointing, Proof, WhoActs};
use schoolgate_testkit::Trouble;

use crate::world::{NAME, TARGET, TOKEN, World};

#[tokio::test]
async fn what_is_set_as_it_should_be_has_no_findings() {
    let world = World::ready().await;
    let seen = world.check().await;
    assert_eq!(seen.findings, []);
    assert_eq!(
        (seen.verdict.proof, seen.verdict.alias, seen.verdict.pointing),
        (Proof::Present, Proof::Present, Pointing::Here)
    );
}

#[tokio::test]
async fn nothing_set_yet_says_which_records_to_set() {
    let world = World::new().await;
    let seen = world.check().await;
    assert_eq!((seen.verdict.proof, seen.verdict.pointing), (Proof::Absent, Pointing::Elsewhere));
    let proof = world.only(Axis::Ownership, Code::OwnershipUnproven).await;
    assert!(proof.expected.contains(&world.expected.proof()), "{proof:?}");
    assert_eq!(proof.resolver.as_deref(), Some("ns.dns.test (127.0.0.1)"));
    let route = world.only(Axis::Routing, Code::NotPointingHere).await;
    assert!(route.expected.contains(TARGET) && route.who_acts == WhoActs::School, "{route:?}");
}

#[tokio::test]
async fn addresses_of_the_platform_are_as_good_as_the_alias() {
    let world = World::ready().await;
    world.dns.records.remove(NAME, "CNAME");
    world.dns.records.add(&format!("{NAME} A 192.0.2.7"));
    let seen = world.check().await;
    assert_eq!((seen.findings, seen.verdict.pointing, seen.verdict.alias), (vec![], Pointing::Here, Proof::Absent));
}

#[tokio::test]
async fn an_editor_that_appends_the_zone_to_a_name() {
    let world = World::new().await;
    let records = &world.dns.records;
    records.add(&format!("_schoolgate.{NAME}.greenhill.example TXT {}", world.expected.proof()));
    records.add(&format!("{NAME}.greenhill.example CNAME {TARGET}"));
    let proof = world.only(Axis::Ownership, Code::TxtZoneAppended).await;
    assert!(proof.fix.contains("Enter the name as _schoolgate.erp,"), "{}", proof.fix);
    let route = world.only(Axis::Routing, Code::CnameZoneAppended).await;
    assert!(route.fix.contains("Enter the name as erp,"), "{}", route.fix);
}

#[tokio::test]
async fn an_editor_that_appends_the_zone_to_a_value() {
    let world = World::new().await;
    world.dns.records.add(&format!("{NAME} CNAME {TARGET}.greenhill.example"));
    let route = world.only(Axis::Routing, Code::CnameTargetZoneAppended).await;
    assert!(route.fix.contains(&format!("{TARGET}. with a final dot")), "{}", route.fix);
}

#[tokio::test]
async fn a_proof_at_the_name_itself() {
    let world = World::new().await;
    world.dns.records.add(&format!("{NAME} TXT {}", world.expected.proof()));
    let proof = world.only(Axis::Ownership, Code::TxtAtWrongName).await;
    assert!(proof.fix.contains(&format!("to _schoolgate.{NAME}")), "{}", proof.fix);
}

#[tokio::test]
async fn a_proof_with_quotes_other_case_other_spaces_or_cut_short() {
    let world = World::new().await;
    let proof = world.expected.proof();
    let ways = [
        (format!("\"{proof}\""), "quotes"),
        (proof.to_uppercase(), "capital"),
        (proof.replace("; ", ";"), "spaces"),
        (format!("token={TOKEN}"), "not whole"),
    ];
    let at = format!("_schoolgate.{NAME}");
    for (value, word) in ways {
        world.dns.records.add(&format!("{at} TXT {value}"));
        let finding = world.only(Axis::Ownership, Code::TxtMalformed).await;
        assert!(finding.fix.contains(word), "{value}: {}", finding.fix);
        assert_eq!(finding.found, Some(value));
        world.dns.records.remove(&at, "TXT");
    }
}

#[tokio::test]
async fn a_proof_of_another_tenant_and_one_beside_it() {
    let mut world = World::new().await;
    let other = OtherClaim { tenant: schoolgate_config::model::TenantId::from_parts(2, 2), token: "z".repeat(20) };
    world.dns.records.add(&format!("_schoolgate.{NAME} TXT {}", other.proof()));
    world.only(Axis::Ownership, Code::TxtOtherClaim).await;
    world.expected.other = Some(other);
    let seen = world.check().await;
    assert_eq!((seen.verdict.proof, seen.verdict.other), (Proof::Absent, Proof::Present));
    world.dns.records.add(&format!("_schoolgate.{NAME} TXT {}", world.expected.proof()));
    let seen = world.check().await;
    assert_eq!((seen.verdict.proof, seen.verdict.other), (Proof::Present, Proof::Present));
}

#[tokio::test]
async fn an_alias_given_to_another_domain() {
    let world = World::ready().await;
    world.dns.records.remove(NAME, "CNAME");
    world.dns.records.add(&format!("{NAME} CNAME abc.cname.schools.example"));
    world.dns.records.add("abc.cname.schools.example A 192.0.2.9");
    let route = world.only(Axis::Routing, Code::CnameOtherDomain).await;
    assert_eq!(route.found.as_deref(), Some("erp.greenhill.example CNAME abc.cname.schools.example"));
}

#[tokio::test]
async fn an_ipv6_address_that_was_forgotten() {
    let world = World::ready().await;
    world.dns.records.remove(NAME, "CNAME");
    world.dns.records.add(&format!("{NAME} A 192.0.2.7"));
    world.dns.records.add(&format!("{NAME} AAAA 2001:db8::dead"));
    let route = world.only(Axis::Routing, Code::StaleAaaa).await;
    assert!(route.fix.contains("remove the AAAA record 2001:db8::dead"), "{}", route.fix);
    assert_eq!(world.check().await.verdict.pointing, Pointing::Partial);
}

#[tokio::test]
async fn an_old_address_beside_the_new_one() {
    let world = World::ready().await;
    world.dns.records.remove(NAME, "CNAME");
    world.dns.records.add(&format!("{NAME} A 192.0.2.7"));
    world.dns.records.add(&format!("{NAME} A 198.51.100.3"));
    let route = world.only(Axis::Routing, Code::ExtraAddress).await;
    assert!(route.fix.contains("198.51.100.3") && !route.fix.contains("192.0.2.7"), "{}", route.fix);
}

#[tokio::test]
async fn a_proxy_in_front() {
    let world = World::ready().await;
    world.dns.records.remove(NAME, "CNAME");
    world.dns.records.add(&format!("{NAME} A 104.21.3.4"));
    let route = world.only(Axis::Routing, Code::ProxyInFront).await;
    assert!(route.fix.contains("Cloudflare"), "{}", route.fix);
    world.dns.records.remove(NAME, "A");
    world.dns.records.add(&format!("{NAME} CNAME d111.cloudfront.net"));
    let route = world.only(Axis::Routing, Code::ProxyInFront).await;
    assert!(route.fix.contains("CloudFront"), "{}", route.fix);
}

#[tokio::test]
async fn an_alias_where_the_zone_begins() {
    let mut world = World::new().await;
    world.expected.name = "greenhill.example".parse().expect("a name");
    world.dns.records.add(&format!("_schoolgate.greenhill.example TXT {}", world.expected.proof()));
    world.dns.records.add(&format!("greenhill.example CNAME {TARGET}"));
    let route = world.only(Axis::Routing, Code::CnameAtApex).await;
    assert!(route.fix.contains("ALIAS"), "{}", route.fix);
}

#[tokio::test]
async fn aliases_in_a_circle() {
    let world = World::ready().await;
    world.dns.records.remove(NAME, "CNAME");
    world.dns.records.add(&format!("{NAME} CNAME www.greenhill.example"));
    world.dns.records.add(&format!("www.greenhill.example CNAME {NAME}"));
    world.only(Axis::Routing, Code::CnameLoop).await;
    assert_eq!(world.check().await.verdict.pointing, Pointing::Unknown);
}

#[tokio::test]
async fn an_alias_of_an_alias_is_followed() {
    let world = World::ready().await;
    world.dns.records.remove(NAME, "CNAME");
    world.dns.records.add(&format!("{NAME} CNAME www.greenhill.example"));
    world.dns.records.add("www.greenhill.example CNAME hub.elsewhere.example");
    world.dns.records.zone("elsewhere.example");
    world.dns.records.add(&format!("hub.elsewhere.example CNAME {TARGET}"));
    assert_eq!(world.check().await.findings, []);
}

#[tokio::test]
async fn our_own_name_without_an_address() {
    let world = World::ready().await;
    world.dns.records.remove(TARGET, "A");
    world.dns.records.remove(TARGET, "AAAA");
    let route = world.only(Axis::Routing, Code::TargetUnresolved).await;
    assert_eq!(route.who_acts, WhoActs::Operator);
}

#[tokio::test]
async fn a_resolver_that_still_has_the_old_answer() {
    let world = World::ready().await;
    world.dns.instead[1].add(&format!("{NAME} A 198.51.100.3"));
    let route = world.only(Axis::Routing, Code::TtlRunning).await;
    assert_eq!((route.found.as_deref(), route.who_acts), (Some("198.51.100.3"), WhoActs::Nobody));
    assert!(route.fix.contains("300 s"), "{}", route.fix);
    assert_eq!(world.check().await.verdict.pointing, Pointing::Partial);
}

#[tokio::test]
async fn resolvers_that_do_not_agree_while_nobody_who_knows_answers() {
    let world = World::ready().await;
    for name in ["_schoolgate.erp.greenhill.example", NAME] {
        world.dns.records.trouble(name, Trouble::Silent);
    }
    // What the first resolver has, and the second has otherwise.
    for (own, address) in world.dns.instead.iter().zip(["192.0.2.7", "198.51.100.3"]) {
        own.add(&format!("{NAME} A {address}"));
        own.trouble(NAME, Trouble::Bogus);
        own.calm(NAME);
    }
    let seen = world.check().await;
    // Silence of those who know is no evidence; here the resolvers are silent with them.
    assert_eq!(seen.verdict.proof, Proof::Unknown);
}

#[tokio::test]
async fn name_servers_that_fail_prove_nothing() {
    let world = World::ready().await;
    for name in ["_schoolgate.erp.greenhill.example", NAME] {
        world.dns.records.trouble(name, Trouble::Fails);
    }
    world.only(Axis::Ownership, Code::ServerFailure).await;
    world.only(Axis::Routing, Code::ServerFailure).await;
    let verdict = world.check().await.verdict;
    assert_eq!((verdict.proof, verdict.alias, verdict.pointing), (Proof::Unknown, Proof::Unknown, Pointing::Unknown));
}

#[tokio::test]
async fn signatures_that_do_not_hold() {
    let world = World::ready().await;
    world.dns.records.trouble(NAME, Trouble::Bogus);
    let route = world.only(Axis::Routing, Code::DnssecBogus).await;
    assert!(route.fix.contains("DS records"), "{}", route.fix);
    assert_eq!(
        world.check().await.verdict.pointing,
        Pointing::Partial,
        "visitors behind checking resolvers cannot come"
    );
}

#[tokio::test]
async fn a_domain_that_is_not_registered() {
    let mut world = World::new().await;
    world.expected.name = "erp.gerenhill.example".parse().expect("a name");
    let seen = world.check().await;
    let codes: Vec<_> = seen.findings.iter().map(|finding| finding.code).collect();
    assert_eq!(codes, [Code::DomainNotRegistered]);
    assert!(seen.findings[0].fix.contains("gerenhill.example is not in the DNS"), "{}", seen.findings[0].fix);
}

#[tokio::test]
async fn nobody_who_answers() {
    let mut world = World::ready().await;
    for zone in ["greenhill.example", NAME, "_schoolgate.erp.greenhill.example"] {
        world.dns.records.trouble(zone, Trouble::Fails);
    }
    world.expected.issuers.clear();
    let verdict = world.check().await.verdict;
    assert_eq!((verdict.proof, verdict.pointing), (Proof::Unknown, Pointing::Unknown));
}

#[tokio::test]
async fn caa_records_that_forbid_our_ca_wherever_they_are() {
    let world = World::ready().await;
    for at in ["greenhill.example", "example"] {
        world.dns.records.add(&format!("{at} CAA 0 issue other.example"));
        let finding = world.only(Axis::Certificate, Code::CaaForbids).await;
        assert_eq!(finding.expected, format!("{at} CAA 0 issue \"letsencrypt.org\""));
        assert!(finding.found.as_deref().is_some_and(|found| found.contains("other.example")), "{finding:?}");
        world.dns.records.remove(at, "CAA");
    }
    // Of an alias, the records at its target count, and not those above the target.
    world.dns.records.add(&format!("{TARGET} CAA 0 issue other.example"));
    world.only(Axis::Certificate, Code::CaaForbids).await;
    world.dns.records.remove(TARGET, "CAA");
    world.dns.records.add("cname.schools.example CAA 0 issue other.example");
    assert_eq!(world.check().await.findings, []);
}

#[tokio::test]
async fn caa_records_that_let_our_ca_issue() {
    let world = World::ready().await;
    let at = "greenhill.example";
    for records in [
        &["0 issue other.example", "0 issue LetsEncrypt.org"][..],
        &["0 issuewild other.example"],
        &["0 iodef mailto:it@greenhill.example"],
        &["0 issue letsencrypt.org; validationmethods=http-01,dns-01"],
        &["0 unheardof x", "0 issue letsencrypt.org"],
    ] {
        records.iter().for_each(|record| world.dns.records.add(&format!("{at} CAA {record}")));
        assert_eq!(world.check().await.findings, [], "{records:?}");
        world.dns.records.remove(at, "CAA");
    }
}

#[tokio::test]
async fn caa_records_for_another_account_another_method_or_with_a_critical_tag() {
    let mut world = World::ready().await;
    world.expected.issuers = vec![CaIdentity {
        account_uri: Some("https://ca.example/acct/1".into()),
        ..CaIdentity::named("first", "letsencrypt.org")
    }];
    let ways = [
        ("0 issue letsencrypt.org; accounturi=https://ca.example/acct/2", "another account"),
        ("0 issue letsencrypt.org; validationmethods=dns-01", "allows only the methods dns-01"),
        ("128 unheardof x", "marked critical"),
        ("0 issue ;", "let only others"),
    ];
    for (record, word) in ways {
        world.dns.records.add(&format!("greenhill.example CAA {record}"));
        let finding = world.only(Axis::Certificate, Code::CaaForbids).await;
        assert!(finding.fix.contains(word), "{record}: {}", finding.fix);
        assert!(
            finding.expected.ends_with("accounturi=https://ca.example/acct/1; validationmethods=http-01\""),
            "{}",
            finding.expected
        );
        world.dns.records.remove("greenhill.example", "CAA");
    }
}

#[tokio::test]
async fn a_second_ca_that_may_issue_is_enough_and_the_first_is_not_asked() {
    let mut world = World::ready().await;
    world.expected.issuers.push(CaIdentity::named("second", "pki.goog"));
    world.dns.records.add("greenhill.example CAA 0 issue pki.goog");
    let seen = world.check().await;
    assert_eq!(seen.findings, []);
    let hindered: Vec<_> = seen.hindrances.iter().map(|h| (h.ca.as_deref(), h.hinders, h.code)).collect();
    assert_eq!(hindered, [(Some("first"), Hinders::Everything, Code::CaaForbids)]);
    assert!(seen.hindrances[0].fix.contains("greenhill.example CAA 0 issue \"letsencrypt.org\""), "{seen:?}");
}

#[tokio::test]
async fn caa_records_that_allow_only_dns_want_the_delegation() {
    let mut world = World::ready().await;
    world.expected.issuers[0].methods.push("dns-01".to_owned());
    world.dns.records.add("greenhill.example CAA 0 issue letsencrypt.org; validationmethods=dns-01");
    world.only(Axis::Certificate, Code::CaaForbids).await;
    world.dns.records.add(&format!("_acme-challenge.{NAME} CNAME {TOKEN}.acme.schools.example"));
    let seen = world.check().await;
    assert_eq!((seen.findings, seen.delegated), (vec![], Proof::Present));
    let hindered: Vec<_> = seen.hindrances.iter().map(|h| (h.hinders, h.code)).collect();
    assert_eq!(hindered, [(Hinders::Looking, Code::CaaForbids)], "plain HTTP is still not allowed");
}

#[tokio::test]
async fn the_delegation_counts_only_to_the_domains_own_name() {
    let world = World::ready().await;
    assert_eq!(world.check().await.delegated, Proof::Absent);
    let at = format!("_acme-challenge.{NAME}");
    world.dns.records.add(&format!("{at} CNAME another.acme.schools.example"));
    assert_eq!(world.check().await.delegated, Proof::Absent);
    world.dns.records.remove(&at, "CNAME");
    world.dns.records.add(&format!("{at} CNAME {TOKEN}.acme.schools.example"));
    assert_eq!(world.check().await.delegated, Proof::Present);
    world.dns.records.trouble(&at, Trouble::Fails);
    assert_eq!(world.check().await.delegated, Proof::Unknown);
}
