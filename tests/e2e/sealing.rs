//! The key-encryption key: changed while everything serves, and nothing opens without the right one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use schoolgate_testkit::{Origin, Site, eventually};
use serde_json::{Value, json};

use crate::{SOON, gateway, pool, school};

/// Domains with certificates of their own.
const DOMAINS: usize = 8;

fn name(number: usize) -> String {
    format!("erp-{number}.ash.test")
}

async fn furnish(site: &Site, origin: &Origin) {
    pool(&site.api(), "web", &[origin]).await;
    let body = json!({"slug": "ash", "name": "Ash", "plan": "custom", "pool": "web"});
    site.api().post("tenants?wait=applied", body).await.expect(201);
    for number in 0..DOMAINS {
        let body = json!({"name": name(number), "tenant": "ash"});
        site.api().post("domains?wait=applied", body).await.expect(201);
    }
}

async fn sealing(site: &Site) -> Value {
    site.api().get("sealing-keys").await.expect(200)
}

/// Waits until nothing is left to do, and everything is under one key.
async fn settled(site: &Site) -> Value {
    eventually(SOON * 4, || async { sealing(site).await["state"] == "steady" }).await;
    let now = sealing(site).await;
    let current = now["current"].as_str().expect("text");
    assert_eq!(now["records"].as_object().expect("an object").len(), 1, "{now}");
    assert!(now["records"][current].as_u64().is_some_and(|count| count > DOMAINS as u64), "{now}");
    now
}

