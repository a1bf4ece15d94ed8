//! The last good state on disk: what a node starts from when nobody answers.
//!
//! ```text
//! lock                     held by the process that uses the directory
//! base                     everything at one revision
//! journal-<revision>       what came after that revision, a record per delta
//! *.damaged-<unix ms>      what could not be read, set aside
//!
//! base      "SGb" 1   revision u64   frames u32   CRC-32 of the 16 bytes before   then the frames: snapshots of parts
//! journal   "SGj" 1   then a frame per delta
//! frame     length u32   CRC-32 of those 4 bytes   a snapshot or delta in its wire form, which has its own checksum
//! ```
//!
//! Numbers are little endian. A delta is appended and synced before it is acknowledged: its cost follows the change.
//! When the journal outgrows its bound, a new one begins and the base is written anew beside the request path; until
//! that is done base and both journals say the same. A record that a crash cut off at the very end was never
//! acknowledged and is cut away; anything else that does not read is damage, and then nothing is used: half a state
//! could route a name to nobody, or to whom it no longer belongs.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use schoolgate_config::model::Revision;
use schoolgate_config::snapshot::{
    Delta, Object, Snapshot, WireError, decode_delta, decode_snapshot, encode_delta, encode_snapshot, share_chains,
};

const BASE: &str = "base";
const NEW_BASE: &str = "base.new";
const JOURNAL: &str = "journal-";
const LOCK: &str = "lock";
const DAMAGED: &str = ".damaged-";

const BASE_MAGIC: [u8; 4] = *b"SGb\x01";
const JOURNAL_MAGIC: [u8; 4] = *b"SGj\x01";
const BASE_HEADER: usize = 20;
const FRAME_HEADER: usize = 8;

/// Objects per frame of a base: 4,096, some MB, so that threads can read frames beside each other.
const FRAME_OBJECTS: usize = 4_096;
/// A journal is compacted from this many bytes: 16 MiB, a tenth of a second to read.
const JOURNAL_BYTES: u64 = 16 << 20;
/// A journal is compacted from this many records: 4,096, about as long to apply.
const JOURNAL_RECORDS: u64 = 4_096;
/// States set aside that are kept: the latest 3. One is several hundred MB at 100,000 domains.
const DAMAGED_KEPT: usize = 3;

/// Why the last good state cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum LastGoodError {
    /// Another process uses the directory.
    #[error("{dir} is used by another process; give each proxy its own proxy.last_good")]
    Locked {
        /// The directory.
        dir: PathBuf,
    },
    /// What is there does not read; only [`peek`] says so, [`LastGood::open`] sets it aside.
    #[error("the last good state in {dir} is damaged: {why}")]
    Damaged {
        /// The directory.
        dir: PathBuf,
        /// What does not read.
        why: String,
    },
    /// The system refuses.
    #[error("{path} cannot be {action}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> LastGoodError {
    move |source| LastGoodError::Io { path: path.to_owned(), action, source }
}

/// Why a file was set aside.
#[derive(Debug, thiserror::Error)]
enum Damage {
    #[error("{0} ends too early")]
    Short(String),
    #[error("{0} is not of Schoolgate, or its header is damaged")]
    Header(String),
    #[error("{file}: {source}")]
    Frame { file: String, source: WireError },
    #[error("{0} has bytes after its end")]
    TooLong(String),
    #[error("{file} continues revision {from}, but what is before it leads to {at}")]
    Gap { file: String, from: Revision, at: Revision },
    #[error("{0} is there without a base")]
    NoBase(String),
    #[error("{file} cannot be read: {source}")]
    Unreadable { file: String, source: io::Error },
}

/// What was on disk.
#[derive(Debug)]
pub struct Stored {
    /// The base.
    pub snapshot: Snapshot,
    /// What came after it, in order; each applies to the one before.
    pub deltas: Vec<Delta>,
}

/// What opening a directory found.
#[derive(Debug)]
pub struct Opened {
    /// Where states are kept from now on.
    pub keeper: LastGood,
    /// The last one; `None` when there is none, or none that reads.
    pub stored: Option<Stored>,
    /// What an operator should know.
    pub notices: Vec<String>,
}

/// The directory of the last good state; this process alone writes to it.
#[derive(Debug)]
pub struct LastGood {
    dir: PathBuf,
    /// Closing it gives the lock back.
    _lock: File,
    /// The revision of the base; locked while one is written, since a compaction writes beside everything else.
    base: Arc<Mutex<Option<Revision>>>,
    journal: Option<Journal>,
    /// Whether the end of the journal on disk is unknown, so that nothing may be appended to it.
    unsure: bool,
}

