//! What comes next for a school on its way: a pure function of the row and of what is seen.

use schoolgate_config::feed::ShareReport;
use schoolgate_config::model::{Canary, CanaryBy, Percent, Tenant};
use schoolgate_config::settings::Migrate;
use schoolgate_store::OperationState;

use super::guard::judge;
use super::{Migration, Step};

/// The shares, one after the other, in percent.
const SHARES: [u8; 4] = [1, 10, 50, 100];

/// Time that live proxies have to adopt a step: 60 s. One that is gone no longer counts after ten.
const ADOPTED_WITHIN_MS: i64 = 60_000;

/// Whether every live proxy serves the last step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Adopted {
    /// Yes.
    Yes,
    /// Not yet: by these.
    NotBy(String),
}

/// Time in which proxies tell of their backends after a step: 3 s. Before it, finding none says nothing.
const HEARD_WITHIN_MS: i64 = 3_000;

/// What is seen of a school on its way.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    /// When, milliseconds since 1970.
    pub(super) now_ms: i64,
    /// Somebody asked for it to be undone.
    pub(super) cancelled: bool,
    /// The tenant; `None` when it is no more.
    pub(super) tenant: Option<&'a Tenant>,
    /// The new pool is there, with backends. What is in the way if it is not.
    pub(super) pool: Result<(), String>,
    /// Every live proxy has a healthy backend there. Which has not.
    pub(super) ready: Result<(), String>,
    /// Whether the last step is served.
    pub(super) adopted: Adopted,
    /// What became of the requests at the new pool since the step was served.
    pub(super) moved: ShareReport,
    /// And of those at the old one.
    pub(super) rest: ShareReport,
}

/// What comes next.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Next {
    /// Nothing yet.
    Wait,
    /// The step is served: from here on it is watched.
    Began,
    /// Another step.
    Go(Go),
}

/// Another step.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Go {
    pub(super) step: Step,
    pub(super) percent: Percent,
    pub(super) state: OperationState,
    /// Why, or what was seen.
    pub(super) note: String,
    /// Why it is undone, or could not be done.
    pub(super) why: Option<String>,
}

/// What comes next.
pub(super) fn next(migration: &Migration, seen: &Seen<'_>, rules: &Migrate) -> Next {
    let Some(tenant) = seen.tenant else { return fail("the tenant is no more") };
    if migration.step == Step::End {
        return Next::Wait;
    }
    if !is_as_left(migration, tenant) {
        return fail("somebody changed pool or canary of the tenant meanwhile; it is left as they want it");
    }
    if seen.cancelled && !matches!(migration.step, Step::Switch | Step::Undo) {
        return undo(migration, "cancelled");
    }
    match migration.step {
        Step::Prepare => prepare(migration, seen, rules),
        Step::Check => match &seen.ready {
            Ok(()) => go(Step::Shift, SHARES[0], "every proxy finds the new pool healthy"),
            Err(why) if has_passed(migration.written_ms, rules.ready_s.ms(), seen) => undo(migration, why),
            Err(_) => Next::Wait,
        },
        Step::Shift | Step::Drain | Step::Switch | Step::Undo => adopted(migration, seen, rules),
        Step::End => Next::Wait,
    }
}

fn prepare(migration: &Migration, seen: &Seen<'_>, rules: &Migrate) -> Next {
    if migration.stays() {
        return go(Step::Switch, 0, "the pool stays");
    }
    match &seen.pool {
        Ok(()) => go(Step::Check, 0, "the new pool is there"),
        Err(why) if has_passed(migration.written_ms, rules.ready_s.ms(), seen) => undo(migration, why),
        Err(_) => Next::Wait,
    }
}

