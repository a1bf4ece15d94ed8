//! What becomes of a domain, check by check; pure.
//!
//! ```text
//! ownership:  unproven -> proven -> (proof missing, serving on for 7 d) -> lapsed -> proven …
//! routing:    elsewhere -> partial -> here -> drifted (7 d) -> left (7 d, and no proof) -> released
//! ```
//!
//! Good news is believed at once. Bad news is believed when three checks over ten minutes at least had it; a check that
//! got no answer is no news. So a name server that fails for an hour, or one wrong answer, changes nothing that works.

use schoolgate_config::model::{Ownership, Routing};
use serde::{Deserialize, Serialize};

use crate::classify::{Pointing, Proof, Verdict};

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
/// A day in milliseconds.
pub const DAY_MS: i64 = 24 * HOUR;

/// Checks that must agree on bad news: three.
const CONFIRM_CHECKS: u32 = 3;

/// Time that these checks must span: 10 min, longer than most name servers take to restart or to load a zone.
const CONFIRM_OVER: i64 = 10 * MINUTE;

/// Time between two checks while bad news is not believed yet: 5 min.
const CONFIRM_EVERY: i64 = 5 * MINUTE;

/// Time for which a domain whose proof has gone is served on: 7 days. A school that cleaned up its DNS is told on each of
/// them; a domain that was sold has its new owner's site elsewhere by then.
pub const PROOF_GRACE_MS: i64 = 7 * DAY_MS;

/// Time away after which a domain has left: 7 days.
pub const LEFT_AFTER_MS: i64 = 7 * DAY_MS;

/// Time after which a domain that has left or lapsed is released: 7 days.
pub const RELEASED_AFTER_MS: i64 = 7 * DAY_MS;

/// Time for which a released name is remembered as its last tenant's: 90 days.
pub const QUARANTINE_MS: i64 = 90 * DAY_MS;

/// Time for which a claim waits for its proof by itself: 7 days. After that somebody has to ask for a check.
pub const CLAIM_MS: i64 = 7 * DAY_MS;

/// Notice that the tenant of a working domain has before the domain goes to another who has proven it: 72 h.
pub const TRANSFER_NOTICE_MS: i64 = 72 * HOUR;

/// Where a domain stands: what is published of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Whether the name is the tenant's.
    pub ownership: Ownership,
    /// Where it points.
    pub routing: Routing,
}

/// Bad news that was seen and not yet undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Doubt {
    /// When it was first seen, milliseconds since 1970.
    since_ms: i64,
    /// Checks in a row that saw it.
    checks: u32,
}

impl Doubt {
    fn seen_again(before: Option<Self>, now_ms: i64) -> Self {
        before.map_or(Self { since_ms: now_ms, checks: 1 }, |doubt| Self {
            checks: doubt.checks.saturating_add(1),
            ..doubt
        })
    }

    fn is_confirmed(self, now_ms: i64) -> bool {
        self.checks >= CONFIRM_CHECKS && now_ms - self.since_ms >= CONFIRM_OVER
    }
}

/// What the checks of a domain remember from one to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Life {
    /// When the domain began to wait for what it waits for, milliseconds since 1970; 0 before the first check.
    waiting_since_ms: i64,
    /// Checks since then.
    checks: u32,
    /// Checks in a row without an answer.
    unanswered: u32,
    /// The proof is not there.
    no_proof: Option<Doubt>,
    /// The tenant was told that the proof is missing.
    proof_missed: bool,
    /// The name does not point here, and did.
    away: Option<Doubt>,
    /// When the domain had left, or its proof had lapsed; milliseconds since 1970.
    left_ms: Option<i64>,
    lapsed_ms: Option<i64>,
    /// The claim waited for its proof as long as it may.
    expired: bool,
}

