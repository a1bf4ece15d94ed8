//! Who is asking: names are matched on labels, and two names of one request must agree.

use reqwest::Method;
use schoolgate_testkit::{Client, Http, Origin, Site, eventually};
use serde_json::{Value, json};

use crate::{SOON, gateway, gateway_with, pool, school};

#[tokio::test]
async fn a_domain_added_by_the_api_serves_within_the_wait() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let domain =
        site.api().post("domains?wait=applied", json!({"name": "erp.ash.test", "tenant": "ash"})).await.expect(201);
    assert_eq!(domain["ready"], true, "{domain}");
    assert_eq!(domain["blocking"], json!([]));
    for http in [Http::One, Http::Two] {
        let answer = site.client_with("erp.ash.test", http).get("/hello").await;
        assert_eq!(answer.status(), 200);
    }
    assert_eq!(origin.last().header("x-tenant-slug"), Some("ash"));
    assert_eq!(
        origin.last().header("host").map(|h| h.split(':').next().unwrap_or_default().to_owned()),
        Some("erp.ash.test".to_owned())
    );
}

#[tokio::test]
async fn a_removed_domain_stops_being_served() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    site.api().post("domains?wait=applied", json!({"name": "erp.ash.test", "tenant": "ash"})).await.expect(201);
    assert_eq!(site.client("erp.ash.test").get("/").await.status(), 200);
    let gone = site.api().delete("domains/erp.ash.test?wait=applied").await;
    assert!(matches!(gone.status, 200 | 204), "{}", gone.text);
    assert!(site.client("erp.ash.test").try_get("/").await.is_err(), "the handshake must be refused");
}

#[tokio::test]
async fn a_name_whose_ownership_is_unproven_is_never_routed() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let domain = site
        .api()
        .post("domains?wait=applied&timeout=2", json!({"name": "www.somebody-else.com", "tenant": "ash"}))
        .await
        .expect(201);
    assert_eq!((&domain["ready"], &domain["ownership"]), (&json!(false), &json!("unproven")), "{domain}");
    assert!(!domain["blocking"].as_array().expect("a list").is_empty());
    let records = domain["records"].as_array().expect("a list");
    assert!(
        records.iter().any(|r| r["type"] == "TXT" && r["name"] == "_schoolgate.www.somebody-else.com"),
        "{records:?}"
    );
    let answer = site.plain_client("www.somebody-else.com").get("/").await;
    assert_eq!(answer.status(), 404);
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn sni_and_host_of_different_tenants_are_421() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    school(&site.api(), "birch", "web").await;
    let mut tls = site.tls("ash.localhost").await.expect("a handshake");
    let answer = tls.get("birch.localhost", "/").await.expect("an answer");
    assert_eq!(answer.status, 421);
    assert_eq!(answer.json()["error"], "MISDIRECTED");
    let h2 = site
        .client_with("ash.localhost", Http::Two)
        .request(Method::GET, "/")
        .header("host", "birch.localhost")
        .send()
        .await;
    assert!(h2.is_err() || h2.is_ok_and(|r| r.status() != 200), "h2 must not cross either");
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn an_unknown_host_is_404_whatever_the_handshake_named() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    for host in [
        "nosuch.localhost",
        "ash.localhost.evil.example",
        "a.ash.localhost",
        "ash.attacker.example",
        "localhost",
        "ash.notlocalhost",
    ] {
        let mut tls = site.tls("ash.localhost").await.expect("a handshake");
        let answer = tls.get(host, "/").await.expect("an answer");
        assert_eq!((answer.status, &answer.json()["error"]), (404, &json!("TENANT_NOT_ACTIVE")), "{host}");
        let answer = site.plain_client(host).get("/").await;
        assert_eq!(answer.status(), 404, "{host} on plain HTTP");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn hosts_are_normalised_before_they_are_matched() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    for host in ["ASH.LocalHost", "ash.localhost.", "ash.localhost:8443"] {
        let mut tls = site.tls("ash.localhost").await.expect("a handshake");
        assert_eq!(tls.get(host, "/").await.expect("an answer").status, 200, "{host}");
    }
    for host in ["ash.localhost:0", "ash.localhost:99999", "user@ash.localhost", "ash_localhost", "127.0.0.1"] {
        let mut tls = site.tls("ash.localhost").await.expect("a handshake");
        let answer = tls.get(host, "/").await.expect("an answer");
        assert_eq!((answer.status, &answer.json()["error"]), (400, &json!("BAD_REQUEST")), "{host}");
    }
}

