//! `schoolgate domain`

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::json;

use super::api::{Api, Connection, Write};
use super::body::Body;
use super::output::Format;
use super::resource::Resource;
use super::{DeleteArgs, GetArgs, ListArgs, WriteArgs, ladder, output};

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
    /// Look at its DNS now, and show what is in the way, step by step
    Check(GetArgs),
    /// Show what the school sets in its DNS
    Instructions(Instructions),
    /// Ask for another tenant's name: gives the record that proves it
    Transfer(Transfer),
}

/// `schoolgate domain instructions`
#[derive(Debug, Args)]
pub(crate) struct Instructions {
    /// The name
    name: String,
    /// How they are written
    #[arg(long, value_enum, default_value_t)]
    format: InstructionFormat,
    #[command(flatten)]
    connection: Connection,
}

/// How instructions are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum InstructionFormat {
    /// A letter for the person who manages the DNS
    #[default]
    Text,
    /// Lines of a BIND zone file
    Bind,
}

/// `schoolgate domain transfer`
#[derive(Debug, Args)]
pub(crate) struct Transfer {
    /// The name
    name: String,
    /// Who asks for it (slug or id)
    #[arg(long, required_unless_present = "withdraw")]
    tenant: Option<String>,
    /// Withdraw the request
    #[arg(long, conflicts_with = "tenant")]
    withdraw: bool,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
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
        DomainCommand::Check(args) => check(args).await,
        DomainCommand::Instructions(args) => instructions(args).await,
        DomainCommand::Transfer(args) => transfer(args).await,
    }
}

async fn check(args: &GetArgs) -> anyhow::Result<()> {
    let api = Api::connect(&args.connection)?;
    let path = [DOMAINS.collection, &args.id, "check"];
    let domain = api.write(Method::POST, &path, None, &Write::default()).await?;
    match api.format {
        Format::Json => output::json(&domain),
        Format::People => output::line(&ladder::text(&domain, ladder::Marks::of_terminal())),
    }
}

async fn instructions(args: &Instructions) -> anyhow::Result<()> {
    let api = Api::connect(&args.connection)?;
    let path = [DOMAINS.collection, &args.name, "instructions"];
    if api.format == Format::Json {
        return output::json(&api.get(&path, &[]).await?);
    }
    let format = match args.format {
        InstructionFormat::Text => "text",
        InstructionFormat::Bind => "bind",
    };
    output::line(api.text(&path, &[("format", format.to_owned())]).await?.trim_end())
}

async fn transfer(args: &Transfer) -> anyhow::Result<()> {
    let path = [DOMAINS.collection, &args.name, "transfer"];
    let Some(tenant) = &args.tenant else {
        return super::write(Method::DELETE, &path, None, &args.write, &args.connection).await;
    };
    let body = json!({ "tenant": tenant });
    super::write(Method::POST, &path, Some(&body), &args.write, &args.connection).await
}