/// Something that happened to a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Happening {
    /// The name is proven to be the tenant's.
    Proven,
    /// Nobody proved it in time; nobody looks any more until asked.
    ClaimExpired,
    /// The proof has gone; the domain is served until this time, milliseconds since 1970.
    ProofMissing {
        /// Until when.
        served_until_ms: i64,
    },
    /// The proof came back in time.
    ProofBack,
    /// The proof was gone for too long; the domain is no longer served.
    Lapsed,
    /// The name points here.
    Here,
    /// The name pointed here and does no more.
    Drifted,
    /// It has been away for a week.
    Left,
    /// The domain is taken from its tenant.
    Released,
}

impl Happening {
    /// The kind of event that it is.
    pub const fn kind(self) -> &'static str {
        match self {
            Self::Proven => "domain.proven",
            Self::ClaimExpired => "domain.claim_expired",
            Self::ProofMissing { .. } => "domain.proof_missing",
            Self::ProofBack => "domain.proof_back",
            Self::Lapsed => "domain.lapsed",
            Self::Here => "domain.here",
            Self::Drifted => "domain.drifted",
            Self::Left => "domain.left",
            Self::Released => "domain.released",
        }
    }
}

/// What a check leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What to remember.
    pub life: Life,
    /// Where the domain stands now.
    pub standing: Standing,
    /// What happened, in order. [`Happening::Released`] is the last, and means that the domain goes.
    pub happenings: Vec<Happening>,
    /// When to look again, milliseconds since 1970; `None`: when somebody asks.
    pub next_ms: Option<i64>,
}

impl Life {
    /// What a check that saw `verdict` at `now_ms` leads to. `seed` spreads the daily checks of many domains.
    pub fn step(&self, standing: Standing, verdict: Verdict, now_ms: i64, seed: u64) -> Step {
        let mut step = Step { life: self.clone(), standing, happenings: Vec::new(), next_ms: None };
        if step.life.waiting_since_ms == 0 {
            step.life.waiting_since_ms = now_ms;
        }
        step.life.checks = step.life.checks.saturating_add(1);
        let silent = verdict.proof == Proof::Unknown && verdict.pointing == Pointing::Unknown;
        step.life.unanswered = if silent { step.life.unanswered.saturating_add(1) } else { 0 };
        step.own(verdict, now_ms);
        step.point(verdict.pointing, now_ms);
        step.release(verdict, now_ms);
        if step.standing != standing {
            (step.life.waiting_since_ms, step.life.checks) = (now_ms, 0);
        }
        step.next_ms = step.schedule(now_ms, seed);
        if step.next_ms.is_none() && !step.life.expired && step.standing.ownership == Ownership::Unproven {
            step.life.expired = true;
            step.happenings.push(Happening::ClaimExpired);
        }
        step
    }

    /// Somebody asked for a check: a claim that had expired waits anew.
    #[must_use]
    pub fn asked(&self) -> Self {
        if self.expired {
            Self { expired: false, waiting_since_ms: 0, checks: 0, ..self.clone() }
        } else {
            self.clone()
        }
    }

    /// Until when a domain whose proof is missing is served, milliseconds since 1970.
    pub fn served_until_ms(&self) -> Option<i64> {
        let doubt = self.no_proof.filter(|_| self.proof_missed)?;
        Some(doubt.since_ms + PROOF_GRACE_MS)
    }

    /// Since when the name has been seen away from here, milliseconds since 1970.
    pub fn away_since_ms(&self) -> Option<i64> {
        self.away.map(|doubt| doubt.since_ms)
    }

    /// Whether nobody looks any more until asked.
    pub fn is_expired(&self) -> bool {
        self.expired
    }
}

impl Step {
    fn happened(&mut self, happening: Happening) {
        self.happenings.push(happening);
    }

