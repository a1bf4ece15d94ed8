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

    let apex = site.api.post("domains", json!({"name": "greenhill.example", "tenant": "greenhill"})).await.expect(201);
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
    for name in ["test", "10.0.0.1", "*.greenhill.test"] {
        let refused = site.api.post("domains", json!({"name": name, "tenant": "greenhill"})).await;
        assert_eq!(crate::site::pointers(&problem(refused, 422, "VALIDATION_FAILED")), ["/name"], "{name}");
    }
    // In a zone the first label is a slug; a domain there could shadow another school.
    for name in ["lincoln.schools.test", "schools.test"] {
        let refused = site.api.post("domains", json!({"name": name, "tenant": "greenhill"})).await;
        assert_eq!(crate::site::pointers(&problem(refused, 422, "VALIDATION_FAILED")), ["/name"], "{name}");
    }
}

#[tokio::test]
async fn a_tenant_has_one_main_name() {
    let (site, _) = Site::with_tenant("greenhill").await;
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
