//! `peers`, on one machine with two nodes.

use crate::{DEADLINE, Home, config, node::get, ping::listening};
use serde_json::Value;
use std::time::Instant;

/// What the first node knows of the second, once it knows it; asked again and again until then.
fn known(home: &Home, peer: &str) -> Value {
    let begun = Instant::now();
    loop {
        let peers = home.run(["peers", "--config", "node.toml", "--json"]).json();
        let connected = peers["connected"].as_array().unwrap().iter().any(|one| one["inbound"] == true);
        let known = peers["known"].as_array().unwrap();
        let found = known.iter().find(|entry| entry["peer"] == *peer);
        if let (true, Some(found)) = (connected, found) {
            return found.clone();
        }
        assert!(begun.elapsed() < DEADLINE, "in vain: {peers}");
    }
}

#[test]
fn peers_lists_who_is_connected_and_who_is_known_with_addresses_and_times() {
    let home = Home::new(crate::PROGRAM);
    let first = home.start_node("node.toml");
    let (first_id, first_address) = listening(&first);
    home.run(["keygen", "--out", "second.key"]).ok();
    let second = config("", &format!("seed_peers = [\"{first_id}@{first_address}\"]\n"));
    home.write("second.toml", &second.replace("\"data\"", "\"data2\"").replace("\"node.key\"", "\"second.key\""));
    let second = home.start_node("second.toml");
    let (second_id, second_address) = listening(&second);

    let entry = known(&home, &second_id);
    assert_eq!(entry["addresses"], Value::from(vec![second_address.clone()]));
    assert_eq!(entry["access"], "public");
    assert!(entry["signed_ms"].as_u64().unwrap() > 1_700_000_000_000, "{entry}");
    let shown = home.run(["peers", "--config", "node.toml"]).ok();
    let row = shown.lines().find(|line| line.contains(&second_id)).unwrap_or_else(|| panic!("not listed:\n{shown}"));
    assert!(row.contains(&second_address) && row.contains(" ago"), "{row:?}");
    assert!(shown.starts_with("1 connected\n") && shown.contains("\n1 known\n"), "{shown}");
    for column in ["peer", "we ask it", "it asks us", "addresses", "seen live", "signed", "connected"] {
        assert!(shown.contains(column), "{column:?} is not in\n{shown}");
    }
    let (code, answer) = get(&crate::node::admin(&home), "/peers");
    assert_eq!(code, 200);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["known"].as_array().unwrap().len(), 1);
    second.stop("TERM").ok();
    first.stop("TERM").ok();
}

#[test]
fn peers_without_a_node_says_so() {
    let home = Home::new(crate::PROGRAM);
    home.run(["peers", "--config", "node.toml"]).failed(&["no node runs with this configuration", "data/run.json"]);
    assert!(!home.path("data").exists());
    home.refuses(&["peers", "--config", "absent.toml"], &["absent.toml", "cannot be read"]);
}
