//! The OpenAPI document: made of the handlers, with what all of them have in common put in once.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{StatusCode, Uri};
use serde_json::{Value, json};
use utoipa::openapi::OpenApi;
use utoipa::{PartialSchema, ToSchema};

use super::problem::{Problem, ProblemDocument};
use super::write::{Applied, Plan};

/// Operations that are asked with `POST` and write nothing.
const WRITES_NOTHING: [&str; 2] = ["/api/v1/explain", "/api/v1/selftest/isolation"];

/// The document with what every operation has: its name, its problems, its token, the options of a write.
pub(crate) fn finished(document: OpenApi) -> Value {
    let mut document = serde_json::to_value(document).expect("the document serialises");
    document["info"] = json!({
        "title": "Schoolgate control API",
        "version": env!("CARGO_PKG_VERSION"),
        "description": "What operators want, made into revisions. Every write is one transaction, one audit line and one \
            change; errors are problem documents (RFC 9457) with a stable `error`.",
        "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
    });
    document["servers"] = json!([{ "url": "/" }]);
    let mut schemas = vec![("Problem".to_owned(), <ProblemDocument<'_> as PartialSchema>::schema())];
    schemas.extend([("Plan".to_owned(), Plan::schema()), ("Applied".to_owned(), Applied::schema())]);
    <ProblemDocument<'_> as ToSchema>::schemas(&mut schemas);
    Plan::schemas(&mut schemas);
    Applied::schemas(&mut schemas);
    for (name, schema) in schemas {
        document["components"]["schemas"][name] = serde_json::to_value(schema).expect("a schema serialises");
    }
    document["components"]["securitySchemes"] = json!({
        "operator": { "type": "http", "scheme": "bearer", "bearerFormat": "sgk_<id>_<secret>" },
        "node": { "type": "http", "scheme": "bearer", "bearerFormat": "sgn_<id>_<secret>" },
    });
    let Some(paths) = document["paths"].as_object_mut() else { return document };
    for (path, item) in paths {
        let Some(operations) = item.as_object_mut() else { continue };
        for (method, operation) in operations {
            finish(path, method, operation);
        }
    }
    document
}

fn finish(path: &str, method: &str, operation: &mut Value) {
    let words =
        path.trim_start_matches("/api/v1/").split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty());
    operation["operationId"] = words.fold(method.to_owned(), |id, word| format!("{id}_{word}")).into();
    operation["responses"]["default"] = json!({
        "description": "A problem",
        "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
    });
    if method == "patch" {
        let whole = &operation["requestBody"]["content"]["application/json"]["schema"];
        let of = whole["$ref"].as_str().and_then(|r| r.rsplit('/').next()).unwrap_or("the object").to_owned();
        let schema = json!({ "type": "object", "description": format!("A merge patch (RFC 7396) of {of}") });
        operation["requestBody"]["content"] = json!({
            "application/merge-patch+json": { "schema": schema },
            "application/json": { "schema": schema },
        });
    }
    let is_ours = path.starts_with("/api/v1/");
    operation["security"] = match path {
        _ if is_ours => json!([{ "operator": [] }]),
        _ if path.starts_with("/internal/") => json!([{ "node": [] }]),
        _ => json!([]),
    };
    if !is_ours || method == "get" || WRITES_NOTHING.contains(&path) {
        return;
    }
    let option = |name: &str, kind: Value, text: &str| json!({ "name": name, "in": "query", "required": false, "schema": kind, "description": text });
    let header = |name: &str, text: &str| json!({ "name": name, "in": "header", "required": false, "schema": { "type": "string" }, "description": text });
    let mut parameters = match operation["parameters"].take() {
        Value::Array(parameters) => parameters,
        _ => Vec::new(),
    };
    parameters.extend([
        option("dry_run", json!({ "type": "boolean" }), "`true` answers a Plan, and writes nothing"),
        option(
            "wait",
            json!({ "type": "string", "enum": ["applied"] }),
            "Answer when every live proxy serves it; the answer has the header Schoolgate-Applied and a field `applied`",
        ),
        option("timeout", json!({ "type": "string" }), "How long to wait: seconds, at most 60; 10 if not given"),
        header("If-Match", "The ETag of the object as it was read; 412 when it has changed"),
    ]);
    if method == "post" {
        parameters
            .push(header("Idempotency-Key", "The same request with the same key gets the same answer, for a day"));
    }
    operation["parameters"] = parameters.into();
}

/// A handler that answers the document.
pub(crate) fn handler(document: &Value) -> impl Fn() -> std::future::Ready<Response> + Clone + Send + 'static {
    let bytes = Bytes::from(document.to_string());
    move || std::future::ready(([(CONTENT_TYPE, "application/json")], bytes.clone()).into_response())
}

/// What a path answers that this release does not have.
pub(crate) async fn unknown_path(uri: Uri) -> Problem {
    let path: String = uri.path().chars().take(200).collect();
    let message = format!("this release has no path {path}; /api/v1/openapi.json lists those it has");
    Problem { message, ..Problem::of_status(StatusCode::NOT_FOUND) }
}

/// What a path answers to a method that it does not take.
pub(crate) async fn method_not_allowed() -> Problem {
    Problem::of_status(StatusCode::METHOD_NOT_ALLOWED)
}
