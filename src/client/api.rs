//! The control API as the command line sees it: where it is, how to be let in, what its problems mean.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::{Method, StatusCode, Url};
use serde_json::Value;

use super::output::Format;

/// Time the control API has to answer, beside what `--timeout` adds to it: 30 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// How the control API is reached.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connection {
    /// Where the control API is, such as `http://127.0.0.1:8600`.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "SCHOOLGATE_API",
        help = "Where the control API is, such as `http://127.0.0.1:8600` [default: as in <data>/run/addresses.json]"
    )]
    api: Option<String>,
    /// The Unix socket of a control API on this machine, where no token is needed; wins over --api, and is used by itself
    /// when there is no token
    #[arg(long, global = true, value_name = "FILE")]
    socket: Option<PathBuf>,
    /// File of the token.
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        help = "File of the token [default: <data>/admin.token]; the environment variable SCHOOLGATE_TOKEN holds a token itself"
    )]
    token_file: Option<PathBuf>,
    /// The data directory of a gateway on this machine
    #[arg(long, global = true, value_name = "DIR", default_value = "./data", env = "SCHOOLGATE__DATA__DIR")]
    data_dir: PathBuf,
    /// Print the API's own JSON
    #[arg(long, global = true)]
    json: bool,
}

/// How a write is made.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Write {
    /// Answer when every live proxy serves the change
    #[arg(long)]
    pub(crate) wait: bool,
    /// Seconds to wait with --wait
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) timeout: u64,
    /// Check and show what would be, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
}

impl Write {
    fn query(&self) -> Vec<(&'static str, String)> {
        let mut query = Vec::new();
        if self.wait {
            query.push(("wait", "applied".to_owned()));
            query.push(("timeout", self.timeout.to_string()));
        }
        if self.dry_run {
            query.push(("dry_run", "true".to_owned()));
        }
        query
    }
}

/// A client of the control API.
#[derive(Debug)]
pub(crate) struct Api {
    http: reqwest::Client,
    base: Url,
    /// How messages call where it is.
    place: String,
    token: Option<String>,
    /// How answers are printed.
    pub(crate) format: Format,
}

