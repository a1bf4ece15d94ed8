//! `schoolgate token-issuer`

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use super::api::{Connection, Write};
use super::body::Body;
use super::resource::Resource;
use super::{DeleteArgs, GetArgs, ListArgs, WriteArgs};

const ISSUERS: Resource = Resource {
    noun: "token issuer",
    collection: "token-issuers",
    columns: &[
        ("id", "/id"),
        ("issuer", "/issuer"),
        ("keys from", "/jwks_url"),
        ("file", "/jwks_file"),
        ("tenant", "/tenant_slug"),
        ("zone", "/zone"),
        ("fetched", "/fetched_at"),
        ("last error", "/last_error"),
    ],
};

/// `schoolgate token-issuer …`
#[derive(Debug, Subcommand)]
pub(crate) enum TokenIssuerCommand {
    /// List issuers of tokens, and how reading their keys goes
    List(ListArgs),
    /// Show one, with its keys
    Get(GetArgs),
    /// Create one: its tokens name schools from then on
    Create(Box<TokenIssuerWrite>),
    /// Change one; with a new source of keys, those it has stay until the source has answered
    Update(Box<TokenIssuerWrite>),
    /// Delete one: its tokens are a stranger's from then on
    Delete(DeleteArgs),
    /// Read its keys now
    Refresh(TokenIssuerRefresh),
}

/// `schoolgate token-issuer create`, `schoolgate token-issuer update`
#[derive(Debug, Args)]
pub(crate) struct TokenIssuerWrite {
    /// Its name here
    id: String,
    /// The `iss` of its tokens, to the letter
    #[arg(long, value_name = "TEXT")]
    issuer: Option<String>,
    /// Whom its tokens must be meant for (`aud`); repeatable; in an update these replace all
    #[arg(long = "audience", value_name = "TEXT")]
    audiences: Vec<String>,
    /// RS256, ES256 or EdDSA; repeatable [default: all three]; in an update these replace all
    #[arg(long = "algorithm", value_name = "NAME")]
    algorithms: Vec<String>,
    /// Where it publishes its keys: https://, or http:// on a loopback address
    #[arg(long, value_name = "URL", group = "source")]
    jwks_url: Option<String>,
    /// A file on the control plane's machine that has its keys
    #[arg(long, value_name = "FILE", group = "source")]
    jwks_file: Option<String>,
    /// Seconds by which its clock may differ
    #[arg(long, value_name = "SECONDS")]
    leeway_s: Option<u32>,
    /// The only tenant it can speak for (slug or id)
    #[arg(long, value_name = "TENANT")]
    tenant: Option<String>,
    /// The only zone on whose names it counts
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// A claim that names a tenant; repeatable; in an update these replace all
    #[arg(long = "claim", value_name = "NAME")]
    claims: Vec<String>,
    #[command(flatten)]
    how: WriteArgs,
}

/// `schoolgate token-issuer refresh`
#[derive(Debug, Args)]
pub(crate) struct TokenIssuerRefresh {
    /// Its name
    id: String,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

impl TokenIssuerWrite {
    fn body(&self, id: Option<&str>) -> anyhow::Result<Value> {
        let mut body = Body::begin(&self.how.fields)?;
        if self.jwks_url.is_some() || self.jwks_file.is_some() {
            // There is one source; what it was before goes.
            for source in ["jwks", "jwks_file", "jwks_url"] {
                body = body.field(source, Some(Value::Null));
            }
        }
        Ok(body
            .field("id", id)
            .field("issuer", self.issuer.as_deref())
            .list("audiences", &self.audiences)
            .list("algorithms", &self.algorithms)
            .field("jwks_url", self.jwks_url.as_deref())
            .field("jwks_file", self.jwks_file.as_deref())
            .field("leeway_s", self.leeway_s)
            .field("tenant", self.tenant.as_deref())
            .field("zone", self.zone.as_deref())
            .list("claims", &self.claims)
            .finish(&self.how.fields))
    }
}

/// Does it.
pub(crate) async fn run(command: &TokenIssuerCommand) -> anyhow::Result<()> {
    match command {
        TokenIssuerCommand::List(args) => ISSUERS.list(args, &[]).await,
        TokenIssuerCommand::Get(args) => ISSUERS.get(&args.id, &args.connection).await,
        TokenIssuerCommand::Create(args) => ISSUERS.create(&args.body(Some(&args.id))?, &args.how).await,
        TokenIssuerCommand::Update(args) => ISSUERS.update(&args.id, &args.body(None)?, &args.how).await,
        TokenIssuerCommand::Delete(args) => ISSUERS.delete(&args.id, args).await,
        TokenIssuerCommand::Refresh(args) => {
            let path = [ISSUERS.collection, &args.id, "refresh"];
            super::write(Method::POST, &path, None, &args.write, &args.connection).await
        }
    }
}
