//! The school app behind the gateway, and without it.

use reqwest::Method;
use schoolgate_testkit::{Client, Site};
use serde_json::json;

use crate::context_signer::ContextSigner;

#[tokio::test]
async fn schools_on_shared_instances_see_their_own_students_only() {
    let site = Site::builder(env!("CARGO_BIN_EXE_schoolgate")).demo().up().await;
    let (greenhill, riverside) = (site.client("greenhill.localhost"), site.client("riverside.localhost"));
    let seeded = greenhill.get_json("/api/students").await["items"].as_array().map(Vec::len);
    assert!(seeded.is_some_and(|n| n > 0));
    let student = json!({"given_name": "Ada", "family_name": "Lovelace", "admission_no": "T-1"});
    let made = greenhill.request(Method::POST, "/api/students").json(&student).send().await.expect("an answer");
    assert_eq!(made.status(), 201, "{}", made.text().await.unwrap_or_default());
    // Every instance of the pool sees it: more requests than instances, over fresh connections.
    for _ in 0..6 {
        let found = site.client("greenhill.localhost").get_json("/api/students?q=Lovelace").await;
        assert_eq!(found["items"].as_array().map(Vec::len), Some(1));
    }
    assert_eq!(riverside.get_json("/api/students?q=Lovelace").await["items"], json!([]));
    for path in ["/", "/students", "/classes"] {
        let page = greenhill.get(path).await;
        assert_eq!(page.status(), 200, "{path}");
        assert!(page.text().await.expect("a body").contains("Greenhill"), "{path}");
    }
}

#[tokio::test]
async fn a_request_that_did_not_pass_the_gateway_is_401() {
    let site = Site::builder(env!("CARGO_BIN_EXE_schoolgate")).demo().up().await;
    let pool = site.api().get("pools/shared").await.expect(200);
    let address = pool["backends"][0]["address"].as_str().expect("an address").trim_start_matches("http://").to_owned();
    let direct = Client::plain(address.parse().expect("an address"));
    assert_eq!(direct.get("/healthz").await.status(), 200);
    for path in ["/", "/api/students", "/whoami"] {
        let answer = direct
            .request(Method::GET, path)
            .header("x-tenant-id", "tnt_x")
            .header("x-tenant-slug", "greenhill")
            .send()
            .await;
        assert_eq!(answer.expect("an answer").status(), 401, "{path}");
    }
    let forged = direct.request(Method::GET, "/whoami").header("x-tenant-context", "a.b.c").send().await;
    assert_eq!(forged.expect("an answer").status(), 401);
}

#[tokio::test]
async fn a_school_whose_database_two_instances_make_at_once_has_one() {
    let site = Site::builder(env!("CARGO_BIN_EXE_schoolgate")).demo().up().await;
    let pool = site.api().get("pools/shared").await.expect(200);
    let backends: Vec<_> = pool["backends"].as_array().expect("a list").iter().map(|b| b["address"].clone()).collect();
    assert_eq!(backends.len(), 2, "two processes");
    let students = |list: &serde_json::Value| list["items"].as_array().map_or(0, Vec::len);
    let seeded = students(&site.client("greenhill.localhost").get_json("/api/students").await);
    assert!(seeded > 0);
    for slug in ["ash", "birch", "cedar", "damson"] {
        let body = json!({"slug": slug, "name": slug, "plan": "basic", "pool": "shared"});
        site.api().post("tenants?wait=applied", body).await.expect(201);
        let host = format!("{slug}.localhost");
        // Their first requests, on connections of their own, so that each instance gets some of them.
        let visitors: Vec<_> = (0..8).map(|_| site.client(&host)).collect();
        let answers: Vec<_> = visitors
            .into_iter()
            .map(|client| tokio::spawn(async move { client.get_json("/api/students").await }))
            .collect();
        for answer in answers {
            let answer = answer.await.expect("no panic");
            assert_eq!(students(&answer), seeded, "{slug}: {answer}");
        }
    }
    for backend in &backends {
        let label = format!("backend={backend}");
        assert!(site.metric("schoolgate_backend_requests_total", &[&label]).await > 0.0, "{backend} took no part");
    }
}

#[tokio::test]
async fn a_context_of_the_gateway_that_has_expired_opens_nothing() {
    let site = Site::builder(env!("CARGO_BIN_EXE_schoolgate")).demo().up().await;
    let signer = ContextSigner::of(&site).await;
    let signed = |age_s: i64| signer.sign(&signer.header(), &signer.claims("greenhill", "shared", age_s));
    let pool = site.api().get("pools/shared").await.expect(200);
    let address = pool["backends"][0]["address"].as_str().expect("an address").trim_start_matches("http://").to_owned();
    let direct = Client::plain(address.parse().expect("an address"));
    let ask = async |context: String| {
        direct
            .request(Method::GET, "/whoami")
            .header("x-tenant-context", context)
            .send()
            .await
            .expect("an answer")
            .status()
    };
    assert_eq!(ask(signed(0)).await, 200, "the same, in its time");
    assert_eq!(ask(signed(3_600)).await, 401);
}
