//! What the gateway says itself: one table, as JSON or as the school's page.

use reqwest::Method;
use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_testkit::{Http, Origin, Site, TokenSigner, eventually};
use serde_json::{Value, json};

use crate::{SOON, gateway, gateway_with, pool};

#[tokio::test]
async fn an_error_is_problem_json_for_programs_and_a_themed_page_for_people() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let api = site.api();
    let theme = json!({"name": "<script>alert(1)</script>", "theme": {"primary_color": "#123456"}});
    api.patch("tenants/slug:ash", theme).await.expect(200);
    api.post("tenants/slug:ash/suspend?wait=applied", json!({"reason": "a test"})).await.expect(200);
    for http in [Http::One, Http::Two] {
        let client = site.client_with("ash.localhost", http);
        let json_answer = client.get("/").await;
        assert_eq!(json_answer.headers()["content-type"], "application/problem+json");
        let id = json_answer.headers()["x-request-id"].to_str().expect("text").to_owned();
        let body: serde_json::Value = json_answer.json().await.expect("JSON");
        assert_eq!(
            (body["error"].as_str(), body["request_id"].as_str()),
            (Some("TENANT_SUSPENDED"), Some(id.as_str()))
        );
        assert!(body["message"].as_str().is_some_and(|m| !m.is_empty()));

        let page = client
            .request(reqwest::Method::GET, "/")
            .header("accept", "text/html,application/xhtml+xml,*/*;q=0.8")
            .send()
            .await
            .expect("an answer");
        assert_eq!(page.status(), 403);
        assert!(page.headers()["content-type"].to_str().is_ok_and(|t| t.starts_with("text/html")));
        let html = page.text().await.expect("a body");
        assert!(html.contains("#123456") && html.contains("&lt;script&gt;"), "{html}");
        assert!(!html.contains("<script>alert"), "{html}");

        let head = client.request(reqwest::Method::HEAD, "/").send().await.expect("an answer");
        assert_eq!(head.status(), 403);
        assert_eq!(head.text().await.expect("a body"), "");
    }
}

#[tokio::test]
async fn a_connection_goes_on_after_an_error() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let mut tls = site.tls("ash.localhost").await.expect("a handshake");
    assert_eq!(tls.get("nosuch.localhost", "/").await.expect("an answer").status, 404);
    assert_eq!(tls.get("ash.localhost", "/").await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_request_head_that_is_too_large_is_refused() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let long_path = format!("/{}", "a".repeat(9_000));
    let mut tls = site.tls("ash.localhost").await.expect("a handshake");
    assert_eq!(tls.get("ash.localhost", &long_path).await.expect("an answer").status, 414);
    let mut tls = site.tls("ash.localhost").await.expect("a handshake");
    let fields: String = (0..40).map(|n| format!("X-Field-{n}: {}\r\n", "b".repeat(1_000))).collect();
    tls.send(format!("GET / HTTP/1.1\r\nHost: ash.localhost\r\n{fields}\r\n")).await.expect("sent");
    assert_eq!(tls.read_response().await.expect("an answer").status, 431);
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn nothing_of_our_insides_is_told() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    origin.die().await;
    let answer = site.client("ash.localhost").get("/").await;
    assert!(matches!(answer.status().as_u16(), 502 | 503));
    assert!(
        answer.headers().get("server").is_none_or(|s| !s
            .to_str()
            .unwrap_or_default()
            .to_lowercase()
            .contains("pingora"))
    );
    let body = answer.text().await.expect("a body");
    for inside in ["127.0.0.1", "pingora", "panicked", ".rs", "Connect", "web"] {
        assert!(!body.contains(inside), "{inside} in {body}");
    }
}

/// A row of what the gateway says itself, and a request that gets it.
struct Row {
    status: u16,
    error: &'static str,
    /// The name of the handshake, where it is another than the host.
    sni: Option<&'static str>,
    host: &'static str,
    path: String,
    field: Option<(&'static str, String)>,
    look: Look,
    when: When,
}

/// Whose page a person gets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Look {
    /// The school's: its name, its colours.
    Themed,
    /// Nobody's: no school was selected, or it must not be told which.
    Plain,
}

/// For which requests a row holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum When {
    Always,
    /// Only when there is a body.
    Body,
    /// Only when there is none: with one still arriving, the client is to blame (408).
    NoBody,
}

impl Row {
    fn new(status: u16, error: &'static str, host: &'static str, path: &str, look: Look) -> Self {
        Self { status, error, sni: None, host, path: path.to_owned(), field: None, look, when: When::Always }
    }

    fn with(self, name: &'static str, value: &str) -> Self {
        Self { field: Some((name, value.to_owned())), ..self }
    }

