//! One reading of a directory: what is there, and the files themselves.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use http::HeaderValue;
use schoolgate_config::model::FilePath;

/// Directories in one another: 16. Deeper is a loop, or no directory of a few files.
const DEPTH: usize = 16;

/// Files: 4,096, for the same reason.
const MOST_FILES: usize = 4_096;

/// How much is held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    /// Bytes of one file.
    pub(super) file: u64,
    /// Bytes of all.
    pub(super) total: u64,
}

/// Why a directory was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum TreeError {
    #[error("{path} cannot be read: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} has a name that is not UTF-8: rename it")]
    Name(PathBuf),
    #[error("{0} has directories more than {DEPTH} deep: the setting proxy.files.dir is for a few files")]
    Deep(PathBuf),
    #[error("{0} has more than {MOST_FILES} files: the setting proxy.files.dir is for a few")]
    Many(PathBuf),
    #[error("{path} has more than {most} bytes: make it smaller, or raise the setting proxy.files.file_bytes")]
    Large { path: PathBuf, most: u64 },
    #[error("the files have more than {most} bytes together: raise the setting proxy.files.total_bytes")]
    Full { most: u64 },
}

impl TreeError {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { path: path.to_owned(), source }
    }
}

/// What was seen of a directory: enough to tell whether it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    files: Vec<Entry>,
    problem: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    /// As routes name it.
    name: String,
    path: PathBuf,
    length: u64,
    changed: Option<SystemTime>,
}

impl Seen {
    /// Of a directory that could not be read.
    pub(super) fn unreadable(problem: &TreeError) -> Self {
        Self { files: Vec::new(), problem: Some(problem.to_string()) }
    }
}

/// Lists the files below a directory, in order of their names.
pub(super) fn see(root: &Path) -> Result<Seen, TreeError> {
    let root = root.canonicalize().map_err(TreeError::io(root))?;
    let mut files = Vec::new();
    walk(&root, &root, "", DEPTH, &mut files)?;
    files.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(Seen { files, problem: None })
}

fn walk(root: &Path, dir: &Path, prefix: &str, depth: usize, files: &mut Vec<Entry>) -> Result<(), TreeError> {
    for entry in fs::read_dir(dir).map_err(TreeError::io(dir))? {
        let entry = entry.map_err(TreeError::io(dir))?;
        let path = entry.path();
        let name = entry.file_name().into_string().map_err(|_| TreeError::Name(path.clone()))?;
        if !FilePath::is_served(&name) {
            continue;
        }
        let name = format!("{prefix}{name}");
        let kind = entry.file_type().map_err(TreeError::io(&path))?;
        if kind.is_dir() {
            let deeper = depth.checked_sub(1).ok_or_else(|| TreeError::Deep(root.to_owned()))?;
            walk(root, &path, &format!("{name}/"), deeper, files)?;
            continue;
        }
        // A link to a file below the root is that file, as Kubernetes mounts them; any other leads elsewhere.
        let path = if kind.is_symlink() {
            match path.canonicalize() {
                Ok(target) if target.starts_with(root) => target,
                _ => continue,
            }
        } else {
            path
        };
        let about = match fs::metadata(&path) {
            // Gone since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            about => about.map_err(TreeError::io(&path))?,
        };
        if about.is_file() {
            if files.len() == MOST_FILES {
                return Err(TreeError::Many(root.to_owned()));
            }
            files.push(Entry { name, path, length: about.len(), changed: about.modified().ok() });
        }
    }
    Ok(())
}

/// A file in memory, as it is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) bytes: Bytes,
    pub(crate) content_type: HeaderValue,
    /// Of its content, so that every gateway says the same of the same file.
    pub(crate) etag: HeaderValue,
}

/// Files by name.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Tree(HashMap<String, Held>);

impl Tree {
    /// Reads the files that were seen.
    pub(super) fn read(root: &Path, seen: &Seen, bounds: Bounds) -> Result<Self, TreeError> {
        let mut files = HashMap::with_capacity(seen.files.len());
        let mut left = bounds.total;
        for Entry { name, path, .. } in &seen.files {
            let shown = || root.join(name);
            let file = File::open(path).map_err(TreeError::io(path))?;
            let (mut bytes, most) = (Vec::new(), bounds.file.min(left));
            file.take(most + 1).read_to_end(&mut bytes).map_err(TreeError::io(path))?;
            let length = bytes.len() as u64;
            if length > bounds.file {
                return Err(TreeError::Large { path: shown(), most: bounds.file });
            }
            left = left.checked_sub(length).ok_or(TreeError::Full { most: bounds.total })?;
            files.insert(name.clone(), Held::new(name, bytes));
        }
        Ok(Self(files))
    }

