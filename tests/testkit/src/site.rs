//! A running gateway.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};

use tempfile::TempDir;

use crate::process::{Addresses, Process, StartError};
use crate::{Api, Client, ClientBuilder, Http, Link, ReservedPort, TlsConn};

/// The gateway in a directory of its own, on ports of its own. Killed, with all that it started, when dropped; when
/// the test panics its logs are shown.
#[derive(Debug)]
pub struct Site {
    /// `schoolgate up`, or `schoolgate proxy` of a split site.
    pub proxy: Process,
    /// `schoolgate control` of a split site.
    pub control: Option<Process>,
    /// The path by which the proxy of a split site reaches the control plane: to be stalled, cut, refused.
    pub control_link: Option<Link>,
    addresses: Addresses,
    data: PathBuf,
    control_data: PathBuf,
    builder: SiteBuilder,
    /// A restart is found where it was.
    _ports: Vec<ReservedPort>,
    /// Kept last: removed when everything that writes there has ended.
    _dir: TempDir,
}

/// How a [`Site`] begins.
#[derive(Debug, Clone)]
pub struct SiteBuilder {
    program: PathBuf,
    demo: bool,
    settings: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    data: Option<PathBuf>,
}

impl SiteBuilder {
    /// With the three demo schools.
    #[must_use]
    pub fn demo(mut self) -> Self {
        self.demo = true;
        self
    }

    /// With this settings file (TOML). Addresses and the data directory are flags and win over it.
    #[must_use]
    pub fn settings(mut self, toml: &str) -> Self {
        self.settings.push_str(toml);
        self.settings.push('\n');
        self
    }

    /// With one more argument of `schoolgate up` (or of both processes of a split site).
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// With an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With so many school-app instances in the pool `shared`. A test with origins of its own needs none.
    #[must_use]
    pub fn school_apps(self, instances: u32) -> Self {
        self.env("SCHOOLGATE__SCHOOL_APP__INSTANCES", &instances.to_string())
    }

    /// In this data directory, which stays, instead of a temporary one.
    #[must_use]
    pub fn data_dir(mut self, data: impl Into<PathBuf>) -> Self {
        self.data = Some(data.into());
        self
    }

    /// Everything in one process: `schoolgate up`.
    ///
    /// # Panics
    /// When it does not become ready; shows why.
    pub async fn up(self) -> Site {
        self.try_up().await.unwrap_or_else(|e| panic!("schoolgate up {e}"))
    }

    /// `schoolgate up`, which may fail.
    ///
    /// # Errors
    /// [`StartError`] has the exit status and the log.
    pub async fn try_up(self) -> Result<Site, StartError> {
        let dir = TempDir::with_prefix("schoolgate-").expect("a temporary directory");
        let data = self.data.clone().unwrap_or_else(|| dir.path().join("data"));
        let mut ports = Vec::new();
        let mut args = vec!["up".to_owned()];
        args.extend(self.demo.then(|| "--demo".to_owned()));
        self.common_args(&mut args, dir.path(), &data);
        for flag in ["--http", "--https", "--control", "--status"] {
            args.extend([flag.to_owned(), reserve(&mut ports)]);
        }
        let mut up = Process::new("up", &self.program, args, dir.path(), &data);
        up.env(&self.env);
        let addresses = up.start().await?;
        let control_data = data.clone();
        Ok(Site {
            proxy: up,
            control: None,
            control_link: None,
            addresses,
            data,
            control_data,
            builder: self,
            _ports: ports,
            _dir: dir,
        })
    }

    /// Two processes, `schoolgate control` and `schoolgate proxy`, each with its own data directory, joined by a
    /// [`Link`]. Names under `localhost` and `test` count as owned, as in `up`.
    ///
    /// # Panics
    /// When one does not become ready; shows why.
    pub async fn split(self) -> Site {
        self.try_split().await.unwrap_or_else(|e| panic!("schoolgate {e}"))
    }

