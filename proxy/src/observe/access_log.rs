//! One line per request: JSON, written by a thread of its own so that a request never waits for a disk.

use std::cell::RefCell;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use schoolgate_config::model::{BackendAddress, PoolId, Revision, Slug, TenantId};
use schoolgate_config::time::rfc3339;
use serde::Serialize;
use tracing::warn;

use super::{Finished, Mismatch};
use crate::limit::{Layer, Layers};
use crate::transport::TlsVersion;

/// Lines that wait for the writer: 32,768, a third of a second at 100,000 requests/s and at most 20 MB. Beyond it lines
/// are dropped and counted: a slow disk must not slow requests.
const WAITING: usize = 32_768;
/// How long the writer lets lines gather once there are some: 20 ms. Workers then need not wake it for each.
const GATHER: Duration = Duration::from_millis(20);
/// How often the writer looks whether its file was moved away by a log rotation: every 2 s.
const ROTATION: Duration = Duration::from_secs(2);

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Nowhere.
    Off,
    /// Standard output.
    Stdout,
    /// Appended to a file; opened anew when it was moved away.
    File(PathBuf),
}

/// What the writer is handed.
enum Entry {
    Line(Vec<u8>),
    /// To be answered when every line before it is written.
    Flush(SyncSender<()>),
}

/// Takes lines; dropped, it writes those it has and ends.
#[derive(Debug)]
pub(super) struct AccessLog {
    lines: Option<SyncSender<Entry>>,
    dropped: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

impl AccessLog {
    /// Opens the target.
    ///
    /// # Errors
    /// The file cannot be opened, or there is no thread.
    pub(super) fn start(target: AccessLogTarget) -> io::Result<Self> {
        let dropped = Arc::new(AtomicU64::new(0));
        let out = match target {
            AccessLogTarget::Off => return Ok(Self::off()),
            AccessLogTarget::Stdout => Out::Stdout,
            AccessLogTarget::File(path) => Out::File(LogFile::open(path)?),
        };
        let (lines, waiting) = sync_channel(WAITING);
        let mut writer = Writer { out, dropped: Arc::clone(&dropped), complained: None };
        let writer = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || writer.run(&waiting))?;
        Ok(Self { lines: Some(lines), dropped, writer: Some(writer) })
    }

    /// Writes nothing.
    pub(super) fn off() -> Self {
        Self { lines: None, dropped: Arc::default(), writer: None }
    }

    /// Lines that were not written.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until every line handed in so far is written, or the time is over. Blocks.
    pub(super) fn flush(&self, within: Duration) {
        let Some(lines) = &self.lines else { return };
        let (done, flushed) = sync_channel(1);
        if lines.try_send(Entry::Flush(done)).is_ok() {
            let _ = flushed.recv_timeout(within);
        }
    }

