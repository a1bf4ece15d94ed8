//! The way in when the last token is lost: the Unix socket of the control plane.

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use schoolgate_testkit::Site;

use crate::gateway;

/// Runs the command line against a site, with what its data directory offers.
fn run(site: &Site, args: &[&str]) -> Output {
    let data = site.data().display().to_string();
    site.run(&[args, &["--data-dir", &data]].concat())
}

#[track_caller]
fn said(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_admin_token_is_replaced_through_the_socket_and_the_audit_says_so() {
    let site = gateway().up().await;
    let (old, file) = (site.token(), site.data().join("admin.token"));
    let old_api = site.api();
    std::fs::remove_file(&file).expect("removed");
    assert!(said(&run(&site, &["token", "list"])).contains("first-start"));
    let path = file.display().to_string();
    let text = said(&run(&site, &["token", "create", "admin", "--role", "super-admin", "--save", &path]));
    assert!(!text.contains(&site.token()), "a token that is kept in a file is not shown");
    assert_eq!(std::fs::metadata(&file).expect("made").permissions().mode() & 0o777, 0o600);

    let api = site.api();
    let line = api.get("audit?limit=1").await.expect(200)["items"][0].clone();
    for (field, value) in [("action", "token.create"), ("actor", "socket"), ("via", "socket")] {
        assert_eq!(line[field], value, "{line}");
    }
    let id = old.split('_').nth(1).expect("an id");
    said(&run(&site, &["token", "revoke", id, "--yes"]));
    assert_eq!(old_api.get("tenants").await.status, 401);
    assert_eq!(
        api.get("audit?limit=1").await.expect(200)["items"][0]["actor"],
        "admin",
        "a token goes before the socket"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_opens_nothing_is_no_obstacle_to_who_names_the_socket() {
    let site = gateway().up().await;
    std::fs::write(site.data().join("admin.token"), "sgk_none_none").expect("written");
    let refused = run(&site, &["tenant", "list"]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && text.contains("--socket"), "{text}");
    let socket = site.data().join("run/control.sock").display().to_string();
    said(&site.run(&["tenant", "list", "--socket", &socket]));
    // Somebody who shows a token through the socket is who it says, no more.
    let file = site.data().join("admin.token").display().to_string();
    assert!(!site.run(&["tenant", "list", "--socket", &socket, "--token-file", &file]).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_is_its_owners_alone_survives_a_kill_and_goes_with_a_stop() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let mut site = gateway().data_dir(&data).up().await;
    let socket = data.join("run/control.sock");
    assert_eq!(std::fs::metadata(&socket).expect("is there").permissions().mode() & 0o777, 0o600);
    std::fs::remove_file(data.join("admin.token")).expect("removed");
    site.restart().await;
    let log = site.log();
    assert!(log.contains("schoolgate token create admin"), "what is printed names the way to another token:\n{log}");
    said(&run(&site, &["status"]));
    site.stop().await;
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_socket_can_be_elsewhere_or_nowhere_and_takes_no_other_files_place() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("admin.sock");
    let settings = |path: &str| format!("[control]\nsocket = \"{path}\"");
    let site = gateway().settings(&settings(&path.display().to_string())).up().await;
    std::fs::remove_file(site.data().join("admin.token")).expect("removed");
    said(&run(&site, &["status"]));
    drop(site);
    let site = gateway().settings(&settings("")).up().await;
    assert!(!site.data().join("run/control.sock").exists());
    let notes = dir.path().join("notes");
    std::fs::write(&notes, "mine").expect("written");
    let refused = gateway().settings(&settings(&notes.display().to_string())).try_up().await;
    let text = refused.expect_err("it does not start").to_string();
    assert!(text.contains("control.socket") && text.contains("no socket"), "{text}");
    assert_eq!(std::fs::read_to_string(&notes).expect("still there"), "mine");
}
