//! Four nodes and a bank: the sum of what they let through, against a manual clock and against a real Redis.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use async_trait::async_trait;
use proptest::prelude::*;
use schoolgate_config::calendar::Calendar;
use schoolgate_config::feed::SharingMode;
use schoolgate_config::model::{Limits, Plan, Tenant};
use schoolgate_config::time::SystemClock;
use schoolgate_testkit::{Link, Redis};

use super::bank::Grant;
use super::redis::{COMING, RedisBank};
use super::*;
use crate::limit::{Ask as Request, Counts, Kind};

/// A day's noon; the calendar does not matter here.
const NOON_MS: i64 = 1_774_782_000_000;

/// A clock that a test moves, the same for all nodes.
#[derive(Clone)]
struct Hand {
    began: Instant,
    elapsed_us: Arc<AtomicU64>,
}

impl Hand {
    fn new() -> Self {
        Self { began: Instant::now(), elapsed_us: Arc::default() }
    }

    fn now(&self) -> Instant {
        self.began + Duration::from_micros(self.elapsed_us.load(Relaxed))
    }

    fn advance_ms(&self, by: u64) {
        self.elapsed_us.fetch_add(by * 1_000, Relaxed);
    }
}

/// What `lease.lua` does, in Rust.
#[derive(Debug, Default)]
struct Model {
    buckets: HashMap<TenantId, u64>,
    began_us: Option<u64>,
    since_us: u64,
    leased_us: u64,
    settled_us: u64,
    /// Nothing is answered.
    down: bool,
}

impl Model {
    fn lease(&mut self, ask: &Ask, away: Option<Duration>, now: u64) -> Grant {
        let (interval, burst) = (ask.rate.interval_us(), u64::from(ask.rate.most_at_once()));
        let horizon = interval * burst;
        let began = *self.began_us.get_or_insert(now);
        if let Some(left) = away.map(|away| now - away.as_micros() as u64)
            && self.settled_us < left
            && (self.leased_us < left || self.since_us > left)
        {
            self.settled_us = now + COMING.as_micros() as u64;
        }
        let settles = now < self.settled_us;
        let wanted = if settles { 0 } else { u64::from(ask.wanted) };
        if wanted > 0 {
            self.since_us = if now - self.leased_us > 1_000_000 { now } else { self.since_us };
            self.leased_us = now;
        }
        let due = self.buckets.get(&ask.tenant).copied().unwrap_or(began + horizon);
        let due = due.saturating_sub(u64::from(ask.back) * interval).max(now) + u64::from(ask.spent) * interval;
        let due = due.min(now + 2 * horizon);
        let room = (now + horizon).saturating_sub(due) / interval;
        let granted = room.min(wanted);
        let due = due + granted * interval;
        self.buckets.insert(ask.tenant, due);
        if settles {
            return Grant::Share { wait_ms: (self.settled_us - now).div_ceil(1_000) };
        }
        let wait_ms = (due + interval).saturating_sub(now + horizon).div_ceil(1_000);
        Grant::Lease { requests: granted as u32, wait_ms }
    }
}

/// A bank by the test's clock.
struct Modelled {
    model: Arc<Mutex<Model>>,
    hand: Hand,
}

#[async_trait]
impl Bank for Modelled {
    async fn lease(&mut self, asks: &[Ask], away: Option<Duration>) -> Result<Vec<Grant>, BankError> {
        let mut model = self.model.lock().expect("no panic");
        if model.down {
            return Err(BankError::Unreachable("down".into()));
        }
        // Long after the bank's own beginning, unless a test says otherwise.
        let now = 1_000_000_000 + self.hand.elapsed_us.load(Relaxed);
        Ok(asks.iter().map(|ask| model.lease(ask, away, now)).collect())
    }

    async fn probe(&mut self) -> Result<(), BankError> {
        if self.model.lock().expect("no panic").down { Err(BankError::Unreachable("down".into())) } else { Ok(()) }
    }
}

/// One tenant, on every node.
struct School {
    tenant: Tenant,
    plan: Arc<Plan>,
}