    fn own(&mut self, verdict: Verdict, now_ms: i64) {
        let proven = self.standing.ownership == Ownership::Proven;
        // The alias keeps a proof and does not begin one.
        let kept = proven && verdict.alias == Proof::Present;
        if verdict.proof == Proof::Present || kept {
            if !proven {
                self.standing.ownership = Ownership::Proven;
                self.happened(Happening::Proven);
            } else if self.life.proof_missed {
                self.happened(Happening::ProofBack);
            }
            (self.life.no_proof, self.life.proof_missed) = (None, false);
            (self.life.lapsed_ms, self.life.expired) = (None, false);
            return;
        }
        // No evidence unless both are said to be absent.
        if !proven || verdict.proof == Proof::Unknown || verdict.alias == Proof::Unknown {
            return;
        }
        let doubt = Doubt::seen_again(self.life.no_proof, now_ms);
        self.life.no_proof = Some(doubt);
        if !doubt.is_confirmed(now_ms) {
            return;
        }
        if !self.life.proof_missed {
            self.life.proof_missed = true;
            self.happened(Happening::ProofMissing { served_until_ms: doubt.since_ms + PROOF_GRACE_MS });
        }
        if now_ms - doubt.since_ms >= PROOF_GRACE_MS {
            self.standing.ownership = Ownership::Lapsed;
            (self.life.no_proof, self.life.proof_missed) = (None, false);
            self.life.lapsed_ms = Some(now_ms);
            self.happened(Happening::Lapsed);
        }
    }

    fn point(&mut self, pointing: Pointing, now_ms: i64) {
        let before = self.standing.routing;
        match (before, pointing) {
            (_, Pointing::Unknown) => {}
            (_, Pointing::Here) => {
                (self.life.away, self.life.left_ms) = (None, None);
                if before != Routing::Here {
                    self.standing.routing = Routing::Here;
                    self.happened(Happening::Here);
                }
            }
            // It has not been here yet: nothing works that could break.
            (Routing::Elsewhere | Routing::Partial, Pointing::Partial) => self.standing.routing = Routing::Partial,
            (Routing::Elsewhere | Routing::Partial, Pointing::Elsewhere) => self.standing.routing = Routing::Elsewhere,
            (Routing::Here, Pointing::Partial | Pointing::Elsewhere) => {
                let doubt = Doubt::seen_again(self.life.away, now_ms);
                self.life.away = Some(doubt);
                if doubt.is_confirmed(now_ms) {
                    self.standing.routing = Routing::Drifted;
                    self.happened(Happening::Drifted);
                }
            }
            (Routing::Drifted, Pointing::Partial) => {
                // Some visitors still come: it is not leaving.
                self.life.away = Some(Doubt { since_ms: now_ms, checks: CONFIRM_CHECKS });
            }
            (Routing::Drifted, Pointing::Elsewhere) => {
                let doubt = Doubt::seen_again(self.life.away, now_ms);
                self.life.away = Some(doubt);
                if now_ms - doubt.since_ms >= LEFT_AFTER_MS {
                    self.standing.routing = Routing::Left;
                    self.life.left_ms = Some(now_ms);
                    self.happened(Happening::Left);
                }
            }
            (Routing::Left, Pointing::Partial) => {
                self.standing.routing = Routing::Drifted;
                self.life.away = Some(Doubt { since_ms: now_ms, checks: CONFIRM_CHECKS });
                self.life.left_ms = None;
                self.happened(Happening::Drifted);
            }
            (Routing::Left, Pointing::Elsewhere) => {}
        }
    }

    /// A name goes when nobody has said for a week that it is theirs, and it has left or is not served; and only at a
    /// check that sees it so.
    fn release(&mut self, verdict: Verdict, now_ms: i64) {
        if verdict.proof != Proof::Absent || verdict.alias != Proof::Absent {
            return;
        }
        let past = |since: Option<i64>| since.is_some_and(|since| now_ms - since >= RELEASED_AFTER_MS);
        let unproven = self.standing.ownership == Ownership::Lapsed || self.life.proof_missed;
        let left = self.standing.routing == Routing::Left && past(self.life.left_ms) && unproven;
        let lapsed = self.standing.ownership == Ownership::Lapsed && past(self.life.lapsed_ms);
        if left || lapsed {
            self.happened(Happening::Released);
        }
    }

