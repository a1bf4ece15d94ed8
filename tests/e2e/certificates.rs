//! Certificates of a school's own: brought, served, taken away, revoked; and their keys, which never leave.

use std::path::Path;
use std::process::Command;

use schoolgate_testkit::{Origin, Site, TlsConn, eventually};
use serde_json::json;

use crate::{SOON, gateway_with};

const NAME: &str = "erp.ash.test";

/// A certificate for [`NAME`] and its key, by OpenSSL: `chain.pem` and `key.pem`.
fn made(dir: &Path) {
    let output = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=a school's own"])
        .args(["-addext", &format!("subjectAltName=DNS:{NAME}"), "-addext", "extendedKeyUsage=serverAuth"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "key.pem", "-out", "chain.pem"])
        .current_dir(dir)
        .output()
        .expect("openssl runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

async fn site(origin: &Origin) -> Site {
    let site = gateway_with(&[origin]).await;
    site.api().post("domains?wait=applied", json!({"name": NAME, "tenant": "ash"})).await.expect(201);
    site
}

/// The fingerprint that a visitor is shown.
async fn shown(site: &Site) -> String {
    let output = Command::new("sh")
        .args(["-c", &format!(
            "echo | openssl s_client -connect {} -servername {NAME} 2>/dev/null | openssl x509 -noout -fingerprint -sha256",
            site.https(),
        )])
        .output()
        .expect("openssl runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.trim().rsplit('=').next().unwrap_or_default().replace(':', "").to_ascii_lowercase()
}

fn run(site: &Site, args: &[&str]) -> String {
    let mut args = args.to_vec();
    let data = site.data().to_str().expect("text").to_owned();
    args.extend(["--data-dir", &data]);
    let output = site.run(&args);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{args:?}: {said}{}", String::from_utf8_lossy(&output.stderr));
    said
}

#[tokio::test]
async fn a_certificate_of_ones_own_serves_until_it_is_taken_away_and_its_key_never_leaves() {
    let origin = Origin::start().await;
    let site = site(&origin).await;
    let issued = shown(&site).await;
    let dir = tempfile::tempdir().expect("a temporary directory");
    made(dir.path());
    let file = |name: &str| dir.path().join(name).to_str().expect("text").to_owned();

    let said =
        run(&site, &["certificate", "upload", "--chain", &file("chain.pem"), "--key", &file("key.pem"), "--wait"]);
    assert!(said.contains("uploaded") && said.contains(NAME) && said.contains("signed by its own key"), "{said}");
    let own = shown(&site).await;
    assert!(own != issued && said.contains(&own), "{own} is not in {said}");
    let pem = std::fs::read_to_string(dir.path().join("chain.pem")).expect("readable");
    let mut connection = TlsConn::connect(site.https(), NAME, &["http/1.1"], &pem).await.expect("trusts that one");
    assert_eq!(connection.get(NAME, "/").await.expect("an answer").status, 200);

    let list = run(&site, &["certificate", "list"]);
    assert!(list.contains(&own) && list.contains(&issued), "{list}");
    assert_eq!(run(&site, &["certificate", "chain", &own]).trim(), pem.trim());
    let key = std::fs::read_to_string(dir.path().join("key.pem")).expect("readable");
    // The first lines are of the modulus, which everybody may see.
    let lines: Vec<&str> = key.lines().skip(8).filter(|line| !line.starts_with("-----") && line.len() > 40).collect();
    assert!(lines.len() > 10);
    let mut said = vec![said, list, run(&site, &["certificate", "show", &own]), site.log(), site.metrics().await];
    said.push(site.api().get("audit").await.text);
    said.push(site.api().get("events").await.text);
    for text in &said {
        assert!(lines.iter().all(|line| !text.contains(line)), "a part of the key is in {text}");
    }
    let mut files = vec![site.data().to_path_buf()];
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(std::fs::read_dir(&path).expect("readable").map(|e| e.expect("readable").path()));
            continue;
        }
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
        assert!(lines.iter().all(|line| !text.contains(line)), "a part of the key is in {}", path.display());
    }

    run(&site, &["certificate", "delete", &own, "--yes", "--wait"]);
    assert_eq!(shown(&site).await, issued, "the one that stood by serves");
}

#[tokio::test]
async fn a_revoked_certificate_is_replaced() {
    let origin = Origin::start().await;
    let site = site(&origin).await;
    let first = shown(&site).await;
    let said = run(&site, &["certificate", "revoke", &first, "--reason", "key_compromise", "--yes", "--wait"]);
    assert!(said.contains("key_compromise"), "{said}");
    eventually(SOON, || async {
        let now = shown(&site).await;
        now != first && site.client(NAME).try_get("/").await.is_ok_and(|answer| answer.status() == 200)
    })
    .await;
    assert!(run(&site, &["certificate", "show", &first]).contains("key_compromise"), "it is remembered");
}
