//! `schoolgate keys`

use std::io::Write as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use super::api::{Api, Connection, Write};
use super::output::{self, Column};

/// What a list shows of a context key.
const COLUMNS: &[Column] = &[
    ("kid", "/kid"),
    ("state", "/state"),
    ("published", "/published_at"),
    ("signs from", "/signs_from"),
    ("retired", "/retired_at"),
    ("leaves from", "/leaves_from"),
];

/// `schoolgate keys …`
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Show which key-encryption key seals private keys, and how far a rotation is
    Show(KeysList),
    /// Put another key-encryption key in the place of the one that seals; everything goes on serving meanwhile
    Rotate(SealingRotate),
    /// List the keys that sign X-Tenant-Context: which signs, which will, which did
    #[command(alias = "list")]
    ListContext(KeysList),
    /// Make and publish the next key that signs X-Tenant-Context; it signs by itself when backends can know it
    RotateContext(KeysRotate),
}

/// `schoolgate keys list-context`
#[derive(Debug, Args)]
pub(crate) struct KeysList {
    #[command(flatten)]
    connection: Connection,
}

/// `schoolgate keys rotate-context`
#[derive(Debug, Args)]
pub(crate) struct KeysRotate {
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// `schoolgate keys rotate`
#[derive(Debug, Args)]
pub(crate) struct SealingRotate {
    /// Do not wait until it is done
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    connection: Connection,
}

/// Time between two looks at a rotation.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Begins a rotation, and tells of its steps until it is done.
async fn rotate(args: &SealingRotate) -> anyhow::Result<()> {
    let api = Api::connect(&args.connection)?;
    let mut now = api.write(Method::POST, &["sealing-keys", "rotate"], None, &Write::default()).await?;
    if args.no_wait {
        return output::object(api.format, &now);
    }
    let mut told = String::new();
    while output::text_at(&now, "/state") != "steady" {
        let mut step = output::text_at(&now, "/state");
        let waiting = output::text_at(&now, "/waiting_for");
        if !waiting.is_empty() {
            step = format!("{step}, waiting for {waiting}");
        }
        if step != told {
            writeln!(std::io::stderr(), "{step}")?;
            told = step;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        now = api.get(&["sealing-keys"], &[]).await?;
    }
    output::object(api.format, &now)
}

/// Does it.
pub(crate) async fn run(command: &KeysCommand) -> anyhow::Result<()> {
    match command {
        KeysCommand::Show(args) => {
            let api = Api::connect(&args.connection)?;
            output::object(api.format, &api.get(&["sealing-keys"], &[]).await?)
        }
        KeysCommand::Rotate(args) => rotate(args).await,
        KeysCommand::ListContext(args) => {
            let api = Api::connect(&args.connection)?;
            let answer = api.get(&["context-keys"], &[]).await?;
            let items = answer.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            output::list(api.format, items, COLUMNS)
        }
        KeysCommand::RotateContext(args) => {
            super::write(Method::POST, &["context-keys", "rotate"], None, &args.write, &args.connection).await
        }
    }
}
