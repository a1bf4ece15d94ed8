//! Makes the certificates.

use rcgen::{
    BasicConstraints, CertificateSigningRequestParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, SanType,
    SerialNumber,
};
use rustls_pki_types::CertificateSigningRequestDer;
use time::OffsetDateTime;

/// A root's intermediate, which signs.
pub(crate) struct Signer {
    issuer: Issuer<'static, KeyPair>,
    intermediate_pem: String,
    pub(crate) root_pem: String,
}

/// A certificate.
pub(crate) struct Made {
    pub(crate) chain_pem: String,
    pub(crate) leaf: Vec<u8>,
}

impl Signer {
    pub(crate) fn new() -> Self {
        let ca = |name: &str| {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.use_authority_key_identifier_extension = true;
            // The clock of a test may stand anywhere.
            params.not_before = at(0);
            params.not_after = at(8_000_000_000);
            params
        };
        let (root_key, key) = (KeyPair::generate().expect("a key"), KeyPair::generate().expect("a key"));
        let root_params = ca("Mock root");
        let root = root_params.self_signed(&root_key).expect("a certificate");
        let root_issuer = Issuer::new(root_params, root_key);
        let params = ca("Mock intermediate");
        let intermediate = params.signed_by(&key, &root_issuer).expect("a certificate");
        Self { issuer: Issuer::new(params, key), intermediate_pem: intermediate.pem(), root_pem: root.pem() }
    }

    /// The names of a signing request.
    pub(crate) fn names(csr: &[u8]) -> Option<Vec<String>> {
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr)).ok()?;
        let names = request.params.subject_alt_names.iter();
        names.map(|name| if let SanType::DnsName(name) = name { Some(name.to_string()) } else { None }).collect()
    }

    pub(crate) fn sign(&self, csr: &[u8], serial: u64, (from_s, to_s): (i64, i64)) -> Option<Made> {
        let mut request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(csr)).ok()?;
        request.params.serial_number = Some(SerialNumber::from(serial));
        request.params.use_authority_key_identifier_extension = true;
        (request.params.not_before, request.params.not_after) = (at(from_s), at(to_s));
        let leaf = request.signed_by(&self.issuer).ok()?;
        Some(Made { chain_pem: format!("{}{}", leaf.pem(), self.intermediate_pem), leaf: leaf.der().to_vec() })
    }
}

fn at(unix_s: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix_s).expect("within the years that exist")
}
