//! What proxies saw: hosts that nobody has, and requests that named two schools.

use schoolgate_config::feed::NodeReport;
use schoolgate_config::model::Revision;
use schoolgate_store::NewEvent;
use serde_json::{Value, json};

use crate::site::{Site, pointers, problem, report};

fn host(name: &str, count: u64) -> Value {
    json!({"name": name, "count": count, "overcount": 0, "first_seen_ms": 1_000, "last_seen_ms": 2_000})
}

fn attempt(at_ms: i64, tenant: &Value) -> Value {
    json!({"at_ms": at_ms, "request_id": format!("R{at_ms}"), "client": "192.0.2.9", "host": "greenhill.schools.test",
           "tenant": tenant["id"], "tenant_slug": tenant["slug"], "kind": "header", "named": "riverside"})
}

fn says(site: &Site, node: &str, hosts: &[Value], attempts: &[Value]) {
    let report = NodeReport {
        unknown_hosts: serde_json::from_value(json!(hosts)).expect("hosts"),
        cross_tenant_attempts: serde_json::from_value(json!(attempts)).expect("attempts"),
        ..report(node, Revision::NONE)
    };
    site.publisher.feed().report(report);
}

async fn names(site: &Site, query: &str) -> Vec<String> {
    let list = site.api.get(&format!("unknown-hosts{query}")).await.expect(200);
    let items = list["items"].as_array().expect("a list");
    items.iter().map(|host| host["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn a_host_of_an_archived_tenant_is_still_somebodys() {
    let (site, _) = Site::with_tenant("greenhill").await;
    site.api.post("domains", json!({"name": "erp.greenhill.test", "tenant": "greenhill"})).await.expect(201);
    site.api.post("tenants/slug:greenhill/archive", json!({})).await.expect(200);
    says(&site, "n1", &[host("erp.greenhill.test", 3), host("greenhill.schools.test", 50), host("x.example", 1)], &[]);
    assert_eq!(names(&site, "").await, ["x.example"]);
}

#[tokio::test]
async fn a_host_that_nobody_has_is_adopted() {
    let (site, tenant) = Site::with_tenant("greenhill").await;
    says(&site, "n1", &[host("erp.greenhill.test", 3), host("noise.example", 9)], &[]);
    says(&site, "n2", &[host("erp.greenhill.test", 4), host("greenhill.schools.test", 50)], &[]);
    assert_eq!(names(&site, "").await, ["noise.example", "erp.greenhill.test"], "a zone's name is a school's by now");
    let list = site.api.get("unknown-hosts").await.expect(200);
    let first = &list["items"][1];
    assert_eq!((&first["count"], &first["nodes"]), (&json!(7), &json!(["n1", "n2"])));
    assert_eq!(
        (&first["first_seen"], &first["last_seen"]),
        (&json!("1970-01-01T00:00:01.000Z"), &json!("1970-01-01T00:00:02.000Z"))
    );

    let adopt = "unknown-hosts/erp.greenhill.test/adopt";
    assert_eq!(pointers(&problem(site.api.post(adopt, json!({})).await, 422, "VALIDATION_FAILED")), ["/tenant"]);
    let nobody = site.api.post(adopt, json!({"tenant": "nobody"})).await;
    assert_eq!(pointers(&problem(nobody, 422, "VALIDATION_FAILED")), ["/tenant"]);
    let other = site.api.post(adopt, json!({"tenant": "greenhill", "name": "x.example"})).await;
    assert_eq!(pointers(&problem(other, 400, "BAD_REQUEST")), ["/name"]);
    let made = site.api.post(adopt, json!({"tenant": "greenhill"})).await;
    assert_eq!(made.header("location"), Some("/api/v1/domains/erp.greenhill.test"));
    let made = made.expect(201);
    assert_eq!((&made["tenant"], &made["primary"]), (&tenant["id"], &json!(true)));
    assert_eq!(names(&site, "").await, ["noise.example"]);
    problem(site.api.post(adopt, json!({"tenant": "greenhill"})).await, 409, "DOMAIN_EXISTS");
    problem(site.api.post("unknown-hosts/a_b/adopt", json!({"tenant": "greenhill"})).await, 404, "NOT_FOUND");
}

#[tokio::test]
async fn a_host_that_does_not_matter_is_ignored_until_it_does() {
    let site = Site::start().await;
    says(&site, "n1", &[host("noise.example", 9), host("new.example", 3)], &[]);
    let ignored = site.api.post("unknown-hosts/noise.example/ignore", json!({})).await.expect(200);
    assert_eq!((&ignored["ignored"], &ignored["ignored_by"]), (&json!(true), &json!("first-start")));
    site.api.post("unknown-hosts/noise.example/ignore", json!({})).await.expect(200);
    site.api.post("unknown-hosts/silent.example/ignore", json!({})).await.expect(200);
    assert_eq!(names(&site, "").await, ["new.example"]);
    assert_eq!(names(&site, "?ignored=true").await, ["noise.example", "new.example", "silent.example"]);
    assert_eq!(site.api.delete("unknown-hosts/noise.example/ignore").await.status, 204);
    problem(site.api.delete("unknown-hosts/noise.example/ignore").await, 404, "NOT_FOUND");
    assert_eq!(names(&site, "").await, ["noise.example", "new.example"]);
    let audit = site.api.get("audit?object=unknown%20host%20noise.example").await.expect(200);
    assert_eq!(audit["items"][0]["action"], "unknown_host.heed");
    problem(site.api.get("unknown-hosts?ignored=perhaps").await, 400, "BAD_REQUEST");
    let auditor = site.api_of(json!({"name": "a", "role": "auditor"})).await;
    auditor.get("unknown-hosts").await.expect(200);
    problem(auditor.post("unknown-hosts/new.example/ignore", json!({})).await, 403, "FORBIDDEN");
}

#[tokio::test]
async fn requests_that_named_two_schools_are_events() {
    let (site, tenant) = Site::with_tenant("greenhill").await;
    let riverside = site.tenant("riverside").await;
    let recorded = async |count: usize| {
        schoolgate_testkit::until(crate::site::WAIT, async || {
            let all = site.api.get("events").await.expect(200);
            (all["items"].as_array().map(Vec::len) == Some(count)).then_some(all)
        })
        .await
    };
    says(&site, "n1", &[], &[attempt(3_000, &tenant), attempt(1_000, &tenant)]);
    recorded(2).await;
    says(&site, "n2", &[], &[attempt(2_000, &riverside)]);
    recorded(3).await;
    // The same again, as the next report has it.
    says(&site, "n1", &[], &[attempt(4_000, &tenant), attempt(3_000, &tenant), attempt(1_000, &tenant)]);
    let seconds = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().expect("a list");
        items.iter().map(|event| event["at"].as_str().expect("a time")[17..19].to_owned()).collect()
    };
    let all = recorded(4).await;
    assert_eq!(seconds(&all), ["04", "02", "03", "01"], "as they were recorded, the last first");
    let latest = json!({
        "number": all["items"][0]["number"], "kind": "security.cross_tenant_attempt", "at": "1970-01-01T00:00:04.000Z",
        "tenant": tenant["id"], "tenant_slug": "greenhill",
        "object": format!("tenant {}", tenant["id"].as_str().expect("text")),
        "summary": "n1 refused a request for greenhill.schools.test: its header named `riverside`",
        "detail": {
            "node": "n1", "host": "greenhill.schools.test", "client": "192.0.2.9", "identifier": "header",
            "named": "riverside", "request_id": "R4000",
        },
    });
    assert_eq!(all["items"][0], latest);
    let page = site.api.get("events?limit=3").await.expect(200);
    assert_eq!(seconds(&page), ["04", "02", "03"]);
    let rest = site.api.get(&format!("events?cursor={}", page["next"].as_str().expect("more"))).await.expect(200);
    assert_eq!((seconds(&rest), &rest["next"]), (vec!["01".to_owned()], &Value::Null));
    assert_eq!(seconds(&site.api.get("events?tenant=riverside").await.expect(200)), ["02"]);
    assert_eq!(seconds(&site.api.get("events?kind=security").await.expect(200)), ["04", "02", "03", "01"]);
    assert_eq!(seconds(&site.api.get("events?kind=other").await.expect(200)), [""; 0]);
    problem(site.api.get("events?cursor=x").await, 400, "BAD_REQUEST");
    let viewer = site.api_of(json!({"name": "v", "role": "tenant-viewer", "tenants": [tenant["id"]]})).await;
    problem(viewer.get("events").await, 403, "FORBIDDEN");
    assert_eq!(seconds(&viewer.get("tenants/slug:greenhill/events").await.expect(200)), ["04", "03", "01"]);
    problem(viewer.get("tenants/slug:riverside/events").await, 403, "FORBIDDEN");
}

#[tokio::test]
async fn what_happened_to_a_domain_is_for_the_tenant_it_happened_to() {
    let (site, tenant) = Site::with_tenant("greenhill").await;
    let riverside = site.tenant("riverside").await;
    site.api.post("domains", json!({"name": "erp.test", "tenant": "greenhill"})).await.expect(201);
    let event = |tenant: &Value, kind| {
        let tenant = serde_json::from_value(tenant["id"].clone()).expect("an id");
        NewEvent::of_domain(5_000, kind, &"erp.test".parse().expect("a name"), tenant, "so it was")
    };
    let events = [event(&riverside, "domain.released"), event(&tenant, "domain.proven")];
    site.store.record_events(&events).await.expect("recorded");
    let seen = site.api.get("domains/erp.test/events").await.expect(200);
    let kinds: Vec<_> = seen["items"].as_array().expect("a list").iter().map(|event| &event["kind"]).collect();
    assert_eq!(kinds, ["domain.proven"]);
    let before = site.api.get("events?object=domain%20erp.test").await.expect(200);
    assert_eq!(before["items"].as_array().map(Vec::len), Some(2));
    problem(site.api.get("domains/other.test/events").await, 404, "NOT_FOUND");
}
