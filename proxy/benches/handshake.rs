//! What a handshake costs, and what of it is the copy of the settings that binds its tickets to one tenant.
//!
//! In memory, TLS 1.3 with a P-256 leaf and without resumption, both ends counted: what differs between `shared` and
//! `copied` is the copy, which is also measured by itself.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use rcgen::{CertificateParams, KeyPair};
use rustls::client::Resumption;
use rustls::server::{NoServerSessionStorage, ProducesTickets};
use rustls::{ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection};
use rustls_pki_types::{PrivateKeyDer, ServerName};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NAME: &str = "erp.greenhill.example";

/// Tickets with sixteen bytes more, as the proxy's are.
#[derive(Debug)]
struct Bound {
    tickets: Arc<dyn ProducesTickets>,
    holder: [u8; 16],
}

impl ProducesTickets for Bound {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        self.tickets.lifetime()
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.tickets.encrypt(&[&self.holder[..], plain].concat())
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.tickets.decrypt(cipher)
    }
}

fn bound(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.ticketer = Arc::new(Bound { tickets: config.ticketer, holder: [7; 16] });
    Arc::new(config)
}

fn ends() -> (ServerConfig, Arc<ClientConfig>) {
    let key = KeyPair::generate().expect("a key");
    let leaf = CertificateParams::new([NAME.to_owned()]).expect("a name").self_signed(&key).expect("a certificate");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS#8");
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key)
        .expect("it belongs to its key");
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    server.ticketer = rustls::crypto::ring::Ticketer::new().expect("random numbers");
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 1;
    let mut roots = RootCertStore::empty();
    roots.add(leaf.der().clone()).expect("a certificate");
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has them")
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.resumption = Resumption::disabled();
    (server, Arc::new(client))
}

/// What one end has to say, to the other.
fn say(from: &mut Connection, to: &mut Connection) {
    let mut bytes = Vec::new();
    while from.wants_write() {
        from.write_tls(&mut bytes).expect("memory");
    }
    let mut rest = &bytes[..];
    while !rest.is_empty() {
        to.read_tls(&mut rest).expect("memory");
        to.process_new_packets().expect("they agree");
    }
}

fn shake(server: Arc<ServerConfig>, client: &Arc<ClientConfig>) {
    let name = ServerName::try_from(NAME).expect("a name");
    let mut server = Connection::from(ServerConnection::new(server).expect("a server"));
    let mut client = Connection::from(ClientConnection::new(Arc::clone(client), name).expect("a client"));
    while client.is_handshaking() || server.is_handshaking() {
        say(&mut client, &mut server);
        say(&mut server, &mut client);
    }
}

fn handshake(c: &mut Criterion) {
    let (server, client) = ends();
    let shared = Arc::new(server.clone());
    c.bench_function("handshake/shared", |b| b.iter(|| shake(Arc::clone(&shared), &client)));
    c.bench_function("handshake/copied", |b| b.iter(|| shake(bound(&server), &client)));
    c.bench_function("handshake/the copy alone", |b| b.iter(|| black_box(bound(&server))));
}

criterion_group!(handshake_benches, handshake);
criterion_main!(handshake_benches);