impl School {
    fn new(per_minute: u64, burst: u64) -> Self {
        let limits = Limits { requests_per_minute: Some(per_minute), burst: Some(burst), ..Limits::default() };
        let plan = Arc::new(Plan { limits, ..Plan::catalogue().remove(0) });
        Self { tenant: crate::live::tests::tenant(), plan }
    }
}

struct Node<B> {
    leasing: Leasing<B>,
    limits: Arc<TenantLimits>,
}

/// The tenant as one node has it.
struct Only<'a> {
    school: &'a School,
    limits: &'a Arc<TenantLimits>,
    limiter: &'a Limiter,
}

impl Tenants for Only<'_> {
    fn each(&self, found: &mut dyn FnMut(TenantId, &Arc<TenantLimits>)) {
        found(self.school.tenant.id, self.limits);
    }

    fn rate(&self, _: &TenantId) -> Option<Rate> {
        Some(self.limiter.enforced(&self.school.tenant, &self.school.plan, NOON_MS).rate?.limit)
    }
}

impl<B: Bank> Node<B> {
    fn new(bank: B, nodes: u32, moment: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        let sharing = Arc::new(Sharing::new(Arc::new(Limiter::default()), true));
        sharing.live_nodes_are(nodes);
        Self { leasing: Leasing::new(bank, sharing, Arc::new(SystemClock), moment), limits: Arc::default() }
    }

    async fn step(&mut self, school: &School) {
        let limiter = self.leasing.limiter.clone();
        self.leasing.step(&Only { school, limits: &self.limits.clone(), limiter: &limiter }).await;
    }

    /// A request; says whether it was let through.
    fn request(&self, school: &School) -> bool {
        self.door().request(school, (self.leasing.now)())
    }

    fn door(&self) -> Door {
        Door { limiter: self.leasing.limiter.clone(), limits: self.limits.clone() }
    }

    fn mode(&self) -> SharingMode {
        self.leasing.sharing.report().mode
    }
}

/// Where requests come in at a node.
struct Door {
    limiter: Arc<Limiter>,
    limits: Arc<TenantLimits>,
}

impl Door {
    fn request(&self, school: &School, now: Instant) -> bool {
        let limiter = &self.limiter;
        let passed = limiter.admit(&Request {
            limits: &self.limits,
            enforced: &limiter.enforced(&school.tenant, &school.plan, NOON_MS),
            tenant: 1,
            calendar: Calendar::at(&Default::default(), NOON_MS),
            now_ns: limiter.now_ns(now),
            now_ms: NOON_MS,
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            class: None,
            kind: Kind::Request,
            counts: Counts::No,
        });
        passed.is_ok()
    }
}

/// Four nodes by one clock.
struct Fleet {
    hand: Hand,
    model: Arc<Mutex<Model>>,
    nodes: Vec<Node<Modelled>>,
    school: School,
}

impl Fleet {
    fn new(per_minute: u64, burst: u64) -> Self {
        let (hand, model) = (Hand::new(), Arc::<Mutex<Model>>::default());
        model.lock().expect("no panic").began_us = Some(0);
        let node = |_| {
            let bank = Modelled { model: model.clone(), hand: hand.clone() };
            let hand = hand.clone();
            Node::new(bank, 4, move || hand.now())
        };
        Self { nodes: (0..4).map(node).collect(), model, hand, school: School::new(per_minute, burst) }
    }

    /// A twentieth of a second in which each node gets so many requests; how many each let through.
    async fn look(&mut self, requests: [u32; 4]) -> [u64; 4] {
        let mut passed = [0; 4];
        // In pieces, so that they come in turns.
        for piece in 0..5 {
            for (node, (count, passed)) in self.nodes.iter().zip(requests.into_iter().zip(&mut passed)) {
                let upto = |piece: u32| count * piece / 5;
                *passed += (upto(piece)..upto(piece + 1)).filter(|_| node.request(&self.school)).count() as u64;
            }
            self.hand.advance_ms(10);
        }
        for node in &mut self.nodes {
            node.step(&self.school).await;
        }
        passed
    }

    /// So many seconds of the same traffic; how many all nodes let through.
    async fn run(&mut self, seconds: u64, requests: [u32; 4]) -> u64 {
        let mut sum = 0;
        for _ in 0..seconds * 20 {
            sum += self.look(requests).await.iter().sum::<u64>();
        }
        sum
    }
}

