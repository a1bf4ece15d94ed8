//! `schoolgate route`

use clap::{Args, Subcommand};

use super::body::Body;
use super::resource::Resource;
use super::{DeleteArgs, GetArgs, ListArgs, WriteArgs};

const ROUTES: Resource = Resource {
    noun: "route",
    collection: "routes",
    columns: &[
        ("id", "/id"),
        ("tenant", "/tenant"),
        ("for pool", "/pool"),
        ("priority", "/priority"),
        ("prefix", "/match/path_prefix"),
        ("exact", "/match/path_exact"),
        ("methods", "/match/methods"),
        ("to pool", "/action/pool"),
        ("files", "/action/files/path"),
    ],
};

/// `schoolgate route …`
#[derive(Debug, Subcommand)]
pub(crate) enum RouteCommand {
    /// List routes
    List(RouteList),
    /// Show one
    Get(GetArgs),
    /// Create one: for a tenant, for a pool, or for all
    Create(RouteFields),
    /// Change one
    Update(RouteUpdate),
    /// Delete one
    Delete(DeleteArgs),
}

/// `schoolgate route list`
#[derive(Debug, Args)]
pub(crate) struct RouteList {
    /// Only those of this tenant (slug or id)
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    list: ListArgs,
}

/// `schoolgate route update`
#[derive(Debug, Args)]
pub(crate) struct RouteUpdate {
    /// Its id
    id: String,
    #[command(flatten)]
    fields: RouteFields,
}

/// `schoolgate route create`
#[derive(Debug, Args)]
pub(crate) struct RouteFields {
    /// Only for this tenant (slug or id)
    #[arg(long)]
    tenant: Option<String>,
    /// Only for tenants on this pool
    #[arg(long)]
    pool: Option<String>,
    /// Routes are asked from the highest to the lowest
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i32>,
    /// The path is this or continues it at a `/`
    #[arg(long, value_name = "PATH")]
    path_prefix: Option<String>,
    /// The path is exactly this
    #[arg(long, value_name = "PATH")]
    path_exact: Option<String>,
    /// The method; repeatable
    #[arg(long = "method", value_name = "METHOD")]
    methods: Vec<String>,
    /// Forward to this pool
    #[arg(long, value_name = "POOL")]
    to_pool: Option<String>,
    /// Answer with this file, or the files of this directory, of each gateway's `proxy.files.dir`
    #[arg(long, value_name = "PATH", conflicts_with = "to_pool")]
    files: Option<String>,
    #[command(flatten)]
    how: WriteArgs,
}

impl RouteFields {
    fn body(&self) -> anyhow::Result<serde_json::Value> {
        Ok(Body::begin(&self.how.fields)?
            .field("tenant", self.tenant.as_deref())
            .field("pool", self.pool.as_deref())
            .field("priority", self.priority)
            .field("match.path_prefix", self.path_prefix.as_deref())
            .field("match.path_exact", self.path_exact.as_deref())
            .list("match.methods", &self.methods)
            .field("action.pool", self.to_pool.as_deref())
            .field("action.files.path", self.files.as_deref())
            .finish(&self.how.fields))
    }
}

/// Does it.
pub(crate) async fn run(command: &RouteCommand) -> anyhow::Result<()> {
    match command {
        RouteCommand::List(args) => ROUTES.list(&args.list, &[("tenant", args.tenant.as_deref())]).await,
        RouteCommand::Get(args) => ROUTES.get(&args.id, &args.connection).await,
        RouteCommand::Create(args) => ROUTES.create(&args.body()?, &args.how).await,
        RouteCommand::Update(args) => ROUTES.update(&args.id, &args.fields.body()?, &args.fields.how).await,
        RouteCommand::Delete(args) => ROUTES.delete(&args.id, args).await,
    }
}
