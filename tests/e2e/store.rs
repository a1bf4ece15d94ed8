//! A store that cannot be written: refused with 503, and nothing of what was acknowledged is lost.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use schoolgate_testkit::{Origin, Site, eventually};
use serde_json::json;

use crate::{SOON, pool, school};

/// The binary, started so that a write beyond the limit is an error, as on a full disk, and no signal.
fn ignoring_the_signal(dir: &Path) -> std::path::PathBuf {
    let script = dir.join("schoolgate");
    let text = format!("#!/bin/sh\ntrap '' XFSZ\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_schoolgate"));
    std::fs::write(&script, text).expect("written");
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).expect("executable");
    script
}

/// Lets no file of a process grow beyond so many bytes.
fn limit_files(pid: u32, bytes: Option<u64>) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).expect("a limit of our own child");
}

#[tokio::test]
async fn a_full_disk_is_503_loses_nothing_acknowledged_and_heals() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let origin = Origin::start().await;
    let mut site = Site::builder(ignoring_the_signal(dir.path())).school_apps(0).split().await;
    let api = site.api();
    pool(&api, "web", &[&origin]).await;
    school(&api, "ash", "web").await;
    let pid = site.control.as_ref().and_then(|control| control.pid()).expect("it runs");

    let log = std::fs::metadata(site.control_data().join("control.db-wal")).expect("the write-ahead log");
    limit_files(pid, Some(log.len()));
    let (mut kept, mut refused) = (Vec::new(), Vec::new());
    // The log may begin again at its start before it is full.
    while refused.len() < 3 {
        let slug = format!("s{}", kept.len() + refused.len());
        let answer = api.post("tenants", json!({"slug": slug, "name": "S", "pool": "web"})).await;
        match answer.status {
            201 => kept.push(slug),
            _ => {
                assert_eq!(answer.expect(503)["error"], "STORE_UNAVAILABLE");
                refused.push(slug);
            }
        }
        assert!(kept.len() < 10_000, "the disk never fills");
    }
    // What is there is read and served all the while.
    api.get("tenants/slug:ash").await.expect(200);
    assert_eq!(site.client("ash.localhost").get("/").await.status(), 200);

    limit_files(pid, None);
    eventually(SOON, || async {
        api.post("tenants", json!({"slug": "after", "name": "S", "pool": "web"})).await.status == 201
    })
    .await;
    kept.push("after".to_owned());
    site.restart().await;
    for slug in &kept {
        api.get(&format!("tenants/slug:{slug}")).await.expect(200);
    }
    for slug in &refused {
        assert_eq!(api.get(&format!("tenants/slug:{slug}")).await.status, 404, "{slug} was refused");
    }
    assert_eq!(api.get("audit/verify").await.expect(200)["intact"], true);
}
