//! `schoolgate limits`

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;

use super::api::{Api, Connection, Write};
use super::output::{self, Format};
use super::tenant::tenant_key;

const COLUMNS: &[output::Column] = &[
    ("limit", "/limit"),
    ("value", "/value"),
    ("from", "/from"),
    ("mode", "/mode"),
    ("plan", "/plan"),
    ("override", "/override/value"),
    ("until", "/override/expires_at"),
    ("reason", "/override/reason"),
    ("cap", "/platform_cap"),
    ("used", "/used"),
];

/// `schoolgate limits …`
#[derive(Debug, Subcommand)]
pub(crate) enum LimitsCommand {
    /// Show every limit of a school, and where each comes from
    Show(Show),
    /// Put a value in the place of a limit for a while; it ends by itself
    Override(Override),
    /// Take an override away: the plan's limit holds again
    Clear(Clear),
}

/// `schoolgate limits show`
#[derive(Debug, Args)]
pub(crate) struct Show {
    /// Slug or id of the school
    tenant: String,
    #[command(flatten)]
    connection: Connection,
}

/// `schoolgate limits override`
#[derive(Debug, Args)]
pub(crate) struct Override {
    /// Slug or id of the school
    tenant: String,
    /// The limit, such as requests_per_minute
    limit: String,
    /// What it is meanwhile
    value: u64,
    /// Why
    #[arg(long)]
    reason: String,
    /// From when, such as 2026-11-20T08:00:00Z [default: now]
    #[arg(long, value_name = "TIME")]
    starts_at: Option<String>,
    /// Until when; without it, until it is cleared
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// `schoolgate limits clear`
#[derive(Debug, Args)]
pub(crate) struct Clear {
    /// Slug or id of the school
    tenant: String,
    /// The limit, such as requests_per_minute
    limit: String,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// Does it.
pub(crate) async fn run(command: &LimitsCommand) -> anyhow::Result<()> {
    match command {
        LimitsCommand::Show(args) => {
            let api = Api::connect(&args.connection)?;
            let answer = api.get(&["tenants", &tenant_key(&args.tenant), "limits"], &[]).await?;
            match api.format {
                Format::Json => output::json(&answer),
                Format::People => {
                    let rows = answer["limits"].as_array().map(Vec::as_slice).unwrap_or_default();
                    output::list(api.format, rows, COLUMNS)
                }
            }
        }
        LimitsCommand::Override(args) => {
            let body = json!({
                "value": args.value, "reason": args.reason,
                "starts_at": args.starts_at, "expires_at": args.expires_at,
            });
            let path = ["tenants", &tenant_key(&args.tenant), "overrides", &args.limit];
            super::write(Method::PUT, &path, Some(&body), &args.write, &args.connection).await
        }
        LimitsCommand::Clear(args) => {
            let path = ["tenants", &tenant_key(&args.tenant), "overrides", &args.limit];
            super::write(Method::DELETE, &path, None, &args.write, &args.connection).await
        }
    }
}
