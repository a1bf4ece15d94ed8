//! A gateway in this process, told its table directly.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use pingora_core::server::configuration::ServerConf;
use pingora_proxy::http_proxy;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use ring::signature::Ed25519KeyPair;
use schoolgate_config::model::{Fingerprint, Plan, Pool, Revision, Route, Tenant, Zone};
use schoolgate_config::settings::{EdgeLimits, Settings};
use schoolgate_config::snapshot::{Change, Object, Snapshot};
use schoolgate_config::table::RoutingTable;
use schoolgate_config::time::SystemClock;
use schoolgate_proxy::balance::health;
use schoolgate_proxy::direct::Driver;
use schoolgate_proxy::feed::SigningKey;
use schoolgate_proxy::files::{Files, FilesOptions};
use schoolgate_proxy::gateway::{Gateway, GatewayParts, SharedTable};
use schoolgate_proxy::live::NodeLive;
use schoolgate_proxy::observe::Observe;
use schoolgate_proxy::tls::{Certificates, Keyring, Material, Names};
use schoolgate_proxy::transport::{Edge, EdgeHandle, EdgeOptions, TransportLimits};
use schoolgate_testkit::TlsConn;
use schoolgate_testkit::{Client, Http};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

/// Two schools in the zone `school.test`, plain names of their own beside it, on the pool `shared`.
pub(crate) struct Site {
    edge: EdgeHandle,
    table: SharedTable,
    live: NodeLive,
    pub(crate) ca: String,
    keyring: Arc<Keyring>,
    authority: Issuer<'static, KeyPair>,
    _checks: AbortOnDropHandle<()>,
}

/// What a site begins with.
pub(crate) struct Given {
    pool: Value,
    more: Vec<Object>,
    limits: EdgeLimits,
    body_stall: Option<Duration>,
    settings: Settings,
}

pub(crate) fn given<S: AsRef<str>>(backends: impl IntoIterator<Item = S>) -> Given {
    let (limits, settings) = (EdgeLimits::default(), Settings::default());
    Given { pool: pool("shared", backends), more: Vec::new(), limits, body_stall: None, settings }
}

/// A pool without active checks.
pub(crate) fn pool<S: AsRef<str>>(id: &str, backends: impl IntoIterator<Item = S>) -> Value {
    let backends: Vec<_> = backends
        .into_iter()
        .zip(1..)
        .map(|(address, n)| json!({"id": backend_id(id, n), "address": address.as_ref()}))
        .collect();
    json!({"id": id, "backends": backends})
}

fn backend_id(pool: &str, n: u64) -> String {
    let chance = pool.bytes().fold(n, |sum, b| sum * 256 + u64::from(b));
    schoolgate_config::model::BackendId::from_parts(1, u128::from(chance)).to_string()
}

pub(crate) fn object<T: serde::de::DeserializeOwned>(value: Value) -> Object
where
    Object: From<T>,
{
    let text = value.to_string();
    Object::from(serde_json::from_value::<T>(value).unwrap_or_else(|e| panic!("{e}: {text}")))
}

pub(crate) fn tenant(slug: &str, change: Value) -> Object {
    let ulid = format!("tnt_01ARZ3NDEKTSV4RRFFQ69{}", if slug == "greenhill" { "G5FAV" } else { "G5FAW" });
    let mut value = json!({
        "id": ulid, "slug": slug, "name": slug, "state": "active", "plan": "custom", "pool": "shared",
        "theme": {"primary_color": "#1f6f43"},
    });
    value.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    object::<Tenant>(value)
}

pub(crate) fn route(change: Value) -> Object {
    let mut value = json!({"id": "rt_01ARZ3NDEKTSV4RRFFQ69G5FAV", "match": {}, "action": {}});
    value.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    object::<Route>(value)
}

impl Given {
    /// Changes the pool, by keys of its JSON.
    pub(crate) fn pool(mut self, change: Value) -> Self {
        self.pool.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        self
    }

    pub(crate) fn object(mut self, object: Object) -> Self {
        self.more.push(object);
        self
    }

    pub(crate) fn body_stall(mut self, stall: Duration) -> Self {
        self.body_stall = Some(stall);
        self
    }

    /// Routes answer with the files of this directory.
    pub(crate) fn files(mut self, dir: &Path) -> Self {
        self.settings.proxy.files.dir = dir.to_str().unwrap().to_owned();
        self
    }

