//! What becomes of requests at a backend that goes.

use futures_util::{SinkExt, StreamExt};
use reqwest::Method;
use schoolgate_testkit::{Api, Http, Origin, Site, eventually};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::{SOON, gateway_with};

/// Requests that do not end by themselves, one for each way through the gateway.
struct Endless {
    socket: tokio::task::JoinHandle<()>,
    /// An answer whose body does not end, by HTTP/1.1 and HTTP/2.
    events: Vec<reqwest::Response>,
    /// A request with a body whose answer does not begin.
    upload: tokio::task::JoinHandle<bool>,
}

impl Endless {
    async fn start(site: &Site, origin: &Origin) -> Self {
        let before = origin.in_flight();
        let tls = site.tls("ash.localhost").await.expect("TLS");
        let mut socket = tls.websocket("ash.localhost", "/ws").await.expect("an upgrade");
        socket.send(Message::text("hello")).await.expect("sent");
        assert_eq!(socket.next().await.expect("open").expect("a message"), Message::text("hello"));
        let socket = tokio::spawn(async move {
            while let Some(Ok(message)) = socket.next().await {
                assert!(!message.is_text(), "{message}");
            }
        });
        let mut events = Vec::new();
        for http in [Http::One, Http::Two] {
            events.push(site.client_with("ash.localhost", http).get("/sse").await);
        }
        let client = site.client_with("ash.localhost", Http::Two);
        let upload = tokio::spawn(async move {
            let answer = client.request(Method::POST, "/delay/600000").body("a body").send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        });
        // The others have been answered; this one has only been asked.
        eventually(SOON, || async { origin.in_flight() > before }).await;
        Self { socket, events, upload }
    }

    /// Waits until each has ended, and none well.
    async fn are_cut(self) {
        let ended = tokio::time::timeout(SOON, async {
            self.socket.await.expect("nothing more came");
            for events in self.events {
                let mut body = events.bytes_stream();
                let broken = loop {
                    match body.next().await {
                        Some(Ok(_)) => {}
                        Some(Err(_)) => break true,
                        None => break false,
                    }
                };
                assert!(broken, "a client sees that the answer is not whole");
            }
            assert!(!self.upload.await.expect("no panic"), "it was not answered");
        });
        ended.await.expect("what does not end is cut");
    }
}

async fn first_backend(api: &Api) -> String {
    let pool = api.get("pools/web").await.expect(200);
    pool["backends"][0]["id"].as_str().expect("an id").to_owned()
}

/// A gateway on `one`, whose backends have a second to finish, and to which `two` has come.
async fn two_with_a_second(one: &Origin, two: &Origin) -> (Site, Endless) {
    let site = gateway_with(&[one]).await;
    site.api().patch("pools/web?wait=applied", json!({ "drain_s": 1 })).await.expect(200);
    let endless = Endless::start(&site, one).await;
    site.api().post("pools/web/backends?wait=applied", json!({ "address": two.url() })).await.expect(201);
    (site, endless)
}

#[tokio::test]
async fn what_a_drained_backend_does_not_finish_in_its_time_is_cut() {
    let (one, two) = (Origin::named("one").await, Origin::named("two").await);
    let (site, endless) = two_with_a_second(&one, &two).await;
    let drain = format!("pools/web/backends/{}/drain?wait=applied", first_backend(&site.api()).await);
    site.api().post(&drain, json!({})).await.expect(200);
    assert_eq!(site.client("ash.localhost").get_json("/").await["origin"], "two");
    endless.are_cut().await;
    eventually(SOON, || async { one.in_flight() == 0 }).await;
    let flying = "schoolgate_requests_in_flight";
    eventually(SOON, || async { site.metric(flying, &["tenant=\"ash\""]).await == 0.0 }).await;
    // Who comes back is asked again, and what it has is not cut.
    site.api().post(&drain.replace("/drain", "/undrain"), json!({})).await.expect(200);
    let client = site.client("ash.localhost");
    eventually(SOON, || async { client.get_json("/").await["origin"] == "one" }).await;
    let slow = client.get("/delay/2500").await;
    assert_eq!(slow.status(), 200);
}

#[tokio::test]
async fn what_a_removed_backend_does_not_finish_in_its_time_is_cut() {
    let (one, two) = (Origin::named("one").await, Origin::named("two").await);
    let (site, endless) = two_with_a_second(&one, &two).await;
    let removed = site.api().delete(&format!("pools/web/backends/{}", first_backend(&site.api()).await)).await;
    assert!(matches!(removed.status, 200 | 204), "{}", removed.text);
    endless.are_cut().await;
    eventually(SOON, || async { one.in_flight() == 0 }).await;
    assert_eq!(site.client("ash.localhost").get_json("/").await["origin"], "two");
}
