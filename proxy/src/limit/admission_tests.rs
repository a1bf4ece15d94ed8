//! What the layers say together to a request: against a manual clock.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use proptest::prelude::*;
use schoolgate_config::calendar::Calendar;
use schoolgate_config::model::{LimitMode, LimitName, Limits, Plan, Quota, QuotaMode, TimeZone};

use super::fields::Member;
use super::*;
use crate::fault::Fault;

const NOON_MS: i64 = 1_774_782_000_000;
const DAY_MS: i64 = 86_400_000;

/// A tenant alone on a node, and a clock that stands still.
struct World {
    limiter: Limiter,
    limits: Arc<TenantLimits>,
    enforced: Enforced,
    zone: TimeZone,
    now_ns: u64,
    wall_ms: i64,
    client: u8,
}

impl World {
    fn new(limits: Limits) -> Self {
        Self::on(Plan { limits, ..Plan::catalogue().remove(0) })
    }

    fn on(plan: Plan) -> Self {
        let limits = plan.limits.clone();
        Self {
            limiter: Limiter::default(),
            limits: Arc::default(),
            enforced: Enforced::new(&Arc::new(plan), &limits, None),
            zone: TimeZone::default(),
            now_ns: 0,
            wall_ms: NOON_MS,
            client: 1,
        }
    }

    fn advance_ms(&mut self, by: u64) {
        self.now_ns += by * 1_000_000;
        self.wall_ms += i64::try_from(by).expect("a short while");
    }

    fn ask(&self, kind: Kind, class: Option<&str>, counts: Counts) -> Result<Passed, Box<Limited>> {
        self.limiter.admit(&Ask {
            limits: &self.limits,
            enforced: &self.enforced,
            tenant: 7,
            calendar: Calendar::at(&self.zone, self.wall_ms),
            now_ns: self.now_ns,
            now_ms: self.wall_ms,
            client: IpAddr::V4(Ipv4Addr::new(192, 0, 2, self.client)),
            class,
            kind,
            counts,
        })
    }

    fn request(&self) -> Result<Passed, Box<Limited>> {
        self.ask(Kind::Request, None, Counts::Yes)
    }

    fn fault(&self) -> Option<Fault> {
        self.request().err().map(|limited| limited.fault)
    }
}

fn hard(value: u64) -> Option<Quota> {
    Some(Quota { value, mode: QuotaMode::Hard })
}

#[test]
fn each_layer_refuses_with_its_own_fault() {
    let minute = World::new(Limits { requests_per_minute: Some(60), burst: Some(1), ..Limits::default() });
    assert_eq!((minute.fault(), minute.fault()), (None, Some(Fault::RateLimited)));
    let day = World::new(Limits { requests_per_day: hard(1), ..Limits::default() });
    assert_eq!((day.fault(), day.fault()), (None, Some(Fault::QuotaExceeded)));
    let month = World::new(Limits { bytes_per_month: hard(10), ..Limits::default() });
    assert_eq!(month.fault(), None);
    month.limiter.transferred(&month.limits, Calendar::at(&month.zone, NOON_MS), 10);
    assert_eq!(month.fault(), Some(Fault::QuotaExceeded));
    let busy = World::new(Limits { in_flight: Some(1), ..Limits::default() });
    let _one = busy.request().expect("room");
    assert_eq!(busy.fault(), Some(Fault::ConcurrencyLimited));
    let sockets = World::new(Limits { websockets: Some(0), ..Limits::default() });
    assert_eq!(sockets.ask(Kind::WebSocket, None, Counts::Yes).err().map(|l| l.fault), Some(Fault::ConcurrencyLimited));
    assert_eq!(sockets.fault(), None);
}

