//! What a damaged directory does: it is noticed, set aside and said, and never half-loaded.

use std::fs;
use std::path::{Path, PathBuf};

use schoolgate_config::feed::FeedAnswer;
use schoolgate_proxy::feed::last_good::{LastGood, LastGoodError, Opened, peek};

use crate::adoption::journals;
use crate::world::{Node, adds, snapshot};

/// A directory at revision 4: a base at 1 and three deltas.
fn written(dir: &Path) {
    let node = Node::load(dir).unwrap();
    node.adoption.adopt(FeedAnswer::Snapshot(snapshot(2))).unwrap();
    for to in 2..=4 {
        node.adoption.adopt(FeedAnswer::Deltas(vec![adds(to, &format!("d{to}.example"))])).unwrap();
    }
}

/// Copies of one such directory: writing it anew for every damage would mostly be waiting for the disk.
struct Copies(tempfile::TempDir);

impl Copies {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path());
        Self(dir)
    }

    fn copy(&self) -> tempfile::TempDir {
        let copy = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(self.0.path()).unwrap() {
            let entry = entry.unwrap();
            fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
        copy
    }
}

fn journal(dir: &Path) -> PathBuf {
    dir.join(journals(dir).last().expect("a journal"))
}

fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

fn open(dir: &Path) -> Opened {
    LastGood::open(dir, 1_700_000_000_000).unwrap()
}

/// Nothing is served, the files are there under another name, the operator is told, and the next state is kept.
fn is_set_aside(dir: &Path, what: &str) {
    let opened = open(dir);
    assert!(opened.stored.is_none(), "{what}: something was loaded");
    assert_eq!(opened.notices.len(), 1, "{what}: {:?}", opened.notices);
    assert!(opened.notices[0].contains("damaged"), "{what}: {:?}", opened.notices);
    let names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert!(names.iter().any(|name| name.ends_with(".damaged-1700000000000")), "{what}: {names:?}");
    drop(opened);
    let node = Node::load(dir).unwrap();
    node.adoption.adopt(FeedAnswer::Snapshot(snapshot(1))).unwrap();
    drop(node);
    assert_eq!(Node::load(dir).unwrap().revision(), 1, "{what}: not usable afterwards");
}

#[test]
fn any_changed_byte_of_the_base_sets_all_aside() {
    let copies = Copies::new();
    let whole = fs::read(copies.0.path().join("base")).unwrap();
    for at in (0..whole.len()).step_by(whole.len() / 40) {
        let dir = copies.copy();
        change(&dir.path().join("base"), |bytes| bytes[at] ^= 0x10);
        is_set_aside(dir.path(), &format!("byte {at}"));
    }
}

#[test]
fn a_base_that_is_cut_or_continued_is_damage() {
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("cut by one byte", |bytes| bytes.truncate(bytes.len() - 1)),
        ("cut in its header", |bytes| bytes.truncate(10)),
        ("empty", Vec::clear),
        ("too long", |bytes| bytes.push(0)),
    ];
    for (what, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path());
        change(&dir.path().join("base"), damage);
        is_set_aside(dir.path(), what);
    }
}

#[test]
fn any_changed_byte_before_the_last_record_of_the_journal_sets_all_aside() {
    let copies = Copies::new();
    let whole = fs::read(journal(copies.0.path())).unwrap().len();
    let records = (whole - 4) / 3;
    for at in (0..4 + 2 * records).step_by(7) {
        let dir = copies.copy();
        change(&journal(dir.path()), |bytes| bytes[at] ^= 0x10);
        is_set_aside(dir.path(), &format!("byte {at}"));
    }
}

#[test]
fn a_journal_cut_anywhere_loses_its_last_record_and_goes_on() {
    let copies = Copies::new();
    let whole = fs::read(journal(copies.0.path())).unwrap().len();
    let record = (whole - 4) / 3;
    for cut in (1..record).step_by(3) {
        let dir = copies.copy();
        change(&journal(dir.path()), |bytes| bytes.truncate(whole - cut));
        let opened = open(dir.path());
        assert!(opened.notices.len() == 1 && opened.notices[0].contains("cut away"), "{:?}", opened.notices);
        assert_eq!(opened.stored.expect("loaded").deltas.len(), 2);
        drop(opened.keeper);
        let node = Node::load(dir.path()).unwrap();
        assert_eq!(node.revision(), 3);
        node.adoption.adopt(FeedAnswer::Deltas(vec![adds(4, "again.example")])).unwrap();
        drop(node);
        assert!(Node::load(dir.path()).unwrap().serves("again.example"));
    }
}