    pub(super) fn get(&self, name: &str) -> Option<Held> {
        self.0.get(name).cloned()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.0.values().map(|held| held.bytes.len()).sum()
    }
}

impl Held {
    fn new(name: &str, bytes: Vec<u8>) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        let tag: String = digest.as_ref()[..12].iter().map(|byte| format!("{byte:02x}")).collect();
        let guessed = mime_guess::from_path(name).first_raw().unwrap_or("application/octet-stream");
        // Of text that does not say its charset a browser guesses it.
        let text = guessed.starts_with("text/");
        let content_type = if text { format!("{guessed}; charset=utf-8") } else { guessed.to_owned() };
        let field = |text: String| HeaderValue::try_from(text).expect("letters, digits and quotes");
        Self { bytes: bytes.into(), content_type: field(content_type), etag: field(format!("\"{tag}\"")) }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const ROOMY: Bounds = Bounds { file: 100, total: 200 };

    fn dir(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        }
        dir
    }

    fn read(dir: &Path, bounds: Bounds) -> Result<Tree, TreeError> {
        Tree::read(dir, &see(dir)?, bounds)
    }

    fn names(tree: &Tree) -> Vec<&str> {
        let mut names: Vec<_> = tree.0.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn files_are_read_by_name_and_hidden_ones_and_links_that_lead_out_are_not() {
        let elsewhere = dir(&[("secret", "s"), ("deep/secret", "s")]);
        let dir = dir(&[
            ("a.css", "a"),
            ("sub/b.SVG", "b"),
            (".env", "no"),
            (".git/config", "no"),
            ("sub/.htaccess", "no"),
            (".well-known/security.txt", "yes"),
            ("..data/mounted.txt", "as Kubernetes mounts"),
        ]);
        symlink(elsewhere.path().join("secret"), dir.path().join("out")).expect("linked");
        symlink(elsewhere.path().join("deep"), dir.path().join("deep")).expect("linked");
        symlink("..data/mounted.txt", dir.path().join("mounted.txt")).expect("linked");
        symlink(".", dir.path().join("loop")).expect("linked");
        symlink("nowhere", dir.path().join("broken")).expect("linked");
        let _listens = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).expect("bound");
        let tree = read(dir.path(), ROOMY).expect("read");
        assert_eq!(names(&tree), [".well-known/security.txt", "a.css", "mounted.txt", "sub/b.SVG"]);
        let types = |name: &str| tree.get(name).expect(name).content_type;
        assert_eq!(types("a.css"), "text/css; charset=utf-8");
        assert_eq!(types("sub/b.SVG"), "image/svg+xml");
        assert_eq!(Held::new("odd", Vec::new()).content_type, "application/octet-stream");
    }

    #[test]
    fn what_is_more_than_the_bounds_is_refused_and_names_what_to_do() {
        let large = dir(&[("a", &"a".repeat(101))]);
        let said = read(large.path(), ROOMY).expect_err("too large").to_string();
        assert!(said.contains("/a has more than 100 bytes") && said.contains("proxy.files.file_bytes"), "{said}");
        let full = dir(&[("a", &"a".repeat(100)), ("b", &"b".repeat(100)), ("c", "c")]);
        let said = read(full.path(), ROOMY).expect_err("too much").to_string();
        assert!(said.contains("200 bytes together") && said.contains("proxy.files.total_bytes"), "{said}");
        let deep = dir(&[(&format!("{}x", "d/".repeat(DEPTH + 1)), "x")]);
        assert!(matches!(read(deep.path(), ROOMY), Err(TreeError::Deep(_))));
        let just = dir(&[(&format!("{}x", "d/".repeat(DEPTH)), "x")]);
        assert_eq!(read(just.path(), ROOMY).expect("read").len(), 1);
        assert!(matches!(read(&just.path().join("none"), ROOMY), Err(TreeError::Io { .. })));
    }

    #[test]
    fn a_tag_is_of_the_content() {
        let tag = |text: &str| Held::new("x", text.into()).etag;
        assert_eq!(tag("a"), tag("a"));
        assert_ne!(tag("a"), tag("b"));
        assert_eq!(tag("").as_bytes().len(), 26);
    }
}
