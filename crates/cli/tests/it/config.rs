//! `config`, `completions` and `man`: what helps before a node runs.

use crate::{Finished, Home, Running};
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

/// `config check` with these variables.
fn check_with(home: &Home, variables: &[(&str, &str)]) -> Finished {
    let mut command = home.command(["config", "check", "node.toml"]);
    Running::start(command.envs(variables.iter().copied())).wait()
}

#[test]
fn environment_overrides_settings_and_check_names_them() {
    let home = Home::new(crate::PROGRAM);
    let checked = check_with(
        &home,
        &[
            ("SOMA_P2P__DATA_DIR", "elsewhere"),
            ("SOMA_P2P__P2P__STATE_SYNC__COMMITS_PER_FETCH", "7"),
            ("SOMA_P2P__P2P__DISCOVERY__INTERVAL", "250ms"),
            ("SOMA_P2P__P2P__EXTERNAL_ADDRESSES", "[\"/ip4/127.0.0.1/tcp/9100\", /dns/node.example/tcp/9100]"),
            ("SOMA_P2P__P2P__START", "{checkpoint=\"c.bin\"}"),
        ],
    );
    let checked = checked.ok();
    assert!(checked.lines().next().unwrap().ends_with("data in elsewhere"), "{checked}");
    let from = |key: &str, name: &str| format!("{key} comes from the environment variable SOMA_P2P__{name}\n");
    for (key, name) in [
        ("data_dir", "DATA_DIR"),
        ("p2p.discovery.interval", "P2P__DISCOVERY__INTERVAL"),
        ("p2p.external_addresses", "P2P__EXTERNAL_ADDRESSES"),
        ("p2p.start", "P2P__START"),
        ("p2p.state_sync.commits_per_fetch", "P2P__STATE_SYNC__COMMITS_PER_FETCH"),
    ] {
        assert!(checked.contains(&from(key, name)), "{key}: {checked}");
    }
}

#[test]
fn environment_provides_settings_that_the_file_lacks() {
    let home = Home::new(crate::PROGRAM);
    home.write("node.toml", "key = \"node.key\"\n");
    let variables = [("SOMA_P2P__DATA_DIR", "data"), ("SOMA_P2P__GENESIS", "chain/genesis.bin")];
    check_with(&home, &variables).ok();
    check_with(&home, &variables[..1]).refused(&["config file node.toml", "missing field", "genesis"]);
}

#[test]
fn wrong_variable_is_refused_by_its_name() {
    let home = Home::new(crate::PROGRAM);
    let sync = "SOMA_P2P__P2P__STATE_SYNC__COMMITS_PER_FETCH";
    for (variable, value, named) in [
        ("SOMA_P2P__COLOUR", "red", "colour"),
        ("SOMA_P2P__P2P__LISTN", "/ip4/127.0.0.1/tcp/1", "listn"),
        ("SOMA_P2P__P2P__STATE_SYNC__MAX_WORKER", "3", "max_worker"),
        ("SOMA_P2P__P2P__STATE_SYNC", "3", "p2p.state_sync"),
        ("SOMA_P2P__P2P__LISTEN", "127.0.0.1:9000", "/ip4/ADDR/tcp/PORT"),
        ("SOMA_P2P__P2P__LISTEN__PORT", "9000", "p2p.listen"),
        ("SOMA_P2P__P2P__START", "latest", "latest-epoch"),
        ("SOMA_P2P__ADMIN", "0.0.0.0:1", "loopback"),
        ("SOMA_P2P__", "1", "must name a setting"),
        (sync, "many", "p2p.state_sync.commits_per_fetch"),
        (sync, "101", "must be 1 to 100"),
    ] {
        check_with(&home, &[(variable, value)]).refused(&[&format!("environment variable {variable}: "), named]);
    }
    // An error of the file is not blamed on the environment, and keeps its line.
    home.write("node.toml", &crate::config("colour = \"red\"", ""));
    check_with(&home, &[("SOMA_P2P__DATA_DIR", "data")]).refused(&["config file node.toml: line 5: ", "`colour`"]);
}

#[test]
fn node_and_status_take_the_same_variables() {
    let home = Home::new(crate::PROGRAM);
    let elsewhere = ("SOMA_P2P__DATA_DIR", "elsewhere");
    let mut command = home.command(["node", "--config", "node.toml"]);
    let node = Running::start(command.envs([elsewhere]));
    node.until("it is ready", |output| output.stdout.starts_with("ready: "));
    assert!(home.path("elsewhere/run.json").exists() && !home.path("data").exists());
    let mut command = home.command(["status", "--config", "node.toml"]);
    Running::start(command.envs([elsewhere])).wait().ok();
    home.run(["status", "--config", "node.toml"]).failed(&["no node runs with this configuration"]);
    node.stop("TERM").ok();
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

/// What the printed schema finds wrong with a configuration.
fn schema_errors(schema: &serde_json::Value, toml: &str) -> Vec<String> {
    let config: serde_json::Value = toml::from_str(toml).unwrap();
    let validator = jsonschema::draft7::new(schema).unwrap();
    validator.iter_errors(&config).map(|error| format!("{}: {error}", error.instance_path)).collect()
}

#[test]
fn schema_accepts_the_defaults_and_every_documented_configuration() {
    let home = Home::new(crate::PROGRAM);
    let schema = home.run(["config", "schema"]).json();
    assert_eq!(schema_errors(&schema, &home.run(["config", "default"]).ok()), Vec::<String>::new());
    let operating = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/operating")).unwrap();
    let pages = operating.map(|page| fs::read_to_string(page.unwrap().path()).unwrap()).collect::<String>();
    let blocks: Vec<_> = pages.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() > 4, "{blocks:?}");
    for block in blocks {
        let required = if block.contains("data_dir") { "" } else { "data_dir = \"d\"\ngenesis = \"g\"\nkey = \"k\"\n" };
        assert_eq!(schema_errors(&schema, &format!("{required}{block}")), Vec::<String>::new(), "{block}");
    }
    let digest = "7".repeat(64);
    let commit = format!("start = {{ commit = 7, digest = \"{digest}\" }}\n");
    for p2p in ["start = { checkpoint = \"c.bin\" }\n", &commit, "[p2p.trace]\ndirectory = \"t\"\n"] {
        assert_eq!(schema_errors(&schema, &crate::config("", p2p)), Vec::<String>::new(), "{p2p}");
    }
}

#[test]
fn schema_refuses_a_wrong_key_and_a_wrong_value() {
    let schema = Home::empty(crate::PROGRAM).run(["config", "schema"]).json();
    for (top, p2p, named) in [
        ("colour = \"red\"", "", "colour"),
        ("", "listn = \"/ip4/127.0.0.1/tcp/1\"\n", "listn"),
        ("", "[p2p.state_sync]\nmax_worker = 3\n", "max_worker"),
        ("", "listen = \"127.0.0.1:9000\"\n", "/p2p/listen"),
        ("", "role = \"king\"\n", "/p2p/role"),
        ("", "start = \"latest\"\n", "/p2p/start"),
        ("", "[p2p.discovery]\ninterval = 5\n", "/p2p/discovery/interval"),
    ] {
        let errors = schema_errors(&schema, &crate::config(top, p2p));
        assert!(errors.iter().any(|error| error.contains(named)), "{named}: {errors:?}");
    }
    assert!(!schema_errors(&schema, "data_dir = \"data\"\n").is_empty());
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
