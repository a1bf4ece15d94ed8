//! Tenants, domains and certificates by the thousand.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use ring::signature::KeyPair as _;
use schoolgate_config::model::{
    Backend, BackendId, Certificate, CertificateRef, ContextKey, ContextKeyState, Der, Domain, DomainName, Fingerprint,
    Limits, Ownership, Plan, Pool, PoolKindRule, Quota, QuotaMode, Revision, Routing, Tenant, TenantId,
};
use schoolgate_config::seal::Keeper;
use schoolgate_config::snapshot::{Object, Snapshot, decode_snapshot, encode_snapshot};
use serde_bytes::ByteBuf;

/// The name of domain `k`. Domain `k` belongs to tenant `k % tenants`.
pub(crate) fn host(k: usize) -> String {
    format!("s{k}.load.test")
}

/// How many tenants, and how many domains they share evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) tenants: usize,
    pub(crate) domains: usize,
}

/// A CA with an intermediate, P-256 throughout: the shape that public CAs issue.
pub(crate) struct Authority {
    intermediate: CertifiedIssuer<'static, KeyPair>,
}

/// A leaf and its key.
pub(crate) struct Leaf {
    pub(crate) chain_der: [Vec<u8>; 2],
    pub(crate) key_der: Vec<u8>,
    /// Leaf and intermediate.
    pub(crate) chain_pem: String,
    pub(crate) key_pem: String,
}

impl Authority {
    pub(crate) fn new() -> anyhow::Result<Self> {
        let params = |name: &str| -> anyhow::Result<CertificateParams> {
            let mut params = CertificateParams::new(Vec::new())?;
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            Ok(params)
        };
        let root = CertifiedIssuer::self_signed(params("Load Root")?, KeyPair::generate()?)?;
        let intermediate = CertifiedIssuer::signed_by(params("Load Intermediate")?, KeyPair::generate()?, &root)?;
        Ok(Self { intermediate })
    }

    pub(crate) fn issue(&self, name: &str) -> anyhow::Result<Leaf> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![name.to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        (params.not_before, params.not_after) = (rcgen::date_time_ymd(2026, 1, 1), rcgen::date_time_ymd(2099, 1, 1));
        let leaf = params.signed_by(&key, &self.intermediate)?;
        Ok(Leaf {
            chain_der: [leaf.der().to_vec(), self.intermediate.der().to_vec()],
            key_der: key.serialize_der(),
            chain_pem: leaf.pem() + &self.intermediate.pem(),
            key_pem: key.serialize_pem(),
        })
    }
}

/// Where fleets are kept between runs, with the key that their certificates are sealed under.
pub(crate) struct Fleets {
    dir: PathBuf,
    keeper: Keeper,
}

impl Fleets {
    pub(crate) fn open(dir: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&dir).with_context(|| dir.display().to_string())?;
        let keeper = Keeper::open_or_create(&dir.join("kek"))?;
        Ok(Self { dir, keeper })
    }

    /// The file of the key-encryption key.
    pub(crate) fn key_file(&self) -> PathBuf {
        self.dir.join("kek")
    }

    /// A snapshot of this size, on this pool. Made once: 100,000 certificates take a while.
    pub(crate) fn snapshot(&self, size: Size, pool: Pool) -> anyhow::Result<Snapshot> {
        let file = self.dir.join(format!("{}-tenants-{}-domains-{}", size.tenants, size.domains, self.keeper.id()));
        let mut snapshot = match read(&file) {
            Some(snapshot) => snapshot,
            None => {
                eprintln!("making {} tenants with {} domains", size.tenants, size.domains);
                let snapshot = make(size, &self.keeper)?;
                std::fs::write(&file, encode_snapshot(&snapshot)).with_context(|| file.display().to_string())?;
                snapshot
            }
        };
        snapshot.objects.push(Object::from(pool));
        Ok(snapshot)
    }
}

fn read(file: &Path) -> Option<Snapshot> {
    decode_snapshot(&std::fs::read(file).ok()?).ok()
}

/// The pool of all tenants, with one backend.
pub(crate) fn pool(backend: SocketAddr) -> anyhow::Result<Pool> {
    let backend = Backend {
        id: BackendId::generate(),
        address: format!("http://{backend}").parse()?,
        weight: Default::default(),
        state: Default::default(),
    };
    Ok(Pool { backends: vec![backend], ..Pool::new("load".parse()?) })
}

/// Limits that are counted and never reached.
pub(crate) fn limits() -> Limits {
    const ENOUGH: u64 = 1_000_000_000;
    Limits {
        requests_per_day: Some(Quota { value: ENOUGH, mode: QuotaMode::Soft }),
        requests_per_minute: Some(ENOUGH),
        burst: Some(ENOUGH),
        in_flight: Some(1_000_000),
        websockets: Some(1_000_000),
        custom_domains: Some(1_000_000),
        body_bytes: Some(1 << 30),
        ..Limits::default()
    }
}

