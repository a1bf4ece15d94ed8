//! `schoolgate unknown-hosts`

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Api, Connection, Write};
use super::output::{self, Column};

const COLLECTION: &str = "unknown-hosts";
const COLUMNS: &[Column] = &[
    ("name", "/name"),
    ("count", "/count"),
    ("first seen", "/first_seen"),
    ("last seen", "/last_seen"),
    ("nodes", "/nodes"),
    ("ignored", "/ignored"),
];

/// `schoolgate unknown-hosts`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct UnknownHostsArgs {
    #[command(subcommand)]
    command: Option<UnknownHostsCommand>,
    #[command(flatten)]
    list: UnknownHostsList,
}

#[derive(Debug, Subcommand)]
enum UnknownHostsCommand {
    /// List them, the most wanted first (what no subcommand does)
    List(UnknownHostsList),
    /// Give one to a tenant: makes the domain
    Adopt(Adopt),
    /// Take one off the list
    Ignore(Ignore),
    /// Put an ignored one on the list again
    Unignore(Ignore),
}

#[derive(Debug, Args)]
struct UnknownHostsList {
    /// Those too that somebody ignores
    #[arg(long)]
    ignored: bool,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
struct Adopt {
    /// The host
    name: String,
    /// The tenant (slug or id)
    #[arg(long)]
    tenant: String,
    /// Make it the tenant's main name
    #[arg(long)]
    primary: bool,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

#[derive(Debug, Args)]
struct Ignore {
    /// The host
    name: String,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// Does it.
pub(crate) async fn run(args: &UnknownHostsArgs) -> anyhow::Result<()> {
    match &args.command {
        None => list(&args.list).await,
        Some(UnknownHostsCommand::List(args)) => list(args).await,
        Some(UnknownHostsCommand::Adopt(args)) => {
            let body = json!({ "tenant": args.tenant, "primary": args.primary });
            let path = [COLLECTION, &args.name, "adopt"];
            super::write(Method::POST, &path, Some(&body), &args.write, &args.connection).await
        }
        Some(UnknownHostsCommand::Ignore(args)) => {
            let path = [COLLECTION, &args.name, "ignore"];
            super::write(Method::POST, &path, None, &args.write, &args.connection).await
        }
        Some(UnknownHostsCommand::Unignore(args)) => {
            let path = [COLLECTION, &args.name, "ignore"];
            super::write(Method::DELETE, &path, None, &args.write, &args.connection).await
        }
    }
}

async fn list(args: &UnknownHostsList) -> anyhow::Result<()> {
    let api = Api::connect(&args.connection)?;
    let answer = api.get(&[COLLECTION], &[("ignored", args.ignored.to_string())]).await?;
    let hosts = answer.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    output::list(api.format, hosts, COLUMNS)
}
