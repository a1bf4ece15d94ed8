//! Nothing is served without a tenant context that holds.

use axum::body::Body;
use axum::http::Method;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::site::{Gateway, Instance, RIVERSIDE, Site, claims, claims_with, now};

async fn refusal(claims: &Value) -> (u16, String) {
    let site = Site::new();
    let app = site.instance().await;
    app.get("/whoami", &site.gateway.sign(claims)).await.problem()
}

fn invalid() -> (u16, String) {
    (401, "INVALID_TOKEN".to_owned())
}

fn malformed() -> (u16, String) {
    (401, "INVALID_TOKEN_FORMAT".to_owned())
}

fn expired() -> (u16, String) {
    (401, "TOKEN_EXPIRED".to_owned())
}

async fn site_and_app() -> (Site, Instance) {
    let site = Site::new();
    let app = site.instance().await;
    (site, app)
}

#[tokio::test]
async fn a_request_that_did_not_pass_the_gateway_is_refused_on_every_path() {
    let (_site, app) = site_and_app().await;
    for path in [
        "/",
        "/students",
        "/classes",
        "/whoami",
        "/api/students",
        "/api/live",
        "/assets/app.css",
        "/theme.css",
        "/nothing",
    ] {
        assert_eq!(app.get_unsigned(path).await.problem(), (401, "MISSING_TOKEN".to_owned()), "{path}");
    }
}

