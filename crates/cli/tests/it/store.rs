//! `store` works on the store of a stopped node.

use crate::stored;
use std::fs;

#[test]
fn pruned_store_has_the_window_and_is_whole() {
    let home = stored(300, 100);
    let verified = home.run(["store", "verify", "store", "--json"]).json();
    assert_eq!((&verified["commits"], &verified["last_commit_has_a_quorum"]), (&300.into(), &true.into()));
    let pruned = home.run(["store", "prune", "store", "--commits", "50", "--epochs", "2", "--json"]).json();
    assert_eq!((&pruned["pruned"], &pruned["lowest_available"]), (&100.into(), &101.into()));
    let again = home.run(["store", "prune", "store", "--epochs", "2"]).ok();
    assert!(again.starts_with("pruned 0 commits; the store has 101 to 300\n"), "{again}");
    home.run(["store", "compact", "store"]).ok();
    let verified = home.run(["store", "verify", "store"]).ok();
    assert!(verified.starts_with("200 commits with "), "{verified}");
    let summary = home.run(["inspect", "store", "--json"]).json();
    assert_eq!(summary["lowest_available"], 101);
    assert!(summary["disk_bytes"].as_u64().unwrap() > 0);
    home.run(["inspect", "store", "commit", "100"]).refused(&["the store has 101 to 300"]);
}

#[test]
fn commits_that_the_executor_has_not_taken_stay() {
    let home = stored(300, 100);
    fs::write(home.path("executor.json"), format!("{{\"index\": 119, \"digest\": \"{}\"}}", "00".repeat(32))).unwrap();
    let pruned = home.run(["store", "prune", "store", "--commits", "50"]).ok();
    assert!(pruned.contains("kept from 120 instead of 251"), "{pruned}");
}

#[test]
fn pruning_without_a_window_is_refused() {
    stored(300, 100).run(["store", "prune", "store"]).refused(&["--commits, --epochs and --time"]);
}
