//! Issuers of tokens, and how their keys are read.

use schoolgate_config::model::TokenIssuer;
use schoolgate_testkit::{Answer, Origin, TokenSigner, eventually, until};
use serde_json::{Value, json};

use crate::site::{Site, WAIT, pointers, problem};

fn jwks(kids: &[&str]) -> Value {
    let keys: Vec<_> = kids.iter().map(|kid| TokenSigner::ed25519().jwk(kid)).collect();
    json!({ "keys": keys })
}

fn publish(idp: &Origin, kids: &[&str]) {
    idp.answer("/keys", Answer::new(200).body(jwks(kids).to_string()));
}

fn issuer(source: Value) -> Value {
    let mut body = json!({"id": "idp", "issuer": "https://id.example", "audiences": ["school"]});
    body.as_object_mut().expect("an object").extend(source.as_object().expect("an object").clone());
    body
}

async fn issuer_at(site: &Site, idp: &Origin) -> Value {
    site.api.post("token-issuers", issuer(json!({"jwks_url": format!("{}/keys", idp.url())}))).await.expect(201)
}

async fn kids(site: &Site) -> Vec<Value> {
    let issuer = site.api.get("token-issuers/idp").await.expect(200);
    issuer["keys"].as_array().expect("a list").iter().map(|key| key["kid"].clone()).collect()
}

#[tokio::test]
async fn an_issuer_lives_from_create_to_delete() {
    let (site, tenant) = Site::with_tenant("greenhill").await;
    let body = issuer(json!({"jwks": jwks(&["a"]), "tenant": "greenhill", "zone": "schools.test"}));
    let made = site.api.post("token-issuers", body).await;
    assert_eq!(made.header("location"), Some("/api/v1/token-issuers/idp"));
    let made = made.expect(201);
    assert_eq!((&made["tenant"], &made["tenant_slug"]), (&tenant["id"], &json!("greenhill")));
    assert_eq!(made["keys"], json!([{"kid": "a", "alg": "EdDSA"}]));
    assert_eq!(made["algorithms"], json!(["RS256", "ES256", "EdDSA"]));
    assert_eq!((&made["leeway_s"], &made["claims"]), (&json!(60), &json!(["tenantId", "tenant_id"])));
    assert_eq!((&made["fetched_at"], &made["last_error"]), (&Value::Null, &Value::Null));
    assert_eq!(site.api.get("token-issuers/idp").await.expect(200), made);
    let listed = site.api.get("token-issuers?tenant=greenhill").await.expect(200);
    assert_eq!(listed["items"], json!([made]));

    let patched = site.api.patch("token-issuers/idp", json!({"leeway_s": 5, "zone": null})).await.expect(200);
    assert_eq!((&patched["leeway_s"], &patched["zone"], &patched["keys"]), (&json!(5), &Value::Null, &made["keys"]));
    let back = site.api.put("token-issuers/idp", patched.clone()).await.expect(200);
    assert_eq!(back["jwks"], made["jwks"], "what was read can come back");

    problem(site.api.post("token-issuers", issuer(json!({"jwks": jwks(&["a"])}))).await, 409, "TOKEN_ISSUER_EXISTS");
    let mut twin = issuer(json!({"jwks": jwks(&["a"])}));
    twin["id"] = json!("twin");
    let taken = problem(site.api.post("token-issuers", twin).await, 409, "TOKEN_ISSUER_EXISTS");
    assert_eq!(pointers(&taken), ["/issuer"]);
    problem(site.api.delete("tenants/slug:greenhill").await, 409, "IN_USE");
    assert_eq!(site.api.delete("token-issuers/idp").await.status, 204);
    problem(site.api.get("token-issuers/idp").await, 404, "NOT_FOUND");
    let audit = site.api.get("audit?object=token%20issuer%20idp").await.expect(200);
    let actions: Vec<_> = audit["items"].as_array().expect("lines").iter().map(|line| line["action"].clone()).collect();
    assert_eq!(actions, ["token_issuer.delete", "token_issuer.replace", "token_issuer.update", "token_issuer.create"]);
}

