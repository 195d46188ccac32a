//! Wrong input: one line that says what and where, exit code 2, nothing written.

use crate::{Home, Running, config};
use std::{fs, net::TcpListener};

const NODE: &[&str] = &["node", "--config", "node.toml"];

#[test]
fn a_missing_config_file_is_refused_by_name() {
    let home = Home::new(crate::PROGRAM);
    for command in ["node", "status"] {
        let args = [command, "--config", "absent.toml"];
        home.refuses(&args, &["config file absent.toml cannot be read", "No such file"]);
    }
}

#[test]
fn a_config_with_a_syntax_error_is_refused_with_its_line() {
    let home = Home::new(crate::PROGRAM);
    home.write("node.toml", &config("", "listen =\n"));
    for command in ["node", "status"] {
        home.refuses(&[command, "--config", "node.toml"], &["config file node.toml: line 7: "]);
    }
    fs::write(home.path("node.toml"), [0xff, 0xfe, 0]).unwrap();
    home.refuses(NODE, &["config file node.toml cannot be read", "UTF-8"]);
}

#[test]
fn a_config_without_a_key_that_has_no_default_is_refused_with_its_name() {
    let home = Home::new(crate::PROGRAM);
    home.write("node.toml", "data_dir = \"data\"\n");
    home.refuses(NODE, &["config file node.toml", "missing field `genesis`"]);
}

#[test]
fn an_unknown_key_is_refused_with_its_name_and_line() {
    let home = Home::new(crate::PROGRAM);
    home.write("node.toml", &config("colour = \"red\"", ""));
    home.refuses(NODE, &["config file node.toml: line 5: ", "`colour`"]);
    home.write("node.toml", &config("", "[p2p.state_sync]\nmax_worker = 3\n"));
    home.refuses(NODE, &["config file node.toml: line 9: ", "`max_worker`", "`max_workers`"]);
}

#[test]
fn a_value_out_of_range_or_of_the_wrong_kind_is_refused_with_key_and_rule() {
    let home = Home::new(crate::PROGRAM);
    home.write("node.toml", &config("", "[p2p.state_sync]\ncommits_per_fetch = 101\n"));
    let rule = "p2p.state_sync.commits_per_fetch = 101: must be 1 to 100";
    home.refuses(NODE, &["config file node.toml: ", rule]);
    home.write("node.toml", &config("", "listen = \"127.0.0.1:9000\"\n"));
    home.refuses(NODE, &["config file node.toml: line 7: ", "/ip4/ADDR/tcp/PORT"]);
    home.write("node.toml", &config("", "seed_peers = [\"/ip4/127.0.0.1/tcp/9000\"]\n"));
    home.refuses(NODE, &["config file node.toml: line 8: ", "PEER_ID@ADDRESS"]);
}

#[test]
fn an_admin_address_that_others_can_reach_is_refused() {
    let home = Home::new(crate::PROGRAM);
    home.write("node.toml", &config("admin = \"0.0.0.0:0\"", ""));
    home.refuses(NODE, &["config file node.toml: admin = 0.0.0.0:0", "loopback"]);
}

#[test]
fn a_missing_key_file_is_refused_with_how_to_make_one() {
    let home = Home::new(crate::PROGRAM);
    fs::remove_file(home.path("node.key")).unwrap();
    home.refuses(NODE, &["key file node.key cannot be read", "No such file", "soma-p2p keygen"]);
}

#[test]
fn a_key_file_of_something_else_is_refused_and_not_quoted() {
    let home = Home::new(crate::PROGRAM);
    let pem = fs::read_to_string(home.path("node.key")).unwrap();
    let secret = pem.lines().nth(1).unwrap();
    let not_a_key = ["", "hunter2\n", &pem.replace(secret, &secret[1..]), &pem.replace("PRIVATE", "PUBLIC")];
    for contents in not_a_key {
        home.write("node.key", contents);
        let error = home.refuses(NODE, &["key file node.key is no ed25519 key in PKCS#8 PEM; ", "soma-p2p keygen"]);
        assert!(!error.contains("hunter2") && !error.contains(&secret[1..]), "{error}");
    }
}

#[test]
fn a_missing_genesis_is_refused() {
    let home = Home::new(crate::PROGRAM);
    fs::remove_file(home.path("chain/genesis.bin")).unwrap();
    home.refuses(NODE, &["genesis file chain/genesis.bin cannot be read", "No such file"]);
}

