//! TLS towards backends, prepared when a pool is adopted so that no request parses a certificate.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use pingora_core::protocols::tls::CaType;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::utils::tls::{CertKey, WrappedX509, parse_x509};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use schoolgate_config::model::{BackendAddress, ClientCertificate, Pool};
use schoolgate_config::seal::{Keeper, SealError};
use x509_parser::prelude::{FromDer, X509Certificate};

/// Why `https://` backends of a pool cannot be spoken to. Checks of them fail with this.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamTlsError {
    /// A certificate that is trusted is none.
    #[error("certificate {at} of upstream_tls.ca cannot be trusted as an authority")]
    Authority {
        /// Which, from 1.
        at: usize,
    },
    /// The system trusts nobody.
    #[error("the system has no CA certificates (package ca-certificates); name the pool's own in upstream_tls.ca")]
    NoAuthorities,
    /// The key of the client certificate does not open.
    #[error("the key of the client certificate cannot be opened")]
    Sealed(#[source] SealError),
    /// The client certificate is none, or not that of its key.
    #[error("the client certificate cannot be used")]
    Client(#[source] rustls::Error),
    /// The client certificate is damaged.
    #[error("the client certificate is damaged")]
    Damaged,
}

/// How the `https://` backends of a pool are spoken to.
#[derive(Debug)]
pub(crate) struct UpstreamTlsReady {
    sni: Option<Box<str>>,
    ca: Option<Arc<CaType>>,
    client: Option<Arc<CertKey>>,
    checks: Arc<ClientConfig>,
}

impl UpstreamTlsReady {
    /// What a pool's definition comes to; `None` when it has no backend that speaks TLS.
    pub(crate) fn prepare(pool: &Pool, keeper: Option<&Keeper>) -> Option<Result<Self, UpstreamTlsError>> {
        let speaks_tls = pool.backends.iter().any(|backend| matches!(backend.address, BackendAddress::Https(_)));
        speaks_tls.then(|| Self::of(pool, keeper))
    }

    fn of(pool: &Pool, keeper: Option<&Keeper>) -> Result<Self, UpstreamTlsError> {
        let tls = &pool.upstream_tls;
        let (roots, ca) = match &tls.ca {
            None => (system_roots()?, None),
            Some(bundle) => {
                let mut roots = RootCertStore::empty();
                for (der, at) in bundle.der().iter().zip(1..) {
                    roots.add(CertificateDer::from(der.as_slice())).map_err(|_| UpstreamTlsError::Authority { at })?;
                }
                let wrapped: Option<Vec<_>> = bundle.der().iter().map(|der| wrapped(der)).collect();
                let wrapped = wrapped.ok_or(UpstreamTlsError::Authority { at: 1 })?;
                (Arc::new(roots), Some(Arc::from(wrapped)))
            }
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(UpstreamTlsError::Client)?
            .with_root_certificates(roots);
        let (mut checks, client) = match &pool.client_certificate {
            None => (builder.with_no_client_auth(), None),
            Some(certificate) => {
                let key = opened(pool, certificate, keeper)?;
                let chain: Vec<Vec<u8>> = certificate.chain.iter().map(|der| der.to_vec()).collect();
                if chain.iter().any(|der| wrapped(der).is_none()) {
                    return Err(UpstreamTlsError::Damaged);
                }
                let parsed = PrivateKeyDer::try_from(key.clone()).map_err(|_| UpstreamTlsError::Damaged)?;
                let certificates = chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
                let config = builder.with_client_auth_cert(certificates, parsed).map_err(UpstreamTlsError::Client)?;
                (config, Some(Arc::new(CertKey::new(chain, key))))
            }
        };
        checks.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // A check must find what a new request would meet.
        checks.resumption = rustls::client::Resumption::disabled();
        let sni = tls.sni.as_ref().map(|name| name.as_str().into());
        Ok(Self { sni, ca, client, checks: Arc::new(checks) })
    }

    /// The peer of a backend. It always has a name to verify: without one, nothing would be.
    pub(crate) fn peer(&self, address: SocketAddr) -> HttpPeer {
        let name = self.sni.as_deref().map_or_else(|| address.ip().to_string(), str::to_owned);
        let mut peer = HttpPeer::new(address, true, name);
        peer.client_cert_key.clone_from(&self.client);
        peer.options.ca.clone_from(&self.ca);
        peer.options.set_http_version(2, 1);
        peer
    }

    /// What a check connects with.
    ///
    /// # Errors
    /// The pool's name of its backends is none that TLS knows.
    pub(crate) fn for_checks(
        &self,
        address: SocketAddr,
    ) -> Result<(Arc<ClientConfig>, ServerName<'static>), InvalidDnsNameError> {
        let name = match self.sni.as_deref() {
            Some(name) => ServerName::try_from(name.to_owned())?,
            None => ServerName::from(address.ip()),
        };
        Ok((Arc::clone(&self.checks), name))
    }
}

fn opened(pool: &Pool, certificate: &ClientCertificate, keeper: Option<&Keeper>) -> Result<Vec<u8>, UpstreamTlsError> {
    let leaf = certificate.chain.first().ok_or(UpstreamTlsError::Damaged)?;
    let subject = ClientCertificate::subject(&pool.id, leaf);
    let keeper = keeper.ok_or(UpstreamTlsError::Damaged)?;
    let key = keeper.open_key(ClientCertificate::KEY_PURPOSE, &subject, &certificate.key);
    key.map(|key| key.to_vec()).map_err(UpstreamTlsError::Sealed)
}

/// A certificate as Pingora takes it, which panics at one that it cannot parse.
fn wrapped(der: &[u8]) -> Option<WrappedX509> {
    X509Certificate::from_der(der).ok()?;
    Some(WrappedX509::new(der.to_vec(), parse_x509))
}

/// Whom the system trusts, read once.
fn system_roots() -> Result<Arc<RootCertStore>, UpstreamTlsError> {
    static ROOTS: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let roots = ROOTS.get_or_init(|| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    });
    if roots.is_empty() { Err(UpstreamTlsError::NoAuthorities) } else { Ok(Arc::clone(roots)) }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use schoolgate_config::model::{Backend, BackendId, BackendState, UpstreamTls, Weight};

    use super::*;

    fn pool(address: &str) -> Pool {
        let backend = Backend {
            id: BackendId::from_parts(1, 1),
            address: address.parse().expect("an address"),
            weight: Weight::default(),
            state: BackendState::Active,
        };
        Pool { backends: vec![backend], ..Pool::new("inner".parse().expect("a name")) }
    }

    fn authority() -> (String, Vec<u8>, KeyPair) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(vec!["ca.test".to_owned()]).expect("a name");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).expect("signed");
        (certificate.pem(), certificate.der().to_vec(), key)
    }

    #[test]
    fn a_pool_without_tls_has_nothing_to_prepare() {
        assert!(UpstreamTlsReady::prepare(&pool("http://127.0.0.1:1"), None).is_none());
    }

    #[test]
    fn there_is_always_a_name_to_verify() {
        let (ca, ..) = authority();
        let tls = |sni: Option<&str>| UpstreamTls {
            ca: Some(ca.parse().expect("PEM")),
            sni: sni.map(|name| name.parse().expect("a name")),
        };
        let address: SocketAddr = "127.0.0.1:8443".parse().expect("an address");
        for (sni, expected) in [(None, "127.0.0.1"), (Some("app.internal"), "app.internal")] {
            let pool = Pool { upstream_tls: tls(sni), ..pool("https://127.0.0.1:8443") };
            let ready = UpstreamTlsReady::prepare(&pool, None).expect("TLS").expect("prepared");
            let peer = ready.peer(address);
            assert_eq!((peer.sni.as_str(), peer.is_tls()), (expected, true));
            assert!(peer.options.ca.is_some() && peer.options.verify_cert && peer.options.verify_hostname);
        }
    }

    #[test]
    fn a_client_certificate_opens_for_its_own_pool_only() {
        let (ca, der, key) = authority();
        let keeper = Keeper::new(&[7; 32]);
        let tls = UpstreamTls { ca: Some(ca.parse().expect("PEM")), sni: None };
        let pool = Pool { upstream_tls: tls, ..pool("https://127.0.0.1:8443") };
        let sealed = |subject: &str| ClientCertificate {
            chain: vec![der.clone().into()],
            key: keeper.seal(ClientCertificate::KEY_PURPOSE, subject, &key.serialize_der()),
        };
        let with = |certificate| {
            let pool = Pool { client_certificate: Some(certificate), ..pool.clone() };
            UpstreamTlsReady::prepare(&pool, Some(&keeper)).expect("TLS")
        };
        let good = with(sealed(&ClientCertificate::subject(&pool.id, &der))).expect("prepared");
        assert!(good.peer("127.0.0.1:1".parse().expect("an address")).client_cert_key.is_some());
        assert!(matches!(with(sealed("other/0")), Err(UpstreamTlsError::Sealed(_))));
        let damaged = ClientCertificate { chain: vec![vec![0x30, 0].into()], ..sealed("x") };
        assert!(with(damaged).is_err());
    }
}
