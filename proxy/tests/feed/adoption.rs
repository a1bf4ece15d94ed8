//! The loop: what is adopted, what is refused, and what a node says of it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use schoolgate_config::feed::FeedAnswer;
use schoolgate_config::model::Revision;
use schoolgate_config::seal::Keeper;
use schoolgate_config::snapshot::{Change, Object, ObjectKey, WireError};
use schoolgate_config::time::{Clock, SystemClock};
use schoolgate_proxy::feed::adopt::{self, AdoptError};
use schoolgate_proxy::feed::report::{self, NodeView};
use schoolgate_proxy::feed::{FeedError, SnapshotFeed};
use schoolgate_testkit::eventually;
use tokio_util::sync::CancellationToken;
use tokio_util::sync::DropGuard;

use crate::world::{Authority, Node, ScriptedFeed, adds, broken, context_key, delta, domain, keeper, snapshot, tenant};

const SOON: Duration = Duration::from_secs(10);

/// Follows `feed` and reports to it until the guard is dropped.
fn follow(node: &Node, feed: &Arc<ScriptedFeed>) -> DropGuard {
    let stop = CancellationToken::new();
    let feed: Arc<dyn SnapshotFeed> = feed.clone();
    tokio::spawn(adopt::run(Arc::clone(&node.adoption), Arc::clone(&feed), stop.clone()));
    let view = NodeView {
        node: "node-1".parse().unwrap(),
        started_at_ms: SystemClock.unix_ms(),
        table: Arc::clone(&node.table),
        keyring: Arc::clone(&node.keyring),
        signing: Arc::clone(&node.signing),
        keeper: keeper(),
        observe: Arc::clone(&node.observe),
        standing: node.adoption.standing(),
        sharing: Arc::new(schoolgate_proxy::limit::shared::Sharing::new(Default::default(), false)),
        changes: Arc::default(),
    };
    tokio::spawn(report::run(Arc::new(view), feed, stop.clone()));
    stop.drop_guard()
}

async fn until_serving(node: &Node, revision: u64) {
    eventually(SOON, || async { node.revision() == revision }).await;
}

#[tokio::test]
async fn a_snapshot_and_what_follows_it_is_served_and_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let (node, feed, authority) = (Node::load(dir.path()).unwrap(), ScriptedFeed::new(), Authority::new());
    let _following = follow(&node, &feed);
    feed.say(FeedAnswer::Snapshot(snapshot(2)));
    until_serving(&node, 1).await;
    assert_eq!(node.signing.load().as_ref().unwrap().id.as_str(), "ctx-1");

    let certificate = authority.issue(&["erp.school.example"]);
    let put = |object: Object| Change::Put(object);
    feed.say(FeedAnswer::Deltas(vec![
        delta(2, vec![put(domain("erp.school.example", 2))]),
        delta(3, vec![put(Object::Certificate(certificate)), put(context_key("ctx-2"))]),
    ]));
    until_serving(&node, 3).await;
    assert!(node.serves("erp.school.example") && node.has_certificate("erp.school.example"));
    assert_eq!(node.signing.load().as_ref().unwrap().id.as_str(), "ctx-2");
    eventually(SOON, || async { feed.report().is_some_and(|r| r.serving == Revision(3)) }).await;
    let report = feed.report().unwrap();
    assert_eq!((report.node.as_str(), report.certificates, report.refused), ("node-1", 1, None));
    assert_eq!(feed.asked()[..2], [0, 1]);
}

#[tokio::test]
async fn a_refused_delta_changes_nothing_is_reported_and_everything_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (node, feed) = (Node::load(dir.path()).unwrap(), ScriptedFeed::new());
    let _following = follow(&node, &feed);
    feed.say(FeedAnswer::Snapshot(snapshot(1)));
    until_serving(&node, 1).await;

    // The one before the broken one is good and stays.
    feed.say(FeedAnswer::Deltas(vec![adds(2, "good.example"), broken(3), adds(4, "later.example")]));
    eventually(SOON, || async { feed.report().is_some_and(|r| r.refused.is_some()) }).await;
    let report = feed.report().unwrap();
    let refused = report.refused.unwrap();
    assert_eq!((report.serving, refused.revision), (Revision(2), Revision(3)));
    assert!(refused.reason.contains("nobodys.example"), "{}", refused.reason);
    assert!(node.serves("good.example") && !node.serves("later.example"));
    eventually(SOON, || async { feed.asked().last() == Some(&0) }).await;

    let mut mended = snapshot(1);
    mended.revision = Revision(5);
    mended.objects.push(domain("later.example", 1));
    feed.say(FeedAnswer::Snapshot(mended));
    until_serving(&node, 5).await;
    assert!(node.serves("later.example") && !node.serves("good.example"));
    eventually(SOON, || async { feed.report().is_some_and(|r| r.refused.is_none()) }).await;
    eventually(SOON, || async { feed.asked().last() == Some(&5) }).await;
}

