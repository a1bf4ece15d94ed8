//! The shared host of a zone over real sockets: who selects a school there, and what a backend then sees.

use schoolgate_config::model::{TokenIssuer, Zone};
use schoolgate_config::snapshot::Object;
use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_testkit::{Http, Origin, RawResponse, TokenSigner};
use serde_json::{Value, json};

use crate::site::{Site, given, object};

const SHARED: &str = "api.school.test";

fn zone(change: Value) -> Object {
    let mut value = json!({"name": "school.test", "shared_host": SHARED});
    value.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    object::<Zone>(value)
}

fn trusting() -> Object {
    zone(json!({"trusted_callers": ["127.0.0.1/32"]}))
}

fn issuer(signer: &TokenSigner) -> Object {
    object::<TokenIssuer>(json!({
        "id": "idp", "issuer": "https://id.example", "audiences": ["school"], "source": "inline",
        "keys": {"keys": [signer.jwk("k")]},
    }))
}

/// Claims of a good token, with some changed (`null` takes one out).
fn claims(change: Value) -> Value {
    let now = SystemClock.unix_ms() / 1_000;
    let mut claims =
        json!({"iss": "https://id.example", "aud": "school", "iat": now, "exp": now + 300, "tenantId": "greenhill"});
    claims.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    claims
}

async fn ask(site: &Site, host: &str, target: &str, fields: &str) -> RawResponse {
    let mut connection = site.raw(host).await;
    connection.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).await.unwrap();
    connection.read_response().await.unwrap()
}

fn said(answer: &RawResponse) -> (u16, Option<String>) {
    let error = (answer.status >= 400).then(|| answer.json()["error"].as_str().unwrap().to_owned());
    (answer.status, error)
}

fn refused(status: u16, error: &str) -> (u16, Option<String>) {
    (status, Some(error.to_owned()))
}

#[tokio::test]
async fn a_trusted_caller_selects_by_header_and_query_over_both_protocols() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).object(trusting()).start().await;
    for http in [Http::One, Http::Two] {
        let visitor = site.visitor(SHARED, http);
        for (path, name, value) in [
            ("/grades?a=%20b", "x-tenant-id", "riverside"),
            ("/grades?a=%20b", "x-tenant-id", "tnt_01ARZ3NDEKTSV4RRFFQ69G5FAW"),
            ("/grades?a=%20b", "x-tenant-slug", "riverside"),
            ("/grades?a=%20b&tenantId=riverside", "x-other", "1"),
            ("/grades?tenant=riverside&a=%20b", "x-tenant-slug", "riverside"),
        ] {
            let answer = visitor.request(reqwest::Method::GET, path).header(name, value).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{path} {name}: {value}");
            let seen = origin.last();
            assert_eq!(seen.header_all("x-tenant-slug"), ["riverside"]);
            assert_eq!(
                (seen.path.as_str(), seen.query.as_deref()),
                ("/grades", Some("a=%20b")),
                "what selected is gone"
            );
            assert!(seen.header("host").unwrap().starts_with(SHARED));
        }
    }
    assert_eq!(ask(&site, SHARED, "/?tenant=riverside", "").await.status, 200);
    assert_eq!(origin.last().query, None);
}

