//! The loop that makes what the feed brings the table in service: fetch, verify, compile, open keys, write to disk,
//! swap, acknowledge.
//!
//! A refused revision changes nothing: it is reported, and everything is asked for instead, less and less often.
//! A certificate that cannot be opened or read is no reason to refuse: one school's broken upload must not hold back
//! the others' changes. It is left out, said aloud, and what it was to replace goes on serving.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use ring::signature::Ed25519KeyPair;
use rustls::sign::CertifiedKey;
use schoolgate_config::feed::FeedAnswer;
use schoolgate_config::model::{Certificate, ContextKey, ContextKeyState, Fingerprint, Revision};
use schoolgate_config::seal::Keeper;
use schoolgate_config::snapshot::{Delta, ObjectKey, Snapshot};
use schoolgate_config::table::{Live, RoutingTable, Violations};
use schoolgate_config::time::Clock;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::backoff::Backoff;
use super::last_good::{LastGood, LastGoodError, Opened, Stored};
use super::report::Standing;
use super::{FeedError, Signing, SigningKey, SnapshotFeed, chain};
use crate::observe::Observe;
use crate::tls::keyring::{KeyringError, OpenLater, Parsed};
use crate::tls::{Keyring, Material};

/// How long one question to the feed may wait for news: 20 s, below the minute after which middle boxes forget idle
/// connections.
const WAIT: Duration = Duration::from_secs(20);
/// The longest pause after the feed did not answer: 10 s, the longest a node lags behind a control process that is
/// back.
const LONGEST_UNANSWERED: Duration = Duration::from_secs(10);
/// The longest pause after a revision was refused: 2 minutes. Everything is asked for then, some 100 MB at 100,000
/// domains.
const LONGEST_REFUSED: Duration = Duration::from_secs(120);
/// "Nothing" before this was not waited for: 50 ms.
const AT_ONCE: Duration = Duration::from_millis(50);
/// Certificates one thread takes at a time when many are opened: 256, some milliseconds.
const BATCH: usize = 256;
/// From how many certificates on threads are worth starting, and a start does not wait for their keys: 512.
const MANY: usize = 512;
/// Pause between the keys that are opened after a start: 1 ms, as long as it takes to open those between two pauses, so
/// that a worker on the same core keeps half of it.
const PAUSE: Duration = Duration::from_millis(1);
/// Certificates that are named when they cannot be served: 3. A wrong key-encryption key fails every one, and a few
/// lines say as much as 100,000.
const NOTICES: usize = 3;

/// Why a revision was not adopted. The one before stays in service.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Seen when a store was restored from a backup; an operator must decide.
    #[error(
        "revision {new} is not newer than {serving}; if the control plane was restored from a backup, stop this proxy, move its last good directory away and start it"
    )]
    NotNewer {
        /// The revision offered.
        new: Revision,
        /// The revision in service.
        serving: Revision,
    },
    /// The publisher checks the same, so this is a bug or a damaged file.
    #[error("revision {new} does not hold together")]
    Invalid {
        /// The revision offered.
        new: Revision,
        /// What does not hold.
        source: Violations,
    },
    /// What is not on disk is not served: the node would come back older than it acknowledged.
    #[error("revision {new} could not be kept")]
    Persist {
        /// The revision offered.
        new: Revision,
        /// What the system refused.
        source: LastGoodError,
    },
}

impl AdoptError {
    fn revision(&self) -> Revision {
        match self {
            Self::NotNewer { new, .. } | Self::Invalid { new, .. } | Self::Persist { new, .. } => *new,
        }
    }
}

