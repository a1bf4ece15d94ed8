//! TLS towards the backends of a pool: whom we trust, what we ask for, and who we are.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_bytes::ByteBuf;
use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::id::{as_string, shortened};
use super::{Fingerprint, PoolId};
use crate::seal::SealedKey;

/// How `https://` backends of a pool are spoken to. Their certificates are always verified.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct UpstreamTls {
    /// CA certificates in PEM that are trusted instead of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<CaBundle>,
    /// The name that is asked for (SNI) and that certificates must be good for; the backend's IP address when not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sni: Option<ServerName>,
}

/// CA certificates: PEM of 1 to 100 `CERTIFICATE` blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaBundle {
    text: String,
    der: Vec<Vec<u8>>,
}

/// Certificates of one bundle: 100. A CA has a handful; the system's whole store is meant by leaving the field out.
const MOST_CAS: usize = 100;

/// Why a text is no bundle of certificates.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// Not one block.
    #[error("there is no certificate in it: expected PEM, `-----BEGIN CERTIFICATE-----` and so on")]
    Empty,
    /// A block whose inside is no base64, or that has no end.
    #[error("block {0} is damaged")]
    Damaged(usize),
    /// A block of another kind, such as a private key.
    #[error("block {at} is `{found}`, expected CERTIFICATE")]
    Kind {
        /// Which block, from 1.
        at: usize,
        /// What it says it is.
        found: String,
    },
    /// Too many blocks.
    #[error("more than {MOST_CAS} certificates")]
    Many,
}

impl CaBundle {
    /// The certificates, DER.
    pub fn der(&self) -> &[Vec<u8>] {
        &self.der
    }
}
impl fmt::Display for CaBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
impl FromStr for CaBundle {
    type Err = PemError;
    fn from_str(text: &str) -> Result<Self, PemError> {
        Ok(Self { der: certificates(text)?, text: text.trim().to_owned() })
    }
}
as_string!(CaBundle, PemError, "PEM certificates");

/// The DER of the certificates in a PEM text (RFC 7468).
///
/// # Errors
/// [`PemError`] names the first block that is none.
pub fn certificates(text: &str) -> Result<Vec<Vec<u8>>, PemError> {
    use base64::Engine;
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once("-----BEGIN ") {
        let at = found.len() + 1;
        if at > MOST_CAS {
            return Err(PemError::Many);
        }
        let (label, after) = after.split_once("-----").ok_or(PemError::Damaged(at))?;
        if label != "CERTIFICATE" {
            return Err(PemError::Kind { at, found: shortened(label) });
        }
        let (body, after) = after.split_once("-----END CERTIFICATE-----").ok_or(PemError::Damaged(at))?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = base64::engine::general_purpose::STANDARD.decode(body).map_err(|_| PemError::Damaged(at))?;
        // A certificate is a sequence (X.690: tag 0x30); who reads it in full is who uses it.
        if der.first() != Some(&0x30) {
            return Err(PemError::Damaged(at));
        }
        found.push(der);
        rest = after;
    }
    if found.is_empty() { Err(PemError::Empty) } else { Ok(found) }
}

/// A name that a backend's certificate is good for: a DNS name or an IP address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerName(String);

/// A text that is no name of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is neither a DNS name nor an IP address")]
pub struct ServerNameError(String);

impl ServerName {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl FromStr for ServerName {
    type Err = ServerNameError;
    fn from_str(text: &str) -> Result<Self, ServerNameError> {
        // Names inside a company have one label or an underscore, which no visitor's domain may have.
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        let is_name = text.len() <= 253 && text.split('.').all(label);
        if is_name || text.parse::<std::net::IpAddr>().is_ok() {
            Ok(Self(text.to_ascii_lowercase()))
        } else {
            Err(ServerNameError(shortened(text)))
        }
    }
}
as_string!(ServerName, ServerNameError, "a DNS name or an IP address");

/// What we show to backends that ask who we are (mutual TLS).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientCertificate {
    /// The certificate and what leads to its CA, DER, our own first.
    pub chain: Vec<ByteBuf>,
    /// DER, as its maker wrote it (PKCS#8, PKCS#1 or SEC 1), sealed for the purpose [`ClientCertificate::KEY_PURPOSE`] and [`ClientCertificate::subject`].
    pub key: SealedKey,
}

impl ClientCertificate {
    /// What the private key is sealed for; see [`crate::seal`].
    pub const KEY_PURPOSE: &'static str = "upstream-tls-client";

    /// Whose key it is.
    pub fn subject(pool: &PoolId, leaf: &[u8]) -> String {
        format!("{pool}/{}", Fingerprint::of(leaf))
    }

    /// The fingerprint of our own certificate.
    pub fn fingerprint(&self) -> Option<Fingerprint> {
        self.chain.first().map(|leaf| Fingerprint::of(leaf))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "-----BEGIN CERTIFICATE-----\nMAMCAQE=\n-----END CERTIFICATE-----\n";

    #[test]
    fn a_bundle_reads_back_as_written() {
        let two: CaBundle = format!("# ours\n{ONE}{ONE}").parse().unwrap();
        assert_eq!(two.der(), [vec![0x30, 3, 2, 1, 1], vec![0x30, 3, 2, 1, 1]]);
        assert_eq!(two.to_string().parse::<CaBundle>().unwrap(), two);
    }

    #[test]
    fn what_is_no_certificate_is_named() {
        assert_eq!("".parse::<CaBundle>(), Err(PemError::Empty));
        assert_eq!("/etc/ca.pem".parse::<CaBundle>(), Err(PemError::Empty));
        let key = ONE.replace("CERTIFICATE", "PRIVATE KEY");
        assert!(matches!(format!("{ONE}{key}").parse::<CaBundle>(), Err(PemError::Kind { at: 2, .. })));
        assert_eq!(ONE.replace("MAMC", "MA*C").parse::<CaBundle>(), Err(PemError::Damaged(1)));
        assert_eq!(ONE.replace("-----END", "").parse::<CaBundle>(), Err(PemError::Damaged(1)));
        assert_eq!(ONE.repeat(101).parse::<CaBundle>(), Err(PemError::Many));
    }

    #[test]
    fn a_server_has_a_name_or_an_address() {
        for good in ["app.internal", "app", "app_1.internal", "10.0.0.1", "::1"] {
            assert!(good.parse::<ServerName>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "-a", "a..b", "a.", "*.internal", "https://a"] {
            assert!(bad.parse::<ServerName>().is_err(), "{bad} was taken");
        }
    }
}
