//! Routes that answer with files.

use reqwest::Method;
use schoolgate_testkit::{Http, Origin};
use serde_json::json;

use crate::site::{given, route};

fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("status")).unwrap();
    for (name, text) in [
        ("robots.txt", "User-agent: *\n"),
        ("status/index.html", "<h1>Back soon</h1>"),
        ("status/logo.svg", "<svg/>"),
        ("status/.env", "secret"),
        ("secret.txt", "secret"),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

fn id(n: u8) -> String {
    format!("rt_01ARZ3NDEKTSV4RRFFQ69G5FA{n}")
}

async fn site(origin: &Origin) -> (crate::site::Site, tempfile::TempDir) {
    let dir = directory();
    let site = given([origin.url()])
        .object(route(json!({"id": id(1), "match": {"path_exact": "/robots.txt"},
            "action": {"public": true, "files": {"path": "robots.txt", "max_age_s": 60}}})))
        .object(route(json!({"id": id(2), "match": {"path_prefix": "/down"}, "action": {"files": {"path": "status"}}})))
        .files(dir.path())
        .start()
        .await;
    (site, dir)
}

#[tokio::test]
async fn a_file_is_answered_with_its_type_its_tag_and_how_long_it_holds() {
    let origin = Origin::start().await;
    let (site, _dir) = site(&origin).await;
    for http in [Http::One, Http::Two] {
        let visitor = site.visitor("greenhill.school.test", http);
        let robots = visitor.get("/robots.txt?v=2").await;
        let headers = robots.headers().clone();
        assert_eq!((robots.status().as_u16(), robots.text().await.unwrap().as_str()), (200, "User-agent: *\n"));
        assert_eq!(headers["content-type"], "text/plain; charset=utf-8");
        assert_eq!(headers["cache-control"], "max-age=60");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!((headers["content-length"].as_bytes(), headers["x-request-id"].len()), (&b"14"[..], 26));

        let head = visitor.request(Method::HEAD, "/robots.txt").send().await.unwrap();
        assert_eq!((head.status().as_u16(), &head.headers()["content-length"]), (200, &headers["content-length"]));
        assert_eq!(head.headers()["etag"], headers["etag"]);
        assert_eq!(head.text().await.unwrap(), "");

        let again = visitor.request(Method::GET, "/robots.txt").header("if-none-match", &headers["etag"]);
        let again = again.send().await.unwrap();
        assert_eq!((again.status().as_u16(), &again.headers()["etag"]), (304, &headers["etag"]));
        assert_eq!(again.headers()["cache-control"], "max-age=60");
        for absent in ["content-length", "content-type", "transfer-encoding"] {
            assert!(!again.headers().contains_key(absent), "{absent}");
        }
        // The connection goes on.
        assert_eq!(visitor.get("/down/logo.svg").await.headers()["content-type"], "image/svg+xml");
        let written = visitor.request(Method::POST, "/robots.txt").body("x").send().await.unwrap();
        assert_eq!((written.status().as_u16(), written.headers()["allow"].as_bytes()), (405, &b"GET, HEAD"[..]));
        assert_eq!(written.json::<serde_json::Value>().await.unwrap()["error"], "METHOD_NOT_ALLOWED");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_directory_is_served_below_its_prefix_and_nothing_beside_it_or_hidden() {
    let origin = Origin::start().await;
    let (site, _dir) = site(&origin).await;
    for http in [Http::One, Http::Two] {
        let visitor = site.visitor("greenhill.school.test", http);
        let page = visitor.get("/down/").await;
        assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
        assert_eq!(page.text().await.unwrap(), "<h1>Back soon</h1>");
        let sent = visitor.get("/down?from=mail").await;
        assert_eq!((sent.status().as_u16(), sent.headers()["location"].as_bytes()), (308, &b"/down/?from=mail"[..]));
        assert_eq!(visitor.get_json("/down/none").await["error"], "NO_ROUTE");
        assert_eq!(visitor.get("/downtown").await.headers()["x-origin"], "origin", "another path");
    }
    // Written by hand: a client would tidy the path up.
    for none in [
        "/down/none",
        "/down/.env",
        "/down/%2eenv",
        "/down/../secret.txt",
        "/down/%2e%2e/secret.txt",
        "/down/..%2fsecret.txt",
        "/down/%2e%2e%2fsecret.txt",
        "/down/logo.svg/",
        "/down/logo.svg%00.txt",
        "/down/%",
    ] {
        let answer = site.raw("greenhill.school.test").await.get("greenhill.school.test", none).await.unwrap();
        assert!(matches!(answer.status, 404 | 400), "{none}: {}", answer.status);
        assert!(!String::from_utf8_lossy(&answer.body).contains("User-agent"), "{none}");
    }
    assert_eq!(origin.requests(), 2, "of all these, one path is not the files' own");
}
