//! `localnet --trace` and `replay`: what a live node recorded, shown and fed to its cores again.

use crate::{Home, localnet};
use serde_json::Value;
use std::{fs, path::PathBuf};

/// The trace files of the first full node.
fn trace_files(home: &Home) -> Vec<PathBuf> {
    let mut files: Vec<_> =
        fs::read_dir(home.path("traces/full-node-0")).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    files
}

/// A home with the trace of a full node that caught up.
fn traced() -> Home {
    let home = Home::empty(crate::PROGRAM);
    home.run(localnet::small(&["--trace", "traces"])).ok();
    home
}

#[test]
fn live_trace_replays_identically_and_every_change_is_located() {
    let home = traced();
    let run = |more: &[&str]| home.run([&["replay", "run", "traces/full-node-0"], more].concat());
    let identical = run(&[]).ok();
    assert!(identical.starts_with("identical: "), "{identical}");
    for actor in ["connections", "discovery", "peer-heights", "state-sync", "store-writer", "sync-worker", "verifier"] {
        assert!(identical.contains(actor), "{actor} is not in\n{identical}");
    }

    let only = run(&["--actor", "state-sync", "--dump-state"]).ok();
    assert!(!only.contains("verifier"), "{only}");
    let state: Value = serde_json::from_str(&only[only.find("\n{").unwrap()..]).unwrap();
    assert!(state["state-sync"]["applied"].as_u64().unwrap() > 120, "{state}");
    let early = run(&["--until", "40", "--dump-state", "--actor", "state-sync"]).ok();
    let earlier: Value = serde_json::from_str(&early[early.find("\n{").unwrap()..]).unwrap();
    assert!(earlier["state-sync"]["applied"].as_u64() < state["state-sync"]["applied"].as_u64(), "{earlier}");
    run(&["--actor", "state-synch"]).refused(&["state-synch", "traces/full-node-0"]);

    let lines = home.run(["replay", "show", "traces/full-node-0"]).ok();
    let records: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(records[0]["begins"].is_object(), "{}", records[0]);
    let told = records
        .iter()
        .find(|record| record["message"]["Target"]["highest"].is_u64())
        .expect("StateSync was told of a target");
    assert_eq!((&told["actor"], &told["sender"]), (&"state-sync".into(), &"peer-heights".into()));
    let cause = records.iter().find(|record| record["record"] == told["cause"]).expect("its cause was recorded");
    assert_eq!(cause["actor"], "peer-heights", "{cause}");

    let file = trace_files(&home).remove(0);
    let whole = fs::read(&file).unwrap();
    let mut changed = whole.clone();
    let middle = changed.len() / 2;
    changed[middle] ^= 1;
    fs::write(&file, &changed).unwrap();
    let found = run(&[]);
    assert_eq!(found.code(), 1, "{found:?}");
    assert!(found.stdout.contains("was changed after it was written") && found.stdout.contains('#'), "{found:?}");

    fs::write(&file, &whole[..whole.len() - 3]).unwrap();
    let torn = run(&[]).ok();
    assert!(torn.starts_with("identical: ") && torn.contains("torn end"), "{torn}");
}

#[test]
fn no_key_is_in_a_trace() {
    let home = traced();
    let key = home.path("net/full-node-0/node.key");
    let secret = secret_bytes(&fs::read_to_string(key).unwrap());
    for file in trace_files(&home) {
        let bytes = fs::read(&file).unwrap();
        let found = bytes.windows(secret.len()).any(|window| window == secret);
        assert!(!found, "the node's key is in {}", file.display());
    }
}

/// The 32 secret bytes in a PKCS#8 key file.
fn secret_bytes(pem: &str) -> [u8; 32] {
    use ed25519_dalek::pkcs8::DecodePrivateKey;
    ed25519_dalek::SigningKey::from_pkcs8_pem(pem).unwrap().to_bytes()
}

#[test]
fn what_is_no_trace_is_refused() {
    let home = Home::new(crate::PROGRAM);
    home.refuses(&["replay", "run", "nowhere"], &["nowhere"]);
    home.refuses(&["replay", "run", "node.toml"], &["node.toml", "not a trace"]);
    home.refuses(&["replay", "show", "chain"], &["chain", "no trace files"]);
}

#[test]
fn unwritable_trace_directory_keeps_the_node_from_starting() {
    let home = Home::new(crate::PROGRAM);
    home.write("config.toml", &crate::config("", "[p2p.trace]\ndirectory = \"node.key/trace\"\n"));
    let refused = home.run(["node", "--config", "config.toml"]);
    assert_eq!(refused.code(), 2, "{refused:?}");
    assert!(refused.stderr.contains("error: trace: cannot write to node.key/trace"), "{refused:?}");
}

#[test]
fn an_unknown_actor_to_record_is_refused_with_those_there_are() {
    let home = Home::new(crate::PROGRAM);
    let trace = "[p2p.trace]\ndirectory = \"trace\"\nactors = [\"statesync\"]\n";
    home.write("config.toml", &crate::config("", trace));
    home.refuses(&["node", "--config", "config.toml"], &["p2p.trace.actors", "statesync", "state-sync"]);
}
