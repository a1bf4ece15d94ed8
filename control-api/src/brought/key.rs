//! The private key: any usual PEM to PKCS#8, and whose it is.

use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{PemObject, SectionKind};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use super::BroughtError;

/// The AlgorithmIdentifier of RSA keys (RFC 8017 appendix A.1), DER.
const RSA: &[u8] = &[0x30, 13, 6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0];
/// Of keys on P-256 (RFC 5480 section 2.1.1), DER.
const P256: &[u8] = &[0x30, 19, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7];
/// Of keys on P-384, DER.
const P384: &[u8] = &[0x30, 16, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1, 6, 5, 0x2b, 0x81, 4, 0, 0x22];

/// A key that proxies can sign with.
pub(super) struct Key {
    /// PKCS#8.
    pub(super) pkcs8: Zeroizing<Vec<u8>>,
    /// Its public half as in a certificate (SubjectPublicKeyInfo), DER.
    pub(super) public: Vec<u8>,
}

/// Reads a key in PKCS#8, PKCS#1 or SEC 1.
pub(super) fn read(pem: &str) -> Result<Key, BroughtError> {
    if pem.contains("ENCRYPTED") {
        return Err(BroughtError::EncryptedKey);
    }
    let mut found = None;
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()) {
        // What is wrong with the text is not said: it would be part of it.
        let (kind, der) = section.map_err(|_| BroughtError::Key)?;
        let der = Zeroizing::new(der);
        let ways: &[&[u8]] = match kind {
            SectionKind::PrivateKey => &[],
            SectionKind::RsaPrivateKey => &[RSA],
            SectionKind::EcPrivateKey => &[P256, P384],
            _ => continue,
        };
        if found.replace((der, ways)).is_some() {
            return Err(BroughtError::SeveralKeys);
        }
    }
    let (der, ways) = found.ok_or(BroughtError::NoKey)?;
    if ways.is_empty() {
        return usable(der).ok_or(BroughtError::Key);
    }
    ways.iter().find_map(|algorithm| usable(wrapped(&der, algorithm))).ok_or(BroughtError::Key)
}

/// The key, if the very code that signs in a proxy can sign with it.
fn usable(pkcs8: Zeroizing<Vec<u8>>) -> Option<Key> {
    let key = any_supported_type(&PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pkcs8.as_slice()))).ok()?;
    let public = key.public_key()?.as_ref().to_vec();
    Some(Key { pkcs8, public })
}

/// A key in the form of its own kind as PKCS#8 (RFC 5208 section 5).
fn wrapped(key: &[u8], algorithm: &[u8]) -> Zeroizing<Vec<u8>> {
    let version: &[u8] = &[2, 1, 0];
    let octets = Zeroizing::new([&der_head(4, key.len())[..], key].concat());
    let head = der_head(0x30, version.len() + algorithm.len() + octets.len());
    Zeroizing::new([&head[..], version, algorithm, octets.as_slice()].concat())
}

/// Tag and length of a DER value shorter than 64 KiB.
fn der_head(tag: u8, length: usize) -> Vec<u8> {
    let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    match length {
        0..=0x7f => vec![tag, low],
        0x80..=0xff => vec![tag, 0x81, low],
        _ => vec![tag, 0x82, high, low],
    }
}
