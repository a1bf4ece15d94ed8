//! Maintenance of the platform, and of a tenant or a pool as flags.

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Api, Connection, Write};

/// `schoolgate tenant maintenance`, `schoolgate pool maintenance`
#[derive(Debug, Args)]
pub(crate) struct Maintenance {
    /// Of a tenant its slug or id, of a pool its name
    pub(super) id: String,
    #[command(flatten)]
    pub(super) window: Window,
}

/// When and for whom.
#[derive(Debug, Args)]
pub(crate) struct Window {
    /// Why, for operators; visitors never see it
    #[arg(long)]
    reason: Option<String>,
    /// What visitors read
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// When it begins by itself, such as 2026-11-20T22:00:00Z [default: at once]
    #[arg(long, value_name = "TIME")]
    starts_at: Option<String>,
    /// When it ends by itself, and what visitors are told to wait for [default: when it is ended]
    #[arg(long, value_name = "TIME")]
    ends_at: Option<String>,
    /// A network or address whose clients are served all the same; repeatable
    #[arg(long = "allow", value_name = "NETWORK")]
    allow: Vec<String>,
    #[command(flatten)]
    pub(super) write: Write,
    #[command(flatten)]
    pub(super) connection: Connection,
}

/// `schoolgate maintenance …`
#[derive(Debug, Subcommand)]
pub(crate) enum MaintenanceCommand {
    /// Show what is under way or to come
    Show(Connection),
    /// Answer visitors of all schools with 503 and Retry-After, now or in a window
    Begin(Window),
    /// Serve them again
    End(End),
}

/// `schoolgate maintenance end`
#[derive(Debug, Args)]
pub(crate) struct End {
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// Does it, for the platform.
pub(crate) async fn run(command: &MaintenanceCommand) -> anyhow::Result<()> {
    match command {
        MaintenanceCommand::Show(connection) => {
            let api = Api::connect(connection)?;
            super::output::object(api.format, &api.get(&["maintenance"], &[]).await?)
        }
        MaintenanceCommand::Begin(window) => {
            let (body, how) = (window.body(), &window.write);
            super::write(Method::PUT, &["maintenance"], Some(&body), how, &window.connection).await
        }
        MaintenanceCommand::End(args) => {
            super::write(Method::DELETE, &["maintenance"], None, &args.write, &args.connection).await
        }
    }
}

impl Window {
    /// What the API is sent.
    pub(super) fn body(&self) -> Value {
        json!({
            "reason": self.reason, "message": self.message, "starts_at": self.starts_at, "ends_at": self.ends_at,
            "allow": self.allow,
        })
    }
}
