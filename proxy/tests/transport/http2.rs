use std::time::Duration;

use bytes::Bytes;
use tokio::time::{sleep, timeout};

use crate::client::{self, H1, PATIENCE, config, h2_get, handshake, request, whole};
use crate::origin::pattern;
use crate::site::Site;

#[tokio::test]
async fn both_protocols_are_spoken_on_one_port() {
    let site = Site::start().await;
    let (mut sender, _driver) = client::h2(site.https(), site.roots()).await;
    let (status, body) = h2_get(&mut sender, "/conn").await.unwrap();
    let body = String::from_utf8(body).unwrap();
    assert_eq!(status, 200);
    assert!(body.ends_with(" a.example H2 1"), "{body}");
    let tls = handshake(site.https(), config(site.roots(), &["http/1.1"]), "a.example").await.unwrap();
    assert!(H1(tls).get("/conn").await.unwrap().text().ends_with(" a.example H1 1"));
}

#[tokio::test]
async fn a_hundred_streams_at_once_each_get_their_own_answer() {
    let site = Site::start().await;
    let (sender, _driver) = client::h2(site.https(), site.roots()).await;
    let requests = (0..100usize).map(|number| {
        let mut sender = sender.clone();
        async move {
            let size = number * 997;
            let (status, body) = h2_get(&mut sender, &format!("/big/{size}")).await.unwrap();
            assert_eq!(status, 200);
            assert!(body == pattern(size), "{size}");
        }
    });
    futures_util::future::join_all(requests).await;
}

#[tokio::test]
async fn large_bodies_arrive_whole_in_both_directions() {
    let site = Site::start().await;
    let (mut sender, _driver) = client::h2(site.https(), site.roots()).await;
    let size = 3_000_000;
    let (_, body) = h2_get(&mut sender, &format!("/big/{size}")).await.unwrap();
    assert!(body == pattern(size));

    let post = http::Request::post("https://a.example/count").header("content-length", size).body(()).unwrap();
    let (answer, mut up) = sender.send_request(post, false).unwrap();
    let mut rest = Bytes::from(pattern(size));
    while !rest.is_empty() {
        up.reserve_capacity(rest.len());
        let room = timeout(PATIENCE, std::future::poll_fn(|cx| up.poll_capacity(cx))).await.unwrap().unwrap().unwrap();
        up.send_data(rest.split_to(room.min(rest.len())), rest.is_empty()).unwrap();
    }
    let answer = timeout(PATIENCE, answer).await.unwrap().unwrap();
    assert_eq!(whole(answer.into_body()).await.unwrap(), format!("{size} true").into_bytes());
}

#[tokio::test]
async fn a_streamed_body_passes_piece_by_piece_in_both_directions() {
    let site = Site::start().await;
    let (mut sender, _driver) = client::h2(site.https(), site.roots()).await;
    let post = http::Request::post("https://a.example/echo").body(()).unwrap();
    let (answer, mut up) = sender.send_request(post, false).unwrap();
    up.send_data(Bytes::from_static(b"one"), false).unwrap();
    let mut down = timeout(PATIENCE, answer).await.unwrap().unwrap().into_body();
    assert_eq!(timeout(PATIENCE, down.data()).await.unwrap().unwrap().unwrap(), "one");
    for word in ["two", "three"] {
        up.send_data(Bytes::from_static(word.as_bytes()), false).unwrap();
        assert_eq!(timeout(PATIENCE, down.data()).await.unwrap().unwrap().unwrap(), word);
    }
    up.send_data(Bytes::new(), true).unwrap();
    assert!(timeout(PATIENCE, whole(down)).await.unwrap().unwrap().is_empty());
}

#[tokio::test]
async fn a_client_that_agreed_on_http_2_and_says_nothing_is_cut() {
    let site = Site::with(|limits| limits.head = Duration::from_millis(200)).await;
    let tls = handshake(site.https(), config(site.roots(), &["h2"]), "a.example").await.unwrap();
    assert!(H1(tls).ends_within(Duration::from_secs(2)).await);
}

#[tokio::test]
async fn a_connection_without_streams_is_closed_after_the_idle_time_and_not_before() {
    let site = Site::with(|limits| limits.idle = Duration::from_millis(500)).await;
    let (mut sender, driver) = client::h2(site.https(), site.roots()).await;
    for _ in 0..3 {
        sleep(Duration::from_millis(300)).await;
        h2_get(&mut sender, "/hello").await.unwrap();
    }
    timeout(Duration::from_secs(3), driver).await.expect("closed in time").unwrap().expect("closed by GOAWAY");
}

#[tokio::test]
async fn a_connection_says_goaway_after_its_last_request() {
    let site = Site::with(|limits| limits.requests_h2 = 3).await;
    let (mut sender, driver) = client::h2(site.https(), site.roots()).await;
    for _ in 0..3 {
        assert_eq!(h2_get(&mut sender, "/hello").await.unwrap().0, 200);
    }
    timeout(Duration::from_secs(3), driver).await.expect("closed in time").unwrap().expect("closed by GOAWAY");
    assert!(sender.send_request(request("/hello"), true).is_err());
}