    fn schedule(&self, now_ms: i64, seed: u64) -> Option<i64> {
        let life = &self.life;
        let waited_ms = now_ms - life.waiting_since_ms;
        let pending = backed_off(life.checks);
        if life.unanswered > 0 {
            // Nothing was learnt: soon again, and then less and less; a claim still ends in its time.
            let expired = self.standing.ownership == Ownership::Unproven && waited_ms >= CLAIM_MS;
            let retry = CONFIRM_EVERY << (life.unanswered - 1).min(6);
            return (!expired).then(|| now_ms + retry.min(4 * HOUR));
        }
        let doubts = [life.no_proof, life.away];
        if doubts.iter().flatten().any(|doubt| !doubt.is_confirmed(now_ms)) {
            return Some(now_ms + CONFIRM_EVERY);
        }
        match (self.standing.ownership, self.standing.routing) {
            (Ownership::Unproven, _) if waited_ms >= CLAIM_MS => None,
            (Ownership::Unproven, _) => Some(now_ms + pending),
            // A site that stands still: as soon as it may be mended.
            (Ownership::Lapsed, _) | (Ownership::Proven, Routing::Drifted) => Some(now_ms + HOUR),
            (Ownership::Proven, Routing::Elsewhere | Routing::Partial) if waited_ms < CLAIM_MS => {
                Some(now_ms + pending)
            }
            (Ownership::Proven, Routing::Here) if life.proof_missed => Some(now_ms + HOUR),
            (Ownership::Proven, _) => Some(now_ms + daily(seed)),
        }
    }
}

/// Time to the next check of a domain that waits: a minute for the first ten, then 15 % more each time, at most 4 h.
fn backed_off(checks: u32) -> i64 {
    /// Exponents beyond this one are past 4 h already.
    const LAST: u32 = 60;
    let beyond = checks.saturating_sub(10).min(LAST);
    let mut wait = MINUTE;
    for _ in 0..beyond {
        wait = wait * 115 / 100;
    }
    wait.min(4 * HOUR)
}

