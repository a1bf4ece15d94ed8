//! Parsed certificates and keys in memory, by fingerprint, and the names they serve.
//!
//! A handshake asks for a name and must not wait, so the maps are in shards and swapped whole: readers see one state
//! or the next. Adding or removing a certificate copies the shards it is in, not what is held.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use schoolgate_config::model::{Certificate, Fingerprint};
use schoolgate_config::time::Clock;

use super::Certificates;

/// Different intermediates that are shared between chains: 4,096. They are never given back, so their number is
/// bounded; a public CA has a few dozen. Beyond it every chain keeps its own copy.
const SHARED_INTERMEDIATES: usize = 4_096;

/// Certificates between two pauses of [`Keyring::open_rest`]: 64, a millisecond.
const PAUSE_AFTER: usize = 64;

/// A certificate as it is handed in.
#[derive(Debug, Clone, Copy)]
pub struct Material<'a> {
    /// SHA-256 of the leaf.
    pub fingerprint: Fingerprint,
    /// Names it serves, lower case; a wildcard is written `*.zone`.
    pub names: &'a [String],
    /// Begin of its validity, seconds since 1970.
    pub not_before: i64,
    /// End of its validity, seconds since 1970.
    pub not_after: i64,
    /// DER, leaf first.
    pub chain: &'a [&'a [u8]],
    /// The private key, PKCS#8.
    pub key_pkcs8: &'a [u8],
}

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// There is no leaf.
    #[error("certificate {0} has no chain")]
    NoChain(Fingerprint),
    /// Not an RSA, ECDSA (P-256, P-384) or Ed25519 key in PKCS#8.
    #[error("the key of certificate {fingerprint} cannot be used")]
    Key {
        /// Which certificate.
        fingerprint: Fingerprint,
        /// What rustls said; it names no part of the key.
        source: rustls::Error,
    },
    /// The leaf is damaged, or made for another key.
    #[error("certificate {fingerprint} does not belong to its key")]
    Mismatch {
        /// Which certificate.
        fingerprint: Fingerprint,
        /// What rustls said.
        source: rustls::Error,
    },
}

/// Opens certificates that were put off. What it does must need no I/O: a handshake waits for it.
pub(crate) trait OpenLater: Send + Sync {
    /// The certificate with its key; `None` when it cannot be served.
    fn open(&self, certificate: &Certificate) -> Option<Arc<CertifiedKey>>;
}

/// One certificate in memory.
struct Entry {
    fingerprint: Fingerprint,
    /// Empty until it is wanted, if it was put off; `None` when it cannot be served.
    certified: OnceLock<Option<Arc<CertifiedKey>>>,
    later: Option<(Arc<Certificate>, Arc<dyn OpenLater>)>,
    names: Box<[Arc<str>]>,
    not_before: i64,
    not_after: i64,
    rank: Rank,
}

/// Which of several certificates of a name goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// It was issued for its names.
    Issued,
    /// Somebody brought it, and so wants it served while it is valid.
    Brought,
}

impl Rank {
    fn of(certificate: &Certificate) -> Self {
        if certificate.about.is_uploaded() { Self::Brought } else { Self::Issued }
    }
}

/// A certificate that is parsed, or put off, and not served yet.
pub struct Parsed(Arc<Entry>);

impl std::fmt::Debug for Parsed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Parsed({})", self.0.fingerprint)
    }
}

/// The certificates for one name: those that were brought before those that were issued, then latest expiry first. Nearly always one, so that one needs no list.
#[derive(Clone)]
enum Choice {
    One(Arc<Entry>),
    Several(Arc<[Arc<Entry>]>),
}

/// Parts of a map: 1,024. At 100,000 names each holds a hundred, so a change copies 8 KiB of pointers and a hundred
/// entries. A persistent hash map costs 500 bytes an entry at that size, measured; this costs 50.
const SHARDS: usize = 1_024;

/// A hash map whose copies share what has not changed since.
struct Shards<K, V> {
    hasher: RandomState,
    shards: Vec<Arc<HashMap<K, V, RandomState>>>,
}

