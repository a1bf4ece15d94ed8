//! The gateway's keys: fetched, rotated, gone.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::routing::get;
use schoolgate_backend_app::{KeySource, Options};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::site::{Gateway, Instance, Site, claims};

/// A control API that only has keys.
struct KeyServer {
    url: String,
    jwks: Arc<Mutex<String>>,
    asked: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl KeyServer {
    async fn start(jwks: String) -> Self {
        let jwks = Arc::new(Mutex::new(jwks));
        let asked = Arc::new(AtomicUsize::new(0));
        let (served, counted) = (Arc::clone(&jwks), Arc::clone(&asked));
        let answer = move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let jwks = served.lock().unwrap().clone();
            async move { jwks }
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks.json", listener.local_addr().unwrap());
        let router = Router::new().route("/jwks.json", get(answer));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, jwks, asked, serving }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    fn options(&self, site: &Site) -> Options {
        Options { keys: self.url.parse().unwrap(), ..site.options() }
    }
}

#[tokio::test]
async fn a_new_key_counts_at_once_and_invented_ones_are_no_load() {
    let site = Site::new();
    let server = KeyServer::start(site.gateway.jwks()).await;
    let app = Instance::start(server.options(&site)).await;
    assert_eq!(app.get("/whoami", &site.greenhill()).await.status, 200);
    assert_eq!(server.asked(), 1);

    let rotated = Gateway::new("k2");
    *server.jwks.lock().unwrap() = rotated.jwks();
    assert_eq!(app.get("/whoami", &rotated.sign(&claims())).await.status, 200);
    assert_eq!(server.asked(), 2);

    for n in 0..10 {
        let invented = Gateway::new(&format!("invented-{n}")).sign(&claims());
        assert_eq!(app.get("/whoami", &invented).await.problem(), (401, "INVALID_TOKEN".to_owned()));
    }
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn many_who_meet_a_new_key_at_once_ask_for_it_once() {
    let site = Site::new();
    let server = KeyServer::start(site.gateway.jwks()).await;
    let app = Arc::new(Instance::start(server.options(&site)).await);
    let rotated = Gateway::new("k2");
    *server.jwks.lock().unwrap() = rotated.jwks();
    let token = rotated.sign(&claims());
    let asking = (0..16).map(|_| {
        let (app, token) = (Arc::clone(&app), token.clone());
        tokio::spawn(async move { app.get("/whoami", &token).await.status })
    });
    for asked in asking.collect::<Vec<_>>() {
        assert_eq!(asked.await.unwrap(), 200);
    }
    assert_eq!(server.asked(), 2);
}

#[tokio::test]
async fn an_instance_restarted_without_its_source_still_verifies() {
    let site = Site::new();
    let server = KeyServer::start(site.gateway.jwks()).await;
    let app = Instance::start(server.options(&site)).await;
    app.stop().await.unwrap().unwrap();
    let options = server.options(&site);
    server.serving.abort();
    assert!(server.serving.await.unwrap_err().is_cancelled());

    let restarted = Instance::start(options).await;
    assert_eq!(restarted.get_unsigned("/readyz").await.status, 200);
    assert_eq!(restarted.get("/whoami", &site.greenhill()).await.status, 200);
}

#[tokio::test]
async fn a_source_that_turns_bad_does_not_take_the_keys_away() {
    let site = Site::new();
    let server = KeyServer::start(site.gateway.jwks()).await;
    let app = Instance::start(server.options(&site)).await;
    for bad in ["", "<html>", r#"{"keys":[]}"#] {
        *server.jwks.lock().unwrap() = bad.to_owned();
        app.get("/whoami", &Gateway::new("k2").sign(&claims())).await;
        assert_eq!(app.get("/whoami", &site.greenhill()).await.status, 200);
    }
}

#[tokio::test]
async fn an_instance_that_never_had_keys_says_that_it_is_not_ready() {
    let site = Site::new();
    let app =
        Instance::start(Options { keys: KeySource::File(site.data_dir().join("later.json")), ..site.options() }).await;
    assert_eq!(app.get_unsigned("/healthz").await.status, 200);
    assert_eq!(app.get_unsigned("/readyz").await.status, 503);
    let answer = app.get("/whoami", &site.greenhill()).await;
    assert_eq!(answer.problem(), (503, "KEYS_UNAVAILABLE".to_owned()));
    assert_eq!(answer.header("retry-after"), "5");
}

#[tokio::test]
async fn keys_that_appear_after_the_start_are_found() {
    let site = Site::new();
    let later = site.data_dir().join("later.json");
    let app = Instance::start(Options { keys: KeySource::File(later.clone()), ..site.options() }).await;
    std::fs::write(later, site.gateway.jwks()).unwrap();
    assert_eq!(app.get("/whoami", &site.greenhill()).await.status, 200);
    assert_eq!(app.get_unsigned("/readyz").await.status, 200);
}
