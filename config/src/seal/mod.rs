//! How a private key is kept and carried: sealed, under a key-encryption key that the database never sees.
//!
//! Envelope: every key has a data key of its own (ChaCha20-Poly1305, RFC 8439), and only that is sealed under the
//! key-encryption key. Rotating the latter rewraps 32 bytes per key. Purpose and subject (a fingerprint, a `kid`) are
//! authenticated, so a sealed key cannot be put in another's place. A fingerprint stands for the tenant too: no other
//! certificate has it, and no key but its own fits it.

pub mod key_file;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

use key_file::{Kek, Role};

/// Time between two looks at the key file because of keys that are not known: 1 s.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Bytes of a key-encryption key and of a data key.
const KEY_LEN: usize = 32;

/// Why a key cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// Another key-encryption key, other bytes, or a key put in another's place.
    #[error("a sealed key does not open: sealed under key {sealed_under}, this process has {have}, or it was changed")]
    DoesNotOpen {
        /// The key it was sealed under.
        sealed_under: String,
        /// The keys this process has.
        have: String,
    },
    /// The file of the key-encryption key.
    #[error("the key file {path} cannot be {action}")]
    File {
        /// Which file.
        path: PathBuf,
        /// `read`, `written` or `replaced`.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not what [`key_file`] says.
    #[error(
        "the key file {path} is damaged: it must hold a line of 64 hexadecimal digits (and, during a rotation, a second that ends in `next` or `previous`); restore it from a backup, without it the sealed keys are lost"
    )]
    Damaged {
        /// Which file.
        path: PathBuf,
    },
}

/// A private key that only the holder of the key-encryption key can read.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedKey {
    /// Which key-encryption key wraps it.
    kek: String,
    /// The data key: nonce, ciphertext, tag.
    wrapped: ByteBuf,
    /// The private key: nonce, ciphertext, tag.
    sealed: ByteBuf,
}

impl SealedKey {
    /// The identity of the key-encryption key it is under.
    pub fn kek_id(&self) -> &str {
        &self.kek
    }
}
impl fmt::Debug for SealedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedKey(under {})", self.kek)
    }
}

/// The key-encryption keys of a process: one seals, and while keys change another opens. Never printed.
///
/// They are wiped when they are dropped. What a cipher makes of one while it works, on the stack, is not in our hands.
pub struct Keeper {
    keks: RwLock<Arc<Vec<Kek>>>,
    source: Option<Source>,
}

/// Where keys were read from.
struct Source {
    path: PathBuf,
    /// When it was last looked at because a key was not known.
    looked: Mutex<Option<Instant>>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keeper({})", self.ids().join(", "))
    }
}

impl Keeper {
    /// A keeper of this key-encryption key.
    pub fn new(kek: &[u8; KEY_LEN]) -> Self {
        Self { keks: RwLock::new(Arc::new(vec![Kek::new(kek, Role::Current)])), source: None }
    }

    /// Reads the key-encryption keys from a file (see [`key_file`]); makes one with a new key (mode 0600) when there is
    /// none.
    ///
    /// # Errors
    /// [`SealError::File`] and [`SealError::Damaged`] name the file.
    pub fn open_or_create(path: &Path) -> Result<Self, SealError> {
        match Self::open(path) {
            Err(SealError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                key_file::create(path)?;
                Self::open(path)
            }
            other => other,
        }
    }

    /// Reads the key-encryption keys from a file (see [`key_file`]).
    ///
    /// # Errors
    /// [`SealError::File`] and [`SealError::Damaged`] name the file.
    pub fn open(path: &Path) -> Result<Self, SealError> {
        let keks = key_file::read(path)?;
        let source = Source { path: path.into(), looked: Mutex::default() };
        Ok(Self { keks: RwLock::new(Arc::new(keks)), source: Some(source) })
    }

    /// Reads the file again, so that a rotation that another process began is followed. What was read before stays if
    /// that fails.
    ///
    /// # Errors
    /// [`SealError::File`] and [`SealError::Damaged`] name the file.
    pub fn refresh(&self) -> Result<(), SealError> {
        if let Some(source) = &self.source {
            self.hold(key_file::read(&source.path)?);
        }
        Ok(())
    }

