//! What routes set and remove of answers, on every way that an answer takes.

use reqwest::Method;
use reqwest::header::HeaderMap;
use schoolgate_config::snapshot::Object;
use schoolgate_testkit::{Answer, Http, Origin};
use serde_json::json;

use crate::site::{Site, given, route};

const HTTP: [Http; 2] = [Http::One, Http::Two];

/// An answer with fields said once and several times, of the gateway's security and of the application.
fn said() -> Answer {
    Answer::new(200)
        .header("cache-control", "private")
        .header("cache-control", "max-age=5")
        .header("set-cookie", "a=1")
        .header("set-cookie", "b=2")
        .header("x-many", "1")
        .header("x-many", "2")
        .header("x-frame-options", "DENY")
        .header("x-kept", "1")
        .header("x-kept", "2")
        .body("said")
}

fn rule() -> Object {
    route(json!({"match": {"path_prefix": "/said"}, "action": {
        "set_response_headers": {
            "Cache-Control": "no-store", "x-many": "one", "X-New": "a, b", "content-security-policy": "default-src 'self'",
            "x-frame-options": "SAMEORIGIN", "referrer-policy": "no-referrer",
        },
        "remove_response_headers": ["Set-Cookie", "x-content-type-options", "x-absent"],
    }}))
}

fn all(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|value| value.to_str().unwrap().to_owned()).collect()
}

/// The answer to a request without a body takes the direct way where the backend speaks HTTP/1.1; one with a body, or of
/// another backend, is Pingora's.
async fn answers(site: &Site, path: &str) -> Vec<(String, reqwest::Response)> {
    let mut answers = Vec::new();
    for http in HTTP {
        for method in [Method::GET, Method::POST] {
            let request = site.visitor("greenhill.school.test", http).request(method.clone(), path);
            let request = if method == Method::POST { request.body("a body") } else { request };
            answers.push((format!("{method} {http:?}"), request.send().await.unwrap()));
        }
    }
    answers
}

#[tokio::test]
async fn a_route_sets_and_removes_fields_on_every_way_and_protocol() {
    let origin = Origin::start().await;
    origin.answer("/said", said());
    for backend in [origin.url(), origin.h2c_url()] {
        let site = given([&backend]).object(rule()).start().await;
        for (way, answer) in answers(&site, "/said").await {
            let headers = answer.headers().clone();
            for (name, values) in [
                ("cache-control", vec!["no-store"]),
                ("x-many", vec!["one"]),
                ("x-new", vec!["a, b"]),
                ("content-security-policy", vec!["default-src 'self'"]),
                // The operator's word counts for more than the application's and the gateway's own.
                ("x-frame-options", vec!["SAMEORIGIN"]),
                ("referrer-policy", vec!["no-referrer"]),
                ("x-content-type-options", vec![]),
                ("set-cookie", vec![]),
                ("x-absent", vec![]),
                ("x-kept", vec!["1", "2"]),
            ] {
                assert_eq!(all(&headers, name), values, "{name} of {way} at {backend}");
            }
            assert_eq!(all(&headers, "x-request-id").len(), 1, "{way} at {backend}");
            assert_eq!(headers["x-origin"], "origin");
            assert_eq!(answer.text().await.unwrap(), "said", "{way} at {backend}");
        }
        // Beside it everything is as it was.
        for (way, answer) in answers(&site, "/status/404").await {
            let headers = answer.headers();
            assert_eq!(all(headers, "x-frame-options"), ["SAMEORIGIN"], "{way}: the gateway's own");
            assert!(!headers.contains_key("x-new") && headers.contains_key("x-content-type-options"), "{way}");
        }
    }
}

#[tokio::test]
async fn a_field_that_frames_or_vouches_is_never_a_routes() {
    // Refused when it is written; one that is there all the same breaks no message.
    let names = ["connection", "content-length", "keep-alive", "trailer", "transfer-encoding", "upgrade"];
    let ours = ["x-request-id", "x-tenant-context", "x_named"];
    let named: Vec<&str> = names.into_iter().chain(ours).collect();
    let set: serde_json::Map<_, _> = named.iter().map(|name| ((*name).to_owned(), json!("7"))).collect();
    let origin = Origin::start().await;
    origin.answer("/said", said());
    for backend in [origin.url(), origin.h2c_url()] {
        for action in [json!({"set_response_headers": set}), json!({"remove_response_headers": named})] {
            let site = given([&backend]).object(route(json!({"action": action}))).start().await;
            for (way, answer) in answers(&site, "/said").await {
                let headers = answer.headers().clone();
                assert_eq!(all(&headers, "content-length"), ["4"], "{way} at {backend}");
                assert_eq!(headers["x-request-id"].len(), 26, "{way} at {backend}");
                for name in ["keep-alive", "trailer", "transfer-encoding", "upgrade", "x-tenant-context", "x_named"] {
                    assert!(!headers.contains_key(name), "{name} of {way} at {backend}");
                }
                assert_eq!(answer.text().await.unwrap(), "said", "{way} at {backend}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_route_answers_by_itself_has_its_fields_and_a_fault_has_not() {
    let site = given(Vec::<String>::new())
        .object(route(
            json!({"id": "rt_01ARZ3NDEKTSV4RRFFQ69G5FA1", "match": {"path_exact": "/robots.txt"}, "action": {
                "answer": {"body": "User-agent: *\n"},
                "set_response_headers": {"cache-control": "max-age=60", "x-frame-options": "DENY"},
                "remove_response_headers": ["referrer-policy"],
            }}),
        ))
        .object(route(json!({"id": "rt_01ARZ3NDEKTSV4RRFFQ69G5FA2", "match": {"path_prefix": "/old"}, "action": {
            "redirect": {"to": "/new"}, "set_response_headers": {"cache-control": "max-age=60"},
        }})))
        .object(route(json!({"id": "rt_01ARZ3NDEKTSV4RRFFQ69G5FA3", "action": {
            "set_response_headers": {"cache-control": "max-age=60"},
        }})))
        .start()
        .await;
    for http in HTTP {
        let visitor = site.visitor("greenhill.school.test", http);
        let robots = visitor.get("/robots.txt").await;
        let headers = robots.headers();
        assert_eq!(
            (all(headers, "cache-control"), all(headers, "x-frame-options")),
            (vec!["max-age=60".into()], vec!["DENY".into()])
        );
        assert!(!headers.contains_key("referrer-policy") && headers.contains_key("x-content-type-options"));
        assert_eq!(all(visitor.get("/old").await.headers(), "cache-control"), ["max-age=60"]);
        let fault = visitor.get("/").await;
        assert_eq!(
            (fault.status().as_u16(), all(fault.headers(), "cache-control")),
            (503, vec!["no-store".to_owned()])
        );
    }
}
