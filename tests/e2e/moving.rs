//! A school moves to another pool while its visitors go on.

use std::time::Duration;

use schoolgate_testkit::{Api, Mood, Origin, Site, eventually, until};
use serde_json::{Value, json};

use crate::load::Load;
use crate::{SOON, gateway, pool, school};

/// Steps of a second, so that a test sees the end of a move.
const QUICK: &str = "[migrate]\nstep_s = 1\ndrain_s = 2\nready_s = 10\nleast_requests = 10\n";

/// All steps of a move, on a slow machine.
const MOVED: Duration = Duration::from_secs(90);

async fn two_pools(site: &Site) -> (Origin, Origin) {
    let (old, new) = (Origin::named("old").await, Origin::named("new").await);
    let api = site.api();
    pool(&api, "web", &[&old]).await;
    pool(&api, "next", &[&new]).await;
    // Without limits, as the plan of the school: a visitor that is refused for them is no failure of the move.
    api.post("plans", json!({ "id": "roomy", "name": "Roomy", "limits": {} })).await.expect(201);
    school(&api, "ash", "web").await;
    (old, new)
}

async fn migrate(api: &Api, body: Value) -> String {
    let begun = api.post("tenants/slug:ash/migrate", body).await.expect(202);
    assert_eq!(begun["operation"], begun["id"]);
    begun["id"].as_str().expect("an id").to_owned()
}

async fn operation(api: &Api, id: &str) -> Value {
    api.get(&format!("operations/{id}")).await.expect(200)
}

/// Waits until a move is at its end.
async fn ended(api: &Api, id: &str) -> Value {
    until(MOVED, || async {
        let now = operation(api, id).await;
        (!matches!(now["state"].as_str(), Some("running" | "reverting"))).then_some(now)
    })
    .await
}

async fn at_percent(api: &Api, id: &str, percent: u64) {
    eventually(MOVED, || async { operation(api, id).await["percent"] == percent }).await;
}

fn shares(operation: &Value) -> Vec<u64> {
    let steps = operation["steps"].as_array().expect("steps").iter();
    steps.filter(|step| step["step"] == "shift").filter_map(|step| step["percent"].as_u64()).collect()
}

#[tokio::test]
async fn a_school_moves_under_load_with_no_failed_request() {
    let site = gateway().settings(QUICK).up().await;
    let (old, new) = two_pools(&site).await;
    let (api, client) = (site.api(), site.client("ash.localhost"));
    let load = Load::start(&client);
    load.more(20).await;
    let id = migrate(&api, json!({ "pool": "next", "plan": "roomy" })).await;
    let twice = api.post("tenants/slug:ash/migrate", json!({ "plan": "roomy" })).await.expect(409);
    assert_eq!(twice["error"], "OPERATION_IN_PROGRESS");
    let done = ended(&api, &id).await;
    assert_eq!((&done["state"], shares(&done)), (&json!("succeeded"), vec![1, 10, 50, 100]), "{done:#}");
    let (good, bad) = load.end().await;
    assert_eq!(bad, 0, "of {good} requests");

    let tenant = api.get("tenants/slug:ash").await.expect(200);
    assert_eq!((&tenant["pool"], &tenant["plan"], tenant.get("canary")), (&json!("next"), &json!("roomy"), None));
    let before = (old.requests(), new.requests());
    assert_eq!(client.get("/").await.status(), 200);
    assert_eq!((old.requests(), new.requests()), (before.0, before.1 + 1));
    assert!(old.requests() > 0);
    // Each step is an ordinary change.
    let audit = api.get("audit?limit=20").await.expect(200);
    let steps = audit["items"].as_array().expect("items").iter().filter(|line| line["summary"]["operation"] == *id);
    assert!(steps.clone().count() >= 7, "{audit:#}");
    assert!(steps.clone().all(|line| line["action"] == "tenant.migrate"));
    let events = api.get("events").await.expect(200);
    assert!(events["items"].as_array().expect("items").iter().any(|event| event["kind"] == "tenant.migrated"));
    let listed = api.get("operations?tenant=ash&state=succeeded").await.expect(200);
    assert_eq!(listed["items"][0]["id"], *id);
    assert_eq!(api.post(&format!("operations/{id}/cancel"), json!({})).await.expect(409)["error"], "OPERATION_OVER");
}

#[tokio::test]
async fn a_pool_that_fails_its_visitors_is_left_again_by_itself() {
    let site = gateway().settings(QUICK).up().await;
    let (_old, new) = two_pools(&site).await;
    let (api, client) = (site.api(), site.client("ash.localhost"));
    let load = Load::start(&client);
    load.more(20).await;
    new.set_mood(Mood::Failing(500));
    let id = migrate(&api, json!({ "pool": "next" })).await;
    let done = ended(&api, &id).await;
    assert_eq!(done["state"], "reverted", "{done:#}");
    let why = done["why"].as_str().expect("a reason");
    assert!(why.contains("failed at the new pool"), "{why}");
    load.more(50).await;
    let (good, bad) = load.end().await;
    assert!(bad > 0, "none of {good} requests reached the new pool");
    assert_eq!(client.get("/").await.status(), 200);
    let tenant = api.get("tenants/slug:ash").await.expect(200);
    assert_eq!((&tenant["pool"], tenant.get("canary")), (&json!("web"), None));
    let events = api.get("events").await.expect(200);
    assert!(
        events["items"].as_array().expect("items").iter().any(|event| event["kind"] == "tenant.migration_reverted")
    );
}

