//! Files that routes answer with: a directory held in memory, so that no request reads a disk.
//!
//! They are small and the same for everyone: a maintenance page's picture, `robots.txt`, `security.txt`. A directory is
//! read whole when the proxy starts and whenever something in it changed; what cannot be read, or is more than the
//! settings allow, changes nothing: the files before it go on being served, and the log says what to do.
//!
//! * `tree`: one reading of the directory.
//! * `conditional`: whether the client has it already.

mod conditional;
mod tree;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use schoolgate_config::model::FilesAnswer;
use schoolgate_config::settings::Settings;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

pub(crate) use conditional::has_it;
pub(crate) use tree::Held;
use tree::{Bounds, Seen, Tree};

/// Where files are, and how much of them is held.
#[derive(Debug, Clone)]
pub struct FilesOptions {
    dir: PathBuf,
    bounds: Bounds,
    reread: Duration,
}

impl FilesOptions {
    /// As the settings say; `None` when they name no directory.
    pub fn new(settings: &Settings) -> Option<Self> {
        let files = &settings.proxy.files;
        (!files.dir.is_empty()).then(|| Self {
            dir: settings.path(&files.dir),
            bounds: Bounds { file: u64::from(files.file_bytes), total: u64::from(files.total_bytes) },
            reread: files.reread_s.duration(),
        })
    }
}

/// What a path leads to.
#[derive(Debug)]
pub(crate) enum Found {
    /// A file.
    File(Held),
    /// A directory, which has a page: its address ends with a slash.
    Directory,
}

/// The files of a proxy; none at first.
#[derive(Debug, Default)]
pub struct Files(ArcSwap<Tree>);

impl Files {
    /// What is held under a name. A name that ends with `/`, or is empty, is a directory's, whose page is meant.
    pub(crate) fn find(&self, name: &str) -> Option<Found> {
        let tree = self.0.load();
        if name.is_empty() || name.ends_with('/') {
            return tree.get(&format!("{name}{}", FilesAnswer::INDEX)).map(Found::File);
        }
        if let Some(held) = tree.get(name) {
            return Some(Found::File(held));
        }
        tree.get(&format!("{name}/{}", FilesAnswer::INDEX)).map(|_| Found::Directory)
    }

    /// Reads the directory before anybody asks for what is in it. What is wrong is logged: a picture that is missing is
    /// no reason to serve nobody.
    pub async fn read(self: &Arc<Self>, options: &FilesOptions) {
        self.look(options, None).await;
    }

    /// Looks again and again whether something changed, until told to stop.
    pub async fn run(self: Arc<Self>, options: FilesOptions, stop: CancellationToken) {
        let mut last = None;
        while stop.run_until_cancelled(tokio::time::sleep(options.reread)).await.is_some() {
            last = self.look(&options, last).await;
        }
    }

    /// Takes what is there, unless it is what was seen before; says what it saw.
    async fn look(self: &Arc<Self>, options: &FilesOptions, before: Option<Seen>) -> Option<Seen> {
        let (this, options) = (Arc::clone(self), options.clone());
        let looking = tokio::task::spawn_blocking(move || {
            let seen = match tree::see(&options.dir) {
                Ok(seen) if before.as_ref() == Some(&seen) => return before,
                Ok(seen) => seen,
                Err(problem) => {
                    // Told once: `Seen` of a directory that cannot be read is equal to the next one.
                    let seen = Seen::unreadable(&problem);
                    if before.as_ref() != Some(&seen) {
                        error!("files to answer with are not read: {problem}; what was read before is served");
                    }
                    return Some(seen);
                }
            };
            match Tree::read(&options.dir, &seen, options.bounds) {
                Ok(tree) if *this.0.load_full() == tree => {}
                Ok(tree) => {
                    info!(
                        "{} files to answer with read from {}, {} bytes",
                        tree.len(),
                        options.dir.display(),
                        tree.bytes()
                    );
                    this.0.store(Arc::new(tree));
                }
                Err(problem) => error!("files to answer with are not read: {problem}; what was read before is served"),
            }
            Some(seen)
        });
        looking.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(dir: &std::path::Path, total: u64) -> FilesOptions {
        FilesOptions { dir: dir.to_owned(), bounds: Bounds { file: total, total }, reread: Duration::from_millis(20) }
    }

    fn text(files: &Files, name: &str) -> Option<String> {
        match files.find(name)? {
            Found::File(held) => String::from_utf8(held.bytes.to_vec()).ok(),
            Found::Directory => Some("a directory".to_owned()),
        }
    }

    #[tokio::test]
    async fn a_directory_has_a_page_and_an_address_that_ends_with_a_slash() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("status")).expect("made");
        std::fs::write(dir.path().join("status/index.html"), "page").expect("written");
        let files = Arc::new(Files::default());
        assert!(files.find("").is_none());
        files.read(&options(dir.path(), 100)).await;
        assert_eq!(text(&files, "status/").as_deref(), Some("page"));
        assert_eq!(text(&files, "status").as_deref(), Some("a directory"));
        assert_eq!(text(&files, "status/index.html").as_deref(), Some("page"));
        for none in ["", "/", "status/none", "status//", "stat", "../status/index.html"] {
            assert!(files.find(none).is_none(), "{none:?}");
        }
    }

    #[tokio::test]
    async fn what_changes_is_served_and_what_is_too_much_or_gone_changes_nothing() {
        let parent = tempfile::tempdir().expect("a directory");
        let dir = parent.path().join("files");
        std::fs::create_dir(&dir).expect("made");
        let write = |name: &str, text: &str| std::fs::write(dir.join(name), text).expect("written");
        let (files, options) = (Arc::new(Files::default()), options(&dir, 10));
        let served = async || {
            files.read(&options).await;
            text(&files, "a.txt").expect("a file")
        };
        write("a.txt", "one");
        assert_eq!(served().await, "one");
        write("a.txt", "two");
        assert_eq!(served().await, "two");
        write("b.txt", "far too much");
        write("a.txt", "three");
        assert_eq!(served().await, "two");
        std::fs::remove_file(dir.join("b.txt")).expect("removed");
        assert_eq!(served().await, "three");
        std::fs::rename(&dir, parent.path().join("away")).expect("renamed");
        assert_eq!(served().await, "three");
        std::fs::rename(parent.path().join("away"), &dir).expect("renamed");
        std::fs::remove_file(dir.join("a.txt")).expect("removed");
        files.read(&options).await;
        assert!(files.find("a.txt").is_none());
    }

    #[tokio::test]
    async fn it_looks_again_by_itself_and_reads_only_what_changed() {
        let dir = tempfile::tempdir().expect("a directory");
        let (files, options) = (Arc::new(Files::default()), options(dir.path(), 10));
        std::fs::write(dir.path().join("a.txt"), "one").expect("written");
        let seen = files.look(&options, None).await;
        let tree = files.0.load_full();
        assert_eq!(files.look(&options, seen.clone()).await, seen);
        assert!(Arc::ptr_eq(&tree, &files.0.load_full()));
        let stop = CancellationToken::new();
        let running = tokio::spawn(Arc::clone(&files).run(options, stop.clone()));
        std::fs::write(dir.path().join("a.txt"), "other").expect("written");
        schoolgate_testkit::eventually(Duration::from_secs(10), || async {
            text(&files, "a.txt").as_deref() == Some("other")
        })
        .await;
        stop.cancel();
        running.await.expect("no panic");
    }
}
