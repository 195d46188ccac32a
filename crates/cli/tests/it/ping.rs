//! `ping`, by whoever knows nothing of the node but its peer id and its address.

use crate::{Finished, Home, Running, config};
use serde_json::Value;
use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

/// The peer id of a running node, and its address.
pub(crate) fn listening(node: &Running) -> (String, String) {
    let said = node.printed();
    let words: Vec<_> = said.split_whitespace().collect();
    let ["ready:", "peer", peer, "listens", "on", address, ..] = words[..] else { panic!("{said:?}") };
    (peer.into(), address.trim_end_matches(',').into())
}

fn ping(home: &Home, peer: &str, address: &str, more: &[&str]) -> Finished {
    let target = format!("{peer}@{address}");
    home.run(["ping", &target].iter().chain(more))
}

#[test]
fn ping_tells_who_answers_what_it_serves_and_how_it_sees_us() {
    let home = Home::new(crate::PROGRAM);
    let node = home.start_node("node.toml");
    let (peer, address) = listening(&node);
    let shown = ping(&home, &peer, &address, &[]).ok();
    let status = home.run(["status", "--config", "node.toml", "--json"]).json();
    let chain = status["chain_id"].as_str().unwrap();
    for (name, value) in [
        ("peer", peer.as_str()),
        ("address", &address),
        ("chain", chain),
        ("versions", "1"),
        ("role", "full node, archive"),
        ("commits", "none yet"),
        ("clock", ""),
        ("sees us at", "127.0.0.1"),
        ("handshake", "ms"),
        ("round trip", "ms (min / avg / max of 4)"),
    ] {
        let line = shown.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in\n{shown}"));
        assert!(line.ends_with(value), "{line:?} does not end with {value:?}");
    }
    let answer = ping(&home, &peer, &address, &["--json", "--count", "9"]).json();
    assert_eq!((&answer["peer_id"], &answer["chain_id"]), (&status["peer_id"], &status["chain_id"]));
    assert_eq!((&answer["lowest_commit"], &answer["highest_commit"]), (&1.into(), &0.into()));
    assert_eq!((&answer["role"], &answer["archive"]), (&"full-node".into(), &true.into()));
    assert_eq!((&answer["seen_ip"], &answer["info_error"]), (&"127.0.0.1".into(), &Value::Null));
    let times = &answer["round_trip_ms"];
    assert_eq!(times["count"], 9);
    let of = |name: &str| times[name].as_f64().unwrap();
    assert!(0.0 < of("min") && of("min") <= of("avg") && of("avg") <= of("max"), "{times}");
    assert_eq!(super::node::get(&super::node::admin(&home), "/healthz").0, 200, "the node is as well as before");
    node.stop("TERM").ok();
}

#[test]
fn ping_calls_with_the_key_that_it_is_given() {
    let home = Home::new(crate::PROGRAM);
    let node = home.start_node("node.toml");
    let (peer, address) = listening(&node);
    home.run(["keygen", "--out", "caller.key"]).ok();
    ping(&home, &peer, &address, &["--key", "caller.key"]).ok();
    let named = ["absent.key", "cannot be read"];
    ping(&home, &peer, &address, &["--key", "absent.key"]).refused(&named);
    node.stop("TERM").ok();
}

#[test]
fn ping_of_another_key_than_the_one_that_answers_names_both() {
    let home = Home::new(crate::PROGRAM);
    let node = home.start_node("node.toml");
    let (peer, address) = listening(&node);
    let other = home.run(["keygen", "--out", "other.key"]).ok();
    let other = other.trim_end();
    ping(&home, other, &address, &[]).failed(&[&address, &peer, other, "check the peer id"]);
    node.stop("TERM").ok();
}

#[test]
fn ping_of_a_node_that_is_full_says_that_it_does_not_admit_the_caller() {
    let home = Home::new(crate::PROGRAM);
    home.write("node.toml", &config("", "[p2p.connections]\nmax_inbound = 0\n"));
    let node = home.start_node("node.toml");
    let (peer, address) = listening(&node);
    ping(&home, &peer, &address, &[]).failed(&[&address, &peer, "does not admit the caller", "--key"]);
    node.stop("TERM").ok();
}

/// A peer id that no running node has, and a socket that listens for it.
fn somebody_else(home: &Home) -> (String, String, TcpListener) {
    let peer = home.run(["keygen", "--out", "nobody.key"]).ok().trim_end().to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
    (peer, address, listener)
}

#[test]
fn ping_where_nobody_listens_says_what_to_check() {
    let home = Home::empty(crate::PROGRAM);
    let (peer, address, listener) = somebody_else(&home);
    drop(listener);
    ping(&home, &peer, &address, &[]).failed(&[&address, "cannot be reached", "check the address"]);
}

#[test]
fn ping_of_what_never_answers_gives_up_in_time() {
    let home = Home::empty(crate::PROGRAM);
    let (peer, address, _listener) = somebody_else(&home);
    ping(&home, &peer, &address, &["--timeout", "50ms"]).failed(&[&address, "within 50ms", "--timeout"]);
}

#[test]
fn ping_of_what_is_no_node_says_so() {
    let home = Home::empty(crate::PROGRAM);
    let (peer, address, listener) = somebody_else(&home);
    let server = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        // Until the caller has gone: closing with something unread would take the answer back.
        let _ = socket.read_to_end(&mut Vec::new());
    });
    ping(&home, &peer, &address, &[]).failed(&[&address, "no soma node answers"]);
    server.join().unwrap();
}

#[test]
fn ping_refuses_what_names_no_peer_and_address() {
    let home = Home::empty(crate::PROGRAM);
    let peer = "11".repeat(32);
    for (wrong, named) in [
        ("", "\"\" is not of the form"),
        ("nonsense", "\"nonsense\" is not of the form"),
        ("/ip4/127.0.0.1/tcp/9000", "\"/ip4/127.0.0.1/tcp/9000\" is not of the form"),
        ("abc@/ip4/127.0.0.1/tcp/9000", "\"abc\" is not a peer id"),
        (&format!("{peer}@nowhere"), "\"nowhere\""),
    ] {
        home.refuses(&["ping", wrong], &["PEER_ID@ADDRESS", named, "ready: peer"]);
    }
    for (option, value) in [("--timeout", "soon"), ("--count", "0"), ("--count", "many")] {
        let finished = home.run(["ping", &format!("{peer}@/ip4/127.0.0.1/tcp/9000"), option, value]);
        assert_eq!(finished.code(), 2, "{finished:?}");
        assert!(finished.stderr.contains(option) && finished.stderr.contains(value), "{finished:?}");
    }
}