fn make(size: Size, keeper: &Keeper) -> anyhow::Result<Snapshot> {
    let plan = Plan {
        id: "load".parse()?,
        name: "Load".to_owned(),
        limits: limits(),
        mode: Default::default(),
        weight: Default::default(),
        pool_kind: PoolKindRule::Any,
        features: vec!["advanced_reporting".to_owned()],
    };
    let mut objects = vec![Object::from(plan), Object::from(context_key(keeper)?)];
    let tenants: Vec<TenantId> = (0..size.tenants).map(|_| TenantId::generate()).collect();
    for (i, id) in tenants.iter().enumerate() {
        objects.push(Object::from(Tenant {
            id: *id,
            slug: format!("school-{i}").parse()?,
            name: format!("School {i}"),
            external_id: None,
            state: Default::default(),
            state_reason: None,
            plan: "load".parse()?,
            subscription: Default::default(),
            pool: "load".parse()?,
            canary: None,
            maintenance: None,
            isolation: Default::default(),
            profile: Default::default(),
            theme: Default::default(),
            security: Default::default(),
            features: Default::default(),
            contacts: Default::default(),
            labels: Default::default(),
            time_zone: None,
            overrides: Default::default(),
            region: None,
            retention_days: None,
        }));
    }
    for k in 0..size.domains {
        objects.push(Object::from(Domain {
            name: DomainName::parse(&host(k))?,
            tenant: tenants[k % size.tenants],
            primary: k < size.tenants,
            ownership: Ownership::Proven,
            routing: Routing::Here,
            token: format!("{k:026}"),
        }));
    }
    objects.extend(certificates(size.domains, keeper)?);
    Ok(Snapshot { revision: Revision(1), objects })
}

fn context_key(keeper: &Keeper) -> anyhow::Result<ContextKey> {
    let id = "load-1";
    let pkcs8 = ring::signature::Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new())
        .map_err(|_| anyhow!("no random numbers"))?;
    let pair = ring::signature::Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).map_err(|e| anyhow!("{e}"))?;
    Ok(ContextKey {
        id: id.parse()?,
        public: ByteBuf::from(pair.public_key().as_ref()),
        private: keeper.seal(ContextKey::KEY_PURPOSE, id, pkcs8.as_ref()),
        state: ContextKeyState::Active,
        times: Default::default(),
    })
}

/// A certificate for each domain, made on all cores.
fn certificates(domains: usize, keeper: &Keeper) -> anyhow::Result<Vec<Object>> {
    let authority = Authority::new()?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores)
            .map(|core| {
                let authority = &authority;
                scope.spawn(move || -> anyhow::Result<Vec<Object>> {
                    (core..domains).step_by(cores).map(|k| certificate(authority, &host(k), keeper)).collect()
                })
            })
            .collect();
        let mut all = Vec::with_capacity(domains);
        for worker in workers {
            all.extend(worker.join().map_err(|_| anyhow!("a worker panicked"))??);
        }
        Ok(all)
    })
}

fn certificate(authority: &Authority, name: &str, keeper: &Keeper) -> anyhow::Result<Object> {
    let leaf = authority.issue(name)?;
    let fingerprint = Fingerprint::of(&leaf.chain_der[0]);
    let key = keeper.seal(Certificate::KEY_PURPOSE, &fingerprint.to_string(), &leaf.key_der);
    Ok(Object::Certificate(Arc::new(Certificate {
        about: CertificateRef {
            fingerprint,
            names: vec![name.to_owned()],
            not_before: 1_767_225_600,
            not_after: 4_070_908_800,
            issuer: "internal".to_owned(),
        },
        chain: leaf.chain_der.into_iter().map(Der::from).collect(),
        key,
    })))
}

#[cfg(test)]
mod tests {
    use schoolgate_config::table::{NoLive, RoutingTable};

    use super::*;

    #[test]
    fn a_fleet_holds_together_and_reads_back() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let fleets = Fleets::open(dir.path().to_owned()).expect("made");
        let (size, backend) = (Size { tenants: 3, domains: 7 }, SocketAddr::from(([127, 0, 0, 1], 9001)));
        let pool = || pool(backend).expect("a pool");
        let made = fleets.snapshot(size, pool()).expect("made");
        let table = RoutingTable::from_snapshot(&made, &NoLive, None).expect("holds together");
        assert_eq!((table.tenant_count(), table.domain_count()), (3, 7));
        let tenant = table.tenant_of_domain(&host(4)).expect("routed");
        assert_eq!(tenant.tenant.slug.as_str(), "school-1");

        let again = fleets.snapshot(size, pool()).expect("read");
        assert_eq!(again.objects[..again.objects.len() - 1], made.objects[..made.objects.len() - 1]);
    }
}
