//! `GET /whoami`: what this instance was told about the request, for people who set up a gateway.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Value, json};

use crate::context::admission::Tenant;
use crate::router::App;

/// Headers that a gateway sets or has to take away, by how they begin.
const SHOWN: [&str; 6] = ["x-tenant", "x-forwarded-", "x-request-id", "x-client-request-id", "forwarded", "x-real-ip"];

/// And by their whole name.
const SHOWN_EXACTLY: [&str; 3] = ["host", "x-subdomain", "traceparent"];

pub(crate) async fn show(State(app): State<Arc<App>>, Tenant(tenant): Tenant, headers: HeaderMap) -> Json<Value> {
    Json(json!({
        "tenant": {"id": tenant.tenant_id().as_str(), "slug": tenant.slug(), "name": tenant.name()},
        "plan": tenant.plan(),
        "features": tenant.features(),
        "limits": tenant.limits(),
        "isolation": tenant.isolation(),
        "instance": app.instance,
        "headers": shown(&headers),
    }))
}

/// The headers worth showing, in any spelling; several of one name are joined with a comma. The token itself is a secret.
fn shown(headers: &HeaderMap) -> BTreeMap<&str, String> {
    let mut shown: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in headers {
        let plain = name.as_str().replace('_', "-");
        let wanted = SHOWN.iter().any(|start| plain.starts_with(start)) || SHOWN_EXACTLY.contains(&plain.as_str());
        if !wanted || plain == "x-tenant-context" {
            continue;
        }
        let value = String::from_utf8_lossy(value.as_bytes());
        shown
            .entry(name.as_str())
            .and_modify(|all| *all = format!("{all}, {value}"))
            .or_insert_with(|| value.into_owned());
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_shown_in_every_spelling_but_never_the_token() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-tenant-id", "a"),
            ("x-tenant-id", "b"),
            ("x_tenant_slug", "c"),
            ("x-tenant-context", "secret"),
            ("authorization", "secret"),
        ] {
            headers.append(name.parse::<axum::http::HeaderName>().unwrap(), value.parse().unwrap());
        }
        let shown = shown(&headers);
        assert_eq!(shown.len(), 2);
        assert_eq!((shown["x-tenant-id"].as_str(), shown["x_tenant_slug"].as_str()), ("a, b", "c"));
    }
}
