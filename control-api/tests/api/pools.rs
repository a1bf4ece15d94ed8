//! What of a pool can be written, and what is wrong with what cannot.

use schoolgate_testkit::Authority;
use serde_json::{Value, json};

use crate::site::{Site, problem};

#[tokio::test]
async fn everything_about_a_pool_reads_back_and_an_export_changes_nothing() {
    let site = Site::start().await;
    let ca = Authority::new();
    let body = json!({
        "id": "web", "kind": "dedicated", "balance": "sticky", "shard_size": 3, "slow_start_s": 30,
        "sticky": {"name": "seat", "max_age_s": 3600, "same_site": "strict"},
        "backends": [{"address": "https://10.0.0.1:8443", "weight": 3}],
        "health_check": {"kind": "grpc", "service": "school.v1.Grades", "interval_ms": 500},
        "ejection": {"consecutive_failures": 5, "max_percent": 30, "panic_percent": 20},
        "timeouts": {"connect_ms": 100, "first_byte_ms": 2000, "total_ms": 9000},
        "retry": {"attempts": 2, "buffer_bytes": 1024},
        "upstream_tls": {"ca": ca.pem(), "sni": "App.Internal"},
    });
    let made = site.api.post("pools", body.clone()).await.expect(201);
    for field in ["kind", "balance", "shard_size", "slow_start_s", "sticky"] {
        assert_eq!(made[field], body[field], "{field}");
    }
    assert_eq!((&made["health_check"]["kind"], &made["upstream_tls"]["sni"]), (&json!("grpc"), &json!("app.internal")));
    assert_eq!(made["timeouts"]["read_ms"], 30_000, "what is not said has its default");
    assert_eq!(made["client_certificate"], Value::Null);
    let again = site.api.put("pools/web", made.clone()).await.expect(200);
    assert_eq!(again["backends"], made["backends"]);
    let patched = site.api.patch("pools/web", json!({"shard_size": null, "balance": "tenant_hash"})).await.expect(200);
    assert!(patched.get("shard_size").is_none_or(Value::is_null));
}

#[tokio::test]
async fn everything_wrong_with_a_pool_is_named() {
    let site = Site::start().await;
    let leaf = Authority::new().identity(&["app.internal"]);
    for (change, pointer) in [
        (json!({"balance": "random"}), "/balance"),
        (json!({"shard_size": 0}), "/shard_size"),
        (json!({"shard_size": 33}), "/shard_size"),
        (json!({"slow_start_s": 3601}), "/slow_start_s"),
        (json!({"sticky": {"name": "a b"}}), "/sticky/name"),
        (json!({"sticky": {"max_age_s": 2_592_001}}), "/sticky/max_age_s"),
        (json!({"sticky": {"same_site": "sometimes"}}), "/sticky/same_site"),
        (json!({"ejection": {"panic_percent": 101}}), "/ejection/panic_percent"),
        (json!({"timeouts": {"total_ms": 0}}), "/timeouts/total_ms"),
        (json!({"timeouts": {"first_byte_ms": 3_600_001}}), "/timeouts/first_byte_ms"),
        (json!({"retry": {"buffer_bytes": 65_537}}), "/retry/buffer_bytes"),
        (json!({"health_check": {"kind": "tcp", "expect_body": "ok"}}), "/health_check/expect_body"),
        (json!({"health_check": {"kind": "http", "service": "x"}}), "/health_check/service"),
        (json!({"health_check": {"kind": "grpc", "path": "/other"}}), "/health_check/path"),
        (json!({"health_check": {"expect_body": ""}}), "/health_check/expect_body"),
        (json!({"upstream_tls": {"ca": "/etc/ca.pem"}}), "/upstream_tls/ca"),
        (json!({"upstream_tls": {"ca": leaf.key}}), "/upstream_tls/ca"),
        (
            json!({"upstream_tls": {"ca": "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----"}}),
            "/upstream_tls/ca",
        ),
        (json!({"upstream_tls": {"sni": "https://app"}}), "/upstream_tls/sni"),
        (json!({"upstream_tls": {"verify": false}}), "/upstream_tls/verify"),
        (json!({"client_certificate": {"set": true}}), "/client_certificate"),
        (json!({"backends": [{"address": "https://app.internal:443"}]}), "/backends/0/address"),
    ] {
        let mut body = json!({"id": "web"});
        body.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        let refused = problem(site.api.post("pools", body.clone()).await, 422, "VALIDATION_FAILED");
        let pointers: Vec<_> = refused["errors"].as_array().expect("errors").iter().map(|e| &e["pointer"]).collect();
        assert_eq!(pointers, [pointer], "{body}: {refused}");
    }
}

#[tokio::test]
async fn a_client_certificate_is_written_once_and_its_key_never_read() {
    let site = Site::start().await;
    site.pool("web").await;
    let (one, other) = (Authority::new().identity(&["gateway"]), Authority::new().identity(&["gateway"]));
    let path = "pools/web/client-certificate";
    for (certificate, key, pointer) in [
        ("", one.key.as_str(), "/certificate"),
        (one.key.as_str(), one.key.as_str(), "/certificate"),
        (one.certificate.as_str(), "", "/key"),
        (one.certificate.as_str(), other.key.as_str(), "/key"),
    ] {
        let refused = site.api.put(path, json!({"certificate": certificate, "key": key})).await;
        let refused = problem(refused, 422, "VALIDATION_FAILED");
        assert_eq!(refused["errors"][0]["pointer"], pointer);
    }
    let set = site.api.put(path, json!({"certificate": one.certificate, "key": one.key})).await.expect(200);
    let shown = set["client_certificate"].clone();
    assert_eq!(shown["set"], true);
    assert_eq!(shown["fingerprint"].as_str().map(str::len), Some(64));
    let read = site.api.get("pools/web").await.expect(200);
    assert_eq!(read["client_certificate"], shown);
    let replaced = site.api.put("pools/web", read).await.expect(200);
    assert_eq!(replaced["client_certificate"], shown, "a pool that comes back as it was read keeps it");
    let line = one.key.lines().nth(1).expect("a line of base64");
    for page in ["pools", "audit", "pools/web"] {
        let text = site.api.get(page).await.text;
        assert!(!text.contains(line) && !text.contains("sealed"), "{page}: {text}");
    }
    assert_eq!(site.api.delete(path).await.expect(200)["client_certificate"], Value::Null);
    problem(site.api.delete(path).await, 404, "NOT_FOUND");
    problem(site.api.put("pools/none/client-certificate", json!({})).await, 404, "NOT_FOUND");
}
