use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::client::{self, H1, config, h2_get, handshake};
use crate::site::Site;

#[tokio::test]
async fn what_is_in_flight_ends_and_nothing_new_begins() {
    let site = Site::start().await;
    let (https, roots) = (site.https(), site.roots());
    let mut busy = H1(handshake(https, config(roots.clone(), &["http/1.1"]), "a.example").await.unwrap());
    let mut idle = H1(handshake(https, config(roots.clone(), &["http/1.1"]), "a.example").await.unwrap());
    idle.get("/hello").await.unwrap();
    let (sender, driver) = client::h2(https, roots).await;
    let mut streaming = sender.clone();
    let stream = tokio::spawn(async move { h2_get(&mut streaming, "/gate").await });
    busy.send("GET /gate HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    let origin = site.origin;
    origin.waiting.acquire_many(2).await.unwrap().forget();

    let stopping = tokio::spawn(site.edge.shutdown(Duration::from_secs(5)));
    assert!(idle.ends_within(Duration::from_secs(3)).await, "an idle connection is closed");
    for _ in 0..500 {
        if TcpStream::connect(https).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(TcpStream::connect(https).await.is_err(), "nobody listens any more");
    origin.gate.add_permits(2);
    assert_eq!(busy.answer().await.unwrap().text(), "through the gate");
    assert_eq!(stream.await.unwrap().unwrap().1, b"through the gate");
    drop(sender);
    driver.await.unwrap().expect("closed by GOAWAY");
    assert!(stopping.await.unwrap(), "all ended by themselves");
}

#[tokio::test]
async fn a_request_that_was_on_its_way_when_the_stop_came_is_answered() {
    let site = Site::with(|limits| limits.lame_duck = Duration::from_secs(2)).await;
    let (https, roots) = (site.https(), site.roots());
    let mut idle = H1(handshake(https, config(roots.clone(), &["http/1.1"]), "a.example").await.unwrap());
    idle.get("/hello").await.unwrap();
    let stopping = tokio::spawn(site.edge.shutdown(Duration::from_secs(5)));
    while TcpStream::connect(https).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let answer = idle.get("/hello").await.expect("an answer");
    assert!(answer.head.to_ascii_lowercase().contains("connection: close"), "{}", answer.head);
    assert!(idle.ends_within(Duration::from_secs(1)).await);
    drop(idle);
    assert!(stopping.await.unwrap());
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut() {
    let site = Site::start().await;
    let mut busy = H1(handshake(site.https(), config(site.roots(), &["http/1.1"]), "a.example").await.unwrap());
    busy.send("GET /gate HTTP/1.1\r\nHost: a.example\r\n\r\n").await;
    site.origin.waiting.acquire().await.unwrap().forget();
    let begun = Instant::now();
    assert!(!site.edge.shutdown(Duration::from_millis(500)).await);
    assert!(begun.elapsed() < Duration::from_secs(3));
    assert!(busy.ends_within(Duration::from_secs(1)).await);
}
