//! `schoolgate selftest`: tricks played on the running gateway.

use std::net::SocketAddr;

use anyhow::bail;
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Api, Connection, Write};
use super::body::text_of;
use super::output::{self, Column, Format, text_at};

const ROWS: &[Column] =
    &[("case", "/case"), ("over", "/protocol"), ("expected", "/expected"), ("got", "/got"), ("ok", "/ok")];

/// `schoolgate selftest …`
#[derive(Debug, Subcommand)]
pub(crate) enum SelftestCommand {
    /// Try to reach one school through another's name, in every known way
    Isolation(IsolationArgs),
}

/// `schoolgate selftest isolation`
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 0 when every row is as expected; 1 when anything crosses, or cannot be tested. The control API plays the tricks \
from its own machine, on loopback addresses only.")]
pub(crate) struct IsolationArgs {
    /// Two schools, by slug or id, such as `greenhill,riverside` [default: the two active ones that were made first]
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    tenants: Vec<String>,
    /// Where the gateway serves HTTPS on the control API's machine [default: the gateway of the same process]
    #[arg(long, value_name = "ADDRESS")]
    https: Option<SocketAddr>,
    /// File of a token (JWT) that is good for school B, `-` for standard input: plays the tricks that need one as well
    #[arg(long, value_name = "FILE")]
    token: Option<String>,
    #[command(flatten)]
    connection: Connection,
}

/// Does it.
pub(crate) async fn run(command: &SelftestCommand) -> anyhow::Result<()> {
    let SelftestCommand::Isolation(args) = command;
    let api = Api::connect(&args.connection)?;
    let token = args.token.as_deref().map(text_of).transpose()?;
    let options = json!({ "tenants": args.tenants, "https": args.https, "token": token });
    let report = api.write(Method::POST, &["selftest", "isolation"], Some(&options), &Write::default()).await?;
    match api.format {
        Format::Json => output::json(&report)?,
        Format::People => output::line(&render(&report))?,
    }
    let rows = report.get("rows").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let wrong = rows.iter().filter(|row| row.get("ok") != Some(&Value::Bool(true))).count();
    if wrong > 0 || report.get("passed") != Some(&Value::Bool(true)) {
        bail!("{wrong} of {} rows are not as expected: one school may reach another", rows.len());
    }
    Ok(())
}

fn render(report: &Value) -> String {
    let rows = report.get("rows").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let evidence = match text_at(report, "/evidence").as_str() {
        "whoami" => "the backends say at /whoami for whom they answer",
        _ => "by status: the backends do not say at /whoami for whom they answer",
    };
    let subject = |key: &str| {
        format!("{} ({})", text_at(report, &format!("/{key}/slug")), text_at(report, &format!("/{key}/host")))
    };
    let verdict = if report.get("passed") == Some(&Value::Bool(true)) { "nothing crosses" } else { "NOT AS EXPECTED" };
    format!(
        "A         {}\nB         {}\nevidence  {evidence}\n\n{}\n\n{} rows: {verdict}",
        subject("a"),
        subject("b"),
        output::table(rows, ROWS),
        rows.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_who_took_part_and_by_what_it_judges() {
        let school = |slug: &str| json!({"slug": slug, "host": format!("{slug}.example")});
        let text = render(&json!({"passed": false, "a": school("ash"), "b": school("birch"), "evidence": "status",
            "rows": [{"case": "?tenant=B", "protocol": "h2", "expected": "refused", "got": "200 for birch", "ok": false}]}));
        for part in ["ash (ash.example)", "birch", "by status", "200 for birch", "NOT AS EXPECTED"] {
            assert!(text.contains(part), "`{part}` is not in\n{text}");
        }
    }
}
