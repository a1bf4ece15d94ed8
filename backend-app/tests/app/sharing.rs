//! Several instances, several schools, one data directory.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::site::{Instance, Site, riverside};

async fn names(app: &Instance, token: &str) -> Vec<String> {
    let list = app.get("/api/students?limit=200", token).await.json();
    list["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|student| student["family_name"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn what_one_instance_writes_the_other_shows_at_once() {
    let site = Site::new();
    let (a, b) = (site.instance().await, site.instance().await);
    let token = site.greenhill();
    let created = a.post("/api/students", &token, &json!({"given_name": "Asha", "family_name": "Juma"})).await;
    assert_eq!(created.status, 201, "{}", created.text());
    let seen = b.get(created.header("location"), &token).await;
    assert_eq!(seen.json(), created.json());
    assert!(names(&b, &token).await.contains(&"Juma".to_owned()));
}

#[tokio::test]
async fn one_school_never_sees_another() {
    let site = Site::new();
    let app = site.instance().await;
    let (greenhill, riverside) = (site.greenhill(), site.gateway.sign(&riverside()));
    let created = app.post("/api/students", &greenhill, &json!({"given_name": "Asha", "family_name": "Juma"})).await;
    assert_eq!(app.get(created.header("location"), &riverside).await.problem(), (404, "NOT_FOUND".to_owned()));
    assert!(!names(&app, &riverside).await.contains(&"Juma".to_owned()));
    let ids = |list: Value| {
        let items = list["items"].as_array().unwrap().clone();
        items.into_iter().map(|student| student["id"].as_str().unwrap().to_owned()).collect::<HashSet<_>>()
    };
    let of_greenhill = ids(app.get("/api/students", &greenhill).await.json());
    let of_riverside = ids(app.get("/api/students", &riverside).await.json());
    assert!(of_greenhill.is_disjoint(&of_riverside));
}

#[tokio::test]
async fn two_instances_that_first_need_a_school_at_once_make_one() {
    let site = Site::new();
    let instances = [Arc::new(site.instance().await), Arc::new(site.instance().await)];
    let token = site.greenhill();
    let asking = (0..16).map(|n| {
        let (app, token) = (Arc::clone(&instances[n % 2]), token.clone());
        tokio::spawn(async move { app.get("/api/classes", &token).await })
    });
    let mut answers = HashSet::new();
    for asked in asking.collect::<Vec<_>>() {
        let answer = asked.await.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answers.insert(answer.text());
    }
    assert_eq!(answers.len(), 1, "all see the same sections, by their ids");
}

#[tokio::test]
async fn two_instances_that_write_at_once_lose_nothing() {
    let site = Site::new();
    let instances = [Arc::new(site.instance().await), Arc::new(site.instance().await)];
    let token = site.greenhill();
    let before = names(&instances[0], &token).await.len();
    let writing = (0..8).map(|task| {
        let (app, token) = (Arc::clone(&instances[task % 2]), token.clone());
        tokio::spawn(async move {
            let mut numbers = Vec::new();
            for n in 0..10 {
                let student = json!({"given_name": format!("N{n}"), "family_name": format!("T{task}")});
                let created = app.post("/api/students", &token, &student).await;
                assert_eq!(created.status, 201, "{}", created.text());
                numbers.push(created.json()["admission_no"].as_str().unwrap().to_owned());
            }
            numbers
        })
    });
    let mut numbers = HashSet::new();
    for written in writing.collect::<Vec<_>>() {
        numbers.extend(written.await.unwrap());
    }
    assert_eq!(numbers.len(), 80, "no admission number is given out twice");
    for app in &instances {
        assert_eq!(names(app, &token).await.len(), before + 80);
    }
}

#[tokio::test]
async fn more_schools_than_may_be_open_are_all_served() {
    let site = Site::new();
    let mut options = site.options();
    options.max_open_schools = 2;
    let app = Instance::start(options).await;
    for round in 0..2 {
        for n in 0..6 {
            let id = format!("tnt_01JD000000000000000000010{n}");
            let token = site.gateway.sign(&crate::site::claims_with(json!({"sub": id, "tenant_id": id})));
            let answer = app
                .post("/api/students", &token, &json!({"given_name": "A", "family_name": format!("Z{round}")}))
                .await;
            assert_eq!(answer.status, 201, "{}", answer.text());
            assert_eq!(names(&app, &token).await.len(), 9 + round);
        }
    }
}
