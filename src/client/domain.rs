//! `schoolgate domain`

use clap::{Args, Subcommand};
use reqwest::Method;

use super::api::{Connection, Write};
use super::body::{Body, Fields};
use super::output::Column;
use super::{DeleteArgs, GetArgs, ListArgs};

pub(super) const COLUMNS: &[Column] = &[
    ("name", "/name"),
    ("tenant", "/tenant_slug"),
    ("ready", "/ready"),
    ("ownership", "/ownership"),
    ("routing", "/routing"),
    ("certificate", "/certificate"),
    ("primary", "/primary"),
];

/// `schoolgate domain …`
#[derive(Debug, Subcommand)]
pub(crate) enum DomainCommand {
    /// List domains
    List(DomainList),
    /// Show one, with the records to set and what blocks it
    Get(GetArgs),
    /// Give a tenant a name
    #[command(alias = "add")]
    Create(DomainCreate),
    /// Change one
    Update(DomainUpdate),
    /// Take a name away
    Delete(DeleteArgs),
}

/// `schoolgate domain list`
#[derive(Debug, Args)]
pub(crate) struct DomainList {
    /// Only those of this tenant (slug or id)
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    list: ListArgs,
}

/// `schoolgate domain create`
#[derive(Debug, Args)]
pub(crate) struct DomainCreate {
    /// The name, such as erp.greenhill.example
    name: String,
    /// Whose it is (slug or id)
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    rest: DomainFields,
}

/// `schoolgate domain update`
#[derive(Debug, Args)]
pub(crate) struct DomainUpdate {
    /// The name
    name: String,
    #[command(flatten)]
    rest: DomainFields,
}

#[derive(Debug, Args)]
struct DomainFields {
    /// Make it the tenant's main name
    #[arg(long)]
    primary: bool,
    #[command(flatten)]
    fields: Fields,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// Does it.
pub(crate) async fn run(command: &DomainCommand) -> anyhow::Result<()> {
    match command {
        DomainCommand::List(args) => {
            super::list(&["domains"], &args.list, &[("tenant", args.tenant.as_deref())], COLUMNS).await
        }
        DomainCommand::Get(args) => super::get(&["domains", &args.id], &args.connection).await,
        DomainCommand::Create(args) => {
            let DomainFields { primary, fields, write, connection } = &args.rest;
            let body = Body::begin(fields)?
                .field("name", Some(args.name.as_str()))
                .field("tenant", Some(args.tenant.as_str()))
                .field("primary", primary.then_some(true))
                .finish(fields);
            super::write(Method::POST, &["domains"], Some(&body), write, connection).await
        }
        DomainCommand::Update(args) => {
            let DomainFields { primary, fields, write, connection } = &args.rest;
            let body = Body::begin(fields)?.field("primary", primary.then_some(true)).finish(fields);
            super::write(Method::PATCH, &["domains", &args.name], Some(&body), write, connection).await
        }
        DomainCommand::Delete(args) => super::delete("domain", &["domains", &args.id], args).await,
    }
}