/// The file that deltas are appended to.
#[derive(Debug)]
struct Journal {
    path: PathBuf,
    file: File,
    bytes: u64,
    records: u64,
}

/// A base still to be written, so that older journals can go.
#[derive(Debug)]
pub struct Compaction {
    dir: PathBuf,
    base: Arc<Mutex<Option<Revision>>>,
}

impl LastGood {
    /// Opens a directory, makes it if it is not there, and reads what it holds.
    ///
    /// # Errors
    /// [`LastGoodError`] when the directory cannot be used at all. Files that do not read are no error: they are set
    /// aside, which the notices say.
    pub fn open(dir: &Path, now_ms: i64) -> Result<Opened, LastGoodError> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(failed(dir, "made"))?;
        let lock_path = dir.join(LOCK);
        let lock = private().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(failed(&lock_path, "opened"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => LastGoodError::Locked { dir: dir.to_owned() },
            fs::TryLockError::Error(source) => failed(&lock_path, "locked")(source),
        })?;
        let _ = fs::remove_file(dir.join(NEW_BASE));
        let mut keeper =
            Self { dir: dir.to_owned(), _lock: lock, base: Arc::new(Mutex::new(None)), journal: None, unsure: false };
        let mut notices = Vec::new();
        let stored = match keeper.read(&mut notices) {
            Ok(stored) => stored,
            Err(damage) => {
                notices.push(keeper.set_aside(&damage.to_string(), now_ms)?);
                None
            }
        };
        Ok(Opened { keeper, stored, notices })
    }

    /// Moves all files out of the way, keeping the latest few for whoever wants to know what happened. Returns what to
    /// tell the operator.
    ///
    /// # Errors
    /// A file cannot be moved.
    pub fn set_aside(&mut self, why: &str, now_ms: i64) -> Result<String, LastGoodError> {
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        *base = None;
        self.journal = None;
        self.unsure = false;
        let mut stamps: Vec<String> = Vec::new();
        let mut names = self.list()?;
        names.retain(|name| match name.split_once(DAMAGED) {
            Some((_, stamp)) => {
                stamps.push(stamp.to_owned());
                false
            }
            None => name == BASE || name.starts_with(JOURNAL),
        });
        for name in &names {
            let to = self.dir.join(format!("{name}{DAMAGED}{now_ms}"));
            fs::rename(self.dir.join(name), &to).map_err(failed(&to, "set aside"))?;
        }
        stamps.sort_unstable();
        stamps.dedup();
        let surplus = stamps.len().saturating_sub(DAMAGED_KEPT - 1);
        for stamp in &stamps[..surplus] {
            for name in self.list()?.iter().filter(|name| name.ends_with(&format!("{DAMAGED}{stamp}"))) {
                let _ = fs::remove_file(self.dir.join(name));
            }
        }
        sync_dir(&self.dir)?;
        Ok(format!(
            "the last good state in {} was damaged and set aside as *{DAMAGED}{now_ms}: {why}",
            self.dir.display()
        ))
    }

    /// Appends deltas and syncs them, all or none.
    ///
    /// # Errors
    /// What the system refused. The journal is as before then; if even that is not sure, [`Self::needs_base`].
    pub fn append(&mut self, deltas: &[Delta]) -> Result<(), LastGoodError> {
        let Some(first) = deltas.first() else { return Ok(()) };
        if self.journal.is_none() {
            self.journal = Some(Journal::begin(&self.dir, first.from)?);
        }
        let Some(journal) = &mut self.journal else { return Ok(()) };
        let mut bytes = Vec::with_capacity(1_024);
        for delta in deltas {
            write_frame(&mut bytes, &encode_delta(delta)).map_err(failed(&journal.path, "written"))?;
        }
        if let Err(source) = journal.file.write_all(&bytes) {
            let cut = journal.file.set_len(journal.bytes);
            let cut = cut.and_then(|()| journal.file.seek(SeekFrom::Start(journal.bytes)));
            self.unsure = cut.and_then(|_| journal.file.sync_data()).is_err();
            return Err(failed(&journal.path, "written")(source));
        }
        if let Err(source) = journal.file.sync_data() {
            // The system may have dropped what it could not write, and says so only once.
            self.unsure = true;
            return Err(failed(&journal.path, "synced")(source));
        }
        journal.bytes += bytes.len() as u64;
        journal.records += deltas.len() as u64;
        Ok(())
    }

    /// Whether a base has to be written because there is none, or because the end of the journal is not sure.
    pub fn needs_base(&self) -> bool {
        let base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        base.is_none() || self.unsure
    }

    /// Writes everything anew, in place of what there was.
    ///
    /// # Errors
    /// What the system refused; what there was is still there then.
    pub fn replace(&mut self, snapshot: &Snapshot) -> Result<(), LastGoodError> {
        let compaction = Compaction { dir: self.dir.clone(), base: Arc::clone(&self.base) };
        compaction.run(snapshot)?;
        self.journal = Some(Journal::begin(&self.dir, snapshot.revision)?);
        self.unsure = false;
        Ok(())
    }

    /// Whether the journal is so long that a start would take noticeably longer.
    pub fn is_outgrown(&self) -> bool {
        self.journal.as_ref().is_some_and(|j| j.bytes >= JOURNAL_BYTES || j.records >= JOURNAL_RECORDS)
    }

    /// Begins a new journal at `revision`, the one served. The base is written by [`Compaction::run`], wherever the
    /// caller has time for it; until then nothing is lost.
    ///
    /// # Errors
    /// The new journal cannot be made; the old one goes on.
    pub fn begin_compaction(&mut self, revision: Revision) -> Result<Compaction, LastGoodError> {
        self.journal = Some(Journal::begin(&self.dir, revision)?);
        Ok(Compaction { dir: self.dir.clone(), base: Arc::clone(&self.base) })
    }

    fn list(&self) -> Result<Vec<String>, LastGoodError> {
        list(&self.dir)
    }

    fn read(&mut self, notices: &mut Vec<String>) -> Result<Option<Stored>, Damage> {
        let Some((stored, end)) = read_dir(&self.dir)? else { return Ok(None) };
        if let Some(end) = end {
            if end.cut > 0 {
                let (name, cut) = (&end.name, end.cut);
                notices.push(format!(
                    "{name}: the last {cut} bytes were cut away; the process had stopped while it wrote them"
                ));
            }
            let path = self.dir.join(&end.name);
            let journal = Journal::resume(path, end.whole, end.records);
            self.journal = Some(journal.map_err(|source| Damage::Unreadable { file: end.name, source })?);
        }
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = Some(stored.snapshot.revision);
        Ok(Some(stored))
    }
}

