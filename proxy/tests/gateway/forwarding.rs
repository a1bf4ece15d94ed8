use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schoolgate_testkit::Http;
use schoolgate_testkit::{Answer, Origin};
use serde_json::Value;

use crate::site::given;

#[tokio::test]
async fn identity_comes_from_us_whatever_the_client_sends() {
    let origin = Origin::start().await;
    for backend in [origin.url(), origin.h2c_url()] {
        let site = given([backend]).start().await;
        for http in [Http::One, Http::Two] {
            let forged = site
                .visitor("greenhill.school.test", http)
                .request(reqwest::Method::GET, "/")
                // One that names another school is refused; this one agrees, and is replaced all the same.
                .header("x-tenant-id", "greenhill")
                .header("X_Tenant_ID", "forged")
                .header("x-tenant-context", "forged")
                .header("x-subdomain", "forged")
                .header("x-forwarded-for", "6.6.6.6")
                .header("forwarded", "for=6.6.6.6")
                .header("x-real-ip", "6.6.6.6")
                .header("x-request-id", "mine-1")
                .send()
                .await
                .unwrap();
            assert_eq!(forged.status(), 200);
            let seen = origin.last();
            assert!(seen.headers.iter().all(|(_, value)| value != "forged" && !value.contains("6.6.6.6")));
            assert!(seen.headers.iter().all(|(name, _)| !name.contains('_')));
            for (name, value) in [
                ("x-tenant-id", "tnt_01ARZ3NDEKTSV4RRFFQ69G5FAV"),
                ("x-tenant-slug", "greenhill"),
                ("x-subdomain", "greenhill"),
                ("x-tenant-plan", "custom"),
                ("x-tenant-features", ""),
                ("x-forwarded-for", "127.0.0.1"),
                ("x-forwarded-proto", "https"),
                ("x-client-request-id", "mine-1"),
            ] {
                assert_eq!(seen.header_all(name), [value], "{name}");
            }
            assert_eq!(seen.header("x-request-id"), forged.headers()["x-request-id"].to_str().ok());
            for name in ["x-forwarded-host", "forwarded"] {
                assert!(seen.header(name).is_some_and(|v| v.contains("greenhill.school.test")), "{name}");
            }
            assert_eq!(seen.header("traceparent").map(str::len), Some(55));
            let token = seen.header("x-tenant-context").unwrap();
            let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
            let claims: Value = serde_json::from_slice(&claims).unwrap();
            assert_eq!((claims["slug"].as_str(), claims["aud"].as_str()), (Some("greenhill"), Some("shared")));
        }
    }
}

#[tokio::test]
async fn what_a_backend_says_of_itself_stays_here() {
    let origin = Origin::start().await;
    let answer = Answer::new(200)
        .header("server", "app/1.2")
        .header("x-tenant-context", "echoed")
        .header("keep-alive", "timeout=5")
        .header("x-kept", "1")
        .body("ok");
    origin.answer("/said", answer);
    let site = given([origin.url()]).start().await;
    for http in [Http::One, Http::Two] {
        let answer = site.visitor("greenhill.school.test", http).get("/said").await;
        for gone in ["server", "x-tenant-context", "keep-alive"] {
            assert!(!answer.headers().contains_key(gone), "{gone}");
        }
        assert_eq!(answer.headers()["x-kept"], "1");
        assert_eq!(answer.text().await.unwrap(), "ok");
    }
}

#[tokio::test]
async fn connections_to_a_backend_are_kept_and_never_shared_between_schools() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    let mut used: [Vec<u64>; 2] = Default::default();
    for _ in 0..5 {
        for (slug, used) in ["greenhill", "riverside"].iter().zip(&mut used) {
            site.visitor(&format!("{slug}.school.test"), Http::One).get("/").await;
            used.push(origin.last().connection);
        }
    }
    assert!(used[0].iter().all(|c| !used[1].contains(c)), "{used:?}");
    assert_eq!(origin.connections(), 2, "{used:?}");
}

#[tokio::test]
async fn cookie_crumbs_reach_an_http_1_backend_as_one_field() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    let visitor = site.visitor("greenhill.school.test", Http::Two);
    visitor.request(reqwest::Method::GET, "/").header("cookie", "a=1").header("cookie", "b=2").send().await.unwrap();
    assert_eq!(origin.last().header_all("cookie"), ["a=1; b=2"]);
}

#[tokio::test]
async fn trailers_and_streams_pass() {
    let origin = Origin::start().await;
    for backend in [origin.url(), origin.h2c_url()] {
        let site = given([backend]).start().await;
        for http in [Http::One, Http::Two] {
            let visitor = site.visitor("greenhill.school.test", http);
            let lines = visitor.get("/stream/5/10").await.text().await.unwrap();
            assert_eq!(lines.lines().count(), 5, "{lines}");
            assert_eq!(visitor.get("/bytes/300000").await.bytes().await.unwrap().len(), 300_000);
        }
    }
}

#[tokio::test]
async fn a_backend_on_a_unix_socket_is_reached() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("app.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nunix").await;
        }
    });
    let site = given([format!("unix:{}", path.display())]).start().await;
    assert_eq!(site.greenhill().get("/").await.text().await.unwrap(), "unix");
}
