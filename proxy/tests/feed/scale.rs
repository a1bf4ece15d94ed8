//! What 100,000 tenants with domains and certificates cost. Measurements, printed; run on a quiet machine with
//! `cargo test --release -p schoolgate-proxy --test feed -- --ignored --nocapture scale`.

#![expect(clippy::print_stdout, reason = "a measurement is read by whoever runs it")]

use std::time::{Duration, Instant};

use schoolgate_config::feed::FeedAnswer;
use schoolgate_config::snapshot::Object;

use crate::metrics::{request, scraper};
use crate::world::{Authority, Node, adds, domain, snapshot};

/// How many: `SCALE` at compile time, else 100,000.
fn scale() -> u32 {
    option_env!("SCALE").and_then(|text| text.parse().ok()).unwrap_or(100_000)
}

fn timed<T>(what: &str, run: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = run();
    println!("{what}: {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    result
}

#[test]
#[ignore = "a measurement"]
fn a_node_starts_from_disk_within_a_second_and_a_change_costs_what_it_changes() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new());
    let mut everything = snapshot(scale());
    for n in 1..=scale() {
        let name = format!("erp.school-{n}.example");
        everything.objects.extend([domain(&name, n), Object::Certificate(authority.issue(&[&name]))]);
    }
    {
        let node = Node::load(dir.path()).unwrap();
        timed("adopt a snapshot", || node.adoption.adopt(FeedAnswer::Snapshot(everything))).unwrap();
    }
    let node = timed("start from disk", || Node::load(dir.path())).unwrap();
    assert_eq!(node.keyring.len(), scale() as usize);
    let mut longest = Duration::ZERO;
    timed("adopt 1,000 deltas of one domain, one by one", || {
        for to in 2..1_002 {
            let begun = Instant::now();
            node.adoption.adopt(FeedAnswer::Deltas(vec![adds(to, &format!("new-{to}.example"))])).unwrap();
            longest = longest.max(begun.elapsed());
        }
    });
    println!("the longest of them: {longest:?}");
    drop(node);
    timed("start from disk with a journal of 1,000", || Node::load(dir.path())).unwrap();
}

#[test]
#[ignore = "a measurement"]
fn a_scrape_takes_less_than_50_ms() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::load(dir.path()).unwrap();
    node.adoption.adopt(FeedAnswer::Snapshot(snapshot(scale()))).unwrap();
    for n in 1..=scale() {
        request(&node, n, 200);
    }
    let scraper = scraper(&node, 1_000, &[]);
    for _ in 0..4 {
        let text = timed("scrape", || scraper.write());
        println!("  {} KB", text.len() / 1_024);
    }
}