/// What a directory holds, read without taking or changing anything: a proxy may be using it. `None` when there is
/// nothing.
///
/// # Errors
/// [`LastGoodError::Damaged`]; also when a proxy wrote its base anew during the look, which another look mends.
pub fn peek(dir: &Path) -> Result<Option<Stored>, LastGoodError> {
    let damaged = |damage: Damage| LastGoodError::Damaged { dir: dir.to_owned(), why: damage.to_string() };
    Ok(read_dir(dir).map_err(damaged)?.map(|(stored, _)| stored))
}

/// Where the last journal ends.
struct JournalEnd {
    name: String,
    /// Bytes that are whole.
    whole: u64,
    /// Bytes after them that a crash left.
    cut: usize,
    records: u64,
}

/// Reads base and journals.
fn read_dir(dir: &Path) -> Result<Option<(Stored, Option<JournalEnd>)>, Damage> {
    let unreadable = |file: &str| {
        let file = file.to_owned();
        move |source| Damage::Unreadable { file, source }
    };
    let mut journals: Vec<(u64, String)> = list(dir)
        .map_err(|e| Damage::Unreadable { file: dir.display().to_string(), source: io::Error::other(e) })?
        .into_iter()
        .filter_map(|name| Some((name.strip_prefix(JOURNAL)?.parse().ok()?, name)))
        .collect();
    journals.sort_unstable();
    let file = match File::open(dir.join(BASE)) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            // A journal is begun only after its base was written.
            return journals.pop().map_or(Ok(None), |(_, name)| Err(Damage::NoBase(name)));
        }
        Err(e) => return Err(unreadable(BASE)(e)),
    };
    let snapshot = read_base(file)?;
    let (mut at, mut deltas, mut end) = (snapshot.revision, Vec::new(), None);
    let last = journals.len().saturating_sub(1);
    for (place, (_, name)) in journals.into_iter().enumerate() {
        let bytes = fs::read(dir.join(&name)).map_err(unreadable(&name))?;
        let (read, whole) = read_journal(&name, &bytes)?;
        if whole < bytes.len() && place != last {
            return Err(Damage::Short(name));
        }
        let mut records = 0;
        for delta in read {
            records += 1;
            if delta.to <= snapshot.revision {
                continue;
            }
            if delta.from != at {
                return Err(Damage::Gap { file: name, from: delta.from, at });
            }
            at = delta.to;
            deltas.push(delta);
        }
        end = Some(JournalEnd { name, whole: whole as u64, cut: bytes.len() - whole, records });
    }
    Ok(Some((Stored { snapshot, deltas }, end)))
}

