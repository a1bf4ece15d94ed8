//! Instances of the school app that register themselves.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use schoolgate_testkit::{Api, Site, eventually};
use serde_json::{Value, json};

use crate::load::Load;
use crate::{SOON, gateway, pool, school};

/// Heartbeats, so that a test sees who is silent.
const QUICK: &str = "[instances]\nheartbeat_s = 0.2\nsilent_s = 2\n";

/// An instance in a process of its own.
struct App {
    child: Child,
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl App {
    /// Starts one that registers itself in the pool `web`.
    fn start(site: &Site, dir: &Path, token: &Path) -> Self {
        let control = format!("http://{}", site.control_addr());
        let log = File::options().create(true).append(true).open(dir.join("app.log")).expect("a log");
        let child = Command::new(env!("CARGO_BIN_EXE_schoolgate"))
            .args(["school-app", "--listen", "127.0.0.1:0", "--audience", "web", "--register", &control])
            .args(["--keys", &format!("{control}/.well-known/schoolgate/jwks.json")])
            .arg("--register-token-file")
            .arg(token)
            .arg("--data-dir")
            .arg(dir.join("schools"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("it starts");
        Self { child }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("it runs");
    }
}

async fn backends(api: &Api) -> Vec<Value> {
    let pool = api.get("pools/web").await.expect(200);
    pool["backends"].as_array().expect("a list").clone()
}

async fn has_event(api: &Api, kind: &str) -> bool {
    let events = api.get("events").await.expect(200);
    events["items"].as_array().expect("items").iter().any(|event| event["kind"] == kind)
}

/// A school on two instances that registered with a token for that pool only.
async fn two_instances(dir: &Path) -> (Site, [App; 2]) {
    let site = gateway().settings(QUICK).up().await;
    let api = site.api();
    pool(&api, "web", &[]).await;
    api.patch("pools/web", json!({ "drain_s": 1, "health_check": { "kind": "http", "interval_ms": 200 } }))
        .await
        .expect(200);
    school(&api, "ash", "web").await;
    let token = dir.join("instance.token");
    let (data, path) = (site.data().display().to_string(), token.display().to_string());
    let made = site.run(&[
        "token",
        "create",
        "web apps",
        "--role",
        "instance",
        "--pool",
        "web",
        "--save",
        &path,
        "--data-dir",
        &data,
    ]);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let apps = [App::start(&site, dir, &token), App::start(&site, dir, &token)];
    eventually(SOON, || async { backends(&api).await.len() == 2 }).await;
    let client = site.client("ash.localhost");
    eventually(SOON, || async { client.try_get("/").await.is_ok_and(|answer| answer.status() == 200) }).await;
    eventually(SOON, || async { site.metric("schoolgate_backend_up", &["pool=\"web\""]).await == 2.0 }).await;
    (site, apps)
}

#[tokio::test]
async fn a_killed_instance_costs_no_request_and_is_removed_when_it_is_silent() {
    let dir = tempfile::tempdir().expect("a directory");
    let (site, [first, second]) = two_instances(dir.path()).await;
    let (api, client) = (site.api(), site.client("ash.localhost"));
    let load = Load::start(&client);
    load.more(20).await;
    first.signal(Signal::KILL);
    eventually(SOON, || async { backends(&api).await.len() == 1 }).await;
    load.more(20).await;
    let (good, bad) = load.end().await;
    assert_eq!(bad, 0, "of {good} requests");
    assert!(has_event(&api, "backend.registered").await && has_event(&api, "backend.silent").await);
    // The last one stays, though nobody hears it: the proxies know better whether it is there.
    let left = backends(&api).await;
    second.signal(Signal::STOP);
    eventually(SOON, || async { site.metric("schoolgate_backend_up", &["pool=\"web\""]).await == 0.0 }).await;
    assert_eq!(backends(&api).await, left);
    second.signal(Signal::CONT);
    eventually(SOON, || async { client.try_get("/").await.is_ok_and(|answer| answer.status() == 200) }).await;
}

#[tokio::test]
async fn a_stopped_instance_says_goodbye_and_costs_no_request() {
    let dir = tempfile::tempdir().expect("a directory");
    let (site, [mut first, _second]) = two_instances(dir.path()).await;
    let (api, client) = (site.api(), site.client("ash.localhost"));
    let load = Load::start(&client);
    load.more(20).await;
    first.signal(Signal::TERM);
    eventually(SOON, || async { backends(&api).await.iter().any(|backend| backend["state"] == "draining") }).await;
    eventually(SOON, || {
        let has_ended = first.child.try_wait().expect("a child of ours").is_some();
        async move { has_ended }
    })
    .await;
    let ended = first.child.wait().expect("it has ended");
    assert!(ended.success(), "{ended}");
    eventually(SOON, || async { backends(&api).await.len() == 1 }).await;
    load.more(20).await;
    let (good, bad) = load.end().await;
    assert_eq!(bad, 0, "of {good} requests");
    assert!(has_event(&api, "backend.leaving").await && has_event(&api, "backend.left").await);
    assert!(!has_event(&api, "backend.silent").await);
    let audit = api.get("audit?limit=20").await.expect(200);
    let line = audit["items"].as_array().expect("items").iter().find(|line| line["action"] == "instance.leave");
    assert_eq!(line.map(|line| (&line["actor"], &line["via"])), Some((&json!("web apps"), &json!("instance"))));
}