impl Api {
    /// Finds the API and the token.
    ///
    /// # Errors
    /// Says what was looked for and where.
    pub(crate) fn connect(connection: &Connection) -> anyhow::Result<Self> {
        let (way, token) = Way::find(connection)?;
        let (base, place) = match &way {
            Way::Url(url) => (url.as_str(), url.trim_end_matches('/').to_owned()),
            // The host of a URL that no name server is asked for.
            Way::Socket(path) => ("http://localhost", path.display().to_string()),
        };
        let base = Url::parse(base).ok().filter(|url| url.has_host() && matches!(url.scheme(), "http" | "https"));
        let base = base.with_context(|| format!("`{place}` is not a URL such as http://127.0.0.1:8600"))?;
        let mut http = reqwest::Client::builder().no_proxy();
        if let Way::Socket(path) = way {
            http = http.unix_socket(path);
        }
        let http = http
            .user_agent(concat!("schoolgate/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("the HTTP client cannot be made")?;
        let format = if connection.json { Format::Json } else { Format::People };
        Ok(Self { http, base, place, token, format })
    }

    /// Reads.
    pub(crate) async fn get(&self, path: &[&str], query: &[(&str, String)]) -> anyhow::Result<Value> {
        self.send(Method::GET, path, query, None, ANSWER_WITHIN).await
    }

    /// Reads a text.
    pub(crate) async fn text(&self, path: &[&str], query: &[(&str, String)]) -> anyhow::Result<String> {
        Ok(self.exchange(Method::GET, path, query, None, ANSWER_WITHIN).await?.0)
    }

    /// Reads a list to its end, or up to `limit` items.
    pub(crate) async fn list(
        &self,
        path: &[&str],
        query: &[(&str, String)],
        limit: Option<usize>,
    ) -> anyhow::Result<Vec<Value>> {
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let wanted = limit.map_or(PAGE, |limit| PAGE.min(limit - items.len()));
            let mut query = query.to_vec();
            query.push(("limit", wanted.to_string()));
            query.extend(cursor.map(|cursor| ("cursor", cursor)));
            let mut page = self.get(path, &query).await?;
            match page.get_mut("items").map(Value::take) {
                Some(Value::Array(more)) => items.extend(more),
                _ => bail!("the control API answered something else than a list"),
            }
            cursor = page.get("next").and_then(Value::as_str).map(str::to_owned);
            if cursor.is_none() || limit.is_some_and(|limit| items.len() >= limit) {
                items.truncate(limit.unwrap_or(usize::MAX));
                return Ok(items);
            }
        }
    }

    /// Writes.
    pub(crate) async fn write(
        &self,
        method: Method,
        path: &[&str],
        body: Option<&Value>,
        write: &Write,
    ) -> anyhow::Result<Value> {
        let within = ANSWER_WITHIN + Duration::from_secs(if write.wait { write.timeout } else { 0 });
        self.send(method, path, &write.query(), body, within).await
    }

    async fn send(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&Value>,
        within: Duration,
    ) -> anyhow::Result<Value> {
        let (text, applied) = self.exchange(method, path, query, body, within).await?;
        let json = serde_json::from_str(&text).unwrap_or(Value::Null);
        if applied == Some(false) {
            let waiting = super::output::text_at(&json, "/applied/waiting_for");
            let who = if waiting.is_empty() { "not every proxy".to_owned() } else { format!("not {waiting}") };
            bail!("the change is committed, but {who} serves it yet; `schoolgate status` shows why");
        }
        Ok(json)
    }

    /// One request, and the text of its answer with whether every proxy serves the change.
    async fn exchange(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, String)],
        body: Option<&Value>,
        within: Duration,
    ) -> anyhow::Result<(String, Option<bool>)> {
        let url = self.url(path)?;
        let mut request = self.http.request(method.clone(), url).query(query).timeout(within);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
            request = request.header("content-type", kind).body(body.to_string());
        }
        let answer = request.send().await.map_err(|e| self.unreachable(&e))?;
        let status = answer.status();
        let applied = answer.headers().get("schoolgate-applied").map(|value| value == "true");
        let text = answer.text().await.context("the control API's answer broke off")?;
        if !status.is_success() {
            let body = serde_json::from_str(&text).unwrap_or(Value::Null);
            return Err(Problem { status, body, has_token: self.token.is_some() }.into());
        }
        Ok((text, applied))
    }

    fn url(&self, path: &[&str]) -> anyhow::Result<Url> {
        let mut url = self.base.clone();
        {
            let mut segments = url.path_segments_mut().map_err(|()| anyhow::anyhow!("the URL has no path"))?;
            segments.pop_if_empty().extend(["api", "v1"]).extend(path);
        }
        Ok(url)
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let base = &self.place;
        if error.is_timeout() {
            anyhow::anyhow!("the control API at {base} did not answer in time")
        } else if error.is_connect() {
            anyhow::anyhow!("nobody answers at {base}: is the gateway running? (--api or --data-dir say where it is)")
        } else {
            let mut text = format!("talking to the control API at {base} failed: {error}");
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                text = format!("{text}: {cause}");
                source = cause.source();
            }
            anyhow::anyhow!(text)
        }
    }
}

/// Items asked for at once.
const PAGE: usize = 500;

/// By which way the control API is reached.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    /// Over the network.
    Url(String),
    /// Through a socket of this machine.
    Socket(PathBuf),
}

impl Way {
    /// The way, and the token for it. A gateway on this machine whose token nobody has is asked through its socket.
    fn find(connection: &Connection) -> anyhow::Result<(Self, Option<String>)> {
        if let Some(path) = &connection.socket {
            let token = connection.token_file.as_deref().map(read_token).transpose()?;
            return Ok((Self::Socket(path.clone()), token));
        }
        let token = find_token(connection)?;
        if let Some(url) = &connection.api {
            return Ok((Self::Url(url.clone()), token));
        }
        let addresses = local_addresses(&connection.data_dir)?;
        match (token, addresses.socket) {
            (None, Some(path)) => Ok((Self::Socket(path), None)),
            (token, _) => Ok((Self::Url(format!("http://{}", addresses.control)), token)),
        }
    }
}

/// Where the control API of a gateway on this machine is.
#[derive(Debug)]
struct LocalAddresses {
    control: SocketAddr,
    socket: Option<PathBuf>,
}

