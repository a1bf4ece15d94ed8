//! The internal issuer: a CA of this gateway's own, for names that no public CA can certify.
//!
//! Clients trust it when they are given `ca.pem`. It carries no name constraints: zones and suffixes are added at run
//! time, and a CA that has to be replaced for that would have to be trusted anew by every client. What limits it is
//! that its key is sealed on disk, and that it may sign no further CA.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use schoolgate_config::seal::{Keeper, SealError, SealedKey};
use schoolgate_config::time::Clock;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::authority::{CertificateAuthority, Issued, NotIssued};
use crate::key::LeafKey;

/// Life of the CA's own certificate, in seconds: 10 years.
const CA_LIFE_S: i64 = 3_650 * 86_400;

/// Life of a certificate, in seconds: 90 days, as public CAs do, so that renewal is exercised and not a surprise.
const LEAF_LIFE_S: i64 = 90 * 86_400;

/// A certificate is valid from this long ago, in seconds: 1 h, for clients whose clock is behind.
const BACKDATED_S: i64 = 3_600;

/// What the CA's key is sealed for; see [`schoolgate_config::seal`].
const KEY_PURPOSE: &str = "internal-ca";

/// Longest common name of a subject (RFC 5280, `ub-common-name`).
const LONGEST_COMMON_NAME: usize = 64;

/// Why the internal issuer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InternalError {
    /// A file of the CA.
    #[error("the internal CA's file {path} cannot be {action}")]
    File {
        /// Which.
        path: PathBuf,
        /// `read` or `written`.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// It does not hold what we wrote.
    #[error(
        "the internal CA's file {path} is damaged; restore it from a backup, or remove it to begin a new CA, which \
         every client then has to trust anew"
    )]
    Damaged {
        /// Which.
        path: PathBuf,
    },
    /// It was sealed under another key-encryption key.
    #[error("the internal CA's key in {path} does not open; restore the key file it was sealed under")]
    Sealed {
        /// Which.
        path: PathBuf,
        /// Why.
        source: SealError,
    },
    /// The library refused to make the CA's certificate.
    #[error("the internal CA's certificate cannot be made")]
    Make(#[source] rcgen::Error),
}

/// What the CA's one file holds: certificate and key together, so that a crash cannot part them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CaFile {
    certificate: String,
    key: SealedKey,
}

/// A CA in the data directory.
pub struct InternalAuthority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    certificate_pem: String,
    not_after: i64,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for InternalAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InternalAuthority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl InternalAuthority {
    /// Opens the CA in `key_file`, making one when there is none, and sees that `certificate_file` holds its
    /// certificate for clients to trust.
    ///
    /// # Errors
    /// [`InternalError`] names the file.
    pub fn open_or_create(
        key_file: &Path,
        certificate_file: &Path,
        keeper: &Keeper,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, InternalError> {
        let authority = match Self::open(key_file, keeper, clock.clone()) {
            Err(InternalError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Self::create(key_file, keeper, clock)?
            }
            other => other?,
        };
        authority.publish(certificate_file)?;
        Ok(authority)
    }

    /// Opens the CA in a file, and changes nothing.
    ///
    /// # Errors
    /// [`InternalError`] names the file.
    pub fn open(path: &Path, keeper: &Keeper, clock: Arc<dyn Clock>) -> Result<Self, InternalError> {
        let bytes =
            std::fs::read(path).map_err(|source| InternalError::File { path: path.into(), action: "read", source })?;
        let damaged = || InternalError::Damaged { path: path.into() };
        let file: CaFile = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        let certificate = CertificateDer::from_pem_slice(file.certificate.as_bytes()).map_err(|_| damaged())?;
        let not_after = {
            let (_, parsed) = x509_parser::parse_x509_certificate(&certificate).map_err(|_| damaged())?;
            parsed.validity().not_after.timestamp()
        };
        let key = keeper
            .open_key(KEY_PURPOSE, &subject(&certificate), &file.key)
            .map_err(|source| InternalError::Sealed { path: path.into(), source })?;
        let key = PrivatePkcs8KeyDer::from(key.as_slice());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P256_SHA256).map_err(|_| damaged())?;
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|_| damaged())?;
        Ok(Self { issuer, certificate, certificate_pem: file.certificate, not_after, clock })
    }

    /// The certificate that clients have to trust, in DER.
    pub const fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The end of the CA's own validity, seconds since 1970.
    pub const fn not_after(&self) -> i64 {
        self.not_after
    }

    /// Wraps the CA's key anew under the key-encryption key that seals now, if it is under another. Does nothing where
    /// there is no CA.
    ///
    /// # Errors
    /// [`InternalError`] names the file.
    pub fn rewrap(path: &Path, keeper: &Keeper) -> Result<(), InternalError> {
        let bytes = match std::fs::read(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other.map_err(|source| InternalError::File { path: path.into(), action: "read", source })?,
        };
        let damaged = || InternalError::Damaged { path: path.into() };
        let mut file: CaFile = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        let certificate = CertificateDer::from_pem_slice(file.certificate.as_bytes()).map_err(|_| damaged())?;
        let wrapped = keeper
            .rewrap(KEY_PURPOSE, &subject(&certificate), &file.key)
            .map_err(|source| InternalError::Sealed { path: path.into(), source })?;
        let Some(wrapped) = wrapped else { return Ok(()) };
        file.key = wrapped;
        let bytes = serde_json::to_vec_pretty(&file).expect("text and bytes are JSON");
        let written = write_beside(path, &bytes, 0o600).and_then(|beside| std::fs::rename(beside, path));
        written.map_err(|source| InternalError::File { path: path.into(), action: "written", source })
    }

    fn create(path: &Path, keeper: &Keeper, clock: Arc<dyn Clock>) -> Result<Self, InternalError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(InternalError::Make)?;
        let now = clock.unix_s();
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial());
        params.not_before = moment(now - BACKDATED_S);
        params.not_after = moment(now + CA_LIFE_S);
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationName, "Schoolgate");
        // Two gateways on one machine may both be trusted; their CAs must not share a name.
        let suffix = &hex::encode(serial().to_bytes())[..8];
        params.distinguished_name.push(DnType::CommonName, format!("Schoolgate local CA {suffix}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(InternalError::Make)?;

        let sealed = keeper.seal(KEY_PURPOSE, &subject(certificate.der()), key.serialized_der());
        let file = CaFile { certificate: certificate.pem(), key: sealed };
        let bytes = serde_json::to_vec_pretty(&file).expect("text and bytes are JSON");
        write_new(path, &bytes).map_err(|source| InternalError::File {
            path: path.into(),
            action: "written",
            source,
        })?;
        // Another process may have been first: what is on disk counts.
        Self::open(path, keeper, clock)
    }
    fn publish(&self, path: &Path) -> Result<(), InternalError> {
        if std::fs::read(path).is_ok_and(|found| found == self.certificate_pem.as_bytes()) {
            return Ok(());
        }
        replace(path, self.certificate_pem.as_bytes()).map_err(|source| InternalError::File {
            path: path.into(),
            action: "written",
            source,
        })
    }
}