    /// Hands in the line of a request.
    pub(super) fn write(&self, request: &Finished<'_>, now_ms: i64) {
        let Some(lines) = &self.lines else { return };
        let mut line = Vec::with_capacity(512);
        let written = write_line(request, now_ms, &mut line);
        debug_assert!(written.is_ok(), "plain fields always serialise");
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = lines.try_send(Entry::Line(line)) {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

/// The fields of a line. Never a header value, a query, a body or a token.
#[derive(Serialize)]
struct Line<'a> {
    ts: &'a str,
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<&'a Slug>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_id: Option<&'a TenantId>,
    client: IpAddr,
    protocol: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<&'a str>,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    host: Option<&'a str>,
    path: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mismatch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    limited: Option<Layer>,
    #[serde(skip_serializing_if = "Layers::is_empty")]
    would_limit: Layers,
    bytes_in: u64,
    bytes_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pool: Option<&'a PoolId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'a BackendAddress>,
    #[serde(skip_serializing_if = "is_zero")]
    retries: u32,
    revision: Revision,
    #[serde(skip_serializing_if = "Option::is_none")]
    decide_ms: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_ms: Option<Millis>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_byte_ms: Option<Millis>,
    total_ms: Millis,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
fn is_zero(n: &u32) -> bool {
    *n == 0
}

/// Milliseconds with three decimals.
struct Millis(Duration);

impl Serialize for Millis {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let micros = u32::try_from(self.0.as_micros()).unwrap_or(u32::MAX);
        serializer.serialize_f64(f64::from(micros) / 1_000.0)
    }
}

/// Writes the line of a request, with its line end.
fn write_line(request: &Finished<'_>, now_ms: i64, out: &mut Vec<u8>) -> serde_json::Result<()> {
    with_timestamp(now_ms, |ts| {
        let line = Line {
            ts,
            request_id: request.request_id,
            tenant: request.tenant.map(|(tenant, _)| &tenant.slug),
            tenant_id: request.tenant.map(|(tenant, _)| &tenant.id),
            client: request.client,
            protocol: request.protocol,
            tls: request.tls.map(TlsVersion::as_str),
            method: request.method,
            host: request.host,
            path: request.path,
            status: request.status,
            error: request.error,
            mismatch: request.mismatch.map(Mismatch::as_str),
            limited: request.limited,
            would_limit: request.would_limit,
            bytes_in: request.bytes_in,
            bytes_out: request.bytes_out,
            pool: request.pool.map(|(id, _)| id),
            backend: request.backend.map(|(address, _)| address),
            retries: request.retries,
            revision: request.revision,
            decide_ms: request.phases.decide.map(Millis),
            connect_ms: request.phases.connect.map(Millis),
            first_byte_ms: request.phases.first_byte.map(Millis),
            total_ms: Millis(request.phases.total),
        };
        serde_json::to_writer(&mut *out, &line)
    })?;
    out.push(b'\n');
    Ok(())
}

/// The time in RFC 3339. All but the milliseconds is kept for the rest of the second.
fn with_timestamp<T>(now_ms: i64, then: impl FnOnce(&str) -> T) -> T {
    thread_local! {
        static SECOND: RefCell<(i64, String)> = const { RefCell::new((i64::MIN, String::new())) };
    }
    SECOND.with_borrow_mut(|(second, text)| {
        let (now_s, millis) = (now_ms.div_euclid(1_000), now_ms.rem_euclid(1_000));
        if *second != now_s || text.len() < 5 {
            *text = rfc3339(now_ms);
            *second = now_s;
        } else {
            text.truncate(text.len() - 4);
            for place in [100, 10, 1] {
                text.push(char::from_digit(u32::try_from(millis / place % 10).unwrap_or(0), 10).unwrap_or('0'));
            }
            text.push('Z');
        }
        then(text)
    })
}

/// A file that lines are appended to.
struct LogFile {
    path: PathBuf,
    file: std::fs::File,
    looked: Instant,
}

impl LogFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let file = Self::append(&path)?;
        Ok(Self { path, file, looked: Instant::now() })
    }

    fn append(path: &Path) -> io::Result<std::fs::File> {
        std::fs::OpenOptions::new().append(true).create(true).open(path)
    }

    /// Opens the path anew when it is another file now, or none: a log rotation moved ours away.
    fn follow(&mut self) -> io::Result<()> {
        if self.looked.elapsed() >= ROTATION {
            self.looked = Instant::now();
            let ours = self.file.metadata()?;
            let same = std::fs::metadata(&self.path).is_ok_and(|at| (at.dev(), at.ino()) == (ours.dev(), ours.ino()));
            if !same {
                self.file = Self::append(&self.path)?;
            }
        }
        Ok(())
    }
}

enum Out {
    Stdout,
    File(LogFile),
}

struct Writer {
    out: Out,
    dropped: Arc<AtomicU64>,
    complained: Option<Instant>,
}

impl Writer {
    fn run(&mut self, waiting: &Receiver<Entry>) {
        let mut batch = Vec::with_capacity(64 * 1024);
        let mut asked = Vec::new();
        while let Ok(first) = waiting.recv() {
            // The lines of the next moments share one write; nobody waits for them, unless we are asked to flush.
            if matches!(first, Entry::Line(_)) {
                std::thread::sleep(GATHER);
            }
            let mut lines = 0;
            for entry in std::iter::once(first).chain(waiting.try_iter().take(WAITING)) {
                match entry {
                    Entry::Line(line) => {
                        batch.extend_from_slice(&line);
                        lines += 1;
                    }
                    Entry::Flush(done) => asked.push(done),
                }
                if batch.len() >= 256 * 1024 {
                    self.write(&batch, std::mem::take(&mut lines));
                    batch.clear();
                }
            }
            if !batch.is_empty() {
                self.write(&batch, lines);
                batch.clear();
            }
            for done in asked.drain(..) {
                let _ = done.try_send(());
            }
        }
    }

