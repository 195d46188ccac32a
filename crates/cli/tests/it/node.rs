//! A node from its start to its end, and `status`.

use crate::{Home, Running};
use serde_json::Value;
use std::fs;

fn run_file(home: &Home) -> Value {
    serde_json::from_slice(&fs::read(home.path("data/run.json")).unwrap()).unwrap()
}

/// What an admin endpoint answers, whatever the status.
pub(crate) fn get(admin: &str, path: &str) -> (u16, String) {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut response = agent.get(format!("http://{admin}{path}")).call().unwrap();
    (response.status().as_u16(), response.body_mut().read_to_string().unwrap())
}

/// Where a running node answers.
pub(crate) fn admin(home: &Home) -> String {
    run_file(home)["admin"].as_str().unwrap().to_owned()
}

/// A node that is well, as it is once it says that it is ready.
fn start_healthy(home: &Home) -> (Running, String) {
    let node = home.start_node("node.toml");
    let admin = admin(home);
    assert_eq!(get(&admin, "/healthz").0, 200);
    (node, admin)
}

#[test]
fn a_node_made_with_keygen_and_genesis_says_where_it_listens() {
    let home = Home::empty(crate::PROGRAM);
    let peer_id = home.run(["keygen", "--out", "node.key"]).ok();
    home.run(["genesis", "--out", "chain"]).ok();
    home.write("node.toml", &crate::config("", ""));
    let node = home.start_node("node.toml");
    let run = run_file(&home);
    let text = |key: &str| run[key].as_str().unwrap().to_owned();
    assert_eq!(run["pid"], node.child.id());
    let noted: soma_p2p::PeerId = serde_json::from_value(run["peer_id"].clone()).unwrap();
    assert_eq!(noted.to_string(), peer_id.trim_end());
    let expected = format!("ready: peer {noted} listens on {}, admin http://{}\n", text("listen"), text("admin"));
    assert_eq!(node.printed(), expected);
    let port = text("listen").strip_prefix("/ip4/127.0.0.1/tcp/").unwrap().parse::<u16>().unwrap();
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    node.stop("TERM").ok();
}

#[test]
fn a_node_answers_health_status_and_metrics_over_http() {
    let home = Home::new(crate::PROGRAM);
    let (node, admin) = start_healthy(&home);
    let (code, status) = get(&admin, "/status");
    let status: Value = serde_json::from_str(&status).unwrap();
    assert_eq!(code, 200);
    assert_eq!(status["peer_id"], run_file(&home)["peer_id"]);
    assert_eq!((&status["height"], &status["executor"]["index"]), (&0.into(), &0.into()));
    assert_eq!(status["tree"]["name"], "root");
    assert!(status["tree"]["children"].as_array().unwrap().iter().any(|child| child["name"] == "sync"));
    let (code, metrics) = get(&admin, "/metrics");
    assert_eq!(code, 200);
    for line in metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (series, value) = line.rsplit_once(' ').unwrap();
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = series.split('{').next().unwrap();
        // The three series of a histogram share its help.
        let histogram = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
        let has_help = |name: &str| metrics.contains(&format!("# HELP {name} "));
        assert!(has_help(name) || histogram.is_some_and(has_help), "{name} has no help");
    }
    let build = format!("soma_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"));
    assert!(metrics.contains(&build) && metrics.contains("process_resident_memory_bytes "), "{metrics}");
    assert_eq!(get(&admin, "/absent").0, 404);
    node.stop("TERM").ok();
}

#[test]
fn status_shows_height_and_peers() {
    let home = Home::new(crate::PROGRAM);
    let (node, _) = start_healthy(&home);
    let shown = home.run(["status", "--config", "node.toml"]).ok();
    for expected in ["node ", "chain ", "state ", "height     0 of 0 (0 %)", "peer ", "actor "] {
        assert!(shown.contains(expected), "{expected:?} is not in\n{shown}");
    }
    let finished = home.run(["status", "--config", "node.toml", "--json"]);
    assert_eq!(finished.stdout.lines().count(), 1);
    let status = finished.json();
    assert_eq!(status["peers"], Value::Array(Vec::new()));
    assert_eq!(status["height"], 0);
    node.stop("TERM").ok();
}

/// A node's supervisors, with what they do when a child ends, and actors, with the depth of each.
const TREE: [(usize, &str, Option<&str>); 12] = [
    (0, "root", Some("one for one")),
    (1, "verifier", None),
    (1, "store-writer", None),
    (1, "network", Some("rest for one")),
    (2, "connections", None),
    (2, "discovery", None),
    (1, "sync", Some("rest for one")),
    (2, "state-sync", None),
    (2, "peer-heights", None),
    (1, "broadcast", None),
    (1, "objects", None),
    (1, "grpc-adapter", None),
];

