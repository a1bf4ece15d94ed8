//! Fuzz targets of what reads bytes from clients. See [`crate::fuzzing`].

use std::sync::{Arc, LazyLock};

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderName, HeaderValue, Version};
use httparse::Status;
use pingora_http::RequestHeader;
use ring::signature::Ed25519KeyPair;
use schoolgate_config::model::{Plan, Pool, Revision, Tenant};
use schoolgate_config::snapshot::{Object, Snapshot};
use schoolgate_config::table::{RoutingTable, TenantEntry};
use serde_json::{from_value, json};
use tokio::time::Instant;

use super::chunks::{BadChunks, ChunkScan};
use super::frames::{Flood, FloodLimits, FrameScan};
use super::head::{Framing, HeadScan, Whole};
use super::{HeadFault, TransportLimits};
use crate::admit::gate::{self, HeadLimits};
use crate::direct;
use crate::feed::SigningKey;
use crate::forward::context::context;
use crate::forward::request::{Upward, drop_hop_by_hop, is_unwanted, rewrite};
use crate::limit::Limiter;
use crate::live::NodeLive;

const LIMITS: HeadLimits =
    HeadLimits { target_bytes: 8 * 1024, fields: 100, field_bytes: 16 * 1024, list_bytes: 32 * 1024 };

/// Fields of a head that the parser behind us takes: more than the scan lets through.
const PARSED_FIELDS: usize = 128;

/// A tenant, and the key that signs for it.
struct World {
    tenant: Arc<TenantEntry<NodeLive>>,
    key: Arc<SigningKey>,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let mut objects: Vec<Object> = Plan::catalogue().into_iter().map(Object::from).collect();
    let pool: Pool = from_value(json!({"id": "shared"})).expect("a pool");
    let tenant: Tenant = from_value(json!({
        "id": "tnt_00000000000000000000000001", "slug": "ash", "name": "Ash", "state": "active", "plan": "basic",
        "pool": "shared",
    }))
    .expect("a tenant");
    let id = tenant.id;
    objects.extend([Object::from(pool), Object::from(tenant)]);
    let snapshot = Snapshot { revision: Revision(1), objects };
    let table = RoutingTable::from_snapshot(&snapshot, &NodeLive::default(), None).expect("it holds together");
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("32 bytes are a seed");
    let key = Arc::new(SigningKey { id: "k".parse().expect("a name"), pair });
    World { tenant: table.tenant(&id).expect("it is there").clone(), key }
});

/// A request head as bytes: however it is cut it is read alike; the parser behind us finds the same end, framing and
/// host; and what is then sent to a backend is one message with our identity in it and nobody else's.
pub fn request(input: &[u8]) {
    let limits = TransportLimits::default();
    let whole = scan(input, input.len(), &limits);
    for step in [1, 3, 64] {
        let cut = scan(input, step, &limits);
        // Which fault is found first may depend on what has arrived; that there is one may not.
        assert_eq!(cut.ok(), whole.ok(), "in steps of {step}");
        assert_eq!(cut.is_err(), whole.is_err(), "in steps of {step}");
    }
    let Ok(Some(whole)) = whole else { return };
    let head = &input[..whole.end];
    assert!(head.ends_with(b"\r\n\r\n"));
    let mut fields = [httparse::EMPTY_HEADER; PARSED_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    match parsed.parse(input) {
        Ok(Status::Complete(end)) => assert_eq!(end, whole.end, "the parser finds another end"),
        Ok(Status::Partial) => panic!("the parser waits for more"),
        // It is answered 400 then.
        Err(_) => return,
    }
    let named = |name: &'static str| parsed.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
    let lengths: Vec<_> = named("content-length").map(|field| field.value).collect();
    let codings = named("transfer-encoding").count();
    assert!(lengths.len() + codings <= 1 && named("host").count() <= 1, "said twice");
    assert!(named("upgrade").count() <= 1, "two wishes");
    let length = lengths.first().map(|digits| std::str::from_utf8(digits).expect("digits").parse().expect("a number"));
    let wishes: Vec<_> = named("upgrade").map(|field| field.value.trim_ascii()).collect();
    let websocket = wishes.iter().any(|wish| wish.eq_ignore_ascii_case(b"websocket"));
    let upgrade = websocket && codings == 0 && length.unwrap_or(0) == 0;
    let framing = match length {
        _ if upgrade => Framing::Open,
        _ if codings > 0 => Framing::Chunked,
        Some(length) => Framing::Length(length),
        None => Framing::Nothing,
    };
    assert_eq!(whole.body, framing, "the parser reads another framing");
    forwarded(&parsed, framing);
}

/// What becomes of a parsed head on its way to a backend.
fn forwarded(parsed: &httparse::Request<'_, '_>, framing: Framing) {
    let (method, target) = (parsed.method.expect("parsed"), parsed.path.expect("parsed"));
    let Ok(mut request) = RequestHeader::build(method, target.as_bytes(), None) else { return };
    request.set_version(if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 });
    for field in parsed.headers.iter() {
        if request.append_header(field.name.to_owned(), field.value).is_err() {
            return;
        }
    }
    let Ok(found) = gate::check(&request, || None, &LIMITS) else { return };
    if found.asterisk || !framing.is_empty() {
        return;
    }
    let target = gate::origin_form(request.raw_path());
    let target = if found.absolute_form { target } else { request.raw_path() };
    let World { tenant, key } = &*WORLD;
    let context = context(Some(key), &Limiter::default(), tenant, &tenant.tenant.pool, 1_000);
    let mut headers = request.headers.clone();
    drop_hop_by_hop(&mut headers);
    let up = Upward {
        has_unwanted: found.has_unwanted,
        cookie_crumbs: found.cookie_crumbs,
        tenant: Some((&tenant.live, &context)),
        route: None,
        request_id: &HeaderValue::from_static("01ARZ3NDEKTSV4RRFFQ69G5FAV"),
        peer: std::net::IpAddr::from([203, 0, 113, 9]),
        via_hop: false,
        secure: true,
        host: None,
    };
    rewrite(&mut headers, &up);
    for (name, ours) in [("x-tenant-id", "tnt_00000000000000000000000001"), ("x-tenant-slug", "ash")] {
        let said: Vec<_> = headers.get_all(name).iter().collect();
        assert_eq!(said, [ours], "{name} is not ours");
    }
    let plain = |name: &HeaderName| name.as_str().bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    let spelled = headers.keys().filter(|name| !plain(name) && is_unwanted(name));
    assert_eq!(spelled.count(), 0, "another spelling of a field of ours");
    assert!(!headers.contains_key(TRANSFER_ENCODING) && headers.get_all(HOST).iter().count() <= 1);
    let announced = headers.get(CONTENT_LENGTH).cloned();
    assert!(announced.is_none_or(|length| length.as_bytes().iter().all(|digit| *digit == b'0')));
    // Read again as a backend would, that is one message without a body.
    let sent = direct::fuzzing::sent(method, target, &headers);
    let limits =
        TransportLimits { head_bytes: 1 << 20, fields: 1_000, request_line_bytes: 1 << 20, ..Default::default() };
    let again = scan(&sent, sent.len(), &limits).expect("valid").expect("whole");
    assert_eq!(again.end, sent.len(), "something follows the request");
    assert!(again.body.is_empty(), "a body follows the request");
}

