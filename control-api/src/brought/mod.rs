//! A certificate that an operator brings: read, checked, and put in order.
//!
//! A pure function of what was sent and the time. Whose names they are is the operation's question, not this one's.

mod chain;
mod key;

use zeroize::Zeroizing;

pub(crate) use chain::pem;

/// Certificates in one chain: 10. Public authorities use three or four.
const LONGEST_CHAIN: usize = 10;

/// A certificate that proxies can serve, with its chain and key.
pub(crate) struct Brought {
    /// DER, leaf first, each issued by the next, without the root.
    pub(crate) chain: Vec<Vec<u8>>,
    /// PKCS#8.
    pub(crate) key: Zeroizing<Vec<u8>>,
    /// DNS names it is for, lower case; a wildcard is written `*.zone`.
    pub(crate) names: Vec<String>,
    /// Begin of its validity, seconds since 1970.
    pub(crate) not_before: i64,
    /// End of its validity, seconds since 1970.
    pub(crate) not_after: i64,
    /// What was mended, and what clients may not like.
    pub(crate) notices: Vec<String>,
}

/// Never the key.
impl std::fmt::Debug for Brought {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Brought").field("names", &self.names).finish_non_exhaustive()
    }
}

/// Why a certificate cannot be served. Nothing of a key is ever in the words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BroughtError {
    /// No PEM section of a certificate.
    #[error("there is no certificate: paste everything from -----BEGIN CERTIFICATE----- on, the school's own first")]
    NoCertificate,
    /// PEM that breaks off, or is not base64.
    #[error("the chain is not PEM: a section is damaged or has no end")]
    ChainPem,
    /// More than any chain has.
    #[error("these are {0} certificates; a chain has at most {LONGEST_CHAIN}")]
    TooMany(usize),
    /// A section that is no certificate.
    #[error("certificate {0} of the chain cannot be read")]
    NotACertificate(usize),
    /// A private key where everybody may look.
    #[error("the chain holds a private key: send it as the key, and nowhere else")]
    KeyInChain,
    /// No PEM section of a private key.
    #[error("there is no private key: paste everything from -----BEGIN PRIVATE KEY----- on")]
    NoKey,
    /// More than one.
    #[error("there are several private keys: send the one of this certificate")]
    SeveralKeys,
    /// A key under a passphrase.
    #[error(
        "the private key is encrypted: decrypt it first, for example with `openssl pkey -in key.pem -out plain.pem`"
    )]
    EncryptedKey,
    /// Not a kind that is served.
    #[error(
        "the private key cannot be used: RSA of 2048 to 4096 bits, ECDSA P-256 or P-384, or Ed25519 in PEM is needed"
    )]
    Key,
    /// Another certificate's key.
    #[error("the private key belongs to none of these certificates")]
    Mismatch,
    /// The certificate of an authority.
    #[error("the private key belongs to the certificate of an authority, not to one for servers")]
    LeafIsCa,
    /// The chain does not lead anywhere.
    #[error("none of the other certificates issued `{subject}`: bring the chain of {issuer}")]
    Broken {
        /// Whose issuer is missing.
        subject: String,
        /// The name of that issuer.
        issuer: String,
    },
    /// Over.
    #[error("`{subject}` expired on {at}")]
    Expired {
        /// Which.
        subject: String,
        /// When.
        at: String,
    },
    /// Not begun.
    #[error("`{subject}` is not valid before {at}")]
    NotYet {
        /// Which.
        subject: String,
        /// From when on.
        at: String,
    },
    /// A signature that can be forged.
    #[error("`{subject}` is signed with {algorithm}, which clients do not accept")]
    Signature {
        /// Which.
        subject: String,
        /// How.
        algorithm: String,
    },
    /// A key usage that leaves servers out.
    #[error("the certificate is not for servers (its extended key usage has no serverAuth)")]
    NotForServers,
    /// No DNS name.
    #[error("the certificate has no DNS name in subjectAltName; clients look nowhere else")]
    NoNames,
}

impl BroughtError {
    /// The field it is about, and the code of the error.
    pub(crate) fn place(&self) -> (&'static str, &'static str) {
        match self {
            Self::NoCertificate => ("/chain", "no_certificate"),
            Self::ChainPem | Self::NotACertificate(_) => ("/chain", "unreadable"),
            Self::TooMany(_) => ("/chain", "too_long"),
            Self::KeyInChain => ("/chain", "key_in_chain"),
            Self::NoKey => ("/key", "no_key"),
            Self::SeveralKeys => ("/key", "several_keys"),
            Self::EncryptedKey => ("/key", "encrypted"),
            Self::Key => ("/key", "unusable"),
            Self::Mismatch => ("/key", "mismatch"),
            Self::LeafIsCa => ("/chain", "is_authority"),
            Self::Broken { .. } => ("/chain", "chain_broken"),
            Self::Expired { .. } => ("/chain", "expired"),
            Self::NotYet { .. } => ("/chain", "not_yet_valid"),
            Self::Signature { .. } => ("/chain", "weak_signature"),
            Self::NotForServers => ("/chain", "not_for_servers"),
            Self::NoNames => ("/chain", "no_names"),
        }
    }
}

impl Brought {
    /// Reads chain and key, PEM, at `now` (seconds since 1970). The order of the chain is mended, and what is not part of
    /// it left out; both are said.
    ///
    /// # Errors
    /// [`BroughtError`] says what is wrong, and how to mend it.
    pub(crate) fn read(chain: &str, key: &str, now: i64) -> Result<Self, BroughtError> {
        let certificates = chain::sections(chain)?;
        let key = key::read(key)?;
        chain::check(&certificates, key, now)
    }
}

#[cfg(test)]
mod tests;