/// What adoption works on.
pub struct AdoptionParts<L: Live> {
    /// Makes what hangs on tenants and pools.
    pub live: L,
    /// The table in service.
    pub table: Arc<ArcSwap<RoutingTable<L>>>,
    /// The certificates in service.
    pub keyring: Arc<Keyring>,
    /// The context key in service.
    pub signing: Signing,
    /// Opens sealed keys.
    pub keeper: Arc<Keeper>,
    /// Where the last good state is kept.
    pub last_good: PathBuf,
    /// Counts.
    pub observe: Arc<Observe>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// Adopts revisions; the only writer of table, keyring and signing key.
pub struct Adoption<L: Live> {
    parts: AdoptionParts<L>,
    standing: Arc<Standing>,
    last_good: Mutex<LastGood>,
    compacting: Mutex<()>,
}

/// Certificates read and not served yet, and those that could not be.
#[derive(Default)]
struct Opening {
    parsed: Vec<Parsed>,
    unusable: Vec<Arc<Certificate>>,
    notices: Vec<String>,
}

impl<L: Live> Adoption<L> {
    /// Reads the last good state and puts it into service, or knows that there is none. Blocks: a second at 100,000
    /// domains.
    ///
    /// # Errors
    /// [`LastGoodError`] when the directory cannot be used at all.
    pub fn load(parts: AdoptionParts<L>) -> Result<Self, LastGoodError> {
        let begun = Instant::now();
        let now_ms = parts.clock.unix_ms();
        let Opened { keeper, stored, notices } = LastGood::open(&parts.last_good, now_ms)?;
        let adoption =
            Self { parts, standing: Arc::default(), last_good: Mutex::new(keeper), compacting: Mutex::default() };
        for notice in notices {
            // With a state loaded, it is a tail that a crash cut off; without one, somebody has to look.
            if stored.is_some() {
                warn!("{notice}");
            } else {
                error!("{notice}");
            }
            adoption.standing.notice(notice);
        }
        match stored {
            Some(stored) => adoption.restore(stored, now_ms)?,
            None => info!("there is no last good state in {}", adoption.parts.last_good.display()),
        }
        let table = adoption.parts.table.load();
        if table.revision() != Revision::NONE {
            info!(
                revision = table.revision().0,
                domains = table.domain_count(),
                "serving the last good revision {} from disk, read in {} ms",
                table.revision(),
                begun.elapsed().as_millis()
            );
        }
        drop(table);
        Ok(adoption)
    }

    /// What adoption has to say.
    pub fn standing(&self) -> Arc<Standing> {
        Arc::clone(&self.standing)
    }

    /// The revision in service.
    pub fn serving(&self) -> Revision {
        self.parts.table.load().revision()
    }

    fn restore(&self, stored: Stored, now_ms: i64) -> Result<(), LastGoodError> {
        let Stored { snapshot, deltas } = stored;
        let compiled = RoutingTable::from_snapshot(&snapshot, &self.parts.live, None);
        let table = compiled.and_then(|mut table| {
            for delta in &deltas {
                table = table.apply(delta, &self.parts.live)?;
            }
            Ok(table)
        });
        let table = match table {
            Ok(table) => table,
            Err(violations) => return self.set_aside(&violations.to_string(), now_ms),
        };
        // The table's own, whose chains share what they have in common.
        let certificates: Vec<Arc<Certificate>> = table.certificates().cloned().collect();
        if certificates.len() < MANY {
            self.serve(Arc::new(table), self.open_certificates(&certificates), Vec::new());
            return Ok(());
        }
        // The first request must not wait for the keys of all names: each is opened when its name is first asked for,
        // and the rest beside the requests.
        let later: Arc<dyn OpenLater> = Arc::new(self.opener());
        let parsed = certificates.iter().map(|certificate| Keyring::put_off(certificate, &later)).collect();
        self.serve(Arc::new(table), Opening { parsed, ..Opening::default() }, Vec::new());
        let keyring = Arc::clone(&self.parts.keyring);
        let rest = move || {
            let begun = Instant::now();
            keyring.open_rest(|| std::thread::sleep(PAUSE));
            debug!("the keys of {} certificates were opened in {} ms", keyring.len(), begun.elapsed().as_millis());
        };
        // Without a thread each is opened when it is wanted.
        let _ = std::thread::Builder::new().name("open-keys".to_owned()).spawn(rest);
        Ok(())
    }

    fn opener(&self) -> Opener {
        Opener {
            keeper: Arc::clone(&self.parts.keeper),
            keyring: Arc::downgrade(&self.parts.keyring),
            standing: Arc::clone(&self.standing),
            failed: AtomicUsize::new(0),
        }
    }

    fn set_aside(&self, why: &str, now_ms: i64) -> Result<(), LastGoodError> {
        let notice = self.last_good().set_aside(why, now_ms)?;
        error!("{notice}");
        self.standing.notice(notice);
        Ok(())
    }