/// One state of the keyring.
#[derive(Clone, Default)]
struct Held {
    by_name: Shards<Arc<str>, Choice>,
    by_fingerprint: Shards<Fingerprint, Arc<Entry>>,
}

/// All certificates that this process can serve.
pub struct Keyring {
    held: ArcSwap<Held>,
    /// Held by whoever changes `held`.
    writer: Mutex<()>,
    intermediates: Mutex<HashSet<&'static [u8]>>,
    clock: Arc<dyn Clock>,
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring({} certificates)", self.len())
    }
}

impl Keyring {
    /// An empty keyring; `clock` decides between certificates of one name.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { held: ArcSwap::default(), writer: Mutex::default(), intermediates: Mutex::default(), clock }
    }

    /// Parses a certificate without serving it yet. May be called from several threads at once.
    ///
    /// # Errors
    /// [`KeyringError`] when it cannot be served.
    pub fn parse(&self, material: &Material<'_>) -> Result<Parsed, KeyringError> {
        Ok(Parsed(Arc::new(Entry {
            fingerprint: material.fingerprint,
            certified: OnceLock::from(Some(self.certify(material)?)),
            later: None,
            names: material.names.iter().map(|name| Arc::from(name.as_str())).collect(),
            not_before: material.not_before,
            not_after: material.not_after,
            rank: Rank::Issued,
        })))
    }

    /// [`Keyring::parse`] for a certificate of the table: one that was brought goes before those that were issued.
    pub(crate) fn parse_as(&self, certificate: &Certificate, material: &Material<'_>) -> Result<Parsed, KeyringError> {
        let Parsed(mut entry) = self.parse(material)?;
        if let Some(entry) = Arc::get_mut(&mut entry) {
            entry.rank = Rank::of(certificate);
        }
        Ok(Parsed(entry))
    }

    /// A certificate that is opened by `with` when it is first wanted, or by [`Keyring::open_rest`]. Deriving the
    /// public half of 100,000 keys takes a second and a half, and a start must not wait for it.
    pub(crate) fn put_off(certificate: &Arc<Certificate>, with: &Arc<dyn OpenLater>) -> Parsed {
        let about = &certificate.about;
        Parsed(Arc::new(Entry {
            fingerprint: about.fingerprint,
            certified: OnceLock::new(),
            later: Some((Arc::clone(certificate), Arc::clone(with))),
            names: about.names.iter().map(|name| Arc::from(name.as_str())).collect(),
            not_before: about.not_before,
            not_after: about.not_after,
            rank: Rank::of(certificate),
        }))
    }

    /// Opens what was put off, and no longer holds what cannot be served. `pause` is called now and then.
    pub(crate) fn open_rest(&self, pause: impl Fn()) {
        let held = self.held.load_full();
        let mut unusable = Vec::new();
        for (number, entry) in held.by_fingerprint.values().filter(|entry| entry.later.is_some()).enumerate() {
            if entry.certified().is_none() {
                unusable.push(entry.fingerprint);
            }
            if number % PAUSE_AFTER == PAUSE_AFTER - 1 {
                pause();
            }
        }
        if !unusable.is_empty() {
            self.change([], &unusable);
        }
    }

    /// The certificate and its key as rustls wants them.
    ///
    /// # Errors
    /// As [`Keyring::parse`].
    pub(crate) fn certify(&self, material: &Material<'_>) -> Result<Arc<CertifiedKey>, KeyringError> {
        let fingerprint = material.fingerprint;
        let Some((leaf, above)) = material.chain.split_first() else { return Err(KeyringError::NoChain(fingerprint)) };
        let key = any_supported_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(material.key_pkcs8)))
            .map_err(|source| KeyringError::Key { fingerprint, source })?;
        let mut chain = Vec::with_capacity(material.chain.len());
        chain.push(CertificateDer::from(leaf.to_vec()));
        chain.extend(above.iter().map(|der| self.intermediate(der)));
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            // `Unknown`: a key that cannot tell its public half; none of ring's.
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(source) => return Err(KeyringError::Mismatch { fingerprint, source }),
        }
        Ok(Arc::new(certified))
    }

    /// Serves `add` and no longer `remove`, in one step. One that is held already is left as it is, one that is not
    /// held is not missed.
    pub fn change<'a>(&self, add: impl IntoIterator<Item = Parsed>, remove: impl IntoIterator<Item = &'a Fingerprint>) {
        let _one_writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = Held::clone(&self.held.load());
        for fingerprint in remove {
            next.take(fingerprint);
        }
        for Parsed(entry) in add {
            if next.by_fingerprint.get(&entry.fingerprint).is_none() {
                next.add(entry);
            }
        }
        self.held.store(Arc::new(next));
    }

    /// Parses a certificate and serves it.
    ///
    /// # Errors
    /// As [`Keyring::parse`].
    pub fn insert(&self, material: &Material<'_>) -> Result<(), KeyringError> {
        let parsed = self.parse(material)?;
        self.change([parsed], []);
        Ok(())
    }

    /// No longer serves a certificate.
    pub fn remove(&self, fingerprint: &Fingerprint) {
        self.change([], [fingerprint]);
    }

    /// An intermediate that chains share. rustls takes a chain as owned or `'static` bytes, nothing counted, so a
    /// shared one is leaked: half of the memory of 100,000 certificates, for a few KB that are never given back.
    fn intermediate(&self, der: &[u8]) -> CertificateDer<'static> {
        let mut shared = self.intermediates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = shared.get(der) {
            return CertificateDer::from(*known);
        }
        if shared.len() >= SHARED_INTERMEDIATES {
            return CertificateDer::from(der.to_vec());
        }
        let leaked: &'static [u8] = Box::leak(der.into());
        shared.insert(leaked);
        CertificateDer::from(leaked)
    }

    /// Whether a certificate is held.
    pub fn contains(&self, fingerprint: &Fingerprint) -> bool {
        self.held.load().by_fingerprint.get(fingerprint).is_some()
    }

    /// The certificates held.
    pub fn fingerprints(&self) -> Vec<Fingerprint> {
        self.held.load().by_fingerprint.keys().copied().collect()
    }

    /// How many certificates are held.
    pub fn len(&self) -> usize {
        self.held.load().by_fingerprint.len()
    }

    /// Whether none is held.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Certificates for Keyring {
    fn resolve(&self, sni: &str) -> Option<Arc<CertifiedKey>> {
        let held = self.held.load();
        let choice = held.by_name.get(sni).or_else(|| held.by_name.get(&*wildcard(sni)?))?;
        choice.pick(self.clock.as_ref())
    }
}

