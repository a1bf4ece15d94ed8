//! An edge with an app that forwards to an origin, and the certificates of a private CA.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_http::ResponseHeader;
use pingora_proxy::{ProxyHttp, Session, http_proxy};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use schoolgate_config::model::Fingerprint;
use schoolgate_config::time::SystemClock;
use schoolgate_proxy::tls::{Keyring, Material};
use schoolgate_proxy::transport::{
    ConnectionRefusal, Edge, EdgeHandle, EdgeOptions, Flood, HandshakeResult, HeadFault, TlsVersion, TransportLimits,
    TransportObserver, conn_info,
};

use crate::origin::Origin;

/// Far in the future, for certificates that only have to be valid.
pub(crate) const LATE: i64 = 4_000_000_000;

pub(crate) struct App {
    origin: SocketAddr,
    observer: Arc<Observer>,
}

#[async_trait]
impl ProxyHttp for App {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn request_filter(&self, session: &mut Session, (): &mut ()) -> pingora_error::Result<bool> {
        let info = conn_info(session).expect("the session is one of the edge");
        info.see_request();
        if session.req_header().uri.path() != "/conn" {
            return Ok(false);
        }
        let sni = info.sni().map_or("-", |sni| sni);
        let text = format!("{} {sni} {:?} {}", info.client, info.protocol, info.requests());
        let mut header = ResponseHeader::build(200, None)?;
        header.insert_header("Content-Length", text.len())?;
        session.write_response_header(Box::new(header), false).await?;
        session.write_response_body(Some(Bytes::from(text)), true).await?;
        Ok(true)
    }

    async fn logging(&self, session: &mut Session, _: Option<&pingora_error::Error>, (): &mut ()) {
        let Some(info) = conn_info(session).filter(|info| info.is_h2()) else { return };
        if session.response_written().is_some() {
            info.answered();
        } else {
            info.unanswered(50);
            *self.observer.unanswered.lock().unwrap() += 1;
        }
    }

    async fn upstream_peer(&self, _: &mut Session, (): &mut ()) -> pingora_error::Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.origin, false, String::new())))
    }
}

/// Remembers what it is told.
#[derive(Default)]
pub(crate) struct Observer {
    pub(crate) handshakes: Mutex<Vec<(TlsVersion, HandshakeResult)>>,
    pub(crate) refusals: Mutex<Vec<ConnectionRefusal>>,
    pub(crate) heads: Mutex<Vec<HeadFault>>,
    pub(crate) floods: Mutex<Vec<Flood>>,
    /// Requests of HTTP/2 that ended without an answer.
    pub(crate) unanswered: Mutex<u32>,
}

impl TransportObserver for Observer {
    fn connection_refused(&self, why: ConnectionRefusal) {
        self.refusals.lock().unwrap().push(why);
    }
    fn handshake(&self, version: TlsVersion, result: HandshakeResult) {
        self.handshakes.lock().unwrap().push((version, result));
    }
    fn head_refused(&self, fault: HeadFault) {
        self.heads.lock().unwrap().push(fault);
    }
    fn flooded(&self, flood: Flood) {
        self.floods.lock().unwrap().push(flood);
    }
}

/// Issues certificates that [`Site::roots`] trusts.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    der: Vec<u8>,
}

/// A certificate that is not in the keyring yet.
pub(crate) struct Issued {
    pub(crate) leaf: Vec<u8>,
    pub(crate) key: Vec<u8>,
    pub(crate) names: Vec<String>,
}

impl Issued {
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.leaf)
    }
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let der = params.self_signed(&key).unwrap().der().to_vec();
        Self { issuer: Issuer::new(params, key), der }
    }

    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let leaf = CertificateParams::new(names.clone()).unwrap().signed_by(&key, &self.issuer).unwrap();
        Issued { leaf: leaf.der().to_vec(), key: key.serialize_der(), names }
    }
}

pub(crate) struct Site {
    pub(crate) edge: EdgeHandle,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) authority: Authority,
    pub(crate) observer: Arc<Observer>,
    pub(crate) origin: Origin,
}

impl Site {
    /// One worker, certificates for `a.example` and `*.zone.example`, every limit as in production.
    pub(crate) async fn start() -> Self {
        Self::with(|_| ()).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut TransportLimits)) -> Self {
        let authority = Authority::new();
        let keyring = Arc::new(Keyring::new(Arc::new(SystemClock)));
        let observer = Arc::new(Observer::default());
        let origin = Origin::start().await;
        let mut limits = TransportLimits { lame_duck: Duration::from_millis(200), ..TransportLimits::default() };
        change(&mut limits);
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let conf = Arc::new(ServerConf::default());
        let (address, observing) = (origin.address, observer.clone());
        let edge = Edge::start(EdgeOptions {
            http: vec![bind()],
            https: vec![bind()],
            workers: 1,
            certificates: keyring.clone(),
            limits,
            make_app: Arc::new(move |_| {
                Arc::new(http_proxy(&conf, App { origin: address, observer: observing.clone() }))
            }),
            observer: observer.clone(),
        })
        .unwrap();
        let site = Self { edge, keyring, authority, observer, origin };
        site.serve(&site.authority.issue(&["a.example"]));
        site.serve(&site.authority.issue(&["*.zone.example"]));
        site
    }

    pub(crate) fn serve(&self, certificate: &Issued) {
        self.keyring
            .insert(&Material {
                fingerprint: certificate.fingerprint(),
                names: &certificate.names,
                not_before: 0,
                not_after: LATE,
                chain: &[&certificate.leaf, &self.authority.der],
                key_pkcs8: &certificate.key,
            })
            .unwrap();
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.der.clone().into()).unwrap();
        roots
    }

    pub(crate) fn https(&self) -> SocketAddr {
        self.edge.https()[0]
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.edge.http()[0]
    }
}

/// Waits until something holds, at most 5 s.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}
