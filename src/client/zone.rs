//! `schoolgate zone`

use clap::{Args, Subcommand};

use super::body::Body;
use super::resource::Resource;
use super::{DeleteArgs, GetArgs, ListArgs, WriteArgs};

const ZONES: Resource = Resource {
    noun: "zone",
    collection: "zones",
    columns: &[
        ("name", "/name"),
        ("shared host", "/shared_host"),
        ("trusted callers", "/trusted_callers"),
        ("reserved", "/reserved"),
    ],
};

/// `schoolgate zone …`
#[derive(Debug, Subcommand)]
pub(crate) enum ZoneCommand {
    /// List zones
    List(ListArgs),
    /// Show one
    Get(GetArgs),
    /// Create one: its labels become names of schools
    Create(ZoneWrite),
    /// Change one
    Update(ZoneWrite),
    /// Delete one
    Delete(DeleteArgs),
}

/// `schoolgate zone create`, `schoolgate zone update`
#[derive(Debug, Args)]
pub(crate) struct ZoneWrite {
    /// Its name, such as schools.example
    name: String,
    /// A host of the zone that belongs to no tenant
    #[arg(long, value_name = "NAME")]
    shared_host: Option<String>,
    /// A network whose callers may name a tenant on the shared host; repeatable; in an update these replace all
    #[arg(long = "trusted-caller", value_name = "NETWORK")]
    trusted_callers: Vec<String>,
    /// Whether `/t/SLUG/…` names a tenant on the shared host
    #[arg(long, value_name = "true|false")]
    path_prefix: Option<bool>,
    /// Whether the shared host wants a token of every caller
    #[arg(long, value_name = "true|false")]
    require_token: Option<bool>,
    /// A label that is no tenant; repeatable; in an update these replace all
    #[arg(long = "reserve", value_name = "LABEL")]
    reserved: Vec<String>,
    #[command(flatten)]
    how: WriteArgs,
}

impl ZoneWrite {
    fn body(&self, name: Option<&str>) -> anyhow::Result<serde_json::Value> {
        Ok(Body::begin(&self.how.fields)?
            .field("name", name)
            .field("shared_host", self.shared_host.as_deref())
            .list("trusted_callers", &self.trusted_callers)
            .field("path_prefix", self.path_prefix)
            .field("require_token", self.require_token)
            .list("reserved", &self.reserved)
            .finish(&self.how.fields))
    }
}

/// Does it.
pub(crate) async fn run(command: &ZoneCommand) -> anyhow::Result<()> {
    match command {
        ZoneCommand::List(args) => ZONES.list(args, &[]).await,
        ZoneCommand::Get(args) => ZONES.get(&args.id, &args.connection).await,
        ZoneCommand::Create(args) => ZONES.create(&args.body(Some(&args.name))?, &args.how).await,
        ZoneCommand::Update(args) => ZONES.update(&args.name, &args.body(None)?, &args.how).await,
        ZoneCommand::Delete(args) => ZONES.delete(&args.id, args).await,
    }
}
