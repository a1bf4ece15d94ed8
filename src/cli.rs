//! Subcommands and flags. No logic: what a flag means is said where it is used.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::admin::snapshot::SnapshotCommand;
use crate::client;

/// The gateway in front of one school platform with hundreds or thousands of schools.
///
/// Without a command it does what `schoolgate up --demo` does: starts everything in ./data with three demo schools.
#[derive(Debug, Parser)]
#[command(name = "schoolgate", version, max_term_width = 110, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    /// What to do; `up --demo` when absent.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const EXIT_CODES: &str = "\
Exit codes: 0 done; 1 it failed, and the last line on standard error says why; 2 the command line was not understood; \
78 the settings cannot be used.

Settings come from the file given with --config, then from the environment (SCHOOLGATE__PROXY__HTTPS=0.0.0.0:443), then \
from flags; the later wins.";

/// A subcommand.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run everything: proxy, control API, certificate worker, school-app instances
    Up(UpArgs),
    /// Run the data plane alone; it follows a control process and serves without one
    Proxy(ProxyArgs),
    /// Run the control API, the publisher and the certificate worker
    Control(ControlArgs),
    /// Run one instance of the school app
    SchoolApp(SchoolAppArgs),

    /// Schools: list, get, create, update, suspend, …
    #[command(subcommand)]
    Tenant(client::tenant::TenantCommand),
    /// Names of schools: list, get, create, update, delete
    #[command(subcommand)]
    Domain(client::domain::DomainCommand),
    /// Certificates: list, show, chain, upload, delete, revoke
    #[command(subcommand)]
    Certificate(client::certificate::CertificateCommand),
    /// Pools and their backends: list, get, create, update, delete, add-backend, drain, …
    #[command(subcommand)]
    Pool(client::pool::PoolCommand),
    /// Plans: list, get, create, update, delete
    #[command(subcommand)]
    Plan(client::plan::PlanCommand),
    /// Limits of a school: show, override, clear
    #[command(subcommand)]
    Limits(client::limits::LimitsCommand),
    /// Routes: list, get, create, update, delete
    #[command(subcommand)]
    Route(client::route::RouteCommand),
    /// Maintenance of the whole platform: show, begin, end
    #[command(subcommand)]
    Maintenance(client::maintenance::MaintenanceCommand),
    /// What takes a while, such as moving a school: list, show, watch, cancel
    #[command(subcommand)]
    Operation(client::operation::OperationCommand),
    /// Zones: list, get, create, update, delete
    #[command(subcommand)]
    Zone(client::zone::ZoneCommand),
    /// Tokens of the control API: list, create, revoke
    #[command(subcommand)]
    Token(client::token::TokenCommand),
    /// Issuers of tokens that name schools: list, get, create, update, delete, refresh
    #[command(subcommand)]
    TokenIssuer(client::token_issuer::TokenIssuerCommand),
    /// Hosts that clients ask for and no school has: list, adopt, ignore, unignore
    UnknownHosts(client::unknown_hosts::UnknownHostsArgs),
    /// What schools used: requests, bytes, latency; as CSV for billing
    Usage(client::usage::UsageArgs),
    /// Certificates of an ACME authority: queue, budget, retry
    #[command(subcommand)]
    Acme(client::acme::AcmeCommand),
    /// Keys of the gateway itself: show, rotate, list-context, rotate-context
    #[command(subcommand)]
    Keys(client::keys::KeysCommand),
    /// How it is: nodes, revisions, certificates, backends
    Status(client::status::StatusArgs),
    /// Say why a request goes where it goes: every step of the decision
    Explain(client::explain::ExplainArgs),
    /// Test the running gateway: whether one school can be reached through another
    #[command(subcommand)]
    Selftest(client::selftest::SelftestCommand),

    /// Check settings, store and sealed keys, and say what is wrong
    Check(SettingsArgs),
    /// Show a snapshot as text
    #[command(subcommand)]
    Snapshot(SnapshotCommand),
}

/// Where settings come from.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct SettingsArgs {
    /// Settings file (TOML)
    #[arg(long, value_name = "FILE", env = "SCHOOLGATE_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where everything that outlives a restart is [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// File of the key-encryption key.
    #[arg(long, value_name = "FILE", help = "File of the key-encryption key [default: <data>/keys/kek]")]
    pub(crate) keys_file: Option<PathBuf>,
    /// What is logged: `info`, or directives such as `info,schoolgate_proxy=debug`
    #[arg(long, value_name = "DIRECTIVES")]
    pub(crate) log: Option<String>,
}