#[tokio::test]
async fn a_damaged_answer_changes_nothing_and_everything_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (node, feed) = (Node::load(dir.path()).unwrap(), ScriptedFeed::new());
    let _following = follow(&node, &feed);
    feed.say(FeedAnswer::Snapshot(snapshot(1)));
    until_serving(&node, 1).await;
    feed.fail(FeedError::Malformed { from: "the test".to_owned(), source: WireError::Checksum });
    eventually(SOON, || async { feed.asked().last() == Some(&0) }).await;
    assert_eq!(node.revision(), 1);
}

#[tokio::test]
async fn a_feed_that_never_waits_is_not_asked_all_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::load(dir.path()).unwrap();
    let feed = ScriptedFeed::hasty();
    let following = follow(&node, &feed);
    eventually(SOON, || async { feed.asked().len() >= 2 }).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(following);
    assert!(feed.asked().len() < 10, "asked {} times in half a second", feed.asked().len());
}

#[tokio::test]
async fn a_refused_revision_is_asked_for_less_and_less_often() {
    let dir = tempfile::tempdir().unwrap();
    let (node, feed) = (Node::load(dir.path()).unwrap(), ScriptedFeed::new());
    let mut hopeless = snapshot(1);
    hopeless.objects.push(domain("nobodys.example", 77));
    for _ in 0..100 {
        feed.say(FeedAnswer::Snapshot(hopeless.clone()));
    }
    let following = follow(&node, &feed);
    eventually(SOON, || async { feed.asked().len() >= 3 }).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    drop(following);
    assert!(feed.asked().len() < 8, "asked {} times", feed.asked().len());
    assert_eq!(node.revision(), 0);
}

#[test]
fn an_older_state_is_refused_and_the_refusal_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::load(dir.path()).unwrap();
    let mut newer = snapshot(1);
    newer.revision = Revision(9);
    node.adoption.adopt(FeedAnswer::Snapshot(newer)).unwrap();
    let refused = node.adoption.adopt(FeedAnswer::Snapshot(snapshot(1))).unwrap_err();
    assert!(matches!(refused, AdoptError::NotNewer { new: Revision(1), serving: Revision(9) }));
    assert!(refused.to_string().contains("restored from a backup"));
    assert_eq!(node.revision(), 9);
}

#[test]
fn the_same_state_once_more_is_neither_adopted_nor_refused() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::load(dir.path()).unwrap();
    node.adoption.adopt(FeedAnswer::Snapshot(snapshot(1))).unwrap();
    let table = node.table.load_full();
    assert_eq!(node.adoption.adopt(FeedAnswer::Snapshot(snapshot(1))).unwrap(), Revision(1));
    assert!(Arc::ptr_eq(&table, &node.table.load_full()));
}

#[test]
fn a_certificate_that_does_not_open_holds_nothing_else_back_and_the_one_before_still_serves() {
    let dir = tempfile::tempdir().unwrap();
    let (node, authority) = (Node::load(dir.path()).unwrap(), Authority::new());
    let before = authority.issue(&["erp.example"]);
    let mut first = snapshot(1);
    first.objects.extend([domain("erp.example", 1), Object::Certificate(before.clone())]);
    node.adoption.adopt(FeedAnswer::Snapshot(first)).unwrap();

    let unusable = authority.issue_sealed_by(&Keeper::new(&[9; 32]), &["erp.example"]);
    let renewal = delta(
        2,
        vec![
            Change::Put(Object::Certificate(unusable)),
            Change::Remove(ObjectKey::Certificate(before.about.fingerprint)),
            Change::Put(tenant(2)),
        ],
    );
    node.adoption.adopt(FeedAnswer::Deltas(vec![renewal])).unwrap();
    assert_eq!(node.revision(), 2);
    assert!(node.table.load().tenant_by_slug("school-2").is_some());
    assert!(node.has_certificate("erp.example"), "the one before was taken away");
}