    fn write(&mut self, batch: &[u8], lines: u64) {
        let written = match &mut self.out {
            Out::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(batch).and_then(|()| stdout.flush())
            }
            Out::File(file) => file.follow().and_then(|()| file.file.write_all(batch)),
        };
        if let Err(error) = written {
            self.dropped.fetch_add(lines, Ordering::Relaxed);
            if self.complained.is_none_or(|at| at.elapsed() >= Duration::from_secs(60)) {
                self.complained = Some(Instant::now());
                warn!(error = %error, "access log: lines are lost: {error}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request<'a>(path: &'a str, host: &'a str) -> Finished<'a> {
        Finished {
            request_id: "01HF7YAT00TESTTESTTESTTEST",
            client: IpAddr::from([192, 0, 2, 1]),
            protocol: "HTTP/1.1",
            tls: Some(TlsVersion::V13),
            method: "GET",
            host: Some(host),
            path,
            status: 200,
            error: None,
            tenant: None,
            pool: None,
            backend: None,
            backend_status: None,
            retries: 0,
            revision: Revision(7),
            bytes_in: 0,
            bytes_out: 12,
            phases: super::super::Phases { total: Duration::from_micros(1_500), ..Default::default() },
            mismatch: None,
            unknown_host: false,
            limited: None,
            would_limit: Layers::default(),
        }
    }

    #[test]
    fn a_line_is_one_json_object_whatever_the_client_sent() {
        let mut line = Vec::new();
        let path = "/a\n\"b\u{1b}[31m\u{0}/\u{e9}";
        write_line(&request(path, "x\r\ny"), 1_700_000_000_007, &mut line).expect("written");
        assert_eq!(line.iter().filter(|byte| byte.is_ascii_control()).count(), 1, "only the line end");
        let value: serde_json::Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(value["path"], path);
        assert_eq!(value["ts"], "2023-11-14T22:13:20.007Z");
        assert_eq!(value["total_ms"], 1.5);
    }

    #[test]
    fn timestamps_within_a_second_share_their_beginning() {
        for (ms, text) in [
            (1_700_000_000_123, "2023-11-14T22:13:20.123Z"),
            (1_700_000_000_999, "2023-11-14T22:13:20.999Z"),
            (1_700_000_000_004, "2023-11-14T22:13:20.004Z"),
            (1_700_000_001_000, "2023-11-14T22:13:21.000Z"),
        ] {
            with_timestamp(ms, |ts| assert_eq!(ts, text));
        }
    }

    #[test]
    fn lines_reach_the_file_and_a_new_one_after_a_rotation() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("logs/access.log");
        let log = AccessLog::start(AccessLogTarget::File(path.clone())).expect("opened");
        log.write(&request("/one", "a"), 0);
        drop(log);
        let moved = path.with_extension("1");
        std::fs::rename(&path, &moved).expect("moved");
        let mut file = LogFile::open(path.clone()).expect("opened");
        file.file.write_all(b"two\n").expect("written");
        std::fs::rename(&path, path.with_extension("2")).expect("moved");
        file.looked = Instant::now().checked_sub(ROTATION).expect("long ago");
        file.follow().expect("opened anew");
        file.file.write_all(b"three\n").expect("written");
        assert!(std::fs::read_to_string(moved).expect("read").contains("/one"));
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "three\n");
    }

    #[test]
    fn a_writer_that_is_stuck_costs_lines_and_not_requests() {
        let (lines, _waiting) = sync_channel(1);
        let log = AccessLog { lines: Some(lines), dropped: Arc::default(), writer: None };
        for _ in 0..5 {
            log.write(&request("/", "a"), 0);
        }
        assert_eq!(log.dropped(), 4);
    }
}