#[track_caller]
fn within(found: u64, wanted: u64, percent: u64, what: &str) {
    let (low, high) = (wanted * (100 - percent) / 100, wanted * (100 + percent) / 100);
    assert!((low..=high).contains(&found), "{what}: {found} let through, {wanted} ± {percent} % wanted");
}

#[tokio::test]
async fn the_sum_over_four_nodes_is_the_limit_however_uneven_the_traffic_is() {
    for (traffic, what) in [
        ([20, 20, 20, 20], "even"),
        ([80, 0, 0, 0], "all at one"),
        ([60, 6, 2, 1], "uneven"),
        ([7, 5, 0, 0], "two, not much above"),
        ([40, 1, 1, 1], "one hot, three below their share"),
    ] {
        // 6,000 a minute, so 100 a second or five in a look.
        let mut fleet = Fleet::new(6_000, 50);
        let begun = fleet.run(2, traffic).await;
        assert!(begun <= 2 * 100 + 2 * 50, "{what}: {begun} in the first two seconds");
        let sum = fleet.run(20, traffic).await;
        within(sum, 2_000, 5, what);
    }
}

#[tokio::test]
async fn traffic_that_moves_from_node_to_node_keeps_the_sum() {
    let mut fleet = Fleet::new(6_000, 50);
    fleet.run(2, [10; 4]).await;
    let mut sum = 0;
    for second in 0..20 {
        let mut traffic = [0; 4];
        traffic[second % 4] = 30;
        sum += fleet.run(1, traffic).await;
    }
    within(sum, 2_000, 5, "moving");
}

#[tokio::test]
async fn traffic_below_the_limit_is_let_through_whole() {
    let mut fleet = Fleet::new(6_000, 50);
    let sum = fleet.run(10, [4, 0, 0, 0]).await;
    within(sum, 800, 1, "four fifths of the limit, at one node");
}

#[tokio::test]
async fn without_the_bank_each_node_has_its_share_and_its_return_grants_nothing_twice() {
    let mut fleet = Fleet::new(6_000, 50);
    fleet.run(5, [20; 4]).await;
    fleet.model.lock().expect("no panic").down = true;
    fleet.run(1, [20; 4]).await;
    within(fleet.run(20, [20; 4]).await, 2_000, 5, "even, by shares");
    assert!(fleet.nodes.iter().all(|node| node.mode() == SharingMode::Share));
    let one = fleet.run(20, [80, 0, 0, 0]).await;
    within(one, 500, 10, "one node alone has a quarter");
    let away = fleet.run(5, [20; 4]).await;
    fleet.model.lock().expect("no panic").down = false;
    // The bank was at rest all that while, and the nodes come back one after the other. There is one burst in all, most of
    // it that of three shares that had rested before, and a look's worth that is charged after it.
    let back = fleet.run(4, [20; 4]).await;
    assert!(away + back <= 9 * 100 + 50 + 5, "{away} while the bank was away, {back} in four seconds after");
    within(away + back, 900, 7, "over its return");
    let after = fleet.run(10, [80, 0, 0, 0]).await;
    within(after, 1_000, 5, "all at one node, when it is back");
    assert!(fleet.nodes.iter().all(|node| node.mode() == SharingMode::Redis));
}

