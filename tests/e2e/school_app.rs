//! The school app behind the gateway, and without it.

use reqwest::Method;
use schoolgate_testkit::{Client, Site};
use serde_json::json;

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