    /// Two processes, one of which may fail.
    ///
    /// # Errors
    /// [`StartError`] has the exit status and the log of the first that did not become ready.
    pub async fn try_split(self) -> Result<Site, StartError> {
        let dir = TempDir::with_prefix("schoolgate-").expect("a temporary directory");
        let root = self.data.clone().unwrap_or_else(|| dir.path().to_owned());
        let (control_data, data) = (root.join("control"), root.join("proxy"));

        let mut ports = Vec::new();
        let mut args = vec!["control".to_owned()];
        self.common_args(&mut args, dir.path(), &control_data);
        args.extend(["--control".to_owned(), reserve(&mut ports)]);
        let mut control = Process::new("control", &self.program, args, dir.path(), &control_data);
        control.env(&[("SCHOOLGATE__PLATFORM__ASSUME_OWNED".to_owned(), "localhost,test".to_owned())]);
        control.env(&self.env);
        let control_addr = control.start().await?.control;
        let link = Link::to(control_addr.expect("the control process listens")).await;

        let mut proxy = self.proxy((dir.path(), &data), (link.addr(), &control_data), &mut ports);
        let addresses = Addresses { control: control_addr, ..proxy.start().await? };
        Ok(Site {
            proxy,
            control: Some(control),
            control_link: Some(link),
            addresses,
            data,
            control_data,
            builder: self,
            _ports: ports,
            _dir: dir,
        })
    }

    /// `schoolgate proxy` in a directory, following the control plane at an address.
    fn proxy(
        &self,
        (dir, data): (&Path, &Path),
        (control, control_data): (SocketAddr, &Path),
        ports: &mut Vec<ReservedPort>,
    ) -> Process {
        let mut args = vec!["proxy".to_owned()];
        self.common_args(&mut args, dir, data);
        for flag in ["--http", "--https", "--status"] {
            args.extend([flag.to_owned(), reserve(ports)]);
        }
        let mut proxy = Process::new("proxy", &self.program, args, dir, data);
        proxy.env(&[
            ("SCHOOLGATE__PROXY__CONTROL".to_owned(), format!("http://{control}")),
            ("SCHOOLGATE__PROXY__NODE_TOKEN_FILE".to_owned(), text(&control_data.join("node.token"))),
            ("SCHOOLGATE__KEYS__FILE".to_owned(), text(&control_data.join("keys/kek"))),
        ]);
        proxy.env(&self.env);
        proxy
    }

    fn common_args(&self, args: &mut Vec<String>, dir: &Path, data: &Path) {
        if !self.settings.is_empty() {
            let file = dir.join("schoolgate.toml");
            std::fs::write(&file, &self.settings).expect("a settings file in the test's directory");
            args.extend(["--config".to_owned(), text(&file)]);
        }
        args.extend(["--data-dir".to_owned(), text(data)]);
        args.extend(self.args.iter().cloned());
    }
}

impl Site {
    /// A site of this binary: `Site::builder(env!("CARGO_BIN_EXE_schoolgate"))`.
    pub fn builder(program: impl Into<PathBuf>) -> SiteBuilder {
        SiteBuilder {
            program: program.into(),
            demo: false,
            settings: String::new(),
            args: Vec::new(),
            // Sites run side by side; instances of the school app take any free port.
            env: vec![("SCHOOLGATE__SCHOOL_APP__LISTEN".to_owned(), "127.0.0.1:0".to_owned())],
            data: None,
        }
    }

    /// Where visitors find HTTPS.
    pub fn https(&self) -> SocketAddr {
        self.addresses.https.expect("the proxy listens for HTTPS")
    }

    /// Where visitors find HTTP.
    pub fn http(&self) -> SocketAddr {
        self.addresses.http.expect("the proxy listens for HTTP")
    }

    /// Where the control API is.
    pub fn control_addr(&self) -> SocketAddr {
        self.addresses.control.expect("the control process listens")
    }

    /// The proxy's private listener: `/healthz`, `/readyz`, `/metrics`.
    pub fn status_addr(&self) -> SocketAddr {
        self.addresses.status.expect("the proxy has a status listener")
    }

