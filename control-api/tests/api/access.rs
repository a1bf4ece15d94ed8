//! Who may do what.

use http::Method;
use schoolgate_config::time::{Clock, SystemClock, rfc3339};
use schoolgate_testkit::Api;
use serde_json::json;

use crate::site::{Site, problem};

#[tokio::test]
async fn a_request_without_a_good_token_is_refused() {
    let site = Site::start().await;
    problem(site.api.anonymous().get("tenants").await, 401, "MISSING_TOKEN");
    for bad in ["x", "sgk_", "sgk_abc", "sgn_abc_def"] {
        problem(site.api.with_token(bad).get("tenants").await, 401, "INVALID_TOKEN_FORMAT");
    }
    let admin = std::fs::read_to_string(site.data.join("admin.token")).expect("the token");
    let (id, _) = admin.trim().rsplit_once('_').expect("parts");
    for bad in ["sgk_unknown_secret", &format!("{id}_wrong")] {
        problem(site.api.with_token(bad).get("tenants").await, 401, "INVALID_TOKEN");
    }
    let basic = site.api.anonymous().request(Method::GET, "tenants").header("authorization", "Basic YTpi");
    problem(Api::send(basic).await, 401, "INVALID_TOKEN_FORMAT");
    // Before anything is read: a stranger learns nothing of what is here.
    problem(site.api.anonymous().post("tenants", json!({"bad": 1})).await, 401, "MISSING_TOKEN");
    problem(site.api.anonymous().get("tenants/slug:nobody").await, 401, "MISSING_TOKEN");
    let answer = site.api.anonymous().get("tenants").await;
    assert!(answer.header("www-authenticate").is_some());
}

#[tokio::test]
async fn a_token_ends_and_is_bound_to_its_networks() {
    let site = Site::start().await;
    let soon = rfc3339(SystemClock.unix_ms() + 1_500);
    let short = site.api_of(json!({"name": "short", "role": "auditor", "expires_at": soon})).await;
    schoolgate_testkit::until(crate::site::WAIT, async || {
        let answer = short.get("tenants").await;
        (answer.status == 401).then(|| problem(answer, 401, "TOKEN_EXPIRED"))
    })
    .await;
    let far = site.api_of(json!({"name": "far", "role": "auditor", "networks": ["192.0.2.0/24"]})).await;
    problem(far.get("tenants").await, 403, "FORBIDDEN");
    let near = site.api_of(json!({"name": "near", "role": "auditor", "networks": ["127.0.0.0/8"]})).await;
    near.get("tenants").await.expect(200);
    let bad = json!({"name": "x", "role": "king", "scopes": ["all"], "expires_at": "2001-01-01T00:00:00Z"});
    let refused = problem(site.api.post("tokens", bad).await, 422, "VALIDATION_FAILED");
    assert_eq!(crate::site::pointers(&refused), ["/expires_at", "/role", "/scopes/0"]);
    let narrow = json!({"name": "minter", "role": "super-admin", "scopes": ["tokens:write"]});
    let narrow = site.api_of(narrow).await;
    let wider = narrow.post("tokens", json!({"name": "x", "role": "super-admin"})).await;
    assert_eq!(crate::site::pointers(&problem(wider, 422, "VALIDATION_FAILED")), ["/scopes"]);
    let same = json!({"name": "x", "role": "super-admin", "scopes": ["tokens:write"]});
    narrow.post("tokens", same).await.expect(201);
    let refused = site.api.post("tokens", json!({"name": "x", "role": "tenant-admin"})).await;
    assert_eq!(crate::site::pointers(&problem(refused, 422, "VALIDATION_FAILED")), ["/tenants"]);
}

#[tokio::test]
async fn a_secret_is_shown_once_and_a_deleted_token_opens_nothing() {
    let site = Site::start().await;
    let made = site.api.post("tokens", json!({"name": "ci", "role": "operator"})).await.expect(201);
    let holder = site.api.with_token(made["token"].as_str().expect("a secret"));
    let listed = site.api.get("tokens").await.expect(200);
    assert!(!listed.to_string().contains(made["token"].as_str().expect("a secret")));
    assert!(listed["items"].as_array().expect("tokens").iter().all(|token| token.get("token").is_none()));
    holder.get("tenants").await.expect(200);
    let id = made["id"].as_str().expect("an id");
    assert_eq!(site.api.delete(&format!("tokens/{id}")).await.status, 204);
    problem(holder.get("tenants").await, 401, "INVALID_TOKEN");
    let admin = listed["items"].as_array().expect("tokens").iter().find(|t| t["role"] == "super-admin");
    let own = format!("tokens/{}", admin.expect("the admin")["id"].as_str().expect("an id"));
    problem(site.api.delete(&own).await, 409, "IN_USE");
    let keyed = site.api.request(Method::POST, "tokens").header("idempotency-key", "k");
    let keyed = Api::send(keyed.json(&json!({"name": "x", "role": "auditor"}))).await;
    problem(keyed, 400, "BAD_REQUEST");
    let audit = site.api.get("audit").await.expect(200).to_string();
    assert!(!audit.contains(made["token"].as_str().expect("a secret")));
}

