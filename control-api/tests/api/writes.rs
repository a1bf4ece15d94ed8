//! What every write offers: preconditions, rehearsal, repetition, an audit line.

use http::Method;
use schoolgate_testkit::Api;
use serde_json::json;

use crate::site::{Site, problem};

#[tokio::test]
async fn a_write_over_a_change_that_was_not_seen_is_refused() {
    let (site, _) = Site::with_tenant("greenhill").await;
    let seen = site.api.get("tenants/slug:greenhill").await.etag().to_owned();
    let write = |etag: &str, name: &str| {
        let request = site.api.request(Method::PATCH, "tenants/slug:greenhill").header("if-match", etag);
        Api::send(request.json(&json!({"name": name})))
    };
    let first = write(&seen, "first").await;
    let now = first.etag().to_owned();
    first.expect(200);
    problem(write(&seen, "second").await, 412, "PRECONDITION_FAILED");
    assert_eq!(site.api.get("tenants/slug:greenhill").await.expect(200)["name"], "first");
    let merge = site.api.request(Method::PATCH, "tenants/slug:greenhill");
    let merge = merge.header("content-type", "application/merge-patch+json").body("{\"region\":\"north\"}");
    let merged = Api::send(merge.header("if-match", now.clone())).await;
    let now = merged.etag().to_owned();
    assert_eq!(merged.expect(200)["region"], "north");
    assert_eq!(write(&format!("\"1\", {now}"), "third").await.status, 200);
    assert_eq!(write("*", "fourth").await.status, 200);
    let request = site.api.request(Method::DELETE, "tenants/slug:greenhill").header("if-match", seen);
    problem(Api::send(request).await, 412, "PRECONDITION_FAILED");
}

#[tokio::test]
async fn a_dry_run_shows_what_would_be_and_leaves_nothing() {
    let (site, _) = Site::with_tenant("greenhill").await;
    let before = site.store.refresh().await.expect("read").change;
    let plan = site.api.post("tenants?dry_run=true", json!({"slug": "lincoln", "name": "L"})).await.expect(200);
    assert_eq!((&plan["dry_run"], &plan["accepted"]), (&json!(true), &json!(true)));
    assert_eq!(plan["object"]["slug"], "lincoln");
    assert_eq!((&plan["changes"][0]["op"], &plan["changes"][0]["kind"]), (&json!("put"), &json!("tenant")));
    assert_eq!(site.api.get("tenants/slug:lincoln").await.status, 404);
    let plan = site.api.delete("pools/shared?dry_run=true").await.expect(200);
    assert_eq!(plan["accepted"], false);
    assert!(plan["violations"][0].as_str().expect("text").contains("shared"));
    problem(site.api.post("tenants?dry_run=true", json!({"slug": "X"})).await, 422, "VALIDATION_FAILED");
    assert_eq!(site.store.refresh().await.expect("read").change, before, "not even an audit line");
}

#[tokio::test]
async fn the_same_request_with_the_same_key_is_done_once() {
    let (site, _) = Site::with_tenant("greenhill").await;
    let post = |key: &str, body: serde_json::Value| {
        Api::send(site.api.request(Method::POST, "tenants").header("idempotency-key", key).json(&body))
    };
    let first = post("k1", json!({"slug": "a", "name": "A"})).await;
    let etag = first.etag().to_owned();
    let first = first.expect(201);
    let again = post("k1", json!({"slug": "a", "name": "A"})).await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!((again.etag(), again.header("location").is_some()), (etag.as_str(), true));
    assert_eq!(again.expect(201), first);
    problem(post("k1", json!({"slug": "b", "name": "B"})).await, 422, "IDEMPOTENCY_KEY_REUSED");
    problem(post("k2", json!({"slug": "a", "name": "A"})).await, 409, "SUBDOMAIN_EXISTS");
    // What failed is not remembered: the key is free for the mended request.
    post("k2", json!({"slug": "c", "name": "C"})).await.expect(201);
    // Two at once make one.
    let (x, y) =
        tokio::join!(post("k3", json!({"slug": "d", "name": "D"})), post("k3", json!({"slug": "d", "name": "D"})),);
    assert_eq!(x.expect(201)["id"], y.expect(201)["id"]);
}

#[tokio::test]
async fn every_write_leaves_one_line_in_an_unbroken_audit() {
    let (site, tenant) = Site::with_tenant("greenhill").await;
    let id = tenant["id"].as_str().expect("an id");
    let answer = site.api.post(&format!("tenants/{id}/suspend"), json!({"reason": "no payment"})).await;
    let request_id = answer.header("x-request-id").expect("a request id").to_owned();
    let change = answer.header("schoolgate-change").expect("a change").to_owned();
    let lines = site.api.get(&format!("audit?object=tenant%20{id}")).await.expect(200);
    let actions: Vec<_> = lines["items"].as_array().expect("lines").iter().map(|l| l["action"].clone()).collect();
    assert_eq!(actions, ["tenant.suspend", "tenant.create"]);
    let line = &lines["items"][0];
    assert_eq!((&line["request_id"], &line["number"].to_string()), (&json!(request_id), &change));
    assert_eq!((&line["actor"], &line["client_ip"]), (&json!("first-start"), &json!("127.0.0.1")));
    assert_eq!(line["summary"]["state"], json!({"from": "active", "to": "suspended"}));
    assert_eq!(site.api.get("audit/verify").await.expect(200)["intact"], true);
    let some = site.api.get("audit?limit=2").await.expect(200);
    let next = some["next"].as_str().expect("there is more");
    let older = site.api.get(&format!("audit?limit=2&cursor={next}")).await.expect(200);
    assert!(older["items"][0]["number"].as_u64() < some["items"][1]["number"].as_u64());
}

#[tokio::test]
async fn many_writes_at_once_all_get_their_answer() {
    let site = Site::start().await;
    site.pool("shared").await;
    let writers = (0..100).map(|i| {
        let api = site.api.clone();
        tokio::spawn(async move { api.post("tenants", json!({"slug": format!("s{i}"), "name": "S"})).await.status })
    });
    for writer in writers.collect::<Vec<_>>() {
        assert_eq!(writer.await.expect("no panic"), 201);
    }
    assert_eq!(site.api.get("tenants?limit=1000").await.expect(200)["items"].as_array().map(Vec::len), Some(100));
}