/// A step that changed the tenant: it counts from when every live proxy serves it.
fn adopted(migration: &Migration, seen: &Seen<'_>, rules: &Migrate) -> Next {
    let is_watched = matches!(migration.step, Step::Shift | Step::Drain);
    if is_watched && let Err(why) = &seen.ready {
        // Requests go back to the old pool by themselves meanwhile. A control plane that has just started may not have
        // heard of backends yet.
        return if has_passed(migration.written_ms, HEARD_WITHIN_MS, seen) { undo(migration, why) } else { Next::Wait };
    }
    let Some(since_ms) = migration.since_ms else {
        return match &seen.adopted {
            Adopted::Yes => Next::Began,
            Adopted::NotBy(nodes) if is_watched && has_passed(migration.written_ms, ADOPTED_WITHIN_MS, seen) => {
                undo(migration, &format!("{nodes} did not take the step up"))
            }
            Adopted::NotBy(_) => Next::Wait,
        };
    };
    if is_watched && let Err(why) = judge(&seen.moved, &seen.rest, migration.old_p99_us, rules) {
        return undo(migration, &why);
    }
    match migration.step {
        Step::Shift if has_passed(since_ms, rules.step_s.ms(), seen) => {
            let note = format!(
                "{} requests at the new pool with {} errors, {} at the old one with {}",
                seen.moved.requests(),
                seen.moved.errors,
                seen.rest.requests(),
                seen.rest.errors
            );
            match SHARES.iter().find(|share| **share > migration.percent.get()) {
                Some(more) => go(Step::Shift, *more, note),
                None => go(Step::Drain, 100, note),
            }
        }
        Step::Drain if seen.rest.in_flight == 0 => go(Step::Switch, 0, "nothing is under way at the old pool"),
        Step::Drain if has_passed(since_ms, rules.drain_s.ms(), seen) => {
            go(Step::Switch, 0, format!("{} requests are still under way at the old pool", seen.rest.in_flight))
        }
        Step::Switch => end(OperationState::Succeeded, None),
        Step::Undo => end(OperationState::Reverted, migration.why.clone()),
        Step::Prepare | Step::Check | Step::Shift | Step::Drain | Step::End => Next::Wait,
    }
}

fn has_passed(from_ms: i64, ms: i64, seen: &Seen<'_>) -> bool {
    seen.now_ms.saturating_sub(from_ms) >= ms
}

fn go(step: Step, percent: u8, note: impl Into<String>) -> Next {
    let percent = Percent::new(percent).unwrap_or_default();
    Next::Go(Go { step, percent, state: OperationState::Running, note: note.into(), why: None })
}

/// Back to where it was. Before a share went there is nothing to undo.
fn undo(migration: &Migration, why: &str) -> Next {
    let (note, why) = (why.to_owned(), Some(why.to_owned()));
    let percent = Percent::default();
    Next::Go(match migration.step {
        Step::Prepare | Step::Check => Go { step: Step::End, percent, state: OperationState::Reverted, note, why },
        _ => Go { step: Step::Undo, percent, state: OperationState::Reverting, note, why },
    })
}

fn fail(why: &str) -> Next {
    let (note, why) = (why.to_owned(), Some(why.to_owned()));
    Next::Go(Go { step: Step::End, percent: Percent::default(), state: OperationState::Failed, note, why })
}

fn end(state: OperationState, why: Option<String>) -> Next {
    let note = match state {
        OperationState::Succeeded => "every proxy serves it from there",
        _ => "every proxy serves it as before",
    };
    Next::Go(Go { step: Step::End, percent: Percent::default(), state, note: note.to_owned(), why })
}

/// The canary that stands for a share.
pub(super) fn canary(migration: &Migration, percent: Percent) -> Canary {
    Canary { pool: migration.to.pool.clone(), percent, by: CanaryBy::Request, header: None, cookie: None }
}