#[tokio::test]
async fn each_role_does_what_the_table_says() {
    let (site, tenant) = Site::with_tenant("greenhill").await;
    let mine = tenant["id"].clone();
    let other = site.tenant("riverside").await;
    let tenant = site.api.patch("tenants/slug:greenhill", json!({"plan": "standard"})).await.expect(200);
    site.api.post("domains", json!({"name": "erp.test", "tenant": "greenhill"})).await.expect(201);
    // Read the list, change something harmless, by subject; then who may.
    let reads =
        ["tenants", "zones", "plans", "pools", "routes", "nodes", "revisions", "certificates", "audit", "tokens"];
    let roles = [
        ("super-admin", "tzplrnvcak", true, true),
        ("operator", "tzplrnvca", true, true),
        ("support", "tzplrnvc", false, true),
        ("auditor", "tzplrnvcak", false, false),
        ("tenant-admin", "tzp", false, true),
        ("tenant-viewer", "tzp", false, false),
    ];
    let letters = "tzplrnvcak";
    for (role, readable, writes_pools, writes_domains) in roles {
        let tenants = if role.starts_with("tenant") { json!([mine]) } else { json!([]) };
        let api = site.api_of(json!({"name": role, "role": role, "tenants": tenants})).await;
        for (path, letter) in reads.iter().zip(letters.chars()) {
            let expected = if readable.contains(letter) { 200 } else { 403 };
            assert_eq!(api.get(path).await.status, expected, "{role} reads {path}");
        }
        let status = api.patch("pools/shared", json!({"balance": "round_robin"})).await.status;
        assert_eq!(status, if writes_pools { 200 } else { 403 }, "{role} writes pools");
        let status = api.post("domains/erp.test/make-primary", json!({})).await.status;
        assert_eq!(status, if writes_domains { 200 } else { 403 }, "{role} writes domains");
        let makes_tokens = api.post("tokens?dry_run=true", json!({"name": "x", "role": "auditor"})).await.status;
        assert_eq!(makes_tokens, if role == "super-admin" { 200 } else { 403 }, "{role} makes tokens");
    }
    let admin = site.api_of(json!({"name": "head", "role": "tenant-admin", "tenants": [mine]})).await;
    let listed = admin.get("tenants").await.expect(200);
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1));
    let path = |tenant: &serde_json::Value| format!("tenants/{}", tenant["id"].as_str().expect("an id"));
    problem(admin.get(&path(&other)).await, 403, "FORBIDDEN");
    admin.patch(&path(&tenant), json!({"theme": {"primary_color": "#123456"}})).await.expect(200);
    problem(admin.patch(&path(&tenant), json!({"plan": "enterprise"})).await, 403, "FORBIDDEN");
    problem(admin.put(&path(&tenant), json!({"slug": "greenhill", "name": "x"})).await, 403, "FORBIDDEN");
    problem(admin.delete(&path(&tenant)).await, 403, "FORBIDDEN");
    problem(admin.post(&format!("{}/suspend", path(&tenant)), json!({})).await, 403, "FORBIDDEN");
    problem(admin.post("tenants", json!({"slug": "x", "name": "x"})).await, 403, "FORBIDDEN");
    let foreign = admin.post("domains", json!({"name": "x.test", "tenant": "riverside"})).await;
    problem(foreign, 403, "FORBIDDEN");
    admin.post("domains", json!({"name": "y.test", "tenant": "greenhill"})).await.expect(201);
    let domains = admin.get("domains").await.expect(200);
    assert_eq!(domains["items"].as_array().map(Vec::len), Some(2));
    problem(admin.get("domains?tenant=riverside").await, 403, "FORBIDDEN");
}

#[tokio::test]
async fn an_operator_token_does_not_open_the_feed_nor_a_node_token_the_api() {
    let site = Site::start().await;
    let node = std::fs::read_to_string(site.data.join("node.token")).expect("the token");
    problem(site.api.with_token(node.trim()).get("tenants").await, 401, "INVALID_TOKEN_FORMAT");
    let feed = "/internal/v1/feed?node=a&after=0";
    problem(site.api.get(feed).await, 401, "INVALID_TOKEN_FORMAT");
    problem(site.api.anonymous().get(feed).await, 401, "MISSING_TOKEN");
    assert_eq!(site.api.with_token(node.trim()).get(feed).await.status, 200);
}

#[tokio::test]
async fn the_first_start_makes_private_files_once() {
    use std::os::unix::fs::PermissionsExt;
    let site = Site::start().await;
    let read = |name: &str| std::fs::read_to_string(site.data.join(name)).expect("is there");
    let before = (read("admin.token"), read("node.token"), read("run/jwks.json"));
    for name in ["admin.token", "node.token"] {
        let mode = std::fs::metadata(site.data.join(name)).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    schoolgate_control_api::bootstrap(&site.store, &site.keeper, &site.data).await.expect("a second start");
    assert_eq!(before, (read("admin.token"), read("node.token"), read("run/jwks.json")));
    std::fs::remove_file(site.data.join("admin.token")).expect("removed");
    std::fs::remove_file(site.data.join("node.token")).expect("removed");
    schoolgate_control_api::bootstrap(&site.store, &site.keeper, &site.data).await.expect("a third start");
    assert!(!site.data.join("admin.token").exists(), "what was removed on purpose stays away");
    assert_ne!(read("node.token"), before.1);
}
