//! Metrics of certificates: read from the store, so that any control process tells what the one that orders did.

use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry};

use schoolgate_config::model::CaId;
use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_store::Store;
use schoolgate_store::acme::{AuthorityHealth, Bucket, QueueClass};

use crate::metrics::register;

/// Domains whose certificate's end is shown, those that end first: 100. All of them would be a series per school.
const ENDS_SHOWN: u32 = 100;

/// Buckets read: those of whole accounts come first, and only these have a series.
const BUCKETS_READ: u32 = 32;

/// What the store knows at a scrape.
#[derive(Debug, Default)]
pub(crate) struct AcmeFacts {
    now_ms: i64,
    totals: Vec<(CaId, String, u64)>,
    buckets: Vec<Bucket>,
    authorities: Vec<(CaId, AuthorityHealth)>,
    accounts: Vec<CaId>,
    depth: Vec<(QueueClass, u64, i64)>,
    ends: Vec<(String, i64)>,
}

impl AcmeFacts {
    /// Reads them. What cannot be read is missing, not wrong.
    pub(crate) async fn read(store: &Store) -> Self {
        let now_ms = SystemClock.unix_ms();
        Self {
            now_ms,
            totals: store.acme_totals().await.unwrap_or_default(),
            buckets: store.acme_buckets(BUCKETS_READ).await.unwrap_or_default(),
            authorities: store.acme_authorities().await.unwrap_or_default(),
            accounts: store
                .acme_credentials()
                .await
                .unwrap_or_default()
                .into_iter()
                .map(|account| account.ca)
                .collect(),
            depth: store.acme_queue_depth(now_ms).await.unwrap_or_default(),
            ends: store.certificates_ending(ENDS_SHOWN).await.unwrap_or_default(),
        }
    }
}

/// The metrics.
#[derive(Debug)]
pub(crate) struct AcmeMetrics {
    orders: IntCounterVec,
    budget: GaugeVec,
    left_alone: IntGaugeVec,
    depth: IntGaugeVec,
    oldest: GaugeVec,
    ends: GaugeVec,
}

impl AcmeMetrics {
    /// All of them, empty.
    pub(crate) fn new(registry: &Registry) -> Self {
        let gauge =
            |name: &str, help: &str, labels: &[&str]| register(registry, GaugeVec::new(Opts::new(name, help), labels));
        let whole = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntGaugeVec::new(Opts::new(name, help), labels))
        };
        let orders = Opts::new("schoolgate_acme_orders_total", "Orders that ended, since the store was made.");
        Self {
            orders: register(registry, IntCounterVec::new(orders, &["ca", "result"])),
            budget: gauge(
                "schoolgate_acme_budget_remaining",
                "Orders that a limit of the whole account still allows.",
                &["ca", "limit"],
            ),
            left_alone: whole("schoolgate_acme_breaker_open", "Whether a CA is left alone because it failed.", &["ca"]),
            depth: whole("schoolgate_acme_queue_depth", "Names that wait for a certificate.", &["class"]),
            oldest: gauge("schoolgate_acme_queue_oldest_seconds", "Wait of the name that waits longest.", &["class"]),
            ends: gauge(
                "schoolgate_certificate_expiry_seconds",
                "Time until a certificate ends, of those that end first; negative: it has ended.",
                &["domain"],
            ),
        }
    }

    /// Sets them to what the store knows.
    #[expect(clippy::cast_precision_loss, reason = "times in seconds")]
    pub(crate) fn set(&self, facts: &AcmeFacts) {
        let seconds = |ms: i64| ms as f64 / 1_000.0;
        // Counted in the store, over all processes and restarts.
        self.orders.reset();
        for (ca, result, count) in &facts.totals {
            self.orders.with_label_values(&[ca.as_str(), result]).inc_by(*count);
        }
        self.budget.reset();
        for bucket in facts.buckets.iter().filter(|bucket| bucket.subject.is_empty()) {
            let left = bucket.remaining(facts.now_ms).max(0.0);
            self.budget.with_label_values(&[bucket.ca.as_str(), &bucket.name]).set(left);
        }
        self.left_alone.reset();
        for ca in &facts.accounts {
            self.left_alone.with_label_values(&[ca.as_str()]).set(0);
        }
        for (ca, health) in &facts.authorities {
            self.left_alone.with_label_values(&[ca.as_str()]).set(i64::from(health.is_open()));
        }
        for class in QueueClass::ALL {
            let found = facts.depth.iter().find(|(of, ..)| *of == class);
            let count = found.map_or(0, |(_, count, _)| i64::try_from(*count).unwrap_or(i64::MAX));
            self.depth.with_label_values(&[class.as_str()]).set(count);
            let oldest = found.map_or(0.0, |(_, _, since)| seconds((facts.now_ms - since).max(0)));
            self.oldest.with_label_values(&[class.as_str()]).set(oldest);
        }
        self.ends.reset();
        for (name, end_ms) in &facts.ends {
            self.ends.with_label_values(&[name]).set(seconds(end_ms - facts.now_ms));
        }
    }
}
