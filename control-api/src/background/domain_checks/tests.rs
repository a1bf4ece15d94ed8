//! The whole life of a domain, in days that pass at once.

use schoolgate_config::model::{Ownership, Pool, Routing, Tenant, TenantId, Zone};
use schoolgate_config::time::ManualClock;
use schoolgate_dns::life::{DAY_MS, TRANSFER_NOTICE_MS};
use schoolgate_dns::{CheckerOptions, ProbeOptions};
use schoolgate_store::acme::{NOT_READY, Setback};
use schoolgate_store::{DomainTransfer, EventQuery, OpenMode};
use schoolgate_testkit::{Dns, Trouble};
use serde_json::{Value, json};

use super::*;

const NAME: &str = "erp.greenhill.example";
const TOKEN: &str = "k7m2p9q4r6s8t3v5w2x4";
const TARGET: &str = "k7m2p9q4r6s8t3v5w2x4.cname.schools.example";

struct World {
    store: Store,
    clock: Arc<ManualClock>,
    dns: Dns,
    checks: DomainChecks,
    tenants: [TenantId; 2],
    _dir: tempfile::TempDir,
}

fn name() -> DomainName {
    NAME.parse().unwrap()
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).unwrap()
}

impl World {
    /// Two schools, and a domain of the first that nobody has proven.
    async fn new() -> Self {
        Self::with(PlatformFacts::default()).await
    }

    async fn with(facts: PlatformFacts) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_700_000_000_000));
        let url = format!("sqlite://{}", dir.path().join("control.db").display());
        let store = Store::open_at(&url, OpenMode::Create, clock.clone()).await.unwrap();
        store.seed(vec![object::<Zone>(json!({"name": "schools.example"}))]).await.unwrap();
        let dns = Dns::start().await;
        for zone in ["example", "greenhill.example", "schools.example"] {
            dns.records.zone(zone);
        }
        dns.records.add(&format!("{TARGET} A 192.0.2.7"));
        let options = CheckerOptions {
            resolvers: dns.resolvers().to_vec(),
            authoritative_port: dns.authoritative_port(),
            probe: ProbeOptions::default(),
        };
        let checks = DomainChecks::new(store.clone(), Checker::new(options), facts, clock.clone());
        let tenants = [TenantId::from_parts(1, 1), TenantId::from_parts(2, 2)];
        let mut transaction = store.begin(Actor::system("test")).await.unwrap();
        let pool = json!({"id": "web", "kind": "shared", "balance": "least_request", "backends": []});
        transaction.insert(object::<Pool>(pool)).await.unwrap();
        for (id, slug) in tenants.iter().zip(["greenhill", "riverside"]) {
            let tenant = json!({"id": id, "slug": slug, "name": slug, "state": "active", "plan": "basic",
                "pool": "web", "subscription": {"status": "active"}});
            transaction.insert(object::<Tenant>(tenant)).await.unwrap();
        }
        let domain = Domain {
            name: name(),
            tenant: tenants[0],
            primary: true,
            ownership: Ownership::Unproven,
            routing: Routing::Elsewhere,
            token: TOKEN.into(),
        };
        transaction.insert(domain).await.unwrap();
        transaction.commit("test", "test", Value::Null).await.unwrap();
        Self { store, clock, dns, checks, tenants, _dir: dir }
    }

    /// With a domain that is proven and points here.
    async fn working() -> Self {
        let world = Self::new().await;
        world.set_proof();
        world.dns.records.add(&format!("{NAME} CNAME {TARGET}"));
        world.checks.check_due(None).await.unwrap();
        let domain = world.domain().await.unwrap();
        assert_eq!((domain.ownership, domain.routing), (Ownership::Proven, Routing::Here));
        world
    }

    fn set_proof(&self) {
        let proof = format!("v1; tenant={}; token={TOKEN}", self.tenants[0]);
        self.dns.records.add(&format!("_schoolgate.{NAME} TXT {proof}"));
    }

    async fn domain(&self) -> Option<Domain> {
        self.store.get::<Domain>(&name()).await.unwrap().map(|stored| stored.value)
    }

    /// Lets the schedule run for some days.
    async fn pass(&self, days: i64) {
        let end = self.clock.unix_ms() + days * DAY_MS;
        while let Some(next) = self.store.next_domain_check().await.unwrap().filter(|next| *next <= end) {
            self.clock.advance_ms((next - self.clock.unix_ms()).max(0));
            self.checks.check_due(None).await.unwrap();
        }
        self.clock.advance_ms(end - self.clock.unix_ms());
    }

    async fn happened(&self, tenant: usize) -> Vec<String> {
        let query = EventQuery { tenant: Some(self.tenants[tenant]), ..EventQuery::default() };
        let mut events = self.store.events(&query).await.unwrap();
        events.reverse();
        events.into_iter().map(|event| event.kind.trim_start_matches("domain.").to_owned()).collect()
    }
}

