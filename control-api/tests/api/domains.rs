//! Domains: what makes one ready, and what a school is told.

use serde_json::json;

use crate::site::{Site, problem};

#[tokio::test]
async fn a_name_that_counts_as_owned_is_ready_with_its_certificate() {
    let (site, tenant) = Site::with_tenant("greenhill").await;
    let created = site.api.post("domains", json!({"name": "ERP.Greenhill.test.", "tenant": "greenhill"})).await;
    let domain = created.expect(201);
    assert_eq!(domain["name"], "erp.greenhill.test");
    assert_eq!((&domain["tenant"], &domain["tenant_slug"]), (&tenant["id"], &json!("greenhill")));
    assert_eq!((&domain["ownership"], &domain["routing"]), (&json!("proven"), &json!("here")));
    assert_eq!((&domain["certificate"], &domain["ready"]), (&json!("queued"), &json!(false)));
    assert_eq!(domain["blocking"][0]["code"], "CERTIFICATE_PENDING");
    assert_eq!(domain["records"], json!([]));
    let issuer = site.issuer();
    let ready = schoolgate_testkit::until(crate::site::WAIT, async || {
        let domain = site.api.get("domains/erp.greenhill.test").await.expect(200);
        (domain["ready"] == true).then_some(domain)
    })
    .await;
    assert_eq!((&ready["certificate"], &ready["blocking"]), (&json!("issued"), &json!([])));
    issuer.abort();
}

#[tokio::test]
async fn a_name_that_is_not_proven_blocks_and_says_what_to_set() {
    let (site, tenant) = Site::with_tenant("greenhill").await;
    let domain = site.api.post("domains", json!({"name": "erp.greenhill.example", "tenant": "greenhill"})).await;
    let domain = domain.expect(201);
    assert_eq!((&domain["ownership"], &domain["routing"]), (&json!("unproven"), &json!("elsewhere")));
    assert_eq!((&domain["certificate"], &domain["ready"]), (&json!("none"), &json!(false)));
    let codes: Vec<_> = domain["blocking"].as_array().expect("a list").iter().map(|b| b["code"].clone()).collect();
    assert_eq!(codes, ["OWNERSHIP_UNPROVEN", "NOT_POINTING_HERE", "CERTIFICATE_NOT_ORDERED"]);
    let records = domain["records"].as_array().expect("a list");
    assert_eq!(records[0]["type"], "TXT");
    assert_eq!(records[0]["name"], "_schoolgate.erp.greenhill.example");
    let value = records[0]["value"].as_str().expect("text");
    assert!(value.starts_with(&format!("v1; tenant={}; token=", tenant["id"].as_str().expect("an id"))), "{value}");
    let token = value.rsplit('=').next().expect("a token");
    assert_eq!(records[1]["value"], format!("{token}.cname.schools.test"));
    assert_eq!((&records[2]["purpose"], &records[2]["optional"]), (&json!("certificate"), &json!(true)));

    site.tenant("riverside").await;
    let apex = site.api.post("domains", json!({"name": "greenhill.example", "tenant": "riverside"})).await.expect(201);
    let types: Vec<_> = apex["records"].as_array().expect("a list").iter().map(|r| r["type"].clone()).collect();
    assert_eq!(types, ["TXT", "ALIAS", "A", "CNAME"]);
    assert_eq!(apex["records"][2]["value"], "192.0.2.7");
}

#[tokio::test]
async fn a_domain_of_a_suspended_tenant_is_not_ready() {
    let (site, _) = Site::with_tenant("greenhill").await;
    let issuer = site.issuer();
    site.api.post("domains", json!({"name": "erp.greenhill.test", "tenant": "greenhill"})).await.expect(201);
    site.api.post("tenants/slug:greenhill/suspend", json!({"reason": "x"})).await.expect(200);
    schoolgate_testkit::until(crate::site::WAIT, async || {
        let domain = site.api.get("domains/erp.greenhill.test").await.expect(200);
        let blocking = domain["blocking"].as_array().expect("a list");
        (blocking.len() == 1 && blocking[0]["code"] == "TENANT_NOT_ACTIVE" && domain["ready"] == false).then_some(())
    })
    .await;
    issuer.abort();
}

#[tokio::test]
async fn a_name_belongs_to_one_tenant() {
    let (site, _) = Site::with_tenant("greenhill").await;
    site.tenant("riverside").await;
    site.api.post("domains", json!({"name": "erp.test", "tenant": "greenhill"})).await.expect(201);
    let taken = site.api.post("domains", json!({"name": "erp.test", "tenant": "riverside"})).await;
    let taken = problem(taken, 409, "DOMAIN_EXISTS");
    assert_eq!(taken["errors"][0]["pointer"], "/name");
}

