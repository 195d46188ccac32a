//! `chaos`: nodes that are killed and restarted, in small.

use crate::{Home, Running, localnet};
use std::fs;

const SMALL: &str = "chaos --kills 5 --commits 150 --commits-per-epoch 50 --transactions 1 --full-nodes 2 --dir net";

fn small() -> impl Iterator<Item = &'static str> {
    SMALL.split(' ')
}

/// Changes a node's record as if something else had happened.
fn falsify(home: &Home, node: &str, change: impl FnOnce(&str) -> String) {
    let record = format!("net/{node}/record.log");
    let text = fs::read_to_string(home.path(&record)).unwrap();
    home.write(&record, &change(&text));
}

#[test]
fn killed_nodes_lose_nothing_and_recorded_losses_are_counted() {
    let home = Home::empty(crate::PROGRAM);
    let finished = home.run(small());
    let last = finished.stdout.lines().last().unwrap_or_default();
    assert!(last.starts_with("kills=5 lost=0 duplicated=0 equal=6/6 head="), "{finished:?}");
    assert_eq!(finished.stderr, "", "without a terminal it is quiet");
    finished.ok();
    assert_eq!(fs::read_to_string(home.path("net/chaos.log")).unwrap().lines().count(), 5);
    assert_eq!(localnet::pids(&home.path("net")), [""; 0], "all have stopped in order at the end");

    let recount = || home.run(["chaos", "--recount", "--dir", "net"]);
    assert_eq!(recount().ok(), "kills=5 lost=0 duplicated=0 nodes=6\n");

    // As if the executor had been given a commit twice.
    falsify(&home, "full-node-1", |record| {
        let given = record.lines().find(|line| line.starts_with("given 100 ")).unwrap();
        record.replace(given, &format!("{given}\n{given}"))
    });
    let duplicated = recount();
    assert_eq!((duplicated.code(), &*duplicated.stdout), (1, "kills=5 lost=0 duplicated=1 nodes=6\n"));
    let named = |error: &str, names: &[&str]| names.iter().all(|name| error.contains(name));
    assert!(named(&duplicated.stderr, &["full-node-1", "commit 100 again"]), "{duplicated:?}");

    // As if a restart had come up without the last two commits that others had heard of.
    falsify(&home, "validator-2", |record| {
        let stored = record.lines().last().unwrap();
        let height: u32 = stored.strip_prefix("stored ").unwrap().parse().unwrap();
        record.replace(stored, &format!("killed 6\nannounced {height} full-node-0\nopened {}\n{stored}", height - 2))
    });
    let lost = recount();
    assert_eq!((lost.code(), &*lost.stdout), (1, "kills=6 lost=2 duplicated=1 nodes=6\n"), "{lost:?}");
    assert!(named(&lost.stderr, &["validator-2: lost: commits ", "kill 6"]), "{lost:?}");

    falsify(&home, "validator-0", |record| format!("{record}given what\n"));
    recount().failed(&["validator-0/record.log: line ", "given what"]);
}

#[test]
fn ctrl_c_in_the_middle_of_the_kills_leaves_no_node_behind() {
    let home = Home::empty(crate::PROGRAM);
    let args = small().map(|arg| if arg == "5" { "100000" } else { arg }).chain(["--verbose"]);
    let chaos = Running::start(&mut home.command(args));
    chaos.until("some were killed", |output| output.stderr.contains("] kill 3 of 100000: "));
    let finished = chaos.stop("INT");
    assert_eq!(finished.code(), 130, "{finished:?}");
    let last = finished.stderr.lines().last().unwrap();
    assert!(last.starts_with("interrupted; all nodes are stopped; data in "), "{last}");
    // A node that has been killed cannot say that it is gone.
    assert_eq!(localnet::pids(&home.path("net")).iter().filter(|pid| localnet::lives(pid)).count(), 0);
    for index in 0..4 {
        // One that had not written down its process yet would have its store open.
        home.run(["inspect", &format!("net/validator-{index}/data/store")]).ok();
    }
}

#[test]
fn chaos_refuses_what_it_cannot_do() {
    let home = Home::empty(crate::PROGRAM);
    for (option, value) in [("--validators", "1"), ("--kills", "0"), ("--rate", "0")] {
        let refused = home.run(["chaos", option, value]);
        assert_eq!(refused.code(), 2, "{refused:?}");
        assert!(refused.stderr.starts_with("error: ") && refused.stderr.contains(option), "{refused:?}");
    }
    home.write("thesis.tex", "years of work");
    home.refuses(&["chaos", "--dir", "."], &["--dir . is not empty and was not made by localnet"]);
    home.refuses(&["chaos", "--recount", "--dir", "."], &["--dir . has no records of a chaos run"]);
}

#[test]
fn killed_nodes_that_prune_and_archive_lose_nothing() {
    let home = Home::empty(crate::PROGRAM);
    let finished = home.run(small().chain(["--prune", "100", "--archive", "--rate", "50"]));
    let last = finished.stdout.lines().last().unwrap_or_default();
    assert!(last.starts_with("kills=5 lost=0 duplicated=0 equal=6/6 head="), "{finished:?}");
    finished.ok();
    home.run(["archive", "verify", "net/archive", "--genesis", "net/validator-0/genesis.bin"]).ok();
}
