//! `schoolgate operation`, and following one.

use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use super::GetArgs;
use super::api::{Api, Connection, Write};
use super::output::{self, Column, Format, text_at};

const COLUMNS: &[Column] = &[
    ("id", "/id"),
    ("kind", "/kind"),
    ("tenant", "/tenant"),
    ("state", "/state"),
    ("step", "/step"),
    ("percent", "/percent"),
    ("to pool", "/to/pool"),
    ("to plan", "/to/plan"),
];

/// Time between two looks: 500 ms.
const LOOK: Duration = Duration::from_millis(500);

/// `schoolgate operation …`
#[derive(Debug, Subcommand)]
pub(crate) enum OperationCommand {
    /// List operations, the latest first
    List(OperationList),
    /// Show one, step by step
    Show(GetArgs),
    /// Follow one until it ends; the exit status says whether it was done
    Watch(GetArgs),
    /// Undo one that is under way
    Cancel(OperationCancel),
}

/// `schoolgate operation list`
#[derive(Debug, Args)]
pub(crate) struct OperationList {
    /// Only those of this tenant (slug or id)
    #[arg(long)]
    tenant: Option<String>,
    /// Only those in this state: running, reverting, succeeded, reverted or failed
    #[arg(long)]
    state: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 100)]
    limit: usize,
    #[command(flatten)]
    connection: Connection,
}

/// `schoolgate operation cancel`
#[derive(Debug, Args)]
pub(crate) struct OperationCancel {
    /// Its id (op_…)
    id: String,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// Does it.
pub(crate) async fn run(command: &OperationCommand) -> anyhow::Result<()> {
    match command {
        OperationCommand::List(args) => {
            let api = Api::connect(&args.connection)?;
            let mut query = Vec::new();
            query.extend(args.tenant.clone().map(|tenant| ("tenant", tenant)));
            query.extend(args.state.clone().map(|state| ("state", state)));
            output::list(api.format, &api.list(&["operations"], &query, Some(args.limit)).await?, COLUMNS)
        }
        OperationCommand::Show(args) => {
            let api = Api::connect(&args.connection)?;
            output::object(api.format, &api.get(&["operations", &args.id], &[]).await?)
        }
        OperationCommand::Watch(args) => watch(&Api::connect(&args.connection)?, &args.id).await,
        OperationCommand::Cancel(args) => {
            let path = ["operations", &args.id, "cancel"];
            super::write(Method::POST, &path, None, &args.write, &args.connection).await
        }
    }
}

/// Shows each step of an operation as it is done, until it ends.
///
/// # Errors
/// It did not succeed.
pub(super) async fn watch(api: &Api, id: &str) -> anyhow::Result<()> {
    let mut shown = 0;
    loop {
        let operation = api.get(&["operations", id], &[]).await?;
        let steps = operation["steps"].as_array().map_or(&[][..], Vec::as_slice);
        if api.format == Format::People {
            for step in &steps[shown.min(steps.len())..] {
                output::line(&said(step))?;
            }
        }
        shown = steps.len();
        match text_at(&operation, "/state").as_str() {
            "running" | "reverting" => tokio::time::sleep(LOOK).await,
            state => {
                if api.format == Format::Json {
                    output::json(&operation)?;
                }
                let why = text_at(&operation, "/why");
                return match state {
                    "succeeded" => Ok(()),
                    "reverted" => bail!("all is as it was before: {why}"),
                    _ => bail!("it ended midway: {why}"),
                };
            }
        }
    }
}

fn said(step: &Value) -> String {
    let (at, name, note) = (text_at(step, "/at"), text_at(step, "/step"), text_at(step, "/note"));
    match step["percent"].as_u64() {
        Some(percent) if percent > 0 => format!("{at}  {name} {percent} %: {note}"),
        _ => format!("{at}  {name}: {note}"),
    }
}
