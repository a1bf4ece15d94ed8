//! The files that pages load, embedded.

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};

const CSS: &str = include_str!("../../assets/app.css");
const FAVICON: &str = include_str!("../../assets/favicon.svg");

/// The name under which browsers keep the style sheet: another content, another name.
pub(super) fn css_version() -> String {
    format!("{:08x}", crc32fast::hash(CSS.as_bytes()))
}

pub(crate) async fn css() -> Response {
    kept("text/css; charset=utf-8", CSS)
}

pub(crate) async fn favicon() -> Response {
    kept("image/svg+xml", FAVICON)
}

/// For a day, and only in the browser.
fn kept(media_type: &'static str, content: &'static str) -> Response {
    let headers = [(CONTENT_TYPE, media_type), (CACHE_CONTROL, "private, max-age=86400")];
    (headers, content).into_response()
}