#[test]
fn a_revision_that_cannot_be_kept_is_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::load(dir.path()).unwrap();
    // A directory stands where the base is written first.
    std::fs::create_dir(dir.path().join("base.new")).unwrap();
    let refused = node.adoption.adopt(FeedAnswer::Snapshot(snapshot(1))).unwrap_err();
    assert!(matches!(refused, AdoptError::Persist { new: Revision(1), .. }), "{refused:?}");
    assert_eq!(node.revision(), 0);
    std::fs::remove_dir(dir.path().join("base.new")).unwrap();
    node.adoption.adopt(FeedAnswer::Snapshot(snapshot(1))).unwrap();
    assert_eq!(node.revision(), 1);
}

#[test]
fn what_was_served_is_served_again_after_a_restart_with_nobody_there() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let certificate = authority.issue(&["erp.example", "www.erp.example"]);
    {
        let node = Node::load(dir.path()).unwrap();
        node.adoption.adopt(FeedAnswer::Snapshot(snapshot(3))).unwrap();
        node.adoption.adopt(FeedAnswer::Deltas(vec![adds(2, "erp.example"), adds(3, "gone.example")])).unwrap();
        let changes = vec![
            Change::Put(Object::Certificate(certificate)),
            Change::Remove(ObjectKey::Domain("gone.example".parse().unwrap())),
        ];
        node.adoption.adopt(FeedAnswer::Deltas(vec![delta(4, changes)])).unwrap();
    }
    let node = Node::load(dir.path()).unwrap();
    assert_eq!(node.revision(), 4);
    assert!(node.serves("erp.example") && !node.serves("gone.example"));
    assert!(node.has_certificate("www.erp.example"));
    assert_eq!(node.signing.load().as_ref().unwrap().id.as_str(), "ctx-1");
    node.adoption.adopt(FeedAnswer::Deltas(vec![adds(5, "next.example")])).unwrap();
    assert!(node.serves("next.example"));
}

#[test]
fn a_long_journal_is_compacted_and_says_the_same() {
    let dir = tempfile::tempdir().unwrap();
    {
        let node = Node::load(dir.path()).unwrap();
        node.adoption.adopt(FeedAnswer::Snapshot(snapshot(1))).unwrap();
        let deltas: Vec<_> = (2..=4_200).map(|to| adds(to, &format!("d{to}.example"))).collect();
        node.adoption.adopt(FeedAnswer::Deltas(deltas)).unwrap();
        node.adoption.compact();
        assert_eq!(journals(dir.path()), ["journal-00000000000000004200"]);
        node.adoption.adopt(FeedAnswer::Deltas(vec![adds(4_201, "after.example")])).unwrap();
        node.adoption.compact();
    }
    let node = Node::load(dir.path()).unwrap();
    assert_eq!((node.revision(), node.table.load().domain_count()), (4_201, 4_200));
    assert!(node.serves("d2.example") && node.serves("after.example"));
}

#[test]
fn a_wrong_key_encryption_key_is_said_aloud_and_not_for_every_certificate() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    {
        let node = Node::load_with(dir.path(), keeper()).unwrap();
        let mut first = snapshot(1);
        first.objects.extend((0..20).map(|n| Object::Certificate(authority.issue(&[&format!("d{n}.example")]))));
        node.adoption.adopt(FeedAnswer::Snapshot(first)).unwrap();
        assert_eq!(node.keyring.len(), 20);
    }
    let node = Node::load_with(dir.path(), Arc::new(Keeper::new(&[8; 32]))).unwrap();
    assert_eq!((node.revision(), node.keyring.len()), (1, 0));
    let view = NodeView {
        node: "node-1".parse().unwrap(),
        started_at_ms: 0,
        table: node.table,
        keyring: node.keyring,
        signing: node.signing,
        keeper: keeper(),
        observe: node.observe,
        standing: node.adoption.standing(),
        sharing: Arc::new(schoolgate_proxy::limit::shared::Sharing::new(Default::default(), false)),
        changes: Arc::default(),
    };
    let notices = view.report().notices;
    assert!((2..=4).contains(&notices.len()), "{notices:?}");
    assert!(notices.iter().all(|notice| notice.contains("does not open")), "{notices:?}");
}

pub(crate) fn journals(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with("journal-")).collect();
    names.sort();
    names
}
