//! Starting wrong: one clear line that says what and how to mend it.

use std::path::Path;

use schoolgate_testkit::{Site, StartError};

use crate::gateway;

#[track_caller]
fn refused(result: Result<Site, StartError>, says: &[&str]) {
    let error = result.err().unwrap_or_else(|| panic!("it started"));
    let text = error.to_string();
    for part in says {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

#[tokio::test]
async fn a_port_in_use_is_named_with_its_flag() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("bound").to_string();
    for (flag, key) in [("SCHOOLGATE__PROXY__HTTPS", "--https"), ("SCHOOLGATE__CONTROL__LISTEN", "--control")] {
        let _ = flag;
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_schoolgate"))
            .args(["up", "--http", "127.0.0.1:0", "--status", "127.0.0.1:0"])
            .args(if key == "--https" {
                ["--https", &addr, "--control", "127.0.0.1:0"]
            } else {
                ["--control", &addr, "--https", "127.0.0.1:0"]
            })
            .arg("--data-dir")
            .arg(tempfile::tempdir().expect("a temporary directory").path())
            .env("SCHOOLGATE__SCHOOL_APP__INSTANCES", "0")
            .output()
            .expect("the binary starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{said}");
        assert!(said.contains(&addr) && said.contains("in use") && said.contains(key), "{said}");
    }
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "not a directory").expect("written");
    let data = file.join("data");
    refused(gateway().data_dir(&data).try_up().await, &[&data.display().to_string()]);
}

#[tokio::test]
async fn a_damaged_database_is_named_and_left_alone() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let mut site = gateway().data_dir(&data).up().await;
    site.stop().await;
    drop(site);
    damage(&data.join("control.db"));
    let before = std::fs::read(data.join("control.db")).expect("readable");
    refused(gateway().data_dir(&data).try_up().await, &["control.db"]);
    assert_eq!(std::fs::read(data.join("control.db")).expect("readable"), before);
}

#[tokio::test]
async fn a_damaged_settings_file_is_named_with_the_line() {
    let mut text = "[proxy\n".to_owned();
    refused(gateway().settings(&text).try_up().await, &["TOML"]);
    text = "[proxy]\nhtps = \"127.0.0.1:0\"\n".to_owned();
    refused(gateway().settings(&text).try_up().await, &["proxy.htps", "proxy.https"]);
}

#[tokio::test]
async fn a_lost_key_is_named_not_replaced_silently() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let mut site = gateway().data_dir(&data).up().await;
    site.stop().await;
    drop(site);
    std::fs::write(data.join("keys/kek"), "0".repeat(64)).expect("written");
    refused(gateway().data_dir(&data).try_up().await, &["key"]);
    std::fs::write(data.join("keys/kek"), "damaged").expect("written");
    refused(gateway().data_dir(&data).try_up().await, &["keys/kek"]);
}

#[tokio::test]
async fn one_data_directory_serves_one_process() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let data = dir.path().join("data");
    let site = gateway().data_dir(&data).up().await;
    refused(gateway().data_dir(&data).try_up().await, &[&data.display().to_string()]);
    assert_eq!(site.api().get("/healthz").await.status, 200);
}

/// Overwrites the middle of a file, as a bad disk does.
fn damage(path: &Path) {
    let mut bytes = std::fs::read(path).expect("readable");
    bytes[..16].fill(0xaa);
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0x55);
    std::fs::write(path, bytes).expect("written");
    for suffix in ["-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", path.display()));
    }
}
