//! A decision explained: what is said is what a real request then gets, and what a real request got is said.

use std::process::Output;

use schoolgate_testkit::{Http, Origin, Site, eventually, until};
use serde_json::{Value, json};

use crate::{SOON, gateway, gateway_with, school};

/// The name in the handshake, host, path and fields of a request.
type Asked<'a> = (&'a str, &'a str, &'a str, Vec<(&'a str, &'a str)>);

/// A gateway with two schools on one pool, and a shared host that trusts loopback.
async fn two_schools(origin: &Origin) -> Site {
    let site = gateway_with(&[origin]).await;
    school(&site.api(), "birch", "web").await;
    let zone = json!({"name": "schools.test", "shared_host": "api.schools.test", "trusted_callers": ["127.0.0.1/32"]});
    site.api().post("zones?wait=applied", zone).await.expect(201);
    eventually(SOON, || async { site.tls("api.schools.test").await.is_ok() }).await;
    site
}

/// What a real request gets: status, and the code if the gateway refused it.
async fn really(site: &Site, sni: &str, host: &str, path: &str, fields: &[(&str, &str)]) -> (u64, Value) {
    let mut tls = site.tls(sni).await.expect("a handshake");
    let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    tls.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n")).await.expect("sent");
    let answer = tls.read_response().await.expect("an answer");
    let error = if answer.status >= 400 { answer.json()["error"].clone() } else { Value::Null };
    (u64::from(answer.status), error)
}

#[tokio::test]
async fn an_explanation_says_what_a_real_request_then_gets() {
    let origin = Origin::start().await;
    let site = two_schools(&origin).await;
    let feature = json!({"tenant": "ash", "match": {"path_prefix": "/reports"},
                         "action": {"pool": "web", "requires_feature": "advanced_reporting"}});
    site.api().post("routes?wait=applied", feature).await.expect(201);
    let moved = json!({"tenant": "ash", "match": {"path_prefix": "/old"},
                       "action": {"redirect": {"to": "https://elsewhere.example/", "status": 302}}});
    site.api().post("routes?wait=applied", moved).await.expect(201);
    let id = site.api().get("tenants/slug:birch").await.expect(200)["id"].as_str().expect("an id").to_owned();
    let forged = "Bearer eyJhbGciOiJub25lIn0.eyJ0ZW5hbnRJZCI6ImFzaCJ9.";
    let requests: Vec<Asked<'_>> = vec![
        ("ash.localhost", "ash.localhost", "/", vec![]),
        ("ash.localhost", "ASH.localhost.", "/x?y=1", vec![]),
        ("ash.localhost", "birch.localhost", "/", vec![]),
        ("ash.localhost", "ash.localhost", "/", vec![("X-Tenant-ID", &id)]),
        ("ash.localhost", "ash.localhost", "/", vec![("X-Tenant-Slug", "ash")]),
        ("ash.localhost", "ash.localhost", "/", vec![("X-Tenant-Slug", "ash"), ("X-Tenant-Slug", "birch")]),
        ("ash.localhost", "ash.localhost", "/?tenant=birch", vec![]),
        ("ash.localhost", "ash.localhost", "/?tenant=nosuch", vec![]),
        ("ash.localhost", "ash.localhost", "/", vec![("Authorization", forged)]),
        ("ash.localhost", "ash.localhost", "/reports/1", vec![]),
        ("ash.localhost", "ash.localhost", "/old/x", vec![]),
        ("ash.localhost", "nosuch.localhost", "/", vec![]),
        ("ash.localhost", "a.ash.localhost", "/", vec![]),
        ("ash.localhost", "ash.localhost.evil.example", "/", vec![]),
        ("api.schools.test", "api.schools.test", "/", vec![]),
        ("api.schools.test", "api.schools.test", "/", vec![("X-Tenant-ID", "birch")]),
        ("api.schools.test", "api.schools.test", "/?tenantId=birch", vec![("X-Tenant-ID", "ash")]),
        ("api.schools.test", "api.schools.test", "/", vec![("X-Tenant-ID", "nosuch")]),
        ("api.schools.test", "api.schools.test", "/", vec![("Authorization", forged)]),
    ];
    for (sni, host, path, fields) in requests {
        let mut headers: serde_json::Map<String, Value> = serde_json::Map::new();
        for (name, value) in &fields {
            match headers.entry(*name).or_insert_with(|| json!([])) {
                Value::Array(lines) => lines.push(json!(value)),
                _ => unreachable!(),
            }
        }
        let request = json!({"sni": sni, "host": host, "path": path, "headers": headers, "client_ip": "127.0.0.1"});
        let explained = site.api().post("explain", json!({"request": request, "at_revision": null})).await.expect(200);
        let real = really(&site, sni, host, path, &fields).await;
        let outcome = &explained["outcome"];
        assert_eq!((outcome["status"].as_u64().expect("a status"), outcome["error"].clone()), real, "{explained:#}");
        assert!(explained["steps"].as_array().is_some_and(|steps| !steps.is_empty()), "{explained}");
    }
}

