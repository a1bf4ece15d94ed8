use std::path::PathBuf;

use proptest::prelude::*;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 4] =
    [("answer", super::answer), ("chunks", super::chunks), ("frames", super::frames), ("request", super::request)];

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let entries = std::fs::read_dir(&dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    entries.map(|entry| std::fs::read(entry.expect("an entry").path()).expect("a file")).collect()
}

#[test]
fn every_target_keeps_its_promises_over_its_corpus() {
    for (name, target) in TARGETS {
        let seeds = corpus(name);
        assert!(!seeds.is_empty(), "{name} has no corpus");
        assert!(seeds.iter().map(Vec::len).sum::<usize>() < 16 * 1024, "the corpus of {name} is to stay small");
        seeds.iter().for_each(|seed| target(seed));
    }
}

#[test]
fn every_target_is_fuzzed_and_has_a_binary() {
    let manifest = include_str!("../../fuzz/Cargo.toml");
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("path = \"targets/{name}.rs\"")), "{name} is not in fuzz/Cargo.toml");
    }
}

/// A seed with some of its bytes replaced, cut out, doubled or followed by others.
fn changed(seed: &[u8], at: usize, bytes: &[u8], cut: usize) -> Vec<u8> {
    let at = at % (seed.len() + 1);
    let end = (at + cut).min(seed.len());
    [&seed[..at], bytes, &seed[end..]].concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_target_keeps_its_promises_over_random_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for (_, target) in TARGETS {
            target(&bytes);
        }
    }

    #[test]
    fn every_target_keeps_its_promises_over_changed_seeds(
        pick in any::<prop::sample::Index>(),
        at in 0usize..4_096,
        bytes in proptest::collection::vec(any::<u8>(), 0..6),
        cut in 0usize..6,
    ) {
        for (name, target) in TARGETS {
            let seeds = corpus(name);
            target(&changed(&seeds[pick.index(seeds.len())], at, &bytes, cut));
        }
    }
}
