//! `schoolgate explain`: why a request goes where it goes.

use std::net::IpAddr;

use anyhow::{Context, bail};
use clap::Args;
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::api::{Api, Connection, Write};
use super::output::{self, Column, Format, text_at};

const STEPS: &[Column] = &[("step", "/step"), ("result", "/result"), ("what it found", "/text")];

/// `schoolgate explain`
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 0 says that there is an explanation, also of a request that is refused; --json has the outcome. The decision is \
made by the code that the proxies run; what a proxy refuses as it reads a request (a head too large, a field that two \
parsers read differently) comes before it and is not part of it.")]
pub(crate) struct ExplainArgs {
    /// The request's URL, such as `https://greenhill.localhost:8443/grades`
    #[arg(required_unless_present = "request", conflicts_with = "request")]
    url: Option<String>,
    /// A field, `Name: value`; repeatable; `Host` takes the place of the URL's host, but not in the handshake
    #[arg(short = 'H', long = "header", value_name = "FIELD", conflicts_with = "request")]
    headers: Vec<String>,
    /// The name in the TLS handshake; empty: none [default: the URL's host]
    #[arg(long, value_name = "NAME", conflicts_with = "request")]
    sni: Option<String>,
    /// The method
    #[arg(long, value_name = "METHOD", default_value = "GET", conflicts_with = "request")]
    method: String,
    /// The client's address; without it, nobody whom a zone trusts
    #[arg(long, value_name = "ADDRESS", conflicts_with = "request")]
    from: Option<IpAddr>,
    /// The revision that decides [default: the newest]
    #[arg(long, value_name = "REVISION", conflicts_with = "request")]
    at: Option<u64>,
    /// A real request, by the X-Request-ID of its answer: proxies keep the latest errors of each school, and a sample of
    /// what went well
    #[arg(long, value_name = "ID")]
    request: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Explains.
pub(crate) async fn run(args: &ExplainArgs) -> anyhow::Result<()> {
    let question = question(args)?;
    let api = Api::connect(&args.connection)?;
    let answer = api.write(Method::POST, &["explain"], Some(&question), &Write::default()).await?;
    match api.format {
        Format::Json => output::json(&answer),
        Format::People => output::line(&render(&answer)),
    }
}

fn question(args: &ExplainArgs) -> anyhow::Result<Value> {
    if let Some(id) = &args.request {
        return Ok(json!({ "request_id": id }));
    }
    let url = args.url.as_deref().unwrap_or_default();
    let target =
        Target::of(url).with_context(|| format!("`{url}` is not a URL such as https://school.example/path"))?;
    let (mut host, mut sni) = (target.authority.to_owned(), args.sni.clone());
    let mut fields: Map<String, Value> = Map::new();
    for field in &args.headers {
        let Some((name, value)) = field.split_once(':').filter(|(name, _)| !name.trim().is_empty()) else {
            bail!("`{field}` is not a field such as `X-Tenant-ID: greenhill`");
        };
        let (name, value) = (name.trim(), value.trim());
        if name.eq_ignore_ascii_case("host") {
            sni = sni.or_else(|| Some(without_port(target.authority).to_owned()));
            value.clone_into(&mut host);
            continue;
        }
        match fields.entry(name.to_ascii_lowercase()).or_insert_with(|| json!([])) {
            Value::Array(lines) => lines.push(value.into()),
            _ => unreachable!("made above"),
        }
    }
    let mut request = json!({
        "host": host, "tls": target.tls, "method": args.method, "path": target.path, "headers": fields,
    });
    if let Some(sni) = sni {
        request["sni"] = sni.into();
    }
    if let Some(from) = args.from {
        request["client_ip"] = from.to_string().into();
    }
    Ok(json!({ "request": request, "at_revision": args.at }))
}

/// A URL taken apart and not changed: what is odd in it is what is to be explained.
struct Target<'a> {
    tls: bool,
    authority: &'a str,
    path: String,
}

impl<'a> Target<'a> {
    fn of(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
        let tls = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        (!authority.is_empty()).then_some(Self { tls, authority, path })
    }
}

fn without_port(authority: &str) -> &str {
    authority
        .rsplit_once(':')
        .filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()))
        .map_or(authority, |(h, _)| h)
}

