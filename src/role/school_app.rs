//! `schoolgate school-app`: one instance of `backend-app`.

use schoolgate_backend_app::AppError;
use schoolgate_config::settings::LogFormat;

use crate::cli::SchoolAppArgs;
use crate::{exit, telemetry};

/// Exit code of an instance whose address another process has: the supervisor then takes the next one.
pub(super) const ADDRESS_IN_USE: u8 = 98;

/// Runs it until it is told to stop.
pub(crate) fn run(args: SchoolAppArgs) -> anyhow::Result<()> {
    telemetry::start(&args.log, LogFormat::Text)?;
    if let Some(parent) = args.parent_pid {
        die_with(parent)?;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let supervised = args.parent_pid.is_some();
    let result = runtime.block_on(async {
        if supervised {
            let stop = super::signals::on_supervisors_stop()?;
            Ok(schoolgate_backend_app::run(args.options, stop).await)
        } else {
            let stop = super::signals::on_stop()?;
            Ok::<_, anyhow::Error>(schoolgate_backend_app::run(args.options, stop.cancelled_owned()).await)
        }
    })?;
    match result {
        Err(error @ AppError::AddressInUse { .. }) => Err(exit::with_code(ADDRESS_IN_USE, error.into())),
        other => Ok(other?),
    }
}

/// Ends with the supervisor, even when that is killed: no instance is left behind to write into databases that a new
/// one opens.
fn die_with(parent: u32) -> anyhow::Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};
    set_parent_process_death_signal(Some(Signal::TERM))?;
    // It may have died before the line above.
    let alive = getppid().is_some_and(|pid| u32::try_from(pid.as_raw_nonzero().get()) == Ok(parent));
    anyhow::ensure!(alive, "the supervising process {parent} is gone");
    Ok(())
}
