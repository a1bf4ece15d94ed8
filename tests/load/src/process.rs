//! Processes of a run: where they may run, what they cost, and that they end with it.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

/// Lets this process and its children open as many files as the system allows.
pub(crate) fn raise_open_files() -> anyhow::Result<()> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }).context("open files")
}

/// A process with a core of its own. Killed, with its children, when dropped. It stays in our process group, so that a
/// run that is interrupted or timed out leaves nothing behind.
pub(crate) struct Running {
    child: Child,
    /// Where it writes, if that is a file.
    log: PathBuf,
    /// What it prints, if we listen.
    stdout: Option<BufReader<ChildStdout>>,
}

impl Running {
    /// Starts a program on one core. Its output goes to `{dir}/{name}.log`.
    pub(crate) fn start(
        name: &str,
        cpu: usize,
        dir: &Path,
        program: impl AsRef<Path>,
        args: &[String],
    ) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).with_context(|| log.display().to_string())?;
        let child = on_cpu(cpu, program.as_ref())
            .args(args)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{name} does not start"))?;
        Ok(Self { child, log, stdout: None })
    }

    /// Starts a program on one core and talks with it; its input stays open until [`Self::close_input`].
    pub(crate) fn start_talking(cpu: usize, program: &Path, args: &[String]) -> anyhow::Result<Self> {
        let mut child = on_cpu(cpu, program)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("{} does not start", program.display()))?;
        let stdout = child.stdout.take().map(BufReader::new);
        Ok(Self { child, log: program.with_file_name(args.join(" ")), stdout })
    }

    /// The next line it prints.
    pub(crate) fn read_line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        self.stdout.as_mut().context("nobody listens to it")?.read_line(&mut line)?;
        if line.is_empty() {
            bail!("{} ended with {}", self.log.display(), self.child.wait()?);
        }
        Ok(line.trim().to_owned())
    }

    /// Writes a line to its input.
    pub(crate) fn say(&mut self, line: &str) -> anyhow::Result<()> {
        Ok(writeln!(self.child.stdin.as_mut().context("its input is closed")?, "{line}")?)
    }

    /// Ends its input.
    pub(crate) fn close_input(&mut self) {
        self.child.stdin = None;
    }

    /// Fails, with the end of its log, when it has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        let Some(exit) = self.child.try_wait()? else { return Ok(()) };
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let tail: Vec<_> = log.lines().rev().take(20).collect();
        bail!("{} ended with {exit}:\n{}", self.log.display(), tail.into_iter().rev().collect::<Vec<_>>().join("\n"))
    }

    /// Ends its input, and waits until it has ended well.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        self.close_input();
        let exit = self.child.wait()?;
        ensure!(exit.success(), "{} ended with {exit}", self.log.display());
        Ok(())
    }

    /// CPU time used so far by it and what it started, in seconds.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        let ticks: u64 = self.tree().into_iter().map(cpu_ticks).sum();
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52 ticks")]
        {
            ticks as f64 / rustix::param::clock_ticks_per_second() as f64
        }
    }

    /// Memory of it and what it started, in bytes: resident, shared pages divided among those who share them.
    pub(crate) fn memory(&self) -> u64 {
        self.tree().into_iter().map(resident).sum()
    }

    /// Asks it to stop as Ctrl-C does, and waits.
    pub(crate) fn interrupt(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.pid() {
            kill_process(pid, Signal::INT)?;
        }
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > Duration::from_secs(60) {
                bail!("{} does not stop", self.log.display());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn pid(&self) -> Option<Pid> {
        Pid::from_raw(i32::try_from(self.child.id()).ok()?)
    }

    fn tree(&self) -> Vec<u32> {
        let mut pids = vec![self.child.id()];
        let mut next = 0;
        while let Some(pid) = pids.get(next).copied() {
            next += 1;
            let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { continue };
            for task in tasks.flatten() {
                let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
                pids.extend(children.split_whitespace().filter_map(|child| child.parse::<u32>().ok()));
            }
        }
        pids
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            for pid in self.tree().into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
                let _ = kill_process(pid, Signal::KILL);
            }
            let _ = self.child.wait();
        }
    }
}

/// A command that runs on one core.
pub(crate) fn on_cpu(cpu: usize, program: &Path) -> Command {
    let mut command = Command::new("taskset");
    command.arg("-c").arg(cpu.to_string()).arg(program);
    command
}

/// User and system time, fields 14 and 15 of `/proc/<pid>/stat` (proc(5)); the name before them may hold anything.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_whitespace().skip(11).take(2).filter_map(|ticks| ticks.parse::<u64>().ok()).sum()
}

fn resident(pid: u32) -> u64 {
    let kib = |file: &str, key: &str| -> Option<u64> {
        let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok()?;
        text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
    };
    kib("smaps_rollup", "Pss:").or_else(|| kib("status", "VmRSS:")).unwrap_or(0) * 1024
}