    fn last_good(&self) -> std::sync::MutexGuard<'_, LastGood> {
        self.last_good.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adopts what the feed answered. Blocks: it compiles and writes to disk.
    ///
    /// # Errors
    /// [`AdoptError`] names the revision that was refused; of several deltas those before it are in service.
    pub fn adopt(&self, answer: FeedAnswer) -> Result<Revision, AdoptError> {
        let begun = Instant::now();
        let before = self.serving();
        let result = match answer {
            FeedAnswer::Nothing => Ok(()),
            FeedAnswer::Snapshot(snapshot) => self.adopt_snapshot(&snapshot),
            FeedAnswer::Deltas(deltas) => self.adopt_deltas(&deltas),
        };
        let serving = self.serving();
        if serving != before {
            self.parts.observe.adopted(begun.elapsed());
            debug!(revision = serving.0, "serving revision {serving}");
        }
        if let Err(error) = &result {
            let reason = chain(error);
            error!(revision = error.revision().0, serving = serving.0, "refused: {reason}");
            self.parts.observe.refused();
            self.standing.refused(error.revision(), reason);
        } else if serving != before {
            self.standing.adopted();
        }
        result.map(|()| serving)
    }

    fn adopt_snapshot(&self, snapshot: &Snapshot) -> Result<(), AdoptError> {
        let new = snapshot.revision;
        let before = self.parts.table.load_full();
        if new == before.revision() {
            return Ok(());
        }
        if new < before.revision() {
            return Err(AdoptError::NotNewer { new, serving: before.revision() });
        }
        let table = RoutingTable::from_snapshot(snapshot, &self.parts.live, Some(&before))
            .map_err(|source| AdoptError::Invalid { new, source })?;
        let lacking: Vec<Arc<Certificate>> =
            table.certificates().filter(|c| !self.parts.keyring.contains(&c.about.fingerprint)).cloned().collect();
        let opening = self.open_certificates(&lacking);
        let gone = self.parts.keyring.fingerprints().into_iter().filter(|f| table.certificate(f).is_none()).collect();
        // Locked until it is served: a compaction must not take the table before for what is on disk.
        let mut last_good = self.last_good();
        last_good.replace(snapshot).map_err(|source| AdoptError::Persist { new, source })?;
        self.serve(Arc::new(table), opening, gone);
        drop(last_good);
        retire(before);
        Ok(())
    }

    fn adopt_deltas(&self, deltas: &[Delta]) -> Result<(), AdoptError> {
        let before = self.parts.table.load_full();
        let mut table: Option<RoutingTable<L>> = None;
        let mut refused = None;
        let mut adopted = 0;
        for delta in deltas {
            match table.as_ref().unwrap_or(&before).apply(delta, &self.parts.live) {
                Ok(next) => {
                    table = Some(next);
                    adopted += 1;
                }
                Err(source) => {
                    refused = Some(AdoptError::Invalid { new: delta.to, source });
                    break;
                }
            }
        }
        if let Some(table) = table {
            let new = table.revision();
            let deltas = &deltas[..adopted];
            let mut touched: HashSet<Fingerprint> = HashSet::new();
            touched.extend(deltas.iter().flat_map(|delta| &delta.changes).filter_map(|change| match change.key() {
                ObjectKey::Certificate(fingerprint) => Some(fingerprint),
                _ => None,
            }));
            let (mut lacking, mut gone) = (Vec::new(), Vec::new());
            for fingerprint in touched {
                match table.certificate(&fingerprint) {
                    Some(certificate) if !self.parts.keyring.contains(&fingerprint) => {
                        lacking.push(certificate.clone())
                    }
                    Some(_) => {}
                    None => gone.push(fingerprint),
                }
            }
            let opening = self.open_certificates(&lacking);
            let mut last_good = self.last_good();
            let kept =
                if last_good.needs_base() { last_good.replace(&table.to_snapshot()) } else { last_good.append(deltas) };
            kept.map_err(|source| AdoptError::Persist { new, source })?;
            self.serve(Arc::new(table), opening, gone);
        }
        refused.map_or(Ok(()), Err)
    }

    /// Opens and parses certificates, in several threads when there are many.
    fn open_certificates(&self, certificates: &[Arc<Certificate>]) -> Opening {
        let mut opening = Opening::default();
        if certificates.len() < MANY {
            for certificate in certificates {
                self.open_certificate(certificate, &mut opening);
            }
            return opening;
        }
        let batches = Mutex::new(certificates.chunks(BATCH));
        let work = || {
            let mut opening = Opening::default();
            loop {
                let batch = batches.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some(batch) = batch else { return opening };
                for certificate in batch {
                    self.open_certificate(certificate, &mut opening);
                }
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
            opening = work();
            for other in others {
                if let Ok(mut other) = other.join() {
                    opening.parsed.append(&mut other.parsed);
                    opening.unusable.append(&mut other.unusable);
                    opening.notices.append(&mut other.notices);
                }
            }
        });
        opening
    }

