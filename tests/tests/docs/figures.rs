//! The figures in the documents are those in the code.

use crate::{root, rust_files};
use soma_network::wire::limits as wire;
use soma_p2p::{Config, METRICS, MetricKind};
use soma_protocol::state_sync;
use soma_tests::reference::{constants::constants, pages};
use soma_types::limits;
use std::{collections::BTreeSet, fs};

fn document(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

#[test]
fn settings_have_the_defaults_that_operators_are_told() {
    let operating = document("operating/configuration.md");
    let full = operating.split("```toml").find(|block| block.contains("[p2p.discovery]")).expect("the full file");
    let full: toml::Table = full.split("```").next().unwrap().parse().unwrap();
    let mut told = full["p2p"].clone();
    let mut defaults = toml::Value::try_from(Config::default()).unwrap();
    for config in [&mut told, &mut defaults] {
        let config = config.as_table_mut().unwrap();
        // These are of the example.
        for key in ["listen", "external_addresses", "seed_peers"] {
            config.remove(key);
        }
    }
    let told: Config = told.try_into().unwrap();
    let defaults: Config = defaults.try_into().unwrap();
    assert_eq!(told, defaults);
}

#[test]
fn reference_pages_are_those_of_the_code() {
    for (path, page) in pages().unwrap() {
        let written = fs::read_to_string(&path).unwrap();
        assert!(written == page, "{} is not that of the code: run `make docs-reference`", path.display());
    }
}

#[test]
fn every_metric_of_the_code_is_described_with_its_kind_and_labels() {
    let files = ["crates", "actors"].map(|folder| rust_files(&root().join(folder)));
    let mut counted = BTreeSet::new();
    for text in files.concat().into_iter().map(|file| fs::read_to_string(file).unwrap()) {
        for (kind, call) in
            [("counter", "counter!(\"soma_"), ("gauge", "gauge!(\"soma_"), ("histogram", "histogram!(\"soma_")]
        {
            for arguments in text.split(call).skip(1) {
                let name = format!("soma_{}", arguments.split('"').next().unwrap());
                let labels =
                    arguments.split(')').next().unwrap().split(" =>").filter_map(|part| part.rsplit('"').nth(1));
                let labels: Vec<_> = labels.filter(|label| *label != "yes").map(str::to_string).collect();
                let described = METRICS.iter().find(|metric| metric.name == name);
                let described = described.unwrap_or_else(|| panic!("{name} is in no line of METRICS"));
                let kind_told = match described.kind {
                    MetricKind::Counter => "counter",
                    MetricKind::Gauge => "gauge",
                    MetricKind::Histogram(_) => "histogram",
                };
                assert_eq!(kind_told, kind, "{name}");
                assert!(described.labels.iter().all(|label| labels.iter().any(|l| l == label)), "{name}: {labels:?}");
                counted.insert(name);
            }
        }
    }
    let described: BTreeSet<_> = METRICS.iter().map(|metric| metric.name.to_string()).collect();
    assert_eq!(described, counted);
}

#[test]
fn figures_in_sentences_are_those_of_the_code() {
    let config = Config::default();
    let (serving, sync, core) = (&config.serving, &config.state_sync, state_sync::Config::default());
    let with_commas = |number: usize| {
        let digits = number.to_string();
        let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).unwrap()).collect();
        groups.join(",")
    };
    let known = constants().unwrap();
    let constant = |name: &str| match known[name].as_slice() {
        [value] => *value,
        several => panic!("{name} is {several:?}"),
    };
    let seconds = |name: &str| constant(name) / 1_000;
    let protocol = [
        format!("at most {} calls of one peer at once and {} in all", serving.max_calls_per_peer, serving.max_calls),
        format!("A request message has at most {} bytes", with_commas(wire::MAX_REQUEST_BYTES)),
        format!("at most {} fields", with_commas(wire::MAX_MESSAGE_FIELDS)),
        format!(
            "at most {} signed NodeInfos of at most {} KiB",
            wire::MAX_KNOWN_PEERS,
            limits::MAX_NODE_INFO_BYTES >> 10
        ),
        format!("1 to {} commits, certifier blocks", wire::MAX_COMMITS_PER_FETCH),
        format!("1 to {} `refs`", with_commas(wire::MAX_BLOCKS_PER_FETCH)),
        format!("block {} MiB, commit {} KiB", limits::MAX_BLOCK_BYTES >> 20, limits::MAX_COMMIT_BYTES >> 10),
        format!("at\nmost {} addresses", limits::MAX_ADDRESSES_PER_NODE),
        format!("all blocks of one commit together {} MiB", limits::MAX_COMMIT_BLOCKS_BYTES >> 20),
        format!("more than {} s ahead", seconds("MAX_CLOCK_SKEW_MS")),
        format!("older than {} h", seconds("MAX_NODE_INFO_AGE_MS") / 3_600),
        format!("at most {} bytes, with nothing behind it", with_commas(constant("MAX_CERTIFICATE_BYTES") as usize)),
    ];
    let semantics = [
        format!("from {} MiB of them that are at hand", constant("FEED_BYTES") >> 20),
        format!("Calls of peers: {} of one peer and {} in all", serving.max_calls_per_peer, serving.max_calls),
        format!("every {} commits, every MiB of blocks or", constant("TELL_EVERY")),
        format!("left to it for {} s before peers are asked", seconds("LOCAL_GRACE")),
        format!("makes no step for {} s", seconds("SLOW_AFTER")),
        format!("the sync, for {} s, although", seconds("STUCK_AFTER")),
        format!("after {} ms it hands back", constant("SLICE")),
        format!("Ranges are planned upward from the tip, at most {}.", core.ranges_ahead),
        format!("up to {} commits are asked for in one answer", sync.commits_per_fetch),
    ];
    for (name, sentences) in [("protocol.md", &protocol[..]), ("runtime-semantics.md", &semantics)] {
        let text = document(name);
        for sentence in sentences {
            assert!(text.contains(sentence.as_str()), "{name} does not say {sentence:?}");
        }
    }
}