#[tokio::test]
async fn a_past_revision_decides_as_it_did() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let explain = async |at: Value| {
        site.api().post("explain", json!({"request": {"host": "ash.localhost"}, "at_revision": at})).await
    };
    let before = explain(Value::Null).await.expect(200);
    assert_eq!((&before["outcome"]["action"], &before["would_have"]["plan"]), (&json!("forward"), &json!("custom")));
    site.api().post("tenants/slug:ash/suspend?wait=applied", json!({"reason": "a test"})).await.expect(200);
    site.api().patch("tenants/slug:ash?wait=applied", json!({"plan": "standard"})).await.expect(200);
    let now = explain(Value::Null).await.expect(200);
    assert_eq!(
        (&now["outcome"]["error"], &now["would_have"]["plan"]),
        (&json!("TENANT_SUSPENDED"), &json!("standard"))
    );
    let past = explain(before["revision"].clone()).await.expect(200);
    assert_eq!(past, before);
    let first = explain(json!(1)).await.expect(200);
    assert_eq!(
        (&first["revision"], &first["outcome"]["status"]),
        (&json!(1), &json!(404)),
        "ash was not there: {first}"
    );
    assert_eq!(explain(json!(999_999)).await.status, 404);
    assert_eq!(explain(json!(0)).await.status, 410);
    site.api().delete("tenants/slug:ash?wait=applied").await;
    assert_eq!(explain(before["revision"].clone()).await.expect(200), before, "also when the school is gone");
}

#[tokio::test]
async fn a_question_that_is_none_is_answered_with_what_is_wrong() {
    let site = gateway().up().await;
    for (question, pointer) in [
        (json!({}), "/request"),
        (json!({"request": {"hsot": "a"}}), "/request"),
        (json!({"request": {"host": "a"}, "request_id": "01"}), "/request_id"),
        (json!({"request_id": "short"}), "/request_id"),
        (json!({"request_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV", "at_revision": 1}), "/at_revision"),
        (json!({"reqest": {"host": "a"}}), ""),
    ] {
        let answer = site.api().post("explain", question.clone()).await.expect(422);
        assert_eq!(answer["errors"][0]["pointer"], pointer, "{question}: {answer}");
    }
    let unknown = site.api().post("explain", json!({"request_id": "01ARZ3NDEKTSV4RRFFQ69G5FAV"})).await.expect(404);
    assert!(unknown["message"].as_str().is_some_and(|message| message.contains("no proxy has this request")));
    assert_eq!(site.api().anonymous().post("explain", json!({"request": {"host": "a"}})).await.status, 401);
}

/// A real request, explained by its identifier.
async fn explained(site: &Site, id: &str) -> Value {
    until(SOON, || async {
        let answer = site.api().post("explain", json!({"request_id": id})).await;
        (answer.status == 200).then_some(answer.json)
    })
    .await
}