fn render(answer: &Value) -> String {
    let steps = answer.get("steps").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let at = |pointer: &str| text_at(answer, pointer);
    let mut text = format!("revision {}\n\n{}\n\n", at("/revision"), output::table(steps, STEPS));
    let answered = match at("/outcome/action").as_str() {
        "forward" => "goes to a backend".to_owned(),
        "redirect" => format!("redirected: {}", at("/outcome/status")),
        _ => format!("refused: {} {}", at("/outcome/status"), at("/outcome/error")),
    };
    text.push_str(&answered);
    if answer.pointer("/would_have").is_some_and(Value::is_object) {
        let word = if at("/outcome/action") == "forward" { "goes" } else { "would go" };
        let backends = answer.pointer("/would_have/backends").and_then(Value::as_array).into_iter().flatten();
        let backends: Vec<_> = backends.map(|backend| text_at(backend, "/address")).collect();
        let route = at("/would_have/route/id");
        let rows = [
            ("tenant", format!("{} ({})", at("/would_have/tenant/slug"), at("/would_have/tenant/state"))),
            ("plan", at("/would_have/plan")),
            ("route", if route.is_empty() { "none: the tenant's own pool".to_owned() } else { route }),
            ("pool", at("/would_have/pool")),
            ("backends", if backends.is_empty() { "none that takes requests".to_owned() } else { backends.join(", ") }),
            ("path", at("/would_have/path")),
            ("limits", limits(answer)),
        ];
        text.push_str(&format!("\n\n{word} to"));
        for (name, value) in rows {
            text.push_str(&format!("\n  {name:<9} {value}"));
        }
    }
    if let Some(happened) = answer.pointer("/recorded/request/happened") {
        let was = |pointer: &str| text_at(happened, pointer);
        text.push_str(&format!("\n\nwhat happened, on {}", at("/recorded/node")));
        let ms = |pointer: &str| {
            happened.pointer(pointer).and_then(Value::as_u64).map(|us| format!("{}.{:03} ms", us / 1_000, us % 1_000))
        };
        let rows = [
            ("status", format!("{} {}", was("/status"), was("/error"))),
            ("tenant", was("/tenant")),
            ("pool", was("/pool")),
            ("backend", format!("{} {}", was("/backend"), was("/backend_status"))),
            ("retries", was("/retries")),
            ("connected", ms("/connect_us").unwrap_or_default()),
            ("answering", ms("/first_byte_us").unwrap_or_default()),
            ("in all", ms("/total_us").unwrap_or_default()),
        ];
        for (name, value) in rows.iter().filter(|(_, value)| !value.trim().is_empty()) {
            text.push_str(&format!("\n  {name:<9} {}", value.trim()));
        }
    }
    text
}

/// The limits that hold, in one line; those in shadow say so.
fn limits(answer: &Value) -> String {
    let rows = answer.pointer("/would_have/effective_limits").and_then(Value::as_array).into_iter().flatten();
    let said: Vec<String> = rows
        .map(|row| {
            let shadow = if text_at(row, "/mode") == "shadow" { ", shadow" } else { "" };
            format!("{} {} ({}{shadow})", text_at(row, "/limit"), text_at(row, "/value"), text_at(row, "/from"))
        })
        .collect();
    if said.is_empty() { "none".to_owned() } else { said.join(", ") }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ExplainArgs,
    }

    fn asked(line: &[&str]) -> anyhow::Result<Value> {
        question(&Line::try_parse_from([&["explain"], line].concat())?.args)
    }

    #[test]
    fn a_url_is_asked_about_as_it_is_written() {
        let asked = asked(&["https://A@b:8443/x/../y?q=%zz", "-H", "X-Tenant-ID: a", "-H", "x-tenant-id:b"]).unwrap();
        assert_eq!(asked["request"]["host"], "A@b:8443");
        assert_eq!(asked["request"]["path"], "/x/../y?q=%zz");
        assert_eq!(asked["request"]["headers"], json!({"x-tenant-id": ["a", "b"]}));
        assert_eq!(asked["request"].get("sni"), None);
    }

    #[test]
    fn a_host_field_leaves_the_handshake_to_the_url() {
        let asked = asked(&["a.example:8443", "-H", "Host: b.example", "--from", "10.0.0.1", "--at", "3"]).unwrap();
        assert_eq!((&asked["request"]["host"], &asked["request"]["sni"]), (&json!("b.example"), &json!("a.example")));
        assert_eq!((&asked["request"]["path"], &asked["at_revision"]), (&json!("/"), &json!(3)));
    }

    #[test]
    fn what_is_no_request_is_named() {
        for line in [&["ftp://a"][..], &["https:///x"], &["a", "-H", "nothing"], &[], &["a", "--request", "b"]] {
            assert!(asked(line).is_err(), "{line:?}");
        }
        assert_eq!(asked(&["--request", "01"]).unwrap(), json!({"request_id": "01"}));
    }

    #[test]
    fn a_refusal_is_shown_with_its_steps_and_where_it_would_have_gone() {
        let text = render(&json!({
            "revision": 7, "outcome": {"action": "refuse", "status": 403, "error": "TENANT_MISMATCH"},
            "steps": [{"step": "host", "result": "selected", "text": "a.example is a domain of ash"}],
            "would_have": {"tenant": {"slug": "ash", "state": "active"}, "pool": "web", "plan": "basic",
                           "route": null, "backends": [{"address": "http://127.0.0.1:1"}], "path": "/"},
        }));
        for part in [
            "revision 7",
            "a.example is a domain of ash",
            "refused: 403 TENANT_MISMATCH",
            "would go to",
            "http://127.0.0.1:1",
        ] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
    }
}