    fn open_certificate(&self, certificate: &Arc<Certificate>, opening: &mut Opening) {
        match with_key(&self.parts.keeper, certificate, |material| self.parts.keyring.parse_as(certificate, material)) {
            Ok(parsed) => opening.parsed.push(parsed),
            Err(reason) => {
                if opening.notices.len() < NOTICES {
                    opening.notices.push(cannot_be_served(certificate, &reason));
                }
                opening.unusable.push(Arc::clone(certificate));
            }
        }
    }

    /// Puts a table into service with its certificates and signing key. Nothing can fail from here on.
    fn serve(&self, table: Arc<RoutingTable<L>>, opening: Opening, mut gone: Vec<Fingerprint>) {
        let Opening { parsed, unusable, notices } = opening;
        if !unusable.is_empty() {
            let unserved: HashSet<&str> = unusable.iter().flat_map(|c| &c.about.names).map(String::as_str).collect();
            let before = self.parts.table.load();
            gone.retain(|fingerprint| {
                !before
                    .certificate(fingerprint)
                    .is_some_and(|old| old.about.names.iter().any(|name| unserved.contains(name.as_str())))
            });
            for notice in notices {
                error!("{notice}");
                self.standing.notice(notice);
            }
        }
        self.renew_signing_key(&table);
        self.parts.keyring.change(parsed, &gone);
        self.parts.observe.serving(table.revision());
        self.parts.table.store(table);
    }

    /// Opens the active context key if it is another than the one in use.
    fn renew_signing_key(&self, table: &RoutingTable<L>) {
        // Of several active ones the one with the last name, so that all nodes agree.
        let active = table.context_keys().filter(|key| key.state == ContextKeyState::Active);
        let Some(active) = active.max_by(|a, b| a.id.cmp(&b.id)) else {
            self.parts.signing.store(None);
            return;
        };
        if self.parts.signing.load().as_ref().is_some_and(|signing| signing.id == active.id) {
            return;
        }
        let opened = self
            .parts
            .keeper
            .open_key(ContextKey::KEY_PURPOSE, active.id.as_str(), &active.private)
            .map_err(|error| chain(&error))
            .and_then(|pkcs8| Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8).map_err(|error| error.to_string()));
        match opened {
            Ok(pair) => self.parts.signing.store(Some(Arc::new(SigningKey { id: active.id.clone(), pair }))),
            Err(reason) => {
                let notice = format!("the context key {} cannot be used: {reason}", active.id);
                error!("{notice}");
                self.standing.notice(notice);
            }
        }
    }

    /// Writes the base anew when the journal has grown long. Blocks; requests and adoption go on beside it.
    pub fn compact(&self) {
        let Ok(_one_at_a_time) = self.compacting.try_lock() else { return };
        let (compaction, table) = {
            // Locked so that no delta comes between the table and the journal that begins after it.
            let mut last_good = self.last_good();
            if !last_good.is_outgrown() {
                return;
            }
            let table = self.parts.table.load_full();
            match last_good.begin_compaction(table.revision()) {
                Ok(compaction) => (compaction, table),
                Err(error) => return warn!("{}", chain(&error)),
            }
        };
        let begun = Instant::now();
        match compaction.run(&table.to_snapshot()) {
            Ok(()) => debug!("the last good state was compacted in {} ms", begun.elapsed().as_millis()),
            Err(error) => warn!("the last good state could not be compacted: {}", chain(&error)),
        }
    }
}

