//! `inspect` shows what a store holds.

use crate::Home;
use soma_p2p::{CertifiedCommit, FjallStore, Store};
use soma_testkit::{ChainBuilder, ChainSpec};
use std::fs;

/// A store of 25 commits, 10 in an epoch, and what was written into it.
fn stored() -> (Home, ChainBuilder, Vec<CertifiedCommit>) {
    let home = Home::empty(crate::PROGRAM);
    let mut chain = ChainBuilder::new(ChainSpec { commits_per_epoch: 10, ..ChainSpec::default() }).unwrap();
    let commits = chain.build(25);
    let store = FjallStore::open(&home.path("store"), chain.genesis()).unwrap();
    store.apply(&commits).unwrap();
    (home, chain, commits)
}

#[test]
fn the_summary_shows_chain_watermarks_and_epochs() {
    let (home, chain, commits) = stored();
    let highest = commits[24].commit.reference();
    let summary = home.run(["inspect", "store", "--json"]).json();
    assert_eq!(summary["chain"], chain.chain_id().to_string());
    assert_eq!(summary["name"], "testkit");
    assert_eq!(summary["highest_synced"]["index"], 25);
    assert_eq!(summary["highest_synced"]["digest"], highest.digest.to_string());
    assert_eq!(summary["lowest_available"], 1);
    let epochs: Vec<_> =
        summary["epochs"].as_array().unwrap().iter().map(|epoch| epoch["last_commit"].as_u64()).collect();
    assert_eq!(epochs, [Some(10), Some(20), None]);

    let text = home.run(["inspect", "store"]).ok();
    assert_eq!(home.run(["inspect", "store", "summary"]).ok(), text);
    for expected in [&chain.chain_id().to_string(), &format!("25 {}", highest.digest), "testkit", "epoch", "not over"] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn a_commit_is_shown_with_its_blocks_and_votes() {
    let (home, _, commits) = stored();
    let commit = &commits[11].commit;
    let shown = home.run(["inspect", "store", "commit", "12", "--json"]).json();
    assert_eq!(shown["index"], 12);
    assert_eq!(shown["epoch"], 1);
    assert_eq!(shown["digest"], commit.reference().digest.to_string());
    assert_eq!(shown["previous_digest"], commits[10].commit.reference().digest.to_string());
    let blocks: Vec<_> = shown["blocks"].as_array().unwrap().iter().map(|block| block["digest"].as_str()).collect();
    let digests: Vec<_> = commit.blocks.iter().map(|block| block.digest.to_string()).collect();
    assert_eq!(blocks, digests.iter().map(|digest| Some(digest.as_str())).collect::<Vec<_>>());
    assert!(!shown["votes"].as_array().unwrap().is_empty());

    let text = home.run(["inspect", "store", "commit", "12"]).ok();
    for expected in ["commit    12\n", "epoch     1\n", &commit.leader.to_string(), &commit.blocks[0].to_string()] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn a_block_is_shown_with_what_it_holds() {
    let (home, _, commits) = stored();
    let CertifiedCommit { commit, blocks, .. } = &commits[6];
    let (reference, block) = (commit.blocks[1], &blocks[1]);
    let shown = home.run(["inspect", "store", "--json", "block", "7", "1"]).json();
    assert_eq!(shown["reference"]["digest"], reference.digest.to_string());
    assert_eq!(shown["reference"]["author"], reference.author);
    assert_eq!(shown["bytes"], block.bytes().len());
    assert_eq!(shown["ancestors"].as_array().unwrap().len(), block.ancestors.len());
    assert_eq!(shown["transactions"].as_array().unwrap().len(), 1);
    assert_eq!(shown["ends_epoch"], false);

    let text = home.run(["inspect", "store", "block", "7", "1"]).ok();
    for expected in [&reference.to_string(), &reference.digest.to_string(), "transactions  1 of "] {
        assert!(text.contains(expected), "{expected:?} is not in\n{text}");
    }
}

#[test]
fn what_a_store_does_not_have_is_refused_with_what_it_has() {
    let (home, _, commits) = stored();
    home.run(["inspect", "store", "commit", "26"]).refused(&["commit 26 is not here: the store has 1 to 25"]);
    home.run(["inspect", "store", "block", "26", "0"]).refused(&["commit 26 is not here"]);
    let blocks = commits[0].commit.blocks.len();
    let has = format!("commit 1 has {blocks} blocks");
    home.run(["inspect", "store", "block", "1", &blocks.to_string()]).refused(&[&has]);
}

#[test]
fn a_path_without_a_store_is_refused_and_stays_as_it_is() {
    let home = Home::empty(crate::PROGRAM);
    home.refuses(&["inspect", "absent"], &["absent is no store", "there is nothing"]);
    fs::create_dir(home.path("empty")).unwrap();
    home.refuses(&["inspect", "empty"], &["empty is no store"]);
    home.write("file", "");
    home.refuses(&["inspect", "file"], &["file is no store", "not a directory"]);
    home.refuses(&["inspect", "."], &[". is no store", "something else", "give the path of a node's store"]);
}

#[test]
fn a_data_directory_given_for_its_store_is_refused_with_the_right_path() {
    let (home, ..) = stored();
    home.refuses(&["inspect", "."], &["the one in it is ./store"]);
}
