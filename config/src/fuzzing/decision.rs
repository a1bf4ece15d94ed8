use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use serde_json::{from_value, json};

use crate::identity::{Headers, RecordedRequest, RequestFacts, decide, normalise, without_tenant};
use crate::model::{Plan, Pool, Revision, Tenant, Zone};
use crate::snapshot::{Object, Snapshot};
use crate::table::{NoLive, RoutingTable};

const TRUSTED: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

/// Two schools in a zone with a shared host, where a path may name one and this machine may choose.
static TABLE: LazyLock<RoutingTable> = LazyLock::new(|| {
    let mut objects: Vec<Object> = Plan::catalogue().into_iter().map(Object::from).collect();
    let pool: Pool = from_value(json!({"id": "shared"})).expect("a pool");
    let zone: Zone = from_value(json!({
        "name": "schools.example", "shared_host": "api.schools.example", "path_prefix": true,
        "trusted_callers": ["127.0.0.1/32"],
    }))
    .expect("a zone");
    objects.extend([Object::from(pool), Object::from(zone)]);
    for (id, slug) in [("tnt_00000000000000000000000001", "ash"), ("tnt_00000000000000000000000002", "birch")] {
        let tenant =
            json!({"id": id, "slug": slug, "name": slug, "state": "active", "plan": "basic", "pool": "shared"});
        objects.push(from_value::<Tenant>(tenant).expect("a tenant").into());
    }
    RoutingTable::from_snapshot(&Snapshot { revision: Revision(1), objects }, &NoLive, None).expect("it holds together")
});

struct Fields<'a> {
    ids: Vec<&'a [u8]>,
    slugs: Vec<&'a [u8]>,
}

impl Headers for Fields<'_> {
    fn has(&self, _: &str, _: Option<&str>) -> bool {
        false
    }
    fn has_cookie(&self, _: &str, _: &str) -> bool {
        false
    }
    fn tenant_ids(&self) -> impl Iterator<Item = &[u8]> {
        self.ids.iter().copied()
    }
    fn tenant_slugs(&self) -> impl Iterator<Item = &[u8]> {
        self.slugs.iter().copied()
    }
}

/// Everything a request can name a school with, through the decision itself: a stranger chooses nobody, a school's own
/// host never leads to another school, and nothing that named a school is left in what is forwarded.
///
/// The input is a request as lines: SNI, authority, path, query, then `X-Tenant-ID` and `X-Tenant-Slug` by turns.
pub fn decision(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let mut text = || lines.next().and_then(|line| std::str::from_utf8(line).ok());
    let (Some(sni), Some(authority), Some(path), Some(query)) = (text(), text(), text(), text()) else { return };
    let (mut ids, mut slugs) = (Vec::new(), Vec::new());
    for (place, line) in lines.take(8).enumerate() {
        if place % 2 == 0 { ids.push(line) } else { slugs.push(line) }
    }
    let headers = Fields { ids, slugs };
    if let Some(rest) = without_tenant(query) {
        assert_eq!(without_tenant(&rest), None, "what is taken out is out");
        assert_eq!(RecordedRequest::tenant_query(Some(&rest)), None);
    }
    let host = normalise(authority).map(|authority| authority.host.into_owned()).unwrap_or_default();
    for (client, sni) in [(TRUSTED, None), (STRANGER, None), (TRUSTED, Some(sni)), (STRANGER, Some(sni))] {
        let facts = RequestFacts {
            secure: true,
            sni,
            authority: Some(authority),
            client,
            method: "GET",
            path,
            query: Some(query),
            headers: &headers,
            token: &(),
            now_ms: 0,
            chance: 0,
        };
        let Ok(selected) = decide(&TABLE, &facts) else { continue };
        let slug = selected.tenant.map(|tenant| tenant.tenant.slug.as_str()).expect("no route is public here");
        let other = if slug == "ash" { "birch" } else { "ash" };
        let by_path = path.strip_prefix("/t/").is_some_and(|rest| rest.split('/').next() == Some(slug));
        let may_choose = host == "api.schools.example" && (client == TRUSTED || by_path);
        assert!(host == format!("{slug}.schools.example") || may_choose, "{host} led to {slug}");
        assert_ne!(sni, Some(&*format!("{other}.schools.example")), "a connection of {other} led to {slug}");
        let named = headers.ids.iter().chain(&headers.slugs);
        assert!(named.clone().all(|name| name.trim_ascii() != other.as_bytes()), "a header names {other}");
        assert!(selected.path.starts_with('/') || path == selected.path, "{path} became {}", selected.path);
    }
}
