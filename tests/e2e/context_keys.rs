//! The keys that sign `X-Tenant-Context` take turns, and no request is refused for it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schoolgate_config::time::{Clock, SystemClock, rfc3339};
use schoolgate_testkit::{Api, Client, Http, Origin, Site, eventually};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::{SOON, gateway, pool, school};

/// Times in which a test can see a whole turn.
const QUICK: &str = "[context_keys]\nmax_age_s = 1\npublish_s = 2\nretire_s = 1";

/// The `kid` of each key in this state.
async fn kids(api: &Api, state: &str) -> Vec<String> {
    let keys = api.get("context-keys").await.expect(200);
    let items = keys["items"].as_array().expect("a list").iter().filter(|key| key["state"] == state);
    items.map(|key| key["kid"].as_str().expect("a name").to_owned()).collect()
}

/// The `kid` of each key that backends are given.
async fn published(api: &Api) -> BTreeSet<String> {
    let jwks = api.anonymous().get("/.well-known/schoolgate/jwks.json").await.expect(200);
    let keys = jwks["keys"].as_array().expect("a list").iter();
    keys.map(|key| key["kid"].as_str().expect("a name").to_owned()).collect()
}

/// The `kid` that signed what an origin got last.
fn last_kid(origin: &Origin) -> String {
    let last = origin.last();
    let token = last.header("x-tenant-context").expect("a context").to_owned();
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().expect("a part")).expect("base64url");
    let header: Value = serde_json::from_slice(&header).expect("JSON");
    header["kid"].as_str().expect("a name").to_owned()
}

/// Visitors who ask again and again, until told to stop.
struct Traffic {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    visitors: Vec<JoinHandle<Vec<String>>>,
}

impl Traffic {
    fn of(clients: Vec<(Client, &'static str)>) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let visitors = clients.into_iter().map(|(client, path)| {
            let (stop, answered) = (Arc::clone(&stop), Arc::clone(&answered));
            tokio::spawn(async move {
                let mut refused = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    match client.try_get(path).await {
                        Ok(answer) if answer.status() == 200 => {
                            answered.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok(answer) => refused.push(format!("{path}: {}", answer.status())),
                        Err(error) => refused.push(format!("{path}: {error:?}")),
                    }
                }
                refused
            })
        });
        Self { visitors: visitors.collect(), stop, answered }
    }

    /// How many were answered, and who was not.
    async fn end(self) -> (u64, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut refused = Vec::new();
        for visitor in self.visitors {
            refused.extend(visitor.await.expect("no panic"));
        }
        (self.answered.load(Ordering::Relaxed), refused)
    }
}

#[tokio::test]
async fn a_key_rotates_under_constant_requests_and_none_is_refused() {
    let origin = Origin::start().await;
    let site = Site::builder(env!("CARGO_BIN_EXE_schoolgate")).school_apps(2).settings(QUICK).up().await;
    let api = site.api();
    pool(&api, "web", &[&origin]).await;
    // Ash is served by the school app, which verifies; Birch by an origin, which shows what it got.
    school(&api, "ash", "shared").await;
    school(&api, "birch", "web").await;
    let [before] = kids(&api, "active").await.try_into().expect("one key signs");
    let clients = [("ash.localhost", "/whoami"), ("birch.localhost", "/")]
        .into_iter()
        .flat_map(|(host, path)| [Http::One, Http::Two].map(|http| (site.client_with(host, http), path)));
    let traffic = Traffic::of(clients.collect());
    eventually(SOON, || async { traffic.answered.load(Ordering::Relaxed) > 20 }).await;
    assert_eq!(last_kid(&origin), before);

    let made = api.post("context-keys/rotate", json!({})).await.expect(201);
    assert_eq!(made["state"], "next");
    let after = made["kid"].as_str().expect("a name").to_owned();
    assert_eq!(published(&api).await, BTreeSet::from([before.clone(), after.clone()]), "published before it signs");
    let again = api.post("context-keys/rotate", json!({})).await;
    assert_eq!((again.status, &again.json["error"]), (409, &json!("ROTATION_UNDER_WAY")));

    eventually(SOON, || async { kids(&api, "active").await == [after.clone()] }).await;
    eventually(SOON, || async { last_kid(&origin) == after }).await;
    eventually(SOON, || async { published(&api).await == BTreeSet::from([after.clone()]) }).await;
    // What signs is what is published: some more requests after the old key is gone.
    let seen = traffic.answered.load(Ordering::Relaxed);
    eventually(SOON, || async { traffic.answered.load(Ordering::Relaxed) > seen + 20 }).await;
    let (answered, refused) = traffic.end().await;
    assert!(refused.is_empty(), "{} of {answered} refused: {refused:?}", refused.len());

    let signed = &api.get(&format!("context-keys/{after}")).await.expect(200);
    assert!(signed["signs_from"].as_str() >= made["signs_from"].as_str(), "not before its time: {signed}");
    let audit = api.get("audit?limit=100").await.expect(200);
    let actions: Vec<_> = audit["items"].as_array().expect("a list").iter().map(|line| &line["action"]).collect();
    for action in ["context_key.rotate", "context_key.sign", "context_key.delete"] {
        assert!(actions.contains(&&json!(action)), "no {action} in {actions:?}");
    }
    let file = std::fs::read_to_string(site.data().join("run/jwks.json")).expect("the file");
    assert!(file.contains(&after) && !file.contains(&before), "{file}");
}

