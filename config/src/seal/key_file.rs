//! The file of the key-encryption keys: one that seals, and while keys change, the one before or after it.
//!
//! ```text
//! 64 hexadecimal digits             the key that seals
//! 64 hexadecimal digits next        known, does not seal yet
//! 64 hexadecimal digits previous    opens what is not wrapped anew yet
//! ```
//!
//! A rotation is three writes of this file: `next` is added, becomes the key that seals while the one before becomes
//! `previous`, and that goes. Each is whole or not at all, and says by itself how far the rotation is, so a process that
//! is killed between two of them, or beside them, goes on where it was.

use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::{KEY_LEN, SealError, random_key};

/// What a key of the file is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It seals.
    Current,
    /// It will seal when everybody has it.
    Next,
    /// It sealed, and still opens.
    Previous,
}

/// A key-encryption key, wiped when it is dropped.
pub(super) struct Kek {
    pub(super) id: String,
    pub(super) bytes: Box<Zeroizing<[u8; KEY_LEN]>>,
    pub(super) role: Role,
}

impl Kek {
    pub(super) fn new(bytes: &[u8; KEY_LEN], role: Role) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        Self { id: hex::encode(&digest.as_ref()[..4]), bytes: Box::new(Zeroizing::new(*bytes)), role }
    }
}

/// The keys of a file: exactly one is current, at most one beside it is next or previous.
pub(super) fn read(path: &Path) -> Result<Vec<Kek>, SealError> {
    let file = |source| SealError::File { path: path.into(), action: "read", source };
    let text = Zeroizing::new(std::fs::read(path).map_err(file)?);
    parse(&text).ok_or_else(|| SealError::Damaged { path: path.into() })
}

fn parse(text: &[u8]) -> Option<Vec<Kek>> {
    let mut keks = Vec::new();
    for line in text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        let (digits, role) = line.split_at_checked(2 * KEY_LEN)?;
        let role = match role.trim_ascii() {
            b"" => Role::Current,
            b"next" => Role::Next,
            b"previous" => Role::Previous,
            _ => return None,
        };
        let mut bytes = Zeroizing::new([0; KEY_LEN]);
        hex::decode_to_slice(digits, bytes.as_mut_slice()).ok()?;
        keks.push(Kek::new(&bytes, role));
    }
    let current = keks.iter().filter(|kek| kek.role == Role::Current).count();
    let others = keks.len().checked_sub(1)?;
    let distinct = keks.first().zip(keks.get(1)).is_none_or(|(one, other)| one.id != other.id);
    (current == 1 && others <= 1 && distinct).then_some(keks)
}

fn text(keks: &[Kek]) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::with_capacity(keks.len() * (2 * KEY_LEN + 16)));
    for kek in keks {
        let digits = Zeroizing::new(hex::encode(kek.bytes.as_slice()));
        text.push_str(&digits);
        text.push_str(match kek.role {
            Role::Current => "\n",
            Role::Next => " next\n",
            Role::Previous => " previous\n",
        });
    }
    text
}

/// Makes a file with one key, if there is none.
pub(super) fn create(path: &Path) -> Result<(), SealError> {
    let kek = Kek::new(&random_key(), Role::Current);
    let file = |source| SealError::File { path: path.into(), action: "written", source };
    let write = || {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        let temporary = Temporary::write(path, &text(&[kek]), 0o600)?;
        match std::fs::hard_link(&temporary.0, path) {
            // Another process may have been first: what is on disk counts.
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        }
    };
    write().map_err(file)
}

/// Adds a key that will seal. Gives the keys of the file after it, or `None` when a rotation is under way.
pub(super) fn introduce(path: &Path) -> Result<Option<Vec<Kek>>, SealError> {
    let mut keks = read(path)?;
    if keks.len() > 1 {
        return Ok(None);
    }
    keks.push(Kek::new(&random_key(), Role::Next));
    replace(path, &keks)?;
    Ok(Some(keks))
}

/// The key that was to seal next seals, and the one before opens. Gives `None` when there is none.
pub(super) fn promote(path: &Path) -> Result<Option<Vec<Kek>>, SealError> {
    let mut keks = read(path)?;
    if !keks.iter().any(|kek| kek.role == Role::Next) {
        return Ok(None);
    }
    for kek in &mut keks {
        kek.role = if kek.role == Role::Next { Role::Current } else { Role::Previous };
    }
    keks.sort_by_key(|kek| kek.role == Role::Previous);
    replace(path, &keks)?;
    Ok(Some(keks))
}

