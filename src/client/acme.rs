//! `schoolgate acme`

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::Value;

use super::api::{Api, Connection, Write};
use super::output::{self, Column};

const QUEUE: &[Column] = &[
    ("name", "/name"),
    ("class", "/class"),
    ("state", "/state"),
    ("attempts", "/attempts"),
    ("next attempt", "/next_attempt_at"),
    ("who acts", "/who_acts"),
    ("why", "/message"),
];

const LIMITS: &[Column] = &[
    ("limit", "/limit"),
    ("of", "/subject"),
    ("remaining", "/remaining"),
    ("capacity", "/capacity"),
    ("next at", "/next_at"),
];

/// `schoolgate acme …`
#[derive(Debug, Subcommand)]
pub(crate) enum AcmeCommand {
    /// Names that wait for a certificate, the next first
    Queue(AcmeArgs),
    /// The authorities and what their limits leave
    Budget(AcmeArgs),
    /// Order the certificate of a domain now
    Retry(Retry),
}

/// `schoolgate acme queue`, `schoolgate acme budget`
#[derive(Debug, Args)]
pub(crate) struct AcmeArgs {
    #[command(flatten)]
    connection: Connection,
}

/// `schoolgate acme retry`
#[derive(Debug, Args)]
pub(crate) struct Retry {
    /// The domain
    name: String,
    #[command(flatten)]
    write: Write,
    #[command(flatten)]
    connection: Connection,
}

/// Does it.
pub(crate) async fn run(command: &AcmeCommand) -> anyhow::Result<()> {
    match command {
        AcmeCommand::Queue(args) => {
            let api = Api::connect(&args.connection)?;
            let answer = api.get(&["acme", "queue"], &[]).await?;
            output::list(api.format, items(&answer), QUEUE)
        }
        AcmeCommand::Budget(args) => budget(&args.connection).await,
        AcmeCommand::Retry(args) => {
            let path = ["domains", &args.name, "retry-certificate"];
            super::write(Method::POST, &path, None, &args.write, &args.connection).await
        }
    }
}

async fn budget(connection: &Connection) -> anyhow::Result<()> {
    let api = Api::connect(connection)?;
    let answer = api.get(&["acme", "budget"], &[]).await?;
    if let output::Format::Json = api.format {
        return output::json(&answer);
    }
    for authority in items(&answer) {
        let mut about = authority.clone();
        let limits = about.as_object_mut().and_then(|fields| fields.remove("limits")).unwrap_or_default();
        output::object(api.format, &about)?;
        output::list(api.format, limits.as_array().map_or(&[][..], Vec::as_slice), LIMITS)?;
    }
    if items(&answer).is_empty() { output::line("(none)") } else { Ok(()) }
}

fn items(answer: &Value) -> &[Value] {
    answer.get("items").and_then(Value::as_array).map_or(&[][..], Vec::as_slice)
}
