//! The promises, each driven through the real binary over real sockets. A module per promise.

mod acme;
mod api;
mod break_glass;
mod certificates;
mod chaos;
mod cli;
mod context_keys;
mod context_signer;
mod delegation;
mod demo;
mod domains;
mod errors;
mod explain;
mod feed;
mod fleet_limits;
mod health;
mod hostile_input;
mod identity;
mod instances;
mod issuers;
mod ladder;
mod leaving;
mod limits;
mod load;
mod moving;
mod observation;
mod other_languages;
mod pools;
mod routing;
mod school_app;
mod sealing;
mod selftest;
mod startup;
mod stopping;
mod store;
mod streaming;
mod tls;
mod upstreams;
mod usage;

use std::time::Duration;

use schoolgate_testkit::{Api, Origin, Site, SiteBuilder};
use serde_json::json;

/// Long enough for a slow machine, short enough for a broken test.
const SOON: Duration = Duration::from_secs(20);

/// A gateway without school-app instances: the tests bring origins of their own.
fn gateway() -> SiteBuilder {
    Site::builder(env!("CARGO_BIN_EXE_schoolgate")).school_apps(0)
}

/// A gateway whose school `ash` lives on a pool with these origins.
async fn gateway_with(origins: &[&Origin]) -> Site {
    let site = gateway().up().await;
    pool(&site.api(), "web", origins).await;
    school(&site.api(), "ash", "web").await;
    site
}

/// Makes a pool of these origins.
async fn pool(api: &Api, id: &str, origins: &[&Origin]) {
    let backends: Vec<_> = origins.iter().map(|origin| json!({"address": origin.url()})).collect();
    let body = json!({"id": id, "kind": "shared", "balance": "least_request", "backends": backends});
    api.post("pools", body).await.expect(201);
}

/// Makes a school on a pool and waits until every proxy serves it.
async fn school(api: &Api, slug: &str, pool: &str) -> serde_json::Value {
    let body = json!({"slug": slug, "name": format!("{slug} school"), "plan": "custom", "pool": pool});
    api.post("tenants?wait=applied", body).await.expect(201)
}