#[tokio::test]
async fn a_bank_that_lost_its_memory_grants_no_burst_again() {
    let mut fleet = Fleet::new(6_000, 200);
    fleet.run(10, [80, 0, 0, 0]).await;
    {
        let mut model = fleet.model.lock().expect("no panic");
        *model = Model { down: true, ..Model::default() };
    }
    fleet.run(1, [80, 0, 0, 0]).await;
    fleet.model.lock().expect("no panic").down = false;
    let sum = fleet.run(4, [80, 0, 0, 0]).await;
    assert!(sum <= 4 * 100 + 20, "{sum} in four seconds after it began anew");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// Whatever the traffic, and whenever the bank is away: in no stretch of time is more let through than the limit and
    /// a burst, and beyond that a tenth of a second of the shares and their burst (what passes before it is charged), and
    /// 5 %; and the burst of the shares once more for every time that the bank went. Its return costs nothing.
    #[test]
    fn never_more_than_stated_is_let_through_in_any_stretch(
        per_minute in 300_u64..20_000,
        burst in 8_u64..200,
        looks in prop::collection::vec((prop::array::uniform4(0_u32..40), prop::bool::weighted(0.15)), 1..160),
    ) {
        let went = looks.iter().filter(|(_, turn)| *turn).count().div_ceil(2);
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let mut fleet = Fleet::new(per_minute, burst);
        let passed: Vec<u64> = runtime.block_on(async {
            let mut passed = Vec::new();
            for (traffic, turn) in looks {
                if turn {
                    let mut model = fleet.model.lock().expect("no panic");
                    model.down = !model.down;
                }
                passed.push(fleet.look(traffic).await.iter().sum());
            }
            passed
        });
        for from in 0..passed.len() {
            let mut sum = 0;
            for (looks, count) in (1_u64..).zip(&passed[from..]) {
                sum += count;
                let limit = per_minute as f64 / 60.0 * looks as f64 / 20.0;
                let most = limit * 1.05 + (2 + went) as f64 * burst as f64 + per_minute as f64 / 600.0 + 8.0;
                prop_assert!(sum as f64 <= most, "{sum} in {looks} looks from {from}, at most {most}");
            }
        }
    }
}

/// Four nodes that lease from a real Redis, by the real clock.
struct Real {
    nodes: Vec<Node<RedisBank>>,
    school: School,
}

impl Real {
    fn new(url: &str, redis: &Redis, per_minute: u64, burst: u64) -> Self {
        let options = RedisOptions {
            url: url.to_owned(),
            password_file: Some(redis.password_file()),
            root_ca_file: None,
            prefix: "test:".to_owned(),
        };
        let node = |_| Node::new(RedisBank::new(options.clone()), 4, Instant::now);
        Self { nodes: (0..4).map(node).collect(), school: School::new(per_minute, burst) }
    }

    /// Traffic for some time: each node gets so many requests in every look. Says how many were let through, and how long
    /// it took; the longest time that a request took, too.
    async fn run(&mut self, time: Duration, requests: [u32; 4]) -> Seen {
        let school = &self.school;
        let doors: Vec<Door> = self.nodes.iter().map(Node::door).collect();
        let over = std::cell::Cell::new(false);
        // Beside the leasing, as in a proxy: what waits for Redis is not a request.
        let traffic = async {
            let began = Instant::now();
            let mut seen = Seen::default();
            while began.elapsed() < time {
                for (door, count) in doors.iter().zip(requests) {
                    for _ in 0..count {
                        let asked = Instant::now();
                        seen.passed += u64::from(door.request(school, asked));
                        seen.longest = seen.longest.max(asked.elapsed());
                    }
                }
                tokio::time::sleep(LOOK).await;
            }
            seen.took = began.elapsed();
            over.set(true);
            seen
        };
        let leasing = self.nodes.iter_mut().map(async |node| {
            while !over.get() {
                node.step(school).await;
                tokio::time::sleep(LOOK).await;
            }
        });
        tokio::join!(traffic, futures_util::future::join_all(leasing)).0
    }

    fn is_in(&self, mode: SharingMode) -> bool {
        self.nodes.iter().all(|node| node.mode() == mode)
    }
}

#[derive(Debug, Default)]
struct Seen {
    passed: u64,
    took: Duration,
    longest: Duration,
}

