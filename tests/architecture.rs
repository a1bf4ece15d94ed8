//! Which crate may reach which: the rules of ARCHITECTURE.md, kept by reading what cargo resolves.

use std::process::Command;

/// The packages that `package` reaches through normal dependencies, itself included.
fn reached_from(package: &str) -> Vec<String> {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
            "-p",
            package,
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    text.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

#[track_caller]
fn assert_reaches_none(package: &str, forbidden: &[&str]) {
    let reached = reached_from(package);
    assert!(reached.iter().any(|name| name == package), "{package} is not in its own tree");
    for name in forbidden {
        assert!(!reached.iter().any(|r| r == name || r.starts_with(&format!("{name}-"))), "{package} reaches {name}");
    }
}

#[test]
fn config_imports_no_runtime_no_database_and_no_proxy() {
    assert_reaches_none(
        "schoolgate-config",
        &["tokio", "sqlx", "pingora", "axum", "hyper", "schoolgate-store", "schoolgate-proxy"],
    );
}

#[test]
fn the_data_plane_builds_without_the_control_plane() {
    assert_reaches_none(
        "schoolgate-proxy",
        &["sqlx", "axum", "instant-acme", "schoolgate-store", "schoolgate-control-api", "schoolgate-acme"],
    );
}

#[test]
fn the_control_plane_and_the_certificate_worker_meet_in_the_store_only() {
    assert_reaches_none("schoolgate-control-api", &["pingora", "instant-acme", "schoolgate-proxy", "schoolgate-acme"]);
    assert_reaches_none("schoolgate-acme", &["pingora", "axum", "schoolgate-proxy", "schoolgate-control-api"]);
}

#[test]
fn the_dns_is_asked_by_a_crate_of_its_own() {
    assert_reaches_none(
        "schoolgate-dns",
        &["sqlx", "axum", "pingora", "instant-acme", "schoolgate-store", "schoolgate-control-api", "schoolgate-acme"],
    );
    for package in ["schoolgate-config", "schoolgate-proxy", "schoolgate-store"] {
        assert_reaches_none(package, &["hickory"]);
    }
}

#[test]
fn sql_is_known_to_the_store_alone() {
    for package in ["schoolgate-config", "schoolgate-proxy"] {
        assert_reaches_none(package, &["sqlx"]);
    }
    let direct = |manifest: &str| {
        let path = format!("{}/{manifest}/Cargo.toml", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(path).expect("the manifest is there").lines().any(|line| line.starts_with("sqlx"))
    };
    assert!(direct("control-api/store"));
    for manifest in ["control-api", "acme", "proxy", "config"] {
        assert!(!direct(manifest), "{manifest} names sqlx");
    }
}

#[test]
fn the_school_app_knows_nothing_of_the_gateway() {
    assert_reaches_none(
        "schoolgate-backend-app",
        &["schoolgate-config", "schoolgate-store", "schoolgate-proxy", "pingora"],
    );
}

#[test]
fn one_tls_library_is_in_the_tree() {
    assert_reaches_none("schoolgate", &["openssl-sys", "native-tls", "aws-lc-sys", "boring-sys"]);
}