/// The key before goes for good. Gives `None` when there is none.
pub(super) fn retire(path: &Path) -> Result<Option<Vec<Kek>>, SealError> {
    let mut keks = read(path)?;
    let all = keks.len();
    keks.retain(|kek| kek.role != Role::Previous);
    if keks.len() == all {
        return Ok(None);
    }
    replace(path, &keks)?;
    Ok(Some(keks))
}

/// Whether a file can be replaced by this process: its directory takes a new one.
pub(super) fn can_be_replaced(path: &Path) -> Result<(), SealError> {
    let file = |source| SealError::File { path: path.into(), action: "replaced", source };
    Temporary::write(path, "", 0o600).map(drop).map_err(file)
}

/// Puts other content in the place of a file, whole or not at all, for whoever could read it before.
fn replace(path: &Path, keks: &[Kek]) -> Result<(), SealError> {
    let write = || {
        let before = std::fs::metadata(path)?;
        let temporary = Temporary::write(path, &text(keks), 0o600)?;
        // Who may read it is decided before it is there. Only root may give a file away; a group of one's own is enough.
        std::os::unix::fs::chown(&temporary.0, None, Some(before.gid()))?;
        std::fs::set_permissions(&temporary.0, std::fs::Permissions::from_mode(before.mode() & 0o660))?;
        std::fs::rename(&temporary.0, path)?;
        match path.parent() {
            Some(dir) => std::fs::File::open(dir)?.sync_all(),
            None => Ok(()),
        }
    };
    write().map_err(|source| SealError::File { path: path.into(), action: "replaced", source })
}

/// A file beside another, gone when it is dropped unless it was renamed.
struct Temporary(std::path::PathBuf);

impl Temporary {
    fn write(beside: &Path, text: &str, mode: u32) -> io::Result<Self> {
        let path = beside.with_extension(format!("new-{}", crate::time::new_ulid()));
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        let temporary = Self(path);
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_key_file_is_refused() {
        let (one, two) = ("11".repeat(32), "22".repeat(32));
        let good =
            [format!("{one}\n"), one.clone(), format!(" {one} \n\n{two} next"), format!("{two} previous\n{one}")];
        for text in good {
            assert!(parse(text.as_bytes()).is_some(), "{text}");
        }
        let bad = [
            String::new(),
            "xyz".to_owned(),
            one[1..].to_owned(),
            format!("{one}11"),
            format!("{one} later"),
            format!("{one} next"),
            format!("{one}\n{two}"),
            format!("{one}\n{one} next"),
            format!("{one}\n{two} next\n{} previous", "33".repeat(32)),
        ];
        for text in bad {
            assert!(parse(text.as_bytes()).is_none(), "{text}");
        }
    }

    #[test]
    fn a_rotation_is_three_writes_and_keeps_who_may_read() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("kek");
        create(&path).expect("made");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("ours");
        let ids = |keks: &[Kek]| keks.iter().map(|kek| (kek.id.clone(), kek.role)).collect::<Vec<_>>();
        let first = ids(&read(&path).expect("reads"));
        assert!(promote(&path).expect("reads").is_none() && retire(&path).expect("reads").is_none());

        let both = introduce(&path).expect("writes").expect("none under way");
        assert_eq!(ids(&both), ids(&read(&path).expect("reads")));
        assert_eq!((both[0].id.clone(), both[1].role), (first[0].0.clone(), Role::Next));
        assert!(introduce(&path).expect("reads").is_none());
        let turned = promote(&path).expect("writes").expect("there is a next");
        assert_eq!(ids(&turned), [(both[1].id.clone(), Role::Current), (first[0].0.clone(), Role::Previous)]);
        assert!(introduce(&path).expect("reads").is_none());
        let done = retire(&path).expect("writes").expect("there is a previous");
        assert_eq!(ids(&done), [(both[1].id.clone(), Role::Current)]);
        assert_eq!(std::fs::metadata(&path).expect("is there").mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(dir.path()).expect("reads").count(), 1, "nothing is left beside it");
    }
}
