//! The log, set up before anything else: lines for people on standard error, or JSON by setting.

use std::io::IsTerminal;
use std::panic;

use anyhow::Context;
use schoolgate_config::settings::LogFormat;
use tracing::error;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::time::UtcTime;

/// What our own crates and those below them say unless asked for more: the layers below log each client's broken
/// connection as an error of theirs, and it is none of ours.
const QUIET: &str = "pingora_core=off,pingora_proxy=off,pingora=off,h2=off,rustls=off,sqlx=warn,hyper=warn";

/// Sets up the log and the panic hook.
///
/// # Errors
/// When `directives` cannot be read.
pub(crate) fn start(directives: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(format!("{QUIET},{directives}")).with_context(|| {
        format!("`{directives}` is not a log filter: write `info`, or `info,schoolgate_proxy=debug`")
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A second call, as in tests, keeps the first log.
    let _ = match format {
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
        LogFormat::Text => builder
            .with_target(false)
            .fmt_fields(text_fields(directives))
            .with_timer(UtcTime::new(time::macros::format_description!(
                "[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z"
            )))
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
    };
    log_panics();
    Ok(())
}

/// What of a line people read: the text, which names all that matters. Who debugs gets the fields too.
fn text_fields(directives: &str) -> impl for<'w> FormatFields<'w> + Send + Sync + 'static {
    let all = directives.contains("debug") || directives.contains("trace");
    let write = move |out: &mut Writer<'_>, field: &Field, value: &dyn std::fmt::Debug| {
        if field.name() == "message" {
            write!(out, "{value:?}")
        } else if all {
            write!(out, " {}={value:?}", field.name())
        } else {
            Ok(())
        }
    };
    debug_fn(write)
}

/// A panic becomes a log line: whoever searches the log finds it, in the format they search.
fn log_panics() {
    panic::set_hook(Box::new(|panic| {
        let message = panic
            .payload()
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned())
            .or_else(|| panic.payload().downcast_ref::<String>().cloned())
            .unwrap_or_else(|| "without a message".to_owned());
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        let backtrace = std::backtrace::Backtrace::capture();
        error!(panic.place = %place, panic.thread = %thread, %backtrace, "panic in {thread} at {place}: {message}");
    }));
}
