//! `schoolgate keys`

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

/// Does it.
pub(crate) async fn run(command: &KeysCommand) -> anyhow::Result<()> {
    match command {
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
