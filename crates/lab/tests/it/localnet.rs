//! `localnet`: a whole network of processes, in small.

use crate::{Home, Running};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

/// A network that does all that the large one does, in about a second.
const SMALL: &[&str] = &[
    "localnet",
    "--commits",
    "120",
    "--commits-per-epoch",
    "50",
    "--seconds",
    "1",
    "--rate",
    "10",
    "--transactions",
    "0",
    "--dir",
    "net",
];

pub(crate) fn small(more: &[&'static str]) -> Vec<&'static str> {
    [SMALL, more].concat()
}

/// The process ids that the nodes of a network have written down.
pub(crate) fn pids(net: &Path) -> Vec<String> {
    let Ok(nodes) = fs::read_dir(net) else { return Vec::new() };
    let run_files = nodes.map(|node| node.unwrap().path().join("data/run.json"));
    let runs = run_files.filter_map(|file| serde_json::from_slice::<Value>(&fs::read(file).ok()?).ok());
    runs.map(|run| run["pid"].to_string()).collect()
}

pub(crate) fn lives(pid: &str) -> bool {
    Command::new("kill").args(["-0", pid]).stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn a_small_network_catches_up_with_equal_digests() {
    let home = Home::empty(crate::PROGRAM);
    let finished = home.run(small(&["--json", "--full-nodes", "2"]));
    assert_eq!(finished.stderr, "");
    let report = finished.json();
    assert_eq!(report["ok"], true, "{report}");
    assert_eq!(report["validators"], 4);
    let head = report["head"].as_u64().unwrap();
    assert_eq!(report["history"], 150, "whole epochs");
    assert!(head > 150, "the validators went on: {report}");
    assert!(report["epochs"].as_u64().unwrap() >= 4, "three of the history: {report}");
    for validator in report["validator_nodes"].as_array().unwrap() {
        assert!(validator["committed_blocks"].as_u64().unwrap() > 0, "each makes blocks: {report}");
        assert_eq!(validator["digest_equal"], true, "{report}");
    }
    let nodes = report["full_nodes"].as_array().unwrap();
    assert_eq!(nodes.len(), 2);
    for node in nodes {
        assert_eq!(node["height"], head);
        assert_eq!(node["digests_equal"], true);
        assert_eq!(node["reached_head"], true);
        assert_eq!(node["stopped_in_order"], true);
        assert_eq!(node["kill"], Value::Null);
        assert!(node["peers"].as_u64().unwrap() >= 4, "it was told of one and found the others: {report}");
    }
    assert_eq!(pids(&home.path("net")), [""; 0], "all have stopped in order");
    let stored = home.run(["inspect", "net/full-node-0/data/store", "--json"]).json();
    assert_eq!(stored["highest_synced"]["index"], head);
    assert_eq!(stored["chain"], report["chain"]);
}

#[test]
fn chain_goes_on_without_one_of_four_validators_and_it_takes_part_again() {
    let home = Home::empty(crate::PROGRAM);
    let report = home.run(small(&["--json", "--kill-validator"])).json();
    assert_eq!(report["ok"], true, "{report}");
    let kill = &report["validator_kill"];
    assert_eq!((&kill["has_quorum"], &kill["cause"]), (&Value::Bool(true), &Value::Null), "{report}");
    assert!(kill["commits_meanwhile"].as_u64().unwrap() >= 10, "{report}");
    let killed = &report["validator_nodes"][3];
    assert_eq!(kill["validators"][0], killed["name"]);
    assert!(killed["committed_after_kill"].as_u64().unwrap() >= 5, "its blocks are in commits again: {report}");
    assert_eq!(killed["digest_equal"], true, "{report}");
}

#[test]
fn chain_without_a_quorum_stands_still_says_why_and_goes_on_afterwards() {
    let home = Home::empty(crate::PROGRAM);
    let report = home.run(small(&["--json", "--kill-validators", "2"])).json();
    assert_eq!(report["ok"], true, "{report}");
    let kill = &report["validator_kill"];
    assert_eq!(kill["has_quorum"], false, "{report}");
    let cause = kill["cause"].as_str().unwrap();
    assert!(cause.contains("validator 2 has been silent") && cause.contains("validator 3 has been silent"), "{cause}");
    for killed in &report["validator_nodes"].as_array().unwrap()[2..] {
        assert!(killed["committed_after_kill"].as_u64().unwrap() >= 5, "{report}");
    }
    let (head, height) = (report["head"].as_u64().unwrap(), kill["height"].as_u64().unwrap());
    assert!(head >= height + 5, "the chain went on: {report}");
}

#[test]
fn a_killed_full_node_resumes_and_fetches_nothing_twice() {
    let home = Home::empty(crate::PROGRAM);
    // So much that it takes a few seconds: the kill has to come in the middle of it.
    let args =
        "localnet --commits 600 --commits-per-epoch 50 --transactions 5 --seconds 1 --kill-after 40 --dir net --json";
    let report = home.run(args.split(' ')).json();
    let node = &report["full_nodes"][0];
    let durable = node["kill"]["durable"].as_u64().unwrap_or_else(|| panic!("it was not killed: {report}"));
    assert!((40..600).contains(&durable), "{report}");
    assert_eq!(node["kill"]["fetched_twice"], 0, "{report}");
    assert_eq!(node["digests_equal"], true, "{report}");
    assert_eq!(node["height"], report["head"]);
    assert_eq!(report["ok"], true);
}

#[test]
fn fresh_node_gets_the_past_from_the_archive_and_the_head_from_peers() {
    let home = Home::empty(crate::PROGRAM);
    let args = "localnet --commits 600 --commits-per-epoch 50 --transactions 0 --seconds 1 --prune 100 --archive history \
                --dir net --json";
    let report = home.run(args.split_whitespace()).json();
    let node = &report["full_nodes"][0];
    assert_eq!((&report["ok"], &node["digests_equal"]), (&Value::Bool(true), &Value::Bool(true)), "{report}");
    assert_eq!((node["first"].as_u64(), &node["height"]), (Some(1), &report["head"]), "{report}");
    let from_archive = node["from_archive"].as_u64().unwrap();
    assert!((300..620).contains(&from_archive), "the validators have the last 100 or so: {report}");
    let listed = home.run(["archive", "ls", "history", "--json"]).ok();
    assert!(listed.contains(report["chain"].as_str().unwrap()), "{listed}");
    // The same archive serves nodes of later networks of the chain.
    home.run(["archive", "verify", "history", "--genesis", "net/validator-0/genesis.bin"]).ok();
}

#[test]
fn fresh_node_that_begins_after_the_latest_epoch_needs_no_archive() {
    let home = Home::empty(crate::PROGRAM);
    let args = "localnet --commits 600 --commits-per-epoch 50 --transactions 0 --seconds 1 --prune 100 --archive history \
                --start latest-epoch --dir net --json";
    let report = home.run(args.split_whitespace()).json();
    let node = &report["full_nodes"][0];
    assert_eq!((&report["ok"], &node["from_archive"]), (&Value::Bool(true), &Value::from(0)), "{report}");
    let first = node["first"].as_u64().unwrap();
    assert!(first > 600, "the history ends with an epoch: {report}");
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    let home = Home::empty(crate::PROGRAM);
    let args = ["localnet", "--prune", "100", "--archive", "history", "--rate", "0"];
    home.refuses(&args, &["--prune", "needs --rate"]);
    home.refuses(&small(&["--prune", "100", "--start", "latest-epoch"]), &["--prune", "needs --archive"]);
    let args = ["localnet", "--join", "snapshot", "--rate", "0", "--snapshot-every", "70"];
    home.refuses(&args, &["--join", "--snapshot-every that divides"]);
    home.refuses(&["localnet", "--kill-validator", "--rate", "0"], &["--kill-validators", "needs --rate"]);
    for count in ["0", "4"] {
        home.refuses(&small(&["--kill-validators", count]), &["--kill-validators", count, "leave one of 4"]);
    }
}

#[test]
fn without_json_it_prints_lines_and_ends_with_a_table() {
    let home = Home::empty(crate::PROGRAM);
    let args = "localnet --commits 30 --commits-per-epoch 15 --validators 1 --seconds 0 --dir net".split(' ');
    let finished = home.run(args);
    let lines = |name: &str| finished.stderr.lines().filter(|line| line.contains(name)).count();
    assert!(lines(" history: commit 30 of 30 (100 %)") == 1, "{}", finished.stderr);
    assert!(lines(" full-node-0: commit ") >= 1 && finished.stderr.contains("lag 0"), "{}", finished.stderr);
    let table = finished.ok();
    let row = table.lines().find(|line| line.contains("full-node-0")).unwrap_or_else(|| panic!("{table}"));
    assert!(row.trim_end().ends_with("yes"), "{table}");
    assert!(table.contains("data in ") && table.contains("\nok: "), "{table}");
}

#[test]
fn ctrl_c_stops_every_process_in_order_and_says_where_the_data_is() {
    let home = Home::empty(crate::PROGRAM);
    let net = home.path("net");
    // Long after this test is over.
    let args = "localnet --commits 50 --commits-per-epoch 50 --seconds 3600 --full-nodes 2 --dir net".split(' ');
    let args: Vec<_> = args.collect();
    let network = Running::start(&mut home.command(&args));
    network.until("both full nodes follow the head", |output| {
        // Past 100 % for so long that it has printed again.
        let caught_up =
            |node| output.stderr.lines().filter(|line| line.contains(node) && line.contains("(100 %)")).count() >= 2;
        caught_up("full-node-0") && caught_up("full-node-1")
    });
    let pids = pids(&net);
    assert_eq!(pids.len(), 6);
    assert!(pids.iter().all(|pid| lives(pid)));

    home.run(args).refused(&["--dir net is in use by another localnet"]);
    assert!(pids.iter().all(|pid| lives(pid)));

    let finished = network.stop("INT");
    assert_eq!(finished.code(), 130, "{finished:?}");
    let last = finished.stderr.lines().last().unwrap();
    assert!(
        last.starts_with("interrupted; ") && last.contains(net.canonicalize().unwrap().to_str().unwrap()),
        "{last}"
    );
    assert_eq!(pids.iter().filter(|pid| lives(pid)).count(), 0);
    assert_eq!(self::pids(&net), [""; 0], "none was killed");
    at_most_one_line_a_second(&finished.stderr, "full-node-0");

    // What is left can be looked at, and makes room for the next network.
    home.run(["inspect", "net/full-node-1/data/store"]).ok();
    let args = "localnet --commits 10 --commits-per-epoch 10 --validators 1 --seconds 0 --dir net --json";
    home.run(args.split(' ')).ok();
    assert!(!net.join("full-node-1").exists());
}

/// Lines begin with the seconds since the start, as in `[   1.0 s] full-node-0: ...`.
fn at_most_one_line_a_second(log: &str, node: &str) {
    let of_node = log.lines().filter(|line| line.contains(&format!("] {node}: ")));
    let seconds: Vec<f64> =
        of_node.map(|line| line[1..].split(" s]").next().unwrap().trim().parse().unwrap()).collect();
    assert!(seconds.len() >= 2, "{log}");
    // Rounded to tenths.
    assert!(seconds.windows(2).all(|pair| pair[1] - pair[0] >= 0.9), "{log}");
}

#[test]
fn ctrl_c_while_the_history_is_made_ends_it_too() {
    let home = Home::empty(crate::PROGRAM);
    let args = ["localnet", "--commits", "1000000", "--dir", "net"];
    let network = Running::start(&mut home.command(args));
    network.until("the history is on its way", |output| output.stderr.contains("] history: "));
    let finished = network.stop("INT");
    assert_eq!(finished.code(), 130, "{finished:?}");
    assert!(finished.stderr.lines().last().unwrap().starts_with("interrupted; "), "{finished:?}");
}

#[test]
fn a_directory_of_something_else_is_never_replaced() {
    let home = Home::empty(crate::PROGRAM);
    fs::create_dir(home.path("net")).unwrap();
    home.write("net/thesis.tex", "years of work");
    home.refuses(&small(&[]), &["--dir net is not empty and was not made by localnet"]);
    fs::remove_dir_all(home.path("net")).unwrap();
    home.write("net", "a file");
    home.refuses(&small(&[]), &["--dir net: ", "Not a directory"]);
}

#[test]
fn a_kill_that_would_come_after_the_history_is_refused() {
    let home = Home::empty(crate::PROGRAM);
    for kill_after in ["120", "4000000000"] {
        home.refuses(&small(&["--kill-after", kill_after]), &[kill_after, "must be less than --commits 120"]);
    }
}

#[test]
fn sizes_out_of_range_are_refused() {
    let home = Home::empty(crate::PROGRAM);
    for (option, value) in [("--commits", "0"), ("--validators", "0"), ("--full-nodes", "51"), ("--payload", "65537")] {
        let refused = home.run(["localnet", option, value]);
        assert_eq!(refused.code(), 2, "{refused:?}");
        assert!(refused.stderr.starts_with("error: ") && refused.stderr.contains(option), "{refused:?}");
    }
    assert!(home.files().is_empty());
}

/// A network whose full nodes begin with a snapshot.
const JOIN: &str = "localnet --commits 120 --commits-per-epoch 50 --seconds 1 --transactions 2 --join snapshot \
                    --snapshot-every 50 --dir net --json";

#[test]
fn a_node_that_begins_with_a_snapshot_has_the_state_of_those_that_executed_everything() {
    let home = Home::empty(crate::PROGRAM);
    let report = home.run(JOIN.split(' ').chain(["--full-nodes", "2"])).json();
    assert_eq!(report["ok"], true, "{report}");
    for node in report["full_nodes"].as_array().unwrap() {
        let snapshot = node["snapshot"].as_u64().unwrap_or_else(|| panic!("it executed all: {report}"));
        assert!(snapshot >= 150 && snapshot.is_multiple_of(50), "{report}");
        assert_eq!(node["first"], snapshot + 1, "{report}");
        assert_eq!(
            (&node["digests_equal"], &node["state_equal"]),
            (&Value::Bool(true), &Value::Bool(true)),
            "{report}"
        );
        assert_eq!(node["height"], report["head"], "{report}");
    }
}

#[test]
fn a_node_that_is_killed_while_it_begins_with_a_snapshot_has_the_same_state_in_the_end() {
    let home = Home::empty(crate::PROGRAM);
    let report = home.run(JOIN.split(' ').chain(["--kill-after", "100"])).json();
    assert_eq!(report["ok"], true, "{report}");
    let node = &report["full_nodes"][0];
    assert!(node["kill"]["durable"].is_u64() && node["snapshot"].is_u64(), "{report}");
    assert_eq!(node["state_equal"], true, "{report}");
}