impl Compaction {
    /// Writes the base and removes the journals it makes superfluous. Does nothing if a later base is there already.
    ///
    /// # Errors
    /// What the system refused; the older base and all journals are still there then.
    pub fn run(&self, snapshot: &Snapshot) -> Result<(), LastGoodError> {
        let mut base = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        if base.is_some_and(|at| at > snapshot.revision) {
            return Ok(());
        }
        let new = self.dir.join(NEW_BASE);
        write_base(&new, snapshot).map_err(failed(&new, "written"))?;
        let path = self.dir.join(BASE);
        fs::rename(&new, &path).map_err(failed(&path, "replaced"))?;
        sync_dir(&self.dir)?;
        *base = Some(snapshot.revision);
        for name in list(&self.dir)? {
            let superfluous = name
                .strip_prefix(JOURNAL)
                .and_then(|revision| revision.parse::<u64>().ok())
                .is_some_and(|revision| revision < snapshot.revision.0);
            if superfluous {
                let path = self.dir.join(name);
                fs::remove_file(&path).map_err(failed(&path, "removed"))?;
            }
        }
        Ok(())
    }
}

impl Journal {
    /// An empty journal of what comes after `revision`.
    fn begin(dir: &Path, revision: Revision) -> Result<Self, LastGoodError> {
        let path = dir.join(format!("{JOURNAL}{:020}", revision.0));
        let made = private().create(true).write(true).truncate(true).open(&path).and_then(|mut file| {
            file.write_all(&JOURNAL_MAGIC)?;
            file.sync_data()?;
            Ok(file)
        });
        let file = made.map_err(failed(&path, "made"))?;
        sync_dir(dir)?;
        Ok(Self { path, file, bytes: JOURNAL_MAGIC.len() as u64, records: 0 })
    }

    /// A journal that was read, to be continued after its `whole` part.
    fn resume(path: PathBuf, whole: u64, records: u64) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).open(&path)?;
        let mut bytes = whole;
        if file.metadata()?.len() > whole {
            file.set_len(whole)?;
        }
        file.seek(SeekFrom::Start(whole))?;
        if whole < JOURNAL_MAGIC.len() as u64 {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&JOURNAL_MAGIC)?;
            bytes = JOURNAL_MAGIC.len() as u64;
        }
        file.sync_data()?;
        Ok(Self { path, file, bytes, records })
    }
}

/// Files here hold sealed keys: nobody else reads them.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.mode(0o600);
    options
}

fn list(dir: &Path) -> Result<Vec<String>, LastGoodError> {
    let names = fs::read_dir(dir)
        .and_then(|entries| entries.map(|e| e.map(|e| e.file_name().to_string_lossy().into_owned())).collect());
    names.map_err(failed(dir, "listed"))
}

/// Makes renames and removals in a directory last.
fn sync_dir(dir: &Path) -> Result<(), LastGoodError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir, "synced"))
}

fn write_frame(out: &mut impl Write, payload: &[u8]) -> io::Result<()> {
    let length = u32::try_from(payload.len()).map_err(|_| io::Error::other("a frame is longer than 4 GiB"))?;
    out.write_all(&length.to_le_bytes())?;
    out.write_all(&crc32fast::hash(&length.to_le_bytes()).to_le_bytes())?;
    out.write_all(payload)
}

/// The length in a frame's header; `None` when the header is damaged.
fn frame_length(header: &[u8; FRAME_HEADER]) -> Option<usize> {
    let (length, checksum) = header.split_at(4);
    let whole = crc32fast::hash(length).to_le_bytes() == checksum;
    whole.then(|| u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize)
}

fn write_base(path: &Path, snapshot: &Snapshot) -> io::Result<()> {
    let file = private().create(true).write(true).truncate(true).open(path)?;
    let mut out = BufWriter::with_capacity(1 << 20, file);
    let frames = snapshot.objects.chunks(FRAME_OBJECTS);
    let mut header = Vec::with_capacity(BASE_HEADER);
    header.extend_from_slice(&BASE_MAGIC);
    header.extend_from_slice(&snapshot.revision.0.to_le_bytes());
    header.extend_from_slice(&u32::try_from(frames.len()).map_err(io::Error::other)?.to_le_bytes());
    header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
    out.write_all(&header)?;
    for objects in frames {
        let part = Snapshot { revision: snapshot.revision, objects: objects.to_vec() };
        write_frame(&mut out, &encode_snapshot(&part))?;
    }
    out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
}

