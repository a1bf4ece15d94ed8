//! How this node's limits are shared: what metrics, reports and people see.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use schoolgate_config::feed::{SharedLimits, SharingMode};

use super::bank::BankError;
use crate::limit::Limiter;
use crate::limit::gcra::WHOLE;

/// Kinds of errors, as [`BankError::kind`] names them.
const KINDS: [&str; 5] = ["refused", "untrusted", "unreachable", "timeout", "failed"];

/// How this node's limits are shared.
#[derive(Debug)]
pub struct Sharing {
    limiter: Arc<Limiter>,
    /// Proxies that share with us, as the control plane said last; we are one.
    live_nodes: AtomicU32,
    /// Whether there is a bank to lease from.
    banked: bool,
    /// Whether it answers.
    leasing: AtomicBool,
    slices: AtomicU64,
    granted: AtomicU64,
    errors: [AtomicU64; KINDS.len()],
    /// A bit for each kind of error that was told since it last answered. Behind a broken connection there is often
    /// another reason, such as a wrong password, and nobody wants the same one twice a second.
    told: AtomicU8,
    /// Milliseconds since 1970; 0: never.
    last_success_ms: AtomicI64,
    error: Mutex<Option<String>>,
}

impl Sharing {
    /// Of a node that has heard of no other.
    pub fn new(limiter: Arc<Limiter>, banked: bool) -> Self {
        Self {
            limiter,
            live_nodes: AtomicU32::new(1),
            banked,
            leasing: AtomicBool::new(false),
            slices: AtomicU64::new(0),
            granted: AtomicU64::new(0),
            errors: [const { AtomicU64::new(0) }; KINDS.len()],
            told: AtomicU8::new(0),
            last_success_ms: AtomicI64::new(0),
            error: Mutex::default(),
        }
    }

    /// Whose limits are shared.
    pub(crate) const fn limiter(&self) -> &Arc<Limiter> {
        &self.limiter
    }

    /// The control plane says how many proxies are live. Without it the last number holds.
    pub(crate) fn live_nodes_are(&self, nodes: u32) {
        let nodes = nodes.max(1);
        if self.live_nodes.swap(nodes, Relaxed) != nodes {
            tracing::info!(
                "{nodes} proxies share the limits: where nothing is leased, this one lets 1/{nodes} through"
            );
        }
        self.limiter.set_share(WHOLE / nodes);
    }

    /// Proxies that share, as was said last.
    pub(crate) fn live_nodes(&self) -> u32 {
        self.live_nodes.load(Relaxed)
    }

    /// The bank answered: so many slices, so many requests in them.
    pub(super) fn leased(&self, slices: u64, granted: u64, now_ms: i64) {
        self.slices.fetch_add(slices, Relaxed);
        self.granted.fetch_add(granted, Relaxed);
        self.last_success_ms.store(now_ms, Relaxed);
        if !self.leasing.swap(true, Relaxed) {
            self.set_error(None);
            self.told.store(0, Relaxed);
            tracing::info!("limits are shared through Redis");
        }
    }

    /// The bank did not answer.
    pub(super) fn failed(&self, error: &BankError) {
        let mut is_new = false;
        if let Some(at) = KINDS.iter().position(|kind| *kind == error.kind()) {
            self.errors[at].fetch_add(1, Relaxed);
            is_new = self.told.fetch_or(1 << at, Relaxed) & 1 << at == 0;
        }
        self.leasing.store(false, Relaxed);
        let text = error.to_string();
        self.set_error(Some(text.clone()));
        if is_new {
            let nodes = self.live_nodes();
            tracing::warn!(
                "limits are not shared through Redis, each of {nodes} proxies lets its part through: {text}"
            );
        }
    }

    fn set_error(&self, error: Option<String>) {
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// For a report.
    pub(crate) fn report(&self) -> SharedLimits {
        let last_success_ms = Some(self.last_success_ms.load(Relaxed)).filter(|at| *at > 0);
        let live_nodes = self.live_nodes();
        SharedLimits {
            mode: match (self.banked && self.leasing.load(Relaxed), live_nodes) {
                (true, _) => SharingMode::Redis,
                (false, 1) => SharingMode::Local,
                (false, _) => SharingMode::Share,
            },
            live_nodes,
            redis: self.banked,
            slices: self.slices.load(Relaxed),
            errors: self.errors.iter().map(|count| count.load(Relaxed)).sum(),
            last_success_ms,
            error: self.error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// As Prometheus reads it.
    pub(crate) fn metrics(&self) -> String {
        use std::fmt::Write;
        let mut out = String::new();
        let mut family = |name: &str, kind: &str, help: &str, lines: &[(&str, f64)]| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
            for (labels, value) in lines {
                let _ = writeln!(out, "{name}{labels} {value}");
            }
        };
        #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
        let number = |cell: &AtomicU64| cell.load(Relaxed) as f64;
        let share = f64::from(self.limiter.share()) / f64::from(WHOLE);
        family(
            "schoolgate_limit_share",
            "gauge",
            "Part of every rate that this node lets through without a lease.",
            &[("", share)],
        );
        family(
            "schoolgate_limit_nodes",
            "gauge",
            "Live proxies that share the limits, as last heard.",
            &[("", f64::from(self.live_nodes()))],
        );
        if !self.banked {
            return out;
        }
        let leasing = f64::from(u8::from(self.leasing.load(Relaxed)));
        family("schoolgate_redis_up", "gauge", "Whether limits are shared through Redis now.", &[("", leasing)]);
        family("schoolgate_limit_slices_total", "counter", "Slices asked of Redis.", &[("", number(&self.slices))]);
        family(
            "schoolgate_limit_granted_total",
            "counter",
            "Requests granted in slices.",
            &[("", number(&self.granted))],
        );
        let labels: Vec<String> = KINDS.iter().map(|kind| format!("{{kind=\"{kind}\"}}")).collect();
        let errors: Vec<(&str, f64)> =
            labels.iter().zip(&self.errors).map(|(label, count)| (label.as_str(), number(count))).collect();
        family("schoolgate_redis_errors_total", "counter", "Answers that Redis did not give.", &errors);
        let last = self.last_success_ms.load(Relaxed) as f64 / 1_000.0;
        family("schoolgate_redis_last_success_timestamp_seconds", "gauge", "When Redis last answered.", &[("", last)]);
        out
    }
}
