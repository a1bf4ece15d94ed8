//! `schoolgate certificate`

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Api, Connection, Write};
use super::body::text_of;
use super::resource::Resource;
use super::{DeleteArgs, GetArgs, output};

const CERTIFICATES: Resource = Resource {
    noun: "certificate",
    collection: "certificates",
    columns: &[
        ("name", "/name"),
        ("state", "/state"),
        ("issuer", "/issuer"),
        ("until", "/not_after"),
        ("fingerprint", "/fingerprint"),
        ("brought", "/uploaded"),
        ("error", "/error"),
    ],
};

/// `schoolgate certificate …`
#[derive(Debug, Subcommand)]
pub(crate) enum CertificateCommand {
    /// List names that need a certificate, and what they have
    List(CertificateList),
    /// Show one, in service or revoked
    #[command(alias = "get")]
    Show(GetArgs),
    /// Print its chain as PEM: what every client is shown, never a key
    Chain(GetArgs),
    /// Bring one of your own; while it is valid it goes before those that are issued for its names
    Upload(CertificateUpload),
    /// Take away one that was brought; those that were issued for its names serve from then on
    Delete(DeleteArgs),
    /// Take one out of service for good, at once; names that it was issued for get another, and say until then that they
    /// are being set up
    Revoke(CertificateRevoke),
}

/// `schoolgate certificate list`
#[derive(Debug, Args)]
pub(crate) struct CertificateList {
    /// At most this many [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    #[command(flatten)]
    connection: Connection,
}

/// `schoolgate certificate upload`
#[derive(Debug, Args)]
pub(crate) struct CertificateUpload {
    /// PEM file of the certificate and its chain; `-` is standard input
    #[arg(long, value_name = "FILE")]
    chain: String,
    /// PEM file of its private key; `-` is standard input
    #[arg(long, value_name = "FILE")]
    key: String,
    /// Whose it is (slug or id); only names of this tenant are served with it
    #[arg(long)]
    tenant: Option<String>,
    /// A name to serve with it; repeatable [default: all of it that are proven here]
    #[arg(long = "domain", value_name = "NAME")]
    domains: Vec<String>,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// `schoolgate certificate revoke`
#[derive(Debug, Args)]
pub(crate) struct CertificateRevoke {
    /// Its fingerprint: SHA-256, hexadecimal
    fingerprint: String,
    /// unspecified, key_compromise, affiliation_changed, superseded or cessation_of_operation
    #[arg(long, value_name = "REASON")]
    reason: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

impl CertificateUpload {
    fn body(&self) -> anyhow::Result<Value> {
        if self.chain == "-" && self.key == "-" {
            anyhow::bail!("standard input cannot be both the chain and the key");
        }
        Ok(json!({
            "chain": text_of(&self.chain)?,
            "key": text_of(&self.key)?,
            "tenant": self.tenant,
            "domains": self.domains,
        }))
    }
}

/// Does it.
pub(crate) async fn run(command: &CertificateCommand) -> anyhow::Result<()> {
    match command {
        CertificateCommand::List(args) => {
            let api = Api::connect(&args.connection)?;
            let items = api.list(&[CERTIFICATES.collection], &[], args.limit.map(|n| n as usize)).await?;
            output::list(api.format, &items, CERTIFICATES.columns)
        }
        CertificateCommand::Show(args) => CERTIFICATES.get(&args.id, &args.connection).await,
        CertificateCommand::Chain(args) => {
            let api = Api::connect(&args.connection)?;
            let chain = api.text(&[CERTIFICATES.collection, &args.id, "chain"], &[]).await?;
            output::line(chain.trim_end())
        }
        CertificateCommand::Upload(args) => {
            let path = [CERTIFICATES.collection];
            super::write(Method::POST, &path, Some(&args.body()?), &args.write, &args.connection).await
        }
        CertificateCommand::Delete(args) => CERTIFICATES.delete(&args.id, args).await,
        CertificateCommand::Revoke(args) => {
            super::confirm(&format!("Revoke certificate {}?", args.fingerprint), args.yes)?;
            let path = [CERTIFICATES.collection, &args.fingerprint, "revoke"];
            let body = json!({ "reason": args.reason });
            super::write(Method::POST, &path, Some(&body), &args.write, &args.connection).await
        }
    }
}
