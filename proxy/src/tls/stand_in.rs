//! Certificates that nobody issued: for a name that waits for its own, and for an authority that looks whether a name is
//! here (RFC 8737).
//!
//! They are signed by their own key, which lives and dies with the process. Nothing trusts them, and nothing but the
//! challenge path and a page of ours is served under the first kind, nothing at all under the second.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use rcgen::{CertificateParams, CustomExtension, DistinguishedName, DnType, KeyPair};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::sign::{CertifiedKey, SigningKey};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

/// Certificates that are kept: 1,024, under 1 MiB. Making one costs a signature, as every handshake does, so when there
/// are more they are made again.
const KEPT: usize = 1_024;

/// How long one is valid, and made again after half of it: 7 days, in seconds. Some middle boxes look at it even where
/// nobody trusts it.
const VALID_S: i64 = 7 * 86_400;

/// What a stand-in is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// A name that waits for its certificate.
    Waiting,
    /// TLS-ALPN-01, with the SHA-256 of the key authorization.
    Challenge([u8; 32]),
}

/// Why there is no stand-in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StandInError {
    #[error(transparent)]
    Make(#[from] rcgen::Error),
    #[error(transparent)]
    Key(#[from] rustls::Error),
}

/// The key of all stand-ins, as the one that signs them and as rustls wants it.
struct OwnKey {
    pair: KeyPair,
    signing: Arc<dyn SigningKey>,
}

struct Kept {
    certified: Arc<CertifiedKey>,
    /// Seconds since 1970.
    made_at: i64,
}

/// Makes stand-ins, and keeps those that were asked for.
pub(crate) struct StandIns {
    key: OwnKey,
    kept: Mutex<HashMap<(Arc<str>, Purpose), Kept>>,
}

impl StandIns {
    /// With a key of its own.
    ///
    /// # Errors
    /// [`StandInError`] when the system has no random numbers.
    pub(crate) fn new() -> Result<Self, StandInError> {
        let pair = KeyPair::generate()?;
        let signing = any_supported_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der())))?;
        Ok(Self { key: OwnKey { pair, signing }, kept: Mutex::default() })
    }

    /// The stand-in for `name`, at `now` (seconds since 1970). No I/O; one signature if it was not made before.
    pub(crate) fn of(&self, name: &str, purpose: Purpose, now: i64) -> Result<Arc<CertifiedKey>, StandInError> {
        let key = (Arc::from(name), purpose);
        if let Some(kept) = self.kept().get(&key)
            && (kept.made_at..kept.made_at + VALID_S / 2).contains(&now)
        {
            return Ok(Arc::clone(&kept.certified));
        }
        // Made without the lock: two that ask at once make two, and one is kept.
        let certified = Arc::new(self.key.certify(&key.0, &key.1, now)?);
        let mut kept = self.kept();
        if kept.len() >= KEPT {
            kept.clear();
        }
        kept.insert(key, Kept { certified: Arc::clone(&certified), made_at: now });
        Ok(certified)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<(Arc<str>, Purpose), Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OwnKey {
    fn certify(&self, name: &str, purpose: &Purpose, now: i64) -> Result<CertifiedKey, StandInError> {
        let mut params = CertificateParams::new([name.to_owned()])?;
        let moment = |at: i64| OffsetDateTime::from_unix_timestamp(at).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        // Clocks of clients differ.
        (params.not_before, params.not_after) = (moment(now - 86_400), moment(now + VALID_S));
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, "Schoolgate, waiting for a certificate");
        params.distinguished_name = subject;
        if let Purpose::Challenge(digest) = purpose {
            params.custom_extensions.push(CustomExtension::new_acme_identifier(digest));
        }
        let leaf = params.self_signed(&self.pair)?;
        Ok(CertifiedKey::new(vec![leaf.der().clone()], Arc::clone(&self.signing)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_made_for_each_name_and_purpose_and_again_when_it_is_old() {
        let stand_ins = StandIns::new().expect("a key");
        let of = |name, purpose, now| stand_ins.of(name, purpose, now).expect("made").cert[0].clone();
        let first = of("a.example", Purpose::Waiting, 1_800_000_000);
        assert_eq!(of("a.example", Purpose::Waiting, 1_800_000_060), first);
        assert_ne!(of("a.example", Purpose::Waiting, 1_800_000_000 + VALID_S), first);
        assert_ne!(of("b.example", Purpose::Waiting, 1_800_000_000), first);
        let challenge = of("a.example", Purpose::Challenge([7; 32]), 1_800_000_000);
        assert_ne!(of("a.example", Purpose::Challenge([8; 32]), 1_800_000_000), challenge);
        // RFC 8737 section 3: critical, id-pe-acmeIdentifier, an OCTET STRING of 32 bytes in the extension's value.
        let identifier = [&[0x06, 8, 0x2b, 6, 1, 5, 5, 7, 1, 31, 1, 1, 0xff, 4, 34, 4, 32][..], &[7; 32]].concat();
        assert!(challenge.windows(identifier.len()).any(|window| window == identifier), "{challenge:?}");
    }

    #[test]
    fn their_number_is_bounded() {
        let stand_ins = StandIns::new().expect("a key");
        for number in 0..KEPT + 10 {
            stand_ins.of(&format!("{number}.example"), Purpose::Waiting, 1_800_000_000).expect("made");
        }
        assert!(stand_ins.kept().len() <= KEPT);
    }
}