#[tokio::test]
async fn names_that_cannot_be_domains_are_refused_with_every_reason() {
    let (site, _) = Site::with_tenant("greenhill").await;
    let refused = site.api.post("domains", json!({"name": "no spaces.test", "tenant": "nobody", "prime": 1})).await;
    let refused = problem(refused, 422, "VALIDATION_FAILED");
    assert_eq!(crate::site::pointers(&refused), ["/name", "/prime", "/tenant"]);
    for name in ["test", "10.0.0.1", "*.greenhill.test", "co.uk"] {
        let refused = site.api.post("domains", json!({"name": name, "tenant": "greenhill"})).await;
        assert_eq!(crate::site::pointers(&problem(refused, 422, "VALIDATION_FAILED")), ["/name"], "{name}");
    }
    // In a zone the first label is a slug; a domain there could shadow another school, or be sent its cookies.
    for name in ["lincoln.schools.test", "schools.test", "erp.lincoln.schools.test"] {
        let refused = site.api.post("domains", json!({"name": name, "tenant": "greenhill"})).await;
        assert_eq!(crate::site::pointers(&problem(refused, 422, "VALIDATION_FAILED")), ["/name"], "{name}");
    }
}

#[tokio::test]
async fn a_tenant_has_one_main_name() {
    let (site, _) = Site::with_tenant("greenhill").await;
    site.api.patch("tenants/slug:greenhill", json!({"plan": "custom"})).await.expect(200);
    let add = async |name: &str| {
        site.api.post("domains", json!({"name": name, "tenant": "greenhill"})).await.expect(201)["primary"].clone()
    };
    assert_eq!(add("a.test").await, true, "the first is the main one");
    assert_eq!(add("b.test").await, false);
    assert_eq!(add("c.example").await, false);
    let is_primary = async |name: &str| site.api.get(&format!("domains/{name}")).await.expect(200)["primary"] == true;
    site.api.post("domains/b.test/make-primary", json!({})).await.expect(200);
    assert!(is_primary("b.test").await && !is_primary("a.test").await);
    site.api.patch("domains/c.example", json!({"primary": true})).await.expect(200);
    assert!(is_primary("c.example").await && !is_primary("b.test").await);
    problem(site.api.patch("domains/c.example", json!({"primary": false})).await, 422, "VALIDATION_FAILED");
    problem(site.api.patch("domains/c.example", json!({"ownership": "proven"})).await, 422, "VALIDATION_FAILED");
    assert_eq!(site.api.delete("domains/c.example").await.status, 204);
    assert!(is_primary("a.test").await, "another takes its place");
    let listed = site.api.get("tenants/slug:greenhill/domains").await.expect(200);
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(2));
    let listed = site.api.get("domains?tenant=greenhill&search=b.te").await.expect(200);
    assert_eq!(listed["items"][0]["name"], "b.test");
}

#[tokio::test]
async fn anybody_may_ask_whether_a_school_is_here() {
    let (site, _) = Site::with_tenant("greenhill").await;
    site.api.patch("tenants/slug:greenhill", json!({"plan": "custom"})).await.expect(200);
    let anybody = site.api.anonymous();
    let found = anybody.get("/api/public/verify-tenant?slug=Greenhill").await.expect(200);
    assert_eq!((&found["valid"], &found["host"]), (&json!(true), &json!("greenhill.schools.test")));
    assert!(found.get("id").is_none() && found.get("plan").is_none());
    site.api.post("domains", json!({"name": "erp.test", "tenant": "greenhill"})).await.expect(201);
    site.api.post("domains", json!({"name": "erp.example", "tenant": "greenhill"})).await.expect(201);
    for name in ["erp.test", "greenhill.schools.test"] {
        let found = anybody.get(&format!("/api/public/verify-tenant?domain={name}")).await.expect(200);
        assert_eq!((&found["slug"], &found["host"]), (&json!("greenhill"), &json!("erp.test")), "{name}");
    }
    for query in ["slug=nobody", "domain=erp.example", "domain=a.greenhill.schools.test", "domain=..."] {
        let answer = anybody.get(&format!("/api/public/verify-tenant?{query}")).await;
        problem(answer, 404, "TENANT_NOT_ACTIVE");
    }
    site.api.post("tenants/slug:greenhill/suspend", json!({})).await.expect(200);
    problem(anybody.get("/api/public/verify-tenant?slug=greenhill").await, 404, "TENANT_NOT_ACTIVE");
    problem(anybody.get("/api/public/verify-tenant").await, 400, "BAD_REQUEST");
    let mut limited = None;
    for _ in 0..60 {
        let answer = anybody.get("/api/public/verify-tenant?slug=nobody").await;
        if answer.status == 429 {
            limited = Some(answer);
            break;
        }
    }
    let limited = limited.expect("one address asks only so often");
    assert!(limited.header("retry-after").is_some());
    problem(limited, 429, "RATE_LIMITED");
}