fn local_addresses(data: &Path) -> anyhow::Result<LocalAddresses> {
    let path = data.join("run/addresses.json");
    let text = std::fs::read_to_string(&path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => anyhow::anyhow!(
            "no gateway runs in {}: start one with `schoolgate up`, or say where it is with --data-dir or --api",
            data.display()
        ),
        _ => anyhow::anyhow!("{} cannot be read: {error}", path.display()),
    })?;
    let addresses: Value = serde_json::from_str(&text).with_context(|| format!("{} is damaged", path.display()))?;
    let control = addresses.get("control").and_then(Value::as_str).and_then(|text| text.parse().ok());
    let control =
        control.with_context(|| format!("{} names no control API; say where it is with --api", path.display()))?;
    Ok(LocalAddresses { control, socket: addresses.get("socket").and_then(Value::as_str).map(PathBuf::from) })
}

fn read_token(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path)
        .map(|text| text.trim().to_owned())
        .with_context(|| format!("the token file {} cannot be read", path.display()))
}

fn find_token(connection: &Connection) -> anyhow::Result<Option<String>> {
    if let Some(path) = &connection.token_file {
        return read_token(path).map(Some);
    }
    #[expect(clippy::disallowed_methods, reason = "a token has no place on a command line, and this is no setting")]
    if let Ok(token) = std::env::var("SCHOOLGATE_TOKEN") {
        return Ok(Some(token.trim().to_owned()));
    }
    let path = connection.data_dir.join("admin.token");
    if path.exists() { read_token(&path).map(Some) } else { Ok(None) }
}

/// What the control API refused, as RFC 9457 has it.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    body: Value,
    has_token: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |key: &str| self.body.get(key).and_then(Value::as_str);
        write!(f, "{}", self.status.as_u16())?;
        if let Some(code) = text("error") {
            write!(f, " {code}")?;
        }
        let said = text("message").or_else(|| text("detail")).or_else(|| text("title"));
        write!(f, ": {}", said.or(self.status.canonical_reason()).unwrap_or("refused"))?;
        for error in self.body.get("errors").and_then(Value::as_array).into_iter().flatten() {
            let part = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
            let pointer = if part("pointer").is_empty() { "(the whole)" } else { part("pointer") };
            write!(f, "\n  {pointer}: {}", part("message"))?;
            if !part("code").is_empty() {
                write!(f, " ({})", part("code"))?;
            }
        }
        match (self.status, self.has_token) {
            (StatusCode::UNAUTHORIZED, false) => {
                write!(f, "\n  no token was found: give one with --token-file, or in SCHOOLGATE_TOKEN")?;
            }
            (StatusCode::UNAUTHORIZED, true) => {
                write!(f, "\n  on the gateway's machine none is needed: --socket <data>/run/control.sock")?;
            }
            _ => {}
        }
        if let Some(id) = text("request_id") {
            write!(f, "\n  request {id}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_names_every_field_at_fault() {
        let body = json!({"error": "VALIDATION_FAILED", "message": "2 fields are wrong", "errors": [
            {"pointer": "/slug", "code": "reserved", "message": "`www` is reserved"},
            {"pointer": "/plan", "code": "unknown", "message": "no plan `gold`"}]});
        let text = Problem { status: StatusCode::UNPROCESSABLE_ENTITY, body, has_token: true }.to_string();
        assert_eq!(
            text,
            "422 VALIDATION_FAILED: 2 fields are wrong\n  /slug: `www` is reserved (reserved)\n  /plan: no plan `gold` \
             (unknown)"
        );
    }

    #[test]
    fn a_refusal_without_a_token_says_how_to_give_one() {
        let text = Problem { status: StatusCode::UNAUTHORIZED, body: Value::Null, has_token: false }.to_string();
        assert!(text.starts_with("401: Unauthorized") && text.contains("--token-file"), "{text}");
    }

    #[test]
    fn a_missing_gateway_is_told_with_the_way_to_start_one() {
        let dir = tempfile::tempdir().unwrap();
        let error = local_addresses(dir.path()).unwrap_err().to_string();
        assert!(error.contains("schoolgate up"), "{error}");
    }
}
