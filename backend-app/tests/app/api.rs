//! The JSON API and the WebSocket.

use axum::body::Body;
use axum::http::Method;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::site::{Instance, Site, claims_with};

async fn site_and_app() -> (Site, Instance, String) {
    let site = Site::new();
    let app = site.instance().await;
    let token = site.greenhill();
    (site, app, token)
}

#[tokio::test]
async fn a_new_school_has_a_grade_with_two_sections_and_students_in_both() {
    let (_site, app, token) = site_and_app().await;
    let classes = app.get("/api/classes", &token).await.json();
    let grade = &classes["items"][0];
    assert_eq!(grade["name"], "Grade 10");
    let sections = grade["sections"].as_array().unwrap();
    assert_eq!(sections.iter().map(|section| section["name"].as_str().unwrap()).collect::<Vec<_>>(), ["A", "B"]);
    assert!(sections.iter().all(|section| section["students"] == 4));
}

#[tokio::test]
async fn the_list_is_ordered_searched_and_cut() {
    let (_site, app, token) = site_and_app().await;
    let all = app.get("/api/students", &token).await.json();
    let names = |list: &Value| {
        list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["family_name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let sorted = ["Almeida", "Hassan", "Mushi", "Mwangi", "Okafor", "Rahman", "Rossi", "Yılmaz"];
    assert_eq!(names(&all), sorted);
    assert_eq!(all["next"], Value::Null);

    let found = app.get("/api/students?q=elif%20YILMAZ", &token).await.json();
    assert_eq!(names(&found), [""; 0], "dotless i is another letter");
    let found = app.get("/api/students?q=EL%C4%B0F", &token).await.json();
    assert_eq!(names(&found), [""; 0], "as is the dotted capital");
    let found = app.get("/api/students?q=ELIF", &token).await.json();
    assert_eq!(names(&found), ["Yılmaz"]);
    assert_eq!(names(&app.get("/api/students?q=%25", &token).await.json()), [""; 0]);

    let section = all["items"][0]["section"]["id"].as_str().unwrap();
    let of_section = app.get(&format!("/api/students?section={section}"), &token).await.json();
    assert_eq!(of_section["items"].as_array().unwrap().len(), 4);

    let mut walked = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = app.get(&format!("/api/students?limit=3{cursor}"), &token).await.json();
        walked.extend(names(&page));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(walked, sorted);
}

#[tokio::test]
async fn a_query_that_is_not_understood_is_refused() {
    let (_site, app, token) = site_and_app().await;
    for query in ["limit=0", "limit=201", "limit=x", "cursor=x", "sort=name"] {
        let answer = app.get(&format!("/api/students?{query}"), &token).await;
        assert_eq!(answer.problem(), (400, "BAD_REQUEST".to_owned()), "{query}");
    }
}

#[tokio::test]
async fn a_student_is_enrolled_whole() {
    let (_site, app, token) = site_and_app().await;
    let section = app.get("/api/classes", &token).await.json()["items"][0]["sections"][1]["id"].clone();
    let student = json!({
        "given_name": "Asha", "family_name": "Juma", "admission_no": "G/10-77", "date_of_birth": "2011-03-04",
        "gender": "female", "section_id": section, "enrolled_on": "2026-01-12",
    });
    let created = app.post("/api/students", &token, &student).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let body = created.json();
    assert_eq!(created.header("location"), format!("/api/students/{}", body["id"].as_str().unwrap()));
    assert_eq!(body["section"], json!({"id": section, "class": "Grade 10", "name": "B"}));
    for field in ["given_name", "family_name", "admission_no", "date_of_birth", "gender", "enrolled_on"] {
        assert_eq!(body[field], student[field], "{field}");
    }
    assert_eq!(app.get(created.header("location"), &token).await.json(), body);
}

#[tokio::test]
async fn a_wrong_student_is_refused_with_every_field_named() {
    let (_site, app, token) = site_and_app().await;
    let answer = app.post("/api/students", &token, &json!({"family_name": "", "gender": "x", "is_admin": true})).await;
    assert_eq!(answer.problem(), (400, "VALIDATION_FAILED".to_owned()));
    let errors = answer.json()["errors"].as_array().unwrap().clone();
    let named: Vec<_> = errors.iter().map(|e| (e["pointer"].as_str().unwrap(), e["code"].as_str().unwrap())).collect();
    assert_eq!(
        named,
        [
            ("/given_name", "required"),
            ("/family_name", "required"),
            ("/gender", "unknown_value"),
            ("/is_admin", "unknown_field")
        ]
    );
}

#[tokio::test]
async fn a_section_of_nowhere_and_a_taken_number_are_refused() {
    let (_site, app, token) = site_and_app().await;
    let student = json!({"given_name": "A", "family_name": "B", "section_id": "01JD0000000000000000000001"});
    let answer = app.post("/api/students", &token, &student).await;
    assert_eq!(answer.problem(), (400, "VALIDATION_FAILED".to_owned()));
    assert_eq!(answer.json()["errors"][0]["pointer"], "/section_id");

    let taken = app.get("/api/students", &token).await.json()["items"][0]["admission_no"].clone();
    let answer =
        app.post("/api/students", &token, &json!({"given_name": "A", "family_name": "B", "admission_no": taken})).await;
    assert_eq!(answer.problem(), (409, "CONFLICT".to_owned()));
    assert_eq!(answer.json()["errors"][0]["code"], "taken");
}

#[tokio::test]
async fn a_body_of_another_kind_is_refused() {
    let (_site, app, token) = site_and_app().await;
    let send = async |media_type: &str, body: &'static str| {
        let request = app.request(Method::POST, "/api/students", Some(&token)).header("Content-Type", media_type);
        app.send(request.body(Body::from(body)).unwrap()).await.problem()
    };
    assert_eq!(send("text/plain", "{}").await, (415, "UNSUPPORTED_MEDIA_TYPE".to_owned()));
    assert_eq!(send("application/json", "[]").await, (400, "VALIDATION_FAILED".to_owned()));
    assert_eq!(send("application/json; charset=utf-8", "{").await, (400, "VALIDATION_FAILED".to_owned()));
}

#[tokio::test]
async fn a_body_longer_than_the_school_may_send_is_refused() {
    let (site, app, _) = site_and_app().await;
    let token = site.gateway.sign(&claims_with(json!({"limits": {"body_bytes": 100}})));
    let long = json!({"given_name": "A", "family_name": "x".repeat(200)});
    assert_eq!(app.post("/api/students", &token, &long).await.problem(), (413, "BODY_TOO_LARGE".to_owned()));

    let chunks = futures_util::stream::iter((0..20).map(|_| Ok::<_, std::io::Error>("0123456789".to_owned())));
    let request = app.request(Method::POST, "/api/students", Some(&token)).header("Content-Type", "application/json");
    let answer = app.send(request.body(Body::from_stream(chunks)).unwrap()).await;
    assert_eq!(answer.problem(), (413, "BODY_TOO_LARGE".to_owned()));

    let short = json!({"given_name": "A", "family_name": "B"});
    assert_eq!(app.post("/api/students", &token, &short).await.status, 201);
}

#[tokio::test]
async fn what_does_not_exist_says_so() {
    let (_site, app, token) = site_and_app().await;
    assert_eq!(app.get("/nothing", &token).await.problem(), (404, "NOT_FOUND".to_owned()));
    assert_eq!(
        app.get("/api/students/01JD0000000000000000000001", &token).await.problem(),
        (404, "NOT_FOUND".to_owned())
    );
    let answer = app.post("/api/classes", &token, &json!({})).await;
    assert_eq!(answer.problem(), (405, "METHOD_NOT_ALLOWED".to_owned()));
    assert_eq!(answer.header("allow"), "GET,HEAD");
}

#[tokio::test]
async fn a_websocket_answers_with_the_schools_slug() {
    let (_site, app, token) = site_and_app().await;
    let mut request = format!("ws://{}/api/live", app.address).into_client_request().unwrap();
    request.headers_mut().insert("X-Tenant-Context", token.parse().unwrap());
    let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("greenhill: hello"));
    socket.send(Message::binary(vec![1, 2])).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(vec![1, 2]));
}

#[tokio::test]
async fn a_websocket_needs_a_context_too() {
    let (_site, app, token) = site_and_app().await;
    let refused = tokio_tungstenite::connect_async(format!("ws://{}/api/live", app.address)).await.unwrap_err();
    assert!(matches!(refused, Error::Http(answer) if answer.status() == 401));
    assert_eq!(app.get("/api/live", &token).await.problem(), (400, "BAD_REQUEST".to_owned()));
}
