//! The status page as people meet it: a real node, a real browser.
//!
//! Needs Chromium and chromedriver. `make test-browser` says so where they are missing. Each state leaves pictures in
//! target/browser.

mod browser;

use browser::Browser;
use serde_json::Value;
use soma_p2p::{FjallStore, Genesis, PeerId, SigningKey, Store};
use soma_testkit::{
    ChainBuilder, ChainSpec,
    command::{Home, Output, Running, config},
    hostile::{Behaviour, Server},
};
use std::{fs, path::Path};

/// The command.
const PROGRAM: &str = env!("CARGO_BIN_EXE_soma-lab");

/// Commits of a chain that a node is seen to catch up with.
const COMMITS: usize = 20_000;

/// What the browser says of a node that has been stopped on purpose.
const STOPPED: [&str; 2] = ["ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED_ENCODING"];

/// A directory with a chain and the key of a node.
struct Network {
    home: Home,
    chain: ChainBuilder,
}

impl Network {
    fn new() -> Self {
        let home = Home::empty(PROGRAM);
        let chain = ChainBuilder::new(ChainSpec { commits_per_epoch: 5_000, ..ChainSpec::default() }).unwrap();
        fs::create_dir(home.path("chain")).unwrap();
        fs::write(home.path("chain/genesis.bin"), chain.genesis().encode()).unwrap();
        Self { home, chain }
    }

    fn genesis(&self) -> &Genesis {
        self.chain.genesis()
    }

    /// Fills the store of a node.
    fn fill(&mut self, name: &str, commits: usize) {
        let store = FjallStore::open(&self.home.path(&format!("{name}/store")), self.chain.genesis()).unwrap();
        for first in (0..commits).step_by(500) {
            store.apply(&self.chain.build(500.min(commits - first))).unwrap();
        }
    }

    /// Starts a node with a key and a directory of its own.
    fn start(&self, name: &str, seeds: &[String], p2p: &str) -> Node {
        if !self.home.path(&format!("{name}.key")).exists() {
            self.home.run(["keygen", "--out", &format!("{name}.key")]).ok();
        }
        let seeds = format!("seed_peers = {seeds:?}\n{p2p}");
        let text =
            config("", &seeds).replace("\"data\"", &format!("\"{name}\"")).replace("node.key", &format!("{name}.key"));
        self.home.write(&format!("{name}.toml"), &text);
        self.restart(name)
    }

    /// Starts a node again, with its old configuration.
    fn restart(&self, name: &str) -> Node {
        let process = self.home.start_node(&format!("{name}.toml"));
        Node { run: run_file(&self.home.path(name)), process }
    }
}

/// A node that runs.
struct Node {
    process: Running,
    run: Value,
}

impl Node {
    fn admin(&self) -> &str {
        self.run["admin"].as_str().unwrap()
    }

    fn seed(&self) -> String {
        format!("{}@{}", self.run["peer_id"].as_str().unwrap(), self.run["listen"].as_str().unwrap())
    }
}

fn run_file(data: &Path) -> Value {
    serde_json::from_slice(&fs::read(data.join("run.json")).unwrap()).unwrap()
}

