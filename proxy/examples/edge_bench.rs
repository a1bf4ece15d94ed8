//! The transport alone, for a profiler: one worker in front of one HTTP/1.1 origin, without a tenant in sight.
//!
//! `edge_bench ORIGIN [CERTIFICATES]` prints its two addresses and writes the certificate of its CA to `edge_bench.pem`;
//! every name is `NUMBER.bench.test`. It ends with its standard input.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::configuration::ServerConf;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session, http_proxy};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use schoolgate_config::model::Fingerprint;
use schoolgate_config::time::SystemClock;
use schoolgate_proxy::tls::{Keyring, Material};
use schoolgate_proxy::transport::{Edge, EdgeOptions, TransportLimits};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Forward(SocketAddr);

#[async_trait]
impl ProxyHttp for Forward {
    type CTX = ();

    fn new_ctx(&self) {}

    fn init_downstream_modules(&self, _: &mut pingora_core::modules::http::HttpModules) {}

    async fn upstream_peer(&self, session: &mut Session, (): &mut ()) -> pingora_error::Result<Box<HttpPeer>> {
        if let Some(conn) = schoolgate_proxy::transport::conn_info(session) {
            conn.see_request();
        }
        let mut peer = Box::new(HttpPeer::new(self.0, false, String::new()));
        peer.options.connection_timeout = Some(Duration::from_secs(3));
        peer.options.read_timeout = Some(Duration::from_secs(30));
        peer.options.write_timeout = Some(Duration::from_secs(30));
        peer.options.idle_timeout = Some(Duration::from_secs(60));
        Ok(peer)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let origin: SocketAddr = arguments.next().ok_or("which origin?")?.parse()?;
    let certificates: usize = arguments.next().map_or(Ok(1), |count| count.parse())?;

    let ca_key = KeyPair::generate()?;
    let mut ca = CertificateParams::new(Vec::new())?;
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key)?;
    std::fs::write("edge_bench.pem", ca_certificate.pem())?;
    let issuer = Issuer::new(ca, ca_key);
    let keyring = Arc::new(Keyring::new(Arc::new(SystemClock)));
    let key = KeyPair::generate()?;
    let key_der = key.serialize_der();
    for number in 0..certificates {
        let names = vec![format!("{number}.bench.test")];
        let leaf = CertificateParams::new(names.clone())?.signed_by(&key, &issuer)?;
        keyring.insert(&Material {
            fingerprint: Fingerprint::of(leaf.der()),
            names: &names,
            not_before: 0,
            not_after: i64::MAX,
            chain: &[leaf.der(), ca_certificate.der()],
            key_pkcs8: &key_der,
        })?;
    }
    let conf = Arc::new(ServerConf { upstream_keepalive_pool_size: 512, ..ServerConf::default() });
    let edge = Edge::start(EdgeOptions {
        http: vec![TcpListener::bind("127.0.0.1:0")?],
        https: vec![TcpListener::bind("127.0.0.1:0")?],
        workers: 1,
        certificates: keyring,
        limits: TransportLimits {
            connections_per_address: usize::MAX,
            requests_h1: u32::MAX,
            requests_h2: u32::MAX,
            ..TransportLimits::default()
        },
        make_app: Arc::new(move |_| Arc::new(http_proxy(&conf, Forward(origin)))),
        observer: Arc::new(()),
    })?;
    let mut out = std::io::stdout();
    writeln!(out, "{} {}", edge.http()[0], edge.https()[0])?;
    out.flush()?;
    std::io::stdin().read_to_end(&mut Vec::new())?;
    drop(edge);
    Ok(())
}