/// `*.zone` for `label.zone`: a wildcard covers one label (RFC 9525 section 6.3).
fn wildcard(name: &str) -> Option<String> {
    let (_, parent) = name.split_once('.')?;
    Some(format!("*.{parent}"))
}

impl Entry {
    /// As rustls wants it, opened now if it was put off.
    fn certified(&self) -> Option<Arc<CertifiedKey>> {
        let open = || self.later.as_ref().and_then(|(certificate, with)| with.open(certificate));
        self.certified.get_or_init(open).clone()
    }
}

impl Choice {
    /// The first that is valid; if none is, the one that has begun and lasts longest; if none has begun, the one that
    /// lasts longest. An expired one is better than none: a network in front may not mind, and a visitor can decide.
    fn pick(&self, clock: &dyn Clock) -> Option<Arc<CertifiedKey>> {
        match self {
            Self::One(entry) => entry.certified(),
            Self::Several(entries) => {
                let now = clock.unix_s();
                let mut valid = entries.iter().filter(|entry| (entry.not_before..entry.not_after).contains(&now));
                valid
                    .find_map(|entry| entry.certified())
                    .or_else(|| Self::latest(entries, now).find_map(|entry| entry.certified()))
            }
        }
    }

    /// Where none is valid: in the order in which they are better than nothing.
    fn latest(entries: &[Arc<Entry>], now: i64) -> impl Iterator<Item = &Arc<Entry>> {
        let mut entries: Vec<_> = entries.iter().collect();
        entries.sort_by_key(|entry| std::cmp::Reverse((entry.not_before <= now, entry.not_after)));
        entries.into_iter()
    }

