//! Instances that register themselves.

use schoolgate_testkit::{Api, ApiAnswer};
use serde_json::{Value, json};

use crate::site::{Site, pointers, problem};

const BACKENDS: &str = "/internal/v1/backends";

async fn register(api: &Api, body: Value) -> ApiAnswer {
    api.post(BACKENDS, body).await
}

async fn leave(api: &Api, backend: &Value) -> ApiAnswer {
    let backend = backend.as_str().expect("an id");
    api.delete(&format!("{BACKENDS}/{backend}")).await
}

async fn backends(site: &Site) -> Vec<(Value, Value)> {
    let pool = site.api.get("pools/shared").await.expect(200);
    let list = pool["backends"].as_array().expect("a list").clone();
    list.into_iter().map(|backend| (backend["address"].clone(), backend["state"].clone())).collect()
}

/// A pool `shared`, and the API for an instance whose token is bound to it.
async fn bound() -> (Site, Api) {
    let site = Site::start().await;
    site.pool("shared").await;
    site.pool("other").await;
    let token = json!({ "name": "apps of shared", "role": "instance", "pools": ["shared"] });
    let instance = site.api_of(token).await;
    (site, instance)
}

fn at(port: u16) -> Value {
    json!({ "pool": "shared", "address": format!("http://127.0.0.1:{port}") })
}

#[tokio::test]
async fn an_instance_registers_says_so_again_and_leaves() {
    let (site, instance) = bound().await;
    let node = site.node("n1");
    let mine = register(&instance, at(9_100)).await.expect(200);
    assert_eq!(
        (&mine["pool"], &mine["state"], &mine["heartbeat_s"]),
        (&json!("shared"), &json!("active"), &json!(5.0))
    );
    let again = register(&instance, at(9_100)).await.expect(200);
    assert_eq!(again["backend"], mine["backend"]);
    let mine_of = |state: &str| (json!("http://127.0.0.1:9100"), json!(state));
    assert!(backends(&site).await.contains(&mine_of("active")));
    let audit = site.api.get("audit").await.expect(200);
    let lines = audit["items"].as_array().expect("items").iter().filter(|line| line["action"] == "instance.register");
    assert_eq!(lines.count(), 1, "a heartbeat is no change");

    let left = leave(&instance, &mine["backend"]).await.expect(200);
    assert_eq!((&left["drain_s"], &left["applied"]), (&json!(30), &json!(true)));
    assert!(backends(&site).await.contains(&mine_of("draining")));
    leave(&instance, &mine["backend"]).await.expect(200);
    register(&instance, at(9_100)).await.expect(200);
    assert!(backends(&site).await.contains(&mine_of("active")), "it is back before it was gone");
    node.abort();
}

#[tokio::test]
async fn a_token_is_for_its_pool_and_a_stranger_registers_nothing() {
    let (site, instance) = bound().await;
    let other = json!({ "pool": "other", "address": "http://127.0.0.1:9100" });
    problem(register(&instance, other.clone()).await, 403, "FORBIDDEN");
    problem(register(&site.api, at(9_100)).await, 401, "INVALID_TOKEN_FORMAT");
    problem(register(&site.api.anonymous(), at(9_100)).await, 401, "MISSING_TOKEN");
    // The token that every site has is for all of its pools.
    let token = std::fs::read_to_string(site.data.join("instance.token")).expect("the instances' token");
    let any = site.api.with_token(token.trim());
    let theirs = register(&any, other).await.expect(200);
    problem(leave(&instance, &theirs["backend"]).await, 403, "FORBIDDEN");
    problem(leave(&instance, &json!("be_01ARZ3NDEKTSV4RRFFQ69G5FAV")).await, 404, "NOT_FOUND");
    problem(leave(&instance, &json!("be_1")).await, 404, "NOT_FOUND");
}

#[tokio::test]
async fn what_is_no_registration_is_refused_field_by_field() {
    let (_site, instance) = bound().await;
    for (body, pointer) in [
        (json!({ "address": "http://127.0.0.1:9100" }), "/pool"),
        (json!({ "pool": "shared" }), "/address"),
        (json!({ "pool": "shared", "address": "127.0.0.1:9100" }), "/address"),
        (json!({ "pool": "shared", "address": "http://127.0.0.1:9100", "weight": 0 }), "/weight"),
        (json!({ "pool": "shared", "address": "http://127.0.0.1:9100", "state": "active" }), "/state"),
        (json!([]), ""),
    ] {
        let refused = problem(register(&instance, body.clone()).await, 422, "VALIDATION_FAILED");
        assert_eq!(pointers(&refused), [pointer], "{body}");
    }
}

#[tokio::test]
async fn whom_an_operator_removed_does_not_come_back_by_a_heartbeat() {
    let (site, instance) = bound().await;
    let mine = register(&instance, at(9_100)).await.expect(200);
    let path = format!("pools/shared/backends/{}", mine["backend"].as_str().expect("an id"));
    site.api.delete(&path).await;
    let refused = problem(register(&instance, at(9_100)).await, 409, "BACKEND_REMOVED");
    assert!(refused["message"].as_str().is_some_and(|message| message.contains("started anew")), "{refused}");
    assert_eq!(backends(&site).await.len(), 1);
    let gone = leave(&instance, &mine["backend"]).await.expect(200);
    assert_eq!(gone["drain_s"], 0);
    register(&instance, at(9_100)).await.expect(200);
    assert_eq!(backends(&site).await.len(), 2, "it said goodbye, and was started anew");
}

#[tokio::test]
async fn tokens_of_instances_are_bound_to_pools_and_others_are_not() {
    let (site, instance) = bound().await;
    for (token, pointer) in [
        (json!({ "name": "x", "role": "instance", "pools": ["nowhere"] }), "/pools/0"),
        (json!({ "name": "x", "role": "instance", "scopes": ["tenants:read"] }), "/scopes"),
        (json!({ "name": "x", "role": "operator", "pools": ["shared"] }), "/pools"),
        (json!({ "name": "x", "role": "instances" }), "/role"),
    ] {
        let refused = problem(site.api.post("tokens", token.clone()).await, 422, "VALIDATION_FAILED");
        assert_eq!(pointers(&refused), [pointer], "{token}");
    }
    problem(instance.get("tenants").await, 401, "INVALID_TOKEN_FORMAT");
}
