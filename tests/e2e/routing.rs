//! Routes, canaries and maintenance: what visitors see of what an operator writes.

use std::collections::HashSet;

use reqwest::Method;
use reqwest::header::RETRY_AFTER;
use schoolgate_config::time::{Clock, SystemClock, rfc3339};
use schoolgate_testkit::{Mood, Origin, Site, eventually};
use serde_json::{Value, json};

use crate::load::Load;
use crate::{SOON, gateway, pool, school};

/// A gateway whose schools `ash` and `birch` live on the pool `web` of one origin; the pool `next` has the other.
async fn two_pools() -> (Site, Origin, Origin) {
    let (web, next) = (Origin::named("web").await, Origin::named("next").await);
    let site = gateway().up().await;
    let api = site.api();
    pool(&api, "web", &[&web]).await;
    pool(&api, "next", &[&next]).await;
    school(&api, "ash", "web").await;
    school(&api, "birch", "web").await;
    (site, web, next)
}

async fn route(site: &Site, route: Value) -> Value {
    site.api().post("routes?wait=applied", route).await.expect(201)
}

#[tokio::test]
async fn a_public_path_is_served_on_every_known_host_and_its_backend_is_told_no_tenant() {
    let (site, _web, next) = two_pools().await;
    let api = site.api();
    api.patch("zones/localhost", json!({ "shared_host": "api.localhost" })).await.expect(200);
    let assets = json!({ "public": true, "pool": "next", "class": "static" });
    route(&site, json!({ "match": { "path_prefix": "/assets/" }, "action": assets })).await;
    let robots = json!({ "public": true, "answer": { "body": "User-agent: *\nDisallow: /\n" } });
    route(&site, json!({ "match": { "path_exact": "/robots.txt" }, "action": robots })).await;
    api.post("tenants/slug:birch/suspend?wait=applied", json!({})).await.expect(200);

    for host in ["ash.localhost", "birch.localhost", "api.localhost"] {
        let client = site.client(host);
        let answer = client
            .request(Method::GET, "/assets/app.css")
            .header("x-tenant-id", "ash")
            .header("x_tenant_slug", "ash")
            .send()
            .await
            .expect("an answer");
        assert_eq!(answer.status(), 200, "{host}");
        let seen = next.last();
        for field in ["x-tenant-id", "x-tenant-slug", "x_tenant_slug", "x-tenant-context", "x-subdomain"] {
            assert_eq!(seen.header(field), None, "{field} on {host}");
        }
        assert!(seen.header("x-request-id").is_some() && seen.header("x-forwarded-for").is_some());
        let robots = client.get("/robots.txt").await;
        assert_eq!(robots.status(), 200);
        assert_eq!(robots.headers()["content-type"], "text/plain; charset=utf-8");
        assert_eq!(robots.text().await.expect("a body"), "User-agent: *\nDisallow: /\n");
    }
    assert_eq!(site.client("birch.localhost").get("/").await.status(), 403);
    assert_eq!(site.client("api.localhost").get("/").await.status(), 400, "beside it a tenant is needed");
    let explained = api
        .post("explain", json!({ "request": { "host": "api.localhost", "path": "/assets/app.css" } }))
        .await
        .expect(200);
    assert_eq!((&explained["outcome"]["via"], &explained["would_have"]["pool"]), (&json!("public"), &json!("next")));
    assert_eq!(explained["would_have"]["tenant"], Value::Null);
}