    /// The data directory (of the proxy, in a split site).
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The data directory of the control plane.
    pub fn control_data(&self) -> &Path {
        &self.control_data
    }

    /// The certificate of the site's own CA, as PEM.
    ///
    /// # Panics
    /// When the site has not written it.
    pub fn ca(&self) -> String {
        self.read_control("ca.pem")
    }

    /// The token of the super-admin.
    ///
    /// # Panics
    /// When the site has not written it.
    pub fn token(&self) -> String {
        self.read_control("admin.token").trim().to_owned()
    }

    /// The control API, as the super-admin.
    pub fn api(&self) -> Api {
        Api::new(self.control_addr(), Some(&self.token()))
    }

    /// A visitor of `https://{host}`, with the HTTP version that the site prefers.
    pub fn client(&self, host: &str) -> Client {
        self.visitor(host).build()
    }

    /// A visitor of `https://{host}` with this version of HTTP.
    pub fn client_with(&self, host: &str, http: Http) -> Client {
        self.visitor(host).http(http).build()
    }

    /// One more proxy of a split site, in a directory of its own, which follows the same control plane.
    ///
    /// # Panics
    /// When the site is not split, or the proxy does not become ready; shows why.
    pub async fn another_proxy(&self, node: &str) -> AnotherProxy {
        let dir = self._dir.path().join(node);
        std::fs::create_dir(&dir).expect("a directory in the test's own");
        let mut ports = Vec::new();
        let control = (self.control_addr(), self.control_data.as_path());
        let mut process = self.builder.proxy((&dir, &dir.join("data")), control, &mut ports);
        process.env(&[("SCHOOLGATE__PROXY__NODE".to_owned(), node.to_owned())]);
        let addresses = process.start().await.unwrap_or_else(|e| panic!("schoolgate proxy {node} {e}"));
        AnotherProxy { process, addresses, _ports: ports }
    }

    /// A visitor of `https://{host}` who comes to another proxy.
    pub fn client_of(&self, proxy: &AnotherProxy, host: &str) -> Client {
        let https = proxy.addresses.https.expect("the proxy listens for HTTPS");
        Client::builder(https).base(format!("https://{host}")).ca(self.ca()).build()
    }

    /// A visitor of `http://{host}`.
    pub fn plain_client(&self, host: &str) -> Client {
        Client::builder(self.http()).base(format!("http://{host}")).http(Http::One).build()
    }

    /// A TLS connection for HTTP/1.1 by hand.
    ///
    /// # Errors
    /// What TCP or TLS said.
    pub async fn tls(&self, sni: &str) -> std::io::Result<TlsConn> {
        TlsConn::connect(self.https(), sni, &["http/1.1"], &self.ca()).await
    }

    /// The proxy's metrics as text.
    pub async fn metrics(&self) -> String {
        Client::plain(self.status_addr()).get("/metrics").await.text().await.expect("a whole body")
    }

