//! Files that a route answers with: small ones, the same for everyone, from every gateway's own directory.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::RouteMatch;
use super::id::{as_string, shortened};

/// Answer with files of the directory that a gateway's settings name (`proxy.files.dir`). Each gateway has a copy of its
/// own and holds it in memory; a route only says which part of it is served.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FilesAnswer {
    /// Of a route for one path: the file. Else the directory whose files are found at what the request's path has beyond
    /// the route's prefix. Relative to the gateway's directory; empty is that directory itself.
    #[serde(default)]
    pub path: FilePath,
    /// Seconds for which an answer may be used again without asking (`Cache-Control: max-age`).
    #[serde(default = "FilesAnswer::default_max_age_s")]
    pub max_age_s: u32,
}

impl FilesAnswer {
    /// Seconds, when nobody says anything else: 300. What changes is seen everywhere after as long.
    pub const MAX_AGE_S: u32 = 300;

    /// The most: a year (RFC 9111 has no use for more).
    pub const MOST_MAX_AGE_S: u32 = 31_536_000;

    /// The file that stands for a directory.
    pub const INDEX: &'static str = "index.html";

    const fn default_max_age_s() -> u32 {
        Self::MAX_AGE_S
    }

    /// The name that a request's path has below the gateway's directory; one of a directory ends with `/` or is empty.
    /// `None`: no file can have it. Nothing in it leads anywhere: it is looked up among names that are held.
    pub fn name<'p>(&'p self, matches: &RouteMatch, path: &'p str) -> Option<Cow<'p, str>> {
        let own = self.path.as_str();
        if matches.path_exact.is_some() && !own.is_empty() {
            return Some(Cow::Borrowed(own));
        }
        let prefix = matches.path_prefix.as_deref().unwrap_or_default();
        let rest = path.strip_prefix(prefix).unwrap_or(path);
        // `/files` itself is the file of this name, or a directory; `/files/` is the directory.
        let below = rest.starts_with('/') || prefix.ends_with('/') || prefix.is_empty();
        let rest = unescaped(rest.strip_prefix('/').unwrap_or(rest))?;
        Some(match (own, &*rest) {
            ("", _) => rest,
            (own, "") if below => Cow::Owned(format!("{own}/")),
            (own, "") => Cow::Borrowed(own),
            (own, rest) => Cow::Owned(format!("{own}/{rest}")),
        })
    }
}

/// Text without its percent escapes; `None` when it is no text then, or has what no name of a file has.
fn unescaped(text: &str) -> Option<Cow<'_, str>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let (bytes, mut out, mut at) = (text.as_bytes(), Vec::with_capacity(text.len()), 0);
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            let digits = text.get(at + 1..at + 3).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            at += 3;
        } else {
            out.push(byte);
            at += 1;
        }
    }
    String::from_utf8(out).ok().filter(|text| !text.contains('\0')).map(Cow::Owned)
}

/// Why a text is not the path of a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilePathError {
    /// From the root, or with a step that leads out of the directory or to a hidden file.
    #[error(
        "`{0}` is not a path below the gateway's directory: write names with `/` between them, such as status/logo.svg; \
         none begins with a dot, but for .well-known"
    )]
    Step(String),
    /// More than [`FilePath::BYTES`].
    #[error("a path of a file has at most {most} bytes", most = FilePath::BYTES)]
    Long,
}

/// A path of a file or directory below a gateway's directory: names with `/` between them, none of them hidden.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct FilePath(String);

impl FilePath {
    /// The most bytes: 255.
    pub const BYTES: usize = 255;

    /// The text; empty for the directory itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a file or directory of this name is served: hidden ones are not, but for the one that RFC 8615 names.
    pub fn is_served(name: &str) -> bool {
        name == ".well-known" || !(name.is_empty() || name.starts_with('.'))
    }
}
impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl FromStr for FilePath {
    type Err = FilePathError;
    fn from_str(text: &str) -> Result<Self, FilePathError> {
        if text.len() > Self::BYTES {
            return Err(FilePathError::Long);
        }
        let is_plain =
            |name: &str| Self::is_served(name) && !name.contains(['\\', '\0']) && !name.contains(char::is_control);
        let own = text.strip_suffix('/').unwrap_or(text);
        if text.starts_with('/') || !(text.is_empty() || own.split('/').all(is_plain)) {
            return Err(FilePathError::Step(shortened(text)));
        }
        Ok(Self(own.to_owned()))
    }
}
as_string!(FilePath, FilePathError, "a path below the gateway's directory of files, such as status/logo.svg");

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(prefix: &str) -> RouteMatch {
        RouteMatch { path_prefix: Some(prefix.to_owned()), ..RouteMatch::default() }
    }

    fn files(path: &str) -> FilesAnswer {
        FilesAnswer { path: path.parse().expect("a path"), max_age_s: 0 }
    }

    #[test]
    fn a_path_leads_nowhere_but_below_the_directory() {
        for good in ["", "robots.txt", "status/logo.svg", "status/", ".well-known/security.txt", "ä ö"] {
            let path: FilePath = good.parse().expect(good);
            assert_eq!(path.as_str(), good.trim_end_matches('/'));
        }
        for bad in ["/etc/passwd", "..", "a/../b", "./a", "a//b", "/", ".git", "a/.env", "a\\b", "a\nb", "//"] {
            assert!(bad.parse::<FilePath>().is_err(), "{bad:?}");
        }
        assert_eq!("a".repeat(256).parse::<FilePath>(), Err(FilePathError::Long));
    }

    #[test]
    fn what_is_beyond_the_prefix_names_the_file() {
        let of = |files: &FilesAnswer, matches: &RouteMatch, path: &str| {
            files.name(matches, path).map(Cow::into_owned).unwrap_or_else(|| "-".to_owned())
        };
        let (root, status) = (files(""), files("status"));
        for slash in ["/s", "/s/"] {
            assert_eq!(of(&root, &prefix(slash), "/s/a/b.css"), "a/b.css");
            assert_eq!(of(&status, &prefix(slash), "/s/a/b.css"), "status/a/b.css");
            assert_eq!(of(&status, &prefix(slash), "/s/"), "status/");
        }
        assert_eq!(of(&status, &prefix("/s"), "/s"), "status", "which is a directory, and says so");
        assert_eq!(of(&root, &RouteMatch::default(), "/"), "");
        assert_eq!(of(&root, &RouteMatch::default(), "/x.txt"), "x.txt");
        assert_eq!(of(&status, &prefix("/s"), "/s/one%20two%C3%A4"), "status/one twoä");
        let exact = RouteMatch { path_exact: Some("/robots.txt".to_owned()), ..RouteMatch::default() };
        assert_eq!(of(&files("site/robots.txt"), &exact, "/robots.txt"), "site/robots.txt");
        for none in ["/s/%zz", "/s/%", "/s/%ff", "/s/a%00b"] {
            assert_eq!(of(&status, &prefix("/s"), none), "-", "{none}");
        }
        // Names that are held have no such steps, so this is none of them.
        assert_eq!(of(&status, &prefix("/s"), "/s/%2e%2e/kek"), "status/../kek");
    }
}