#[tokio::test]
async fn the_probes_need_no_context() {
    let (_site, app) = site_and_app().await;
    assert_eq!(app.get_unsigned("/healthz").await.status, 200);
    assert_eq!(app.get_unsigned("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_refusal_repeats_the_request_id_and_says_nothing_of_our_insides() {
    let (_site, app) = site_and_app().await;
    let request = app.request(Method::GET, "/", None).header("X-Request-ID", "01JD00000000000000000000RQ");
    let answer = app.send(request.body(Body::empty()).unwrap()).await;
    let document = answer.json();
    assert_eq!(document["request_id"], "01JD00000000000000000000RQ");
    assert_eq!(document["status"], 401);
    assert!(document["message"].is_string());
}

#[tokio::test]
async fn whoami_shows_what_the_gateway_said() {
    let (site, app) = site_and_app().await;
    let request = app.request(Method::GET, "/whoami", Some(&site.greenhill())).header("X-Tenant-Plan", "basic");
    let shown = app.send(request.body(Body::empty()).unwrap()).await.json();
    assert_eq!(shown["tenant"], json!({"id": claims()["tenant_id"], "slug": "greenhill", "name": "Greenhill Academy"}));
    assert_eq!(shown["plan"], "basic");
    assert_eq!(shown["features"], json!(["advanced_reporting"]));
    assert_eq!(shown["limits"], claims()["limits"]);
    assert_eq!(shown["isolation"], "database");
    assert_eq!(shown["instance"], app.address.to_string());
    assert_eq!(shown["headers"]["x-tenant-plan"], "basic");
}

#[tokio::test]
async fn headers_do_not_say_who_the_tenant_is() {
    let (site, app) = site_and_app().await;
    let request = app.request(Method::GET, "/whoami", Some(&site.greenhill()));
    let request = request.header("X-Tenant-ID", RIVERSIDE).header("X-Tenant-Slug", "riverside");
    let shown = app.send(request.body(Body::empty()).unwrap()).await.json();
    assert_eq!(shown["tenant"]["slug"], "greenhill");
}

#[tokio::test]
async fn several_contexts_are_refused_even_if_each_holds() {
    let (site, app) = site_and_app().await;
    let token = site.greenhill();
    let request = app.request(Method::GET, "/whoami", Some(&token)).header("x-tenant-context", &token);
    assert_eq!(app.send(request.body(Body::empty()).unwrap()).await.problem(), malformed());
}

#[tokio::test]
async fn text_that_is_no_token_is_refused() {
    let (_site, app) = site_and_app().await;
    for token in ["", "x", "a.b.c", "e30.e30.", "....", &"x".repeat(20_000)] {
        let answer = app.get("/whoami", token).await;
        assert_eq!(answer.problem(), malformed(), "{token:?}");
    }
    let request = app.request(Method::GET, "/whoami", None).header("X-Tenant-Context", &b"caf\xe9"[..]);
    assert_eq!(app.send(request.body(Body::empty()).unwrap()).await.problem(), malformed());
}

#[tokio::test]
async fn only_eddsa_counts() {
    let (site, app) = site_and_app().await;
    for algorithm in ["none", "None", "HS256", "RS256", "ES256", "eddsa", ""] {
        let token = site.gateway.sign_with(&json!({"alg": algorithm, "kid": "k1"}), &claims());
        assert_eq!(app.get("/whoami", &token).await.problem(), invalid(), "{algorithm:?}");
    }
}

#[tokio::test]
async fn a_token_must_name_a_known_key() {
    let (site, app) = site_and_app().await;
    for header in [json!({"alg": "EdDSA"}), json!({"alg": "EdDSA", "kid": ""}), json!({"alg": "EdDSA", "kid": "k2"})] {
        let token = site.gateway.sign_with(&header, &claims());
        assert_eq!(app.get("/whoami", &token).await.problem(), invalid(), "{header}");
    }
}

#[tokio::test]
async fn critical_extensions_are_not_ignored() {
    let (site, app) = site_and_app().await;
    let token = site.gateway.sign_with(&json!({"alg": "EdDSA", "kid": "k1", "crit": ["b64"], "b64": false}), &claims());
    assert_eq!(app.get("/whoami", &token).await.problem(), invalid());
}

#[tokio::test]
async fn a_token_of_another_gateway_is_refused() {
    let (_site, app) = site_and_app().await;
    let token = Gateway::new("k1").sign(&claims());
    assert_eq!(app.get("/whoami", &token).await.problem(), invalid());
}

#[tokio::test]
async fn a_changed_token_is_refused_even_after_the_true_one_was_seen() {
    let (site, app) = site_and_app().await;
    let token = site.greenhill();
    assert_eq!(app.get("/whoami", &token).await.status, 200);
    let [header, _, signature] = token.split('.').collect::<Vec<_>>()[..] else { panic!("three parts") };
    let other = URL_SAFE_NO_PAD.encode(claims_with(json!({"slug": "riverside"})).to_string());
    assert_eq!(app.get("/whoami", &format!("{header}.{other}.{signature}")).await.problem(), invalid());
}

#[tokio::test]
async fn a_token_for_another_pool_is_refused() {
    assert_eq!(refusal(&claims_with(json!({"aud": "lincoln"}))).await, invalid());
    assert_eq!(refusal(&claims_with(json!({"aud": null}))).await, invalid());
}

#[tokio::test]
async fn an_instance_may_belong_to_several_pools() {
    let site = Site::new();
    let mut options = site.options();
    options.audiences.push("lincoln".to_owned());
    let app = Instance::start(options).await;
    let token = site.gateway.sign(&claims_with(json!({"aud": "lincoln"})));
    assert_eq!(app.get("/whoami", &token).await.status, 200);
}

#[tokio::test]
async fn a_token_of_another_issuer_is_refused() {
    assert_eq!(refusal(&claims_with(json!({"iss": "someone"}))).await, invalid());
}

#[tokio::test]
async fn a_token_counts_for_its_lifetime_and_five_seconds() {
    let (site, app) = site_and_app().await;
    let token = |exp: i64| site.gateway.sign(&claims_with(json!({"iat": exp - 60, "exp": exp})));
    assert_eq!(app.get("/whoami", &token(now() - 2)).await.status, 200);
    assert_eq!(app.get("/whoami", &token(now() - 6)).await.problem(), expired());
    assert_eq!(app.get("/whoami", &token(0)).await.problem(), expired());
}

#[tokio::test]
async fn a_token_that_was_accepted_is_refused_when_it_has_expired() {
    let (site, app) = site_and_app().await;
    let token = site.gateway.sign(&claims_with(json!({"exp": now() - 3})));
    assert_eq!(app.get("/whoami", &token).await.status, 200);
    crate::site::eventually("the token expired", async || app.get("/whoami", &token).await.status == 401).await;
    assert_eq!(app.get("/whoami", &token).await.problem(), expired());
}

#[tokio::test]
async fn a_token_from_the_future_is_refused() {
    let ahead = |seconds: i64| claims_with(json!({"iat": now() + seconds, "exp": now() + seconds + 60}));
    assert_eq!(refusal(&ahead(90)).await, invalid());
    let (site, app) = site_and_app().await;
    assert_eq!(app.get("/whoami", &site.gateway.sign(&ahead(30))).await.status, 200);
}

#[tokio::test]
async fn a_malformed_tenant_id_never_becomes_a_path() {
    for id in [
        "",
        "tnt_",
        "greenhill",
        "tnt_../../../../../etc/passwd",
        "tnt_01jd0000000000000000000001",
        "tnt_01JD000000000000000000000U",
    ] {
        assert_eq!(refusal(&claims_with(json!({"tenant_id": id, "sub": id}))).await, invalid(), "{id:?}");
    }
}

#[tokio::test]
async fn the_tenant_must_be_the_subject() {
    assert_eq!(refusal(&claims_with(json!({"sub": RIVERSIDE}))).await, invalid());
}

#[tokio::test]
async fn claims_that_are_missing_are_not_guessed() {
    for name in ["iss", "aud", "sub", "iat", "exp", "tenant_id", "slug", "name", "plan", "isolation"] {
        assert_eq!(refusal(&claims_with(json!({name: null}))).await, invalid(), "without {name}");
    }
}

#[tokio::test]
async fn claims_of_a_later_gateway_are_passed_over() {
    let (site, app) = site_and_app().await;
    let token =
        site.gateway.sign(&claims_with(json!({"region": "eu", "theme": null, "features": null, "limits": null})));
    assert_eq!(app.get("/", &token).await.status, 200);
}