    /// On a connection that was opened for `ash`.
    fn on_ash(self) -> Self {
        Self { sni: Some("ash.localhost"), ..self }
    }

    fn when(self, when: When) -> Self {
        Self { when, ..self }
    }
}

/// Every row of DESIGN.md section 5 but three: `REQUEST_TIMEOUT` (below), `OVERLOADED` (`tests/hostile/overload.rs`), and
/// `TENANT_PROCESSING_ERROR`, which takes a bug (the unit tests of gateway and pages have it).
fn rows(signer: &TokenSigner) -> Vec<Row> {
    use Look::{Plain, Themed};
    let bearer = |tenant: &str, seconds: i64| {
        let exp = SystemClock.unix_ms() / 1_000 + seconds;
        let claims = json!({"iss": "https://id.example", "aud": "school", "exp": exp, "tenantId": tenant});
        format!("Bearer {}", signer.token("k", &claims))
    };
    let tokens = |status, error| Row::new(status, error, "api.tokens.test", "/", Plain);
    vec![
        Row::new(400, "TENANT_NOT_FOUND", "api.schools.test", "/", Plain),
        Row::new(400, "BAD_REQUEST", "127.0.0.1", "/", Plain).on_ash(),
        tokens(401, "MISSING_TOKEN"),
        tokens(401, "INVALID_TOKEN_FORMAT").with("authorization", "Bearer x"),
        tokens(401, "INVALID_TOKEN").with("authorization", "Bearer eyJhbGciOiJub25lIn0.eyJ0ZW5hbnRJZCI6ImFzaCJ9."),
        tokens(401, "TOKEN_EXPIRED").with("authorization", &bearer("ash", -600)),
        Row::new(403, "TENANT_MISMATCH", "ash.localhost", "/", Themed).with("x-tenant-slug", "elm"),
        Row::new(403, "TENANT_SUSPENDED", "elm.localhost", "/", Themed),
        Row::new(403, "FEATURE_NOT_IN_PLAN", "ash.localhost", "/biometric/", Themed),
        tokens(403, "TENANT_NOT_ACTIVE").with("authorization", &bearer("nosuch", 600)),
        Row::new(404, "TENANT_NOT_ACTIVE", "api.schools.test", "/", Plain).with("x-tenant-id", "nosuch"),
        Row::new(404, "TENANT_NOT_ACTIVE", "nosuch.localhost", "/", Plain).on_ash(),
        Row::new(404, "NO_ROUTE", "ash.localhost", "/.well-known/acme-challenge/none", Plain),
        Row::new(413, "BODY_TOO_LARGE", "ash.localhost", "/small/", Themed).when(When::Body),
        Row::new(414, "URI_TOO_LONG", "ash.localhost", &format!("/{}", "a".repeat(9_000)), Plain),
        Row::new(421, "MISDIRECTED", "elm.localhost", "/", Plain).on_ash(),
        Row::new(429, "RATE_LIMITED", "rate.localhost", "/", Themed),
        Row::new(429, "QUOTA_EXCEEDED", "quota.localhost", "/", Themed),
        Row::new(429, "CONCURRENCY_LIMITED", "crowd.localhost", "/", Themed),
        Row::new(431, "HEADERS_TOO_LARGE", "ash.localhost", "/", Plain).with("x-long", &"b".repeat(17_000)),
        Row::new(502, "UPSTREAM_ERROR", "ash.localhost", "/close", Themed),
        Row::new(503, "NO_BACKEND", "ash.localhost", "/none/", Themed),
        Row::new(503, "POOL_BUSY", "ash.localhost", "/busy/", Themed),
        Row::new(503, "TENANT_MAINTENANCE", "ash.localhost", "/repair/", Themed),
        Row::new(504, "UPSTREAM_TIMEOUT", "ash.localhost", "/delay/5000", Themed).when(When::NoBody),
    ]
}

/// What programs and what browsers say they take.
const ACCEPTS: [&str; 2] = ["application/json", "text/html,application/xhtml+xml,*/*;q=0.8"];

/// An answer as it came.
struct Told {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Told {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map_or("", |(_, value)| value.as_str())
    }
}

/// Asks over HTTP/1.1 with bytes written by hand, and reads until the gateway closes: whatever follows the head is body.
/// With a POST, most of the body never comes.
async fn ask_h1(site: &Site, row: &Row, method: &Method, accept: &str) -> Told {
    let mut tls = site.tls(row.sni.unwrap_or(row.host)).await.expect("a handshake");
    let field = row.field.as_ref().map(|(name, value)| format!("{name}: {value}\r\n")).unwrap_or_default();
    let body = if *method == Method::POST { "Content-Length: 100000\r\n\r\nthe first bytes" } else { "\r\n" };
    let Row { host, path, .. } = row;
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nAccept: {accept}\r\nConnection: close\r\n{field}{body}");
    tls.send(head).await.expect("sent");
    let text = String::from_utf8(tls.read_to_end().await.expect("an answer")).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{}: no answer: {text:?}", row.error));
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(": ")).map(|(n, v)| (n.to_owned(), v.to_owned()));
    Told { status: status.expect("a status"), headers: headers.collect(), body: body.to_owned() }
}

