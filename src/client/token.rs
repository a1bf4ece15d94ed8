//! `schoolgate token`

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Api, Connection, Write};
use super::output::{self, Format};
use super::resource::Resource;
use super::{DeleteArgs, tenant};

const TOKENS: Resource = Resource {
    noun: "token",
    collection: "tokens",
    columns: &[
        ("id", "/id"),
        ("name", "/name"),
        ("kind", "/kind"),
        ("role", "/role"),
        ("scopes", "/scopes"),
        ("tenants", "/tenants"),
        ("networks", "/networks"),
        ("expires", "/expires_at"),
        ("made by", "/created_by"),
    ],
};

/// `schoolgate token …`
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// List tokens, without their secrets
    List(TokenList),
    /// Make one; it is shown once
    Create(TokenCreate),
    /// Take one away: what it opened is closed at once
    #[command(alias = "delete")]
    Revoke(DeleteArgs),
}

/// `schoolgate token list`
#[derive(Debug, Args)]
pub(crate) struct TokenList {
    #[command(flatten)]
    connection: Connection,
}

/// `schoolgate token create`
#[derive(Debug, Args)]
pub(crate) struct TokenCreate {
    /// What people call it: who holds it, and where
    name: String,
    /// super-admin, operator, support, auditor, tenant-admin, tenant-viewer; or instance, for apps that register themselves
    #[arg(long)]
    role: String,
    /// What it is good for within the role, such as tenants:read; repeatable [default: all]
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// Only for this tenant (slug or id); repeatable [default: all]
    #[arg(long = "tenant", value_name = "TENANT")]
    tenants: Vec<String>,
    /// With --role instance: only into this pool; repeatable [default: all]
    #[arg(long = "pool", value_name = "POOL")]
    pools: Vec<String>,
    /// Only from this network; repeatable [default: all]
    #[arg(long = "network", value_name = "NETWORK")]
    networks: Vec<String>,
    /// When it ends, such as 2027-06-30T00:00:00Z [default: never]
    #[arg(long, value_name = "TIME")]
    expires_at: Option<String>,
    /// Write it to this new file, which only its owner can read, instead of showing it
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    #[command(flatten)]
    connection: Connection,
}

/// Does it.
pub(crate) async fn run(command: &TokenCommand) -> anyhow::Result<()> {
    match command {
        TokenCommand::List(args) => list(&args.connection).await,
        TokenCommand::Create(args) => create(args).await,
        TokenCommand::Revoke(args) => TOKENS.delete(&args.id, args).await,
    }
}

async fn list(connection: &Connection) -> anyhow::Result<()> {
    let api = Api::connect(connection)?;
    // Never long, so the API gives the list whole.
    let answer = api.get(&["tokens"], &[]).await?;
    let items = answer.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    output::list(api.format, items, TOKENS.columns)
}

async fn create(args: &TokenCreate) -> anyhow::Result<()> {
    let api = Api::connect(&args.connection)?;
    let mut tenants = Vec::new();
    for name in &args.tenants {
        let found = api.get(&["tenants", &tenant::tenant_key(name)], &[]).await?;
        tenants.push(found["id"].clone());
    }
    let body = json!({
        "name": args.name, "role": args.role, "scopes": args.scopes, "tenants": tenants, "networks": args.networks,
        "pools": args.pools, "expires_at": args.expires_at,
    });
    // The file comes first: a token that cannot be kept should not be made.
    let file = args.save.as_deref().map(SecretFile::create).transpose()?;
    let made = api.write(Method::POST, &["tokens"], Some(&body), &Write::default()).await?;
    let Some(file) = file else { return output::object(api.format, &made) };
    let path = file.keep(made["token"].as_str().context("the control API answered without the token")?)?;
    match api.format {
        Format::Json => output::json(&json!({ "id": made["id"], "file": path })),
        Format::People => output::line(&format!("token {} is in {}", output::text_at(&made, "/id"), path.display())),
    }
}

/// A new file for a secret; gone again unless the secret comes.
struct SecretFile {
    file: File,
    path: PathBuf,
    is_kept: bool,
}

impl SecretFile {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(path);
        let file = file.with_context(|| format!("{} cannot be made", path.display()))?;
        Ok(Self { file, path: path.to_owned(), is_kept: false })
    }

    fn keep(mut self, secret: &str) -> anyhow::Result<PathBuf> {
        writeln!(self.file, "{secret}")
            .and_then(|()| self.file.sync_all())
            .with_context(|| format!("{} cannot be written", self.path.display()))?;
        self.is_kept = true;
        Ok(self.path.clone())
    }
}

impl Drop for SecretFile {
    fn drop(&mut self) {
        if !self.is_kept {
            // Best effort: an empty file is in nobody's way but the next attempt's.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_kept_where_only_its_owner_reads_and_over_no_other_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("admin.token");
        drop(SecretFile::create(&path).unwrap());
        assert!(!path.exists(), "no token, no file");
        SecretFile::create(&path).unwrap().keep("sgk_a_b").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "sgk_a_b\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(SecretFile::create(&path).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "sgk_a_b\n");
    }
}