fn number(text: &str) -> u32 {
    text.replace(',', "").parse().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn page_shows_a_node_that_catches_up_without_a_reload() {
    let mut network = Network::new();
    network.fill("server", COMMITS);
    let server = network.start("server", &[], "");
    let node = network.start("node", &[server.seed()], "");
    let browser = Browser::start().await;
    browser.open(node.admin()).await;
    browser.run("window.isSamePage = true").await;
    browser.until("height", "it has some commits", |height| (1..COMMITS as u32).contains(&number(height))).await;
    browser.picture("catches-up").await;
    browser.until("height", "it has all commits", |height| number(height) == COMMITS as u32).await;
    let sentence = browser.until("sentence", "it is synced", |text| text.contains("synced at commit 20000")).await;
    assert!(sentence.starts_with("The node is well: "), "{sentence}");
    assert_eq!(browser.text("percent").await, "100 %");
    assert!(browser.text("events").await.contains("epoch 4 has begun"), "{}", browser.text("events").await);
    assert!(browser.text("peer-table").await.contains(&server.seed()[..8]));
    assert!(browser.text("tree").await.contains("state-sync"));
    assert_eq!(browser.run("return window.isSamePage").await, true, "it was loaded again");
    browser.picture("synced").await;
    browser.close(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn page_survives_a_restart_of_the_node() {
    let network = Network::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    network.start("node", &[], "").process.stop("TERM").ok();
    let text = fs::read_to_string(network.home.path("node.toml")).unwrap();
    network.home.write("node.toml", &text.replace("admin = \"127.0.0.1:0\"", &format!("admin = \"127.0.0.1:{port}\"")));
    let node = network.restart("node");
    let browser = Browser::start().await;
    browser.open(node.admin()).await;
    browser.until("sentence", "the node is shown", |text| text.starts_with("The node is")).await;
    browser.run("window.isSamePage = true").await;
    node.process.stop("TERM").ok();
    browser.until("sentence", "the page says that the node is gone", |text| text.contains("has not answered")).await;
    browser.picture("no-answer").await;
    let _node = network.restart("node");
    browser.until("sentence", "the node is shown again", |text| text.starts_with("The node is")).await;
    assert_eq!(browser.run("return window.isSamePage").await, true, "it was loaded again");
    browser.close(&STOPPED).await;
}

/// Opens the page of a stuck node, and waits for its cause and what to do.
async fn shows_stuck(node: &Node, cause: &str, explanation: &str, advice: &str) {
    let browser = Browser::start().await;
    browser.open(node.admin()).await;
    browser
        .until("sentence", cause, |text| text.starts_with("The node is not well") && text.contains(explanation))
        .await;
    browser.until("advice", cause, |text| text.contains(advice)).await;
    browser.picture(format!("stuck-{cause}")).await;
    browser.close(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn page_says_why_a_node_is_stuck_and_what_to_do() {
    let mut network = Network::new();
    network.fill("server", 2_000);
    let server = network.start("server", &[], "");
    let stranger = PeerId::from(&SigningKey::from_bytes(&[9; 32]));

    let alone = network.start("alone", &[], "");
    shows_stuck(&alone, "nobody-known", "no peer is known", "Set p2p.seed_peers").await;

    let unreachable = network.start("unreachable", &[format!("{stranger}@/ip4/127.0.0.1/tcp/1")], "");
    shows_stuck(&unreachable, "seeds-unreachable", "refused", "its firewall").await;

    let address = server.run["listen"].as_str().unwrap();
    let deceived = network.start("deceived", &[format!("{stranger}@{address}")], "");
    shows_stuck(&deceived, "seeds-have-other-keys", "key", "Check the peer ids").await;

    let foreign = Network::foreign();
    let astray = foreign.start("astray", &[server.seed()], "");
    shows_stuck(&astray, "seeds-on-other-chain", "chain", "Check the genesis file").await;

    drop(server);
    let pruned = network.home.run(["store", "prune", "server/store", "--commits", "100"]);
    pruned.ok();
    let server = network.restart("server");
    let late = network.start("late", &[server.seed()], "");
    shows_stuck(&late, "all-pruned", "have pruned it", "Set an archive").await;
}

impl Network {
    /// Of another chain.
    fn foreign() -> Self {
        let mut network = Self::new();
        network.chain = ChainBuilder::new(ChainSpec { seed: 99, ..ChainSpec::default() }).unwrap();
        fs::write(network.home.path("chain/genesis.bin"), network.genesis().encode()).unwrap();
        network
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn page_shows_who_attacks_the_node_and_why_the_peer_is_banned() {
    let mut network = Network::new();
    let commits = network.chain.build(60);
    let key = SigningKey::from_bytes(&[100; 32]);
    let liar = PeerId::from(&key);
    let server = Server::start(Behaviour::FlipsBlocks, &key, network.genesis(), &commits, 0).await;
    let node = network.start("node", &[server.seed_peer().to_string()], "");
    let browser = Browser::start().await;
    browser.open(node.admin()).await;
    browser.until("ban-rows", "the ban is shown", |rows| rows.contains(&liar.short())).await;
    let events = browser.text("events").await;
    assert!(events.contains(&format!("peer {} was banned: ", liar.short())), "{events}");
    browser.picture("attacked").await;
    browser.close(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_are_sorted_and_filtered_by_keyboard() {
    let network = Network::new();
    let seeds: Vec<Node> = (0..3).map(|number| network.start(&format!("seed{number}"), &[], "")).collect();
    let node = network.start("node", &seeds.iter().map(Node::seed).collect::<Vec<_>>(), "");
    let browser = Browser::start().await;
    browser.open(node.admin()).await;
    browser.until("peers-count", "all peers are shown", |text| text == "(3)").await;
    let names = "return [...document.querySelectorAll('#peer-table tbody tr')].map((row) => row.cells[0].innerText)";
    browser.run("document.querySelector('#peer-table th button').focus()").await;
    let active = browser.client.active_element().await.unwrap();
    active.send_keys("\u{e007}").await.unwrap();
    let ascending: Vec<String> = serde_json::from_value(browser.run(names).await).unwrap();
    assert!(ascending.is_sorted(), "{ascending:?}");
    browser.client.active_element().await.unwrap().send_keys("\u{e007}").await.unwrap();
    let descending: Vec<String> = serde_json::from_value(browser.run(names).await).unwrap();
    assert_eq!(descending, ascending.iter().rev().cloned().collect::<Vec<_>>());
    assert_eq!(browser.run("return document.querySelector('#peer-table th').ariaSort").await, "descending");
    browser.run("document.getElementById('filter').focus()").await;
    browser.client.active_element().await.unwrap().send_keys(&ascending[1]).await.unwrap();
    browser.until("peers-count", "one peer is left", |text| text == "(1 of 3)").await;
    assert_eq!(browser.run(names).await, serde_json::json!([ascending[1]]));
    browser.picture("filtered").await;
    browser.close(&[]).await;
}

/// Where a localnet says that its page is.
fn page_of_the_network(output: &Output) -> Option<String> {
    let line = output.stdout.lines().chain(output.stderr.lines()).find(|line| line.contains("page of the network: "));
    Some(line?.split_once("http://")?.1.trim_end_matches('/').to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn page_of_a_network_shows_its_nodes_and_links_and_says_when_it_has_ended() {
    let home = Home::empty(PROGRAM);
    let options = ["--commits", "3000", "--transactions", "0", "--seconds", "600", "--page", "--dir", "net"];
    let localnet = Running::start(&mut home.command([&["localnet"], &options[..]].concat()));
    let mut address = None;
    localnet.until("its page is known", |output| {
        address = page_of_the_network(output);
        address.is_some()
    });
    let browser = Browser::start().await;
    browser.open(&address.unwrap()).await;
    browser.until("sentence", "all nodes are well", |text| text.starts_with("All 5 nodes are well")).await;
    let nodes = browser.until("nodes", "the full node follows", |text| text.matches("synced at").count() == 5).await;
    assert!(nodes.contains("validator-3") && nodes.contains("full-node-0"), "{nodes}");
    let links = browser.run("return document.querySelectorAll('#graph line').length").await;
    assert!(links.as_u64().unwrap() >= 4, "{links}");
    browser.picture("network").await;

    localnet.stop("INT");
    browser.until("sentence", "the page says that the network is gone", |text| text.contains("has ended")).await;
    browser.picture("network-ended").await;
    browser.close(&STOPPED).await;
}
