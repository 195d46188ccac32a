//! `control` and SIGHUP change a running node.

use crate::{DEADLINE, Finished, Home, Running, node::get, stored};
use serde_json::Value;
use std::{
    fs,
    io::{Read, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
};

/// A peer that does not exist.
const PEER: &str = "ad77c94ad1a12d32c2d05724279a8e030a170c84335bd5ff595988f0cfbbed35";

fn control(home: &Home, args: &[&str]) -> Finished {
    home.run([&["control", "--config", "node.toml"], args].concat())
}

/// Sends bytes, and returns the answer.
fn send(home: &Home, request: &[u8]) -> Value {
    let mut stream = UnixStream::connect(home.path("data/control.sock")).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    serde_json::from_str(&answer).unwrap()
}

#[test]
fn control_socket_is_for_its_owner_and_goes_with_the_node() {
    let home = Home::new(crate::PROGRAM);
    let node = home.start_node("node.toml");
    let socket = home.path("data/control.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    let run: Value = serde_json::from_slice(&fs::read(home.path("data/run.json")).unwrap()).unwrap();
    let noted = std::path::Path::new(run["control"].as_str().unwrap());
    assert!(noted.is_absolute() && noted.ends_with("data/control.sock"), "{noted:?}");
    node.stop("TERM").ok();
    assert!(!socket.exists());
    control(&home, &["unban", PEER]).failed(&["no node runs with this configuration"]);
    // What a killed node leaves is replaced.
    drop(home.start_node("node.toml"));
    assert!(socket.exists());
    control(&home, &["unban", PEER]).failed(&["does not answer on", "control.sock"]);
    let node = home.start_node("node.toml");
    control(&home, &["unban", PEER]).ok();
    node.stop("TERM").ok();
}

#[test]
fn each_command_is_carried_out_and_audited() {
    let home = Home::new(crate::PROGRAM);
    let node = home.start_node("node.toml");
    let seed = format!("{PEER}@/ip4/127.0.0.1/tcp/1");
    assert!(control(&home, &["add-peer", &seed]).ok().contains("is a seed peer"));
    control(&home, &["trust", PEER]).ok();
    control(&home, &["ban", PEER, "--for", "2h"]).failed(&["is a trusted peer"]);
    control(&home, &["distrust", PEER]).ok();
    assert!(control(&home, &["ban", PEER, "--for", "2h", "--reason", "spam"]).ok().contains("banned for 2h"));
    let banned = || home.run(["status", "--config", "node.toml", "--json"]).json()["banned"].clone();
    assert_eq!((&banned()[0]["peer"], &banned()[0]["reason"]), (&PEER.into(), &"spam".into()));
    control(&home, &["unban", PEER]).ok();
    assert_eq!(banned(), Value::Array(Vec::new()));
    control(&home, &["drop-peer", PEER]).ok();
    // The audit lines stay, whatever the filter leaves out.
    control(&home, &["log-level", "off"]).ok();
    control(&home, &["log-level", "soma=nonsense"]).failed(&["log filter \"soma=nonsense\""]);
    let log = node.stop("TERM").stderr;
    assert!(!log.contains("stopped"), "{log}");
    let audited: Vec<_> = log.lines().filter(|line| line.contains(" audit: ")).collect();
    for named in
        ["add-peer", "\"trust\"", "failed: ", "distrust", "spam", "unban", "drop-peer", "log-level", "nonsense"]
    {
        assert!(audited.iter().any(|line| line.contains(named)), "{named}: {audited:?}");
    }
    assert!(audited.iter().all(|line| line.contains(" uid=") && line.contains(" pid=")), "{audited:?}");
    assert_eq!(audited.iter().filter(|line| line.contains(PEER)).count(), 7, "{audited:?}");
    assert_eq!(audited.len(), 9, "{audited:?}");
}

#[test]
fn log_level_changes_while_the_node_runs() {
    let home = Home::new(crate::PROGRAM);
    let node = home.start_node("node.toml");
    control(&home, &["log-level", "soma=trace"]).ok();
    node.until("it logs each input", |output| output.stderr.contains(" TRACE "));
    node.stop("TERM").ok();
}

#[test]
fn wrong_request_is_answered_with_the_reason_and_audited() {
    let home = Home::new(crate::PROGRAM);
    let node = home.start_node("node.toml");
    for (request, named) in [
        (&b"hello\n"[..], "not a request"),
        (b"{\"command\":\"explode\"}\n", "explode"),
        (b"{\"command\":\"unban\",\"peer\":\"zz\"}\n", "64 hex digits"),
        (b"{\"command\":\"trace\",\"out\":\"t\",\"time\":\"1s\",\"ring_mib\":1,\"actors\":[]}\n", "the whole path"),
        (&[b'x'; 16 << 10], "at most 16384 bytes"),
    ] {
        let answer = send(&home, request);
        assert!(answer["failed"].as_str().unwrap().contains(named), "{named}: {answer}");
    }
    let log = node.stop("TERM").stderr;
    assert_eq!(log.lines().filter(|line| line.contains(" audit: ") && line.contains("failed: ")).count(), 5, "{log}");
}

#[test]
fn silent_clients_block_nobody_and_end_by_themselves() {
    let home = Home::new(crate::PROGRAM);
    let node = home.start_node("node.toml");
    let connect = || UnixStream::connect(home.path("data/control.sock")).unwrap();
    let silent = connect();
    control(&home, &["unban", PEER]).ok();
    // More than the node takes: some of them are closed at once, the others when they have said nothing for a while.
    let mut clients: Vec<_> = (0..12).map(|_| connect()).chain([silent]).collect();
    for client in &mut clients {
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).unwrap();
        assert_eq!(rest, b"");
    }
    control(&home, &["unban", PEER]).ok();
    node.stop("TERM").ok();
}

#[test]
fn checkpoint_of_a_running_node_is_that_of_its_store() {
    let home = stored(250, 100);
    home.run(["keygen", "--out", "node.key"]).ok();
    home.run(["checkpoint", "export", "store", "--out", "stopped.bin"]).ok();
    let config = crate::config("", "").replace("\"data\"", "\".\"").replace("chain/genesis.bin", "genesis.bin");
    home.write("node.toml", &config);
    let node = home.start_node("node.toml");
    let shown = control(&home, &["checkpoint", "--out", "running.bin", "--json"]).json();
    assert_eq!((&shown["epoch"], &shown["commit"]["index"]), (&1.into(), &200.into()));
    assert_eq!(fs::read(home.path("running.bin")).unwrap(), fs::read(home.path("stopped.bin")).unwrap());
    control(&home, &["checkpoint", "--out", "running.bin"]).refused(&["running.bin is there already"]);
    control(&home, &["checkpoint", "--out", "later.bin", "--epoch", "2"]).failed(&["in epoch 2"]);
    assert!(!home.path("later.bin").exists());
    node.stop("TERM").ok();
}

#[test]
fn trace_of_a_running_node_replays_to_identical_decisions() {
    let home = Home::new(crate::PROGRAM);
    let node = home.start_node("node.toml");
    control(&home, &["trace", "--out", "trace", "--for", "3s"]).ok();
    control(&home, &["trace", "--out", "other", "--for", "3s"]).failed(&["is recording a trace"]);
    node.until("the trace is complete", |output| output.stderr.contains("the trace is complete"));
    let replayed = home.run(["replay", "run", "trace"]).ok();
    assert!(replayed.contains("discovery") && replayed.contains("identical"), "{replayed}");
    // A later one goes to another directory, and names what is wrong.
    control(&home, &["trace", "--out", "more", "--for", "1s", "--actor", "nobody"]).failed(&["trace.actors", "nobody"]);
    control(&home, &["trace", "--out", "more", "--for", "2days"]).failed(&["at most 24 h"]);
    // A node that stops ends its trace.
    control(&home, &["trace", "--out", "last", "--for", "1h", "--actor", "discovery"]).ok();
    control(&home, &["add-peer", &format!("{PEER}@/ip4/127.0.0.1/tcp/1")]).ok();
    node.stop("TERM").ok();
    let replayed = home.run(["replay", "run", "last"]).ok();
    assert!(replayed.contains("discovery") && !replayed.contains("state-sync"), "{replayed}");
}

#[test]
fn hang_up_takes_over_what_can_change_and_names_what_needs_a_restart() {
    let home = Home::new(crate::PROGRAM);
    let node = home.start_node("node.toml");
    let seeds = format!("seed_peers = [\"{PEER}@/ip4/127.0.0.1/tcp/1\"]\nmailbox_capacity = 60\n");
    let lists = format!("[p2p.connections]\nallowlist = [\"{PEER}\"]\n");
    let top = "log_filter = \"soma=debug\"\nready_within_commits = 5";
    home.write("node.toml", &crate::config(top, &format!("{seeds}{lists}")));
    node.signal("HUP");
    let taken = "taken over: log_filter, ready_within_commits, p2p.connections.allowlist, p2p.seed_peers; \
                 needs a restart: p2p.mailbox_capacity";
    node.until("it has read its configuration again", |output| output.stderr.contains(taken));
    // The peer is trusted now.
    control(&home, &["ban", PEER, "--for", "1h"]).failed(&["is a trusted peer"]);
    let own: soma_p2p::PeerId =
        serde_json::from_value(home.run(["status", "--config", "node.toml", "--json"]).json()["peer_id"].clone())
            .unwrap();
    // A wrong file changes nothing.
    home.write("node.toml", &crate::config("log_filter = \"soma=loud\"", ""));
    node.signal("HUP");
    let refused = "configuration not taken over: config file node.toml: log_filter: ";
    node.until("it refuses the file", |output| output.stderr.contains(refused));
    // An error of one setting names what was taken over before it.
    let own_seed = format!("seed_peers = [\"{own}@/ip4/127.0.0.1/tcp/1\"]\n{lists}");
    home.write("node.toml", &crate::config(top, &own_seed).replace("soma=debug", "soma=info"));
    control(&home, &["reload"]).failed(&["p2p.seed_peers: ", "this node itself", "taken over before it: log_filter"]);
    // The command does the same.
    home.write("node.toml", &crate::config(top, &format!("{seeds}{lists}")).replace("soma=debug", "soma=info"));
    control(&home, &["reload"]).ok();
    home.write("node.toml", &crate::config("", "mailbox_capacity = 60\n"));
    let reloaded = control(&home, &["reload"]).ok();
    assert!(reloaded.contains("p2p.seed_peers; needs a restart: p2p.mailbox_capacity"), "{reloaded}");
    control(&home, &["ban", PEER, "--for", "1h"]).ok();
    node.stop("TERM").ok();
}

#[test]
fn node_without_peers_is_ready_within_any_distance() {
    let home = Home::new(crate::PROGRAM);
    home.write("node.toml", &crate::config("ready_within_commits = 0", ""));
    let node = home.start_node("node.toml");
    assert_eq!(get(&crate::node::admin(&home), "/readyz").0, 200);
    node.stop("TERM").ok();
}

#[test]
fn node_with_a_path_too_long_for_a_socket_runs_without_one() {
    let home = Home::new(crate::PROGRAM);
    let long = "d".repeat(100);
    home.write("node.toml", &crate::config("", "").replace("\"data\"", &format!("\"{long}\"")));
    let node = Running::start(&mut home.command(["node", "--config", "node.toml"]));
    node.until("it is ready", |output| output.stdout.starts_with("ready: "));
    node.until("it says so", |output| output.stderr.contains("no control socket"));
    control(&home, &["unban", PEER]).failed(&["no control socket"]);
    node.stop("TERM").ok();
}