#[test]
fn a_genesis_of_garbage_or_cut_short_or_too_long_is_refused() {
    let home = Home::new(crate::PROGRAM);
    let genesis = fs::read(home.path("chain/genesis.bin")).unwrap();
    let cut = |length: usize| genesis[..length].to_vec();
    let longer = [genesis.as_slice(), b"!"].concat();
    for bytes in
        [b"not a genesis".to_vec(), vec![0xff; 500], cut(0), cut(genesis.len() / 2), cut(genesis.len() - 1), longer]
    {
        fs::write(home.path("chain/genesis.bin"), bytes).unwrap();
        home.refuses(NODE, &["genesis file chain/genesis.bin is not valid: "]);
    }
}

#[test]
fn an_address_in_use_is_refused_before_anything_is_written() {
    let home = Home::new(crate::PROGRAM);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let multiaddr = format!("/ip4/127.0.0.1/tcp/{}", address.port());
    home.write("node.toml", &config("", &format!("listen = \"{multiaddr}\"\n")));
    home.refuses(NODE, &["p2p.listen", &multiaddr, "in use"]);
    home.write("node.toml", &config(&format!("admin = \"{address}\""), ""));
    home.refuses(NODE, &[&format!("admin = {address}"), "in use"]);
    assert!(!home.path("data").exists());
}

#[test]
fn an_address_of_another_machine_is_refused_before_anything_is_written() {
    let home = Home::new(crate::PROGRAM);
    home.write("node.toml", &config("", "listen = \"/ip4/192.0.2.1/tcp/9000\"\n"));
    home.refuses(NODE, &["p2p.listen", "/ip4/192.0.2.1/tcp/9000"]);
}

#[test]
fn a_store_of_another_chain_is_refused_with_both_chains_and_left_as_it_is() {
    let home = Home::new(crate::PROGRAM);
    let ours = home.run(["inspect", "data/store"]).refused(&["data/store"]);
    assert!(ours.contains("there is nothing"), "{ours}");
    home.start_node("node.toml").stop("TERM").ok();
    let stored = home.run(["inspect", "data/store", "--json"]).json();
    let printed = home.run(["genesis", "--out", "other", "--name", "other"]).ok();
    let other = printed.lines().next().unwrap().strip_prefix("chain ").unwrap();
    home.write("node.toml", &config("", "").replace("chain/genesis.bin", "other/genesis.bin"));
    home.refuses(NODE, &["data/store", stored["chain"].as_str().unwrap(), other]);
}

#[test]
fn open_store_is_refused_to_a_second_node_and_to_inspect() {
    let home = Home::new(crate::PROGRAM);
    let first = home.start_node("node.toml");
    let run_file = fs::read(home.path("data/run.json")).unwrap();
    home.run(["keygen", "--out", "second.key"]).ok();
    home.write("second.toml", &config("", "").replace("node.key", "second.key"));
    let in_use = ["store data/store is in use by another process"];
    home.run(["node", "--config", "second.toml"]).refused(&in_use);
    home.run(["inspect", "data/store"]).refused(&in_use);
    assert_eq!(fs::read(home.path("data/run.json")).unwrap(), run_file, "it still says where the first one answers");
    home.run(["status", "--config", "node.toml"]).ok();
    first.stop("TERM").ok();
    home.run(["inspect", "data/store"]).ok();
}

#[test]
fn a_directory_of_something_else_is_not_taken_for_a_store() {
    let home = Home::new(crate::PROGRAM);
    fs::create_dir_all(home.path("data/store")).unwrap();
    home.write("data/store/thesis.tex", "years of work");
    home.refuses(NODE, &["data/store is no store", "thesis.tex"]);
    fs::remove_dir_all(home.path("data")).unwrap();
    home.write("data", "a file");
    home.refuses(NODE, &["data/executor.json cannot be read", "Not a directory"]);
}

#[test]
fn executor_state_that_is_not_ours_is_refused_with_what_to_do() {
    let home = Home::new(crate::PROGRAM);
    fs::create_dir(home.path("data")).unwrap();
    for contents in ["", "{}", "{\"index\": 1, \"digest\": \"xyz\"}"] {
        home.write("data/executor.json", contents);
        home.refuses(NODE, &["data/executor.json is not valid", "remove it to execute from the start"]);
    }
}

#[test]
fn a_log_filter_that_does_not_parse_is_refused() {
    let home = Home::new(crate::PROGRAM);
    let before = home.files();
    let mut command = home.command(NODE);
    Running::start(command.env("RUST_LOG", "info,soma=loud")).wait().refused(&["RUST_LOG", "soma=loud"]);
    assert_eq!(home.files(), before);
}