#[test]
fn status_shows_the_supervisors_and_below_each_its_actors() {
    let home = Home::new(crate::PROGRAM);
    let (node, _) = start_healthy(&home);
    let shown = home.run(["status", "--config", "node.toml"]).ok();
    let table = &shown[shown.find(" actor ").unwrap()..];
    let columns: Vec<_> = table.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(columns.join(" "), "actor state for mailbox restarts last exit");
    let rows: Vec<_> = table.lines().skip(1).filter(|line| line.contains(" running ")).collect();
    assert_eq!(rows.len(), TREE.len(), "{shown}");
    for (row, (depth, name, strategy)) in rows.into_iter().zip(TREE) {
        let strategy = strategy.map(|strategy| format!(" ({strategy})")).unwrap_or_default();
        // The table puts a space before each row.
        assert!(row.starts_with(&format!(" {}{name}{strategy} ", "  ".repeat(depth))), "{row:?}");
    }
    let status = home.run(["status", "--config", "node.toml", "--json"]).json();
    let mut listed = Vec::new();
    list(&status["tree"], 0, &mut listed);
    assert_eq!(listed, TREE.map(|(depth, name, strategy)| (depth, name.to_owned(), strategy.is_some())));
    node.stop("TERM").ok();
}

/// The depth and name of all that is in a tree as JSON, and whether it is a supervisor; each has all that is promised.
fn list(child: &Value, depth: usize, listed: &mut Vec<(usize, String, bool)>) {
    assert_eq!(
        (&child["state"], &child["restarts"], &child["last_exit"]),
        (&"running".into(), &0.into(), &Value::Null)
    );
    assert!(child["in_state_ms"].is_u64(), "{child}");
    let supervisor = child["strategy"].is_string();
    assert_eq!(child["mailbox"].is_u64(), !supervisor, "{child}");
    listed.push((depth, child["name"].as_str().unwrap().into(), supervisor));
    for below in child["children"].as_array().unwrap() {
        list(below, depth + 1, listed);
    }
}

#[test]
fn status_watch_asks_again_until_the_node_is_gone() {
    let home = Home::new(crate::PROGRAM);
    let (node, _) = start_healthy(&home);
    let watch = Running::start(&mut home.command(["status", "--config", "node.toml", "--watch", "--json"]));
    watch.until("it has asked twice", |output| output.stdout.lines().count() >= 2);
    node.stop("TERM").ok();
    let finished = watch.wait();
    assert_eq!(finished.code(), 1, "{finished:?}");
    // Which one depends on how far the node had stopped when it was asked.
    let gone = ["no node runs with this configuration", "does not answer"];
    assert!(gone.iter().any(|reason| finished.stderr.contains(reason)), "{finished:?}");
    assert!(finished.stdout.lines().all(|line| serde_json::from_str::<Value>(line).is_ok()));
}

#[test]
fn status_without_a_node_says_so() {
    let home = Home::new(crate::PROGRAM);
    home.run(["status", "--config", "node.toml"]).failed(&["no node runs with this configuration", "data/run.json"]);
    assert!(!home.path("data").exists());
}

#[test]
fn status_of_a_killed_node_says_that_it_does_not_answer() {
    let home = Home::new(crate::PROGRAM);
    let node = home.start_node("node.toml");
    let pid = node.child.id();
    drop(node);
    let named = [&format!("process {pid} does not answer"), "may have been killed"];
    home.run(["status", "--config", "node.toml"]).failed(&named);
}

#[test]
fn sigterm_and_sigint_end_a_node_in_order() {
    let home = Home::new(crate::PROGRAM);
    for signal in ["TERM", "INT"] {
        // At once: whoever reads "ready" may send it.
        let finished = home.start_node("node.toml").stop(signal);
        assert_eq!(finished.code(), 0, "{finished:?}");
        assert!(!home.path("data/run.json").exists());
        let log = &finished.stderr;
        assert!(log.contains("stopped") && !log.contains("not stopped in order") && !log.contains("panic"), "{log}");
    }
}

#[test]
fn a_killed_node_starts_again_on_the_same_data() {
    let home = Home::new(crate::PROGRAM);
    let killed = home.start_node("node.toml");
    let before = run_file(&home);
    drop(killed);
    let node = home.start_node("node.toml");
    let now = run_file(&home);
    assert_ne!(now["pid"], before["pid"]);
    assert_eq!(now["peer_id"], before["peer_id"]);
    node.stop("TERM").ok();
}

#[test]
fn the_database_logs_only_when_asked_to() {
    let home = Home::new(crate::PROGRAM);
    let quiet = home.start_node("node.toml").stop("TERM");
    assert!(!quiet.stderr.contains(" fjall::") && !quiet.stderr.contains(" lsm_tree::"), "{}", quiet.stderr);
    assert!(quiet.stderr.contains("INFO"), "{}", quiet.stderr);
    let mut command = home.command(["node", "--config", "node.toml"]);
    let node = Running::start(command.env("RUST_LOG", "fjall=info"));
    node.until("it is ready", |output| output.stdout.starts_with("ready: "));
    let loud = node.stop("TERM");
    assert!(loud.stderr.contains(" fjall::"), "{}", loud.stderr);
}