#[tokio::test]
async fn a_key_that_a_proxy_without_control_plane_signs_with_stays_published() {
    let origin = Origin::start().await;
    let mut site = gateway().settings(QUICK).split().await;
    let api = site.api();
    pool(&api, "web", &[&origin]).await;
    school(&api, "ash", "web").await;
    let client = site.client("ash.localhost");
    assert_eq!(client.get("/").await.status(), 200);
    let before = last_kid(&origin);
    // It has to have said once what it signs with.
    eventually(SOON, || async { api.get("nodes").await.json["items"][0]["context_key"] == json!(before) }).await;
    site.control_link.as_mut().expect("a split site").refuse().await;

    api.post("context-keys/rotate", json!({})).await.expect(201);
    let gone_ms = async || {
        let keys = api.get("context-keys").await.expect(200);
        keys["items"][0]["leaves_from"].as_str().map(str::to_owned)
    };
    eventually(SOON, || async { gone_ms().await.is_some_and(|at| at < rfc3339(SystemClock.unix_ms() - 1_000)) }).await;
    assert_eq!(client.get("/").await.status(), 200);
    assert_eq!(last_kid(&origin), before, "it did not hear of another");
    assert!(published(&api).await.contains(&before), "what it signs verifies");

    site.control_link.as_mut().expect("a split site").restore().await;
    eventually(SOON, || async {
        client.get("/").await;
        last_kid(&origin) != before
    })
    .await;
    eventually(SOON, || async { !published(&api).await.contains(&before) }).await;
}

#[tokio::test]
async fn a_private_key_is_nowhere_in_the_api_and_an_operator_without_scope_cannot_rotate() {
    let site = gateway().up().await;
    let api = site.api();
    let listed = api.get("context-keys").await;
    let text = listed.text.clone();
    let fields: BTreeSet<_> = listed.expect(200)["items"][0].as_object().expect("an object").keys().cloned().collect();
    let shown = ["kid", "leaves_from", "published_at", "retired_at", "signs_from", "state"];
    assert_eq!(fields, shown.map(str::to_owned).into(), "{text}");
    let jwks = api.anonymous().get("/.well-known/schoolgate/jwks.json").await;
    assert_eq!(jwks.header("cache-control"), Some("public, max-age=300"));
    let key = &jwks.expect(200)["keys"][0];
    assert_eq!(key.get("d"), None, "the private half of a JWK (RFC 8037)");

    let token = json!({"name": "reads", "role": "auditor"});
    let token = api.post("tokens", token).await.expect(201);
    let auditor = api.with_token(token["token"].as_str().expect("a secret"));
    auditor.get("context-keys").await.expect(200);
    auditor.post("context-keys/rotate", json!({})).await.expect(403);
    assert_eq!(api.anonymous().get("context-keys").await.status, 401);
}