#[tokio::test]
async fn identity_is_never_taken_from_the_client() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let head = "GET / HTTP/1.1\r\nHost: ash.localhost\r\nX-Tenant-ID: ash\r\nx-tenant-slug: ash\r\nX-Tenant-Slug: ash\r\n\
                X_Tenant_ID: twin\r\nX-TENANT-CONTEXT: forged\r\nX-Tenant-Plan: enterprise\r\nX-Subdomain: birch\r\n\
                X-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\nX-Request-ID: mine-1\r\n\
                Connection: keep-alive, x-debug\r\nX-Debug: 1\r\n\r\n";
    let mut tls = site.tls("ash.localhost").await.expect("a handshake");
    tls.send(head).await.expect("sent");
    let answer = tls.read_response().await.expect("an answer");
    assert_eq!(answer.status, 200, "what agrees is replaced, what is not an identifier is dropped");
    let seen = origin.last();
    let tenant = site.api().get("tenants/slug:ash").await.expect(200);
    assert_eq!(seen.header_all("x-tenant-id"), [tenant["id"].as_str().expect("an id")]);
    assert_eq!(seen.header_all("x-tenant-slug"), ["ash"]);
    assert_eq!(seen.header_all("x-subdomain"), ["ash"]);
    assert_eq!(seen.header_all("x-tenant-plan"), ["custom"]);
    assert_eq!(seen.header_all("x-tenant-context").len(), 1);
    assert_ne!(seen.header("x-tenant-context"), Some("forged"));
    assert!(seen.header("x_tenant_id").is_none() && seen.header("x-debug").is_none());
    assert_eq!(seen.header_all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    assert!(!seen.header("forwarded").unwrap_or_default().contains("203.0.113.9"));
    assert_eq!(seen.header("x-client-request-id"), Some("mine-1"));
    assert_eq!(seen.header("x-request-id"), answer.header("x-request-id"));
    assert_eq!(answer.header("x-request-id").map(str::len), Some(26), "a ULID");
    assert!(seen.header("traceparent").is_some_and(|t| t.len() == 55), "{:?}", seen.header("traceparent"));
}

#[tokio::test]
async fn messages_that_two_parsers_could_read_differently_never_reach_a_backend() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    for head in [
        "POST / HTTP/1.1\r\nHost: ash.localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: ash.localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "GET / HTTP/1.1\r\nHost: ash.localhost\r\nHost: birch.localhost\r\n\r\n",
        "GET / HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: ash.localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "GET https://birch.localhost/ HTTP/1.1\r\nHost: ash.localhost\r\n\r\n",
        "TRACE / HTTP/1.1\r\nHost: ash.localhost\r\n\r\n",
        "CONNECT ash.localhost:443 HTTP/1.1\r\nHost: ash.localhost\r\n\r\n",
    ] {
        let mut tls = site.tls("ash.localhost").await.expect("a handshake");
        tls.send(head).await.expect("sent");
        match tls.read_response().await {
            Ok(answer) => {
                assert!((400..500).contains(&answer.status) || answer.status == 501, "{head:?}: {}", answer.status)
            }
            Err(e) => assert!(
                e.kind() == std::io::ErrorKind::UnexpectedEof || e.kind() == std::io::ErrorKind::ConnectionReset,
                "{head:?}: {e}"
            ),
        }
    }
    assert_eq!(origin.requests(), 0, "{:?}", origin.seen());
}

#[tokio::test]
async fn a_suspended_and_a_maintained_tenant_get_their_answers() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let api = site.api();
    let client = site.client("ash.localhost");
    let steps = [
        ("suspend", 403, "TENANT_SUSPENDED"),
        ("resume", 200, ""),
        ("maintenance", 503, "TENANT_MAINTENANCE"),
        ("resume", 200, ""),
    ];
    for (action, status, error) in steps {
        let body = json!({"reason": "a test"});
        api.post(&format!("tenants/slug:ash/{action}?wait=applied"), body).await.expect(200);
        let answer = client.get("/").await;
        assert_eq!(answer.status(), status, "{action}");
        if status == 503 {
            assert!(answer.headers().contains_key("retry-after"));
        }
        if status != 200 {
            let body: serde_json::Value = serde_json::from_str(&answer.text().await.expect("a body")).expect("JSON");
            assert_eq!(body["error"], error);
            assert!(!body.to_string().contains("a test"), "the reason is for operators");
        }
    }
}

