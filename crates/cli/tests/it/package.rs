//! What packages hold, without the tools that build them: the same scripts and commands, run here.

use crate::{Home, Running, node::admin};
use serde_json::Value;
use std::{fs, net::TcpListener, path::PathBuf, process::Command};

fn package(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("package").join(name)
}

/// `PATH` with the directory of the command in front.
fn path() -> String {
    let directory = PathBuf::from(crate::PROGRAM).parent().unwrap().display().to_string();
    format!("{directory}:{}", std::env::var("PATH").unwrap())
}

/// Ports for four nodes that were free a moment ago: a genesis names them before the nodes listen.
fn ports() -> String {
    let listeners: Vec<_> = (0..4).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let ports: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap().port().to_string()).collect();
    ports.join(" ")
}

#[test]
fn the_four_nodes_of_the_compose_file_connect() {
    let home = Home::empty(crate::PROGRAM);
    let make_chain = || {
        let mut command = Command::new(package("compose/make-chain.sh"));
        command.arg(home.dir.path()).env("PATH", path()).env("P2P_PORTS", ports()).env("ADMIN_PORTS", "0 0 0 0");
        Running::start(&mut command).wait().ok();
        home.files()
    };
    let made = make_chain();
    assert_eq!(make_chain(), made, "a second `up` made another chain");

    let compose = fs::read_to_string(package("compose/compose.yaml")).unwrap();
    let mut nodes = Vec::new();
    for node in 0..4 {
        assert!(compose.contains(&format!(
            "node-{node}: {{ <<: *node, environment: {{ NODE_CONFIG: /chain/node-{node}.toml }} }}"
        )));
        home.run(["config", "check", &format!("node-{node}.toml")]).ok();
        // The command of the image.
        let dockerfile = fs::read_to_string(package("Dockerfile")).unwrap();
        let line = dockerfile.lines().find_map(|line| line.strip_prefix("CMD ")).unwrap();
        let image_command: Vec<String> = serde_json::from_str(line).unwrap();
        let mut command = Command::new(&image_command[0]);
        command.args(&image_command[1..]).env("PATH", path()).current_dir(home.dir.path());
        let node = Running::start(command.env("NODE_CONFIG", home.path(&format!("node-{node}.toml"))));
        node.until("it is ready", |output| output.stdout.starts_with("ready: "));
        nodes.push(node);
    }
    for node in 0..4 {
        let connected = || {
            let shown = home.run(["status", "--config", &format!("node-{node}.toml"), "--json"]);
            let status: Value = serde_json::from_str(&shown.stdout).unwrap();
            status["peers"].as_array().unwrap().len()
        };
        let deadline = std::time::Instant::now() + crate::DEADLINE;
        while connected() < 3 {
            assert!(std::time::Instant::now() < deadline, "node {node} has found only {} of 3", connected());
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
    }
    for node in nodes {
        // `exec` in the image's command: the signal reaches the node, not a shell.
        node.stop("TERM").ok();
    }
}

#[test]
fn the_health_check_of_the_image_tells_a_node_that_is_ready() {
    let home = Home::new(crate::PROGRAM);
    let dockerfile = fs::read_to_string(package("Dockerfile")).unwrap();
    let check = dockerfile.lines().find_map(|line| line.strip_prefix("    CMD ")).unwrap();
    let healthy = || {
        let mut command = Command::new("sh");
        command.args(["-c", check]).env("PATH", path()).env("NODE_CONFIG", home.path("node.toml"));
        Running::start(&mut command).wait().code()
    };
    assert_eq!(healthy(), 1);
    let node = home.start_node("node.toml");
    assert!(!admin(&home).is_empty());
    assert_eq!(healthy(), 0);
    node.stop("TERM").ok();
    assert_eq!(healthy(), 1);
}

#[test]
fn the_configuration_of_the_package_is_valid_and_has_the_paths_of_the_unit() {
    let home = Home::new(crate::PROGRAM);
    let template = fs::read_to_string(package("node.toml")).unwrap();
    for path in ["/var/lib/soma-p2p/data", "/var/lib/soma-p2p/node.key", "/etc/soma-p2p/genesis.bin"] {
        assert!(template.contains(path), "{path}");
    }
    let here = template.replace("/var/lib/soma-p2p/", "").replace("/etc/soma-p2p/genesis.bin", "chain/genesis.bin");
    home.write("packaged.toml", &here);
    home.run(["config", "check", "packaged.toml"]).ok();
    let unit = fs::read_to_string(package("soma-p2p.service")).unwrap();
    for line in
        ["Type=notify", "User=soma-p2p", "StateDirectory=soma-p2p", "ConditionPathExists=/etc/soma-p2p/genesis.bin"]
    {
        assert!(unit.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn package_files_have_a_page_for_each_command_and_completions() {
    let home = Home::empty(crate::PROGRAM);
    let mut command = Command::new(package("package-files.sh"));
    Running::start(command.arg(crate::PROGRAM).arg(home.path("files"))).wait().ok();
    for file in ["man/soma-p2p.1", "man/soma-p2p-node.1", "soma-p2p.bash", "_soma-p2p", "soma-p2p.fish"] {
        assert!(fs::read_to_string(home.path("files").join(file)).unwrap().contains("soma-p2p"), "{file}");
    }
}