    /// The file the keys are from.
    pub fn path(&self) -> Option<&Path> {
        self.source.as_ref().map(|source| source.path.as_path())
    }

    fn hold(&self, keks: Vec<Kek>) {
        *self.keks.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keks);
    }

    fn keks(&self) -> Arc<Vec<Kek>> {
        Arc::clone(&self.keks.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn id_of(&self, role: Role) -> Option<String> {
        self.keks().iter().find(|kek| kek.role == role).map(|kek| kek.id.clone())
    }

    /// The key-encryption key that seals: the first eight digits of its SHA-256.
    pub fn id(&self) -> String {
        self.id_of(Role::Current).unwrap_or_default()
    }

    /// The key-encryption key that will seal when every process has it.
    pub fn next_id(&self) -> Option<String> {
        self.id_of(Role::Next)
    }

    /// The key-encryption key that sealed before, and opens until everything is wrapped anew.
    pub fn previous_id(&self) -> Option<String> {
        self.id_of(Role::Previous)
    }

    /// All key-encryption keys that open.
    pub fn ids(&self) -> Vec<String> {
        self.keks().iter().map(|kek| kek.id.clone()).collect()
    }

    /// Adds a new key to the file: the one that will seal when every process has it. Says `false`, and does nothing,
    /// while a rotation is under way.
    ///
    /// # Errors
    /// [`SealError::File`] and [`SealError::Damaged`] name the file.
    pub fn introduce(&self) -> Result<bool, SealError> {
        self.rewrite(key_file::introduce)
    }

    /// Lets the next key seal, and keeps the one before for opening. Says `false` when there is none.
    ///
    /// # Errors
    /// [`SealError::File`] and [`SealError::Damaged`] name the file.
    pub fn promote(&self) -> Result<bool, SealError> {
        self.rewrite(key_file::promote)
    }

    /// Forgets the key before for good: what is sealed under it never opens again. Says `false` when there is none.
    ///
    /// # Errors
    /// [`SealError::File`] and [`SealError::Damaged`] name the file.
    pub fn retire(&self) -> Result<bool, SealError> {
        self.rewrite(key_file::retire)
    }

    /// Whether this process can change the file, as a rotation does.
    ///
    /// # Errors
    /// [`SealError::File`] says what the system refuses.
    pub fn can_rotate(&self) -> Result<(), SealError> {
        self.source.as_ref().map_or(Ok(()), |source| key_file::can_be_replaced(&source.path))
    }

    fn rewrite(&self, change: impl Fn(&Path) -> Result<Option<Vec<Kek>>, SealError>) -> Result<bool, SealError> {
        let Some(source) = &self.source else { return Ok(false) };
        let Some(keks) = change(&source.path)? else { return Ok(false) };
        self.hold(keks);
        Ok(true)
    }

    /// What `with` makes of the key with this identity. One that is not known may have come to the file since it was
    /// read; it is looked at again, but not for every one of 100,000 keys that do not open.
    fn with_kek<T>(&self, id: &str, with: impl Fn(&Kek) -> Option<T>) -> Option<T> {
        let known = |keks: &[Kek]| keks.iter().find(|kek| kek.id == id).map(&with);
        if let Some(made) = known(&self.keks()) {
            return made;
        }
        let source = self.source.as_ref()?;
        {
            let mut looked = source.looked.lock().unwrap_or_else(PoisonError::into_inner);
            if looked.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
                return None;
            }
            *looked = Some(Instant::now());
        }
        self.refresh().ok()?;
        known(&self.keks())?
    }

    /// Seals a private key for a purpose (such as `tls-certificate`) and a subject (such as a fingerprint).
    pub fn seal(&self, purpose: &str, subject: &str, private_key: &[u8]) -> SealedKey {
        let data_key = random_key();
        let aad = aad(purpose, subject);
        let keks = self.keks();
        let kek = keks.iter().find(|kek| kek.role == Role::Current).expect("a keeper always has a key that seals");
        SealedKey {
            kek: kek.id.clone(),
            wrapped: ByteBuf::from(seal_bytes(&aead_key(&kek.bytes), &aad, data_key.as_slice())),
            sealed: ByteBuf::from(seal_bytes(&aead_key(&data_key), &aad, private_key)),
        }
    }

    /// The key for signing something (HMAC-SHA-256) that every process with the key-encryption key that seals makes alike
    /// and nobody else can: for what need not outlive that key, such as cookies.
    pub fn derive(&self, purpose: &str, subject: &str) -> hmac::Key {
        let keks = self.keks();
        let kek = keks.iter().find(|kek| kek.role == Role::Current).expect("a keeper always has a key that seals");
        let mut label = b"derived/".to_vec();
        label.extend(aad(purpose, subject));
        let root = hmac::Key::new(hmac::HMAC_SHA256, kek.bytes.as_slice());
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, &label).as_ref())
    }

    /// The same sealed key under the key-encryption key that seals now; `None` when it is already. Only the data key is
    /// wrapped anew, the private key is not opened.
    ///
    /// # Errors
    /// As [`Self::open_key`].
    pub fn rewrap(&self, purpose: &str, subject: &str, sealed: &SealedKey) -> Result<Option<SealedKey>, SealError> {
        let keks = self.keks();
        let kek = keks.iter().find(|kek| kek.role == Role::Current).expect("a keeper always has a key that seals");
        if sealed.kek == kek.id {
            return Ok(None);
        }
        let aad = aad(purpose, subject);
        let data_key = self.unwrap_data_key(&aad, sealed)?;
        let wrapped = ByteBuf::from(seal_bytes(&aead_key(&kek.bytes), &aad, &data_key));
        Ok(Some(SealedKey { kek: kek.id.clone(), wrapped, sealed: sealed.sealed.clone() }))
    }

    fn unwrap_data_key(&self, aad: &[u8], sealed: &SealedKey) -> Result<Zeroizing<Vec<u8>>, SealError> {
        self.with_kek(&sealed.kek, |kek| open_bytes(&aead_key(&kek.bytes), aad, &sealed.wrapped))
            .ok_or_else(|| self.does_not_open(sealed))
    }

    fn does_not_open(&self, sealed: &SealedKey) -> SealError {
        SealError::DoesNotOpen { sealed_under: sealed.kek.clone(), have: self.ids().join(" and ") }
    }

    /// Opens a sealed key. Purpose and subject must be those it was sealed for.
    ///
    /// # Errors
    /// [`SealError::DoesNotOpen`] without saying which part is wrong.
    pub fn open_key(&self, purpose: &str, subject: &str, sealed: &SealedKey) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let error = || self.does_not_open(sealed);
        let aad = aad(purpose, subject);
        let data_key = self.unwrap_data_key(&aad, sealed)?;
        let data_key: &[u8; KEY_LEN] = data_key.as_slice().try_into().map_err(|_| error())?;
        open_bytes(&aead_key(data_key), &aad, &sealed.sealed).ok_or_else(error)
    }
}

