//! `schoolgate plan`

use clap::{Args, Subcommand};

use super::body::Body;
use super::resource::Resource;
use super::{DeleteArgs, GetArgs, ListArgs, WriteArgs};

const PLANS: Resource = Resource {
    noun: "plan",
    collection: "plans",
    columns: &[
        ("id", "/id"),
        ("name", "/name"),
        ("requests/min", "/limits/requests_per_minute"),
        ("requests/day", "/limits/requests_per_day/value"),
        ("in flight", "/limits/in_flight"),
        ("domains", "/limits/custom_domains"),
        ("pool kind", "/pool_kind"),
        ("features", "/features"),
    ],
};

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
    how: WriteArgs,
}

impl PlanWrite {
    fn body(&self, id: Option<&str>) -> anyhow::Result<serde_json::Value> {
        Ok(Body::begin(&self.how.fields)?
            .field("id", id)
            .field("name", self.name.as_deref())
            .field("limits.requests_per_minute", self.requests_per_minute)
            .field("limits.in_flight", self.in_flight)
            .field("limits.body_bytes", self.body_bytes)
            .list("features", &self.features)
            .finish(&self.how.fields))
    }
}

/// Does it.
pub(crate) async fn run(command: &PlanCommand) -> anyhow::Result<()> {
    match command {
        PlanCommand::List(args) => PLANS.list(args, &[]).await,
        PlanCommand::Get(args) => PLANS.get(&args.id, &args.connection).await,
        PlanCommand::Create(args) => PLANS.create(&args.body(Some(&args.id))?, &args.how).await,
        PlanCommand::Update(args) => PLANS.update(&args.id, &args.body(None)?, &args.how).await,
        PlanCommand::Delete(args) => PLANS.delete(&args.id, args).await,
    }
}