#[tokio::test]
async fn a_stranger_selects_nobody() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).object(zone(json!({"trusted_callers": ["10.0.0.0/8"]}))).start().await;
    for (target, fields) in [
        ("/", ""),
        ("/", "X-Tenant-ID: greenhill\r\n"),
        ("/", "X-Tenant-Slug: greenhill\r\n"),
        ("/?tenant=greenhill", ""),
        ("/", "X-Tenant-ID: greenhill\r\nX-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\n"),
        ("/t/greenhill/", ""),
    ] {
        let answer = ask(&site, SHARED, target, fields).await;
        assert_eq!(said(&answer), refused(400, "TENANT_NOT_FOUND"), "{target} {fields}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn what_disagrees_or_names_nobody_reaches_no_backend() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).object(trusting()).start().await;
    for (target, fields, status, error) in [
        ("/", "X-Tenant-ID: greenhill\r\nX-Tenant-ID: riverside\r\n", 403, "TENANT_MISMATCH"),
        ("/", "X-Tenant-ID: greenhill\r\nX-Tenant-Slug: riverside\r\n", 403, "TENANT_MISMATCH"),
        ("/?tenant=riverside", "X-Tenant-ID: greenhill\r\n", 403, "TENANT_MISMATCH"),
        ("/?tenant=greenhill&tenantId=riverside", "", 403, "TENANT_MISMATCH"),
        ("/", "X-Tenant-ID: greenhill, riverside\r\n", 404, "TENANT_NOT_ACTIVE"),
        ("/", "X-Tenant-ID: nosuch\r\n", 404, "TENANT_NOT_ACTIVE"),
        ("/", "X_Tenant_ID: greenhill\r\n", 400, "TENANT_NOT_FOUND"),
        ("/", "X-Tenant-ID:\r\n", 400, "TENANT_NOT_FOUND"),
    ] {
        let answer = ask(&site, SHARED, target, fields).await;
        assert_eq!(said(&answer), refused(status, error), "{target} {fields}");
    }
    // A field that goes on in the next line is refused before anybody reads it.
    assert_eq!(ask(&site, SHARED, "/", "X-Tenant-ID: greenhill\r\n riverside\r\n").await.status, 400);
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_token_of_each_algorithm_selects_its_school() {
    let origin = Origin::start().await;
    for signer in TokenSigner::each() {
        let site = given([origin.url()]).object(zone(json!({}))).object(issuer(&signer)).start().await;
        let token = signer.token("k", &claims(json!({})));
        for http in [Http::One, Http::Two] {
            let visitor = site.visitor(SHARED, http);
            // The second time it is remembered.
            for _ in 0..2 {
                let answer = visitor.request(reqwest::Method::GET, "/x").bearer_auth(&token).send().await.unwrap();
                assert_eq!(answer.status(), 200, "{}", signer.alg());
                assert_eq!(origin.last().header_all("x-tenant-slug"), ["greenhill"]);
                assert!(origin.last().header("authorization").is_some(), "the backend's own check goes on");
            }
        }
    }
}

#[tokio::test]
async fn a_token_that_is_not_good_is_refused_and_says_why() {
    let origin = Origin::start().await;
    let (signer, other) = (TokenSigner::ed25519(), TokenSigner::ed25519());
    let site = given([origin.url()]).object(trusting()).object(issuer(&signer)).start().await;
    let now = SystemClock.unix_ms() / 1_000;
    let good = claims(json!({}));
    let header = |alg: &str| json!({"alg": alg, "kid": "k"});
    for (token, error) in [
        (other.token("k", &good), "INVALID_TOKEN"),
        (signer.token("unknown", &good), "INVALID_TOKEN"),
        (signer.sign(&header("none"), &good), "INVALID_TOKEN"),
        (signer.sign(&header("HS256"), &good), "INVALID_TOKEN"),
        (signer.token("k", &claims(json!({"aud": "elsewhere"}))), "INVALID_TOKEN"),
        (signer.token("k", &claims(json!({"exp": null}))), "INVALID_TOKEN"),
        (signer.token("k", &claims(json!({"nbf": now + 600}))), "INVALID_TOKEN"),
        (signer.token("k", &claims(json!({"exp": now - 600}))), "TOKEN_EXPIRED"),
    ] {
        let field = format!("Authorization: Bearer {token}\r\n");
        let with_header = format!("{field}X-Tenant-ID: greenhill\r\n");
        for (host, fields) in [(SHARED, &field), (SHARED, &with_header), ("greenhill.school.test", &field)] {
            let answer = ask(&site, host, "/", fields).await;
            assert_eq!(said(&answer), refused(401, error), "{host} {token}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer error=\"invalid_token\""));
        }
    }
    let opaque = "Authorization: Bearer opaque\r\n";
    assert_eq!(said(&ask(&site, SHARED, "/", opaque).await), refused(401, "INVALID_TOKEN_FORMAT"));
    let twice = format!("Authorization: Bearer {0}\r\nAuthorization: Bearer {0}\r\n", signer.token("k", &good));
    assert!(matches!(ask(&site, SHARED, "/", &twice).await.status, 400 | 401));
    let dead = format!("Authorization: Bearer {}\r\n", signer.token("k", &claims(json!({"tenantId": "nosuch"}))));
    assert_eq!(said(&ask(&site, SHARED, "/", &dead).await), refused(403, "TENANT_NOT_ACTIVE"));
    assert_eq!(origin.requests(), 0);
    site.change([zone(json!({"require_token": true}))]);
    assert_eq!(said(&ask(&site, SHARED, "/", "").await), refused(401, "MISSING_TOKEN"));
}

#[tokio::test]
async fn a_token_never_takes_the_place_of_the_host() {
    let origin = Origin::start().await;
    let signer = TokenSigner::p256();
    let site = given([origin.url()]).object(issuer(&signer)).start().await;
    let field = |change| format!("Authorization: Bearer {}\r\n", signer.token("k", &claims(change)));
    let answer = ask(&site, "riverside.school.test", "/", &field(json!({}))).await;
    assert_eq!(said(&answer), refused(403, "TENANT_MISMATCH"));
    assert_eq!(origin.requests(), 0);
    for fields in [
        field(json!({"tenantId": "riverside"})),
        field(json!({"tenantId": null})),
        field(json!({"iss": "https://other.example"})),
        "Authorization: Bearer opaque\r\n".to_owned(),
        "Authorization: Basic YTpi\r\n".to_owned(),
    ] {
        assert_eq!(ask(&site, "riverside.school.test", "/", &fields).await.status, 200, "{fields}");
        assert_eq!(origin.last().header("x-tenant-slug"), Some("riverside"));
    }
}

#[tokio::test]
async fn a_path_selects_where_the_zone_says_so() {
    let origin = Origin::start().await;
    for backend in [origin.url(), origin.h2c_url()] {
        let site = given([backend]).object(zone(json!({"path_prefix": true}))).start().await;
        for http in [Http::One, Http::Two] {
            let visitor = site.visitor(SHARED, http);
            for (path, seen_path) in [("/t/greenhill/grades/1?x=2", "/grades/1"), ("/t/greenhill?x=2", "/")] {
                let request = visitor.request(reqwest::Method::GET, path).header("x-forwarded-prefix", "/forged");
                assert_eq!(request.send().await.unwrap().status(), 200, "{path}");
                let seen = origin.last();
                assert_eq!((seen.path.as_str(), seen.query.as_deref()), (seen_path, Some("x=2")));
                assert_eq!(seen.header_all("x-forwarded-prefix"), ["/t/greenhill"]);
                assert_eq!(seen.header_all("x-tenant-slug"), ["greenhill"]);
            }
        }
        let before = origin.requests();
        for (target, fields, status) in [
            ("/grades", "", 400),
            ("/t/nosuch/", "", 404),
            ("/t/greenhill/", "X-Tenant-ID: riverside\r\n", 403),
            ("/t/greenhill//evil.example/", "", 400),
        ] {
            assert_eq!(ask(&site, SHARED, target, fields).await.status, status, "{target}");
        }
        assert_eq!(origin.requests(), before);
        assert_eq!(ask(&site, "riverside.school.test", "/t/greenhill/x", "").await.status, 200);
        assert_eq!(origin.last().path, "/t/greenhill/x", "on its own host the path is the school's");
    }
}