fn random_key() -> Zeroizing<[u8; KEY_LEN]> {
    let mut key = Zeroizing::new([0; KEY_LEN]);
    SystemRandom::new().fill(key.as_mut_slice()).expect("the system's random numbers are there");
    key
}

fn aead_key(key: &[u8; KEY_LEN]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("the key has the algorithm's length"))
}

fn aad(purpose: &str, subject: &str) -> Vec<u8> {
    // The length keeps ("ab", "c") and ("a", "bc") apart.
    format!("schoolgate/1/{}/{purpose}/{subject}", purpose.len()).into_bytes()
}

fn seal_bytes(key: &LessSafeKey, aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let mut nonce = [0; NONCE_LEN];
    SystemRandom::new().fill(&mut nonce).expect("the system's random numbers are there");
    let mut body = Zeroizing::new(plain.to_vec());
    let tag = key
        .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut body)
        .expect("a key is far below the algorithm's limit");
    [nonce.as_slice(), &body, tag.as_ref()].concat()
}

fn open_bytes(key: &LessSafeKey, aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut body = Zeroizing::new(body.to_vec());
    let length = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut body).ok()?.len();
    body.truncate(length);
    Some(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_key_opens_for_its_purpose_and_subject_only() {
        let keeper = Keeper::new(&[7; 32]);
        let sealed = keeper.seal("tls", "abc", b"secret");
        assert_eq!(keeper.open_key("tls", "abc", &sealed).expect("opens").as_slice(), b"secret");
        assert!(keeper.open_key("tls", "abd", &sealed).is_err());
        assert!(keeper.open_key("jwt", "abc", &sealed).is_err());
        assert!(Keeper::new(&[8; 32]).open_key("tls", "abc", &sealed).is_err());
    }

    #[test]
    fn derived_keys_are_alike_everywhere_and_differ_by_purpose_subject_and_keeper() {
        let signed = |kek: u8, purpose: &str, subject: &str| {
            hmac::sign(&Keeper::new(&[kek; 32]).derive(purpose, subject), b"x").as_ref().to_vec()
        };
        assert_eq!(signed(7, "cookie", "a"), signed(7, "cookie", "a"));
        for (kek, purpose, subject) in [(8, "cookie", "a"), (7, "cookies", "a"), (7, "cookie", "b"), (7, "cooki", "ea")]
        {
            assert_ne!(signed(7, "cookie", "a"), signed(kek, purpose, subject));
        }
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let keeper = Keeper::new(&[7; 32]);
        let mut sealed = keeper.seal("tls", "abc", b"secret");
        let last = sealed.sealed.len() - 1;
        sealed.sealed[last] ^= 1;
        assert!(keeper.open_key("tls", "abc", &sealed).is_err());
    }

    #[test]
    fn the_key_file_is_made_once_and_private() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("keys/kek");
        let first = Keeper::open_or_create(&path).expect("made");
        let second = Keeper::open_or_create(&path).expect("read");
        assert_eq!(first.id(), second.id());
        assert_eq!(std::fs::metadata(&path).expect("is there").permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "xyz").expect("written");
        assert!(matches!(Keeper::open_or_create(&path), Err(SealError::Damaged { .. })));
    }

    #[test]
    fn what_was_sealed_opens_all_through_a_rotation_and_the_old_key_opens_nothing_after_it() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("kek");
        let control = Keeper::open_or_create(&path).expect("made");
        let proxy = Keeper::open(&path).expect("read");
        let old_file = std::fs::read(&path).expect("read");
        let opens = |keeper: &Keeper, sealed| keeper.open_key("tls", "abc", sealed).is_ok();
        let sealed = control.seal("tls", "abc", b"secret");
        assert!(control.rewrap("tls", "abc", &sealed).expect("opens").is_none(), "it is under the key that seals");

        assert!(control.introduce().expect("written"));
        assert!(!control.introduce().expect("read"), "one rotation at a time");
        assert_eq!(control.seal("tls", "abc", b"secret").kek_id(), sealed.kek_id(), "nobody may have the next one yet");
        assert!(control.promote().expect("written"));
        assert_eq!(control.previous_id().as_deref(), Some(sealed.kek_id()));
        let fresh = control.seal("tls", "abc", b"secret");
        assert_ne!(fresh.kek_id(), sealed.kek_id());
        // A proxy learns of the new key when it meets it.
        assert!(opens(&proxy, &fresh) && opens(&proxy, &sealed) && opens(&control, &sealed));
        let wrapped = control.rewrap("tls", "abc", &sealed).expect("opens").expect("under the old key");
        assert_eq!((wrapped.kek_id(), &wrapped.sealed), (fresh.kek_id(), &sealed.sealed));
        assert!(opens(&proxy, &wrapped));
        assert!(control.rewrap("tls", "abd", &sealed).is_err(), "the subject is bound to the data key too");

        assert!(control.retire().expect("written"));
        proxy.refresh().expect("read");
        for keeper in [&control, &proxy] {
            assert!(opens(keeper, &wrapped) && !opens(keeper, &sealed));
        }
        std::fs::write(&path, old_file).expect("written");
        assert!(!opens(&Keeper::open(&path).expect("read"), &wrapped), "a backup of the old file opens nothing");
    }

    #[test]
    fn nothing_prints_a_key() {
        let keeper = Keeper::new(&[7; 32]);
        let text = format!("{keeper:?} {:?}", keeper.seal("tls", "abc", b"secret"));
        assert!(!text.contains("secret") && !text.contains("0707"));
    }
}