    pub(crate) async fn start(self) -> Site {
        let mut objects: Vec<Object> = Plan::catalogue().into_iter().map(Object::from).collect();
        objects.push(object::<Pool>(self.pool));
        objects.push(object::<Zone>(json!({"name": "school.test"})));
        objects.push(tenant("greenhill", json!({})));
        objects.push(tenant("riverside", json!({})));
        objects.extend(self.more);
        let limiter = Arc::<schoolgate_proxy::limit::Limiter>::default();
        let live = NodeLive::new(Default::default(), limiter.clone());
        let snapshot = Snapshot { revision: Revision(1), objects };
        let table = RoutingTable::from_snapshot(&snapshot, &live, None).unwrap();
        let table: SharedTable = Arc::new(ArcSwap::from_pointee(table));

        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
        let pair = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        let signing = SigningKey { id: "k1".parse().unwrap(), pair };

        let (authority, ca) = authority();
        let keyring = Arc::new(Keyring::new(Arc::new(SystemClock)));
        for name in ["*.school.test", "school.test", "unknown.test"] {
            serve(&keyring, &authority, name);
        }
        let names = Names::new(keyring.clone(), table.clone(), Arc::new(SystemClock)).unwrap();
        let certificates: Arc<dyn Certificates> = Arc::new(names);
        let bind = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (http, https) = (bind(), bind());
        let mut limits = self.limits;
        let mut transport = TransportLimits { lame_duck: Duration::from_millis(50), ..TransportLimits::default() };
        if let Some(stall) = self.body_stall {
            transport.body_stall = stall;
            limits = shortened(limits, stall);
        }
        let files = Arc::<Files>::default();
        if let Some(options) = FilesOptions::new(&self.settings) {
            files.read(&options).await;
        }
        let gateway = Gateway::new(GatewayParts {
            table: table.clone(),
            signing: Arc::new(arc_swap::ArcSwapOption::from_pointee(signing)),
            observe: Arc::new(Observe::off()),
            clock: Arc::new(SystemClock),
            https_port: https.local_addr().unwrap().port(),
            certificates: certificates.clone(),
            trusted_hops: Vec::new(),
            limits,
            limiter,
            files,
        });
        let conf = Arc::new(ServerConf::default());
        let edge = Edge::start(EdgeOptions {
            http: vec![http],
            https: vec![https],
            workers: 1,
            certificates,
            limits: transport,
            make_app: Arc::new(move |_| Arc::new(Driver::new(gateway.clone(), http_proxy(&conf, gateway.clone()), 64))),
            observer: Arc::new(()),
        })
        .unwrap();
        let checks = AbortOnDropHandle::new(tokio::spawn(health::run(table.clone(), Arc::default())));
        Site { edge, table, live, ca, keyring, authority, _checks: checks }
    }
}

/// The limits with another stall time: their type is made by reading settings.
fn shortened(limits: EdgeLimits, stall: Duration) -> EdgeLimits {
    let mut value = serde_json::to_value(limits).unwrap();
    value["body_stall_s"] = json!(stall.as_secs_f64());
    serde_json::from_value(value).unwrap()
}

fn authority() -> (Issuer<'static, KeyPair>, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

fn serve(keyring: &Keyring, authority: &Issuer<'static, KeyPair>, name: &str) {
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    keyring
        .insert(&Material {
            fingerprint: Fingerprint::of(leaf.der()),
            names: &[name.to_owned()],
            not_before: 0,
            not_after: 4_000_000_000,
            chain: &[leaf.der().as_ref()],
            key_pkcs8: &key.serialize_der(),
        })
        .unwrap();
}

impl Site {
    pub(crate) fn https(&self) -> SocketAddr {
        self.edge.https()[0]
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.edge.http()[0]
    }

    /// A visitor of `https://{host}`.
    pub(crate) fn visitor(&self, host: &str, http: Http) -> Client {
        Client::builder(self.https()).base(format!("https://{host}")).ca(self.ca.clone()).http(http).build()
    }

    pub(crate) fn greenhill(&self) -> Client {
        self.visitor("greenhill.school.test", Http::One)
    }

    /// A TLS connection for bytes written by hand.
    pub(crate) async fn raw(&self, sni: &str) -> TlsConn {
        TlsConn::connect(self.https(), sni, &["http/1.1"], &self.ca).await.unwrap()
    }

    /// A certificate for one more name is issued.
    pub(crate) fn issue(&self, name: &str) {
        serve(&self.keyring, &self.authority, name);
    }

    /// Adopts changes as the feed would.
    pub(crate) fn change(&self, objects: impl IntoIterator<Item = Object>) {
        let changes: Vec<_> = objects.into_iter().map(Change::Put).collect();
        let now = self.table.load_full();
        let next = now.with_changes(now.revision().next(), &changes, &self.live).unwrap();
        self.table.store(Arc::new(next));
    }

    /// The condition of each backend of `shared`.
    pub(crate) fn backends(&self) -> Vec<&'static str> {
        use schoolgate_config::time::Clock;
        let table = self.table.load();
        let pool = table.pool(&"shared".parse().unwrap()).unwrap();
        pool.live.views(SystemClock.unix_ms()).iter().map(|view| view.state.as_str()).collect()
    }

    /// Requests in flight of greenhill, as counted.
    pub(crate) fn in_flight(&self) -> u64 {
        self.table.load().tenant_by_slug("greenhill").unwrap().live.counters.in_flight()
    }
}