    /// The sum of the samples whose name is `name` and whose labels contain all of `labels` (such as `tenant="a"`).
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let text = self.metrics().await;
        let samples = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels.iter().all(|label| line.contains(label))
        });
        samples.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Runs another command of the same binary to its end, without settings of its own: `&["tenant", "list"]`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn run(&self, args: &[&str]) -> Output {
        Command::new(&self.builder.program).args(args).output().expect("the binary starts")
    }

    /// Everything that all processes wrote.
    pub fn log(&self) -> String {
        self.processes().map(Process::log).collect()
    }

    /// Stops everything as Ctrl-C does: the proxy first.
    pub async fn stop(&mut self) -> ExitStatus {
        let exit = self.proxy.stop().await;
        if let Some(control) = &mut self.control {
            control.stop().await;
        }
        exit
    }

    /// Kills everything at once.
    pub fn kill(&mut self) {
        self.proxy.kill();
        if let Some(control) = &mut self.control {
            control.kill();
        }
    }

    /// Starts what does not run, on the addresses it had.
    ///
    /// # Panics
    /// When it does not become ready; shows why.
    pub async fn start(&mut self) {
        self.try_start().await.unwrap_or_else(|e| panic!("schoolgate {e}"));
    }

    /// Starts what does not run, on the addresses it had.
    ///
    /// # Errors
    /// [`StartError`] has the exit status and the log.
    pub async fn try_start(&mut self) -> Result<(), StartError> {
        if let Some(control) = &mut self.control
            && !control.is_running()
        {
            control.start().await?;
        }
        self.try_start_proxy().await
    }

    /// Starts the proxy of a split site, whether its control plane runs or not.
    ///
    /// # Panics
    /// When it does not become ready; shows why.
    pub async fn start_proxy(&mut self) {
        self.try_start_proxy().await.unwrap_or_else(|e| panic!("schoolgate proxy {e}"));
    }

    async fn try_start_proxy(&mut self) -> Result<(), StartError> {
        if !self.proxy.is_running() {
            self.proxy.start().await?;
        }
        Ok(())
    }

    /// Kills everything and starts it again on the same addresses.
    ///
    /// # Panics
    /// When it does not become ready; shows why.
    pub async fn restart(&mut self) {
        self.kill();
        self.start().await;
    }

    fn visitor(&self, host: &str) -> ClientBuilder {
        Client::builder(self.https()).base(format!("https://{host}")).ca(self.ca())
    }

    fn read_control(&self, file: &str) -> String {
        let path = self.control_data.join(file);
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("cannot read {}: {e}", path.display()))
    }

    fn processes(&self) -> impl Iterator<Item = &Process> {
        self.control.iter().chain(std::iter::once(&self.proxy))
    }
}

/// A proxy beside that of a split site. Killed when dropped.
#[derive(Debug)]
pub struct AnotherProxy {
    process: Process,
    addresses: Addresses,
    _ports: Vec<ReservedPort>,
}

impl Drop for AnotherProxy {
    fn drop(&mut self) {
        self.process.kill();
        if std::thread::panicking() {
            self.process.dump();
        }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            self.processes().for_each(Process::dump);
        }
    }
}

/// Takes one more port and gives its address.
fn reserve(ports: &mut Vec<ReservedPort>) -> String {
    let port = ReservedPort::new();
    let address = port.to_string();
    ports.push(port);
    address
}

fn text(path: &Path) -> String {
    path.to_str().expect("a path of a test is UTF-8").to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A stand-in for the binary: writes what it was given as its addresses, then waits or ends.
    const STAND_IN: &str = r#"#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
        --data-dir) data=$2 ;;
        --http) http=$2 ;;
    esac
    shift
done
echo "started with $http"
[ -n "$FAILS" ] && { echo "no room" >&2; exit 3; }
mkdir -p "$data/run"
echo "{\"http\":\"$http\"}" > "$data/run/addresses.json.new"
mv "$data/run/addresses.json.new" "$data/run/addresses.json"
sleep 1000 &
trap 'kill $!; exit 0' INT
wait
"#;

    fn stand_in(dir: &TempDir) -> PathBuf {
        let program = dir.path().join("schoolgate");
        std::fs::write(&program, STAND_IN).expect("written");
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("executable");
        program
    }

    #[tokio::test]
    async fn a_site_restarts_on_the_addresses_it_had_and_stops() {
        let dir = TempDir::new().expect("a directory");
        let mut site = Site::builder(stand_in(&dir)).up().await;
        let first = site.http();
        site.restart().await;
        assert_eq!(site.http(), first);
        assert!(site.log().ends_with(&format!("started with {first}\n").repeat(2)));
        assert!(site.proxy.is_running());
        assert!(site.stop().await.success());
        assert!(!site.proxy.is_running());
    }

    #[tokio::test]
    async fn a_site_that_does_not_start_says_why() {
        let dir = TempDir::new().expect("a directory");
        let error = Site::builder(stand_in(&dir)).env("FAILS", "1").try_up().await.expect_err("it ends");
        assert_eq!(error.exit.and_then(|exit| exit.code()), Some(3));
        assert!(error.to_string().contains("no room"));
    }
}
