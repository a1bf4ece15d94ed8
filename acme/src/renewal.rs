//! When a certificate of an ACME CA is renewed: what the CA suggests (RFC 9773), and what we do without it. Pure.

use std::time::Duration;

use schoolgate_store::acme::RenewalWindow;

use crate::directory::{Renewal, Suggestion};
use crate::due::spread_of;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// A life below this is renewed at half of it, a longer one when a third is left: 10 days.
const SHORT_LIFE_MS: i64 = 10 * DAY_MS;

/// Whatever a CA suggests, a certificate is renewed when this is left of it: 24 h.
const FLOOR_MS: i64 = DAY_MS;

/// Whatever a CA suggests, a certificate serves this long first: 6 h, or a tenth of its life. One that finds fault with
/// every certificate it makes would otherwise be asked for another without end.
const YOUNGEST_MS: i64 = 6 * HOUR_MS;

/// The CA is asked again after what it says, within these bounds: 1 h to 24 h.
const ASK_AGAIN: (i64, i64) = (HOUR_MS, DAY_MS);

/// Where it does not say when to ask again: 6 h.
const ASK_BY_DEFAULT_MS: i64 = 6 * HOUR_MS;

/// Where it suggests nothing: 24 h.
const NOTHING_MS: i64 = DAY_MS;

/// A CA that has no such service may have one some day; to look for it costs a write for each certificate: 7 days.
const NOT_OFFERED_MS: i64 = 7 * DAY_MS;

/// Life of a certificate, milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// Its begin.
    pub from_ms: i64,
    /// Its end.
    pub to_ms: i64,
}

impl Life {
    const fn length(self) -> i64 {
        self.to_ms - self.from_ms
    }

    /// When to renew where the CA suggests nothing: a third of the life left, a half of a short one, spread by name over
    /// five parts in a hundred.
    fn backstop(self, name: &str) -> i64 {
        let left = if self.length() < SHORT_LIFE_MS { self.length() / 2 } else { self.length() / 3 };
        let spread = (self.length() / 20).max(1);
        self.to_ms - left - spread / 2 + spread_of(name, spread)
    }

    /// The last moment to begin.
    fn floor(self) -> i64 {
        self.to_ms - FLOOR_MS.min(self.length() / 4)
    }
}

/// When to renew.
pub fn renew_at(name: &str, life: Life, window: Option<&RenewalWindow>) -> i64 {
    let suggested = |window: &RenewalWindow| window.chosen_ms.max(life.from_ms + YOUNGEST_MS.min(life.length() / 10));
    let wanted = window.map_or_else(|| life.backstop(name), suggested);
    wanted.min(life.floor())
}

/// What to make of a suggestion: a moment in its window, picked once, and kept while the window stays.
pub fn choose(before: Option<&RenewalWindow>, suggestion: &Suggestion, chance: f64) -> RenewalWindow {
    let Suggestion { start_ms, end_ms, explanation, .. } = suggestion.clone();
    let kept = before.filter(|b| (b.start_ms, b.end_ms) == (start_ms, end_ms)).map(|b| b.chosen_ms);
    let picked = || {
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a share of some weeks")]
        let offset = ((end_ms - start_ms).max(0) as f64 * chance.clamp(0.0, 1.0)) as i64;
        start_ms + offset
    };
    RenewalWindow { start_ms, end_ms, chosen_ms: kept.unwrap_or_else(picked), explanation }
}

/// When to ask the CA again.
pub fn ask_at(now_ms: i64, name: &str, said: &Renewal) -> i64 {
    let wait = match said {
        Renewal::Suggested(suggestion) => match suggestion.ask_again.unwrap_or(Duration::ZERO).as_millis() {
            0 => ASK_BY_DEFAULT_MS,
            said => i64::try_from(said).unwrap_or(i64::MAX).clamp(ASK_AGAIN.0, ASK_AGAIN.1),
        },
        Renewal::Nothing => NOTHING_MS,
        Renewal::NotOffered => NOT_OFFERED_MS,
    };
    // A tenth earlier or later by name, so that certificates issued together are not asked about together.
    now_ms + wait - wait / 20 + spread_of(name, wait / 10)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn suggestion(start_ms: i64, end_ms: i64) -> Suggestion {
        Suggestion { start_ms, end_ms, explanation: None, ask_again: None }
    }

    const NINETY: Life = Life { from_ms: 0, to_ms: 90 * DAY_MS };

    #[test]
    fn without_a_suggestion_a_third_is_left_or_half_of_a_short_life() {
        for name in ["a.example", "b.example", "*.c.example"] {
            let at = renew_at(name, NINETY, None);
            assert!((at - 60 * DAY_MS).abs() <= 90 * DAY_MS / 40, "{name}: {at}");
            let six_days = Life { from_ms: 0, to_ms: 160 * HOUR_MS };
            let at = renew_at(name, six_days, None);
            assert!((at - 80 * HOUR_MS).abs() <= 4 * HOUR_MS, "{name}: {at}");
        }
    }

    #[test]
    fn a_moment_is_picked_once_for_each_window() {
        let first = choose(None, &suggestion(1_000, 2_000), 0.25);
        assert_eq!(first.chosen_ms, 1_250);
        assert_eq!(choose(Some(&first), &suggestion(1_000, 2_000), 0.9), first);
        assert_eq!(choose(Some(&first), &suggestion(0, 500), 0.5).chosen_ms, 250, "the window has moved");
    }

    #[test]
    fn a_window_in_the_past_is_soon_and_one_after_the_end_is_not_believed() {
        let past = choose(None, &suggestion(-2 * DAY_MS, -DAY_MS), 0.5);
        assert_eq!(renew_at("a.example", NINETY, Some(&past)), 6 * HOUR_MS, "but not at once again and again");
        let late = choose(None, &suggestion(200 * DAY_MS, 201 * DAY_MS), 0.5);
        assert_eq!(renew_at("a.example", NINETY, Some(&late)), 89 * DAY_MS);
    }

    #[test]
    fn it_asks_again_when_told_but_neither_at_once_nor_never() {
        let ask = |seconds| {
            let suggestion = Suggestion { ask_again: Some(Duration::from_secs(seconds)), ..suggestion(0, 1) };
            ask_at(0, "a.example", &Renewal::Suggested(suggestion))
        };
        for (seconds, around) in [(1, HOUR_MS), (7_200, 2 * HOUR_MS), (u64::MAX, DAY_MS)] {
            assert!((ask(seconds) - around).abs() <= around / 10, "{seconds}");
        }
        let silent = ask_at(0, "a.example", &Renewal::Suggested(suggestion(0, 1)));
        assert!((silent - 6 * HOUR_MS).abs() <= HOUR_MS);
        assert!((ask_at(0, "a.example", &Renewal::Nothing) - DAY_MS).abs() <= DAY_MS / 10);
        assert!((ask_at(0, "a.example", &Renewal::NotOffered) - 7 * DAY_MS).abs() <= DAY_MS);
    }

    proptest! {
        #[test]
        fn a_certificate_is_always_renewed_before_its_end(
            life in 2_i64..400 * 24, start in -100_i64..600, length in 1_i64..100, chance in 0.0..1.0_f64,
        ) {
            let life = Life { from_ms: 0, to_ms: life * HOUR_MS };
            let window = choose(None, &suggestion(start * DAY_MS, (start + length) * DAY_MS), chance);
            for at in [renew_at("a.example", life, None), renew_at("a.example", life, Some(&window))] {
                prop_assert!(at < life.to_ms);
            }
        }
    }
}