/// Asks over HTTP/2. With a POST, the body stays open until the answer is read.
async fn ask_h2(site: &Site, row: &Row, method: &Method, accept: &str) -> Told {
    let client = site.client_with(row.host, Http::Two);
    let mut request = client.request(method.clone(), &row.path).header("accept", accept);
    if let Some((name, value)) = &row.field {
        request = request.header(*name, value);
    }
    let (pieces, body) = tokio::sync::mpsc::channel::<Result<&'static str, std::io::Error>>(1);
    if *method == Method::POST {
        pieces.send(Ok("the first bytes, and more than ten")).await.expect("open");
        request = request.body(reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(body)));
    }
    let answer = request.send().await.unwrap_or_else(|e| panic!("{}: {e:?}", row.error));
    let status = answer.status().as_u16();
    let headers = answer.headers().iter();
    let headers = headers.map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned())).collect();
    let body = answer.text().await.expect("a whole body");
    drop(pieces);
    Told { status, headers, body }
}

/// Checks one answer against its row, as JSON or as a page. Gives its length.
fn check(row: &Row, told: &Told, accept: &str, how: &str) -> usize {
    let Told { status, body, .. } = told;
    assert_eq!(*status, row.status, "{how}: {body}");
    assert_eq!(told.header("content-length"), body.len().to_string(), "{how}");
    assert_eq!(told.header("cache-control"), "no-store", "{how}");
    assert_eq!(told.header("retry-after").is_empty(), !matches!(row.status, 429 | 503), "{how}");
    for field in ["ratelimit", "ratelimit-policy"] {
        assert_eq!(told.header(field).is_empty(), row.status != 429, "{how}: {field}");
    }
    assert_eq!(told.header("www-authenticate").is_empty(), row.status != 401, "{how}");
    assert_eq!(told.header("x-content-type-options"), "nosniff", "{how}");
    for field in ["referrer-policy", "x-frame-options"] {
        assert_eq!(told.header(field).is_empty(), row.look == Look::Plain, "{how}: {field} is the school's");
    }
    let id = told.header("x-request-id");
    assert_eq!(id.len(), 26, "{how}: a ULID");
    if accept == ACCEPTS[0] {
        assert_eq!(told.header("content-type"), "application/problem+json", "{how}");
        let problem: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{how}: {e}: {body}"));
        assert_eq!((&problem["error"], &problem["status"]), (&json!(row.error), &json!(row.status)), "{how}");
        assert_eq!(problem["request_id"], id, "{how}");
        assert!(problem["message"].as_str().is_some_and(|m| !m.is_empty()), "{how}");
    } else {
        assert_eq!(told.header("content-type"), "text/html; charset=utf-8", "{how}");
        assert!(body.contains(row.error) && body.contains(id), "{how}: {body}");
        let themed = body.contains("#123456") && body.contains("&lt;script&gt;alert(1)&lt;/script&gt; School");
        assert_eq!(themed, row.look == Look::Themed, "{how}: {body}");
        assert!(!body.contains("<script"), "{how}: {body}");
    }
    body.len()
}