    fn entries(&self) -> &[Arc<Entry>] {
        match self {
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Several(entries) => entries,
        }
    }

    /// `None` when nothing is left.
    fn of(mut entries: Vec<Arc<Entry>>) -> Option<Self> {
        entries
            .sort_by_key(|entry| std::cmp::Reverse((entry.rank, entry.not_after, entry.not_before, entry.fingerprint)));
        if entries.len() > 1 { Some(Self::Several(entries.into())) } else { entries.pop().map(Self::One) }
    }
}

impl<K, V> Default for Shards<K, V> {
    fn default() -> Self {
        Self { hasher: RandomState::default(), shards: vec![Arc::default(); SHARDS] }
    }
}

impl<K, V> Clone for Shards<K, V> {
    fn clone(&self) -> Self {
        Self { hasher: self.hasher.clone(), shards: self.shards.clone() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Shards<K, V> {
    fn index<Q: Hash + ?Sized>(&self, key: &Q) -> usize {
        // The high bits: the maps use the low ones. What is left of a u64 is less than SHARDS.
        (self.hasher.hash_one(key) >> (64 - SHARDS.trailing_zeros())) as usize
    }

    fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.shards[self.index(key)].get(key)
    }

    fn insert(&mut self, key: K, value: V) {
        let index = self.index(&key);
        Arc::make_mut(&mut self.shards[index]).insert(key, value);
    }

    fn remove<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let index = self.index(key);
        Arc::make_mut(&mut self.shards[index]).remove(key)
    }

    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.len()).sum()
    }

    fn keys(&self) -> impl Iterator<Item = &K> {
        self.shards.iter().flat_map(|shard| shard.keys())
    }

    fn values(&self) -> impl Iterator<Item = &V> {
        self.shards.iter().flat_map(|shard| shard.values())
    }
}

impl Held {
    fn add(&mut self, entry: Arc<Entry>) {
        for name in &entry.names {
            let mut entries = self.by_name.get(name).map(|choice| choice.entries().to_vec()).unwrap_or_default();
            entries.push(Arc::clone(&entry));
            if let Some(choice) = Choice::of(entries) {
                self.by_name.insert(Arc::clone(name), choice);
            }
        }
        self.by_fingerprint.insert(entry.fingerprint, entry);
    }