/// A school's zone in the test's DNS.
async fn with_zone() -> (Site, serde_json::Value) {
    let (site, _) = Site::with_tenant("greenhill").await;
    for zone in ["example", "greenhill.example"] {
        site.dns.records.zone(zone);
    }
    let made = site.api.post("domains", json!({"name": "erp.greenhill.example", "tenant": "greenhill"})).await;
    (site, made.expect(201))
}

#[tokio::test]
async fn a_check_sees_what_the_school_did_and_comes_only_so_often() {
    let (site, domain) = with_zone().await;
    let records = domain["records"].as_array().expect("a list");
    let proof = records[0]["value"].as_str().expect("text");
    site.dns.records.add(&format!("_schoolgate.erp.greenhill.example TXT \"{proof}\""));
    let checked = site.api.post("domains/erp.greenhill.example/check", json!({})).await.expect(200);
    let first = &checked["blocking"][0];
    assert_eq!((&first["code"], &first["axis"]), (&json!("TXT_MALFORMED"), &json!("ownership")), "{checked}");
    assert_eq!((&first["who_acts"], &first["resolver"]), (&json!("school"), &json!("ns.dns.test (127.0.0.1)")));
    assert!(checked["checked_at"].is_string() && checked["next_check_at"].is_string(), "{checked}");
    assert_eq!(checked["blocking"][1]["code"], "NOT_POINTING_HERE");

    let again = site.api.post("domains/erp.greenhill.example/verify", json!({})).await;
    let seconds: u32 = again.header("retry-after").and_then(|s| s.parse().ok()).expect("seconds");
    assert!((1..=10).contains(&seconds), "{seconds}");
    problem(again, 429, "RATE_LIMITED");
    problem(site.api.post("domains/none.example/check", json!({})).await, 404, "NOT_FOUND");
    let viewer = site.api_of(json!({"name": "v", "role": "tenant-viewer", "tenants": [domain["tenant"]]})).await;
    problem(viewer.post("domains/erp.greenhill.example/check", json!({})).await, 403, "FORBIDDEN");
    viewer.get("domains/erp.greenhill.example").await.expect(200);
}

#[tokio::test]
async fn a_check_proves_a_domain_that_is_set_as_it_should_be() {
    let (site, domain) = with_zone().await;
    let value = |n: usize| domain["records"][n]["value"].as_str().expect("text").to_owned();
    site.dns.records.zone("schools.test");
    site.dns.records.add(&format!("{} A 192.0.2.7", value(1)));
    site.dns.records.add(&format!("_schoolgate.erp.greenhill.example TXT {}", value(0)));
    site.dns.records.add(&format!("erp.greenhill.example CNAME {}", value(1)));
    let checked = site.api.post("domains/erp.greenhill.example/check", json!({})).await.expect(200);
    assert_eq!((&checked["ownership"], &checked["routing"]), (&json!("proven"), &json!("here")), "{checked}");
    assert_eq!(checked["blocking"].as_array().map(Vec::len), Some(1), "the certificate is ordered now: {checked}");
    let events = site.api.get("domains/erp.greenhill.example/events").await.expect(200);
    let kinds: Vec<_> = events["items"].as_array().expect("a list").iter().map(|event| &event["kind"]).collect();
    assert_eq!(kinds, ["domain.here", "domain.proven"]);
    let audit = site.api.get("audit?object=domain%20erp.greenhill.example").await.expect(200);
    assert_eq!(
        (&audit["items"][0]["action"], &audit["items"][0]["actor"]),
        (&json!("domain.check"), &json!("domain-checks"))
    );
}

#[tokio::test]
async fn the_people_of_a_schools_dns_are_told_what_to_set_in_three_ways() {
    let (site, domain) = with_zone().await;
    let proof = domain["records"][0]["value"].as_str().expect("text");
    let path = "domains/erp.greenhill.example/instructions";
    let instructions = site.api.get(path).await.expect(200);
    assert_eq!(instructions["records"], domain["records"]);
    assert_eq!(instructions["recommended"][0]["value"], "0 issue \"letsencrypt.org\"");
    let bind = site.api.get(&format!("{path}?format=bind")).await;
    assert_eq!(bind.header("content-type"), Some("text/plain; charset=utf-8"));
    let line = format!("_schoolgate.erp.greenhill.example. 3600 IN TXT \"{proof}\"");
    assert!(bind.text.lines().any(|found| found == line), "{}", bind.text);
    let letter = site.api.get(&format!("{path}?format=text")).await.text;
    assert!(letter.contains(&format!("Value: {proof}")), "{letter}");
    problem(site.api.get(&format!("{path}?format=pdf")).await, 400, "BAD_REQUEST");
}