async fn real_requests_are_explained(site: &Site, origin: &Origin) {
    let ask = async |path: &str, fields: &str| {
        let mut tls = site.tls("ash.localhost").await.expect("a handshake");
        let head = format!("GET {path} HTTP/1.1\r\nHost: ash.localhost\r\n{fields}\r\n");
        tls.send(head).await.expect("sent");
        let answer = tls.read_response().await.expect("an answer");
        answer.header("x-request-id").expect("an identifier").to_owned()
    };
    let served = ask("/grades?secret=s3cret", "Cookie: s3cret\r\nAuthorization: Bearer s3cret\r\n").await;
    let failed = ask("/status/503", "").await;
    let refused = ask("/?tenant=birch&x=s3cret", "").await;
    let long = format!("/{}", "x".repeat(9_000));
    let unread = site.client_with("ash.localhost", Http::Two).get(&long).await;
    assert_eq!(unread.status(), 414);
    let unread = unread.headers()["x-request-id"].to_str().expect("text").to_owned();
    // What decided is the revision of then, whatever has changed since.
    site.api().post("tenants/slug:ash/suspend?wait=applied", json!({"reason": "a test"})).await.expect(200);

    let answer = explained(site, &served).await;
    let (request, happened) = (&answer["recorded"]["request"], &answer["recorded"]["request"]["happened"]);
    assert_eq!((&answer["outcome"]["action"], &answer["outcome"]["tenant"]), (&json!("forward"), &json!("ash")));
    assert_eq!((&happened["status"], &happened["backend"]), (&json!(200), &json!(origin.url())));
    assert_eq!((&happened["pool"], &happened["retries"]), (&json!("web"), &json!(0)));
    assert!(happened["total_us"].as_u64().is_some_and(|us| us > 0), "{happened}");
    let fields: Vec<_> = request["fields"].as_array().expect("names").iter().filter_map(Value::as_str).collect();
    assert!(fields.contains(&"cookie") && fields.contains(&"authorization"), "{fields:?}");
    assert!(!answer.to_string().contains("s3cret"), "a secret is kept: {answer}");

    let answer = explained(site, &failed).await;
    let happened = &answer["recorded"]["request"]["happened"];
    assert_eq!((&answer["outcome"]["action"], &happened["backend_status"]), (&json!("forward"), &json!(503)));

    let answer = explained(site, &refused).await;
    assert_eq!(answer["outcome"]["error"], "TENANT_MISMATCH");
    assert_eq!(answer["recorded"]["request"]["happened"]["error"], "TENANT_MISMATCH");
    assert_eq!(answer["would_have"]["pool"], "web");
    assert!(!answer.to_string().contains("s3cret"), "a secret is kept: {answer}");

    let answer = explained(site, &unread).await;
    assert_eq!((&answer["revision"], &answer["steps"][0]["step"]), (&json!(0), &json!("gate")), "{answer}");
    assert_eq!(answer["outcome"]["error"], "URI_TOO_LONG");
}

#[tokio::test]
async fn a_real_request_is_explained_by_the_revision_that_decided_it() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    school(&site.api(), "birch", "web").await;
    real_requests_are_explained(&site, &origin).await;
}

#[tokio::test]
async fn a_proxy_in_another_process_is_asked_too() {
    let origin = Origin::start().await;
    let site = gateway().split().await;
    crate::pool(&site.api(), "web", &[&origin]).await;
    school(&site.api(), "ash", "web").await;
    school(&site.api(), "birch", "web").await;
    eventually(SOON, || async { site.tls("ash.localhost").await.is_ok() }).await;
    real_requests_are_explained(&site, &origin).await;
}

fn run(site: &Site, args: &[&str]) -> Output {
    let data = site.data().display().to_string();
    let mut all = args.to_vec();
    all.extend(["--data-dir", &data]);
    site.run(&all)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_shows_steps_and_outcome_and_ends_well_also_for_a_refusal() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    school(&site.api(), "birch", "web").await;
    let output = run(&site, &["explain", "https://ash.localhost:8443/grades", "-H", "X-Tenant-ID: birch"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for part in ["authority", "agreement", "refused: 403 TENANT_MISMATCH", "would go to", "web", &origin.url()] {
        assert!(text.contains(part), "`{part}` is not in\n{text}");
    }
    let json = run(&site, &["explain", "ash.localhost", "-H", "Host: birch.localhost", "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(json["outcome"]["error"], "MISDIRECTED");
    let answer = site.client("ash.localhost").get("/nothing?tenant=birch").await;
    let id = answer.headers()["x-request-id"].to_str().expect("text").to_owned();
    explained(&site, &id).await;
    let output = run(&site, &["explain", "--request", &id]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("what happened, on node-1"), "{text}");
    let output = run(&site, &["explain", "ftp://ash.localhost"]);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("not a URL"));
}
