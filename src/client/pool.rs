//! `schoolgate pool`

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::json;

use super::api::{Api, Connection, Write};
use super::body::{Body, Fields};
use super::maintenance::Maintenance;
use super::output::Column;
use super::resource::Resource;
use super::{DeleteArgs, GetArgs, ListArgs, WriteArgs};

const POOLS: Resource = Resource {
    noun: "pool",
    collection: "pools",
    columns: &[("id", "/id"), ("kind", "/kind"), ("balance", "/balance"), ("backends", "/backend_list")],
};
const BACKEND_COLUMNS: &[Column] =
    &[("id", "/id"), ("address", "/address"), ("weight", "/weight"), ("state", "/state")];

/// `schoolgate pool …`
#[derive(Debug, Subcommand)]
pub(crate) enum PoolCommand {
    /// List pools
    List(ListArgs),
    /// Show one
    Get(GetArgs),
    /// Create one
    Create(PoolWrite),
    /// Change one
    Update(PoolWrite),
    /// Delete one
    Delete(DeleteArgs),
    /// List the backends of a pool
    Backends(GetArgs),
    /// Add a backend
    AddBackend(BackendAdd),
    /// Change a backend's weight
    UpdateBackend(BackendUpdate),
    /// Remove a backend
    RemoveBackend(BackendAction),
    /// Give a backend no new requests
    Drain(BackendAction),
    /// Give a backend requests again
    Undrain(BackendAction),
    /// Show a certificate to https:// backends that ask who we are
    SetClientCertificate(ClientCertificateSet),
    /// Show none any more
    RemoveClientCertificate(ClientCertificateRemove),
    /// Answer visitors of all its tenants with 503 and Retry-After, now or in a window
    Maintenance(Maintenance),
    /// Serve its tenants again
    Resume(PoolResume),
}

