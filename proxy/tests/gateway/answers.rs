use schoolgate_testkit::{Answer, Http, Origin};
use serde_json::json;

use crate::site::{given, route, tenant};

#[tokio::test]
async fn what_two_parsers_could_read_differently_is_refused_and_the_connection_closed() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    let host = "Host: greenhill.school.test\r\n";
    for head in [
        format!("POST / HTTP/1.1\r\n{host}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{host}Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
        format!("POST / HTTP/1.1\r\n{host}Content-Length: +5\r\n\r\nhello"),
        format!("GET / HTTP/1.1\r\n{host}Connection: Host\r\n\r\n"),
        format!("GET / HTTP/1.1\r\n{host}{host}\r\n"),
        format!("GET http://other.test/ HTTP/1.1\r\n{host}\r\n"),
        format!("GET /a/../b HTTP/1.1\r\n{host}\r\n"),
        format!("GET //b HTTP/1.1\r\n{host}\r\n"),
        format!("TRACE / HTTP/1.1\r\n{host}\r\n"),
    ] {
        let mut connection = site.raw("greenhill.school.test").await;
        connection.send(&head).await.unwrap();
        let answer = connection.read_response().await.unwrap();
        assert_eq!(answer.status, 400, "{head}");
        assert_eq!(answer.header("connection"), Some("close"), "{head}");
        assert!(connection.read_to_end().await.unwrap().is_empty(), "{head}");
    }
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn an_answer_of_ours_names_its_request_and_keeps_the_connection() {
    let site = given(Vec::<String>::new()).start().await;
    let mut connection = site.raw("greenhill.school.test").await;
    for _ in 0..2 {
        let answer = connection.get("greenhill.school.test", "/").await.unwrap();
        assert_eq!((answer.status, answer.json()["error"].as_str()), (503, Some("NO_BACKEND")));
        assert_eq!(answer.json()["request_id"].as_str(), answer.header("x-request-id"));
        assert_eq!(answer.header("content-type"), Some("application/problem+json"));
        assert_eq!(answer.header("retry-after"), Some("5"));
    }
    connection
        .send("HEAD / HTTP/1.1\r\nHost: greenhill.school.test\r\n\r\nGET / HTTP/1.1\r\nHost: nobody.test\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let head = String::from_utf8(connection.read_to_end().await.unwrap()).unwrap();
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    assert!(!head.split_once("\r\n\r\n").unwrap().1.starts_with('{'), "an answer to HEAD has no body: {head}");
}

#[tokio::test]
async fn the_server_is_asked_about_itself_and_absolute_targets_are_served() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    let mut connection = site.raw("greenhill.school.test").await;
    connection.send("OPTIONS * HTTP/1.1\r\nHost: greenhill.school.test\r\n\r\n").await.unwrap();
    assert_eq!(connection.read_response().await.unwrap().status, 204);
    connection
        .send("GET https://greenhill.school.test/x?y HTTP/1.1\r\nHost: greenhill.school.test\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(connection.read_response().await.unwrap().status, 200);
    assert_eq!((origin.last().path.as_str(), origin.last().authority), ("/x", None));
}

#[tokio::test]
async fn routes_redirect_refuse_rewrite_and_change_pools() {
    let (first, second) = (Origin::named("first").await, Origin::named("second").await);
    let id = |n: u8| format!("rt_01ARZ3NDEKTSV4RRFFQ69G5FA{n}");
    let site = given([first.url()])
        .object(crate::site::object::<schoolgate_config::model::Pool>(crate::site::pool("other", [second.url()])))
        .object(route(json!({"id": id(1), "match": {"path_prefix": "/old"}, "action": {"redirect": {"to": "/new", "status": 301}}})))
        .object(route(json!({"id": id(2), "match": {"path_prefix": "/lms"}, "action": {"requires_feature": "lms"}})))
        .object(route(json!({"id": id(3), "match": {"path_prefix": "/down"}, "action": {"maintenance": true}})))
        .object(route(json!({"id": id(4), "match": {"path_prefix": "/api"}, "action": {
            "pool": "other", "rewrite": {"prefix": "/v2"}, "set_headers": {"x-env": "blue"}, "remove_headers": ["accept"],
        }})))
        .start()
        .await;
    for http in [Http::One, Http::Two] {
        let visitor = site.visitor("greenhill.school.test", http);
        let answer = visitor.get("/old/x").await;
        assert_eq!((answer.status().as_u16(), answer.headers()["location"].to_str().unwrap()), (301, "/new"));
        assert_eq!(visitor.get_json("/lms").await["error"], "FEATURE_NOT_IN_PLAN");
        assert_eq!(visitor.get_json("/down").await["error"], "TENANT_MAINTENANCE");
        assert_eq!(visitor.get("/api/x?y=1").await.headers()["x-origin"], "second");
        let seen = second.last();
        assert_eq!((seen.path.as_str(), seen.query.as_deref()), ("/v2/x", Some("y=1")));
        assert_eq!((seen.header("x-env"), seen.header("accept")), (Some("blue"), None));
        assert_eq!(visitor.get("/apix").await.headers()["x-origin"], "first");
    }
}

#[tokio::test]
async fn a_school_has_security_headers_and_nobody_learns_what_runs_behind_it() {
    let origin = Origin::start().await;
    let fingerprints = Answer::new(200).header("server", "app/1").header("x-powered-by", "PHP/5").body("ok");
    origin.answer("/", fingerprints.header("x-frame-options", "DENY"));
    let site = given([origin.url()]).start().await;
    let headers = |school: &'static str, path: &'static str| {
        let visitor = site.visitor(&format!("{school}.school.test"), Http::Two);
        async move { visitor.get(path).await.headers().clone() }
    };
    let page = headers("greenhill", "/").await;
    assert_eq!(page["x-content-type-options"], "nosniff");
    assert_eq!(page["x-frame-options"], "DENY");
    assert_eq!(page["referrer-policy"], "strict-origin-when-cross-origin");
    for absent in ["server", "x-powered-by", "strict-transport-security"] {
        assert!(!page.contains_key(absent), "{absent} under the reserved test");
    }
    let security = json!({"frame_options": "any", "referrer_policy": "no-referrer"});
    site.change([tenant("riverside", json!({"state": "suspended", "security": security}))]);
    let fault = headers("riverside", "/").await;
    assert_eq!(
        (fault["x-content-type-options"].as_bytes(), fault["referrer-policy"].as_bytes()),
        (&b"nosniff"[..], &b"no-referrer"[..])
    );
    assert!(!fault.contains_key("server") && !fault.contains_key("x-frame-options"));
}
