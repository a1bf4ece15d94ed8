//! `schoolgate tenant`

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Api, Connection, Write};
use super::body::{Body, Fields, switch};
use super::maintenance::Maintenance;
use super::resource::Resource;
use super::{DeleteArgs, GetArgs, ListArgs, WriteArgs};

const TENANTS: Resource = Resource {
    noun: "tenant",
    collection: "tenants",
    columns: &[
        ("slug", "/slug"),
        ("name", "/name"),
        ("state", "/state"),
        ("plan", "/plan"),
        ("pool", "/pool"),
        ("id", "/id"),
    ],
};

/// `schoolgate tenant …`
#[derive(Debug, Subcommand)]
pub(crate) enum TenantCommand {
    /// List tenants
    List(TenantList),
    /// Show one, by slug or id
    Get(GetArgs),
    /// Create one
    Create(TenantCreate),
    /// Change one
    Update(TenantUpdate),
    /// Delete one
    Delete(DeleteArgs),
    /// Refuse its visitors with 403
    Suspend(Action),
    /// Serve it again
    Resume(Action),
    /// Answer its visitors with 503 and Retry-After, now or in a window
    Maintenance(Maintenance),
    /// Keep it, and do not serve it
    Archive(Action),
    /// Bring back an archived one
    Restore(Action),
    /// Move it to another plan, another pool, or both, while its visitors go on
    Migrate(Migrate),
    /// List its domains
    Domains(GetArgs),
}

/// `schoolgate tenant list`
#[derive(Debug, Args)]
pub(crate) struct TenantList {
    /// Only those in this state
    #[arg(long)]
    state: Option<String>,
    /// Only those on this plan
    #[arg(long)]
    plan: Option<String>,
    /// Only those on this pool
    #[arg(long)]
    pool: Option<String>,
    #[command(flatten)]
    list: ListArgs,
}

/// Fields of a tenant that have flags.
#[derive(Debug, Args)]
struct TenantFields {
    /// What people call the school
    #[arg(long)]
    name: Option<String>,
    /// The plan its limits and features come from
    #[arg(long)]
    plan: Option<String>,
    /// The pool that serves it
    #[arg(long)]
    pool: Option<String>,
    /// The operator's own reference
    #[arg(long, value_name = "TEXT")]
    external_id: Option<String>,
    /// Switch a feature: `--feature lms`, `--feature lms=no`; repeatable
    #[arg(long = "feature", value_name = "NAME[=yes|no]", value_parser = switch)]
    features: Vec<(String, bool)>,
    #[command(flatten)]
    how: WriteArgs,
}

/// `schoolgate tenant create`
#[derive(Debug, Args)]
pub(crate) struct TenantCreate {
    /// Short name: a DNS label, unique
    slug: String,
    #[command(flatten)]
    fields: TenantFields,
}

/// `schoolgate tenant update`
#[derive(Debug, Args)]
pub(crate) struct TenantUpdate {
    /// Slug or id
    id: String,
    /// A new slug
    #[arg(long)]
    slug: Option<String>,
    #[command(flatten)]
    fields: TenantFields,
}

/// `schoolgate tenant migrate`
#[derive(Debug, Args)]
pub(crate) struct Migrate {
    /// Slug or id
    id: String,
    /// The plan it is to be on
    #[arg(long)]
    plan: Option<String>,
    /// The pool it is to be on [default: its own, or one of its own where the plan wants that]
    #[arg(long)]
    pool: Option<String>,
    /// Follow it until it ends; the exit status says whether it was done
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// `schoolgate tenant suspend`, …
#[derive(Debug, Args)]
pub(crate) struct Action {
    /// Slug or id
    id: String,
    /// Why, for operators; visitors never see it
    #[arg(long)]
    reason: Option<String>,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

impl TenantFields {
    fn body(&self, slug: Option<&str>) -> anyhow::Result<Value> {
        let mut body = Body::begin(&self.how.fields)?
            .field("slug", slug)
            .field("name", self.name.as_deref())
            .field("plan", self.plan.as_deref())
            .field("pool", self.pool.as_deref())
            .field("external_id", self.external_id.as_deref());
        for (feature, on) in &self.features {
            body = body.field(&format!("features.{feature}"), Some(*on));
        }
        Ok(body.finish(&self.how.fields))
    }
}

/// The API's name for a tenant that people name by its slug.
pub(super) fn tenant_key(id: &str) -> String {
    if id.starts_with("tnt_") || id.contains(':') { id.to_owned() } else { format!("slug:{id}") }
}

/// Does it.
pub(crate) async fn run(command: &TenantCommand) -> anyhow::Result<()> {
    match command {
        TenantCommand::List(args) => {
            let filters =
                [("state", args.state.as_deref()), ("plan", args.plan.as_deref()), ("pool", args.pool.as_deref())];
            TENANTS.list(&args.list, &filters).await
        }
        TenantCommand::Get(args) => TENANTS.get(&tenant_key(&args.id), &args.connection).await,
        TenantCommand::Create(args) => TENANTS.create(&args.fields.body(Some(&args.slug))?, &args.fields.how).await,
        TenantCommand::Update(args) => {
            let body = args.fields.body(args.slug.as_deref())?;
            TENANTS.update(&tenant_key(&args.id), &body, &args.fields.how).await
        }
        TenantCommand::Delete(args) => TENANTS.delete(&tenant_key(&args.id), args).await,
        TenantCommand::Suspend(args) => act("suspend", args).await,
        TenantCommand::Resume(args) => act("resume", args).await,
        TenantCommand::Maintenance(args) => {
            let path = ["tenants", &tenant_key(&args.id), "maintenance"];
            let Maintenance { window, .. } = args;
            super::write(Method::POST, &path, Some(&window.body()), &window.write, &window.connection).await
        }
        TenantCommand::Archive(args) => act("archive", args).await,
        TenantCommand::Restore(args) => act("restore", args).await,
        TenantCommand::Migrate(args) => migrate(args).await,
        TenantCommand::Domains(args) => {
            let api = Api::connect(&args.connection)?;
            let items = api.list(&["tenants", &tenant_key(&args.id), "domains"], &[], None).await?;
            super::output::list(api.format, &items, super::domain::DOMAINS.columns)
        }
    }
}

async fn migrate(args: &Migrate) -> anyhow::Result<()> {
    let fields = Fields::default();
    let body =
        Body::begin(&fields)?.field("plan", args.plan.as_deref()).field("pool", args.pool.as_deref()).finish(&fields);
    let path = ["tenants", &tenant_key(&args.id), "migrate"];
    if !args.watch || args.write.dry_run {
        return super::write(Method::POST, &path, Some(&body), &args.write, &args.connection).await;
    }
    let api = Api::connect(&args.connection)?;
    let begun = api.write(Method::POST, &path, Some(&body), &args.write).await?;
    super::operation::watch(&api, &super::output::text_at(&begun, "/id")).await
}

async fn act(action: &str, args: &Action) -> anyhow::Result<()> {
    let body = args.reason.as_ref().map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    let path = ["tenants", &tenant_key(&args.id), action];
    super::write(Method::POST, &path, Some(&body), &args.write, &args.connection).await
}