#[async_trait]
impl CertificateAuthority for InternalAuthority {
    fn name(&self) -> &'static str {
        "internal"
    }

    async fn issue(&self, names: &[String], key: &LeafKey) -> Result<Issued, NotIssued> {
        let now = self.clock.unix_s();
        let not_before = now - BACKDATED_S;
        let not_after = (now + LEAF_LIFE_S).min(self.not_after);
        if not_after <= now {
            return Err(NotIssued {
                reason: "the internal CA has expired; remove its file to begin a new one".to_owned(),
            });
        }
        let mut params = CertificateParams::default();
        params.serial_number = Some(serial());
        params.not_before = moment(not_before);
        params.not_after = moment(not_after);
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = names.first().filter(|name| name.len() <= LONGEST_COMMON_NAME) {
            params.distinguished_name.push(DnType::CommonName, name.as_str());
        }
        for name in names {
            let name =
                name.as_str().try_into().map_err(|_| NotIssued { reason: format!("`{name}` is not a DNS name") })?;
            params.subject_alt_names.push(SanType::DnsName(name));
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params
            .signed_by(key.pair(), &self.issuer)
            .map_err(|e| NotIssued { reason: format!("the internal CA cannot sign: {e}") })?;
        Ok(Issued { chain: vec![certificate.der().to_vec()], not_before, not_after })
    }
}

/// What the CA's key is sealed together with: the certificate that belongs to it.
fn subject(certificate: &[u8]) -> String {
    schoolgate_config::model::Fingerprint::of(certificate).to_string()
}

/// A random serial number, 127 bits (RFC 5280 section 4.1.2.2: positive, at most 20 bytes).
fn serial() -> SerialNumber {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).expect("the system's random numbers are there");
    bytes[0] = bytes[0] & 0x7f | 0x40;
    SerialNumber::from_slice(&bytes)
}

fn moment(unix_s: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix_s).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Writes a file that only its owner can read, whole or not at all; one that is there stays.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = write_beside(path, bytes, 0o600)?;
    let linked = match std::fs::hard_link(&temporary, path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    };
    std::fs::remove_file(&temporary)?;
    linked
}

/// Replaces a file that everybody may read, whole or not at all.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    std::fs::rename(write_beside(path, bytes, 0o644)?, path)
}

