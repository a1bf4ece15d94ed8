//! wrk and h2load: the load generators everybody knows.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::fleet::host;
use crate::process::on_cpu;

/// What a run of a tool did.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) requests: f64,
    pub(crate) per_second: f64,
    pub(crate) failed: f64,
}

/// A script that makes wrk connect to the loopback address for a name no resolver knows, so that it sends that name
/// as SNI and `Host`.
const WRK_SCRIPT: &str = "function wrk.resolve(host, service) wrk.addrs = wrk.lookup('127.0.0.1', service) end\n";

/// Writes the script.
pub(crate) fn write_wrk_script(dir: &Path) -> anyhow::Result<PathBuf> {
    let file = dir.join("wrk.lua");
    std::fs::write(&file, WRK_SCRIPT)?;
    Ok(file)
}

/// HTTP/1.1 over TLS, 50 kept connections, one thread.
pub(crate) fn wrk(cpu: usize, script: &Path, addr: SocketAddr, seconds: u64) -> anyhow::Result<Done> {
    let output = on_cpu(cpu, Path::new("wrk"))
        .args(["-t1", "-c50", &format!("-d{seconds}s"), "-s"])
        .arg(script)
        .arg(format!("https://{}:{}/", host(0), addr.port()))
        .output()
        .context("wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let Some(requests) = before(&text, " requests in ") else {
        bail!("wrk: {text}{}", String::from_utf8_lossy(&output.stderr));
    };
    let per_second = after(&text, "Requests/sec:").context("wrk gave no rate")?;
    let bad_status = after(&text, "Non-2xx or 3xx responses:").unwrap_or(0.0);
    let socket_errors: f64 = text
        .lines()
        .find(|line| line.contains("Socket errors:"))
        .map_or(0.0, |line| line.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<f64>().ok()).sum());
    Ok(Done { requests, per_second, failed: bad_status + socket_errors })
}

/// HTTP/2 over TLS, 10 connections with 10 streams each, one thread.
pub(crate) fn h2load(cpu: usize, addr: SocketAddr, seconds: u64) -> anyhow::Result<Done> {
    let output = on_cpu(cpu, Path::new("h2load"))
        .args(["-t1", "-c10", "-m10", "-D", &seconds.to_string(), "--connect-to", &addr.to_string()])
        .arg(format!("https://{}:{}/", host(0), addr.port()))
        .output()
        .context("h2load")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let per_second = before(&text, " req/s").filter(|_| text.contains("finished in"));
    let (Some(per_second), Some(requests)) = (per_second, before(&text, " succeeded")) else {
        bail!("h2load: {text}{}", String::from_utf8_lossy(&output.stderr));
    };
    // "status codes" counts answers; "failed" counts connections that broke.
    let failed = before(&text, " failed").unwrap_or(0.0) + before(&text, " errored").unwrap_or(0.0);
    let bad_status = before(&text, " 4xx").unwrap_or(0.0) + before(&text, " 5xx").unwrap_or(0.0);
    Ok(Done { requests, per_second, failed: failed + bad_status })
}

/// The number that stands just before a text, at its first place.
fn before(text: &str, mark: &str) -> Option<f64> {
    let start = text.split(mark).next().filter(|start| start.len() < text.len())?;
    start.rsplit(|c: char| !(c.is_ascii_digit() || c == '.')).next()?.parse().ok()
}

/// The number that stands just after a text, at its first place.
fn after(text: &str, mark: &str) -> Option<f64> {
    text.split_once(mark)?.1.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_where_the_tools_write_them() {
        let text = "  180123 requests in 3.00s, 210.5MB read\nRequests/sec:  60041.12\n";
        assert_eq!(before(text, " requests in "), Some(180_123.0));
        assert_eq!(after(text, "Requests/sec:"), Some(60_041.12));
        assert_eq!(before(text, " failed"), None);
        let text = "finished in 3.00s, 68459.67 req/s, 75.9MB/s\nrequests: 205379 total, 205479 started, 205379 done, 205379 succeeded, 0 failed";
        assert_eq!(before(text, " req/s"), Some(68_459.67));
        assert_eq!(before(text, " succeeded"), Some(205_379.0));
        assert_eq!(before(text, " failed"), Some(0.0));
    }
}
