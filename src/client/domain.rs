//! `schoolgate domain`

use clap::{Args, Subcommand};

use super::body::Body;
use super::resource::Resource;
use super::{DeleteArgs, GetArgs, ListArgs, WriteArgs};

pub(super) const DOMAINS: Resource = Resource {
    noun: "domain",
    collection: "domains",
    columns: &[
        ("name", "/name"),
        ("tenant", "/tenant_slug"),
        ("ready", "/ready"),
        ("ownership", "/ownership"),
        ("routing", "/routing"),
        ("certificate", "/certificate"),
        ("primary", "/primary"),
    ],
};

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
    how: WriteArgs,
}

impl DomainFields {
    fn body(&self, names: &[(&str, &str)]) -> anyhow::Result<serde_json::Value> {
        let mut body = Body::begin(&self.how.fields)?;
        for (field, value) in names {
            body = body.field(field, Some(*value));
        }
        Ok(body.field("primary", self.primary.then_some(true)).finish(&self.how.fields))
    }
}

/// Does it.
pub(crate) async fn run(command: &DomainCommand) -> anyhow::Result<()> {
    match command {
        DomainCommand::List(args) => DOMAINS.list(&args.list, &[("tenant", args.tenant.as_deref())]).await,
        DomainCommand::Get(args) => DOMAINS.get(&args.id, &args.connection).await,
        DomainCommand::Create(args) => {
            let names = [("name", args.name.as_str()), ("tenant", args.tenant.as_str())];
            DOMAINS.create(&args.rest.body(&names)?, &args.rest.how).await
        }
        DomainCommand::Update(args) => DOMAINS.update(&args.name, &args.rest.body(&[])?, &args.rest.how).await,
        DomainCommand::Delete(args) => DOMAINS.delete(&args.id, args).await,
    }
}
