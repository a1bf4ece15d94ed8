//! From commits to what proxies are told.

use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use schoolgate_config::feed::{FeedAnswer, NodeReport, RefusedRevision};
use schoolgate_config::model::{
    Domain, DomainName, NodeId, Ownership, Pool, Revision, Routing, Tenant, TenantId, TenantState, Zone,
};
use schoolgate_config::snapshot::{Object, Snapshot};
use schoolgate_config::table::{NoLive, RoutingTable};
use schoolgate_store::{Actor, OpenMode, Store, Transaction};

use super::*;

/// Long enough for anything that happens at all; nothing waits this long when it works.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    directory: TempDir,
    store: Store,
}

/// A publisher at work.
struct Running {
    publisher: Publisher,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Running {
    fn start(publisher: &Publisher) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(publisher.clone().run(async {
            let _ = stopped.await;
        }));
        Self { publisher: publisher.clone(), stop, task }
    }

    async fn stop(self) {
        self.stop.send(()).expect("runs");
        self.task.await.expect("ends");
    }

    async fn published(&self, change: u64) -> Revision {
        self.publisher.wait_published(change, PATIENCE).await.expect("is published")
    }
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let store = open(&directory, OpenMode::Create).await;
        let zone = Zone {
            name: DomainName::parse("schools.test").expect("a name"),
            shared_host: None,
            trusted_callers: Vec::new(),
            reserved: Vec::new(),
            path_prefix: false,
            require_token: false,
        };
        store.seed(vec![zone]).await.expect("seeds");
        Self { directory, store }
    }

    async fn publisher(&self) -> Publisher {
        Publisher::load(self.store.clone()).await.expect("loads")
    }

    async fn begin(&self) -> Transaction {
        begin(&self.store).await
    }

    async fn put(&self, id: &str) -> u64 {
        put(&self.store, id).await
    }
}

async fn open(directory: &TempDir, mode: OpenMode) -> Store {
    let url = format!("sqlite://{}", directory.path().join("control.db").display());
    Store::open(&url, mode).await.expect("opens")
}

async fn begin(store: &Store) -> Transaction {
    store.begin(Actor::system("test")).await.expect("begins")
}

async fn put(store: &Store, id: &str) -> u64 {
    let mut transaction = begin(store).await;
    transaction.insert(pool(id)).await.expect("inserts");
    commit(transaction).await
}

async fn commit(transaction: Transaction) -> u64 {
    transaction.commit("test", "test", json!(null)).await.expect("commits").change
}

fn pool(id: &str) -> Pool {
    serde_json::from_value(json!({ "id": id })).expect("a pool")
}

fn tenant(slug: &str, pool: &str) -> Tenant {
    serde_json::from_value(json!({
        "id": TenantId::generate(), "slug": slug, "name": slug, "state": "active", "plan": "basic", "pool": pool,
    }))
    .expect("a tenant")
}

fn node(name: &str) -> NodeId {
    name.parse().expect("a name")
}

fn report(name: &str, serving: Revision) -> NodeReport {
    NodeReport {
        node: node(name),
        serving,
        refused: None,
        version: "test".into(),
        started_at_ms: 0,
        certificates: 0,
        connections: 0,
        requests_in_flight: 0,
        context_key: None,
        sealing_keys: Vec::new(),
        backends: Vec::new(),
        canaries: Vec::new(),
        notices: Vec::new(),
        unknown_hosts: Vec::new(),
        missing_keys: Vec::new(),
        cross_tenant_attempts: Vec::new(),
        quota_events: Vec::new(),
        limits: None,
        backend_changes: Vec::new(),
    }
}

/// A table as a set of objects, whatever their order.
fn objects(table: &RoutingTable) -> Vec<String> {
    let mut objects: Vec<String> = table.to_snapshot().objects.iter().map(|object| format!("{object:?}")).collect();
    objects.sort();
    objects
}

/// A proxy that follows a feed.
#[derive(Default)]
struct Follower {
    table: RoutingTable,
    snapshots: u32,
}

