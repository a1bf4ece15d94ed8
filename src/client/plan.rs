//! `schoolgate plan`

use clap::{Args, Subcommand};
use reqwest::Method;

use super::api::{Connection, Write};
use super::body::{Body, Fields};
use super::output::Column;
use super::{DeleteArgs, GetArgs, ListArgs};

const COLUMNS: &[Column] = &[
    ("id", "/id"),
    ("name", "/name"),
    ("requests/min", "/limits/requests_per_minute"),
    ("requests/day", "/limits/requests_per_day/value"),
    ("in flight", "/limits/in_flight"),
    ("domains", "/limits/custom_domains"),
    ("pool kind", "/pool_kind"),
    ("features", "/features"),
];

/// `schoolgate plan …`
#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// List plans
    List(ListArgs),
    /// Show one
    Get(GetArgs),
    /// Create one
    Create(PlanWrite),
    /// Change one
    Update(PlanWrite),
    /// Delete one
    Delete(DeleteArgs),
}

/// `schoolgate plan create`, `schoolgate plan update`
#[derive(Debug, Args)]
pub(crate) struct PlanWrite {
    /// Its name in the API
    id: String,
    /// What people call it
    #[arg(long)]
    name: Option<String>,
    /// Requests per minute
    #[arg(long, value_name = "N")]
    requests_per_minute: Option<u64>,
    /// Requests at the same time
    #[arg(long, value_name = "N")]
    in_flight: Option<u64>,
    /// Bytes of one request body
    #[arg(long, value_name = "BYTES")]
    body_bytes: Option<u64>,
    /// A feature that every tenant of the plan has; repeatable; in an update these replace all
    #[arg(long = "feature", value_name = "NAME")]
    features: Vec<String>,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

impl PlanWrite {
    fn body(&self, id: Option<&str>) -> anyhow::Result<serde_json::Value> {
        Ok(Body::begin(&self.fields)?
            .field("id", id)
            .field("name", self.name.as_deref())
            .field("limits.requests_per_minute", self.requests_per_minute)
            .field("limits.in_flight", self.in_flight)
            .field("limits.body_bytes", self.body_bytes)
            .list("features", &self.features)
            .finish(&self.fields))
    }
}

/// Does it.
pub(crate) async fn run(command: &PlanCommand) -> anyhow::Result<()> {
    match command {
        PlanCommand::List(args) => super::list(&["plans"], args, &[], COLUMNS).await,
        PlanCommand::Get(args) => super::get(&["plans", &args.id], &args.connection).await,
        PlanCommand::Create(args) => {
            let body = args.body(Some(&args.id))?;
            super::write(Method::POST, &["plans"], Some(&body), &args.write, &args.connection).await
        }
        PlanCommand::Update(args) => {
            let body = args.body(None)?;
            super::write(Method::PATCH, &["plans", &args.id], Some(&body), &args.write, &args.connection).await
        }
        PlanCommand::Delete(args) => super::delete("plan", &["plans", &args.id], args).await,
    }
}
