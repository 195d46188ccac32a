//! `bench history`: a short chain through every step. No time is judged.

use crate::Home;
use serde_json::Value;
use std::fs;

/// The steps, in the order in which they are recorded.
const STEPS: [&str; 10] = [
    "sync-short",
    "sync",
    "restart-after-kill",
    "restart",
    "prune",
    "compact",
    "sync-certified",
    "join-latest-epoch",
    "archive-push",
    "archive-pull-certified",
];

#[test]
fn short_history_goes_through_every_step_and_keeps_its_chain() {
    let home = Home::empty(crate::PROGRAM);
    let output = home.run(["bench", "--out", "out", "--commits", "1000", "history"]).ok();
    assert!(
        output.contains("history/archive-pull-certified") && output.contains("throughput, last over early window"),
        "{output}"
    );

    let files = fs::read_dir(home.path("out")).unwrap().map(|file| file.unwrap().path());
    let results: Vec<_> = files.filter(|file| file.extension().is_some_and(|extension| extension == "jsonl")).collect();
    let lines = fs::read_to_string(&results[0]).unwrap();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for (line, step) in lines.iter().zip(STEPS) {
        assert_eq!(line["case"], format!("history/{step}"), "{line}");
        assert!(line["wall_s"].as_f64().is_some_and(|seconds| seconds > 0.0), "{line}");
    }
    let line = |case: &str| lines.iter().find(|line| line["case"] == case).unwrap();
    let blocks = |case: &str| line(case)["blocks"].as_u64().unwrap();
    assert_eq!(blocks("history/sync"), blocks("history"));
    assert!(blocks("history/join-latest-epoch") < 40, "it skips all epochs but the last");
    let summary = line("history");
    for ratio in ["long_over_short", "late_over_early", "pull_over_sync_certified", "synced_disk_per_payload"] {
        assert!(summary[ratio].as_f64().is_some_and(|ratio| ratio > 0.0), "{ratio} in {summary}");
    }

    let kept = home.path("out").join("history-1000");
    let done: Value = serde_json::from_slice(&fs::read(kept.join("chain.json")).unwrap()).unwrap();
    assert_eq!(done["blocks"], summary["blocks"], "the chain stays for further runs");
    let left = fs::read_dir(home.path("out")).unwrap().map(|file| file.unwrap().file_name());
    assert!(!left.map(|name| name.to_string_lossy().into_owned()).any(|name| name.starts_with("work-")));
}