/// A day, a tenth less or more.
fn daily(seed: u64) -> i64 {
    #[expect(clippy::cast_possible_wrap, reason = "below 2000")]
    let thousandths = 900 + (seed % 201) as i64;
    DAY_MS / 1_000 * thousandths
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const START: i64 = 1_700_000_000_000;
    const NEW: Standing = Standing { ownership: Ownership::Unproven, routing: Routing::Elsewhere };
    const WELL: Standing = Standing { ownership: Ownership::Proven, routing: Routing::Here };

    fn saw(proof: Proof, pointing: Pointing) -> Verdict {
        Verdict { proof, alias: Proof::Absent, pointing, other: Proof::Absent }
    }

    const GOOD: Verdict =
        Verdict { proof: Proof::Present, alias: Proof::Present, pointing: Pointing::Here, other: Proof::Absent };

    /// A domain under checks at the times that the schedule names.
    struct World {
        life: Life,
        standing: Standing,
        now_ms: i64,
        next_ms: Option<i64>,
        happened: Vec<Happening>,
    }

    impl World {
        fn at(standing: Standing) -> Self {
            Self { life: Life::default(), standing, now_ms: START, next_ms: Some(START), happened: Vec::new() }
        }

        fn check(&mut self, verdict: Verdict) -> &mut Self {
            self.now_ms = self.next_ms.expect("somebody looks");
            let step = self.life.step(self.standing, verdict, self.now_ms, 7);
            (self.life, self.standing, self.next_ms) = (step.life, step.standing, step.next_ms);
            self.happened.extend(step.happenings);
            self
        }

        /// Checks until `wanted` happened; gives the days it took.
        fn until(&mut self, verdict: Verdict, wanted: impl Fn(Happening) -> bool) -> f64 {
            let began = self.now_ms;
            for _ in 0..5_000 {
                self.check(verdict);
                if self.happened.iter().any(|happening| wanted(*happening)) {
                    #[expect(clippy::cast_precision_loss, reason = "a test's days")]
                    return (self.now_ms - began) as f64 / DAY_MS as f64;
                }
            }
            panic!("it never happened: {:?}", self.happened);
        }
    }

    #[test]
    fn a_domain_goes_from_nothing_to_here() {
        let mut world = World::at(NEW);
        world.check(saw(Proof::Absent, Pointing::Elsewhere));
        assert_eq!(world.next_ms, Some(world.now_ms + MINUTE));
        world.check(saw(Proof::Present, Pointing::Elsewhere)).check(saw(Proof::Present, Pointing::Partial));
        assert_eq!((world.standing.ownership, world.standing.routing), (Ownership::Proven, Routing::Partial));
        world.check(GOOD);
        assert_eq!(world.standing, WELL);
        assert_eq!(world.happened, [Happening::Proven, Happening::Here]);
        let day = world.next_ms.expect("again") - world.now_ms;
        assert!((DAY_MS * 9 / 10..=DAY_MS * 11 / 10).contains(&day), "{day}");
    }

    #[test]
    fn a_claim_is_looked_at_for_a_week_less_and_less_and_again_when_asked() {
        let mut world = World::at(NEW);
        let absent = saw(Proof::Absent, Pointing::Elsewhere);
        let days = world.until(absent, |happening| happening == Happening::ClaimExpired);
        assert!((7.0..7.2).contains(&days), "{days}");
        assert!((60..100).contains(&world.life.checks), "{} checks", world.life.checks);
        assert_eq!(world.next_ms, None);
        world.life = world.life.asked();
        world.next_ms = Some(world.now_ms + DAY_MS);
        world.check(absent);
        assert_eq!(world.next_ms, Some(world.now_ms + MINUTE));
    }

    #[test]
    fn a_site_that_moves_away_drifts_leaves_and_is_released_when_its_proof_has_gone_too() {
        let mut world = World::at(WELL);
        let away = saw(Proof::Present, Pointing::Elsewhere);
        assert!(world.until(away, |happening| happening == Happening::Drifted) < 0.05);
        let days = world.until(away, |happening| happening == Happening::Left);
        assert!((6.9..7.2).contains(&days), "{days}");
        for _ in 0..60 {
            world.check(away);
        }
        assert_eq!(world.standing.routing, Routing::Left, "whose TXT record stays keeps the name");
        let gone = saw(Proof::Absent, Pointing::Elsewhere);
        world.until(gone, |happening| happening == Happening::Released);
        assert_eq!(world.happened.last(), Some(&Happening::Released));
    }

    #[test]
    fn a_proof_that_goes_is_missed_for_a_week_while_the_site_is_served_and_then_lapses() {
        let mut world = World::at(WELL);
        let gone = saw(Proof::Absent, Pointing::Here);
        world.until(gone, |happening| matches!(happening, Happening::ProofMissing { .. }));
        assert_eq!(world.standing, WELL);
        let until = world.life.served_until_ms().expect("it is missing");
        world.until(gone, |happening| happening == Happening::Lapsed);
        assert!((0..2 * HOUR).contains(&(world.now_ms - until)));
        assert_eq!(world.standing.ownership, Ownership::Lapsed);
        let days = world.until(gone, |happening| happening == Happening::Released);
        assert!((7.0..7.2).contains(&days), "{days}");
    }

    #[test]
    fn a_proof_that_comes_back_heals_at_once() {
        let mut world = World::at(WELL);
        let gone = saw(Proof::Absent, Pointing::Here);
        world.until(gone, |happening| matches!(happening, Happening::ProofMissing { .. }));
        world.check(GOOD);
        assert_eq!(world.happened.last(), Some(&Happening::ProofBack));
        assert_eq!(world.life.served_until_ms(), None);
        world.until(gone, |happening| happening == Happening::Lapsed);
        world.check(saw(Proof::Present, Pointing::Here));
        assert_eq!(world.standing, WELL);
    }

    #[test]
    fn an_alias_of_the_domains_own_name_keeps_a_proof_and_does_not_begin_one() {
        let alias = Verdict { alias: Proof::Present, ..saw(Proof::Absent, Pointing::Here) };
        let mut world = World::at(WELL);
        for _ in 0..30 {
            world.check(alias);
        }
        assert_eq!((world.standing, world.happened.len()), (WELL, 0));
        let mut world = World::at(NEW);
        world.check(alias);
        assert_eq!(world.standing.ownership, Ownership::Unproven);
    }

    #[test]
    fn waits_grow_to_four_hours() {
        assert_eq!((backed_off(1), backed_off(10), backed_off(11)), (MINUTE, MINUTE, MINUTE * 115 / 100));
        assert_eq!((backed_off(60), backed_off(u32::MAX)), (4 * HOUR, 4 * HOUR));
    }

    fn proofs() -> impl Strategy<Value = Proof> {
        prop_oneof![Just(Proof::Present), Just(Proof::Absent), Just(Proof::Unknown)]
    }

    fn verdicts() -> impl Strategy<Value = Verdict> {
        let pointings = prop_oneof![
            Just(Pointing::Here),
            Just(Pointing::Partial),
            Just(Pointing::Elsewhere),
            Just(Pointing::Unknown)
        ];
        (proofs(), proofs(), pointings).prop_map(|(proof, alias, pointing)| Verdict {
            proof,
            alias,
            pointing,
            other: Proof::Absent,
        })
    }

    proptest! {
        #[test]
        fn no_answer_is_no_news(verdicts in prop::collection::vec(verdicts(), 0..40), silent in 1_usize..20) {
            let mut world = World::at(NEW);
            for verdict in verdicts {
                if world.next_ms.is_none() || world.happened.last() == Some(&Happening::Released) {
                    return Ok(());
                }
                world.check(verdict);
            }
            let (standing, happened) = (world.standing, world.happened.len());
            let nothing = Verdict { alias: Proof::Unknown, ..saw(Proof::Unknown, Pointing::Unknown) };
            for _ in 0..silent {
                if world.next_ms.is_none() {
                    return Ok(());
                }
                world.check(nothing);
            }
            prop_assert_eq!(world.standing, standing);
            prop_assert!(world.happened[happened..].iter().all(|h| *h == Happening::ClaimExpired));
        }

        #[test]
        fn one_or_two_bad_checks_change_nothing_that_works(bad in verdicts(), worse in verdicts()) {
            let mut world = World::at(WELL);
            world.check(GOOD).check(bad).check(worse);
            prop_assert_eq!(world.standing, WELL);
            prop_assert!(world.happened.is_empty());
        }

        #[test]
        fn the_next_check_is_within_a_day_and_a_tenth_and_good_news_always_heals(
            verdicts in prop::collection::vec(verdicts(), 1..120)
        ) {
            let mut world = World::at(NEW);
            for verdict in verdicts {
                world.check(verdict);
                if world.happened.last() == Some(&Happening::Released) {
                    return Ok(());
                }
                let Some(next) = world.next_ms else {
                    prop_assert_eq!(world.standing.ownership, Ownership::Unproven);
                    return Ok(());
                };
                prop_assert!(next > world.now_ms && next - world.now_ms <= DAY_MS * 11 / 10);
            }
            world.check(GOOD);
            prop_assert_eq!(world.standing, WELL);
        }

        #[test]
        fn a_domain_is_released_only_after_two_weeks_of_bad_news(
            verdicts in prop::collection::vec(verdicts(), 1..400)
        ) {
            let mut world = World::at(WELL);
            for verdict in verdicts {
                world.check(verdict);
                if world.happened.last() == Some(&Happening::Released) {
                    prop_assert!(world.now_ms - START >= 2 * LEFT_AFTER_MS);
                    return Ok(());
                }
            }
        }
    }
}
