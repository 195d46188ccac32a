//! `config`, `completions` and `man`: what helps before a node runs.

use crate::{Home, Running};
use std::fs;

#[test]
fn a_valid_configuration_is_said_to_be_and_nothing_is_written() {
    let home = Home::new(crate::PROGRAM);
    let checked = home.run(["config", "check", "node.toml"]).ok();
    assert!(checked.starts_with("node.toml is valid: peer "), "{checked}");
    assert!(!home.path("data").exists());
}

#[test]
fn a_configuration_is_refused_as_a_node_refuses_it() {
    let home = Home::new(crate::PROGRAM);
    home.write("node.toml", &crate::config("colour = \"red\"", ""));
    home.refuses(&["config", "check", "node.toml"], &["config file node.toml: line 5: ", "`colour`"]);
    let home = Home::new(crate::PROGRAM);
    fs::remove_file(home.path("node.key")).unwrap();
    home.refuses(&["config", "check", "node.toml"], &["key file node.key cannot be read"]);
}

#[test]
fn the_printed_defaults_are_a_valid_configuration() {
    let home = Home::new(crate::PROGRAM);
    let defaults = home.run(["config", "default"]).ok();
    assert!(defaults.contains("[p2p.state_sync]") && defaults.contains("[p2p.serving]"), "{defaults}");
    home.write("defaults.toml", &defaults.replace("genesis.bin", "chain/genesis.bin"));
    let checked = home.run(["config", "check", "defaults.toml"]).ok();
    assert!(checked.starts_with("defaults.toml is valid"), "{checked}");
}

#[test]
fn completions_and_man_pages_know_every_command() {
    let home = Home::empty(crate::PROGRAM);
    let commands = ["keygen", "genesis", "config", "node", "status", "peers", "ping", "inspect", "store", "archive"];
    for shell in ["bash", "zsh", "fish"] {
        let script = home.run(["completions", shell]).ok();
        assert!(commands.iter().all(|command| script.contains(command)), "{shell}");
    }
    home.run(["man", "--out", "man"]).ok();
    for command in commands {
        let page = fs::read_to_string(home.path(&format!("man/soma-p2p-{command}.1"))).unwrap();
        assert!(page.contains(".TH soma-p2p"), "{command}: {page}");
    }
}

#[test]
fn each_line_of_a_log_in_json_is_an_object() {
    let home = Home::new(crate::PROGRAM);
    let node = Running::start(&mut home.command(["node", "--config", "node.toml", "--log-format", "json"]));
    node.until("it listens", |output| output.stdout.starts_with("ready"));
    let finished = node.stop("TERM");
    let lines: Vec<serde_json::Value> =
        finished.stderr.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    let stopped = lines.iter().find(|line| line["message"] == "stopped").expect("it says that it has stopped");
    assert_eq!(stopped["level"], "INFO");
    assert!(stopped["timestamp"].is_string() && stopped["target"].is_string(), "{stopped}");
}
