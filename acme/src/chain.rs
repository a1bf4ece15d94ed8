//! Whether what a CA gave us is what we asked for.

use std::collections::BTreeSet;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::authority::Issued;
use crate::key::LeafKey;

/// Most certificates of a chain: 10. Public chains have two to four.
const LONGEST: usize = 10;

/// Why a certificate is not taken into service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It does not read.
    #[error("the chain does not read: {0}")]
    Unreadable(String),
    /// It is for other names.
    #[error("it is for {found}, not for {asked}")]
    Names {
        /// What was asked for.
        asked: String,
        /// What it is for.
        found: String,
    },
    /// It is for another key.
    #[error("it is for another key")]
    Key,
    /// It is not valid now.
    #[error("it is not valid now")]
    Validity,
    /// A certificate is not signed by the one after it.
    #[error("certificate {0} of the chain is not signed by the one after it")]
    Link(usize),
}

/// Reads a chain in PEM and checks that it is what was asked for: this one name, this key, valid now, each signed by
/// the next. Whether clients trust its root is the CA's business.
///
/// # Errors
/// [`ChainError`].
pub fn verify(pem: &str, name: &str, key: &LeafKey, now_s: i64) -> Result<Issued, ChainError> {
    let unreadable = |e: &dyn std::fmt::Display| ChainError::Unreadable(e.to_string());
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|e| unreadable(&e))?;
    if chain.is_empty() || chain.len() > LONGEST {
        return Err(ChainError::Unreadable(format!("it holds {} certificates", chain.len())));
    }
    let parsed: Vec<X509Certificate<'_>> = chain
        .iter()
        .map(|der| x509_parser::parse_x509_certificate(der).map(|(_, parsed)| parsed))
        .collect::<Result<_, _>>()
        .map_err(|e| unreadable(&e))?;
    let leaf = &parsed[0];
    let names = names_of(leaf);
    if names.iter().map(String::as_str).ne([name]) {
        let found = names.into_iter().collect::<Vec<_>>().join(", ");
        return Err(ChainError::Names { asked: name.to_owned(), found });
    }
    if leaf.public_key().raw != key.public_key() {
        return Err(ChainError::Key);
    }
    let (not_before, not_after) = (leaf.validity().not_before.timestamp(), leaf.validity().not_after.timestamp());
    if not_after <= now_s || not_before > now_s {
        return Err(ChainError::Validity);
    }
    for (at, pair) in parsed.windows(2).enumerate() {
        pair[0].verify_signature(Some(pair[1].public_key())).map_err(|_| ChainError::Link(at + 1))?;
    }
    Ok(Issued { chain: chain.iter().map(|der| der.to_vec()).collect(), not_before, not_after })
}

fn names_of(leaf: &X509Certificate<'_>) -> BTreeSet<String> {
    let Ok(Some(extension)) = leaf.subject_alternative_name() else { return BTreeSet::new() };
    let names = extension.value.general_names.iter();
    names
        .map(|name| match name {
            GeneralName::DNSName(name) => name.to_ascii_lowercase(),
            other => other.to_string(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
    use time::OffsetDateTime;

    use super::*;

    const NOW: i64 = 1_800_000_000;

    fn at(offset: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(NOW + offset).unwrap()
    }

    struct Ca {
        certificate: Certificate,
        issuer: Issuer<'static, KeyPair>,
    }

    fn ca() -> Ca {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        Ca { issuer: Issuer::new(params, key), certificate }
    }

    fn leaf(ca: &Ca, names: &[&str], key: &LeafKey, from: i64, to: i64) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        (params.not_before, params.not_after) = (at(from), at(to));
        params.signed_by(key.pair(), &ca.issuer).unwrap().pem()
    }

    #[test]
    fn what_was_asked_for_is_taken_and_everything_else_is_not() {
        let (ca, other, key) = (ca(), ca(), LeafKey::generate());
        let name = "erp.greenhill.example";
        let good = leaf(&ca, &[name], &key, -60, 86_400);
        let chain = format!("{good}{}", ca.certificate.pem());
        let issued = verify(&chain, name, &key, NOW).unwrap();
        assert_eq!((issued.chain.len(), issued.not_after), (2, NOW + 86_400));
        assert_eq!(verify(&good, name, &key, NOW).unwrap().chain.len(), 1, "a CA may leave the rest out");

        let refused = |pem: &str, key: &LeafKey| verify(pem, name, key, NOW).unwrap_err();
        assert_eq!(refused(&good, &LeafKey::generate()), ChainError::Key);
        assert_eq!(refused(&format!("{good}{}", other.certificate.pem()), &key), ChainError::Link(1));
        assert_eq!(refused(&leaf(&ca, &[name], &key, -60, -1), &key), ChainError::Validity);
        assert_eq!(refused(&leaf(&ca, &[name], &key, 60, 120), &key), ChainError::Validity);
        for names in [&["a.example"][..], &[name, "a.example"], &["*.greenhill.example"]] {
            assert!(matches!(refused(&leaf(&ca, names, &key, -60, 60), &key), ChainError::Names { .. }), "{names:?}");
        }
        for junk in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            assert!(matches!(refused(junk, &key), ChainError::Unreadable(_)), "{junk}");
        }
    }
}
