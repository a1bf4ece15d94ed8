//! Pebble, the CA that Let's Encrypt made for tests, and the DNS that it asks.
//!
//! It deadlocks when many orders are at work at once (letsencrypt/pebble#554): a test keeps to a few.

use std::fmt::Write as _;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ReservedPort;
use crate::eventually::until;
use crate::tls::client_config;

/// Time Pebble has to answer after its start.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// A CA with its own DNS, on ports of its own. Stopped when dropped.
#[derive(Debug)]
pub struct Pebble {
    dir: TempDir,
    program: PathBuf,
    options: PebbleBuilder,
    listen: ReservedPort,
    management: ReservedPort,
    dns: ReservedPort,
    dns_management: ReservedPort,
    client: reqwest::Client,
    gateway: Option<(u16, u16)>,
    pebble: Option<Child>,
    dns_server: Option<Child>,
}

/// How a [`Pebble`] is.
#[derive(Debug, Clone, Default)]
pub struct PebbleBuilder {
    nonce_reject: u8,
    binding: Option<(String, String)>,
    blocked: Vec<String>,
    validity: Option<Duration>,
    dns: Option<SocketAddr>,
    newest: Option<PathBuf>,
}

impl PebbleBuilder {
    /// Rejects so many of a hundred good nonces.
    #[must_use]
    pub fn rejecting_nonces(mut self, percent: u8) -> Self {
        self.nonce_reject = percent;
        self
    }

    /// Takes only accounts bound to this key identifier and key (base64url).
    #[must_use]
    pub fn binding(mut self, kid: &str, key: &str) -> Self {
        self.binding = Some((kid.to_owned(), key.to_owned()));
        self
    }

    /// Refuses this name, whoever has it.
    #[must_use]
    pub fn blocking(mut self, name: &str) -> Self {
        self.blocked.push(name.to_owned());
        self
    }

    /// Gives certificates this life.
    #[must_use]
    pub fn validity(mut self, life: Duration) -> Self {
        self.validity = Some(life);
        self
    }

    /// Asks this DNS server instead of its own.
    #[must_use]
    pub fn asking(mut self, dns: SocketAddr) -> Self {
        self.dns = Some(dns);
        self
    }

    /// With this binary, of a release that has renewal information and profiles (2.10).
    #[must_use]
    pub fn newest(mut self, program: &Path) -> Self {
        self.newest = Some(program.to_owned());
        self
    }

    /// Chooses ports and makes the files; [`Pebble::start`] starts it.
    ///
    /// # Panics
    /// When the Debian package `pebble` is not installed.
    pub fn build(self) -> Pebble {
        let program = self.newest.clone().unwrap_or_else(|| PathBuf::from("pebble"));
        for (program, package) in [(program.as_path(), "pebble"), (Path::new("pebble-challtestsrv"), "pebble")] {
            let found = Command::new(program).arg("-h").stdout(Stdio::null()).stderr(Stdio::null()).status();
            assert!(found.is_ok(), "{} does not run: install the Debian package {package}", program.display());
        }
        let dir = TempDir::with_prefix("pebble-").expect("a temporary directory");
        let root = make_listener_certificate(dir.path());
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(client_config(&root, &[]))
            .no_proxy()
            .build()
            .expect("a client");
        Pebble {
            dir,
            program,
            listen: ReservedPort::new(),
            management: ReservedPort::new(),
            dns: ReservedPort::new(),
            dns_management: ReservedPort::new(),
            client,
            gateway: None,
            pebble: None,
            dns_server: None,
            options: self,
        }
    }
}

/// Pebble speaks HTTPS: a CA for its own certificate, which clients trust. Gives it as PEM.
fn make_listener_certificate(dir: &Path) -> String {
    let ca_key = KeyPair::generate().expect("a key");
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).expect("a certificate");
    let issuer = Issuer::new(ca, ca_key);
    let key = KeyPair::generate().expect("a key");
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    let leaf = CertificateParams::new(names).expect("names").signed_by(&key, &issuer).expect("a certificate");
    let write = |name: &str, text: String| std::fs::write(dir.join(name), text).expect("a file of the test");
    write("ca.pem", ca_certificate.pem());
    write("server.pem", leaf.pem());
    write("server.key", key.serialize_pem());
    ca_certificate.pem()
}

impl Pebble {
    /// An ordinary one: certificates of 90 days, no nonce rejected, nothing reused.
    pub fn builder() -> PebbleBuilder {
        PebbleBuilder::default()
    }

    /// Its ACME directory.
    pub fn directory(&self) -> String {
        format!("https://{}/dir", self.listen)
    }

    /// The root of its own HTTPS: the setting `acme.root_ca`.
    pub fn root_ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Settings of a gateway that takes its certificates from here; more keys of `[acme]` may follow.
    pub fn settings(&self) -> String {
        format!(
            "[acme]\nissuer = \"acme\"\nname = \"pebble\"\ndirectory = \"{}\"\nroot_ca = \"{}\"\nterms_agreed = true\n",
            self.directory(),
            self.root_ca().display()
        )
    }