#[test]
fn a_journal_that_grew_before_its_bytes_arrived_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    change(&journal(dir.path()), |bytes| bytes.extend_from_slice(&[0; 300]));
    assert_eq!(Node::load(dir.path()).unwrap().revision(), 4);
    assert!(open(dir.path()).notices.is_empty(), "the zeros were not cut away");
}

#[test]
fn a_journal_without_its_base_or_with_a_gap_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    fs::remove_file(dir.path().join("base")).unwrap();
    is_set_aside(dir.path(), "no base");

    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    written(dir.path());
    {
        let node = Node::load(other.path()).unwrap();
        let mut later = snapshot(2);
        later.revision = schoolgate_config::model::Revision(8);
        node.adoption.adopt(FeedAnswer::Snapshot(later)).unwrap();
        node.adoption.adopt(FeedAnswer::Deltas(vec![adds(9, "nine.example")])).unwrap();
    }
    let journal = journal(other.path());
    fs::copy(&journal, dir.path().join(journal.file_name().unwrap())).unwrap();
    is_set_aside(dir.path(), "a gap");
}

#[test]
fn a_crash_between_the_new_journal_and_the_new_base_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    {
        let mut opened = open(dir.path());
        let compaction = opened.keeper.begin_compaction(schoolgate_config::model::Revision(4)).unwrap();
        opened.keeper.append(&[adds(5, "five.example")]).unwrap();
        drop(compaction);
        fs::write(dir.path().join("base.new"), b"half a base").unwrap();
    }
    assert_eq!(journals(dir.path()).len(), 2);
    let node = Node::load(dir.path()).unwrap();
    assert_eq!(node.revision(), 5);
    assert!(node.serves("d2.example") && node.serves("five.example"));
}

#[test]
fn a_compaction_that_comes_late_does_not_replace_a_later_base() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    let mut opened = open(dir.path());
    let compaction = opened.keeper.begin_compaction(schoolgate_config::model::Revision(4)).unwrap();
    let mut later = snapshot(2);
    later.revision = schoolgate_config::model::Revision(20);
    opened.keeper.replace(&later).unwrap();
    compaction.run(&snapshot(2)).unwrap();
    drop(opened);
    assert_eq!(Node::load(dir.path()).unwrap().revision(), 20);
}

#[test]
fn two_proxies_do_not_share_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let _first = Node::load(dir.path()).unwrap();
    let second = Node::load(dir.path());
    assert!(matches!(second.err(), Some(LastGoodError::Locked { .. })));
}

#[test]
fn only_the_latest_damaged_states_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    for at in 1..=6 {
        fs::write(dir.path().join("base"), b"not a base").unwrap();
        let opened = LastGood::open(dir.path(), 1_700_000_000_000 + at).unwrap();
        assert_eq!(opened.notices.len(), 1);
    }
    let kept = fs::read_dir(dir.path())
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().contains(".damaged-"));
    assert_eq!(kept.count(), 3);
}

#[test]
fn its_files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("last-good");
    written(&dir);
    assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o077, 0);
    for entry in fs::read_dir(&dir).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.file_name());
    }
}

#[test]
fn a_look_finds_what_a_running_proxy_keeps_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(peek(dir.path()).unwrap().is_none());
    written(dir.path());
    let held = open(dir.path());
    let path = journal(dir.path());
    change(&path, |bytes| bytes.extend_from_slice(&[0; 5]));
    let (length, stored) = (fs::metadata(&path).unwrap().len(), peek(dir.path()).unwrap().unwrap());
    assert_eq!((stored.snapshot.revision.0, stored.deltas.len()), (1, 3));
    assert_eq!(fs::metadata(&path).unwrap().len(), length, "the torn end is left for the proxy");
    drop(held);
    change(&path, |bytes| bytes[20] ^= 1);
    let error = peek(dir.path()).unwrap_err();
    assert!(matches!(error, LastGoodError::Damaged { .. }), "{error}");
    assert!(path.exists(), "nothing is set aside by a look");
}