/// Reads a base with as many threads as there are cores: decoding takes longer than reading.
fn read_base(file: File) -> Result<Snapshot, Damage> {
    let damaged = || Damage::Header(BASE.to_owned());
    let short = |source: io::Error| match source.kind() {
        io::ErrorKind::UnexpectedEof => Damage::Short(BASE.to_owned()),
        _ => Damage::Unreadable { file: BASE.to_owned(), source },
    };
    let mut left = file.metadata().map_err(short)?.len();
    let mut file = BufReader::with_capacity(1 << 20, file);
    let mut header = [0; BASE_HEADER];
    file.read_exact(&mut header).map_err(short)?;
    left -= BASE_HEADER as u64;
    let (fields, checksum) = header.split_at(BASE_HEADER - 4);
    if fields[..4] != BASE_MAGIC || crc32fast::hash(fields).to_le_bytes() != checksum {
        return Err(damaged());
    }
    let revision = Revision(u64::from_le_bytes(fields[4..12].try_into().map_err(|_| damaged())?));
    let frames = u32::from_le_bytes(fields[12..16].try_into().map_err(|_| damaged())?) as usize;

    let source = Mutex::new((file, 0_usize, left));
    let next = || -> Result<Option<(usize, Vec<u8>)>, Damage> {
        let mut source = source.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, at, left) = &mut *source;
        if *at == frames {
            return if *left == 0 { Ok(None) } else { Err(Damage::TooLong(BASE.to_owned())) };
        }
        let mut header = [0; FRAME_HEADER];
        file.read_exact(&mut header).map_err(short)?;
        let length = frame_length(&header).ok_or_else(damaged)?;
        *left = left.saturating_sub(FRAME_HEADER as u64);
        *left = left.checked_sub(length as u64).ok_or_else(|| Damage::Short(BASE.to_owned()))?;
        let mut payload = vec![0; length];
        file.read_exact(&mut payload).map_err(short)?;
        *at += 1;
        Ok(Some((*at, payload)))
    };
    let read = || -> Result<Vec<(usize, Vec<Object>)>, Damage> {
        let mut parts = Vec::new();
        while let Some((place, payload)) = next()? {
            let part = decode_snapshot(&payload).map_err(|source| Damage::Frame { file: BASE.to_owned(), source })?;
            if part.revision != revision {
                return Err(damaged());
            }
            parts.push((place, part.objects));
        }
        Ok(parts)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(8);
    let mut parts = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(read)).collect();
        let mut parts = read()?;
        for other in others {
            parts.append(&mut other.join().map_err(|_| damaged())??);
        }
        Ok::<_, Damage>(parts)
    })?;
    parts.sort_unstable_by_key(|(place, _)| *place);
    let mut objects: Vec<Object> = parts.into_iter().flat_map(|(_, objects)| objects).collect();
    share_chains(&mut objects);
    Ok(Snapshot { revision, objects })
}

/// The deltas of a journal, and how many of its bytes are whole. Less than all only when the rest can be what a crash
/// left of the last append.
fn read_journal(name: &str, bytes: &[u8]) -> Result<(Vec<Delta>, usize), Damage> {
    let mut deltas = Vec::new();
    let Some((magic, mut rest)) = bytes.split_first_chunk::<4>() else { return Ok((deltas, 0)) };
    if *magic != JOURNAL_MAGIC {
        return if bytes.iter().all(|byte| *byte == 0) {
            Ok((deltas, 0))
        } else {
            Err(Damage::Header(name.to_owned()))
        };
    }
    let mut whole = JOURNAL_MAGIC.len();
    while !rest.is_empty() {
        // A file can grow before its bytes arrive, so a cut record may also read as zeros.
        let torn = |rest: &[u8]| rest.iter().all(|byte| *byte == 0);
        let Some((header, after)) = rest.split_first_chunk::<FRAME_HEADER>() else { break };
        let Some(length) = frame_length(header) else {
            if torn(rest) {
                break;
            }
            return Err(Damage::Header(name.to_owned()));
        };
        let Some(payload) = after.get(..length) else { break };
        match decode_delta(payload) {
            Ok(delta) => deltas.push(delta),
            // The very last record: its end may not have reached the disk.
            Err(WireError::Checksum | WireError::NotOurs { .. })
                if after.len() == length && payload.ends_with(&[0; 8]) =>
            {
                break;
            }
            Err(source) => return Err(Damage::Frame { file: name.to_owned(), source }),
        }
        whole += FRAME_HEADER + length;
        rest = &after[length..];
    }
    Ok((deltas, whole))
}