#[tokio::test]
async fn everything_wrong_with_an_issuer_is_named_by_its_place() {
    let site = Site::start().await;
    let refused =
        async |body: Value| pointers(&problem(site.api.post("token-issuers", body).await, 422, "VALIDATION_FAILED"));
    let bad = json!({
        "id": "No name", "issuer": "", "audiences": [1], "algorithms": ["none", "HS256"], "jwks_url": "http://id.example/",
        "leeway_s": -1, "zone": "nowhere.test", "claims": [""], "key": 1,
    });
    assert_eq!(
        refused(bad).await,
        [
            "/algorithms/0",
            "/algorithms/1",
            "/audiences/0",
            "/claims/0",
            "/id",
            "/issuer",
            "/jwks_url",
            "/key",
            "/leeway_s",
            "/zone"
        ]
    );
    assert_eq!(refused(issuer(json!({}))).await, ["/jwks"]);
    let both = json!({"jwks": jwks(&["a"]), "jwks_url": "https://id.example/keys"});
    assert_eq!(refused(issuer(both)).await, ["/jwks_url"]);
    assert_eq!(refused(issuer(json!({"jwks_file": "keys.json"}))).await, ["/jwks_file"]);
    let unfit = json!({"jwks": jwks(&["a"]), "algorithms": ["RS256"], "leeway_s": 301, "tenant": "nobody"});
    assert_eq!(refused(issuer(unfit)).await, ["/algorithms", "/leeway_s", "/tenant"]);
    let mut private = jwks(&["a"]);
    private["keys"][0]["d"] = json!("c2VjcmV0");
    let answer = site.api.post("token-issuers", issuer(json!({"jwks": private}))).await;
    assert!(!answer.text.contains("c2VjcmV0"), "{}", answer.text);
    assert_eq!(pointers(&problem(answer, 422, "VALIDATION_FAILED")), ["/jwks"]);
    problem(site.api.post("token-issuers/nobody/refresh", json!({})).await, 404, "NOT_FOUND");
}

#[tokio::test]
async fn keys_are_fetched_by_themselves_and_when_somebody_asks() {
    let (site, idp) = (Site::start().await, Origin::start().await);
    publish(&idp, &["a"]);
    issuer_at(&site, &idp).await;
    eventually(WAIT, || async { kids(&site).await == ["a"] }).await;
    let fetched = site.api.get("token-issuers/idp").await.expect(200);
    assert!(fetched["fetched_at"].is_string() && fetched["last_error"].is_null(), "{fetched}");

    publish(&idp, &["a", "b"]);
    let asked = site.api.post("token-issuers/idp/refresh", json!({})).await.expect(200);
    assert_eq!(asked["keys"].as_array().map(Vec::len), Some(2), "{asked}");
    assert_eq!(kids(&site).await, ["a", "b"]);
    let again = site.api.post("token-issuers/idp/refresh", json!({})).await;
    assert!(again.header("retry-after").and_then(|s| s.parse::<u32>().ok()).is_some_and(|s| (1..=10).contains(&s)));
    problem(again, 429, "RATE_LIMITED");
    let audit = site.api.get("audit?object=token%20issuer%20idp").await.expect(200);
    assert_eq!(audit["items"][0]["action"], "token_issuer.refresh");
    assert_eq!(audit["items"][0]["summary"], json!({"keys": {"from": ["a"], "to": ["a", "b"]}}));
    assert_eq!(
        (&audit["items"][1]["action"], &audit["items"][1]["actor"]),
        (&json!("token_issuer.keys"), &json!("token-keys"))
    );
}

#[tokio::test]
async fn reading_the_same_keys_again_is_no_change() {
    let (site, idp) = (Site::start().await, Origin::start().await);
    idp.answer("/keys", Answer::new(200).body(jwks(&["a"]).to_string()));
    issuer_at(&site, &idp).await;
    eventually(WAIT, || async { kids(&site).await == ["a"] }).await;
    let before = site.api.get("token-issuers/idp").await.expect(200);
    let after = site.api.post("token-issuers/idp/refresh", json!({})).await.expect(200);
    assert_eq!(after["version"], before["version"]);
}