    /// Starts it, with its DNS, for a gateway on these ports. Waits until it answers.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(&mut self, http: SocketAddr, https: SocketAddr) {
        self.gateway = Some((http.port(), https.port()));
        if self.options.dns.is_none() {
            self.start_dns();
        }
        self.start_again().await;
    }

    /// Starts it again after [`Self::kill`]: it has forgotten everything, and has new roots.
    ///
    /// # Panics
    /// When it was never started, or does not start.
    pub async fn start_again(&mut self) {
        let config = self.dir.path().join("pebble.json");
        std::fs::write(&config, self.config().to_string()).expect("a file of the test");
        let dns = self.options.dns.unwrap_or(self.dns.addr());
        let mut command = Command::new(&self.program);
        command
            .args(["-config", &text(&config), "-dnsserver", &dns.to_string(), "-strict"])
            .env("PEBBLE_VA_NOSLEEP", "1")
            .env("PEBBLE_AUTHZREUSE", "0")
            .env("PEBBLE_WFE_NONCEREJECT", self.options.nonce_reject.to_string());
        self.pebble = Some(self.spawn(command, "pebble.log"));
        let (client, directory) = (self.client.clone(), self.directory());
        until(READY_WITHIN, || {
            let request = client.get(&directory).send();
            async move { request.await.ok()?.status().is_success().then_some(()) }
        })
        .await;
    }

    fn start_dns(&mut self) {
        let mut command = Command::new("pebble-challtestsrv");
        command.args([
            "-defaultIPv4",
            "127.0.0.1",
            "-defaultIPv6",
            "",
            "-http01",
            "",
            "-https01",
            "",
            "-tlsalpn01",
            "",
        ]);
        command.args(["-dns01", &self.dns.to_string(), "-management", &self.dns_management.to_string()]);
        self.dns_server = Some(self.spawn(command, "dns.log"));
    }

    fn config(&self) -> Value {
        let (http, https) = self.gateway.expect("`start` says where the gateway is");
        let path = |name: &str| text(&self.dir.path().join(name));
        let life = self.options.validity.unwrap_or(Duration::from_secs(90 * 86_400)).as_secs();
        let mut config = json!({
            "listenAddress": self.listen.to_string(), "managementListenAddress": self.management.to_string(),
            "certificate": path("server.pem"), "privateKey": path("server.key"),
            "httpPort": http, "tlsPort": https, "ocspResponderURL": "",
            "externalAccountBindingRequired": self.options.binding.is_some(),
            "domainBlocklist": self.options.blocked,
        });
        if let Some((kid, key)) = &self.options.binding {
            config["externalAccountMACKeys"] = json!({ kid: key });
        }
        if self.options.newest.is_some() {
            config["profiles"] = json!({
                "classic": { "description": "long", "validityPeriod": life },
                "shortlived": { "description": "six days", "validityPeriod": 576_000 },
            });
            config["retryAfter"] = json!({ "authz": 1, "order": 1 });
            config["keyAlgorithm"] = json!("ecdsa");
        } else {
            config["certificateValidityPeriod"] = json!(life);
        }
        json!({ "pebble": config })
    }

    fn spawn(&self, mut command: Command, log: &str) -> Child {
        let log = File::options().create(true).append(true).open(self.dir.path().join(log)).expect("a log file");
        command.stdin(Stdio::null()).stdout(log.try_clone().expect("a second handle")).stderr(log);
        command.spawn().unwrap_or_else(|e| panic!("{command:?} does not start: {e}"))
    }

    /// Kills the CA at once; its DNS goes on.
    pub fn kill(&mut self) {
        end(&mut self.pebble);
    }

    /// The root of the certificates that it issues, PEM.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn root(&self) -> String {
        let url = format!("https://{}/roots/0", self.management);
        let answer = self.client.get(url).send().await.expect("Pebble answers");
        answer.text().await.expect("a whole body")
    }

    /// Tells the newest Pebble what to answer about renewing a certificate.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn suggest_renewal(&self, certificate_pem: &str, answer: &Value) {
        let url = format!("https://{}/set-renewal-info/", self.management);
        let body = json!({ "Certificate": certificate_pem, "ARIResponse": answer.to_string() });
        let said = self.client.post(url).json(&body).send().await.expect("Pebble answers");
        assert!(said.status().is_success(), "{}", said.text().await.unwrap_or_default());
    }

    /// Has its DNS answer A queries without a record of their own with this address; empty: with none.
    ///
    /// # Panics
    /// When it does not answer.
    pub async fn point_at(&self, address: &str) {
        self.tell_dns("set-default-ipv4", json!({ "ip": address })).await;
    }

    async fn tell_dns(&self, what: &str, body: Value) {
        let url = format!("http://{}/{what}", self.dns_management);
        until(READY_WITHIN, || {
            let request = self.client.post(&url).json(&body).send();
            async move { request.await.ok()?.status().is_success().then_some(()) }
        })
        .await;
    }

    /// Orders that were placed here since it was first started.
    pub fn orders(&self) -> usize {
        self.log().matches("Added order").count()
    }

    /// Everything it wrote.
    pub fn log(&self) -> String {
        let mut log = String::new();
        for name in ["pebble.log", "dns.log"] {
            let bytes = std::fs::read(self.dir.path().join(name)).unwrap_or_default();
            let _ = write!(log, "{}", String::from_utf8_lossy(&bytes));
        }
        log
    }
}

impl Drop for Pebble {
    fn drop(&mut self) {
        end(&mut self.pebble);
        end(&mut self.dns_server);
        if std::thread::panicking() {
            let log = self.log();
            let tail = log.lines().rev().take(60).collect::<Vec<_>>();
            #[expect(clippy::print_stderr, reason = "shown beside the panic of the test")]
            {
                eprintln!("---- pebble, the last line first\n{}", tail.join("\n"));
            }
        }
    }
}

fn end(child: &mut Option<Child>) {
    if let Some(mut child) = child.take() {
        let _ = child.kill();
        let _ = child.wait();
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of a test is UTF-8").to_owned()
}