fn write_beside(path: &Path, bytes: &[u8], mode: u32) -> io::Result<PathBuf> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(dir) = path.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let temporary = path.with_extension(format!("new-{}", schoolgate_config::time::new_ulid()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(temporary)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use schoolgate_config::time::{ManualClock, SystemClock};

    use super::*;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }
        fn key(&self) -> PathBuf {
            self.0.path().join("ca/ca.key.sealed")
        }
        fn pem(&self) -> PathBuf {
            self.0.path().join("ca.pem")
        }
        fn open(&self, kek: u8) -> Result<InternalAuthority, InternalError> {
            let keeper = Keeper::new(&[kek; 32]);
            InternalAuthority::open_or_create(&self.key(), &self.pem(), &keeper, Arc::new(SystemClock))
        }
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    async fn issue(ca: &InternalAuthority, wanted: &[&str]) -> Issued {
        ca.issue(&names(wanted), &LeafKey::generate()).await.unwrap()
    }

    #[tokio::test]
    async fn openssl_accepts_the_chain_for_the_name_and_for_no_other() {
        let place = Place::new();
        let issued = issue(&place.open(1).unwrap(), &["*.schools.test"]).await;
        let leaf = place.0.path().join("leaf.der");
        std::fs::write(&leaf, &issued.chain[0]).unwrap();
        let verify = |host: &str| {
            let output = Command::new("openssl")
                .args(["verify", "-x509_strict", "-purpose", "sslserver", "-verify_hostname", host, "-CAfile"])
                .arg(place.pem())
                .arg(&leaf)
                .output()
                .expect("openssl is installed (tests/run)");
            output.status.success()
        };
        assert!(verify("greenhill.schools.test"));
        assert!(!verify("schools.test"));
        assert!(!verify("a.greenhill.schools.test"));
    }

    #[tokio::test]
    async fn a_certificate_is_for_servers_for_ninety_days_and_begins_an_hour_ago() {
        let place = Place::new();
        let issued = issue(&place.open(1).unwrap(), &["a.test", "b.test"]).await;
        let (_, leaf) = x509_parser::parse_x509_certificate(&issued.chain[0]).unwrap();
        assert_eq!(leaf.validity().not_before.timestamp(), issued.not_before);
        assert_eq!(leaf.validity().not_after.timestamp(), issued.not_after);
        assert_eq!(issued.not_after - issued.not_before, LEAF_LIFE_S + BACKDATED_S);
        assert!(leaf.extended_key_usage().unwrap().unwrap().value.server_auth);
        assert!(!leaf.is_ca());
        let found = leaf.subject_alternative_name().unwrap().unwrap().value.general_names.len();
        assert_eq!(found, 2);
    }

    #[tokio::test]
    async fn no_two_certificates_share_a_serial_number() {
        let place = Place::new();
        let ca = place.open(1).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let issued = issue(&ca, &["a.test"]).await;
            let (_, leaf) = x509_parser::parse_x509_certificate(&issued.chain[0]).unwrap();
            assert!(seen.insert(leaf.raw_serial().to_vec()));
            assert!(leaf.raw_serial()[0] < 0x80 && leaf.raw_serial().len() == 16);
        }
    }

    #[tokio::test]
    async fn a_second_start_finds_the_same_ca_and_mends_the_public_file() {
        let place = Place::new();
        let first = place.open(1).unwrap().certificate().to_vec();
        std::fs::remove_file(place.pem()).unwrap();
        let second = place.open(1).unwrap();
        assert_eq!(second.certificate().to_vec(), first);
        assert!(std::fs::read_to_string(place.pem()).unwrap().contains("BEGIN CERTIFICATE"));
        let issued = issue(&second, &["a.test"]).await;
        let (_, ca) = x509_parser::parse_x509_certificate(&first).unwrap();
        let (_, leaf) = x509_parser::parse_x509_certificate(&issued.chain[0]).unwrap();
        assert_eq!(leaf.issuer(), ca.subject());
    }

    #[test]
    fn the_key_is_private_and_sealed() {
        use std::os::unix::fs::PermissionsExt;
        let place = Place::new();
        place.open(1).unwrap();
        assert_eq!(std::fs::metadata(place.key()).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(matches!(place.open(2), Err(InternalError::Sealed { .. })));
    }

    #[test]
    fn a_damaged_file_is_named_and_left_alone() {
        let place = Place::new();
        place.open(1).unwrap();
        std::fs::write(place.key(), "{").unwrap();
        let error = place.open(1).unwrap_err().to_string();
        assert!(error.contains("ca.key.sealed") && error.contains("restore"), "{error}");
        assert_eq!(std::fs::read(place.key()).unwrap(), b"{");
    }

    #[tokio::test]
    async fn no_certificate_outlives_the_ca() {
        let place = Place::new();
        let clock = Arc::new(ManualClock::at(1_800_000_000_000));
        let keeper = Keeper::new(&[1; 32]);
        let ca = InternalAuthority::open_or_create(&place.key(), &place.pem(), &keeper, clock.clone()).unwrap();
        clock.advance_ms((CA_LIFE_S - 10 * 86_400) * 1_000);
        assert_eq!(issue(&ca, &["a.test"]).await.not_after, ca.not_after());
        clock.advance_ms(11 * 86_400 * 1_000);
        let late = ca.issue(&names(&["a.test"]), &LeafKey::generate()).await;
        assert!(late.unwrap_err().reason.contains("expired"));
    }
}