/// Opens a certificate's key and makes something of both.
fn with_key<T>(
    keeper: &Keeper,
    certificate: &Certificate,
    make: impl FnOnce(&Material<'_>) -> Result<T, KeyringError>,
) -> Result<T, String> {
    let about = &certificate.about;
    let key = keeper
        .open_key(Certificate::KEY_PURPOSE, &about.fingerprint.to_string(), &certificate.key)
        .map_err(|error| chain(&error))?;
    let chain_der: Vec<&[u8]> = certificate.chain.iter().map(|der| &**der).collect();
    let material = Material {
        fingerprint: about.fingerprint,
        names: &about.names,
        not_before: about.not_before,
        not_after: about.not_after,
        chain: &chain_der,
        key_pkcs8: &key,
    };
    make(&material).map_err(|error| chain(&error))
}

fn cannot_be_served(certificate: &Certificate, reason: &str) -> String {
    let about = &certificate.about;
    let name = about.names.first().map_or("no name", String::as_str);
    format!("the certificate {} for {name} cannot be served: {reason}", about.fingerprint)
}

/// Opens what was put off at the start.
struct Opener {
    keeper: Arc<Keeper>,
    /// It holds us.
    keyring: Weak<Keyring>,
    standing: Arc<Standing>,
    /// Certificates that could not be opened.
    failed: AtomicUsize,
}

impl OpenLater for Opener {
    fn open(&self, certificate: &Certificate) -> Option<Arc<CertifiedKey>> {
        let keyring = self.keyring.upgrade()?;
        match with_key(&self.keeper, certificate, |material| keyring.certify(material)) {
            Ok(certified) => Some(certified),
            Err(reason) => {
                if self.failed.fetch_add(1, Ordering::Relaxed) < NOTICES {
                    let notice = cannot_be_served(certificate, &reason);
                    error!("{notice}");
                    self.standing.notice(notice);
                }
                None
            }
        }
    }
}

/// Lets go of a table that shares nothing with its successor. A worker that happened to be the last to hold it would
/// spend tens of milliseconds of its requests' time on taking it apart.
fn retire<L: Live>(table: Arc<RoutingTable<L>>) {
    if table.tenant_count() < MANY {
        return;
    }
    let apart = move || {
        for _ in 0..60 {
            if Arc::strong_count(&table) == 1 {
                break;
            }
            std::thread::sleep(Duration::from_secs(1));
        }
        drop(table);
    };
    // Without a thread it is dropped here, which is no worse than not caring.
    let _ = std::thread::Builder::new().name("retire-table".to_owned()).spawn(apart);
}

/// Follows the feed until told to stop.
pub async fn run<L: Live>(adoption: Arc<Adoption<L>>, feed: Arc<dyn SnapshotFeed>, stop: CancellationToken) {
    let clock = Arc::clone(&adoption.parts.clock);
    let standing = adoption.standing();
    // A journal that was long when the process stopped is long still.
    let compacting = Arc::clone(&adoption);
    tokio::task::spawn_blocking(move || compacting.compact());
    let mut unanswered = Backoff::new(LONGEST_UNANSWERED);
    let mut refused = Backoff::new(LONGEST_REFUSED);
    let mut everything = false;
    loop {
        let asked = Instant::now();
        let after = if everything { Revision::NONE } else { adoption.serving() };
        let answer = tokio::select! {
            () = stop.cancelled() => return,
            answer = feed.next(after, WAIT) => answer,
        };
        let pause = match answer {
            Ok(answer) => {
                let offered = match &answer {
                    FeedAnswer::Nothing => None,
                    FeedAnswer::Deltas(deltas) => deltas.last().map(|delta| delta.to),
                    FeedAnswer::Snapshot(snapshot) => Some(snapshot.revision),
                };
                standing.answered(offered);
                adoption.parts.observe.offered(offered);
                if matches!(answer, FeedAnswer::Nothing) {
                    // Nothing comes after a wait. From a feed that does not wait it must not make us spin.
                    if asked.elapsed() < AT_ONCE {
                        Some(unanswered.next(fastrand::f64()))
                    } else {
                        unanswered.reset();
                        None
                    }
                } else {
                    unanswered.reset();
                    let before = adoption.serving();
                    let adopting = Arc::clone(&adoption);
                    let adopted = tokio::task::spawn_blocking(move || adopting.adopt(answer)).await;
                    let adopted = match adopted {
                        Ok(adopted) => adopted.is_ok(),
                        // A panic while adopting is a bug; the table in service is whole, since it is swapped last.
                        Err(_) => false,
                    };
                    let moved = adoption.serving() != before;
                    if moved {
                        let compacting = Arc::clone(&adoption);
                        tokio::task::spawn_blocking(move || compacting.compact());
                    }
                    // Deltas that do not fit are answered by asking for everything. What is refused as a whole is
                    // asked for again, in case it was mended.
                    everything = !adopted;
                    if adopted && moved {
                        refused.reset();
                        None
                    } else {
                        Some(refused.next(fastrand::f64()))
                    }
                }
            }
            Err(error) => {
                let text = chain(&error);
                if standing.unanswered(text.clone(), clock.unix_ms()) {
                    match adoption.serving() {
                        Revision::NONE => warn!("the feed does not answer, and there is nothing to serve yet: {text}"),
                        serving => warn!("the feed does not answer, revision {serving} stays in service: {text}"),
                    }
                }
                // Bytes that do not read as deltas may read as a snapshot.
                if matches!(error, FeedError::Malformed { .. }) {
                    everything = true;
                    Some(refused.next(fastrand::f64()))
                } else {
                    Some(unanswered.next(fastrand::f64()))
                }
            }
        };
        if let Some(pause) = pause {
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(pause) => {}
            }
        }
    }
}
