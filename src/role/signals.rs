//! Being asked to stop.

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Exit code of a process that was asked twice: 128 and SIGINT, as shells count.
const INTERRUPTED: i32 = 130;

/// Signals within this time are one request: `timeout` and some supervisors signal a process and then its group, and
/// nobody presses Ctrl-C twice that fast.
const ONE_REQUEST: Duration = Duration::from_millis(300);

/// Cancels the token when the process is asked to stop (Ctrl-C, SIGTERM); when asked again it exits at once.
///
/// # Errors
/// When the system has no room for a signal handler.
pub(super) fn on_stop() -> anyhow::Result<CancellationToken> {
    let stop = CancellationToken::new();
    let mut signals = Signals::listen()?;
    let token = stop.clone();
    tokio::spawn(async move {
        let name = signals.next().await;
        info!("{name}: stopping; once more stops at once");
        token.cancel();
        let asked = Instant::now();
        let mut name = signals.next().await;
        while asked.elapsed() < ONE_REQUEST {
            name = signals.next().await;
        }
        warn!("{name} again: ending at once");
        #[expect(clippy::disallowed_methods, reason = "whoever asks twice does not want to wait for anything")]
        std::process::exit(INTERRUPTED);
    });
    Ok(stop)
}

/// Waits until the supervisor says stop. Ctrl-C reaches the whole group of processes at once, but an instance has to
/// outlive the proxy's last request, so only SIGTERM counts.
///
/// # Errors
/// When the system has no room for a signal handler.
pub(super) fn on_supervisors_stop() -> anyhow::Result<impl Future<Output = ()> + Send> {
    let mut ignored = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    Ok(async move {
        loop {
            tokio::select! {
                _ = ignored.recv() => {}
                _ = terminate.recv() => return,
            }
        }
    })
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?,
            terminate: signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}