#[tokio::test]
async fn a_domain_goes_from_nothing_to_here_drifts_leaves_and_is_quarantined() {
    let world = World::new().await;
    world.checks.check_due(None).await.unwrap();
    assert_eq!(world.domain().await.unwrap().ownership, Ownership::Unproven);
    world.set_proof();
    world.dns.records.add(&format!("{NAME} CNAME {TARGET}"));
    world.pass(1).await;
    assert_eq!(world.happened(0).await, ["proven", "here"]);
    let change = world.store.head().change;
    world.pass(10).await;
    assert_eq!(world.store.head().change, change, "checks that find nothing new publish nothing");

    world.dns.records.remove(NAME, "CNAME");
    world.dns.records.add(&format!("{NAME} A 198.51.100.3"));
    world.pass(2).await;
    assert_eq!(world.domain().await.unwrap().routing, Routing::Drifted);
    world.pass(8).await;
    assert_eq!(world.domain().await.unwrap().routing, Routing::Left);
    world.pass(20).await;
    assert!(world.domain().await.is_some(), "its TXT record still says whose it is");
    world.dns.records.remove(&format!("_schoolgate.{NAME}"), "TXT");
    world.pass(3).await;
    assert_eq!(world.domain().await, None);
    assert_eq!(world.happened(0).await, ["proven", "here", "drifted", "left", "proof_missing", "released"]);
    let released = world.store.released_name(&name()).await.unwrap().expect("it is remembered");
    assert_eq!(released.tenant, world.tenants[0]);
    world.pass(91).await;
    assert_eq!(world.store.released_name(&name()).await.unwrap(), None);
}

#[tokio::test]
async fn name_servers_that_fail_for_a_month_change_nothing() {
    let world = World::working().await;
    for at in [NAME, "_schoolgate.erp.greenhill.example", "greenhill.example"] {
        world.dns.records.trouble(at, Trouble::Fails);
    }
    world.pass(30).await;
    let domain = world.domain().await.unwrap();
    assert_eq!((domain.ownership, domain.routing), (Ownership::Proven, Routing::Here));
    assert_eq!(world.happened(0).await, ["proven", "here"]);
}

#[tokio::test]
async fn a_proof_that_goes_lapses_after_its_grace_and_the_name_is_routed_no_more() {
    let world = World::working().await;
    world.dns.records.remove(&format!("_schoolgate.{NAME}"), "TXT");
    world.pass(10).await;
    assert_eq!(world.domain().await.unwrap().ownership, Ownership::Proven, "the alias of its own name keeps the proof");
    world.dns.records.remove(NAME, "CNAME");
    world.dns.records.add(&format!("{NAME} A 198.51.100.3"));
    world.pass(5).await;
    assert!(world.domain().await.unwrap().is_routable(), "it is served during the grace");
    world.pass(4).await;
    assert!(!world.domain().await.unwrap().is_routable());
    assert!(world.happened(0).await.contains(&"lapsed".to_owned()));
    world.set_proof();
    world.pass(1).await;
    assert!(world.domain().await.unwrap().is_routable());
}

#[tokio::test]
async fn a_working_domain_moves_to_another_tenant_three_days_after_its_proof() {
    let world = World::working().await;
    let token = "z".repeat(20);
    let transfer = DomainTransfer {
        name: name(),
        tenant: world.tenants[1],
        token: token.clone(),
        requested_at_ms: world.clock.unix_ms(),
        requested_by: "test".into(),
        proven_at_ms: None,
    };
    let mut transaction = world.store.begin(Actor::system("test")).await.unwrap();
    transaction.save_domain_transfer(&transfer).await.unwrap();
    transaction.commit_records().await.unwrap();
    world.dns.records.add(&format!("_schoolgate.{NAME} TXT v1; tenant={}; token={token}", world.tenants[1]));
    world.pass(2).await;
    assert_eq!(world.domain().await.unwrap().tenant, world.tenants[0], "its tenant has notice");
    let proven = world.store.domain_transfer(&name()).await.unwrap().and_then(|t| t.proven_at_ms);
    let moves_at = proven.expect("its proof was seen") + TRANSFER_NOTICE_MS;
    world.pass(3).await;
    assert!(world.clock.unix_ms() > moves_at);
    let domain = world.domain().await.unwrap();
    assert_eq!((domain.tenant, domain.token.as_str(), domain.primary), (world.tenants[1], token.as_str(), true));
    assert!(world.happened(0).await.contains(&"moved_away".to_owned()));
    // Its alias is of the token it had; the new tenant is told to set its own.
    assert_eq!(world.happened(1).await, ["transfer_proven", "moved_here", "drifted"]);
}

