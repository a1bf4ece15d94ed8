//! What kinds of requests and answers are counted apart.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a request was for, as far as its method, path and answer tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RequestClass {
    /// Below `/api/`.
    Api,
    /// Anything else that a person looks at.
    Page,
    /// A file of a page: read only, and named as style sheets, scripts, pictures and fonts are.
    Static,
    /// A connection that became a WebSocket, or another protocol.
    Websocket,
}

/// Endings of the names of files that pages are made of.
const STATIC_ENDINGS: [&str; 20] = [
    "avif",
    "bmp",
    "css",
    "gif",
    "ico",
    "jpeg",
    "jpg",
    "js",
    "map",
    "mjs",
    "mp4",
    "otf",
    "png",
    "svg",
    "ttf",
    "wasm",
    "webm",
    "webmanifest",
    "webp",
    "woff2",
];

impl RequestClass {
    /// Every class, in the order of its counters.
    pub const ALL: [Self; 4] = [Self::Api, Self::Page, Self::Static, Self::Websocket];

    /// The class of a request by its method, path, and the status it was answered with (0: none).
    pub fn of(method: &str, path: &str, status: u16) -> Self {
        if status == 101 {
            return Self::Websocket;
        }
        if path.strip_prefix("/api").is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) {
            return Self::Api;
        }
        let name = path.rsplit('/').next().unwrap_or_default();
        let ending = name.rsplit_once('.').map_or("", |(_, ending)| ending);
        let is_file = (2..=11).contains(&ending.len()) && STATIC_ENDINGS.iter().any(|e| e.eq_ignore_ascii_case(ending));
        if is_file && matches!(method, "GET" | "HEAD") { Self::Static } else { Self::Page }
    }

    /// The name used in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Page => "page",
            Self::Static => "static",
            Self::Websocket => "websocket",
        }
    }
}

/// How a request was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CodeClass {
    /// 1xx: the protocol was switched.
    Informational,
    /// 2xx.
    Success,
    /// 3xx.
    Redirection,
    /// 4xx.
    ClientError,
    /// 5xx.
    ServerError,
    /// The client went away before (nginx calls it 499).
    Unanswered,
}

impl CodeClass {
    /// Every class, in the order of its counters.
    pub const ALL: [Self; 6] =
        [Self::Informational, Self::Success, Self::Redirection, Self::ClientError, Self::ServerError, Self::Unanswered];

    /// The class of a status; 0 and anything that is no status is no answer.
    pub const fn of(status: u16) -> Self {
        match status {
            100..=199 => Self::Informational,
            200..=299 => Self::Success,
            300..=399 => Self::Redirection,
            400..=499 => Self::ClientError,
            500..=599 => Self::ServerError,
            _ => Self::Unanswered,
        }
    }

    /// The name used in JSON and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Informational => "1xx",
            Self::Success => "2xx",
            Self::Redirection => "3xx",
            Self::ClientError => "4xx",
            Self::ServerError => "5xx",
            Self::Unanswered => "499",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_is_read_from_method_path_and_answer() {
        use RequestClass::{Api, Page, Static, Websocket};
        for (method, path, status, class) in [
            ("GET", "/", 200, Page),
            ("GET", "/api", 200, Api),
            ("POST", "/api/students", 201, Api),
            ("GET", "/api/logo.png", 200, Api),
            ("GET", "/apiary", 200, Page),
            ("GET", "/assets/app.JS", 200, Static),
            ("HEAD", "/favicon.ico", 304, Static),
            ("POST", "/upload/photo.png", 200, Page),
            ("GET", "/grades.pdf", 200, Page),
            ("GET", "/v1.2/report", 200, Page),
            ("GET", "/.css", 200, Static),
            ("GET", "/api/live", 101, Websocket),
            ("GET", "*", 0, Page),
        ] {
            assert_eq!(RequestClass::of(method, path, status), class, "{method} {path} {status}");
        }
    }

    #[test]
    fn every_status_has_a_class() {
        let classes = [0, 101, 204, 308, 429, 504, 600].map(|status| CodeClass::of(status).as_str());
        assert_eq!(classes, ["499", "1xx", "2xx", "3xx", "4xx", "5xx", "499"]);
    }
}