#[tokio::test]
async fn a_plan_has_room_for_so_many_domains() {
    let (site, _) = Site::with_tenant("greenhill").await;
    site.api.post("domains", json!({"name": "a.test", "tenant": "greenhill"})).await.expect(201);
    let refused = site.api.post("domains", json!({"name": "b.test", "tenant": "greenhill"})).await;
    let refused = problem(refused, 409, "QUOTA_EXCEEDED");
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("allows 1 domain, ")), "{refused}");
    site.api.patch("tenants/slug:greenhill", json!({"plan": "standard"})).await.expect(200);
    site.api.post("domains", json!({"name": "b.test", "tenant": "greenhill"})).await.expect(201);
}

#[tokio::test]
async fn a_name_that_nobody_proved_goes_to_who_proves_it() {
    let (site, _) = with_zone().await;
    let riverside = site.tenant("riverside").await;
    let taken = site.api.post("domains", json!({"name": "erp.greenhill.example", "tenant": "riverside"})).await;
    let taken = problem(taken, 409, "DOMAIN_EXISTS");
    assert!(taken["message"].as_str().is_some_and(|text| text.contains("/transfer")), "{taken}");
    let path = "domains/erp.greenhill.example/transfer";
    problem(site.api.post(path, json!({"tenant": "greenhill"})).await, 409, "DOMAIN_EXISTS");
    problem(site.api.post(path, json!({"tenant": "nobody"})).await, 422, "VALIDATION_FAILED");
    let asked = site.api.post(path, json!({"tenant": "riverside"})).await.expect(200);
    assert_eq!((&asked["moved"], &asked["transfer"]["tenant"]), (&json!(false), &riverside["id"]));
    site.dns.records.add(&format!(
        "_schoolgate.erp.greenhill.example TXT {}",
        asked["records"][0]["value"].as_str().expect("text")
    ));
    let moved = site.api.post("domains/erp.greenhill.example/check", json!({})).await.expect(200);
    assert_eq!((&moved["tenant_slug"], &moved["ownership"]), (&json!("riverside"), &json!("proven")), "{moved}");
    assert_eq!((&moved["primary"], &moved["transfer"]), (&json!(true), &serde_json::Value::Null));
    let events = site.api.get("tenants/slug:greenhill/events?kind=domain.moved_away").await.expect(200);
    assert_eq!(events["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_request_for_a_domain_can_be_withdrawn_by_who_asked() {
    let (site, domain) = with_zone().await;
    let riverside = site.tenant("riverside").await;
    let path = "domains/erp.greenhill.example/transfer";
    problem(site.api.delete(path).await, 404, "NOT_FOUND");
    let token = |tenant: &serde_json::Value| json!({"name": "t", "role": "tenant-admin", "tenants": [tenant]});
    let (has, asks) = (site.api_of(token(&domain["tenant"])).await, site.api_of(token(&riverside["id"])).await);
    problem(has.post(path, json!({"tenant": "riverside"})).await, 403, "FORBIDDEN");
    asks.post(path, json!({"tenant": "riverside"})).await.expect(200);
    let shown = site.api.get("domains/erp.greenhill.example").await.expect(200);
    assert_eq!(shown["transfer"]["tenant"], riverside["id"]);
    problem(has.delete(path).await, 403, "FORBIDDEN");
    assert_eq!(asks.delete(path).await.status, 204);
    assert_eq!(site.api.get("domains/erp.greenhill.example").await.expect(200)["transfer"], serde_json::Value::Null);
}

#[tokio::test]
async fn a_reserved_name_moves_at_once_between_tenants_of_one_operator() {
    let (site, _) = Site::with_tenant("greenhill").await;
    site.tenant("riverside").await;
    site.api.post("domains", json!({"name": "erp.test", "tenant": "greenhill"})).await.expect(201);
    let moved = site.api.post("domains/erp.test/transfer", json!({"tenant": "riverside"})).await.expect(200);
    assert_eq!(moved["moved"], true);
    assert_eq!(site.api.get("domains/erp.test").await.expect(200)["tenant_slug"], "riverside");
    site.api.post("domains/erp.test/check", json!({})).await.expect(200);
}