#[tokio::test]
async fn a_request_that_is_not_proven_expires() {
    let world = World::working().await;
    let transfer = DomainTransfer {
        name: name(),
        tenant: world.tenants[1],
        token: "z".repeat(20),
        requested_at_ms: world.clock.unix_ms(),
        requested_by: "test".into(),
        proven_at_ms: None,
    };
    let mut transaction = world.store.begin(Actor::system("test")).await.unwrap();
    transaction.save_domain_transfer(&transfer).await.unwrap();
    transaction.commit_records().await.unwrap();
    world.pass(9).await;
    assert_eq!(world.store.domain_transfer(&name()).await.unwrap(), None);
    assert_eq!(world.happened(1).await, ["transfer_expired"]);
    assert_eq!(world.domain().await.unwrap().tenant, world.tenants[0]);
}

#[tokio::test]
async fn of_two_processes_one_checks() {
    let world = World::new().await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let first = tokio::spawn(world.checks.clone().run("first".to_owned(), async {
        let _ = stopped.await;
    }));
    let checked = async || {
        let check = world.store.domain_check(&name()).await.unwrap().expect("it is there");
        check.checked_at_ms.is_some()
    };
    schoolgate_testkit::eventually(Duration::from_secs(20), checked).await;
    assert!(world.store.take_lease(LEASE, "second", Duration::from_secs(30)).await.unwrap().is_none());
    stop.send(()).unwrap();
    first.await.unwrap();
    assert!(world.store.take_lease(LEASE, "second", Duration::from_secs(30)).await.unwrap().is_some());
}

#[tokio::test]
async fn what_would_make_an_order_fail_is_kept_and_looked_at_again_soon() {
    let facts = PlatformFacts {
        issuers: vec![CaIdentity::named("first", "letsencrypt.org"), CaIdentity::named("second", "pki.goog")],
        name_server: NameServer::Answers,
        ..PlatformFacts::default()
    };
    let world = World::with(facts).await;
    world.set_proof();
    world.dns.records.add(&format!("{NAME} CNAME {TARGET}"));
    world.dns.records.add("greenhill.example CAA 0 issue pki.goog");
    world.checks.check_due(None).await.unwrap();
    let check = world.store.domain_check(&name()).await.unwrap().unwrap();
    let [hindrance] = check.order_facts.hindrances.as_slice() else { panic!("{check:?}") };
    assert_eq!(hindrance.ca.as_ref().map(ToString::to_string).as_deref(), Some("first"));
    assert!(hindrance.message.starts_with("CAA_FORBIDS: ") && hindrance.who_acts == "school", "{hindrance:?}");
    assert_eq!((check.order_facts.delegated_to, check.findings), (None, json!([])));
    let soon = check.next_check_ms.unwrap() - world.clock.unix_ms();
    assert!(soon <= 15 * 60_000, "in {soon} ms");

    world.dns.records.remove("greenhill.example", "CAA");
    world.dns.records.add(&format!("_acme-challenge.{NAME} CNAME {TOKEN}.acme.schools.example"));
    // An order waits for it, and is looked at as soon as it is mended.
    let mut transaction = world.store.begin(Actor::system("test")).await.unwrap();
    let why = Setback { reason: NOT_READY, message: "CAA_FORBIDS".into(), who_acts: "school", link: None };
    transaction.acme_waits(NAME, &why, world.clock.unix_ms() + DAY_MS).await.unwrap();
    transaction.commit_records().await.unwrap();
    let mut told = world.store.committed();
    told.mark_unchanged();
    world.clock.advance_ms(soon);
    world.checks.check_due(None).await.unwrap();
    assert!(told.has_changed().unwrap());
    let check = world.store.domain_check(&name()).await.unwrap().unwrap();
    assert_eq!(check.order_facts.hindrances, []);
    assert_eq!(check.order_facts.delegated_to.as_deref(), Some("k7m2p9q4r6s8t3v5w2x4.acme.schools.example"));
    let want = world.store.certificate_want(NAME).await.unwrap().unwrap();
    assert_eq!(want.next_attempt_ms, world.clock.unix_ms());
}
