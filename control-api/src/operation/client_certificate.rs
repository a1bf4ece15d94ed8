//! What a pool shows to backends that ask who we are (mutual TLS). The key is written once, sealed, and never read back.

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use serde::Serialize;
use serde_bytes::ByteBuf;
use serde_json::Value;
use utoipa::ToSchema;

use schoolgate_config::model::{ClientCertificate, Fingerprint, Pool, PoolId, certificates};
use schoolgate_config::seal::Keeper;

use super::document::{Errors, read, readable};
use super::{Done, Refusal, Work, edit};

/// A client certificate as the API shows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ClientCertificateView {
    /// SHA-256 of the certificate.
    fingerprint: Option<Fingerprint>,
    /// Always `true`: the key is there, and is not shown.
    set: bool,
}

impl ClientCertificateView {
    pub(super) fn of(set: &ClientCertificate) -> Self {
        Self { fingerprint: set.fingerprint(), set: true }
    }
}

/// A client certificate as an operator sends it.
#[derive(ToSchema)]
pub(crate) struct ClientCertificateInput {
    /// PEM: the certificate, then what leads to its CA.
    certificate: Pem,
    /// PEM of its private key. It is sealed, and never shown again.
    #[schema(write_only)]
    key: Pem,
}
readable!(ClientCertificateInput { certificate, key });

/// PEM that may be longer than other text.
#[derive(ToSchema)]
#[schema(value_type = String)]
struct Pem(String);

impl super::document::Readable for Pem {
    fn read(value: &Value, at: &super::document::Place, errors: &mut Errors) -> Option<Self> {
        let text = value.as_str().map(|text| Self(text.to_owned()));
        if text.is_none() {
            errors.add(at, "wrong_type", "expected PEM as a string");
        }
        text
    }
}

/// Sets the certificate that a pool shows.
///
/// # Errors
/// [`Refusal::Invalid`] when it or its key cannot be read or do not belong together; [`Refusal::NotFound`].
pub(crate) async fn put(work: &mut Work, keeper: &Keeper, pool: &PoolId, body: &Value) -> Result<Done, Refusal> {
    let before = edit::changeable::<Pool>(work, pool).await?;
    let mut errors = Errors::default();
    let input = read::<ClientCertificateInput>(body, &mut errors);
    let input = errors.ok(input).map_err(Refusal::Invalid)?;
    let sealed = sealed(keeper, pool, &input)?;
    let after = Pool { client_certificate: Some(sealed), ..before.value.clone() };
    edit::save(work, before, after, "set-client-certificate").await
}

/// Takes it away.
///
/// # Errors
/// [`Refusal::NotFound`] when there is none.
pub(crate) async fn delete(work: &mut Work, pool: &PoolId) -> Result<Done, Refusal> {
    let before = edit::changeable::<Pool>(work, pool).await?;
    if before.value.client_certificate.is_none() {
        return Err(Refusal::not_found(&format!("a client certificate of pool {pool}")));
    }
    let after = Pool { client_certificate: None, ..before.value.clone() };
    edit::save(work, before, after, "remove-client-certificate").await
}

fn sealed(keeper: &Keeper, pool: &PoolId, input: &ClientCertificateInput) -> Result<ClientCertificate, Refusal> {
    let chain = certificates(&input.certificate.0)
        .map_err(|error| Refusal::invalid("/certificate", "invalid", error.to_string()))?;
    let key = PrivateKeyDer::from_pem_slice(input.key.0.as_bytes())
        .map_err(|_| Refusal::invalid("/key", "invalid", "expected one private key in PEM, not encrypted"))?;
    let signing = rustls::crypto::ring::sign::any_supported_type(&key)
        .map_err(|_| Refusal::invalid("/key", "invalid", "this is no RSA, ECDSA (P-256, P-384) or Ed25519 key"))?;
    let der = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    // A key whose public half cannot be told is not refused: the handshake finds out.
    if let Err(error @ rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) =
        CertifiedKey::new(der, signing).keys_match()
    {
        return Err(Refusal::invalid("/key", "mismatch", format!("the key is not that of the certificate: {error}")));
    }
    let subject = ClientCertificate::subject(pool, &chain[0]);
    Ok(ClientCertificate {
        key: keeper.seal(ClientCertificate::KEY_PURPOSE, &subject, key.secret_der()),
        chain: chain.into_iter().map(ByteBuf::from).collect(),
    })
}
