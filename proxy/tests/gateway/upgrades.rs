use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use schoolgate_testkit::Origin;
use schoolgate_testkit::eventually;
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::site::{given, route, tenant};

#[tokio::test]
async fn a_websocket_passes_both_ways_and_survives_a_new_table() {
    let origin = Origin::start().await;
    let pool = json!({"timeouts": {"read_ms": 200}});
    let site = given([origin.url()]).pool(pool).start().await;
    let mut socket = site.raw("greenhill.school.test").await.websocket("greenhill.school.test", "/ws").await.unwrap();
    socket.send(Message::text("before")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("before"));
    assert_eq!(site.in_flight(), 1);
    site.change([route(json!({"action": {"maintenance": true}})), tenant("greenhill", json!({"plan": "premium"}))]);
    assert_eq!(site.greenhill().get("/").await.status(), 503, "new requests see the new table");
    // Longer than the answer to an ordinary request may take.
    tokio::time::sleep(Duration::from_millis(400)).await;
    socket.send(Message::text("after")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("after"));
    socket.close(None).await.unwrap();
    drop(socket);
    eventually(Duration::from_secs(5), || async { site.in_flight() == 0 }).await;
}

#[tokio::test]
async fn a_backend_that_does_not_switch_answers_as_usual() {
    let origin = Origin::start().await;
    let site = given([origin.url()]).start().await;
    let mut connection = site.raw("greenhill.school.test").await;
    connection
        .send("GET /status/404 HTTP/1.1\r\nHost: greenhill.school.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
        .await
        .unwrap();
    assert_eq!(connection.read_response().await.unwrap().status, 404);
}
