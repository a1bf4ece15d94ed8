//! The reconciler: names that want a certificate get one, and those that have one get the next in time.
//!
//! It takes no input: woken by a commit or at the next moment that something is due, it reads what is due, has it
//! issued, and writes what came of it under its lease. Names of an ACME CA are left to [`crate::orders`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use schoolgate_config::model::{Certificate, CertificateRef, Der, Fingerprint};
use schoolgate_config::seal::Keeper;
use schoolgate_config::time::Clock;
use schoolgate_store::{Actor, CertificateWant, Lease, Store, StoreError};
use serde_json::json;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tracing::{error, info, warn};

use crate::authority::CertificateAuthority;
use crate::due::{renew_at, retry_after};
use crate::key::LeafKey;
use crate::orders::Issuers;

/// Certificates written in one transaction. Large enough that a thousand new schools are a few commits; small enough
/// that an operator's write, which waits for it, waits some milliseconds.
const BATCH: u32 = 200;

/// The issuer that this worker is.
const OWN: &str = "internal";

/// Certificates made at the same time: making one is a tenth of a millisecond of computing, so a few tasks use what
/// cores there are without starving the control API.
const TASKS: usize = 2;

/// It looks at least this often, should the clock be set or a wake be lost.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Wait after the store could not be used.
const STORE_RETRY: Duration = Duration::from_secs(1);

/// What one look did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Certificates issued and written.
    pub issued: usize,
    /// Attempts that failed.
    pub failed: usize,
    /// Results thrown away: the want went, or another worker was first.
    pub late: usize,
    /// Names left to another issuer.
    pub assigned: usize,
}

/// Gives every wanted name its certificate.
#[derive(Clone)]
pub struct Worker {
    store: Store,
    authority: Arc<dyn CertificateAuthority>,
    keeper: Arc<Keeper>,
    clock: Arc<dyn Clock>,
    issuers: Issuers,
    /// Told when names were left to another issuer.
    assigned: Arc<Notify>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("authority", &self.authority.name()).finish_non_exhaustive()
    }
}

/// What an attempt for one want came to.
struct Attempt {
    want: CertificateWant,
    result: Result<Certificate, String>,
}

impl Worker {
    /// A worker on a store.
    pub fn new(
        store: Store,
        authority: Arc<dyn CertificateAuthority>,
        keeper: Arc<Keeper>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self { store, authority, keeper, clock, issuers: Issuers::internal(), assigned: Arc::default() }
    }

    /// With names that are left to an ACME CA, whose worker is told of them.
    #[must_use]
    pub fn sharing(self, issuers: Issuers, assigned: Arc<Notify>) -> Self {
        Self { issuers, assigned, ..self }
    }