#[tokio::test]
async fn every_row_is_told_as_json_and_as_a_page_to_head_over_h2_and_while_a_body_arrives() {
    let origin = Origin::start().await;
    let site = gateway().up().await;
    let api = site.api();
    pool(&api, "web", &[&origin]).await;
    let backends = json!([{"address": origin.url()}]);
    let bad =
        json!({"id": "bad", "backends": backends, "ejection": {"consecutive_failures": 0}, "retry": {"attempts": 0}});
    api.post("pools", bad).await.expect(201);
    let none = json!({"id": "none", "backends": [{"address": origin.url(), "state": "disabled"}]});
    api.post("pools", none).await.expect(201);
    let busy = json!({"id": "busy", "backends": [{"address": origin.url()}], "max_in_flight": 1});
    api.post("pools", busy).await.expect(201);
    let signer = TokenSigner::ed25519();
    let issuer = json!({"id": "idp", "issuer": "https://id.example", "audiences": ["school"], "leeway_s": 0,
        "jwks": {"keys": [signer.jwk("k")]}});
    api.post("token-issuers", issuer).await.expect(201);
    for zone in ["schools", "tokens"] {
        let body = json!({"name": format!("{zone}.test"), "shared_host": format!("api.{zone}.test"),
            "trusted_callers": ["127.0.0.1/32"], "require_token": zone == "tokens"});
        api.post("zones", body).await.expect(201);
    }
    let wide = json!({"requests_per_minute": 60_000, "requests_per_day": {"value": 60_000, "mode": "hard"}});
    for (plan, change) in [
        ("rate", json!({"requests_per_minute": 1, "burst": 1})),
        ("quota", json!({"requests_per_day": {"value": 1, "mode": "hard"}})),
        ("crowd", json!({"in_flight": 1})),
        ("wide", json!({})),
    ] {
        let mut limits = wide.clone();
        limits.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        api.post("plans", json!({"id": plan, "limits": limits})).await.expect(201);
    }
    for (slug, plan) in [("ash", "wide"), ("elm", "wide"), ("rate", "rate"), ("quota", "quota"), ("crowd", "crowd")] {
        let body = json!({"slug": slug, "name": "<script>alert(1)</script> School", "plan": plan, "pool": "web",
            "theme": {"primary_color": "#123456"}});
        api.post("tenants", body).await.expect(201);
    }
    for (prefix, action) in [
        ("/biometric/", json!({"requires_feature": "biometric"})),
        ("/small/", json!({"body_bytes": 10})),
        ("/close", json!({"pool": "bad"})),
        ("/none/", json!({"pool": "none"})),
        ("/busy/", json!({"pool": "busy"})),
        ("/sse", json!({"pool": "busy"})),
        ("/repair/", json!({"maintenance": true})),
        ("/delay/", json!({"pool": "bad", "timeout_ms": 200})),
    ] {
        let route = json!({"tenant": "ash", "match": {"path_prefix": prefix}, "action": action});
        api.post("routes", route).await.expect(201);
    }
    api.post("tenants/slug:elm/suspend?wait=applied", json!({"reason": "a test"})).await.expect(200);
    for host in ["api.schools.test", "api.tokens.test"] {
        eventually(SOON, || async { site.tls(host).await.is_ok() }).await;
    }

    // What is used up, and what stays taken.
    for slug in ["rate", "quota"] {
        assert_eq!(site.client(&format!("{slug}.localhost")).get("/").await.status(), 200);
    }
    let held = [site.client("crowd.localhost").get("/sse").await, site.client("ash.localhost").get("/sse").await];
    assert!(held.iter().all(|answer| answer.status() == 200));

    for row in &rows(&signer) {
        for accept in ACCEPTS {
            // Two names on one connection cannot be asked of a client that picks the connection by the name.
            for http in [Some(Http::One), row.sni.is_none().then_some(Http::Two)].into_iter().flatten() {
                let once = async |method: &Method| match http {
                    Http::Two => ask_h2(&site, row, method, accept).await,
                    _ => ask_h1(&site, row, method, accept).await,
                };
                let ask = async |method: &Method| match once(method).await {
                    // One passes in a minute; it may be this one, but not the next as well.
                    Told { status: 200, .. } if row.error == "RATE_LIMITED" => once(method).await,
                    told => told,
                };
                let how = |method: &Method| format!("{} to {method} over {http:?} for {accept}", row.error);
                if row.when != When::Body {
                    let whole = check(row, &ask(&Method::GET).await, accept, &how(&Method::GET));
                    let head = ask(&Method::HEAD).await;
                    assert_eq!((head.status, head.body.as_str()), (row.status, ""), "{}", how(&Method::HEAD));
                    assert_eq!(head.header("content-length"), whole.to_string(), "{}", how(&Method::HEAD));
                }
                if row.when != When::NoBody {
                    check(row, &ask(&Method::POST).await, accept, &how(&Method::POST));
                }
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_stops_arriving_is_408_as_json_and_as_a_page() {
    let origin = Origin::start().await;
    let site = gateway().settings("[proxy.limits]\nbody_stall_s = 0.3").up().await;
    pool(&site.api(), "web", &[&origin]).await;
    let school = json!({"slug": "ash", "name": "<script>alert(1)</script> School", "plan": "basic", "pool": "web",
        "theme": {"primary_color": "#123456"}});
    site.api().post("tenants?wait=applied", school).await.expect(201);
    let row = Row::new(408, "REQUEST_TIMEOUT", "ash.localhost", "/", Look::Themed);
    for accept in ACCEPTS {
        check(&row, &ask_h1(&site, &row, &Method::POST, accept).await, accept, "h1");
        check(&row, &ask_h2(&site, &row, &Method::POST, accept).await, accept, "h2");
    }
}