impl Seen {
    /// How many a limit lets through in this time.
    fn limit(&self, per_minute: u64) -> u64 {
        (per_minute as f64 / 60.0 * self.took.as_secs_f64()) as u64
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn through_redis_the_sum_is_the_limit_and_idle_tenants_leave_no_key() {
    let redis = Redis::start().await;
    let mut real = Real::new(&redis.url(), &redis, 6_000, 20);
    // A server that has just begun grants no burst.
    real.run(SECOND, [40, 4, 0, 0]).await;
    let seen = real.run(8 * SECOND, [40, 4, 1, 0]).await;
    within(seen.passed, seen.limit(6_000), 5, "through Redis");
    assert!(real.is_in(SharingMode::Redis));
    let key = format!("test:{}:rate", real.school.tenant.id);
    let ttl: i64 = redis.cli(&["PTTL", &key]).parse().expect("a number");
    assert!((1..=3_000).contains(&ttl), "the key lives {ttl} ms");
    let commands = redis.cli(&["INFO", "commandstats"]);
    assert!(commands.contains("cmdstat_evalsha") && !commands.contains("cmdstat_keys"), "{commands}");
    assert!(!commands.contains("cmdstat_scan") && !commands.contains("cmdstat_eval:"), "{commands}");
}

#[tokio::test]
async fn redis_paused_killed_and_empty_costs_no_request_and_grants_nothing_twice() {
    let mut redis = Redis::start().await;
    let mut real = Real::new(&redis.url(), &redis, 6_000, 40);
    real.run(2 * SECOND, [20; 4]).await;
    assert!(real.is_in(SharingMode::Redis));

    redis.pause();
    real.run(2 * SECOND, [20; 4]).await;
    let seen = real.run(4 * SECOND, [20; 4]).await;
    assert!(real.is_in(SharingMode::Share));
    within(seen.passed, seen.limit(6_000), 25, "while it stands still");
    assert!(seen.longest < Duration::from_millis(100), "a request took {:?}", seen.longest);

    redis.resume();
    let back = real.run(4 * SECOND, [20; 4]).await;
    assert!(real.is_in(SharingMode::Redis));
    within(seen.passed + back.passed, seen.limit(6_000) + back.limit(6_000), 5, "over its return");

    redis.restart().await;
    let seen = real.run(5 * SECOND, [20; 4]).await;
    assert!(real.is_in(SharingMode::Redis));
    // At its loss the shares of those that leased less have a burst, at its return nobody has.
    within(seen.passed, seen.limit(6_000), 10, "after it lost its memory");
    let seen = real.run(4 * SECOND, [80, 0, 0, 0]).await;
    within(seen.passed, seen.limit(6_000), 10, "and all goes to one node");
}

#[tokio::test]
async fn a_redis_that_is_slow_full_read_only_or_refuses_leaves_the_share() {
    let redis = Redis::start().await;
    let link = Link::to(redis.addr()).await;
    let mut real = Real::new(&format!("redis://{}/0", link.addr()), &redis, 6_000, 40);
    real.run(SECOND, [20; 4]).await;
    assert!(real.is_in(SharingMode::Redis));

    link.delay(Duration::from_millis(400));
    real.run(2 * SECOND, [20; 4]).await;
    let seen = real.run(3 * SECOND, [20; 4]).await;
    assert!(real.is_in(SharingMode::Share), "answers after 800 ms are none");
    within(seen.passed, seen.limit(6_000), 25, "over a slow path");
    link.pass();
    link.cut();
    real.run(3 * SECOND, [20; 4]).await;
    assert!(real.is_in(SharingMode::Redis));

    for (set, unset, what) in [
        (["CONFIG", "SET", "maxmemory", "1"], ["CONFIG", "SET", "maxmemory", "0"], "full"),
        (
            ["CONFIG", "SET", "min-replicas-to-write", "3"],
            ["CONFIG", "SET", "min-replicas-to-write", "0"],
            "not writable",
        ),
    ] {
        assert_eq!(redis.cli(&set), "OK");
        real.run(SECOND, [20; 4]).await;
        let seen = real.run(3 * SECOND, [20; 4]).await;
        assert!(real.is_in(SharingMode::Share), "{what}");
        within(seen.passed, seen.limit(6_000), 25, what);
        assert_eq!(redis.cli(&unset), "OK");
        real.run(3 * SECOND, [20; 4]).await;
        assert!(real.is_in(SharingMode::Redis), "{what}, and then not");
    }

    std::fs::write(redis.password_file(), "wrong\n").expect("written");
    link.cut();
    real.run(SECOND, [20; 4]).await;
    let report = real.nodes[0].leasing.sharing.report();
    assert_eq!(report.mode, SharingMode::Share);
    let error = report.error.expect("a reason");
    assert!(error.contains("refuses") && !error.contains("secret"), "{error}");
}
