//! testssl.sh against the gateway: no finding above the ones that are explained.

use std::process::Command;

use schoolgate_testkit::Origin;
use serde_json::Value;

use crate::watch::row;
use crate::{HOST, gateway, with_backend};

/// Findings that stand, by what testssl.sh calls them, and why.
const EXPLAINED: &[(&str, &str)] = &[
    ("cert_chain_of_trust", "the CA is the site's own: nobody else trusts it"),
    ("cert_trust", "as above; the name itself is right"),
    (
        "cipher_order",
        "every cipher offered is a strong one, and clients know best which they are fast at (DECISIONS.md, 29)",
    ),
    ("cert_revocation", "certificates of the site's own CA carry no revocation address"),
    ("cert_crlDistributionPoints", "as above"),
    ("cert_ocspURL", "as above"),
    ("OCSP_stapling", "as above"),
    ("cert_certificatePolicies_EV", "no such certificate"),
    ("DNS_CAArecord", "`localhost` has no zone"),
    ("CT", "certificates of a private CA are in no log"),
    ("certificate_transparency", "as above"),
    ("HSTS", "never below `localhost` (DECISIONS.md, record 20)"),
    ("security_headers", "as the school's application sets them"),
    ("overall_grade", "follows from the chain of trust"),
    ("grade_cap_reason_1", "as above"),
    ("final_score", "as above"),
];

/// Severities that count.
const COUNTED: [&str; 5] = ["LOW", "MEDIUM", "HIGH", "CRITICAL", "FATAL"];

#[tokio::test]
#[ignore = "takes minutes: tests/hostile/run"]
async fn testssl_finds_nothing_that_is_not_explained() {
    let origin = Origin::start().await;
    // It opens many connections and breaks most of them off.
    let settings = "[proxy.limits]\nfailing_handshakes_per_address_s = 0\n";
    let site = with_backend(gateway().settings(settings), origin.addr()).await;
    let report = site.data().join("testssl.json");
    let output = Command::new("testssl")
        .args(["--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1", "--jsonfile"])
        .arg(&report)
        .arg(format!("{HOST}:{}", site.https().port()))
        .output()
        .expect("testssl runs: the Debian package testssl.sh is installed by tests/hostile/run");
    let text = std::fs::read_to_string(&report).unwrap_or_else(|error| {
        panic!("testssl wrote no report ({error}): {}", String::from_utf8_lossy(&output.stdout))
    });
    let findings: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    assert!(findings.iter().any(|finding| word(finding, "id") == "TLS1_3"), "it did not get far: {text}");
    row(&["testssl.sh", "severity", "finding", "explained"].map(str::to_owned));
    row(&["---"; 4].map(str::to_owned));
    let mut wrong = Vec::new();
    for finding in &findings {
        let (id, severity) = (word(finding, "id"), word(finding, "severity"));
        if !COUNTED.contains(&&*severity) {
            continue;
        }
        let why = EXPLAINED.iter().find(|(known, _)| id == *known || id.starts_with(&format!("{known} ")));
        let why = why.map(|(_, why)| *why);
        row(&[id.clone(), severity.clone(), word(finding, "finding"), why.unwrap_or("**no**").to_owned()]);
        if why.is_none() {
            wrong.push(format!("{severity} {id}: {}", word(finding, "finding")));
        }
    }
    row(&["findings in all".to_owned(), String::new(), findings.len().to_string(), String::new()]);
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