/// `schoolgate pool set-client-certificate`
#[derive(Debug, Args)]
pub(crate) struct ClientCertificateSet {
    /// The pool
    pool: String,
    /// File with the certificate and what leads to its CA, PEM
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// File with its private key, PEM, not encrypted; it is sealed, and never shown again
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// `schoolgate pool remove-client-certificate`
#[derive(Debug, Args)]
pub(crate) struct ClientCertificateRemove {
    /// The pool
    pool: String,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// `schoolgate pool create`, `schoolgate pool update`
#[derive(Debug, Args)]
pub(crate) struct PoolWrite {
    /// Its name
    id: String,
    /// Whether many tenants live on it: shared or dedicated
    #[arg(long)]
    kind: Option<String>,
    /// How a backend is chosen: least_request, round_robin, tenant_hash or sticky
    #[arg(long)]
    balance: Option<String>,
    /// A backend's address: http://IP:PORT, https://IP:PORT, h2c://IP:PORT or unix:/PATH; repeatable; in an update these replace all
    #[arg(long = "backend", value_name = "ADDRESS")]
    backends: Vec<String>,
    #[command(flatten)]
    how: WriteArgs,
}

/// `schoolgate pool add-backend`
#[derive(Debug, Args)]
pub(crate) struct BackendAdd {
    /// The pool
    pool: String,
    /// The backend's address: http://IP:PORT, https://IP:PORT, h2c://IP:PORT or unix:/PATH
    address: String,
    /// Its share beside the others', 1-1000
    #[arg(long)]
    weight: Option<u16>,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// `schoolgate pool update-backend`
#[derive(Debug, Args)]
pub(crate) struct BackendUpdate {
    /// The pool
    pool: String,
    /// The backend's id (be_…) or address
    backend: String,
    /// Its share beside the others', 1-1000
    #[arg(long)]
    weight: Option<u16>,
    /// active, draining or disabled
    #[arg(long)]
    state: Option<String>,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// `schoolgate pool resume`
#[derive(Debug, Args)]
pub(crate) struct PoolResume {
    /// Its name
    id: String,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// `schoolgate pool drain`, …
#[derive(Debug, Args)]
pub(crate) struct BackendAction {
    /// The pool
    pool: String,
    /// The backend's id (be_…) or address
    backend: String,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// Does it.
pub(crate) async fn run(command: &PoolCommand) -> anyhow::Result<()> {
    match command {
        PoolCommand::List(args) => list(args).await,
        PoolCommand::Get(args) => POOLS.get(&args.id, &args.connection).await,
        PoolCommand::Create(args) => POOLS.create(&args.body(Some(&args.id))?, &args.how).await,
        PoolCommand::Update(args) => POOLS.update(&args.id, &args.body(None)?, &args.how).await,
        PoolCommand::Delete(args) => POOLS.delete(&args.id, args).await,
        PoolCommand::Backends(args) => {
            let api = Api::connect(&args.connection)?;
            let pool = api.get(&["pools", &args.id], &[]).await?;
            super::output::list(api.format, backends_of(&pool), BACKEND_COLUMNS)
        }
        PoolCommand::AddBackend(args) => {
            let mut body = json!({ "address": args.address });
            if let Some(weight) = args.weight {
                body["weight"] = weight.into();
            }
            let path = ["pools", &args.pool, "backends"];
            super::write(Method::POST, &path, Some(&body), &args.write, &args.connection).await
        }
        PoolCommand::UpdateBackend(args) => {
            let id = find_backend(&args.pool, &args.backend, &args.connection).await?;
            let fields = Fields::default();
            let body = Body::begin(&fields)?
                .field("weight", args.weight)
                .field("state", args.state.as_deref())
                .finish(&fields);
            let path = ["pools", &args.pool, "backends", &id];
            super::write(Method::PATCH, &path, Some(&body), &args.write, &args.connection).await
        }
        PoolCommand::RemoveBackend(args) => {
            let id = find_backend(&args.pool, &args.backend, &args.connection).await?;
            let path = ["pools", &args.pool, "backends", &id];
            super::write(Method::DELETE, &path, None, &args.write, &args.connection).await
        }
        PoolCommand::SetClientCertificate(args) => {
            let read = |file: &Path| {
                std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
            };
            let body = json!({ "certificate": read(&args.certificate)?, "key": read(&args.key)? });
            let path = ["pools", &args.pool, "client-certificate"];
            super::write(Method::PUT, &path, Some(&body), &args.write, &args.connection).await
        }
        PoolCommand::RemoveClientCertificate(args) => {
            let path = ["pools", &args.pool, "client-certificate"];
            super::write(Method::DELETE, &path, None, &args.write, &args.connection).await
        }
        PoolCommand::Drain(args) => act("drain", args).await,
        PoolCommand::Undrain(args) => act("undrain", args).await,
        PoolCommand::Maintenance(args) => {
            let path = ["pools", &args.id, "maintenance"];
            let Maintenance { window, .. } = args;
            super::write(Method::POST, &path, Some(&window.body()), &window.write, &window.connection).await
        }
        PoolCommand::Resume(args) => {
            super::write(Method::POST, &["pools", &args.id, "resume"], None, &args.write, &args.connection).await
        }
    }
}

impl PoolWrite {
    fn body(&self, id: Option<&str>) -> anyhow::Result<serde_json::Value> {
        let backends: Vec<_> = self.backends.iter().map(|address| json!({ "address": address })).collect();
        Ok(Body::begin(&self.how.fields)?
            .field("id", id)
            .field("kind", self.kind.as_deref())
            .field("balance", self.balance.as_deref())
            .field("backends", (!backends.is_empty()).then_some(backends))
            .finish(&self.how.fields))
    }
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let api = Api::connect(&args.connection)?;
    let mut items = POOLS.find(&api, args, &[]).await?;
    if api.format == super::output::Format::People {
        for pool in &mut items {
            let backends: Vec<_> = backends_of(pool).iter().map(describe).collect();
            pool["backend_list"] = backends.into();
        }
    }
    super::output::list(api.format, &items, POOLS.columns)
}

fn backends_of(pool: &serde_json::Value) -> &[serde_json::Value] {
    pool.get("backends").and_then(|backends| backends.as_array()).map_or(&[], Vec::as_slice)
}

fn describe(backend: &serde_json::Value) -> String {
    let address = super::output::text_at(backend, "/address");
    match super::output::text_at(backend, "/state").as_str() {
        "" | "active" => address,
        state => format!("{address} ({state})"),
    }
}

async fn act(action: &str, args: &BackendAction) -> anyhow::Result<()> {
    let id = find_backend(&args.pool, &args.backend, &args.connection).await?;
    let path = ["pools", &args.pool, "backends", &id, action];
    super::write(Method::POST, &path, None, &args.write, &args.connection).await
}

/// People know a backend by its address, the API by its id.
async fn find_backend(pool: &str, backend: &str, connection: &Connection) -> anyhow::Result<String> {
    if backend.starts_with("be_") {
        return Ok(backend.to_owned());
    }
    let found = Api::connect(connection)?.get(&["pools", pool], &[]).await?;
    backends_of(&found)
        .iter()
        .find(|candidate| super::output::text_at(candidate, "/address") == backend)
        .map(|candidate| super::output::text_at(candidate, "/id"))
        .ok_or_else(|| {
            anyhow::anyhow!("the pool {pool} has no backend {backend}; `schoolgate pool backends {pool}` lists them")
        })
}
