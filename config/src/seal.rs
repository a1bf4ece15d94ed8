//! How a private key is kept and carried: sealed, under a key-encryption key that the database never sees.
//!
//! Envelope: every key has a data key of its own (ChaCha20-Poly1305, RFC 8439), and only that is sealed under the
//! key-encryption key. Rotating the latter rewraps 32 bytes per key. Purpose and subject (a fingerprint, a `kid`) are
//! authenticated, so a sealed key cannot be put in another's place.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::Zeroizing;

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
        /// The key this process has.
        have: String,
    },
    /// The file of the key-encryption key.
    #[error("the key file {path} cannot be {action}")]
    File {
        /// Which file.
        path: PathBuf,
        /// `read` or `written`.
        action: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// Not 64 hexadecimal digits.
    #[error(
        "the key file {path} is damaged: it must hold 64 hexadecimal digits; restore it from a backup, without it the sealed keys are lost"
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

/// The key-encryption key. Never printed, wiped when dropped.
pub struct Keeper {
    id: String,
    key: LessSafeKey,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keeper({})", self.id)
    }
}

impl Keeper {
    /// A keeper of this key-encryption key.
    pub fn new(kek: &[u8; KEY_LEN]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, kek);
        Self { id: hex::encode(&digest.as_ref()[..4]), key: aead_key(kek) }
    }

    /// Reads the key-encryption key from a file of 64 hexadecimal digits; makes one (mode 0600) when there is none.
    ///
    /// # Errors
    /// [`SealError::File`] and [`SealError::Damaged`] name the file.
    pub fn open_or_create(path: &Path) -> Result<Self, SealError> {
        match Self::open(path) {
            Err(SealError::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                let kek = random_key();
                let text = Zeroizing::new(format!("{}\n", hex::encode(kek.as_slice())));
                write_private(path, text.as_bytes()).map_err(|source| SealError::File {
                    path: path.into(),
                    action: "written",
                    source,
                })?;
                // Another process may have been first: what is on disk counts.
                Self::open(path)
            }
            other => other,
        }
    }

    /// Reads the key-encryption key from a file of 64 hexadecimal digits.
    ///
    /// # Errors
    /// [`SealError::File`] and [`SealError::Damaged`] name the file.
    pub fn open(path: &Path) -> Result<Self, SealError> {
        let text = Zeroizing::new(std::fs::read(path).map_err(|source| SealError::File {
            path: path.into(),
            action: "read",
            source,
        })?);
        let mut kek = Zeroizing::new([0; KEY_LEN]);
        hex::decode_to_slice(text.trim_ascii(), kek.as_mut_slice())
            .map_err(|_| SealError::Damaged { path: path.into() })?;
        Ok(Self::new(&kek))
    }

    /// Which key-encryption key this is: the first eight digits of its SHA-256.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Seals a private key for a purpose (such as `tls-certificate`) and a subject (such as a fingerprint).
    pub fn seal(&self, purpose: &str, subject: &str, private_key: &[u8]) -> SealedKey {
        let data_key = random_key();
        let aad = aad(purpose, subject);
        SealedKey {
            kek: self.id.clone(),
            wrapped: ByteBuf::from(seal_bytes(&self.key, &aad, data_key.as_slice())),
            sealed: ByteBuf::from(seal_bytes(&aead_key(&data_key), &aad, private_key)),
        }
    }

    /// Opens a sealed key. Purpose and subject must be those it was sealed for.
    ///
    /// # Errors
    /// [`SealError::DoesNotOpen`] without saying which part is wrong.
    pub fn open_key(&self, purpose: &str, subject: &str, sealed: &SealedKey) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let error = || SealError::DoesNotOpen { sealed_under: sealed.kek.clone(), have: self.id.clone() };
        let aad = aad(purpose, subject);
        let data_key = open_bytes(&self.key, &aad, &sealed.wrapped).ok_or_else(error)?;
        let data_key: &[u8; KEY_LEN] = data_key.as_slice().try_into().map_err(|_| error())?;
        open_bytes(&aead_key(data_key), &aad, &sealed.sealed).ok_or_else(error)
    }
}

/// Writes a file that only its owner can read, whole or not at all; does not replace one that is there.
///
/// # Errors
/// What the system says; a file that is already there is no error.
fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let temporary = path.with_extension(format!("new-{}", new_suffix()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| {
        match std::fs::hard_link(&temporary, path) {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    });
    std::fs::remove_file(&temporary)?;
    written
}

fn new_suffix() -> String {
    crate::time::new_ulid().to_string()
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
    fn nothing_prints_a_key() {
        let keeper = Keeper::new(&[7; 32]);
        let text = format!("{keeper:?} {:?}", keeper.seal("tls", "abc", b"secret"));
        assert!(!text.contains("secret") && !text.contains("0707"));
    }
}