    /// Works under a lease until dropped.
    pub async fn run(self, lease: Lease) {
        let mut committed = self.store.committed();
        let mut assigned = false;
        loop {
            // Seen before the look: a commit during it causes another one.
            committed.mark_unchanged();
            let looked = match assigned {
                true => self.step(&lease).await,
                false => self.assign(&lease).await,
            };
            let wait = match looked {
                Ok(_) if !assigned => {
                    assigned = true;
                    continue;
                }
                Ok(outcome) if outcome != Outcome::default() => continue,
                Ok(_) => self.until_next().await,
                Err(StoreError::LeaseLost { .. }) => return,
                Err(error) => {
                    error!(%error, "the certificate worker cannot use the store: {error}");
                    STORE_RETRY
                }
            };
            tokio::select! {
                changed = committed.changed() => if changed.is_err() {
                    // The store is closed: there is nothing to work on.
                    return;
                },
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Does what is due now, one batch of it.
    ///
    /// # Errors
    /// What the store said. Nothing is lost: what was issued and not written is issued again.
    pub async fn step(&self, lease: &Lease) -> Result<Outcome, StoreError> {
        let due = self.store.certificates_due(self.clock.unix_ms(), BATCH).await?;
        if due.is_empty() {
            return Ok(Outcome::default());
        }
        let (own, others): (Vec<_>, Vec<_>) = due.into_iter().partition(|want| self.issuers.of(&want.name) == OWN);
        if !others.is_empty() {
            let mut transaction = self.store.begin_under(lease, Actor::system("certificates")).await?;
            for want in &others {
                transaction.set_certificate_issuer(&want.name, self.issuers.of(&want.name)).await?;
            }
            transaction.finish().await?;
            self.assigned.notify_one();
        }
        let mut outcome = match own.is_empty() {
            true => Outcome::default(),
            false => {
                let attempts = self.attempt(own).await;
                self.write(lease, attempts).await?
            }
        };
        outcome.assigned = others.len();
        Ok(outcome)
    }

    /// Brings who makes which certificate in step with the settings, which may be others than at the last start. A name
    /// that changes hands is due at once; until it has its new certificate the old one serves.
    ///
    /// # Errors
    /// What the store said.
    pub async fn assign(&self, lease: &Lease) -> Result<Outcome, StoreError> {
        let mut outcome = Outcome::default();
        let mut after: Option<String> = None;
        loop {
            let page = self.store.certificate_issuers(after.as_deref(), BATCH).await?;
            let Some((last, _)) = page.last() else { return Ok(outcome) };
            after = Some(last.clone());
            let moved: Vec<_> = page
                .iter()
                .filter(|(name, issuer)| issuer.as_deref().unwrap_or(OWN) != self.issuers.of(name))
                .map(|(name, _)| name)
                .collect();
            if moved.is_empty() {
                continue;
            }
            let mut transaction = self.store.begin_under(lease, Actor::system("certificates")).await?;
            for name in &moved {
                transaction.set_certificate_issuer(name, self.issuers.of(name)).await?;
            }
            transaction.finish().await?;
            self.assigned.notify_one();
            outcome.assigned += moved.len();
        }
    }

    async fn until_next(&self) -> Duration {
        let next = self.store.next_certificate_due().await.ok().flatten();
        let now = self.clock.unix_ms();
        next.map_or(LOOK_EVERY, |at| Duration::from_millis(u64::try_from(at - now).unwrap_or(0)).min(LOOK_EVERY))
            .max(Duration::from_millis(10))
    }

    async fn attempt(&self, wants: Vec<CertificateWant>) -> Vec<Attempt> {
        let mut tasks = JoinSet::new();
        let share = wants.len().div_ceil(TASKS);
        for part in wants.chunks(share) {
            let (worker, part) = (self.clone(), part.to_vec());
            tasks.spawn(async move {
                let mut attempts = Vec::with_capacity(part.len());
                for want in part {
                    let result = worker.issue(&want.name).await;
                    attempts.push(Attempt { want, result });
                    // Computing without a pause would hold up what else runs on this thread.
                    tokio::task::yield_now().await;
                }
                attempts
            });
        }
        tasks.join_all().await.into_iter().flatten().collect()
    }

    async fn issue(&self, name: &str) -> Result<Certificate, String> {
        let key = LeafKey::generate();
        let names = vec![name.to_owned()];
        let issued = self.authority.issue(&names, &key).await.map_err(|e| e.to_string())?;
        let leaf = issued.chain.first().ok_or("the authority answered with an empty chain")?;
        let fingerprint = Fingerprint::of(leaf);
        let sealed = self.keeper.seal(Certificate::KEY_PURPOSE, &fingerprint.to_string(), key.pkcs8());
        let (not_before, not_after) = (issued.not_before, issued.not_after);
        let issuer = self.authority.name().to_owned();
        Ok(Certificate {
            about: CertificateRef { fingerprint, names, not_before, not_after, issuer },
            chain: issued.chain.into_iter().map(Der::from).collect(),
            key: sealed,
        })
    }

    async fn write(&self, lease: &Lease, attempts: Vec<Attempt>) -> Result<Outcome, StoreError> {
        let mut outcome = Outcome::default();
        let mut issued = Vec::new();
        let mut failed = Vec::new();
        let mut transaction = self.store.begin_under(lease, Actor::system("certificates")).await?;
        for Attempt { want, result } in attempts {
            let name = want.name.clone();
            let taken = match result {
                Ok(certificate) => {
                    let CertificateRef { not_before, not_after, .. } = certificate.about;
                    let renew_at_ms = renew_at(&name, not_before, not_after).saturating_mul(1_000);
                    let taken = transaction.certificate_issued(&want, certificate, renew_at_ms).await?;
                    if taken {
                        issued.push(name);
                    }
                    taken
                }
                Err(reason) => {
                    let wait = retry_after(&name, want.attempts + 1);
                    warn!(
                        certificate.name = %name, retry_s = wait.as_secs(),
                        "no certificate for {name}, next attempt in {} s: {reason}", wait.as_secs()
                    );
                    let next_ms = self.clock.unix_ms() + i64::try_from(wait.as_millis()).unwrap_or(i64::MAX / 2);
                    let taken = transaction.certificate_failed(&want, &reason, next_ms).await?;
                    if taken {
                        failed.push(name);
                    }
                    taken
                }
            };
            outcome.late += usize::from(!taken);
        }
        (outcome.issued, outcome.failed) = (issued.len(), failed.len());
        if issued.is_empty() && failed.is_empty() {
            transaction.rollback().await;
            return Ok(outcome);
        }
        let object = match (issued.as_slice(), failed.as_slice()) {
            ([name], []) | ([], [name]) => format!("certificate {name}"),
            _ => format!("certificates of {} names", issued.len() + failed.len()),
        };
        let action = if issued.is_empty() { "certificate.fail" } else { "certificate.issue" };
        let summary = json!({ "issued": shortened(&issued), "failed": shortened(&failed) });
        transaction.commit(action, &object, summary).await?;
        match issued.as_slice() {
            [] => {}
            [name] => info!(certificate.name = %name, "certificate issued for {name}"),
            names => info!(certificates = names.len(), "certificates issued for {} names", names.len()),
        }
        Ok(outcome)
    }
}

/// Names shown in one line of the audit; a batch of a thousand would fill a page.
const SHOWN: usize = 20;

fn shortened(names: &[String]) -> Vec<&str> {
    let rest = if names.len() > SHOWN { Some("…") } else { None };
    names.iter().take(SHOWN).map(String::as_str).chain(rest).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use async_trait::async_trait;
    use schoolgate_config::model::Zone;
    use schoolgate_config::time::ManualClock;
    use schoolgate_store::{OpenMode, WantState};

    use super::*;
    use crate::authority::{Issued, NotIssued};
    use crate::internal::InternalAuthority;

    const NOW_MS: i64 = 1_800_000_000_000;
    const DAY_MS: i64 = 86_400_000;

    struct World {
        store: Store,
        worker: Worker,
        clock: Arc<ManualClock>,
        keeper: Arc<Keeper>,
        lease: Lease,
        dir: tempfile::TempDir,
    }

    impl World {
        /// A store with these zones; each wants `*.zone`.
        async fn with_zones(zones: &[&str]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let clock = Arc::new(ManualClock::at(NOW_MS));
            let keeper = Arc::new(Keeper::new(&[3; 32]));
            let url = format!("sqlite://{}", dir.path().join("control.db").display());
            let store = Store::open_at(&url, OpenMode::Create, clock.clone()).await.unwrap();
            store.seed(zones.iter().map(|name| zone(name)).collect()).await.unwrap();
            let authority = InternalAuthority::open_or_create(
                &dir.path().join("ca"),
                &dir.path().join("pem"),
                &keeper,
                clock.clone(),
            )
            .unwrap();
            let worker = Worker::new(store.clone(), Arc::new(authority), keeper.clone(), clock.clone());
            let lease =
                store.take_lease("certificates", "test", Duration::from_secs(3_600 * 24 * 365)).await.unwrap().unwrap();
            Self { store, worker, clock, keeper, lease, dir }
        }

        async fn want(&self, name: &str) -> CertificateWant {
            self.store.certificate_want(name).await.unwrap().unwrap()
        }

        async fn certificates(&self) -> Vec<Certificate> {
            let page = self.store.list::<Certificate>(&Default::default()).await.unwrap();
            page.items.into_iter().map(|stored| stored.value).collect()
        }
    }

    fn zone(name: &str) -> Zone {
        serde_json::from_value(json!({ "name": name })).unwrap()
    }

    /// Refuses while told to.
    struct Moody {
        well: AtomicBool,
        inner: Arc<dyn CertificateAuthority>,
    }

    #[async_trait]
    impl CertificateAuthority for Moody {
        fn name(&self) -> &'static str {
            "moody"
        }
        async fn issue(&self, names: &[String], key: &LeafKey) -> Result<Issued, NotIssued> {
            if self.well.load(Ordering::SeqCst) {
                self.inner.issue(names, key).await
            } else {
                Err(NotIssued { reason: "not today".to_owned() })
            }
        }
    }

    #[tokio::test]
    async fn a_wanted_name_gets_a_certificate_whose_key_opens() {
        let world = World::with_zones(&["schools.test"]).await;
        assert_eq!(world.worker.step(&world.lease).await.unwrap().issued, 1);
        let certificate = &world.certificates().await[0];
        assert_eq!(certificate.about.names, ["*.schools.test"]);
        let subject = certificate.about.fingerprint.to_string();
        assert!(world.keeper.open_key(Certificate::KEY_PURPOSE, &subject, &certificate.key).is_ok());
        let want = world.want("*.schools.test").await;
        assert_eq!((want.state, want.fingerprint), (WantState::Issued, Some(certificate.about.fingerprint)));
        assert_eq!(world.worker.step(&world.lease).await.unwrap(), Outcome::default(), "nothing is left to do");
    }

    #[tokio::test]
    async fn a_certificate_is_replaced_when_two_thirds_of_its_life_are_over() {
        let world = World::with_zones(&["schools.test"]).await;
        world.worker.step(&world.lease).await.unwrap();
        let first = world.certificates().await[0].about.fingerprint;
        world.clock.advance_ms(50 * DAY_MS);
        assert_eq!(world.worker.step(&world.lease).await.unwrap(), Outcome::default());
        world.clock.advance_ms(12 * DAY_MS);
        assert_eq!(world.worker.step(&world.lease).await.unwrap().issued, 1);
        let now: Vec<_> = world.certificates().await.iter().map(|c| c.about.fingerprint).collect();
        assert!(now.len() == 1 && now[0] != first, "{now:?}");
    }

    #[tokio::test]
    async fn two_workers_do_not_both_issue_for_one_want() {
        let world = World::with_zones(&["schools.test"]).await;
        let due = world.store.certificates_due(NOW_MS, 10).await.unwrap();
        let attempts = world.worker.attempt(due.clone()).await;
        let others = world.worker.attempt(due).await;
        assert_eq!(
            world.worker.write(&world.lease, attempts).await.unwrap(),
            Outcome { issued: 1, ..Outcome::default() }
        );
        assert_eq!(world.worker.write(&world.lease, others).await.unwrap(), Outcome { late: 1, ..Outcome::default() });
        assert_eq!(world.certificates().await.len(), 1);
    }

    #[tokio::test]
    async fn a_failure_is_noted_and_tried_again_later() {
        let world = World::with_zones(&["schools.test"]).await;
        let moody = Arc::new(Moody { well: AtomicBool::new(false), inner: world.worker.authority.clone() });
        let worker = Worker::new(world.store.clone(), moody.clone(), world.keeper.clone(), world.clock.clone());
        assert_eq!(worker.step(&world.lease).await.unwrap().failed, 1);
        let want = world.want("*.schools.test").await;
        assert_eq!((want.state, want.attempts, want.error.as_deref()), (WantState::Failing, 1, Some("not today")));
        assert_eq!(worker.step(&world.lease).await.unwrap(), Outcome::default(), "it waits");
        moody.well.store(true, Ordering::SeqCst);
        world.clock.advance_ms(1_001);
        assert_eq!(worker.step(&world.lease).await.unwrap().issued, 1);
        assert_eq!(world.want("*.schools.test").await.attempts, 0);
    }

    #[tokio::test]
    async fn names_of_another_issuer_are_left_to_it_and_taken_back_when_the_settings_say_so() {
        let world = World::with_zones(&["schools.test", "schools.localhost"]).await;
        let localhost = vec![schoolgate_config::model::DomainName::parse("localhost").unwrap()];
        let sharing = world.worker.clone().sharing(Issuers::acme_but(localhost), Arc::default());
        let outcome = sharing.step(&world.lease).await.unwrap();
        assert_eq!((outcome.issued, outcome.assigned), (1, 1));
        assert_eq!(world.want("*.schools.test").await.state, WantState::Queued);
        assert_eq!(sharing.step(&world.lease).await.unwrap(), Outcome::default(), "it is no longer looked at here");
        assert_eq!(sharing.assign(&world.lease).await.unwrap().assigned, 0);
        assert_eq!(world.worker.assign(&world.lease).await.unwrap().assigned, 1);
        assert_eq!(world.worker.step(&world.lease).await.unwrap().issued, 1);
    }

    #[tokio::test]
    async fn who_has_lost_the_lease_writes_nothing() {
        let world = World::with_zones(&["schools.test"]).await;
        let due = world.store.certificates_due(NOW_MS, 10).await.unwrap();
        let attempts = world.worker.attempt(due).await;
        world.store.release_lease(&world.lease).await.unwrap();
        world.store.take_lease("certificates", "other", Duration::from_secs(30)).await.unwrap().unwrap();
        let why = world.worker.write(&world.lease, attempts).await;
        assert!(matches!(why, Err(StoreError::LeaseLost { .. })), "{why:?}");
        assert!(world.certificates().await.is_empty());
    }

    #[tokio::test]
    async fn many_names_are_done_in_batches() {
        let names: Vec<_> = (0..450).map(|n| format!("zone-{n}.test")).collect();
        let world = World::with_zones(&names.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let mut done = Vec::new();
        loop {
            let outcome = world.worker.step(&world.lease).await.unwrap();
            if outcome == Outcome::default() {
                break;
            }
            done.push(outcome.issued);
        }
        assert_eq!(done, [200, 200, 50]);
    }

    #[tokio::test]
    async fn a_commit_wakes_the_worker() {
        let world = World::with_zones(&["one.test"]).await;
        let task = tokio::spawn(world.worker.clone().run(world.lease.clone()));
        let mut committed = world.store.committed();
        let mut transaction = world.store.begin(Actor::system("test")).await.unwrap();
        transaction.insert(zone("two.test")).await.unwrap();
        transaction.commit("zone.create", "zone two.test", json!(null)).await.unwrap();
        while world.certificates().await.len() < 2 {
            tokio::time::timeout(Duration::from_secs(10), committed.changed()).await.unwrap().unwrap();
        }
        task.abort();
        assert!(world.dir.path().exists());
    }
}
