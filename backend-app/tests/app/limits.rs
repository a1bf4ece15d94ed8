//! What a plan limits, and what an instance reports of it.

use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::site::{GREENHILL, Instance, Site, claims_with, eventually};

/// A control plane that takes reports, or does not.
#[derive(Clone)]
struct Control {
    url: String,
    seen: Arc<Mutex<Vec<(String, Value)>>>,
    answers: Arc<Mutex<StatusCode>>,
}

impl Control {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/internal/v1/usage", listener.local_addr().unwrap());
        let control = Self { url, seen: Arc::default(), answers: Arc::new(Mutex::new(StatusCode::OK)) };
        let (seen, answers) = (control.seen.clone(), control.answers.clone());
        let take = async move |headers: HeaderMap, Json(report): Json<Value>| {
            let token = headers["authorization"].to_str().unwrap().to_owned();
            seen.lock().unwrap().push((token, report));
            *answers.lock().unwrap()
        };
        let router = Router::new().route("/internal/v1/usage", post(take));
        tokio::spawn(async move { axum::serve(listener, router).await });
        control
    }

    /// How many students were last reported of Greenhill, and taken.
    fn students(&self) -> Option<i64> {
        let seen = self.seen.lock().unwrap();
        seen.last().and_then(|(_, report)| report["tenants"][0]["students"].as_i64())
    }
}

async fn reporting(site: &Site, control: &Control) -> Instance {
    let token_file = site.data_dir().join("instance.token");
    std::fs::write(&token_file, "sgi_abc_secret\n").unwrap();
    let mut options = site.options();
    (options.report_url, options.report_token_file) = (Some(control.url.clone()), Some(token_file));
    Instance::start(options).await
}

fn student(n: u32) -> Value {
    json!({"given_name": format!("Asha {n}"), "family_name": "Juma"})
}

#[tokio::test]
async fn the_101st_user_of_a_basic_school_is_refused_with_a_sentence() {
    let site = Site::new();
    let app = site.instance().await;
    let token = site.greenhill();
    // A new school has eight students.
    for n in 9..=100 {
        assert_eq!(app.post("/api/students", &token, &student(n)).await.status, 201, "{n}");
    }
    let refused = app.post("/api/students", &token, &student(101)).await;
    assert_eq!(refused.problem(), (403, "USER_LIMIT_REACHED".to_owned()));
    let message = refused.json()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("basic allows 100 users") && message.contains("larger"), "{message}");

    let form = [("given_name", "Asha"), ("family_name", "Juma")];
    let page = app.post_form("/students", &token, &form).await;
    assert_eq!(page.status, 403);
    assert!(
        page.text().contains("basic allows 100 users") && page.text().contains("value=\"Asha\""),
        "{}",
        page.text()
    );

    // The gateway vouches for another plan, and the next one is let in.
    let larger = site.gateway.sign(&claims_with(json!({"plan": "standard", "limits": {"users": 300}})));
    assert_eq!(app.post("/api/students", &larger, &student(101)).await.status, 201);
    let without = site.gateway.sign(&claims_with(json!({"limits": {}})));
    assert_eq!(app.post("/api/students", &without, &student(102)).await.status, 201, "no limit is no limit");
}

#[tokio::test]
async fn two_who_enrol_at_once_do_not_both_get_the_last_place() {
    let site = Site::new();
    let (one, two) = (site.instance().await, site.instance().await);
    let token = site.gateway.sign(&claims_with(json!({"limits": {"users": 9}})));
    let (a, b) = (student(1), student(2));
    let (a, b) = tokio::join!(one.post("/api/students", &token, &a), two.post("/api/students", &token, &b));
    let mut statuses = [a.status.as_u16(), b.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 403]);
}

#[tokio::test]
async fn a_school_is_reported_when_it_is_opened_and_when_it_changes() {
    let (site, control) = (Site::new(), Control::start().await);
    let app = reporting(&site, &control).await;
    let token = site.greenhill();
    assert_eq!(app.get("/whoami", &token).await.status, 200);
    assert_eq!(app.get("/students", &token).await.status, 200);
    eventually("the school is reported", async || control.students() == Some(8)).await;
    assert_eq!(app.post("/api/students", &token, &student(9)).await.status, 201);
    eventually("the change is reported", async || control.students() == Some(9)).await;
    let (bearer, report) = control.seen.lock().unwrap().last().unwrap().clone();
    assert_eq!(bearer, "Bearer sgi_abc_secret");
    assert_eq!(report["instance"], app.address.to_string());
    let school = &report["tenants"][0];
    assert_eq!((&school["tenant"], &school["users"]), (&json!(GREENHILL), &json!(9)));
    assert!(school["storage_bytes"].as_i64().unwrap() > 4_096, "{report}");
}

#[tokio::test]
async fn a_report_that_is_not_taken_is_made_again_and_nobody_waits_for_it() {
    let (site, control) = (Site::new(), Control::start().await);
    *control.answers.lock().unwrap() = StatusCode::SERVICE_UNAVAILABLE;
    let app = reporting(&site, &control).await;
    let token = site.greenhill();
    assert_eq!(app.post("/api/students", &token, &student(9)).await.status, 201);
    eventually("it is tried", async || control.students() == Some(9)).await;
    let tried = control.seen.lock().unwrap().len();
    *control.answers.lock().unwrap() = StatusCode::OK;
    eventually("it is tried again", async || control.seen.lock().unwrap().len() > tried).await;
    assert_eq!(control.students(), Some(9));
}
