use schoolgate_testkit::Origin;
use schoolgate_testkit::{Client, Http};
use serde_json::json;

use crate::site::{given, tenant};

#[tokio::test]
async fn each_school_reaches_its_backend_over_both_protocols() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    for http in [Http::One, Http::Two] {
        for slug in ["greenhill", "riverside"] {
            let answer = site.visitor(&format!("{slug}.school.test"), http).get("/grades?year=1").await;
            assert_eq!(answer.status(), 200);
            let seen = origin.last();
            assert_eq!(seen.header("x-tenant-slug"), Some(slug));
            assert_eq!((seen.path.as_str(), seen.query.as_deref()), ("/grades", Some("year=1")));
            let host = seen.header("host").unwrap();
            assert!(host.starts_with(&format!("{slug}.school.test")), "{host}");
            assert_eq!(seen.header_all("host").len(), 1);
        }
    }
}

#[tokio::test]
async fn a_connection_for_one_school_does_not_serve_another() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    let mut connection = site.raw("greenhill.school.test").await;
    let answer = connection.get("riverside.school.test", "/").await.unwrap();
    assert_eq!((answer.status, answer.json()["error"].as_str()), (421, Some("MISDIRECTED")));
    let answer = connection.get("greenhill.school.test", "/").await.unwrap();
    assert_eq!(answer.status, 200, "the connection's own school is still served on it");
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn hosts_that_are_nobodys_read_the_same_as_schools_that_are_not_served() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    site.change([tenant("riverside", json!({"state": "archived"}))]);
    let mut bodies = Vec::new();
    for host in [
        "nobody.school.test",
        "riverside.school.test",
        "a.greenhill.school.test",
        "school.test",
        "greenhill.school.test.evil.test",
        "greenhill.attacker.test",
    ] {
        let mut connection = site.raw("nobody.school.test").await;
        let answer = connection.get(host, "/").await.unwrap();
        assert_eq!(answer.status, 404, "{host}");
        let mut body = answer.json();
        assert_eq!(body["error"], "TENANT_NOT_ACTIVE");
        body["request_id"] = json!(null);
        bodies.push(body);
    }
    assert!(bodies.windows(2).all(|w| w[0] == w[1]));
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_host_is_one_form_however_it_is_written() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    let mut connection = site.raw("greenhill.school.test").await;
    for (sent, seen) in [
        ("GREENHILL.School.Test", "greenhill.school.test"),
        ("greenhill.school.test.", "greenhill.school.test"),
        ("greenhill.school.test.:8443", "greenhill.school.test:8443"),
        ("greenhill.school.test:8443", "greenhill.school.test:8443"),
    ] {
        assert_eq!(connection.get(sent, "/").await.unwrap().status, 200, "{sent}");
        assert_eq!(origin.last().header("host"), Some(seen));
        assert_eq!(origin.last().header("x-forwarded-host"), Some(seen));
    }
    for bad in ["greenhill.school.test:", "greenhill.school.test:99999", "green_hill.school.test", "[::1]", "127.0.0.1"]
    {
        let mut connection = site.raw("greenhill.school.test").await;
        assert_eq!(connection.get(bad, "/").await.unwrap().status, 400, "{bad}");
    }
}

#[tokio::test]
async fn plain_http_sends_a_known_host_to_tls_and_knows_no_other() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    let visitor = |host: &str| Client::builder(site.http()).base(format!("http://{host}")).http(Http::One).build();
    let answer = visitor("greenhill.school.test").get("/grades?x=1").await;
    assert_eq!(answer.status(), 308);
    let to = format!("https://greenhill.school.test:{}/grades?x=1", site.https().port());
    assert_eq!(answer.headers()["location"], to.as_str());
    let answer = visitor("nobody.school.test").get("/").await;
    assert_eq!(answer.status(), 404);
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_request_without_a_host_has_no_tenant() {
    let site = given(Vec::<String>::new()).start().await;
    let mut connection = site.raw("greenhill.school.test").await;
    connection.send("GET / HTTP/1.0\r\n\r\n").await.unwrap();
    let answer = connection.read_response().await.unwrap();
    assert_eq!((answer.status, answer.json()["error"].as_str()), (400, Some("TENANT_NOT_FOUND")));
}

#[tokio::test]
async fn a_suspended_school_and_one_in_maintenance_say_so_on_a_page_of_their_own() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    site.change([
        tenant("greenhill", json!({"state": "suspended", "name": "Greenhill <Academy>"})),
        tenant("riverside", json!({"state": "maintenance"})),
    ]);
    let answer =
        site.greenhill().request(reqwest::Method::GET, "/").header("accept", "text/html").send().await.unwrap();
    assert_eq!(answer.status(), 403);
    assert_eq!(answer.headers()["content-type"], "text/html; charset=utf-8");
    let page = answer.text().await.unwrap();
    assert!(
        page.contains("Greenhill &lt;Academy&gt;") && page.contains("#1f6f43") && page.contains("TENANT_SUSPENDED")
    );
    let answer = site.visitor("riverside.school.test", Http::Two).get("/").await;
    assert_eq!(answer.status(), 503);
    assert!(answer.headers().contains_key("retry-after"));
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn an_identifier_that_names_another_school_is_refused_on_a_schools_own_host() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    for (target, fields) in [
        ("/", "X-Tenant-ID: riverside\r\n"),
        ("/", "x-tenant-slug: riverside\r\n"),
        ("/", "X-Tenant-Slug: greenhill\r\nX-Tenant-Slug: riverside\r\n"),
        ("/", "X-Tenant-ID: nosuch\r\n"),
        ("/?tenant=riverside", ""),
        ("/?a=1&%74enantId=riverside", ""),
    ] {
        let mut connection = site.raw("greenhill.school.test").await;
        let head = format!("GET {target} HTTP/1.1\r\nHost: greenhill.school.test\r\n{fields}\r\n");
        connection.send(&head).await.unwrap();
        let answer = connection.read_response().await.unwrap();
        assert_eq!((answer.status, answer.json()["error"].as_str()), (403, Some("TENANT_MISMATCH")), "{head}");
    }
    assert_eq!(origin.requests(), 0);
    let mut connection = site.raw("greenhill.school.test").await;
    let agreeing = "GET /?tenant=greenhill HTTP/1.1\r\nHost: greenhill.school.test\r\nX-Tenant-Slug: greenhill\r\n\r\n";
    connection.send(agreeing).await.unwrap();
    assert_eq!(connection.read_response().await.unwrap().status, 200);
    assert_eq!(origin.last().query.as_deref(), Some("tenant=greenhill"), "its own query is the school's");
}