/// Whether the tenant is as the last step left it.
pub(super) fn is_as_left(migration: &Migration, tenant: &Tenant) -> bool {
    let (pool, share) = match migration.step {
        Step::Prepare | Step::Check | Step::Undo => (&migration.from.pool, None),
        Step::Shift | Step::Drain => (&migration.from.pool, Some(canary(migration, migration.percent))),
        Step::Switch => (&migration.to.pool, None),
        Step::End => return true,
    };
    tenant.pool == *pool && tenant.canary.as_deref() == share.as_ref()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::super::Place;
    use super::*;

    fn migration() -> Migration {
        let place = |plan: &str, pool: &str| Place { plan: plan.parse().unwrap(), pool: pool.parse().unwrap() };
        Migration::new(place("basic", "shared"), place("premium", "own"), 0)
    }

    fn tenant() -> Tenant {
        serde_json::from_value(json!({
            "id": "tnt_01ARZ3NDEKTSV4RRFFQ69G5FAV", "slug": "ash", "name": "Ash", "state": "active",
            "plan": "basic", "pool": "shared",
        }))
        .unwrap()
    }

    /// A world in which all goes well, at a time.
    fn well(tenant: &Tenant, now_ms: i64) -> Seen<'_> {
        Seen {
            now_ms,
            cancelled: false,
            tenant: Some(tenant),
            pool: Ok(()),
            ready: Ok(()),
            adopted: Adopted::Yes,
            moved: ShareReport::default(),
            rest: ShareReport::default(),
        }
    }

    /// Takes a step as the worker does.
    fn take(migration: &mut Migration, tenant: &mut Tenant, next: &Next, now_ms: i64) -> OperationState {
        match next {
            Next::Wait => OperationState::Running,
            Next::Began => {
                migration.since_ms = Some(now_ms);
                OperationState::Running
            }
            Next::Go(go) => {
                (migration.step, migration.percent) = (go.step, go.percent);
                (migration.written_ms, migration.since_ms) = (now_ms, None);
                match go.step {
                    Step::Shift | Step::Drain => tenant.canary = Some(Box::new(canary(migration, go.percent))),
                    Step::Switch => {
                        tenant.canary = None;
                        tenant.pool = migration.to.pool.clone();
                        tenant.plan = migration.to.plan.clone();
                    }
                    Step::Undo => tenant.canary = None,
                    Step::Prepare | Step::Check | Step::End => {}
                }
                go.state
            }
        }
    }

    fn went(next: Next) -> (Step, u8, OperationState) {
        match next {
            Next::Go(go) => (go.step, go.percent.get(), go.state),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn when_all_is_well_it_goes_there_share_by_share() {
        let (mut migration, mut tenant, rules) = (migration(), tenant(), Migrate::default());
        let mut now = 0;
        let mut steps = Vec::new();
        loop {
            let next = {
                let now_tenant = tenant.clone();
                next(&migration, &well(&now_tenant, now), &rules)
            };
            let state = take(&mut migration, &mut tenant, &next, now);
            if let Next::Go(go) = &next {
                steps.push((go.step, go.percent.get()));
            }
            if state.is_final() {
                assert_eq!(state, OperationState::Succeeded);
                break;
            }
            now += 10_000;
            assert!(now < 1_000_000, "it does not end: {steps:?}");
        }
        let shifts = [1, 10, 50, 100].map(|share| (Step::Shift, share));
        let expected: Vec<_> = [(Step::Check, 0)]
            .into_iter()
            .chain(shifts)
            .chain([(Step::Drain, 100), (Step::Switch, 0), (Step::End, 0)])
            .collect();
        assert_eq!(steps, expected);
        assert!(now >= 4 * 60_000, "each share is watched for a minute");
        assert_eq!((tenant.pool.as_str(), tenant.plan.as_str(), &tenant.canary), ("own", "premium", &None));
    }

    fn at(step: Step, percent: u8) -> (Migration, Tenant) {
        let (mut migration, mut tenant) = (migration(), tenant());
        migration.step = step;
        migration.percent = Percent::new(percent).unwrap();
        migration.since_ms = Some(0);
        if matches!(step, Step::Shift | Step::Drain) {
            tenant.canary = Some(Box::new(canary(&migration, migration.percent)));
        }
        if step == Step::Switch {
            tenant.pool = migration.to.pool.clone();
        }
        (migration, tenant)
    }

    #[test]
    fn errors_or_a_pool_that_dies_send_it_back() {
        let rules = Migrate::default();
        let (migration, tenant) = at(Step::Shift, 10);
        let mut latency = vec![0; 14];
        latency[0] = 50;
        let moved = ShareReport { errors: 10, in_flight: 0, latency };
        let failing = Seen { moved, ..well(&tenant, 1) };
        assert_eq!(went(next(&migration, &failing, &rules)), (Step::Undo, 0, OperationState::Reverting));
        let unheard = Seen { ready: Err("n1 finds no backend".into()), ..well(&tenant, 1) };
        assert_eq!(next(&migration, &unheard, &rules), Next::Wait);
        let dead = Seen { ready: Err("n1 finds no backend".into()), ..well(&tenant, HEARD_WITHIN_MS) };
        assert_eq!(went(next(&migration, &dead, &rules)), (Step::Undo, 0, OperationState::Reverting));
        let (undone, tenant) = at(Step::Undo, 0);
        let still_dead = Seen { ready: Err("n1 finds no backend".into()), ..well(&tenant, 1) };
        assert_eq!(went(next(&undone, &still_dead, &rules)), (Step::End, 0, OperationState::Reverted));
    }

    #[test]
    fn a_pool_that_does_not_become_healthy_is_given_up() {
        let (migration, tenant) = at(Step::Check, 0);
        let rules = Migrate::default();
        let not_ready = |now_ms| Seen { ready: Err("n1 finds no backend".into()), ..well(&tenant, now_ms) };
        assert_eq!(next(&migration, &not_ready(59_999), &rules), Next::Wait);
        assert_eq!(went(next(&migration, &not_ready(60_000), &rules)), (Step::End, 0, OperationState::Reverted));
    }

    #[test]
    fn what_is_under_way_at_the_old_pool_is_waited_for_but_not_for_ever() {
        let (migration, tenant) = at(Step::Drain, 100);
        let rules = Migrate::default();
        let busy = |now_ms| {
            let rest = ShareReport { in_flight: 2, ..ShareReport::default() };
            Seen { rest, ..well(&tenant, now_ms) }
        };
        assert_eq!(next(&migration, &busy(59_999), &rules), Next::Wait);
        assert_eq!(went(next(&migration, &busy(60_000), &rules)).0, Step::Switch);
        assert_eq!(went(next(&migration, &well(&tenant, 1), &rules)).0, Step::Switch);
    }

    #[test]
    fn a_change_of_plan_alone_is_one_step() {
        let (mut migration, tenant) = at(Step::Prepare, 0);
        migration.to.pool = migration.from.pool.clone();
        assert_eq!(went(next(&migration, &well(&tenant, 1), &Migrate::default())).0, Step::Switch);
    }

    #[test]
    fn what_somebody_else_did_to_the_tenant_is_left_alone() {
        let (migration, mut tenant) = at(Step::Shift, 10);
        tenant.canary = None;
        let failed = (Step::End, 0, OperationState::Failed);
        assert_eq!(went(next(&migration, &well(&tenant, 1), &Migrate::default())), failed);
        let gone = Seen { tenant: None, ..well(&tenant, 1) };
        assert_eq!(went(next(&migration, &gone, &Migrate::default())), failed);
    }

    fn a_step() -> impl Strategy<Value = (Step, u8)> {
        let steps = vec![
            (Step::Prepare, 0),
            (Step::Check, 0),
            (Step::Shift, 1),
            (Step::Shift, 10),
            (Step::Shift, 50),
            (Step::Shift, 100),
            (Step::Drain, 100),
        ];
        prop::sample::select(steps)
    }

    proptest! {
        /// Wherever it is cancelled, and whatever is seen then, it ends as it was before.
        #[test]
        fn a_cancelled_move_ends_where_it_began((step, percent) in a_step(), ready: bool, mut now in 0_i64..200_000) {
            let (mut migration, mut tenant) = at(step, percent);
            let rules = Migrate::default();
            for _ in 0..6 {
                let now_tenant = tenant.clone();
                let ready = if ready { Ok(()) } else { Err("no".to_owned()) };
                let seen = Seen { cancelled: true, ready, ..well(&now_tenant, now) };
                let next = next(&migration, &seen, &rules);
                let state = take(&mut migration, &mut tenant, &next, now);
                if state.is_final() {
                    prop_assert_eq!(state, OperationState::Reverted);
                    prop_assert_eq!((tenant.pool.as_str(), tenant.plan.as_str(), &tenant.canary), ("shared", "basic", &None));
                    return Ok(());
                }
                now += 1_000;
            }
            prop_assert!(false, "it does not end");
        }
    }
}
