//! The command line over the control API: a file per resource.

pub(crate) mod acme;
mod api;
mod body;
pub(crate) mod certificate;
pub(crate) mod domain;
pub(crate) mod explain;
pub(crate) mod keys;
mod ladder;
pub(crate) mod limits;
pub(crate) mod maintenance;
pub(crate) mod operation;
mod output;
pub(crate) mod plan;
pub(crate) mod pool;
mod resource;
pub(crate) mod route;
pub(crate) mod selftest;
pub(crate) mod status;
pub(crate) mod tenant;
pub(crate) mod token;
pub(crate) mod token_issuer;
pub(crate) mod unknown_hosts;
pub(crate) mod usage;
pub(crate) mod zone;

use std::io::{BufRead, IsTerminal, Write as _};

use anyhow::bail;
use clap::Args;
use reqwest::Method;
use serde_json::Value;

use api::{Api, Connection, Write};
use body::Fields;

/// Runs a command of the client to its end.
pub(crate) fn run(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    // The only global of the process that a library wants: which cryptography a TLS client uses. An installed one stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}

/// Which part of a list.
#[derive(Debug, Clone, Args)]
pub(crate) struct ListArgs {
    /// Only those with this text in their name
    #[arg(long, value_name = "TEXT")]
    search: Option<String>,
    /// At most this many [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    #[command(flatten)]
    connection: Connection,
}

/// One object.
#[derive(Debug, Clone, Args)]
pub(crate) struct GetArgs {
    /// Its name or identifier
    id: String,
    #[command(flatten)]
    connection: Connection,
}

/// One object to remove.
#[derive(Debug, Clone, Args)]
pub(crate) struct DeleteArgs {
    /// Its name or identifier
    id: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// How an object is written: fields that have no flag of their own, and the options that all writes have.
#[derive(Debug, Clone, Args)]
pub(crate) struct WriteArgs {
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// Makes, changes or acts on one object, and shows it.
async fn write(
    method: Method,
    path: &[&str],
    body: Option<&Value>,
    write: &Write,
    connection: &Connection,
) -> anyhow::Result<()> {
    let api = Api::connect(connection)?;
    let answer = api.write(method, path, body, write).await?;
    match (api.format, answer) {
        (_, Value::Null) => Ok(()),
        (output::Format::Json, answer) => output::json(&answer),
        (output::Format::People, mut answer) => {
            // Who waited knows by the command having succeeded that every proxy serves it.
            let fields = answer.as_object_mut();
            let above = fields.and_then(|fields| {
                fields.remove("applied");
                fields.remove("above_limits")
            });
            output::object(api.format, &answer)?;
            above.map_or(Ok(()), |above| above_limits(&above))
        }
    }
}

/// Whom a write would leave above a limit.
fn above_limits(above: &Value) -> anyhow::Result<()> {
    const COLUMNS: &[output::Column] =
        &[("tenant", "/slug"), ("limit", "/limit"), ("would be", "/value"), ("used", "/used"), ("when", "/measured")];
    let rows = above["tenants"].as_array().map(Vec::as_slice).unwrap_or_default();
    output::line(&format!("\n{} tenants would be above a limit (nothing is taken from them):", above["total"]))?;
    output::list(output::Format::People, rows, COLUMNS)
}

/// Asks on a terminal; elsewhere nobody could answer, so `--yes` has to be given.
fn confirm(question: &str, yes: bool) -> anyhow::Result<()> {
    if yes {
        return Ok(());
    }
    if !std::io::stdin().is_terminal() {
        bail!("nothing was done: give --yes when nobody is there to be asked");
    }
    write!(std::io::stderr(), "{question} [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { bail!("nothing was done") }
}
