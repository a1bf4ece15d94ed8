//! Being asked to stop: in order, or at once.

use std::time::Duration;

use rustix::process::Signal;
use schoolgate_testkit::{Origin, eventually};

use crate::{SOON, gateway, pool, school};

/// Longer than any test waits: who is stopped in order waits this long for a request in flight.
const LONG_DRAIN: &str = "[proxy]\ndrain_s = 120\n";

#[tokio::test]
async fn asked_twice_it_ends_at_once() {
    let origin = Origin::start().await;
    let mut site = gateway().settings(LONG_DRAIN).up().await;
    pool(&site.api(), "web", &[&origin]).await;
    school(&site.api(), "ash", "web").await;
    let client = site.client("ash.localhost");
    let cut = tokio::spawn(async move { client.try_get("/delay/60000").await.is_err() });
    eventually(SOON, || async { origin.in_flight() == 1 }).await;
    while site.proxy.is_running() {
        site.proxy.signal(Signal::INT);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(site.proxy.ended().await.code(), Some(130));
    assert!(cut.await.expect("no panic"));
}

#[tokio::test]
async fn a_signal_that_comes_twice_in_a_moment_is_one_request() {
    let origin = Origin::start().await;
    let mut site = gateway().settings(LONG_DRAIN).up().await;
    pool(&site.api(), "web", &[&origin]).await;
    school(&site.api(), "ash", "web").await;
    let client = site.client("ash.localhost");
    let slow = tokio::spawn(async move { client.get("/delay/1000").await.status() });
    eventually(SOON, || async { origin.in_flight() == 1 }).await;
    site.proxy.signal(Signal::TERM);
    site.proxy.signal(Signal::TERM);
    assert!(site.proxy.ended().await.success());
    assert_eq!(slow.await.expect("no panic"), 200);
}

#[tokio::test]
async fn a_second_start_after_a_kill_is_not_in_its_own_way() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let mut site = gateway().data_dir(&data).up().await;
    let token = site.token();
    site.kill();
    assert!(data.join("run/addresses.json").exists(), "nobody could take it back");
    site.start().await;
    assert_eq!(site.token(), token);
    assert!(site.stop().await.success());
    assert!(!data.join("run/addresses.json").exists(), "who has stopped is nowhere");
}
