//! Where the figures were taken.

use std::process::Command;

use serde::Serialize;

/// The machine and the versions of a run.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    pub(crate) nginx: String,
    pub(crate) haproxy: String,
    pub(crate) wrk: String,
    pub(crate) h2load: String,
    pub(crate) rustc: String,
    pub(crate) commit: String,
    /// Load average over one minute when the run began: above about 0.5, other work disturbed it.
    pub(crate) load_before: String,
}

impl Machine {
    pub(crate) fn look() -> Self {
        let proc = |file: &str, key: &str| {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
            line.split_once(':').map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        let kib = proc("/proc/meminfo", "MemTotal").trim_end_matches("kB").trim().parse().unwrap_or(0_u64);
        Self {
            cpu: proc("/proc/cpuinfo", "model name"),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib.div_ceil(1024 * 1024),
            kernel: said("uname", &["-sr"]),
            nginx: said("nginx", &["-v"]).replace("nginx version: ", ""),
            haproxy: said("haproxy", &["-v"]).split(" - ").next().unwrap_or_default().to_owned(),
            wrk: said("wrk", &["-v"]).split(" [").next().unwrap_or_default().to_owned(),
            h2load: said("h2load", &["--version"]),
            rustc: said("rustc", &["-V"]),
            commit: said("git", &["describe", "--always", "--dirty", "--abbrev=12"]),
            load_before: std::fs::read_to_string("/proc/loadavg")
                .unwrap_or_default()
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_owned(),
        }
    }
}

/// The first line a program prints, wherever it prints it.
fn said(program: &str, args: &[&str]) -> String {
    let Ok(output) = Command::new(program).args(args).output() else { return "not there".to_owned() };
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&text).lines().next().unwrap_or_default().trim().to_owned()
}