impl Follower {
    async fn follow(&mut self, feed: &FeedServer, until: Revision) {
        while self.table.revision() < until {
            let bytes = feed.next_bytes(&node("follower"), self.table.revision(), PATIENCE).await;
            match FeedAnswer::decode(&bytes).expect("reads") {
                FeedAnswer::Nothing => panic!("nothing came"),
                FeedAnswer::Deltas(deltas) => {
                    for delta in deltas {
                        self.table = self.table.apply(&delta, &NoLive).expect("holds together");
                    }
                }
                FeedAnswer::Snapshot(snapshot) => {
                    self.snapshots += 1;
                    self.table = RoutingTable::from_snapshot(&snapshot, &NoLive, None).expect("holds together");
                }
            }
        }
    }
}

#[tokio::test]
async fn a_new_store_is_published_as_revision_one() {
    let world = World::new().await;
    let publisher = world.publisher().await;
    assert_eq!(publisher.revision(), Revision(1));
    assert_eq!(world.store.last_revision().await.expect("reads").map(|r| (r.change_from, r.change_to)), Some((1, 1)));
    let mut follower = Follower::default();
    follower.follow(&publisher.feed(), Revision(1)).await;
    assert_eq!(follower.snapshots, 1);
    assert_eq!(objects(&follower.table), objects(&publisher.table()));
    // A second start publishes nothing again.
    assert_eq!(world.publisher().await.revision(), Revision(1));
}

#[tokio::test]
async fn a_commit_reaches_a_waiting_proxy_as_one_delta() {
    let world = World::new().await;
    let publisher = world.publisher().await;
    let running = Running::start(&publisher);
    let feed = publisher.feed();
    let waiting = tokio::spawn(async move { feed.next(&node("n1"), Revision(1), PATIENCE).await });
    let change = world.put("web").await;
    let revision = running.published(change).await;
    assert_eq!(revision, Revision(2));
    match waiting.await.expect("joins") {
        FeedAnswer::Deltas(deltas) => {
            assert_eq!(deltas.len(), 1);
            assert_eq!((deltas[0].from, deltas[0].to, deltas[0].changes.len()), (Revision(1), Revision(2), 1));
        }
        other => panic!("{other:?}"),
    }
    let record = world.store.revision(revision).await.expect("reads").expect("is recorded");
    assert_eq!((record.change_from, record.change_to, record.objects), (change, change, 1));
    assert_eq!(record.actors, ["test"]);
    running.stop().await;
}

#[tokio::test]
async fn a_commit_that_touches_no_object_makes_no_revision_and_counts_as_published() {
    let world = World::new().await;
    let publisher = world.publisher().await;
    let running = Running::start(&publisher);
    let change = commit(world.begin().await).await;
    assert_eq!(running.published(change).await, Revision(1));
    let change = world.put("web").await;
    assert_eq!(running.published(change).await, Revision(2));
    let status = publisher.status();
    assert_eq!((status.published_change, status.committed_change, status.unpublished), (change, change, None));
    running.stop().await;
}

#[tokio::test]
async fn what_was_committed_and_not_published_is_published_at_the_next_start() {
    let world = World::new().await;
    let mut follower = Follower::default();
    follower.follow(&world.publisher().await.feed(), Revision(1)).await;
    // The process dies here: commits, and no publisher.
    world.put("web").await;
    world.put("api").await;
    let publisher = world.publisher().await;
    assert_eq!(publisher.revision(), Revision(2));
    follower.follow(&publisher.feed(), Revision(2)).await;
    assert_eq!(follower.snapshots, 1, "the proxy went on with a delta");
    assert_eq!(objects(&follower.table), objects(&publisher.table()));
}

