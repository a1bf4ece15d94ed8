use std::path::PathBuf;

use super::*;

fn from_file(text: &str) -> Result<Settings, SettingsError> {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("schoolgate.toml");
    std::fs::write(&path, text).expect("written");
    load(Some(&path), [], &[])
}

#[test]
fn defaults_are_complete_and_hold() {
    let settings = load(None, [], &[]).expect("loads");
    assert_eq!(settings, Settings::default());
    settings.check().expect("the defaults hold");
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("schoolgate.toml");
    std::fs::write(&path, "[proxy]\nhttp = '127.0.0.1:1'\nhttps = '127.0.0.1:1'\nstatus = '127.0.0.1:1'\n")
        .expect("written");
    let env =
        [("SCHOOLGATE__PROXY__HTTPS", "127.0.0.1:2"), ("SCHOOLGATE__PROXY__STATUS", "127.0.0.1:2"), ("HOME", "/x")];
    let env = env.map(|(k, v)| (k.to_owned(), v.to_owned()));
    let settings = load(Some(&path), env, &[("proxy.status", "127.0.0.1:3".to_owned())]).expect("loads");
    let ports = [settings.proxy.http, settings.proxy.https, settings.proxy.status].map(|a| a.port());
    assert_eq!(ports, [1, 2, 3]);
}

#[test]
fn an_unknown_key_names_the_nearest_known_one() {
    let error = from_file("[proxy]\nhtps = '127.0.0.1:1'\n").expect_err("unknown").to_string();
    assert!(error.contains("`proxy.htps`") && error.contains("`proxy.https`"), "{error}");
    let error =
        load(None, [("SCHOOLGATE__PROXI__HTTPS".to_owned(), "x".to_owned())], &[]).expect_err("unknown").to_string();
    assert!(error.contains("SCHOOLGATE__PROXI__HTTPS") && error.contains("`SCHOOLGATE__PROXY__HTTPS`"), "{error}");
}

#[test]
fn a_value_of_the_wrong_kind_names_its_key() {
    let error = from_file("[proxy]\nhttps = 'somewhere'\n").expect_err("wrong").to_string();
    assert!(error.contains("`proxy.https`"), "{error}");
    let error = from_file("[proxy]\nworkers = 'two'\n").expect_err("wrong").to_string();
    assert!(error.contains("`proxy.workers`"), "{error}");
    let error = from_file("proxy = 3\n").expect_err("wrong").to_string();
    assert!(error.contains("`proxy`"), "{error}");
    assert!(from_file("[proxy\n").is_err());
}

#[test]
fn lists_come_from_the_environment_with_commas() {
    let env = [("SCHOOLGATE__PLATFORM__ZONES".to_owned(), "a.test, b.test".to_owned())];
    assert_eq!(load(None, env, &[]).expect("loads").platform.zones, ["a.test", "b.test"]);
}

#[test]
fn seconds_may_have_a_fraction() {
    let settings = from_file("[proxy]\nlinger_s = 0.25\ndrain_s = 30\n").expect("loads");
    assert_eq!(settings.proxy.linger_s.duration().as_millis(), 250);
    assert_eq!(settings.proxy.drain_s.duration().as_secs(), 30);
    assert!(from_file("[proxy]\nlinger_s = -1\n").is_err());
}

#[test]
fn what_this_release_does_not_have_is_refused_not_ignored() {
    for text in ["[acme]\nissuer = 'acme'\n", "[store]\nurl = 'postgres://x'\n"] {
        assert!(from_file(text).expect("loads").check().is_err(), "{text} was taken");
    }
}

#[test]
fn usage_is_flushed_within_a_minute() {
    assert!(from_file("[proxy]\nusage_flush_s = 0.1\n").expect("loads").check().is_ok());
    for seconds in ["0.05", "61"] {
        let error = from_file(&format!("[proxy]\nusage_flush_s = {seconds}\n")).expect("loads").check();
        assert!(error.expect_err("refused").to_string().contains("usage_flush_s"), "{seconds}");
    }
}

#[test]
fn a_refusal_does_not_repeat_a_password() {
    for text in ["[redis]\nurl = 'redis://u:secret@h'\n", "[store]\nurl = 'postgres://u:secret@h/x'\n"] {
        let error = from_file(text).expect("loads").check().expect_err("refused").to_string();
        assert!(!error.contains("secret"), "{error}");
    }
}

#[test]
fn every_example_loads_and_holds() {
    let examples = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(examples).expect("the examples are there") {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|e| e == "toml") {
            load(Some(&path), [], &[]).and_then(|s| s.check()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            seen += 1;
        }
    }
    assert!(seen >= 3, "an example per deployment shape");
}