#[tokio::test]
async fn files_are_answered_by_the_gateway_itself_and_change_with_their_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
        std::fs::write(path, text).expect("written");
    };
    write(".well-known/security.txt", "Contact: mailto:it@ash.test\n");
    write(".well-known/large.bin", "not yet");
    let settings = format!("[proxy.files]\ndir = {:?}\nfile_bytes = 100\nreread_s = 0.1\n", dir.path());
    // The pool has no backend: nothing of this needs one.
    let site = gateway().settings(&settings).up().await;
    let api = site.api();
    pool(&api, "web", &[]).await;
    school(&api, "ash", "web").await;
    let data = site.data().display().to_string();
    let prefix = ["route", "create", "--path-prefix", "/.well-known/", "--files", ".well-known"];
    let made = site.run(&[&prefix[..], &["--set", "action.public=true", "--data-dir", &data]].concat());
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let client = site.client("ash.localhost");
    let text = async || {
        let answer = client.get("/.well-known/security.txt").await;
        if answer.status() == 200 { answer.text().await.expect("a body") } else { String::new() }
    };
    eventually(SOON, || async { text().await == "Contact: mailto:it@ash.test\n" }).await;
    let tag = client.get("/.well-known/security.txt").await.headers()["etag"].clone();
    let again = client.request(Method::GET, "/.well-known/security.txt").header("if-none-match", &tag).send().await;
    assert_eq!(again.expect("an answer").status(), 304);
    assert_eq!(client.get("/.well-known/none").await.status(), 404);
    assert_eq!(client.get("/.well-known/acme-challenge/none").await.status(), 404, "which stays the authorities'");
    let asked = json!({ "request": { "host": "ash.localhost", "path": "/.well-known/security.txt" } });
    let explained = api.post("explain", asked).await.expect(200);
    assert_eq!(
        (&explained["outcome"]["action"], &explained["outcome"]["status"]),
        (&json!("answer"), &json!(200)),
        "{explained:#}"
    );
    assert!(explained.to_string().contains("the file .well-known/security.txt of"), "{explained:#}");

    // What is too large is refused as a whole; what was there before is served on.
    write(".well-known/large.bin", &"x".repeat(101));
    write(".well-known/security.txt", "Contact: tel:+1\n");
    eventually(SOON, || async { site.proxy.log().contains("large.bin has more than 100 bytes") }).await;
    assert_eq!(text().await, "Contact: mailto:it@ash.test\n");
    write(".well-known/large.bin", "small again");
    eventually(SOON, || async { text().await == "Contact: tel:+1\n" }).await;

    let refused = json!({ "match": { "path_exact": "/x" }, "action": { "files": { "path": "../keys/kek" } } });
    let refused = api.post("routes", refused).await.expect(422);
    assert_eq!(refused["errors"][0]["pointer"], "/action/files/path");
    let both = json!({ "match": { "path_exact": "/x" }, "action": { "files": { "path": "x" }, "pool": "web" } });
    assert_eq!(api.post("routes", both).await.expect(422)["errors"][0]["pointer"], "/action");
    for (name, said) in [("Keep-Alive", "belongs to the gateway"), ("x_banner", "hyphens")] {
        let rule = json!({ "match": {}, "action": { "set_response_headers": { name: "1" } } });
        let refused = api.post("routes", rule).await.expect(422);
        assert!(refused["errors"][0]["message"].as_str().is_some_and(|text| text.contains(said)), "{refused}");
    }
}

#[tokio::test]
async fn a_route_decides_by_host_and_explain_names_it() {
    let (site, web, next) = two_pools().await;
    let api = site.api();
    api.post("domains?wait=applied", json!({ "name": "erp.ash.test", "tenant": "ash" })).await.expect(201);
    let made = route(&site, json!({ "match": { "host": "custom_domain" }, "action": { "pool": "next" } })).await;
    let beside =
        json!({ "match": { "path_prefix": "/old/" }, "action": { "redirect": { "to": "/new", "status": 302 } } });
    route(&site, beside).await;
    assert_eq!(site.client("erp.ash.test").get("/").await.status(), 200);
    assert_eq!((web.requests(), next.requests()), (0, 1));
    assert_eq!(site.client("ash.localhost").get("/").await.status(), 200);
    assert_eq!((web.requests(), next.requests()), (1, 1));
    let explained =
        api.post("explain", json!({ "request": { "host": "erp.ash.test", "path": "/x" } })).await.expect(200);
    let steps = explained["steps"].as_array().expect("steps");
    let step = steps.iter().find(|step| step["step"] == "route").expect("a step about the route");
    assert_eq!(step["route"]["id"], made["id"]);
    let timeouts = json!({ "tenant": "birch", "match": { "path_prefix": "/delay/" }, "action": { "timeouts": { "read_ms": 50 } } });
    route(&site, timeouts).await;
    assert_eq!(site.client("birch.localhost").get("/delay/2000").await.status(), 504);
}

#[tokio::test]
async fn a_canary_takes_its_share_and_a_change_of_it_fails_no_request() {
    let (site, web, next) = two_pools().await;
    let api = site.api();
    let share = async |percent: u8| {
        let canary = json!({ "pool": "next", "percent": percent, "by": "request",
            "cookie": { "name": "beta", "value": "1" } });
        api.patch("tenants/slug:ash?wait=applied", json!({ "canary": canary })).await.expect(200);
    };
    share(0).await;
    let client = site.client("ash.localhost");
    let beta = client.request(Method::GET, "/").header("cookie", "a=b; beta=1").send().await.expect("an answer");
    assert_eq!((beta.status().as_u16(), web.requests(), next.requests()), (200, 0, 1));

    let load = Load::start(&client);
    for percent in [10, 50, 100, 0, 25] {
        share(percent).await;
        let before = (web.requests(), next.requests());
        load.more(300).await;
        let (old, new) = (web.requests() - before.0, next.requests() - before.1);
        let found = 100.0 * new as f64 / (old + new) as f64;
        // Five standard deviations of 300 requests, and the few that were under way.
        assert!((found - f64::from(percent)).abs() < 16.0, "{found} % went there at {percent} %");
    }
    let (good, bad) = load.end().await;
    assert_eq!(bad, 0, "of {good} requests");
    // Birch has no canary.
    let before = next.requests();
    assert_eq!(site.client("birch.localhost").get("/").await.status(), 200);
    assert_eq!(next.requests(), before);
}