#[tokio::test]
async fn the_key_changes_under_load_and_no_handshake_fails() {
    let origin = Origin::start().await;
    let mut site = gateway().split().await;
    furnish(&site, &origin).await;
    let key_file = site.control_data().join("keys/kek");
    let old_file = std::fs::read(&key_file).expect("readable");
    let before = settled(&site).await;

    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let visitors: Vec<_> = (0..2)
        .map(|visitor| {
            let (https, ca) = (site.https(), site.ca());
            let (stop, served) = (stop.clone(), served.clone());
            tokio::spawn(async move {
                for number in (visitor..).step_by(2) {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let name = name(number % DOMAINS);
                    // A connection of its own each time: no ticket, no pool.
                    let connecting = schoolgate_testkit::TlsConn::connect(https, &name, &["http/1.1"], &ca);
                    let mut connection = connecting.await.expect("a handshake");
                    assert_eq!(connection.get(&name, "/").await.expect("an answer").status, 200);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();

    let begun = site.api().post("sealing-keys/rotate", json!({})).await.expect(200);
    assert_eq!(begun["state"], "requested");
    let again = site.api().post("sealing-keys/rotate", json!({})).await.expect(409);
    assert_eq!(again["error"], "ROTATION_UNDER_WAY");
    let after = settled(&site).await;
    assert_ne!(after["current"], before["current"]);
    let seen = served.load(Ordering::Relaxed);
    eventually(SOON, || async { served.load(Ordering::Relaxed) > seen + 10 }).await;
    stop.store(true, Ordering::Relaxed);
    for visitor in visitors {
        visitor.await.expect("every handshake and every request");
    }
    let text = std::fs::read_to_string(&key_file).expect("readable");
    assert_eq!(text.lines().count(), 1, "the old key is gone");
    assert!(!site.log().contains(text.trim()), "never in a log");

    // From disk alone, under the new key. Stopped and not killed, so that the database is one file with nothing beside it.
    assert!(site.stop().await.success());
    site.start_proxy().await;
    assert_eq!(site.client(&name(0)).get("/").await.status(), 200);
    site.kill();
    // A backup of the old file opens nothing, and says so, on both sides.
    std::fs::write(&key_file, &old_file).expect("written");
    let database = site.control_data().join("control.db");
    let bytes = std::fs::read(&database).expect("readable");
    let (old, new) = (before["current"].as_str().expect("text"), after["current"].as_str().expect("text"));
    let refused = site.try_start().await.expect_err("the wrong key").to_string();
    for part in [old, new, "keys/kek", "restore the key file", "Nothing was changed"] {
        assert!(refused.contains(part), "`{part}` is not in: {refused}");
    }
    assert_eq!(std::fs::read(&database).expect("readable"), bytes);
    std::fs::write(&key_file, &text).expect("written");
    site.start().await;
    site.proxy.kill();
    std::fs::write(&key_file, &old_file).expect("written");
    let refused = site.try_start().await.expect_err("the wrong key").to_string();
    assert!(refused.contains("last good state") && refused.contains(new), "{refused}");
    std::fs::write(&key_file, &text).expect("written");
    site.start().await;
    assert_eq!(site.client(&name(1)).get("/").await.status(), 200);
}

#[tokio::test]
async fn a_rotation_that_is_killed_anywhere_goes_on() {
    let origin = Origin::start().await;
    let mut site = gateway().up().await;
    furnish(&site, &origin).await;
    let mut last = settled(&site).await["current"].clone();
    for killed_in in ["requested", "introducing", "rewrapping"] {
        site.api().post("sealing-keys/rotate", json!({})).await.expect(200);
        // A step may be over before it is seen: then it is the next that is broken off.
        eventually(SOON, || async {
            let state = sealing(&site).await["state"].clone();
            state == killed_in || (killed_in != "introducing" && state != "introducing")
        })
        .await;
        site.restart().await;
        let now = settled(&site).await["current"].clone();
        assert_ne!(now, last, "killed while {killed_in}");
        last = now;
        for number in 0..DOMAINS {
            assert_eq!(site.client(&name(number)).get("/").await.status(), 200, "killed while {killed_in}");
        }
    }
    // New certificates, the CA's own key and the signing keys are under the new key too.
    school(&site.api(), "birch", "web").await;
    site.api().post("domains?wait=applied", json!({"name": "erp.birch.test", "tenant": "birch"})).await.expect(201);
    assert_eq!(site.client("erp.birch.test").get("/").await.status(), 200);
    let check = site.run(&["check", "--data-dir", site.data().to_str().expect("text")]);
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success() && !said.contains("PROBLEM"), "{said}");
}

#[tokio::test]
async fn the_command_line_rotates_and_shows() {
    let origin = Origin::start().await;
    let site = gateway().up().await;
    furnish(&site, &origin).await;
    let data = site.data().to_str().expect("text").to_owned();
    let before = settled(&site).await["current"].as_str().expect("text").to_owned();
    let rotated = site.run(&["keys", "rotate", "--data-dir", &data]);
    let said = String::from_utf8_lossy(&rotated.stdout).into_owned();
    assert!(rotated.status.success() && said.contains("steady") && !said.contains(&before), "{said}");
    let shown = site.run(&["keys", "show", "--data-dir", &data]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("steady"));
    let key = std::fs::read_to_string(site.data().join("keys/kek")).expect("readable");
    assert!(!said.contains(key.trim()) && !site.log().contains(key.trim()));
}

#[tokio::test]
async fn a_systemd_credential_is_a_key_file_and_a_missing_one_is_named() {
    let credentials = tempfile::tempdir().expect("a temporary directory");
    let of_systemd = || gateway().env("SCHOOLGATE__KEYS__FILE", "<credentials>/kek");
    let refused = of_systemd().try_up().await.expect_err("no credentials").to_string();
    assert!(refused.contains("keys.file") && refused.contains("LoadCredential="), "{refused}");
    std::fs::write(credentials.path().join("kek"), "5e".repeat(32)).expect("written");
    let directory = credentials.path().to_str().expect("text");
    let mut site = of_systemd().env("CREDENTIALS_DIRECTORY", directory).up().await;
    let before = sealing(&site).await;
    assert!(site.stop().await.success());
    std::fs::remove_file(credentials.path().join("kek")).expect("removed");
    let refused = site.try_start().await.expect_err("the key is gone").to_string();
    assert!(refused.contains("is missing") && refused.contains(directory), "{refused}");
    assert!(std::fs::read_dir(credentials.path()).expect("readable").next().is_none(), "no key is made in its place");
    std::fs::write(credentials.path().join("kek"), "5e".repeat(32)).expect("written");
    site.start().await;
    assert_eq!(sealing(&site).await["current"], before["current"]);
}