/// Addresses of the data plane. Port 0 takes any free one.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ListenArgs {
    /// Address for plain HTTP [default: 0.0.0.0:8080]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) http: Option<SocketAddr>,
    /// Address for HTTPS [default: 0.0.0.0:8443]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) https: Option<SocketAddr>,
    /// Private address for health and metrics [default: 127.0.0.1:8610]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) status: Option<SocketAddr>,
    /// Worker threads; 0 is one per core [default: 0]
    #[arg(long, value_name = "N")]
    pub(crate) workers: Option<usize>,
    /// The name this node reports under [default: node-1]
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
}

/// The addresses of the control API and of the name server, and the platform's zones.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct ApiArgs {
    /// Address of the control API [default: 127.0.0.1:8600]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) control: Option<SocketAddr>,
    /// Address of our own name server for what schools delegate to us, UDP and TCP [default: it does not run]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) dns: Option<SocketAddr>,
    /// A zone whose labels are schools, made at the first start; repeatable [default: localhost]
    #[arg(long = "zone", value_name = "ZONE")]
    pub(crate) zones: Vec<String>,
}

/// `schoolgate up`
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct UpArgs {
    /// Create three demo schools: Greenhill, Riverside and Lincoln
    #[arg(long)]
    pub(crate) demo: bool,
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// `schoolgate proxy`
#[derive(Debug, Clone, Args)]
pub(crate) struct ProxyArgs {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    #[command(flatten)]
    pub(crate) listen: ListenArgs,
    /// Where a control process listens, `http://host:port`; repeatable, tried in order [default: http://127.0.0.1:8600]
    #[arg(long = "control-url", value_name = "URL")]
    pub(crate) control_urls: Vec<String>,
    /// File of the node token, written by the control process.
    #[arg(
        long,
        value_name = "FILE",
        help = "File of the node token, written by the control process [default: <data>/node.token]"
    )]
    pub(crate) node_token_file: Option<PathBuf>,
}

/// `schoolgate control`
#[derive(Debug, Clone, Args)]
pub(crate) struct ControlArgs {
    #[command(flatten)]
    pub(crate) settings: SettingsArgs,
    #[command(flatten)]
    pub(crate) api: ApiArgs,
}

/// `schoolgate school-app`
#[derive(Debug, Clone, Args)]
pub(crate) struct SchoolAppArgs {
    #[command(flatten)]
    pub(crate) options: schoolgate_backend_app::Options,
    /// What is logged: `info`, or directives
    #[arg(long, value_name = "DIRECTIVES", default_value = "info")]
    pub(crate) log: String,
    /// The process that supervises this one, and whose end ends it
    #[arg(long, value_name = "PID", hide = true)]
    pub(crate) parent_pid: Option<u32>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_is_a_command_line_too() {
        assert!(Cli::try_parse_from(["schoolgate"]).unwrap().command.is_none());
    }

    #[test]
    fn addresses_directories_and_zones_have_flags() {
        let line = "schoolgate up --demo --http 127.0.0.1:0 --https [::1]:0 --status 127.0.0.1:0 --control 127.0.0.1:0 \
                    --dns 127.0.0.1:0 --data-dir /tmp/x --zone localhost --zone schools.test --workers 1";
        let Some(Command::Up(up)) = Cli::try_parse_from(line.split_whitespace()).unwrap().command else {
            panic!("another command");
        };
        assert!(up.demo);
        assert_eq!(up.api.zones, ["localhost", "schools.test"]);
        assert_eq!(up.listen.workers, Some(1));
        assert_eq!(up.api.dns, "127.0.0.1:0".parse().ok());
    }

    #[test]
    fn an_address_without_a_port_is_refused() {
        let error = Cli::try_parse_from(["schoolgate", "up", "--http", "127.0.0.1"]).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("--http"), "{error}");
    }

    #[test]
    fn every_resource_can_be_listed_read_made_changed_and_removed() {
        for resource in ["tenant", "domain", "pool", "plan", "route", "zone"] {
            let command = Cli::command();
            let found = command.find_subcommand(resource).unwrap();
            for verb in ["list", "get", "create", "update", "delete"] {
                assert!(found.find_subcommand(verb).is_some(), "schoolgate {resource} {verb} is missing");
            }
        }
    }
}
