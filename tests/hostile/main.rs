//! Batteries of hostile clients against the real binary.
//!
//! What is cheap and certain runs with all other tests: [`smuggling`] and [`downgrade`], corpora whose verdicts are known;
//! [`crossings`], random requests that must not reach another school; [`overload`], what many hold together.
//!
//! What takes minutes, or needs a quiet machine, is ignored there and run by `tests/hostile/run`: [`abuse`] and [`slow`],
//! which watch memory and a bystander, and [`handshakes`], which is testssl.sh.

mod abuse;
mod crossings;
mod downgrade;
mod frames;
mod handshakes;
mod overload;
mod recorder;
mod slow;
mod smuggling;
mod watch;

use std::net::SocketAddr;

use schoolgate_testkit::{Site, SiteBuilder};
use serde_json::json;

/// The name of the school behind which everything here is.
const HOST: &str = "ash.localhost";

fn gateway() -> SiteBuilder {
    Site::builder(env!("CARGO_BIN_EXE_schoolgate")).school_apps(0)
}

/// A gateway whose school `ash` is on this backend.
async fn with_backend(gateway: SiteBuilder, backend: SocketAddr) -> Site {
    let site = gateway.up().await;
    let api = site.api();
    let pool = json!({"id": "web", "kind": "shared", "backends": [{"address": format!("http://{backend}")}]});
    api.post("pools", pool).await.expect(201);
    let school = json!({"slug": "ash", "name": "Ash school", "plan": "custom", "pool": "web"});
    api.post("tenants?wait=applied", school).await.expect(201);
    site
}