#[tokio::test]
async fn a_move_is_cancelled_in_the_middle_and_nothing_is_left_of_it() {
    let site = gateway().settings("[migrate]\nstep_s = 2\n").up().await;
    let (_old, new) = two_pools(&site).await;
    let (api, client) = (site.api(), site.client("ash.localhost"));
    let load = Load::start(&client);
    let id = migrate(&api, json!({ "pool": "next", "plan": "roomy" })).await;
    at_percent(&api, &id, 10).await;
    let data = site.data().display().to_string();
    let shown = site.run(&["operation", "cancel", &id, "--json", "--data-dir", &data]);
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    let done = ended(&api, &id).await;
    assert_eq!((&done["state"], &done["why"]), (&json!("reverted"), &json!("cancelled")), "{done:#}");
    let gone = new.requests();
    load.more(50).await;
    assert_eq!(new.requests(), gone, "nothing goes there any more");
    let (good, bad) = load.end().await;
    assert_eq!(bad, 0, "of {good} requests");
    let tenant = api.get("tenants/slug:ash").await.expect(200);
    assert_eq!((&tenant["pool"], &tenant["plan"], tenant.get("canary")), (&json!("web"), &json!("custom"), None));
}

#[tokio::test]
async fn a_control_plane_killed_in_the_middle_goes_on_where_it_was() {
    let mut site = gateway().settings(QUICK).split().await;
    let _origins = two_pools(&site).await;
    let client = site.client("ash.localhost");
    let load = Load::start(&client);
    let id = migrate(&site.api(), json!({ "pool": "next" })).await;
    at_percent(&site.api(), &id, 10).await;
    site.control.as_mut().expect("a split site").kill();
    load.more(50).await;
    site.start().await;
    let done = ended(&site.api(), &id).await;
    assert_eq!((&done["state"], shares(&done)), (&json!("succeeded"), vec![1, 10, 50, 100]), "{done:#}");
    let (good, bad) = load.end().await;
    assert_eq!(bad, 0, "of {good} requests");
    assert_eq!(site.api().get("tenants/slug:ash").await.expect(200)["pool"], "next");
}

#[tokio::test]
async fn premium_brings_its_own_pool_with_it() {
    let mut site = Site::builder(env!("CARGO_BIN_EXE_schoolgate")).settings(QUICK).school_apps(1).up().await;
    school(&site.api(), "ash", "shared").await;
    let data = site.data().display().to_string();
    let shown = site.run(&["tenant", "migrate", "ash", "--plan", "premium", "--watch", "--data-dir", &data]);
    let said = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success(), "{said}{}", String::from_utf8_lossy(&shown.stderr));
    assert!(said.contains("shift 50 %"), "{said}");
    let api = site.api();
    let tenant = api.get("tenants/slug:ash").await.expect(200);
    assert_eq!((&tenant["pool"], &tenant["plan"]), (&json!("ash"), &json!("premium")));
    let pool = api.get("pools/ash").await.expect(200);
    assert_eq!((&pool["kind"], pool["backends"].as_array().map(Vec::len)), (&json!("dedicated"), Some(1)));
    assert_eq!(site.client("ash.localhost").get("/").await.status(), 200);
    site.restart().await;
    eventually(SOON, || async { site.client("ash.localhost").try_get("/").await.is_ok_and(|a| a.status() == 200) })
        .await;
}

#[tokio::test]
async fn what_cannot_be_moved_is_refused_and_says_why() {
    let site = gateway().settings(QUICK).split().await;
    let _origins = two_pools(&site).await;
    let api = site.api();
    for (body, pointer) in [
        (json!({}), ""),
        (json!({ "pool": "web" }), ""),
        (json!({ "pool": "nowhere" }), "/pool"),
        (json!({ "plan": "gold" }), "/plan"),
        (json!({ "plan": "premium" }), "/pool"),
        (json!({ "plan": "premium", "pool": "next" }), "/pool"),
        (json!({ "pol": "next" }), "/pol"),
    ] {
        let refused = api.post("tenants/slug:ash/migrate", body.clone()).await.expect(422);
        assert_eq!(refused["errors"][0]["pointer"], pointer, "{body}: {refused}");
    }
    api.patch("tenants/slug:ash", json!({ "canary": { "pool": "next", "percent": 5 } })).await.expect(200);
    let refused = api.post("tenants/slug:ash/migrate", json!({ "pool": "next" })).await.expect(409);
    assert_eq!(refused["error"], "CANARY_IN_USE");
    assert_eq!(api.get("operations/op_01ARZ3NDEKTSV4RRFFQ69G5FAV").await.status, 404);
}
