//! The tricks.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::{Subject, TokenOfB};

/// Where every request goes: the school app says there for whom it answers.
const PATH: &str = "/whoami";

/// How a request travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    /// HTTP/1.1.
    H1,
    /// HTTP/2.
    H2,
}

impl Protocol {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
        }
    }
}

/// What should come of a trick.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expected {
    /// An answer for this school, by its slug.
    For(String),
    /// A refusal by the gateway.
    Refusal,
    /// Either: what the trick said is ignored, or it is refused.
    ForOrRefusal(String),
}

/// Requests of one connection; the answer to the last one counts.
#[derive(Debug, Clone)]
pub(super) enum Requests {
    /// Written by hand.
    H1(Vec<Vec<u8>>),
    /// Authority, path and fields.
    H2(Vec<H2Request>),
}

/// A request over HTTP/2.
#[derive(Debug, Clone)]
pub(super) struct H2Request {
    pub(super) authority: String,
    pub(super) path: String,
    pub(super) fields: Vec<(String, String)>,
}

/// A trick, over one protocol.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) sni: String,
    pub(super) requests: Requests,
    pub(super) expected: Expected,
}

impl Case {
    pub(super) const fn protocol(&self) -> Protocol {
        match self.requests {
            Requests::H1(_) => Protocol::H1,
            Requests::H2(_) => Protocol::H2,
        }
    }
}

/// A request without a trick: what proves that the gateway serves at all.
pub(super) fn alone(subject: &Subject, protocol: Protocol) -> Case {
    let well = Asked { authority: subject.host.clone(), path: PATH.to_owned(), fields: Vec::new() };
    Case {
        name: format!("{} alone", subject.host),
        sni: subject.host.clone(),
        requests: well.over(protocol),
        expected: Expected::For(subject.slug.clone()),
    }
}

/// A request that both protocols can say.
#[derive(Debug, Clone)]
struct Asked {
    authority: String,
    path: String,
    fields: Vec<(String, String)>,
}

impl Asked {
    fn over(&self, protocol: Protocol) -> Requests {
        match protocol {
            Protocol::H1 => Requests::H1(vec![self.h1()]),
            Protocol::H2 => Requests::H2(vec![self.h2()]),
        }
    }