#[test]
fn whatever_refused_the_client_is_told_how_its_limits_stand() {
    let world = World::new(Limits {
        requests_per_minute: Some(60),
        burst: Some(5),
        requests_per_day: hard(10),
        in_flight: Some(1),
        ..Limits::default()
    });
    let _one = world.request().expect("room");
    let refused = world.request().expect_err("one is in progress");
    assert_eq!(refused.fault, Fault::ConcurrencyLimited);
    let left = |member: Option<Member>| member.map(|member| member.left);
    assert_eq!((left(refused.told.minute), left(refused.told.day)), (Some(4), Some(9)), "it used nothing up");
}

#[test]
fn a_client_and_a_class_have_rates_of_their_own() {
    let classes = [("login".to_owned(), 2)].into();
    let mut world = World::new(Limits { requests_per_minute_per_client: Some(4), classes, ..Limits::default() });
    let login = |world: &World| world.ask(Kind::Request, Some("login"), Counts::Yes).is_ok();
    assert!(login(&world) && !login(&world), "half of the class's rate at once");
    assert!(world.request().is_ok() && world.request().is_err(), "half of the client's");
    world.client = 2;
    assert!(world.request().is_ok(), "another client is not concerned");
    assert!(!login(&world), "but the class is the tenant's");
    assert!(world.ask(Kind::Request, Some("unheard of"), Counts::Yes).is_ok());
}

#[test]
fn what_is_in_shadow_is_counted_and_let_through() {
    let limits = Limits {
        requests_per_minute: Some(60),
        burst: Some(1),
        requests_per_day: hard(1),
        in_flight: Some(1),
        ..Limits::default()
    };
    let plan = Plan { limits, mode: LimitMode::Shadow, ..Plan::catalogue().remove(0) };
    let world = World::on(plan.clone());
    let first = world.request().expect("room");
    assert!(first.would_limit.is_empty());
    let second = world.request().expect("let through");
    let layers: Vec<_> = second.would_limit.iter().collect();
    assert_eq!(layers, [Layer::Rate, Layer::Quota, Layer::Concurrency]);

    let mut one = plan;
    one.mode = LimitMode::Enforce;
    one.limits.shadow = [LimitName::RequestsPerMinute].into();
    let world = World::on(one);
    drop(world.request().expect("room"));
    assert_eq!(world.fault(), Some(Fault::QuotaExceeded), "only that one is in shadow");
}

#[test]
fn a_soft_quota_warns_and_tells_each_level_once() {
    let world =
        World::new(Limits { requests_per_day: Some(Quota { value: 10, mode: QuotaMode::Soft }), ..Limits::default() });
    let told: Vec<_> = (1..=12)
        .map(|_| {
            let passed = world.request().expect("soft");
            let reached = passed.reached.iter().flatten().map(|reached| reached.level).next();
            (passed.told.warning.map(|warning| warning.used), reached)
        })
        .collect();
    assert_eq!(told[6], (None, None));
    assert_eq!(told[7], (Some(8), Some(Level::Warning)));
    assert_eq!(told[8], (Some(9), None));
    assert_eq!(told[9], (Some(10), Some(Level::Exceeded)));
    assert_eq!(told[11], (Some(12), None));
}

#[test]
fn static_and_public_requests_do_not_count_against_the_day() {
    let world = World::new(Limits { requests_per_day: hard(1), ..Limits::default() });
    for _ in 0..5 {
        assert!(world.ask(Kind::Request, None, Counts::No).is_ok());
    }
    assert!(world.request().is_ok());
    assert!(world.ask(Kind::Request, None, Counts::No).is_ok(), "nor are they refused when it is used up");
}

#[test]
fn a_lease_stands_in_the_place_of_the_nodes_part() {
    let mut world = World::new(Limits { requests_per_minute: Some(60), burst: Some(4), ..Limits::default() });
    world.limiter.set_share(250_000);
    assert_eq!((world.fault(), world.fault()), (None, Some(Fault::RateLimited)), "a quarter of the burst");
    world.limits.lease().grant(2, 500, 0);
    assert_eq!((world.fault(), world.fault()), (None, None));
    let limited = world.request().expect_err("all are taken");
    assert_eq!((limited.fault, limited.retry_after_s), (Fault::RateLimited, 1));
    world.advance_ms(500);
    assert_eq!(world.fault(), Some(Fault::RateLimited), "what was leased is not granted again by the node's own part");
    let Demand { passed, refused } = world.limits.demand();
    assert_eq!((passed, refused), (3, 3));
}