#[tokio::test]
async fn what_was_wrong_is_said_and_the_old_keys_stay() {
    let elsewhere = Origin::start().await;
    publish(&elsewhere, &["evil"]);
    let redirect = Answer::new(302).header("location", &format!("{}/keys", elsewhere.url()));
    let cases = [
        (Answer::new(500), 502, "KEYS_UNREACHABLE", "answered 500"),
        (redirect, 502, "KEYS_UNREACHABLE", "redirects to another host"),
        (Answer::new(200).body("<html>secret"), 502, "KEYS_NOT_JSON", "line 1"),
        (Answer::new(200).body(r#"{"keys": []}"#), 502, "NO_USABLE_KEY", "the set is empty"),
        (Answer::new(200).body(vec![b' '; 300 << 10]), 502, "KEYS_TOO_LARGE", "262144"),
    ];
    let site = Site::start().await;
    for (n, (answer, status, code, says)) in cases.into_iter().enumerate() {
        let idp = Origin::start().await;
        publish(&idp, &["a"]);
        let id = format!("idp-{n}");
        let path = format!("token-issuers/{id}");
        let body = json!({"id": id, "issuer": id, "jwks_url": format!("{}/keys", idp.url())});
        site.api.post("token-issuers", body).await.expect(201);
        until(WAIT, async || (site.api.get(&path).await.json["keys"][0]["kid"] == "a").then_some(())).await;
        idp.answer("/keys", answer);
        let refused = problem(site.api.post(&format!("{path}/refresh"), json!({})).await, status, code);
        let message = refused["message"].as_str().expect("text");
        assert!(message.contains(says) && !message.contains("secret"), "{message}");
        let shown = site.api.get(&path).await.expect(200);
        assert!(shown["last_error"].as_str().is_some_and(|error| error.contains(says)), "{shown}");
        assert!(shown["fetched_at"].is_string() && shown["failures"] == 1 && shown["keys"][0]["kid"] == "a", "{shown}");
    }
    assert_eq!(elsewhere.requests(), 0, "nobody was sent elsewhere");
}

#[tokio::test]
async fn keys_come_from_a_file_and_never_from_what_is_none() {
    let site = Site::start().await;
    let file = site.data.join("keys.json");
    std::fs::write(&file, jwks(&["a"]).to_string()).expect("written");
    site.api.post("token-issuers", issuer(json!({"jwks_file": file}))).await.expect(201);
    eventually(WAIT, || async { kids(&site).await == ["a"] }).await;
    std::fs::write(&file, "\"the password\"").expect("written");
    let answer = site.api.post("token-issuers/idp/refresh", json!({})).await;
    assert!(!answer.text.contains("password"), "a file that is something else is not read out: {}", answer.text);
    problem(answer, 502, "KEYS_NOT_JSON");
    // The new source is read at once; until it has answered, the keys are those of the old.
    site.api.patch("token-issuers/idp", json!({"jwks_file": "/dev/zero"})).await.expect(200);
    let failed = async || {
        let shown = site.api.get("token-issuers/idp").await.expect(200);
        shown["last_error"].as_str().is_some_and(|error| error.contains("is not a file")).then_some(shown)
    };
    assert_eq!(until(WAIT, failed).await["keys"][0]["kid"], "a");
    let inline = json!({"jwks_file": null, "jwks": jwks(&["b"])});
    assert_eq!(site.api.patch("token-issuers/idp", inline).await.expect(200)["keys"][0]["kid"], "b");
    problem(site.api.post("token-issuers/idp/refresh", json!({})).await, 409, "KEYS_GIVEN");
    let other = json!({"issuer": "https://other.example", "jwks": null, "jwks_file": "/nowhere/keys.json"});
    let other = site.api.patch("token-issuers/idp", other).await.expect(200);
    assert_eq!(other["keys"], json!([]), "another issuer begins without keys");
}

#[tokio::test]
async fn keys_travel_to_proxies_and_only_some_roles_change_them() {
    let (site, idp) = (Site::start().await, Origin::start().await);
    let _node = site.node("n1");
    publish(&idp, &["a"]);
    issuer_at(&site, &idp).await;
    eventually(WAIT, || async {
        let table = site.publisher.table();
        table.issuers().next().is_some_and(|issuer: &std::sync::Arc<TokenIssuer>| issuer.keys.keys().len() == 1)
    })
    .await;
    for (role, reads) in [("support", true), ("auditor", true)] {
        let api = site.api_of(json!({"name": role, "role": role})).await;
        assert_eq!(api.get("token-issuers").await.status == 200, reads, "{role}");
        problem(api.post("token-issuers/idp/refresh", json!({})).await, 403, "FORBIDDEN");
        problem(api.delete("token-issuers/idp").await, 403, "FORBIDDEN");
    }
}