    fn h1(&self) -> Vec<u8> {
        let mut text = format!("GET {} HTTP/1.1\r\nHost: {}\r\n", self.path, self.authority);
        for (name, value) in &self.fields {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }

    fn h2(&self) -> H2Request {
        let fields = self.fields.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
        H2Request { authority: self.authority.clone(), path: self.path.clone(), fields }
    }
}

/// Every trick by which a visitor of `a` could reach `b`; with a token that is good for `b`, if there is one.
pub(super) fn tricks(a: &Subject, b: &Subject, token: Option<&TokenOfB>) -> Vec<Case> {
    let mut cases = Vec::new();
    for protocol in [Protocol::H1, Protocol::H2] {
        said_well(a, b, protocol, &mut cases);
        if let Some(token) = token {
            with_token(a, b, token, protocol, &mut cases);
        }
    }
    by_hand(a, b, &mut cases);
    over_h2(a, b, &mut cases);
    cases
}

/// Tricks that are well-formed in both protocols.
fn said_well(a: &Subject, b: &Subject, protocol: Protocol, cases: &mut Vec<Case>) {
    let (id_a, id_b) = (a.id.to_string(), b.id.to_string());
    let ours = || Expected::For(a.slug.clone());
    let ours_or_refusal = || Expected::ForOrRefusal(a.slug.clone());
    let mut add = |name: &str, sni: &str, asked: Asked, expected: Expected| {
        let requests = asked.over(protocol);
        cases.push(Case { name: name.to_owned(), sni: sni.to_owned(), requests, expected });
    };
    let to = |authority: &str| Asked { authority: authority.to_owned(), path: PATH.to_owned(), fields: Vec::new() };
    let with = |fields: &[(&str, &str)]| Asked {
        fields: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..to(&a.host)
    };
    let at = |path: String| Asked { path, ..to(&a.host) };

    add("handshake for A, host B", &a.host, to(&b.host), Expected::Refusal);
    add("handshake for B, host A", &b.host, to(&a.host), Expected::Refusal);

    add("X-Tenant-ID: id of B", &a.host, with(&[("X-Tenant-ID", &id_b)]), Expected::Refusal);
    add("X-Tenant-ID: slug of B", &a.host, with(&[("x-tenant-id", &b.slug)]), Expected::Refusal);
    add("X-Tenant-Slug: B", &a.host, with(&[("X-Tenant-Slug", &b.slug)]), Expected::Refusal);
    let both = [("X-Tenant-Slug", a.slug.as_str()), ("X-Tenant-Slug", b.slug.as_str())];
    add("X-Tenant-Slug twice: A, then B", &a.host, with(&both), Expected::Refusal);
    let both = [("X-Tenant-ID", id_a.as_str()), ("X-Tenant-Slug", b.slug.as_str())];
    add("X-Tenant-ID: A, X-Tenant-Slug: B", &a.host, with(&both), Expected::Refusal);
    add("X_Tenant_ID: B (underscores)", &a.host, with(&[("X_Tenant_ID", &id_b)]), ours_or_refusal());
    add("X_Tenant-Slug: B (underscore)", &a.host, with(&[("X_Tenant-Slug", &b.slug)]), ours_or_refusal());

    add("?tenant=B", &a.host, at(format!("{PATH}?tenant={}", b.slug)), Expected::Refusal);
    add("?tenantId=id of B", &a.host, at(format!("{PATH}?a=1&tenantId={id_b}")), Expected::Refusal);
    add("?tenant=B, escaped", &a.host, at(format!("{PATH}?%74enant={}", b.slug)), Expected::Refusal);
    add("?tenant=A&tenant=B", &a.host, at(format!("{PATH}?tenant={}&tenant={}", a.slug, b.slug)), Expected::Refusal);

    for (name, token) in [
        ("unsigned token of B", unsigned(&b.slug, &id_b)),
        ("token of B with a signature that is none", format!("{}AAAA", signed_like(&b.slug, &id_b, "EdDSA"))),
        ("token of B, symmetric", format!("{}AAAA", signed_like(&b.slug, &id_b, "HS256"))),
    ] {
        let token = format!("Bearer {token}");
        add(name, &a.host, with(&[("Authorization", &token)]), ours_or_refusal());
    }
    let context = unsigned(&b.slug, &id_b);
    add("forged X-Tenant-Context of B", &a.host, with(&[("X-Tenant-Context", &context)]), ours_or_refusal());
    add("X-Forwarded-Host: B", &a.host, with(&[("X-Forwarded-Host", &b.host)]), ours());
    let forwarded = format!("for=127.0.0.1;host={}", b.host);
    add("Forwarded: host=B", &a.host, with(&[("Forwarded", &forwarded)]), ours());
    add("X-Subdomain: B", &a.host, with(&[("X-Subdomain", &b.slug)]), ours_or_refusal());

    if let Some(shared) = &a.shared_host {
        // Who may choose there is the zone's to say, and this machine may be one of them: only what disagrees is refused.
        let there = |fields: &[(&str, &str)]| Asked { authority: shared.clone(), ..with(fields) };
        let (slug_a, slug_b) = (("X-Tenant-Slug", a.slug.as_str()), ("X-Tenant-Slug", b.slug.as_str()));
        let on = "on the shared host";
        add(&format!("X-Tenant-Slug: B, handshake for A, {on}"), &a.host, there(&[slug_b]), Expected::Refusal);
        add(&format!("nobody named, {on}"), shared, there(&[]), Expected::Refusal);
        add(&format!("X-Tenant-Slug: A, then B, {on}"), shared, there(&[slug_a, slug_b]), Expected::Refusal);
        let crossed = [("X-Tenant-ID", id_a.as_str()), slug_b];
        add(&format!("X-Tenant-ID: A, X-Tenant-Slug: B, {on}"), shared, there(&crossed), Expected::Refusal);
        let query = Asked { path: format!("{PATH}?tenant={}", b.slug), ..there(&[slug_a]) };
        add(&format!("X-Tenant-Slug: A, ?tenant=B, {on}"), shared, query, Expected::Refusal);
        let token = format!("Bearer {}", unsigned(&b.slug, &id_b));
        let token = there(&[("Authorization", token.as_str())]);
        add(&format!("unsigned token of B, {on}"), shared, token, Expected::Refusal);
        add("handshake for the shared host, host A, X-Tenant-Slug: B", shared, with(&[slug_b]), Expected::Refusal);
    }

    add("host in capitals", &a.host, to(&a.host.to_ascii_uppercase()), ours());
    for (name, host) in [
        ("slug of A under a foreign name", format!("{}.attacker.example", a.slug)),
        ("slug of B under a foreign name", format!("{}.attacker.example", b.slug)),
        ("host of A with a foreign suffix", format!("{}.evil.example", a.host)),
        ("host of B with a foreign suffix", format!("{}.evil.example", b.host)),
        ("a label in front of host A", format!("x.{}", a.host)),
        ("slug of B in front of host A", format!("{}.{}", b.slug, a.host)),
        ("host A joined to host B", format!("{}-{}", a.host, b.host)),
    ] {
        add(&format!("{name}, handshake for A"), &a.host, to(&host), Expected::Refusal);
        add(&format!("{name}, handshake for it"), &host, to(&host), Expected::Refusal);
    }
}

/// What a visitor can try who has a token of school B.
fn with_token(a: &Subject, b: &Subject, token: &TokenOfB, protocol: Protocol, cases: &mut Vec<Case>) {
    let good = format!("Bearer {}", token.as_str());
    let mut add = |name: &str, sni: &str, authority: &str, query: &str, fields: &[(&str, &str)], expected: Expected| {
        let fields = fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let asked = Asked { authority: authority.to_owned(), path: format!("{PATH}{query}"), fields };
        cases.push(Case { name: name.to_owned(), sni: sni.to_owned(), requests: asked.over(protocol), expected });
    };
    let authorization = ("Authorization", good.as_str());
    let (slug_a, slug_b) = (("X-Tenant-Slug", a.slug.as_str()), ("X-Tenant-Slug", b.slug.as_str()));
    let (host_a, host_b) = (a.host.as_str(), b.host.as_str());
    // Unless this one passes, the others prove nothing.
    add("good token of B, host B", host_b, host_b, "", &[authorization], Expected::For(b.slug.clone()));
    add("good token of B", host_a, host_a, "", &[authorization], Expected::Refusal);
    let lower = good.replacen("Bearer", "bearer", 1);
    add("good token of B, `bearer`", host_a, host_a, "", &[("Authorization", &lower)], Expected::Refusal);
    add("good token of B, X-Tenant-Slug: A", host_a, host_a, "", &[authorization, slug_a], Expected::Refusal);
    add("good token of B, X-Tenant-Slug: B", host_a, host_a, "", &[authorization, slug_b], Expected::Refusal);
    let query_a = format!("?tenant={}", a.slug);
    add("good token of B, ?tenant=A", host_a, host_a, &query_a, &[authorization], Expected::Refusal);
    add("good token of B, twice", host_a, host_a, "", &[authorization, authorization], Expected::Refusal);
    let unsigned = format!("Bearer {}", unsigned(&a.slug, &a.id.to_string()));
    let both = [("Authorization", unsigned.as_str()), authorization];
    add("unsigned token of A, then good token of B", host_a, host_a, "", &both, Expected::Refusal);
    let tampered = format!("Bearer {}", token.tampered());
    let tampered = [("Authorization", tampered.as_str())];
    add("token of B with another signature, host B", host_b, host_b, "", &tampered, Expected::Refusal);
    if let Some(shared) = &a.shared_host {
        let on = "on the shared host";
        add(
            &format!("good token of B, handshake for A, {on}"),
            host_a,
            shared,
            "",
            &[authorization],
            Expected::Refusal,
        );
        let crossed = [authorization, slug_a];
        add(&format!("good token of B, X-Tenant-Slug: A, {on}"), shared, shared, "", &crossed, Expected::Refusal);
        let query = format!("good token of B, ?tenant=A, {on}");
        add(&query, shared, shared, &query_a, &[authorization], Expected::Refusal);
    }
}

/// Tricks of framing, which only bytes written by hand can say.
fn by_hand(a: &Subject, b: &Subject, cases: &mut Vec<Case>) {
    let (host_a, host_b, slug_b) = (&a.host, &b.host, &b.slug);
    let ours_or_refusal = || Expected::ForOrRefusal(a.slug.clone());
    let head = format!("GET {PATH} HTTP/1.1\r\nHost: {host_a}\r\n");
    let chunked = format!("{head}Transfer-Encoding: chunked\r\n");
    let hidden = format!("GET {PATH} HTTP/1.1\r\nHost: {host_b}\r\n\r\n");
    for (name, text, expected) in [
        ("Host twice: A, then B", format!("{head}Host: {host_b}\r\n\r\n"), Expected::Refusal),
        (
            "Host twice: B, then A",
            format!("GET {PATH} HTTP/1.1\r\nHost: {host_b}\r\nHost: {host_a}\r\n\r\n"),
            Expected::Refusal,
        ),
        (
            "Host folded: A, then B",
            format!("GET {PATH} HTTP/1.1\r\nHost: {host_a}\r\n {host_b}\r\n\r\n"),
            Expected::Refusal,
        ),
        ("Host: A, B", format!("GET {PATH} HTTP/1.1\r\nHost: {host_a}, {host_b}\r\n\r\n"), Expected::Refusal),
        ("Host: A@B", format!("GET {PATH} HTTP/1.1\r\nHost: {host_a}@{host_b}\r\n\r\n"), Expected::Refusal),
        ("Host : B (space before the colon)", format!("{head}Host : {host_b}\r\n\r\n"), Expected::Refusal),
        ("no Host (HTTP/1.1)", format!("GET {PATH} HTTP/1.1\r\n\r\n"), Expected::Refusal),
        (
            "absolute form of B, Host: A",
            format!("GET https://{host_b}{PATH} HTTP/1.1\r\nHost: {host_a}\r\n\r\n"),
            Expected::Refusal,
        ),
        (
            "absolute form of B, Host: B",
            format!("GET https://{host_b}{PATH} HTTP/1.1\r\nHost: {host_b}\r\n\r\n"),
            Expected::Refusal,
        ),
        (
            "X-Tenant-ID folded: A, then B",
            format!("{head}X-Tenant-ID: {}\r\n {slug_b}\r\n\r\n", a.slug),
            Expected::Refusal,
        ),
        (
            "X-Tenant-Slug: B, named in Connection",
            format!("{head}Connection: X-Tenant-Slug\r\nX-Tenant-Slug: {slug_b}\r\n\r\n"),
            Expected::Refusal,
        ),
        (
            "our fields named in Connection",
            format!("{head}Connection: x-tenant-id, x-tenant-slug, x-tenant-context\r\n\r\n"),
            ours_or_refusal(),
        ),
        ("Host named in Connection", format!("{head}Connection: host\r\n\r\n"), ours_or_refusal()),
        (
            "X-Tenant-Slug: B in the trailers",
            format!("{chunked}Trailer: X-Tenant-Slug\r\n\r\n0\r\nX-Tenant-Slug: {slug_b}\r\n\r\n"),
            ours_or_refusal(),
        ),
        (
            "a length and chunks, a request to B behind",
            format!("{chunked}Content-Length: {}\r\n\r\n0\r\n\r\n{hidden}", hidden.len() + 5),
            Expected::Refusal,
        ),
        (
            "two lengths, a request to B behind",
            format!("{head}Content-Length: 0\r\nContent-Length: {}\r\n\r\n{hidden}", hidden.len()),
            Expected::Refusal,
        ),
    ] {
        let requests = Requests::H1(vec![text.into_bytes()]);
        cases.push(Case { name: name.to_owned(), sni: host_a.clone(), requests, expected });
    }
    let first = format!("{head}\r\n").into_bytes();
    cases.push(Case {
        name: "host A, then host B on one connection".to_owned(),
        sni: host_a.clone(),
        requests: Requests::H1(vec![first, hidden.into_bytes()]),
        expected: Expected::Refusal,
    });
}

/// Tricks that only HTTP/2 has.
fn over_h2(a: &Subject, b: &Subject, cases: &mut Vec<Case>) {
    let to = |authority: &str, fields: &[(&str, &str)]| H2Request {
        authority: authority.to_owned(),
        path: PATH.to_owned(),
        fields: fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    };
    for (name, requests) in [
        (":authority A, host B", vec![to(&a.host, &[("host", &b.host)])]),
        (":authority B, host A", vec![to(&b.host, &[("host", &a.host)])]),
        ("host A, then host B on one connection", vec![to(&a.host, &[]), to(&b.host, &[])]),
    ] {
        let requests = Requests::H2(requests);
        cases.push(Case { name: name.to_owned(), sni: a.host.clone(), requests, expected: Expected::Refusal });
    }
}

/// A token that nobody signed and that says it is of `slug`.
fn unsigned(slug: &str, id: &str) -> String {
    signed_like(slug, id, "none")
}

/// Header and claims of a token of `slug` that names this algorithm, up to where its signature begins.
fn signed_like(slug: &str, id: &str, algorithm: &str) -> String {
    let claims = serde_json::json!({ "tenantId": id, "tenant_id": id, "slug": slug, "exp": 4_102_444_800_u64 });
    let header = serde_json::json!({ "alg": algorithm, "typ": "JWT" });
    let part = |json: serde_json::Value| URL_SAFE_NO_PAD.encode(json.to_string());
    format!("{}.{}.", part(header), part(claims))
}