#[test]
fn a_request_that_begins_again_is_counted_once() {
    let limits = Limits {
        requests_per_minute: Some(60),
        burst: Some(1),
        requests_per_minute_per_client: Some(2),
        requests_per_day: hard(1),
        in_flight: Some(1),
        ..Limits::default()
    };
    let world = World::new(limits);
    for _ in 0..3 {
        let passed = world.request().expect("room");
        world.limiter.forget(&world.limits, &passed, world.now_ns);
    }
    assert!(world.request().is_ok());
    assert_eq!(world.limits.demand().passed, 1);
}

proptest! {
    /// Whatever refused: a client that waits as long as it is told comes in, and a refusal used nothing up.
    #[test]
    fn waiting_as_long_as_one_is_told_lets_a_request_through(
        minute in 1_u64..300,
        burst in 1_u64..5,
        per_client in prop::option::of(1_u64..60),
        day in prop::option::of(1_u64..20),
        steps in prop::collection::vec(0_u64..2_000, 1..60),
    ) {
        let limits = Limits {
            requests_per_minute: Some(minute),
            burst: Some(burst),
            requests_per_minute_per_client: per_client,
            requests_per_day: day.and_then(hard),
            ..Limits::default()
        };
        let mut world = World::new(limits);
        for step in steps {
            world.advance_ms(step);
            if let Err(limited) = world.request() {
                prop_assert!(world.request().is_err());
                world.advance_ms(limited.retry_after_s * 1_000);
                let again = world.request();
                prop_assert!(again.is_ok(), "{:?} after {} s", again.map_err(|l| l.fault).err(), limited.retry_after_s);
            }
        }
    }

    /// However requests end, nothing stays in progress.
    #[test]
    fn nothing_stays_in_progress(storm in prop::collection::vec((any::<bool>(), any::<bool>(), 0_usize..8), 1..200)) {
        let world = World::new(Limits { in_flight: Some(5), websockets: Some(3), ..Limits::default() });
        let mut held: Vec<Passed> = Vec::new();
        for (websocket, switched, dropped) in storm {
            let kind = if websocket { Kind::WebSocket } else { Kind::Request };
            if let Ok(mut passed) = world.ask(kind, None, Counts::Yes) {
                if switched { passed.request = None } else { passed.websocket = None }
                held.push(passed);
            }
            prop_assert!(world.limits.in_progress(Kind::Request) <= 5 && world.limits.in_progress(Kind::WebSocket) <= 3);
            if dropped < held.len() {
                held.swap_remove(dropped);
            }
        }
        drop(held);
        prop_assert_eq!((world.limits.in_progress(Kind::Request), world.limits.in_progress(Kind::WebSocket)), (0, 0));
    }
}

#[test]
fn a_day_that_is_used_up_ends_at_the_schools_midnight() {
    let mut world = World::new(Limits { requests_per_day: hard(1), ..Limits::default() });
    world.zone = "Asia/Kolkata".parse().expect("a zone");
    assert!(world.request().is_ok());
    let limited = world.request().expect_err("used up");
    let midnight = Calendar::at(&world.zone, world.wall_ms).day.ends_ms;
    assert_eq!(limited.retry_after_s, u64::try_from(midnight - world.wall_ms).expect("later").div_ceil(1_000));
    world.wall_ms = midnight - 1;
    assert!(world.request().is_err());
    world.wall_ms = midnight;
    assert!(world.request().is_ok());
    world.wall_ms = midnight - DAY_MS / 2;
    assert!(world.request().is_err(), "the clock stepped back: nothing is granted twice");
}