#[tokio::test]
async fn a_request_goes_to_the_pool_of_its_own_tenant() {
    let (one, two) = (Origin::named("one").await, Origin::named("two").await);
    let site = gateway_with(&[&one]).await;
    pool(&site.api(), "other", &[&two]).await;
    school(&site.api(), "birch", "other").await;
    for (slug, name) in [("ash", "one"), ("birch", "two"), ("ash", "one")] {
        assert_eq!(site.client(&format!("{slug}.localhost")).get_json("/").await["origin"], name);
    }
    let route = json!({"tenant": "ash", "match": {"path_prefix": "/api/"}, "action": {"pool": "other"}});
    site.api().post("routes?wait=applied", route).await.expect(201);
    let ash = site.client("ash.localhost");
    assert_eq!(ash.get_json("/api/x").await["origin"], "two");
    assert_eq!(ash.get_json("/apix").await["origin"], "one");
}

/// A zone with a shared host, served with a certificate.
async fn shared_host(site: &Site, change: Value) {
    let mut zone = json!({"name": "schools.test", "shared_host": "api.schools.test"});
    zone.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
    site.api().post("zones?wait=applied", zone).await.expect(201);
    eventually(SOON, || async { site.tls("api.schools.test").await.is_ok() }).await;
}

/// Asks the shared host with bytes written by hand; the status, and the code if it is an error.
async fn ask(site: &Site, host: &str, target: &str, fields: &str) -> (u16, Option<String>) {
    let mut tls = site.tls(host).await.expect("a handshake");
    tls.send(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).await.expect("sent");
    let answer = tls.read_response().await.expect("an answer");
    let error = (answer.status >= 400).then(|| answer.json()["error"].as_str().expect("a code").to_owned());
    (answer.status, error)
}

fn refused(status: u16, error: &str) -> (u16, Option<String>) {
    (status, Some(error.to_owned()))
}

#[tokio::test]
async fn on_a_shared_host_a_trusted_caller_says_which_school() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    school(&site.api(), "birch", "web").await;
    shared_host(&site, json!({"trusted_callers": ["127.0.0.1/32"]})).await;
    let birch = site.api().get("tenants/slug:birch").await.expect(200)["id"].as_str().expect("an id").to_owned();
    for fields in
        [format!("X-Tenant-ID: {birch}\r\n"), "x-tenant-id: birch\r\n".into(), "X-Tenant-Slug: birch\r\n".into()]
    {
        assert_eq!(ask(&site, "api.schools.test", "/x?page=2", &fields).await, (200, None), "{fields}");
        assert_eq!(origin.last().header_all("x-tenant-id"), [birch.as_str()]);
        assert_eq!(origin.last().query.as_deref(), Some("page=2"));
    }
    assert_eq!(ask(&site, "api.schools.test", "/x?tenant=birch&page=2", "").await, (200, None));
    assert_eq!(origin.last().query.as_deref(), Some("page=2"), "the tenant is taken out");
    let before = origin.requests();
    for (target, fields, answer) in [
        ("/", "", refused(400, "TENANT_NOT_FOUND")),
        ("/", "X-Tenant-ID: nosuch\r\n", refused(404, "TENANT_NOT_ACTIVE")),
        ("/", "X-Tenant-ID: ash\r\nX-Tenant-ID: birch\r\n", refused(403, "TENANT_MISMATCH")),
        ("/?tenant=birch", "X-Tenant-ID: ash\r\n", refused(403, "TENANT_MISMATCH")),
        ("/", "X-Tenant-ID: ash\r\n\tbirch\r\n", refused(400, "BAD_REQUEST")),
        ("/", "X_Tenant_ID: ash\r\n", refused(400, "TENANT_NOT_FOUND")),
        ("/t/ash/", "", refused(400, "TENANT_NOT_FOUND")),
    ] {
        assert_eq!(ask(&site, "api.schools.test", target, fields).await, answer, "{target} {fields}");
    }
    assert_eq!(origin.requests(), before);
}