fn scan(bytes: &[u8], step: usize, limits: &TransportLimits) -> Result<Option<Whole>, HeadFault> {
    let (mut scan, mut end) = (HeadScan::default(), 0);
    while end < bytes.len() {
        end = (end + step.max(1)).min(bytes.len());
        match scan.feed(&bytes[..end], limits) {
            Ok(None) => {}
            done => return done,
        }
    }
    Ok(None)
}

/// The framing of a body in chunks: however it is cut it is read alike, and a lenient reader finds the same end.
pub fn chunks(input: &[u8]) {
    let whole = ChunkScan::new().feed(input);
    for step in [1, 2, 7] {
        assert_eq!(chunked(input, step), whole, "in steps of {step}");
    }
    if let Ok(Some(end)) = whole {
        assert_eq!(lenient(input), Some(end), "another reader finds another end");
    }
}

fn chunked(bytes: &[u8], step: usize) -> Result<Option<usize>, BadChunks> {
    let (mut scan, mut before) = (ChunkScan::new(), 0);
    for piece in bytes.chunks(step) {
        if let Some(here) = scan.feed(piece)? {
            return Ok(Some(before + here));
        }
        before += piece.len();
    }
    Ok(None)
}

/// Where a body in chunks ends for a parser that takes more than it should.
fn lenient(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let Ok(Status::Complete((line, size))) = httparse::parse_chunk_size(&bytes[at..]) else { return None };
        at += line;
        if size == 0 {
            break;
        }
        at = at.checked_add(usize::try_from(size).ok()?)?;
        at += bytes.get(at..)?.iter().position(|byte| *byte == b'\n')? + 1;
    }
    loop {
        let line = bytes.get(at..)?.iter().position(|byte| *byte == b'\n')? + 1;
        at += line;
        if line <= 2 {
            return Some(at);
        }
    }
}

/// The frames of an HTTP/2 client: however they are cut they are counted alike, and as one who has all of them would.
pub fn frames(input: &[u8]) {
    let now = Instant::now();
    let counted = |step: usize| {
        let mut scan = FrameScan::new(FloodLimits::default());
        let all = input.chunks(step.max(1)).try_for_each(|piece| scan.feed(piece, 0, || now));
        (all, scan.greeted())
    };
    let (whole, greeted) = counted(input.len());
    for step in [1, 5, 9, 100] {
        assert_eq!(counted(step), (whole, greeted), "in steps of {step}");
    }
    // What a second without an answer may hold of each kind, read plainly.
    let mut rest = input.get(24..).unwrap_or_default();
    let mut kinds = [0_u32; 256];
    while let Some((header, after)) = rest.split_first_chunk::<9>() {
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        kinds[usize::from(header[3])] += 1;
        rest = after.get(length..).unwrap_or_default();
    }
    let limits = FloodLimits::default();
    for (kind, most, flood) in [
        (3, limits.resets_per_s, Flood::Resets),
        (4, limits.settings_per_s, Flood::Settings),
        (6, limits.pings_per_s, Flood::Pings),
        (8, limits.window_updates_per_s, Flood::WindowUpdates),
    ] {
        if whole.is_ok() {
            assert!(kinds[kind] <= most, "{} of {flood:?} were borne", kinds[kind]);
        } else if whole == Err(flood) {
            assert!(kinds[kind] > most, "{} of {flood:?} were too many", kinds[kind]);
        }
    }
    assert!(!greeted || kinds[4] > 0);
}