#[tokio::test]
async fn a_proxy_that_is_too_far_behind_takes_a_snapshot() {
    let world = World::new().await;
    let publisher = world.publisher().await;
    let running = Running::start(&publisher);
    let change = world.put("web").await;
    let revision = running.published(change).await;
    publisher.forget_recent();
    let answer = publisher.feed().next(&node("n1"), Revision(1), PATIENCE).await;
    assert!(matches!(answer, FeedAnswer::Snapshot(Snapshot { revision: r, .. }) if r == revision), "{answer:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_proxy_ahead_of_a_restored_store_gets_a_snapshot_and_a_notice_and_is_not_fed_without_end() {
    let world = World::new().await;
    let publisher = world.publisher().await;
    let feed = publisher.feed();
    let answer = feed.next(&node("n1"), Revision(500), PATIENCE).await;
    assert!(matches!(answer, FeedAnswer::Snapshot(Snapshot { revision: Revision(1), .. })));
    assert!(feed.node(&node("n1")).expect("is known").notices[0].contains("restored from a backup"));
    // It refuses, and asks again at once.
    assert_eq!(feed.next(&node("n1"), Revision(500), Duration::from_millis(20)).await, FeedAnswer::Nothing);
    feed.report(report("n1", Revision(1)));
    assert!(feed.node(&node("n1")).expect("is known").notices.is_empty());
}

#[tokio::test]
async fn waiting_for_proxies_ends_when_every_live_one_serves_the_revision() {
    let world = World::new().await;
    let publisher = world.publisher().await;
    let feed = publisher.feed();
    assert!(feed.wait_applied(Revision(1), PATIENCE).await.is_empty(), "there is no proxy to wait for");
    feed.report(report("n1", Revision(1)));
    feed.report(report("n2", Revision(0)));
    let lagging = feed.wait_applied(Revision(1), Duration::from_millis(10)).await;
    assert_eq!(lagging.len(), 1);
    assert_eq!((lagging[0].node.as_str(), lagging[0].serving), ("n2", Some(Revision(0))));
    let waiting = {
        let feed = feed.clone();
        tokio::spawn(async move { feed.wait_applied(Revision(1), PATIENCE).await })
    };
    feed.report(report("n2", Revision(1)));
    assert!(waiting.await.expect("joins").is_empty());

    // One that refused is named, and not waited for.
    let refused = Some(RefusedRevision { revision: Revision(2), reason: "no key".into() });
    feed.report(NodeReport { refused, ..report("n2", Revision(1)) });
    feed.report(report("n1", Revision(2)));
    let lagging = feed.wait_applied(Revision(2), PATIENCE).await;
    assert_eq!(lagging.iter().map(|n| n.refused.as_deref()).collect::<Vec<_>>(), [Some("no key")]);
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_is_silent_for_ten_seconds_is_not_live_unless_it_waits_in_a_poll() {
    let nodes = nodes::Nodes::new(Vec::new(), std::sync::Arc::new(schoolgate_config::time::SystemClock));
    nodes.report(report("dead", Revision(1)), Revision(1));
    let waits = node("waits");
    let poll = nodes.poll(&waits);
    tokio::time::advance(Duration::from_secs(11)).await;
    let live = |nodes: &nodes::Nodes| {
        nodes.all().into_iter().filter(|node| node.live).map(|node| node.node.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(live(&nodes), ["waits"]);
    assert_eq!(nodes.lagging(Revision(2)).len(), 1);
    drop(poll);
    tokio::time::advance(Duration::from_secs(11)).await;
    assert!(live(&nodes).is_empty());
    assert_eq!(nodes.all().len(), 2, "it is still known");
}

#[tokio::test]
async fn what_proxies_said_is_known_after_a_restart_and_they_are_expected_back() {
    let world = World::new().await;
    let publisher = world.publisher().await;
    let running = Running::start(&publisher);
    publisher.feed().report(report("n1", Revision(1)));
    running.stop().await;
    let again = world.publisher().await;
    let known = again.feed().nodes();
    assert_eq!(known[0].report, Some(report("n1", Revision(1))));
    assert!(known[0].live, "it goes on serving without a control plane, so a change has to wait for it");
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_does_not_come_back_is_not_waited_for() {
    let clock = std::sync::Arc::new(schoolgate_config::time::SystemClock);
    let now_ms = schoolgate_config::time::Clock::unix_ms(&*clock);
    let seen = |name: &str, ago_ms: i64| schoolgate_store::NodeRecord {
        node: node(name),
        seen_at_ms: now_ms - ago_ms,
        report: None,
    };
    let nodes = nodes::Nodes::new(vec![seen("recent", 60_000), seen("long-gone", 86_400_000)], clock);
    let live = |nodes: &nodes::Nodes| {
        nodes.all().into_iter().filter(|node| node.live).map(|node| node.node.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(live(&nodes), ["recent"]);
    tokio::time::advance(Duration::from_secs(11)).await;
    assert!(live(&nodes).is_empty());
}

#[tokio::test]
async fn two_control_processes_publish_from_one_store_without_a_number_twice() {
    let world = World::new().await;
    let other_store = open(&world.directory, OpenMode::Existing).await;
    let one = Running::start(&world.publisher().await);
    let other = Running::start(&Publisher::load(other_store.clone()).await.expect("loads"));
    let mut last = 0;
    for n in 0..20 {
        let store = if n % 2 == 0 { &world.store } else { &other_store };
        last = put(store, &format!("pool-{n}")).await;
    }
    let (a, b) = (one.published(last).await, other.published(last).await);
    let newest = a.max(b);
    for running in [&one, &other] {
        let mut follower = Follower::default();
        follower.follow(&running.publisher.feed(), newest).await;
        assert_eq!(follower.table.pools().count(), 20);
    }
    let mut records = world.store.revisions(None, 1_000).await.expect("reads");
    records.reverse();
    for pair in records.windows(2) {
        assert_eq!(pair[1].change_from, pair[0].change_to + 1, "every change is in one revision");
    }
    one.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn a_large_import_is_published_in_pieces_that_lead_to_the_same() {
    let world = World::new().await;
    let publisher = world.publisher().await;
    let mut follower = Follower::default();
    follower.follow(&publisher.feed(), Revision(1)).await;
    let running = Running::start(&publisher);
    world.put("web").await;
    let writes: Vec<_> = (0..300)
        .map(|n| {
            let store = world.store.clone();
            tokio::spawn(async move {
                let mut transaction = begin(&store).await;
                transaction.insert(tenant(&format!("school-{n}"), "web")).await.expect("inserts");
                commit(transaction).await
            })
        })
        .collect();
    let mut last = 0;
    for write in writes {
        last = last.max(write.await.expect("joins"));
    }
    let revision = running.published(last).await;
    follower.follow(&publisher.feed(), revision).await;
    assert_eq!(follower.snapshots, 1);
    assert_eq!(follower.table.tenant_count(), 300);
    assert_eq!(objects(&follower.table), objects(&world.store.head().table));
    running.stop().await;
}

/// One thing that an operator does, chosen by a property test.
#[derive(Debug, Clone)]
enum Deed {
    PutPool(u8),
    RemovePool(u8),
    PutTenant { school: u8, pool: u8, suspended: bool },
    Rename { school: u8, name: u8 },
    RemoveTenant(u8),
    PutDomain { name: u8, school: u8, proven: bool },
    RemoveDomain(u8),
}

fn deeds() -> impl proptest::strategy::Strategy<Value = Vec<Vec<Deed>>> {
    use proptest::prelude::*;
    let deed = prop_oneof![
        (0..3u8).prop_map(Deed::PutPool),
        (0..3u8).prop_map(Deed::RemovePool),
        (0..4u8, 0..3u8, any::<bool>()).prop_map(|(school, pool, suspended)| Deed::PutTenant {
            school,
            pool,
            suspended
        }),
        (0..4u8, 0..4u8).prop_map(|(school, name)| Deed::Rename { school, name }),
        (0..4u8).prop_map(Deed::RemoveTenant),
        (0..4u8, 0..4u8, any::<bool>()).prop_map(|(name, school, proven)| Deed::PutDomain { name, school, proven }),
        (0..4u8).prop_map(Deed::RemoveDomain),
    ];
    proptest::collection::vec(proptest::collection::vec(deed, 1..4), 1..25)
}

/// Does one thing, if the store takes it; what it refuses is not this test's matter.
async fn act(transaction: &mut Transaction, deed: &Deed) {
    let id = |school: &u8| TenantId::from_parts(u64::from(*school) + 1, 0);
    match deed {
        Deed::PutPool(n) => {
            let _ = transaction.insert(pool(&format!("pool-{n}"))).await;
        }
        Deed::RemovePool(n) => {
            let _ = transaction.delete::<Pool>(&pool(&format!("pool-{n}")).id, None).await;
        }
        Deed::PutTenant { school, pool, suspended } => {
            let mut value = tenant(&format!("school-{school}"), &format!("pool-{pool}"));
            value.id = id(school);
            value.state = if *suspended { TenantState::Suspended } else { TenantState::Active };
            if transaction.get::<Tenant>(&value.id).await.expect("reads").is_some() {
                let _ = transaction.update(value, None).await;
            } else {
                let _ = transaction.insert(value).await;
            }
        }
        Deed::Rename { school, name } => {
            if let Some(stored) = transaction.get::<Tenant>(&id(school)).await.expect("reads") {
                let slug = format!("school-{name}").parse().expect("a slug");
                let _ = transaction.update(Tenant { slug, ..stored.value }, Some(stored.version)).await;
            }
        }
        Deed::RemoveTenant(school) => {
            let _ = transaction.delete::<Tenant>(&id(school), None).await;
        }
        Deed::PutDomain { name, school, proven } => {
            let value = Domain {
                name: DomainName::parse(&format!("d{name}.example")).expect("a name"),
                tenant: id(school),
                primary: false,
                ownership: if *proven { Ownership::Proven } else { Ownership::Unproven },
                routing: Routing::Here,
                token: String::new(),
            };
            if transaction.get::<Domain>(&value.name).await.expect("reads").is_some() {
                let _ = transaction.update(value, None).await;
            } else {
                let _ = transaction.insert(value).await;
            }
        }
        Deed::RemoveDomain(name) => {
            let name = DomainName::parse(&format!("d{name}.example")).expect("a name");
            let _ = transaction.delete::<Domain>(&name, None).await;
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 24, ..Default::default() })]

    #[test]
    fn deltas_lead_to_the_table_that_the_store_holds(commits in deeds()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let world = World::new().await;
            let publisher = world.publisher().await;
            let mut follower = Follower::default();
            follower.follow(&publisher.feed(), Revision(1)).await;
            let running = Running::start(&publisher);
            for deeds in &commits {
                let mut transaction = world.begin().await;
                for deed in deeds {
                    act(&mut transaction, deed).await;
                }
                // Most sequences break a rule somewhere; those commits must leave no trace.
                let _ = transaction.commit("test", "test", json!(null)).await;
            }
            let (change, stored) = world.store.everything().await.expect("reads");
            let revision = running.published(change).await;
            follower.follow(&publisher.feed(), revision).await;
            let whole = Snapshot { revision, objects: stored };
            let whole = RoutingTable::from_snapshot(&whole, &NoLive, None).expect("holds together");
            let wanted: Vec<String> = whole
                .domains()
                .filter(|domain| domain.is_routable())
                .map(|domain| domain.name.to_string())
                .chain(["*.schools.test".to_owned()])
                .collect();
            let wants = world.store.certificate_wants(None, 100).await.expect("reads");
            assert_eq!(follower.snapshots, 1);
            assert_eq!(objects(&follower.table), objects(&whole));
            assert_eq!(objects(&publisher.table()), objects(&whole));
            let mut wanted = wanted;
            wanted.sort();
            assert_eq!(wants.into_iter().map(|want| want.name).collect::<Vec<_>>(), wanted);
            running.stop().await;
        });
    }
}

#[tokio::test]
async fn a_snapshot_is_encoded_once_for_all_who_ask() {
    let world = World::new().await;
    let publisher = world.publisher().await;
    let feed = publisher.feed();
    let first = feed.next_bytes(&node("n1"), Revision::NONE, PATIENCE).await;
    let second = feed.next_bytes(&node("n2"), Revision::NONE, PATIENCE).await;
    assert_eq!(first.as_ptr(), second.as_ptr());
    match FeedAnswer::decode(&first).expect("reads") {
        FeedAnswer::Snapshot(snapshot) => {
            assert!(snapshot.objects.iter().any(|object| matches!(object, Object::Zone(_))));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(feed.next_bytes(&node("n1"), Revision(1), Duration::from_millis(5)).await.len(), 0);
}