#[tokio::test]
async fn a_canary_that_has_nobody_costs_no_request() {
    let (site, _web, next) = two_pools().await;
    let canary = json!({ "pool": "next", "percent": 100 });
    site.api().patch("tenants/slug:ash?wait=applied", json!({ "canary": canary })).await.expect(200);
    let client = site.client("ash.localhost");
    let load = Load::start(&client);
    load.more(50).await;
    assert!(next.requests() >= 50);
    next.die().await;
    load.more(300).await;
    next.come_back().await;
    let before = next.requests();
    eventually(SOON, || async { next.requests() > before }).await;
    let (good, bad) = load.end().await;
    assert_eq!(bad, 0, "of {good} requests");
    next.set_mood(Mood::Failing(500));
    assert_eq!(client.get("/").await.status(), 500, "an answer is an answer, also a bad one");
}

#[tokio::test]
async fn maintenance_says_when_it_ends_and_ends_then_without_anybody() {
    let (site, _web, _next) = two_pools().await;
    let (api, client) = (site.api(), site.client("ash.localhost"));
    let ends_at = SystemClock.unix_ms() + 3_000;
    let body = json!({ "ends_at": rfc3339(ends_at), "message": "New <b>timetables</b>" });
    api.post("tenants/slug:ash/maintenance?wait=applied", body).await.expect(200);
    let answer = client.request(Method::GET, "/").header("accept", "text/html").send().await.expect("an answer");
    assert_eq!(answer.status(), 503);
    let told: i64 = answer.headers()[RETRY_AFTER].to_str().expect("text").parse().expect("seconds");
    assert!(SystemClock.unix_ms() + told * 1_000 >= ends_at && told <= 3, "told to wait {told} s");
    let page = answer.text().await.expect("a page");
    assert!(page.contains("New &lt;b&gt;timetables&lt;/b&gt;") && page.contains("ash school"), "{page}");
    assert_eq!(site.client("birch.localhost").get("/").await.status(), 200, "the others are not concerned");

    eventually(SOON, || async { client.get("/").await.status() == 200 }).await;
    assert!(SystemClock.unix_ms() >= ends_at, "it ended too early");
    eventually(SOON, || async { api.get("tenants/slug:ash").await.expect(200)["state"] == "active" }).await;
    let by_itself = api.get("audit?limit=1").await.expect(200);
    assert_eq!(by_itself["items"][0]["action"], "tenant.resume");
}

#[tokio::test]
async fn maintenance_of_a_pool_begins_in_its_window_and_lets_testers_in() {
    let (site, _web, _next) = two_pools().await;
    let api = site.api();
    let begins = SystemClock.unix_ms() + 1_500;
    let body = json!({ "starts_at": rfc3339(begins), "reason": "disk" });
    api.post("pools/web/maintenance?wait=applied", body).await.expect(200);
    let clients: Vec<_> = ["ash.localhost", "birch.localhost"].iter().map(|host| site.client(host)).collect();
    if SystemClock.unix_ms() < begins - 200 {
        assert_eq!(clients[0].get("/").await.status(), 200, "it has not begun");
    }
    for client in &clients {
        eventually(SOON, || async { client.get("/").await.status() == 503 }).await;
    }
    assert!(SystemClock.unix_ms() >= begins);
    let problem = clients[0].get("/").await;
    assert_eq!(problem.headers()[RETRY_AFTER], "120", "nobody knows when it ends");
    let problem: Value = problem.json().await.expect("JSON");
    assert_eq!(problem["error"], "TENANT_MAINTENANCE");
    assert!(!problem.to_string().contains("disk"), "the reason is for operators");
    api.post("pools/web/maintenance?wait=applied", json!({ "allow": ["127.0.0.0/8", "::1"] })).await.expect(200);
    assert_eq!(clients[0].get("/").await.status(), 200, "a tester is served");
    api.post("pools/web/resume?wait=applied", json!({})).await.expect(200);
    let data = site.data().display().to_string();
    let everywhere = ["maintenance", "begin", "--message", "All schools", "--wait", "--data-dir", &data];
    assert!(site.run(&everywhere).status.success());
    for client in &clients {
        assert!(client.get("/").await.text().await.expect("a body").contains("All schools"));
    }
    assert!(site.run(&["maintenance", "end", "--wait", "--data-dir", &data]).status.success());
    let states: HashSet<u16> =
        [clients[0].get("/").await, clients[1].get("/").await].iter().map(|a| a.status().as_u16()).collect();
    assert_eq!(states, HashSet::from([200]));
}
