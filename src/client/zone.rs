//! `schoolgate zone`

use clap::{Args, Subcommand};
use reqwest::Method;

use super::api::{Connection, Write};
use super::body::{Body, Fields};
use super::output::Column;
use super::{DeleteArgs, GetArgs, ListArgs};

const COLUMNS: &[Column] = &[
    ("name", "/name"),
    ("shared host", "/shared_host"),
    ("trusted callers", "/trusted_callers"),
    ("reserved", "/reserved"),
];

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
    /// A label that is no tenant; repeatable; in an update these replace all
    #[arg(long = "reserve", value_name = "LABEL")]
    reserved: Vec<String>,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

impl ZoneWrite {
    fn body(&self, name: Option<&str>) -> anyhow::Result<serde_json::Value> {
        Ok(Body::begin(&self.fields)?
            .field("name", name)
            .field("shared_host", self.shared_host.as_deref())
            .list("trusted_callers", &self.trusted_callers)
            .list("reserved", &self.reserved)
            .finish(&self.fields))
    }
}

/// Does it.
pub(crate) async fn run(command: &ZoneCommand) -> anyhow::Result<()> {
    match command {
        ZoneCommand::List(args) => super::list(&["zones"], args, &[], COLUMNS).await,
        ZoneCommand::Get(args) => super::get(&["zones", &args.id], &args.connection).await,
        ZoneCommand::Create(args) => {
            let body = args.body(Some(&args.name))?;
            super::write(Method::POST, &["zones"], Some(&body), &args.write, &args.connection).await
        }
        ZoneCommand::Update(args) => {
            let body = args.body(None)?;
            super::write(Method::PATCH, &["zones", &args.name], Some(&body), &args.write, &args.connection).await
        }
        ZoneCommand::Delete(args) => super::delete("zone", &["zones", &args.id], args).await,
    }
}