    fn take(&mut self, fingerprint: &Fingerprint) {
        let Some(gone) = self.by_fingerprint.remove(fingerprint) else { return };
        for name in &gone.names {
            let left = self.by_name.get(name).map(Choice::entries).unwrap_or_default();
            let left = left.iter().filter(|entry| entry.fingerprint != *fingerprint).cloned().collect();
            match Choice::of(left) {
                Some(choice) => self.by_name.insert(Arc::clone(name), choice),
                None => drop(self.by_name.remove(name)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use schoolgate_config::model::CertificateRef;
    use schoolgate_config::seal::Keeper;
    use schoolgate_config::time::ManualClock;

    use super::*;

    struct Made {
        leaf: Vec<u8>,
        key: Vec<u8>,
        names: Vec<String>,
    }

    fn made(names: &[&str]) -> Made {
        let key = KeyPair::generate().expect("a key");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let leaf = CertificateParams::new(names.clone()).expect("names").self_signed(&key).expect("a certificate");
        Made { leaf: leaf.der().to_vec(), key: key.serialize_der(), names }
    }

    /// A keyring whose clock stands at 1000 s.
    fn keyring() -> Keyring {
        Keyring::new(Arc::new(ManualClock::at(1_000_000)))
    }

    fn insert(keyring: &Keyring, made: &Made, not_before: i64, not_after: i64) -> Fingerprint {
        let fingerprint = Fingerprint::of(&made.leaf);
        let chain: &[&[u8]] = &[&made.leaf, b"an intermediate"];
        let material = Material { fingerprint, names: &made.names, not_before, not_after, chain, key_pkcs8: &made.key };
        keyring.insert(&material).expect("it can be served");
        fingerprint
    }

    fn served(keyring: &Keyring, name: &str) -> Option<Fingerprint> {
        keyring.resolve(name).map(|certified| Fingerprint::of(&certified.cert[0]))
    }

    #[test]
    fn an_exact_name_goes_before_a_wildcard_and_a_wildcard_covers_one_label() {
        let keyring = keyring();
        let wild = insert(&keyring, &made(&["*.zone.example"]), 0, 2_000);
        let exact = insert(&keyring, &made(&["a.zone.example", "b.example"]), 0, 2_000);
        assert_eq!(served(&keyring, "a.zone.example"), Some(exact));
        assert_eq!(served(&keyring, "b.example"), Some(exact));
        assert_eq!(served(&keyring, "b.zone.example"), Some(wild));
        assert_eq!(served(&keyring, "zone.example"), None);
        assert_eq!(served(&keyring, "a.b.zone.example"), None);
        assert_eq!(served(&keyring, ""), None);
    }

    #[test]
    fn of_several_the_usable_one_that_lasts_longest_serves_and_the_next_when_it_goes() {
        let keyring = keyring();
        let short = insert(&keyring, &made(&["a.example"]), 0, 2_000);
        let long = insert(&keyring, &made(&["a.example"]), 0, 3_000);
        let not_yet = insert(&keyring, &made(&["a.example"]), 1_001, 4_000);
        assert_eq!(served(&keyring, "a.example"), Some(long));
        keyring.remove(&long);
        assert_eq!(served(&keyring, "a.example"), Some(short));
        keyring.remove(&short);
        assert_eq!(served(&keyring, "a.example"), Some(not_yet));
        keyring.remove(&not_yet);
        assert_eq!(served(&keyring, "a.example"), None);
        assert!(keyring.is_empty());
    }

    #[test]
    fn one_that_was_brought_serves_while_it_is_valid_and_the_issued_one_stands_by() {
        let clock = Arc::new(ManualClock::at(1_000_000));
        let keyring = Keyring::new(clock.clone());
        let issued = insert(&keyring, &made(&["a.example"]), 0, 3_000);
        let brought = made(&["a.example"]);
        let (fingerprint, chain): (_, &[&[u8]]) = (Fingerprint::of(&brought.leaf), &[&brought.leaf]);
        let (names, key_pkcs8, not_before, not_after) = (&brought.names[..], &brought.key[..], 1_500, 2_000);
        let about = CertificateRef {
            fingerprint,
            names: brought.names.clone(),
            not_before,
            not_after,
            issuer: CertificateRef::UPLOADED.to_owned(),
        };
        let key = Keeper::new(&[7; 32]).seal(Certificate::KEY_PURPOSE, "", b"");
        let certificate = Certificate { about, chain: Vec::new(), key };
        let material = Material { fingerprint, names, not_before, not_after, chain, key_pkcs8 };
        keyring.change([keyring.parse_as(&certificate, &material).expect("it can be served")], []);
        for (at_s, expected) in [(1_000, issued), (1_500, fingerprint), (1_999, fingerprint), (2_000, issued)] {
            clock.advance_ms(at_s * 1_000 - clock.unix_ms());
            assert_eq!(served(&keyring, "a.example"), Some(expected), "at {at_s}");
        }
        // Both are over: the one that lasted longest.
        clock.advance_ms(4_000_000 - clock.unix_ms());
        assert_eq!(served(&keyring, "a.example"), Some(issued));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (one, other) = (made(&["a.example"]), made(&["a.example"]));
        let material = Material {
            fingerprint: Fingerprint::of(&one.leaf),
            names: &one.names,
            not_before: 0,
            not_after: 1,
            chain: &[&one.leaf],
            key_pkcs8: &other.key,
        };
        let keyring = keyring();
        assert!(matches!(keyring.parse(&material), Err(KeyringError::Mismatch { .. })));
        assert!(matches!(keyring.parse(&Material { chain: &[], ..material }), Err(KeyringError::NoChain(_))));
        let damaged = Material { key_pkcs8: b"no key", chain: &[&one.leaf], ..material };
        assert!(matches!(keyring.parse(&damaged), Err(KeyringError::Key { .. })));
    }

    /// Opens what it is asked for, with the key of another certificate.
    struct Opener {
        keyring: Keyring,
        made: Made,
        opened: std::sync::atomic::AtomicUsize,
    }

    impl OpenLater for Opener {
        fn open(&self, certificate: &Certificate) -> Option<Arc<CertifiedKey>> {
            self.opened.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let chain: &[&[u8]] = &[&self.made.leaf];
            let about = &certificate.about;
            let (names, key_pkcs8) = (&about.names[..], &self.made.key[..]);
            let (not_before, not_after) = (about.not_before, about.not_after);
            let material = Material { fingerprint: about.fingerprint, names, not_before, not_after, chain, key_pkcs8 };
            self.keyring.certify(&material).ok().filter(|_| about.names[0] != "broken.example")
        }
    }

    fn put_off(name: &str, number: u8, with: &Arc<dyn OpenLater>) -> (Fingerprint, Parsed) {
        let fingerprint = Fingerprint::of(&[number]);
        let names = vec![name.to_owned()];
        let about = CertificateRef {
            fingerprint,
            names,
            not_before: 0,
            not_after: 2_000 + i64::from(number),
            issuer: String::new(),
        };
        let keeper = Keeper::new(&[7; 32]);
        let key = keeper.seal(Certificate::KEY_PURPOSE, "", b"");
        let certificate = Certificate { about, chain: Vec::new(), key };
        (fingerprint, Keyring::put_off(&Arc::new(certificate), with))
    }

    #[test]
    fn one_that_was_put_off_is_opened_once_and_one_that_cannot_be_served_makes_way() {
        let opener = Arc::new(Opener { keyring: keyring(), made: made(&["a.example"]), opened: Default::default() });
        let with: Arc<dyn OpenLater> = opener.clone();
        let keyring = keyring();
        let older = insert(&keyring, &made(&["broken.example"]), 0, 2_000);
        let ((fine, first), (broken, second)) = (put_off("a.example", 1, &with), put_off("broken.example", 2, &with));
        keyring.change([first, second], []);
        let opened = || opener.opened.load(std::sync::atomic::Ordering::Relaxed);
        assert_eq!(opened(), 0);
        assert!(keyring.resolve("a.example").is_some() && keyring.resolve("a.example").is_some());
        assert_eq!(opened(), 1);
        // The newer one of this name cannot be opened: the older one serves.
        assert_eq!(served(&keyring, "broken.example"), Some(older));
        keyring.open_rest(|| {});
        assert_eq!(opened(), 2);
        assert!(keyring.contains(&fine) && !keyring.contains(&broken));
    }

    #[test]
    fn a_change_is_seen_whole_or_not_at_all() {
        let keyring = keyring();
        let (first, second) = (made(&["a.example", "b.example"]), made(&["a.example", "b.example"]));
        let mut now = insert(&keyring, &first, 0, 2_000);
        let mut seen = Vec::new();
        for made in [&second, &first, &second] {
            let next = Fingerprint::of(&made.leaf);
            let chain: &[&[u8]] = &[&made.leaf];
            let (names, key_pkcs8) = (&made.names[..], &made.key[..]);
            let material = Material { fingerprint: next, names, not_before: 0, not_after: 2_000, chain, key_pkcs8 };
            keyring.change([keyring.parse(&material).expect("it can be served")], [&now]);
            now = next;
            seen.push((served(&keyring, "a.example"), served(&keyring, "b.example"), keyring.len()));
        }
        assert!(seen.into_iter().all(|(a, b, count)| a.is_some() && a == b && count == 1));
    }
}