#[tokio::test]
async fn on_a_shared_host_a_stranger_chooses_no_school() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    shared_host(&site, json!({"trusted_callers": ["10.0.0.0/8"]})).await;
    for (target, fields) in [
        ("/", "X-Tenant-ID: ash\r\n"),
        ("/", "X-Tenant-Slug: ash\r\nX-Forwarded-For: 10.0.0.1\r\n"),
        ("/?tenant=ash", ""),
    ] {
        let answer = ask(&site, "api.schools.test", target, fields).await;
        assert_eq!(answer, refused(400, "TENANT_NOT_FOUND"), "{target} {fields}");
    }
    let forged = "Authorization: Bearer eyJhbGciOiJub25lIn0.eyJ0ZW5hbnRJZCI6ImFzaCJ9.\r\n";
    assert_eq!(ask(&site, "api.schools.test", "/", forged).await, refused(401, "INVALID_TOKEN"));
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn on_a_shared_host_a_path_names_a_school_where_the_zone_says_so() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    shared_host(&site, json!({"path_prefix": true})).await;
    assert_eq!(ask(&site, "api.schools.test", "/t/ash/grades?x=1", "").await, (200, None));
    let seen = origin.last();
    assert_eq!((seen.path.as_str(), seen.query.as_deref()), ("/grades", Some("x=1")));
    assert_eq!((seen.header("x-forwarded-prefix"), seen.header("x-tenant-slug")), (Some("/t/ash"), Some("ash")));
    assert_eq!(ask(&site, "api.schools.test", "/t/nosuch/", "").await, refused(404, "TENANT_NOT_ACTIVE"));
    let zone = site.api().patch("zones/schools.test?wait=applied", json!({"path_prefix": false})).await.expect(200);
    assert_eq!(zone["path_prefix"], Value::Null, "{zone}");
    assert_eq!(ask(&site, "api.schools.test", "/t/ash/grades", "").await, refused(400, "TENANT_NOT_FOUND"));
}

#[tokio::test]
async fn what_names_another_school_is_refused_counted_logged_and_told() {
    let origin = Origin::start().await;
    let site = gateway().settings("[telemetry]\naccess_log = \"<data>/access.log\"").up().await;
    pool(&site.api(), "web", &[&origin]).await;
    school(&site.api(), "ash", "web").await;
    school(&site.api(), "birch", "web").await;
    for (target, fields) in [
        ("/", "X-Tenant-ID: birch\r\n"),
        ("/", "X-Tenant-Slug: birch\r\n"),
        ("/", "X-Tenant-Slug: ash\r\nX-Tenant-Slug: birch\r\n"),
        ("/", "X-Tenant-ID: nosuch\r\n"),
        ("/?tenant=birch", ""),
        ("/?a=1&%74enantId=birch", ""),
    ] {
        let answer = ask(&site, "ash.localhost", target, fields).await;
        assert_eq!(answer, refused(403, "TENANT_MISMATCH"), "{target} {fields}");
    }
    assert_eq!(origin.requests(), 0);
    let count = async |kind: &str| {
        let labels = ["tenant=\"ash\"".to_owned(), format!("kind=\"{kind}\"")];
        site.metric("schoolgate_identity_mismatch_total", &labels.each_ref().map(String::as_str)).await
    };
    eventually(SOON, || async { count("query").await == 2.0 }).await;
    assert_eq!((count("header").await, count("slug_header").await, count("sni").await), (2.0, 2.0, 0.0));
    let events = Client::plain(site.status_addr()).get_json("/events").await;
    let latest = &events["items"][0];
    assert_eq!(latest["type"], "security.cross_tenant_attempt");
    assert_eq!(
        (&latest["tenant"], &latest["kind"], &latest["named"]),
        (&json!("ash"), &json!("query"), &json!("birch"))
    );
    assert_eq!(latest["host"], "ash.localhost");
    assert_eq!(events["items"].as_array().map(Vec::len), Some(6));
    let log = site.data().join("access.log");
    let lines = || async { std::fs::read_to_string(&log).unwrap_or_default().matches("\"mismatch\":\"").count() };
    eventually(SOON, || async { lines().await == 6 }).await;
}
