//! From a change to the proxies, and the proxies without a control plane.

use schoolgate_testkit::{Origin, Site, eventually};
use serde_json::json;

use crate::{SOON, gateway, pool, school};

async fn split(origin: &Origin) -> Site {
    let site = gateway().split().await;
    pool(&site.api(), "web", &[origin]).await;
    school(&site.api(), "ash", "web").await;
    site
}

#[tokio::test]
async fn a_change_reaches_a_proxy_in_another_process() {
    let origin = Origin::start().await;
    let site = split(&origin).await;
    assert_eq!(site.client("ash.localhost").get("/").await.status(), 200);
    let api = site.api();
    api.post("domains?wait=applied", json!({"name": "erp.ash.test", "tenant": "ash"})).await.expect(201);
    assert_eq!(site.client("erp.ash.test").get("/").await.status(), 200);
    let nodes = api.get("nodes").await.expect(200);
    let node = &nodes["items"][0];
    assert!(node["serving"].as_u64().is_some_and(|r| r > 0), "{nodes}");
}

#[tokio::test]
async fn a_proxy_restarts_from_disk_while_the_control_plane_is_down_and_catches_up() {
    let origin = Origin::start().await;
    let mut site = split(&origin).await;
    site.control.as_mut().expect("a split site").kill();
    assert_eq!(site.client("ash.localhost").get("/").await.status(), 200, "without its control plane");
    site.proxy.kill();
    site.start_proxy().await;
    assert_eq!(site.client("ash.localhost").get("/").await.status(), 200, "restarted from disk");
    site.start().await;
    school(&site.api(), "birch", "web").await;
    assert_eq!(site.client("birch.localhost").get("/").await.status(), 200, "caught up");
}

#[tokio::test]
async fn a_change_made_while_a_proxy_cannot_hear_arrives_when_it_can() {
    let origin = Origin::start().await;
    let site = split(&origin).await;
    let link = site.control_link.as_ref().expect("a split site");
    link.stall();
    let body = json!({"slug": "birch", "name": "Birch", "plan": "basic", "pool": "web"});
    let answer = site.api().post("tenants?wait=applied&timeout=1", body).await;
    assert_eq!(answer.status, 201, "{}", answer.text);
    assert_eq!(site.client("ash.localhost").get("/").await.status(), 200);
    link.pass();
    link.cut();
    link.pass();
    eventually(SOON, || async { site.client("birch.localhost").try_get("/").await.is_ok_and(|r| r.status() == 200) })
        .await;
}

#[tokio::test]
async fn a_damaged_last_good_file_is_set_aside_and_reported() {
    let origin = Origin::start().await;
    let mut site = split(&origin).await;
    assert!(site.proxy.stop().await.success());
    let dir = site.data().join("proxy/last-good");
    let mut damaged = 0;
    for entry in std::fs::read_dir(&dir).expect("the last good state is there") {
        let path = entry.expect("readable").path();
        let mut bytes = std::fs::read(&path).unwrap_or_default();
        if bytes.len() > 40 {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
            std::fs::write(&path, bytes).expect("written");
            damaged += 1;
        }
    }
    assert!(damaged > 0, "nothing to damage in {}", dir.display());
    site.start_proxy().await;
    eventually(SOON, || async { site.client("ash.localhost").try_get("/").await.is_ok_and(|r| r.status() == 200) })
        .await;
    let kept = std::fs::read_dir(&dir)
        .expect("readable")
        .any(|e| e.expect("readable").file_name().to_string_lossy().contains("damaged"));
    assert!(kept, "the damaged files must be kept for a look");
    let api = site.api();
    eventually(SOON, || async {
        let nodes = api.get("nodes").await.expect(200);
        nodes["items"][0]["notices"].to_string().contains("damaged")
    })
    .await;
}

#[tokio::test]
async fn a_proxy_without_the_right_token_gets_nothing() {
    let origin = Origin::start().await;
    let site = split(&origin).await;
    for token in ["", "sgn_wrong", &site.token()] {
        let answer = site.api().with_token(token).get("/internal/v1/feed?node=x&after=0&wait_ms=0").await;
        assert!(matches!(answer.status, 401 | 403), "{token}: {}", answer.status);
    }
}

#[tokio::test]
async fn an_acknowledged_change_survives_kill_9() {
    let origin = Origin::start().await;
    let mut site = gateway().up().await;
    pool(&site.api(), "web", &[&origin]).await;
    for n in 0..5 {
        school(&site.api(), &format!("school-{n}"), "web").await;
        site.kill();
        site.start().await;
        for known in 0..=n {
            assert_eq!(site.client(&format!("school-{known}.localhost")).get("/").await.status(), 200);
        }
    }
}
