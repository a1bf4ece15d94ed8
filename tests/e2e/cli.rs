//! The command line over the control API.

use std::process::Output;

use schoolgate_testkit::{Origin, Site};

use crate::{gateway, gateway_with};

/// Runs the command line against a site.
fn run(site: &Site, args: &[&str]) -> Output {
    let data = site.data().display().to_string();
    let mut all = args.to_vec();
    all.extend(["--data-dir", &data]);
    site.run(&all)
}

#[track_caller]
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[track_caller]
fn json(output: &Output) -> serde_json::Value {
    serde_json::from_str(&said(output)).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_school_lives_from_create_to_delete() {
    let origin = Origin::start().await;
    let site = gateway().up().await;
    said(&run(&site, &["pool", "create", "web", "--backend", &origin.url()]));
    said(&run(
        &site,
        &["tenant", "create", "ash", "--name", "Ash School", "--plan", "basic", "--pool", "web", "--wait"],
    ));
    assert_eq!(site.client("ash.localhost").get("/").await.status(), 200);
    assert!(said(&run(&site, &["tenant", "list"])).contains("Ash School"));
    assert_eq!(json(&run(&site, &["tenant", "get", "ash", "--json"]))["slug"], "ash");
    said(&run(&site, &["tenant", "update", "ash", "--name", "Ash Academy"]));
    assert_eq!(json(&run(&site, &["tenant", "get", "ash", "--json"]))["name"], "Ash Academy");
    said(&run(&site, &["domain", "create", "erp.ash.test", "--tenant", "ash", "--wait"]));
    assert_eq!(site.client("erp.ash.test").get("/").await.status(), 200);
    assert!(said(&run(&site, &["domain", "list"])).contains("erp.ash.test"));
    said(&run(&site, &["domain", "delete", "erp.ash.test", "--yes"]));
    said(&run(&site, &["tenant", "delete", "ash", "--yes"]));
    assert_eq!(site.api().get("tenants/slug:ash").await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_resource_can_be_listed_for_people_and_machines() {
    let site = gateway().up().await;
    for resource in ["tenant", "domain", "pool", "plan", "route", "zone"] {
        said(&run(&site, &[resource, "list"]));
        assert!(json(&run(&site, &[resource, "list", "--json"])).to_string().starts_with(['{', '[']), "{resource}");
    }
    assert!(said(&run(&site, &["plan", "list"])).contains("enterprise"));
    assert!(said(&run(&site, &["zone", "list"])).contains("localhost"));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_tells_of_nodes_revisions_certificates_and_backends() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let text = said(&run(&site, &["status"]));
    for word in ["node-1", "web", &origin.addr().to_string()] {
        assert!(text.contains(word), "{word} is not in:\n{text}");
    }
    assert!(json(&run(&site, &["status", "--json"])).is_object());
}

#[tokio::test(flavor = "multi_thread")]
async fn check_finds_a_sound_installation_sound_and_a_damaged_one_not() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let mut site = gateway().data_dir(&data).up().await;
    site.stop().await;
    said(&run(&site, &["check"]));
    std::fs::write(data.join("keys/kek"), "0".repeat(64)).expect("written");
    let output = run(&site, &["check"]);
    assert!(!output.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_the_api_is_told_in_words() {
    let site = gateway().up().await;
    let output = run(&site, &["tenant", "create", "ash", "--name", "Ash", "--plan", "nosuch", "--pool", "nowhere"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && text.contains("plan") && text.contains("nosuch"), "{text}");
    let output = run(&site, &["tenant", "get", "nobody"]);
    assert!(!output.status.success());
    let output = site.run(&["tenant", "list", "--data-dir", "/nonexistent"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && !text.contains("panicked"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_gateways_last_good_state_can_be_looked_at_without_its_keys() {
    let origin = Origin::start().await;
    let site = gateway_with(&[&origin]).await;
    let dir = site.data().join("proxy/last-good").display().to_string();
    let text = said(&site.run(&["snapshot", "show", &dir]));
    for part in ["tenant tnt_", "\"slug\":\"ash\"", "certificate ", "context key "] {
        assert!(text.contains(part), "`{part}` is not in:\n{text}");
    }
    assert!(!text.contains("sealed") && !text.contains("wrapped"), "a key is shown");
    assert_eq!(said(&site.run(&["snapshot", "diff", &dir, &dir])).lines().count(), 1);
    let text = said(&run(&site, &["check"]));
    assert!(text.contains("last good") && !text.contains("PROBLEM"), "{text}");
}
